//! The receipt of a settled task: what was asked for, who was to do it for how much and why, what was run on what, what came of
//! it, and where every credit went.
//!
//! A receipt names the certificate that its award follows from by its hash, and its work by hashes of the module, the input and
//! the output, so that each of them can be shown later without the others. The stars of the payer come later; they make the next
//! version, which names the one before by its hash and differs from it in nothing else ([`follows`]).

use std::collections::BTreeMap;

use entity::{
    bid, dispute, document, execution,
    id::{
        AccountId, AgentId, AuctionId, BatchId, BidId, ChannelId, DelegationId, DisputeId, DocumentId, ExecutionId,
        RatingId, ReputationEventId, TaskId, TransferId, UserId,
    },
    money::Amount,
    rating,
    reputation_event::{self, Cause},
    task::{self, Acceptance},
    task_result::{self, Outcome},
    transfer,
};
use serde::{Deserialize, Serialize};

use super::{
    certificate::{self, Certificate, Issue, Market},
    findings::Findings,
    value::{Digest, Instant, Text, sha256},
};
use crate::{
    auction::rules::metered,
    error::{Error, Result},
    ledger::Place,
};

/// Names this format. Another one gets another name.
pub const SCHEMA: &str = "zerostate:task-receipt:1";
/// Milli-points of the best score.
const BEST_SCORE: i32 = 100_000;

/// How a task was settled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Receipt {
    /// [`SCHEMA`].
    pub schema: String,
    pub kind: document::Kind,
    pub id: Text<DocumentId>,
    /// 1 for the settlement, 2 with the stars of the payer.
    pub version: i32,
    pub issued_at: Text<Instant>,
    pub market: Market,
    pub offer: OfferPart,
    pub bid: BidPart,
    pub award: AwardPart,
    pub work: WorkPart,
    pub ruling: Option<RulingPart>,
    pub settlement: SettlementPart,
    /// All movements of credits for the task, in the order in which they happened; bonds are not among them.
    pub transfers: Vec<TransferPart>,
    /// The evidence that the task gave about agents, in the order in which it was written.
    pub reputation: Vec<EvidencePart>,
    pub rating: Option<RatingPart>,
    /// The SHA-256 of the receipt of the version before.
    pub previous: Option<Text<Digest>>,
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OfferPart {
    pub task_id: Text<TaskId>,
    pub requester_id: Text<UserId>,
    /// The delegation that paid, out of what its requester had set aside; left out where the requester's wallet did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegation_id: Option<Text<DelegationId>>,
    pub capabilities: Vec<String>,
    pub input_sha256: Text<Digest>,
    /// Of the text of the JSON Schema as it was stored.
    pub output_schema_sha256: Option<Text<Digest>>,
    pub budget: Text<Amount>,
    pub acceptance: Acceptance,
    pub review_ms: Option<Text<i64>>,
    pub timeout_ms: Text<i64>,
    pub start_timeout_ms: Text<i64>,
    pub max_attempts: i32,
    pub created_at: Text<Instant>,
}

/// The bid that won last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BidPart {
    pub id: Text<BidId>,
    pub agent_id: Text<AgentId>,
    pub sequence: i32,
    pub price: Text<Amount>,
    /// What it charges for a million units of fuel; not there where the price is not metered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fuel_price: Option<Text<Amount>>,
    pub promised_ms: Option<Text<i64>>,
    pub reputation: Option<i32>,
    pub rank: Option<i32>,
}

/// The award that the work follows from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AwardPart {
    pub auction_id: Text<AuctionId>,
    pub certificate_id: Text<DocumentId>,
    pub certificate_version: i32,
    pub certificate_sha256: Text<Digest>,
    pub price: Text<Amount>,
    pub awarded_at: Option<Text<Instant>>,
}

/// What was run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkPart {
    pub execution_id: Text<ExecutionId>,
    pub status: execution::Status,
    pub attempts: i32,
    pub started_at: Option<Text<Instant>>,
    /// Whether the verifiers passed the result, where the payer was asked too.
    pub verified: Option<bool>,
    pub submitted_at: Option<Text<Instant>>,
    /// Nothing where nobody started.
    pub result: Option<ResultPart>,
}

