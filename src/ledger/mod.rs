//! Money: accounts, immutable transfers of two entries, and holds that are resolved exactly once.
//!
//! ```text
//!            hold_budget            award                       settle
//! USER ────────────────► ESCROW_TASK ──p──► ESCROW_CHANNEL ──┬──► AGENT   (payout)
//!   ▲                        │                  │            └──► FEES    (fee)
//!   └──── release (B−p) ─────┘                  │
//!   └──── refund ──────────────────── void ─────┘
//!   └──── withdrawal ─────────────────────────────── AGENT, to its owner
//! ```
//!
//! What must always hold: the balances of all accounts sum to zero; none but `EXTERNAL` is below zero; a transfer has exactly two
//! entries; an account's entries are numbered without a gap and end at its balance; an escrow account holds exactly its
//! unresolved hold; a hold is resolved once. [`audit`] checks all of it, and [`journal`] seals it, so that a stranger can check it
//! too. Only this module writes the ledger's tables.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

pub mod archive;
mod audit;
pub mod journal;
pub mod rules;

use std::collections::{BTreeMap, BTreeSet};

use entity::{
    account::{self, Kind},
    agent, bond, channel, delegation, entry,
    event::{self, Payload},
    hold, hold_resolution,
    id::{AccountId, AgentId, BatchId, BondId, ChannelId, DelegationId, HoldId, Id, TaskId, TransferId, UserId},
    money::Amount,
    task, transfer, user,
};
use sea_orm::{
    ActiveValue::Set,
    ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect, SqlErr,
    sea_query::{Expr, OnConflict},
};
use uuid::Uuid;

pub use audit::{Audit, Check, Reach, audit, imbalance, names};
use rules::{LedgerRefused, Leg, split_fee};

use crate::{
    caller::Scope,
    error::{Error, Result},
    store::{Event, Work, derived_uuid, insert_all},
};

/// Over how many accounts the platform's fees are spread.
const FEE_SHARDS: u8 = 16;
/// Characters of an external reference at most.
const MAX_REFERENCE: usize = 200;

/// Names an account without looking it up: the id follows from what the account is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    kind: Kind,
    owner: Uuid,
    shard: u8,
}

impl Place {
    /// The world outside.
    pub const EXTERNAL: Self = Self { kind: Kind::External, owner: Uuid::nil(), shard: 0 };

    /// A user's wallet.
    #[must_use]
    pub fn user(user: UserId) -> Self {
        Self { kind: Kind::User, owner: user.uuid(), shard: 0 }
    }

    /// An agent's earnings.
    #[must_use]
    pub fn agent(agent: AgentId) -> Self {
        Self { kind: Kind::Agent, owner: agent.uuid(), shard: 0 }
    }

    /// The budget of an open task.
    #[must_use]
    pub fn task(task: TaskId) -> Self {
        Self { kind: Kind::EscrowTask, owner: task.uuid(), shard: 0 }
    }

    /// The deposit of a channel.
    #[must_use]
    pub fn channel(channel: ChannelId) -> Self {
        Self { kind: Kind::EscrowChannel, owner: channel.uuid(), shard: 0 }
    }

    /// What stands behind one bid.
    #[must_use]
    pub fn bond(bond: BondId) -> Self {
        Self { kind: Kind::Bond, owner: bond.uuid(), shard: 0 }
    }

    /// What a delegation has neither spent nor set aside for a step.
    #[must_use]
    pub fn delegation(delegation: DelegationId) -> Self {
        Self { kind: Kind::EscrowDelegation, owner: delegation.uuid(), shard: 0 }
    }

    /// The fee account of what comes out of a channel. Channels spread over the shards.
    #[must_use]
    pub fn fees(channel: ChannelId) -> Self {
        let [.., last] = channel.uuid().into_bytes();
        Self { kind: Kind::Fees, owner: Uuid::nil(), shard: last % FEE_SHARDS }
    }

    /// The account's id.
    #[must_use]
    pub fn id(self) -> AccountId {
        AccountId(derived_uuid(&[b"account", self.kind.name().as_bytes(), self.owner.as_bytes(), &[self.shard]]))
    }
}

/// Whose credits buy work: they come out of it, and what is not needed goes back into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purse {
    /// A user's wallet.
    User(UserId),
    /// What a delegation holds.
    Delegation(DelegationId),
}

