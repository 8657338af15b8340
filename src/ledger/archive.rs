//! The books as a file that a stranger can check without us: one JSON document a line, written from one snapshot, signed at its end.
//!
//! ```text
//! {"archive":"zerostate-audit-v1","exportedAt":…,"instanceId":"…","publicKey":"…"}
//! {"table":"accounts","id":"…","kind":"USER",…}                                       one line a row, table after table
//! {"digest":"…","signature":"…"}      SHA-256 of all lines before; Ed25519("ZSJA-ARCHIVE-v1\0" ‖ instance id ‖ digest)
//! ```
//!
//! There are no names, addresses, inputs or outputs in it: whoever is in the books is there by a random id, and of a paper trail
//! outside there is the SHA-256. To check it, the rows are loaded into tables without any constraint and asked what the audit asks
//! of the database, so that both are the same questions.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::{
    collections::BTreeMap,
    io::{BufRead, Read, Write},
    path::Path,
};

use ed25519_dalek::{Signature, VerifyingKey};
use entity::time::Timestamp;
use sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DatabaseTransaction, DbBackend, QueryResult,
    Statement, Value,
};
use serde_json::{Map, Value as Json, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{
    audit::Check,
    journal::{Signer, literal},
};
use crate::{
    error::{Error, Result},
    store::Instance,
};

const FORMAT: &str = "zerostate-audit-v1";
const TAG: &[u8] = b"ZSJA-ARCHIVE-v1\0";
/// Rows that one statement reads or writes.
const PAGE: usize = 500;
/// Bytes of a line at most; a longer one is none of ours.
const MAX_LINE: u64 = 64 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Id,
    Number,
    Text,
    /// A text of which only the SHA-256 leaves the house.
    Hashed,
}

struct Table {
    name: &'static str,
    columns: &'static [(&'static str, Kind)],
    /// The first so many columns are its key, in whose order it is written.
    key: usize,
    /// What is looked up in it when it is checked.
    lookups: &'static [&'static str],
}

use Kind::{Hashed, Id, Number, Text};

const TABLES: &[Table] = &[
    Table {
        name: "accounts",
        columns: &[
            ("id", Id),
            ("kind", Text),
            ("owner_id", Id),
            ("shard", Number),
            ("balance", Number),
            ("version", Number),
            ("created_at", Number),
        ],
        key: 1,
        lookups: &["id"],
    },
    Table {
        name: "transfers",
        columns: &[
            ("id", Id),
            ("batch_id", Id),
            ("kind", Text),
            ("debit_id", Id),
            ("credit_id", Id),
            ("amount", Number),
            ("task_id", Id),
            ("channel_id", Id),
            ("reference", Hashed),
            ("created_at", Number),
        ],
        key: 1,
        lookups: &["id", "channel_id", "debit_id", "credit_id"],
    },
    Table {
        name: "entries",
        columns: &[
            ("account_id", Id),
            ("version", Number),
            ("transfer_id", Id),
            ("amount", Number),
            ("previous", Number),
            ("current", Number),
            ("created_at", Number),
        ],
        key: 2,
        lookups: &["transfer_id, account_id", "account_id, version"],
    },
    Table {
        name: "holds",
        columns: &[
            ("id", Id),
            ("escrow_id", Id),
            ("payer_account_id", Id),
            ("task_id", Id),
            ("amount", Number),
            ("status", Text),
            ("created_at", Number),
        ],
        key: 1,
        lookups: &["escrow_id", "task_id", "payer_account_id"],
    },
    Table {
        name: "hold_resolutions",
        columns: &[
            ("hold_id", Id),
            ("kind", Text),
            ("posted", Number),
            ("returned", Number),
            ("batch_id", Id),
            ("created_at", Number),
        ],
        key: 1,
        lookups: &["hold_id"],
    },
    Table {
        name: "channels",
        columns: &[
            ("id", Id),
            ("purpose", Text),
            ("payer_id", Id),
            ("agent_id", Id),
            ("task_id", Id),
            ("hold_id", Id),
            ("deposit", Number),
            ("paid", Number),
            ("status", Text),
            ("closed_at", Number),
        ],
        key: 1,
        lookups: &["id"],
    },
    Table {
        name: "bonds",
        columns: &[("id", Id), ("task_id", Id), ("amount", Number), ("status", Text)],
        key: 1,
        lookups: &["id"],
    },
    Table {
        name: "delegations",
        columns: &[("id", Id), ("parent_id", Id), ("budget", Number), ("spent", Number), ("finished_at", Number)],
        key: 1,
        lookups: &["id", "parent_id"],
    },
    Table {
        name: "tasks",
        columns: &[("id", Id), ("status", Text), ("channel_id", Id), ("finished_at", Number)],
        key: 1,
        lookups: &["id"],
    },
    Table { name: "task_results", columns: &[("task_id", Id), ("outcome", Text)], key: 1, lookups: &["task_id"] },
    Table { name: "agents", columns: &[("id", Id), ("score", Number)], key: 1, lookups: &["id"] },
    Table {
        name: "reputations",
        columns: &[
            ("agent_id", Id),
            ("success_sum", Number),
            ("success_weight", Number),
            ("rating_sum", Number),
            ("rating_weight", Number),
            ("timeliness_sum", Number),
            ("timeliness_weight", Number),
            ("cost_sum", Number),
            ("cost_weight", Number),
            ("experience", Number),
            ("as_of", Number),
            ("version", Number),
            ("tasks", Number),
            ("successes", Number),
            ("failures", Number),
            ("earned", Number),
            ("busy_ms", Number),
        ],
        key: 1,
        lookups: &["agent_id"],
    },
    Table {
        name: "reputation_events",
        columns: &[
            ("id", Id),
            ("agent_id", Id),
            ("version", Number),
            ("task_id", Id),
            ("payer_id", Id),
            ("owner_id", Id),
            ("cause", Text),
            ("amount", Number),
            ("weight", Number),
            ("success", Number),
            ("rating", Number),
            ("timeliness", Number),
            ("cost", Number),
            ("score_before", Number),
            ("score_after", Number),
            ("created_at", Number),
        ],
        key: 1,
        lookups: &["agent_id, version", "task_id"],
    },
    Table {
        name: "journal_lines",
        columns: &[("place", Number), ("transfer_id", Id), ("hash", Text)],
        key: 1,
        lookups: &["place", "transfer_id"],
    },
    Table {
        name: "journal_heads",
        columns: &[("place", Number), ("hash", Text), ("signature", Text), ("created_at", Number)],
        key: 1,
        lookups: &["place"],
    },
];

