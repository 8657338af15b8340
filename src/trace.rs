//! Traces: how what happens here joins the trace of whoever asked for it, and which spans there are.
//!
//! ```text
//! request ─► query | mutation | subscription ─► unit of work ─► statements     the trace of the caller
//! attempt ─► unit of work ─► statements                                        traces of their own,
//! sweep ─► step ─► unit of work ─► statements                                  linked with the one
//! webhook ─► unit of work ─► statements                                        that posted the task
//! ```
//!
//! Spans of [`ROOT`] begin a trace, or go on with the caller's. The log sees them too and gives their plain fields to every line
//! that is written inside them; `request_id`, `trace_id` and `span_id` are such, and whatever has a dot in its name is for traces alone. Spans of [`INNER`], and those of the
//! statements, exist only inside another one and only where traces are exported; otherwise each costs the look at a flag. No span has
//! a value that a caller sent: no variable, no parameter of a statement, no text of an error.

use std::str::FromStr;

use moka::sync::Cache;
use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState},
};
use tracing::{Span, field::display};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use uuid::Uuid;

/// The target of spans that have no other one above them here.
pub const ROOT: &str = "zerostate::root";
/// The target of spans that exist only inside others, and only for traces.
pub const INNER: &str = "zerostate::inner";
/// The target of spans that exist only for the log.
pub const LOG: &str = "zerostate::log";
/// The name of the span of a subscription, which has no statements below it: it may last for days.
pub const SUBSCRIPTION: &str = "subscription";

/// The header, and the key in messages, that names the span of the caller.
pub const TRACEPARENT: &str = "traceparent";
/// The header that goes with it: what the systems on the way keep there for themselves.
pub const TRACESTATE: &str = "tracestate";
/// Bytes of a `tracestate` at most; a longer one is left out, as the recommendation of the W3C allows.
const MAX_STATE: usize = 512;

/// The span of the caller, if it named one.
#[derive(Clone, Debug, Default)]
pub struct Parent(Option<SpanContext>);

impl Parent {
    /// Reads what a caller sent. What is broken counts as not there.
    #[must_use]
    pub fn read(parent: Option<&str>, state: Option<&str>) -> Self {
        Self(parent.and_then(|parent| read(parent, state)))
    }

    /// This one, or the other one where the caller named none here.
    #[must_use]
    pub fn or(self, other: &Self) -> Self {
        Self(self.0.or_else(|| other.0.clone()))
    }
}

