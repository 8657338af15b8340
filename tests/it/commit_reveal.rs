//! Bidding by commitment and reveal, and the bonds behind bids: what nobody can know, what nobody can undo, and where each bond ends.

use std::time::Duration;

use entity::id::AgentId;
use futures_util::future::join_all;
use sea_orm::{ConnectionTrait, Statement};
use serde_json::{Value, json};

use crate::world::{Client, World, answering, commitment, fresh_key, on_postgres};

const SALT: [u8; 32] = [0x5a; 32];
const COMMIT: &str = "mutation($input: CommitBidInput!) {
    commitBid(input: $input) { commitment { id } userErrors { code } } }";
const REVEAL: &str = "mutation($input: RevealBidInput!) {
    revealBid(input: $input) { bid { id status } userErrors { code } } }";
const SEEN: &str = "query($id: ID!) { auction(id: $id) {
    status bidCount commitmentCount bidBond revealWindow revealUntil closesAt clearingPrice reservePrice instanceId
    winningBid { agent { id } }
    bids { nodes { price sequence status agent { id } bond { id status } } }
    commitments { totalCount nodes { id commitment status sequence salt bid { price } bond { id amount status resolvedAt } agent { id } } }
} }";

/// A buyer with 100 credits and three sellers with 5 credits and an external agent each.
struct Market {
    world: World,
    ada: Client,
    sellers: Vec<(Client, AgentId)>,
}

impl Market {
    async fn start() -> Self {
        Self::on(World::start().await).await
    }

    async fn on(world: World) -> Self {
        let ada = world.user("ada").await;
        world.credit(&ada, "100").await;
        let mut sellers = Vec::new();
        for name in ["bob", "cleo", "dora"] {
            let seller = world.user(name).await;
            world.credit(&seller, "5").await;
            let agent = world.agent(&seller, name, "EXTERNAL", "text.stats", "1").await;
            sellers.push((seller, agent));
        }
        Self { world, ada, sellers }
    }

    /// Opens an auction by commitment with a bond of 2, an hour for commitments and ten minutes for reveals.
    async fn veiled(&self, over: Value) -> String {
        let mut terms = json!({ "visibility": "COMMIT_REVEAL", "revealWindow": "PT10M", "bidBond": "2" });
        terms.as_object_mut().unwrap().extend(over.as_object().unwrap().clone());
        self.ada.open(terms).await
    }

    /// The input with which a seller commits to a price.
    fn to_commit(&self, auction: &str, seller: usize, price: &str) -> Value {
        let agent = self.sellers[seller].1.to_string();
        let hash = commitment(&self.world, auction, &agent, price, SALT);
        json!({ "auctionId": auction, "agentId": agent, "commitment": hash })
    }

    fn to_reveal(&self, auction: &str, seller: usize, price: &str) -> Value {
        let agent = self.sellers[seller].1.to_string();
        json!({ "auctionId": auction, "agentId": agent, "price": price, "salt": hex::encode(SALT) })
    }

    async fn commit(&self, auction: &str, seller: usize, price: &str) -> String {
        let input = self.to_commit(auction, seller, price);
        let done = self.sellers[seller].0.call("commitBid", "commitment { id }", input).await;
        done["commitment"]["id"].as_str().unwrap().to_owned()
    }

    async fn refused_commit(&self, auction: &str, seller: usize) -> String {
        self.sellers[seller].0.refusal("commitBid", self.to_commit(auction, seller, "3")).await
    }

    /// Reveals; answers the state of the bid.
    async fn reveal(&self, auction: &str, seller: usize, price: &str) -> String {
        let input = self.to_reveal(auction, seller, price);
        let done = self.sellers[seller].0.call("revealBid", "bid { status }", input).await;
        done["bid"]["status"].as_str().unwrap().to_owned()
    }

    async fn refused_reveal(&self, auction: &str, seller: usize, price: &str) -> String {
        self.sellers[seller].0.refusal("revealBid", self.to_reveal(auction, seller, price)).await
    }

    /// The auction as somebody sees it.
    async fn seen(&self, by: &Client, auction: &str) -> Value {
        by.query(SEEN, json!({ "id": auction })).await["auction"].take()
    }

    /// What each seller can spend and has set aside.
    async fn wallets(&self) -> Vec<(String, String)> {
        join_all(self.sellers.iter().map(|(seller, _)| seller.wallet())).await
    }

    /// The end of the time for commitments.
    async fn close(&self) {
        self.world.pass(Duration::from_hours(1)).await;
    }

    /// The end of the time for reveals.
    async fn end_reveals(&self) {
        self.world.pass(Duration::from_mins(10)).await;
    }
}

fn amounts(available: &str, in_escrow: &str) -> (String, String) {
    (available.to_owned(), in_escrow.to_owned())
}

/// The states of the commitments of an auction, each with the state of its bond.
fn states(auction: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let nodes = auction["commitments"]["nodes"].as_array().unwrap();
    nodes.iter().map(|one| (text(&one["status"]), text(&one["bond"]["status"]))).collect()
}

fn state(commitment: &str, bond: &str) -> (String, String) {
    (commitment.to_owned(), bond.to_owned())
}

