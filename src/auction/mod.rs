//! Auctions and bids: how a task finds its agent.
//!
//! ```text
//! OPEN ─ bids ───────────────────┬─ award ──────────► AWARDED
//!   └ commitments ─ REVEALING ───┼─ nobody eligible ► EXPIRED
//!                                └─ called off ─────► CANCELLED
//!
//! a bid: ACTIVE ─► REPLACED | WITHDRAWN | CANCELLED | INELIGIBLE | LOST ─► WON ─► FORFEITED
//! ```
//!
//! What must always hold: an agent has one live bid in an auction at most; nobody bids on their own auction, above its ceiling, or
//! at or after its close; reputations are taken once, when the auction is decided, and kept on the bids; the order of the bids
//! follows from the rows alone. The close and the award are one unit of work, which the task's module drives, because money moves
//! with them. Where an auction asks for a bond, one stands behind each agent's bid or commitment; see [`bond`] and [`reveal`].

pub mod bond;
pub mod commitment;
pub mod page;
pub mod reveal;
pub mod rules;
pub mod together;

use std::{collections::HashMap, time::Duration};

use entity::{
    agent,
    auction::{self, AwardMode, Kind, Status, Visibility},
    bid, commitment as commitment_row,
    event::{self, Payload},
    id::{AgentId, AuctionId, BidId, BondId, UserId},
    money::Amount,
    task,
    text::Words,
    time::Timestamp,
};
use sea_orm::{
    ActiveModelTrait,
    ActiveValue::Set,
    ColumnTrait, EntityTrait, ExprTrait, IntoActiveModel, QueryFilter, QueryOrder, QuerySelect,
    sea_query::{CaseStatement, Expr, LockType, SimpleExpr},
};

use crate::{
    agent as agents,
    caller::{Caller, Scope},
    error::{Error, Result},
    reputation::{self, Standing},
    store::{Event, Work, insert_all},
};
use rules::{AuctionRefused, Offer};

/// Bids that one statement updates at most, which keeps it far below the parameter limits of both databases.
const UPDATE_CHUNK: usize = 200;
/// How many hosted agents are looked at for each one that may bid by itself.
const CANDIDATES_PER_BID: u64 = 5;
/// The longest that a bid may promise to need.
const MAX_PROMISE: Duration = Duration::from_hours(1);
/// How an auction is locked. What settles its task holds the task alone and still writes rows that refer to the auction; PostgreSQL
/// checks such a reference against this lock without waiting for it, so the two cannot wait for each other.
const LOCK: LockType = LockType::NoKeyUpdate;

/// How an auction is to run.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Terms {
    pub kind: Kind,
    pub visibility: Visibility,
    pub award_mode: AwardMode,
    /// The highest price that bids may name; the budget when empty.
    pub max_price: Option<Amount>,
    /// The highest price at which the requester buys, kept secret until the close.
    pub reserve_price: Option<Amount>,
    /// The least reputation of a bidder in basis points.
    pub min_reputation: i32,
    /// The weight of the price in basis points; the reputation has the rest.
    pub price_weight: i32,
    /// How long bids are taken; the auction is decided at once when empty.
    pub closes_in: Option<Duration>,
    /// Closes as soon as so many agents have bid.
    pub close_after_bids: Option<i32>,
    /// How close to the end a bid of an OPEN auction moves the end away.
    pub soft_close: Option<Duration>,
    /// How long committed bids may be revealed after the close; with COMMIT_REVEAL alone.
    pub reveal_window: Option<Duration>,
    /// What each bidder puts down.
    pub bid_bond: Option<Amount>,
    /// Agents and owners, by their ids, who may not win: those who failed at the same before, or do the same beside it.
    pub excluded: Vec<String>,
    /// Whether an outside agent that was not heard of lately cannot win.
    pub online_only: bool,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            kind: Kind::FirstPrice,
            visibility: Visibility::Sealed,
            award_mode: AwardMode::Automatic,
            max_price: None,
            reserve_price: None,
            min_reputation: 0,
            price_weight: 4_000,
            closes_in: None,
            close_after_bids: None,
            soft_close: None,
            reveal_window: None,
            bid_bond: None,
            excluded: Vec::new(),
            online_only: false,
        }
    }
}

