//! Buying work: what reaches the agent, what comes back, what it costs, and that nothing an agent does harms anybody else.

use std::time::{Duration, Instant};

use entity::{id::TaskId, text::JsonText};
use serde_json::{Value, json};
use zerostate::{
    caller::Caller,
    execution,
    task::{Report, Usage},
};

use crate::world::{Client, World, answering, bids, crashing, echoing, fresh_key, guest, sample, sha256};

/// A buyer with 100 credits and a seller.
async fn market(world: &World) -> (Client, Client) {
    let (ada, bob) = (world.user("ada").await, world.user("bob").await);
    world.credit(&ada, "100").await;
    (ada, bob)
}

fn amounts(available: &str, in_escrow: &str) -> (String, String) {
    (available.to_owned(), in_escrow.to_owned())
}

#[tokio::test]
async fn a_buyer_gets_the_output_of_every_sample_agent() {
    let world = World::start().await;
    let (ada, bob) = market(&world).await;
    let people = json!("name,age\nAda,36\n\"Grace, B.\",85\nAlan,");
    let schema = json!({ "type": "object", "required": ["id"], "properties": { "id": { "type": "integer" } } });
    let wrong = json!([{ "path": "/id", "message": "expected integer, found string" }]);
    let jobs = [
        (
            "text.stats",
            json!("Hello, world. Hello!"),
            json!({ "characters": 20, "bytes": 20, "words": 3, "lines": 1 }),
            json!({ "characters": 20, "bytes": 20, "words": 3, "lines": 1, "charactersWithoutSpaces": 18, "sentences": 2,
                "paragraphs": 1, "uniqueWords": 2, "averageWordLength": 5, "averageSentenceLength": 1.5,
                "longestWord": "hello", "readingSeconds": 1,
                "mostCommonWords": [{ "word": "hello", "count": 2 }, { "word": "world", "count": 1 }] }),
        ),
        (
            "csv.summary",
            people,
            json!({ "rows": 3, "columns": [{ "name": "name", "count": 3, "missing": 0 },
                { "name": "age", "count": 2, "missing": 1 }] }),
            json!({ "rows": 3, "raggedRows": 0, "delimiter": ",", "columns": [
                { "name": "name", "count": 3, "missing": 0, "type": "string", "distinct": 3, "min": "Ada",
                    "max": "Grace, B." },
                { "name": "age", "count": 2, "missing": 1, "type": "integer", "distinct": 2, "min": 36, "max": 85,
                    "sum": 121, "mean": 60.5 }] }),
        ),
        (
            "json.validate",
            json!({ "schema": schema, "value": { "id": "7" } }),
            json!({ "valid": false, "errors": wrong }),
            json!({ "valid": false, "errors": wrong, "truncated": false }),
        ),
        (
            "text.keywords",
            json!("A payment channel holds money. Each payment channel is closed once."),
            json!({ "keywords": [{ "keyword": "channel", "count": 2, "score": 2 },
                { "keyword": "payment", "count": 2, "score": 2 }, { "keyword": "closed", "count": 1, "score": 1 },
                { "keyword": "holds", "count": 1, "score": 1 }, { "keyword": "money", "count": 1, "score": 1 }] }),
            json!({ "keywords": [{ "keyword": "payment channel holds money", "count": 1, "score": 14 },
                { "keyword": "payment channel", "count": 1, "score": 6 },
                { "keyword": "closed", "count": 1, "score": 1 }] }),
        ),
    ];
    for (capability, input, cheap, thorough) in jobs {
        let name = capability.replace('.', "-");
        let lite =
            world.hosted_agent(&bob, &format!("{name}-lite"), capability, "0.3", sample(&format!("{name}-lite"))).await;
        world.hosted_agent(&bob, &format!("{name}-pro"), capability, "0.9", sample(&format!("{name}-pro"))).await;
        let order = json!({ "capabilities": [capability], "input": input, "budget": "2.5" });
        // Both bid; newcomers are equally trusted, so the cheaper one wins. Without it the other one does.
        for (output, price) in [(&cheap, "0.3"), (&thorough, "0.9")] {
            let id = ada.execute(order.clone()).await;
            world.settle().await;
            let task = ada.task(&id).await;
            assert_eq!((&task["status"], &task["paid"]), (&json!("COMPLETED"), &json!(price)), "{task:#}");
            assert_eq!(&task["result"]["output"], output, "{capability}");
            bob.call("pauseAgent", "agent { status }", json!({ "agentId": lite.to_string() })).await;
        }
    }
    assert_eq!(ada.wallet().await, amounts("95.2", "0"));
    world.check().await;
}

