//! The sealed journal: every transfer has a place in one chain of hashes, and the market signs the newest one at intervals. Who
//! keeps a signed head can later tell whether anything up to it was changed, left out or put in between.
//!
//! ```text
//! hash(n) = SHA-256("ZSJL-LINE-v1\0" ‖ hash(n−1) ‖ the transfer with its two entries, 240 bytes)      hash(0) = 32 zero bytes
//! head    = Ed25519("ZSJH-HEAD-v1\0" ‖ instance id ‖ place u64 ‖ hash(place) ‖ instant i64)
//! ```
//!
//! The layout of the 240 bytes is in [`Line::bytes`] and in `docs/ledger.md`. Transfers get their places in the order of their ids,
//! which is that of their instants; one that commits late gets a later place. Only one process seals at a time.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::time::Duration;

use ed25519_dalek::{Signature, VerifyingKey};
use entity::{id::TransferId, instance, journal_head, journal_line, time::Timestamp};
use sea_orm::{
    ActiveValue::Set, ConnectionTrait, DbBackend, EntityTrait, FromQueryResult, QueryOrder, QuerySelect, Statement,
};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{
    error::{Error, Result},
    store::{Work, first_id, insert_all},
    voucher,
};

/// How long after its instant a transfer may still become visible: longer than any transaction may take and clocks may differ.
pub const MARGIN: Duration = Duration::from_mins(10);

/// Transfers that one unit of work seals, and lines that one statement reads.
const PAGE: u64 = 1_000;
const LINE_TAG: &[u8] = b"ZSJL-LINE-v1\0";
const HEAD_TAG: &[u8] = b"ZSJH-HEAD-v1\0";
/// Bytes of a transfer's kind, filled up with zeros.
const KIND: usize = 16;

/// The hash of an empty journal.
const EMPTY: [u8; 32] = [0; 32];

/// Whose journal it is.
#[derive(Clone, Copy, Debug)]
pub struct Signer {
    /// The Ed25519 public key.
    pub public_key: [u8; 32],
    /// What the key's messages name the market by.
    pub id: [u8; 32],
}

impl Signer {
    /// The market with this public key.
    #[must_use]
    pub fn of(public_key: [u8; 32]) -> Self {
        Self { public_key, id: voucher::instance_id(&public_key) }
    }
}

/// How the column of references is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum References {
    /// As the paper trail itself.
    Text,
    /// As its SHA-256 in hex, which is all that an archive has.
    Hashed,
}

/// A transfer with its two entries. What is missing in damaged books is empty.
#[derive(Clone, Debug, FromQueryResult)]
struct Line {
    id: Uuid,
    batch_id: Uuid,
    kind: String,
    debit_id: Uuid,
    credit_id: Uuid,
    amount: i64,
    task_id: Option<Uuid>,
    channel_id: Option<Uuid>,
    reference: Option<String>,
    created_at: i64,
    debit_version: Option<i64>,
    debit_amount: Option<i64>,
    debit_previous: Option<i64>,
    debit_current: Option<i64>,
    debit_at: Option<i64>,
    credit_version: Option<i64>,
    credit_amount: Option<i64>,
    credit_previous: Option<i64>,
    credit_current: Option<i64>,
    credit_at: Option<i64>,
}

const COLUMNS: &str = "t.id, t.batch_id, t.kind, t.debit_id, t.credit_id, t.amount, t.task_id, t.channel_id, t.reference, \
     t.created_at, d.version AS debit_version, d.amount AS debit_amount, d.previous AS debit_previous, \
     d.current AS debit_current, d.created_at AS debit_at, c.version AS credit_version, c.amount AS credit_amount, \
     c.previous AS credit_previous, c.current AS credit_current, c.created_at AS credit_at";

const ENTRIES: &str = "LEFT JOIN entries d ON d.transfer_id = t.id AND d.account_id = t.debit_id \
     LEFT JOIN entries c ON c.transfer_id = t.id AND c.account_id = t.credit_id";

