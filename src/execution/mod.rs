//! Running the work that was bought.
//!
//! ```text
//! READY ─ claim (token + 1, lease) ─► RUNNING ─ result ─► SUCCEEDED | FAILED
//!   ▲                                    │
//!   └── our fault, attempts left ────────┤      READY ─ not started in time ─► FORFEITED
//!   └── lease over, attempts left ───────┘
//! ```
//!
//! The lease lies on the row, so any process may claim, and a process that dies loses nothing: its lease runs out and somebody
//! claims again. The fencing token makes sure that only the newest claim can bring a result. No transaction is open while
//! foreign code runs: a claim is one unit of work, a result another.
//!
//! Hosted work is run by the workers of this program, in [`sandbox`]; agents that run elsewhere claim theirs by [`outside`].
//!
//! What must always hold: a task has one live execution at most; a result is stored and paid once, by the newest token; after
//! the last attempt the payer is refunded; an agent's `in_work` is the number of its executions that are READY or RUNNING.

pub mod outside;
pub mod rules;
pub mod sandbox;
pub mod verifier;

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use entity::{
    agent, agent_module,
    event::{self, Payload},
    execution::{self, Status},
    id::{ExecutionId, Id, TaskId},
    task,
    task::Purpose,
    text::JsonText,
    time::Timestamp,
};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DbErr, EntityTrait, ExprTrait, JoinType, QueryFilter, QueryOrder,
    QuerySelect, RelationDef, Select,
    sea_query::{Expr, LockBehavior, LockType},
};
use sha2::{Digest, Sha256};
use tracing::{Instrument, Span, field::Empty};

use crate::{
    agent::{
        self as agents,
        modules::{Modules, ModulesError},
    },
    caller::Caller,
    config,
    error::{Error, Result},
    store::{Store, Work, failpoint, literally},
    task::{self as tasks, Fault, Report, Usage, rules::TaskRefused},
    trace,
};
use rules::AfterFailure;
use sandbox::{Limits, Request, Sandbox, SandboxError};

pub use verifier::Judgement;

/// How many waiting executions a claim tries before it gives up for now.
const CANDIDATES: u8 = 16;

/// The code of an attempt whose worker was not heard of in time.
const WORKER_LOST: &str = "WORKER_LOST";

/// What a worker holds of a task.
#[derive(Clone, Debug)]
pub struct Claim {
    pub execution: execution::Model,
    pub task: task::Model,
    pub agent: agent::Model,
    pub module: agent_module::Model,
}

/// Claims the next piece of hosted work that waits, if there is any. Workers of several processes may claim at once; each piece
/// goes to one of them.
pub async fn claim(work: &mut Work, worker: &str) -> Result<Option<Claim>> {
    for _ in 0..CANDIDATES {
        // A task that another unit of work has locked is being claimed, reassigned or ended right now.
        let mut next = waiting(work.now()).join(JoinType::InnerJoin, task_of_execution()).select_also(task::Entity);
        QuerySelect::query(&mut next).lock_with_tables_behavior(
            LockType::Update,
            [task::Entity],
            LockBehavior::SkipLocked,
        );
        let next = next.one(work.tx()).await?;
        let Some((execution, Some(task))) = next else { return Ok(None) };
        work.not_before(tasks::rules::newest(&task));
        if let Some(claim) = claim_one(work, execution.id, task, worker).await? {
            return Ok(Some(claim));
        }
    }
    Ok(None)
}

/// Takes an execution that is `free`: raises its token and gives its worker the lease. Answers the row as it is then, or nothing when
/// somebody else has it.
async fn take(
    work: &Work,
    id: ExecutionId,
    worker: Option<&str>,
    leased_until: Timestamp,
    free: Condition,
) -> Result<Option<execution::Model>> {
    let updated = execution::Entity::update_many()
        .col_expr(execution::Column::Status, Expr::value(Status::Running))
        .col_expr(execution::Column::Token, Expr::col(execution::Column::Token).add(1_i64))
        .col_expr(execution::Column::Attempts, Expr::col(execution::Column::Attempts).add(1))
        .col_expr(execution::Column::Worker, Expr::value(worker))
        .col_expr(execution::Column::LeasedUntil, Expr::value(Some(leased_until)))
        .col_expr(execution::Column::StartedAt, Expr::value(Some(work.now())))
        .filter(execution::Column::Id.eq(id))
        .filter(free)
        .exec_with_returning(work.tx())
        .await?;
    Ok(updated.into_iter().next())
}