#[tokio::test]
async fn the_input_reaches_the_agent_as_it_was_given() {
    let world = World::start().await;
    let (ada, bob) = market(&world).await;
    let module = echoing();
    world.hosted_agent(&bob, "echo", "echo", "1", module.clone()).await;
    let inputs = [
        json!({ "text": "Grüße, \"Ünïcödé\" \u{1f680}\n", "deep": [[1, 2.5, null], { "a": [true, false] }] }),
        json!("x".repeat(20_000)),
        json!([null]),
        json!(12_345_678_901_234_i64),
    ];
    for input in inputs {
        let id = ada.execute(json!({ "capabilities": ["echo"], "input": input, "budget": "1" })).await;
        world.settle().await;
        let task = ada.task(&id).await;
        assert_eq!(task["result"]["output"], input);
        let hash = sha256(serde_json::to_string(&input).unwrap());
        assert_eq!(task["inputSha256"], hash);
        assert_eq!(task["result"]["inputSha256"], hash);
        assert_eq!(task["result"]["outputSha256"], hash);
        assert_eq!(task["result"]["moduleSha256"], sha256(&module));
    }
    world.check().await;
}

#[tokio::test]
async fn a_result_says_what_the_work_took_and_cost() {
    let world = World::start().await;
    let (ada, bob) = market(&world).await;
    let module = answering("{\"answer\":42}");
    let agent = world.hosted_agent(&bob, "oracle", "oracle", "1.25", module.clone()).await;
    let mut fuels = Vec::new();
    for _ in 0..2 {
        let id = ada.execute(json!({ "capabilities": ["oracle"] })).await;
        world.settle().await;
        let task = ada.task(&id).await;
        let result = &task["result"];
        assert_eq!(result["outcome"], "SUCCEEDED");
        assert_eq!(result["output"], json!({ "answer": 42 }));
        assert_eq!(result["logs"], "done\n");
        assert_eq!(result["faultCode"], Value::Null);
        assert_eq!(result["peakMemoryBytes"], (2 * 65_536).to_string());
        assert!(result["duration"].as_str().unwrap().starts_with("PT"));
        assert_eq!(result["moduleSha256"], sha256(&module));
        assert_eq!(result["outputSha256"], sha256("{\"answer\":42}"));
        assert_eq!(result["cost"], "1.25");
        assert_eq!(result["agent"]["id"], agent.to_string());
        assert_eq!(task["failureCode"], Value::Null);
        assert_eq!(task["deadlineAt"], Value::Null);
        for instant in ["awardedAt", "startedAt", "finishedAt"] {
            assert_eq!(task[instant], "2026-11-23T12:00:00.000000Z", "{instant}");
        }
        let query = "query($id: ID!) { taskResult(taskId: $id) { fuel timeline { nodes { kind } } } }";
        let same = ada.query(query, json!({ "id": id })).await;
        assert_eq!(same["taskResult"]["fuel"], result["fuel"]);
        let timeline = same["taskResult"]["timeline"]["nodes"].as_array().unwrap();
        let kinds: Vec<&str> = timeline.iter().map(|event| event["kind"].as_str().unwrap()).collect();
        assert_eq!(
            kinds,
            [
                "TASK_POSTED",
                "AUCTION_OPENED",
                "BID_SUBMITTED",
                "AUCTION_AWARDED",
                "CHANNEL_OPENED",
                "TASK_STARTED",
                "CHANNEL_CLOSED",
                "TASK_COMPLETED",
            ]
        );
        fuels.push(result["fuel"].as_str().unwrap().parse::<u64>().unwrap());
    }
    assert!(fuels[0] > 0 && fuels[0] == fuels[1], "the same work takes the same fuel: {fuels:?}");
    assert_eq!(bob.earned(agent).await, "2.5");
    world.check().await;
}

