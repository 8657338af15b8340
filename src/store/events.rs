//! The event log and its live feed.
//!
//! The log is the table `events`: a line is there if and only if its unit of work is. A line's [`Cursor`] is its place in the one
//! order that every reader sees. On SQLite, which has one writer, that is the row number. On PostgreSQL row numbers become visible
//! out of order, because a transaction takes its number before it commits, so there a committed line gets its place afterwards:
//! whoever reads the log first numbers the lines that are visible and have none, in the order of their row numbers, under a lock.
//! Nothing can appear behind a cursor, and no other transaction of the database can hold the log up. Units of work lock the subject
//! that they decide on, so a later line about it commits later and has the higher row number: the lines of one subject are in the
//! order in which things happened.
//!
//! ```text
//! commit ─► Hub::committed ─┐
//! NOTIFY from others ───────┼─► tailer gives places or reads ─► Topic ─► Follow (subscribe, replay, then live)
//! slow poll ────────────────┘
//! ```
//!
//! A [`Follow`] attaches to the live feed first, then reads the log from its cursor, then follows, dropping what it has seen.
//! When it is too slow for the feed's bounded buffer it reads the log again from where it is: a slow reader costs a query,
//! never an event and never memory.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    str::FromStr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use entity::{
    event::{self, Kind, Payload},
    id::{AgentId, AuctionId, ChannelId, DelegationId, Id, TaskId, UserId},
    time::Timestamp,
};
use sea_orm::{ConnectionTrait, DbBackend, FromQueryResult, Iterable, QueryResult, Statement, TransactionTrait, Value};
use tokio::{
    sync::{Notify, broadcast},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Notice, Store};
use crate::{
    caller::Caller,
    error::{Error, Result, refusals},
};

/// Lines that the live feed keeps for a subscriber that is busy.
const FEED_BUFFER: usize = 256;
/// Lines that one read of the log takes.
const PAGE: u64 = 200;
/// How long the tailer leaves between two reads, so that what is written in a rush is read together.
const PACE: Duration = Duration::from_millis(5);
/// How long the tailer sleeps when nobody wakes it.
const POLL: Duration = Duration::from_millis(500);
/// Lines that retention takes out in one go.
const FORGOTTEN: u64 = 500;
/// Lines that are given their place in one go.
const PLACED: usize = 1_000;
/// The key of the advisory lock under which PostgreSQL's lines are given their place.
const PLACE_LOCK: i64 = 0x7a65_726f_6c6f_6773;
/// The channel of PostgreSQL notifications between instances.
const CHANNEL: &str = "zerostate_events";

/// A place in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor(i64);

/// A text that is no cursor of this log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a cursor of this event log")]
pub struct InvalidCursor;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(format!("e1.{}", self.0)))
    }
}

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> std::result::Result<Self, InvalidCursor> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidCursor)?;
        let text = String::from_utf8(bytes).map_err(|_| InvalidCursor)?;
        let place = text.strip_prefix("e1.").and_then(|digits| digits.parse().ok());
        place.filter(|place| *place >= 0).map(Self).ok_or(InvalidCursor)
    }
}

refusals! {
    /// Why the log cannot be read from a cursor on.
    EventsRefused {
        /// Retention has removed lines behind it.
        CursorExpired = "Events right behind this cursor are not kept any more. Read how things are now, and follow from there.",
    }
}

/// What a unit of work says that it did. The instant and the actor are the work's.
#[derive(Clone, Debug)]
pub struct Event {
    pub kind: Kind,
    pub auction_id: Option<AuctionId>,
    pub task_id: Option<TaskId>,
    pub channel_id: Option<ChannelId>,
    pub delegation_id: Option<DelegationId>,
    pub agent_id: Option<AgentId>,
    pub payer_id: Option<UserId>,
    pub owner_id: Option<UserId>,
    pub payload: Payload,
}

impl Event {
    /// An event of a kind, about nothing yet.
    #[must_use]
    pub fn new(kind: Kind, payload: Payload) -> Self {
        Self {
            kind,
            payload,
            auction_id: None,
            task_id: None,
            channel_id: None,
            delegation_id: None,
            agent_id: None,
            payer_id: None,
            owner_id: None,
        }
    }
}

