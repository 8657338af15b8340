//! Auctions and their bids.

use std::{collections::HashMap, sync::Arc};

use async_graphql::{Context, Enum, ID, InputObject, InputType, Object, SimpleObject, Value};
use entity::{
    auction, bid, bond, commitment,
    id::{AgentId, AuctionId, BidId, CommitmentId, Id, UserId},
};
use futures_util::future::try_join_all;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use uuid::Uuid;

use super::{
    agent::{Agent, AgentModule, OrderDirection},
    context::{Ask, intent, maybe, once, once_by, parse_id, payload, requires, role, scopes},
    document::SignedDocument,
    error::{Answer, payload},
    page::{PageArgs, Sort, connection, counting, list_cost},
    scalar::{Credits, DateTime, Duration, Percentage, Points},
    task::{Task, TaskInput},
    user::User,
};
use crate::{
    agent as agents,
    auction::{
        self as verbs, NewBid,
        reveal::{NewCommitment, Reveal},
        rules::{self, Offer, Score},
    },
    caller::Scope,
    error::{Error, Result},
    store::Work,
    task::{self, AuctionTerms},
};

/// Bids that one simulation takes at most.
const MAX_SIMULATED: usize = 100;
/// Micro-points in a milli-point.
const MICROS_PER_MILLI: i64 = 1_000;

/// The states of an auction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::auction::Status")]
pub(super) enum AuctionStatus {
    /// Takes bids.
    Open,
    /// Takes no more commitments; those who made one reveal their bids.
    Revealing,
    /// Has a winner.
    Awarded,
    /// Closed without an eligible bid.
    Expired,
    /// Called off by the requester.
    Cancelled,
}

/// What the winner is paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::auction::Kind")]
pub(super) enum AuctionKind {
    /// Its own price.
    FirstPrice,
    /// The highest price at which it would still have won.
    SecondPrice,
}

/// Who sees bids while the auction is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::auction::Visibility")]
pub(super) enum AuctionVisibility {
    /// Only the bidder sees a bid; everybody sees how many there are.
    Sealed,
    /// Everybody sees every bid.
    Open,
    /// Nobody, the operator included: bidders commit to a hash and reveal after the close.
    CommitReveal,
}

/// Who picks the winner when bidding ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::auction::AwardMode")]
pub(super) enum AuctionAwardMode {
    /// The best score wins at the close.
    Automatic,
    /// The requester awards, to the best score or to a named bid.
    Manual,
}

/// The states of a bid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::bid::Status")]
pub(super) enum BidStatus {
    /// Stands in an open auction.
    Active,
    /// A later bid of the same agent took its place.
    Replaced,
    /// Taken back by the bidder.
    Withdrawn,
    /// Won the auction.
    Won,
    /// Eligible, but another bid was better; first in line if the winner does not start.
    Lost,
    /// Not eligible when the auction closed.
    Ineligible,
    /// Won, but did not start in time.
    Forfeited,
    /// The auction was cancelled.
    Cancelled,
}

/// The states of a commitment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::commitment::Status")]
pub(super) enum CommitmentStatus {
    /// Stands; its bid is not told yet.
    Committed,
    /// A later commitment of the same agent took its place.
    Replaced,
    /// Taken back before the close.
    Withdrawn,
    /// Its bid was told and fits the hash.
    Revealed,
    /// Its bid was not told in time; the bond went to the requester.
    Unrevealed,
    /// The auction was cancelled.
    Cancelled,
}

/// The states of a bond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::bond::Status")]
pub(super) enum BondStatus {
    /// Set aside.
    Held,
    /// Back with the bidder.
    Returned,
    /// With the requester, whom the bidder let down.
    Forfeited,
}

/// What auctions can be ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
pub(super) enum AuctionOrderField {
    /// When the auction opened.
    CreatedAt,
    /// When the auction closes or closed to bids.
    ClosesAt,
    /// The budget.
    Budget,
}

/// The order of auctions.
#[derive(Clone, Copy, Debug, InputObject)]
pub(super) struct AuctionOrder {
    /// What to order by.
    field: AuctionOrderField,
    /// Which way.
    direction: OrderDirection,
}

/// What bids can be ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Enum)]
pub(super) enum BidOrderField {
    /// The order in which the bids came.
    CreatedAt,
    /// The price.
    Price,
}

/// The order of bids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, InputObject)]
pub(super) struct BidOrder {
    /// What to order by.
    field: BidOrderField,
    /// Which way.
    direction: OrderDirection,
}

impl BidOrder {
    /// The order of arrival.
    const ARRIVAL: Self = Self { field: BidOrderField::CreatedAt, direction: OrderDirection::Asc };

    pub(super) fn sort(self) -> Sort<bid::Entity> {
        let descending = self.direction == OrderDirection::Desc;
        match self.field {
            BidOrderField::CreatedAt => {
                let (key, id) = (Some(bid::Column::Seq), bid::Column::AuctionId);
                Sort { name: "seq", key, id, descending, place: |row| (row.seq.into(), row.auction_id.uuid()) }
            }
            BidOrderField::Price => Sort {
                name: "price",
                key: Some(bid::Column::Price),
                id: bid::Column::Id,
                descending,
                place: |row| (row.price.micros(), row.id.uuid()),
            },
        }
    }
}

impl std::hash::Hash for BidOrder {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.field.hash(state);
        (self.direction == OrderDirection::Desc).hash(state);
    }
}

#[derive(Clone)]
pub(super) struct Auction(pub(super) Arc<auction::Model>, Option<Arc<FirstBids>>);

/// The bids that an auction has from the start, with their agents, which were read together with it.
struct FirstBids {
    bids: Vec<(bid::Model, Agent)>,
    /// How many were asked for.
    most: u64,
}

impl From<auction::Model> for Auction {
    fn from(row: auction::Model) -> Self {
        Self(Arc::new(row), None)
    }
}

/// The auction that finds the agent of one task. Public, but for the task itself and what the bidders must not know.
#[Object]
impl Auction {
    /// The id, `auc_…`.
    pub(super) async fn id(&self) -> ID {
        self.0.id.into()
    }

    /// Its state.
    async fn status(&self) -> AuctionStatus {
        self.0.status.into()
    }

    /// What the winner is paid.
    async fn kind(&self) -> AuctionKind {
        self.0.kind.into()
    }

    /// Who sees bids while it is open.
    async fn visibility(&self) -> AuctionVisibility {
        self.0.visibility.into()
    }

    /// Who picks the winner when bidding ends.
    async fn award_mode(&self) -> AuctionAwardMode {
        self.0.award_mode.into()
    }

    /// The budget that prices are scored against.
    async fn budget(&self) -> Credits {
        Credits(self.0.budget)
    }

    /// The highest price that a bid may name.
    async fn max_price(&self) -> Credits {
        Credits(self.0.max_price)
    }

