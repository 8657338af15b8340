//! A goal split over several agents: a budget that is held once, and steps that are bought out of it as their inputs are ready.
//!
//! ```text
//! PLANNING ─ an agent's plan ─┐
//!    │                        ▼
//!    │            RUNNING ─ every step done or skipped ─────────► COMPLETED   (what was not spent goes back)
//!    │               │
//!    └───────────────┴─ a step failed, the time is over, called off ─► STOPPING ─ nothing in work ─► FAILED | CANCELLED
//! ```
//!
//! A step is work, which is one task or several tasks that do the same; or a group, which is a delegation of its own, paid out of
//! this one; or the making of the plan. Every task has its own auction, escrow, settlement and evidence, as any other task.
//!
//! What a delegation does next is decided by [`rules::next`] from what is in the database. [`advance`] does it, one thing that moves
//! credits in one unit of work, and may be called by anybody at any time and as often as they like: a process that dies leaves
//! nothing half done, and the next one goes on.
//!
//! What must always hold: a delegation holds what its budget has left after what its tasks hold and were paid, and nothing once it is
//! over; nothing is bought twice; what is over never changes; nothing begins once it stops; every delegation ends.
//!
//! # Locks
//!
//! The row of the delegation comes first, before auctions and tasks. Nobody who holds anything else ever asks for it. A unit of work
//! that begins a step or ends the delegation locks the two purses that it posts to, together and in their order, before it posts to
//! either: a settlement locks all of its accounts at once in the same order, and so nobody waits in a circle. A unit of work that
//! settles or withdraws a task of a step holds no purse before it has that task, and settles one task alone, because settlements of
//! several would lock the accounts of their agents in any order.

pub mod rules;
pub mod tree;

use std::{collections::BTreeMap, time::Duration};

use entity::{
    agent, delegation,
    delegation::{Source, Status},
    delegation_step,
    delegation_step::{Kind, Status as StepStatus},
    delegation_task,
    event::{self, Payload},
    id::{AgentId, DelegationId, TaskId, UserId},
    money::{Amount, MAX_AMOUNT},
    task,
    task::{Acceptance, Priority, Purpose},
    task_result,
    text::{JsonText, Words},
    time::Timestamp,
};
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, QueryFilter,
    QueryOrder, QuerySelect, Statement, sea_query::Expr,
};
use serde_json::{Value, json};

use crate::{
    agent as agents,
    caller::{Caller, Scope},
    document::canonical::comparable,
    error::{Error, Result},
    ledger::{self, Purse},
    plan::{
        MAX_DEPTH, MAX_STEPS, Plan, PlanStep,
        rules::{Arranged, Flaw, PlanRefused},
        template,
    },
    store::{Event, Work, insert_all},
    task::{self as tasks, AuctionTerms, NewTask, agreement, planning},
};
use rules::{Action, CANCELLED, Child, DelegationRefused, Failure, Stage, Try, TryState, Whole};

/// What an agent that makes a plan must be able to do.
pub const PLANNER: &str = "plan";
/// Characters of a goal at most.
const MAX_GOAL: usize = 10_000;
/// Characters of a message at most.
const MAX_MESSAGE: usize = 1_000;
/// Bytes of the output of a delegation at most.
const MAX_OUTPUT: usize = 4 * 1024 * 1024;
/// How long a delegation may take when its requester does not say, and the least and most that they may say.
const DEADLINE: Duration = Duration::from_hours(1);
const MIN_DEADLINE: Duration = Duration::from_secs(1);
const MAX_DEADLINE: Duration = Duration::from_hours(7 * 24);
/// How much longer than the delegation a result waits for those of others: what is in work when it stops still ends first.
const PATIENCE: Duration = Duration::from_hours(7 * 24);
/// How often a delegation that stops is looked at although nothing of it has ended.
const LOOK: Duration = Duration::from_mins(1);

/// What a requester wants reached.
#[derive(Clone, Debug)]
pub struct NewDelegation {
    /// In words; 1 to 10,000 characters.
    pub goal: String,
    /// What it takes: the steps, in order, where there is neither a plan nor credits for one; a hint otherwise.
    pub capabilities: Vec<String>,
    /// What everything may cost together.
    pub budget: Amount,
    pub priority: Priority,
    /// What steps may refer to as `input`.
    pub input: Value,
    /// How it is reached, if the requester knows.
    pub plan: Option<Plan>,
    /// What of the budget an agent may get for making the plan.
    pub planning_budget: Option<Amount>,
    /// How long auctions of steps take bids; they are decided at once when empty.
    pub closes_in: Option<Duration>,
    /// How long it may take.
    pub deadline: Option<Duration>,
}

/// Delegates a goal: the plan is checked, the budget is held, and the steps begin as soon as this is committed.
pub async fn delegate(work: &mut Work, new: NewDelegation) -> Result<delegation::Model> {
    let requester = work.caller().with_scope(Scope::TasksWrite)?;
    let (row, plan) = checked(work, requester, new)?;
    let input = serde_json::from_str(&row.input.0)?;
    let Some(plan) = plan else {
        planning::offered(work, requester, &Words(vec![PLANNER.to_owned()])).await?;
        return open(work, row, None).await;
    };
    let setting = planning::setting(&row, &input, work.terms().max_input_bytes)?;
    let arranged = planning::arrange(work, requester, &plan, &setting).await?;
    open(work, row, Some((plan, arranged))).await
}

