//! Sellers of work: their registration, their price, their module, and how buyers find them.
//!
//! ```text
//! register ─► ACTIVE ◄─ resume / pause ─► PAUSED
//!               └──────── retire ─► RETIRED ◄┘   (for good; the history stays)
//! ```
//!
//! A hosted agent bids by itself once it has a module; an external one bids and works through the API with a key of its
//! owner's.
//!
//! What must always hold: an agent's name is unique among its owner's agents; its least price is at most its price; it has at
//! least one capability, and `agent_capabilities` says the same as its row; only hosted agents have modules, and the module
//! in use is one of their own; a retired agent never changes again. `score` is a copy that `reputation` keeps; it does not
//! count as a change of the agent, so `version` moves with its owner's changes alone. Neither do `in_work` and `last_seen_at`: the
//! first is moved by awards and by the ends of work, in their own units of work, and never passes the capacity by an award.
//!
//! Somebody else's agent looks to every verb as if it did not exist.

pub mod modules;
pub mod rules;

#[cfg(test)]
pub(crate) mod tests;

use std::time::Duration;

use entity::{
    agent::{self, Model, Runtime, Status},
    agent_capability, agent_module,
    id::{AgentId, ModuleId, UserId},
    money::Amount,
    text::Words,
};
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, Condition, ConnectionTrait, DbErr, EntityTrait, IntoActiveModel,
    Iterable, ModelTrait, Order, PaginatorTrait, QueryFilter, QueryOrder, QuerySelect, QueryTrait, Select, SqlErr,
    prelude::Expr, sea_query::ExprTrait,
};

use crate::{
    caller::{Caller, Scope},
    error::{Error, Result},
    store::{Store, Work, insert_all},
};

pub use rules::{AgentRefused, Step};

/// How often an agent that is heard of all the time is remembered to be.
const SEEN_EVERY: Duration = Duration::from_secs(15);
/// The score of an agent without evidence, in milli-points. `reputation` says why and overwrites it with the first evidence.
pub const STARTING_SCORE: i32 = 42_500;

/// What a new agent is.
#[derive(Clone, Debug)]
pub struct NewAgent {
    /// Unique among the owner's agents.
    pub name: String,
    pub description: String,
    /// At least one; see [`normalise_capabilities`].
    pub capabilities: Vec<String>,
    pub runtime: Runtime,
    /// What it asks when it bids by itself.
    pub price: Amount,
    /// The least that it works for; the price when empty.
    pub min_price: Option<Amount>,
    /// How long it promises to need at most.
    pub promised: Option<Duration>,
    /// The Ed25519 public key in lower-case hex with which it signs cooperative closes.
    pub public_key: Option<String>,
    /// How many tasks it does at once; see [`rules::usual_capacity`] when empty.
    pub capacity: Option<i32>,
    /// What it charges for a million units of fuel, for a hosted agent; its price is then the most that a task can cost.
    pub fuel_price: Option<Amount>,
}

/// What of an agent changes; what is empty stays.
#[derive(Clone, Debug, Default)]
pub struct AgentChange {
    pub name: Option<String>,
    pub description: Option<String>,
    pub capabilities: Option<Vec<String>>,
    pub price: Option<Amount>,
    /// A least price that was the price follows it when this is empty.
    pub min_price: Option<Amount>,
    pub promised: Option<Duration>,
    pub public_key: Option<String>,
    pub capacity: Option<i32>,
    /// The price of a million units of fuel, or none from now on.
    pub fuel_price: Option<Option<Amount>>,
    /// The version that the caller read; the change is refused when there is a newer one.
    pub expected_version: Option<i32>,
}

/// Registers an agent of the caller's. A key that is bound to one agent cannot make another.
pub async fn register(work: &mut Work, new: NewAgent) -> Result<Model> {
    let owner = work.caller().with_scope(Scope::AgentsWrite)?;
    if work.caller().identity()?.key.as_ref().is_some_and(|key| key.agent.is_some()) {
        return Err(Error::Forbidden("This API key acts for one agent and cannot register another."));
    }
    let name = rules::name(&new.name)?;
    let description = rules::description(&new.description)?;
    let capabilities = rules::capabilities(new.capabilities, true)?;
    let price = rules::price(new.price)?;
    let min_price = rules::min_price(new.min_price.unwrap_or(price), price)?;
    let promised_ms = new.promised.map(rules::promised_ms).transpose()?;
    let public_key = new.public_key.map(rules::public_key).transpose()?;
    let capacity = new.capacity.map(rules::capacity).transpose()?.or_else(|| rules::usual_capacity(new.runtime));
    let fuel_price = rules::fuel_price(new.runtime, new.fuel_price)?;
    if is_taken(work, owner, &name).await? {
        return Err(AgentRefused::AgentNameTaken.into());
    }

    let now = work.now();
    let agent = Model {
        id: work.fresh(),
        owner_id: owner,
        name,
        description,
        capabilities,
        runtime: new.runtime,
        status: Status::Active,
        price,
        min_price,
        promised_ms,
        module_id: None,
        score: STARTING_SCORE,
        last_seen_at: None,
        version: 1,
        created_at: now,
        updated_at: now,
        public_key,
        capacity,
        in_work: 0,
        fuel_price,
        webhook_url: None,
        webhook_generation: 0,
    };
    let row = agent.clone().into_active_model().reset_all();
    agent::Entity::insert(row).exec_without_returning(work.tx()).await.map_err(name_taken)?;
    list_capabilities(work, &agent).await?;
    Ok(agent)
}

