//! Agents and their modules.

use std::sync::Arc;

use async_graphql::{Context, Enum, ID, InputObject, MaybeUndefined, Object};
use entity::{
    agent, agent_capability, agent_module,
    id::{AgentId, Id, ModuleId, UserId},
};
use sea_orm::{
    ColumnTrait, Condition, EntityTrait, QueryFilter, QuerySelect, QueryTrait,
    sea_query::{Expr, ExprTrait},
};

use super::{
    context::{Ask, intent, maybe, once, parse_id, payload, requires, role, scopes, write},
    error::{Answer, payload},
    page::{PageArgs, Sort, connection, list_cost},
    reputation::{Reputation, ReputationEventConnection},
    scalar::{BigInt, Credits, DateTime, Duration, Points, SignedCredits},
    user::User,
    wallet::Account,
    webhook::Webhook,
};
use crate::{
    agent::{self as verbs, AgentChange, NewAgent, rules::is_online},
    error::Result,
    ledger::Place,
};

/// The order of creation, newest first.
pub(super) const NEWEST: Sort<agent::Entity> =
    Sort { name: "a", key: None, id: agent::Column::Id, descending: true, place: |row| (0, row.id.0) };

/// Where an agent's work runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::agent::Runtime")]
pub(super) enum AgentRuntime {
    /// A module in our sandbox.
    Hosted,
    /// A program of the owner's.
    External,
}

/// Whether an agent takes new work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::agent::Status")]
pub(super) enum AgentStatus {
    /// Bids and is awarded work.
    Active,
    /// Takes no new work; what it has goes on.
    Paused,
    /// Gone for good.
    Retired,
}

/// How the sandbox talks to a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::agent_module::Interface")]
pub(super) enum ModuleInterface {
    /// A WASI preview 1 command: JSON on standard input, JSON on standard output.
    WasiCommand,
    /// Four exported functions that pass JSON through the module's memory.
    JsonAbi,
    /// A WASI 0.2 command, which is a component: JSON on standard input, JSON on standard output.
    WasiComponent,
}

/// Which way a list runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
pub(super) enum OrderDirection {
    /// Smallest, oldest first.
    Asc,
    /// Largest, newest first.
    Desc,
}

/// What agents can be ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
pub(super) enum AgentOrderField {
    /// When the agent registered.
    CreatedAt,
    /// The reputation as of the last evidence.
    Score,
    /// The posted price.
    Price,
}

/// The order of agents.
#[derive(Clone, Copy, Debug, InputObject)]
pub(super) struct AgentOrder {
    /// What to order by.
    field: AgentOrderField,
    /// Which way.
    direction: OrderDirection,
}

/// Which agents to list. All conditions must hold.
#[derive(Clone, Debug, Default, InputObject)]
pub(super) struct AgentFilter {
    /// Has all of these capabilities; at most 20.
    capabilities: Option<Vec<String>>,
    /// Has at least this reputation as of its last evidence.
    min_reputation: Option<Points>,
    /// Asks for at most this price.
    max_price: Option<Credits>,
    /// Is in this state.
    status: Option<AgentStatus>,
    /// Runs here.
    runtime: Option<AgentRuntime>,
    /// Belongs to this user.
    owner_id: Option<ID>,
    /// Can start work now, or cannot: see `Agent.online`.
    online: Option<bool>,
}

#[derive(Clone)]
pub(super) struct Agent(pub(super) Arc<agent::Model>);

impl From<agent::Model> for Agent {
    fn from(row: agent::Model) -> Self {
        Self(Arc::new(row))
    }
}

/// A seller of work: either a WebAssembly module that we host, or a program elsewhere that pulls its work.
#[Object]
impl Agent {
    /// The id, `agent_…`.
    pub(super) async fn id(&self) -> ID {
        self.0.id.into()
    }

    /// The name, unique among the owner's agents.
    async fn name(&self) -> &str {
        &self.0.name
    }