    /// The highest price at which the requester buys. Before the close it is for the requester alone; null when there is none.
    async fn reserve_price(&self, ctx: &Context<'_>) -> Option<Credits> {
        let shown = self.0.closed_at.is_some() || ctx.viewer() == Some(self.0.requester_id);
        self.0.reserve_price.filter(|_| shown).map(Credits)
    }

    /// The least reputation of a bidder.
    async fn min_reputation(&self) -> Points {
        Points::from_basis(self.0.min_reputation)
    }

    /// How much the price counts.
    async fn price_weight(&self) -> Percentage {
        Percentage(self.0.price_weight)
    }

    /// How much the reputation counts.
    async fn reputation_weight(&self) -> Percentage {
        Percentage(self.0.reputation_weight)
    }

    /// What an agent must be able to do; sorted.
    async fn capabilities(&self) -> &[String] {
        &self.0.capabilities.0
    }

    /// Bids at or after this instant are refused.
    async fn closes_at(&self) -> DateTime {
        DateTime(self.0.closes_at)
    }

    /// Closes as soon as this many agents have a bid or a commitment that stands; null when the number does not matter.
    async fn close_after_bids(&self) -> Option<i32> {
        self.0.close_after_bids
    }

    /// A bid of an open auction that comes within this time of the close moves the close away; null when it does not.
    async fn soft_close(&self) -> Option<Duration> {
        (self.0.soft_close_ms > 0).then(|| Duration::from_millis(self.0.soft_close_ms))
    }

    /// How often the close was moved.
    async fn extensions(&self) -> i32 {
        self.0.extensions
    }

    /// How many bids stand, or stood at the close; of a COMMIT_REVEAL auction how many were revealed.
    async fn bid_count(&self) -> i32 {
        self.0.bid_count
    }

    /// What a bidder puts down behind each agent's bid or commitment; null where nothing is asked for.
    async fn bid_bond(&self) -> Option<Credits> {
        Some(self.0.bond).filter(|bond| !bond.is_zero()).map(Credits)
    }

    /// How long bids are revealed after the close of a COMMIT_REVEAL auction; null for others.
    async fn reveal_window(&self) -> Option<Duration> {
        (self.0.reveal_ms > 0).then(|| Duration::from_millis(self.0.reveal_ms))
    }

    /// Until when bids are or were revealed; null until that begins.
    async fn reveal_until(&self) -> Option<DateTime> {
        self.0.reveal_until.map(DateTime)
    }

    /// How many agents stand committed, or stood so at the close; 0 but for COMMIT_REVEAL.
    async fn commitment_count(&self) -> i32 {
        self.0.commitment_count
    }

    /// What a commitment names this market by: 32 bytes in lower-case hex.
    async fn instance_id(&self, ctx: &Context<'_>) -> Option<Answer<String>> {
        maybe(ctx, async { Ok(Some(hex::encode(ctx.store().instance()?.id()))) }).await
    }

    /// What the winner is paid; null before an award.
    async fn clearing_price(&self) -> Option<Credits> {
        self.0.clearing_price.map(Credits)
    }

    /// When it opened.
    async fn created_at(&self) -> DateTime {
        DateTime(self.0.created_at)
    }

    /// When it was decided; null before.
    async fn closed_at(&self) -> Option<DateTime> {
        self.0.closed_at.map(DateTime)
    }

    /// Who asks for the work.
    #[graphql(complexity = "1 + child_complexity")]
    async fn requester(&self, ctx: &Context<'_>) -> Option<Answer<User>> {
        maybe(ctx, super::user::find(ctx, self.0.requester_id)).await
    }

    /// The module that will judge the output, so that bidders know by what; null when there is none.
    #[graphql(complexity = "2 + child_complexity")]
    async fn checker(&self, ctx: &Context<'_>) -> Option<Answer<AgentModule>> {
        maybe(ctx, async {
            let task = ctx.loaders().tasks(self.0.task_id).await?;
            let Some(module) = task.and_then(|task| task.checker_id) else { return Ok(None) };
            super::agent::find_module(ctx, module).await
        })
        .await
    }

    /// The task; null for those who are not party to it.
    #[graphql(complexity = "2 + child_complexity")]
    async fn task(&self, ctx: &Context<'_>) -> Option<Answer<Task>> {
        maybe(ctx, super::task::find(ctx, self.0.task_id)).await
    }

    /// The bid with the best score: of those that stand while the auction is open, of the eligible ones as of the close after
    /// it. Null while the bids are sealed.
    #[graphql(complexity = "3 + child_complexity")]
    async fn best_bid(&self, ctx: &Context<'_>) -> Option<Answer<Bid>> {
        maybe(ctx, best(ctx, &self.0)).await
    }

    /// The bid that won; null before an award.
    #[graphql(complexity = "1 + child_complexity")]
    async fn winning_bid(&self, ctx: &Context<'_>) -> Option<Answer<Bid>> {
        maybe(ctx, async {
            let Some(bid) = self.0.winning_bid_id else { return Ok(None) };
            Ok(ctx.loaders().bids(bid).await?.map(Bid::from))
        })
        .await
    }

    /// The newest certificate of the award, for everybody to check; null before.
    #[graphql(complexity = "1 + child_complexity")]
    async fn certificate(&self, ctx: &Context<'_>) -> Option<Answer<SignedDocument>> {
        let kind = entity::document::Kind::AwardCertificate;
        maybe(ctx, super::document::newest(ctx, self.0.task_id, kind)).await
    }

