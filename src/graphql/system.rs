//! The service itself: what it is, how the market does, whether the books are in order, and everything by its id.

use std::collections::HashMap;

use async_graphql::{Context, ID, Interface, Object, SimpleObject};
use entity::{
    account,
    id::{
        AccountId, AgentId, ApiKeyId, AuctionId, BidId, ChannelId, DelegationId, DisputeId, DocumentId, EquivocationId,
        EvidenceId, Id, ModuleId, RatingId, ReputationEventId, SessionId, TaskId, TransferId, UserId,
    },
    money::MAX_AMOUNT,
    task,
};
use futures_util::future::try_join_all;
use sea_orm::{ConnectionTrait, Iterable, Statement};

use super::{
    agent::{Agent, AgentModule},
    auction::{Auction, Bid},
    channel::{Channel, Equivocation},
    context::{Ask, Budget, maybe, parse_id, requires, role, scopes},
    delegation::Delegation,
    dispute::{Dispute, Evidence},
    document::SignedDocument,
    error::Answer,
    page::MAX_PAGE,
    reputation::{Rating, ReputationEvent},
    scalar::{BigInt, Credits, DateTime, Duration, Percentage, SignedCredits},
    task::{Task, TaskStatus},
    user::{ApiKey, SignIn, User},
    wallet::{Account, Transfer},
};
use crate::{
    error::{Error, Result},
    ledger::{Audit, Check, journal},
    store::Store,
};

/// Everything that has an id of its own.
#[derive(Interface)]
#[graphql(field(
    name = "id",
    ty = "ID",
    desc = "The id: a prefix that names the type, an underscore and 26 characters."
))]
pub(super) enum Node {
    /// A user.
    User(User),
    /// A session.
    Session(SignIn),
    /// An API key.
    ApiKey(ApiKey),
    /// An agent.
    Agent(Agent),
    /// A module.
    AgentModule(AgentModule),
    /// A task.
    Task(Task),
    /// An auction.
    Auction(Auction),
    /// A bid.
    Bid(Bid),
    /// A channel.
    Channel(Channel),
    /// Two vouchers that contradict each other.
    Equivocation(Equivocation),
    /// An account.
    Account(Account),
    /// A transfer.
    Transfer(Transfer),
    /// A rating.
    Rating(Rating),
    /// A piece of evidence.
    ReputationEvent(ReputationEvent),
    /// A delegation.
    Delegation(Delegation),
    /// A dispute.
    Dispute(Dispute),
    /// What a party showed in a dispute.
    Evidence(Evidence),
    /// A signed document.
    SignedDocument(SignedDocument),
}

/// What has this id, if there is such a thing and the caller may see it.
async fn find(ctx: &Context<'_>, id: &ID, field: &str) -> Result<Option<Node>> {
    let prefix = id.rsplit_once('_').map_or("", |(prefix, _)| prefix);
    Ok(match prefix {
        UserId::PREFIX => super::user::find(ctx, parse_id(id, field)?).await?.map(Node::User),
        SessionId::PREFIX => super::user::find_session(ctx, parse_id(id, field)?).await?.map(Node::Session),
        ApiKeyId::PREFIX => super::user::find_key(ctx, parse_id(id, field)?).await?.map(Node::ApiKey),
        AgentId::PREFIX => super::agent::find(ctx, parse_id(id, field)?).await?.map(Node::Agent),
        ModuleId::PREFIX => super::agent::find_module(ctx, parse_id(id, field)?).await?.map(Node::AgentModule),
        TaskId::PREFIX => super::task::find(ctx, parse_id(id, field)?).await?.map(Node::Task),
        AuctionId::PREFIX => super::auction::find(ctx, parse_id(id, field)?).await?.map(Node::Auction),
        BidId::PREFIX => super::auction::find_bid(ctx, parse_id(id, field)?).await?.map(Node::Bid),
        ChannelId::PREFIX => super::channel::find(ctx, parse_id(id, field)?).await?.map(Node::Channel),
        EquivocationId::PREFIX => {
            super::channel::find_equivocation(ctx, parse_id(id, field)?).await?.map(Node::Equivocation)
        }
        AccountId::PREFIX => super::wallet::find_account(ctx, parse_id(id, field)?).await?.map(Node::Account),
        TransferId::PREFIX => super::wallet::find_transfer(ctx, parse_id(id, field)?).await?.map(Node::Transfer),
        RatingId::PREFIX => super::reputation::find_rating(ctx, parse_id(id, field)?).await?.map(Node::Rating),
        ReputationEventId::PREFIX => {
            super::reputation::find_event(ctx, parse_id(id, field)?).await?.map(Node::ReputationEvent)
        }
        DelegationId::PREFIX => super::delegation::find(ctx, parse_id(id, field)?).await?.map(Node::Delegation),
        DisputeId::PREFIX => super::dispute::find(ctx, parse_id(id, field)?).await?.map(Node::Dispute),
        EvidenceId::PREFIX => super::dispute::find_evidence(ctx, parse_id(id, field)?).await?.map(Node::Evidence),
        DocumentId::PREFIX => super::document::find(ctx, parse_id(id, field)?).await?.map(Node::SignedDocument),
        _ => return Err(Error::invalid(field, "is not an id of any type")),
    })
}

