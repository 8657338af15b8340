//! `zerostate demo --once`: one task through the whole of the market, by the same API that every client has, with each claim
//! checked. It prints what a subscriber saw, who bid, what came out, where the credits went and whether the books are right, and
//! succeeds only if all of it holds.

use std::{collections::BTreeMap, io::Write as _, path::Path, time::Duration};

use entity::money::{Amount, FRACTION_DIGITS, MAX_AMOUNT, format_micros};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    cast::Cast,
    client::{Refused, Socket},
    failure::{Exit, Failure},
    follow::{Event, Named},
    operations,
    output::Output,
};
use crate::store::Cursor;

/// How long the next event may take.
const PATIENCE: Duration = Duration::from_mins(1);
/// What the client is given at least, so that a rest is left.
const LEAST_FUNDS: u32 = 10;

/// What to run.
#[derive(Clone, Debug)]
pub(super) struct Order {
    pub(super) capability: String,
    pub(super) input: Value,
    pub(super) budget: Amount,
}

/// The nine steps of a task, each with the kind of event that shows it.
const STEPS: [(&str, &str); 9] = [
    ("task posted, budget held", "TASK_POSTED"),
    ("auction opened", "AUCTION_OPENED"),
    ("bids", "BID_SUBMITTED"),
    ("winner by composite score", "AUCTION_AWARDED"),
    ("escrow channel opened", "CHANNEL_OPENED"),
    ("execution started in the sandbox", "TASK_STARTED"),
    ("result", "TASK_COMPLETED"),
    ("settlement", "CHANNEL_CLOSED"),
    ("reputation moved", "REPUTATION_CHANGED"),
];
/// The last of the steps that come one after the other. Those behind it are one unit of work.
const LAST_IN_ORDER: usize = 6;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Score {
    total: String,
    price: String,
    reputation: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Bid {
    id: String,
    price: String,
    status: String,
    rank: Option<i32>,
    reputation: Option<String>,
    score: Option<Score>,
    agent: Named,
}

#[derive(Clone, Debug, Deserialize)]
struct Nodes<T> {
    nodes: Vec<T>,
}

#[derive(Clone, Debug, Deserialize)]
struct Identified {
    id: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Auction {
    id: String,
    budget: String,
    price_weight: String,
    reputation_weight: String,
    clearing_price: Option<String>,
    winning_bid: Option<Identified>,
    bids: Nodes<Bid>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Channel {
    id: String,
    status: String,
    close_reason: Option<String>,
    deposit: String,
    paid: String,
    nonce: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Task {
    id: String,
    status: String,
    price: Option<String>,
    failure_code: Option<String>,
    failure_message: Option<String>,
    agent: Option<Named>,
    channel: Option<Channel>,
    auction: Auction,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Account {
    id: String,
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<Value>,
}

impl Account {
    /// Whose account it is, for people.
    fn title(&self) -> String {
        let name = |value: &Option<Value>, key: &str| {
            value.as_ref().and_then(|value| value.get(key)).and_then(Value::as_str).map(|name| format!(" {name}"))
        };
        let owner = name(&self.user, "displayName").or_else(|| name(&self.agent, "name")).unwrap_or_default();
        format!("{}{owner}", self.kind)
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Transfer {
    id: String,
    kind: String,
    amount: String,
    debit: Account,
    credit: Account,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct StepReport {
    number: usize,
    name: &'static str,
    expected: &'static str,
    ok: bool,
    events: Vec<Event>,
}

/// One claim and whether it holds.
#[derive(Debug, Serialize)]
struct Claim {
    name: &'static str,
    ok: bool,
    /// What was found, and what should have been where that is something else.
    found: String,
}

/// What came of the run. Everything that was found out is here, also when the run broke off.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    ok: bool,
    database: &'static str,
    server: String,
    capability: String,
    budget: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<Value>,
    steps: Vec<StepReport>,
    bids: Vec<Bid>,
    output: Value,
    result: Value,
    transfers: Vec<Transfer>,
    /// What every account gained or lost by the transfers, by its id.
    entries: Vec<Value>,
    entries_sum: String,
    wallet: Value,
    agent_account: Value,
    audit: Value,
    claims: Vec<Claim>,
    /// Why the run did not succeed; empty when it did.
    failures: Vec<String>,
}

impl Report {
    fn claim(&mut self, name: &'static str, ok: bool, found: impl Into<String>) {
        let found = found.into();
        if !ok {
            self.failures.push(format!("{name}: {found}"));
        }
        self.claims.push(Claim { name, ok, found });
    }

    /// Claims that two amounts or other values are the same.
    fn same(&mut self, name: &'static str, found: &str, expected: &str) {
        let ok = found == expected;
        self.claim(name, ok, if ok { found.to_owned() } else { format!("{found} instead of {expected}") });
    }
}

/// Where a run broke off.
struct Broke {
    step: &'static str,
    why: String,
}

/// Says at which step a call was made.
trait At<T> {
    fn at(self, step: &'static str) -> Result<T, Broke>;
}

impl<T> At<T> for Result<T, Refused> {
    fn at(self, step: &'static str) -> Result<T, Broke> {
        self.map_err(|refused| Broke { step, why: refused.to_string() })
    }
}

impl<T> At<T> for Option<T> {
    fn at(self, step: &'static str) -> Result<T, Broke> {
        self.ok_or_else(|| Broke { step, why: "the answer does not tell".to_owned() })
    }
}

/// Runs the task and reports. `database` is the kind that is behind the API.
pub(super) async fn run(cast: &Cast, order: &Order, database: &'static str, enough: &CancellationToken) -> Report {
    let mut report = Report {
        database,
        server: cast.api.url("/graphql"),
        capability: order.capability.clone(),
        budget: order.budget.to_string(),
        ..Report::default()
    };
    let flowed = tokio::select! {
        flowed = flow(cast, order, &mut report) => flowed,
        () = enough.cancelled() => Err(Broke { step: "the run", why: "it was told to stop".to_owned() }),
    };
    if let Err(Broke { step, why }) = flowed {
        report.failures.push(format!("{step}: {why}"));
    }
    report.ok = report.failures.is_empty();
    report
}

async fn flow(cast: &Cast, order: &Order, report: &mut Report) -> Result<(), Broke> {
    let api = &cast.api;
    let funds = Amount::from_credits(LEAST_FUNDS).unwrap_or(order.budget).max(order.budget).min(MAX_AMOUNT);
    let issued = cast.fund(funds).await.at("credits issued")?;
    let issued: Transfer = serde_json::from_value(issued).ok().at("credits issued")?;
    let earned_before = earnings(cast, &order.capability).await.at("the agents' accounts before")?;

    let posting = "step 1 (task posted, budget held)";
    let mut socket = api.socket(&cast.client).await.at("the subscription")?;
    let input = json!({
        "title": format!("{} on demand", order.capability),
        "capabilities": [order.capability],
        "input": order.input,
        "budget": order.budget.to_string(),
        "idempotencyKey": cast.key(),
    });
    let posted: Value =
        api.call(&cast.client, operations::EXECUTE_TASK, json!({ "input": input })).await.at(posting)?;
    let task_id = posted.pointer("/task/id").and_then(Value::as_str).at(posting)?.to_owned();

    let seen = watch(&mut socket, &task_id).await;
    let (seen, broke) = match seen {
        Ok(seen) => (seen, None),
        Err((seen, why)) => (seen, Some(why)),
    };
    let moved = match seen.iter().find(|event| event.kind == "TASK_COMPLETED") {
        Some(end) => Some(reputation_of(cast, &mut socket, &task_id, &seen, end).await),
        None => None,
    };
    let moved = moved.transpose();
    steps(report, &seen, moved.as_ref().ok().and_then(Option::as_ref));
    let task: Task = api.call(&cast.client, operations::TASK, json!({ "id": task_id })).await.at("the task")?;
    report.bids.clone_from(&task.auction.bids.nodes);
    report.task = Some(json!({
        "id": task.id, "status": task.status, "price": task.price, "agent": task.agent, "channel": task.channel,
        "auctionId": task.auction.id, "priceWeight": task.auction.price_weight,
        "reputationWeight": task.auction.reputation_weight,
        "failureCode": task.failure_code, "failureMessage": task.failure_message,
    }));
    if let Some(why) = broke {
        return Err(Broke { step: "the events of the task", why: why.to_string() });
    }
    if let Err(refused) = moved {
        return Err(Broke { step: "step 9 (reputation moved)", why: refused.to_string() });
    }
    let why = [task.failure_code.as_deref(), task.failure_message.as_deref()];
    let why: Vec<&str> = why.into_iter().flatten().collect();
    report.claim(
        "the task is completed",
        task.status == "COMPLETED",
        [&[task.status.as_str()], why.as_slice()].concat().join(": "),
    );
    winner(report, &task);

    let result: Result<Value, Refused> =
        api.call(&cast.client, operations::TASK_RESULT, json!({ "taskId": task_id })).await;
    let result = match result {
        // A task that nobody began has none.
        Err(refused) if refused.code == "NOT_FOUND" => Value::Null,
        result => result.at("step 7 (result)")?,
    };
    report.output = result.get("output").cloned().unwrap_or_default();
    let outcome = result.get("outcome").and_then(Value::as_str).unwrap_or("no result").to_owned();
    report.claim("the result has an output", outcome == "SUCCEEDED" && !report.output.is_null(), outcome);
    report.result = result;

    if task.status == "COMPLETED" {
        rate(cast, report, &mut socket, &task_id).await?;
    }
    money(cast, report, &task, issued, funds, &earned_before).await?;
    books(cast, report).await?;
    socket.close().await;
    Ok(())
}

/// The events of a task from its first to its last. When the stream breaks, what was seen until then comes with the reason.
async fn watch(socket: &mut Socket, task: &str) -> Result<Vec<Event>, (Vec<Event>, Refused)> {
    let mut seen = Vec::new();
    // The subscription begins behind the start of the log: what the posting did comes first, then what happens meanwhile.
    let from = json!({ "taskId": task, "after": Cursor::default().to_string() });
    if let Err(refused) = socket.subscribe("task", operations::TASK_EVENTS, from).await {
        return Err((seen, refused));
    }
    loop {
        match socket.next::<Event>(PATIENCE).await {
            Ok((_, Some(event))) => seen.push(event),
            Ok((_, None)) => return Ok(seen),
            Err(refused) => return Err((seen, refused)),
        }
    }
}

/// The event by which the reputation moved in the unit of work that ended the task.
async fn reputation_of(
    cast: &Cast,
    socket: &mut Socket,
    task: &str,
    seen: &[Event],
    end: &Event,
) -> Result<Event, Refused> {
    let task: Task = cast.api.call(&cast.client, operations::TASK, json!({ "id": task })).await?;
    let agent = task.agent.map(|agent| agent.id);
    let after = seen.first().map(|event| event.cursor.clone());
    let variables = json!({ "agentId": agent, "after": after });
    socket.subscribe("reputation", operations::REPUTATION_EVENTS, variables).await?;
    loop {
        let (_, event) = socket.next::<Event>(PATIENCE).await?;
        if let Some(event) = event.filter(|event| event.occurred_at == end.occurred_at) {
            return Ok(event);
        }
    }
}

/// Puts the events to the steps that they show, and claims that they came in order.
fn steps(report: &mut Report, seen: &[Event], moved: Option<&Event>) {
    let first = |kind: &str| seen.iter().position(|event| event.kind == kind);
    let started = STEPS.iter().take(LAST_IN_ORDER).map(|(_, kind)| first(kind)).next_back().flatten();
    let end = seen.iter().find(|event| event.kind == "TASK_COMPLETED");
    let mut behind = None;
    for (index, (name, kind)) in STEPS.into_iter().enumerate() {
        let events: Vec<Event> = match kind {
            "REPUTATION_CHANGED" => moved.cloned().into_iter().collect(),
            kind => seen.iter().filter(|event| event.kind == kind).cloned().collect(),
        };
        let at = first(kind);
        let ok = if index < LAST_IN_ORDER {
            at.is_some() && at > behind
        } else {
            // The result, the settlement and the reputation are one unit of work: they have one instant.
            let one = events.iter().all(|event| end.is_some_and(|end| event.occurred_at == end.occurred_at));
            !events.is_empty() && one && (kind == "REPUTATION_CHANGED" || (started.is_some() && at > started))
        };
        behind = at.or(behind);
        let number = index + 1;
        if !ok {
            let why = match seen.last() {
                _ if !events.is_empty() => "was not seen in its place".to_owned(),
                Some(last) if kind != "REPUTATION_CHANGED" => {
                    let reason = last.reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
                    format!("was not seen; the last event was {}{reason}", last.kind)
                }
                Some(_) | None => "was not seen".to_owned(),
            };
            report.failures.push(format!("step {number} ({name}): {kind} {why}"));
        }
        report.steps.push(StepReport { number, name, expected: kind, ok, events });
    }
}

/// Scores the bids again from what they show, and claims that the best one won and set the price.
fn winner(report: &mut Report, task: &Task) {
    let auction = &task.auction;
    let best = best_bid(auction);
    let won = auction.winning_bid.as_ref().map(|bid| bid.id.as_str());
    let found = auction.bids.nodes.iter().find(|bid| Some(bid.id.as_str()) == won);
    let found = found.map_or_else(|| "nobody".to_owned(), |bid| format!("{} at {}", bid.agent.name, bid.price));
    report.claim("the best composite score won", won.is_some() && best.map(|bid| bid.id.as_str()) == won, found);
    let price = auction.bids.nodes.iter().find(|bid| Some(bid.id.as_str()) == won).map(|bid| bid.price.as_str());
    let paid = auction.clearing_price.as_deref();
    report.claim("the winner is paid its price", price.is_some() && price == paid, paid.unwrap_or("nothing"));
    let channel = task.channel.as_ref();
    let state = channel.map_or_else(
        || "no channel".to_owned(),
        |channel| {
            let reason = channel.close_reason.as_deref().unwrap_or("open");
            format!("{} {reason}, deposit {}, paid {}", channel.status, channel.deposit, channel.paid)
        },
    );
    let settled = channel.is_some_and(|channel| {
        let price = task.price.as_deref().unwrap_or("nothing");
        channel.close_reason.as_deref() == Some("SETTLED") && channel.deposit == price && channel.paid == price
    });
    report.claim("the escrow channel is settled in full", settled, state);
}

/// The best of the bids that were in the decision: the exact score wp·(B − p)·10⁴ + wr·B·R, then the better reputation, then
/// the earlier bid.
fn best_bid(auction: &Auction) -> Option<&Bid> {
    let budget = i128::from(auction.budget.parse::<Amount>().ok()?.micros());
    let (price_weight, reputation_weight) =
        (hundredths(&auction.price_weight)?, hundredths(&auction.reputation_weight)?);
    let mut best: Option<(i128, i128, &Bid)> = None;
    for bid in auction.bids.nodes.iter().filter(|bid| bid.rank.is_some()) {
        let price = i128::from(bid.price.parse::<Amount>().ok()?.micros());
        let reputation = hundredths(bid.reputation.as_deref()?)?;
        let saved = budget.checked_sub(price)?;
        let by_price = price_weight.checked_mul(saved)?.checked_mul(10_000)?;
        let score = reputation_weight.checked_mul(budget)?.checked_mul(reputation)?.checked_add(by_price)?;
        if best.is_none_or(|(other, standing, _)| (score, reputation) > (other, standing)) {
            best = Some((score, reputation, bid));
        }
    }
    best.map(|(_, _, bid)| bid)
}

/// A decimal number of points or percent in hundredths: 50.5 are 5050.
fn hundredths(text: &str) -> Option<i128> {
    // Points have the form of credits, and a hundredth of a point is ten thousand millionths.
    text.parse::<Amount>().ok().map(|amount| i128::from(amount.micros()) / 10_000)
}

/// Micro-credits of either sign.
fn signed(text: &str) -> Option<i64> {
    let (minus, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let plain = whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !plain || fraction.len() > FRACTION_DIGITS {
        return None;
    }
    let micros: i64 = format!("{whole}{fraction:0<width$}", width = FRACTION_DIGITS).parse().ok()?;
    if minus { micros.checked_neg() } else { Some(micros) }
}

/// The client rates the work, and the reputation is seen to move by it.
async fn rate(cast: &Cast, report: &mut Report, socket: &mut Socket, task: &str) -> Result<(), Broke> {
    let step = "the rating";
    let input = json!({ "taskId": task, "stars": 5, "comment": "As ordered.", "idempotencyKey": cast.key() });
    let rated: Value = cast.api.call(&cast.client, operations::RATE_AGENT, json!({ "input": input })).await.at(step)?;
    let stars = rated.pointer("/rating/stars").and_then(Value::as_i64).unwrap_or(0);
    let event = loop {
        let (_, event) = socket.next::<Event>(PATIENCE).await.at(step)?;
        if let Some(event) = event.filter(|event| event.reason.as_deref() == Some("RATING")) {
            break event;
        }
    };
    let (before, after) = (event.score_before.unwrap_or_default(), event.score_after.unwrap_or_default());
    report.claim("the client's stars count", stars == 5, format!("{stars} stars, reputation {before} → {after}"));
    Ok(())
}

/// What the agents of a capability have earned so far, by their ids, in micro-credits.
async fn earnings(cast: &Cast, capability: &str) -> Result<BTreeMap<String, i64>, Refused> {
    #[derive(Deserialize)]
    struct Page {
        nodes: Vec<Earner>,
        #[serde(rename = "pageInfo")]
        info: Info,
    }
    #[derive(Deserialize)]
    struct Earner {
        id: String,
        earnings: Option<String>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Info {
        has_next_page: bool,
        end_cursor: Option<String>,
    }
    let mut all = BTreeMap::new();
    let mut after = None;
    loop {
        let variables = json!({ "capabilities": [capability], "after": after });
        let page: Page = cast.api.call(&cast.admin, operations::EARNINGS, variables).await?;
        let known =
            page.nodes.into_iter().map(|earner| (earner.id, earner.earnings.as_deref().and_then(signed).unwrap_or(0)));
        all.extend(known);
        if !page.info.has_next_page {
            return Ok(all);
        }
        after = page.info.end_cursor;
    }
}

/// Follows every credit: the transfers, the agent's account and the client's wallet.
async fn money(
    cast: &Cast,
    report: &mut Report,
    task: &Task,
    issued: Transfer,
    funds: Amount,
    earned_before: &BTreeMap<String, i64>,
) -> Result<(), Broke> {
    let step = "step 8 (settlement)";
    let price = task.price.as_deref().and_then(signed).unwrap_or(0);
    let list: Nodes<Transfer> =
        cast.api.call(&cast.admin, operations::TRANSFERS, json!({ "taskId": task.id })).await.at(step)?;
    // They are listed newest first.
    let transfers: Vec<Transfer> = std::iter::once(issued).chain(list.nodes.into_iter().rev()).collect();
    let mut entries: BTreeMap<String, (Account, i64)> = BTreeMap::new();
    let mut fee = 0_i64;
    for transfer in &transfers {
        let amount = signed(&transfer.amount).at(step)?;
        if transfer.kind == "FEE" {
            fee = fee.saturating_add(amount);
        }
        for (account, change) in [(&transfer.debit, amount.saturating_neg()), (&transfer.credit, amount)] {
            let entry = entries.entry(account.id.clone()).or_insert_with(|| (account.clone(), 0));
            entry.1 = entry.1.saturating_add(change);
        }
    }
    let sum = entries.values().fold(0_i64, |sum, (_, change)| sum.saturating_add(*change));
    let left: i64 = entries
        .values()
        .filter(|(account, _)| account.kind.starts_with("ESCROW"))
        .fold(0, |left, (_, change)| left.saturating_add(change.saturating_abs()));
    report.entries_sum = format_micros(sum);
    report.entries = entries
        .values()
        .map(|(account, change)| json!({ "account": account.title(), "accountId": account.id, "change": format_micros(*change) }))
        .collect();
    report.transfers = transfers;
    report.same("the transfers sum to zero", &format_micros(sum), "0");
    report.same("nothing is left in escrow", &format_micros(left), "0");

    if let Some(agent) = &task.agent {
        let now: Value = cast.api.call(&cast.admin, operations::AGENT, json!({ "id": agent.id })).await.at(step)?;
        let now_has = now.get("earnings").and_then(Value::as_str).and_then(signed).unwrap_or(0);
        let had = earned_before.get(&agent.id).copied().unwrap_or(0);
        let grew = now_has.saturating_sub(had);
        report.agent_account = json!({
            "agent": agent.name, "before": format_micros(had), "after": format_micros(now_has), "fee": format_micros(fee),
            "reputation": now.get("reputation"),
        });
        let due = price.saturating_sub(fee);
        report.same("the agent's account grew by the price minus the fee", &format_micros(grew), &format_micros(due));
    }
    let me: Value = cast.api.call(&cast.client, operations::ME, json!({})).await.at(step)?;
    let wallet = me.get("wallet").cloned().unwrap_or_default();
    let of = |key: &str| wallet.get(key).and_then(Value::as_str).unwrap_or("nothing").to_owned();
    let rest = format_micros(funds.micros().saturating_sub(price));
    report.same("the wallet holds what was credited minus the price", &of("available"), &rest);
    report.same("nothing of the wallet is set aside", &of("inEscrow"), "0");
    report.wallet = wallet;
    Ok(())
}

/// Asks for the audit.
async fn books(cast: &Cast, report: &mut Report) -> Result<(), Broke> {
    let audit: Value = cast.api.call(&cast.admin, operations::LEDGER_AUDIT, json!({})).await.at("the audit")?;
    let ok = audit.get("ok").and_then(Value::as_bool).unwrap_or(false);
    let checks = audit.get("checks").and_then(Value::as_array).map_or(0, Vec::len);
    report.claim("the audit finds the books right", ok && checks > 0, format!("{checks} invariants"));
    report.audit = audit;
    Ok(())
}

impl Report {
    /// Why the run did not succeed.
    #[cfg(test)]
    pub(super) fn failures(&self) -> &[String] {
        &self.failures
    }

    /// Prints the report, and is a failure when the run was one.
    pub(super) fn deliver(self, as_json: bool) -> Result<(), Failure> {
        let mut output = Output::new();
        if as_json {
            output.json(&self)?;
        } else {
            self.print(&mut output)?;
        }
        match self.failures.first() {
            None => Ok(()),
            Some(first) => Err(Failure::failed(
                format!("The run did not succeed. {first}."),
                "The report above shows how far it came; RUST_LOG=debug shows more.",
            )),
        }
    }

    fn print(&self, to: &mut Output) -> std::io::Result<()> {
        let mark = |ok: bool| if ok { "ok  " } else { "FAIL" };
        writeln!(
            to,
            "{} for at most {} credits, on {} at {}",
            self.capability, self.budget, self.database, self.server
        )?;
        if let Some(task) = &self.task {
            let of = |key: &str| task.get(key).and_then(Value::as_str).unwrap_or("-");
            writeln!(to, "task {}, auction {}", of("id"), of("auctionId"))?;
        }
        writeln!(to)?;
        for step in &self.steps {
            writeln!(to, "{} {} {}", mark(step.ok), step.number, step.name)?;
            for event in &step.events {
                writeln!(to, "       {}  {}  {}  {}", event.occurred_at, event.id, event.kind, event.details())?;
            }
            if step.number == 4 {
                self.print_bids(to)?;
            }
        }
        writeln!(to, "\noutput")?;
        for line in serde_json::to_string_pretty(&self.output).unwrap_or_default().lines() {
            writeln!(to, "     {line}")?;
        }
        let used = |key: &str| self.result.get(key).and_then(Value::as_str).unwrap_or("-");
        let (fuel, memory, took) = (used("fuel"), used("peakMemoryBytes"), used("duration"));
        writeln!(to, "     {fuel} units of fuel, {memory} bytes of memory, {took}, module {}", used("moduleSha256"))?;
        if let Some(fault) = self.result.get("faultMessage").and_then(Value::as_str) {
            writeln!(to, "     {}: {fault}\n     {}", used("faultCode"), used("logs"))?;
        }
        writeln!(to, "\ntransfers")?;
        for transfer in &self.transfers {
            let (from, into) = (transfer.debit.title(), transfer.credit.title());
            writeln!(to, "     {:<8} {:>14}  {from} → {into}", transfer.kind, transfer.amount)?;
        }
        for entry in &self.entries {
            let of = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or("-");
            writeln!(to, "     {:>23}  {}", of("change"), of("account"))?;
        }
        writeln!(to, "     {:>23}  sum", self.entries_sum)?;
        let of = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or("-").to_owned();
        let (agent, wallet) = (&self.agent_account, &self.wallet);
        writeln!(to, "\nagent's account  {}: {} → {}", of(agent, "agent"), of(agent, "before"), of(agent, "after"))?;
        writeln!(to, "user's wallet    {} available, {} in escrow", of(wallet, "available"), of(wallet, "inEscrow"))?;
        writeln!(to, "\naudit")?;
        for check in self.audit.get("checks").and_then(Value::as_array).into_iter().flatten() {
            let right = check.get("violations").and_then(Value::as_str) == Some("0");
            writeln!(to, "{} {:<4} {}", mark(right), of(check, "name"), of(check, "statement"))?;
        }
        writeln!(to, "\nclaims")?;
        for claim in &self.claims {
            writeln!(to, "{} {}: {}", mark(claim.ok), claim.name, claim.found)?;
        }
        for failure in &self.failures {
            writeln!(to, "FAIL {failure}")?;
        }
        to.flush()
    }

    fn print_bids(&self, to: &mut Output) -> std::io::Result<()> {
        writeln!(
            to,
            "       {:<24} {:>12} {:>11} {:>8} {:>8} {:>11}  ",
            "bid of", "price", "reputation", "score", "= price", "+ reputation"
        )?;
        for bid in &self.bids {
            let score = |part: fn(&Score) -> &String| bid.score.as_ref().map_or("-", |score| part(score).as_str());
            writeln!(
                to,
                "       {:<24} {:>12} {:>11} {:>8} {:>8} {:>12}  {}{}",
                bid.agent.name,
                bid.price,
                bid.reputation.as_deref().unwrap_or("-"),
                score(|score| &score.total),
                score(|score| &score.price),
                score(|score| &score.reputation),
                bid.status,
                bid.rank.map_or_else(String::new, |rank| format!(", rank {rank}")),
            )?;
        }
        Ok(())
    }
}

/// The input of the task from a file, or from standard input for `-`. An agent of `json.*` reads documents, every other one text.
pub(super) fn read_input(file: &Path, capability: &str) -> Result<Value, Failure> {
    input_value(read_bytes(file)?, capability.starts_with("json."))
}

/// What is in a file: the document where it has an object or an array, text everywhere else.
pub(super) fn read_document_or_text(file: &Path) -> Result<Value, Failure> {
    input_value(read_bytes(file)?, true)
}

fn read_bytes(file: &Path) -> Result<Vec<u8>, Failure> {
    let read = if file == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin(), &mut bytes).map(|_| bytes)
    } else {
        std::fs::read(file)
    };
    read.map_err(|error| {
        let what = format!("The input {} cannot be read: {error}.", file.display());
        Failure::new(Exit::Usage, what, "Name a file by --input, or - for standard input.")
    })
}

/// The JSON value for the bytes of a file: where documents are read, the document itself when it is an object or an array, otherwise
/// the text as a string.
fn input_value(bytes: Vec<u8>, documents: bool) -> Result<Value, Failure> {
    let text = String::from_utf8(bytes).map_err(|error| {
        let place = error.utf8_error().valid_up_to();
        let what = format!("The input is not UTF-8 text: byte {place} is not part of a character.");
        Failure::new(Exit::Usage, what, "Convert the file to UTF-8 first.")
    })?;
    if documents {
        match serde_json::from_str(&text) {
            Ok(document @ (Value::Object(_) | Value::Array(_))) => return Ok(document),
            Ok(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) | Err(_) => {}
        }
    }
    Ok(Value::String(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, at: &str) -> Event {
        serde_json::from_value(json!({ "id": "evt_1", "cursor": "c", "kind": kind, "occurredAt": at })).unwrap()
    }

    #[test]
    fn input_is_text_unless_the_capability_reads_documents() {
        let of = |text: &str, capability: &str| {
            input_value(text.as_bytes().to_vec(), capability.starts_with("json.")).unwrap()
        };
        assert_eq!(of("Hello\n", "text.stats"), json!("Hello\n"));
        assert_eq!(of("{\"a\": 1}", "text.stats"), json!("{\"a\": 1}"));
        assert_eq!(of(" {\"a\": [1]} ", "json.validate"), json!({ "a": [1] }));
        assert_eq!(of("[1, 2]", "json.validate"), json!([1, 2]));
        assert_eq!(of("12", "json.validate"), json!("12"));
        assert_eq!(of("\"text\"", "json.validate"), json!("\"text\""));
        assert_eq!(of("{broken", "json.validate"), json!("{broken"));
        assert_eq!(of("", "csv.summary"), json!(""));
        let refused = input_value(vec![b'a', 0xff], false).unwrap_err();
        assert_eq!(refused.exit, Exit::Usage);
        assert!(refused.to_string().contains("byte 1 "), "{refused}");
    }

    #[test]
    fn amounts_of_either_sign_are_read_exactly() {
        for (text, micros) in
            [("0", 0), ("-0.25", -250_000), ("12.5", 12_500_000), ("1000000000000", 1_000_000_000_000_000_000)]
        {
            assert_eq!(signed(text), Some(micros));
            assert_eq!(format_micros(micros), text);
        }
        for wrong in ["", "-", "1.0000001", "x", "--1"] {
            assert_eq!(signed(wrong), None, "{wrong}");
        }
        assert_eq!(
            (hundredths("50.5"), hundredths("40"), hundredths("33.339")),
            (Some(5_050), Some(4_000), Some(3_333))
        );
    }

    #[test]
    fn steps_are_seen_in_order_or_named() {
        let mut kinds: Vec<&str> = STEPS.iter().take(LAST_IN_ORDER).map(|(_, kind)| *kind).collect();
        kinds.insert(3, "BID_SUBMITTED");
        let mut seen: Vec<Event> = kinds.iter().map(|kind| event(kind, "early")).collect();
        seen.extend([event("CHANNEL_CLOSED", "late"), event("TASK_COMPLETED", "late")]);
        let moved = event("REPUTATION_CHANGED", "late");
        let failures = |seen: &[Event], moved: Option<&Event>| {
            let mut report = Report::default();
            steps(&mut report, seen, moved);
            report.failures
        };
        assert_eq!(failures(&seen, Some(&moved)), [""; 0]);
        assert_eq!(failures(&seen, None), ["step 9 (reputation moved): REPUTATION_CHANGED was not seen"]);
        let other = event("REPUTATION_CHANGED", "later");
        assert_eq!(
            failures(&seen, Some(&other)),
            ["step 9 (reputation moved): REPUTATION_CHANGED was not seen in its place"]
        );
        seen.swap(0, 1);
        assert_eq!(
            failures(&seen, Some(&moved)),
            ["step 2 (auction opened): AUCTION_OPENED was not seen in its place"]
        );
        assert_eq!(failures(&[], None).len(), STEPS.len());
    }

    #[test]
    fn the_best_bid_is_found_again() {
        let bid = |id: &str, price: &str, reputation: &str| {
            json!({ "id": id, "price": price, "status": "LOST", "rank": 1, "reputation": reputation, "score": null,
                    "agent": { "id": "agent_1", "name": "a" } })
        };
        let auction = |bids: Value| -> Auction {
            serde_json::from_value(json!({
                "id": "auc_1", "budget": "2.5", "priceWeight": "40", "reputationWeight": "60", "bids": { "nodes": bids }
            }))
            .unwrap()
        };
        let best = |bids: Value| best_bid(&auction(bids)).map(|bid| bid.id.clone());
        assert_eq!(best(json!([])), None);
        assert_eq!(best(json!([bid("dear", "0.9", "50.5"), bid("cheap", "0.3", "50.5")])).as_deref(), Some("cheap"));
        assert_eq!(best(json!([bid("cheap", "0.3", "50.5"), bid("good", "0.9", "70")])).as_deref(), Some("good"));
        assert_eq!(best(json!([bid("first", "0.3", "50.5"), bid("second", "0.3", "50.5")])).as_deref(), Some("first"));
    }

    #[test]
    fn a_report_that_failed_says_so() {
        let mut report = Report::default();
        report.same("two and two", "5", "4");
        assert_eq!(report.failures, ["two and two: 5 instead of 4"]);
        let mut fine = Report::default();
        fine.same("two and two", "4", "4");
        assert!(fine.failures.is_empty());
    }
}
