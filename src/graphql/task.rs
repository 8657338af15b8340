//! Tasks and their results.

use async_graphql::{Context, Enum, ID, InputObject, Object, SimpleObject};
use entity::{
    agent,
    id::{AgentId, TaskId},
    money::Amount,
    task, task_result,
    text::JsonText,
};
use sea_orm::{ColumnTrait, Condition, EntityTrait, QueryFilter, QuerySelect, QueryTrait};

use super::{
    agent::{Agent, AgentModule, OrderDirection},
    auction::{Auction, AuctionTermsInput, Bid},
    channel::Channel,
    context::{Ask, intent, maybe, once, parse_id, payload, requires, role, scopes},
    delegation::Delegation,
    dispute::Dispute,
    document::SignedDocument,
    error::{Answer, payload},
    event::EventConnection,
    page::{PageArgs, Sort, connection, list_cost},
    reputation::Rating,
    scalar::{BigInt, Credits, DateTime, Duration, EventCursor, Json},
    user::User,
};
use crate::{
    caller::Scope,
    error::{Error, Result},
    store::{Topic, Work},
    task::{self as verbs, NewTask, dispute as disputes, rules},
};

/// The states of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::task::Status")]
pub(super) enum TaskStatus {
    /// Its auction takes bids; the budget is held.
    Open,
    /// An agent won; the price is in escrow; the work waits to be claimed.
    Awarded,
    /// A worker has claimed the work.
    Running,
    /// The result is there; the requester has a window to accept or reject it.
    Submitted,
    /// A party disputes the result; an arbiter rules who gets how much.
    Disputed,
    /// Work was accepted and paid.
    Completed,
    /// Work failed; the price went back.
    Refunded,
    /// No eligible bid, or no winner started; the money went back.
    Expired,
    /// The requester withdrew the task before an award; the budget went back.
    Cancelled,
}

/// Who says that work is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::task::Acceptance")]
pub(super) enum TaskAcceptance {
    /// The verifiers: a result that passes them is paid at once, another one refunded.
    Automatic,
    /// You, within a window. Silence until its end accepts the result if and only if the verifiers passed it, and refunds it
    /// otherwise. You and the agent's owner may dispute it instead.
    Review,
    /// The other agents that do the same step of a delegation: results on which enough of them agree are paid, others refunded.
    Agreement,
}

/// How much of a hurry there is with work that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::task::Priority")]
pub(super) enum TaskPriority {
    /// Lets other work that waits go first.
    Low,
    /// As everybody.
    Normal,
    /// Goes before other work that waits, but not for ever.
    High,
}

/// Where the credits of a task are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
pub(super) enum EscrowStatus {
    /// Set aside: the budget, or the price once an agent won.
    Held,
    /// Set aside until the dispute is ruled or its time is over.
    Disputed,
    /// The price, or what was metered of it, went to the agent.
    Released,
    /// A ruling gave a part of what good work is paid to the agent and the rest back.
    Split,
    /// All of it came back.
    Refunded,
}

/// The credits that are set aside for a task, and where they went.
#[derive(SimpleObject)]
pub(super) struct Escrow {
    /// Where the credits are.
    status: EscrowStatus,
    /// What is set aside now; zero once the task is over.
    held: Credits,
    /// What the agent got, the platform's fee included.
    paid: Credits,
    /// What came back to the requester of the budget.
    returned: Credits,
}

impl Escrow {
    fn of(task: &task::Model) -> Self {
        let (price, paid) = (task.price.unwrap_or(task.budget), task.paid.unwrap_or(Amount::ZERO));
        let due = task.charge.unwrap_or(price);
        let (status, held) = match task.status {
            task::Status::Open => (EscrowStatus::Held, task.budget),
            task::Status::Awarded | task::Status::Running | task::Status::Submitted => (EscrowStatus::Held, price),
            task::Status::Disputed => (EscrowStatus::Disputed, price),
            task::Status::Completed if paid < due => (EscrowStatus::Split, Amount::ZERO),
            task::Status::Completed => (EscrowStatus::Released, Amount::ZERO),
            task::Status::Refunded | task::Status::Expired | task::Status::Cancelled => {
                (EscrowStatus::Refunded, Amount::ZERO)
            }
        };
        let rest = task.budget.checked_sub(held).and_then(|rest| rest.checked_sub(paid)).unwrap_or(Amount::ZERO);
        Self { status, held: Credits(held), paid: Credits(paid), returned: Credits(rest) }
    }
}

