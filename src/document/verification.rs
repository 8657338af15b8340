//! Checking documents without a market: from the text of a file to a verdict.
//!
//! The envelope may be anything that holds signed documents: a bundle, the answer of a query, several JSON texts one after the
//! other. Whatever object in it has a `signature` and a `body` (or `document`) is one. The content is strict: the text of the body
//! must be canonical, of a known format and spelled as that format spells it, signed by the market that it names; and what can be
//! derived must be what it says.

use std::collections::HashMap;

use entity::document::Kind;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    canonical::canonical,
    certificate::{self, Certificate, Market},
    findings::Findings,
    receipt::{self, Receipt},
    seal::{self, SCHEME},
    value::{Digest, PublicKey, Signature, sha256},
};

/// How deep envelopes may lie in one another.
const MAX_DEPTH: usize = 32;

/// What was found in a file.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// Whether there are documents and nothing is wrong with them.
    pub ok: bool,
    /// Whether the key of the market was given. Without it the documents were only held against themselves and each other.
    pub pinned: bool,
    pub documents: Vec<Checked>,
}

/// One document with what was found in it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Checked {
    pub kind: Option<&'static str>,
    pub id: Option<String>,
    pub version: Option<i32>,
    /// Of the body as it is in the file.
    pub sha256: String,
    /// The key that the body names.
    pub public_key: Option<String>,
    /// What it says, in a few lines for people.
    pub summary: Vec<String>,
    #[serde(flatten)]
    pub findings: Findings,
}

/// Why a text holds nothing that can be checked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Not JSON.
    #[error("it is not JSON: {0}")]
    NotJson(String),
    /// JSON without a signed document in it.
    #[error("it holds no signed document")]
    Nothing,
}

/// A document of a known format.
enum Known {
    Certificate(Box<Certificate>),
    Receipt(Box<Receipt>),
}

impl Known {
    fn market(&self) -> &Market {
        match self {
            Self::Certificate(certificate) => &certificate.market,
            Self::Receipt(receipt) => &receipt.market,
        }
    }

    fn version(&self) -> i32 {
        match self {
            Self::Certificate(certificate) => certificate.version,
            Self::Receipt(receipt) => receipt.version,
        }
    }

    /// Which document it is, whatever it says: of one task, kind and version there is one.
    fn place(&self) -> (Kind, String, i32) {
        match self {
            Self::Certificate(certificate) => {
                (Kind::AwardCertificate, certificate.auction.task_id.to_string(), certificate.version)
            }
            Self::Receipt(receipt) => (Kind::TaskReceipt, receipt.offer.task_id.to_string(), receipt.version),
        }
    }

    fn id(&self) -> String {
        match self {
            Self::Certificate(certificate) => certificate.id.to_string(),
            Self::Receipt(receipt) => receipt.id.to_string(),
        }
    }
}

/// Checks all documents of a text. `pin` is the key of the market that must have signed them.
pub fn verify(text: &str, pin: Option<PublicKey>) -> Result<Verdict, Unreadable> {
    let mut envelopes = Vec::new();
    for value in serde_json::Deserializer::from_str(text).into_iter::<Value>() {
        let value = value.map_err(|error| Unreadable::NotJson(error.to_string()))?;
        collect(value, MAX_DEPTH, &mut envelopes);
    }
    if envelopes.is_empty() {
        return Err(Unreadable::Nothing);
    }
    let mut opened: Vec<Opened> = merged(envelopes).iter().map(|envelope| open(envelope, pin)).collect();
    chain(&mut opened);
    let documents: Vec<Checked> = opened.into_iter().map(Opened::checked).collect();
    let ok = documents.iter().all(|document| document.findings.problems.is_empty());
    Ok(Verdict { ok, pinned: pin.is_some(), documents })
}

