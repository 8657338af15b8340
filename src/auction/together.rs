//! Bids that arrive together, written together: the statements of one bid for all of them.
//!
//! What must always hold: each bid is admitted or refused as if those before it had been written alone, by the same rules; auctions
//! are locked in the order of their ids. Where a bid does more than to stand in its auction, because it moves a bond, the close or
//! the task, it is left to [`super::submit_bid`].

use std::collections::{BTreeMap, BTreeSet, HashMap};

use entity::{
    auction::{self, Visibility},
    bid,
    event::Kind,
    id::{AgentId, AuctionId, BidId},
};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, EntityTrait, ExprTrait, IntoActiveModel, QueryFilter, QueryOrder, QuerySelect,
    UpdateResult,
    sea_query::{CaseStatement, Expr, SimpleExpr},
};

use super::{LOCK, NewBid, admit, bid_event, bid_of};
use crate::{
    caller::Caller,
    error::{Error, Result},
    reputation,
    store::{Work, each, insert_all, padded},
};

/// What came of one of the offers.
#[derive(Debug)]
pub enum Outcome {
    /// It stands.
    Bid(Box<bid::Model>),
    /// It does not.
    No(Error),
    /// It has to be asked for by itself.
    Alone,
}

/// Makes offers of many callers. No two of them are of one agent in one auction.
pub async fn submit_bids(work: &mut Work, offers: &[(&Caller, &NewBid)]) -> Result<Vec<Outcome>> {
    let mut auctions = lock(work, offers.iter().map(|(_, offer)| offer.auction).collect()).await?;
    let ids: BTreeSet<AgentId> = offers.iter().map(|(_, offer)| offer.agent).collect();
    let agents = reputation::agents(work.tx(), ids, work.now()).await?;
    let pairs: Vec<_> = offers.iter().map(|(_, offer)| (offer.auction, offer.agent)).collect();
    let earlier = earlier_bids(work, &pairs).await?;

    let (mut outcomes, mut bids, mut replaced) = (Vec::new(), Vec::new(), Vec::new());
    let mut changed: BTreeMap<AuctionId, (i32, i32)> = BTreeMap::new();
    for (caller, offer) in offers {
        let Some(auction) = auctions.get_mut(&offer.auction) else {
            outcomes.push(Outcome::No(Error::NotFound("auction")));
            continue;
        };
        if !is_plain(auction) {
            outcomes.push(Outcome::Alone);
            continue;
        }
        let Some((agent, standing)) = agents.get(&offer.agent) else {
            outcomes.push(Outcome::No(Error::NotFound("agent")));
            continue;
        };
        let before = earlier.get(&(auction.id, agent.id)).map(Vec::as_slice).unwrap_or_default();
        let old = match admit(work, caller, auction, agent, standing.basis_points, before, offer) {
            Ok(old) => old,
            Err(no) => {
                outcomes.push(Outcome::No(no));
                continue;
            }
        };
        let bid = bid_of(work, auction, agent, offer, old.is_some(), None);
        replaced.extend(old);
        work.record_as(bid.bidder_id, bid_event(auction, &bid, Kind::BidSubmitted));
        changed.insert(auction.id, (auction.next_seq, auction.bid_count));
        bids.push(bid.clone().into_active_model().reset_all());
        outcomes.push(Outcome::Bid(Box::new(bid)));
    }

    if !replaced.is_empty() {
        replace(work, &replaced).await?;
    }
    if !bids.is_empty() {
        insert_all(work.tx(), bids).await?;
        count(work, &changed).await?;
    }
    Ok(outcomes)
}

/// Whether a bid in the auction changes nothing but the auction's own counts.
fn is_plain(auction: &auction::Model) -> bool {
    auction.bond.is_zero()
        && auction.close_after_bids.is_none()
        && auction.soft_close_ms == 0
        && auction.visibility != Visibility::CommitReveal
}

/// The auctions that there are, locked in the order of their ids.
async fn lock(work: &Work, ids: BTreeSet<AuctionId>) -> Result<HashMap<AuctionId, auction::Model>> {
    let auctions = auction::Entity::find()
        .filter(auction::Column::Id.is_in(padded(ids)))
        .order_by_asc(auction::Column::Id)
        .lock(LOCK)
        .all(work.tx())
        .await?;
    work.got_lock();
    for auction in &auctions {
        work.not_before(auction.created_at);
    }
    Ok(auctions.into_iter().map(|auction| (auction.id, auction)).collect())
}

/// All bids that agents made in auctions, by auction and agent.
pub(super) async fn earlier_bids(
    work: &Work,
    pairs: &[(AuctionId, AgentId)],
) -> Result<HashMap<(AuctionId, AgentId), Vec<(BidId, bid::Status)>>> {
    let wanted = padded(pairs.iter().copied()).into_iter().map(|(auction, agent)| {
        bid::Entity::find()
            .select_only()
            .columns([bid::Column::AuctionId, bid::Column::AgentId, bid::Column::Id, bid::Column::Status])
            .filter(bid::Column::AuctionId.eq(auction))
            .filter(bid::Column::AgentId.eq(agent))
    });
    let rows: Vec<(AuctionId, AgentId, BidId, bid::Status)> = match each(wanted) {
        Some(select) => select.into_tuple().all(work.tx()).await?,
        None => Vec::new(),
    };
    let mut bids: HashMap<_, Vec<_>> = HashMap::new();
    for (auction, agent, id, status) in rows {
        bids.entry((auction, agent)).or_default().push((id, status));
    }
    Ok(bids)
}

/// Ends live bids because their agents made other ones.
pub(super) async fn replace(work: &Work, bids: &[BidId]) -> Result<()> {
    let updated = bid::Entity::update_many()
        .col_expr(bid::Column::Status, Expr::value(bid::Status::Replaced))
        .filter(bid::Column::Id.is_in(padded(bids.iter().copied())))
        .filter(bid::Column::Status.eq(bid::Status::Active))
        .exec(work.tx())
        .await?;
    all_of(bids.len(), &updated, "a bid changed while its auction was locked")
}

/// Writes the next number of a bid and the count of live ones of each auction.
async fn count(work: &Work, auctions: &BTreeMap<AuctionId, (i32, i32)>) -> Result<()> {
    let cases = |value: &dyn Fn(&(i32, i32)) -> SimpleExpr| {
        padded(auctions).into_iter().fold(CaseStatement::new(), |case, (id, counts)| {
            case.case(Expr::col(auction::Column::Id).eq(*id), value(counts))
        })
    };
    let updated = auction::Entity::update_many()
        .col_expr(auction::Column::NextSeq, cases(&|(seq, _)| Expr::value(*seq)).into())
        .col_expr(auction::Column::BidCount, cases(&|(_, count)| Expr::value(*count)).into())
        .filter(auction::Column::Id.is_in(padded(auctions.keys().copied())))
        .exec(work.tx())
        .await?;
    all_of(auctions.len(), &updated, "an auction went away while it was locked")
}

/// Fails unless a statement changed as many rows as it had to.
fn all_of(wanted: usize, updated: &UpdateResult, otherwise: &'static str) -> Result<()> {
    let changed = usize::try_from(updated.rows_affected).map_err(Error::internal)?;
    if changed == wanted { Ok(()) } else { Err(Error::internal(otherwise)) }
}
