//! A database of an earlier release is brought up to date with its rows: `release.sql` holds what that release wrote, with tasks,
//! auctions and channels in every state that it had.

use std::time::Duration;

use entity::task;
use migration::{Migrator, MigratorTrait};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, EntityTrait, Statement, TransactionTrait};
use zerostate::{
    app::App,
    config::Config,
    store::{Clock, Entropy},
};

use crate::world::{DAWN, Database};

/// Changes of the schema that the earlier release had.
const EARLIER: u32 = 10;
const ROWS: &str = include_str!("release.sql");

/// What the market of now may hold and that of then could not.
const NEW: &[&str] = &[
    "UPDATE tasks SET status = 'SUBMITTED', submitted_at = 1, verified = {yes} WHERE title = 'awarded'",
    "UPDATE tasks SET acceptance = 'REVIEW', review_ms = 1 WHERE title = 'open'",
    "UPDATE auctions SET visibility = 'COMMIT_REVEAL', reveal_ms = 1000, bond = 1 WHERE status = 'OPEN'",
    "UPDATE auctions SET visibility = 'COMMIT_REVEAL', reveal_ms = 1000, bond = 1, status = 'REVEALING', reveal_until = 1 \
     WHERE status = 'OPEN'",
    "UPDATE auctions SET bond = 1 WHERE status = 'OPEN'",
    "UPDATE accounts SET kind = 'BOND' WHERE kind = 'AGENT'",
    "UPDATE channels SET status = 'CLOSING', close_at = 1 WHERE status = 'OPEN'",
    "INSERT INTO transfers (id, batch_id, kind, debit_id, credit_id, amount, created_at) \
     SELECT {id:00000000000000000000000000000001}, batch_id, 'WITHDRAWAL', debit_id, credit_id, 1, 1 FROM transfers LIMIT 1",
];

/// What no market may hold.
const WRONG: &[&str] = &[
    "UPDATE tasks SET status = 'NONSENSE' WHERE title = 'awarded'",
    "UPDATE tasks SET status = 'SUBMITTED' WHERE title = 'awarded'",
    "UPDATE tasks SET status = 'DISPUTED', submitted_at = 1, verified = {yes} WHERE title = 'open'",
    "UPDATE tasks SET acceptance = 'NEVER'",
    "UPDATE auctions SET visibility = 'COMMIT_REVEAL', bond = 1 WHERE status = 'OPEN'",
    "UPDATE auctions SET visibility = 'COMMIT_REVEAL', reveal_ms = 1000 WHERE status = 'OPEN'",
    "UPDATE auctions SET visibility = 'COMMIT_REVEAL', reveal_ms = 1000, bond = 1, status = 'REVEALING' WHERE status = 'OPEN'",
    "UPDATE auctions SET reveal_ms = 1000 WHERE status = 'OPEN'",
    "UPDATE auctions SET status = 'REVEALING' WHERE status = 'OPEN'",
    "UPDATE auctions SET deadline_at = NULL WHERE status = 'OPEN'",
    "UPDATE auctions SET bond = -1",
    "UPDATE accounts SET kind = 'NOTHING' WHERE kind = 'AGENT'",
    "UPDATE channels SET status = 'CLOSING' WHERE status = 'OPEN'",
    "UPDATE channels SET hold_id = NULL",
    "UPDATE channels SET purpose = 'STREAM' WHERE status = 'OPEN'",
    "UPDATE channels SET close_reason = 'NONSENSE' WHERE status = 'CLOSED'",
    "UPDATE agents SET public_key = 'short'",
    "INSERT INTO transfers (id, batch_id, kind, debit_id, credit_id, amount, created_at) \
     SELECT {id:00000000000000000000000000000001}, batch_id, 'GIFT', debit_id, credit_id, 1, 1 FROM transfers LIMIT 1",
];

/// A statement as this database spells it.
fn spell(statement: &str, backend: DbBackend) -> String {
    let sqlite = backend == DbBackend::Sqlite;
    let (yes, no) = if sqlite { ("1", "0") } else { ("TRUE", "FALSE") };
    let mut text = statement.replace("{yes}", yes).replace("{no}", no);
    while let Some((before, rest)) = text.split_once("{id:") {
        let (id, after) = rest.split_once('}').unwrap();
        text = if sqlite { format!("{before}x'{id}'{after}") } else { format!("{before}CAST('{id}' AS UUID){after}") };
    }
    text
}

/// The tables of the rows with their columns.
fn tables() -> Vec<(&'static str, &'static str)> {
    let mut tables: Vec<_> = ROWS
        .lines()
        .filter_map(|line| line.strip_prefix("INSERT INTO "))
        .map(|line| {
            let (table, rest) = line.split_once(" (").unwrap();
            (table, rest.split_once(')').unwrap().0)
        })
        .collect();
    tables.dedup();
    tables
}

