//! Auctions and their bids.

use std::collections::HashMap;

use async_graphql::{Context, Enum, ID, InputObject, Object, SimpleObject};
use entity::{
    auction, bid,
    id::{AgentId, AuctionId, BidId, Id, UserId},
};
use futures_util::future::try_join_all;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use uuid::Uuid;

use super::{
    agent::{Agent, OrderDirection},
    context::{Ask, books_in_order, intent, maybe, once, parse_id, payload, write},
    error::{Answer, payload},
    page::{PageArgs, Sort, connection, list_cost},
    scalar::{Credits, DateTime, Duration, Percentage, Points},
    task::{Task, TaskInput},
    user::User,
};
use crate::{
    auction::{
        self as verbs, NewBid,
        rules::{self, Offer, Score},
    },
    error::{Error, Result},
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
                Sort { name: "b", key: None, id: bid::Column::Id, descending, place: |row| (0, row.id.0) }
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
pub(super) struct Auction(pub(super) auction::Model);

impl From<auction::Model> for Auction {
    fn from(row: auction::Model) -> Self {
        Self(row)
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
        let shown = self.0.status != auction::Status::Open || ctx.viewer() == Some(self.0.requester_id);
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

    /// Closes as soon as this many agents have a bid that stands; null when the number does not matter.
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

    /// How many bids stand, or stood at the close.
    async fn bid_count(&self) -> i32 {
        self.0.bid_count
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

    /// The bids, in the order in which they came unless `orderBy` says otherwise. While the auction is open and sealed only your
    /// own are here; the requester of a MANUAL one sees all of them once bidding is over.
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
            let page = ctx.loaders().bids_of_auctions(self.0.id, only_of, order, window).await?;
            Ok(Some(page.map(|row| Bid { row, auction: Some(self.0.clone()), standing: None }).into()))
        })
        .await
    }
}

/// Whether bids of others are hidden from the caller now. Once bidding is over the requester of a MANUAL auction sees them, to
/// pick the winner.
fn is_sealed(ctx: &Context<'_>, auction: &auction::Model) -> bool {
    let picks = ctx.viewer() == Some(auction.requester_id) && ctx.now() >= auction.closes_at;
    auction.status == auction::Status::Open && auction.visibility == auction::Visibility::Sealed && !picks
}

#[derive(Clone)]
pub(super) struct Bid {
    row: bid::Model,
    /// The auction, where it was at hand when the bid was found.
    auction: Option<auction::Model>,
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
        Self { row, auction: None, standing: None }
    }
}

impl Bid {
    async fn auction_row(&self, ctx: &Context<'_>) -> Result<auction::Model> {
        match &self.auction {
            Some(auction) => Ok(auction.clone()),
            None => ctx.loaders().auctions(self.row.auction_id).await?.ok_or(Error::NotFound("auction")),
        }
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

    /// What the agent asks.
    async fn price(&self) -> Credits {
        Credits(self.row.price)
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

    /// Who offers.
    #[graphql(complexity = "1 + child_complexity")]
    async fn agent(&self, ctx: &Context<'_>) -> Option<Answer<Agent>> {
        maybe(ctx, super::agent::find(ctx, self.row.agent_id)).await
    }

    /// The auction.
    #[graphql(complexity = "1 + child_complexity")]
    async fn auction(&self, ctx: &Context<'_>) -> Option<Answer<Auction>> {
        maybe(ctx, find(ctx, self.row.auction_id)).await
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
async fn ranking(ctx: &Context<'_>, auction: &auction::Model) -> Result<Vec<Bid>> {
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
        Some(Bid { row, auction: Some(auction.clone()), standing })
    });
    Ok(placed.collect())
}

async fn best(ctx: &Context<'_>, auction: &auction::Model) -> Result<Option<Bid>> {
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
    /// Close as soon as this many agents have a bid that stands.
    close_after_bids: Option<i32>,
    /// In an OPEN auction, a bid that comes within this time of the close moves the close away by as much.
    soft_close: Option<Duration>,
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
}

intent! {
    CreateAuctionInput = "createAuction", moves_credits: true;
    SubmitBidInput = "submitBid", moves_credits: true;
    AwardAuctionInput = "awardAuction", moves_credits: true;
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
    Ok(ctx.loaders().auctions(id).await?.map(Auction))
}

/// The bid with this id, if it may be shown.
pub(super) async fn find_bid(ctx: &Context<'_>, id: BidId) -> Result<Option<Bid>> {
    let Some(bid) = ctx.loaders().bids(id).await? else { return Ok(None) };
    let Some(auction) = ctx.loaders().auctions(bid.auction_id).await? else { return Ok(None) };
    let shown = !is_sealed(ctx, &auction) || verbs::may_see(&auction, &bid, ctx.viewer());
    Ok(shown.then_some(Bid { row: bid, auction: Some(auction), standing: None }))
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
        maybe(ctx, async { find(ctx, parse_id(&id, "id")?).await }).await
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
            Ok(Some(window.read(ctx.store().read(), list, &sort).await?.into()))
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
    #[graphql(complexity = "10 + child_complexity")]
    async fn create_auction(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The task and the terms of its auction.")] input: CreateAuctionInput,
    ) -> Option<Answer<CreateAuctionPayload>> {
        payload(ctx, async {
            let (new, terms) = (input.task.to_new(), input.terms.to_terms());
            Ok(once(ctx, &input, async |work| task::create_auction(work, new, terms).await).await?.value.into())
        })
        .await
    }

    /// Bids for an agent of yours, replacing its earlier bid in the auction.
    #[graphql(complexity = "10 + child_complexity")]
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
            let submitted = once(ctx, &input, async |work| task::submit_bid(work, new).await).await;
            if matches!(submitted, Err(Error::Refused(_))) {
                ctx.app().metrics().bid_rejected();
            }
            Ok(submitted?.value.into())
        })
        .await
    }

    /// Takes back a bid of yours while its auction is open.
    #[graphql(complexity = "10 + child_complexity")]
    async fn withdraw_bid(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The bid to take back.")] input: WithdrawBidInput,
    ) -> Option<Answer<WithdrawBidPayload>> {
        payload(ctx, async {
            let bid = parse_id(&input.bid_id, "bidId")?;
            Ok(write(ctx, async |work| verbs::withdraw_bid(work, bid).await).await?.into())
        })
        .await
    }

    /// Awards a MANUAL auction of yours: to the best score, or to the bid that you name. The price goes into escrow and the rest
    /// of the budget comes back.
    #[graphql(complexity = "10 + child_complexity")]
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
    #[graphql(complexity = "10 + child_complexity")]
    async fn cancel_auction(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The auction to call off.")] input: CancelAuctionInput,
    ) -> Option<Answer<CancelAuctionPayload>> {
        payload(ctx, async {
            let auction = parse_id(&input.auction_id, "auctionId")?;
            books_in_order(ctx)?;
            Ok(write(ctx, async |work| task::cancel_auction(work, auction).await).await?.into())
        })
        .await
    }
}
