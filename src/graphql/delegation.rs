//! Delegations: one goal, split over several agents.

use std::sync::Arc;

use async_graphql::{Context, Enum, ID, InputObject, Object};
use entity::{delegation, id::DelegationId, task, text::JsonText};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use tokio::sync::OnceCell;

use super::{
    context::{Ask, intent, maybe, once, parse_id, payload, requires, role, scopes},
    error::{Answer, payload},
    event::EventConnection,
    page::{PageArgs, Sort, connection, list_cost},
    scalar::{Credits, DateTime, Duration, EventCursor, Json},
    task::{Task, TaskPriority},
};
use crate::{
    caller::Scope,
    delegation::{
        self as verbs, NewDelegation,
        tree::{self, Branch, Cost, Tree},
    },
    error::Result,
    plan::{Plan, PlanStep, Span},
    store::Topic,
};

/// The order of delegations, newest first.
const NEWEST: Sort<delegation::Entity> =
    Sort { name: "g", key: None, id: delegation::Column::Id, descending: true, place: |row| (0, row.id.0) };

/// The states of a delegation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::delegation::Status")]
pub(super) enum DelegationStatus {
    /// An agent makes the plan.
    Planning,
    /// Steps are done as their inputs are ready.
    Running,
    /// Nothing new begins; what is in work ends first and is paid as usual.
    Stopping,
    /// Every step is done or skipped; what was not spent came back.
    Completed,
    /// A step, the planning or the time failed; what was not spent came back.
    Failed,
    /// You called it off; what was not spent came back.
    Cancelled,
}

/// Who made the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::delegation::Source")]
pub(super) enum DelegationSource {
    /// You did.
    Client,
    /// One step for each capability, in order.
    Capabilities,
    /// An agent that won the planning in an auction.
    Agent,
}

/// What a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::delegation_step::Kind")]
pub(super) enum DelegationStepKind {
    /// Making the plan of the others.
    Plan,
    /// Work that one agent does, or several the same.
    Work,
    /// A delegation of its own.
    Group,
}

/// The states of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::delegation_step::Status")]
pub(super) enum DelegationStepStatus {
    /// Waits for the steps that it depends on.
    Pending,
    /// Its tasks, or its steps, are in work.
    Running,
    /// Has its output.
    Completed,
    /// Failed, and the delegation with it.
    Failed,
    /// Failed, and the delegation goes on without it.
    Skipped,
    /// Was not begun, or not ended, when the delegation stopped.
    Cancelled,
}

/// What follows when a step fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::delegation_step::OnFailure")]
pub(super) enum StepOnFailure {
    /// The delegation fails.
    Fail,
    /// The step is tried again, `retries` times, by another agent if there is one; then the delegation fails.
    Retry,
    /// The delegation goes on without it.
    Skip,
}

/// What a part of a delegation's cost is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
pub(super) enum CostKind {
    /// A delegation.
    Delegation,
    /// A step.
    Step,
    /// A task.
    Task,
}

#[derive(Clone)]
pub(super) struct Delegation {
    row: delegation::Model,
    tree: Arc<OnceCell<Arc<Tree>>>,
}

impl From<delegation::Model> for Delegation {
    fn from(row: delegation::Model) -> Self {
        Self { row, tree: Arc::default() }
    }
}

impl From<Arc<Tree>> for Delegation {
    fn from(tree: Arc<Tree>) -> Self {
        Self { row: tree.row.clone(), tree: Arc::new(OnceCell::new_with(Some(tree))) }
    }
}

impl Delegation {
    async fn tree(&self, ctx: &Context<'_>) -> Result<&Arc<Tree>> {
        let load = || async { tree::tree(ctx.loaders().db(), self.row.clone()).await.map(Arc::new) };
        self.tree.get_or_try_init(load).await
    }
}

