//! Payment channels.

use async_graphql::{Context, Enum, ID, InputObject, Object, SimpleObject};
use entity::{
    agent, channel, channel_change, equivocation,
    id::{ChannelId, EquivocationId},
    money::{Amount, MAX_AMOUNT},
};
use sea_orm::{ColumnTrait, Condition, EntityTrait, QueryFilter, QuerySelect, QueryTrait};

use super::{
    agent::Agent,
    context::{Ask, intent, maybe, once, parse_id, payload, requires, role, scopes},
    error::{Answer, payload},
    page::{PageArgs, Sort, connection, list_cost},
    scalar::{BigInt, Credits, DateTime, Duration},
    task::{Side, Task},
    user::User,
};
use crate::{
    caller::Scope,
    channel::{
        rules::ChannelRefused,
        stream::{self, Agreement, NewStream, Offer, Outcome, Settlement},
    },
    error::{Error, Result},
    voucher,
};

/// The order of channels, newest first.
const NEWEST: Sort<channel::Entity> =
    Sort { name: "c", key: None, id: channel::Column::Id, descending: true, place: |row| (0, row.id.0) };

/// The order of a channel's history, newest first.
pub(super) const NEWEST_CHANGE: Sort<channel_change::Entity> = Sort {
    name: "cc",
    key: Some(channel_change::Column::Nonce),
    id: channel_change::Column::ChannelId,
    descending: true,
    place: |row| (row.nonce, row.channel_id.0),
};

/// The order of contradictions, newest first.
pub(super) const NEWEST_EQUIVOCATION: Sort<equivocation::Entity> =
    Sort { name: "ce", key: None, id: equivocation::Column::Id, descending: true, place: |row| (0, row.id.0) };

/// What a channel is for. Deposits of different purposes are never mixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::channel::Purpose")]
pub(super) enum ChannelPurpose {
    /// Backs exactly one task.
    Escrow,
    /// Pays as it goes, by vouchers or deductions.
    Stream,
}

/// The states of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::channel::Status")]
pub(super) enum ChannelStatus {
    /// Holds its deposit.
    Open,
    /// The payer wants it closed; the agent may still claim until then.
    Closing,
    /// Paid out or refunded; for ever.
    Closed,
}

/// How a channel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::channel::CloseReason")]
pub(super) enum ChannelCloseReason {
    /// The deposit went to the agent.
    Settled,
    /// The deposit went back to the payer because the work failed.
    Refunded,
    /// The deposit went back to the payer because the agent did not start.
    Forfeited,
    /// The agent closed it; what it had not claimed went back to the payer.
    AgentClosed,
    /// Both parties signed how it is shared out.
    Cooperative,
    /// The delay after the payer's request was over.
    PayerClosed,
    /// Its time was over.
    Expired,
}

/// What changed in a streaming channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::channel_change::Kind")]
pub(super) enum ChannelChangeKind {
    /// The payer opened it.
    Opened,
    /// The payer put more in.
    ToppedUp,
    /// The payer paid without a voucher.
    Deducted,
    /// A voucher was claimed.
    Claimed,
    /// The payer asked for it to close.
    CloseRequested,
    /// The payer took the request back.
    CloseCancelled,
    /// It closed; the rest went back to the payer.
    Closed,
}

/// What of a streaming channel never changes: what its `hash` is made of. Bytes are in lower-case hex.
#[derive(SimpleObject)]
pub(super) struct ChannelConfiguration {
    /// The market: `ServiceInfo.instanceId`.
    instance_id: String,
    /// The 16 bytes of the payer's id.
    payer: String,
    /// The 16 bytes of the agent's id.
    payee: String,
    /// The Ed25519 public key that signs vouchers; null, and zeros in the hash, for a payer without a key.
    signer_key: Option<String>,
    /// What is paid in.
    asset: String,
    /// Signed amounts are in units of 10^-scale: micro-credits.
    scale: i32,
    /// How long the agent has for its last claims when the payer asks for the close.
    settle_delay: Duration,
    /// When it ends at the latest, in seconds since 1970.
    expires_at: BigInt,
    /// The 32 bytes that make it unique.
    salt: String,
}

#[derive(Clone)]
pub(super) struct Channel(channel::Model);

impl From<channel::Model> for Channel {
    fn from(row: channel::Model) -> Self {
        Self(row)
    }
}

/// A payment channel from a payer to an agent. An escrow channel is opened by an award, backs one task and settles by its
/// outcome. A streaming channel is opened by a payer and pays as it goes. The payer, the agent's owner and administrators see it.
#[Object]
impl Channel {
    /// The id, `chan_…`.
    pub(super) async fn id(&self) -> ID {
        self.0.id.into()
    }

