//! Loading in batches: however many objects of a request need a row, they need one statement.
//!
//! A [`Batch`] collects keys and asks once. Its first caller leads: it yields to the scheduler until that brings no more keys, which
//! lets every other resolver that can run now name its key too, and then asks for all of them. There is no timer and no other task,
//! so a level of the answer costs one statement whatever the load of the machine. Nothing is remembered between batches: a mutation later in
//! the request, and every event of a subscription, sees fresh rows.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use entity::{
    account, agent, agent_module, auction, bid, bond, channel, channel_change, commitment, delegation, dispute,
    document, equivocation,
    id::{
        AccountId, AgentId, AuctionId, BidId, BondId, ChannelId, DelegationId, DisputeId, ModuleId, TaskId, TransferId,
        UserId,
    },
    rating, reputation, reputation_event, task, task_result, transfer, user,
};
use futures_util::{FutureExt, future::BoxFuture};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseConnection, EntityTrait, ExprTrait, JoinType, QueryFilter, QuerySelect,
    sea_query::{Alias, Expr, Query, SelectStatement},
};
use tokio::sync::oneshot;

use super::{
    auction::BidOrder,
    error::Reported,
    page::{Page, Window},
};
use crate::{
    app::App,
    auction::page::{Pages, Shown},
    error::{Error, Result},
    reputation::{Standing, standings},
    store::{Store, padded},
};

/// Whoever waits for the value of a key.
type Waiting<K, V> = Vec<(K, oneshot::Sender<Result<Option<V>>>)>;

/// The keys that are asked for together.
pub(super) struct Batch<K, V>(Mutex<Waiting<K, V>>);

impl<K, V> Default for Batch<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// Sends the waiting callers away when their leader is dropped before it asked: they elect another one.
struct Lead<'a, K, V>(Option<&'a Batch<K, V>>);

impl<K, V> Drop for Lead<'_, K, V> {
    fn drop(&mut self) {
        if let Some(batch) = self.0 {
            batch.waiting().clear();
        }
    }
}

impl<K, V> Batch<K, V> {
    fn waiting(&self) -> MutexGuard<'_, Waiting<K, V>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Clone + Eq + Hash, V: Clone> Batch<K, V> {
    /// The value of `key`. `fetch` is called by one caller for the keys of all.
    pub(super) async fn load<'f>(
        &self,
        key: K,
        fetch: impl Fn(Vec<K>) -> BoxFuture<'f, Result<HashMap<K, V>>>,
    ) -> Result<Option<V>> {
        loop {
            let (sender, receiver) = oneshot::channel();
            let leads = {
                let mut waiting = self.waiting();
                waiting.push((key.clone(), sender));
                waiting.len() == 1
            };
            if leads {
                let mut lead = Lead(Some(self));
                let mut known = 0;
                // The scheduler lets a task do only so much in one go, so those who can name their key may need more than one.
                loop {
                    tokio::task::yield_now().await;
                    let now = self.waiting().len();
                    if now == known {
                        break;
                    }
                    known = now;
                }
                let waiting = std::mem::take(&mut *self.waiting());
                lead.0 = None;
                let keys: HashSet<K> = waiting.iter().map(|(key, _)| key.clone()).collect();
                match fetch(keys.into_iter().collect()).await {
                    // A receiver that is gone belongs to a field that nobody waits for any more.
                    Ok(found) => {
                        for (key, sender) in waiting {
                            let _ = sender.send(Ok(found.get(&key).cloned()));
                        }
                    }
                    Err(error) => {
                        for (_, sender) in waiting {
                            let _ = sender.send(Err(Error::internal(Reported)));
                        }
                        return Err(error);
                    }
                }
            }
            if let Ok(found) = receiver.await {
                return found;
            }
        }
    }
}

/// A counting statement, compared by identity.
#[derive(Clone)]
struct Counting(Arc<SelectStatement>);

