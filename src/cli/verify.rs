//! Checking signed documents without a market: no database, no network, no key of ours.

use std::{
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};

use clap::Args;

use super::{
    failure::{Exit, Failure},
    output::Output,
};
use crate::document::{
    value::PublicKey,
    verification::{Checked, Verdict, verify},
};

/// Bytes of a file at most; the documents of one task are far below.
const MAX_BYTES: u64 = 256 << 20;

/// `zerostate verify`
#[derive(Debug, Args)]
pub(super) struct VerifyCommand {
    /// The file with the documents: a bundle, or the answer of a query; - is standard input.
    file: PathBuf,
    /// The Ed25519 key of the market that must have signed them, in hex. Without it they are only held against themselves.
    #[arg(long, value_name = "HEX", value_parser = public_key)]
    public_key: Option<PublicKey>,
    /// Print a JSON document.
    #[arg(long)]
    json: bool,
}

fn public_key(text: &str) -> Result<PublicKey, String> {
    text.to_ascii_lowercase().parse()
}

/// Runs `zerostate verify`: exits with 1 unless there are documents and all of them are right.
pub(super) fn run(command: &VerifyCommand) -> Result<(), Failure> {
    let text = read(&command.file)?;
    let verdict = verify(&text, command.public_key).map_err(|why| {
        let what = format!("{} cannot be checked: {why}.", command.file.display());
        Failure::failed(what, "Save the answer of `taskReceipt` or `awardCertificate`, or their `bundle`.")
    })?;
    let mut output = Output::new();
    if command.json {
        output.json(&verdict)?;
    } else {
        for document in &verdict.documents {
            tell_of(document, &mut output)?;
        }
        writeln!(output, "{}", conclusion(&verdict))?;
    }
    if verdict.ok {
        return Ok(());
    }
    let wrong = verdict.documents.iter().filter(|document| !document.findings.problems.is_empty()).count();
    Err(Failure::failed(
        format!("{wrong} of {} documents are not right.", verdict.documents.len()),
        "Do not rely on them; ask the market for them again, and show others what you have.",
    ))
}

fn read(file: &Path) -> Result<String, Failure> {
    let unreadable = |why: String| {
        Failure::new(
            Exit::Failed,
            format!("{} cannot be read: {why}.", file.display()),
            "Name a file with signed documents.",
        )
    };
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().take(MAX_BYTES).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|opened| opened.take(MAX_BYTES).read_to_string(&mut text))
    };
    match read {
        Ok(bytes) if u64::try_from(bytes).is_ok_and(|bytes| bytes < MAX_BYTES) => Ok(text),
        Ok(_) => Err(unreadable("it is larger than 256 MiB".to_owned())),
        Err(error) => Err(unreadable(error.to_string())),
    }
}

fn tell_of(document: &Checked, output: &mut Output) -> std::io::Result<()> {
    let named = match (document.kind, &document.id, document.version) {
        (Some(kind), Some(id), Some(version)) => format!("{kind} {id} version {version}"),
        (_, _, _) => format!("document {}", document.sha256),
    };
    let verdict = if document.findings.problems.is_empty() { "ok" } else { "WRONG" };
    writeln!(output, "{named}: {verdict}")?;
    for line in &document.summary {
        writeln!(output, "  {line}")?;
    }
    for problem in &document.findings.problems {
        writeln!(output, "  WRONG {} {}", problem.at, problem.why)?;
    }
    for note in &document.findings.notes {
        writeln!(output, "  note: {note}")?;
    }
    Ok(())
}

fn conclusion(verdict: &Verdict) -> String {
    let documents = verdict.documents.len();
    let noun = if documents == 1 { "document" } else { "documents" };
    match (verdict.ok, verdict.pinned) {
        (false, _) => format!("{documents} {noun} checked: not right"),
        (true, true) => format!("{documents} {noun} checked: right, and signed by the given key"),
        (true, false) => {
            let mut keys: Vec<&str> =
                verdict.documents.iter().filter_map(|checked| checked.public_key.as_deref()).collect();
            keys.sort_unstable();
            keys.dedup();
            format!(
                "{documents} {noun} checked: right in themselves, and signed by {}\nOnly self-consistency was checked: give the \
                 market's key by --public-key to know whose they are.",
                keys.join(" and ")
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_document_is_not_right() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file.json");
        let run = |text: &str| {
            std::fs::write(&file, text).unwrap();
            run(&VerifyCommand { file: file.clone(), public_key: None, json: false }).unwrap_err().to_string()
        };
        assert!(run("").contains("holds no signed document"));
        assert!(run("[1").contains("is not JSON"));
        assert!(run(r#"{ "data": { "taskReceipt": null } }"#).contains("holds no signed document"));
        let forged = format!(r#"{{ "body": "{{}}", "signature": "{}" }}"#, "0".repeat(128));
        assert!(run(&forged).contains("1 of 1 documents are not right"));
        let missing = VerifyCommand { file: folder.path().join("none"), public_key: None, json: true };
        assert!(super::run(&missing).unwrap_err().to_string().contains("cannot be read"));
    }
}
