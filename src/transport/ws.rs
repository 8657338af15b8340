//! GraphQL over WebSocket by the protocol
//! [graphql-transport-ws](https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md).
//!
//! ```text
//! upgrade ─ connection_init ─► ack ─ subscribe ─► next … complete | error
//!              4408 4403          └ a task per operation ─► bounded queue ─► writer ─ deadline ─► client
//! ```
//!
//! One task reads, one writes, and each operation has its own, so that no operation delays another, a ping or the end. An
//! operation whose client does not read waits at the bounded queue; the log of events waits for it. A client that takes nothing
//! for the patience for sending is let go and may resume from its last cursor.
//!
//! Whoever the token names is asked again with every operation and every so often, so that signing out ends what a socket
//! may do. At the shutdown no operation is completed, because a client takes that for the end of the stream: the socket is
//! closed with 1012, on which clients connect again.
//!
//! | code | when | clients of graphql-ws |
//! |---|---|---|
//! | 1009 | a message is longer than `message_bytes` | end |
//! | 1012 | the process ends | connect again |
//! | 1013 | the caller has `sockets_per_caller`, or the database does not answer | connect again |
//! | 4400 | a message is none of the protocol | end |
//! | 4401 | an operation before the acknowledgement, a token that ended or was revoked | end |
//! | 4403 | a token that is none, or of somebody else than before | connect again |
//! | 4406 | the handshake does not offer graphql-transport-ws | end |
//! | 4408 | no `connection_init` in time | connect again |
//! | 4409 | an operation with the id of one that runs | end |
//! | 4429 | a second `connection_init` | end |
//! | 4499 | no sign of life for `silence` | connect again |
//! | 4500 | we failed | end |

use std::collections::HashMap;
use std::future::ready;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_graphql::parser::types::OperationType;
use axum::{
    extract::{
        Extension, State,
        ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, rejection::WebSocketUpgradeRejection},
    },
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use futures_util::{
    FutureExt, SinkExt, StreamExt,
    future::BoxFuture,
    stream::{SplitSink, SplitStream},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, field::Empty};

use super::{
    Edge, Open, Origin, RequestId,
    answer::{Fault, code, is_request_error},
    auth,
    live::{Following, Stopped},
    operation::{Parameters, panicked, parent_of},
    places::{Holder, Place},
};
use crate::{
    caller::Caller,
    config::Limits,
    error::Error,
    metrics::{Limited, SocketKind},
    trace::{self, Parent},
};

/// The one sub-protocol that is spoken.
const PROTOCOL: &str = "graphql-transport-ws";
/// Characters of an operation's id at most.
const MAX_ID: usize = 128;
/// How long the other side may take to answer the end of the conversation.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

/// Why a socket is closed: the code that clients decide by, and a word for people.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Close(u16, String);

impl Close {
    /// The shutdown; clients connect again.
    fn restart() -> Self {
        Self(1012, "Service restart".to_owned())
    }

    fn too_big() -> Self {
        Self(1009, "Message too big".to_owned())
    }

    /// Nothing is wrong with the client; it may try again.
    fn later(why: &str) -> Self {
        Self(1013, why.to_owned())
    }

    fn bad_message(why: &str) -> Self {
        Self(4400, why.to_owned())
    }

    fn unauthorized(why: &str) -> Self {
        Self(4401, why.to_owned())
    }

    fn forbidden() -> Self {
        Self(4403, "Forbidden".to_owned())
    }

    fn wrong_protocol() -> Self {
        Self(4406, "Subprotocol not acceptable".to_owned())
    }

    fn init_timeout() -> Self {
        Self(4408, "Connection initialisation timeout".to_owned())
    }

    fn duplicate(id: &str) -> Self {
        Self(4409, format!("Subscriber for {id} already exists"))
    }

    fn second_init() -> Self {
        Self(4429, "Too many initialisation requests".to_owned())
    }

    /// The client gave no sign of life.
    fn silent() -> Self {
        Self(4499, "Terminated".to_owned())
    }

    /// We failed.
    fn internal() -> Self {
        Self(4500, "Internal server error".to_owned())
    }

    fn frame(self) -> Message {
        // The reason of a close frame has 123 bytes; a longer one makes the frame invalid.
        let mut reason = self.1;
        while reason.len() > 123 {
            reason.pop();
        }
        Message::Close(Some(CloseFrame { code: self.0, reason: reason.into() }))
    }
}