/// The row of a delegation as its requester wants it, and its plan unless an agent makes it.
fn checked(work: &mut Work, requester_id: UserId, new: NewDelegation) -> Result<(delegation::Model, Option<Plan>)> {
    let goal = new.goal.trim().to_owned();
    let strange = |letter: char| letter.is_control() && !matches!(letter, '\n' | '\r' | '\t');
    if goal.is_empty() || goal.chars().count() > MAX_GOAL || goal.chars().any(strange) {
        return Err(Error::invalid("goal", format!("must be 1 to {MAX_GOAL} characters")));
    }
    if new.capabilities.len() > MAX_STEPS {
        return Err(PlanRefused::TooManySteps.at("capabilities").into());
    }
    let mut capabilities = Vec::with_capacity(new.capabilities.len());
    for word in new.capabilities {
        capabilities.extend(agents::normalise_capabilities(vec![word], true)?.0);
    }
    let input = new.input.to_string();
    let terms = work.terms().clone();
    if input.len() > terms.max_input_bytes {
        return Err(Error::invalid("input", format!("must be at most {} bytes of JSON", terms.max_input_bytes)));
    }
    if new.budget.is_zero() || new.budget > MAX_AMOUNT {
        return Err(Error::invalid("budget", "must be more than zero and at most 1000000000"));
    }
    let deadline = new.deadline.unwrap_or(DEADLINE);
    if !(MIN_DEADLINE..=MAX_DEADLINE).contains(&deadline) {
        return Err(Error::invalid("deadline", "must be between one second and seven days"));
    }
    AuctionTerms { closes_in: new.closes_in, ..AuctionTerms::default() }.check(new.budget, &terms)?;
    let (source, plan) = match (new.plan, new.planning_budget) {
        (Some(_), Some(_)) => return Err(Error::invalid("planningBudget", "is for delegations without a plan")),
        (Some(plan), None) => (Source::Client, Some(plan)),
        (None, Some(_)) => (Source::Agent, None),
        (None, None) => (Source::Capabilities, Some(Plan::in_order(&capabilities))),
    };
    let planning_budget = new.planning_budget.unwrap_or(Amount::ZERO);
    if source == Source::Agent && (planning_budget.is_zero() || planning_budget >= new.budget) {
        return Err(Error::invalid("planningBudget", "must be more than zero and less than the budget"));
    }
    let now = work.now();
    let row = delegation::Model {
        id: work.fresh(),
        requester_id,
        parent_id: None,
        step_id: None,
        attempt: None,
        depth: 1,
        goal,
        capabilities: Words(capabilities),
        input: JsonText(input),
        priority: new.priority,
        budget: new.budget,
        planning_budget,
        closes_in_ms: new.closes_in.map(millis),
        source,
        plan: None,
        status: Status::Planning,
        stop_code: None,
        stop_message: None,
        spent: None,
        output: None,
        ends_by: now.after(deadline),
        deadline_at: Some(now),
        created_at: now,
        planned_at: None,
        finished_at: None,
    };
    if source == Source::Agent && brief(&row)?.to_string().len() > terms.max_input_bytes {
        return Err(Error::invalid("input", "is too large to be given to an agent that plans"));
    }
    Ok((row, plan))
}

/// What an agent that makes the plan is told.
fn brief(row: &delegation::Model) -> Result<Value> {
    let input: Value = serde_json::from_str(&row.input.0)?;
    let budget = row.budget.checked_sub(row.planning_budget).unwrap_or(Amount::ZERO).to_string();
    let limits = json!({ "steps": MAX_STEPS, "depth": MAX_DEPTH.saturating_sub(row.depth).saturating_add(1) });
    Ok(json!({
        "goal": row.goal,
        "capabilities": row.capabilities.0,
        "input": input,
        "budget": budget,
        "limits": limits,
    }))
}

/// Writes a delegation down, sets its budget aside, and writes its steps down: those of its plan, or the making of it.
async fn open(work: &mut Work, row: delegation::Model, plan: Option<(Plan, Arranged)>) -> Result<delegation::Model> {
    ledger::fund_delegation(work, &row).await?;
    work.record(about(
        &row,
        event::Kind::DelegationCreated,
        Payload { amount: Some(row.budget), ..Payload::default() },
    ));
    let planned = match &plan {
        Some((plan, _)) => planned(&row, plan, work.now())?,
        None => row,
    };
    delegation::Entity::insert(planned.clone().into_active_model().reset_all())
        .exec_without_returning(work.tx())
        .await?;
    if let Some((plan, arranged)) = plan {
        write_steps(work, &planned, &plan, &arranged, 0).await?;
        work.record(about(&planned, event::Kind::DelegationPlanned, Payload::default()));
        return Ok(planned);
    }
    let step = delegation_step::Model {
        kind: Kind::Plan,
        title: "The plan".to_owned(),
        capabilities: Words(vec![PLANNER.to_owned()]),
        budget: planned.planning_budget,
        ..blank(work, planned.id, 0, PLANNER.to_owned())
    };
    delegation_step::Entity::insert(step.into_active_model().reset_all()).exec_without_returning(work.tx()).await?;
    Ok(planned)
}

/// A delegation that has its plan.
fn planned(row: &delegation::Model, plan: &Plan, now: Timestamp) -> Result<delegation::Model> {
    let text = JsonText(serde_json::to_string(plan)?);
    Ok(delegation::Model { plan: Some(text), planned_at: Some(now), status: Status::Running, ..row.clone() })
}