#[tokio::test]
async fn a_bid_is_committed_to_revealed_and_wins() {
    let market = Market::start().await;
    let Market { world, ada, sellers, .. } = &market;
    let auction = market.veiled(json!({ "reservePrice": "8" })).await;
    let cursor = world.cursor().await;
    let mut events =
        world.anonymous().subscribe(
            "subscription($id: ID!, $after: EventCursor) { auctionEvents(auctionId: $id, after: $after) { kind
                ... on BidEvent { bidCount price bid { id } agent { id } } ... on AuctionEvent { bidCount closesAt } } }",
            json!({ "id": auction, "after": cursor }),
        )
        .await;
    for (seller, price) in [(0, "4"), (1, "3"), (2, "3")] {
        market.commit(&auction, seller, price).await;
        assert_eq!(sellers[seller].0.wallet().await, amounts("3", "2"));
    }
    let open = market.seen(&sellers[0].0, &auction).await;
    assert_eq!((&open["commitmentCount"], &open["bidCount"], &open["bidBond"]), (&json!(3), &json!(0), &json!("2")));
    assert_eq!((&open["revealWindow"], &open["revealUntil"]), (&json!("PT10M"), &Value::Null));
    assert_eq!(open["instanceId"], hex::encode(world.app.store().instance().unwrap().id()));
    assert_eq!((&open["commitments"]["totalCount"], states(&open)), (&json!(1), vec![state("COMMITTED", "HELD")]));
    assert_eq!(market.seen(ada, &auction).await["commitments"]["totalCount"], 0);

    market.close().await;
    let revealing = market.seen(&world.anonymous(), &auction).await;
    assert_eq!(
        (&revealing["status"], &revealing["revealUntil"]),
        (&json!("REVEALING"), &json!("2026-11-23T13:10:00.000000Z"))
    );
    assert_eq!(
        (states(&revealing).len(), &revealing["reservePrice"]),
        (3, &Value::Null),
        "who is committed is public now"
    );
    assert_eq!(market.reveal(&auction, 2, "3").await, "ACTIVE");
    assert_eq!(market.reveal(&auction, 0, "4").await, "ACTIVE");
    for stranger in [ada, &sellers[1].0, &world.anonymous(), &world.admin().await] {
        let seen = market.seen(stranger, &auction).await;
        assert_eq!((&seen["bidCount"], &seen["bids"]["nodes"]), (&json!(2), &json!([])), "nobody sees a bid");
        assert!(
            seen["commitments"]["nodes"]
                .as_array()
                .unwrap()
                .iter()
                .all(|one| one["bid"].is_null() && one["salt"].is_null())
        );
    }
    // The last one decides; the earlier commitment wins the tie, whoever revealed first.
    assert_eq!(market.reveal(&auction, 1, "3").await, "WON");
    let seen = market.seen(&world.anonymous(), &auction).await;
    assert_eq!((&seen["status"], &seen["clearingPrice"]), (&json!("AWARDED"), &json!("3")));
    assert_eq!(seen["winningBid"]["agent"]["id"], sellers[1].1.to_string());
    assert_eq!(
        states(&seen),
        [state("REVEALED", "RETURNED"), state("REVEALED", "HELD"), state("REVEALED", "RETURNED")]
    );
    assert_eq!(market.wallets().await, [amounts("5", "0"), amounts("3", "2"), amounts("5", "0")]);
    // Everybody can check now.
    for one in seen["commitments"]["nodes"].as_array().unwrap() {
        let (agent, price) = (one["agent"]["id"].as_str().unwrap(), one["bid"]["price"].as_str().unwrap());
        assert_eq!(one["salt"], hex::encode(SALT));
        assert_eq!(one["commitment"], commitment(world, &auction, agent, price, SALT));
    }
    let bids = seen["bids"]["nodes"].as_array().unwrap();
    let places: Vec<_> = bids.iter().map(|bid| (bid["sequence"].as_i64().unwrap(), &bid["agent"]["id"])).collect();
    let agents = [0, 1, 2].map(|seller: usize| json!(sellers[seller].1.to_string()));
    let expected = [(1, &agents[0]), (2, &agents[1]), (3, &agents[2])];
    assert_eq!(places, expected, "a bid has the place of its commitment, whoever revealed first");

    let hidden =
        |kind: &str, count: i64| json!({ "kind": kind, "bidCount": count, "price": null, "bid": null, "agent": null });
    for expected in [
        hidden("BID_COMMITTED", 1),
        hidden("BID_COMMITTED", 2),
        hidden("BID_COMMITTED", 3),
        json!({ "kind": "AUCTION_REVEALING", "bidCount": 3, "closesAt": "2026-11-23T13:10:00.000000Z" }),
        hidden("BID_REVEALED", 1),
        hidden("BID_REVEALED", 2),
        hidden("BID_REVEALED", 3),
    ] {
        assert_eq!(events.next().await["auctionEvents"], expected);
    }
    assert_eq!(events.next().await["auctionEvents"]["kind"], "AUCTION_AWARDED");
    market.world.check().await;
}

#[tokio::test]
async fn terms_of_commitments_and_bonds_that_make_no_sense_are_refused() {
    let Market { world, ada, .. } = Market::start().await;
    let veiled = json!({ "visibility": "COMMIT_REVEAL", "revealWindow": "PT10M", "bidBond": "2" });
    for over in [
        json!({ "bidBond": null }),
        json!({ "bidBond": "0" }),
        json!({ "bidBond": "10.000001" }),
        json!({ "revealWindow": null }),
        json!({ "revealWindow": "PT59S" }),
        json!({ "revealWindow": "P7DT1S" }),
        json!({ "closesIn": null }),
        json!({ "softClose": "PT1M" }),
        json!({ "visibility": "SEALED" }),
        json!({ "visibility": "SEALED", "revealWindow": null, "closesIn": null }),
        json!({ "startTimeout": "PT59S" }),
    ] {
        let mut terms = veiled.clone();
        terms.as_object_mut().unwrap().extend(over.as_object().unwrap().clone());
        assert_eq!(ada.refused_auction(terms).await, "INVALID_INPUT", "{over}");
    }
    assert_eq!(ada.wallet().await, amounts("100", "0"));
    world.check().await;
}

#[tokio::test]
async fn a_commitment_that_may_not_stand_is_refused_with_its_reason_and_costs_nothing() {
    let market = Market::on(World::with(|config| config.terms.max_bids = 2).await).await;
    let Market { world, ada, sellers } = &market;
    let (bob, bobs) = &sellers[0];
    let auction = market.veiled(json!({})).await;
    let commit = |auction: &str, agent: AgentId| json!({ "auctionId": auction, "agentId": agent.to_string(), "commitment": "ab".repeat(32) });
    let adas = world.agent(ada, "adas", "EXTERNAL", "text.stats", "1").await;
    assert_eq!(ada.refusal("commitBid", commit(&auction, adas)).await, "OWN_AUCTION");
    assert_eq!(ada.refusal("commitBid", commit(&auction, *bobs)).await, "NOT_FOUND", "another's agent");
    let unskilled = world.agent(bob, "unskilled", "EXTERNAL", "csv.summary", "1").await;
    assert_eq!(bob.refusal("commitBid", commit(&auction, unskilled)).await, "CAPABILITY_MISSING");
    let empty = world.agent(bob, "empty", "HOSTED", "text.stats", "1").await;
    assert_eq!(bob.refusal("commitBid", commit(&auction, empty)).await, "AGENT_NOT_READY");
    let trusted = market.veiled(json!({ "minReputation": "42.51" })).await;
    assert_eq!(market.refused_commit(&trusted, 0).await, "REPUTATION_TOO_LOW");
    for bad in ["", "ab", &"AB".repeat(32), &"ab".repeat(33), &"zz".repeat(32)] {
        let input = json!({ "auctionId": auction, "agentId": bobs.to_string(), "commitment": bad });
        assert_eq!(bob.refusal("commitBid", input).await, "INVALID_INPUT", "{bad}");
    }
    assert_eq!(bob.refused_bid(&auction, *bobs, "3").await, "USE_COMMIT_BID");
    let sealed = ada.open(json!({})).await;
    assert_eq!(market.refused_commit(&sealed, 0).await, "USE_SUBMIT_BID");
    assert_eq!(market.refused_reveal(&sealed, 0, "3").await, "USE_SUBMIT_BID");
    let dear = market.veiled(json!({ "bidBond": "5.000001" })).await;
    assert_eq!(market.refused_commit(&dear, 0).await, "INSUFFICIENT_FUNDS");
    assert_eq!(world.rows("bonds").await + world.rows("commitments").await, 0);
    assert_eq!(bob.wallet().await, amounts("5", "0"));

    market.commit(&auction, 0, "3").await;
    market.commit(&auction, 1, "3").await;
    assert_eq!(market.refused_commit(&auction, 2).await, "AUCTION_FULL");
    // The last micro-second before the close is early enough, the close is not.
    world.turn(Duration::from_hours(1) - Duration::from_micros(1));
    market.commit(&auction, 0, "4").await;
    world.turn(Duration::from_micros(1));
    assert_eq!(market.refused_commit(&auction, 0).await, "AUCTION_CLOSED");
    world.settle().await;
    assert_eq!(market.refused_commit(&auction, 0).await, "AUCTION_CLOSED");
    market.end_reveals().await;
    assert_eq!(market.refused_commit(&auction, 0).await, "AUCTION_NOT_OPEN");
    market.world.check().await;
}