/// What came of the last attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResultPart {
    pub outcome: Outcome,
    pub fault_code: Option<String>,
    /// Nothing for an agent that runs elsewhere.
    pub module_sha256: Option<Text<Digest>>,
    pub input_sha256: Text<Digest>,
    pub output_sha256: Option<Text<Digest>>,
    pub fuel: Text<i64>,
    pub peak_memory_bytes: Text<i64>,
    pub wall_us: Text<i64>,
}

/// What came of a dispute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RulingPart {
    pub dispute_id: Text<DisputeId>,
    pub opened_by: dispute::Party,
    pub status: dispute::Status,
    /// What there was to share out.
    pub amount: Text<Amount>,
    /// What the agent got of it, before the platform's fee.
    pub awarded: Option<Text<Amount>>,
    pub opinion_sha256: Option<Text<Digest>>,
    pub opened_at: Text<Instant>,
}

/// How the deposit was shared out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SettlementPart {
    pub channel_id: Text<ChannelId>,
    pub status: task::Status,
    pub failure_code: Option<String>,
    /// What was deposited.
    pub price: Text<Amount>,
    /// What good work was paid for its fuel; not there where the price is not metered, and where no result came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charge: Option<Text<Amount>>,
    /// What was paid of it: `earned + fee`.
    pub paid: Text<Amount>,
    /// What the agent received.
    pub earned: Text<Amount>,
    /// What the platform received.
    pub fee: Text<Amount>,
    /// What went back to the payer: `price − paid`.
    pub returned: Text<Amount>,
    pub finished_at: Text<Instant>,
}

/// One movement of credits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TransferPart {
    pub id: Text<TransferId>,
    pub batch_id: Text<BatchId>,
    pub kind: transfer::Kind,
    /// The account that the credits left. Its id follows from whose it is, so that a check can derive it.
    pub debit: Text<AccountId>,
    pub credit: Text<AccountId>,
    pub amount: Text<Amount>,
    pub channel_id: Option<Text<ChannelId>>,
    pub created_at: Text<Instant>,
}

/// One piece of evidence about an agent, with its score in milli-points before and after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EvidencePart {
    pub id: Text<ReputationEventId>,
    pub agent_id: Text<AgentId>,
    pub cause: Cause,
    pub score_before: i32,
    pub score_after: i32,
}

/// The stars of the payer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RatingPart {
    pub id: Text<RatingId>,
    pub stars: i32,
    pub comment_sha256: Option<Text<Digest>>,
    pub rated_at: Text<Instant>,
}

/// The rows that a receipt is made of.
#[derive(Clone, Debug)]
pub struct Rows<'a> {
    pub task: &'a task::Model,
    pub bid: &'a bid::Model,
    pub certificate: &'a document::Model,
    pub execution: &'a execution::Model,
    pub result: Option<&'a task_result::Model>,
    pub dispute: Option<&'a dispute::Model>,
    pub transfers: &'a [transfer::Model],
    pub evidence: &'a [reputation_event::Model],
}

