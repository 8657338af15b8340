//! How a command ends badly: an exit code that scripts decide by, what happened, and what to do about it.

use std::fmt;

use sea_orm::DbErr;

use crate::{
    agent::modules::ModulesError,
    error::Error,
    store::{MissingKey, SchemaRefused},
};

/// The exit codes other than 0 for success. Wrong usage is 2 and is said by the parser of the arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// The command did not succeed.
    Failed,
    /// The command line is at fault in a way that the parser of the arguments cannot see.
    Usage,
    /// The configuration is at fault, or the database waits for migrations.
    Configuration,
    /// Something that the program depends on cannot be reached.
    Unreachable,
    /// The server that was asked is not healthy.
    Unhealthy,
}

impl Exit {
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Configuration => 3,
            Self::Unreachable => 4,
            Self::Unhealthy => 5,
        }
    }
}

/// Why a command failed. Its text ends with a sentence that says what to do.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) exit: Exit,
    text: String,
}

impl Failure {
    /// `what` happened; `advice` says what to do about it. Both are sentences.
    pub(super) fn new(exit: Exit, what: impl fmt::Display, advice: impl fmt::Display) -> Self {
        Self { exit, text: format!("{what} {advice}") }
    }

    /// The configuration is at fault.
    pub(super) fn configuration(what: impl fmt::Display, advice: impl fmt::Display) -> Self {
        Self::new(Exit::Configuration, what, advice)
    }

    /// The command did not succeed.
    pub(super) fn failed(what: impl fmt::Display, advice: impl fmt::Display) -> Self {
        Self::new(Exit::Failed, what, advice)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Internal(source) => of_source(source.as_ref()),
            Error::Unavailable(text) => Self::new(Exit::Unreachable, text, "Try again in a moment."),
            error @ Error::BooksBroken => Self::failed(error, "Run `zerostate audit` to see what is wrong."),
            Error::Throttled(wait) => Self::failed("Too many attempts.", format!("Wait {} s.", wait.as_secs() + 1)),
            error @ Error::Invalid { .. } => {
                Self::new(Exit::Usage, format!("{error}."), "Correct the value and run the command again.")
            }
            error @ (Error::Unauthenticated(_) | Error::Forbidden(_) | Error::NotFound(_) | Error::Refused(_)) => {
                Self::failed(error, "Check the arguments and run the command again.")
            }
        }
    }
}

/// The database lacks these migrations.
pub(super) fn waits_for(pending: &[String]) -> Failure {
    let (count, noun) = (pending.len(), if pending.len() == 1 { "migration" } else { "migrations" });
    Failure::configuration(
        format!("The database waits for {count} {noun}."),
        "Run `zerostate migrate up`, or `zerostate serve --migrate auto`, which does it at its start.",
    )
}

/// Tells what kind of trouble an internal error is.
fn of_source(source: &(dyn std::error::Error + Send + Sync + 'static)) -> Failure {
    let said = chain(source);
    if let Some(missing) = source.downcast_ref::<MissingKey>() {
        return Failure::configuration(
            format!("{missing}, and production makes no keys."),
            "Set ZEROSTATE_INSTANCE_KEY, ZEROSTATE_SIGNING_KEY and ZEROSTATE_REFRESH_KEY, or bring the folder of the keys.",
        );
    }
    match source.downcast_ref::<SchemaRefused>() {
        Some(SchemaRefused::Older(pending)) => return waits_for(pending),
        Some(SchemaRefused::Apart(_)) => {
            return Failure::configuration(
                format!("The database is of another line of releases: {said}."),
                "Run the version of zerostate that migrated it last.",
            );
        }
        None => {}
    }
    let database = source.downcast_ref::<DbErr>();
    if let Some(DbErr::Migration(_)) = database {
        return Failure::configuration(
            format!("The database cannot be migrated: {said}."),
            "Run the version of zerostate that migrated it last, or restore a backup.",
        );
    }
    let unreachable = matches!(database, Some(DbErr::Conn(_) | DbErr::ConnectionAcquire(_)));
    if unreachable || source.downcast_ref::<sqlx::Error>().is_some() {
        return Failure::new(
            Exit::Unreachable,
            format!("The database cannot be used: {said}."),
            "Check DATABASE_URL and that the server runs, or, for the embedded database, that the data folder is writable.",
        );
    }
    if source.downcast_ref::<std::io::Error>().is_some() {
        return Failure::configuration(
            format!("A file cannot be used: {said}."),
            "Give a folder that this user may write to by --data or ZEROSTATE_DATA.",
        );
    }
    if source.downcast_ref::<ModulesError>().is_some() {
        return Failure::configuration(
            format!("The store of modules cannot be opened: {said}."),
            "Check --modules or ZEROSTATE_MODULES.",
        );
    }
    Failure::failed(format!("{said}."), "Run it again with RUST_LOG=debug to see more.")
}

/// An error with its causes, without repeating what a cause already says.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        source = cause.source();
    }
    text.trim_end_matches('.').to_owned()
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::failed(format!("Writing failed: {error}."), "Check where the output goes.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_has_the_exit_code_of_its_kind() {
        let exit = |error: Error| Failure::from(error).exit;
        assert_eq!(exit(Error::from(DbErr::Migration("gap".into()))), Exit::Configuration);
        assert_eq!(exit(Error::internal(sqlx::Error::PoolTimedOut)), Exit::Unreachable);
        assert_eq!(exit(Error::internal(std::io::Error::other("disk"))), Exit::Configuration);
        assert_eq!(exit(Error::Unavailable("busy")), Exit::Unreachable);
        assert_eq!(exit(Error::invalid("email", "must be an address")), Exit::Usage);
        assert_eq!(exit(Error::NotFound("user")), Exit::Failed);
        assert_eq!(exit(Error::internal("surprise")), Exit::Failed);
    }

    #[test]
    fn a_failure_ends_with_what_to_do() {
        let failure = Failure::from(Error::internal(sqlx::Error::PoolTimedOut)).to_string();
        assert!(failure.contains("Check DATABASE_URL"), "{failure}");
        assert!(failure.ends_with('.') && !failure.contains(".."), "{failure}");
    }
}