#[tokio::test]
async fn a_later_commitment_takes_the_place_and_the_bond_of_the_earlier_one() {
    let market = Market::start().await;
    let (bob, bobs) = &market.sellers[0];
    let auction = market.veiled(json!({ "startTimeout": "PT1M" })).await;
    let first = market.commit(&auction, 0, "3").await;
    // The same intent again is the same commitment.
    let mut input = market.to_commit(&auction, 0, "4");
    input["idempotencyKey"] = json!("again");
    let second = bob.call("commitBid", "commitment { id sequence }", input.clone()).await;
    assert_eq!(bob.call("commitBid", "commitment { id sequence }", input).await, second);
    let seen = market.seen(bob, &auction).await;
    assert_eq!(states(&seen), [state("REPLACED", "HELD"), state("COMMITTED", "HELD")]);
    let nodes = seen["commitments"]["nodes"].as_array().unwrap();
    assert_eq!(nodes[0]["bond"]["id"], nodes[1]["bond"]["id"], "one bond");
    assert_eq!((&nodes[1]["sequence"], &seen["commitmentCount"]), (&json!(2), &json!(1)));
    assert_eq!(bob.wallet().await, amounts("3", "2"));

    let withdraw = |id: &str| json!({ "commitmentId": id });
    assert_eq!(bob.refusal("withdrawCommitment", withdraw(&first)).await, "COMMITMENT_NOT_LIVE");
    let second = second["commitment"]["id"].as_str().unwrap();
    assert_eq!(market.sellers[1].0.refusal("withdrawCommitment", withdraw(second)).await, "NOT_FOUND");
    let back = bob.call("withdrawCommitment", "commitment { status bond { status } }", withdraw(second)).await;
    assert_eq!(back["commitment"], json!({ "status": "WITHDRAWN", "bond": { "status": "RETURNED" } }));
    assert_eq!(bob.refusal("withdrawCommitment", withdraw(second)).await, "COMMITMENT_NOT_LIVE");
    assert_eq!(bob.wallet().await, amounts("5", "0"));
    assert_eq!(market.seen(bob, &auction).await["commitmentCount"], 0);

    // Whoever comes back puts a bond down again. Only what stands can be revealed.
    let third = market.commit(&auction, 0, "5").await;
    market.commit(&auction, 1, "9").await;
    market.close().await;
    assert_eq!(bob.refusal("withdrawCommitment", withdraw(&third)).await, "AUCTION_CLOSED");
    assert_eq!(market.refused_reveal(&auction, 0, "3").await, "COMMITMENT_MISMATCH");
    assert_eq!(market.refused_reveal(&auction, 0, "4").await, "COMMITMENT_MISMATCH");
    assert_eq!(market.reveal(&auction, 0, "5").await, "ACTIVE");
    market.reveal(&auction, 1, "9").await;
    let decided = market.seen(bob, &auction).await;
    assert_eq!(
        (&decided["clearingPrice"], &decided["winningBid"]["agent"]["id"]),
        (&json!("5"), &json!(bobs.to_string()))
    );
    market.world.check().await;
}

#[tokio::test]
async fn a_reveal_before_the_close_is_refused() {
    let market = Market::start().await;
    let auction = market.veiled(json!({})).await;
    market.commit(&auction, 0, "3").await;
    assert_eq!(market.refused_reveal(&auction, 0, "3").await, "REVEAL_NOT_OPEN");
    market.world.turn(Duration::from_hours(1));
    assert_eq!(market.refused_reveal(&auction, 0, "3").await, "REVEAL_NOT_OPEN", "until somebody closed it");
    market.world.settle().await;
    assert_eq!(market.reveal(&auction, 0, "3").await, "WON");
    market.world.check().await;
}

#[tokio::test]
async fn a_late_reveal_is_refused_and_the_last_moment_is_not_late() {
    let market = Market::start().await;
    let auction = market.veiled(json!({})).await;
    for seller in 0..3 {
        market.commit(&auction, seller, "3").await;
    }
    market.close().await;
    market.world.turn(Duration::from_mins(10) - Duration::from_micros(1));
    assert_eq!(market.reveal(&auction, 0, "3").await, "ACTIVE");
    market.world.turn(Duration::from_micros(1));
    assert_eq!(market.refused_reveal(&auction, 1, "3").await, "REVEAL_CLOSED");
    market.world.settle().await;
    assert_eq!(market.refused_reveal(&auction, 2, "3").await, "REVEAL_CLOSED");
    assert_eq!(market.seen(&market.ada, &auction).await["clearingPrice"], "3");
    market.world.check().await;
}

