//! Agents that run elsewhere: how they hear of work, claim it, keep it and bring it, and what happens when they do not.

use std::time::{Duration, Instant};

use entity::{
    event::Kind,
    id::{AgentId, AuctionId},
};
use futures_util::future::{join, join_all};
use sea_orm::{ConnectionTrait, Statement};
use serde_json::{Value, json};

use crate::world::{Client, PATIENCE, World, bids, echoing, fresh_key};

const OFFERS: &str = "query($agent: ID!, $wait: Duration, $first: Int) {
    workOffers(agentId: $agent, wait: $wait, first: $first) {
        taskId agentId price claimBy claims task { id title input outputSchema status }
    }
}";
const OFFERED: &str = "subscription($agent: ID!, $after: EventCursor) {
    workOffered(agentId: $agent, after: $after) {
        kind cursor ... on TaskEvent { taskId amount attempt task { id } agent { id } }
    }
}";
const CLAIM: &str = "claim { token attempt leasedUntil endsBy task { id status input } }";
const AGENT: &str = "query($id: ID!) { agent(id: $id) { capacity inWork online lastSeenAt } }";

/// A world with a requester who has credits and an owner with one agent that runs elsewhere.
struct Deal {
    world: World,
    ada: Client,
    bob: Client,
    agent: AgentId,
}

impl Deal {
    async fn new() -> Self {
        Self::over(World::start().await).await
    }

    async fn over(world: World) -> Self {
        let (ada, bob) = (world.user("ada").await, world.user("bob").await);
        world.credit(&ada, "100").await;
        let agent = world.agent(&bob, "hand", "EXTERNAL", "hand", "1").await;
        Self { world, ada, bob, agent }
    }

    /// Posts a task that the agent wins for 2 credits. Answers its id.
    async fn won(&self, over: Value) -> String {
        won(&self.ada, &self.bob, self.agent, over).await
    }

    async fn offers(&self, who: &Client) -> Vec<Value> {
        offers(who, self.agent, Value::Null).await
    }

    async fn claim(&self, task: &str) -> Value {
        claim(&self.bob, task).await
    }

    /// Turns the clock and lets only the sweeper look.
    async fn sweep_after(&self, duration: Duration) {
        self.world.turn(duration);
        while self.world.app.sweep_once().await.unwrap() > 0 {}
    }

    async fn seen(&self) -> Value {
        self.world.anonymous().query(AGENT, json!({ "id": self.agent.to_string() })).await["agent"].take()
    }
}

async fn won(ada: &Client, bob: &Client, agent: AgentId, over: Value) -> String {
    let mut input = json!({ "capabilities": ["hand"], "timeout": "PT2M", "closeAfterBids": 1 });
    input.as_object_mut().unwrap().extend(over.as_object().unwrap().clone());
    let auction = ada.open(input).await;
    bob.bid(&auction, agent, "2").await;
    ada.auction(&auction).await["task"]["id"].as_str().unwrap().to_owned()
}

async fn offers(who: &Client, agent: AgentId, wait: Value) -> Vec<Value> {
    let variables = json!({ "agent": agent.to_string(), "wait": wait });
    who.query(OFFERS, variables).await["workOffers"].as_array().expect("an agent of one's own").clone()
}

async fn claim(who: &Client, task: &str) -> Value {
    who.call("claimTask", CLAIM, json!({ "taskId": task })).await["claim"].take()
}

fn beat(task: &str, token: &Value) -> Value {
    json!({ "taskId": task, "token": token })
}

fn output(task: &str, token: &Value, output: &Value) -> Value {
    json!({ "taskId": task, "token": token, "output": output })
}

fn failure(task: &str, token: &Value) -> Value {
    json!({ "taskId": task, "token": token, "code": "NO_DISK", "message": "The disk is full." })
}

/// An API key of somebody, perhaps for one agent alone.
async fn key(owner: &Client, scopes: Value, agent: Option<AgentId>) -> Client {
    let agent = agent.map(|agent| agent.to_string());
    let input = json!({ "name": fresh_key(), "scopes": scopes, "agentId": agent });
    let made = owner.call("createApiKey", "secret", input).await;
    owner.with_token(made["secret"].as_str().unwrap())
}