/// What the service is and what it takes.
#[derive(SimpleObject)]
pub(super) struct ServiceInfo {
    /// The name of the program.
    name: &'static str,
    /// The version of the program.
    version: &'static str,
    /// The service's clock, by which auctions close.
    now: DateTime,
    /// The platform's share of a payout, rounded down; the remainder is the agent's.
    fee: Percentage,
    /// The most credits that one operation may name.
    max_amount: Credits,
    /// Bytes of a task's input at most.
    max_input_bytes: BigInt,
    /// Bytes of a module at most.
    max_module_bytes: BigInt,
    /// How long an auction may take bids at most.
    max_auction_duration: Duration,
    /// The wall-clock limit of one attempt when a task does not say.
    default_timeout: Duration,
    /// The wall-clock limit that a task may ask for at most.
    max_timeout: Duration,
    /// Live bids of one auction at most.
    max_bids: i32,
    /// Items of a page at most.
    max_page_size: i32,
    /// What everything that is signed for this market names it by: `SHA256("ZSPC-INSTANCE-v1" ‖ 0 ‖ publicKey)`, in lower-case hex.
    instance_id: String,
    /// The Ed25519 public key of this market in lower-case hex. It never changes.
    public_key: String,
}

/// Where the credits are and whether anything is stuck.
#[derive(SimpleObject)]
pub(super) struct EconomicHealth {
    /// Whether the newest audit of the books found every invariant kept; null before the first one.
    books_in_order: Option<bool>,
    /// All credits that came in and did not go out again.
    credits_in_circulation: SignedCredits,
    /// Credits that users can spend.
    credits_in_wallets: SignedCredits,
    /// Credits set aside: for tasks that are not settled, in streaming channels, behind bids.
    credits_in_escrow: SignedCredits,
    /// Credits that agents earned and their owners did not withdraw.
    credits_of_agents: SignedCredits,
    /// Credits that the platform took as fees.
    fees: SignedCredits,
    /// Auctions that take bids or wait for their award.
    open_auctions: BigInt,
    /// Channels that hold a deposit.
    open_channels: BigInt,
    /// Tasks that are not over.
    unsettled_tasks: BigInt,
    /// Tasks, auctions and streaming channels whose deadline passed and that the sweeper has not finished yet; for more than moments, something is wrong.
    overdue: BigInt,
}

/// How many tasks are in a state.
#[derive(SimpleObject)]
pub(super) struct TaskStatusCount {
    /// The state.
    status: TaskStatus,
    /// How many.
    count: BigInt,
}

/// How the market does.
#[derive(SimpleObject)]
pub(super) struct MarketStats {
    /// Registered users.
    users: BigInt,
    /// Agents that take work.
    active_agents: BigInt,
    /// Auctions that take bids or wait for their award.
    open_auctions: BigInt,
    /// Bids ever made.
    bids: BigInt,
    /// Tasks by state, every state.
    tasks: Vec<TaskStatusCount>,
    /// The share of settled work that was accepted; null while nothing is settled.
    success_rate: Option<Percentage>,
    /// What was paid for accepted work, all time.
    volume: SignedCredits,
    /// The mean price of accepted work, rounded down; null while there is none.
    average_price: Option<SignedCredits>,
}