/// One line of the log with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub cursor: Cursor,
    pub event: event::Model,
}

/// What a subscription is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    /// One auction.
    Auction(AuctionId),
    /// One task.
    Task(TaskId),
    /// One delegation, with the tasks that its steps buy.
    Delegation(DelegationId),
    /// One agent.
    Agent(AgentId),
    /// Everything that names the user as payer or as the agent's owner.
    User(UserId),
    /// Every public line.
    Market,
}

impl Topic {
    /// The topics that a line belongs to.
    fn of(event: &event::Model) -> impl Iterator<Item = Self> {
        let owner = event.owner_id.filter(|owner| event.payer_id != Some(*owner));
        [
            event.auction_id.map(Self::Auction),
            event.task_id.map(Self::Task),
            event.delegation_id.map(Self::Delegation),
            event.agent_id.map(Self::Agent),
            event.payer_id.map(Self::User),
            owner.map(Self::User),
            event.kind.is_public().then_some(Self::Market),
        ]
        .into_iter()
        .flatten()
    }

    /// The condition of the topic in SQL, with its values appended to `values`.
    fn condition(self, values: &mut Vec<Value>, backend: DbBackend) -> String {
        let mut bind = |uuid: Uuid| bound(uuid, values, backend);
        match self {
            Self::Auction(id) => format!("auction_id = {}", bind(id.uuid())),
            Self::Task(id) => format!("task_id = {}", bind(id.uuid())),
            Self::Delegation(id) => format!("delegation_id = {}", bind(id.uuid())),
            Self::Agent(id) => format!("agent_id = {}", bind(id.uuid())),
            Self::User(id) => format!("(payer_id = {} OR owner_id = {})", bind(id.uuid()), bind(id.uuid())),
            Self::Market => is_public(),
        }
    }
}

/// Who reads the log: a line is shown to whom it names, or to everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// Nobody in particular, who sees what is public.
    Anybody,
    /// A user, who sees what is public, and what names them as payer or as the agent's owner.
    User(UserId),
    /// Whoever sees all of it.
    Everything,
}

impl Reader {
    /// Whether a line may be shown.
    #[must_use]
    pub fn may_see(self, event: &event::Model) -> bool {
        event.kind.is_public()
            || match self {
                Self::Anybody => false,
                Self::User(id) => event.payer_id == Some(id) || event.owner_id == Some(id),
                Self::Everything => true,
            }
    }

    /// The same in SQL, with its values appended to `values`; nothing where all may be shown.
    fn condition(self, values: &mut Vec<Value>, backend: DbBackend) -> Option<String> {
        match self {
            Self::Anybody => Some(is_public()),
            Self::User(id) => {
                let named = Topic::User(id).condition(values, backend);
                Some(format!("({} OR {named})", is_public()))
            }
            Self::Everything => None,
        }
    }
}

/// The condition in SQL that a line is public.
fn is_public() -> String {
    let public: Vec<String> =
        Kind::iter().filter(|kind| kind.is_public()).map(|kind| format!("'{}'", kind.name())).collect();
    format!("kind IN ({})", public.join(", "))
}

/// The placeholder of a value that is appended to `values`.
fn bound(uuid: Uuid, values: &mut Vec<Value>, backend: DbBackend) -> String {
    values.push(uuid.into());
    placeholder(backend, values.len())
}

/// The column that orders the log.
fn place_column(backend: DbBackend) -> &'static str {
    if backend == DbBackend::Sqlite { "id" } else { "place" }
}

fn placeholder(backend: DbBackend, number: usize) -> String {
    if backend == DbBackend::Sqlite { "?".to_owned() } else { format!("${number}") }
}

/// The columns of a line but for its place.
const LINE: &str = "events.id, events.kind, events.auction_id, events.task_id, events.channel_id, events.delegation_id, \
                    events.agent_id, events.payer_id, events.owner_id, events.actor_id, events.payload, events.occurred_at";

