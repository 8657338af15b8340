//! A copy of the database for reading: a standby that follows, on PostgreSQL.
//!
//! Only those read here who have written nothing that they could miss: callers who are not signed in, in queries. Everybody else, and
//! every mutation with what it answers, every subscription and everything that the market does by itself, reads the database itself.
//!
//! Every second both are asked how far they are: a standby how much of the database's log it has replayed, and a copy that is kept
//! in another way how far its events go. Either has what was committed in the order of its commits, so a copy is as old as the last
//! time at which the database had no more than the copy has now. While that is longer ago than [`MAX_LAG`], or the copy does not answer, nobody is sent there; the log and `/ready` say so.

use std::{
    collections::VecDeque,
    str::FromStr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use entity::time::Timestamp;
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, SqlxPostgresConnector, Statement};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio_util::sync::CancellationToken;

use super::{STATEMENT_CACHE, Store};
use crate::{
    config::Storage,
    error::{Error, Result},
};

/// How old what the copy has may be.
pub const MAX_LAG: Duration = Duration::from_secs(5);
/// How often both are asked.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long the copy may take to answer, and how long a connection to it.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many looks at the database are remembered.
const REMEMBERED: usize = 120;

/// How it is with the copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Following {
    /// Readers are sent there; what it has is this old.
    Close(Duration),
    /// It is further behind than it may be.
    Behind,
    /// It does not answer, for this reason.
    Away(String),
}

/// The copy.
pub(super) struct Replica {
    db: DatabaseConnection,
    seen: Mutex<Seen>,
}

struct Seen {
    following: Following,
    /// When the database was how far, the oldest first.
    heads: VecDeque<(Timestamp, Position)>,
}

/// How far a database is.
#[derive(Clone, Copy, Debug)]
struct Position {
    /// Bytes of its log that are written or, on a standby, replayed; not there for a copy that has a log of its own.
    log: Option<i64>,
    /// The number of its newest event.
    events: i64,
}

impl Position {
    /// Whether a copy that is this far has all that the database had when it was there.
    fn has(self, ours: Self) -> bool {
        match self.log {
            Some(log) => ours.log.is_some_and(|ours| ours <= log),
            None => ours.events <= self.events,
        }
    }
}

impl Seen {
    /// How it is with a copy that is as far as `theirs`, when the database was as far as `ours` a moment before.
    fn look(&mut self, now: Timestamp, ours: Position, theirs: Position) -> Following {
        self.heads.push_back((now, ours));
        while self.heads.get(1).is_some_and(|(_, head)| theirs.has(*head)) || self.heads.len() > REMEMBERED {
            self.heads.pop_front();
        }
        let lag = self.heads.front().filter(|(_, head)| theirs.has(*head)).map(|(at, _)| now.since(*at));
        lag.filter(|lag| *lag <= MAX_LAG).map_or(Following::Behind, Following::Close)
    }
}

impl Replica {
    /// The copy that the configuration names. It is not tried yet: a service works without it.
    pub(super) fn open(storage: &Storage, statements: &Arc<AtomicU64>) -> Result<Option<Self>> {
        let Some(url) = &storage.replica_url else { return Ok(None) };
        if !storage.url.starts_with("postgres") {
            return Err(Error::invalid("replicaUrl", "is for PostgreSQL: the embedded database has no replica"));
        }
        let timeout = storage.statement_timeout.as_millis().to_string();
        let options = PgConnectOptions::from_str(url)
            .map_err(Error::internal)?
            .application_name("zerostate")
            .statement_cache_capacity(STATEMENT_CACHE)
            .options([
                ("statement_timeout", timeout.as_str()),
                ("default_transaction_read_only", "on"),
                ("timezone", "UTC"),
            ]);
        let pool = PgPoolOptions::new()
            .max_connections(storage.max_connections)
            .acquire_timeout(PATIENCE)
            .test_before_acquire(false)
            .connect_lazy_with(options);
        let mut db = SqlxPostgresConnector::from_sqlx_postgres_pool(pool);
        let statements = Arc::clone(statements);
        db.set_metric_callback(move |_| {
            statements.fetch_add(1, Ordering::Relaxed);
        });
        let following = Following::Away("it was not asked yet".to_owned());
        Ok(Some(Self { db, seen: Mutex::new(Seen { following, heads: VecDeque::new() }) }))
    }