#[tokio::test]
async fn work_is_offered_claimed_kept_and_paid_by_a_key_of_the_agent_alone() {
    let deal = Deal::new().await;
    let worker = key(&deal.bob, json!(["READ", "WORK_WRITE"]), Some(deal.agent)).await;
    assert!(deal.offers(&worker).await.is_empty());
    let task = deal.won(json!({ "input": { "words": 3 } })).await;
    let offered = deal.offers(&worker).await;
    let start_by = deal.world.now().after(Duration::from_mins(1)).to_string();
    let shown = json!({ "id": task, "title": "Count this", "input": { "words": 3 }, "outputSchema": null, "status": "AWARDED" });
    let expected = json!({ "taskId": task, "agentId": deal.agent.to_string(), "price": "2", "claimBy": start_by,
        "claims": 0, "task": shown });
    assert_eq!(offered, [expected]);

    deal.world.turn(Duration::from_secs(10));
    let began = deal.world.now();
    let at = |seconds| json!(began.after(Duration::from_secs(seconds)).to_string());
    let intent = json!({ "taskId": task, "worker": "box 1", "idempotencyKey": "claim-1" });
    let claimed = worker.call("claimTask", CLAIM, intent.clone()).await["claim"].take();
    assert_eq!((&claimed["token"], &claimed["attempt"]), (&json!("1"), &json!(1)));
    assert_eq!((&claimed["leasedUntil"], &claimed["endsBy"]), (&at(30), &at(120)));
    assert_eq!((&claimed["task"]["status"], &claimed["task"]["input"]), (&json!("RUNNING"), &json!({ "words": 3 })));
    // The lost answer of a claim is answered again; another claim has to wait.
    assert_eq!(worker.call("claimTask", CLAIM, intent).await["claim"], claimed);
    assert_eq!(worker.refusal("claimTask", json!({ "taskId": task })).await, "LEASE_HELD");
    assert!(deal.offers(&worker).await.is_empty());

    let token = &claimed["token"];
    for (after, until) in [(20, 50), (20, 70), (25, 95), (20, 115), (20, 120), (14, 120)] {
        deal.world.turn(Duration::from_secs(after));
        let beaten = worker.call("heartbeat", "leasedUntil", beat(&task, token)).await;
        assert_eq!(beaten["leasedUntil"], at(until));
    }
    let submitted = json!({ "taskId": task, "token": token, "output": { "count": 3 }, "logs": "one\u{7}\ntwo",
        "idempotencyKey": "submit-1" });
    for _ in 0..2 {
        let done = worker.call("submitResult", "task { id status paid }", submitted.clone()).await;
        assert_eq!(done["task"], json!({ "id": task, "status": "COMPLETED", "paid": "2" }));
    }
    // The same result as another intent: the work has ended.
    assert_eq!(worker.refusal("submitResult", output(&task, token, &json!({ "count": 3 }))).await, "LEASE_LOST");
    let seen = deal.ada.task(&task).await;
    assert_eq!((&seen["result"]["output"], &seen["result"]["logs"]), (&json!({ "count": 3 }), &json!("one\ntwo")));
    assert_eq!((&seen["result"]["duration"], &seen["result"]["moduleSha256"]), (&json!("PT1M59S"), &Value::Null));
    assert_eq!(deal.bob.earned(deal.agent).await, "2");
    assert_eq!(deal.ada.wallet().await, ("98".to_owned(), "0".to_owned()));
    assert_eq!(deal.seen().await["inWork"], 0);
    deal.world.check().await;
}

#[tokio::test]
async fn offers_come_by_a_subscription_that_can_be_resumed() {
    let deal = Deal::new().await;
    let worker = key(&deal.bob, json!(["READ", "WORK_WRITE"]), Some(deal.agent)).await;
    let variables = |after: &str| json!({ "agent": deal.agent.to_string(), "after": after });
    let mut stream = worker.subscribe(OFFERED, variables(&deal.world.cursor().await)).await;
    let task = deal.won(json!({})).await;
    let first = stream.next().await["workOffered"].take();
    let event = |cursor: &Value, attempt: i32| {
        json!({ "kind": "WORK_OFFERED", "cursor": cursor, "taskId": task, "amount": "2", "attempt": attempt,
            "task": { "id": task }, "agent": { "id": deal.agent.to_string() } })
    };
    assert_eq!(first, event(&first["cursor"], 1));
    deal.claim(&task).await;
    // Nobody hears of the worker any more: the work is offered again, and only that comes behind the first offer.
    deal.sweep_after(Duration::from_secs(31)).await;
    let mut resumed = worker.subscribe(OFFERED, variables(first["cursor"].as_str().unwrap())).await;
    for stream in [&mut stream, &mut resumed] {
        let second = stream.next().await["workOffered"].take();
        assert_eq!(second, event(&second["cursor"], 2));
    }
    assert_eq!(deal.offers(&worker).await[0]["claims"], 1);
    assert!(stream.next_within(Duration::from_millis(200)).await.is_none());
    deal.world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_for_work_waits_for_some() {
    let deal = Deal::new().await;
    let (began, worker) = (Instant::now(), deal.bob.clone());
    assert!(offers(&worker, deal.agent, json!("PT0.3S")).await.is_empty());
    assert!((Duration::from_millis(300)..PATIENCE).contains(&began.elapsed()), "{:?}", began.elapsed());
    // The work comes while several wait for it; each of them is told.
    let began = Instant::now();
    let waiting = || offers(&worker, deal.agent, json!("PT20S"));
    let posting = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        deal.won(json!({})).await
    };
    let ((one, two), task) = join(join(waiting(), waiting()), posting).await;
    assert_eq!((&one[0]["taskId"], &two[0]["taskId"]), (&json!(task), &json!(task)));
    assert!(began.elapsed() < PATIENCE, "woken after {:?}", began.elapsed());
    // What is there needs no waiting.
    let began = Instant::now();
    assert_eq!(waiting().await.len(), 1);
    assert!(began.elapsed() < Duration::from_secs(5));
    // A process that ends answers those who wait.
    let peer = deal.world.another().await;
    deal.claim(&task).await;
    let there = worker.at(peer.address);
    // It takes connections from now on.
    there.query("{ me { id } }", json!({})).await;
    let began = Instant::now();
    let ending = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        peer.app.stop().cancel();
    };
    let (last, ()) = join(offers(&there, deal.agent, json!("PT20S")), ending).await;
    assert!(last.is_empty() && began.elapsed() < PATIENCE);
    let variables = json!({ "agent": deal.agent.to_string(), "wait": "PT31S" });
    assert_eq!(worker.error(OFFERS, variables).await, "BAD_USER_INPUT");
    let variables = json!({ "agent": deal.agent.to_string(), "first": 0 });
    assert_eq!(worker.error(OFFERS, variables).await, "BAD_USER_INPUT");
    deal.world.check().await;
}

