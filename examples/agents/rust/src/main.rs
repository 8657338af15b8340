//! An outside agent: it follows the market, bids, works and is paid. `--help` says how to run it.

/// The typed client that the build makes.
#[allow(dead_code)]
mod market {
    #[cynic::schema("zerostate")]
    mod schema {}
    include!(concat!(env!("OUT_DIR"), "/market.rs"));
}

use std::{
    collections::{HashMap, HashSet},
    error::Error,
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    time::Duration,
};

use clap::Parser;
use cynic::{GraphQlError, GraphQlResponse, Id, MutationBuilder, Operation, QueryBuilder, SubscriptionBuilder};
use futures_util::StreamExt;
use market::*;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{signal::unix::{SignalKind, signal}, sync::watch, time::sleep};
use tokio_tungstenite::{connect_async, tungstenite::client::IntoClientRequest};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// An outside agent for a ZeroState market.
#[derive(Parser)]
struct Options {
    #[arg(long, env = "ZEROSTATE_SERVER", default_value = "http://127.0.0.1:8080")]
    server: String,
    /// The owner's address; with the password it makes the account at the first run.
    #[arg(long, env = "ZEROSTATE_EMAIL", default_value = "")]
    email: String,
    #[arg(long, env = "ZEROSTATE_PASSWORD", default_value = "", hide_env_values = true)]
    password: String,
    #[arg(long, default_value = "rust-agent")]
    name: String,
    #[arg(long, default_value = "text.summary")]
    capability: String,
    /// The part of a ceiling that it bids, in hundredths.
    #[arg(long, default_value_t = 70)]
    percent: u64,
    /// Seconds that a task takes at least.
    #[arg(long, default_value_t = 0.0)]
    slow: f64,
    /// Seconds between signs of life; less than half of the market's lease.
    #[arg(long, default_value_t = 5)]
    beat: u64,
    /// The file for its key.
    #[arg(long, default_value = "rust-agent.json")]
    state: String,
}

/// What is kept from one run to the next.
#[derive(Default, Serialize, Deserialize)]
struct Known {
    agent: String,
    key: String,
    cursor: Option<String>,
}

/// The market over HTTP, for whoever has this token.
struct Market {
    http: reqwest::Client,
    url: String,
    token: String,
}

impl Market {
    fn new(options: &Options, token: &str) -> Result<Self> {
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(40)).build()?;
        let url = format!("{}/graphql", options.server.trim_end_matches('/'));
        Ok(Self { http, url, token: token.to_owned() })
    }

    /// Asks, and asks again while the server is away or busy: a query, or a mutation with a key.
    async fn ask<T: DeserializeOwned, V: Serialize>(&self, operation: Operation<T, V>) -> Result<T> {
        let mut pause = 200;
        loop {
            let mut request = self.http.post(&self.url).json(&operation);
            if !self.token.is_empty() {
                request = request.bearer_auth(&self.token);
            }
            let answer = async { request.send().await?.json::<GraphQlResponse<T, Extensions>>().await }.await;
            match answer {
                Ok(GraphQlResponse { errors: None, data: Some(data) }) => return Ok(data),
                Ok(GraphQlResponse { errors: Some(errors), .. }) if !errors.iter().any(passes) => {
                    return Err(errors.into_iter().map(|error| error.message).collect::<Vec<_>>().join(", ").into());
                }
                Ok(_) | Err(_) => sleep(Duration::from_millis(pause)).await,
            }
            pause = (2 * pause).min(3_000);
        }
    }
}

/// What an error says beside its text.
#[derive(Deserialize)]
struct Extensions {
    #[serde(default)]
    retryable: bool,
}

fn passes(error: &GraphQlError<Extensions>) -> bool {
    error.extensions.as_ref().is_some_and(|extensions| extensions.retryable)
}

/// A payload that may say no.
trait Payload {
    fn refusal(&self) -> Option<&str>;
}

macro_rules! payloads {
    ($($Payload:ident)*) => { $(impl Payload for $Payload {
        fn refusal(&self) -> Option<&str> {
            self.user_errors.first().map(|error| error.message.as_str())
        }
    })* };
}

payloads!(LoginPayload RegisterAgentPayload CreateApiKeyPayload SubmitBidPayload ClaimTaskPayload HeartbeatPayload
    SubmitResultPayload FailTaskPayload);

/// A payload whose mutation was not refused.
fn taken<P: Payload>(payload: Option<P>) -> Result<P> {
    let payload = payload.ok_or("no answer")?;
    match payload.refusal() {
        Some(why) => Err(why.into()),
        None => Ok(payload),
    }
}

struct Agent {
    options: Options,
    market: Market,
    id: Id,
    enough: watch::Receiver<bool>,
}

impl Known {
    /// Keeps the key and the place in the log in a file that only its owner can read.
    fn keep(&self, file: &str) -> Result<()> {
        let beside = format!("{file}.new");
        let mut new = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        new.write_all(&serde_json::to_vec(self)?)?;
        Ok(fs::rename(beside, file)?)
    }

