//! How the service reads: in how few statements, by which plans, and where.

use std::{
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use sea_orm::{ConnectionTrait, Database, DatabaseConnection, DbBackend, Statement};
use serde_json::{Value, json};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer, filter::Targets, layer::Context, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::world::{Client, World, on_postgres, send};

const PAGE: &str = "query($id: ID!, $first: Int) { auction(id: $id) { id status bidCount bids(first: $first) {
    nodes { id price sequence status agent { id name capabilities price online owner { displayName } } auction { id } }
    edges { cursor node { id } } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } totalCount } } }";
/// The same, in a way that is not the usual one.
const PAGE_OTHERWISE: &str = "query($id: ID!, $first: Int) {
    auction(id: $id) { id status bidCount bids(first: $first, orderBy: { field: CREATED_AT, direction: ASC }) {
    nodes { id price sequence status agent { id name capabilities price online owner { displayName } } auction { id } }
    edges { cursor node { id } } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } totalCount } } }";

/// The statements that were sent.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<String>>>);

impl Recorder {
    /// Records from now on, for the rest of this process, which must be the test's own; see [`alone`].
    fn start() -> Self {
        let recorder = Self::default();
        let queries = Targets::new().with_target("sqlx::query", Level::DEBUG);
        tracing_subscriber::registry().with(recorder.clone().with_filter(queries)).init();
        recorder
    }

    /// What was read since the last question, but for what the service reads by itself.
    fn taken(&self) -> Vec<String> {
        let all = std::mem::take(&mut *self.0.lock().unwrap());
        let own = ["FROM events", "UPDATE events", "\"events\"", "MAX(place)", "sessions"];
        let reads = |sql: &String| sql.contains("FROM ") && !own.iter().any(|part| sql.contains(part));
        all.into_iter().filter(reads).collect()
    }
}

impl<S: Subscriber> Layer<S> for Recorder {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        struct Text(Option<String>, Option<String>);
        impl Visit for Text {
            fn record_str(&mut self, field: &Field, value: &str) {
                match field.name() {
                    "summary" => self.0 = Some(value.to_owned()),
                    "db.statement" if !value.is_empty() => self.1 = Some(value.trim().to_owned()),
                    _ => {}
                }
            }

            fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
        }
        let mut text = Text(None, None);
        event.record(&mut text);
        let Text(summary, whole) = text;
        self.0.lock().unwrap().extend(whole.or(summary));
    }
}

/// Runs the test of this name in a process of its own and says so, or says that this is that process. What is recorded is all that a
/// process sends, so other tests must not run beside it.
fn alone(name: &str) -> bool {
    const MARK: &str = "ZEROSTATE_TEST_ALONE";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("read::{name}"), "--nocapture"])
        .env(MARK, "1")
        .output()
        .unwrap();
    let (said, wrong) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success() && said.contains("1 passed"), "{said}\n{wrong}");
    false
}

/// An OPEN auction with `bids` bids.
async fn auction(world: &World, alice: &Client, bob: &Client, bids: u32, over: Value) -> String {
    let auction = alice.open(over).await;
    for number in 0..bids {
        let agent = world.agent(bob, &format!("Agent {number} of {auction}"), "EXTERNAL", "text.stats", "5").await;
        bob.bid(&auction, agent, &(9 - number).to_string()).await;
    }
    auction
}

#[tokio::test]
async fn the_page_of_an_auction_is_one_statement_with_the_same_text_for_all() {
    if !alone("the_page_of_an_auction_is_one_statement_with_the_same_text_for_all") {
        return;
    }
    let recorder = Recorder::start();
    let world = World::start().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    world.credit(&alice, "1000").await;
    let mut texts = Vec::new();
    for bids in [0, 1, 5] {
        let auction = auction(&world, &alice, &bob, bids, json!({ "visibility": "OPEN" })).await;
        let short = "query($id: ID!, $first: Int) { auction(id: $id) { id bids(first: $first) { nodes { price agent { name } } } } }";
        for first in [20, 3] {
            recorder.taken();
            let page = world.anonymous().query(short, json!({ "id": auction, "first": first })).await;
            assert_eq!(
                page["auction"]["bids"]["nodes"].as_array().unwrap().len(),
                usize::try_from(bids.min(first)).unwrap()
            );
            let asked = recorder.taken();
            assert_eq!(asked.len(), 1, "{asked:#?}");
            texts.extend(asked);
        }
    }
    texts.dedup();
    assert_eq!(texts.len(), 1, "{texts:#?}");
    world.check().await;
}