#[tokio::test]
async fn a_question_for_work_is_answered_before_the_limit_of_a_request() {
    let world = World::with(|config| config.limits.execution = Duration::from_millis(5_500)).await;
    let (deal, began) = (Deal::over(world).await, Instant::now());
    assert!(offers(&deal.bob, deal.agent, json!("PT30S")).await.is_empty());
    assert!(began.elapsed() >= Duration::from_millis(500), "{:?}", began.elapsed());
    deal.world.check().await;
}

#[tokio::test]
async fn the_work_of_an_agent_is_for_its_owner_and_for_keys_that_may_do_it() {
    let deal = Deal::new().await;
    let (eve, bob) = (deal.world.user("eve").await, &deal.bob);
    let other = deal.world.agent(bob, "other", "EXTERNAL", "other", "1").await;
    let task = deal.won(json!({})).await;
    let claimed = deal.claim(&task).await;
    let token = &claimed["token"];
    let calls = || {
        [
            ("claimTask", json!({ "taskId": task })),
            ("heartbeat", beat(&task, token)),
            ("submitResult", output(&task, token, &json!(1))),
            ("failTask", failure(&task, token)),
        ]
    };
    let agent = json!({ "agent": deal.agent.to_string() });
    // To others, to the payer too, there is nothing to do; and so to a key for another agent of the same owner.
    let elsewhere = key(bob, json!(["READ", "WORK_WRITE"]), Some(other)).await;
    for stranger in [&eve, &deal.ada, &elsewhere] {
        for (field, input) in calls() {
            assert_eq!(stranger.refusal(field, input).await, "NOT_FOUND", "{field}");
        }
        assert_eq!(stranger.query(OFFERS, agent.clone()).await["workOffers"], Value::Null);
        let mut stream = stranger.subscribe(OFFERED, agent.clone()).await;
        assert_eq!(stream.error().await[0]["extensions"]["code"], "NOT_FOUND");
    }
    let unscoped = key(bob, json!(["READ", "BIDS_WRITE", "AGENTS_WRITE", "TASKS_WRITE"]), None).await;
    for (client, code) in [(&unscoped, "FORBIDDEN"), (&deal.world.anonymous(), "UNAUTHENTICATED")] {
        for (field, input) in calls() {
            assert_eq!(client.fault(field, input).await, code, "{field}");
        }
        assert_eq!(client.error(OFFERS, agent.clone()).await, code);
    }
    // A key that may do the work and not read does it all the same, but cannot look at what is offered.
    let blind = key(bob, json!(["WORK_WRITE"]), None).await;
    assert_eq!(blind.error(OFFERS, agent).await, "FORBIDDEN");
    blind.call("heartbeat", "leasedUntil", beat(&task, token)).await;

    // Hosted work is ours to do, whoever owns the agent.
    deal.world.hosted_agent(bob, "hosted", "echo", "1", echoing()).await;
    let hosted = deal.ada.execute(json!({ "capabilities": ["echo"] })).await;
    let one = json!("1");
    assert_eq!(bob.refusal("claimTask", json!({ "taskId": hosted })).await, "WORK_NOT_OFFERED");
    for (field, input) in [
        ("heartbeat", beat(&hosted, &one)),
        ("submitResult", output(&hosted, &one, &json!(1))),
        ("failTask", failure(&hosted, &one)),
    ] {
        assert_eq!(bob.refusal(field, input).await, "WORK_NOT_OFFERED", "{field}");
    }
    deal.world.settle().await;
    assert_eq!(deal.ada.task(&hosted).await["status"], "COMPLETED");
    deal.world.check().await;
}

#[tokio::test]
async fn a_worker_that_sleeps_past_its_lease_has_lost_the_work_once_another_claims_it() {
    let deal = Deal::new().await;
    let task = deal.won(json!({})).await;
    let first = deal.claim(&task).await["token"].take();
    // The lease is over, and nobody but the second worker has noticed.
    deal.world.turn(Duration::from_secs(30));
    assert_eq!(deal.offers(&deal.bob).await[0]["claims"], 1);
    let second = deal.claim(&task).await;
    assert_eq!((&second["token"], &second["attempt"]), (&json!("2"), &json!(2)));
    let second = second["token"].clone();
    // The first one wakes up: nothing of it counts, nor does a token of the future.
    for token in [&first, &json!("3"), &json!("0"), &json!("-1")] {
        assert_eq!(deal.bob.refusal("heartbeat", beat(&task, token)).await, "LEASE_LOST");
        assert_eq!(deal.bob.refusal("submitResult", output(&task, token, &json!("late"))).await, "LEASE_LOST");
        assert_eq!(deal.bob.refusal("failTask", failure(&task, token)).await, "LEASE_LOST");
    }
    let done = deal.bob.call("submitResult", "task { status }", output(&task, &second, &json!("right"))).await;
    assert_eq!(done["task"]["status"], "COMPLETED");
    assert_eq!(deal.bob.refusal("submitResult", output(&task, &first, &json!("late"))).await, "LEASE_LOST");
    assert_eq!(deal.ada.task(&task).await["result"]["output"], "right");
    assert_eq!(deal.bob.earned(deal.agent).await, "2");
    assert_eq!(kinds(&deal.world, Kind::TaskRetried).await, 1);
    deal.world.check().await;
}