    /// What it is for.
    async fn purpose(&self) -> ChannelPurpose {
        self.0.purpose.into()
    }

    /// Its state.
    async fn status(&self) -> ChannelStatus {
        self.0.status.into()
    }

    /// How it ended; null while it is open.
    async fn close_reason(&self) -> Option<ChannelCloseReason> {
        self.0.close_reason.map(ChannelCloseReason::from)
    }

    /// What the payer put in.
    async fn deposit(&self) -> Credits {
        Credits(self.0.deposit)
    }

    /// What the agent and the fees received.
    async fn paid(&self) -> Credits {
        Credits(self.0.paid)
    }

    /// What is left of the deposit; null when it is closed.
    async fn remaining(&self) -> Option<Credits> {
        match self.0.status {
            channel::Status::Open | channel::Status::Closing => self.0.deposit.checked_sub(self.0.paid).map(Credits),
            channel::Status::Closed => None,
        }
    }

    /// Counts the changes, from 1 at the opening.
    async fn nonce(&self) -> BigInt {
        BigInt(self.0.nonce)
    }

    /// When it opened.
    async fn opened_at(&self) -> DateTime {
        DateTime(self.0.opened_at)
    }

    /// By when it ends at the latest.
    async fn expires_at(&self) -> DateTime {
        DateTime(self.0.expires_at)
    }

    /// When it closes because its payer asked for it; by then the agent must have claimed. Null when nobody asked or it is closed.
    async fn closes_at(&self) -> Option<DateTime> {
        self.0.close_at.map(DateTime)
    }

    /// What vouchers name a streaming channel by: the SHA-256 of its configuration in lower-case hex; null for an escrow channel.
    async fn hash(&self) -> Option<&str> {
        self.0.hash.as_deref()
    }

    /// What of a streaming channel never changes; null for an escrow channel.
    async fn configuration(&self, ctx: &Context<'_>) -> Option<Answer<ChannelConfiguration>> {
        maybe(ctx, async {
            if self.0.hash.is_none() {
                return Ok(None);
            }
            let config = stream::configuration(&self.0, ctx.store().instance()?.id())?;
            Ok(Some(ChannelConfiguration {
                instance_id: hex::encode(config.instance_id),
                payer: hex::encode(config.payer),
                payee: hex::encode(config.payee),
                signer_key: self.0.signer_key.clone(),
                asset: stream::ASSET.to_owned(),
                scale: config.scale.into(),
                settle_delay: Duration(std::time::Duration::from_secs(config.settle_delay_s.into())),
                expires_at: BigInt(i64::try_from(config.expires_at).unwrap_or(i64::MAX)),
                salt: hex::encode(config.salt),
            }))
        })
        .await
    }

    /// The nonce of the newest voucher that was claimed; 0 before the first.
    async fn voucher_nonce(&self) -> BigInt {
        BigInt(self.0.voucher_nonce)
    }

    /// The history of a streaming channel, newest first; nothing for an escrow channel.
    #[graphql(complexity = "list_cost(__ctx, __variables_definition, __field, child_complexity)")]
    async fn changes(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many from the start: 1 to 100, 20 when neither `first` nor `last` is given.")]
        first: Option<i32>,
        #[graphql(desc = "Only what comes after this cursor.")] after: Option<String>,
        #[graphql(desc = "How many from the end: 1 to 100; not together with `first`.")] last: Option<i32>,
        #[graphql(desc = "Only what comes before this cursor.")] before: Option<String>,
    ) -> Option<Answer<ChannelChangeConnection>> {
        maybe(ctx, async {
            let window = PageArgs { first, after, last, before }.window(&NEWEST_CHANGE)?;
            Ok(Some(ctx.loaders().changes_of_channels(self.0.id, window).await?.into()))
        })
        .await
    }

    /// The pairs of vouchers by which the payer contradicted itself, newest first; one for each nonce at most.
    #[graphql(complexity = "list_cost(__ctx, __variables_definition, __field, child_complexity)")]
    async fn equivocations(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many from the start: 1 to 100, 20 when neither `first` nor `last` is given.")]
        first: Option<i32>,
        #[graphql(desc = "Only what comes after this cursor.")] after: Option<String>,
        #[graphql(desc = "How many from the end: 1 to 100; not together with `first`.")] last: Option<i32>,
        #[graphql(desc = "Only what comes before this cursor.")] before: Option<String>,
    ) -> Option<Answer<EquivocationConnection>> {
        maybe(ctx, async {
            let window = PageArgs { first, after, last, before }.window(&NEWEST_EQUIVOCATION)?;
            Ok(Some(ctx.loaders().equivocations_of_channels(self.0.id, window).await?.into()))
        })
        .await
    }

