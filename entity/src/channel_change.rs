//! One change of a streaming channel. Never changed, never deleted; the answer to a voucher that comes again.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    choice,
    id::{BatchId, ChannelId, UserId},
    money::Amount,
    time::Timestamp,
};

choice! {
    /// What changed.
    Kind {
        /// The payer opened it.
        Opened = "OPENED",
        /// The payer put more in.
        ToppedUp = "TOPPED_UP",
        /// The payer paid without a voucher.
        Deducted = "DEDUCTED",
        /// A voucher was claimed.
        Claimed = "CLAIMED",
        /// The payer asked for it to close.
        CloseRequested = "CLOSE_REQUESTED",
        /// The payer took the request back.
        CloseCancelled = "CLOSE_CANCELLED",
        /// It closed; the rest went back to the payer.
        Closed = "CLOSED",
    }
}

/// A row of `channel_changes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DeriveEntityModel)]
#[sea_orm(table_name = "channel_changes")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub channel_id: ChannelId,
    #[sea_orm(primary_key, auto_increment = false)]
    /// The channel's nonce after the change.
    pub nonce: i64,
    pub kind: Kind,
    /// What moved by this change.
    pub amount: Amount,
    /// The platform's share of `amount`.
    pub fee: Amount,
    /// The deposit after the change.
    pub deposit: Amount,
    /// What was paid in all after the change.
    pub paid: Amount,
    /// The transfers that did it; empty when nothing moved.
    pub batch_id: Option<BatchId>,
    /// Who did it; empty for the system.
    pub actor_id: Option<UserId>,
    /// The nonce of the voucher or of the cooperative close that did it.
    pub voucher_nonce: Option<i64>,
    pub cumulative: Option<Amount>,
    /// Unix seconds as signed; 0 means without an end.
    pub valid_until: Option<i64>,
    pub context_hash: Option<String>,
    /// The payer's signature in lower-case hex.
    pub signature: Option<String>,
    pub created_at: Timestamp,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
