//! Who sees which field of which type, for every field that introspection names. A type without a place where it is looked at
//! fails, and so does a field that nobody is ever seen to see. `docs/permissions.md` has the same table for people.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use async_graphql::parser::{
    parse_schema,
    types::{TypeKind, TypeSystemDefinition},
};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use zerostate::{graphql, voucher};

use crate::{
    permission::{Answer, Cast, Party, fill, filled, posted, rows},
    world::{Client, World, answering, crashing, echoing, fresh_key},
};

/// Who sees something: anonymous, stranger, payer, owner, arbiter, admin. An API key with the scope `READ` sees what its user
/// sees, but for what is an arbiter's or an administrator's; one without it what everybody sees.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Seen {
    by: [bool; 6],
    /// Whether a key that may read is enough.
    by_key: bool,
}

const fn seen(by: [u8; 6]) -> Seen {
    Seen { by: [by[0] > 0, by[1] > 0, by[2] > 0, by[3] > 0, by[4] > 0, by[5] > 0], by_key: true }
}

const ALL: Seen = seen([1, 1, 1, 1, 1, 1]);
const NOBODY: Seen = seen([0, 0, 0, 0, 0, 0]);
const PARTIES: Seen = seen([0, 0, 1, 1, 0, 1]);
const DISPUTANTS: Seen = seen([0, 0, 1, 1, 1, 1]);
const PAYER: Seen = seen([0, 0, 1, 0, 0, 1]);
const PAYER_ALONE: Seen = seen([0, 0, 1, 0, 0, 0]);
const OWNER: Seen = seen([0, 0, 0, 1, 0, 1]);
const OWNER_ALONE: Seen = seen([0, 0, 0, 1, 0, 0]);
const ADMIN: Seen = seen([0, 0, 0, 0, 0, 1]);
/// The owner in person: it takes another scope besides.
const WORKER: Seen = Seen { by: [false, false, false, true, false, false], by_key: false };

const PEOPLE: [&str; 6] = ["anonymous", "stranger", "payer", "owner", "arbiter", "admin"];
const SCOPES: [&str; 5] = ["READ", "TASKS_WRITE", "BIDS_WRITE", "AGENTS_WRITE", "WORK_WRITE"];

/// Where an object of a type is found.
struct Place {
    of: &'static str,
    /// What is special about this object, in words.
    note: &'static str,
    /// The query, with `%` where the fields go. Words that begin with `$` are things of the cast.
    document: &'static str,
    /// Where in the answer the object is.
    at: &'static str,
    /// Who sees the fields that have no row of their own.
    rest: Seen,
    /// Fields with a row of their own.
    rows: &'static [(&'static [&'static str], Seen)],
}

const fn place(of: &'static str, document: &'static str, at: &'static str, rest: Seen) -> Place {
    Place { of, note: "", document, at, rest, rows: &[] }
}

impl Place {
    const fn note(self, note: &'static str) -> Self {
        Self { note, ..self }
    }

