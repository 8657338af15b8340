//! The work of agents that run elsewhere: what is offered to them, and how they claim it, keep it and bring it.

use std::time::Duration as Span;

use async_graphql::{Context, ID, InputObject, Object, SimpleObject, Subscription};
use entity::{agent, event::Kind, id::AgentId};
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use tokio::time::{Instant, interval_at};

use super::{
    context::{Ask, intent, maybe, once, parse_id, payload, requires, role, scopes, write},
    error::{Answer, Fault, payload},
    event::{Event, Filter, events},
    live::{Lines, followed},
    page::{DEFAULT_PAGE, MAX_PAGE, list_cost},
    scalar::{BigInt, Credits, DateTime, Duration, EventCursor, Json},
    task::Task,
};
use crate::{
    agent as agents,
    caller::Scope,
    error::Error,
    execution::{
        outside::{self as verbs, Offer},
        rules::kept_logs,
    },
    store::{Store, Topic},
};

/// The longest that a question for work waits for some.
const LONGEST_WAIT: Span = Span::from_secs(30);
/// How often an agent that follows its offers is seen.
const SEEN: Span = Span::from_secs(30);
/// What a question for work leaves of the time that a request may take, for its answer.
const MARGIN: Span = Span::from_secs(5);

pub(super) struct WorkOffer(Offer);

/// Work that an agent won and may claim now.
#[Object]
impl WorkOffer {
    /// The task, with all that it takes to do it.
    async fn task(&self) -> Task {
        self.0.task.clone().into()
    }

    /// The task, `task_…`.
    async fn task_id(&self) -> ID {
        self.0.task.id.into()
    }

    /// The agent that won it, `agent_…`.
    async fn agent_id(&self) -> ID {
        self.0.agent.into()
    }

    /// What the agent is paid for work that is accepted.
    async fn price(&self) -> Credits {
        Credits(self.0.price)
    }

    /// By when it must be claimed. Work that was never claimed goes to the next bid then, and a bond is lost; work that was claimed
    /// before is over.
    async fn claim_by(&self) -> DateTime {
        DateTime(self.0.claim_by)
    }

    /// How often it was claimed before.
    async fn claims(&self) -> i32 {
        self.0.claims
    }
}

/// A piece of work that a worker has for itself until its lease is over.
#[derive(SimpleObject)]
pub(super) struct Claim {
    /// The task, with all that it takes to do it.
    task: Task,
    /// Names this claim in `heartbeat`, `submitResult` and `failTask`. It grows with every claim, and only the newest one counts.
    token: BigInt,
    /// Which try at the work it is, from 1.
    attempt: i32,
    /// Until when nobody else may claim the work. Send a `heartbeat` at a third of the time.
    leased_until: DateTime,
    /// Until when heartbeats can keep the lease: the claim and the task's `timeout`.
    ends_by: DateTime,
}

impl From<verbs::Claim> for Claim {
    fn from(claim: verbs::Claim) -> Self {
        Self {
            task: claim.task.into(),
            token: BigInt(claim.token),
            attempt: claim.attempt,
            leased_until: DateTime(claim.leased_until),
            ends_by: DateTime(claim.ends_by),
        }
    }
}

/// Input of `claimTask`.
#[derive(InputObject)]
pub(super) struct ClaimTaskInput {
    /// The task whose work to claim.
    task_id: ID,
    /// What the worker calls itself, for people; 1 to 100 characters.
    worker: Option<String>,
    /// Names this intent: the same value when you retry the same intent, another one for another. 1 to 128 visible ASCII characters.
    idempotency_key: String,
}

/// Input of `heartbeat`.
#[derive(InputObject)]
pub(super) struct HeartbeatInput {
    /// The task whose work was claimed.
    task_id: ID,
    /// The token of the claim.
    token: BigInt,
}

/// Input of `submitResult`.
#[derive(InputObject)]
pub(super) struct SubmitResultInput {
    /// The task whose work was claimed.
    task_id: ID,
    /// The token of the claim.
    token: BigInt,
    /// What the work came to.
    output: Json,
    /// What the work said on its way, for people; cut at a limit.
    logs: Option<String>,
    /// Names this intent: the same value when you retry the same intent, another one for another. 1 to 128 visible ASCII characters.
    idempotency_key: String,
}

