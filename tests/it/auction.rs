//! Auctions: who may bid, who wins, at what price, and who sees what before the close.

use std::time::Duration;

use entity::id::AgentId;
use serde_json::{Value, json};

use crate::world::{Client, World, answering, bids, crashing};

/// A buyer with 100 credits and two sellers with an external agent each.
struct Market {
    world: World,
    ada: Client,
    bob: Client,
    cleo: Client,
    bobs: AgentId,
    cleos: AgentId,
}

impl Market {
    async fn start() -> Self {
        Self::on(World::start().await).await
    }

    async fn on(world: World) -> Self {
        let (ada, bob, cleo) = (world.user("ada").await, world.user("bob").await, world.user("cleo").await);
        world.credit(&ada, "100").await;
        let bobs = world.agent(&bob, "bobs", "EXTERNAL", "text.stats", "1").await;
        let cleos = world.agent(&cleo, "cleos", "EXTERNAL", "text.stats", "1").await;
        Self { world, ada, bob, cleo, bobs, cleos }
    }

    /// Takes some of bob's agent's reputation: it wins a task and does not start. Its score is 40.277 then.
    async fn bob_fails_once(&self) {
        let auction = self.ada.open(json!({ "closeAfterBids": 1, "startTimeout": "PT1S" })).await;
        self.bob.bid(&auction, self.bobs, "1").await;
        self.world.pass(Duration::from_secs(1)).await;
        assert_eq!(self.world.score(self.bobs).await, "40.277");
    }

    /// Lets an open auction of an hour close.
    async fn close(&self) {
        self.world.pass(Duration::from_hours(1)).await;
    }
}

fn amounts(available: &str, in_escrow: &str) -> (String, String) {
    (available.to_owned(), in_escrow.to_owned())
}

#[tokio::test]
async fn a_bid_that_may_not_stand_is_refused_with_its_reason() {
    let Market { world, ada, bob, cleo, bobs, cleos } = Market::start().await;
    let auction = ada.open(json!({ "maxPrice": "5", "startTimeout": "PT1S" })).await;
    let adas = world.agent(&ada, "adas", "EXTERNAL", "text.stats", "1").await;
    assert_eq!(ada.refused_bid(&auction, adas, "2").await, "OWN_AUCTION");
    assert_eq!(ada.refused_bid(&auction, bobs, "2").await, "NOT_FOUND");
    assert_eq!(bob.refused_bid(&auction, bobs, "5.000001").await, "PRICE_ABOVE_CEILING");
    assert_eq!(bob.refused_bid(&auction, bobs, "0.999999").await, "PRICE_BELOW_MINIMUM");
    assert_eq!(bob.refused_bid(&auction, bobs, "0").await, "INVALID_INPUT");
    assert_eq!(bob.refused_bid("auc_01h455vb4pex5vsknk084sn02q", bobs, "2").await, "NOT_FOUND");
    assert_eq!(bob.refused_bid("task_01h455vb4pex5vsknk084sn02q", bobs, "2").await, "INVALID_INPUT");
    let unskilled = world.agent(&bob, "unskilled", "EXTERNAL", "csv.summary", "1").await;
    assert_eq!(bob.refused_bid(&auction, unskilled, "2").await, "CAPABILITY_MISSING");
    let empty = world.agent(&bob, "empty", "HOSTED", "text.stats", "1").await;
    assert_eq!(bob.refused_bid(&auction, empty, "2").await, "AGENT_NOT_READY");
    for (step, undo) in [("pauseAgent", Some("resumeAgent")), ("retireAgent", None)] {
        let id = json!({ "agentId": cleos.to_string() });
        cleo.call(step, "agent { id }", id.clone()).await;
        assert_eq!(cleo.refused_bid(&auction, cleos, "2").await, "AGENT_NOT_READY");
        if let Some(undo) = undo {
            cleo.call(undo, "agent { id }", id).await;
        }
    }
    let trusted = ada.open(json!({ "minReputation": "42.51", "startTimeout": "PT1S" })).await;
    assert_eq!(bob.refused_bid(&trusted, bobs, "2").await, "REPUTATION_TOO_LOW");
    let just = ada.open(json!({ "minReputation": "42.5", "startTimeout": "PT1S" })).await;
    bob.bid(&just, bobs, "2").await;
    // The last micro-second before the close is early enough, the close is not.
    world.turn(Duration::from_hours(1) - Duration::from_micros(1));
    bob.bid(&auction, bobs, "5").await;
    world.turn(Duration::from_micros(1));
    assert_eq!(bob.refused_bid(&auction, bobs, "4").await, "AUCTION_CLOSED");
    world.settle().await;
    assert_eq!(bob.refused_bid(&auction, bobs, "4").await, "AUCTION_NOT_OPEN");
    assert_eq!(world.rows("bids").await, 2);
    world.pass(Duration::from_secs(1)).await;
    world.check().await;
}

#[tokio::test]
async fn an_auction_takes_a_bounded_number_of_bids() {
    let Market { world, ada, bob, cleo, bobs, cleos } =
        Market::on(World::with(|config| config.terms.max_bids = 1).await).await;
    let auction = ada.open(json!({})).await;
    bob.bid(&auction, bobs, "2").await;
    assert_eq!(cleo.refused_bid(&auction, cleos, "1").await, "AUCTION_FULL");
    // A new offer of the same agent is no further bid.
    bob.bid(&auction, bobs, "1.5").await;
    ada.call("cancelAuction", "auction { id }", json!({ "auctionId": auction })).await;
    world.check().await;
}

