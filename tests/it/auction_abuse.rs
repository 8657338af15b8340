//! What somebody might try in an auction, each story named after its case. Those about commitments and bonds are in
//! `commit_reveal.rs`.

use std::{collections::BTreeSet, time::Duration};

use entity::id::AgentId;
use futures_util::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use serde_json::{Value, json};

use crate::world::{Client, World, bids, fresh_key};

const BID: &str =
    "mutation($input: SubmitBidInput!) { it: submitBid(input: $input) { bid { id } userErrors { code } } }";
const AWARD: &str =
    "mutation($input: AwardAuctionInput!) { it: awardAuction(input: $input) { auction { id } userErrors { code } } }";
const CANCEL: &str =
    "mutation($input: CancelAuctionInput!) { it: cancelAuction(input: $input) { auction { id } userErrors { code } } }";
const SIMULATE: &str =
    "query($input: SimulateAuctionInput!) { simulateAuction(input: $input) { clearingPrice winner { index } } }";

/// A buyer with 1,000 credits and so many sellers with an external agent each.
async fn market(sellers: usize) -> (World, Client, Vec<(Client, AgentId)>) {
    let world = World::start().await;
    let ada = world.user("ada").await;
    world.credit(&ada, "1000").await;
    let mut all = Vec::new();
    for number in 0..sellers {
        let seller = world.user(&format!("seller{number}")).await;
        let agent = world.agent(&seller, "agent", "EXTERNAL", "text.stats", "1").await;
        all.push((seller, agent));
    }
    (world, ada, all)
}

async fn simulated(world: &World, input: Value) -> Value {
    world.anonymous().query(SIMULATE, json!({ "input": input })).await["simulateAuction"].take()
}

#[tokio::test]
async fn a_buyer_cannot_shill_with_agents_of_its_own() {
    let (world, ada, sellers) = market(1).await;
    let (bob, bobs) = &sellers[0];
    let external = world.agent(&ada, "mine", "EXTERNAL", "text.stats", "1").await;
    let hosted = world.hosted_agent(&ada, "hosted", "text.stats", "1", crate::world::answering("1")).await;
    let auction = ada.open(json!({ "kind": "SECOND_PRICE", "startTimeout": "P7D" })).await;
    assert_eq!(ada.auction(&auction).await["bidCount"], 0, "one's own hosted agent does not bid by itself");
    for own in [external, hosted] {
        assert_eq!(ada.refused_bid(&auction, own, "3.1").await, "OWN_AUCTION");
    }
    // Nor through a key that is bound to the agent.
    let input = json!({ "name": "k", "scopes": ["READ", "BIDS_WRITE"], "agentId": external.to_string() });
    let key = ada.call("createApiKey", "secret", input).await["secret"].as_str().unwrap().to_owned();
    assert_eq!(ada.with_token(&key).refused_bid(&auction, external, "3.1").await, "OWN_AUCTION");
    bob.bid(&auction, *bobs, "3").await;
    world.pass(Duration::from_hours(1)).await;
    assert_eq!(ada.auction(&auction).await["clearingPrice"], "10", "nobody pressed the price");
    world.check().await;
}

#[tokio::test]
async fn a_bid_at_or_after_the_close_is_refused_even_before_anybody_closed() {
    let (world, ada, sellers) = market(2).await;
    for visibility in ["SEALED", "OPEN"] {
        let auction = ada.open(json!({ "visibility": visibility, "closesIn": "PT10S", "startTimeout": "P7D" })).await;
        sellers[0].0.bid(&auction, sellers[0].1, "3").await;
        world.turn(Duration::from_secs(10));
        assert_eq!(sellers[1].0.refused_bid(&auction, sellers[1].1, "2").await, "AUCTION_CLOSED");
        world.turn(Duration::from_hours(1));
        assert_eq!(sellers[1].0.refused_bid(&auction, sellers[1].1, "2").await, "AUCTION_CLOSED");
        world.settle().await;
        assert_eq!(ada.auction(&auction).await["clearingPrice"], "3");
    }
    world.check().await;
}