#[tokio::test]
async fn a_double_reveal_is_refused() {
    let market = Market::start().await;
    let auction = market.veiled(json!({})).await;
    for seller in 0..2 {
        market.commit(&auction, seller, "3").await;
    }
    market.close().await;
    market.reveal(&auction, 0, "3").await;
    assert_eq!(market.refused_reveal(&auction, 0, "3").await, "ALREADY_REVEALED");
    assert_eq!(market.refused_reveal(&auction, 0, "2").await, "ALREADY_REVEALED");
    assert_eq!(market.world.rows("bids").await, 1);
    market.end_reveals().await;
    assert_eq!(market.refused_reveal(&auction, 0, "3").await, "REVEAL_CLOSED");
    market.world.check().await;
}

#[tokio::test]
async fn a_foreign_commitment_cannot_be_revealed() {
    let market = Market::start().await;
    let (eve, eves) = &market.sellers[2];
    let auction = market.veiled(json!({})).await;
    market.commit(&auction, 0, "3").await;
    // Eve saw the hash somewhere and commits to it too; it is bound to bob's agent.
    let mut copy = market.to_commit(&auction, 0, "3");
    copy["agentId"] = json!(eves.to_string());
    eve.call("commitBid", "commitment { id }", copy).await;
    market.close().await;
    assert_eq!(eve.refusal("revealBid", market.to_reveal(&auction, 0, "3")).await, "NOT_FOUND", "bob's agent");
    assert_eq!(market.refused_reveal(&auction, 2, "3").await, "COMMITMENT_MISMATCH");
    assert_eq!(market.refused_reveal(&auction, 1, "3").await, "NO_COMMITMENT");
    assert_eq!(market.reveal(&auction, 0, "3").await, "ACTIVE");
    market.end_reveals().await;
    assert_eq!(
        states(&market.seen(eve, &auction).await),
        [state("REVEALED", "HELD"), state("UNREVEALED", "FORFEITED")]
    );
    market.world.check().await;
}

#[tokio::test]
async fn a_commitment_cannot_be_replayed_in_another_auction() {
    let market = Market::start().await;
    let (first, second) = (market.veiled(json!({})).await, market.veiled(json!({})).await);
    let mut replayed = market.to_commit(&first, 0, "3");
    market.commit(&first, 0, "3").await;
    replayed["auctionId"] = json!(second);
    market.sellers[0].0.call("commitBid", "commitment { id }", replayed).await;
    market.close().await;
    assert_eq!(market.reveal(&first, 0, "3").await, "WON");
    assert_eq!(market.refused_reveal(&second, 0, "3").await, "COMMITMENT_MISMATCH");
    market.end_reveals().await;
    assert_eq!(market.seen(&market.ada, &second).await["status"], "EXPIRED");
    market.world.check().await;
}

#[tokio::test]
async fn what_does_not_fit_the_commitment_is_refused_and_may_be_tried_again() {
    let market = Market::start().await;
    let bob = &market.sellers[0].0;
    let auction = market.veiled(json!({})).await;
    market.commit(&auction, 0, "3").await;
    market.close().await;
    let right = market.to_reveal(&auction, 0, "3");
    for (field, value, code) in [
        ("price", json!("3.000001"), "COMMITMENT_MISMATCH"),
        ("price", json!("0"), "INVALID_INPUT"),
        ("salt", json!("5b".repeat(32)), "COMMITMENT_MISMATCH"),
        ("salt", json!("5A".repeat(32)), "INVALID_INPUT"),
        ("salt", json!("5a"), "INVALID_INPUT"),
        ("promisedDuration", json!("PT1S"), "COMMITMENT_MISMATCH"),
        ("promisedDuration", json!("PT1H1S"), "INVALID_INPUT"),
    ] {
        let mut wrong = right.clone();
        wrong[field] = value;
        assert_eq!(bob.refusal("revealBid", wrong.clone()).await, code, "{wrong}");
    }
    assert_eq!(bob.wallet().await, amounts("3", "2"), "nothing is lost");
    assert_eq!(market.reveal(&auction, 0, "3").await, "WON");
    market.world.check().await;
}

#[tokio::test]
async fn the_bond_of_an_unrevealed_bid_goes_to_the_requester() {
    let market = Market::start().await;
    let Market { world, ada, sellers } = &market;
    let auction = market.veiled(json!({ "startTimeout": "P7D" })).await;
    for seller in 0..3 {
        market.commit(&auction, seller, "3").await;
    }
    market.close().await;
    market.reveal(&auction, 1, "3").await;
    market.end_reveals().await;
    let seen = market.seen(ada, &auction).await;
    assert_eq!(
        states(&seen),
        [state("UNREVEALED", "FORFEITED"), state("REVEALED", "HELD"), state("UNREVEALED", "FORFEITED")]
    );
    assert_eq!(market.wallets().await, [amounts("3", "0"), amounts("3", "2"), amounts("3", "0")]);
    assert_eq!(ada.wallet().await, amounts("101", "3"));
    // Both of the two concerned are told, and nobody else.
    let events = "query($id: ID!) { events(filter: { auctionId: $id, kinds: [BOND_FORFEITED] }) { nodes {
        ... on CreditsEvent { amount } } } }";
    for (reader, count) in [(ada, 2), (&sellers[0].0, 1), (&sellers[1].0, 0), (&world.anonymous(), 0)] {
        let told = reader.query(events, json!({ "id": auction })).await["events"]["nodes"].take();
        assert_eq!(told, json!(vec![json!({ "amount": "2" }); count]));
    }
    let kinds = "query { transfers(first: 10) { nodes { kind amount } } }";
    let booked = ada.query(kinds, json!({})).await["transfers"]["nodes"].take();
    let lost = json!({ "kind": "BOND_FORFEIT", "amount": "2" });
    assert_eq!(booked.as_array().unwrap().iter().filter(|one| **one == lost).count(), 2, "{booked}");
    market.world.check().await;
}

#[tokio::test]
async fn when_nobody_reveals_the_auction_expires_and_the_requester_has_the_bonds() {
    let market = Market::start().await;
    for (mode, number) in [("AUTOMATIC", 1), ("MANUAL", 2)] {
        let auction = market.veiled(json!({ "awardMode": mode })).await;
        market.commit(&auction, 0, "3").await;
        market.commit(&auction, 1, "3").await;
        market.close().await;
        market.end_reveals().await;
        market.world.pass(Duration::from_hours(24)).await;
        assert_eq!(market.seen(&market.ada, &auction).await["status"], "EXPIRED", "{mode}");
        assert_eq!(market.ada.wallet().await, amounts(&(100 + 4 * number).to_string(), "0"));
    }
    let empty = market.veiled(json!({ "awardMode": "MANUAL" })).await;
    market.close().await;
    assert_eq!(market.seen(&market.ada, &empty).await["status"], "EXPIRED", "nothing to reveal, nothing to wait for");
    market.world.check().await;
}

