//! The event log on the wire: one type for each family of events, the log as a query, and subscriptions.
//!
//! A subscription attaches to the live feed first and checks what may be seen then, so nothing can happen unseen in between. A
//! stream about one auction or task ends after the event that ends it; a client that comes with a cursor behind it gets what it
//! missed and then the end.

use std::sync::Arc;

use async_graphql::{Context, Enum, ID, InputObject, Interface, Object, SimpleObject, Subscription};
use entity::{
    event::{Kind, Model},
    id::{AgentId, AuctionId, DelegationId, TaskId},
};
use futures_util::{StreamExt, stream, stream::BoxStream};

use super::{
    agent::{Agent, AgentRuntime},
    auction::{Auction, Bid},
    channel::Channel,
    context::{Ask, maybe, parse_id, requires, role, scopes},
    delegation::Delegation,
    error::{Answer, Fault, fault},
    live::{Item, Lines, followed},
    page::{DEFAULT_PAGE, MAX_PAGE, PageInfo, list_cost},
    scalar::{Credits, DateTime, Duration, EventCursor, Points},
    task::Task,
};
use crate::{
    caller::Scope,
    error::{Error, Result},
    store::{Cursor, Follow, Line, Reader, Store, Topic},
    task::rules::is_over,
};

/// Lines that one step through the log reads.
const STEP: u64 = 200;
/// Steps that one page of a filtered log takes at most; then the page ends early and says where to go on.
const STEPS: usize = 20;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::event::Kind")]
pub(super) enum EventKind {
    /// A task was posted and its budget held.
    TaskPosted,
    /// An auction opened for a task.
    AuctionOpened,
    /// A bid was made. In a sealed auction only the number of bids is told.
    BidSubmitted,
    /// A bid was taken back.
    BidWithdrawn,
    /// A late bid moved the close of an open auction.
    AuctionExtended,
    /// A bidder committed to a bid without telling it.
    BidCommitted,
    /// The time for commitments is over; bidders reveal their bids.
    AuctionRevealing,
    /// A bidder told the bid that it had committed to.
    BidRevealed,
    /// A bidder lost a bond to the requester.
    BondForfeited,
    /// An auction closed with a winner.
    AuctionAwarded,
    /// An auction closed without an eligible bid.
    AuctionExpired,
    /// The requester called an auction off.
    AuctionCancelled,
    /// A channel opened.
    ChannelOpened,
    /// A channel closed.
    ChannelClosed,
    /// The payer put more into a streaming channel.
    ChannelToppedUp,
    /// A streaming channel paid, by a voucher or a deduction.
    ChannelPaid,
    /// The payer asked for a streaming channel to close.
    ChannelClosing,
    /// The payer took the request to close back.
    ChannelReopened,
    /// A payer signed two vouchers of one nonce with different amounts.
    ChannelEquivocation,
    /// The winner did not start in time and the next bid took its place.
    TaskReassigned,
    /// A worker claimed a task.
    TaskStarted,
    /// An attempt failed through our fault; the task will be tried again.
    TaskRetried,
    /// The result of a task is there and waits for the payer.
    TaskSubmitted,
    /// A party disputes the result of a task.
    DisputeOpened,
    /// A party showed something in a dispute.
    EvidenceSubmitted,
    /// An arbiter ruled a dispute, or its time was over.
    DisputeResolved,
    /// Work was accepted and paid.
    TaskCompleted,
    /// Work failed and the price went back.
    TaskRefunded,
    /// No agent did the task; the money went back.
    TaskExpired,
    /// The requester cancelled a task; the budget went back.
    TaskCancelled,
    /// An agent's reputation moved.
    ReputationChanged,
    /// Credits came into a wallet from outside.
    CreditsIssued,
    /// Credits left a wallet to the outside.
    CreditsRedeemed,
    /// An agent's earnings went to its owner.
    EarningsWithdrawn,
    /// An outside agent may claim work that it won.
    WorkOffered,
    /// A goal was delegated and its budget set aside.
    DelegationCreated,
    /// A delegation has its plan.
    DelegationPlanned,
    /// A step of a delegation began, the first time or again.
    StepStarted,
    /// A step has its output.
    StepCompleted,
    /// A step failed for good.
    StepFailed,
    /// A step failed, and the delegation goes on without it.
    StepSkipped,
    /// A delegation begins nothing new and waits for what is in work.
    DelegationStopping,
    /// Every step is done; what was not needed went back.
    DelegationCompleted,
    /// A delegation ended without its output; what was not spent went back.
    DelegationFailed,
    /// The requester called a delegation off; what was not spent went back.
    DelegationCancelled,
}

/// One line of the log of what happened. New kinds and types of events may come.
#[derive(Interface)]
#[graphql(
    field(name = "id", ty = "ID", desc = "The id of the event, `evt_…`."),
    field(name = "cursor", ty = "EventCursor", desc = "The place in the log, to go on behind it with `after`."),
    field(name = "kind", ty = "EventKind", desc = "What happened."),
    field(name = "occurred_at", ty = "DateTime", desc = "When it happened.")
)]
pub(super) enum Event {
    /// About an auction.
    Auction(AuctionEvent),
    /// About a bid.
    Bid(BidEvent),
    /// About a task.
    Task(TaskEvent),
    /// About a channel.
    Channel(ChannelEvent),
    /// About an agent's reputation.
    Reputation(ReputationChangedEvent),
    /// About credits that moved without a task or a channel.
    Credits(CreditsEvent),
    /// About a delegation or one of its steps.
    Delegation(DelegationEvent),
}