impl Line {
    /// The canonical bytes, numbers in big-endian order. `None` when an entry is missing.
    ///
    /// | bytes | what |
    /// |---|---|
    /// | 16 | id |
    /// | 16 | batch |
    /// | 16 | kind in ASCII, filled up with zeros |
    /// | 16 | account that is debited |
    /// | 16 | account that is credited |
    /// | 8 | amount in micro-credits, unsigned |
    /// | 16 | task, or zeros |
    /// | 16 | channel, or zeros |
    /// | 32 | SHA-256 of the reference, or zeros |
    /// | 8 | instant in microseconds since 1970, signed |
    /// | 40 | entry of the debited account: version, amount, previous, current, instant; five signed numbers |
    /// | 40 | entry of the credited account |
    fn bytes(&self, references: References) -> Option<[u8; 240]> {
        let mut kind = [0; KIND];
        kind.get_mut(..self.kind.len())?.copy_from_slice(self.kind.as_bytes());
        let reference = match (&self.reference, references) {
            (None, _) => EMPTY,
            (Some(text), References::Text) => Sha256::digest(text).into(),
            (Some(text), References::Hashed) => hex::decode(text).ok()?.try_into().ok()?,
        };
        let nothing = Uuid::nil();
        let mut bytes = Vec::with_capacity(240);
        bytes.extend_from_slice(self.id.as_bytes());
        bytes.extend_from_slice(self.batch_id.as_bytes());
        bytes.extend_from_slice(&kind);
        bytes.extend_from_slice(self.debit_id.as_bytes());
        bytes.extend_from_slice(self.credit_id.as_bytes());
        bytes.extend_from_slice(&u64::try_from(self.amount).ok()?.to_be_bytes());
        bytes.extend_from_slice(self.task_id.unwrap_or(nothing).as_bytes());
        bytes.extend_from_slice(self.channel_id.unwrap_or(nothing).as_bytes());
        bytes.extend_from_slice(&reference);
        bytes.extend_from_slice(&self.created_at.to_be_bytes());
        for number in [
            self.debit_version?,
            self.debit_amount?,
            self.debit_previous?,
            self.debit_current?,
            self.debit_at?,
            self.credit_version?,
            self.credit_amount?,
            self.credit_previous?,
            self.credit_current?,
            self.credit_at?,
        ] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.try_into().ok()
    }

    fn hash(&self, previous: &[u8; 32], references: References) -> Option<[u8; 32]> {
        let bytes = self.bytes(references)?;
        Some(Sha256::new().chain_update(LINE_TAG).chain_update(previous).chain_update(bytes).finalize().into())
    }
}

/// What a head's signature covers.
fn head_message(signer: Signer, place: i64, hash: &[u8; 32], at: Timestamp) -> Vec<u8> {
    let place = u64::try_from(place).unwrap_or(0).to_be_bytes();
    [HEAD_TAG, &signer.id, &place, hash, &at.micros().to_be_bytes()].concat()
}

/// An id as the database writes it in a statement.
pub(super) fn literal(backend: DbBackend, id: Uuid) -> String {
    if backend == DbBackend::Sqlite { format!("x'{}'", id.simple()) } else { format!("'{id}'::uuid") }
}

/// The newest head.
pub async fn head(db: &impl ConnectionTrait) -> Result<Option<journal_head::Model>> {
    Ok(journal_head::Entity::find().order_by_desc(journal_head::Column::Place).one(db).await?)
}

/// The newest line's place and hash; 0 and zeros before the first.
async fn tip(db: &impl ConnectionTrait) -> Result<(i64, [u8; 32])> {
    let line = journal_line::Entity::find().order_by_desc(journal_line::Column::Place).one(db).await?;
    line.map_or(Ok((0, EMPTY)), |line| Ok((line.place, digest(&line.hash)?)))
}

/// The newest place that has a line; 0 before the first.
pub async fn newest_place(db: &impl ConnectionTrait) -> Result<i64> {
    Ok(tip(db).await?.0)
}

/// The hash of the line at a place; zeros before the first.
pub async fn hash_at(db: &impl ConnectionTrait, place: i64) -> Result<Option<String>> {
    if place == 0 {
        return Ok(Some(hex::encode(EMPTY)));
    }
    Ok(journal_line::Entity::find_by_id(place).one(db).await?.map(|line| line.hash))
}

