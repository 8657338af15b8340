//! The certificate of an award: everything that decided it, in one document that anybody can check.
//!
//! What it says of each bid is what the market wrote when it decided: the reputation that was taken, the score N with its parts, the
//! place, and what came of the bid. [`check`] takes the prices, the reputations and the terms alone and derives the rest again, by
//! the very functions that decide auctions ([`rules`]); whatever differs is a finding. What nobody can derive is left as the
//! market's word and said to be so: that an agent was not ready or not able when the bid was found not eligible, and that a bid
//! was passed over when another took the task over.

use std::collections::BTreeSet;

use entity::{
    agent::{self, Runtime},
    auction::{self, AwardMode, Visibility},
    bid, commitment, document,
    id::{AgentId, AuctionId, BidId, CommitmentId, DocumentId, ModuleId, TaskId, UserId},
    money::Amount,
    text::Words,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    findings::Findings,
    value::{Digest, Hex, Instant, PublicKey, Text},
};
use crate::{
    auction::{
        commitment::Sealed,
        rules::{self, Offer, Score},
    },
    error::{Error, Result},
    voucher,
};

/// Names this format. Another one gets another name.
pub const SCHEMA: &str = "zerostate:award-certificate:1";
const SCORE_RULE: &str = "N = priceWeight * (budget - price) * 10000 + reputationWeight * budget * reputation, amounts in micro-credits, \
    weights and reputation in basis points";
const ORDER_RULE: &str = "N descending, then reputation descending, then sequence ascending";
const PAYMENT_RULE: &str = "FIRST_PRICE: the winner's own price. SECOND_PRICE: the highest price, at most the cap, at which the winner \
    would still be placed before its best rival, and not less than its own price. After a take-over: the winner's own price.";

/// An award and what decided it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Certificate {
    /// [`SCHEMA`].
    pub schema: String,
    pub kind: document::Kind,
    pub id: Text<DocumentId>,
    /// 1 for the award of the auction, one more for each bid that took the task over since.
    pub version: i32,
    /// When it was awarded.
    pub issued_at: Text<Instant>,
    pub market: Market,
    pub auction: AuctionPart,
    /// The bids that stood when the auction was decided, in the order in which they came.
    pub bids: Vec<BidPart>,
    /// The commitments of a COMMIT_REVEAL auction, in the order in which they came; empty in others.
    pub commitments: Vec<CommitmentPart>,
    pub rules: RulesPart,
    pub award: AwardPart,
    /// The SHA-256 of the certificate of the version before.
    pub previous: Option<Text<Digest>>,
}

/// Who signs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Market {
    /// See [`voucher::instance_id`].
    pub instance_id: Text<Digest>,
    pub public_key: Text<PublicKey>,
}

impl Market {
    /// The market with this key.
    #[must_use]
    pub fn of(public_key: PublicKey) -> Self {
        Self { instance_id: Text(Hex(voucher::instance_id(&public_key.0))), public_key: Text(public_key) }
    }
}

/// The terms of the auction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuctionPart {
    pub id: Text<AuctionId>,
    pub task_id: Text<TaskId>,
    pub requester_id: Text<UserId>,
    pub kind: auction::Kind,
    pub visibility: Visibility,
    pub award_mode: AwardMode,
    pub budget: Text<Amount>,
    pub max_price: Text<Amount>,
    pub reserve_price: Option<Text<Amount>>,
    pub min_reputation: i32,
    pub price_weight: i32,
    pub reputation_weight: i32,
    pub capabilities: Vec<String>,
    pub close_after_bids: Option<i32>,
    pub bond: Text<Amount>,
    pub opened_at: Text<Instant>,
    /// Until when it took bids at the longest.
    pub closes_at: Text<Instant>,
    /// When it was decided.
    pub closed_at: Text<Instant>,
}

/// Why a bid could not win.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Ineligible {
    /// The price is above the reserve or the ceiling.
    PriceAboveCap,
    /// The reputation at the close was below what the auction asks for.
    ReputationTooLow,
    /// The agent was paused, retired, without a module or without a capability. The market's word.
    AgentNotQualified,
}

