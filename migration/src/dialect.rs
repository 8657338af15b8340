//! The differences between the two databases, as words in braces.
//!
//! | word | SQLite | PostgreSQL | meaning |
//! |---|---|---|---|
//! | `{id}` | `BLOB` | `UUID` | an id |
//! | `{json}` | `TEXT` | `JSONB` | a JSON value that is never searched |
//! | `{counter}` | `INTEGER PRIMARY KEY AUTOINCREMENT` | `BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY` | a growing row number |
//! | `{later TABLE}` | a deferred reference to a table that a later change makes | nothing; [`reference`] adds it then | a foreign key in a cycle |

use sea_orm_migration::{
    prelude::*,
    sea_orm::{ConnectionTrait, DbBackend, Statement},
};

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

/// A constraint of a table that a later change of the schema words anew.
pub(crate) struct Reworded {
    pub(crate) table: &'static str,
    /// The name that PostgreSQL gave to the constraint.
    pub(crate) constraint: &'static str,
    /// The condition as it was written, without the word CHECK and its parentheses.
    pub(crate) from: &'static str,
    pub(crate) to: &'static str,
}

/// Words CHECK constraints anew.
pub(crate) async fn reword(manager: &SchemaManager<'_>, changes: &[Reworded]) -> Result<(), DbErr> {
    for Reworded { table, constraint, from, to } in changes {
        word_constraint(manager, table, constraint, from, to).await?;
    }
    Ok(())
}

/// Takes back what [`reword`] did. It fails where rows need the new wording.
pub(crate) async fn reword_back(manager: &SchemaManager<'_>, changes: &[Reworded]) -> Result<(), DbErr> {
    for Reworded { table, constraint, from, to } in changes.iter().rev() {
        word_constraint(manager, table, constraint, to, from).await?;
    }
    Ok(())
}

async fn word_constraint(
    manager: &SchemaManager<'_>,
    table: &str,
    constraint: &str,
    from: &str,
    to: &str,
) -> Result<(), DbErr> {
    if manager.get_database_backend() == DbBackend::Sqlite {
        return rewrite_table(manager, table, &format!("CHECK ({from})"), &format!("CHECK ({to})")).await;
    }
    let statement =
        format!("ALTER TABLE {table} DROP CONSTRAINT {constraint}, ADD CONSTRAINT {constraint} CHECK ({to})");
    manager.get_connection().execute_unprepared(&statement).await.map(|_| ())
}

/// Drops columns; nothing may refer to them any more.
pub(crate) async fn drop_columns(manager: &SchemaManager<'_>, table: &str, columns: &[&str]) -> Result<(), DbErr> {
    for column in columns {
        manager.get_connection().execute_unprepared(&format!("ALTER TABLE {table} DROP COLUMN {column}")).await?;
    }
    Ok(())
}

/// Says whether a column must be filled. `definition` is how the column began when the table was made, with `NOT NULL`.
pub(crate) async fn require(
    manager: &SchemaManager<'_>,
    table: &str,
    column: &str,
    definition: &str,
    required: bool,
) -> Result<(), DbErr> {
    if manager.get_database_backend() == DbBackend::Sqlite {
        let strict = render(definition, true);
        let lax = strict.replace(" NOT NULL", "");
        let (from, to) = if required { (lax, strict) } else { (strict, lax) };
        return rewrite_table(manager, table, &from, &to).await;
    }
    let verb = if required { "SET" } else { "DROP" };
    let statement = format!("ALTER TABLE {table} ALTER COLUMN {column} {verb} NOT NULL");
    manager.get_connection().execute_unprepared(&statement).await.map(|_| ())
}

/// Replaces one passage of the text that SQLite keeps of a table; the text must have it once. SQLite has no statement for such a
/// change, and its documentation gives this procedure for changes that do not touch the rows.
async fn rewrite_table(manager: &SchemaManager<'_>, table: &str, from: &str, to: &str) -> Result<(), DbErr> {
    let connection = manager.get_connection();
    let ask = async |question: &str| {
        let found = connection.query_one_raw(Statement::from_string(DbBackend::Sqlite, question)).await?;
        found.ok_or_else(|| DbErr::Custom(format!("there is no table {table}")))
    };
    let text: String = ask(&format!("SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = '{table}'"))
        .await?
        .try_get("", "sql")?;
    if text.matches(from).count() != 1 {
        return Err(DbErr::Custom(format!("the table {table} does not say once: {from}")));
    }
    let version: i32 = ask("PRAGMA schema_version").await?.try_get("", "schema_version")?;
    let text = text.replace(from, to).replace('\'', "''");
    for statement in [
        "PRAGMA writable_schema = ON",
        &format!("UPDATE sqlite_schema SET sql = '{text}' WHERE type = 'table' AND name = '{table}'"),
        // A new version makes every connection read the schema again.
        &format!("PRAGMA schema_version = {}", version.wrapping_add(1)),
        "PRAGMA writable_schema = OFF",
    ] {
        connection.execute_unprepared(statement).await?;
    }
    Ok(())
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
