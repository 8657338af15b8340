//! A market of verbs without an edge: what the stories through GraphQL build on.

use std::time::Duration;

use bytes::Bytes;
use entity::{
    account, agent, auction, bid, channel, execution,
    id::{AgentId, UserId},
    money::Amount,
    reputation_event, task, task_result,
    time::Timestamp,
    user::Role,
};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use serde_json::json;

use crate::{
    agent::{self as agents, NewAgent},
    app::App,
    auction::{NewBid, Terms},
    caller::{Caller, Identity},
    config::Config,
    error::Result,
    ledger,
    store::{Clock, Entropy},
    task::{self as tasks, NewTask, dispute as disputes},
    user::{self as users, NewAccount},
};

struct Market {
    app: App,
    _folder: tempfile::TempDir,
}

fn credits(text: &str) -> Amount {
    text.parse().unwrap()
}

impl Market {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::manual(Timestamp::from_micros(1_800_000_000_000_000));
        let mut config = Config::in_folder(folder.path());
        if let Ok(url) = std::env::var("TEST_DATABASE_URL") {
            config.storage.url = fresh_database(&url).await;
        }
        let app = App::open(config, clock, Entropy::seeded(7)).await.unwrap();
        Self { app, _folder: folder }
    }

    async fn user(&self, name: &str, role: Role) -> Caller {
        let new = NewAccount {
            email: format!("{name}@example.org"),
            display_name: name.to_owned(),
            password_hash: "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$4UAxMXjBSHqDwrs1MLXbUg".to_owned(),
            role,
        };
        let row = self.app.store().write(Caller::System, async |work| users::create(work, new).await).await.unwrap();
        let identity = Identity { user: row.id, role, session: None, key: None, expires_at: None };
        Caller::User(identity)
    }

    async fn credit(&self, user: UserId, amount: &str) {
        let admin = self.user(&format!("admin-{user}"), Role::Admin).await;
        let reference = format!("{user}-{amount}");
        self.app
            .store()
            .write(admin, async |work| ledger::issue(work, user, credits(amount), &reference).await)
            .await
            .unwrap();
    }

    async fn agent(&self, owner: &Caller, name: &str, price: &str, runtime: agent::Runtime) -> AgentId {
        let new = NewAgent {
            name: name.to_owned(),
            description: String::new(),
            capabilities: vec!["text.stats".to_owned()],
            runtime,
            price: credits(price),
            min_price: None,
            promised: None,
            public_key: None,
            capacity: None,
            fuel_price: None,
        };
        self.app.store().write(owner.clone(), async |work| agents::register(work, new).await).await.unwrap().id
    }

    async fn hosted(&self, owner: &Caller, name: &str, price: &str, wasm: &[u8]) -> AgentId {
        let id = self.agent(owner, name, price, agent::Runtime::Hosted).await;
        let stored = self.app.modules().store_bytes(Bytes::copy_from_slice(wasm), 8 << 20).await.unwrap();
        self.app
            .store()
            .write(owner.clone(), async |work| {
                let sha256 = hex::encode(stored.sha256);
                let interface = entity::agent_module::Interface::WasiCommand;
                agents::set_module(work, id, sha256, stored.size, interface).await
            })
            .await
            .unwrap();
        id
    }

    async fn execute(&self, caller: &Caller, budget: &str, terms: Terms) -> Result<task::Model> {
        let new = task_for(budget);
        self.app.store().write(caller.clone(), async |work| tasks::execute(work, new, terms).await).await
    }

    async fn bid(&self, caller: &Caller, auction: &auction::Model, agent: AgentId, price: &str) -> Result<bid::Model> {
        let offer = NewBid { auction: auction.id, agent, price: credits(price), promised: None };
        self.app.store().write(caller.clone(), async |work| tasks::submit_bid(work, offer).await).await
    }

    async fn pass(&self, time: Duration) {
        self.app.store().clock().advance(time);
        while self.app.sweep_once().await.unwrap() + self.app.run_ready().await.unwrap() > 0 {}
    }

    async fn task(&self, id: entity::id::TaskId) -> task::Model {
        task::Entity::find_by_id(id).one(self.app.store().read()).await.unwrap().unwrap()
    }

    async fn balance(&self, kind: account::Kind, owner: uuid::Uuid) -> i64 {
        ledger::balance_of(self.app.store().read(), kind, owner).await.unwrap()
    }

    async fn check(&self) {
        let audit = self.app.audit().await.unwrap();
        assert!(audit.ok(), "{audit:#?}");
    }
}

