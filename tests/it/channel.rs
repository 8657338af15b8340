//! Streaming channels: paying as one goes, by vouchers or by calls, and everything that parties and strangers may try against it. The
//! numbers in the names of the attacks are those of `docs/channels.md`.

use std::time::Duration;

use entity::{
    account, channel, equivocation,
    event::Kind,
    id::{AgentId, ChannelId, Id, UserId},
    user,
};
use futures_util::future::{join, join_all};
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, EntityTrait, PaginatorTrait, QueryFilter, sea_query::Expr,
};
use serde_json::{Value, json};
use zerostate::{
    app::App,
    caller::Caller,
    channel::stream,
    store::{Entropy, Work},
    voucher::{
        self, ChannelConfig, CooperativeClose, NotServed, Payee, Payer, Seen, SignedVoucher, Standing, Voucher,
        context_hash, public_key, read_hex,
    },
};

use crate::world::{Client, World, fresh_key, on_postgres};

/// The secret keys of the payer, of the agent, and of nobody in this story.
const PAYER: [u8; 32] = [1; 32];
const AGENT: [u8; 32] = [2; 32];
const OTHER: [u8; 32] = [3; 32];
/// When channels end: eight and a half days after the dawn.
const END: &str = "2026-12-02T00:00:00Z";
const END_SECONDS: u64 = 1_796_169_600;
/// The delay of a close.
const DELAY: Duration = Duration::from_hours(1);

const CHANGE: &str = "change {
    kind nonce amount fee returned deposit paid contextHash actor { id } channel { status paid }
    voucher { nonce cumulative validUntil contextHash signature }
}";

/// A payer, an agent and a stranger.
struct Stage {
    world: World,
    payer: Client,
    owner: Client,
    eve: Client,
    agent: AgentId,
    instance: [u8; 32],
}

/// A channel as a client knows it.
#[derive(Clone, Debug)]
struct Opened {
    id: String,
    hash: [u8; 32],
}

impl Stage {
    async fn set() -> Self {
        Self::with_fee(0).await
    }

    async fn with_fee(fee_bps: u16) -> Self {
        let world = World::with(|config| config.terms.fee_bps = fee_bps).await;
        let (payer, owner, eve) = (world.user("payer").await, world.user("owner").await, world.user("eve").await);
        world.credit(&payer, "1000").await;
        let agent = world.agent(&owner, "worker", "EXTERNAL", "stream", "1").await;
        let key = json!({ "agentId": agent.to_string(), "publicKey": hex::encode(public_key(&AGENT)) });
        owner.call("updateAgent", "agent { publicKey }", key).await;
        let info = eve.query("{ serviceInfo { instanceId publicKey } }", json!({})).await["serviceInfo"].take();
        let instance = read_hex(info["instanceId"].as_str().unwrap()).unwrap();
        assert_eq!(voucher::instance_id(&read_hex(info["publicKey"].as_str().unwrap()).unwrap()), instance);
        Self { world, payer, owner, eve, agent, instance }
    }

    /// The input of an opening: ten credits under the payer's key, but for `over`.
    fn opening(&self, over: &Value) -> Value {
        let mut input = json!({
            "agentId": self.agent.to_string(), "deposit": "10", "signerKey": hex::encode(public_key(&PAYER)),
            "settleDelay": "PT1H", "expiresAt": END, "idempotencyKey": fresh_key(),
        });
        input.as_object_mut().unwrap().extend(over.as_object().unwrap().clone());
        input
    }

    async fn open(&self, over: &Value) -> Opened {
        let opened = self.payer.call("openChannel", "channel { id hash status nonce }", self.opening(over)).await;
        let channel = &opened["channel"];
        assert_eq!((&channel["status"], &channel["nonce"]), (&json!("OPEN"), &json!("1")));
        let hash = read_hex(channel["hash"].as_str().unwrap()).unwrap();
        Opened { id: channel["id"].as_str().unwrap().to_owned(), hash }
    }

    fn voucher(&self, of: &Opened, nonce: u64, cumulative: u64) -> Voucher {
        let (instance_id, channel_id) = (self.instance, of.hash);
        Voucher { instance_id, channel_id, nonce, cumulative, valid_until: 0, context_hash: [0; 32] }
    }

    /// A voucher of the payer's as the API takes it.
    fn signed(&self, of: &Opened, nonce: u64, cumulative: u64) -> Value {
        spelled(&self.voucher(of, nonce, cumulative), &PAYER)
    }

    fn close(&self, of: &Opened, nonce: u64, final_cumulative: u64) -> CooperativeClose {
        let (instance_id, channel_id) = (self.instance, of.hash);
        CooperativeClose { instance_id, channel_id, nonce, final_cumulative, valid_until: END_SECONDS }
    }

    /// What everybody has: payer, channels, agent, platform.
    async fn funds(&self) -> [i64; 4] {
        let db = self.world.app.store().read();
        let mut funds = [0; 4];
        for account in account::Entity::find().all(db).await.unwrap() {
            let place = match account.kind {
                account::Kind::User => 0,
                account::Kind::EscrowChannel => 1,
                account::Kind::Agent => 2,
                account::Kind::Fees => 3,
                account::Kind::External
                | account::Kind::EscrowTask
                | account::Kind::EscrowDelegation
                | account::Kind::Bond => continue,
            };
            funds[place] += account.balance;
        }
        funds
    }

    async fn claim(&self, by: &Client, of: &Opened, voucher: &Value) -> Result<Value, String> {
        let input = json!({ "channelId": of.id, "voucher": voucher, "idempotencyKey": fresh_key() });
        attempt(by, "claimVoucher", input).await
    }

    /// A claim by the agent that must pay.
    async fn claimed(&self, of: &Opened, nonce: u64, cumulative: u64) -> Value {
        self.claim(&self.owner, of, &self.signed(of, nonce, cumulative)).await.unwrap()
    }

    /// Something that must be refused, and moves nothing.
    async fn refused(&self, by: &Client, field: &str, of: &Opened, more: &Value) -> String {
        let before = self.funds().await;
        let came = self.act(by, field, of, more).await;
        assert_eq!(self.funds().await, before, "{field} moved credits although it was refused");
        came.expect_err(field)
    }

    async fn claim_refused(&self, of: &Opened, voucher: &Value) -> String {
        self.refused(&self.owner, "claimVoucher", of, &json!({ "voucher": voucher })).await
    }

    /// Any mutation of a channel.
    async fn act(&self, by: &Client, field: &str, of: &Opened, more: &Value) -> Result<Value, String> {
        let mut input = json!({ "channelId": of.id, "idempotencyKey": fresh_key() });
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        attempt(by, field, input).await
    }

    async fn row(&self, of: &Opened) -> channel::Model {
        let id: ChannelId = of.id.parse().unwrap();
        channel::Entity::find_by_id(id).one(self.world.app.store().read()).await.unwrap().unwrap()
    }

    async fn events(&self, of: &Opened, kind: Kind) -> u64 {
        use entity::event::{Column, Entity};
        let id: ChannelId = of.id.parse().unwrap();
        let found = Entity::find().filter(Column::ChannelId.eq(id)).filter(Column::Kind.eq(kind));
        found.count(self.world.app.store().read()).await.unwrap()
    }

    /// Nobody ends up with more or less in all.
    async fn check(self) {
        let funds = self.funds().await;
        assert_eq!(funds.iter().sum::<i64>(), 1_000_000_000, "{funds:?}");
        self.world.check().await;
    }
}

/// A mutation's change, or the code of its one refusal; never both and never neither.
async fn attempt(by: &Client, field: &str, input: Value) -> Result<Value, String> {
    let (head, tail) = field.split_at(1);
    let name = format!("{}{tail}", head.to_uppercase());
    let document = format!(
        "mutation($input: {name}Input!) {{ {field}(input: $input) {{ {CHANGE} userErrors {{ code message field }} }} }}"
    );
    let mut answer = by.query(&document, json!({ "input": input })).await[field].take();
    let errors = answer["userErrors"].as_array().unwrap().clone();
    match errors.as_slice() {
        [] => {
            assert!(answer["change"].is_object(), "done, and nothing to show for it: {answer:#}");
            Ok(answer["change"].take())
        }
        [error] => {
            assert!(answer["change"].is_null(), "refused, and yet there is a change: {answer:#}");
            Err(error["code"].as_str().unwrap().to_owned())
        }
        _ => panic!("{answer:#}"),
    }
}

/// A voucher with a signature as the API takes it.
fn spelled(voucher: &Voucher, secret: &[u8; 32]) -> Value {
    with_signature(voucher, &voucher.sign(secret))
}

fn with_signature(voucher: &Voucher, signature: &[u8; 64]) -> Value {
    json!({
        "nonce": voucher.nonce.to_string(), "cumulative": voucher.cumulative.to_string(),
        "validUntil": voucher.valid_until.to_string(), "contextHash": hex::encode(voucher.context_hash),
        "signature": hex::encode(signature),
    })
}

fn agreed(close: &CooperativeClose, payer: &[u8; 32], agent: &[u8; 32]) -> Value {
    json!({ "cooperative": {
        "nonce": close.nonce.to_string(), "finalCumulative": close.final_cumulative.to_string(),
        "validUntil": close.valid_until.to_string(),
        "payerSignature": hex::encode(close.sign(payer)), "agentSignature": hex::encode(close.sign(agent)),
    } })
}

