//! Certificates of random auctions, decided as the market decides them: each verifies, and names the winner that the rules name.

use ed25519_dalek::{Signer, SigningKey};
use entity::{
    auction::{self, AwardMode, Visibility},
    bid, commitment,
    id::{AgentId, AuctionId, BidId, BondId, CommitmentId, DocumentId, TaskId, UserId},
    money::Amount,
    text::Words,
    time::Timestamp,
};
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    certificate::{Certificate, Issue},
    seal::seal,
    value::{Digest, Hex, PublicKey},
    verification::{Verdict, verify},
};
use crate::{
    auction::{
        commitment::Sealed,
        rules::{self, Offer},
    },
    voucher,
};

const START: i64 = 1_795_435_200_000_000;

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn public() -> PublicKey {
    Hex(key().verifying_key().to_bytes())
}

fn uuid(kind: u128, number: i32) -> Uuid {
    Uuid::from_u128((kind << 64) | u128::try_from(number).unwrap())
}

fn at(second: i32) -> Timestamp {
    Timestamp::from_micros(START + i64::from(second) * 1_000_000)
}

fn micros(micros: i64) -> Amount {
    Amount::from_micros(micros).unwrap()
}

/// An auction with its bids before it is decided, and which of the eligible ones the requester would pick.
#[derive(Clone, Debug)]
struct Setting {
    auction: auction::Model,
    bids: Vec<bid::Model>,
    /// Of each bid, whether its agent qualifies.
    qualified: Vec<bool>,
    pick: usize,
}

fn settings() -> impl Strategy<Value = Setting> {
    let weight = prop_oneof![Just(4_000), Just(0), Just(1), Just(9_999), Just(10_000), 0..=10_000_i32];
    let kinds = (
        prop_oneof![Just(auction::Kind::FirstPrice), Just(auction::Kind::SecondPrice)],
        prop_oneof![Just(Visibility::Sealed), Just(Visibility::Open), Just(Visibility::CommitReveal)],
        prop_oneof![Just(AwardMode::Automatic), Just(AwardMode::Manual)],
    );
    // Few different prices and reputations, so that there are ties.
    let scales = prop_oneof![Just(1_i64), Just(999_999_999_999)];
    (2_i64..=60, weight, kinds, scales, 0..=12_000_i32, 0..=80_i64, 0..20_usize).prop_flat_map(
        |(budget, weight, (kind, visibility, award_mode), scale, least, reserve, pick)| {
            let ceiling = (budget / 2).max(1)..=budget;
            let bids = (ceiling.clone(), ceiling).prop_flat_map(|(max_price, _)| {
                let bid = (1..=max_price, 0..=8_i32, prop::bool::weighted(0.85));
                (Just(max_price), prop::collection::vec(bid, 1..9))
            });
            bids.prop_map(move |(max_price, bids)| {
                let budget = micros(budget * scale);
                let reserve = micros(reserve.max(1) * scale);
                let auction = auction::Model {
                    id: AuctionId(uuid(1, 1)),
                    task_id: TaskId(uuid(2, 1)),
                    requester_id: UserId(uuid(3, 1)),
                    status: auction::Status::Awarded,
                    kind,
                    visibility,
                    award_mode,
                    budget,
                    max_price: micros(max_price * scale),
                    reserve_price: (reserve <= budget).then_some(reserve),
                    // Mostly low or none.
                    min_reputation: (least - 8_000).clamp(0, 3_000),
                    price_weight: weight,
                    reputation_weight: rules::WHOLE - weight,
                    capabilities: Words(vec!["text.stats".to_owned()]),
                    closes_at: at(60),
                    close_after_bids: None,
                    soft_close_ms: 0,
                    extensions: 0,
                    next_seq: 100,
                    bid_count: i32::try_from(bids.len()).unwrap(),
                    winning_bid_id: None,
                    clearing_price: None,
                    deadline_at: None,
                    created_at: at(0),
                    closed_at: Some(at(60)),
                    reveal_ms: 0,
                    bond: Amount::ZERO,
                    reveal_until: None,
                    commitment_count: 0,
                    excluded: Words::default(),
                    online_only: false,
                };
                let qualified = bids.iter().map(|(_, _, qualified)| *qualified).collect();
                let bids = (1..)
                    .zip(bids)
                    .map(|(number, (price, reputation, _))| bid::Model {
                        id: BidId(uuid(4, number)),
                        auction_id: auction.id,
                        agent_id: AgentId(uuid(5, number)),
                        bidder_id: UserId(uuid(3, 2)),
                        price: micros(price * scale),
                        promised_ms: None,
                        // Some were replaced in between.
                        seq: number * 2,
                        status: bid::Status::Active,
                        reputation: Some(reputation * 1_250),
                        rank: None,
                        created_at: at(number),
                        bond_id: None,
                        fuel_price: None,
                    })
                    .collect();
                Setting { auction, bids, qualified, pick }
            })
        },
    )
}

