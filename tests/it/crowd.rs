//! Many subscribers at once: each gets every event of its subject once and in order, whether it reads at once, pauses, breaks off
//! and comes back, or is sent away because its server ends. The figures are printed (`--nocapture`); nothing here is timed.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use entity::{
    event::{Kind, Payload},
    id::AgentId,
};
use futures_util::future::{join, join_all};
use serde_json::json;
use tokio::sync::watch;
use zerostate::{app::App, caller::Caller, store::Event};

use crate::world::{Frame, PATIENCE, Peer, Socket, World, on_postgres};

const FOLLOW: &str =
    "subscription($agent: ID!, $after: EventCursor) { reputationEvents(agentId: $agent, after: $after) {
    cursor ... on ReputationChangedEvent { scoreAfter } } }";
/// How long a reader may wait for its last event.
const ENOUGH: Duration = Duration::from_mins(2);

/// The subjects, when each of their events was written, and how many there are once all are written.
struct Subjects {
    agents: Vec<AgentId>,
    written: Vec<Mutex<Vec<Instant>>>,
    totals: watch::Sender<Option<Vec<usize>>>,
    /// Connections that were made so far.
    connections: AtomicUsize,
}

impl Subjects {
    async fn new(world: &World, count: usize) -> Arc<Self> {
        let owner = world.user("owner").await;
        let mut agents = Vec::new();
        for number in 0..count {
            agents.push(world.agent(&owner, &format!("subject {number}"), "EXTERNAL", "work", "1").await);
        }
        let written = agents.iter().map(|_| Mutex::default()).collect();
        Arc::new(Self { agents, written, totals: watch::channel(None).0, connections: AtomicUsize::new(0) })
    }

    /// Writes the next event of a subject. It has its number.
    async fn write(&self, app: &App, subject: usize) {
        let number = {
            let mut written = self.written[subject].lock().unwrap();
            written.push(Instant::now());
            i32::try_from(written.len()).unwrap()
        };
        let payload = Payload { score_before: Some(number - 1), score_after: Some(number), ..Payload::default() };
        let agent_id = Some(self.agents[subject]);
        let event = Event { agent_id, ..Event::new(Kind::ReputationChanged, payload) };
        app.store()
            .write(Caller::System, async |work| {
                work.record(event);
                Ok(())
            })
            .await
            .unwrap();
    }

    /// Waits until so many readers are there.
    async fn gathered(&self, readers: usize) {
        while self.connections.load(Ordering::Relaxed) < readers {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // What they said last is on its way.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    /// Writes so many events a second for a while, through one process after the other, and says how many there were.
    async fn write_all(&self, apps: &[&App], per_second: u32, seconds: u32) {
        let mut tick = tokio::time::interval(Duration::from_secs(1) / per_second);
        for number in 0..usize::try_from(per_second * seconds).unwrap() {
            tick.tick().await;
            self.write(apps[number % apps.len()], number * 7 % self.agents.len()).await;
        }
        let totals = self.written.iter().map(|written| written.lock().unwrap().len()).collect();
        self.totals.send_replace(Some(totals));
    }
}

/// The servers that can be reached now.
type Servers = Arc<Mutex<Vec<SocketAddr>>>;

/// The instances of a market: where they are, and what they are made of.
fn instances<'a>(world: &'a World, peer: Option<&'a Peer>) -> (Servers, Vec<&'a App>) {
    let all = std::iter::once((world.address, &world.app)).chain(peer.map(|peer| (peer.address, &peer.app)));
    let (addresses, apps) = all.unzip();
    (Arc::new(Mutex::new(addresses)), apps)
}

/// What a reader does beside reading.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Reads,
    /// Takes nothing for a while after its first event.
    Pauses,
    /// Breaks off after so many events, and comes back.
    BreaksOff(usize),
}

