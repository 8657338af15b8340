//! One side of a transfer, in the order of its account. Never changed, never deleted.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    id::{AccountId, TransferId},
    time::Timestamp,
};

/// A row of `entries`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DeriveEntityModel)]
#[sea_orm(table_name = "entries")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub account_id: AccountId,
    /// 1, 2, 3 … for each account, without a gap.
    #[sea_orm(primary_key, auto_increment = false)]
    pub version: i64,
    pub transfer_id: TransferId,
    /// Micro-credits: negative on the debited account, positive on the credited one.
    pub amount: i64,
    /// The balance before.
    pub previous: i64,
    /// The balance after.
    pub current: i64,
    pub created_at: Timestamp,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