/// A new database on the server that `url` names.
async fn fresh_database(url: &str) -> String {
    use sqlx::{ConnectOptions, Connection, postgres::PgConnectOptions};
    let options: PgConnectOptions = url.parse().unwrap();
    let mut connection = sqlx::PgConnection::connect_with(&options).await.unwrap();
    let name = format!("verbs_{}", hex::encode(Entropy::system().bytes::<8>()));
    sqlx::query(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut connection).await.unwrap();
    options.database(&name).to_url_lossy().to_string()
}

fn task_for(budget: &str) -> NewTask {
    NewTask {
        title: "Count".to_owned(),
        capabilities: vec!["text.stats".to_owned()],
        input: json!("one two three"),
        output_schema: None,
        budget: credits(budget),
        timeout: None,
        start_timeout: None,
        max_attempts: None,
        acceptance: task::Acceptance::Automatic,
        review_window: None,
        checker: None,
    }
}

const STATS: &[u8] = include_bytes!("../../agents/wasm/text-stats-pro.wasm");
const LITE: &[u8] = include_bytes!("../../agents/wasm/text-stats-lite.wasm");

#[tokio::test]
async fn a_task_is_auctioned_executed_settled_and_rated() {
    let market = Market::new().await;
    let ada = market.user("ada", Role::User).await;
    let bob = market.user("bob", Role::User).await;
    let (ada_id, _) = (ada.user().unwrap(), bob.user().unwrap());
    market.credit(ada_id, "10").await;
    let cheap = market.hosted(&bob, "lite", "0.30", LITE).await;
    market.hosted(&bob, "pro", "0.90", STATS).await;

    let task = market.execute(&ada, "2.5", Terms::default()).await.unwrap();
    assert_eq!(task.status, task::Status::Awarded);
    assert_eq!(task.agent_id, Some(cheap), "with equal reputations the lower price wins");
    market.pass(Duration::ZERO).await;

    let task = market.task(task.id).await;
    assert_eq!(task.status, task::Status::Completed, "{task:?}");
    assert_eq!(task.paid, Some(credits("0.30")));
    let store = market.app.store();
    let result = task_result::Entity::find_by_id(task.id).one(store.read()).await.unwrap().unwrap();
    let output: serde_json::Value = serde_json::from_str(&result.output.unwrap().0).unwrap();
    assert_eq!(output["words"], 3, "{output}");
    assert_eq!(market.balance(account::Kind::Agent, cheap.0).await, 300_000);
    let wallet = ledger::wallet(store.read(), ada_id).await.unwrap();
    assert_eq!((wallet.available, wallet.in_escrow), (credits("9.7"), Amount::ZERO));
    let evidence = reputation_event::Entity::find().all(store.read()).await.unwrap();
    assert_eq!(evidence.len(), 1);
    assert!(evidence[0].score_after > evidence[0].score_before);
    market.check().await;
}

#[tokio::test]
async fn without_an_eligible_bid_the_budget_goes_back() {
    let market = Market::new().await;
    let ada = market.user("ada", Role::User).await;
    market.credit(ada.user().unwrap(), "3").await;
    let task = market.execute(&ada, "2.5", Terms::default()).await.unwrap();
    assert_eq!((task.status, task.failure_code.as_deref()), (task::Status::Expired, Some("NO_ELIGIBLE_BID")));
    let refused = market.execute(&ada, "3.5", Terms::default()).await.unwrap_err();
    assert_eq!(refused.refusal_code(), Some("INSUFFICIENT_FUNDS"));
    market.check().await;
}