struct Reader {
    number: usize,
    subjects: Arc<Subjects>,
    servers: Servers,
    subject: usize,
    manner: Manner,
    cursor: String,
    /// How long each event took from its writing.
    delays: Vec<Duration>,
    connections: usize,
}

impl Reader {
    /// Reads all events of its subject, whatever happens to its connections.
    async fn read(mut self) -> Self {
        let mut totals = self.subjects.totals.subscribe();
        let began = Instant::now();
        loop {
            assert!(began.elapsed() < ENOUGH, "reader {} has {} events", self.number, self.delays.len());
            let Some(mut socket) = self.connect().await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let variables = json!({ "agent": self.subjects.agents[self.subject].to_string(), "after": self.cursor });
            socket.subscribe("1", FOLLOW, variables).await;
            let mut here = 0;
            loop {
                let total = totals.borrow_and_update().as_ref().map(|totals| totals[self.subject]);
                if total == Some(self.delays.len()) {
                    return self;
                }
                let frame = tokio::select! {
                    frame = socket.receive_within(ENOUGH) => frame.expect("a frame in time"),
                    _ = totals.changed() => continue,
                };
                match frame {
                    Frame::Message(message) => self.take(&message),
                    // The process ends; the only close on which a client need not think.
                    Frame::Closed(1012, _) => break,
                    end @ (Frame::Closed(..) | Frame::Gone) => panic!("reader {} was told {end:?}", self.number),
                }
                here += 1;
                match self.manner {
                    Manner::Pauses if self.delays.len() == 1 => tokio::time::sleep(Duration::from_secs(4)).await,
                    Manner::BreaksOff(after) if here == after => break,
                    Manner::Reads | Manner::Pauses | Manner::BreaksOff(_) => {}
                }
            }
        }
    }

    /// Each event is the next one.
    fn take(&mut self, message: &serde_json::Value) {
        assert_eq!(message["type"], "next", "reader {}: {message}", self.number);
        let event = &message["payload"]["data"]["reputationEvents"];
        let written = self.subjects.written[self.subject].lock().unwrap()[self.delays.len()];
        let number = self.delays.len() + 1;
        let expected = format!("{}.{:03}", number / 1_000, number % 1_000);
        let expected = expected.trim_end_matches('0').trim_end_matches('.');
        let got = event["scoreAfter"].as_str().unwrap_or_else(|| panic!("reader {}: {message}", self.number));
        assert_eq!(got.trim_end_matches('0').trim_end_matches('.'), expected, "reader {}", self.number);
        self.cursor = event["cursor"].as_str().unwrap().to_owned();
        self.delays.push(written.elapsed());
    }

    async fn connect(&mut self) -> Option<Socket> {
        let address = {
            let servers = self.servers.lock().unwrap();
            servers[(self.number + self.connections) % servers.len()]
        };
        self.connections += 1;
        // A server that is gone has taken its address off, but perhaps not before we looked.
        drop(tokio::net::TcpStream::connect(address).await.ok()?);
        let mut socket = Socket::open(address, Some("graphql-transport-ws"), None).await.ok()?;
        socket.send(json!({ "type": "connection_init" })).await;
        match socket.receive_within(PATIENCE * 3).await? {
            Frame::Message(message) => {
                assert_eq!(message, json!({ "type": "connection_ack" }));
                self.subjects.connections.fetch_add(1, Ordering::Relaxed);
                Some(socket)
            }
            Frame::Closed(1012, _) | Frame::Gone => None,
            end @ Frame::Closed(..) => panic!("reader {} was told {end:?}", self.number),
        }
    }
}

async fn crowd(
    world: &World,
    subjects: &Arc<Subjects>,
    servers: &Servers,
    count: usize,
    manner: impl Fn(usize) -> Manner,
) -> impl Future<Output = Vec<Reader>> {
    let cursor = world.cursor().await;
    let readers: Vec<Reader> = (0..count)
        .map(|number| Reader {
            number,
            subjects: Arc::clone(subjects),
            servers: Arc::clone(servers),
            subject: number % subjects.agents.len(),
            manner: manner(number),
            cursor: cursor.clone(),
            delays: Vec::new(),
            connections: 0,
        })
        .collect();
    join_all(readers.into_iter().map(Reader::read))
}

