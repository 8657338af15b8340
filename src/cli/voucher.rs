//! Vouchers of payment channels on the command line: `zerostate voucher`. Nothing here asks a server, and no secret is ever an
//! argument, where everybody on the machine could read it: keys come from files or from standard input.

use std::{
    fs,
    io::{self, Read, Write as _},
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand, ValueEnum};
use entity::money::Amount;
use serde_json::{Value, json};

use super::{
    failure::{Exit, Failure},
    output::Output,
};
use crate::{
    store::{Entropy, keys},
    voucher::{
        self, CooperativeClose, MESSAGE_BYTES, SignedClose, SignedVoucher, Unreadable, Voucher, context_hash,
        public_key, read_hex, read_number,
    },
};

/// Bytes of a file that is read, at most; what belongs in one has less than a thousand.
const MAX_FILE: u64 = 16 * 1024;

/// What is signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    /// A payer's promise.
    #[default]
    Voucher,
    /// How both parties share a channel out.
    Close,
}

/// `zerostate voucher …`
#[derive(Debug, Subcommand)]
pub(super) enum VoucherCommand {
    /// Make an Ed25519 key pair: the secret key goes into a new file, the public key is printed.
    Keygen {
        /// The file to make; it must not be there yet. PKCS#8 in PEM, readable by its owner alone.
        file: PathBuf,
        /// Print a JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Sign a voucher, or a cooperative close.
    Sign(SignCommand),
    /// Check a signed voucher or a signed cooperative close; exits with 1 when it is not signed by that key.
    Verify {
        /// A file with the JSON document that `sign` printed; - for standard input.
        file: String,
        /// The public key that must have signed it, as 64 characters of lower-case hex.
        #[arg(long, value_name = "HEX")]
        signer: String,
        /// Print a JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Show what a voucher or a cooperative close says, signed or not.
    Inspect {
        /// A file with the JSON document that `sign` printed, or with the 136 bytes in hex; - for standard input.
        file: String,
        /// Print a JSON document.
        #[arg(long)]
        json: bool,
    },
}

/// `zerostate voucher sign`
#[derive(Args, Debug)]
pub(super) struct SignCommand {
    /// The file with the secret key: PKCS#8 in PEM, or 64 characters of hex; - for standard input.
    #[arg(long, value_name = "FILE")]
    key: String,
    /// What to sign.
    #[arg(long, value_enum, default_value = "voucher")]
    kind: Kind,
    /// The market: `serviceInfo { instanceId }`.
    #[arg(long, value_name = "HEX")]
    instance: String,
    /// The channel: `channel { hash }`.
    #[arg(long, value_name = "HEX")]
    channel: String,
    /// Which voucher of the channel it is, from 1.
    #[arg(long)]
    nonce: String,
    /// What the agent may have in all, in micro-credits.
    #[arg(long, value_name = "MICRO_CREDITS")]
    cumulative: String,
    /// Until when it is good, in seconds since 1970; 0 for no end, which a close must have.
    #[arg(long, value_name = "SECONDS", default_value = "0")]
    valid_until: String,
    /// What it pays for, as 64 characters of hex.
    #[arg(long, value_name = "HEX", conflicts_with = "about")]
    context: Option<String>,
    /// What it pays for, as a text that is hashed.
    #[arg(long, value_name = "TEXT")]
    about: Option<String>,
    /// Print a JSON document.
    #[arg(long)]
    json: bool,
}

/// What a document holds.
enum Document {
    Voucher(Voucher, Option<[u8; 64]>),
    Close(CooperativeClose, Option<[u8; 64]>),
}

impl Document {
    fn message(&self) -> [u8; MESSAGE_BYTES] {
        match self {
            Self::Voucher(voucher, _) => voucher.message(),
            Self::Close(close, _) => close.message(),
        }
    }

    fn signature(&self) -> Option<[u8; 64]> {
        match self {
            Self::Voucher(_, signature) | Self::Close(_, signature) => *signature,
        }
    }

    /// Lines for people: what each number means.
    fn lines(&self) -> Vec<(&'static str, String)> {
        let (kind, instance, channel, nonce, amount, valid_until) = match self {
            Self::Voucher(it, _) => ("voucher", it.instance_id, it.channel_id, it.nonce, it.cumulative, it.valid_until),
            Self::Close(it, _) => {
                ("close", it.instance_id, it.channel_id, it.nonce, it.final_cumulative, it.valid_until)
            }
        };
        let credits = i64::try_from(amount).ok().and_then(Amount::from_micros);
        let credits = credits.map_or_else(|| "too much".to_owned(), |credits| format!("{credits} credits"));
        let until = if valid_until == 0 { "no end".to_owned() } else { valid_until.to_string() };
        let mut lines = vec![
            ("kind", kind.to_owned()),
            ("instance", hex::encode(instance)),
            ("channel", hex::encode(channel)),
            ("nonce", nonce.to_string()),
            ("cumulative", format!("{amount} ({credits})")),
            ("valid until", until),
        ];
        if let Self::Voucher(voucher, _) = self {
            lines.push(("context", hex::encode(voucher.context_hash)));
        }
        lines.push(("signature", self.signature().map_or_else(|| "none".to_owned(), hex::encode)));
        lines
    }

    /// The document with what people and programs need beside it.
    fn json(&self) -> Result<Value, serde_json::Error> {
        let signature = self.signature().unwrap_or([0; 64]);
        let (kind, mut document, input) = match *self {
            Self::Voucher(voucher, _) => {
                let document = serde_json::to_value(SignedVoucher { voucher, signature })?;
                ("voucher", document, &["nonce", "cumulative", "validUntil", "contextHash", "signature"][..])
            }
            Self::Close(close, _) => {
                let document = serde_json::to_value(SignedClose { close, signature })?;
                ("close", document, &["nonce", "finalCumulative", "validUntil"][..])
            }
        };
        if let (None, Some(signature)) = (self.signature(), document.get_mut("signature")) {
            *signature = Value::Null;
        }
        let input: serde_json::Map<_, _> = input
            .iter()
            .filter_map(|name| document.get(*name).map(|value| ((*name).to_owned(), value.clone())))
            .collect();
        Ok(json!({ "kind": kind, "document": document, "input": input, "message": hex::encode(self.message()) }))
    }
}

fn usage(what: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Usage, what, "See `zerostate help voucher`.")
}

fn field<T>(name: &str, value: Result<T, Unreadable>) -> Result<T, Failure> {
    value.map_err(|why| usage(format!("{name} {why}.")))
}

/// The text of a file, or of standard input.
fn read_text(file: &str) -> Result<String, Failure> {
    let mut text = String::new();
    let read = if file == "-" {
        io::stdin().take(MAX_FILE).read_to_string(&mut text)
    } else {
        fs::File::open(file).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text))
    };
    read.map_err(|error| Failure::failed(format!("{file} cannot be read: {error}."), "Name a file that is readable."))?;
    Ok(text)
}