#[tokio::test]
async fn a_later_bid_of_an_agent_replaces_the_earlier_one() {
    let market = Market::start().await;
    let Market { world, ada, bob, bobs, .. } = &market;
    let auction = ada.open(json!({ "startTimeout": "PT1S" })).await;
    let first = bob.bid(&auction, *bobs, "3").await;
    let second = bob.bid(&auction, *bobs, "5").await;
    assert_ne!(first, second);
    assert_eq!(ada.auction(&auction).await["bidCount"], 1);
    let own: Vec<_> = bids(&bob.auction(&auction).await).into_iter().map(|bid| (bid.0, bid.1)).collect();
    let state = |price: &str, status: &str| (price.to_owned(), status.to_owned());
    assert_eq!(own, [state("3", "REPLACED"), state("5", "ACTIVE")]);
    assert_eq!(bob.refusal("withdrawBid", json!({ "bidId": first })).await, "BID_NOT_ACTIVE");
    // The same intent again is the same bid.
    let input = json!({ "auctionId": auction, "agentId": bobs.to_string(), "price": "4", "idempotencyKey": "k" });
    let third = bob.call("submitBid", "bid { id }", input.clone()).await;
    assert_eq!(bob.call("submitBid", "bid { id }", input).await, third);
    assert_eq!(world.rows("bids").await, 3);
    market.close().await;
    let decided = ada.auction(&auction).await;
    assert_eq!(decided["clearingPrice"], "4");
    let states: Vec<_> = bids(&decided).into_iter().map(|bid| (bid.0, bid.1)).collect();
    assert_eq!(states, [state("3", "REPLACED"), state("5", "REPLACED"), state("4", "WON")]);
    world.pass(Duration::from_secs(1)).await;
    market.world.check().await;
}

#[tokio::test]
async fn a_bidder_takes_a_bid_back_while_the_auction_is_open() {
    let Market { world, ada, bob, cleo, bobs, cleos } = Market::start().await;
    let auction = ada.open(json!({ "startTimeout": "PT1S" })).await;
    let low = bob.bid(&auction, bobs, "1").await;
    let high = cleo.bid(&auction, cleos, "9").await;
    assert_eq!(cleo.refusal("withdrawBid", json!({ "bidId": low })).await, "NOT_FOUND");
    assert_eq!(world.anonymous().fault("withdrawBid", json!({ "bidId": low })).await, "UNAUTHENTICATED");
    let back = bob.call("withdrawBid", "bid { status }", json!({ "bidId": low })).await;
    assert_eq!(back["bid"]["status"], "WITHDRAWN");
    assert_eq!(bob.refusal("withdrawBid", json!({ "bidId": low })).await, "BID_NOT_ACTIVE");
    assert_eq!(ada.auction(&auction).await["bidCount"], 1);
    world.turn(Duration::from_hours(1));
    assert_eq!(cleo.refusal("withdrawBid", json!({ "bidId": high })).await, "AUCTION_CLOSED");
    world.settle().await;
    let decided = ada.auction(&auction).await;
    assert_eq!((&decided["winningBid"]["id"], &decided["clearingPrice"]), (&json!(high), &json!("9")));
    assert_eq!(cleo.refusal("withdrawBid", json!({ "bidId": high })).await, "AUCTION_NOT_OPEN");
    world.pass(Duration::from_secs(1)).await;
    world.check().await;
}

#[tokio::test]
async fn an_auction_closes_by_time_by_number_of_bids_or_at_once() {
    let Market { world, ada, bob, cleo, bobs, cleos } = Market::start().await;
    let status = async |id: &str| ada.auction(id).await["status"].as_str().unwrap().to_owned();
    let timed = ada.open(json!({ "closesIn": "PT1M", "startTimeout": "PT1S" })).await;
    bob.bid(&timed, bobs, "2").await;
    world.pass(Duration::from_secs(59)).await;
    assert_eq!(status(&timed).await, "OPEN");
    world.pass(Duration::from_secs(1)).await;
    assert_eq!(status(&timed).await, "AWARDED");
    assert_eq!(ada.auction(&timed).await["closedAt"], "2026-11-23T12:01:00.000000Z");

    let counted = ada.open(json!({ "closeAfterBids": 2, "startTimeout": "PT1S" })).await;
    bob.bid(&counted, bobs, "3").await;
    bob.bid(&counted, bobs, "2").await;
    assert_eq!(status(&counted).await, "OPEN", "one agent counts once");
    cleo.bid(&counted, cleos, "3").await;
    assert_eq!(status(&counted).await, "AWARDED");

    let empty = ada.open(json!({ "closesIn": "PT1M" })).await;
    world.pass(Duration::from_mins(1)).await;
    assert_eq!(status(&empty).await, "EXPIRED");

    // At once there are only the agents that we host.
    let hosted = world.hosted_agent(&bob, "hosted", "text.stats", "2", answering("1")).await;
    let id = ada.execute(json!({})).await;
    let task = ada.task(&id).await;
    assert_eq!((&task["auction"]["status"], &task["agent"]["id"]), (&json!("AWARDED"), &json!(hosted.to_string())));
    world.pass(Duration::from_secs(1)).await;
    assert_eq!(ada.wallet().await, amounts("98", "0"));
    world.check().await;
}

