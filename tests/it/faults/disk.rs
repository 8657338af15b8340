//! A disk that is full or fails, and a database that another process holds: money moves wholly or not at all, callers are told that
//! they may try again, and the service goes on when there is room again.

use std::{
    process::Command,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use futures_util::future::join;
use sea_orm::{ConnectionTrait, EntityTrait, PaginatorTrait};
use serde_json::{Value, json};
use sqlx::{Connection, Executor, SqliteConnection};
use tokio_util::sync::CancellationToken;
use zerostate::caller::Caller;

use super::{
    Folder, oracle,
    program::Program,
    seed,
    workload::{Manners, Workload},
};
use crate::world::{Client, World, answering, http, on_postgres};

const EXECUTE: &str =
    "mutation($input: ExecuteTaskInput!) { executeTask(input: $input) { task { id } userErrors { code } } }";
const WALLET: &str = "{ me { wallet { available inEscrow } } }";

fn task(key: &str, bytes: usize) -> Value {
    json!({ "input": {
        "title": key, "capabilities": ["work"], "input": "x".repeat(bytes), "budget": "3", "idempotencyKey": key,
    } })
}

/// What must be said of a mutation that cannot be done now.
#[track_caller]
fn is_told_to_come_back(errors: &[Value]) {
    let extensions = &errors[0]["extensions"];
    assert_eq!((&extensions["code"], &extensions["retryable"]), (&json!("UNAVAILABLE"), &json!(true)), "{errors:#?}");
}

async fn tasks(world: &World) -> u64 {
    entity::task::Entity::find().count(world.app.store().read()).await.unwrap()
}

#[tokio::test]
async fn a_full_database_refuses_money_wholly_and_goes_on_when_there_is_room() {
    if on_postgres() {
        return;
    }
    let world = World::start().await;
    let (payer, owner) = (world.user("payer").await, world.user("owner").await);
    world.credit(&payer, "10").await;
    world.hosted_agent(&owner, "one", "work", "2", answering("1")).await;
    payer.done("executeTask", EXECUTE, task("before", 10)).await;
    let before = payer.query(WALLET, json!({})).await;

    // The connection of the writer may not make the file any larger.
    let full =
        async |work: &mut zerostate::store::Work| Ok(work.tx().execute_unprepared("PRAGMA max_page_count = 1").await?);
    for round in 0..3 {
        world.app.store().write(Caller::System, full).await.unwrap();
        let key = format!("large-{round}");
        let refused = payer.try_query(EXECUTE, task(&key, 200_000)).await.unwrap_err();
        is_told_to_come_back(&refused);
        assert_eq!(tasks(&world).await, 1 + round, "nothing of it is there");
        let audit = world.app.audit().await.unwrap();
        assert!(audit.ok(), "{audit:#?}");
        // The connection that met the limit is gone, and the limit with it.
        let made = payer.done("executeTask", EXECUTE, task(&key, 200_000)).await;
        assert_eq!(made, payer.done("executeTask", EXECUTE, task(&key, 200_000)).await, "and once");
        assert_eq!(tasks(&world).await, 2 + round);
    }
    assert_ne!(before, payer.query(WALLET, json!({})).await);
    world.settle().await;
    assert_eq!(payer.query(WALLET, json!({})).await["me"]["wallet"], json!({ "available": "2", "inEscrow": "0" }));
    world.check().await;
}

#[tokio::test]
async fn a_database_that_another_process_holds_is_busy_and_loses_nothing() {
    if on_postgres() {
        return;
    }
    let world = World::with(|config| config.storage.acquire_timeout = Duration::from_millis(300)).await;
    let (payer, owner) = (world.user("payer").await, world.user("owner").await);
    world.credit(&payer, "10").await;
    world.hosted_agent(&owner, "one", "work", "2", answering("1")).await;
    let mut other = SqliteConnection::connect(&world.database_url()).await.unwrap();
    for round in 0..2 {
        other.execute("BEGIN IMMEDIATE").await.unwrap();
        let key = format!("busy-{round}");
        let refused = payer.try_query(EXECUTE, task(&key, 10)).await.unwrap_err();
        is_told_to_come_back(&refused);
        // Reading goes on.
        assert_eq!(tasks(&world).await, round);
        other.execute("ROLLBACK").await.unwrap();
        let made = payer.done("executeTask", EXECUTE, task(&key, 10)).await;
        assert_eq!(made, payer.done("executeTask", EXECUTE, task(&key, 10)).await, "and once");
        assert_eq!(tasks(&world).await, round + 1);
    }
    other.close().await.unwrap();
    world.settle().await;
    assert_eq!(payer.query(WALLET, json!({})).await["me"]["wallet"], json!({ "available": "6", "inEscrow": "0" }));
    world.check().await;
}

#[tokio::test]
async fn a_service_whose_writer_is_busy_is_ready_all_the_same() {
    let world = World::start().await;
    let ready = async || world.http().get(world.url("/ready")).send().await.unwrap().status().as_u16();
    let store = world.app.store();
    // As at the start of the service.
    world.app.audit().await.unwrap();
    // The one writer of the embedded database is taken for longer than a look at the database may last.
    let asked = store.write(Caller::System, async |_| {
        let asked = ready().await;
        Ok(asked)
    });
    assert_eq!(asked.await.unwrap(), 200);
    world.check().await;
}

/// Lets a process write files up to so many bytes, or any.
fn limit_files(process: u32, bytes: Option<u64>) {
    let soft = bytes.map_or_else(|| "unlimited".to_owned(), |bytes| bytes.to_string());
    let limited = Command::new("prlimit")
        .args(["--pid", &process.to_string(), &format!("--fsize={soft}:unlimited")])
        .status()
        .expect("prlimit of util-linux is there");
    assert!(limited.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_takes_no_more_stops_money_and_loses_none() {
    if on_postgres() || !cfg!(target_os = "linux") {
        return;
    }
    let (seed, began) = (seed("DISK_SEED"), Instant::now());
    eprintln!("disk: DISK_SEED={seed}");
    let folder = Folder::new();
    let program = Program::new(folder.path(), None);
    // A write beyond the limit is an error and not the end of the process.
    let mut shell = Command::new("bash");
    shell.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_zerostate")]);
    let server = program.start_by(shell, None);
    program.is_ready().await;
    let mut workload = Workload::set_up(&Client::new(http(), program.address), seed).await;

    let failed = Arc::clone(&workload.board.failures);
    let over = CancellationToken::new();
    let failing = async {
        let mut failures = Vec::new();
        for round in 0..3 {
            tokio::time::sleep(Duration::from_millis(900)).await;
            let before = failed.load(Ordering::Relaxed);
            // Room for a few pages, and for a part of one.
            limit_files(server.id(), Some(10_000 + 7_000 * round));
            tokio::time::sleep(Duration::from_millis(900)).await;
            limit_files(server.id(), None);
            failures.push(failed.load(Ordering::Relaxed) - before);
        }
        over.cancel();
        failures
    };
    let manners = Manners { gives_up_once_in: 5, repeats: 1, pause: 30 };
    let (mut new, failures) = join(workload.run(manners, &over), failing).await;
    let mut intents = Vec::new();
    oracle::judge(&program.database_url(), &mut workload, &mut new, &mut intents).await;
    drop(server);
    program.audit();
    assert!(failures.iter().all(|failures| *failures > 0), "the disk was full each time: {failures:?}");
    eprintln!(
        "disk: {} intents, {failures:?} requests failed while it was full, in {:?}; done of asked: {:?}",
        intents.len(),
        began.elapsed(),
        Workload::census(&intents),
    );
}