/// A step about which nothing is known but its name.
fn blank(work: &mut Work, delegation_id: DelegationId, position: i32, name: String) -> delegation_step::Model {
    delegation_step::Model {
        id: work.fresh(),
        delegation_id,
        position,
        name,
        kind: Kind::Work,
        title: String::new(),
        capabilities: Words::default(),
        depends_on: Words::default(),
        input: None,
        output_schema: None,
        plan: None,
        checker_id: None,
        budget: Amount::ZERO,
        on_failure: delegation_step::OnFailure::Fail,
        retries: 0,
        replicas: 1,
        agree: 1,
        closes_in_ms: None,
        timeout_ms: None,
        status: StepStatus::Pending,
        attempts: 0,
        task_id: None,
        child_id: None,
        failure_code: None,
        failure_message: None,
        started_at: None,
        finished_at: None,
    }
}

/// Writes the steps of a plan down, from a position on.
async fn write_steps(
    work: &mut Work,
    row: &delegation::Model,
    plan: &Plan,
    arranged: &Arranged,
    from: i32,
) -> Result<Vec<delegation_step::Model>> {
    let text = |value: &Value| JsonText(value.to_string());
    let mut steps = Vec::with_capacity(plan.steps.len());
    let mut position = from;
    for (step, (budget, depends_on)) in plan.steps.iter().zip(arranged.budgets.iter().zip(&arranged.depends_on)) {
        let PlanStep { name, title, capabilities, input, output_schema, checker_id, closes_in, timeout, plan, .. } =
            step;
        let checker_id = match checker_id {
            Some(id) => Some(planning::checker(work.tx(), id).await?),
            None => None,
        };
        steps.push(delegation_step::Model {
            kind: if plan.is_some() { Kind::Group } else { Kind::Work },
            title: title.clone().unwrap_or_else(|| name.clone()),
            capabilities: agents::normalise_capabilities(capabilities.clone(), plan.is_none())?,
            depends_on: Words(depends_on.clone()),
            input: input.as_ref().map(text),
            output_schema: output_schema.as_ref().map(text),
            plan: plan.as_ref().map(serde_json::to_string).transpose()?.map(JsonText),
            checker_id,
            budget: *budget,
            on_failure: step.on_failure(),
            retries: step.retries(),
            replicas: step.replicas(),
            agree: step.agree(),
            closes_in_ms: closes_in.map(|closes_in| millis(closes_in.0)),
            timeout_ms: timeout.map(|timeout| millis(timeout.0)),
            ..blank(work, row.id, position, name.clone())
        });
        position = position.saturating_add(1);
    }
    let rows = steps.iter().map(|step| step.clone().into_active_model().reset_all());
    insert_all(work.tx(), rows.collect()).await?;
    Ok(steps)
}

/// Calls a delegation of the caller off: nothing new begins, what is in work ends first and is paid as usual, the rest goes back.
pub async fn cancel(work: &mut Work, id: DelegationId) -> Result<delegation::Model> {
    let requester = work.caller().with_scope(Scope::TasksWrite)?;
    let row = lock(work, id).await?;
    if row.requester_id != requester {
        return Err(Error::NotFound("delegation"));
    }
    match row.status {
        Status::Planning | Status::Running => {
            stop(work, &row, Failure::new(CANCELLED, "The requester called the delegation off.")).await
        }
        Status::Stopping | Status::Completed | Status::Failed | Status::Cancelled => {
            Err(DelegationRefused::DelegationOver.into())
        }
    }
}

/// Makes a locked delegation begin nothing new.
async fn stop(work: &mut Work, row: &delegation::Model, why: Failure) -> Result<delegation::Model> {
    let reason = Some(why.code.clone());
    let stopping = delegation::Model {
        status: Status::Stopping,
        stop_code: Some(why.code),
        stop_message: Some(cut(&why.message)),
        deadline_at: Some(work.now()),
        ..row.clone()
    };
    save(work, row, &stopping).await?;
    let payload = Payload { reason, ..Payload::default() };
    work.record(about(&stopping, event::Kind::DelegationStopping, payload));
    Ok(stopping)
}

/// Delegations for which there may be something to do: their time has come, or what one of their steps waits for is there.
pub async fn due(db: &impl ConnectionTrait, now: Timestamp, limit: u64) -> Result<Vec<DelegationId>> {
    let tasks =
        "FROM delegation_tasks l JOIN tasks t ON t.id = l.task_id WHERE l.step_id = s.id AND l.attempt = s.attempts";
    let sql = format!(
        "SELECT s.delegation_id AS id FROM delegation_steps s WHERE s.status = 'RUNNING' AND ( \
         EXISTS (SELECT 1 FROM delegations c WHERE c.id = s.child_id AND c.finished_at IS NOT NULL) \
         OR (s.kind <> 'GROUP' AND NOT EXISTS (SELECT 1 {tasks} AND t.status IN ('OPEN', 'AWARDED', 'RUNNING'))) \
         OR (s.replicas > 1 AND (SELECT COUNT(*) {tasks}) < s.replicas AND NOT EXISTS (SELECT 1 {tasks} AND t.status = 'OPEN')) \
         OR (s.replicas > 1 AND (SELECT COUNT(*) {tasks} AND t.status = 'SUBMITTED') >= s.agree)) LIMIT {limit}"
    );
    let waiting = db.query_all_raw(Statement::from_string(db.get_database_backend(), sql)).await?;
    let mut found: Vec<DelegationId> =
        waiting.iter().map(|row| row.try_get("", "id")).collect::<std::result::Result<_, _>>()?;
    let timed: Vec<DelegationId> = delegation::Entity::find()
        .select_only()
        .column(delegation::Column::Id)
        .filter(delegation::Column::DeadlineAt.lte(now))
        .order_by_asc(delegation::Column::DeadlineAt)
        .limit(limit)
        .into_tuple()
        .all(db)
        .await?;
    found.extend(timed);
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Does what a delegation has to do next, up to the first thing that moves credits. Answers whether it did anything.
pub async fn advance(work: &mut Work, id: DelegationId) -> Result<bool> {
    let row = lock(work, id).await?;
    if rules::is_over(row.status) {
        return Ok(false);
    }
    let mut scene = Scene::load(work, row).await?;
    let mut acted = false;
    while let Some(action) = rules::next(&scene.whole(), &scene.stages()?, work.now()) {
        acted = true;
        if scene.take(work, action).await? == Then::Later {
            break;
        }
    }
    if !rules::is_over(scene.row.status) {
        let (now, row) = (work.now(), &scene.row);
        let later = row.deadline_at.filter(|known| *known > now);
        let look_at = match row.status {
            // What was done may make way for more, which is done at once, but in a unit of work of its own.
            _ if acted => now,
            Status::Stopping => later.unwrap_or(now.after(LOOK)),
            Status::Planning | Status::Running | Status::Completed | Status::Failed | Status::Cancelled => row.ends_by,
        };
        if row.deadline_at != Some(look_at) {
            save(work, row, &delegation::Model { deadline_at: Some(look_at), ..row.clone() }).await?;
        }
    }
    Ok(acted)
}

/// What follows a thing that was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// The next thing may be done in the same unit of work.
    Now,
    /// It is done in another one, because locks were taken.
    Later,
}

