//! Retention: taking out what is old, a bounded number of rows at a time, oldest first. What the books are made of is never touched.

use entity::time::Timestamp;
use sea_orm::{ConnectionTrait, DbBackend, Statement};

use super::{Store, Work};
use crate::error::Result;

/// Rows that one unit of work takes out at most.
const BATCH: u64 = 500;

/// A kind of rows that are of no use after a while.
#[derive(Clone, Copy, Debug)]
pub struct Aged {
    /// The table.
    pub table: &'static str,
    /// The columns of its key.
    pub key: &'static str,
    /// The column that says since when a row is of no use.
    pub since: &'static str,
    /// What else has to hold of a row.
    pub and: &'static str,
    /// What is taken out of a row; all of it where nothing is said.
    pub only: Option<&'static str>,
}

impl Aged {
    fn old(&self, before: Timestamp) -> String {
        let Self { table, since, and, .. } = self;
        format!("FROM {table} WHERE {since} < {} AND {and}", before.micros())
    }
}

impl Store {
    /// Takes out what is of no use since before an instant. Answers how many rows there were; there may be more.
    pub async fn forget(&self, aged: &Aged, before: Timestamp) -> Result<u64> {
        // Looking first keeps the idle sweeper from the one writer of SQLite.
        let any = format!("SELECT 1 AS one {} LIMIT 1", aged.old(before));
        if self.read().query_one_raw(Statement::from_string(self.backend(), any)).await?.is_none() {
            return Ok(0);
        }
        self.write(crate::caller::Caller::System, async |work| work.forget(aged, before).await).await
    }
}

impl Work {
    async fn forget(&mut self, aged: &Aged, before: Timestamp) -> Result<u64> {
        let Aged { table, key, since, only, .. } = aged;
        let backend = self.tx().get_database_backend();
        let old = aged.old(before);
        // Processes that sweep at the same time take different rows.
        let lock = if backend == DbBackend::Sqlite { "" } else { "FOR UPDATE SKIP LOCKED" };
        let those = format!("({key}) IN (SELECT {key} {old} ORDER BY {since} LIMIT {BATCH} {lock})");
        let sql = match only {
            Some(column) => format!("UPDATE {table} SET {column} = '' WHERE {those}"),
            None => format!("DELETE FROM {table} WHERE {those}"),
        };
        Ok(self.tx().execute_raw(Statement::from_string(backend, sql)).await?.rows_affected())
    }
}