/// One bid as it was decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BidPart {
    pub id: Text<BidId>,
    pub agent_id: Text<AgentId>,
    pub sequence: i32,
    /// What it asked, or the most where `fuel_price` is there.
    pub price: Text<Amount>,
    /// What it charges for a million units of fuel. A bid whose price is not metered does not have the field, so that documents
    /// from before there were such bids are still of this format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fuel_price: Option<Text<Amount>>,
    pub submitted_at: Text<Instant>,
    /// Taken once, at the close, in basis points.
    pub reputation: i32,
    pub score: ScorePart,
    pub ineligible: Option<Ineligible>,
    /// From 1; nothing for a bid that was not eligible.
    pub rank: Option<i32>,
    pub status: bid::Status,
}

/// The exact numerator N of a score and its parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScorePart {
    pub total: Text<i128>,
    pub price: Text<i128>,
    pub reputation: Text<i128>,
}

impl From<Score> for ScorePart {
    fn from(score: Score) -> Self {
        Self { total: Text(score.total), price: Text(score.price_part), reputation: Text(score.reputation_part) }
    }
}

/// A commitment of a COMMIT_REVEAL auction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CommitmentPart {
    pub id: Text<CommitmentId>,
    pub agent_id: Text<AgentId>,
    pub sequence: i32,
    pub hash: Text<Digest>,
    pub status: commitment::Status,
    /// The bid that was told, with the salt that makes the hash of it.
    pub revealed: Option<RevealPart>,
}

/// What a bidder told, from which the hash of the commitment follows; see [`Sealed`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RevealPart {
    pub bid_id: Text<BidId>,
    pub price: Text<Amount>,
    /// 0 for no promise.
    pub promised_ms: Text<u32>,
    pub salt: Text<Digest>,
}

/// The rules in words, the same in every certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RulesPart {
    pub score: String,
    pub order: String,
    pub payment: String,
}

impl Default for RulesPart {
    fn default() -> Self {
        Self { score: SCORE_RULE.to_owned(), order: ORDER_RULE.to_owned(), payment: PAYMENT_RULE.to_owned() }
    }
}

/// How the winner was picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Decision {
    /// The first in the order.
    BestScore,
    /// The requester named another one.
    Named,
    /// The next in the order took over from a winner that did not start.
    TakeOver,
}

/// What the winner is paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Payment {
    OwnPrice,
    CriticalPrice,
}

/// The award.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AwardPart {
    pub decision: Decision,
    pub bid_id: Text<BidId>,
    pub agent_id: Text<AgentId>,
    /// The highest price at which the requester bought.
    pub cap: Text<Amount>,
    /// The best bid but the winner's; nothing when there was none, and after a take-over.
    pub rival_bid_id: Option<Text<BidId>>,
    /// The highest price at which the winner would still have won against the rival; nothing after a take-over.
    pub critical_price: Option<Text<Amount>>,
    pub payment: Payment,
    /// What the winner is paid on success.
    pub price: Text<Amount>,
}

/// What a certificate is made of besides the rows.
#[derive(Clone, Copy, Debug)]
pub struct Issue {
    pub id: DocumentId,
    pub at: Timestamp,
    pub public_key: PublicKey,
    /// The version and the hash of the certificate before.
    pub previous: Option<(i32, Digest)>,
}

