//! Evidence that a payer signed two vouchers of one nonce with different amounts.

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
    /// What the claimed voucher said, and its signature in lower-case hex.
    pub first_cumulative: Amount,
    pub first_signature: String,
    /// What the other one says, with all that its signature covers.
    pub second_cumulative: Amount,
    /// Unix seconds as signed; 0 means without an end.
    pub second_valid_until: i64,
    pub second_context_hash: String,
    pub second_signature: String,
    pub created_at: Timestamp,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