#[tokio::test]
async fn a_requester_awards_by_hand_to_the_best_bid_or_to_a_named_one() {
    let market = Market::start().await;
    let Market { world, ada, bob, cleo, bobs, cleos } = &market;
    let manual = json!({ "awardMode": "MANUAL", "startTimeout": "PT1S", "reservePrice": "6" });
    let award = |auction: &str, bid: Option<&str>| json!({ "auctionId": auction, "bidId": bid });
    let automatic = ada.open(json!({})).await;
    assert_eq!(ada.refusal("awardAuction", award(&automatic, None)).await, "AWARD_IS_AUTOMATIC");
    ada.call("cancelAuction", "auction { id }", json!({ "auctionId": automatic })).await;

    // To the best one, before the close.
    let best = ada.open(manual.clone()).await;
    assert_eq!(ada.refusal("awardAuction", award(&best, None)).await, "NO_ELIGIBLE_BID");
    let high = cleo.bid(&best, *cleos, "7").await;
    assert_eq!(ada.refusal("awardAuction", award(&best, None)).await, "NO_ELIGIBLE_BID");
    assert_eq!(ada.refusal("awardAuction", award(&best, Some(&high))).await, "BID_NOT_ELIGIBLE");
    bob.bid(&best, *bobs, "5").await;
    assert_eq!(bob.refusal("awardAuction", award(&best, None)).await, "NOT_FOUND");
    let done = ada.call("awardAuction", "auction { status clearingPrice }", award(&best, None)).await;
    assert_eq!(done["auction"], json!({ "status": "AWARDED", "clearingPrice": "5" }));
    assert_eq!(ada.refusal("awardAuction", award(&best, None)).await, "AUCTION_NOT_OPEN");
    assert_eq!(ada.wallet().await, amounts("95", "5"));

    // To a named one, which is not the best, after the close and within the window for it.
    let named = ada.open(manual.clone()).await;
    bob.bid(&named, *bobs, "3").await;
    let dear = cleo.bid(&named, *cleos, "5.5").await;
    let withdrawn = bob.bid(&named, *bobs, "2").await;
    bob.call("withdrawBid", "bid { id }", json!({ "bidId": withdrawn })).await;
    bob.bid(&named, *bobs, "2.5").await;
    world.pass(Duration::from_hours(2)).await;
    assert_eq!(ada.auction(&named).await["status"], "OPEN");
    assert_eq!(bob.refused_bid(&named, *bobs, "2").await, "AUCTION_CLOSED");
    assert_eq!(ada.refusal("awardAuction", award(&named, Some(&withdrawn))).await, "BID_NOT_ACTIVE");
    let key = json!({ "auctionId": named, "bidId": dear, "idempotencyKey": "award" });
    for _ in 0..2 {
        let done = ada.call("awardAuction", "auction { clearingPrice winningBid { id } }", key.clone()).await;
        assert_eq!(done["auction"], json!({ "clearingPrice": "5.5", "winningBid": { "id": dear } }));
    }
    let ranks: Vec<_> = bids(&ada.auction(&named).await).into_iter().map(|bid| (bid.0, bid.1, bid.2)).collect();
    assert!(ranks.contains(&("5.5".to_owned(), "WON".to_owned(), Some(2))), "{ranks:?}");
    assert!(ranks.contains(&("2.5".to_owned(), "LOST".to_owned(), Some(1))), "{ranks:?}");
    world.pass(Duration::from_mins(1)).await;

    // One that is forgotten gives the money back a day after its close.
    let forgotten = ada.open(manual).await;
    bob.bid(&forgotten, *bobs, "3").await;
    world.pass(Duration::from_hours(25) - Duration::from_micros(1)).await;
    assert_eq!(ada.auction(&forgotten).await["status"], "OPEN");
    world.pass(Duration::from_micros(1)).await;
    assert_eq!(ada.auction(&forgotten).await["status"], "EXPIRED");
    assert_eq!(ada.wallet().await, amounts("100", "0"));
    market.world.check().await;
}

#[tokio::test]
async fn the_winner_of_a_second_price_auction_is_paid_its_critical_price() {
    let market = Market::start().await;
    let Market { ada, bob, cleo, bobs, cleos, .. } = &market;
    // Bob's price, cleo's price, whether bob bids first, the reserve, what the winner is paid.
    let equals = [
        // At 6 bob would still win the tie, as he came first; at 6 he would lose it, when he came second.
        ("4", "6", true, None, "6"),
        ("4", "6", false, None, "5.999999"),
        ("6", "4", true, None, "5.999999"),
        // Never more than the reserve; a rival above the reserve is none.
        ("4", "6", true, Some("5"), "5"),
        ("4", "6.5", true, Some("6"), "6"),
        ("4", "10", true, None, "10"),
    ];
    for (low, high, first, reserve, paid) in equals {
        let auction = ada.open(second_price(reserve)).await;
        if first {
            bob.bid(&auction, *bobs, low).await;
        }
        cleo.bid(&auction, *cleos, high).await;
        if !first {
            bob.bid(&auction, *bobs, low).await;
        }
        assert_eq!(ada.auction(&auction).await["clearingPrice"], paid, "{low} {high} {first} {reserve:?}");
        let task = ada.task_of(&auction).await;
        assert_eq!((&task["price"], &task["channel"]["deposit"]), (&json!(paid), &json!(paid)));
    }
    assert_eq!(ada.wallet().await, amounts("61.000002", "38.999998"));
    market.world.check().await;
}

