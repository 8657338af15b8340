//! Credits: wallets, transfers and where credits come from and go to.

use async_graphql::{ComplexObject, Context, Enum, ID, InputObject, Object, SimpleObject};
use entity::{
    account, agent, entry,
    id::{AccountId, AgentId, ChannelId, Id, TaskId, TransferId, UserId},
    transfer,
};
use sea_orm::{
    ColumnTrait, Condition, EntityTrait, QueryFilter, QueryOrder, QuerySelect, QueryTrait, Select,
    sea_query::SelectStatement,
};

use super::{
    agent::Agent,
    channel::Channel,
    context::{Ask, intent, maybe, once, parse_id, payload, requires, role, scopes},
    error::{Answer, payload},
    page::{PageArgs, Sort, connection, list_cost},
    scalar::{BigInt, Credits, DateTime, SignedCredits},
    task::Task,
    user::User,
};
use crate::{
    caller::Scope,
    error::Result,
    ledger::{self, Place},
    store::first_id,
};

/// The order of transfers, newest first.
const NEWEST: Sort<transfer::Entity> =
    Sort { name: "t", key: None, id: transfer::Column::Id, descending: true, place: |row| (0, row.id.0) };

/// The order of a statement: that in which the account changed, the newest line first.
const NEWEST_LINE: Sort<entry::Entity> = Sort {
    name: "line",
    key: Some(entry::Column::Version),
    id: entry::Column::TransferId,
    descending: true,
    place: |row| (row.version, row.transfer_id.0),
};

/// Why credits moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::transfer::Kind")]
pub(super) enum TransferKind {
    /// From the world outside into a wallet.
    Issue,
    /// From a wallet to the world outside.
    Redeem,
    /// A budget set aside for a task.
    Hold,
    /// The price of an award, from the task's budget into its channel.
    Escrow,
    /// What a hold did not need, back to the payer.
    Release,
    /// A deposit back to the payer because the work failed.
    Refund,
    /// Earnings of an agent.
    Payout,
    /// The platform's share of a payout.
    Fee,
    /// What a payer puts into a streaming channel, at its opening or later.
    Deposit,
    /// An agent's earnings, to its owner.
    Withdrawal,
    /// What stands behind a bid, out of the bidder's wallet.
    Bond,
    /// A bond back to the bidder.
    BondReturn,
    /// A bond to the requester whom the bidder let down.
    BondForfeit,
}

/// Whose money an account holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::account::Kind")]
pub(super) enum AccountKind {
    /// The world outside: the only account that may be negative, the source and sink of all credits.
    External,
    /// A user's spendable credits.
    User,
    /// An agent's earnings.
    Agent,
    /// The budget of one open task.
    EscrowTask,
    /// The deposit of one channel.
    EscrowChannel,
    /// The platform's fees.
    Fees,
    /// What stands behind one agent's word in one auction.
    Bond,
    /// What a delegation has neither spent nor set aside for a step.
    EscrowDelegation,
}

/// A user's credits.
#[derive(SimpleObject)]
#[graphql(complex)]
pub(super) struct Wallet {
    /// What can be spent now.
    available: Credits,
    /// What is set aside: for tasks that are not settled, in streaming channels, behind bids.
    in_escrow: Credits,
    #[graphql(skip)]
    account: AccountId,
}

#[ComplexObject]
impl Wallet {
    /// The account that it is, with its statement; null before the first credits came.
    #[graphql(complexity = "1 + child_complexity")]
    async fn account(&self, ctx: &Context<'_>) -> Option<Answer<Account>> {
        maybe(ctx, find_account(ctx, self.account)).await
    }
}

impl Wallet {
    pub(super) fn new(user: UserId, wallet: ledger::Wallet) -> Self {
        let account = Place::user(user).id();
        Self { available: Credits(wallet.available), in_escrow: Credits(wallet.in_escrow), account }
    }
}

#[derive(Clone)]
pub(super) struct Account(account::Model);

impl Account {
    /// The user whose money it is, for wallets and agents.
    async fn holder(&self, ctx: &Context<'_>) -> Result<Option<UserId>> {
        match self.0.kind {
            account::Kind::User => Ok(Some(UserId(self.0.owner_id))),
            account::Kind::Agent => {
                Ok(ctx.loaders().agents(AgentId(self.0.owner_id)).await?.map(|agent| agent.owner_id))
            }
            account::Kind::External
            | account::Kind::EscrowTask
            | account::Kind::EscrowChannel
            | account::Kind::Bond
            | account::Kind::EscrowDelegation
            | account::Kind::Fees => Ok(None),
        }
    }

