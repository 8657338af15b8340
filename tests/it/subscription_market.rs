//! Watching the market: every step reaches those whom it concerns, in order, once, and nobody else.

use std::time::Duration;

use serde_json::{Value, json};

use crate::world::{Client, Stream, World, crashing, echoing};

const AUCTION: &str = "subscription($id: ID!, $after: EventCursor) { auctionEvents(auctionId: $id, after: $after) {
    id cursor kind occurredAt ... on BidEvent { bidCount price agent { name } }
    ... on AuctionEvent { bidCount amount reason agent { name } }
} }";
const TASK: &str = "subscription($id: ID!, $after: EventCursor) { taskEvents(taskId: $id, after: $after) {
    id cursor kind occurredAt ... on TaskEvent { amount fee returned attempt reason agent { name } }
    ... on ChannelEvent { amount returned reason }
} }";
const MARKET: &str = "subscription($filter: MarketEventFilter, $after: EventCursor) {
    marketEvents(filter: $filter, after: $after) { id cursor kind occurredAt } }";
const SETTLEMENTS: &str = "subscription($after: EventCursor) { settlementEvents(after: $after) {
    id cursor kind ... on TaskEvent { amount returned } ... on ChannelEvent { amount returned } ... on CreditsEvent { amount }
} }";
const REPUTATION: &str = "subscription($id: ID!, $after: EventCursor) { reputationEvents(agentId: $id, after: $after) {
    id cursor kind ... on ReputationChangedEvent { agentId scoreBefore scoreAfter reason } } }";

/// A buyer with 100 credits and a seller.
async fn market(world: &World) -> (Client, Client) {
    let (ada, bob) = (world.user("ada").await, world.user("bob").await);
    world.credit(&ada, "100").await;
    (ada, bob)
}

/// The next `count` events of a stream.
async fn take(stream: &mut Stream, field: &str, count: usize) -> Vec<Value> {
    let mut events = Vec::new();
    for _ in 0..count {
        events.push(stream.next().await[field].take());
    }
    events
}

/// The events of a stream up to the one that completes it.
async fn take_all(stream: &mut Stream, field: &str) -> Vec<Value> {
    let mut events = Vec::new();
    loop {
        let message = stream.socket().message().await;
        if message["type"] == "complete" {
            return events;
        }
        assert_eq!(message["type"], "next", "{message:#}");
        assert!(message["payload"]["errors"].is_null(), "{message:#}");
        events.push(message["payload"]["data"][field].clone());
    }
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["kind"].as_str().unwrap()).collect()
}

/// Nothing more comes.
async fn assert_silent(stream: &mut Stream) {
    let more = stream.next_within(Duration::from_millis(300)).await;
    assert_eq!(more, None);
}

#[tokio::test]
async fn a_buyer_watches_a_task_from_its_posting_to_its_payment() {
    let world = World::start().await;
    let (ada, bob) = market(&world).await;
    world.hosted_agent(&bob, "echo", "echo", "2", echoing()).await;
    let start = world.cursor().await;
    let id = ada.execute(json!({ "capabilities": ["echo"] })).await;
    let mut stream = ada.subscribe(TASK, json!({ "id": id, "after": start })).await;
    world.settle().await;
    let events = take_all(&mut stream, "taskEvents").await;
    let steps = [
        "TASK_POSTED",
        "AUCTION_OPENED",
        "BID_SUBMITTED",
        "AUCTION_AWARDED",
        "CHANNEL_OPENED",
        "TASK_STARTED",
        "CHANNEL_CLOSED",
        "TASK_COMPLETED",
    ];
    assert_eq!(kinds(&events), steps);
    assert_eq!((&events[0]["amount"], &events[4]["amount"]), (&json!("10"), &json!("2")));
    assert_eq!((&events[5]["attempt"], &events[5]["agent"]["name"]), (&json!(1), &json!("echo")));
    assert_eq!(
        (&events[6]["amount"], &events[6]["returned"], &events[6]["reason"]),
        (&json!("2"), &json!("0"), &json!("SETTLED"))
    );
    assert_eq!(
        (&events[7]["amount"], &events[7]["fee"], &events[7]["returned"]),
        (&json!("2"), &json!("0"), &json!("0"))
    );
    // The query tells the same events with the same cursors.
    let log = "query($id: ID!) { events(filter: { taskId: $id }, first: 100) { nodes { id cursor kind } } }";
    let logged = ada.query(log, json!({ "id": id })).await["events"]["nodes"].take();
    let seen: Vec<_> =
        events.iter().map(|it| json!({ "id": it["id"], "cursor": it["cursor"], "kind": it["kind"] })).collect();
    assert_eq!(logged, json!(seen));
    world.check().await;
}

