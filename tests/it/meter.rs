//! Metered prices: what work costs whose price is counted by its fuel, that nobody pays more than the award, and that a stranger can
//! compute the bill again.

use std::{process::Command, time::Duration};

use entity::{id::AgentId, money::Amount, user::Role};
use serde_json::{Value, json};

use crate::world::{Client, World, answering, crashing, echoing, fresh_key};

const SEEN: &str = "query($id: ID!) { task(id: $id) {
    status input createdAt price charge paid failureCode winningBid { price pricePerMillionFuel }
    escrow { status held paid returned } dispute { id amount } result { fuel cost }
} }";

async fn see(who: &Client, task: &str) -> Value {
    who.query(SEEN, json!({ "id": task })).await["task"].take()
}

fn micros(amount: i64) -> String {
    Amount::from_micros(amount).unwrap().to_string()
}

/// Micro-credits of an amount, or units of a count.
fn number(value: &Value) -> i64 {
    value.as_str().unwrap().parse().unwrap()
}

fn in_micros(value: &Value) -> i64 {
    value.as_str().unwrap().parse::<Amount>().unwrap().micros()
}

/// A buyer with 100 credits and a seller.
async fn market(fee_bps: u16) -> (World, Client, Client) {
    let world = World::with(|config| config.terms.fee_bps = fee_bps).await;
    let (ada, bob) = (world.user("ada").await, world.user("bob").await);
    world.credit(&ada, "100").await;
    (world, ada, bob)
}

/// A hosted agent that charges for fuel.
async fn metered(world: &World, owner: &Client, name: &str, price: &str, fuel_price: &str, wasm: Vec<u8>) -> AgentId {
    let agent = world.hosted_agent(owner, name, "echo", price, wasm).await;
    let input = json!({ "agentId": agent.to_string(), "pricePerMillionFuel": fuel_price });
    let done = owner.call("updateAgent", "agent { price pricePerMillionFuel }", input).await;
    assert_eq!(done["agent"], json!({ "price": price, "pricePerMillionFuel": fuel_price }));
    agent
}

fn order(over: &Value) -> Value {
    let mut order = json!({ "capabilities": ["echo"], "budget": "5" });
    order.as_object_mut().unwrap().extend(over.as_object().unwrap().clone());
    order
}

#[tokio::test]
async fn work_costs_its_fuel_and_never_more_than_the_bid() {
    let (world, ada, bob) = market(333).await;
    // Three micro-credits for two units.
    let agent = metered(&world, &bob, "echo", "2", "1.5", echoing()).await;
    let id = ada.execute(order(&json!({}))).await;
    let before = see(&ada, &id).await;
    assert_eq!((&before["price"], &before["charge"]), (&json!("2"), &Value::Null), "nothing is metered yet");
    assert_eq!(before["winningBid"], json!({ "price": "2", "pricePerMillionFuel": "1.5" }));
    world.settle().await;
    let task = see(&ada, &id).await;
    let fuel = number(&task["result"]["fuel"]);
    let charge = (fuel * 3 + 1) / 2;
    assert!(fuel % 2 == 1 && charge < 2_000_000, "there is something to round: {fuel}");
    assert_eq!((&task["status"], &task["charge"]), (&json!("COMPLETED"), &json!(micros(charge))));
    assert_eq!((&task["paid"], &task["result"]["cost"]), (&task["charge"], &task["charge"]));
    let returned = micros(5_000_000 - charge);
    assert_eq!(
        task["escrow"],
        json!({ "status": "RELEASED", "held": "0", "paid": micros(charge), "returned": returned })
    );
    assert_eq!(ada.wallet().await, (micros(100_000_000 - charge), "0".to_owned()));
    assert_eq!(bob.earned(agent).await, micros(charge - charge * 333 / 10_000));

    // A price that the work passes by far: the cap.
    let input = json!({ "agentId": agent.to_string(), "pricePerMillionFuel": "100000" });
    bob.call("updateAgent", "agent { id }", input).await;
    let id = ada.execute(order(&json!({}))).await;
    world.settle().await;
    let task = see(&ada, &id).await;
    assert_eq!(
        (&task["charge"], &task["paid"], &task["result"]["fuel"]),
        (&json!("2"), &json!("2"), &json!(fuel.to_string()))
    );

    // The smallest price: nothing costs nothing.
    let input = json!({ "agentId": agent.to_string(), "pricePerMillionFuel": "0.000001" });
    bob.call("updateAgent", "agent { id }", input).await;
    let id = ada.execute(order(&json!({}))).await;
    world.settle().await;
    assert_eq!(see(&ada, &id).await["paid"], "0.000001");

    // Without it the price is flat again.
    let input = json!({ "agentId": agent.to_string(), "pricePerMillionFuel": null });
    let done = bob.call("updateAgent", "agent { pricePerMillionFuel }", input).await;
    assert_eq!(done["agent"]["pricePerMillionFuel"], Value::Null);
    let id = ada.execute(order(&json!({}))).await;
    world.settle().await;
    let task = see(&ada, &id).await;
    assert_eq!((&task["charge"], &task["paid"]), (&Value::Null, &json!("2")));
    world.check().await;
}