/// One goal, split over several agents: a budget that is held once, and steps that are paid out of it. Each step is a task with an
/// auction of its own, or a delegation of its own. Its requester and administrators see it.
#[Object]
impl Delegation {
    /// The id, `dlg_…`.
    pub(super) async fn id(&self) -> ID {
        self.row.id.into()
    }

    /// What is to be reached.
    async fn goal(&self) -> &str {
        &self.row.goal
    }

    /// What it takes, as its requester said.
    async fn capabilities(&self) -> &[String] {
        &self.row.capabilities.0
    }

    /// What steps may refer to as `input`.
    async fn input(&self, ctx: &Context<'_>) -> Option<Answer<Json>> {
        maybe(ctx, async { json(Some(&self.row.input)) }).await
    }

    /// How much of a hurry there is with its tasks.
    async fn priority(&self) -> TaskPriority {
        self.row.priority.into()
    }

    /// The most that all of it costs.
    async fn budget(&self) -> Credits {
        Credits(self.row.budget)
    }

    /// What of the budget is for making the plan; null where no agent makes it.
    async fn planning_budget(&self) -> Option<Credits> {
        (self.row.source == delegation::Source::Agent).then_some(Credits(self.row.planning_budget))
    }

    /// What agents were paid so far, the platform's share included.
    #[graphql(complexity = 10)]
    async fn spent(&self, ctx: &Context<'_>) -> Option<Answer<Credits>> {
        maybe(ctx, async { Ok(Some(Credits(self.tree(ctx).await?.cost().paid))) }).await
    }

    /// What came back; null before the end.
    async fn returned(&self) -> Option<Credits> {
        self.row.spent.and_then(|spent| self.row.budget.checked_sub(spent)).map(Credits)
    }

    /// Its state.
    async fn status(&self) -> DelegationStatus {
        self.row.status.into()
    }

    /// How much of the work is behind it, in whole percent: pieces of work, those of groups included, that have ended in any way.
    #[graphql(complexity = 10)]
    async fn progress(&self, ctx: &Context<'_>) -> Option<Answer<i32>> {
        maybe(ctx, async { self.tree(ctx).await?.progress().map(Some) }).await
    }

    /// Who made the plan.
    async fn source(&self) -> DelegationSource {
        self.row.source.into()
    }

    /// The plan, as `delegateTask` takes it; null while it is being made.
    async fn plan(&self, ctx: &Context<'_>) -> Option<Answer<Json>> {
        maybe(ctx, async { json(self.row.plan.as_ref()) }).await
    }

    /// Its steps, in the order of the plan; the making of the plan comes first.
    #[graphql(complexity = "10 + 5 * child_complexity")]
    async fn steps(&self, ctx: &Context<'_>) -> Option<Answer<Vec<DelegationStep>>> {
        maybe(ctx, async {
            let tree = self.tree(ctx).await?;
            Ok(Some(tree.steps.iter().cloned().map(DelegationStep).collect()))
        })
        .await
    }

    /// Where its credits are: of the whole, of each step, of each task.
    #[graphql(complexity = "10 + 5 * child_complexity")]
    async fn cost_tree(&self, ctx: &Context<'_>) -> Option<Answer<CostNode>> {
        maybe(ctx, async { Ok(Some(CostNode::of(self.tree(ctx).await?))) }).await
    }

    /// What came out of it: what the plan's `output` says, or the output of the step that no other one needs, or an object of those
    /// outputs by the names of the steps. Null before, and where it did not complete.
    async fn output(&self, ctx: &Context<'_>) -> Option<Answer<Json>> {
        maybe(ctx, async { json(self.row.output.as_ref()) }).await
    }

    /// When it stops at the latest.
    async fn deadline(&self) -> DateTime {
        DateTime(self.row.ends_by)
    }

    /// When it was delegated.
    async fn created_at(&self) -> DateTime {
        DateTime(self.row.created_at)
    }

    /// When its plan was there; null before.
    async fn planned_at(&self) -> Option<DateTime> {
        self.row.planned_at.map(DateTime)
    }

