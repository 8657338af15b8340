//! Results that wait for their payer, and disputes about them: who may say what and until when, what silence means, who rules,
//! where the money goes, who sees what, and that of many who act at once one wins.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use entity::{
    id::{AgentId, DisputeId, Id, TaskId},
    reputation_event,
    text::JsonText,
    user::Role,
};
use futures_util::future::{join, join_all};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use serde_json::{Value, json};
use uuid::Uuid;
use zerostate::{
    app::App,
    caller::Caller,
    execution::{self, Claim},
    task::{Report, Usage},
};

use crate::world::{Client, World, answering, crashing, fresh_key, on_postgres, sha256};

const DAY: Duration = Duration::from_hours(24);
/// The least step of a clock.
const TICK: Duration = Duration::from_micros(1);

/// All that there is to see of a task under review.
const REVIEW: &str = "query($id: ID!) { task(id: $id) {
    id title input status acceptance reviewWindow reviewUntil submittedAt verified price paid deadlineAt failureCode
    escrow { status held paid returned } channel { status closeReason deposit paid }
    result { outcome output faultCode cost } rating { stars }
    dispute { id status openedBy reason amount evidenceUntil rulingUntil awarded opinion createdAt resolvedAt
        task { id } payer { id } agent { id } arbiter { id displayName }
        evidence { totalCount nodes { id kind body sha256 createdAt submitter { id } } } }
} }";

/// A requester with 100 credits, an agent that answers 42 for 2 credits, and its owner.
struct Deal {
    world: World,
    ada: Client,
    bob: Client,
    agent: AgentId,
}

impl Deal {
    async fn begin() -> Self {
        Self::of(World::with(|config| config.terms.fee_bps = 250).await).await
    }

    async fn of(world: World) -> Self {
        let (ada, bob) = (world.user("ada").await, world.user("bob").await);
        world.credit(&ada, "100").await;
        let agent = world.hosted_agent(&bob, "oracle", "oracle", "2", answering("{\"answer\":42}")).await;
        Self { world, ada, bob, agent }
    }

    /// A task under review whose result is there: verified, or not.
    async fn submitted(&self, verified: bool) -> String {
        let kind = if verified { "integer" } else { "string" };
        let schema = json!({ "type": "object", "properties": { "answer": { "type": kind } } });
        let order =
            json!({ "capabilities": ["oracle"], "acceptance": "REVIEW", "outputSchema": schema, "budget": "5" });
        let id = self.ada.execute(order).await;
        self.world.settle().await;
        id
    }

    /// A disputed task and its dispute.
    async fn disputed(&self, verified: bool) -> (String, String) {
        let task = self.submitted(verified).await;
        let reason = json!({ "taskId": task, "reason": "Not what I asked for." });
        let made = self.ada.call("rejectResult", "task { dispute { id } }", reason).await;
        (task, made["task"]["dispute"]["id"].as_str().unwrap().to_owned())
    }

    async fn show(&self, who: &Client, dispute: &str, body: &str) {
        let input = json!({ "disputeId": dispute, "kind": "STATEMENT", "body": body });
        who.call("submitEvidence", "evidence { id }", input).await;
    }

    async fn arbiter(&self, name: &str) -> Client {
        self.world.of_role(name, Role::Arbiter).await
    }

    /// What the agent has earned, and the evidence of its work: cause and success in billionths.
    async fn record(&self) -> (String, Vec<(String, Option<i64>)>) {
        let events = reputation_event::Entity::find()
            .filter(reputation_event::Column::AgentId.eq(self.agent))
            .filter(reputation_event::Column::Cause.ne(reputation_event::Cause::Rating))
            .all(self.world.app.store().read());
        let events = events.await.unwrap().into_iter().map(|event| (event.cause.name().to_owned(), event.success));
        (self.bob.earned(self.agent).await, events.collect())
    }
}

async fn see(who: &Client, task: &str) -> Value {
    who.query(REVIEW, json!({ "id": task })).await["task"].take()
}

fn on(task: &str) -> Value {
    json!({ "taskId": task })
}

fn because(task: &str) -> Value {
    json!({ "taskId": task, "reason": "It is wrong." })
}

fn ruling(dispute: &str, award: &str) -> Value {
    json!({ "disputeId": dispute, "award": award, "opinion": "So it is." })
}

fn amounts(available: &str, in_escrow: &str) -> (String, String) {
    (available.to_owned(), in_escrow.to_owned())
}

#[tokio::test]
async fn a_result_waits_for_its_payer_who_accepts_it() {
    let deal = Deal::begin().await;
    let (world, ada, bob) = (&deal.world, &deal.ada, &deal.bob);
    let id = deal.submitted(true).await;
    let task = see(ada, &id).await;
    assert_eq!(
        (&task["status"], &task["acceptance"], &task["verified"]),
        (&json!("SUBMITTED"), &json!("REVIEW"), &json!(true))
    );
    assert_eq!((&task["reviewWindow"], &task["submittedAt"]), (&json!("P1D"), &json!("2026-11-23T12:00:00.000000Z")));
    assert_eq!(
        (&task["reviewUntil"], &task["deadlineAt"]),
        (&json!("2026-11-24T12:00:00.000000Z"), &task["reviewUntil"])
    );
    assert_eq!(task["escrow"], json!({ "status": "HELD", "held": "2", "paid": "0", "returned": "3" }));
    assert_eq!(
        (&task["result"]["output"], &task["result"]["cost"]),
        (&json!({ "answer": 42 }), &json!("0")),
        "nothing is paid yet"
    );
    assert_eq!((&task["paid"], &task["dispute"]), (&Value::Null, &Value::Null));
    assert_eq!((ada.wallet().await, deal.record().await), (amounts("98", "2"), ("0".to_owned(), vec![])));
    assert_eq!(ada.refusal("rateAgent", json!({ "taskId": id, "stars": 5 })).await, "TASK_NOT_SETTLED");
    assert_eq!(bob.refusal("acceptResult", on(&id)).await, "NOT_FOUND", "the agent's owner is not who accepts");

    let key = json!({ "taskId": id, "idempotencyKey": "accept" });
    let first = ada.call("acceptResult", "task { id status paid }", key.clone()).await;
    assert_eq!(first["task"], json!({ "id": id, "status": "COMPLETED", "paid": "2" }));
    assert_eq!(ada.call("acceptResult", "task { id status paid }", key).await, first, "a retry is answered the same");
    for (field, input) in [("acceptResult", on(&id)), ("rejectResult", because(&id)), ("openDispute", because(&id))] {
        assert_eq!(ada.refusal(field, input).await, "TASK_NOT_SUBMITTED", "{field}");
    }
    let task = see(ada, &id).await;
    assert_eq!((&task["result"]["cost"], &task["reviewUntil"]), (&json!("2"), &json!("2026-11-24T12:00:00.000000Z")));
    assert_eq!(task["escrow"], json!({ "status": "RELEASED", "held": "0", "paid": "2", "returned": "3" }));
    // A fee of 2.5 %.
    let record = ("1.95".to_owned(), vec![("SUCCESS".to_owned(), Some(1_000_000_000))]);
    assert_eq!((ada.wallet().await, deal.record().await), (amounts("98", "0"), record));
    ada.call("rateAgent", "rating { stars }", json!({ "taskId": id, "stars": 5 })).await;
    world.pass(DAY * 2).await;
    assert_eq!(see(ada, &id).await["paid"], "2", "the end of the window changes nothing any more");
    deal.world.check().await;
}