#[tokio::test]
async fn the_price_of_the_fuel_is_that_of_the_bid() {
    let (world, ada, bob) = market(0).await;
    let agent = metered(&world, &bob, "echo", "2", "1", echoing()).await;
    let auction = ada.open(order(&json!({ "closesIn": "PT1M" }))).await;
    for fuel_price in [json!("800"), json!(null)] {
        let input = json!({ "agentId": agent.to_string(), "pricePerMillionFuel": fuel_price });
        bob.call("updateAgent", "agent { id }", input).await;
    }
    world.pass(Duration::from_mins(1)).await;
    let id = ada.task_of(&auction).await["id"].as_str().unwrap().to_owned();
    let task = see(&ada, &id).await;
    assert_eq!(task["winningBid"]["pricePerMillionFuel"], "1");
    assert_eq!(task["charge"], micros(number(&task["result"]["fuel"])));
    world.check().await;
}

#[tokio::test]
async fn in_a_second_price_auction_the_clearing_price_is_the_cap() {
    let (world, ada, bob) = market(0).await;
    let cheap = metered(&world, &bob, "cheap", "2", "100000", echoing()).await;
    world.hosted_agent(&bob, "dear", "echo", "3", echoing()).await;
    let second = json!({ "kind": "SECOND_PRICE" });
    let id = ada.execute(order(&second)).await;
    world.settle().await;
    let task = see(&ada, &id).await;
    assert_eq!((&task["winningBid"]["price"], &task["price"]), (&json!("2"), &json!("3")));
    assert_eq!((&task["charge"], &task["paid"]), (&json!("3"), &json!("3")));
    let input = json!({ "agentId": cheap.to_string(), "pricePerMillionFuel": "1" });
    bob.call("updateAgent", "agent { id }", input).await;
    let id = ada.execute(order(&second)).await;
    world.settle().await;
    let task = see(&ada, &id).await;
    // Its reputation has grown, so it would have won at more.
    assert!(in_micros(&task["price"]) > 3_000_000);
    assert_eq!(task["paid"], micros(number(&task["result"]["fuel"])));
    world.check().await;
}