#[tokio::test]
async fn an_auction_takes_bids_and_the_runner_up_follows_a_winner_that_does_not_start() {
    let market = Market::new().await;
    let ada = market.user("ada", Role::User).await;
    let bob = market.user("bob", Role::User).await;
    let eve = market.user("eve", Role::User).await;
    market.credit(ada.user().unwrap(), "10").await;
    let first = market.agent(&bob, "first", "1", agent::Runtime::External).await;
    let second = market.agent(&eve, "second", "1", agent::Runtime::External).await;
    let terms = Terms { closes_in: Some(Duration::from_mins(1)), ..Terms::default() };
    let new = task_for("5");
    let store = market.app.store();
    let auction = store.write(ada.clone(), async |work| tasks::create_auction(work, new, terms).await).await.unwrap();

    market.bid(&bob, &auction, first, "1.5").await.unwrap();
    market.bid(&bob, &auction, first, "1").await.unwrap();
    market.bid(&eve, &auction, second, "2").await.unwrap();
    let own = market.agent(&ada, "own", "1", agent::Runtime::External).await;
    assert_eq!(market.bid(&ada, &auction, own, "1").await.unwrap_err().refusal_code(), Some("OWN_AUCTION"));
    assert_eq!(market.bid(&eve, &auction, second, "6").await.unwrap_err().refusal_code(), Some("PRICE_ABOVE_CEILING"));
    assert!(market.bid(&eve, &auction, first, "1").await.is_err(), "somebody else's agent");

    market.pass(Duration::from_mins(1)).await;
    assert_eq!(market.bid(&eve, &auction, second, "1").await.unwrap_err().refusal_code(), Some("AUCTION_NOT_OPEN"));
    let task = market.task(auction.task_id).await;
    assert_eq!((task.status, task.agent_id, task.price), (task::Status::Awarded, Some(first), Some(credits("1"))));
    market.check().await;

    market.pass(Duration::from_secs(61)).await;
    let task = market.task(auction.task_id).await;
    assert_eq!((task.status, task.agent_id, task.price), (task::Status::Awarded, Some(second), Some(credits("2"))));
    market.check().await;

    market.pass(Duration::from_secs(61)).await;
    let task = market.task(auction.task_id).await;
    assert_eq!((task.status, task.failure_code.as_deref()), (task::Status::Expired, Some("NO_AGENT_STARTED")));
    assert_eq!(market.balance(account::Kind::User, ada.user().unwrap().0).await, 10_000_000);
    market.check().await;
}

#[tokio::test]
async fn a_guest_that_fails_refunds_the_payer_and_loses_reputation() {
    let market = Market::new().await;
    let ada = market.user("ada", Role::User).await;
    let bob = market.user("bob", Role::User).await;
    market.credit(ada.user().unwrap(), "10").await;
    let trap =
        wat::parse_str("(module (memory (export \"memory\") 1) (func (export \"_start\") unreachable))").unwrap();
    let agent = market.hosted(&bob, "broken", "1", &trap).await;
    let task = market.execute(&ada, "2", Terms::default()).await.unwrap();
    market.pass(Duration::ZERO).await;
    let task = market.task(task.id).await;
    assert_eq!((task.status, task.failure_code.as_deref()), (task::Status::Refunded, Some("TRAP")));
    assert_eq!(market.balance(account::Kind::Agent, agent.0).await, 0);
    assert_eq!(market.balance(account::Kind::User, ada.user().unwrap().0).await, 10_000_000);
    market.check().await;
}

#[tokio::test]
async fn work_whose_module_is_gone_is_tried_again_and_then_refunded_without_blame() {
    let market = Market::new().await;
    let ada = market.user("ada", Role::User).await;
    let bob = market.user("bob", Role::User).await;
    market.credit(ada.user().unwrap(), "10").await;
    market.hosted(&bob, "lost", "1", STATS).await;
    std::fs::remove_dir_all(market.app.config().data.join("modules")).unwrap();
    let task = market.execute(&ada, "2", Terms::default()).await.unwrap();
    market.pass(Duration::ZERO).await;
    for _ in 0..3 {
        market.pass(Duration::from_secs(2)).await;
    }
    let task = market.task(task.id).await;
    assert_eq!((task.status, task.failure_code.as_deref()), (task::Status::Refunded, Some("MODULE_UNAVAILABLE")));
    let store = market.app.store();
    let execution = execution::Entity::find().one(store.read()).await.unwrap().unwrap();
    assert_eq!(execution.attempts, 3);
    assert_eq!(reputation_event::Entity::find().all(store.read()).await.unwrap().len(), 0);
    let open = channel::Entity::find().filter(channel::Column::Status.eq(channel::Status::Open));
    assert!(open.all(store.read()).await.unwrap().is_empty());
    market.check().await;
}

