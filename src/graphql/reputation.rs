//! Reputations, the evidence behind them, ratings and the leaderboard.

use async_graphql::{Context, Enum, ID, InputObject, Object, SimpleObject};
use entity::{
    id::{AgentId, RatingId, ReputationEventId, TaskId},
    rating, reputation_event,
};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};

use super::{
    agent::Agent,
    context::{Ask, intent, maybe, once, parse_id, payload, requires, role, scopes},
    error::{Answer, payload},
    page::{MAX_PAGE, PageArgs, Sort, connection, list_cost},
    scalar::{BigInt, Credits, DateTime, Duration, Percentage, Points},
    task::Task,
};
use crate::{
    error::{Error, Result},
    reputation::{self as verbs, Breakdown, Factor, Leader, NewRating, rules},
    task,
};

/// Milli-units in a unit of `effective_samples`.
const MILLI: u32 = 1_000;

/// The order of evidence, newest first.
pub(super) const NEWEST: Sort<reputation_event::Entity> =
    Sort { name: "e", key: None, id: reputation_event::Column::Id, descending: true, place: |row| (0, row.id.0) };

/// The five parts of a score.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "crate::reputation::FactorName")]
pub(super) enum ReputationFactorName {
    /// Tasks settled in the agent's favour.
    Success,
    /// The payers' stars.
    Rating,
    /// Promises of time kept.
    Timeliness,
    /// Bids kept by metered tasks.
    Cost,
    /// How many successes there are.
    Experience,
}

/// What a piece of evidence is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::reputation_event::Cause")]
pub(super) enum ReputationCause {
    /// A task was settled in the agent's favour.
    Success,
    /// A task was refunded through the agent's fault.
    Failure,
    /// An arbiter, or the end of a dispute's time, said which share of the price the work was worth.
    Ruling,
    /// The agent won a task and did not start it in time.
    Timeout,
    /// The payer's stars.
    Rating,
}

/// One part of a score.
#[derive(SimpleObject)]
pub(super) struct ReputationFactor {
    /// Which part.
    name: ReputationFactorName,
    /// How good the agent is at it, what is assumed without evidence included.
    value: Percentage,
    /// The most points that this part gives; all parts give 100.
    weight: Points,
    /// The points that this part gives. The points of all parts make the score exactly.
    points: Points,
    /// How much evidence stands behind it, in tasks of full weight of today, for example `"2.5"`.
    effective_samples: String,
    /// What is assumed without evidence.
    prior: Percentage,
}

impl From<Factor> for ReputationFactor {
    fn from(factor: Factor) -> Self {
        let samples = factor.effective_samples.unsigned_abs();
        let milli = u64::from(MILLI);
        let text = format!("{}.{:03}", samples / milli, samples % milli);
        Self {
            name: factor.name.into(),
            value: Percentage(factor.value),
            weight: Points(factor.weight.saturating_mul(1_000)),
            points: Points(factor.points),
            effective_samples: text.trim_end_matches('0').trim_end_matches('.').to_owned(),
            prior: Percentage(factor.prior),
        }
    }
}

pub(super) struct Reputation(Breakdown);

/// What is known of an agent: a score from 0 to 100 that settled work alone can move, with the reasons for it.
#[Object]
impl Reputation {
    /// The score at `asOf`, decayed to it. Auctions use it in steps of a hundredth of a point, rounded down.
    async fn score(&self) -> Points {
        Points(self.0.score_milli)
    }

    /// The name of the formula.
    async fn version(&self) -> &str {
        self.0.version
    }

    /// The instant for which the score was computed: now.
    async fn as_of(&self) -> DateTime {
        DateTime(self.0.as_of)
    }

    /// The parts of the score. Their points make it exactly.
    #[graphql(complexity = "5 * child_complexity")]
    async fn factors(&self) -> Vec<ReputationFactor> {
        self.0.factors.iter().copied().map(ReputationFactor::from).collect()
    }

    /// How many tasks the agent won, as far as they are settled.
    async fn tasks(&self) -> BigInt {
        BigInt(self.0.tasks)
    }

    /// How many of them were settled in its favour.
    async fn successes(&self) -> BigInt {
        BigInt(self.0.successes)
    }

    /// How many were refunded through its fault, or never started.
    async fn failures(&self) -> BigInt {
        BigInt(self.0.failures)
    }

    /// The share of successes, undamped and undecayed; null without a task.
    async fn success_rate(&self) -> Option<Percentage> {
        let share = self.0.successes.checked_mul(10_000)?.checked_div(self.0.tasks)?;
        i32::try_from(share).ok().map(Percentage)
    }

    /// The share of successes that can be relied on: the lower end of its 95 % Wilson interval; null without a task.
    async fn success_rate_lower_bound(&self) -> Option<Percentage> {
        self.0.wilson_lower.map(Percentage)
    }

    /// Credits earned over its life.
    async fn earned(&self) -> Credits {
        Credits(self.0.earned)
    }