impl Table {
    fn names(&self) -> Vec<&'static str> {
        self.columns.iter().map(|(name, _)| *name).collect()
    }

    /// The statement for the next rows behind a key.
    fn select(&self, backend: DbBackend, after: Option<&[String]>) -> Statement {
        let columns: Vec<String> = self
            .columns
            .iter()
            .map(|(name, kind)| match kind {
                Number => format!("CAST({name} AS BIGINT) AS {name}"),
                Id | Text | Hashed => (*name).to_owned(),
            })
            .collect();
        let key = self.names().into_iter().take(self.key).collect::<Vec<_>>().join(", ");
        let behind = after.map_or_else(String::new, |after| format!("WHERE ({key}) > ({})", after.join(", ")));
        let (columns, name) = (columns.join(", "), self.name);
        Statement::from_string(backend, format!("SELECT {columns} FROM {name} {behind} ORDER BY {key} LIMIT {PAGE}"))
    }

    /// A row as a line of the archive.
    fn line(&self, row: &QueryResult) -> Result<Map<String, Json>> {
        let mut line = Map::new();
        line.insert("table".to_owned(), json!(self.name));
        for (name, kind) in self.columns {
            let value = match kind {
                Id => json!(row.try_get::<Option<Uuid>>("", name)?),
                Number => json!(row.try_get::<Option<i64>>("", name)?),
                Text => json!(row.try_get::<Option<String>>("", name)?),
                Hashed => {
                    json!(row.try_get::<Option<String>>("", name)?.map(|text| hex::encode(Sha256::digest(text))))
                }
            };
            line.insert((*name).to_owned(), value);
        }
        Ok(line)
    }

    /// The key of a line as the database writes it.
    fn key_of(&self, backend: DbBackend, line: &Map<String, Json>) -> Option<Vec<String>> {
        let of = |(name, kind): &(&str, Kind)| match (line.get(*name)?, kind) {
            (Json::String(text), Id) => Uuid::parse_str(text).ok().map(|id| literal(backend, id)),
            (Json::Number(number), Number) => Some(number.to_string()),
            _ => None,
        };
        self.columns.iter().take(self.key).map(of).collect()
    }

    /// The values of a line, in the order of the columns. `None` if the line is not exactly one of ours.
    fn values(&self, line: &Map<String, Json>) -> Option<Vec<Value>> {
        if line.len() != self.columns.len().checked_add(1)? {
            return None;
        }
        self.columns
            .iter()
            .map(|(name, kind)| match (line.get(*name)?, kind) {
                (Json::Null, Id) => Some(Value::from(None::<Uuid>)),
                (Json::Null, Number) => Some(Value::from(None::<i64>)),
                (Json::Null, Text | Hashed) => Some(Value::from(None::<String>)),
                (Json::String(text), Id) => Uuid::parse_str(text).ok().map(Value::from),
                (Json::String(text), Text | Hashed) => Some(Value::from(text.clone())),
                (Json::Number(number), Number) => number.as_i64().map(Value::from),
                _ => None,
            })
            .collect()
    }
}

