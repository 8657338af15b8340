//! The real program, killed without a warning while sixteen clients work: at random moments, also while it starts, and at named
//! places between two steps of its work. What it acknowledged is there exactly once and is answered the same again, whatever was
//! under way comes to an end, and the books are right.
//!
//! `make crash` runs 200 such cycles; `CRASH_CYCLES` says how many. A failure prints its seed and keeps its folder; `CRASH_SEED`
//! runs that one again, as far as the moments of a kill can be repeated.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use futures_util::future::join;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio_util::sync::CancellationToken;
use zerostate::store::failpoint::POINTS;

use crate::{
    faults::{
        Folder, oracle,
        program::{Program, Server},
        seed, setting, some_millis,
        workload::{CLIENTS, Intent, Manners, Workload},
    },
    world::{Client, Database, http, on_postgres},
};

/// Kills after which everything is let come to its end and looked at.
const GROUP: usize = 10;
const MANNERS: Manners = Manners { gives_up_once_in: 5, repeats: 1, pause: 120 };

/// How often the process died where.
#[derive(Default)]
struct Kills {
    at_points: BTreeMap<&'static str, usize>,
    /// It did not come by the point in time and was killed at that moment.
    missed: usize,
    at_moments: usize,
    starting: usize,
}

impl Kills {
    fn count(&self) -> usize {
        self.at_points.values().sum::<usize>() + self.missed + self.at_moments + self.starting
    }
}

/// Lets the server die so many times and leaves it running at last.
async fn kill_and_restart(
    program: &Program,
    server: Server,
    dice: &mut StdRng,
    kills: &mut Kills,
    cycles: usize,
) -> Server {
    drop(server);
    for cycle in 0..cycles {
        if cycle % 5 < 3 {
            // One after the other, so that each has its turn.
            let point = POINTS[(kills.missed + kills.at_points.values().sum::<usize>()) % POINTS.len()];
            // What everybody passes, it passes often.
            let most = if point.starts_with("store") || point.starts_with("once") { 30 } else { 6 };
            let mut server = program.start_with(Some(&format!("{point}={}", dice.random_range(1..=most))));
            if server.ends_within(Duration::from_secs(4)).await {
                *kills.at_points.entry(point).or_default() += 1;
            } else {
                kills.missed += 1;
            }
        } else {
            let server = program.start();
            if dice.random_range(0..4) > 0 {
                program.is_ready().await;
                kills.at_moments += 1;
                tokio::time::sleep(some_millis(dice, 0..1_200)).await;
            } else {
                kills.starting += 1;
                tokio::time::sleep(some_millis(dice, 0..500)).await;
            }
            drop(server);
        }
    }
    let server = program.start();
    program.is_ready().await;
    server
}

async fn story(folder: &Path, database: Option<String>, cycles: usize) {
    let (seed, began) = (seed("CRASH_SEED"), Instant::now());
    eprintln!("crash: CRASH_SEED={seed}");
    let mut dice = StdRng::seed_from_u64(seed);
    let program = Program::new(folder, database);
    let mut server = program.start();
    program.is_ready().await;
    let mut workload = Workload::set_up(&Client::new(http(), program.address), seed).await;
    let (mut kills, mut intents, mut slowest): (Kills, Vec<Intent>, Duration) = Default::default();
    while kills.count() < cycles {
        let over = CancellationToken::new();
        let killing = async {
            let server = kill_and_restart(&program, server, &mut dice, &mut kills, GROUP.min(cycles)).await;
            over.cancel();
            server
        };
        let (mut new, alive) = join(workload.run(MANNERS, &over), killing).await;
        server = alive;
        slowest = slowest.max(oracle::judge(&program.database_url(), &mut workload, &mut new, &mut intents).await);
        // What is done is done, also when the server dies once more.
        drop(server);
        program.audit();
        server = program.start();
        program.is_ready().await;
        eprintln!("crash: {} kills, {} intents, {:?}", kills.count(), intents.len(), began.elapsed());
    }
    oracle::Oracle::open(&program.database_url()).await.everything_happened_as_it_was_answered(&intents).await;
    let (tries, failures) = (&workload.board.tries, &workload.board.failures);
    eprintln!(
        "crash: {} kills under {CLIENTS} clients in {:?}: {} at moments, {} at starts, {} at failpoints {:?}, {} points not met",
        kills.count(),
        began.elapsed(),
        kills.at_moments,
        kills.starting,
        kills.at_points.values().sum::<usize>(),
        kills.at_points,
        kills.missed,
    );
    eprintln!(
        "crash: {} intents in {tries:?} requests, {failures:?} of them failed; the slowest end took {slowest:?}; done of asked: {:?}",
        intents.len(),
        Workload::census(&intents),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_forgets_nothing_and_does_nothing_twice() {
    let folder = Folder::new();
    let database = Database::empty(folder.path()).await;
    let (url, usual) = match &database {
        // The one in the data folder.
        Database::Sqlite(_) => (None, 20),
        Database::Postgres { .. } => (Some(database.url()), 10),
    };
    assert_eq!(on_postgres(), url.is_some());
    story(folder.path(), url, setting("CRASH_CYCLES", usual)).await;
}