/// A locked delegation with all that decides what it does next.
struct Scene {
    row: delegation::Model,
    steps: Vec<Seen>,
}

/// A step with the tasks of its present attempt.
struct Seen {
    step: delegation_step::Model,
    tries: Vec<Try>,
    child: Option<Child>,
}

impl Scene {
    async fn load(work: &Work, row: delegation::Model) -> Result<Self> {
        let steps = delegation_step::Entity::find()
            .filter(delegation_step::Column::DelegationId.eq(row.id))
            .order_by_asc(delegation_step::Column::Position)
            .all(work.tx())
            .await?;
        let mut seen = Vec::with_capacity(steps.len());
        for step in steps {
            let running = step.status == StepStatus::Running;
            let tries = if running { tries(work, &step).await? } else { Vec::new() };
            let child = if running { child(work, &step).await? } else { None };
            seen.push(Seen { step, tries, child });
        }
        Ok(Self { row, steps: seen })
    }

    fn whole(&self) -> Whole {
        let row = &self.row;
        Whole { status: row.status, stop_code: row.stop_code.clone(), ends_by: row.ends_by }
    }

    fn stages(&self) -> Result<Vec<Stage>> {
        let count = |number: i32| usize::try_from(number).map_err(Error::internal);
        let stage = |Seen { step, tries, child }: &Seen| {
            let failure = step.failure_code.as_deref();
            Ok(Stage {
                name: step.name.clone(),
                kind: step.kind,
                status: step.status,
                depends_on: step.depends_on.0.clone(),
                on_failure: step.on_failure,
                retries: step.retries,
                attempts: step.attempts,
                replicas: count(step.replicas)?,
                agree: count(step.agree)?,
                failure: failure.map(|code| Failure::new(code, step.failure_message.clone().unwrap_or_default())),
                tries: tries.clone(),
                child: child.clone(),
            })
        };
        self.steps.iter().map(stage).collect()
    }

    fn seen(&self, place: usize) -> Result<&Seen> {
        self.steps.get(place).ok_or_else(|| Error::internal("a step that is not there"))
    }

    /// Writes a step as it is now and remembers it.
    async fn put(&mut self, work: &Work, place: usize, step: delegation_step::Model) -> Result<()> {
        let seen = self.steps.get_mut(place).ok_or_else(|| Error::internal("a step that is not there"))?;
        save_step(work, &seen.step, &step).await?;
        *seen = Seen { step, tries: Vec::new(), child: None };
        Ok(())
    }

    async fn take(&mut self, work: &mut Work, action: Action) -> Result<Then> {
        match action {
            Action::Complete { step, task } => self.complete(work, step, task).await,
            Action::End { step, status, failure } => {
                self.end(work, step, status, failure).await?;
                Ok(Then::Now)
            }
            // Boxed: what opens an auction keeps much on its way.
            Action::Begin { step } => Box::pin(self.begin(work, step)).await,
            Action::Replicate { step } => {
                let input = match self.input_of(work, self.seen(step)?).await? {
                    Ok(input) => input,
                    Err(flaw) => {
                        return Err(Error::internal(format!("an input that was once there: {}", flaw.message())));
                    }
                };
                Box::pin(self.post(work, step, input)).await?;
                Ok(Then::Later)
            }
            Action::Judge { task, verdict } => {
                agreement::judge(work, task, verdict).await?;
                Ok(Then::Later)
            }
            Action::CallOff { task } => {
                tasks::call_off_step(work, task).await?;
                Ok(Then::Later)
            }
            Action::StopChild { child } => {
                let row = lock(work, child).await?;
                if matches!(row.status, Status::Planning | Status::Running) {
                    let code = self.row.stop_code.clone().unwrap_or_else(|| CANCELLED.to_owned());
                    stop(work, &row, Failure { code, message: "The delegation above it stops.".to_owned() }).await?;
                }
                Ok(Then::Later)
            }
            Action::Stop(why) => {
                self.row = stop(work, &self.row, why).await?;
                Ok(Then::Now)
            }
            Action::Finish(status) => self.finish(work, status).await,
        }
    }

