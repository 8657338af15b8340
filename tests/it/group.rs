//! Units of work that share a commit: each is whole or undone by itself, and all are durable before anybody is answered.

#![expect(clippy::disallowed_methods, reason = "units of work are dropped on purpose, which a tracker would not do")]

use std::sync::Arc;

use entity::{
    event::{Kind, Payload},
    id::UserId,
    money::Amount,
};
use futures_util::future::join_all;
use sea_orm::ConnectionTrait;
use tokio::sync::Notify;
use zerostate::{
    caller::Caller,
    error::{Error, Result},
    store::{Cursor, Event, Store, Topic, Work},
};

use crate::world::{World, on_postgres};

/// Records a line about the user with a number by which it is known again.
fn record(work: &mut Work, user: UserId, number: i64) {
    let amount = Some(Amount::from_micros(number).unwrap());
    let mut event = Event::new(Kind::CreditsIssued, Payload { amount, ..Payload::default() });
    event.payer_id = Some(user);
    work.record(event);
}

async fn write(store: &Store, user: UserId, number: i64) -> Result<()> {
    let verb = async |work: &mut Work| {
        record(work, user, number);
        Ok(())
    };
    store.write(Caller::System, verb).await
}

/// The numbers of the lines about the user.
async fn numbers(store: &Store, user: UserId) -> Vec<i64> {
    let lines = store.lines(Some(Topic::User(user)), Some(Cursor::default()), 500).await.unwrap();
    let mut numbers: Vec<i64> = lines.iter().filter_map(|line| line.event.payload.amount).map(Amount::micros).collect();
    numbers.sort_unstable();
    numbers
}

async fn world() -> (World, Store, UserId) {
    let world = World::start().await;
    let user = world.user("ada").await.id().parse().unwrap();
    let store = world.app.store().clone();
    (world, store, user)
}

/// A unit of work that is at it until it is told to end; answers when it has begun.
async fn begin(store: &Store, user: UserId, number: i64, end: &Arc<Notify>) -> tokio::task::JoinHandle<Result<()>> {
    let (store, end, begun) = (store.clone(), Arc::clone(end), Arc::new(Notify::new()));
    let here = Arc::clone(&begun);
    let unit = tokio::spawn(async move {
        let verb = async |work: &mut Work| {
            record(work, user, number);
            here.notify_one();
            end.notified().await;
            Ok(())
        };
        store.write(Caller::System, verb).await
    });
    begun.notified().await;
    unit
}

