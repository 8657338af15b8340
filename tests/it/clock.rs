//! A clock that jumps an hour ahead and steps back between any two requests: nothing ends before its time, nothing takes less than
//! no time, the log stays in order, and everything still comes to an end.
//!
//! A failure prints its seed; `CLOCK_SEED` runs that one again.

use std::{collections::HashMap, time::Duration};

use entity::{auction, bid, channel, execution, id::TaskId, task, time::Timestamp};
use rand::RngExt;
use sea_orm::EntityTrait;
use serde_json::json;
use zerostate::{caller::Caller, execution as executions};

use crate::{
    differential::Street,
    world::{World, answering},
};

const EXECUTE: &str = "mutation($input: ExecuteTaskInput!) {
    executeTask(input: $input) { task { id } userErrors { code } }
}";
const REFRESH: &str = "mutation($input: RefreshSessionInput!) { refreshSession(input: $input) {
    tokens { accessToken refreshToken user { id } } userErrors { code } } }";
const LOGIN: &str = "mutation($input: LoginInput!) { login(input: $input) {
    tokens { accessToken refreshToken user { id } } userErrors { code } } }";
const HOUR: Duration = Duration::from_hours(1);

/// Instants of one thing must be in this order, as far as it has them.
#[track_caller]
fn in_order(what: &str, instants: &[Option<Timestamp>]) {
    let known: Vec<Timestamp> = instants.iter().flatten().copied().collect();
    assert!(known.is_sorted(), "{what} takes less than no time: {instants:?}");
}

