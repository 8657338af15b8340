//! An outside agent: it follows the market, bids, works and is paid. The README of the examples says how to run it.

use std::{env, fs, io::Write, os::unix::fs::OpenOptionsExt, pin::pin, time::Duration};

use anyhow::{Context, Result, bail};
use cynic::{Id, MutationBuilder, Operation, QueryBuilder, SubscriptionBuilder};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;
use tokio_tungstenite::{connect_async, tungstenite::client::IntoClientRequest};

use market::*;

/// The typed client that the build makes.
#[allow(dead_code)]
mod market {
    #[cynic::schema("zerostate")]
    mod schema {}
    include!(concat!(env!("OUT_DIR"), "/market.rs"));
}

const PRICE: &str = "1.4";

fn setting(name: &str, default: &str) -> String {
    env::var(name).unwrap_or_else(|_| default.to_owned())
}

/// What is kept from one run to the next, in a file that only its owner can read.
#[derive(Clone, Default, Deserialize, Serialize)]
struct Known {
    agent: String,
    key: String,
    cursor: Option<EventCursor>,
}

impl Known {
    fn keep(&self, file: &str) -> Result<()> {
        let (new, mut options) = (format!("{file}.new"), fs::OpenOptions::new());
        let mut new_file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        new_file.write_all(&serde_json::to_vec(self)?)?;
        Ok(fs::rename(new, file)?)
    }
}

#[derive(Clone)]
struct Agent {
    http: reqwest::Client,
    url: String,
    name: String,
    capability: String,
    known: Known,
}

impl Agent {
    /// Makes a query, or a mutation with a key, and makes it again while the server is away or busy.
    async fn ask<T: DeserializeOwned, V: Serialize>(&self, operation: Operation<T, V>) -> Result<T> {
        let mut pause = Duration::from_millis(200);
        loop {
            let mut request = self.http.post(&self.url).timeout(Duration::from_secs(40)).json(&operation);
            if !self.known.key.is_empty() {
                request = request.bearer_auth(&self.known.key);
            }
            if let Ok(answer) = async { request.send().await?.json::<Value>().await }.await {
                let mut payloads = answer["data"].as_object().into_iter().flat_map(|data| data.values());
                let refusal = payloads.find_map(|payload| payload["userErrors"].get(0));
                match answer["errors"].get(0).or(refusal) {
                    None => return Ok(T::deserialize(&answer["data"])?),
                    Some(fault) if fault["extensions"]["retryable"] != true => bail!("{}", fault["message"]),
                    Some(_) => {}
                }
            }
            sleep(pause).await;
            pause = (2 * pause).min(Duration::from_secs(3));
        }
    }

    /// Signs the owner up and in, registers the agent, and makes the key with which it works from then on.
    async fn enter(&mut self) -> Result<()> {
        let email = &*env::var("ZEROSTATE_EMAIL").context("ZEROSTATE_EMAIL is needed for the first run")?;
        let password = &*env::var("ZEROSTATE_PASSWORD").context("ZEROSTATE_PASSWORD is needed for the first run")?;
        let (name, capability, price) = (&*self.name.clone(), &*self.capability.clone(), Credits(PRICE.to_owned()));
        if let Err(refusal) = self.ask(RegisterUser::build(RegisterUserVariables { email, password, name })).await {
            println!("no new account: {refusal}");
        }
        let entered = self.ask(Login::build(LoginVariables { email, password })).await?.login;
        self.known.key = entered.and_then(|payload| payload.tokens).context("no token")?.access_token;
        let new = RegisterAgentVariables { name, capability, price };
        let registered = self.ask(RegisterAgent::build(new)).await?.register_agent;
        let agent = registered.and_then(|payload| payload.agent).context("no agent")?.id;
        let key = &chrono::Utc::now().to_rfc3339();
        let made = self.ask(CreateApiKey::build(CreateApiKeyVariables { name, agent_id: &agent, key })).await?;
        let key = made.create_api_key.and_then(|payload| payload.secret).context("no key")?;
        self.known = Known { agent: agent.into_inner(), key, cursor: None };
        self.known.keep(&format!("{name}.json"))
    }

    /// Bids in each auction that opens behind the last one.
    async fn listen(&mut self) -> Result<()> {
        let mut request = format!("{}/ws", self.url.replacen("http", "ws", 1)).into_client_request()?;
        request.headers_mut().insert("sec-websocket-protocol", "graphql-transport-ws".parse()?);
        let client = graphql_ws_client::Client::build(connect_async(request).await?.0);
        let operation = AuctionOpened::build(AuctionOpenedVariables { after: self.known.cursor.clone() });
        let mut events = client.subscribe(operation).await?;
        while let Some(answer) = events.next().await {
            let event = answer?.data.context("no event")?.event;
            if let Event4::AuctionEvent(AuctionEvent { auction: Some(auction) }) = event.event4
                && let Err(error) = self.bid(&auction).await
            {
                println!("no bid in {}: {error}", auction.id.inner());
            }
            self.known.cursor = Some(event.cursor);
            self.known.keep(&format!("{}.json", self.name))?;
        }
        Ok(())
    }

