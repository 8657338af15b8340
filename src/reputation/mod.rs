//! What is known of an agent: a score from 0 to 100 that settled work alone can move, with the reasons for it.
//!
//! ```text
//! settlement ─ record_outcome ─┐                                      ┌─► reputations (decayed sums)
//! payer ────── rate ───────────┼─► lock the agent's row ─► rep-v1 ────┼─► reputation_events (the evidence, for ever)
//! (nothing else writes)        ┘                                      ├─► agents.score (a copy, for searching)
//!                                                                     └─► REPUTATION_CHANGED
//! ```
//!
//! The formula is in [`rules`]. Reading never writes: a score is decayed to the instant of the question, and an agent without
//! evidence has the newcomer's score without having a row.
//!
//! What must always hold: a task is evidence once as an outcome, once as a rating and once as a win that was not started; only
//! who paid for a completed task rates it, once; an agent's events are numbered 1, 2, 3, … without a gap, because its row is
//! locked while one is added; folding the events gives the row bit for bit ([`replay`]).
//!
//! Damping by pairs counts what is committed. Evidence about one agent is strictly one after the other; two settlements of one
//! client with two agents of one owner at the same instant may not see each other.

pub mod rules;

#[cfg(test)]
mod tests;

use std::{collections::HashMap, time::Duration};

use entity::{
    agent,
    event::{Kind, Payload},
    id::{AgentId, TaskId, UserId},
    money::Amount,
    rating, reputation,
    reputation_event::{self, Cause},
    task,
    time::Timestamp,
};
use sea_orm::{
    ActiveModelTrait,
    ActiveValue::Set,
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, IntoActiveModel, JoinType, QueryFilter, QueryOrder, QuerySelect,
    QueryTrait, SqlErr,
    prelude::Expr,
    sea_query::{Asterisk, Func, OnConflict, Query},
};

use crate::{
    agent::{AgentOrder, AgentSearch},
    caller::Scope,
    error::{Error, Result},
    store::{Event, Work, first_id, padded},
};

pub use rules::{Breakdown, Factor, FactorName, RatingRefused};

/// Agents that a leaderboard looks at, at most, and how many it reads at a time.
const CANDIDATES: usize = 1_000;
const CANDIDATE_PAGE: u64 = 100;
/// Agents that a leaderboard shows at most.
const MAX_LEADERS: u64 = 100;
/// How a task that was worked on can end.
const OUTCOMES: [Cause; 3] = [Cause::Success, Cause::Failure, Cause::Ruling];
/// Events that a replay reads at a time.
const REPLAY_PAGE: u64 = 500;

/// An agent's score at some instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Milli-points, 0 to 100,000.
    pub score_milli: i32,
    /// The same in basis points of 10,000, rounded down: the R of the auctions' formula.
    pub basis_points: i32,
}

impl Standing {
    /// The standing of a score in milli-points.
    #[must_use]
    pub const fn of(score_milli: i32) -> Self {
        Self { score_milli, basis_points: score_milli / 10 }
    }

    /// The standing of an agent without evidence.
    #[must_use]
    pub const fn newcomer() -> Self {
        Self::of(rules::NEWCOMER)
    }

    fn at(row: &reputation::Model, now: Timestamp) -> Self {
        Self::of(rules::State::from(row).at(now).score())
    }
}

/// The standings of agents at `now`: one for every id that is asked for, the newcomer's where nothing is known. One statement.
pub async fn standings(
    db: &impl ConnectionTrait,
    agents: &[AgentId],
    now: Timestamp,
) -> Result<HashMap<AgentId, Standing>> {
    let rows = rows_of(db, agents).await?;
    let standing = |id: &AgentId| rows.get(id).map_or_else(Standing::newcomer, |row| Standing::at(row, now));
    Ok(agents.iter().map(|id| (*id, standing(id))).collect())
}

/// Agents with their standings at `now`, for every id that there is. One statement.
pub async fn agents(
    db: &impl ConnectionTrait,
    ids: impl IntoIterator<Item = AgentId>,
    now: Timestamp,
) -> Result<HashMap<AgentId, (agent::Model, Standing)>> {
    let rows = agent::Entity::find()
        .filter(agent::Column::Id.is_in(padded(ids)))
        .join(JoinType::LeftJoin, row_of_agent())
        .select_also(reputation::Entity)
        .all(db)
        .await?;
    let standing = |row: Option<reputation::Model>| row.map_or_else(Standing::newcomer, |row| Standing::at(&row, now));
    Ok(rows.into_iter().map(|(agent, row)| (agent.id, (agent, standing(row)))).collect())
}

