//! One event on its way to many subscribers, against a plain WebSocket broadcast of the same bytes by the same machine to the same
//! client in the same run.
//!
//! ```text
//! bid ────► zerostate serve ──graphql-transport-ws──► a process with N subscribers      how long until the first and the last
//! bytes ──► this program ─────────WebSocket──────────► a process with N subscribers      has it, what the server works and keeps
//! ```
//!
//! The time of a bid begins before it is committed, that of a broadcast when its bytes are there, so the time from the first socket to
//! the last is told beside the time to the last. `cargo bench --bench live` measures; `LIVE_SERVER` is another `zerostate` to measure, `LIVE_SOCKETS` (default 1000,10000) how many
//! subscribers there are, `LIVE_ROUNDS` (default 7) how many events each side sends, in turns. What is written last is one line of
//! JSON. Each process needs as many open files as it has sockets, and a hundred more.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    reason = "a benchmark that meets the unexpected stops, prints what it finds, and reads the real clock"
)]

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    extract::{
        State, WebSocketUpgrade,
        ws::{Message as Sent, Utf8Bytes},
    },
    response::Response,
    routing::{any, post},
};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, broadcast, mpsc},
    time::{sleep, timeout},
};
use tokio_tungstenite::{
    client_async_with_config,
    tungstenite::{Message, client::IntoClientRequest, protocol::WebSocketConfig},
};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_mins(3);
/// Sockets that are being connected at a time.
const AT_A_TIME: usize = 64;
/// Clock ticks of the kernel in a second, as /proc counts.
const TICKS: u64 = 100;
const FOLLOW: &str = "subscription($id: ID!) { auctionEvents(auctionId: $id) { id cursor kind occurredAt \
    ... on BidEvent { auctionId bidCount price } } }";

fn main() {
    // Cargo's own arguments are not ours.
    let args: Vec<String> = std::env::args().skip(1).filter(|it| it != "--bench").collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["broadcast"] => runtime.block_on(broadcast()),
        ["crowd", url, sockets, auction] => runtime.block_on(crowd(url, sockets.parse().unwrap(), auction)),
        _ => runtime.block_on(measure()),
    }
}

/// Microseconds since the epoch: the processes are on one machine.
fn now() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap()
}

// --- The plain broadcast ---------------------------------------------------------------------------------------------------------

type Sender = broadcast::Sender<Utf8Bytes>;

/// A server that sends whatever is posted to it to every socket.
async fn broadcast() {
    let sender = Sender::new(16);
    let router = Router::new().route("/graphql/ws", any(follow)).route("/send", post(send)).with_state(sender);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    axum::serve(listener, router).await.unwrap();
}

async fn follow(upgrade: WebSocketUpgrade, State(sender): State<Sender>) -> Response {
    // The same buffers as those of the service.
    let upgrade = upgrade.read_buffer_size(1_024).write_buffer_size(16 * 1_024);
    upgrade.on_upgrade(move |mut socket| async move {
        let mut receiver = sender.subscribe();
        loop {
            tokio::select! {
                text = receiver.recv() => match text {
                    Ok(text) => if socket.send(Sent::Text(text)).await.is_err() { break },
                    Err(_) => break,
                },
                heard = socket.recv() => if heard.is_none() { break },
            }
        }
    })
}

async fn send(State(sender): State<Sender>, body: String) {
    sender.send(body.into()).unwrap();
}

// --- The subscribers -------------------------------------------------------------------------------------------------------------

/// What the sockets of this process have received of the event that is on its way.
#[derive(Default)]
struct Received {
    first: AtomicU64,
    last: AtomicU64,
    count: AtomicUsize,
    all: Notify,
}

