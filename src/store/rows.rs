//! Rows that are written together by one statement of one text, however many they are.
//!
//! A statement with a parameter for each cell has another text for each number of rows, and is prepared and planned anew on each
//! connection for every one of them. PostgreSQL is given each column as one array instead. SQLite prepares in no time.

use std::fmt::Write;

use sea_orm::{
    ActiveModelTrait, ActiveValue, ConnectionTrait, DbBackend, DbErr, EntityName, EntityTrait, Iden, IntoActiveModel,
    Iterable, Statement, Value,
};

/// Inserts rows of which every column is set; none are nothing to do.
pub(crate) async fn insert_all<A>(db: &impl ConnectionTrait, rows: Vec<A>) -> Result<(), DbErr>
where
    A: ActiveModelTrait + Send,
    <A::Entity as EntityTrait>::Model: IntoActiveModel<A>,
{
    if rows.is_empty() {
        return Ok(());
    }
    if db.get_database_backend() == DbBackend::Sqlite {
        A::Entity::insert_many(rows).exec_without_returning(db).await?;
        return Ok(());
    }
    let mut arrays = Arrays::default();
    for column in <A::Entity as EntityTrait>::Column::iter() {
        let cells = rows.iter().map(|row| match row.get(column) {
            ActiveValue::Set(cell) | ActiveValue::Unchanged(cell) => Ok(cell),
            ActiveValue::NotSet => Err(DbErr::Type(format!("column {} is not set", column.to_string()))),
        });
        arrays.add(&column.to_string(), cells)?;
    }
    let Arrays { names, unnested, values } = arrays;
    let text = format!("INSERT INTO {} ({names}) SELECT {unnested}", A::Entity::default().table_name());
    db.execute_raw(Statement::from_sql_and_values(DbBackend::Postgres, text, values)).await?;
    Ok(())
}

/// Columns of as many cells each, as parameters of a statement for PostgreSQL.
#[derive(Debug, Default)]
pub(super) struct Arrays {
    /// The names of the columns as a list.
    pub names: String,
    /// What stands for them behind `SELECT`: a row for each cell, under these names.
    pub unnested: String,
    /// One parameter for each.
    pub values: Vec<Value>,
}

impl Arrays {
    /// One more column.
    pub(super) fn add(&mut self, name: &str, cells: impl Iterator<Item = Result<Value, DbErr>>) -> Result<(), DbErr> {
        let (mut array, mut kind) = (String::from("{"), "text");
        for cell in cells {
            if array.len() > 1 {
                array.push(',');
            }
            kind = write_cell(&mut array, cell?)?;
        }
        array.push('}');
        self.values.push(array.into());
        let comma = if self.names.is_empty() { "" } else { ", " };
        let place = self.values.len();
        write!(self.names, "{comma}\"{name}\"").map_err(odd)?;
        write!(self.unnested, "{comma}UNNEST(CAST(${place} AS {kind}[])) AS \"{name}\"").map_err(odd)
    }
}

fn odd(error: impl std::fmt::Display) -> DbErr {
    DbErr::Type(error.to_string())
}

/// Writes a cell as a member of an array in PostgreSQL's text form, and says of which type it is.
fn write_cell(array: &mut String, cell: Value) -> Result<&'static str, DbErr> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the other types are those of no column here")]
    let (kind, done) = match cell {
        Value::Bool(cell) => ("boolean", plain(array, cell)),
        Value::Int(cell) => ("integer", plain(array, cell)),
        Value::BigInt(cell) => ("bigint", plain(array, cell)),
        Value::Uuid(cell) => ("uuid", plain(array, cell)),
        Value::String(cell) => ("text", quoted(array, cell.as_deref())),
        Value::Json(cell) => ("jsonb", quoted(array, cell.map(|json| json.to_string()).as_deref())),
        other => return Err(DbErr::Type(format!("no array of {other:?}"))),
    };
    done.map_err(odd)?;
    Ok(kind)
}

fn plain(array: &mut String, cell: Option<impl std::fmt::Display>) -> std::fmt::Result {
    match cell {
        Some(cell) => write!(array, "{cell}"),
        None => array.write_str("NULL"),
    }
}

fn quoted(array: &mut String, cell: Option<&str>) -> std::fmt::Result {
    let Some(cell) = cell else { return array.write_str("NULL") };
    array.push('"');
    for letter in cell.chars() {
        if matches!(letter, '"' | '\\') {
            array.push('\\');
        }
        array.push(letter);
    }
    array.push('"');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_arrays_in_which_every_text_is_itself() {
        let mut arrays = Arrays::default();
        let cells = ["plain", "", "NULL", r#"{"a": "b\"c"}, d"#, "a\nb"].map(|text| Ok(Value::from(text)));
        arrays.add("a", cells.into_iter().chain([Ok(Value::String(None))])).unwrap();
        arrays.add("b", [Ok(Value::from(-5_i64)), Ok(Value::BigInt(None))].into_iter()).unwrap();
        arrays.add("c", [Ok(Value::from(true)), Ok(Value::from(false))].into_iter()).unwrap();
        assert_eq!(arrays.names, r#""a", "b", "c""#);
        assert_eq!(
            arrays.unnested,
            r#"UNNEST(CAST($1 AS text[])) AS "a", UNNEST(CAST($2 AS bigint[])) AS "b", UNNEST(CAST($3 AS boolean[])) AS "c""#
        );
        let texts = [
            r#"{"plain","","NULL","{\"a\": \"b\\\"c\"}, d","a
b",NULL}"#,
            "{-5,NULL}",
            "{true,false}",
        ];
        assert_eq!(arrays.values, texts.map(Value::from));
    }

    #[test]
    fn what_has_no_array_is_refused() {
        let mut arrays = Arrays::default();
        assert!(arrays.add("a", [Ok(Value::Double(Some(1.0)))].into_iter()).is_err());
    }
}
