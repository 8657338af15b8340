//! PostgreSQL goes away: its sessions are ended under load, and a primary dies and its synchronous standby is promoted while
//! clients work. The service reconnects by itself, callers are told that they may try again, and nothing that was acknowledged is
//! lost.
//!
//! The service knows one address, as it would behind a virtual one; a proxy of the test leads it to the standby at once, so that the
//! service also meets a server that only reads.

use std::{
    io::{BufRead, BufReader, Lines, Write},
    net::SocketAddr,
    process::{Child, ChildStdout, Command, Stdio},
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use futures_util::future::join;
use serde_json::json;
use sqlx::{Connection, Executor, PgConnection};
use tokio_util::sync::CancellationToken;

use super::{
    Folder, oracle,
    program::Program,
    proxy::Switch,
    seed,
    workload::{Intent, Manners, Workload},
};
use crate::world::{Client, Database, http, on_postgres};

const MANNERS: Manners = Manners { gives_up_once_in: 5, repeats: 1, pause: 60 };
/// How long the service may take to answer again.
const RECOVERY: Duration = Duration::from_secs(20);
const FOLLOW: &str = "subscription { marketEvents { cursor } }";

/// A primary and its synchronous standby, which `tests/standby.sh` runs; both end with this value.
struct Pair {
    script: Child,
    said: Lines<BufReader<ChildStdout>>,
    primary: SocketAddr,
    standby: SocketAddr,
    password: String,
}

impl Pair {
    fn start() -> Self {
        let mut script = Command::new("bash")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/standby.sh"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(script.stdout.take().unwrap()).lines();
        let ready = said.next().expect("tests/standby.sh starts two servers").unwrap();
        let words: Vec<&str> = ready.split(' ').collect();
        let ["ready", primary, standby, password] = words[..] else { panic!("{ready}") };
        let at = |port: &str| SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap()));
        Self { primary: at(primary), standby: at(standby), password: password.to_owned(), script, said }
    }

    fn url(&self, address: SocketAddr) -> String {
        format!("postgres://zerostate:{}@{address}/postgres", self.password)
    }

    fn tell(&mut self, word: &str, answer: &str) {
        writeln!(self.script.stdin.as_ref().unwrap(), "{word}").unwrap();
        assert_eq!(self.said.next().unwrap().unwrap(), answer);
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // The script ends with its input, and the servers with it.
        drop(self.script.stdin.take());
        let _ = self.script.wait();
    }
}

/// Waits until something is acknowledged again.
async fn works_again(program: &Program, since: Instant) -> Duration {
    program.is_ready().await;
    assert!(since.elapsed() < RECOVERY, "the service came back after {:?}", since.elapsed());
    since.elapsed()
}

fn report(what: &str, workload: &Workload, intents: &[Intent], began: Instant) {
    let (tries, failures) = (&workload.board.tries, &workload.board.failures);
    eprintln!(
        "{what}: {} intents in {tries:?} requests, {failures:?} of them failed, in {:?}; done of asked: {:?}",
        intents.len(),
        began.elapsed(),
        Workload::census(intents),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_is_promoted_and_no_acknowledged_effect_is_lost() {
    if !on_postgres() {
        return;
    }
    let (seed, began) = (seed("FAILOVER_SEED"), Instant::now());
    eprintln!("failover: FAILOVER_SEED={seed}");
    let folder = Folder::new();
    let mut pair = Pair::start();
    let switch = Switch::start(pair.primary).await;
    let program = Program::new(folder.path(), Some(pair.url(switch.address)));
    let server = program.start();
    program.is_ready().await;
    let nobody = Client::new(http(), program.address);
    let mut workload = Workload::set_up(&nobody, seed).await;
    eprintln!("failover: two servers and the service are there after {:?}", began.elapsed());

    let over = CancellationToken::new();
    let failures = std::sync::Arc::clone(&workload.board.failures);
    let failing = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let before = failures.load(Ordering::Relaxed);
        assert_eq!(before, 0, "nothing fails before the primary does");
        pair.tell("kill", "killed");
        let died = Instant::now();
        switch.lead_to(pair.standby);
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        pair.tell("promote", "promoted");
        let took = works_again(&program, died).await;
        // The feed of events is there again too.
        let mut follow = nobody.subscribe(FOLLOW, json!({})).await;
        assert!(follow.next_within(RECOVERY).await.is_some(), "events arrive again");
        tokio::time::sleep(Duration::from_secs(2)).await;
        over.cancel();
        (took, failures.load(Ordering::Relaxed))
    };
    let (mut new, (took, failed)) = join(workload.run(MANNERS, &over), failing).await;
    let (mut intents, database) = (Vec::new(), pair.url(pair.standby));
    oracle::judge(&database, &mut workload, &mut new, &mut intents).await;
    program.audit();
    drop(server);
    assert!(failed > 0, "clients met the failure");
    eprintln!(
        "failover: the service was ready {took:?} after the death of the primary, 1.5 s of which nobody was promoted"
    );
    report("failover", &workload, &intents, began);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_the_server_ends_under_load_are_replaced() {
    if !on_postgres() {
        return;
    }
    let (seed, began) = (seed("FAILOVER_SEED"), Instant::now());
    eprintln!("sessions: FAILOVER_SEED={seed}");
    let folder = Folder::new();
    let database = Database::empty(folder.path()).await;
    let program = Program::new(folder.path(), Some(database.url()));
    let server = program.start();
    program.is_ready().await;
    let mut workload = Workload::set_up(&Client::new(http(), program.address), seed).await;
    let over = CancellationToken::new();
    let ending = async {
        let mut operator = PgConnection::connect(&database.url()).await.unwrap();
        let mut ended = 0;
        for _ in 0..12 {
            tokio::time::sleep(Duration::from_millis(400)).await;
            let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                       WHERE datname = current_database() AND pid <> pg_backend_pid()";
            ended += operator.fetch_all(end).await.unwrap().len();
        }
        tokio::time::sleep(Duration::from_millis(700)).await;
        over.cancel();
        operator.close().await.unwrap();
        ended
    };
    let (mut new, ended) = join(workload.run(MANNERS, &over), ending).await;
    let mut intents = Vec::new();
    oracle::judge(&database.url(), &mut workload, &mut new, &mut intents).await;
    program.audit();
    drop(server);
    assert!(ended > 0 && workload.board.failures.load(Ordering::Relaxed) > 0, "{ended} sessions were ended");
    eprintln!("sessions: {ended} were ended");
    report("sessions", &workload, &intents, began);
}
