//! The real program, killed without a warning while sixteen clients work: at random moments, also while it starts, and at named
//! places between two steps of its work. What it acknowledged is there exactly once and is answered the same again, whatever was
//! under way comes to an end, and the books are right.
//!
//! `make crash` runs 200 such cycles; `CRASH_CYCLES` says how many. A failure prints its seed and keeps its folder; `CRASH_SEED`
//! runs that one again, as far as the moments of a kill can be repeated.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use futures_util::future::join;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use reqwest::Method;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use zerostate::store::failpoint::POINTS;

use crate::{
    faults::{
        Folder, oracle,
        program::{ADMIN, Program, Server},
        seed, setting, some_millis,
        workload::{CLIENTS, Intent, Manners, Workload},
    },
    world::{Client, Database, PASSWORD, crashing, http, on_postgres, sample},
};

/// Kills after which everything is let come to its end and looked at.
const GROUP: usize = 10;
const MANNERS: Manners = Manners { gives_up_once_in: 5, repeats: 1, pause: 120 };

/// How often the process died where.
#[derive(Default)]
struct Kills {
    at_points: BTreeMap<&'static str, usize>,
    /// It did not come by the point in time and was killed at that moment.
    missed: usize,
    at_moments: usize,
    starting: usize,
}

impl Kills {
    fn count(&self) -> usize {
        self.at_points.values().sum::<usize>() + self.missed + self.at_moments + self.starting
    }
}

/// Lets the server die so many times and leaves it running at last.
async fn kill_and_restart(
    program: &Program,
    server: Server,
    dice: &mut StdRng,
    kills: &mut Kills,
    cycles: usize,
) -> Server {
    drop(server);
    for cycle in 0..cycles {
        if cycle % 5 < 3 {
            // One after the other, so that each has its turn.
            let point = POINTS[(kills.missed + kills.at_points.values().sum::<usize>()) % POINTS.len()];
            // What everybody passes, it passes often.
            let most = if point.starts_with("store") || point.starts_with("once") { 30 } else { 6 };
            let mut server = program.start_with(Some(&format!("{point}={}", dice.random_range(1..=most))));
            if server.ends_within(Duration::from_secs(4)).await {
                *kills.at_points.entry(point).or_default() += 1;
            } else {
                kills.missed += 1;
            }
        } else {
            let server = program.start();
            if dice.random_range(0..4) > 0 {
                program.is_ready().await;
                kills.at_moments += 1;
                tokio::time::sleep(some_millis(dice, 0..1_200)).await;
            } else {
                kills.starting += 1;
                tokio::time::sleep(some_millis(dice, 0..500)).await;
            }
            drop(server);
        }
    }
    let server = program.start();
    program.is_ready().await;
    server
}

