//! Work of agents that run elsewhere: their programs pull it, keep its lease alive and bring its result.
//!
//! ```text
//! offered ─ claim (token k) ─► leased ─ heartbeat ─► leased, to the end of the attempt at most
//!    ▲                           │ ├─ submit k ─► judged, settled
//!    │                           │ └─ fail k ───► refunded, the agent is to blame
//!    └── the lease is over ──────┘ ─ no attempts left ─► refunded, the agent is to blame
//! ```
//!
//! The token is the one thing that counts: a result with the newest one is taken also after the lease is over, until somebody claims
//! again, and a result with an older one never, however late its worker wakes up. So finished work is not thrown away, and no work is
//! paid twice.
//!
//! Whoever may act for the agent may do all of it: its owner in person, or a key with the scope `work:write` that is bound to no other
//! agent. To everybody else the task does not exist.

use std::time::Duration;

use bytes::Bytes;
use entity::{
    agent::{self, Runtime},
    event::Kind,
    execution::{self, Status},
    id::{AgentId, TaskId},
    money::Amount,
    task,
    time::Timestamp,
};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, EntityTrait, ExprTrait, JoinType, QueryFilter, QueryOrder, QuerySelect,
    sea_query::Expr,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    WORKER_LOST, Worker, complete, give_up, judge, renew, retried, rules, rules::WorkRefused, take, try_again,
    verifier::Judgement, waits,
};
use crate::{
    agent as agents,
    caller::{Caller, Scope},
    error::{Error, Refusal, Result},
    store::{Store, Topic, Work, literally},
    task::{self as tasks, Fault, Report, Usage, rules::TaskRefused},
};

/// The code of the verifier's that leaves the lease as it is.
const SCHEMA_VIOLATION: &str = "OUTPUT_SCHEMA_VIOLATION";

/// Work that an agent may claim now.
#[derive(Clone, Debug)]
pub struct Offer {
    pub task: task::Model,
    pub agent: AgentId,
    /// What the agent is paid for work that is accepted.
    pub price: Amount,
    /// By when it must be claimed.
    pub claim_by: Timestamp,
    /// How often it was claimed before.
    pub claims: i32,
}

/// Work whose lease is over at `now`.
fn has_lapsed(now: Timestamp) -> Condition {
    let running = literally(execution::Column::Status, Status::Running);
    Condition::all().add(running).add(execution::Column::LeasedUntil.lte(now))
}

/// What an outside agent may claim at `now`, in the order in which it should: what waits, and what a worker of its was not heard of
/// for.
pub async fn offers(db: &impl ConnectionTrait, agent: AgentId, now: Timestamp, limit: u64) -> Result<Vec<Offer>> {
    let task_of = execution::Entity::belongs_to(task::Entity).from(execution::Column::TaskId).to(task::Column::Id);
    let claims = Expr::col((execution::Entity, execution::Column::Attempts));
    let rows = execution::Entity::find()
        .join(JoinType::InnerJoin, task_of.into())
        .select_also(task::Entity)
        .filter(execution::Column::AgentId.eq(agent))
        .filter(execution::Column::ModuleId.is_null())
        .filter(Condition::any().add(waits(now)).add(has_lapsed(now)))
        .filter(claims.lt(Expr::col((task::Entity, task::Column::MaxAttempts))))
        .filter(task::Column::DeadlineAt.gt(now))
        .order_by_asc(execution::Column::QueueAt)
        .order_by_asc(execution::Column::Id)
        .limit(limit)
        .all(db)
        .await?;
    let offer = |(execution, task): (execution::Model, Option<task::Model>)| {
        let task = task?;
        let (price, claim_by) = (task.price?, task.deadline_at?);
        Some(Offer { agent: execution.agent_id, claims: execution.attempts, price, claim_by, task })
    };
    Ok(rows.into_iter().filter_map(offer).collect())
}

/// The same, but waits up to `wait` while there is nothing. It is the live feed that wakes it; the database is asked again only when
/// work was offered. Ends early, with nothing, when the process is to end.
pub async fn await_offers(
    store: &Store,
    agent: AgentId,
    limit: u64,
    wait: Duration,
    stop: CancellationToken,
) -> Result<Vec<Offer>> {
    let look = async || offers(store.read(), agent, store.clock().now(), limit).await;
    let found = look().await?;
    if !found.is_empty() || wait.is_zero() {
        return Ok(found);
    }
    let until = Instant::now() + wait;
    let mut follow = store.follow(Topic::Agent(agent), None).await?;
    loop {
        // What was offered before the feed was attached is in the database by now.
        let found = look().await?;
        if !found.is_empty() {
            return Ok(found);
        }
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(Vec::new()),
                () = tokio::time::sleep_until(until) => return Ok(Vec::new()),
                line = follow.next() => match line {
                    None => return Ok(Vec::new()),
                    Some(Err(error)) => return Err(error),
                    Some(Ok(line)) if line.event.kind == Kind::WorkOffered => break,
                    Some(Ok(_)) => {}
                },
            }
        }
    }
}