#[tokio::test]
async fn a_bidder_who_commits_to_a_price_that_cannot_be_taken_has_not_bid_for_free() {
    let market = Market::start().await;
    let Market { ada, sellers, .. } = &market;
    let auction = market.veiled(json!({ "maxPrice": "5", "startTimeout": "P7D" })).await;
    market.commit(&auction, 0, "5.000001").await;
    market.commit(&auction, 1, "0.5").await;
    market.commit(&auction, 2, "4").await;
    market.close().await;
    assert_eq!(market.reveal(&auction, 0, "5.000001").await, "INELIGIBLE", "above the ceiling");
    assert_eq!(sellers[0].0.wallet().await, amounts("3", "0"));
    assert_eq!(market.reveal(&auction, 1, "0.5").await, "INELIGIBLE", "below the agent's own minimum");
    assert_eq!(market.reveal(&auction, 2, "4").await, "WON");
    let seen = market.seen(ada, &auction).await;
    assert_eq!(
        states(&seen),
        [state("REVEALED", "FORFEITED"), state("REVEALED", "FORFEITED"), state("REVEALED", "HELD")]
    );
    assert_eq!((&seen["bidCount"], &seen["clearingPrice"]), (&json!(1), &json!("4")));
    assert_eq!(ada.wallet().await, amounts("100", "4"));

    // An inadmissible bid that is the last one to be revealed decides too.
    let auction = market.veiled(json!({ "maxPrice": "5" })).await;
    market.commit(&auction, 0, "6").await;
    market.close().await;
    assert_eq!(market.reveal(&auction, 0, "6").await, "INELIGIBLE");
    assert_eq!(market.seen(ada, &auction).await["status"], "EXPIRED");
    assert_eq!(ada.wallet().await, amounts("102", "4"));
    market.world.check().await;
}

#[tokio::test]
async fn a_bidder_who_takes_the_agent_away_after_the_close_loses_the_bond() {
    let market = Market::start().await;
    let Market { ada, sellers, .. } = &market;
    for (number, other) in [Some("4"), None].into_iter().enumerate() {
        let auction = market.veiled(json!({ "startTimeout": "P7D" })).await;
        market.commit(&auction, 0, "3").await;
        market.commit(&auction, 1, "4").await;
        market.close().await;
        market.reveal(&auction, 0, "3").await;
        let agent = json!({ "agentId": sellers[0].1.to_string() });
        sellers[0].0.call("pauseAgent", "agent { id }", agent.clone()).await;
        if let Some(price) = other {
            assert_eq!(market.reveal(&auction, 1, price).await, "WON");
        }
        market.end_reveals().await;
        let seen = market.seen(ada, &auction).await;
        assert_eq!(states(&seen)[0], state("REVEALED", "FORFEITED"));
        assert_eq!(seen["status"], ["AWARDED", "EXPIRED"][number]);
        sellers[0].0.call("resumeAgent", "agent { id }", agent).await;
    }
    assert_eq!(market.wallets().await[..2], [amounts("1", "0"), amounts("1", "2")]);
    market.world.check().await;
}

#[tokio::test]
async fn losers_bonds_are_free_when_the_requester_goes_silent() {
    let market = Market::start().await;
    let Market { ada, sellers, .. } = &market;
    let manual = json!({ "awardMode": "MANUAL", "startTimeout": "P7D" });
    let auction = market.veiled(manual.clone()).await;
    for seller in 0..3 {
        market.commit(&auction, seller, "3").await;
    }
    market.close().await;
    market.reveal(&auction, 0, "3").await;
    let award = |auction: &str| json!({ "auctionId": auction });
    assert_eq!(ada.refusal("awardAuction", award(&auction)).await, "BIDS_NOT_REVEALED");
    market.reveal(&auction, 1, "3").await;
    market.end_reveals().await;
    assert_eq!(market.seen(ada, &auction).await["bids"]["nodes"].as_array().unwrap().len(), 2, "to pick from");
    assert_eq!(market.seen(&sellers[2].0, &auction).await["bids"]["nodes"], json!([]));
    assert_eq!(market.wallets().await, [amounts("3", "2"), amounts("3", "2"), amounts("3", "0")]);
    // Nobody does anything any more.
    market.world.pass(Duration::from_hours(24)).await;
    let seen = market.seen(ada, &auction).await;
    assert_eq!(seen["status"], "EXPIRED");
    assert_eq!(
        states(&seen),
        [state("REVEALED", "RETURNED"), state("REVEALED", "RETURNED"), state("UNREVEALED", "FORFEITED")]
    );
    assert_eq!(market.wallets().await, [amounts("5", "0"), amounts("5", "0"), amounts("3", "0")]);

    // The same in an auction that is sealed and bonded.
    let sealed = ada.open(json!({ "awardMode": "MANUAL", "bidBond": "2" })).await;
    sellers[0].0.bid(&sealed, sellers[0].1, "3").await;
    market.world.pass(Duration::from_hours(25)).await;
    assert_eq!(sellers[0].0.wallet().await, amounts("5", "0"));

    // And one that wakes up may award: before the close never, after the reveals at once.
    let auction = market.veiled(manual).await;
    assert_eq!(ada.refusal("awardAuction", award(&auction)).await, "BIDS_NOT_REVEALED");
    market.commit(&auction, 0, "4").await;
    market.commit(&auction, 1, "3").await;
    market.close().await;
    market.reveal(&auction, 0, "4").await;
    market.reveal(&auction, 1, "3").await;
    let seen = market.seen(ada, &auction).await;
    assert_eq!((&seen["status"], seen["bids"]["nodes"].as_array().unwrap().len()), (&json!("REVEALING"), 2));
    let done = ada.call("awardAuction", "auction { status clearingPrice }", award(&auction)).await;
    assert_eq!(done["auction"], json!({ "status": "AWARDED", "clearingPrice": "3" }));
    assert_eq!(market.wallets().await[..2], [amounts("5", "0"), amounts("3", "2")]);
    market.world.check().await;
}

