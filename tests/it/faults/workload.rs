//! Clients that work on the market whatever happens to it, and remember what they were told.
//!
//! [`OPERATIONS`] is the one table of what they do. An operation says how its input is made, what a client learns from the answer,
//! and by which question to the database its effect is counted. The oracle needs nothing else.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use reqwest::{Method, header::CONTENT_TYPE};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::program::ADMIN;
use crate::world::{Client, PASSWORD};

/// Clients at once; the first is the administrator, who issues and redeems.
pub const CLIENTS: usize = 16;
const TOKENS: &str = "tokens { accessToken user { id } } userErrors { code message field }";
/// Credits that everybody begins with, in millionths.
const BEGINNING: i64 = 5_000_000_000;

/// A hosted agent that counts for a moment and answers `1`.
const SLOW: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 16) "1")
    (func (export "_start") (local $left i64)
        (local.set $left (i64.const 20000000))
        (loop $again
            (local.set $left (i64.sub (local.get $left) (i64.const 1)))
            (br_if $again (i64.ne (local.get $left) (i64.const 0))))
        (i32.store (i32.const 0) (i32.const 16))
        (i32.store (i32.const 4) (i32.const 1))
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;

/// One thing that clients do.
pub struct Operation {
    /// The root field.
    pub field: &'static str,
    pub document: &'static str,
    /// How often it is done, in relation to the others; separately for the administrator and for everybody else.
    pub weight: [u32; 2],
    /// The input, and the mark by which its effect is found, or nothing when there is nothing to do it about.
    make: fn(&mut Player, &Board, u64) -> Option<(Value, String)>,
    /// What a client remembers of the payload of an answer that was no refusal.
    learn: fn(&mut Player, &Board, &Intent, &Value),
    /// Counts the effects of one intent; `{mark}` stands for its mark.
    pub count: &'static str,
    /// Counts the effects of all intents of this and every other operation with the same question.
    pub total: Option<&'static str>,
    /// The sign of what the operation adds to the wallet of the user that its input names, or of its client.
    pub moves: i64,
}

fn nothing(_: &mut Player, _: &Board, _: &Intent, _: &Value) {}

const TOTAL_TASKS: &str = "SELECT COUNT(*) AS n FROM tasks WHERE delegation_id IS NULL";

/// All that clients do.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        field: "issueCredits",
        document: "mutation($input: IssueCreditsInput!) { issueCredits(input: $input) {
            transfer { id amount } userErrors { code } } }",
        weight: [8, 0],
        make: |_, board, number| {
            let input = json!({ "userId": board.somebody(number), "amount": "3", "reference": mark(number) });
            Some((input, mark(number)))
        },
        learn: nothing,
        count: "SELECT COUNT(*) AS n FROM transfers WHERE kind = 'ISSUE' AND reference = '{mark}'",
        total: Some("SELECT COUNT(*) AS n FROM transfers WHERE kind = 'ISSUE'"),
        moves: 1,
    },
    Operation {
        field: "redeemCredits",
        document: "mutation($input: RedeemCreditsInput!) { redeemCredits(input: $input) {
            transfer { id amount } userErrors { code } } }",
        weight: [3, 0],
        make: |_, board, number| {
            let input = json!({ "userId": board.somebody(number), "amount": "2", "reference": mark(number) });
            Some((input, mark(number)))
        },
        learn: nothing,
        count: "SELECT COUNT(*) AS n FROM transfers WHERE kind = 'REDEEM' AND reference = '{mark}'",
        total: Some("SELECT COUNT(*) AS n FROM transfers WHERE kind = 'REDEEM'"),
        moves: -1,
    },
    Operation {
        field: "executeTask",
        document: "mutation($input: ExecuteTaskInput!) { executeTask(input: $input) {
            task { id status budget createdAt } userErrors { code } } }",
        weight: [0, 8],
        make: |_, _, number| {
            let input = json!({
                "title": mark(number), "capabilities": ["work"], "input": number, "budget": "3", "timeout": "PT20S",
                "startTimeout": "PT20S",
            });
            Some((input, mark(number)))
        },
        learn: |player, _, _, payload| player.tasks.push(text(&payload["task"]["id"])),
        count: "SELECT COUNT(*) AS n FROM tasks WHERE title = '{mark}'",
        total: Some(TOTAL_TASKS),
        moves: 0,
    },
    Operation {
        field: "createAuction",
        document: "mutation($input: CreateAuctionInput!) { createAuction(input: $input) {
            auction { id task { id } } userErrors { code } } }",
        weight: [0, 6],
        make: |player, _, number| {
            let kind = if player.dice.random() { "FIRST_PRICE" } else { "SECOND_PRICE" };
            let visibility = if player.dice.random() { "SEALED" } else { "OPEN" };
            let input = json!({
                "title": mark(number), "capabilities": ["work"], "input": number, "budget": "4", "kind": kind,
                "visibility": visibility, "closesIn": format!("PT{}S", player.dice.random_range(1..4)),
                "startTimeout": "PT1S",
            });
            Some((input, mark(number)))
        },
        learn: |player, board, intent, payload| {
            let auction = text(&payload["auction"]["id"]);
            player.cancellable.push((text(&payload["auction"]["task"]["id"]), intent.mark.clone()));
            board.auctions.lock().unwrap().push(auction);
        },
        count: "SELECT COUNT(*) AS n FROM tasks WHERE title = '{mark}'",
        total: Some(TOTAL_TASKS),
        moves: 0,
    },
    // The same mutation, awarded by hand.
    Operation {
        field: "createAuction",
        document: "mutation($input: CreateAuctionInput!) { createAuction(input: $input) {
            auction { id task { id } } userErrors { code } } }",
        weight: [0, 6],
        make: |_, _, number| {
            let input = json!({
                "title": mark(number), "capabilities": ["hand"], "input": number, "budget": "4", "awardMode": "MANUAL",
                "closesIn": "PT60S", "startTimeout": "PT3S",
            });
            Some((input, mark(number)))
        },
        learn: |player, board, intent, payload| {
            let auction = text(&payload["auction"]["id"]);
            player.manual.push((auction.clone(), intent.mark.clone()));
            player.leftover.push(text(&payload["auction"]["task"]["id"]));
            board.auctions.lock().unwrap().push(auction);
        },
        count: "SELECT COUNT(*) AS n FROM tasks WHERE title = '{mark}'",
        total: Some(TOTAL_TASKS),
        moves: 0,
    },
    Operation {
        field: "submitBid",
        document: "mutation($input: SubmitBidInput!) { submitBid(input: $input) {
            bid { id price } userErrors { code } } }",
        weight: [0, 8],
        make: |player, board, number| {
            let auction = board.recent(&mut player.dice)?;
            // Hosted agents ask for two credits exactly, so a price is the mark of its bid.
            let micros = if player.dice.random() { 1_000_001 + number } else { 2_000_001 + number };
            let input = json!({ "auctionId": auction, "agentId": player.agent, "price": credits(micros) });
            Some((input, micros.to_string()))
        },
        learn: |player, _, intent, payload| player.bids.push((text(&payload["bid"]["id"]), intent.mark.clone())),
        count: "SELECT COUNT(*) AS n FROM bids WHERE price = {mark}",
        total: Some("SELECT COUNT(*) AS n FROM bids WHERE price <> 2000000"),
        moves: 0,
    },
    Operation {
        field: "withdrawBid",
        document: "mutation($input: WithdrawBidInput!) { withdrawBid(input: $input) {
            bid { id } userErrors { code } } }",
        weight: [0, 1],
        make: |player, _, _| player.bids.pop().map(|(bid, mark)| (json!({ "bidId": bid }), mark)),
        learn: nothing,
        count: "SELECT COUNT(*) AS n FROM bids WHERE status = 'WITHDRAWN' AND price = {mark}",
        total: None,
        moves: 0,
    },
    Operation {
        field: "awardAuction",
        document: "mutation($input: AwardAuctionInput!) { awardAuction(input: $input) {
            auction { id status clearingPrice winningBid { agent { id } } task { id } } userErrors { code } } }",
        weight: [0, 8],
        make: |player, _, _| {
            // The oldest, so that there was time for bids.
            let ready = player.manual.len() > 1;
            ready.then(|| player.manual.remove(0)).map(|(auction, mark)| (json!({ "auctionId": auction }), mark))
        },
        learn: |_, board, intent, payload| {
            let auction = &payload["auction"];
            let (agent, task) = (text(&auction["winningBid"]["agent"]["id"]), text(&auction["task"]["id"]));
            board.wins.lock().unwrap().push((agent, task, intent.mark.clone()));
        },
        count: "SELECT COUNT(*) AS n FROM auctions JOIN tasks ON tasks.id = auctions.task_id \
                WHERE auctions.award_mode = 'MANUAL' AND auctions.winning_bid_id IS NOT NULL AND tasks.title = '{mark}'",
        total: Some("SELECT COUNT(*) AS n FROM auctions WHERE award_mode = 'MANUAL' AND winning_bid_id IS NOT NULL"),
        moves: 0,
    },
    Operation {
        field: "claimTask",
        document: "mutation($input: ClaimTaskInput!) { claimTask(input: $input) {
            claim { token attempt } userErrors { code } } }",
        weight: [0, 6],
        // Each win is claimed once, so that its first claim is the intent's.
        make: |player, board, _| {
            let (_, task, mark) = board.win_of(&player.agent)?;
            Some((json!({ "taskId": task, "worker": "a client" }), mark))
        },
        learn: |player, _, intent, payload| {
            let task = text(&intent.variables["input"]["taskId"]);
            player.claims.push((task, text(&payload["claim"]["token"]), intent.mark.clone()));
        },
        count: "SELECT COUNT(*) AS n FROM events JOIN tasks ON tasks.id = events.task_id \
                WHERE events.kind = 'TASK_STARTED' AND tasks.title = '{mark}'",
        total: None,
        moves: 0,
    },
    Operation {
        field: "submitResult",
        document: "mutation($input: SubmitResultInput!) { submitResult(input: $input) {
            task { id status paid } userErrors { code } } }",
        weight: [0, 6],
        make: |player, _, number| {
            player.claims.pop().map(|(task, token, mark)| {
                (json!({ "taskId": task, "token": token, "output": number, "logs": "done" }), mark)
            })
        },
        learn: nothing,
        count: "SELECT COUNT(*) AS n FROM task_results JOIN tasks ON tasks.id = task_results.task_id \
                WHERE task_results.outcome = 'SUCCEEDED' AND task_results.logs = 'done' AND tasks.title = '{mark}'",
        total: Some("SELECT COUNT(*) AS n FROM task_results WHERE outcome = 'SUCCEEDED' AND logs = 'done'"),
        moves: 0,
    },
    Operation {
        field: "cancelTask",
        document: "mutation($input: CancelTaskInput!) { cancelTask(input: $input) {
            task { id } userErrors { code } } }",
        weight: [0, 1],
        make: |player, _, _| player.cancellable.pop().map(|(task, mark)| (json!({ "taskId": task }), mark)),
        learn: nothing,
        count: "SELECT COUNT(*) AS n FROM tasks WHERE status = 'CANCELLED' AND title = '{mark}'",
        total: None,
        moves: 0,
    },
    Operation {
        field: "rateAgent",
        document: "mutation($input: RateAgentInput!) { rateAgent(input: $input) {
            rating { stars comment } userErrors { code } } }",
        weight: [0, 3],
        make: |player, _, number| {
            (player.tasks.len() > 2).then(|| player.tasks.remove(0)).map(|task| {
                let stars = number % 5 + 1;
                (json!({ "taskId": task, "stars": stars, "comment": mark(number) }), mark(number))
            })
        },
        learn: nothing,
        count: "SELECT COUNT(*) AS n FROM ratings WHERE comment = '{mark}'",
        total: Some("SELECT COUNT(*) AS n FROM ratings"),
        moves: 0,
    },
    Operation {
        field: "registerAgent",
        document: "mutation($input: RegisterAgentInput!) { registerAgent(input: $input) {
            agent { id name } userErrors { code } } }",
        weight: [0, 1],
        make: |_, _, number| {
            let input = json!({ "name": mark(number), "capabilities": ["idle"], "runtime": "EXTERNAL", "price": "1" });
            Some((input, mark(number)))
        },
        learn: nothing,
        count: "SELECT COUNT(*) AS n FROM agents WHERE name = '{mark}'",
        total: Some("SELECT COUNT(*) AS n FROM agents WHERE name LIKE 'intent-%'"),
        moves: 0,
    },
    Operation {
        field: "createApiKey",
        // The secret is told once, so a retry answers the rest.
        document: "mutation($input: CreateApiKeyInput!) { createApiKey(input: $input) {
            apiKey { id name } userErrors { code } } }",
        weight: [0, 1],
        make: |_, _, number| Some((json!({ "name": mark(number), "scopes": ["READ"] }), mark(number))),
        learn: nothing,
        count: "SELECT COUNT(*) AS n FROM api_keys WHERE name = '{mark}'",
        total: Some("SELECT COUNT(*) AS n FROM api_keys"),
        moves: 0,
    },
    Operation {
        field: "openChannel",
        document: "mutation($input: OpenChannelInput!) { openChannel(input: $input) {
            channel { id deposit } userErrors { code } } }",
        weight: [0, 2],
        make: |_, board, number| {
            let agent = board.agents[usize::try_from(number).unwrap() % board.agents.len()].clone();
            let micros = 5_000_000 + number;
            let input = json!({
                "agentId": agent, "deposit": credits(micros), "expiresAt": board.expiry, "settleDelay": "PT15M",
            });
            Some((input, micros.to_string()))
        },
        learn: |player, board, intent, payload| {
            let channel = text(&payload["channel"]["id"]);
            player.channels.push(channel.clone());
            let agent = text(&intent.variables["input"]["agentId"]);
            board.channels.lock().unwrap().push(Stream { channel, agent, mark: intent.mark.clone() });
        },
        count: "SELECT COUNT(*) AS n FROM channel_changes WHERE kind = 'OPENED' AND deposit = {mark}",
        total: Some("SELECT COUNT(*) AS n FROM channel_changes WHERE kind = 'OPENED'"),
        moves: 0,
    },
    Operation {
        field: "topUpChannel",
        document: "mutation($input: TopUpChannelInput!) { topUpChannel(input: $input) {
            change { nonce amount deposit } userErrors { code } } }",
        weight: [0, 1],
        make: |player, _, number| {
            let channel = player.channels.last()?;
            Some((json!({ "channelId": channel, "amount": credits(1 + number) }), (1 + number).to_string()))
        },
        learn: nothing,
        count: "SELECT COUNT(*) AS n FROM channel_changes WHERE kind = 'TOPPED_UP' AND amount = {mark}",
        total: Some("SELECT COUNT(*) AS n FROM channel_changes WHERE kind = 'TOPPED_UP'"),
        moves: 0,
    },
    Operation {
        field: "deductFromChannel",
        document: "mutation($input: DeductFromChannelInput!) { deductFromChannel(input: $input) {
            change { nonce amount paid } userErrors { code } } }",
        weight: [0, 6],
        make: |player, _, number| {
            let channel = player.channels.last()?;
            Some((json!({ "channelId": channel, "amount": credits(1 + number) }), (1 + number).to_string()))
        },
        learn: nothing,
        count: "SELECT COUNT(*) AS n FROM channel_changes WHERE kind = 'DEDUCTED' AND amount = {mark}",
        total: Some("SELECT COUNT(*) AS n FROM channel_changes WHERE kind = 'DEDUCTED'"),
        moves: 0,
    },
    Operation {
        field: "settleChannel",
        document: SETTLE,
        weight: [0, 1],
        make: |player, board, _| {
            let stream = board.take_stream(&player.agent, 4)?;
            Some((json!({ "channelId": stream.channel }), stream.mark))
        },
        learn: nothing,
        count: "SELECT COUNT(*) AS n FROM channel_changes WHERE kind = 'CLOSED' AND channel_id IN \
                (SELECT channel_id FROM channel_changes WHERE kind = 'OPENED' AND deposit = {mark})",
        total: None,
        moves: 0,
    },
    Operation {
        field: "withdrawEarnings",
        document: "mutation($input: WithdrawEarningsInput!) { withdrawEarnings(input: $input) {
            transfer { id amount } userErrors { code } } }",
        weight: [0, 1],
        make: |player, _, number| {
            let input = json!({ "agentId": player.agent, "amount": credits(1 + number) });
            Some((input, (1 + number).to_string()))
        },
        learn: nothing,
        count: "SELECT COUNT(*) AS n FROM transfers WHERE kind = 'WITHDRAWAL' AND amount = {mark}",
        total: Some("SELECT COUNT(*) AS n FROM transfers WHERE kind = 'WITHDRAWAL'"),
        moves: 1,
    },
    Operation {
        field: "delegateTask",
        document: "mutation($input: DelegateTaskInput!) { delegateTask(input: $input) {
            delegation { id goal budget } userErrors { code } } }",
        weight: [0, 2],
        make: |_, _, number| {
            let steps = json!([
                { "name": "first", "capabilities": ["work"] },
                { "name": "second", "capabilities": ["work"], "dependsOn": ["first"], "onFailure": "SKIP" },
                { "name": "third", "capabilities": ["work"], "dependsOn": ["first"], "onFailure": "RETRY", "retries": 1 },
            ]);
            let input = json!({ "goal": mark(number), "budget": "9", "plan": { "steps": steps } });
            Some((input, mark(number)))
        },
        learn: nothing,
        count: "SELECT COUNT(*) AS n FROM delegations WHERE goal = '{mark}'",
        total: Some("SELECT COUNT(*) AS n FROM delegations"),
        moves: 0,
    },
];

