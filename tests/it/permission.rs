//! Who may do and see what, as a table: one row a field, one column a role. A field without a row fails, and so does a row
//! without a field. `docs/permissions.md` is the same table for people.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use entity::{
    id::{
        AccountId, AgentId, ApiKeyId, AuctionId, BidId, ChannelId, CommitmentId, DelegationId, DisputeId, DocumentId,
        Id, SessionId, TaskId, TransferId, UserId,
    },
    user::Role,
};
use serde_json::{Value, json};
use uuid::Uuid;
use zerostate::voucher;

use crate::world::{Client, Frame, PASSWORD, Reply, World, commitment, fresh_key};

/// A command that answers `1`.
const ECHO: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 16) "1")
    (func (export "_start")
        (i32.store (i32.const 0) (i32.const 16))
        (i32.store (i32.const 4) (i32.const 1))
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;

/// What comes.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// A value, or a mutation that was done, or an event.
    Yes,
    /// Null without an error.
    Null,
    /// A list without anything in it, or a stream without events.
    Empty,
    /// An error of the request.
    Error(String),
    /// A refusal in the payload.
    Refused(String),
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Yes => f.write_str("yes"),
            Self::Null => f.write_str("null"),
            Self::Empty => f.write_str("nothing"),
            Self::Error(code) => write!(f, "`{code}`"),
            Self::Refused(code) => write!(f, "refused: `{code}`"),
        }
    }
}

/// Whose affair it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Party {
    Payer,
    Owner,
    /// Whoever asks, about themselves.
    Self_,
    /// Nobody's in particular.
    Nobody,
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Payer => "who pays",
            Self::Owner => "who owns the agent",
            Self::Self_ => "the caller",
            Self::Nobody => "–",
        })
    }
}

pub struct Row {
    pub on: &'static str,
    pub field: &'static str,
    /// What is special about this row, in words.
    pub note: &'static str,
    pub party: Party,
    pub document: String,
    pub variables: Value,
    /// Where the answer to judge is.
    pub at: String,
    /// Anonymous, stranger, party, arbiter, admin.
    pub expected: [Answer; 5],
    /// Whether a stranger must not learn that the subject is there.
    pub private: bool,
}

const ROLES: [&str; 5] = ["anonymous", "stranger", "party", "arbiter", "admin"];

fn yes() -> Answer {
    Answer::Yes
}

fn null() -> Answer {
    Answer::Null
}

fn error(code: &str) -> Answer {
    Answer::Error(code.to_owned())
}

fn refused(code: &str) -> Answer {
    Answer::Refused(code.to_owned())
}

/// Everybody gets the same.
fn everybody(answer: &Answer) -> [Answer; 5] {
    [(); 5].map(|()| answer.clone())
}

/// Everybody who is signed in.
fn signed_in() -> [Answer; 5] {
    [error("UNAUTHENTICATED"), yes(), yes(), yes(), yes()]
}

/// The parties and administrators; for the others it is not there.
fn parties() -> [Answer; 5] {
    [null(), null(), yes(), null(), yes()]
}

/// The party alone; for the others it is not there.
fn party_alone() -> [Answer; 5] {
    [null(), null(), yes(), null(), null()]
}

/// One's own things in a list; administrators see all.
fn own_list() -> [Answer; 5] {
    [error("UNAUTHENTICATED"), Answer::Empty, yes(), Answer::Empty, yes()]
}

/// The party does it; for everybody else, administrators too, the thing is not there.
fn party_does() -> [Answer; 5] {
    let no = || refused("NOT_FOUND");
    [error("UNAUTHENTICATED"), no(), yes(), no(), no()]
}

/// The party learns why not; for everybody else the thing is not there.
fn party_is_told(code: &str) -> [Answer; 5] {
    let no = || refused("NOT_FOUND");
    [error("UNAUTHENTICATED"), no(), refused(code), no(), no()]
}

/// A voucher of the stream for one credit.
fn a_claim(signature: &str) -> Value {
    json!({
        "channelId": "$stream", "voucher": { "nonce": "1", "cumulative": "1000000", "signature": signature },
        "idempotencyKey": "$key",
    })
}

fn admin_alone() -> [Answer; 5] {
    let no = || error("FORBIDDEN");
    [error("UNAUTHENTICATED"), no(), no(), no(), yes()]
}

/// The parties, arbiters and administrators; for the others it is not there.
fn disputants() -> [Answer; 5] {
    [null(), null(), yes(), yes(), yes()]
}

/// Whoever has the credits.
fn who_pays() -> [Answer; 5] {
    let no = || refused("INSUFFICIENT_FUNDS");
    [error("UNAUTHENTICATED"), no(), yes(), no(), no()]
}

fn query(field: &'static str, arguments: &str, selection: &str, party: Party, expected: [Answer; 5]) -> Row {
    Row {
        on: "Query",
        field,
        note: "",
        party,
        document: format!("{{ {field}{arguments} {selection} }}"),
        variables: json!({}),
        at: format!("/{field}"),
        expected,
        private: false,
    }
}

fn mutation(field: &'static str, input: &Value, party: Party, expected: [Answer; 5]) -> Row {
    let mut of = field.to_owned();
    of[..1].make_ascii_uppercase();
    Row {
        on: "Mutation",
        field,
        note: "",
        party,
        document: format!("mutation($input: {of}Input!) {{ {field}(input: $input) {{ userErrors {{ code }} }} }}"),
        variables: json!({ "input": input }),
        at: format!("/{field}"),
        expected,
        private: true,
    }
}

fn subscription(field: &'static str, arguments: &str, party: Party, expected: [Answer; 5]) -> Row {
    Row {
        on: "Subscription",
        field,
        note: "",
        party,
        document: format!("subscription($after: EventCursor) {{ {field}({arguments} after: $after) {{ id }} }}"),
        variables: json!({ "after": "$start" }),
        at: format!("/{field}"),
        expected,
        private: false,
    }
}

