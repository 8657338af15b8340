//! Agents, their capabilities and the versions of their modules.

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
                "CREATE TABLE agents ( \
                 id {id} PRIMARY KEY, \
                 owner_id {id} NOT NULL REFERENCES users (id), \
                 name TEXT NOT NULL, \
                 description TEXT NOT NULL, \
                 capabilities {json} NOT NULL, \
                 runtime TEXT NOT NULL CHECK (runtime IN ('HOSTED', 'EXTERNAL')), \
                 status TEXT NOT NULL CHECK (status IN ('ACTIVE', 'PAUSED', 'RETIRED')), \
                 price BIGINT NOT NULL CHECK (price > 0), \
                 min_price BIGINT NOT NULL CHECK (min_price > 0), \
                 promised_ms BIGINT CHECK (promised_ms > 0), \
                 module_id {id} {later agent_modules}, \
                 score INTEGER NOT NULL CHECK (score BETWEEN 0 AND 100000), \
                 last_seen_at BIGINT, \
                 version INTEGER NOT NULL, \
                 created_at BIGINT NOT NULL, \
                 updated_at BIGINT NOT NULL, \
                 UNIQUE (owner_id, name), \
                 CHECK (min_price <= price))",
                "CREATE INDEX agents_by_score ON agents (status, score, id)",
                "CREATE INDEX agents_by_price ON agents (status, price, id)",
                "CREATE INDEX agents_by_owner ON agents (owner_id, id)",
                "CREATE INDEX agents_by_module ON agents (module_id)",
                "CREATE TABLE agent_capabilities ( \
                 capability TEXT NOT NULL, \
                 agent_id {id} NOT NULL REFERENCES agents (id), \
                 PRIMARY KEY (capability, agent_id))",
                "CREATE INDEX agent_capabilities_by_agent ON agent_capabilities (agent_id)",
                "CREATE TABLE agent_modules ( \
                 id {id} PRIMARY KEY, \
                 agent_id {id} NOT NULL REFERENCES agents (id), \
                 sha256 TEXT NOT NULL CHECK (length(sha256) = 64), \
                 size_bytes BIGINT NOT NULL CHECK (size_bytes > 0), \
                 interface TEXT NOT NULL CHECK (interface IN ('WASI_COMMAND')), \
                 uploaded_by {id} NOT NULL REFERENCES users (id), \
                 created_at BIGINT NOT NULL, \
                 UNIQUE (agent_id, sha256))",
                "CREATE INDEX agent_modules_by_uploader ON agent_modules (uploaded_by)",
            ],
        )
        .await?;
        dialect::reference(manager, "agents", "module_id", "agent_modules").await?;
        dialect::reference(manager, "api_keys", "agent_id", "agents").await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        dialect::drop_tables(manager, &["agent_capabilities", "agents", "agent_modules"]).await
    }
}
