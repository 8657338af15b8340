//! Credits set aside in an escrow account of their own, until they are posted or voided exactly once.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    choice,
    id::{AccountId, HoldId, TaskId},
    money::Amount,
    time::Timestamp,
};

choice! {
    /// The states of a hold.
    Status {
        /// The credits lie in the escrow account.
        Held = "HELD",
        /// Some or all went to their purpose, the rest back.
        Posted = "POSTED",
        /// All went back.
        Voided = "VOIDED",
    }
}

/// A row of `holds`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DeriveEntityModel)]
#[sea_orm(table_name = "holds")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: HoldId,
    /// The escrow account, used by this hold alone; unique.
    #[sea_orm(unique)]
    pub escrow_id: AccountId,
    /// Where the credits came from and where the rest goes back to.
    pub payer_account_id: AccountId,
    pub task_id: TaskId,
    pub amount: Amount,
    pub status: Status,
    pub created_at: Timestamp,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