impl Purse {
    /// What a task is paid from.
    #[must_use]
    pub fn of(task: &task::Model) -> Self {
        task.delegation_id.map_or(Self::User(task.requester_id), Self::Delegation)
    }

    /// What a delegation's budget comes from: the wallet of who wants it, or the delegation of which it is a step.
    #[must_use]
    pub fn behind(delegation: &delegation::Model) -> Self {
        delegation.parent_id.map_or(Self::User(delegation.requester_id), Self::Delegation)
    }

    fn place(self) -> Place {
        match self {
            Self::User(user) => Place::user(user),
            Self::Delegation(delegation) => Place::delegation(delegation),
        }
    }

    /// What is in it now, in micro-credits.
    pub async fn balance(self, db: &impl ConnectionTrait) -> Result<i64> {
        let account = account::Entity::find_by_id(self.place().id()).one(db).await?;
        Ok(account.map_or(0, |account| account.balance))
    }
}

/// One movement of credits and why. A movement of nothing is left out of the books.
#[derive(Clone, Debug)]
struct Movement {
    kind: transfer::Kind,
    from: Place,
    to: Place,
    amount: Amount,
    task: Option<TaskId>,
    channel: Option<ChannelId>,
    reference: Option<String>,
}

/// Posts movements in order, all or none.
///
/// This is the one way for credits to move, so this is where they stop while the books are broken.
async fn post(work: &mut Work, movements: &[Movement]) -> Result<BatchId> {
    work.books()?;
    let movements: Vec<&Movement> = movements.iter().filter(|movement| !movement.amount.is_zero()).collect();
    let batch: BatchId = work.fresh();
    let mut accounts = lock_accounts(work, movements.iter().flat_map(|movement| [movement.from, movement.to])).await?;
    let legs: Vec<Leg> = movements
        .iter()
        .map(|movement| Leg { debit: movement.from.id(), credit: movement.to.id(), amount: movement.amount })
        .collect();
    let pairs = rules::apply(&mut accounts, &legs)?;

    let now = work.now();
    let mut transfers = Vec::with_capacity(movements.len());
    let mut entries = Vec::with_capacity(movements.len().saturating_mul(2));
    for (movement, pair) in movements.iter().zip(pairs) {
        let id: TransferId = work.fresh();
        transfers.push(transfer::ActiveModel {
            id: Set(id),
            batch_id: Set(batch),
            kind: Set(movement.kind),
            debit_id: Set(movement.from.id()),
            credit_id: Set(movement.to.id()),
            amount: Set(movement.amount),
            task_id: Set(movement.task),
            channel_id: Set(movement.channel),
            reference: Set(movement.reference.clone()),
            created_at: Set(now),
        });
        entries.extend(pair.map(|side| entry::ActiveModel {
            account_id: Set(side.account),
            version: Set(side.version),
            transfer_id: Set(id),
            amount: Set(side.amount),
            previous: Set(side.previous),
            current: Set(side.current),
            created_at: Set(now),
        }));
    }
    let balances: Vec<_> = accounts
        .values()
        .map(|account| account::ActiveModel {
            id: Set(account.id),
            kind: Set(account.kind),
            owner_id: Set(account.owner_id),
            shard: Set(account.shard),
            balance: Set(account.balance),
            version: Set(account.version),
            created_at: Set(account.created_at),
        })
        .collect();
    let update = OnConflict::column(account::Column::Id)
        .update_columns([account::Column::Balance, account::Column::Version])
        .to_owned();
    account::Entity::insert_many(balances).on_conflict(update).exec_without_returning(work.tx()).await?;
    insert_all(work.tx(), transfers).await?;
    insert_all(work.tx(), entries).await?;
    work.accounts().extend(accounts);
    Ok(batch)
}

/// Opens the account of something that begins to exist in this unit of work: nobody else knows its id, so there is nothing to look
/// for and nothing to lock. Were it there all the same, its entries would meet those that are.
fn open_account(work: &Work, place: Place) {
    let account = account::Model {
        id: place.id(),
        kind: place.kind,
        owner_id: place.owner,
        shard: place.shard.into(),
        balance: 0,
        version: 0,
        created_at: work.now(),
    };
    work.accounts().insert(account.id, account);
}

