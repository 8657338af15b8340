//! One history on two databases: the same seeded requests, answered by a service on SQLite and by one on PostgreSQL, are answered
//! the same and end in the same balances, awards, reputations and events. Names stand for ids; what depends on how fast a guest ran
//! is left out.
//!
//! A failure prints its seed; `DIFFERENTIAL_SEED` runs that one again.

use std::{collections::HashMap, time::Duration};

use entity::{
    account, agent, auction, bid, event,
    id::{AgentId, BidId, TaskId, UserId},
    reputation, reputation_event, task, task_result, user,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use sea_orm::EntityTrait;
use serde_json::{Value, json};
use zerostate::store::{Cursor, Line};

use crate::world::{Client, World, answering, crashing, echoing, on_postgres};

const PEOPLE: [&str; 4] = ["ada", "bob", "cyd", "dan"];
const CREATE: &str = "mutation($input: CreateAuctionInput!) { createAuction(input: $input) {
    auction { id status bidCount clearingPrice task { id status price } } userErrors { code } } }";
const BID: &str = "mutation($input: SubmitBidInput!) { submitBid(input: $input) {
    bid { id price status sequence } userErrors { code } } }";
const WITHDRAW: &str =
    "mutation($input: WithdrawBidInput!) { withdrawBid(input: $input) { bid { status } userErrors { code } } }";
const AWARD: &str = "mutation($input: AwardAuctionInput!) { awardAuction(input: $input) {
    auction { status clearingPrice } userErrors { code } } }";
const CANCEL: &str =
    "mutation($input: CancelTaskInput!) { cancelTask(input: $input) { task { status } userErrors { code } } }";
const RATE: &str =
    "mutation($input: RateAgentInput!) { rateAgent(input: $input) { rating { stars } userErrors { code } } }";
const PAUSE: &str =
    "mutation($input: PauseAgentInput!) { pauseAgent(input: $input) { agent { status } userErrors { code } } }";
const RESUME: &str =
    "mutation($input: ResumeAgentInput!) { resumeAgent(input: $input) { agent { status } userErrors { code } } }";
const REDEEM: &str = "mutation($input: RedeemCreditsInput!) { redeemCredits(input: $input) {
    transfer { amount } userErrors { code } } }";

/// A market with a few people who do whatever the dice say. Everything that it does depends on the dice alone.
pub struct Street {
    pub world: World,
    pub dice: StdRng,
    people: Vec<Client>,
    /// Agents with the place of their owner.
    agents: Vec<(String, usize)>,
    /// Tasks and auctions with the place of their requester.
    tasks: Vec<(String, usize)>,
    auctions: Vec<(String, usize)>,
    bids: Vec<(String, usize)>,
    keys: u32,
}

impl Street {
    pub async fn new(world: World, seed: u64) -> Self {
        let (mut people, mut agents) = (Vec::new(), Vec::new());
        for name in PEOPLE {
            let person = world.user(name).await;
            world.credit(&person, "40").await;
            people.push(person);
        }
        for (number, module) in
            [Some(answering("1")), Some(echoing()), Some(crashing()), None, None].into_iter().enumerate()
        {
            let (name, owner) = (format!("agent-{number}"), number % PEOPLE.len());
            let price = format!("0.{}", number + 3);
            let id = match module {
                Some(module) => world.hosted_agent(&people[owner], &name, "work", &price, module).await,
                None => world.agent(&people[owner], &name, "EXTERNAL", "work", &price).await,
            };
            agents.push((id.to_string(), owner));
        }
        let dice = StdRng::seed_from_u64(seed);
        Self { world, dice, people, agents, tasks: Vec::new(), auctions: Vec::new(), bids: Vec::new(), keys: 0 }
    }

    fn key(&mut self) -> String {
        self.keys += 1;
        format!("step-{}", self.keys)
    }

    fn chance(&mut self, one_in: u32) -> bool {
        self.dice.random_range(0..one_in) == 0
    }

    /// One of several things, and mostly its owner; now and then somebody else tries.
    fn pick(&mut self, from: fn(&Self) -> &[(String, usize)]) -> Option<(String, usize)> {
        let many = from(self).len();
        if many == 0 {
            return None;
        }
        let newest = many.saturating_sub(8);
        let at = self.dice.random_range(newest..many);
        let (id, owner) = from(self)[at].clone();
        let who = if self.chance(8) { self.dice.random_range(0..PEOPLE.len()) } else { owner };
        Some((id, who))
    }

