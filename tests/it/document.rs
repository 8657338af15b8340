//! Certificates and receipts: every award and every settlement has one that verifies without the market, and nothing in them can
//! be changed unnoticed; what decides and what was paid not even by who holds the market's key.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signer, SigningKey};
use entity::{
    document,
    id::{AgentId, AuctionId},
    money::Amount,
    user::Role,
};
use sea_orm::{ConnectionTrait, EntityTrait};
use serde_json::{Value, json};
use zerostate::{
    caller::{Caller, Identity},
    document::{
        canonical::canonical,
        seal::{Sealed, seal},
        value::{Hex, PublicKey},
        verification::{Verdict, verify},
    },
    store::Work,
    task, voucher,
};

use crate::world::{Client, PATIENCE, World, answering, crashing, echoing, on_postgres, sha256};

/// All that a signed document says.
const DOCUMENT: &str = "id kind version body sha256 signature publicKey verifiesWith createdAt bundle";

/// A buyer with 1,000 credits and two sellers with an external agent each.
struct Market {
    world: World,
    ada: Client,
    bob: Client,
    cleo: Client,
    bobs: AgentId,
    cleos: AgentId,
}

impl Market {
    async fn start() -> Self {
        let world = World::start().await;
        let (ada, bob, cleo) = (world.user("ada").await, world.user("bob").await, world.user("cleo").await);
        world.credit(&ada, "1000").await;
        let bobs = world.agent(&bob, "bobs", "EXTERNAL", "text.stats", "1").await;
        let cleos = world.agent(&cleo, "cleos", "EXTERNAL", "text.stats", "1").await;
        Self { world, ada, bob, cleo, bobs, cleos }
    }

    /// Closes an auction of an hour and checks its certificate as a stranger would.
    async fn certified(&self, auction: &str) -> Value {
        self.world.pass(Duration::from_hours(1)).await;
        self.compared(auction).await
    }

    /// What the certificate of an auction says, after a comparison with the auction as everybody sees it.
    async fn compared(&self, auction: &str) -> Value {
        let stranger = self.world.anonymous();
        let body = verified(&self.world, &certificate(&stranger, auction).await);
        let shown = stranger.auction(auction).await;
        assert_eq!(body["award"]["bidId"], shown["winningBid"]["id"]);
        assert_eq!(body["award"]["agentId"], shown["winningBid"]["agent"]["id"]);
        assert_eq!(body["award"]["price"], shown["clearingPrice"]);
        for field in ["id", "budget", "kind", "visibility", "awardMode", "maxPrice", "reservePrice", "capabilities"] {
            assert_eq!(body["auction"][field], shown[field], "{field}");
        }
        let told = |bid: &Value| (bid["price"].clone(), bid["status"].clone(), bid["rank"].clone());
        let stood: Vec<_> = body["bids"].as_array().unwrap().iter().map(told).collect();
        let stands = |bid: &&Value| bid["status"] != "REPLACED" && bid["status"] != "WITHDRAWN";
        let seen: Vec<_> = shown["bids"]["nodes"].as_array().unwrap().iter().filter(stands).map(told).collect();
        assert_eq!(stood, seen);
        body
    }
}

/// The key of a world's market.
fn public_key(world: &World) -> PublicKey {
    Hex(world.app.store().instance().unwrap().public_key())
}

/// The private half, which a cheating operator has.
fn market_key(world: &World) -> SigningKey {
    let pem = std::fs::read_to_string(world.app.config().data.join("keys/instance.key")).unwrap();
    let der = STANDARD.decode(pem.lines().filter(|line| !line.starts_with("-----")).collect::<String>()).unwrap();
    let key = SigningKey::from_bytes(der[der.len() - 32..].try_into().unwrap());
    assert_eq!(Hex(key.verifying_key().to_bytes()), public_key(world));
    key
}

/// The newest certificate of an auction, as `client` sees it.
async fn certificate(client: &Client, auction: &str) -> Value {
    let document = format!("query($id: ID!) {{ awardCertificate(auctionId: $id) {{ {DOCUMENT} }} }}");
    client.query(&document, json!({ "id": auction })).await["awardCertificate"].take()
}

/// The newest receipt of a task, as `client` sees it.
async fn receipt(client: &Client, task: &str) -> Value {
    let document = format!("query($id: ID!) {{ taskReceipt(taskId: $id) {{ {DOCUMENT} }} }}");
    client.query(&document, json!({ "id": task })).await["taskReceipt"].take()
}

fn pinned(world: &World, text: &str) -> Verdict {
    verify(text, Some(public_key(world))).unwrap()
}

fn problems(verdict: &Verdict) -> Vec<String> {
    let all = verdict.documents.iter().flat_map(|document| &document.findings.problems);
    all.map(|finding| format!("{}: {}", finding.at, finding.why)).collect()
}