#[tokio::test]
async fn silence_accepts_what_the_verifiers_passed_and_nothing_else() {
    let deal = Deal::begin().await;
    let (world, ada) = (&deal.world, &deal.ada);
    let (good, bad) = (deal.submitted(true).await, deal.submitted(false).await);
    let unverified = see(ada, &bad).await;
    assert_eq!((&unverified["status"], &unverified["verified"]), (&json!("SUBMITTED"), &json!(false)));
    let result = json!({ "outcome": "SUCCEEDED", "output": { "answer": 42 }, "faultCode": "OUTPUT_SCHEMA_VIOLATION", "cost": "0" });
    assert_eq!(unverified["result"], result, "the payer sees what came and what is wrong with it");
    assert_eq!(ada.wallet().await, amounts("96", "4"));

    world.pass(DAY.saturating_sub(TICK)).await;
    for id in [&good, &bad] {
        assert_eq!(see(ada, id).await["status"], "SUBMITTED", "the window is not over");
    }
    world.turn(TICK);
    // What silence decides does not wait for the sweeper.
    for (field, input) in
        [("acceptResult", on(&bad)), ("rejectResult", because(&good)), ("openDispute", because(&good))]
    {
        assert_eq!(ada.refusal(field, input).await, "REVIEW_OVER", "{field}");
    }
    assert_eq!(deal.bob.refusal("openDispute", because(&bad)).await, "REVIEW_OVER");
    world.settle().await;
    let (good, bad) = (see(ada, &good).await, see(ada, &bad).await);
    assert_eq!(
        (&good["status"], &good["paid"], &good["failureCode"]),
        (&json!("COMPLETED"), &json!("2"), &Value::Null)
    );
    assert_eq!(
        (&bad["status"], &bad["paid"], &bad["failureCode"]),
        (&json!("REFUNDED"), &json!("0"), &json!("NOT_ACCEPTED"))
    );
    assert_eq!(bad["escrow"], json!({ "status": "REFUNDED", "held": "0", "paid": "0", "returned": "5" }));
    let (earned, mut causes) = deal.record().await;
    causes.sort();
    let expected = [("FAILURE".to_owned(), Some(0)), ("SUCCESS".to_owned(), Some(1_000_000_000))];
    assert_eq!((earned.as_str(), causes), ("1.95", expected.to_vec()));
    assert_eq!(ada.wallet().await, amounts("98", "0"));
    deal.world.check().await;
}

#[tokio::test]
async fn a_payer_may_accept_what_the_verifiers_refused() {
    let deal = Deal::begin().await;
    let id = deal.submitted(false).await;
    deal.ada.call("acceptResult", "task { id }", on(&id)).await;
    let task = see(&deal.ada, &id).await;
    assert_eq!((&task["status"], &task["paid"], &task["verified"]), (&json!("COMPLETED"), &json!("2"), &json!(false)));
    assert_eq!(deal.record().await, ("1.95".to_owned(), vec![("SUCCESS".to_owned(), Some(1_000_000_000))]));
    deal.world.check().await;
}

#[tokio::test]
async fn what_brings_no_result_is_refunded_at_once_also_under_review() {
    let deal = Deal::begin().await;
    deal.world.hosted_agent(&deal.bob, "broken", "broken", "1", crashing()).await;
    deal.world.hosted_agent(&deal.bob, "mumbling", "mumbling", "1", answering("no json")).await;
    for (capability, code) in [("broken", "TRAP"), ("mumbling", "OUTPUT_NOT_JSON")] {
        let id = deal.ada.execute(json!({ "capabilities": [capability], "acceptance": "REVIEW" })).await;
        deal.world.settle().await;
        let task = see(&deal.ada, &id).await;
        assert_eq!((&task["status"], &task["failureCode"]), (&json!("REFUNDED"), &json!(code)));
        assert_eq!(
            (&task["verified"], &task["submittedAt"], &task["reviewUntil"]),
            (&Value::Null, &Value::Null, &Value::Null)
        );
        assert_eq!(deal.ada.refusal("openDispute", because(&id)).await, "TASK_NOT_SUBMITTED");
    }
    assert_eq!(deal.ada.wallet().await, amounts("100", "0"));
    deal.world.check().await;
}

#[tokio::test]
async fn automatic_tasks_have_no_review_and_windows_are_bounded() {
    let deal = Deal::begin().await;
    let order = |more: Value| {
        let mut order = json!({ "capabilities": ["oracle"] });
        order.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        order
    };
    for wrong in [
        json!({ "reviewWindow": "PT1H" }),
        json!({ "acceptance": "AUTOMATIC", "reviewWindow": "PT1H" }),
        json!({ "acceptance": "REVIEW", "reviewWindow": "PT59S" }),
        json!({ "acceptance": "REVIEW", "reviewWindow": "P30DT1S" }),
    ] {
        assert_eq!(deal.ada.refused_task(order(wrong.clone())).await, "INVALID_INPUT", "{wrong}");
        assert_eq!(deal.ada.refused_auction(order(wrong)).await, "INVALID_INPUT");
    }
    assert_eq!(deal.ada.wallet().await, amounts("100", "0"));
    for (window, until) in [("PT1M", "2026-11-23T12:01:00.000000Z"), ("P30D", "2026-12-23T12:00:00.000000Z")] {
        let id = deal.ada.execute(order(json!({ "acceptance": "REVIEW", "reviewWindow": window }))).await;
        deal.world.settle().await;
        assert_eq!(see(&deal.ada, &id).await["reviewUntil"], until);
        deal.ada.call("acceptResult", "task { id }", on(&id)).await;
    }
    let automatic = deal.ada.execute(order(json!({}))).await;
    assert_eq!(deal.ada.refusal("acceptResult", on(&automatic)).await, "TASK_NOT_SUBMITTED");
    deal.world.settle().await;
    let task = see(&deal.ada, &automatic).await;
    assert_eq!(
        (&task["status"], &task["acceptance"], &task["verified"]),
        (&json!("COMPLETED"), &json!("AUTOMATIC"), &json!(true))
    );
    assert_eq!((&task["reviewWindow"], &task["reviewUntil"]), (&Value::Null, &Value::Null));
    assert_eq!(deal.ada.refusal("rejectResult", because(&automatic)).await, "TASK_NOT_SUBMITTED");
    assert_eq!(deal.bob.refusal("openDispute", because(&automatic)).await, "TASK_NOT_SUBMITTED");
    // The same through an auction.
    let auction = deal.ada.open(order(json!({ "acceptance": "REVIEW", "closesIn": "PT10S" }))).await;
    deal.world.pass(Duration::from_secs(10)).await;
    assert_eq!(deal.ada.task_of(&auction).await["status"], "SUBMITTED");
    deal.world.pass(DAY).await;
    assert_eq!(deal.ada.task_of(&auction).await["status"], "COMPLETED");
    deal.world.check().await;
}

