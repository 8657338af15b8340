//! The log of the process: on standard error, for people or for machines, with the request and the trace that a line belongs to; and the
//! traces themselves, for whoever collects them.

use std::{
    fmt,
    io::{self, IsTerminal},
};

use clap::ValueEnum;
use serde_json::{Map, Value};
use tokio::runtime::Handle;
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    subscriber::Interest,
};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    field::RecordFields,
    fmt::{
        FmtContext, FormatEvent, FormatFields, FormattedFields,
        format::{JsonFields, Writer},
        time::{FormatTime, SystemTime},
    },
    layer::{Context, Filter, SubscriberExt},
    registry::{LookupSpan, Scope},
    util::SubscriberInitExt,
};

use super::{failure::Failure, otlp::Traces};
use crate::trace;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// Pretty on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// Lines for people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// Starts the log. `filter` is what the operator set, `default` what the command logs otherwise. Where a runtime is given, traces are
/// exported too if the environment says so.
pub(super) fn start(
    format: LogFormat,
    filter: Option<&str>,
    default: &str,
    runtime: Option<&Handle>,
) -> Result<Traces, Failure> {
    let filter = EnvFilter::try_new(filter.unwrap_or(default)).map_err(|error| {
        let what = format!("The log filter cannot be read: {error}.");
        Failure::configuration(what, "Set --log or RUST_LOG to a level such as info, or to zerostate=debug,info.")
    })?;
    let traces = runtime.map(Traces::from_environment).transpose()?.unwrap_or_default();
    let terminal = io::stderr().is_terminal();
    let json = match format {
        LogFormat::Auto => !terminal,
        LogFormat::Pretty => false,
        LogFormat::Json => true,
    };
    // Where a line cannot be written, as on a full disk, neither can a complaint about it, and trying would be a panic.
    let log = tracing_subscriber::fmt::layer().with_writer(io::stderr).log_internal_errors(false);
    let log = if json {
        log.fmt_fields(JsonFields::new()).event_format(JsonLine).with_filter(Logged(filter)).boxed()
    } else {
        log.fmt_fields(Plain).with_ansi(terminal).with_filter(Logged(filter)).boxed()
    };
    let mut layers: Vec<Box<dyn Layer<Registry> + Send + Sync>> = vec![log];
    if let Some(spans) = traces.layer() {
        layers.push(spans.with_filter(Traced).boxed());
    }
    let started = tracing_subscriber::registry().with(layers).try_init();
    started.map_err(|error| {
        Failure::failed(format!("The log cannot be started: {error}."), "Start one process at a time.")
    })?;
    Ok(traces)
}

/// What the log sees: the lines that the operator wants, and the spans that say to what a line belongs.
///
/// It never answers that a place is always of interest. What a question for interest leaves behind on a thread would then be taken for
/// an answer about the next line, and that line be lost.
struct Logged(EnvFilter);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Filter<S> for Logged {
    fn enabled(&self, of: &Metadata<'_>, context: &Context<'_, S>) -> bool {
        if of.is_span() { is_of_log(of) } else { Filter::enabled(&self.0, of, context) }
    }

    fn callsite_enabled(&self, of: &'static Metadata<'static>) -> Interest {
        let never = if of.is_span() {
            !is_of_log(of)
        } else {
            <EnvFilter as Filter<S>>::callsite_enabled(&self.0, of).is_never()
        };
        if never { Interest::never() } else { Interest::sometimes() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let of_lines = <EnvFilter as Filter<S>>::max_level_hint(&self.0)?;
        Some(of_lines.max(LevelFilter::INFO))
    }
}

fn is_of_log(span: &Metadata<'_>) -> bool {
    [trace::ROOT, trace::LOG].contains(&span.target())
}

/// What traces see: spans of ours, and those of statements inside them, except for the statements of subscriptions.
struct Traced;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Filter<S> for Traced {
    fn enabled(&self, of: &Metadata<'_>, context: &Context<'_, S>) -> bool {
        if !of.is_span() {
            return false;
        }
        let inside = |is_fine: fn(&str) -> bool| context.lookup_current().is_some_and(|span| is_fine(span.name()));
        match of.target() {
            trace::ROOT => true,
            trace::INNER => inside(|_| true),
            _ => is_statement(of) && inside(|name| name != trace::SUBSCRIPTION),
        }
    }