/// Lets units of work get into the line behind one that is at it.
async fn line_up() {
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn units_that_come_together_share_a_commit_and_one_that_is_alone_has_its_own() {
    let (world, store, user) = world().await;
    let before = store.commits();
    let done = join_all((1..=200).map(|number| write(&store, user, number))).await;
    assert!(done.iter().all(Result::is_ok), "{done:?}");
    let commits = store.commits() - before;
    if on_postgres() {
        assert_eq!(commits, 200);
    } else {
        assert!(commits <= 20, "{commits} commits");
    }
    assert_eq!(numbers(&store, user).await, (1..=200).collect::<Vec<_>>());
    let before = store.commits();
    write(&store, user, 201).await.unwrap();
    assert_eq!(store.commits() - before, 1);
    world.check().await;
}

#[tokio::test]
async fn a_unit_that_is_refused_takes_nobody_with_it() {
    let (world, store, user) = world().await;
    let done = join_all((1..=60).map(|number| {
        let store = &store;
        async move {
            let verb = async |work: &mut Work| {
                record(work, user, number);
                if number % 3 == 0 { Err(Error::invalid("number", "must not be a multiple of three")) } else { Ok(()) }
            };
            store.write(Caller::System, verb).await
        }
    }))
    .await;
    for (number, done) in (1..).zip(&done) {
        assert_eq!(done.is_err(), number % 3 == 0, "{number}: {done:?}");
    }
    assert_eq!(numbers(&store, user).await, (1..=60).filter(|number| number % 3 != 0).collect::<Vec<_>>());
    world.check().await;
}

#[tokio::test]
async fn a_unit_that_is_abandoned_is_undone_and_those_behind_it_are_done() {
    let (world, store, user) = world().await;
    let first = begin(&store, user, 1, &Arc::default()).await;
    let behind = join_all((2..=9).map(|number| write(&store, user, number)));
    let drop_first = async {
        line_up().await;
        first.abort();
    };
    let (done, ()) = futures_util::join!(behind, drop_first);
    assert!(done.iter().all(Result::is_ok), "{done:?}");
    assert_eq!(numbers(&store, user).await, (2..=9).collect::<Vec<_>>());
    world.check().await;
}

#[tokio::test]
async fn a_unit_is_done_although_the_one_that_it_waited_for_to_join_went_away() {
    let (world, store, user) = world().await;
    let end = Arc::default();
    let first = begin(&store, user, 1, &end).await;
    let second = tokio::spawn({
        let store = store.clone();
        async move { write(&store, user, 2).await }
    });
    // On PostgreSQL nobody waits, so the second is over before it can be given up.
    let expected: &[i64] = if on_postgres() {
        second.await.unwrap().unwrap();
        &[1, 2]
    } else {
        line_up().await;
        second.abort();
        &[1]
    };
    end.notify_one();
    first.await.unwrap().unwrap();
    assert_eq!(numbers(&store, user).await, expected);
    write(&store, user, 3).await.unwrap();
    world.check().await;
}

#[tokio::test]
async fn a_unit_that_panics_is_undone_and_the_next_is_done() {
    let (world, store, user) = world().await;
    let panics = tokio::spawn({
        let store = store.clone();
        async move {
            let verb = async |work: &mut Work| -> Result<()> {
                record(work, user, 1);
                panic!("on purpose")
            };
            store.write(Caller::System, verb).await
        }
    });
    assert!(panics.await.unwrap_err().is_panic());
    write(&store, user, 2).await.unwrap();
    assert_eq!(numbers(&store, user).await, [2]);
    world.check().await;
}

#[tokio::test]
async fn when_the_database_drops_a_transaction_all_who_share_it_are_told_and_nothing_of_them_stays() {
    let (world, store, user) = world().await;
    let end = Arc::default();
    let first = begin(&store, user, 1, &end).await;
    // What SQLite does by itself when the disk is full.
    let loses_all = async |work: &mut Work| {
        record(work, user, 2);
        work.tx().execute_unprepared("ROLLBACK").await?;
        Err::<(), _>(Error::internal("the disk is full"))
    };
    let second = store.write(Caller::System, loses_all);
    let let_go = async {
        line_up().await;
        end.notify_one();
    };
    let (second, ()) = futures_util::join!(second, let_go);
    assert!(matches!(second, Err(Error::Internal(_))), "{second:?}");
    let first = first.await.unwrap();
    if on_postgres() {
        first.unwrap();
        assert_eq!(numbers(&store, user).await, [1]);
    } else {
        assert!(matches!(first, Err(Error::Unavailable(_))), "{first:?}");
        assert_eq!(numbers(&store, user).await, [0_i64; 0]);
    }
    write(&store, user, 3).await.unwrap();
    assert!(numbers(&store, user).await.ends_with(&[3]));
    world.check().await;
}

#[tokio::test]
async fn a_refusal_does_not_stand_when_what_it_was_for_is_undone() {
    let (world, store, user) = world().await;
    let end = Arc::default();
    let first = begin(&store, user, 1, &end).await;
    let refused = store.write(Caller::System, async |_: &mut Work| Err::<(), _>(Error::NotFound("task")));
    let loses_all = store.write(Caller::System, async |work: &mut Work| {
        work.tx().execute_unprepared("ROLLBACK").await?;
        Err::<(), _>(Error::internal("the disk is full"))
    });
    let let_go = async {
        line_up().await;
        end.notify_one();
    };
    let (refused, _, ()) = futures_util::join!(refused, loses_all, let_go);
    if !on_postgres() {
        assert!(first.await.unwrap().is_err());
        assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    }
    world.check().await;
}