/// An agent that runs elsewhere, provided that the caller may do its work.
pub async fn controlled(db: &impl ConnectionTrait, caller: &Caller, agent: AgentId) -> Result<agent::Model> {
    caller.with_scope(Scope::WorkWrite)?;
    let agent = agent::Entity::find_by_id(agent).one(db).await?.ok_or(Error::NotFound("agent"))?;
    caller.controls(&agent, Scope::WorkWrite)?;
    Ok(agent)
}

/// Remembers that the agent whose work in a task the caller may do was heard of.
pub async fn appear(store: &Store, caller: &Caller, task: TaskId) -> Result<()> {
    let (_, agent) = part(store.read(), caller, task).await?;
    agents::see(store, &agent).await
}

/// The newest part that an agent of the caller's has in a task. Hosted work is ours to do.
async fn part(db: &impl ConnectionTrait, caller: &Caller, task: TaskId) -> Result<(execution::Model, agent::Model)> {
    caller.with_scope(Scope::WorkWrite)?;
    let agent_of = execution::Entity::belongs_to(agent::Entity).from(execution::Column::AgentId).to(agent::Column::Id);
    let rows = execution::Entity::find()
        .join(JoinType::InnerJoin, agent_of.into())
        .select_also(agent::Entity)
        .filter(execution::Column::TaskId.eq(task))
        .order_by_desc(execution::Column::CreatedAt)
        .order_by_desc(execution::Column::Id)
        .all(db)
        .await?;
    let mine = rows.into_iter().find_map(|(execution, agent)| {
        let agent = agent.filter(|agent| caller.controls(agent, Scope::WorkWrite).is_ok())?;
        Some((execution, agent))
    });
    let (execution, agent) = mine.ok_or(Error::NotFound("task"))?;
    match agent.runtime {
        Runtime::External => Ok((execution, agent)),
        Runtime::Hosted => Err(WorkRefused::WorkNotOffered.into()),
    }
}

/// What a worker got by a claim.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Claim {
    pub task: task::Model,
    /// The fencing token, which every later call about this claim must name.
    pub token: i64,
    /// Which try it is, from 1.
    pub attempt: i32,
    /// Until when the worker has the work for itself without a heartbeat.
    pub leased_until: Timestamp,
    /// Until when heartbeats can extend that.
    pub ends_by: Timestamp,
}

/// Claims the work that an agent of the caller's won. The first claim ends the wait for the winner and gives its bond back. Work whose
/// lease is over is claimed over; the token of whoever had it is worth nothing from then on.
pub async fn claim(work: &mut Work, task: TaskId, worker: Option<String>) -> Result<Claim> {
    let worker = rules::worker_name(worker)?;
    let (mine, agent) = part(work.tx(), work.caller(), task).await?;
    let task = tasks::lock(work, task).await?;
    let now = work.now();
    let known = execution::Entity::find_by_id(mine.id).one(work.tx()).await?.ok_or(Error::NotFound("task"))?;
    rules::may_claim(&task, &known, now)?;
    let ends_by = rules::ends_by(&task, now);
    let leased_until = Ord::min(ends_by, now.after(work.terms().lease));
    let free = Condition::any().add(waits(now)).add(has_lapsed(now));
    let taken = take(work, known.id, worker.as_deref(), leased_until, free).await?;
    let execution = taken.ok_or(WorkRefused::LeaseHeld)?;
    if known.status == Status::Running {
        retried(work, &task, &known, &agent, WORKER_LOST);
    }
    let task = tasks::start(work, task, &agent, execution.attempts).await?;
    Ok(Claim { task, token: execution.token, attempt: execution.attempts, leased_until, ends_by })
}

