//! What is known of an agent: only settled work and its payer move it, and every point of it can be explained.

use std::time::Duration;

use entity::id::AgentId;
use serde_json::{Value, json};

use crate::world::{Client, World, crashing, echoing};

const REPUTATION: &str = "query($id: ID!) { reputation(agentId: $id) {
    score version tasks successes failures successRate successRateLowerBound earned meanDuration evidenceCount
    factors { name value weight points effectiveSamples prior }
} }";

async fn reputation(who: &Client, agent: AgentId) -> Value {
    who.query(REPUTATION, json!({ "id": agent.to_string() })).await["reputation"].take()
}

/// Milli-points of a score.
fn milli(points: &Value) -> i64 {
    let (whole, fraction) = points.as_str().unwrap().split_once('.').unwrap_or((points.as_str().unwrap(), ""));
    format!("{whole}{fraction:0<3}").parse().unwrap()
}

fn assert_sums(reputation: &Value) {
    let factors = reputation["factors"].as_array().unwrap();
    let names: Vec<_> = factors.iter().map(|factor| factor["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["SUCCESS", "RATING", "TIMELINESS", "COST", "EXPERIENCE"]);
    let sum: i64 = factors.iter().map(|factor| milli(&factor["points"])).sum();
    assert_eq!(sum, milli(&reputation["score"]), "{reputation:#}");
    assert_eq!(factors.iter().map(|factor| milli(&factor["weight"])).sum::<i64>(), 100_000);
}

/// Buys one piece of work from whoever has the capability.
async fn buy(world: &World, who: &Client, capability: &str) -> String {
    let id = who.execute(json!({ "capabilities": [capability] })).await;
    world.settle().await;
    id
}

fn stars(task: &str, stars: i32) -> Value {
    json!({ "taskId": task, "stars": stars })
}

#[tokio::test]
async fn the_points_of_a_score_say_where_it_comes_from() {
    let world = World::start().await;
    let (ada, bob) = (world.user("ada").await, world.user("bob").await);
    world.credit(&ada, "100").await;
    let echo = world.hosted_agent(&bob, "echo", "echo", "2", echoing()).await;
    let newcomer = reputation(&world.anonymous(), echo).await;
    assert_sums(&newcomer);
    assert_eq!((&newcomer["score"], &newcomer["version"]), (&json!("42.5"), &json!("rep-v1")));
    assert_eq!(
        (&newcomer["successRate"], &newcomer["meanDuration"], &newcomer["tasks"]),
        (&Value::Null, &Value::Null, &json!("0"))
    );
    let points: Vec<_> =
        newcomer["factors"].as_array().unwrap().iter().map(|factor| factor["points"].clone()).collect();
    assert_eq!(points, [json!("20"), json!("10"), json!("7.5"), json!("5"), json!("0")]);

    // The first task of the market has the usual price, and so half the weight of a large one.
    let first = buy(&world, &ada, "echo").await;
    let seen = reputation(&world.anonymous(), echo).await;
    assert_sums(&seen);
    assert_eq!(seen["score"], "45.436");
    assert_eq!((&seen["tasks"], &seen["successes"], &seen["failures"]), (&json!("1"), &json!("1"), &json!("0")));
    assert_eq!(
        (&seen["successRate"], &seen["earned"], &seen["evidenceCount"]),
        (&json!("100"), &json!("2"), &json!("1"))
    );
    let success = json!({ "name": "SUCCESS", "value": "55.55", "weight": "40", "points": "22.222", "effectiveSamples": "0.5", "prior": "50" });
    assert_eq!(seen["factors"][0], success);
    assert_eq!(seen["factors"][4]["points"], "0.714");

    // Every further one of the same pair weighs less: a half, a quarter, a sixth.
    buy(&world, &ada, "echo").await;
    buy(&world, &ada, "echo").await;
    let seen = reputation(&world.anonymous(), echo).await;
    assert_sums(&seen);
    assert_eq!(seen["factors"][0]["effectiveSamples"], "0.916");

    // The stars of the payer.
    ada.call("rateAgent", "rating { stars }", stars(&first, 1)).await;
    let rated = reputation(&world.anonymous(), echo).await;
    assert_sums(&rated);
    assert_eq!(
        rated["factors"][1],
        json!({ "name": "RATING", "value": "44.44", "weight": "20", "points": "8.889", "effectiveSamples": "0.5", "prior": "50" })
    );
    assert_eq!(rated["evidenceCount"], "4");
    let events = "query($id: ID!) { reputationEvents(agentId: $id) { totalCount nodes {
        version cause amount weight scoreBefore scoreAfter task { id } } } }";
    let told = world.anonymous().query(events, json!({ "id": echo.to_string() })).await["reputationEvents"].take();
    assert_eq!(told["totalCount"], 4);
    let nodes = told["nodes"].as_array().unwrap();
    let versions: Vec<_> = nodes.iter().map(|event| event["version"].as_str().unwrap()).collect();
    assert_eq!(versions, ["4", "3", "2", "1"]);
    let weights: Vec<_> = nodes.iter().map(|event| event["weight"].as_str().unwrap()).collect();
    assert_eq!(weights, ["50", "16.66", "25", "50"]);
    assert_eq!((&nodes[3]["scoreBefore"], &nodes[3]["scoreAfter"]), (&json!("42.5"), &json!("45.436")));
    for pair in nodes.windows(2) {
        assert_eq!(pair[0]["scoreBefore"], pair[1]["scoreAfter"], "no step is left out");
    }
    assert_eq!(nodes[0]["scoreAfter"], rated["score"]);
    assert_eq!(nodes[0]["task"], Value::Null, "whose task it was is for the parties");
    assert_eq!(
        ada.query(events, json!({ "id": echo.to_string() })).await["reputationEvents"]["nodes"][0]["task"]["id"],
        first
    );
    world.check().await;
}

