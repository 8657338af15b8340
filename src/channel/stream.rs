//! Streaming channels: the verbs around the machine in [`rules`]. Each locks the channel, checks who asks and what is signed, asks
//! the machine, moves the credits and adds a line to the channel's history, which is never changed and answers a voucher that comes
//! again.

use std::time::Duration;

use entity::{
    agent,
    channel::{self, Purpose, Status},
    channel_change::{self, Kind},
    equivocation,
    event::{self, Payload},
    id::{AgentId, BatchId, ChannelId, EquivocationId, Id, UserId},
    money::Amount,
    time::Timestamp,
};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, IntoActiveModel, QueryFilter, QueryOrder,
    QuerySelect, SqlErr,
    sea_query::{Expr, ExprTrait},
};
use serde::{Deserialize, Serialize};

use super::{
    about,
    rules::{self, Again, ChannelRefused, Config, Effect, Signed, State},
};
use crate::{
    caller::Scope,
    error::{Error, Result},
    ledger::{self, Stream},
    store::Work,
    voucher::{self, ChannelConfig, CooperativeClose, Voucher},
};

/// What streaming channels are paid in, as their configuration names it: whole micro-credits.
pub const ASSET: &str = "CREDIT";
/// Digits behind the point of a credit.
pub const SCALE: u8 = 6;

/// A channel that a payer opens.
#[derive(Clone, Copy, Debug)]
pub struct NewStream {
    /// Who is paid.
    pub agent: AgentId,
    /// What the payer puts in; more than zero.
    pub deposit: Amount,
    /// The Ed25519 public key that signs vouchers; nothing for a payer who pays by [`deduct`].
    pub signer: Option<[u8; 32]>,
    /// How long the agent has for its last claims; whole seconds.
    pub settle_delay: Duration,
    /// When it ends at the latest; a whole second.
    pub expires_at: Timestamp,
    /// What makes the configuration unique; drawn when it is empty.
    pub salt: Option<[u8; 32]>,
}

/// A voucher as somebody presents it: all that is signed but the channel and the market, which the server knows itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// From 1.
    pub nonce: i64,
    /// In micro-credits.
    pub cumulative: Amount,
    /// Seconds since 1970; 0 for no end.
    pub valid_until: i64,
    pub context_hash: [u8; 32],
    pub signature: [u8; 64],
}

/// A cooperative close as somebody presents it, with both signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreement {
    pub nonce: i64,
    /// What the agent has in all.
    pub final_cumulative: Amount,
    /// Seconds since 1970.
    pub valid_until: i64,
    pub payer_signature: [u8; 64],
    pub agent_signature: [u8; 64],
}

/// How a channel is to be settled.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settlement {
    /// The agent's last voucher.
    pub voucher: Option<Offer>,
    /// What both parties signed.
    pub cooperative: Option<Agreement>,
}

/// What came of presenting a voucher. A contradiction is an outcome and not an error, because its evidence must stay: an error would
/// undo it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The change that was made now or, for a voucher that was claimed before, then.
    Done(channel_change::Model),
    /// The voucher contradicts the one that was claimed; nothing moved, and the evidence is kept.
    Equivocation,
}

/// A channel under its lock.
struct Locked {
    channel: channel::Model,
    agent: agent::Model,
    config: Config,
    /// What vouchers name it by.
    hash: [u8; 32],
}

/// The signed part of a change.
#[derive(Clone, Copy)]
struct Proof {
    nonce: i64,
    cumulative: Amount,
    valid_until: i64,
    context_hash: [u8; 32],
    signature: [u8; 64],
}

impl Proof {
    fn signed(&self) -> Signed {
        Signed { nonce: self.nonce, cumulative: self.cumulative, valid_until: instant(self.valid_until) }
    }
}

impl From<&Offer> for Proof {
    fn from(offer: &Offer) -> Self {
        let Offer { nonce, cumulative, valid_until, context_hash, signature } = *offer;
        Self { nonce, cumulative, valid_until, context_hash, signature }
    }
}

/// What a step of the machine is called in the history, with what was signed for it.
#[derive(Clone, Copy)]
struct Entry {
    kind: Kind,
    proof: Option<Proof>,
    context_hash: Option<[u8; 32]>,
}