/// What funds are after the agent got `paid` micro-credits out of a channel with ten credits that is still open.
fn open_with(paid: i64) -> [i64; 4] {
    [990_000_000, 10_000_000 - paid, paid, 0]
}

/// The same when it is closed.
fn closed_with(paid: i64) -> [i64; 4] {
    [1_000_000_000 - paid, 0, paid, 0]
}

#[tokio::test]
async fn a_payer_streams_to_an_agent_by_vouchers() {
    let stage = Stage::with_fee(333).await;
    let channel = stage.open(&json!({ "salt": "5a".repeat(32) })).await;
    // Everybody can compute the name of the channel from its configuration.
    let document = "query($id: ID!) { channel(id: $id) {
        purpose remaining voucherNonce closesAt task { id }
        configuration { instanceId payer payee signerKey asset scale settleDelay expiresAt salt }
    } }";
    let seen = stage.owner.query(document, json!({ "id": channel.id })).await["channel"].take();
    let config = &seen["configuration"];
    let text = |name: &str| config[name].as_str().unwrap();
    let computed = ChannelConfig {
        instance_id: read_hex(text("instanceId")).unwrap(),
        payer: read_hex(text("payer")).unwrap(),
        payee: read_hex(text("payee")).unwrap(),
        signer: read_hex(text("signerKey")).unwrap(),
        asset: voucher::asset(text("asset")).unwrap(),
        scale: 6,
        settle_delay_s: 3_600,
        expires_at: text("expiresAt").parse().unwrap(),
        salt: [0x5a; 32],
    };
    assert_eq!((computed.id(), computed.expires_at), (channel.hash, END_SECONDS));
    assert_eq!(computed.payer, stage.payer.id().parse::<UserId>().unwrap().uuid().into_bytes());
    assert_eq!(computed.payee, stage.agent.uuid().into_bytes());
    assert_eq!((&config["scale"], &config["settleDelay"]), (&json!(6), &json!("PT1H")));
    assert_eq!(
        (&seen["purpose"], &seen["remaining"], &seen["voucherNonce"], &seen["closesAt"], &seen["task"]),
        (&json!("STREAM"), &json!("10"), &json!("0"), &Value::Null, &Value::Null)
    );
    assert_eq!(stage.payer.wallet().await, ("990".to_owned(), "10".to_owned()));

    let about = context_hash(b"task:demo");
    let promise = Voucher { context_hash: about, ..stage.voucher(&channel, 1, 1_000_000) };
    let receipt = stage.claim(&stage.owner, &channel, &spelled(&promise, &PAYER)).await.unwrap();
    assert_eq!(receipt["voucher"], spelled(&promise, &PAYER));
    assert_eq!(
        [&receipt["kind"], &receipt["nonce"], &receipt["amount"], &receipt["fee"], &receipt["paid"]],
        ["CLAIMED", "2", "1", "0.0333", "1"]
    );
    assert_eq!(receipt["contextHash"], hex::encode(about));
    assert_eq!(receipt["actor"]["id"], stage.owner.id());
    // Nonces may be left out; a stranger may bring a voucher, and sees the receipt but not the channel.
    let relayed = stage.claim(&stage.eve, &channel, &stage.signed(&channel, 5, 1_000_031)).await.unwrap();
    assert_eq!((&relayed["amount"], &relayed["fee"]), (&json!("0.000031"), &json!("0.000001")));
    assert_eq!(relayed["channel"], Value::Null);
    let more = json!({ "amount": "2", "expectedNonce": "3" });
    stage.act(&stage.payer, "topUpChannel", &channel, &more).await.unwrap();
    assert_eq!(stage.refused(&stage.payer, "topUpChannel", &channel, &more).await, "CHANNEL_CHANGED");
    let last = json!({ "voucher": stage.signed(&channel, 6, 11_000_000) });
    let closed = stage.act(&stage.owner, "settleChannel", &channel, &last).await.unwrap();
    assert_eq!(
        [&closed["kind"], &closed["amount"], &closed["returned"], &closed["paid"], &closed["channel"]["status"]],
        ["CLOSED", "0", "1", "11", "CLOSED"]
    );
    // The fee of many claims is that of the sum.
    assert_eq!(stage.funds().await, [989_000_000, 0, 11_000_000 - 366_300, 366_300]);
    assert_eq!(stage.owner.earned(stage.agent).await, "10.6337");
    assert_eq!(stage.payer.wallet().await, ("989".to_owned(), "0".to_owned()));

    // The whole history, newest first, page by page, for both parties and nobody else.
    let document = "query($id: ID!, $after: String) { channel(id: $id) {
        status closeReason remaining changes(first: 4, after: $after) {
            totalCount pageInfo { hasNextPage endCursor } nodes { kind nonce amount paid deposit }
        }
    } }";
    for party in [&stage.payer, &stage.owner] {
        let first = party.query(document, json!({ "id": channel.id })).await["channel"].take();
        assert_eq!((&first["status"], &first["closeReason"]), (&json!("CLOSED"), &json!("AGENT_CLOSED")));
        assert_eq!(first["remaining"], Value::Null);
        let after = &first["changes"]["pageInfo"]["endCursor"];
        let second = party.query(document, json!({ "id": channel.id, "after": after })).await["channel"].take();
        let nodes = |of: &Value| of["changes"]["nodes"].as_array().unwrap().clone();
        let history: Vec<Value> = nodes(&first).into_iter().chain(nodes(&second)).collect();
        let kinds: Vec<_> = history.iter().map(|change| change["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["CLOSED", "CLAIMED", "TOPPED_UP", "CLAIMED", "CLAIMED", "OPENED"]);
        assert_eq!(first["changes"]["totalCount"], 6);
        assert_eq!((&history[2]["amount"], &history[2]["deposit"]), (&json!("2"), &json!("12")));
        assert_eq!(second["changes"]["pageInfo"]["hasNextPage"], false);
    }
    assert_eq!(stage.eve.query(document, json!({ "id": channel.id })).await["channel"], Value::Null);
    // The parties hear of it in the streams of their credits.
    let mut heard = stage
        .owner
        .subscribe(
            "subscription($after: EventCursor) { settlementEvents(after: $after) { kind } }",
            json!({ "after": zerostate::store::Cursor::default().to_string() }),
        )
        .await;
    for kind in
        ["CHANNEL_OPENED", "CHANNEL_PAID", "CHANNEL_PAID", "CHANNEL_TOPPED_UP", "CHANNEL_PAID", "CHANNEL_CLOSED"]
    {
        assert_eq!(heard.next().await["settlementEvents"]["kind"], kind);
    }
    stage.check().await;
}

#[tokio::test]
async fn a_payer_without_a_key_pays_by_calls() {
    let stage = Stage::set().await;
    let channel = stage.open(&json!({ "signerKey": null })).await;
    let pay = json!({ "amount": "1.5", "contextHash": "ab".repeat(32) });
    let receipt = stage.act(&stage.payer, "deductFromChannel", &channel, &pay).await.unwrap();
    assert_eq!([&receipt["kind"], &receipt["amount"], &receipt["paid"]], ["DEDUCTED", "1.5", "1.5"]);
    assert_eq!((&receipt["contextHash"], &receipt["voucher"]), (&json!("ab".repeat(32)), &Value::Null));
    assert_eq!(stage.funds().await, open_with(1_500_000));
    // The same call again is the same payment.
    let input = json!({ "channelId": channel.id, "amount": "1", "idempotencyKey": "once" });
    let (first, second) = (
        attempt(&stage.payer, "deductFromChannel", input.clone()).await,
        attempt(&stage.payer, "deductFromChannel", input).await,
    );
    assert_eq!(first, second);
    assert_eq!(stage.funds().await, open_with(2_500_000));
    for (by, amount, code) in [
        (&stage.payer, "7.500001", "ABOVE_DEPOSIT"),
        (&stage.payer, "0", "INVALID_INPUT"),
        (&stage.owner, "1", "NOT_FOUND"),
        (&stage.eve, "1", "NOT_FOUND"),
    ] {
        let refused = stage.refused(by, "deductFromChannel", &channel, &json!({ "amount": amount })).await;
        assert_eq!(refused, code, "{amount}");
    }
    // Nothing that is signed counts, not even under the key that is written as zeros.
    let voucher = stage.signed(&channel, 1, 5_000_000);
    assert_eq!(stage.claim_refused(&channel, &voucher).await, "NO_SIGNER_KEY");
    let zeros = with_signature(&stage.voucher(&channel, 1, 5_000_000), &[0; 64]);
    assert_eq!(stage.claim_refused(&channel, &zeros).await, "NO_SIGNER_KEY");
    let cooperative = agreed(&stage.close(&channel, 1, 5_000_000), &PAYER, &AGENT);
    assert_eq!(stage.refused(&stage.owner, "settleChannel", &channel, &cooperative).await, "NO_SIGNER_KEY");
    let keyed = stage.open(&json!({ "deposit": "1" })).await;
    let deduct = stage.refused(&stage.payer, "deductFromChannel", &keyed, &json!({ "amount": "1" })).await;
    assert_eq!(deduct, "SIGNER_REQUIRED");
    stage.act(&stage.owner, "settleChannel", &channel, &json!({})).await.unwrap();
    stage.act(&stage.owner, "settleChannel", &keyed, &json!({})).await.unwrap();
    assert_eq!(stage.funds().await, closed_with(2_500_000));
    stage.check().await;
}

#[tokio::test]
async fn a_channel_that_makes_no_sense_is_not_opened() {
    let stage = Stage::set().await;
    let before = stage.funds().await;
    let own = stage.world.agent(&stage.payer, "own", "EXTERNAL", "stream", "1").await;
    let idle = stage.world.agent(&stage.owner, "idle", "EXTERNAL", "stream", "1").await;
    stage.owner.call("pauseAgent", "agent { status }", json!({ "agentId": idle.to_string() })).await;
    for (over, code) in [
        (json!({ "deposit": "0" }), "INVALID_INPUT"),
        (json!({ "deposit": "1000.000001" }), "INSUFFICIENT_FUNDS"),
        (json!({ "agentId": own.to_string() }), "OWN_AGENT"),
        (json!({ "agentId": idle.to_string() }), "AGENT_NOT_READY"),
        (json!({ "agentId": "agent_01h455vb4pex5vsknk084sn02q" }), "NOT_FOUND"),
        (json!({ "agentId": "task_01h455vb4pex5vsknk084sn02q" }), "INVALID_INPUT"),
        (json!({ "settleDelay": "PT14M59S" }), "INVALID_INPUT"),
        (json!({ "settleDelay": "P30DT1S" }), "INVALID_INPUT"),
        (json!({ "settleDelay": "PT3600.5S" }), "INVALID_INPUT"),
        (json!({ "expiresAt": "2026-11-23T13:04:59Z" }), "INVALID_INPUT"),
        (json!({ "expiresAt": "2026-12-02T00:00:00.5Z" }), "INVALID_INPUT"),
        (json!({ "expiresAt": "2027-11-24T12:00:01Z" }), "INVALID_INPUT"),
        (json!({ "expiresAt": "1969-12-31T23:59:59Z" }), "INVALID_INPUT"),
        (json!({ "salt": "5A".repeat(32) }), "INVALID_INPUT"),
        (json!({ "salt": "5a" }), "INVALID_INPUT"),
        (json!({ "signerKey": "00".repeat(32) }), "INVALID_INPUT"),
        (json!({ "signerKey": hex::encode(public_key(&PAYER)).to_uppercase() }), "INVALID_INPUT"),
    ] {
        assert_eq!(stage.payer.refusal("openChannel", stage.opening(&over)).await, code, "{over}");
    }
    assert_eq!((stage.funds().await, stage.world.rows("channels").await), (before, 0));
    // The least that is possible.
    stage.open(&json!({ "expiresAt": "2026-11-23T12:20:00Z", "settleDelay": "PT15M", "deposit": "0.000001" })).await;
    for bad in [json!("00".repeat(32)), json!("xyz")] {
        let input = json!({ "agentId": stage.agent.to_string(), "publicKey": bad });
        assert_eq!(stage.owner.refusal("updateAgent", input).await, "INVALID_INPUT");
    }
    stage.check().await;
}

#[tokio::test]
async fn a_payer_asks_for_the_close_and_may_take_that_back() {
    let stage = Stage::set().await;
    let channel = stage.open(&json!({})).await;
    for by in [&stage.owner, &stage.eve] {
        assert_eq!(stage.refused(by, "requestChannelClose", &channel, &json!({})).await, "NOT_FOUND");
        assert_eq!(stage.refused(by, "cancelChannelClose", &channel, &json!({})).await, "NOT_FOUND");
        assert_eq!(stage.refused(by, "topUpChannel", &channel, &json!({ "amount": "1" })).await, "NOT_FOUND");
    }
    assert_eq!(stage.refused(&stage.payer, "cancelChannelClose", &channel, &json!({})).await, "CLOSE_NOT_REQUESTED");
    stage.act(&stage.payer, "requestChannelClose", &channel, &json!({})).await.unwrap();
    assert_eq!(stage.refused(&stage.payer, "requestChannelClose", &channel, &json!({})).await, "CLOSE_REQUESTED");
    let closes_at = stage.row(&channel).await.close_at;
    assert_eq!(closes_at, Some(stage.world.now().after(DELAY)));
    // Neither a claim nor more money moves the close.
    stage.world.pass(DELAY / 2).await;
    stage.claimed(&channel, 1, 1_000_000).await;
    stage.act(&stage.payer, "topUpChannel", &channel, &json!({ "amount": "1" })).await.unwrap();
    assert_eq!(stage.row(&channel).await.close_at, closes_at);
    stage.act(&stage.payer, "cancelChannelClose", &channel, &json!({})).await.unwrap();
    stage.world.pass(DELAY).await;
    assert_eq!(stage.row(&channel).await.status, channel::Status::Open);
    assert_eq!(stage.refused(&stage.payer, "settleChannel", &channel, &json!({})).await, "CHANNEL_NOT_EXPIRED");
    assert_eq!(stage.refused(&stage.eve, "settleChannel", &channel, &json!({})).await, "NOT_FOUND");
    stage.act(&stage.payer, "requestChannelClose", &channel, &json!({})).await.unwrap();
    stage.world.pass(DELAY.checked_sub(Duration::from_micros(1)).unwrap()).await;
    stage.claimed(&channel, 2, 2_000_000).await;
    stage.world.pass(Duration::from_micros(1)).await;
    let row = stage.row(&channel).await;
    assert_eq!((row.status, row.close_reason), (channel::Status::Closed, Some(channel::CloseReason::PayerClosed)));
    assert_eq!(stage.funds().await, closed_with(2_000_000));
    for kind in [Kind::ChannelClosing, Kind::ChannelPaid] {
        assert_eq!(stage.events(&channel, kind).await, 2);
    }
    for kind in [Kind::ChannelReopened, Kind::ChannelClosed, Kind::ChannelToppedUp] {
        assert_eq!(stage.events(&channel, kind).await, 1);
    }
    stage.check().await;
}

#[tokio::test]
async fn time_alone_gives_the_rest_back() {
    let stage = Stage::set().await;
    let channel = stage.open(&json!({})).await;
    stage.claimed(&channel, 1, 4_000_000).await;
    let left =
        Duration::from_secs(END_SECONDS).checked_sub(Duration::from_micros(stage.world.now().micros().unsigned_abs()));
    stage.world.turn(left.unwrap());
    // Until somebody says so the channel holds its rest; nothing else happens to it, and anybody may say so.
    assert_eq!(stage.claim_refused(&channel, &stage.signed(&channel, 2, 5_000_000)).await, "CHANNEL_EXPIRED");
    let top_up = stage.refused(&stage.payer, "topUpChannel", &channel, &json!({ "amount": "1" })).await;
    assert_eq!(top_up, "CHANNEL_EXPIRED");
    let health = stage.eve.query("{ economicHealth { overdue openChannels } }", json!({})).await;
    assert_eq!(health["economicHealth"], json!({ "overdue": "1", "openChannels": "1" }));
    let closed = stage.act(&stage.eve, "settleChannel", &channel, &json!({})).await.unwrap();
    assert_eq!([&closed["kind"], &closed["returned"]], ["CLOSED", "6"]);
    assert_eq!(stage.row(&channel).await.close_reason, Some(channel::CloseReason::Expired));
    assert_eq!(stage.funds().await, closed_with(4_000_000));
    stage.world.settle().await;
    assert_eq!(stage.events(&channel, Kind::ChannelClosed).await, 1);
    stage.check().await;
}

#[tokio::test]
async fn both_parties_share_a_channel_out_at_once() {
    let stage = Stage::with_fee(1_000).await;
    let channel = stage.open(&json!({})).await;
    stage.claimed(&channel, 3, 1_000_000).await;
    let close = stage.close(&channel, 4, 5_000_000);
    for (more, code) in [
        (agreed(&close, &PAYER, &OTHER), "SIGNATURE_INVALID"),
        (agreed(&close, &OTHER, &AGENT), "SIGNATURE_INVALID"),
        (agreed(&close, &AGENT, &PAYER), "SIGNATURE_INVALID"),
        (agreed(&stage.close(&channel, 3, 5_000_000), &PAYER, &AGENT), "VOUCHER_STALE"),
        (agreed(&stage.close(&channel, 4, 999_999), &PAYER, &AGENT), "ALREADY_PAID"),
        (agreed(&stage.close(&channel, 4, 10_000_001), &PAYER, &AGENT), "ABOVE_DEPOSIT"),
        (agreed(&CooperativeClose { valid_until: 0, ..close }, &PAYER, &AGENT), "VOUCHER_EXPIRED"),
        (agreed(&CooperativeClose { valid_until: 1_795_435_199, ..close }, &PAYER, &AGENT), "VOUCHER_EXPIRED"),
    ] {
        for by in [&stage.payer, &stage.owner] {
            assert_eq!(stage.refused(by, "settleChannel", &channel, &more).await, code, "{more}");
        }
        assert_eq!(stage.refused(&stage.eve, "settleChannel", &channel, &more).await, "NOT_FOUND");
    }
    let mut both = agreed(&close, &PAYER, &AGENT);
    both["voucher"] = stage.signed(&channel, 5, 5_000_000);
    assert_eq!(stage.refused(&stage.owner, "settleChannel", &channel, &both).await, "INVALID_INPUT");
    let voucher = json!({ "voucher": stage.signed(&channel, 5, 5_000_000) });
    assert_eq!(stage.refused(&stage.payer, "settleChannel", &channel, &voucher).await, "INVALID_INPUT");
    let closed = stage.act(&stage.payer, "settleChannel", &channel, &agreed(&close, &PAYER, &AGENT)).await.unwrap();
    assert_eq!([&closed["amount"], &closed["fee"], &closed["returned"], &closed["paid"]], ["4", "0.4", "5", "5"]);
    assert_eq!(closed["voucher"]["cumulative"], "5000000");
    assert_eq!(stage.row(&channel).await.close_reason, Some(channel::CloseReason::Cooperative));
    assert_eq!(stage.funds().await, [995_000_000, 0, 4_500_000, 500_000]);
    // An agent without a key cannot agree to anything; it may pay nothing too.
    let bare = stage.world.agent(&stage.owner, "bare", "EXTERNAL", "stream", "1").await;
    let other = stage.open(&json!({ "agentId": bare.to_string() })).await;
    let agreement = agreed(&stage.close(&other, 1, 0), &PAYER, &AGENT);
    assert_eq!(stage.refused(&stage.owner, "settleChannel", &other, &agreement).await, "NO_AGENT_KEY");
    let key = json!({ "agentId": bare.to_string(), "publicKey": hex::encode(public_key(&AGENT)) });
    stage.owner.call("updateAgent", "agent { id }", key).await;
    stage.act(&stage.owner, "settleChannel", &other, &agreement).await.unwrap();
    assert_eq!(stage.funds().await, [995_000_000, 0, 4_500_000, 500_000]);
    stage.check().await;
}

#[tokio::test]
async fn escrow_channels_take_no_part_in_it() {
    let stage = Stage::set().await;
    stage.world.hosted_agent(&stage.owner, "echo", "echo", "2", crate::world::echoing()).await;
    let task = stage.payer.execute(json!({ "capabilities": ["echo"] })).await;
    let id = stage.payer.task(&task).await["channel"]["id"].as_str().unwrap().to_owned();
    let escrow = Opened { id, hash: [0; 32] };
    let voucher = json!({ "voucher": stage.signed(&escrow, 1, 1) });
    for (field, more, by) in [
        ("topUpChannel", json!({ "amount": "1" }), &stage.payer),
        ("deductFromChannel", json!({ "amount": "1" }), &stage.payer),
        ("requestChannelClose", json!({}), &stage.payer),
        ("cancelChannelClose", json!({}), &stage.payer),
        ("settleChannel", json!({}), &stage.owner),
        ("claimVoucher", voucher.clone(), &stage.owner),
    ] {
        assert_eq!(stage.refused(by, field, &escrow, &more).await, "NOT_A_STREAM", "{field}");
        assert_eq!(stage.refused(&stage.eve, field, &escrow, &more).await, "NOT_FOUND", "{field}");
    }
    let stream = stage.open(&json!({})).await;
    let list = "query($purpose: ChannelPurpose) { channels(filter: { purpose: $purpose }) { nodes { id hash changes { nodes { kind } } configuration { salt } } } }";
    let listed = async |purpose: &str| {
        let found = stage.payer.query(list, json!({ "purpose": purpose })).await;
        found["channels"]["nodes"].as_array().unwrap().clone()
    };
    let (escrows, streams) = (listed("ESCROW").await, listed("STREAM").await);
    assert_eq!((escrows.len(), streams.len()), (1, 1));
    assert_eq!((&escrows[0]["id"], &streams[0]["id"]), (&json!(escrow.id), &json!(stream.id)));
    assert_eq!((&escrows[0]["hash"], &escrows[0]["configuration"]), (&Value::Null, &Value::Null));
    assert_eq!(
        (&escrows[0]["changes"]["nodes"], streams[0]["changes"]["nodes"].as_array().unwrap().len()),
        (&json!([]), 1)
    );
    stage.world.settle().await;
    stage.check().await;
}

#[tokio::test]
async fn attack_01_a_claimed_voucher_pays_once() {
    let stage = Stage::set().await;
    let channel = stage.open(&json!({})).await;
    let receipt = stage.claimed(&channel, 1, 2_000_000).await;
    for by in [&stage.owner, &stage.payer] {
        assert_eq!(stage.claim(by, &channel, &stage.signed(&channel, 1, 2_000_000)).await.as_ref(), Ok(&receipt));
    }
    let relayed = stage.claim(&stage.eve, &channel, &stage.signed(&channel, 1, 2_000_000)).await.unwrap();
    assert_eq!((&relayed["nonce"], &relayed["channel"]), (&receipt["nonce"], &Value::Null));
    assert_eq!(stage.funds().await, open_with(2_000_000));
    assert_eq!(stage.row(&channel).await.nonce, 2);
    stage.check().await;
}

#[tokio::test]
async fn attack_02_an_older_voucher_pays_nothing_after_a_newer_one() {
    let stage = Stage::set().await;
    let channel = stage.open(&json!({})).await;
    stage.claimed(&channel, 2, 2_000_000).await;
    for (nonce, cumulative, code) in [
        (1, 1_000_000, "VOUCHER_STALE"),
        (1, 3_000_000, "VOUCHER_STALE"),
        (3, 1_000_000, "ALREADY_PAID"),
        (3, 2_000_000, "ALREADY_PAID"),
    ] {
        assert_eq!(stage.claim_refused(&channel, &stage.signed(&channel, nonce, cumulative)).await, code);
    }
    assert_eq!(stage.funds().await, open_with(2_000_000));
    stage.check().await;
}

#[tokio::test]
async fn attack_03_equal_nonce_other_amount() {
    let stage = Stage::set().await;
    let channel = stage.open(&json!({})).await;
    stage.claimed(&channel, 1, 2_000_000).await;
    let contradiction = stage.signed(&channel, 1, 3_000_000);
    let input = json!({ "channelId": channel.id, "voucher": contradiction, "idempotencyKey": "again" });
    for _ in 0..2 {
        assert_eq!(attempt(&stage.owner, "claimVoucher", input.clone()).await, Err("EQUIVOCATION".to_owned()));
    }
    for cumulative in [3_000_000, 1, 9_000_000] {
        assert_eq!(stage.claim_refused(&channel, &stage.signed(&channel, 1, cumulative)).await, "EQUIVOCATION");
    }
    // The agent cannot close with it either; the channel stays as it is.
    let settle = json!({ "voucher": contradiction });
    assert_eq!(stage.refused(&stage.owner, "settleChannel", &channel, &settle).await, "EQUIVOCATION");
    assert_eq!(stage.row(&channel).await.status, channel::Status::Open);
    // One piece of evidence is kept, and everybody can check it.
    assert_eq!(
        (stage.events(&channel, Kind::ChannelEquivocation).await, stage.world.rows("equivocations").await),
        (1, 1)
    );
    let document = "query($id: ID!) { channel(id: $id) { equivocations { totalCount nodes { id
        first { nonce cumulative validUntil contextHash signature } second { nonce cumulative validUntil contextHash signature }
        channel { id }
    } } } }";
    let found = stage.owner.query(document, json!({ "id": channel.id })).await["channel"]["equivocations"].take();
    let evidence = &found["nodes"][0];
    assert_eq!((&found["totalCount"], &evidence["channel"]["id"]), (&json!(1), &json!(channel.id)));
    assert_eq!(evidence["second"], contradiction);
    for (which, cumulative) in [("first", 2_000_000), ("second", 3_000_000)] {
        let signature = read_hex(evidence[which]["signature"].as_str().unwrap()).unwrap();
        assert_eq!(stage.voucher(&channel, 1, cumulative).verify(&public_key(&PAYER), &signature), Ok(()), "{which}");
    }
    let node = "query($id: ID!) { node(id: $id) { id } }";
    let id = json!({ "id": evidence["id"] });
    assert_eq!(stage.payer.query(node, id.clone()).await["node"]["id"], evidence["id"]);
    assert_eq!(stage.eve.query(node, id).await["node"], Value::Null);
    // It stays evidence when the channel is closed, and no evidence is ever changed.
    stage.act(&stage.owner, "settleChannel", &channel, &json!({})).await.unwrap();
    assert_eq!(stage.claim_refused(&channel, &contradiction).await, "EQUIVOCATION");
    let change = async |work: &mut Work| {
        equivocation::Entity::delete_many().exec(work.tx()).await?;
        Ok(())
    };
    assert!(stage.world.app.store().write(Caller::System, change).await.is_err());
    assert_eq!(stage.funds().await, closed_with(2_000_000));
    stage.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn attack_04_more_than_the_deposit() {
    let stage = Stage::set().await;
    let channel = stage.open(&json!({})).await;
    assert_eq!(stage.claim_refused(&channel, &stage.signed(&channel, 1, 10_000_001)).await, "ABOVE_DEPOSIT");
    // A voucher above the deposit against a top-up that covers it: it pays after it and not before.
    for round in 0..4_u64 {
        let sum = 10_000_000 + (round + 1) * 1_000_000;
        let promise = stage.signed(&channel, round + 1, sum);
        let more = json!({ "amount": "1" });
        let (topped, claimed) = join(
            stage.act(&stage.payer, "topUpChannel", &channel, &more),
            stage.claim(&stage.owner, &channel, &promise),
        )
        .await;
        topped.unwrap();
        if let Err(code) = claimed {
            assert_eq!(code, "ABOVE_DEPOSIT");
            stage.claim(&stage.owner, &channel, &promise).await.unwrap();
        }
        assert_eq!(stage.claim_refused(&channel, &stage.signed(&channel, round + 2, sum + 1)).await, "ABOVE_DEPOSIT");
    }
    assert_eq!(stage.funds().await, [986_000_000, 0, 14_000_000, 0]);
    stage.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn attack_05_settling_twice_at_once() {
    let stage = Stage::set().await;
    // The same voucher eight times at once.
    let channel = stage.open(&json!({})).await;
    let promise = stage.signed(&channel, 1, 2_000_000);
    let receipts = join_all((0..8).map(|_| stage.claim(&stage.owner, &channel, &promise))).await;
    let first = receipts[0].clone().unwrap();
    assert!(receipts.iter().all(|receipt| receipt.as_ref() == Ok(&first)), "{receipts:#?}");
    assert_eq!(stage.funds().await, open_with(2_000_000));
    // A claim against the close.
    let promise = stage.signed(&channel, 2, 3_000_000);
    let (claimed, closed) = join(
        stage.claim(&stage.eve, &channel, &promise),
        stage.act(&stage.owner, "settleChannel", &channel, &json!({})),
    )
    .await;
    closed.unwrap();
    let paid = if claimed.is_ok() { 3_000_000 } else { 2_000_000 };
    assert!(claimed.is_ok() || claimed == Err("CHANNEL_CLOSED".to_owned()), "{claimed:?}");
    assert_eq!(stage.funds().await, closed_with(paid));
    // Closing with the same last voucher many times at once closes once and pays once.
    let channel = stage.open(&json!({})).await;
    let last = json!({ "voucher": stage.signed(&channel, 1, 1_000_000) });
    let endings = join_all((0..6).map(|_| stage.act(&stage.owner, "settleChannel", &channel, &last))).await;
    assert_eq!(endings.iter().filter(|ended| ended.is_ok()).count(), 1, "{endings:#?}");
    assert!(endings.iter().filter_map(|ended| ended.as_ref().err()).all(|code| code == "CHANNEL_CLOSED"));
    assert_eq!(
        (stage.events(&channel, Kind::ChannelClosed).await, stage.events(&channel, Kind::ChannelPaid).await),
        (1, 1)
    );
    // A claim against the end, by the sweeper and by hand.
    let channel = stage.open(&json!({})).await;
    stage.act(&stage.payer, "requestChannelClose", &channel, &json!({})).await.unwrap();
    stage.world.turn(DELAY);
    let promise = stage.signed(&channel, 1, 2_000_000);
    let before = stage.funds().await;
    let (claimed, (settled, swept)) = join(
        stage.claim(&stage.owner, &channel, &promise),
        join(stage.act(&stage.payer, "settleChannel", &channel, &json!({})), stage.world.app.sweep_once()),
    )
    .await;
    let code = claimed.unwrap_err();
    assert!(["CHANNEL_EXPIRED", "CHANNEL_CLOSED"].contains(&code.as_str()), "{code}");
    assert!(settled.is_ok() || settled == Err("CHANNEL_CLOSED".to_owned()), "{settled:?}");
    swept.unwrap();
    stage.world.settle().await;
    assert_eq!(stage.events(&channel, Kind::ChannelClosed).await, 1);
    assert_eq!(stage.funds().await, [before[0] + 10_000_000, 0, before[2], 0]);
    stage.check().await;
}

#[tokio::test]
async fn attack_06_a_voucher_of_another_channel_of_the_same_parties() {
    let stage = Stage::set().await;
    let (one, two) = (stage.open(&json!({})).await, stage.open(&json!({})).await);
    assert_ne!(one.hash, two.hash);
    assert_eq!(stage.claim_refused(&two, &stage.signed(&one, 1, 2_000_000)).await, "SIGNATURE_INVALID");
    let agreement = agreed(&stage.close(&one, 1, 2_000_000), &PAYER, &AGENT);
    assert_eq!(stage.refused(&stage.owner, "settleChannel", &two, &agreement).await, "SIGNATURE_INVALID");
    stage.check().await;
}

#[tokio::test]
async fn attack_07_a_voucher_for_another_market() {
    let stage = Stage::set().await;
    let channel = stage.open(&json!({})).await;
    let elsewhere = Voucher { instance_id: voucher::instance_id(&[9; 32]), ..stage.voucher(&channel, 1, 2_000_000) };
    assert_eq!(stage.claim_refused(&channel, &spelled(&elsewhere, &PAYER)).await, "SIGNATURE_INVALID");
    // A stranger who tries does not even learn that there is such a channel.
    let more = json!({ "voucher": spelled(&elsewhere, &PAYER) });
    assert_eq!(stage.refused(&stage.eve, "claimVoucher", &channel, &more).await, "NOT_FOUND");
    stage.check().await;
}

#[tokio::test]
async fn attack_08_another_message_with_the_same_fields() {
    let stage = Stage::set().await;
    let channel = stage.open(&json!({})).await;
    let close = stage.close(&channel, 1, 2_000_000);
    let promise = Voucher { valid_until: END_SECONDS, ..stage.voucher(&channel, 1, 2_000_000) };
    let as_voucher = with_signature(&promise, &close.sign(&PAYER));
    assert_eq!(stage.claim_refused(&channel, &as_voucher).await, "SIGNATURE_INVALID");
    let mut as_close = agreed(&close, &PAYER, &AGENT);
    as_close["cooperative"]["payerSignature"] = json!(hex::encode(promise.sign(&PAYER)));
    assert_eq!(stage.refused(&stage.owner, "settleChannel", &channel, &as_close).await, "SIGNATURE_INVALID");
    stage.check().await;
}

#[tokio::test]
async fn attack_09_malleable_signatures_and_weak_keys() {
    let stage = Stage::set().await;
    let channel = stage.open(&json!({})).await;
    let promise = stage.voucher(&channel, 1, 2_000_000);
    let good = promise.sign(&PAYER);
    // The order of the group, little-endian (RFC 8032 §5.1): S + L is S in another encoding.
    let order: [u8; 32] = read_hex("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010").unwrap();
    let mut malleable = good;
    let mut carry = 0_u16;
    for (byte, of_order) in malleable[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(of_order) + carry;
        *byte = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
    let mut weak = [0; 64];
    weak[0] = 1;
    let mut other_point = good;
    other_point[..32].copy_from_slice(&[0xff; 32]);
    for signature in [malleable, weak, other_point, [0; 64], [0xff; 64]] {
        assert_eq!(stage.claim_refused(&channel, &with_signature(&promise, &signature)).await, "SIGNATURE_INVALID");
    }
    // Keys of small order, and keys in an encoding above the prime, are nobody's.
    for key in [
        "0100000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0202020202020202020202020202020202020202020202020202020202020202",
    ] {
        let opening = stage.opening(&json!({ "signerKey": key }));
        assert_eq!(stage.payer.refusal("openChannel", opening).await, "INVALID_INPUT", "{key}");
        let update = json!({ "agentId": stage.agent.to_string(), "publicKey": key });
        assert_eq!(stage.owner.refusal("updateAgent", update).await, "INVALID_INPUT", "{key}");
    }
    stage.check().await;
}

#[tokio::test]
async fn attack_10_a_signature_of_somebody_else() {
    let stage = Stage::set().await;
    let channel = stage.open(&json!({})).await;
    let promise = stage.voucher(&channel, 1, 2_000_000);
    for secret in [&OTHER, &AGENT] {
        assert_eq!(stage.claim_refused(&channel, &spelled(&promise, secret)).await, "SIGNATURE_INVALID");
    }
    let close = stage.close(&channel, 1, 2_000_000);
    assert_eq!(
        stage.refused(&stage.owner, "settleChannel", &channel, &agreed(&close, &AGENT, &AGENT)).await,
        "SIGNATURE_INVALID"
    );
    // When the agent has a new key, what the old one signed counts no more.
    let key = json!({ "agentId": stage.agent.to_string(), "publicKey": hex::encode(public_key(&OTHER)) });
    stage.owner.call("updateAgent", "agent { id }", key).await;
    let old = agreed(&close, &PAYER, &AGENT);
    assert_eq!(stage.refused(&stage.payer, "settleChannel", &channel, &old).await, "SIGNATURE_INVALID");
    stage.act(&stage.payer, "settleChannel", &channel, &agreed(&close, &PAYER, &OTHER)).await.unwrap();
    assert_eq!(stage.funds().await, closed_with(2_000_000));
    stage.check().await;
}

#[tokio::test]
async fn attack_11_a_voucher_after_its_time() {
    let stage = Stage::set().await;
    let channel = stage.open(&json!({})).await;
    let dawn = u64::try_from(stage.world.now().micros() / 1_000_000).unwrap();
    let until = |nonce, valid_until| {
        let cumulative = nonce * 1_000_000;
        spelled(&Voucher { valid_until, ..stage.voucher(&channel, nonce, cumulative) }, &PAYER)
    };
    assert_eq!(stage.claim_refused(&channel, &until(1, dawn - 1)).await, "VOUCHER_EXPIRED");
    assert_eq!(stage.claim_refused(&channel, &until(1, 1)).await, "VOUCHER_EXPIRED");
    // The market's clock decides, to the instant, whatever the clocks of the parties say.
    stage.claim(&stage.owner, &channel, &until(1, dawn)).await.unwrap();
    stage.world.turn(Duration::from_micros(1));
    assert_eq!(stage.claim_refused(&channel, &until(2, dawn)).await, "VOUCHER_EXPIRED");
    stage.claim(&stage.owner, &channel, &until(2, dawn + 1)).await.unwrap();
    stage.claim(&stage.owner, &channel, &until(3, u64::try_from(i64::MAX).unwrap())).await.unwrap();
    stage.claim(&stage.owner, &channel, &until(4, 0)).await.unwrap();
    assert_eq!(stage.funds().await, open_with(4_000_000));
    stage.check().await;
}

#[tokio::test]
async fn attack_12_a_payer_takes_nobodys_word_for_what_it_signed() {
    let stage = Stage::set().await;
    let channel = stage.open(&json!({})).await;
    let mut payer = Payer::new(stage.instance, channel.hash, PAYER, 10_000_000);
    let first = payer.pay(2_000_000, 0, [0; 32]).unwrap();
    stage.claim(&stage.owner, &channel, &with_signature(&first.voucher, &first.signature)).await.unwrap();
    // A payer who lost its memory finds its own signature in the history; a changed figure does not carry it.
    let document = "query($id: ID!) { channel(id: $id) { changes(first: 1) { nodes { voucher { nonce cumulative signature } } } } }";
    let seen = stage.payer.query(document, json!({ "id": channel.id })).await;
    let seen = &seen["channel"]["changes"]["nodes"][0]["voucher"];
    let number = |name: &str| seen[name].as_str().unwrap().parse::<u64>().unwrap();
    let signature = read_hex(seen["signature"].as_str().unwrap()).unwrap();
    let kept = |cumulative| SignedVoucher { voucher: stage.voucher(&channel, number("nonce"), cumulative), signature };
    let mut restarted = Payer::new(stage.instance, channel.hash, PAYER, 10_000_000);
    assert!(restarted.adopt(&kept(10_000_000)).is_err());
    assert_eq!(restarted.signed(), 0);
    assert_eq!(restarted.adopt(&kept(number("cumulative"))), Ok(true));
    let second = restarted.pay(1_000_000, 0, [0; 32]).unwrap();
    assert_eq!((second.voucher.nonce, second.voucher.cumulative), (2, 3_000_000));
    stage.claim(&stage.owner, &channel, &with_signature(&second.voucher, &second.signature)).await.unwrap();
    assert_eq!(stage.funds().await, open_with(3_000_000));
    stage.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn attack_13_two_vouchers_of_one_nonce_at_once() {
    let stage = Stage::set().await;
    let channel = stage.open(&json!({})).await;
    for round in 1..=4_u64 {
        let base = round * 2_000_000;
        let rivals = [stage.signed(&channel, round, base), stage.signed(&channel, round, base + 1)];
        let claims = join_all(rivals.iter().map(|voucher| stage.claim(&stage.owner, &channel, voucher))).await;
        assert_eq!(claims.iter().filter(|claim| claim.is_ok()).count(), 1, "{claims:#?}");
        assert!(claims.contains(&Err("EQUIVOCATION".to_owned())), "{claims:#?}");
        let paid = stage.row(&channel).await.paid.micros();
        assert!([base, base + 1].contains(&u64::try_from(paid).unwrap()));
        assert_eq!(stage.funds().await, open_with(paid));
    }
    assert_eq!(stage.world.rows("equivocations").await, 4);
    stage.check().await;
}

#[tokio::test]
async fn attack_14_an_answer_that_was_lost() {
    let stage = Stage::set().await;
    let channel = stage.open(&json!({})).await;
    let dawn = u64::try_from(stage.world.now().micros() / 1_000_000).unwrap();
    let promise = Voucher { valid_until: dawn + 60, ..stage.voucher(&channel, 1, 2_000_000) };
    let input = json!({ "channelId": channel.id, "voucher": spelled(&promise, &PAYER), "idempotencyKey": "lost" });
    let receipt = attempt(&stage.owner, "claimVoucher", input.clone()).await.unwrap();
    // The same request again, and the same voucher in another request.
    assert_eq!(attempt(&stage.owner, "claimVoucher", input.clone()).await.as_ref(), Ok(&receipt));
    assert_eq!(stage.claim(&stage.owner, &channel, &spelled(&promise, &PAYER)).await.as_ref(), Ok(&receipt));
    // The receipt outlives the voucher's time, because it says what happened in time. It does not make another message good.
    stage.world.turn(Duration::from_mins(2));
    assert_eq!(stage.claim(&stage.owner, &channel, &spelled(&promise, &PAYER)).await.as_ref(), Ok(&receipt));
    for (valid_until, code) in [(dawn + 61, Some("VOUCHER_EXPIRED")), (0, None), (dawn + 600, None)] {
        let twin = spelled(&Voucher { valid_until, ..promise }, &PAYER);
        match code {
            Some(code) => assert_eq!(stage.claim_refused(&channel, &twin).await, code),
            None => assert_eq!(stage.claim(&stage.owner, &channel, &twin).await.as_ref(), Ok(&receipt)),
        }
    }
    // Nobody gets a receipt by guessing a nonce.
    assert_eq!(stage.claim_refused(&channel, &spelled(&promise, &OTHER)).await, "SIGNATURE_INVALID");
    stage.act(&stage.owner, "settleChannel", &channel, &json!({})).await.unwrap();
    // Also when it is closed, which the answer tells.
    for again in [
        attempt(&stage.owner, "claimVoucher", input).await,
        stage.claim(&stage.owner, &channel, &spelled(&promise, &PAYER)).await,
    ] {
        let again = again.unwrap();
        assert_eq!((&again["nonce"], &again["amount"]), (&receipt["nonce"], &receipt["amount"]));
        assert_eq!((&receipt["channel"]["status"], &again["channel"]["status"]), (&json!("OPEN"), &json!("CLOSED")));
    }
    assert_eq!(stage.claim_refused(&channel, &stage.signed(&channel, 2, 3_000_000)).await, "CHANNEL_CLOSED");
    assert_eq!(stage.funds().await, closed_with(2_000_000));
    stage.check().await;
}

#[tokio::test]
async fn attack_15_the_deposit_bounds_the_sum_and_not_the_step() {
    let stage = Stage::set().await;
    let channel = stage.open(&json!({})).await;
    stage.claimed(&channel, 1, 6_000_000).await;
    // What is left is 4: a sum of 4 is less than what was paid, and a sum of 9 is a step of 3.
    assert_eq!(stage.claim_refused(&channel, &stage.signed(&channel, 2, 4_000_000)).await, "ALREADY_PAID");
    stage.claimed(&channel, 2, 9_000_000).await;
    assert_eq!(stage.claim_refused(&channel, &stage.signed(&channel, 3, 10_000_001)).await, "ABOVE_DEPOSIT");
    stage.claimed(&channel, 3, 10_000_000).await;
    assert_eq!(stage.claim_refused(&channel, &stage.signed(&channel, 4, 10_000_000)).await, "ALREADY_PAID");
    assert_eq!(stage.funds().await, open_with(10_000_000));
    stage.check().await;
}

#[tokio::test]
async fn attack_16_an_unknown_outcome_is_not_a_refusal() {
    let stage = Stage::set().await;
    let channel = stage.open(&json!({ "signerKey": null })).await;
    let owner = stage.payer.id().parse::<UserId>().unwrap().uuid();
    let set = async |balance: i64| {
        let cheat = async |work: &mut Work| {
            account::Entity::update_many()
                .col_expr(account::Column::Balance, Expr::value(balance))
                .filter(account::Column::OwnerId.eq(owner))
                .exec(work.tx())
                .await?;
            Ok(())
        };
        stage.world.app.store().write(Caller::System, cheat).await.unwrap();
        stage.world.app.audit().await.unwrap();
    };
    // While the books are under repair the answer is that it can be asked again, and no refusal that a payer could take for good.
    set(1).await;
    let input = json!({ "channelId": channel.id, "amount": "1", "idempotencyKey": "unknown" });
    let document = "mutation($input: DeductFromChannelInput!) { deductFromChannel(input: $input) { change { paid } userErrors { code } } }";
    let errors = stage.payer.try_query(document, json!({ "input": input })).await.unwrap_err();
    let extensions = &errors[0]["extensions"];
    assert_eq!((&extensions["code"], &extensions["retryable"]), (&json!("UNAVAILABLE"), &json!(true)));
    set(990_000_000).await;
    // The same intent again, as often as it takes, pays once.
    for _ in 0..3 {
        let done = stage.payer.query(document, json!({ "input": input })).await;
        assert_eq!(done["deductFromChannel"], json!({ "change": { "paid": "1" }, "userErrors": [] }));
    }
    assert_eq!(stage.funds().await, open_with(1_000_000));
    stage.check().await;
}

#[tokio::test]
async fn attack_17_nothing_is_served_for_a_claim_that_failed() {
    let stage = Stage::set().await;
    let channel = stage.open(&json!({})).await;
    let row = stage.row(&channel).await;
    let config = stream::configuration(&row, stage.instance).unwrap();
    assert_eq!(config.id(), channel.hash);
    let mut payee = Payee::new(&config, 600);
    let dawn = u64::try_from(stage.world.now().micros() / 1_000_000).unwrap();
    let seen = async || {
        let document = "query($id: ID!) { channel(id: $id) { status deposit paid } }";
        let seen = stage.owner.query(document, json!({ "id": channel.id })).await["channel"].take();
        let micros = |name: &str| {
            let amount: entity::money::Amount = seen[name].as_str().unwrap().parse().unwrap();
            u64::try_from(amount.micros()).unwrap()
        };
        let standing = match seen["status"].as_str().unwrap() {
            "OPEN" => Standing::Open,
            "CLOSING" => Standing::Closing,
            _ => Standing::Closed,
        };
        Seen { standing, deposit: micros("deposit"), paid: micros("paid") }
    };
    let offer = |nonce, cumulative| {
        let voucher = stage.voucher(&channel, nonce, cumulative);
        SignedVoucher { voucher, signature: voucher.sign(&PAYER) }
    };
    // Whatever the market would refuse the agent refuses first, and a refused claim says so and has no receipt (see `attempt`).
    let above = offer(1, 10_000_001);
    assert_eq!(payee.accept(&above, 1, &seen().await, dawn), Err(NotServed::AboveDeposit));
    assert_eq!(stage.claim_refused(&channel, &with_signature(&above.voucher, &above.signature)).await, "ABOVE_DEPOSIT");
    assert_eq!(payee.accept(&offer(1, 1_000_000), 1_000_000, &seen().await, dawn), Ok(1_000_000));
    assert_eq!(payee.accept(&offer(2, 2_000_000), 1_000_000, &seen().await, dawn), Ok(1_000_000));
    stage.act(&stage.payer, "requestChannelClose", &channel, &json!({})).await.unwrap();
    assert_eq!(payee.accept(&offer(3, 3_000_000), 1_000_000, &seen().await, dawn), Err(NotServed::NotOpen));
    // It sees the close coming and claims all that it served for.
    let last = *payee.to_claim(u64::MAX, &seen().await, dawn).unwrap();
    stage.claim(&stage.owner, &channel, &with_signature(&last.voucher, &last.signature)).await.unwrap();
    assert_eq!(payee.to_claim(0, &seen().await, dawn), None);
    assert_eq!(stage.funds().await, open_with(2_000_000));
    stage.check().await;
}

#[tokio::test]
async fn attack_18_a_payer_who_closes_right_after_signing() {
    let stage = Stage::set().await;
    let (watched, slept) = (stage.open(&json!({})).await, stage.open(&json!({})).await);
    for channel in [&watched, &slept] {
        stage.act(&stage.payer, "requestChannelClose", channel, &json!({})).await.unwrap();
    }
    // The delay is the agent's to claim in.
    stage.world.pass(DELAY.checked_sub(Duration::from_secs(1)).unwrap()).await;
    stage.claimed(&watched, 1, 10_000_000).await;
    stage.world.pass(Duration::from_secs(1)).await;
    // Who sleeps through all of it has lost what was not claimed; the payer has it back, and not twice.
    assert_eq!(stage.claim_refused(&slept, &stage.signed(&slept, 1, 10_000_000)).await, "CHANNEL_CLOSED");
    assert_eq!(stage.refused(&stage.payer, "cancelChannelClose", &slept, &json!({})).await, "CHANNEL_CLOSED");
    assert_eq!(stage.funds().await, closed_with(10_000_000));
    stage.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn attack_19_a_channel_with_the_configuration_of_an_older_one() {
    let stage = Stage::set().await;
    let salt = json!({ "salt": "77".repeat(32) });
    let first = stage.open(&salt).await;
    let again = async || stage.payer.refusal("openChannel", stage.opening(&salt)).await;
    let before = stage.funds().await;
    assert_eq!(again().await, "CHANNEL_EXISTS");
    assert_eq!(stage.funds().await, before);
    stage.claimed(&first, 1, 1_000_000).await;
    stage.act(&stage.owner, "settleChannel", &first, &json!({})).await.unwrap();
    assert_eq!(again().await, "CHANNEL_EXISTS", "for ever");
    // Another salt is another channel, where nothing of the old one is good.
    let second = stage.open(&json!({ "salt": "78".repeat(32) })).await;
    assert_ne!(first.hash, second.hash);
    assert_eq!(stage.claim_refused(&second, &stage.signed(&first, 1, 1_000_000)).await, "SIGNATURE_INVALID");
    // Two at once: one opens.
    let salt = json!({ "salt": "79".repeat(32) });
    let document =
        "mutation($input: OpenChannelInput!) { openChannel(input: $input) { channel { id } userErrors { code } } }";
    let rivals = join_all((0..4).map(|_| stage.payer.query(document, json!({ "input": stage.opening(&salt) })))).await;
    let refused = rivals.iter().filter(|it| it["openChannel"]["userErrors"][0]["code"] == "CHANNEL_EXISTS").count();
    assert_eq!(refused, 3, "{rivals:#?}");
    stage.check().await;
}

#[tokio::test]
async fn attack_20_numbers_that_are_none() {
    let stage = Stage::set().await;
    let channel = stage.open(&json!({})).await;
    let before = stage.funds().await;
    let good = stage.signed(&channel, 1, 1_000_000);
    let document =
        "mutation($input: ClaimVoucherInput!) { claimVoucher(input: $input) { change { paid } userErrors { code } } }";
    for field in ["nonce", "cumulative", "validUntil"] {
        for bad in [
            json!("-1"),
            json!("-0"),
            json!("01"),
            json!("+1"),
            json!(" 1"),
            json!("1.0"),
            json!("1e3"),
            json!("0x1"),
            json!(""),
            json!("18446744073709551615"),
            json!("9223372036854775808"),
            json!(1),
            json!(1.5),
            json!(true),
        ] {
            let mut voucher = good.clone();
            voucher[field] = bad.clone();
            let input = json!({ "channelId": channel.id, "voucher": voucher, "idempotencyKey": fresh_key() });
            match stage.owner.try_query(document, json!({ "input": input })).await {
                Ok(answer) => {
                    assert_eq!(answer["claimVoucher"]["userErrors"][0]["code"], "INVALID_INPUT", "{field} {bad}");
                }
                Err(errors) => {
                    assert_eq!(errors[0]["extensions"]["code"], "BAD_USER_INPUT", "{field} {bad}: {errors:#?}");
                }
            }
        }
    }
    for (field, bad) in [
        ("nonce", "0"),
        ("cumulative", "0"),
        ("cumulative", "1000000000000001"),
        ("contextHash", "00"),
        ("signature", "00"),
        ("signature", ""),
    ] {
        let mut voucher = good.clone();
        voucher[field] = json!(bad);
        assert_eq!(stage.claim_refused(&channel, &voucher).await, "INVALID_INPUT", "{field} {bad}");
    }
    // The largest values that can be said are read, checked and refused by the rules.
    let largest = u64::try_from(i64::MAX).unwrap();
    let huge = stage.signed(&channel, largest, 1_000_000_000_000_000);
    assert_eq!(stage.claim_refused(&channel, &huge).await, "ABOVE_DEPOSIT");
    assert_eq!(
        stage.refused(&stage.payer, "topUpChannel", &channel, &json!({ "amount": "1000000000" })).await,
        "DEPOSIT_TOO_LARGE"
    );
    assert_eq!(stage.funds().await, before);
    // A payer who uses up all nonces has none left, and time gives the rest back.
    stage.claimed(&channel, largest, 1).await;
    assert_eq!(stage.claim_refused(&channel, &stage.signed(&channel, 1, 2)).await, "VOUCHER_STALE");
    stage.check().await;
}

#[tokio::test]
async fn attack_21_an_agent_that_is_gone_at_the_close() {
    let stage = Stage::set().await;
    let (retired, suspended) = (stage.open(&json!({})).await, stage.open(&json!({})).await);
    stage.owner.call("retireAgent", "agent { status }", json!({ "agentId": stage.agent.to_string() })).await;
    assert_eq!(stage.payer.refusal("openChannel", stage.opening(&json!({}))).await, "AGENT_NOT_READY");
    // What was promised before is still paid and the agent closes.
    let last = json!({ "voucher": stage.signed(&retired, 1, 1_000_000) });
    stage.act(&stage.owner, "settleChannel", &retired, &last).await.unwrap();
    let id: UserId = stage.owner.id().parse().unwrap();
    let suspend = async |work: &mut Work| {
        let row = user::ActiveModel { id: Set(id), status: Set(user::Status::Suspended), ..Default::default() };
        row.update(work.tx()).await?;
        Ok(())
    };
    stage.world.app.store().write(Caller::System, suspend).await.unwrap();
    stage.world.turn(Duration::from_secs(5));
    let before = stage.funds().await;
    let input = json!({ "channelId": suspended.id, "voucher": stage.signed(&suspended, 1, 2_000_000), "idempotencyKey": fresh_key() });
    assert_eq!(stage.owner.fault("claimVoucher", input).await, "UNAUTHENTICATED");
    assert_eq!(stage.funds().await, before);
    // Somebody else brings the voucher: the agent's account is credited, whoever its owner is now. Nothing is stranded.
    stage.claim(&stage.eve, &suspended, &stage.signed(&suspended, 1, 2_000_000)).await.unwrap();
    stage.act(&stage.payer, "requestChannelClose", &suspended, &json!({})).await.unwrap();
    stage.world.pass(DELAY).await;
    assert_eq!(stage.row(&suspended).await.status, channel::Status::Closed);
    assert_eq!(stage.funds().await, closed_with(3_000_000));
    stage.check().await;
}

/// A copy of the database as it is now.
async fn back_up(world: &World) {
    use sea_orm::ConnectionTrait;
    // The service's own connection for reading may not do this.
    let db = sea_orm::Database::connect(world.database_url()).await.unwrap();
    if !on_postgres() {
        let file = world.folder().join("backup.db");
        db.execute_unprepared(&format!("VACUUM INTO '{}'", file.display())).await.unwrap();
        return;
    }
    db.execute_unprepared(
        "CREATE SCHEMA backup; DO $$ DECLARE name text; BEGIN \
         FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP \
         EXECUTE format('CREATE TABLE backup.%I AS TABLE public.%I', name, name); END LOOP; END $$",
    )
    .await
    .unwrap();
}

/// A process over the database as it was at the copy: whatever happened since is forgotten.
async fn restored(world: &World) -> App {
    use sea_orm::ConnectionTrait;
    let mut config = world.app.config().clone();
    if on_postgres() {
        let db = world.app.store().read();
        db.execute_unprepared(
            "DO $$ DECLARE name text; BEGIN SET LOCAL session_replication_role = replica; \
             FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP \
             EXECUTE format('DELETE FROM public.%I', name); \
             EXECUTE format('INSERT INTO public.%I OVERRIDING SYSTEM VALUE SELECT * FROM backup.%I', name, name); \
             END LOOP; END $$",
        )
        .await
        .unwrap();
    } else {
        config.storage.url = format!("sqlite:{}", world.folder().join("backup.db").display());
    }
    App::open(config, world.app.store().clock().clone(), Entropy::seeded(0xbac)).await.unwrap()
}

#[tokio::test]
async fn attack_22_an_old_backup_of_the_database() {
    use zerostate::channel::stream::{Offer, Outcome};
    let stage = Stage::set().await;
    let channel = stage.open(&json!({})).await;
    stage.claimed(&channel, 1, 1_000_000).await;
    back_up(&stage.world).await;
    stage.claimed(&channel, 2, 2_000_000).await;
    stage.claimed(&channel, 3, 3_000_000).await;
    let app = restored(&stage.world).await;
    // The market forgot two claims. The agent still has its newest voucher, which says all that the forgotten ones said.
    let id: ChannelId = channel.id.parse().unwrap();
    let read = async || channel::Entity::find_by_id(id).one(app.store().read()).await.unwrap().unwrap();
    assert_eq!(read().await.paid.micros(), 1_000_000);
    let owner = Caller::User(zerostate::caller::Identity {
        user: stage.owner.id().parse().unwrap(),
        role: user::Role::User,
        session: None,
        key: None,
        expires_at: None,
    });
    let claim = async |nonce: u64, cumulative: u64| {
        let promise = stage.voucher(&channel, nonce, cumulative);
        let offer = Offer {
            nonce: i64::try_from(nonce).unwrap(),
            cumulative: entity::money::Amount::from_micros(i64::try_from(cumulative).unwrap()).unwrap(),
            valid_until: 0,
            context_hash: [0; 32],
            signature: promise.sign(&PAYER),
        };
        app.store().write(owner.clone(), async |work| stream::claim(work, id, &offer).await).await
    };
    // The voucher from before the backup pays nothing again, the newest pays exactly what was forgotten.
    assert!(matches!(claim(1, 1_000_000).await, Ok(Outcome::Done(first)) if first.nonce == 2));
    assert_eq!(read().await.paid.micros(), 1_000_000);
    assert!(matches!(claim(3, 3_000_000).await, Ok(Outcome::Done(_))));
    assert_eq!(read().await.paid.micros(), 3_000_000);
    assert_eq!(claim(2, 2_000_000).await.unwrap_err().refusal_code(), Some("VOUCHER_STALE"));
    let audit = app.audit().await.unwrap();
    assert!(audit.ok(), "{audit:#?}");
    stage.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_at_once_on_one_channel() {
    const CALLS: u64 = 64;
    let stage = Stage::with_fee(250).await;
    for round in 0..3_u64 {
        let channel = stage.open(&json!({ "deposit": "5" })).await;
        let calls = (1..=CALLS).map(async |number| {
            let kind = (number * 7 + round) % 16;
            let promise = stage.signed(&channel, number, number * 100_000);
            let (by, field, more) = match kind {
                0..=6 => {
                    (if kind == 0 { &stage.eve } else { &stage.owner }, "claimVoucher", json!({ "voucher": promise }))
                }
                7 | 8 => (&stage.payer, "topUpChannel", json!({ "amount": "0.25" })),
                9 | 10 => (&stage.payer, "requestChannelClose", json!({})),
                11 | 12 => (&stage.payer, "cancelChannelClose", json!({})),
                13 => (&stage.payer, "deductFromChannel", json!({ "amount": "1" })),
                14 => (&stage.eve, "settleChannel", json!({})),
                _ if number > CALLS - 8 => (&stage.owner, "settleChannel", json!({ "voucher": promise })),
                _ => (&stage.payer, "settleChannel", json!({})),
            };
            (field, number, stage.act(by, field, &channel, &more).await)
        });
        let came = join_all(calls).await;
        let mut topped_up = 0;
        let mut highest = 0;
        for (field, number, answer) in &came {
            match answer {
                Ok(change) if *field == "topUpChannel" => {
                    assert_eq!(change["kind"], "TOPPED_UP");
                    topped_up += 250_000;
                }
                Ok(_) if *field == "claimVoucher" => highest = highest.max(number * 100_000),
                Ok(change) if *field == "settleChannel" => {
                    assert_eq!(change["kind"], "CLOSED");
                    let paid: entity::money::Amount = change["paid"].as_str().unwrap().parse().unwrap();
                    highest = highest.max(u64::try_from(paid.micros()).unwrap());
                }
                Ok(_) => assert!(field.ends_with("Close"), "{field}"),
                Err(code) => {
                    let expected: &[&str] = match *field {
                        "claimVoucher" => &["VOUCHER_STALE", "ABOVE_DEPOSIT", "CHANNEL_CLOSED"],
                        "topUpChannel" => &["CHANNEL_CLOSED"],
                        "deductFromChannel" => &["SIGNER_REQUIRED", "CHANNEL_CLOSED"],
                        "requestChannelClose" => &["CLOSE_REQUESTED", "CHANNEL_CLOSED"],
                        "cancelChannelClose" => &["CLOSE_NOT_REQUESTED", "CHANNEL_CLOSED"],
                        _ => &["NOT_FOUND", "CHANNEL_NOT_EXPIRED", "CHANNEL_CLOSED", "VOUCHER_STALE", "ABOVE_DEPOSIT"],
                    };
                    assert!(expected.contains(&code.as_str()), "{field}: {code}");
                }
            }
        }
        assert!(came.iter().all(|(field, _, answer)| *field != "deductFromChannel" || answer.is_err()));
        // What the answers said is what the channel has.
        let row = stage.row(&channel).await;
        assert_eq!(u64::try_from(row.paid.micros()).unwrap(), highest);
        assert_eq!(row.deposit.micros(), 5_000_000 + topped_up);
        let changes = came.iter().filter(|(_, _, answer)| answer.is_ok()).count();
        let extra = came
            .iter()
            .filter(|(field, number, answer)| *field == "settleChannel" && answer.is_ok() && *number > CALLS - 8);
        let with_voucher = i64::try_from(extra.count()).unwrap();
        assert_eq!(row.nonce, 1 + i64::try_from(changes).unwrap() + with_voucher, "every change counts once");
        let funds = stage.funds().await;
        assert_eq!(funds.iter().sum::<i64>(), 1_000_000_000);
        if row.status != channel::Status::Closed {
            stage.act(&stage.owner, "settleChannel", &channel, &json!({})).await.unwrap();
        }
        assert_eq!(stage.events(&channel, Kind::ChannelClosed).await, 1);
        assert_eq!(stage.funds().await[1], 0);
    }
    stage.check().await;
}

#[tokio::test]
async fn what_happens_to_channels_is_counted() {
    let stage = Stage::with_fee(1_000).await;
    let scrape = async || {
        let text = stage.world.http().get(stage.world.url("/metrics")).send().await.unwrap().text().await.unwrap();
        let number = |series: &str| {
            let line = text.lines().find(|line| line.starts_with(&format!("zerostate_{series} ")));
            line.unwrap_or_else(|| panic!("{series}")).rsplit_once(' ').unwrap().1.to_owned()
        };
        let events = ["opened", "funded", "paid", "closing", "reopened", "closed", "equivocation"];
        let mut all: Vec<String> =
            events.iter().map(|event| number(&format!("payment_channel_events_total{{event=\"{event}\"}}"))).collect();
        all.extend(
            [
                "payments_total{asset=\"credits\",outcome=\"succeeded\"}",
                "payment_amount_credits_count{asset=\"credits\"}",
                "payment_amount_credits_sum{asset=\"credits\"}",
                "fees_micro_credits_total{asset=\"credits\"}",
            ]
            .map(number),
        );
        all
    };
    assert!(scrape().await.iter().all(|value| value == "0"));
    let channel = stage.open(&json!({})).await;
    stage.claimed(&channel, 1, 1_000_000).await;
    stage.claimed(&channel, 1, 1_000_000).await;
    assert_eq!(stage.claim_refused(&channel, &stage.signed(&channel, 1, 2)).await, "EQUIVOCATION");
    stage.act(&stage.payer, "topUpChannel", &channel, &json!({ "amount": "1" })).await.unwrap();
    stage.act(&stage.payer, "requestChannelClose", &channel, &json!({})).await.unwrap();
    stage.act(&stage.payer, "cancelChannelClose", &channel, &json!({})).await.unwrap();
    let agreement = agreed(&stage.close(&channel, 2, 3_000_000), &PAYER, &AGENT);
    stage.act(&stage.owner, "settleChannel", &channel, &agreement).await.unwrap();
    assert_eq!(scrape().await, ["1", "1", "1", "1", "1", "1", "1", "2", "2", "3", "300000"]);
    stage.check().await;
}