#[tokio::test]
async fn the_page_of_an_auction_says_what_its_parts_say() {
    let world = World::start().await;
    let (alice, bob, carol) = (world.user("alice").await, world.user("bob").await, world.user("carol").await);
    world.credit(&alice, "1000").await;
    let unknown = "auc_01h455vb4pex5vsknk084sn02q";
    let mut auctions = vec![unknown.to_owned()];
    for (bids, over) in [
        (0, json!({ "visibility": "OPEN" })),
        (4, json!({ "visibility": "OPEN" })),
        (3, json!({ "visibility": "SEALED" })),
        (3, json!({ "visibility": "SEALED", "awardMode": "MANUAL" })),
    ] {
        auctions.push(auction(&world, &alice, &bob, bids, over).await);
    }
    let everybody = [&alice, &bob, &carol, &world.anonymous()];
    for closed in [false, true] {
        if closed {
            world.pass(Duration::from_hours(2)).await;
        }
        for (place, auction) in auctions.iter().enumerate() {
            for who in everybody {
                for first in [json!(null), json!(1), json!(3), json!(4), json!(100)] {
                    let variables = json!({ "id": auction, "first": first });
                    let page = who.query(PAGE, variables.clone()).await;
                    let otherwise = who.query(PAGE_OTHERWISE, variables).await;
                    assert_eq!(page, otherwise, "auction {place} for {} when closed is {closed}", who.id());
                }
            }
        }
    }
    // Two at once are read together, and each is what it is alone.
    let both = "query($a: ID!, $b: ID!) { a: auction(id: $a) { ...P } b: auction(id: $b) { ...P } }
        fragment P on Auction { id bids { nodes { price agent { name } } } }";
    let together = world.anonymous().query(both, json!({ "a": auctions[1], "b": auctions[2] })).await;
    assert_eq!(together["a"]["bids"]["nodes"].as_array().unwrap().len(), 0);
    assert_eq!(together["b"]["bids"]["nodes"].as_array().unwrap().len(), 4);
    // What is not a page is refused as everywhere.
    for first in [0, 101] {
        let refused = world.anonymous().try_query(PAGE, json!({ "id": auctions[2], "first": first })).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused[0]["extensions"]["code"], "BAD_USER_INPUT", "{refused:?}");
    }
    // Page by page there are the same bids.
    let walk = "query($id: ID!, $after: String) { auction(id: $id) { bids(first: 1, after: $after) {
        nodes { sequence agent { id } } pageInfo { hasNextPage endCursor } } } }";
    let (mut after, mut sequences) = (Value::Null, Vec::new());
    loop {
        let page = world.anonymous().query(walk, json!({ "id": auctions[2], "after": after })).await;
        let bids = &page["auction"]["bids"];
        sequences.push(bids["nodes"][0]["sequence"].as_i64().unwrap());
        after = bids["pageInfo"]["endCursor"].clone();
        if bids["pageInfo"]["hasNextPage"] == false {
            break;
        }
    }
    assert_eq!(sequences, [1, 2, 3, 4]);
    world.check().await;
}

#[tokio::test]
async fn what_passed_validation_once_is_still_refused_with_variables_that_do_not_fit() {
    let world = World::start().await;
    let alice = world.user("alice").await;
    world.credit(&alice, "100").await;
    let list = "query($filter: AuctionFilter, $order: AuctionOrder) { auctions(filter: $filter, orderBy: $order) { nodes { id } } }";
    let fine = json!({ "filter": { "status": ["OPEN"] }, "order": { "field": "BUDGET", "direction": "ASC" } });
    let wrong = [
        json!({ "filter": { "status": ["SHUT"] } }),
        json!({ "filter": { "status": ["BUDGET"] } }),
        json!({ "filter": { "state": ["OPEN"] } }),
        json!({ "filter": { "status": [1] } }),
        json!({ "filter": 1 }),
        json!({ "order": { "field": "BUDGET" } }),
        json!({ "order": { "field": "BUDGET", "direction": null } }),
        json!({ "order": { "field": "BUDGET", "direction": "ASC", "more": 1 } }),
    ];
    let mut before = Vec::new();
    for variables in &wrong {
        before.push(alice.raw(list, variables).await);
    }
    for _ in 0..3 {
        alice.query(list, fine.clone()).await;
    }
    for (variables, before) in wrong.iter().zip(before) {
        let after = alice.raw(list, variables).await;
        assert_eq!((after.status, after.code()), (before.status, before.code()), "{variables}");
        assert_eq!(after.json()["errors"][0]["message"], before.json()["errors"][0]["message"], "{variables}");
        assert_eq!(after.json()["data"], before.json()["data"], "{variables}");
    }
    // Another operation of a document that passed is another operation.
    let two = "query A($id: ID!) { auction(id: $id) { id } } query B { marketStats { openAuctions } }";
    let named = async |name: &str| {
        let body =
            json!({ "query": two, "operationName": name, "variables": { "id": "auc_01h455vb4pex5vsknk084sn02q" } });
        let request = alice.request(reqwest::Method::POST, "/graphql").header("content-type", "application/json");
        send(request.body(body.to_string())).await.json()
    };
    for _ in 0..2 {
        assert!(named("A").await["data"]["auction"].is_null());
    }
    world.check().await;
}