impl From<Arc<Line>> for Event {
    fn from(line: Arc<Line>) -> Self {
        match line.event.kind {
            Kind::AuctionOpened
            | Kind::AuctionExtended
            | Kind::AuctionRevealing
            | Kind::AuctionAwarded
            | Kind::AuctionExpired
            | Kind::AuctionCancelled => Self::Auction(AuctionEvent(line)),
            Kind::BidSubmitted | Kind::BidWithdrawn | Kind::BidCommitted | Kind::BidRevealed => {
                Self::Bid(BidEvent(line))
            }
            Kind::TaskPosted
            | Kind::TaskReassigned
            | Kind::TaskStarted
            | Kind::TaskRetried
            | Kind::WorkOffered
            | Kind::TaskSubmitted
            | Kind::DisputeOpened
            | Kind::EvidenceSubmitted
            | Kind::DisputeResolved
            | Kind::TaskCompleted
            | Kind::TaskRefunded
            | Kind::TaskExpired
            | Kind::TaskCancelled => Self::Task(TaskEvent(line)),
            Kind::ChannelOpened
            | Kind::ChannelClosed
            | Kind::ChannelToppedUp
            | Kind::ChannelPaid
            | Kind::ChannelClosing
            | Kind::ChannelReopened
            | Kind::ChannelEquivocation => Self::Channel(ChannelEvent(line)),
            Kind::ReputationChanged => Self::Reputation(ReputationChangedEvent(line)),
            Kind::CreditsIssued | Kind::CreditsRedeemed | Kind::EarningsWithdrawn | Kind::BondForfeited => {
                Self::Credits(CreditsEvent(line))
            }
            Kind::DelegationCreated
            | Kind::DelegationPlanned
            | Kind::StepStarted
            | Kind::StepCompleted
            | Kind::StepFailed
            | Kind::StepSkipped
            | Kind::DelegationStopping
            | Kind::DelegationCompleted
            | Kind::DelegationFailed
            | Kind::DelegationCancelled => Self::Delegation(DelegationEvent(line)),
        }
    }
}

fn event_id(line: &Line) -> ID {
    format!("evt_{}", line.event.id).into()
}

async fn agent_of(ctx: &Context<'_>, line: &Line) -> Result<Option<Agent>> {
    let Some(agent) = line.event.agent_id else { return Ok(None) };
    super::agent::find(ctx, agent).await
}

async fn auction_of(ctx: &Context<'_>, line: &Line) -> Result<Option<Auction>> {
    let Some(auction) = line.event.auction_id else { return Ok(None) };
    super::auction::find(ctx, auction).await
}

async fn task_of(ctx: &Context<'_>, line: &Line) -> Result<Option<Task>> {
    let Some(task) = line.event.task_id else { return Ok(None) };
    super::task::find(ctx, task).await
}

pub(super) struct AuctionEvent(Arc<Line>);

/// An auction opened, moved its close, or ended.
#[Object]
impl AuctionEvent {
    /// The id of the event, `evt_…`.
    async fn id(&self) -> ID {
        event_id(&self.0)
    }

    /// The place in the log.
    async fn cursor(&self) -> EventCursor {
        EventCursor(self.0.cursor)
    }

    /// What happened.
    async fn kind(&self) -> EventKind {
        self.0.event.kind.into()
    }

    /// When it happened.
    async fn occurred_at(&self) -> DateTime {
        DateTime(self.0.event.occurred_at)
    }

    /// The auction, `auc_…`.
    async fn auction_id(&self) -> Option<ID> {
        self.0.event.auction_id.map(ID::from)
    }

    /// How many bids stand, or stood at the close; null where the kind does not tell.
    async fn bid_count(&self) -> Option<i32> {
        self.0.event.payload.bid_count
    }

    /// When the auction closes, or when its reveals end if they begin; null where the kind does not tell.
    async fn closes_at(&self) -> Option<DateTime> {
        self.0.event.payload.closes_at.map(DateTime)
    }

    /// The budget at the opening, what the winner is paid at an award; null where the kind does not tell.
    async fn amount(&self) -> Option<Credits> {
        self.0.event.payload.amount.map(Credits)
    }

    /// The bid that won, `bid_…`; null where the kind does not tell.
    async fn bid_id(&self) -> Option<ID> {
        self.0.event.payload.bid_id.map(ID::from)
    }

    /// A stable code for why; null where the kind does not tell.
    async fn reason(&self) -> Option<&str> {
        self.0.event.payload.reason.as_deref()
    }

    /// The auction as it is now.
    #[graphql(complexity = "1 + child_complexity")]
    async fn auction(&self, ctx: &Context<'_>) -> Option<Answer<Auction>> {
        maybe(ctx, auction_of(ctx, &self.0)).await
    }

    /// The agent that won; null where the kind does not tell.
    #[graphql(complexity = "1 + child_complexity")]
    async fn agent(&self, ctx: &Context<'_>) -> Option<Answer<Agent>> {
        maybe(ctx, agent_of(ctx, &self.0)).await
    }
}

pub(super) struct BidEvent(Arc<Line>);

/// A bid was made or taken back. In a sealed auction it tells only how many bids stand.
#[Object]
impl BidEvent {
    /// The id of the event, `evt_…`.
    async fn id(&self) -> ID {
        event_id(&self.0)
    }

    /// The place in the log.
    async fn cursor(&self) -> EventCursor {
        EventCursor(self.0.cursor)
    }

