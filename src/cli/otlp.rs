//! Traces for a collector: over HTTP in protobuf, in batches of bounded number and size, from a thread of their own. A collector that is
//! away, or slow, costs spans and nothing else.

use std::{
    env, fmt,
    future::Future,
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use opentelemetry::{KeyValue, StringValue, Value, trace::TracerProvider};
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{BatchSpanProcessor, SdkTracer, SdkTracerProvider, SpanData, SpanExporter},
};
use reqwest::{Client, redirect::Policy};
use tokio::runtime::Handle;
use tracing::{Subscriber, instrument::WithSubscriber, subscriber::NoSubscriber};
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::registry::LookupSpan;

use super::failure::Failure;

/// How long spans that are left may take to be sent when the process ends.
const LAST_PATIENCE: Duration = Duration::from_secs(3);
/// How long one batch may take where nobody says.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a collector's answer at most.
const MAX_ANSWER: usize = 64 * 1024;
/// How the service is called where nobody says.
const SERVICE: &str = "zerostate";
/// What decides which traces are exported, as the SDK knows it.
const SAMPLERS: &[&str] = &[
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
];

/// The attributes that leave this process, and how they are called outside. What is not in this list stays here, whoever recorded it.
const ATTRIBUTES: &[(&str, &str)] = &[
    ("code.function.name", "code.function.name"),
    ("db.operation", "db.operation.name"),
    ("db.statement", STATEMENT),
    ("db.system", "db.system.name"),
    ("graphql.operation.name", "graphql.operation.name"),
    ("graphql.operation.type", "graphql.operation.type"),
    ("http.request.method", "http.request.method"),
    ("http.response.status_code", "http.response.status_code"),
    ("http.route", "http.route"),
    ("request_id", "zerostate.request_id"),
    ("server.address", "server.address"),
    ("user.id", "user.id"),
    ("zerostate.agent", "zerostate.agent"),
    ("zerostate.attempt", "zerostate.attempt"),
    ("zerostate.begun_again", "zerostate.begun_again"),
    ("zerostate.code", "zerostate.code"),
    ("zerostate.cost", "zerostate.cost"),
    ("zerostate.cost.reckoned", "zerostate.cost.reckoned"),
    ("zerostate.document", "zerostate.document"),
    ("zerostate.done", "zerostate.done"),
    ("zerostate.events", "zerostate.events"),
    ("zerostate.mutation", "zerostate.mutation"),
    ("zerostate.outcome", "zerostate.outcome"),
    ("zerostate.step", "zerostate.step"),
    ("zerostate.subject", "zerostate.subject"),
    ("zerostate.task", "zerostate.task"),
];
const STATEMENT: &str = "db.query.text";

/// The variables that decide about traces, for the help.
pub(super) const HELP: &str = "Traces are exported when OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is set, \
    over HTTP in protobuf. OTEL_EXPORTER_OTLP_HEADERS, OTEL_EXPORTER_OTLP_TIMEOUT, OTEL_SERVICE_NAME, \
    OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER, OTEL_TRACES_SAMPLER_ARG, OTEL_BSP_* and OTEL_SDK_DISABLED mean what \
    OpenTelemetry says. See docs/observability.md.";

/// The export of traces, if there is any.
#[derive(Debug, Default)]
pub(super) struct Traces(Option<SdkTracerProvider>);

impl Traces {
    /// What the environment wants. The client runs on `runtime`.
    pub(super) fn from_environment(runtime: &Handle) -> Result<Self, Failure> {
        let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let Some(wanted) = Wanted::read(&variable)? else { return Ok(Self::default()) };
        let client = client(&wanted).map_err(|error| refused(&format!("no HTTP client can be made ({error})")))?;
        let client = Carrier { client, runtime: runtime.clone() };
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_timeout(wanted.timeout)
            .build()
            .map_err(|error| refused(&error.to_string()))?;
        let exporter = Exporter { inner: exporter, collector: wanted.collector, lost: AtomicU64::new(0) };
        let provider = SdkTracerProvider::builder()
            .with_resource(resource())
            .with_span_processor(BatchSpanProcessor::builder(exporter).build());
        Ok(Self(Some(provider.build())))
    }

    /// What makes spans of those that it is shown.
    pub(super) fn layer<S>(&self) -> Option<OpenTelemetryLayer<S, SdkTracer>>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let tracer = self.0.as_ref()?.tracer(SERVICE);
        let layer = tracing_opentelemetry::layer().with_tracer(tracer).with_location(false).with_threads(false);
        Some(layer.with_target(false).with_tracked_inactivity(false))
    }

    /// Sends what is left, for a bounded time.
    pub(super) fn end(self) {
        if let Some(Err(error)) = self.0.map(|provider| provider.shutdown_with_timeout(LAST_PATIENCE)) {
            tracing::warn!(%error, "the last spans could not be exported");
        }
    }
}