/// One invariant of the books.
#[derive(SimpleObject)]
pub(super) struct LedgerCheck {
    /// The short name, for example `L1`.
    name: &'static str,
    /// What must hold.
    statement: &'static str,
    /// How many rows break it.
    violations: BigInt,
}

/// The market's signature over its journal, the chain of hashes of all transfers up to a place. Keep it: what it covers can never
/// be changed without your seeing it. `docs/ledger.md` says how to check it.
#[derive(SimpleObject)]
pub(super) struct JournalHead {
    /// The newest place that it covers; 0 over an empty journal.
    place: BigInt,
    /// The hash of the line at that place, in lower-case hex.
    hash: String,
    /// The Ed25519 signature, in lower-case hex.
    signature: String,
    /// The public key of the market, in lower-case hex.
    public_key: String,
    /// What the market's signed messages name it by, in lower-case hex.
    instance_id: String,
    /// When it was signed.
    signed_at: DateTime,
}

async fn journal_head(ctx: &Context<'_>) -> Result<Option<JournalHead>> {
    let instance = ctx.store().instance()?;
    let head = journal::head(ctx.loaders().db()).await?;
    Ok(head.map(|head| JournalHead {
        place: BigInt(head.place),
        hash: head.hash,
        signature: head.signature,
        public_key: hex::encode(instance.public_key()),
        instance_id: hex::encode(instance.id()),
        signed_at: DateTime(head.created_at),
    }))
}

/// An audit of the books.
#[derive(SimpleObject)]
pub(super) struct LedgerAudit {
    /// Whether every invariant holds.
    ok: bool,
    /// Whether all of the books were read, or only what moved since the last clean audit.
    full: bool,
    /// How many rows break an invariant, over all of them.
    violations: BigInt,
    /// The invariants.
    checks: Vec<LedgerCheck>,
    /// The newest head of the sealed journal; null before the first one.
    head: Option<JournalHead>,
}

impl From<Check> for LedgerCheck {
    fn from(check: Check) -> Self {
        Self { name: check.name, statement: check.statement, violations: big(check.violations) }
    }
}

impl LedgerAudit {
    fn new(audit: Audit, head: Option<JournalHead>) -> Self {
        Self {
            ok: audit.ok(),
            full: audit.whole,
            violations: big(audit.violations()),
            checks: audit.checks.into_iter().map(LedgerCheck::from).collect(),
            head,
        }
    }
}

fn big(number: impl TryInto<i64>) -> BigInt {
    BigInt(number.try_into().unwrap_or(i64::MAX))
}

/// The whole numbers of a statement's rows by the text in their first column.
async fn numbers(store: &Store, sql: &str) -> Result<HashMap<String, i64>> {
    let rows = store.read().query_all_raw(Statement::from_string(store.backend(), sql)).await?;
    rows.iter().map(|row| Ok((row.try_get_by_index(0)?, row.try_get_by_index(1)?))).collect()
}

fn number(numbers: &HashMap<String, i64>, name: &str) -> i64 {
    numbers.get(name).copied().unwrap_or(0)
}

/// What the caller's requests may still cost, in points.
#[derive(SimpleObject)]
pub(super) struct RateLimit {
    /// Points that can be spent at once.
    limit: BigInt,
    /// Points that are left, those of this request taken off. What it did not need is put back when it is answered.
    remaining: BigInt,
    /// What this request was reckoned to cost at most.
    reckoned: BigInt,
    /// When all points are there again if nothing is spent until then.
    reset_at: DateTime,
}

impl From<Budget> for RateLimit {
    fn from(budget: Budget) -> Self {
        let points = |points: u64| BigInt(i64::try_from(points).unwrap_or(i64::MAX));
        Self {
            limit: points(budget.limit),
            remaining: points(budget.remaining),
            reckoned: points(budget.reckoned),
            reset_at: DateTime(budget.reset_at),
        }
    }
}

