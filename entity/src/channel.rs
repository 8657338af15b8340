//! A payment channel from a payer to an agent. An escrow channel is opened by an award, backs one task and settles by its outcome.
//! A streaming channel is opened by a payer and pays as it goes.

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
        /// Pays as it goes, by vouchers or deductions.
        Stream = "STREAM",
    }
}

choice! {
    /// The states of a channel.
    Status {
        /// Holds its deposit.
        Open = "OPEN",
        /// The payer wants it closed; the agent may still claim until then.
        Closing = "CLOSING",
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
        /// The agent closed it; what it had not claimed went back to the payer.
        AgentClosed = "AGENT_CLOSED",
        /// Both parties signed how it is shared out.
        Cooperative = "COOPERATIVE",
        /// The delay after the payer's request was over.
        PayerClosed = "PAYER_CLOSED",
        /// Its time was over.
        Expired = "EXPIRED",
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
    /// The hold on the deposit of an escrow channel; a streaming channel's account is its own hold.
    pub hold_id: Option<HoldId>,
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
    /// What vouchers name a streaming channel by: the hash of its immutable configuration in lower-case hex.
    pub hash: Option<String>,
    /// The Ed25519 public key in lower-case hex that signs vouchers; empty for a payer without a key.
    pub signer_key: Option<String>,
    /// 32 random bytes in lower-case hex that make the configuration unique.
    pub salt: Option<String>,
    /// How many seconds after the payer's request the channel closes.
    pub settle_delay_s: Option<i64>,
    /// The nonce of the newest claimed voucher; 0 before the first.
    pub voucher_nonce: i64,
    /// The platform's share of this channel's payouts in basis points, fixed at its opening.
    pub fee_bps: i32,
    /// When a CLOSING channel closes.
    pub close_at: Option<Timestamp>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