impl PartialEq for Counting {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Counting {}

impl Hash for Counting {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

/// All loaders of one request.
pub(super) struct Loaders {
    store: Store,
    replica: Option<DatabaseConnection>,
    /// What goes beyond this request.
    together: Pages,
    users: Batch<UserId, user::Model>,
    agents: Batch<AgentId, agent::Model>,
    auctions: Batch<AuctionId, auction::Model>,
    tasks: Batch<TaskId, task::Model>,
    channels: Batch<ChannelId, channel::Model>,
    bids: Batch<BidId, bid::Model>,
    modules: Batch<ModuleId, agent_module::Model>,
    accounts: Batch<AccountId, account::Model>,
    transfers: Batch<TransferId, transfer::Model>,
    reputations: Batch<AgentId, reputation::Model>,
    auctions_of_tasks: Batch<TaskId, auction::Model>,
    results: Batch<TaskId, task_result::Model>,
    ratings: Batch<TaskId, rating::Model>,
    disputes: Batch<DisputeId, dispute::Model>,
    delegations: Batch<DelegationId, delegation::Model>,
    disputes_of_tasks: Batch<TaskId, dispute::Model>,
    documents: Batch<(TaskId, document::Kind), document::Model>,
    candidates: Batch<AuctionId, Arc<Vec<bid::Model>>>,
    standings: Batch<AgentId, Standing>,
    counts: Batch<Counting, i64>,
    agents_of_users: Batch<(UserId, Window), Page<agent::Model>>,
    evidence_of_agents: Batch<(AgentId, Window), Page<reputation_event::Model>>,
    bids_of_auctions: Batch<(AuctionId, BidList), Page<bid::Model>>,
    bonds: Batch<BondId, bond::Model>,
    commitments_of_auctions: Batch<(AuctionId, CommitmentList), Page<commitment::Model>>,
    tasks_together: Batch<(UserId, UserId), i64>,
    changes_of_channels: Batch<(ChannelId, Window), Page<channel_change::Model>>,
    equivocations_of_channels: Batch<(ChannelId, Window), Page<equivocation::Model>>,
}

/// Which commitments of an auction: of one bidder or all, from where to where.
type CommitmentList = (Option<UserId>, Window);

/// Which bids of an auction: of one bidder or all, in which order, from where to where.
type BidList = (Option<UserId>, BidOrder, Window);

/// Declares loaders of rows by a unique column.
macro_rules! by_column {
    ($($name:ident: $noun:ident by $key:ty = $column:ident, $field:ident;)+) => {$(
        pub(super) async fn $name(&self, key: $key) -> Result<Option<$noun::Model>> {
            self.$name
                .load(key, |keys| {
                    async move {
                        let chosen = $noun::Column::$column.is_in(padded(keys.iter().copied()));
                        let rows = $noun::Entity::find().filter(chosen).all(self.db()).await?;
                        Ok(rows.into_iter().map(|row| (row.$field, row)).collect())
                    }
                    .boxed()
                })
                .await
        }
    )+};
}

impl Loaders {
    /// Loaders that read from the replica if there is one that keeps up and the caller of this allows it.
    pub(super) fn new(app: &App, from_replica: bool) -> Self {
        let (store, together) = (app.store().clone(), app.pages().clone());
        let replica = from_replica.then(|| store.replica().cloned()).flatten();
        Self {
            store,
            replica,
            together,
            users: Batch::default(),
            agents: Batch::default(),
            auctions: Batch::default(),
            tasks: Batch::default(),
            channels: Batch::default(),
            bids: Batch::default(),
            modules: Batch::default(),
            accounts: Batch::default(),
            transfers: Batch::default(),
            reputations: Batch::default(),
            auctions_of_tasks: Batch::default(),
            results: Batch::default(),
            ratings: Batch::default(),
            disputes: Batch::default(),
            delegations: Batch::default(),
            disputes_of_tasks: Batch::default(),
            documents: Batch::default(),
            candidates: Batch::default(),
            standings: Batch::default(),
            counts: Batch::default(),
            agents_of_users: Batch::default(),
            evidence_of_agents: Batch::default(),
            bids_of_auctions: Batch::default(),
            bonds: Batch::default(),
            commitments_of_auctions: Batch::default(),
            tasks_together: Batch::default(),
            changes_of_channels: Batch::default(),
            equivocations_of_channels: Batch::default(),
        }
    }