/// How many events of a kind there were.
async fn kinds(world: &World, kind: Kind) -> usize {
    let lines = world.app.store().lines(None, None, 1_000).await.unwrap();
    lines.iter().filter(|line| line.event.kind == kind).count()
}

#[tokio::test]
async fn finished_work_counts_after_its_lease_until_somebody_claims_it() {
    let deal = Deal::new().await;
    for swept in [false, true] {
        let task = deal.won(json!({})).await;
        let token = deal.claim(&task).await["token"].take();
        deal.world.turn(Duration::from_secs(45));
        if swept {
            deal.sweep_after(Duration::ZERO).await;
            // It is offered again, so the lease is gone; the work that was done is not.
            assert_eq!(deal.bob.refusal("heartbeat", beat(&task, &token)).await, "LEASE_LOST");
        } else {
            let beaten = deal.bob.call("heartbeat", "leasedUntil", beat(&task, &token)).await;
            assert_eq!(beaten["leasedUntil"], deal.world.now().after(Duration::from_secs(30)).to_string());
        }
        let done = deal.bob.call("submitResult", "task { status }", output(&task, &token, &json!(1))).await;
        assert_eq!(done["task"]["status"], "COMPLETED");
        assert_eq!(deal.bob.refusal("claimTask", json!({ "taskId": task })).await, "WORK_NOT_OFFERED");
    }
    // The time of an attempt is over, whatever the heart beats.
    let task = deal.won(json!({ "timeout": "PT10S" })).await;
    let claimed = deal.claim(&task).await;
    assert_eq!(claimed["leasedUntil"], claimed["endsBy"]);
    deal.world.turn(Duration::from_secs(10));
    assert_eq!(deal.bob.refusal("heartbeat", beat(&task, &claimed["token"])).await, "LEASE_LOST");
    deal.bob.call("submitResult", "task { id }", output(&task, &claimed["token"], &json!(1))).await;
    assert_eq!(deal.bob.earned(deal.agent).await, "6");
    deal.world.check().await;
}

#[tokio::test]
async fn when_no_attempt_is_left_the_payer_is_refunded_and_the_agent_is_to_blame() {
    let deal = Deal::new().await;
    let task = deal.won(json!({ "maxAttempts": 2 })).await;
    deal.claim(&task).await;
    deal.sweep_after(Duration::from_secs(30)).await;
    let token = deal.claim(&task).await["token"].take();
    deal.world.turn(Duration::from_secs(30));
    assert!(deal.offers(&deal.bob).await.is_empty());
    assert_eq!(deal.bob.refusal("claimTask", json!({ "taskId": task })).await, "NO_ATTEMPTS_LEFT");
    deal.sweep_after(Duration::ZERO).await;
    let seen = deal.ada.task(&task).await;
    assert_eq!((&seen["status"], &seen["failureCode"]), (&json!("REFUNDED"), &json!("WORKER_LOST")));
    assert_eq!(deal.ada.wallet().await, ("100".to_owned(), "0".to_owned()));
    assert_ne!(deal.world.score(deal.agent).await, "42.5");
    assert_eq!(deal.bob.refusal("submitResult", output(&task, &token, &json!(1))).await, "LEASE_LOST");
    assert_eq!((deal.seen().await["inWork"].take(), deal.bob.earned(deal.agent).await), (json!(0), "0".to_owned()));
    deal.world.check().await;
}

#[tokio::test]
async fn work_that_is_claimed_and_never_again_ends_at_its_deadline() {
    let deal = Deal::new().await;
    let task = deal.won(json!({ "timeout": "PT10S" })).await;
    deal.claim(&task).await;
    // The work is offered again for as long as its attempts could have taken, and nobody comes.
    deal.sweep_after(Duration::from_secs(10)).await;
    let offer = deal.offers(&deal.bob).await[0].clone();
    deal.sweep_after(Duration::from_mins(4)).await;
    assert!(offer["claimBy"].as_str().unwrap() < deal.world.now().to_string().as_str());
    let seen = deal.ada.task(&task).await;
    assert_eq!((&seen["status"], &seen["failureCode"]), (&json!("REFUNDED"), &json!("DEADLINE_EXCEEDED")));
    assert_ne!(deal.world.score(deal.agent).await, "42.5");
    deal.world.check().await;
}