    /// When it closed; null while it is open.
    async fn closed_at(&self) -> Option<DateTime> {
        self.0.closed_at.map(DateTime)
    }

    /// Who pays.
    #[graphql(complexity = "1 + child_complexity")]
    async fn payer(&self, ctx: &Context<'_>) -> Option<Answer<User>> {
        maybe(ctx, super::user::find(ctx, self.0.payer_id)).await
    }

    /// Who is paid.
    #[graphql(complexity = "1 + child_complexity")]
    async fn agent(&self, ctx: &Context<'_>) -> Option<Answer<Agent>> {
        maybe(ctx, super::agent::find(ctx, self.0.agent_id)).await
    }

    /// The task that it backs; null for those who are not party to it any more.
    #[graphql(complexity = "2 + child_complexity")]
    async fn task(&self, ctx: &Context<'_>) -> Option<Answer<Task>> {
        maybe(ctx, async {
            let Some(task) = self.0.task_id else { return Ok(None) };
            super::task::find(ctx, task).await
        })
        .await
    }
}

/// A voucher as it was signed, for the channel's `hash` and the market's `instanceId`.
#[derive(SimpleObject)]
pub(super) struct SignedVoucher {
    /// Which voucher of the channel it is.
    nonce: BigInt,
    /// What it promises in all, in micro-credits: the number that is signed.
    cumulative: BigInt,
    /// Until when it may be claimed, in seconds since 1970; 0 for no end.
    valid_until: BigInt,
    /// What it pays for, as 32 bytes in lower-case hex; zeros for nothing in particular.
    context_hash: String,
    /// The Ed25519 signature of the channel's key in lower-case hex.
    signature: String,
}

#[derive(Clone)]
pub(super) struct ChannelChange(channel_change::Model);

impl From<channel_change::Model> for ChannelChange {
    fn from(row: channel_change::Model) -> Self {
        Self(row)
    }
}

/// One change of a streaming channel: a receipt. It never changes.
#[Object]
impl ChannelChange {
    /// What changed.
    async fn kind(&self) -> ChannelChangeKind {
        self.0.kind.into()
    }

    /// The channel's nonce after the change.
    async fn nonce(&self) -> BigInt {
        BigInt(self.0.nonce)
    }

    /// What the change put into the channel, or paid to agent and platform.
    async fn amount(&self) -> Credits {
        Credits(self.0.amount)
    }

    /// The platform's share of what was paid.
    async fn fee(&self) -> Credits {
        Credits(self.0.fee)
    }

    /// What went back to the payer: the rest, at the close.
    async fn returned(&self) -> Credits {
        match self.0.kind {
            channel_change::Kind::Closed => Credits(self.0.deposit.checked_sub(self.0.paid).unwrap_or(Amount::ZERO)),
            channel_change::Kind::Opened
            | channel_change::Kind::ToppedUp
            | channel_change::Kind::Deducted
            | channel_change::Kind::Claimed
            | channel_change::Kind::CloseRequested
            | channel_change::Kind::CloseCancelled => Credits(Amount::ZERO),
        }
    }

    /// The deposit after the change.
    async fn deposit(&self) -> Credits {
        Credits(self.0.deposit)
    }

    /// What was paid in all after the change.
    async fn paid(&self) -> Credits {
        Credits(self.0.paid)
    }

    /// What the payment was for, in lower-case hex; null when nobody said.
    async fn context_hash(&self) -> Option<&str> {
        self.0.context_hash.as_deref()
    }

    /// The voucher that was claimed, or what the payer signed for a cooperative close; null for other changes.
    async fn voucher(&self) -> Option<SignedVoucher> {
        Some(SignedVoucher {
            nonce: BigInt(self.0.voucher_nonce?),
            cumulative: BigInt(self.0.cumulative?.micros()),
            valid_until: BigInt(self.0.valid_until?),
            context_hash: self.0.context_hash.clone()?,
            signature: self.0.signature.clone()?,
        })
    }

    /// When it happened.
    async fn created_at(&self) -> DateTime {
        DateTime(self.0.created_at)
    }

    /// Who did it; null for the market itself.
    #[graphql(complexity = "1 + child_complexity")]
    async fn actor(&self, ctx: &Context<'_>) -> Option<Answer<User>> {
        maybe(ctx, async {
            let Some(actor) = self.0.actor_id else { return Ok(None) };
            super::user::find(ctx, actor).await
        })
        .await
    }