#[tokio::test]
async fn a_review_decides_about_the_charge() {
    let (world, ada, bob) = market(77).await;
    let judge = world.of_role("judge", Role::Arbiter).await;
    metered(&world, &bob, "echo", "2", "10", echoing()).await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(ada.execute(order(&json!({ "acceptance": "REVIEW", "reviewWindow": "PT1H" }))).await);
    }
    world.settle().await;
    let charge = in_micros(&see(&ada, &ids[0]).await["charge"]);
    assert!(charge > 10 && charge < 2_000_000, "{charge}");
    // Until the word of the payer the whole price is held.
    assert_eq!(see(&ada, &ids[0]).await["escrow"]["held"], "2");
    assert_eq!(ada.wallet().await.1, "8");

    ada.call("acceptResult", "task { id }", json!({ "taskId": ids[0] })).await;
    for id in &ids[2..] {
        ada.call("rejectResult", "task { id }", json!({ "taskId": id, "reason": "Too long." })).await;
    }
    world.pass(Duration::from_hours(1)).await;
    for id in &ids[..2] {
        let task = see(&ada, id).await;
        assert_eq!((&task["status"], &task["paid"]), (&json!("COMPLETED"), &task["charge"]), "accepted, or silent");
        assert_eq!(task["escrow"]["status"], "RELEASED");
    }

    // A ruling shares out the charge, and no more.
    let dispute = see(&ada, &ids[2]).await["dispute"].take();
    assert_eq!(dispute["amount"], micros(charge));
    world.pass(Duration::from_hours(3 * 24)).await;
    let ruling = |award: i64| {
        let (id, award) = (dispute["id"].clone(), micros(award));
        json!({ "disputeId": id, "award": award, "opinion": "So.", "idempotencyKey": fresh_key() })
    };
    assert_eq!(judge.refusal("resolveDispute", ruling(charge + 1)).await, "AWARD_ABOVE_PRICE");
    judge.call("resolveDispute", "dispute { id }", ruling(charge / 3)).await;
    let task = see(&ada, &ids[2]).await;
    assert_eq!((&task["paid"], &task["escrow"]["status"]), (&json!(micros(charge / 3)), &json!("SPLIT")));

    // Nobody rules: what the verifiers said is worth the charge.
    world.pass(Duration::from_hours(7 * 24)).await;
    assert_eq!(see(&ada, &ids[3]).await["paid"], micros(charge));
    assert_eq!(ada.wallet().await, (micros(100_000_000 - 3 * charge - charge / 3), "0".to_owned()));
    world.check().await;
}

#[tokio::test]
async fn work_that_fails_costs_nothing_and_weighs_its_price() {
    let (world, ada, bob) = market(0).await;
    metered(&world, &bob, "crash", "2", "10", crashing()).await;
    let crashed = ada.execute(order(&json!({}))).await;
    world.settle().await;
    let task = see(&ada, &crashed).await;
    assert_eq!((&task["status"], &task["charge"], &task["paid"]), (&json!("REFUNDED"), &Value::Null, &json!("0")));
    let eve = world.user("eve").await;
    metered(&world, &eve, "wrong", "1", "10", answering("1")).await;
    let wrong = ada.execute(order(&json!({ "outputSchema": { "type": "string" } }))).await;
    world.settle().await;
    let task = see(&ada, &wrong).await;
    assert_eq!((&task["failureCode"], &task["paid"]), (&json!("OUTPUT_SCHEMA_VIOLATION"), &json!("0")));
    let stakes: Vec<i64> = {
        use sea_orm::EntityTrait;
        let rows = entity::reputation_event::Entity::find().all(world.app.store().read()).await.unwrap();
        rows.iter().map(|row| row.amount.micros()).collect()
    };
    assert_eq!(stakes, [2_000_000, 1_000_000], "a failure that took little fuel is not a small one");
    assert_eq!(ada.wallet().await, ("100".to_owned(), "0".to_owned()));
    world.check().await;
}