/// What rests on the market's word in the documents of a text.
fn notes(verdict: &Verdict) -> Vec<&str> {
    verdict.documents.iter().flat_map(|document| &document.findings.notes).map(String::as_str).collect()
}

/// What a document of the interface says, after a check of it and of its bundle under the key of the market.
#[track_caller]
fn verified(world: &World, document: &Value) -> Value {
    for text in [document.to_string(), document["bundle"].as_str().expect("a document").to_owned()] {
        let verdict = pinned(world, &text);
        assert!(verdict.ok && verdict.pinned, "{:#?}", problems(&verdict));
    }
    let body = document["body"].as_str().unwrap();
    assert_eq!(document["sha256"], sha256(body));
    assert_eq!(document["publicKey"], public_key(world).to_string());
    serde_json::from_str(body).unwrap()
}

#[tokio::test]
async fn every_kind_of_award_has_a_certificate_that_verifies() {
    let market = Market::start().await;
    let Market { world, ada, bob, cleo, bobs, cleos } = &market;
    let dora = world.user("dora").await;
    let doras = world.agent(&dora, "doras", "EXTERNAL", "text.stats", "1").await;

    // First price, sealed, with a bid that was replaced and one that was withdrawn.
    let auction = ada.open(json!({ "startTimeout": "P7D" })).await;
    bob.bid(&auction, *bobs, "9").await;
    bob.bid(&auction, *bobs, "4").await;
    cleo.bid(&auction, *cleos, "6").await;
    let back = dora.bid(&auction, doras, "2").await;
    dora.call("withdrawBid", "bid { id }", json!({ "bidId": back })).await;
    assert!(certificate(&world.anonymous(), &auction).await.is_null(), "nothing is certified before the award");
    let body = market.certified(&auction).await;
    assert_eq!((&body["award"]["decision"], &body["award"]["price"]), (&json!("BEST_SCORE"), &json!("4")));
    assert_eq!(body["award"]["criticalPrice"], "6", "told also where it is not paid");
    // wp·(B − p)·10⁴ = 4000·6000000·10⁴ and wr·B·R = 6000·10000000·4250.
    let score = json!({ "total": "495000000000000", "price": "240000000000000", "reputation": "255000000000000" });
    assert_eq!(body["bids"][0]["score"], score);

    // Second price, open, a perfect tie.
    let terms = json!({ "kind": "SECOND_PRICE", "visibility": "OPEN", "startTimeout": "P7D" });
    let auction = ada.open(terms).await;
    cleo.bid(&auction, *cleos, "5").await;
    bob.bid(&auction, *bobs, "5").await;
    let body = market.certified(&auction).await;
    assert_eq!((&body["award"]["agentId"], &body["award"]["price"]), (&json!(cleos.to_string()), &json!("5")));
    assert_eq!(body["award"]["payment"], "CRITICAL_PRICE");

    // Second price, alone under a reserve; the rival above it could not win.
    let terms = json!({ "kind": "SECOND_PRICE", "reservePrice": "7", "startTimeout": "P7D" });
    let auction = ada.open(terms).await;
    bob.bid(&auction, *bobs, "3").await;
    cleo.bid(&auction, *cleos, "7.000001").await;
    let body = market.certified(&auction).await;
    assert_eq!((&body["award"]["price"], &body["award"]["cap"]), (&json!("7"), &json!("7")));
    assert_eq!(body["bids"][1]["ineligible"], "PRICE_ABOVE_CAP");
    assert!(body["award"]["rivalBidId"].is_null());

    // Weights at both ends, and a ceiling.
    for (weight, rival, paid) in [("0", "5", "8"), ("100", "5", "5"), ("33.33", "6.5", "6.5")] {
        let terms = json!({ "kind": "SECOND_PRICE", "priceWeight": weight, "maxPrice": "8", "startTimeout": "P7D" });
        let auction = ada.open(terms).await;
        bob.bid(&auction, *bobs, "4").await;
        cleo.bid(&auction, *cleos, rival).await;
        assert_eq!(market.certified(&auction).await["award"]["price"], paid, "{weight}");
    }

    // By hand: to the best, and to a named one.
    for (named, decision, paid) in [(false, "BEST_SCORE", "4"), (true, "NAMED", "5")] {
        let auction = ada.open(json!({ "awardMode": "MANUAL", "startTimeout": "P7D" })).await;
        bob.bid(&auction, *bobs, "4").await;
        let dear = cleo.bid(&auction, *cleos, "5").await;
        let chosen = named.then_some(dear);
        ada.call("awardAuction", "auction { id }", json!({ "auctionId": auction, "bidId": chosen })).await;
        let body = market.compared(&auction).await;
        assert_eq!((&body["award"]["decision"], &body["award"]["price"]), (&json!(decision), &json!(paid)));
    }

    // An agent that does not qualify any more, which rests on the market's word.
    let auction = ada.open(json!({ "startTimeout": "P7D" })).await;
    let gone = dora.bid(&auction, doras, "1").await;
    bob.bid(&auction, *bobs, "4").await;
    dora.call("pauseAgent", "agent { id }", json!({ "agentId": doras.to_string() })).await;
    let body = market.certified(&auction).await;
    assert_eq!(body["bids"][0]["ineligible"], "AGENT_NOT_QUALIFIED");
    let document = certificate(ada, &auction).await;
    let verdict = pinned(world, &document.to_string());
    let noted = notes(&verdict);
    assert!(noted.len() == 1 && noted[0].starts_with(&gone), "{noted:?}");

    // Nobody is named but agents and who asks.
    for secret in [bob.id(), cleo.id(), dora.id(), "@", "\"bob", "\"cleo"] {
        assert!(!document["body"].as_str().unwrap().contains(secret), "{secret}");
    }
    // An auction without an award has none.
    let empty = ada.open(json!({})).await;
    world.pass(Duration::from_hours(1)).await;
    assert!(certificate(ada, &empty).await.is_null());
    market.world.check().await;
}