async fn texts(db: &DatabaseConnection, question: &str) -> Vec<String> {
    let statement = Statement::from_string(db.get_database_backend(), question.to_owned());
    let rows = db.query_all_raw(statement).await.unwrap_or_else(|error| panic!("{question}: {error}"));
    rows.iter().map(|row| row.try_get_by_index(0).unwrap()).collect()
}

/// Every value of every row in the columns of the earlier release.
async fn values(db: &DatabaseConnection) -> Vec<String> {
    let mut lines = Vec::new();
    for (table, columns) in tables() {
        let quoted: Vec<String> = columns
            .split(", ")
            .map(|column| {
                let sqlite = db.get_database_backend() == DbBackend::Sqlite;
                if sqlite { format!("quote({column})") } else { format!("quote_nullable(CAST({column} AS TEXT))") }
            })
            .collect();
        let mut rows = texts(db, &format!("SELECT {} AS row FROM {table}", quoted.join(" || ', ' || "))).await;
        rows.sort();
        lines.extend(rows.into_iter().map(|row| format!("{table}: {row}")));
    }
    lines
}

/// The database's own opinion of itself.
async fn is_sound(db: &DatabaseConnection) {
    if db.get_database_backend() == DbBackend::Sqlite {
        assert_eq!(texts(db, "PRAGMA integrity_check").await, ["ok"]);
        let broken = Statement::from_string(DbBackend::Sqlite, "PRAGMA foreign_key_check");
        assert!(db.query_all_raw(broken).await.unwrap().is_empty());
    } else {
        let unchecked = "SELECT conname FROM pg_constraint WHERE NOT convalidated";
        assert!(texts(db, unchecked).await.is_empty(), "every constraint holds for every row");
    }
}

/// Tries a statement and takes it back.
#[expect(clippy::disallowed_methods, reason = "this is about the database alone")]
async fn is_taken(db: &DatabaseConnection, statement: &str) -> bool {
    let tx = db.begin().await.unwrap();
    let done = tx.execute_unprepared(&spell(statement, db.get_database_backend())).await;
    tx.rollback().await.unwrap();
    done.is_ok_and(|done| done.rows_affected() > 0)
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "this is about the database alone")]
async fn a_database_of_an_earlier_release_is_brought_up_to_date_with_its_rows_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let place = Database::empty(folder.path()).await;
    let url = place.url();
    let writable = if url.starts_with("sqlite:") { format!("{url}?mode=rwc") } else { url.clone() };
    let db = sea_orm::Database::connect(writable).await.unwrap();
    Migrator::up(&db, Some(EARLIER)).await.unwrap();
    let tx = db.begin().await.unwrap();
    for row in ROWS.lines().filter(|line| line.starts_with("INSERT")) {
        let done = tx.execute_unprepared(&spell(row, db.get_database_backend())).await;
        assert!(done.is_ok(), "{row}: {done:?}");
    }
    tx.commit().await.unwrap();
    let before = values(&db).await;
    assert_eq!(before.len(), ROWS.lines().filter(|line| line.starts_with("INSERT")).count());

    let later = u32::try_from(Migrator::migrations().len()).unwrap() - EARLIER;
    for round in 0..2 {
        Migrator::up(&db, None).await.unwrap();
        is_sound(&db).await;
        assert_eq!(values(&db).await, before, "round {round}");
        for statement in NEW {
            assert!(is_taken(&db, statement).await, "refused: {statement}");
        }
        for statement in WRONG {
            assert!(!is_taken(&db, statement).await, "went through: {statement}");
        }
        if round == 0 {
            Migrator::down(&db, Some(later)).await.unwrap();
            is_sound(&db).await;
            assert_eq!(values(&db).await, before, "back");
            for statement in NEW.iter().chain(WRONG) {
                assert!(!is_taken(&db, statement).await, "went through in the earlier release: {statement}");
            }
        }
    }
    db.close().await.unwrap();

    // This release goes on where the earlier one stopped.
    let mut config = Config::in_folder(folder.path());
    config.storage.url = url;
    config.terms.fee_bps = 250;
    let clock = Clock::manual(DAWN);
    let app = App::open(config, clock.clone(), Entropy::seeded(1)).await.unwrap();
    let audit = app.audit().await.unwrap();
    assert!(audit.ok(), "{audit:#?}");
    for _ in 0..4 {
        clock.advance(Duration::from_hours(20 * 24));
        while app.sweep_once().await.unwrap() + app.run_ready().await.unwrap() > 0 {}
    }
    let tasks = task::Entity::find().all(app.store().read()).await.unwrap();
    assert!(tasks.len() == 8 && tasks.iter().all(|task| task.deadline_at.is_none()), "{tasks:#?}");
    let audit = app.audit().await.unwrap();
    assert!(audit.ok(), "{audit:#?}");
}