/// The line of a row that has those and its place.
fn line_of(row: &QueryResult) -> Result<Line> {
    let event = event::Model::from_query_result(row, "")?;
    Ok(Line { cursor: Cursor(row.try_get("", "place")?), event })
}

/// The live feed of one process.
#[derive(Debug)]
pub(super) struct Hub {
    state: Mutex<State>,
    wake: Notify,
    /// Whether units of work of this process were committed since lines were last given their places.
    news: AtomicBool,
    /// By which a process knows its own notifications.
    own: Uuid,
}

#[derive(Debug, Default)]
struct State {
    position: Cursor,
    begun: bool,
    topics: HashMap<Topic, broadcast::Sender<Arc<Line>>>,
    closed: bool,
}

impl State {
    /// The place of the newest line that was told, if the feed has begun.
    fn told(&self) -> Option<i64> {
        self.begun.then_some(self.position.0)
    }
}

impl Hub {
    pub(super) fn new(own: Uuid) -> Self {
        Self { state: Mutex::default(), wake: Notify::new(), news: AtomicBool::new(false), own }
    }

    /// Says that there are new lines.
    pub(super) fn committed(&self) {
        self.news.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells lines if they are those that come next, and says whether they are.
    fn route_next(&self, lines: Vec<Line>) -> bool {
        let next = self.state().position.0.checked_add(1);
        let come_next = lines.first().is_some_and(|line| Some(line.cursor.0) == next);
        if come_next {
            self.route(lines);
        }
        come_next
    }

    fn route(&self, lines: Vec<Line>) {
        let mut state = self.state();
        for line in lines {
            state.position = line.cursor;
            let line = Arc::new(line);
            for topic in Topic::of(&line.event) {
                // A topic without receivers is forgotten; sending fails in no other case.
                if state.topics.get(&topic).is_some_and(|sender| sender.send(Arc::clone(&line)).is_err()) {
                    state.topics.remove(&topic);
                }
            }
        }
    }

    fn subscribe(&self, topic: Topic) -> Option<broadcast::Receiver<Arc<Line>>> {
        let mut state = self.state();
        (!state.closed)
            .then(|| state.topics.entry(topic).or_insert_with(|| broadcast::channel(FEED_BUFFER).0).subscribe())
    }

    fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.topics.clear();
    }
}

/// A subscription to one topic: everything after a cursor, in order, once each, and then what comes.
#[derive(Debug)]
pub struct Follow {
    store: Store,
    topic: Topic,
    last: Cursor,
    receiver: Option<broadcast::Receiver<Arc<Line>>>,
    replayed: VecDeque<Arc<Line>>,
    replaying: bool,
    /// Reading from where it was told to begin, which retention may overtake.
    catching_up: bool,
}

