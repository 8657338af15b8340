//! What is asked about the process: whether it lives, whether it can work, its metrics, its public keys and its schema.

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::{
    extract::{FromRef, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::{
    Edge,
    answer::{self, Fault},
};
use crate::{
    app::App,
    error::{Error, Result},
    store::Following,
};

/// How long one look at the database is good for: probes come often and from several sides.
const DATABASE_GOOD_FOR: Duration = Duration::from_secs(1);
/// How long the database may take to answer.
const DATABASE_PATIENCE: Duration = Duration::from_secs(1);

/// What the probes ask. Cheap to clone.
#[derive(Clone)]
pub(super) struct Probe {
    pub(super) app: App,
    pub(super) readiness: Readiness,
}

impl FromRef<Edge> for Probe {
    fn from_ref(edge: &Edge) -> Self {
        Self { app: edge.app.clone(), readiness: edge.readiness.clone() }
    }
}

/// What was found out lately. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Readiness {
    database: Arc<Mutex<Option<Looked>>>,
}

/// One look at the database.
struct Looked {
    at: Instant,
    checks: Vec<Check>,
}

/// One thing that has to be right before requests are sent here.
#[derive(Clone, Debug)]
struct Check {
    name: &'static str,
    /// What is wrong, if anything is.
    fault: Option<String>,
    /// What there is to know that keeps no request away.
    note: Option<String>,
    millis: u64,
}

impl Check {
    fn new(name: &'static str, started: Instant, fault: Option<String>) -> Self {
        let millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Self { name, fault, note: None, millis }
    }

    fn json(&self) -> Value {
        match (&self.fault, &self.note) {
            (None, None) => json!({ "name": self.name, "status": "ok", "ms": self.millis }),
            (None, Some(note)) => json!({ "name": self.name, "status": "ok", "ms": self.millis, "note": note }),
            (Some(fault), _) => json!({ "name": self.name, "status": "failed", "ms": self.millis, "reason": fault }),
        }
    }
}

impl Readiness {
    async fn checks(&self, app: &App) -> Vec<Check> {
        let draining = app.is_draining().then(|| "the process is shutting down".to_owned());
        let mut checks = vec![Check::new("draining", Instant::now(), draining)];
        checks.extend(self.database(app).await);
        checks.push(books(app).await);
        checks.extend(replica(app));
        checks
    }

    /// Whoever asks while somebody looks waits for what they see.
    async fn database(&self, app: &App) -> Vec<Check> {
        let mut known = self.database.lock().await;
        match &*known {
            Some(looked) if looked.at.elapsed() < DATABASE_GOOD_FOR => looked.checks.clone(),
            Some(_) | None => {
                let checks = vec![ping(app).await, migrations(app).await];
                *known = Some(Looked { at: Instant::now(), checks: checks.clone() });
                checks
            }
        }
    }
}

async fn ping(app: &App) -> Check {
    let started = Instant::now();
    let fault = match tokio::time::timeout(DATABASE_PATIENCE, app.store().ping()).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => {
            tracing::warn!(%error, "the database does not answer");
            Some("the database does not answer".to_owned())
        }
        Err(_) => Some("the database does not answer in time".to_owned()),
    };
    Check::new("database", started, fault)
}

async fn migrations(app: &App) -> Check {
    let started = Instant::now();
    let fault = match tokio::time::timeout(DATABASE_PATIENCE, app.store().difference()).await {
        Ok(Ok(schema)) if schema.pending.is_empty() => None,
        Ok(Ok(schema)) => Some(format!("not applied: {}", schema.pending.join(", "))),
        Ok(Err(_)) | Err(_) => Some("the database does not say".to_owned()),
    };
    Check::new("migrations", started, fault)
}

/// The newest audit of the books. The process makes one every so often; only before its first is one made here.
async fn books(app: &App) -> Check {
    let started = Instant::now();
    let audit = match app.last_audit() {
        Some(audit) => Ok(audit),
        None => app.audit().await,
    };
    let fault = match audit {
        Ok(audit) if audit.ok() => None,
        Ok(audit) => {
            let broken: Vec<&str> = audit.checks.iter().filter(|it| it.violations > 0).map(|it| it.name).collect();
            Some(format!("the books break {}", broken.join(", ")))
        }
        Err(error) => {
            tracing::warn!(%error, "the books cannot be audited");
            Some("the books cannot be read".to_owned())
        }
    };
    Check::new("ledger", started, fault)
}

/// The copy of the database for reading, if there is one. The service does without it.
fn replica(app: &App) -> Option<Check> {
    let note = match app.store().following()? {
        Following::Close(lag) => format!("it is {} ms behind at most", lag.as_millis()),
        Following::Behind => "it is too far behind; nobody reads there".to_owned(),
        // Why is for the log.
        Following::Away(_) => "it does not answer; nobody reads there".to_owned(),
    };
    Some(Check { note: Some(note), ..Check::new("replica", Instant::now(), None) })
}

/// `GET /health`: the process lives. It asks nothing of anything, so that a slow database does not get the process killed.
pub(super) async fn health() -> &'static str {
    "ok\n"
}

/// `GET /ready`: whether requests should be sent here, and if not, why.
pub(super) async fn ready(State(probe): State<Probe>) -> Response {
    let checks = probe.readiness.checks(&probe.app).await;
    let ready = checks.iter().all(|check| check.fault.is_none());
    let (status, word) = if ready { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready") };
    let checks: Vec<Value> = checks.iter().map(Check::json).collect();
    answer::body(status, answer::JSON, &json!({ "status": word, "checks": checks }))
}

/// `GET /metrics`, in the text format of Prometheus, compressed for whoever takes gzip, as Prometheus does.
pub(super) async fn metrics(State(probe): State<Probe>, headers: HeaderMap) -> Response {
    const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
    let packed = takes_gzip(&headers);
    let rendered = probe.app.metrics().render().and_then(|text| {
        let bytes = if packed { gzip(text.as_bytes())? } else { text.into_bytes() };
        Ok(([(header::CONTENT_TYPE, TEXT), (header::VARY, "accept-encoding")], bytes).into_response())
    });
    match rendered {
        Ok(mut response) => {
            if packed {
                response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
            response
        }
        Err(error) => Fault::from(error).into_response(),
    }
}

/// Whether a client takes gzip: it names it, and not with a weight of nothing.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let named = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    named.flat_map(|value| value.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, "q=1"));
        name.trim().eq_ignore_ascii_case("gzip") && !matches!(weight.trim(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000")
    })
}

fn gzip(text: &[u8]) -> Result<Vec<u8>> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
    packer.write_all(text).and_then(|()| packer.finish()).map_err(Error::internal)
}

/// `GET /.well-known/jwks.json`: the keys that access tokens are signed with.
pub(super) async fn jwks(State(edge): State<Edge>) -> Response {
    let mut response = answer::body(StatusCode::OK, answer::JSON, &edge.app.auth().jwks());
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
    response
}

/// `GET /graphql/schema.graphql`: the contract.
pub(super) async fn schema(State(edge): State<Edge>) -> Response {
    typed("text/plain; charset=utf-8", edge.sdl.to_string())
}

fn typed(media_type: &'static str, text: String) -> Response {
    ([(header::CONTENT_TYPE, media_type)], text).into_response()
}