    const fn but(self, rows: &'static [(&'static [&'static str], Seen)]) -> Self {
        Self { rows, ..self }
    }

    /// Who sees a field here.
    fn seen(&self, field: &str) -> Seen {
        self.rows.iter().find(|(fields, _)| fields.contains(&field)).map_or(self.rest, |(_, seen)| *seen)
    }
}

/// Fields of which this market has no value, and why.
const NEVER: &[(&str, &str)] = &[("AuctionEvent.reason", "no kind of event about an auction tells one")];

fn places() -> Vec<Place> {
    vec![
        place("Account", "{ node(id: \"$account\") { ... on Account { % } } }", "/node", ALL)
            .note("a wallet")
            .but(&[(&["balance", "statement"], PAYER)]),
        place("Account", "{ agent(id: \"$agent\") { account { % } } }", "/agent/account", ALL)
            .note("an agent's earnings")
            .but(&[(&["balance", "statement"], OWNER)]),
        place("Agent", "{ agent(id: \"$full\") { % } }", "/agent", ALL)
            .note("one that runs elsewhere")
            .but(&[(&["earnings", "minPrice", "webhook"], OWNER)]),
        place("Agent", "{ agent(id: \"$metered\") { % } }", "/agent", ALL)
            .note("a hosted one")
            .but(&[(&["earnings", "minPrice", "webhook"], OWNER)]),
        place("AgentModule", "{ agent(id: \"$metered\") { module { % } } }", "/agent/module", ALL),
        place("ApiKey", "{ node(id: \"$bound\") { ... on ApiKey { % } } }", "/node", OWNER),
        place("Auction", "{ auction(id: \"$auction\") { % } }", "/auction", ALL)
            .note("decided")
            .but(&[(&["task"], PARTIES)]),
        place("Auction", "{ auction(id: \"$winning\") { % } }", "/auction", ALL)
            .note("decided, with a reserve price")
            .but(&[(&["task"], PARTIES)]),
        place("Auction", "{ auction(id: \"$open\") { % } }", "/auction", ALL)
            .note("open, its bids for everybody")
            .but(&[(&["task"], PAYER), (&["reservePrice"], PAYER_ALONE)]),
        place("Auction", "{ auction(id: \"$sealed\") { % } }", "/auction", ALL)
            .note("open, its bids sealed")
            .but(&[
                (&["task"], PAYER),
                (&["reservePrice"], PAYER_ALONE),
                (&["bids"], OWNER_ALONE),
                (&["bestBid"], NOBODY),
            ]),
        place("Auction", "{ auction(id: \"$veiled\") { % } }", "/auction", ALL)
            .note("taking commitments")
            .but(&[
                (&["task"], PAYER), (&["reservePrice"], PAYER_ALONE),
                (&["commitments"], OWNER_ALONE),
                (&["bids", "bestBid"], NOBODY),
            ]),
        place("Auction", "{ auction(id: \"$revealed\") { % } }", "/auction", ALL)
            .note("taking what was committed")
            .but(&[(&["task"], PAYER), (&["reservePrice"], PAYER_ALONE), (&["bids"], OWNER_ALONE), (&["bestBid"], NOBODY)]),
        place(
            "AuctionEvent",
            "{ events(filter: { auctionId: \"$auction\", kinds: [AUCTION_AWARDED] }) { nodes { ... on AuctionEvent { % } } } }",
            "/events/nodes/0",
            ALL,
        )
        .note("an award"),
        place(
            "AuctionEvent",
            "{ events(filter: { auctionId: \"$expired\", kinds: [AUCTION_EXPIRED] }) { nodes { ... on AuctionEvent { % } } } }",
            "/events/nodes/0",
            ALL,
        )
        .note("an end without one"),
        place(
            "AuctionEvent",
            "{ events(filter: { auctionId: \"$auction\", kinds: [AUCTION_OPENED] }) { nodes { ... on AuctionEvent { % } } } }",
            "/events/nodes/0",
            ALL,
        )
        .note("a beginning"),
        place(
            "CreditsEvent",
            "{ events(filter: { auctionId: \"$lost\", kinds: [BOND_FORFEITED] }) { nodes { ... on CreditsEvent { % } } } }",
            "/events/nodes/0",
            PARTIES,
        )
        .note("a bond that is lost"),
        place("AuctionSimulation", SIMULATION, "/simulateAuction", ALL),
        place("Bid", "{ auction(id: \"$open\") { bids { nodes { % } } } }", "/auction/bids/nodes/0", ALL),
        place("Bid", "{ auction(id: \"$auction\") { winningBid { % } } }", "/auction/winningBid", ALL).note("that won"),
        place("Bid", "{ task(id: \"$whole\") { winningBid { % } } }", "/task/winningBid", PARTIES).note("metered, found by its task"),
        place("Bid", "{ node(id: \"$sealedBid\") { ... on Bid { % } } }", "/node", OWNER_ALONE)
            .note("while it is sealed")
            .but(&[(&["rank"], NOBODY)]),
        place(
            "BidEvent",
            "{ events(filter: { auctionId: \"$open\", kinds: [BID_SUBMITTED] }) { nodes { ... on BidEvent { % } } } }",
            "/events/nodes/0",
            ALL,
        )
        .note("of an open auction"),
        place(
            "BidEvent",
            "{ events(filter: { auctionId: \"$sealed\", kinds: [BID_SUBMITTED] }) { nodes { ... on BidEvent { % } } } }",
            "/events/nodes/0",
            ALL,
        )
        .note("of a sealed auction")
        .but(&[(&["price", "agent", "bid"], NOBODY)]),
        place("BidScore", "{ auction(id: \"$open\") { bids { nodes { score { % } } } } }", "/auction/bids/nodes/0/score", ALL),
        place(
            "Bond",
            "{ auction(id: \"$revealed\") { commitments { nodes { bond { % } } } } }",
            "/auction/commitments/nodes/0/bond",
            ALL,
        ),
        place("Bond", "{ auction(id: \"$taking\") { commitments { nodes { bond { % } } } } }", "/auction/commitments/nodes/0/bond", OWNER_ALONE)
            .note("while they are taken"),
        place("Channel", "{ node(id: \"$channel\") { ... on Channel { % } } }", "/node", PARTIES).note("of a task"),
        place("Channel", "{ node(id: \"$stream\") { ... on Channel { % } } }", "/node", PARTIES).note("streaming"),
        place(
            "ChannelChange",
            "{ node(id: \"$stream\") { ... on Channel { changes { nodes { % } } } } }",
            "/node/changes/nodes/1",
            PARTIES,
        ),
        place(
            "ChannelConfiguration",
            "{ node(id: \"$stream\") { ... on Channel { configuration { % } } } }",
            "/node/configuration",
            PARTIES,
        ),
        place(
            "ChannelEvent",
            "{ events(filter: { taskId: \"$task\", kinds: [CHANNEL_CLOSED] }) { nodes { ... on ChannelEvent { % } } } }",
            "/events/nodes/0",
            PARTIES,
        ),
        place(
            "ChannelEvent",
            "{ events(filter: { agentId: \"$agent\", kinds: [CHANNEL_CLOSING] }) { nodes { ... on ChannelEvent { % } } } }",
            "/events/nodes/0",
            PARTIES,
        )
        .note("streaming"),
        place(
            "Commitment",
            "{ auction(id: \"$revealed\") { commitments { nodes { % } } } }",
            "/auction/commitments/nodes/0",
            ALL,
        )
        .note("revealed, before the decision")
        .but(&[(&["salt", "bid"], OWNER_ALONE)]),
        place("Commitment", "{ auction(id: \"$veiled\") { commitments { nodes { % } } } }", "/auction/commitments/nodes/0", OWNER_ALONE)
            .note("while they are taken")
            .but(&[(&["salt", "bid"], NOBODY)]),
        place("CostNode", "{ delegation(id: \"$delegation\") { costTree { % } } }", "/delegation/costTree", PAYER),
        place(
            "CostNode",
            "{ delegation(id: \"$delegation\") { costTree { children { children { % } } } } }",
            "/delegation/costTree/children/0/children/0",
            PAYER,
        )
        .note("of a task"),
        place(
            "CreditsEvent",
            "{ events(filter: { agentId: \"$agent\", kinds: [EARNINGS_WITHDRAWN] }) { nodes { ... on CreditsEvent { % } } } }",
            "/events/nodes/0",
            OWNER,
        ),
        place("Delegation", "{ delegation(id: \"$planned\") { % } }", "/delegation", PAYER).note("planned by an agent"),
        place("Delegation", "{ delegation(id: \"$group\") { % } }", "/delegation", PAYER).note("within another"),
        place("Delegation", "{ delegation(id: \"$failed\") { % } }", "/delegation", PAYER).note("that failed"),
        place(
            "DelegationEvent",
            "{ delegation(id: \"$planned\") { events(first: 100) { nodes { ... on DelegationEvent { % } } } } }",
            "/delegation/events/nodes/*",
            PAYER,
        ),
        place(
            "DelegationEvent",
            "{ delegation(id: \"$failed\") { events(first: 100) { nodes { ... on DelegationEvent { % } } } } }",
            "/delegation/events/nodes/*",
            PAYER,
        )
        .note("of one that failed"),
        place("DelegationStep", "{ delegation(id: \"$planned\") { steps { % } } }", "/delegation/steps/*", PAYER),
        place("DelegationStep", "{ delegation(id: \"$grouped\") { steps { % } } }", "/delegation/steps/*", PAYER)
            .note("a group"),
        place("DelegationStep", "{ delegation(id: \"$failed\") { steps { % } } }", "/delegation/steps/*", PAYER)
            .note("that failed"),
        place("Dispute", "{ dispute(id: \"$rulable\") { % } }", "/dispute", DISPUTANTS).note("that was ruled"),
        place("Dispute", "{ dispute(id: \"$dispute\") { % } }", "/dispute", DISPUTANTS).note("open"),
        place("EconomicHealth", "{ economicHealth { % } }", "/economicHealth", ALL),
        place(
            "Equivocation",
            "{ node(id: \"$stream\") { ... on Channel { equivocations { nodes { % } } } } }",
            "/node/equivocations/nodes/0",
            PARTIES,
        ),
        place("Escrow", "{ task(id: \"$task\") { escrow { % } } }", "/task/escrow", PARTIES),
        place("Evidence", "{ node(id: \"$evidence\") { ... on Evidence { % } } }", "/node", DISPUTANTS),
        place("JournalHead", "{ journalHead { % } }", "/journalHead", ALL),
        place("LeaderboardEntry", "{ leaderboard { % } }", "/leaderboard/0", ALL),
        place("LedgerAudit", "{ ledgerAudit { % } }", "/ledgerAudit", ADMIN),
        place("LedgerCheck", "{ ledgerAudit { checks { % } } }", "/ledgerAudit/checks/0", ADMIN),
        place("MarketStats", "{ marketStats { % } }", "/marketStats", ALL),
        place("RateLimit", "{ rateLimit { % } }", "/rateLimit", ALL),
        place("Rating", "{ task(id: \"$whole\") { rating { % } } }", "/task/rating", PARTIES),
        place("Rating", "{ node(id: \"$rating\") { ... on Rating { % } } }", "/node", ALL)
            .note("by its id")
            .but(&[(&["task"], PARTIES)]),
        place("Reputation", "{ reputation(agentId: \"$agent\") { % } }", "/reputation", ALL),
        place(
            "ReputationChangedEvent",
            "{ events(filter: { agentId: \"$agent\", kinds: [REPUTATION_CHANGED] }) { nodes { ... on ReputationChangedEvent { % } } } }",
            "/events/nodes/0",
            ALL,
        ),
        place("ReputationEvent", "{ reputationEvents(agentId: \"$agent\", last: 1) { nodes { % } } }", "/reputationEvents/nodes/0", ALL)
            .but(&[(&["task"], PARTIES)]),
        place("ReputationFactor", "{ reputation(agentId: \"$agent\") { factors { % } } }", "/reputation/factors/0", ALL),
        place("ServiceInfo", "{ serviceInfo { % } }", "/serviceInfo", ALL),
        place("Session", "{ node(id: \"$over\") { ... on Session { % } } }", "/node", PAYER),
        place("SignedDocument", "{ awardCertificate(auctionId: \"$auction\") { % } }", "/awardCertificate", ALL)
            .note("a certificate"),
        place("SignedDocument", "{ node(id: \"$receipt\") { ... on SignedDocument { % } } }", "/node", PARTIES)
            .note("a receipt"),
        place(
            "SignedVoucher",
            "{ node(id: \"$stream\") { ... on Channel { equivocations { nodes { first { % } } } } } }",
            "/node/equivocations/nodes/0/first",
            PARTIES,
        ),
        place("SimulatedBid", SIMULATED, "/simulateAuction/winner", ALL),
        place("Statement", "{ node(id: \"$account\") { ... on Account { statement { % } } } }", "/node/statement", PAYER),
        place(
            "StatementLine",
            "{ node(id: \"$account\") { ... on Account { statement { lines { nodes { % } } } } } }",
            "/node/statement/lines/nodes/0",
            PAYER,
        ),
        place("Task", "{ task(id: \"$whole\") { % } }", "/task", PARTIES).note("completed"),
        place("Task", "{ task(id: \"$broken\") { % } }", "/task", PARTIES).note("that failed"),
        place("Task", "{ task(id: \"$bought\") { % } }", "/task", PARTIES)
            .note("bought by a delegation")
            .but(&[(&["delegation"], PAYER)]),
        place("Task", "{ task(id: \"$cancellable\") { % } }", "/task", PAYER).note("open"),
        place("Task", "{ task(id: \"$disputed\") { % } }", "/task", DISPUTANTS).note("disputed").but(&[(&["channel"], PARTIES)]),
        place("TaskCheck", "{ taskResult(taskId: \"$whole\") { check { % } } }", "/taskResult/check", PARTIES),
        place(
            "TaskEvent",
            "{ taskResult(taskId: \"$whole\") { timeline(first: 100) { nodes { ... on TaskEvent { % } } } } }",
            "/taskResult/timeline/nodes/*",
            PARTIES,
        ),
        place(
            "TaskEvent",
            "{ taskResult(taskId: \"$broken\") { timeline(first: 100) { nodes { ... on TaskEvent { % } } } } }",
            "/taskResult/timeline/nodes/*",
            PARTIES,
        )
        .note("that failed"),
        place("TaskResult", "{ taskResult(taskId: \"$whole\") { % } }", "/taskResult", PARTIES),
        place("TaskResult", "{ taskResult(taskId: \"$broken\") { % } }", "/taskResult", PARTIES).note("that failed"),
        place("TaskStatusCount", "{ marketStats { tasks { % } } }", "/marketStats/tasks/0", ALL),
        place("Transfer", "{ node(id: \"$transfer\") { ... on Transfer { % } } }", "/node", PAYER).note("an issue"),
        place("Transfer", "{ node(id: \"$payout\") { ... on Transfer { % } } }", "/node", OWNER).note("a payout"),
        place("User", "{ user(id: \"$payer\") { % } }", "/user", ALL)
            .but(&[(&["apiKeys", "email", "lastLoginAt", "sessions", "status", "wallet"], PAYER)]),
        place("User", "{ user(id: \"$owner\") { % } }", "/user", ALL)
            .note("an owner of agents")
            .but(&[(&["apiKeys", "email", "lastLoginAt", "sessions", "status", "wallet"], OWNER)]),
        place("Wallet", "{ user(id: \"$payer\") { wallet { % } } }", "/user/wallet", PAYER),
        place("Webhook", "{ agent(id: \"$full\") { webhook { % } } }", "/agent/webhook", OWNER),
        place(
            "WebhookDelivery",
            "{ agent(id: \"$full\") { webhook { deliveries { nodes { % } } } } }",
            "/agent/webhook/deliveries/nodes/*",
            OWNER,
        ),
        place("WorkOffer", "{ workOffers(agentId: \"$bidder\") { % } }", "/workOffers/0", WORKER),
    ]
}

const SIMULATION: &str = "{ simulateAuction(input: { budget: \"10\", bids: [{ price: \"1\", reputation: 50 }, { price: \"2\", reputation: 50 }] }) { % } }";
const SIMULATED: &str =
    "{ simulateAuction(input: { budget: \"10\", bids: [{ price: \"1\", reputation: 50 }] }) { winner { % } } }";

/// A field as introspection shows it.
struct Field {
    name: String,
    /// The type without its wrappers, and its kind.
    of: String,
    kind: String,
    /// Whether it takes a number of things.
    takes_first: bool,
}

/// The object types with their fields.
struct Types(BTreeMap<String, Vec<Field>>);

impl Types {
    async fn read(world: &World) -> Self {
        let document = "{ __schema { types { kind name fields(includeDeprecated: true) { name args { name }
            type { kind name ofType { kind name ofType { kind name ofType { kind name } } } } } } } }";
        let schema = world.anonymous().query(document, json!({})).await;
        let mut types = BTreeMap::new();
        for of in schema["__schema"]["types"].as_array().unwrap() {
            let name = of["name"].as_str().unwrap();
            if of["kind"] != "OBJECT" || name.starts_with("__") {
                continue;
            }
            let fields = of["fields"].as_array().unwrap().iter().map(|field| {
                let mut of = &field["type"];
                while !of["ofType"].is_null() {
                    of = &of["ofType"];
                }
                Field {
                    name: field["name"].as_str().unwrap().to_owned(),
                    of: of["name"].as_str().unwrap().to_owned(),
                    kind: of["kind"].as_str().unwrap().to_owned(),
                    takes_first: field["args"].as_array().unwrap().iter().any(|argument| argument["name"] == "first"),
                }
            });
            types.insert(name.to_owned(), fields.collect());
        }
        Self(types)
    }

    fn fields(&self, of: &str) -> &[Field] {
        self.0.get(of).unwrap_or_else(|| panic!("{of} is no object type"))
    }

    /// A field with enough of what is in it to tell whether there is something.
    fn selection(&self, field: &Field) -> String {
        let name = &field.name;
        match field.kind.as_str() {
            "SCALAR" | "ENUM" => name.clone(),
            _ if field.of.ends_with("Connection") => {
                let first = if field.takes_first { "(first: 5)" } else { "" };
                let parts: Vec<String> = self.fields(&field.of).iter().map(|part| self.selection(part)).collect();
                format!("{name}{first} {{ {} }}", parts.join(" "))
            }
            _ if field.of.ends_with("Edge") || field.of == "PageInfo" => {
                let parts: Vec<String> = self.fields(&field.of).iter().map(|part| self.selection(part)).collect();
                format!("{name} {{ {} }}", parts.join(" "))
            }
            _ => format!("{name} {{ __typename }}"),
        }
    }

    /// Types that are parts of lists, which are looked at with every list.
    fn is_of_a_list(name: &str) -> bool {
        name.ends_with("Connection") || name.ends_with("Edge") || name == "PageInfo"
    }

    /// Types that only the answer of a mutation has.
    fn of_answers(&self) -> BTreeSet<String> {
        let payloads = self.fields("Mutation").iter().map(|field| field.of.clone());
        let errors = self.0.keys().filter(|name| name.ends_with("UserError")).cloned();
        let within = ["Tokens", "Claim"].map(str::to_owned);
        payloads.chain(errors).chain(within).collect()
    }
}