/// What an archive says of itself, and how much is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// Whose books they are, by the archive's own word.
    pub signer_key: [u8; 32],
    pub exported_at: Timestamp,
    /// How many rows of each table.
    pub rows: BTreeMap<&'static str, u64>,
}

/// A writer that remembers the digest of all that went through it.
struct Hashing<W> {
    to: W,
    digest: Sha256,
}

impl<W: Write> Hashing<W> {
    fn line(&mut self, line: &Json) -> Result<()> {
        let text = format!("{line}\n");
        self.digest.update(&text);
        self.to.write_all(text.as_bytes()).map_err(Error::internal)
    }
}

/// Writes the books as `db`, a snapshot, shows them. Answers what it wrote.
pub async fn export(db: &DatabaseTransaction, instance: &Instance, at: Timestamp, to: impl Write) -> Result<Contents> {
    let mut to = Hashing { to, digest: Sha256::new() };
    let signer = Signer::of(instance.public_key());
    to.line(&json!({
        "archive": FORMAT,
        "instanceId": hex::encode(signer.id),
        "publicKey": hex::encode(signer.public_key),
        "exportedAt": at.micros(),
    }))?;
    let backend = db.get_database_backend();
    let mut rows = BTreeMap::new();
    for table in TABLES {
        let (mut count, mut after) = (0_u64, None);
        loop {
            let page = db.query_all_raw(table.select(backend, after.as_deref())).await?;
            let mut last = None;
            for row in &page {
                let line = table.line(row)?;
                last = table.key_of(backend, &line);
                to.line(&Json::Object(line))?;
                count = count.saturating_add(1);
            }
            if page.len() < PAGE {
                break;
            }
            after = Some(last.ok_or_else(|| Error::internal("a row without its key"))?);
        }
        rows.insert(table.name, count);
    }
    let digest: [u8; 32] = to.digest.clone().finalize().into();
    let signature = instance.sign(&message(signer, &digest));
    to.line(&Json::Object(seal(&digest, &signature)))?;
    to.to.flush().map_err(Error::internal)?;
    Ok(Contents { signer_key: signer.public_key, exported_at: at, rows })
}

fn message(signer: Signer, digest: &[u8; 32]) -> Vec<u8> {
    [TAG, &signer.id, digest].concat()
}

fn seal(digest: &[u8; 32], signature: &[u8; 64]) -> Map<String, Json> {
    let mut seal = Map::new();
    seal.insert("digest".to_owned(), json!(hex::encode(digest)));
    seal.insert("signature".to_owned(), json!(hex::encode(signature)));
    seal
}

/// An archive as tables, and whether the file was as it was written.
#[derive(Debug)]
pub struct Loaded {
    /// Its rows.
    pub db: DatabaseConnection,
    pub contents: Contents,
    /// What the file itself must be.
    pub checks: Vec<Check>,
}

