//! What an operation leaves behind: its line in the log and its span. Both say what it was and how it went, and nothing that was in it.
//!
//! | key | what |
//! |---|---|
//! | `type` | query, mutation, subscription; not there when the document could not be read |
//! | `name` | the name of the operation, if it has a plain one |
//! | `document` | the SHA-256 of the document's text |
//! | `outcome` | ok, refused (data that says no), `client_error`, `server_error`, abandoned (the client left before the answer) |
//! | `code` | of the first error or refusal |
//! | `cost` | points |
//! | `ms` | how long it took; of a subscription, how long it lasted |
//! | `actor` | who asked |

use std::time::{Duration, Instant};

use async_graphql::{Response, parser::types::OperationType};
use entity::id::UserId;
use tracing::{Span, field::Empty};

use super::answer::Fault;
use crate::{graphql::Remarks, trace};

/// The target of the lines, for filters.
const TARGET: &str = "zerostate::operation";
/// An operation that takes longer is told of as a warning.
const SLOW: Duration = Duration::from_secs(1);
/// Characters of an operation's name at most; a longer one is left out.
const MAX_NAME: usize = 64;

/// What is known of an operation before it runs.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub(super) kind: Option<OperationType>,
    /// As the document or the client says it.
    pub(super) name: Option<String>,
    pub(super) document: Option<[u8; 32]>,
    pub(super) actor: Option<UserId>,
    pub(super) points: Option<u64>,
}

/// An operation under way. The line is written when this is dropped.
pub(super) struct Trail {
    known: Known,
    started: Instant,
    span: Span,
    remarks: Remarks,
    outcome: &'static str,
    code: Option<String>,
}

impl Trail {
    pub(super) fn new(known: Known) -> Self {
        let name = known.name.as_deref().filter(|name| is_plain(name));
        let span = match known.kind {
            Some(OperationType::Subscription) => tracing::info_span!(
                target: trace::INNER,
                trace::SUBSCRIPTION,
                "otel.status_code" = Empty,
                "graphql.operation.type" = "subscription",
                "graphql.operation.name" = name,
                "zerostate.document" = known.document.map(hex::encode),
                "user.id" = known.actor.map(tracing::field::display),
                "zerostate.cost.reckoned" = known.points.map(trace::whole),
                "zerostate.cost" = Empty,
                "zerostate.outcome" = Empty,
                "zerostate.code" = Empty,
            ),
            kind => tracing::info_span!(
                target: trace::INNER,
                "operation",
                "otel.name" = kind.map(tracing::field::display),
                "otel.status_code" = Empty,
                "graphql.operation.type" = kind.map(tracing::field::display),
                "graphql.operation.name" = name,
                "zerostate.document" = known.document.map(hex::encode),
                "user.id" = known.actor.map(tracing::field::display),
                "zerostate.cost.reckoned" = known.points.map(trace::whole),
                "zerostate.cost" = Empty,
                "zerostate.outcome" = Empty,
                "zerostate.code" = Empty,
            ),
        };
        // A subscription whose client leaves has ended as it should.
        let outcome = if known.kind == Some(OperationType::Subscription) { "ok" } else { "abandoned" };
        Self { known, started: Instant::now(), span, remarks: Remarks::default(), outcome, code: None }
    }

    /// The line of an operation that was not even begun.
    pub(super) fn rejected(known: Known, fault: &Fault) {
        Self::new(known).faulted(fault);
    }

    pub(super) fn span(&self) -> &Span {
        &self.span
    }

    /// Where resolvers leave what they have to say of it.
    pub(super) fn remarks(&self) -> Remarks {
        self.remarks.clone()
    }

    /// What it cost in the end.
    pub(super) fn cost(&mut self, points: u64) {
        self.known.points = Some(points);
    }

    /// It came to nothing.
    pub(super) fn faulted(&mut self, fault: &Fault) {
        self.outcome = if fault.status.is_server_error() { "server_error" } else { "client_error" };
        self.code = Some(fault.code.clone().into_owned());
    }