impl Entry {
    fn of(kind: Kind) -> Self {
        Self { kind, proof: None, context_hash: None }
    }

    fn signed(kind: Kind, proof: Proof) -> Self {
        Self { kind, proof: Some(proof), context_hash: Some(proof.context_hash) }
    }
}

/// One step to take.
type Step = (rules::Event, Entry);

fn claim_of(proof: Proof) -> Step {
    (rules::Event::Claim(proof.signed()), Entry::signed(Kind::Claimed, proof))
}

/// Seconds since 1970 as an instant; nothing for 0, which is no end.
fn instant(seconds: i64) -> Option<Timestamp> {
    (seconds != 0).then(|| Timestamp::from_micros(seconds.saturating_mul(1_000_000)))
}

/// Whole seconds since 1970.
fn unix_seconds(instant: Timestamp) -> Option<i64> {
    let seconds = instant.micros().div_euclid(1_000_000);
    (instant.micros().rem_euclid(1_000_000) == 0 && seconds >= 0).then_some(seconds)
}

fn hex_of<const N: usize>(text: Option<&str>) -> Result<[u8; N]> {
    voucher::read_hex(text.unwrap_or_default()).map_err(Error::internal)
}

/// The immutable configuration of a streaming channel, which its hash is made of.
pub fn configuration(channel: &channel::Model, instance_id: [u8; 32]) -> Result<ChannelConfig> {
    let number = |value: Option<i64>| value.ok_or_else(|| Error::internal("a streaming channel lacks a value"));
    Ok(ChannelConfig {
        instance_id,
        payer: channel.payer_id.uuid().into_bytes(),
        payee: channel.agent_id.uuid().into_bytes(),
        signer: channel.signer_key.as_deref().map_or(Ok([0; 32]), |key| hex_of(Some(key)))?,
        asset: voucher::asset(ASSET).map_err(Error::internal)?,
        scale: SCALE,
        settle_delay_s: u32::try_from(number(channel.settle_delay_s)?).map_err(Error::internal)?,
        expires_at: u64::try_from(number(unix_seconds(channel.expires_at))?).map_err(Error::internal)?,
        salt: hex_of(channel.salt.as_deref())?,
    })
}

/// Opens a streaming channel from the caller's wallet to an agent of somebody else.
pub async fn open(work: &mut Work, new: NewStream) -> Result<channel::Model> {
    let payer = work.caller().with_scope(Scope::TasksWrite)?;
    let (terms, now) = (work.terms(), work.now());
    if new.deposit.is_zero() {
        return Err(Error::invalid("deposit", "must be more than zero"));
    }
    if let Some(signer) = &new.signer {
        voucher::check_public_key(signer).map_err(|_| {
            Error::invalid("signerKey", "must be an Ed25519 public key: a point of full order in its one encoding")
        })?;
    }
    let whole = new.settle_delay.subsec_nanos() == 0;
    if !whole || new.settle_delay < terms.min_settle_delay || new.settle_delay > terms.max_settle_delay {
        return Err(Error::invalid("settleDelay", "must be whole seconds from 15 minutes to 30 days"));
    }
    let earliest = now.after(new.settle_delay).after(terms.stream_margin);
    if new.expires_at < earliest || new.expires_at > now.after(terms.max_stream) {
        return Err(Error::invalid(
            "expiresAt",
            "must leave the settleDelay and a margin of 5 minutes, and be at most 366 days ahead",
        ));
    }
    if unix_seconds(new.expires_at).is_none() {
        return Err(Error::invalid("expiresAt", "must be a whole second"));
    }
    let agent = agent::Entity::find_by_id(new.agent).one(work.tx()).await?.ok_or(Error::NotFound("agent"))?;
    if agent.owner_id == payer {
        return Err(ChannelRefused::OwnAgent.into());
    }
    match agent.status {
        agent::Status::Active => {}
        agent::Status::Paused | agent::Status::Retired => return Err(ChannelRefused::AgentNotReady.into()),
    }
    let mut row = channel::Model {
        id: work.fresh(),
        purpose: Purpose::Stream,
        payer_id: payer,
        agent_id: agent.id,
        task_id: None,
        hold_id: None,
        deposit: new.deposit,
        paid: Amount::ZERO,
        nonce: 1,
        status: Status::Open,
        close_reason: None,
        opened_at: now,
        expires_at: new.expires_at,
        closed_at: None,
        hash: None,
        signer_key: new.signer.map(hex::encode),
        salt: Some(hex::encode(new.salt.unwrap_or_else(|| work.random()))),
        settle_delay_s: i64::try_from(new.settle_delay.as_secs()).ok(),
        voucher_nonce: 0,
        fee_bps: i32::from(work.terms().fee_bps),
        close_at: None,
    };
    let hash = hex::encode(configuration(&row, work.instance()?.id())?.id());
    let known = channel::Entity::find().filter(channel::Column::Hash.eq(hash.as_str())).one(work.tx()).await?;
    if known.is_some() {
        return Err(ChannelRefused::ChannelExists.into());
    }
    row.hash = Some(hash);

    let batch = ledger::deposit(work, payer, row.id, row.deposit).await?;
    let inserted = channel::Entity::insert(row.clone().into_active_model().reset_all());
    inserted.exec_without_returning(work.tx()).await.map_err(exists)?;
    let effect = Effect { put: row.deposit, ..Effect::default() };
    write_down(work, &row, Entry::of(Kind::Opened), &effect, Some(batch)).await?;
    let payload = Payload { amount: Some(row.deposit), ..Payload::default() };
    work.record(about(&row, agent.owner_id, event::Kind::ChannelOpened, payload));
    Ok(row)
}

