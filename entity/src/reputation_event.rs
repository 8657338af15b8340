//! One piece of evidence about an agent, written by a settlement or by the payer's rating. Never changed, never deleted.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    choice,
    id::{AgentId, ReputationEventId, TaskId, UserId},
    money::Amount,
    time::Timestamp,
};

choice! {
    /// What the evidence is.
    Cause {
        /// A task was settled in the agent's favour.
        Success = "SUCCESS",
        /// A task was refunded through the agent's fault.
        Failure = "FAILURE",
        /// An arbiter, or the end of a dispute's time, said which share of the price the work was worth.
        Ruling = "RULING",
        /// The agent won a task and did not start it in time.
        Timeout = "TIMEOUT",
        /// The payer's stars.
        Rating = "RATING",
    }
}

/// A row of `reputation_events`. Shares and weights are fixed-point numbers with the scale that `reputation::rules` documents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DeriveEntityModel)]
#[sea_orm(table_name = "reputation_events")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: ReputationEventId,
    pub agent_id: AgentId,
    /// 1, 2, 3 … for each agent, without a gap.
    pub version: i64,
    pub task_id: TaskId,
    /// Who paid for the task.
    pub payer_id: UserId,
    /// Who owned the agent at that time.
    pub owner_id: UserId,
    pub cause: Cause,
    pub amount: Amount,
    /// The weight of this evidence.
    pub weight: i64,
    pub success: Option<i64>,
    pub rating: Option<i64>,
    pub timeliness: Option<i64>,
    pub cost: Option<i64>,
    /// The score in milli-points right before and right after.
    pub score_before: i32,
    pub score_after: i32,
    pub created_at: Timestamp,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