/// What is taken to be a signed document: the fields that matter.
#[derive(Clone, Debug, PartialEq)]
struct Envelope {
    body: Value,
    signature: String,
    /// Fields that repeat what the body says, or what follows from it.
    said: Vec<(&'static str, Value)>,
}

/// The same document may lie in a file twice, in a bundle and beside it: one of each, with all that is said of it.
fn merged(envelopes: Vec<Envelope>) -> Vec<Envelope> {
    let mut places: HashMap<(String, String), usize> = HashMap::new();
    let mut merged: Vec<Envelope> = Vec::new();
    for envelope in envelopes {
        let place = *places.entry((envelope.body.to_string(), envelope.signature.clone())).or_insert(merged.len());
        match merged.get_mut(place) {
            Some(known) => known.said.extend(envelope.said),
            None => merged.push(envelope),
        }
    }
    merged
}

/// Fields of an envelope that must agree with its body.
const SAID: [&str; 6] = ["id", "kind", "version", "sha256", "publicKey", "verifiesWith"];

fn collect(value: Value, depth: usize, found: &mut Vec<Envelope>) {
    let Some(depth) = depth.checked_sub(1) else { return };
    match value {
        Value::Object(mut fields) => {
            let body = fields.get("body").or_else(|| fields.get("document")).cloned();
            let signature = fields.get("signature").and_then(Value::as_str).map(str::to_owned);
            if let (Some(body), Some(signature)) = (body, signature) {
                let said = SAID.into_iter().filter_map(|name| Some((name, fields.get(name)?.clone()))).collect();
                found.push(Envelope { body, signature, said });
                fields.remove("body");
                fields.remove("document");
            }
            for (name, field) in fields {
                // A bundle inside an answer is a text of its own.
                let bundle =
                    field.as_str().filter(|_| name == "bundle").and_then(|text| serde_json::from_str(text).ok());
                collect(bundle.unwrap_or(field), depth, found);
            }
        }
        Value::Array(items) => items.into_iter().for_each(|item| collect(item, depth, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A document whose seal was checked.
struct Opened {
    digest: Digest,
    known: Option<Known>,
    findings: Findings,
}

impl Opened {
    fn checked(self) -> Checked {
        let Self { digest, known, findings } = self;
        Checked {
            kind: known.as_ref().map(|known| known.place().0.name()),
            id: known.as_ref().map(Known::id),
            version: known.as_ref().map(Known::version),
            sha256: digest.to_string(),
            public_key: known.as_ref().map(|known| known.market().public_key.to_string()),
            summary: known.as_ref().map(summary).unwrap_or_default(),
            findings,
        }
    }
}

fn open(envelope: &Envelope, pin: Option<PublicKey>) -> Opened {
    let mut findings = Findings::default();
    // The text as it was signed, or the value, whose canonical text was.
    let text = envelope.body.as_str();
    let value = match text.map(serde_json::from_str::<Value>) {
        None => Some(envelope.body.clone()),
        Some(Ok(value)) => Some(value),
        Some(Err(error)) => {
            findings.problem("body", format!("is not JSON: {error}"));
            None
        }
    };
    let right = value
        .as_ref()
        .and_then(|value| canonical(value).map_err(|error| findings.problem("body", error.to_string())).ok());
    if let (Some(text), Some(right)) = (text, &right) {
        findings.demand(text == right, "body", "must be canonical JSON of RFC 8785");
    }
    let digest = sha256(text.or(right.as_deref()).unwrap_or_default().as_bytes());
    let known = value.and_then(|value| known(&value, &mut findings));
    seals(envelope, &digest, known.as_ref(), pin, &mut findings);
    match &known {
        Some(Known::Certificate(certificate)) => certificate::check(certificate, &mut findings),
        Some(Known::Receipt(receipt)) => receipt::check(receipt, &mut findings),
        None => {}
    }
    Opened { digest, known, findings }
}

/// Hash, signature and key, and what the envelope says of them.
fn seals(envelope: &Envelope, digest: &Digest, known: Option<&Known>, pin: Option<PublicKey>, findings: &mut Findings) {
    let key = known.map(|known| known.market().public_key.0);
    for (name, said) in &envelope.said {
        let right = match *name {
            "sha256" => Some(Value::from(digest.to_string())),
            "publicKey" => key.map(|key| Value::from(key.to_string())),
            "id" => known.map(|known| Value::from(known.id())),
            "kind" => known.map(|known| Value::from(known.place().0.name())),
            "version" => known.map(|known| Value::from(known.version())),
            _ => Some(Value::from(SCHEME)),
        };
        if right.as_ref().is_some_and(|right| right != said) {
            findings.expect_maybe(*name, Some(said.clone()), right);
        }
    }
    if let (Some(pin), Some(key)) = (pin, key) {
        findings.expect("market.publicKey", key, pin);
    }
    let Some(key) = pin.or(key) else { return };
    match envelope.signature.parse::<Signature>() {
        Ok(signature) if signature.to_string() == envelope.signature => {
            let signed = seal::verify(&key, digest, &signature);
            findings.demand(signed, "signature", &format!("is not that of {key} over this body"));
        }
        Ok(_) | Err(_) => findings.problem("signature", "is not 64 bytes of lower-case hex"),
    }
}

/// The document of a body, if it is one of a format that is known here.
fn known(value: &Value, findings: &mut Findings) -> Option<Known> {
    match value.get("schema").and_then(Value::as_str) {
        Some(certificate::SCHEMA) => read(value, findings).map(Box::new).map(Known::Certificate),
        Some(receipt::SCHEMA) => read(value, findings).map(Box::new).map(Known::Receipt),
        Some(other) => {
            findings.problem("schema", format!("{other:?} is not a format that this version knows"));
            None
        }
        None => {
            findings.problem("body", "is not a document: it names no schema");
            None
        }
    }
}

/// A document that is spelled exactly as its format spells it.
fn read<T: Serialize + DeserializeOwned>(value: &Value, findings: &mut Findings) -> Option<T> {
    match serde_json::from_value::<T>(value.clone()) {
        Ok(document) => {
            let spelled = serde_json::to_value(&document).is_ok_and(|spelled| spelled == *value);
            findings.demand(spelled, "body", "must have every field of its format");
            Some(document)
        }
        Err(error) => {
            findings.problem("body", format!("is not of its format: {error}"));
            None
        }
    }
}

/// What documents of one file say about each other.
fn chain(opened: &mut [Opened]) {
    let mut added: Vec<Findings> = opened.iter().map(|_| Findings::default()).collect();
    let named: HashMap<Digest, &Known> =
        opened.iter().filter_map(|one| Some((one.digest, one.known.as_ref()?))).collect();
    let mut places: HashMap<(Kind, String, i32), usize> = HashMap::new();
    for known in named.values() {
        *places.entry(known.place()).or_default() += 1;
    }
    for (one, findings) in opened.iter().zip(&mut added) {
        let Some(known) = &one.known else { continue };
        let twice = places.get(&known.place()).is_some_and(|count| *count > 1);
        findings.demand(!twice, "version", "must be that of one document: another in this file is of the same one");
        let (kind, task, version) = known.place();
        let previous = match known {
            Known::Certificate(certificate) => certificate.previous,
            Known::Receipt(receipt) => receipt.previous,
        };
        if let Some(digest) = previous {
            let place = (kind, task.clone(), version.saturating_sub(1));
            match (known, named.get(&digest.0).copied()) {
                (Known::Certificate(certificate), Some(Known::Certificate(before))) => {
                    certificate::follows(certificate, before, findings);
                    findings.expect("version", certificate.version, before.version.saturating_add(1));
                }
                (Known::Receipt(receipt), Some(Known::Receipt(before))) => {
                    receipt::follows(receipt, before, findings);
                    findings.expect("version", receipt.version, before.version.saturating_add(1));
                }
                (_, Some(_)) => findings.problem("previous", "must be the hash of a document of the same kind"),
                (_, None) if places.contains_key(&place) => {
                    findings.problem("previous", "is not the hash of the version before in this file");
                }
                (_, None) => findings.note("The version before is not in the file."),
            }
        }
        if let Known::Receipt(receipt) = known {
            let place = (Kind::AwardCertificate, task, receipt.award.certificate_version);
            match named.get(&receipt.award.certificate_sha256.0).copied() {
                Some(Known::Certificate(certificate)) => receipt::follows_award(receipt, certificate, findings),
                Some(Known::Receipt(_)) => {
                    findings.problem("award.certificateSha256", "must be the hash of a certificate");
                }
                None if places.contains_key(&place) => {
                    findings.problem("award.certificateSha256", "is not the hash of the certificate in this file");
                }
                None => findings.note("The certificate of the award is not in the file."),
            }
        }
    }
    for (one, findings) in opened.iter_mut().zip(added) {
        one.findings.problems.extend(findings.problems);
        one.findings.notes.extend(findings.notes);
    }
}

fn summary(known: &Known) -> Vec<String> {
    match known {
        Known::Certificate(certificate) => {
            let Certificate { auction, award, bids, .. } = certificate.as_ref();
            let mut lines = vec![
                format!(
                    "{} ({}, {}, budget {}, at most {}, {} bids)",
                    auction.id,
                    auction.kind.name(),
                    auction.visibility.name(),
                    auction.budget,
                    award.cap,
                    bids.len()
                ),
                format!("won by {} of {} at {}", award.bid_id, award.agent_id, award.price),
            ];
            lines.extend(bids.iter().map(|bid| {
                let rank = bid.rank.map_or_else(|| "-".to_owned(), |rank| rank.to_string());
                format!(
                    "{rank:>4}  {:<10}  {}  price {}, reputation {}, N {}",
                    bid.status.name(),
                    bid.id,
                    bid.price,
                    bid.reputation,
                    bid.score.total
                )
            }));
            lines
        }
        Known::Receipt(receipt) => {
            let Receipt { offer, bid, settlement, .. } = receipt.as_ref();
            let stars = receipt.rating.as_ref().map_or_else(String::new, |rating| format!(", {} stars", rating.stars));
            vec![
                format!("{} {} by {}{stars}", offer.task_id, settlement.status.name(), bid.agent_id),
                format!(
                    "price {}: {} to the agent, {} fee, {} back",
                    settlement.price, settlement.earned, settlement.fee, settlement.returned
                ),
            ]
        }
    }
}