/// Input of `failTask`.
#[derive(InputObject)]
pub(super) struct FailTaskInput {
    /// The task whose work was claimed.
    task_id: ID,
    /// The token of the claim.
    token: BigInt,
    /// A stable code for why: 1 to 64 of A to Z, 0 to 9 and `_`. The task's `failureCode` has it with `AGENT_` before it.
    code: String,
    /// A sentence for people; 1 to 500 characters.
    message: String,
    /// Names this intent: the same value when you retry the same intent, another one for another. 1 to 128 visible ASCII characters.
    idempotency_key: String,
}

intent! {
    ClaimTaskInput = "claimTask", moves_credits: true;
    SubmitResultInput = "submitResult", moves_credits: true;
    FailTaskInput = "failTask", moves_credits: true;
}

payload! {
    /// Answer of `claimTask`.
    ClaimTaskPayload {
        /// What the worker has now; null when it was refused.
        claim: Claim
    } WorkUserError
}

payload! {
    /// Answer of `heartbeat`.
    HeartbeatPayload {
        /// Until when nobody else may claim the work; null when it was refused.
        leased_until: DateTime
    } WorkUserError
}

payload! {
    /// Answer of `submitResult`.
    SubmitResultPayload {
        /// The task as it is now; null when it was refused.
        task: Task
    } WorkUserError
}

payload! {
    /// Answer of `failTask`.
    FailTaskPayload {
        /// The task as it is now; null when it was refused.
        task: Task
    } WorkUserError
}

#[derive(Default)]
pub(super) struct WorkQuery;

#[Object]
impl WorkQuery {
    /// The work that an agent of yours won and may claim now, the most urgent first; null when the agent is not yours. With `wait`
    /// it waits for some while there is none, and answers an empty list when none came: ask again then. It may answer earlier, before
    /// the service's own limit for a request. For keys with the scopes `work:write` and `read`.
    #[graphql(complexity = "list_cost(__ctx, __variables_definition, __field, child_complexity)", directive = requires::apply(scopes("workOffers"), role("workOffers")))]
    async fn work_offers(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The agent, `agent_…`.")] agent_id: ID,
        #[graphql(desc = "How long to wait while there is nothing, `PT30S` at most; not at all when it is left out.")]
        wait: Option<Duration>,
        #[graphql(desc = "How many: 1 to 100, 20 when it is left out.")] first: Option<i32>,
    ) -> Option<Answer<Vec<WorkOffer>>> {
        maybe(ctx, async {
            ctx.caller().with_scope(Scope::Read)?;
            let agent = verbs::controlled(ctx.loaders().db(), ctx.caller(), parse_id(&agent_id, "agentId")?).await?;
            agents::see(ctx.store(), &agent).await?;
            let wait = wait.map_or(Span::ZERO, |wait| wait.0);
            if wait > LONGEST_WAIT {
                return Err(Error::invalid("wait", "must be at most PT30S"));
            }
            let limit = first.unwrap_or(DEFAULT_PAGE);
            if !(1..=MAX_PAGE).contains(&limit) {
                return Err(Error::invalid("first", format!("must be from 1 to {MAX_PAGE}")));
            }
            let wait = wait.min(ctx.app().config().limits.execution.saturating_sub(MARGIN));
            let limit = u64::try_from(limit).unwrap_or(0);
            if !wait.is_zero() {
                ctx.remarks().waits();
            }
            let offers = verbs::await_offers(ctx.store(), agent.id, limit, wait, ctx.app().stop()).await?;
            Ok(Some(offers.into_iter().map(WorkOffer).collect()))
        })
        .await
    }
}

#[derive(Default)]
pub(super) struct WorkMutation;

#[Object]
impl WorkMutation {
    /// Claims the work that an agent of yours won: a worker has it for itself until its lease is over, and longer with `heartbeat`.
    /// Work whose lease is over may be claimed again, and what the worker before brings counts no more.
    #[graphql(complexity = "10 + child_complexity", directive = requires::apply(scopes("claimTask"), role("claimTask")))]
    async fn claim_task(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The task and the worker.")] input: ClaimTaskInput,
    ) -> Option<Answer<ClaimTaskPayload>> {
        payload(ctx, async {
            let (task, worker) = (parse_id(&input.task_id, "taskId")?, input.worker.clone());
            verbs::appear(ctx.store(), ctx.caller(), task).await?;
            let claimed = once(ctx, &input, async |work| verbs::claim(work, task, worker).await).await;
            if let Err(Error::Refused(refused)) = &claimed {
                ctx.app().metrics().claim_refused(&refused.code);
            }
            Ok(claimed?.value.into())
        })
        .await
    }