#[tokio::test]
async fn only_the_payer_rates_finished_work_once_and_in_time() {
    let world = World::start().await;
    let (ada, bob, eve) = (world.user("ada").await, world.user("bob").await, world.user("eve").await);
    world.credit(&ada, "100").await;
    world.credit(&eve, "10").await;
    let echo = world.hosted_agent(&bob, "echo", "echo", "2", echoing()).await;
    world.hosted_agent(&bob, "broken", "broken", "2", crashing()).await;
    let task = buy(&world, &ada, "echo").await;
    let failed = buy(&world, &ada, "broken").await;
    let open = ada.open(json!({})).await;
    let open = ada.task_of(&open).await["id"].as_str().unwrap().to_owned();
    let others = buy(&world, &eve, "echo").await;
    let before = world.score(echo).await;
    assert_eq!(world.anonymous().fault("rateAgent", stars(&task, 5)).await, "UNAUTHENTICATED");
    assert_eq!(eve.refusal("rateAgent", stars(&task, 1)).await, "NOT_FOUND");
    assert_eq!(bob.refusal("rateAgent", stars(&task, 5)).await, "RATING_NOT_PAYER");
    assert_eq!(world.admin().await.refusal("rateAgent", stars(&task, 5)).await, "NOT_FOUND");
    assert_eq!(ada.refusal("rateAgent", stars(&failed, 1)).await, "TASK_NOT_SETTLED");
    assert_eq!(ada.refusal("rateAgent", stars(&open, 1)).await, "TASK_NOT_SETTLED");
    for wrong in [0, 6, -1] {
        assert_eq!(ada.refusal("rateAgent", stars(&task, wrong)).await, "INVALID_INPUT");
    }
    let long = json!({ "taskId": task, "stars": 3, "comment": "x".repeat(2_001) });
    assert_eq!(ada.refusal("rateAgent", long).await, "INVALID_INPUT");
    assert_eq!(world.score(echo).await, before);

    let input = json!({ "taskId": task, "stars": 5, "comment": " Good work. ", "idempotencyKey": "r" });
    let rated = ada.call("rateAgent", "rating { id stars comment agent { id } }", input.clone()).await;
    assert_eq!(rated["rating"]["comment"], "Good work.");
    assert_eq!(rated["rating"]["agent"]["id"], echo.to_string());
    let after = world.score(echo).await;
    assert_ne!(after, before);
    let again = ada.call("rateAgent", "rating { id stars comment agent { id } }", input).await;
    assert_eq!(again, rated);
    assert_eq!(ada.refusal("rateAgent", stars(&task, 1)).await, "ALREADY_RATED");
    assert_eq!(world.score(echo).await, after);
    assert_eq!(world.rows("ratings").await, 1);

    // Two weeks are enough time to make up one's mind.
    world.pass(Duration::from_hours(14 * 24) + Duration::from_micros(1)).await;
    assert_eq!(eve.refusal("rateAgent", stars(&others, 5)).await, "RATING_WINDOW_CLOSED");
    world.check().await;
}