async fn rows_of(db: &impl ConnectionTrait, agents: &[AgentId]) -> Result<HashMap<AgentId, reputation::Model>> {
    if agents.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = reputation::Entity::find()
        .filter(reputation::Column::AgentId.is_in(padded(agents.iter().copied())))
        .all(db)
        .await?;
    Ok(rows.into_iter().map(|row| (row.agent_id, row)).collect())
}

/// The score of an agent at `now` with its reasons.
pub async fn breakdown(db: &impl ConnectionTrait, agent: AgentId, now: Timestamp) -> Result<Breakdown> {
    let (_, row) = agent_and_row(db, agent).await?;
    Ok(rules::explain(&row.unwrap_or_else(|| rules::newcomer(agent, now)), now))
}

/// An agent and what is known of it, as of one instant of the database.
async fn agent_and_row(db: &impl ConnectionTrait, agent: AgentId) -> Result<(agent::Model, Option<reputation::Model>)> {
    agent::Entity::find_by_id(agent)
        .join(JoinType::LeftJoin, row_of_agent())
        .select_also(reputation::Entity)
        .one(db)
        .await?
        .ok_or(Error::NotFound("agent"))
}

fn row_of_agent() -> sea_orm::RelationDef {
    agent::Entity::belongs_to(reputation::Entity).from(agent::Column::Id).to(reputation::Column::AgentId).into()
}

/// What a settlement says about an agent.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    pub task: &'a task::Model,
    pub agent: &'a agent::Model,
    /// A success, a failure through the agent's fault, a ruling, or a win that it did not start, which counts as a failure.
    pub cause: Cause,
    /// The price of the task, which weighs the evidence.
    pub amount: Amount,
    /// How long the work took, where it was done.
    pub worked: Option<Duration>,
    /// How long the agent had promised that it would take.
    pub promised: Option<Duration>,
    /// What was paid for it. The success of a ruling is its share of `amount`.
    pub paid: Amount,
}

/// Adds the outcome of a task to the agent's reputation. It is a step of the settlement, which has locked the task and has
/// decided who may settle; a second outcome of the same task is refused by a constraint and undoes the whole unit of work.
pub async fn record_outcome(work: &mut Work, evidence: Evidence<'_>) -> Result<reputation_event::Model> {
    let Evidence { task, agent, cause, amount, worked, promised, paid } = evidence;
    let (marks, worked, paid) = match cause {
        Cause::Success => (rules::Marks::success(worked, promised), worked.unwrap_or_default(), paid),
        Cause::Failure | Cause::Timeout => (rules::Marks::failure(), Duration::ZERO, Amount::ZERO),
        Cause::Ruling => (rules::Marks::ruling(paid, amount, worked, promised), worked.unwrap_or_default(), paid),
        Cause::Rating => return Err(Error::internal("this is not how a settlement ends")),
    };
    let row = lock(work, agent.id).await?;
    let (payer, owner) = (task.requester_id, agent.owner_id);
    let weight = if payer == owner {
        0
    } else {
        let settled_before = settled_of_pair(work, payer, owner).await?;
        rules::weight(amount, usual_price(work).await?, settled_before, false)
    };
    let subject = Subject { task: task.id, payer, owner, cause, amount, weight };
    let event = event_after(work, &row, &subject, marks);

    let mut row = rules::follow(&row, &event);
    row.earned = row.earned.saturating_add(paid.micros());
    row.busy_ms = row.busy_ms.saturating_add(i64::try_from(worked.as_millis()).unwrap_or(0));
    write(work, row, &event).await?;
    Ok(event)
}

/// A payer's stars.
#[derive(Clone, Debug)]
pub struct NewRating {
    pub task: TaskId,
    /// 1 to 5.
    pub stars: i32,
    /// At most 2,000 characters.
    pub comment: Option<String>,
}