    fn following(&self) -> Following {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).following.clone()
    }

    fn now_is(&self, following: Following) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match (&seen.following, &following) {
            (Following::Close(_), Following::Behind) => {
                tracing::warn!("the replica is too far behind; nobody reads there");
            }
            (Following::Close(_), Following::Away(why)) => {
                tracing::warn!(why, "the replica does not answer; nobody reads there");
            }
            (Following::Behind | Following::Away(_), Following::Close(lag)) => {
                tracing::info!(?lag, "the replica keeps up; queries of callers who are not signed in read there");
            }
            (Following::Close(_), Following::Close(_)) | (Following::Behind | Following::Away(_), _) => {}
        }
        seen.following = following;
    }
}

/// How far a database is, and whether it is a standby.
async fn position(db: &DatabaseConnection) -> Result<(Position, bool)> {
    let sql = "SELECT pg_is_in_recovery() AS standby, \
               CAST(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() \
               ELSE pg_current_wal_lsn() END, '0/0') AS BIGINT) AS log, \
               (SELECT COALESCE(MAX(id), 0) FROM events) AS events";
    let row = db.query_one_raw(Statement::from_string(DbBackend::Postgres, sql)).await?;
    let row = row.ok_or_else(|| Error::internal("the database did not say how far it is"))?;
    let position = Position { log: row.try_get("", "log")?, events: row.try_get("", "events")? };
    Ok((position, row.try_get("", "standby")?))
}

impl Store {
    /// The copy for reading, while it keeps up.
    pub(crate) fn replica(&self) -> Option<&DatabaseConnection> {
        let replica = self.0.replica.as_ref()?;
        matches!(replica.following(), Following::Close(_)).then_some(&replica.db)
    }

    /// How it is with the copy for reading; nothing where there is none.
    #[must_use]
    pub fn following(&self) -> Option<Following> {
        self.0.replica.as_ref().map(Replica::following)
    }

    /// Sends nobody to the copy until it was looked at again: it failed a reader.
    pub(crate) fn replica_failed(&self) {
        if let Some(replica) = &self.0.replica {
            replica.now_is(Following::Away("it failed a reader".to_owned()));
        }
    }

    /// Looks once how it is with the copy.
    pub async fn look_at_replica(&self) {
        let Some(replica) = &self.0.replica else { return };
        // While the database itself does not answer, nothing is known of the distance.
        let Ok((ours, _)) = position(&self.0.writer).await else { return };
        let following = match tokio::time::timeout(PATIENCE, position(&replica.db)).await {
            Ok(Ok((theirs, standby))) => {
                let theirs = Position { log: theirs.log.filter(|_| standby), ..theirs };
                let now = self.0.clock.now();
                replica.seen.lock().unwrap_or_else(PoisonError::into_inner).look(now, ours, theirs)
            }
            Ok(Err(error)) => Following::Away(error.to_string()),
            Err(_) => Following::Away("it does not answer in time".to_owned()),
        };
        replica.now_is(following);
    }

    /// Looks after the copy until `stop`; returns at once where there is none.
    pub(crate) async fn watch_replica(&self, stop: CancellationToken) {
        while self.0.replica.is_some() && !stop.is_cancelled() {
            self.look_at_replica().await;
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_as_old_as_the_last_time_at_which_it_had_everything() {
        let at = |seconds: i64| Timestamp::from_micros(seconds * 1_000_000);
        let close = |seconds| Following::Close(Duration::from_secs(seconds));
        let by_events = |events| Position { log: None, events };
        let by_log = |log| Position { log: Some(log), events: log };
        let fresh = || Seen { following: Following::Behind, heads: VecDeque::new() };
        let (mut seen, mut other) = (fresh(), fresh());
        for (now, ours, theirs, expected) in [
            // It has nothing of what is there.
            (0, 10, 0, Following::Behind),
            (1, 10, 9, Following::Behind),
            (2, 10, 10, close(0)),
            // A market in which nothing happens makes no copy old.
            (60, 10, 10, close(0)),
            (61, 11, 10, close(1)),
            (65, 12, 10, close(5)),
            (66, 12, 10, Following::Behind),
            (67, 12, 11, Following::Behind),
            (68, 13, 12, close(1)),
            (69, 13, 14, close(0)),
        ] {
            assert_eq!(seen.look(at(now), by_log(ours), by_log(theirs)), expected, "at {now}");
            assert_eq!(other.look(at(now), by_log(ours), by_events(theirs)), expected, "at {now}");
        }
        for second in 100..1_000 {
            assert_eq!(seen.look(at(second), by_log(second), by_log(14)), Following::Behind, "at {second}");
        }
        assert!(seen.heads.len() <= REMEMBERED);
    }
}