impl Follow {
    /// The next line; `None` when the process shuts down.
    pub async fn next(&mut self) -> Option<Result<Arc<Line>>> {
        loop {
            if let Some(line) = self.replayed.pop_front() {
                self.last = line.cursor;
                return Some(Ok(line));
            }
            if self.replaying {
                // Boxed: it is large, and whoever waits for the live feed would carry it.
                match Box::pin(self.replay()).await {
                    Ok(()) => continue,
                    Err(error) => return Some(Err(error)),
                }
            }
            match self.receiver.as_mut()?.recv().await {
                Ok(line) if line.cursor > self.last => {
                    self.last = line.cursor;
                    return Some(Ok(line));
                }
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(lines)) => {
                    self.store.notice(Notice::Lagged(lines));
                    self.replaying = true;
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    /// Reads on in the log.
    async fn replay(&mut self) -> Result<()> {
        let lines = self.store.lines(Some(self.topic), Some(self.last), PAGE).await?;
        if self.catching_up {
            self.store.keeps(self.last).await?;
        }
        self.replaying = !lines.is_empty();
        self.catching_up &= self.replaying;
        self.replayed = lines.into_iter().map(Arc::new).collect();
        Ok(())
    }
}

impl Store {
    /// Follows a topic: from `after` on, or from now. Attaching to the feed comes before the look at the log, so that nothing
    /// falls between them.
    pub async fn follow(&self, topic: Topic, after: Option<Cursor>) -> Result<Follow> {
        let receiver = self.0.hub.subscribe(topic);
        let last = if let Some(after) = after {
            self.keeps(after).await?;
            after
        } else {
            self.give_places().await?;
            self.head().await?
        };
        let (replayed, replaying) = (VecDeque::new(), after.is_some());
        Ok(Follow { store: self.clone(), topic, last, receiver, replayed, replaying, catching_up: replaying })
    }

    /// Fails with `CursorExpired` when lines behind a cursor were removed, so that nobody takes a gap for silence.
    pub async fn keeps(&self, after: Cursor) -> Result<()> {
        let place = place_column(self.0.backend);
        let sql = format!("SELECT {place} AS place FROM events WHERE {place} IS NOT NULL ORDER BY {place} LIMIT 1");
        let oldest = self.read().query_one_raw(Statement::from_string(self.0.backend, sql)).await?;
        let oldest: Option<i64> = oldest.map(|row| row.try_get("", "place")).transpose()?;
        let gone = oldest.is_some_and(|oldest| oldest > after.0.saturating_add(1));
        if gone { Err(EventsRefused::CursorExpired.into()) } else { Ok(()) }
    }

    /// Reads the log: lines of a topic, or all, behind `after`, oldest first, `limit` at most. Whatever was committed before the
    /// call is there.
    pub async fn lines(&self, topic: Option<Topic>, after: Option<Cursor>, limit: u64) -> Result<Vec<Line>> {
        self.lines_for(Reader::Everything, topic, after, limit).await
    }

    /// The same for one reader: what may not be shown to them is not read either.
    pub async fn lines_for(
        &self,
        reader: Reader,
        topic: Option<Topic>,
        after: Option<Cursor>,
        limit: u64,
    ) -> Result<Vec<Line>> {
        self.give_places().await?;
        self.placed_lines(reader, topic, after, limit).await
    }

    /// Reads the lines that have their place.
    async fn placed_lines(
        &self,
        reader: Reader,
        topic: Option<Topic>,
        after: Option<Cursor>,
        limit: u64,
    ) -> Result<Vec<Line>> {
        let backend = self.0.backend;
        let place = place_column(backend);
        let mut values: Vec<Value> = vec![after.unwrap_or_default().0.into()];
        let mut conditions = vec![format!("{place} > {}", placeholder(backend, 1))];
        if let Some(topic) = topic {
            conditions.push(topic.condition(&mut values, backend));
        }
        conditions.extend(reader.condition(&mut values, backend));
        let sql = format!(
            "SELECT {place} AS place, {LINE} FROM events WHERE {} ORDER BY {place} LIMIT {limit}",
            conditions.join(" AND "),
        );
        let rows = self.read().query_all_raw(Statement::from_sql_and_values(backend, sql, values)).await?;
        rows.iter().map(line_of).collect()
    }

    /// Takes the oldest lines out that happened before an instant, in the order of the log, so that what is kept has no gap. The
    /// newest line stays: its place says how far the log has come. Answers how many lines there were; there may be more.
    pub async fn forget_events(&self, before: Timestamp) -> Result<u64> {
        let (backend, place) = (self.0.backend, place_column(self.0.backend));
        let head = self.head().await?;
        let oldest = format!(
            "SELECT {place} AS place, occurred_at FROM events WHERE {place} < {} ORDER BY {place} LIMIT {FORGOTTEN}",
            head.0
        );
        let mut last = None;
        for row in self.read().query_all_raw(Statement::from_string(backend, oldest)).await? {
            let occurred_at: i64 = row.try_get("", "occurred_at")?;
            if occurred_at >= before.micros() {
                break;
            }
            last = Some(row.try_get::<i64>("", "place")?);
        }
        let Some(last) = last else { return Ok(0) };
        let sql = format!("DELETE FROM events WHERE {place} <= {last}");
        self.write(Caller::System, async |work| {
            Ok(work.tx().execute_raw(Statement::from_string(backend, sql)).await?.rows_affected())
        })
        .await
    }

    /// The place of the newest line.
    pub async fn head(&self) -> Result<Cursor> {
        let place = place_column(self.0.backend);
        let sql =
            format!("SELECT {place} AS place FROM events WHERE {place} IS NOT NULL ORDER BY {place} DESC LIMIT 1");
        let newest = self.read().query_one_raw(Statement::from_string(self.0.backend, sql)).await?;
        Ok(Cursor(newest.map(|row| row.try_get("", "place")).transpose()?.unwrap_or(0)))
    }

    /// When the oldest line was committed that the live feed of this process has not told yet, if it has begun and there is one.
    pub(crate) async fn oldest_untold(&self) -> Result<Option<Timestamp>> {
        let Some(told) = self.0.hub.state().told() else { return Ok(None) };
        let oldest = "SELECT MIN(occurred_at) AS oldest FROM";
        let sql = if self.0.backend == DbBackend::Sqlite {
            format!("{oldest} (SELECT occurred_at FROM events WHERE id > {told} ORDER BY id LIMIT 1) untold")
        } else {
            format!(
                "{oldest} ((SELECT occurred_at FROM events WHERE place > {told} ORDER BY place LIMIT 1) UNION ALL \
                 (SELECT occurred_at FROM events WHERE place IS NULL ORDER BY id LIMIT 1)) untold"
            )
        };
        let row = self.read().query_one_raw(Statement::from_string(self.0.backend, sql)).await?;
        let oldest: Option<i64> = row.map(|row| row.try_get("", "oldest")).transpose()?.flatten();
        Ok(oldest.map(Timestamp::from_micros))
    }

    /// Gives every committed line on PostgreSQL that has none its place, and wakes the tailers of all instances if there was one:
    /// whoever gives the places tells, for nobody else will find them without.
    async fn give_places(&self) -> Result<()> {
        let mut more = self.lacks_places().await?;
        while more {
            let placed = self.place_some().await?.len();
            if placed > 0 {
                self.0.hub.wake.notify_one();
            }
            more = placed == PLACED;
        }
        Ok(())
    }

    /// Whether there is a line without a place.
    async fn lacks_places(&self) -> Result<bool> {
        if self.0.backend == DbBackend::Sqlite {
            return Ok(false);
        }
        let waiting = "SELECT id FROM events WHERE place IS NULL ORDER BY id LIMIT 1";
        Ok(self.0.writer.query_one_raw(Statement::from_string(self.0.backend, waiting)).await?.is_some())
    }

    /// Gives the next lines their places, [`PLACED`] at most, and wakes the tailers of other instances. Answers the lines in order.
    #[expect(
        clippy::disallowed_methods,
        reason = "the log is the store's own, and this is no unit of work of the market"
    )]
    async fn place_some(&self) -> Result<Vec<Line>> {
        let statement = |sql: String| Statement::from_string(self.0.backend, sql);
        let tx = self.0.writer.begin().await?;
        tx.execute_raw(statement(format!("SELECT pg_advisory_xact_lock({PLACE_LOCK})"))).await?;
        // A statement of its own sees whatever was committed before the lock was got.
        let rows = tx
            .query_all_raw(statement(format!(
                "UPDATE events SET place = numbered.place FROM (SELECT id, \
                 (SELECT COALESCE(MAX(place), 0) FROM events) + ROW_NUMBER() OVER (ORDER BY id) AS place \
                 FROM (SELECT id FROM events WHERE place IS NULL ORDER BY id LIMIT {PLACED}) fresh) numbered \
                 WHERE events.id = numbered.id RETURNING events.place, {LINE}"
            )))
            .await?;
        tx.commit().await?;
        let mut placed = rows.iter().map(line_of).collect::<Result<Vec<_>>>()?;
        placed.sort_unstable_by_key(|line| line.cursor);
        if !placed.is_empty() {
            self.notify_others().await;
        }
        Ok(placed)
    }

    /// Reads the log for all subscriptions of this process until `stop`, then ends them. One such task runs in a process.
    pub async fn tail(&self, stop: CancellationToken) -> Result<()> {
        let mut begun = false;
        while !stop.is_cancelled() {
            let read = if begun { self.pump().await } else { self.begin_tail().await };
            match read {
                Ok(()) => begun = true,
                Err(error) => tracing::warn!(%error, "the event log could not be read; trying again"),
            }
            let looked = Instant::now();
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.0.hub.wake.notified() => tokio::time::sleep_until(looked + PACE).await,
                () = tokio::time::sleep(POLL) => {}
            }
        }
        self.0.hub.close();
        Ok(())
    }