fn digest(hex: &str) -> Result<[u8; 32]> {
    let bytes = hex::decode(hex).map_err(Error::internal)?;
    bytes.try_into().map_err(|_| Error::internal("a hash of the journal does not have 32 bytes"))
}

/// Where to look for transfers that have no place yet. A head was signed when everything visible had one, so what is still
/// without is at most [`MARGIN`] older than that head, or than now if the clock was set back since.
pub async fn unsealed_since(db: &impl ConnectionTrait, now: Timestamp) -> Result<Uuid> {
    Ok(head(db).await?.map_or(Uuid::nil(), |head| first_id(head.created_at.min(now).before(MARGIN))))
}

/// Whether a seal would write anything.
pub async fn is_unsealed(db: &impl ConnectionTrait, since: Uuid) -> Result<bool> {
    if head(db).await?.is_none() {
        return Ok(true);
    }
    Ok(!unsealed(db, since, 1).await?.is_empty())
}

async fn unsealed(db: &impl ConnectionTrait, since: Uuid, limit: u64) -> Result<Vec<Line>> {
    let backend = db.get_database_backend();
    let since = literal(backend, since);
    let sql = format!(
        "SELECT {COLUMNS} FROM transfers t {ENTRIES} WHERE t.id >= {since} AND NOT EXISTS \
         (SELECT 1 FROM journal_lines l WHERE l.transfer_id = t.id) ORDER BY t.id LIMIT {limit}"
    );
    Ok(Line::find_by_statement(Statement::from_string(backend, sql)).all(db).await?)
}

/// What one unit of work sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// How many transfers got their place.
    pub lines: u64,
    /// From where on to go on, if there may be more.
    pub next: Option<Uuid>,
}

/// Gives the next transfers from the id `since` on their places, and signs the new head when it has reached the end.
pub async fn seal(work: &mut Work, since: Uuid) -> Result<Sealed> {
    // The one row of the market is the lock of its journal.
    instance::Entity::find_by_id(1)
        .lock_exclusive()
        .one(work.tx())
        .await?
        .ok_or_else(|| Error::internal("the database does not say whose it is"))?;
    work.got_lock();
    let (mut place, mut hash) = tip(work.tx()).await?;
    let found = unsealed(work.tx(), since, PAGE).await?;
    let mut rows = Vec::with_capacity(found.len());
    for line in &found {
        place = place.checked_add(1).ok_or_else(|| Error::internal("the journal is full"))?;
        hash = line
            .hash(&hash, References::Text)
            .ok_or_else(|| Error::internal(format!("{} cannot be sealed: it lacks an entry", TransferId(line.id))))?;
        rows.push(journal_line::ActiveModel {
            place: Set(place),
            transfer_id: Set(TransferId(line.id)),
            hash: Set(hex::encode(hash)),
        });
    }
    let lines = u64::try_from(rows.len()).unwrap_or(u64::MAX);
    insert_all(work.tx(), rows).await?;
    let next = found.last().filter(|_| lines == PAGE).map(|line| line.id);
    if next.is_none() {
        sign_head(work, place, &hash).await?;
    }
    Ok(Sealed { lines, next })
}

async fn sign_head(work: &Work, place: i64, hash: &[u8; 32]) -> Result<()> {
    if journal_head::Entity::find_by_id(place).one(work.tx()).await?.is_some() {
        return Ok(());
    }
    let (instance, now) = (work.instance()?, work.now());
    let message = head_message(Signer::of(instance.public_key()), place, hash, now);
    let row = journal_head::ActiveModel {
        place: Set(place),
        hash: Set(hex::encode(hash)),
        signature: Set(hex::encode(instance.sign(&message))),
        created_at: Set(now),
    };
    journal_head::Entity::insert(row).exec_without_returning(work.tx()).await?;
    Ok(())
}

