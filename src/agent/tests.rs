//! The verbs on a real database: SQLite in a folder of its own, or PostgreSQL when `ZEROSTATE_TEST_POSTGRES` names a server on
//! which databases may be made, as in `postgres://user@localhost`.

use entity::{id::ApiKeyId, time::Timestamp, user};
use sea_orm::{Database, DatabaseConnection, QueryResult, Statement};

use super::*;
use crate::{
    caller::{Caller, Identity, KeyGrant},
    config::{Storage, Terms},
    store::{Clock, Entropy, Store},
};

/// The instant at which every world begins.
const START: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);

/// A fresh database with a clock to turn.
pub(crate) struct World {
    pub(crate) store: Store,
    _folder: tempfile::TempDir,
}

impl World {
    pub(crate) async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = match std::env::var("ZEROSTATE_TEST_POSTGRES") {
            Ok(server) => {
                let name = format!("zs_{:032x}", u128::from_be_bytes(Entropy::system().bytes()));
                let admin: DatabaseConnection = Database::connect(format!("{server}/postgres")).await.unwrap();
                admin.execute_unprepared(&format!("CREATE DATABASE {name}")).await.unwrap();
                admin.close().await.unwrap();
                format!("{server}/{name}")
            }
            Err(_) => format!("sqlite:{}", folder.path().join("test.db").display()),
        };
        let storage = Storage { max_connections: 4, ..Storage::at(url) };
        let store = Store::connect(&storage, Terms::default(), Clock::manual(START), Entropy::seeded(7)).await.unwrap();
        store.migrate().await.unwrap();
        Self { store, _folder: folder }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.store.clock().now()
    }

    pub(crate) async fn person(&self, name: &str) -> Caller {
        let id: UserId = self
            .store
            .write(Caller::System, async |work| {
                let id = work.fresh();
                let row = user::ActiveModel {
                    id: Set(id),
                    email: Set(format!("{name}@example.org")),
                    display_name: Set(name.to_owned()),
                    password_hash: Set("none".to_owned()),
                    role: Set(user::Role::User),
                    status: Set(user::Status::Active),
                    failed_logins: Set(0),
                    locked_until: Set(None),
                    last_login_at: Set(None),
                    created_at: Set(work.now()),
                    updated_at: Set(work.now()),
                };
                user::Entity::insert(row).exec_without_returning(work.tx()).await?;
                Ok(id)
            })
            .await
            .unwrap();
        Caller::User(Identity { user: id, role: user::Role::User, session: None, key: None, expires_at: None })
    }

    pub(crate) async fn agent(&self, owner: &Caller, name: &str) -> Model {
        self.registered(owner, offer(name, &["summarize"], 10)).await
    }

    async fn registered(&self, owner: &Caller, new: NewAgent) -> Model {
        self.store.write(owner.clone(), async |work| register(work, new).await).await.unwrap()
    }

    async fn changed(&self, caller: &Caller, id: AgentId, change: AgentChange) -> Result<Model> {
        self.store.write(caller.clone(), async |work| update(work, id, change).await).await
    }

    async fn stepped(&self, caller: &Caller, id: AgentId, step: Step) -> Result<Model> {
        self.store
            .write(caller.clone(), async |work| match step {
                Step::Pause => pause(work, id).await,
                Step::Resume => resume(work, id).await,
                Step::Retire => retire(work, id).await,
            })
            .await
    }

    async fn uploaded(&self, caller: &Caller, id: AgentId, digit: char) -> Result<agent_module::Model> {
        let sha256 = String::from(digit).repeat(64);
        let interface = agent_module::Interface::WasiCommand;
        self.store.write(caller.clone(), async |work| set_module(work, id, sha256, 7, interface).await).await
    }

    async fn read(&self, id: AgentId) -> Model {
        agent::Entity::find_by_id(id).one(self.store.read()).await.unwrap().unwrap()
    }

    async fn listed(&self, id: AgentId) -> Vec<String> {
        let rows = agent_capability::Entity::find()
            .filter(agent_capability::Column::AgentId.eq(id))
            .order_by_asc(agent_capability::Column::Capability)
            .all(self.store.read())
            .await
            .unwrap();
        rows.into_iter().map(|row| row.capability).collect()
    }

    async fn score(&self, id: AgentId, score: i32) {
        self.store
            .write(Caller::System, async |work| {
                agent::Entity::update_many()
                    .col_expr(agent::Column::Score, Expr::value(score))
                    .filter(agent::Column::Id.eq(id))
                    .exec(work.tx())
                    .await?;
                Ok(())
            })
            .await
            .unwrap();
    }

    async fn found(&self, query: AgentSearch) -> Vec<String> {
        let agents = search(&query).unwrap().all(self.store.read()).await.unwrap();
        agents.into_iter().map(|agent| agent.name).collect()
    }
}