/// Locks accounts by ascending id, opening those that do not exist.
async fn lock_accounts(
    work: &Work,
    places: impl IntoIterator<Item = Place>,
) -> Result<BTreeMap<AccountId, account::Model>> {
    let places: BTreeMap<AccountId, Place> = places.into_iter().map(|place| (place.id(), place)).collect();
    let mut accounts = select_for_update(work, places.keys().copied()).await?;
    let missing: BTreeSet<AccountId> = places.keys().copied().filter(|id| !accounts.contains_key(id)).collect();
    if missing.is_empty() {
        return Ok(accounts);
    }
    let rows = missing.iter().filter_map(|id| places.get(id)).map(|place| account::ActiveModel {
        id: Set(place.id()),
        kind: Set(place.kind),
        owner_id: Set(place.owner),
        shard: Set(place.shard.into()),
        balance: Set(0),
        version: Set(0),
        created_at: Set(work.now()),
    });
    // No index is named: somebody who opens the same account now may be seen through any of its unique ones.
    let nothing = OnConflict::new().do_nothing().to_owned();
    account::Entity::insert_many(rows).on_conflict(nothing).exec_without_returning(work.tx()).await?;
    accounts.extend(select_for_update(work, missing.into_iter()).await?);
    Ok(accounts)
}

/// The accounts that there are, locked by ascending id. Those that this unit of work has locked before are known.
async fn select_for_update(
    work: &Work,
    ids: impl Iterator<Item = AccountId>,
) -> Result<BTreeMap<AccountId, account::Model>> {
    let (mut accounts, mut unknown) = (BTreeMap::new(), Vec::new());
    {
        let known = work.accounts();
        for id in ids {
            match known.get(&id) {
                Some(account) => drop(accounts.insert(id, account.clone())),
                None => unknown.push(id),
            }
        }
    }
    if unknown.is_empty() {
        return Ok(accounts);
    }
    let rows = account::Entity::find()
        .filter(account::Column::Id.is_in(unknown))
        .order_by_asc(account::Column::Id)
        .lock_exclusive()
        .all(work.tx())
        .await?;
    let rows = rows.into_iter().map(|account| (account.id, account));
    accounts.extend(rows.clone());
    work.accounts().extend(rows);
    Ok(accounts)
}

/// Brings credits from outside into a user's wallet. Administrators only; `reference` is the paper trail outside and is good for
/// one issue.
pub async fn issue(work: &mut Work, to: UserId, amount: Amount, reference: &str) -> Result<transfer::Model> {
    external(work, transfer::Kind::Issue, to, amount, reference).await
}

/// Takes credits out of a user's wallet to the outside. Administrators only; `reference` is good for one redemption.
pub async fn redeem(work: &mut Work, from: UserId, amount: Amount, reference: &str) -> Result<transfer::Model> {
    external(work, transfer::Kind::Redeem, from, amount, reference).await
}

async fn external(
    work: &mut Work,
    kind: transfer::Kind,
    user: UserId,
    amount: Amount,
    reference: &str,
) -> Result<transfer::Model> {
    work.caller().admin()?;
    if amount.is_zero() {
        return Err(Error::invalid("amount", "must be more than zero"));
    }
    let length = reference.chars().count();
    if length == 0 || length > MAX_REFERENCE || reference.chars().any(char::is_control) {
        return Err(Error::invalid("reference", "must be 1 to 200 characters"));
    }
    user::Entity::find_by_id(user).one(work.tx()).await?.ok_or(Error::NotFound("user"))?;
    let earlier = transfer::Entity::find()
        .filter(transfer::Column::Kind.eq(kind))
        .filter(transfer::Column::Reference.eq(reference))
        .one(work.tx())
        .await?;
    if earlier.is_some() {
        return Err(LedgerRefused::ReferenceUsed.into());
    }
    let issues = kind == transfer::Kind::Issue;
    let (from, to) = if issues { (Place::EXTERNAL, Place::user(user)) } else { (Place::user(user), Place::EXTERNAL) };
    let reference = Some(reference.to_owned());
    let movement = Movement { kind, from, to, amount, task: None, channel: None, reference };
    let batch = post(work, &[movement]).await.map_err(reference_race)?;
    let happened = if issues { event::Kind::CreditsIssued } else { event::Kind::CreditsRedeemed };
    work.record(Event {
        payer_id: Some(user),
        ..Event::new(happened, Payload { amount: Some(amount), ..Payload::default() })
    });
    transfer_of(work, batch).await
}