/// Whether the work was good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::task_result::Outcome")]
pub(super) enum TaskOutcome {
    /// There is an output: one that passed its verifiers, or one that waits, or waited, for the requester's word.
    Succeeded,
    /// The guest or its output was at fault, or our attempts ran out.
    Failed,
}

/// The two sides of a deal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
pub(super) enum Side {
    /// You asked for the work and pay for it.
    Requester,
    /// An agent of yours does it.
    Worker,
}

#[derive(Clone)]
pub(super) struct Task(task::Model);

impl From<task::Model> for Task {
    fn from(row: task::Model) -> Self {
        Self(row)
    }
}

/// A piece of work that somebody pays for, from its posting to its settlement. Its requester, the owner of the agent that won it
/// and administrators see it; so do arbiters while its result is disputed, and the one who ruled it.
#[Object]
impl Task {
    /// The id, `task_…`.
    pub(super) async fn id(&self) -> ID {
        self.0.id.into()
    }

    /// What people call it.
    async fn title(&self) -> &str {
        &self.0.title
    }

    /// What an agent must be able to do; sorted.
    async fn capabilities(&self) -> &[String] {
        &self.0.capabilities.0
    }

    /// What the agent reads.
    async fn input(&self, ctx: &Context<'_>) -> Option<Answer<Json>> {
        maybe(ctx, async { json(Some(&self.0.input)) }).await
    }

    /// The SHA-256 of the exact input text in lower-case hex.
    async fn input_sha256(&self) -> &str {
        &self.0.input_sha256
    }

    /// The JSON Schema that the output must satisfy; null when anything will do.
    async fn output_schema(&self, ctx: &Context<'_>) -> Option<Answer<Json>> {
        maybe(ctx, async { json(self.0.output_schema.as_ref()) }).await
    }

    /// The most that the requester pays.
    async fn budget(&self) -> Credits {
        Credits(self.0.budget)
    }

    /// Its state.
    async fn status(&self) -> TaskStatus {
        self.0.status.into()
    }

    /// The wall-clock limit of one attempt.
    async fn timeout(&self) -> Duration {
        Duration::from_millis(self.0.timeout_ms)
    }

    /// How long a winner may take to start.
    async fn start_timeout(&self) -> Duration {
        Duration::from_millis(self.0.start_timeout_ms)
    }

    /// How often the work is tried when the fault is ours.
    async fn max_attempts(&self) -> i32 {
        self.0.max_attempts
    }

    /// What the winner is paid on success, or the most if its price is metered; null before an award.
    async fn price(&self) -> Option<Credits> {
        self.0.price.map(Credits)
    }

    /// What the winner is paid on success for the fuel that its work took, at most the price; null before there is a result, and
    /// where the price is not metered.
    async fn charge(&self) -> Option<Credits> {
        self.0.charge.map(Credits)
    }

    /// What was paid in the end, zero after a refund; null before the settlement.
    async fn paid(&self) -> Option<Credits> {
        self.0.paid.map(Credits)
    }

    /// By when the next thing happens at the latest; null once the task is over.
    async fn deadline_at(&self) -> Option<DateTime> {
        self.0.deadline_at.map(DateTime)
    }

    /// A stable code for why the task ended without a payment; null when it did not.
    async fn failure_code(&self) -> Option<&str> {
        self.0.failure_code.as_deref()
    }

    /// A sentence for why the task ended without a payment; null when it did not.
    async fn failure_message(&self) -> Option<&str> {
        self.0.failure_message.as_deref()
    }