fn refused(why: &str) -> Failure {
    let what = format!("Traces cannot be exported: {}.", why.trim_end_matches('.'));
    Failure::configuration(what, "Correct the OTEL_ variables, or unset OTEL_EXPORTER_OTLP_ENDPOINT to export none.")
}

/// What the variables say that the SDK does not read, or reads without a word about mistakes.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    /// Scheme, host and port of the collector, for the log.
    collector: String,
    secure: bool,
    timeout: Duration,
}

impl Wanted {
    fn read(variable: &impl Fn(&str) -> Option<String>) -> Result<Option<Self>, Failure> {
        let of_traces = |what: &str| {
            variable(&format!("OTEL_EXPORTER_OTLP_TRACES_{what}"))
                .or_else(|| variable(&format!("OTEL_EXPORTER_OTLP_{what}")))
        };
        let disabled = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let exporter = variable("OTEL_TRACES_EXPORTER");
        let (Some(endpoint), false, true) = (of_traces("ENDPOINT"), disabled, exporter.as_deref() != Some("none"))
        else {
            return Ok(None);
        };
        if let Some(other) = exporter.filter(|exporter| exporter != "otlp") {
            return Err(refused(&format!("OTEL_TRACES_EXPORTER is {other}, and only otlp and none are known")));
        }
        if let Some(other) = of_traces("PROTOCOL").filter(|protocol| protocol != "http/protobuf") {
            return Err(refused(&format!("the protocol {other} is not spoken, only http/protobuf")));
        }
        if let Some(other) = of_traces("COMPRESSION").filter(|compression| compression != "none") {
            return Err(refused(&format!("the compression {other} is not known, only none")));
        }
        let url =
            url::Url::parse(&endpoint).ok().filter(|url| url.has_host() && ["http", "https"].contains(&url.scheme()));
        let url = url.ok_or_else(|| refused("the endpoint is no address that begins with http:// or https://"))?;
        let collector = url.origin().ascii_serialization();
        let timeout = of_traces("TIMEOUT").map(|millis| millis.parse().map(Duration::from_millis)).transpose();
        let timeout = timeout.map_err(|_| refused("the timeout is no number of milliseconds"))?.unwrap_or(PATIENCE);
        if let Some(sampler) = variable("OTEL_TRACES_SAMPLER") {
            if !SAMPLERS.contains(&sampler.as_str()) {
                return Err(refused(&format!(
                    "OTEL_TRACES_SAMPLER is {sampler}, and known are {}",
                    SAMPLERS.join(", ")
                )));
            }
            let ratio = variable("OTEL_TRACES_SAMPLER_ARG").and_then(|ratio| ratio.parse::<f64>().ok());
            if sampler.ends_with("traceidratio") && !ratio.is_some_and(|ratio| (0.0..=1.0).contains(&ratio)) {
                return Err(refused("OTEL_TRACES_SAMPLER_ARG must be a number from 0 to 1"));
            }
        }
        Ok(Some(Self { collector, secure: url.scheme() == "https", timeout }))
    }
}

fn client(wanted: &Wanted) -> reqwest::Result<Client> {
    let client = Client::builder().timeout(wanted.timeout).redirect(Policy::none());
    // A machine without any certificates can still speak to a collector beside it.
    if wanted.secure { client.build() } else { client.tls_certs_only([]).build() }
}

/// Who sends the spans.
fn resource() -> Resource {
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let named = Resource::builder().with_attribute(version.clone()).build();
    let name = named.get(&"service.name".into()).map(|name| name.as_str().into_owned());
    if name.is_none_or(|name| name.starts_with("unknown_service")) {
        Resource::builder().with_service_name(SERVICE).with_attribute(version).build()
    } else {
        named
    }
}

/// Carries batches on the runtime, because the thread that makes them has none, and without leaving a trace of it.
#[derive(Debug)]
struct Carrier {
    client: Client,
    runtime: Handle,
}

impl HttpClient for Carrier {
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        let sent = send(self.client.clone(), request).with_subscriber(NoSubscriber::default());
        // It ends within the time that a batch may take, or with the runtime.
        let sent = self.runtime.spawn(sent);
        Box::pin(async { sent.await? })
    }
}

async fn send(client: Client, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let mut answer = client.execute(request.try_into()?).await?;
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if chunk.len() > MAX_ANSWER.saturating_sub(body.len()) {
            return Err("the answer is too long".into());
        }
        body.extend_from_slice(&chunk);
    }
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = answer.status();
    *response.headers_mut() = std::mem::take(answer.headers_mut());
    Ok(response)
}

/// Exports spans, cleaned, and says once that it cannot and once that it can again.
struct Exporter {
    inner: opentelemetry_otlp::SpanExporter,
    collector: String,
    /// Spans that could not be exported since the last that could.
    lost: AtomicU64,
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter").field("collector", &self.collector).finish_non_exhaustive()
    }
}

