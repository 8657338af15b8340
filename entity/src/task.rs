//! A piece of work that somebody pays for, from its posting to its settlement.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    choice,
    id::{AgentId, BidId, ChannelId, DelegationId, HoldId, ModuleId, TaskId, UserId},
    money::Amount,
    text::{JsonText, Words},
    time::Timestamp,
};

choice! {
    /// The states of a task.
    Status {
        /// Its auction takes bids; the budget is held.
        Open = "OPEN",
        /// An agent won; the price is in escrow; the work waits to be claimed.
        Awarded = "AWARDED",
        /// A worker has claimed the work.
        Running = "RUNNING",
        /// The result is there; the payer has a window to accept or reject it.
        Submitted = "SUBMITTED",
        /// A party disputes the result; an arbiter rules who gets how much.
        Disputed = "DISPUTED",
        /// Work was accepted and paid.
        Completed = "COMPLETED",
        /// Work failed; the price went back.
        Refunded = "REFUNDED",
        /// No eligible bid, or no winner started; the money went back.
        Expired = "EXPIRED",
        /// The requester withdrew the task before an award; the budget went back.
        Cancelled = "CANCELLED",
    }
}

choice! {
    /// Who says that work is good.
    Acceptance {
        /// The verifiers: work that passes them is paid at once.
        Automatic = "AUTOMATIC",
        /// The payer, within a window; silence accepts if and only if the verifiers passed.
        Review = "REVIEW",
        /// The other agents that do the same: enough equal results are paid, and only they.
        Agreement = "AGREEMENT",
    }
}

choice! {
    /// How much of a hurry there is with work that waits.
    Priority {
        /// Lets other work that waits go first.
        Low = "LOW",
        /// As everybody.
        Normal = "NORMAL",
        /// Goes before other work that waits, but not for ever.
        High = "HIGH",
    }
}

choice! {
    /// What a task is bought for, which says what its output must be.
    Purpose {
        /// Work; the output is what the requester asked for.
        Work = "WORK",
        /// The plan of a delegation.
        Plan = "PLAN",
    }
}

/// What a task had before tasks said it: rows are kept as the answers of mutations, and those of earlier releases are read too.
fn usual_priority() -> Priority {
    Priority::Normal
}

fn usual_purpose() -> Purpose {
    Purpose::Work
}

/// A row of `tasks`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DeriveEntityModel)]
#[sea_orm(table_name = "tasks")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: TaskId,
    pub requester_id: UserId,
    pub title: String,
    /// What an agent must be able to do; sorted, at least one.
    pub capabilities: Words,
    /// The exact text that the agent reads.
    pub input: JsonText,
    /// SHA-256 of the input text in lower-case hex.
    pub input_sha256: String,
    /// A JSON Schema that the output must satisfy.
    pub output_schema: Option<JsonText>,
    pub budget: Amount,
    pub status: Status,
    /// The wall-clock limit of one attempt, in milliseconds.
    pub timeout_ms: i64,
    /// How often the work is tried when the fault is ours.
    pub max_attempts: i32,
    /// How long a winner may take to start, in milliseconds.
    pub start_timeout_ms: i64,
    /// The hold on the budget; resolved by the award or by giving up.
    pub hold_id: HoldId,
    pub bid_id: Option<BidId>,
    pub agent_id: Option<AgentId>,
    pub channel_id: Option<ChannelId>,
    /// What the winner is paid on success.
    pub price: Option<Amount>,
    /// What was paid in the end; zero after a refund.
    pub paid: Option<Amount>,
    /// When the sweeper must act if nobody else did; empty in a terminal state.
    pub deadline_at: Option<Timestamp>,
    /// A stable code for why the task ended without a payment.
    pub failure_code: Option<String>,
    pub failure_message: Option<String>,
    pub created_at: Timestamp,
    pub awarded_at: Option<Timestamp>,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub acceptance: Acceptance,
    /// How long the payer may look at a result, in milliseconds; only with REVIEW.
    pub review_ms: Option<i64>,
    /// Whether the verifiers passed the result; empty before there is one.
    pub verified: Option<bool>,
    /// When the result came.
    pub submitted_at: Option<Timestamp>,
    /// The delegation that pays for it, out of its own escrow.
    pub delegation_id: Option<DelegationId>,
    #[serde(default = "usual_priority")]
    pub priority: Priority,
    #[serde(default = "usual_purpose")]
    pub purpose: Purpose,
    /// The module that says whether an output is good, fixed at the posting.
    pub checker_id: Option<ModuleId>,
    /// What good work is paid when that is less than the price, because the price is metered; empty before there is a result.
    pub charge: Option<Amount>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
