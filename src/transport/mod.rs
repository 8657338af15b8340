//! The edge: HTTP and WebSocket around the schema, and nothing of the market's rules.
//!
//! ```text
//! request ─ id ─ CORS ─┬─ /graphql ───── negotiate ─ who ─ guard ─┐
//!                      ├─ /graphql/ws ── init ─ who ─ guard ──────┼─► schema
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
pub mod guard;
mod http;
mod operation;
mod probe;
mod upload;
mod ws;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::{
    Router,
    extract::{Request, State},
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
    serve::ListenerExt,
};
use futures_util::FutureExt;
use tokio::{net::TcpListener, sync::Semaphore};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::{
    app::App,
    error::{Error, Result},
    graphql::{self, Schema},
};
use answer::{Fault, code};
use guard::Guard;
use probe::Readiness;

/// The header that names a request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Characters of a client's request id at most.
const MAX_REQUEST_ID: usize = 64;
/// How long requests that are under way at the shutdown may take to end.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(25);
/// How long a browser may remember that an origin is allowed.
const CORS_MAX_AGE: Duration = Duration::from_hours(1);

/// What the handlers share. Cheap to clone.
#[derive(Clone)]
struct Edge {
    app: App,
    schema: Schema,
    guard: Guard,
    readiness: Readiness,
    sockets: Arc<Semaphore>,
    sdl: Arc<str>,
}

impl Edge {
    fn fresh_request_id(&self) -> String {
        let store = self.app.store();
        store.entropy().uuid(store.clock().now()).to_string()
    }
}

/// The id of the request, the client's or a fresh one.
#[derive(Clone, Debug)]
struct RequestId(String);

/// All routes over one application.
pub fn router(app: App, schema: Schema) -> Router {
    let edge = Edge {
        guard: Guard::new(app.config().limits.clone()),
        readiness: Readiness::default(),
        sockets: Arc::new(Semaphore::new(ws::MAX_SOCKETS)),
        sdl: graphql::sdl().into(),
        schema,
        app,
    };
    let cors = cors(&edge.app.config().cors_origins);
    let router = Router::new()
        .route("/", get(assets::index))
        .route("/graphql", any(http::graphql))
        .route("/graphql/ws", any(ws::upgrade))
        .route("/graphql/schema.graphql", get(probe::schema))
        .route("/agents/{id}/module", put(upload::put))
        .route("/health", get(probe::health))
        .route("/ready", get(probe::ready))
        .route("/metrics", get(probe::metrics))
        .route("/.well-known/jwks.json", get(probe::jwks))
        .fallback(async || Err::<(), _>(Fault::new(StatusCode::NOT_FOUND, code::NOT_FOUND, "There is no such page.")))
        .method_not_allowed_fallback(async || {
            let message = "This page does not take this method.";
            Err::<(), _>(Fault::new(StatusCode::METHOD_NOT_ALLOWED, code::METHOD, message))
        })
        .layer(middleware::from_fn_with_state(edge.clone(), around))
        .with_state(edge);
    match cors {
        Some(cors) => router.layer(cors),
        None => router,
    }
}

/// Serves until the application stops, then lets what is under way end, for a bounded time.
pub async fn serve(app: App, listener: TcpListener) -> Result<()> {
    let schema = graphql::schema(&app);
    let stop = app.stop().clone();
    let router = router(app, schema);
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection keeps waiting for more to send");
        }
    });
    let ended = stop.clone();
    let serving = axum::serve(listener, router).with_graceful_shutdown(async move { ended.cancelled().await });
    tokio::select! {
        served = serving => served.map_err(Error::internal),
        () = async {
            stop.cancelled().await;
            tokio::time::sleep(SHUTDOWN_PATIENCE).await;
        } => {
            tracing::warn!("requests were still under way at the end of the shutdown");
            Ok(())
        }
    }
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
        .allow_headers([AUTHORIZATION, CONTENT_TYPE, REQUEST_ID])
        .expose_headers([REQUEST_ID, RETRY_AFTER])
        .max_age(CORS_MAX_AGE);
    Some(layer)
}

/// Around every request: its id, an answer even to a panic, and the headers that every response has.
async fn around(State(edge): State<Edge>, mut request: Request, next: Next) -> Response {
    let id = request_id(request.headers()).unwrap_or_else(|| edge.fresh_request_id());
    request.extensions_mut().insert(RequestId(id.clone()));
    let mut response = match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => match response.extensions().get::<Fault>() {
            Some(fault) => {
                let mut answer = fault.json(&id);
                answer.headers_mut().extend(response.headers().clone());
                answer
            }
            None => response,
        },
        Err(panic) => operation::panicked(panic.as_ref()).json(&id),
    };
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