/// Rates the agent of a completed task that the caller paid for, once, within the rating window. The stars weigh what the
/// task weighs. Tasks of others look as if they did not exist, except to the owner of the agent that did them.
pub async fn rate(work: &mut Work, new: NewRating) -> Result<rating::Model> {
    let caller = work.caller().with_scope(Scope::TasksWrite)?;
    if !(1..=5).contains(&new.stars) {
        return Err(Error::invalid("stars", "must be 1 to 5"));
    }
    let comment = comment(new.comment)?;
    let task =
        task::Entity::find_by_id(new.task).lock_exclusive().one(work.tx()).await?.ok_or(Error::NotFound("task"))?;
    if task.requester_id != caller {
        return Err(refuse_stranger(work, &task, caller).await?);
    }
    let rated = rating::Entity::find().filter(rating::Column::TaskId.eq(task.id)).one(work.tx()).await?.is_some();
    rules::may_rate(&task, rated, work.terms().rating_window, work.now())?;
    let outcome = reputation_event::Entity::find()
        .filter(reputation_event::Column::TaskId.eq(task.id))
        .filter(reputation_event::Column::Cause.is_in(OUTCOMES))
        .one(work.tx())
        .await?
        .ok_or_else(|| Error::internal("a completed task is no evidence"))?;
    let row = lock(work, outcome.agent_id).await?;
    let subject = Subject {
        task: task.id,
        payer: caller,
        owner: outcome.owner_id,
        cause: Cause::Rating,
        amount: outcome.amount,
        weight: outcome.weight,
    };

    let rating = rating::Model {
        id: work.fresh(),
        task_id: task.id,
        agent_id: outcome.agent_id,
        rater_id: caller,
        stars: new.stars,
        comment,
        created_at: work.now(),
    };
    rating::Entity::insert(rating.clone().into_active_model().reset_all())
        .exec_without_returning(work.tx())
        .await
        .map_err(already_rated)?;
    let event = event_after(work, &row, &subject, rules::Marks::rating(new.stars));
    write(work, rules::follow(&row, &event), &event).await?;
    Ok(rating)
}

fn comment(text: Option<String>) -> Result<Option<String>> {
    let Some(text) = text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()) else { return Ok(None) };
    if text.chars().count() > rules::MAX_COMMENT {
        return Err(Error::invalid("comment", "must be at most 2000 characters"));
    }
    if text.chars().any(|character| character.is_control() && !matches!(character, '\n' | '\r' | '\t')) {
        return Err(Error::invalid("comment", "must not contain control characters"));
    }
    Ok(Some(text))
}

/// The owner of the task's agent knows of the task; to everybody else it does not exist.
async fn refuse_stranger(work: &Work, task: &task::Model, caller: UserId) -> Result<Error> {
    let Some(agent) = task.agent_id else { return Ok(Error::NotFound("task")) };
    let agent = agent::Entity::find_by_id(agent).one(work.tx()).await?;
    let party = agent.is_some_and(|agent| agent.owner_id == caller);
    Ok(if party { RatingRefused::RatingNotPayer.into() } else { Error::NotFound("task") })
}

/// The lock on the task keeps two ratings apart; the constraint is the last word.
fn already_rated(error: DbErr) -> Error {
    match error.sql_err() {
        Some(SqlErr::UniqueConstraintViolation(_)) => RatingRefused::AlreadyRated.into(),
        Some(_) | None => error.into(),
    }
}

/// Locks the evidence about an agent, and makes it first where there is none. Two first pieces of evidence at the same time both try
/// to make it; one of them does, and the other waits for the lock.
pub async fn lock(work: &Work, agent: AgentId) -> Result<reputation::Model> {
    let find = || reputation::Entity::find_by_id(agent).lock_exclusive();
    if let Some(row) = find().one(work.tx()).await? {
        return Ok(row);
    }
    let row = rules::newcomer(agent, work.now()).into_active_model().reset_all();
    reputation::Entity::insert(row)
        .on_conflict(OnConflict::column(reputation::Column::AgentId).do_nothing().to_owned())
        .exec_without_returning(work.tx())
        .await?;
    find().one(work.tx()).await?.ok_or_else(|| Error::internal("a reputation that was just made is not there"))
}

/// How many tasks of the pair were settled in the window, counted up to [`rules::PAIR_CAP`].
async fn settled_of_pair(work: &Work, payer: UserId, owner: UserId) -> Result<i64> {
    let recent = reputation_event::Entity::find()
        .select_only()
        .column(reputation_event::Column::Id)
        .filter(reputation_event::Column::PayerId.eq(payer))
        .filter(reputation_event::Column::OwnerId.eq(owner))
        .filter(reputation_event::Column::CreatedAt.gt(work.now().before(rules::PAIR_WINDOW)))
        .filter(reputation_event::Column::Cause.is_in(OUTCOMES))
        .limit(rules::PAIR_CAP.unsigned_abs())
        .into_query();
    let count = Query::select().expr(Func::count(Expr::col(Asterisk))).from_subquery(recent, "recent").to_owned();
    let row = work.tx().query_one(&count).await?.ok_or_else(|| Error::internal("a count has no row"))?;
    Ok(row.try_get_by_index(0)?)
}

