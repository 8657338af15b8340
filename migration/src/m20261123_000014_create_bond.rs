//! Bids by commitment, and the bonds that stand behind bids.

use sea_orm_migration::prelude::*;

use crate::dialect::{self, Reworded};

const REWORDED: &[Reworded] = &[
    Reworded {
        table: "auctions",
        constraint: "auctions_status_check",
        from: "status IN ('OPEN', 'AWARDED', 'EXPIRED', 'CANCELLED')",
        to: "status IN ('OPEN', 'REVEALING', 'AWARDED', 'EXPIRED', 'CANCELLED')",
    },
    Reworded {
        table: "auctions",
        constraint: "auctions_visibility_check",
        from: "visibility IN ('SEALED', 'OPEN')",
        to: "visibility IN ('SEALED', 'OPEN', 'COMMIT_REVEAL')",
    },
    Reworded {
        table: "auctions",
        constraint: "auctions_check4",
        from: "(deadline_at IS NOT NULL) = (status = 'OPEN')",
        to: "(deadline_at IS NOT NULL) = (status IN ('OPEN', 'REVEALING'))",
    },
    Reworded {
        table: "auctions",
        constraint: "auctions_check5",
        from: "(closed_at IS NULL) = (status = 'OPEN')",
        to: "(closed_at IS NULL) = (status IN ('OPEN', 'REVEALING'))",
    },
    Reworded {
        table: "auctions",
        constraint: "auctions_check6",
        from: "status = 'OPEN' OR (status = 'AWARDED') = (winning_bid_id IS NOT NULL)",
        to: "(status IN ('OPEN', 'REVEALING') OR (status = 'AWARDED') = (winning_bid_id IS NOT NULL)) AND (visibility = 'COMMIT_REVEAL') = (reveal_ms > 0) AND (visibility <> 'COMMIT_REVEAL' OR bond > 0) AND (status <> 'REVEALING' OR (visibility = 'COMMIT_REVEAL' AND reveal_until IS NOT NULL))",
    },
];

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
                "ALTER TABLE auctions ADD COLUMN reveal_ms BIGINT NOT NULL DEFAULT 0 CHECK (reveal_ms >= 0)",
                "ALTER TABLE auctions ADD COLUMN bond BIGINT NOT NULL DEFAULT 0 CHECK (bond >= 0)",
                "ALTER TABLE auctions ADD COLUMN reveal_until BIGINT",
                "ALTER TABLE auctions ADD COLUMN commitment_count INTEGER NOT NULL DEFAULT 0 CHECK (commitment_count >= 0)",
                "ALTER TABLE bids ADD COLUMN bond_id {id}",
            ],
        )
        .await?;
        dialect::reword(manager, REWORDED).await?;
        dialect::run(
            manager,
            &[
                "CREATE TABLE bonds ( \
                 id {id} PRIMARY KEY, \
                 auction_id {id} NOT NULL REFERENCES auctions (id), \
                 task_id {id} NOT NULL REFERENCES tasks (id), \
                 agent_id {id} NOT NULL REFERENCES agents (id), \
                 bidder_id {id} NOT NULL REFERENCES users (id), \
                 amount BIGINT NOT NULL CHECK (amount > 0), \
                 status TEXT NOT NULL CHECK (status IN ('HELD', 'RETURNED', 'FORFEITED')), \
                 created_at BIGINT NOT NULL, \
                 resolved_at BIGINT, \
                 CHECK ((status = 'HELD') = (resolved_at IS NULL)))",
                "CREATE UNIQUE INDEX bonds_one_held ON bonds (auction_id, agent_id) WHERE status = 'HELD'",
                "CREATE INDEX bonds_by_bidder ON bonds (bidder_id, status)",
                "CREATE INDEX bonds_by_task ON bonds (task_id)",
                "CREATE TABLE commitments ( \
                 id {id} PRIMARY KEY, \
                 auction_id {id} NOT NULL REFERENCES auctions (id), \
                 agent_id {id} NOT NULL REFERENCES agents (id), \
                 bidder_id {id} NOT NULL REFERENCES users (id), \
                 hash TEXT NOT NULL CHECK (length(hash) = 64), \
                 seq INTEGER NOT NULL CHECK (seq >= 1), \
                 bond_id {id} NOT NULL REFERENCES bonds (id), \
                 status TEXT NOT NULL CHECK (status IN ('COMMITTED', 'REPLACED', 'WITHDRAWN', 'REVEALED', 'UNREVEALED', 'CANCELLED')), \
                 bid_id {id} UNIQUE REFERENCES bids (id), \
                 created_at BIGINT NOT NULL, \
                 revealed_at BIGINT, \
                 salt TEXT CHECK (length(salt) = 64), \
                 UNIQUE (auction_id, seq), \
                 CHECK ((status = 'REVEALED') = (bid_id IS NOT NULL)), \
                 CHECK ((status = 'REVEALED') = (salt IS NOT NULL)))",
                "CREATE UNIQUE INDEX commitments_one_live ON commitments (auction_id, agent_id) WHERE status IN ('COMMITTED', 'REVEALED')",
                "CREATE INDEX commitments_by_agent ON commitments (agent_id, id)",
                "CREATE INDEX commitments_by_bidder ON commitments (bidder_id, id)",
            ],
        )
        .await?;
        dialect::reference(manager, "bids", "bond_id", "bonds").await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        dialect::drop_tables(manager, &["commitments", "bonds"]).await?;
        dialect::reword_back(manager, REWORDED).await?;
        dialect::drop_columns(manager, "bids", &["bond_id"]).await?;
        dialect::drop_columns(manager, "auctions", &["reveal_ms", "bond", "reveal_until", "commitment_count"]).await
    }
}