    /// Registers the owner and the agent once, and makes the key with which it works from then on.
    async fn enter(options: &Options) -> Result<Self> {
        if let Ok(text) = fs::read(&options.state) {
            return Ok(serde_json::from_slice(&text)?);
        }
        if options.email.is_empty() || options.password.is_empty() {
            return Err("Set ZEROSTATE_EMAIL and ZEROSTATE_PASSWORD for the first run: they make the account.".into());
        }
        let (nobody, email, password, name) = (Market::new(options, "")?, &*options.email, &*options.password, &*options.name);
        let input = RegisterUserInput { email, password, display_name: name };
        let registered = nobody.ask(RegisterUser::build(RegisterUserVariables { input })).await?.register_user;
        let tokens = match registered.and_then(|payload| payload.tokens) {
            Some(tokens) => Some(tokens),
            None => {
                let input = LoginInput { email, password };
                taken(nobody.ask(Login::build(LoginVariables { input })).await?.login)?.tokens
            }
        };
        let owner = Market::new(options, &tokens.ok_or("no token")?.access_token)?;
        let input = RegisterAgentInput {
            name,
            description: "",
            capabilities: vec![&options.capability],
            runtime: AgentRuntime::External,
            price: Credits("1".to_owned()),
            min_price: Some(Credits("0.000001".to_owned())),
            capacity: None,
            promised_duration: None,
            public_key: None,
            idempotency_key: &format!("agent-{name}"),
        };
        let registered = owner.ask(RegisterAgent::build(RegisterAgentVariables { input })).await?.register_agent;
        let id = taken(registered)?.agent.ok_or("no agent")?.id;
        let now = std::time::UNIX_EPOCH.elapsed()?.as_nanos();
        let input = CreateApiKeyInput {
            name,
            agent_id: Some(&id),
            scopes: vec![ApiScope::Read, ApiScope::BidsWrite, ApiScope::WorkWrite],
            expires_in: None,
            idempotency_key: &format!("key-{now}"),
        };
        let made = owner.ask(CreateApiKey::build(CreateApiKeyVariables { input })).await?.create_api_key;
        let key = taken(made)?.secret.ok_or("no key")?;
        let known = Self { agent: id.into_inner(), key, cursor: None };
        known.keep(&options.state)?;
        Ok(known)
    }
}

impl Agent {
    /// Bids in each auction that opens, going on behind the last one after a break.
    async fn follow(&self, mut known: Known) {
        let mut pause = 200;
        loop {
            let before = known.cursor.clone();
            if let Err(error) = self.listen(&mut known).await {
                println!("the stream broke ({error}), trying again");
            }
            pause = if known.cursor == before { (2 * pause).min(3_000) } else { 200 };
            sleep(Duration::from_millis(pause)).await;
        }
    }

    async fn listen(&self, known: &mut Known) -> Result<()> {
        let mut request = format!("{}/ws", self.market.url.replacen("http", "ws", 1)).into_client_request()?;
        request.headers_mut().insert("sec-websocket-protocol", "graphql-transport-ws".parse()?);
        let (connection, _) = connect_async(request).await?;
        let credentials = HashMap::from([("authorization", format!("Bearer {}", self.market.token))]);
        let filter = Some(MarketEventFilter { agent_id: None, kinds: Some(vec![EventKind::AuctionOpened]) });
        let after = known.cursor.clone().map(EventCursor);
        let client = graphql_ws_client::Client::build(connection).payload(credentials)?;
        let mut events = client.subscribe(MarketEvents::build(MarketEventsVariables { after, filter })).await?;
        while let Some(event) = events.next().await {
            let Some(MarketEvents { market_events: event }) = event?.data else { continue };
            if let Event2::AuctionEvent(AuctionEvent { auction: Some(auction) }) = event.event2 {
                self.bid(auction).await?;
            }
            known.cursor = Some(event.cursor.0);
            known.keep(&self.options.state)?;
        }
        Ok(())
    }

    async fn bid(&self, auction: Auction) -> Result<()> {
        let only = |capability: &String| *capability == self.options.capability;
        if !matches!(auction.status, AuctionStatus::Open) || !auction.capabilities.iter().all(only) {
            return Ok(());
        }
        let price = credits(micros(&auction.max_price.0)? * self.options.percent / 100);
        let idempotency_key = &format!("bid-{}", auction.id.inner());
        let (auction_id, agent_id, price) = (&auction.id, &self.id, Credits(price));
        let input = SubmitBidInput { auction_id, agent_id, price: price.clone(), promised_duration: None, idempotency_key };
        let answer = self.market.ask(SubmitBid::build(SubmitBidVariables { input })).await?.submit_bid;
        if taken(answer).is_ok() {
            println!("{idempotency_key} at {}", price.0);
        }
        Ok(())
    }

