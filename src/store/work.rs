//! The unit of work: one transaction, one caller, one instant, one batch of events.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

use entity::{
    account, event,
    id::{AccountId, Id, UserId},
    time::Timestamp,
};
use sea_orm::{
    ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, ExprTrait, FromQueryResult, Iden, Iterable, Statement,
    Value,
    sea_query::{Expr, Func, InsertStatement, Order, Query},
};
use tracing::Span;
use uuid::{Builder, Uuid};

use super::{Event, Instance, Notice, Store, failpoint, group::Seat, rows::Arrays};
use crate::{
    caller::Caller,
    config::Terms,
    error::{Error, Result},
};

/// What a verb works on. Verbs read and write through [`Work::tx`] and never begin or commit, so they compose into larger verbs.
#[derive(Debug)]
pub struct Work {
    store: Store,
    tx: Arc<DatabaseTransaction>,
    /// The place among those who share a commit, where they do.
    seat: Option<Seat>,
    caller: Caller,
    began: Timestamp,
    locked: OnceLock<Timestamp>,
    /// Microseconds of the instant before which this cannot happen.
    least: AtomicI64,
    /// What happened, with whose doing it was.
    events: Vec<(Option<UserId>, Event)>,
    settles: AtomicBool,
    /// Accounts as they are now, whose rows nobody else can change until this is over.
    accounts: Mutex<BTreeMap<AccountId, account::Model>>,
}

impl Work {
    pub(super) fn new(store: Store, tx: Arc<DatabaseTransaction>, seat: Option<Seat>, caller: Caller) -> Self {
        let began = store.clock().now();
        let (locked, least, events, settles) = (OnceLock::new(), AtomicI64::new(0), Vec::new(), AtomicBool::new(false));
        let accounts = Mutex::default();
        Self { store, tx, seat, caller, began, locked, least, events, settles, accounts }
    }

    /// The transaction, for queries.
    #[must_use]
    pub fn tx(&self) -> &DatabaseTransaction {
        &self.tx
    }