#[tokio::test]
async fn both_parties_watch_a_task_that_fails_and_is_refunded() {
    let world = World::start().await;
    let (ada, bob) = market(&world).await;
    world.hosted_agent(&bob, "broken", "broken", "2", crashing()).await;
    let start = world.cursor().await;
    let id = ada.execute(json!({ "capabilities": ["broken"] })).await;
    let mut streams = Vec::new();
    for party in [&ada, &bob] {
        streams.push(party.subscribe(TASK, json!({ "id": id, "after": start })).await);
    }
    world.settle().await;
    for (stream, first) in streams.iter_mut().zip(["TASK_POSTED", "AUCTION_OPENED"]) {
        let events = take_all(stream, "taskEvents").await;
        assert_eq!(events[0]["kind"], first, "the posting names the buyer alone");
        let end = events.last().unwrap();
        assert_eq!(
            (&end["kind"], &end["reason"], &end["amount"]),
            (&json!("TASK_REFUNDED"), &json!("TRAP"), &json!("0"))
        );
        assert_eq!(end["returned"], "2");
        assert_eq!(events[events.len() - 2]["reason"], "REFUNDED");
    }
    world.check().await;
}

#[tokio::test]
async fn a_watcher_goes_on_behind_any_event_without_a_gap_or_a_repetition() {
    let world = World::start().await;
    let (ada, bob) = market(&world).await;
    world.hosted_agent(&bob, "echo", "echo", "2", echoing()).await;
    let start = world.cursor().await;
    let id = ada.execute(json!({ "capabilities": ["echo"] })).await;
    world.settle().await;
    let mut stream = ada.subscribe(TASK, json!({ "id": id, "after": start })).await;
    let all = take_all(&mut stream, "taskEvents").await;
    for (place, event) in all.iter().enumerate() {
        let mut stream = ada.subscribe(TASK, json!({ "id": id, "after": event["cursor"] })).await;
        assert_eq!(take_all(&mut stream, "taskEvents").await, all[place + 1..], "behind event {place}");
    }
    // Whoever comes after the end and names no place has nothing to wait for.
    let mut late = ada.subscribe(TASK, json!({ "id": id })).await;
    assert_eq!(take_all(&mut late, "taskEvents").await, [Value::Null; 0]);
    let wrong = ada.subscribe(TASK, json!({ "id": id, "after": "no cursor" })).await.error().await;
    assert_eq!(wrong[0]["extensions"]["code"], "BAD_USER_INPUT");
    world.check().await;
}

#[tokio::test]
async fn strangers_cannot_watch_a_task() {
    let world = World::start().await;
    let (ada, bob) = market(&world).await;
    let eve = world.user("eve").await;
    world.hosted_agent(&bob, "echo", "echo", "2", echoing()).await;
    world.hosted_agent(&eve, "loser", "echo", "3", echoing()).await;
    let start = world.cursor().await;
    let id = ada.execute(json!({ "capabilities": ["echo"] })).await;
    for (who, code) in [(&eve, "NOT_FOUND"), (&world.anonymous(), "UNAUTHENTICATED")] {
        let errors = who.subscribe(TASK, json!({ "id": id, "after": start })).await.error().await;
        assert_eq!(errors[0]["extensions"]["code"], code);
    }
    let nobody = json!({ "id": "task_01h455vb4pex5vsknk084sn02q" });
    let errors = ada.subscribe(TASK, nobody).await.error().await;
    assert_eq!(errors[0]["extensions"]["code"], "NOT_FOUND", "what is not there looks like what is not yours");
    let errors = world.anonymous().subscribe(SETTLEMENTS, json!({})).await.error().await;
    assert_eq!(errors[0]["extensions"]["code"], "UNAUTHENTICATED");
    world.settle().await;
    world.check().await;
}

