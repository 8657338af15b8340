//! Webhooks: what an outside agent is told at its own address, that the messages are signed as the standard says, and that they go
//! nowhere else.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use entity::{agent, execution, id::AgentId, task, text::JsonText};
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, sea_query::Expr};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_util::task::TaskTracker;
use zerostate::{
    caller::Caller,
    config::Config,
    execution as executions,
    task::{self as tasks, Report, Usage},
};

use crate::{
    faults::{
        Folder,
        program::{ADMIN, Program},
    },
    world::{Client, Database, PASSWORD, PATIENCE, World, http, on_postgres},
};

const WEBHOOK: &str = "query($id: ID!) { agent(id: $id) { webhook { url deliveries(first: 50) { totalCount nodes {
    id event url body status attempts answer error createdAt nextAt finishedAt task { id }
} } } } }";

/// What came at a receiver.
#[derive(Clone, Debug)]
struct Request {
    head: String,
    body: String,
}

impl Request {
    fn header(&self, name: &str) -> &str {
        let line = self.head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.unwrap_or_else(|| panic!("no {name} in {}", self.head))
    }

    /// Whether the signature is right, computed here by the definition of HMAC and not by the library of the program.
    fn is_signed_with(&self, secret: &str) -> bool {
        use sha2::{Digest, Sha256};
        let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        assert_eq!(key.len(), 32);
        let pad =
            |byte: u8| key.iter().copied().chain(std::iter::repeat(0)).take(64).map(|it| it ^ byte).collect::<Vec<_>>();
        let signed = format!("{}.{}.{}", self.header("webhook-id"), self.header("webhook-timestamp"), self.body);
        let inner = Sha256::new().chain_update(pad(0x36)).chain_update(signed).finalize();
        let tag = Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize();
        self.header("webhook-signature") == format!("v1,{}", STANDARD.encode(tag))
    }

    fn told(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// How a receiver answers.
#[derive(Clone, Copy, Debug)]
enum Manner {
    Says(u16),
    /// Sends the caller to another place.
    Redirects(SocketAddr),
    /// Says nothing for longer than anybody waits.
    Keeps,
}

/// A server that takes messages.
#[derive(Clone)]
struct Receiver {
    address: SocketAddr,
    came: Arc<Mutex<Vec<Request>>>,
    manner: Arc<Mutex<Manner>>,
}

impl Receiver {
    async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let receiver = Self { address, came: Arc::default(), manner: Arc::new(Mutex::new(Manner::Says(204))) };
        let (own, tracker) = (receiver.clone(), TaskTracker::new());
        let connections = tracker.clone();
        tracker.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let own = own.clone();
                connections.spawn(async move {
                    let (mut read, mut piece) = (Vec::new(), [0; 4_096]);
                    let (head, body) = loop {
                        let count = stream.read(&mut piece).await.unwrap_or(0);
                        read.extend_from_slice(&piece[..count]);
                        let text = String::from_utf8_lossy(&read).into_owned();
                        if let Some((head, body)) = text.split_once("\r\n\r\n") {
                            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                                break (head.to_owned(), body.to_owned());
                            }
                        }
                        if count == 0 {
                            return;
                        }
                    };
                    own.came.lock().unwrap().push(Request { head, body });
                    let manner = *own.manner.lock().unwrap();
                    let answer = match manner {
                        Manner::Says(status) => format!("HTTP/1.1 {status} So\r\ncontent-length: 0\r\n\r\n"),
                        Manner::Redirects(to) => {
                            format!("HTTP/1.1 307 There\r\nlocation: http://{to}/\r\ncontent-length: 0\r\n\r\n")
                        }
                        Manner::Keeps => return tokio::time::sleep(PATIENCE * 10).await,
                    };
                    drop(stream.write_all(answer.as_bytes()).await);
                });
            }
        });
        receiver
    }

    fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    fn answers(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    fn came(&self) -> Vec<Request> {
        self.came.lock().unwrap().clone()
    }
}

/// A buyer and an outside agent, whose owner sets its webhook.
struct Deal {
    world: World,
    ada: Client,
    bob: Client,
    agent: AgentId,
}