    /// Whether the caller may see what moves in it.
    async fn is_shown(&self, ctx: &Context<'_>) -> Result<bool> {
        let holder = self.holder(ctx).await?;
        Ok(ctx.caller().is_admin() || holder.is_some_and(|holder| ctx.may_see(holder)))
    }
}

/// A ledger account.
#[Object]
impl Account {
    /// The id, `acct_…`.
    pub(super) async fn id(&self) -> ID {
        self.0.id.into()
    }

    /// Whose money it holds.
    async fn kind(&self) -> AccountKind {
        self.0.kind.into()
    }

    /// What it holds; for its owner alone and administrators.
    #[graphql(complexity = 2)]
    async fn balance(&self, ctx: &Context<'_>) -> Option<Answer<SignedCredits>> {
        maybe(ctx, async { Ok(self.is_shown(ctx).await?.then_some(SignedCredits(self.0.balance))) }).await
    }

    /// What moved in it, newest first, each line with the balance before and after it; for its owner alone and administrators. The
    /// opening balance and the amounts of all lines of a period give the closing balance.
    #[graphql(complexity = "list_cost(__ctx, __variables_definition, __field, child_complexity)")]
    async fn statement(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which lines.")] filter: Option<StatementFilter>,
        #[graphql(desc = "How many from the start: 1 to 100, 20 when neither `first` nor `last` is given.")]
        first: Option<i32>,
        #[graphql(desc = "Only what comes after this cursor.")] after: Option<String>,
        #[graphql(desc = "How many from the end: 1 to 100; not together with `first`.")] last: Option<i32>,
        #[graphql(desc = "Only what comes before this cursor.")] before: Option<String>,
    ) -> Option<Answer<Statement>> {
        maybe(ctx, async {
            if !self.is_shown(ctx).await? {
                return Ok(None);
            }
            let filter = filter.unwrap_or_default();
            let window = PageArgs { first, after, last, before }.window(&NEWEST_LINE)?;
            let period = Period::read(ctx, self.0.id, &filter).await?;
            let lines = period.lines(self.0.id).filter(filter.of_transfers()?);
            let page = window.read(ctx.loaders().db(), lines, &NEWEST_LINE).await?;
            Ok(Some(Statement { period, lines: page.into() }))
        })
        .await
    }

    /// The user whose wallet it is; null for other kinds.
    #[graphql(complexity = "1 + child_complexity")]
    async fn user(&self, ctx: &Context<'_>) -> Option<Answer<User>> {
        maybe(ctx, async {
            if self.0.kind != account::Kind::User {
                return Ok(None);
            }
            super::user::find(ctx, UserId(self.0.owner_id)).await
        })
        .await
    }

    /// The agent whose earnings it holds; null for other kinds.
    #[graphql(complexity = "1 + child_complexity")]
    async fn agent(&self, ctx: &Context<'_>) -> Option<Answer<Agent>> {
        maybe(ctx, async {
            if self.0.kind != account::Kind::Agent {
                return Ok(None);
            }
            super::agent::find(ctx, AgentId(self.0.owner_id)).await
        })
        .await
    }
}

#[derive(Clone)]
pub(super) struct Transfer(pub(super) transfer::Model);

impl From<transfer::Model> for Transfer {
    fn from(row: transfer::Model) -> Self {
        Self(row)
    }
}

/// One movement of credits from one account to another. Never changed.
#[Object]
impl Transfer {
    /// The id, `tr_…`.
    pub(super) async fn id(&self) -> ID {
        self.0.id.into()
    }

    /// Why the credits moved.
    async fn kind(&self) -> TransferKind {
        self.0.kind.into()
    }

    /// How much; always more than zero.
    async fn amount(&self) -> Credits {
        Credits(self.0.amount)
    }

    /// The paper trail outside of an issue or a redemption; null for other kinds.
    async fn reference(&self) -> Option<&str> {
        self.0.reference.as_deref()
    }

    /// When the credits moved.
    async fn created_at(&self) -> DateTime {
        DateTime(self.0.created_at)
    }

