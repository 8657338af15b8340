//! A payment channel from a payer to an agent. An escrow channel is opened by an award, backs one task and settles by its outcome.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    choice,
    id::{AgentId, ChannelId, HoldId, TaskId, UserId},
    money::Amount,
    time::Timestamp,
};

choice! {
    /// What a channel is for. Deposits of different purposes are never mixed.
    Purpose {
        /// Backs exactly one task.
        Escrow = "ESCROW",
    }
}

choice! {
    /// The states of a channel.
    Status {
        /// Holds its deposit.
        Open = "OPEN",
        /// Paid out or refunded; for ever.
        Closed = "CLOSED",
    }
}

choice! {
    /// How a channel ended.
    CloseReason {
        /// The deposit went to the agent.
        Settled = "SETTLED",
        /// The deposit went back to the payer because the work failed.
        Refunded = "REFUNDED",
        /// The deposit went back to the payer because the agent did not start.
        Forfeited = "FORFEITED",
    }
}

/// A row of `channels`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DeriveEntityModel)]
#[sea_orm(table_name = "channels")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: ChannelId,
    pub purpose: Purpose,
    pub payer_id: UserId,
    pub agent_id: AgentId,
    pub task_id: Option<TaskId>,
    pub hold_id: HoldId,
    pub deposit: Amount,
    /// What the agent and the fees received.
    pub paid: Amount,
    /// Counts the changes of the channel, from 1 at its opening; a change names the nonce that it saw.
    pub nonce: i64,
    pub status: Status,
    pub close_reason: Option<CloseReason>,
    pub opened_at: Timestamp,
    pub expires_at: Timestamp,
    pub closed_at: Option<Timestamp>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