fn second_price(reserve: Option<&str>) -> Value {
    json!({ "kind": "SECOND_PRICE", "reservePrice": reserve, "closeAfterBids": 2, "startTimeout": "P7D" })
}

#[tokio::test]
async fn a_better_reputation_is_worth_its_share_of_the_price() {
    let market = Market::start().await;
    let Market { ada, bob, cleo, bobs, cleos, .. } = &market;
    market.bob_fails_once().await;
    // 42.5 − 40.27 points of reputation at 60 % are worth 1.338 points of score, or 0.3345 credits of ten at 40 %.
    for (bobs_price, cleos_price, winner, paid) in [("5", "4", cleos, "5.3345"), ("3", "5", bobs, "4.665499")] {
        let auction = ada.open(second_price(None)).await;
        bob.bid(&auction, *bobs, bobs_price).await;
        cleo.bid(&auction, *cleos, cleos_price).await;
        let decided = ada.auction(&auction).await;
        assert_eq!(decided["winningBid"]["agent"]["id"], winner.to_string());
        assert_eq!(decided["clearingPrice"], paid);
    }
    // One micro-credit decides, and only where it should.
    for (cleos_price, winner) in [("4.3345", cleos), ("4.334501", bobs)] {
        let auction = ada.open(json!({ "closeAfterBids": 2, "startTimeout": "P7D" })).await;
        bob.bid(&auction, *bobs, "4").await;
        cleo.bid(&auction, *cleos, cleos_price).await;
        assert_eq!(ada.auction(&auction).await["winningBid"]["agent"]["id"], winner.to_string(), "{cleos_price}");
    }
    // The weights are the requester's, and are kept.
    for (weight, reputation_weight, winner) in [("100", "0", bobs), ("0", "100", cleos), ("33.33", "66.67", cleos)] {
        let terms = json!({ "priceWeight": weight, "closeAfterBids": 2, "startTimeout": "P7D" });
        let auction = ada.open(terms).await;
        bob.bid(&auction, *bobs, "4").await;
        cleo.bid(&auction, *cleos, "4.3").await;
        let decided = ada.auction(&auction).await;
        assert_eq!(
            (&decided["priceWeight"], &decided["reputationWeight"]),
            (&json!(weight), &json!(reputation_weight))
        );
        assert_eq!(decided["winningBid"]["agent"]["id"], winner.to_string(), "{weight}");
    }
    market.world.check().await;
}

#[tokio::test]
async fn a_hopeless_bid_does_not_change_the_winner() {
    let market = Market::start().await;
    let Market { world, ada, bob, cleo, bobs, cleos } = &market;
    market.bob_fails_once().await;
    let dora = world.user("dora").await;
    let doras = world.agent(&dora, "doras", "EXTERNAL", "text.stats", "1").await;
    let mut outcomes = Vec::new();
    for hopeless in [None, Some("10"), Some("9"), Some("4.5")] {
        let auction =
            ada.open(json!({ "closeAfterBids": 2 + i32::from(hopeless.is_some()), "startTimeout": "P7D" })).await;
        if let Some(price) = hopeless {
            dora.bid(&auction, doras, price).await;
        }
        bob.bid(&auction, *bobs, "4").await;
        cleo.bid(&auction, *cleos, "4.3").await;
        let decided = ada.auction(&auction).await;
        let scores: Vec<_> = decided["bids"]["nodes"].as_array().unwrap().iter().rev().take(2).cloned().collect();
        let scores: Vec<_> = scores.iter().map(|bid| bid["score"].clone()).collect();
        outcomes.push((decided["winningBid"]["agent"]["id"].clone(), decided["clearingPrice"].clone(), scores));
    }
    assert_eq!(outcomes[0].0, cleos.to_string());
    assert!(outcomes.iter().all(|outcome| *outcome == outcomes[0]), "{outcomes:#?}");
    market.world.check().await;
}