/// A field of an object, reached by a query; `at` says where in its answer it is.
fn object(on: &'static str, field: &'static str, document: &str, at: &str, party: Party, expected: [Answer; 5]) -> Row {
    Row {
        on,
        field,
        note: "",
        party,
        document: document.to_owned(),
        variables: json!({}),
        at: at.to_owned(),
        expected,
        private: false,
    }
}

impl Row {
    fn note(self, note: &'static str) -> Self {
        Self { note, ..self }
    }

    fn private(self) -> Self {
        Self { private: true, ..self }
    }

    /// The row as it stands in the documentation.
    fn line(&self) -> String {
        let note = if self.note.is_empty() { String::new() } else { format!(", {}", self.note) };
        let name = if ["Query", "Mutation", "Subscription"].contains(&self.on) {
            format!("`{}`", self.field)
        } else {
            format!("`{}.{}`", self.on, self.field)
        };
        let answers: Vec<String> = self.expected.iter().map(ToString::to_string).collect();
        format!("| {name}{note} | {} | {} |", answers.join(" | "), self.party)
    }
}

pub fn posted(more: &Value) -> Value {
    let mut input = json!({
        "title": "Some work", "capabilities": ["echo"], "input": "secret", "budget": "5", "idempotencyKey": "$key",
    });
    input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    input
}