fn report(what: &str, readers: &[Reader]) {
    let mut delays: Vec<Duration> = readers
        .iter()
        .filter(|reader| reader.manner == Manner::Reads)
        .flat_map(|reader| reader.delays.iter().copied())
        .collect();
    delays.sort_unstable();
    let at = |hundredths: usize| delays[(delays.len() - 1) * hundredths / 100];
    let all: usize = readers.iter().map(|reader| reader.delays.len()).sum();
    let connections: usize = readers.iter().map(|reader| reader.connections).sum();
    eprintln!(
        "crowd: {what}: {} readers, {all} events in {connections} connections; delay p50 {:?}, p99 {:?}, most {:?}",
        readers.len(),
        at(50),
        at(99),
        at(100),
    );
}

/// Resident memory of this process in KiB, server and clients together.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_subscribers_miss_nothing() {
    let world = World::start().await;
    // Another instance over the same database where databases are shared.
    let peer = if on_postgres() { Some(world.another().await) } else { None };
    let (servers, apps) = instances(&world, peer.as_ref());

    // One event for all.
    let subjects = Subjects::new(&world, 1).await;
    let before = resident();
    let readers = crowd(&world, &subjects, &servers, 1_000, |_| Manner::Reads).await;
    let writing = async {
        subjects.gathered(1_000).await;
        let connected = resident();
        subjects.write_all(&apps, 1, 1).await;
        connected
    };
    let (readers, connected) = join(readers, writing).await;
    report("one event for all", &readers);
    let each = connected.saturating_sub(before) / 1_000;
    eprintln!("crowd: a socket takes {each} KiB at both of its ends together");

    world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribers_that_pause_and_break_off_miss_nothing() {
    let world = World::start().await;
    let peer = if on_postgres() { Some(world.another().await) } else { None };
    let (servers, apps) = instances(&world, peer.as_ref());
    let subjects = Subjects::new(&world, 50).await;
    let manner = |number: usize| match number % 20 {
        0 => Manner::Pauses,
        7 | 13 => Manner::BreaksOff(1 + number % 5),
        _ => Manner::Reads,
    };
    let readers = crowd(&world, &subjects, &servers, 1_000, manner).await;
    let before = resident();
    let writing = async {
        subjects.gathered(1_000).await;
        subjects.write_all(&apps, 100, 10).await;
    };
    let (readers, ()) = join(readers, writing).await;
    report("a hundred events a second", &readers);
    eprintln!("crowd: memory grew by {} KiB meanwhile", resident().saturating_sub(before));
    assert!(readers.iter().any(|reader| reader.connections > 2), "nobody came back");
    world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_are_replaced_one_by_one_lose_no_event() {
    let world = World::start().await;
    let mut peers = vec![world.another().await, world.another().await];
    let servers: Servers = Arc::new(Mutex::new(peers.iter().map(|peer| peer.address).collect()));
    let subjects = Subjects::new(&world, 20).await;
    let readers = crowd(&world, &subjects, &servers, 200, |_| Manner::Reads).await;
    let replacing = async {
        for _ in 0..2 {
            tokio::time::sleep(Duration::from_secs(2)).await;
            let (old, new) = (peers.remove(0), world.another().await);
            {
                let mut servers = servers.lock().unwrap();
                servers.retain(|address| *address != old.address);
                servers.push(new.address);
            }
            peers.push(new);
            old.app.shutdown(PATIENCE).await;
        }
    };
    let (readers, ((), ())) = join(readers, join(subjects.write_all(&[&world.app], 50, 8), replacing)).await;
    report("servers replaced", &readers);
    assert!(readers.iter().all(|reader| reader.connections >= 2), "everybody was sent away once at least");
    world.check().await;
}
