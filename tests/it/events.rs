//! The order of events when writers overlap: every reader sees every event once, in the order of the cursors, whoever is slow.

use std::time::{Duration, Instant};

use entity::{
    event::{self, Kind, Payload},
    id::UserId,
    money::Amount,
    user::Role,
};
use futures_util::future::{join, join_all};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use sea_orm::{ActiveValue::Set, ConnectionTrait, EntityTrait};
use serde_json::{Value, json};
use tokio::sync::Notify;
use zerostate::{
    caller::{Caller, Identity},
    error::Result,
    store::{Cursor, Event, Follow, Store, Topic, Work},
};

use crate::world::{Client, PATIENCE, Stream, World, on_postgres};

const SETTLEMENTS: &str = "subscription($after: EventCursor) {
    settlementEvents(after: $after) { id cursor ... on CreditsEvent { amount } }
}";

fn user_of(client: &Client) -> UserId {
    client.id().parse().unwrap()
}

fn administrator(client: &Client) -> Caller {
    Caller::User(Identity { user: user_of(client), role: Role::Admin, session: None, key: None, expires_at: None })
}

fn amount(credits: i64) -> Amount {
    Amount::from_micros(credits * 1_000_000).unwrap()
}

/// Writes a line that only its transaction sees yet, with a row number before those of everybody who comes later.
async fn write_a_line(work: &Work, user: UserId, credits: i64) -> Result<()> {
    let row = event::ActiveModel {
        kind: Set(Kind::CreditsIssued),
        payer_id: Set(Some(user)),
        payload: Set(Payload { amount: Some(amount(credits)), ..Payload::default() }),
        occurred_at: Set(work.now()),
        ..event::ActiveModel::default()
    };
    event::Entity::insert(row).exec_without_returning(work.tx()).await?;
    Ok(())
}

/// Everything that the log says of a user behind a cursor.
async fn log_of(store: &Store, user: UserId, after: Cursor) -> Vec<Cursor> {
    let mut found: Vec<Cursor> = Vec::new();
    loop {
        let page =
            store.lines(Some(Topic::User(user)), Some(found.last().copied().unwrap_or(after)), 500).await.unwrap();
        if page.is_empty() {
            return found;
        }
        found.extend(page.iter().map(|line| line.cursor));
    }
}

fn cursor_of(event: &Value) -> Cursor {
    event["settlementEvents"]["cursor"].as_str().unwrap().parse().unwrap()
}

async fn read_stream(stream: &mut Stream, count: usize) -> Vec<Cursor> {
    let mut read = Vec::new();
    while read.len() < count {
        read.push(cursor_of(&stream.next().await));
    }
    read
}

async fn read_follow(follow: &mut Follow, count: usize) -> Vec<Cursor> {
    let mut read = Vec::new();
    while read.len() < count {
        let next = tokio::time::timeout(PATIENCE, follow.next()).await.expect("an event in time");
        read.push(next.expect("the feed goes on").unwrap().cursor);
    }
    read
}