#[tokio::test]
async fn an_output_that_cannot_be_taken_is_refused_and_may_be_corrected() {
    let world = World::with(|config| config.execution.output_bytes = 40).await;
    let deal = Deal::over(world).await;
    let schema = json!({ "type": "object", "required": ["n"], "properties": { "n": { "type": "integer" } } });
    let task = deal.won(json!({ "outputSchema": schema })).await;
    let token = deal.claim(&task).await["token"].take();
    let submission = |value: Value| {
        let mut input = output(&task, &token, &value);
        input["idempotencyKey"] = json!("submit");
        input
    };
    let document =
        "mutation($input: SubmitResultInput!) { submitResult(input: $input) { userErrors { code message } } }";
    let answer = deal.bob.query(document, json!({ "input": submission(json!({ "n": "3" })) })).await;
    let error = &answer["submitResult"]["userErrors"][0];
    assert_eq!(error["code"], "OUTPUT_SCHEMA_VIOLATION");
    assert!(error["message"].as_str().unwrap().contains("/n"), "it says where: {error}");
    let long = submission(json!({ "n": 3, "more": "x".repeat(40) }));
    assert_eq!(deal.bob.refusal("submitResult", long).await, "OUTPUT_TOO_LARGE");
    let seen = deal.ada.task(&task).await;
    assert_eq!((&seen["status"], &seen["result"]), (&json!("RUNNING"), &Value::Null));
    // Nothing was decided, so the same intent may come with a better output.
    let done = deal.bob.call("submitResult", "task { status result { output } }", submission(json!({ "n": 3 }))).await;
    assert_eq!(done["task"], json!({ "status": "COMPLETED", "result": { "output": { "n": 3 } } }));
    deal.world.check().await;
}

#[tokio::test]
async fn an_agent_that_gives_up_says_why_and_answers_for_it() {
    let deal = Deal::new().await;
    let task = deal.won(json!({})).await;
    let token = deal.claim(&task).await["token"].take();
    for (code, message) in [("no disk", "x"), ("", "x"), (&*"A".repeat(65), "x"), ("A", " "), ("A", &*"x".repeat(501))]
    {
        let input = json!({ "taskId": task, "token": token, "code": code, "message": message });
        assert_eq!(deal.bob.refusal("failTask", input).await, "INVALID_INPUT", "{code:?}");
    }
    let failed = deal.bob.call("failTask", "task { status failureCode failureMessage }", failure(&task, &token)).await;
    let expected =
        json!({ "status": "REFUNDED", "failureCode": "AGENT_NO_DISK", "failureMessage": "The disk is full." });
    assert_eq!(failed["task"], expected);
    assert_eq!(deal.ada.wallet().await, ("100".to_owned(), "0".to_owned()));
    assert_ne!(deal.world.score(deal.agent).await, "42.5");
    assert_eq!(deal.bob.refusal("submitResult", output(&task, &token, &json!(1))).await, "LEASE_LOST");
    deal.world.check().await;
}

#[tokio::test]
async fn the_first_claim_gives_the_bond_back_and_a_result_may_wait_for_the_payer() {
    let deal = Deal::new().await;
    deal.world.credit(&deal.bob, "5").await;
    let over = json!({ "bidBond": "1", "acceptance": "REVIEW", "outputSchema": { "type": "integer" } });
    let task = deal.won(over).await;
    assert_eq!(deal.bob.wallet().await.0, "4");
    let token = deal.claim(&task).await["token"].take();
    assert_eq!(deal.bob.wallet().await.0, "5");
    // The payer reviews, and still the schema comes first.
    assert_eq!(deal.bob.refusal("submitResult", output(&task, &token, &json!("3"))).await, "OUTPUT_SCHEMA_VIOLATION");
    let submitted = deal.bob.call("submitResult", "task { status }", output(&task, &token, &json!(3))).await;
    assert_eq!(submitted["task"]["status"], "SUBMITTED");
    assert_eq!((deal.seen().await["inWork"].take(), deal.bob.earned(deal.agent).await), (json!(0), "0".to_owned()));
    deal.ada.call("acceptResult", "task { status }", json!({ "taskId": task })).await;
    assert_eq!(deal.bob.earned(deal.agent).await, "2");
    deal.world.check().await;
}

#[tokio::test]
async fn what_a_winner_did_not_claim_in_time_is_not_its_any_more() {
    let deal = Deal::new().await;
    let next = deal.world.agent(&deal.bob, "next", "EXTERNAL", "hand", "1").await;
    let auction = deal.ada.open(json!({ "capabilities": ["hand"], "closeAfterBids": 2 })).await;
    deal.bob.bid(&auction, deal.agent, "2").await;
    deal.bob.bid(&auction, next, "3").await;
    let task = deal.ada.auction(&auction).await["task"]["id"].as_str().unwrap().to_owned();
    let bound = key(&deal.bob, json!(["READ", "WORK_WRITE"]), Some(deal.agent)).await;
    // The deadline has come, and the sweeper has not looked yet: it is too late all the same.
    deal.world.turn(Duration::from_mins(1));
    assert!(deal.offers(&bound).await.is_empty());
    assert_eq!(bound.refusal("claimTask", json!({ "taskId": task })).await, "WORK_NOT_OFFERED");
    deal.sweep_after(Duration::ZERO).await;
    assert_eq!(bound.refusal("claimTask", json!({ "taskId": task })).await, "WORK_NOT_OFFERED");
    assert_eq!(deal.seen().await["inWork"], 0);
    let offered = offers(&deal.bob, next, Value::Null).await;
    assert_eq!((&offered[0]["price"], &offered[0]["claims"]), (&json!("3"), &json!(0)));
    let token = deal.claim(&task).await["token"].take();
    deal.bob.call("submitResult", "task { id }", output(&task, &token, &json!(1))).await;
    assert_eq!((deal.bob.earned(deal.agent).await, deal.bob.earned(next).await), ("0".to_owned(), "3".to_owned()));
    deal.world.check().await;
}