    /// When the task was posted.
    async fn created_at(&self) -> DateTime {
        DateTime(self.0.created_at)
    }

    /// When an agent won it; null before.
    async fn awarded_at(&self) -> Option<DateTime> {
        self.0.awarded_at.map(DateTime)
    }

    /// When the work was first claimed; null before.
    async fn started_at(&self) -> Option<DateTime> {
        self.0.started_at.map(DateTime)
    }

    /// When the task was over; null before.
    async fn finished_at(&self) -> Option<DateTime> {
        self.0.finished_at.map(DateTime)
    }

    /// Who asked for it and pays.
    #[graphql(complexity = "1 + child_complexity")]
    async fn requester(&self, ctx: &Context<'_>) -> Option<Answer<User>> {
        maybe(ctx, super::user::find(ctx, self.0.requester_id)).await
    }

    /// The auction that finds its agent.
    #[graphql(complexity = "1 + child_complexity")]
    async fn auction(&self, ctx: &Context<'_>) -> Option<Answer<Auction>> {
        maybe(ctx, async { Ok(ctx.loaders().auctions_of_tasks(self.0.id).await?.map(Auction::from)) }).await
    }

    /// The agent that won it; null before an award.
    #[graphql(complexity = "1 + child_complexity")]
    async fn agent(&self, ctx: &Context<'_>) -> Option<Answer<Agent>> {
        maybe(ctx, async {
            let Some(agent) = self.0.agent_id else { return Ok(None) };
            super::agent::find(ctx, agent).await
        })
        .await
    }

    /// The bid that won it; null before an award.
    #[graphql(complexity = "1 + child_complexity")]
    async fn winning_bid(&self, ctx: &Context<'_>) -> Option<Answer<Bid>> {
        maybe(ctx, async {
            let Some(bid) = self.0.bid_id else { return Ok(None) };
            super::auction::find_bid(ctx, bid).await
        })
        .await
    }

    /// The channel that holds its price, or held it; null before an award.
    #[graphql(complexity = "2 + child_complexity")]
    async fn channel(&self, ctx: &Context<'_>) -> Option<Answer<Channel>> {
        maybe(ctx, async {
            let Some(channel) = self.0.channel_id else { return Ok(None) };
            super::channel::find(ctx, channel).await
        })
        .await
    }

    /// What came of it; null before.
    #[graphql(complexity = "1 + child_complexity")]
    async fn result(&self, ctx: &Context<'_>) -> Option<Answer<TaskResult>> {
        maybe(ctx, async { result_of(ctx, &self.0).await }).await
    }

    /// Who says that the work is good.
    async fn acceptance(&self) -> TaskAcceptance {
        self.0.acceptance.into()
    }

    /// How long the requester may look at a result; null where there is no review.
    async fn review_window(&self) -> Option<Duration> {
        self.0.review_ms.map(Duration::from_millis)
    }

    /// Until when the requester may accept or reject the result, or either side open a dispute; null before there is a result, and
    /// where there is no review.
    async fn review_until(&self) -> Option<DateTime> {
        let submitted = self.0.submitted_at.filter(|_| self.0.review_ms.is_some());
        submitted.map(|submitted| DateTime(submitted.after(rules::review_window(&self.0))))
    }

    /// When the result came; null before.
    async fn submitted_at(&self) -> Option<DateTime> {
        self.0.submitted_at.map(DateTime)
    }

    /// Whether the verifiers passed the result; null before there is one.
    async fn verified(&self) -> Option<bool> {
        self.0.verified
    }

    /// The module that says whether an output is good, as it was when the task was posted; null when there is none.
    #[graphql(complexity = "1 + child_complexity")]
    async fn checker(&self, ctx: &Context<'_>) -> Option<Answer<AgentModule>> {
        maybe(ctx, async {
            let Some(module) = self.0.checker_id else { return Ok(None) };
            super::agent::find_module(ctx, module).await
        })
        .await
    }

