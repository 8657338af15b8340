//! The version of the schema: which changes the database has, which this program knows, and how the one comes to the other while
//! other instances work.
//!
//! ```text
//! the database lacks a change ──► migrated, by one process alone        (or refused, where an operator wants to do it)
//! the database has one more   ──► served: a newer release only adds; see docs/upgrading.md
//! both                        ──► refused: it belongs to another line of releases
//! ```
//!
//! On PostgreSQL a change never waits long for a lock: behind a waiting `ALTER TABLE` everybody else would wait too. It gives up
//! after [`LOCK_TIMEOUT`], lets the others through and tries again.

use std::{collections::BTreeSet, time::Duration};

use migration::{Migrator, MigratorTrait};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, DbErr, RuntimeErr, SqlxPostgresConnector, Statement};
use sqlx::postgres::PgPoolOptions;

use super::Store;
use crate::error::{Error, Result};

/// The key of the advisory lock under which PostgreSQL is migrated.
const MIGRATION_LOCK: i64 = 0x7a65_726f_7374;
/// How long a change waits for a lock on PostgreSQL.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// How often it tries to get its locks, and the pause between two tries.
const LOCK_TRIES: u32 = 60;
const LOCK_PAUSE: Duration = Duration::from_secs(1);
/// How often a process looks whether another one has migrated, and the pause between two looks: ten minutes in all.
const TURN_TRIES: u32 = 3_000;
const TURN_PAUSE: Duration = Duration::from_millis(200);
/// What PostgreSQL says when a lock was not to be had in time.
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// How the schema of a database differs from the one that this program knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Changes that the database lacks, in order.
    pub pending: Vec<String>,
    /// Changes that the database has and this program does not know.
    pub newer: Vec<String>,
}

/// Why a program does not work on a database.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemaRefused {
    /// It lacks changes, and they are not this process's business.
    #[error("the database lacks {}", .0.join(", "))]
    Older(Vec<String>),
    /// It lacks changes and has others.
    #[error("the database lacks {} and has {}, which this program does not know", .0.pending.join(", "), .0.newer.join(", "))]
    Apart(Difference),
}

impl Store {
    /// Brings the schema up to date and answers the changes that this process made. Several processes may call this at once on
    /// PostgreSQL; one does it, the others wait. A database that is newer than this program is left as it is.
    pub async fn migrate(&self) -> Result<Vec<String>> {
        let before = self.difference().await?;
        before.tolerable()?;
        if before.pending.is_empty() {
            return Ok(Vec::new());
        }
        if self.backend() == DbBackend::Sqlite {
            Migrator::up(&self.0.writer, None).await?;
        } else {
            return self.migrate_in_turn().await;
        }
        Ok(before.pending)
    }

    /// Refuses a database that waits for changes. One that is newer is served.
    pub async fn refuse_older(&self) -> Result<()> {
        let difference = self.difference().await?;
        difference.tolerable()?;
        if difference.pending.is_empty() {
            Ok(())
        } else {
            Err(Error::internal(SchemaRefused::Older(difference.pending)))
        }
    }

    /// How the database's schema differs from the one of this program. Asked where reading is: it does not wait behind those that
    /// write.
    pub async fn difference(&self) -> Result<Difference> {
        Ok(difference(&self.0.reader).await?)
    }

    /// Takes back the newest `steps` migrations.
    pub async fn migrate_down(&self, steps: u32) -> Result<()> {
        Ok(Migrator::down(&self.0.writer, Some(steps)).await?)
    }