#[tokio::test]
async fn an_agent_takes_no_more_than_it_can_do_at_once() {
    let deal = Deal::new().await;
    let change = json!({ "agentId": deal.agent.to_string(), "capacity": 1 });
    assert_eq!(deal.seen().await["capacity"], 10, "unless it says otherwise");
    deal.bob.call("updateAgent", "agent { id }", change).await;
    let other = deal.world.agent(&deal.bob, "other", "EXTERNAL", "hand", "1").await;
    // It bids in two auctions while it has nothing to do, and can win but one.
    let open = || deal.ada.open(json!({ "capabilities": ["hand"], "closesIn": "PT10M", "timeout": "PT2M" }));
    let (one, two) = (open().await, open().await);
    for auction in [&one, &two] {
        deal.bob.bid(auction, deal.agent, "2").await;
        deal.bob.bid(auction, other, "9").await;
    }
    deal.sweep_after(Duration::from_mins(10)).await;
    assert_eq!((deal.seen().await["inWork"].take(), deal.seen().await["capacity"].take()), (json!(1), json!(1)));
    let (one, two) = (deal.ada.auction(&one).await, deal.ada.auction(&two).await);
    assert_eq!((&one["winningBid"]["price"], &two["winningBid"]["price"]), (&json!("2"), &json!("9")));
    let states: Vec<(String, String)> = bids(&two).into_iter().map(|(price, state, ..)| (price, state)).collect();
    let pair = |price: &str, state: &str| (price.to_owned(), state.to_owned());
    assert_eq!(states, [pair("2", "INELIGIBLE"), pair("9", "WON")]);
    let third = open().await;
    assert_eq!(deal.bob.refused_bid(&third, deal.agent, "2").await, "AGENT_AT_CAPACITY");
    // With the end of its work it has room again.
    let task = one["task"]["id"].as_str().unwrap();
    let token = deal.claim(task).await["token"].take();
    deal.bob.call("submitResult", "task { id }", output(task, &token, &json!(1))).await;
    assert_eq!(deal.seen().await["inWork"], 0);
    deal.bob.bid(&third, deal.agent, "2").await;
    for capacity in [0, -1, 10_001] {
        let change = json!({ "agentId": deal.agent.to_string(), "capacity": capacity });
        assert_eq!(deal.bob.refusal("updateAgent", change).await, "INVALID_INPUT");
    }
    deal.ada.call("cancelAuction", "auction { id }", json!({ "auctionId": third })).await;
    deal.world.check().await;
}

#[tokio::test]
async fn hosted_agents_without_room_do_not_bid_by_themselves() {
    let world = World::start().await;
    let (ada, bob) = (world.user("ada").await, world.user("bob").await);
    world.credit(&ada, "100").await;
    let cheap = world.hosted_agent(&bob, "cheap", "echo", "1", echoing()).await;
    world.hosted_agent(&bob, "dear", "echo", "2", echoing()).await;
    bob.call("updateAgent", "agent { id }", json!({ "agentId": cheap.to_string(), "capacity": 2 })).await;
    let mut tasks = Vec::new();
    for _ in 0..4 {
        tasks.push(ada.execute(json!({ "capabilities": ["echo"] })).await);
    }
    let mut prices = Vec::new();
    for task in &tasks {
        let task = ada.task(task).await;
        prices.push((task["agent"]["name"].as_str().unwrap().to_owned(), task["price"].as_str().unwrap().to_owned()));
    }
    let pair = |name: &str, price: &str| (name.to_owned(), price.to_owned());
    assert_eq!(prices, [pair("cheap", "1"), pair("cheap", "1"), pair("dear", "2"), pair("dear", "2")]);
    world.settle().await;
    let task = ada.execute(json!({ "capabilities": ["echo"] })).await;
    assert_eq!(ada.task(&task).await["agent"]["name"], "cheap");
    world.settle().await;
    world.check().await;
}