fn service_info(ctx: &Context<'_>) -> Result<ServiceInfo> {
    let (terms, instance) = (ctx.store().terms(), ctx.store().instance()?);
    Ok(ServiceInfo {
        name: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        now: DateTime(ctx.now()),
        fee: Percentage(terms.fee_bps.into()),
        max_amount: Credits(MAX_AMOUNT),
        max_input_bytes: big(terms.max_input_bytes),
        max_module_bytes: big(terms.max_module_bytes),
        max_auction_duration: Duration(terms.max_auction),
        default_timeout: Duration(terms.run_timeout),
        max_timeout: Duration(terms.max_run_timeout),
        max_bids: terms.max_bids,
        max_page_size: MAX_PAGE,
        instance_id: hex::encode(instance.id()),
        public_key: hex::encode(instance.public_key()),
    })
}

async fn economic_health(ctx: &Context<'_>) -> Result<EconomicHealth> {
    let store = ctx.store();
    let by_kind = "SELECT kind, CAST(SUM(balance) AS BIGINT) FROM accounts GROUP BY kind";
    let balances = numbers(store, by_kind).await?;
    let now = ctx.now().micros();
    let counts = format!(
        "SELECT 'auctions', COUNT(*) FROM auctions WHERE status IN ('OPEN', 'REVEALING') \
         UNION ALL SELECT 'channels', COUNT(*) FROM channels WHERE status <> 'CLOSED' \
         UNION ALL SELECT 'tasks', COUNT(*) FROM tasks WHERE deadline_at IS NOT NULL \
         UNION ALL SELECT 'late tasks', COUNT(*) FROM tasks WHERE deadline_at <= {now} \
         UNION ALL SELECT 'late auctions', COUNT(*) FROM auctions WHERE deadline_at <= {now} \
         UNION ALL SELECT 'late channels', COUNT(*) FROM channels \
         WHERE purpose = 'STREAM' AND status <> 'CLOSED' AND COALESCE(close_at, expires_at) <= {now}"
    );
    let counts = numbers(store, &counts).await?;
    let held = |kind: account::Kind| number(&balances, kind.name());
    let in_escrow =
        [account::Kind::EscrowTask, account::Kind::EscrowChannel, account::Kind::EscrowDelegation, account::Kind::Bond]
            .into_iter()
            .fold(0_i64, |sum, kind| sum.saturating_add(held(kind)));
    Ok(EconomicHealth {
        books_in_order: ctx.app().last_audit().map(|audit| audit.ok()),
        credits_in_circulation: SignedCredits(held(account::Kind::External).saturating_neg()),
        credits_in_wallets: SignedCredits(held(account::Kind::User)),
        credits_in_escrow: SignedCredits(in_escrow),
        credits_of_agents: SignedCredits(held(account::Kind::Agent)),
        fees: SignedCredits(held(account::Kind::Fees)),
        open_auctions: BigInt(number(&counts, "auctions")),
        open_channels: BigInt(number(&counts, "channels")),
        unsettled_tasks: BigInt(number(&counts, "tasks")),
        overdue: BigInt(
            ["late tasks", "late auctions", "late channels"]
                .into_iter()
                .fold(0, |late, name| number(&counts, name).saturating_add(late)),
        ),
    })
}