impl SpanExporter for Exporter {
    async fn export(&self, mut batch: Vec<SpanData>) -> OTelSdkResult {
        batch.iter_mut().for_each(clean);
        let spans = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let exported = self.inner.export(batch).await;
        let collector = &self.collector;
        match &exported {
            Ok(()) => {
                let lost = self.lost.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    tracing::info!(collector, lost, "traces are exported again");
                }
            }
            Err(error) => {
                if self.lost.fetch_add(spans, Ordering::Relaxed) == 0 {
                    tracing::warn!(collector, %error, "traces cannot be exported; this is said once, until they can again");
                }
            }
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Leaves of a span what may leave this process.
fn clean(span: &mut SpanData) {
    let known = |attribute: KeyValue| {
        let (_, name) = ATTRIBUTES.iter().find(|(inside, _)| *inside == attribute.key.as_str())?;
        let value = if *name == STATEMENT {
            Value::String(without_literals(&attribute.value.as_str()))
        } else {
            attribute.value
        };
        Some(KeyValue::new(*name, value))
    };
    span.attributes = std::mem::take(&mut span.attributes).into_iter().filter_map(known).collect();
    span.events.events.clear();
}

/// A statement with a question mark for every literal in it. Values are bound and stand in no text, but for what we ourselves write there.
fn without_literals(statement: &str) -> StringValue {
    let mut text = String::with_capacity(statement.len());
    let mut letters = statement.chars().peekable();
    // Whether the last letter belongs to a name, or to the number of a parameter.
    let mut in_name = false;
    while let Some(letter) = letters.next() {
        match letter {
            '\'' => {
                text.push('?');
                // A doubled quote is one inside the literal; what stands behind it is taken for another literal, which is as well hidden.
                for inside in letters.by_ref() {
                    if inside == '\'' {
                        break;
                    }
                }
                in_name = false;
            }
            '"' => {
                text.push('"');
                for inside in letters.by_ref() {
                    text.push(inside);
                    if inside == '"' {
                        break;
                    }
                }
                in_name = false;
            }
            digit if digit.is_ascii_digit() && !in_name => {
                text.push('?');
                while letters.next_if(|next| next.is_ascii_alphanumeric() || *next == '.').is_some() {}
            }
            other => {
                text.push(other);
                in_name = other.is_alphanumeric() || other == '_' || other == '$';
            }
        }
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(set: &[(&str, &str)]) -> Result<Option<Wanted>, String> {
        let variable = |name: &str| set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Wanted::read(&variable).map_err(|failure| failure.to_string())
    }

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:secret@127.0.0.1:4318/base");

    #[test]
    fn traces_are_exported_when_an_endpoint_is_set() {
        assert_eq!(read(&[]), Ok(None));
        let wanted = read(&[ENDPOINT]).unwrap().unwrap();
        let expected = Wanted { collector: "http://127.0.0.1:4318".to_owned(), secure: false, timeout: PATIENCE };
        assert_eq!(wanted, expected);
        for off in [("OTEL_SDK_DISABLED", "TRUE"), ("OTEL_TRACES_EXPORTER", "none")] {
            assert_eq!(read(&[ENDPOINT, off]), Ok(None), "{off:?}");
        }
        let of_traces = [
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://collector.example/v1/traces"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "5000"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "250"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ];
        let wanted = read(&of_traces).unwrap().unwrap();
        assert!(wanted.secure && wanted.timeout == Duration::from_millis(250), "{wanted:?}");
    }

    #[test]
    fn a_mistake_is_told_before_the_service_starts() {
        for wrong in [
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "127.0.0.1:4318"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "ftp://127.0.0.1"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_TRACES_SAMPLER", "sometimes"),
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
        ] {
            let said = read(&[ENDPOINT, wrong]).unwrap_err();
            assert!(said.starts_with("Traces cannot be exported: ") && !said.contains("secret"), "{said}");
        }
        let far = [ENDPOINT, ("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "1.5")];
        assert!(read(&far).is_err());
    }

    #[test]
    fn no_value_stands_in_a_statement() {
        for (statement, told) in [
            ("SELECT \"a\".\"b1\" FROM \"t\" WHERE \"a\" = $1 AND b IN ($2, $30)", None),
            ("SELECT a1, b_2 FROM t WHERE x = ?", None),
            ("INSERT INTO t VALUES (?, ?)", None),
            ("SELECT 'it''s' || x WHERE n > 4.5 AND m=17", Some("SELECT ?? || x WHERE n > ? AND m=?")),
            ("WHERE id >= '0190-ab' LIMIT 100", Some("WHERE id >= ? LIMIT ?")),
            ("WHERE id = x'00ff' OR id = 0x1f", Some("WHERE id = x? OR id = ?")),
            ("WHERE a = 'open", Some("WHERE a = ?")),
        ] {
            assert_eq!(without_literals(statement).as_str(), told.unwrap_or(statement));
        }
    }

    #[test]
    fn every_attribute_has_one_name() {
        assert!(ATTRIBUTES.windows(2).all(|pair| pair[0].0 < pair[1].0), "keep them in order");
    }
}
