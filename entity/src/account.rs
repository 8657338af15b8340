//! A ledger account. Its balance is a running total of its entries and can be rebuilt from them.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{choice, id::AccountId, time::Timestamp};

choice! {
    /// Whose money an account holds.
    Kind {
        /// The world outside: the only account that may be negative, the source and sink of all credits.
        External = "EXTERNAL",
        /// A user's spendable credits.
        User = "USER",
        /// An agent's earnings.
        Agent = "AGENT",
        /// The budget of one open task.
        EscrowTask = "ESCROW_TASK",
        /// The deposit of one channel.
        EscrowChannel = "ESCROW_CHANNEL",
        /// The platform's fees, spread over shards so that no row is hot.
        Fees = "FEES",
        /// What stands behind one agent's word in one auction.
        Bond = "BOND",
        /// What a delegation has neither spent nor set aside for a step.
        EscrowDelegation = "ESCROW_DELEGATION",
    }
}

/// A row of `accounts`. `(kind, owner_id, shard)` is unique.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DeriveEntityModel)]
#[sea_orm(table_name = "accounts")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: AccountId,
    pub kind: Kind,
    /// The user, agent, task, channel, bond or delegation that the account belongs to; nil for `EXTERNAL` and `FEES`.
    pub owner_id: Uuid,
    pub shard: i32,
    /// Micro-credits; never negative but for `EXTERNAL`.
    pub balance: i64,
    /// The version of the newest entry; 0 before the first.
    pub version: i64,
    pub created_at: Timestamp,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
