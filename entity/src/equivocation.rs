//! Evidence that a payer signed two vouchers of one nonce with different amounts. One piece is enough, so one is kept for each nonce.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    id::{ChannelId, EquivocationId},
    money::Amount,
    time::Timestamp,
};

/// A row of `equivocations`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DeriveEntityModel)]
#[sea_orm(table_name = "equivocations")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: EquivocationId,
    pub channel_id: ChannelId,
    pub voucher_nonce: i64,
    /// What the claimed voucher said: all that its signature covers. Times are unix seconds as signed, 0 means without an end;
    /// hashes and signatures are lower-case hex.
    pub first_cumulative: Amount,
    pub first_valid_until: i64,
    pub first_context_hash: String,
    pub first_signature: String,
    /// What the other one says.
    pub second_cumulative: Amount,
    pub second_valid_until: i64,
    pub second_context_hash: String,
    pub second_signature: String,
    pub created_at: Timestamp,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