    /// The channel as it is now; null when you are not party to it.
    #[graphql(complexity = "2 + child_complexity")]
    async fn channel(&self, ctx: &Context<'_>) -> Option<Answer<Channel>> {
        maybe(ctx, find(ctx, self.0.channel_id)).await
    }
}

#[derive(Clone)]
pub(super) struct Equivocation(equivocation::Model);

impl From<equivocation::Model> for Equivocation {
    fn from(row: equivocation::Model) -> Self {
        Self(row)
    }
}

/// Evidence that the payer of a channel signed two vouchers of one nonce with different amounts. Everybody can check both signatures.
#[Object]
impl Equivocation {
    /// The id, `equiv_…`.
    pub(super) async fn id(&self) -> ID {
        self.0.id.into()
    }

    /// The voucher that was claimed.
    async fn first(&self) -> SignedVoucher {
        SignedVoucher {
            nonce: BigInt(self.0.voucher_nonce),
            cumulative: BigInt(self.0.first_cumulative.micros()),
            valid_until: BigInt(self.0.first_valid_until),
            context_hash: self.0.first_context_hash.clone(),
            signature: self.0.first_signature.clone(),
        }
    }

    /// The voucher that contradicts it; nothing was paid for it.
    async fn second(&self) -> SignedVoucher {
        SignedVoucher {
            nonce: BigInt(self.0.voucher_nonce),
            cumulative: BigInt(self.0.second_cumulative.micros()),
            valid_until: BigInt(self.0.second_valid_until),
            context_hash: self.0.second_context_hash.clone(),
            signature: self.0.second_signature.clone(),
        }
    }

    /// When the second one was presented.
    async fn created_at(&self) -> DateTime {
        DateTime(self.0.created_at)
    }

    /// The channel.
    #[graphql(complexity = "2 + child_complexity")]
    async fn channel(&self, ctx: &Context<'_>) -> Option<Answer<Channel>> {
        maybe(ctx, find(ctx, self.0.channel_id)).await
    }
}

connection! {
    /// A page of a channel's history.
    ChannelChangeConnection,
    /// A change in a list.
    ChannelChangeEdge, ChannelChange, channel_change::Model
}

connection! {
    /// A page of contradictions.
    EquivocationConnection,
    /// A contradiction in a list.
    EquivocationEdge, Equivocation, equivocation::Model
}

connection! {
    /// A page of channels.
    ChannelConnection,
    /// A channel in a list.
    ChannelEdge, Channel, channel::Model
}

/// Which channels to list. All conditions must hold.
#[derive(Clone, Debug, Default, InputObject)]
pub(super) struct ChannelFilter {
    /// Is for this.
    purpose: Option<ChannelPurpose>,
    /// Is in this state.
    status: Option<ChannelStatus>,
    /// You are on this side of it.
    side: Option<Side>,
    /// Pays this agent.
    agent_id: Option<ID>,
}

/// The channel with this id, if the caller is party to it.
pub(super) async fn find(ctx: &Context<'_>, id: ChannelId) -> Result<Option<Channel>> {
    let Some(row) = ctx.loaders().channels(id).await? else { return Ok(None) };
    if ctx.may_see(row.payer_id) {
        return Ok(Some(Channel(row)));
    }
    let Some(viewer) = ctx.viewer() else { return Ok(None) };
    let agent = ctx.loaders().agents(row.agent_id).await?;
    Ok(agent.filter(|agent| agent.owner_id == viewer).map(|_| Channel(row)))
}

/// The contradiction with this id, if the caller is party to its channel.
pub(super) async fn find_equivocation(ctx: &Context<'_>, id: EquivocationId) -> Result<Option<Equivocation>> {
    let Some(row) = equivocation::Entity::find_by_id(id).one(ctx.loaders().db()).await? else { return Ok(None) };
    Ok(find(ctx, row.channel_id).await?.map(|_| Equivocation(row)))
}

/// A voucher as the payer signed it. `zerostate voucher sign --json` prints these fields.
#[derive(Clone, Debug, InputObject)]
pub(super) struct VoucherInput {
    /// Which voucher of the channel it is, from 1.
    nonce: BigInt,
    /// What it promises in all, in micro-credits: the number that is signed.
    cumulative: BigInt,
    /// Until when it may be claimed, in seconds since 1970; 0 for no end.
    valid_until: Option<BigInt>,
    /// What it pays for, as 32 bytes in lower-case hex; zeros when it is left out.
    context_hash: Option<String>,
    /// The Ed25519 signature of the channel's key over the 136 bytes, as 64 bytes in lower-case hex.
    signature: String,
}