#[tokio::test]
async fn nobody_sees_a_sealed_bid_of_another_before_the_close() {
    let market = Market::start().await;
    let Market { world, ada, bob, cleo, bobs, cleos } = &market;
    let eve = world.user("eve").await;
    let auction = ada.open(json!({ "reservePrice": "8", "startTimeout": "P7D" })).await;
    let low = bob.bid(&auction, *bobs, "3.141592").await;
    cleo.bid(&auction, *cleos, "6").await;
    let everything = "query($auction: ID!, $bid: ID!) {
        auction(id: $auction) { bidCount reservePrice bestBid { id } winningBid { id }
            bids { totalCount nodes { id price rank score { total } } } }
        node(id: $bid) { id }
        events(filter: { auctionId: $auction }) { nodes { kind
            ... on BidEvent { bidCount price bid { id } agent { id } } } }
        market: events(first: 100) { nodes { kind ... on BidEvent { price bid { id } agent { id } } } }
    }";
    let variables = json!({ "auction": auction, "bid": low });
    let admin = world.admin().await;
    for stranger in [&eve, cleo, ada, &world.anonymous(), &admin] {
        let seen = stranger.query(everything, variables.clone()).await;
        assert!(!seen.to_string().contains("3.141592") && !seen.to_string().contains(&bobs.to_string()), "{seen:#}");
        assert!(!seen.to_string().contains(&low), "{seen:#}");
        assert_eq!((&seen["auction"]["bidCount"], &seen["auction"]["bestBid"]), (&json!(2), &Value::Null));
        let kinds = [("BID_SUBMITTED", 1), ("BID_SUBMITTED", 2)];
        let told: Vec<_> =
            seen["events"]["nodes"].as_array().unwrap().iter().filter(|it| it["kind"] == "BID_SUBMITTED").collect();
        for (event, (kind, count)) in told.iter().zip(kinds) {
            let hidden = json!({ "kind": kind, "bidCount": count, "price": null, "bid": null, "agent": null });
            assert_eq!(**event, hidden);
        }
        assert_eq!(told.len(), 2);
    }
    assert_eq!(eve.auction(&auction).await["reservePrice"], Value::Null);
    assert_eq!(bob.auction(&auction).await["reservePrice"], Value::Null);
    assert_eq!(ada.auction(&auction).await["reservePrice"], "8");
    // The bidder sees the own bid with its score, but not how it stands.
    let own = bob.auction(&auction).await;
    let score = json!({ "total": "52.933", "price": "27.433", "reputation": "25.5" });
    assert_eq!(own["bids"]["totalCount"], 1);
    assert_eq!((&own["bids"]["nodes"][0]["score"], &own["bids"]["nodes"][0]["rank"]), (&score, &Value::Null));
    market.close().await;
    let seen = eve.auction(&auction).await;
    assert_eq!((&seen["reservePrice"], &seen["bids"]["totalCount"]), (&json!("8"), &json!(2)));
    assert_eq!(seen["winningBid"]["id"], low);
    market.world.check().await;
}

#[tokio::test]
async fn everybody_sees_how_the_bids_of_an_open_auction_stand() {
    let market = Market::start().await;
    let Market { world, ada, bob, cleo, bobs, cleos } = &market;
    market.bob_fails_once().await;
    let auction = ada.open(json!({ "visibility": "OPEN", "startTimeout": "P7D" })).await;
    bob.bid(&auction, *bobs, "4").await;
    let best = cleo.bid(&auction, *cleos, "4.3").await;
    let seen = world.anonymous().auction(&auction).await;
    let row =
        |price: &str, rank, score: &str| (price.to_owned(), "ACTIVE".to_owned(), Some(rank), Some(score.to_owned()));
    assert_eq!(bids(&seen), [row("4", 2, "48.162"), row("4.3", 1, "48.3")]);
    assert_eq!(seen["bestBid"]["id"], best);
    let events = "query($id: ID!) { events(filter: { auctionId: $id }) { nodes {
        ... on BidEvent { price bidCount agent { id } bid { id rank } } } } }";
    let told = world.anonymous().query(events, json!({ "id": auction })).await["events"]["nodes"].take();
    let last = json!({ "price": "4.3", "bidCount": 2, "agent": { "id": cleos.to_string() }, "bid": { "id": best, "rank": 1 } });
    assert_eq!(told.as_array().unwrap().last().unwrap(), &last);
    // A better offer changes the places at once.
    let better = bob.bid(&auction, *bobs, "3.9").await;
    let seen = world.anonymous().auction(&auction).await;
    assert_eq!(seen["bestBid"]["id"], better);
    assert_eq!(bids(&seen)[1..], [row("4.3", 2, "48.3"), row("3.9", 1, "48.562")]);
    market.world.check().await;
}

#[tokio::test]
async fn a_price_above_the_reserve_never_wins() {
    let market = Market::start().await;
    let Market { world, ada, bob, cleo, bobs, cleos } = &market;
    let auction = ada.open(json!({ "reservePrice": "3", "startTimeout": "P7D" })).await;
    bob.bid(&auction, *bobs, "3.000001").await;
    market.close().await;
    assert_eq!(ada.auction(&auction).await["status"], "EXPIRED");
    assert_eq!(ada.task_of(&auction).await["failureCode"], "NO_ELIGIBLE_BID");
    assert_eq!(bids(&ada.auction(&auction).await)[0].1, "INELIGIBLE");
    assert_eq!(ada.wallet().await, amounts("100", "0"));
    let auction = ada.open(json!({ "reservePrice": "3", "startTimeout": "P7D" })).await;
    bob.bid(&auction, *bobs, "3.000001").await;
    cleo.bid(&auction, *cleos, "3").await;
    market.close().await;
    let decided = ada.auction(&auction).await;
    assert_eq!(decided["clearingPrice"], "3");
    let states: Vec<_> = bids(&decided).into_iter().map(|bid| (bid.1, bid.2)).collect();
    assert_eq!(states, [("INELIGIBLE".to_owned(), None), ("WON".to_owned(), Some(1))]);
    world.settle().await;
    market.world.check().await;
}