    /// The credits that are set aside for it, and where they went.
    async fn escrow(&self) -> Escrow {
        Escrow::of(&self.0)
    }

    /// The dispute about its result; null where there is none.
    #[graphql(complexity = "1 + child_complexity")]
    async fn dispute(&self, ctx: &Context<'_>) -> Option<Answer<Dispute>> {
        maybe(ctx, super::dispute::find_of_task(ctx, self.0.id)).await
    }

    /// How much of a hurry there is with it.
    async fn priority(&self) -> TaskPriority {
        self.0.priority.into()
    }

    /// The delegation that bought it; null where there is none, and for those who do not see it.
    #[graphql(complexity = "1 + child_complexity")]
    async fn delegation(&self, ctx: &Context<'_>) -> Option<Answer<Delegation>> {
        maybe(ctx, async {
            let Some(delegation) = self.0.delegation_id else { return Ok(None) };
            super::delegation::find(ctx, delegation).await
        })
        .await
    }

    /// The requester's stars; null while it is not rated.
    #[graphql(complexity = "1 + child_complexity")]
    async fn rating(&self, ctx: &Context<'_>) -> Option<Answer<Rating>> {
        maybe(ctx, async { Ok(ctx.loaders().ratings(self.0.id).await?.map(Rating)) }).await
    }

    /// The newest receipt of its settlement; null before, and for a task that was never awarded.
    #[graphql(complexity = "1 + child_complexity")]
    async fn receipt(&self, ctx: &Context<'_>) -> Option<Answer<SignedDocument>> {
        maybe(ctx, super::document::newest(ctx, self.0.id, entity::document::Kind::TaskReceipt)).await
    }
}

/// The result of a task, with what was paid for it by now.
#[derive(Clone)]
pub(super) struct TaskResult(task_result::Model, Amount);

async fn result_of(ctx: &Context<'_>, task: &task::Model) -> Result<Option<TaskResult>> {
    let paid = task.paid.unwrap_or(Amount::ZERO);
    Ok(ctx.loaders().results(task.id).await?.map(|row| TaskResult(row, paid)))
}

/// What a checker said about an output.
#[derive(SimpleObject)]
pub(super) struct TaskCheck {
    /// Whether it found the output good.
    passed: bool,
    /// Why, in the checker's words, of which the first 500 characters are kept; null when it gave no reason.
    reason: Option<String>,
}

/// What came of a task, stored together with its settlement, or before it where the requester reviews. Who sees the task sees it.
#[Object]
impl TaskResult {
    /// Whether the work was good.
    async fn outcome(&self) -> TaskOutcome {
        self.0.outcome.into()
    }

    /// What the agent answered; null when it did not succeed.
    async fn output(&self, ctx: &Context<'_>) -> Option<Answer<Json>> {
        maybe(ctx, async { json(self.0.output.as_ref()) }).await
    }

    /// What the agent wrote to standard error, cut at a limit.
    async fn logs(&self) -> &str {
        &self.0.logs
    }

    /// A stable code of the fault, or of what the verifiers found wrong with an output that waits for the requester's word; null
    /// when there was none.
    async fn fault_code(&self) -> Option<&str> {
        self.0.fault_code.as_deref()
    }

    /// A sentence about the fault; null when there was none.
    async fn fault_message(&self) -> Option<&str> {
        self.0.fault_message.as_deref()
    }

    /// Units of fuel that the last attempt used.
    async fn fuel(&self) -> BigInt {
        BigInt(self.0.fuel)
    }

    /// Bytes of memory that the last attempt had at its peak.
    async fn peak_memory_bytes(&self) -> BigInt {
        BigInt(self.0.peak_memory_bytes)
    }

    /// Wall time of the last attempt.
    async fn duration(&self) -> Duration {
        Duration::from_micros(self.0.wall_us)
    }