/// Connects so many sockets, says so, and then tells of each event when the first and the last of them had it, and what it was.
async fn crowd(address: &str, sockets: usize, auction: &str) {
    let address: SocketAddr = address.parse().unwrap();
    let received = Arc::new(Received::default());
    let (texts, mut text) = mpsc::channel::<String>(1);
    let mut connecting = futures_util::stream::iter((0..sockets).map(|number| {
        let (received, auction, texts) = (Arc::clone(&received), auction.to_owned(), texts.clone());
        async move {
            let mut request = format!("ws://{address}/graphql/ws").into_client_request().unwrap();
            request.headers_mut().insert("sec-websocket-protocol", "graphql-transport-ws".parse().unwrap());
            let tcp = TcpStream::connect(address).await.unwrap();
            let config = WebSocketConfig::default().read_buffer_size(4_096).write_buffer_size(4_096);
            if auction.is_empty() {
                request.headers_mut().remove("sec-websocket-protocol");
            }
            let (mut socket, _) = client_async_with_config(request, tcp, Some(config)).await.unwrap();
            if !auction.is_empty() {
                socket.send(Message::text(json!({ "type": "connection_init" }).to_string())).await.unwrap();
                assert!(socket.next().await.unwrap().unwrap().into_text().unwrap().contains("connection_ack"));
                let payload = json!({ "query": FOLLOW, "variables": { "id": auction } });
                let subscribe = json!({ "type": "subscribe", "id": "1", "payload": payload });
                socket.send(Message::text(subscribe.to_string())).await.unwrap();
            }
            tokio::spawn(async move {
                while let Some(message) = socket.next().await {
                    let Message::Text(message) = message.unwrap() else { continue };
                    if number == 0 {
                        texts.send(message.to_string()).await.unwrap();
                    }
                    let now = now();
                    received.first.fetch_min(now, Ordering::Relaxed);
                    received.last.fetch_max(now, Ordering::Relaxed);
                    if received.count.fetch_add(1, Ordering::AcqRel) + 1 == sockets {
                        received.all.notify_one();
                    }
                }
            });
        }
    }))
    .buffer_unordered(AT_A_TIME);
    received.first.store(u64::MAX, Ordering::Relaxed);
    while connecting.next().await.is_some() {}
    // What they said last is on its way.
    sleep(Duration::from_secs(3)).await;
    println!("ready");
    loop {
        received.all.notified().await;
        let (first, last) =
            (received.first.swap(u64::MAX, Ordering::Relaxed), received.last.swap(0, Ordering::Relaxed));
        assert_eq!(received.count.swap(0, Ordering::AcqRel), sockets);
        println!("{}", json!({ "first": first, "last": last, "text": text.recv().await.unwrap() }));
    }
}

// --- The measurement -------------------------------------------------------------------------------------------------------------

/// A process of ours, which ends with this one.
struct Process {
    child: Child,
    lines: mpsc::UnboundedReceiver<String>,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Process {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, lines }
    }

    /// This program in another role.
    fn of_us(args: &[&str]) -> Self {
        Self::start(Command::new(std::env::current_exe().unwrap()).args(args))
    }

    async fn line(&mut self) -> String {
        timeout(PATIENCE, self.lines.recv()).await.expect("a line in time").expect("a process that goes on")
    }

    fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).unwrap()
    }

    /// Resident memory in bytes.
    fn resident(&self) -> u64 {
        let status = self.proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1_024
    }

    /// Time on processors in milliseconds.
    fn worked(&self) -> u64 {
        let stat = self.proc("stat");
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let fields: Vec<&str> = fields.split(' ').collect();
        (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()) * 1_000 / TICKS
    }
}

/// What one event took, in microseconds since it was asked for.
#[derive(Default)]
struct Took {
    first: Vec<u64>,
    last: Vec<u64>,
    /// Milliseconds on processors.
    worked: Vec<u64>,
}

impl Took {
    fn add(&mut self, asked: u64, line: &str, worked: u64) -> String {
        let mut line: Value = serde_json::from_str(line).unwrap();
        self.first.push(line["first"].as_u64().unwrap().saturating_sub(asked));
        self.last.push(line["last"].as_u64().unwrap() - asked);
        self.worked.push(worked);
        line["text"].take().as_str().unwrap().to_owned()
    }

    /// From the first socket to the last: what the sending takes, without what came before it.
    fn spread(&self) -> Vec<u64> {
        self.last.iter().zip(&self.first).map(|(last, first)| last - first).collect()
    }

    fn report(&self, bytes: u64) -> Value {
        json!({
            "first_us": median(&self.first), "last_us": median(&self.last), "last_us_each": self.last,
            "first_to_last_us": median(&self.spread()),
            "cpu_ms": median(&self.worked), "bytes_a_socket": bytes,
        })
    }
}