/// Work that waits and may be claimed at `now`.
fn waits(now: Timestamp) -> Condition {
    Condition::all().add(literally(execution::Column::Status, Status::Ready)).add(execution::Column::RunAt.lte(now))
}

async fn claim_one(work: &mut Work, id: ExecutionId, task: task::Model, worker: &str) -> Result<Option<Claim>> {
    let leased_until = work.now().after(work.terms().lease);
    let taken = take(work, id, Some(worker), leased_until, waits(work.now())).await?;
    let Some(execution) = taken else { return Ok(None) };
    let missing = || Error::internal("a claimed execution lacks a row that it refers to");
    let agent = agent::Entity::find_by_id(execution.agent_id).one(work.tx()).await?.ok_or_else(missing)?;
    let module = execution.module_id.ok_or_else(missing)?;
    let module = agent_module::Entity::find_by_id(module).one(work.tx()).await?.ok_or_else(missing)?;
    let task = tasks::start(work, task, &agent, execution.attempts).await?;
    Ok(Some(Claim { execution, task, agent, module }))
}

/// Hosted work that may be claimed at `now`, in its order.
fn waiting(now: Timestamp) -> Select<execution::Entity> {
    execution::Entity::find()
        .filter(waits(now))
        .filter(execution::Column::ModuleId.is_not_null())
        // True of all of it. Asked for a stretch of the queue, PostgreSQL reads it in its order, and else may sort all that waits.
        .filter(execution::Column::QueueAt.gte(Timestamp::from_micros(i64::MIN)))
        .order_by_asc(execution::Column::QueueAt)
}

fn task_of_execution() -> RelationDef {
    execution::Entity::belongs_to(task::Entity).from(execution::Column::TaskId).to(task::Column::Id).into()
}

/// Whether hosted work waits to be claimed.
pub async fn is_waiting(store: &Store) -> Result<bool> {
    Ok(waiting(store.clock().now()).one(store.read()).await?.is_some())
}

/// Keeps a claim alive. Fails with `LEASE_LOST` once somebody else holds the work or it has ended.
pub async fn heartbeat(work: &mut Work, id: ExecutionId, token: i64) -> Result<()> {
    renew(work, id, token, work.now().after(work.terms().lease)).await
}

/// Gives whoever holds the newest token the lease until `leased_until`.
async fn renew(work: &Work, id: ExecutionId, token: i64, leased_until: Timestamp) -> Result<()> {
    // A clock that steps back must not take away time that was given.
    let given = Expr::col(execution::Column::LeasedUntil);
    let longer = Expr::case(given.clone().gt(leased_until), given).finally(leased_until);
    let updated = execution::Entity::update_many()
        .col_expr(execution::Column::LeasedUntil, longer.into())
        .filter(execution::Column::Id.eq(id))
        .filter(execution::Column::Token.eq(token))
        .filter(execution::Column::Status.eq(Status::Running))
        .exec(work.tx())
        .await?;
    if updated.rows_affected == 1 { Ok(()) } else { Err(TaskRefused::LeaseLost.into()) }
}

/// Brings a result: the execution ends and the task is settled by it, in this unit of work.
pub async fn complete(work: &mut Work, task: TaskId, token: i64, report: Report) -> Result<task::Model> {
    let task = tasks::lock(work, task).await?;
    let id = report.execution;
    let execution = execution::Entity::find_by_id(id).one(work.tx()).await?.ok_or(TaskRefused::LeaseLost)?;
    rules::admit_result(&execution, token)?;
    let report = judged(work, &task, report).await?;
    end(work, &execution, &report.outcome.as_ref().map(|_| ()).map_err(|fault| fault.code.clone())).await?;
    let agent = agent_of(work, &execution).await?;
    let task = tasks::settle(work, task, &agent, report).await?;
    agents::let_go(work, agent.id).await?;
    Ok(task)
}

/// The report as it counts: a plan that cannot be carried out is no result, wherever the agent runs.
async fn judged(work: &Work, task: &task::Model, report: Report) -> Result<Report> {
    match (task.purpose, &report.outcome) {
        (Purpose::Plan, Ok(output)) => match tasks::planning::fault(work, task, output).await? {
            Some(fault) => Ok(Report { outcome: Err(fault), ..report }),
            None => Ok(report),
        },
        (Purpose::Plan, Err(_)) | (Purpose::Work, _) => Ok(report),
    }
}