impl Receipt {
    /// The receipt of a task that was awarded and is over, from its rows as they were written.
    pub fn new(issue: Issue, rows: &Rows<'_>) -> Result<Self> {
        let Rows { task, bid, certificate, execution, result, dispute, transfers, evidence } = *rows;
        let (Some(channel), Some(price), Some(paid), Some(finished_at)) =
            (task.channel_id, task.price, task.paid, task.finished_at)
        else {
            return Err(Error::internal("a receipt of a task that was not awarded or is not over"));
        };
        let of_kind = |kind| {
            let found =
                transfers.iter().filter(|transfer| transfer.kind == kind && transfer.channel_id == Some(channel));
            found.map(|transfer| transfer.amount).sum::<Amount>()
        };
        let digest = |text: &str| text.parse::<Digest>().map(Text).map_err(Error::internal);
        let hashed = |text: &String| Text(sha256(text.as_bytes()));
        Ok(Self {
            schema: SCHEMA.to_owned(),
            kind: document::Kind::TaskReceipt,
            id: Text(issue.id),
            version: 1,
            issued_at: Instant::text(issue.at),
            market: Market::of(issue.public_key),
            offer: OfferPart {
                task_id: Text(task.id),
                requester_id: Text(task.requester_id),
                delegation_id: task.delegation_id.map(Text),
                capabilities: task.capabilities.0.clone(),
                input_sha256: digest(&task.input_sha256)?,
                output_schema_sha256: task.output_schema.as_ref().map(|schema| hashed(&schema.0)),
                budget: Text(task.budget),
                acceptance: task.acceptance,
                review_ms: task.review_ms.map(Text),
                timeout_ms: Text(task.timeout_ms),
                start_timeout_ms: Text(task.start_timeout_ms),
                max_attempts: task.max_attempts,
                created_at: Instant::text(task.created_at),
            },
            bid: BidPart {
                id: Text(bid.id),
                agent_id: Text(bid.agent_id),
                sequence: bid.seq,
                price: Text(bid.price),
                fuel_price: bid.fuel_price.map(Text),
                promised_ms: bid.promised_ms.map(Text),
                reputation: bid.reputation,
                rank: bid.rank,
            },
            award: AwardPart {
                auction_id: Text(certificate.auction_id),
                certificate_id: Text(certificate.id),
                certificate_version: certificate.version,
                certificate_sha256: digest(&certificate.sha256)?,
                price: Text(price),
                awarded_at: task.awarded_at.map(Instant::text),
            },
            work: WorkPart {
                execution_id: Text(execution.id),
                status: execution.status,
                attempts: execution.attempts,
                started_at: task.started_at.map(Instant::text),
                verified: task.verified,
                submitted_at: task.submitted_at.map(Instant::text),
                result: result
                    .map(|result| {
                        Ok::<_, Error>(ResultPart {
                            outcome: result.outcome,
                            fault_code: result.fault_code.clone(),
                            module_sha256: result.module_sha256.as_deref().map(digest).transpose()?,
                            input_sha256: digest(&result.input_sha256)?,
                            output_sha256: result.output_sha256.as_deref().map(digest).transpose()?,
                            fuel: Text(result.fuel),
                            peak_memory_bytes: Text(result.peak_memory_bytes),
                            wall_us: Text(result.wall_us),
                        })
                    })
                    .transpose()?,
            },
            ruling: dispute.map(|dispute| RulingPart {
                dispute_id: Text(dispute.id),
                opened_by: dispute.opened_by,
                status: dispute.status,
                amount: Text(dispute.amount),
                awarded: dispute.awarded.map(Text),
                opinion_sha256: dispute.opinion.as_ref().map(hashed),
                opened_at: Instant::text(dispute.created_at),
            }),
            settlement: SettlementPart {
                channel_id: Text(channel),
                status: task.status,
                failure_code: task.failure_code.clone(),
                price: Text(price),
                charge: task.charge.map(Text),
                paid: Text(paid),
                earned: Text(of_kind(transfer::Kind::Payout)),
                fee: Text(of_kind(transfer::Kind::Fee)),
                returned: Text(of_kind(transfer::Kind::Refund)),
                finished_at: Instant::text(finished_at),
            },
            transfers: transfers.iter().map(TransferPart::of).collect(),
            reputation: evidence.iter().map(EvidencePart::of).collect(),
            rating: None,
            previous: None,
        })
    }

    /// The next version, with the stars of the payer and what they did to the agent's score.
    #[must_use]
    pub fn rated(self, issue: Issue, rating: &rating::Model, evidence: Option<&reputation_event::Model>) -> Self {
        let mut reputation = self.reputation;
        reputation.extend(evidence.map(EvidencePart::of));
        Self {
            id: Text(issue.id),
            version: self.version.saturating_add(1),
            issued_at: Instant::text(issue.at),
            reputation,
            rating: Some(RatingPart {
                id: Text(rating.id),
                stars: rating.stars,
                comment_sha256: rating.comment.as_ref().map(|comment| Text(sha256(comment.as_bytes()))),
                rated_at: Instant::text(rating.created_at),
            }),
            previous: issue.previous.map(|(_, digest)| Text(digest)),
            ..self
        }
    }
}

impl TransferPart {
    fn of(transfer: &transfer::Model) -> Self {
        Self {
            id: Text(transfer.id),
            batch_id: Text(transfer.batch_id),
            kind: transfer.kind,
            debit: Text(transfer.debit_id),
            credit: Text(transfer.credit_id),
            amount: Text(transfer.amount),
            channel_id: transfer.channel_id.map(Text),
            created_at: Instant::text(transfer.created_at),
        }
    }
}