    /// What happened.
    async fn kind(&self) -> EventKind {
        self.0.event.kind.into()
    }

    /// When it happened.
    async fn occurred_at(&self) -> DateTime {
        DateTime(self.0.event.occurred_at)
    }

    /// The auction, `auc_…`.
    async fn auction_id(&self) -> Option<ID> {
        self.0.event.auction_id.map(ID::from)
    }

    /// How many bids stand now; of commitments how many stand.
    async fn bid_count(&self) -> Option<i32> {
        self.0.event.payload.bid_count
    }

    /// The price of the bid; null in a sealed auction.
    async fn price(&self) -> Option<Credits> {
        self.0.event.payload.amount.map(Credits)
    }

    /// The bid; null in a sealed auction.
    #[graphql(complexity = "2 + child_complexity")]
    async fn bid(&self, ctx: &Context<'_>) -> Option<Answer<Bid>> {
        maybe(ctx, async {
            let Some(bid) = self.0.event.payload.bid_id else { return Ok(None) };
            super::auction::find_bid(ctx, bid).await
        })
        .await
    }

    /// The auction as it is now.
    #[graphql(complexity = "1 + child_complexity")]
    async fn auction(&self, ctx: &Context<'_>) -> Option<Answer<Auction>> {
        maybe(ctx, auction_of(ctx, &self.0)).await
    }

    /// Who bids; null in a sealed auction.
    #[graphql(complexity = "1 + child_complexity")]
    async fn agent(&self, ctx: &Context<'_>) -> Option<Answer<Agent>> {
        maybe(ctx, agent_of(ctx, &self.0)).await
    }
}

pub(super) struct TaskEvent(Arc<Line>);

/// A task was posted, went on, was disputed, or ended.
#[Object]
impl TaskEvent {
    /// The id of the event, `evt_…`.
    async fn id(&self) -> ID {
        event_id(&self.0)
    }

    /// The place in the log.
    async fn cursor(&self) -> EventCursor {
        EventCursor(self.0.cursor)
    }

    /// What happened.
    async fn kind(&self) -> EventKind {
        self.0.event.kind.into()
    }

    /// When it happened.
    async fn occurred_at(&self) -> DateTime {
        DateTime(self.0.event.occurred_at)
    }

    /// The task, `task_…`.
    async fn task_id(&self) -> Option<ID> {
        self.0.event.task_id.map(ID::from)
    }

    /// The budget of a posted task, the price of work, what a dispute gave the agent; null where the kind does not tell.
    async fn amount(&self) -> Option<Credits> {
        self.0.event.payload.amount.map(Credits)
    }

    /// The platform's share of what was paid; null where the kind does not tell.
    async fn fee(&self) -> Option<Credits> {
        self.0.event.payload.fee.map(Credits)
    }

    /// What went back to the requester; null where the kind does not tell.
    async fn returned(&self) -> Option<Credits> {
        self.0.event.payload.returned.map(Credits)
    }

    /// Which try at the work it is, from 1; null where the kind does not tell.
    async fn attempt(&self) -> Option<i32> {
        self.0.event.payload.attempt
    }

    /// Where the work runs; null where the kind does not tell.
    async fn runtime(&self) -> Option<AgentRuntime> {
        self.0.event.payload.runtime.map(AgentRuntime::from)
    }

    /// How long the work took; null where the kind does not tell.
    async fn duration(&self) -> Option<Duration> {
        self.0.event.payload.duration_us.map(Duration::from_micros)
    }

    /// A stable code for why; what the verifiers found wrong with a submitted result; `PAYER` or `AGENT`, who opened a dispute; the
    /// kind of evidence; `UPHELD`, `REJECTED` or `DEFAULTED`, how a dispute went for its opener. Null where the kind does not tell.
    async fn reason(&self) -> Option<&str> {
        self.0.event.payload.reason.as_deref()
    }

    /// The task as it is now; null for those who are not party to it.
    #[graphql(complexity = "2 + child_complexity")]
    async fn task(&self, ctx: &Context<'_>) -> Option<Answer<Task>> {
        maybe(ctx, task_of(ctx, &self.0)).await
    }

    /// The agent that does it; null where there is none.
    #[graphql(complexity = "1 + child_complexity")]
    async fn agent(&self, ctx: &Context<'_>) -> Option<Answer<Agent>> {
        maybe(ctx, agent_of(ctx, &self.0)).await
    }
}

pub(super) struct ChannelEvent(Arc<Line>);

/// A payment channel opened, changed or closed.
#[Object]
impl ChannelEvent {
    /// The id of the event, `evt_…`.
    async fn id(&self) -> ID {
        event_id(&self.0)
    }

    /// The place in the log.
    async fn cursor(&self) -> EventCursor {
        EventCursor(self.0.cursor)
    }

    /// What happened.
    async fn kind(&self) -> EventKind {
        self.0.event.kind.into()
    }

    /// When it happened.
    async fn occurred_at(&self) -> DateTime {
        DateTime(self.0.event.occurred_at)
    }

    /// The channel, `chan_…`.
    async fn channel_id(&self) -> Option<ID> {
        self.0.event.channel_id.map(ID::from)
    }

    /// The deposit of an opening, what was put in, what was paid, by a close too; null where nothing moves.
    async fn amount(&self) -> Option<Credits> {
        self.0.event.payload.amount.map(Credits)
    }

