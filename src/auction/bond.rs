//! Bonds: what stands behind one agent's word in one auction.
//!
//! ```text
//! HELD ─┬─ withdrawn, lost, ineligible, expired, cancelled, work begun ─► RETURNED to the bidder
//!       └─ not revealed, revealed a price that cannot be taken, backed out after the close, won and did not start
//!                                                                        ─► FORFEITED to the requester
//! ```
//!
//! What must always hold: a bond is held while its auction takes bids or reveals, and the winner's until its work begins; every end
//! of an auction and of a wait for a winner ends the bonds in its own unit of work, so that none waits for anybody's good will.
//! Wallets are locked together before the first of them moves, because one unit of work may pay many bidders and a requester.

use entity::{
    agent, auction,
    bond::{self, Status},
    event::{self, Payload},
    id::{AgentId, AuctionId, BondId, TaskId},
    task,
};
use sea_orm::{ActiveModelTrait, ColumnTrait, EntityTrait, IntoActiveModel, QueryFilter, QueryOrder, sea_query::Expr};

use super::{UPDATE_CHUNK, agents_by_id, rules};
use crate::{
    error::{Error, Result},
    ledger::{self, BondMove, Purse},
    store::{Event, Work},
};

/// Puts a bond down for an agent, or answers the one that it has in this auction already. `None` where the auction asks for none.
pub(super) async fn put(work: &mut Work, auction: &auction::Model, agent: &agent::Model) -> Result<Option<BondId>> {
    if auction.bond.is_zero() {
        return Ok(None);
    }
    if let Some(held) = held_by(work, auction.id, agent.id).await? {
        return Ok(Some(held.id));
    }
    if auction.close_after_bids.is_some() {
        // This bid may be the last one, and then the others' wallets move in this unit of work too.
        let held = held(work, auction.id).await?;
        let users = held.iter().map(|bond| bond.bidder_id).chain([auction.requester_id, agent.owner_id]);
        ledger::lock_wallets(work, users.collect()).await?;
    }
    let bond = bond::Model {
        id: work.fresh(),
        auction_id: auction.id,
        task_id: auction.task_id,
        agent_id: agent.id,
        bidder_id: agent.owner_id,
        amount: auction.bond,
        status: Status::Held,
        created_at: work.now(),
        resolved_at: None,
    };
    ledger::move_bonds(work, &[(bond.clone(), BondMove::Put)]).await?;
    let id = bond.id;
    bond::Entity::insert(bond.into_active_model().reset_all()).exec_without_returning(work.tx()).await?;
    Ok(Some(id))
}

/// The bonds that are held in a locked auction, with the wallets of everybody whom their end may pay locked. It comes before anything
/// moves in the unit of work; the holds that are locked later belong to the auction's own, locked task, so nobody waits for them.
pub async fn lock(work: &Work, auction: &auction::Model) -> Result<Vec<bond::Model>> {
    if auction.bond.is_zero() {
        return Ok(Vec::new());
    }
    let held = held(work, auction.id).await?;
    let users = held.iter().map(|bond| bond.bidder_id).chain([auction.requester_id]);
    ledger::lock_wallets(work, users.collect()).await?;
    Ok(held)
}

/// The same before a decision, and the purse that pays is locked with them, bonds or not: the decision locks the winner's agent, which
/// comes after all purses.
pub async fn lock_to_decide(work: &Work, auction: &auction::Model, payer: Purse) -> Result<Vec<bond::Model>> {
    let held = if auction.bond.is_zero() { Vec::new() } else { held(work, auction.id).await? };
    let users = held.iter().map(|bond| bond.bidder_id).chain((!held.is_empty()).then_some(auction.requester_id));
    let purses: Vec<Purse> = users.map(Purse::User).chain([payer]).collect();
    ledger::lock_purses(work, &purses).await?;
    Ok(held)
}

/// Gives back what one agent put down.
pub(super) async fn give_back(work: &mut Work, auction: AuctionId, agent: AgentId) -> Result<()> {
    let held = held_by(work, auction, agent).await?;
    finish(work, held.into_iter().map(|bond| (bond, BondMove::Return)).collect()).await
}