    /// When it was over; null before.
    async fn finished_at(&self) -> Option<DateTime> {
        self.row.finished_at.map(DateTime)
    }

    /// A stable code for why it stops or ended without its output; null when it did not.
    async fn failure_code(&self) -> Option<&str> {
        self.row.stop_code.as_deref()
    }

    /// A sentence for why it stops or ended without its output; null when it did not.
    async fn failure_message(&self) -> Option<&str> {
        self.row.stop_message.as_deref()
    }

    /// The delegation of which it is a step; null for what you delegated yourself.
    #[graphql(complexity = "1 + child_complexity")]
    async fn parent(&self, ctx: &Context<'_>) -> Option<Answer<Delegation>> {
        maybe(ctx, async {
            let Some(parent) = self.row.parent_id else { return Ok(None) };
            find(ctx, parent).await
        })
        .await
    }

    /// How many different agents won work of it so far.
    #[graphql(complexity = 10)]
    async fn agents_count(&self, ctx: &Context<'_>) -> Option<Answer<i32>> {
        maybe(ctx, async { Ok(i32::try_from(self.tree(ctx).await?.agents()).ok()) }).await
    }

    /// What happened to it, its steps and their tasks, oldest first; of groups in their own delegations.
    #[graphql(complexity = "list_cost(__ctx, __variables_definition, __field, child_complexity)")]
    async fn events(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many: 1 to 100, 20 when it is left out.")] first: Option<i32>,
        #[graphql(desc = "Only what comes after this cursor; from the beginning when it is left out.")] after: Option<
            EventCursor,
        >,
    ) -> Option<Answer<EventConnection>> {
        maybe(ctx, async {
            super::event::page(ctx, Some(Topic::Delegation(self.row.id)), None, first, after).await.map(Some)
        })
        .await
    }
}

#[derive(Clone)]
pub(super) struct DelegationStep(Arc<Branch>);

/// One step of a delegation. Who sees the delegation sees it.
#[Object]
impl DelegationStep {
    /// The id, `step_…`.
    async fn id(&self) -> ID {
        self.0.step.id.into()
    }

    /// What others refer to it by; unique in the delegation.
    async fn name(&self) -> &str {
        &self.0.step.name
    }

    /// What people call it.
    async fn title(&self) -> &str {
        &self.0.step.title
    }

    /// What it is.
    async fn kind(&self) -> DelegationStepKind {
        self.0.step.kind.into()
    }

    /// What an agent must be able to do; empty for a group.
    async fn capabilities(&self) -> &[String] {
        &self.0.step.capabilities.0
    }

    /// The names of the steps whose end it waits for.
    async fn depends_on(&self) -> &[String] {
        &self.0.step.depends_on.0
    }

    /// The template of its input; null where it follows from what it depends on.
    async fn input(&self, ctx: &Context<'_>) -> Option<Answer<Json>> {
        maybe(ctx, async { json(self.0.step.input.as_ref()) }).await
    }

    /// What all of one attempt may cost.
    async fn budget(&self) -> Credits {
        Credits(self.0.step.budget)
    }

    /// Its state.
    async fn status(&self) -> DelegationStepStatus {
        self.0.step.status.into()
    }

    /// How often it was begun.
    async fn attempts(&self) -> i32 {
        self.0.step.attempts
    }

    /// What follows when it fails.
    async fn on_failure(&self) -> StepOnFailure {
        self.0.step.on_failure.into()
    }

    /// How often it is tried again at most.
    async fn retries(&self) -> i32 {
        self.0.step.retries
    }

    /// How many agents do the same.
    async fn replicas(&self) -> i32 {
        self.0.step.replicas
    }

    /// How many of them, of different owners, must give the same output.
    async fn agree(&self) -> i32 {
        self.0.step.agree
    }