    /// Migrates PostgreSQL on a connection of its own, whose statements may take as long as they need but wait for nobody for long.
    async fn migrate_in_turn(&self) -> Result<Vec<String>> {
        let options = self.0.writer.get_postgres_connection_pool().connect_options();
        let patience = LOCK_TIMEOUT.as_millis().to_string();
        let options = (*options).clone().options([("statement_timeout", "0"), ("lock_timeout", patience.as_str())]);
        let pool = PgPoolOptions::new().max_connections(1).idle_timeout(None).max_lifetime(None);
        let pool = pool.connect_with(options).await.map_err(Error::internal)?;
        let alone = SqlxPostgresConnector::from_sqlx_postgres_pool(pool.clone());
        let migrated = async {
            take_turn(&alone).await?;
            up(&alone).await
        }
        .await;
        // The turn ends with the session.
        pool.close().await;
        migrated
    }
}

impl Difference {
    /// Refuses a database of another line of releases, and says so when it is only newer.
    fn tolerable(&self) -> Result<()> {
        if self.newer.is_empty() {
            return Ok(());
        }
        if !self.pending.is_empty() {
            return Err(Error::internal(SchemaRefused::Apart(self.clone())));
        }
        tracing::warn!(
            newer = self.newer.join(", "),
            "the database was migrated by a newer release, which only adds; this one goes on"
        );
        Ok(())
    }
}

/// Compares what the database says it has with what this program knows.
async fn difference(db: &DatabaseConnection) -> std::result::Result<Difference, DbErr> {
    let backend = db.get_database_backend();
    let is_there = if backend == DbBackend::Sqlite {
        "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'seaql_migrations'"
    } else {
        "SELECT 1 WHERE to_regclass('seaql_migrations') IS NOT NULL"
    };
    let mut applied = BTreeSet::new();
    if db.query_one_raw(Statement::from_string(backend, is_there)).await?.is_some() {
        let versions = Statement::from_string(backend, "SELECT version FROM seaql_migrations");
        for row in db.query_all_raw(versions).await? {
            applied.insert(row.try_get::<String>("", "version")?);
        }
    }
    let known: Vec<String> = Migrator::migrations().into_iter().map(|migration| migration.name().to_owned()).collect();
    let newer = applied.iter().filter(|name| !known.contains(name)).cloned().collect();
    let pending = known.into_iter().filter(|name| !applied.contains(name)).collect();
    Ok(Difference { pending, newer })
}

/// Waits until no other process migrates.
async fn take_turn(alone: &DatabaseConnection) -> Result<()> {
    let question = format!("SELECT pg_try_advisory_lock({MIGRATION_LOCK}) AS mine");
    for number in 0..TURN_TRIES {
        let row = alone.query_one_raw(Statement::from_string(DbBackend::Postgres, &question)).await?;
        if row.is_some_and(|row| row.try_get::<bool>("", "mine").unwrap_or(false)) {
            return Ok(());
        }
        if number == 0 {
            tracing::info!("another process migrates the database; this one waits for it");
        }
        tokio::time::sleep(TURN_PAUSE).await;
    }
    Err(Error::Unavailable("Another process has been migrating the database for ten minutes."))
}

/// Makes the changes that are left, each in a transaction, and tries again those whose locks were not to be had.
async fn up(alone: &DatabaseConnection) -> Result<Vec<String>> {
    let before = difference(alone).await?.pending;
    for number in 1..=LOCK_TRIES {
        match Migrator::up(alone, None).await {
            Ok(()) => return Ok(before),
            Err(error) if waited_for_a_lock(&error) && number < LOCK_TRIES => {
                tracing::warn!(
                    number,
                    "a change of the schema did not get its lock in time; it lets others through and tries again"
                );
                tokio::time::sleep(LOCK_PAUSE).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(before)
}

fn waited_for_a_lock(error: &DbErr) -> bool {
    let (DbErr::Conn(RuntimeErr::SqlxError(error))
    | DbErr::Exec(RuntimeErr::SqlxError(error))
    | DbErr::Query(RuntimeErr::SqlxError(error))) = error
    else {
        return false;
    };
    error.as_database_error().is_some_and(|error| error.code().is_some_and(|code| code == LOCK_NOT_AVAILABLE))
}