/// Changes an agent of the caller's. A change to what is already so writes nothing.
pub async fn update(work: &mut Work, id: AgentId, change: AgentChange) -> Result<Model> {
    let old = lock_own(work, id).await?;
    rules::may_change(&old, change.expected_version)?;
    let mut agent = old.clone();
    if let Some(name) = change.name {
        agent.name = rules::name(&name)?;
    }
    if let Some(description) = change.description {
        agent.description = rules::description(&description)?;
    }
    if let Some(capabilities) = change.capabilities {
        agent.capabilities = rules::capabilities(capabilities, true)?;
    }
    if let Some(price) = change.price {
        agent.price = rules::price(price)?;
    }
    agent.min_price = match change.min_price {
        Some(min_price) => rules::min_price(min_price, agent.price)?,
        None => rules::kept_min_price(&old, agent.price)?,
    };
    if let Some(promised) = change.promised {
        agent.promised_ms = Some(rules::promised_ms(promised)?);
    }
    if let Some(public_key) = change.public_key {
        agent.public_key = Some(rules::public_key(public_key)?);
    }
    if let Some(capacity) = change.capacity {
        agent.capacity = Some(rules::capacity(capacity)?);
    }
    if let Some(fuel_price) = change.fuel_price {
        agent.fuel_price = rules::fuel_price(agent.runtime, fuel_price)?;
    }
    if agent == old {
        return Ok(old);
    }
    if agent.name != old.name && is_taken(work, old.owner_id, &agent.name).await? {
        return Err(AgentRefused::AgentNameTaken.into());
    }

    let relisted = agent.capabilities != old.capabilities;
    let agent = save(work, &old, agent).await?;
    if relisted {
        agent_capability::Entity::delete_many()
            .filter(agent_capability::Column::AgentId.eq(agent.id))
            .exec(work.tx())
            .await?;
        list_capabilities(work, &agent).await?;
    }
    Ok(agent)
}

/// Lets an agent of the caller's take no new work. What it has goes on.
pub async fn pause(work: &mut Work, id: AgentId) -> Result<Model> {
    take_step(work, id, Step::Pause).await
}

/// Lets a paused agent of the caller's take new work again.
pub async fn resume(work: &mut Work, id: AgentId) -> Result<Model> {
    take_step(work, id, Step::Resume).await
}

/// Takes an agent of the caller's out of the market for good. What it has goes on.
pub async fn retire(work: &mut Work, id: AgentId) -> Result<Model> {
    take_step(work, id, Step::Retire).await
}

async fn take_step(work: &mut Work, id: AgentId, step: Step) -> Result<Model> {
    let old = lock_own(work, id).await?;
    let status = rules::step(old.status, step)?;
    if status == old.status {
        return Ok(old);
    }
    let agent = Model { status, ..old.clone() };
    save(work, &old, agent).await
}