    /// The platform's share of what was paid; null where nothing is paid.
    async fn fee(&self) -> Option<Credits> {
        self.0.event.payload.fee.map(Credits)
    }

    /// What went back to the payer; null before the close.
    async fn returned(&self) -> Option<Credits> {
        self.0.event.payload.returned.map(Credits)
    }

    /// A stable code for how it ended; null before the close.
    async fn reason(&self) -> Option<&str> {
        self.0.event.payload.reason.as_deref()
    }

    /// How long it was open; null before the close.
    async fn duration(&self) -> Option<Duration> {
        self.0.event.payload.duration_us.map(Duration::from_micros)
    }

    /// By when the agent must have claimed; null for all but CHANNEL_CLOSING.
    async fn closes_at(&self) -> Option<DateTime> {
        self.0.event.payload.closes_at.map(DateTime)
    }

    /// The channel as it is now.
    #[graphql(complexity = "2 + child_complexity")]
    async fn channel(&self, ctx: &Context<'_>) -> Option<Answer<Channel>> {
        maybe(ctx, async {
            let Some(channel) = self.0.event.channel_id else { return Ok(None) };
            super::channel::find(ctx, channel).await
        })
        .await
    }

    /// The task that it backs; null for those who are not party to it.
    #[graphql(complexity = "2 + child_complexity")]
    async fn task(&self, ctx: &Context<'_>) -> Option<Answer<Task>> {
        maybe(ctx, task_of(ctx, &self.0)).await
    }

    /// Who is paid.
    #[graphql(complexity = "1 + child_complexity")]
    async fn agent(&self, ctx: &Context<'_>) -> Option<Answer<Agent>> {
        maybe(ctx, agent_of(ctx, &self.0)).await
    }
}

pub(super) struct ReputationChangedEvent(Arc<Line>);

/// An agent's reputation moved.
#[Object]
impl ReputationChangedEvent {
    /// The id of the event, `evt_…`.
    async fn id(&self) -> ID {
        event_id(&self.0)
    }

    /// The place in the log.
    async fn cursor(&self) -> EventCursor {
        EventCursor(self.0.cursor)
    }

    /// What happened.
    async fn kind(&self) -> EventKind {
        self.0.event.kind.into()
    }

    /// When it happened.
    async fn occurred_at(&self) -> DateTime {
        DateTime(self.0.event.occurred_at)
    }

    /// The agent, `agent_…`.
    async fn agent_id(&self) -> Option<ID> {
        self.0.event.agent_id.map(ID::from)
    }

    /// The score right before.
    async fn score_before(&self) -> Option<Points> {
        self.0.event.payload.score_before.map(Points)
    }

    /// The score right after.
    async fn score_after(&self) -> Option<Points> {
        self.0.event.payload.score_after.map(Points)
    }

    /// The cause, as in `ReputationCause`.
    async fn reason(&self) -> Option<&str> {
        self.0.event.payload.reason.as_deref()
    }

    /// The agent as it is now.
    #[graphql(complexity = "1 + child_complexity")]
    async fn agent(&self, ctx: &Context<'_>) -> Option<Answer<Agent>> {
        maybe(ctx, agent_of(ctx, &self.0)).await
    }
}

pub(super) struct CreditsEvent(Arc<Line>);

/// Credits came into a wallet or left it, without a task or a channel.
#[Object]
impl CreditsEvent {
    /// The id of the event, `evt_…`.
    async fn id(&self) -> ID {
        event_id(&self.0)
    }

    /// The place in the log.
    async fn cursor(&self) -> EventCursor {
        EventCursor(self.0.cursor)
    }

    /// What happened.
    async fn kind(&self) -> EventKind {
        self.0.event.kind.into()
    }

    /// When it happened.
    async fn occurred_at(&self) -> DateTime {
        DateTime(self.0.event.occurred_at)
    }

    /// How much.
    async fn amount(&self) -> Option<Credits> {
        self.0.event.payload.amount.map(Credits)
    }

    /// The agent whose earnings or bond it was; null when it was about a wallet alone.
    #[graphql(complexity = "1 + child_complexity")]
    async fn agent(&self, ctx: &Context<'_>) -> Option<Answer<Agent>> {
        maybe(ctx, agent_of(ctx, &self.0)).await
    }
}

pub(super) struct DelegationEvent(Arc<Line>);

/// A delegation began, got its plan or ended, or one of its steps went on.
#[Object]
impl DelegationEvent {
    /// The id of the event, `evt_…`.
    async fn id(&self) -> ID {
        event_id(&self.0)
    }

    /// The place in the log.
    async fn cursor(&self) -> EventCursor {
        EventCursor(self.0.cursor)
    }

    /// What happened.
    async fn kind(&self) -> EventKind {
        self.0.event.kind.into()
    }

    /// When it happened.
    async fn occurred_at(&self) -> DateTime {
        DateTime(self.0.event.occurred_at)
    }

    /// The delegation, `dlg_…`.
    async fn delegation_id(&self) -> Option<ID> {
        self.0.event.delegation_id.map(ID::from)
    }

    /// The delegation as it is now; null for those who do not see it.
    #[graphql(complexity = "1 + child_complexity")]
    async fn delegation(&self, ctx: &Context<'_>) -> Option<Answer<Delegation>> {
        maybe(ctx, async {
            let Some(delegation) = self.0.event.delegation_id else { return Ok(None) };
            super::delegation::find(ctx, delegation).await
        })
        .await
    }