impl Deal {
    async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let world = World::with(change).await;
        let (ada, bob) = (world.user("ada").await, world.user("bob").await);
        world.credit(&ada, "100").await;
        let agent = world.agent(&bob, "outside", "EXTERNAL", "text.stats", "1").await;
        Self { world, ada, bob, agent }
    }

    /// Where private addresses are allowed, as the receivers of these stories have them.
    async fn open() -> Self {
        Self::with(|config| config.terms.allow_private_webhooks = true).await
    }

    fn input(&self, url: Option<&str>, rotate: bool) -> Value {
        json!({ "agentId": self.agent.to_string(), "url": url, "rotate": rotate })
    }

    /// Sets the webhook. Answers the secret, if there is a new one.
    async fn set(&self, url: Option<&str>, rotate: bool) -> Option<String> {
        let done = self.bob.call("setWebhook", "agent { webhook { url } } secret", self.input(url, rotate)).await;
        assert_eq!(done["agent"]["webhook"]["url"].as_str().is_some(), url.is_some());
        done["secret"].as_str().map(str::to_owned)
    }

    /// An auction that the agent wins. Answers the task.
    async fn won(&self) -> String {
        let auction = self.ada.open(json!({ "closesIn": "PT1M", "startTimeout": "P7D" })).await;
        self.bob.bid(&auction, self.agent, "3").await;
        self.world.pass(Duration::from_mins(1)).await;
        self.ada.task_of(&auction).await["id"].as_str().unwrap().to_owned()
    }

    /// The messages to the agent, newest first, as `who` sees them.
    async fn log(&self, who: &Client) -> Vec<Value> {
        let webhook = who.query(WEBHOOK, json!({ "id": self.agent.to_string() })).await["agent"]["webhook"].take();
        webhook["deliveries"]["nodes"].as_array().cloned().unwrap_or_default()
    }

    async fn carry(&self) -> usize {
        self.world.app.carry_once().await.unwrap()
    }
}

/// Ends a task of an outside agent, claimed as if it had been at its own place.
async fn worked(world: &World, id: &str, outcome: Result<&str, &str>) {
    let store = world.app.store();
    let id: entity::id::TaskId = id.parse().unwrap();
    let run =
        execution::Entity::find().filter(execution::Column::TaskId.eq(id)).one(store.read()).await.unwrap().unwrap();
    let outcome = match outcome {
        Ok(output) => Ok(JsonText(output.to_owned())),
        Err(code) => Err(tasks::Fault { code: code.to_owned(), message: "No.".into(), of_agent: true, output: None }),
    };
    let report = Report {
        execution: run.id,
        outcome,
        check: None,
        logs: String::new(),
        usage: Usage::default(),
        module_sha256: None,
    };
    let verb = async |work: &mut zerostate::store::Work| {
        let row = tasks::lock(work, id).await?;
        let agent = agent::Entity::find_by_id(run.agent_id).one(work.tx()).await?.unwrap();
        let row: task::Model = tasks::start(work, row, &agent, 1).await?;
        execution::Entity::update_many()
            .col_expr(execution::Column::Status, Expr::value(execution::Status::Running))
            .col_expr(execution::Column::Token, Expr::value(1_i64))
            .col_expr(execution::Column::Attempts, Expr::value(1))
            .col_expr(execution::Column::Worker, Expr::value(Some("elsewhere")))
            .col_expr(execution::Column::LeasedUntil, Expr::value(Some(work.now().after(Duration::from_secs(30)))))
            .col_expr(execution::Column::StartedAt, Expr::value(Some(work.now())))
            .filter(execution::Column::Id.eq(run.id))
            .exec(work.tx())
            .await?;
        executions::complete(work, row.id, 1, report).await
    };
    store.write(Caller::System, verb).await.unwrap();
}