    /// Where this request reads.
    pub(super) fn db(&self) -> &DatabaseConnection {
        self.replica.as_ref().unwrap_or_else(|| self.store.read())
    }

    /// Whether this request reads from the replica.
    pub(super) fn reads_replica(&self) -> bool {
        self.replica.is_some()
    }

    by_column! {
        users: user by UserId = Id, id;
        agents: agent by AgentId = Id, id;
        auctions: auction by AuctionId = Id, id;
        tasks: task by TaskId = Id, id;
        channels: channel by ChannelId = Id, id;
        bids: bid by BidId = Id, id;
        bonds: bond by BondId = Id, id;
        modules: agent_module by ModuleId = Id, id;
        accounts: account by AccountId = Id, id;
        transfers: transfer by TransferId = Id, id;
        reputations: reputation by AgentId = AgentId, agent_id;
        auctions_of_tasks: auction by TaskId = TaskId, task_id;
        results: task_result by TaskId = TaskId, task_id;
        ratings: rating by TaskId = TaskId, task_id;
        disputes: dispute by DisputeId = Id, id;
        delegations: delegation by DelegationId = Id, id;
        disputes_of_tasks: dispute by TaskId = TaskId, task_id;
    }

    /// The bids of an auction that can be its best: all live ones while it is open, and the one that was ranked first after the
    /// close.
    pub(super) async fn candidates(&self, auction: AuctionId) -> Result<Arc<Vec<bid::Model>>> {
        let found = self
            .candidates
            .load(auction, |auctions| {
                async move {
                    let live = bid::Column::Status.eq(bid::Status::Active).or(bid::Column::Rank.eq(1));
                    let rows = bid::Entity::find()
                        .filter(bid::Column::AuctionId.is_in(padded(auctions.iter().copied())))
                        .filter(live)
                        .all(self.db())
                        .await?;
                    let mut grouped: HashMap<AuctionId, Vec<bid::Model>> = HashMap::new();
                    for row in rows {
                        grouped.entry(row.auction_id).or_default().push(row);
                    }
                    Ok(grouped.into_iter().map(|(auction, bids)| (auction, Arc::new(bids))).collect())
                }
                .boxed()
            })
            .await?;
        Ok(found.unwrap_or_default())
    }

    /// The newest document of a kind about a task.
    pub(super) async fn documents(&self, task: TaskId, kind: document::Kind) -> Result<Option<document::Model>> {
        self.documents
            .load((task, kind), |keys| {
                async move {
                    let mut newest = HashMap::new();
                    for (kind, tasks) in grouped(keys) {
                        let later = Alias::new("later");
                        let last = Query::select()
                            .expr(Expr::col((later.clone(), document::Column::Version)).max())
                            .from_as(document::Entity, later.clone())
                            .and_where(
                                Expr::col((later.clone(), document::Column::TaskId))
                                    .equals((document::Entity, document::Column::TaskId)),
                            )
                            .and_where(Expr::col((later, document::Column::Kind)).eq(kind))
                            .to_owned();
                        let rows = document::Entity::find()
                            .filter(document::Column::TaskId.is_in(padded(tasks.iter().copied())))
                            .filter(document::Column::Kind.eq(kind))
                            .filter(document::Column::Version.in_subquery(last))
                            .all(self.db())
                            .await?;
                        newest.extend(rows.into_iter().map(|row| ((row.task_id, row.kind), row)));
                    }
                    Ok(newest)
                }
                .boxed()
            })
            .await
    }

    /// The present reputation of an agent.
    pub(super) async fn standings(&self, agent: AgentId) -> Result<Standing> {
        let found = self
            .standings
            .load(agent, |agents| async move { standings(self.db(), &agents, self.store.clock().now()).await }.boxed())
            .await?;
        found.ok_or(Error::NotFound("agent"))
    }

    /// A page of a user's agents, newest first.
    pub(super) async fn agents_of_users(&self, user: UserId, window: Window) -> Result<Page<agent::Model>> {
        let found = self
            .agents_of_users
            .load((user, window), |keys| {
                async move {
                    let mut pages = HashMap::new();
                    for (window, users) in grouped(keys) {
                        let (list, parent) = (agent::Entity::find(), agent::Column::OwnerId);
                        let found = window
                            .read_each(self.db(), list, &super::agent::NEWEST, parent, &users, |row| row.owner_id)
                            .await?;
                        pages.extend(users.into_iter().map(|user| (user, window)).zip(found));
                    }
                    Ok(pages)
                }
                .boxed()
            })
            .await?;
        Ok(found.unwrap_or_default())
    }