/// The table. Words that begin with `$` are things of the cast.
pub fn rows() -> Vec<Row> {
    use Party::{Nobody, Owner, Payer, Self_};
    let a_bid = json!({ "auctionId": "$bidding", "agentId": "$bidder", "price": "3", "idempotencyKey": "$key" });
    let user = "{ user(id: \"$payer\") { id email status lastLoginAt wallet { available } apiKeys { nodes { id } } sessions { nodes { id } } } }";
    let agent = "{ agent(id: \"$agent\") { minPrice earnings } }";
    let through = "{ auction(id: \"$auction\") { task { title input result { output logs } channel { deposit } } } }";
    let receipt = "{ auction(id: \"$auction\") { task { receipt { body versions { nodes { body } } } } } }";
    let sealed = "{ auction(id: \"$sealed\") { bidCount reservePrice bestBid { id } bids { nodes { id price } } } }";
    vec![
        query("me", "", "{ id }", Self_, signed_in()),
        query("user", "(id: \"$payer\")", "{ id displayName }", Nobody, everybody(&yes())),
        query("users", "", "{ nodes { id } }", Nobody, admin_alone()),
        query("agent", "(id: \"$agent\")", "{ id }", Nobody, everybody(&yes())),
        query("agents", "", "{ nodes { id } }", Nobody, everybody(&yes())),
        query("task", "(id: \"$task\")", "{ id }", Payer, parties()).private(),
        query("task", "(id: \"$task\")", "{ id }", Owner, parties()).note("as its worker").private(),
        query("taskResult", "(taskId: \"$task\")", "{ output }", Payer, parties()).private(),
        query("tasks", "", "{ nodes { id } }", Payer, own_list()),
        query("tasks", "", "{ nodes { id } }", Owner, own_list()).note("of one's agents"),
        query("delegation", "(id: \"$delegation\")", "{ id }", Payer, parties()).private(),
        query("delegations", "", "{ nodes { id } }", Payer, own_list()),
        query("auction", "(id: \"$auction\")", "{ id }", Nobody, everybody(&yes())),
        query("auctions", "", "{ nodes { id } }", Nobody, everybody(&yes())),
        query(
            "simulateAuction",
            "(input: { budget: \"10\", bids: [{ price: \"1\", reputation: 50 }] })",
            "{ clearingPrice }",
            Nobody,
            everybody(&yes()),
        ),
        query("awardCertificate", "(auctionId: \"$auction\")", "{ body }", Nobody, everybody(&yes())),
        query("taskReceipt", "(taskId: \"$task\")", "{ body }", Payer, parties()).private(),
        query("taskReceipt", "(taskId: \"$task\")", "{ bundle }", Owner, parties()).note("as its worker").private(),
        query("channel", "(id: \"$channel\")", "{ id }", Payer, parties()).private(),
        query("channels", "", "{ nodes { id } }", Owner, own_list()),
        query("task", "(id: \"$disputed\")", "{ input result { output } }", Payer, disputants())
            .note("while it is disputed")
            .private(),
        query("dispute", "(id: \"$dispute\")", "{ reason }", Payer, disputants()).private(),
        query(
            "disputes",
            "",
            "{ nodes { id } }",
            Owner,
            [error("UNAUTHENTICATED"), Answer::Empty, yes(), yes(), yes()],
        ),
        query("transfers", "", "{ nodes { id } }", Payer, own_list()),
        query("reputation", "(agentId: \"$agent\")", "{ score }", Nobody, everybody(&yes())),
        query("reputationEvents", "(agentId: \"$agent\")", "{ nodes { id } }", Nobody, everybody(&yes())),
        query("leaderboard", "", "{ rank }", Nobody, everybody(&yes())),
        query("events", "", "{ nodes { id } }", Nobody, everybody(&yes())),
        query("events", "(filter: { taskId: \"$task\" })", "{ nodes { id } }", Payer, parties())
            .note("of a task")
            .private(),
        query("node", "(id: \"$task\")", "{ id }", Payer, parties()).note("of a task").private(),
        query(
            "nodes",
            "(ids: [\"$task\", \"$channel\"])",
            "{ id }",
            Payer,
            [Answer::Empty, Answer::Empty, yes(), Answer::Empty, yes()],
        )
        .note("of a task and its channel")
        .private(),
        query("node", "(id: \"$agent\")", "{ id }", Nobody, everybody(&yes())).note("of an agent"),
        query("nodes", "(ids: [\"$agent\", \"$auction\"])", "{ id }", Nobody, everybody(&yes()))
            .note("of an agent and an auction"),
        query("serviceInfo", "", "{ version }", Nobody, everybody(&yes())),
        query(
            "workOffers",
            "(agentId: \"$bidder\")",
            "{ taskId }",
            Owner,
            [error("UNAUTHENTICATED"), null(), yes(), null(), null()],
        )
        .private(),
        query("economicHealth", "", "{ creditsInWallets }", Nobody, everybody(&yes())),
        query("rateLimit", "", "{ limit }", Nobody, everybody(&Answer::Null)),
        query("marketStats", "", "{ users }", Nobody, everybody(&yes())),
        query("ledgerAudit", "", "{ ok }", Nobody, admin_alone()),
        query("journalHead", "", "{ place }", Nobody, everybody(&yes())),
        mutation(
            "registerUser",
            &json!({ "email": "$key@example.com", "displayName": "Somebody", "password": PASSWORD }),
            Self_,
            everybody(&yes()),
        ),
        mutation("login", &json!({ "email": "payer@example.com", "password": PASSWORD }), Self_, everybody(&yes())),
        mutation("refreshSession", &json!({ "refreshToken": "nonsense" }), Self_, everybody(&error("UNAUTHENTICATED")))
            .note("with a token that is none"),
        Row {
            document: "mutation { logout { userErrors { code } } }".to_owned(),
            variables: json!({}),
            ..mutation("logout", &json!({}), Self_, signed_in())
        },
        mutation("updateProfile", &json!({ "displayName": "Another name" }), Self_, signed_in()),
        mutation(
            "changePassword",
            &json!({ "oldPassword": "not the password", "newPassword": "another good password" }),
            Self_,
            [error("UNAUTHENTICATED"), refused("WRONG_PASSWORD"), refused("WRONG_PASSWORD"), refused("WRONG_PASSWORD"), refused("WRONG_PASSWORD")],
        )
        .note("without the old one"),
        mutation("createApiKey", &json!({ "name": "k", "scopes": ["READ"], "idempotencyKey": "$key" }), Self_, signed_in()),
        mutation("revokeApiKey", &json!({ "apiKeyId": "$apiKey" }), Payer, party_does()),
        mutation(
            "registerAgent",
            &json!({ "name": "$key", "capabilities": ["echo"], "runtime": "EXTERNAL", "price": "1", "idempotencyKey": "$key" }),
            Self_,
            signed_in(),
        ),
        mutation("updateAgent", &json!({ "agentId": "$spare", "description": "New" }), Owner, party_does()),
        mutation(
            "setWebhook",
            &json!({ "agentId": "$spare", "url": "https://example.org/hook", "idempotencyKey": "$key" }),
            Owner,
            party_does(),
        ),
        mutation("pauseAgent", &json!({ "agentId": "$spare" }), Owner, party_does()),
        mutation("resumeAgent", &json!({ "agentId": "$spare" }), Owner, party_does()),
        mutation("retireAgent", &json!({ "agentId": "$spare" }), Owner, party_does()),
        mutation("executeTask", &posted(&json!({})), Payer, who_pays()),
        mutation("createAuction", &posted(&json!({ "closesIn": "PT60S" })), Payer, who_pays()),
        mutation("cancelTask", &json!({ "taskId": "$cancellable", "idempotencyKey": "$key" }), Payer, party_does()),
        mutation(
            "delegateTask",
            &json!({ "goal": "Echo", "capabilities": ["echo"], "budget": "1", "idempotencyKey": "$key" }),
            Payer,
            who_pays(),
        ),
        mutation(
            "cancelDelegation",
            &json!({ "delegationId": "$stoppable", "idempotencyKey": "$key" }),
            Payer,
            party_does(),
        ),
        mutation("submitBid", &a_bid, Owner, party_does()),
        mutation("withdrawBid", &json!({ "bidId": "$withdrawable", "idempotencyKey": "$key" }), Owner, party_does()),
        mutation(
            "commitBid",
            &json!({ "auctionId": "$committing", "agentId": "$bidder", "commitment": "aa".repeat(32), "idempotencyKey": "$key" }),
            Owner,
            party_does(),
        ),
        mutation("withdrawCommitment", &json!({ "commitmentId": "$takable", "idempotencyKey": "$key" }), Owner, party_does()),
        mutation(
            "revealBid",
            &json!({ "auctionId": "$revealing", "agentId": "$bidder", "price": "3", "salt": "07".repeat(32), "idempotencyKey": "$key" }),
            Owner,
            party_does(),
        ),
        mutation("awardAuction", &json!({ "auctionId": "$awardable", "idempotencyKey": "$key" }), Payer, party_does()),
        mutation("cancelAuction", &json!({ "auctionId": "$callable", "idempotencyKey": "$key" }), Payer, party_does()),
        Row {
            // Agents are there for everybody.
            private: false,
            ..mutation(
                "openChannel",
                &json!({
                    "agentId": "$agent", "deposit": "5", "settleDelay": "PT1H", "expiresAt": "2026-12-02T00:00:00Z",
                    "idempotencyKey": "$key",
                }),
                Payer,
                who_pays(),
            )
        },
        mutation("topUpChannel", &json!({ "channelId": "$stream", "amount": "1", "idempotencyKey": "$key" }), Payer, party_does()),
        mutation("deductFromChannel", &json!({ "channelId": "$unkeyed", "amount": "1", "idempotencyKey": "$key" }), Payer, party_does()),
        mutation("claimVoucher", &a_claim("$voucherSignature"), Owner, signed_in()),
        mutation("claimVoucher", &a_claim("$wrongSignature"), Owner, party_is_told("SIGNATURE_INVALID"))
            .note("that the payer did not sign"),
        mutation("requestChannelClose", &json!({ "channelId": "$stream", "idempotencyKey": "$key" }), Payer, party_does()),
        mutation("cancelChannelClose", &json!({ "channelId": "$stream", "idempotencyKey": "$key" }), Payer, party_does()),
        mutation("settleChannel", &json!({ "channelId": "$stream", "idempotencyKey": "$key" }), Owner, party_does()),
        mutation(
            "issueCredits",
            &json!({ "userId": "$payer", "amount": "1", "reference": "$key", "idempotencyKey": "$key" }),
            Nobody,
            admin_alone(),
        ),
        mutation(
            "redeemCredits",
            &json!({ "userId": "$payer", "amount": "1", "reference": "$key", "idempotencyKey": "$key" }),
            Nobody,
            admin_alone(),
        ),
        mutation(
            "withdrawEarnings",
            &json!({ "agentId": "$agent", "amount": "0.000001", "idempotencyKey": "$key" }),
            Owner,
            party_does(),
        ),
        mutation("rateAgent", &json!({ "taskId": "$task", "stars": 4, "idempotencyKey": "$key" }), Payer, party_does()),
        mutation("acceptResult", &json!({ "taskId": "$acceptable", "idempotencyKey": "$key" }), Payer, party_does()),
        mutation(
            "rejectResult",
            &json!({ "taskId": "$rejectable", "reason": "No.", "idempotencyKey": "$key" }),
            Payer,
            party_does(),
        ),
        mutation(
            "openDispute",
            &json!({ "taskId": "$disputable", "reason": "No.", "idempotencyKey": "$key" }),
            Owner,
            party_does(),
        ),
        mutation(
            "submitEvidence",
            &json!({ "disputeId": "$dispute", "kind": "STATEMENT", "body": "$key", "idempotencyKey": "$key" }),
            Owner,
            party_does(),
        ),
        mutation(
            "resolveDispute",
            &json!({ "disputeId": "$rulable", "award": "1", "opinion": "So.", "idempotencyKey": "$key" }),
            Payer,
            [error("UNAUTHENTICATED"), error("FORBIDDEN"), error("FORBIDDEN"), yes(), error("FORBIDDEN")],
        ),
        mutation("claimTask", &json!({ "taskId": "$claimable", "idempotencyKey": "$key" }), Owner, party_does()),
        mutation("heartbeat", &json!({ "taskId": "$beating", "token": "1" }), Owner, party_does()),
        mutation(
            "submitResult",
            &json!({ "taskId": "$submittable", "token": "1", "output": 1, "idempotencyKey": "$key" }),
            Owner,
            party_does(),
        ),
        mutation(
            "failTask",
            &json!({ "taskId": "$failable", "token": "1", "code": "X", "message": "No.", "idempotencyKey": "$key" }),
            Owner,
            party_does(),
        ),
        subscription("auctionEvents", "auctionId: \"$auction\"", Nobody, everybody(&yes())),
        subscription("marketEvents", "", Nobody, everybody(&yes())),
        subscription(
            "taskEvents",
            "taskId: \"$task\"",
            Payer,
            [error("UNAUTHENTICATED"), error("NOT_FOUND"), yes(), error("NOT_FOUND"), yes()],
        )
        .private(),
        subscription(
            "delegationEvents",
            "delegationId: \"$delegation\"",
            Payer,
            [error("UNAUTHENTICATED"), error("NOT_FOUND"), yes(), error("NOT_FOUND"), yes()],
        )
        .private(),
        subscription(
            "settlementEvents",
            "",
            Payer,
            [error("UNAUTHENTICATED"), Answer::Empty, yes(), Answer::Empty, Answer::Empty],
        ),
        subscription(
            "workOffered",
            "agentId: \"$bidder\"",
            Owner,
            [error("UNAUTHENTICATED"), error("NOT_FOUND"), yes(), error("NOT_FOUND"), error("NOT_FOUND")],
        )
        .private(),
        subscription("reputationEvents", "agentId: \"$agent\"", Nobody, everybody(&yes())),
        object("User", "email", user, "/user/email", Payer, parties()),
        object("User", "status", user, "/user/status", Payer, parties()),
        object("User", "lastLoginAt", user, "/user/lastLoginAt", Payer, parties()),
        object("User", "wallet", user, "/user/wallet", Payer, parties()),
        object("User", "apiKeys", user, "/user/apiKeys", Payer, parties()),
        object("User", "sessions", user, "/user/sessions", Payer, parties()),
        object("Agent", "minPrice", agent, "/agent/minPrice", Owner, parties()),
        object("Agent", "earnings", agent, "/agent/earnings", Owner, parties()),
        object("Auction", "task", through, "/auction/task", Payer, parties()),
        object("Task", "input", through, "/auction/task/input", Payer, parties()),
        object("Task", "result", through, "/auction/task/result", Payer, parties()),
        object("TaskResult", "output", through, "/auction/task/result/output", Owner, parties()),
        object("Task", "channel", through, "/auction/task/channel", Owner, parties()),
        object("Task", "delegation", "{ task(id: \"$bought\") { delegation { id } } }", "/task/delegation", Payer, parties()),
        object("Task", "delegation", "{ task(id: \"$bought\") { delegation { id } } }", "/task/delegation", Owner, [null(), null(), null(), null(), yes()])
            .note("for the worker"),
        object("Auction", "reservePrice", sealed, "/auction/reservePrice", Payer, party_alone()).note("while it is open"),
        object("Auction", "bestBid", sealed, "/auction/bestBid", Owner, everybody(&null())).note("while it is sealed"),
        object(
            "Auction",
            "bids",
            sealed,
            "/auction/bids",
            Owner,
            [Answer::Empty, Answer::Empty, yes(), Answer::Empty, Answer::Empty],
        )
        .note("while it is sealed"),
        object("Auction", "bids", sealed, "/auction/bids", Payer, everybody(&Answer::Empty))
            .note("while it is sealed, for who buys"),
        object("Bid", "price", "{ node(id: \"$sealedBid\") { ... on Bid { price } } }", "/node", Owner, party_alone())
            .note("while it is sealed"),
        object(
            "BidEvent",
            "price",
            "{ events(filter: { auctionId: \"$sealed\", kinds: [BID_SUBMITTED] }) { nodes { ... on BidEvent { price } } } }",
            "/events/nodes/0/price",
            Owner,
            everybody(&null()),
        )
        .note("of a sealed auction"),
        object(
            "Auction",
            "commitments",
            "{ auction(id: \"$veiled\") { commitments { nodes { id } } } }",
            "/auction/commitments",
            Owner,
            [Answer::Empty, Answer::Empty, yes(), Answer::Empty, Answer::Empty],
        )
        .note("while it takes them"),
        object(
            "Commitment",
            "salt",
            "{ auction(id: \"$revealed\") { commitments { nodes { salt bid { price } } } } }",
            "/auction/commitments/nodes/0/salt",
            Owner,
            party_alone(),
        )
        .note("before the decision"),
        object(
            "Bond",
            "status",
            "{ auction(id: \"$revealed\") { commitments { nodes { bond { status } } } } }",
            "/auction/commitments/nodes/0/bond/status",
            Nobody,
            everybody(&yes()),
        ),
        object("Task", "receipt", receipt, "/auction/task/receipt", Owner, parties()),
        object("SignedDocument", "body", "{ node(id: \"$receipt\") { ... on SignedDocument { body } } }", "/node", Payer, parties())
            .note("of a receipt"),
        object("Channel", "deposit", "{ node(id: \"$channel\") { ... on Channel { deposit } } }", "/node", Owner, parties()),
        object("Channel", "changes", "{ node(id: \"$stream\") { ... on Channel { changes { nodes { kind } } } } }", "/node/changes", Owner, parties()),
        object("ChannelChange", "channel", "{ node(id: \"$stream\") { ... on Channel { changes { nodes { channel { id } } } } } }", "/node/changes/nodes/0/channel", Payer, parties()),
        object("Transfer", "amount", "{ node(id: \"$transfer\") { ... on Transfer { amount } } }", "/node", Payer, parties()),
        object("Account", "balance", "{ node(id: \"$account\") { ... on Account { balance } } }", "/node/balance", Payer, parties()),
        object(
            "Account",
            "statement",
            "{ node(id: \"$account\") { ... on Account { statement { opening lines { nodes { amount } } } } } }",
            "/node/statement",
            Payer,
            parties(),
        ),
        object("ApiKey", "name", "{ node(id: \"$apiKey\") { ... on ApiKey { name } } }", "/node", Payer, parties()),
        object("Session", "createdAt", "{ node(id: \"$session\") { ... on Session { createdAt } } }", "/node", Payer, parties()),
        object(
            "ReputationEvent",
            "task",
            "{ reputationEvents(agentId: \"$agent\", last: 1) { nodes { task { id } } } }",
            "/reputationEvents/nodes/0/task",
            Owner,
            parties(),
        ),
        object("Task", "dispute", "{ task(id: \"$disputed\") { dispute { id } } }", "/task/dispute", Owner, disputants()),
        object("Evidence", "body", "{ node(id: \"$evidence\") { ... on Evidence { body } } }", "/node", Owner, disputants()),
    ]
}

