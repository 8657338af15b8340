//! The service as its users meet it: the whole application on a database of its own, behind the real router on a port of the
//! loopback address, with a clock that stands still until it is turned.
//!
//! ```text
//! let world = World::start().await;
//! let ada = world.user("ada").await;
//! world.credit(&ada, "100").await;
//! let me = ada.query("{ me { id } }", json!({})).await;
//! world.pass(Duration::from_secs(60)).await;
//! world.check().await;
//! ```
//!
//! The database is SQLite in a temporary folder. With `TEST_DATABASE_URL` it is a PostgreSQL database of the test's own, a copy
//! of a template that is migrated once a run.

mod client;
mod database;
mod market;
mod stream;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use entity::{document, hold, id::AgentId, task, time::Timestamp, user::Role};
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, Statement};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::OnceCell};
use zerostate::{
    app::App,
    caller::Caller,
    config::Config,
    document::{value::Hex, verification},
    store::{Clock, Cursor, Entropy},
    task::rules::is_over,
    transport, user,
};

pub use client::{Client, Reply, fresh_key, http, send};
pub use database::{Database, LATER, expand, on_postgres};
pub use market::{answering, bids, commitment, crashing, echoing, guest, sample, sha256};
pub use stream::{Frame, Socket, Stream};

/// When every story begins: 2026-11-23T12:00:00Z.
pub const DAWN: Timestamp = Timestamp::from_micros(1_795_435_200_000_000);
/// The password of everybody.
pub const PASSWORD: &str = "correct horse battery staple";
/// How long anything that should happen by itself may take.
pub const PATIENCE: Duration = Duration::from_secs(10);

const REGISTER: &str = "mutation($input: RegisterUserInput!) {
    registerUser(input: $input) { tokens { accessToken user { id } } userErrors { code message field } }
}";
const LOGIN: &str = "mutation($input: LoginInput!) {
    login(input: $input) { tokens { accessToken user { id } } userErrors { code message field } }
}";
const ISSUE: &str = "mutation($input: IssueCreditsInput!) {
    issueCredits(input: $input) { transfer { id } userErrors { code message field } }
}";
const REGISTER_AGENT: &str = "mutation($input: RegisterAgentInput!) {
    registerAgent(input: $input) { agent { id } userErrors { code message field } }
}";

/// A running service and everything around it.
pub struct World {
    pub app: App,
    pub address: SocketAddr,
    clock: Clock,
    http: reqwest::Client,
    admin: OnceCell<Client>,
    checked: bool,
    // Dropped in this order: the database goes when nothing uses it any more, the folder last.
    database: Database,
    folder: TempDir,
}