/// How many lines are not what their transfer and the line before give, or are not in their place. Reads lines behind `after`.
pub(super) async fn broken_lines(db: &impl ConnectionTrait, references: References, after: i64) -> Result<u64> {
    let (backend, mut place, mut broken) = (db.get_database_backend(), after, 0_u64);
    let before = journal_line::Entity::find_by_id(after).one(db).await?;
    let mut previous = before.as_ref().and_then(|line| digest(&line.hash).ok()).unwrap_or(EMPTY);
    loop {
        // Lines without their transfer are counted too: the inner part of the statement finds them all.
        let sql = format!(
            "SELECT l.place, l.hash, l.transfer_id FROM journal_lines l WHERE l.place > {place} ORDER BY l.place LIMIT {PAGE}"
        );
        let lines = journal_line::Model::find_by_statement(Statement::from_string(backend, sql)).all(db).await?;
        let Some(last) = lines.last().map(|line| line.place) else { return Ok(broken) };
        let sql = format!(
            "SELECT {COLUMNS} FROM journal_lines l JOIN transfers t ON t.id = l.transfer_id {ENTRIES} \
             WHERE l.place > {place} AND l.place <= {last} ORDER BY l.place"
        );
        let transfers = Line::find_by_statement(Statement::from_string(backend, sql)).all(db).await?;
        let mut transfers = transfers.into_iter().peekable();
        for line in lines {
            let expected = place.checked_add(1);
            let transfer = transfers.next_if(|transfer| transfer.id == line.transfer_id.0);
            let hash = transfer.and_then(|transfer| transfer.hash(&previous, references)).map(hex::encode);
            if expected != Some(line.place) || hash.as_ref() != Some(&line.hash) {
                broken = broken.saturating_add(1);
            }
            // What follows is measured by what is written here, so that one change is one violation.
            place = line.place;
            previous = digest(&line.hash).unwrap_or(EMPTY);
        }
    }
}

#[derive(Debug, FromQueryResult)]
struct Head {
    place: i64,
    hash: String,
    signature: String,
    created_at: i64,
    line: Option<String>,
}

/// How many heads are not signatures of the market over the line at their place. Reads heads from the place `after` on.
pub(super) async fn broken_heads(db: &impl ConnectionTrait, signer: Signer, after: i64) -> Result<u64> {
    let backend = db.get_database_backend();
    let key = VerifyingKey::from_bytes(&signer.public_key).map_err(Error::internal)?;
    let (mut from, mut broken) = (after, 0_u64);
    loop {
        let sql = format!(
            "SELECT h.place, h.hash, h.signature, h.created_at, l.hash AS line FROM journal_heads h \
             LEFT JOIN journal_lines l ON l.place = h.place WHERE h.place >= {from} ORDER BY h.place LIMIT {PAGE}"
        );
        let heads = Head::find_by_statement(Statement::from_string(backend, sql)).all(db).await?;
        let Some(last) = heads.last().map(|head| head.place) else { return Ok(broken) };
        broken = heads.iter().filter(|head| !head.is_right(&key, signer)).fold(broken, |sum, _| sum.saturating_add(1));
        from = last.saturating_add(1);
    }
}

impl Head {
    fn is_right(&self, key: &VerifyingKey, signer: Signer) -> bool {
        let verified = || {
            let hash = digest(&self.hash).ok()?;
            let signature = Signature::from_slice(&hex::decode(&self.signature).ok()?).ok()?;
            let message = head_message(signer, self.place, &hash, Timestamp::from_micros(self.created_at));
            key.verify_strict(&message, &signature).ok()
        };
        let covers = match &self.line {
            Some(line) => *line == self.hash,
            None => self.place == 0 && self.hash == hex::encode(EMPTY),
        };
        covers && verified().is_some()
    }
}