    /// What this unit of work knows of accounts that it has locked or opened, so that the ledger reads each of them once.
    pub fn accounts(&self) -> MutexGuard<'_, BTreeMap<AccountId, account::Model>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who asked.
    #[must_use]
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The one instant at which all of this happens: when it got its first lock, or when it began if it needs none.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let read = self.locked.get().copied().unwrap_or(self.began);
        Ord::max(read, Timestamp::from_micros(self.least.load(Ordering::Relaxed)))
    }

    /// Says that a lock was got on what this work decides on. It may have waited for others that began later and are done now;
    /// from the first lock on it happens after them, so that the history of a subject never goes back in time.
    pub fn got_lock(&self) {
        self.locked.get_or_init(|| self.store.clock().now());
    }

    /// Says that this happens to something that has a history up to `instant`. The clock may have been turned back since, or be
    /// behind that of another process; what happens to one thing stays in order all the same, and nothing takes less than no time.
    pub fn not_before(&self, instant: Timestamp) {
        self.least.fetch_max(instant.micros(), Ordering::Relaxed);
    }

    /// Says that this settles a task, so that it is counted when it cannot.
    pub fn settling(&self) {
        self.settles.store(true, Ordering::Relaxed);
    }

    /// The terms of the market.
    #[must_use]
    pub fn terms(&self) -> &Terms {
        self.store.terms()
    }

    /// The market that signs for what happens here.
    pub fn instance(&self) -> Result<&Instance> {
        self.store.instance()
    }

    /// Fails with `BooksBroken` while an audit says so; whatever moves credits asks first.
    pub fn books(&self) -> Result<()> {
        self.store.books()
    }

    /// An id that nothing has yet; ids sort in the order of the calls.
    pub fn fresh<I: Id>(&mut self) -> I {
        I::from_uuid(self.store.entropy().uuid(self.now()))
    }

    /// Fresh random bytes, for secrets and jitter.
    #[must_use]
    pub fn random<const N: usize>(&self) -> [u8; N] {
        self.store.entropy().bytes()
    }

    /// Stages an event. It is written with the commit and told to subscribers after it.
    pub fn record(&mut self, event: Event) {
        self.events.push((self.caller.user_id(), event));
    }

    /// The same for what somebody did whose work is done here together with that of others.
    pub fn record_as(&mut self, actor: UserId, event: Event) {
        self.events.push((Some(actor), event));
    }

    /// Writes the staged events; the caller commits. A line about a task is not older than the one before it, whatever the clocks
    /// say that wrote them.
    async fn write_events(&mut self) -> Result<Vec<event::Model>> {
        if self.events.is_empty() {
            return Ok(Vec::new());
        }
        let now = self.now();
        let lines: Vec<[Value; 11]> = self.events.drain(..).map(|(actor, event)| cells(actor, event, now)).collect();
        let rows = if self.tx.get_database_backend() == DbBackend::Sqlite {
            self.tx.query_all(&insert_events(lines)?).await?
        } else {
            self.tx.query_all_raw(insert_arrays(&lines)?).await?
        };
        Ok(rows.iter().map(|row| event::Model::from_query_result(row, "")).collect::<std::result::Result<_, _>>()?)
    }

    /// Makes all of it durable and visible at once, then tells, its span too.
    pub(super) async fn commit(mut self, span: &Span) -> Result<()> {
        failpoint("store::before_events");
        let events = match self.write_events().await {
            Ok(events) => events,
            Err(error) => return Err(self.undo(error).await),
        };
        // Before anybody can hear of them.
        remember(&self.store, &events, span);
        let Self { store, tx, seat, settles, .. } = self;
        let committed = if let Some(seat) = seat {
            drop(tx);
            seat.leave(Some(events)).await
        } else {
            alone_to_the_end(&store, tx, &events).await
        };
        committed.inspect_err(|_| settlement_undone(&store, &settles))
    }

    /// Undoes all of it, so that the same can be begun anew at once.
    pub(super) async fn anew(self) -> Result<Self> {
        let Self { store, tx, seat, caller, .. } = self;
        if let Some(seat) = seat {
            seat.begin_anew(&tx).await?;
            return Ok(Self::new(store, tx, Some(seat), caller));
        }
        alone(tx)?.rollback().await?;
        store.begin(caller).await
    }

    /// Undoes all of it.
    pub(super) async fn rollback(self) -> Result<()> {
        let Self { tx, seat, .. } = self;
        match seat {
            Some(seat) => {
                drop(tx);
                seat.leave(None).await
            }
            None => Ok(alone(tx)?.rollback().await?),
        }
    }

    /// Undoes what is left of a unit of work that failed, and answers why it did. The database may have undone it by itself, or be
    /// gone: then nothing of it happened either. What it was refused for may have been undone with it, so a refusal does not stand.
    pub(super) async fn undo(self, error: Error) -> Error {
        settlement_undone(&self.store, &self.settles);
        match self.rollback().await {
            Ok(()) => error,
            Err(failed) if matches!(error, Error::Internal(_)) => {
                tracing::warn!(error = %failed, "a failed unit of work could not be undone; the database has dropped it by itself");
                error
            }
            Err(failed) => failed,
        }
    }
}

/// Commits a unit of work that shares its transaction with nobody, and tells.
async fn alone_to_the_end(store: &Store, tx: Arc<DatabaseTransaction>, events: &[event::Model]) -> Result<()> {
    failpoint("store::before_commit");
    alone(tx)?.commit().await?;
    failpoint("store::after_commit");
    store.announce(events);
    Ok(())
}

/// The transaction of a unit of work that shares it with nobody.
fn alone(tx: Arc<DatabaseTransaction>) -> Result<DatabaseTransaction> {
    Arc::into_inner(tx).ok_or_else(|| Error::internal("a transaction is held by more than its unit of work"))
}

fn settlement_undone(store: &Store, settles: &AtomicBool) {
    if settles.load(Ordering::Relaxed) {
        store.notice(Notice::SettlementUndone);
    }
}