    /// What came out of it; null before, and where it did not complete.
    #[graphql(complexity = 2)]
    async fn output(&self, ctx: &Context<'_>) -> Option<Answer<Json>> {
        maybe(ctx, async {
            if let Some(task) = self.0.step.task_id {
                let result = ctx.loaders().results(task).await?;
                return json(result.and_then(|result| result.output).as_ref());
            }
            let child = self.0.children.last().filter(|child| Some(child.row.id) == self.0.step.child_id);
            json(child.and_then(|child| child.row.output.as_ref()))
        })
        .await
    }

    /// The task whose output is the step's; null before, and for a group.
    #[graphql(complexity = "1 + child_complexity")]
    async fn task(&self) -> Option<Task> {
        let bought = self.0.tasks.iter().find(|(task, _)| Some(task.id) == self.0.step.task_id);
        bought.map(|(task, _)| Task::from(task.clone()))
    }

    /// The tasks that it bought, in the order of the attempts and replicas.
    #[graphql(complexity = "1 + 3 * child_complexity")]
    async fn tasks(&self) -> Vec<Task> {
        self.0.tasks.iter().map(|(task, _)| Task::from(task.clone())).collect()
    }

    /// The delegation that a group is, in its newest attempt; null before it begins, and for work.
    #[graphql(complexity = "1 + child_complexity")]
    async fn delegation(&self) -> Option<Delegation> {
        self.0.children.last().cloned().map(Delegation::from)
    }

    /// Where its credits are, those of all its attempts.
    #[graphql(complexity = "1 + child_complexity")]
    async fn cost(&self) -> CostNode {
        CostNode::of_step(&self.0)
    }

    /// A stable code for why it failed; null when it did not.
    async fn failure_code(&self) -> Option<&str> {
        self.0.step.failure_code.as_deref()
    }

    /// A sentence for why it failed; null when it did not.
    async fn failure_message(&self) -> Option<&str> {
        self.0.step.failure_message.as_deref()
    }

    /// When it first began; null before.
    async fn started_at(&self) -> Option<DateTime> {
        self.0.step.started_at.map(DateTime)
    }

    /// When it was over; null before.
    async fn finished_at(&self) -> Option<DateTime> {
        self.0.step.finished_at.map(DateTime)
    }
}

/// A part of a delegation's cost.
#[derive(Clone)]
pub(super) struct CostNode {
    kind: CostKind,
    name: String,
    cost: Cost,
    task: Option<task::Model>,
    children: Vec<CostNode>,
}

impl CostNode {
    fn of(tree: &Tree) -> Self {
        Self {
            kind: CostKind::Delegation,
            name: tree.row.goal.clone(),
            cost: tree.cost(),
            task: None,
            children: tree.steps.iter().map(|branch| Self::of_step(branch)).collect(),
        }
    }

    fn of_step(branch: &Branch) -> Self {
        let tasks = branch.tasks.iter().map(|(task, fee)| Self {
            kind: CostKind::Task,
            name: task.title.clone(),
            cost: tree::of_task(task, *fee),
            task: Some(task.clone()),
            children: Vec::new(),
        });
        Self {
            kind: CostKind::Step,
            name: branch.step.name.clone(),
            cost: branch.cost(),
            task: None,
            children: tasks.chain(branch.children.iter().map(|child| Self::of(child))).collect(),
        }
    }
}

/// Where the credits of a part of a delegation are. `held`, `paid` and `returned` are together its budget. The tasks of a step that
/// was tried again have a budget each, out of the same credits.
#[Object]
impl CostNode {
    /// What it is the cost of.
    async fn kind(&self) -> CostKind {
        self.kind
    }

    /// The goal of a delegation, the name of a step, the title of a task.
    async fn name(&self) -> &str {
        &self.name
    }

    /// What it may cost.
    async fn budget(&self) -> Credits {
        Credits(self.cost.budget)
    }

    /// What is set aside for it now.
    async fn held(&self) -> Credits {
        Credits(self.cost.held)
    }

    /// What agents were paid, the platform's share included.
    async fn paid(&self) -> Credits {
        Credits(self.cost.paid)
    }