/// Moves an agent's earnings to its owner: `amount`, or all of them. For the owner alone, whatever the agent's state. Fails with
/// `InsufficientFunds` when it earned less, or has nothing.
pub async fn withdraw(work: &mut Work, agent: AgentId, amount: Option<Amount>) -> Result<transfer::Model> {
    work.caller().with_scope(Scope::AgentsWrite)?;
    if amount.is_some_and(Amount::is_zero) {
        return Err(Error::invalid("amount", "must be more than zero"));
    }
    let agent = agent::Entity::find_by_id(agent).one(work.tx()).await?.ok_or(Error::NotFound("agent"))?;
    let owner = work.caller().controls(&agent, Scope::AgentsWrite)?;
    let (from, to) = (Place::agent(agent.id), Place::user(owner));
    // Both at once and in their order: another that locks the two does it in the same one.
    let accounts = lock_accounts(work, [from, to]).await?;
    work.got_lock();
    let earned = accounts.get(&from.id()).and_then(|account| Amount::from_micros(account.balance));
    let amount = amount.or(earned).filter(|amount| !amount.is_zero()).ok_or(LedgerRefused::InsufficientFunds)?;
    let kind = transfer::Kind::Withdrawal;
    let batch = post(work, &[Movement { kind, from, to, amount, task: None, channel: None, reference: None }]).await?;
    work.record(Event {
        agent_id: Some(agent.id),
        payer_id: Some(owner),
        owner_id: Some(owner),
        ..Event::new(event::Kind::EarningsWithdrawn, Payload { amount: Some(amount), ..Payload::default() })
    });
    transfer_of(work, batch).await
}

/// The one transfer of a batch that this work posted.
async fn transfer_of(work: &Work, batch: BatchId) -> Result<transfer::Model> {
    transfer::Entity::find()
        .filter(transfer::Column::BatchId.eq(batch))
        .one(work.tx())
        .await?
        .ok_or_else(|| Error::internal("a posted transfer is missing"))
}

/// Two issues with one reference at the same time: the constraint lets one in.
fn reference_race(error: Error) -> Error {
    let Error::Internal(source) = &error else { return error };
    let violation = source.downcast_ref::<sea_orm::DbErr>().and_then(sea_orm::DbErr::sql_err);
    if matches!(violation, Some(SqlErr::UniqueConstraintViolation(_))) {
        LedgerRefused::ReferenceUsed.into()
    } else {
        error
    }
}

/// Sets `amount` of the payer's credits aside as the budget of a task.
pub async fn hold_budget(work: &mut Work, payer: Purse, task: TaskId, amount: Amount) -> Result<hold::Model> {
    hold_in(work, Place::task(task), payer, task, None, amount).await
}

/// Sets `amount` of the payer's credits aside as the deposit of a task's channel.
pub async fn hold_deposit(
    work: &mut Work,
    payer: Purse,
    task: TaskId,
    channel: ChannelId,
    amount: Amount,
) -> Result<hold::Model> {
    hold_in(work, Place::channel(channel), payer, task, Some(channel), amount).await
}

async fn hold_in(
    work: &mut Work,
    escrow: Place,
    payer: Purse,
    task: TaskId,
    channel: Option<ChannelId>,
    amount: Amount,
) -> Result<hold::Model> {
    let from = payer.place();
    let kind = transfer::Kind::Hold;
    open_account(work, escrow);
    post(work, &[Movement { kind, from, to: escrow, amount, task: Some(task), channel, reference: None }]).await?;
    insert_hold(work, escrow, from, task, amount).await
}

async fn insert_hold(
    work: &mut Work,
    escrow: Place,
    payer: Place,
    task: TaskId,
    amount: Amount,
) -> Result<hold::Model> {
    let id: HoldId = work.fresh();
    let row = hold::ActiveModel {
        id: Set(id),
        escrow_id: Set(escrow.id()),
        payer_account_id: Set(payer.id()),
        task_id: Set(task),
        amount: Set(amount),
        status: Set(hold::Status::Held),
        created_at: Set(work.now()),
    };
    Ok(hold::Entity::insert(row).exec_with_returning(work.tx()).await?)
}