impl Terms {
    /// Whether the terms make sense for a budget; they are read before anything is written.
    pub fn check(&self, budget: Amount, market: &crate::config::Terms) -> Result<()> {
        let within = |amount: Option<Amount>| amount.is_none_or(|amount| !amount.is_zero() && amount <= budget);
        if !within(self.max_price) {
            return Err(Error::invalid("maxPrice", "must be more than zero and at most the budget"));
        }
        if !within(self.reserve_price) {
            return Err(Error::invalid("reservePrice", "must be more than zero and at most the budget"));
        }
        if !(0..=rules::WHOLE).contains(&self.min_reputation) {
            return Err(Error::invalid("minReputation", "must be between 0 and 100"));
        }
        if !(0..=rules::WHOLE).contains(&self.price_weight) {
            return Err(Error::invalid("priceWeight", "must be between 0 and 10000 basis points"));
        }
        let shortest = Duration::from_secs(1);
        if self.closes_in.is_some_and(|closes_in| closes_in < shortest || closes_in > market.max_auction) {
            return Err(Error::invalid("closesIn", "must be between one second and 30 days"));
        }
        if self.award_mode == AwardMode::Manual && self.closes_in.is_none() {
            return Err(Error::invalid("closesIn", "must be given for an auction that is awarded by hand"));
        }
        if self.close_after_bids.is_some_and(|bids| !(1..=market.max_bids).contains(&bids)) {
            return Err(Error::invalid("closeAfterBids", format!("must be between 1 and {}", market.max_bids)));
        }
        if self.soft_close.is_some() && (self.visibility != Visibility::Open || self.closes_in.is_none()) {
            return Err(Error::invalid("softClose", "is for OPEN auctions with closesIn"));
        }
        if self.soft_close.is_some_and(|quiet| quiet > Duration::from_hours(1)) {
            return Err(Error::invalid("softClose", "must be at most one hour"));
        }
        self.check_bond(budget, market)
    }

    /// The terms of commitments and bonds.
    fn check_bond(&self, budget: Amount, market: &crate::config::Terms) -> Result<()> {
        if self.bid_bond.is_some_and(|bond| bond.is_zero() || bond > budget) {
            return Err(Error::invalid("bidBond", "must be more than zero and at most the budget"));
        }
        if self.bid_bond.is_some() && self.closes_in.is_none() {
            return Err(Error::invalid("closesIn", "must be given where bidders put a bond down"));
        }
        match (self.visibility, self.reveal_window) {
            (Visibility::Sealed | Visibility::Open, None) => Ok(()),
            (Visibility::Sealed | Visibility::Open, Some(_)) => {
                Err(Error::invalid("revealWindow", "is for COMMIT_REVEAL auctions"))
            }
            (Visibility::CommitReveal, _) if self.bid_bond.is_none() => {
                Err(Error::invalid("bidBond", "must be given for a COMMIT_REVEAL auction"))
            }
            (Visibility::CommitReveal, Some(window)) if window >= market.min_reveal && window <= market.max_reveal => {
                Ok(())
            }
            (Visibility::CommitReveal, Some(_) | None) => {
                let (least, most) = (market.min_reveal.as_secs(), market.max_reveal.as_secs());
                let bounds = format!("must be between {least} and {most} seconds for a COMMIT_REVEAL auction");
                Err(Error::invalid("revealWindow", bounds))
            }
        }
    }
}

