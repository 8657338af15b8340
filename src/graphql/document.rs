//! Signed documents: certificates of awards and receipts of settled tasks.

use async_graphql::{Context, Enum, ID, Object};
use entity::{
    document::{self, Kind},
    id::{AuctionId, DocumentId, TaskId},
};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};

use super::{
    auction::Auction,
    context::{Ask, maybe, parse_id, requires, role, scopes},
    error::Answer,
    page::{PageArgs, Sort, connection, list_cost},
    scalar::DateTime,
};
use crate::{
    document::{self as documents, seal, value::Hex},
    error::{Error, Result},
};

/// The order of versions, oldest first.
const OLDEST: Sort<document::Entity> = Sort {
    name: "v",
    key: Some(document::Column::Version),
    id: document::Column::Id,
    descending: false,
    place: |row| (row.version.into(), row.id.0),
};

/// What a document certifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::document::Kind")]
pub(super) enum DocumentKind {
    /// How an auction was decided.
    AwardCertificate,
    /// How a task was settled.
    TaskReceipt,
}

#[derive(Clone)]
pub(super) struct SignedDocument(document::Model);

impl From<document::Model> for SignedDocument {
    fn from(row: document::Model) -> Self {
        Self(row)
    }
}

/// A document that the market signed and that anybody can check without it, for example with `zerostate verify`. Never changed.
/// Certificates are public; a receipt is for the parties of its task and for administrators.
#[Object]
impl SignedDocument {
    /// The id, `doc_…`.
    pub(super) async fn id(&self) -> ID {
        self.0.id.into()
    }

    /// What it certifies.
    async fn kind(&self) -> DocumentKind {
        self.0.kind.into()
    }

    /// Counts the documents of this kind about the task, from 1. A bid that takes a task over makes the next certificate; the
    /// requester's rating makes the next receipt.
    async fn version(&self) -> i32 {
        self.0.version
    }

    /// The exact text that was signed: canonical JSON as in RFC 8785.
    #[graphql(complexity = 5)]
    async fn body(&self) -> &str {
        &self.0.body
    }

    /// The SHA-256 of the body in lower-case hex.
    async fn sha256(&self) -> &str {
        &self.0.sha256
    }

    /// The Ed25519 signature in lower-case hex.
    async fn signature(&self) -> &str {
        &self.0.signature
    }

    /// The Ed25519 key of the market in lower-case hex.
    async fn public_key(&self, ctx: &Context<'_>) -> Option<Answer<String>> {
        maybe(ctx, async { Ok(Some(Hex(ctx.store().instance()?.public_key()).to_string())) }).await
    }

    /// The layout of what was signed. `ZSDOC-v1`: these eight letters, a zero byte and the 32 bytes of the SHA-256 of the body.
    async fn verifies_with(&self) -> &str {
        seal::SCHEME
    }

    /// When it was signed.
    async fn created_at(&self) -> DateTime {
        DateTime(self.0.created_at)
    }

    /// The text of a file for `zerostate verify`: this document and what it follows from, the versions before it and, for a
    /// receipt, the certificates of its award; the newest 20 of each kind.
    #[graphql(complexity = 20)]
    async fn bundle(&self, ctx: &Context<'_>) -> Option<Answer<String>> {
        maybe(ctx, async { documents::bundle(ctx.loaders().db(), &self.0).await.map(Some) }).await
    }

    /// All versions of this document, oldest first.
    #[graphql(complexity = "list_cost(__ctx, __variables_definition, __field, child_complexity)")]
    async fn versions(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many from the start: 1 to 100, 20 when neither `first` nor `last` is given.")]
        first: Option<i32>,
        #[graphql(desc = "Only what comes after this cursor.")] after: Option<String>,
        #[graphql(desc = "How many from the end: 1 to 100; not together with `first`.")] last: Option<i32>,
        #[graphql(desc = "Only what comes before this cursor.")] before: Option<String>,
    ) -> Option<Answer<SignedDocumentConnection>> {
        maybe(ctx, async {
            let list = document::Entity::find()
                .filter(document::Column::TaskId.eq(self.0.task_id))
                .filter(document::Column::Kind.eq(self.0.kind));
            let window = PageArgs { first, after, last, before }.window(&OLDEST)?;
            Ok(Some(window.read(ctx.loaders().db(), list, &OLDEST).await?.into()))
        })
        .await
    }

    /// The auction that found the task's agent.
    #[graphql(complexity = "1 + child_complexity")]
    async fn auction(&self, ctx: &Context<'_>) -> Option<Answer<Auction>> {
        maybe(ctx, super::auction::find(ctx, self.0.auction_id)).await
    }
}

connection! {
    /// A page of signed documents.
    SignedDocumentConnection,
    /// A signed document in a list.
    SignedDocumentEdge, SignedDocument, document::Model
}

/// The document with this id, if the caller may see it.
pub(super) async fn find(ctx: &Context<'_>, id: DocumentId) -> Result<Option<SignedDocument>> {
    let Some(row) = document::Entity::find_by_id(id).one(ctx.loaders().db()).await? else { return Ok(None) };
    let shown = match row.kind {
        Kind::AwardCertificate => true,
        Kind::TaskReceipt => super::task::visible(ctx, row.task_id).await?.is_some(),
    };
    Ok(shown.then_some(SignedDocument(row)))
}

/// The newest document of a kind about a task that the caller may see.
pub(super) async fn newest(ctx: &Context<'_>, task: TaskId, kind: Kind) -> Result<Option<SignedDocument>> {
    Ok(ctx.loaders().documents(task, kind).await?.map(SignedDocument))
}

#[derive(Default)]
pub(super) struct DocumentQuery;

#[Object]
impl DocumentQuery {
    /// The newest certificate of the award of an auction; null while it has none.
    #[graphql(complexity = "2 + child_complexity")]
    async fn award_certificate(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The auction, `auc_…`.")] auction_id: ID,
    ) -> Option<Answer<SignedDocument>> {
        maybe(ctx, async {
            let auction: AuctionId = parse_id(&auction_id, "auctionId")?;
            let auction = ctx.loaders().auctions(auction).await?.ok_or(Error::NotFound("auction"))?;
            newest(ctx, auction.task_id, Kind::AwardCertificate).await
        })
        .await
    }

    /// The newest receipt of a task that was awarded; null while it is not settled, and for those who are not party to it.
    #[graphql(complexity = "2 + child_complexity", directive = requires::apply(scopes("taskReceipt"), role("taskReceipt")))]
    async fn task_receipt(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The task, `task_…`.")] task_id: ID,
    ) -> Option<Answer<SignedDocument>> {
        maybe(ctx, async {
            let task =
                super::task::visible(ctx, parse_id(&task_id, "taskId")?).await?.ok_or(Error::NotFound("task"))?;
            newest(ctx, task.id, Kind::TaskReceipt).await
        })
        .await
    }
}
