//! The edge: HTTP and WebSocket around the schema, and nothing of the market's rules.
//!
//! ```text
//! request ─ id ─ CORS ─┬─ /graphql ───── negotiate ─ who ─ document ─ guard ─┐
//!                      ├─ /graphql/ws ── init ─ who ─ document ─ guard ──────┼─► schema ─► JSON, event stream, messages
//!                      ├─ /agents/{id}/module ── who ─ owner ─ bytes ─► agent::set_module
//!                      └─ /health /ready /metrics …
//! ```
//!
//! What must always hold: no document reaches the parser or the executor that [`guard`] has not measured; every error has a
//! code, the request's id and says whether a retry can help; no text of an internal error leaves; every body, queue, wait and
//! number of operations has a bound; and what a client sees of a shutdown is a code on which it connects again.

mod answer;
mod assets;
mod auth;
mod budget;
mod cost;
mod document;
pub mod guard;
mod http;
mod integers;
mod listen;
mod live;
mod operation;
mod passed;
mod places;
mod probe;
mod sse;
mod tls;
mod trail;
mod upload;
mod ws;

use std::net::IpAddr;
use std::ops::Deref;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
        header::{
            AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, REFERRER_POLICY, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
            X_FRAME_OPTIONS,
        },
    },
    middleware::{self, Next},
    response::Response,
    routing::{any, get, put},
};
use futures_util::FutureExt;
use tokio::{
    net::TcpListener,
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::sync::CancellationToken;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tracing::{Instrument, Span, field::Empty};

use crate::{
    app::App,
    config::Limits,
    error::{Error, Result},
    graphql::{self, Schema},
    metrics::{self, Limited, SocketKind},
    trace::{self, Parent},
};
use answer::{Fault, code};
pub use assets::has_console;
use budget::Budgets;
use document::Documents;
use listen::House;
use live::Shapes;
use passed::Passed;
use places::{Holder, Place, Places};
use probe::{Probe, Readiness};
use tls::Certificate;

/// The header that names a request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The headers by which a caller says to which trace a request belongs.
const TRACEPARENT: HeaderName = HeaderName::from_static(trace::TRACEPARENT);
const TRACESTATE: HeaderName = HeaderName::from_static(trace::TRACESTATE);
/// Routes that are asked all the time, about the process and nothing else. Nothing is told of them.
const PROBES: &[&str] = &["/health", "/ready", "/metrics"];
/// Characters of a client's request id at most.
const MAX_REQUEST_ID: usize = 64;
/// The header by which a client says how far it has come in an event stream.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// What a caller may still spend, and how a bucket works, as the draft of rate limit headers has them.
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// How long a browser may remember that an origin is allowed.
const CORS_MAX_AGE: Duration = Duration::from_hours(1);

/// What the handlers share. Cheap to clone.
#[derive(Clone)]
struct Edge(Arc<Parts>);

/// What every request shares.
struct Parts {
    app: App,
    schema: Schema,
    passed: Passed,
    documents: Documents,
    readiness: Readiness,
    /// Queries and mutations that run, by caller.
    requests: Places,
    /// What callers may spend.
    budgets: Budgets,
    /// What is followed by more than one.
    shapes: Shapes,
    /// Room for sockets and event streams.
    room: Arc<Semaphore>,
    /// Sockets and event streams, by user.
    streams: Places,
    /// Sockets and event streams, by where they come from.
    networks: Places,
    address_header: Option<HeaderName>,
    sdl: Arc<str>,
}

/// A socket or an event stream, as it counts.
struct Open {
    _room: OwnedSemaphorePermit,
    _network: Place,
    _counted: metrics::Open,
}

impl Deref for Edge {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl Edge {
    fn fresh_request_id(&self) -> String {
        let store = self.app.store();
        store.entropy().uuid(store.clock().now()).to_string()
    }

    fn limits(&self) -> &Limits {
        &self.app.config().limits
    }

    /// Takes a place for a socket or an event stream.
    fn open(&self, origin: Origin, kind: SocketKind) -> std::result::Result<Open, Fault> {
        let most = self.limits().sockets_per_address;
        let network = self.networks.take(Holder::at(origin), most);
        let network = network.ok_or_else(|| {
            self.app.metrics().limited(Limited::Addresses);
            Fault::crowded(format!("One address may have {most} streams open."))
        })?;
        match Arc::clone(&self.room).try_acquire_owned() {
            Ok(room) if !self.app.stop().is_cancelled() => {
                Ok(Open { _room: room, _network: network, _counted: self.app.metrics().socket(kind) })
            }
            Ok(_) | Err(_) => Err(Error::Unavailable("No more connections are taken now.").into()),
        }
    }

    /// Where a request comes from: what the proxy says if one is configured, and otherwise the other end of the connection.
    fn origin(&self, request: &Request) -> Origin {
        let named = self.address_header.as_ref().and_then(|name| {
            let last = request.headers().get_all(name).iter().next_back()?.to_str().ok()?.rsplit(',').next()?;
            last.trim().parse().ok()
        });
        Origin(named.or_else(|| request.extensions().get::<Peer>().map(|Peer(address)| *address)))
    }
}

/// The other end of the connection.
#[derive(Clone, Copy, Debug)]
struct Peer(IpAddr);

/// Where a request comes from, if that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Origin(Option<IpAddr>);

/// The id of the request, the client's or a fresh one.
#[derive(Clone, Debug)]
struct RequestId(String);

/// All routes over one application.
pub fn router(app: App, schema: Schema) -> Result<Router> {
    let config = app.config();
    let address_header = config.http.address_header.as_deref().map(HeaderName::try_from).transpose();
    let sdl = graphql::sdl();
    let edge = Edge(Arc::new(Parts {
        documents: Documents::open(config)?,
        readiness: Readiness::default(),
        requests: Places::default(),
        budgets: Budgets::new(config.limits.points, config.limits.points_per_second),
        shapes: Shapes::default(),
        room: Arc::new(Semaphore::new(config.limits.sockets.min(Semaphore::MAX_PERMITS))),
        streams: Places::default(),
        networks: Places::default(),
        address_header: address_header.map_err(Error::internal)?,
        passed: Passed::new(graphql::schema_of_the_valid(&app), &sdl)?,
        sdl: sdl.into(),
        schema,
        app,
    }));
    let cors = cors(&edge.app.config().cors_origins);
    let aside = edge.app.config().http.metrics_address.is_some();
    let public_metrics = if aside { Router::new() } else { Router::new().route("/metrics", get(probe::metrics)) };
    let router = Router::new()
        .route("/", get(assets::index))
        .route("/console", get(assets::console))
        .route("/graphiql", get(assets::graphiql))
        .route("/lite", get(assets::small_page))
        .route("/lite.js", get(assets::small_script))
        .route("/assets/{name}", get(assets::part))
        .route("/licences.md", get(assets::licences))
        .route("/graphql", any(http::graphql))
        .route("/graphql/ws", any(ws::upgrade))
        .route("/graphql/schema.graphql", get(probe::schema))
        .route("/agents/{id}/module", put(upload::put))
        .route("/health", get(probe::health))
        .route("/ready", get(probe::ready))
        .route("/.well-known/jwks.json", get(probe::jwks))
        .fallback(async || Err::<(), _>(Fault::new(StatusCode::NOT_FOUND, code::NOT_FOUND, "There is no such page.")))
        .merge(public_metrics)
        .method_not_allowed_fallback(async || {
            let message = "This page does not take this method.";
            Err::<(), _>(Fault::new(StatusCode::METHOD_NOT_ALLOWED, code::METHOD, message))
        })
        .layer(middleware::from_fn_with_state(edge.clone(), around))
        .with_state(edge);
    Ok(match cors {
        Some(cors) => router.layer(cors),
        None => router,
    })
}

/// Serves until the application stops, then lets what is under way end, for a bounded time.
pub async fn serve(app: App, listener: TcpListener) -> Result<()> {
    let router = router(app.clone(), graphql::schema(&app))?;
    let http = &app.config().http;
    let certificate = http.tls.clone().map(Certificate::open).transpose()?;
    if let Some(certificate) = certificate.clone() {
        app.tracker().spawn(certificate.keep(app.stop()));
    }
    let base = http.public_url.as_ref().map_or("", |url| url.path().trim_end_matches('/')).into();
    let (limits, patience) = (app.config().limits.clone(), app.config().shutdown_patience);
    listen::accept(listener, House { router, limits, certificate, base, patience }, app.stop()).await;
    Ok(())
}

/// Serves metrics, health and readiness alone, for those who watch the service, until `stop`.
pub async fn serve_metrics(app: App, listener: TcpListener, stop: CancellationToken) {
    let (limits, patience) = (app.config().limits.clone(), app.config().shutdown_patience);
    let router = Router::new()
        .route("/health", get(probe::health))
        .route("/ready", get(probe::ready))
        .route("/metrics", get(probe::metrics))
        .with_state(Probe { app, readiness: Readiness::default() });
    listen::accept(listener, House { router, limits, certificate: None, base: "".into(), patience }, stop).await;
}

/// The origins whose pages may call; `*` lets any. Calls carry tokens and never cookies, so an origin gains nothing by itself.
fn cors(origins: &[String]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().filter_map(|origin| HeaderValue::from_str(origin.trim_end_matches('/')).ok()))
    };
    let layer = CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST, Method::PUT])
        .allow_headers([AUTHORIZATION, CONTENT_TYPE, LAST_EVENT_ID, REQUEST_ID, TRACEPARENT, TRACESTATE])
        .expose_headers([REQUEST_ID, RETRY_AFTER, RATE_LIMIT, RATE_LIMIT_POLICY])
        .max_age(CORS_MAX_AGE);
    Some(layer)
}

