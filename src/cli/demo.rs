//! `zerostate demo`: a market of one's own with sample agents that keeps moving at a visible pace, or one task through all of it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Args;
use entity::money::Amount;
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{
    cast::{Cast, Names, Seller},
    check::{taken, version_line},
    client::{Api, Person, Refused},
    failure::Failure,
    once::{self, Order},
    operations,
    output::tell,
    remote::credits,
    serve::{Banner, database, home, metrics_home, open, serve, until_told},
    settings::{Listen, Settings, reachable},
};
use crate::{
    app::App,
    config::{Config, Profile},
    store::{Clock, Entropy},
    transport,
};

/// How long the tokens of a demonstration are good, so that one that was pasted somewhere outlives lunch.
const TOKENS: Duration = Duration::from_hours(12);
/// What the client is given at a time, and when that is due again.
const ALLOWANCE: u32 = 500;
const LOW: u32 = 50;
/// The pause between two tasks at speed 1.
const SLOWEST: Duration = Duration::from_secs(10);
/// Tasks that are under way at the same time, at most.
const MOST_AT_ONCE: usize = 24;
/// How often a task that is under way is looked at, and how long at most.
const LOOK: Duration = Duration::from_millis(250);
const LOOKS: u32 = 480;

/// `zerostate demo`
#[derive(Args, Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(super) struct DemoCommand {
    #[command(flatten)]
    pub(super) listen: Listen,
    /// Keep everything in this folder instead of a temporary one.
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
    /// How fast the market moves, from 1 to 100.
    #[arg(
        long, env = "ZEROSTATE_DEMO_SPEED", value_name = "SPEED", default_value_t = 5,
        value_parser = clap::value_parser!(u32).range(1..=100)
    )]
    speed: u32,
    /// Open the console in the browser.
    #[arg(long)]
    open: bool,
    /// Say nothing of what happens on the market.
    #[arg(long)]
    quiet: bool,
    /// Run one task and check everything about it; succeeds only if all of it holds.
    #[arg(long, requires_all = ["capability", "input", "budget"])]
    once: bool,
    /// With --once: what an agent must be able to do: text.stats, csv.summary, json.validate, text.keywords.
    #[arg(long, value_name = "NAME", requires = "once")]
    capability: Option<String>,
    /// With --once: the file that the agent reads, - for standard input.
    #[arg(long, value_name = "FILE", requires = "once")]
    input: Option<PathBuf>,
    /// With --once: the most to pay, in credits.
    #[arg(long, value_name = "CREDITS", requires = "once", value_parser = credits)]
    budget: Option<Amount>,
    /// With --once: print a JSON document.
    #[arg(long, requires = "once")]
    json: bool,
}

/// Where a demonstration keeps its things.
struct Place {
    config: Config,
    names: Names,
    /// Removed when it is dropped.
    temporary: Option<TempDir>,
    /// Others may use the database, so what was brought in is taken out again.
    shared: bool,
}

impl Place {
    fn choose(keep: Option<&PathBuf>, settings: &Settings, entropy: &Entropy) -> Result<Self, Failure> {
        let cannot = |folder: &str, error: std::io::Error| {
            let what = format!("The folder {folder} cannot be used: {error}.");
            Failure::configuration(what, "Name another one by --keep, or set TMPDIR.")
        };
        let shared = settings.database_url.is_some();
        let (folder, temporary) = if let Some(folder) = keep {
            (folder.clone(), None)
        } else {
            let made = tempfile::Builder::new().prefix("zerostate-demo-").tempdir();
            let made = made.map_err(|error| cannot("for temporary files", error))?;
            (made.path().to_owned(), Some(made))
        };
        let shown = folder.display().to_string();
        std::fs::create_dir_all(&folder).map_err(|error| cannot(&shown, error))?;
        let names = match (shared, keep) {
            (true, _) => Names::unique(entropy),
            (false, Some(folder)) => Names::kept(folder, entropy).map_err(|error| cannot(&shown, error))?,
            (false, None) => Names::plain(entropy),
        };
        let mut config = settings.config_over(Config::in_folder(folder));
        config.auth.access_ttl = TOKENS;
        Ok(Self { config, names, temporary, shared })
    }
}