/// The deadlines of tasks that wait for the same thing as before.
type Deadlines = HashMap<(TaskId, Option<Timestamp>, &'static str), Timestamp>;

async fn look(world: &World, before: &Deadlines) -> Deadlines {
    let db = world.app.store().read();
    let mut deadlines = Deadlines::new();
    let auctions: HashMap<TaskId, auction::Model> =
        auction::Entity::find().all(db).await.unwrap().into_iter().map(|row| (row.task_id, row)).collect();
    for row in task::Entity::find().all(db).await.unwrap() {
        in_order("a task", &[Some(row.created_at), row.awarded_at, row.started_at, row.finished_at]);
        if let Some(deadline) = row.deadline_at {
            let key = (row.id, row.awarded_at, row.status.name());
            let known = before.get(&key).copied();
            assert!(known.is_none_or(|known| known <= deadline), "the deadline of {row:?} was {known:?}");
            deadlines.insert(key, deadline);
        }
        let auction = &auctions[&row.id];
        in_order("an auction", &[Some(auction.created_at), auction.closed_at]);
        let by_time = auction.close_after_bids.is_none() && auction.award_mode == auction::AwardMode::Automatic;
        if by_time && [auction::Status::Awarded, auction::Status::Expired].contains(&auction.status) {
            in_order("the time for bids", &[Some(auction.closes_at), auction.closed_at]);
        }
        if row.status == task::Status::Expired && row.failure_code.as_deref() != Some("NO_ELIGIBLE_BID") {
            let started_by =
                row.awarded_at.map(|at| at.after(Duration::from_millis(row.start_timeout_ms.try_into().unwrap())));
            in_order("the time to start", &[started_by, row.finished_at]);
        }
    }
    for row in execution::Entity::find().all(db).await.unwrap() {
        in_order("an execution", &[Some(row.created_at), row.started_at, row.finished_at]);
    }
    for row in channel::Entity::find().all(db).await.unwrap() {
        in_order("a channel", &[Some(row.opened_at), row.closed_at]);
        in_order("a channel's life", &[Some(row.opened_at), Some(row.expires_at)]);
    }
    let opened: HashMap<_, _> = auctions.values().map(|row| (row.id, row.created_at)).collect();
    for row in bid::Entity::find().all(db).await.unwrap() {
        in_order("a bid", &[Some(opened[&row.auction_id]), Some(row.created_at)]);
    }
    deadlines
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_and_steps_back_ends_nothing_early_and_nothing_before_it_began() {
    let seeds: Vec<u64> = match std::env::var("CLOCK_SEED") {
        Ok(seed) => vec![seed.parse().expect("CLOCK_SEED is a number")],
        Err(_) => (1..=3).collect(),
    };
    let (mut jumps, mut steps) = (0, 0);
    for seed in seeds {
        eprintln!("clock: CLOCK_SEED={seed}");
        let mut street = Street::new(World::start().await, seed).await;
        let mut deadlines = Deadlines::new();
        for _ in 0..100 {
            let by = Duration::from_millis(street.dice.random_range(0..20_000));
            match street.dice.random_range(0..6) {
                0 => street.world.turn(HOUR),
                1 => street.world.turn_back(HOUR),
                2 => street.world.turn_back(by),
                3 => street.world.pass(by).await,
                // A glitch: an hour off for one moment, in which the sweeper and a worker have their turn.
                4 => {
                    street.world.turn_back(HOUR);
                    street.world.settle().await;
                    street.world.turn(HOUR);
                }
                _ => jumps -= 1,
            }
            jumps += 1;
            street.step().await;
            deadlines = look(&street.world, &deadlines).await;
            steps += 1;
        }
        street.let_everything_end().await;
        let open = look(&street.world, &deadlines).await;
        assert!(open.is_empty(), "stranded: {open:?}");
        street.world.check().await;
    }
    eprintln!("clock: {steps} steps with {jumps} jumps");
}

#[tokio::test]
async fn a_lease_that_was_renewed_while_the_clock_was_behind_is_not_shorter() {
    let world = World::start().await;
    let (payer, owner) = (world.user("payer").await, world.user("owner").await);
    world.credit(&payer, "10").await;
    world.hosted_agent(&owner, "one", "work", "2", answering("1")).await;
    let input = json!({
        "title": "x", "capabilities": ["work"], "input": 1, "budget": "3", "timeout": "PT300S", "idempotencyKey": "x",
    });
    payer.done("executeTask", EXECUTE, json!({ "input": input })).await;
    let store = world.app.store();
    let claim = store.write(Caller::System, async |work| executions::claim(work, "one").await).await.unwrap().unwrap();
    let (id, task, token) = (claim.execution.id, claim.task.id, claim.execution.token);
    world.turn_back(HOUR);
    store.write(Caller::System, async |work| executions::heartbeat(work, id, token).await).await.unwrap();
    world.turn(HOUR + Duration::from_secs(20));
    assert_eq!(world.app.sweep_once().await.unwrap(), 0, "ten seconds of the lease are left");
    let ended = store.write(Caller::System, async |work| executions::expire_lease(work, task, id).await).await.unwrap();
    assert!(!ended);
    world.turn(Duration::from_secs(11));
    assert_eq!(world.app.sweep_once().await.unwrap(), 1, "and now it is over");
    world.pass(Duration::from_mins(1)).await;
    world.check().await;
}

#[tokio::test]
async fn a_token_is_good_for_its_time_whatever_the_clock_does_meanwhile() {
    let world = World::with(|config| {
        config.auth.access_ttl = Duration::from_mins(15);
        config.auth.session_ttl = Duration::from_hours(30 * 24);
    })
    .await;
    world.user("ada").await;
    let input = json!({ "input": { "email": "ada@example.com", "password": crate::world::PASSWORD } });
    let tokens = world.anonymous().done("login", LOGIN, input).await["tokens"].clone();
    let ada = world.anonymous().signed_in("ada", &tokens);
    let is_good = async || ada.try_query("{ me { id } }", json!({})).await.is_ok();
    // Issued in what is now the future.
    world.turn_back(HOUR);
    assert!(is_good().await);
    world.turn(HOUR + Duration::from_mins(14));
    assert!(is_good().await);
    world.turn(HOUR);
    assert!(!is_good().await, "the clock says that its time is over");
    world.turn_back(HOUR);
    assert!(is_good().await, "and it was wrong");
    world.turn(Duration::from_mins(2));
    assert!(!is_good().await);
    // The session is renewed also when the clock steps back behind the sign-in.
    world.turn_back(HOUR);
    let refresh = json!({ "input": { "refreshToken": tokens["refreshToken"] } });
    let renewed = world.anonymous().done("refreshSession", REFRESH, refresh).await["tokens"].clone();
    let ada = world.anonymous().signed_in("ada", &renewed);
    assert!(ada.try_query("{ me { id } }", json!({})).await.is_ok());
    world.check().await;
}
