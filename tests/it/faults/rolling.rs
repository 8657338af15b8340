//! Two instances over one PostgreSQL are replaced one after the other, again and again, while clients work: each is told to end,
//! lets what is under way end, and another one takes its place. Nothing fails but with codes on which clients try again, and
//! nothing that was acknowledged is lost.

use std::{
    process::Command,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use futures_util::future::join;
use tokio_util::sync::CancellationToken;

use super::{
    Folder, oracle,
    program::Program,
    proxy::Switch,
    seed,
    workload::{Manners, Workload},
};
use crate::world::{Client, Database, http, on_postgres};

const MANNERS: Manners = Manners { gives_up_once_in: 1_000_000, repeats: 1, pause: 250 };
/// How long deploy/ lets an instance take to end.
const DRAIN: Duration = Duration::from_mins(1);
const ROUNDS: usize = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_that_are_replaced_one_after_the_other_fail_no_client() {
    if !on_postgres() {
        return;
    }
    let (seed, began) = (seed("ROLLING_SEED"), Instant::now());
    eprintln!("rolling: ROLLING_SEED={seed}");
    let folder = Folder::new();
    let database = Database::empty(folder.path()).await;
    // They share the folder because the keys are in it.
    let programs = [(); 2].map(|()| Program::new(folder.path(), Some(database.url())));
    let mut servers = programs.each_ref().map(Program::start);
    for program in &programs {
        program.is_ready().await;
    }
    let balancer = Switch::start(programs[0].address).await;
    let mut workload = Workload::set_up(&Client::new(http(), balancer.address), seed).await;

    let over = CancellationToken::new();
    let replacing = async {
        let mut longest = Duration::ZERO;
        for _ in 0..ROUNDS {
            for (going, staying) in [(0, 1), (1, 0)] {
                tokio::time::sleep(Duration::from_millis(300)).await;
                balancer.lead_new_to(programs[staying].address);
                let (told, server) = (Instant::now(), &mut servers[going]);
                assert!(Command::new("kill").args(["-TERM", &server.id().to_string()]).status().unwrap().success());
                assert!(server.ends_within(DRAIN).await, "an instance does not end: {}", programs[going].last_words());
                assert_eq!(server.ended().unwrap().code(), Some(0), "{}", programs[going].last_words());
                longest = longest.max(told.elapsed());
                *server = programs[going].start();
                programs[going].is_ready().await;
            }
        }
        over.cancel();
        longest
    };
    let (mut new, longest) = join(workload.run(MANNERS, &over), replacing).await;
    let (tries, failures) =
        (workload.board.tries.load(Ordering::Relaxed), workload.board.failures.load(Ordering::Relaxed));
    workload.talk_to(&http(), programs[0].address);
    let mut intents = Vec::new();
    oracle::judge(&database.url(), &mut workload, &mut new, &mut intents).await;
    programs[0].audit();
    drop(servers);
    assert!(tries > 100 && failures * 10 < tries, "{failures} of {tries} requests had to be sent again");
    eprintln!(
        "rolling: {} intents in {tries} requests, {failures} of which were sent again, over {} replacements that took {longest:?} at \
         most to end, in {:?}",
        intents.len(),
        2 * ROUNDS,
        began.elapsed(),
    );
}