    /// The account that the credits left.
    #[graphql(complexity = "1 + child_complexity")]
    async fn debit(&self, ctx: &Context<'_>) -> Option<Answer<Account>> {
        maybe(ctx, async { Ok(ctx.loaders().accounts(self.0.debit_id).await?.map(Account)) }).await
    }

    /// The account that the credits reached.
    #[graphql(complexity = "1 + child_complexity")]
    async fn credit(&self, ctx: &Context<'_>) -> Option<Answer<Account>> {
        maybe(ctx, async { Ok(ctx.loaders().accounts(self.0.credit_id).await?.map(Account)) }).await
    }

    /// The task that it is about; null when there is none, or you are not party to it.
    #[graphql(complexity = "2 + child_complexity")]
    async fn task(&self, ctx: &Context<'_>) -> Option<Answer<Task>> {
        maybe(ctx, async {
            let Some(task) = self.0.task_id else { return Ok(None) };
            super::task::find(ctx, task).await
        })
        .await
    }

    /// The channel that it is about; null when there is none, or you are not party to it.
    #[graphql(complexity = "2 + child_complexity")]
    async fn channel(&self, ctx: &Context<'_>) -> Option<Answer<Channel>> {
        maybe(ctx, async {
            let Some(channel) = self.0.channel_id else { return Ok(None) };
            super::channel::find(ctx, channel).await
        })
        .await
    }
}

/// Which lines of a statement. All conditions must hold.
#[derive(Clone, Debug, Default, InputObject)]
pub(super) struct StatementFilter {
    /// Is of one of these kinds.
    kinds: Option<Vec<TransferKind>>,
    /// Is about this task.
    task_id: Option<ID>,
    /// Is about this channel.
    channel_id: Option<ID>,
    /// Where the period begins, inclusive.
    from: Option<DateTime>,
    /// Where the period ends, exclusive.
    until: Option<DateTime>,
}

impl StatementFilter {
    /// The lines whose transfer is as asked, whatever their period.
    fn of_transfers(&self) -> Result<Condition> {
        let mut wanted = Condition::all();
        if let Some(kinds) = &self.kinds {
            wanted = wanted.add(of_kinds(kinds));
        }
        if let Some(task) = &self.task_id {
            wanted = wanted.add(transfer::Column::TaskId.eq(parse_id::<TaskId>(task, "filter.taskId")?));
        }
        if let Some(channel) = &self.channel_id {
            wanted = wanted.add(transfer::Column::ChannelId.eq(parse_id::<ChannelId>(channel, "filter.channelId")?));
        }
        if wanted.is_empty() {
            return Ok(wanted);
        }
        let transfers = transfer::Entity::find().select_only().column(transfer::Column::Id).filter(wanted);
        Ok(Condition::all().add(entry::Column::TransferId.in_subquery(transfers.into_query())))
    }
}

fn of_kinds(kinds: &[TransferKind]) -> sea_orm::sea_query::SimpleExpr {
    transfer::Column::Kind.is_in(kinds.iter().copied().map(transfer::Kind::from))
}

/// A stretch of an account's history: behind its line number `after` up to and with `until`. It is bounded by numbers, not by
/// instants, so that neighbouring periods share out all lines, each to one of them, even where a clock was set back.
#[derive(Clone, Copy, Debug)]
struct Period {
    after: i64,
    opening: i64,
    until: i64,
    closing: i64,
}

impl Period {
    async fn read(ctx: &Context<'_>, account: AccountId, filter: &StatementFilter) -> Result<Self> {
        let before = async |at: Option<DateTime>| {
            let mut lines = entry::Entity::find().filter(entry::Column::AccountId.eq(account));
            if let Some(at) = at {
                lines = lines.filter(entry::Column::CreatedAt.lt(at.0));
            }
            let newest = lines.order_by_desc(entry::Column::Version).one(ctx.loaders().db()).await?;
            Ok::<_, crate::error::Error>(newest.map_or((0, 0), |line| (line.version, line.current)))
        };
        let (after, opening) = if filter.from.is_some() { before(filter.from).await? } else { (0, 0) };
        let (until, closing) = before(filter.until).await?;
        // A period that ends before it begins has no lines and ends as it began.
        let (until, closing) = if until < after { (after, opening) } else { (until, closing) };
        Ok(Self { after, opening, until, closing })
    }

