//! Users, their sessions and their API keys.

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
                "CREATE TABLE users ( \
                 id {id} PRIMARY KEY, \
                 email TEXT NOT NULL UNIQUE CHECK (email = lower(email)), \
                 display_name TEXT NOT NULL, \
                 password_hash TEXT NOT NULL, \
                 role TEXT NOT NULL CHECK (role IN ('USER', 'ARBITER', 'ADMIN')), \
                 status TEXT NOT NULL CHECK (status IN ('ACTIVE', 'SUSPENDED')), \
                 failed_logins INTEGER NOT NULL CHECK (failed_logins >= 0), \
                 locked_until BIGINT, \
                 last_login_at BIGINT, \
                 created_at BIGINT NOT NULL, \
                 updated_at BIGINT NOT NULL)",
                "CREATE TABLE sessions ( \
                 id {id} PRIMARY KEY, \
                 user_id {id} NOT NULL REFERENCES users (id), \
                 generation BIGINT NOT NULL CHECK (generation >= 1), \
                 rotated_at BIGINT NOT NULL, \
                 expires_at BIGINT NOT NULL, \
                 revoked_at BIGINT, \
                 revoke_reason TEXT CHECK (revoke_reason IN ('LOGOUT', 'TOKEN_REUSE', 'PASSWORD_CHANGE')), \
                 created_at BIGINT NOT NULL, \
                 CHECK ((revoked_at IS NULL) = (revoke_reason IS NULL)))",
                "CREATE INDEX sessions_by_user ON sessions (user_id, id)",
                "CREATE TABLE api_keys ( \
                 id {id} PRIMARY KEY, \
                 user_id {id} NOT NULL REFERENCES users (id), \
                 agent_id {id} {later agents}, \
                 name TEXT NOT NULL, \
                 secret_hash TEXT NOT NULL UNIQUE CHECK (length(secret_hash) = 64), \
                 scopes {json} NOT NULL, \
                 expires_at BIGINT, \
                 revoked_at BIGINT, \
                 last_used_at BIGINT, \
                 created_at BIGINT NOT NULL)",
                "CREATE INDEX api_keys_by_user ON api_keys (user_id, id)",
                "CREATE INDEX api_keys_by_agent ON api_keys (agent_id)",
            ],
        )
        .await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        dialect::drop_tables(manager, &["api_keys", "sessions", "users"]).await
    }
}