    /// A step has its output. If it was the making of the plan, the steps of the plan follow.
    async fn complete(&mut self, work: &mut Work, place: usize, task: Option<TaskId>) -> Result<Then> {
        let now = work.now();
        let step = self.seen(place)?.step.clone();
        let step = delegation_step::Model {
            status: StepStatus::Completed,
            task_id: task,
            finished_at: Some(now),
            failure_code: None,
            failure_message: None,
            ..step
        };
        self.put(work, place, step.clone()).await?;
        let payload = Payload { duration_us: lasted(step.started_at, now), ..Payload::default() };
        work.record(about_step(&self.row, &step, event::Kind::StepCompleted, payload));
        if step.kind == Kind::Plan {
            let output = output_of(work, &step).await?.unwrap_or(Value::Null);
            self.install(work, &output).await?;
        }
        Ok(Then::Now)
    }

    /// Writes down the steps of the plan that an agent made. It could be carried out when the agent was paid; if the market has changed
    /// since, the delegation stops.
    async fn install(&mut self, work: &mut Work, output: &Value) -> Result<()> {
        let input = serde_json::from_str(&self.row.input.0)?;
        let plan = Plan::read(&output.to_string()).map_err(Error::internal)?;
        let arranged = {
            let setting = planning::setting(&self.row, &input, work.terms().max_input_bytes)?;
            planning::arrange(work, self.row.requester_id, &plan, &setting).await
        };
        let arranged = match named(arranged)? {
            Ok(arranged) => arranged,
            Err(failure) => {
                self.row = stop(work, &self.row, failure).await?;
                return Ok(());
            }
        };
        let row = planned(&self.row, &plan, work.now())?;
        save(work, &self.row, &row).await?;
        self.row = row;
        let steps = write_steps(work, &self.row, &plan, &arranged, 1).await?;
        self.steps.extend(steps.into_iter().map(|step| Seen { step, tries: Vec::new(), child: None }));
        work.record(about(&self.row, event::Kind::DelegationPlanned, Payload::default()));
        Ok(())
    }

    /// A step ends without an output.
    async fn end(&mut self, work: &mut Work, place: usize, status: StepStatus, failure: Option<Failure>) -> Result<()> {
        let now = work.now();
        let (code, message) = failure.map(|failure| (failure.code, cut(&failure.message))).unzip();
        let step = delegation_step::Model {
            status,
            finished_at: Some(now),
            failure_code: code.clone(),
            failure_message: message,
            ..self.seen(place)?.step.clone()
        };
        self.put(work, place, step.clone()).await?;
        let kind = match status {
            StepStatus::Failed => event::Kind::StepFailed,
            StepStatus::Skipped => event::Kind::StepSkipped,
            StepStatus::Pending | StepStatus::Running | StepStatus::Completed | StepStatus::Cancelled => return Ok(()),
        };
        let payload = Payload { reason: code, duration_us: lasted(step.started_at, now), ..Payload::default() };
        work.record(about_step(&self.row, &step, kind, payload));
        Ok(())
    }

    /// Begins a step, or begins it again. One that cannot get its input fails, and trying again would not help.
    async fn begin(&mut self, work: &mut Work, place: usize) -> Result<Then> {
        let input = match self.input_of(work, self.seen(place)?).await? {
            Ok(input) => input,
            Err(flaw) => return self.cannot_begin(work, place, Failure::new(flaw.code(), flaw.message())).await,
        };
        let step = self.seen(place)?.step.clone();
        let begun = delegation_step::Model {
            status: StepStatus::Running,
            attempts: step.attempts.saturating_add(1),
            started_at: step.started_at.or(Some(work.now())),
            ..step
        };
        match begun.kind {
            Kind::Group => {
                let child = match self.group(work, &begun, &input).await? {
                    Ok(child) => child,
                    Err(failure) => return self.cannot_begin(work, place, failure).await,
                };
                let (row, plan) = child;
                ledger::lock_purses(work, &[Purse::behind(&row), Purse::Delegation(row.id)]).await?;
                let row = open(work, row, Some(plan)).await?;
                self.put(work, place, delegation_step::Model { child_id: Some(row.id), ..begun.clone() }).await?;
            }
            Kind::Plan | Kind::Work => {
                self.put(work, place, begun.clone()).await?;
                self.post(work, place, input).await?;
            }
        }
        work.record(about_step(&self.row, &begun, event::Kind::StepStarted, Payload::default()));
        Ok(Then::Later)
    }

    async fn cannot_begin(&mut self, work: &mut Work, place: usize, failure: Failure) -> Result<Then> {
        let status = rules::gives_up(self.seen(place)?.step.on_failure, false);
        self.end(work, place, status, Some(failure)).await?;
        Ok(Then::Now)
    }