/// A cooperative close as both parties signed it.
#[derive(Clone, Debug, InputObject)]
pub(super) struct CooperativeCloseInput {
    /// More than the nonce of every voucher that was claimed.
    nonce: BigInt,
    /// What the agent has in all, in micro-credits: the number that is signed. The rest goes back to the payer.
    final_cumulative: BigInt,
    /// Until when it may be used, in seconds since 1970; it always has an end.
    valid_until: BigInt,
    /// The signature of the channel's key, as 64 bytes in lower-case hex.
    payer_signature: String,
    /// The signature of the agent's `publicKey`, as 64 bytes in lower-case hex.
    agent_signature: String,
}

fn nonce_of(number: BigInt, field: &str) -> Result<i64> {
    Some(number.0).filter(|nonce| *nonce >= 1).ok_or_else(|| Error::invalid(field, "must be at least 1"))
}

fn micros_of(number: BigInt, least: i64, field: &str) -> Result<Amount> {
    let amount = Amount::from_micros(number.0).filter(|amount| amount.micros() >= least && *amount <= MAX_AMOUNT);
    amount
        .ok_or_else(|| Error::invalid(field, format!("must be from {least} to {} micro-credits", MAX_AMOUNT.micros())))
}

fn seconds_of(number: BigInt, field: &str) -> Result<i64> {
    Some(number.0).filter(|seconds| *seconds >= 0).ok_or_else(|| Error::invalid(field, "must not be negative"))
}

fn bytes_of<const N: usize>(text: &str, field: &str) -> Result<[u8; N]> {
    voucher::read_hex(text).map_err(|why| Error::invalid(field, why.to_string()))
}

impl VoucherInput {
    fn offer(&self) -> Result<Offer> {
        let hash = self.context_hash.as_deref().map(|hash| bytes_of(hash, "voucher.contextHash")).transpose()?;
        Ok(Offer {
            nonce: nonce_of(self.nonce, "voucher.nonce")?,
            cumulative: micros_of(self.cumulative, 1, "voucher.cumulative")?,
            valid_until: self.valid_until.map_or(Ok(0), |end| seconds_of(end, "voucher.validUntil"))?,
            context_hash: hash.unwrap_or([0; 32]),
            signature: bytes_of(&self.signature, "voucher.signature")?,
        })
    }
}

impl CooperativeCloseInput {
    fn agreement(&self) -> Result<Agreement> {
        Ok(Agreement {
            nonce: nonce_of(self.nonce, "cooperative.nonce")?,
            final_cumulative: micros_of(self.final_cumulative, 0, "cooperative.finalCumulative")?,
            valid_until: seconds_of(self.valid_until, "cooperative.validUntil")?,
            payer_signature: bytes_of(&self.payer_signature, "cooperative.payerSignature")?,
            agent_signature: bytes_of(&self.agent_signature, "cooperative.agentSignature")?,
        })
    }
}

/// Input of `openChannel`.
#[derive(InputObject)]
pub(super) struct OpenChannelInput {
    /// Who is paid; not an agent of yours.
    agent_id: ID,
    /// What you put in; more than zero.
    deposit: Credits,
    /// The Ed25519 public key that signs your vouchers, as 32 bytes in lower-case hex. Without one you pay by `deductFromChannel`.
    signer_key: Option<String>,
    /// How long the agent has for its last claims when you ask for the close: whole seconds from 15 minutes to 30 days.
    settle_delay: Duration,
    /// When it ends at the latest: a whole second, at least the delay and 5 minutes ahead, at most 366 days.
    expires_at: DateTime,
    /// What makes it differ from your other channels to the same agent, as 32 bytes in lower-case hex; drawn when it is left out.
    salt: Option<String>,
    /// Names this intent: the same value when you retry the same intent, another one for another. 1 to 128 visible ASCII characters.
    idempotency_key: String,
}

/// Input of `topUpChannel`.
#[derive(InputObject)]
pub(super) struct TopUpChannelInput {
    /// The channel; your own.
    channel_id: ID,
    /// How much more; more than zero.
    amount: Credits,
    /// The channel's `nonce` that you read; refused when another change came first.
    expected_nonce: Option<BigInt>,
    /// Names this intent: the same value when you retry the same intent, another one for another. 1 to 128 visible ASCII characters.
    idempotency_key: String,
}

