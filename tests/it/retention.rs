//! What need not be kept for ever goes when its time is over, and nothing that the books are made of goes with it.

use std::time::Duration;

use sea_orm::{ConnectionTrait as _, Statement};
use serde_json::json;

use crate::world::{World, answering, fresh_key};

const DAY: Duration = Duration::from_hours(24);
const SETTLEMENTS: &str = "subscription($after: EventCursor) { settlementEvents(after: $after) { kind cursor } }";

/// Counts what fulfils a condition.
async fn count(world: &World, what: &str) -> i64 {
    let store = world.app.store();
    let statement = Statement::from_string(store.backend(), format!("SELECT COUNT(*) FROM {what}"));
    store.read().query_one_raw(statement).await.unwrap().unwrap().try_get_by_index(0).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn old_events_go_and_everything_that_reads_them_goes_on() {
    let world = World::with(|config| config.terms.keep.events = Some(7 * DAY)).await;
    let (ada, bob) = (world.user("ada").await, world.user("bob").await);
    let start = world.cursor().await;
    world.credit(&ada, "100").await;
    world.hosted_agent(&bob, "one", "text.stats", "2", answering("{\"words\": 3}")).await;
    let old = ada.execute(json!({ "capabilities": ["text.stats"], "input": "a" })).await;
    world.settle().await;
    // One auction that is still open when the first of its events go.
    let open = ada.open(json!({ "closesIn": "P20D", "budget": "3" })).await;
    world.pass(5 * DAY).await;
    let middle = world.cursor().await;
    world.credit(&ada, "1").await;
    let before = world.rows("events").await;
    assert!(before > 10);

    // Who was here before goes on without a gap.
    let mut follower = ada.subscribe(SETTLEMENTS, json!({ "after": middle })).await;
    assert_eq!(follower.next().await["settlementEvents"]["kind"], "CREDITS_ISSUED");
    world.pass(3 * DAY).await;
    let kept = world.rows("events").await;
    assert!(kept < before && kept >= 1, "{kept} of {before}");
    assert_eq!(count(&world, &format!("events WHERE occurred_at < {}", world.now().before(7 * DAY).micros())).await, 0);
    world.credit(&ada, "2").await;
    assert_eq!(follower.next().await["settlementEvents"]["kind"], "CREDITS_ISSUED");

    // A place from before what is kept is told so, a later one is good.
    let events = "query($after: EventCursor) { events(after: $after, first: 50) { nodes { kind } } }";
    let error = ada.try_query(events, json!({ "after": start })).await.unwrap_err();
    assert_eq!(error[0]["extensions"]["reason"], "CURSOR_EXPIRED", "{error:?}");
    let mut late = ada.subscribe(SETTLEMENTS, json!({ "after": start })).await;
    assert_eq!(late.error().await[0]["extensions"]["reason"], "CURSOR_EXPIRED");
    ada.query(events, json!({ "after": middle })).await;

    // Tasks are there whole, old and new ones, and the market goes on.
    assert_eq!(ada.task(&old).await["status"], "COMPLETED");
    assert_eq!(ada.auction(&open).await["status"], "OPEN");
    let new = ada.execute(json!({ "capabilities": ["text.stats"], "input": "b" })).await;
    world.settle().await;
    assert_eq!(ada.task(&new).await["status"], "COMPLETED");

    // However long nothing happens, the log knows how far it has come.
    let head = world.cursor().await;
    world.pass(Duration::from_hours(24 * 40)).await;
    world.pass(Duration::from_hours(24 * 40)).await;
    assert!(world.rows("events").await >= 1);
    let error = ada.try_query(events, json!({ "after": middle })).await.unwrap_err();
    assert_eq!(error[0]["extensions"]["reason"], "CURSOR_EXPIRED", "{error:?}");
    world.credit(&ada, "3").await;
    assert!(world.cursor().await != head);
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_old_events_go_a_few_at_a_time() {
    let world = World::with(|config| config.terms.keep.events = Some(DAY)).await;
    let ada = world.user("ada").await;
    world.credit(&ada, "1").await;
    let user: entity::id::UserId = ada.id().parse().unwrap();
    let store = world.app.store();
    for _ in 0..3 {
        let verb = async |work: &mut zerostate::store::Work| {
            for _ in 0..400 {
                let event =
                    zerostate::store::Event::new(entity::event::Kind::CreditsIssued, entity::event::Payload::default());
                work.record(zerostate::store::Event { payer_id: Some(user), ..event });
            }
            Ok(())
        };
        store.write(zerostate::caller::Caller::System, verb).await.unwrap();
    }
    world.cursor().await;
    world.turn(2 * DAY);
    let before = world.rows("events").await;
    let first = world.app.tidy_once().await.unwrap();
    assert!((1..=500).contains(&first), "{first} at once");
    assert_eq!(world.rows("events").await, before - i64::try_from(first).unwrap());
    world.settle().await;
    assert_eq!(world.rows("events").await, 1);
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_not_cut_where_a_clock_was_turned_back() {
    let world = World::with(|config| config.terms.keep.events = Some(7 * DAY)).await;
    let ada = world.user("ada").await;
    world.turn(10 * DAY);
    world.credit(&ada, "1").await;
    world.turn_back(9 * DAY);
    let between = world.cursor().await;
    world.credit(&ada, "2").await;
    world.turn(9 * DAY);
    world.credit(&ada, "3").await;
    // The second line is older than seven days and stands behind one that is not: it stays, so that nobody misses it unknowingly.
    world.settle().await;
    let mut stream = ada.subscribe(SETTLEMENTS, json!({ "after": between })).await;
    for _ in 0..2 {
        assert_eq!(stream.next().await["settlementEvents"]["kind"], "CREDITS_ISSUED");
    }
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_gets_its_first_answer_for_as_long_as_is_promised() {
    let world = World::with(|config| config.terms.keep.answers = Some(7 * DAY)).await;
    let ada = world.user("ada").await;
    world.credit(&ada, "100").await;
    let post = async |key: &str| {
        let input =
            json!({ "title": "t", "capabilities": ["none"], "input": "x", "budget": "1", "idempotencyKey": key });
        ada.call("executeTask", "task { id }", input).await["task"]["id"].as_str().unwrap().to_owned()
    };
    let key = fresh_key();
    let first = post(&key).await;
    world.pass(6 * DAY).await;
    assert_eq!(post(&key).await, first);
    world.pass(2 * DAY).await;
    assert_eq!(
        count(&world, &format!("idempotency_records WHERE created_at < {}", world.now().before(7 * DAY).micros()))
            .await,
        0
    );
    // After that the key is as good as new, which is why the promise is a setting.
    assert_ne!(post(&key).await, first);
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_messages_and_logs_go_and_what_they_belong_to_stays() {
    let world = World::with(|config| {
        let keep = &mut config.terms.keep;
        (keep.sessions, keep.deliveries, keep.logs) = (Some(DAY), Some(DAY), Some(DAY));
        config.terms.allow_private_webhooks = true;
        config.auth.session_ttl = 30 * DAY;
    })
    .await;
    let (ada, bob) = (world.user("ada").await, world.user("bob").await);
    world.credit(&ada, "100").await;
    world.hosted_agent(&bob, "wordy", "text.stats", "2", answering("{\"words\": 3}")).await;
    let told = world.agent(&bob, "told", "EXTERNAL", "far.away", "1").await;
    bob.call(
        "setWebhook",
        "agent { id }",
        json!({ "agentId": told.to_string(), "url": "http://127.0.0.1:1/", "idempotencyKey": fresh_key() }),
    )
    .await;
    let task = ada.execute(json!({ "capabilities": ["text.stats"], "input": "a" })).await;
    world.settle().await;
    let result = "query($id: ID!) { task(id: $id) { status paid result { output logs outputSha256 } } }";
    let fresh = ada.query(result, json!({ "id": task })).await;
    assert_eq!(fresh["task"]["result"]["logs"].as_str().unwrap().trim(), "done");
    let auction = ada.open(json!({ "capabilities": ["far.away"], "budget": "2", "closesIn": "PT1M" })).await;
    bob.bid(&auction, told, "1").await;
    world.pass(Duration::from_mins(2)).await;
    // Given up by hand: nobody listens there, and the pauses between tries are not what this is about.
    let writer = sea_orm::Database::connect(world.database_url()).await.unwrap();
    let given_up =
        format!("UPDATE deliveries SET status = 'FAILED', next_at = NULL, finished_at = {}", world.now().micros());
    assert!(writer.execute_unprepared(&given_up).await.unwrap().rows_affected() > 0);

    world.pass(2 * DAY).await;
    assert_eq!(count(&world, &format!("deliveries WHERE finished_at < {}", world.now().before(DAY).micros())).await, 0);
    let later = ada.query(result, json!({ "id": task })).await;
    assert_eq!(later["task"]["result"]["logs"], "");
    assert_eq!(later["task"]["result"]["output"], fresh["task"]["result"]["output"]);
    assert_eq!(later["task"]["result"]["outputSha256"], fresh["task"]["result"]["outputSha256"]);
    // Nothing else of a result can be changed, and no log be written into it.
    for change in ["logs = 'other'", "fuel = 0", "output = '1'", "fuel = 0, logs = ''"] {
        let refused = writer.execute_unprepared(&format!("UPDATE task_results SET {change}")).await.unwrap_err();
        assert!(refused.to_string().contains("append-only"), "{change}: {refused}");
    }
    drop(writer);

    let sessions = world.rows("sessions").await;
    assert!(sessions >= 2);
    world.pass(28 * DAY).await;
    assert_eq!(world.rows("sessions").await, sessions, "those that are not over long enough stay");
    world.pass(2 * DAY).await;
    assert_eq!(world.rows("sessions").await, 0);
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_books_are_broken_everything_is_kept() {
    let world = World::with(|config| config.terms.keep.events = Some(DAY)).await;
    let ada = world.user("ada").await;
    world.credit(&ada, "1").await;
    world.credit(&ada, "1").await;
    world.cursor().await;
    world.turn(3 * DAY);
    world.app.store().set_books(false);
    assert_eq!(world.app.tidy_once().await.unwrap(), 0);
    assert_eq!(world.rows("events").await, 2);
    world.app.store().set_books(true);
    world.settle().await;
    assert_eq!(world.rows("events").await, 1);
    world.check().await;
}
