//! The real program, killed without a warning while it works: what it acknowledged is there exactly once, whatever was under way
//! comes to an end, and the books are right.
//!
//! A failure prints its seed; `CRASH_SEED` runs that one again, as far as the moments of a kill can be repeated.

use std::{
    collections::{BTreeMap, HashSet},
    fs::File,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use futures_util::future::{join, join_all};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use reqwest::{Method, header::CONTENT_TYPE};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::world::{Client, Database, PASSWORD, http};

const TASKS: usize = 20;
const ROUNDS: usize = 5;
/// How long a task may take to its end after the last restart: the leases of three attempts, and the work of all on a busy machine.
const BOUND: Duration = Duration::from_secs(90);
const ADMIN: &str = "admin@example.com";

const EXECUTE: &str = "mutation($input: ExecuteTaskInput!) {
    executeTask(input: $input) { task { id } userErrors { code message } }
}";
const TASKS_OF: &str =
    "{ tasks(first: 100) { totalCount nodes { id title status price paid failureCode maxAttempts } } }";
const TOKENS: &str = "tokens { accessToken user { id } } userErrors { code message field }";

/// An agent that counts to a hundred million and answers `1`.
const SLOW: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 16) "1")
    (func (export "_start") (local $left i64)
        (local.set $left (i64.const 100000000))
        (loop $again
            (local.set $left (i64.sub (local.get $left) (i64.const 1)))
            (br_if $again (i64.ne (local.get $left) (i64.const 0))))
        (i32.store (i32.const 0) (i32.const 16))
        (i32.store (i32.const 4) (i32.const 1))
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;

/// The program with its settings.
struct Program {
    data: PathBuf,
    database: Option<String>,
    address: SocketAddr,
}

/// A running server, which dies with this value.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Program {
    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_zerostate"));
        for (name, _) in std::env::vars() {
            if name.starts_with("ZEROSTATE_") || ["DATABASE_URL", "HOST", "PORT", "RUST_LOG"].contains(&name.as_str()) {
                command.env_remove(name);
            }
        }
        command.env("ZEROSTATE_DATA", &self.data).env("RUST_LOG", "warn").stdin(Stdio::null());
        if let Some(url) = &self.database {
            command.env("DATABASE_URL", url);
        }
        command
    }

    fn log(&self) -> PathBuf {
        self.data.join("log")
    }

    fn start(&self) -> Server {
        let log = File::options().create(true).append(true).open(self.log()).unwrap();
        let mut command = self.command();
        command
            .args(["serve", "--host", "127.0.0.1", "--port", &self.address.port().to_string()])
            .envs([("ZEROSTATE_ADMIN_EMAIL", ADMIN), ("ZEROSTATE_ADMIN_PASSWORD", PASSWORD), ("ZEROSTATE_LEASE", "2")])
            .stdout(Stdio::null())
            .stderr(log);
        Server(command.spawn().unwrap())
    }

    async fn is_ready(&self) {
        let (client, since) = (http(), Instant::now());
        let url = format!("http://{}/ready", self.address);
        while !client.get(&url).send().await.is_ok_and(|reply| reply.status() == 200) {
            assert!(since.elapsed() < Duration::from_secs(30), "the server does not start: {}", self.last_words());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn last_words(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// `zerostate audit`, which must find nothing.
    fn audit(&self) {
        let output = self.command().arg("audit").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "the audit: {} {said}", output.status);
    }
}

/// A free port of the loopback address. Each restart listens on it again.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Sends a mutation until it is answered, as a client does that wants its intent done once.
async fn until_acknowledged(client: &Client, document: &str, variables: &Value) -> Value {
    let body = json!({ "query": document, "variables": variables }).to_string();
    loop {
        let request = client.request(Method::POST, "/graphql").header(CONTENT_TYPE, "application/json");
        if let Ok(reply) = request.body(body.clone()).send().await
            && let Ok(answer) = reply.json::<Value>().await
        {
            if answer["errors"].is_null() {
                return answer["data"].clone();
            }
            assert_eq!(answer["errors"][0]["extensions"]["retryable"], true, "{answer:#}");
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

/// Kills the server again and again at random moments, also while it starts, and leaves it running at last.
async fn kill_and_restart(program: &Program, server: Server, mut dice: StdRng) -> Server {
    let mut server = server;
    for round in 1..=ROUNDS {
        let moment = Duration::from_millis(dice.random_range(50..1_800));
        tokio::time::sleep(moment).await;
        drop(server);
        eprintln!("crash: round {round}, killed after {moment:?}");
        server = program.start();
        if dice.random_range(0..3) > 0 {
            program.is_ready().await;
        }
    }
    program.is_ready().await;
    server
}

fn seed() -> u64 {
    match std::env::var("CRASH_SEED") {
        Ok(seed) => seed.parse().expect("CRASH_SEED is a number"),
        Err(_) => std::time::UNIX_EPOCH.elapsed().unwrap().as_secs(),
    }
}

/// A payer with a hundred credits, and a slow agent of somebody else.
async fn set_up(program: &Program, payer: &Client) -> Client {
    let input = json!({ "email": ADMIN, "password": PASSWORD });
    let login = format!("mutation($input: LoginInput!) {{ login(input: $input) {{ {TOKENS} }} }}");
    let answer = payer.done("login", &login, json!({ "input": input })).await;
    let admin = payer.clone().signed_in("admin", &answer["tokens"]);
    let mut people = Vec::new();
    for name in ["payer", "owner"] {
        let input = json!({ "email": format!("{name}@example.com"), "displayName": name, "password": PASSWORD });
        let register = format!("mutation($input: RegisterUserInput!) {{ registerUser(input: $input) {{ {TOKENS} }} }}");
        let answer = payer.done("registerUser", &register, json!({ "input": input })).await;
        people.push(payer.clone().signed_in(name, &answer["tokens"]));
    }
    let issue =
        "mutation($input: IssueCreditsInput!) { issueCredits(input: $input) { transfer { id } userErrors { code } } }";
    let input = json!({ "userId": people[0].id(), "amount": "100", "reference": "paper", "idempotencyKey": "paper" });
    admin.done("issueCredits", issue, json!({ "input": input })).await;
    let register =
        "mutation($input: RegisterAgentInput!) { registerAgent(input: $input) { agent { id } userErrors { code } } }";
    let input = json!({
        "name": "slow", "capabilities": ["slow"], "runtime": "HOSTED", "price": "2", "idempotencyKey": "slow",
    });
    let agent = people[1].done("registerAgent", register, json!({ "input": input })).await;
    let agent = agent["agent"]["id"].as_str().unwrap();
    let uploaded = people[1].upload(agent, wat::parse_str(SLOW).unwrap()).await;
    assert_eq!(uploaded.status, 200, "{}: {}", uploaded.text, program.last_words());
    people.swap_remove(0)
}

async fn story(folder: &Path, database: Option<String>) {
    let seed = seed();
    eprintln!("crash: seed {seed}");
    let mut dice = StdRng::seed_from_u64(seed);
    let program = Program { data: folder.to_owned(), database, address: free_address() };
    let server = program.start();
    program.is_ready().await;
    let payer = set_up(&program, &Client::new(http(), program.address)).await;

    let starts: Vec<u64> = (0..TASKS).map(|_| dice.random_range(0..3_000)).collect();
    let over = CancellationToken::new();
    let clients = join_all(starts.iter().enumerate().map(async |(number, start)| {
        let key = format!("intent-{number}");
        let input = json!({ "input": {
            "title": key, "capabilities": ["slow"], "input": number, "budget": "3", "timeout": "PT60S",
            "startTimeout": "PT10M", "idempotencyKey": key,
        } });
        tokio::time::sleep(Duration::from_millis(*start)).await;
        let first = until_acknowledged(&payer, EXECUTE, &input).await;
        // It sends the same again, now and then, until the killing is over, and once more after it.
        let mut answers = vec![first];
        loop {
            let is_over = over.is_cancelled();
            answers.push(until_acknowledged(&payer, EXECUTE, &input).await);
            if is_over {
                return (key, answers);
            }
            tokio::select! {
                () = over.cancelled() => {}
                () = tokio::time::sleep(Duration::from_millis(700)) => {}
            }
        }
    }));
    let killing = async {
        let server = kill_and_restart(&program, server, dice).await;
        over.cancel();
        server
    };
    let (acknowledged, server) = join(clients, killing).await;
    let restarted = Instant::now();

    // Every acknowledgement of an intent named the same task, and no two intents the same one.
    let mut tasks: BTreeMap<String, String> = BTreeMap::new();
    for (key, answers) in &acknowledged {
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{key}: {answers:#?}");
        let payload = &answers[0]["executeTask"];
        assert_eq!(payload["userErrors"], json!([]), "{key}");
        tasks.insert(payload["task"]["id"].as_str().unwrap().to_owned(), key.clone());
    }
    assert_eq!(tasks.len(), TASKS);

    let found = loop {
        let found = payer.query(TASKS_OF, json!({})).await["tasks"].clone();
        let live = |node: &Value| ["OPEN", "AWARDED", "RUNNING"].contains(&node["status"].as_str().unwrap());
        let nodes = found["nodes"].as_array().unwrap();
        if !nodes.iter().any(live) {
            break found;
        }
        assert!(restarted.elapsed() < BOUND, "tasks do not end: {nodes:#?}\n{}", program.last_words());
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    eprintln!("crash: everything had ended {:?} after the last restart", restarted.elapsed());

    // Exactly those that were acknowledged, once each.
    let nodes = found["nodes"].as_array().unwrap();
    assert_eq!((&found["totalCount"], nodes.len()), (&json!(TASKS), TASKS), "{found:#}");
    let stored: HashSet<(&str, &str)> =
        nodes.iter().map(|node| (node["id"].as_str().unwrap(), node["title"].as_str().unwrap())).collect();
    assert_eq!(stored, tasks.iter().map(|(id, key)| (id.as_str(), key.as_str())).collect());
    let mut paid = 0;
    for node in nodes {
        match node["status"].as_str().unwrap() {
            "COMPLETED" => {
                assert_eq!(node["paid"], "2", "{node}");
                paid += 2;
            }
            // Killed in the middle as often as it may be tried.
            "REFUNDED" => {
                assert_eq!((&node["paid"], &node["failureCode"]), (&json!("0"), &json!("WORKER_LOST")), "{node}");
            }
            other => panic!("{other}: {node}"),
        }
    }
    assert!(paid > 0, "some work was done: {nodes:#?}");
    let wallet = payer.query("{ me { wallet { available inEscrow } } }", json!({})).await["me"]["wallet"].clone();
    assert_eq!(wallet, json!({ "available": (100 - paid).to_string(), "inEscrow": "0" }));
    // What is done is done, also when the server dies once more.
    drop(server);
    program.audit();
    let _server = program.start();
    program.is_ready().await;
    let again = payer.query(TASKS_OF, json!({})).await["tasks"].clone();
    assert_eq!(again, found);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_forgets_nothing_and_does_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::empty(folder.path()).await;
    let url = match &database {
        // The one in the data folder.
        Database::Sqlite(_) => None,
        Database::Postgres { .. } => Some(database.url()),
    };
    story(folder.path(), url).await;
}