    /// The bids, in the order in which they came unless `orderBy` says otherwise. While the auction is not decided and not an OPEN
    /// one only your own are here; the requester of a MANUAL one sees all of them once bidding, and revealing, is over.
    #[graphql(complexity = "list_cost(__ctx, __variables_definition, __field, child_complexity)")]
    async fn bids(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "In which order.")] order_by: Option<BidOrder>,
        #[graphql(desc = "How many from the start: 1 to 100, 20 when neither `first` nor `last` is given.")]
        first: Option<i32>,
        #[graphql(desc = "Only what comes after this cursor.")] after: Option<String>,
        #[graphql(desc = "How many from the end: 1 to 100; not together with `first`.")] last: Option<i32>,
        #[graphql(desc = "Only what comes before this cursor.")] before: Option<String>,
    ) -> Option<Answer<BidConnection>> {
        maybe(ctx, async {
            let order = order_by.unwrap_or(BidOrder::ARRIVAL);
            let window = PageArgs { first, after, last, before }.window(&order.sort())?;
            // Nobody has the nil id, so nobody who is not signed in sees a sealed bid.
            let only_of = is_sealed(ctx, &self.0).then(|| ctx.viewer().unwrap_or(UserId(Uuid::nil())));
            if let (None, Some(first), BidOrder::ARRIVAL) = (only_of, &self.1, order)
                && window.most_from_start() == Some(first.most)
            {
                let counted = ctx.look_ahead().field("totalCount").exists();
                let count = counted
                    .then(|| Arc::new(counting(&bid::Entity::find().filter(bid::Column::AuctionId.eq(self.0.id)))));
                let page = window.page_of(&order.sort(), first.bids.clone(), |(row, _)| row, count);
                let wrap =
                    |(row, agent)| Bid { row, auction: Some(Arc::clone(&self.0)), standing: None, agent: Some(agent) };
                return Ok(Some(page.map(wrap).into()));
            }
            let page = ctx.loaders().bids_of_auctions(self.0.id, only_of, order, window).await?;
            let wrap = |row| Bid { row, auction: Some(Arc::clone(&self.0)), standing: None, agent: None };
            Ok(Some(page.map(wrap).into()))
        })
        .await
    }

    /// The commitments, in the order in which they came. While the auction takes them only your own are here.
    #[graphql(complexity = "list_cost(__ctx, __variables_definition, __field, child_complexity)")]
    async fn commitments(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many from the start: 1 to 100, 20 when neither `first` nor `last` is given.")]
        first: Option<i32>,
        #[graphql(desc = "Only what comes after this cursor.")] after: Option<String>,
        #[graphql(desc = "How many from the end: 1 to 100; not together with `first`.")] last: Option<i32>,
        #[graphql(desc = "Only what comes before this cursor.")] before: Option<String>,
    ) -> Option<Answer<CommitmentConnection>> {
        maybe(ctx, async {
            let window = PageArgs { first, after, last, before }.window(&COMMITMENTS)?;
            let open = self.0.status == auction::Status::Open;
            let only_of = open.then(|| ctx.viewer().unwrap_or(UserId(Uuid::nil())));
            let page = ctx.loaders().commitments_of_auctions(self.0.id, only_of, window).await?;
            Ok(Some(page.into()))
        })
        .await
    }
}

/// Commitments in the order of arrival.
pub(super) const COMMITMENTS: Sort<commitment::Entity> = Sort {
    name: "seq",
    key: Some(commitment::Column::Seq),
    id: commitment::Column::AuctionId,
    descending: false,
    place: |row| (row.seq.into(), row.auction_id.0),
};

/// Whether bids of others are hidden from the caller now. Once bidding is over the requester of a MANUAL auction sees them, to
/// pick the winner.
fn is_sealed(ctx: &Context<'_>, auction: &auction::Model) -> bool {
    let picks = ctx.viewer() == Some(auction.requester_id) && rules::may_pick(auction, ctx.now());
    rules::hidden(auction) && !picks
}

#[derive(Clone)]
pub(super) struct Bid {
    row: bid::Model,
    /// The auction, where it was at hand when the bid was found.
    auction: Option<Arc<auction::Model>>,
    /// The agent, where it was read together with the bid.
    agent: Option<Agent>,
    /// Place and reputation in the ranking that the bid was found in.
    standing: Option<Standing>,
}

/// Where a bid stands among the bids of its auction.
#[derive(Clone, Copy)]
struct Standing {
    /// From 1.
    rank: i32,
    /// Basis points.
    reputation: i32,
}

impl From<bid::Model> for Bid {
    fn from(row: bid::Model) -> Self {
        Self { row, auction: None, agent: None, standing: None }
    }
}

impl Bid {
    async fn auction_row(&self, ctx: &Context<'_>) -> Result<Arc<auction::Model>> {
        if let Some(auction) = &self.auction {
            return Ok(Arc::clone(auction));
        }
        let row = ctx.loaders().auctions(self.row.auction_id).await?;
        row.map(Arc::new).ok_or(Error::NotFound("auction"))
    }

    /// The reputation that the bid is scored with, in basis points.
    async fn reputation_now(&self, ctx: &Context<'_>) -> Result<Option<i32>> {
        match self.standing {
            Some(standing) => Ok(Some(standing.reputation)),
            None => reputation(ctx, &self.row).await,
        }
    }
}

/// An agent's offer to do an auctioned task for a price.
#[Object]
impl Bid {
    /// The id, `bid_…`.
    pub(super) async fn id(&self) -> ID {
        self.row.id.into()
    }

    /// What the agent asks, or the most if its price is metered.
    async fn price(&self) -> Credits {
        Credits(self.row.price)
    }

    /// What the agent charges for a million units of fuel, as of the bid; null where its price is not metered.
    async fn price_per_million_fuel(&self) -> Option<Credits> {
        self.row.fuel_price.map(Credits)
    }

    /// How long the agent promises to need at most; null when it promises nothing.
    async fn promised_duration(&self) -> Option<Duration> {
        self.row.promised_ms.map(Duration::from_millis)
    }

    /// Its place in the order of arrival; the earlier one wins a perfect tie.
    async fn sequence(&self) -> i32 {
        self.row.seq
    }

    /// Its state.
    async fn status(&self) -> BidStatus {
        self.row.status.into()
    }

    /// When it was made.
    async fn created_at(&self) -> DateTime {
        DateTime(self.row.created_at)
    }

    /// The reputation that it is scored with: the agent's of now while the bid stands, and as of the close after it. Null when
    /// the bid was not in the decision.
    #[graphql(complexity = 2)]
    async fn reputation(&self, ctx: &Context<'_>) -> Option<Answer<Points>> {
        maybe(ctx, async { Ok(self.reputation_now(ctx).await?.map(Points::from_basis)) }).await
    }

    /// The score and where it comes from. Null when the bid was not in the decision.
    #[graphql(complexity = "3 + child_complexity")]
    async fn score(&self, ctx: &Context<'_>) -> Option<Answer<BidScore>> {
        maybe(ctx, async {
            let Some(reputation) = self.reputation_now(ctx).await? else { return Ok(None) };
            let auction = self.auction_row(ctx).await?;
            let score = rules::score(self.row.price, reputation, auction.budget, auction.price_weight);
            Ok(Some(BidScore::from(&score)))
        })
        .await
    }

    /// The place by score, from 1: among the bids that stand now in an open auction, as of the close after it. Null while the
    /// bids are sealed, and when the bid was not in the decision.
    #[graphql(complexity = 5)]
    async fn rank(&self, ctx: &Context<'_>) -> Option<Answer<i32>> {
        maybe(ctx, async {
            if let Some(standing) = self.standing {
                return Ok(Some(standing.rank));
            }
            if self.row.status != bid::Status::Active {
                return Ok(self.row.rank);
            }
            let auction = self.auction_row(ctx).await?;
            if is_sealed(ctx, &auction) {
                return Ok(None);
            }
            let ranked = ranking(ctx, &auction).await?;
            let place = ranked.into_iter().find(|bid| bid.row.id == self.row.id);
            Ok(place.and_then(|bid| bid.standing).map(|standing| standing.rank))
        })
        .await
    }

    /// What stands or stood behind it; null where the auction asks for no bond.
    #[graphql(complexity = "1 + child_complexity")]
    async fn bond(&self, ctx: &Context<'_>) -> Option<Answer<Bond>> {
        maybe(ctx, async {
            let Some(bond) = self.row.bond_id else { return Ok(None) };
            Ok(ctx.loaders().bonds(bond).await?.map(Bond))
        })
        .await
    }