    /// It was answered, and `outcome` is how the metrics count that.
    pub(super) fn answered(&mut self, response: &Response, outcome: &'static str) {
        let extensions = response.errors.first().and_then(|error| error.extensions.as_ref());
        let of_error = match extensions.and_then(|extensions| extensions.get("code")) {
            Some(async_graphql::Value::String(code)) => Some(code.clone()),
            Some(_) | None => None,
        };
        let refused = self.remarks.refusal();
        self.outcome = if refused.is_some() && response.errors.is_empty() { "refused" } else { outcome };
        self.code = of_error.or(refused);
    }
}

impl Drop for Trail {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        let Known { kind, name, document, actor, points } = &self.known;
        if !self.span.is_disabled() {
            self.span.record("zerostate.outcome", self.outcome);
            self.span.record("zerostate.code", self.code.as_deref());
            self.span.record("zerostate.cost", points.map(trace::whole));
            if self.outcome == "server_error" {
                self.span.record("otel.status_code", "ERROR");
            }
        }
        // What waits on purpose is not slow.
        let waits = *kind == Some(OperationType::Subscription) || self.remarks.has_waited();
        macro_rules! line {
            ($level:expr) => {
                tracing::event!(
                    target: TARGET,
                    $level,
                    "type" = kind.map(tracing::field::display),
                    name = name.as_deref().filter(|name| is_plain(name)),
                    document = document.map(hex::encode),
                    outcome = self.outcome,
                    code = self.code,
                    cost = points,
                    ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                    actor = actor.map(tracing::field::display),
                    "graphql"
                )
            };
        }
        if took > SLOW && !waits {
            line!(tracing::Level::WARN);
        } else {
            line!(tracing::Level::INFO);
        }
    }
}

/// Whether a name is one of GraphQL's, and a short one.
fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte == b'_' || byte.is_ascii_alphanumeric();
    !name.is_empty()
        && name.len() <= MAX_NAME
        && name.bytes().all(plain)
        && !name.starts_with(|first: char| first.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        sync::{Arc, Mutex},
    };

    use serde_json::Value;

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The line of an operation that took so long.
    fn line(kind: OperationType, took: Duration, waits: bool) -> Value {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().json().flatten_event(true).with_writer(move || writer.clone());
        tracing::subscriber::with_default(subscriber.finish(), || {
            let mut trail = Trail::new(Known { kind: Some(kind), ..Known::default() });
            trail.started -= took;
            if waits {
                trail.remarks().waits();
            }
        });
        let text = log.0.lock().unwrap().clone();
        serde_json::from_slice(&text).unwrap()
    }

    #[test]
    fn an_operation_that_takes_long_is_told_of_as_a_warning() {
        use OperationType::{Mutation, Query, Subscription};
        let long = SLOW + Duration::from_millis(1);
        for (kind, took, waits, level) in [
            (Query, Duration::ZERO, false, "INFO"),
            (Query, long, false, "WARN"),
            (Mutation, long, false, "WARN"),
            (Query, long, true, "INFO"),
            (Subscription, long, false, "INFO"),
        ] {
            let line = line(kind, took, waits);
            assert_eq!((line["level"].as_str(), line["target"].as_str()), (Some(level), Some(TARGET)), "{line}");
            let outcome = if kind == Subscription { "ok" } else { "abandoned" };
            assert_eq!((line["type"].as_str(), line["outcome"].as_str()), (Some(&*kind.to_string()), Some(outcome)));
            assert!(line["ms"].as_u64().is_some_and(|ms| Duration::from_millis(ms) >= took), "{line}");
        }
    }

    #[test]
    fn a_plain_name_is_short() {
        for plain in ["Q", "_a1", &"x".repeat(64)] {
            assert!(is_plain(plain), "{plain}");
        }
        for other in ["", "1a", "a b", "a\nb", "ä", &"x".repeat(65)] {
            assert!(!is_plain(other), "{other}");
        }
    }
}