#[tokio::test]
async fn an_auction_that_is_called_off_gives_every_bond_back() {
    let market = Market::start().await;
    let Market { ada, .. } = &market;
    for revealed in 0..3 {
        let auction = market.veiled(json!({ "awardMode": "MANUAL" })).await;
        market.commit(&auction, 0, "3").await;
        market.commit(&auction, 1, "4").await;
        if revealed > 0 {
            market.close().await;
            market.reveal(&auction, 0, "3").await;
        }
        if revealed > 1 {
            market.reveal(&auction, 1, "4").await;
        }
        ada.call("cancelAuction", "auction { status }", json!({ "auctionId": auction })).await;
        let seen = market.seen(ada, &auction).await;
        assert_eq!(seen["status"], "CANCELLED");
        assert!(states(&seen).iter().all(|(_, bond)| bond == "RETURNED"), "{seen:#}");
        assert_eq!(market.refused_reveal(&auction, 1, "4").await, "REVEAL_CLOSED");
        assert_eq!(market.wallets().await, vec![amounts("5", "0"); 3]);
    }
    market.world.check().await;
}

#[tokio::test]
async fn a_winner_that_does_not_start_loses_the_bond_and_the_next_one_needs_none() {
    let market = Market::start().await;
    let Market { world, ada, sellers } = &market;
    let auction = market.veiled(json!({ "startTimeout": "PT1M" })).await;
    market.commit(&auction, 0, "3").await;
    market.commit(&auction, 1, "4").await;
    market.close().await;
    market.reveal(&auction, 0, "3").await;
    market.reveal(&auction, 1, "4").await;
    assert_eq!(market.wallets().await[..2], [amounts("3", "2"), amounts("5", "0")]);
    world.pass(Duration::from_mins(1)).await;
    let seen = market.seen(ada, &auction).await;
    assert_eq!(seen["winningBid"]["agent"]["id"], sellers[1].1.to_string());
    assert_eq!(states(&seen), [state("REVEALED", "FORFEITED"), state("REVEALED", "RETURNED")]);
    assert_eq!(ada.wallet().await, amounts("98", "4"));
    world.pass(Duration::from_mins(1)).await;
    assert_eq!(market.wallets().await[..2], [amounts("3", "0"), amounts("5", "0")]);
    assert_eq!(ada.wallet().await, amounts("102", "0"));
    market.world.check().await;
}

#[tokio::test]
async fn a_winner_that_starts_has_its_bond_back_and_hosted_agents_bid_by_hand() {
    let market = Market::start().await;
    let Market { world, ada, sellers } = &market;
    let bob = &sellers[0].0;
    let hosted = world.hosted_agent(bob, "hosted", "text.stats", "2", answering("1")).await;
    for terms in [
        json!({ "visibility": "COMMIT_REVEAL", "revealWindow": "PT10M" }),
        json!({ "visibility": "SEALED" }),
        json!({ "visibility": "OPEN" }),
    ] {
        let mut terms = terms;
        terms["bidBond"] = json!("2");
        let auction = ada.open(terms.clone()).await;
        let seen = market.seen(bob, &auction).await;
        assert_eq!((&seen["bidCount"], &seen["commitmentCount"]), (&json!(0), &json!(0)), "not by itself");
        if terms["visibility"] == "COMMIT_REVEAL" {
            let agent = hosted.to_string();
            let hash = commitment(world, &auction, &agent, "2", SALT);
            let input = json!({ "auctionId": auction, "agentId": agent, "commitment": hash });
            bob.call("commitBid", "commitment { id }", input).await;
            market.close().await;
            let input = json!({ "auctionId": auction, "agentId": agent, "price": "2", "salt": hex::encode(SALT) });
            bob.call("revealBid", "bid { id }", input).await;
        } else {
            bob.bid(&auction, hosted, "2").await;
            assert_eq!(bob.wallet().await, amounts("3", "2"));
            world.turn(Duration::from_hours(1));
            world.app.sweep_once().await.unwrap();
        }
        assert_eq!(ada.auction(&auction).await["status"], "AWARDED");
        assert_eq!(bob.wallet().await, amounts("3", "2"), "it has won and not begun");
        world.app.run_ready().await.unwrap();
        assert_eq!(bob.wallet().await, amounts("5", "0"));
        assert_eq!(ada.task_of(&auction).await["status"], "COMPLETED");
    }
    assert_eq!(ada.wallet().await, amounts("94", "0"));
    market.world.check().await;
}

#[tokio::test]
async fn a_hosted_winner_that_we_did_not_start_has_its_bond_back() {
    let market = Market::start().await;
    let Market { world, ada, sellers } = &market;
    let bob = &sellers[0].0;
    let hosted = world.hosted_agent(bob, "hosted", "text.stats", "2", answering("1")).await;
    let auction = ada.open(json!({ "bidBond": "2", "closeAfterBids": 1, "startTimeout": "PT1M" })).await;
    bob.bid(&auction, hosted, "2").await;
    assert_eq!(ada.auction(&auction).await["status"], "AWARDED");
    world.turn(Duration::from_mins(1));
    world.app.sweep_once().await.unwrap();
    assert_eq!(ada.task_of(&auction).await["status"], "EXPIRED");
    assert_eq!((bob.wallet().await, ada.wallet().await), (amounts("5", "0"), amounts("100", "0")));
    market.world.check().await;
}

#[tokio::test]
async fn bonds_stand_behind_sealed_and_open_bids_too() {
    let market = Market::start().await;
    let Market { world, ada, sellers } = &market;
    for visibility in ["SEALED", "OPEN"] {
        let terms = json!({ "visibility": visibility, "bidBond": "2", "closeAfterBids": 3, "startTimeout": "P7D" });
        let auction = ada.open(terms).await;
        let (bob, bobs) = &sellers[0];
        let first = bob.bid(&auction, *bobs, "3").await;
        bob.bid(&auction, *bobs, "2.5").await;
        assert_eq!(bob.wallet().await, amounts("3", "2"), "one bond for one agent");
        assert_eq!(bob.refusal("withdrawBid", json!({ "bidId": first })).await, "BID_NOT_ACTIVE");
        let again = bob.bid(&auction, *bobs, "2").await;
        bob.call("withdrawBid", "bid { status }", json!({ "bidId": again })).await;
        assert_eq!(bob.wallet().await, amounts("5", "0"));
        for (seller, price) in [(0, "4"), (1, "3"), (2, "5")] {
            sellers[seller].0.bid(&auction, sellers[seller].1, price).await;
        }
        let seen = market.seen(ada, &auction).await;
        assert_eq!(seen["status"], "AWARDED");
        let bonds: Vec<_> =
            seen["bids"]["nodes"].as_array().unwrap().iter().map(|bid| bid["bond"]["status"].clone()).collect();
        assert_eq!(bonds, ["RETURNED", "RETURNED", "RETURNED", "RETURNED", "HELD", "RETURNED"]);
        assert_eq!(market.wallets().await, [amounts("5", "0"), amounts("3", "2"), amounts("5", "0")]);
        world.pass(Duration::from_hours(7 * 24)).await;
        assert_eq!(ada.task_of(&auction).await["agent"]["id"], sellers[0].1.to_string(), "the next one took over");
        assert_eq!(market.wallets().await[1], amounts("3", "0"));
        world.credit(&sellers[1].0, "2").await;
        for _ in 0..2 {
            world.pass(Duration::from_hours(7 * 24)).await;
        }
    }
    let auction = ada.open(json!({ "bidBond": "5.000001" })).await;
    assert_eq!(sellers[0].0.refused_bid(&auction, sellers[0].1, "3").await, "INSUFFICIENT_FUNDS");
    market.world.check().await;
}

