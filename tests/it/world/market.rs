//! What people do on the market, in one line each, and what they see of it.

use std::fmt::Write as _;

use entity::id::AgentId;
use serde_json::{Value, json};

use super::{Client, World, fresh_key};

/// Whether the input of a mutation names its intent, as the schema says.
fn is_keyed(input: &str) -> bool {
    static SDL: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let sdl = SDL.get_or_init(zerostate::graphql::sdl);
    let (_, rest) = sdl.split_once(&format!("\ninput {input} {{")).unwrap_or_else(|| panic!("no input {input}"));
    rest.split("\n}").next().unwrap().contains("idempotencyKey: String!")
}

/// All that a party sees of a task.
const TASK: &str = "query($id: ID!) { task(id: $id) {
    id title status input inputSha256 budget price paid deadlineAt failureCode awardedAt startedAt finishedAt
    requester { id } agent { id name } auction { id status clearingPrice } rating { stars comment }
    winningBid { id price status rank }
    channel { id status closeReason deposit paid nonce closedAt payer { id } agent { id } }
    result { outcome output logs faultCode fuel peakMemoryBytes duration moduleSha256 inputSha256 outputSha256 cost createdAt
        agent { id } }
} }";

/// All that the viewer sees of an auction.
const AUCTION: &str = "query($id: ID!) { auction(id: $id) {
    id status kind visibility awardMode budget maxPrice reservePrice minReputation priceWeight reputationWeight capabilities
    closesAt extensions bidCount clearingPrice closedAt
    winningBid { id price agent { id } } bestBid { id }
    task { id status }
    bids(first: 100) { totalCount nodes {
        id price sequence status reputation rank score { total price reputation } agent { id }
    } }
} }";

/// One object over another.
fn merged(mut base: Value, over: Value) -> Value {
    let (Value::Object(fields), Value::Object(over)) = (&mut base, over) else { panic!("two objects") };
    fields.extend(over);
    base
}

/// A task as people post it, but for what the test cares about.
fn task_input(over: Value) -> Value {
    let usual =
        json!({ "title": "Count this", "capabilities": ["text.stats"], "input": "one two three", "budget": "10" });
    merged(usual, over)
}

/// The SHA-256 of a text in lower-case hex.
pub fn sha256(text: impl AsRef<[u8]>) -> String {
    use sha2::Digest;
    hex::encode(sha2::Sha256::digest(text))
}

/// A sample agent's module.
pub fn sample(name: &str) -> Vec<u8> {
    let path = format!("{}/agents/wasm/{name}.wasm", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A module of the given fields, with the system calls of a small program and `$print(fd, at, len)`.
pub fn guest(fields: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (memory (export "memory") 2)
            (func $print (param $fd i32) (param $at i32) (param $len i32)
                (i32.store (i32.const 0) (local.get $at))
                (i32.store (i32.const 4) (local.get $len))
                (drop (call $fd_write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8))))
            {fields})"#
    );
    wat::parse_str(text).unwrap()
}

/// A module that answers the same whatever it is asked, and says something on standard error.
pub fn answering(output: &str) -> Vec<u8> {
    let bytes = output.bytes().fold(String::new(), |mut text, byte| {
        write!(text, "\\{byte:02x}").unwrap();
        text
    });
    guest(&format!(
        r#"(data (i32.const 16) "{bytes}") (data (i32.const 60000) "done\0a")
           (func (export "_start")
               (call $print (i32.const 2) (i32.const 60000) (i32.const 5))
               (call $print (i32.const 1) (i32.const 16) (i32.const {})))"#,
        output.len()
    ))
}

/// A module that answers what it is asked, up to 64 KiB.
pub fn echoing() -> Vec<u8> {
    guest(
        r#"(func (export "_start")
            (local $end i32)
            (local.set $end (i32.const 1024))
            (loop $more
                (i32.store (i32.const 0) (local.get $end))
                (i32.store (i32.const 4) (i32.const 4096))
                (drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
                (local.set $end (i32.add (local.get $end) (i32.load (i32.const 8))))
                (br_if $more (i32.load (i32.const 8))))
            (call $print (i32.const 1) (i32.const 1024) (i32.sub (local.get $end) (i32.const 1024))))"#,
    )
}