const SETTLE: &str = "mutation($input: SettleChannelInput!) { settleChannel(input: $input) {
    change { nonce kind paid } userErrors { code } } }";

/// An amount as clients write it.
fn credits(micros: u64) -> String {
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("a text: {value}")).to_owned()
}

/// The name of an intent.
fn mark(number: u64) -> String {
    format!("intent-{number}")
}

/// One thing that a client wanted, and what became of it.
pub struct Intent {
    pub operation: &'static Operation,
    /// Which client it was.
    pub by: usize,
    pub variables: Value,
    pub mark: String,
    /// The payload of the answer; nothing when the client gave up before there was one.
    pub answer: Option<Value>,
}

impl Intent {
    /// Whether it was answered, and the answer is no refusal.
    pub fn is_done(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| answer["userErrors"] == json!([]))
    }
}

/// A streaming channel and the agent that it pays.
struct Stream {
    channel: String,
    agent: String,
    /// The mark of its opening.
    mark: String,
}

/// What all clients see.
#[derive(Default)]
pub struct Board {
    auctions: Mutex<Vec<String>>,
    channels: Mutex<Vec<Stream>>,
    /// What was awarded by hand and not claimed: the agent, the task and its title.
    wins: Mutex<Vec<(String, String, String)>>,
    users: Vec<String>,
    agents: Vec<String>,
    /// When every streaming channel ends.
    expiry: String,
    numbers: AtomicU64,
    pub tries: AtomicU64,
    pub failures: Arc<AtomicU64>,
}