/// The people and things of the story.
pub struct Cast {
    pub world: World,
    pub payer: Client,
    pub owner: Client,
    pub stranger: Client,
    pub arbiter: Client,
    pub admin: Client,
    pub things: BTreeMap<&'static str, String>,
    unknown: BTreeMap<&'static str, String>,
}

impl Cast {
    async fn gather() -> Self {
        Self::gather_in(World::start().await).await
    }

    /// The cast in a world that may be configured in another way.
    pub async fn gather_in(world: World) -> Self {
        let (payer, owner, stranger) =
            (world.user("payer").await, world.user("owner").await, world.user("stranger").await);
        let (arbiter, admin) = (world.of_role("arbiter", Role::Arbiter).await, world.admin().await);
        let start = world.cursor().await;
        world.credit(&payer, "100").await;
        let agent = world.hosted_agent(&owner, "echo", "echo", "2", wat::parse_str(ECHO).unwrap()).await;
        let mut cast = Self {
            payer: world.login("payer").await,
            world,
            owner,
            stranger,
            arbiter,
            admin,
            things: BTreeMap::new(),
            unknown: BTreeMap::new(),
        };
        cast.know("agent", agent.to_string());
        cast.know("payer", payer.id().to_owned());
        let made = cast
            .make("executeTask", "ExecuteTask", "task { id auction { id } channel { id } }", posted(&json!({})))
            .await;
        cast.know("task", made["task"]["id"].as_str().unwrap().to_owned());
        cast.know("auction", made["task"]["auction"]["id"].as_str().unwrap().to_owned());
        cast.know("channel", made["task"]["channel"]["id"].as_str().unwrap().to_owned());
        let order = |capability: &str| {
            json!({ "goal": "Some work", "capabilities": [capability], "input": "secret", "budget": "2",
            "idempotencyKey": "$key" })
        };
        let made = cast.make("delegateTask", "DelegateTask", "delegation { id }", order("echo")).await;
        let delegation = made["delegation"]["id"].as_str().unwrap().to_owned();
        cast.world.settle().await;
        let steps = format!("{{ delegation(id: \"{delegation}\") {{ steps {{ task {{ id }} }} }} }}");
        let steps = cast.payer.query(&steps, json!({})).await;
        cast.know("bought", steps["delegation"]["steps"][0]["task"]["id"].as_str().unwrap().to_owned());
        cast.know("delegation", delegation);
        cast.world.app.seal(false).await.unwrap();
        let receipt = format!("{{ taskReceipt(taskId: \"{}\") {{ id }} }}", cast.things["task"]);
        let receipt = cast.payer.query(&receipt, json!({})).await;
        cast.know("receipt", receipt["taskReceipt"]["id"].as_str().unwrap().to_owned());
        for name in ["bidder", "spare"] {
            let id = cast.world.agent(&cast.owner, name, "EXTERNAL", "solo", "1").await;
            cast.know(name, id.to_string());
        }
        for (auction, task, terms) in [
            ("sealed", "", json!({ "reservePrice": "4" })),
            ("bidding", "", json!({})),
            ("withdrawing", "", json!({})),
            ("awardable", "", json!({ "awardMode": "MANUAL" })),
            ("callable", "", json!({})),
            ("cancelling", "cancellable", json!({})),
        ] {
            let mut input = posted(&json!({ "capabilities": ["solo"], "closesIn": "PT1H" }));
            input.as_object_mut().unwrap().extend(terms.as_object().unwrap().clone());
            let made = cast.make("createAuction", "CreateAuction", "auction { id task { id } }", input).await;
            cast.know(auction, made["auction"]["id"].as_str().unwrap().to_owned());
            if !task.is_empty() {
                cast.know(task, made["auction"]["task"]["id"].as_str().unwrap().to_owned());
            }
        }
        for (auction, name) in [("sealed", "sealedBid"), ("withdrawing", "withdrawable"), ("awardable", "awarded")] {
            let document =
                "mutation($input: SubmitBidInput!) { submitBid(input: $input) { bid { id } userErrors { code } } }";
            let input = json!({
                "auctionId": cast.things[auction], "agentId": cast.things["bidder"], "price": "3", "idempotencyKey": fresh_key(),
            });
            let made = cast.owner.done("submitBid", document, json!({ "input": input })).await;
            cast.know(name, made["bid"]["id"].as_str().unwrap().to_owned());
        }
        let mut slow = order("solo");
        slow["closesIn"] = json!("PT2H");
        slow["deadline"] = json!("P1D");
        let made = cast.make("delegateTask", "DelegateTask", "delegation { id }", slow).await;
        cast.know("stoppable", made["delegation"]["id"].as_str().unwrap().to_owned());
        Box::pin(cast.commit()).await;
        let info = cast.payer.query("{ serviceInfo { instanceId } }", json!({})).await;
        let instance_id = voucher::read_hex(info["serviceInfo"]["instanceId"].as_str().unwrap()).unwrap();
        for (name, signer) in [("stream", Some(hex::encode(voucher::public_key(&[1; 32])))), ("unkeyed", None)] {
            let input = json!({
                "agentId": "$agent", "deposit": "5", "signerKey": signer, "settleDelay": "PT1H",
                "expiresAt": "2026-12-02T00:00:00Z", "idempotencyKey": "$key",
            });
            let made = cast.make("openChannel", "OpenChannel", "channel { id hash }", input).await;
            cast.know(name, made["channel"]["id"].as_str().unwrap().to_owned());
            if signer.is_some() {
                let channel_id = voucher::read_hex(made["channel"]["hash"].as_str().unwrap()).unwrap();
                let promise = voucher::Voucher {
                    instance_id,
                    channel_id,
                    nonce: 1,
                    cumulative: 1_000_000,
                    valid_until: 0,
                    context_hash: [0; 32],
                };
                cast.know("voucherSignature", hex::encode(promise.sign(&[1; 32])));
                cast.know("wrongSignature", hex::encode(promise.sign(&[2; 32])));
            }
        }
        let key = json!({ "name": "reader", "scopes": ["READ"], "idempotencyKey": "$key" });
        let made = cast.make("createApiKey", "CreateApiKey", "apiKey { id } secret", key).await;
        cast.know("apiKey", made["apiKey"]["id"].as_str().unwrap().to_owned());
        let own = cast
            .payer
            .query(
                "{ me { sessions(first: 1) { nodes { id } } } transfers(last: 1) { nodes { id credit { id } } } }",
                json!({}),
            )
            .await;
        cast.know("session", own["me"]["sessions"]["nodes"][0]["id"].as_str().unwrap().to_owned());
        cast.know("transfer", own["transfers"]["nodes"][0]["id"].as_str().unwrap().to_owned());
        cast.know("account", own["transfers"]["nodes"][0]["credit"]["id"].as_str().unwrap().to_owned());
        cast.know("start", start);
        Box::pin(cast.quarrel()).await;
        Box::pin(cast.work()).await;
        cast
    }