/// Says that an attempt failed through no fault of the agent: the work is tried again after a pause, or, after the last attempt,
/// the payer is refunded.
pub async fn attempt_failed(work: &mut Work, task: TaskId, id: ExecutionId, token: i64, code: &str) -> Result<()> {
    let task = tasks::lock(work, task).await?;
    let execution = execution::Entity::find_by_id(id).one(work.tx()).await?.ok_or(TaskRefused::LeaseLost)?;
    rules::admit_result(&execution, token)?;
    let agent = agent_of(work, &execution).await?;
    let noise = u32::from_be_bytes(work.random());
    match rules::after_failure(execution.attempts, task.max_attempts, work.terms().retry_base, noise) {
        AfterFailure::Retry(pause) => try_again(work, &task, &execution, &agent, pause, code).await,
        AfterFailure::GiveUp => {
            let message =
                format!("The work could not be run in {} attempts; the agent is not to blame.", execution.attempts);
            let fault = Fault { code: code.to_owned(), message, of_agent: false, output: None };
            give_up(work, task, &execution, &agent, fault).await
        }
    }
}

/// Lets running work of a locked task wait to be claimed again, after a pause, and says why.
async fn try_again(
    work: &mut Work,
    task: &task::Model,
    execution: &execution::Model,
    agent: &agent::Model,
    pause: Duration,
    code: &str,
) -> Result<()> {
    let run_at = work.now().after(pause);
    let updated = execution::Entity::update_many()
        .col_expr(execution::Column::Status, Expr::value(Status::Ready))
        .col_expr(execution::Column::LeasedUntil, Expr::value(None::<Timestamp>))
        .col_expr(execution::Column::Worker, Expr::value(None::<String>))
        .col_expr(execution::Column::RunAt, Expr::value(run_at))
        .col_expr(execution::Column::QueueAt, Expr::value(tasks::rules::queue_at(task.priority, run_at)))
        .col_expr(execution::Column::ErrorCode, Expr::value(Some(code)))
        .filter(execution::Column::Id.eq(execution.id))
        .filter(execution::Column::Token.eq(execution.token))
        .filter(execution::Column::Status.eq(Status::Running))
        .exec(work.tx())
        .await?;
    if updated.rows_affected != 1 {
        return Err(TaskRefused::LeaseLost.into());
    }
    retried(work, task, execution, agent, code);
    tasks::offer(work, task, agent, execution.attempts).await
}

/// Says that an attempt came to nothing.
fn retried(work: &mut Work, task: &task::Model, execution: &execution::Model, agent: &agent::Model, code: &str) {
    let payload = Payload {
        attempt: Some(execution.attempts),
        runtime: Some(agent.runtime),
        reason: Some(code.to_owned()),
        ..Payload::default()
    };
    work.record(tasks::about_work(task, agent, event::Kind::TaskRetried, payload));
}

async fn give_up(
    work: &mut Work,
    task: task::Model,
    execution: &execution::Model,
    agent: &agent::Model,
    fault: Fault,
) -> Result<()> {
    end(work, execution, &Err(fault.code.clone())).await?;
    let report = Report {
        execution: execution.id,
        outcome: Err(fault),
        check: None,
        logs: String::new(),
        usage: Usage::default(),
        module_sha256: None,
    };
    tasks::settle(work, task, agent, report).await?;
    agents::let_go(work, agent.id).await
}

/// Ends the lease of a worker that was not heard of in time: the work waits to be claimed again, or after the last attempt the payer is
/// refunded. A worker of ours that went away is not the agent's fault; an agent that runs elsewhere answers for its own. Answers whether
/// there was anything to do.
pub async fn expire_lease(work: &mut Work, task: TaskId, id: ExecutionId) -> Result<bool> {
    let task = tasks::lock(work, task).await?;
    let execution = execution::Entity::find_by_id(id).one(work.tx()).await?;
    let Some(execution) = execution.filter(|execution| execution.status == Status::Running) else { return Ok(false) };
    if execution.leased_until.is_none_or(|until| until > work.now()) {
        return Ok(false);
    }
    let agent = agent_of(work, &execution).await?;
    match agent.runtime {
        agent::Runtime::Hosted => attempt_failed(work, task.id, id, execution.token, WORKER_LOST).await?,
        agent::Runtime::External => outside::lose_lease(work, task, &execution, &agent).await?,
    }
    Ok(true)
}