impl Certificate {
    /// The certificate of an awarded auction, from its rows as they were written.
    pub fn new(
        issue: Issue,
        auction: &auction::Model,
        bids: &[bid::Model],
        commitments: &[commitment::Model],
    ) -> Result<Self> {
        let (Some(won), Some(price), Some(closed_at)) =
            (auction.winning_bid_id, auction.clearing_price, auction.closed_at)
        else {
            return Err(Error::internal("a certificate of an auction without a winner"));
        };
        let terms = AuctionPart::of(auction, closed_at);
        let told = commitments.iter().map(|commitment| CommitmentPart::of(commitment, bids)).collect::<Result<_>>()?;
        // A bid that the auction did not take when it was told was in no decision, and has no reputation.
        let stood = bids.iter().filter_map(|bid| Some((bid, bid.reputation?)));
        let bids: Vec<BidPart> = stood.map(|(bid, reputation)| BidPart::of(auction, bid, reputation)).collect();
        let winner = bids.iter().find(|bid| bid.id.0 == won);
        let winner = winner.ok_or_else(|| Error::internal("the winning bid is not among the bids of its auction"))?;
        let derived = Derived::of(&terms, &bids);
        let took_over = issue.previous.is_some();
        let outcome = derived.outcome(winner, took_over);
        let award = AwardPart {
            bid_id: Text(won),
            agent_id: winner.agent_id,
            cap: Text(derived.cap),
            price: Text(price),
            decision: outcome.decision,
            rival_bid_id: outcome.rival,
            critical_price: outcome.critical_price,
            payment: outcome.payment,
        };
        Ok(Self {
            schema: SCHEMA.to_owned(),
            kind: document::Kind::AwardCertificate,
            id: Text(issue.id),
            version: issue.previous.map_or(1, |(version, _)| version.saturating_add(1)),
            issued_at: Instant::text(issue.at),
            market: Market::of(issue.public_key),
            auction: terms,
            bids,
            commitments: told,
            rules: RulesPart::default(),
            award,
            previous: issue.previous.map(|(_, digest)| Text(digest)),
        })
    }

    /// The bid that won.
    #[must_use]
    pub fn winner(&self) -> Option<&BidPart> {
        self.bids.iter().find(|bid| bid.id == self.award.bid_id)
    }
}

impl AuctionPart {
    fn of(auction: &auction::Model, closed_at: Timestamp) -> Self {
        Self {
            id: Text(auction.id),
            task_id: Text(auction.task_id),
            requester_id: Text(auction.requester_id),
            kind: auction.kind,
            visibility: auction.visibility,
            award_mode: auction.award_mode,
            budget: Text(auction.budget),
            max_price: Text(auction.max_price),
            reserve_price: auction.reserve_price.map(Text),
            min_reputation: auction.min_reputation,
            price_weight: auction.price_weight,
            reputation_weight: auction.reputation_weight,
            capabilities: auction.capabilities.0.clone(),
            close_after_bids: auction.close_after_bids,
            bond: Text(auction.bond),
            opened_at: Instant::text(auction.created_at),
            closes_at: Instant::text(auction.closes_at),
            closed_at: Instant::text(closed_at),
        }
    }

    /// The row, as far as the rules read it.
    fn row(&self) -> auction::Model {
        auction::Model {
            id: self.id.0,
            task_id: self.task_id.0,
            requester_id: self.requester_id.0,
            status: auction::Status::Awarded,
            kind: self.kind,
            visibility: self.visibility,
            award_mode: self.award_mode,
            budget: self.budget.0,
            max_price: self.max_price.0,
            reserve_price: self.reserve_price.map(|price| price.0),
            min_reputation: self.min_reputation,
            price_weight: self.price_weight,
            reputation_weight: self.reputation_weight,
            capabilities: Words(self.capabilities.clone()),
            closes_at: self.closes_at.0.0,
            close_after_bids: self.close_after_bids,
            soft_close_ms: 0,
            extensions: 0,
            next_seq: 0,
            bid_count: 0,
            winning_bid_id: None,
            clearing_price: None,
            deadline_at: None,
            created_at: self.opened_at.0.0,
            closed_at: Some(self.closed_at.0.0),
            reveal_ms: 0,
            bond: self.bond.0,
            reveal_until: None,
            commitment_count: 0,
            excluded: Words::default(),
            online_only: false,
        }
    }
}

impl BidPart {
    fn of(auction: &auction::Model, bid: &bid::Model, reputation: i32) -> Self {
        let ineligible = (bid.status == bid::Status::Ineligible).then(|| {
            let capped = bid.price > rules::cap(auction);
            let trusted = reputation >= auction.min_reputation;
            match (capped, trusted) {
                (true, _) => Ineligible::PriceAboveCap,
                (false, false) => Ineligible::ReputationTooLow,
                (false, true) => Ineligible::AgentNotQualified,
            }
        });
        Self {
            id: Text(bid.id),
            agent_id: Text(bid.agent_id),
            sequence: bid.seq,
            price: Text(bid.price),
            fuel_price: bid.fuel_price.map(Text),
            submitted_at: Instant::text(bid.created_at),
            reputation,
            score: rules::score(bid.price, reputation, auction.budget, auction.price_weight).into(),
            ineligible,
            rank: bid.rank,
            status: bid.status,
        }
    }