#[tokio::test]
async fn a_reputation_too_low_at_the_close_is_certified() {
    let market = Market::start().await;
    let Market { world, ada, bob, cleo, bobs, cleos } = &market;
    let trusted = ada.open(json!({ "minReputation": "42.5", "startTimeout": "P7D" })).await;
    bob.bid(&trusted, *bobs, "2").await;
    cleo.bid(&trusted, *cleos, "3").await;
    // Bob's agent fails to start elsewhere before the close.
    let other = ada.open(json!({ "closesIn": "PT1M", "startTimeout": "PT1S" })).await;
    bob.bid(&other, *bobs, "1").await;
    world.pass(Duration::from_mins(1)).await;
    world.pass(Duration::from_secs(1)).await;
    let body = market.certified(&trusted).await;
    assert_eq!(body["bids"][0]["ineligible"], "REPUTATION_TOO_LOW");
    assert_eq!(body["bids"][0]["reputation"], 4_027);
    assert_eq!(body["award"]["agentId"], cleos.to_string());
    market.world.check().await;
}

#[tokio::test]
async fn a_bid_that_takes_over_makes_the_next_certificate_and_a_task_that_nobody_starts_a_receipt() {
    let market = Market::start().await;
    let Market { world, ada, bob, cleo, bobs, cleos } = &market;
    let dora = world.user("dora").await;
    let doras = world.agent(&dora, "doras", "EXTERNAL", "text.stats", "1").await;
    let terms = json!({ "kind": "SECOND_PRICE", "closesIn": "PT1M", "startTimeout": "PT10S", "budget": "100" });
    let auction = ada.open(terms).await;
    bob.bid(&auction, *bobs, "10").await;
    let passed = cleo.bid(&auction, *cleos, "20").await;
    dora.bid(&auction, doras, "30").await;
    world.pass(Duration::from_mins(1)).await;
    let first = certificate(ada, &auction).await;
    assert_eq!(verified(world, &first)["award"]["price"], "20");
    let task = ada.auction(&auction).await["task"]["id"].as_str().unwrap().to_owned();
    assert!(receipt(ada, &task).await.is_null(), "nothing is settled");

    // Cleo's agent is away when its turn comes.
    cleo.call("pauseAgent", "agent { id }", json!({ "agentId": cleos.to_string() })).await;
    world.pass(Duration::from_secs(10)).await;
    let second = certificate(ada, &auction).await;
    let body = market.compared(&auction).await;
    assert_eq!((&second["version"], &body["previous"]), (&json!(2), &first["sha256"]));
    assert_eq!(
        (&body["award"]["decision"], &body["award"]["price"], &body["award"]["payment"]),
        (&json!("TAKE_OVER"), &json!("30"), &json!("OWN_PRICE"))
    );
    let bundle = pinned(world, second["bundle"].as_str().unwrap());
    assert!(bundle.ok && bundle.documents.len() == 2);
    let noted = notes(&bundle);
    assert!(noted.len() == 1 && noted[0].starts_with(&passed) && noted[0].contains("passed over"), "{noted:?}");

    // Dora's does not start either, and nobody is left.
    world.pass(Duration::from_secs(10)).await;
    let body = verified(world, &receipt(ada, &task).await);
    assert_eq!(body["settlement"]["status"], "EXPIRED");
    assert_eq!((&body["settlement"]["returned"], &body["settlement"]["paid"]), (&json!("30"), &json!("0")));
    assert_eq!(body["award"]["certificateSha256"], second["sha256"]);
    assert_eq!((&body["work"]["status"], &body["work"]["result"]), (&json!("FORFEITED"), &Value::Null));
    let each = |list: &str, field: &str| -> Vec<Value> {
        body[list].as_array().unwrap().iter().map(|item| item[field].clone()).collect()
    };
    assert_eq!(each("reputation", "cause"), ["TIMEOUT", "TIMEOUT"]);
    assert_eq!(each("transfers", "kind"), ["HOLD", "ESCROW", "RELEASE", "REFUND", "HOLD", "REFUND"]);

    let versions = "query($id: ID!) { auction(id: $id) { certificate { version versions(first: 1) {
        totalCount nodes { version sha256 } pageInfo { hasNextPage } } } } }";
    let listed = world.anonymous().query(versions, json!({ "id": auction })).await["auction"]["certificate"].take();
    assert_eq!((&listed["version"], &listed["versions"]["totalCount"]), (&json!(2), &json!(2)));
    assert_eq!(listed["versions"]["nodes"], json!([{ "version": 1, "sha256": first["sha256"] }]));
    assert_eq!(listed["versions"]["pageInfo"]["hasNextPage"], true);
    market.world.check().await;
}