#[tokio::test]
async fn anybody_watches_a_sealed_auction_and_learns_only_how_many_bid() {
    let world = World::start().await;
    let (ada, bob) = market(&world).await;
    let cleo = world.user("cleo").await;
    let bobs = world.agent(&bob, "bobs", "EXTERNAL", "text.stats", "1").await;
    let cleos = world.agent(&cleo, "cleos", "EXTERNAL", "text.stats", "1").await;
    for (visibility, shown) in [("SEALED", false), ("OPEN", true)] {
        let start = world.cursor().await;
        let auction = ada.open(json!({ "visibility": visibility, "startTimeout": "P7D" })).await;
        let mut stream = world.anonymous().subscribe(AUCTION, json!({ "id": auction, "after": start })).await;
        assert_eq!(stream.next().await["auctionEvents"]["kind"], "AUCTION_OPENED");
        bob.bid(&auction, bobs, "3").await;
        let told = stream.next().await["auctionEvents"].take();
        let price = if shown { json!("3") } else { Value::Null };
        let name = if shown { json!({ "name": "bobs" }) } else { Value::Null };
        assert_eq!((&told["kind"], &told["bidCount"]), (&json!("BID_SUBMITTED"), &json!(1)));
        assert_eq!((&told["price"], &told["agent"]), (&price, &name));
        let bid = cleo.bid(&auction, cleos, "2").await;
        bob.bid(&auction, bobs, "4").await;
        cleo.call("withdrawBid", "bid { id }", json!({ "bidId": bid })).await;
        world.pass(Duration::from_hours(1)).await;
        let events = take_all(&mut stream, "auctionEvents").await;
        assert_eq!(kinds(&events), ["BID_SUBMITTED", "BID_SUBMITTED", "BID_WITHDRAWN", "AUCTION_AWARDED"]);
        let counts: Vec<_> = events.iter().map(|event| event["bidCount"].as_i64().unwrap()).collect();
        assert_eq!(counts, [2, 2, 1, 1]);
        let award = &events[3];
        assert_eq!((&award["amount"], &award["agent"]["name"]), (&json!("4"), &json!("bobs")), "the outcome is public");
        if !shown {
            assert!(
                events[..3].iter().all(|event| event["price"].is_null() && event["agent"].is_null()),
                "{events:#?}"
            );
        }
    }
    let errors = ada.subscribe(AUCTION, json!({ "id": "auc_01h455vb4pex5vsknk084sn02q" })).await.error().await;
    assert_eq!(errors[0]["extensions"]["code"], "NOT_FOUND");
    world.check().await;
}

#[tokio::test]
async fn anybody_watches_the_market_and_chooses_what_to_see() {
    let world = World::start().await;
    let (ada, bob) = market(&world).await;
    let echo = world.hosted_agent(&bob, "echo", "echo", "2", echoing()).await;
    world.hosted_agent(&bob, "other", "other", "2", echoing()).await;
    let start = world.cursor().await;
    let mut all = world.anonymous().subscribe(MARKET, json!({ "after": start })).await;
    let some = json!({ "after": start, "filter": { "kinds": ["AUCTION_AWARDED", "REPUTATION_CHANGED"] } });
    let mut some = world.anonymous().subscribe(MARKET, some).await;
    let of_agent = json!({ "after": start, "filter": { "agentId": echo.to_string() } });
    let mut of_agent = world.anonymous().subscribe(MARKET, of_agent).await;
    for capability in ["echo", "other"] {
        ada.execute(json!({ "capabilities": [capability] })).await;
        world.settle().await;
    }
    let cancelled = ada.open(json!({})).await;
    ada.call("cancelAuction", "auction { id }", json!({ "auctionId": cancelled })).await;
    ada.execute(json!({ "capabilities": ["nobody"] })).await;
    let one = ["AUCTION_OPENED", "BID_SUBMITTED", "AUCTION_AWARDED", "REPUTATION_CHANGED"];
    let end = ["AUCTION_OPENED", "AUCTION_CANCELLED", "AUCTION_OPENED", "AUCTION_EXPIRED"];
    let seen = take(&mut all, "marketEvents", 12).await;
    assert_eq!(kinds(&seen), [one, one, end].concat(), "what is private is not here");
    assert_eq!(kinds(&take(&mut some, "marketEvents", 4).await), [&one[2..], &one[2..]].concat());
    assert_eq!(kinds(&take(&mut of_agent, "marketEvents", 2).await), one[2..]);
    for stream in [&mut all, &mut some, &mut of_agent] {
        assert_silent(stream).await;
    }
    let mut cursors: Vec<_> = seen.iter().map(|event| event["cursor"].as_str().unwrap()).collect();
    cursors.dedup();
    assert_eq!(cursors.len(), 12);
    // A stream that broke goes on where it was.
    let mut again = ada.subscribe(MARKET, json!({ "after": seen[6]["cursor"] })).await;
    assert_eq!(take(&mut again, "marketEvents", 5).await, seen[7..]);
    world.check().await;
}

