//! Doing a thing once however often it is asked for.

use futures_util::{StreamExt, stream};
use sea_orm::EntityTrait;
use serde_json::{Value, json};

use crate::world::{Client, World};

const ORDER: &str =
    "mutation($input: CreateAuctionInput!) { createAuction(input: $input) { auction { id } userErrors { code } } }";

fn order(key: &str, budget: &str) -> Value {
    json!({ "input": {
        "title": "Count", "capabilities": ["a"], "input": 1, "budget": budget, "closesIn": "PT1H", "idempotencyKey": key,
    } })
}

async fn answered(who: &Client, document: &str, variables: &Value) -> Value {
    who.raw(document, variables).await.json()
}

#[tokio::test]
async fn an_answer_says_which_of_its_mutations_were_done_before() {
    let world = World::start().await;
    let ada = world.user("ada").await;
    world.credit(&ada, "10").await;
    let first = answered(&ada, ORDER, &order("one", "1")).await;
    assert_eq!(first["extensions"], Value::Null);
    let again = answered(&ada, ORDER, &order("one", "1")).await;
    assert_eq!(again["data"], first["data"]);
    assert_eq!(again["extensions"], json!({ "idempotentReplay": true, "replayed": ["createAuction"] }));
    let both = "mutation($old: CreateAuctionInput!, $new: CreateAuctionInput!) { \
        old: createAuction(input: $old) { auction { id } userErrors { code } } \
        new: createAuction(input: $new) { auction { id } userErrors { code } } }";
    let input = json!({ "old": order("one", "1")["input"], "new": order("two", "1")["input"] });
    let mixed = answered(&ada, both, &input).await;
    assert_eq!(mixed["extensions"], json!({ "idempotentReplay": true, "replayed": ["old"] }));
    assert_eq!(mixed["data"]["old"], first["data"]["createAuction"]);
    // The same over a WebSocket.
    let mut socket = world.socket().await;
    socket.init(ada.token()).await;
    socket.subscribe("1", ORDER, order("two", "1")).await;
    let message = socket.message().await;
    assert_eq!(message["payload"]["data"]["createAuction"], mixed["data"]["new"]);
    assert_eq!(message["payload"]["extensions"]["replayed"], json!(["createAuction"]));
    let other = answered(&ada, ORDER, &order("one", "2")).await;
    assert_eq!(other["data"]["createAuction"]["userErrors"], json!([{ "code": "IDEMPOTENCY_KEY_REUSED" }]));
    assert_eq!(other["extensions"], Value::Null);
    assert_eq!(ada.wallet().await, ("8".to_owned(), "2".to_owned()));
    world.check().await;
}

#[tokio::test]
async fn a_refusal_is_an_answer_and_stays_one() {
    let world = World::start().await;
    let ada = world.user("ada").await;
    let refused = answered(&ada, ORDER, &order("poor", "5")).await;
    assert_eq!(refused["data"]["createAuction"]["userErrors"], json!([{ "code": "INSUFFICIENT_FUNDS" }]));
    world.credit(&ada, "10").await;
    let again = answered(&ada, ORDER, &order("poor", "5")).await;
    assert_eq!(again["data"], refused["data"], "a late retry does not succeed by surprise");
    assert_eq!(again["extensions"]["idempotentReplay"], true);
    ada.done("createAuction", ORDER, order("rich", "5")).await;
    world.check().await;
}

#[tokio::test]
async fn what_failed_for_a_reason_of_ours_may_be_tried_again_with_its_key() {
    let world = World::start().await;
    let ada = world.user("ada").await;
    world.credit(&ada, "10").await;
    world.app.store().set_books(false);
    assert_eq!(ada.error(ORDER, order("one", "1")).await, "UNAVAILABLE");
    world.app.store().set_books(true);
    let done = answered(&ada, ORDER, &order("one", "1")).await;
    assert_eq!((&done["data"]["createAuction"]["userErrors"], &done["extensions"]), (&json!([]), &Value::Null));
    world.check().await;
}

