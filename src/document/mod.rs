//! Signed documents: the certificate of an award and the receipt of a settled task.
//!
//! ```text
//! award ─────────► AWARD_CERTIFICATE 1 ◄─┐
//! take-over ─────► AWARD_CERTIFICATE 2 ◄─┤ sha256
//! settlement ────► TASK_RECEIPT 1 ───────┘ ◄─┐
//! stars ─────────► TASK_RECEIPT 2 ───────────┘ sha256
//! ```
//!
//! A document is canonical JSON ([`canonical`]), signed by the market's key ([`seal`]), and written in the unit of work of what it
//! certifies: there is no award without its certificate and no settlement without its receipt. It is made from the rows as they
//! were written, not from what the verb had in mind, so that a mistake between the two comes to light. [`verification`] checks
//! documents without a database: hash, form and signature, and everything that can be derived from what they say.
//!
//! What must always hold: a document is never changed, the database refuses it; a new state of affairs is a new version that names
//! the one before by its hash; it names nobody but by ids that the interface shows to whoever may see it. A task that was awarded
//! before the market signed documents has none.

pub mod canonical;
pub mod certificate;
pub mod findings;
pub mod receipt;
pub mod seal;
pub mod value;
pub mod verification;

#[cfg(test)]
mod tests;

use entity::{
    auction::{self, Visibility},
    bid, commitment, dispute,
    document::{self, Kind},
    execution,
    id::{AuctionId, DocumentId, TaskId},
    rating,
    reputation_event::{self, Cause},
    task::{self, Acceptance},
    task_result, transfer,
};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, JoinType, QueryFilter, QueryOrder, QuerySelect,
    RelationDef,
};
use serde::Serialize;

use crate::{
    error::{Error, Result},
    store::Work,
};
use certificate::{Certificate, Issue};
use receipt::{Receipt, Rows};
use value::Hex;

/// Versions of a kind that a bundle holds at most.
const MAX_BUNDLED: u64 = 20;

/// Certifies the award of a locked auction, as its rows are now. After a take-over it is the next version.
pub async fn certify(work: &mut Work, auction: &auction::Model) -> Result<()> {
    let bids = bid::Entity::find()
        .filter(bid::Column::AuctionId.eq(auction.id))
        .filter(bid::Column::Status.is_in([
            bid::Status::Won,
            bid::Status::Lost,
            bid::Status::Ineligible,
            bid::Status::Forfeited,
        ]))
        .order_by_asc(bid::Column::Seq)
        .all(work.tx())
        .await?;
    let previous = if bids.iter().any(|bid| bid.status == bid::Status::Forfeited) {
        let before = newest(work.tx(), auction.task_id, Kind::AwardCertificate).await?;
        let Some(before) = before else { return Ok(()) };
        Some((before.version, digest(&before)?))
    } else {
        None
    };
    let commitments = match auction.visibility {
        Visibility::Sealed | Visibility::Open => Vec::new(),
        Visibility::CommitReveal => {
            commitment::Entity::find()
                .filter(commitment::Column::AuctionId.eq(auction.id))
                .order_by_asc(commitment::Column::Seq)
                .all(work.tx())
                .await?
        }
    };
    let issue = Issue { previous, ..issue(work)? };
    let certificate = Certificate::new(issue, auction, &bids, &commitments)?;
    store(work, auction.id, auction.task_id, certificate.kind, certificate.version, issue.id, &certificate).await
}

/// Gives the receipt of a locked task that is over and that `bid` won. Its settlement, its result, its evidence and the ruling
/// over it have been written.
pub async fn give_receipt(work: &mut Work, task: &task::Model, bid: &bid::Model) -> Result<()> {
    let Some(certificate) = newest(work.tx(), task.id, Kind::AwardCertificate).await? else { return Ok(()) };
    let missing = |what| move || Error::internal(format!("a task that was awarded is over without {what}"));
    let (execution, result) = execution::Entity::find()
        .join(JoinType::LeftJoin, result_of_execution())
        .select_also(task_result::Entity)
        .filter(execution::Column::TaskId.eq(task.id))
        .order_by_desc(execution::Column::Id)
        .one(work.tx())
        .await?
        .ok_or_else(missing("an execution"))?;
    let dispute = match task.acceptance {
        // Only a result that waits for its payer can be disputed.
        Acceptance::Review => {
            dispute::Entity::find().filter(dispute::Column::TaskId.eq(task.id)).one(work.tx()).await?
        }
        Acceptance::Automatic | Acceptance::Agreement => None,
    };
    let transfers = transfer::Entity::find()
        .filter(transfer::Column::TaskId.eq(task.id))
        .filter(transfer::Column::Kind.is_not_in([
            transfer::Kind::Bond,
            transfer::Kind::BondReturn,
            transfer::Kind::BondForfeit,
        ]))
        .order_by_asc(transfer::Column::Id)
        .all(work.tx())
        .await?;
    let evidence = reputation_event::Entity::find()
        .filter(reputation_event::Column::TaskId.eq(task.id))
        .order_by_asc(reputation_event::Column::Id)
        .all(work.tx())
        .await?;
    let issue = issue(work)?;
    let rows = Rows {
        task,
        bid,
        certificate: &certificate,
        execution: &execution,
        result: result.as_ref(),
        dispute: dispute.as_ref(),
        transfers: &transfers,
        evidence: &evidence,
    };
    let receipt = Receipt::new(issue, &rows)?;
    store(work, certificate.auction_id, task.id, receipt.kind, receipt.version, issue.id, &receipt).await
}