impl Board {
    fn somebody(&self, number: u64) -> String {
        self.users[usize::try_from(number).unwrap() % self.users.len()].clone()
    }

    /// A streaming channel that pays an agent, once; while there are more than `spare` of all agents.
    fn take_stream(&self, agent: &str, spare: usize) -> Option<Stream> {
        let mut channels = self.channels.lock().unwrap();
        let found = channels.iter().position(|stream| stream.agent == agent).filter(|_| channels.len() > spare);
        found.map(|at| channels.remove(at))
    }

    /// Something that an agent won and that is nobody's intent yet.
    fn win_of(&self, agent: &str) -> Option<(String, String, String)> {
        let mut wins = self.wins.lock().unwrap();
        let found = wins.iter().position(|(winner, ..)| winner == agent)?;
        Some(wins.remove(found))
    }

    /// One of the newest auctions.
    fn recent(&self, dice: &mut StdRng) -> Option<String> {
        let auctions = self.auctions.lock().unwrap();
        let newest = auctions.len().min(12);
        (newest > 0).then(|| auctions[auctions.len() - 1 - dice.random_range(0..newest)].clone())
    }
}

/// One client with what it remembers.
pub struct Player {
    number: usize,
    email: String,
    client: Client,
    agent: String,
    dice: StdRng,
    tasks: Vec<String>,
    cancellable: Vec<(String, String)>,
    manual: Vec<(String, String)>,
    leftover: Vec<String>,
    bids: Vec<(String, String)>,
    channels: Vec<String>,
    /// What it claimed: the task, the token and the task's title.
    claims: Vec<(String, String, String)>,
}

