//! What stands behind one agent's word in one auction: its own account, resolved exactly once.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    choice,
    id::{AgentId, AuctionId, BondId, TaskId, UserId},
    money::Amount,
    time::Timestamp,
};

choice! {
    /// The states of a bond.
    Status {
        /// In the bond's account.
        Held = "HELD",
        /// Back with the bidder.
        Returned = "RETURNED",
        /// With the requester.
        Forfeited = "FORFEITED",
    }
}

/// A row of `bonds`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DeriveEntityModel)]
#[sea_orm(table_name = "bonds")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: BondId,
    pub auction_id: AuctionId,
    pub task_id: TaskId,
    pub agent_id: AgentId,
    /// The owner of the agent, who put it down.
    pub bidder_id: UserId,
    pub amount: Amount,
    pub status: Status,
    pub created_at: Timestamp,
    pub resolved_at: Option<Timestamp>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