/// Ends the bonds of a decided auction: the winner's stays, those of bidders who backed out are the requester's, all others go
/// back. `held` is what [`lock`] answered.
pub async fn decided(
    work: &mut Work,
    auction: &auction::Model,
    held: Vec<bond::Model>,
    winner: Option<AgentId>,
) -> Result<()> {
    let agents = agents_by_id(work, held.iter().map(|bond| bond.agent_id).collect()).await?;
    let ends = held.into_iter().filter(|bond| Some(bond.agent_id) != winner).map(|bond| {
        let backed_out = agents.get(&bond.agent_id).is_some_and(|agent| rules::backed_out(auction, agent));
        let end = if backed_out { BondMove::Forfeit(auction.requester_id) } else { BondMove::Return };
        (bond, end)
    });
    let ends = ends.collect();
    finish(work, ends).await
}

/// Gives all bonds back: nobody decided, so nobody broke a word.
pub async fn called_off(work: &mut Work, held: Vec<bond::Model>) -> Result<()> {
    finish(work, held.into_iter().map(|bond| (bond, BondMove::Return)).collect()).await
}

/// Gives the winner's bond back, because its work begins. The task is locked.
pub async fn kept_word(work: &mut Work, task: TaskId) -> Result<()> {
    let held = of_task(work, task).await?;
    finish(work, held.into_iter().map(|bond| (bond, BondMove::Return)).collect()).await
}

/// Ends the bond of a winner that did not start in time: it is the requester's, unless the wait was not the bidder's fault. The
/// auction and the task are locked, and so are the wallets, by [`lock`].
pub async fn not_started(work: &mut Work, task: &task::Model, at_fault: bool) -> Result<()> {
    let end = if at_fault { BondMove::Forfeit(task.requester_id) } else { BondMove::Return };
    let held = of_task(work, task.id).await?;
    finish(work, held.into_iter().map(|bond| (bond, end)).collect()).await
}

/// Moves bonds to where they end and says which were lost.
pub(super) async fn finish(work: &mut Work, ends: Vec<(bond::Model, BondMove)>) -> Result<()> {
    for chunk in ends.chunks(UPDATE_CHUNK) {
        ledger::move_bonds(work, chunk).await?;
        for (status, wanted) in [(Status::Returned, true), (Status::Forfeited, false)] {
            let ids: Vec<BondId> = chunk
                .iter()
                .filter(|(_, end)| matches!(end, BondMove::Return) == wanted)
                .map(|(bond, _)| bond.id)
                .collect();
            if ids.is_empty() {
                continue;
            }
            let count = ids.len();
            let updated = bond::Entity::update_many()
                .col_expr(bond::Column::Status, Expr::value(status))
                .col_expr(bond::Column::ResolvedAt, Expr::value(Some(work.now())))
                .filter(bond::Column::Id.is_in(ids))
                .filter(bond::Column::Status.eq(Status::Held))
                .exec(work.tx())
                .await?;
            if usize::try_from(updated.rows_affected).ok() != Some(count) {
                return Err(Error::internal("a bond was ended by somebody else"));
            }
        }
    }
    for (bond, end) in ends {
        if let BondMove::Forfeit(requester) = end {
            let payload = Payload { amount: Some(bond.amount), ..Payload::default() };
            work.record(Event {
                auction_id: Some(bond.auction_id),
                task_id: Some(bond.task_id),
                agent_id: Some(bond.agent_id),
                payer_id: Some(requester),
                owner_id: Some(bond.bidder_id),
                ..Event::new(event::Kind::BondForfeited, payload)
            });
        }
    }
    Ok(())
}

async fn held(work: &Work, auction: AuctionId) -> Result<Vec<bond::Model>> {
    Ok(bond::Entity::find()
        .filter(bond::Column::AuctionId.eq(auction))
        .filter(bond::Column::Status.eq(Status::Held))
        .order_by_asc(bond::Column::Id)
        .all(work.tx())
        .await?)
}

async fn held_by(work: &Work, auction: AuctionId, agent: AgentId) -> Result<Option<bond::Model>> {
    Ok(bond::Entity::find()
        .filter(bond::Column::AuctionId.eq(auction))
        .filter(bond::Column::AgentId.eq(agent))
        .filter(bond::Column::Status.eq(Status::Held))
        .one(work.tx())
        .await?)
}

async fn of_task(work: &Work, task: TaskId) -> Result<Vec<bond::Model>> {
    Ok(bond::Entity::find()
        .filter(bond::Column::TaskId.eq(task))
        .filter(bond::Column::Status.eq(Status::Held))
        .all(work.tx())
        .await?)
}