/// A secret key from a file; what is wrong with one is said without showing what is in it.
fn read_secret(file: &str) -> Result<[u8; 32], Failure> {
    let text = read_text(file)?;
    let bare = text.trim();
    if let Ok(secret) = read_hex(bare) {
        return Ok(secret);
    }
    keys::read_pem(Path::new(file), bare).map(|key| key.to_bytes()).map_err(|_| {
        let advice = "Make one with `zerostate voucher keygen FILE`.";
        Failure::failed(format!("{file} has no Ed25519 secret key in PKCS#8 PEM or in hex."), advice)
    })
}

/// Reads what `sign` printed, with or without what it printed around it, or the bytes of a message in hex.
fn read_document(text: &str) -> Option<Document> {
    let text = text.trim();
    if let Ok(message) = read_hex::<MESSAGE_BYTES>(text) {
        let voucher = Voucher::read(&message).map(|voucher| Document::Voucher(voucher, None));
        return voucher.or_else(|_| CooperativeClose::read(&message).map(|close| Document::Close(close, None))).ok();
    }
    let mut value: Value = serde_json::from_str(text).ok()?;
    if let Some(document) = value.get_mut("document") {
        value = document.take();
    }
    let signed = serde_json::from_value(value.clone());
    if let Ok(SignedVoucher { voucher, signature }) = signed {
        return Some(Document::Voucher(voucher, Some(signature)));
    }
    let SignedClose { close, signature } = serde_json::from_value(value).ok()?;
    Some(Document::Close(close, Some(signature)))
}