    /// The SHA-256 of the module that ran, in lower-case hex; null for external agents.
    async fn module_sha256(&self) -> Option<&str> {
        self.0.module_sha256.as_deref()
    }

    /// The SHA-256 of the exact input text, in lower-case hex.
    async fn input_sha256(&self) -> &str {
        &self.0.input_sha256
    }

    /// The SHA-256 of the exact output text, in lower-case hex; null without an output.
    async fn output_sha256(&self) -> Option<&str> {
        self.0.output_sha256.as_deref()
    }

    /// What the task's checker said about the output; null without a checker, where no output came to it, and where it could not say.
    async fn check(&self) -> Option<TaskCheck> {
        let passed = self.0.check_passed?;
        Some(TaskCheck { passed, reason: self.0.check_reason.clone() })
    }

    /// What the requester was charged; zero while the result waits for the requester's word.
    async fn cost(&self) -> Credits {
        Credits(self.1)
    }

    /// When it was stored.
    async fn created_at(&self) -> DateTime {
        DateTime(self.0.created_at)
    }

    /// Who did the work.
    #[graphql(complexity = "1 + child_complexity")]
    async fn agent(&self, ctx: &Context<'_>) -> Option<Answer<Agent>> {
        maybe(ctx, super::agent::find(ctx, self.0.agent_id)).await
    }

    /// The task.
    #[graphql(complexity = "2 + child_complexity")]
    async fn task(&self, ctx: &Context<'_>) -> Option<Answer<Task>> {
        maybe(ctx, find(ctx, self.0.task_id)).await
    }

    /// Everything that happened to the task, from its posting to its settlement, oldest first.
    #[graphql(complexity = "list_cost(__ctx, __variables_definition, __field, child_complexity)")]
    async fn timeline(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many: 1 to 100, 20 when it is left out.")] first: Option<i32>,
        #[graphql(desc = "Only what comes after this cursor; from the posting when it is left out.")] after: Option<
            EventCursor,
        >,
    ) -> Option<Answer<EventConnection>> {
        maybe(ctx, async {
            super::event::page(ctx, Some(Topic::Task(self.0.task_id)), None, first, after).await.map(Some)
        })
        .await
    }
}

/// The value of a stored JSON text.
fn json(text: Option<&JsonText>) -> Result<Option<Json>> {
    Ok(text.map(|text| serde_json::from_str(&text.0)).transpose()?.map(Json))
}

connection! {
    /// A page of tasks.
    TaskConnection,
    /// A task in a list.
    TaskEdge, Task, task::Model
}

/// Which tasks to list. All conditions must hold.
#[derive(Clone, Debug, Default, InputObject)]
pub(super) struct TaskFilter {
    /// Is in one of these states.
    status: Option<Vec<TaskStatus>>,
    /// You are on this side of it.
    side: Option<Side>,
    /// Was won by this agent.
    agent_id: Option<ID>,
}

/// What tasks can be ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
pub(super) enum TaskOrderField {
    /// When the task was posted.
    CreatedAt,
}

/// The order of tasks.
#[derive(Clone, Copy, Debug, InputObject)]
pub(super) struct TaskOrder {
    /// What to order by.
    field: TaskOrderField,
    /// Which way.
    direction: OrderDirection,
}

impl TaskOrder {
    fn sort(self) -> Sort<task::Entity> {
        match self.field {
            TaskOrderField::CreatedAt => Sort {
                name: "w",
                key: None,
                id: task::Column::Id,
                descending: self.direction == OrderDirection::Desc,
                place: |row| (0, row.id.0),
            },
        }
    }
}

