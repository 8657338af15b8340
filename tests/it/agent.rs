//! Agents: who may register and change them, which modules they may have, and how they are found.

use std::time::Duration;

use entity::{agent_module, id::AgentId};
use reqwest::{Method, header::CONTENT_TYPE};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder};
use serde_json::{Value, json};

use crate::world::{Client, Reply, World, agent_row, answering, crashing, echoing, sample, send, sha256};

fn registration(over: &Value) -> Value {
    let mut input = json!({ "name": "agent", "capabilities": ["text.stats"], "runtime": "EXTERNAL", "price": "1" });
    input.as_object_mut().unwrap().extend(over.as_object().unwrap().clone());
    input
}

fn refused(reply: &Reply) -> (u16, String) {
    (reply.status, reply.code())
}

fn no(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test]
async fn an_owner_registers_changes_pauses_and_retires_an_agent() {
    let world = World::start().await;
    let (bob, eve) = (world.user("bob").await, world.user("eve").await);
    assert_eq!(world.anonymous().fault("registerAgent", registration(&json!({}))).await, "UNAUTHENTICATED");
    for wrong in [
        json!({ "name": " " }),
        json!({ "name": "x".repeat(61) }),
        json!({ "description": "x".repeat(2_001) }),
        json!({ "capabilities": [] }),
        json!({ "capabilities": ["not ok"] }),
        json!({ "price": "0" }),
        json!({ "minPrice": "1.000001" }),
        json!({ "minPrice": "0" }),
        json!({ "promisedDuration": "PT0S" }),
        json!({ "promisedDuration": "PT1H0.001S" }),
    ] {
        assert_eq!(bob.refusal("registerAgent", registration(&wrong)).await, "INVALID_INPUT", "{wrong}");
    }
    let all = "agent { id name description capabilities runtime status price minPrice promisedDuration version online
        owner { id } module { id } }";
    let input = registration(&json!({ "name": " Counter ", "capabilities": ["Text.Stats", "text.stats", "a"],
        "minPrice": "0.5", "promisedDuration": "PT1.5S", "idempotencyKey": "k" }));
    let made = bob.call("registerAgent", all, input.clone()).await["agent"].take();
    let id = made["id"].clone();
    let expected = json!({ "id": id, "name": "Counter", "description": "", "capabilities": ["a", "text.stats"],
        "runtime": "EXTERNAL", "status": "ACTIVE", "price": "1", "minPrice": "0.5", "promisedDuration": "PT1.5S",
        "version": made["version"], "online": false, "owner": { "id": bob.id() }, "module": null });
    assert_eq!(made, expected);
    assert_eq!(bob.call("registerAgent", all, input).await["agent"]["id"], id);
    assert_eq!(bob.refusal("registerAgent", registration(&json!({ "name": "Counter" }))).await, "AGENT_NAME_TAKEN");
    // The name is taken among one's own agents alone, and every one has an id of its own.
    let other = eve.call("registerAgent", "agent { id }", registration(&json!({ "name": "Counter" }))).await;
    assert_ne!(other["agent"]["id"], id);

    let change = |over: Value| {
        let mut input = json!({ "agentId": id });
        input.as_object_mut().unwrap().extend(over.as_object().unwrap().clone());
        input
    };
    let version = &made["version"];
    assert_eq!(eve.refusal("updateAgent", change(json!({ "price": "9" }))).await, "NOT_FOUND");
    let cheaper = change(json!({ "price": "0.75", "capabilities": ["b"], "expectedVersion": version }));
    let changed = bob.call("updateAgent", "agent { price minPrice capabilities version }", cheaper.clone()).await;
    assert_eq!((&changed["agent"]["price"], &changed["agent"]["capabilities"]), (&json!("0.75"), &json!(["b"])));
    assert_eq!(bob.refusal("updateAgent", cheaper).await, "STALE_VERSION");
    assert_eq!(bob.refusal("updateAgent", change(json!({ "minPrice": "0.8" }))).await, "INVALID_INPUT");
    let seen = eve.query("query($id: ID!) { agent(id: $id) { price minPrice earnings } }", json!({ "id": id })).await;
    assert_eq!(seen["agent"], json!({ "price": "0.75", "minPrice": null, "earnings": null }));

    for (field, status) in [("pauseAgent", "PAUSED"), ("resumeAgent", "ACTIVE"), ("retireAgent", "RETIRED")] {
        assert_eq!(eve.refusal(field, change(json!({}))).await, "NOT_FOUND");
        for _ in 0..2 {
            assert_eq!(bob.call(field, "agent { status }", change(json!({}))).await["agent"]["status"], status);
        }
    }
    for field in ["pauseAgent", "resumeAgent", "updateAgent"] {
        assert_eq!(bob.refusal(field, change(json!({}))).await, "AGENT_RETIRED");
    }
    world.check().await;
}