    /// The delegation that a group is, as it will be, with its plan; or why it cannot be. What earlier attempts spent is gone.
    async fn group(
        &self,
        work: &mut Work,
        step: &delegation_step::Model,
        input: &Value,
    ) -> Result<std::result::Result<(delegation::Model, (Plan, Arranged)), Failure>> {
        let earlier = delegation::Entity::find().filter(delegation::Column::StepId.eq(step.id)).all(work.tx()).await?;
        let spent: Amount = earlier.iter().filter_map(|row| row.spent).sum();
        let budget = step.budget.checked_sub(spent).filter(|budget| !budget.is_zero());
        let Some(budget) = budget else {
            let flaw = PlanRefused::BudgetTooSmall.at("earlier attempts have spent all of it");
            return Ok(Err(Failure::new(flaw.code(), flaw.message())));
        };
        let text = step.plan.as_ref().ok_or_else(|| Error::internal("a group without a plan"))?;
        let plan = Plan::read(&text.0).map_err(Error::internal)?;
        let now = work.now();
        let row = delegation::Model {
            id: work.fresh(),
            parent_id: Some(self.row.id),
            step_id: Some(step.id),
            attempt: Some(step.attempts),
            depth: self.row.depth.saturating_add(1),
            goal: step.title.clone(),
            capabilities: Words::default(),
            input: JsonText(input.to_string()),
            budget,
            planning_budget: Amount::ZERO,
            closes_in_ms: step.closes_in_ms.or(self.row.closes_in_ms),
            source: Source::Client,
            plan: None,
            status: Status::Planning,
            deadline_at: Some(now),
            created_at: now,
            planned_at: None,
            ..self.row.clone()
        };
        let arranged = {
            let setting = planning::setting(&row, input, work.terms().max_input_bytes)?;
            planning::arrange(work, row.requester_id, &plan, &setting).await
        };
        Ok(named(arranged)?.map(|arranged| (row, (plan, arranged))))
    }

    /// Buys one task for a running step: the next replica of its attempt.
    async fn post(&self, work: &mut Work, place: usize, input: Value) -> Result<()> {
        let step = &self.seen(place)?.step;
        // Asked anew: the list in memory is of the attempt before when this is the first replica of one.
        let tries = tries(work, step).await?;
        let replicas = i64::from(step.replicas);
        let each = step.budget.micros().checked_div(replicas).and_then(Amount::from_micros).unwrap_or(Amount::ZERO);
        let replica = i32::try_from(tries.len()).unwrap_or(i32::MAX).saturating_add(1);
        let agreed = replicas > 1;
        let new = NewTask {
            title: step.title.clone(),
            capabilities: step.capabilities.0.clone(),
            input,
            output_schema: step.output_schema.as_ref().map(|text| serde_json::from_str(&text.0)).transpose()?,
            budget: each,
            timeout: step.timeout_ms.map(duration),
            start_timeout: None,
            max_attempts: None,
            acceptance: if agreed { Acceptance::Agreement } else { Acceptance::Automatic },
            review_window: agreed.then(|| self.row.ends_by.after(PATIENCE).since(work.now())),
            checker: step.checker_id,
        };
        let terms = AuctionTerms {
            closes_in: step.closes_in_ms.or(self.row.closes_in_ms).map(duration),
            excluded: excluded(work, self.row.requester_id, step, &tries).await?,
            ..AuctionTerms::default()
        };
        let purpose = if step.kind == Kind::Plan { Purpose::Plan } else { Purpose::Work };
        ledger::lock_purses(work, &[Purse::behind(&self.row), Purse::Delegation(self.row.id)]).await?;
        let task = tasks::post_step(work, &self.row, purpose, new, terms).await?;
        let link = delegation_task::ActiveModel {
            task_id: Set(task.id),
            step_id: Set(step.id),
            attempt: Set(step.attempts),
            replica: Set(replica),
        };
        delegation_task::Entity::insert(link).exec_without_returning(work.tx()).await?;
        Ok(())
    }

    /// What a step reads: its template with the outputs that it refers to.
    async fn input_of(&self, work: &Work, seen: &Seen) -> Result<std::result::Result<Value, Flaw>> {
        if seen.step.kind == Kind::Plan {
            return Ok(Ok(brief(&self.row)?));
        }
        let template = match &seen.step.input {
            Some(text) => serde_json::from_str(&text.0)?,
            None => template::usual(&seen.step.depends_on.0),
        };
        self.expand(work, &template, work.terms().max_input_bytes).await
    }

    async fn expand(&self, work: &Work, template: &Value, room: usize) -> Result<std::result::Result<Value, Flaw>> {
        let references = match template::references(template) {
            Ok(references) => references,
            Err(flaw) => return Ok(Err(flaw)),
        };
        let mut values: BTreeMap<&str, Value> = BTreeMap::new();
        for name in references.iter().map(|reference| reference.name) {
            if values.contains_key(name) {
                continue;
            }
            let value = match name {
                "input" => Some(serde_json::from_str(&self.row.input.0)?),
                "goal" => Some(Value::String(self.row.goal.clone())),
                _ => match self.steps.iter().find(|seen| seen.step.name == name) {
                    Some(seen) => output_of(work, &seen.step).await?,
                    None => None,
                },
            };
            if let Some(value) = value {
                values.insert(name, value);
            }
        }
        Ok(template::expand(template, &|name| values.get(name), room))
    }

    /// What comes out of all of it.
    async fn output(&self, work: &Work) -> Result<std::result::Result<Value, Flaw>> {
        let text =
            self.row.plan.as_ref().ok_or_else(|| Error::internal("a delegation that ends well without a plan"))?;
        let plan = Plan::read(&text.0).map_err(Error::internal)?;
        let template = plan.output.unwrap_or_else(|| {
            let steps = || self.steps.iter().map(|seen| &seen.step);
            let needed = |name: &String| steps().any(|other| other.depends_on.0.contains(name));
            let last = steps().filter(|step| step.kind != Kind::Plan && !needed(&step.name));
            let names: Vec<String> = last.map(|step| step.name.clone()).collect();
            template::usual(&names)
        });
        self.expand(work, &template, MAX_OUTPUT).await
    }