    /// The mean wall time of its successful work; null without a success.
    async fn mean_duration(&self) -> Option<Duration> {
        self.0.mean_work_ms.map(Duration::from_millis)
    }

    /// How many pieces of evidence there are, ratings included.
    async fn evidence_count(&self) -> BigInt {
        BigInt(self.0.evidence)
    }

    /// Whose reputation it is.
    #[graphql(complexity = "1 + child_complexity")]
    async fn agent(&self, ctx: &Context<'_>) -> Option<Answer<Agent>> {
        maybe(ctx, super::agent::find(ctx, self.0.agent_id)).await
    }
}

#[derive(Clone)]
pub(super) struct ReputationEvent(reputation_event::Model);

impl From<reputation_event::Model> for ReputationEvent {
    fn from(row: reputation_event::Model) -> Self {
        Self(row)
    }
}

/// One piece of evidence about an agent, written by a settlement or by the payer's rating. Never changed.
#[Object]
impl ReputationEvent {
    /// The id, `rep_…`.
    pub(super) async fn id(&self) -> ID {
        self.0.id.into()
    }

    /// Counts the agent's evidence: 1, 2, 3 … without a gap.
    async fn version(&self) -> BigInt {
        BigInt(self.0.version)
    }

    /// What it is.
    async fn cause(&self) -> ReputationCause {
        self.0.cause.into()
    }

    /// The price of the task, which weighs the evidence.
    async fn amount(&self) -> Credits {
        Credits(self.0.amount)
    }

    /// The weight of this evidence, from 0 to 100 % of a task of full weight. It grows with the price and falls with every
    /// earlier task of the same client and owner; work for oneself weighs nothing.
    async fn weight(&self) -> Percentage {
        let basis_points = i128::from(self.0.weight).saturating_mul(10_000) / i128::from(rules::UNIT);
        Percentage(i32::try_from(basis_points).unwrap_or(10_000))
    }

    /// The score right before.
    async fn score_before(&self) -> Points {
        Points(self.0.score_before)
    }

    /// The score right after.
    async fn score_after(&self) -> Points {
        Points(self.0.score_after)
    }

    /// When it was written.
    async fn created_at(&self) -> DateTime {
        DateTime(self.0.created_at)
    }

    /// Whom it is about.
    #[graphql(complexity = "1 + child_complexity")]
    async fn agent(&self, ctx: &Context<'_>) -> Option<Answer<Agent>> {
        maybe(ctx, super::agent::find(ctx, self.0.agent_id)).await
    }

    /// The task that it comes from; null for those who are not party to it.
    #[graphql(complexity = "2 + child_complexity")]
    async fn task(&self, ctx: &Context<'_>) -> Option<Answer<Task>> {
        maybe(ctx, super::task::find(ctx, self.0.task_id)).await
    }
}

#[derive(Clone)]
pub(super) struct Rating(pub(super) rating::Model);

impl From<rating::Model> for Rating {
    fn from(row: rating::Model) -> Self {
        Self(row)
    }
}

/// The payer's stars for one completed task; final.
#[Object]
impl Rating {
    /// The id, `rating_…`.
    pub(super) async fn id(&self) -> ID {
        self.0.id.into()
    }

    /// 1 to 5.
    async fn stars(&self) -> i32 {
        self.0.stars
    }

    /// What the payer says; null when nothing.
    async fn comment(&self) -> Option<&str> {
        self.0.comment.as_deref()
    }

    /// When the task was rated.
    async fn created_at(&self) -> DateTime {
        DateTime(self.0.created_at)
    }

    /// The agent that did the task.
    #[graphql(complexity = "1 + child_complexity")]
    async fn agent(&self, ctx: &Context<'_>) -> Option<Answer<Agent>> {
        maybe(ctx, super::agent::find(ctx, self.0.agent_id)).await
    }

    /// The task; null for those who are not party to it.
    #[graphql(complexity = "2 + child_complexity")]
    async fn task(&self, ctx: &Context<'_>) -> Option<Answer<Task>> {
        maybe(ctx, super::task::find(ctx, self.0.task_id)).await
    }
}

connection! {
    /// A page of evidence.
    ReputationEventConnection,
    /// A piece of evidence in a list.
    ReputationEventEdge, ReputationEvent, reputation_event::Model
}

/// A place on the leaderboard.
#[derive(SimpleObject)]
pub(super) struct LeaderboardEntry {
    /// The place, from 1.
    rank: i32,
    /// The agent.
    agent: Agent,
    /// Its score now.
    score: Points,
    /// How many tasks it won, as far as they are settled.
    tasks: BigInt,
    /// How many of them were settled in its favour.
    successes: BigInt,
}

impl From<Leader> for LeaderboardEntry {
    fn from(leader: Leader) -> Self {
        Self {
            rank: i32::try_from(leader.rank).unwrap_or(i32::MAX),
            agent: leader.agent.into(),
            score: Points(leader.standing.score_milli),
            tasks: BigInt(leader.tasks),
            successes: BigInt(leader.successes),
        }
    }
}