/// A0: the median price of the tasks that were settled last in the whole market.
async fn usual_price(work: &Work) -> Result<Option<Amount>> {
    let prices: Vec<Amount> = reputation_event::Entity::find()
        .select_only()
        .column(reputation_event::Column::Amount)
        .filter(reputation_event::Column::Cause.is_in(OUTCOMES))
        .order_by_desc(reputation_event::Column::Id)
        .limit(rules::PRICE_SAMPLE)
        .into_tuple()
        .all(work.tx())
        .await?;
    Ok(rules::median(prices))
}

/// What a piece of evidence is about and how much it weighs.
struct Subject {
    task: TaskId,
    payer: UserId,
    owner: UserId,
    cause: Cause,
    amount: Amount,
    weight: i64,
}

/// The event that follows a locked row. It carries all that [`rules::follow`] needs.
fn event_after(
    work: &mut Work,
    row: &reputation::Model,
    subject: &Subject,
    marks: rules::Marks,
) -> reputation_event::Model {
    let now = work.now();
    let before = rules::State::from(row).at(now);
    reputation_event::Model {
        id: work.fresh(),
        agent_id: row.agent_id,
        version: row.version.saturating_add(1),
        task_id: subject.task,
        payer_id: subject.payer,
        owner_id: subject.owner,
        cause: subject.cause,
        amount: subject.amount,
        weight: subject.weight,
        success: marks.success,
        rating: marks.rating,
        timeliness: marks.timeliness,
        cost: marks.cost,
        score_before: before.score(),
        score_after: before.with(subject.weight, marks).score(),
        created_at: now,
    }
}

/// Writes a piece of evidence, the row after it and the copy of the score, and tells. The public event names neither the task
/// nor who paid for it.
async fn write(work: &mut Work, row: reputation::Model, event: &reputation_event::Model) -> Result<()> {
    let evidence = event.clone().into_active_model().reset_all();
    reputation_event::Entity::insert(evidence).exec_without_returning(work.tx()).await?;
    reputation::Entity::update(row.into_active_model().reset_all()).exec(work.tx()).await?;
    let copied = agent::Entity::update_many()
        .set(agent::ActiveModel { score: Set(event.score_after), ..Default::default() })
        .filter(agent::Column::Id.eq(event.agent_id))
        .exec(work.tx())
        .await?;
    if copied.rows_affected != 1 {
        return Err(Error::internal("evidence about an agent that is not there"));
    }
    let payload = Payload {
        score_before: Some(event.score_before),
        score_after: Some(event.score_after),
        reason: Some(event.cause.name().to_owned()),
        ..Payload::default()
    };
    work.record(Event {
        agent_id: Some(event.agent_id),
        owner_id: Some(event.owner_id),
        ..Event::new(Kind::ReputationChanged, payload)
    });
    Ok(())
}

/// One line of a leaderboard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// 1, 2, 3, …
    pub rank: u64,
    pub agent: agent::Model,
    pub standing: Standing,
    /// Tasks that the agent won, as far as they are settled, and how many of them it did.
    pub tasks: i64,
    pub successes: i64,
}