    /// The feed begins behind what is there already.
    async fn begin_tail(&self) -> Result<()> {
        self.give_places().await?;
        let head = self.head().await?;
        let mut state = self.0.hub.state();
        (state.position, state.begun) = (head, true);
        drop(state);
        Ok(())
    }

    async fn pump(&self) -> Result<()> {
        if self.pump_placed().await? {
            return Ok(());
        }
        loop {
            let position = self.0.hub.state().position;
            let lines = self.placed_lines(Reader::Everything, None, Some(position), PAGE).await?;
            if lines.is_empty() {
                return Ok(());
            }
            self.0.hub.route(lines);
        }
    }

    /// Gives lines their places and tells them, without reading them again. Says whether all have been told that have a place.
    async fn pump_placed(&self) -> Result<bool> {
        let news = self.0.hub.news.swap(false, Ordering::AcqRel) && self.0.backend != DbBackend::Sqlite;
        if !news && !self.lacks_places().await? {
            return Ok(false);
        }
        loop {
            let placed = self.place_some().await.inspect_err(|_| self.0.hub.news.store(true, Ordering::Release))?;
            let more = placed.len() == PLACED;
            // Somebody else may have given places that come before these, or these.
            if !self.0.hub.route_next(placed) {
                return Ok(false);
            }
            if !more {
                return Ok(true);
            }
        }
    }