/// A module that is at fault whatever it is asked.
pub fn crashing() -> Vec<u8> {
    guest(r#"(func (export "_start") unreachable)"#)
}

/// The document of a mutation and its input, with a fresh key where it takes one and has none.
fn mutation(field: &str, selection: &str, mut input: Value) -> (String, Value) {
    let (head, tail) = field.split_at(1);
    let name = format!("{}{tail}Input", head.to_uppercase());
    if is_keyed(&name) && input["idempotencyKey"].is_null() {
        input["idempotencyKey"] = json!(fresh_key());
    }
    let document =
        format!("mutation($input: {name}!) {{ {field}(input: $input) {{ {selection} userErrors {{ code }} }} }}");
    (document, json!({ "input": input }))
}

impl Client {
    /// Runs a mutation that must not be refused and reads `selection` of its payload.
    pub async fn call(&self, field: &str, selection: &str, input: Value) -> Value {
        let (document, variables) = mutation(field, selection, input);
        self.done(field, &document, variables).await
    }

    /// Runs a mutation that must be refused, for one reason: the code of it.
    pub async fn refusal(&self, field: &str, input: Value) -> String {
        let (document, variables) = mutation(field, "", input);
        let codes = self.refused(field, &document, variables).await;
        assert_eq!(codes.len(), 1, "{field}: {codes:?}");
        codes.into_iter().next().unwrap()
    }

    /// Runs a mutation that must fail at the top level: the code of the error.
    pub async fn fault(&self, field: &str, input: Value) -> String {
        let (document, variables) = mutation(field, "", input);
        self.error(&document, variables).await
    }

    /// The code of the one error of a request.
    pub async fn error(&self, document: &str, variables: Value) -> String {
        let errors = self.try_query(document, variables).await.expect_err(document);
        assert_eq!(errors.len(), 1, "{document}: {errors:#?}");
        errors[0]["extensions"]["code"].as_str().unwrap().to_owned()
    }

    /// Posts a task: the usual one, but for `over`. Answers its id.
    pub async fn execute(&self, over: Value) -> String {
        let done = self.call("executeTask", "task { id }", task_input(over)).await;
        done["task"]["id"].as_str().unwrap().to_owned()
    }

    /// Posts a task that is refused.
    pub async fn refused_task(&self, over: Value) -> String {
        self.refusal("executeTask", task_input(over)).await
    }

    /// Opens an auction for the usual task, which takes bids for an hour, but for `over`. Answers its id.
    pub async fn open(&self, over: Value) -> String {
        let input = task_input(merged(json!({ "closesIn": "PT1H" }), over));
        let done = self.call("createAuction", "auction { id }", input).await;
        done["auction"]["id"].as_str().unwrap().to_owned()
    }

    /// Opens an auction that is refused.
    pub async fn refused_auction(&self, over: Value) -> String {
        self.refusal("createAuction", task_input(merged(json!({ "closesIn": "PT1H" }), over))).await
    }

    /// Bids. Answers the id of the bid.
    pub async fn bid(&self, auction: &str, agent: AgentId, price: &str) -> String {
        let input = json!({ "auctionId": auction, "agentId": agent.to_string(), "price": price });
        let done = self.call("submitBid", "bid { id }", input).await;
        done["bid"]["id"].as_str().unwrap().to_owned()
    }

    /// Bids and is refused.
    pub async fn refused_bid(&self, auction: &str, agent: AgentId, price: &str) -> String {
        let input = json!({ "auctionId": auction, "agentId": agent.to_string(), "price": price });
        self.refusal("submitBid", input).await
    }

    /// A task as this person sees it; null when they do not.
    pub async fn task(&self, id: &str) -> Value {
        self.query(TASK, json!({ "id": id })).await["task"].take()
    }

    /// An auction as this person sees it.
    pub async fn auction(&self, id: &str) -> Value {
        self.query(AUCTION, json!({ "id": id })).await["auction"].take()
    }

    /// The task of an auction of this person.
    pub async fn task_of(&self, auction: &str) -> Value {
        let id = self.auction(auction).await["task"]["id"].as_str().expect("a task of one's own").to_owned();
        self.task(&id).await
    }

    /// What this person can spend and what is set aside.
    pub async fn wallet(&self) -> (String, String) {
        let me = self.query("{ me { wallet { available inEscrow } } }", json!({})).await;
        let text = |name: &str| me["me"]["wallet"][name].as_str().unwrap().to_owned();
        (text("available"), text("inEscrow"))
    }

    /// What an agent of this person earned.
    pub async fn earned(&self, agent: AgentId) -> String {
        let document = "query($id: ID!) { agent(id: $id) { earnings } }";
        let answer = self.query(document, json!({ "id": agent.to_string() })).await;
        answer["agent"]["earnings"].as_str().expect("an agent of one's own").to_owned()
    }
}

/// The commitment to a bid that promises no duration.
pub fn commitment(world: &World, auction: &str, agent: &str, price: &str, salt: [u8; 32]) -> String {
    let sealed = zerostate::auction::commitment::Sealed {
        instance: world.app.store().instance().unwrap().id(),
        auction: auction.parse().unwrap(),
        agent: agent.parse().unwrap(),
        price: price.parse().unwrap(),
        promised_ms: 0,
        salt,
    };
    sealed.commitment_hex()
}

impl World {
    /// The score of an agent now, as everybody sees it.
    pub async fn score(&self, agent: AgentId) -> String {
        let document = "query($id: ID!) { reputation(agentId: $id) { score } }";
        let answer = self.anonymous().query(document, json!({ "id": agent.to_string() })).await;
        answer["reputation"]["score"].as_str().unwrap().to_owned()
    }

    /// How many rows a table has, for what must not have been written.
    pub async fn rows(&self, table: &str) -> i64 {
        use sea_orm::{ConnectionTrait, Statement};
        let sql = format!("SELECT COUNT(*) FROM {table}");
        let store = self.app.store();
        let row = store.read().query_one_raw(Statement::from_string(store.backend(), sql)).await.unwrap().unwrap();
        row.try_get_by_index(0).unwrap()
    }
}

/// Bids of an auction as `(price, status, rank, total score)`, in the order in which they came.
pub fn bids(auction: &Value) -> Vec<(String, String, Option<i64>, Option<String>)> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    auction["bids"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|bid| {
            (
                text(&bid["price"]).unwrap(),
                text(&bid["status"]).unwrap(),
                bid["rank"].as_i64(),
                text(&bid["score"]["total"]),
            )
        })
        .collect()
}