/// What clients say.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Incoming {
    ConnectionInit {
        #[serde(default)]
        payload: Option<Map<String, Value>>,
    },
    Ping {
        #[serde(default)]
        payload: Option<Map<String, Value>>,
    },
    Pong {
        #[serde(default, rename = "payload")]
        _payload: Option<Map<String, Value>>,
    },
    Subscribe {
        id: String,
        payload: Parameters,
    },
    Complete {
        id: String,
    },
}

/// The handler of `/graphql/ws`.
pub(super) async fn upgrade(
    State(edge): State<Edge>,
    Extension(RequestId(id)): Extension<RequestId>,
    Extension(origin): Extension<Origin>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => {
            let status = rejection.into_response().status();
            let message = format!("This page speaks WebSocket with the sub-protocol {PROTOCOL}.");
            return Fault::new(status, code::BAD_USER_INPUT, message).json(&id);
        }
    };
    let header_token = match auth::bearer(&headers) {
        Ok(token) => token,
        Err(error) => return Fault::from(error).json(&id),
    };
    let open = match edge.open(origin, SocketKind::WebSocket) {
        Ok(open) => open,
        Err(fault) => return fault.json(&id),
    };
    let limit = edge.limits().message_bytes;
    let upgrade = upgrade.protocols([PROTOCOL]).max_message_size(limit).max_frame_size(limit);
    let upgrade = upgrade.read_buffer_size(READ_BUFFER).write_buffer_size(WRITE_BUFFER);
    let spoken = upgrade.selected_protocol().is_some();
    let tracker = edge.app.tracker().clone();
    // The request ends with the answer to it; the lines that the socket leaves in the log have its id all the same.
    let span = tracing::info_span!(target: trace::LOG, parent: None, "socket", request_id = id);
    let arrived = Arrived { header_token, origin, parent: super::parent(&headers) };
    // In a task of its own: the one that waits for the upgrade keeps what it needed for that until its end.
    upgrade.on_upgrade(move |socket| {
        tracker.spawn(talk(edge, socket, spoken, arrived, open).instrument(span));
        ready(())
    })
}

/// Bytes that a socket keeps for reading, whether there is anything to read or not. Clients say little, and there are many of them; a
/// longer message has a buffer of its own.
const READ_BUFFER: usize = 1024;
/// Bytes that are gathered before they are sent; each message is sent at once all the same.
const WRITE_BUFFER: usize = 16 * 1024;

/// What the request for a socket said.
struct Arrived {
    header_token: Option<String>,
    origin: Origin,
    parent: Parent,
}

/// The whole life of a socket.
async fn talk(edge: Edge, socket: WebSocket, spoken: bool, arrived: Arrived, open: Open) {
    let Arrived { header_token, origin, parent } = arrived;
    let Limits { queue, send_patience, .. } = *edge.limits();
    let (sink, mut stream) = socket.split();
    let (outbound, queued) = mpsc::channel(queue.max(1));
    let gone = CancellationToken::new();
    let writer = edge.app.tracker().spawn(write(sink, queued, send_patience, gone.clone()));
    let mut conversation = Conversation {
        edge,
        outbound,
        gone,
        header_token,
        origin,
        parent,
        signed_in: None,
        operations: Operations::default(),
        tasks: JoinSet::new(),
    };
    let close = if spoken {
        to_the_end(Box::pin(conversation.listen(&mut stream))).await
    } else {
        Some(Close::wrong_protocol())
    };
    conversation.tasks.shutdown().await;
    if let Some(close) = close {
        let _ = timeout(send_patience, conversation.send(close.frame())).await;
    }
    drop(conversation);
    let writing = writer.abort_handle();
    if timeout(send_patience, writer).await.is_err() {
        writing.abort();
    }
    // The close frame is lost when the connection goes before the other side has taken it.
    let _ = timeout(CLOSE_PATIENCE, async { while let Some(Ok(_)) = stream.next().await {} }).await;
    drop(open);
}

/// A conversation up to its end, which a panic of ours is too.
async fn to_the_end(conversation: impl Future<Output = Option<Close>>) -> Option<Close> {
    AssertUnwindSafe(conversation).catch_unwind().await.unwrap_or_else(|panic| {
        // It is logged there; nobody is told more than that it happened.
        drop(panicked(panic.as_ref()));
        Some(Close::internal())
    })
}

