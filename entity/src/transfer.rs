//! One movement of credits from one account to another. Never changed, never deleted.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    choice,
    id::{AccountId, BatchId, ChannelId, TaskId, TransferId},
    money::Amount,
    time::Timestamp,
};

choice! {
    /// Why credits moved.
    Kind {
        /// From the world outside into a wallet.
        Issue = "ISSUE",
        /// From a wallet to the world outside.
        Redeem = "REDEEM",
        /// A budget set aside for a task or a delegation.
        Hold = "HOLD",
        /// The price of an award, from the task's budget into its channel.
        Escrow = "ESCROW",
        /// What a hold did not need, back to the payer.
        Release = "RELEASE",
        /// A deposit back to the payer because the work failed.
        Refund = "REFUND",
        /// Earnings of an agent.
        Payout = "PAYOUT",
        /// The platform's share of a payout.
        Fee = "FEE",
        /// What a payer puts into a streaming channel, at its opening or later.
        Deposit = "DEPOSIT",
        /// An agent's earnings, to its owner.
        Withdrawal = "WITHDRAWAL",
        /// What stands behind a bid, out of the bidder's wallet.
        Bond = "BOND",
        /// A bond back to the bidder.
        BondReturn = "BOND_RETURN",
        /// A bond to the requester whom the bidder let down.
        BondForfeit = "BOND_FORFEIT",
    }
}

/// A row of `transfers`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DeriveEntityModel)]
#[sea_orm(table_name = "transfers")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: TransferId,
    pub batch_id: BatchId,
    pub kind: Kind,
    /// The account that the credits leave.
    pub debit_id: AccountId,
    /// The account that the credits reach.
    pub credit_id: AccountId,
    pub amount: Amount,
    pub task_id: Option<TaskId>,
    pub channel_id: Option<ChannelId>,
    /// The paper trail outside of an issue or a redemption; unique for each kind.
    pub reference: Option<String>,
    pub created_at: Timestamp,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