impl EvidencePart {
    fn of(event: &reputation_event::Model) -> Self {
        Self {
            id: Text(event.id),
            agent_id: Text(event.agent_id),
            cause: event.cause,
            score_before: event.score_before,
            score_after: event.score_after,
        }
    }
}

/// Checks the arithmetic of a receipt and that every movement of credits went where its kind says.
pub fn check(receipt: &Receipt, findings: &mut Findings) {
    let Receipt { offer, bid, award, work, settlement, .. } = receipt;
    findings.expect("schema", receipt.schema.as_str(), SCHEMA);
    findings.expect("kind", receipt.kind.name(), document::Kind::TaskReceipt.name());
    certificate::market(&receipt.market, findings);
    let rated = receipt.rating.is_some();
    findings.expect("version", receipt.version, if rated { 2 } else { 1 });
    findings.demand(receipt.previous.is_some() == rated, "previous", "must be there if and only if there is a rating");

    findings.expect("settlement.price", settlement.price, award.price);
    findings.demand(award.price <= offer.budget, "award.price", "must be at most the budget");
    findings.demand(bid.price <= award.price, "award.price", "must be at least the price of the bid");
    let paid = settlement.earned.0.checked_add(settlement.fee.0);
    findings.expect_maybe("settlement.paid", Some(settlement.paid), paid.map(Text));
    let returned = settlement.price.0.checked_sub(settlement.paid.0);
    findings.expect_maybe("settlement.returned", Some(settlement.returned), returned.map(Text));
    findings.remark(settlement.finished_at <= receipt.issued_at, "issuedAt is before settlement.finishedAt.");
    let came = work.result.as_ref().filter(|_| work.verified.is_some());
    let charge = bid.fuel_price.zip(came).map(|(fuel_price, result)| {
        let fuel = u64::try_from(result.fuel.0).unwrap_or(0);
        Text(metered(award.price.0, fuel, fuel_price.0))
    });
    findings.expect_maybe("settlement.charge", settlement.charge, charge);
    outcome(receipt, findings);
    if let Some(result) = &work.result {
        findings.expect("work.result.inputSha256", result.input_sha256, offer.input_sha256);
        let told = result.outcome == Outcome::Failed || result.output_sha256.is_some();
        findings.demand(told, "work.result.outputSha256", "must be there when the work succeeded");
    }
    transfers(receipt, findings);
    evidence(receipt, findings);
}

/// Whether the end of the task is one that its work, or the ruling, leads to.
fn outcome(receipt: &Receipt, findings: &mut Findings) {
    let Receipt { offer, work, settlement, .. } = receipt;
    let (paid, due) = (settlement.paid.0, settlement.charge.unwrap_or(settlement.price));
    let succeeded = work.result.as_ref().is_some_and(|result| result.outcome == Outcome::Succeeded);
    match settlement.status {
        task::Status::Completed => {
            findings.demand(!paid.is_zero(), "settlement.paid", "must be more than zero for COMPLETED");
        }
        task::Status::Refunded => {
            findings.demand(paid.is_zero(), "settlement.paid", "must be zero for REFUNDED");
            findings.demand(work.result.is_some(), "work.result", "must be there for REFUNDED");
        }
        task::Status::Expired => {
            findings.demand(paid.is_zero(), "settlement.paid", "must be zero for EXPIRED");
            findings.demand(work.result.is_none(), "work.result", "must not be there for EXPIRED");
            findings.expect("work.status", work.status.name(), execution::Status::Forfeited.name());
        }
        task::Status::Open
        | task::Status::Awarded
        | task::Status::Running
        | task::Status::Submitted
        | task::Status::Disputed
        | task::Status::Cancelled => {
            findings.problem("settlement.status", "must be COMPLETED, REFUNDED or EXPIRED");
        }
    }
    let Some(ruling) = &receipt.ruling else {
        let whole = paid.is_zero() || paid == due.0;
        findings.demand(whole, "settlement.paid", "must be all or nothing without a ruling");
        if offer.acceptance == Acceptance::Automatic {
            let right = succeeded == (settlement.status == task::Status::Completed);
            findings.demand(right, "settlement.status", "must be COMPLETED if and only if the work succeeded");
        }
        return;
    };
    findings.expect("ruling.amount", ruling.amount, due);
    findings.expect_maybe("ruling.awarded", ruling.awarded, Some(settlement.paid));
    let over = matches!(ruling.status, dispute::Status::Ruled | dispute::Status::Defaulted);
    findings.demand(over, "ruling.status", "must be RULED or DEFAULTED");
}