#[tokio::test]
async fn an_agent_is_told_what_it_won_and_what_became_of_it_in_signed_messages() {
    let (deal, receiver) = (Deal::open().await, Receiver::open().await);
    let secret = deal.set(Some(&receiver.url()), false).await.expect("the first address comes with a secret");
    assert_eq!(deal.set(Some(&receiver.url()), false).await, None, "and it is told once");
    let (good, bad) = (deal.won().await, deal.won().await);
    assert_eq!((deal.carry().await, deal.carry().await, deal.carry().await), (1, 1, 0), "one at a time for an agent");
    worked(&deal.world, &good, Ok("1")).await;
    worked(&deal.world, &bad, Err("TRAP")).await;
    while deal.carry().await > 0 {}

    let came = receiver.came();
    let told: Vec<Value> = came.iter().map(Request::told).collect();
    let types: Vec<&str> = told.iter().map(|told| told["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["work.offered", "work.offered", "task.completed", "task.refunded"]);
    let claim_by = deal.ada.task(&good).await;
    assert_eq!(claim_by["deadlineAt"], Value::Null);
    let offered = &told[0]["data"];
    assert_eq!((&offered["taskId"], &offered["agentId"]), (&json!(good), &json!(deal.agent.to_string())));
    assert_eq!(
        (&offered["status"], &offered["price"], &offered["paid"]),
        (&json!("AWARDED"), &json!("3"), &Value::Null)
    );
    assert_eq!(offered["claimBy"], "2026-11-30T12:01:00.000000Z");
    assert_eq!(told[0]["timestamp"], "2026-11-23T12:01:00.000000Z");
    assert_eq!((&told[2]["data"]["taskId"], &told[2]["data"]["paid"]), (&json!(good), &json!("3")));
    assert_eq!((&told[3]["data"]["failureCode"], &told[3]["data"]["claimBy"]), (&json!("TRAP"), &Value::Null));
    let mut ids = Vec::new();
    for request in &came {
        assert!(request.is_signed_with(&secret), "{request:?}");
        let other = Request { body: request.body.replace('3', "4"), ..request.clone() };
        assert!(!other.is_signed_with(&secret));
        assert!(request.head.starts_with("POST /hook HTTP/1.1\r\n"), "{}", request.head);
        assert_eq!(request.header("content-type"), "application/json");
        assert_eq!(request.header("webhook-timestamp"), (deal.world.now().micros() / 1_000_000).to_string());
        // The input of the task is nobody's but the parties'.
        assert!(!request.body.contains("one two three") && !request.body.contains("Count this"), "{}", request.body);
        ids.push(request.header("webhook-id").to_owned());
    }

    // The log of it is for the owner alone.
    let log = deal.log(&deal.bob).await;
    assert_eq!(log.len(), 4);
    for (message, (request, id)) in log.iter().rev().zip(came.iter().zip(&ids)) {
        assert_eq!(
            (&message["status"], &message["answer"], &message["attempts"]),
            (&json!("DELIVERED"), &json!(204), &json!(1))
        );
        assert_eq!((&message["id"], &message["body"]), (&json!(id), &json!(request.body)));
        assert_eq!((&message["error"], &message["nextAt"]), (&Value::Null, &Value::Null));
        assert!(message["task"]["id"] == json!(good) || message["task"]["id"] == json!(bad));
    }
    for other in [&deal.ada, &deal.world.anonymous()] {
        assert!(deal.log(other).await.is_empty());
        let seen = other.query(WEBHOOK, json!({ "id": deal.agent.to_string() })).await;
        assert_eq!(seen["agent"]["webhook"], Value::Null);
    }
    deal.world.check().await;
}

#[tokio::test]
async fn a_message_that_is_not_taken_is_tried_again_until_there_is_no_use() {
    let (deal, receiver) = (Deal::open().await, Receiver::open().await);
    let secret = deal.set(Some(&receiver.url()), false).await.unwrap();
    receiver.answers(Manner::Says(500));
    deal.won().await;
    let mut pauses = Vec::new();
    for tries in 1..=10 {
        assert_eq!(deal.carry().await, 1, "try {tries}");
        assert_eq!(deal.carry().await, 0, "not before its time");
        let message = deal.log(&deal.bob).await.remove(0);
        assert_eq!((&message["attempts"], &message["answer"]), (&json!(tries), &json!(500)));
        assert_eq!(message["error"], "REFUSED");
        let Some(next) = message["nextAt"].as_str() else { break };
        let next: chrono::DateTime<chrono::Utc> = next.parse().unwrap();
        let pause = next - deal.world.now().datetime().unwrap();
        deal.world.turn(pause.to_std().unwrap());
        pauses.push(pause.num_milliseconds());
    }
    for (pause, full) in pauses.iter().zip((0..).map(|doublings| 5_000 << doublings)) {
        assert!((full / 2..=full).contains(pause), "{pauses:?}");
    }
    let message = deal.log(&deal.bob).await.remove(0);
    assert_eq!((&message["status"], &message["attempts"]), (&json!("FAILED"), &json!(10)));
    deal.world.turn(Duration::from_hours(24));
    assert_eq!(deal.carry().await, 0);
    // Every try is the same message with the instant of the try.
    let came = receiver.came();
    assert_eq!(came.len(), 10);
    assert!(came.iter().all(|request| request.is_signed_with(&secret) && request.body == came[0].body));
    assert!(came.iter().all(|request| request.header("webhook-id") == came[0].header("webhook-id")));
    assert_ne!(came[0].header("webhook-timestamp"), came[9].header("webhook-timestamp"));

    // One that is taken in the end, and an address that says that it is gone.
    deal.won().await;
    assert_eq!(deal.carry().await, 1);
    receiver.answers(Manner::Says(200));
    deal.world.turn(Duration::from_secs(5));
    assert_eq!(deal.carry().await, 1);
    let message = deal.log(&deal.bob).await.remove(0);
    assert_eq!(
        (&message["status"], &message["attempts"], &message["answer"]),
        (&json!("DELIVERED"), &json!(2), &json!(200))
    );
    receiver.answers(Manner::Says(410));
    deal.won().await;
    assert_eq!(deal.carry().await, 1);
    let message = deal.log(&deal.bob).await.remove(0);
    assert_eq!(
        (&message["status"], &message["attempts"], &message["answer"]),
        (&json!("FAILED"), &json!(1), &json!(410))
    );
    deal.world.check().await;
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_an_address_that_is_not_there_is_said() {
    let (deal, receiver, other) = (Deal::open().await, Receiver::open().await, Receiver::open().await);
    deal.set(Some(&receiver.url()), false).await;
    receiver.answers(Manner::Redirects(other.address));
    deal.won().await;
    deal.carry().await;
    let message = deal.log(&deal.bob).await.remove(0);
    assert_eq!((&message["status"], &message["answer"]), (&json!("PENDING"), &json!(307)));
    assert!(other.came().is_empty() && receiver.came().len() == 1);

    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    deal.set(Some(&format!("http://{closed}/")), false).await;
    deal.world.turn(Duration::from_secs(5));
    deal.carry().await;
    let message = deal.log(&deal.bob).await.remove(0);
    assert_eq!((&message["error"], &message["answer"]), (&json!("NOT_REACHED"), &Value::Null), "{message}");
    assert_eq!(message["url"], format!("http://{closed}/"), "what waits goes to the new address");
    deal.world.check().await;
}

#[tokio::test]
async fn an_address_that_keeps_us_waiting_holds_nobody_else_up() {
    let (deal, slow, quick) = (Deal::open().await, Receiver::open().await, Receiver::open().await);
    deal.set(Some(&slow.url()), false).await;
    slow.answers(Manner::Keeps);
    let eve = deal.world.user("eve").await;
    let second = deal.world.agent(&eve, "second", "EXTERNAL", "other", "1").await;
    let input = json!({ "agentId": second.to_string(), "url": quick.url() });
    eve.call("setWebhook", "secret", input).await;
    deal.won().await;
    let auction = deal.ada.open(json!({ "capabilities": ["other"], "closeAfterBids": 1 })).await;
    eve.bid(&auction, second, "3").await;
    let began = std::time::Instant::now();
    let mut carrying = Box::pin(deal.carry());
    while quick.came().is_empty() {
        tokio::select! {
            carried = &mut carrying => panic!("{carried} carried, and the quick one got nothing"),
            () = tokio::time::sleep(Duration::from_millis(10)) => {}
        }
    }
    assert!(began.elapsed() < Duration::from_secs(9));
    assert_eq!(carrying.await, 2, "both were in one round");
    assert!(began.elapsed() < Duration::from_secs(20), "a try ends");
    assert_eq!(deal.log(&deal.bob).await[0]["error"], "TIMED_OUT");
    deal.world.check().await;
}

#[tokio::test]
async fn nothing_goes_to_a_private_address_by_number_or_by_name() {
    let deal = Deal::with(|_| {}).await;
    for url in [
        "https://127.0.0.1/",
        "https://[::1]:8443/",
        "https://10.0.0.7/hook",
        "https://169.254.169.254/latest",
        "https://[::ffff:192.168.0.1]/",
        "https://100.64.0.1/",
        "https://[fd00::1]/",
        "https://2130706433/",
    ] {
        assert_eq!(
            deal.bob.refusal("setWebhook", deal.input(Some(url), false)).await,
            "WEBHOOK_TARGET_FORBIDDEN",
            "{url}"
        );
    }
    for url in ["http://example.org/", "https://ada:secret@example.org/", "hook", "file:///etc/passwd"] {
        assert_eq!(deal.bob.refusal("setWebhook", deal.input(Some(url), false)).await, "INVALID_INPUT", "{url}");
    }
    // A name says only at the try where it leads.
    let receiver = Receiver::open().await;
    let by_name = format!("https://localhost:{}/", receiver.address.port());
    deal.set(Some(&by_name), false).await;
    deal.won().await;
    for tries in 1..=2 {
        assert_eq!(deal.carry().await, 1);
        let message = deal.log(&deal.bob).await.remove(0);
        assert_eq!((&message["error"], &message["attempts"]), (&json!("WEBHOOK_TARGET_FORBIDDEN"), &json!(tries)));
        deal.world.turn(Duration::from_secs(5));
    }
    assert!(receiver.came().is_empty(), "not even a connection");
    // What is in the database counts as little as what was asked for.
    let url = receiver.url();
    let sql = format!("UPDATE deliveries SET url = '{url}'");
    let database = deal.world.database_url();
    let database = if database.starts_with("sqlite:") { format!("{database}?mode=rwc") } else { database };
    sea_orm::Database::connect(database).await.unwrap().execute_unprepared(&sql).await.unwrap();
    deal.world.turn(Duration::from_mins(1));
    assert_eq!(deal.carry().await, 1);
    assert_eq!(deal.log(&deal.bob).await[0]["error"], "WEBHOOK_TARGET_FORBIDDEN");
    assert!(receiver.came().is_empty());
    deal.world.check().await;
}

#[tokio::test]
async fn a_secret_is_changed_told_again_to_a_retry_and_taken_away_with_the_address() {
    let (deal, receiver) = (Deal::open().await, Receiver::open().await);
    let url = receiver.url();
    let mut input = deal.input(Some(&url), false);
    input["idempotencyKey"] = json!("the-first");
    let set = async || deal.bob.call("setWebhook", "agent { version } secret", input.clone()).await;
    let (first, again) = (set().await, set().await);
    assert_eq!(first, again, "an answer that was lost can be asked for again");
    let old = first["secret"].as_str().unwrap().to_owned();
    deal.won().await;
    let new = deal.set(Some(&url), true).await.unwrap();
    assert_ne!(old, new);
    deal.carry().await;
    let came = receiver.came();
    assert!(came[0].is_signed_with(&new) && !came[0].is_signed_with(&old), "what waited is signed with the new one");
    // No secret is kept anywhere.
    let store = deal.world.app.store();
    let rows = entity::idempotency::Entity::find().all(store.read()).await.unwrap();
    let kept = format!("{rows:?} {:?}", agent::Entity::find().all(store.read()).await.unwrap());
    for secret in [&old, &new] {
        assert!(!kept.contains(secret.strip_prefix("whsec_").unwrap()));
    }

    // Without an address nothing is written, and what waits is given up.
    deal.won().await;
    assert_eq!(deal.set(None, false).await, None);
    assert_eq!(deal.carry().await, 0);
    deal.won().await;
    assert_eq!(deal.carry().await, 0);
    assert_eq!(receiver.came().len(), 1);
    let third = deal.set(Some(&url), false).await.expect("a new address has a new secret");
    assert!(third != old && third != new);
    let log = deal.log(&deal.bob).await;
    assert_eq!(log.len(), 2, "what was won without an address was never told");
    assert_eq!((&log[0]["status"], &log[0]["error"]), (&json!("FAILED"), &json!("WEBHOOK_TAKEN_AWAY")));

    // A hosted agent has none, nor has somebody else's, nor one that is gone.
    let hosted = deal.world.agent(&deal.bob, "hosted", "HOSTED", "a", "1").await.to_string();
    let input = json!({ "agentId": hosted, "url": url });
    assert_eq!(deal.bob.refusal("setWebhook", input).await, "AGENT_NOT_EXTERNAL");
    assert_eq!(deal.ada.refusal("setWebhook", deal.input(Some(&url), false)).await, "NOT_FOUND");
    deal.bob.call("retireAgent", "agent { id }", json!({ "agentId": deal.agent.to_string() })).await;
    assert_eq!(deal.bob.refusal("setWebhook", deal.input(Some(&url), true)).await, "AGENT_RETIRED");
    deal.world.check().await;
}

#[tokio::test]
async fn what_waits_outlives_a_process_and_is_carried_once_by_several() {
    let (deal, receiver) = (Deal::open().await, Receiver::open().await);
    let secret = deal.set(Some(&receiver.url()), false).await.unwrap();
    receiver.answers(Manner::Says(503));
    deal.won().await;
    assert_eq!(deal.carry().await, 1);
    receiver.answers(Manner::Says(200));
    deal.world.turn(Duration::from_secs(5));
    // Other processes come up over the same database, and nothing in the memory of the first is needed.
    let (one, two) = (deal.world.another().await, deal.world.another().await);
    let carried = tokio::join!(one.app.carry_once(), two.app.carry_once(), deal.world.app.carry_once());
    assert_eq!(carried.0.unwrap() + carried.1.unwrap() + carried.2.unwrap(), 1);
    assert_eq!(receiver.came().len(), 2);
    assert!(receiver.came()[1].is_signed_with(&secret));

    // A process that dies between claim and note: its claim runs out.
    deal.won().await;
    let sql = format!(
        "UPDATE deliveries SET attempts = 1, next_at = {} WHERE status = 'PENDING'",
        deal.world.now().after(Duration::from_secs(30)).micros()
    );
    let database = deal.world.database_url();
    let database = if database.starts_with("sqlite:") { format!("{database}?mode=rwc") } else { database };
    sea_orm::Database::connect(database).await.unwrap().execute_unprepared(&sql).await.unwrap();
    assert_eq!(deal.carry().await, 0);
    deal.world.turn(Duration::from_secs(30));
    assert_eq!(deal.carry().await, 1);
    let message = deal.log(&deal.bob).await.remove(0);
    assert_eq!((&message["status"], &message["attempts"]), (&json!("DELIVERED"), &json!(2)));
    deal.world.check().await;
}

/// Waits until a condition holds.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let since = std::time::Instant::now();
    while !holds().await {
        assert!(since.elapsed() < PATIENCE * 5, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_between_two_tries_goes_on_with_them() {
    let (folder, receiver) = (Folder::new(), Receiver::open().await);
    let database = Database::empty(folder.path()).await;
    let url = on_postgres().then(|| database.url());
    let program = Program::new(folder.path(), url);
    let start = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_zerostate"));
        command.env("ZEROSTATE_ALLOW_PRIVATE_WEBHOOKS", "true");
        program.start_by(command, None)
    };
    let server = start();
    program.is_ready().await;

    let nobody = Client::new(http(), program.address);
    let tokens = "tokens { accessToken user { id } }";
    let admin = nobody.call("login", tokens, json!({ "email": ADMIN, "password": PASSWORD })).await;
    let admin = nobody.anonymous().signed_in("admin", &admin["tokens"]);
    let mut people = Vec::new();
    for name in ["ada", "bob"] {
        let input = json!({ "email": format!("{name}@example.com"), "displayName": name, "password": PASSWORD });
        let answer = nobody.call("registerUser", tokens, input).await;
        people.push(nobody.anonymous().signed_in(name, &answer["tokens"]));
    }
    let [ada, bob] = &people[..] else { panic!("two people") };
    let input = json!({ "userId": ada.id(), "amount": "10", "reference": "first" });
    admin.call("issueCredits", "transfer { id }", input).await;
    let input = json!({ "name": "outside", "capabilities": ["text.stats"], "runtime": "EXTERNAL", "price": "1" });
    let agent = bob.call("registerAgent", "agent { id }", input).await["agent"]["id"].take();
    let input = json!({ "agentId": agent, "url": receiver.url() });
    let secret = bob.call("setWebhook", "secret", input).await["secret"].as_str().unwrap().to_owned();

    receiver.answers(Manner::Says(503));
    let auction = ada.open(json!({ "closeAfterBids": 1, "startTimeout": "P7D" })).await;
    bob.bid(&auction, agent.as_str().unwrap().parse().unwrap(), "3").await;
    until("the first try", async || !receiver.came().is_empty()).await;
    // SIGKILL, as soon as the first try has come, noted or not.
    drop(server);
    receiver.answers(Manner::Says(200));
    let tried = receiver.came().len();
    let server = start();
    program.is_ready().await;
    let status = async || {
        let seen = bob.query(WEBHOOK, json!({ "id": agent })).await;
        seen["agent"]["webhook"]["deliveries"]["nodes"][0]["status"].clone()
    };
    until("the delivery", async || status().await == json!("DELIVERED")).await;
    let came = receiver.came();
    assert_eq!(came.len(), tried + 1);
    assert!(came.iter().all(|request| request.is_signed_with(&secret) && request.told() == came[0].told()));
    drop(server);
    program.audit();
}