#[tokio::test]
async fn a_rejected_result_is_disputed_and_an_arbiter_shares_the_price_out() {
    let deal = Deal::begin().await;
    let (world, ada, bob) = (&deal.world, &deal.ada, &deal.bob);
    let judge = deal.arbiter("judge").await;
    let (id, dispute) = deal.disputed(true).await;
    let task = see(ada, &id).await;
    assert_eq!((&task["status"], &task["deadlineAt"]), (&json!("DISPUTED"), &json!("2026-11-26T12:00:00.000000Z")));
    assert_eq!(task["escrow"], json!({ "status": "DISPUTED", "held": "2", "paid": "0", "returned": "3" }));
    let quarrel = &task["dispute"];
    assert_eq!((&quarrel["status"], &quarrel["openedBy"]), (&json!("EVIDENCE"), &json!("PAYER")));
    assert_eq!((&quarrel["reason"], &quarrel["amount"]), (&json!("Not what I asked for."), &json!("2")));
    assert_eq!(
        (&quarrel["evidenceUntil"], &quarrel["rulingUntil"]),
        (&task["deadlineAt"], &json!("2026-12-03T12:00:00.000000Z"))
    );
    assert_eq!((&quarrel["payer"]["id"], &quarrel["agent"]["id"]), (&json!(ada.id()), &json!(deal.agent.to_string())));
    assert_eq!(
        (&quarrel["awarded"], &quarrel["arbiter"], &quarrel["resolvedAt"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );

    world.turn(Duration::from_hours(1));
    deal.show(ada, &dispute, "I asked for the answer to another question.").await;
    assert_eq!(
        judge.refusal("resolveDispute", ruling(&dispute, "1")).await,
        "EVIDENCE_STAGE_OPEN",
        "bob was not heard"
    );
    deal.show(bob, &dispute, "It is the answer.").await;
    assert_eq!(judge.refusal("resolveDispute", ruling(&dispute, "2.000001")).await, "AWARD_ABOVE_PRICE");
    let key = json!({ "disputeId": dispute, "award": "0.5", "opinion": "A quarter of it.", "idempotencyKey": "rule" });
    let selection = "dispute { id status awarded opinion arbiter { displayName } task { status } }";
    let ruled = judge.call("resolveDispute", selection, key.clone()).await;
    let expected = json!({ "id": dispute, "status": "RULED", "awarded": "0.5", "opinion": "A quarter of it.",
        "arbiter": { "displayName": "judge" }, "task": { "status": "COMPLETED" } });
    assert_eq!(ruled["dispute"], expected);
    assert_eq!(judge.call("resolveDispute", selection, key).await, ruled, "a retry is answered the same");
    assert_eq!(judge.refusal("resolveDispute", ruling(&dispute, "2")).await, "DISPUTE_OVER", "nobody rules twice");
    assert_eq!(deal.arbiter("another").await.refusal("resolveDispute", ruling(&dispute, "2")).await, "DISPUTE_OVER");

    let task = see(bob, &id).await;
    assert_eq!(
        (&task["status"], &task["paid"], &task["failureCode"]),
        (&json!("COMPLETED"), &json!("0.5"), &Value::Null)
    );
    assert_eq!(task["escrow"], json!({ "status": "SPLIT", "held": "0", "paid": "0.5", "returned": "4.5" }));
    assert_eq!(task["channel"], json!({ "status": "CLOSED", "closeReason": "SETTLED", "deposit": "2", "paid": "0.5" }));
    assert_eq!((&task["result"]["cost"], &task["dispute"]["evidence"]["totalCount"]), (&json!("0.5"), &json!(2)));
    // The fee is taken off the award: 0.5 less 0.0125.
    let record = ("0.4875".to_owned(), vec![("RULING".to_owned(), Some(250_000_000))]);
    assert_eq!((ada.wallet().await, deal.record().await), (amounts("99.5", "0"), record));
    ada.call("rateAgent", "rating { stars }", json!({ "taskId": id, "stars": 2 })).await;
    assert_eq!(ada.refusal("rateAgent", json!({ "taskId": id, "stars": 1 })).await, "ALREADY_RATED");
    world.pass(DAY * 30).await;
    assert_eq!(see(ada, &id).await["paid"], "0.5", "time changes nothing any more");
    deal.world.check().await;
}

#[tokio::test]
async fn a_ruling_gives_the_agent_anything_from_nothing_to_the_price() {
    let deal = Deal::begin().await;
    let judge = deal.arbiter("judge").await;
    let mut earned = Vec::new();
    for (award, status, back) in
        [("0", "REFUNDED", "2"), ("2", "COMPLETED", "0"), ("0.000001", "COMPLETED", "1.999999")]
    {
        let (id, dispute) = deal.disputed(false).await;
        deal.world.pass(DAY * 3).await;
        let before: f64 = deal.ada.wallet().await.0.parse().unwrap();
        judge.call("resolveDispute", "dispute { id }", ruling(&dispute, award)).await;
        let task = see(&deal.ada, &id).await;
        assert_eq!((&task["status"], &task["paid"]), (&json!(status), &json!(award)));
        let after: f64 = deal.ada.wallet().await.0.parse().unwrap();
        assert_eq!(format!("{:.6}", after), format!("{:.6}", before + back.parse::<f64>().unwrap()));
        let lost = if award == "0" { json!("DISPUTE_LOST") } else { Value::Null };
        assert_eq!(task["failureCode"], lost);
        let rated = json!({ "taskId": id, "stars": 3 });
        if award == "0" {
            assert_eq!(deal.ada.refusal("rateAgent", rated).await, "TASK_NOT_SETTLED");
        } else {
            deal.ada.call("rateAgent", "rating { stars }", rated).await;
        }
        earned.push(deal.bob.earned(deal.agent).await);
    }
    assert_eq!(earned, ["0", "1.95", "1.950001"]);
    let mut shares: Vec<Option<i64>> = deal.record().await.1.into_iter().map(|(_, share)| share).collect();
    shares.sort();
    assert_eq!(shares, [Some(0), Some(500), Some(1_000_000_000)]);
    deal.world.check().await;
}

#[tokio::test]
async fn a_dispute_that_nobody_rules_ends_as_the_verifiers_said() {
    let deal = Deal::begin().await;
    let judge = deal.arbiter("judge").await;
    let (good, bad) = (deal.disputed(true).await, deal.disputed(false).await);
    deal.world.pass((DAY * 3).saturating_sub(TICK)).await;
    for (id, _) in [&good, &bad] {
        assert_eq!(see(&deal.ada, id).await["dispute"]["status"], "EVIDENCE");
    }
    deal.world.pass(TICK).await;
    for (id, _) in [&good, &bad] {
        let task = see(&deal.ada, id).await;
        assert_eq!((&task["status"], &task["dispute"]["status"]), (&json!("DISPUTED"), &json!("RULING")));
        assert_eq!(task["deadlineAt"], task["dispute"]["rulingUntil"], "the next stage has its deadline");
    }
    deal.world.pass((DAY * 7).saturating_sub(TICK)).await;
    assert_eq!(see(&deal.ada, &good.0).await["status"], "DISPUTED");
    assert_eq!(deal.ada.wallet().await, amounts("96", "4"));
    deal.world.turn(TICK);
    assert_eq!(judge.refusal("resolveDispute", ruling(&good.1, "0")).await, "DISPUTE_OVER", "too late, swept or not");
    deal.world.settle().await;
    for ((id, _), status, paid) in [(&good, "COMPLETED", "2"), (&bad, "REFUNDED", "0")] {
        let task = see(&deal.ada, id).await;
        assert_eq!((&task["status"], &task["paid"]), (&json!(status), &json!(paid)));
        let quarrel = &task["dispute"];
        assert_eq!((&quarrel["status"], &quarrel["awarded"]), (&json!("DEFAULTED"), &json!(paid)));
        assert_eq!((&quarrel["arbiter"], &quarrel["opinion"]), (&Value::Null, &Value::Null));
    }
    let (earned, mut evidence) = deal.record().await;
    evidence.sort();
    let both = [("RULING".to_owned(), Some(0)), ("RULING".to_owned(), Some(1_000_000_000))];
    assert_eq!((earned.as_str(), evidence), ("1.95", both.to_vec()));
    assert_eq!(deal.ada.wallet().await, amounts("98", "0"));
    deal.world.check().await;
}

#[tokio::test]
async fn the_agents_owner_disputes_what_the_verifiers_refused() {
    let deal = Deal::begin().await;
    let judge = deal.arbiter("judge").await;
    let id = deal.submitted(false).await;
    let key = json!({ "taskId": id, "reason": "The schema is wrong.", "idempotencyKey": "open" });
    let opened = deal.bob.call("openDispute", "dispute { id openedBy status }", key.clone()).await;
    assert_eq!((&opened["dispute"]["openedBy"], &opened["dispute"]["status"]), (&json!("AGENT"), &json!("EVIDENCE")));
    assert_eq!(deal.bob.call("openDispute", "dispute { id openedBy status }", key).await, opened);
    for who in [&deal.ada, &deal.bob] {
        assert_eq!(who.refusal("openDispute", because(&id)).await, "TASK_NOT_SUBMITTED", "a task is disputed once");
    }
    deal.world.pass(DAY * 3).await;
    let dispute = opened["dispute"]["id"].as_str().unwrap();
    judge.call("resolveDispute", "dispute { id }", ruling(dispute, "2")).await;
    let task = see(&deal.ada, &id).await;
    assert_eq!((&task["status"], &task["paid"]), (&json!("COMPLETED"), &json!("2")));
    deal.world.check().await;
}

#[tokio::test]
async fn nothing_but_a_ruling_or_its_time_ends_a_dispute() {
    let deal = Deal::begin().await;
    let (id, _) = deal.disputed(false).await;
    for (field, input) in [("acceptResult", on(&id)), ("rejectResult", because(&id)), ("openDispute", because(&id))] {
        assert_eq!(deal.ada.refusal(field, input).await, "TASK_NOT_SUBMITTED", "{field}");
    }
    assert_eq!(deal.ada.refusal("cancelTask", on(&id)).await, "TASK_NOT_OPEN");
    assert_eq!(deal.ada.refusal("rateAgent", json!({ "taskId": id, "stars": 1 })).await, "TASK_NOT_SETTLED");
    // The end of the review window, which would have refunded it, does not.
    deal.world.pass(DAY * 2).await;
    let task = see(&deal.ada, &id).await;
    assert_eq!((&task["status"], &task["dispute"]["status"]), (&json!("DISPUTED"), &json!("EVIDENCE")));
    assert_eq!((deal.ada.wallet().await, deal.record().await), (amounts("98", "2"), ("0".to_owned(), vec![])));
    deal.world.check().await;
}

#[tokio::test]
async fn evidence_is_typed_bounded_hashed_shown_once_and_in_time() {
    let deal = Deal::of(World::with(|config| config.terms.max_evidence = 4).await).await;
    let (world, ada, bob) = (&deal.world, &deal.ada, &deal.bob);
    let (id, dispute) = deal.disputed(true).await;
    let piece = |kind: &str, body: &str| json!({ "disputeId": dispute, "kind": kind, "body": body });
    for (kind, body) in [
        ("STATEMENT", "   "),
        ("STATEMENT", "bell \u{7}"),
        ("STATEMENT", &"x".repeat(10_001)),
        ("JSON", "{ broken"),
        ("JSON", &format!("\"{}\"", "x".repeat(65_536))),
        ("LINK", "http://example.org/"),
        ("LINK", "https://me:secret@example.org/"),
        ("DIGEST", "1234"),
    ] {
        assert_eq!(ada.refusal("submitEvidence", piece(kind, body)).await, "INVALID_INPUT", "{kind}");
    }
    let hash = sha256("a file of mine");
    let shown = [
        ("STATEMENT", "It says 42 and I wanted 43.", "It says 42 and I wanted 43."),
        ("STATEMENT", "  Trimmed.\n", "Trimmed."),
        ("JSON", "{ \"wanted\": 43 }", "{ \"wanted\": 43 }"),
        ("LINK", "https://example.org/log?id=7", "https://example.org/log?id=7"),
    ];
    for (kind, body, kept) in shown {
        let made = ada.call("submitEvidence", "evidence { id kind body sha256 }", piece(kind, body)).await;
        let evidence = &made["evidence"];
        assert_eq!((&evidence["kind"], &evidence["body"]), (&json!(kind), &json!(kept)));
        assert_eq!(evidence["sha256"], sha256(kept));
        assert_eq!(ada.refusal("submitEvidence", piece(kind, body)).await, "EVIDENCE_REPEATED");
    }
    assert_eq!(ada.refusal("submitEvidence", piece("DIGEST", &hash)).await, "TOO_MUCH_EVIDENCE");
    // Each party has its own pieces; the same one under one key is one.
    let once = json!({ "disputeId": dispute, "kind": "DIGEST", "body": hash, "idempotencyKey": "show" });
    let first = bob.call("submitEvidence", "evidence { id }", once.clone()).await;
    assert_eq!(bob.call("submitEvidence", "evidence { id }", once).await, first);
    let all = see(bob, &id).await["dispute"]["evidence"].take();
    assert_eq!(all["totalCount"], 5);
    let nodes = all["nodes"].as_array().unwrap();
    assert!(nodes.iter().take(4).all(|node| node["submitter"]["id"] == ada.id()), "oldest first: {all:#}");
    assert_eq!((&nodes[4]["submitter"]["id"], &nodes[4]["body"]), (&json!(bob.id()), &json!(hash)));

    world.turn((DAY * 3).saturating_sub(TICK));
    bob.call("submitEvidence", "evidence { id }", piece("STATEMENT", "In the last moment.")).await;
    world.turn(TICK);
    assert_eq!(bob.refusal("submitEvidence", piece("STATEMENT", "Too late.")).await, "EVIDENCE_CLOSED", "swept or not");
    world.settle().await;
    assert_eq!(bob.refusal("submitEvidence", piece("STATEMENT", "Too late.")).await, "EVIDENCE_CLOSED");
    world.pass(DAY * 7).await;
    assert_eq!(bob.refusal("submitEvidence", piece("STATEMENT", "Too late.")).await, "DISPUTE_OVER");
    assert_eq!(world.rows("evidence").await, 6);
    deal.world.check().await;
}

#[tokio::test]
async fn an_arbiter_rules_who_is_nobodys_friend() {
    let deal = Deal::begin().await;
    // A requester and an owner who are arbiters besides.
    let (payer, owner) = (deal.arbiter("payer").await, deal.arbiter("owner").await);
    deal.world.credit(&payer, "10").await;
    deal.world.hosted_agent(&owner, "scribe", "scribe", "1", answering("1")).await;
    let task = payer.execute(json!({ "capabilities": ["scribe"], "acceptance": "REVIEW" })).await;
    deal.world.settle().await;
    let opened = owner.call("openDispute", "dispute { id }", because(&task)).await;
    let dispute = opened["dispute"]["id"].as_str().unwrap();
    deal.world.pass(DAY * 3).await;
    for party in [&payer, &owner] {
        assert_eq!(party.refusal("resolveDispute", ruling(dispute, "1")).await, "ARBITER_IS_PARTY");
    }
    let admin = deal.world.admin().await;
    for nobody in [&deal.ada, &deal.bob, &admin] {
        assert_eq!(nobody.fault("resolveDispute", ruling(dispute, "1")).await, "FORBIDDEN");
    }
    assert_eq!(deal.world.anonymous().fault("resolveDispute", ruling(dispute, "1")).await, "UNAUTHENTICATED");
    let judge = deal.arbiter("judge").await;
    for wrong in [json!({ "opinion": "" }), json!({ "opinion": "x".repeat(10_001) })] {
        let mut input = ruling(dispute, "1");
        input["opinion"] = wrong["opinion"].clone();
        assert_eq!(judge.refusal("resolveDispute", input).await, "INVALID_INPUT");
    }
    // An arbiter's key reads and does what a user's key does.
    let key = json!({ "name": "key", "scopes": ["READ", "TASKS_WRITE", "WORK_WRITE"] });
    let key = judge.call("createApiKey", "secret", key).await;
    let program = judge.with_token(key["secret"].as_str().unwrap());
    assert_eq!(program.fault("resolveDispute", ruling(dispute, "1")).await, "FORBIDDEN");
    assert_eq!(see(&program, &task).await, Value::Null);
    judge.call("resolveDispute", "dispute { id }", ruling(dispute, "0.25")).await;
    assert_eq!(payer.wallet().await, amounts("9.75", "0"));
    deal.world.check().await;
}

#[tokio::test]
async fn what_is_not_there_and_what_is_not_yours_look_alike() {
    let deal = Deal::begin().await;
    let (eve, judge) = (deal.world.user("eve").await, deal.arbiter("judge").await);
    let admin = deal.world.admin().await;
    let nobody = Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001);
    let (no_task, no_dispute) = (TaskId::from_uuid(nobody).to_string(), DisputeId::from_uuid(nobody).to_string());
    let task = deal.submitted(true).await;
    let (_, dispute) = deal.disputed(true).await;
    let piece = |dispute: &str| json!({ "disputeId": dispute, "kind": "STATEMENT", "body": "Something." });
    for stranger in [&eve, &judge, &admin] {
        for id in [&task, &no_task] {
            assert_eq!(stranger.refusal("acceptResult", on(id)).await, "NOT_FOUND");
            assert_eq!(stranger.refusal("rejectResult", because(id)).await, "NOT_FOUND");
            assert_eq!(stranger.refusal("openDispute", because(id)).await, "NOT_FOUND");
        }
        for id in [&dispute, &no_dispute] {
            assert_eq!(stranger.refusal("submitEvidence", piece(id)).await, "NOT_FOUND");
        }
    }
    assert_eq!(deal.bob.refusal("rejectResult", because(&task)).await, "NOT_FOUND", "who sells does not reject");
    assert_eq!(judge.refusal("resolveDispute", ruling(&no_dispute, "0")).await, "NOT_FOUND");
    for (field, input) in
        [("acceptResult", on(&task)), ("openDispute", because(&task)), ("submitEvidence", piece(&dispute))]
    {
        assert_eq!(deal.world.anonymous().fault(field, input).await, "UNAUTHENTICATED", "{field}");
    }
    assert_eq!(deal.ada.refusal("rejectResult", json!({ "taskId": task, "reason": " " })).await, "INVALID_INPUT");
    assert_eq!(deal.ada.refusal("acceptResult", on(&dispute)).await, "INVALID_INPUT", "an id of another noun");

    // Programs do what their scopes say, for their own agent.
    let key = async |owner: &Client, scopes: Value, agent: Option<AgentId>| {
        let agent = agent.map(|agent| agent.to_string());
        let input = json!({ "name": fresh_key(), "scopes": scopes, "agentId": agent });
        let made = owner.call("createApiKey", "secret", input).await;
        owner.with_token(made["secret"].as_str().unwrap())
    };
    let reader = key(&deal.ada, json!(["READ", "WORK_WRITE"]), None).await;
    assert_eq!(reader.fault("acceptResult", on(&task)).await, "FORBIDDEN");
    assert_eq!(reader.fault("openDispute", because(&task)).await, "FORBIDDEN");
    assert_eq!(reader.fault("submitEvidence", piece(&dispute)).await, "FORBIDDEN");
    let other = deal.world.agent(&deal.bob, "other", "EXTERNAL", "other", "1").await;
    let bound = key(&deal.bob, json!(["WORK_WRITE"]), Some(other)).await;
    assert_eq!(bound.refusal("openDispute", because(&task)).await, "NOT_FOUND", "bound to another agent");
    let unscoped = key(&deal.bob, json!(["READ", "TASKS_WRITE"]), None).await;
    assert_eq!(unscoped.fault("openDispute", because(&task)).await, "FORBIDDEN");
    let worker = key(&deal.bob, json!(["WORK_WRITE"]), Some(deal.agent)).await;
    worker.call("openDispute", "dispute { id }", because(&task)).await;
    worker.call("submitEvidence", "evidence { id }", piece(&dispute)).await;
    deal.world.check().await;
}

#[tokio::test]
async fn a_dispute_is_for_its_parties_arbiters_and_administrators() {
    let deal = Deal::begin().await;
    let (eve, admin) = (deal.world.user("eve").await, deal.world.admin().await);
    let (judge, other) = (deal.arbiter("judge").await, deal.arbiter("other").await);
    let secret =
        deal.ada.execute(json!({ "capabilities": ["oracle"], "acceptance": "REVIEW", "input": "the-secret" })).await;
    deal.world.settle().await;
    for arbiter in [&judge, &other] {
        assert_eq!(see(arbiter, &secret).await, Value::Null, "there is no dispute yet");
    }
    let made = deal.ada.call("rejectResult", "task { dispute { id } }", because(&secret)).await;
    let dispute = made["task"]["dispute"]["id"].as_str().unwrap().to_owned();
    let input = json!({ "disputeId": dispute, "kind": "STATEMENT", "body": "the-proof" });
    let made = deal.ada.call("submitEvidence", "evidence { id }", input).await;
    let evidence = made["evidence"]["id"].as_str().unwrap().to_owned();

    let everything = "query($task: ID!, $dispute: ID!, $evidence: ID!) {
        task(id: $task) { input title result { output logs timeline { nodes { kind } } } dispute { reason }
            channel { deposit } }
        taskResult(taskId: $task) { output }
        dispute(id: $dispute) { reason evidence { nodes { body } } task { input } }
        node(id: $dispute) { ... on Dispute { reason } }
        shown: node(id: $evidence) { ... on Evidence { body } }
        disputes { totalCount nodes { reason evidence { nodes { body } } } }
        tasks { totalCount }
    }";
    let variables = json!({ "task": secret, "dispute": dispute, "evidence": evidence });
    for nobody in [&eve, &deal.world.anonymous()] {
        let answer = nobody.raw(everything, &variables).await;
        assert!(!answer.text.contains("the-secret") && !answer.text.contains("the-proof"), "{answer:?}");
        let seen = answer.json()["data"].clone();
        for field in ["task", "taskResult", "dispute", "node", "shown"] {
            assert_eq!(seen[field], Value::Null, "{field}");
        }
    }
    assert_eq!(eve.query(everything, variables.clone()).await["disputes"]["totalCount"], 0);
    for who in [&deal.ada, &deal.bob, &admin, &judge, &other] {
        let seen = who.query(everything, variables.clone()).await;
        assert_eq!(
            (&seen["task"]["input"], &seen["taskResult"]["output"]["answer"]),
            (&json!("the-secret"), &json!(42))
        );
        assert_eq!((&seen["shown"]["body"], &seen["disputes"]["totalCount"]), (&json!("the-proof"), &json!(1)));
        assert_eq!(seen["dispute"]["evidence"]["nodes"][0]["body"], "the-proof");
    }
    // An arbiter sees what is disputed, not the affairs of the parties.
    let seen = judge.query(everything, variables.clone()).await;
    assert_eq!((&seen["task"]["channel"], &seen["tasks"]["totalCount"]), (&Value::Null, &json!(0)));
    let timeline = seen["task"]["result"]["timeline"]["nodes"].as_array().unwrap();
    assert!(timeline.iter().all(|event| event["kind"] != "TASK_POSTED"), "only what is public: {timeline:?}");

    deal.world.pass(DAY * 3).await;
    let mine = async |who: &Client, filter: Value| {
        let document = "query($filter: DisputeFilter) { disputes(filter: $filter) { totalCount } }";
        who.query(document, json!({ "filter": filter })).await["disputes"]["totalCount"].as_i64().unwrap()
    };
    assert_eq!(mine(&judge, json!({ "status": ["EVIDENCE"] })).await, 0);
    assert_eq!(mine(&judge, json!({ "status": ["EVIDENCE", "RULING"] })).await, 1);
    assert_eq!(mine(&judge, json!({ "side": "REQUESTER" })).await, 0);
    assert_eq!(mine(&deal.ada, json!({ "side": "REQUESTER" })).await, 1);
    assert_eq!(mine(&deal.bob, json!({ "side": "REQUESTER" })).await, 0);
    assert_eq!(mine(&deal.bob, json!({ "side": "WORKER" })).await, 1);
    assert_eq!(deal.world.anonymous().error("{ disputes { totalCount } }", json!({})).await, "UNAUTHENTICATED");
    judge.call("resolveDispute", "dispute { id }", ruling(&dispute, "1")).await;
    assert_eq!(see(&judge, &secret).await["input"], "the-secret", "it was theirs to rule");
    let seen = other.query(everything, variables.clone()).await;
    assert_eq!(
        (&seen["task"], &seen["taskResult"], &seen["dispute"]["task"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    assert_eq!(seen["dispute"]["reason"], "It is wrong.", "what was disputed stays readable to arbiters");
    deal.world.check().await;
}

#[tokio::test]
async fn the_parties_watch_a_dispute_to_its_end() {
    let deal = Deal::of(World::start().await).await;
    let judge = deal.arbiter("judge").await;
    let start = deal.world.cursor().await;
    let (task, dispute) = deal.disputed(true).await;
    deal.show(&deal.ada, &dispute, "Mine.").await;
    deal.show(&deal.bob, &dispute, "Yours.").await;
    judge.call("resolveDispute", "dispute { id }", ruling(&dispute, "0.5")).await;
    let fields = "kind ... on TaskEvent { amount returned reason } ... on ChannelEvent { amount returned reason }";
    let of_task = format!(
        "subscription($id: ID!, $after: EventCursor) {{ taskEvents(taskId: $id, after: $after) {{ {fields} }} }}"
    );
    let mut stream = deal.bob.subscribe(&of_task, json!({ "id": task, "after": start })).await;
    let mut events = Vec::new();
    loop {
        let message = stream.socket().message().await;
        if message["type"] == "complete" {
            break;
        }
        events.push(message["payload"]["data"]["taskEvents"].clone());
    }
    let told: Vec<(&str, &Value, &Value, &Value)> = events
        .iter()
        .filter(|event| event["amount"].is_string() || event["reason"].is_string())
        .map(|event| (event["kind"].as_str().unwrap(), &event["amount"], &event["returned"], &event["reason"]))
        .skip_while(|event| event.0 != "TASK_SUBMITTED")
        .collect();
    let (two, half, rest, none) = (json!("2"), json!("0.5"), json!("1.5"), Value::Null);
    let (payer, statement, upheld, settled) = (json!("PAYER"), json!("STATEMENT"), json!("UPHELD"), json!("SETTLED"));
    let expected: [(&str, &Value, &Value, &Value); 7] = [
        ("TASK_SUBMITTED", &two, &none, &none),
        ("DISPUTE_OPENED", &two, &none, &payer),
        ("EVIDENCE_SUBMITTED", &none, &none, &statement),
        ("EVIDENCE_SUBMITTED", &none, &none, &statement),
        ("DISPUTE_RESOLVED", &half, &rest, &upheld),
        ("CHANNEL_CLOSED", &half, &rest, &settled),
        ("TASK_COMPLETED", &half, &rest, &none),
    ];
    assert_eq!(told, expected);

    let settlements = "subscription($after: EventCursor) { settlementEvents(after: $after) { kind } }";
    for party in [&deal.ada, &deal.bob] {
        let mut stream = party.subscribe(settlements, json!({ "after": start })).await;
        let mut kinds = Vec::new();
        while kinds.last().is_none_or(|kind| kind != "TASK_COMPLETED") {
            kinds.push(stream.next().await["settlementEvents"]["kind"].as_str().unwrap().to_owned());
        }
        for kind in ["TASK_SUBMITTED", "DISPUTE_OPENED", "EVIDENCE_SUBMITTED", "DISPUTE_RESOLVED"] {
            assert!(kinds.iter().any(|told| told == kind), "{kind} is missing in {kinds:?}");
        }
    }
    deal.world.check().await;
}

#[tokio::test]
async fn disputes_and_shared_prices_are_counted() {
    let deal = Deal::of(World::start().await).await;
    let judge = deal.arbiter("judge").await;
    for (verified, award) in [(true, Some("0.5")), (true, Some("2")), (false, Some("0")), (true, None)] {
        let (_, dispute) = deal.disputed(verified).await;
        deal.world.pass(DAY * 3).await;
        match award {
            Some(award) => drop(judge.call("resolveDispute", "dispute { id }", ruling(&dispute, award)).await),
            None => deal.world.pass(DAY * 7).await,
        }
    }
    let text = deal.world.http().get(deal.world.url("/metrics")).send().await.unwrap().text().await.unwrap();
    for series in [
        "settlement_disputes_total{stage=\"opened\"} 4",
        "settlement_disputes_total{stage=\"upheld\"} 2",
        "settlement_disputes_total{stage=\"rejected\"} 1",
        "settlement_disputes_total{stage=\"expired\"} 1",
        "settlements_total{asset=\"credits\",outcome=\"split\"} 1",
        "settlements_total{asset=\"credits\",outcome=\"released\"} 2",
        "settlements_total{asset=\"credits\",outcome=\"refunded\"} 1",
        "escrow_refunds_total{asset=\"credits\",reason=\"dispute\"} 1",
        "escrow_refunds_total{asset=\"credits\",reason=\"task_failed\"} 0",
        "reputation_updates_total{cause=\"ruling\"} 4",
        "task_errors_total{reason=\"output_schema_violation\",runtime=\"wasm\"} 1",
        "task_errors_total{reason=\"other\",runtime=\"wasm\"} 0",
    ] {
        assert!(text.contains(&format!("zerostate_{series}\n")), "{series} is missing in\n{text}");
    }
    let health =
        deal.ada.query("{ economicHealth { unsettledTasks overdue } }", json!({})).await["economicHealth"].take();
    assert_eq!(health, json!({ "unsettledTasks": "0", "overdue": "0" }));
    deal.world.check().await;
}

#[tokio::test]
async fn the_database_itself_refuses_what_no_dispute_may_be() {
    use sea_orm::ConnectionTrait;
    let deal = Deal::begin().await;
    let (_, dispute) = deal.disputed(true).await;
    deal.show(&deal.ada, &dispute, "For ever.").await;
    let writer = sea_orm::Database::connect(deal.world.database_url()).await.unwrap();
    for statement in [
        "UPDATE evidence SET body = 'something else'",
        "DELETE FROM evidence",
        "UPDATE task_results SET output = '43'",
        "UPDATE disputes SET awarded = amount + 1, status = 'DEFAULTED', resolved_at = created_at",
        "UPDATE disputes SET status = 'DEFAULTED'",
        "UPDATE disputes SET status = 'RULED', awarded = 0, resolved_at = created_at",
        "UPDATE disputes SET status = 'RULED', awarded = 0, resolved_at = created_at, arbiter_id = payer_id",
        "UPDATE disputes SET ruling_until = evidence_until",
        "UPDATE disputes SET status = 'FORGOTTEN'",
        "INSERT INTO disputes SELECT * FROM disputes",
        "UPDATE tasks SET deadline_at = NULL",
        "UPDATE tasks SET verified = NULL",
    ] {
        assert!(writer.execute_unprepared(statement).await.is_err(), "{statement} went through");
    }
    deal.world.check().await;
}

/// Two processes of a world on PostgreSQL, one on SQLite.
async fn clients(world: &World, of: &Client, count: usize) -> (Vec<Client>, Option<crate::world::Peer>) {
    let peer = if on_postgres() { Some(world.another().await) } else { None };
    let clients = (0..count)
        .map(|number| peer.as_ref().filter(|_| number % 2 == 1).map_or(of.clone(), |peer| of.at(peer.address)))
        .collect();
    (clients, peer)
}

/// What came of a mutation: nothing, or the code of the refusal.
async fn attempt(client: &Client, field: &str, input: Value) -> Result<(), String> {
    let mut of = field.to_owned();
    of[..1].make_ascii_uppercase();
    let document = format!("mutation($input: {of}Input!) {{ {field}(input: $input) {{ userErrors {{ code }} }} }}");
    let mut input = input;
    input["idempotencyKey"] = json!(fresh_key());
    let answer = client.query(&document, json!({ "input": input })).await;
    match answer[field]["userErrors"][0]["code"].as_str() {
        Some(code) => Err(code.to_owned()),
        None => Ok(()),
    }
}

fn report(claim: &Claim) -> Report {
    Report {
        execution: claim.execution.id,
        outcome: Ok(JsonText("{\"answer\":42}".to_owned())),
        check: None,
        logs: String::new(),
        usage: Usage::default(),
        module_sha256: None,
    }
}

async fn complete(app: &App, claim: &Claim) -> Result<(), String> {
    let done =
        async |work: &mut _| execution::complete(work, claim.task.id, claim.execution.token, report(claim)).await;
    let done = app.store().write(Caller::System, done).await;
    done.map(|_| ()).map_err(|error| error.refusal_code().unwrap_or_else(|| panic!("{error}")).to_owned())
}

async fn claim(world: &World, worker: &str) -> Claim {
    let claimed = world.app.store().write(Caller::System, async |work| execution::claim(work, worker).await).await;
    claimed.unwrap().expect("work waits")
}

/// Turns the clock to the end of the review window in small steps while others act, and sweeps all the time.
async fn expire(world: &World, acted: &AtomicUsize, enough: usize) -> u64 {
    while acted.load(Ordering::SeqCst) < enough {
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    world.turn(Duration::from_mins(1));
    let mut swept = 0;
    for _ in 0..4 {
        swept += world.app.sweep_once().await.unwrap();
        tokio::task::yield_now().await;
    }
    swept
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_sixty_four_who_decide_about_a_result_one_does() {
    const ROUNDS: usize = 8;
    let deal = Deal::of(World::start().await).await;
    let (payers, _peer) = clients(&deal.world, &deal.ada, 2).await;
    let (owners, _other) = clients(&deal.world, &deal.bob, 2).await;
    let mut ended: Vec<&str> = Vec::new();
    for round in 0..ROUNDS {
        let order = json!({ "capabilities": ["oracle"], "acceptance": "REVIEW", "reviewWindow": "PT1M" });
        let task = deal.ada.execute(order).await;
        let held = claim(&deal.world, "worker").await;
        assert_eq!(complete(&deal.world.app, &held).await, Ok(()));
        let before = deal.ada.wallet().await;
        let acted = AtomicUsize::new(0);
        let kinds = ["acceptResult", "rejectResult", "openDispute", "cancelTask", "submit"];
        let acts = (0..63).map(async |number| {
            // Who comes first changes from round to round.
            let kind = kinds[(number + round) % kinds.len()];
            let (payer, owner) = (&payers[number % 2], &owners[number % 2]);
            let came = match kind {
                "acceptResult" | "cancelTask" => attempt(payer, kind, on(&task)).await,
                "rejectResult" => attempt(payer, kind, because(&task)).await,
                "openDispute" => attempt(if number % 4 < 2 { owner } else { payer }, kind, because(&task)).await,
                _ => complete(&deal.world.app, &held).await,
            };
            acted.fetch_add(1, Ordering::SeqCst);
            (kind, came)
        });
        // In every other round the window ends before most have come.
        let expiry = expire(&deal.world, &acted, if round % 2 == 0 { 60 } else { 0 });
        let (came, swept) = join(join_all(acts), expiry).await;

        let won: Vec<&str> = came.iter().filter(|(_, came)| came.is_ok()).map(|(kind, _)| *kind).collect();
        assert_eq!(won.len() + usize::try_from(swept).unwrap(), 1, "round {round}: {won:?} and {swept} by time");
        for (kind, refused) in came.iter().filter_map(|(kind, came)| Some((kind, came.as_ref().err()?))) {
            let expected: &[&str] = match *kind {
                "cancelTask" => &["TASK_NOT_OPEN"],
                "submit" => &["LEASE_LOST"],
                _ => &["TASK_NOT_SUBMITTED", "REVIEW_OVER"],
            };
            assert!(expected.contains(&refused.as_str()), "round {round}: {kind} was refused with {refused}");
        }
        let row = see(&deal.ada, &task).await;
        let winner = won.first().copied().unwrap_or("time");
        match winner {
            "acceptResult" | "time" => {
                assert_eq!((&row["status"], &row["paid"]), (&json!("COMPLETED"), &json!("2")));
                assert_eq!(deal.ada.wallet().await, (before.0, "0".to_owned()));
            }
            "rejectResult" | "openDispute" => {
                assert_eq!((&row["status"], &row["dispute"]["status"]), (&json!("DISPUTED"), &json!("EVIDENCE")));
                assert_eq!(deal.ada.wallet().await, before);
                deal.world.pass(DAY * 3).await;
                deal.world.pass(DAY * 7).await;
            }
            other => panic!("round {round}: {other} must never win"),
        }
        ended.push(winner);
    }
    eprintln!("who won: {ended:?}");
    assert!(ended.contains(&"time") || ended.iter().any(|winner| *winner != ended[0]), "the race was none: {ended:?}");
    assert_eq!(deal.world.rows("holds").await, i64::try_from(ROUNDS).unwrap() * 2);
    deal.world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_sixty_four_around_a_running_task_one_result_counts() {
    let deal = Deal::of(World::start().await).await;
    for round in 0..4_usize {
        let order = json!({ "capabilities": ["oracle"], "acceptance": "REVIEW", "reviewWindow": "PT1H" });
        let task = deal.ada.execute(order).await;
        let slow = claim(&deal.world, "slow").await;
        deal.world.turn(Duration::from_secs(31));
        assert_eq!(deal.world.app.sweep_once().await.unwrap(), 1, "the lease is over");
        deal.world.turn(Duration::from_secs(2));
        let quick = claim(&deal.world, "quick").await;
        assert_eq!((slow.execution.token, quick.execution.token), (1, 2));
        let kinds = ["new", "old", "acceptResult", "cancelTask", "openDispute", "new", "old", "sweep"];
        let acts = (0..64).map(async |number| {
            let kind = kinds[(number + round) % kinds.len()];
            let came = match kind {
                "new" => complete(&deal.world.app, &quick).await,
                "old" => complete(&deal.world.app, &slow).await,
                "openDispute" => attempt(&deal.bob, kind, because(&task)).await,
                "sweep" => Err(deal.world.app.sweep_once().await.unwrap().to_string()),
                _ => attempt(&deal.ada, kind, on(&task)).await,
            };
            (kind, came)
        });
        let came = join_all(acts).await;
        let count = |kind: &str| came.iter().filter(|(of, came)| *of == kind && came.is_ok()).count();
        assert_eq!((count("new"), count("old"), count("cancelTask")), (1, 0, 0), "round {round}: {came:?}");
        let decided = count("acceptResult") + count("openDispute");
        assert!(decided <= 1, "round {round}: {came:?}");
        for (kind, refused) in came.iter().filter_map(|(kind, came)| Some((kind, came.as_ref().err()?))) {
            let expected = match *kind {
                "new" | "old" => "LEASE_LOST",
                "sweep" => "0",
                "cancelTask" => "TASK_NOT_OPEN",
                _ => "TASK_NOT_SUBMITTED",
            };
            assert_eq!(refused, expected, "round {round}: {kind}");
        }
        let status = see(&deal.ada, &task).await["status"].take();
        let expected = match (count("acceptResult"), count("openDispute")) {
            (1, _) => "COMPLETED",
            (_, 1) => "DISPUTED",
            _ => "SUBMITTED",
        };
        assert_eq!(status, expected, "round {round}");
        assert_eq!(deal.world.rows("task_results").await, i64::try_from(round).unwrap() + 1);
        for wait in [1, 3, 7] {
            deal.world.pass(DAY * wait).await;
        }
        assert_eq!(see(&deal.ada, &task).await["status"], "COMPLETED");
    }
    assert_eq!(deal.ada.wallet().await, amounts("92", "0"));
    deal.world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_sixty_four_rulings_and_the_end_of_time_one_counts() {
    let deal = Deal::of(World::start().await).await;
    let judges = [deal.arbiter("judge").await, deal.arbiter("another").await];
    let (first, _peer) = clients(&deal.world, &judges[0], 2).await;
    let mut spent = 0_u32;
    for round in 0..6_usize {
        let (task, dispute) = deal.disputed(true).await;
        deal.world.pass(DAY * 3).await;
        deal.world.turn((DAY * 7).saturating_sub(Duration::from_mins(1)));
        let acted = AtomicUsize::new(0);
        let rulings = (0..63).map(async |number: usize| {
            let judge = if number.is_multiple_of(2) { &first[number / 2 % 2] } else { &judges[1] };
            let award = ["0", "1", "2"][number % 3];
            let came = attempt(judge, "resolveDispute", ruling(&dispute, award)).await;
            acted.fetch_add(1, Ordering::SeqCst);
            (award, came)
        });
        let expiry = expire(&deal.world, &acted, if round % 2 == 0 { 60 } else { 0 });
        let (came, swept) = join(join_all(rulings), expiry).await;
        let won: Vec<&str> = came.iter().filter(|(_, came)| came.is_ok()).map(|(award, _)| *award).collect();
        assert_eq!(won.len() + usize::try_from(swept).unwrap(), 1, "round {round}: {won:?} and {swept} by time");
        let refused = came.iter().filter_map(|(_, came)| came.as_ref().err());
        assert!(refused.into_iter().all(|code| code == "DISPUTE_OVER"), "round {round}: {came:?}");
        let paid = won.first().copied().unwrap_or("2");
        let row = see(&deal.ada, &task).await;
        assert_eq!((&row["paid"], &row["dispute"]["awarded"]), (&json!(paid), &json!(paid)));
        spent += paid.parse::<u32>().unwrap();
    }
    assert_eq!(deal.ada.wallet().await, amounts(&(100 - spent).to_string(), "0"));
    assert_eq!(deal.bob.earned(deal.agent).await, spent.to_string());
    deal.world.check().await;
}