#[tokio::test]
async fn an_agent_that_pauses_finishes_what_it_has_and_takes_nothing_new() {
    let world = World::start().await;
    let (ada, bob) = (world.user("ada").await, world.user("bob").await);
    world.credit(&ada, "10").await;
    let echo = world.hosted_agent(&bob, "echo", "echo", "1", echoing()).await;
    let has = ada.execute(json!({ "capabilities": ["echo"] })).await;
    bob.call("retireAgent", "agent { id }", json!({ "agentId": echo.to_string() })).await;
    let late = ada.execute(json!({ "capabilities": ["echo"], "budget": "5" })).await;
    world.settle().await;
    assert_eq!(ada.task(&has).await["status"], "COMPLETED");
    assert_eq!(ada.task(&late).await["status"], "EXPIRED");
    assert_eq!(bob.earned(echo).await, "1");
    world.check().await;
}

#[tokio::test]
async fn a_module_is_for_the_owner_to_upload_and_is_looked_at_last() {
    let world = World::with(|config| config.terms.max_module_bytes = 100_000).await;
    let (bob, eve) = (world.user("bob").await, world.user("eve").await);
    let hosted = world.agent(&bob, "hosted", "HOSTED", "a", "1").await.to_string();
    let external = world.agent(&bob, "external", "EXTERNAL", "a", "1").await.to_string();
    let wasm = echoing();
    // Who may not is told so before the body counts, however large or wrong it is.
    let huge = vec![0; 200_000];
    assert_eq!(refused(&world.anonymous().upload(&hosted, huge.clone()).await), no(401, "UNAUTHENTICATED"));
    assert_eq!(refused(&eve.upload(&hosted, huge.clone()).await), no(404, "NOT_FOUND"));
    for nobody in ["agent_01h455vb4pex5vsknk084sn02q", "nonsense", "..%2f..%2fetc"] {
        assert_eq!(refused(&bob.upload(nobody, wasm.clone()).await), no(404, "NOT_FOUND"), "{nobody}");
    }
    let made = bob.call("createApiKey", "secret", json!({ "name": "x", "scopes": ["READ", "BIDS_WRITE"] })).await;
    let reader = bob.with_token(made["secret"].as_str().unwrap());
    assert_eq!(refused(&reader.upload(&hosted, wasm.clone()).await), no(403, "FORBIDDEN"));
    assert_eq!(refused(&bob.upload(&external, wasm.clone()).await), no(409, "AGENT_NOT_HOSTED"));
    let text = bob.request(Method::PUT, &format!("/agents/{hosted}/module")).header(CONTENT_TYPE, "text/plain");
    assert_eq!(refused(&send(text.body(wasm.clone())).await), no(415, "UNSUPPORTED_MEDIA_TYPE"));
    assert_eq!(refused(&bob.upload(&hosted, huge.clone()).await), no(413, "PAYLOAD_TOO_LARGE"));
    // The same without a length that is told before.
    let chunks = futures_util::stream::iter(
        huge.chunks(1_000).map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec())).collect::<Vec<_>>(),
    );
    let streamed =
        bob.request(Method::PUT, &format!("/agents/{hosted}/module")).header(CONTENT_TYPE, "application/wasm");
    assert_eq!(refused(&send(streamed.body(reqwest::Body::wrap_stream(chunks))).await), no(413, "PAYLOAD_TOO_LARGE"));
    assert_eq!(world.rows("agent_modules").await, 0);
    assert_eq!(bob.upload(&hosted, wasm).await.status, 200);
    world.check().await;
}