impl World {
    /// A world with nobody in it.
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// A world whose configuration is changed a little.
    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::fresh(folder.path()).await;
        Self::over(database, folder, change).await
    }

    /// A world on the embedded database, whatever the others are on.
    pub async fn embedded() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::embedded(folder.path());
        Self::over(database, folder, |_| {}).await
    }

    async fn over(database: Database, folder: TempDir, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::in_folder(folder.path());
        config.storage.url = database.url();
        config.storage.max_connections = 6;
        config.auth.argon2 = (8, 1, 1);
        // One person asks for more here than anybody does; only stories about that are limited.
        config.limits.points_per_second = 0;
        // The clock may be turned by weeks; only stories about tokens want them to end.
        config.auth.access_ttl = Duration::from_hours(20 * 365 * 24);
        config.auth.session_ttl = Duration::from_hours(20 * 365 * 24);
        change(&mut config);

        let clock = Clock::manual(DAWN);
        let app = App::open(config, clock.clone(), Entropy::seeded(0x5eed)).await.unwrap();
        app.feed();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        app.tracker().spawn(transport::serve(app.clone(), listener));
        Self { app, address, clock, http: client::http(), admin: OnceCell::new(), checked: false, database, folder }
    }

    /// The URL of a page.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Where the database of this world is.
    pub fn database_url(&self) -> String {
        self.database.url()
    }

    /// Another process over the same database. It shares the database, the data folder and the clock, and nothing in memory.
    pub async fn another(&self) -> Peer {
        static NUMBER: AtomicU64 = AtomicU64::new(0xfee1);
        let entropy = Entropy::seeded(NUMBER.fetch_add(1, Ordering::Relaxed));
        let app = App::open(self.app.config().clone(), self.clock.clone(), entropy).await.unwrap();
        app.feed();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        app.tracker().spawn(transport::serve(app.clone(), listener));
        Peer { app, address }
    }

    /// Plain HTTP, for what is not GraphQL.
    pub fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// Somebody who is not signed in.
    pub fn anonymous(&self) -> Client {
        Client::new(self.http.clone(), self.address)
    }

    /// A new user, signed in.
    pub async fn user(&self, name: &str) -> Client {
        let input = json!({ "email": email(name), "displayName": name, "password": PASSWORD });
        let answer = self.anonymous().done("registerUser", REGISTER, json!({ "input": input })).await;
        self.anonymous().signed_in(name, &answer["tokens"])
    }

    /// Signs a user in once more: another session of the same person.
    pub async fn login(&self, name: &str) -> Client {
        let input = json!({ "email": email(name), "password": PASSWORD });
        let answer = self.anonymous().done("login", LOGIN, json!({ "input": input })).await;
        self.anonymous().signed_in(name, &answer["tokens"])
    }

    /// The one administrator of this world, who is made by the command line and not over the network.
    pub async fn admin(&self) -> Client {
        self.admin.get_or_init(|| self.of_role("admin", Role::Admin)).await.clone()
    }

    /// A new user with a role, signed in.
    pub async fn of_role(&self, name: &str, role: Role) -> Client {
        let password_hash = self.app.auth().hash(PASSWORD).await.unwrap();
        let account = user::NewAccount { email: email(name), display_name: name.to_owned(), password_hash, role };
        self.app.store().write(Caller::System, async |work| user::create(work, account).await).await.unwrap();
        self.login(name).await
    }

    /// Gives a user credits out of nothing, as the administrator may.
    pub async fn credit(&self, to: &Client, amount: &str) {
        let admin = self.admin().await;
        let key = fresh_key();
        let input = json!({ "userId": to.id(), "amount": amount, "reference": key, "idempotencyKey": key });
        admin.done("issueCredits", ISSUE, json!({ "input": input })).await;
    }

    /// Registers an agent of any kind (`HOSTED` or `EXTERNAL`).
    pub async fn agent(&self, owner: &Client, name: &str, runtime: &str, capability: &str, price: &str) -> AgentId {
        let input = json!({
            "name": name,
            "description": "",
            "capabilities": [capability],
            "runtime": runtime,
            "price": price,
            "idempotencyKey": fresh_key(),
        });
        let answer = owner.done("registerAgent", REGISTER_AGENT, json!({ "input": input })).await;
        answer["agent"]["id"].as_str().unwrap().parse().unwrap()
    }

    /// Registers a hosted agent and uploads its module: it bids and works by itself from now on.
    pub async fn hosted_agent(
        &self,
        owner: &Client,
        name: &str,
        capability: &str,
        price: &str,
        wasm: impl Into<Vec<u8>>,
    ) -> AgentId {
        let id = self.agent(owner, name, "HOSTED", capability, price).await;
        let response = owner.upload(&id.to_string(), wasm.into()).await;
        assert_eq!(response.status, 200, "the upload for {name}: {}", response.text);
        id
    }

    /// The folder of the service's data.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Turns the clock and does nothing else.
    pub fn turn(&self, duration: Duration) {
        self.clock.advance(duration);
    }

    /// Turns the clock back and does nothing else.
    pub fn turn_back(&self, duration: Duration) {
        self.clock.step_back(duration);
    }

    /// Turns the clock, then lets everything happen that is due, until nothing is.
    pub async fn pass(&self, duration: Duration) {
        self.clock.advance(duration);
        self.settle().await;
    }

    /// Lets everything happen that is due now.
    pub async fn settle(&self) {
        for _ in 0..1_000 {
            let swept = self.app.sweep_once().await.unwrap() + self.app.tidy_once().await.unwrap();
            let ran = self.app.run_ready().await.unwrap();
            if swept == 0 && ran == 0 {
                return;
            }
        }
        panic!("the market does not come to rest");
    }

    /// The present instant of this world.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The place of the newest event, to subscribe from: `after` this one nothing can be missed, whenever the subscription begins.
    pub async fn cursor(&self) -> String {
        // Reading gives every committed event its place.
        self.app.store().lines(None, None, 1).await.unwrap();
        self.app.store().head().await.unwrap().to_string()
    }

    /// A new connection by WebSocket that has said nothing yet.
    pub async fn socket(&self) -> Socket {
        Socket::open(self.address, Some("graphql-transport-ws"), None).await.unwrap()
    }

    /// What must hold at the end of every story: the books and the reputations are right, the event log is in order, and no
    /// money waits for a task that has ended.
    pub async fn check(mut self) {
        self.checked = true;
        let audit = self.app.audit().await.unwrap();
        assert!(audit.ok(), "the audit: {audit:#?}");
        self.check_events().await;
        self.check_holds().await;
        self.check_bonds().await;
        self.check_work().await;
        self.check_documents().await;
        self.app.shutdown(PATIENCE).await;
    }

    /// Every reader sees the log in one order, and for each task that order is the order of time.
    async fn check_events(&self) {
        let mut at = Cursor::default();
        let mut newest = std::collections::HashMap::new();
        loop {
            let lines = self.app.store().lines(None, Some(at), 500).await.unwrap();
            if lines.is_empty() {
                return;
            }
            for line in lines {
                assert!(line.cursor > at, "the log goes back at {:?}", line.event);
                at = line.cursor;
                if let Some(task) = line.event.task_id {
                    let before = newest.insert(task, line.event.occurred_at);
                    assert!(before.is_none_or(|it| it <= line.event.occurred_at), "time goes back at {:?}", line.event);
                }
            }
        }
    }

    /// A bond is held while its auction takes bids or reveals, and the winner's until its work begins.
    async fn check_bonds(&self) {
        let sql = "SELECT COUNT(*) FROM bonds b JOIN auctions a ON a.id = b.auction_id JOIN tasks t ON t.id = b.task_id \
             WHERE (b.status = 'HELD' AND a.status NOT IN ('OPEN', 'REVEALING') \
             AND (t.status <> 'AWARDED' OR t.agent_id <> b.agent_id)) OR t.id <> a.task_id";
        let store = self.app.store();
        let row = store.read().query_one_raw(Statement::from_string(store.backend(), sql)).await.unwrap().unwrap();
        assert_eq!(row.try_get_by_index::<i64>(0).unwrap(), 0, "bonds are stuck");
    }

    /// What an agent is counted to have in work is what it has.
    async fn check_work(&self) {
        let sql = "SELECT COUNT(*) FROM agents a WHERE a.in_work <> \
             (SELECT COUNT(*) FROM executions e WHERE e.agent_id = a.id AND e.status IN ('READY', 'RUNNING'))";
        let store = self.app.store();
        let row = store.read().query_one_raw(Statement::from_string(store.backend(), sql)).await.unwrap().unwrap();
        assert_eq!(row.try_get_by_index::<i64>(0).unwrap(), 0, "agents whose work is counted wrong");
    }

    async fn check_holds(&self) {
        let db = self.app.store().read();
        let held = hold::Entity::find().filter(hold::Column::Status.eq(hold::Status::Held)).all(db).await.unwrap();
        for hold in held {
            let task = task::Entity::find_by_id(hold.task_id).one(db).await.unwrap().expect("the task of a hold");
            assert!(
                !is_over(task.status),
                "{} credits are held for {}, which is {}",
                hold.amount,
                task.id,
                task.status.name()
            );
            assert!(task.deadline_at.is_some(), "nothing will ever end {}", task.id);
        }
    }
}

