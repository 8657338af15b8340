//! The one error of the program and what each kind of it tells a caller.

use std::time::Duration;

use sea_orm::DbErr;

/// The result of everything that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation did not happen. Nothing of it was done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No credentials, or none that are valid.
    #[error("{0}")]
    Unauthenticated(&'static str),
    /// The caller is known and may not do this.
    #[error("{0}")]
    Forbidden(&'static str),
    /// There is no such thing, or the caller may not know of it; the two look alike on purpose.
    #[error("There is no such {0}.")]
    NotFound(&'static str),
    /// A value of the input is not acceptable, whatever the state of the market.
    #[error("{field} {why}")]
    Invalid {
        /// The path of the input field, for example `budget`.
        field: String,
        /// A clause that follows the name of the field: "must be positive".
        why: String,
    },
    /// The market's rules say no.
    #[error("{}", .0.message)]
    Refused(Refusal),
    /// Too often; the same call may succeed after the given time.
    #[error("Too many attempts; try again later.")]
    Throttled(Duration),
    /// Nothing is wrong with the call, but it cannot be served now; the same call may succeed later.
    #[error("{0}")]
    Unavailable(&'static str),
    /// An audit found the books broken. No credits move until a whole audit finds them right again.
    #[error("The books are under repair; no credits move until then.")]
    BooksBroken,
    /// A bug or an outage. Its text is logged once and never sent.
    #[error("internal error: {0}")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A named no. The code is stable; clients decide by it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Refusal {
    /// SCREAMING_SNAKE_CASE, unique in its concept.
    pub code: String,
    /// A sentence for people.
    pub message: String,
}

impl Error {
    /// An input value that is not acceptable.
    pub fn invalid(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), why: why.into() }
    }

    /// A broken assumption of ours.
    pub fn internal(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Internal(source.into())
    }

    /// The code of a refusal, if this is one.
    #[must_use]
    pub fn refusal_code(&self) -> Option<&str> {
        match self {
            Self::Refused(refusal) => Some(&refusal.code),
            Self::Unauthenticated(_)
            | Self::Forbidden(_)
            | Self::NotFound(_)
            | Self::Invalid { .. }
            | Self::Throttled(_)
            | Self::Unavailable(_)
            | Self::BooksBroken
            | Self::Internal(_) => None,
        }
    }
}

impl From<DbErr> for Error {
    fn from(error: DbErr) -> Self {
        Self::Internal(Box::new(error))
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::Internal(Box::new(error))
    }
}

/// Declares a concept's refusals: a plain enumeration whose variants are the stable codes, in the order in which they are
/// checked, each with the sentence that people read.
macro_rules! refusals {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $message:literal,)+ }) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error, strum::IntoStaticStr, strum::EnumString, strum::EnumIter,
        )]
        #[strum(serialize_all = "SCREAMING_SNAKE_CASE")]
        pub enum $name {
            $($(#[$variant_doc])* #[error($message)] $variant,)+
        }

        impl From<$name> for $crate::error::Error {
            fn from(refused: $name) -> Self {
                let code: &'static str = refused.into();
                Self::Refused($crate::error::Refusal { code: code.to_owned(), message: refused.to_string() })
            }
        }
    };
}
pub(crate) use refusals;