    /// What the agent does, in the owner's words.
    async fn description(&self) -> &str {
        &self.0.description
    }

    /// What the agent can do; sorted.
    async fn capabilities(&self) -> &[String] {
        &self.0.capabilities.0
    }

    /// Where its work runs.
    async fn runtime(&self) -> AgentRuntime {
        self.0.runtime.into()
    }

    /// Whether it takes new work.
    async fn status(&self) -> AgentStatus {
        self.0.status.into()
    }

    /// What it asks for a task when it bids by itself.
    async fn price(&self) -> Credits {
        Credits(self.0.price)
    }

    /// What it charges for a million units of fuel that its work takes; its price is then the most that a task can cost. Null when
    /// a task costs the price.
    async fn price_per_million_fuel(&self) -> Option<Credits> {
        self.0.fuel_price.map(Credits)
    }

    /// The least that it works for; for its owner alone and administrators.
    async fn min_price(&self, ctx: &Context<'_>) -> Option<Credits> {
        ctx.may_see(self.0.owner_id).then_some(Credits(self.0.min_price))
    }

    /// How long it promises to need for a task at most; null when it promises nothing.
    async fn promised_duration(&self) -> Option<Duration> {
        self.0.promised_ms.map(Duration::from_millis)
    }

    /// The reputation from 0 to 100 as of its last evidence, the one that lists are ordered by. `reputation` has the present one.
    async fn score(&self) -> Points {
        Points(self.0.score)
    }

    /// How many tasks it does at once; null for as many as come.
    async fn capacity(&self) -> Option<i32> {
        self.0.capacity
    }

    /// How many tasks it was awarded and has not ended.
    async fn in_work(&self) -> i32 {
        self.0.in_work
    }

    /// Whether it can start work now: active, and hosted with a module or, elsewhere, heard of lately: within two minutes unless the
    /// service is configured otherwise.
    async fn online(&self, ctx: &Context<'_>) -> bool {
        is_online(&self.0, ctx.now().before(ctx.store().terms().presence))
    }

    /// When an agent that runs elsewhere was last heard of: by a bid, a question for work, or its work. It may be some seconds behind;
    /// null for never, and for hosted agents.
    async fn last_seen_at(&self) -> Option<DateTime> {
        self.0.last_seen_at.map(DateTime)
    }

    /// The Ed25519 public key in lower-case hex with which it signs cooperative closes of channels; null when it has none.
    async fn public_key(&self) -> Option<&str> {
        self.0.public_key.as_deref()
    }

    /// Counts the changes, for `expectedVersion`.
    async fn version(&self) -> i32 {
        self.0.version
    }

    /// When it registered.
    async fn created_at(&self) -> DateTime {
        DateTime(self.0.created_at)
    }

    /// When it last changed.
    async fn updated_at(&self) -> DateTime {
        DateTime(self.0.updated_at)
    }

    /// Who owns it.
    #[graphql(complexity = "1 + child_complexity")]
    async fn owner(&self, ctx: &Context<'_>) -> Option<Answer<User>> {
        maybe(ctx, async { Ok(ctx.loaders().users(self.0.owner_id).await?.map(User::from)) }).await
    }

    /// The module in use; null for external agents and before the first upload.
    #[graphql(complexity = "1 + child_complexity")]
    async fn module(&self, ctx: &Context<'_>) -> Option<Answer<AgentModule>> {
        maybe(ctx, async {
            let Some(module) = self.0.module_id else { return Ok(None) };
            Ok(ctx.loaders().modules(module).await?.map(AgentModule::from))
        })
        .await
    }

    /// Where it is told of work; for its owner alone and administrators, and null while it has no address.
    #[graphql(complexity = "1 + child_complexity")]
    async fn webhook(&self, ctx: &Context<'_>) -> Option<Webhook> {
        Webhook::of(ctx, &self.0)
    }

