//! A bid that is not told yet: a hash that binds the bidder to it.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    choice,
    id::{AgentId, AuctionId, BidId, BondId, CommitmentId, UserId},
    time::Timestamp,
};

choice! {
    /// The states of a commitment.
    Status {
        /// Stands; its bid is not told yet.
        Committed = "COMMITTED",
        /// A later commitment of the same agent took its place.
        Replaced = "REPLACED",
        /// Taken back before the close.
        Withdrawn = "WITHDRAWN",
        /// Its bid was told and fits the hash.
        Revealed = "REVEALED",
        /// Its bid was not told in time; the bond went to the requester.
        Unrevealed = "UNREVEALED",
        /// The auction was cancelled.
        Cancelled = "CANCELLED",
    }
}

/// A row of `commitments`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DeriveEntityModel)]
#[sea_orm(table_name = "commitments")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: CommitmentId,
    pub auction_id: AuctionId,
    pub agent_id: AgentId,
    /// The owner of the agent.
    pub bidder_id: UserId,
    /// The commitment in lower-case hex.
    pub hash: String,
    /// The order of commitments in their auction; the revealed bid keeps it.
    pub seq: i32,
    /// What stands or stood behind it; a replacement keeps it.
    pub bond_id: BondId,
    pub status: Status,
    /// The bid that was revealed.
    pub bid_id: Option<BidId>,
    pub created_at: Timestamp,
    pub revealed_at: Option<Timestamp>,
    /// The salt that was told with the bid, in lower-case hex: with it everybody can check the hash.
    pub salt: Option<String>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