    /// The row, as far as the rules read it.
    fn row(&self, auction: &auction::Model) -> bid::Model {
        bid::Model {
            id: self.id.0,
            auction_id: auction.id,
            agent_id: self.agent_id.0,
            bidder_id: UserId(Uuid::nil()),
            price: self.price.0,
            promised_ms: None,
            seq: self.sequence,
            status: bid::Status::Active,
            reputation: Some(self.reputation),
            rank: None,
            created_at: self.submitted_at.0.0,
            bond_id: None,
            fuel_price: self.fuel_price.map(|price| price.0),
        }
    }

    /// An agent that the auction takes, or one that it does not where the market says so.
    fn agent(&self, auction: &auction::Model) -> agent::Model {
        let qualified = self.ineligible != Some(Ineligible::AgentNotQualified);
        agent::Model {
            id: self.agent_id.0,
            owner_id: UserId(Uuid::nil()),
            name: String::new(),
            description: String::new(),
            capabilities: auction.capabilities.clone(),
            runtime: Runtime::Hosted,
            status: if qualified { agent::Status::Active } else { agent::Status::Paused },
            price: self.price.0,
            min_price: Amount::ZERO,
            promised_ms: None,
            module_id: Some(ModuleId(Uuid::nil())),
            score: 0,
            last_seen_at: None,
            version: 0,
            created_at: self.submitted_at.0.0,
            updated_at: self.submitted_at.0.0,
            public_key: None,
            capacity: None,
            in_work: 0,
            fuel_price: None,
            webhook_url: None,
            webhook_generation: 0,
        }
    }

    fn offer(&self) -> Offer {
        Offer {
            bid: self.id.0,
            agent: self.agent_id.0,
            bidder: UserId(Uuid::nil()),
            price: self.price.0,
            reputation: self.reputation,
            seq: self.sequence,
        }
    }
}

impl CommitmentPart {
    fn of(commitment: &commitment::Model, bids: &[bid::Model]) -> Result<Self> {
        let digest = |text: &str| text.parse().map(Text).map_err(|why: String| Error::internal(why));
        let told = bids.iter().find(|bid| commitment.bid_id == Some(bid.id)).zip(commitment.salt.as_deref());
        let revealed = told.map(|(bid, salt)| {
            Ok::<_, Error>(RevealPart {
                bid_id: Text(bid.id),
                price: Text(bid.price),
                promised_ms: Text(bid.promised_ms.map_or(0, |millis| u32::try_from(millis).unwrap_or(u32::MAX))),
                salt: digest(salt)?,
            })
        });
        Ok(Self {
            id: Text(commitment.id),
            agent_id: Text(commitment.agent_id),
            sequence: commitment.seq,
            hash: digest(&commitment.hash)?,
            status: commitment.status,
            revealed: revealed.transpose()?,
        })
    }
}

/// What follows from the terms, the prices and the reputations.
struct Derived {
    auction: auction::Model,
    cap: Amount,
    /// The eligible bids in their order.
    ranked: Vec<(Offer, Score)>,
}

/// What follows for one winner.
struct Outcome {
    decision: Decision,
    payment: Payment,
    rival: Option<Text<BidId>>,
    critical_price: Option<Text<Amount>>,
    price: Amount,
}

impl Derived {
    fn of(terms: &AuctionPart, bids: &[BidPart]) -> Self {
        let auction = terms.row();
        let eligible = bids.iter().filter(|bid| {
            let (row, agent) = (bid.row(&auction), bid.agent(&auction));
            rules::eligible(&auction, &row, &agent, bid.reputation, auction.created_at)
        });
        let offers: Vec<Offer> = eligible.map(BidPart::offer).collect();
        let ranked = rules::rank(&offers, auction.budget, auction.price_weight);
        Self { cap: rules::cap(&auction), auction, ranked }
    }