fn median(values: &[u64]) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

struct Market {
    http: reqwest::Client,
    address: SocketAddr,
}

impl Market {
    async fn ask(&self, token: &str, query: &str, variables: Value) -> Value {
        let body = json!({ "query": query, "variables": variables }).to_string();
        let request =
            self.http.post(format!("http://{}/graphql", self.address)).header("content-type", "application/json");
        let request = if token.is_empty() { request } else { request.bearer_auth(token) };
        let answer = request.body(body).send().await.unwrap().text().await.unwrap();
        let mut answer: Value = serde_json::from_str(&answer).unwrap();
        assert!(answer["errors"].is_null(), "{answer}");
        answer["data"].take()
    }

    /// What a mutation answers that refuses nothing.
    async fn call(&self, token: &str, field: &str, of: &str, input: Value) -> Value {
        let (first, rest) = field.split_at(1);
        let kind = first.to_uppercase() + rest;
        let errors = "userErrors { code message field }";
        let query = format!("mutation($input: {kind}Input!) {{ {field}(input: $input) {{ {of} {errors} }} }}");
        let answer = self.ask(token, &query, json!({ "input": input })).await[field].take();
        assert!(answer["userErrors"].as_array().is_none_or(Vec::is_empty), "{field}: {answer}");
        answer
    }

    async fn sign_in(&self, email: &str, password: &str) -> String {
        let answer =
            self.call("", "login", "tokens { accessToken }", json!({ "email": email, "password": password })).await;
        answer["tokens"]["accessToken"].as_str().unwrap().to_owned()
    }

    async fn register(&self, name: &str) -> (String, String) {
        let input = json!({ "email": format!("{name}@example.org"), "displayName": name, "password": PASSWORD });
        let answer = self.call("", "registerUser", "tokens { accessToken user { id } }", input).await;
        let of = |value: &Value| value.as_str().unwrap().to_owned();
        (of(&answer["tokens"]["user"]["id"]), of(&answer["tokens"]["accessToken"]))
    }
}

const PASSWORD: &str = "correct horse battery";

/// A service of ours in a folder of its own, with a market that takes bids.
struct Service {
    process: Process,
    market: Market,
    bidder: String,
    agent: String,
    auction: String,
    bids: usize,
}

impl Service {
    async fn start(folder: &Path) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let server = std::env::var("LIVE_SERVER").unwrap_or_else(|_| env!("CARGO_BIN_EXE_zerostate").to_owned());
        let mut command = Command::new(server);
        command.args(["serve", "--host", "127.0.0.1", "--port", &port.to_string(), "--data"]).arg(folder);
        command.env("ZEROSTATE_ADMIN_EMAIL", "admin@example.org").env("ZEROSTATE_ADMIN_PASSWORD", PASSWORD);
        command.env("ZEROSTATE_SOCKETS_PER_ADDRESS", "100000").env("ZEROSTATE_POINTS_PER_SECOND", "0");
        command.env("ZEROSTATE_PING_INTERVAL", "600").env("ZEROSTATE_SILENCE", "3600");
        command.env("RUST_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "warn".to_owned()));
        let mut process = Process::start(&mut command);
        // It may have been chosen for the other number of sockets.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let market = Market { http, address };
        let up =
            async || market.http.get(format!("http://{address}/ready")).send().await.is_ok_and(|it| it.status() == 200);
        timeout(PATIENCE, async {
            while !up().await {
                assert!(process.child.try_wait().unwrap().is_none(), "the service ended");
                sleep(Duration::from_millis(100)).await;
            }
        })
        .await
        .unwrap();
        let admin = market.sign_in("admin@example.org", PASSWORD).await;
        let (buyer, buys) = market.register("buyer").await;
        let (_, bidder) = market.register("seller").await;
        let issue = json!({ "userId": buyer, "amount": "1000", "reference": "bench", "idempotencyKey": "bench" });
        market.call(&admin, "issueCredits", "transfer { id }", issue).await;
        let agent = json!({ "name": "bidder", "description": "", "capabilities": ["bench"], "runtime": "EXTERNAL", "price": "5",
            "minPrice": "0.000001", "idempotencyKey": "agent" });
        let agent = market.call(&bidder, "registerAgent", "agent { id }", agent).await["agent"]["id"].take();
        let auction = json!({ "title": "bench", "capabilities": ["bench"], "input": "x", "budget": "50", "closesIn": "PT1H", "visibility": "OPEN",
            "idempotencyKey": "auction" });
        let auction = market.call(&buys, "createAuction", "auction { id }", auction).await["auction"]["id"].take();
        let (agent, auction) = (agent.as_str().unwrap().to_owned(), auction.as_str().unwrap().to_owned());
        Self { process, market, bidder, agent, auction, bids: 0 }
    }

