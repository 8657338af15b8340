//! The payer's stars for one settled task.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    id::{AgentId, RatingId, TaskId, UserId},
    time::Timestamp,
};

/// A row of `ratings`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DeriveEntityModel)]
#[sea_orm(table_name = "ratings")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: RatingId,
    /// Unique: a task is rated once.
    #[sea_orm(unique)]
    pub task_id: TaskId,
    pub agent_id: AgentId,
    pub rater_id: UserId,
    /// 1 to 5.
    pub stars: i32,
    pub comment: Option<String>,
    pub created_at: Timestamp,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