    /// A page of the evidence about an agent, newest first.
    pub(super) async fn evidence_of_agents(
        &self,
        agent: AgentId,
        window: Window,
    ) -> Result<Page<reputation_event::Model>> {
        let found = self
            .evidence_of_agents
            .load((agent, window), |keys| {
                async move {
                    let mut pages = HashMap::new();
                    for (window, agents) in grouped(keys) {
                        let (list, parent) = (reputation_event::Entity::find(), reputation_event::Column::AgentId);
                        let sort = super::reputation::NEWEST;
                        let found =
                            window.read_each(self.db(), list, &sort, parent, &agents, |row| row.agent_id).await?;
                        pages.extend(agents.into_iter().map(|agent| (agent, window)).zip(found));
                    }
                    Ok(pages)
                }
                .boxed()
            })
            .await?;
        Ok(found.unwrap_or_default())
    }

    /// An auction with its first bids and their agents.
    pub(super) async fn page(&self, auction: AuctionId, most: u64) -> Result<Option<Shown>> {
        self.together.page(self.db(), self.reads_replica(), auction, most).await
    }

    /// A page of an auction's bids; of one bidder alone, or all.
    pub(super) async fn bids_of_auctions(
        &self,
        auction: AuctionId,
        bidder: Option<UserId>,
        order: BidOrder,
        window: Window,
    ) -> Result<Page<bid::Model>> {
        let found = self
            .bids_of_auctions
            .load((auction, (bidder, order, window)), |keys| {
                async move {
                    let mut pages = HashMap::new();
                    for (which, auctions) in grouped(keys) {
                        let (bidder, order, window) = which;
                        let mut list = bid::Entity::find();
                        if let Some(bidder) = bidder {
                            list = list.filter(bid::Column::BidderId.eq(bidder));
                        }
                        let (sort, parent) = (order.sort(), bid::Column::AuctionId);
                        let found =
                            window.read_each(self.db(), list, &sort, parent, &auctions, |row| row.auction_id).await?;
                        pages.extend(auctions.into_iter().map(|auction| (auction, which)).zip(found));
                    }
                    Ok(pages)
                }
                .boxed()
            })
            .await?;
        Ok(found.unwrap_or_default())
    }

    /// A page of an auction's commitments; of one bidder alone, or all.
    pub(super) async fn commitments_of_auctions(
        &self,
        auction: AuctionId,
        bidder: Option<UserId>,
        window: Window,
    ) -> Result<Page<commitment::Model>> {
        let found = self
            .commitments_of_auctions
            .load((auction, (bidder, window)), |keys| {
                async move {
                    let mut pages = HashMap::new();
                    for (which, auctions) in grouped(keys) {
                        let (bidder, window) = which;
                        let mut list = commitment::Entity::find();
                        if let Some(bidder) = bidder {
                            list = list.filter(commitment::Column::BidderId.eq(bidder));
                        }
                        let parent = commitment::Column::AuctionId;
                        let sort = super::auction::COMMITMENTS;
                        let found =
                            window.read_each(self.db(), list, &sort, parent, &auctions, |row| row.auction_id).await?;
                        pages.extend(auctions.into_iter().map(|auction| (auction, which)).zip(found));
                    }
                    Ok(pages)
                }
                .boxed()
            })
            .await?;
        Ok(found.unwrap_or_default())
    }

