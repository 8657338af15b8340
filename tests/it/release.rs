//! Two releases over one database: processes that start at once, a schema that is older or newer than the program, changes that
//! meet work under way, and a linter that lets a new change of the schema only add. `docs/upgrading.md` is the account of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures_util::future::{join, join_all};
use migration::{Migrator, MigratorTrait};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, Statement, TransactionTrait};
use sqlx::{Connection, Executor, PgConnection};
use zerostate::{
    config::{Config, Storage, Terms},
    store::{Clock, Difference, Entropy, Store},
};

use crate::{
    cli::{Ended, command},
    world::{DAWN, Database, LATER, World, expand, on_postgres},
};

/// The changes of the schema that releases have. They are never edited; what comes after them may only add.
const RELEASED: u32 = 18;
/// What a new change does beside adding, each with the reason why the release before it can live with that.
const LISTED: &[(&str, &str)] = &[
    (
        "m20261123_000019_allow_retention: task_results: trigger task_results_no_",
        "the release before never updates a result, and the new trigger refuses it everything but emptying the log text",
    ),
    (
        "m20261123_000020_index_pairs: bids: index bids_by_bidder",
        "the release before asks for the bids of a bidder only within one auction, for which there are other indexes",
    ),
    (
        "m20261123_000021_index_queue: executions: index executions_by_task",
        "an index by task and id takes its place, which serves every question that the release before asks of it",
    ),
];

async fn store(url: &str) -> Store {
    Store::connect(&Storage::at(url), Terms::default(), Clock::manual(DAWN), Entropy::seeded(7)).await.unwrap()
}

/// The program over a database and a folder.
fn program(url: &str, folder: &std::path::Path, arguments: &[&str]) -> Ended {
    let mut command = command(std::net::SocketAddr::from(([127, 0, 0, 1], 1)), None, arguments);
    Ended::of(command.env("DATABASE_URL", url).env("ZEROSTATE_DATA", folder).output().unwrap())
}

#[tokio::test]
async fn processes_that_start_at_once_migrate_exactly_once() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::empty(folder.path()).await;
    // The embedded database has one process.
    let processes = if on_postgres() { 6 } else { 1 };
    let started = (0..processes).map(async |_| {
        let store = store(&database.url()).await;
        let made = store.migrate().await.unwrap();
        assert_eq!(store.difference().await.unwrap(), Difference::default());
        made
    });
    let made: Vec<_> = join_all(started).await.into_iter().filter(|made| !made.is_empty()).collect();
    assert_eq!(made.len(), 1, "one process made all changes: {made:?}");
    assert_eq!(made[0].len(), Migrator::migrations().len());
    assert!(store(&database.url()).await.migrate().await.unwrap().is_empty(), "there is nothing left to do");
}

#[tokio::test]
async fn a_change_that_does_not_get_its_lock_lets_others_through_and_tries_again() {
    if !on_postgres() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let database = Database::empty(folder.path()).await;
    let store = store(&database.url()).await;
    let last = u32::try_from(Migrator::migrations().len()).unwrap() - 1;
    let db = sea_orm::Database::connect(database.url()).await.unwrap();
    Migrator::up(&db, Some(RELEASED - 1)).await.unwrap();
    // Somebody reads for longer than a change waits for its lock.
    let mut reader = PgConnection::connect(&database.url()).await.unwrap();
    reader.execute("BEGIN; SELECT COUNT(*) FROM agents").await.unwrap();
    let others = async {
        let since = std::time::Instant::now();
        let (mut longest, mut waited) = (Duration::ZERO, false);
        while since.elapsed() < Duration::from_secs(7) {
            let asked = std::time::Instant::now();
            db.execute_unprepared("SELECT 1 FROM agents").await.unwrap();
            longest = longest.max(asked.elapsed());
            waited |= asked.elapsed() > Duration::from_secs(1);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        reader.execute("COMMIT").await.unwrap();
        (longest, waited)
    };
    let (made, (longest, waited)) = join(store.migrate(), others).await;
    assert_eq!(made.unwrap().len(), usize::try_from(last - (RELEASED - 1) + 1).unwrap());
    assert!(waited && longest < Duration::from_secs(6), "a query behind the change waited {longest:?}");
    assert_eq!(store.difference().await.unwrap(), Difference::default());
}

#[tokio::test]
async fn a_program_refuses_an_older_schema_where_an_operator_migrates_and_says_the_command() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::empty(folder.path()).await;
    let url = database.url();
    let refused = program(&url, folder.path(), &["serve", "--port", "0", "--migrate", "check"]);
    assert_eq!(refused.code, Some(3), "{refused:?}");
    assert!(refused.said.contains("waits for") && refused.said.contains("`zerostate migrate up`"), "{refused:?}");
    assert_eq!(program(&url, folder.path(), &["migrate", "status"]).code, Some(3));
    let applied = program(&url, folder.path(), &["migrate", "up"]);
    assert_eq!(applied.done().matches("applied ").count(), Migrator::migrations().len());
    program(&url, folder.path(), &["migrate", "status"]).done();
    let again = program(&url, folder.path(), &["migrate", "up"]);
    assert!(!again.done().contains("applied"), "{again:?}");
}