    /// The name of the step; null where it is about the whole.
    async fn step(&self) -> Option<&str> {
        self.0.event.payload.step.as_deref()
    }

    /// Which try at the step it is, from 1; null where the kind does not tell.
    async fn attempt(&self) -> Option<i32> {
        self.0.event.payload.attempt
    }

    /// The budget at the beginning, what was spent at the end; null where the kind does not tell.
    async fn amount(&self) -> Option<Credits> {
        self.0.event.payload.amount.map(Credits)
    }

    /// What went back; null before the end.
    async fn returned(&self) -> Option<Credits> {
        self.0.event.payload.returned.map(Credits)
    }

    /// How long what ended had lasted; null where nothing ended.
    async fn duration(&self) -> Option<Duration> {
        self.0.event.payload.duration_us.map(Duration::from_micros)
    }

    /// A stable code for why; null where the kind does not tell.
    async fn reason(&self) -> Option<&str> {
        self.0.event.payload.reason.as_deref()
    }
}

/// An event in a list.
#[derive(SimpleObject)]
pub(super) struct EventEdge {
    /// The place of the event, for `after`.
    cursor: EventCursor,
    /// The event.
    node: Event,
}

pub(super) struct EventConnection {
    lines: Vec<Arc<Line>>,
    more: bool,
    after: Option<Cursor>,
    end: Option<Cursor>,
}

/// A page of events.
#[Object]
impl EventConnection {
    /// The events of this page with their cursors.
    #[graphql(complexity = "child_complexity")]
    async fn edges(&self) -> Vec<EventEdge> {
        self.lines
            .iter()
            .map(|line| EventEdge { cursor: EventCursor(line.cursor), node: Arc::clone(line).into() })
            .collect()
    }

    /// The events of this page without their cursors.
    #[graphql(complexity = "child_complexity")]
    async fn nodes(&self) -> Vec<Event> {
        self.lines.iter().cloned().map(Event::from).collect()
    }

    /// Where this page is in the log. Its cursors are event cursors; `endCursor` may lie behind the last event shown.
    async fn page_info(&self) -> PageInfo {
        PageInfo {
            has_next_page: self.more,
            has_previous_page: self.after.is_some(),
            start_cursor: self.lines.first().map(|line| line.cursor.to_string()),
            end_cursor: self.end.map(|cursor| cursor.to_string()),
        }
    }
}

/// Which events to list: of at most one auction, task or agent, and of certain kinds.
#[derive(Clone, Debug, Default, InputObject)]
pub(super) struct EventFilter {
    /// About this auction.
    auction_id: Option<ID>,
    /// About this task; you must be party to it.
    task_id: Option<ID>,
    /// About this agent.
    agent_id: Option<ID>,
    /// Of one of these kinds.
    kinds: Option<Vec<EventKind>>,
}

/// Which events of the market to follow. All conditions must hold.
#[derive(Clone, Debug, Default, InputObject)]
pub(super) struct MarketEventFilter {
    /// Of one of these kinds.
    kinds: Option<Vec<EventKind>>,
    /// About this agent.
    agent_id: Option<ID>,
}

/// The caller as a reader of the log.
fn reader_of(ctx: &Context<'_>) -> Reader {
    if ctx.caller().is_admin() { Reader::Everything } else { ctx.viewer().map_or(Reader::Anybody, Reader::User) }
}

/// Whether an auction's stream ends with this event.
fn ends_auction(kind: Kind) -> bool {
    match kind {
        Kind::AuctionAwarded | Kind::AuctionExpired | Kind::AuctionCancelled => true,
        Kind::TaskPosted
        | Kind::AuctionOpened
        | Kind::BidSubmitted
        | Kind::BidWithdrawn
        | Kind::AuctionExtended
        | Kind::ChannelOpened
        | Kind::ChannelClosed
        | Kind::TaskReassigned
        | Kind::TaskStarted
        | Kind::TaskRetried
        | Kind::TaskCompleted
        | Kind::TaskRefunded
        | Kind::TaskExpired
        | Kind::TaskCancelled
        | Kind::ReputationChanged
        | Kind::BidCommitted
        | Kind::AuctionRevealing
        | Kind::BidRevealed
        | Kind::BondForfeited
        | Kind::ChannelToppedUp
        | Kind::ChannelPaid
        | Kind::ChannelClosing
        | Kind::ChannelReopened
        | Kind::ChannelEquivocation
        | Kind::TaskSubmitted
        | Kind::DisputeOpened
        | Kind::EvidenceSubmitted
        | Kind::DisputeResolved
        | Kind::WorkOffered
        | Kind::DelegationCreated
        | Kind::DelegationPlanned
        | Kind::StepStarted
        | Kind::StepCompleted
        | Kind::StepFailed
        | Kind::StepSkipped
        | Kind::DelegationStopping
        | Kind::DelegationCompleted
        | Kind::DelegationFailed
        | Kind::DelegationCancelled
        | Kind::EarningsWithdrawn
        | Kind::CreditsIssued
        | Kind::CreditsRedeemed => false,
    }
}