/// Runs `zerostate demo`.
pub(super) async fn run(command: DemoCommand, settings: &Settings, by_platform: bool) -> Result<(), Failure> {
    if settings.profile == Profile::Production {
        let what = "A demonstration makes accounts with known passwords, so production refuses it.";
        return Err(Failure::configuration(what, "Run `zerostate serve`, or set the profile to development."));
    }
    let started = Instant::now();
    let enough = CancellationToken::new();
    let order = order(&command)?;
    let entropy = Entropy::system();
    let place = Place::choose(command.keep.as_ref(), settings, &entropy)?;
    // Boxed: what a demonstration keeps on its way is large.
    until_told(
        enough.clone(),
        Box::pin(async {
            let Some(order) = order else {
                let wanted = command.listen.address(by_platform);
                let listener = listen_on(wanted, command.listen.port.is_none()).await?;
                return stage(&place, entropy, listener, async |app, cast| {
                    let home = home(app, cast.api.url("").trim_end_matches('/'));
                    let banner = Banner::new(
                        &version_line(),
                        database(app),
                        &home,
                        &metrics_home(app, &home),
                        started.elapsed(),
                        transport::has_console(),
                    );
                    if command.open {
                        open(&home);
                    }
                    keep_moving(cast, &command, banner, &place, &enough).await
                })
                .await;
            };
            let listener = listen_on(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0), false).await?;
            let report = stage(&place, entropy, listener, async |app, cast| {
                Ok(once::run(cast, &order, database(app), &enough).await)
            })
            .await?;
            report.deliver(command.json)
        }),
    )
    .await
}

/// Opens the market of a place, serves it, brings the cast in and lets `story` happen; then everything ends.
async fn stage<T>(
    place: &Place,
    entropy: Entropy,
    listener: TcpListener,
    story: impl AsyncFnOnce(&App, &Arc<Cast>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let app = App::open(place.config.clone(), Clock::System, entropy).await?;
    let api = Api::local(reachable(listener.local_addr()?))?;
    app.start();
    let over = CancellationToken::new();
    let playing = async {
        let played = async {
            let cast = Arc::new(Cast::enter(&app, api, &place.names).await?);
            let played = story(&app, &cast).await;
            if place.shared {
                cast.leave().await;
            }
            played
        };
        let played = played.await;
        over.cancel();
        played
    };
    let (served, played) = tokio::join!(serve(&app, listener, &over), Box::pin(playing));
    let played = played?;
    served.map(|()| played)
}

fn order(command: &DemoCommand) -> Result<Option<Order>, Failure> {
    let (Some(capability), Some(input), Some(budget)) = (&command.capability, &command.input, command.budget) else {
        return Ok(None);
    };
    let input = once::read_input(input, capability)?;
    Ok(Some(Order { capability: capability.clone(), input, budget }))
}

/// Listens on an address; on any free port of it when its own is taken and nobody asked for that one.
async fn listen_on(address: SocketAddr, any_port_will_do: bool) -> Result<TcpListener, Failure> {
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(listener),
        Err(error) if any_port_will_do && error.kind() == std::io::ErrorKind::AddrInUse => {
            let free = SocketAddr::new(address.ip(), 0);
            TcpListener::bind(free).await.map_err(|error| taken(free, &error))
        }
        Err(error) => Err(taken(address, &error)),
    }
}

/// Greets, and posts one task after the other until it is enough.
async fn keep_moving(
    cast: &Arc<Cast>,
    command: &DemoCommand,
    mut banner: Banner,
    place: &Place,
    enough: &CancellationToken,
) -> Result<(), Failure> {
    let fund = Amount::from_credits(ALLOWANCE).unwrap_or_default();
    cast.fund(fund).await?;
    let data = match (&place.temporary, &command.keep, place.shared) {
        (_, _, true) => "in the database of DATABASE_URL; the sample agents retire when this process ends".to_owned(),
        (_, Some(folder), false) => format!("in {}; the next demo with --keep goes on with it", folder.display()),
        (_, None, false) => "in a temporary folder, gone when this process ends (--keep FOLDER keeps it)".to_owned(),
    };
    let person = |who: &Person| format!("{} / {}", who.email, who.password);
    greet(
        &mut banner,
        &data,
        &person(&cast.client),
        &person(&cast.admin),
        &next_steps(&cast.api.url("/graphql"), &cast.client.token(), &program()),
    );
    banner.show();

    let pause = SLOWEST.checked_div(command.speed).unwrap_or(SLOWEST);
    let mut plays = JoinSet::new();
    let mut turn = 0_u64;
    loop {
        tokio::select! {
            () = enough.cancelled() => break,
            () = sleep(pause) => {}
        }
        while plays.try_join_next().is_some() {}
        if plays.len() >= MOST_AT_ONCE {
            continue;
        }
        if turn.is_multiple_of(20) {
            refill(cast, fund).await;
        }
        let (cast, quiet) = (Arc::clone(cast), command.quiet);
        let index = cast.draw(u64::try_from(SCENES.len()).unwrap_or(1));
        let scene = usize::try_from(index).ok().and_then(|index| SCENES.get(index));
        let Some(scene) = scene else { continue };
        plays.spawn(async move {
            match play(&cast, scene, turn).await {
                Ok(line) if !quiet => tell(&line),
                Ok(_) => {}
                Err(refused) => {
                    tracing::warn!(%refused, title = scene.title, "a task of the demonstration did not go through");
                }
            }
        });
        turn = turn.wrapping_add(1);
    }
    plays.shutdown().await;
    Ok(())
}