    /// Work that an agent elsewhere won: one piece to claim, and three that it has claimed.
    async fn work(&mut self) {
        for name in ["claimable", "beating", "submittable", "failable"] {
            let input = posted(
                &json!({ "capabilities": ["solo"], "budget": "1", "closesIn": "PT1H", "closeAfterBids": 1, "timeout": "PT1M" }),
            );
            let made = self.make("createAuction", "CreateAuction", "auction { id task { id } }", input).await;
            let auction = made["auction"]["id"].as_str().unwrap().to_owned();
            let task = made["auction"]["task"]["id"].as_str().unwrap().to_owned();
            let bid = json!({
                "auctionId": auction, "agentId": self.things["bidder"], "price": "1", "idempotencyKey": fresh_key(),
            });
            self.owner.call("submitBid", "bid { id }", bid).await;
            if name != "claimable" {
                self.owner.call("claimTask", "claim { token }", json!({ "taskId": task })).await;
            }
            self.know(name, task);
        }
    }

    /// Results that wait for their payer, and disputes with something shown by both parties.
    async fn quarrel(&mut self) {
        let names =
            [("acceptable", ""), ("rejectable", ""), ("disputable", ""), ("disputed", "dispute"), ("ruled", "rulable")];
        for (task, dispute) in names {
            let input = posted(&json!({ "acceptance": "REVIEW" }));
            let made = self.make("executeTask", "ExecuteTask", "task { id }", input).await;
            self.know(task, made["task"]["id"].as_str().unwrap().to_owned());
            self.world.settle().await;
            if dispute.is_empty() {
                continue;
            }
            let input = json!({ "taskId": format!("${task}"), "reason": "No.", "idempotencyKey": "$key" });
            let made = self.make("rejectResult", "RejectResult", "task { dispute { id } }", input).await;
            self.know(dispute, made["task"]["dispute"]["id"].as_str().unwrap().to_owned());
            for party in [&self.payer, &self.owner] {
                let input = json!({
                    "disputeId": self.things[dispute], "kind": "STATEMENT", "body": "See.", "idempotencyKey": fresh_key(),
                });
                let document = "mutation($input: SubmitEvidenceInput!) {
                    submitEvidence(input: $input) { evidence { id } userErrors { code } } }";
                let made = party.done("submitEvidence", document, json!({ "input": input })).await;
                let id = made["evidence"]["id"].as_str().unwrap().to_owned();
                self.unknown.insert("evidence", id.clone());
                self.things.insert("evidence", id);
            }
        }
    }

    /// Auctions by commitment: one to commit in, one to withdraw from, one that hides, one to reveal in, one where a bid is revealed
    /// and another one missing.
    async fn commit(&mut self) {
        self.world.credit(&self.owner, "10").await;
        let second = self.world.agent(&self.owner, "second", "EXTERNAL", "solo", "1").await.to_string();
        let (bidder, price) = (self.things["bidder"].clone(), "3");
        let salt = [7; 32];
        let commit = async |cast: &Self, auction: &str, agent: &str| {
            let document = "mutation($input: CommitBidInput!) {
                commitBid(input: $input) { commitment { id } userErrors { code } }
            }";
            let hash = commitment(&cast.world, auction, agent, price, salt);
            let input = json!({
                "auctionId": auction, "agentId": agent, "commitment": hash, "idempotencyKey": fresh_key(),
            });
            let made = cast.owner.done("commitBid", document, json!({ "input": input })).await;
            made["commitment"]["id"].as_str().unwrap().to_owned()
        };
        for name in ["committing", "taking", "veiled", "revealing", "revealed"] {
            let closes_in = if name.starts_with("reveal") { "PT1S" } else { "PT1H" };
            let input = posted(&json!({ "capabilities": ["solo"], "budget": "4", "closesIn": closes_in,
                "visibility": "COMMIT_REVEAL", "revealWindow": "PT1H", "bidBond": "0.5", "reservePrice": "4" }));
            let made = self.make("createAuction", "CreateAuction", "auction { id }", input).await;
            let auction = made["auction"]["id"].as_str().unwrap().to_owned();
            if name != "committing" {
                let id = commit(self, &auction, &bidder).await;
                self.know(if name == "taking" { "takable" } else { "committed" }, id);
            }
            if name == "revealed" {
                commit(self, &auction, &second).await;
            }
            self.know(name, auction);
        }
        self.world.pass(Duration::from_secs(1)).await;
        let document =
            "mutation($input: RevealBidInput!) { revealBid(input: $input) { bid { id } userErrors { code } } }";
        let input = json!({ "auctionId": self.things["revealed"], "agentId": bidder, "price": price,
            "salt": hex::encode(salt), "idempotencyKey": fresh_key() });
        self.owner.done("revealBid", document, json!({ "input": input })).await;
    }

    pub fn know(&mut self, name: &'static str, id: String) {
        let nobody = Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001);
        let unknown = match id.split('_').next().unwrap() {
            "user" => UserId::from_uuid(nobody).to_string(),
            "agent" => AgentId::from_uuid(nobody).to_string(),
            "task" => TaskId::from_uuid(nobody).to_string(),
            "auc" => AuctionId::from_uuid(nobody).to_string(),
            "bid" => BidId::from_uuid(nobody).to_string(),
            "com" => CommitmentId::from_uuid(nobody).to_string(),
            "chan" => ChannelId::from_uuid(nobody).to_string(),
            "key" => ApiKeyId::from_uuid(nobody).to_string(),
            "sess" => SessionId::from_uuid(nobody).to_string(),
            "tr" => TransferId::from_uuid(nobody).to_string(),
            "acct" => AccountId::from_uuid(nobody).to_string(),
            "dlg" => DelegationId::from_uuid(nobody).to_string(),
            "disp" => DisputeId::from_uuid(nobody).to_string(),
            "doc" => DocumentId::from_uuid(nobody).to_string(),
            // A cursor.
            _ => id.clone(),
        };
        self.unknown.insert(name, unknown);
        self.things.insert(name, id);
    }

    /// Does a mutation of the payer's.
    pub async fn make(&self, field: &str, name: &str, selection: &str, input: Value) -> Value {
        let document = format!(
            "mutation($input: {name}Input!) {{ {field}(input: $input) {{ {selection} userErrors {{ code }} }} }}"
        );
        let input = json!({ "input": fill(&input, &self.things, &fresh_key()) });
        self.payer.done(field, &document, input).await
    }

    pub fn person(&self, role: usize, party: Party) -> Client {
        match role {
            0 => self.world.anonymous(),
            1 => self.stranger.clone(),
            2 if party == Party::Owner => self.owner.clone(),
            2 => self.payer.clone(),
            3 => self.arbiter.clone(),
            _ => self.admin.clone(),
        }
    }

    pub async fn ask(&self, row: &Row, client: &Client, things: &BTreeMap<&'static str, String>) -> Answer {
        let key = fresh_key();
        let document = filled(&row.document, things, &key);
        let variables = fill(&row.variables, things, &key);
        if row.on == "Subscription" {
            let mut socket = self.world.socket().await;
            socket.init(client.token()).await;
            socket.subscribe("1", &document, variables).await;
            return match socket.receive_within(Duration::from_millis(400)).await {
                None => Answer::Empty,
                Some(Frame::Message(message)) if message["type"] == "next" => {
                    assert!(message["payload"]["errors"].is_null(), "{message:#}");
                    Answer::Yes
                }
                Some(Frame::Message(message)) if message["type"] == "error" => {
                    error(message["payload"][0]["extensions"]["code"].as_str().unwrap())
                }
                Some(other) => panic!("{}: {other:?}", row.field),
            };
        }
        let reply = client.raw(&document, &variables).await;
        judge(row, &reply)
    }
}