/// Opens the auction of a task, and lets hosted agents bid in it at their posted prices. The terms have been checked.
pub async fn open(work: &mut Work, task: &task::Model, terms: &Terms) -> Result<auction::Model> {
    let now = work.now();
    let closes_at = terms.closes_in.map_or(now, |closes_in| now.after(closes_in));
    let millis = |duration: Option<Duration>| duration.map_or(0, |it| i64::try_from(it.as_millis()).unwrap_or(0));
    let mut auction = auction::Model {
        id: work.fresh(),
        task_id: task.id,
        requester_id: task.requester_id,
        status: Status::Open,
        kind: terms.kind,
        visibility: terms.visibility,
        award_mode: terms.award_mode,
        budget: task.budget,
        max_price: terms.max_price.unwrap_or(task.budget),
        reserve_price: terms.reserve_price,
        min_reputation: terms.min_reputation,
        price_weight: terms.price_weight,
        reputation_weight: rules::WHOLE.saturating_sub(terms.price_weight),
        capabilities: task.capabilities.clone(),
        closes_at,
        close_after_bids: terms.close_after_bids,
        soft_close_ms: millis(terms.soft_close),
        extensions: 0,
        next_seq: 1,
        bid_count: 0,
        winning_bid_id: None,
        clearing_price: None,
        deadline_at: None,
        created_at: now,
        closed_at: None,
        reveal_ms: millis(terms.reveal_window),
        bond: terms.bid_bond.unwrap_or(Amount::ZERO),
        reveal_until: None,
        commitment_count: 0,
        excluded: Words(terms.excluded.clone()),
        online_only: terms.online_only,
    };
    auction.deadline_at = Some(deadline(work, &auction));
    let payload = Payload { amount: Some(auction.budget), closes_at: Some(closes_at), ..Payload::default() };
    work.record(about(&auction, event::Kind::AuctionOpened, payload));
    let bids = hosted_bids(work, &mut auction).await?;
    auction::Entity::insert(auction.clone().into_active_model().reset_all()).exec_without_returning(work.tx()).await?;
    insert_all(work.tx(), bids).await?;
    Ok(auction)
}

/// When the sweeper must act on an auction that takes bids: at its close, unless its requester has time to award by hand then.
fn deadline(work: &Work, auction: &auction::Model) -> Timestamp {
    match (auction.award_mode, auction.visibility) {
        (AwardMode::Manual, Visibility::Sealed | Visibility::Open) => {
            auction.closes_at.after(work.terms().manual_award_window)
        }
        (AwardMode::Automatic, _) | (AwardMode::Manual, Visibility::CommitReveal) => auction.closes_at,
    }
}

/// The bids of hosted agents for an auction that opens, best expected score first, within the market's bound. An agent whose
/// posted price is above the ceiling bids the ceiling if it works for that little. Where a bond is asked for there are none: who
/// posts a price has not agreed to put money down, and in a COMMIT_REVEAL auction we would know the bids.
async fn hosted_bids(work: &mut Work, auction: &mut auction::Model) -> Result<Vec<bid::ActiveModel>> {
    if !auction.bond.is_zero() {
        return Ok(Vec::new());
    }
    let limit = work.terms().max_auto_bids;
    let looked_at = limit.saturating_mul(CANDIDATES_PER_BID);
    let hosted = agents::eligible_hosted(work.tx(), &auction.capabilities, auction.max_price, looked_at).await?;
    let standings = standings(work, hosted.iter().map(|agent| agent.id)).await?;
    let willing: HashMap<AgentId, &agent::Model> = hosted
        .iter()
        .filter(|agent| {
            let price = asked(agent, auction);
            let reputation = basis_points(&standings, agent.id);
            agent.owner_id != auction.requester_id
                && price >= agent.min_price
                && rules::eligible(
                    auction,
                    &probe(auction, agent, price, work.now()),
                    agent,
                    reputation,
                    seen_since(work),
                )
        })
        .map(|agent| (agent.id, agent))
        .collect();
    let offers: Vec<Offer> = willing
        .values()
        .map(|agent| Offer {
            bid: BidId(agent.id.0),
            agent: agent.id,
            bidder: agent.owner_id,
            price: asked(agent, auction),
            reputation: basis_points(&standings, agent.id),
            seq: 0,
        })
        .collect();
    let mut ranked = rules::rank(&offers, auction.budget, auction.price_weight);
    ranked.sort_by_key(|(offer, score)| (std::cmp::Reverse(score.total), offer.agent));
    let mut bids = Vec::new();
    for (offer, _) in ranked.into_iter().take(usize::try_from(limit).unwrap_or(usize::MAX)) {
        let id: BidId = work.fresh();
        let promised_ms = willing.get(&offer.agent).and_then(|agent| agent.promised_ms);
        let bid = bid::Model {
            id,
            auction_id: auction.id,
            agent_id: offer.agent,
            bidder_id: offer.bidder,
            price: offer.price,
            promised_ms,
            seq: auction.next_seq,
            status: bid::Status::Active,
            reputation: None,
            rank: None,
            created_at: work.now(),
            bond_id: None,
            fuel_price: willing.get(&offer.agent).and_then(|agent| agent.fuel_price),
        };
        auction.next_seq = auction.next_seq.saturating_add(1);
        auction.bid_count = auction.bid_count.saturating_add(1);
        work.record(bid_event(auction, &bid, event::Kind::BidSubmitted));
        bids.push(bid.into_active_model().reset_all());
    }
    Ok(bids)
}