    fn lines(&self, account: AccountId) -> Select<entry::Entity> {
        entry::Entity::find()
            .filter(entry::Column::AccountId.eq(account))
            .filter(entry::Column::Version.gt(self.after))
            .filter(entry::Column::Version.lte(self.until))
    }
}

/// What moved in an account over a period.
pub(super) struct Statement {
    period: Period,
    lines: StatementLineConnection,
}

/// What moved in an account over a period, and its balance at both ends.
#[Object]
impl Statement {
    /// The balance before the first line of the period.
    async fn opening(&self) -> SignedCredits {
        SignedCredits(self.period.opening)
    }

    /// The balance after the last line of the period.
    async fn closing(&self) -> SignedCredits {
        SignedCredits(self.period.closing)
    }

    /// The lines that were asked for.
    #[graphql(complexity = "child_complexity")]
    async fn lines(&self) -> &StatementLineConnection {
        &self.lines
    }
}

#[derive(Clone)]
pub(super) struct StatementLine(entry::Model);

impl From<entry::Model> for StatementLine {
    fn from(row: entry::Model) -> Self {
        Self(row)
    }
}

/// One side of a transfer, as its account saw it.
#[Object]
impl StatementLine {
    /// The number of the line in its account: 1, 2, 3 … without a gap.
    async fn number(&self) -> BigInt {
        BigInt(self.0.version)
    }

    /// How much the balance changed: below zero when credits left.
    async fn amount(&self) -> SignedCredits {
        SignedCredits(self.0.amount)
    }

    /// The balance right before.
    async fn balance_before(&self) -> SignedCredits {
        SignedCredits(self.0.previous)
    }

    /// The balance right after.
    async fn balance_after(&self) -> SignedCredits {
        SignedCredits(self.0.current)
    }

    /// When the credits moved.
    async fn created_at(&self) -> DateTime {
        DateTime(self.0.created_at)
    }

    /// The movement, with its kind and both accounts.
    #[graphql(complexity = "1 + child_complexity")]
    async fn transfer(&self, ctx: &Context<'_>) -> Option<Answer<Transfer>> {
        maybe(ctx, async { Ok(ctx.loaders().transfers(self.0.transfer_id).await?.map(Transfer)) }).await
    }

    /// The account on the other side.
    #[graphql(complexity = "2 + child_complexity")]
    async fn counterparty(&self, ctx: &Context<'_>) -> Option<Answer<Account>> {
        maybe(ctx, async {
            let Some(transfer) = ctx.loaders().transfers(self.0.transfer_id).await? else { return Ok(None) };
            let other = if transfer.debit_id == self.0.account_id { transfer.credit_id } else { transfer.debit_id };
            find_account(ctx, other).await
        })
        .await
    }
}

connection! {
    /// A page of a statement.
    StatementLineConnection,
    /// A line in a statement.
    StatementLineEdge, StatementLine, entry::Model
}

connection! {
    /// A page of transfers.
    TransferConnection,
    /// A transfer in a list.
    TransferEdge, Transfer, transfer::Model
}

/// Which transfers to list. All conditions must hold.
#[derive(Clone, Debug, Default, InputObject)]
pub(super) struct TransferFilter {
    /// Is of one of these kinds.
    kinds: Option<Vec<TransferKind>>,
    /// Is about this task.
    task_id: Option<ID>,
    /// Is about this channel.
    channel_id: Option<ID>,
    /// Leaves or reaches this account.
    account_id: Option<ID>,
    /// Moves the credits of this agent of yours.
    agent_id: Option<ID>,
    /// Happened at this instant or later.
    from: Option<DateTime>,
    /// Happened before this instant.
    until: Option<DateTime>,
}

