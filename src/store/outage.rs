//! Which failures of the database pass by themselves: it could not be reached, is full, is busy, or hands over to another server.
//! Nothing of the unit of work that met one is known to have happened; asking again with the same idempotency key is right.

use sea_orm::{DbErr, RuntimeErr};
use sqlx::{postgres::PgDatabaseError, sqlite::SqliteError};

/// Primary result codes of SQLite: BUSY, LOCKED, NOMEM, READONLY, IOERR, FULL, CANTOPEN, PROTOCOL. A disk that is full, a file that
/// another process holds, a file system that went away or became read-only.
const SQLITE: &[i32] = &[5, 6, 7, 8, 10, 13, 14, 15];
/// Classes of SQLSTATE: connections that fail, resources that are used up, and errors of the system below.
const POSTGRES_CLASSES: &[&str] = &["08", "53", "58"];
/// Single SQLSTATEs: a read-only server (a standby that is about to be promoted), an idle transaction that was ended, a conflict
/// with others, a lock that was not to be had, a statement that took too long, a server that stops, crashes or starts, and a
/// session that was idle for too long.
const POSTGRES: &[&str] = &["25006", "25P03", "40001", "40P01", "55P03", "57014", "57P01", "57P02", "57P03", "57P05"];

/// Whether an error is an outage of the database and not something that it refused.
#[must_use]
pub fn is_outage(source: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    if let Some(error) = source.downcast_ref::<sqlx::Error>() {
        return of_sqlx(error);
    }
    match source.downcast_ref::<DbErr>() {
        Some(DbErr::ConnectionAcquire(_)) => true,
        Some(
            DbErr::Conn(RuntimeErr::SqlxError(error))
            | DbErr::Exec(RuntimeErr::SqlxError(error))
            | DbErr::Query(RuntimeErr::SqlxError(error)),
        ) => of_sqlx(error),
        Some(_) | None => false,
    }
}

fn of_sqlx(error: &sqlx::Error) -> bool {
    if let Some(refused) = error.as_database_error() {
        let code = refused.code().unwrap_or_default();
        return if refused.try_downcast_ref::<SqliteError>().is_some() {
            // The low byte of an extended code is the primary one.
            code.parse::<i32>().is_ok_and(|code| SQLITE.contains(&(code & 0xff)))
        } else if refused.try_downcast_ref::<PgDatabaseError>().is_some() {
            POSTGRES.contains(&&*code) || POSTGRES_CLASSES.iter().any(|class| code.starts_with(class))
        } else {
            false
        };
    }
    matches!(
        error,
        sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_by_itself_is_an_outage_and_what_we_said_wrongly_is_not() {
        assert!(is_outage(&sqlx::Error::PoolTimedOut));
        assert!(is_outage(&sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into())));
        let lost = sqlx::Error::Io(std::io::ErrorKind::BrokenPipe.into());
        assert!(is_outage(&DbErr::Query(RuntimeErr::SqlxError(lost.into()))));
        assert!(!is_outage(&sqlx::Error::RowNotFound));
        assert!(!is_outage(&DbErr::Custom("a broken assumption".to_owned())));
        assert!(!is_outage(&std::fmt::Error));
    }

    #[tokio::test]
    async fn a_full_database_is_an_outage_and_a_broken_rule_is_not() {
        use sea_orm::ConnectionTrait;
        let db = sea_orm::Database::connect("sqlite::memory:").await.unwrap();
        db.execute_unprepared("CREATE TABLE t (n INTEGER PRIMARY KEY CHECK (n > 0), b BLOB)").await.unwrap();
        let refused = db.execute_unprepared("INSERT INTO t VALUES (-1, NULL)").await.unwrap_err();
        assert!(!is_outage(&refused), "{refused}");
        db.execute_unprepared("PRAGMA max_page_count = 2").await.unwrap();
        let full = db.execute_unprepared("INSERT INTO t VALUES (1, zeroblob(100000))").await.unwrap_err();
        assert!(is_outage(&full), "{full}");
    }
}