/// Ends a running task whose last deadline is over, whatever its worker does. Answers whether there was anything to do.
pub async fn end_overdue(work: &mut Work, id: TaskId) -> Result<bool> {
    let task = tasks::lock(work, id).await?;
    let due = task.deadline_at.is_some_and(|deadline| deadline <= work.now());
    if task.status != task::Status::Running || !due {
        return Ok(false);
    }
    let execution = execution::Entity::find()
        .filter(execution::Column::TaskId.eq(id))
        .filter(execution::Column::Status.is_in([Status::Ready, Status::Running]))
        .one(work.tx())
        .await?
        .ok_or_else(|| Error::internal("a running task without an execution"))?;
    let agent = agent_of(work, &execution).await?;
    let fault = Fault {
        code: "DEADLINE_EXCEEDED".to_owned(),
        message: "The work was not finished in the time for all its attempts.".to_owned(),
        of_agent: agent.runtime == agent::Runtime::External,
        output: None,
    };
    give_up(work, task, &execution, &agent, fault).await?;
    Ok(true)
}

/// Claims whose lease is over at `now`, longest over first.
pub async fn lapsed(db: &impl ConnectionTrait, now: Timestamp, limit: u64) -> Result<Vec<(ExecutionId, TaskId)>> {
    Ok(execution::Entity::find()
        .select_only()
        .columns([execution::Column::Id, execution::Column::TaskId])
        .filter(literally(execution::Column::Status, Status::Running))
        .filter(execution::Column::LeasedUntil.lte(now))
        .order_by_asc(execution::Column::LeasedUntil)
        .limit(limit)
        .into_tuple()
        .all(db)
        .await?)
}

async fn end(work: &Work, execution: &execution::Model, outcome: &std::result::Result<(), String>) -> Result<()> {
    work.not_before(execution.started_at.unwrap_or(execution.created_at));
    let status = if outcome.is_ok() { Status::Succeeded } else { Status::Failed };
    let updated = execution::Entity::update_many()
        .col_expr(execution::Column::Status, Expr::value(status))
        .col_expr(execution::Column::LeasedUntil, Expr::value(None::<Timestamp>))
        .col_expr(execution::Column::ErrorCode, Expr::value(outcome.as_ref().err().cloned()))
        .col_expr(execution::Column::FinishedAt, Expr::value(Some(work.now())))
        .filter(execution::Column::Id.eq(execution.id))
        .filter(execution::Column::Token.eq(execution.token))
        .filter(execution::Column::Status.is_in([Status::Ready, Status::Running]))
        .exec(work.tx())
        .await?;
    if updated.rows_affected == 1 { Ok(()) } else { Err(TaskRefused::LeaseLost.into()) }
}

async fn agent_of(work: &Work, execution: &execution::Model) -> Result<agent::Model> {
    let agent = agent::Entity::find_by_id(execution.agent_id).one(work.tx()).await?;
    agent.ok_or_else(|| Error::internal("an execution's agent vanished"))
}

/// What a hosted worker runs with.
#[derive(Clone, Debug)]
pub struct Worker {
    /// How this process is named on the leases that it holds.
    pub name: String,
    pub store: Store,
    pub modules: Modules,
    pub sandbox: Sandbox,
    pub limits: config::Execution,
}

impl Worker {
    /// Does the next piece of hosted work that waits. Answers whether there was any.
    pub async fn run_next(&self) -> Result<bool> {
        // Work that cannot be paid for is not begun.
        if self.store.books().is_err() {
            return Ok(false);
        }
        let claimed = self.store.write(Caller::System, async |work| claim(work, &self.name).await).await?;
        let Some(claim) = claimed else { return Ok(false) };
        failpoint("worker::claimed");
        let (task, agent) = (claim.task.id, claim.agent.id);
        let span = tracing::info_span!(
            target: trace::ROOT,
            parent: None,
            "attempt",
            "zerostate.task" = %task,
            "zerostate.agent" = %agent,
            "zerostate.attempt" = claim.execution.attempts,
            "zerostate.outcome" = Empty,
            "zerostate.code" = Empty,
            trace_id = Empty,
            span_id = Empty,
        );
        self.store.posted().link(task.uuid(), &span);
        trace::begin(&span, &trace::Parent::default());
        Box::pin(self.carry_out(claim, &span)).instrument(span.clone()).await
    }