    fn callsite_enabled(&self, of: &'static Metadata<'static>) -> Interest {
        let ours = of.is_span() && [trace::ROOT, trace::INNER].contains(&of.target());
        if ours || is_statement(of) { Interest::sometimes() } else { Interest::never() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::INFO)
    }
}

/// Whether a span is that of a statement, or of the beginning or end of a transaction. Those below it name their arguments.
fn is_statement(span: &Metadata<'_>) -> bool {
    span.is_span() && *span.level() == Level::INFO && span.name().starts_with("sea_orm.")
}

/// Whether a field of a span is for traces alone.
fn is_for_traces(name: &str) -> bool {
    ["http.", "otel.", "server.", "zerostate."].iter().any(|group| name.starts_with(group))
}

/// A line as one JSON object: `timestamp`, `level`, `target`, `message`, `request_id`, `trace_id`, `span_id`, and whatever else it says.
struct JsonLine;

/// The keys that come first, in this order, where they are there.
const FIRST: &[&str] = &["message", "request_id", "trace_id", "span_id"];

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut line: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut said = Said::default();
        for span in context.event_scope().into_iter().flat_map(Scope::from_root) {
            let extensions = span.extensions();
            let fields = extensions.get::<FormattedFields<N>>();
            let fields = fields.and_then(|fields| serde_json::from_str::<Map<String, Value>>(fields).ok());
            for (key, value) in fields.into_iter().flatten().filter(|(key, _)| !is_for_traces(key)) {
                said.say(&key, value);
            }
        }
        event.record(&mut said);
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let target = said.target.take().unwrap_or_else(|| event.metadata().target().to_owned());
        let level = event.metadata().level().as_str();
        write!(line, r#"{{"timestamp":{},"level":"{level}","target":{}"#, Value::from(timestamp), Value::from(target))?;
        let is_first = |(key, _): &&(String, Value)| FIRST.contains(&key.as_str());
        let first = FIRST.iter().filter_map(|key| said.fields.iter().find(|(known, _)| known == key));
        for (key, value) in first.chain(said.fields.iter().filter(|field| !is_first(field))) {
            write!(line, ",{}:{value}", Value::from(key.as_str()))?;
        }
        writeln!(line, "}}")
    }
}

/// What a line says. The event's own word goes before that of the spans around it.
#[derive(Default)]
struct Said {
    fields: Vec<(String, Value)>,
    /// The target of a line that another library wrote with `log`.
    target: Option<String>,
}

impl Said {
    fn say(&mut self, key: &str, value: Value) {
        match self.fields.iter_mut().find(|(known, _)| known == key) {
            Some((_, said)) => *said = value,
            None => self.fields.push((key.to_owned(), value)),
        }
    }
}

impl Visit for Said {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "log.target" => self.target = Some(value.to_owned()),
            name if name.starts_with("log.") => {}
            name => self.say(name, value.into()),
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.say(field.name(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.say(field.name(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if !field.name().starts_with("log.") {
            self.say(field.name(), value.into());
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.say(field.name(), value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.say(field.name(), format!("{value:?}").into());
    }
}

/// The fields of a line for people, without those that are for traces.
struct Plain;

impl<'w> FormatFields<'w> for Plain {
    fn format_fields<R: RecordFields>(&self, line: Writer<'w>, fields: R) -> fmt::Result {
        let mut written = Written { line, began: false, went: Ok(()) };
        fields.record(&mut written);
        written.went
    }
}

struct Written<'w> {
    line: Writer<'w>,
    began: bool,
    went: fmt::Result,
}

impl Visit for Written<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.record_debug(field, &format_args!("{value}"));
        } else {
            self.record_debug(field, &value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if self.went.is_err() || is_for_traces(field.name()) {
            return;
        }
        let gap = if self.began { " " } else { "" };
        self.began = true;
        self.went = match field.name() {
            "message" => write!(self.line, "{gap}{value:?}"),
            name => write!(self.line, "{gap}{}={value:?}", name.trim_start_matches("r#")),
        };
    }
}
