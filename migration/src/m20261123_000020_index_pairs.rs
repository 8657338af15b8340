//! What an agent bid in an auction, found without reading the other bids of either; and an index that nothing asks for is gone.

use sea_orm_migration::prelude::*;

use crate::dialect;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let statements = ["CREATE INDEX bids_by_pair ON bids (auction_id, agent_id)", "DROP INDEX bids_by_bidder"];
        dialect::run(manager, &statements).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let statements = ["CREATE INDEX bids_by_bidder ON bids (bidder_id, id)", "DROP INDEX bids_by_pair"];
        dialect::run(manager, &statements).await
    }
}