/// What a hosted agent bids by itself: its posted price, or the ceiling where that is lower.
fn asked(agent: &agent::Model, auction: &auction::Model) -> Amount {
    std::cmp::min(agent.price, auction.max_price)
}

/// A bid as it would be, to ask the rules about it.
fn probe(auction: &auction::Model, agent: &agent::Model, price: Amount, now: Timestamp) -> bid::Model {
    bid::Model {
        id: BidId(agent.id.0),
        auction_id: auction.id,
        agent_id: agent.id,
        bidder_id: agent.owner_id,
        price,
        promised_ms: None,
        seq: 1,
        status: bid::Status::Active,
        reputation: None,
        rank: None,
        created_at: now,
        bond_id: None,
        fuel_price: agent.fuel_price,
    }
}

/// An offer of an agent.
#[derive(Clone, Debug, serde::Serialize)]
pub struct NewBid {
    pub auction: AuctionId,
    pub agent: AgentId,
    pub price: Amount,
    /// How long the agent promises to need at most; what the agent posted when empty.
    pub promised: Option<Duration>,
}

/// Whether `caller` may make the offer in a locked auction, and the live bid of its agent that it replaces. The checks run in the
/// order of the refusals. `earlier` are the bids of the agent in the auction.
fn admit(
    work: &Work,
    caller: &Caller,
    auction: &auction::Model,
    agent: &agent::Model,
    reputation: i32,
    earlier: &[(BidId, bid::Status)],
    offer: &NewBid,
) -> Result<Option<BidId>> {
    caller.controls(agent, Scope::BidsWrite)?;
    if offer.price.is_zero() {
        return Err(Error::invalid("price", "must be more than zero"));
    }
    if offer.promised.is_some_and(|promised| promised.as_millis() == 0 || promised > MAX_PROMISE) {
        return Err(Error::invalid("promisedDuration", "must be between one millisecond and one hour"));
    }
    rules::admit_bid(auction, agent, reputation, offer.price, work.now())?;
    let replaced = earlier.iter().find(|(_, status)| *status == bid::Status::Active).map(|(id, _)| *id);
    if replaced.is_none() && auction.bid_count >= work.terms().max_bids {
        return Err(AuctionRefused::AuctionFull.into());
    }
    if i32::try_from(earlier.len()).unwrap_or(i32::MAX) >= work.terms().max_bids_of_agent {
        return Err(AuctionRefused::TooManyChanges.into());
    }
    Ok(replaced)
}

/// The bid that an admitted offer makes, and the auction that has it.
fn bid_of(
    work: &mut Work,
    auction: &mut auction::Model,
    agent: &agent::Model,
    offer: &NewBid,
    replaces: bool,
    bond_id: Option<BondId>,
) -> bid::Model {
    let millis = |promised: Duration| i64::try_from(promised.as_millis()).ok();
    let bid = bid::Model {
        id: work.fresh(),
        auction_id: auction.id,
        agent_id: agent.id,
        bidder_id: agent.owner_id,
        price: offer.price,
        promised_ms: offer.promised.map_or(agent.promised_ms, millis),
        seq: auction.next_seq,
        status: bid::Status::Active,
        reputation: None,
        rank: None,
        created_at: work.now(),
        bond_id,
        fuel_price: agent.fuel_price,
    };
    auction.next_seq = auction.next_seq.saturating_add(1);
    if !replaces {
        auction.bid_count = auction.bid_count.saturating_add(1);
    }
    bid
}