fn result_of_execution() -> RelationDef {
    execution::Entity::belongs_to(task_result::Entity)
        .from(execution::Column::Id)
        .to(task_result::Column::ExecutionId)
        .into()
}

/// Adds the stars of the payer to the receipt of a locked task: its next version.
pub async fn add_rating(work: &mut Work, rating: &rating::Model) -> Result<()> {
    let Some(before) = newest(work.tx(), rating.task_id, Kind::TaskReceipt).await? else { return Ok(()) };
    let evidence = reputation_event::Entity::find()
        .filter(reputation_event::Column::TaskId.eq(rating.task_id))
        .filter(reputation_event::Column::Cause.eq(Cause::Rating))
        .one(work.tx())
        .await?;
    let issue = Issue { previous: Some((before.version, digest(&before)?)), ..issue(work)? };
    let receipt: Receipt = serde_json::from_str(&before.body)?;
    let receipt = receipt.rated(issue, rating, evidence.as_ref());
    store(work, before.auction_id, rating.task_id, receipt.kind, receipt.version, issue.id, &receipt).await
}

fn digest(document: &document::Model) -> Result<value::Digest> {
    document.sha256.parse().map_err(|why: String| Error::internal(why))
}

/// What every new document needs.
fn issue(work: &mut Work) -> Result<Issue> {
    let id = work.fresh();
    Ok(Issue { id, at: work.now(), public_key: Hex(work.instance()?.public_key()), previous: None })
}

/// Signs a document and writes it. The constraint on task, kind and version is the last word on which one is next.
async fn store(
    work: &Work,
    auction: AuctionId,
    task: TaskId,
    kind: Kind,
    version: i32,
    id: DocumentId,
    document: &impl Serialize,
) -> Result<()> {
    let instance = work.instance()?;
    let sealed =
        seal::seal(&serde_json::to_value(document)?, |message| instance.sign(message)).map_err(Error::internal)?;
    let row = document::ActiveModel {
        id: Set(id),
        kind: Set(kind),
        task_id: Set(task),
        auction_id: Set(auction),
        version: Set(version),
        body: Set(sealed.body),
        sha256: Set(sealed.digest.to_string()),
        signature: Set(sealed.signature.to_string()),
        created_at: Set(work.now()),
    };
    document::Entity::insert(row).exec_without_returning(work.tx()).await?;
    Ok(())
}

/// The newest document of a kind about a task.
pub async fn newest(db: &impl ConnectionTrait, task: TaskId, kind: Kind) -> Result<Option<document::Model>> {
    Ok(document::Entity::find()
        .filter(document::Column::TaskId.eq(task))
        .filter(document::Column::Kind.eq(kind))
        .order_by_desc(document::Column::Version)
        .one(db)
        .await?)
}

/// The text of a file that `zerostate verify` reads: a document with all that it follows from, the versions before it and, for a
/// receipt, the certificates of its award. Of each kind the newest versions, so that it stays a file.
pub async fn bundle(db: &impl ConnectionTrait, of: &document::Model) -> Result<String> {
    let wanted: &[(Kind, i32)] = match of.kind {
        Kind::AwardCertificate => &[(Kind::AwardCertificate, of.version)],
        Kind::TaskReceipt => &[(Kind::AwardCertificate, i32::MAX), (Kind::TaskReceipt, of.version)],
    };
    let mut documents = Vec::new();
    for (kind, newest) in wanted.iter().copied() {
        let versions = document::Entity::find()
            .filter(document::Column::TaskId.eq(of.task_id))
            .filter(document::Column::Kind.eq(kind))
            .filter(document::Column::Version.lte(newest))
            .order_by_desc(document::Column::Version)
            .limit(MAX_BUNDLED)
            .all(db)
            .await?;
        documents.extend(versions.into_iter().rev());
    }
    let documents: Vec<serde_json::Value> = documents
        .into_iter()
        .map(|document| {
            serde_json::json!({
                "id": document.id.to_string(),
                "kind": document.kind.name(),
                "version": document.version,
                "body": document.body,
                "sha256": document.sha256,
                "signature": document.signature,
                "verifiesWith": seal::SCHEME,
            })
        })
        .collect();
    Ok(serde_json::json!({ "documents": documents }).to_string())
}