    /// The place of a bid, from 1.
    fn place(&self, bid: BidId) -> Option<i32> {
        (1..).zip(&self.ranked).find(|(_, (offer, _))| offer.bid == bid).map(|(place, _)| place)
    }

    fn outcome(&self, winner: &BidPart, took_over: bool) -> Outcome {
        let offer = winner.offer();
        if took_over {
            return Outcome {
                decision: Decision::TakeOver,
                payment: Payment::OwnPrice,
                rival: None,
                critical_price: None,
                price: offer.price,
            };
        }
        let rival = self.ranked.iter().map(|(offer, _)| *offer).find(|rival| rival.bid != offer.bid);
        let auction = &self.auction;
        let critical = rules::critical_price(&offer, rival.as_ref(), auction.budget, auction.price_weight, self.cap);
        Outcome {
            decision: if self.place(offer.bid) == Some(1) { Decision::BestScore } else { Decision::Named },
            payment: match auction.kind {
                auction::Kind::FirstPrice => Payment::OwnPrice,
                auction::Kind::SecondPrice => Payment::CriticalPrice,
            },
            rival: rival.map(|rival| Text(rival.bid)),
            critical_price: Some(Text(critical)),
            price: rules::payment(auction, &offer, &self.ranked),
        }
    }
}

/// Derives again what a certificate says and finds what differs.
pub fn check(certificate: &Certificate, findings: &mut Findings) {
    let Certificate { auction, award, bids, .. } = certificate;
    findings.expect("schema", certificate.schema.as_str(), SCHEMA);
    findings.expect("kind", certificate.kind.name(), document::Kind::AwardCertificate.name());
    market(&certificate.market, findings);
    let said = RulesPart::default();
    findings.expect("rules.score", &certificate.rules.score, &said.score);
    findings.expect("rules.order", &certificate.rules.order, &said.order);
    findings.expect("rules.payment", &certificate.rules.payment, &said.payment);
    terms(certificate, findings);

    let derived = Derived::of(auction, bids);
    findings.expect("award.cap", award.cap, Text(derived.cap));
    let took_over = certificate.version > 1;
    findings.demand(certificate.version >= 1, "version", "must be 1 or more");
    findings.demand(
        certificate.previous.is_some() == took_over,
        "previous",
        "must be there if and only if the version is above 1",
    );
    let winner = certificate.winner();
    for (place, bid) in bids.iter().enumerate() {
        let at = |field: &str| format!("bids[{place}].{field}");
        let score: ScorePart = rules::score(bid.price.0, bid.reputation, auction.budget.0, auction.price_weight).into();
        findings.expect(at("score.total"), bid.score.total, score.total);
        findings.expect(at("score.price"), bid.score.price, score.price);
        findings.expect(at("score.reputation"), bid.score.reputation, score.reputation);
        findings.expect_maybe(at("rank"), bid.rank, derived.place(bid.id.0));
        ineligibility(certificate, &derived, bid, &at("ineligible"), findings);
        let is_winner = bid.id == award.bid_id;
        let expected = match (derived.place(bid.id.0), is_winner) {
            (None, _) => bid::Status::Ineligible,
            (Some(_), true) => bid::Status::Won,
            (Some(_), false) if took_over && bid.status == bid::Status::Forfeited => bid::Status::Forfeited,
            (Some(_), false) => bid::Status::Lost,
        };
        findings.expect(at("status"), bid.status.name(), expected.name());
        let better = took_over && bid.rank < winner.and_then(|winner| winner.rank) && bid.rank.is_some();
        if better && bid.status == bid::Status::Lost {
            findings.note(format!(
                "{} stood before the bid that took over and was passed over: the market says that its agent did not qualify any \
                 more or that the requester did not have its price.",
                bid.id
            ));
        }
    }
    let forfeited = bids.iter().filter(|bid| bid.status == bid::Status::Forfeited).count();
    findings.demand(
        i32::try_from(forfeited).is_ok_and(|forfeited| certificate.version.checked_sub(1) == Some(forfeited)),
        "version",
        "must be one more than there are bids that were forfeited",
    );
    let Some(winner) = winner else {
        findings.problem("award.bidId", "must be one of the bids");
        return;
    };
    findings.demand(derived.place(winner.id.0).is_some(), "award.bidId", "must be that of an eligible bid");
    findings.expect("award.agentId", award.agent_id, winner.agent_id);
    let outcome = derived.outcome(winner, took_over);
    findings.expect("award.decision", decision(award.decision), decision(outcome.decision));
    let named = outcome.decision == Decision::Named && auction.award_mode == AwardMode::Automatic;
    findings.demand(!named, "award.bidId", "must be the first in the order: nobody picks in an AUTOMATIC auction");
    findings.expect("award.payment", payment(award.payment), payment(outcome.payment));
    findings.expect_maybe("award.rivalBidId", award.rival_bid_id, outcome.rival);
    findings.expect_maybe("award.criticalPrice", award.critical_price, outcome.critical_price);
    findings.expect("award.price", award.price, Text(outcome.price));
    commitments(certificate, findings);
}

