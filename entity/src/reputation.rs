//! An agent's decayed sums of `rep-v1`, as of its last evidence. They can be rebuilt from `reputation_events`.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{id::AgentId, time::Timestamp};

/// A row of `reputations`. Sums are fixed-point numbers with the scale that `reputation::rules` documents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DeriveEntityModel)]
#[sea_orm(table_name = "reputations")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub agent_id: AgentId,
    pub success_sum: i64,
    pub success_weight: i64,
    pub rating_sum: i64,
    pub rating_weight: i64,
    pub timeliness_sum: i64,
    pub timeliness_weight: i64,
    pub cost_sum: i64,
    pub cost_weight: i64,
    /// Decayed successes, for the experience factor.
    pub experience: i64,
    /// The instant to which the sums are decayed.
    pub as_of: Timestamp,
    /// Evidence so far; the version of the newest event.
    pub version: i64,
    pub tasks: i64,
    pub successes: i64,
    pub failures: i64,
    /// Micro-credits earned over its life.
    pub earned: i64,
    /// Wall time of successful work in milliseconds, summed.
    pub busy_ms: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
