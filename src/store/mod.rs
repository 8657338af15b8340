//! The unit of work and the event log: the one place that begins, commits and announces.
//!
//! ```text
//! Store::write ─► begin ─► verb(&mut Work) ─► events ─► commit ─► announce
//!                            └─ Err ─► rollback: nothing happened
//! ```
//!
//! What must always hold: a verb's effects, its events and its idempotency record become visible together or not at all; an
//! event is announced only after it is durable; on SQLite there is one writer, which takes the write lock as it begins; on
//! PostgreSQL writers lock the rows they decide on, in the order auction, task, channel, hold, accounts by ascending id.

mod clock;
mod events;
pub mod failpoint;
mod group;
mod identity;
mod keep;
pub(crate) mod keys;
mod once;
mod outage;
mod queue;
mod replica;
mod rows;
mod schema;
mod work;

use std::{
    any::type_name_of_val,
    str::FromStr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use entity::{event, id::AgentId, instance, time::Timestamp};
use sea_orm::{
    AccessMode,
    ActiveValue::Set,
    ColumnTrait, ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, EntityTrait, IsolationLevel,
    QuerySelect, QueryTrait, Select, SqliteTransactionMode, SqlxPostgresConnector, SqlxSqliteConnector, Statement,
    TransactionOptions, TransactionTrait, Value,
    sea_query::{Expr, OnConflict, UnionType},
};
use sqlx::{
    Connection, Executor, SqliteConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tracing::{Instrument, Span, field::Empty};

pub use clock::{Clock, Entropy};
pub use events::{Cursor, Event, Follow, InvalidCursor, Line, Reader, Topic};
pub use failpoint::failpoint;
pub(crate) use identity::INSTANCE;
pub use identity::Instance;
pub use keep::Aged;
pub use keys::MissingKey;
pub use once::{Answer, Once, OnceRefused, answered, keep};
pub use outage::is_outage;
pub use queue::{Queue, Sizes};
pub use replica::{Following, MAX_LAG};
pub(crate) use rows::insert_all;
pub use schema::{Difference, SchemaRefused};
pub use work::{Work, derived_uuid, first_id};

use crate::{
    caller::Caller,
    config::{Storage, Terms},
    error::{Error, Result},
    trace,
};

/// A prepared statement is kept for each of this many texts on a connection.
const STATEMENT_CACHE: usize = 512;
/// A connection that was idle for longer is tried before it is used.
const IDLE_BEFORE_PING: Duration = Duration::from_secs(30);
/// Agents of which is remembered in memory when they were heard of.
const HEARD: u64 = 100_000;
/// How many times longer one waits for the one writer of SQLite than for a reader.
const WRITER_PATIENCE: u32 = 6;

/// The members of a list in a statement, of which the last is repeated up to the next power of two: lists of few lengths make few
/// statements to prepare.
pub(crate) fn padded<T: Clone>(members: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut members: Vec<T> = members.into_iter().collect();
    if let Some(last) = members.last().cloned() {
        members.resize(members.len().next_power_of_two(), last);
    }
    members
}

/// What each of some selections finds, as one statement; nothing when there are none. The database answers each by itself. Of
/// conditions joined by OR it would take out what they have in common, such as the user, and read all that there is of that.
pub(crate) fn each<E: EntityTrait>(selections: impl IntoIterator<Item = Select<E>>) -> Option<Select<E>> {
    let mut selections = selections.into_iter();
    let mut all = selections.next()?;
    for selection in selections {
        // Distinct, because the list may have been padded.
        QuerySelect::query(&mut all).union(UnionType::Distinct, selection.into_query());
    }
    Some(all)
}

/// That a column has a value which stands in the text of the statement. An index over a part of a table serves only a statement whose
/// text asks for that part; one with a parameter in that place reads the whole table once its plan is kept.
pub(crate) fn literally(column: impl ColumnTrait, value: impl Into<Value>) -> Expr {
    sea_orm::ExprTrait::eq(column.into_expr(), Expr::Constant(value.into()))
}

/// The database with what every unit of work needs. Cheap to clone.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

type CommitHook = Box<dyn Fn(&[event::Model]) + Send + Sync>;
type NoticeHook = Box<dyn Fn(Notice) + Send + Sync>;

/// What the store alone notices, for those who count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// A follower was too slow for this many lines of the live feed and reads them from the log.
    Lagged(u64),
    /// A conflict or an outage of the database undid a unit of work, which is to be tried again.
    ToBeRetried,
    /// A unit of work that settled a task was undone by a failure.
    SettlementUndone,
}

struct Inner {
    writer: DatabaseConnection,
    reader: DatabaseConnection,
    replica: Option<replica::Replica>,
    backend: DbBackend,
    clock: Clock,
    entropy: Entropy,
    terms: Terms,
    hub: events::Hub,
    /// Where those who want to write wait, on SQLite.
    line: Option<group::Line>,
    instance: OnceLock<Instance>,
    on_commit: OnceLock<CommitHook>,
    on_notice: OnceLock<NoticeHook>,
    statements: Arc<AtomicU64>,
    commits: AtomicU64,
    books_broken: AtomicBool,
    posted: trace::Posted,
    heard: moka::sync::Cache<AgentId, Timestamp>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("backend", &self.0.backend).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the database. It is not migrated yet; see [`Store::migrate`].
    pub async fn connect(storage: &Storage, terms: Terms, clock: Clock, entropy: Entropy) -> Result<Self> {
        let statements = Arc::new(AtomicU64::new(0));
        let (mut writer, mut reader) = if let Some(path) = storage.url.strip_prefix("sqlite:") {
            connect_sqlite(path, storage).await?
        } else if storage.url.starts_with("postgres:") || storage.url.starts_with("postgresql:") {
            let connection = connect_postgres(storage).await?;
            (connection.clone(), connection)
        } else {
            return Err(Error::invalid("databaseUrl", "must start with sqlite: or postgres:"));
        };
        for connection in [&mut writer, &mut reader] {
            let statements = Arc::clone(&statements);
            connection.set_metric_callback(move |_| {
                statements.fetch_add(1, Ordering::Relaxed);
            });
        }
        let replica = replica::Replica::open(storage, &statements)?;
        let backend = writer.get_database_backend();
        // Of the system, because the name of a process must be its own whatever else is repeatable.
        let hub = events::Hub::new(Entropy::system().uuid(clock.now()));
        let patience = storage.acquire_timeout.saturating_mul(WRITER_PATIENCE);
        let line = (backend == DbBackend::Sqlite).then(|| group::Line::new(patience));
        let (instance, on_commit, on_notice) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        let (books_broken, posted) = (AtomicBool::new(false), trace::Posted::default());
        let inner = Inner {
            writer,
            reader,
            replica,
            backend,
            clock,
            entropy,
            terms,
            hub,
            line,
            instance,
            on_commit,
            on_notice,
            statements,
            commits: AtomicU64::new(0),
            books_broken,
            posted,
            heard: moka::sync::Cache::new(HEARD),
        };
        Ok(Self(Arc::new(inner)))
    }

    /// Makes this process speak for the market that the database belongs to. The first process of a new database writes down
    /// whose it is; after that, a process with another key is refused: what it signed would be worth nothing.
    pub async fn identify(&self, instance: Instance) -> Result<()> {
        let public_key = hex::encode(instance.public_key());
        let row = instance::ActiveModel {
            id: Set(1),
            public_key: Set(public_key.clone()),
            created_at: Set(self.0.clock.now()),
        };
        let nothing = OnConflict::new().do_nothing().to_owned();
        instance::Entity::insert(row).on_conflict(nothing).exec_without_returning(&self.0.writer).await?;
        let known = instance::Entity::find_by_id(1).one(&self.0.writer).await?;
        let known = known.ok_or_else(|| Error::internal("the database does not say whose it is"))?.public_key;
        if known != public_key {
            return Err(Error::internal(format!(
                "this database belongs to the market with the public key {known}, and the key in the data folder is that of \
                 {public_key}: put the right instance.key there"
            )));
        }
        self.0.instance.set(instance).map_err(|_| Error::internal("this process has said for whom it speaks"))
    }

    /// The public key of the market that a database belongs to, if it belongs to one yet.
    pub async fn known_key(db: &impl ConnectionTrait) -> Result<Option<[u8; 32]>> {
        let row = instance::Entity::find_by_id(1).one(db).await?;
        row.map(|row| {
            keys::read_hex(&row.public_key).ok_or_else(|| Error::internal("the database does not say whose it is"))
        })
        .transpose()
    }

    /// The market that this process speaks for.
    pub fn instance(&self) -> Result<&Instance> {
        self.0.instance.get().ok_or_else(|| Error::internal("this process does not speak for a market"))
    }

    /// The connection for reading outside a unit of work.
    #[must_use]
    pub fn read(&self) -> &DatabaseConnection {
        &self.0.reader
    }

    /// Which database this is.
    #[must_use]
    pub fn backend(&self) -> DbBackend {
        self.0.backend
    }

    /// The clock that every unit of work takes its instant from.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// The source of ids and secrets.
    #[must_use]
    pub fn entropy(&self) -> &Entropy {
        &self.0.entropy
    }

    /// The terms of the market.
    #[must_use]
    pub fn terms(&self) -> &Terms {
        &self.0.terms
    }

    /// How many statements this process has sent so far, for tests that bound them.
    #[must_use]
    pub fn statements(&self) -> u64 {
        self.0.statements.load(Ordering::Relaxed)
    }

    /// How many transactions this process has committed so far.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.0.commits.load(Ordering::Relaxed)
    }

    /// Registers the one listener that sees every batch of events right after this process committed it.
    pub fn on_commit(&self, hook: impl Fn(&[event::Model]) + Send + Sync + 'static) -> Result<()> {
        self.0.on_commit.set(Box::new(hook)).map_err(|_| Error::internal("the commit hook is set already"))
    }

    /// Registers the one listener that is told what the store notices.
    pub(crate) fn on_notice(&self, hook: impl Fn(Notice) + Send + Sync + 'static) -> Result<()> {
        self.0.on_notice.set(Box::new(hook)).map_err(|_| Error::internal("the notice hook is set already"))
    }

    fn notice(&self, notice: Notice) {
        if let Some(hook) = self.0.on_notice.get() {
            hook(notice);
        }
    }

    /// Tells of a unit of work that did not happen because of the database.
    fn notice_failure(&self, error: &Error) {
        if let Error::Internal(source) = error
            && is_outage(&**source)
        {
            self.notice(Notice::ToBeRetried);
        }
    }

    /// Says whether the books are in order. While they are not, nothing in this process moves credits.
    pub fn set_books(&self, in_order: bool) {
        self.0.books_broken.store(!in_order, Ordering::SeqCst);
    }

    /// Fails with `BooksBroken` while an audit of this process says so.
    pub fn books(&self) -> Result<()> {
        if self.0.books_broken.load(Ordering::SeqCst) { Err(Error::BooksBroken) } else { Ok(()) }
    }

    /// Reads many things as they were at one instant, however long it takes.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that may begin a transaction")]
    pub async fn snapshot<T>(&self, read: impl AsyncFnOnce(&DatabaseTransaction) -> Result<T>) -> Result<T> {
        let postgres = self.0.backend != DbBackend::Sqlite;
        let options = TransactionOptions {
            isolation_level: postgres.then_some(IsolationLevel::RepeatableRead),
            access_mode: postgres.then_some(AccessMode::ReadOnly),
            ..TransactionOptions::default()
        };
        let tx = self.0.reader.begin_with_options(options).await?;
        if postgres {
            // Whoever reads everything reads whole tables.
            let ways = "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0; \
                        SET LOCAL enable_seqscan = on";
            tx.execute_unprepared(ways).await?;
        }
        let outcome = read(&tx).await;
        tx.rollback().await?;
        outcome
    }

    /// Runs `verb` as one unit of work: all of it happens, and is announced, or nothing.
    pub async fn write<T>(&self, caller: Caller, verb: impl AsyncFnOnce(&mut Work) -> Result<T>) -> Result<T> {
        let span = unit_of_work(type_name_of_val(&verb), None);
        let done = async {
            let mut work = self.begin(caller).await?;
            match verb(&mut work).await {
                Ok(value) => {
                    work.commit(&span).await?;
                    Ok(value)
                }
                Err(error) => Err(work.undo(error).await),
            }
        };
        let done = done.instrument(span.clone()).await;
        ended(&span, &done);
        done.inspect_err(|error| self.notice_failure(error))
    }

    /// When this process last wrote down that it had heard of agents which run elsewhere.
    #[must_use]
    pub fn heard(&self) -> &moka::sync::Cache<AgentId, Timestamp> {
        &self.0.heard
    }

    /// The traces in which tasks were posted.
    #[must_use]
    pub fn posted(&self) -> &trace::Posted {
        &self.0.posted
    }

    async fn begin(&self, caller: Caller) -> Result<Work> {
        let (seat, tx) = match &self.0.line {
            Some(line) => {
                let (seat, tx) = group::Seat::take(self, line).await?;
                (Some(seat), tx)
            }
            None => (None, Arc::new(self.begin_transaction().await?)),
        };
        Ok(Work::new(self.clone(), tx, seat, caller))
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one place that may begin a transaction")]
    async fn begin_transaction(&self) -> Result<DatabaseTransaction> {
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        Ok(self.0.writer.begin_with_options(options).await?)
    }

    fn announce(&self, events: &[event::Model]) {
        self.0.commits.fetch_add(1, Ordering::Relaxed);
        if events.is_empty() {
            return;
        }
        if let Some(hook) = self.0.on_commit.get() {
            hook(events);
        }
        self.0.hub.committed();
    }

    /// Connections of the pool for reading: all of them, those that are idle, and how many there may be.
    #[must_use]
    pub fn pool(&self) -> (u32, u32, u32) {
        let (size, idle, most) = if self.0.backend == DbBackend::Sqlite {
            let pool = self.0.reader.get_sqlite_connection_pool();
            (pool.size(), pool.num_idle(), pool.options().get_max_connections())
        } else {
            let pool = self.0.reader.get_postgres_connection_pool();
            (pool.size(), pool.num_idle(), pool.options().get_max_connections())
        };
        (size, u32::try_from(idle).unwrap_or(u32::MAX), most)
    }

    /// How far the clock of the database is from ours, in microseconds; nothing where both are the same.
    pub async fn clock_skew(&self) -> Result<Option<i64>> {
        if self.0.backend == DbBackend::Sqlite {
            return Ok(None);
        }
        let sql = "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT) AS micros";
        let before = self.0.clock.now().micros();
        let row = self.0.reader.query_one_raw(Statement::from_string(self.0.backend, sql)).await?;
        let theirs: Option<i64> = row.map(|row| row.try_get("", "micros")).transpose()?;
        let after = self.0.clock.now().micros();
        // The question took a while; what lies within it is no difference.
        Ok(theirs.map(|theirs| if theirs < before { theirs - before } else { (theirs - after).max(0) }))
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<()> {
        self.0.reader.execute_unprepared("SELECT 1").await?;
        Ok(())
    }
}

/// The span of a unit of work: the function that it is written in, and the mutation that it is if it has an idempotency key.
fn unit_of_work(verb: &'static str, mutation: Option<&'static str>) -> Span {
    tracing::info_span!(
        target: trace::INNER,
        "unit of work",
        "otel.status_code" = Empty,
        "code.function.name" = trace::function_of(verb),
        "zerostate.mutation" = mutation,
        "zerostate.outcome" = Empty,
        "zerostate.code" = Empty,
        "zerostate.events" = Empty,
        "zerostate.begun_again" = Empty,
    )
}

/// Says in its span how a unit of work came out.
fn ended<T>(span: &Span, done: &Result<T>) {
    if span.is_disabled() {
        return;
    }
    let outcome = match done {
        Ok(_) => "committed",
        Err(Error::Internal(_) | Error::Unavailable(_)) => {
            span.record("otel.status_code", "ERROR");
            "failed"
        }
        Err(error) => {
            span.record("zerostate.code", error.refusal_code());
            "refused"
        }
    };
    span.record("zerostate.outcome", outcome);
}

/// Writes a copy of an embedded database into a file that is not there yet, as it is at one instant, while others use it. The copy
/// is looked through before this says that it is one.
pub async fn copy_embedded(from: &std::path::Path, to: &std::path::Path) -> Result<()> {
    let open = async |path: &std::path::Path| {
        let options = SqliteConnectOptions::new().filename(path).busy_timeout(Duration::from_secs(30));
        SqliteConnection::connect_with(&options).await.map_err(Error::internal)
    };
    let mut connection = open(from).await?;
    let copied = sqlx::query("VACUUM INTO ?").bind(to.display().to_string()).execute(&mut connection).await;
    connection.close().await.map_err(Error::internal)?;
    copied.map_err(Error::internal)?;
    let found = examine_embedded(to).await?;
    if found == "ok" { Ok(()) } else { Err(Error::internal(format!("the copy is damaged: {found}"))) }
}

/// What SQLite finds wrong with a database file; `ok` when it is nothing.
pub async fn examine_embedded(path: &std::path::Path) -> Result<String> {
    let options = SqliteConnectOptions::new().filename(path).read_only(true);
    let mut connection = SqliteConnection::connect_with(&options).await.map_err(Error::internal)?;
    let found = sqlx::query_scalar("PRAGMA integrity_check(1)").fetch_one(&mut connection).await;
    connection.close().await.map_err(Error::internal)?;
    found.map_err(Error::internal)
}

async fn connect_sqlite(path: &str, storage: &Storage) -> Result<(DatabaseConnection, DatabaseConnection)> {
    let path = path.trim_start_matches("//");
    if let Some(folder) = std::path::Path::new(path).parent().filter(|folder| !folder.as_os_str().is_empty()) {
        tokio::fs::create_dir_all(folder).await.map_err(Error::internal)?;
    }
    let options = SqliteConnectOptions::from_str(&format!("sqlite:{path}"))
        .map_err(Error::internal)?
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(storage.acquire_timeout)
        .statement_cache_capacity(STATEMENT_CACHE);
    let writer = SqlitePoolOptions::new()
        .max_connections(1)
        .test_before_acquire(false)
        // When the disk is full or fails, SQLite undoes the transaction by itself, and the pool goes on believing that there is
        // one. Such a connection is of no use any more; another one takes its place.
        .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
        .acquire_timeout(storage.acquire_timeout.saturating_mul(WRITER_PATIENCE))
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_with(options.clone())
        .await
        .map_err(Error::internal)?;
    let reader = SqlitePoolOptions::new()
        .max_connections(storage.max_connections)
        .test_before_acquire(false)
        .acquire_timeout(storage.acquire_timeout)
        .connect_with(options.pragma("query_only", "ON"))
        .await
        .map_err(Error::internal)?;
    Ok((SqlxSqliteConnector::from_sqlx_sqlite_pool(writer), SqlxSqliteConnector::from_sqlx_sqlite_pool(reader)))
}

async fn connect_postgres(storage: &Storage) -> Result<DatabaseConnection> {
    let timeout = storage.statement_timeout.as_millis().to_string();
    let options = PgConnectOptions::from_str(&storage.url)
        .map_err(Error::internal)?
        .application_name("zerostate")
        .statement_cache_capacity(STATEMENT_CACHE)
        .options([("statement_timeout", timeout.as_str()), ("idle_in_transaction_session_timeout", timeout.as_str())])
        // A plan is kept. One that was made while a table was nearly empty would read all of it when it is not any more.
        .options([("enable_seqscan", "off")]);
    let pool = PgPoolOptions::new()
        .max_connections(storage.max_connections)
        .acquire_timeout(storage.acquire_timeout)
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move { Ok(meta.idle_for < IDLE_BEFORE_PING || connection.ping().await.is_ok()) })
        })
        .after_connect(|connection, _| {
            Box::pin(async move { connection.execute("SET TIME ZONE 'UTC'").await.map(|_| ()) })
        })
        .connect_with(options)
        .await
        .map_err(Error::internal)?;
    Ok(SqlxPostgresConnector::from_sqlx_postgres_pool(pool))
}
