//! Bidding without telling: commitments while the auction takes bids, reveals after its close.
//!
//! ```text
//! a commitment: COMMITTED ─► REPLACED | WITHDRAWN | CANCELLED
//!                   └─ close ─┬─ told in time, fits the hash ─► REVEALED: a bid, with the commitment's place in the order
//!                             └─ not told in time ────────────► UNREVEALED: the bond is the requester's
//! ```
//!
//! What must always hold: nothing that is stored before the reveal tells a price; an agent has one commitment that stands in an
//! auction at most, with a bond behind it; a bid is revealed once, by its bidder, between the close and the end of the reveals; a
//! commitment that stands is what makes an auction wait for reveals, and when none does any more the bids are decided.

use std::time::Duration;

use entity::{
    agent,
    auction::{self, Status},
    bid, bond, commitment,
    event::{self, Payload},
    id::{AgentId, AuctionId, BidId, CommitmentId},
    money::Amount,
};
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, EntityTrait, IntoActiveModel, PaginatorTrait, QueryFilter,
    QueryOrder, sea_query::Expr,
};

use super::{
    MAX_PROMISE, about, basis_points, bond as bonds, commitment::Sealed, lock, rules, rules::AuctionRefused, save,
    standings,
};
use crate::{
    caller::Scope,
    error::{Error, Result},
    ledger::BondMove,
    store::Work,
    voucher::read_hex,
};

/// A bid that is not told yet.
#[derive(Clone, Debug, serde::Serialize)]
pub struct NewCommitment {
    pub auction: AuctionId,
    pub agent: AgentId,
    /// The hash, in 64 lower-case hexadecimal digits.
    pub hash: String,
}

/// Commits one of the caller's agents to a bid in a locked auction and puts its bond down. An earlier commitment of the same agent
/// is replaced and hands its bond on. Answers the auction as it is now.
pub async fn commit_bid(
    work: &mut Work,
    mut auction: auction::Model,
    new: NewCommitment,
) -> Result<(auction::Model, commitment::Model)> {
    let agent = agent::Entity::find_by_id(new.agent).one(work.tx()).await?.ok_or(Error::NotFound("agent"))?;
    let bidder = work.caller().controls(&agent, Scope::BidsWrite)?;
    if read_hex::<32>(&new.hash).is_err() {
        return Err(Error::invalid("commitment", "must be 64 lower-case hexadecimal digits"));
    }
    let standings = standings(work, [agent.id]).await?;
    rules::admit_commitment(&auction, &agent, basis_points(&standings, agent.id), work.now())?;
    let earlier = of_agent(work, auction.id, agent.id).await?;
    let replaced = earlier.iter().find(|one| one.status == commitment::Status::Committed).cloned();
    if replaced.is_none() && auction.commitment_count >= work.terms().max_bids {
        return Err(AuctionRefused::AuctionFull.into());
    }
    if i32::try_from(earlier.len()).unwrap_or(i32::MAX) >= work.terms().max_bids_of_agent {
        return Err(AuctionRefused::TooManyChanges.into());
    }

    let bond = bonds::put(work, &auction, &agent).await?;
    let bond_id = bond.ok_or_else(|| Error::internal("a COMMIT_REVEAL auction without a bond"))?;
    match replaced {
        Some(old) => set_status(work, old, commitment::Status::Replaced).await?,
        None => auction.commitment_count = auction.commitment_count.saturating_add(1),
    }
    let commitment = commitment::Model {
        id: work.fresh(),
        auction_id: auction.id,
        agent_id: agent.id,
        bidder_id: bidder,
        hash: new.hash,
        seq: auction.next_seq,
        bond_id,
        status: commitment::Status::Committed,
        bid_id: None,
        created_at: work.now(),
        revealed_at: None,
        salt: None,
    };
    auction.next_seq = auction.next_seq.saturating_add(1);
    let row = commitment.clone().into_active_model().reset_all();
    commitment::Entity::insert(row).exec_without_returning(work.tx()).await?;
    save(work, &auction).await?;
    let payload = Payload { bid_count: Some(auction.commitment_count), ..Payload::default() };
    work.record(about(&auction, event::Kind::BidCommitted, payload));
    Ok((auction, commitment))
}