/// Whether a task's stream ends with this event.
fn ends_task(kind: Kind) -> bool {
    match kind {
        Kind::TaskCompleted | Kind::TaskRefunded | Kind::TaskExpired | Kind::TaskCancelled => true,
        Kind::TaskPosted
        | Kind::AuctionOpened
        | Kind::BidSubmitted
        | Kind::BidWithdrawn
        | Kind::AuctionExtended
        | Kind::AuctionAwarded
        | Kind::AuctionExpired
        | Kind::AuctionCancelled
        | Kind::ChannelOpened
        | Kind::ChannelClosed
        | Kind::TaskReassigned
        | Kind::TaskStarted
        | Kind::TaskRetried
        | Kind::ReputationChanged
        | Kind::BidCommitted
        | Kind::AuctionRevealing
        | Kind::BidRevealed
        | Kind::BondForfeited
        | Kind::ChannelToppedUp
        | Kind::ChannelPaid
        | Kind::ChannelClosing
        | Kind::ChannelReopened
        | Kind::ChannelEquivocation
        | Kind::TaskSubmitted
        | Kind::DisputeOpened
        | Kind::EvidenceSubmitted
        | Kind::DisputeResolved
        | Kind::WorkOffered
        | Kind::DelegationCreated
        | Kind::DelegationPlanned
        | Kind::StepStarted
        | Kind::StepCompleted
        | Kind::StepFailed
        | Kind::StepSkipped
        | Kind::DelegationStopping
        | Kind::DelegationCompleted
        | Kind::DelegationFailed
        | Kind::DelegationCancelled
        | Kind::EarningsWithdrawn
        | Kind::CreditsIssued
        | Kind::CreditsRedeemed => false,
    }
}

/// Whether a delegation's stream ends with this event.
fn ends_delegation(kind: Kind) -> bool {
    match kind {
        Kind::DelegationCompleted | Kind::DelegationFailed | Kind::DelegationCancelled => true,
        Kind::TaskPosted
        | Kind::TaskCompleted
        | Kind::TaskRefunded
        | Kind::TaskExpired
        | Kind::TaskCancelled
        | Kind::AuctionOpened
        | Kind::BidSubmitted
        | Kind::BidWithdrawn
        | Kind::AuctionExtended
        | Kind::AuctionAwarded
        | Kind::AuctionExpired
        | Kind::AuctionCancelled
        | Kind::ChannelOpened
        | Kind::ChannelClosed
        | Kind::TaskReassigned
        | Kind::TaskStarted
        | Kind::TaskRetried
        | Kind::ReputationChanged
        | Kind::BidCommitted
        | Kind::AuctionRevealing
        | Kind::BidRevealed
        | Kind::BondForfeited
        | Kind::ChannelToppedUp
        | Kind::ChannelPaid
        | Kind::ChannelClosing
        | Kind::ChannelReopened
        | Kind::ChannelEquivocation
        | Kind::TaskSubmitted
        | Kind::DisputeOpened
        | Kind::EvidenceSubmitted
        | Kind::DisputeResolved
        | Kind::WorkOffered
        | Kind::DelegationCreated
        | Kind::DelegationPlanned
        | Kind::StepStarted
        | Kind::StepCompleted
        | Kind::StepFailed
        | Kind::StepSkipped
        | Kind::DelegationStopping
        | Kind::EarningsWithdrawn
        | Kind::CreditsIssued
        | Kind::CreditsRedeemed => false,
    }
}

/// Whether an event moves the credits of those whom it names, or decides about credits of theirs in escrow or in a channel.
fn settles(kind: Kind) -> bool {
    match kind {
        Kind::TaskPosted
        | Kind::ChannelOpened
        | Kind::ChannelClosed
        | Kind::TaskReassigned
        | Kind::TaskCompleted
        | Kind::TaskRefunded
        | Kind::TaskExpired
        | Kind::TaskCancelled
        | Kind::ChannelToppedUp
        | Kind::ChannelPaid
        | Kind::TaskSubmitted
        | Kind::DisputeOpened
        | Kind::EvidenceSubmitted
        | Kind::ChannelClosing
        | Kind::ChannelReopened
        | Kind::ChannelEquivocation
        | Kind::DisputeResolved
        | Kind::BondForfeited
        | Kind::DelegationCreated
        | Kind::DelegationCompleted
        | Kind::DelegationFailed
        | Kind::DelegationCancelled
        | Kind::EarningsWithdrawn
        | Kind::CreditsIssued
        | Kind::CreditsRedeemed => true,
        Kind::AuctionOpened
        | Kind::BidSubmitted
        | Kind::BidWithdrawn
        | Kind::AuctionExtended
        | Kind::AuctionAwarded
        | Kind::AuctionExpired
        | Kind::AuctionCancelled
        | Kind::TaskStarted
        | Kind::TaskRetried
        | Kind::BidCommitted
        | Kind::AuctionRevealing
        | Kind::BidRevealed
        | Kind::WorkOffered
        | Kind::DelegationPlanned
        | Kind::StepStarted
        | Kind::StepCompleted
        | Kind::StepFailed
        | Kind::StepSkipped
        | Kind::DelegationStopping
        | Kind::ReputationChanged => false,
    }
}

/// Whether none of a stream's subject's ends lies behind `after` although the subject is over: the client has seen it all.
async fn has_seen_the_end(store: &Store, topic: Topic, after: Option<Cursor>, ends: fn(Kind) -> bool) -> Result<bool> {
    let Some(after) = after else { return Ok(true) };
    let mut from = None;
    loop {
        let lines = store.lines(Some(topic), from, STEP).await?;
        if lines.iter().any(|line| line.cursor <= after && ends(line.event.kind)) {
            return Ok(true);
        }
        match lines.last() {
            Some(last) if last.cursor < after => from = Some(last.cursor),
            Some(_) | None => return Ok(false),
        }
    }
}