fn document_in(file: &str) -> Result<Document, Failure> {
    let advice = "Give it what `zerostate voucher sign --json` printed.";
    read_document(&read_text(file)?)
        .ok_or_else(|| Failure::failed(format!("{file} holds neither a voucher nor a cooperative close."), advice))
}

fn sign(command: &SignCommand) -> Result<Document, Failure> {
    let instance_id = field("--instance", read_hex(&command.instance))?;
    let channel_id = field("--channel", read_hex(&command.channel))?;
    let nonce = field("--nonce", read_number(&command.nonce))?;
    let amount = field("--cumulative", read_number(&command.cumulative))?;
    let valid_until = field("--valid-until", read_number(&command.valid_until))?;
    let context = match (&command.context, &command.about) {
        (Some(hash), _) => Some(field("--context", read_hex(hash))?),
        (None, Some(about)) => Some(context_hash(about.as_bytes())),
        (None, None) => None,
    };
    if nonce == 0 {
        return Err(usage("--nonce must be at least 1."));
    }
    match command.kind {
        Kind::Voucher => {
            let context_hash = context.unwrap_or([0; 32]);
            let voucher = Voucher { instance_id, channel_id, nonce, cumulative: amount, valid_until, context_hash };
            let secret = read_secret(&command.key)?;
            Ok(Document::Voucher(voucher, Some(voucher.sign(&secret))))
        }
        Kind::Close => {
            if context.is_some() {
                return Err(usage("A cooperative close says nothing of what it pays for."));
            }
            if valid_until == 0 {
                return Err(usage("A cooperative close needs --valid-until."));
            }
            let close = CooperativeClose { instance_id, channel_id, nonce, final_cumulative: amount, valid_until };
            let secret = read_secret(&command.key)?;
            Ok(Document::Close(close, Some(close.sign(&secret))))
        }
    }
}

/// Runs `zerostate voucher …`.
pub(super) fn run(command: VoucherCommand) -> Result<(), Failure> {
    let mut output = Output::new();
    match command {
        VoucherCommand::Keygen { file, json } => {
            let secret: [u8; 32] = Entropy::system().bytes();
            write_new(&file, &keys::spell_pem(&secret)?)?;
            let public = hex::encode(public_key(&secret));
            if json {
                output.json(&json!({ "publicKey": public, "file": file }))?;
            } else {
                writeln!(output, "{public}")?;
            }
        }
        VoucherCommand::Sign(command) => {
            let signed = sign(&command)?;
            if command.json {
                output.json(&signed.json().map_err(io::Error::other)?)?;
            } else {
                writeln!(output, "{}", hex::encode(signed.signature().unwrap_or([0; 64])))?;
            }
        }
        VoucherCommand::Verify { file, signer, json } => {
            let signer = field("--signer", read_hex(&signer))?;
            let document = document_in(&file)?;
            let checked = match &document {
                Document::Voucher(voucher, Some(signature)) => voucher.verify(&signer, signature),
                Document::Close(close, Some(signature)) => close.verify(&signer, signature),
                Document::Voucher(_, None) | Document::Close(_, None) => Err(voucher::Unsigned::Signature),
            };
            if json {
                output
                    .json(&json!({ "valid": checked.is_ok(), "reason": checked.err().map(|why| why.to_string()) }))?;
            }
            if let Err(why) = checked {
                return Err(Failure::failed(format!("It is not valid: {why}."), "Do not serve for it."));
            }
            if !json {
                writeln!(output, "valid")?;
            }
        }
        VoucherCommand::Inspect { file, json } => {
            let document = document_in(&file)?;
            if json {
                output.json(&document.json().map_err(io::Error::other)?)?;
            } else {
                for (name, value) in document.lines() {
                    writeln!(output, "{name:<12} {value}")?;
                }
            }
        }
    }
    Ok(())
}

