//! The books as the operator and as a stranger see them: are they right, and how does anybody else find out.

use std::{
    fs::File,
    io::{BufReader, BufWriter, Write as _},
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    database::{connect, refuse_pending},
    failure::Failure,
    output::Output,
    settings::Settings,
};
use crate::{
    app::{self, App},
    ledger::Audit,
    store::{Clock, Entropy},
};

/// `zerostate audit …`
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct AuditCommand {
    /// Print a JSON document.
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Write the books to a file that anybody can check: no names, no addresses, no contents of tasks.
    Export {
        /// The file; it must not be there yet.
        file: PathBuf,
    },
    /// Check such a file without the database; exits with 1 when anything in it is broken.
    Verify {
        /// The file.
        file: PathBuf,
        /// The public key of the market in hex, from elsewhere than the file.
        #[arg(long, value_name = "HEX", value_parser = public_key)]
        public_key: Option<[u8; 32]>,
        /// A head of the journal that you kept: its place, a colon and its hash.
        #[arg(long, value_name = "PLACE:HASH", value_parser = kept_head)]
        head: Option<(i64, String)>,
        /// Print a JSON document.
        #[arg(long)]
        json: bool,
    },
}

fn public_key(text: &str) -> Result<[u8; 32], String> {
    let key = hex::decode(text).ok().and_then(|bytes| bytes.try_into().ok());
    key.ok_or_else(|| "a public key is 64 hexadecimal digits".to_owned())
}

fn kept_head(text: &str) -> Result<(i64, String), String> {
    let read = || {
        let (place, hash) = text.split_once(':')?;
        let place = place.parse().ok().filter(|place| *place >= 0)?;
        Some((place, hex::encode(public_key(hash).ok()?)))
    };
    read().ok_or_else(|| "a head is a place, a colon and 64 hexadecimal digits".to_owned())
}

/// Runs `zerostate audit …`.
pub(super) async fn run(command: AuditCommand, settings: &Settings) -> Result<(), Failure> {
    match command.action {
        None => audit(command.json, settings).await,
        Some(Action::Export { file }) => export(&file, settings).await,
        Some(Action::Verify { file, public_key, head, json }) => verify(&file, public_key, head, json).await,
    }
}

async fn open(settings: &Settings) -> Result<App, Failure> {
    let config = settings.config();
    let store = connect(&config).await?;
    refuse_pending(&store.difference().await?.pending)?;
    drop(store);
    Ok(App::open(config, Clock::System, Entropy::system()).await?)
}

async fn audit(as_json: bool, settings: &Settings) -> Result<(), Failure> {
    let audit = open(settings).await?.audit().await?;
    let mut output = Output::new();
    if as_json {
        output.json(&json!({ "ok": audit.ok(), "violations": audit.violations(), "checks": checks(&audit) }))?;
    } else {
        write_checks(&mut output, &audit)?;
    }
    if audit.ok() {
        return Ok(());
    }
    Err(Failure::failed(
        format!("The books are broken in {} rows.", audit.violations()),
        "Keep the database as it is and compare it with the newest backup; a running service moves no credits until its next audit is clean.",
    ))
}

async fn export(file: &Path, settings: &Settings) -> Result<(), Failure> {
    let cannot = |error: std::io::Error| {
        Failure::failed(format!("{} cannot be written: {error}.", file.display()), "Name a file that is not there yet.")
    };
    let app = open(settings).await?;
    let to = File::create_new(file).map_err(cannot)?;
    let contents = app.export(BufWriter::new(&to)).await?;
    to.sync_all().map_err(cannot)?;
    let mut output = Output::new();
    output.json(&json!({
        "file": file.display().to_string(),
        "publicKey": hex::encode(contents.signer_key),
        "rows": contents.rows,
    }))?;
    Ok(())
}

async fn verify(file: &Path, key: Option<[u8; 32]>, head: Option<(i64, String)>, as_json: bool) -> Result<(), Failure> {
    let from = File::open(file).map_err(|error| {
        Failure::failed(format!("{} cannot be read: {error}.", file.display()), "Name the file of an archive.")
    })?;
    let verdict = app::verify(BufReader::new(from), key, head).await?;
    let (audit, contents) = (&verdict.audit, &verdict.contents);
    let head = verdict.head.as_ref().map(|(place, hash)| format!("{place}:{hash}"));
    let mut output = Output::new();
    if as_json {
        output.json(&json!({
            "ok": audit.ok(),
            "violations": audit.violations(),
            "checks": checks(audit),
            "publicKey": hex::encode(contents.signer_key),
            "exportedAt": contents.exported_at.to_string(),
            "head": head,
            "rows": contents.rows,
        }))?;
    } else {
        write_checks(&mut output, audit)?;
        writeln!(output, "\npublic key  {}", hex::encode(contents.signer_key))?;
        writeln!(output, "exported    {}", contents.exported_at)?;
        writeln!(output, "head        {}", head.as_deref().unwrap_or("none"))?;
        if key.is_none() {
            writeln!(output, "The key is the archive's own word: name the one that you know with --public-key.")?;
        }
    }
    if audit.ok() {
        return Ok(());
    }
    let broken: Vec<&str> = audit.checks.iter().filter(|it| it.violations > 0).map(|it| it.name).collect();
    Err(Failure::failed(
        format!("The archive breaks {}.", broken.join(", ")),
        "Do not trust it; ask the market for another one.",
    ))
}

fn checks(audit: &Audit) -> Vec<Value> {
    let of = |check: &crate::ledger::Check| json!({ "name": check.name, "statement": check.statement, "violations": check.violations });
    audit.checks.iter().map(of).collect()
}

fn write_checks(output: &mut Output, audit: &Audit) -> std::io::Result<()> {
    for check in &audit.checks {
        let verdict = if check.violations == 0 { "ok".to_owned() } else { format!("{} violations", check.violations) };
        writeln!(output, "{:<4} {verdict:<14} {}", check.name, check.statement)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_heads_are_read() {
        let hex = "ab".repeat(32);
        assert_eq!(public_key(&hex), Ok([0xab; 32]));
        assert_eq!(kept_head(&format!("7:{hex}")), Ok((7, hex.clone())));
        for wrong in ["", "7", "7:", "-1:ab", &hex, &format!("x:{hex}"), &format!("7:{hex}0")] {
            assert!(kept_head(wrong).is_err(), "{wrong}");
        }
    }
}