/// Puts a bid of one of the caller's agents into a locked auction. An earlier live bid of the same agent is replaced and hands its
/// bond on. Answers the auction as it is now.
pub async fn submit_bid(
    work: &mut Work,
    mut auction: auction::Model,
    offer: NewBid,
) -> Result<(auction::Model, bid::Model)> {
    let agent = agent::Entity::find_by_id(offer.agent).one(work.tx()).await?.ok_or(Error::NotFound("agent"))?;
    let reputation = basis_points(&standings(work, [agent.id]).await?, agent.id);
    let earlier = together::earlier_bids(work, &[(auction.id, agent.id)]).await?;
    let earlier = earlier.get(&(auction.id, agent.id)).map(Vec::as_slice).unwrap_or_default();
    let caller = work.caller().clone();
    let replaced = admit(work, &caller, &auction, &agent, reputation, earlier, &offer)?;

    let bond_id = bond::put(work, &auction, &agent).await?;
    if let Some(old) = replaced {
        together::replace(work, &[old]).await?;
    }
    let bid = bid_of(work, &mut auction, &agent, &offer, replaced.is_some(), bond_id);
    bid::Entity::insert(bid.clone().into_active_model().reset_all()).exec_without_returning(work.tx()).await?;
    work.record(bid_event(&auction, &bid, event::Kind::BidSubmitted));
    if let Some(closes_at) = rules::extended_close(&auction, work.now(), work.terms().max_extensions) {
        auction.closes_at = closes_at;
        auction.deadline_at = Some(deadline(work, &auction));
        auction.extensions = auction.extensions.saturating_add(1);
        let payload = Payload { closes_at: Some(closes_at), ..Payload::default() };
        work.record(about(&auction, event::Kind::AuctionExtended, payload));
    }
    save(work, &auction).await?;
    Ok((auction, bid))
}

/// Takes a live bid back, and its bond with it.
pub async fn withdraw_bid(work: &mut Work, id: BidId) -> Result<bid::Model> {
    work.caller().with_scope(Scope::BidsWrite)?;
    let found = bid::Entity::find_by_id(id).one(work.tx()).await?.ok_or(Error::NotFound("bid"))?;
    let mut auction = lock(work, found.auction_id).await?;
    let agent = agent::Entity::find_by_id(found.agent_id).one(work.tx()).await?.ok_or(Error::NotFound("bid"))?;
    work.caller()
        .controls(&agent, Scope::BidsWrite)
        .map_err(|error| if matches!(error, Error::NotFound(_)) { Error::NotFound("bid") } else { error })?;
    rules::open(&auction, work.now())?;
    let bid = bid::Entity::find_by_id(id).one(work.tx()).await?.ok_or(Error::NotFound("bid"))?;
    if bid.status != bid::Status::Active {
        return Err(AuctionRefused::BidNotActive.into());
    }
    if bid.bond_id.is_some() {
        bond::give_back(work, auction.id, agent.id).await?;
    }
    auction.bid_count = auction.bid_count.saturating_sub(1);
    save(work, &auction).await?;
    set_status(work, bid.clone(), bid::Status::Withdrawn).await?;
    work.record(bid_event(&auction, &bid, event::Kind::BidWithdrawn));
    Ok(bid::Model { status: bid::Status::Withdrawn, ..bid })
}

/// Who won, and what for.
#[derive(Clone, Debug)]
pub struct Win {
    pub bid: bid::Model,
    pub agent: agent::Model,
    /// What the winner is paid.
    pub price: Amount,
}

/// Decides a locked auction: takes the reputations once, ranks the eligible bids, and writes place and outcome on every live bid.
/// The best one wins, or `chosen`, and its agent has one more task in work. Answers nothing, and writes nothing, when no bid is
/// eligible. The caller has locked the purses that an award moves, because the winner's agent is locked from here on.
pub async fn decide(work: &mut Work, auction: &auction::Model, chosen: Option<BidId>) -> Result<Option<Win>> {
    let bids = live_bids(work, auction.id).await?;
    let agents = agents_of(work, &bids).await?;
    let standings = standings(work, agents.keys().copied()).await?;
    let since = seen_since(work);
    let is_eligible = |bid: &bid::Model| {
        let agent = agents.get(&bid.agent_id);
        agent.is_some_and(|agent| rules::eligible(auction, bid, agent, basis_points(&standings, agent.id), since))
    };
    let offers: Vec<Offer> = bids.iter().filter(|bid| is_eligible(bid)).map(|bid| offer(bid, &standings)).collect();
    let mut ranked = rules::rank(&offers, auction.budget, auction.price_weight);
    let winner = loop {
        let winner = match chosen {
            None => ranked.first().map(|(offer, _)| *offer),
            Some(id) if bids.iter().any(|bid| bid.id == id) => {
                let found = ranked.iter().map(|(offer, _)| *offer).find(|offer| offer.bid == id);
                Some(found.ok_or(AuctionRefused::BidNotEligible)?)
            }
            Some(_) => return Err(AuctionRefused::BidNotActive.into()),
        };
        let Some(winner) = winner else { return Ok(None) };
        if agents::take_up(work, winner.agent).await? {
            break winner;
        }
        // Another award took the agent's last room since its row was read.
        ranked.retain(|(offer, _)| offer.bid != winner.bid);
    };
    let price = rules::payment(auction, &winner, &ranked);

    let places: HashMap<BidId, i32> = (1..).zip(&ranked).map(|(place, (offer, _))| (offer.bid, place)).collect();
    let outcomes: Vec<Outcome> = bids
        .iter()
        .map(|bid| Outcome {
            bid: bid.id,
            status: match places.get(&bid.id) {
                Some(_) if bid.id == winner.bid => bid::Status::Won,
                Some(_) => bid::Status::Lost,
                None => bid::Status::Ineligible,
            },
            rank: places.get(&bid.id).copied(),
            reputation: basis_points(&standings, bid.agent_id),
        })
        .collect();
    write_outcomes(work, &outcomes).await?;
    let won = bids.into_iter().find(|bid| bid.id == winner.bid);
    let agent = agents.get(&winner.agent).cloned();
    match (won, agent) {
        (Some(bid), Some(agent)) => Ok(Some(Win { bid: bid::Model { status: bid::Status::Won, ..bid }, agent, price })),
        (None, _) | (_, None) => Err(Error::internal("the winning bid vanished")),
    }
}