#[tokio::test]
async fn a_module_that_could_not_run_is_refused_at_its_upload() {
    let world = World::start().await;
    let bob = world.user("bob").await;
    let id = world.agent(&bob, "hosted", "HOSTED", "a", "1").await.to_string();
    let wat = |text: &str| wat::parse_str(text).unwrap();
    let import = |module: &str, name: &str| {
        wat(&format!(
            r#"(module (import "{module}" "{name}" (func)) (memory (export "memory") 1) (func (export "_start")))"#
        ))
    };
    let mut broken = echoing();
    broken.truncate(broken.len() - 3);
    for (module, code) in [
        (b"hello".to_vec(), "NOT_WASM"),
        (Vec::new(), "NOT_WASM"),
        (broken, "MALFORMED"),
        (b"\0asm\x0d\0\x01\0".to_vec(), "MISSING_RUN"),
        (import("env", "run"), "FORBIDDEN_IMPORT"),
        (import("wasi_snapshot_preview1", "sock_send"), "FORBIDDEN_IMPORT"),
        (wat(r#"(module (memory (export "memory") 1))"#), "MISSING_ENTRY_POINT"),
        (wat(r#"(module (memory (export "memory") 1) (func (export "_start") (param i32)))"#), "MISSING_ENTRY_POINT"),
        (wat(r#"(module (func (export "_start")))"#), "MISSING_MEMORY"),
        (wat(r#"(module (memory (export "memory") 2000) (func (export "_start")))"#), "MEMORY_TOO_LARGE"),
        (
            wat(r#"(module (memory (export "memory") 1) (table 20000 funcref) (func (export "_start")))"#),
            "TABLE_TOO_LARGE",
        ),
    ] {
        let reply = bob.upload(&id, module).await;
        assert_eq!(refused(&reply), no(422, code));
        assert_eq!(reply.json()["errors"][0]["extensions"]["retryable"], false);
    }
    assert_eq!(world.rows("agent_modules").await, 0);
    // The agent has no module, so it neither bids nor runs.
    let online = bob.query("query($id: ID!) { agent(id: $id) { online module { id } } }", json!({ "id": id })).await;
    assert_eq!(online["agent"], json!({ "online": false, "module": null }));
    world.check().await;
}

#[tokio::test]
async fn a_new_module_replaces_the_old_one_which_is_kept() {
    let world = World::start().await;
    let (ada, bob) = (world.user("ada").await, world.user("bob").await);
    world.credit(&ada, "10").await;
    let (first, second) = (answering("1"), answering("2"));
    let agent = world.hosted_agent(&bob, "oracle", "oracle", "1", first.clone()).await;
    let order = json!({ "capabilities": ["oracle"], "budget": "2" });
    let before = ada.execute(order.clone()).await;
    let reply = bob.upload(&agent.to_string(), second.clone()).await;
    assert_eq!((reply.status, &reply.json()["sha256"]), (200, &json!(sha256(&second))));
    assert_eq!(reply.json()["sizeBytes"], second.len());
    assert_eq!(reply.json()["interface"], "WASI_COMMAND");
    let after = ada.execute(order).await;
    world.settle().await;
    // What was won with the old module is done with the old module.
    for (task, module, output) in [(&before, &first, 1), (&after, &second, 2)] {
        let result = ada.task(task).await["result"].take();
        assert_eq!((&result["output"], &result["moduleSha256"]), (&json!(output), &json!(sha256(module))));
    }
    let current = "query($id: ID!) { agent(id: $id) { online module { sha256 sizeBytes interface } } }";
    let current = world.anonymous().query(current, json!({ "id": agent.to_string() })).await["agent"].take();
    let module =
        json!({ "sha256": sha256(&second), "sizeBytes": second.len().to_string(), "interface": "WASI_COMMAND" });
    assert_eq!(current, json!({ "online": true, "module": module }));
    // The same bytes again are no further version; both versions are there.
    assert_eq!(bob.upload(&agent.to_string(), first.clone()).await.status, 200);
    let versions = agent_module::Entity::find()
        .filter(agent_module::Column::AgentId.eq(agent))
        .order_by_asc(agent_module::Column::Id);
    let versions = versions.all(world.app.store().read()).await.unwrap();
    let hashes: Vec<_> = versions.iter().map(|module| module.sha256.clone()).collect();
    assert_eq!(hashes, [sha256(&first), sha256(&second)]);
    let now = agent_row(&world, agent).await.module_id;
    assert_eq!(now, Some(versions[0].id));
    for bytes in [&first, &second] {
        let digest: [u8; 32] = hex::decode(sha256(bytes)).unwrap().try_into().unwrap();
        assert_eq!(world.app.modules().load(digest).await.unwrap(), bytes.as_slice());
    }
    world.check().await;
}

/// The files below a folder.
fn files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

#[tokio::test]
async fn bytes_that_changed_in_the_store_are_never_run_and_nobody_is_blamed() {
    let world = World::start().await;
    let (ada, bob) = (world.user("ada").await, world.user("bob").await);
    world.credit(&ada, "10").await;
    let agent = world.hosted_agent(&bob, "oracle", "oracle", "1", answering("1")).await;
    let stored = files(&world.folder().join("modules"));
    assert_eq!(stored.len(), 1, "{stored:?}");
    // Somebody puts another good module in its place.
    std::fs::write(&stored[0], answering("666")).unwrap();
    let id = ada.execute(json!({ "capabilities": ["oracle"] })).await;
    world.settle().await;
    for _ in 0..4 {
        world.pass(Duration::from_secs(30)).await;
    }
    let task = ada.task(&id).await;
    assert_eq!((&task["status"], &task["paid"]), (&json!("REFUNDED"), &json!("0")));
    assert_eq!(task["failureCode"], "MODULE_HASH_MISMATCH");
    assert_eq!(task["result"]["output"], Value::Null);
    assert_eq!(ada.wallet().await, ("10".to_owned(), "0".to_owned()));
    assert_eq!(world.score(agent).await, "42.5");
    let retried = "query($id: ID!) { events(filter: { taskId: $id, kinds: [TASK_RETRIED] }) { nodes { ... on TaskEvent { attempt } } } }";
    let retried = ada.query(retried, json!({ "id": id })).await["events"]["nodes"].take();
    assert_eq!(retried, json!([{ "attempt": 1 }, { "attempt": 2 }]));
    // So is one that is gone; and when it is back, work goes on.
    std::fs::remove_file(&stored[0]).unwrap();
    let id = ada.execute(json!({ "capabilities": ["oracle"] })).await;
    world.settle().await;
    assert_eq!(ada.task(&id).await["status"], "RUNNING");
    std::fs::write(&stored[0], answering("1")).unwrap();
    world.pass(Duration::from_mins(1)).await;
    assert_eq!(ada.task(&id).await["status"], "COMPLETED");
    world.check().await;
}

#[tokio::test]
async fn buyers_find_agents_by_what_they_can_do_and_what_they_are_worth() {
    let world = World::start().await;
    let (ada, bob, cleo) = (world.user("ada").await, world.user("bob").await, world.user("cleo").await);
    world.credit(&ada, "100").await;
    world.hosted_agent(&bob, "good", "good", "2", echoing()).await;
    world.hosted_agent(&bob, "bad", "bad", "3", crashing()).await;
    let both = registration(&json!({ "name": "both", "capabilities": ["good", "bad"], "price": "4" }));
    cleo.call("registerAgent", "agent { id }", both).await;
    let paused: AgentId = world.hosted_agent(&cleo, "paused", "good", "1", sample("text-stats-lite")).await;
    cleo.call("pauseAgent", "agent { id }", json!({ "agentId": paused.to_string() })).await;
    for capability in ["good", "bad"] {
        ada.execute(json!({ "capabilities": [capability] })).await;
        world.settle().await;
    }
    let document = "query($filter: AgentFilter, $order: AgentOrder) { agents(filter: $filter, orderBy: $order) {
        totalCount nodes { name } } }";
    let found = async |filter: Value, order: Value| names(&world.anonymous(), document, filter, order).await;
    let by = |field: &str, direction: &str| json!({ "field": field, "direction": direction });
    assert_eq!(found(Value::Null, Value::Null).await, ["paused", "both", "bad", "good"]);
    assert_eq!(found(json!({ "capabilities": ["GOOD"] }), by("PRICE", "ASC")).await, ["paused", "good", "both"]);
    assert_eq!(found(json!({ "capabilities": ["good", "bad"] }), Value::Null).await, ["both"]);
    assert_eq!(found(json!({ "capabilities": ["nobody"] }), Value::Null).await, [""; 0]);
    assert_eq!(found(json!({ "minReputation": "42.501" }), Value::Null).await, ["good"]);
    assert_eq!(found(json!({ "minReputation": "42.5" }), by("CREATED_AT", "ASC")).await, ["good", "both", "paused"]);
    assert_eq!(found(json!({ "maxPrice": "2.999999" }), by("PRICE", "DESC")).await, ["good", "paused"]);
    assert_eq!(found(json!({ "status": "PAUSED" }), Value::Null).await, ["paused"]);
    assert_eq!(found(json!({ "online": true }), by("SCORE", "DESC")).await, ["good", "bad"]);
    assert_eq!(found(json!({ "online": false, "runtime": "EXTERNAL" }), Value::Null).await, ["both"]);
    assert_eq!(
        found(json!({ "ownerId": cleo.id(), "capabilities": ["good"], "maxPrice": "1" }), Value::Null).await,
        ["paused"]
    );
    assert_eq!(found(Value::Null, by("SCORE", "ASC")).await.first().unwrap(), "bad");
    // Page by page it is the same list.
    let page = "query($after: String) { agents(first: 1, after: $after, orderBy: { field: SCORE, direction: DESC }) {
        nodes { name } pageInfo { hasNextPage endCursor } } }";
    let (mut after, mut seen) = (Value::Null, Vec::new());
    loop {
        let answer = ada.query(page, json!({ "after": after })).await["agents"].take();
        seen.push(answer["nodes"][0]["name"].as_str().unwrap().to_owned());
        after = answer["pageInfo"]["endCursor"].clone();
        if answer["pageInfo"]["hasNextPage"] == false {
            break;
        }
    }
    assert_eq!(seen, found(Value::Null, by("SCORE", "DESC")).await);
    world.check().await;
}

async fn names(who: &Client, document: &str, filter: Value, order: Value) -> Vec<String> {
    let answer = who.query(document, json!({ "filter": filter, "order": order })).await;
    let nodes = answer["agents"]["nodes"].as_array().unwrap();
    nodes.iter().map(|agent| agent["name"].as_str().unwrap().to_owned()).collect()
}
