//! Who is on the stage of a demonstration: a client, an administrator, and two owners with the sample agents. But for the
//! administrator, whom only the operator of a service can make, everybody arrives through the API.

use std::path::Path;

use bytes::Bytes;
use entity::{money::Amount, user::Role};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    client::{Api, Identified, Person, Refused},
    failure::Failure,
    operations, user,
};
use crate::{app::App, store::Entropy};

/// The sample agents with their prices.
const CATALOGUE: &str = include_str!("../../agents/agents.json");

/// The built module of a sample agent by the name of its file.
fn module(file: &str) -> Option<&'static [u8]> {
    Some(match file {
        "text-stats-lite.wasm" => include_bytes!("../../agents/wasm/text-stats-lite.wasm"),
        "text-stats-pro.wasm" => include_bytes!("../../agents/wasm/text-stats-pro.wasm"),
        "csv-summary-lite.wasm" => include_bytes!("../../agents/wasm/csv-summary-lite.wasm"),
        "csv-summary-pro.wasm" => include_bytes!("../../agents/wasm/csv-summary-pro.wasm"),
        "json-validate-lite.wasm" => include_bytes!("../../agents/wasm/json-validate-lite.wasm"),
        "json-validate-pro.wasm" => include_bytes!("../../agents/wasm/json-validate-pro.wasm"),
        "text-keywords-lite.wasm" => include_bytes!("../../agents/wasm/text-keywords-lite.wasm"),
        "text-keywords-pro.wasm" => include_bytes!("../../agents/wasm/text-keywords-pro.wasm"),
        "text-transform-lite.wasm" => include_bytes!("../../agents/wasm/text-transform-lite.wasm"),
        "text-transform-pro.wasm" => include_bytes!("../../agents/wasm/text-transform-pro.wasm"),
        _ => return None,
    })
}

/// A line of the catalogue.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Sample {
    name: String,
    description: String,
    pub(super) capabilities: Vec<String>,
    module: String,
    pub(super) price: String,
    pub(super) min_price: String,
}

impl Sample {
    /// Whether the thorough one of its capability; the others are cheap.
    pub(super) fn is_thorough(&self) -> bool {
        self.name.ends_with("-pro")
    }
}

fn catalogue() -> Result<Vec<Sample>, Failure> {
    serde_json::from_str(CATALOGUE)
        .map_err(|error| Failure::failed(format!("The catalogue of sample agents: {error}."), "Report this as a bug."))
}

/// A sample agent that is registered.
#[derive(Clone, Debug)]
pub(super) struct Seller {
    pub(super) id: String,
    pub(super) sample: Sample,
}

/// Everybody, ready to trade.
#[derive(Debug)]
pub(super) struct Cast {
    pub(super) api: Api,
    pub(super) client: Person,
    pub(super) admin: Person,
    /// Owns the cheap agents.
    ada: Person,
    /// Owns the thorough ones.
    grace: Person,
    pub(super) sellers: Vec<Seller>,
    entropy: Entropy,
}

/// How the people of a demonstration are told from those of another.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// Stands behind every name; empty in a database of one's own.
    suffix: String,
    /// What the passwords are made of.
    secret: String,
}

impl Names {
    /// The plain names, with fresh passwords.
    pub(super) fn plain(entropy: &Entropy) -> Self {
        Self { suffix: String::new(), secret: hex::encode(entropy.bytes::<16>()) }
    }

    /// Names that nobody had before, for a database that others use.
    pub(super) fn unique(entropy: &Entropy) -> Self {
        Self { suffix: format!("-{}", hex::encode(entropy.bytes::<4>())), ..Self::plain(entropy) }
    }

    /// The plain names, with the passwords that they had in this folder before.
    pub(super) fn kept(folder: &Path, entropy: &Entropy) -> std::io::Result<Self> {
        let file = folder.join("demo-secret");
        match std::fs::read_to_string(&file) {
            Ok(secret) => Ok(Self { suffix: String::new(), secret: secret.trim().to_owned() }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let names = Self::plain(entropy);
                write_secret(&file, &names.secret)?;
                Ok(names)
            }
            Err(error) => Err(error),
        }
    }

    fn person(&self, name: &str) -> Person {
        let email = format!("{}{}@demo.example", name.to_lowercase(), self.suffix);
        let hash = hex::encode(Sha256::digest(format!("{}/{email}", self.secret)));
        let password = hash.chars().take(20).collect();
        Person::new(email, &format!("{name}{}", self.suffix), password)
    }
}

fn write_secret(file: &Path, secret: &str) -> std::io::Result<()> {
    use std::io::Write;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    writeln!(options.open(file)?, "{secret}")
}

impl Cast {
    /// Brings everybody in. `app` makes the administrator; all else goes through `api`, whose server runs.
    pub(super) async fn enter(app: &App, api: Api, names: &Names) -> Result<Self, Failure> {
        let admin = names.person("Admin");
        match user::create(app, &admin.email, &admin.display_name, &admin.password, Role::Admin).await {
            Err(error) if error.refusal_code() != Some("EMAIL_TAKEN") => return Err(error.into()),
            Ok(_) | Err(_) => api.login(&admin).await?,
        }
        let mut cast = Self {
            api,
            client: names.person("Alice"),
            admin,
            ada: names.person("Ada"),
            grace: names.person("Grace"),
            sellers: Vec::new(),
            entropy: app.store().entropy().clone(),
        };
        for person in [&cast.client, &cast.ada, &cast.grace] {
            cast.arrive(person).await?;
        }
        for sample in catalogue()? {
            let seller = cast.offer(sample).await?;
            cast.sellers.push(seller);
        }
        Ok(cast)
    }