    /// Bids its price wherever nothing but its capability is asked and the ceiling allows it.
    async fn bid(&self, auction: &Auction) -> Result<()> {
        let fits = matches!(auction.status, AuctionStatus::Open) && auction.capabilities == [&*self.capability];
        if fits && auction.max_price.0.parse::<f64>()? >= PRICE.parse()? {
            let (auction_id, agent_id, price) = (&auction.id, &self.id(), Credits(PRICE.to_owned()));
            let key = &format!("bid-{}", auction_id.inner());
            self.ask(SubmitBid::build(SubmitBidVariables { auction_id, agent_id, price, key })).await?;
            println!("{key} at {PRICE}");
        }
        Ok(())
    }

    /// Does a task that it won: works while it says that it does, and submits.
    async fn work(&self, task_id: &Id, claims: i32) -> Result<()> {
        let key = &format!("claim-{}-{claims}", task_id.inner());
        let claimed = self.ask(ClaimTask::build(ClaimTaskVariables { task_id, key })).await?.claim_task;
        let Claim { token, leased_until, task } = claimed.and_then(|payload| payload.claim).context("no claim")?;
        let key = &format!("submit-{}-{}", task_id.inner(), token.0);
        let mut working = pin!(async {
            sleep(Duration::from_secs_f64(setting("AGENT_SECONDS", "0").parse()?)).await;
            let token = token.clone();
            let Some(Json(Value::String(text))) = task.input else {
                let fault = FailTaskVariables { task_id, token, message: "the input is no text", key };
                return self.ask(FailTask::build(fault)).await.map(drop);
            };
            let output = tokio::task::spawn_blocking(move || Json(summary(&text))).await?;
            self.ask(SubmitResult::build(SubmitResultVariables { task_id, token, output, key })).await.map(drop)
        });
        let third = (leased_until.0 - chrono::Utc::now()).to_std().unwrap_or_default() / 3;
        loop {
            tokio::select! {
                done = &mut working => return done,
                () = sleep(third.max(Duration::from_millis(500))) => {}
            }
            // A claim that ended by time may still submit unless somebody else took the work up.
            self.ask(Heartbeat::build(HeartbeatVariables { task_id, token: token.clone() })).await.ok();
        }
    }

    fn id(&self) -> Id {
        Id::new(&self.known.agent)
    }

    async fn earned(&self) -> Result<String> {
        let earnings = self.ask(Earnings::build(EarningsVariables { agent_id: &self.id() })).await?;
        Ok(earnings.agent.and_then(|agent| agent.earnings).context("no such agent")?.0)
    }
}

/// The work itself: the first sentence of a text, and how many words it has.
fn summary(text: &str) -> Value {
    let first = text.split_inclusive(['.', '!', '?']).next().unwrap_or_default();
    json!({ "summary": first.trim(), "words": text.split_whitespace().count() })
}

#[tokio::main]
async fn main() -> Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let url = format!("{}/graphql", setting("ZEROSTATE_SERVER", "http://127.0.0.1:8080").trim_end_matches('/'));
    let (name, capability) = (setting("AGENT_NAME", "rust-agent"), setting("AGENT_CAPABILITY", "text.summary"));
    let file = format!("{name}.json");
    let known = if fs::exists(&file)? { serde_json::from_slice(&fs::read(&file)?)? } else { Known::default() };
    let mut agent = Agent { http: reqwest::Client::builder().no_proxy().build()?, url, name, capability, known };
    if agent.known.key.is_empty() {
        agent.enter().await?;
    }
    println!("{} is on the market for {}", agent.known.agent, agent.capability);
    let mut bidder = agent.clone();
    tokio::spawn(async move {
        loop {
            if let Err(error) = bidder.listen().await {
                println!("the stream broke ({error}), trying again");
            }
            sleep(Duration::from_secs(1)).await;
        }
    });
    let agent_id = &agent.id();
    loop {
        let offers = WorkOffersVariables { agent_id, wait: market::Duration("PT5S".to_owned()) };
        let offered = tokio::select! {
            biased;
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            offered = agent.ask(WorkOffers::build(offers)) => offered?.work_offers.context("not our agent")?,
        };
        for WorkOffer { task_id, claims } in offered {
            match agent.work(&task_id, claims).await {
                Ok(()) => println!("done {}, earned {} in all", task_id.inner(), agent.earned().await?),
                Err(error) => println!("{} is not ours: {error}", task_id.inner()),
            }
        }
    }
    println!("earned {}", agent.earned().await?);
    Ok(())
}