    /// The platform's share of what was paid.
    async fn fee(&self) -> Credits {
        Credits(self.cost.fee)
    }

    /// What it did not need.
    async fn returned(&self) -> Credits {
        Credits(self.cost.returned)
    }

    /// The task; null for what is not one.
    #[graphql(complexity = "1 + child_complexity")]
    async fn task(&self) -> Option<Task> {
        self.task.clone().map(Task::from)
    }

    /// What it is made of: the steps of a delegation, the tasks or delegations of a step.
    #[graphql(complexity = "1 + 3 * child_complexity")]
    async fn children(&self) -> &[CostNode] {
        &self.children
    }
}

/// The value of a stored JSON text.
fn json(text: Option<&JsonText>) -> Result<Option<Json>> {
    Ok(text.map(|text| serde_json::from_str(&text.0)).transpose()?.map(Json))
}

connection! {
    /// A page of delegations.
    DelegationConnection,
    /// A delegation in a list.
    DelegationEdge, Delegation, delegation::Model
}

/// Which delegations to list. All conditions must hold.
#[derive(Clone, Debug, Default, InputObject)]
pub(super) struct DelegationFilter {
    /// Is in one of these states.
    status: Option<Vec<DelegationStatus>>,
    /// Is, or is not, a group of another delegation.
    group: Option<bool>,
}

/// How a goal is reached: steps that wait for each other as their inputs say. An object `{"$ref": "NAME#/json/pointer"}` in a template
/// stands for a part of the output of the step NAME, or of `input` or `goal`.
#[derive(InputObject)]
pub(super) struct DelegationPlanInput {
    /// The steps, 1 to 64 together with those of all groups.
    steps: Vec<DelegationStepInput>,
    /// The template of the output; the outputs of the steps that no other one needs when it is left out.
    output: Option<Json>,
}

/// One step of a plan: work, with capabilities, or a group, with a plan of its own.
#[derive(InputObject)]
pub(super) struct DelegationStepInput {
    /// What others refer to it by: 1 to 40 of a to z, 0 to 9, `_` and `-`, the first a letter; not `input`, `goal` or `plan`.
    name: String,
    /// What people call it; its name when it is left out.
    title: Option<String>,
    /// What an agent must be able to do; empty for a group.
    #[graphql(default)]
    capabilities: Vec<String>,
    /// The names of steps whose end it waits for, beside those that its input refers to.
    #[graphql(default)]
    depends_on: Vec<String>,
    /// The template of its input. When it is left out: the delegation's input where it waits for nothing, the output of the one step
    /// that it waits for, or an object of their outputs by their names.
    input: Option<Json>,
    /// A JSON Schema that the output must satisfy.
    output_schema: Option<Json>,
    /// Its part of the budget in basis points: for all steps, together 10,000, or for none.
    share: Option<i32>,
    /// What follows when it fails.
    #[graphql(default_with = "StepOnFailure::Fail")]
    on_failure: StepOnFailure,
    /// How often it is tried again: 1 to 10, 1 when it is left out; only with `RETRY`.
    retries: Option<i32>,
    /// How many agents do the same, 1 to 9; each may cost an equal part of the step's budget.
    #[graphql(default = 1)]
    replicas: i32,
    /// How many of them, of different owners, must give the same output: more than half, and just so many when it is left out.
    agree: Option<i32>,
    /// The hosted agent whose module says whether an output is good, as the module is now.
    checker_id: Option<ID>,
    /// How long its auctions take bids; as the delegation says when it is left out.
    closes_in: Option<Duration>,
    /// The wall-clock limit of one attempt at a task; the service's default when it is left out.
    timeout: Option<Duration>,
    /// The plan of a group.
    plan: Option<Box<DelegationPlanInput>>,
}

impl DelegationPlanInput {
    fn to_plan(&self) -> Plan {
        Plan {
            steps: self.steps.iter().map(DelegationStepInput::to_step).collect(),
            output: self.output.as_ref().map(|output| output.0.clone()),
        }
    }
}