#[tokio::test]
async fn enough_commitments_begin_the_reveals_early() {
    let market = Market::start().await;
    let auction = market.veiled(json!({ "closeAfterBids": 2 })).await;
    market.commit(&auction, 0, "3").await;
    market.commit(&auction, 0, "4").await;
    assert_eq!(market.seen(&market.ada, &auction).await["status"], "OPEN", "one agent counts once");
    market.commit(&auction, 1, "3").await;
    let seen = market.seen(&market.ada, &auction).await;
    assert_eq!(
        (&seen["status"], &seen["closesAt"], &seen["revealUntil"]),
        (&json!("REVEALING"), &json!("2026-11-23T12:00:00.000000Z"), &json!("2026-11-23T12:10:00.000000Z"))
    );
    assert_eq!(market.refused_commit(&auction, 2).await, "AUCTION_CLOSED");
    market.reveal(&auction, 0, "4").await;
    assert_eq!(market.reveal(&auction, 1, "3").await, "WON");
    market.world.check().await;
}

#[tokio::test]
async fn a_service_that_was_down_at_the_close_takes_no_time_from_the_bidders() {
    let market = Market::start().await;
    let auction = market.veiled(json!({})).await;
    market.commit(&auction, 0, "3").await;
    market.world.pass(Duration::from_hours(30)).await;
    let seen = market.seen(&market.ada, &auction).await;
    assert_eq!((&seen["status"], &seen["revealUntil"]), (&json!("REVEALING"), &json!("2026-11-24T18:10:00.000000Z")));
    assert_eq!(seen["closesAt"], "2026-11-23T13:00:00.000000Z");
    assert_eq!(market.reveal(&auction, 0, "3").await, "WON");
    market.world.check().await;
}

#[tokio::test]
async fn the_winner_of_a_second_price_auction_by_commitment_is_paid_its_critical_price() {
    let market = Market::start().await;
    let auction = market.veiled(json!({ "kind": "SECOND_PRICE", "startTimeout": "P7D" })).await;
    market.commit(&auction, 0, "4").await;
    market.commit(&auction, 1, "6").await;
    market.close().await;
    // Who commits first wins ties, whoever reveals first.
    market.reveal(&auction, 1, "6").await;
    market.reveal(&auction, 0, "4").await;
    assert_eq!(market.seen(&market.ada, &auction).await["clearingPrice"], "6");
    market.world.check().await;
}

/// Everything that is stored, as one text: on SQLite the bytes of all files, on PostgreSQL every row of every table.
async fn stored(world: &World) -> Vec<u8> {
    if !on_postgres() {
        let mut all = Vec::new();
        for entry in std::fs::read_dir(world.folder()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                all.extend(std::fs::read(path).unwrap());
            }
        }
        return all;
    }
    let store = world.app.store();
    let ask = async |sql: String| {
        let rows = store.read().query_all_raw(Statement::from_string(store.backend(), sql)).await.unwrap();
        rows.iter().map(|row| row.try_get_by_index::<String>(0).unwrap()).collect::<Vec<String>>()
    };
    let mut all = String::new();
    for table in
        ask("SELECT CAST(table_name AS TEXT) FROM information_schema.tables WHERE table_schema = 'public'".into()).await
    {
        all.extend(ask(format!("SELECT CAST(t AS TEXT) FROM {table} t")).await);
    }
    all.into_bytes()
}

#[tokio::test]
async fn the_operator_cannot_know_a_price_before_its_reveal() {
    let market = Market::start().await;
    let auction = market.veiled(json!({ "startTimeout": "P7D" })).await;
    // 3.141593 credits are 3141593 micro-credits, 2f efd9 in hex.
    let price = "3.141593";
    market.commit(&auction, 0, price).await;
    market.commit(&auction, 1, "4").await;
    market.close().await;
    let wrong = json!({ "auctionId": auction, "agentId": market.sellers[0].1.to_string(), "price": "3.2", "salt": "11".repeat(32) });
    assert_eq!(market.sellers[0].0.refusal("revealBid", wrong).await, "COMMITMENT_MISMATCH");
    let tells = |all: &[u8]| {
        let secrets: [&[u8]; 6] = [
            price.as_bytes(),
            b"3141593",
            &[0x2f, 0xef, 0xd9],
            &SALT,
            hex::encode(SALT).into_bytes().leak(),
            "11".repeat(32).into_bytes().leak(),
        ];
        secrets.map(|secret| all.windows(secret.len()).any(|window| window == secret))
    };
    let before = stored(&market.world).await;
    assert_eq!(tells(&before), [false; 6]);
    assert!(before.len() > 1_000);
    market.reveal(&auction, 0, price).await;
    market.reveal(&auction, 1, "4").await;
    let after = stored(&market.world).await;
    assert!(tells(&after)[4] && (tells(&after)[1] || tells(&after)[2]), "the search finds what is there");
    market.world.check().await;
}

#[tokio::test]
async fn an_agent_bids_so_often_in_an_auction_and_no_more() {
    let market = Market::on(World::with(|config| config.terms.max_bids_of_agent = 3).await).await;
    let (bob, bobs) = &market.sellers[0];
    let sealed = market.ada.open(json!({})).await;
    for price in ["5", "4"] {
        bob.bid(&sealed, *bobs, price).await;
    }
    let third = bob.bid(&sealed, *bobs, "3").await;
    assert_eq!(bob.refused_bid(&sealed, *bobs, "2").await, "TOO_MANY_CHANGES");
    bob.call("withdrawBid", "bid { id }", json!({ "bidId": third })).await;
    assert_eq!(bob.refused_bid(&sealed, *bobs, "2").await, "TOO_MANY_CHANGES", "a withdrawal does not begin anew");
    let veiled = market.veiled(json!({})).await;
    for price in ["5", "4", "3"] {
        market.commit(&veiled, 0, price).await;
    }
    assert_eq!(market.refused_commit(&veiled, 0).await, "TOO_MANY_CHANGES");
    assert_eq!(market.seen(bob, &veiled).await["commitmentCount"], 1, "what stood stands");
    market.commit(&veiled, 1, "3").await;
    market.world.check().await;
}