/// Makes a stored module the one that a hosted agent of the caller's runs from now on. Work that is already running keeps the
/// module with which it started, and the older modules stay for audit. A module that the agent had before is taken again
/// rather than listed twice.
///
/// `sha256` is the lower-case hex of the hash under which the module store keeps the bytes, `size_bytes` their number.
pub async fn set_module(
    work: &mut Work,
    id: AgentId,
    sha256: String,
    size_bytes: u64,
    interface: agent_module::Interface,
) -> Result<agent_module::Model> {
    let old = lock_own(work, id).await?;
    rules::may_host(&old)?;
    let size_bytes = i64::try_from(size_bytes).ok().filter(|size| *size > 0);
    let Some(size_bytes) = size_bytes.filter(|_| rules::is_sha256(&sha256)) else {
        return Err(Error::internal("a module was not described by its hash and size"));
    };
    let uploaded_by = work.caller().user()?;
    let known = agent_module::Entity::find()
        .filter(agent_module::Column::AgentId.eq(id))
        .filter(agent_module::Column::Sha256.eq(sha256.as_str()))
        .one(work.tx())
        .await?;

    let module = if let Some(module) = known {
        module
    } else {
        let module = agent_module::Model {
            id: work.fresh::<ModuleId>(),
            agent_id: id,
            sha256,
            size_bytes,
            interface,
            uploaded_by,
            created_at: work.now(),
        };
        let row = module.clone().into_active_model().reset_all();
        agent_module::Entity::insert(row).exec_without_returning(work.tx()).await?;
        module
    };
    if old.module_id != Some(module.id) {
        let agent = Model { module_id: Some(module.id), ..old.clone() };
        save(work, &old, agent).await?;
    }
    Ok(module)
}

/// Agents that have room for one more task.
fn has_room() -> Condition {
    let capacity = Expr::col((agent::Entity, agent::Column::Capacity));
    let room = Expr::col((agent::Entity, agent::Column::InWork)).lt(capacity);
    Condition::any().add(agent::Column::Capacity.is_null()).add(room)
}

/// Counts one more task in an agent's work, if it has room. Two awards at the same time may both have seen room for one: this lets one
/// of them have it. It locks the agent's row, which comes after all accounts that the unit of work moves and others may want.
pub async fn take_up(work: &Work, id: AgentId) -> Result<bool> {
    let updated = agent::Entity::update_many()
        .col_expr(agent::Column::InWork, Expr::col(agent::Column::InWork).add(1))
        .filter(agent::Column::Id.eq(id))
        .filter(has_room())
        .exec(work.tx())
        .await?;
    Ok(updated.rows_affected == 1)
}

/// Counts one task less in an agent's work, because it ended there. It is the last lock of a settlement.
pub async fn let_go(work: &Work, id: AgentId) -> Result<()> {
    let updated = agent::Entity::update_many()
        .col_expr(agent::Column::InWork, Expr::col(agent::Column::InWork).sub(1))
        .filter(agent::Column::Id.eq(id))
        .filter(agent::Column::InWork.gt(0))
        .exec(work.tx())
        .await?;
    if updated.rows_affected == 1 { Ok(()) } else { Err(Error::internal("an agent ended more work than it had")) }
}

/// Locks agents in the order of their ids, where one unit of work takes work from one and gives it to another.
pub async fn lock_in_order(work: &Work, ids: impl IntoIterator<Item = AgentId>) -> Result<()> {
    let locked = agent::Entity::find().filter(agent::Column::Id.is_in(ids)).order_by_asc(agent::Column::Id);
    locked.lock_exclusive().all(work.tx()).await.map(|_| ()).map_err(Error::from)
}

/// Remembers that an agent that runs elsewhere was heard of just now, in a unit of work of its own and not more often than every few
/// seconds. Hosted agents are where we are.
pub async fn see(store: &Store, agent: &Model) -> Result<()> {
    let now = store.clock().now();
    let is_news = agent.last_seen_at.is_none_or(|seen| now.since(seen) >= SEEN_EVERY);
    if agent.runtime == Runtime::Hosted || !is_news {
        return Ok(());
    }
    let older = Condition::any()
        .add(agent::Column::LastSeenAt.is_null())
        .add(agent::Column::LastSeenAt.lte(now.before(SEEN_EVERY)));
    let id = agent.id;
    store
        .write(Caller::System, async |work| {
            agent::Entity::update_many()
                .col_expr(agent::Column::LastSeenAt, Expr::value(now))
                .filter(agent::Column::Id.eq(id))
                .filter(older)
                .exec(work.tx())
                .await?;
            Ok(())
        })
        .await
}

/// The same for an agent of the caller's, known by its id. For everybody else it does nothing; whatever they want will be refused.
pub async fn appear(store: &Store, caller: &Caller, id: AgentId, scope: Scope) -> Result<()> {
    let now = store.clock().now();
    if store.heard().get(&id).is_some_and(|seen| now.since(seen) < SEEN_EVERY) {
        return Ok(());
    }
    match agent::Entity::find_by_id(id).one(store.read()).await? {
        Some(agent) if caller.controls(&agent, scope).is_ok() => {
            see(store, &agent).await?;
            let known = agent.last_seen_at.filter(|seen| now.since(*seen) < SEEN_EVERY);
            store.heard().insert(id, known.unwrap_or(now));
            Ok(())
        }
        Some(_) | None => Ok(()),
    }
}