#[tokio::test]
async fn a_settled_task_has_a_receipt_that_leads_back_to_its_award_and_input() {
    let world = World::with(|config| config.terms.fee_bps = 333).await;
    let (ada, bob) = (world.user("ada").await, world.user("bob").await);
    world.credit(&ada, "100").await;
    world.hosted_agent(&bob, "echo", "echo", "2.000001", echoing()).await;
    let schema = json!({ "type": "string" });
    let id = ada.execute(json!({ "capabilities": ["echo"], "input": "hello", "outputSchema": schema })).await;
    assert!(receipt(&ada, &id).await.is_null());
    world.settle().await;
    let first = receipt(&ada, &id).await;
    let body = verified(&world, &first);
    let task = ada.task(&id).await;
    assert_eq!(body["offer"]["inputSha256"], task["inputSha256"]);
    assert_eq!(body["offer"]["outputSchemaSha256"], sha256(schema.to_string()));
    assert_eq!(body["work"]["result"]["moduleSha256"], sha256(echoing()));
    assert_eq!(body["work"]["result"]["outputSha256"], sha256("\"hello\""));
    assert_eq!(body["work"]["attempts"], 1);
    assert_eq!(body["bid"]["id"], task["winningBid"]["id"]);
    let settled = &body["settlement"];
    assert_eq!((&settled["status"], &settled["channelId"]), (&json!("COMPLETED"), &task["channel"]["id"]));
    let amounts = ["price", "paid", "earned", "fee", "returned"].map(|name| settled[name].as_str().unwrap());
    assert_eq!(amounts, ["2.000001", "2.000001", "1.933401", "0.0666", "0"]);
    assert_eq!(body["reputation"][0]["cause"], "SUCCESS");
    let award = certificate(&world.anonymous(), task["auction"]["id"].as_str().unwrap()).await;
    assert_eq!(body["award"]["certificateSha256"], award["sha256"]);
    for secret in ["hello", "Count this", "@", bob.id()] {
        assert!(!first["body"].as_str().unwrap().contains(secret), "{secret}");
    }
    // The other party sees the same.
    assert_eq!(receipt(&bob, &id).await, first);
    assert!(receipt(&world.anonymous(), &id).await.is_null());
    // Alone it is right and says what is missing.
    let alone = pinned(&world, &json!({ "body": first["body"], "signature": first["signature"] }).to_string());
    assert!(alone.ok && notes(&alone) == ["The certificate of the award is not in the file."], "{alone:?}");

    // The stars make the next version.
    ada.call("rateAgent", "rating { id }", json!({ "taskId": id, "stars": 4, "comment": "fine" })).await;
    let second = receipt(&ada, &id).await;
    let rated = verified(&world, &second);
    assert_eq!((&second["version"], &rated["previous"]), (&json!(2), &first["sha256"]));
    assert_eq!((&rated["rating"]["stars"], &rated["rating"]["commentSha256"]), (&json!(4), &json!(sha256("fine"))));
    assert_eq!(rated["settlement"], body["settlement"]);
    assert_eq!(rated["reputation"][1]["cause"], "RATING");
    assert_eq!(pinned(&world, second["bundle"].as_str().unwrap()).documents.len(), 3);
    assert_eq!(world.rows("documents").await, 3);

    // Work that fails, and work that was never awarded.
    world.hosted_agent(&bob, "broken", "broken", "3", crashing()).await;
    let failed = ada.execute(json!({ "capabilities": ["broken"] })).await;
    world.settle().await;
    let body = verified(&world, &receipt(&ada, &failed).await);
    assert_eq!((&body["settlement"]["status"], &body["settlement"]["returned"]), (&json!("REFUNDED"), &json!("3")));
    assert_eq!(body["work"]["result"]["outcome"], "FAILED");
    assert_eq!(body["reputation"][0]["cause"], "FAILURE");
    let nobody = ada.execute(json!({ "capabilities": ["nobody"] })).await;
    assert!(receipt(&ada, &nobody).await.is_null());
    assert_eq!(ada.task(&nobody).await["status"], "EXPIRED");
    world.check().await;
}