/// The rows after the decision, or nothing where nobody is eligible. It is the market's decision without the market: eligibility
/// by hand, order and price by the rules.
fn decided(setting: &Setting) -> Option<Setting> {
    let mut decided = setting.clone();
    let Setting { auction, bids, qualified, pick } = &mut decided;
    let cap = auction.reserve_price.map_or(auction.max_price, |reserve| reserve.min(auction.max_price));
    let offers: Vec<Offer> = bids
        .iter()
        .zip(qualified.iter())
        .filter(|(bid, qualified)| **qualified && bid.price <= cap && bid.reputation.unwrap() >= auction.min_reputation)
        .map(|(bid, _)| Offer {
            bid: bid.id,
            agent: bid.agent_id,
            bidder: bid.bidder_id,
            price: bid.price,
            reputation: bid.reputation.unwrap(),
            seq: bid.seq,
        })
        .collect();
    let ranked = rules::rank(&offers, auction.budget, auction.price_weight);
    let winner = match auction.award_mode {
        AwardMode::Automatic => ranked.first()?.0,
        AwardMode::Manual => ranked.get(*pick % ranked.len().max(1))?.0,
    };
    auction.winning_bid_id = Some(winner.bid);
    auction.clearing_price = Some(rules::payment(auction, &winner, &ranked));
    for bid in bids {
        bid.rank = (1..).zip(&ranked).find(|(_, (offer, _))| offer.bid == bid.id).map(|(place, _)| place);
        bid.status = match bid.rank {
            Some(_) if bid.id == winner.bid => bid::Status::Won,
            Some(_) => bid::Status::Lost,
            None => bid::Status::Ineligible,
        };
    }
    Some(decided)
}

/// What a bidder committed to.
fn sealed(bid: &bid::Model, number: i32) -> Sealed {
    let instance = voucher::instance_id(&public().0);
    let salt = [u8::try_from(number).unwrap(); 32];
    Sealed { instance, auction: bid.auction_id, agent: bid.agent_id, price: bid.price, promised_ms: 0, salt }
}

/// The commitments that the bids were told from, and one that was not.
fn committed(setting: &Setting) -> Vec<commitment::Model> {
    if setting.auction.visibility != Visibility::CommitReveal {
        return Vec::new();
    }
    let commitment = |number: i32, bid: Option<&bid::Model>| commitment::Model {
        id: CommitmentId(uuid(6, number)),
        auction_id: setting.auction.id,
        agent_id: bid.map_or(AgentId(uuid(5, 99)), |bid| bid.agent_id),
        bidder_id: UserId(uuid(3, 2)),
        hash: bid.map_or_else(|| "ab".repeat(32), |bid| sealed(bid, number).commitment_hex()),
        bond_id: BondId(uuid(8, number)),
        salt: bid.map(|bid| hex::encode(sealed(bid, number).salt)),
        seq: number,
        status: if bid.is_some() { commitment::Status::Revealed } else { commitment::Status::Unrevealed },
        bid_id: bid.map(|bid| bid.id),
        created_at: at(1),
        revealed_at: None,
    };
    let told = setting.bids.iter().map(|bid| commitment(bid.seq, Some(bid)));
    told.chain([commitment(99, None)]).collect()
}

