//! The database as the operator sees it: its schema's version and whether the books are right.

use std::io::Write as _;

use clap::Subcommand;
use serde_json::{Value, json};

use super::{
    failure::Failure,
    output::Output,
    settings::{Settings, redacted},
};
use crate::{
    app::App,
    config::Config,
    store::{Clock, Entropy, Store},
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

async fn connect(config: &Config) -> Result<Store, Failure> {
    Ok(Store::connect(&config.storage, config.terms.clone(), Clock::System, Entropy::system()).await?)
}

/// Runs `zerostate migrate …`.
pub(super) async fn migrate(command: MigrateCommand, settings: &Settings) -> Result<(), Failure> {
    let config = settings.config();
    let store = connect(&config).await?;
    let mut output = Output::new();
    let pending = store.pending_migrations().await?;
    match command {
        MigrateCommand::Up => {
            store.migrate().await?;
            for name in &pending {
                writeln!(output, "applied {name}")?;
            }
            writeln!(output, "{} is up to date", redacted(&config.storage.url))?;
        }
        MigrateCommand::Status { json } => {
            if json {
                output.json(&json!({ "database": redacted(&config.storage.url), "pending": pending }))?;
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
            let left = store.pending_migrations().await?;
            for name in left.iter().filter(|name| !pending.contains(name)).rev() {
                writeln!(output, "took back {name}")?;
            }
        }
    }
    Ok(())
}

fn refuse_pending(pending: &[String]) -> Result<(), Failure> {
    if pending.is_empty() {
        return Ok(());
    }
    let (count, noun) = (pending.len(), if pending.len() == 1 { "migration" } else { "migrations" });
    Err(Failure::configuration(
        format!("The database waits for {count} {noun}."),
        "Run `zerostate migrate up`, or `zerostate serve`, which does it at its start.",
    ))
}

/// Runs `zerostate audit`.
pub(super) async fn audit(json: bool, settings: &Settings) -> Result<(), Failure> {
    let config = settings.config();
    let store = connect(&config).await?;
    refuse_pending(&store.pending_migrations().await?)?;
    drop(store);
    let app = App::open(config, Clock::System, Entropy::system()).await?;
    let audit = app.audit().await?;
    let mut output = Output::new();
    if json {
        let checks: Vec<Value> = audit
            .checks
            .iter()
            .map(|check| json!({ "name": check.name, "statement": check.statement, "violations": check.violations }))
            .collect();
        output.json(&json!({ "ok": audit.ok(), "violations": audit.violations(), "checks": checks }))?;
    } else {
        for check in &audit.checks {
            let verdict =
                if check.violations == 0 { "ok".to_owned() } else { format!("{} violations", check.violations) };
            writeln!(output, "{:<4} {verdict:<14} {}", check.name, check.statement)?;
        }
    }
    if audit.ok() {
        return Ok(());
    }
    Err(Failure::failed(
        format!("The books are broken in {} rows.", audit.violations()),
        "Stop the service, keep the database as it is, and compare it with the newest backup.",
    ))
}