/// The program as it was called, so that what is shown can be pasted in the same folder.
fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "zerostate".to_owned())
}

/// What a person can do now, ready to paste.
fn next_steps(url: &str, token: &str, program: &str) -> String {
    let body = json!({
        "query": "mutation($input: ExecuteTaskInput!) { executeTask(input: $input) { task { id status } userErrors { code message } } }",
        "variables": { "input": {
            "title": "Hello", "capabilities": ["text.stats"], "input": "Hello, world. Hello!", "budget": "2.5",
            "idempotencyKey": "hello-1",
        } },
    });
    let look = json!({ "query": "{ me { wallet { available inEscrow } } tasks(first: 1) { nodes { title status price result { output } } } }" });
    format!(
        "  Next, in another terminal:\n\n    export TOKEN={token}\n\n    # post a task and let the sample agents compete\n    \
         curl -s {url} -H \"authorization: Bearer $TOKEN\" -H 'content-type: application/json' \\\n      -d '{body}'\n\n    \
         # see the wallet and what came of the newest task\n    \
         curl -s {url} -H \"authorization: Bearer $TOKEN\" -H 'content-type: application/json' \\\n      -d '{look}'\n\n    \
         # one task with every step, bid, score, transfer and check\n    \
         {program} demo --once --capability text.stats --input README.md --budget 2.5"
    )
}

/// Says what a demonstration has besides a service.
fn greet(banner: &mut Banner, data: &str, client: &str, admin: &str, next: &str) {
    banner.line("Data", data);
    banner.line("Sign in", &format!("{client} (client)"));
    banner.line("", &format!("{admin} (administrator)"));
    banner.paragraph(next);
    banner.paragraph("  Ctrl-C stops. Below: what happens on the market.\n");
}

/// Gives the client credits when there are few.
async fn refill(cast: &Cast, fund: Amount) {
    #[derive(Deserialize)]
    struct Me {
        wallet: Wallet,
    }
    #[derive(Deserialize)]
    struct Wallet {
        available: String,
    }
    let me: Result<Me, Refused> = cast.api.call(&cast.client, operations::ME, json!({})).await;
    let low = Amount::from_credits(LOW).unwrap_or_default();
    let refilled = match me {
        Ok(me) if me.wallet.available.parse::<Amount>().is_ok_and(|available| available < low) => {
            cast.fund(fund).await.map(|_| ())
        }
        Ok(_) => Ok(()),
        Err(refused) => Err(refused),
    };
    if let Err(refused) = refilled {
        tracing::warn!(%refused, "the client of the demonstration got no credits");
    }
}

/// A small real piece of work.
struct Scene {
    title: &'static str,
    capability: &'static str,
    /// JSON for `json.*`, text for everything else.
    input: &'static str,
    budget: &'static str,
}