impl DelegationStepInput {
    fn to_step(&self) -> PlanStep {
        PlanStep {
            name: self.name.clone(),
            title: self.title.clone(),
            capabilities: self.capabilities.clone(),
            depends_on: self.depends_on.clone(),
            input: self.input.as_ref().map(|input| input.0.clone()),
            output_schema: self.output_schema.as_ref().map(|schema| schema.0.clone()),
            share: self.share,
            on_failure: Some(self.on_failure.into()),
            retries: self.retries,
            replicas: Some(self.replicas),
            agree: self.agree,
            checker_id: self.checker_id.as_ref().map(|id| id.to_string()),
            closes_in: self.closes_in.map(|closes_in| Span(closes_in.0)),
            timeout: self.timeout.map(|timeout| Span(timeout.0)),
            plan: self.plan.as_ref().map(|plan| Box::new(plan.to_plan())),
        }
    }
}

/// Input of `delegateTask`. The plan is the one that you give; without one it is made by an agent with the capability `plan` if there
/// is a `planningBudget`, and has one step for each of the `capabilities`, in order, if there is not.
#[derive(InputObject)]
pub(super) struct DelegateTaskInput {
    /// What is to be reached; 1 to 10,000 characters.
    goal: String,
    /// What it takes; at most 64.
    #[graphql(default)]
    capabilities: Vec<String>,
    /// The most that all of it costs. It is held until the end.
    budget: Credits,
    /// How much of a hurry there is with its tasks.
    #[graphql(default_with = "TaskPriority::Normal")]
    priority: TaskPriority,
    /// What steps may refer to as `input`; null when it is left out.
    input: Option<Json>,
    /// How it is reached.
    plan: Option<DelegationPlanInput>,
    /// What of the budget an agent may get for making the plan; only without a plan.
    planning_budget: Option<Credits>,
    /// How long the auctions of its steps take bids; they are decided at once among the hosted agents when it is left out.
    closes_in: Option<Duration>,
    /// How long it may take: one second to seven days, an hour when it is left out.
    deadline: Option<Duration>,
    /// Names this intent: the same value when you retry the same intent, another one for another. 1 to 128 visible ASCII characters.
    idempotency_key: String,
}

/// Input of `cancelDelegation`.
#[derive(InputObject)]
pub(super) struct CancelDelegationInput {
    /// The delegation.
    delegation_id: ID,
    /// Names this intent: the same value when you retry the same intent, another one for another. 1 to 128 visible ASCII characters.
    idempotency_key: String,
}

intent! {
    DelegateTaskInput = "delegateTask", moves_credits: true;
    CancelDelegationInput = "cancelDelegation", moves_credits: false;
}

payload! {
    /// Answer of `delegateTask`.
    DelegateTaskPayload {
        /// The delegation; null when it was refused.
        delegation: Delegation
    } DelegationUserError
}

payload! {
    /// Answer of `cancelDelegation`.
    CancelDelegationPayload {
        /// The delegation as it is now; null when it was refused.
        delegation: Delegation
    } DelegationUserError
}

/// The delegation with this id, if the caller may see it.
pub(super) async fn find(ctx: &Context<'_>, id: DelegationId) -> Result<Option<Delegation>> {
    Ok(visible(ctx, id).await?.map(Delegation::from))
}

/// The row of a delegation, if the caller may see it.
pub(super) async fn visible(ctx: &Context<'_>, id: DelegationId) -> Result<Option<delegation::Model>> {
    if ctx.viewer().is_none() {
        return Ok(None);
    }
    let row = ctx.loaders().delegations(id).await?;
    Ok(row.filter(|row| verbs::may_see(row, ctx.caller())))
}

#[derive(Default)]
pub(super) struct DelegationQuery;

