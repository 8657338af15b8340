//! Metrics that move: what happened on the market is what is counted, and nothing before.

use std::{collections::BTreeMap, time::Duration};

use serde_json::json;

use crate::world::{Client, World};

const STATS: &[u8] = include_bytes!("../../agents/wasm/text-stats-lite.wasm");
const TRAP: &str = r#"(module (memory (export "memory") 1) (func (export "_start") unreachable))"#;
const EXECUTE: &str = "mutation($input: ExecuteTaskInput!) {
    executeTask(input: $input) { task { id status auction { id } } userErrors { code } }
}";
const CREATE: &str = "mutation($input: CreateAuctionInput!) {
    createAuction(input: $input) { auction { id task { id } } userErrors { code } }
}";
const CANCEL: &str =
    "mutation($input: CancelAuctionInput!) { cancelAuction(input: $input) { auction { id } userErrors { code } } }";
const BID: &str = "mutation($input: SubmitBidInput!) { submitBid(input: $input) { bid { id } userErrors { code } } }";
const WITHDRAW: &str =
    "mutation($input: WithdrawBidInput!) { withdrawBid(input: $input) { bid { id } userErrors { code } } }";

async fn scrape(world: &World) -> BTreeMap<String, f64> {
    let text = world.http().get(world.url("/metrics")).send().await.unwrap().text().await.unwrap();
    text.lines()
        .filter(|line| line.starts_with("zerostate_"))
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(series, value)| (series.to_owned(), value.parse().unwrap()))
        .collect()
}

/// The series of the market that changed, with how much they did.
#[expect(clippy::float_arithmetic, reason = "Prometheus speaks in floats")]
async fn moved(world: &World, before: &BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    let series = |name: &str| {
        let market = !name.contains("graphql") && !name.contains("db_pool");
        market && !name.contains("_bucket") && !name.contains("duration_seconds_sum")
    };
    let after = scrape(world).await;
    after
        .into_iter()
        .filter(|(name, _)| series(name))
        .map(|(name, value)| {
            let change = value - before.get(&name).unwrap_or_else(|| panic!("{name} was not there from the start"));
            (name, (change * 1_000_000.0).round() / 1_000_000.0)
        })
        .filter(|(_, change)| *change != 0.0)
        .collect()
}

fn task(capability: &str, budget: &str, key: &str) -> serde_json::Value {
    json!({ "input": {
        "title": "Count", "capabilities": [capability], "input": "one two three", "budget": budget, "idempotencyKey": key,
    }})
}

async fn execute(client: &Client, capability: &str, key: &str) {
    client.done("executeTask", EXECUTE, task(capability, "2", key)).await;
}