/// The steps of the plan that a database has for a statement, whatever its parameters are.
async fn plan(db: &DatabaseConnection, sql: &str) -> Vec<String> {
    let backend = db.get_database_backend();
    let rows = if backend == DbBackend::Sqlite {
        db.query_all_raw(Statement::from_string(backend, format!("EXPLAIN QUERY PLAN {sql}"))).await.unwrap()
    } else {
        let most = (1..=50).take_while(|number| sql.contains(&format!("${number}"))).count();
        let nothing = vec!["NULL"; most].join(", ");
        let arguments = if most == 0 { String::new() } else { format!("({nothing})") };
        db.execute_unprepared(&format!("PREPARE hot AS {sql}")).await.unwrap();
        let explain = format!("EXPLAIN (COSTS OFF) EXECUTE hot{arguments}");
        let rows = db.query_all_raw(Statement::from_string(backend, explain)).await.unwrap();
        db.execute_unprepared("DEALLOCATE hot").await.unwrap();
        rows
    };
    let step = if backend == DbBackend::Sqlite { "detail" } else { "QUERY PLAN" };
    rows.iter().map(|row| row.try_get::<String>("", step).unwrap()).collect()
}

/// Whether a step reads a whole table or puts rows in order.
fn grows(step: &str) -> bool {
    let whole = step.starts_with("SCAN ") && !step.contains("USING") && !step.contains("numbered");
    whole || step.contains("TEMP B-TREE") || step.contains("Seq Scan") || step.contains("Sort")
}

#[tokio::test]
async fn a_page_far_into_a_list_is_found_by_an_index_that_has_its_order() {
    if !alone("a_page_far_into_a_list_is_found_by_an_index_that_has_its_order") {
        return;
    }
    let recorder = Recorder::start();
    let world = World::start().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    world.credit(&alice, "1000").await;
    let auction = auction(&world, &alice, &bob, 3, json!({ "visibility": "OPEN" })).await;
    auction_twice(&alice).await;
    let agent = world.agent(&alice, "Statement", "EXTERNAL", "text.stats", "5").await.to_string();
    let url = world.database_url();
    let mut options = sea_orm::ConnectOptions::new(url);
    options.max_connections(1).sqlx_logging(false);
    let db = Database::connect(options).await.unwrap();
    if on_postgres() {
        // With a few rows every plan is as good as another; what is left when these are forbidden is what many rows will get.
        for setting in ["enable_seqscan", "enable_sort", "enable_bitmapscan"] {
            db.execute_unprepared(&format!("SET {setting} = off")).await.unwrap();
        }
        db.execute_unprepared("SET plan_cache_mode = force_generic_plan").await.unwrap();
    }
    let listed = "nodes { id } pageInfo { endCursor }";
    let lists = [
        ("auctions", format!("auctions(first: 1, after: $after) {{ {listed} }}")),
        ("auctions", format!("auctions(first: 1, after: $after, filter: {{status: [OPEN]}}) {{ {listed} }}")),
        (
            "auctions",
            format!(
                "auctions(first: 1, after: $after, filter: {{status: [OPEN]}}, orderBy: {{field: CLOSES_AT, direction: ASC}}) {{ {listed} }}"
            ),
        ),
        (
            "auctions",
            format!(
                "auctions(first: 1, after: $after, filter: {{status: [OPEN]}}, orderBy: {{field: BUDGET, direction: DESC}}) {{ {listed} }}"
            ),
        ),
        ("bids", format!("auction(id: \"{auction}\") {{ bids(first: 1, after: $after) {{ {listed} }} }}")),
        (
            "bids",
            format!(
                "auction(id: \"{auction}\") {{ bids(first: 1, after: $after, orderBy: {{field: PRICE, direction: ASC}}) {{ {listed} }} }}"
            ),
        ),
        ("agents", format!("agents(first: 1, after: $after) {{ {listed} }}")),
        ("agents", format!("me {{ agents(first: 1, after: $after) {{ {listed} }} }}")),
        ("tasks", format!("tasks(first: 1, after: $after, filter: {{side: REQUESTER}}) {{ {listed} }}")),
        (
            "reputation_events",
            format!("agent(id: \"{agent}\") {{ reputationEvents(first: 1, after: $after) {{ {listed} }} }}"),
        ),
    ];
    for (table, list) in lists {
        let document = format!("query($after: String) {{ {list} }}");
        let mut after = Value::Null;
        for page in 0..2 {
            recorder.taken();
            let answer = alice.query(&document, json!({ "after": after })).await;
            let asked: Vec<String> = recorder.taken().into_iter().filter(|sql| sql.contains("LIMIT")).collect();
            let [sql] = asked.as_slice() else { panic!("{document} on page {page}: {asked:#?}") };
            assert!(sql.contains(table) && !sql.contains("OFFSET"), "{sql}");
            let steps = plan(&db, sql).await;
            let wrong: Vec<&String> = steps.iter().filter(|step| grows(step)).collect();
            assert!(wrong.is_empty(), "{document} on page {page}: {sql}\n{steps:#?}");
            after = end_cursor(&answer);
            if after.is_null() {
                break;
            }
        }
    }
    db.close().await.unwrap();
    world.check().await;
}