/// Sends what is queued, each message within `patience`.
async fn write(
    mut sink: SplitSink<WebSocket, Message>,
    mut queue: mpsc::Receiver<Message>,
    patience: Duration,
    gone: CancellationToken,
) {
    while let Some(message) = queue.recv().await {
        let last = matches!(message, Message::Close(_));
        if !matches!(timeout(patience, sink.send(message)).await, Ok(Ok(()))) {
            break;
        }
        if last {
            break;
        }
    }
    gone.cancel();
}

/// Who the socket speaks for.
struct SignedIn {
    /// `None` for nobody in particular.
    token: Option<String>,
    caller: Caller,
    warned: bool,
    /// Among the sockets of the caller.
    _place: Place,
}

/// The state of one socket.
struct Conversation {
    edge: Edge,
    outbound: mpsc::Sender<Message>,
    /// The writer gave the client up.
    gone: CancellationToken,
    header_token: Option<String>,
    origin: Origin,
    /// The span of the client, as the request or `connection_init` named it.
    parent: Parent,
    /// `None` before `connection_init`.
    signed_in: Option<SignedIn>,
    operations: Operations,
    /// Ends with the conversation.
    tasks: JoinSet<()>,
}

impl Conversation {
    /// Listens until the conversation ends; `None` when the client ended it.
    async fn listen(&mut self, stream: &mut SplitStream<WebSocket>) -> Option<Close> {
        let stop = self.edge.app.stop().clone();
        let gone = self.gone.clone();
        let limits = self.edge.limits().clone();
        let init_deadline = Instant::now() + limits.init_patience;
        let (mut ping, mut recheck) = (interval(limits.ping), interval(limits.recheck));
        for ticks in [&mut ping, &mut recheck] {
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks.reset();
        }
        let mut heard = Instant::now();
        loop {
            let warned = self.signed_in.as_ref().is_some_and(|it| it.warned);
            let expiry = auth::approaching(
                self.edge.app.store().clock().clone(),
                self.signed_in.as_ref().and_then(|it| auth::end(&it.caller)),
                if warned { Duration::ZERO } else { limits.expiry_warning },
            );
            tokio::select! {
                () = stop.cancelled() => return Some(Close::restart()),
                () = gone.cancelled() => return None,
                () = sleep_until(init_deadline), if self.signed_in.is_none() => return Some(Close::init_timeout()),
                left = expiry => {
                    if left.is_zero() {
                        return Some(Close::unauthorized("The token has expired"));
                    }
                    self.warn(left).await;
                }
                _ = ping.tick() => {
                    if heard.elapsed() > limits.silence {
                        return Some(Close::silent());
                    }
                    self.send(Message::Ping(Vec::new().into())).await;
                }
                _ = recheck.tick() => {
                    if let Err(close) = Box::pin(self.recheck()).await {
                        return Some(close);
                    }
                }
                Some(_) = self.tasks.join_next() => {}
                message = stream.next() => {
                    heard = Instant::now();
                    // Boxed: what a message sets in motion is large and soon over, and the socket lives long.
                    match Box::pin(self.hear(message?)).await {
                        Ok(true) => {}
                        Ok(false) => return None,
                        Err(close) => return Some(close),
                    }
                }
            }
        }
    }

    /// Takes one message in; `false` when it was the client's last.
    async fn hear(&mut self, message: Result<Message, axum::Error>) -> Result<bool, Close> {
        match message {
            Ok(Message::Text(text)) => {
                let incoming =
                    serde_json::from_str(&text).map_err(|_| Close::bad_message("Invalid message received"))?;
                self.act(incoming).await.map(|()| true)
            }
            Ok(Message::Binary(_)) => Err(Close::bad_message("Messages must be text")),
            Ok(Message::Ping(_) | Message::Pong(_)) => Ok(true),
            Err(error) if error.to_string().contains("too long") => Err(Close::too_big()),
            Ok(Message::Close(_)) | Err(_) => Ok(false),
        }
    }

    async fn act(&mut self, incoming: Incoming) -> Result<(), Close> {
        match incoming {
            Incoming::ConnectionInit { payload } => self.init(payload.unwrap_or_default()).await,
            Incoming::Ping { payload } => {
                self.renew(payload.as_ref()).await?;
                let pong = match payload {
                    Some(payload) if !payload.contains_key("authorization") => {
                        json!({ "type": "pong", "payload": payload })
                    }
                    Some(_) | None => json!({ "type": "pong" }),
                };
                self.send(text(&pong)).await;
                Ok(())
            }
            Incoming::Pong { .. } => Ok(()),
            Incoming::Subscribe { id, payload } => self.subscribe(id, payload).await,
            Incoming::Complete { id } => {
                self.operations.abort(&id);
                Ok(())
            }
        }
    }