/// Moves the price of an award from the task's budget into a channel of its own and gives the rest of the budget back. The hold
/// on the budget is resolved; the hold on the deposit is returned.
pub async fn award(
    work: &mut Work,
    budget: HoldId,
    payer: Purse,
    task: TaskId,
    channel: ChannelId,
    price: Amount,
) -> Result<hold::Model> {
    let hold = lock_hold(work, budget).await?;
    let rest = hold.amount.checked_sub(price).ok_or_else(|| Error::internal("the price is above the budget"))?;
    let (from, payer) = (Place::task(task), payer.place());
    open_account(work, Place::channel(channel));
    let batch = post(
        work,
        &[
            Movement {
                kind: transfer::Kind::Escrow,
                from,
                to: Place::channel(channel),
                amount: price,
                task: Some(task),
                channel: Some(channel),
                reference: None,
            },
            Movement {
                kind: transfer::Kind::Release,
                from,
                to: payer,
                amount: rest,
                task: Some(task),
                channel: None,
                reference: None,
            },
        ],
    )
    .await?;
    resolve(work, &hold, batch, price, rest).await?;
    insert_hold(work, Place::channel(channel), payer, task, price).await
}

/// What a settlement did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// What the agent received.
    pub agent: Amount,
    /// What the platform received.
    pub fee: Amount,
    /// What went back to the payer.
    pub returned: Amount,
}

/// Who a deposit belongs to and whom it may pay.
#[derive(Clone, Copy, Debug)]
pub struct Deposit {
    pub hold: HoldId,
    pub payer: Purse,
    pub agent: AgentId,
    pub task: TaskId,
    pub channel: ChannelId,
}

/// Pays `amount` of a channel's deposit out, the platform's fee off it, and gives the rest back to the payer. With an amount of
/// zero the whole deposit is refunded.
pub async fn settle(work: &mut Work, deposit: Deposit, amount: Amount) -> Result<Settled> {
    let hold = lock_hold(work, deposit.hold).await?;
    let returned = hold.amount.checked_sub(amount).ok_or_else(|| Error::internal("more is paid than was deposited"))?;
    let shares = split_fee(amount, work.terms().fee_bps);
    let from = Place::channel(deposit.channel);
    let leg = |kind, to, amount| Movement {
        kind,
        from,
        to,
        amount,
        task: Some(deposit.task),
        channel: Some(deposit.channel),
        reference: None,
    };
    let batch = post(
        work,
        &[
            leg(transfer::Kind::Payout, Place::agent(deposit.agent), shares.agent),
            leg(transfer::Kind::Fee, Place::fees(deposit.channel), shares.fee),
            leg(transfer::Kind::Refund, deposit.payer.place(), returned),
        ],
    )
    .await?;
    resolve(work, &hold, batch, amount, returned).await?;
    Ok(Settled { agent: shares.agent, fee: shares.fee, returned })
}

/// Puts `amount` of the payer's credits into a streaming channel.
pub async fn deposit(work: &mut Work, payer: UserId, channel: ChannelId, amount: Amount) -> Result<BatchId> {
    let (from, to) = (Place::user(payer), Place::channel(channel));
    let kind = transfer::Kind::Deposit;
    post(work, &[Movement { kind, from, to, amount, task: None, channel: Some(channel), reference: None }]).await
}

/// What one payment out of a streaming channel is made of.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    pub channel: ChannelId,
    pub payer: UserId,
    pub agent: AgentId,
    /// What the agent gets.
    pub earned: Amount,
    /// What the platform gets.
    pub fee: Amount,
    /// What goes back to the payer.
    pub returned: Amount,
}

/// Pays out of a streaming channel; the caller has locked it and checked that it holds as much.
pub async fn pay_stream(work: &mut Work, stream: Stream) -> Result<BatchId> {
    let leg = |kind, to, amount| Movement {
        kind,
        from: Place::channel(stream.channel),
        to,
        amount,
        task: None,
        channel: Some(stream.channel),
        reference: None,
    };
    let movements = [
        leg(transfer::Kind::Payout, Place::agent(stream.agent), stream.earned),
        leg(transfer::Kind::Fee, Place::fees(stream.channel), stream.fee),
        leg(transfer::Kind::Release, Place::user(stream.payer), stream.returned),
    ];
    post(work, &movements).await
}

/// Where a bond goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BondMove {
    /// Out of the bidder's wallet.
    Put,
    /// Back into it.
    Return,
    /// To this requester, whom the bidder let down.
    Forfeit(UserId),
}