#[tokio::test]
async fn an_agent_must_still_qualify_at_the_close() {
    let market = Market::start().await;
    let Market { world, ada, bob, cleo, bobs, cleos } = &market;
    let dora = world.user("dora").await;
    let doras = world.agent(&dora, "doras", "EXTERNAL", "text.stats", "1").await;
    let auction = ada.open(json!({ "minReputation": "41", "startTimeout": "P7D" })).await;
    bob.bid(&auction, *bobs, "1").await;
    cleo.bid(&auction, *cleos, "2").await;
    dora.bid(&auction, doras, "9").await;
    // Bob's agent loses reputation, cleo's stops working.
    market.bob_fails_once().await;
    cleo.call("pauseAgent", "agent { id }", json!({ "agentId": cleos.to_string() })).await;
    market.close().await;
    let decided = ada.auction(&auction).await;
    let states: Vec<_> = bids(&decided).into_iter().map(|bid| (bid.0, bid.1)).collect();
    let state = |price: &str, status: &str| (price.to_owned(), status.to_owned());
    assert_eq!(states, [state("1", "INELIGIBLE"), state("2", "INELIGIBLE"), state("9", "WON")]);
    market.world.check().await;
}

#[tokio::test]
async fn a_late_bid_moves_the_close_of_an_open_auction_so_many_times() {
    let market = Market::on(World::with(|config| config.terms.max_extensions = 2).await).await;
    let Market { world, ada, bob, cleo, bobs, cleos } = &market;
    let terms = json!({ "visibility": "OPEN", "softClose": "PT2M", "closesIn": "PT10M", "startTimeout": "P7D" });
    let auction = ada.open(terms).await;
    let closes = async || {
        let seen = ada.auction(&auction).await;
        (seen["closesAt"].as_str().unwrap()[11..19].to_owned(), seen["extensions"].as_i64().unwrap())
    };
    world.pass(Duration::from_mins(8)).await;
    bob.bid(&auction, *bobs, "5").await;
    assert_eq!(closes().await, ("12:10:00".to_owned(), 0), "just early enough");
    world.pass(Duration::from_secs(90)).await;
    cleo.bid(&auction, *cleos, "4").await;
    assert_eq!(closes().await, ("12:11:30".to_owned(), 1));
    world.pass(Duration::from_mins(1)).await;
    assert_eq!(ada.auction(&auction).await["status"], "OPEN");
    bob.bid(&auction, *bobs, "3").await;
    assert_eq!(closes().await, ("12:12:30".to_owned(), 2));
    world.pass(Duration::from_secs(90)).await;
    cleo.bid(&auction, *cleos, "2").await;
    assert_eq!(closes().await, ("12:12:30".to_owned(), 2), "it ends some time");
    world.pass(Duration::from_secs(30)).await;
    assert_eq!(ada.auction(&auction).await["clearingPrice"], "2");
    market.world.check().await;
}

#[tokio::test]
async fn a_simulated_auction_comes_out_as_the_real_one_and_leaves_nothing() {
    let market = Market::start().await;
    let Market { world, ada, bob, cleo, bobs, cleos } = &market;
    market.bob_fails_once().await;
    world.credit(ada, "100").await;
    let dora = world.user("dora").await;
    let doras = world.agent(&dora, "doras", "EXTERNAL", "text.stats", "1").await;
    let document = "query($input: SimulateAuctionInput!) { simulateAuction(input: $input) {
        clearingPrice winner { index } bids { index price rank score { total price reputation } } } }";
    let prices = [["4", "4.3", "4.3"], ["4.2", "5", "8"], ["9", "7", "6.5"], ["3", "3.334501", "10"]];
    for (kind, weight, reserve) in
        [("FIRST_PRICE", "40", None), ("SECOND_PRICE", "40", None), ("SECOND_PRICE", "75.5", Some("7"))]
    {
        for [bobs_price, cleos_price, doras_price] in prices {
            let terms = json!({ "kind": kind, "priceWeight": weight, "reservePrice": reserve, "closeAfterBids": 3,
                "startTimeout": "P7D" });
            let auction = ada.open(terms).await;
            bob.bid(&auction, *bobs, bobs_price).await;
            cleo.bid(&auction, *cleos, cleos_price).await;
            dora.bid(&auction, doras, doras_price).await;
            let real = ada.auction(&auction).await;
            let rows = (world.rows("auctions").await, world.rows("bids").await, world.rows("events").await);
            let input = json!({ "budget": "10", "kind": kind, "priceWeight": weight, "reservePrice": reserve, "bids": [
                { "price": bobs_price, "reputation": "40.277" },
                { "price": cleos_price, "reputation": "42.5" },
                { "price": doras_price, "reputation": "42.5" },
            ] });
            let simulated =
                world.anonymous().query(document, json!({ "input": input })).await["simulateAuction"].take();
            assert_eq!((world.rows("auctions").await, world.rows("bids").await, world.rows("events").await), rows);
            assert_eq!(simulated["clearingPrice"], real["clearingPrice"], "{kind} {bobs_price}");
            let nodes = real["bids"]["nodes"].as_array().unwrap();
            let won = nodes.iter().position(|bid| bid["status"] == "WON").unwrap();
            assert_eq!(simulated["winner"]["index"], won);
            for bid in simulated["bids"].as_array().unwrap() {
                let real = &nodes[usize::try_from(bid["index"].as_u64().unwrap()).unwrap()];
                for field in ["price", "rank", "score"] {
                    assert_eq!(bid[field], real[field], "{kind} {field}");
                }
            }
        }
    }
    market.world.check().await;
}

