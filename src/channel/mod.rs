//! Payment channels. An escrow channel is opened by an award with the price as its deposit, backs exactly one task, and closes
//! when that task is settled.
//!
//! ```text
//! OPEN(deposit) ─┬─ settled: the agent is paid ───────► CLOSED
//!                ├─ refunded: the work failed ────────► CLOSED
//!                └─ forfeited: the agent did not start ► CLOSED
//! ```
//!
//! A streaming channel ([`stream`]) is opened by a payer for an agent and pays as it goes: by vouchers that the payer signs and the
//! agent, or anybody for it, claims; or by the payer's calls if the channel has no key.
//!
//! ```text
//!                ┌──────── cancelClose (payer) ───────┐
//!                ▼                                    │
//! open(D) ─► OPEN ──────── requestClose (payer) ─► CLOSING(until)
//!  claim, deduct, topUp │                            │ claim, deduct, topUp
//!                       ├─ close (agent), cooperative close, its time is over ─┤
//!                       └───────────────► CLOSED ◄───┘  the agent has what was paid, the payer the rest
//! ```
//!
//! What must always hold: a task has one open channel at most; a channel has paid at most its deposit; CLOSED is for ever; the
//! nonce grows with every change, and a change that saw an older nonce does not happen. Of a streaming channel also: what was paid
//! is at most the highest sum that its key signed; its account holds the deposit less what was paid, and no task has a claim on
//! that; time alone gives the payer back what was not paid.

pub mod rules;
pub mod stream;

use entity::{
    channel::{self, CloseReason, Purpose, Status},
    event::{Kind, Payload},
    hold,
    id::{AgentId, ChannelId, UserId},
    money::Amount,
    task,
    time::Timestamp,
};
use sea_orm::{ActiveValue::Set, ColumnTrait, EntityTrait, QueryFilter, QuerySelect, sea_query::Expr};

use crate::{
    error::{Error, Result},
    ledger::{self, Deposit, Purse, Settled},
    store::{Event, Work},
};

/// A channel that an award opens.
#[derive(Clone, Copy, Debug)]
pub struct Opening<'a> {
    pub id: ChannelId,
    pub task: &'a task::Model,
    pub agent: AgentId,
    /// The owner of the agent.
    pub owner: UserId,
    /// The hold that keeps the deposit.
    pub hold: &'a hold::Model,
    /// When the deposit goes back at the latest if nothing else happens.
    pub expires_at: Timestamp,
}

/// Opens an escrow channel over a deposit that the ledger already holds.
pub async fn open_escrow(work: &mut Work, opening: Opening<'_>) -> Result<channel::Model> {
    let row = channel::ActiveModel {
        id: Set(opening.id),
        purpose: Set(Purpose::Escrow),
        payer_id: Set(opening.task.requester_id),
        agent_id: Set(opening.agent),
        task_id: Set(Some(opening.task.id)),
        hold_id: Set(Some(opening.hold.id)),
        deposit: Set(opening.hold.amount),
        paid: Set(Amount::ZERO),
        nonce: Set(1),
        status: Set(Status::Open),
        close_reason: Set(None),
        opened_at: Set(work.now()),
        expires_at: Set(opening.expires_at),
        closed_at: Set(None),
        hash: Set(None),
        signer_key: Set(None),
        salt: Set(None),
        settle_delay_s: Set(None),
        voucher_nonce: Set(0),
        fee_bps: Set(i32::from(work.terms().fee_bps)),
        close_at: Set(None),
    };
    let channel = channel::Entity::insert(row).exec_with_returning(work.tx()).await?;
    let payload = Payload { amount: Some(channel.deposit), ..Payload::default() };
    work.record(about(&channel, opening.owner, Kind::ChannelOpened, payload));
    Ok(channel)
}

/// Closes an escrow channel: `amount` of its deposit is paid to the agent of `owner`, the rest goes back to where it came from,
/// `payer`. The caller has locked the task.
pub async fn settle(
    work: &mut Work,
    id: ChannelId,
    (payer, owner): (Purse, UserId),
    amount: Amount,
    reason: CloseReason,
) -> Result<Settled> {
    let channel = channel::Entity::find_by_id(id)
        .lock_exclusive()
        .one(work.tx())
        .await?
        .filter(|channel| channel.status == Status::Open)
        .ok_or_else(|| Error::internal(format!("{id} is not open")))?;
    let (Some(task), Some(hold)) = (channel.task_id, channel.hold_id) else {
        return Err(Error::internal(format!("{id} is not an escrow channel")));
    };
    let deposit = Deposit { hold, payer, agent: channel.agent_id, task, channel: id };
    let settled = ledger::settle(work, deposit, amount).await?;
    let updated = channel::Entity::update_many()
        .col_expr(channel::Column::Status, Expr::value(Status::Closed))
        .col_expr(channel::Column::CloseReason, Expr::value(Some(reason)))
        .col_expr(channel::Column::Paid, Expr::value(amount))
        .col_expr(channel::Column::Nonce, Expr::value(channel.nonce.saturating_add(1)))
        .col_expr(channel::Column::ClosedAt, Expr::value(Some(work.now())))
        .filter(channel::Column::Id.eq(id))
        .filter(channel::Column::Nonce.eq(channel.nonce))
        .filter(channel::Column::Status.eq(Status::Open))
        .exec(work.tx())
        .await?;
    if updated.rows_affected != 1 {
        return Err(Error::internal(format!("{id} changed while it was settled")));
    }
    let lifetime = work.now().since(channel.opened_at);
    let payload = Payload {
        amount: Some(amount),
        fee: Some(settled.fee),
        returned: Some(settled.returned),
        reason: Some(reason.name().to_owned()),
        duration_us: i64::try_from(lifetime.as_micros()).ok(),
        ..Payload::default()
    };
    work.record(about(&channel, owner, Kind::ChannelClosed, payload));
    Ok(settled)
}

fn about(channel: &channel::Model, owner: UserId, kind: Kind, payload: Payload) -> Event {
    Event {
        channel_id: Some(channel.id),
        task_id: channel.task_id,
        agent_id: Some(channel.agent_id),
        payer_id: Some(channel.payer_id),
        owner_id: Some(owner),
        ..Event::new(kind, payload)
    }
}