impl TransferFilter {
    fn condition(&self) -> Result<Condition> {
        let mut wanted = Condition::all();
        if let Some(kinds) = &self.kinds {
            wanted = wanted.add(of_kinds(kinds));
        }
        if let Some(task) = &self.task_id {
            wanted = wanted.add(transfer::Column::TaskId.eq(parse_id::<TaskId>(task, "filter.taskId")?));
        }
        if let Some(channel) = &self.channel_id {
            wanted = wanted.add(transfer::Column::ChannelId.eq(parse_id::<ChannelId>(channel, "filter.channelId")?));
        }
        let of_agent =
            self.agent_id.as_ref().map(|agent| parse_id(agent, "filter.agentId").map(|agent| Place::agent(agent).id()));
        let account = self.account_id.as_ref().map(|account| parse_id::<AccountId>(account, "filter.accountId"));
        for account in of_agent.into_iter().chain(account) {
            let account = account?;
            let either =
                Condition::any().add(transfer::Column::DebitId.eq(account)).add(transfer::Column::CreditId.eq(account));
            wanted = wanted.add(either);
        }
        // Ids sort by their instants, so the key finds the stretch; the instants themselves decide at its ends.
        if let Some(DateTime(from)) = self.from {
            wanted = wanted.add(transfer::Column::Id.gte(first_id(from))).add(transfer::Column::CreatedAt.gte(from));
        }
        if let Some(DateTime(until)) = self.until {
            let beyond = first_id(until.after(std::time::Duration::from_millis(1)));
            wanted = wanted.add(transfer::Column::Id.lt(beyond)).add(transfer::Column::CreatedAt.lt(until));
        }
        Ok(wanted)
    }
}

/// Input of `issueCredits`.
#[derive(InputObject)]
pub(super) struct IssueCreditsInput {
    /// Whose wallet the credits come into.
    user_id: ID,
    /// How much; more than zero.
    amount: Credits,
    /// The paper trail outside, for example the number of a payment; unique among issues.
    reference: String,
    /// Names this intent: the same value when you retry the same intent, another one for another. 1 to 128 visible ASCII characters.
    idempotency_key: String,
}

/// Input of `redeemCredits`.
#[derive(InputObject)]
pub(super) struct RedeemCreditsInput {
    /// Whose wallet the credits leave.
    user_id: ID,
    /// How much; more than zero.
    amount: Credits,
    /// The paper trail outside, for example the number of a payment; unique among redemptions.
    reference: String,
    /// Names this intent: the same value when you retry the same intent, another one for another. 1 to 128 visible ASCII characters.
    idempotency_key: String,
}

/// Input of `withdrawEarnings`.
#[derive(InputObject)]
pub(super) struct WithdrawEarningsInput {
    /// The agent of yours, whatever its state.
    agent_id: ID,
    /// How much; all that it earned when it is left out.
    amount: Option<Credits>,
    /// Names this intent: the same value when you retry the same intent, another one for another. 1 to 128 visible ASCII characters.
    idempotency_key: String,
}

intent! {
    WithdrawEarningsInput = "withdrawEarnings", moves_credits: true;
    IssueCreditsInput = "issueCredits", moves_credits: true;
    RedeemCreditsInput = "redeemCredits", moves_credits: true;
}

payload! {
    /// Answer of `issueCredits`.
    IssueCreditsPayload {
        /// The movement; null when it was refused.
        transfer: Transfer
    } WalletUserError
}

payload! {
    /// Answer of `redeemCredits`.
    RedeemCreditsPayload {
        /// The movement; null when it was refused.
        transfer: Transfer
    } WalletUserError
}

payload! {
    /// Answer of `withdrawEarnings`.
    WithdrawEarningsPayload {
        /// The movement; null when it was refused.
        transfer: Transfer
    } WalletUserError
}

/// The accounts of a user and of the user's agents.
fn accounts_of(user: UserId) -> SelectStatement {
    let agents = agent::Entity::find().select_only().column(agent::Column::Id).filter(agent::Column::OwnerId.eq(user));
    let wallet = Condition::all()
        .add(account::Column::Kind.eq(account::Kind::User))
        .add(account::Column::OwnerId.eq(user.uuid()));
    let earnings = Condition::all()
        .add(account::Column::Kind.eq(account::Kind::Agent))
        .add(account::Column::OwnerId.in_subquery(agents.into_query()));
    account::Entity::find()
        .select_only()
        .column(account::Column::Id)
        .filter(Condition::any().add(wallet).add(earnings))
        .into_query()
}

fn touches(accounts: &SelectStatement) -> Condition {
    Condition::any()
        .add(transfer::Column::DebitId.in_subquery(accounts.clone()))
        .add(transfer::Column::CreditId.in_subquery(accounts.clone()))
}

/// The account with this id: its name is public, its balance is not.
pub(super) async fn find_account(ctx: &Context<'_>, id: AccountId) -> Result<Option<Account>> {
    Ok(ctx.loaders().accounts(id).await?.map(Account))
}