    /// How many tasks the requester of the auction has settled with agents of this bidder so far: those who trade with each other
    /// all the time may not be strangers.
    #[graphql(complexity = 3)]
    async fn tasks_together(&self, ctx: &Context<'_>) -> Option<Answer<i32>> {
        maybe(ctx, async {
            let auction = self.auction_row(ctx).await?;
            let pair = (auction.requester_id, self.row.bidder_id);
            let count = ctx.loaders().tasks_together(pair).await?.unwrap_or(0);
            Ok(Some(i32::try_from(count).unwrap_or(i32::MAX)))
        })
        .await
    }

    /// Who offers.
    #[graphql(complexity = "1 + child_complexity")]
    async fn agent(&self, ctx: &Context<'_>) -> Option<Answer<Agent>> {
        if let Some(agent) = &self.agent {
            return Some(Ok(agent.clone()));
        }
        maybe(ctx, super::agent::find(ctx, self.row.agent_id)).await
    }

    /// The auction.
    #[graphql(complexity = "1 + child_complexity")]
    async fn auction(&self, ctx: &Context<'_>) -> Option<Answer<Auction>> {
        maybe(ctx, find(ctx, self.row.auction_id)).await
    }
}

#[derive(Clone)]
pub(super) struct Commitment(commitment::Model);

impl From<commitment::Model> for Commitment {
    fn from(row: commitment::Model) -> Self {
        Self(row)
    }
}

/// An agent's word that it has a bid, which it does not tell before the close of a COMMIT_REVEAL auction.
#[Object]
impl Commitment {
    /// The id, `com_…`.
    async fn id(&self) -> ID {
        self.0.id.into()
    }

    /// The hash: SHA-256 of `"ZSAU-BID-v1\0"`, the instance id, the ids of auction and agent (16 bytes each), the price in
    /// micro-credits (8 bytes), the promised duration in milliseconds (4 bytes, 0 for none) and the salt (32 bytes); numbers are
    /// big-endian. In lower-case hex.
    async fn commitment(&self) -> &str {
        &self.0.hash
    }

    /// Its state.
    async fn status(&self) -> CommitmentStatus {
        self.0.status.into()
    }

    /// Its place in the order of arrival, which the bid has too when it is revealed.
    async fn sequence(&self) -> i32 {
        self.0.seq
    }

    /// When it was made.
    async fn created_at(&self) -> DateTime {
        DateTime(self.0.created_at)
    }

    /// When its bid was revealed; null if it was not.
    async fn revealed_at(&self) -> Option<DateTime> {
        self.0.revealed_at.map(DateTime)
    }

    /// The salt, with which everybody can check the hash; null while the bid is not yours to see.
    #[graphql(complexity = 2)]
    async fn salt(&self, ctx: &Context<'_>) -> Option<Answer<String>> {
        maybe(ctx, async { Ok(self.shown_bid(ctx).await?.and(self.0.salt.clone())) }).await
    }

    /// The bid that was revealed; null while it is not yours to see.
    #[graphql(complexity = "2 + child_complexity")]
    async fn bid(&self, ctx: &Context<'_>) -> Option<Answer<Bid>> {
        maybe(ctx, self.shown_bid(ctx)).await
    }

    /// What stands or stood behind it.
    #[graphql(complexity = "1 + child_complexity")]
    async fn bond(&self, ctx: &Context<'_>) -> Option<Answer<Bond>> {
        maybe(ctx, async { Ok(ctx.loaders().bonds(self.0.bond_id).await?.map(Bond)) }).await
    }

    /// Who is committed.
    #[graphql(complexity = "1 + child_complexity")]
    async fn agent(&self, ctx: &Context<'_>) -> Option<Answer<Agent>> {
        maybe(ctx, super::agent::find(ctx, self.0.agent_id)).await
    }

    /// The auction.
    #[graphql(complexity = "1 + child_complexity")]
    async fn auction(&self, ctx: &Context<'_>) -> Option<Answer<Auction>> {
        maybe(ctx, find(ctx, self.0.auction_id)).await
    }
}

impl Commitment {
    async fn shown_bid(&self, ctx: &Context<'_>) -> Result<Option<Bid>> {
        match self.0.bid_id {
            Some(bid) => find_bid(ctx, bid).await,
            None => Ok(None),
        }
    }
}

#[derive(Clone)]
pub(super) struct Bond(bond::Model);

/// What a bidder put down behind one agent's bid or commitment. It comes back unless the bidder breaks the word: by not revealing,
/// by revealing what cannot be taken, by taking the agent away after the close, or by winning and not starting.
#[Object]
impl Bond {
    /// The id, `bond_…`.
    async fn id(&self) -> ID {
        self.0.id.into()
    }

    /// How much.
    async fn amount(&self) -> Credits {
        Credits(self.0.amount)
    }

    /// Where it is.
    async fn status(&self) -> BondStatus {
        self.0.status.into()
    }

    /// When it was put down.
    async fn created_at(&self) -> DateTime {
        DateTime(self.0.created_at)
    }

    /// When it was returned or forfeited; null before.
    async fn resolved_at(&self) -> Option<DateTime> {
        self.0.resolved_at.map(DateTime)
    }
}

/// A score and its parts, on a scale of 0 to 100, rounded down to thousandths. The exact score, which decides, is
/// `priceWeight · (budget − price) / budget + reputationWeight · reputation`.
#[derive(SimpleObject)]
pub(super) struct BidScore {
    /// The score.
    total: Points,
    /// What the price gives.
    price: Points,
    /// What the reputation gives.
    reputation: Points,
}

impl From<&Score> for BidScore {
    fn from(score: &Score) -> Self {
        let points = |part| Points(i32::try_from(score.micro_points(part) / MICROS_PER_MILLI).unwrap_or(0));
        Self { total: points(score.total), price: points(score.price_part), reputation: points(score.reputation_part) }
    }
}

/// The reputation that a bid is scored with, in basis points.
async fn reputation(ctx: &Context<'_>, bid: &bid::Model) -> Result<Option<i32>> {
    match bid.status {
        bid::Status::Active => Ok(Some(ctx.loaders().standings(bid.agent_id).await?.basis_points)),
        bid::Status::Replaced
        | bid::Status::Withdrawn
        | bid::Status::Won
        | bid::Status::Lost
        | bid::Status::Ineligible
        | bid::Status::Forfeited
        | bid::Status::Cancelled => Ok(bid.reputation),
    }
}

