//! One goal, split over several agents: a budget held once, and a plan of steps that are paid out of it.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    choice,
    id::{DelegationId, StepId, UserId},
    money::Amount,
    task::Priority,
    text::{JsonText, Words},
    time::Timestamp,
};

choice! {
    /// The states of a delegation.
    Status {
        /// An agent makes the plan.
        Planning = "PLANNING",
        /// Steps are done as their inputs are ready.
        Running = "RUNNING",
        /// Nothing new begins; what is in work ends first.
        Stopping = "STOPPING",
        /// Every step is done or skipped.
        Completed = "COMPLETED",
        /// A step, the planning or the time failed.
        Failed = "FAILED",
        /// The requester called it off.
        Cancelled = "CANCELLED",
    }
}

choice! {
    /// Who made the plan.
    Source {
        /// The client gave it.
        Client = "CLIENT",
        /// One step for each capability, in order.
        Capabilities = "CAPABILITIES",
        /// An agent that won the planning.
        Agent = "AGENT",
    }
}

/// A row of `delegations`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DeriveEntityModel)]
#[sea_orm(table_name = "delegations")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: DelegationId,
    pub requester_id: UserId,
    /// The delegation of which this is a step that has steps of its own.
    pub parent_id: Option<DelegationId>,
    /// The group of the parent that it is, and in which attempt; unique together, so that the database refuses to begin the same twice.
    pub step_id: Option<StepId>,
    pub attempt: Option<i32>,
    /// 1 for what a user delegates, one more for each level below; at most 3.
    pub depth: i32,
    pub goal: String,
    /// What the goal needs, where the requester says so.
    pub capabilities: Words,
    /// What steps may refer to as `input`.
    pub input: JsonText,
    pub priority: Priority,
    pub budget: Amount,
    /// What of the budget is for making the plan; zero but for a plan by an agent.
    pub planning_budget: Amount,
    /// How long the auctions of its steps take bids, in milliseconds; they are decided at once when empty.
    pub closes_in_ms: Option<i64>,
    pub source: Source,
    /// The plan as JSON; empty while it is being made.
    pub plan: Option<JsonText>,
    pub status: Status,
    /// A stable code for why it stops or ended without its output.
    pub stop_code: Option<String>,
    pub stop_message: Option<String>,
    /// What its steps were paid, once it is over.
    pub spent: Option<Amount>,
    pub output: Option<JsonText>,
    /// When it stops at the latest.
    pub ends_by: Timestamp,
    /// When the sweeper must act if nobody else did; empty in a terminal state.
    pub deadline_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub planned_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