    /// Takes what was won, one task after the other.
    async fn serve(&self) -> Result<()> {
        while !*self.enough.borrow() {
            let variables = WorkOffersVariables { agent_id: &self.id, wait: Some(market::Duration("PT5S".to_owned())) };
            for offer in self.market.ask(WorkOffers::build(variables)).await?.work_offers.unwrap_or_default() {
                if *self.enough.borrow() {
                    return Ok(());
                }
                let id = offer.task_id.inner().to_owned();
                if let Err(error) = self.work(offer).await {
                    println!("{id} is not ours: {error}");
                }
            }
        }
        Ok(())
    }

    async fn work(&self, offer: WorkOffer) -> Result<()> {
        let task_id = &offer.task_id;
        let key = format!("claim-{}-{}", task_id.inner(), offer.claims);
        let input = ClaimTaskInput { task_id, idempotency_key: &key, worker: None };
        let claimed = self.market.ask(ClaimTask::build(ClaimTaskVariables { input })).await?.claim_task;
        let claim = taken(claimed)?.claim.ok_or("no claim")?;
        let working = async {
            sleep(Duration::from_secs_f64(self.options.slow)).await;
            let (idempotency_key, token) = (&*format!("submit-{}-{}", task_id.inner(), claim.token.0), claim.token.clone());
            if let Some(Json(serde_json::Value::String(text))) = &claim.task.input {
                let input = SubmitResultInput { task_id, token, output: Json(summary(text, 2)), logs: None, idempotency_key };
                taken(self.market.ask(SubmitResult::build(SubmitResultVariables { input })).await?.submit_result)?;
            } else {
                let (code, message) = ("BAD_INPUT", "the input is no text");
                let input = FailTaskInput { task_id, token, code, message, idempotency_key };
                taken(self.market.ask(FailTask::build(FailTaskVariables { input })).await?.fail_task)?;
            }
            Ok(())
        };
        tokio::select! {
            done = working => done,
            never = self.beat(task_id, &claim) => never,
        }?;
        println!("done {} for {}, earned {} in all", task_id.inner(), offer.price.0, self.earned().await?);
        Ok(())
    }

    /// Keeps the claim while it works. A claim that ended by time may still submit unless somebody else took the work up.
    async fn beat(&self, task_id: &Id, claim: &Claim) -> Result<()> {
        loop {
            sleep(Duration::from_secs(self.options.beat)).await;
            let input = HeartbeatInput { task_id, token: claim.token.clone() };
            if taken(self.market.ask(Heartbeat::build(HeartbeatVariables { input })).await?.heartbeat).is_err() {
                return std::future::pending().await;
            }
        }
    }

    async fn earned(&self) -> Result<String> {
        let operation = Earnings::build(EarningsVariables { agent_id: &self.id });
        Ok(self.market.ask(operation).await?.agent.and_then(|agent| agent.earnings).map_or_else(String::new, |earned| earned.0))
    }
}

fn micros(credits: &str) -> Result<u64> {
    let (whole, fraction) = credits.split_once('.').unwrap_or((credits, ""));
    Ok(format!("{whole}{fraction:0<6}").parse()?)
}

fn credits(micros: u64) -> String {
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000).trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The sentences whose words are the most frequent in the text, in their order.
fn summary(text: &str, sentences: usize) -> serde_json::Value {
    let words = |part: &str| -> Vec<String> {
        let all = part.split(|letter: char| !letter.is_alphabetic());
        all.filter(|word| word.chars().count() > 3).map(str::to_lowercase).collect()
    };
    let mut weight: HashMap<String, usize> = HashMap::new();
    for word in words(text) {
        *weight.entry(word).or_default() += 1;
    }
    let found: Vec<&str> = text.split_inclusive(['.', '!', '?']).map(str::trim).filter(|part| !part.is_empty()).collect();
    let score = |part: &str| words(part).into_iter().collect::<HashSet<_>>().iter().map(|word| weight[word]).sum::<usize>();
    let mut best: Vec<usize> = (0..found.len()).collect();
    best.sort_by_key(|&place| std::cmp::Reverse(score(found[place])));
    best.truncate(sentences);
    best.sort_unstable();
    let summary = best.iter().map(|&place| found[place]).collect::<Vec<_>>().join(" ");
    serde_json::json!({ "summary": summary, "sentences": found.len(), "words": text.split_whitespace().count() })
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let options = Options::parse();
    let (stop, enough) = watch::channel(false);
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let known = Known::enter(&options).await?;
    println!("agent {} is on the market for {}", known.agent, options.capability);
    let agent = Agent { market: Market::new(&options, &known.key)?, id: known.agent.clone().into(), options, enough };
    let told = async {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        stop.send_replace(true);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        served = agent.serve() => served?,
        () = agent.follow(known) => {}
        () = told => {}
    }
    println!("earned {}", agent.earned().await?);
    Ok(())
}