/// How many transfers have no place although a head was signed long after them. Looks at transfers from the id `since` on.
pub(super) async fn unsealed_violations(db: &impl ConnectionTrait, since: Uuid) -> Result<u64> {
    let Some(head) = head(db).await? else { return Ok(0) };
    let backend = db.get_database_backend();
    let (since, until) = (literal(backend, since), literal(backend, first_id(head.created_at.before(MARGIN))));
    let sql = format!(
        "SELECT COUNT(*) AS n FROM transfers t WHERE t.id >= {since} AND t.id < {until} AND NOT EXISTS \
         (SELECT 1 FROM journal_lines l WHERE l.transfer_id = t.id)"
    );
    let row = db.query_one_raw(Statement::from_string(backend, sql)).await?;
    let count: i64 = row.map(|row| row.try_get("", "n")).transpose()?.unwrap_or(0);
    Ok(u64::try_from(count).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line {
        let id = |number| Uuid::from_u128(number);
        Line {
            id: id(1),
            batch_id: id(2),
            kind: "ISSUE".to_owned(),
            debit_id: id(3),
            credit_id: id(4),
            amount: 5,
            task_id: None,
            channel_id: Some(id(6)),
            reference: Some("invoice".to_owned()),
            created_at: 7,
            debit_version: Some(8),
            debit_amount: Some(-5),
            debit_previous: Some(0),
            debit_current: Some(-5),
            debit_at: Some(7),
            credit_version: Some(9),
            credit_amount: Some(5),
            credit_previous: Some(1),
            credit_current: Some(6),
            credit_at: Some(7),
        }
    }

    #[test]
    fn a_line_has_a_fixed_layout() {
        let bytes = line().bytes(References::Text).unwrap();
        assert_eq!(bytes[15], 1);
        assert_eq!(&bytes[32..38], b"ISSUE\0");
        assert_eq!(bytes[80..88], 5_u64.to_be_bytes());
        assert_eq!(bytes[88..104], [0; 16]);
        assert_eq!(bytes[120..152], Sha256::digest("invoice")[..]);
        assert_eq!(bytes[160..168], 8_i64.to_be_bytes());
        assert_eq!(bytes[168..176], (-5_i64).to_be_bytes());
        assert_eq!(bytes[200..208], 9_i64.to_be_bytes());
        // A value that other implementations can be held against.
        let hash = hex::encode(line().hash(&EMPTY, References::Text).unwrap());
        assert_eq!(hash, "c997d1ca3bc43bc04d7587fc5fed6d7fb619284d61cdce51903cbfe3b47242a7");
    }

    #[test]
    fn a_line_is_the_same_with_its_reference_hashed_and_differs_in_every_field() {
        let (whole, mut hashed) = (line(), line());
        hashed.reference = Some(hex::encode(Sha256::digest("invoice")));
        assert_eq!(whole.bytes(References::Text), hashed.bytes(References::Hashed));
        let changes: &[fn(&mut Line)] = &[
            |it| it.id = Uuid::nil(),
            |it| it.batch_id = Uuid::nil(),
            |it| it.kind.push('S'),
            |it| it.debit_id = Uuid::nil(),
            |it| it.credit_id = Uuid::nil(),
            |it| it.amount = 6,
            |it| it.task_id = Some(Uuid::from_u128(1)),
            |it| it.channel_id = None,
            |it| it.reference = None,
            |it| it.created_at = 8,
            |it| it.debit_version = Some(1),
            |it| it.debit_amount = Some(-6),
            |it| it.debit_previous = Some(1),
            |it| it.debit_current = Some(1),
            |it| it.debit_at = Some(1),
            |it| it.credit_version = Some(1),
            |it| it.credit_amount = Some(1),
            |it| it.credit_previous = Some(2),
            |it| it.credit_current = Some(1),
            |it| it.credit_at = Some(1),
        ];
        for (number, change) in changes.iter().enumerate() {
            let mut other = line();
            change(&mut other);
            assert_ne!(other.bytes(References::Text), whole.bytes(References::Text), "change {number}");
        }
        let mut broken = line();
        broken.credit_version = None;
        assert_eq!(broken.bytes(References::Text), None);
        broken.kind = "A_KIND_OF_TOO_MANY_LETTERS".to_owned();
        assert_eq!(broken.bytes(References::Text), None);
    }

    #[test]
    fn the_least_id_of_an_instant_is_below_every_id_of_it() {
        let entropy = crate::store::Entropy::seeded(3);
        let at = Timestamp::from_micros(1_795_435_200_123_456);
        assert!(first_id(at) <= entropy.uuid(at));
        assert!(first_id(at.after(Duration::from_millis(1))) > entropy.uuid(at));
    }
}