#[tokio::test]
async fn nonsense_is_not_simulated() {
    let world = World::start().await;
    let document = "query($input: SimulateAuctionInput!) { simulateAuction(input: $input) { clearingPrice } }";
    let bid = json!({ "price": "1", "reputation": 50 });
    for input in [
        json!({ "budget": "0", "bids": [bid] }),
        json!({ "budget": "1", "bids": [] }),
        json!({ "budget": "0.5", "bids": [bid] }),
        json!({ "budget": "1", "bids": [{ "price": "0", "reputation": 50 }] }),
        json!({ "budget": "1", "bids": [{ "price": "1", "reputation": 101 }] }),
        json!({ "budget": "1", "bids": vec![bid; 101] }),
    ] {
        assert_eq!(world.anonymous().error(document, json!({ "input": input })).await, "BAD_USER_INPUT", "{input}");
    }
    world.check().await;
}

#[tokio::test]
async fn hosted_agents_bid_by_themselves_at_their_posted_price_or_at_the_ceiling() {
    let world = World::with(|config| config.terms.max_auto_bids = 3).await;
    let (ada, bob) = (world.user("ada").await, world.user("bob").await);
    world.credit(&ada, "100").await;
    let posted = async |name: &str, price: &str, least: &str| {
        let input =
            json!({ "name": name, "capabilities": ["oracle"], "runtime": "HOSTED", "price": price, "minPrice": least });
        let agent = bob.call("registerAgent", "agent { id }", input).await["agent"]["id"].as_str().unwrap().to_owned();
        assert_eq!(bob.upload(&agent, answering("1")).await.status, 200);
    };
    posted("cheap", "2", "2").await;
    posted("flexible", "7", "4").await;
    posted("stubborn", "7", "6").await;
    posted("dear", "4.5", "4.5").await;
    posted("dearest", "4.9", "4.9").await;
    let id = ada.execute(json!({ "capabilities": ["oracle"], "maxPrice": "5" })).await;
    let task = ada.task(&id).await;
    let auction = ada.auction(task["auction"]["id"].as_str().unwrap()).await;
    let bid: Vec<_> = bids(&auction).into_iter().map(|bid| (bid.0, bid.1)).collect();
    let state = |price: &str, status: &str| (price.to_owned(), status.to_owned());
    assert_eq!(bid, [state("2", "WON"), state("4.5", "LOST"), state("4.9", "LOST")], "the three best of four");
    let id = ada.execute(json!({ "capabilities": ["oracle"], "maxPrice": "4" })).await;
    let task = ada.task(&id).await;
    let auction = ada.auction(task["auction"]["id"].as_str().unwrap()).await;
    let bid: Vec<_> = bids(&auction).into_iter().map(|bid| (bid.0, bid.1)).collect();
    assert_eq!(bid, [state("2", "WON"), state("4", "LOST")], "who works for the ceiling bids it");
    world.settle().await;
    assert_eq!(ada.wallet().await, amounts("96", "0"));
    world.check().await;
}

#[tokio::test]
async fn hosted_and_external_agents_compete_in_one_auction() {
    let market = Market::start().await;
    let Market { world, ada, bob, cleo, cleos, .. } = &market;
    let broken = world.hosted_agent(bob, "broken", "text.stats", "5", crashing()).await;
    let auction = ada.open(json!({ "startTimeout": "P7D" })).await;
    assert_eq!(ada.auction(&auction).await["bidCount"], 1, "it bids when the auction opens");
    // Its owner may better the offer by hand.
    bob.bid(&auction, broken, "5.5").await;
    cleo.bid(&auction, *cleos, "6").await;
    market.close().await;
    let task = ada.task_of(&auction).await;
    assert_eq!(
        (&task["status"], &task["price"], &task["failureCode"]),
        (&json!("REFUNDED"), &json!("5.5"), &json!("TRAP"))
    );
    assert_eq!(ada.wallet().await, amounts("100", "0"));
    market.world.check().await;
}