#[tokio::test]
async fn ratings_that_arrive_together_are_one_rating() {
    let world = World::start().await;
    let (ada, bob) = (world.user("ada").await, world.user("bob").await);
    world.credit(&ada, "100").await;
    world.hosted_agent(&bob, "echo", "echo", "2", echoing()).await;
    let task = buy(&world, &ada, "echo").await;
    let document =
        "mutation($input: RateAgentInput!) { rateAgent(input: $input) { rating { id } userErrors { code } } }";
    let input = |number: i32| json!({ "taskId": task, "stars": 5, "idempotencyKey": format!("r{number}") });
    let all = (0..6).map(|number| ada.query(document, json!({ "input": input(number) })));
    let all = futures_util::future::join_all(all).await;
    let done = all.iter().filter(|one| one["rateAgent"]["rating"].is_object()).count();
    let refused =
        all.iter().filter(|one| one["rateAgent"]["userErrors"] == json!([{ "code": "ALREADY_RATED" }])).count();
    assert_eq!((done, refused), (1, 5), "{all:#?}");
    world.check().await;
}

#[tokio::test]
async fn nobody_else_can_write_a_reputation() {
    let world = World::start().await;
    let document = "{ __schema { mutationType { fields { name } } } }";
    let fields = world.anonymous().query(document, json!({})).await;
    let names = fields["__schema"]["mutationType"]["fields"].as_array().unwrap();
    let about: Vec<_> = names
        .iter()
        .map(|field| field["name"].as_str().unwrap())
        .filter(|name| name.contains("ep") && name.contains("utation"))
        .collect();
    assert_eq!(about, [""; 0], "evidence comes from settlements alone");
    // Not even the registration sets one.
    let bob = world.user("bob").await;
    let input = json!({ "name": "a", "capabilities": ["a"], "runtime": "EXTERNAL", "price": "1", "score": "100" });
    assert_eq!(bob.fault("registerAgent", input).await, "GRAPHQL_VALIDATION_FAILED");
    world.check().await;
}

#[tokio::test]
async fn work_for_oneself_is_not_possible_and_a_pair_cannot_lift_itself_far() {
    let world = World::start().await;
    let (ada, bob) = (world.user("ada").await, world.user("bob").await);
    world.credit(&ada, "100").await;
    let own = world.hosted_agent(&ada, "own", "own", "1", echoing()).await;
    let id = buy(&world, &ada, "own").await;
    assert_eq!(ada.task(&id).await["status"], "EXPIRED");
    assert_eq!(world.score(own).await, "42.5");
    let echo = world.hosted_agent(&bob, "echo", "echo", "1", echoing()).await;
    for _ in 0..20 {
        buy(&world, &ada, "echo").await;
    }
    // ½ · (1 + 1/2 + … + 1/20) = 1.798 tasks of full weight, not 20.
    let seen = reputation(&ada, echo).await;
    assert_sums(&seen);
    assert_eq!((&seen["successes"], &seen["factors"][0]["effectiveSamples"]), (&json!("20"), &json!("1.798")));
    assert_eq!(seen["score"], "50.991");
    world.check().await;
}