    /// Ends it: what is left goes back. One whose output cannot be made has failed.
    async fn finish(&mut self, work: &mut Work, status: Status) -> Result<Then> {
        let output = match status {
            Status::Completed => match self.output(work).await? {
                Ok(output) => Some(JsonText(output.to_string())),
                Err(flaw) => {
                    self.row = stop(work, &self.row, Failure::new(flaw.code(), flaw.message())).await?;
                    return Ok(Then::Now);
                }
            },
            Status::Planning | Status::Running | Status::Stopping | Status::Failed | Status::Cancelled => None,
        };
        ledger::lock_purses(work, &[Purse::behind(&self.row), Purse::Delegation(self.row.id)]).await?;
        let returned = ledger::close_delegation(work, &self.row).await?;
        let spent = self.row.budget.checked_sub(returned);
        let spent = spent.ok_or_else(|| Error::internal("a delegation has more left than it had"))?;
        let now = work.now();
        let over = delegation::Model {
            status,
            output,
            spent: Some(spent),
            deadline_at: None,
            finished_at: Some(now),
            ..self.row.clone()
        };
        save(work, &self.row, &over).await?;
        self.row = over;
        let kind = match status {
            Status::Completed => event::Kind::DelegationCompleted,
            Status::Cancelled => event::Kind::DelegationCancelled,
            Status::Planning | Status::Running | Status::Stopping | Status::Failed => event::Kind::DelegationFailed,
        };
        let payload = Payload {
            amount: Some(spent),
            returned: Some(returned),
            reason: self.row.stop_code.clone(),
            duration_us: lasted(Some(self.row.created_at), now),
            ..Payload::default()
        };
        work.record(about(&self.row, kind, payload));
        Ok(Then::Later)
    }
}

/// What the market says against a plan is a failure with a name; anything else is an error.
fn named(arranged: Result<Arranged>) -> Result<std::result::Result<Arranged, Failure>> {
    match arranged {
        Ok(arranged) => Ok(Ok(arranged)),
        Err(error @ (Error::Refused(_) | Error::Invalid { .. })) => {
            let code = error.refusal_code().unwrap_or("INVALID_INPUT").to_owned();
            Ok(Err(Failure { code, message: error.to_string() }))
        }
        Err(error) => Err(error),
    }
}

/// The tasks of the present attempt of a step.
async fn tries(work: &Work, step: &delegation_step::Model) -> Result<Vec<Try>> {
    let links = delegation_task::Entity::find()
        .filter(delegation_task::Column::StepId.eq(step.id))
        .filter(delegation_task::Column::Attempt.eq(step.attempts))
        .order_by_asc(delegation_task::Column::Replica)
        .all(work.tx())
        .await?;
    let mut tries = Vec::with_capacity(links.len());
    for link in links {
        let task = task::Entity::find_by_id(link.task_id).one(work.tx()).await?;
        let task = task.ok_or_else(|| Error::internal("a step without a task that it bought"))?;
        let owner = match task.agent_id {
            Some(agent) => agent::Entity::find_by_id(agent).one(work.tx()).await?.map(|agent| agent.owner_id),
            None => None,
        };
        let state = match task.status {
            task::Status::Open => TryState::Open,
            task::Status::Awarded | task::Status::Running | task::Status::Disputed => TryState::InWork,
            task::Status::Submitted => TryState::Answered(result(work, &task, step).await?),
            task::Status::Completed => TryState::Accepted(result(work, &task, step).await?),
            task::Status::Refunded | task::Status::Expired | task::Status::Cancelled => {
                let code = task.failure_code.unwrap_or_else(|| task.status.name().to_owned());
                TryState::Failed(Failure { code, message: task.failure_message.unwrap_or_default() })
            }
        };
        tries.push(Try { task: link.task_id, state, owner });
    }
    Ok(tries)
}

/// The text by which the result of one of several agents is compared with those of the others.
async fn result(work: &Work, task: &task::Model, step: &delegation_step::Model) -> Result<String> {
    if step.replicas <= 1 {
        return Ok(String::new());
    }
    let output = task_output(work, task.id).await?;
    let output = output.ok_or_else(|| Error::internal("a result without an output"))?;
    comparable(&output).map_err(Error::internal)
}

async fn task_output(work: &Work, task: TaskId) -> Result<Option<Value>> {
    let result = task_result::Entity::find_by_id(task).one(work.tx()).await?;
    let text = result.and_then(|result| result.output);
    Ok(text.map(|text| serde_json::from_str(&text.0)).transpose()?)
}

/// The output of a step that has one.
async fn output_of(work: &Work, step: &delegation_step::Model) -> Result<Option<Value>> {
    if step.status != StepStatus::Completed {
        return Ok(None);
    }
    match (step.task_id, step.child_id) {
        (Some(task), _) => task_output(work, task).await,
        (None, Some(child)) => {
            let child = delegation::Entity::find_by_id(child).one(work.tx()).await?;
            let text = child.and_then(|child| child.output);
            Ok(text.map(|text| serde_json::from_str(&text.0)).transpose()?)
        }
        (None, None) => Err(Error::internal("a completed step without an output")),
    }
}

async fn child(work: &Work, step: &delegation_step::Model) -> Result<Option<Child>> {
    let Some(id) = step.child_id else { return Ok(None) };
    let row = delegation::Entity::find_by_id(id).one(work.tx()).await?;
    let row = row.ok_or_else(|| Error::internal("a group without its delegation"))?;
    let failure = row.stop_code.map(|code| Failure { code, message: row.stop_message.unwrap_or_default() });
    Ok(Some(Child { id, status: row.status, failure }))
}

