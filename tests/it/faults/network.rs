//! A network that cuts before the request, in it, after it, before the answer and in it, that stalls, and that delivers twice.

use std::time::{Duration, Instant};

use futures_util::future::join;
use tokio_util::sync::CancellationToken;

use super::{
    Folder, oracle,
    program::Program,
    proxy::{FAULTS, Spoiler},
    seed, setting,
    workload::{Manners, Workload},
};
use crate::world::{Client, Database, http};

/// Every intent is sent five times at least, however it was answered.
const MANNERS: Manners = Manners { gives_up_once_in: 5, repeats: 5, pause: 60 };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_cuts_stalls_and_repeats_makes_nothing_happen_twice() {
    let (seed, began) = (seed("NETWORK_SEED"), Instant::now());
    eprintln!("network: NETWORK_SEED={seed}");
    let folder = Folder::new();
    let database = Database::empty(folder.path()).await;
    let url = matches!(database, Database::Postgres { .. }).then(|| database.url());
    let program = Program::new(folder.path(), url);
    let server = program.start();
    program.is_ready().await;
    let mut workload = Workload::set_up(&Client::new(http(), program.address), seed).await;

    let spoiler = Spoiler::start(program.address, seed).await;
    // A client that loses its patience before some of the stalls are over, and sends again while the first is under way.
    let impatient = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).timeout(Duration::from_millis(800));
    workload.talk_to(&impatient.build().unwrap(), spoiler.address);
    let over = CancellationToken::new();
    let seconds = setting("NETWORK_SECONDS", 10).try_into().unwrap();
    let time = async {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        over.cancel();
    };
    let (mut new, ()) = join(workload.run(MANNERS, &over), time).await;
    let faults = spoiler.counts();
    // The judgement wants answers and not haste.
    workload.talk_to(&http(), program.address);
    let mut intents = Vec::new();
    oracle::judge(&program.database_url(), &mut workload, &mut new, &mut intents).await;
    drop(server);
    program.audit();

    assert_eq!(faults.len(), FAULTS.len() + 1, "every fault happened: {faults:?}");
    let (tries, failures) = (&workload.board.tries, &workload.board.failures);
    eprintln!(
        "network: {} intents in {tries:?} requests, {failures:?} of them failed, in {:?}: {faults:?}; done of asked: {:?}",
        intents.len(),
        began.elapsed(),
        Workload::census(&intents),
    );
}