#[tokio::test]
async fn everybody_watches_the_money_that_is_their_own() {
    let world = World::start().await;
    let (ada, bob) = market(&world).await;
    let eve = world.user("eve").await;
    world.hosted_agent(&bob, "echo", "echo", "2", echoing()).await;
    let start = world.cursor().await;
    let mut adas = ada.subscribe(SETTLEMENTS, json!({ "after": start })).await;
    let mut bobs = bob.subscribe(SETTLEMENTS, json!({ "after": start })).await;
    let mut eves = eve.subscribe(SETTLEMENTS, json!({ "after": start })).await;
    world.credit(&ada, "5").await;
    ada.execute(json!({ "capabilities": ["echo"] })).await;
    world.settle().await;
    ada.execute(json!({ "capabilities": ["nobody"], "budget": "3" })).await;
    let seen = take(&mut adas, "settlementEvents", 7).await;
    let expected = [
        "CREDITS_ISSUED",
        "TASK_POSTED",
        "CHANNEL_OPENED",
        "CHANNEL_CLOSED",
        "TASK_COMPLETED",
        "TASK_POSTED",
        "TASK_EXPIRED",
    ];
    assert_eq!(kinds(&seen), expected);
    let moved: Vec<_> = seen.iter().map(|event| event["amount"].as_str().unwrap_or("-")).collect();
    assert_eq!(moved, ["5", "10", "2", "2", "2", "3", "-"]);
    assert_eq!(seen[6]["returned"], "3");
    let seen = take(&mut bobs, "settlementEvents", 3).await;
    assert_eq!(kinds(&seen), ["CHANNEL_OPENED", "CHANNEL_CLOSED", "TASK_COMPLETED"]);
    for stream in [&mut adas, &mut bobs, &mut eves] {
        assert_silent(stream).await;
    }
    world.check().await;
}

#[tokio::test]
async fn anybody_watches_a_reputation_move() {
    let world = World::start().await;
    let (ada, bob) = market(&world).await;
    let echo = world.hosted_agent(&bob, "echo", "echo", "2", echoing()).await;
    world.hosted_agent(&bob, "other", "other", "2", echoing()).await;
    let start = world.cursor().await;
    let mut stream = world.anonymous().subscribe(REPUTATION, json!({ "id": echo.to_string(), "after": start })).await;
    let id = ada.execute(json!({ "capabilities": ["echo"] })).await;
    world.settle().await;
    ada.execute(json!({ "capabilities": ["other"] })).await;
    world.settle().await;
    ada.call("rateAgent", "rating { id }", json!({ "taskId": id, "stars": 5 })).await;
    let seen = take(&mut stream, "reputationEvents", 2).await;
    assert_eq!((&seen[0]["reason"], &seen[1]["reason"]), (&json!("SUCCESS"), &json!("RATING")));
    assert_eq!((&seen[0]["scoreBefore"], &seen[0]["scoreAfter"]), (&json!("42.5"), &json!("45.436")));
    assert_eq!(seen[1]["scoreBefore"], "45.436");
    assert_eq!(seen[1]["scoreAfter"], world.score(echo).await);
    assert_eq!(seen[0]["agentId"], echo.to_string());
    assert_silent(&mut stream).await;
    let mut again = ada.subscribe(REPUTATION, json!({ "id": echo.to_string(), "after": seen[0]["cursor"] })).await;
    assert_eq!(take(&mut again, "reputationEvents", 1).await, seen[1..]);
    let errors = ada.subscribe(REPUTATION, json!({ "id": "agent_01h455vb4pex5vsknk084sn02q" })).await.error().await;
    assert_eq!(errors[0]["extensions"]["code"], "NOT_FOUND");
    world.check().await;
}

#[tokio::test]
async fn many_watchers_see_the_same_events_in_the_same_order() {
    let world = World::start().await;
    let (ada, bob) = market(&world).await;
    world.hosted_agent(&bob, "echo", "echo", "1", echoing()).await;
    let start = world.cursor().await;
    let mut streams = Vec::new();
    for _ in 0..10 {
        streams.push(world.anonymous().subscribe(MARKET, json!({ "after": start })).await);
    }
    let orders = (0..10).map(|_| ada.execute(json!({ "capabilities": ["echo"], "budget": "2" })));
    futures_util::future::join_all(orders).await;
    world.settle().await;
    let mut all = Vec::new();
    for stream in &mut streams {
        all.push(take(stream, "marketEvents", 40).await);
    }
    assert!(all.iter().all(|seen| *seen == all[0]));
    let mut ids: Vec<_> = all[0].iter().map(|event| event["id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 40);
    world.check().await;
}