/// Who may not win the next task of a step: the owners whose agents do the same beside it, and, if anybody else is left, the agents
/// that failed at it before. An agent whose result found no agreement has not failed.
async fn excluded(work: &Work, requester: UserId, step: &delegation_step::Model, tries: &[Try]) -> Result<Vec<String>> {
    let owners = tries.iter().filter_map(|each| each.owner).map(|owner| owner.to_string());
    let links = delegation_task::Entity::find()
        .filter(delegation_task::Column::StepId.eq(step.id))
        .filter(delegation_task::Column::Attempt.lt(step.attempts))
        .all(work.tx())
        .await?;
    let earlier = task::Entity::find()
        .filter(task::Column::Id.is_in(links.into_iter().map(|link| link.task_id)))
        .filter(task::Column::Status.is_in([task::Status::Refunded, task::Status::Expired]))
        .all(work.tx())
        .await?;
    let mut failed: Vec<AgentId> = earlier
        .into_iter()
        .filter(|task| task.failure_code.as_deref() != Some("NO_AGREEMENT"))
        .filter_map(|task| task.agent_id)
        .collect();
    failed.sort_unstable();
    failed.dedup();
    let others = agents::is_offered(work.tx(), &step.capabilities, requester, &failed).await?;
    let failed = failed.into_iter().filter(|_| others).map(|agent| agent.to_string());
    Ok(owners.chain(failed).collect())
}

/// The delegation, locked until the unit of work ends.
async fn lock(work: &Work, id: DelegationId) -> Result<delegation::Model> {
    let found = delegation::Entity::find_by_id(id).lock_exclusive().one(work.tx()).await?;
    work.got_lock();
    let row = found.ok_or(Error::NotFound("delegation"))?;
    work.not_before(row.planned_at.unwrap_or(row.created_at));
    Ok(row)
}

/// Writes a locked delegation as it is now; the database checks that nobody changed its state meanwhile.
async fn save(work: &Work, before: &delegation::Model, now: &delegation::Model) -> Result<()> {
    let updated = delegation::Entity::update_many()
        .col_expr(delegation::Column::Status, Expr::value(now.status))
        .col_expr(delegation::Column::Plan, Expr::value(now.plan.clone()))
        .col_expr(delegation::Column::StopCode, Expr::value(now.stop_code.clone()))
        .col_expr(delegation::Column::StopMessage, Expr::value(now.stop_message.clone()))
        .col_expr(delegation::Column::Spent, Expr::value(now.spent))
        .col_expr(delegation::Column::Output, Expr::value(now.output.clone()))
        .col_expr(delegation::Column::DeadlineAt, Expr::value(now.deadline_at))
        .col_expr(delegation::Column::PlannedAt, Expr::value(now.planned_at))
        .col_expr(delegation::Column::FinishedAt, Expr::value(now.finished_at))
        .filter(delegation::Column::Id.eq(now.id))
        .filter(delegation::Column::Status.eq(before.status))
        .exec(work.tx())
        .await?;
    if updated.rows_affected == 1 {
        Ok(())
    } else {
        Err(Error::internal(format!("{} was changed by somebody else", now.id)))
    }
}

/// Writes a step of a locked delegation as it is now; the database checks that it was not begun or ended meanwhile.
async fn save_step(work: &Work, before: &delegation_step::Model, now: &delegation_step::Model) -> Result<()> {
    let updated = delegation_step::Entity::update_many()
        .col_expr(delegation_step::Column::Status, Expr::value(now.status))
        .col_expr(delegation_step::Column::Attempts, Expr::value(now.attempts))
        .col_expr(delegation_step::Column::TaskId, Expr::value(now.task_id))
        .col_expr(delegation_step::Column::ChildId, Expr::value(now.child_id))
        .col_expr(delegation_step::Column::FailureCode, Expr::value(now.failure_code.clone()))
        .col_expr(delegation_step::Column::FailureMessage, Expr::value(now.failure_message.clone()))
        .col_expr(delegation_step::Column::StartedAt, Expr::value(now.started_at))
        .col_expr(delegation_step::Column::FinishedAt, Expr::value(now.finished_at))
        .filter(delegation_step::Column::Id.eq(now.id))
        .filter(delegation_step::Column::Status.eq(before.status))
        .filter(delegation_step::Column::Attempts.eq(before.attempts))
        .exec(work.tx())
        .await?;
    if updated.rows_affected == 1 {
        Ok(())
    } else {
        Err(Error::internal(format!("{} was changed by somebody else", now.id)))
    }
}

/// Whether `caller` may see a delegation: its requester and administrators.
#[must_use]
pub fn may_see(row: &delegation::Model, caller: &Caller) -> bool {
    caller.user_id() == Some(row.requester_id) || caller.is_admin()
}

fn about(row: &delegation::Model, kind: event::Kind, payload: Payload) -> Event {
    Event { delegation_id: Some(row.id), payer_id: Some(row.requester_id), ..Event::new(kind, payload) }
}

fn about_step(row: &delegation::Model, step: &delegation_step::Model, kind: event::Kind, payload: Payload) -> Event {
    let attempt = Some(step.attempts).filter(|attempts| *attempts > 0);
    about(row, kind, Payload { step: Some(step.name.clone()), attempt, ..payload })
}

fn lasted(from: Option<Timestamp>, to: Timestamp) -> Option<i64> {
    from.and_then(|from| i64::try_from(to.since(from).as_micros()).ok())
}

fn cut(message: &str) -> String {
    message.chars().take(MAX_MESSAGE).collect()
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn duration(millis: i64) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}