/// Two more auctions, so that there are further pages.
async fn auction_twice(alice: &Client) {
    for _ in 0..2 {
        alice.open(json!({ "visibility": "OPEN" })).await;
    }
}

/// The first cursor in an answer.
fn end_cursor(answer: &Value) -> Value {
    match answer {
        Value::Object(fields) => match fields.get("endCursor") {
            Some(cursor) => cursor.clone(),
            None => fields.values().map(end_cursor).find(|found| !found.is_null()).unwrap_or_default(),
        },
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Value::Null,
    }
}

#[tokio::test]
async fn only_who_is_not_signed_in_reads_from_the_replica_and_only_while_it_keeps_up() {
    if !on_postgres() {
        // The embedded database has no replica, and saying so is all that it does.
        let folder = tempfile::tempdir().unwrap();
        let mut storage = zerostate::config::Storage::at(format!("sqlite:{}", folder.path().join("a.db").display()));
        storage.replica_url = Some("postgres://localhost/copy".to_owned());
        let (terms, clock) = (zerostate::config::Terms::default(), zerostate::store::Clock::System);
        let opened =
            zerostate::store::Store::connect(&storage, terms, clock, zerostate::store::Entropy::seeded(1)).await;
        assert!(opened.unwrap_err().to_string().contains("PostgreSQL"));
        return;
    }
    // It takes two databases that differ to see which one is asked, so the copy is a market of its own here.
    let copy = World::start().await;
    let there = copy.user("there").await;
    let agent = copy.agent(&there, "Only in the copy", "EXTERNAL", "text.stats", "5").await.to_string();
    let url = copy.database_url();
    let world = World::with(|config| config.storage.replica_url = Some(url)).await;
    let alice = world.user("alice").await;
    let find = "query($id: ID!) { agent(id: $id) { name } }";
    let found = async |who: &Client| !who.query(find, json!({ "id": agent })).await["agent"].is_null();
    let said = async || {
        let ready = send(world.anonymous().request(reqwest::Method::GET, "/ready")).await;
        assert_eq!(ready.status, 200, "{ready:?}");
        let checks = ready.json()["checks"].clone();
        let replica = checks.as_array().unwrap().iter().find(|check| check["name"] == "replica").unwrap().clone();
        replica["note"].as_str().unwrap().to_owned()
    };
    // While a copy that is no standby has at least as many events it keeps up, as far as anybody can tell.
    for _ in 0..3 {
        copy.credit(&there, "1").await;
    }
    world.app.store().look_at_replica().await;
    assert!(said().await.ends_with("ms behind at most"), "{}", said().await);
    assert!(found(&world.anonymous()).await);
    assert!(!found(&alice).await, "who is signed in may have written");
    // Events that it does not get make it old: it may be used for a while, and then no more.
    for _ in 0..10 {
        world.credit(&alice, "1").await;
    }
    world.turn(Duration::from_secs(6));
    world.app.store().look_at_replica().await;
    assert_eq!(said().await, "it is too far behind; nobody reads there");
    assert!(!found(&world.anonymous()).await);
    // It catches up, and goes away.
    for _ in 0..10 {
        copy.credit(&there, "1").await;
    }
    world.app.store().look_at_replica().await;
    assert!(found(&world.anonymous()).await);
    copy.check().await;
    assert!(!found(&world.anonymous()).await, "the database itself answers what the copy does not");
    world.app.store().look_at_replica().await;
    assert_eq!(said().await, "it does not answer; nobody reads there");
    assert!(!found(&world.anonymous()).await);
    world.check().await;
}