#[tokio::test]
async fn a_key_with_narrow_scopes_is_not_told_what_a_wider_one_did() {
    let world = World::start().await;
    let (ada, eve) = (world.user("ada").await, world.user("eve").await);
    world.credit(&ada, "10").await;
    let key = async |name: &str, scopes: Value| {
        let made = ada.call("createApiKey", "secret", json!({ "name": name, "scopes": scopes })).await;
        ada.with_token(made["secret"].as_str().unwrap())
    };
    let (reader, buyer) = (key("reader", json!(["READ"])).await, key("buyer", json!(["TASKS_WRITE"])).await);
    let first = answered(&ada, ORDER, &order("one", "1")).await;
    assert_eq!(reader.error(ORDER, order("one", "1")).await, "FORBIDDEN");
    let again = answered(&buyer, ORDER, &order("one", "1")).await;
    assert_eq!(again["data"]["createAuction"]["userErrors"], json!([]));
    assert_eq!(again["extensions"]["idempotentReplay"], true);
    assert_eq!(again["data"], first["data"]);
    // The same key of somebody else is another intent.
    assert_eq!(eve.refused("createAuction", ORDER, order("one", "1")).await, ["INSUFFICIENT_FUNDS"]);
    world.check().await;
}

#[tokio::test]
async fn a_secret_is_in_the_first_answer_alone() {
    let world = World::start().await;
    let (ada, eve) = (world.user("ada").await, world.user("eve").await);
    let document = "mutation($input: CreateApiKeyInput!) { createApiKey(input: $input) { secret apiKey { id } userErrors { code } } }";
    let input = json!({ "input": { "name": "ci", "scopes": ["READ"], "idempotencyKey": "ci" } });
    let first = answered(&ada, document, &input).await["data"]["createApiKey"].clone();
    let again = answered(&ada, document, &input).await;
    assert_eq!(again["extensions"]["idempotentReplay"], true);
    let again = &again["data"]["createApiKey"];
    assert_eq!((&again["apiKey"], &again["secret"]), (&first["apiKey"], &Value::Null));
    let others = answered(&eve, document, &input).await["data"]["createApiKey"].clone();
    assert_ne!(others["apiKey"], first["apiKey"]);
    // Nor is it in the record of the answer.
    let secret = first["secret"].as_str().unwrap();
    let records = entity::idempotency::Entity::find().all(world.app.store().read()).await.unwrap();
    assert!(records.len() >= 2 && records.iter().all(|record| !record.answer.0.contains(secret)));
    world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_identical_mutations_at_once_have_one_effect_and_one_answer() {
    let world = World::start().await;
    let ada = world.user("ada").await;
    world.credit(&ada, "10").await;
    let variables = order("once", "1");
    let one = async |_| {
        // Who is told to try again tries again, as every client does.
        for _ in 0..200 {
            let answer = answered(&ada, ORDER, &variables).await;
            if answer["errors"].is_null() {
                return answer;
            }
            assert_eq!(answer["errors"][0]["extensions"]["retryable"], true, "{answer}");
        }
        panic!("never answered");
    };
    // Each needs a socket here and one there; some systems allow a process a thousand.
    let answers: Vec<Value> = stream::iter(0..1_000).map(one).buffer_unordered(300).collect().await;
    assert_eq!(answers.len(), 1_000);
    assert!(answers.iter().all(|answer| answer["data"] == answers[0]["data"]));
    assert_eq!(answers[0]["data"]["createAuction"]["userErrors"], json!([]));
    let fresh = answers.iter().filter(|answer| answer["extensions"].is_null()).count();
    assert_eq!(fresh, 1, "one did it, the others were told");
    assert_eq!(ada.wallet().await, ("9".to_owned(), "1".to_owned()));
    assert_eq!((world.rows("auctions").await, world.rows("holds").await), (1, 1));
    world.check().await;
}