#[tokio::test]
async fn a_result_that_breaks_its_schema_is_not_paid() {
    let world = World::start().await;
    let (ada, bob) = market(&world).await;
    let agent = world.hosted_agent(&bob, "oracle", "oracle", "1", answering("{\"answer\":42}")).await;
    let order = |schema| json!({ "capabilities": ["oracle"], "outputSchema": schema });
    let good = json!({ "type": "object", "properties": { "answer": { "type": "integer" } }, "required": ["answer"] });
    let bad = json!({ "type": "object", "properties": { "answer": { "type": "string" } } });
    let refunded = ada.execute(order(bad)).await;
    world.settle().await;
    let task = ada.task(&refunded).await;
    assert_eq!((&task["status"], &task["failureCode"]), (&json!("REFUNDED"), &json!("OUTPUT_SCHEMA_VIOLATION")));
    assert_eq!((&task["result"]["output"], &task["result"]["cost"]), (&Value::Null, &json!("0")));
    assert_eq!(ada.wallet().await, amounts("100", "0"));
    assert_eq!(world.score(agent).await, "40.277");
    let paid = ada.execute(order(good)).await;
    world.settle().await;
    assert_eq!(ada.task(&paid).await["status"], "COMPLETED");
    assert_eq!(ada.wallet().await, amounts("99", "0"));
    assert_eq!(bob.earned(agent).await, "1");
    world.check().await;
}

/// Runs one module whose work must be refused with `code`, and checks that everything else goes on.
async fn abuse(world: &World, ada: &Client, name: &str, module: Vec<u8>, order: Value, code: &str) {
    let owner = world.user(name).await;
    let agent = world.hosted_agent(&owner, name, name, "1", module).await;
    let before = ada.wallet().await;
    let mut order = order;
    order["capabilities"] = json!([name]);
    let id = ada.execute(order).await;
    let started = Instant::now();
    // The service answers while the guest runs, and right after it.
    let ((), answered) = tokio::join!(world.settle(), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let asked = Instant::now();
        ada.query("{ me { id } }", json!({})).await;
        asked.elapsed()
    });
    assert!(started.elapsed() < Duration::from_secs(30), "{name} took {:?}", started.elapsed());
    assert!(answered < Duration::from_secs(5), "{name} kept the service busy for {answered:?}");
    let task = ada.task(&id).await;
    assert_eq!(task["status"], "REFUNDED", "{name}: {task:#}");
    assert_eq!((&task["failureCode"], &task["result"]["faultCode"]), (&json!(code), &json!(code)), "{name}");
    assert_eq!((&task["result"]["outcome"], &task["result"]["output"]), (&json!("FAILED"), &Value::Null), "{name}");
    assert_eq!((&task["paid"], &task["channel"]["closeReason"]), (&json!("0"), &json!("REFUNDED")), "{name}");
    assert_eq!(ada.wallet().await, before, "{name}");
    assert_eq!(owner.earned(agent).await, "0", "{name}");
    assert_eq!(world.score(agent).await, "40.277", "{name}");
}

/// A world in which running out of fuel does not take long.
async fn short_of_fuel() -> World {
    World::with(|config| config.execution.fuel = 50_000_000).await
}