fn certificate(setting: &Setting, previous: Option<(i32, Digest)>) -> Certificate {
    let version = previous.map_or(1, |(version, _)| version + 1);
    let issue = Issue { id: DocumentId(uuid(7, version)), at: at(60 + version), public_key: public(), previous };
    Certificate::new(issue, &setting.auction, &setting.bids, &committed(setting)).unwrap()
}

/// A certificate in an envelope, and its hash.
fn signed(certificate: &Certificate) -> (Value, Digest) {
    let sealed = seal(&serde_json::to_value(certificate).unwrap(), |message| key().sign(message).to_bytes()).unwrap();
    (json!({ "body": sealed.body, "signature": sealed.signature.to_string() }), sealed.digest)
}

fn verdict(envelopes: &[Value]) -> Verdict {
    verify(&json!(envelopes).to_string(), Some(public())).unwrap()
}

fn problems(verdict: &Verdict) -> Vec<String> {
    let all = verdict.documents.iter().flat_map(|document| &document.findings.problems);
    all.map(|finding| format!("{} {}", finding.at, finding.why)).collect()
}

proptest! {
    #[test]
    fn the_certificate_of_any_auction_verifies_and_names_the_winner_of_the_rules(setting in settings()) {
        let Some(setting) = decided(&setting) else { return Ok(()) };
        let certificate = certificate(&setting, None);
        let verdict = verdict(&[signed(&certificate).0]);
        prop_assert!(verdict.ok && verdict.pinned, "{:#?}", problems(&verdict));
        prop_assert_eq!(Some(certificate.award.bid_id.0), setting.auction.winning_bid_id);
        prop_assert_eq!(Some(certificate.award.price.0), setting.auction.clearing_price);
        if setting.auction.award_mode == AwardMode::Automatic {
            let first = setting.bids.iter().find(|bid| bid.rank == Some(1)).unwrap();
            prop_assert_eq!(certificate.award.bid_id.0, first.id);
        }
        // What rests on the market's word is said, bid by bid.
        let said = verdict.documents[0].findings.notes.iter().filter(|note| note.contains("did not qualify at the close"));
        let unchecked = certificate.bids.iter().filter(|bid| {
            bid.ineligible == Some(super::certificate::Ineligible::AgentNotQualified)
        });
        prop_assert_eq!(said.count(), unchecked.count());
    }

    #[test]
    fn no_other_winner_or_price_verifies(setting in settings(), other in 0_usize..9, more in 1_i64..50, up: bool) {
        let Some(mut setting) = decided(&setting) else { return Ok(()) };
        // Another price for the same winner.
        let right = setting.auction.clearing_price;
        let wrong = if up { right.unwrap().micros() + more } else { right.unwrap().micros() - more };
        prop_assume!(wrong > 0);
        setting.auction.clearing_price = Some(micros(wrong));
        prop_assert!(!verdict(&[signed(&certificate(&setting, None)).0]).ok);
        setting.auction.clearing_price = right;
        // Another winner, with all that follows from it put right.
        prop_assume!(setting.auction.award_mode == AwardMode::Automatic);
        let other = other % setting.bids.len();
        let other = setting.bids[other].id;
        prop_assume!(Some(other) != setting.auction.winning_bid_id);
        for bid in &mut setting.bids {
            if bid.status == bid::Status::Won {
                bid.status = bid::Status::Lost;
            }
            if bid.id == other {
                bid.status = bid::Status::Won;
                setting.auction.clearing_price = Some(bid.price);
            }
        }
        setting.auction.winning_bid_id = Some(other);
        prop_assert!(!verdict(&[signed(&certificate(&setting, None)).0]).ok);
    }

    #[test]
    fn take_overs_chain_to_the_award(setting in settings(), skipped in prop::collection::vec(any::<bool>(), 9)) {
        let Some(mut setting) = decided(&setting) else { return Ok(()) };
        let (first, mut digest) = signed(&certificate(&setting, None));
        let mut envelopes = vec![first];
        let mut version = 1;
        loop {
            let mut waiting: Vec<(i32, BidId)> = setting
                .bids
                .iter()
                .filter(|bid| bid.status == bid::Status::Lost)
                .map(|bid| (bid.rank.unwrap(), bid.id))
                .filter(|(rank, _)| !skipped[usize::try_from(*rank).unwrap() % 9])
                .collect();
            waiting.sort_unstable();
            let Some((_, next)) = waiting.first().copied() else { break };
            for bid in &mut setting.bids {
                if bid.status == bid::Status::Won {
                    bid.status = bid::Status::Forfeited;
                }
                if bid.id == next {
                    bid.status = bid::Status::Won;
                    setting.auction.clearing_price = Some(bid.price);
                }
            }
            setting.auction.winning_bid_id = Some(next);
            let (envelope, newest) = signed(&certificate(&setting, Some((version, digest))));
            envelopes.push(envelope);
            (version, digest) = (version + 1, newest);
        }
        let all = verdict(&envelopes);
        prop_assert!(all.ok, "{:#?}", problems(&all));
        prop_assert_eq!(all.documents.len(), usize::try_from(version).unwrap());
        // Any one of them alone is right too, and says what is missing.
        for envelope in &envelopes {
            prop_assert!(verdict(std::slice::from_ref(envelope)).ok);
        }
        // Two histories of one auction do not go together.
        if version > 1 {
            let mut other = setting.clone();
            other.auction.bond = micros(1);
            envelopes[0] = signed(&Certificate { version: 1, ..certificate(&decided(&Setting {
                bids: other.bids.iter().map(|bid| bid::Model { rank: None, ..bid.clone() }).collect(),
                ..other
            }).unwrap(), None) }).0;
            let forked = verdict(&envelopes);
            prop_assert!(problems(&forked).iter().any(|problem| problem.starts_with("previous")), "{:#?}", problems(&forked));
        }
    }
}

