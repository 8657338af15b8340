//! One line of the append-only log of what happened. On PostgreSQL the table has one more column, the line's place in the log,
//! which only the log's reader and the database know.

use sea_orm::{FromJsonQueryResult, entity::prelude::*};
use serde::{Deserialize, Serialize};

use crate::{
    agent::Runtime,
    choice,
    id::{AgentId, AuctionId, BidId, ChannelId, DelegationId, TaskId, UserId},
    money::Amount,
    time::Timestamp,
};

choice! {
    /// What happened.
    Kind {
        /// A task was posted and its budget held.
        TaskPosted = "TASK_POSTED",
        /// An auction opened for a task.
        AuctionOpened = "AUCTION_OPENED",
        /// A bid was made. In a sealed auction only the number of bids is told.
        BidSubmitted = "BID_SUBMITTED",
        /// A bid was taken back.
        BidWithdrawn = "BID_WITHDRAWN",
        /// A late bid moved the close of an open auction.
        AuctionExtended = "AUCTION_EXTENDED",
        /// A bidder committed to a bid without telling it.
        BidCommitted = "BID_COMMITTED",
        /// The time for commitments is over; bidders reveal their bids.
        AuctionRevealing = "AUCTION_REVEALING",
        /// A bidder told the bid that it had committed to.
        BidRevealed = "BID_REVEALED",
        /// A bidder lost a bond to the requester.
        BondForfeited = "BOND_FORFEITED",
        /// An auction closed with a winner.
        AuctionAwarded = "AUCTION_AWARDED",
        /// An auction closed without an eligible bid.
        AuctionExpired = "AUCTION_EXPIRED",
        /// The requester called an auction off.
        AuctionCancelled = "AUCTION_CANCELLED",
        /// An escrow channel opened with the price of an award.
        ChannelOpened = "CHANNEL_OPENED",
        /// A channel closed: settled, refunded or forfeited.
        ChannelClosed = "CHANNEL_CLOSED",
        /// The payer put more into a streaming channel.
        ChannelToppedUp = "CHANNEL_TOPPED_UP",
        /// A streaming channel paid, by a voucher or a deduction.
        ChannelPaid = "CHANNEL_PAID",
        /// The payer asked for a streaming channel to close.
        ChannelClosing = "CHANNEL_CLOSING",
        /// The payer took the request to close back.
        ChannelReopened = "CHANNEL_REOPENED",
        /// A payer signed two vouchers of one nonce with different amounts.
        ChannelEquivocation = "CHANNEL_EQUIVOCATION",
        /// The winner did not start in time and the next bid took its place.
        TaskReassigned = "TASK_REASSIGNED",
        /// A worker claimed a task.
        TaskStarted = "TASK_STARTED",
        /// An attempt failed through our fault; the task will be tried again.
        TaskRetried = "TASK_RETRIED",
        /// The result of a task is there and waits for the payer.
        TaskSubmitted = "TASK_SUBMITTED",
        /// A party disputes the result of a task.
        DisputeOpened = "DISPUTE_OPENED",
        /// A party showed something in a dispute.
        EvidenceSubmitted = "EVIDENCE_SUBMITTED",
        /// An arbiter ruled a dispute, or its time was over.
        DisputeResolved = "DISPUTE_RESOLVED",
        /// Work was accepted and paid.
        TaskCompleted = "TASK_COMPLETED",
        /// Work failed and the price went back.
        TaskRefunded = "TASK_REFUNDED",
        /// No agent did the task; the money went back.
        TaskExpired = "TASK_EXPIRED",
        /// The requester cancelled a task; the budget went back.
        TaskCancelled = "TASK_CANCELLED",
        /// An agent's reputation moved.
        ReputationChanged = "REPUTATION_CHANGED",
        /// Credits came into a wallet from outside.
        CreditsIssued = "CREDITS_ISSUED",
        /// Credits left a wallet to the outside.
        CreditsRedeemed = "CREDITS_REDEEMED",
        /// An agent's earnings went to its owner.
        EarningsWithdrawn = "EARNINGS_WITHDRAWN",
        /// An outside agent may claim work that it won.
        WorkOffered = "WORK_OFFERED",
        /// A goal was delegated and its budget set aside.
        DelegationCreated = "DELEGATION_CREATED",
        /// A delegation has its plan.
        DelegationPlanned = "DELEGATION_PLANNED",
        /// A step of a delegation began, the first time or again.
        StepStarted = "STEP_STARTED",
        /// A step has its output.
        StepCompleted = "STEP_COMPLETED",
        /// A step failed for good.
        StepFailed = "STEP_FAILED",
        /// A step failed, and the delegation goes on without it.
        StepSkipped = "STEP_SKIPPED",
        /// A delegation begins nothing new and waits for what is in work.
        DelegationStopping = "DELEGATION_STOPPING",
        /// Every step is done; what was not needed went back.
        DelegationCompleted = "DELEGATION_COMPLETED",
        /// A delegation ended without its output; what was not spent went back.
        DelegationFailed = "DELEGATION_FAILED",
        /// The requester called a delegation off; what was not spent went back.
        DelegationCancelled = "DELEGATION_CANCELLED",
    }
}

