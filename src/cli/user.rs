//! Accounts that the operator makes: `zerostate user`, and the first administrator of a service.

use std::{io::Write as _, path::Path};

use clap::{Args, Subcommand, ValueEnum};
use entity::user::{self as users, Role};
use sea_orm::{ColumnTrait, EntityTrait, PaginatorTrait, QueryFilter};
use serde_json::json;

use super::{failure::Failure, output::Output, settings::Settings};
use crate::{
    app::App,
    caller::Caller,
    error::{Error, Result},
    store::{Clock, Entropy},
    user::{self as verbs, NewAccount},
};

/// What a user may do, on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum RoleName {
    User,
    Arbiter,
    Admin,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::User => Self::User,
            RoleName::Arbiter => Self::Arbiter,
            RoleName::Admin => Self::Admin,
        }
    }
}

/// `zerostate user …`
#[derive(Debug, Subcommand)]
pub(super) enum UserCommand {
    /// Make an account. Without a password file a password is made up and printed.
    Create {
        /// The address to sign in with.
        email: String,
        /// The name that others see; the part of the address before the @ when it is left out.
        #[arg(long)]
        name: Option<String>,
        /// What the user may do.
        #[arg(long, value_enum, default_value = "user")]
        role: RoleName,
        /// A file with the password; - for standard input.
        #[arg(long, value_name = "FILE")]
        password_file: Option<String>,
        /// Print a JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Give a user another role.
    Promote {
        /// The address of the account.
        email: String,
        /// What the user may do from now on.
        #[arg(long, value_enum, default_value = "admin")]
        role: RoleName,
        /// Print a JSON document.
        #[arg(long)]
        json: bool,
    },
}

/// The first administrator.
#[derive(Args, Clone, Debug)]
pub(super) struct FirstAdmin {
    /// Makes an administrator with this address when there is none.
    #[arg(long, env = "ZEROSTATE_ADMIN_EMAIL", value_name = "EMAIL")]
    admin_email: Option<String>,
    /// The first administrator's password, from the environment; a flag would show it to everybody on the machine.
    #[arg(long, env = "ZEROSTATE_ADMIN_PASSWORD", hide = true, hide_env_values = true)]
    admin_password: Option<String>,
    /// A file with the first administrator's password.
    #[arg(long, env = "ZEROSTATE_ADMIN_PASSWORD_FILE", value_name = "FILE", conflicts_with = "admin_password")]
    admin_password_file: Option<String>,
}

impl FirstAdmin {
    /// Makes the administrator if it was asked for and there is none. Answers whether there is one now.
    pub(super) async fn ensure(&self, app: &App) -> std::result::Result<bool, Failure> {
        if has_admin(app).await? {
            return Ok(true);
        }
        let password = match (&self.admin_password, &self.admin_password_file) {
            (Some(password), _) => Some(password.clone()),
            (None, Some(file)) => Some(read_password(file)?),
            (None, None) => None,
        };
        match (&self.admin_email, password) {
            (None, None) => Ok(false),
            (Some(email), Some(password)) => match create(app, email, "Administrator", &password, Role::Admin).await {
                Ok(user) => {
                    tracing::info!(user = %user.id, "made the first administrator");
                    Ok(true)
                }
                // Another instance that starts at the same moment may have been first.
                Err(error) if error.refusal_code() == Some("EMAIL_TAKEN") && has_admin(app).await? => Ok(true),
                Err(error) if error.refusal_code() == Some("EMAIL_TAKEN") => Err(Failure::configuration(
                    format!("{email} has an account that is no administrator."),
                    format!("Run `zerostate user promote {email}`."),
                )),
                Err(error @ Error::Invalid { .. }) => Err(Failure::configuration(
                    format!("The first administrator cannot be made: {error}."),
                    "Correct ZEROSTATE_ADMIN_EMAIL and ZEROSTATE_ADMIN_PASSWORD.",
                )),
                Err(error) => Err(error.into()),
            },
            (Some(_), None) => Err(Failure::configuration(
                "ZEROSTATE_ADMIN_EMAIL is set without a password.",
                "Set ZEROSTATE_ADMIN_PASSWORD or ZEROSTATE_ADMIN_PASSWORD_FILE too.",
            )),
            (None, Some(_)) => Err(Failure::configuration(
                "A password for the first administrator is set without an address.",
                "Set ZEROSTATE_ADMIN_EMAIL too.",
            )),
        }
    }
}

async fn has_admin(app: &App) -> Result<bool> {
    let admins = users::Entity::find().filter(users::Column::Role.eq(Role::Admin));
    Ok(admins.count(app.store().read()).await? > 0)
}

/// Makes an account on the operator's behalf.
pub(super) async fn create(app: &App, email: &str, name: &str, password: &str, role: Role) -> Result<users::Model> {
    let password_hash = app.auth().hash(password).await?;
    let new = NewAccount { email: email.to_owned(), display_name: name.to_owned(), password_hash, role };
    app.store().write(Caller::System, async |work| verbs::create(work, new).await).await
}

/// The password in a file, or on standard input, without the line end that editors put behind it.
pub(super) fn read_password(file: &str) -> std::result::Result<String, Failure> {
    let read =
        if file == "-" { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(Path::new(file)) };
    read.map(|text| text.trim_end_matches(['\r', '\n']).to_owned()).map_err(|error| {
        Failure::configuration(
            format!("The password cannot be read from {file}: {error}."),
            "Name a file that is readable.",
        )
    })
}

/// Runs `zerostate user …`.
pub(super) async fn run(command: UserCommand, settings: &Settings) -> std::result::Result<(), Failure> {
    let app = App::open(settings.config(), Clock::System, Entropy::system()).await?;
    let mut output = Output::new();
    match command {
        UserCommand::Create { email, name, role, password_file, json } => {
            let (password, made_up) = match password_file {
                Some(file) => (read_password(&file)?, false),
                None => (hex::encode(app.store().entropy().bytes::<10>()), true),
            };
            let name = name.unwrap_or_else(|| email.split('@').next().unwrap_or(&email).to_owned());
            let user = create(&app, &email, &name, &password, role.into()).await.map_err(|error| {
                match error.refusal_code() {
                    Some("EMAIL_TAKEN") => Failure::failed(
                        format!("{email} has an account."),
                        format!("Run `zerostate user promote {email}` to give it another role."),
                    ),
                    Some(_) | None => error.into(),
                }
            })?;
            if json {
                let shown = made_up.then_some(password);
                output.json(&json!({
                    "id": user.id.to_string(), "email": user.email, "role": user.role.name(), "password": shown
                }))?;
            } else {
                writeln!(output, "{} {} {}", user.id, user.email, user.role.name())?;
                if made_up {
                    writeln!(output, "password: {password}")?;
                }
            }
        }
        UserCommand::Promote { email, role, json } => {
            let role: Role = role.into();
            let promoted =
                app.store().write(Caller::System, async |work| verbs::set_role(work, &email, role).await).await;
            let user = promoted.map_err(|error| {
                if matches!(error, Error::NotFound(_)) {
                    let advice = format!("Run `zerostate user create {email}` to make an account.");
                    return Failure::failed(format!("Nobody has the address {email}."), advice);
                }
                error.into()
            })?;
            if json {
                output.json(&json!({ "id": user.id.to_string(), "email": user.email, "role": user.role.name() }))?;
            } else {
                writeln!(output, "{} {} {}", user.id, user.email, user.role.name())?;
            }
        }
    }
    Ok(())
}