/// Makes a file that only its owner reads. One that is there stays as it is: it may be the only copy of a key.
fn write_new(file: &Path, text: &str) -> Result<(), Failure> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(file).and_then(|mut made| {
        made.write_all(text.as_bytes())?;
        made.sync_all()
    });
    written.map_err(|error| {
        Failure::failed(format!("{} cannot be made: {error}.", file.display()), "Name a new file in a folder of yours.")
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use proptest::prelude::*;

    use super::*;

    const SECRET: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    const PUBLIC: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        command: VoucherCommand,
    }

    fn signing(key: &str, more: &[&str]) -> SignCommand {
        let (zeros, channel) = ("0".repeat(64), "ab".repeat(32));
        let mut line = vec!["voucher", "sign", "--key", key, "--instance", &zeros, "--channel", &channel];
        line.extend(more);
        let VoucherCommand::Sign(command) = Line::try_parse_from(line).unwrap().command else { panic!("no signing") };
        command
    }

    #[test]
    fn what_is_signed_is_read_back_and_verified() {
        let folder = tempfile::tempdir().unwrap();
        let (key, file) = (folder.path().join("payer.key"), folder.path().join("voucher.json"));
        let (key, file) = (key.to_str().unwrap(), file.to_str().unwrap());
        run(VoucherCommand::Keygen { file: key.into(), json: false }).unwrap();
        let public = hex::encode(public_key(&read_secret(key).unwrap()));
        assert!(run(VoucherCommand::Keygen { file: key.into(), json: false }).is_err(), "a key is never overwritten");
        for more in [
            &["--nonce", "3", "--cumulative", "250000", "--about", "task:demo"][..],
            &["--kind", "close", "--nonce", "4", "--cumulative", "0", "--valid-until", "1800000000"],
        ] {
            let signed = sign(&signing(key, more)).unwrap();
            let text = signed.json().unwrap().to_string();
            fs::write(file, &text).unwrap();
            let verify = |signer: &str| {
                run(VoucherCommand::Verify { file: file.to_owned(), signer: signer.to_owned(), json: false })
            };
            assert!(verify(&public).is_ok());
            assert!(verify(PUBLIC).is_err());
            assert!(verify(&"0".repeat(64)).is_err());
            let read = read_document(&text).unwrap();
            assert_eq!((read.message(), read.signature()), (signed.message(), signed.signature()));
            let bare = read_document(&hex::encode(signed.message())).unwrap();
            assert_eq!((bare.message(), bare.signature()), (signed.message(), None));
            run(VoucherCommand::Inspect { file: file.to_owned(), json: false }).unwrap();
            assert!(read.lines().iter().any(|(name, value)| *name == "cumulative" && value.contains("credits")));
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_key_in_hex_is_read_and_the_test_vector_signed() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("hex.key");
        fs::write(&key, format!("{SECRET}\n")).unwrap();
        let vector = SignCommand {
            instance: "4b5d6b7d4b5d6b7d4b5d6b7d4b5d6b7d4b5d6b7d4b5d6b7d4b5d6b7d4b5d6b7d".to_owned(),
            ..signing(key.to_str().unwrap(), &["--nonce", "1", "--cumulative", "250000"])
        };
        let signed = sign(&vector).unwrap();
        let Document::Voucher(voucher, Some(signature)) = signed else { panic!("a voucher") };
        assert_eq!(voucher.verify(&read_hex(PUBLIC).unwrap(), &signature), Ok(()));
        assert_eq!(voucher.cumulative, 250_000);
    }

    #[test]
    fn what_makes_no_sense_is_not_signed() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("no.key");
        fs::write(&key, "nonsense").unwrap();
        let key = key.to_str().unwrap();
        for more in [
            &["--nonce", "0", "--cumulative", "1"][..],
            &["--nonce", "01", "--cumulative", "1"],
            &["--nonce", "1", "--cumulative", "1.5"],
            &["--nonce", "1", "--cumulative", "18446744073709551616"],
            &["--nonce", "1", "--cumulative", "1", "--valid-until", "tomorrow"],
            &["--nonce", "1", "--cumulative", "1", "--context", "00"],
            &["--kind", "close", "--nonce", "1", "--cumulative", "1"],
            &["--kind", "close", "--nonce", "1", "--cumulative", "1", "--valid-until", "9", "--about", "x"],
        ] {
            assert_eq!(sign(&signing(key, more)).err().unwrap().exit, Exit::Usage, "{more:?}");
        }
        let refused = sign(&signing(key, &["--nonce", "1", "--cumulative", "1"])).err().unwrap();
        assert_eq!(refused.exit, Exit::Failed);
        assert!(!refused.to_string().contains("nonsense"), "what is in a key file is not shown");
    }

    proptest! {
        #[test]
        fn no_document_panics(text in ".{0,300}") {
            let _ = read_document(&text);
            let _ = read_document(&format!("{{\"document\":{text}}}"));
        }
    }
}
