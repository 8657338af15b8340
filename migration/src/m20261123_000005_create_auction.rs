//! Auctions and bids.

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
        dialect::run(
            manager,
            &[
                "CREATE TABLE auctions ( \
                 id {id} PRIMARY KEY, \
                 task_id {id} NOT NULL UNIQUE REFERENCES tasks (id), \
                 requester_id {id} NOT NULL REFERENCES users (id), \
                 status TEXT NOT NULL CHECK (status IN ('OPEN', 'AWARDED', 'EXPIRED', 'CANCELLED')), \
                 kind TEXT NOT NULL CHECK (kind IN ('FIRST_PRICE', 'SECOND_PRICE')), \
                 visibility TEXT NOT NULL CHECK (visibility IN ('SEALED', 'OPEN')), \
                 award_mode TEXT NOT NULL CHECK (award_mode IN ('AUTOMATIC', 'MANUAL')), \
                 budget BIGINT NOT NULL CHECK (budget > 0 AND budget <= 1000000000000000), \
                 max_price BIGINT NOT NULL CHECK (max_price > 0 AND max_price <= budget), \
                 reserve_price BIGINT CHECK (reserve_price > 0 AND reserve_price <= budget), \
                 min_reputation INTEGER NOT NULL CHECK (min_reputation BETWEEN 0 AND 10000), \
                 price_weight INTEGER NOT NULL CHECK (price_weight BETWEEN 0 AND 10000), \
                 reputation_weight INTEGER NOT NULL CHECK (reputation_weight BETWEEN 0 AND 10000), \
                 capabilities {json} NOT NULL, \
                 closes_at BIGINT NOT NULL, \
                 close_after_bids INTEGER CHECK (close_after_bids > 0), \
                 soft_close_ms BIGINT NOT NULL CHECK (soft_close_ms >= 0), \
                 extensions INTEGER NOT NULL CHECK (extensions >= 0), \
                 next_seq INTEGER NOT NULL CHECK (next_seq >= 1), \
                 bid_count INTEGER NOT NULL CHECK (bid_count >= 0), \
                 winning_bid_id {id} {later bids}, \
                 clearing_price BIGINT CHECK (clearing_price > 0 AND clearing_price <= max_price), \
                 deadline_at BIGINT, \
                 created_at BIGINT NOT NULL, \
                 closed_at BIGINT, \
                 CHECK (price_weight + reputation_weight = 10000), \
                 CHECK ((deadline_at IS NOT NULL) = (status = 'OPEN')), \
                 CHECK ((closed_at IS NULL) = (status = 'OPEN')), \
                 CHECK (status = 'OPEN' OR (status = 'AWARDED') = (winning_bid_id IS NOT NULL)))",
                "CREATE INDEX auctions_by_requester ON auctions (requester_id, id)",
                "CREATE INDEX auctions_by_status ON auctions (status, id)",
                "CREATE INDEX auctions_by_close ON auctions (status, closes_at, id)",
                "CREATE INDEX auctions_by_budget ON auctions (status, budget, id)",
                "CREATE INDEX auctions_due ON auctions (deadline_at) WHERE deadline_at IS NOT NULL",
                "CREATE INDEX auctions_by_winning_bid ON auctions (winning_bid_id)",
                "CREATE TABLE bids ( \
                 id {id} PRIMARY KEY, \
                 auction_id {id} NOT NULL REFERENCES auctions (id), \
                 agent_id {id} NOT NULL REFERENCES agents (id), \
                 bidder_id {id} NOT NULL REFERENCES users (id), \
                 price BIGINT NOT NULL CHECK (price > 0), \
                 promised_ms BIGINT CHECK (promised_ms > 0), \
                 seq INTEGER NOT NULL CHECK (seq >= 1), \
                 status TEXT NOT NULL CHECK (status IN ('ACTIVE', 'REPLACED', 'WITHDRAWN', 'WON', 'LOST', 'INELIGIBLE', 'FORFEITED', 'CANCELLED')), \
                 reputation INTEGER CHECK (reputation BETWEEN 0 AND 10000), \
                 rank INTEGER CHECK (rank >= 1), \
                 created_at BIGINT NOT NULL, \
                 UNIQUE (auction_id, seq))",
                "CREATE UNIQUE INDEX bids_one_live ON bids (auction_id, agent_id) WHERE status = 'ACTIVE'",
                "CREATE UNIQUE INDEX bids_one_winner ON bids (auction_id) WHERE status = 'WON'",
                "CREATE INDEX bids_by_price ON bids (auction_id, price, id)",
                "CREATE INDEX bids_by_agent ON bids (agent_id, id)",
                "CREATE INDEX bids_by_bidder ON bids (bidder_id, id)",
            ],
        )
        .await?;
        dialect::reference(manager, "tasks", "bid_id", "bids").await?;
        dialect::reference(manager, "auctions", "winning_bid_id", "bids").await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        dialect::drop_tables(manager, &["bids", "auctions"]).await
    }
}