/// The places of all values in a document that are no object and no list, as JSON pointers.
fn leaves(value: &Value) -> Vec<String> {
    fn walk(value: &Value, at: &str, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                fields.iter().for_each(|(name, field)| walk(field, &format!("{at}/{name}"), found));
            }
            Value::Array(items) => {
                items.iter().enumerate().for_each(|(place, item)| walk(item, &format!("{at}/{place}"), found));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => found.push(at.to_owned()),
        }
    }
    let mut found = Vec::new();
    walk(value, "", &mut found);
    found
}

/// Enumerators with another one that is allowed in the same place.
const OTHERS: [(&str, &str); 19] = [
    ("FIRST_PRICE", "SECOND_PRICE"),
    ("SECOND_PRICE", "FIRST_PRICE"),
    ("OWN_PRICE", "CRITICAL_PRICE"),
    ("CRITICAL_PRICE", "OWN_PRICE"),
    ("BEST_SCORE", "NAMED"),
    ("WON", "LOST"),
    ("LOST", "WON"),
    ("INELIGIBLE", "LOST"),
    ("PRICE_ABOVE_CAP", "AGENT_NOT_QUALIFIED"),
    ("COMPLETED", "REFUNDED"),
    ("SUCCEEDED", "FAILED"),
    ("SUCCESS", "FAILURE"),
    ("AUTOMATIC", "MANUAL"),
    ("PAYOUT", "REFUND"),
    ("FEE", "PAYOUT"),
    ("HOLD", "ESCROW"),
    ("ESCROW", "HOLD"),
    ("RELEASE", "REFUND"),
    ("SEALED", "OPEN"),
];

/// Another value of the same shape, as somebody would put it who wants the document to stay readable.
fn another(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_i64().unwrap() + 1),
        Value::Bool(flag) => json!(!flag),
        Value::Null => json!(1),
        Value::String(text) => {
            if let Some((_, other)) = OTHERS.iter().find(|(one, _)| one == text) {
                return json!(other);
            }
            if let Ok(amount) = text.parse::<Amount>() {
                return json!(Amount::from_micros(amount.micros() + 1).unwrap().to_string());
            }
            if let Some(instant) = text.strip_suffix('Z').filter(|instant| instant.contains('T')) {
                // Another micro-second.
                let (rest, last) = instant.split_at(instant.len() - 1);
                return json!(format!("{rest}{}Z", i32::from(last == "0")));
            }
            let last = text.chars().last().unwrap();
            let rest = &text[..text.len() - last.len_utf8()];
            json!(format!("{rest}{}", if last == '0' { '1' } else { '0' }))
        }
        Value::Array(_) | Value::Object(_) => panic!("a leaf"),
    }
}

/// A document with another value in one place.
fn with_another(body: &Value, place: &str) -> Value {
    let mut other = body.clone();
    let leaf = other.pointer_mut(place).unwrap();
    *leaf = another(leaf);
    assert_ne!(other, *body, "{place}");
    other
}

fn resigned(body: &Value, key: &SigningKey) -> Value {
    let Sealed { body, signature, .. } = seal(body, |message| key.sign(message).to_bytes()).unwrap();
    json!({ "body": body, "signature": signature.to_string() })
}

/// Changes every leaf of a document, one after the other: with the signature as it was and signed by somebody else it is always
/// found out. Answers the places that the market could change if it signed again and the verifier had nothing but the result.
fn believed(world: &World, document: &Value) -> Vec<String> {
    let body: Value = serde_json::from_str(document["body"].as_str().unwrap()).unwrap();
    let (market, mallory) = (market_key(world), SigningKey::from_bytes(&[66; 32]));
    let mallorys = Hex(mallory.verifying_key().to_bytes());
    let places = leaves(&body);
    assert!(places.len() > 40, "{places:?}");
    let mut believed = Vec::new();
    for place in places {
        let other = with_another(&body, &place);
        let kept = json!({ "body": canonical(&other).unwrap(), "signature": document["signature"] });
        let found = verify(&kept.to_string(), None).unwrap();
        // Where the body is no document any more, there is no key that the signature could be held against.
        let wrong = problems(&found);
        let unsealed = |problem: &String| ["signature", "body", "schema"].iter().any(|at| problem.starts_with(at));
        assert!(!found.ok && wrong.iter().any(unsealed), "{place}: {wrong:#?}");

        let mut named = other.clone();
        named["market"] = json!({
            "instanceId": hex::encode(voucher::instance_id(&mallorys.0)), "publicKey": mallorys.to_string(),
        });
        for forged in [&other, &named] {
            assert!(!pinned(world, &resigned(forged, &mallory).to_string()).ok, "{place}");
        }
        if pinned(world, &resigned(&other, &market).to_string()).ok {
            believed.push(place);
        }
    }
    believed
}

