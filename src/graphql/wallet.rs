//! Credits: wallets, transfers and where credits come from and go to.

use async_graphql::{Context, Enum, ID, InputObject, Object, SimpleObject};
use entity::{
    account, agent,
    id::{AccountId, AgentId, Id, TransferId, UserId},
    transfer,
};
use sea_orm::{ColumnTrait, Condition, EntityTrait, QueryFilter, QuerySelect, QueryTrait, sea_query::SelectStatement};

use super::{
    agent::Agent,
    channel::Channel,
    context::{Ask, intent, maybe, once, parse_id, payload},
    error::{Answer, payload},
    page::{PageArgs, Sort, connection, list_cost},
    scalar::{Credits, DateTime, SignedCredits},
    task::Task,
    user::User,
};
use crate::{caller::Scope, error::Result, ledger};

/// The order of transfers, newest first.
const NEWEST: Sort<transfer::Entity> =
    Sort { name: "t", key: None, id: transfer::Column::Id, descending: true, place: |row| (0, row.id.0) };

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
}

/// A user's credits.
#[derive(SimpleObject)]
pub(super) struct Wallet {
    /// What can be spent now.
    available: Credits,
    /// What is set aside: for tasks that are not settled, in streaming channels, behind bids.
    in_escrow: Credits,
}

impl From<ledger::Wallet> for Wallet {
    fn from(wallet: ledger::Wallet) -> Self {
        Self { available: Credits(wallet.available), in_escrow: Credits(wallet.in_escrow) }
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
            | account::Kind::Fees => Ok(None),
        }
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
        maybe(ctx, async {
            let holder = self.holder(ctx).await?;
            let shown = ctx.caller().is_admin() || holder.is_some_and(|holder| ctx.may_see(holder));
            Ok(shown.then_some(SignedCredits(self.0.balance)))
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

connection! {
    /// A page of transfers.
    TransferConnection,
    /// A transfer in a list.
    TransferEdge, Transfer, transfer::Model
}

/// Which transfers to list. All conditions must hold.
#[derive(Clone, Debug, Default, InputObject)]
pub(super) struct TransferFilter {
    /// Is of this kind.
    kind: Option<TransferKind>,
    /// Is about this task.
    task_id: Option<ID>,
    /// Moves the credits of this agent of yours.
    agent_id: Option<ID>,
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

intent! {
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
    Ok(found.one(ctx.store().read()).await?.map(Transfer))
}

#[derive(Default)]
pub(super) struct WalletQuery;

#[Object]
impl WalletQuery {
    /// The movements of your credits and your agents' earnings, newest first; all movements for administrators.
    #[graphql(complexity = "list_cost(__ctx, __variables_definition, __field, child_complexity)")]
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
            if let Some(kind) = filter.kind {
                list = list.filter(transfer::Column::Kind.eq(transfer::Kind::from(kind)));
            }
            if let Some(task) = &filter.task_id {
                list = list.filter(transfer::Column::TaskId.eq(parse_id::<entity::id::TaskId>(task, "filter.taskId")?));
            }
            if let Some(agent) = &filter.agent_id {
                let account = ledger::Place::agent(parse_id(agent, "filter.agentId")?).id();
                let of_agent = Condition::any()
                    .add(transfer::Column::DebitId.eq(account))
                    .add(transfer::Column::CreditId.eq(account));
                list = list.filter(of_agent);
            }
            let window = PageArgs { first, after, last, before }.window(&NEWEST)?;
            Ok(Some(window.read(ctx.store().read(), list, &NEWEST).await?.into()))
        })
        .await
    }
}

#[derive(Default)]
pub(super) struct WalletMutation;

#[Object]
impl WalletMutation {
    /// Brings credits into a wallet from outside, against an external reference. For administrators; the only source of credits.
    #[graphql(complexity = "10 + child_complexity")]
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
    #[graphql(complexity = "10 + child_complexity")]
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
}