    /// Runs what was claimed and brings its result, in its span.
    async fn carry_out(&self, claim: Claim, span: &Span) -> Result<bool> {
        let (id, task, token) = (claim.execution.id, claim.task.id, claim.execution.token);
        let finished = tokio::select! {
            ran = self.run(&claim) => match ran {
                Ok(report) => {
                    let fault = report.outcome.as_ref().err();
                    span.record("zerostate.outcome", if fault.is_none() { "succeeded" } else { "failed" });
                    span.record("zerostate.code", fault.map(|fault| fault.code.as_str()));
                    let done = async |work: &mut Work| complete(work, task, token, report).await.map(|_| ());
                    self.store.write(Caller::System, done).await
                }
                Err(error) => {
                    span.record("zerostate.outcome", "interrupted").record("zerostate.code", error.code());
                    tracing::warn!(%task, %error, "an attempt failed through no fault of the agent");
                    let failed = async |work: &mut Work| attempt_failed(work, task, id, token, error.code()).await;
                    self.store.write(Caller::System, failed).await
                }
            },
            lost = self.keep_lease(id, token) => Err(lost),
        };
        match finished {
            Ok(()) => Ok(true),
            Err(error) if error.refusal_code() == Some(TaskRefused::LeaseLost.into()) => {
                tracing::warn!(%task, token, "another worker took the work over; its result counts, not ours");
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }

    /// Renews the lease for as long as the work runs; returns only when it is lost.
    async fn keep_lease(&self, id: ExecutionId, token: i64) -> Error {
        loop {
            tokio::time::sleep(self.store.terms().lease / 3).await;
            let renewed = self.store.write(Caller::System, async |work| heartbeat(work, id, token).await).await;
            match renewed {
                Ok(()) => {}
                Err(error) if error.refusal_code().is_some() => return error,
                // The database may be back before the lease is over.
                Err(error) => tracing::warn!(%error, "a lease could not be renewed; trying again"),
            }
        }
    }

    async fn run(&self, claim: &Claim) -> std::result::Result<Report, AttemptError> {
        let sha256 = digest(&claim.module.sha256)?;
        let request = Request {
            sha256,
            input: Bytes::copy_from_slice(claim.task.input.0.as_bytes()),
            limits: limits(&self.limits, tasks::rules::run_limit(&claim.task)),
            // The same task sees the same time and the same randomness in every attempt, so that a run can be repeated.
            now: begins(&claim.task)?,
            seed: seed(claim.task.id),
        };
        let Attempt { outcome, logs, usage } = attempt(&self.sandbox, request, || self.modules.load(sha256)).await?;
        let judgement = match outcome {
            Ok(output) => judge(self, &claim.task, output).await?,
            Err(fault) => Judgement { outcome: Err(fault), check: None },
        };
        failpoint("worker::ran");
        Ok(Report {
            execution: claim.execution.id,
            outcome: judgement.outcome,
            check: judgement.check,
            logs,
            usage,
            module_sha256: Some(claim.module.sha256.clone()),
        })
    }
}

/// What one attempt may take: what the service is configured for, and the time on the wall that the task gives.
#[must_use]
pub fn limits(configured: &config::Execution, wall: Duration) -> Limits {
    Limits {
        fuel: configured.fuel,
        wall,
        memory_bytes: configured.memory_bytes,
        output_bytes: configured.output_bytes,
        log_bytes: configured.log_bytes,
        ..Limits::default()
    }
}

/// The randomness that the modules which work on a task, or check its output, see.
#[must_use]
pub fn seed(task: TaskId) -> [u8; 32] {
    Sha256::digest(task.0.as_bytes()).into()
}

/// The instant at which they see their clocks begin.
fn begins(task: &task::Model) -> std::result::Result<DateTime<Utc>, AttemptError> {
    task.created_at.datetime().ok_or(AttemptError::Broken("the task's instant is out of range"))
}

/// What came of one run of a module.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// What it gave, which nobody has looked at, or its fault.
    pub outcome: std::result::Result<Bytes, Fault>,
    pub logs: String,
    pub usage: Usage,
}

/// Runs a module once; nothing is written anywhere. `load` brings its bytes if they are not compiled yet.
pub async fn attempt<F, L, E>(
    sandbox: &Sandbox,
    request: Request,
    load: F,
) -> std::result::Result<Attempt, AttemptError>
where
    F: FnOnce() -> L,
    L: Future<Output = std::result::Result<Bytes, E>>,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let run = sandbox.run(request, load).await?;
    let fault = |fault: sandbox::Fault| Fault {
        code: fault.code().to_owned(),
        message: fault.to_string(),
        of_agent: true,
        output: None,
    };
    let usage = Usage { fuel: run.usage.fuel, peak_memory_bytes: run.usage.peak_memory_bytes, wall: run.usage.wall };
    Ok(Attempt { outcome: run.outcome.map_err(fault), logs: run.logs, usage })
}