/// What a stream lets through.
pub(super) type Filter = Box<dyn Fn(&Model) -> bool + Send + Sync>;

/// The lines of what a subscription follows, up to the event that ends it.
pub(super) fn events(follow: Follow, shows: Filter, ends: fn(Kind) -> bool, request_id: String) -> Lines {
    struct State {
        follow: Follow,
        shows: Filter,
        request_id: String,
        over: bool,
    }
    let start = State { follow, shows, request_id, over: false };
    stream::unfold(start, move |mut state| async move {
        while !state.over {
            match state.follow.next().await? {
                Ok(line) => {
                    state.over = ends(line.event.kind);
                    if (state.shows)(&line.event) {
                        return Some((Item(Ok(line)), state));
                    }
                }
                Err(error) => {
                    state.over = true;
                    return Some((Item(Err(fault(&error, &state.request_id))), state));
                }
            }
        }
        None
    })
    .boxed()
}

#[derive(Default)]
pub(super) struct EventQuery;

#[Object]
impl EventQuery {
    /// The log of what happened, oldest first: what is public, and what names you as payer or as an agent's owner. The same
    /// events, with the same cursors, as the subscriptions have.
    #[graphql(complexity = "list_cost(__ctx, __variables_definition, __field, child_complexity)")]
    async fn events(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which events.")] filter: Option<EventFilter>,
        #[graphql(desc = "How many: 1 to 100, 20 when it is left out.")] first: Option<i32>,
        #[graphql(desc = "Only what comes after this cursor; from the start when it is left out.")] after: Option<
            EventCursor,
        >,
    ) -> Option<Answer<EventConnection>> {
        maybe(ctx, async {
            let filter = filter.unwrap_or_default();
            let topic = topic(ctx, &filter).await?;
            let kinds: Option<Vec<Kind>> = filter.kinds.map(|kinds| kinds.into_iter().map(Kind::from).collect());
            page(ctx, topic, kinds.as_deref(), first, after).await.map(Some)
        })
        .await
    }
}

/// A page of what the caller may see of a topic, or of the whole log.
pub(super) async fn page(
    ctx: &Context<'_>,
    topic: Option<Topic>,
    kinds: Option<&[Kind]>,
    first: Option<i32>,
    after: Option<EventCursor>,
) -> Result<EventConnection> {
    let first = first.unwrap_or(DEFAULT_PAGE);
    if !(1..=MAX_PAGE).contains(&first) {
        return Err(Error::invalid("first", format!("must be from 1 to {MAX_PAGE}")));
    }
    let wanted = usize::try_from(first).unwrap_or(0);
    let after = after.map(|cursor| cursor.0);
    if let Some(after) = after {
        ctx.store().keeps(after).await?;
    }
    let reader = reader_of(ctx);
    let shows = |event: &Model| kinds.is_none_or(|kinds| kinds.contains(&event.kind));
    let mut page = EventConnection { lines: Vec::new(), more: true, after, end: after };
    for _ in 0..STEPS {
        let lines = ctx.store().lines_for(reader, topic, page.end, STEP).await?;
        let full = u64::try_from(lines.len()).is_ok_and(|read| read == STEP);
        for line in lines {
            if !shows(&line.event) {
                page.end = Some(line.cursor);
            } else if page.lines.len() == wanted {
                return Ok(page);
            } else {
                page.end = Some(line.cursor);
                page.lines.push(Arc::new(line));
            }
        }
        if !full {
            page.more = false;
            break;
        }
    }
    Ok(page)
}

/// The part of the log that a filter is about.
async fn topic(ctx: &Context<'_>, filter: &EventFilter) -> Result<Option<Topic>> {
    match (&filter.auction_id, &filter.task_id, &filter.agent_id) {
        (Some(auction), None, None) => Ok(Some(Topic::Auction(parse_id(auction, "filter.auctionId")?))),
        (None, Some(task), None) => {
            let task: TaskId = parse_id(task, "filter.taskId")?;
            super::task::visible(ctx, task).await?.ok_or(Error::NotFound("task"))?;
            Ok(Some(Topic::Task(task)))
        }
        (None, None, Some(agent)) => Ok(Some(Topic::Agent(parse_id(agent, "filter.agentId")?))),
        (None, None, None) if ctx.caller().is_admin() => Ok(None),
        (None, None, None) => Ok(Some(Topic::Market)),
        (Some(_), Some(_), _) | (Some(_), None, Some(_)) | (None, Some(_), Some(_)) => {
            Err(Error::invalid("filter", "must name at most one of auctionId, taskId and agentId"))
        }
    }
}

#[derive(Default)]
pub(super) struct EventSubscription;