/// Somebody who asks.
struct Asker {
    name: String,
    /// Who it is, as in [`PEOPLE`].
    who: usize,
    /// What the key may do; nothing for a session.
    scope: Option<&'static str>,
    client: Client,
}

impl Asker {
    fn sees(&self, seen: Seen) -> bool {
        match self.scope {
            None => seen.by[self.who],
            // A key is never an arbiter's or an administrator's, and nobody in particular when it may not read.
            Some("READ") if (2..4).contains(&self.who) && seen.by_key => seen.by[self.who],
            Some("READ") => seen.by[1],
            Some(_) => seen.by[0],
        }
    }
}

impl Cast {
    /// Everybody, in person and by keys of each scope alone.
    async fn askers(&self) -> Vec<Asker> {
        let people = [
            self.world.anonymous(),
            self.stranger.clone(),
            self.payer.clone(),
            self.owner.clone(),
            self.arbiter.clone(),
            self.admin.clone(),
        ];
        let mut askers = Vec::new();
        for (who, client) in people.into_iter().enumerate() {
            if who > 0 {
                for scope in SCOPES {
                    let key = self.key(&client, &[scope]).await;
                    let name = format!("{} with a key to {scope}", PEOPLE[who]);
                    askers.push(Asker { name, who, scope: Some(scope), client: client.with_token(&key) });
                }
            }
            askers.push(Asker { name: PEOPLE[who].to_owned(), who, scope: None, client });
        }
        askers
    }