/// Moves bonds, each all of it, together; the caller has locked the auction or the task that they belong to.
pub async fn move_bonds(work: &mut Work, bonds: &[(bond::Model, BondMove)]) -> Result<BatchId> {
    let movements: Vec<Movement> = bonds
        .iter()
        .map(|(bond, how)| {
            let (bidder, place) = (Place::user(bond.bidder_id), Place::bond(bond.id));
            let (kind, from, to) = match how {
                BondMove::Put => (transfer::Kind::Bond, bidder, place),
                BondMove::Return => (transfer::Kind::BondReturn, place, bidder),
                BondMove::Forfeit(requester) => (transfer::Kind::BondForfeit, place, Place::user(*requester)),
            };
            Movement { kind, from, to, amount: bond.amount, task: Some(bond.task_id), channel: None, reference: None }
        })
        .collect();
    post(work, &movements).await
}

/// Locks wallets by ascending account before a unit of work posts to several of them one after the other: units that meet at the
/// same wallets then wait in one order.
pub async fn lock_wallets(work: &Work, users: Vec<UserId>) -> Result<()> {
    let wallets: BTreeSet<AccountId> = users.into_iter().map(|user| Place::user(user).id()).collect();
    select_for_update(work, wallets.into_iter()).await.map(|_| ())
}

/// Locks purses before a unit of work posts to them one after the other, for the same reason as [`lock_wallets`].
pub async fn lock_purses(work: &Work, purses: &[Purse]) -> Result<()> {
    let accounts: BTreeSet<AccountId> = purses.iter().map(|purse| purse.place().id()).collect();
    select_for_update(work, accounts.into_iter()).await.map(|_| ())
}

/// Sets the budget of a delegation aside, out of the purse behind it.
pub async fn fund_delegation(work: &mut Work, delegation: &delegation::Model) -> Result<BatchId> {
    let (from, to) = (Purse::behind(delegation).place(), Place::delegation(delegation.id));
    let kind = transfer::Kind::Hold;
    let amount = delegation.budget;
    post(work, &[Movement { kind, from, to, amount, task: None, channel: None, reference: None }]).await
}

/// Gives what a delegation has left back to the purse behind it. The caller has seen that none of its tasks holds anything.
pub async fn close_delegation(work: &mut Work, delegation: &delegation::Model) -> Result<Amount> {
    let (from, to) = (Place::delegation(delegation.id), Purse::behind(delegation).place());
    let accounts = lock_accounts(work, [from, to]).await?;
    let left = accounts.get(&from.id()).and_then(|account| Amount::from_micros(account.balance));
    let amount = left.ok_or_else(|| Error::internal("a delegation is below zero"))?;
    let kind = transfer::Kind::Release;
    post(work, &[Movement { kind, from, to, amount, task: None, channel: None, reference: None }]).await?;
    Ok(amount)
}

/// Gives the whole budget of a task back.
pub async fn release_budget(work: &mut Work, budget: HoldId, payer: Purse, task: TaskId) -> Result<Amount> {
    let hold = lock_hold(work, budget).await?;
    let (from, to, amount) = (Place::task(task), payer.place(), hold.amount);
    let kind = transfer::Kind::Release;
    let movement = Movement { kind, from, to, amount, task: Some(task), channel: None, reference: None };
    let batch = post(work, &[movement]).await?;
    resolve(work, &hold, batch, Amount::ZERO, amount).await?;
    Ok(amount)
}

async fn lock_hold(work: &Work, id: HoldId) -> Result<hold::Model> {
    let hold = hold::Entity::find_by_id(id).lock_exclusive().one(work.tx()).await?;
    hold.filter(|hold| hold.status == hold::Status::Held)
        .ok_or_else(|| Error::internal(format!("{id} is not held any more")))
}

/// Marks a hold as over. The conditional update and the primary key of the resolution each make a second time impossible.
async fn resolve(work: &Work, hold: &hold::Model, batch: BatchId, posted: Amount, returned: Amount) -> Result<()> {
    let (status, kind) = if posted.is_zero() {
        (hold::Status::Voided, hold_resolution::Kind::Void)
    } else {
        (hold::Status::Posted, hold_resolution::Kind::Post)
    };
    let updated = hold::Entity::update_many()
        .col_expr(hold::Column::Status, Expr::value(status))
        .filter(hold::Column::Id.eq(hold.id))
        .filter(hold::Column::Status.eq(hold::Status::Held))
        .exec(work.tx())
        .await?;
    if updated.rows_affected != 1 {
        return Err(Error::internal(format!("{} was resolved by somebody else", hold.id)));
    }
    let row = hold_resolution::ActiveModel {
        hold_id: Set(hold.id),
        kind: Set(kind),
        posted: Set(posted),
        returned: Set(returned),
        batch_id: Set(batch),
        created_at: Set(work.now()),
    };
    hold_resolution::Entity::insert(row).exec_without_returning(work.tx()).await?;
    Ok(())
}

