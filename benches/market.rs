//! What the whole service carries on this computer: mutations through real HTTP against a server in this process, and the sandbox
//! alone beside them. The figures are only good beside each other; compare within one run.
//!
//! `cargo bench` measures on SQLite, `DATABASE_URL=postgres://… cargo bench` on PostgreSQL, in a database whose tables it fills.
//! `BENCH_SECONDS` (default 5) is how long each row runs, `BENCH_CLIENTS` (default 16) how many clients there are.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    reason = "a benchmark that meets the unexpected stops, prints what it finds, and reads the real clock"
)]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use chrono::Utc;
use entity::{agent::Runtime, id::UserId, user::Role};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use zerostate::{
    agent::{self, NewAgent},
    app::App,
    caller::{Caller, Identity},
    config::Config,
    execution::sandbox::{Limits, Request, Sandbox, SandboxConfig},
    ledger,
    store::{Clock, Entropy},
    transport,
    user::{self, NewAccount, NewUser},
};

const STATS: &[u8] = include_bytes!("../agents/wasm/text-stats-lite.wasm");
const HASH: &str = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$4UAxMXjBSHqDwrs1MLXbUg";

struct Market {
    app: App,
    address: SocketAddr,
    http: reqwest::Client,
    token: String,
    bidder: String,
}

async fn market(folder: &std::path::Path) -> Market {
    let mut config = Config::in_folder(folder);
    if let Ok(url) = std::env::var("DATABASE_URL") {
        config.storage.url = url;
    }
    config.terms.max_bids = 1_000_000;
    let app = App::open(config, Clock::System, Entropy::system()).await.unwrap();
    app.start();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    app.tracker().spawn(transport::serve(app.clone(), listener));

    let tag = hex::encode(app.store().entropy().bytes::<4>());
    let person = |name: &str| NewUser {
        email: format!("{name}-{tag}@example.org"),
        display_name: name.to_owned(),
        password: format!("{name}-{tag}-password"),
    };
    let requester = user::register(app.store(), app.auth(), person("requester")).await.unwrap();
    let owner = user::register(app.store(), app.auth(), person("owner")).await.unwrap();
    let admin = NewAccount {
        email: format!("admin-{tag}@example.org"),
        display_name: "admin".into(),
        password_hash: HASH.into(),
        role: Role::Admin,
    };
    let admin = app.store().write(Caller::System, async |work| user::create(work, admin).await).await.unwrap();
    let admin = caller(admin.id, Role::Admin);
    let amount = "1000000".parse().unwrap();
    app.store().write(admin, async |work| ledger::issue(work, requester.user.id, amount, &tag).await).await.unwrap();
    let owner_caller = caller(owner.user.id, Role::User);
    let stored = app.modules().store_bytes(Bytes::from_static(STATS), 1 << 20).await.unwrap();
    let capability = format!("bench.{tag}");
    let new = |name: &str, runtime| NewAgent {
        name: name.to_owned(),
        description: String::new(),
        capabilities: vec![capability.clone()],
        runtime,
        price: "0.5".parse().unwrap(),
        min_price: Some("0.1".parse().unwrap()),
        promised: None,
        public_key: None,
        capacity: Some(10_000),
        fuel_price: None,
    };
    let hosted = new("hosted", Runtime::Hosted);
    app.store()
        .write(owner_caller.clone(), async |work| {
            let id = agent::register(work, hosted).await?.id;
            let interface = entity::agent_module::Interface::WasiCommand;
            agent::set_module(work, id, hex::encode(stored.sha256), stored.size, interface).await
        })
        .await
        .unwrap();
    let external = new("external", Runtime::External);
    let external = app.store().write(owner_caller, async |work| agent::register(work, external).await).await.unwrap();
    let http = reqwest::Client::builder().pool_max_idle_per_host(256).no_proxy().build().unwrap();
    Market {
        app,
        address,
        http,
        token: requester.access_token.clone(),
        bidder: format!("{} {} {capability}", owner.access_token, external.id),
    }
}

fn caller(user: UserId, role: Role) -> Caller {
    Caller::User(Identity { user, role, session: None, key: None, expires_at: None })
}

impl Market {
    async fn post(&self, token: &str, query: &str, variables: Value) -> Value {
        let request = self
            .http
            .post(format!("http://{}/graphql", self.address))
            .bearer_auth(token)
            .json(&json!({ "query": query, "variables": variables }));
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        assert!(answer.get("errors").is_none(), "{answer}");
        answer
    }

    fn capability(&self) -> String {
        self.bidder.split(' ').nth(2).unwrap().to_owned()
    }