/// Two openings of the same configuration at the same time: the constraint lets one in.
fn exists(error: DbErr) -> Error {
    match error.sql_err() {
        Some(SqlErr::UniqueConstraintViolation(_)) => ChannelRefused::ChannelExists.into(),
        Some(_) | None => error.into(),
    }
}

impl Locked {
    fn pays(&self, user: UserId) -> bool {
        self.channel.payer_id == user
    }

    fn state(&self) -> State {
        let channel = &self.channel;
        State {
            status: channel.status,
            deposit: channel.deposit,
            paid: channel.paid,
            last_nonce: channel.voucher_nonce,
            close_at: channel.close_at,
        }
    }

    fn signer(&self) -> Result<[u8; 32]> {
        match &self.channel.signer_key {
            Some(key) => hex_of(Some(key)),
            None => Err(ChannelRefused::NoSignerKey.into()),
        }
    }
}

/// Locks a streaming channel for whoever asks. Nobody but its parties learns that a channel backs a task.
async fn lock(work: &Work, id: ChannelId) -> Result<Locked> {
    let found = channel::Entity::find_by_id(id).lock_exclusive().one(work.tx()).await?;
    let channel = found.ok_or(Error::NotFound("channel"))?;
    work.got_lock();
    let agent = agent::Entity::find_by_id(channel.agent_id).one(work.tx()).await?;
    let agent = agent.ok_or_else(|| Error::internal(format!("the agent of {id} is missing")))?;
    match channel.purpose {
        Purpose::Stream => {}
        Purpose::Escrow => {
            let caller = work.caller().user_id();
            let party = caller == Some(channel.payer_id) || caller == Some(agent.owner_id);
            return Err(if party { ChannelRefused::NotAStream.into() } else { Error::NotFound("channel") });
        }
    }
    let settle_delay = channel.settle_delay_s.and_then(|seconds| u64::try_from(seconds).ok());
    let config = Config {
        expires_at: channel.expires_at,
        settle_delay: Duration::from_secs(settle_delay.ok_or_else(|| Error::internal("a stream has no delay"))?),
        fee_bps: u16::try_from(channel.fee_bps).map_err(Error::internal)?,
        keyed: channel.signer_key.is_some(),
    };
    let hash = hex_of(channel.hash.as_deref())?;
    Ok(Locked { channel, agent, config, hash })
}

/// Locks a streaming channel of the caller's own, to pay into or out of.
async fn lock_own(work: &Work, id: ChannelId, expected: Option<i64>) -> Result<Locked> {
    let payer = work.caller().with_scope(Scope::TasksWrite)?;
    let locked = lock(work, id).await?;
    if !locked.pays(payer) {
        return Err(Error::NotFound("channel"));
    }
    unchanged(&locked, expected)?;
    Ok(locked)
}