#[tokio::test]
async fn a_program_serves_a_schema_that_is_newer_than_itself_and_refuses_one_of_another_line() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::empty(folder.path()).await;
    let url = database.url();
    let store = store(&url).await;
    store.migrate().await.unwrap();
    expand(&url).await;
    let newer = Difference { pending: Vec::new(), newer: vec![LATER.to_owned()] };
    assert_eq!(store.difference().await.unwrap(), newer);
    assert!(store.migrate().await.unwrap().is_empty());
    store.refuse_older().await.unwrap();
    let status = program(&url, folder.path(), &["migrate", "status", "--json"]);
    assert_eq!(status.json()["newer"][0], LATER);
    let up = program(&url, folder.path(), &["migrate", "up"]);
    up.done();
    assert!(up.said.contains("migrated by a newer release"), "{up:?}");
    program(&url, folder.path(), &["audit"]).done();

    let lacking = Migrator::migrations().pop().unwrap().name().to_owned();
    let db = sea_orm::Database::connect(writable(&url)).await.unwrap();
    db.execute_unprepared(&format!("DELETE FROM seaql_migrations WHERE version = '{lacking}'")).await.unwrap();
    for arguments in [&["migrate", "up"][..], &["serve", "--port", "0"]] {
        let refused = program(&url, folder.path(), arguments);
        assert_eq!(refused.code, Some(3), "{refused:?}");
        assert!(refused.said.contains("another line of releases") && refused.said.contains(&lacking), "{refused:?}");
    }
}

/// The stories of this release on the schema of a next one. With ZEROSTATE_TEST_NEWER=1 every story of this binary runs so.
#[tokio::test]
async fn a_task_lives_its_whole_life_on_the_schema_of_a_next_release() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::empty(folder.path()).await;
    store(&database.url()).await.migrate().await.unwrap();
    expand(&database.url()).await;
    let url = database.url();
    let world = World::with(move |config: &mut Config| config.storage.url = url).await;
    let ada = world.user("ada").await;
    world.credit(&ada, "10").await;
    let input = serde_json::json!({ "input": {
        "title": "on a newer schema", "capabilities": ["nothing"], "input": "x", "budget": "2", "closesIn": "PT1M",
        "idempotencyKey": "newer",
    } });
    let post =
        "mutation($input: ExecuteTaskInput!) { executeTask(input: $input) { task { id status } userErrors { code } } }";
    let posted = ada.query(post, input).await;
    assert_eq!(posted["executeTask"]["task"]["status"], "OPEN", "{posted}");
    world.pass(Duration::from_mins(2)).await;
    let ended = ada.query("{ tasks(first: 1) { nodes { status } } }", serde_json::json!({})).await;
    assert_eq!(ended["tasks"]["nodes"][0]["status"], "EXPIRED", "{ended}");
    world.check().await;
}

/// The URL by which a new SQLite file may be made.
fn writable(url: &str) -> String {
    if url.starts_with("sqlite:") { format!("{url}?mode=rwc") } else { url.to_owned() }
}

/// What a schema promises to a program that was written for it.
#[derive(Debug, Default)]
struct Shape {
    /// Tables with their columns: the type, and whether a row can be made without a word on it.
    tables: BTreeMap<String, BTreeMap<String, (String, bool)>>,
    /// Rules on rows, indexes and triggers: the table, its name, the words, the columns if they are known, and whether it is an
    /// index that only makes things quick.
    rules: BTreeMap<(String, String), Rule>,
}

#[derive(Debug, PartialEq)]
struct Rule {
    words: String,
    columns: BTreeSet<String>,
    only_quick: bool,
}

async fn rows(db: &impl ConnectionTrait, question: &str) -> Vec<Vec<String>> {
    let rows = db.query_all_raw(Statement::from_string(db.get_database_backend(), question)).await.unwrap();
    rows.iter()
        .map(|row| row.column_names().iter().map(|name| row.try_get::<String>("", name).unwrap()).collect())
        .collect()
}