    /// What it earned and was not withdrawn; for its owner alone and administrators.
    #[graphql(complexity = 2)]
    async fn earnings(&self, ctx: &Context<'_>) -> Option<Answer<SignedCredits>> {
        maybe(ctx, async {
            if !ctx.may_see(self.0.owner_id) {
                return Ok(None);
            }
            let account = ctx.loaders().accounts(Place::agent(self.0.id).id()).await?;
            Ok(Some(SignedCredits(account.map_or(0, |account| account.balance))))
        })
        .await
    }

    /// The account that holds its earnings, with its statement; null before it earned anything.
    #[graphql(complexity = "1 + child_complexity")]
    async fn account(&self, ctx: &Context<'_>) -> Option<Answer<Account>> {
        maybe(ctx, super::wallet::find_account(ctx, Place::agent(self.0.id).id())).await
    }

    /// Its reputation now, with what it is made of.
    #[graphql(complexity = "3 + child_complexity")]
    async fn reputation(&self, ctx: &Context<'_>) -> Option<Answer<Reputation>> {
        maybe(ctx, super::reputation::find(ctx, self.0.id)).await
    }

    /// The evidence behind its reputation, newest first.
    #[graphql(complexity = "list_cost(__ctx, __variables_definition, __field, child_complexity)")]
    async fn reputation_events(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many from the start: 1 to 100, 20 when neither `first` nor `last` is given.")]
        first: Option<i32>,
        #[graphql(desc = "Only what comes after this cursor.")] after: Option<String>,
        #[graphql(desc = "How many from the end: 1 to 100; not together with `first`.")] last: Option<i32>,
        #[graphql(desc = "Only what comes before this cursor.")] before: Option<String>,
    ) -> Option<Answer<ReputationEventConnection>> {
        maybe(ctx, async {
            let window = PageArgs { first, after, last, before }.window(&super::reputation::NEWEST)?;
            Ok(Some(ctx.loaders().evidence_of_agents(self.0.id, window).await?.into()))
        })
        .await
    }
}

#[derive(Clone)]
pub(super) struct AgentModule(agent_module::Model);

impl From<agent_module::Model> for AgentModule {
    fn from(row: agent_module::Model) -> Self {
        Self(row)
    }
}

/// One version of a hosted agent's WebAssembly module.
#[Object]
impl AgentModule {
    /// The id, `mod_…`.
    pub(super) async fn id(&self) -> ID {
        self.0.id.into()
    }

    /// The SHA-256 of the bytes in lower-case hex.
    async fn sha256(&self) -> &str {
        &self.0.sha256
    }

    /// How many bytes it has.
    async fn size_bytes(&self) -> BigInt {
        BigInt(self.0.size_bytes)
    }

    /// How the sandbox talks to it.
    async fn interface(&self) -> ModuleInterface {
        self.0.interface.into()
    }

    /// The agent that it belongs to.
    #[graphql(complexity = "1 + child_complexity")]
    async fn agent(&self, ctx: &Context<'_>) -> Option<Answer<Agent>> {
        maybe(ctx, find(ctx, self.0.agent_id)).await
    }

    /// When it was uploaded.
    async fn created_at(&self) -> DateTime {
        DateTime(self.0.created_at)
    }
}

connection! {
    /// A page of agents.
    AgentConnection,
    /// An agent in a list.
    AgentEdge, Agent, agent::Model
}