#[tokio::test]
async fn an_agent_is_online_while_it_is_heard_of() {
    let deal = Deal::new().await;
    let id = deal.agent.to_string();
    let listed = async |online: bool| {
        let document = "query($online: Boolean!) { agents(filter: { online: $online }) { nodes { id } } }";
        let found = deal.world.anonymous().query(document, json!({ "online": online })).await;
        found["agents"]["nodes"].as_array().unwrap().iter().any(|agent| agent["id"] == id.as_str())
    };
    let online = async || {
        let seen = deal.seen().await;
        let (is, at) = (seen["online"].as_bool().unwrap(), seen["lastSeenAt"].as_str().map(str::to_owned));
        assert_eq!((listed(true).await, listed(false).await), (is, !is));
        (is, at)
    };
    assert_eq!(online().await, (false, None));
    // A stranger who asks about it is no sign of its life.
    let eve = deal.world.user("eve").await;
    eve.query(OFFERS, json!({ "agent": id })).await;
    assert_eq!(online().await, (false, None));
    deal.offers(&deal.bob).await;
    let first = deal.world.now().to_string();
    assert_eq!(online().await, (true, Some(first.clone())));
    let metrics = deal.world.app.metrics();
    metrics.sample(deal.world.app.store()).await.unwrap();
    for line in ["zerostate_agents_online{runtime=\"external\"} 1", "zerostate_agents_online{runtime=\"wasm\"} 0"] {
        assert!(metrics.render().unwrap().contains(line), "{line}");
    }
    // It is not written down more often than every 15 seconds.
    deal.world.turn(Duration::from_secs(14));
    deal.offers(&deal.bob).await;
    assert_eq!(online().await, (true, Some(first)));
    deal.world.turn(Duration::from_secs(1));
    deal.offers(&deal.bob).await;
    let second = deal.world.now();
    assert_eq!(online().await, (true, Some(second.to_string())));
    deal.world.turn(Duration::from_mins(2));
    assert!(online().await.0, "two minutes to the instant");
    deal.world.turn(Duration::from_micros(1));
    assert_eq!(online().await, (false, Some(second.to_string())));
    // Each thing that it does is a sign.
    let gone = async || {
        deal.world.turn(Duration::from_mins(3));
        assert!(!online().await.0);
    };
    let auction = deal.ada.open(json!({ "capabilities": ["hand"], "closeAfterBids": 1, "timeout": "PT5M" })).await;
    deal.bob.bid(&auction, deal.agent, "2").await;
    assert!(online().await.0, "by a bid");
    let task = deal.ada.auction(&auction).await["task"]["id"].as_str().unwrap().to_owned();
    deal.world.turn(Duration::from_secs(59));
    let token = deal.claim(&task).await["token"].take();
    gone().await;
    deal.bob.call("heartbeat", "leasedUntil", beat(&task, &token)).await;
    assert!(online().await.0, "by a heartbeat");
    gone().await;
    deal.bob.call("submitResult", "task { id }", output(&task, &token, &json!(1))).await;
    assert!(online().await.0, "by a result");
    gone().await;
    let stream = deal.bob.subscribe(OFFERED, json!({ "agent": id })).await;
    let since = Instant::now();
    while deal.seen().await["online"] != true {
        assert!(since.elapsed() < PATIENCE, "not seen by its subscription");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(stream);
    deal.bob.call("pauseAgent", "agent { id }", json!({ "agentId": id })).await;
    assert!(!online().await.0, "who pauses is not there");
    deal.world.check().await;
}

#[tokio::test]
async fn where_it_is_asked_for_only_agents_that_are_online_win() {
    let deal = Deal::new().await;
    let other = deal.world.agent(&deal.bob, "other", "EXTERNAL", "hand", "1").await;
    let mut opened = Vec::new();
    for _ in 0..2 {
        opened.push(deal.ada.open(json!({ "capabilities": ["hand"], "closesIn": "PT10M" })).await);
    }
    for auction in &opened {
        deal.bob.bid(auction, deal.agent, "2").await;
        deal.bob.bid(auction, other, "9").await;
    }
    let store = deal.world.app.store();
    let number = opened[0].parse::<AuctionId>().unwrap().0;
    let sqlite = store.backend() == sea_orm::DbBackend::Sqlite;
    let quoted = if sqlite { format!("X'{}'", number.simple()) } else { format!("'{number}'") };
    let asked = format!("UPDATE auctions SET online_only = TRUE WHERE id = {quoted}");
    let changed = store
        .write(zerostate::caller::Caller::System, async |work| {
            Ok(work.tx().execute_raw(Statement::from_string(store.backend(), asked)).await?.rows_affected())
        })
        .await
        .unwrap();
    assert_eq!(changed, 1);
    deal.world.turn(Duration::from_mins(9));
    offers(&deal.bob, other, Value::Null).await;
    deal.sweep_after(Duration::from_mins(1)).await;
    let won = async |auction: &str| deal.ada.auction(auction).await["winningBid"]["price"].take();
    assert_eq!((won(&opened[0]).await, won(&opened[1]).await), (json!("9"), json!("2")));
    deal.world.check().await;
}

#[tokio::test]
async fn a_claim_outlives_the_process_that_gave_it() {
    let deal = Deal::new().await;
    let peer = deal.world.another().await;
    let task = won(&deal.ada, &deal.bob.at(peer.address), deal.agent, json!({})).await;
    let intent = json!({ "taskId": task, "idempotencyKey": "claim" });
    let claimed = deal.bob.at(peer.address).call("claimTask", CLAIM, intent.clone()).await;
    drop(peer);
    assert_eq!(deal.bob.call("claimTask", CLAIM, intent).await, claimed);
    let token = &claimed["claim"]["token"];
    deal.bob.call("heartbeat", "leasedUntil", beat(&task, token)).await;
    let done = deal.bob.call("submitResult", "task { status }", output(&task, token, &json!(1))).await;
    assert_eq!(done["task"]["status"], "COMPLETED");
    deal.world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_workers_that_claim_at_once_one_has_the_work() {
    let deal = Deal::new().await;
    let task = deal.won(json!({})).await;
    let document =
        "mutation($input: ClaimTaskInput!) { claimTask(input: $input) { claim { token } userErrors { code } } }";
    for round in 1..=2 {
        let claims = (0..64).map(|number| {
            let input = json!({ "taskId": task, "worker": format!("box {number}"), "idempotencyKey": fresh_key() });
            deal.bob.query(document, json!({ "input": input }))
        });
        let answers = join_all(claims).await;
        let tokens: Vec<&Value> = answers.iter().map(|answer| &answer["claimTask"]["claim"]["token"]).collect();
        let won: Vec<&&Value> = tokens.iter().filter(|token| !token.is_null()).collect();
        assert_eq!(won, [&&json!(round.to_string())]);
        let held = answers.iter().filter(|answer| answer["claimTask"]["userErrors"][0]["code"] == "LEASE_HELD");
        assert_eq!(held.count(), 63);
        // The second time they claim over a lease that is over.
        deal.world.turn(Duration::from_secs(31));
    }
    let text = deal.world.app.metrics().render().unwrap();
    for line in [
        "zerostate_work_claims_total{result=\"claimed\"} 2",
        "zerostate_work_claims_total{result=\"lease_held\"} 126",
        "zerostate_work_leases_lost_total 1",
        "zerostate_work_offers_total 1",
    ] {
        assert!(text.contains(line), "{line} is missing");
    }
    deal.bob.call("submitResult", "task { id }", output(&task, &json!("2"), &json!(1))).await;
    assert_eq!(deal.bob.earned(deal.agent).await, "2");
    deal.world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn awards_at_the_same_time_give_an_agent_no_more_than_it_can_do() {
    let deal = Deal::new().await;
    deal.bob.call("updateAgent", "agent { id }", json!({ "agentId": deal.agent.to_string(), "capacity": 3 })).await;
    let mut auctions = Vec::new();
    for _ in 0..20 {
        let over = json!({ "capabilities": ["hand"], "awardMode": "MANUAL", "budget": "5" });
        let auction = deal.ada.open(over).await;
        deal.bob.bid(&auction, deal.agent, "2").await;
        auctions.push(auction);
    }
    let peer = deal.world.another().await;
    let document =
        "mutation($input: AwardAuctionInput!) { awardAuction(input: $input) { auction { id } userErrors { code } } }";
    let awards = auctions.iter().enumerate().map(|(number, auction)| {
        let ada = if number % 2 == 0 { deal.ada.clone() } else { deal.ada.at(peer.address) };
        let input = json!({ "auctionId": auction, "idempotencyKey": fresh_key() });
        async move { ada.query(document, json!({ "input": input })).await["awardAuction"].take() }
    });
    let answers = join_all(awards).await;
    let awarded = answers.iter().filter(|answer| answer["userErrors"] == json!([])).count();
    let refused = answers.iter().filter(|answer| answer["userErrors"][0]["code"] == "NO_ELIGIBLE_BID").count();
    assert_eq!((awarded, refused), (3, 17), "{answers:#?}");
    assert_eq!(deal.seen().await["inWork"], 3);
    // Work ends and new work is awarded at the same time: the same rows in the same order.
    let mine: Vec<String> =
        deal.offers(&deal.bob).await.iter().map(|it| it["taskId"].as_str().unwrap().to_owned()).collect();
    let ends = mine.iter().map(|task| async {
        let token = deal.claim(task).await["token"].take();
        deal.bob.call("failTask", "task { id }", failure(task, &token)).await
    });
    let again = auctions.iter().map(|auction| {
        let (ada, input) = (&deal.ada, json!({ "auctionId": auction, "idempotencyKey": fresh_key() }));
        async move { ada.query(document, json!({ "input": input })).await }
    });
    join(join_all(ends), join_all(again)).await;
    assert!(deal.seen().await["inWork"].as_i64().unwrap() <= 3);
    deal.world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_that_goes_from_one_agent_to_the_other_and_back_at_the_same_time_does_not_stop() {
    let deal = Deal::new().await;
    let other = deal.world.agent(&deal.bob, "other", "EXTERNAL", "hand", "1").await;
    for number in 0..10 {
        let auction = deal.ada.open(json!({ "capabilities": ["hand"], "closeAfterBids": 2, "budget": "5" })).await;
        let (first, second) = if number % 2 == 0 { (deal.agent, other) } else { (other, deal.agent) };
        deal.bob.bid(&auction, first, "2").await;
        deal.bob.bid(&auction, second, "3").await;
    }
    // Nobody starts: five tasks of each go to the other, and two processes see to it.
    let peer = deal.world.another().await;
    deal.world.turn(Duration::from_mins(1));
    let since = Instant::now();
    loop {
        let (here, there) = join(deal.world.app.sweep_once(), peer.app.sweep_once()).await;
        if here.unwrap() + there.unwrap() == 0 {
            break;
        }
        assert!(since.elapsed() < PATIENCE * 6, "the market does not come to rest");
    }
    assert_eq!(kinds(&deal.world, Kind::TaskReassigned).await, 10);
    assert_eq!(deal.seen().await["inWork"], 5);
    deal.sweep_after(Duration::from_mins(1)).await;
    assert_eq!((deal.seen().await["inWork"].take(), deal.ada.wallet().await.0), (json!(0), "100".to_owned()));
    deal.world.check().await;
}