async fn market_stats(ctx: &Context<'_>) -> Result<MarketStats> {
    let store = ctx.store();
    let by_status = numbers(store, "SELECT status, COUNT(*) FROM tasks GROUP BY status").await?;
    let counts = numbers(
        store,
        "SELECT 'users', COUNT(*) FROM users \
         UNION ALL SELECT 'agents', COUNT(*) FROM agents WHERE status = 'ACTIVE' \
         UNION ALL SELECT 'auctions', COUNT(*) FROM auctions WHERE status IN ('OPEN', 'REVEALING') \
         UNION ALL SELECT 'bids', COUNT(*) FROM bids \
         UNION ALL SELECT 'volume', CAST(COALESCE(SUM(paid), 0) AS BIGINT) FROM tasks WHERE status = 'COMPLETED'",
    )
    .await?;
    let of = |status: task::Status| number(&by_status, status.name());
    let (completed, refunded) = (of(task::Status::Completed), of(task::Status::Refunded));
    let volume = number(&counts, "volume");
    let share = completed.saturating_mul(10_000).checked_div(completed.saturating_add(refunded));
    Ok(MarketStats {
        users: BigInt(number(&counts, "users")),
        active_agents: BigInt(number(&counts, "agents")),
        open_auctions: BigInt(number(&counts, "auctions")),
        bids: BigInt(number(&counts, "bids")),
        tasks: task::Status::iter()
            .map(|status| TaskStatusCount { status: status.into(), count: BigInt(of(status)) })
            .collect(),
        success_rate: share.and_then(|share| i32::try_from(share).ok()).map(Percentage),
        volume: SignedCredits(volume),
        average_price: volume.checked_div(completed).map(SignedCredits),
    })
}

#[derive(Default)]
pub(super) struct SystemQuery;

#[Object]
impl SystemQuery {
    /// Anything by its id; null when there is no such thing, or it is not yours to see.
    #[graphql(complexity = "1 + child_complexity")]
    async fn node(&self, ctx: &Context<'_>, #[graphql(desc = "The id of anything.")] id: ID) -> Option<Answer<Node>> {
        maybe(ctx, find(ctx, &id, "id")).await
    }

    /// Many things by their ids, in the order of the ids; null in the place of what does not exist or is not yours to see.
    #[graphql(complexity = "1 + ids.len() * child_complexity")]
    async fn nodes(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The ids; at most 100.")] ids: Vec<ID>,
    ) -> Option<Answer<Vec<Option<Node>>>> {
        maybe(ctx, async {
            if i32::try_from(ids.len()).is_ok_and(|asked| asked <= MAX_PAGE) {
                let found = ids.iter().map(|id| find(ctx, id, "ids"));
                return Ok(Some(try_join_all(found).await?));
            }
            Err(Error::invalid("ids", format!("must be at most {MAX_PAGE}")))
        })
        .await
    }

    /// What the service is and what it takes.
    async fn service_info(&self, ctx: &Context<'_>) -> Option<Answer<ServiceInfo>> {
        maybe(ctx, async { service_info(ctx).map(Some) }).await
    }

    /// What requests of yours may still cost; null where nobody is limited.
    async fn rate_limit(&self, ctx: &Context<'_>) -> Option<RateLimit> {
        ctx.budget().map(RateLimit::from)
    }

    /// Where the credits are and whether anything is stuck.
    #[graphql(complexity = "50 + child_complexity")]
    async fn economic_health(&self, ctx: &Context<'_>) -> Option<Answer<EconomicHealth>> {
        maybe(ctx, async { economic_health(ctx).await.map(Some) }).await
    }

    /// How the market does.
    #[graphql(complexity = "50 + child_complexity")]
    async fn market_stats(&self, ctx: &Context<'_>) -> Option<Answer<MarketStats>> {
        maybe(ctx, async { market_stats(ctx).await.map(Some) }).await
    }

    /// The newest head of the sealed journal, for everybody to keep; null before the first one.
    async fn journal_head(&self, ctx: &Context<'_>) -> Option<Answer<JournalHead>> {
        maybe(ctx, journal_head(ctx)).await
    }

    /// Audits the books now: every invariant of the ledger. A violation stops all movements of credits; a full audit without one
    /// lets them go on. For administrators.
    #[graphql(complexity = "500 + child_complexity", directive = requires::apply(scopes("ledgerAudit"), role("ledgerAudit")))]
    async fn ledger_audit(
        &self,
        ctx: &Context<'_>,
        #[graphql(
            desc = "Whether to read all of the books, or only what moved since the last clean audit.",
            default = true
        )]
        full: bool,
    ) -> Option<Answer<LedgerAudit>> {
        maybe(ctx, async {
            ctx.caller().admin()?;
            let audit = if full { ctx.app().audit().await? } else { ctx.app().audit_recent().await? };
            Ok(Some(LedgerAudit::new(audit, journal_head(ctx).await?)))
        })
        .await
    }
}