impl Shape {
    async fn of(db: &impl ConnectionTrait) -> Self {
        let mut shape = Self::default();
        if db.get_database_backend() == DbBackend::Sqlite {
            let columns = "SELECT t.name AS a, c.name AS b, c.type AS c, \
                           CASE WHEN c.\"notnull\" = 0 OR c.dflt_value IS NOT NULL OR c.pk > 0 THEN 'yes' ELSE 'no' END AS d \
                           FROM sqlite_schema t JOIN pragma_table_info(t.name) c WHERE t.type = 'table'";
            shape.columns(rows(db, columns).await);
            let rules = "SELECT tbl_name AS a, type || ' ' || name AS b, sql AS c, '' AS d, \
                         CASE WHEN type = 'index' AND sql NOT LIKE 'CREATE UNIQUE%' THEN 'yes' ELSE 'no' END AS e \
                         FROM sqlite_schema WHERE sql IS NOT NULL";
            shape.rules(rows(db, rules).await);
        } else {
            let columns = "SELECT table_name::text AS a, column_name::text AS b, data_type::text AS c, \
                           CASE WHEN is_nullable = 'YES' OR column_default IS NOT NULL OR is_identity = 'YES' \
                           OR is_generated = 'ALWAYS' THEN 'yes' ELSE 'no' END AS d \
                           FROM information_schema.columns WHERE table_schema = 'public'";
            shape.columns(rows(db, columns).await);
            let rules = "SELECT conrelid::regclass::text AS a, 'constraint ' || conname AS b, pg_get_constraintdef(oid) AS c, \
                         COALESCE((SELECT string_agg(attname::text, ',') FROM pg_attribute \
                         WHERE attrelid = conrelid AND attnum = ANY (conkey)), '') AS d, 'no' AS e \
                         FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND conrelid <> 0 \
                         UNION ALL SELECT indrelid::regclass::text, 'index ' || indexrelid::regclass::text, \
                         pg_get_indexdef(indexrelid), '', CASE WHEN indisunique THEN 'no' ELSE 'yes' END \
                         FROM pg_index JOIN pg_class ON pg_class.oid = indrelid WHERE relnamespace = 'public'::regnamespace \
                         UNION ALL SELECT tgrelid::regclass::text, 'trigger ' || tgname, pg_get_triggerdef(oid), '', 'no' \
                         FROM pg_trigger WHERE NOT tgisinternal";
            shape.rules(rows(db, rules).await);
        }
        shape
    }

    fn columns(&mut self, rows: Vec<Vec<String>>) {
        for row in rows {
            let [table, column, kind, optional] = <[String; 4]>::try_from(row).unwrap();
            self.tables.entry(table).or_default().insert(column, (kind, optional == "yes"));
        }
    }

    fn rules(&mut self, rows: Vec<Vec<String>>) {
        for row in rows {
            let [table, name, words, columns, quick] = <[String; 5]>::try_from(row).unwrap();
            let columns = columns.split(',').filter(|column| !column.is_empty()).map(str::to_owned).collect();
            self.rules.insert((table, name), Rule { words, columns, only_quick: quick == "yes" });
        }
    }

    /// What in a later shape does not suit a program that was written for this one.
    fn broken_by(&self, later: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for (table, columns) in &self.tables {
            let Some(after) = later.tables.get(table) else {
                found.push(format!("{table} is gone"));
                continue;
            };
            for (column, (kind, optional)) in columns {
                match after.get(column) {
                    None => found.push(format!("{table}.{column} is gone")),
                    Some((other, _)) if other != kind => {
                        found.push(format!("{table}.{column} was {kind} and is {other}"));
                    }
                    Some((_, false)) if *optional => found.push(format!("{table}.{column} must be given now")),
                    Some(_) => {}
                }
            }
            for (column, (_, optional)) in after {
                if !columns.contains_key(column) && !optional {
                    found.push(format!("{table}.{column} is new and must be given"));
                }
            }
        }
        for ((table, name), rule) in &self.rules {
            match later.rules.get(&(table.clone(), name.clone())) {
                _ if !later.tables.contains_key(table) => {}
                None => found.push(format!("{table}: {name} is gone")),
                Some(after) if after.words == rule.words => {}
                Some(after) if name.starts_with("table ") && is_insertion(&rule.words, &after.words) => {}
                Some(after) => found.push(format!("{table}: {name} was {} and is {}", rule.words, after.words)),
            }
        }
        for ((table, name), rule) in &later.rules {
            let Some(columns) = self.tables.get(table) else { continue };
            let about_new = !rule.columns.is_empty() && rule.columns.iter().all(|column| !columns.contains_key(column));
            if !self.rules.contains_key(&(table.clone(), name.clone())) && !rule.only_quick && !about_new {
                found.push(format!("{table}: {name} is new: {}", rule.words));
            }
        }
        found
    }
}