/// Around every request: its id, an answer even to a panic, and the headers that every response has.
async fn around(State(edge): State<Edge>, mut request: Request, next: Next) -> Response {
    let id = request_id(request.headers()).unwrap_or_else(|| edge.fresh_request_id());
    let origin = edge.origin(&request);
    let span = span_of(&request, &id);
    request.extensions_mut().insert(RequestId(id.clone()));
    request.extensions_mut().insert(origin);
    let answer = async {
        match AssertUnwindSafe(next.run(request)).catch_unwind().await {
            Ok(response) => match response.extensions().get::<Fault>() {
                Some(fault) => {
                    let mut answer = fault.json(&id);
                    answer.headers_mut().extend(response.headers().clone());
                    answer
                }
                None => response,
            },
            Err(panic) => operation::panicked(panic.as_ref()).json(&id),
        }
    };
    let mut response = answer.instrument(span.clone()).await;
    span.record("http.response.status_code", i64::from(response.status().as_u16()));
    if response.status().is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// The span of a request, which goes on with the trace of its caller.
fn span_of(request: &Request, id: &str) -> Span {
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    if route.is_some_and(|route| PROBES.contains(&route)) {
        return Span::none();
    }
    // The names of other methods are for the client to choose.
    let known = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::OPTIONS, Method::DELETE, Method::PATCH];
    let method = if known.contains(request.method()) { request.method().as_str() } else { "_OTHER" };
    let span = tracing::info_span!(
        target: trace::ROOT,
        "request",
        "otel.kind" = "server",
        "otel.name" = format_args!("{method} {}", route.unwrap_or("*")),
        "otel.status_code" = Empty,
        "http.request.method" = method,
        "http.route" = route,
        "http.response.status_code" = Empty,
        request_id = id,
        trace_id = Empty,
        span_id = Empty,
    );
    trace::begin(&span, &parent(request.headers()));
    span
}

