//! Checkers: modules that say whether an output is good, what follows from their word, and that they can harm nobody.

use std::{fmt::Write as _, process::Command, time::Duration};

use entity::id::AgentId;
use serde_json::{Value, json};

use crate::world::{Client, World, answering, crashing, echoing, guest, sha256};

/// What there is to see of a checked task.
const CHECKED: &str = "query($id: ID!) { task(id: $id) {
    status verified failureCode failureMessage paid checker { sha256 agent { id } }
    result { outcome output faultCode faultMessage check { passed reason } }
} }";

const PASS: &str = r#"{"pass":true}"#;
const REFUSE: &str = r#"{"pass":false,"reason":"the answer is not prime"}"#;

async fn see(who: &Client, task: &str) -> Value {
    who.query(CHECKED, json!({ "id": task })).await["task"].take()
}

/// A buyer, and two sellers of whom one sells answers and the other one has a module that checks them.
struct Deal {
    world: World,
    ada: Client,
    bob: Client,
    eve: Client,
    agent: AgentId,
    checker: AgentId,
}

impl Deal {
    async fn with(checker: Vec<u8>) -> Self {
        let world = World::start().await;
        let (ada, bob, eve) = (world.user("ada").await, world.user("bob").await, world.user("eve").await);
        world.credit(&ada, "100").await;
        let agent = world.hosted_agent(&bob, "oracle", "oracle", "2", answering("{\"answer\": 42}")).await;
        let checker = world.hosted_agent(&eve, "judge", "judge", "1", checker).await;
        Self { world, ada, bob, eve, agent, checker }
    }

    /// The usual task, checked by the checker, but for `over`.
    fn order(&self, over: &Value) -> Value {
        let mut order = json!({ "capabilities": ["oracle"], "budget": "5", "checkerId": self.checker.to_string() });
        order.as_object_mut().unwrap().extend(over.as_object().unwrap().clone());
        order
    }

    /// Posts the task and lets it be done.
    async fn done(&self, over: Value) -> Value {
        let id = self.ada.execute(self.order(&over)).await;
        self.world.settle().await;
        see(&self.ada, &id).await
    }

    async fn wallet(&self) -> String {
        self.ada.wallet().await.0
    }
}