const SCENES: &[Scene] = &[
    Scene {
        title: "How long is this notice?",
        capability: "text.stats",
        input: "The library closes at six on Friday.\n\nReturn books to the box by the door; the box is emptied at nine.\n",
        budget: "1.5",
    },
    Scene {
        title: "Reading time of a preamble",
        capability: "text.stats",
        input: "We the People of the United States, in Order to form a more perfect Union, establish Justice, insure domestic \
                Tranquility, provide for the common defence, promote the general Welfare, and secure the Blessings of Liberty to \
                ourselves and our Posterity, do ordain and establish this Constitution for the United States of America.",
        budget: "2",
    },
    Scene {
        title: "Sales of the week",
        capability: "csv.summary",
        input: "day,store,units,revenue\n2026-03-02,North,14,181.50\n2026-03-02,South,9,117.00\n2026-03-03,North,22,283.80\n\
                2026-03-03,South,,\n2026-03-04,North,17,219.30\n2026-03-04,South,11,142.90\n",
        budget: "3",
    },
    Scene {
        title: "Who is on call?",
        capability: "csv.summary",
        input: "name;team;since\nAda;storage;2024-01-15\nGrace;compilers;2023-06-01\nEdsger;storage;2025-11-30\n",
        budget: "2.5",
    },
    Scene {
        title: "Is this order well formed?",
        capability: "json.validate",
        input: r#"{"schema":{"type":"object","required":["id","lines"],"properties":{"id":{"type":"integer"},"lines":{"type":"array","items":{"type":"object","required":["sku","count"]}}}},"value":{"id":7,"lines":[{"sku":"A-1","count":2},{"sku":"B-9"}]}}"#,
        budget: "2",
    },
    Scene {
        title: "Does the configuration fit its schema?",
        capability: "json.validate",
        input: r#"{"schema":{"type":"object","properties":{"port":{"type":"integer","minimum":1,"maximum":65535},"host":{"type":"string","minLength":1}},"required":["host"]},"value":{"port":70000,"host":"example.org"}}"#,
        budget: "2.2",
    },
    Scene {
        title: "A schema that no agent can check",
        capability: "json.validate",
        input: r#"{"schema":{"type":"string","pattern":"^[a-z]+$"},"value":"zerostate"}"#,
        budget: "2",
    },
    Scene {
        title: "What is this abstract about?",
        capability: "text.keywords",
        input: "A payment channel lets two parties exchange many payments while only two of them are written down: the one that opens \
                the channel and the one that closes it. Each payment in between is a signed promise that replaces the one before. \
                Whoever closes the channel with an old promise can be corrected by the other party within a waiting time.",
        budget: "4",
    },
    Scene {
        title: "Keywords of a complaint",
        capability: "text.keywords",
        input: "The delivery came two days late and the box was open. The delivery service says the warehouse packed the box badly; the \
                warehouse says the delivery service dropped the box. I would like a new lamp, because the lamp is broken.",
        budget: "3.5",
    },
];

impl Scene {
    fn input(&self) -> Value {
        let document = if self.capability.starts_with("json.") { serde_json::from_str(self.input).ok() } else { None };
        document.unwrap_or_else(|| Value::String(self.input.to_owned()))
    }