/// Input of `deductFromChannel`.
#[derive(InputObject)]
pub(super) struct DeductFromChannelInput {
    /// The channel; your own, without a key.
    channel_id: ID,
    /// How much to pay now; more than zero.
    amount: Credits,
    /// What it pays for, as 32 bytes in lower-case hex.
    context_hash: Option<String>,
    /// The channel's `nonce` that you read; refused when another change came first.
    expected_nonce: Option<BigInt>,
    /// Names this intent: the same value when you retry the same intent, another one for another. 1 to 128 visible ASCII characters.
    idempotency_key: String,
}

/// Input of `claimVoucher`.
#[derive(InputObject)]
pub(super) struct ClaimVoucherInput {
    /// The channel.
    channel_id: ID,
    /// What the payer signed.
    voucher: VoucherInput,
    /// Names this intent: the same value when you retry the same intent, another one for another. 1 to 128 visible ASCII characters.
    idempotency_key: String,
}

/// Input of `requestChannelClose`.
#[derive(InputObject)]
pub(super) struct RequestChannelCloseInput {
    /// The channel; your own.
    channel_id: ID,
    /// The channel's `nonce` that you read; refused when another change came first.
    expected_nonce: Option<BigInt>,
    /// Names this intent: the same value when you retry the same intent, another one for another. 1 to 128 visible ASCII characters.
    idempotency_key: String,
}

/// Input of `cancelChannelClose`.
#[derive(InputObject)]
pub(super) struct CancelChannelCloseInput {
    /// The channel; your own.
    channel_id: ID,
    /// The channel's `nonce` that you read; refused when another change came first.
    expected_nonce: Option<BigInt>,
    /// Names this intent: the same value when you retry the same intent, another one for another. 1 to 128 visible ASCII characters.
    idempotency_key: String,
}

/// Input of `settleChannel`.
#[derive(InputObject)]
pub(super) struct SettleChannelInput {
    /// The channel.
    channel_id: ID,
    /// The last voucher, for the agent's close.
    voucher: Option<VoucherInput>,
    /// How both parties share it out, for a close by either.
    cooperative: Option<CooperativeCloseInput>,
    /// The channel's `nonce` that you read; refused when another change came first.
    expected_nonce: Option<BigInt>,
    /// Names this intent: the same value when you retry the same intent, another one for another. 1 to 128 visible ASCII characters.
    idempotency_key: String,
}

intent! {
    OpenChannelInput = "openChannel", moves_credits: true;
    TopUpChannelInput = "topUpChannel", moves_credits: true;
    DeductFromChannelInput = "deductFromChannel", moves_credits: true;
    ClaimVoucherInput = "claimVoucher", moves_credits: true;
    RequestChannelCloseInput = "requestChannelClose", moves_credits: false;
    CancelChannelCloseInput = "cancelChannelClose", moves_credits: false;
    SettleChannelInput = "settleChannel", moves_credits: true;
}

payload! {
    /// Answer of `openChannel`.
    OpenChannelPayload {
        /// The channel; null when it was refused.
        channel: Channel
    } ChannelUserError
}

payload! {
    /// Answer of `topUpChannel`.
    TopUpChannelPayload {
        /// The change; null when it was refused.
        change: ChannelChange
    } ChannelUserError
}

payload! {
    /// Answer of `deductFromChannel`.
    DeductFromChannelPayload {
        /// The change; null when it was refused.
        change: ChannelChange
    } ChannelUserError
}

payload! {
    /// Answer of `claimVoucher`.
    ClaimVoucherPayload {
        /// The receipt: the change that the voucher made, now or when it was claimed first; null when it was refused.
        change: ChannelChange
    } ChannelUserError
}

payload! {
    /// Answer of `requestChannelClose`.
    RequestChannelClosePayload {
        /// The change; null when it was refused.
        change: ChannelChange
    } ChannelUserError
}

payload! {
    /// Answer of `cancelChannelClose`.
    CancelChannelClosePayload {
        /// The change; null when it was refused.
        change: ChannelChange
    } ChannelUserError
}

payload! {
    /// Answer of `settleChannel`.
    SettleChannelPayload {
        /// The change that closed it; null when it was refused.
        change: ChannelChange
    } ChannelUserError
}

/// The change, or the refusal that a contradiction is. Its evidence was committed with the answer.
fn receipt(outcome: Outcome) -> Result<ChannelChange> {
    match outcome {
        Outcome::Done(change) => Ok(change.into()),
        Outcome::Equivocation => Err(ChannelRefused::Equivocation.into()),
    }
}

#[derive(Default)]
pub(super) struct ChannelMutation;

