//! The auction that finds the agent of one task.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    choice,
    id::{AuctionId, BidId, TaskId, UserId},
    money::Amount,
    text::Words,
    time::Timestamp,
};

choice! {
    /// The states of an auction.
    Status {
        /// Takes bids.
        Open = "OPEN",
        /// Takes no more commitments; those who made one reveal their bids.
        Revealing = "REVEALING",
        /// Has a winner.
        Awarded = "AWARDED",
        /// Closed without an eligible bid.
        Expired = "EXPIRED",
        /// Called off by the requester.
        Cancelled = "CANCELLED",
    }
}

choice! {
    /// What the winner is paid.
    Kind {
        /// Its own price.
        FirstPrice = "FIRST_PRICE",
        /// The highest price at which it would still have won.
        SecondPrice = "SECOND_PRICE",
    }
}

choice! {
    /// Who sees bids while the auction is open.
    Visibility {
        /// Only the bidder sees a bid; everybody sees how many there are.
        Sealed = "SEALED",
        /// Everybody sees every bid.
        Open = "OPEN",
        /// Nobody, the operator included: bidders commit to a hash and reveal after the close.
        CommitReveal = "COMMIT_REVEAL",
    }
}

choice! {
    /// Who picks the winner when bidding ends.
    AwardMode {
        /// The best score wins at the close.
        Automatic = "AUTOMATIC",
        /// The requester awards, to the best score or to a named bid.
        Manual = "MANUAL",
    }
}

/// A row of `auctions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DeriveEntityModel)]
#[sea_orm(table_name = "auctions")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: AuctionId,
    /// Unique: a task has one auction.
    #[sea_orm(unique)]
    pub task_id: TaskId,
    pub requester_id: UserId,
    pub status: Status,
    pub kind: Kind,
    pub visibility: Visibility,
    pub award_mode: AwardMode,
    /// The budget B of the score formula.
    pub budget: Amount,
    /// The highest price that a bid may name; at most the budget.
    pub max_price: Amount,
    /// The highest price at which the requester buys, told to nobody before the close.
    pub reserve_price: Option<Amount>,
    /// The least reputation of a bidder, in basis points.
    pub min_reputation: i32,
    /// The weight of the price in basis points; with `reputation_weight` it makes 10,000.
    pub price_weight: i32,
    pub reputation_weight: i32,
    pub capabilities: Words,
    /// Bids at or after this instant are refused.
    pub closes_at: Timestamp,
    /// Closes as soon as this many agents have a live bid or commitment.
    pub close_after_bids: Option<i32>,
    /// An OPEN auction's close moves to this many milliseconds after a bid that comes within them of it; 0 switches it off.
    pub soft_close_ms: i64,
    /// How often the close was moved.
    pub extensions: i32,
    /// The order number of the next bid, counted under the row's lock.
    pub next_seq: i32,
    /// Live bids; with COMMIT_REVEAL those that were revealed.
    pub bid_count: i32,
    pub winning_bid_id: Option<BidId>,
    /// What the winner is paid.
    pub clearing_price: Option<Amount>,
    /// When the sweeper must act: the close, the end of the reveals, or the end of the time for a manual award; empty once closed.
    pub deadline_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub closed_at: Option<Timestamp>,
    /// How long committed bids may be revealed after the close, in milliseconds; 0 but for COMMIT_REVEAL.
    pub reveal_ms: i64,
    /// What a bidder must put down behind a bid; zero for none.
    pub bond: Amount,
    /// When the reveals end or ended; empty until they begin.
    pub reveal_until: Option<Timestamp>,
    /// Agents that stand committed, or stood so at the close.
    pub commitment_count: i32,
    /// Agents and owners, by their ids, who may not win it.
    #[serde(default)]
    pub excluded: Words,
    /// Whether an outside agent that was not heard of lately cannot win it.
    #[serde(default)]
    pub online_only: bool,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