/// The span of the caller, as the headers name it.
fn parent(headers: &HeaderMap) -> Parent {
    let mut parents = headers.get_all(TRACEPARENT).iter();
    let Some(Ok(parent)) = parents.next().map(HeaderValue::to_str) else { return Parent::default() };
    if parents.next().is_some() {
        return Parent::default();
    }
    let states: Vec<&str> = headers.get_all(TRACESTATE).iter().filter_map(|value| value.to_str().ok()).collect();
    Parent::read(Some(parent), Some(states.join(",").as_str()))
}

/// The client's id of the request, if it is one that can stand in a header and in a log line.
fn request_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(REQUEST_ID)?.to_str().ok()?;
    let plain = !id.is_empty() && id.len() <= MAX_REQUEST_ID && id.bytes().all(|byte| byte.is_ascii_graphic());
    plain.then(|| id.to_owned())
}

impl axum::response::IntoResponse for Fault {
    /// The status alone; what [`around`] knows of the request is added there.
    fn into_response(self) -> Response {
        let mut response = Response::default();
        *response.status_mut() = self.status;
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_is_short_and_visible() {
        let of = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_str(value).unwrap());
            request_id(&headers)
        };
        assert_eq!(of("abc-123").as_deref(), Some("abc-123"));
        assert_eq!(of(&"x".repeat(64)).map(|id| id.len()), Some(64));
        for wrong in ["", "a b", "é", &"x".repeat(65)] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }
}