#[Object]
impl ChannelMutation {
    /// Opens a streaming channel from your wallet to an agent. With a key it pays by vouchers that you sign and the agent claims;
    /// without one it pays by `deductFromChannel`.
    #[graphql(complexity = "10 + child_complexity", directive = requires::apply(scopes("openChannel"), role("openChannel")))]
    async fn open_channel(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "To whom, how much, until when.")] input: OpenChannelInput,
    ) -> Option<Answer<OpenChannelPayload>> {
        payload(ctx, async {
            let signer = input.signer_key.as_deref().map(|key| bytes_of(key, "signerKey")).transpose()?;
            let salt = input.salt.as_deref().map(|salt| bytes_of(salt, "salt")).transpose()?;
            let new = NewStream {
                agent: parse_id(&input.agent_id, "agentId")?,
                deposit: input.deposit.0,
                signer,
                settle_delay: input.settle_delay.0,
                expires_at: input.expires_at.0,
                salt,
            };
            Ok(once(ctx, &input, async |work| stream::open(work, new).await).await?.value.into())
        })
        .await
    }

    /// Puts more into a streaming channel of yours. It does not move its end, nor the close that you asked for.
    #[graphql(complexity = "10 + child_complexity", directive = requires::apply(scopes("topUpChannel"), role("topUpChannel")))]
    async fn top_up_channel(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which channel and how much.")] input: TopUpChannelInput,
    ) -> Option<Answer<TopUpChannelPayload>> {
        payload(ctx, async {
            let id: ChannelId = parse_id(&input.channel_id, "channelId")?;
            let (amount, expected) = (input.amount.0, input.expected_nonce.map(|nonce| nonce.0));
            let done = once(ctx, &input, async |work| stream::top_up(work, id, amount, expected).await).await?;
            Ok(done.value.into())
        })
        .await
    }

    /// Pays out of a streaming channel of yours that has no key.
    #[graphql(complexity = "10 + child_complexity", directive = requires::apply(scopes("deductFromChannel"), role("deductFromChannel")))]
    async fn deduct_from_channel(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which channel, how much and what for.")] input: DeductFromChannelInput,
    ) -> Option<Answer<DeductFromChannelPayload>> {
        payload(ctx, async {
            let id: ChannelId = parse_id(&input.channel_id, "channelId")?;
            let context = input.context_hash.as_deref().map(|hash| bytes_of(hash, "contextHash")).transpose()?;
            let (amount, expected) = (input.amount.0, input.expected_nonce.map(|nonce| nonce.0));
            let deduct =
                async |work: &mut crate::store::Work| stream::deduct(work, id, amount, context, expected).await;
            let payment = ctx.app().metrics().payment();
            let deducted = once(ctx, &input, deduct).await;
            payment.ended(&deducted);
            Ok(deducted?.value.into())
        })
        .await
    }

    /// Claims a voucher: pays the agent what it promises beyond what was paid. Anybody who is signed in may bring it; the signature
    /// decides. A voucher that was claimed before is answered with its first receipt, also when the channel is closed.
    #[graphql(complexity = "10 + child_complexity", directive = requires::apply(scopes("claimVoucher"), role("claimVoucher")))]
    async fn claim_voucher(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The channel and the voucher.")] input: ClaimVoucherInput,
    ) -> Option<Answer<ClaimVoucherPayload>> {
        payload(ctx, async {
            let id: ChannelId = parse_id(&input.channel_id, "channelId")?;
            let offer = input.voucher.offer()?;
            let payment = ctx.app().metrics().payment();
            let claimed = once(ctx, &input, async |work| stream::claim(work, id, &offer).await).await;
            let claimed = claimed.and_then(|done| receipt(done.value));
            payment.ended(&claimed);
            claimed
        })
        .await
    }

    /// Asks for a streaming channel of yours to close. The agent may claim until the delay is over; then the rest comes back by
    /// itself.
    #[graphql(complexity = "10 + child_complexity", directive = requires::apply(scopes("requestChannelClose"), role("requestChannelClose")))]
    async fn request_channel_close(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which channel.")] input: RequestChannelCloseInput,
    ) -> Option<Answer<RequestChannelClosePayload>> {
        payload(ctx, async {
            let id: ChannelId = parse_id(&input.channel_id, "channelId")?;
            let expected = input.expected_nonce.map(|nonce| nonce.0);
            let done = once(ctx, &input, async |work| stream::request_close(work, id, expected).await).await?;
            Ok(done.value.into())
        })
        .await
    }

    /// Takes the request to close a streaming channel of yours back.
    #[graphql(complexity = "10 + child_complexity", directive = requires::apply(scopes("cancelChannelClose"), role("cancelChannelClose")))]
    async fn cancel_channel_close(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which channel.")] input: CancelChannelCloseInput,
    ) -> Option<Answer<CancelChannelClosePayload>> {
        payload(ctx, async {
            let id: ChannelId = parse_id(&input.channel_id, "channelId")?;
            let expected = input.expected_nonce.map(|nonce| nonce.0);
            let done = once(ctx, &input, async |work| stream::cancel_close(work, id, expected).await).await?;
            Ok(done.value.into())
        })
        .await
    }

    /// Closes a streaming channel for good: at once for the agent, who may bring a last voucher; at once for either party with a
    /// close that both signed; and for anybody when its time is over. The agent has what was paid, the payer gets the rest back.
    #[graphql(complexity = "10 + child_complexity", directive = requires::apply(scopes("settleChannel"), role("settleChannel")))]
    async fn settle_channel(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which channel, and what was signed.")] input: SettleChannelInput,
    ) -> Option<Answer<SettleChannelPayload>> {
        payload(ctx, async {
            let id: ChannelId = parse_id(&input.channel_id, "channelId")?;
            let settlement = Settlement {
                voucher: input.voucher.as_ref().map(VoucherInput::offer).transpose()?,
                cooperative: input.cooperative.as_ref().map(CooperativeCloseInput::agreement).transpose()?,
            };
            let expected = input.expected_nonce.map(|nonce| nonce.0);
            let settle = async |work: &mut crate::store::Work| stream::settle(work, id, settlement, expected).await;
            // A close that only ends the channel is no payment.
            let pays = settlement.voucher.is_some() || settlement.cooperative.is_some();
            let payment = pays.then(|| ctx.app().metrics().payment());
            let settled = once(ctx, &input, settle).await.and_then(|done| receipt(done.value));
            if let Some(payment) = payment {
                payment.ended(&settled);
            }
            settled
        })
        .await
    }
}