/// Takes a commitment back while the auction takes them; its bond comes back.
pub async fn withdraw_commitment(work: &mut Work, id: CommitmentId) -> Result<commitment::Model> {
    work.caller().with_scope(Scope::BidsWrite)?;
    let missing = || Error::NotFound("commitment");
    let found = commitment::Entity::find_by_id(id).one(work.tx()).await?.ok_or_else(missing)?;
    let mut auction = lock(work, found.auction_id).await?;
    let agent = agent::Entity::find_by_id(found.agent_id).one(work.tx()).await?.ok_or_else(missing)?;
    work.caller()
        .controls(&agent, Scope::BidsWrite)
        .map_err(|error| if matches!(error, Error::NotFound(_)) { missing() } else { error })?;
    rules::open(&auction, work.now())?;
    let commitment = commitment::Entity::find_by_id(id).one(work.tx()).await?.ok_or_else(missing)?;
    if commitment.status != commitment::Status::Committed {
        return Err(AuctionRefused::CommitmentNotLive.into());
    }
    bonds::give_back(work, auction.id, agent.id).await?;
    auction.commitment_count = auction.commitment_count.saturating_sub(1);
    save(work, &auction).await?;
    set_status(work, commitment.clone(), commitment::Status::Withdrawn).await?;
    let payload = Payload { bid_count: Some(auction.commitment_count), ..Payload::default() };
    work.record(about(&auction, event::Kind::BidWithdrawn, payload));
    Ok(commitment::Model { status: commitment::Status::Withdrawn, ..commitment })
}

/// Begins the reveals of a locked auction that takes no more commitments. The bidders have the whole window from now on, however
/// late the close was noticed.
pub async fn begin(work: &mut Work, auction: auction::Model) -> Result<auction::Model> {
    let now = work.now();
    let window = Duration::from_millis(u64::try_from(auction.reveal_ms).unwrap_or(0));
    let until = now.after(window);
    let auction = auction::Model {
        status: Status::Revealing,
        closes_at: auction.closes_at.min(now),
        reveal_until: Some(until),
        deadline_at: Some(until),
        ..auction
    };
    save(work, &auction).await?;
    let payload = Payload { bid_count: Some(auction.commitment_count), closes_at: Some(until), ..Payload::default() };
    work.record(about(&auction, event::Kind::AuctionRevealing, payload));
    Ok(auction)
}

/// What a bidder tells after the close.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Reveal {
    pub auction: AuctionId,
    pub agent: AgentId,
    pub price: Amount,
    /// How long the agent promises to need at most; nothing when empty, whatever the agent posted.
    pub promised: Option<Duration>,
    /// The salt in 64 lower-case hexadecimal digits.
    pub salt: String,
}

/// Reveals the bid that one of the caller's agents committed to, in a locked auction. A price that the auction or the agent's own
/// minimum does not admit makes a bid that is INELIGIBLE, and the bond is lost: both bounds were known before the commitment, and
/// whoever commits to what cannot be taken has not bid. Answers the auction as it is now and whether reveals are still missing.
pub async fn reveal_bid(
    work: &mut Work,
    mut auction: auction::Model,
    told: Reveal,
) -> Result<(auction::Model, bid::Model, bool)> {
    let agent = agent::Entity::find_by_id(told.agent).one(work.tx()).await?.ok_or(Error::NotFound("agent"))?;
    let bidder = work.caller().controls(&agent, Scope::BidsWrite)?;
    let salt = read_hex(&told.salt).map_err(|_| Error::invalid("salt", "must be 64 lower-case hexadecimal digits"))?;
    if told.price.is_zero() {
        return Err(Error::invalid("price", "must be more than zero"));
    }
    if told.promised.is_some_and(|promised| promised.as_millis() == 0 || promised > MAX_PROMISE) {
        return Err(Error::invalid("promisedDuration", "must be between one millisecond and one hour"));
    }
    let promised_ms = told.promised.map_or(0, |promised| u32::try_from(promised.as_millis()).unwrap_or(u32::MAX));
    rules::revealing(&auction, work.now())?;
    let earlier = of_agent(work, auction.id, agent.id).await?;
    let commitment = earlier.into_iter().next_back().ok_or(AuctionRefused::NoCommitment)?;
    let sealed = Sealed {
        instance: work.instance()?.id(),
        auction: auction.id,
        agent: agent.id,
        price: told.price,
        promised_ms,
        salt,
    };
    rules::admit_reveal(&commitment, &sealed)?;
    let admissible = rules::admit_price(&auction, &agent, told.price).is_ok();

    let bid = bid::Model {
        id: work.fresh(),
        auction_id: auction.id,
        agent_id: agent.id,
        bidder_id: bidder,
        price: told.price,
        promised_ms: (promised_ms > 0).then_some(i64::from(promised_ms)),
        seq: commitment.seq,
        status: if admissible { bid::Status::Active } else { bid::Status::Ineligible },
        reputation: None,
        rank: None,
        created_at: work.now(),
        bond_id: Some(commitment.bond_id),
        fuel_price: agent.fuel_price,
    };
    bid::Entity::insert(bid.clone().into_active_model().reset_all()).exec_without_returning(work.tx()).await?;
    let mut row = commitment.clone().into_active_model();
    row.status = Set(commitment::Status::Revealed);
    row.bid_id = Set(Some(bid.id));
    row.revealed_at = Set(Some(work.now()));
    row.salt = Set(Some(told.salt));
    row.update_without_returning(work.tx()).await?;
    if admissible {
        auction.bid_count = auction.bid_count.saturating_add(1);
        save(work, &auction).await?;
    } else {
        // The decision may follow in this unit of work, so all wallets are locked before the first one moves.
        let held = bonds::lock(work, &auction).await?;
        let lost = held.into_iter().filter(|bond| bond.id == commitment.bond_id);
        let lost = lost.map(|bond| (bond, BondMove::Forfeit(auction.requester_id))).collect();
        bonds::finish(work, lost).await?;
    }
    let payload = Payload { bid_count: Some(auction.bid_count), ..Payload::default() };
    work.record(about(&auction, event::Kind::BidRevealed, payload));
    let missing = are_missing(work, auction.id).await?;
    Ok((auction, bid, missing))
}