/// Since when an agent that runs elsewhere must have been heard of to count as online now.
fn seen_since(work: &Work) -> Timestamp {
    work.now().before(work.terms().presence)
}

struct Outcome {
    bid: BidId,
    status: bid::Status,
    rank: Option<i32>,
    reputation: i32,
}

/// Writes the outcome of many bids in one statement for each chunk.
async fn write_outcomes(work: &Work, outcomes: &[Outcome]) -> Result<()> {
    for chunk in outcomes.chunks(UPDATE_CHUNK) {
        let cases = |value: &dyn Fn(&Outcome) -> SimpleExpr| {
            chunk.iter().fold(CaseStatement::new(), |case, outcome| {
                case.case(Expr::col(bid::Column::Id).eq(outcome.bid), value(outcome))
            })
        };
        let updated = bid::Entity::update_many()
            .col_expr(bid::Column::Status, cases(&|outcome| Expr::value(outcome.status)).into())
            .col_expr(bid::Column::Rank, cases(&|outcome| Expr::value(outcome.rank)).into())
            .col_expr(bid::Column::Reputation, cases(&|outcome| Expr::value(Some(outcome.reputation))).into())
            .filter(bid::Column::Id.is_in(chunk.iter().map(|outcome| outcome.bid)))
            .filter(bid::Column::Status.eq(bid::Status::Active))
            .exec(work.tx())
            .await?;
        if usize::try_from(updated.rows_affected).ok() != Some(chunk.len()) {
            return Err(Error::internal("a bid changed while its auction was decided"));
        }
    }
    Ok(())
}

/// How an auction ends.
#[derive(Clone, Copy, Debug)]
pub enum Closing<'a> {
    /// With a winner.
    Awarded(&'a Win),
    /// Without an eligible bid.
    Expired,
    /// Called off.
    Cancelled,
}

/// Closes a locked auction and says so.
pub async fn close(work: &mut Work, auction: auction::Model, closing: Closing<'_>) -> Result<auction::Model> {
    let now = work.now();
    let mut auction = auction::Model { deadline_at: None, closed_at: Some(now), ..auction };
    let lasted = i64::try_from(now.since(auction.created_at).as_micros()).ok();
    let payload = Payload { duration_us: lasted, bid_count: Some(auction.bid_count), ..Payload::default() };
    match closing {
        Closing::Awarded(win) => {
            auction.status = Status::Awarded;
            auction.winning_bid_id = Some(win.bid.id);
            auction.clearing_price = Some(win.price);
            let payload = Payload { bid_id: Some(win.bid.id), amount: Some(win.price), ..payload };
            work.record(Event {
                agent_id: Some(win.agent.id),
                owner_id: Some(win.agent.owner_id),
                ..about(&auction, event::Kind::AuctionAwarded, payload)
            });
        }
        Closing::Expired => {
            auction.status = Status::Expired;
            end_live_bids(work, auction.id, bid::Status::Ineligible).await?;
            work.record(about(&auction, event::Kind::AuctionExpired, payload));
        }
        Closing::Cancelled => {
            auction.status = Status::Cancelled;
            end_live_bids(work, auction.id, bid::Status::Cancelled).await?;
            reveal::end_standing(work, auction.id, commitment_row::Status::Cancelled).await?;
            work.record(about(&auction, event::Kind::AuctionCancelled, payload));
        }
    }
    save(work, &auction).await?;
    Ok(auction)
}