fn judge(row: &Row, reply: &Reply) -> Answer {
    let answer = reply.json();
    if !answer["errors"].is_null() {
        return error(&reply.code());
    }
    let found = answer["data"].pointer(&row.at).unwrap_or(&Value::Null);
    if row.on == "Mutation" {
        return match found["userErrors"][0]["code"].as_str() {
            Some(code) => refused(code),
            None => Answer::Yes,
        };
    }
    let list = found.as_array().or_else(|| found["nodes"].as_array());
    match list {
        Some(list) if list.iter().all(Value::is_null) => Answer::Empty,
        None if found.is_null() => Answer::Null,
        Some(_) | None => Answer::Yes,
    }
}

/// The text with the things in the place of their names.
pub fn filled(text: &str, things: &BTreeMap<&'static str, String>, key: &str) -> String {
    let mut text = text.replace("\"$key\"", &format!("\"{key}\""));
    // Longer names first: `$sealedBid` is not `$sealed`.
    for (name, id) in things.iter().rev() {
        text = text.replace(&format!("\"${name}\""), &format!("\"{id}\""));
    }
    text
}

pub fn fill(value: &Value, things: &BTreeMap<&'static str, String>, key: &str) -> Value {
    let text = value.to_string().replace("$key", key);
    serde_json::from_str(&filled(&text, things, key)).unwrap()
}