/// Input of `registerAgent`.
#[derive(InputObject)]
pub(super) struct RegisterAgentInput {
    /// The name, unique among your agents.
    name: String,
    /// What the agent does, for people.
    #[graphql(default)]
    description: String,
    /// What the agent can do: 1 to 20 words of a to z, 0 to 9, `.`, `_` and `-`.
    capabilities: Vec<String>,
    /// Where its work runs. A hosted agent needs a module, uploaded by `PUT /agents/{id}/module`, before it can bid.
    runtime: AgentRuntime,
    /// What it asks for a task when it bids by itself.
    price: Credits,
    /// The least that it works for; its price when it is left out.
    min_price: Option<Credits>,
    /// How long it promises to need for a task at most.
    promised_duration: Option<Duration>,
    /// The Ed25519 public key in lower-case hex with which it signs cooperative closes of channels.
    public_key: Option<String>,
    /// How many tasks it does at once, 1 to 10,000. When it is left out, 10 for an agent that runs elsewhere and as many as come for a
    /// hosted one.
    capacity: Option<i32>,
    /// What a hosted agent charges for a million units of fuel that its work takes. The price is then the most that a task can
    /// cost. A task costs the price when it is left out.
    price_per_million_fuel: Option<Credits>,
    /// Names this intent: the same value when you retry the same intent, another one for another. 1 to 128 visible ASCII characters.
    idempotency_key: String,
}

/// Input of `updateAgent`. What is left out stays as it is.
#[derive(InputObject)]
pub(super) struct UpdateAgentInput {
    /// The agent.
    agent_id: ID,
    /// The name, unique among your agents.
    name: Option<String>,
    /// What the agent does, for people.
    description: Option<String>,
    /// What the agent can do: 1 to 20 words of a to z, 0 to 9, `.`, `_` and `-`.
    capabilities: Option<Vec<String>>,
    /// What it asks for a task when it bids by itself.
    price: Option<Credits>,
    /// The least that it works for.
    min_price: Option<Credits>,
    /// How long it promises to need for a task at most.
    promised_duration: Option<Duration>,
    /// The Ed25519 public key in lower-case hex with which it signs cooperative closes of channels. What an older key signed counts
    /// no more.
    public_key: Option<String>,
    /// How many tasks it does at once, 1 to 10,000. What it has in work goes on when it is more.
    capacity: Option<i32>,
    /// What a hosted agent charges for a million units of fuel that its work takes; null makes every task cost the price again.
    price_per_million_fuel: MaybeUndefined<Credits>,
    /// The `version` that you read; the change is refused when another one came first.
    expected_version: Option<i32>,
}

/// Input of `pauseAgent`.
#[derive(InputObject)]
pub(super) struct PauseAgentInput {
    /// The agent.
    agent_id: ID,
}

/// Input of `resumeAgent`.
#[derive(InputObject)]
pub(super) struct ResumeAgentInput {
    /// The agent.
    agent_id: ID,
}

/// Input of `retireAgent`.
#[derive(InputObject)]
pub(super) struct RetireAgentInput {
    /// The agent.
    agent_id: ID,
}

intent! {
    RegisterAgentInput = "registerAgent", moves_credits: false;
}

payload! {
    /// Answer of `registerAgent`.
    RegisterAgentPayload {
        /// The agent; null when it was refused.
        agent: Agent
    } AgentUserError
}

payload! {
    /// Answer of `updateAgent`.
    UpdateAgentPayload {
        /// The agent as it is now; null when it was refused.
        agent: Agent
    } AgentUserError
}

payload! {
    /// Answer of `pauseAgent`.
    PauseAgentPayload {
        /// The agent as it is now; null when it was refused.
        agent: Agent
    } AgentUserError
}

payload! {
    /// Answer of `resumeAgent`.
    ResumeAgentPayload {
        /// The agent as it is now; null when it was refused.
        agent: Agent
    } AgentUserError
}

payload! {
    /// Answer of `retireAgent`.
    RetireAgentPayload {
        /// The agent as it is now; null when it was refused.
        agent: Agent
    } AgentUserError
}

/// The agent with this id.
pub(super) async fn find(ctx: &Context<'_>, id: AgentId) -> Result<Option<Agent>> {
    Ok(ctx.loaders().agents(id).await?.map(Agent::from))
}

/// The module with this id.
pub(super) async fn find_module(ctx: &Context<'_>, id: ModuleId) -> Result<Option<AgentModule>> {
    Ok(ctx.loaders().modules(id).await?.map(AgentModule))
}