    /// `connection_init`: the token is in the payload, because browsers cannot set headers on a WebSocket, or in the header.
    async fn init(&mut self, payload: Map<String, Value>) -> Result<(), Close> {
        if self.signed_in.is_some() {
            return Err(Close::second_init());
        }
        self.parent = parent_of(&payload).or(&self.parent);
        let token = match token_of(&payload) {
            Ok(Some(token)) => Some(token),
            Ok(None) => self.header_token.take(),
            Err(NotText) => return Err(Close::forbidden()),
        };
        let caller = match auth::caller(&self.edge.app, token.as_deref()).await {
            Ok(caller) => caller,
            Err(Error::Unauthenticated(_)) => return Err(Close::forbidden()),
            Err(error) => {
                tracing::warn!(%error, "a socket could not be signed in");
                return Err(Close::later("Try again later"));
            }
        };
        let most = self.edge.limits().sockets_per_caller;
        let Some(place) = self.edge.streams.take(caller.user_id().map(Holder::User), most) else {
            self.edge.app.metrics().limited(Limited::Streams);
            return Err(Close::later("Too many connections; try again later"));
        };
        self.signed_in = Some(SignedIn { token, caller, warned: false, _place: place });
        self.send(text(&json!({ "type": "connection_ack" }))).await;
        Ok(())
    }

    /// A `ping` may carry a new token of the same user, so that a stream can outlive its first one.
    async fn renew(&mut self, payload: Option<&Map<String, Value>>) -> Result<(), Close> {
        let (Some(signed_in), Some(Ok(Some(token)))) = (&mut self.signed_in, payload.map(token_of)) else {
            return Ok(());
        };
        match auth::caller(&self.edge.app, Some(&token)).await {
            Ok(caller) if caller.user_id() == signed_in.caller.user_id() => {
                signed_in.token = Some(token);
                signed_in.caller = caller;
                signed_in.warned = false;
                Ok(())
            }
            Ok(_) | Err(Error::Unauthenticated(_)) => Err(Close::forbidden()),
            // The old token is good for a while; the client will try again.
            Err(_) => Ok(()),
        }
    }

    /// Whether the credentials are still good.
    async fn recheck(&mut self) -> Result<(), Close> {
        let Some(SignedIn { token: Some(token), caller, .. }) = &mut self.signed_in else { return Ok(()) };
        match auth::again(&self.edge.app, token).await {
            Ok(Some(fresh)) => *caller = fresh,
            Ok(None) => {}
            Err(_) => return Err(Close::unauthorized("The token is no longer valid")),
        }
        Ok(())
    }

    async fn warn(&mut self, left: Duration) {
        if let Some(signed_in) = &mut self.signed_in {
            signed_in.warned = true;
        }
        let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        self.send(text(&json!({ "type": "ping", "payload": { "type": "token_expiring", "inMs": left } }))).await;
    }

    async fn subscribe(&mut self, id: String, parameters: Parameters) -> Result<(), Close> {
        if self.signed_in.is_none() {
            return Err(Close::unauthorized("Unauthorized"));
        }
        if id.is_empty() || id.len() > MAX_ID {
            return Err(Close::bad_message("The id of an operation has 1 to 128 characters"));
        }
        if self.operations.contains(&id) {
            return Err(Close::duplicate(&id));
        }
        self.recheck().await?;
        let Some(SignedIn { caller, .. }) = &self.signed_in else { return Ok(()) };
        let caller = caller.clone();
        let request_id = self.edge.fresh_request_id();
        let limit = self.edge.limits().operations_per_socket;
        if self.operations.len() >= limit {
            let message = format!("One socket takes {limit} operations at a time.");
            let fault = Fault::of_graphql(code::LIMIT, message, Vec::new());
            self.send(text(&json!({ "type": "error", "id": id, "payload": [fault.entry(&request_id)] }))).await;
            return Ok(());
        }
        let running = Running {
            edge: self.edge.clone(),
            outbound: self.outbound.clone(),
            operations: self.operations.clone(),
            origin: self.origin,
            id: id.clone(),
            request_id,
        };
        let span = tracing::info_span!(
            target: trace::ROOT,
            parent: None,
            "request",
            "otel.kind" = "server",
            "otel.name" = "WS /graphql/ws",
            "http.route" = "/graphql/ws",
            request_id = running.request_id,
            trace_id = Empty,
            span_id = Empty,
        );
        trace::begin(&span, &parameters.parent().or(&self.parent));
        // The operation cannot end, and take itself off the list, before it is on it.
        let mut listed = self.operations.lock();
        let serial = listed.next();
        // Boxed: what it begins with is soon used up, and its task lives long.
        let beginning = Box::new((parameters, caller));
        let task = self.tasks.spawn(running.run(serial, beginning).instrument(span));
        listed.running.insert(id, (serial, task));
        Ok(())
    }