#[tokio::test]
async fn a_requester_and_a_bidder_who_trade_all_the_time_are_seen_to() {
    let market = Market::start().await;
    let Market { world, ada, sellers } = &market;
    let bob = &sellers[0].0;
    let hosted = world.hosted_agent(bob, "hosted", "text.stats", "2", answering("1")).await;
    for number in 0..3 {
        let auction = ada.open(json!({ "visibility": "OPEN" })).await;
        sellers[1].0.bid(&auction, sellers[1].1, "9").await;
        bob.bid(&auction, sellers[0].1, "8").await;
        let document = "query($id: ID!) { auction(id: $id) { bids { nodes { tasksTogether agent { id } } } } }";
        let seen = world.anonymous().query(document, json!({ "id": auction })).await["auction"]["bids"]["nodes"].take();
        let of = |agent: AgentId| {
            seen.as_array().unwrap().iter().find(|bid| bid["agent"]["id"] == agent.to_string()).unwrap()["tasksTogether"].clone()
        };
        assert_eq!((of(hosted), of(sellers[0].1), of(sellers[1].1)), (json!(number), json!(number), json!(0)));
        market.close().await;
    }
    market.world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_wallet_never_backs_more_commitments_than_it_has_credits_for() {
    let market = Market::start().await;
    let bob = &market.sellers[0].0;
    let mut inputs = Vec::new();
    for number in 0..12 {
        let auction = market.veiled(json!({ "budget": "3" })).await;
        let agent = market.world.agent(bob, &format!("a{number}"), "EXTERNAL", "text.stats", "1").await.to_string();
        let hash = commitment(&market.world, &auction, &agent, "1", SALT);
        inputs
            .push(json!({ "auctionId": auction, "agentId": agent, "commitment": hash, "idempotencyKey": fresh_key() }));
    }
    let all = join_all(inputs.iter().map(|input| bob.query(COMMIT, json!({ "input": input })))).await;
    let taken = all.iter().filter(|one| one["commitBid"]["commitment"].is_object()).count();
    let refused = json!([{ "code": "INSUFFICIENT_FUNDS" }]);
    let poor = all.iter().filter(|one| one["commitBid"]["userErrors"] == refused).count();
    assert_eq!((taken, poor), (2, 10), "{all:#?}");
    assert_eq!(bob.wallet().await, amounts("1", "4"));
    market.close().await;
    market.end_reveals().await;
    assert_eq!(bob.wallet().await, amounts("1", "0"));
    market.world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_reveal_and_the_end_of_its_time_that_arrive_together_have_one_outcome() {
    let market = Market::start().await;
    let Market { world, ada, sellers } = &market;
    world.credit(&sellers[0].0, "100").await;
    world.credit(&sellers[1].0, "100").await;
    for number in 0..8 {
        let auction = market.veiled(json!({ "budget": "5", "startTimeout": "P7D" })).await;
        market.commit(&auction, 0, "3").await;
        market.commit(&auction, 1, "4").await;
        market.close().await;
        market.reveal(&auction, 1, "4").await;
        world.turn(Duration::from_mins(10) - Duration::from_micros(1));
        let reveals = join_all((0..16).map(|_| {
            let mut input = market.to_reveal(&auction, 0, "3");
            input["idempotencyKey"] = json!(fresh_key());
            sellers[0].0.query(REVEAL, json!({ "input": input }))
        }));
        let sweeps = async {
            tokio::time::sleep(Duration::from_millis(number)).await;
            world.turn(Duration::from_micros(1));
            join_all((0..4).map(|_| world.app.sweep_once())).await
        };
        let cancel = async {
            tokio::time::sleep(Duration::from_millis(number)).await;
            let document =
                "mutation($input: CancelAuctionInput!) { cancelAuction(input: $input) { userErrors { code } } }";
            if number % 2 == 0 {
                ada.query(document, json!({ "input": { "auctionId": auction, "idempotencyKey": fresh_key() } })).await
            } else {
                Value::Null
            }
        };
        let (reveals, sweeps, _) = tokio::join!(reveals, sweeps, cancel);
        assert!(sweeps.iter().all(Result::is_ok));
        world.settle().await;
        let done = reveals.iter().filter(|one| one["revealBid"]["bid"].is_object()).count();
        let seen = market.seen(ada, &auction).await;
        let first = &states(&seen)[0];
        let (status, price) = (seen["status"].as_str().unwrap(), &seen["clearingPrice"]);
        match (status, done) {
            ("AWARDED", 1) => assert_eq!((first, price), (&state("REVEALED", "HELD"), &json!("3"))),
            ("AWARDED", 0) => assert_eq!((first, price), (&state("UNREVEALED", "FORFEITED"), &json!("4"))),
            ("CANCELLED", 0) => assert_eq!(first, &state("CANCELLED", "RETURNED")),
            other => panic!("{other:?}: {seen:#}"),
        }
    }
    market.world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn buyers_who_bid_in_each_others_auctions_do_not_wait_for_each_other_for_ever() {
    let world = World::start().await;
    let mut people = Vec::new();
    for number in 0..4 {
        let who = world.user(&format!("trader{number}")).await;
        world.credit(&who, "1000").await;
        let agent = world.agent(&who, "agent", "EXTERNAL", "text.stats", "1").await;
        people.push((who, agent));
    }
    for _ in 0..4 {
        let terms = json!({ "awardMode": "MANUAL", "bidBond": "1", "startTimeout": "P7D" });
        let auctions = join_all(people.iter().map(|(who, _)| who.open(terms.clone()))).await;
        for (owner, auction) in auctions.iter().enumerate() {
            // In another order in each, so that each award meets the wallets in another order.
            for step in 1..people.len() {
                let (who, agent) = &people[(owner + step) % people.len()];
                who.bid(auction, *agent, &format!("{step}")).await;
            }
        }
        let awards = people
            .iter()
            .zip(&auctions)
            .map(|((who, _), auction)| who.call("awardAuction", "auction { status }", json!({ "auctionId": auction })));
        for done in join_all(awards).await {
            assert_eq!(done["auction"]["status"], "AWARDED");
        }
    }
    world.check().await;
}