impl AgentOrder {
    fn sort(self) -> Sort<agent::Entity> {
        let descending = self.direction == OrderDirection::Desc;
        match self.field {
            AgentOrderField::CreatedAt => Sort { descending, ..NEWEST },
            AgentOrderField::Score => Sort {
                name: "score",
                key: Some(agent::Column::Score),
                id: agent::Column::Id,
                descending,
                place: |row| (row.score.into(), row.id.uuid()),
            },
            AgentOrderField::Price => Sort {
                name: "price",
                key: Some(agent::Column::Price),
                id: agent::Column::Id,
                descending,
                place: |row| (row.price.micros(), row.id.uuid()),
            },
        }
    }
}

impl AgentFilter {
    fn condition(self, ctx: &Context<'_>) -> Result<Condition> {
        let mut all = Condition::all();
        if let Some(capabilities) = self.capabilities {
            for capability in verbs::normalise_capabilities(capabilities, false)?.0 {
                let able = agent_capability::Entity::find()
                    .select_only()
                    .column(agent_capability::Column::AgentId)
                    .filter(agent_capability::Column::Capability.eq(capability))
                    .into_query();
                all = all.add(agent::Column::Id.in_subquery(able));
            }
        }
        if let Some(owner) = &self.owner_id {
            all = all.add(agent::Column::OwnerId.eq(parse_id::<UserId>(owner, "filter.ownerId")?));
        }
        if let Some(online) = self.online {
            let hosted = agent::Column::Runtime.eq(agent::Runtime::Hosted).and(agent::Column::ModuleId.is_not_null());
            let seen = agent::Column::LastSeenAt.gte(ctx.now().before(ctx.store().terms().presence));
            let external = agent::Column::Runtime
                .eq(agent::Runtime::External)
                .and(agent::Column::LastSeenAt.is_not_null())
                .and(seen);
            let there: Expr = agent::Column::Status.eq(agent::Status::Active).and(hosted.or(external));
            all = all.add(if online { there } else { there.not() });
        }
        Ok(all
            .add_option(self.min_reputation.map(|least| agent::Column::Score.gte(least.0)))
            .add_option(self.max_price.map(|most| agent::Column::Price.lte(most.0)))
            .add_option(self.status.map(|status| agent::Column::Status.eq(agent::Status::from(status))))
            .add_option(self.runtime.map(|runtime| agent::Column::Runtime.eq(agent::Runtime::from(runtime)))))
    }
}

#[derive(Default)]
pub(super) struct AgentQuery;

#[Object]
impl AgentQuery {
    /// An agent by id; null when there is none.
    #[graphql(complexity = "1 + child_complexity")]
    async fn agent(
        &self, ctx: &Context<'_>, #[graphql(desc = "The id, `agent_…`.")] id: ID
    ) -> Option<Answer<Agent>> {
        maybe(ctx, async { find(ctx, parse_id(&id, "id")?).await }).await
    }

    /// Agents, newest first unless `orderBy` says otherwise.
    #[graphql(complexity = "list_cost(__ctx, __variables_definition, __field, child_complexity)")]
    #[expect(clippy::too_many_arguments, reason = "the four arguments of a list, its filter and its order")]
    async fn agents(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which agents.")] filter: Option<AgentFilter>,
        #[graphql(desc = "In which order.")] order_by: Option<AgentOrder>,
        #[graphql(desc = "How many from the start: 1 to 100, 20 when neither `first` nor `last` is given.")]
        first: Option<i32>,
        #[graphql(desc = "Only what comes after this cursor.")] after: Option<String>,
        #[graphql(desc = "How many from the end: 1 to 100; not together with `first`.")] last: Option<i32>,
        #[graphql(desc = "Only what comes before this cursor.")] before: Option<String>,
    ) -> Option<Answer<AgentConnection>> {
        maybe(ctx, async {
            let sort = order_by.map_or(NEWEST, AgentOrder::sort);
            let list = agent::Entity::find().filter(filter.unwrap_or_default().condition(ctx)?);
            let window = PageArgs { first, after, last, before }.window(&sort)?;
            Ok(Some(window.read(ctx.loaders().db(), list, &sort).await?.into()))
        })
        .await
    }
}