#[tokio::test]
async fn a_guest_that_does_harm_ends_within_its_limits_and_is_not_paid() {
    let world = short_of_fuel().await;
    let (ada, _) = market(&world).await;
    let guests = [
        ("endless-loop", r#"(func (export "_start") (loop $again (br $again)))"#, "OUT_OF_FUEL"),
        (
            "start-function-loop",
            r#"(func $init (loop $again (br $again))) (start $init) (func (export "_start"))"#,
            "OUT_OF_FUEL",
        ),
        (
            "memory-bomb",
            r#"(func (export "_start")
                (loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable)"#,
            "OUT_OF_MEMORY",
        ),
        (
            "deep-recursion",
            r#"(func $deeper (param i32) (result i32)
                    (i32.add (i32.const 1) (call $deeper (i32.add (local.get 0) (i32.const 1)))))
                (func (export "_start") (drop (call $deeper (i32.const 0))))"#,
            "STACK_OVERFLOW",
        ),
        (
            "huge-output",
            r#"(func (export "_start")
                (loop $more (call $print (i32.const 1) (i32.const 0) (i32.const 65536)) (br $more)))"#,
            "OUTPUT_TOO_LARGE",
        ),
        ("trap", r#"(func (export "_start") unreachable)"#, "TRAP"),
        ("division", r#"(func (export "_start") (drop (i32.div_s (i32.const 1) (i32.const 0))))"#, "TRAP"),
        ("exit-code", r#"(func (export "_start") (call $exit (i32.const 3)))"#, "EXIT_CODE"),
        ("silence", r#"(func (export "_start"))"#, "OUTPUT_NOT_JSON"),
    ];
    for (name, fields, code) in guests {
        abuse(&world, &ada, name, guest(fields), json!({}), code).await;
    }
    abuse(&world, &ada, "no-json", answering("hello"), json!({}), "OUTPUT_NOT_JSON").await;
    // Work of others is done afterwards as before.
    let bob = world.user("robert").await;
    world.hosted_agent(&bob, "echo", "echo", "1", echoing()).await;
    let id = ada.execute(json!({ "capabilities": ["echo"] })).await;
    world.settle().await;
    assert_eq!(ada.task(&id).await["status"], "COMPLETED");
    world.check().await;
}

#[tokio::test]
async fn a_guest_with_fuel_to_spare_ends_by_the_time_limit_of_its_task() {
    let world = World::with(|config| config.execution.fuel = u64::MAX / 2).await;
    let (ada, _) = market(&world).await;
    let endless = guest(r#"(func (export "_start") (loop $again (br $again)))"#);
    let order = json!({ "timeout": "PT0.3S" });
    abuse(&world, &ada, "endless-loop", endless, order, "OUT_OF_TIME").await;
    world.check().await;
}

#[tokio::test]
async fn logs_are_kept_within_their_limit_and_told_to_the_parties_also_of_failed_work() {
    let world = World::with(|config| config.execution.log_bytes = 100).await;
    let (ada, bob) = market(&world).await;
    let noisy = guest(
        r#"(data (i32.const 16) "why it failed\0a")
           (func (export "_start") (local $left i32) (local.set $left (i32.const 50))
               (loop $more (call $print (i32.const 2) (i32.const 16) (i32.const 14))
                   (local.set $left (i32.sub (local.get $left) (i32.const 1))) (br_if $more (local.get $left)))
               (call $exit (i32.const 1)))"#,
    );
    world.hosted_agent(&bob, "noisy", "noise", "1", noisy).await;
    let id = ada.execute(json!({ "capabilities": ["noise"] })).await;
    world.settle().await;
    for party in [&ada, &bob] {
        let result = party.task(&id).await["result"].take();
        let logs = result["logs"].as_str().unwrap();
        assert!(logs.starts_with("why it failed\n") && logs.len() < 300, "{logs:?}");
        assert_eq!(result["faultCode"], "EXIT_CODE");
        assert!(result["fuel"].as_str().unwrap().parse::<u64>().unwrap() > 0);
    }
    world.check().await;
}

#[tokio::test]
async fn a_buyer_without_the_money_buys_nothing_and_leaves_no_trace() {
    let world = World::start().await;
    let (ada, bob) = market(&world).await;
    world.hosted_agent(&bob, "echo", "echo", "1", echoing()).await;
    let tables = ["tasks", "auctions", "bids", "channels", "holds", "transfers", "entries", "executions", "events"];
    let mut before = Vec::new();
    for table in tables {
        before.push(world.rows(table).await);
    }
    let order = json!({ "capabilities": ["echo"], "budget": "100.000001" });
    assert_eq!(ada.refused_task(order.clone()).await, "INSUFFICIENT_FUNDS");
    assert_eq!(ada.refused_auction(order).await, "INSUFFICIENT_FUNDS");
    assert_eq!(bob.refused_task(json!({ "capabilities": ["echo"], "budget": "0.000001" })).await, "INSUFFICIENT_FUNDS");
    for (table, before) in tables.into_iter().zip(before) {
        assert_eq!(world.rows(table).await, before, "{table}");
    }
    assert_eq!(ada.wallet().await, amounts("100", "0"));
    // To the last micro-credit it is bought.
    ada.execute(json!({ "capabilities": ["echo"], "budget": "100" })).await;
    assert_eq!(ada.wallet().await, amounts("99", "1"));
    world.settle().await;
    world.check().await;
}

#[tokio::test]
async fn a_task_that_makes_no_sense_is_refused_before_anything_is_held() {
    let world = World::start().await;
    let (ada, _) = market(&world).await;
    let wrong = [
        json!({ "budget": "0" }),
        json!({ "title": "" }),
        json!({ "title": "x".repeat(201) }),
        json!({ "capabilities": [] }),
        json!({ "capabilities": ["no spaces"] }),
        json!({ "capabilities": (0..21).map(|n| format!("c{n}")).collect::<Vec<_>>() }),
        json!({ "input": "x".repeat(256 * 1024) }),
        json!({ "outputSchema": { "type": "nothing" } }),
        json!({ "outputSchema": { "$ref": "http://127.0.0.1:1/x" } }),
        json!({ "timeout": "PT0S" }),
        json!({ "timeout": "PT10M" }),
        json!({ "timeout": "P36524D" }),
        json!({ "startTimeout": "PT0.5S" }),
        json!({ "maxAttempts": 0 }),
        json!({ "maxAttempts": 4 }),
        json!({ "maxPrice": "10.000001" }),
        json!({ "maxPrice": "0" }),
        json!({ "reservePrice": "11" }),
        json!({ "closesIn": "PT0.9S" }),
        json!({ "closesIn": "P31D" }),
        json!({ "awardMode": "MANUAL" }),
        json!({ "closeAfterBids": 0 }),
        json!({ "softClose": "PT1M", "closesIn": "PT1H" }),
        json!({ "softClose": "PT1M", "visibility": "OPEN" }),
        json!({ "idempotencyKey": "" }),
        json!({ "idempotencyKey": "x".repeat(129) }),
    ];
    for over in wrong {
        assert_eq!(ada.refused_task(over.clone()).await, "INVALID_INPUT", "{over}");
    }
    // What is no amount, no duration and no share at all does not even reach the market.
    for over in [
        json!({ "budget": "-1" }),
        json!({ "budget": 1 }),
        json!({ "budget": "1e3" }),
        json!({ "budget": "0.0000001" }),
        json!({ "budget": "1000000000.000001" }),
        json!({ "timeout": "-PT1S" }),
        json!({ "timeout": 10 }),
        json!({ "priceWeight": 101 }),
        json!({ "minReputation": "100.001" }),
    ] {
        let mut input =
            json!({ "title": "x", "capabilities": ["a"], "input": 1, "budget": "1", "idempotencyKey": "k" });
        input.as_object_mut().unwrap().extend(over.as_object().unwrap().clone());
        let document = "mutation($input: ExecuteTaskInput!) { executeTask(input: $input) { userErrors { code } } }";
        let reply = ada.raw(document, &json!({ "input": input })).await;
        assert!(reply.json()["data"]["executeTask"].is_null(), "{over}: {reply:?}");
        assert_eq!(reply.code(), "BAD_USER_INPUT", "{over}");
    }
    assert_eq!(ada.wallet().await, amounts("100", "0"));
    assert_eq!(world.rows("tasks").await, 0);
    world.check().await;
}

#[tokio::test]
async fn a_task_that_nobody_can_do_costs_nothing() {
    let world = World::start().await;
    let (ada, bob) = market(&world).await;
    // Too dear, of the buyer, paused, without a module, of another trade.
    world.hosted_agent(&bob, "dear", "text.stats", "10.000001", echoing()).await;
    world.hosted_agent(&ada, "own", "text.stats", "1", echoing()).await;
    let paused = world.hosted_agent(&bob, "paused", "text.stats", "1", echoing()).await;
    bob.call("pauseAgent", "agent { status }", json!({ "agentId": paused.to_string() })).await;
    world.agent(&bob, "empty", "HOSTED", "text.stats", "1").await;
    world.hosted_agent(&bob, "other", "csv.summary", "1", echoing()).await;
    let id = ada.execute(json!({})).await;
    let task = ada.task(&id).await;
    assert_eq!((&task["status"], &task["failureCode"]), (&json!("EXPIRED"), &json!("NO_ELIGIBLE_BID")));
    assert_eq!((&task["price"], &task["paid"], &task["channel"]), (&Value::Null, &Value::Null, &Value::Null));
    assert_eq!(ada.auction(task["auction"]["id"].as_str().unwrap()).await["bids"]["totalCount"], 0);
    assert_eq!(ada.wallet().await, amounts("100", "0"));
    world.check().await;
}

#[tokio::test]
async fn a_buyer_cancels_while_the_auction_is_open_and_never_after() {
    let world = World::start().await;
    let (ada, bob) = market(&world).await;
    let agent = world.agent(&bob, "hand", "EXTERNAL", "text.stats", "1").await;
    let auction = ada.open(json!({})).await;
    bob.bid(&auction, agent, "2").await;
    let task = ada.task_of(&auction).await;
    let cancel = json!({ "taskId": task["id"] });
    assert_eq!(world.anonymous().fault("cancelTask", cancel.clone()).await, "UNAUTHENTICATED");
    assert_eq!(bob.refusal("cancelTask", cancel.clone()).await, "NOT_FOUND");
    assert_eq!(bob.refusal("cancelAuction", json!({ "auctionId": auction })).await, "NOT_FOUND");
    assert_eq!(ada.wallet().await, amounts("90", "10"));
    let cancelled = ada.call("cancelTask", "task { status failureCode paid }", cancel.clone()).await;
    assert_eq!(cancelled["task"], json!({ "status": "CANCELLED", "failureCode": "CANCELLED", "paid": null }));
    assert_eq!(ada.wallet().await, amounts("100", "0"));
    let closed = ada.auction(&auction).await;
    assert_eq!(closed["status"], "CANCELLED");
    assert_eq!(bids(&closed)[0].1, "CANCELLED");
    assert_eq!(ada.refusal("cancelTask", cancel).await, "TASK_NOT_OPEN");
    assert_eq!(bob.refused_bid(&auction, agent, "1").await, "AUCTION_NOT_OPEN");

    // Seen from the auction it is the same; and after an award it is too late.
    let other = ada.open(json!({})).await;
    ada.call("cancelAuction", "auction { status }", json!({ "auctionId": other })).await;
    assert_eq!(ada.task_of(&other).await["status"], "CANCELLED");
    let awarded = ada.open(json!({ "closeAfterBids": 1, "startTimeout": "PT1M" })).await;
    bob.bid(&awarded, agent, "2").await;
    let task = ada.task_of(&awarded).await;
    assert_eq!(ada.refusal("cancelTask", json!({ "taskId": task["id"] })).await, "TASK_NOT_OPEN");
    assert_eq!(ada.wallet().await, amounts("98", "2"));
    world.pass(Duration::from_mins(1)).await;
    assert_eq!(ada.wallet().await, amounts("100", "0"));
    world.check().await;
}

#[tokio::test]
async fn the_runner_up_does_the_work_when_the_winner_does_not_start() {
    let world = World::start().await;
    let (ada, bob) = market(&world).await;
    let cleo = world.user("cleo").await;
    let lazy = world.agent(&cleo, "lazy", "EXTERNAL", "echo", "1").await;
    let eager = world.hosted_agent(&bob, "eager", "echo", "3", echoing()).await;
    let auction = ada.open(json!({ "capabilities": ["echo"], "closesIn": "PT1M", "startTimeout": "PT10S" })).await;
    cleo.bid(&auction, lazy, "2").await;
    world.pass(Duration::from_mins(1)).await;
    assert_eq!(ada.task_of(&auction).await["agent"]["name"], "lazy");
    assert_eq!(ada.wallet().await, amounts("98", "2"));
    world.pass(Duration::from_secs(10)).await;
    let task = ada.task_of(&auction).await;
    assert_eq!((&task["status"], &task["agent"]["name"]), (&json!("COMPLETED"), &json!("eager")));
    assert_eq!((&task["paid"], &task["winningBid"]["price"]), (&json!("3"), &json!("3")));
    assert_eq!(ada.wallet().await, amounts("97", "0"));
    assert_eq!((cleo.earned(lazy).await, bob.earned(eager).await), ("0".to_owned(), "3".to_owned()));
    assert_eq!(world.score(lazy).await, "40.277");
    let closed = ada.auction(&auction).await;
    assert_eq!(closed["clearingPrice"], "3");
    let mut states: Vec<_> = bids(&closed).into_iter().map(|bid| (bid.0, bid.1)).collect();
    states.sort();
    assert_eq!(states, [("2".to_owned(), "FORFEITED".to_owned()), ("3".to_owned(), "WON".to_owned())]);
    world.check().await;
}

#[tokio::test]
async fn work_that_we_do_not_start_in_time_goes_on_and_nobody_is_blamed() {
    let world = World::start().await;
    let (ada, bob) = market(&world).await;
    let first = world.hosted_agent(&bob, "first", "echo", "1", echoing()).await;
    world.hosted_agent(&bob, "second", "echo", "2", echoing()).await;
    let id = ada.execute(json!({ "capabilities": ["echo"], "startTimeout": "PT1S" })).await;
    // The clock turns before any worker looks.
    world.pass(Duration::from_secs(1)).await;
    let task = ada.task(&id).await;
    assert_eq!(
        (&task["status"], &task["agent"]["name"], &task["paid"]),
        (&json!("COMPLETED"), &json!("second"), &json!("2"))
    );
    assert_eq!(world.score(first).await, "42.5");
    assert_eq!(ada.wallet().await, amounts("98", "0"));
    world.check().await;
}

/// A worker that claims a piece of work and is never heard of again. Answers its fencing token.
async fn lost_worker(world: &World) -> (TaskId, execution::Claim) {
    let claim = world.app.store().write(Caller::System, async |work| execution::claim(work, "lost").await);
    let claim = claim.await.unwrap().expect("work waits");
    (claim.task.id, claim)
}

fn late(claim: &execution::Claim) -> Report {
    Report {
        execution: claim.execution.id,
        outcome: Ok(JsonText("\"late\"".to_owned())),
        check: None,
        logs: String::new(),
        usage: Usage::default(),
        module_sha256: None,
    }
}

#[tokio::test]
async fn work_whose_worker_dies_is_done_by_another_and_paid_once() {
    let world = World::start().await;
    let (ada, bob) = market(&world).await;
    let agent = world.hosted_agent(&bob, "echo", "echo", "2", echoing()).await;
    let id = ada.execute(json!({ "capabilities": ["echo"], "input": "right" })).await;
    let (task, claim) = lost_worker(&world).await;
    assert_eq!((task.to_string(), ada.task(&id).await["status"].take()), (id.clone(), json!("RUNNING")));
    assert_eq!(ada.refusal("cancelTask", json!({ "taskId": id })).await, "TASK_NOT_OPEN");
    // Its lease runs out, the work waits a moment and is claimed again.
    world.pass(Duration::from_secs(30)).await;
    world.pass(Duration::from_mins(1)).await;
    let done = ada.task(&id).await;
    assert_eq!((&done["status"], &done["result"]["output"]), (&json!("COMPLETED"), &json!("right")));
    // The lost worker comes back with a result. It does not count.
    let store = world.app.store();
    let token = claim.execution.token;
    let came =
        store.write(Caller::System, async |work| execution::complete(work, task, token, late(&claim)).await).await;
    assert_eq!(came.unwrap_err().refusal_code(), Some("LEASE_LOST"));
    assert_eq!(ada.task(&id).await["result"]["output"], "right");
    assert_eq!(bob.earned(agent).await, "2");
    assert_eq!(ada.wallet().await, amounts("98", "0"));
    world.check().await;
}

#[tokio::test]
async fn work_whose_workers_all_die_is_refunded_and_the_agent_is_not_blamed() {
    let world = World::start().await;
    let (ada, bob) = market(&world).await;
    let agent = world.hosted_agent(&bob, "echo", "echo", "2", echoing()).await;
    let id = ada.execute(json!({ "capabilities": ["echo"], "maxAttempts": 2 })).await;
    lost_worker(&world).await;
    // The lease ends; before a worker of ours looks again, another one takes the work and dies as well.
    world.turn(Duration::from_secs(30));
    world.app.sweep_once().await.unwrap();
    world.turn(Duration::from_secs(5));
    lost_worker(&world).await;
    world.pass(Duration::from_secs(30)).await;
    let task = ada.task(&id).await;
    assert_eq!(
        (&task["status"], &task["failureCode"], &task["paid"]),
        (&json!("REFUNDED"), &json!("WORKER_LOST"), &json!("0"))
    );
    assert_eq!(ada.wallet().await, amounts("100", "0"));
    assert_eq!(bob.earned(agent).await, "0");
    assert_eq!(world.score(agent).await, "42.5");
    world.check().await;
}

#[tokio::test]
async fn a_buyer_who_retries_the_same_intent_buys_once() {
    let world = World::start().await;
    let (ada, bob) = market(&world).await;
    world.hosted_agent(&bob, "echo", "echo", "2", echoing()).await;
    let order = |budget: &str| json!({ "capabilities": ["echo"], "budget": budget, "idempotencyKey": "once" });
    let first = ada.execute(order("5")).await;
    world.settle().await;
    for _ in 0..3 {
        assert_eq!(ada.execute(order("5")).await, first);
    }
    assert_eq!(ada.refused_task(order("6")).await, "IDEMPOTENCY_KEY_REUSED");
    world.settle().await;
    assert_eq!(ada.wallet().await, amounts("98", "0"));
    assert_eq!(world.rows("tasks").await, 1);
    // Another person's key and another mutation's key are other keys.
    assert_eq!(bob.refused_task(order("5")).await, "INSUFFICIENT_FUNDS");
    let auction = ada.open(json!({ "idempotencyKey": "once" })).await;
    ada.call("cancelAuction", "auction { id }", json!({ "auctionId": auction })).await;
    // What was refused stays refused for this intent; a new intent may be taken.
    let dear = |key: &str| json!({ "capabilities": ["echo"], "budget": "150", "idempotencyKey": key });
    assert_eq!(ada.refused_task(dear("poor")).await, "INSUFFICIENT_FUNDS");
    world.credit(&ada, "100").await;
    assert_eq!(ada.refused_task(dear("poor")).await, "INSUFFICIENT_FUNDS");
    ada.execute(dear("rich")).await;
    world.settle().await;
    assert_eq!(ada.wallet().await, amounts("196", "0"));
    world.check().await;
}

#[tokio::test]
async fn retries_that_arrive_together_buy_once() {
    let world = World::start().await;
    let (ada, bob) = market(&world).await;
    world.hosted_agent(&bob, "echo", "echo", "2", echoing()).await;
    let key = fresh_key();
    let order = json!({ "capabilities": ["echo"], "idempotencyKey": key });
    let all = futures_util::future::join_all((0..8).map(|_| ada.execute(order.clone()))).await;
    assert!(all.iter().all(|id| *id == all[0]), "{all:?}");
    world.settle().await;
    assert_eq!(world.rows("tasks").await, 1);
    assert_eq!(ada.wallet().await, amounts("98", "0"));
    world.check().await;
}

#[tokio::test]
async fn strangers_see_neither_input_nor_output() {
    let world = World::start().await;
    let (ada, bob) = market(&world).await;
    let (loser, eve) = (world.user("loser").await, world.user("eve").await);
    world.hosted_agent(&bob, "echo", "echo", "1", echoing()).await;
    world.hosted_agent(&loser, "other", "echo", "2", echoing()).await;
    let id = ada.execute(json!({ "capabilities": ["echo"], "input": "the-secret", "title": "the-secret-title" })).await;
    world.settle().await;
    let auction = ada.task(&id).await["auction"]["id"].as_str().unwrap().to_owned();
    let channel = ada.task(&id).await["channel"]["id"].as_str().unwrap().to_owned();
    let everything = "query($task: ID!, $auction: ID!, $channel: ID!) {
        task(id: $task) { id input }
        taskResult(taskId: $task) { output logs }
        node(id: $task) { id ... on Task { input result { output } } }
        nodes(ids: [$task, $channel]) { id }
        channel(id: $channel) { deposit }
        auction(id: $auction) { task { input } bids { nodes { auction { task { title } } } } }
        events(filter: { taskId: $task }) { nodes { id } }
        tasks { totalCount nodes { input } }
        transfers { totalCount }
        all: events(first: 100) { nodes { id kind ... on TaskEvent { task { input } } } }
    }";
    let variables = json!({ "task": id, "auction": auction, "channel": channel });
    for stranger in [&eve, &loser] {
        let seen = stranger.query(everything, variables.clone()).await;
        assert!(!seen.to_string().contains("the-secret"), "{seen:#}");
        for field in ["task", "taskResult", "node", "channel", "events"] {
            assert_eq!(seen[field], Value::Null, "{field}");
        }
        assert_eq!(seen["nodes"], json!([null, null]));
        assert_eq!(seen["auction"]["task"], Value::Null);
        assert_eq!((&seen["tasks"]["totalCount"], &seen["transfers"]["totalCount"]), (&json!(0), &json!(0)));
    }
    let anonymous = world.anonymous().raw(everything, &variables).await;
    assert!(!anonymous.text.contains("the-secret"), "{anonymous:?}");
    // The payer, the owner of the agent that did it, and administrators see it.
    for party in [&ada, &bob, &world.admin().await] {
        let seen = party.query(everything, variables.clone()).await;
        assert_eq!(
            (&seen["task"]["input"], &seen["taskResult"]["output"]),
            (&json!("the-secret"), &json!("the-secret"))
        );
    }
    world.check().await;
}

#[tokio::test]
async fn a_buyer_lists_tasks_by_side_and_state() {
    let world = World::start().await;
    let (ada, bob) = market(&world).await;
    world.hosted_agent(&bob, "echo", "echo", "1", echoing()).await;
    world.hosted_agent(&bob, "broken", "broken", "1", crashing()).await;
    for capability in ["echo", "echo", "broken"] {
        ada.execute(json!({ "capabilities": [capability] })).await;
    }
    world.settle().await;
    let count = async |who: &Client, filter: Value| {
        let document = "query($filter: TaskFilter) { tasks(filter: $filter) { totalCount } }";
        who.query(document, json!({ "filter": filter })).await["tasks"]["totalCount"].as_i64().unwrap()
    };
    assert_eq!(count(&ada, json!({ "side": "REQUESTER" })).await, 3);
    assert_eq!(count(&ada, json!({ "side": "WORKER" })).await, 0);
    assert_eq!(count(&bob, json!({ "side": "WORKER" })).await, 3);
    assert_eq!(count(&bob, json!({ "status": ["REFUNDED"] })).await, 1);
    assert_eq!(count(&ada, json!({ "status": ["COMPLETED"] })).await, 2);
    assert_eq!(count(&world.admin().await, Value::Null).await, 3);
    assert_eq!(world.anonymous().error("{ tasks { totalCount } }", json!({})).await, "UNAUTHENTICATED");
    world.check().await;
}