/// The bids that may take a forfeited task over, best first, with their agents.
pub async fn runners_up(work: &Work, auction: &auction::Model) -> Result<Vec<Win>> {
    let bids = bid::Entity::find()
        .filter(bid::Column::AuctionId.eq(auction.id))
        .filter(bid::Column::Status.eq(bid::Status::Lost))
        .order_by_asc(bid::Column::Rank)
        .all(work.tx())
        .await?;
    let agents = agents_of(work, &bids).await?;
    let since = seen_since(work);
    Ok(bids
        .into_iter()
        .filter_map(|bid| {
            let agent = agents.get(&bid.agent_id)?;
            let reputation = bid.reputation.unwrap_or(0);
            rules::eligible(auction, &bid, agent, reputation, since).then(|| Win {
                agent: agent.clone(),
                price: bid.price,
                bid,
            })
        })
        .collect())
}

/// Puts the next bid in the place of a winner that did not start. The winner's bid is forfeited; `next` wins, if there is one.
pub async fn replace_winner(
    work: &mut Work,
    auction: auction::Model,
    forfeited: BidId,
    next: Option<&Win>,
) -> Result<auction::Model> {
    let bid = bid::Entity::find_by_id(forfeited).one(work.tx()).await?;
    set_status(work, bid.ok_or_else(|| Error::internal("the winning bid vanished"))?, bid::Status::Forfeited).await?;
    let Some(next) = next else { return Ok(auction) };
    set_status(work, next.bid.clone(), bid::Status::Won).await?;
    let auction = auction::Model { winning_bid_id: Some(next.bid.id), clearing_price: Some(next.price), ..auction };
    save(work, &auction).await?;
    Ok(auction)
}

/// The auction, locked until the unit of work ends.
pub async fn lock(work: &Work, id: AuctionId) -> Result<auction::Model> {
    let found = auction::Entity::find_by_id(id).lock(LOCK).one(work.tx()).await?;
    work.got_lock();
    if let Some(auction) = &found {
        work.not_before(auction.created_at);
    }
    found.ok_or(Error::NotFound("auction"))
}

/// The auction of a task, locked until the unit of work ends.
pub async fn lock_of_task(work: &Work, task: entity::id::TaskId) -> Result<auction::Model> {
    let found = auction::Entity::find().filter(auction::Column::TaskId.eq(task)).lock(LOCK).one(work.tx()).await?;
    work.got_lock();
    if let Some(auction) = &found {
        work.not_before(auction.created_at);
    }
    found.ok_or(Error::NotFound("task"))
}

/// Open auctions that are due at `now`, earliest first.
pub async fn due(db: &impl sea_orm::ConnectionTrait, now: Timestamp, limit: u64) -> Result<Vec<AuctionId>> {
    Ok(auction::Entity::find()
        .select_only()
        .column(auction::Column::Id)
        .filter(auction::Column::DeadlineAt.lte(now))
        .order_by_asc(auction::Column::DeadlineAt)
        .limit(limit)
        .into_tuple()
        .all(db)
        .await?)
}

/// Begins the time in which the requester awards by hand: bidding is over, or the reveals are.
pub async fn await_award(work: &Work, auction: auction::Model) -> Result<auction::Model> {
    let now = work.now();
    let deadline_at = Some(now.after(work.terms().manual_award_window));
    let auction = match auction.visibility {
        Visibility::Sealed | Visibility::Open => auction::Model { closes_at: now, deadline_at, ..auction },
        Visibility::CommitReveal => {
            let reveal_until = auction.reveal_until.map(|until| std::cmp::min(until, now));
            auction::Model { reveal_until, deadline_at, ..auction }
        }
    };
    save(work, &auction).await?;
    Ok(auction)
}