/// Whether a market is named by its key.
pub(super) fn market(market: &Market, findings: &mut Findings) {
    findings.expect("market.instanceId", market.instance_id, Market::of(market.public_key.0).instance_id);
}

/// Whether the terms make sense and the bids are such as the auction takes.
fn terms(certificate: &Certificate, findings: &mut Findings) {
    let Certificate { auction, bids, .. } = certificate;
    let weights = (0..=rules::WHOLE).contains(&auction.price_weight)
        && auction.price_weight.checked_add(auction.reputation_weight) == Some(rules::WHOLE);
    findings.demand(weights, "auction.reputationWeight", "must make 10000 with priceWeight");
    findings.demand(!auction.budget.0.is_zero(), "auction.budget", "must be more than zero");
    let within = |price: Amount| !price.is_zero() && price <= auction.budget.0;
    findings.demand(within(auction.max_price.0), "auction.maxPrice", "must be more than zero and at most the budget");
    findings.demand(
        auction.reserve_price.is_none_or(|price| within(price.0)),
        "auction.reservePrice",
        "must be more than zero and at most the budget",
    );
    findings.demand(
        (0..=rules::WHOLE).contains(&auction.min_reputation),
        "auction.minReputation",
        "must be from 0 to 10000",
    );
    // A clock may be set back, so instants are told and not judged.
    findings.remark(auction.opened_at <= auction.closed_at, "auction.closedAt is before auction.openedAt.");
    findings.remark(auction.closed_at <= certificate.issued_at, "issuedAt is before auction.closedAt.");
    findings.demand(!bids.is_empty(), "bids", "must not be empty");
    let (mut ids, mut agents, mut last) = (BTreeSet::new(), BTreeSet::new(), 0);
    for (place, bid) in bids.iter().enumerate() {
        let at = |field: &str| format!("bids[{place}].{field}");
        findings.demand(ids.insert(bid.id), at("id"), "must be there once");
        findings.demand(agents.insert(bid.agent_id), at("agentId"), "must have one bid that stands");
        findings.demand(bid.sequence > last, at("sequence"), "must be above that of the bid before");
        last = bid.sequence;
        let priced = !bid.price.0.is_zero() && bid.price <= auction.max_price;
        findings.demand(priced, at("price"), "must be more than zero and at most the ceiling");
        findings.demand((0..=rules::WHOLE).contains(&bid.reputation), at("reputation"), "must be from 0 to 10000");
        let in_time = auction.opened_at <= bid.submitted_at && bid.submitted_at <= auction.closed_at;
        findings.remark(in_time, &format!("{} is not between the opening and the close.", at("submittedAt")));
    }
}

fn ineligibility(certificate: &Certificate, derived: &Derived, bid: &BidPart, at: &str, findings: &mut Findings) {
    let right = if bid.price.0 > derived.cap {
        Some(Ineligible::PriceAboveCap)
    } else if bid.reputation < certificate.auction.min_reputation {
        Some(Ineligible::ReputationTooLow)
    } else {
        bid.ineligible.filter(|why| *why == Ineligible::AgentNotQualified)
    };
    findings.expect_maybe(at, bid.ineligible.map(ineligible), right.map(ineligible));
    if right == Some(Ineligible::AgentNotQualified) {
        findings.note(format!(
            "{} could not win because its agent did not qualify at the close: that is the market's word.",
            bid.id
        ));
    }
}