    /// How the auction of a turn runs: at once, at once for a client to whom the reputation is all but everything, or with time
    /// for open bids, at the first price, at the second price, or awarded by hand.
    fn terms(turn: u64) -> Value {
        match turn % 6 {
            0 => json!({ "visibility": "OPEN", "closesIn": "PT5S" }),
            2 => json!({ "visibility": "OPEN", "closesIn": "PT5S", "kind": "SECOND_PRICE" }),
            4 => json!({ "visibility": "OPEN", "closesIn": "PT10S", "awardMode": "MANUAL" }),
            5 => json!({ "priceWeight": "5" }),
            _ => json!({}),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Played {
    status: String,
    price: Option<String>,
    failure_code: Option<String>,
    agent: Option<Winner>,
    auction: Auction,
}

#[derive(Deserialize)]
struct Winner {
    id: String,
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Auction {
    bid_count: i32,
    bids: Bids,
}

#[derive(Deserialize)]
struct Bids {
    nodes: Vec<Bid>,
}

#[derive(Deserialize)]
struct Bid {
    id: String,
    price: String,
    status: String,
}

/// Posts one task, bids in its auction where that takes time, waits for its end and rates. Answers what to tell of it.
async fn play(cast: &Cast, scene: &Scene, turn: u64) -> Result<String, Refused> {
    let terms = Scene::terms(turn);
    let (takes_time, by_hand) = (terms.get("closesIn").is_some(), terms.get("awardMode").is_some());
    let mut input = json!({
        "title": scene.title,
        "capabilities": [scene.capability],
        "input": scene.input(),
        "budget": scene.budget,
        "idempotencyKey": cast.key(),
    });
    if let (Some(fields), Value::Object(terms)) = (input.as_object_mut(), terms) {
        fields.extend(terms);
    }
    let posted: Value = cast.api.call(&cast.client, operations::EXECUTE_TASK, json!({ "input": input })).await?;
    let id_at = |pointer: &str| posted.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (task, auction) = (id_at("/task/id"), id_at("/task/auction/id"));
    if takes_time {
        underbid(cast, scene, &auction).await;
    }
    if by_hand {
        award_the_dearest(cast, &task, &auction).await?;
    }
    let mut played: Played = cast.api.call(&cast.client, operations::TASK, json!({ "id": task })).await?;
    for _ in 0..LOOKS {
        if !matches!(played.status.as_str(), "OPEN" | "AWARDED" | "RUNNING") {
            break;
        }
        sleep(LOOK).await;
        played = cast.api.call(&cast.client, operations::TASK, json!({ "id": task })).await?;
    }
    let mut stars = 0;
    if played.status == "COMPLETED" && cast.draw(4) > 0 {
        // The thorough agents of a capability are the dearer ones, and their clients are the happier ones.
        let thorough = cast.sellers.iter().any(|seller| {
            seller.sample.is_thorough() && played.agent.as_ref().is_some_and(|agent| agent.id == seller.id)
        });
        stars = if thorough { 4 + cast.draw(2) } else { 2 + cast.draw(3) };
        let input = json!({ "taskId": task, "stars": stars, "idempotencyKey": cast.key() });
        let _: Value = cast.api.call(&cast.client, operations::RATE_AGENT, json!({ "input": input })).await?;
    }
    let score = match &played.agent {
        Some(agent) => {
            let now: Value = cast.api.call(&cast.client, operations::AGENT, json!({ "id": agent.id })).await?;
            now.pointer("/reputation/score").and_then(Value::as_str).unwrap_or("-").to_owned()
        }
        None => String::new(),
    };
    Ok(played.line(scene, stars, &score))
}

impl Played {
    fn line(&self, scene: &Scene, stars: u64, score: &str) -> String {
        let (bids, title) = (self.auction.bid_count, scene.title);
        let capability = scene.capability;
        let Some(agent) = &self.agent else {
            return format!("  {capability:<14} {title:<40} {bids} bids, nobody won");
        };
        let price = self.price.as_deref().unwrap_or("-");
        let end = match self.status.as_str() {
            "COMPLETED" => "paid".to_owned(),
            "REFUNDED" => format!("refunded ({})", self.failure_code.as_deref().unwrap_or("-")),
            other => other.to_lowercase(),
        };
        let rated = if stars == 0 { String::new() } else { format!(", {stars} stars") };
        let winner = &agent.name;
        format!("  {capability:<14} {title:<40} {bids} bids, {winner} for {price}, {end}{rated}, reputation {score}")
    }
}

/// A client who wants the thorough work, whatever it costs, picks the dearest of the bids that stand.
async fn award_the_dearest(cast: &Cast, task: &str, auction: &str) -> Result<(), Refused> {
    let played: Played = cast.api.call(&cast.client, operations::TASK, json!({ "id": task })).await?;
    let standing = played.auction.bids.nodes.iter().filter(|bid| bid.status == "ACTIVE");
    let dearest = standing.max_by_key(|bid| bid.price.parse::<Amount>().unwrap_or_default());
    let Some(bid) = dearest else { return Ok(()) };
    let input = json!({ "auctionId": auction, "bidId": bid.id, "idempotencyKey": cast.key() });
    let _: Value = cast.api.call(&cast.client, operations::AWARD_AUCTION, json!({ "input": input })).await?;
    Ok(())
}

/// The owners of sample agents bid less than they ask in an auction that takes time.
async fn underbid(cast: &Cast, scene: &Scene, auction: &str) {
    for seller in
        cast.sellers.iter().filter(|seller| seller.sample.capabilities.iter().any(|it| it == scene.capability))
    {
        sleep(Duration::from_millis(500 + cast.draw(1_000))).await;
        let price = between(cast, seller).to_string();
        let input = json!({ "auctionId": auction, "agentId": seller.id, "price": price, "idempotencyKey": cast.key() });
        let owner = cast.owner(&seller.sample);
        let bid: Result<Value, Refused> = cast.api.call(owner, operations::SUBMIT_BID, json!({ "input": input })).await;
        if let Err(refused) = bid {
            tracing::debug!(%refused, "a bid of the demonstration was refused");
        }
    }
}

/// A price between the least that an agent works for and what it asks, in whole hundredths.
fn between(cast: &Cast, seller: &Seller) -> Amount {
    const HUNDREDTH: u64 = 10_000;
    let micros = |text: &str| text.parse::<Amount>().map_or(0, |amount| u64::try_from(amount.micros()).unwrap_or(0));
    let (least, most) = (micros(&seller.sample.min_price), micros(&seller.sample.price));
    let steps = most.saturating_sub(least) / HUNDREDTH;
    let price = least.saturating_add(cast.draw(steps.saturating_add(1)).saturating_mul(HUNDREDTH));
    i64::try_from(price).ok().and_then(Amount::from_micros).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_demonstration_says_how_to_go_on() {
        let mut banner = Banner::new(
            "zerostate 0.1.0",
            "sqlite",
            "http://127.0.0.1:8080",
            "http://127.0.0.1:8080",
            Duration::from_millis(320),
            true,
        );
        let next = next_steps("http://127.0.0.1:8080/graphql", "TOKEN", "./zerostate");
        greet(&mut banner, "in a temporary folder", "client@demo / demo", "admin@demo / demo", &next);
        let text = banner.text();
        let head = "
  zerostate 0.1.0, sqlite                     ready in 320 ms

  Console    http://127.0.0.1:8080/
  GraphiQL   http://127.0.0.1:8080/graphiql
  GraphQL    http://127.0.0.1:8080/graphql   ws://127.0.0.1:8080/graphql/ws
  Metrics    http://127.0.0.1:8080/metrics
  Data       in a temporary folder
  Sign in    client@demo / demo (client)
             admin@demo / demo (administrator)

  Next, in another terminal:

    export TOKEN=TOKEN
";
        assert!(text.starts_with(head), "{text}");
        assert!(text.contains("\n    ./zerostate demo --once "), "{text}");
        assert!(text.ends_with("Below: what happens on the market.\n\n"), "{text}");
    }

    #[test]
    fn every_scene_is_a_task_that_can_be_posted() {
        for scene in SCENES {
            assert!(credits(scene.budget).is_ok(), "{}", scene.title);
            assert_eq!(scene.input().is_object(), scene.capability.starts_with("json."), "{}", scene.title);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn one_task_goes_through_the_whole_market() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (folder, entropy) = (tempfile::tempdir().unwrap(), Entropy::seeded(7));
        let mut config = Config::in_folder(folder.path());
        config.terms.fee_bps = 333;
        let names = Names::unique(&entropy);
        let place = Place { config, names, temporary: Some(folder), shared: true };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let played = stage(&place, entropy, listener, async |app, cast| {
            for document in operations::ALL.iter().filter(|document| !document.starts_with("subscription")) {
                let answer: Result<Value, Refused> = cast.api.call(&cast.admin, document, json!({})).await;
                let code = answer.err().map(|refused| refused.code).unwrap_or_default();
                assert!(!["GRAPHQL_PARSE_FAILED", "GRAPHQL_VALIDATION_FAILED"].contains(&code.as_str()), "{document}");
            }
            let input = Value::String("To be, or not to be, that is the question.".to_owned());
            let order = Order { capability: "text.stats".to_owned(), input, budget: credits("2.5").unwrap() };
            let report = once::run(cast, &order, database(app), &CancellationToken::new()).await;
            assert_eq!(report.failures(), [""; 0]);
            cast.fund(Amount::from_credits(10).unwrap()).await?;
            let scene = SCENES.first().unwrap();
            assert!(play(cast, scene, 1).await?.contains("paid"));
            assert!(play(cast, scene, 5).await?.contains("paid"));

            let order = Order { capability: "nobody.can".to_owned(), input: json!(1), budget: credits("1").unwrap() };
            let report = once::run(cast, &order, database(app), &CancellationToken::new()).await;
            assert!(report.failures().iter().any(|failure| failure.starts_with("step 4")), "{:?}", report.failures());
            Ok(cast.sellers.len())
        });
        assert_eq!(played.await.unwrap(), 10);
    }

    #[tokio::test]
    async fn a_taken_port_is_exchanged_only_if_nobody_asked_for_it() {
        let first = listen_on("127.0.0.1:0".parse().unwrap(), false).await.unwrap();
        let address = first.local_addr().unwrap();
        assert_ne!(listen_on(address, true).await.unwrap().local_addr().unwrap(), address);
        assert!(listen_on(address, false).await.unwrap_err().to_string().contains("another port"));
    }
}