#[Object]
impl DelegationQuery {
    /// A delegation by id; null when there is none, or it is not yours.
    #[graphql(complexity = "1 + child_complexity", directive = requires::apply(scopes("delegation"), role("delegation")))]
    async fn delegation(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The id, `dlg_…`.")] id: ID,
    ) -> Option<Answer<Delegation>> {
        maybe(ctx, async { find(ctx, parse_id(&id, "id")?).await }).await
    }

    /// Your delegations, newest first; all of them for administrators.
    #[graphql(complexity = "list_cost(__ctx, __variables_definition, __field, child_complexity)", directive = requires::apply(scopes("delegations"), role("delegations")))]
    async fn delegations(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which delegations.")] filter: Option<DelegationFilter>,
        #[graphql(desc = "How many from the start: 1 to 100, 20 when neither `first` nor `last` is given.")]
        first: Option<i32>,
        #[graphql(desc = "Only what comes after this cursor.")] after: Option<String>,
        #[graphql(desc = "How many from the end: 1 to 100; not together with `first`.")] last: Option<i32>,
        #[graphql(desc = "Only what comes before this cursor.")] before: Option<String>,
    ) -> Option<Answer<DelegationConnection>> {
        maybe(ctx, async {
            let viewer = ctx.caller().with_scope(Scope::Read)?;
            let filter = filter.unwrap_or_default();
            let mut list = delegation::Entity::find();
            if !ctx.caller().is_admin() {
                list = list.filter(delegation::Column::RequesterId.eq(viewer));
            }
            if let Some(states) = filter.status {
                let states = states.into_iter().map(delegation::Status::from);
                list = list.filter(delegation::Column::Status.is_in(states));
            }
            list = match filter.group {
                Some(true) => list.filter(delegation::Column::ParentId.is_not_null()),
                Some(false) => list.filter(delegation::Column::ParentId.is_null()),
                None => list,
            };
            let window = PageArgs { first, after, last, before }.window(&NEWEST)?;
            Ok(Some(window.read(ctx.loaders().db(), list, &NEWEST).await?.into()))
        })
        .await
    }
}

#[derive(Default)]
pub(super) struct DelegationMutation;

#[Object]
impl DelegationMutation {
    /// Splits a goal over several agents. The plan is checked and the budget held at once; every step is then bought by an auction of
    /// its own as soon as its input is ready, and what is not spent comes back.
    #[graphql(complexity = "20 + child_complexity", directive = requires::apply(scopes("delegateTask"), role("delegateTask")))]
    async fn delegate_task(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The goal, and how it is reached.")] input: DelegateTaskInput,
    ) -> Option<Answer<DelegateTaskPayload>> {
        payload(ctx, async {
            let new = NewDelegation {
                goal: input.goal.clone(),
                capabilities: input.capabilities.clone(),
                budget: input.budget.0,
                priority: input.priority.into(),
                input: input.input.as_ref().map_or(serde_json::Value::Null, |input| input.0.clone()),
                plan: input.plan.as_ref().map(DelegationPlanInput::to_plan),
                planning_budget: input.planning_budget.map(|budget| budget.0),
                closes_in: input.closes_in.map(|closes_in| closes_in.0),
                deadline: input.deadline.map(|deadline| deadline.0),
            };
            Ok(once(ctx, &input, async |work| verbs::delegate(work, new).await).await?.value.into())
        })
        .await
    }

    /// Calls a delegation of yours off: nothing new begins, what agents are at ends first and is paid as usual, the rest comes back.
    #[graphql(complexity = "10 + child_complexity", directive = requires::apply(scopes("cancelDelegation"), role("cancelDelegation")))]
    async fn cancel_delegation(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The delegation to call off.")] input: CancelDelegationInput,
    ) -> Option<Answer<CancelDelegationPayload>> {
        payload(ctx, async {
            let id = parse_id(&input.delegation_id, "delegationId")?;
            Ok(once(ctx, &input, async |work| verbs::cancel(work, id).await).await?.value.into())
        })
        .await
    }
}