/// What is to be done.
#[derive(InputObject)]
pub(super) struct TaskInput {
    /// What people call it; 1 to 200 characters.
    title: String,
    /// What an agent must be able to do: 1 to 20 words of a to z, 0 to 9, `.`, `_` and `-`.
    capabilities: Vec<String>,
    /// What the agent reads.
    input: Json,
    /// A JSON Schema that the output must satisfy; anything will do when it is left out.
    output_schema: Option<Json>,
    /// The most that you pay. It is held until an agent wins, then the price of the award is.
    budget: Credits,
    /// The wall-clock limit of one attempt; the service's default when it is left out.
    timeout: Option<Duration>,
    /// How long a winner may take to start; the service's default when it is left out.
    start_timeout: Option<Duration>,
    /// How often the work is tried when the fault is ours; the service's default when it is left out.
    max_attempts: Option<i32>,
    /// Who says that the work is good.
    #[graphql(default_with = "TaskAcceptance::Automatic")]
    acceptance: TaskAcceptance,
    /// How long you may look at a result; only with `REVIEW`, and the service's default when it is left out.
    review_window: Option<Duration>,
    /// A hosted agent, of anybody's, whose present module says whether an output is good: it gets `{"input": …, "output": …}` and
    /// answers `{"pass": true}` or `{"pass": false, "reason": "…"}`. An output that it refuses is not paid.
    checker_id: Option<ID>,
}

impl TaskInput {
    /// As the verbs take it, but for the checker, which [`TaskInput::checked_by`] adds.
    pub(super) fn to_new(&self) -> NewTask {
        NewTask {
            title: self.title.clone(),
            capabilities: self.capabilities.clone(),
            input: self.input.0.clone(),
            output_schema: self.output_schema.as_ref().map(|schema| schema.0.clone()),
            budget: self.budget.0,
            timeout: self.timeout.map(|timeout| timeout.0),
            start_timeout: self.start_timeout.map(|timeout| timeout.0),
            max_attempts: self.max_attempts,
            acceptance: self.acceptance.into(),
            review_window: self.review_window.map(|window| window.0),
            checker: None,
        }
    }

    /// The hosted agent that is to check the output.
    pub(super) fn checker(&self) -> Result<Option<AgentId>> {
        self.checker_id.as_ref().map(|id| parse_id(id, "checkerId")).transpose()
    }

    /// The task with the module of its checker as of now.
    pub(super) async fn checked_by(work: &Work, new: NewTask, checker: Option<AgentId>) -> Result<NewTask> {
        let checker = match checker {
            Some(agent) => Some(verbs::checker(work, agent).await?),
            None => None,
        };
        Ok(NewTask { checker, ..new })
    }
}

/// Input of `executeTask`.
#[derive(InputObject)]
pub(super) struct ExecuteTaskInput {
    #[graphql(flatten)]
    task: TaskInput,
    #[graphql(flatten)]
    auction: AuctionTermsInput,
    /// Names this intent: the same value when you retry the same intent, another one for another. 1 to 128 visible ASCII characters.
    idempotency_key: String,
}

/// Input of `cancelTask`.
#[derive(InputObject)]
pub(super) struct CancelTaskInput {
    /// The task.
    task_id: ID,
    /// Names this intent: the same value when you retry the same intent, another one for another. 1 to 128 visible ASCII characters.
    idempotency_key: String,
}

/// Input of `acceptResult`.
#[derive(InputObject)]
pub(super) struct AcceptResultInput {
    /// The task whose result you accept.
    task_id: ID,
    /// Names this intent: the same value when you retry the same intent, another one for another. 1 to 128 visible ASCII characters.
    idempotency_key: String,
}

/// Input of `rejectResult`.
#[derive(InputObject)]
pub(super) struct RejectResultInput {
    /// The task whose result you reject.
    task_id: ID,
    /// What is wrong with it; 1 to 10,000 characters.
    reason: String,
    /// Names this intent: the same value when you retry the same intent, another one for another. 1 to 128 visible ASCII characters.
    idempotency_key: String,
}

intent! {
    ExecuteTaskInput = "executeTask", moves_credits: true;
    AcceptResultInput = "acceptResult", moves_credits: true;
    RejectResultInput = "rejectResult", moves_credits: false;
    CancelTaskInput = "cancelTask", moves_credits: true;
}

payload! {
    /// Answer of `executeTask`.
    ExecuteTaskPayload {
        /// The task; null when it was refused.
        task: Task
    } TaskUserError
}