    /// Wakes the tailers of other instances. Sent outside of units of work, because a notification inside a transaction makes
    /// every commit of the database wait its turn, and without waiting for the disk, because there is nothing to keep.
    async fn notify_others(&self) {
        let sql = format!("SET LOCAL synchronous_commit TO OFF; NOTIFY {CHANNEL}, '{}'", self.0.hub.own);
        if let Err(error) = self.0.writer.execute_unprepared(&sql).await {
            tracing::warn!(%error, "other instances could not be notified; they will poll");
        }
    }

    /// Wakes the tailer whenever another instance has news, until `stop`. On SQLite there is no other instance.
    pub async fn listen(&self, stop: CancellationToken) -> Result<()> {
        if self.0.backend == DbBackend::Sqlite {
            return Ok(());
        }
        while !stop.is_cancelled() {
            let interrupted = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                heard = self.hear() => heard,
            };
            if let Err(error) = interrupted {
                tracing::warn!(%error, "notifications of other instances are interrupted; listening again");
            }
            // What was missed meanwhile, the slow poll finds.
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(POLL) => {}
            }
        }
        Ok(())
    }

    /// Listens on a connection of its own for as long as that lives. A server that is gone or is not the primary any more takes
    /// the connection with it, so every interruption begins anew.
    async fn hear(&self) -> Result<()> {
        let pool = self.0.writer.get_postgres_connection_pool();
        let mut listener = sqlx::postgres::PgListener::connect_with(pool).await.map_err(Error::internal)?;
        listener.listen(CHANNEL).await.map_err(Error::internal)?;
        let own = self.0.hub.own.to_string();
        while let Some(notification) = listener.try_recv().await.map_err(Error::internal)? {
            if notification.payload() != own {
                self.0.hub.wake.notify_one();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_round_trips_and_nothing_else_is_one() {
        let cursor = Cursor(42);
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for bad in ["", "x", "ZTEu", "ZTEuLTE", "ZTIuMQ"] {
            assert_eq!(bad.parse::<Cursor>(), Err(InvalidCursor), "{bad}");
        }
    }
}