/// Says in the span of a unit of work what came of it, and remembers where tasks were posted.
fn remember(store: &Store, events: &[event::Model], span: &Span) {
    if span.is_disabled() {
        return;
    }
    span.record("zerostate.events", i64::try_from(events.len()).unwrap_or(i64::MAX));
    for task in events.iter().filter(|event| event.kind == event::Kind::TaskPosted).filter_map(|event| event.task_id) {
        store.posted().remember(task.uuid(), span);
    }
}

/// The columns of a line but for its number, which the database gives.
fn line_columns() -> impl Iterator<Item = event::Column> {
    event::Column::iter().skip(1)
}

/// The cells of a line in the order of [`line_columns`].
fn cells(actor: Option<UserId>, event: Event, now: Timestamp) -> [Value; 11] {
    [
        event.kind.into(),
        event.auction_id.into(),
        event.task_id.into(),
        event.channel_id.into(),
        event.delegation_id.into(),
        event.agent_id.into(),
        event.payer_id.into(),
        event.owner_id.into(),
        actor.into(),
        event.payload.into(),
        now.into(),
    ]
}

fn insert_events(lines: Vec<[Value; 11]>) -> Result<InsertStatement> {
    let mut insert = Query::insert();
    insert.into_table(event::Entity).columns(line_columns()).returning_all();
    for line in lines {
        let [kind, auction, task, channel, delegation, agent, payer, owner, actor, payload, now] = line.map(Expr::val);
        let occurred_at = Func::greatest([now, newest_line(task.clone())]).into();
        let cells = [kind, auction, task, channel, delegation, agent, payer, owner, actor, payload, occurred_at];
        insert.values(cells).map_err(Error::internal)?;
    }
    Ok(insert)
}

/// The same for PostgreSQL, in one text for any number of lines.
fn insert_arrays(lines: &[[Value; 11]]) -> Result<Statement> {
    let mut arrays = Arrays::default();
    for (place, column) in line_columns().enumerate() {
        let column_of =
            |line: &[Value; 11]| line.get(place).cloned().ok_or_else(|| DbErr::Type("too short".to_owned()));
        arrays.add(&column.to_string(), lines.iter().map(column_of))?;
    }
    let Arrays { names, unnested, values } = arrays;
    let given = names.trim_end_matches(r#""occurred_at""#);
    let text = format!(
        "INSERT INTO events ({names}) SELECT {given} GREATEST(occurred_at, COALESCE((SELECT e.occurred_at FROM events AS e \
         WHERE e.task_id = line.task_id ORDER BY e.id DESC LIMIT 1), 0)) FROM (SELECT {unnested}) AS line RETURNING *"
    );
    Ok(Statement::from_sql_and_values(DbBackend::Postgres, text, values))
}

/// The instant of the newest line about a task, or the beginning of time.
fn newest_line(task: Expr) -> Expr {
    let newest = Query::select()
        .column(event::Column::OccurredAt)
        .from(event::Entity)
        .and_where(Expr::col(event::Column::TaskId).eq(task))
        .order_by(event::Column::Id, Order::Desc)
        .limit(1)
        .take();
    Func::coalesce([Expr::from(newest), Expr::val(0_i64)]).into()
}

/// A UUID that depends on its parts alone, so that a retry makes the same one: version 5 under a namespace of ours.
#[must_use]
pub fn derived_uuid(parts: &[&[u8]]) -> Uuid {
    const NAMESPACE: Uuid = Uuid::from_u128(0x6f1d_2f0a_52c4_4d6e_9b77_7a65_726f_7374);
    let mut name = Vec::new();
    for part in parts {
        name.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        name.extend_from_slice(part);
    }
    Uuid::new_v5(&NAMESPACE, &name)
}

/// The least id that something of this instant or later can have, to read the newest rows by their key.
#[must_use]
pub fn first_id(at: Timestamp) -> Uuid {
    let millis = u64::try_from(at.micros()).unwrap_or(0) / 1_000;
    Builder::from_unix_timestamp_millis(millis, &[0; 10]).into_uuid()
}