    /// One request, or some time. Answers what came of it, without ids.
    pub async fn step(&mut self) -> String {
        let said = match self.dice.random_range(0..14) {
            0..4 => self.post().await,
            4..8 => self.bid().await,
            8 => {
                let Some((bid, who)) = self.pick(|street| &street.bids) else { return String::new() };
                let key = self.key();
                self.ask(who, WITHDRAW, json!({ "bidId": bid, "idempotencyKey": key })).await
            }
            9 => {
                let Some((auction, who)) = self.pick(|street| &street.auctions) else { return String::new() };
                let key = self.key();
                self.ask(who, AWARD, json!({ "auctionId": auction, "idempotencyKey": key })).await
            }
            10 => {
                let Some((task, who)) = self.pick(|street| &street.tasks) else { return String::new() };
                let key = self.key();
                self.ask(who, CANCEL, json!({ "taskId": task, "idempotencyKey": key })).await
            }
            11 => {
                let Some((task, who)) = self.pick(|street| &street.tasks) else { return String::new() };
                let (key, stars) = (self.key(), self.dice.random_range(1..=5));
                self.ask(who, RATE, json!({ "taskId": task, "stars": stars, "idempotencyKey": key })).await
            }
            12 => {
                let Some((agent, who)) = self.pick(|street| &street.agents) else { return String::new() };
                let document = if self.chance(3) { PAUSE } else { RESUME };
                self.ask(who, document, json!({ "agentId": agent })).await
            }
            _ => {
                let (who, key) = (self.dice.random_range(0..PEOPLE.len()), self.key());
                let (user, amount) = (self.people[who].id().to_owned(), self.dice.random_range(1..9).to_string());
                let input = json!({ "userId": user, "amount": amount, "reference": key, "idempotencyKey": key });
                let admin = self.world.admin().await;
                outcome(&admin.raw(REDEEM, &json!({ "input": input })).await.json())
            }
        };
        if self.chance(3) {
            let pause = Duration::from_millis(self.dice.random_range(0..40_000));
            self.world.pass(pause).await;
        }
        said
    }

    async fn ask(&self, who: usize, document: &str, input: Value) -> String {
        outcome(&self.people[who].raw(document, &json!({ "input": input })).await.json())
    }

    async fn post(&mut self) -> String {
        let (who, key) = (self.dice.random_range(0..PEOPLE.len()), self.key());
        let either = |first: bool, one: &str, other: &str| if first { one.to_owned() } else { other.to_owned() };
        let manual = self.chance(4);
        let timed = manual || self.dice.random();
        let mut input = json!({
            "title": key, "capabilities": ["work"], "input": key, "budget": format!("0.{}", self.dice.random_range(3..10)),
            "kind": either(self.dice.random(), "FIRST_PRICE", "SECOND_PRICE"),
            "visibility": either(self.dice.random(), "SEALED", "OPEN"),
            "awardMode": either(manual, "MANUAL", "AUTOMATIC"),
            "startTimeout": format!("PT{}S", self.dice.random_range(1..60)),
            "idempotencyKey": key,
        });
        if timed {
            input["closesIn"] = json!(format!("PT{}S", self.dice.random_range(1..90)));
        }
        if self.chance(3) {
            input["closeAfterBids"] = json!(self.dice.random_range(1..6));
        }
        let answer = self.people[who].raw(CREATE, &json!({ "input": input })).await.json();
        let auction = &answer["data"]["createAuction"]["auction"];
        if let (Some(auction), Some(task)) = (auction["id"].as_str(), auction["task"]["id"].as_str()) {
            self.auctions.push((auction.to_owned(), who));
            self.tasks.push((task.to_owned(), who));
        }
        outcome(&answer)
    }

    async fn bid(&mut self) -> String {
        let Some((auction, _)) = self.pick(|street| &street.auctions) else { return String::new() };
        let Some((agent, who)) = self.pick(|street| &street.agents) else { return String::new() };
        let (key, price) = (self.key(), format!("0.{}", self.dice.random_range(2..9)));
        let input = json!({ "auctionId": auction, "agentId": agent, "price": price, "idempotencyKey": key });
        let answer = self.people[who].raw(BID, &json!({ "input": input })).await.json();
        if let Some(bid) = answer["data"]["submitBid"]["bid"]["id"].as_str() {
            self.bids.push((bid.to_owned(), who));
        }
        outcome(&answer)
    }

    /// Time alone ends everything.
    pub async fn let_everything_end(&self) {
        for _ in 0..4 {
            self.world.pass(Duration::from_hours(30)).await;
        }
    }

