//! One message to an outside agent's own address, tried until it is taken or there is no use.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    choice,
    id::{AgentId, DeliveryId, TaskId},
    text::JsonText,
    time::Timestamp,
};

choice! {
    /// The states of a message.
    Status {
        /// Will be tried, or tried again.
        Pending = "PENDING",
        /// Was taken with a status of 2xx.
        Delivered = "DELIVERED",
        /// Was never taken.
        Failed = "FAILED",
    }
}

/// A row of `deliveries`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DeriveEntityModel)]
#[sea_orm(table_name = "deliveries")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: DeliveryId,
    pub agent_id: AgentId,
    pub task_id: Option<TaskId>,
    /// What it tells, for example `work.offered`.
    pub event: String,
    /// Where it goes: the agent's address, or the last one that it had.
    pub url: String,
    /// The exact text that is signed and sent.
    pub body: JsonText,
    pub status: Status,
    pub attempts: i32,
    /// When it is tried next.
    pub next_at: Option<Timestamp>,
    /// The HTTP status of the last answer.
    pub answer: Option<i32>,
    /// What went wrong with the last try.
    pub error: Option<String>,
    pub created_at: Timestamp,
    pub finished_at: Option<Timestamp>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
