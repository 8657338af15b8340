//! An event is worked out once for all who ask the same, and for each alone where the answer depends on who asks.

use std::{collections::HashMap, time::Duration};

use entity::{
    event::{Kind, Payload},
    id::AgentId,
};
use serde_json::{Value, json};
use zerostate::{caller::Caller, store::Event};

use crate::world::{Client, Stream, World};

const FOLLOW: &str = "subscription($after: EventCursor) { marketEvents(after: $after) {
    cursor ... on ReputationChangedEvent { scoreAfter } } }";

/// Answers that were worked out so far.
fn answers(world: &World) -> u64 {
    let page = world.app.metrics().render().unwrap();
    let line = page.lines().find_map(|line| line.strip_prefix("zerostate_graphql_subscription_answers_total "));
    line.expect("a counter").parse().unwrap()
}

/// Moves the score of an agent to so many thousandths.
async fn move_score(world: &World, agent: AgentId, to: i32) {
    let payload = Payload { score_before: Some(to - 1), score_after: Some(to), ..Payload::default() };
    let event = Event { agent_id: Some(agent), ..Event::new(Kind::ReputationChanged, payload) };
    let write = world.app.store().write(Caller::System, async |work| {
        work.record(event);
        Ok(())
    });
    write.await.unwrap();
}

/// Lets things happen until each of these follows live, and has told all of it.
async fn until_all_follow(world: &World, agent: AgentId, streams: &mut [Stream]) {
    let mut number = 0;
    for stream in &mut *streams {
        loop {
            if stream.next_within(Duration::from_millis(20)).await.is_some() {
                break;
            }
            number += 1;
            move_score(world, agent, number).await;
        }
    }
    number += 1;
    move_score(world, agent, number).await;
    let last = format!("0.{number:03}");
    for stream in streams {
        while score(&stream.next().await) != last.trim_end_matches('0') {}
    }
}

fn score(data: &Value) -> &str {
    data["marketEvents"]["scoreAfter"].as_str().unwrap().trim_end_matches('0')
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_is_worked_out_once_for_all_who_ask_the_same() {
    let world = World::start().await;
    let (ada, bob) = (world.user("ada").await, world.user("bob").await);
    let agent = world.agent(&bob, "subject", "EXTERNAL", "work", "1").await;
    let (nobody, mut streams) = (world.anonymous(), Vec::new());
    for _ in 0..10 {
        for client in [&nobody, &ada, &bob] {
            streams.push(client.subscribe(FOLLOW, json!({})).await);
        }
    }
    until_all_follow(&world, agent, &mut streams).await;
    let before = answers(&world);
    move_score(&world, agent, 900).await;
    let mut told = Vec::new();
    for stream in &mut streams {
        told.push(stream.next().await);
    }
    assert!(told.iter().all(|data| *data == told[0] && score(data) == "0.9"), "{told:?}");
    // Once for those whom nobody knows, and once for those who signed in: no field looks at who they are.
    assert_eq!(answers(&world) - before, 2);
    world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_may_see_more_is_told_more_of_the_same_event() {
    let world = World::start().await;
    let (ada, bob, eve) = (world.user("ada").await, world.user("bob").await, world.user("eve").await);
    world.credit(&ada, "100").await;
    let agent = world.agent(&bob, "bidder", "EXTERNAL", "work", "5").await;
    let auction = ada.open(json!({ "capabilities": ["work"], "reservePrice": "8", "visibility": "OPEN" })).await;
    let document = "subscription($id: ID!) { auctionEvents(auctionId: $id) {
        kind ... on BidEvent { price auction { id reservePrice } agent { name minPrice } } } }";
    let nobody = world.anonymous();
    let people: [(&str, &Client); 4] = [("ada", &ada), ("bob", &bob), ("eve", &eve), ("nobody", &nobody)];
    let mut streams = Vec::new();
    for (name, client) in people.repeat(3) {
        streams.push((name, client.subscribe(document, json!({ "id": auction })).await));
    }
    // Nobody says when a stream has begun; whoever missed a bid is told of the next.
    let mut told: HashMap<usize, Value> = HashMap::new();
    let mut price = 999;
    while told.len() < streams.len() {
        bob.bid(&auction, agent, &format!("7.{price:03}")).await;
        price -= 1;
        for (number, (_, stream)) in streams.iter_mut().enumerate() {
            if let Some(data) = stream.next_within(Duration::from_millis(50)).await {
                told.insert(number, data["auctionEvents"].clone());
            }
        }
    }
    bob.bid(&auction, agent, "6.5").await;
    for (name, stream) in &mut streams {
        let data = loop {
            let data = stream.next().await;
            if data["auctionEvents"]["price"].as_str().unwrap().starts_with("6.5") {
                break data;
            }
        };
        let event = &data["auctionEvents"];
        let (reserve, least) = (&event["auction"]["reservePrice"], &event["agent"]["minPrice"]);
        assert_eq!((&event["auction"]["id"], &event["agent"]["name"]), (&json!(auction), &json!("bidder")));
        assert_eq!((reserve.is_string(), least.is_string()), (*name == "ada", *name == "bob"), "{name}: {event}");
    }
    world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_who_asks_the_same_begins_behind_its_own_place() {
    let world = World::start().await;
    let bob = world.user("bob").await;
    let agent = world.agent(&bob, "subject", "EXTERNAL", "work", "1").await;
    let (mut places, nobody) = (vec![world.cursor().await], world.anonymous());
    for number in 1..=4 {
        move_score(&world, agent, number).await;
        places.push(world.cursor().await);
    }
    let mut streams = Vec::new();
    for place in places.iter().rev() {
        streams.push(nobody.subscribe(FOLLOW, json!({ "after": place })).await);
    }
    move_score(&world, agent, 5).await;
    for (missed, stream) in streams.iter_mut().enumerate() {
        for number in 5 - missed..=5 {
            assert_eq!(score(&stream.next().await), format!("0.00{number}"), "{missed}");
        }
        assert_eq!(stream.next_within(Duration::from_millis(50)).await, None);
    }
    world.check().await;
}
