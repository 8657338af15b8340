//! The database as the operator sees it: its schema's version.

use std::io::Write as _;

use clap::Subcommand;
use serde_json::json;

use super::{
    failure::{Failure, waits_for},
    output::Output,
    settings::{Settings, redacted},
};
use crate::{
    config::Config,
    store::{Clock, Difference, Entropy, Store},
};

/// `zerostate migrate …`
#[derive(Debug, Subcommand)]
pub(super) enum MigrateCommand {
    /// Bring the schema up to date.
    Up,
    /// Say which migrations are pending; exits with 3 when there are any.
    Status {
        /// Print a JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Take back the newest migrations. What their tables held is lost.
    Down {
        /// How many.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        steps: u32,
    },
}

pub(super) async fn connect(config: &Config) -> Result<Store, Failure> {
    Ok(Store::connect(&config.storage, config.terms.clone(), Clock::System, Entropy::system()).await?)
}

/// Runs `zerostate migrate …`.
pub(super) async fn migrate(command: MigrateCommand, settings: &Settings) -> Result<(), Failure> {
    let config = settings.config();
    let store = connect(&config).await?;
    let mut output = Output::new();
    let Difference { pending, newer } = store.difference().await?;
    match command {
        MigrateCommand::Up => {
            for name in &store.migrate().await? {
                writeln!(output, "applied {name}")?;
            }
            writeln!(output, "{} is up to date", redacted(&config.storage.url))?;
        }
        MigrateCommand::Status { json } => {
            if json {
                output
                    .json(&json!({ "database": redacted(&config.storage.url), "pending": pending, "newer": newer }))?;
            } else if pending.is_empty() {
                writeln!(output, "{} is up to date", redacted(&config.storage.url))?;
            } else {
                for name in &pending {
                    writeln!(output, "pending {name}")?;
                }
            }
            refuse_pending(&pending)?;
        }
        MigrateCommand::Down { steps } => {
            store.migrate_down(steps).await?;
            let left = store.difference().await?.pending;
            for name in left.iter().filter(|name| !pending.contains(name)).rev() {
                writeln!(output, "took back {name}")?;
            }
        }
    }
    Ok(())
}

pub(super) fn refuse_pending(pending: &[String]) -> Result<(), Failure> {
    if pending.is_empty() { Ok(()) } else { Err(waits_for(pending)) }
}