#[tokio::test]
async fn auctions_are_listed_by_state_kind_requester_and_budget() {
    let market = Market::start().await;
    let Market { ada, bob, .. } = &market;
    for (budget, kind) in [("1", "FIRST_PRICE"), ("2", "SECOND_PRICE"), ("3", "FIRST_PRICE")] {
        ada.open(json!({ "budget": budget, "kind": kind })).await;
    }
    let document = "query($filter: AuctionFilter, $order: AuctionOrder) {
        auctions(filter: $filter, orderBy: $order) { totalCount nodes { budget } } }";
    let budgets = async |filter: Value, order: Value| {
        let found = bob.query(document, json!({ "filter": filter, "order": order })).await["auctions"].take();
        found["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["budget"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let by = |field: &str, direction: &str| json!({ "field": field, "direction": direction });
    assert_eq!(budgets(Value::Null, Value::Null).await, ["3", "2", "1"]);
    assert_eq!(budgets(Value::Null, by("BUDGET", "ASC")).await, ["1", "2", "3"]);
    assert_eq!(budgets(json!({ "kind": "FIRST_PRICE" }), by("CREATED_AT", "ASC")).await, ["1", "3"]);
    assert_eq!(budgets(json!({ "minBudget": "2", "maxBudget": "2" }), Value::Null).await, ["2"]);
    assert_eq!(budgets(json!({ "requesterId": bob.id() }), Value::Null).await, [""; 0]);
    assert_eq!(budgets(json!({ "status": ["AWARDED"] }), Value::Null).await, [""; 0]);
    market.world.check().await;
}

#[tokio::test]
async fn awards_that_arrive_together_award_once() {
    let market = Market::start().await;
    let Market { world, ada, bob, cleo, bobs, cleos } = &market;
    let auction = ada.open(json!({ "awardMode": "MANUAL", "startTimeout": "P7D" })).await;
    let bids = [bob.bid(&auction, *bobs, "3").await, cleo.bid(&auction, *cleos, "4").await];
    let document =
        "mutation($input: AwardAuctionInput!) { awardAuction(input: $input) { auction { id } userErrors { code } } }";
    let input = |number: usize| json!({ "auctionId": auction, "bidId": bids[number % 2], "idempotencyKey": format!("a{number}") });
    let all = (0..6).map(|number| ada.query(document, json!({ "input": input(number) })));
    let all = futures_util::future::join_all(all).await;
    let done = all.iter().filter(|one| one["awardAuction"]["auction"].is_object()).count();
    let refused = json!([{ "code": "AUCTION_NOT_OPEN" }]);
    let late = all.iter().filter(|one| one["awardAuction"]["userErrors"] == refused).count();
    assert_eq!((done, late), (1, 5), "{all:#?}");
    let paid = ada.auction(&auction).await["clearingPrice"].as_str().unwrap().to_owned();
    assert!(["3", "4"].contains(&paid.as_str()));
    assert_eq!(ada.wallet().await.1, paid);
    assert_eq!(world.rows("channels").await, 1);
    market.world.check().await;
}

#[tokio::test]
async fn an_award_and_a_cancellation_that_arrive_together_have_one_outcome() {
    let market = Market::start().await;
    let Market { ada, bob, bobs, .. } = &market;
    for number in 0..6 {
        let auction = ada.open(json!({ "budget": "3", "awardMode": "MANUAL", "startTimeout": "P7D" })).await;
        bob.bid(&auction, *bobs, "1").await;
        let award = "mutation($input: AwardAuctionInput!) { it: awardAuction(input: $input) { userErrors { code } } }";
        let cancel =
            "mutation($input: CancelAuctionInput!) { it: cancelAuction(input: $input) { userErrors { code } } }";
        let award =
            ada.query(award, json!({ "input": { "auctionId": auction, "idempotencyKey": format!("w{number}") } }));
        let cancel =
            ada.query(cancel, json!({ "input": { "auctionId": auction, "idempotencyKey": format!("c{number}") } }));
        let (awarded, cancelled) = tokio::join!(award, cancel);
        let outcome = (&awarded["it"]["userErrors"], &cancelled["it"]["userErrors"]);
        let status = ada.auction(&auction).await["status"].as_str().unwrap().to_owned();
        match status.as_str() {
            "AWARDED" => assert_eq!(outcome, (&json!([]), &json!([{ "code": "TASK_NOT_OPEN" }]))),
            "CANCELLED" => assert_eq!(outcome, (&json!([{ "code": "AUCTION_NOT_OPEN" }]), &json!([]))),
            other => panic!("{other}: {outcome:?}"),
        }
    }
    market.world.check().await;
}

#[tokio::test]
async fn bidders_who_come_together_at_the_last_place_are_one_winner_and_the_rest_too_late() {
    let world = World::start().await;
    let ada = world.user("ada").await;
    world.credit(&ada, "10").await;
    let auction = ada.open(json!({ "closeAfterBids": 4, "startTimeout": "P7D" })).await;
    let mut bidders = Vec::new();
    for number in 0..12 {
        let who = world.user(&format!("bidder{number}")).await;
        let agent = world.agent(&who, "agent", "EXTERNAL", "text.stats", "1").await;
        let input = json!({ "auctionId": auction, "agentId": agent.to_string(), "price": format!("{}", 9 - number % 5),
            "idempotencyKey": "b" });
        bidders.push((who, input));
    }
    let document =
        "mutation($input: SubmitBidInput!) { submitBid(input: $input) { bid { status } userErrors { code } } }";
    let all = bidders.iter().map(|(who, input)| who.query(document, json!({ "input": input })));
    let all = futures_util::future::join_all(all).await;
    let refused = json!([{ "code": "AUCTION_NOT_OPEN" }]);
    let late = all.iter().filter(|one| one["submitBid"]["userErrors"] == refused).count();
    let taken = all.iter().filter(|one| one["submitBid"]["bid"].is_object()).count();
    assert_eq!((taken, late), (4, 8), "{all:#?}");
    let decided = ada.auction(&auction).await;
    assert_eq!((&decided["status"], &decided["bidCount"]), (&json!("AWARDED"), &json!(4)));
    let seen = bids(&decided);
    let cheapest = seen.iter().map(|bid| bid.0.clone()).min().unwrap();
    assert_eq!(decided["clearingPrice"], cheapest);
    assert_eq!(seen.iter().filter(|bid| bid.1 == "WON").count(), 1);
    assert_eq!(ada.wallet().await.1, cheapest);
    world.check().await;
}