#[tokio::test]
async fn a_cancelled_task_gives_the_budget_back_once() {
    let market = Market::new().await;
    let ada = market.user("ada", Role::User).await;
    market.credit(ada.user().unwrap(), "10").await;
    let terms = Terms { closes_in: Some(Duration::from_mins(1)), ..Terms::default() };
    let task = market.execute(&ada, "4", terms).await.unwrap();
    let store = market.app.store();
    let bob = market.user("bob", Role::User).await;
    assert!(store.write(bob, async |work| tasks::cancel(work, task.id).await).await.is_err());
    let cancelled = store.write(ada.clone(), async |work| tasks::cancel(work, task.id).await).await.unwrap();
    assert_eq!(cancelled.status, task::Status::Cancelled);
    let again = store.write(ada.clone(), async |work| tasks::cancel(work, task.id).await).await.unwrap_err();
    assert_eq!(again.refusal_code(), Some("TASK_NOT_OPEN"));
    assert_eq!(market.balance(account::Kind::User, ada.user().unwrap().0).await, 10_000_000);
    market.check().await;
}

#[tokio::test]
async fn a_clock_that_is_set_back_ends_nothing_early_and_makes_nothing_negative() {
    let market = Market::new().await;
    let ada = market.user("ada", Role::User).await;
    let bob = market.user("bob", Role::User).await;
    let judge = market.user("judge", Role::Arbiter).await;
    market.credit(ada.user().unwrap(), "10").await;
    market.hosted(&bob, "lite", "1", LITE).await;
    let store = market.app.store();
    let set_back = |by: Duration| store.clock().step_back(by);
    let hour = Duration::from_hours(1);
    let mut ids = Vec::new();
    for _ in 0..3 {
        let new = NewTask { acceptance: task::Acceptance::Review, ..task_for("2") };
        let posted = store.write(ada.clone(), async |work| tasks::execute(work, new, Terms::default()).await).await;
        ids.push(posted.unwrap().id);
    }
    market.pass(Duration::ZERO).await;

    set_back(hour);
    market.pass(Duration::ZERO).await;
    let [accepted, disputed, silent] = [ids[0], ids[1], ids[2]];
    assert_eq!(market.task(silent).await.status, task::Status::Submitted);
    let done = store.write(ada.clone(), async |work| disputes::accept(work, accepted).await).await.unwrap();
    assert_eq!((done.status, done.finished_at), (task::Status::Completed, done.submitted_at), "not before its result");
    let opened = store.write(bob.clone(), async |work| disputes::open(work, disputed, "Mine.").await).await.unwrap();
    market.check().await;

    // Its stage is counted from the result, before which it cannot have begun, and is as long as it is, however the clock is turned.
    set_back(hour);
    market.pass(hour * 2).await;
    assert_eq!(market.task(disputed).await.deadline_at, Some(opened.evidence_until));
    let moment = Duration::from_micros(1);
    market.pass(market.app.config().terms.evidence_window.saturating_sub(moment)).await;
    let ruling = || disputes::Ruling { dispute: opened.id, award: credits("0.5"), opinion: "Half.".to_owned() };
    let early = store.write(judge.clone(), async |work| disputes::resolve(work, ruling()).await).await.unwrap_err();
    assert_eq!(early.refusal_code(), Some("EVIDENCE_STAGE_OPEN"));
    market.pass(moment).await;
    set_back(market.app.config().terms.evidence_window + hour);
    let ruled = store.write(judge, async |work| disputes::resolve(work, ruling()).await).await.unwrap();
    assert_eq!(ruled.resolved_at, Some(ruled.created_at), "not before it was opened");
    let done = market.task(disputed).await;
    assert_eq!((done.status, done.paid), (task::Status::Completed, Some(credits("0.5"))));
    assert!(done.finished_at >= done.submitted_at && done.submitted_at >= done.started_at);

    // Silence had decided while the clock was ahead, and once.
    let done = market.task(silent).await;
    assert_eq!((done.status, done.paid), (task::Status::Completed, Some(credits("1"))));
    market.check().await;
}
