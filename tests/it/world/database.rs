//! A database for one test.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use sea_orm::{ConnectionTrait, DbBackend, Statement};
use sqlx::{Connection, Executor, PgConnection};
use tokio::sync::OnceCell;
use url::Url;
use zerostate::{
    config::{Storage, Terms},
    store::{Clock, Entropy, Store},
};

use super::DAWN;

/// Whether the stories run on PostgreSQL.
pub fn on_postgres() -> bool {
    server().is_some()
}

/// Where the PostgreSQL server is that databases are made on.
fn server() -> Option<String> {
    std::env::var("TEST_DATABASE_URL").ok().filter(|url| !url.is_empty())
}

/// Where a database of that server is.
fn at(server: &str, name: &str) -> String {
    let mut url = Url::parse(server).expect("TEST_DATABASE_URL is a URL");
    url.set_path(name);
    url.to_string()
}

/// A database that nobody else uses and that is removed with this value.
pub enum Database {
    /// A file in the world's folder, which is removed with it.
    Sqlite(String),
    /// A copy of the template.
    Postgres { server: String, name: String },
}

impl Database {
    pub async fn fresh(folder: &Path) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let Some(server) = server() else {
            let database = Self::embedded(folder);
            if newer() {
                let storage = Storage::at(database.url());
                let store = Store::connect(&storage, Terms::default(), Clock::manual(DAWN), Entropy::seeded(0));
                store.await.unwrap().migrate().await.unwrap();
                expand(&database.url()).await;
            }
            return database;
        };
        let template = template(&server).await;
        let name = format!("{template}_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        statement(&server, &format!("CREATE DATABASE {name} TEMPLATE {template}")).await;
        Self::Postgres { server, name }
    }

    /// A file in a folder, which the first process migrates.
    pub fn embedded(folder: &Path) -> Self {
        Self::Sqlite(format!("sqlite:{}", folder.join("world.db").display()))
    }

    /// A database without a schema.
    pub async fn empty(folder: &Path) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let Some(server) = server() else {
            return Self::Sqlite(format!("sqlite:{}", folder.join("empty.db").display()));
        };
        let name = format!("zerostate_empty_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        statement(&server, &format!("CREATE DATABASE {name}")).await;
        Self::Postgres { server, name }
    }

    pub fn url(&self) -> String {
        match self {
            Self::Sqlite(url) => url.clone(),
            Self::Postgres { server, name } => at(server, name),
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let Self::Postgres { server, name } = self else { return };
        let (server, name) = (server.clone(), name.clone());
        // Dropping cannot wait in the test's own runtime, which may be ending.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(statement(&server, &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")));
        });
        if dropping.join().is_err() {
            eprintln!("a database of this test could not be removed");
        }
    }
}

/// The name of a migrated database that is made once in this process.
async fn template(server: &str) -> &'static str {
    static TEMPLATE: OnceCell<String> = OnceCell::const_new();
    let make = || async {
        let name = format!("zerostate_test_{}", std::process::id());
        statement(server, &format!("DROP DATABASE IF EXISTS {name}")).await;
        statement(server, &format!("CREATE DATABASE {name}")).await;
        let storage = Storage::at(at(server, &name));
        let store = Store::connect(&storage, Terms::default(), Clock::manual(DAWN), Entropy::seeded(0)).await.unwrap();
        store.migrate().await.unwrap();
        // A database is copied only while nobody is connected to it.
        store.read().get_postgres_connection_pool().close().await;
        if newer() {
            expand(&storage.url).await;
        }
        name
    };
    TEMPLATE.get_or_init(make).await
}

/// Whether the stories run on the schema of a next release.
fn newer() -> bool {
    std::env::var_os("ZEROSTATE_TEST_NEWER").is_some()
}

/// The change of the schema that a next release has.
pub const LATER: &str = "m99991231_000001_later";

/// Does to a database what a next release may do to it while this one runs: each table gets columns that may be left out and an
/// index, and there is a table more.
pub async fn expand(url: &str) {
    let db = sea_orm::Database::connect(url.to_owned()).await.unwrap();
    let backend = db.get_database_backend();
    let tables = if backend == DbBackend::Sqlite {
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
    } else {
        "SELECT tablename::text AS name FROM pg_tables WHERE schemaname = 'public'"
    };
    for row in db.query_all_raw(Statement::from_string(backend, tables)).await.unwrap() {
        let table: String = row.try_get("", "name").unwrap();
        if table == "seaql_migrations" {
            continue;
        }
        for change in [
            format!("ALTER TABLE {table} ADD COLUMN later_note TEXT"),
            format!("ALTER TABLE {table} ADD COLUMN later_count BIGINT NOT NULL DEFAULT 7"),
            format!("CREATE INDEX later_{table} ON {table} (later_count)"),
        ] {
            db.execute_unprepared(&change).await.unwrap();
        }
    }
    db.execute_unprepared("CREATE TABLE later_things (id BIGINT PRIMARY KEY, name TEXT NOT NULL)").await.unwrap();
    let known = format!("INSERT INTO seaql_migrations (version, applied_at) VALUES ('{LATER}', 0)");
    db.execute_unprepared(&known).await.unwrap();
    db.close().await.unwrap();
}

async fn statement(server: &str, sql: &str) {
    let mut connection = PgConnection::connect(server).await.expect("TEST_DATABASE_URL answers");
    connection.execute(sqlx::AssertSqlSafe(sql)).await.unwrap();
    connection.close().await.unwrap();
}