fn unchanged(locked: &Locked, expected: Option<i64>) -> Result<()> {
    if expected.is_some_and(|expected| expected != locked.channel.nonce) {
        return Err(ChannelRefused::ChannelChanged.into());
    }
    Ok(())
}

/// Takes steps one after the other. The machine agrees to all of them before the first is written. Answers the last change.
async fn take(work: &mut Work, locked: Locked, steps: &[Step]) -> Result<channel_change::Model> {
    let mut state = locked.state();
    let mut decided = Vec::with_capacity(steps.len());
    for (event, entry) in steps {
        let (after, effect) = rules::next(&state, *event, work.now(), &locked.config)?;
        decided.push((after, effect, *entry));
        state = after;
    }
    let Locked { mut channel, agent, .. } = locked;
    let mut last = None;
    for (after, effect, entry) in decided {
        last = Some(write(work, &mut channel, &agent, after, &effect, entry).await?);
    }
    last.ok_or_else(|| Error::internal("no step was taken"))
}

/// Writes one step that the machine agreed to: the credits, the channel, its history, the event.
async fn write(
    work: &mut Work,
    channel: &mut channel::Model,
    agent: &agent::Model,
    after: State,
    effect: &Effect,
    entry: Entry,
) -> Result<channel_change::Model> {
    let earned = effect.paid.checked_sub(effect.fee).ok_or_else(|| Error::internal("a fee is above its payment"))?;
    let batch = if !effect.put.is_zero() {
        Some(ledger::deposit(work, channel.payer_id, channel.id, effect.put).await?)
    } else if !effect.paid.is_zero() || !effect.returned.is_zero() {
        let (Effect { fee, returned, .. }, payer) = (*effect, channel.payer_id);
        let stream = Stream { channel: channel.id, payer, agent: agent.id, earned, fee, returned };
        Some(ledger::pay_stream(work, stream).await?)
    } else {
        None
    };
    let seen = channel.nonce;
    channel.nonce = seen.checked_add(1).ok_or_else(|| Error::internal("a channel changed too often"))?;
    channel.status = after.status;
    channel.deposit = after.deposit;
    channel.paid = after.paid;
    channel.voucher_nonce = after.last_nonce;
    channel.close_at = after.close_at;
    channel.close_reason = effect.closed;
    channel.closed_at = effect.closed.map(|_| work.now());
    let updated = channel::Entity::update_many()
        .col_expr(channel::Column::Nonce, Expr::value(channel.nonce))
        .col_expr(channel::Column::Status, Expr::value(channel.status))
        .col_expr(channel::Column::Deposit, Expr::value(channel.deposit))
        .col_expr(channel::Column::Paid, Expr::value(channel.paid))
        .col_expr(channel::Column::VoucherNonce, Expr::value(channel.voucher_nonce))
        .col_expr(channel::Column::CloseAt, Expr::value(channel.close_at))
        .col_expr(channel::Column::CloseReason, Expr::value(channel.close_reason))
        .col_expr(channel::Column::ClosedAt, Expr::value(channel.closed_at))
        .filter(channel::Column::Id.eq(channel.id))
        .filter(channel::Column::Nonce.eq(seen))
        .exec(work.tx())
        .await?;
    if updated.rows_affected != 1 {
        return Err(Error::internal(format!("{} changed under its lock", channel.id)));
    }
    let change = write_down(work, channel, entry, effect, batch).await?;
    record(work, channel, agent.owner_id, effect, entry.kind);
    Ok(change)
}

/// Adds a line to the history of a channel.
async fn write_down(
    work: &Work,
    channel: &channel::Model,
    entry: Entry,
    effect: &Effect,
    batch: Option<BatchId>,
) -> Result<channel_change::Model> {
    let Entry { kind, proof, context_hash } = entry;
    let change = channel_change::Model {
        channel_id: channel.id,
        nonce: channel.nonce,
        kind,
        amount: if effect.put.is_zero() { effect.paid } else { effect.put },
        fee: effect.fee,
        deposit: channel.deposit,
        paid: channel.paid,
        batch_id: batch,
        actor_id: work.caller().user_id(),
        voucher_nonce: proof.map(|proof| proof.nonce),
        cumulative: proof.map(|proof| proof.cumulative),
        valid_until: proof.map(|proof| proof.valid_until),
        context_hash: context_hash.map(hex::encode),
        signature: proof.map(|proof| hex::encode(proof.signature)),
        created_at: work.now(),
    };
    let row = change.clone().into_active_model().reset_all();
    channel_change::Entity::insert(row).exec_without_returning(work.tx()).await?;
    Ok(change)
}