/// Gives a locked agent, which may be changed, another address for messages and another number of secrets. See `webhook::set`.
pub async fn set_webhook(work: &Work, old: Model, url: Option<String>, generation: i32) -> Result<Model> {
    rules::may_change(&old, None)?;
    let agent = Model { webhook_url: url, webhook_generation: generation, ..old.clone() };
    if agent == old { Ok(old) } else { save(work, &old, agent).await }
}

/// Capabilities as they are stored and compared: lower case, sorted, without repetition, at most 20 of at most 64 characters.
pub fn normalise_capabilities(words: Vec<String>, at_least_one: bool) -> Result<Words> {
    rules::capabilities(words, at_least_one)
}

/// Hosted agents that could take work now and can do all of `capabilities` for at most `max_price`: those with the best score
/// as of their last evidence first, then the cheaper ones, then the older ones.
pub async fn eligible_hosted(
    db: &impl ConnectionTrait,
    capabilities: &Words,
    max_price: Amount,
    limit: u64,
) -> Result<Vec<Model>> {
    let agents = agent::Entity::find()
        .filter(agent::Column::Status.eq(Status::Active))
        .filter(agent::Column::Runtime.eq(Runtime::Hosted))
        .filter(agent::Column::ModuleId.is_not_null())
        .filter(agent::Column::MinPrice.lte(max_price))
        .filter(has_room())
        .filter(can_all(capabilities))
        .order_by_desc(agent::Column::Score)
        .order_by_asc(agent::Column::Price)
        .order_by_asc(agent::Column::Id)
        .limit(limit)
        .all(db)
        .await?;
    Ok(agents)
}

/// Whether an active agent of somebody else than `buyer`, and none of `except`, can do all of `capabilities`.
pub async fn is_offered(
    db: &impl ConnectionTrait,
    capabilities: &Words,
    buyer: UserId,
    except: &[AgentId],
) -> Result<bool> {
    let mut agents = agent::Entity::find()
        .filter(agent::Column::Status.eq(Status::Active))
        .filter(agent::Column::OwnerId.ne(buyer))
        .filter(can_all(capabilities));
    if !except.is_empty() {
        agents = agents.filter(agent::Column::Id.is_not_in(except.iter().copied()));
    }
    Ok(agents.one(db).await?.is_some())
}

/// In which order agents are listed. Ties are broken by the id, in the direction of the order, so that the indexes serve it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, strum::EnumIter)]
pub enum AgentOrder {
    /// The best score as of the last evidence first.
    #[default]
    Score,
    /// The cheapest first.
    Price,
    /// The newest first.
    Created,
}

impl AgentOrder {
    fn key(self) -> Option<agent::Column> {
        match self {
            Self::Score => Some(agent::Column::Score),
            Self::Price => Some(agent::Column::Price),
            // Ids sort by the time at which they were made.
            Self::Created => None,
        }
    }

    fn ascends(self) -> bool {
        match self {
            Self::Score | Self::Created => false,
            Self::Price => true,
        }
    }

    /// Where an agent stands in this order, for a cursor.
    #[must_use]
    pub fn place(self, agent: &Model) -> Place {
        let key = match self {
            Self::Score => i64::from(agent.score),
            Self::Price => agent.price.micros(),
            Self::Created => 0,
        };
        Place { key, id: agent.id }
    }
}

/// A place in an order: the key of that order, and the id. The creation order has no key but the id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub key: i64,
    pub id: AgentId,
}

/// Which agents are listed; what is empty does not restrict.
#[derive(Clone, Debug, Default)]
pub struct AgentSearch {
    /// All of these, in any spelling that [`normalise_capabilities`] takes.
    pub capabilities: Vec<String>,
    /// The least score as of the last evidence, in basis points.
    pub min_score_bps: Option<i32>,
    /// The highest price that the agent asks.
    pub max_price: Option<Amount>,
    pub runtime: Option<Runtime>,
    pub status: Option<Status>,
    pub owner: Option<UserId>,
    pub order: AgentOrder,
    /// Only what comes behind this place.
    pub after: Option<Place>,
    /// Only what comes before this place.
    pub before: Option<Place>,
    /// Lists from the end: the last agents first, for the last page or the one before a place.
    pub backward: bool,
    /// How many at most.
    pub limit: Option<u64>,
}

