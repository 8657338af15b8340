//! The differences between the two databases, as words in braces.
//!
//! | word | SQLite | PostgreSQL | meaning |
//! |---|---|---|---|
//! | `{id}` | `BLOB` | `UUID` | an id |
//! | `{json}` | `TEXT` | `JSONB` | a JSON value that is never searched |
//! | `{counter}` | `INTEGER PRIMARY KEY AUTOINCREMENT` | `BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY` | a growing row number |
//! | `{later TABLE}` | a deferred reference to a table that a later change makes | nothing; [`reference`] adds it then | a foreign key in a cycle |

use sea_orm_migration::{prelude::*, sea_orm::DbBackend};

/// Runs statements one by one.
pub(crate) async fn run(manager: &SchemaManager<'_>, statements: &[&str]) -> Result<(), DbErr> {
    let connection = manager.get_connection();
    let sqlite = manager.get_database_backend() == DbBackend::Sqlite;
    for statement in statements {
        connection.execute_unprepared(&render(statement, sqlite)).await?;
    }
    Ok(())
}

/// Drops tables in the given order.
pub(crate) async fn drop_tables(manager: &SchemaManager<'_>, tables: &[&str]) -> Result<(), DbErr> {
    let cascade = if manager.get_database_backend() == DbBackend::Sqlite { "" } else { " CASCADE" };
    for table in tables {
        manager.get_connection().execute_unprepared(&format!("DROP TABLE IF EXISTS {table}{cascade}")).await?;
    }
    Ok(())
}

/// Adds on PostgreSQL the reference that SQLite got from `{later …}` when the table was made.
pub(crate) async fn reference(
    manager: &SchemaManager<'_>,
    table: &str,
    column: &str,
    target: &str,
) -> Result<(), DbErr> {
    if manager.get_database_backend() == DbBackend::Sqlite {
        return Ok(());
    }
    let statement = format!(
        "ALTER TABLE {table} ADD FOREIGN KEY ({column}) REFERENCES {target} (id) DEFERRABLE INITIALLY DEFERRED"
    );
    manager.get_connection().execute_unprepared(&statement).await.map(|_| ())
}

/// Makes the database refuse changes to the rows of a journal; `verbs` is any of UPDATE and DELETE.
pub(crate) async fn append_only(manager: &SchemaManager<'_>, table: &str, verbs: &[&str]) -> Result<(), DbErr> {
    let connection = manager.get_connection();
    let sqlite = manager.get_database_backend() == DbBackend::Sqlite;
    if !sqlite {
        connection
            .execute_unprepared(
                "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS \
                 $$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$",
            )
            .await?;
    }
    for verb in verbs {
        let name = format!("{table}_no_{}", verb.to_lowercase());
        let body = if sqlite {
            format!("BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END")
        } else {
            "FOR EACH ROW EXECUTE FUNCTION refuse_change()".to_owned()
        };
        connection.execute_unprepared(&format!("CREATE TRIGGER {name} BEFORE {verb} ON {table} {body}")).await?;
    }
    Ok(())
}

fn render(statement: &str, sqlite: bool) -> String {
    let pick = |on_sqlite: &'static str, on_postgres: &'static str| if sqlite { on_sqlite } else { on_postgres };
    let mut text = statement.replace("{id}", pick("BLOB", "UUID")).replace("{json}", pick("TEXT", "JSONB")).replace(
        "{counter}",
        pick("INTEGER PRIMARY KEY AUTOINCREMENT", "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"),
    );
    while let Some((before, rest)) = text.split_once("{later ") {
        let (target, after) = rest.split_once('}').unwrap_or((rest, ""));
        let reference =
            if sqlite { format!("REFERENCES {target} (id) DEFERRABLE INITIALLY DEFERRED") } else { String::new() };
        text = format!("{before}{reference}{after}");
    }
    text
}
