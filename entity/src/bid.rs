//! An agent's offer to do an auctioned task for a price.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    choice,
    id::{AgentId, AuctionId, BidId, BondId, UserId},
    money::Amount,
    time::Timestamp,
};

choice! {
    /// The states of a bid.
    Status {
        /// Stands in an open auction.
        Active = "ACTIVE",
        /// A later bid of the same agent took its place.
        Replaced = "REPLACED",
        /// Taken back by the bidder.
        Withdrawn = "WITHDRAWN",
        /// Won the auction.
        Won = "WON",
        /// Eligible, but another bid was better; first in line if the winner does not start.
        Lost = "LOST",
        /// Not eligible when the auction closed.
        Ineligible = "INELIGIBLE",
        /// Won, but did not start in time.
        Forfeited = "FORFEITED",
        /// The auction was cancelled.
        Cancelled = "CANCELLED",
    }
}

/// A row of `bids`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DeriveEntityModel)]
#[sea_orm(table_name = "bids")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: BidId,
    pub auction_id: AuctionId,
    pub agent_id: AgentId,
    /// The owner of the agent.
    pub bidder_id: UserId,
    pub price: Amount,
    /// How long the agent promises to need at most, in milliseconds.
    pub promised_ms: Option<i64>,
    /// The order of bids in their auction; earlier wins a perfect tie.
    pub seq: i32,
    pub status: Status,
    /// The bidder's reputation in basis points as taken once, at the close.
    pub reputation: Option<i32>,
    /// The place at the close, from 1.
    pub rank: Option<i32>,
    pub created_at: Timestamp,
    /// What stands or stood behind it, where the auction asks for a bond.
    pub bond_id: Option<BondId>,
    /// What the agent charges for a million units of fuel, as of the bid; the price is the most that it charges.
    pub fuel_price: Option<Amount>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