async fn story(folder: &Path, database: Option<String>, cycles: usize) {
    let (seed, began) = (seed("CRASH_SEED"), Instant::now());
    eprintln!("crash: CRASH_SEED={seed}");
    let mut dice = StdRng::seed_from_u64(seed);
    let program = Program::new(folder, database);
    let mut server = program.start();
    program.is_ready().await;
    let mut workload = Workload::set_up(&Client::new(http(), program.address), seed).await;
    let (mut kills, mut intents, mut slowest): (Kills, Vec<Intent>, Duration) = Default::default();
    while kills.count() < cycles {
        let over = CancellationToken::new();
        let killing = async {
            let server = kill_and_restart(&program, server, &mut dice, &mut kills, GROUP.min(cycles)).await;
            over.cancel();
            server
        };
        let (mut new, alive) = join(workload.run(MANNERS, &over), killing).await;
        server = alive;
        slowest = slowest.max(oracle::judge(&program.database_url(), &mut workload, &mut new, &mut intents).await);
        // What is done is done, also when the server dies once more.
        drop(server);
        program.audit();
        server = program.start();
        program.is_ready().await;
        eprintln!("crash: {} kills, {} intents, {:?}", kills.count(), intents.len(), began.elapsed());
    }
    oracle::Oracle::open(&program.database_url()).await.everything_happened_as_it_was_answered(&intents).await;
    let (tries, failures) = (&workload.board.tries, &workload.board.failures);
    eprintln!(
        "crash: {} kills under {CLIENTS} clients in {:?}: {} at moments, {} at starts, {} at failpoints {:?}, {} points not met",
        kills.count(),
        began.elapsed(),
        kills.at_moments,
        kills.starting,
        kills.at_points.values().sum::<usize>(),
        kills.at_points,
        kills.missed,
    );
    eprintln!(
        "crash: {} intents in {tries:?} requests, {failures:?} of them failed; the slowest end took {slowest:?}; done of asked: {:?}",
        intents.len(),
        Workload::census(&intents),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_forgets_nothing_and_does_nothing_twice() {
    let folder = Folder::new();
    let database = Database::empty(folder.path()).await;
    let (url, usual) = match &database {
        // The one in the data folder.
        Database::Sqlite(_) => (None, 20),
        Database::Postgres { .. } => (Some(database.url()), 10),
    };
    assert_eq!(on_postgres(), url.is_some());
    story(folder.path(), url, setting("CRASH_CYCLES", usual)).await;
}

/// What the server answers, unless it dies.
async fn try_ask(client: &Client, document: &str, variables: &Value) -> Option<Value> {
    let body = json!({ "query": document, "variables": variables }).to_string();
    let request = client.request(Method::POST, "/graphql").header("content-type", "application/json").body(body);
    let text = request.send().await.ok()?.text().await.ok()?;
    serde_json::from_str(&text).ok()
}

/// Whether the server came up before it died.
async fn came_up(program: &Program, server: &mut Server) -> bool {
    let url = format!("http://{}/ready", program.address);
    let client = http();
    while server.ended().is_none() {
        if client.get(&url).send().await.is_ok_and(|reply| reply.status() == 200) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}

/// Where a delegation can be torn apart: the hand of the clock, its buying, every commit, and the workers.
const TORN: &[&str] = &[
    "sweep::step",
    "task::held",
    "store::before_events",
    "store::before_commit",
    "store::after_commit",
    "worker::claimed",
    "worker::ran",
    "task::paid",
];

const DELEGATE: &str = "mutation($input: DelegateTaskInput!) {
    delegateTask(input: $input) { delegation { id } userErrors { code } }
}";
const DELEGATED: &str = "query($id: ID!) { delegation(id: $id) {
    status finishedAt output spent steps { name status attempts task { id } tasks { id paid } }
} }";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delegation_that_is_killed_on_the_way_comes_to_the_same_end() {
    let kills = setting("CRASH_CYCLES", 24) / 4;
    let drawn = seed("CRASH_SEED");
    eprintln!("crash: CRASH_SEED={drawn}, {kills} kills of delegations");
    let mut dice = StdRng::seed_from_u64(drawn);
    let folder = Folder::new();
    let database = Database::empty(folder.path()).await;
    let url = matches!(database, Database::Postgres { .. }).then(|| database.url());
    let program = Program::new(folder.path(), url);
    let mut server = program.start();
    program.is_ready().await;

    let nobody = Client::new(http(), program.address);
    let sign_in = |name: &str, tokens: &Value| nobody.clone().signed_in(name, &tokens["tokens"]);
    let selection = "tokens { accessToken user { id } }";
    let mut people = Vec::new();
    for name in ["ada", "bob"] {
        let email = format!("{name}@example.com");
        let input = json!({ "email": email, "displayName": name, "password": PASSWORD });
        people.push(sign_in(name, &nobody.call("registerUser", selection, input).await));
    }
    let (ada, bob) = (&people[0], &people[1]);
    let admin = nobody.call("login", selection, json!({ "email": ADMIN, "password": PASSWORD })).await;
    let gift = json!({ "userId": ada.id(), "amount": "100000", "reference": "gift" });
    sign_in("admin", &admin).call("issueCredits", "transfer { id }", gift).await;
    for (name, capability, price, wasm) in [
        ("transform", "text.transform", "0.2", sample("text-transform-lite")),
        ("stats", "text.stats", "0.3", sample("text-stats-lite")),
        ("broken", "text.keywords", "0.1", crashing()),
        ("keywords", "text.keywords", "0.6", sample("text-keywords-lite")),
        ("torn", "csv.summary", "0.1", crashing()),
        ("validate", "json.validate", "0.4", sample("json-validate-lite")),
    ] {
        let input = json!({ "name": name, "description": "", "capabilities": [capability], "runtime": "HOSTED", "price": price });
        let made = bob.call("registerAgent", "agent { id }", input).await;
        let reply = bob.upload(made["agent"]["id"].as_str().unwrap(), wasm).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
    }
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let mut plan = crate::delegation::diamond();
    for step in plan["steps"].as_array_mut().unwrap() {
        // Our own deaths count as attempts of a task, and three of them as a failure of the step.
        if step["onFailure"] != "SKIP" {
            (step["onFailure"], step["retries"]) = (json!("RETRY"), json!(10));
        }
    }
    let order = |key: &str| {
        json!({ "input": { "goal": "Read it", "budget": "10", "plan": plan, "input": { "text": text, "csv": "" },
            "deadline": "P1D", "idempotencyKey": key } })
    };

    // One after the other, while the server dies and comes back.
    let (mut died, mut done, mut at): (usize, Vec<String>, Option<String>) = Default::default();
    let mut points: BTreeMap<&str, usize> = BTreeMap::new();
    while died < kills {
        drop(server);
        let point = TORN[died % TORN.len()];
        // A commit is passed more often than the rest.
        let most = if point.starts_with("store") { 12 } else { 3 };
        server = program.start_with(Some(&format!("{point}={}", dice.random_range(1..=most))));
        if came_up(&program, &mut server).await {
            let since = Instant::now();
            while server.ended().is_none() && since.elapsed() < Duration::from_secs(20) {
                let known = at.clone();
                let (document, variables) = match &known {
                    None => (DELEGATE, order(&format!("delegation-{}", done.len()))),
                    Some(id) => (DELEGATED, json!({ "id": id })),
                };
                let Some(answer) = try_ask(ada, document, &variables).await else { break };
                match known {
                    None => {
                        let made = &answer["data"]["delegateTask"]["delegation"]["id"];
                        at = Some(made.as_str().unwrap_or_else(|| panic!("{answer:#}")).to_owned());
                    }
                    Some(id) if answer["data"]["delegation"]["finishedAt"].is_string() => {
                        done.push(id);
                        at = None;
                    }
                    Some(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        }
        if server.ends_within(Duration::from_secs(2)).await {
            died += 1;
            *points.entry(point).or_default() += 1;
        }
    }
    drop(server);
    let server = program.start();
    program.is_ready().await;
    if at.is_none() {
        let made = ada.done("delegateTask", DELEGATE, order(&format!("delegation-{}", done.len()))).await;
        at = made["delegation"]["id"].as_str().map(str::to_owned);
    }
    done.extend(at);
    eprintln!("crash: {died} kills of {} delegations at {points:?}", done.len());

    let mut outputs = Vec::new();
    for id in &done {
        let since = Instant::now();
        let seen = loop {
            let seen = ada.query(DELEGATED, json!({ "id": id })).await["delegation"].clone();
            if seen["finishedAt"].is_string() {
                break seen;
            }
            assert!(since.elapsed() < Duration::from_mins(1), "it does not end: {seen:#} {}", program.last_words());
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        assert_eq!((&seen["status"], &seen["spent"]), (&json!("COMPLETED"), &json!("1.7")), "{seen:#}");
        for step in seen["steps"].as_array().unwrap() {
            let tasks = step["tasks"].as_array().unwrap();
            assert_eq!(json!(tasks.len()), step["attempts"], "{seen:#}");
            let is_paid = |task: &&Value| task["paid"].as_str().is_some_and(|paid| paid != "0");
            let paid: Vec<&Value> = tasks.iter().filter(is_paid).map(|task| &task["id"]).collect();
            let output_of: Vec<&Value> = [&step["task"]["id"]].into_iter().filter(|id| id.is_string()).collect();
            assert_eq!(paid, output_of, "{seen:#}");
        }
        outputs.push(seen["output"].clone());
    }
    outputs.dedup();
    assert_eq!(outputs.len(), 1, "{outputs:#?}");
    assert_eq!((&outputs[0]["valid"], &outputs[0]["backwards"]), (&json!(true), &json!("ti daeR")));
    drop(server);
    program.audit();
}