/// Derives from and to where each movement goes, and sums up what went through each account.
fn transfers(receipt: &Receipt, findings: &mut Findings) {
    let Receipt { offer, bid, award, settlement, .. } = receipt;
    let of_delegation = offer.delegation_id.map(|delegation| Place::delegation(delegation.0));
    let (payer, budget) = (of_delegation.unwrap_or(Place::user(offer.requester_id.0)), Place::task(offer.task_id.0));
    let mut through: BTreeMap<AccountId, (Amount, Amount)> = BTreeMap::new();
    let mut last_batch = None;
    for (place, transfer) in receipt.transfers.iter().enumerate() {
        let at = |field: &str| format!("transfers[{place}].{field}");
        let channel = transfer.channel_id.map(|channel| channel.0);
        let agent = Place::agent(bid.agent_id.0);
        let ends = channel == Some(settlement.channel_id.0);
        let (from, to) = match (transfer.kind, channel) {
            (transfer::Kind::Hold, None) => (payer, budget),
            (transfer::Kind::Hold, Some(channel)) => (payer, Place::channel(channel)),
            (transfer::Kind::Escrow, Some(channel)) => (budget, Place::channel(channel)),
            (transfer::Kind::Release, None) => (budget, payer),
            (transfer::Kind::Refund, Some(channel)) => (Place::channel(channel), payer),
            (transfer::Kind::Payout, Some(channel)) if ends => (Place::channel(channel), agent),
            (transfer::Kind::Fee, Some(channel)) if ends => (Place::channel(channel), Place::fees(channel)),
            (
                transfer::Kind::Payout
                | transfer::Kind::Fee
                | transfer::Kind::Escrow
                | transfer::Kind::Release
                | transfer::Kind::Refund
                | transfer::Kind::Issue
                | transfer::Kind::Redeem
                | transfer::Kind::Deposit
                | transfer::Kind::Withdrawal
                | transfer::Kind::Bond
                | transfer::Kind::BondReturn
                | transfer::Kind::BondForfeit,
                _,
            ) => {
                findings.problem(at("kind"), format!("{} has no place there", transfer.kind.name()));
                continue;
            }
        };
        findings.expect(at("debit"), transfer.debit, Text(from.id()));
        findings.expect(at("credit"), transfer.credit, Text(to.id()));
        findings.demand(!transfer.amount.0.is_zero(), at("amount"), "must be more than zero");
        if ends && transfer.kind != transfer::Kind::Hold && transfer.kind != transfer::Kind::Escrow {
            findings.demand(
                last_batch.is_none_or(|batch| batch == transfer.batch_id),
                at("batchId"),
                "must be that of the other movements of the settlement",
            );
            last_batch = Some(transfer.batch_id);
        }
        let debited = through.entry(from.id()).or_default();
        debited.1 = [debited.1, transfer.amount.0].into_iter().sum();
        let credited = through.entry(to.id()).or_default();
        credited.0 = [credited.0, transfer.amount.0].into_iter().sum();
    }
    let of = |place: Place| through.get(&place.id()).copied().unwrap_or_default();
    let final_channel = Place::channel(settlement.channel_id.0);
    let channels = receipt.transfers.iter().filter_map(|transfer| transfer.channel_id).map(|channel| channel.0);
    for escrow in channels.map(Place::channel).chain([budget, final_channel]) {
        let (put_in, taken_out) = of(escrow);
        findings.expect(format!("transfers, {}", escrow.id()), Text(taken_out), Text(put_in));
    }
    findings.expect("transfers, into the budget", Text(of(budget).0), offer.budget);
    findings.expect("transfers, into the last channel", Text(of(final_channel).0), award.price);
    findings.expect("transfers, to the agent", Text(of(Place::agent(bid.agent_id.0)).0), settlement.earned);
    findings.expect("transfers, to the platform", Text(of(Place::fees(settlement.channel_id.0)).0), settlement.fee);
    let (back, out) = of(payer);
    findings.expect_maybe("transfers, from the payer for good", out.checked_sub(back).map(Text), Some(settlement.paid));
    let returned = receipt.transfers.iter().filter(|transfer| {
        transfer.kind == transfer::Kind::Refund && transfer.channel_id == Some(settlement.channel_id)
    });
    let returned: Amount = returned.map(|transfer| transfer.amount.0).sum();
    findings.expect("settlement.returned", settlement.returned, Text(returned));
}