payload! {
    /// Answer of `acceptResult`.
    AcceptResultPayload {
        /// The task as it is now; null when it was refused.
        task: Task
    } TaskUserError
}

payload! {
    /// Answer of `rejectResult`.
    RejectResultPayload {
        /// The task as it is now, with its dispute; null when it was refused.
        task: Task
    } TaskUserError
}

payload! {
    /// Answer of `cancelTask`.
    CancelTaskPayload {
        /// The task as it is now; null when it was refused.
        task: Task
    } TaskUserError
}

/// The task with this id, if the caller is party to it.
pub(super) async fn find(ctx: &Context<'_>, id: TaskId) -> Result<Option<Task>> {
    Ok(visible(ctx, id).await?.map(Task))
}

/// The row of a task, if the caller is party to it.
pub(super) async fn visible(ctx: &Context<'_>, id: TaskId) -> Result<Option<task::Model>> {
    if ctx.viewer().is_none() {
        return Ok(None);
    }
    let Some(row) = ctx.loaders().tasks(id).await? else { return Ok(None) };
    let own = verbs::may_see(&row, None, ctx.caller());
    let agent = match row.agent_id {
        Some(agent) if !own => ctx.loaders().agents(agent).await?,
        Some(_) | None => None,
    };
    if verbs::may_see(&row, agent.as_ref(), ctx.caller()) {
        return Ok(Some(row));
    }
    // Who may rule a dispute about it looks into it.
    let dispute = if ctx.caller().is_arbiter() { ctx.loaders().disputes_of_tasks(id).await? } else { None };
    Ok(dispute.filter(|dispute| disputes::may_look_into(dispute, ctx.caller())).map(|_| row))
}

#[derive(Default)]
pub(super) struct TaskQuery;

#[Object]
impl TaskQuery {
    /// A task by id; null when there is none, or you are not party to it.
    #[graphql(complexity = "1 + child_complexity", directive = requires::apply(scopes("task"), role("task")))]
    async fn task(&self, ctx: &Context<'_>, #[graphql(desc = "The id, `task_…`.")] id: ID) -> Option<Answer<Task>> {
        maybe(ctx, async { find(ctx, parse_id(&id, "id")?).await }).await
    }

    /// What came of a task; null before, and for those who are not party to it.
    #[graphql(complexity = "2 + child_complexity", directive = requires::apply(scopes("taskResult"), role("taskResult")))]
    async fn task_result(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The task, `task_…`.")] task_id: ID,
    ) -> Option<Answer<TaskResult>> {
        maybe(ctx, async {
            let task = visible(ctx, parse_id(&task_id, "taskId")?).await?.ok_or(Error::NotFound("task"))?;
            result_of(ctx, &task).await
        })
        .await
    }