/// Whether bids are committed to that are neither told nor lost.
pub async fn are_missing(work: &Work, auction: AuctionId) -> Result<bool> {
    Ok(standing(auction).count(work.tx()).await? > 0)
}

/// Ends the time for reveals: who did not tell a bid loses the bond to the requester. Answers whether anybody did.
pub async fn end(work: &mut Work, auction: &auction::Model) -> Result<bool> {
    let missing = standing(auction.id).all(work.tx()).await?;
    if missing.is_empty() {
        return Ok(false);
    }
    let held = bonds::lock(work, auction).await?;
    let lost: Vec<(bond::Model, BondMove)> = held
        .into_iter()
        .filter(|bond| missing.iter().any(|commitment| commitment.bond_id == bond.id))
        .map(|bond| (bond, BondMove::Forfeit(auction.requester_id)))
        .collect();
    if lost.len() != missing.len() {
        return Err(Error::internal("a commitment without a bond"));
    }
    bonds::finish(work, lost).await?;
    end_standing(work, auction.id, commitment::Status::Unrevealed).await?;
    Ok(true)
}

/// Ends the commitments of an auction that is called off.
pub(super) async fn end_standing(work: &Work, auction: AuctionId, status: commitment::Status) -> Result<()> {
    commitment::Entity::update_many()
        .col_expr(commitment::Column::Status, Expr::value(status))
        .filter(commitment::Column::AuctionId.eq(auction))
        .filter(commitment::Column::Status.eq(commitment::Status::Committed))
        .exec(work.tx())
        .await?;
    Ok(())
}

/// The bid of a locked auction as it is now.
pub async fn bid_now(work: &Work, id: BidId) -> Result<bid::Model> {
    let found = bid::Entity::find_by_id(id).one(work.tx()).await?;
    found.ok_or_else(|| Error::internal("a bid vanished"))
}

fn standing(auction: AuctionId) -> sea_orm::Select<commitment::Entity> {
    commitment::Entity::find()
        .filter(commitment::Column::AuctionId.eq(auction))
        .filter(commitment::Column::Status.eq(commitment::Status::Committed))
}

/// All commitments of an agent in an auction, in their order.
async fn of_agent(work: &Work, auction: AuctionId, agent: AgentId) -> Result<Vec<commitment::Model>> {
    Ok(commitment::Entity::find()
        .filter(commitment::Column::AuctionId.eq(auction))
        .filter(commitment::Column::AgentId.eq(agent))
        .order_by_asc(commitment::Column::Seq)
        .all(work.tx())
        .await?)
}

async fn set_status(work: &Work, commitment: commitment::Model, status: commitment::Status) -> Result<()> {
    let mut row = commitment.into_active_model();
    row.status = Set(status);
    row.update_without_returning(work.tx()).await?;
    Ok(())
}