/// The agents of a search, without order, bounds of a page and limit: for counting.
pub fn matching(search: &AgentSearch) -> Result<Select<agent::Entity>> {
    let capabilities = rules::capabilities(search.capabilities.clone(), false)?;
    let min_score = search.min_score_bps.map(|points| points.saturating_mul(10));
    let condition = Condition::all()
        .add(can_all(&capabilities))
        .add_option(min_score.map(|score| agent::Column::Score.gte(score)))
        .add_option(search.max_price.map(|price| agent::Column::Price.lte(price)))
        .add_option(search.runtime.map(|runtime| agent::Column::Runtime.eq(runtime)))
        .add_option(search.status.map(|status| agent::Column::Status.eq(status)))
        .add_option(search.owner.map(|owner| agent::Column::OwnerId.eq(owner)));
    Ok(agent::Entity::find().filter(condition))
}

/// The agents of a search as a query that the caller pages: ordered, between its places, limited.
pub fn search(search: &AgentSearch) -> Result<Select<agent::Entity>> {
    let ascends = search.order.ascends();
    let direction = if ascends == search.backward { Order::Desc } else { Order::Asc };
    let mut select = matching(search)?;
    if let Some(place) = search.after {
        select = select.filter(beyond(search.order, place, ascends));
    }
    if let Some(place) = search.before {
        select = select.filter(beyond(search.order, place, !ascends));
    }
    if let Some(key) = search.order.key() {
        select = select.order_by(key, direction.clone());
    }
    Ok(select.order_by(agent::Column::Id, direction).limit(search.limit))
}

/// What stands beyond a place: with the greater keys, or with the lesser ones.
fn beyond(order: AgentOrder, place: Place, greater: bool) -> Condition {
    let past = |column: agent::Column, value: sea_orm::Value| {
        if greater { column.gt(value) } else { column.lt(value) }
    };
    let by_id = past(agent::Column::Id, place.id.into());
    match order.key() {
        None => Condition::all().add(by_id),
        Some(key) => {
            Condition::any().add(past(key, place.key.into())).add(Condition::all().add(key.eq(place.key)).add(by_id))
        }
    }
}

/// Agents that have every one of some capabilities: a look-up in the index for each.
fn can_all(capabilities: &Words) -> Condition {
    capabilities.0.iter().fold(Condition::all(), |condition, capability| {
        let able = agent_capability::Entity::find()
            .select_only()
            .column(agent_capability::Column::AgentId)
            .filter(agent_capability::Column::Capability.eq(capability.as_str()))
            .into_query();
        condition.add(agent::Column::Id.in_subquery(able))
    })
}

/// The caller's agent, locked. Credentials are checked before the database is asked.
pub async fn lock_own(work: &Work, id: AgentId) -> Result<Model> {
    work.caller().with_scope(Scope::AgentsWrite)?;
    let agent = agent::Entity::find_by_id(id).lock_exclusive().one(work.tx()).await?.ok_or(Error::NotFound("agent"))?;
    work.caller().controls(&agent, Scope::AgentsWrite)?;
    Ok(agent)
}

async fn is_taken(work: &Work, owner: UserId, name: &str) -> Result<bool> {
    let count = agent::Entity::find()
        .filter(agent::Column::OwnerId.eq(owner))
        .filter(agent::Column::Name.eq(name))
        .count(work.tx())
        .await?;
    Ok(count > 0)
}

/// Two registrations at the same time see no agent of the name; the constraint lets one of them pass.
fn name_taken(error: DbErr) -> Error {
    match error.sql_err() {
        Some(SqlErr::UniqueConstraintViolation(_)) => AgentRefused::AgentNameTaken.into(),
        Some(_) | None => error.into(),
    }
}

/// Writes the changed columns of a locked row and counts the change.
async fn save(work: &Work, old: &Model, new: Model) -> Result<Model> {
    let version = old.version.checked_add(1).ok_or_else(|| Error::internal("an agent changed too often"))?;
    let agent = Model { version, updated_at: work.now(), ..new };
    let mut change = agent::Entity::update_many()
        .filter(agent::Column::Id.eq(old.id))
        .filter(agent::Column::Version.eq(old.version));
    for column in agent::Column::iter() {
        if old.get(column) != agent.get(column) {
            change = change.col_expr(column, Expr::value(agent.get(column)));
        }
    }
    let written = change.exec(work.tx()).await.map_err(name_taken)?;
    if written.rows_affected != 1 {
        return Err(Error::internal("a locked agent changed"));
    }
    Ok(agent)
}

async fn list_capabilities(work: &Work, agent: &Model) -> Result<()> {
    let rows = agent.capabilities.0.iter().map(|capability| agent_capability::ActiveModel {
        capability: Set(capability.clone()),
        agent_id: Set(agent.id),
    });
    Ok(insert_all(work.tx(), rows.collect()).await?)
}