    /// How many tasks of the first user agents of the second one have settled, paid or not; `None` for none.
    pub(super) async fn tasks_together(&self, pair: (UserId, UserId)) -> Result<Option<i64>> {
        self.tasks_together
            .load(pair, |pairs| {
                async move {
                    let requesters: Vec<UserId> = pairs.iter().map(|(requester, _)| *requester).collect();
                    let owners: Vec<UserId> = pairs.iter().map(|(_, owner)| *owner).collect();
                    let owner = Expr::col((agent::Entity, agent::Column::OwnerId));
                    let rows: Vec<(UserId, UserId, i64)> = task::Entity::find()
                        .select_only()
                        .column(task::Column::RequesterId)
                        .column_as(owner.clone(), "owner")
                        .column_as(task::Column::Id.count(), "together")
                        .join(
                            JoinType::InnerJoin,
                            task::Entity::belongs_to(agent::Entity)
                                .from(task::Column::AgentId)
                                .to(agent::Column::Id)
                                .into(),
                        )
                        .filter(task::Column::RequesterId.is_in(padded(requesters.iter().copied())))
                        .filter(owner.clone().is_in(padded(owners.iter().copied())))
                        .filter(task::Column::Status.is_in([task::Status::Completed, task::Status::Refunded]))
                        .group_by(task::Column::RequesterId)
                        .group_by(owner)
                        .into_tuple()
                        .all(self.db())
                        .await?;
                    Ok(rows.into_iter().map(|(requester, owner, count)| ((requester, owner), count)).collect())
                }
                .boxed()
            })
            .await
    }

    /// A page of the history of a channel, newest first.
    pub(super) async fn changes_of_channels(
        &self,
        channel: ChannelId,
        window: Window,
    ) -> Result<Page<channel_change::Model>> {
        let found = self
            .changes_of_channels
            .load((channel, window), |keys| {
                async move {
                    let mut pages = HashMap::new();
                    for (window, channels) in grouped(keys) {
                        let (list, parent) = (channel_change::Entity::find(), channel_change::Column::ChannelId);
                        let sort = super::channel::NEWEST_CHANGE;
                        let found =
                            window.read_each(self.db(), list, &sort, parent, &channels, |row| row.channel_id).await?;
                        pages.extend(channels.into_iter().map(|channel| (channel, window)).zip(found));
                    }
                    Ok(pages)
                }
                .boxed()
            })
            .await?;
        Ok(found.unwrap_or_default())
    }

    /// A page of the contradictions that the payer of a channel signed, newest first.
    pub(super) async fn equivocations_of_channels(
        &self,
        channel: ChannelId,
        window: Window,
    ) -> Result<Page<equivocation::Model>> {
        let found = self
            .equivocations_of_channels
            .load((channel, window), |keys| {
                async move {
                    let mut pages = HashMap::new();
                    for (window, channels) in grouped(keys) {
                        let (list, parent) = (equivocation::Entity::find(), equivocation::Column::ChannelId);
                        let sort = super::channel::NEWEST_EQUIVOCATION;
                        let found =
                            window.read_each(self.db(), list, &sort, parent, &channels, |row| row.channel_id).await?;
                        pages.extend(channels.into_iter().map(|channel| (channel, window)).zip(found));
                    }
                    Ok(pages)
                }
                .boxed()
            })
            .await?;
        Ok(found.unwrap_or_default())
    }

    /// The number that a counting statement answers. All counts that a level of the answer needs are one statement.
    pub(super) async fn counts(&self, statement: Arc<SelectStatement>) -> Result<i64> {
        let found = self
            .counts
            .load(Counting(statement), |statements| {
                async move {
                    let mut all = Query::select();
                    for (place, counting) in statements.iter().enumerate() {
                        all.expr_as(SelectStatement::clone(&counting.0), Alias::new(format!("c{place}")));
                    }
                    let row = self.db().query_one(&all).await?;
                    let row = row.ok_or_else(|| Error::internal("a count answered no row"))?;
                    let numbered = statements.into_iter().enumerate();
                    numbered.map(|(place, counting)| Ok((counting, row.try_get("", &format!("c{place}"))?))).collect()
                }
                .boxed()
            })
            .await?;
        Ok(found.unwrap_or_default())
    }
}

/// Parents by the part of their lists that is asked for; in one query it is mostly the same part of all.
fn grouped<P, W: Eq + Hash>(keys: Vec<(P, W)>) -> HashMap<W, Vec<P>> {
    let mut groups: HashMap<W, Vec<P>> = HashMap::new();
    for (parent, which) in keys {
        groups.entry(which).or_default().push(parent);
    }
    groups
}