fn credits(credits: u32) -> Amount {
    Amount::from_credits(credits).unwrap()
}

fn offer(name: &str, capabilities: &[&str], price: u32) -> NewAgent {
    NewAgent {
        name: name.to_owned(),
        description: String::new(),
        capabilities: capabilities.iter().map(|word| (*word).to_owned()).collect(),
        runtime: Runtime::Hosted,
        price: credits(price),
        min_price: None,
        promised: Some(Duration::from_secs(2)),
        public_key: None,
        capacity: None,
        fuel_price: None,
    }
}

fn with_key(caller: &Caller, scopes: Vec<Scope>, agent: Option<AgentId>) -> Caller {
    let identity = caller.identity().unwrap().clone();
    let key = KeyGrant { id: ApiKeyId(identity.user.0), agent, scopes };
    Caller::User(Identity { key: Some(key), ..identity })
}

fn invalid(result: Result<Model>) -> String {
    match result {
        Err(Error::Invalid { field, .. }) => field,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T>, code: &str) {
    assert_eq!(result.unwrap_err().refusal_code(), Some(code));
}

#[tokio::test]
async fn an_owner_registers_an_agent_and_finds_it_as_entered() {
    let world = World::open().await;
    let owner = world.person("ada").await;
    let new = offer(" Summer ", &["Summarize", "ocr", "summarize"], 10);
    let agent = world.registered(&owner, new).await;
    assert_eq!(agent.name, "Summer");
    assert_eq!(agent.capabilities.0, ["ocr", "summarize"]);
    assert_eq!((agent.price, agent.min_price, agent.promised_ms), (credits(10), credits(10), Some(2_000)));
    assert_eq!((agent.status, agent.score, agent.version), (Status::Active, STARTING_SCORE, 1));
    assert_eq!(agent.owner_id, owner.user().unwrap());
    assert_eq!(world.read(agent.id).await, agent);
    assert_eq!(world.listed(agent.id).await, agent.capabilities.0);
}

#[tokio::test]
async fn bad_input_is_refused_by_field_and_leaves_nothing() {
    let world = World::open().await;
    let owner = world.person("ada").await;
    let new = || offer("a", &["x"], 10);
    for (new, field) in [
        (NewAgent { name: " ".into(), ..new() }, "name"),
        (NewAgent { description: "x".repeat(2_001), ..new() }, "description"),
        (NewAgent { capabilities: vec![], ..new() }, "capabilities"),
        (NewAgent { capabilities: vec!["a b".into()], ..new() }, "capabilities.0"),
        (NewAgent { price: Amount::ZERO, ..new() }, "price"),
        (NewAgent { min_price: Some(credits(11)), ..new() }, "minPrice"),
        (NewAgent { promised: Some(Duration::ZERO), ..new() }, "promisedDuration"),
    ] {
        assert_eq!(invalid(world.store.write(owner.clone(), async |work| register(work, new).await).await), field);
    }
    assert_eq!(agent::Entity::find().count(world.store.read()).await.unwrap(), 0);
}

#[tokio::test]
async fn one_owner_cannot_use_a_name_twice_but_two_owners_can() {
    let world = World::open().await;
    let (ada, bob) = (world.person("ada").await, world.person("bob").await);
    let first = world.agent(&ada, "worker").await;
    world.agent(&bob, "worker").await;
    let again = world.store.write(ada.clone(), async |work| register(work, offer("worker", &["x"], 1)).await).await;
    refused(again, "AGENT_NAME_TAKEN");
    let second = world.agent(&ada, "helper").await;
    let change = AgentChange { name: Some("worker".into()), ..AgentChange::default() };
    refused(world.changed(&ada, second.id, change.clone()).await, "AGENT_NAME_TAKEN");
    assert_eq!(world.changed(&ada, first.id, change).await.unwrap().version, 1);
}

#[tokio::test]
async fn of_two_registrations_of_a_name_at_once_one_is_refused() {
    let world = World::open().await;
    let owner = world.person("ada").await;
    let race = || world.store.write(owner.clone(), async |work| register(work, offer("same", &["x"], 1)).await);
    let (a, b, c, d) = tokio::join!(race(), race(), race(), race());
    let (won, lost): (Vec<_>, Vec<_>) = [a, b, c, d].into_iter().partition(Result::is_ok);
    assert_eq!((won.len(), lost.len()), (1, 3));
    for lost in lost {
        refused(lost, "AGENT_NAME_TAKEN");
    }
}

#[tokio::test]
async fn the_constraint_on_names_is_told_as_a_refusal() {
    let world = World::open().await;
    let owner = world.person("ada").await;
    let agent = world.agent(&owner, "same").await;
    let twin = world
        .store
        .write(owner.clone(), async |work| {
            let row = Model { id: work.fresh(), ..agent.clone() }.into_active_model().reset_all();
            agent::Entity::insert(row).exec_without_returning(work.tx()).await.map_err(name_taken)?;
            Ok(())
        })
        .await;
    refused(twin, "AGENT_NAME_TAKEN");
}

#[tokio::test]
async fn a_stranger_and_a_narrow_key_cannot_touch_an_agent() {
    let world = World::open().await;
    let (ada, eve) = (world.person("ada").await, world.person("eve").await);
    let agent = world.agent(&ada, "worker").await;
    let other = world.agent(&ada, "other").await;
    let no_such = |result: Result<Model>| assert!(matches!(result, Err(Error::NotFound("agent"))), "{result:?}");
    for step in [Step::Pause, Step::Resume, Step::Retire] {
        no_such(world.stepped(&eve, agent.id, step).await);
    }
    no_such(world.changed(&eve, agent.id, AgentChange::default()).await);
    no_such(world.changed(&ada, AgentId(agent.owner_id.0), AgentChange::default()).await);
    assert!(matches!(world.uploaded(&eve, agent.id, 'a').await, Err(Error::NotFound("agent"))));
    let bound = with_key(&ada, vec![Scope::AgentsWrite], Some(agent.id));
    no_such(world.stepped(&bound, other.id, Step::Pause).await);
    assert_eq!(world.stepped(&bound, agent.id, Step::Pause).await.unwrap().status, Status::Paused);
    let reader = with_key(&ada, vec![Scope::Read], None);
    assert!(matches!(world.stepped(&reader, agent.id, Step::Resume).await, Err(Error::Forbidden(_))));
    let anonymous = world.stepped(&Caller::Anonymous, agent.id, Step::Resume).await;
    assert!(matches!(anonymous, Err(Error::Unauthenticated(_))));
    let new = world.store.write(bound, async |work| register(work, offer("new", &["x"], 1)).await).await;
    assert!(matches!(new, Err(Error::Forbidden(_))));
    assert_eq!(world.read(other.id).await, other);
}

#[tokio::test]
async fn an_owner_changes_an_agent_and_the_search_follows() {
    let world = World::open().await;
    let owner = world.person("ada").await;
    let agent = world.agent(&owner, "worker").await;
    world.store.clock().advance(Duration::from_secs(5));
    let change = AgentChange {
        name: Some("wordsmith".into()),
        description: Some("Writes.".into()),
        capabilities: Some(vec!["Write".into(), "edit".into()]),
        price: Some(credits(12)),
        min_price: Some(credits(8)),
        promised: Some(Duration::from_millis(1_500)),
        public_key: Some("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a".into()),
        capacity: Some(3),
        fuel_price: None,
        expected_version: Some(1),
    };
    let changed = world.changed(&owner, agent.id, change.clone()).await.unwrap();
    assert_eq!((changed.version, changed.updated_at), (2, world.now()));
    assert_eq!(changed.public_key, change.public_key);
    assert_eq!(changed.capacity, Some(3));
    assert_eq!((changed.min_price, changed.promised_ms), (credits(8), Some(1_500)));
    assert_eq!(world.read(agent.id).await, changed);
    assert_eq!(world.listed(agent.id).await, ["edit", "write"]);
    let search = |word: &str| AgentSearch { capabilities: vec![word.to_owned()], ..AgentSearch::default() };
    assert_eq!(world.found(search("WRITE")).await, ["wordsmith"]);
    assert_eq!(world.found(search("summarize")).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_change_on_top_of_an_unseen_change_is_refused() {
    let world = World::open().await;
    let owner = world.person("ada").await;
    let agent = world.agent(&owner, "worker").await;
    let price = |price, expected_version| AgentChange {
        price: Some(credits(price)),
        expected_version,
        ..AgentChange::default()
    };
    world.changed(&owner, agent.id, price(11, Some(1))).await.unwrap();
    refused(world.changed(&owner, agent.id, price(12, Some(1))).await, "STALE_VERSION");
    assert_eq!(world.changed(&owner, agent.id, price(13, None)).await.unwrap().version, 3);
}

#[tokio::test]
async fn a_least_price_follows_the_price_unless_the_owner_set_it() {
    let world = World::open().await;
    let owner = world.person("ada").await;
    let agent = world.agent(&owner, "worker").await;
    let price = |price| AgentChange { price: Some(credits(price)), ..AgentChange::default() };
    assert_eq!(world.changed(&owner, agent.id, price(4)).await.unwrap().min_price, credits(4));
    let least = AgentChange { min_price: Some(credits(3)), ..AgentChange::default() };
    world.changed(&owner, agent.id, least).await.unwrap();
    assert_eq!(world.changed(&owner, agent.id, price(9)).await.unwrap().min_price, credits(3));
    assert_eq!(invalid(world.changed(&owner, agent.id, price(2)).await), "price");
}

#[tokio::test]
async fn an_owner_pauses_resumes_and_retires_and_retirement_is_final() {
    let world = World::open().await;
    let owner = world.person("ada").await;
    let id = world.agent(&owner, "worker").await.id;
    let status = async |step| world.stepped(&owner, id, step).await.map(|agent| (agent.status, agent.version)).unwrap();
    assert_eq!(status(Step::Resume).await, (Status::Active, 1));
    assert_eq!(status(Step::Pause).await, (Status::Paused, 2));
    assert_eq!(status(Step::Pause).await, (Status::Paused, 2));
    assert_eq!(status(Step::Resume).await, (Status::Active, 3));
    assert_eq!(status(Step::Retire).await, (Status::Retired, 4));
    assert_eq!(status(Step::Retire).await, (Status::Retired, 4));
    for step in [Step::Pause, Step::Resume] {
        refused(world.stepped(&owner, id, step).await, "AGENT_RETIRED");
    }
    refused(world.changed(&owner, id, AgentChange::default()).await, "AGENT_RETIRED");
    refused(world.uploaded(&owner, id, 'a').await, "AGENT_RETIRED");
}

#[tokio::test]
async fn a_hosted_agent_gets_modules_and_may_go_back_to_an_old_one() {
    let world = World::open().await;
    let owner = world.person("ada").await;
    let agent = world.agent(&owner, "worker").await;
    let first = world.uploaded(&owner, agent.id, 'a').await.unwrap();
    assert_eq!(world.read(agent.id).await.module_id, Some(first.id));
    let second = world.uploaded(&owner, agent.id, 'b').await.unwrap();
    let again = world.uploaded(&owner, agent.id, 'b').await.unwrap();
    assert_eq!((second.clone(), world.read(agent.id).await.version), (again, 3));
    let back = world.uploaded(&owner, agent.id, 'a').await.unwrap();
    assert_eq!((back, world.read(agent.id).await.module_id), (first.clone(), Some(first.id)));
    assert_eq!(agent_module::Entity::find().count(world.store.read()).await.unwrap(), 2);
    let outside = NewAgent { runtime: Runtime::External, ..offer("outside", &["x"], 1) };
    let outside = world.registered(&owner, outside).await;
    refused(world.uploaded(&owner, outside.id, 'a').await, "AGENT_NOT_HOSTED");
}

#[tokio::test]
async fn only_hosted_active_able_and_affordable_agents_with_a_module_are_eligible_best_first() {
    let world = World::open().await;
    let owner = world.person("ada").await;
    let mut ids = Vec::new();
    for (name, price, score) in [("mid", 9, 50_000), ("best", 9, 70_000), ("cheap", 8, 50_000), ("dear", 11, 90_000)] {
        let agent = world.registered(&owner, offer(name, &["ocr", "summarize"], price)).await;
        world.uploaded(&owner, agent.id, 'a').await.unwrap();
        world.score(agent.id, score).await;
        ids.push(agent.id);
    }
    world.registered(&owner, offer("empty", &["ocr", "summarize"], 1)).await;
    let outside = NewAgent { runtime: Runtime::External, ..offer("outside", &["ocr", "summarize"], 1) };
    world.registered(&owner, outside).await;
    let unable = world.registered(&owner, offer("unable", &["summarize"], 1)).await;
    world.uploaded(&owner, unable.id, 'a').await.unwrap();
    let paused = world.registered(&owner, offer("paused", &["ocr", "summarize"], 1)).await;
    world.uploaded(&owner, paused.id, 'a').await.unwrap();
    world.stepped(&owner, paused.id, Step::Pause).await.unwrap();

    let needed = normalise_capabilities(vec!["summarize".into(), "ocr".into()], true).unwrap();
    let names = async |max, limit| -> Vec<String> {
        let agents = eligible_hosted(world.store.read(), &needed, credits(max), limit).await.unwrap();
        agents.into_iter().map(|agent| agent.name).collect()
    };
    assert_eq!(names(10, 20).await, ["best", "cheap", "mid"]);
    assert_eq!(names(10, 2).await, ["best", "cheap"]);
    assert_eq!(names(8, 20).await, ["cheap"]);
    // The least price decides, not the one that is asked.
    let least = AgentChange { min_price: Some(credits(7)), ..AgentChange::default() };
    world.changed(&owner, ids[3], least).await.unwrap();
    assert_eq!(names(8, 20).await, ["dear", "cheap"]);
}

#[tokio::test]
async fn a_reader_pages_through_every_order_in_both_directions_without_gaps() {
    let world = World::open().await;
    let owner = world.person("ada").await;
    for number in 0..7_u32 {
        world.store.clock().advance(Duration::from_millis(1));
        let agent = world.registered(&owner, offer(&format!("a{number}"), &["x"], 1 + number % 3)).await;
        world.score(agent.id, 40_000 + 1_000 * i32::try_from(number % 2).unwrap()).await;
    }
    for (order, expected) in [
        (AgentOrder::Score, ["a5", "a3", "a1", "a6", "a4", "a2", "a0"]),
        (AgentOrder::Price, ["a0", "a3", "a6", "a1", "a4", "a2", "a5"]),
        (AgentOrder::Created, ["a6", "a5", "a4", "a3", "a2", "a1", "a0"]),
    ] {
        let base = AgentSearch { order, ..AgentSearch::default() };
        assert_eq!(world.found(base.clone()).await, expected, "{order:?}");
        for backward in [false, true] {
            let mut query = AgentSearch { backward, limit: Some(3), ..base.clone() };
            let mut seen = Vec::new();
            loop {
                let page = search(&query).unwrap().all(world.store.read()).await.unwrap();
                let Some(last) = page.last() else { break };
                let place = Some(order.place(last));
                if backward {
                    query.before = place;
                } else {
                    query.after = place;
                }
                seen.extend(page.into_iter().map(|agent| agent.name));
            }
            if backward {
                seen.reverse();
            }
            assert_eq!(seen, expected, "{order:?} backward: {backward}");
        }
    }
}

#[tokio::test]
async fn a_reader_narrows_a_search_by_every_filter() {
    let world = World::open().await;
    let (ada, bob) = (world.person("ada").await, world.person("bob").await);
    world.registered(&ada, offer("cheap", &["ocr", "x"], 1)).await;
    let good = world.registered(&ada, offer("good", &["ocr"], 5)).await;
    world.score(good.id, 60_000).await;
    let outside = NewAgent { runtime: Runtime::External, ..offer("outside", &["x"], 5) };
    let outside = world.registered(&bob, outside).await;
    world.stepped(&bob, outside.id, Step::Pause).await.unwrap();
    let all = || AgentSearch { order: AgentOrder::Price, ..AgentSearch::default() };
    for (query, expected) in [
        (all(), vec!["cheap", "good", "outside"]),
        (AgentSearch { capabilities: vec!["ocr".into()], ..all() }, vec!["cheap", "good"]),
        (AgentSearch { capabilities: vec!["ocr".into(), "X".into()], ..all() }, vec!["cheap"]),
        (AgentSearch { min_score_bps: Some(6_000), ..all() }, vec!["good"]),
        (AgentSearch { min_score_bps: Some(6_001), ..all() }, vec![]),
        (AgentSearch { max_price: Some(credits(1)), ..all() }, vec!["cheap"]),
        (AgentSearch { runtime: Some(Runtime::External), ..all() }, vec!["outside"]),
        (AgentSearch { status: Some(Status::Active), ..all() }, vec!["cheap", "good"]),
        (AgentSearch { owner: Some(bob.user().unwrap()), ..all() }, vec!["outside"]),
    ] {
        assert_eq!(world.found(query.clone()).await, expected, "{query:?}");
        let count = matching(&query).unwrap().count(world.store.read()).await.unwrap();
        assert_eq!(usize::try_from(count).unwrap(), expected.len());
    }
    assert!(search(&AgentSearch { capabilities: vec!["no way".into()], ..all() }).is_err());
}

#[tokio::test]
async fn the_indexes_serve_a_search_in_its_order() {
    let world = World::open().await;
    if world.store.backend() != sea_orm::DbBackend::Sqlite {
        return; // PostgreSQL scans small tables whatever their indexes are.
    }
    for (order, index) in [(AgentOrder::Score, "agents_by_score"), (AgentOrder::Price, "agents_by_price")] {
        let query = AgentSearch { status: Some(Status::Active), order, limit: Some(20), ..AgentSearch::default() };
        let statement = search(&query).unwrap().build(world.store.backend());
        let explained = Statement { sql: format!("EXPLAIN QUERY PLAN {}", statement.sql), ..statement };
        let plan = world.store.read().query_all_raw(explained).await.unwrap();
        let plan: Vec<String> = plan.iter().map(|row: &QueryResult| row.try_get("", "detail").unwrap()).collect();
        let plan = plan.join("; ");
        assert!(plan.contains(index) && !plan.contains("TEMP B-TREE"), "{plan}");
    }
}