/// The bids of an auction that can be the best one, best first.
async fn ranking(ctx: &Context<'_>, auction: &Arc<auction::Model>) -> Result<Vec<Bid>> {
    let bids = ctx.loaders().candidates(auction.id).await?;
    let reputations = try_join_all(bids.iter().map(|bid| reputation(ctx, bid))).await?;
    let offers: Vec<Offer> = bids
        .iter()
        .zip(reputations)
        .map(|(bid, reputation)| Offer {
            bid: bid.id,
            agent: bid.agent_id,
            bidder: bid.bidder_id,
            price: bid.price,
            reputation: reputation.unwrap_or(0),
            seq: bid.seq,
        })
        .collect();
    let mut rows: HashMap<BidId, &bid::Model> = bids.iter().map(|bid| (bid.id, bid)).collect();
    let ranked = rules::rank(&offers, auction.budget, auction.price_weight);
    let placed = ranked.into_iter().zip(1..).filter_map(|((offer, _), rank)| {
        let row = rows.remove(&offer.bid)?.clone();
        let standing = Some(Standing { rank, reputation: offer.reputation });
        Some(Bid { row, auction: Some(Arc::clone(auction)), agent: None, standing })
    });
    Ok(placed.collect())
}

async fn best(ctx: &Context<'_>, auction: &Arc<auction::Model>) -> Result<Option<Bid>> {
    if is_sealed(ctx, auction) {
        return Ok(None);
    }
    Ok(ranking(ctx, auction).await?.into_iter().next())
}

connection! {
    /// A page of auctions.
    AuctionConnection,
    /// An auction in a list.
    AuctionEdge, Auction, auction::Model
}

connection! {
    /// A page of bids.
    BidConnection,
    /// A bid in a list.
    BidEdge, Bid, Bid
}

connection! {
    /// A page of commitments.
    CommitmentConnection,
    /// A commitment in a list.
    CommitmentEdge, Commitment, commitment::Model
}

/// Which auctions to list. All conditions must hold.
#[derive(Clone, Debug, Default, InputObject)]
pub(super) struct AuctionFilter {
    /// Is in one of these states.
    status: Option<Vec<AuctionStatus>>,
    /// Is of this kind.
    kind: Option<AuctionKind>,
    /// Was opened by this user.
    requester_id: Option<ID>,
    /// Has at least this budget.
    min_budget: Option<Credits>,
    /// Has at most this budget.
    max_budget: Option<Credits>,
}

/// How an auction runs.
#[derive(InputObject)]
pub(super) struct AuctionTermsInput {
    /// What the winner is paid.
    #[graphql(default_with = "AuctionKind::FirstPrice")]
    kind: AuctionKind,
    /// Who sees bids while the auction is open.
    #[graphql(default_with = "AuctionVisibility::Sealed")]
    visibility: AuctionVisibility,
    /// Who picks the winner when bidding ends.
    #[graphql(default_with = "AuctionAwardMode::Automatic")]
    award_mode: AuctionAwardMode,
    /// The highest price that a bid may name; the budget when it is left out.
    max_price: Option<Credits>,
    /// The highest price at which you buy, told to nobody before the close.
    reserve_price: Option<Credits>,
    /// The least reputation of a bidder.
    #[graphql(default_with = "Points(0)")]
    min_reputation: Points,
    /// How much the price counts in the score; the reputation has the rest of 100.
    #[graphql(default_with = "Percentage(4_000)")]
    price_weight: Percentage,
    /// How long bids are taken. When it is left out the auction is decided at once among the hosted agents, which bid by themselves.
    closes_in: Option<Duration>,
    /// Close as soon as this many agents have a bid or a commitment that stands.
    close_after_bids: Option<i32>,
    /// In an OPEN auction, a bid that comes within this time of the close moves the close away by as much.
    soft_close: Option<Duration>,
    /// In a COMMIT_REVEAL auction, how long bids may be revealed after the close: one minute to seven days.
    reveal_window: Option<Duration>,
    /// What each bidder puts down; at most the budget. A COMMIT_REVEAL auction must ask for it, the others may. Who breaks their word
    /// loses it to you; `startTimeout` is at least a minute then. Hosted agents do not bid by themselves.
    bid_bond: Option<Credits>,
    /// Whether an outside agent that was not heard of lately cannot win.
    #[graphql(default)]
    online_only: bool,
}

impl AuctionTermsInput {
    /// As the verbs take it. Reputations are compared in hundredths of a point; a finer bound is met by the next one above.
    pub(super) fn to_terms(&self) -> AuctionTerms {
        AuctionTerms {
            kind: self.kind.into(),
            visibility: self.visibility.into(),
            award_mode: self.award_mode.into(),
            max_price: self.max_price.map(|price| price.0),
            reserve_price: self.reserve_price.map(|price| price.0),
            min_reputation: self.min_reputation.0.saturating_add(9) / 10,
            price_weight: self.price_weight.0,
            closes_in: self.closes_in.map(|closes_in| closes_in.0),
            close_after_bids: self.close_after_bids,
            soft_close: self.soft_close.map(|soft_close| soft_close.0),
            reveal_window: self.reveal_window.map(|window| window.0),
            bid_bond: self.bid_bond.map(|bond| bond.0),
            excluded: Vec::new(),
            online_only: self.online_only,
        }
    }
}

/// Input of `createAuction`.
#[derive(InputObject)]
pub(super) struct CreateAuctionInput {
    #[graphql(flatten)]
    task: TaskInput,
    #[graphql(flatten)]
    terms: AuctionTermsInput,
    /// Names this intent: the same value when you retry the same intent, another one for another. 1 to 128 visible ASCII characters.
    idempotency_key: String,
}

/// Input of `submitBid`.
#[derive(InputObject)]
pub(super) struct SubmitBidInput {
    /// The auction.
    auction_id: ID,
    /// The agent of yours that bids. Its earlier bid in this auction is replaced.
    agent_id: ID,
    /// What it asks.
    price: Credits,
    /// How long it promises to need at most; what the agent posted when it is left out.
    promised_duration: Option<Duration>,
    /// Names this intent: the same value when you retry the same intent, another one for another. 1 to 128 visible ASCII characters.
    idempotency_key: String,
}

/// Input of `withdrawBid`.
#[derive(InputObject)]
pub(super) struct WithdrawBidInput {
    /// The bid.
    bid_id: ID,
    /// Names this intent: the same value when you retry the same intent, another one for another. 1 to 128 visible ASCII characters.
    idempotency_key: String,
}

/// Input of `commitBid`.
#[derive(InputObject)]
pub(super) struct CommitBidInput {
    /// The auction.
    auction_id: ID,
    /// The agent of yours that bids. Its earlier commitment in this auction is replaced.
    agent_id: ID,
    /// The hash in 64 lower-case hexadecimal digits; see `Commitment.commitment`.
    commitment: String,
    /// Names this intent: the same value when you retry the same intent, another one for another. 1 to 128 visible ASCII characters.
    idempotency_key: String,
}

/// Input of `withdrawCommitment`.
#[derive(InputObject)]
pub(super) struct WithdrawCommitmentInput {
    /// The commitment.
    commitment_id: ID,
    /// Names this intent: the same value when you retry the same intent, another one for another. 1 to 128 visible ASCII characters.
    idempotency_key: String,
}