#[derive(Default)]
pub(super) struct ChannelQuery;

#[Object]
impl ChannelQuery {
    /// A channel by id; null when there is none, or you are not party to it.
    #[graphql(complexity = "1 + child_complexity", directive = requires::apply(scopes("channel"), role("channel")))]
    async fn channel(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The id, `chan_…`.")] id: ID,
    ) -> Option<Answer<Channel>> {
        maybe(ctx, async { find(ctx, parse_id(&id, "id")?).await }).await
    }

    /// The channels that you pay into or your agents are paid from, newest first; all channels for administrators.
    #[graphql(complexity = "list_cost(__ctx, __variables_definition, __field, child_complexity)", directive = requires::apply(scopes("channels"), role("channels")))]
    async fn channels(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which channels.")] filter: Option<ChannelFilter>,
        #[graphql(desc = "How many from the start: 1 to 100, 20 when neither `first` nor `last` is given.")]
        first: Option<i32>,
        #[graphql(desc = "Only what comes after this cursor.")] after: Option<String>,
        #[graphql(desc = "How many from the end: 1 to 100; not together with `first`.")] last: Option<i32>,
        #[graphql(desc = "Only what comes before this cursor.")] before: Option<String>,
    ) -> Option<Answer<ChannelConnection>> {
        maybe(ctx, async {
            let viewer = ctx.caller().with_scope(Scope::Read)?;
            let filter = filter.unwrap_or_default();
            let mine = agent::Entity::find()
                .select_only()
                .column(agent::Column::Id)
                .filter(agent::Column::OwnerId.eq(viewer))
                .into_query();
            let pays = channel::Column::PayerId.eq(viewer);
            let is_paid = channel::Column::AgentId.in_subquery(mine);
            let mut list = channel::Entity::find();
            list = match filter.side {
                Some(Side::Requester) => list.filter(pays),
                Some(Side::Worker) => list.filter(is_paid),
                None if ctx.caller().is_admin() => list,
                None => list.filter(Condition::any().add(pays).add(is_paid)),
            };
            if let Some(purpose) = filter.purpose {
                list = list.filter(channel::Column::Purpose.eq(channel::Purpose::from(purpose)));
            }
            if let Some(status) = filter.status {
                list = list.filter(channel::Column::Status.eq(channel::Status::from(status)));
            }
            if let Some(agent) = &filter.agent_id {
                let agent: entity::id::AgentId = parse_id(agent, "filter.agentId")?;
                list = list.filter(channel::Column::AgentId.eq(agent));
            }
            let window = PageArgs { first, after, last, before }.window(&NEWEST)?;
            Ok(Some(window.read(ctx.loaders().db(), list, &NEWEST).await?.into()))
        })
        .await
    }
}