fn record(work: &mut Work, channel: &channel::Model, owner: UserId, effect: &Effect, kind: Kind) {
    let lifetime = work.now().since(channel.opened_at);
    let (happened, payload) = match kind {
        Kind::Opened => (event::Kind::ChannelOpened, Payload { amount: Some(effect.put), ..Payload::default() }),
        Kind::ToppedUp => (event::Kind::ChannelToppedUp, Payload { amount: Some(effect.put), ..Payload::default() }),
        Kind::Deducted | Kind::Claimed => (
            event::Kind::ChannelPaid,
            Payload { amount: Some(effect.paid), fee: Some(effect.fee), ..Payload::default() },
        ),
        Kind::CloseRequested => {
            (event::Kind::ChannelClosing, Payload { closes_at: channel.close_at, ..Payload::default() })
        }
        Kind::CloseCancelled => (event::Kind::ChannelReopened, Payload::default()),
        Kind::Closed => (
            event::Kind::ChannelClosed,
            Payload {
                amount: Some(effect.paid),
                fee: Some(effect.fee),
                returned: Some(effect.returned),
                reason: effect.closed.map(|reason| reason.name().to_owned()),
                duration_us: i64::try_from(lifetime.as_micros()).ok(),
                ..Payload::default()
            },
        ),
    };
    work.record(about(channel, owner, happened, payload));
}

/// Puts more into a channel of the caller's.
pub async fn top_up(
    work: &mut Work,
    id: ChannelId,
    amount: Amount,
    expected: Option<i64>,
) -> Result<channel_change::Model> {
    if amount.is_zero() {
        return Err(Error::invalid("amount", "must be more than zero"));
    }
    let locked = lock_own(work, id, expected).await?;
    take(work, locked, &[(rules::Event::TopUp { amount }, Entry::of(Kind::ToppedUp))]).await
}

/// Pays out of a channel of the caller's that has no key. `context_hash` says what for.
pub async fn deduct(
    work: &mut Work,
    id: ChannelId,
    amount: Amount,
    context_hash: Option<[u8; 32]>,
    expected: Option<i64>,
) -> Result<channel_change::Model> {
    if amount.is_zero() {
        return Err(Error::invalid("amount", "must be more than zero"));
    }
    let locked = lock_own(work, id, expected).await?;
    let entry = Entry { context_hash, ..Entry::of(Kind::Deducted) };
    take(work, locked, &[(rules::Event::Deduct { amount }, entry)]).await
}

/// Asks for a channel of the caller's to close when its delay is over.
pub async fn request_close(work: &mut Work, id: ChannelId, expected: Option<i64>) -> Result<channel_change::Model> {
    let locked = lock_own(work, id, expected).await?;
    take(work, locked, &[(rules::Event::RequestClose, Entry::of(Kind::CloseRequested))]).await
}

/// Takes the request to close back.
pub async fn cancel_close(work: &mut Work, id: ChannelId, expected: Option<i64>) -> Result<channel_change::Model> {
    let locked = lock_own(work, id, expected).await?;
    take(work, locked, &[(rules::Event::CancelClose, Entry::of(Kind::CloseCancelled))]).await
}

/// Claims a voucher. Anybody who is signed in may bring it: the signature decides, and the credits go to the agent. Who brings no
/// valid signature and is no party does not learn that there is such a channel.
pub async fn claim(work: &mut Work, id: ChannelId, offer: &Offer) -> Result<Outcome> {
    let caller = work.caller().with_scope(Scope::WorkWrite)?;
    let locked = lock(work, id).await?;
    let is_party = locked.pays(caller) || locked.agent.owner_id == caller;
    let proof = verified(work, &locked, offer).map_err(|error| {
        let refused = error.refusal_code().is_some();
        if refused && !is_party { Error::NotFound("channel") } else { error }
    })?;
    match known(work, &locked, &proof).await? {
        Some(Known::Receipt(change)) => Ok(Outcome::Done(change)),
        Some(Known::Contradiction(first)) => keep_evidence(work, &locked, first, proof).await,
        None => Ok(Outcome::Done(take(work, locked, &[claim_of(proof)]).await?)),
    }
}