    /// An API key with these scopes.
    async fn key(&self, of: &Client, scopes: &[&str]) -> String {
        let input = json!({ "name": fresh_key(), "scopes": scopes });
        of.call("createApiKey", "secret", input).await["secret"].as_str().unwrap().to_owned()
    }

    /// A market where every field has a value somewhere.
    async fn with_everything() -> Self {
        let world = World::with(|config| {
            config.terms.allow_private_webhooks = true;
            config.limits.points_per_second = 100_000;
        })
        .await;
        let mut cast = Box::pin(Self::gather_in(world)).await;
        cast.know("owner", cast.owner.id().to_owned());
        cast.world.credit(&cast.payer, "100").await;
        Box::pin(cast.furnish_agents()).await;
        Box::pin(cast.furnish_tasks()).await;
        Box::pin(cast.furnish_delegations()).await;
        Box::pin(cast.furnish_channels()).await;
        Box::pin(cast.furnish_credentials()).await;
        cast.world.app.audit().await.unwrap();
        cast
    }

    async fn furnish_agents(&mut self) {
        let hook = moody_receiver().await;
        let input = json!({
            "name": "full", "description": "Does everything.", "capabilities": ["full"], "runtime": "EXTERNAL", "price": "1",
            "minPrice": "0.5", "capacity": 9, "promisedDuration": "PT1H",
            "publicKey": hex::encode(voucher::public_key(&[9; 32])),
        });
        let made = self.owner.call("registerAgent", "agent { id }", input).await;
        let full = made["agent"]["id"].as_str().unwrap().to_owned();
        self.owner.call("setWebhook", "agent { id }", json!({ "agentId": full, "url": hook })).await;
        self.know("full", full);
        let input = json!({
            "name": "metered", "capabilities": ["metered"], "runtime": "HOSTED", "price": "2", "minPrice": "0.5",
            "pricePerMillionFuel": "1", "promisedDuration": "PT1M",
        });
        let made = self.owner.call("registerAgent", "agent { id }", input).await;
        let metered = made["agent"]["id"].as_str().unwrap().to_owned();
        assert_eq!(self.owner.upload(&metered, answering("{\"answer\": 42}")).await.status, 200);
        self.know("metered", metered);
        let (world, owner) = (&self.world, &self.owner);
        let judge = answering(r#"{"pass":true,"reason":"It is good."}"#);
        let judge = world.hosted_agent(owner, "judge", "judge", "1", judge).await.to_string();
        world.hosted_agent(owner, "broken", "broken", "1", crashing()).await;
        world.hosted_agent(owner, "mirror", "mirror", "1", echoing()).await;
        let plan = json!({ "steps": [{ "name": "only", "capabilities": ["mirror"], "input": { "$ref": "input" } }] });
        world.hosted_agent(owner, "planner", "plan", "0.5", answering(&plan.to_string())).await;
        self.know("judge", judge);
    }

    async fn furnish_tasks(&mut self) {
        let whole = posted(&json!({
            "capabilities": ["metered"], "checkerId": "$judge", "outputSchema": { "type": "object" },
            "acceptance": "REVIEW", "reviewWindow": "PT1H",
        }));
        let made = self.make("executeTask", "ExecuteTask", "task { id }", whole).await;
        self.know("whole", made["task"]["id"].as_str().unwrap().to_owned());
        let made = self
            .make("executeTask", "ExecuteTask", "task { id }", posted(&json!({ "capabilities": ["broken"] })))
            .await;
        self.know("broken", made["task"]["id"].as_str().unwrap().to_owned());
        self.world.settle().await;
        self.payer.call("acceptResult", "task { id }", json!({ "taskId": self.things["whole"] })).await;
        let stars = json!({ "taskId": self.things["whole"], "stars": 5, "comment": "Thanks." });
        let made = self.payer.call("rateAgent", "rating { id }", stars).await;
        self.know("rating", made["rating"]["id"].as_str().unwrap().to_owned());

        for (name, over) in [
            (
                "open",
                json!({ "visibility": "OPEN", "reservePrice": "4", "maxPrice": "4.5", "softClose": "PT1M",
                "closeAfterBids": 5, "bidBond": "0.5", "checkerId": "$judge", "closesIn": "PT3H" }),
            ),
            ("expired", json!({ "closesIn": "PT1S" })),
            ("winning", json!({ "closesIn": "PT3H", "closeAfterBids": 1, "reservePrice": "4", "maxPrice": "4.5" })),
            ("lost", json!({ "closesIn": "PT3H", "closeAfterBids": 1, "bidBond": "0.5", "startTimeout": "PT1M" })),
            ("another", json!({ "closesIn": "PT3H", "closeAfterBids": 1 })),
        ] {
            let mut input = posted(&json!({ "capabilities": ["full"] }));
            input.as_object_mut().unwrap().extend(over.as_object().unwrap().clone());
            let made = self.make("createAuction", "CreateAuction", "auction { id }", input).await;
            self.know(name, made["auction"]["id"].as_str().unwrap().to_owned());
        }
        for auction in ["open", "winning", "lost", "another"] {
            let bid = json!({
                "auctionId": self.things[auction], "agentId": self.things["full"], "price": "3",
                "promisedDuration": "PT30M",
            });
            self.owner.call("submitBid", "bid { id }", bid).await;
        }
        let rule = json!({ "disputeId": self.things["rulable"], "award": "1", "opinion": "So it is." });
        self.arbiter.call("resolveDispute", "dispute { id }", rule).await;
        self.owner
            .call("withdrawCommitment", "commitment { id }", json!({ "commitmentId": self.things["takable"] }))
            .await;
        // One message is refused, and one is taken.
        self.world.app.carry_once().await.unwrap();
        self.world.pass(Duration::from_mins(2)).await;
        for _ in 0..2 {
            self.world.app.carry_once().await.unwrap();
        }
    }

    async fn furnish_delegations(&mut self) {
        let order = |over: Value| {
            let mut input =
                json!({ "goal": "Some work", "input": { "x": 1 }, "budget": "4", "idempotencyKey": "$key" });
            input.as_object_mut().unwrap().extend(over.as_object().unwrap().clone());
            input
        };
        let inner = json!({ "steps": [{ "name": "in", "capabilities": ["mirror"], "input": { "$ref": "input" } }] });
        for (name, over) in [
            ("planned", json!({ "capabilities": ["mirror"], "planningBudget": "1" })),
            (
                "grouped",
                json!({ "plan": { "steps": [{ "name": "inside", "plan": inner, "input": 1 },
                { "name": "after", "capabilities": ["mirror"], "dependsOn": ["inside"], "input": 1 }] } }),
            ),
            ("failed", json!({ "capabilities": ["broken"] })),
        ] {
            let made = self.make("delegateTask", "DelegateTask", "delegation { id }", order(over)).await;
            self.know(name, made["delegation"]["id"].as_str().unwrap().to_owned());
        }
        self.world.settle().await;
        let document = "{ delegation(id: \"$grouped\") { steps { delegation { id } } } }";
        let steps = self.payer.query(&filled(document, &self.things, ""), json!({})).await;
        let group = steps["delegation"]["steps"][0]["delegation"]["id"].as_str().unwrap().to_owned();
        self.know("group", group);
    }

    async fn furnish_channels(&mut self) {
        let stream = self.things["stream"].clone();
        let document = "query($id: ID!) { channel(id: $id) { hash } serviceInfo { instanceId } }";
        let seen = self.payer.query(document, json!({ "id": stream })).await;
        let of = |value: &Value| voucher::read_hex(value.as_str().unwrap()).unwrap();
        let (channel_id, instance_id) = (of(&seen["channel"]["hash"]), of(&seen["serviceInfo"]["instanceId"]));
        for cumulative in [1_000_000, 2_000_000] {
            let promise = voucher::Voucher {
                instance_id,
                channel_id,
                nonce: 1,
                cumulative,
                valid_until: 0,
                context_hash: [0; 32],
            };
            let signature = hex::encode(promise.sign(&[1; 32]));
            let input = json!({
                "channelId": stream,
                "voucher": { "nonce": "1", "cumulative": cumulative.to_string(), "signature": signature },
            });
            if cumulative == 1_000_000 {
                self.owner.call("claimVoucher", "change { kind }", input).await;
            } else {
                assert_eq!(self.owner.refusal("claimVoucher", input).await, "EQUIVOCATION");
            }
        }
        self.payer.call("requestChannelClose", "change { kind }", json!({ "channelId": stream })).await;
        let input = json!({ "agentId": self.things["agent"], "amount": "0.5" });
        let made = self.owner.call("withdrawEarnings", "transfer { id }", input).await;
        assert!(made["transfer"]["id"].is_string());
        let found = self
            .owner
            .query("{ transfers(first: 100) { nodes { id kind task { id } channel { id } } } }", json!({}))
            .await;
        let nodes = found["transfers"]["nodes"].as_array().unwrap();
        let payout = nodes.iter().find(|node| !node["task"].is_null() && !node["channel"].is_null()).expect("a payout");
        self.know("payout", payout["id"].as_str().unwrap().to_owned());
    }

    async fn furnish_credentials(&mut self) {
        let input = json!({ "name": "bound", "scopes": ["READ"], "agentId": self.things["full"], "expiresIn": "P1D" });
        let made = self.owner.call("createApiKey", "apiKey { id } secret", input).await;
        let key = self.owner.with_token(made["secret"].as_str().unwrap());
        key.query("{ me { id } }", json!({})).await;
        let id = made["apiKey"]["id"].as_str().unwrap().to_owned();
        self.owner.call("revokeApiKey", "apiKey { id }", json!({ "apiKeyId": id })).await;
        self.know("bound", id);
        let out = self.world.login("payer").await;
        let over = out.done("logout", "mutation { logout { session { id } userErrors { code } } }", json!({})).await;
        self.know("over", over["session"]["id"].as_str().unwrap().to_owned());
    }
}

/// An address where every other message is refused, from the first on.
#[expect(clippy::disallowed_methods, reason = "a server of the test's own, which ends with its runtime")]
async fn moody_receiver() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for number in 0.. {
            let Ok((mut stream, _)) = listener.accept().await else { return };
            let mut request = [0; 16_384];
            assert!(stream.read(&mut request).await.unwrap() > 0);
            let status = if number % 2 == 0 { "500 No" } else { "204 Yes" };
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    format!("http://{address}/hook")
}

/// Whether there is something; how many things a list of strangers' counts does not matter here.
fn is_there(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Array(items) => items.iter().any(|item| !item.is_null()),
        Value::Object(parts) => match parts.get("nodes") {
            Some(nodes) => is_there(nodes),
            None => true,
        },
        Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}

/// The objects at a place of an answer; `*` stands for every item of a list.
fn at<'a>(answer: &'a Value, path: &str) -> Vec<&'a Value> {
    match path.split_once("/*") {
        Some((list, _)) => answer.pointer(list).and_then(Value::as_array).into_iter().flatten().collect(),
        None => answer.pointer(path).into_iter().collect(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_sees_of_every_type_what_the_table_says_and_nothing_else() {
    let cast = Cast::with_everything().await;
    let (types, askers, places) = (Types::read(&cast.world).await, cast.askers().await, places());
    let mut wrong = BTreeSet::new();
    let mut shown: BTreeSet<(String, String)> = BTreeSet::new();
    let mut given = Vec::new();

    let answers = types.of_answers();
    for name in types.0.keys().filter(|name| !["Query", "Mutation", "Subscription"].contains(&name.as_str())) {
        let looked_at =
            Types::is_of_a_list(name) || answers.contains(name) || places.iter().any(|place| place.of == name);
        if !looked_at {
            wrong.insert(format!("{name} has no place"));
        }
    }
    for place in &places {
        let fields = types.fields(place.of);
        for field in place.rows.iter().flat_map(|(fields, _)| fields.iter()) {
            if !fields.iter().any(|known| known.name == *field) {
                wrong.insert(format!("{}.{field} has a row and is no field", place.of));
            }
        }
        let selection: Vec<String> = fields.iter().map(|field| types.selection(field)).collect();
        let document = filled(&place.document.replace('%', &selection.join(" ")), &cast.things, "");
        let replies =
            join_all(askers.iter().map(|asker| async { asker.client.raw(&document, &json!({})).await })).await;
        let mut seen = vec![BTreeMap::new(); fields.len()];
        let mut here = BTreeSet::new();
        for (asker, reply) in askers.iter().zip(&replies) {
            let answer = reply.json();
            for error in answer["errors"].as_array().into_iter().flatten() {
                let code = error["extensions"]["code"].as_str().unwrap_or("none");
                if !["UNAUTHENTICATED", "FORBIDDEN"].contains(&code) {
                    wrong.insert(format!("{} {}: {code} {}", place.of, place.note, error["message"]));
                }
            }
            let objects = at(&answer["data"], place.at);
            for (field, seen) in fields.iter().zip(&mut seen) {
                let found = objects.iter().any(|object| is_there(&object[&field.name]));
                seen.insert(asker.name.as_str(), found);
                // A list that is hidden does not say how long it is either.
                let counts = objects.iter().any(|object| object[&field.name]["totalCount"].as_i64() > Some(0));
                if counts && !found {
                    wrong.insert(format!(
                        "{}.{} {} counts what it hides from {}",
                        place.of, field.name, place.note, asker.name
                    ));
                }
            }
        }
        for (field, seen) in fields.iter().zip(seen) {
            if !seen.values().any(|seen| *seen) {
                continue;
            }
            shown.insert((place.of.to_owned(), field.name.clone()));
            here.insert(field.name.clone());
            for asker in &askers {
                let (found, expected) = (seen[asker.name.as_str()], asker.sees(place.seen(&field.name)));
                if found != expected {
                    let what = if found { "sees" } else { "does not see" };
                    wrong.insert(format!("{} {what} {}.{} {}", asker.name, place.of, field.name, place.note));
                }
            }
        }
        given.push(here);
    }
    for (name, fields) in &types.0 {
        for field in fields.iter().filter(|_| places.iter().any(|place| place.of == name)) {
            let never = NEVER.iter().any(|(known, _)| *known == format!("{name}.{}", field.name));
            if shown.contains(&(name.clone(), field.name.clone())) == never {
                let what = if never { "has a value, but NEVER names it" } else { "is never seen to have a value" };
                wrong.insert(format!("{name}.{} {what}", field.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.into_iter().collect::<Vec<_>>().join("\n"));
    cast.world.check().await;
    check_documentation(&lines(&types, &given));
}

/// The table for people: a line for each place and everybody who sees the same of it. `given` is what had a value there: of nothing
/// else is anything known.
fn lines(types: &Types, given: &[BTreeSet<String>]) -> Vec<String> {
    let mut lines = Vec::new();
    for (place, given) in places().iter().zip(given) {
        let note = if place.note.is_empty() { String::new() } else { format!(", {}", place.note) };
        let mut groups: Vec<(Seen, Vec<String>)> = Vec::new();
        for field in types.fields(place.of).iter().filter(|field| given.contains(&field.name)) {
            let (seen, name) = (place.seen(&field.name), format!("`{}`", field.name));
            match groups.iter_mut().find(|(of, _)| *of == seen) {
                Some((_, names)) => names.push(name),
                None => groups.push((seen, vec![name])),
            }
        }
        groups.sort_by_key(|(seen, _)| *seen != place.rest);
        for (seen, names) in groups {
            let who: Vec<&str> = seen.by.iter().map(|sees| if *sees { "yes" } else { "–" }).collect();
            lines.push(format!("| **{}**{note}: {} | {} |", place.of, names.join(", "), who.join(" | ")));
        }
        let hidden = place.rows.iter().filter(|(_, seen)| *seen == NOBODY).flat_map(|(fields, _)| fields.iter());
        let hidden: Vec<String> = hidden.map(|field| format!("`{field}`")).collect();
        if !hidden.is_empty() {
            lines.push(format!("| **{}**{note}: {} | – | – | – | – | – | – |", place.of, hidden.join(", ")));
        }
    }
    lines
}

/// Compares the table for people with what was seen.
fn check_documentation(expected: &[String]) {
    let text = std::fs::read_to_string("docs/permissions.md").unwrap();
    let documented: Vec<&str> = text.lines().filter(|line| line.starts_with("| **")).collect();
    if documented != expected {
        let path = "target/fields.md";
        std::fs::write(path, expected.join("\n")).unwrap();
        let missing: Vec<_> = expected.iter().filter(|line| !documented.contains(&line.as_str())).collect();
        let stale: Vec<_> = documented.iter().filter(|line| !expected.iter().any(|known| known == *line)).collect();
        panic!("docs/permissions.md has not the lines of {path}; it lacks\n{missing:#?}\nand has\n{stale:#?}");
    }
}

/// What a payload's field is asked for: enough of a type that has places, and all of one that has none.
fn of_payload(types: &Types, places: &[Place], field: &Field) -> String {
    let (name, of) = (&field.name, &field.of);
    if ["SCALAR", "ENUM"].contains(&field.kind.as_str()) {
        return name.clone();
    }
    if places.iter().any(|place| place.of == of) {
        return format!("{name} {{ __typename }}");
    }
    let parts: Vec<String> = types.fields(of).iter().map(|part| of_payload(types, places, part)).collect();
    format!("{name} {{ {} }}", parts.join(" "))
}

/// The paths of what is missing from a value.
fn missing(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Null => found.push(path.to_owned()),
        Value::Object(parts) => parts.iter().for_each(|(name, part)| missing(part, &format!("{path}.{name}"), found)),
        Value::Array(_) | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_all_there_for_who_may_ask_and_empty_for_everybody_else() {
    let cast = Cast::gather_in(World::start().await).await;
    let (types, places) = (Types::read(&cast.world).await, places());
    let mut wrong = Vec::new();
    let mut answered = BTreeSet::new();
    for row in rows().iter().filter(|row| row.on == "Mutation") {
        let payload = &types.fields("Mutation").iter().find(|field| field.name == row.field).expect(row.field).of;
        let selection: Vec<String> =
            types.fields(payload).iter().map(|field| of_payload(&types, &places, field)).collect();
        let document = row.document.replace("{ userErrors { code } }", &format!("{{ {} }}", selection.join(" ")));
        assert!(document.contains("message"), "{document}");
        for role in [0, 1, 3, 4, 2] {
            let mut client = cast.person(role, row.party);
            if row.field == "logout" && role > 0 {
                client = cast.world.login(["", "stranger", "payer", "arbiter", "admin"][role]).await;
            }
            let key = fresh_key();
            let variables = fill(&row.variables, &cast.things, &key);
            let reply = client.raw(&filled(&document, &cast.things, &key), &variables).await.json();
            let mut answer = reply["data"][row.field].clone();
            let errors = answer.as_object_mut().and_then(|answer| answer.remove("userErrors"));
            let mut absent = Vec::new();
            missing(&answer, row.field, &mut absent);
            let who = format!(
                "{} {} for {}",
                row.field,
                row.note,
                ["anonymous", "stranger", "party", "arbiter", "admin"][role]
            );
            match &row.expected[role] {
                Answer::Yes if absent.is_empty() && errors == Some(json!([])) => {
                    answered.insert(payload.clone());
                }
                Answer::Refused(code) => {
                    let errors = errors.unwrap_or_default();
                    let told = errors[0]["code"] == code.as_str() && errors[0]["message"].is_string();
                    let nothing = answer.as_object().is_some_and(|answer| answer.values().all(Value::is_null));
                    if !told || !nothing {
                        wrong.push(format!("{who}: {reply}"));
                    }
                }
                Answer::Error(_) if reply["data"].is_null() || answer.is_null() => {}
                Answer::Yes | Answer::Error(_) | Answer::Null | Answer::Empty => {
                    wrong.push(format!("{who}: {absent:?} {reply}"));
                }
            }
        }
    }
    // Of these no row has an answer: nobody has a refresh token here, and nobody tells the old password.
    let apart = ["ChangePasswordPayload", "RefreshSessionPayload"];
    for field in types.fields("Mutation") {
        if answered.contains(&field.of) == apart.contains(&field.of.as_str()) {
            wrong.push(format!("{} is never seen whole", field.of));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    cast.world.check().await;
}

/// What a field of a root type takes, as the schema shows it.
#[derive(Clone, Debug, PartialEq)]
struct Right {
    scopes: Vec<Vec<String>>,
    role: Option<String>,
}

/// The rights by root type and field.
fn rights() -> BTreeMap<(String, String), Right> {
    let document = parse_schema(graphql::sdl()).unwrap();
    let mut rights = BTreeMap::new();
    for definition in document.definitions {
        let TypeSystemDefinition::Type(of) = definition else { continue };
        let TypeKind::Object(object) = of.node.kind else { continue };
        for field in object.fields {
            for directive in &field.node.directives {
                let argument = |name: &str| {
                    let value = directive.node.get_argument(name).map(|value| value.node.clone());
                    value.map(|value| value.into_json().unwrap())
                };
                let right = Right {
                    scopes: serde_json::from_value(argument("scopes").unwrap()).unwrap(),
                    role: argument("role").map(|role| serde_json::from_value(role).unwrap()),
                };
                rights.insert((of.node.name.node.to_string(), field.node.name.node.to_string()), right);
            }
        }
    }
    rights
}

/// Whether an answer says that the credentials do not reach.
fn is_barred(answer: &Answer) -> bool {
    match answer {
        Answer::Error(code) => ["FORBIDDEN", "UNAUTHENTICATED", "NOT_FOUND"].contains(&code.as_str()),
        Answer::Refused(code) => code == "NOT_FOUND",
        Answer::Null => true,
        Answer::Yes | Answer::Empty => false,
    }
}

#[test]
fn the_schema_shows_what_is_needed_wherever_somebody_is_told_apart_from_nobody() {
    let (rows, rights) = (rows(), rights());
    let mut wrong = Vec::new();
    for row in rows.iter().filter(|row| ["Query", "Mutation", "Subscription"].contains(&row.on)) {
        let same: Vec<_> = rows.iter().filter(|other| (other.on, other.field) == (row.on, row.field)).collect();
        let open = same.iter().any(|row| row.expected[0] == Answer::Yes || row.expected[0] == row.expected[2]);
        let right = rights.get(&(row.on.to_owned(), row.field.to_owned()));
        if open == right.is_some() {
            wrong.push(format!("{}.{}: {right:?}", row.on, row.field));
        }
        if let Some(Right { role: Some(role), .. }) = right {
            let only = row.expected.iter().position(|answer| *answer == Answer::Yes);
            let expected = if role == "ADMIN" { 4 } else { 3 };
            if only != Some(expected) {
                wrong.push(format!("{}.{} is for {role}", row.on, row.field));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_reaches_as_far_as_the_schema_says_that_its_scopes_do() {
    let cast = Cast::gather_in(World::start().await).await;
    let (rows, rights) = (rows(), rights());
    let mut keys: BTreeMap<(usize, Vec<String>), Client> = BTreeMap::new();
    let all: Vec<String> = SCOPES.map(str::to_owned).to_vec();
    let mut lists: BTreeSet<Vec<String>> = rights.values().flat_map(|right| right.scopes.clone()).collect();
    lists.extend(SCOPES.map(|scope| vec![scope.to_owned()]));
    lists.insert(all.clone());
    // The payer, the owner, the arbiter and the administrator.
    for (who, client) in [&cast.payer, &cast.owner, &cast.arbiter, &cast.admin].into_iter().enumerate() {
        for list in &lists {
            let scopes: Vec<&str> = list.iter().map(String::as_str).collect();
            let key = cast.key(client, &scopes).await;
            keys.insert((who, list.clone()), client.with_token(&key));
        }
    }
    let mut wrong = Vec::new();
    for row in rows.iter().filter(|row| row.note.is_empty()) {
        let Some(right) = rights.get(&(row.on.to_owned(), row.field.to_owned())) else { continue };
        let party = usize::from(row.party == Party::Owner);
        for ((who, list), client) in &keys {
            let reaches = right.scopes.iter().any(|needed| needed.iter().all(|scope| list.contains(scope)));
            if reaches {
                continue;
            }
            let came = cast.ask(row, client, &cast.things).await;
            let told = came == Answer::Error("FORBIDDEN".to_owned()) || (row.on == "Query" && came == Answer::Null);
            if !is_barred(&came) || (*who == party && !told) {
                wrong.push(format!("{} with {list:?} of {who}: {came}", row.field));
            }
        }
        // Either of the two sides may be the one that the scopes are for.
        let mut done = right.scopes.is_empty();
        for list in &right.scopes {
            let mut came = Vec::new();
            for who in [party, 1 - party] {
                came.push(cast.ask(row, &keys[&(who, list.clone())], &cast.things).await);
            }
            if came.iter().all(is_barred) {
                wrong.push(format!("{} with {list:?}: {came:?}", row.field));
            }
            done |= came.contains(&row.expected[2]);
        }
        if !done {
            wrong.push(format!("{} is not done with any list of scopes", row.field));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    cast.world.check().await;
}