/// Input of `revealBid`.
#[derive(InputObject)]
pub(super) struct RevealBidInput {
    /// The auction.
    auction_id: ID,
    /// The agent of yours that is committed.
    agent_id: ID,
    /// What it asks.
    price: Credits,
    /// How long it promises to need at most; leave it out if the commitment has 0.
    promised_duration: Option<Duration>,
    /// The salt of the commitment in 64 lower-case hexadecimal digits.
    salt: String,
    /// Names this intent: the same value when you retry the same intent, another one for another. 1 to 128 visible ASCII characters.
    idempotency_key: String,
}

/// Input of `awardAuction`.
#[derive(InputObject)]
pub(super) struct AwardAuctionInput {
    /// The auction.
    auction_id: ID,
    /// The bid that wins; the best score when it is left out.
    bid_id: Option<ID>,
    /// Names this intent: the same value when you retry the same intent, another one for another. 1 to 128 visible ASCII characters.
    idempotency_key: String,
}

/// Input of `cancelAuction`.
#[derive(InputObject)]
pub(super) struct CancelAuctionInput {
    /// The auction.
    auction_id: ID,
    /// Names this intent: the same value when you retry the same intent, another one for another. 1 to 128 visible ASCII characters.
    idempotency_key: String,
}

intent! {
    CreateAuctionInput = "createAuction", moves_credits: true;
    SubmitBidInput = "submitBid", moves_credits: true;
    CommitBidInput = "commitBid", moves_credits: true;
    WithdrawCommitmentInput = "withdrawCommitment", moves_credits: true;
    RevealBidInput = "revealBid", moves_credits: true;
    AwardAuctionInput = "awardAuction", moves_credits: true;
    WithdrawBidInput = "withdrawBid", moves_credits: true;
    CancelAuctionInput = "cancelAuction", moves_credits: true;
}

payload! {
    /// Answer of `createAuction`.
    CreateAuctionPayload {
        /// The auction; null when it was refused.
        auction: Auction
    } AuctionUserError
}

payload! {
    /// Answer of `submitBid`.
    SubmitBidPayload {
        /// The bid; null when it was refused.
        bid: Bid
    } AuctionUserError
}

payload! {
    /// Answer of `withdrawBid`.
    WithdrawBidPayload {
        /// The bid as it is now; null when it was refused.
        bid: Bid
    } AuctionUserError
}

payload! {
    /// Answer of `commitBid`.
    CommitBidPayload {
        /// The commitment; null when it was refused.
        commitment: Commitment
    } AuctionUserError
}

payload! {
    /// Answer of `withdrawCommitment`.
    WithdrawCommitmentPayload {
        /// The commitment as it is now; null when it was refused.
        commitment: Commitment
    } AuctionUserError
}

payload! {
    /// Answer of `revealBid`.
    RevealBidPayload {
        /// The bid; null when it was refused. It is INELIGIBLE when its price cannot be taken.
        bid: Bid
    } AuctionUserError
}

payload! {
    /// Answer of `awardAuction`.
    AwardAuctionPayload {
        /// The auction as it is now; null when it was refused.
        auction: Auction
    } AuctionUserError
}

payload! {
    /// Answer of `cancelAuction`.
    CancelAuctionPayload {
        /// The auction as it is now; null when it was refused.
        auction: Auction
    } AuctionUserError
}

/// A bid that might be.
#[derive(InputObject)]
pub(super) struct SimulatedBidInput {
    /// What the agent asks; at most the budget.
    price: Credits,
    /// The agent's reputation.
    reputation: Points,
}

/// Input of `simulateAuction`.
#[derive(InputObject)]
pub(super) struct SimulateAuctionInput {
    /// The bids in the order in which they come; 1 to 100.
    bids: Vec<SimulatedBidInput>,
    /// The budget that prices are scored against.
    budget: Credits,
    /// What the winner is paid.
    #[graphql(default_with = "AuctionKind::FirstPrice")]
    kind: AuctionKind,
    /// How much the price counts in the score; the reputation has the rest of 100.
    #[graphql(default_with = "Percentage(4_000)")]
    price_weight: Percentage,
    /// The highest price at which the requester buys; the budget when it is left out. Bids above it are not eligible.
    reserve_price: Option<Credits>,
    /// The least reputation of a bidder. Bids below it are not eligible.
    #[graphql(default_with = "Points(0)")]
    min_reputation: Points,
}

/// A bid of a simulation with what came of it.
#[derive(Clone, SimpleObject)]
pub(super) struct SimulatedBid {
    /// Its place in the input, from 0.
    index: i32,
    /// What the agent asks.
    price: Credits,
    /// The agent's reputation, in the hundredths of a point that count.
    reputation: Points,
    /// The score and where it comes from.
    score: BidScore,
    /// The place by score, from 1; null when the bid is not eligible.
    rank: Option<i32>,
}

impl Clone for BidScore {
    fn clone(&self) -> Self {
        Self { total: self.total, price: self.price, reputation: self.reputation }
    }
}

/// What would come of an auction.
#[derive(SimpleObject)]
pub(super) struct AuctionSimulation {
    /// The bids, best first; those that are not eligible come last.
    bids: Vec<SimulatedBid>,
    /// The bid that would win; null when none is eligible.
    winner: Option<SimulatedBid>,
    /// What the winner would be paid; null when there is none.
    clearing_price: Option<Credits>,
}

/// Decides an auction that is not.
fn simulate(input: &SimulateAuctionInput) -> Result<AuctionSimulation> {
    let (budget, weight) = (input.budget.0, input.price_weight.0);
    if budget.is_zero() {
        return Err(Error::invalid("input.budget", "must be more than zero"));
    }
    if input.bids.is_empty() || input.bids.len() > MAX_SIMULATED {
        return Err(Error::invalid("input.bids", format!("must be 1 to {MAX_SIMULATED}")));
    }
    let cap = input.reserve_price.map_or(budget, |reserve| reserve.0.min(budget));
    let least = input.min_reputation.0.saturating_add(9) / 10;
    let offers = input
        .bids
        .iter()
        .zip(0_i32..)
        .map(|(bid, seq)| {
            if bid.price.0.is_zero() || bid.price.0 > budget {
                return Err(Error::invalid("input.bids", "must each ask more than zero and at most the budget"));
            }
            let uuid = Uuid::from_u128(u128::try_from(seq).unwrap_or(0));
            Ok(Offer {
                bid: BidId(uuid),
                agent: AgentId(uuid),
                bidder: UserId(uuid),
                price: bid.price.0,
                reputation: bid.reputation.0 / 10,
                seq,
            })
        })
        .collect::<Result<Vec<Offer>>>()?;
    let (eligible, others): (Vec<Offer>, Vec<Offer>) =
        offers.into_iter().partition(|offer| offer.price <= cap && offer.reputation >= least);
    let ranked = rules::rank(&eligible, budget, weight);
    let rest = rules::rank(&others, budget, weight);
    let shown = |(offer, score): &(Offer, Score), rank| SimulatedBid {
        index: offer.seq,
        price: Credits(offer.price),
        reputation: Points::from_basis(offer.reputation),
        score: BidScore::from(score),
        rank,
    };
    let bids: Vec<SimulatedBid> = ranked
        .iter()
        .zip(1..)
        .map(|(bid, rank)| shown(bid, Some(rank)))
        .chain(rest.iter().map(|bid| shown(bid, None)))
        .collect();
    let mut places = ranked.iter().map(|(offer, _)| offer);
    let clearing_price = places.next().map(|winner| match input.kind {
        AuctionKind::FirstPrice => winner.price,
        AuctionKind::SecondPrice => rules::critical_price(winner, places.next(), budget, weight, cap),
    });
    let winner = bids.first().filter(|bid| bid.rank.is_some()).cloned();
    Ok(AuctionSimulation { bids, winner, clearing_price: clearing_price.map(Credits) })
}