/// Judges what an agent, hosted or not, gave for a task: whether it is JSON, satisfies the task's schema and passes its checker.
/// Foreign code runs here, so no transaction may be open.
pub async fn judge(worker: &Worker, task: &task::Model, output: Bytes) -> std::result::Result<Judgement, AttemptError> {
    let checker = match task.checker_id {
        Some(id) => {
            let module = agent_module::Entity::find_by_id(id).one(worker.store.read()).await?;
            let sha256 = digest(&module.ok_or(AttemptError::Broken("a checker's row is missing"))?.sha256)?;
            let request = Request {
                sha256,
                input: Bytes::copy_from_slice(task.input.0.as_bytes()),
                limits: limits(&worker.limits, tasks::rules::check_limit(task)),
                now: begins(task)?,
                seed: seed(task.id),
            };
            Some((request, move || worker.modules.load(sha256)))
        }
        None => None,
    };
    verify(&worker.sandbox, output, task.output_schema.clone(), checker).await
}

/// The look at an output. A checker is a request, whose input is that of the task, and what brings the bytes of its module.
pub async fn verify<F, L, E>(
    sandbox: &Sandbox,
    output: Bytes,
    output_schema: Option<JsonText>,
    checker: Option<(Request, F)>,
) -> std::result::Result<Judgement, AttemptError>
where
    F: FnOnce() -> L,
    L: Future<Output = std::result::Result<Bytes, E>>,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let outcome = tokio::task::spawn_blocking(move || verifier::verify(&output, output_schema.as_ref()))
        .await
        .map_err(|_| AttemptError::Broken("the verifier panicked"))?
        .map_err(|_| AttemptError::Broken("the verifier failed"))?;
    match (outcome, checker) {
        (Ok(output), Some((request, load))) => {
            let request = Request { input: verifier::question(&request.input, &output), ..request };
            Ok(verifier::by_checker(output, sandbox.run(request, load).await?.outcome))
        }
        (outcome, _) => Ok(Judgement { outcome, check: None }),
    }
}

/// Why an attempt came to nothing through no fault of the agent.
#[derive(Debug, thiserror::Error)]
pub enum AttemptError {
    /// The module could not be had or run.
    #[error("{0}")]
    Sandbox(#[from] SandboxError),
    /// The database did not answer.
    #[error("{0}")]
    Database(#[from] DbErr),
    /// Something of ours is not as it should be.
    #[error("{0}")]
    Broken(&'static str),
}

impl AttemptError {
    fn code(&self) -> &'static str {
        match self {
            // The store checks the hash when it loads, so what was changed there does not even reach the sandbox.
            Self::Sandbox(SandboxError::Load(source)) => match source.downcast_ref::<ModulesError>() {
                Some(ModulesError::HashMismatch { .. }) => "MODULE_HASH_MISMATCH",
                Some(_) | None => "MODULE_UNAVAILABLE",
            },
            Self::Sandbox(SandboxError::HashMismatch) => "MODULE_HASH_MISMATCH",
            Self::Sandbox(SandboxError::Engine(_) | SandboxError::Interrupted)
            | Self::Database(_)
            | Self::Broken(_) => "EXECUTOR_FAILED",
        }
    }
}

fn digest(sha256: &str) -> std::result::Result<[u8; 32], AttemptError> {
    let mut digest = [0; 32];
    hex::decode_to_slice(sha256, &mut digest).map_err(|_| AttemptError::Broken("a stored hash is not hexadecimal"))?;
    Ok(digest)
}