/// The transfer with this id, if the caller's credits moved in it.
pub(super) async fn find_transfer(ctx: &Context<'_>, id: TransferId) -> Result<Option<Transfer>> {
    let mut found = transfer::Entity::find_by_id(id);
    if !ctx.caller().is_admin() {
        let Some(viewer) = ctx.viewer() else { return Ok(None) };
        found = found.filter(touches(&accounts_of(viewer)));
    }
    Ok(found.one(ctx.loaders().db()).await?.map(Transfer))
}

#[derive(Default)]
pub(super) struct WalletQuery;

#[Object]
impl WalletQuery {
    /// The movements of your credits and your agents' earnings, newest first; all movements for administrators.
    #[graphql(complexity = "list_cost(__ctx, __variables_definition, __field, child_complexity)", directive = requires::apply(scopes("transfers"), role("transfers")))]
    async fn transfers(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which transfers.")] filter: Option<TransferFilter>,
        #[graphql(desc = "How many from the start: 1 to 100, 20 when neither `first` nor `last` is given.")]
        first: Option<i32>,
        #[graphql(desc = "Only what comes after this cursor.")] after: Option<String>,
        #[graphql(desc = "How many from the end: 1 to 100; not together with `first`.")] last: Option<i32>,
        #[graphql(desc = "Only what comes before this cursor.")] before: Option<String>,
    ) -> Option<Answer<TransferConnection>> {
        maybe(ctx, async {
            let viewer = ctx.caller().with_scope(Scope::Read)?;
            let filter = filter.unwrap_or_default();
            let mut list = transfer::Entity::find();
            if !ctx.caller().is_admin() {
                list = list.filter(touches(&accounts_of(viewer)));
            }
            list = list.filter(filter.condition()?);
            let window = PageArgs { first, after, last, before }.window(&NEWEST)?;
            Ok(Some(window.read(ctx.loaders().db(), list, &NEWEST).await?.into()))
        })
        .await
    }
}

#[derive(Default)]
pub(super) struct WalletMutation;

#[Object]
impl WalletMutation {
    /// Brings credits into a wallet from outside, against an external reference. For administrators; the only source of credits.
    #[graphql(complexity = "10 + child_complexity", directive = requires::apply(scopes("issueCredits"), role("issueCredits")))]
    async fn issue_credits(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "To whom, how much and why.")] input: IssueCreditsInput,
    ) -> Option<Answer<IssueCreditsPayload>> {
        payload(ctx, async {
            let user: UserId = parse_id(&input.user_id, "userId")?;
            let (amount, reference) = (input.amount.0, input.reference.as_str());
            let issued = once(ctx, &input, async |work| ledger::issue(work, user, amount, reference).await).await?;
            Ok(issued.value.into())
        })
        .await
    }

    /// Takes credits out of a wallet to the outside, against an external reference. For administrators; the only sink of credits.
    #[graphql(complexity = "10 + child_complexity", directive = requires::apply(scopes("redeemCredits"), role("redeemCredits")))]
    async fn redeem_credits(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "From whom, how much and why.")] input: RedeemCreditsInput,
    ) -> Option<Answer<RedeemCreditsPayload>> {
        payload(ctx, async {
            let user: UserId = parse_id(&input.user_id, "userId")?;
            let (amount, reference) = (input.amount.0, input.reference.as_str());
            let redeemed = once(ctx, &input, async |work| ledger::redeem(work, user, amount, reference).await).await?;
            Ok(redeemed.value.into())
        })
        .await
    }

    /// Moves what an agent of yours earned into your wallet.
    #[graphql(complexity = "10 + child_complexity", directive = requires::apply(scopes("withdrawEarnings"), role("withdrawEarnings")))]
    async fn withdraw_earnings(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "From which agent and how much.")] input: WithdrawEarningsInput,
    ) -> Option<Answer<WithdrawEarningsPayload>> {
        payload(ctx, async {
            let agent: AgentId = parse_id(&input.agent_id, "agentId")?;
            let amount = input.amount.map(|amount| amount.0);
            let moved = once(ctx, &input, async |work| ledger::withdraw(work, agent, amount).await).await?;
            Ok(moved.value.into())
        })
        .await
    }
}