/// Checks the signature of a voucher against the channel's key, this channel and this market.
fn verified(work: &Work, locked: &Locked, offer: &Offer) -> Result<Proof> {
    let signer = locked.signer()?;
    let negative = |_| Error::internal("a number that was checked is negative");
    let promise = Voucher {
        instance_id: work.instance()?.id(),
        channel_id: locked.hash,
        nonce: u64::try_from(offer.nonce).map_err(negative)?,
        cumulative: u64::try_from(offer.cumulative.micros()).map_err(negative)?,
        valid_until: u64::try_from(offer.valid_until).map_err(negative)?,
        context_hash: offer.context_hash,
    };
    promise.verify(&signer, &offer.signature).map_err(|_| ChannelRefused::SignatureInvalid)?;
    Ok(offer.into())
}

/// A voucher whose nonce was claimed before.
enum Known {
    Receipt(channel_change::Model),
    Contradiction(channel_change::Model),
}

async fn known(work: &Work, locked: &Locked, proof: &Proof) -> Result<Option<Known>> {
    let first = channel_change::Entity::find()
        .filter(channel_change::Column::ChannelId.eq(locked.channel.id))
        .filter(channel_change::Column::VoucherNonce.eq(proof.nonce))
        .filter(channel_change::Column::Kind.eq(Kind::Claimed))
        .one(work.tx())
        .await?;
    let Some(first) = first else { return Ok(None) };
    let claimed = first.cumulative.ok_or_else(|| Error::internal("a claim has no amount"))?;
    let identical = first.valid_until == Some(proof.valid_until)
        && first.context_hash.as_deref() == Some(hex::encode(proof.context_hash).as_str());
    Ok(Some(match rules::again(&proof.signed(), claimed, identical, work.now())? {
        Again::Same => Known::Receipt(first),
        Again::Contradicts => Known::Contradiction(first),
    }))
}

/// Keeps two vouchers that contradict each other, unless there is such evidence about this nonce already.
async fn keep_evidence(
    work: &mut Work,
    locked: &Locked,
    first: channel_change::Model,
    second: Proof,
) -> Result<Outcome> {
    let known = equivocation::Entity::find()
        .filter(equivocation::Column::ChannelId.eq(locked.channel.id))
        .filter(equivocation::Column::VoucherNonce.eq(second.nonce))
        .one(work.tx())
        .await?;
    if known.is_some() {
        return Ok(Outcome::Equivocation);
    }
    let (Some(cumulative), Some(valid_until), Some(context_hash), Some(signature)) =
        (first.cumulative, first.valid_until, first.context_hash, first.signature)
    else {
        return Err(Error::internal("a claim lacks what was signed for it"));
    };
    let evidence = equivocation::Model {
        id: work.fresh::<EquivocationId>(),
        channel_id: locked.channel.id,
        voucher_nonce: second.nonce,
        first_cumulative: cumulative,
        first_valid_until: valid_until,
        first_context_hash: context_hash,
        first_signature: signature,
        second_cumulative: second.cumulative,
        second_valid_until: second.valid_until,
        second_context_hash: hex::encode(second.context_hash),
        second_signature: hex::encode(second.signature),
        created_at: work.now(),
    };
    let row = evidence.into_active_model().reset_all();
    equivocation::Entity::insert(row).exec_without_returning(work.tx()).await?;
    let payload = Payload { amount: Some(second.cumulative), ..Payload::default() };
    let owner = locked.agent.owner_id;
    work.record(about(&locked.channel, owner, event::Kind::ChannelEquivocation, payload));
    Ok(Outcome::Equivocation)
}