    /// Makes something happen.
    async fn bid(&mut self) {
        self.bids += 1;
        // Every bid of the agent is better than its last.
        let price = format!("{}.{:03}", 40 - self.bids / 10, 999 - self.bids % 10);
        let key = format!("bid-{}", self.bids);
        let input = json!({ "auctionId": self.auction, "agentId": self.agent, "price": price, "idempotencyKey": key });
        self.market.call(&self.bidder, "submitBid", "bid { id }", input).await;
    }
}

async fn measure() {
    let of = |name: &str, usual: &str| std::env::var(name).unwrap_or_else(|_| usual.to_owned());
    let rounds: usize = of("LIVE_ROUNDS", "7").parse().unwrap();
    let mut report = serde_json::Map::new();
    for sockets in of("LIVE_SOCKETS", "1000,10000").split(',') {
        report.insert(sockets.to_owned(), with(sockets, rounds).await);
    }
    println!("{}", json!({ "live": report }));
}

/// Both sides with so many sockets.
async fn with(sockets: &str, rounds: usize) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let mut service = Service::start(folder.path()).await;
    let mut plain = Process::of_us(&["broadcast"]);
    let plain_address = plain.line().await;
    let count: u64 = sockets.parse().unwrap();

    let before = service.process.resident();
    let mut subscribers = Process::of_us(&["crowd", &service.market.address.to_string(), sockets, &service.auction]);
    assert_eq!(subscribers.line().await, "ready");
    let idle = (service.process.resident() - before) / count;
    let plain_before = plain.resident();
    let mut listeners = Process::of_us(&["crowd", &plain_address, sockets, ""]);
    assert_eq!(listeners.line().await, "ready");
    let plain_idle = (plain.resident() - plain_before) / count;

    let (mut ours, mut theirs) = (Took::default(), Took::default());
    // The first event of each side warms both up.
    for round in 0..=rounds {
        let (asked, worked) = (now(), service.process.worked());
        service.bid().await;
        let line = subscribers.line().await;
        let worked = service.process.worked() - worked;
        let text = ours.add(asked, &line, worked);

        let (asked, worked) = (now(), plain.worked());
        let post = service.market.http.post(format!("http://{plain_address}/send")).body(text.clone());
        post.send().await.unwrap().error_for_status().unwrap();
        let line = listeners.line().await;
        let worked = plain.worked() - worked;
        assert_eq!(theirs.add(asked, &line, worked), text, "the same bytes");
        if round == 0 {
            (ours, theirs) = Default::default();
        }
    }
    let used = (service.process.resident() - before) / count;
    let plain_used = (plain.resident() - plain_before) / count;
    let hundredths = |of: u64, to: u64| of * 100 / to.max(1);
    let mut ratios: Vec<u64> = ours.last.iter().zip(&theirs.last).map(|(of, to)| hundredths(*of, *to)).collect();
    ratios.sort_unstable();
    let mut report = json!({
        "zerostate": ours.report(used), "broadcast": theirs.report(plain_used),
        "bytes_a_socket_before_the_first_event": { "zerostate": idle, "broadcast": plain_idle },
        "last_against_broadcast_hundredths": hundredths(median(&ours.last), median(&theirs.last)),
        "last_against_broadcast_hundredths_each": ratios,
        "first_to_last_against_broadcast_hundredths": hundredths(median(&ours.spread()), median(&theirs.spread())),
    });
    for (process, what) in [(&mut service.process, "service"), (&mut plain, "broadcast")] {
        assert!(process.child.try_wait().unwrap().is_none(), "the {what} ended");
    }
    report["rounds"] = rounds.into();
    println!("{sockets} sockets: {report:#}");
    report
}