/// Reads an archive into an empty database below `folder`. Fails if it does not begin like one; whatever else is wrong with the
/// file is in the checks.
pub async fn load(mut from: impl BufRead, folder: &Path) -> Result<Loaded> {
    let no_archive = || Error::invalid("file", "must be an archive that `zerostate audit export` wrote");
    let first = read_line(&mut from)?.ok_or_else(no_archive)?;
    let head: Map<String, Json> = serde_json::from_slice(&first).map_err(|_| no_archive())?;
    let text = |name: &str| head.get(name).and_then(Json::as_str);
    let key = text("publicKey").and_then(|hex| hex::decode(hex).ok()).and_then(|key| key.try_into().ok());
    let (Some(FORMAT), Some(signer_key), Some(exported_at)) =
        (text("archive"), key, head.get("exportedAt").and_then(Json::as_i64))
    else {
        return Err(no_archive());
    };
    let signer = Signer::of(signer_key);

    let db = open(folder).await?;
    let mut digest = Sha256::new().chain_update(&first);
    let mut unreadable = u64::from(text("instanceId") != Some(hex::encode(signer.id).as_str()));
    let mut rows = BTreeMap::new();
    let mut waiting: Option<(&Table, Vec<Value>)> = None;
    let (mut next, mut last) = (read_line(&mut from)?, None);
    while let Some(line) = next.take() {
        next = read_line(&mut from)?;
        if next.is_none() {
            last = Some(line);
            break;
        }
        digest.update(&line);
        let Some((table, values)) = read_row(&line) else {
            unreadable = unreadable.saturating_add(1);
            continue;
        };
        let count: &mut u64 = rows.entry(table.name).or_insert(0);
        *count = count.saturating_add(1);
        waiting = Some(match waiting.take() {
            Some((same, mut all))
                if same.name == table.name && all.len() < PAGE.saturating_mul(table.columns.len()) =>
            {
                all.extend(values);
                (same, all)
            }
            Some((other, all)) => {
                insert(&db, other, all).await?;
                (table, values)
            }
            None => (table, values),
        });
    }
    if let Some((table, all)) = waiting {
        insert(&db, table, all).await?;
    }
    db.execute_unprepared("COMMIT").await?;
    for table in TABLES {
        for columns in table.lookups {
            let name = columns.replace(", ", "_and_");
            let index = format!("CREATE INDEX {0}_by_{name} ON {0} ({columns})", table.name);
            db.execute_unprepared(&index).await?;
        }
    }
    let digest: [u8; 32] = digest.finalize().into();
    let sealed = last.is_some_and(|line| is_sealed(&line, signer, &digest));
    let checks = vec![
        Check { name: "A1", statement: "Every line of the archive can be read.", violations: unreadable },
        Check {
            name: "A2",
            statement: "The archive ends with the market's signature over all of it.",
            violations: u64::from(!sealed),
        },
    ];
    Ok(Loaded { db, contents: Contents { signer_key, exported_at: Timestamp::from_micros(exported_at), rows }, checks })
}

/// The next line with its end; nothing at the end of the file.
fn read_line(from: &mut impl BufRead) -> Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    from.by_ref().take(MAX_LINE).read_until(b'\n', &mut line).map_err(Error::internal)?;
    Ok((!line.is_empty()).then_some(line))
}

fn read_row(line: &[u8]) -> Option<(&'static Table, Vec<Value>)> {
    let row: Map<String, Json> = serde_json::from_slice(line).ok()?;
    let name = row.get("table")?.as_str()?;
    let table = TABLES.iter().find(|table| table.name == name)?;
    Some((table, table.values(&row)?))
}

/// Whether the last line is exactly what the market writes under these lines.
fn is_sealed(line: &[u8], signer: Signer, digest: &[u8; 32]) -> bool {
    let written = || {
        let read: Map<String, Json> = serde_json::from_slice(line).ok()?;
        let signature: [u8; 64] = hex::decode(read.get("signature")?.as_str()?).ok()?.try_into().ok()?;
        let key = VerifyingKey::from_bytes(&signer.public_key).ok()?;
        key.verify_strict(&message(signer, digest), &Signature::from_bytes(&signature)).ok()?;
        Some(format!("{}\n", Json::Object(seal(digest, &signature))))
    };
    written().is_some_and(|text| text.as_bytes() == line)
}

async fn open(folder: &Path) -> Result<DatabaseConnection> {
    let mut options = ConnectOptions::new(format!("sqlite:{}?mode=rwc", folder.join("archive.db").display()));
    options.max_connections(1).sqlx_logging(false);
    let db = Database::connect(options).await?;
    // It is thrown away afterwards, so nothing has to be durable.
    for statement in ["PRAGMA journal_mode = OFF", "PRAGMA synchronous = OFF", "BEGIN"] {
        db.execute_unprepared(statement).await?;
    }
    for table in TABLES {
        let columns: Vec<String> = table
            .columns
            .iter()
            .map(|(name, kind)| match kind {
                Id => format!("{name} BLOB"),
                Number => format!("{name} INTEGER"),
                Text | Hashed => format!("{name} TEXT"),
            })
            .collect();
        db.execute_unprepared(&format!("CREATE TABLE {} ({})", table.name, columns.join(", "))).await?;
    }
    Ok(db)
}

async fn insert(db: &DatabaseConnection, table: &Table, values: Vec<Value>) -> Result<()> {
    let columns = table.columns.len();
    let row = format!("({})", vec!["?"; columns].join(", "));
    let rows = vec![row; values.len().checked_div(columns).unwrap_or(0)].join(", ");
    let sql = format!("INSERT INTO {} ({}) VALUES {rows}", table.name, table.names().join(", "));
    db.execute_raw(Statement::from_sql_and_values(DbBackend::Sqlite, sql, values)).await?;
    Ok(())
}