/// The auction with this id.
pub(super) async fn find(ctx: &Context<'_>, id: AuctionId) -> Result<Option<Auction>> {
    Ok(ctx.loaders().auctions(id).await?.map(Auction::from))
}

/// The auction with this id, together with the bids that the query asks for of it.
async fn find_shown(ctx: &Context<'_>, id: AuctionId) -> Result<Option<Auction>> {
    let Some(most) = first_bids(ctx) else { return find(ctx, id).await };
    let shown = ctx.loaders().page(id, most).await?;
    Ok(shown.map(|shown| {
        let bids = shown.bids.into_iter().map(|(bid, agent)| (bid, Agent::from(agent))).collect();
        Auction(Arc::new(shown.auction), Some(Arc::new(FirstBids { bids, most })))
    }))
}

/// How many rows the query needs of the auction's bids in the order in which they came, if that is all that it asks of them.
fn first_bids(ctx: &Context<'_>) -> Option<u64> {
    let lists = ctx.look_ahead().field("bids");
    let with_agents =
        lists.field("nodes").field("agent").exists() || lists.field("edges").field("node").field("agent").exists();
    let lists = lists.selection_fields();
    let [list] = lists.as_slice() else { return None };
    let mut first = None;
    for (name, value) in list.arguments().ok()? {
        match (name.as_str(), value) {
            (_, Value::Null) => {}
            ("orderBy", order)
                if <BidOrder as InputType>::parse(Some(order.clone()))
                    .is_ok_and(|order| order == BidOrder::ARRIVAL) => {}
            ("first", Value::Number(number)) => first = Some(i32::try_from(number.as_i64()?).ok()?),
            (_, _) => return None,
        }
    }
    let args = PageArgs { first, after: None, last: None, before: None };
    let window = args.window(&BidOrder::ARRIVAL.sort()).ok()?;
    with_agents.then(|| window.most_from_start()).flatten()
}

/// The bid with this id, if it may be shown.
pub(super) async fn find_bid(ctx: &Context<'_>, id: BidId) -> Result<Option<Bid>> {
    let Some(bid) = ctx.loaders().bids(id).await? else { return Ok(None) };
    let Some(auction) = ctx.loaders().auctions(bid.auction_id).await? else { return Ok(None) };
    let shown = !is_sealed(ctx, &auction) || verbs::may_see(&auction, &bid, ctx.viewer());
    Ok(shown.then_some(Bid { row: bid, auction: Some(Arc::new(auction)), agent: None, standing: None }))
}

impl AuctionOrder {
    fn sort(self) -> Sort<auction::Entity> {
        let descending = self.direction == OrderDirection::Desc;
        match self.field {
            AuctionOrderField::CreatedAt => {
                Sort { name: "o", key: None, id: auction::Column::Id, descending, place: |row| (0, row.id.0) }
            }
            AuctionOrderField::ClosesAt => Sort {
                name: "closes",
                key: Some(auction::Column::ClosesAt),
                id: auction::Column::Id,
                descending,
                place: |row| (row.closes_at.micros(), row.id.uuid()),
            },
            AuctionOrderField::Budget => Sort {
                name: "budget",
                key: Some(auction::Column::Budget),
                id: auction::Column::Id,
                descending,
                place: |row| (row.budget.micros(), row.id.uuid()),
            },
        }
    }
}

#[derive(Default)]
pub(super) struct AuctionQuery;

#[Object]
impl AuctionQuery {
    /// An auction by id; null when there is none.
    #[graphql(complexity = "1 + child_complexity")]
    async fn auction(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The id, `auc_…`.")] id: ID,
    ) -> Option<Answer<Auction>> {
        maybe(ctx, async { find_shown(ctx, parse_id(&id, "id")?).await }).await
    }

    /// Auctions, newest first unless `orderBy` says otherwise.
    #[graphql(complexity = "list_cost(__ctx, __variables_definition, __field, child_complexity)")]
    #[expect(clippy::too_many_arguments, reason = "the four arguments of a list, its filter and its order")]
    async fn auctions(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which auctions.")] filter: Option<AuctionFilter>,
        #[graphql(desc = "In which order.")] order_by: Option<AuctionOrder>,
        #[graphql(desc = "How many from the start: 1 to 100, 20 when neither `first` nor `last` is given.")]
        first: Option<i32>,
        #[graphql(desc = "Only what comes after this cursor.")] after: Option<String>,
        #[graphql(desc = "How many from the end: 1 to 100; not together with `first`.")] last: Option<i32>,
        #[graphql(desc = "Only what comes before this cursor.")] before: Option<String>,
    ) -> Option<Answer<AuctionConnection>> {
        maybe(ctx, async {
            let filter = filter.unwrap_or_default();
            let mut list = auction::Entity::find();
            if let Some(states) = filter.status {
                list = list.filter(auction::Column::Status.is_in(states.into_iter().map(auction::Status::from)));
            }
            if let Some(kind) = filter.kind {
                list = list.filter(auction::Column::Kind.eq(auction::Kind::from(kind)));
            }
            if let Some(requester) = &filter.requester_id {
                let requester: UserId = parse_id(requester, "filter.requesterId")?;
                list = list.filter(auction::Column::RequesterId.eq(requester));
            }
            if let Some(least) = filter.min_budget {
                list = list.filter(auction::Column::Budget.gte(least.0));
            }
            if let Some(most) = filter.max_budget {
                list = list.filter(auction::Column::Budget.lte(most.0));
            }
            let newest = AuctionOrder { field: AuctionOrderField::CreatedAt, direction: OrderDirection::Desc };
            let sort = order_by.unwrap_or(newest).sort();
            let window = PageArgs { first, after, last, before }.window(&sort)?;
            Ok(Some(window.read(ctx.loaders().db(), list, &sort).await?.into()))
        })
        .await
    }

    /// Decides an auction of bids that might be, by the rules that decide real ones. Nothing is stored.
    #[graphql(complexity = "10 + child_complexity")]
    async fn simulate_auction(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The bids and the terms.")] input: SimulateAuctionInput,
    ) -> Option<Answer<AuctionSimulation>> {
        maybe(ctx, async { simulate(&input).map(Some) }).await
    }
}