#[tokio::test]
async fn a_changed_certificate_is_found_out_and_so_is_a_market_that_changes_what_decided() {
    let market = Market::start().await;
    let Market { world, ada, bob, cleo, bobs, cleos } = &market;
    let dora = world.user("dora").await;
    let doras = world.agent(&dora, "doras", "EXTERNAL", "text.stats", "1").await;
    for kind in ["FIRST_PRICE", "SECOND_PRICE"] {
        let auction = ada.open(json!({ "kind": kind, "reservePrice": "8", "startTimeout": "P7D" })).await;
        bob.bid(&auction, *bobs, "4").await;
        cleo.bid(&auction, *cleos, "5").await;
        dora.bid(&auction, doras, "9").await;
        market.certified(&auction).await;
        let believed = believed(world, &certificate(ada, &auction).await);
        // What is left is the market's word on who and when, and terms that decided nothing here.
        let word = [
            "/id",
            "/issuedAt",
            "/auction/id",
            "/auction/taskId",
            "/auction/requesterId",
            "/auction/visibility",
            "/auction/awardMode",
            "/auction/maxPrice",
            "/auction/minReputation",
            "/auction/capabilities/0",
            "/auction/closeAfterBids",
            "/auction/bond",
            "/auction/openedAt",
            "/auction/closesAt",
            "/auction/closedAt",
            "/bids/0/submittedAt",
            "/bids/1/submittedAt",
            "/bids/2/submittedAt",
            // The order of arrival is the same whatever the last number is.
            "/bids/2/sequence",
            // Losers that are nobody's rival.
            "/bids/1/agentId",
            "/bids/2/agentId",
            "/bids/2/id",
        ];
        let unexpected: Vec<_> = believed.iter().filter(|place| !word.contains(&place.as_str())).collect();
        assert!(unexpected.is_empty(), "{kind}: {unexpected:#?}");
    }
    market.world.check().await;
}

#[tokio::test]
async fn a_changed_receipt_is_found_out_and_so_is_a_market_that_changes_the_money() {
    let world = World::with(|config| config.terms.fee_bps = 500).await;
    let (ada, bob) = (world.user("ada").await, world.user("bob").await);
    world.credit(&ada, "100").await;
    world.hosted_agent(&bob, "echo", "echo", "2", echoing()).await;
    let id = ada.execute(json!({ "capabilities": ["echo"], "budget": "5" })).await;
    world.settle().await;
    ada.call("rateAgent", "rating { id }", json!({ "taskId": id, "stars": 4 })).await;
    let document = receipt(&ada, &id).await;
    // Amounts, and from and to whom they went, cannot be changed. What was run is the market's word, which the hashes hold it to.
    let held = ["/settlement", "/transfers", "/award/price", "/market", "/schema", "/kind", "/version", "/bid/agentId"];
    let words = ["/settlement/failureCode", "/settlement/finishedAt"];
    let through: Vec<_> = believed(&world, &document)
        .into_iter()
        .filter(|place| held.iter().any(|held| place.starts_with(held)) && !words.contains(&place.as_str()))
        // The names of movements, and their time. The batch of the award has nothing to agree with.
        .filter(|place| {
            !["/id", "/createdAt", "/0/batchId", "/1/batchId", "/2/batchId"].iter().any(|end| place.ends_with(end))
        })
        .collect();
    assert!(through.is_empty(), "{through:#?}");

    // With the certificate beside it the bid and the offer are held too; with the version before it, all that is not new.
    let bundle: Value = serde_json::from_str(document["bundle"].as_str().unwrap()).unwrap();
    let (award, before) = (&bundle["documents"][0], &bundle["documents"][1]);
    let body: Value = serde_json::from_str(document["body"].as_str().unwrap()).unwrap();
    let key = market_key(&world);
    let by_award = [
        "/bid/id",
        "/bid/price",
        "/bid/reputation",
        "/bid/rank",
        "/bid/sequence",
        "/award/auctionId",
        "/award/certificate",
        "/offer/taskId",
        "/offer/budget",
        "/offer/requesterId",
        "/offer/capabilities",
    ];
    for place in leaves(&body) {
        let other = resigned(&with_another(&body, &place), &key);
        if by_award.iter().any(|held| place.starts_with(held)) {
            assert!(!pinned(&world, &json!([award, other]).to_string()).ok, "{place}");
        }
        let new = ["/rating/", "/reputation/1/", "/id", "/issuedAt"].iter().any(|new| place.starts_with(new));
        if !new {
            assert!(!pinned(&world, &json!([award, before, other]).to_string()).ok, "{place}");
        }
    }
    world.check().await;
}