/// Some auction that has a winner, always the same.
fn any_decided() -> Setting {
    let mut runner = TestRunner::deterministic();
    let drawn = std::iter::repeat_with(|| settings().new_tree(&mut runner).unwrap().current());
    drawn.take(1_000).find_map(|setting| decided(&setting)).unwrap()
}

/// A change of one part of a certificate.
type Change = fn(&mut super::certificate::CommitmentPart);

#[test]
fn a_revealed_bid_must_be_the_one_that_was_committed_to() {
    let mut setting = any_decided();
    setting.auction.visibility = Visibility::CommitReveal;
    let right = certificate(&setting, None);
    assert!(verdict(&[signed(&right).0]).ok);
    let changes: [(&str, Change); 5] = [
        ("hash", |part| part.hash.0.0[0] ^= 1),
        ("hash", |part| part.revealed.as_mut().unwrap().salt.0.0[0] ^= 1),
        ("hash", |part| part.revealed.as_mut().unwrap().promised_ms.0 += 1),
        ("revealed.price", |part| part.revealed.as_mut().unwrap().price.0 = micros(7)),
        ("revealed", |part| part.revealed = None),
    ];
    for (at, change) in changes {
        let mut other = right.clone();
        change(&mut other.commitments[0]);
        let wrong = problems(&verdict(&[signed(&other).0]));
        assert!(wrong.iter().any(|problem| problem.starts_with(&format!("commitments[0].{at} "))), "{at}: {wrong:?}");
    }
    // A bid that was told and not taken stands among the commitments alone.
    let mut told = setting.clone();
    let stray = bid::Model {
        id: BidId(uuid(4, 50)),
        seq: 50,
        agent_id: AgentId(uuid(5, 50)),
        reputation: None,
        rank: None,
        price: micros(told.auction.max_price.micros() + 1),
        status: bid::Status::Ineligible,
        ..told.bids[0].clone()
    };
    told.bids.push(stray);
    let with_stray = certificate(&told, None);
    assert_eq!((with_stray.bids.len(), with_stray.commitments.len()), (right.bids.len(), right.commitments.len() + 1));
    assert!(verdict(&[signed(&with_stray).0]).ok);
}