/// How a client behaves towards a service that fails.
#[derive(Clone, Copy)]
pub struct Manners {
    /// It gives an intent up after its first failure, once in so many times.
    pub gives_up_once_in: u32,
    /// How often it sends everything at least, whatever the answer.
    pub repeats: usize,
    /// How long it waits between two intents, in milliseconds at most.
    pub pause: u64,
}

/// What one attempt came to.
enum Sent {
    Answer(Value),
    Failed,
}

impl Player {
    /// Sends a mutation once.
    async fn send(&mut self, board: &Board, operation: &Operation, variables: &Value) -> Sent {
        board.tries.fetch_add(1, Ordering::Relaxed);
        let body = json!({ "query": operation.document, "variables": variables }).to_string();
        let request = self.client.request(Method::POST, "/graphql").header(CONTENT_TYPE, "application/json");
        let answer = match request.body(body).send().await {
            Ok(reply) => reply.json::<Value>().await.ok(),
            Err(_) => None,
        };
        let failed = match answer {
            Some(answer) if answer["errors"].is_null() => return Sent::Answer(answer["data"][operation.field].clone()),
            Some(answer) => answer,
            None => {
                board.failures.fetch_add(1, Ordering::Relaxed);
                return Sent::Failed;
            }
        };
        board.failures.fetch_add(1, Ordering::Relaxed);
        let extensions = &failed["errors"][0]["extensions"];
        if extensions["code"] == "UNAUTHENTICATED" {
            // The token was for a while.
            self.sign_in().await;
        } else {
            assert_eq!(extensions["retryable"], true, "{} {variables}: {failed:#}", operation.field);
        }
        Sent::Failed
    }