#[tokio::test]
async fn only_hosted_agents_have_metered_prices() {
    let (world, _, bob) = market(0).await;
    let register = |name: &str, runtime: &str, fuel_price: &str| json!({ "name": name, "capabilities": ["echo"], "runtime": runtime, "price": "2", "pricePerMillionFuel": fuel_price });
    let hosted = bob.call("registerAgent", "agent { id pricePerMillionFuel }", register("one", "HOSTED", "0.25")).await;
    assert_eq!(hosted["agent"]["pricePerMillionFuel"], "0.25");
    assert_eq!(bob.refusal("registerAgent", register("two", "EXTERNAL", "0.25")).await, "AGENT_NOT_HOSTED");
    assert_eq!(bob.refusal("registerAgent", register("two", "HOSTED", "0")).await, "INVALID_INPUT");
    let outside = world.agent(&bob, "outside", "EXTERNAL", "echo", "1").await.to_string();
    let change = |fuel_price: Value| json!({ "agentId": outside, "pricePerMillionFuel": fuel_price });
    assert_eq!(bob.refusal("updateAgent", change(json!("1"))).await, "AGENT_NOT_HOSTED");
    bob.call("updateAgent", "agent { id }", change(Value::Null)).await;
    // What is left out stays.
    let input = json!({ "agentId": hosted["agent"]["id"], "description": "Repeats." });
    let done = bob.call("updateAgent", "agent { pricePerMillionFuel }", input).await;
    assert_eq!(done["agent"]["pricePerMillionFuel"], "0.25");
    world.check().await;
}

/// A module that works as long as its randomness and its clock say.
fn moody() -> Vec<u8> {
    wat::parse_str(
        r#"(module
            (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 100) "1")
            (func (export "_start")
                (local $left i32)
                (drop (call $random (i32.const 16) (i32.const 4)))
                (drop (call $clock (i32.const 0) (i64.const 1) (i32.const 24)))
                (local.set $left (i32.add (i32.const 1)
                    (i32.add (i32.and (i32.load (i32.const 16)) (i32.const 0xffff))
                             (i32.wrap_i64 (i64.rem_u (i64.load (i32.const 24)) (i64.const 999999937))))))
                (local.set $left (i32.add (i32.const 1) (i32.and (local.get $left) (i32.const 0xffff))))
                (loop $more
                    (local.set $left (i32.sub (local.get $left) (i32.const 1)))
                    (br_if $more (local.get $left)))
                (i32.store (i32.const 0) (i32.const 100))
                (i32.store (i32.const 4) (i32.const 1))
                (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#,
    )
    .unwrap()
}

#[tokio::test]
async fn a_stranger_computes_the_bill_again() {
    let (world, ada, bob) = market(0).await;
    metered(&world, &bob, "moody", "2", "1.000001", moody()).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("agent.wasm"), moody()).unwrap();
    let mut fuels = Vec::new();
    for _ in 0..3 {
        world.turn(Duration::from_micros(1_234_567));
        let id = ada.execute(order(&json!({ "input": { "b": [1, 2], "a": "text" } }))).await;
        world.settle().await;
        let task = see(&ada, &id).await;
        std::fs::write(folder.path().join("input.json"), task["input"].to_string()).unwrap();
        let run = |more: &[&str]| {
            let bid = &task["winningBid"];
            let [price, cap] = [&bid["pricePerMillionFuel"], &bid["price"]].map(|amount| amount.as_str().unwrap());
            let output = Command::new(env!("CARGO_BIN_EXE_zerostate"))
                .current_dir(folder.path())
                .args(["agent", "run", "agent.wasm", "--input", "input.json", "--json"])
                .args(["--price-per-million-fuel", price, "--cap", cap])
                .args(more)
                .output()
                .unwrap();
            assert!(output.status.success(), "{output:?}");
            serde_json::from_slice::<Value>(&output.stdout).unwrap()
        };
        let again = run(&["--task-id", &id, "--created-at", task["createdAt"].as_str().unwrap()]);
        assert_eq!(again["usage"]["fuel"], task["result"]["fuel"]);
        assert_eq!((&again["bill"], &again["bill"]), (&task["paid"], &task["charge"]));
        assert_ne!(run(&[])["usage"]["fuel"], task["result"]["fuel"], "another seed is another run");
        fuels.push(task["result"]["fuel"].clone());
    }
    fuels.sort_by_key(number);
    fuels.dedup();
    assert!(fuels.len() > 1, "the module does not do what it is for: {fuels:?}");
    world.check().await;
}