/// The active agents with the best scores at `now`, at most 100: ties go to who settled more tasks, then to the older agent.
///
/// Candidates are read by the copy of the score as of their last evidence, which for most is at least the score of today, until
/// no agent behind them can be among the best, or until 1,000 are read. Only an agent that time has lifted over others, from
/// a bad record toward the prior, may then be missing, and only below the newcomer's score or behind 1,000 better copies.
pub async fn leaderboard(
    db: &impl ConnectionTrait,
    capability: Option<&str>,
    limit: u64,
    now: Timestamp,
) -> Result<Vec<Leader>> {
    let wanted = usize::try_from(limit.min(MAX_LEADERS)).unwrap_or(0);
    let mut search = AgentSearch {
        capabilities: capability.map(str::to_owned).into_iter().collect(),
        status: Some(agent::Status::Active),
        order: AgentOrder::Score,
        limit: Some(CANDIDATE_PAGE),
        ..AgentSearch::default()
    };
    let mut leaders: Vec<Leader> = Vec::new();
    let mut seen = 0;
    while wanted > 0 && seen < CANDIDATES {
        let agents = crate::agent::search(&search)?.all(db).await?;
        let Some(last) = agents.last().cloned() else { break };
        seen += agents.len();
        let ids: Vec<AgentId> = agents.iter().map(|agent| agent.id).collect();
        let rows = rows_of(db, &ids).await?;
        leaders.extend(agents.into_iter().map(|agent| {
            let row = rows.get(&agent.id);
            let standing = row.map_or_else(Standing::newcomer, |row| Standing::at(row, now));
            let (tasks, successes) = row.map_or((0, 0), |row| (row.tasks, row.successes));
            Leader { rank: 0, agent, standing, tasks, successes }
        }));
        leaders.sort_by_key(|leader| (std::cmp::Reverse((leader.standing.score_milli, leader.tasks)), leader.agent.id));
        leaders.truncate(wanted);
        let reach = last.score.max(rules::NEWCOMER);
        let worst = leaders.last().filter(|_| leaders.len() == wanted);
        if worst.is_some_and(|worst| worst.standing.score_milli > reach) {
            break;
        }
        search.after = Some(AgentOrder::Score.place(&last));
    }
    for (leader, rank) in leaders.iter_mut().zip(1..) {
        leader.rank = rank;
    }
    Ok(leaders)
}

/// Whether an agent's stored row is what its events give: every sum and count bit for bit, every score before and after, the
/// numbers of the events without a gap, and the copy of the score on the agent. What the agent earned and how long it worked
/// are totals of its settlements, which the ledger and the executions prove.
pub async fn replay(db: &impl ConnectionTrait, agent: AgentId) -> Result<bool> {
    let (agent, stored) = agent_and_row(db, agent).await?;
    let Some(stored) = stored else {
        return Ok(agent.score == rules::NEWCOMER);
    };
    replays(db, &stored, agent.score).await
}

/// Whether a reputation and the copy of its score are what its evidence gives.
async fn replays(db: &impl ConnectionTrait, stored: &reputation::Model, copy: i32) -> Result<bool> {
    let mut row = rules::newcomer(stored.agent_id, stored.as_of);
    let mut score = rules::NEWCOMER;
    loop {
        // Evidence that came after the row was read is left out.
        let events = reputation_event::Entity::find()
            .filter(reputation_event::Column::AgentId.eq(stored.agent_id))
            .filter(reputation_event::Column::Version.gt(row.version))
            .filter(reputation_event::Column::Version.lte(stored.version))
            .order_by_asc(reputation_event::Column::Version)
            .limit(REPLAY_PAGE)
            .all(db)
            .await?;
        if events.is_empty() {
            break;
        }
        for event in events {
            if row.version == 0 {
                row.as_of = event.created_at;
            }
            let before = rules::State::from(&row).at(event.created_at).score();
            row = rules::follow(&row, &event);
            score = rules::State::from(&row).score();
            if event.version != row.version || event.score_before != before || event.score_after != score {
                return Ok(false);
            }
        }
    }
    row.earned = stored.earned;
    row.busy_ms = stored.busy_ms;
    Ok(row == *stored && copy == score)
}

/// How many stored reputations are not what replaying their evidence gives; 0 in a sound market. With an instant, only those that
/// have evidence from then on are looked at. It reads several statements, so `db` should be a snapshot; of agents it reads the id
/// and the copy of the score.
pub async fn replay_violations(db: &impl ConnectionTrait, since: Option<Timestamp>) -> Result<u64> {
    let which = match since {
        // The ids of evidence sort by its instants, so the newest are at one end of the key.
        Some(since) => reputation_event::Entity::find()
            .select_only()
            .column(reputation_event::Column::AgentId)
            .filter(reputation_event::Column::Id.gte(first_id(since)))
            .into_query(),
        None => reputation::Entity::find().select_only().column(reputation::Column::AgentId).into_query(),
    };
    let agents: Vec<(AgentId, i32)> = agent::Entity::find()
        .select_only()
        .columns([agent::Column::Id, agent::Column::Score])
        .filter(agent::Column::Id.in_subquery(which))
        .into_tuple()
        .all(db)
        .await?;
    let mut violations = 0;
    for (agent, copy) in agents {
        let sound = match reputation::Entity::find_by_id(agent).one(db).await? {
            Some(stored) => replays(db, &stored, copy).await?,
            None => false,
        };
        violations += u64::from(!sound);
    }
    Ok(violations)
}