/// A checker that passes an output if and only if it is asked exactly this.
fn expecting(question: &str) -> Vec<u8> {
    let bytes = |text: &str| {
        text.bytes().fold(String::new(), |mut text, byte| {
            write!(text, "\\{byte:02x}").unwrap();
            text
        })
    };
    let (pass, fail) = (PASS, r#"{"pass":false,"reason":"another question"}"#);
    guest(&format!(
        r#"(data (i32.const 50000) "{}") (data (i32.const 60000) "{}") (data (i32.const 61000) "{}")
        (func $fail
            (call $print (i32.const 1) (i32.const 61000) (i32.const {}))
            (call $exit (i32.const 0)))
        (func (export "_start")
            (local $end i32) (local $at i32)
            (local.set $end (i32.const 1024))
            (loop $more
                (i32.store (i32.const 0) (local.get $end))
                (i32.store (i32.const 4) (i32.const 4096))
                (drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
                (local.set $end (i32.add (local.get $end) (i32.load (i32.const 8))))
                (br_if $more (i32.load (i32.const 8))))
            (if (i32.ne (local.get $end) (i32.const {})) (then (call $fail)))
            (loop $next
                (if (i32.ne (i32.load8_u (i32.add (i32.const 1024) (local.get $at)))
                            (i32.load8_u (i32.add (i32.const 50000) (local.get $at))))
                    (then (call $fail)))
                (local.set $at (i32.add (local.get $at) (i32.const 1)))
                (br_if $next (i32.lt_u (local.get $at) (i32.const {}))))
            (call $print (i32.const 1) (i32.const 60000) (i32.const {})))"#,
        bytes(question),
        bytes(pass),
        bytes(fail),
        fail.len(),
        1024 + question.len(),
        question.len(),
        pass.len(),
    ))
}

#[tokio::test]
async fn a_checker_gets_input_and_output_and_its_pass_pays() {
    let deal = Deal::with(expecting(r#"{"input":"one two three","output":{"answer": 42}}"#)).await;
    let task = deal.done(json!({})).await;
    assert_eq!((&task["status"], &task["verified"], &task["paid"]), (&json!("COMPLETED"), &json!(true), &json!("2")));
    assert_eq!(task["result"]["check"], json!({ "passed": true, "reason": null }));
    assert_eq!(task["checker"]["agent"]["id"], deal.checker.to_string());
    let shown = deal.world.anonymous().query("{ auctions { nodes { checker { sha256 } } } }", json!({})).await;
    assert_eq!(
        shown["auctions"]["nodes"][0]["checker"]["sha256"], task["checker"]["sha256"],
        "bidders know their judge"
    );
    assert_eq!(deal.bob.earned(deal.agent).await, "2");
    // Another input is another question.
    let task = deal.done(json!({ "input": "one two" })).await;
    assert_eq!((&task["status"], &task["failureCode"]), (&json!("REFUNDED"), &json!("CHECK_FAILED")));
    // Without a checker nobody is asked.
    let task = deal.done(json!({ "checkerId": null })).await;
    assert_eq!((&task["checker"], &task["result"]["check"]), (&Value::Null, &Value::Null));
    assert_eq!(deal.wallet().await, "96");
    deal.world.check().await;
}

#[tokio::test]
async fn what_a_checker_refuses_is_refunded_with_its_reason_and_counts_against_the_agent() {
    let deal = Deal::with(answering(REFUSE)).await;
    let before = deal.world.score(deal.agent).await;
    let task = deal.done(json!({})).await;
    assert_eq!((&task["status"], &task["failureCode"]), (&json!("REFUNDED"), &json!("CHECK_FAILED")));
    assert_eq!(task["failureMessage"], "The checker refused the output: the answer is not prime");
    assert_eq!(task["result"]["check"], json!({ "passed": false, "reason": "the answer is not prime" }));
    assert_eq!((&task["result"]["outcome"], &task["result"]["output"]), (&json!("FAILED"), &Value::Null));
    assert_eq!(deal.wallet().await, "100");
    assert!(deal.world.score(deal.agent).await < before, "it is evidence");
    assert_eq!(deal.bob.earned(deal.agent).await, "0");
    deal.world.check().await;
}

#[tokio::test]
async fn a_payer_who_reviews_sees_what_the_checker_refused() {
    let deal = Deal::with(answering(REFUSE)).await;
    let review = json!({ "acceptance": "REVIEW", "reviewWindow": "PT1H" });
    let mut ids = Vec::new();
    for _ in 0..2 {
        ids.push(deal.ada.execute(deal.order(&review)).await);
    }
    deal.world.settle().await;
    for id in &ids {
        let task = see(&deal.ada, id).await;
        assert_eq!((&task["status"], &task["verified"]), (&json!("SUBMITTED"), &json!(false)));
        assert_eq!(task["result"]["output"], json!({ "answer": 42 }));
        assert_eq!(task["result"]["faultCode"], "CHECK_FAILED");
        assert_eq!(task["result"]["check"]["passed"], false);
    }
    // The payer may be content all the same; silence is with the checker.
    deal.ada.call("acceptResult", "task { id }", json!({ "taskId": ids[0] })).await;
    deal.world.pass(Duration::from_hours(1)).await;
    assert_eq!(see(&deal.ada, &ids[0]).await["status"], "COMPLETED");
    let silent = see(&deal.ada, &ids[1]).await;
    assert_eq!((&silent["status"], &silent["failureCode"]), (&json!("REFUNDED"), &json!("NOT_ACCEPTED")));
    assert_eq!(deal.wallet().await, "98");
    deal.world.check().await;
}

#[tokio::test]
async fn a_checker_that_cannot_say_refunds_and_blames_nobody() {
    for (checker, why) in [
        (guest(r#"(func (export "_start") (loop $again (br $again)))"#), "used up its fuel"),
        (crashing(), "crashed"),
        (guest(r#"(func (export "_start") (call $exit (i32.const 3)))"#), "exit code 3"),
        (echoing(), "did not answer"),
        (answering(r#"{"pass": "yes"}"#), "did not answer"),
        (answering("pass"), "did not answer"),
    ] {
        let deal = Deal::with(checker).await;
        let before = deal.world.score(deal.agent).await;
        for acceptance in ["AUTOMATIC", "REVIEW"] {
            let task = deal.done(json!({ "acceptance": acceptance })).await;
            assert_eq!((&task["status"], &task["failureCode"]), (&json!("REFUNDED"), &json!("CHECKER_FAILED")));
            let message = task["failureMessage"].as_str().unwrap();
            assert!(message.contains("could not say") && message.contains(why), "{message}");
            assert_eq!((&task["result"]["check"], &task["result"]["output"]), (&Value::Null, &Value::Null));
        }
        assert_eq!(deal.wallet().await, "100");
        assert_eq!(deal.world.score(deal.agent).await, before, "nothing is known about the work");
        assert_eq!(deal.world.rows("reputation_events").await, 0);
        deal.world.check().await;
    }
}

#[tokio::test]
async fn a_reason_is_kept_up_to_a_bound_and_without_what_no_text_should_have() {
    let long = format!(r#"{{"pass":false,"reason":"\u0000\u001b[31m{}"}}"#, "x".repeat(20_000));
    let deal = Deal::with(answering(&long)).await;
    let task = deal.done(json!({})).await;
    let reason = task["result"]["check"]["reason"].as_str().unwrap();
    assert_eq!(reason, format!("[31m{}", "x".repeat(496)));
    assert_eq!(task["result"]["faultMessage"], format!("The checker refused the output: {reason}"));
    deal.world.check().await;
}

#[tokio::test]
async fn an_output_that_fails_before_never_comes_to_the_checker() {
    let deal = Deal::with(answering(PASS)).await;
    let task = deal.done(json!({ "outputSchema": { "type": "string" } })).await;
    assert_eq!((&task["failureCode"], &task["result"]["check"]), (&json!("OUTPUT_SCHEMA_VIOLATION"), &Value::Null));
    deal.world.check().await;
}

#[tokio::test]
async fn the_module_of_the_posting_checks_whatever_becomes_of_its_agent() {
    let (pass, refuse) = (answering(PASS), answering(REFUSE));
    let deal = Deal::with(pass.clone()).await;
    let id = deal.ada.execute(deal.order(&json!({}))).await;
    // The work waits. Meanwhile the checker's owner uploads another module and takes the agent out of the market.
    let agent = deal.checker.to_string();
    assert_eq!(deal.eve.upload(&agent, refuse.clone()).await.status, 200);
    let late = deal.ada.execute(deal.order(&json!({}))).await;
    deal.eve.call("retireAgent", "agent { id }", json!({ "agentId": agent })).await;
    deal.world.settle().await;
    let (first, second) = (see(&deal.ada, &id).await, see(&deal.ada, &late).await);
    assert_eq!((&first["status"], &first["checker"]["sha256"]), (&json!("COMPLETED"), &json!(sha256(&pass))));
    assert_eq!((&second["status"], &second["checker"]["sha256"]), (&json!("REFUNDED"), &json!(sha256(&refuse))));
    deal.world.check().await;
}

#[tokio::test]
async fn ones_own_agent_may_check_and_only_one_with_a_module() {
    let deal = Deal::with(answering(PASS)).await;
    let own = deal.world.hosted_agent(&deal.ada, "mine", "judge", "1", answering(REFUSE)).await.to_string();
    let task = deal.done(json!({ "checkerId": own })).await;
    assert_eq!(task["result"]["check"]["passed"], false);
    deal.ada.call("pauseAgent", "agent { id }", json!({ "agentId": own })).await;
    let task = deal.done(json!({ "checkerId": own })).await;
    assert_eq!(task["result"]["check"]["passed"], false, "a paused agent takes no work, and checks");

    let empty = deal.world.agent(&deal.eve, "empty", "HOSTED", "judge", "1").await.to_string();
    let outside = deal.world.agent(&deal.eve, "outside", "EXTERNAL", "judge", "1").await.to_string();
    let unknown = AgentId(uuid::Uuid::from_u128(7)).to_string();
    deal.ada.call("retireAgent", "agent { id }", json!({ "agentId": own })).await;
    for id in [empty, outside, unknown, own] {
        let order = deal.order(&json!({ "checkerId": id }));
        assert_eq!(deal.ada.refused_task(order.clone()).await, "CHECKER_NOT_READY");
        assert_eq!(deal.ada.refused_auction(order).await, "CHECKER_NOT_READY");
    }
    assert_eq!(deal.ada.refused_task(deal.order(&json!({ "checkerId": "judge" }))).await, "INVALID_INPUT");
    assert_eq!(deal.wallet().await, "100");
    deal.world.check().await;
}

#[tokio::test]
async fn a_checker_whose_module_is_gone_is_our_fault_and_tried_again() {
    let deal = Deal::with(answering(PASS)).await;
    let id = deal.ada.execute(deal.order(&json!({ "maxAttempts": 2 }))).await;
    let file = format!("modules/modules/{}.wasm", sha256(answering(PASS)));
    std::fs::remove_file(deal.world.folder().join(file)).unwrap();
    for _ in 0..3 {
        deal.world.pass(Duration::from_secs(2)).await;
    }
    let task = see(&deal.ada, &id).await;
    assert_eq!((&task["status"], &task["failureCode"]), (&json!("REFUNDED"), &json!("MODULE_UNAVAILABLE")));
    assert_eq!(deal.world.rows("reputation_events").await, 0);
    deal.world.check().await;
}

#[test]
fn a_checker_is_tried_without_a_server() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    put("agent.wasm", &answering("[1, 2]"));
    put("right.wasm", &expecting(r#"{"input":{"n":2},"output":[1, 2]}"#));
    put("wrong.wasm", &answering(REFUSE));
    put("broken.wasm", &crashing());
    put("input.json", br#"{ "n": 2 }"#);
    let run = |checker: &str| {
        let program = env!("CARGO_BIN_EXE_zerostate");
        let arguments = ["agent", "run", "agent.wasm", "--input", "input.json", "--json", "--checker", checker];
        let output = Command::new(program).current_dir(folder.path()).args(arguments).output().unwrap();
        (output.status.code(), serde_json::from_slice::<Value>(&output.stdout).unwrap())
    };
    let (code, document) = run("right.wasm");
    assert_eq!(
        (code, &document["outcome"], &document["check"]["passed"]),
        (Some(0), &json!("SUCCEEDED"), &json!(true))
    );
    let (code, document) = run("wrong.wasm");
    assert_eq!((code, &document["fault"]["code"]), (Some(1), &json!("CHECK_FAILED")));
    assert_eq!(document["check"], json!({ "passed": false, "reason": "the answer is not prime" }));
    let (code, document) = run("broken.wasm");
    assert_eq!((code, &document["fault"]["code"]), (Some(1), &json!("CHECKER_FAILED")));
}