#[derive(Default)]
pub(super) struct AgentMutation;

#[Object]
impl AgentMutation {
    /// Registers an agent of yours.
    #[graphql(complexity = "10 + child_complexity", directive = requires::apply(scopes("registerAgent"), role("registerAgent")))]
    async fn register_agent(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The agent to register.")] input: RegisterAgentInput,
    ) -> Option<Answer<RegisterAgentPayload>> {
        payload(ctx, async {
            let new = NewAgent {
                name: input.name.clone(),
                description: input.description.clone(),
                capabilities: input.capabilities.clone(),
                runtime: input.runtime.into(),
                price: input.price.0,
                min_price: input.min_price.map(|price| price.0),
                promised: input.promised_duration.map(|promised| promised.0),
                public_key: input.public_key.clone(),
                capacity: input.capacity,
                fuel_price: input.price_per_million_fuel.map(|price| price.0),
            };
            Ok(once(ctx, &input, async |work| verbs::register(work, new).await).await?.value.into())
        })
        .await
    }

    /// Changes an agent of yours. Bids and awards keep the terms that they were made under.
    #[graphql(complexity = "10 + child_complexity", directive = requires::apply(scopes("updateAgent"), role("updateAgent")))]
    async fn update_agent(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The agent and what changes.")] input: UpdateAgentInput,
    ) -> Option<Answer<UpdateAgentPayload>> {
        payload(ctx, async {
            let id = parse_id(&input.agent_id, "agentId")?;
            let change = AgentChange {
                name: input.name,
                description: input.description,
                capabilities: input.capabilities,
                price: input.price.map(|price| price.0),
                min_price: input.min_price.map(|price| price.0),
                promised: input.promised_duration.map(|promised| promised.0),
                public_key: input.public_key,
                capacity: input.capacity,
                fuel_price: input.price_per_million_fuel.map_value(|price| price.0).into(),
                expected_version: input.expected_version,
            };
            Ok(write(ctx, async |work| verbs::update(work, id, change).await).await?.into())
        })
        .await
    }

    /// Stops an agent of yours from taking new work; what it has goes on.
    #[graphql(complexity = "10 + child_complexity", directive = requires::apply(scopes("pauseAgent"), role("pauseAgent")))]
    async fn pause_agent(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The agent to pause.")] input: PauseAgentInput,
    ) -> Option<Answer<PauseAgentPayload>> {
        payload(ctx, async {
            let id = parse_id(&input.agent_id, "agentId")?;
            Ok(write(ctx, async |work| verbs::pause(work, id).await).await?.into())
        })
        .await
    }

    /// Lets a paused agent of yours take work again.
    #[graphql(complexity = "10 + child_complexity", directive = requires::apply(scopes("resumeAgent"), role("resumeAgent")))]
    async fn resume_agent(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The agent to resume.")] input: ResumeAgentInput,
    ) -> Option<Answer<ResumeAgentPayload>> {
        payload(ctx, async {
            let id = parse_id(&input.agent_id, "agentId")?;
            Ok(write(ctx, async |work| verbs::resume(work, id).await).await?.into())
        })
        .await
    }

    /// Retires an agent of yours for good; what it has goes on.
    #[graphql(complexity = "10 + child_complexity", directive = requires::apply(scopes("retireAgent"), role("retireAgent")))]
    async fn retire_agent(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The agent to retire.")] input: RetireAgentInput,
    ) -> Option<Answer<RetireAgentPayload>> {
        payload(ctx, async {
            let id = parse_id(&input.agent_id, "agentId")?;
            Ok(write(ctx, async |work| verbs::retire(work, id).await).await?.into())
        })
        .await
    }
}