/// `00-<32 hexadecimal digits>-<16>-<2>`; a version after ours may say more behind that.
fn read(parent: &str, state: Option<&str>) -> Option<SpanContext> {
    let parent = parent.trim();
    let is_hex = |text: &&str| text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let mut parts = parent.split('-');
    let mut part = |length: usize| parts.next().filter(|part| part.len() == length).filter(is_hex);
    let (version, trace, span, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
    if version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    let state = state.filter(|state| state.len() <= MAX_STATE).and_then(|state| TraceState::from_str(state).ok());
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    let context = SpanContext::new(trace, span, flags, true, state.unwrap_or_default());
    context.is_valid().then_some(context)
}

/// Makes a span of [`ROOT`] go on with the trace of its caller, and writes down in its fields `trace_id` and `span_id` where it
/// belongs. Where nothing is exported the trace of the caller is written down all the same. A span must not have been entered before.
pub fn begin(span: &Span, Parent(parent): &Parent) {
    if let Some(parent) = parent {
        // Nobody is there to join it where nothing is exported.
        if span.set_parent(Context::new().with_remote_span_context(parent.clone())).is_err() {
            span.record("trace_id", display(parent.trace_id()));
            return;
        }
    }
    if let Some(own) = context_of(span) {
        span.record("trace_id", display(own.trace_id()));
        span.record("span_id", display(own.span_id()));
    }
}

/// Where a span belongs, if it is one of a trace.
fn context_of(span: &Span) -> Option<SpanContext> {
    Some(span.context().span().span_context().clone()).filter(SpanContext::is_valid)
}

/// The headers by which a server that is called inside a span joins its trace.
pub fn outgoing(span: &Span) -> impl Iterator<Item = (&'static str, String)> {
    let context = context_of(span);
    let parent = context.as_ref().map(|context| {
        let flags = context.trace_flags() & TraceFlags::SAMPLED;
        (TRACEPARENT, format!("00-{}-{}-{flags:02x}", context.trace_id(), context.span_id()))
    });
    let state = context.map(|context| (TRACESTATE, context.trace_state().header()));
    parent.into_iter().chain(state.filter(|(_, state)| !state.is_empty()))
}

/// A number as traces have them, which know no others.
#[must_use]
pub fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The name of the function that a closure was written in.
#[must_use]
pub fn function_of(closure: &'static str) -> String {
    closure.replace("::{{closure}}", "")
}

/// The traces in which tasks were posted. This process remembers the newest of its own, and nobody else's: what is done for a task
/// later, here, is linked with the trace of whoever posted it.
#[derive(Clone, Debug)]
pub struct Posted(Cache<Uuid, SpanContext>);

/// How many tasks are remembered.
const POSTED: u64 = 10_000;

impl Default for Posted {
    fn default() -> Self {
        Self(Cache::new(POSTED))
    }
}

impl Posted {
    /// Remembers that a task was posted in a span.
    pub fn remember(&self, task: Uuid, span: &Span) {
        if let Some(context) = context_of(span) {
            self.0.insert(task, context);
        }
    }

    /// Links a span with the trace in which a task was posted.
    pub fn link(&self, task: Uuid, span: &Span) {
        if !span.is_disabled()
            && let Some(context) = self.0.get(&task)
        {
            span.add_link(context);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    fn of(parent: &str, state: Option<&str>) -> Option<(String, String, bool, String)> {
        let Parent(context) = Parent::read(Some(parent), state);
        context
            .map(|it| (it.trace_id().to_string(), it.span_id().to_string(), it.is_sampled(), it.trace_state().header()))
    }

    #[test]
    fn the_span_of_the_caller_is_read() {
        let expected = |sampled, state: &str| Some((TRACE.to_owned(), SPAN.to_owned(), sampled, state.to_owned()));
        assert_eq!(of(&format!("00-{TRACE}-{SPAN}-01"), Some("a=1,b=2")), expected(true, "a=1,b=2"));
        assert_eq!(of(&format!(" 00-{TRACE}-{SPAN}-00 "), None), expected(false, ""));
        assert_eq!(of(&format!("00-{TRACE}-{SPAN}-03"), Some("no state")), expected(true, ""));
        assert_eq!(of(&format!("00-{TRACE}-{SPAN}-01"), Some(&format!("a={}", "x".repeat(600)))), expected(true, ""));
        assert_eq!(of(&format!("cc-{TRACE}-{SPAN}-01-more"), None), expected(true, ""));
    }

    #[test]
    fn what_is_broken_counts_as_not_there() {
        let zeros = "0".repeat(32);
        for wrong in [
            String::new(),
            "x".repeat(10_000),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("0-{TRACE}-{SPAN}-01"),
            format!("00-{zeros}-{SPAN}-01"),
            format!("00-{TRACE}-{}-01", &zeros[..16]),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{}-{SPAN}-01", &TRACE[1..]),
            format!("00-+{}-{SPAN}-01", &TRACE[1..]),
            format!("00-{TRACE}-{SPAN}-0g"),
        ] {
            assert_eq!(of(&wrong, None), None, "{wrong}");
        }
        assert!(Parent::read(None, Some("a=1")).0.is_none());
    }

    #[test]
    fn a_function_is_named_by_its_path() {
        assert_eq!(function_of("zerostate::sweep::once::{{closure}}::{{closure}}"), "zerostate::sweep::once");
    }
}