impl Kind {
    /// Whether everybody may see events of this kind. The others are for the users that the event names.
    #[must_use]
    pub const fn is_public(self) -> bool {
        match self {
            Self::AuctionOpened
            | Self::BidSubmitted
            | Self::BidWithdrawn
            | Self::BidCommitted
            | Self::AuctionRevealing
            | Self::BidRevealed
            | Self::AuctionExtended
            | Self::AuctionAwarded
            | Self::AuctionExpired
            | Self::AuctionCancelled
            | Self::ReputationChanged => true,
            Self::TaskPosted
            | Self::ChannelOpened
            | Self::ChannelClosed
            | Self::ChannelToppedUp
            | Self::ChannelPaid
            | Self::ChannelClosing
            | Self::ChannelReopened
            | Self::ChannelEquivocation
            | Self::TaskSubmitted
            | Self::DisputeOpened
            | Self::EvidenceSubmitted
            | Self::DisputeResolved
            | Self::BondForfeited
            | Self::EarningsWithdrawn
            | Self::WorkOffered
            | Self::DelegationCreated
            | Self::DelegationPlanned
            | Self::StepStarted
            | Self::StepCompleted
            | Self::StepFailed
            | Self::StepSkipped
            | Self::DelegationStopping
            | Self::DelegationCompleted
            | Self::DelegationFailed
            | Self::DelegationCancelled
            | Self::TaskReassigned
            | Self::TaskStarted
            | Self::TaskRetried
            | Self::TaskCompleted
            | Self::TaskRefunded
            | Self::TaskExpired
            | Self::TaskCancelled
            | Self::CreditsIssued
            | Self::CreditsRedeemed => false,
        }
    }
}

/// The values of an event, each where its kind has it. Nothing sealed is ever in here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, FromJsonQueryResult)]
#[serde(rename_all = "camelCase", default)]
pub struct Payload {
    /// The bid concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bid_id: Option<BidId>,
    /// A price or amount of credits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amount: Option<Amount>,
    /// The platform's fee out of `amount`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fee: Option<Amount>,
    /// What went back to the payer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub returned: Option<Amount>,
    /// How many live bids the auction has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bid_count: Option<i32>,
    /// When the auction closes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closes_at: Option<Timestamp>,
    /// Which try at the work this is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<i32>,
    /// Where the work runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Runtime>,
    /// A stable code that says why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How long the thing that ended had lasted, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_us: Option<i64>,
    /// How long the result of a task had waited for the settlement, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waited_us: Option<i64>,
    /// An agent's score in milli-points before and after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score_before: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score_after: Option<i32>,
    /// The name of a step of a delegation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
}

/// A row of `events`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DeriveEntityModel)]
#[sea_orm(table_name = "events")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub kind: Kind,
    pub auction_id: Option<AuctionId>,
    pub task_id: Option<TaskId>,
    pub channel_id: Option<ChannelId>,
    pub delegation_id: Option<DelegationId>,
    pub agent_id: Option<AgentId>,
    /// The user who pays or requests.
    pub payer_id: Option<UserId>,
    /// The user who owns the agent concerned.
    pub owner_id: Option<UserId>,
    /// Who did it; empty for the system.
    pub actor_id: Option<UserId>,
    pub payload: Payload,
    pub occurred_at: Timestamp,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