#[test]
fn two_documents_of_one_place_are_told_apart() {
    let one = certificate(&any_decided(), None);
    let other = Certificate { issued_at: super::value::Instant::text(at(90)), ..one.clone() };
    assert!(verdict(&[signed(&one).0]).ok);
    assert!(verdict(&[signed(&one).0, signed(&one).0]).ok, "the same one twice is one");
    let both = verdict(&[signed(&one).0, signed(&other).0]);
    assert_eq!(problems(&both).iter().filter(|problem| problem.starts_with("version must be that of one")).count(), 2);
}

#[test]
fn an_envelope_may_be_anything_and_its_content_nothing_else() {
    let one = certificate(&any_decided(), None);
    let (envelope, digest) = signed(&one);
    let (body, signature) = (envelope["body"].as_str().unwrap(), envelope["signature"].as_str().unwrap());
    let value: Value = serde_json::from_str(body).unwrap();
    let ok = |text: &str| verify(text, None).is_ok_and(|verdict| verdict.ok && verdict.documents.len() == 1);

    assert!(ok(&envelope.to_string()));
    assert!(ok(
        &json!({ "data": { "awardCertificate": { "__typename": "SignedDocument", "body": body, "signature": signature,
        "sha256": digest.to_string(), "publicKey": public().to_string(), "kind": "AWARD_CERTIFICATE", "version": 1,
        "id": one.id.to_string(), "verifiesWith": "ZSDOC-v1" } } })
        .to_string()
    ));
    assert!(ok(&json!({ "document": value, "signature": signature }).to_string()), "as an object");
    assert!(ok(&format!("{envelope}\n{envelope}\n")), "as lines, one of them twice");
    assert!(ok(&json!({ "bundle": json!([envelope]).to_string() }).to_string()));

    let with = |field: &str, value: Value| {
        let mut envelope = envelope.clone();
        envelope[field] = value;
        envelope.to_string()
    };
    for (field, value) in [
        ("sha256", json!("0".repeat(64))),
        ("publicKey", json!("0".repeat(64))),
        ("id", json!("doc_00000000000000000000000000")),
        ("kind", json!("TASK_RECEIPT")),
        ("version", json!(2)),
        ("verifiesWith", json!("ZSDOC-v2")),
        ("signature", json!(signature.to_uppercase())),
        ("signature", json!("")),
        // The same content in other texts.
        ("body", json!(format!(" {body}"))),
        ("body", json!(serde_json::to_string_pretty(&value).unwrap())),
        ("body", json!(body.replacen('{', "{\"schema\":\"zerostate:award-certificate:1\",", 1))),
        ("body", json!("")),
        ("body", json!(null)),
        ("body", json!("{}")),
    ] {
        assert!(!ok(&with(field, value.clone())), "{field}: {value}");
    }
    // Signed by the market, and not of the format.
    let reject = |value: Value| {
        let sealed = seal(&value, |message| key().sign(message).to_bytes()).unwrap();
        !ok(&json!({ "body": sealed.body, "signature": sealed.signature.to_string() }).to_string())
    };
    assert!(!reject(value.clone()));
    for (field, other) in [("more", json!(1)), ("schema", json!("zerostate:award-certificate:2")), ("bids", json!([]))]
    {
        let mut changed = value.clone();
        changed[field] = other;
        assert!(reject(changed), "{field}");
    }
    let mut shorter = value.clone();
    shorter.as_object_mut().unwrap().remove("previous");
    assert!(reject(shorter), "a field that is null must be there");
    let mut spelled = value;
    spelled["auction"]["budget"] =
        json!(format!("{}0", spelled["auction"]["budget"].as_str().unwrap().to_owned() + ".0"));
    assert!(reject(spelled), "an amount has one spelling");
}

proptest! {
    #[test]
    fn no_text_panics(text in ".{0,60}", body in ".{0,60}", signature in "[0-9a-f]{0,130}") {
        prop_assert!(!verify(&text, None).is_ok_and(|verdict| verdict.ok));
        let envelope = json!({ "body": body, "signature": signature }).to_string();
        prop_assert!(!verify(&envelope, None).unwrap().ok);
    }
}