    async fn arrive(&self, person: &Person) -> Result<(), Refused> {
        match self.api.register(person).await {
            Err(refused) if refused.code == "EMAIL_TAKEN" => self.api.login(person).await,
            done => done,
        }
    }

    /// Registers a sample agent and uploads its module, unless that was done before.
    async fn offer(&self, sample: Sample) -> Result<Seller, Failure> {
        #[derive(Deserialize)]
        struct Mine {
            agents: Nodes,
        }
        #[derive(Deserialize)]
        struct Nodes {
            nodes: Vec<Own>,
        }
        #[derive(Deserialize)]
        struct Own {
            id: String,
            name: String,
            module: Option<Value>,
        }
        #[derive(Deserialize)]
        struct Answer {
            agent: Identified,
        }
        let owner = self.owner(&sample);
        let mine: Mine = self.api.call(owner, operations::MY_AGENTS, json!({})).await?;
        let known = mine.agents.nodes.into_iter().find(|own| own.name == sample.name);
        let (id, has_module) = if let Some(own) = known {
            (own.id, own.module.is_some())
        } else {
            let input = json!({
                "name": sample.name,
                "description": sample.description,
                "capabilities": sample.capabilities,
                "runtime": "HOSTED",
                "price": sample.price,
                "minPrice": sample.min_price,
                "idempotencyKey": self.key(),
            });
            let variables = json!({ "input": input });
            let answer: Answer = self.api.call(owner, operations::REGISTER_AGENT, variables).await?;
            (answer.agent.id, false)
        };
        if !has_module {
            let bytes = module(&sample.module).ok_or_else(|| {
                Failure::failed(format!("No module {} is built in.", sample.module), "Report this as a bug.")
            })?;
            let sha256 = self.api.upload(owner, &id, Bytes::from_static(bytes)).await?;
            if sha256 != hex::encode(Sha256::digest(bytes)) {
                return Err(Failure::failed(
                    "The server stored another module than was sent.",
                    "Report this as a bug.",
                ));
            }
        }
        Ok(Seller { id, sample })
    }

    /// Who owns a sample agent.
    pub(super) fn owner(&self, sample: &Sample) -> &Person {
        if sample.is_thorough() { &self.grace } else { &self.ada }
    }

    /// A fresh idempotency key, or part of a reference.
    pub(super) fn key(&self) -> String {
        format!("demo-{}", hex::encode(self.entropy.bytes::<8>()))
    }

    /// A number from 0 up to, but not including, `end`; 0 when `end` is.
    pub(super) fn draw(&self, end: u64) -> u64 {
        u64::from_le_bytes(self.entropy.bytes()).checked_rem(end).unwrap_or(0)
    }

    /// Gives the client credits as an administrator does, and answers the transfer.
    pub(super) async fn fund(&self, amount: Amount) -> Result<Value, Refused> {
        let input = json!({
            "userId": self.client.id(),
            "amount": amount.to_string(),
            "reference": self.key(),
            "idempotencyKey": self.key(),
        });
        let answer: Value = self.api.call(&self.admin, operations::ISSUE_CREDITS, json!({ "input": input })).await?;
        Ok(answer.get("transfer").cloned().unwrap_or_default())
    }

    /// Takes the sample agents out of a market that goes on without us. Says nothing when that fails: there is nothing left to do.
    pub(super) async fn leave(&self) {
        for seller in &self.sellers {
            let input = json!({ "input": { "agentId": seller.id } });
            let retired: Result<Value, Refused> =
                self.api.call(self.owner(&seller.sample), operations::RETIRE_AGENT, input).await;
            if let Err(error) = retired {
                tracing::warn!(%error, agent = seller.id, "a sample agent could not be retired");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_agent_is_built_in() {
        let samples = catalogue().unwrap();
        assert!(samples.len() >= 8);
        for sample in samples {
            let bytes = module(&sample.module).unwrap_or_else(|| panic!("{} is not built in", sample.module));
            assert!(bytes.starts_with(b"\0asm"), "{}", sample.module);
            let prices = (sample.min_price.parse::<Amount>().unwrap(), sample.price.parse::<Amount>().unwrap());
            assert!(prices.0 <= prices.1, "{}", sample.name);
        }
    }

    #[test]
    fn kept_passwords_stay_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let entropy = Entropy::seeded(1);
        let first = Names::kept(folder.path(), &entropy).unwrap().person("Alice");
        let again = Names::kept(folder.path(), &entropy).unwrap().person("Alice");
        assert_eq!((first.email.as_str(), &first.password), ("alice@demo.example", &again.password));
        assert_ne!(Names::unique(&entropy).person("Alice").email, Names::unique(&entropy).person("Alice").email);
    }
}