#[tokio::test]
async fn evidence_fades_toward_what_is_assumed_of_a_newcomer() {
    let world = World::start().await;
    let (ada, bob) = (world.user("ada").await, world.user("bob").await);
    world.credit(&ada, "100").await;
    let good = world.hosted_agent(&bob, "good", "good", "2", echoing()).await;
    let bad = world.hosted_agent(&bob, "bad", "bad", "2", crashing()).await;
    buy(&world, &ada, "good").await;
    buy(&world, &ada, "bad").await;
    assert_eq!(world.score(good).await, "45.436");
    // The second of a pair weighs a quarter: 40 · 2/4.25 + 22.5.
    assert_eq!(world.score(bad).await, "41.323");
    world.pass(Duration::from_hours(90 * 24)).await;
    // After a half-life: 40 · 2.25/4.25 + 15 · 0.25/10.25 + 22.5 and 40 · 2/4.125 + 22.5.
    assert_eq!(world.score(good).await, "44.042");
    assert_eq!(world.score(bad).await, "41.893");
    world.pass(Duration::from_hours(90 * 24 * 60)).await;
    assert_eq!(world.score(good).await, "42.5");
    assert_eq!(world.score(bad).await, "42.5");
    world.check().await;
}

#[tokio::test]
async fn the_leaderboard_is_in_the_order_of_the_scores() {
    let world = World::start().await;
    let (ada, bob) = (world.user("ada").await, world.user("bob").await);
    world.credit(&ada, "100").await;
    world.hosted_agent(&bob, "newcomer", "other", "2", echoing()).await;
    let bad = world.hosted_agent(&bob, "bad", "bad", "2", crashing()).await;
    world.hosted_agent(&bob, "good", "good", "2", echoing()).await;
    let cleo = world.user("cleo").await;
    world.hosted_agent(&cleo, "better", "better", "8", echoing()).await;
    for capability in ["good", "bad", "better"] {
        buy(&world, &ada, capability).await;
    }
    let document =
        "query($capability: String, $first: Int! = 20) { leaderboard(capability: $capability, first: $first) {
        rank score tasks successes agent { name } } }";
    let board = async |variables: Value| world.anonymous().query(document, variables).await["leaderboard"].take();
    let all = board(json!({})).await;
    let line = |entry: &Value| {
        (
            entry["rank"].as_i64().unwrap(),
            entry["agent"]["name"].as_str().unwrap().to_owned(),
            entry["tasks"].as_str().unwrap().to_owned(),
        )
    };
    let lines: Vec<_> = all.as_array().unwrap().iter().map(line).collect();
    let expected = [(1, "better", "1"), (2, "good", "1"), (3, "newcomer", "0"), (4, "bad", "1")];
    assert_eq!(lines, expected.map(|(rank, name, tasks)| (rank, name.to_owned(), tasks.to_owned())));
    let scores: Vec<_> = all.as_array().unwrap().iter().map(|entry| milli(&entry["score"])).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
    assert_eq!(board(json!({ "capability": "good" })).await.as_array().unwrap().len(), 1);
    assert_eq!(board(json!({ "first": 2 })).await.as_array().unwrap().len(), 2);
    assert_eq!(world.anonymous().error(document, json!({ "first": 0 })).await, "BAD_USER_INPUT");
    bob.call("retireAgent", "agent { id }", json!({ "agentId": bad.to_string() })).await;
    assert_eq!(board(json!({})).await.as_array().unwrap().len(), 3);
    world.check().await;
}

#[tokio::test]
async fn reading_a_reputation_writes_nothing() {
    let world = World::start().await;
    let bob = world.user("bob").await;
    let agent = world.agent(&bob, "quiet", "EXTERNAL", "text.stats", "1").await;
    let tables = ["reputations", "reputation_events", "agents", "events"];
    let mut before = Vec::new();
    for table in tables {
        before.push(world.rows(table).await);
    }
    let nobody = "agent_01h455vb4pex5vsknk084sn02q";
    for _ in 0..3 {
        reputation(&world.anonymous(), agent).await;
        let seen = world.anonymous().query(REPUTATION, json!({ "id": nobody })).await;
        assert_eq!(seen["reputation"], Value::Null);
        assert_eq!(world.anonymous().error(REPUTATION, json!({ "id": "anything at all" })).await, "BAD_USER_INPUT");
        let lists = "query($id: ID!) { reputationEvents(agentId: $id) { totalCount } leaderboard { rank }
            agent(id: $id) { score reputation { score } reputationEvents { totalCount } } }";
        world.anonymous().query(lists, json!({ "id": agent.to_string() })).await;
    }
    for (table, before) in tables.into_iter().zip(before) {
        assert_eq!(world.rows(table).await, before, "{table}");
    }
    assert_eq!(world.rows("reputations").await, 0);
    world.check().await;
}