    async fn sign_in(&mut self) {
        let input = json!({ "input": { "email": self.email, "password": PASSWORD } });
        let login = format!("mutation($input: LoginInput!) {{ login(input: $input) {{ {TOKENS} }} }}");
        let body = json!({ "query": login, "variables": input }).to_string();
        let anonymous = self.client.anonymous();
        let request = anonymous.request(Method::POST, "/graphql").header(CONTENT_TYPE, "application/json").body(body);
        if let Ok(reply) = request.send().await
            && let Ok(answer) = reply.json::<Value>().await
            && answer["data"]["login"]["tokens"].is_object()
        {
            self.client = anonymous.signed_in(&self.email, &answer["data"]["login"]["tokens"]);
        }
    }

    /// Sends a mutation until it is answered.
    pub async fn until_answered(&mut self, board: &Board, operation: &Operation, variables: &Value) -> Value {
        for _ in 0..4_000 {
            if let Sent::Answer(answer) = self.send(board, operation, variables).await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("{} is never answered: {variables}", operation.field);
    }

    /// Something that this client can do now.
    fn choose(&mut self, board: &Board) -> Option<Intent> {
        let role = usize::from(self.number > 0);
        let all: u32 = OPERATIONS.iter().map(|operation| operation.weight[role]).sum();
        let mut at = self.dice.random_range(0..all);
        let operation = OPERATIONS.iter().find(|operation| {
            let found = at < operation.weight[role];
            at = at.saturating_sub(operation.weight[role]);
            found
        })?;
        let number = board.numbers.fetch_add(1, Ordering::Relaxed);
        let (mut input, mark) = (operation.make)(self, board, number)?;
        input["idempotencyKey"] = json!(format!("key-{number}"));
        let variables = json!({ "input": input });
        Some(Intent { operation, by: self.number, variables, mark, answer: None })
    }

    async fn work(&mut self, board: &Board, manners: Manners, over: &CancellationToken) -> Vec<Intent> {
        let mut intents = Vec::new();
        while !over.is_cancelled() {
            let Some(mut intent) = self.choose(board) else { continue };
            let gives_up = self.dice.random_range(0..manners.gives_up_once_in) == 0;
            loop {
                match self.send(board, intent.operation, &intent.variables).await {
                    Sent::Answer(answer) => {
                        intent.answer = Some(answer);
                        break;
                    }
                    Sent::Failed if gives_up => break,
                    Sent::Failed => tokio::time::sleep(Duration::from_millis(25)).await,
                }
            }
            if let Some(answer) = &intent.answer {
                for _ in 1..manners.repeats {
                    let again = self.until_answered(board, intent.operation, &intent.variables).await;
                    assert_eq!(again, *answer, "{} is answered otherwise the next time", intent.operation.field);
                }
            }
            self.learn(board, &intent);
            intents.push(intent);
            let pause = self.dice.random_range(0..=manners.pause);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        intents
    }

    fn learn(&mut self, board: &Board, intent: &Intent) {
        if let (true, Some(answer)) = (intent.is_done(), &intent.answer) {
            assert!(
                !answer.to_string().contains("null"),
                "{} is done, and the answer lacks something: {answer}",
                intent.mark
            );
            (intent.operation.learn)(self, board, intent, answer);
        }
    }

    /// Takes back what nobody else would end for a day.
    async fn clear_up(&mut self, board: &Board) {
        let cancel = OPERATIONS.iter().find(|operation| operation.field == "cancelTask").unwrap();
        for task in std::mem::take(&mut self.leftover) {
            let input = json!({ "taskId": task, "idempotencyKey": format!("clear-{task}") });
            self.until_answered(board, cancel, &json!({ "input": input })).await;
        }
        self.manual.clear();
        self.channels.clear();
        let settle = OPERATIONS.iter().find(|operation| operation.field == "settleChannel").unwrap();
        while let Some(stream) = board.take_stream(&self.agent, 0) {
            let input = json!({ "channelId": stream.channel, "idempotencyKey": format!("clear-{}", stream.channel) });
            self.until_answered(board, settle, &json!({ "input": input })).await;
        }
    }
}

/// All clients.
pub struct Workload {
    pub board: Board,
    pub players: Vec<Player>,
}

impl Workload {
    /// Makes the people, their credits and their agents on a service that works.
    pub async fn set_up(nobody: &Client, seed: u64) -> Self {
        let login = format!("mutation($input: LoginInput!) {{ login(input: $input) {{ {TOKENS} }} }}");
        let input = json!({ "email": ADMIN, "password": PASSWORD });
        let answer = nobody.done("login", &login, json!({ "input": input })).await;
        let admin = nobody.clone().signed_in(ADMIN, &answer["tokens"]);
        let until = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap() + Duration::from_hours(24);
        let expiry = chrono::DateTime::from_timestamp(i64::try_from(until.as_secs()).unwrap(), 0).unwrap();
        let mut board = Board { expiry: expiry.to_rfc3339(), ..Board::default() };
        let mut players = vec![player(0, ADMIN.to_owned(), admin.clone(), String::new(), seed)];
        let register = format!("mutation($input: RegisterUserInput!) {{ registerUser(input: $input) {{ {TOKENS} }} }}");
        for number in 1..=CLIENTS {
            let email = format!("client-{number}@example.com");
            let input = json!({ "email": email, "displayName": email, "password": PASSWORD });
            let answer = nobody.done("registerUser", &register, json!({ "input": input })).await;
            let client = nobody.clone().signed_in(&email, &answer["tokens"]);
            if number == CLIENTS {
                host(&client).await;
                break;
            }
            let agent = agent(&client, "EXTERNAL", "1", &["work", "hand"]).await;
            let input = json!({
                "userId": client.id(), "amount": "5000", "reference": format!("beginning-{number}"),
                "idempotencyKey": format!("beginning-{number}"),
            });
            admin.done("issueCredits", OPERATIONS[0].document, json!({ "input": input })).await;
            board.users.push(client.id().to_owned());
            board.agents.push(agent.clone());
            players.push(player(number, email, client, agent, seed));
        }
        Self { board, players }
    }

    /// Lets everybody talk to another place.
    pub fn talk_to(&mut self, http: &reqwest::Client, address: std::net::SocketAddr) {
        for player in &mut self.players {
            player.client = player.client.through(http.clone()).at(address);
        }
    }

    /// Everybody works until it is over, and finishes what they are at.
    pub async fn run(&mut self, manners: Manners, over: &CancellationToken) -> Vec<Intent> {
        let board = &self.board;
        join_all(self.players.iter_mut().map(|player| player.work(board, manners, over)))
            .await
            .into_iter()
            .flatten()
            .collect()
    }

    /// An intent that was given up is answered after all.
    pub fn learn(&mut self, intent: &mut Intent, answer: Value) {
        intent.answer = Some(answer);
        self.players[intent.by].learn(&self.board, intent);
    }

    /// Takes back what nobody else would end for a day.
    pub async fn clear_up(&mut self) {
        let board = &self.board;
        join_all(self.players.iter_mut().map(|player| player.clear_up(board))).await;
    }

    /// The address of each user with a wallet, what it began with, and its client.
    pub fn wallets(&self) -> impl Iterator<Item = (&str, &str, i64)> {
        self.players.iter().skip(1).map(|player| (player.email.as_str(), player.client.id(), BEGINNING))
    }

    /// The user that a client is.
    pub fn id_of(&self, client: usize) -> &str {
        self.players[client].client.id()
    }

    /// The set-up's part of each total.
    pub fn total_before(total: &str) -> u64 {
        if total.contains("'ISSUE'") { u64::try_from(CLIENTS - 1).unwrap() } else { 0 }
    }

    /// How often each operation was done, for the report.
    pub fn census(intents: &[Intent]) -> BTreeMap<&'static str, (usize, usize)> {
        let mut census = BTreeMap::new();
        for intent in intents {
            let (done, all) = census.entry(intent.operation.field).or_insert((0, 0));
            *done += usize::from(intent.is_done());
            *all += 1;
        }
        census
    }
}

fn player(number: usize, email: String, client: Client, agent: String, seed: u64) -> Player {
    let dice = StdRng::seed_from_u64(seed.wrapping_mul(31).wrapping_add(u64::try_from(number).unwrap()));
    Player {
        number,
        email,
        client,
        agent,
        dice,
        tasks: Vec::new(),
        cancellable: Vec::new(),
        manual: Vec::new(),
        leftover: Vec::new(),
        bids: Vec::new(),
        channels: Vec::new(),
        claims: Vec::new(),
    }
}

async fn agent(owner: &Client, runtime: &str, price: &str, capabilities: &[&str]) -> String {
    let register =
        "mutation($input: RegisterAgentInput!) { registerAgent(input: $input) { agent { id } userErrors { code } } }";
    let input = json!({
        "name": "worker", "capabilities": capabilities, "runtime": runtime, "price": price, "idempotencyKey": "worker",
    });
    text(&owner.done("registerAgent", register, json!({ "input": input })).await["agent"]["id"])
}

/// The one hosted agent, whose owner does nothing else.
async fn host(owner: &Client) {
    let id = agent(owner, "HOSTED", "2", &["work"]).await;
    let uploaded = owner.upload(&id, wat::parse_str(SLOW).unwrap()).await;
    assert_eq!(uploaded.status, 200, "{}", uploaded.text);
}