#[tokio::test]
async fn a_changed_bill_is_found_out_even_if_the_market_changes_it() {
    let world = World::with(|config| config.terms.fee_bps = 500).await;
    let (ada, bob) = (world.user("ada").await, world.user("bob").await);
    world.credit(&ada, "100").await;
    let agent = world.hosted_agent(&bob, "echo", "echo", "2", echoing()).await.to_string();
    let input = json!({ "agentId": agent, "pricePerMillionFuel": "1" });
    bob.call("updateAgent", "agent { id }", input).await;
    let id = ada.execute(json!({ "capabilities": ["echo"], "budget": "5" })).await;
    world.settle().await;
    let document = receipt(&ada, &id).await;
    let body = verified(&world, &document);
    // A million units cost a credit, so a unit costs a micro-credit.
    let fuel: i64 = body["work"]["result"]["fuel"].as_str().unwrap().parse().unwrap();
    let charge = json!(Amount::from_micros(fuel).unwrap().to_string());
    assert_eq!((&body["bid"]["fuelPrice"], &body["settlement"]["charge"]), (&json!("1"), &charge));
    assert_eq!((&body["settlement"]["price"], &body["settlement"]["paid"]), (&json!("2"), &charge));
    let bill = ["bid/fuelPrice", "work/result/fuel", "settlement/charge", "settlement/paid", "settlement/price"];
    let believed = believed(&world, &document);
    assert!(!believed.iter().any(|place| bill.contains(&place.trim_start_matches('/'))), "{believed:#?}");

    // Nor can the meter be left out, or only one half of it.
    let key = market_key(&world);
    let without = |parts: &[(&str, &str)]| {
        let mut other = body.clone();
        for (part, field) in parts {
            other[part].as_object_mut().unwrap().remove(*field).unwrap();
        }
        resigned(&other, &key)
    };
    let (price, charge) = (("bid", "fuelPrice"), ("settlement", "charge"));
    for parts in [&[price][..], &[charge], &[price, charge]] {
        assert!(!pinned(&world, &without(parts).to_string()).ok, "{parts:?}");
    }
    // The price of the fuel is in the certificate too.
    let bundle: Value = serde_json::from_str(document["bundle"].as_str().unwrap()).unwrap();
    let award: Value = serde_json::from_str(bundle["documents"][0]["body"].as_str().unwrap()).unwrap();
    assert_eq!(award["bids"][0]["fuelPrice"], "1");
    let mut cheaper = award.clone();
    cheaper["bids"][0]["fuelPrice"] = json!("0.5");
    let mut follows = body.clone();
    follows["award"]["certificateSha256"] = json!(sha256(canonical(&cheaper).unwrap()));
    let both = json!([resigned(&cheaper, &key), resigned(&follows, &key)]);
    assert!(problems(&pinned(&world, &both.to_string())).iter().any(|problem| problem.starts_with("bid.fuelPrice")));
    world.check().await;
}

#[tokio::test]
async fn the_database_keeps_documents_as_they_are() {
    let world = World::start().await;
    let (ada, bob) = (world.user("ada").await, world.user("bob").await);
    world.credit(&ada, "100").await;
    world.hosted_agent(&bob, "one", "text.stats", "2", answering("1")).await;
    ada.execute(json!({})).await;
    world.settle().await;
    let url = world.database_url();
    let url = if on_postgres() { url } else { format!("{url}?mode=rwc") };
    let writer = sea_orm::Database::connect(url).await.unwrap();
    for statement in [
        "UPDATE documents SET body = '{}'",
        "UPDATE documents SET version = version + 1",
        "UPDATE documents SET signature = sha256 || sha256",
        "DELETE FROM documents",
        "INSERT INTO documents SELECT auction_id, kind, task_id, auction_id, version, body, sha256, signature, created_at \
         FROM documents WHERE version = 1",
    ] {
        assert!(writer.execute_unprepared(statement).await.is_err(), "{statement} went through");
    }
    assert_eq!(document::Entity::find().all(world.app.store().read()).await.unwrap().len(), 2);
    world.check().await;
}

#[tokio::test]
async fn an_award_takes_as_many_statements_with_many_bids_as_with_few() {
    let market = Market::start().await;
    let Market { world, ada, bob, bobs, .. } = &market;
    let mut rivals = Vec::new();
    for number in 0..12 {
        rivals.push(world.agent(bob, &format!("rival {number}"), "EXTERNAL", "text.stats", "1").await);
    }
    let (user, role) = (ada.id().parse().unwrap(), Role::User);
    let caller = Caller::User(Identity { user, role, session: None, key: None, expires_at: None });
    let mut costs = Vec::new();
    for rivals in [&rivals[..0], &rivals[..]] {
        let mut least = u64::MAX;
        for _ in 0..8 {
            let auction = ada.open(json!({ "awardMode": "MANUAL", "startTimeout": "P7D" })).await;
            for agent in rivals.iter().chain([bobs]) {
                bob.bid(&auction, *agent, "5").await;
            }
            let id: AuctionId = auction.parse().unwrap();
            let store = world.app.store();
            let award = async |work: &mut Work| {
                let before = store.statements();
                task::award(work, id, None).await.map(|_| store.statements() - before)
            };
            // The feed reads its log meanwhile, now and then; so the least of several counts.
            least = least.min(store.write(caller.clone(), award).await.unwrap());
            assert_eq!(market.compared(&auction).await["bids"].as_array().unwrap().len(), rivals.len() + 1);
        }
        costs.push(least);
    }
    // Twelve bids more may cost nothing; what is left is the feed's.
    assert!(costs[1] <= costs[0] + 3, "{costs:?}");
    market.world.check().await;
}