/// Tells that nothing further comes.
async fn is_quiet(follow: &mut Follow) -> bool {
    tokio::time::timeout(Duration::from_millis(100), follow.next()).await.is_err()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_event_that_commits_late_holds_nobody_up_and_is_not_lost() {
    if !on_postgres() {
        // SQLite has one writer: nothing commits late. The test beside this one runs there.
        return;
    }
    let world = World::start().await;
    let (ada, admin) = (world.user("ada").await, world.admin().await);
    let (store, user) = (world.app.store(), user_of(&ada));
    let start = world.cursor().await;
    let mut stream = ada.subscribe(SETTLEMENTS, json!({ "after": start })).await;
    let mut follow = store.follow(Topic::User(user), Some(start.parse().unwrap())).await.unwrap();

    let (is_written, may_commit) = (Notify::new(), Notify::new());
    let late = store.write(administrator(&admin), async |work| {
        write_a_line(work, user, 7).await?;
        is_written.notify_one();
        may_commit.notified().await;
        Ok(())
    });
    let others = async {
        is_written.notified().await;
        let mut seen = Vec::new();
        for credits in ["11", "12", "13"] {
            world.credit(&ada, credits).await;
            seen.push(stream.next().await);
        }
        assert_eq!(log_of(store, user, start.parse().unwrap()).await.len(), 3, "nobody waits for the late one");
        may_commit.notify_one();
        seen.push(stream.next().await);
        seen
    };
    let (done, seen) = join(late, others).await;
    done.unwrap();
    let amounts: Vec<&str> = seen.iter().map(|event| event["settlementEvents"]["amount"].as_str().unwrap()).collect();
    assert_eq!(amounts, ["11", "12", "13", "7"], "it comes behind what was told before it was there");
    let cursors: Vec<Cursor> = seen.iter().map(cursor_of).collect();
    assert!(cursors.is_sorted() && cursors == log_of(store, user, start.parse().unwrap()).await);
    assert_eq!(read_follow(&mut follow, 4).await, cursors);
    assert_eq!(stream.next_within(Duration::from_millis(100)).await, None);
    world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_order_writers_commit_in_readers_agree() {
    const WRITERS: usize = 40;
    let world = World::start().await;
    let (ada, admin) = (world.user("ada").await, world.admin().await);
    let (store, user) = (world.app.store(), user_of(&ada));
    let peer = if on_postgres() { Some(world.another().await) } else { None };
    let start = world.cursor().await;
    let after: Cursor = start.parse().unwrap();
    let mut stream = ada.subscribe(SETTLEMENTS, json!({ "after": start })).await;
    let mut live = store.follow(Topic::User(user), None).await.unwrap();
    let elsewhere = peer.as_ref().map_or(&world.app, |peer| &peer.app);
    let mut far = elsewhere.store().follow(Topic::User(user), Some(after)).await.unwrap();

    let mut dice = StdRng::seed_from_u64(7);
    let pauses: Vec<(u64, u64)> = (0..WRITERS).map(|_| (dice.random_range(0..25), dice.random_range(0..25))).collect();
    let writing = join_all(pauses.iter().enumerate().map(async |(number, (before, within))| {
        tokio::time::sleep(Duration::from_millis(*before)).await;
        let from = if number % 3 == 0 { elsewhere } else { &world.app };
        let verb = async |work: &mut Work| {
            write_a_line(work, user, 1).await?;
            tokio::time::sleep(Duration::from_millis(*within)).await;
            Ok(())
        };
        from.store().write(administrator(&admin), verb).await.unwrap();
    }));
    // One that joins in the middle sees what is behind its cursor, too.
    let joining = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        store.follow(Topic::User(user), Some(after)).await.unwrap()
    };
    let (_, mut late) = join(writing, joining).await;

    let seen = read_stream(&mut stream, WRITERS).await;
    assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "once each, in order: {seen:?}");
    assert_eq!(seen, log_of(store, user, after).await);
    for (name, follow) in [("live", &mut live), ("another process", &mut far), ("late", &mut late)] {
        assert_eq!(read_follow(follow, WRITERS).await, seen, "{name}");
        assert!(is_quiet(follow).await, "{name}");
    }
    // From every place in the middle there is the rest, once.
    for place in [0, WRITERS / 2, WRITERS - 1] {
        let mut resumed = store.follow(Topic::User(user), Some(seen[place])).await.unwrap();
        assert_eq!(read_follow(&mut resumed, WRITERS - 1 - place).await, seen[place + 1..]);
        assert!(is_quiet(&mut resumed).await);
    }
    world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn another_process_tells_of_events_at_once() {
    const EVENTS: u32 = 20;
    if !on_postgres() {
        // One process has the embedded database.
        return;
    }
    let world = World::start().await;
    let ada = world.user("ada").await;
    let peer = world.another().await;
    let mut there = ada.at(peer.address).subscribe(SETTLEMENTS, json!({ "after": world.cursor().await })).await;
    world.credit(&ada, "1").await;
    there.next().await;
    let started = Instant::now();
    for credits in 1..=EVENTS {
        world.credit(&ada, &credits.to_string()).await;
        assert_eq!(there.next().await["settlementEvents"]["amount"], credits.to_string());
    }
    // A process that only polled, every half second, would need ten seconds.
    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
    world.check().await;
}

/// Commits `count` events about a user in one unit of work.
async fn record(store: &Store, user: UserId, count: usize) {
    let about = |number| Event {
        payer_id: Some(user),
        ..Event::new(Kind::CreditsIssued, Payload { amount: Some(amount(number)), ..Payload::default() })
    };
    let verb = async |work: &mut Work| {
        (1..).take(count).for_each(|number| work.record(about(number)));
        Ok(())
    };
    store.write(Caller::System, verb).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_is_too_slow_for_the_feed_catches_up_from_the_log() {
    const ROUNDS: usize = 5;
    const EACH: usize = 200;
    let world = World::start().await;
    let ada = world.user("ada").await;
    let (store, user) = (world.app.store(), user_of(&ada));
    let start: Cursor = world.cursor().await.parse().unwrap();
    let mut slow = store.follow(Topic::User(user), Some(start)).await.unwrap();
    let mut quick = store.follow(Topic::User(user), Some(start)).await.unwrap();
    record(store, user, 1).await;
    let first = read_follow(&mut slow, 1).await;
    read_follow(&mut quick, 1).await;
    // The feed keeps 256 events for a reader; these are four times as many.
    for _ in 0..ROUNDS {
        record(store, user, EACH).await;
        read_follow(&mut quick, EACH).await;
    }
    let all = log_of(store, user, start).await;
    assert_eq!(all.len(), 1 + ROUNDS * EACH);
    let rest = read_follow(&mut slow, all.len() - 1).await;
    assert_eq!([first, rest].concat(), all);
    // It follows again, live.
    record(store, user, 1).await;
    assert_eq!(read_follow(&mut slow, 1).await, read_follow(&mut quick, 1).await);
    assert!(is_quiet(&mut slow).await);
    world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_socket_that_reads_slowly_misses_nothing() {
    const EVENTS: usize = 3_000;
    let world = World::start().await;
    let ada = world.user("ada").await;
    let (store, user) = (world.app.store(), user_of(&ada));
    let start = world.cursor().await;
    let mut slow = ada.subscribe(SETTLEMENTS, json!({ "after": start })).await;
    for _ in 0..EVENTS / 500 {
        record(store, user, 500).await;
        // A slow reader takes one while five hundred come.
        slow.next().await;
    }
    let seen = read_stream(&mut slow, EVENTS - EVENTS / 500).await;
    assert_eq!(seen, log_of(store, user, start.parse().unwrap()).await[EVENTS / 500..]);
    assert_eq!(slow.next_within(Duration::from_millis(100)).await, None);
    world.check().await;
}

#[tokio::test]
async fn a_cursor_before_what_is_kept_is_told_so() {
    let world = World::start().await;
    let ada = world.user("ada").await;
    let before = world.cursor().await;
    for _ in 0..5 {
        world.credit(&ada, "1").await;
    }
    let kept = world.cursor().await;
    world.credit(&ada, "1").await;
    // Every line has its place now, the newest too, which retention would keep.
    world.cursor().await;
    let writer = sea_orm::Database::connect(world.database_url()).await.unwrap();
    let place = if on_postgres() { "place" } else { "id" };
    writer.execute_unprepared(&format!("DELETE FROM events WHERE {place} <= 5")).await.unwrap();

    let document = "query($after: EventCursor) { events(after: $after) { nodes { kind } } }";
    let error = ada.try_query(document, json!({ "after": before })).await.unwrap_err();
    assert_eq!(error[0]["extensions"]["reason"], "CURSOR_EXPIRED", "{error:?}");
    let mut stream = ada
        .subscribe(
            "subscription($after: EventCursor) { settlementEvents(after: $after) { kind } }",
            json!({ "after": before }),
        )
        .await;
    assert_eq!(stream.error().await[0]["extensions"]["reason"], "CURSOR_EXPIRED");
    // What is kept can be followed from any place in it.
    let mut stream = ada
        .subscribe(
            "subscription($after: EventCursor) { settlementEvents(after: $after) { kind } }",
            json!({ "after": kept }),
        )
        .await;
    assert_eq!(stream.next().await["settlementEvents"]["kind"], "CREDITS_ISSUED");
    world.check().await;
}