/// Whether the bids of a COMMIT_REVEAL auction are those that were committed to.
fn commitments(certificate: &Certificate, findings: &mut Findings) {
    let Certificate { auction, bids, commitments, .. } = certificate;
    if auction.visibility != Visibility::CommitReveal {
        findings.demand(commitments.is_empty(), "commitments", "must be empty but in a COMMIT_REVEAL auction");
        return;
    }
    let mut revealed = BTreeSet::new();
    let mut last = 0;
    for (place, commitment) in commitments.iter().enumerate() {
        let at = |field: &str| format!("commitments[{place}].{field}");
        findings.demand(commitment.sequence > last, at("sequence"), "must be above that of the commitment before");
        last = commitment.sequence;
        let told = commitment.status == commitment::Status::Revealed;
        findings.demand(
            commitment.revealed.is_some() == told,
            at("revealed"),
            "must be there if and only if it was revealed",
        );
        let Some(told) = &commitment.revealed else { continue };
        let sealed = Sealed {
            instance: certificate.market.instance_id.0.0,
            auction: auction.id.0,
            agent: commitment.agent_id.0,
            price: told.price.0,
            promised_ms: told.promised_ms.0,
            salt: told.salt.0.0,
        };
        findings.expect(at("hash"), commitment.hash, Text(Hex(sealed.commitment())));
        let one = revealed.insert(told.bid_id);
        findings.demand(one, at("revealed.bidId"), "must be that of one commitment");
        match bids.iter().find(|bid| bid.id == told.bid_id) {
            Some(bid) => {
                let fits = bid.agent_id == commitment.agent_id && bid.sequence == commitment.sequence;
                findings.demand(fits, at("revealed.bidId"), "must be that of a bid of the same agent and sequence");
                findings.expect(at("revealed.price"), told.price, bid.price);
            }
            None if told.price.0.is_zero() || told.price > auction.max_price => {}
            None => findings.note(format!(
                "{} was told and did not stand: the market says that its agent did not work for so little.",
                told.bid_id
            )),
        }
    }
    for bid in bids.iter().filter(|bid| !revealed.contains(&bid.id)) {
        findings.note(format!("{} stands without a commitment.", bid.id));
    }
}

fn ineligible(why: Ineligible) -> &'static str {
    match why {
        Ineligible::PriceAboveCap => "PRICE_ABOVE_CAP",
        Ineligible::ReputationTooLow => "REPUTATION_TOO_LOW",
        Ineligible::AgentNotQualified => "AGENT_NOT_QUALIFIED",
    }
}

fn decision(decision: Decision) -> &'static str {
    match decision {
        Decision::BestScore => "BEST_SCORE",
        Decision::Named => "NAMED",
        Decision::TakeOver => "TAKE_OVER",
    }
}

fn payment(payment: Payment) -> &'static str {
    match payment {
        Payment::OwnPrice => "OWN_PRICE",
        Payment::CriticalPrice => "CRITICAL_PRICE",
    }
}

/// Whether a certificate follows from the one of the version before: the same auction, decided once.
pub fn follows(certificate: &Certificate, previous: &Certificate, findings: &mut Findings) {
    findings.demand(certificate.auction == previous.auction, "auction", "must be as in the version before");
    findings.demand(certificate.market == previous.market, "market", "must be as in the version before");
    findings.demand(certificate.commitments == previous.commitments, "commitments", "must be as in the version before");
    findings.demand(certificate.bids.len() == previous.bids.len(), "bids", "must be those of the version before");
    for (place, (bid, before)) in certificate.bids.iter().zip(&previous.bids).enumerate() {
        let as_before = BidPart { status: before.status, ..bid.clone() } == *before;
        findings.demand(as_before, format!("bids[{place}]"), "must be as in the version before, but for its status");
        let step = match (before.status, bid.status) {
            (bid::Status::Won, bid::Status::Forfeited) | (bid::Status::Lost, bid::Status::Won) => true,
            (one, other) => one == other,
        };
        findings.demand(step, format!("bids[{place}].status"), "must follow from that of the version before");
    }
}