    /// Queues a message; nothing when the client is gone.
    async fn send(&self, message: Message) {
        tokio::select! {
            _ = self.outbound.send(message) => {}
            () = self.gone.cancelled() => {}
        }
    }
}

/// An `authorization` that is no text.
struct NotText;

/// The token in a payload, with or without "Bearer".
fn token_of(payload: &Map<String, Value>) -> Result<Option<String>, NotText> {
    match payload.get("authorization").or_else(|| payload.get("Authorization")) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(value)) => {
            let token = auth::strip_scheme(value).unwrap_or_else(|| value.trim());
            Ok((!token.is_empty()).then(|| token.to_owned()))
        }
        Some(_) => Err(NotText),
    }
}

/// The operations of a socket that are under way.
#[derive(Clone, Default)]
struct Operations(Arc<Mutex<Listed>>);

#[derive(Default)]
struct Listed {
    running: HashMap<String, (u64, AbortHandle)>,
    serial: u64,
}

impl Listed {
    /// A number that no operation of the socket had: ids may be used again.
    fn next(&mut self) -> u64 {
        self.serial = self.serial.wrapping_add(1);
        self.serial
    }
}

impl Operations {
    fn lock(&self) -> MutexGuard<'_, Listed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn contains(&self, id: &str) -> bool {
        self.lock().running.contains_key(id)
    }

    fn len(&self) -> usize {
        self.lock().running.len()
    }

    fn abort(&self, id: &str) {
        if let Some((_, task)) = self.lock().running.remove(id) {
            task.abort();
        }
    }

    /// Takes an operation off the list unless another one has its id by now.
    fn remove(&self, id: &str, serial: u64) {
        let mut listed = self.lock();
        if listed.running.get(id).is_some_and(|(running, _)| *running == serial) {
            listed.running.remove(id);
        }
    }
}

/// An operation that was begun, as little as it may be for whoever waits for it.
enum Begun<'a> {
    Subscription(Box<Following>),
    Other(BoxFuture<'a, Result<async_graphql::Response, Fault>>),
}

/// One operation under way.
struct Running {
    edge: Edge,
    outbound: mpsc::Sender<Message>,
    operations: Operations,
    origin: Origin,
    id: String,
    request_id: String,
}

impl Running {
    async fn run(self, serial: u64, beginning: Box<(Parameters, Caller)>) {
        let outcome = match AssertUnwindSafe(self.answer(beginning)).catch_unwind().await {
            Ok(outcome) => outcome,
            Err(panic) => Err(self.errors(&panicked(panic.as_ref()))),
        };
        if self.edge.app.stop().is_cancelled() {
            return;
        }
        // First off the list: once the client knows of the end it may use the id again.
        self.operations.remove(&self.id, serial);
        let last = match outcome {
            Ok(()) => json!({ "type": "complete", "id": self.id }),
            Err(errors) => json!({ "type": "error", "id": self.id, "payload": errors }),
        };
        let _ = self.outbound.send(text(&last)).await;
    }

    /// Sends what comes of the operation; the errors if nothing was executed.
    async fn answer(&self, beginning: Box<(Parameters, Caller)>) -> Result<(), Value> {
        match self.begin(*beginning).map_err(|fault| self.errors(&fault))? {
            Begun::Subscription(mut following) => {
                while let Some(told) = following.next(&self.edge).await {
                    match told {
                        Ok(told) => self.next(&told.text).await?,
                        Err(Stopped::Refused(errors)) => return Err(json!(errors)),
                        Err(Stopped::Failed(fault)) => return Err(self.errors(&fault)),
                    }
                }
                Ok(())
            }
            Begun::Other(executing) => {
                let response = executing.await.map_err(|fault| self.errors(&fault))?;
                if is_request_error(&response) {
                    return Err(json!(response.errors));
                }
                let response =
                    serde_json::to_string(&response).map_err(|error| self.errors(&Fault::internal(error)))?;
                self.next(&response).await
            }
        }
    }

