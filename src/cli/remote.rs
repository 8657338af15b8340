//! Which server a command speaks to, and as whom. It uses the public API and nothing else, so it works from any machine.

use std::io::{IsTerminal, stderr, stdin};

use clap::Args;
use entity::money::Amount;
use serde_json::{Value, json};
use url::Url;

use super::{
    client::{Api, Person},
    failure::{Exit, Failure},
    user::read_password,
};
use crate::store::Entropy;

/// The server and the credentials.
#[derive(Args, Clone, Debug)]
pub(super) struct Remote {
    /// The server.
    #[arg(
        long, env = "ZEROSTATE_SERVER", value_name = "URL", default_value = "http://127.0.0.1:8080", value_parser = server,
        help_heading = "Server"
    )]
    server: Url,
    /// Sign in with this address; the password is asked for unless it is given. Without it ZEROSTATE_TOKEN, an access token, or
    /// ZEROSTATE_API_KEY counts.
    #[arg(long, env = "ZEROSTATE_EMAIL", value_name = "EMAIL", help_heading = "Server")]
    email: Option<String>,
    /// A file with the password; - for standard input. ZEROSTATE_PASSWORD has the password itself.
    #[arg(
        long,
        env = "ZEROSTATE_PASSWORD_FILE",
        value_name = "FILE",
        conflicts_with = "password",
        help_heading = "Server"
    )]
    password_file: Option<String>,
    /// The password, from the environment; a flag would show it to everybody on the machine.
    #[arg(long, env = "ZEROSTATE_PASSWORD", hide = true, hide_env_values = true)]
    password: Option<String>,
    /// An access token, from the environment.
    #[arg(long, env = "ZEROSTATE_TOKEN", hide = true, hide_env_values = true)]
    token: Option<String>,
    /// An API key, from the environment.
    #[arg(long, env = "ZEROSTATE_API_KEY", hide = true, hide_env_values = true)]
    api_key: Option<String>,
}

/// Accepts the address of a server.
fn server(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    if !["http", "https"].contains(&url.scheme()) || url.host().is_none() {
        return Err("must be like http://127.0.0.1:8080 or https://market.example".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
        return Err("must have no user, query or fragment".to_owned());
    }
    Ok(url)
}

/// A server, and who we are there.
pub(super) struct Link {
    pub(super) api: Api,
    pub(super) who: Person,
    entropy: Entropy,
}

impl Remote {
    /// Signs in if there is a password to do so; a token or a key is tried by its first use.
    pub(super) async fn link(&self) -> Result<Link, Failure> {
        let api = Api::at(&self.server)?;
        let who = match (&self.email, &self.token, &self.api_key) {
            (Some(email), _, _) => {
                let person = Person::new(email.clone(), "", self.secret(email)?);
                api.login(&person).await.map_err(|refused| match refused.code.as_str() {
                    "UNAUTHENTICATED" => {
                        Failure::failed(format!("{email} was not signed in: {refused}."), "Check address and password.")
                    }
                    _ => refused.into(),
                })?;
                person
            }
            (None, Some(secret), _) | (None, None, Some(secret)) => Person::bearer(secret.clone()),
            (None, None, None) => return Err(self.nobody()),
        };
        Ok(Link { api, who, entropy: Entropy::system() })
    }

    fn nobody(&self) -> Failure {
        Failure::configuration(
            format!("Nobody is signed in at {}.", self.server),
            "Set ZEROSTATE_TOKEN or ZEROSTATE_API_KEY, or give --email; the password is asked for, or read from \
             ZEROSTATE_PASSWORD or --password-file.",
        )
    }

    fn secret(&self, email: &str) -> Result<String, Failure> {
        if let Some(password) = &self.password {
            return Ok(password.clone());
        }
        if let Some(file) = &self.password_file {
            return read_password(file);
        }
        if !stdin().is_terminal() || !stderr().is_terminal() {
            return Err(Failure::configuration(
                format!("There is no password for {email} and no terminal to ask at."),
                "Set ZEROSTATE_PASSWORD, or name a file by --password-file.",
            ));
        }
        let asked = rpassword::prompt_password(format!("Password of {email}: "));
        asked.map_err(|error| {
            Failure::configuration(format!("The password could not be asked for: {error}."), "Set ZEROSTATE_PASSWORD.")
        })
    }
}

impl Link {
    /// A fresh idempotency key.
    pub(super) fn key(&self) -> String {
        format!("cli-{}", hex::encode(self.entropy.bytes::<16>()))
    }

    /// What a query answers, and a mutation with a key; repeated while the server is away.
    pub(super) async fn ask(&self, document: &str, variables: Value) -> Result<Value, Failure> {
        Ok(self.api.insist(&self.who, document, variables).await?)
    }

    /// What a mutation of an input answers under a field of its payload.
    pub(super) async fn change(&self, document: &str, input: Value, field: &str) -> Result<Value, Failure> {
        let mut payload = self.ask(document, json!({ "input": input })).await?;
        Ok(payload.get_mut(field).map(Value::take).unwrap_or_default())
    }
}

/// The text at a key; a dash where there is none.
pub(super) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or("-")
}

/// The words at a key, with commas between them.
pub(super) fn words(value: &Value, key: &str) -> String {
    let all = value.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    all.collect::<Vec<_>>().join(",")
}

/// The list at a pointer.
pub(super) fn nodes<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

/// An amount to pay.
pub(super) fn credits(text: &str) -> Result<Amount, String> {
    match text.parse::<Amount>() {
        Ok(amount) if amount.is_zero() => Err("must be more than zero".to_owned()),
        Ok(amount) => Ok(amount),
        Err(error) => Err(error.to_string()),
    }
}

/// Seconds as a duration of the API.
pub(super) fn duration(seconds: u64) -> String {
    format!("PT{seconds}S")
}

/// The JSON document in a file.
pub(super) fn document(file: &std::path::Path, what: &str) -> Result<Value, Failure> {
    let wrong = |error: &dyn std::error::Error| {
        let said = format!("The {what} {} cannot be used: {error}.", file.display());
        Failure::new(Exit::Usage, said, "Name a file with one JSON document.")
    };
    let read = if file == std::path::Path::new("-") {
        std::io::read_to_string(stdin())
    } else {
        std::fs::read_to_string(file)
    };
    let text = read.map_err(|error| wrong(&error))?;
    serde_json::from_str(&text).map_err(|error| wrong(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_an_address_and_nothing_else() {
        for right in ["http://127.0.0.1:8080", "https://market.example/zero", "http://[::1]:80/"] {
            assert!(server(right).is_ok(), "{right}");
        }
        for wrong in ["127.0.0.1:8080", "ftp://h", "http://u:p@h", "http://h/?a=b", "http://h/#x", "", "localhost"] {
            assert!(server(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_budget_is_more_than_nothing() {
        assert_eq!(credits("2.5").map(Amount::micros), Ok(2_500_000));
        for wrong in ["0", "-1", "1e3", "", "1.0000001", "all"] {
            assert!(credits(wrong).is_err(), "{wrong}");
        }
    }
}