/// What a user has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wallet {
    /// Spendable now.
    pub available: Amount,
    /// Set aside: for tasks that are not settled, in delegations, in streaming channels, behind bids.
    pub in_escrow: Amount,
}

/// A user's wallet. A user who never had credits has an empty one.
pub async fn wallet(db: &impl ConnectionTrait, user: UserId) -> Result<Wallet> {
    let account = Place::user(user).id();
    let balance = account::Entity::find_by_id(account).one(db).await?.map_or(0, |account| account.balance);
    let held: Vec<Amount> = hold::Entity::find()
        .select_only()
        .column(hold::Column::Amount)
        .filter(hold::Column::PayerAccountId.eq(account))
        .filter(hold::Column::Status.eq(hold::Status::Held))
        .into_tuple()
        .all(db)
        .await?;
    let streams: Vec<(Amount, Amount)> = channel::Entity::find()
        .select_only()
        .columns([channel::Column::Deposit, channel::Column::Paid])
        .filter(channel::Column::PayerId.eq(user))
        .filter(channel::Column::Purpose.eq(channel::Purpose::Stream))
        .filter(channel::Column::Status.ne(channel::Status::Closed))
        .into_tuple()
        .all(db)
        .await?;
    let bonds: Vec<Amount> = bond::Entity::find()
        .select_only()
        .column(bond::Column::Amount)
        .filter(bond::Column::BidderId.eq(user))
        .filter(bond::Column::Status.eq(bond::Status::Held))
        .into_tuple()
        .all(db)
        .await?;
    let delegations: Vec<DelegationId> = delegation::Entity::find()
        .select_only()
        .column(delegation::Column::Id)
        .filter(delegation::Column::RequesterId.eq(user))
        .filter(delegation::Column::DeadlineAt.is_not_null())
        .into_tuple()
        .all(db)
        .await?;
    let delegated = delegated(db, &delegations).await?;
    let unpaid = streams.into_iter().filter_map(|(deposit, paid)| deposit.checked_sub(paid));
    let available = Amount::from_micros(balance).ok_or_else(|| Error::internal("a wallet is below zero"))?;
    Ok(Wallet { available, in_escrow: held.into_iter().chain(unpaid).chain(bonds).chain(delegated).sum() })
}

/// What delegations hold, each and for the tasks that its steps buy.
async fn delegated(db: &impl ConnectionTrait, delegations: &[DelegationId]) -> Result<Vec<Amount>> {
    if delegations.is_empty() {
        return Ok(Vec::new());
    }
    let accounts: Vec<AccountId> = delegations.iter().map(|id| Place::delegation(*id).id()).collect();
    let balances = account::Entity::find()
        .select_only()
        .column(account::Column::Balance)
        .filter(account::Column::Id.is_in(accounts.clone()))
        .into_tuple::<i64>()
        .all(db)
        .await?;
    let held = hold::Entity::find()
        .select_only()
        .column(hold::Column::Amount)
        .filter(hold::Column::PayerAccountId.is_in(accounts))
        .filter(hold::Column::Status.eq(hold::Status::Held))
        .into_tuple::<Amount>()
        .all(db)
        .await?;
    let balances = balances
        .into_iter()
        .map(|micros| Amount::from_micros(micros).ok_or_else(|| Error::internal("a delegation is below zero")));
    Ok(balances.collect::<Result<Vec<_>>>()?.into_iter().chain(held).collect())
}

/// The balance of an account in micro-credits; zero where it does not exist yet.
pub async fn balance_of(db: &impl ConnectionTrait, kind: Kind, owner: Uuid) -> Result<i64> {
    let rows: Vec<i64> = account::Entity::find()
        .select_only()
        .column(account::Column::Balance)
        .filter(account::Column::OwnerId.eq(owner))
        .filter(account::Column::Kind.eq(kind))
        .into_tuple()
        .all(db)
        .await?;
    Ok(rows.into_iter().sum())
}