    /// The tasks that you posted or your agents won, newest first; all tasks for administrators.
    #[graphql(complexity = "list_cost(__ctx, __variables_definition, __field, child_complexity)", directive = requires::apply(scopes("tasks"), role("tasks")))]
    #[expect(clippy::too_many_arguments, reason = "the four arguments of a list, its filter and its order")]
    async fn tasks(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which tasks.")] filter: Option<TaskFilter>,
        #[graphql(desc = "In which order.")] order_by: Option<TaskOrder>,
        #[graphql(desc = "How many from the start: 1 to 100, 20 when neither `first` nor `last` is given.")]
        first: Option<i32>,
        #[graphql(desc = "Only what comes after this cursor.")] after: Option<String>,
        #[graphql(desc = "How many from the end: 1 to 100; not together with `first`.")] last: Option<i32>,
        #[graphql(desc = "Only what comes before this cursor.")] before: Option<String>,
    ) -> Option<Answer<TaskConnection>> {
        maybe(ctx, async {
            let viewer = ctx.caller().with_scope(Scope::Read)?;
            let filter = filter.unwrap_or_default();
            let mine = agent::Entity::find()
                .select_only()
                .column(agent::Column::Id)
                .filter(agent::Column::OwnerId.eq(viewer))
                .into_query();
            let asks = task::Column::RequesterId.eq(viewer);
            let works = task::Column::AgentId.in_subquery(mine);
            let mut list = task::Entity::find();
            list = match filter.side {
                Some(Side::Requester) => list.filter(asks),
                Some(Side::Worker) => list.filter(works),
                None if ctx.caller().is_admin() => list,
                None => list.filter(Condition::any().add(asks).add(works)),
            };
            if let Some(states) = filter.status {
                list = list.filter(task::Column::Status.is_in(states.into_iter().map(task::Status::from)));
            }
            if let Some(agent) = &filter.agent_id {
                list = list.filter(task::Column::AgentId.eq(parse_id::<AgentId>(agent, "filter.agentId")?));
            }
            let newest = TaskOrder { field: TaskOrderField::CreatedAt, direction: OrderDirection::Desc };
            let sort = order_by.unwrap_or(newest).sort();
            let window = PageArgs { first, after, last, before }.window(&sort)?;
            Ok(Some(window.read(ctx.loaders().db(), list, &sort).await?.into()))
        })
        .await
    }
}

#[derive(Default)]
pub(super) struct TaskMutation;

#[Object]
impl TaskMutation {
    /// Posts a task and finds its agent by an auction, at once unless `closesIn` gives bidders time. The budget is held;
    /// the winner's price goes to it when its work is accepted, and back to you when it is not.
    #[graphql(complexity = "10 + child_complexity", directive = requires::apply(scopes("executeTask"), role("executeTask")))]
    async fn execute_task(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The task.")] input: ExecuteTaskInput,
    ) -> Option<Answer<ExecuteTaskPayload>> {
        payload(ctx, async {
            let (new, terms, checker) = (input.task.to_new(), input.auction.to_terms(), input.task.checker()?);
            let posted = async |work: &mut Work| {
                let new = TaskInput::checked_by(work, new, checker).await?;
                verbs::execute(work, new, terms).await
            };
            Ok(once(ctx, &input, posted).await?.value.into())
        })
        .await
    }

    /// Withdraws a task of yours before an agent won it; the budget comes back.
    #[graphql(complexity = "10 + child_complexity", directive = requires::apply(scopes("cancelTask"), role("cancelTask")))]
    async fn cancel_task(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The task to withdraw.")] input: CancelTaskInput,
    ) -> Option<Answer<CancelTaskPayload>> {
        payload(ctx, async {
            let task = parse_id(&input.task_id, "taskId")?;
            Ok(once(ctx, &input, async |work| verbs::cancel(work, task).await).await?.value.into())
        })
        .await
    }

    /// Accepts the result of a task of yours that waits for your word: the agent is paid in full.
    #[graphql(complexity = "10 + child_complexity", directive = requires::apply(scopes("acceptResult"), role("acceptResult")))]
    async fn accept_result(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The task.")] input: AcceptResultInput,
    ) -> Option<Answer<AcceptResultPayload>> {
        payload(ctx, async {
            let task = parse_id(&input.task_id, "taskId")?;
            Ok(once(ctx, &input, async |work| disputes::accept(work, task).await).await?.value.into())
        })
        .await
    }

    /// Rejects the result of a task of yours that waits for your word. That opens a dispute: the price stays in escrow until an
    /// arbiter rules how it is shared out, or the time for it is over.
    #[graphql(complexity = "10 + child_complexity", directive = requires::apply(scopes("rejectResult"), role("rejectResult")))]
    async fn reject_result(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The task and the reason.")] input: RejectResultInput,
    ) -> Option<Answer<RejectResultPayload>> {
        payload(ctx, async {
            let task = parse_id(&input.task_id, "taskId")?;
            Ok(once(ctx, &input, async |work| disputes::reject(work, task, &input.reason).await).await?.value.into())
        })
        .await
    }
}