    /// All that the market has come to, by names.
    async fn sum_up(&self) -> Vec<String> {
        let db = self.world.app.store().read();
        let users: HashMap<UserId, String> =
            user::Entity::find().all(db).await.unwrap().into_iter().map(|row| (row.id, row.display_name)).collect();
        let agents: HashMap<AgentId, String> =
            agent::Entity::find().all(db).await.unwrap().into_iter().map(|row| (row.id, row.name)).collect();
        let mut titles: HashMap<TaskId, String> = HashMap::new();
        let mut lines = Vec::new();
        for row in task::Entity::find().all(db).await.unwrap() {
            lines.push(format!(
                "task {} of {}: {:?} {:?} {:?} by {:?}, {:?}",
                row.title,
                users[&row.requester_id],
                row.status,
                row.price,
                row.paid,
                row.agent_id.map(|id| &agents[&id]),
                row.failure_code,
            ));
            titles.insert(row.id, row.title);
        }
        let mut winners: HashMap<BidId, String> = HashMap::new();
        let mut auctioned = HashMap::new();
        for row in auction::Entity::find().all(db).await.unwrap() {
            auctioned.insert(row.id, titles[&row.task_id].clone());
        }
        for row in bid::Entity::find().all(db).await.unwrap() {
            let (auction, agent) = (&auctioned[&row.auction_id], &agents[&row.agent_id]);
            winners.insert(row.id, format!("bid {} of {agent}", row.seq));
            lines.push(format!(
                "bid {} in {auction} of {agent}: {:?} {:?} {:?} {:?}",
                row.seq, row.price, row.status, row.rank, row.reputation
            ));
        }
        for row in auction::Entity::find().all(db).await.unwrap() {
            lines.push(format!(
                "auction of {}: {:?} {} bids, {:?} for {:?}, {} extensions",
                titles[&row.task_id],
                row.status,
                row.bid_count,
                row.winning_bid_id.map(|id| &winners[&id]),
                row.clearing_price,
                row.extensions,
            ));
        }
        for row in account::Entity::find().all(db).await.unwrap() {
            let owner = users.get(&UserId(row.owner_id)).or_else(|| agents.get(&AgentId(row.owner_id)));
            lines.push(format!("account {:?} of {owner:?}: {} after {}", row.kind, row.balance, row.version));
        }
        for row in reputation::Entity::find().all(db).await.unwrap() {
            let agent = agents[&row.agent_id].clone();
            let row = reputation::Model { agent_id: AgentId(uuid::Uuid::nil()), busy_ms: 0, ..row };
            lines.push(format!("reputation of {agent}: {row:?}"));
        }
        for row in reputation_event::Entity::find().all(db).await.unwrap() {
            lines.push(format!(
                "evidence {} of {}: {:?} in {}, {} to {}",
                row.version, agents[&row.agent_id], row.cause, titles[&row.task_id], row.score_before, row.score_after
            ));
        }
        for row in task_result::Entity::find().all(db).await.unwrap() {
            lines.push(format!(
                "result of {}: {:?} {:?} {:?}",
                titles[&row.task_id], row.outcome, row.output, row.fault_code
            ));
        }
        lines.sort();
        lines.extend(self.told(&titles, &agents).await);
        lines
    }

    /// The event log in its order.
    async fn told(&self, titles: &HashMap<TaskId, String>, agents: &HashMap<AgentId, String>) -> Vec<String> {
        let (mut lines, mut at) = (Vec::new(), Cursor::default());
        loop {
            let page = self.world.app.store().lines(None, Some(at), 500).await.unwrap();
            let Some(last) = page.last() else { return lines };
            at = last.cursor;
            lines.extend(page.into_iter().map(
                |Line { event: event::Model { kind, task_id, agent_id, occurred_at, payload, .. }, .. }| {
                    let (task, agent) = (task_id.map(|id| &titles[&id]), agent_id.map(|id| &agents[&id]));
                    format!(
                        "event {kind:?} {task:?} {agent:?} {:?} {:?} at {occurred_at:?}",
                        payload.amount, payload.reason
                    )
                },
            ));
        }
    }
}

/// What came of a mutation, without the ids in it.
fn outcome(answer: &Value) -> String {
    fn without_ids(value: &mut Value) {
        if let Value::Object(fields) = value {
            fields.remove("id");
            fields.values_mut().for_each(without_ids);
        }
    }
    assert!(answer["data"].is_object(), "the request is wrong: {answer:#}");
    let mut data = answer["data"].clone();
    without_ids(&mut data);
    match answer["errors"][0]["extensions"]["code"].as_str() {
        None => data.to_string(),
        Some(code) => format!("{code} {data}"),
    }
}

async fn run(world: World, seed: u64, steps: usize) -> Vec<String> {
    let mut street = Street::new(world, seed).await;
    let mut lines = Vec::new();
    for step in 0..steps {
        lines.push(format!("step {step}: {}", street.step().await));
    }
    street.let_everything_end().await;
    lines.extend(street.sum_up().await);
    street.world.check().await;
    lines
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_databases_come_to_the_same() {
    if !on_postgres() {
        // There is nothing to compare with.
        return;
    }
    let seeds = match std::env::var("DIFFERENTIAL_SEED") {
        Ok(seed) => vec![seed.parse().expect("DIFFERENTIAL_SEED is a number")],
        Err(_) => (1..=4).collect(),
    };
    let mut lines = 0;
    for seed in &seeds {
        let steps = 90;
        let on_sqlite = run(World::embedded().await, *seed, steps).await;
        let on_postgres = run(World::start().await, *seed, steps).await;
        for (one, other) in on_sqlite.iter().zip(&on_postgres) {
            assert_eq!(one, other, "DIFFERENTIAL_SEED={seed}: SQLite on the left, PostgreSQL on the right");
        }
        assert_eq!(on_sqlite.len(), on_postgres.len(), "DIFFERENTIAL_SEED={seed}");
        assert!(on_sqlite.iter().any(|line| line.contains("Completed")), "some work was done");
        lines += on_sqlite.len();
    }
    eprintln!("differential: {} seeds, {lines} lines are the same", seeds.len());
}