async fn save(work: &Work, auction: &auction::Model) -> Result<()> {
    let mut row = auction.clone().into_active_model();
    row.status = Set(auction.status);
    row.closes_at = Set(auction.closes_at);
    row.extensions = Set(auction.extensions);
    row.next_seq = Set(auction.next_seq);
    row.bid_count = Set(auction.bid_count);
    row.winning_bid_id = Set(auction.winning_bid_id);
    row.clearing_price = Set(auction.clearing_price);
    row.deadline_at = Set(auction.deadline_at);
    row.closed_at = Set(auction.closed_at);
    row.reveal_until = Set(auction.reveal_until);
    row.commitment_count = Set(auction.commitment_count);
    row.update_without_returning(work.tx()).await?;
    Ok(())
}

async fn set_status(work: &Work, bid: bid::Model, status: bid::Status) -> Result<()> {
    let mut row = bid.into_active_model();
    row.status = Set(status);
    row.update_without_returning(work.tx()).await?;
    Ok(())
}

async fn end_live_bids(work: &Work, auction: AuctionId, status: bid::Status) -> Result<()> {
    bid::Entity::update_many()
        .col_expr(bid::Column::Status, Expr::value(status))
        .filter(bid::Column::AuctionId.eq(auction))
        .filter(bid::Column::Status.eq(bid::Status::Active))
        .exec(work.tx())
        .await?;
    Ok(())
}

async fn live_bids(work: &Work, auction: AuctionId) -> Result<Vec<bid::Model>> {
    Ok(bid::Entity::find()
        .filter(bid::Column::AuctionId.eq(auction))
        .filter(bid::Column::Status.eq(bid::Status::Active))
        .order_by_asc(bid::Column::Seq)
        .all(work.tx())
        .await?)
}

async fn agents_of(work: &Work, bids: &[bid::Model]) -> Result<HashMap<AgentId, agent::Model>> {
    agents_by_id(work, bids.iter().map(|bid| bid.agent_id).collect()).await
}

async fn agents_by_id(work: &Work, ids: Vec<AgentId>) -> Result<HashMap<AgentId, agent::Model>> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = agent::Entity::find().filter(agent::Column::Id.is_in(ids)).all(work.tx()).await?;
    Ok(rows.into_iter().map(|agent| (agent.id, agent)).collect())
}

async fn standings(work: &Work, agents: impl IntoIterator<Item = AgentId>) -> Result<HashMap<AgentId, Standing>> {
    let agents: Vec<AgentId> = agents.into_iter().collect();
    if agents.is_empty() {
        return Ok(HashMap::new());
    }
    reputation::standings(work.tx(), &agents, work.now()).await
}

fn basis_points(standings: &HashMap<AgentId, Standing>, agent: AgentId) -> i32 {
    standings.get(&agent).map_or(0, |standing| standing.basis_points)
}

fn offer(bid: &bid::Model, standings: &HashMap<AgentId, Standing>) -> Offer {
    Offer {
        bid: bid.id,
        agent: bid.agent_id,
        bidder: bid.bidder_id,
        price: bid.price,
        reputation: basis_points(standings, bid.agent_id),
        seq: bid.seq,
    }
}

fn about(auction: &auction::Model, kind: event::Kind, payload: Payload) -> Event {
    Event {
        auction_id: Some(auction.id),
        task_id: Some(auction.task_id),
        payer_id: Some(auction.requester_id),
        ..Event::new(kind, payload)
    }
}

/// What everybody may know of a bid: in a sealed auction only how many there are.
fn bid_event(auction: &auction::Model, bid: &bid::Model, kind: event::Kind) -> Event {
    let payload = Payload { bid_count: Some(auction.bid_count), ..Payload::default() };
    match auction.visibility {
        Visibility::Sealed | Visibility::CommitReveal => about(auction, kind, payload),
        Visibility::Open => {
            let payload = Payload { bid_id: Some(bid.id), amount: Some(bid.price), ..payload };
            Event { agent_id: Some(bid.agent_id), owner_id: Some(bid.bidder_id), ..about(auction, kind, payload) }
        }
    }
}

/// Whether `viewer` may see `bid` while its auction is as it is.
#[must_use]
pub fn may_see(auction: &auction::Model, bid: &bid::Model, viewer: Option<UserId>) -> bool {
    !rules::hidden(auction) || viewer == Some(bid.bidder_id)
}