    /// Begins the operation.
    fn begin(&self, (parameters, caller): (Parameters, Caller)) -> Result<Begun<'_>, Fault> {
        let operation = self.edge.read(parameters, &caller)?;
        if operation.kind == OperationType::Subscription {
            let following = self.edge.follow(operation, caller, self.origin, &self.request_id)?;
            return Ok(Begun::Subscription(Box::new(following)));
        }
        Ok(Begun::Other(self.edge.execute(operation, caller, self.origin, &self.request_id).boxed()))
    }

    /// Sends a response that is JSON already.
    async fn next(&self, response: &str) -> Result<(), Value> {
        let text = next(&self.id, response);
        if let Some(fault) = self.edge.too_long(text.len()) {
            return Err(self.errors(&fault));
        }
        // Nobody listens any more when this fails, and the conversation ends by itself.
        let _ = self.outbound.send(Message::Text(text.into())).await;
        Ok(())
    }

    fn errors(&self, fault: &Fault) -> Value {
        json!([fault.entry(&self.request_id)])
    }
}

/// A `next` message around a response. The fields of the response stand in the order in which they were asked for.
fn next(id: &str, response: &str) -> String {
    format!(r#"{{"id":{},"type":"next","payload":{response}}}"#, Value::from(id))
}

fn text(message: &Value) -> Message {
    Message::Text(message.to_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_their_form() {
        for right in [
            r#"{"type": "connection_init"}"#,
            r#"{"type": "connection_init", "payload": null}"#,
            r#"{"type": "connection_init", "payload": {"a": 1}}"#,
            r#"{"type": "ping"}"#,
            r#"{"type": "pong", "payload": {}}"#,
            r#"{"id": "1", "type": "subscribe", "payload": {"query": "{ a }", "variables": {"n": 1}}}"#,
            r#"{"id": "1", "type": "complete"}"#,
        ] {
            assert!(serde_json::from_str::<Incoming>(right).is_ok(), "{right}");
        }
        for wrong in [
            "",
            "[]",
            "{}",
            r#"{"type": "start", "id": "1"}"#,
            r#"{"type": "connection_init", "payload": "x"}"#,
            r#"{"type": "subscribe", "payload": {"query": "{ a }"}}"#,
            r#"{"type": "subscribe", "id": 1, "payload": {"query": "{ a }"}}"#,
            r#"{"type": "subscribe", "id": "1", "payload": {}}"#,
            r#"{"type": "subscribe", "id": "1", "payload": {"query": "{ a }", "variables": [1]}}"#,
            r#"{"type": "complete"}"#,
        ] {
            assert!(serde_json::from_str::<Incoming>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_token_may_stand_alone() {
        let of = |value: Value| match token_of(json!({ "authorization": value }).as_object().unwrap()) {
            Ok(token) => token,
            Err(NotText) => panic!("not a text"),
        };
        assert_eq!(of(json!("Bearer abc")).as_deref(), Some("abc"));
        assert_eq!(of(json!("abc")).as_deref(), Some("abc"));
        assert_eq!(of(json!("")), None);
        assert_eq!(of(json!(null)), None);
        assert!(token_of(json!({ "authorization": 1 }).as_object().unwrap()).is_err());
        assert!(matches!(token_of(&Map::new()), Ok(None)));
    }

    #[test]
    fn fields_stand_in_the_order_in_which_they_were_asked_for() {
        let response = async_graphql::Response::new(async_graphql::value!({ "z": 1, "a": { "y": 2, "b": 3 } }));
        let text = next("a\"b", &serde_json::to_string(&response).unwrap());
        assert_eq!(text, r#"{"id":"a\"b","type":"next","payload":{"data":{"z":1,"a":{"y":2,"b":3}}}}"#);
    }

    #[tokio::test]
    async fn a_panic_of_ours_closes_with_its_own_code() {
        assert_eq!(to_the_end(async { panic!("secret") }).await, Some(Close(4500, "Internal server error".to_owned())));
        assert_eq!(to_the_end(async { None }).await, None);
    }

    #[test]
    fn a_close_reason_fits_its_frame() {
        let Message::Close(Some(frame)) = Close::duplicate(&"é".repeat(64)).frame() else { panic!() };
        assert_eq!(frame.code, 4409);
        assert!(frame.reason.len() <= 123);
    }
}