fn expect(moved: &BTreeMap<String, f64>, expected: &[(&str, f64)]) {
    let expected: BTreeMap<String, f64> =
        expected.iter().map(|(name, change)| (format!("zerostate_{name}"), *change)).collect();
    assert_eq!(moved, &expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_step_of_the_market_moves_its_own_metrics_and_no_other() {
    let world = World::start().await;
    let ada = world.user("ada").await;
    let bob = world.user("bob").await;
    world.credit(&ada, "100").await;
    world.hosted_agent(&bob, "good", "text.stats", "0.5", STATS).await;
    world.hosted_agent(&bob, "broken", "text.broken", "0.5", wat::parse_str(TRAP).unwrap()).await;
    let external = world.agent(&bob, "outside", "EXTERNAL", "text.outside", "0.5").await;

    let before = scrape(&world).await;
    execute(&ada, "text.stats", "success").await;
    world.settle().await;
    let mut change = moved(&world, &before).await;
    // The score depends on the formula, which has tests of its own; that one was observed is counted beside it.
    change.remove("zerostate_reputation_score_sum").expect("a score was observed");
    expect(
        &change,
        &[
            ("auction_bids_total{outcome=\"accepted\"}", 1.0),
            ("auction_duration_seconds_count{outcome=\"awarded\"}", 1.0),
            ("auction_winning_bid_credits_count", 1.0),
            ("auction_winning_bid_credits_sum", 0.5),
            ("auctions_total{outcome=\"awarded\"}", 1.0),
            ("escrow_releases_total", 1.0),
            ("escrows_created_total", 1.0),
            ("payment_channel_events_total{event=\"closed\"}", 1.0),
            ("payment_channel_events_total{event=\"opened\"}", 1.0),
            ("payment_channel_lifetime_seconds_count{reason=\"settled\"}", 1.0),
            ("reputation_score_count", 1.0),
            ("reputation_updates_total{cause=\"success\"}", 1.0),
            ("settlements_total{outcome=\"released\"}", 1.0),
            ("task_cost_credits_count", 1.0),
            ("task_cost_credits_sum", 0.5),
            ("task_duration_seconds_count{outcome=\"succeeded\",runtime=\"wasm\"}", 1.0),
            ("tasks_completed_total{outcome=\"succeeded\",runtime=\"wasm\"}", 1.0),
            ("tasks_submitted_total", 1.0),
        ],
    );

    let before = scrape(&world).await;
    execute(&ada, "text.broken", "failure").await;
    world.settle().await;
    let mut change = moved(&world, &before).await;
    change.remove("zerostate_reputation_score_sum").expect("a score was observed");
    expect(
        &change,
        &[
            ("auction_bids_total{outcome=\"accepted\"}", 1.0),
            ("auction_duration_seconds_count{outcome=\"awarded\"}", 1.0),
            ("auction_winning_bid_credits_count", 1.0),
            ("auction_winning_bid_credits_sum", 0.5),
            ("auctions_total{outcome=\"awarded\"}", 1.0),
            ("escrow_refunds_total{reason=\"task_failed\"}", 1.0),
            ("escrows_created_total", 1.0),
            ("payment_channel_events_total{event=\"closed\"}", 1.0),
            ("payment_channel_events_total{event=\"opened\"}", 1.0),
            ("payment_channel_lifetime_seconds_count{reason=\"refunded\"}", 1.0),
            ("reputation_score_count", 1.0),
            ("reputation_updates_total{cause=\"failure\"}", 1.0),
            ("settlements_total{outcome=\"refunded\"}", 1.0),
            ("task_duration_seconds_count{outcome=\"failed\",runtime=\"wasm\"}", 1.0),
            ("task_errors_total{reason=\"trap\",runtime=\"wasm\"}", 1.0),
            ("tasks_completed_total{outcome=\"failed\",runtime=\"wasm\"}", 1.0),
            ("tasks_submitted_total", 1.0),
        ],
    );

    let before = scrape(&world).await;
    execute(&ada, "text.nobody", "expired").await;
    let mut timed = task("text.outside", "2", "cancelled");
    timed["input"]["closesIn"] = json!("PT60S");
    let created = ada.done("createAuction", CREATE, timed).await;
    let auction = created["auction"]["id"].clone();
    let bid = json!({ "input": {
        "auctionId": auction, "agentId": external.to_string(), "price": "1", "idempotencyKey": "bid",
    }});
    let submitted = bob.done("submitBid", BID, bid).await;
    let dear = json!({ "input": {
        "auctionId": auction, "agentId": external.to_string(), "price": "3", "idempotencyKey": "dear",
    }});
    assert_eq!(bob.refused("submitBid", BID, dear).await, ["PRICE_ABOVE_CEILING"]);
    bob.done(
        "withdrawBid",
        WITHDRAW,
        json!({ "input": { "bidId": submitted["bid"]["id"], "idempotencyKey": "back" } }),
    )
    .await;
    ada.done("cancelAuction", CANCEL, json!({ "input": { "auctionId": auction, "idempotencyKey": "off" } })).await;
    world.pass(Duration::from_secs(1)).await;
    expect(
        &moved(&world, &before).await,
        &[
            ("auction_bids_total{outcome=\"accepted\"}", 1.0),
            ("auction_bids_total{outcome=\"rejected\"}", 1.0),
            ("auction_bids_total{outcome=\"withdrawn\"}", 1.0),
            ("auction_duration_seconds_count{outcome=\"cancelled\"}", 1.0),
            ("auction_duration_seconds_count{outcome=\"no_bids\"}", 1.0),
            ("auctions_total{outcome=\"cancelled\"}", 1.0),
            ("auctions_total{outcome=\"no_bids\"}", 1.0),
            ("escrow_refunds_total{reason=\"cancelled\"}", 1.0),
            ("escrow_refunds_total{reason=\"no_award\"}", 1.0),
            ("escrows_created_total", 2.0),
            ("tasks_completed_total{outcome=\"cancelled\",runtime=\"none\"}", 1.0),
            ("tasks_completed_total{outcome=\"expired\",runtime=\"none\"}", 1.0),
            ("tasks_submitted_total", 2.0),
        ],
    );

    // A delegation of two steps, of which one is skipped; and one that is called off.
    let before = scrape(&world).await;
    let plan = json!({ "steps": [
        { "name": "count", "capabilities": ["text.stats"], "input": "a b" },
        { "name": "broken", "capabilities": ["text.broken"], "onFailure": "SKIP" },
    ] });
    ada.call("delegateTask", "delegation { id }", json!({ "goal": "Count", "budget": "2", "plan": plan })).await;
    world.settle().await;
    let order = json!({ "goal": "Count", "budget": "2", "capabilities": ["text.stats"], "input": "a b" });
    let other = ada.call("delegateTask", "delegation { id }", order).await;
    let id = json!({ "delegationId": other["delegation"]["id"] });
    ada.call("cancelDelegation", "delegation { id }", id).await;
    world.settle().await;
    let change: BTreeMap<String, f64> =
        moved(&world, &before).await.into_iter().filter(|(name, _)| name.contains("delegation")).collect();
    expect(
        &change,
        &[
            ("delegation_duration_seconds_count{outcome=\"cancelled\"}", 1.0),
            ("delegation_duration_seconds_count{outcome=\"completed\"}", 1.0),
            ("delegation_steps_total{outcome=\"completed\"}", 1.0),
            ("delegation_steps_total{outcome=\"skipped\"}", 1.0),
            ("delegations_total{outcome=\"cancelled\"}", 1.0),
            ("delegations_total{outcome=\"completed\"}", 1.0),
        ],
    );
    world.check().await;
}