impl World {
    /// Every award has its certificate and every settlement of an awarded task its receipt, and all of them verify.
    async fn check_documents(&self) {
        let db = self.app.store().read();
        let documents = document::Entity::find().all(db).await.unwrap();
        let has = |task, kind| documents.iter().any(|document| document.task_id == task && document.kind == kind);
        for task in task::Entity::find().filter(task::Column::BidId.is_not_null()).all(db).await.unwrap() {
            assert!(has(task.id, document::Kind::AwardCertificate), "the award of {} has no certificate", task.id);
            let settled = has(task.id, document::Kind::TaskReceipt);
            assert_eq!(settled, is_over(task.status), "the receipt of {}, which is {}", task.id, task.status.name());
        }
        if documents.is_empty() {
            return;
        }
        let envelope =
            |row: &document::Model| json!({ "body": row.body, "sha256": row.sha256, "signature": row.signature });
        let text = documents.iter().map(envelope).collect::<Value>().to_string();
        let key = self.app.store().instance().unwrap().public_key();
        let verdict = verification::verify(&text, Some(Hex(key))).unwrap();
        let wrong = verdict.documents.iter().filter(|checked| !checked.findings.problems.is_empty());
        assert!(verdict.ok, "documents that do not verify: {:#?}", wrong.collect::<Vec<_>>());
    }
}

/// Another process over the database of a world.
pub struct Peer {
    pub app: App,
    pub address: SocketAddr,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.app.stop().cancel();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.app.stop().cancel();
        assert!(self.checked || std::thread::panicking(), "end the story with world.check().await");
    }
}

fn email(name: &str) -> String {
    format!("{name}@example.com")
}

/// The one field of a mutation's answer, which must not be refused.
#[track_caller]
fn done(answer: &Value, field: &str) -> Value {
    let payload = &answer[field];
    assert_eq!(payload["userErrors"], json!([]), "{field} was refused: {payload:#}");
    payload.clone()
}

/// The row of an agent.
pub async fn agent_row(world: &World, id: AgentId) -> entity::agent::Model {
    entity::agent::Entity::find_by_id(id).one(world.app.store().read()).await.unwrap().expect("the agent")
}