/// Whether the evidence is what such an end of a task gives.
fn evidence(receipt: &Receipt, findings: &mut Findings) {
    let Receipt { bid, settlement, .. } = receipt;
    let completed = settlement.status == task::Status::Completed;
    for (place, event) in receipt.reputation.iter().enumerate() {
        let at = |field: &str| format!("reputation[{place}].{field}");
        for (field, score) in [("scoreBefore", event.score_before), ("scoreAfter", event.score_after)] {
            findings.demand((0..=BEST_SCORE).contains(&score), at(field), "must be from 0 to 100000");
        }
        let right = match event.cause {
            Cause::Success => completed && receipt.ruling.is_none(),
            Cause::Failure => settlement.status == task::Status::Refunded && receipt.ruling.is_none(),
            Cause::Ruling => receipt.ruling.is_some(),
            Cause::Rating => receipt.rating.is_some(),
            // It is about agents that did not start, of which there may have been several.
            Cause::Timeout => true,
        };
        findings.demand(right, at("cause"), "must fit how the task ended");
        let about = event.cause == Cause::Timeout || event.agent_id == bid.agent_id;
        findings.demand(about, at("agentId"), "must be that of the agent of the bid");
    }
    if let Some(rating) = &receipt.rating {
        findings.demand((1..=5).contains(&rating.stars), "rating.stars", "must be from 1 to 5");
        findings.demand(completed, "rating", "must not be there for work that was not completed");
        let counted = receipt.reputation.iter().filter(|event| event.cause == Cause::Rating).count();
        findings.demand(counted == 1, "reputation", "must have one piece of evidence from the rating");
    }
}

/// Whether a receipt follows from the certificate that it names.
pub fn follows_award(receipt: &Receipt, certificate: &Certificate, findings: &mut Findings) {
    let Receipt { offer, bid, award, .. } = receipt;
    findings.expect("award.certificateId", award.certificate_id, certificate.id);
    findings.expect("award.certificateVersion", award.certificate_version, certificate.version);
    findings.expect("award.auctionId", award.auction_id, certificate.auction.id);
    findings.expect("award.price", award.price, certificate.award.price);
    findings.expect("offer.taskId", offer.task_id, certificate.auction.task_id);
    findings.expect("offer.requesterId", offer.requester_id, certificate.auction.requester_id);
    findings.expect("offer.budget", offer.budget, certificate.auction.budget);
    findings.demand(
        offer.capabilities == certificate.auction.capabilities,
        "offer.capabilities",
        "must be those of the auction",
    );
    findings.demand(receipt.market == certificate.market, "market", "must be that of the certificate");
    findings.expect("bid.id", bid.id, certificate.award.bid_id);
    if let Some(won) = certificate.winner() {
        findings.expect("bid.agentId", bid.agent_id, won.agent_id);
        findings.expect("bid.sequence", bid.sequence, won.sequence);
        findings.expect("bid.price", bid.price, won.price);
        findings.expect_maybe("bid.fuelPrice", bid.fuel_price, won.fuel_price);
        findings.expect_maybe("bid.reputation", bid.reputation, Some(won.reputation));
        findings.expect_maybe("bid.rank", bid.rank, won.rank);
    }
}

/// Whether a receipt differs from the one of the version before only in what a rating adds.
pub fn follows(receipt: &Receipt, previous: &Receipt, findings: &mut Findings) {
    let known = previous.reputation.len();
    let as_before = Receipt {
        id: receipt.id,
        version: receipt.version,
        issued_at: receipt.issued_at,
        rating: receipt.rating.clone(),
        previous: receipt.previous,
        reputation: receipt.reputation.clone(),
        ..previous.clone()
    };
    findings.demand(as_before == *receipt, "the receipt", "must differ from the version before only in the rating");
    findings.demand(
        receipt.reputation.get(..known) == Some(previous.reputation.as_slice()),
        "reputation",
        "must go on from the version before",
    );
}