/// The fields of every type of the live schema.
async fn fields(world: &World) -> BTreeMap<String, BTreeSet<String>> {
    let document = "{ __schema { types { name fields { name } } } }";
    let schema = world.anonymous().query(document, json!({})).await;
    let types = schema["__schema"]["types"].as_array().unwrap();
    let name = |of: &Value| of["name"].as_str().unwrap().to_owned();
    types.iter().map(|of| (name(of), of["fields"].as_array().into_iter().flatten().map(name).collect())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_may_do_what_the_table_says_and_nothing_else() {
    let cast = Cast::gather().await;
    let rows = rows();
    let fields = fields(&cast.world).await;
    let mut wrong = Vec::new();

    for root in ["Query", "Mutation", "Subscription"] {
        for field in &fields[root] {
            if !rows.iter().any(|row| row.on == root && row.field == field) {
                wrong.push(format!("{root}.{field} has no row"));
            }
        }
    }
    for row in &rows {
        if !fields.get(row.on).is_some_and(|of| of.contains(row.field)) {
            wrong.push(format!("{}.{} has a row and is no field", row.on, row.field));
        }
    }

    for row in &rows {
        // The party last, because it may change what the others ask about.
        for role in [0, 1, 3, 4, 2] {
            let mut client = cast.person(role, row.party);
            if row.field == "logout" && role > 0 {
                // Another session, because this one is over afterwards.
                client = cast.world.login(["", "stranger", "payer", "arbiter", "admin"][role]).await;
            }
            let expected = &row.expected[role];
            let came = cast.ask(row, &client, &cast.things).await;
            if came != *expected {
                wrong
                    .push(format!("{}.{} {} for {}: {came}, not {expected}", row.on, row.field, row.note, ROLES[role]));
            }
            // What is not yours looks like what is not there.
            if row.private && role != 2 && expected != &Answer::Yes {
                let nothing = cast.ask(row, &client, &cast.unknown).await;
                if nothing != came {
                    let what = format!("{}.{} {}", row.on, row.field, row.note);
                    wrong.push(format!("{what} for {}: {came}, but {nothing} where there is none", ROLES[role]));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    cast.world.check().await;
}

#[tokio::test]
async fn a_key_that_may_read_can_do_nothing() {
    let cast = Cast::gather().await;
    let input = json!({ "name": "reader", "scopes": ["READ"], "idempotencyKey": "$key" });
    let mut wrong = Vec::new();
    let mut keys = Vec::new();
    for client in [&cast.payer, &cast.owner, &cast.admin] {
        let document =
            "mutation($input: CreateApiKeyInput!) { createApiKey(input: $input) { secret userErrors { code } } }";
        let input = fill(&input, &cast.things, &fresh_key());
        let made = client.done("createApiKey", document, json!({ "input": input })).await;
        keys.push(client.with_token(made["secret"].as_str().unwrap()));
    }
    for row in rows() {
        let open = ["registerUser", "login", "refreshSession"].contains(&row.field);
        if row.on == "Mutation" && !open {
            for key in &keys {
                let came = cast.ask(&row, key, &cast.things).await;
                // Somebody else's thing is not there, whatever the key may do.
                if came != error("FORBIDDEN") && came != refused("NOT_FOUND") {
                    wrong.push(format!("{}: {came}", row.field));
                }
            }
            let own = if row.party == Party::Owner { &keys[1] } else { &keys[0] };
            let came = cast.ask(&row, own, &cast.things).await;
            if came != error("FORBIDDEN") {
                wrong.push(format!("{} with the party's key: {came}", row.field));
            }
        }
        // It reads what its user reads; an administrator's key is a user's key.
        let private = ["users", "ledgerAudit"].contains(&row.field);
        if row.on == "Query" && row.party == Party::Payer || private {
            let expected = if private { error("FORBIDDEN") } else { Answer::Yes };
            let came = cast.ask(&row, if private { &keys[2] } else { &keys[0] }, &cast.things).await;
            if came != expected {
                wrong.push(format!("{} {} with a key: {came}, not {expected}", row.field, row.note));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    cast.world.check().await;
}

#[test]
fn the_table_for_people_is_this_one() {
    let text = std::fs::read_to_string("docs/permissions.md").unwrap_or_default();
    let documented: Vec<&str> = text.lines().filter(|line| line.starts_with("| `")).collect();
    let lines: Vec<String> = rows().iter().map(Row::line).collect();
    let missing: Vec<&String> = lines.iter().filter(|line| !documented.contains(&line.as_str())).collect();
    assert!(
        missing.is_empty(),
        "docs/permissions.md lacks\n{}",
        missing.iter().map(|line| line.as_str()).collect::<Vec<_>>().join("\n")
    );
    let stale: Vec<&&str> = documented.iter().filter(|line| !lines.iter().any(|row| row == **line)).collect();
    assert!(stale.is_empty(), "docs/permissions.md says more\n{stale:#?}");
}