#[tokio::test]
async fn a_bid_for_an_agent_of_somebody_else_is_refused_as_if_there_were_none() {
    let (world, ada, sellers) = market(2).await;
    let auction = ada.open(json!({})).await;
    let ((bob, bobs), (eve, eves)) = (&sellers[0], &sellers[1]);
    assert_eq!(eve.refused_bid(&auction, *bobs, "9").await, "NOT_FOUND");
    // A key of bob's other agent does not reach this one.
    let other = world.agent(bob, "other", "EXTERNAL", "text.stats", "1").await;
    let input = json!({ "name": "k", "scopes": ["BIDS_WRITE"], "agentId": other.to_string() });
    let key = bob.call("createApiKey", "secret", input).await["secret"].as_str().unwrap().to_owned();
    assert_eq!(bob.with_token(&key).refused_bid(&auction, *bobs, "9").await, "NOT_FOUND");
    bob.with_token(&key).bid(&auction, other, "9").await;
    let bid = bob.bid(&auction, *bobs, "2").await;
    assert_eq!(eve.refusal("withdrawBid", json!({ "bidId": bid })).await, "NOT_FOUND");
    eve.bid(&auction, *eves, "3").await;
    assert_eq!(world.rows("bids").await, 3);
    ada.call("cancelAuction", "auction { id }", json!({ "auctionId": auction })).await;
    world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn duplicate_bids_of_an_agent_that_arrive_together_leave_one_that_stands() {
    let (world, ada, sellers) = market(1).await;
    let (bob, bobs) = &sellers[0];
    let auction = ada.open(json!({ "startTimeout": "P7D" })).await;
    let all = (0..24).map(|number| {
        let input = json!({ "auctionId": auction, "agentId": bobs.to_string(), "price": format!("{}", 2 + number % 7),
            "idempotencyKey": fresh_key() });
        bob.query(BID, json!({ "input": input }))
    });
    let all = join_all(all).await;
    assert!(all.iter().all(|one| one["it"]["bid"].is_object()), "{all:#?}");
    let seen = bob.auction(&auction).await;
    let standing: Vec<_> = bids(&seen).into_iter().filter(|bid| bid.1 == "ACTIVE").collect();
    assert_eq!((standing.len(), &seen["bidCount"]), (1, &json!(1)));
    let places: BTreeSet<i64> =
        seen["bids"]["nodes"].as_array().unwrap().iter().map(|bid| bid["sequence"].as_i64().unwrap()).collect();
    assert_eq!(places, (1..=24).collect(), "each has a place of its own");
    world.pass(Duration::from_hours(1)).await;
    assert_eq!(ada.auction(&auction).await["clearingPrice"], standing[0].0);
    world.check().await;
}

#[tokio::test]
async fn a_price_that_is_no_price_is_no_bid() {
    let (world, ada, sellers) = market(1).await;
    let (bob, bobs) = &sellers[0];
    let auction = ada.open(json!({})).await;
    let input = |price: Value| json!({ "input": { "auctionId": auction, "agentId": bobs.to_string(), "price": price, "idempotencyKey": fresh_key() } });
    for price in [
        json!("-1"),
        json!("01"),
        json!("+1"),
        json!(""),
        json!(" 1"),
        json!("1e3"),
        json!("1."),
        json!(".5"),
        json!("1,5"),
        json!("NaN"),
        json!("1.0000001"),
        json!("99999999999999999999"),
        json!(1),
        json!(0.5),
        json!(null),
        json!("٣"),
    ] {
        assert!(bob.try_query(BID, input(price.clone())).await.is_err(), "{price}");
    }
    let refused = bob.query(BID, input(json!("0"))).await["it"]["userErrors"].take();
    assert_eq!(refused, json!([{ "code": "INVALID_INPUT" }]));
    assert_eq!(bob.refused_bid(&auction, *bobs, "0.999999").await, "PRICE_BELOW_MINIMUM");
    assert_eq!(bob.refused_bid(&auction, *bobs, "10.000001").await, "PRICE_ABOVE_CEILING");
    assert_eq!(bob.refused_bid(&auction, *bobs, "1000000000").await, "PRICE_ABOVE_CEILING");
    assert_eq!(world.rows("bids").await, 0);
    ada.call("cancelAuction", "auction { id }", json!({ "auctionId": auction })).await;
    world.check().await;
}

#[tokio::test]
async fn the_examples_in_which_a_hopeless_bid_elects_another_winner_do_not_do_so_here() {
    let world = World::start().await;
    let winner = async |budget: &str, bids: &[(&str, i32)]| {
        let bids: Vec<Value> =
            bids.iter().map(|(price, score)| json!({ "price": price, "reputation": score })).collect();
        simulated(&world, json!({ "budget": budget, "bids": bids })).await["winner"]["index"].as_i64().unwrap()
    };
    // Prices measured from the lowest to the highest bid: the third one, dear and bad, would elect the second.
    let without = winner("400", &[("60", 80), ("80", 92)]).await;
    assert_eq!(winner("400", &[("60", 80), ("80", 92), ("400", 5)]).await, without);
    // Prices measured against the lowest one: the third, cheap and worthless, would elect the second.
    let without = winner("100", &[("50", 70), ("70", 85)]).await;
    assert_eq!(winner("100", &[("50", 70), ("70", 85), ("20", 0)]).await, without);
    world.check().await;
}

#[tokio::test]
async fn a_winner_is_never_paid_less_than_it_asked() {
    let world = World::start().await;
    for (own, rival, score) in
        [("4", "4", 50), ("4", "4.000001", 50), ("9.999999", "10", 90), ("0.000001", "0.000001", 1)]
    {
        for weight in ["0", "0.01", "40", "100"] {
            let bids = json!([{ "price": own, "reputation": score }, { "price": rival, "reputation": score }]);
            let input = json!({ "budget": "10", "kind": "SECOND_PRICE", "priceWeight": weight, "bids": bids });
            let done = simulated(&world, input).await;
            let micros = |text: &str| text.parse::<entity::money::Amount>().unwrap();
            assert_eq!(done["winner"]["index"], 0);
            assert!(micros(done["clearingPrice"].as_str().unwrap()) >= micros(own), "{own} {rival} {weight}: {done}");
        }
    }
    world.check().await;
}

#[tokio::test]
async fn the_last_second_moves_the_close_only_so_often() {
    let (world, ada, sellers) = market(2).await;
    let terms = json!({ "visibility": "OPEN", "softClose": "PT10S", "closesIn": "PT1M", "startTimeout": "P7D" });
    let auction = ada.open(terms).await;
    world.pass(Duration::from_millis(59_999)).await;
    let mut extended = 0;
    for number in 0..40 {
        let (seller, agent) = &sellers[number % 2];
        let input = json!({ "auctionId": auction, "agentId": agent.to_string(), "price": format!("{}", 9 - number % 8),
            "idempotencyKey": fresh_key() });
        if seller.query(BID, json!({ "input": input })).await["it"]["bid"].is_null() {
            break;
        }
        extended = ada.auction(&auction).await["extensions"].as_i64().unwrap();
        world.turn(Duration::from_millis(9_999));
    }
    world.settle().await;
    assert_eq!(extended, 10);
    assert_eq!(ada.auction(&auction).await["status"], "AWARDED");
    assert!(world.now() < crate::world::DAWN.after(Duration::from_mins(3)), "it ends some time");
    world.check().await;
}

#[tokio::test]
async fn a_price_below_cost_wins_and_binds() {
    let (world, ada, sellers) = market(2).await;
    let auction = ada.open(json!({ "startTimeout": "PT1S" })).await;
    sellers[0].0.bid(&auction, sellers[0].1, "1").await;
    sellers[1].0.bid(&auction, sellers[1].1, "9").await;
    world.pass(Duration::from_hours(1)).await;
    // Who underbids and does not work loses reputation; the next one does it at its own price.
    world.pass(Duration::from_secs(1)).await;
    assert_eq!(ada.task_of(&auction).await["price"], "9");
    assert_eq!(world.score(sellers[0].1).await, "40.277");
    world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_ways_into_one_auction_have_one_outcome() {
    const WAYS: usize = 64;
    let (world, ada, sellers) = market(WAYS / 4).await;
    let mut outcomes = BTreeSet::new();
    for round in 0..6 {
        let bond = (round % 2 == 1).then_some("1");
        let terms = json!({ "awardMode": "MANUAL", "closesIn": "PT60S", "startTimeout": "P7D", "bidBond": bond });
        let auction = ada.open(terms).await;
        for (seller, _) in &sellers {
            world.credit(seller, "1").await;
        }
        sellers[0].0.bid(&auction, sellers[0].1, "9").await;
        world.turn(Duration::from_millis(59_999));
        let mut ways: Vec<BoxFuture<'_, Value>> = Vec::new();
        for (number, (seller, agent)) in sellers.iter().enumerate() {
            for price in ["5", "4"] {
                let bid = json!({ "input": { "auctionId": auction, "agentId": agent.to_string(),
                    "price": format!("{price}.{number:02}"), "idempotencyKey": fresh_key() } });
                ways.push(async { seller.query(BID, bid).await["it"].take() }.boxed());
            }
            let award = json!({ "input": { "auctionId": auction, "idempotencyKey": fresh_key() } });
            let cancel = json!({ "input": { "auctionId": auction, "idempotencyKey": fresh_key() } });
            let close = async {
                world.turn(Duration::from_micros(100));
                world.app.sweep_once().await.unwrap();
                Value::Null
            };
            match (number + round) % 4 {
                0 | 1 => ways.push(async { ada.query(AWARD, award).await["it"].take() }.boxed()),
                2 => ways.push(async { ada.query(CANCEL, cancel).await["it"].take() }.boxed()),
                _ => ways.push(close.boxed()),
            }
            let other = json!({ "input": { "auctionId": auction, "idempotencyKey": fresh_key() } });
            ways.push(async { ada.query(AWARD, other).await["it"].take() }.boxed());
        }
        // Each round starts them in another order.
        ways.rotate_left(round * 11);
        assert_eq!(ways.len(), WAYS);
        let all = join_all(ways).await;
        world.settle().await;
        let ended: Vec<&Value> = all.iter().filter(|one| one["auction"].is_object()).collect();
        let seen = ada.auction(&auction).await;
        let status = seen["status"].as_str().unwrap().to_owned();
        assert_eq!(ended.len(), 1, "one award or one cancellation: {all:#?}");
        let won = bids(&seen).iter().filter(|bid| bid.1 == "WON").count();
        let active = bids(&seen).iter().filter(|bid| bid.1 == "ACTIVE").count();
        assert_eq!((active, won), (0, usize::from(status == "AWARDED")), "{seen:#}");
        for one in &all {
            if let Some(code) = one["userErrors"][0]["code"].as_str() {
                assert!(["AUCTION_NOT_OPEN", "AUCTION_CLOSED", "TASK_NOT_OPEN"].contains(&code), "{code}");
            }
        }
        let taken = all.iter().filter(|one| one["bid"].is_object()).count() + 1;
        assert_eq!(bids(&seen).len(), taken, "admitted means stored");
        outcomes.insert(status);
    }
    assert!(outcomes.contains("AWARDED"), "{outcomes:?}");
    world.check().await;
}