#[Subscription]
impl EventSubscription {
    /// What happens to an auction; ends with it.
    async fn auction_events(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The auction, `auc_…`.")] auction_id: ID,
        #[graphql(desc = "Begin behind this event; from now on when it is left out.")] after: Option<EventCursor>,
    ) -> std::result::Result<BoxStream<'static, Answer<Event>>, Fault> {
        followed(ctx, async {
            let auction: AuctionId = parse_id(&auction_id, "auctionId")?;
            let (topic, after) = (Topic::Auction(auction), after.map(|cursor| cursor.0));
            let follow = ctx.store().follow(topic, after).await?;
            let row = ctx.loaders().auctions(auction).await?.ok_or(Error::NotFound("auction"))?;
            let over = row.closed_at.is_some();
            if over && has_seen_the_end(ctx.store(), topic, after, ends_auction).await? {
                return Ok(stream::empty().boxed());
            }
            let reader = reader_of(ctx);
            let shows: Filter = Box::new(move |event| reader.may_see(event));
            Ok(events(follow, shows, ends_auction, ctx.request_id().to_owned()))
        })
        .await
    }

    /// Everything public that happens on the market.
    async fn market_events(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which events.")] filter: Option<MarketEventFilter>,
        #[graphql(desc = "Begin behind this event; from now on when it is left out.")] after: Option<EventCursor>,
    ) -> std::result::Result<BoxStream<'static, Answer<Event>>, Fault> {
        followed(ctx, async {
            let follow = ctx.store().follow(Topic::Market, after.map(|cursor| cursor.0)).await?;
            let MarketEventFilter { kinds, agent_id } = filter.unwrap_or_default();
            let kinds: Option<Vec<Kind>> = kinds.map(|kinds| kinds.into_iter().map(Kind::from).collect());
            let agent = agent_id.map(|id| parse_id::<AgentId>(&id, "filter.agentId")).transpose()?;
            let shows: Filter = Box::new(move |event| {
                kinds.as_ref().is_none_or(|kinds| kinds.contains(&event.kind))
                    && (agent.is_none() || event.agent_id == agent)
            });
            Ok(events(follow, shows, |_| false, ctx.request_id().to_owned()))
        })
        .await
    }

    /// What happens to a task that you are party to; ends with it.
    #[graphql(directive = requires::apply(scopes("taskEvents"), role("taskEvents")))]
    async fn task_events(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The task, `task_…`.")] task_id: ID,
        #[graphql(desc = "Begin behind this event; from now on when it is left out.")] after: Option<EventCursor>,
    ) -> std::result::Result<BoxStream<'static, Answer<Event>>, Fault> {
        followed(ctx, async {
            ctx.caller().with_scope(Scope::Read)?;
            let task: TaskId = parse_id(&task_id, "taskId")?;
            let (topic, after) = (Topic::Task(task), after.map(|cursor| cursor.0));
            let follow = ctx.store().follow(topic, after).await?;
            let row = super::task::visible(ctx, task).await?.ok_or(Error::NotFound("task"))?;
            if is_over(row.status) && has_seen_the_end(ctx.store(), topic, after, ends_task).await? {
                return Ok(stream::empty().boxed());
            }
            let reader = reader_of(ctx);
            let shows: Filter = Box::new(move |event| reader.may_see(event));
            Ok(events(follow, shows, ends_task, ctx.request_id().to_owned()))
        })
        .await
    }

    /// What happens to a delegation of yours, to its steps and to their tasks; ends with it.
    #[graphql(directive = requires::apply(scopes("delegationEvents"), role("delegationEvents")))]
    async fn delegation_events(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The delegation, `dlg_…`.")] delegation_id: ID,
        #[graphql(desc = "Begin behind this event; from now on when it is left out.")] after: Option<EventCursor>,
    ) -> std::result::Result<BoxStream<'static, Answer<Event>>, Fault> {
        followed(ctx, async {
            ctx.caller().with_scope(Scope::Read)?;
            let delegation: DelegationId = parse_id(&delegation_id, "delegationId")?;
            let (topic, after) = (Topic::Delegation(delegation), after.map(|cursor| cursor.0));
            let follow = ctx.store().follow(topic, after).await?;
            let row = super::delegation::visible(ctx, delegation).await?.ok_or(Error::NotFound("delegation"))?;
            if row.finished_at.is_some() && has_seen_the_end(ctx.store(), topic, after, ends_delegation).await? {
                return Ok(stream::empty().boxed());
            }
            let reader = reader_of(ctx);
            let shows: Filter = Box::new(move |event| reader.may_see(event));
            Ok(events(follow, shows, ends_delegation, ctx.request_id().to_owned()))
        })
        .await
    }

    /// What moves your credits and your agents' earnings, or decides about them: budgets held, channels, results that wait for a
    /// word, disputes, payouts, refunds, issues and redemptions.
    #[graphql(directive = requires::apply(scopes("settlementEvents"), role("settlementEvents")))]
    async fn settlement_events(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Begin behind this event; from now on when it is left out.")] after: Option<EventCursor>,
    ) -> std::result::Result<BoxStream<'static, Answer<Event>>, Fault> {
        followed(ctx, async {
            let viewer = ctx.caller().with_scope(Scope::Read)?;
            let follow = ctx.store().follow(Topic::User(viewer), after.map(|cursor| cursor.0)).await?;
            let shows: Filter = Box::new(|event| settles(event.kind));
            Ok(events(follow, shows, |_| false, ctx.request_id().to_owned()))
        })
        .await
    }

    /// What moves an agent's reputation.
    async fn reputation_events(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The agent, `agent_…`.")] agent_id: ID,
        #[graphql(desc = "Begin behind this event; from now on when it is left out.")] after: Option<EventCursor>,
    ) -> std::result::Result<BoxStream<'static, Answer<Event>>, Fault> {
        followed(ctx, async {
            let agent: AgentId = parse_id(&agent_id, "agentId")?;
            let follow = ctx.store().follow(Topic::Agent(agent), after.map(|cursor| cursor.0)).await?;
            ctx.loaders().agents(agent).await?.ok_or(Error::NotFound("agent"))?;
            let shows: Filter = Box::new(|event| event.kind == Kind::ReputationChanged);
            Ok(events(follow, shows, |_| false, ctx.request_id().to_owned()))
        })
        .await
    }
}