    /// Keeps a claim alive: says that its worker is still at it. Safe to repeat.
    #[graphql(complexity = "10 + child_complexity", directive = requires::apply(scopes("heartbeat"), role("heartbeat")))]
    async fn heartbeat(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The claim.")] input: HeartbeatInput,
    ) -> Option<Answer<HeartbeatPayload>> {
        payload(ctx, async {
            let (task, token) = (parse_id(&input.task_id, "taskId")?, input.token.0);
            verbs::appear(ctx.store(), ctx.caller(), task).await?;
            Ok(DateTime(write(ctx, async |work| verbs::heartbeat(work, task, token).await).await?))
        })
        .await
    }

    /// Brings the result of a claim. It is verified first: one that breaks the task's schema is refused, and the claim goes on.
    /// Otherwise the work ends, and the task is settled or waits for its requester's word.
    #[graphql(complexity = "10 + child_complexity", directive = requires::apply(scopes("submitResult"), role("submitResult")))]
    async fn submit_result(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The claim and its result.")] input: SubmitResultInput,
    ) -> Option<Answer<SubmitResultPayload>> {
        payload(ctx, async {
            let (task, token) = (parse_id(&input.task_id, "taskId")?, input.token.0);
            let limits = &ctx.app().config().execution;
            let logs = kept_logs(input.logs.as_deref().unwrap_or_default(), limits.log_bytes);
            let judged = verbs::examine(ctx.app().worker(), ctx.caller(), task, token, &input.output.0).await?;
            Ok(once(ctx, &input, async |work| verbs::submit(work, task, token, judged, logs).await).await?.value.into())
        })
        .await
    }

    /// Gives the work of a claim up for good. The requester is refunded and the agent's reputation falls; to let another worker of the
    /// agent try again, let the lease run out instead.
    #[graphql(complexity = "10 + child_complexity", directive = requires::apply(scopes("failTask"), role("failTask")))]
    async fn fail_task(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The claim and why it came to nothing.")] input: FailTaskInput,
    ) -> Option<Answer<FailTaskPayload>> {
        payload(ctx, async {
            let (task, token) = (parse_id(&input.task_id, "taskId")?, input.token.0);
            verbs::appear(ctx.store(), ctx.caller(), task).await?;
            let verb = async |work: &mut _| verbs::fail(work, task, token, &input.code, &input.message).await;
            Ok(once(ctx, &input, verb).await?.value.into())
        })
        .await
    }
}

/// The same stream, and the agent is seen for as long as somebody follows it.
fn seen_meanwhile(offers: Lines, store: Store, agent: agent::Model) -> Lines {
    let ticks = interval_at(Instant::now() + SEEN, SEEN);
    stream::unfold((offers, ticks, store, agent), |(mut offers, mut ticks, store, agent)| async move {
        loop {
            tokio::select! {
                offer = offers.next() => return offer.map(|offer| (offer, (offers, ticks, store, agent))),
                _ = ticks.tick() => {
                    // The stream itself says so if the database stays away.
                    if let Err(error) = agents::see(&store, &agent).await {
                        tracing::warn!(%error, "an agent that follows its offers could not be marked as seen");
                    }
                }
            }
        }
    })
    .boxed()
}

#[derive(Default)]
pub(super) struct WorkSubscription;

#[Subscription]
impl WorkSubscription {
    /// The work that is offered to an agent of yours: each `TaskEvent` of the kind `WORK_OFFERED` says that it may claim a task, the
    /// first time or again. As long as somebody follows this, the agent is online.
    #[graphql(directive = requires::apply(scopes("workOffered"), role("workOffered")))]
    async fn work_offered(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The agent, `agent_…`.")] agent_id: ID,
        #[graphql(desc = "Begin behind this event; from now on when it is left out.")] after: Option<EventCursor>,
    ) -> std::result::Result<BoxStream<'static, Answer<Event>>, Fault> {
        followed(ctx, async {
            ctx.caller().with_scope(Scope::Read)?;
            let agent: AgentId = parse_id(&agent_id, "agentId")?;
            let follow = ctx.store().follow(Topic::Agent(agent), after.map(|cursor| cursor.0)).await?;
            let agent = verbs::controlled(ctx.loaders().db(), ctx.caller(), agent).await?;
            agents::see(ctx.store(), &agent).await?;
            let shows: Filter = Box::new(|event| event.kind == Kind::WorkOffered);
            let offers = events(follow, shows, |_| false, ctx.request_id().to_owned());
            Ok(seen_meanwhile(offers, ctx.store().clone(), agent))
        })
        .await
    }
}