/// Whether a text is another one with something put in at one place.
fn is_insertion(before: &str, after: &str) -> bool {
    let same = |(one, other): &(char, char)| one == other;
    let head = before.chars().zip(after.chars()).take_while(same).count();
    let tail = before.chars().rev().zip(after.chars().rev()).take_while(same).count();
    head + tail >= before.chars().count()
}

async fn migrated(folder: &std::path::Path, steps: u32) -> (Database, DatabaseConnection) {
    let database = Database::empty(folder).await;
    let db = sea_orm::Database::connect(writable(&database.url())).await.unwrap();
    Migrator::up(&db, Some(steps)).await.unwrap();
    (database, db)
}

#[tokio::test]
async fn a_new_change_of_the_schema_only_adds() {
    let folder = tempfile::tempdir().unwrap();
    let (_database, db) = migrated(folder.path(), RELEASED).await;
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for migration in Migrator::migrations().iter().skip(RELEASED.try_into().unwrap()) {
        let before = Shape::of(&db).await;
        Migrator::up(&db, Some(1)).await.unwrap();
        for finding in before.broken_by(&Shape::of(&db).await) {
            let finding = format!("{}: {finding}", migration.name());
            let known = LISTED.iter().map(|(what, _)| *what).find(|what| finding.starts_with(what));
            seen.extend(known);
            assert!(
                known.is_some(),
                "{finding}. The release before runs on this schema while instances are replaced: add what is new, and take \
                 away what is old one release later (docs/upgrading.md), or list it with the reason why that release can live with it"
            );
        }
    }
    // On SQLite some of what is listed is not seen, such as the words of a constraint.
    assert!(!on_postgres() || seen.len() == LISTED.len(), "listed and not so: all but {seen:?}");
    assert!(LISTED.iter().all(|(_, reason)| reason.len() > 20), "each has its reason");
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "this is about the database alone")]
async fn the_linter_tells_what_only_adds_from_what_breaks() {
    let folder = tempfile::tempdir().unwrap();
    let (_database, db) = migrated(folder.path(), RELEASED).await;
    let before = Shape::of(&db).await;
    assert!(before.tables.len() > 35 && before.rules.len() > 60, "{}, {}", before.tables.len(), before.rules.len());
    let adds = [
        "ALTER TABLE agents ADD COLUMN later TEXT",
        "ALTER TABLE agents ADD COLUMN later INTEGER NOT NULL DEFAULT 0 CHECK (later >= 0)",
        "CREATE TABLE later (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
        "CREATE INDEX later ON deliveries (url)",
    ];
    let breaks = [
        "ALTER TABLE agents DROP COLUMN webhook_url",
        "ALTER TABLE agents RENAME COLUMN webhook_url TO hook",
        "ALTER TABLE deliveries RENAME TO messages",
        "DROP TABLE deliveries",
        "DROP INDEX deliveries_due",
        "CREATE UNIQUE INDEX later ON deliveries (url)",
    ];
    let breaks_on_postgres = [
        "ALTER TABLE agents ADD COLUMN later INTEGER NOT NULL",
        "ALTER TABLE agents ALTER COLUMN webhook_url SET NOT NULL",
        "ALTER TABLE agents ALTER COLUMN webhook_generation DROP DEFAULT",
        "ALTER TABLE agents ALTER COLUMN in_work TYPE BIGINT",
        "ALTER TABLE agents ADD CONSTRAINT later CHECK (capacity < 100)",
        "ALTER TABLE agents DROP CONSTRAINT agents_capacity_check",
        "ALTER TABLE agents DROP CONSTRAINT agents_capacity_check, ADD CONSTRAINT agents_capacity_check CHECK (capacity > 1)",
        "DROP TRIGGER transfers_no_delete ON transfers",
    ];
    let here = if on_postgres() { &breaks_on_postgres[..] } else { &["DROP TRIGGER transfers_no_delete"] };
    let all = adds.iter().map(|it| (it, false)).chain(breaks.iter().chain(here).map(|it| (it, true)));
    for (statement, expected) in all {
        let tx = db.begin().await.unwrap();
        tx.execute_unprepared(statement).await.unwrap();
        let found = before.broken_by(&Shape::of(&tx).await);
        assert_eq!(!found.is_empty(), expected, "{statement}: {found:#?}");
        tx.rollback().await.unwrap();
    }
}