/// Input of `rateAgent`.
#[derive(InputObject)]
pub(super) struct RateAgentInput {
    /// The completed task whose agent to rate. You must have paid for it.
    task_id: ID,
    /// 1 to 5.
    stars: i32,
    /// What you say about the work; at most 2,000 characters.
    comment: Option<String>,
    /// Names this intent: the same value when you retry the same intent, another one for another. 1 to 128 visible ASCII characters.
    idempotency_key: String,
}

intent! {
    RateAgentInput = "rateAgent", moves_credits: false;
}

payload! {
    /// Answer of `rateAgent`.
    RateAgentPayload {
        /// The rating; null when it was refused.
        rating: Rating
    } ReputationUserError
}

/// The reputation of the agent with this id.
pub(super) async fn find(ctx: &Context<'_>, id: AgentId) -> Result<Option<Reputation>> {
    let now = ctx.now();
    let row = ctx.loaders().reputations(id).await?;
    Ok(Some(Reputation(rules::explain(&row.unwrap_or_else(|| rules::newcomer(id, now)), now))))
}

/// The piece of evidence with this id.
pub(super) async fn find_event(ctx: &Context<'_>, id: ReputationEventId) -> Result<Option<ReputationEvent>> {
    let row = reputation_event::Entity::find_by_id(id).one(ctx.loaders().db()).await?;
    Ok(row.map(ReputationEvent))
}

/// The rating with this id.
pub(super) async fn find_rating(ctx: &Context<'_>, id: RatingId) -> Result<Option<Rating>> {
    let row = rating::Entity::find_by_id(id).one(ctx.loaders().db()).await?;
    Ok(row.map(Rating))
}

#[derive(Default)]
pub(super) struct ReputationQuery;

#[Object]
impl ReputationQuery {
    /// What is known of an agent, and why; null when there is no such agent.
    #[graphql(complexity = "3 + child_complexity")]
    async fn reputation(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The agent, `agent_…`.")] agent_id: ID,
    ) -> Option<Answer<Reputation>> {
        maybe(ctx, async {
            let agent: AgentId = parse_id(&agent_id, "agentId")?;
            ctx.loaders().agents(agent).await?.ok_or(Error::NotFound("agent"))?;
            find(ctx, agent).await
        })
        .await
    }

    /// The evidence about an agent, newest first.
    #[graphql(complexity = "list_cost(__ctx, __variables_definition, __field, child_complexity)")]
    async fn reputation_events(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The agent, `agent_…`.")] agent_id: ID,
        #[graphql(desc = "How many from the start: 1 to 100, 20 when neither `first` nor `last` is given.")]
        first: Option<i32>,
        #[graphql(desc = "Only what comes after this cursor.")] after: Option<String>,
        #[graphql(desc = "How many from the end: 1 to 100; not together with `first`.")] last: Option<i32>,
        #[graphql(desc = "Only what comes before this cursor.")] before: Option<String>,
    ) -> Option<Answer<ReputationEventConnection>> {
        maybe(ctx, async {
            let agent: AgentId = parse_id(&agent_id, "agentId")?;
            let list = reputation_event::Entity::find().filter(reputation_event::Column::AgentId.eq(agent));
            let window = PageArgs { first, after, last, before }.window(&NEWEST)?;
            Ok(Some(window.read(ctx.loaders().db(), list, &NEWEST).await?.into()))
        })
        .await
    }

    /// The active agents with the best scores now, best first.
    #[graphql(complexity = "list_cost(__ctx, __variables_definition, __field, child_complexity)")]
    async fn leaderboard(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Only agents that can do this.")] capability: Option<String>,
        #[graphql(desc = "How many: 1 to 100.", default = 20)] first: i32,
    ) -> Option<Answer<Vec<LeaderboardEntry>>> {
        maybe(ctx, async {
            if !(1..=MAX_PAGE).contains(&first) {
                return Err(Error::invalid("first", format!("must be from 1 to {MAX_PAGE}")));
            }
            let limit = u64::try_from(first).unwrap_or(0);
            let leaders = verbs::leaderboard(ctx.loaders().db(), capability.as_deref(), limit, ctx.now()).await?;
            Ok(Some(leaders.into_iter().map(LeaderboardEntry::from).collect()))
        })
        .await
    }
}

#[derive(Default)]
pub(super) struct ReputationMutation;

#[Object]
impl ReputationMutation {
    /// Rates the agent of a completed task that you paid for, once.
    #[graphql(complexity = "10 + child_complexity", directive = requires::apply(scopes("rateAgent"), role("rateAgent")))]
    async fn rate_agent(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The rating.")] input: RateAgentInput,
    ) -> Option<Answer<RateAgentPayload>> {
        payload(ctx, async {
            let task: TaskId = parse_id(&input.task_id, "taskId")?;
            let new = NewRating { task, stars: input.stars, comment: input.comment.clone() };
            Ok(once(ctx, &input, async |work| task::rate(work, new).await).await?.value.into())
        })
        .await
    }
}