#[derive(Default)]
pub(super) struct AuctionMutation;

#[Object]
impl AuctionMutation {
    /// Posts a task and opens its auction: the same as `executeTask`, seen from the auction. The budget is held.
    #[graphql(complexity = "10 + child_complexity", directive = requires::apply(scopes("createAuction"), role("createAuction")))]
    async fn create_auction(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The task and the terms of its auction.")] input: CreateAuctionInput,
    ) -> Option<Answer<CreateAuctionPayload>> {
        payload(ctx, async {
            let (new, terms, checker) = (input.task.to_new(), input.terms.to_terms(), input.task.checker()?);
            let opened = async |work: &mut Work| {
                let new = TaskInput::checked_by(work, new, checker).await?;
                task::create_auction(work, new, terms).await
            };
            Ok(once(ctx, &input, opened).await?.value.into())
        })
        .await
    }

    /// Bids for an agent of yours, replacing its earlier bid in the auction.
    #[graphql(complexity = "10 + child_complexity", directive = requires::apply(scopes("submitBid"), role("submitBid")))]
    async fn submit_bid(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The bid.")] input: SubmitBidInput,
    ) -> Option<Answer<SubmitBidPayload>> {
        payload(ctx, async {
            let new = NewBid {
                auction: parse_id(&input.auction_id, "auctionId")?,
                agent: parse_id(&input.agent_id, "agentId")?,
                price: input.price.0,
                promised: input.promised_duration.map(|promised| promised.0),
            };
            agents::appear(ctx.store(), ctx.caller(), new.agent, Scope::BidsWrite).await?;
            let desk = ctx.app().desk();
            let submitted = once_by(ctx, &input, async |caller, once| desk.submit(caller, once, new).await).await;
            if matches!(submitted, Err(Error::Refused(_))) {
                ctx.app().metrics().bid_rejected();
            }
            Ok(submitted?.value.into())
        })
        .await
    }

    /// Commits an agent of yours to a bid in a COMMIT_REVEAL auction without telling it, and puts the bond down; the agent's earlier
    /// commitment is replaced. Keep price, duration and salt: without them you cannot reveal the bid and lose the bond.
    #[graphql(complexity = "10 + child_complexity", directive = requires::apply(scopes("commitBid"), role("commitBid")))]
    async fn commit_bid(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The commitment.")] input: CommitBidInput,
    ) -> Option<Answer<CommitBidPayload>> {
        payload(ctx, async {
            let new = NewCommitment {
                auction: parse_id(&input.auction_id, "auctionId")?,
                agent: parse_id(&input.agent_id, "agentId")?,
                hash: input.commitment.clone(),
            };
            agents::appear(ctx.store(), ctx.caller(), new.agent, Scope::BidsWrite).await?;
            let committed = once(ctx, &input, async |work| task::commit_bid(work, new).await).await;
            if matches!(committed, Err(Error::Refused(_))) {
                ctx.app().metrics().bid_rejected();
            }
            Ok(committed?.value.into())
        })
        .await
    }

    /// Takes back a commitment of yours while its auction takes them; the bond comes back.
    #[graphql(complexity = "10 + child_complexity", directive = requires::apply(scopes("withdrawCommitment"), role("withdrawCommitment")))]
    async fn withdraw_commitment(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The commitment to take back.")] input: WithdrawCommitmentInput,
    ) -> Option<Answer<WithdrawCommitmentPayload>> {
        payload(ctx, async {
            let id: CommitmentId = parse_id(&input.commitment_id, "commitmentId")?;
            let withdrawn = once(ctx, &input, async |work| verbs::reveal::withdraw_commitment(work, id).await).await?;
            Ok(withdrawn.value.into())
        })
        .await
    }

    /// Tells the bid that an agent of yours committed to, after the close and until `revealUntil`. What does not fit the hash is
    /// refused and can be tried again. A price above the auction's ceiling or below the agent's minimum makes the bid INELIGIBLE and
    /// loses the bond.
    #[graphql(complexity = "10 + child_complexity", directive = requires::apply(scopes("revealBid"), role("revealBid")))]
    async fn reveal_bid(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The bid as it was committed to.")] input: RevealBidInput,
    ) -> Option<Answer<RevealBidPayload>> {
        payload(ctx, async {
            let told = Reveal {
                auction: parse_id(&input.auction_id, "auctionId")?,
                agent: parse_id(&input.agent_id, "agentId")?,
                price: input.price.0,
                promised: input.promised_duration.map(|promised| promised.0),
                salt: input.salt.clone(),
            };
            agents::appear(ctx.store(), ctx.caller(), told.agent, Scope::BidsWrite).await?;
            let revealed = once(ctx, &input, async |work| task::reveal_bid(work, told).await).await;
            if matches!(revealed, Err(Error::Refused(_))) {
                ctx.app().metrics().bid_rejected();
            }
            Ok(revealed?.value.into())
        })
        .await
    }

    /// Takes back a bid of yours while its auction is open.
    #[graphql(complexity = "10 + child_complexity", directive = requires::apply(scopes("withdrawBid"), role("withdrawBid")))]
    async fn withdraw_bid(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The bid to take back.")] input: WithdrawBidInput,
    ) -> Option<Answer<WithdrawBidPayload>> {
        payload(ctx, async {
            let bid = parse_id(&input.bid_id, "bidId")?;
            Ok(once(ctx, &input, async |work| verbs::withdraw_bid(work, bid).await).await?.value.into())
        })
        .await
    }

    /// Awards a MANUAL auction of yours: to the best score, or to the bid that you name. The price goes into escrow and the rest
    /// of the budget comes back.
    #[graphql(complexity = "10 + child_complexity", directive = requires::apply(scopes("awardAuction"), role("awardAuction")))]
    async fn award_auction(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The auction and its winner.")] input: AwardAuctionInput,
    ) -> Option<Answer<AwardAuctionPayload>> {
        payload(ctx, async {
            let auction = parse_id(&input.auction_id, "auctionId")?;
            let bid = input.bid_id.as_ref().map(|id| parse_id::<BidId>(id, "bidId")).transpose()?;
            Ok(once(ctx, &input, async |work| task::award(work, auction, bid).await).await?.value.into())
        })
        .await
    }

    /// Calls off an auction of yours while it is open, and its task with it; the budget comes back.
    #[graphql(complexity = "10 + child_complexity", directive = requires::apply(scopes("cancelAuction"), role("cancelAuction")))]
    async fn cancel_auction(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The auction to call off.")] input: CancelAuctionInput,
    ) -> Option<Answer<CancelAuctionPayload>> {
        payload(ctx, async {
            let auction = parse_id(&input.auction_id, "auctionId")?;
            Ok(once(ctx, &input, async |work| task::cancel_auction(work, auction).await).await?.value.into())
        })
        .await
    }
}