/// Keeps a claim alive, to the end of its attempt at most. Answers until when. Fails with `LEASE_LOST` once somebody claimed again, the
/// work has ended, or the lease was over and the work is offered again.
pub async fn heartbeat(work: &mut Work, task: TaskId, token: i64) -> Result<Timestamp> {
    let (execution, _) = part(work.tx(), work.caller(), task).await?;
    rules::admit_result(&execution, token)?;
    let task = task::Entity::find_by_id(task).one(work.tx()).await?.ok_or(Error::NotFound("task"))?;
    let now = work.now();
    let ends_by = rules::ends_by(&task, execution.started_at.unwrap_or(execution.created_at));
    if ends_by <= now {
        return Err(TaskRefused::LeaseLost.into());
    }
    renew(work, execution.id, token, Ord::min(ends_by, now.after(work.terms().lease))).await?;
    let renewed = execution::Entity::find_by_id(execution.id).one(work.tx()).await?;
    Ok(renewed.and_then(|execution| execution.leased_until).ok_or(TaskRefused::LeaseLost)?)
}

/// An output that was looked at. It is empty where the token is not the newest, and then nobody looked: the verb refuses it, unless it
/// has been answered before.
pub type Judged = Option<Judgement>;

/// Looks at an output before any unit of work begins. An output that is too long or only breaks the task's schema is refused, and the
/// lease stays: the agent may correct it. Every other fault that the verifiers find ends the work when it is submitted.
pub async fn examine(worker: &Worker, caller: &Caller, id: TaskId, token: i64, output: &Value) -> Result<Judged> {
    let store = &worker.store;
    let (execution, agent) = part(store.read(), caller, id).await?;
    agents::see(store, &agent).await?;
    if rules::admit_result(&execution, token).is_err() {
        return Ok(None);
    }
    let output = serde_json::to_vec(output)?;
    if output.len() > worker.limits.output_bytes {
        return Err(WorkRefused::OutputTooLarge.into());
    }
    let task = task::Entity::find_by_id(id).one(store.read()).await?.ok_or(Error::NotFound("task"))?;
    let judgement = judge(worker, &task, Bytes::from(output)).await.map_err(|error| {
        tracing::error!(task = %id, %error, "a result could not be judged");
        Error::Unavailable("The result could not be judged now; submit it again.")
    })?;
    match judgement.outcome {
        Err(fault) if fault.code == SCHEMA_VIOLATION => {
            let code: &'static str = WorkRefused::OutputSchemaViolation.into();
            Err(Error::Refused(Refusal { code: code.to_owned(), message: fault.message }))
        }
        Ok(_) | Err(_) => Ok(Some(judgement)),
    }
}

/// Brings the result of a claim, as [`examine`] found it. The work ends and the task is settled by it.
pub async fn submit(work: &mut Work, task: TaskId, token: i64, judged: Judged, logs: String) -> Result<task::Model> {
    let judgement = judged.ok_or(TaskRefused::LeaseLost)?;
    bring(work, task, token, judgement, logs).await
}

/// Gives the work of a claim up for good: the payer is refunded and the agent is to blame.
pub async fn fail(work: &mut Work, task: TaskId, token: i64, code: &str, message: &str) -> Result<task::Model> {
    let (code, message) = (rules::fault_code(code)?, rules::fault_message(message)?);
    let fault = Fault { code, message, of_agent: true, output: None };
    bring(work, task, token, Judgement { outcome: Err(fault), check: None }, String::new()).await
}

async fn bring(work: &mut Work, task: TaskId, token: i64, judgement: Judgement, logs: String) -> Result<task::Model> {
    let (execution, _) = part(work.tx(), work.caller(), task).await?;
    // The task is locked before the instant is read: what it took is measured on the clock of the settlement.
    tasks::lock(work, task).await?;
    let wall = execution.started_at.map_or(Duration::ZERO, |started| work.now().since(started));
    let usage = Usage { wall, ..Usage::default() };
    let Judgement { outcome, check } = judgement;
    let report = Report { execution: execution.id, outcome, check, logs, usage, module_sha256: None };
    complete(work, task, token, report).await
}

/// Ends the lease of an outside worker on a locked task: the work is offered again at once, or, after the last attempt, the payer is
/// refunded and the agent is to blame.
pub(super) async fn lose_lease(
    work: &mut Work,
    task: task::Model,
    execution: &execution::Model,
    agent: &agent::Model,
) -> Result<()> {
    if execution.attempts < task.max_attempts {
        return try_again(work, &task, execution, agent, Duration::ZERO, WORKER_LOST).await;
    }
    let message = format!("The agent's workers were not heard of in time, in {} attempts.", execution.attempts);
    let fault = Fault { code: WORKER_LOST.to_owned(), message, of_agent: true, output: None };
    give_up(work, task, execution, agent, fault).await
}