#[tokio::test]
async fn a_page_of_auctions_with_certificates_takes_two_statements() {
    let market = Market::start().await;
    let Market { world, ada, bob, bobs, .. } = &market;
    for _ in 0..5 {
        let auction = ada.open(json!({ "closeAfterBids": 1, "startTimeout": "P7D" })).await;
        bob.bid(&auction, *bobs, "4").await;
    }
    let mut least = u64::MAX;
    let since = Instant::now();
    while least > 2 && since.elapsed() < PATIENCE {
        let before = world.app.store().statements();
        let page = world.anonymous().query("{ auctions { nodes { certificate { version } } } }", json!({})).await;
        // The feed reads its log meanwhile, now and then; so this is tried until it does not.
        least = least.min(world.app.store().statements() - before);
        let nodes = page["auctions"]["nodes"].as_array().unwrap();
        assert!(nodes.len() == 5 && nodes.iter().all(|node| node["certificate"]["version"] == 1), "{page}");
    }
    assert_eq!(least, 2);
    market.world.check().await;
}

#[tokio::test]
async fn the_program_checks_the_answer_of_the_interface_offline() {
    let world = World::start().await;
    let (ada, bob) = (world.user("ada").await, world.user("bob").await);
    world.credit(&ada, "100").await;
    world.hosted_agent(&bob, "one", "text.stats", "2", answering("1")).await;
    let id = ada.execute(json!({})).await;
    world.settle().await;
    let auction = ada.task(&id).await["auction"]["id"].take();
    let query = format!(
        "query($id: ID!, $auction: ID!) {{
            taskReceipt(taskId: $id) {{ {DOCUMENT} }} awardCertificate(auctionId: $auction) {{ {DOCUMENT} }}
        }}"
    );
    let answer = ada.raw(&query, &json!({ "id": id, "auction": auction })).await.text;
    let folder = tempfile::tempdir().unwrap();
    let run = |text: &str, more: &[&str]| {
        let file = folder.path().join("answer.json");
        std::fs::write(&file, text).unwrap();
        // An empty folder: there is no database and no key.
        let mut command = Command::new(env!("CARGO_BIN_EXE_zerostate"));
        for (name, _) in std::env::vars() {
            if name.starts_with("ZEROSTATE_") || ["DATABASE_URL", "HOST", "PORT", "RUST_LOG"].contains(&name.as_str()) {
                command.env_remove(name);
            }
        }
        let out = command.current_dir(folder.path()).arg("verify").arg(&file).args(more).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (out.status.code(), text(out.stdout), text(out.stderr))
    };
    let key = public_key(&world).to_string();
    let (code, told, why) = run(&answer, &["--public-key", &key]);
    assert_eq!(code, Some(0), "{told}{why}");
    assert!(told.contains("2 documents checked: right, and signed by the given key"), "{told}");
    assert!(told.contains(&format!("{id} COMPLETED")), "{told}");
    let (code, told, _) = run(&answer, &[]);
    assert_eq!(code, Some(0));
    assert!(told.contains("Only self-consistency was checked") && told.contains(&key), "{told}");
    let (code, told, why) = run(&answer, &["--public-key", &"0".repeat(64)]);
    assert_eq!(code, Some(1));
    assert!(
        told.contains("WRONG market.publicKey is") && why.contains("2 of 2 documents are not right"),
        "{told}{why}"
    );

    let (code, told, _) = run(&answer, &["--json"]);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((code, &told["ok"], &told["pinned"]), (Some(0), &json!(true), &json!(false)));
    assert_eq!(told["documents"][0]["problems"], json!([]));
    let forged = answer.replace(r#"\"earned\":\"2\""#, r#"\"earned\":\"3\""#);
    assert_ne!(forged, answer);
    let (code, told, _) = run(&forged, &["--json"]);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((code, &told["ok"]), (Some(1), &json!(false)));
    let documents = told["documents"].as_array().unwrap().iter();
    let wrong: Vec<&Value> = documents.flat_map(|document| document["problems"].as_array().unwrap()).collect();
    for at in ["sha256", "signature", "settlement.paid", "transfers, to the agent"] {
        assert!(wrong.iter().any(|problem| problem["at"] == at), "{at} is not in {wrong:?}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing was written");
    world.check().await;
}
