//! A task that a step of a delegation buys: one of its replicas in one of its attempts.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::id::{StepId, TaskId};

/// A row of `delegation_tasks`. `(step_id, attempt, replica)` is unique: the database refuses to buy the same twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DeriveEntityModel)]
#[sea_orm(table_name = "delegation_tasks")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub task_id: TaskId,
    pub step_id: StepId,
    /// From 1.
    pub attempt: i32,
    /// From 1.
    pub replica: i32,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