/// Settles a channel: at once for its agent, who may bring a last voucher; at once for either party with what both signed; and for
/// anybody when its time is over.
pub async fn settle(work: &mut Work, id: ChannelId, settlement: Settlement, expected: Option<i64>) -> Result<Outcome> {
    let caller = work.caller().with_scope(Scope::WorkWrite).or_else(|_| work.caller().with_scope(Scope::TasksWrite))?;
    let locked = lock(work, id).await?;
    let pays = locked.pays(caller);
    let earns = work.caller().controls(&locked.agent, Scope::WorkWrite).is_ok();
    if pays {
        work.caller().with_scope(Scope::TasksWrite)?;
    }
    if pays || earns {
        unchanged(&locked, expected)?;
    } else if !is_over(&locked, work.now()) {
        return Err(Error::NotFound("channel"));
    }
    let close = (rules::Event::Close, Entry::of(Kind::Closed));
    let steps = match (settlement.cooperative, settlement.voucher) {
        (Some(_), Some(_)) => return Err(Error::invalid("cooperative", "must not be given together with voucher")),
        (None, Some(_)) if !earns => {
            return Err(Error::invalid("voucher", "must be left out: only the agent closes with a voucher"));
        }
        (Some(agreement), None) if pays || earns => vec![agreed(work, &locked, &agreement)?],
        (Some(_), None) => return Err(Error::NotFound("channel")),
        (None, Some(offer)) => {
            let proof = verified(work, &locked, &offer)?;
            match known(work, &locked, &proof).await? {
                Some(Known::Receipt(_)) => vec![close],
                Some(Known::Contradiction(first)) => return keep_evidence(work, &locked, first, proof).await,
                None => vec![claim_of(proof), close],
            }
        }
        (None, None) if earns => vec![close],
        (None, None) => vec![(rules::Event::Finalise, Entry::of(Kind::Closed))],
    };
    Ok(Outcome::Done(take(work, locked, &steps).await?))
}

/// Checks both signatures under an agreement.
fn agreed(work: &Work, locked: &Locked, agreement: &Agreement) -> Result<Step> {
    let signer = locked.signer()?;
    let Some(agent_key) = locked.agent.public_key.as_deref() else {
        return Err(ChannelRefused::NoAgentKey.into());
    };
    let negative = |_| Error::internal("a number that was checked is negative");
    let close = CooperativeClose {
        instance_id: work.instance()?.id(),
        channel_id: locked.hash,
        nonce: u64::try_from(agreement.nonce).map_err(negative)?,
        final_cumulative: u64::try_from(agreement.final_cumulative.micros()).map_err(negative)?,
        valid_until: u64::try_from(agreement.valid_until).map_err(negative)?,
    };
    let invalid = |_| ChannelRefused::SignatureInvalid;
    close.verify(&signer, &agreement.payer_signature).map_err(invalid)?;
    close.verify(&hex_of(Some(agent_key))?, &agreement.agent_signature).map_err(invalid)?;
    let proof = Proof {
        nonce: agreement.nonce,
        cumulative: agreement.final_cumulative,
        valid_until: agreement.valid_until,
        context_hash: [0; 32],
        signature: agreement.payer_signature,
    };
    Ok((rules::Event::Cooperate(proof.signed()), Entry::signed(Kind::Closed, proof)))
}

fn is_over(locked: &Locked, now: Timestamp) -> bool {
    let state = locked.state();
    match state.status {
        Status::Open | Status::Closing => rules::is_expired(&state, now, &locked.config),
        Status::Closed => false,
    }
}

/// Streaming channels whose time is over, the longest overdue first.
pub async fn due(db: &impl ConnectionTrait, now: Timestamp, limit: u64) -> Result<Vec<ChannelId>> {
    // Written as the index has it, so that both databases use it. A request to close never reaches beyond the end.
    let ends = Expr::cust("COALESCE(close_at, expires_at)");
    Ok(channel::Entity::find()
        .select_only()
        .column(channel::Column::Id)
        .filter(Expr::cust("purpose = 'STREAM' AND status <> 'CLOSED'"))
        .filter(ends.clone().lte(now))
        .order_by_asc(ends)
        .limit(limit)
        .into_tuple()
        .all(db)
        .await?)
}

/// Closes a streaming channel whose time is over. Answers whether it did.
pub async fn finalise_due(work: &mut Work, id: ChannelId) -> Result<bool> {
    let locked = lock(work, id).await?;
    if !is_over(&locked, work.now()) {
        return Ok(false);
    }
    take(work, locked, &[(rules::Event::Finalise, Entry::of(Kind::Closed))]).await?;
    Ok(true)
}