    async fn run(&self, what: What, number: u64, auction: &str) {
        match what {
            What::Nothing => {
                self.post(&self.token, "{ __typename }", json!({})).await;
            }
            What::AuctionPage => {
                let query = "{ auctions(first: 20) { nodes { id budget bidCount requester { displayName } bestBid { price } } } }";
                self.post(&self.token, query, json!({})).await;
            }
            What::SubmitBid => {
                let mut parts = self.bidder.split(' ');
                let (token, agent) = (parts.next().unwrap(), parts.next().unwrap());
                let query =
                    "mutation($input: SubmitBidInput!) { submitBid(input: $input) { bid { id } userErrors { code } } }";
                let key = format!("bid-{auction}-{number}");
                let input = json!({"auctionId": auction, "agentId": agent, "price": "1", "idempotencyKey": key});
                let answer = self.post(token, query, json!({ "input": input })).await;
                assert_eq!(answer["data"]["submitBid"]["userErrors"], json!([]));
            }
            What::ExecuteTask => {
                let query = "mutation($input: ExecuteTaskInput!) { executeTask(input: $input) { task { id } userErrors { code } } }";
                let input = json!({
                    "title": "bench", "capabilities": [self.capability()], "input": "one two three", "budget": "1",
                    "idempotencyKey": format!("task-{number}"),
                });
                let answer = self.post(&self.token, query, json!({ "input": input })).await;
                assert_eq!(answer["data"]["executeTask"]["userErrors"], json!([]));
            }
        }
    }

    async fn auction(&self) -> String {
        let query = "mutation($input: CreateAuctionInput!) { createAuction(input: $input) { auction { id } userErrors { code } } }";
        let input = json!({
            "title": "bench", "capabilities": [self.capability()], "input": null, "budget": "5", "closesIn": "PT1H",
            "idempotencyKey": hex::encode(self.app.store().entropy().bytes::<8>()),
        });
        let answer = self.post(&self.token, query, json!({ "input": input })).await;
        answer["data"]["createAuction"]["auction"]["id"].as_str().unwrap().to_owned()
    }

    /// Lets all clients do one thing for a while, each in an auction of its own where it needs one.
    async fn measure(self: &Arc<Self>, what: What, clients: u64, time: Duration) {
        let stop = Arc::new(AtomicBool::new(false));
        let count = Arc::new(AtomicU64::new(0));
        let began = Instant::now();
        let mut running = Vec::new();
        for client in 0..clients {
            let (market, stop, count) = (Arc::clone(self), Arc::clone(&stop), Arc::clone(&count));
            running.push(tokio::spawn(async move {
                let auction = if what == What::SubmitBid { market.auction().await } else { String::new() };
                let mut took = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let number = count.fetch_add(1, Ordering::Relaxed) + client * 1_000_000_000;
                    let one = Instant::now();
                    market.run(what, number, &auction).await;
                    took.push(one.elapsed());
                }
                took
            }));
        }
        tokio::time::sleep(time).await;
        stop.store(true, Ordering::Relaxed);
        let mut took = Vec::new();
        for client in running {
            took.extend(client.await.unwrap());
        }
        let rate = u128::try_from(took.len()).unwrap() * 1_000_000 / began.elapsed().as_micros();
        print(&format!("{what:?}, {clients} clients"), rate, &mut took);
    }

    /// Waits until no task waits or runs, and says how many were settled in which time.
    async fn drain(&self) {
        let began = Instant::now();
        let query = "{ tasks(first: 1, filter: {status: [AWARDED, RUNNING]}) { totalCount } }";
        loop {
            let answer = self.post(&self.token, query, json!({})).await;
            if answer["data"]["tasks"]["totalCount"] == json!(0) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        println!("  the last awarded task was settled {:?} after the last was posted", began.elapsed());
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Nothing,
    AuctionPage,
    SubmitBid,
    ExecuteTask,
}

fn print(name: &str, rate: u128, took: &mut [Duration]) {
    took.sort_unstable();
    let (middle, late) = (took[took.len() / 2], took[took.len() * 99 / 100]);
    println!("{name:<28} {rate:>7} a second   p50 {middle:>10.1?}   p99 {late:>10.1?}");
}

/// What a call of an agent costs when its module is compiled already.
async fn warm_runs() {
    let sandbox = Sandbox::new(SandboxConfig::default()).unwrap();
    let request = Request {
        sha256: Sha256::digest(STATS).into(),
        input: Bytes::from_static(b"\"one two three\""),
        limits: Limits::default(),
        now: Utc::now(),
        seed: [0; 32],
    };
    let mut took = Vec::new();
    let began = Instant::now();
    for _ in 0..2_000 {
        let one = Instant::now();
        let load = || std::future::ready(Ok::<_, std::io::Error>(Bytes::from_static(STATS)));
        let run = sandbox.run(request.clone(), load).await.unwrap();
        assert!(run.outcome.is_ok());
        took.push(one.elapsed());
    }
    print("sandbox, warm run", 2_000 * 1_000_000 / began.elapsed().as_micros(), &mut took);
}

fn resident_kib() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("unknown").trim().to_owned()
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[tokio::main]
async fn main() {
    rustls::crypto::ring::default_provider().install_default().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let market = Arc::new(market(folder.path()).await);
    println!(
        "database {:?}; resident memory of server and clients together {}",
        market.app.store().backend(),
        resident_kib()
    );
    warm_runs().await;
    let (clients, time) = (setting("BENCH_CLIENTS", 16), Duration::from_secs(setting("BENCH_SECONDS", 5)));
    for what in [What::Nothing, What::AuctionPage, What::SubmitBid, What::ExecuteTask] {
        market.measure(what, clients, time).await;
        if what == What::ExecuteTask {
            market.drain().await;
        }
    }
    let audit = market.app.audit().await.unwrap();
    assert!(audit.ok(), "{audit:?}");
    println!("resident memory at the end {}; the audit finds the books right", resident_kib());
    market.app.shutdown(Duration::from_secs(10)).await;
}
