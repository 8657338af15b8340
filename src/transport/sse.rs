//! Operations as event streams, by the "distinct connections" mode of the protocol
//! [graphql-sse](https://github.com/enisdenjo/graphql-sse/blob/master/PROTOCOL.md): one request, one operation, one stream.
//!
//! ```text
//! event: next
//! id: <cursor of the event>
//! data: {"data": …}
//!
//! event: complete
//! data:
//! ```
//!
//! A comment is sent every so often, so that what stands between does not take the stream for dead. The id of an event is its
//! cursor, whether the client asks for that field or not; a client that connects again with `Last-Event-ID`, as browsers do by
//! themselves, goes on behind it. `complete` says that there is nothing more to come. So a stream that ends for another reason
//! (the token ended or was revoked, the process ends) breaks off without it, and clients connect again.
//!
//! The operation runs in a task of its own with a bounded queue between: what a client does not read waits in the log of events.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;

use async_graphql::{
    Name, Positioned, Value,
    parser::types::{OperationType, Selection},
};
use axum::{
    body::{Body, Bytes},
    http::{HeaderName, HeaderValue, header::CONTENT_TYPE},
    response::Response,
};
use futures_util::{FutureExt, stream};
use serde_json::json;
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval, timeout},
};
use tracing::Instrument;

use super::{
    Edge, Open, Origin,
    answer::{Fault, is_request_error},
    auth,
    live::Stopped,
    operation::{Operation, panicked},
    places::{Holder, Place},
};
use crate::{
    caller::Caller,
    metrics::{Limited, SocketKind},
    store::Cursor,
};

/// The media type of an event stream.
pub(super) const MEDIA_TYPE: &str = "text/event-stream; charset=utf-8";
/// Tells proxies that gather what they pass on not to.
const NO_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Who follows, and from where.
pub(super) struct Follower {
    pub(super) caller: Caller,
    pub(super) token: Option<String>,
    pub(super) origin: Origin,
    /// The newest event that the client knows.
    pub(super) last_event_id: Option<String>,
    pub(super) request_id: String,
}

/// Answers an operation as a stream.
pub(super) fn open(edge: &Edge, mut operation: Operation, follower: Follower) -> Result<Response, Fault> {
    let most = edge.limits().sockets_per_caller;
    let place = || edge.streams.take(follower.caller.user_id().map(Holder::User), most);
    let crowded = || {
        edge.app.metrics().limited(Limited::Streams);
        Fault::crowded(format!("One caller may have {most} streams open."))
    };
    let held = edge.open(follower.origin, SocketKind::EventStream);
    let held = held.and_then(|open| Ok((open, place().ok_or_else(crowded)?)));
    let held = held.inspect_err(|fault| operation.rejected(&follower.caller, fault))?;
    if operation.kind == OperationType::Subscription
        && let Some(last) = &follower.last_event_id
    {
        begin_behind(&mut operation, last);
    }
    let (frames, queued) = mpsc::channel(edge.limits().queue.max(1));
    let streaming = Streaming { edge: edge.clone(), follower, frames, _held: held };
    edge.app.tracker().spawn(streaming.run(operation).in_current_span());
    Ok(response(Body::from_stream(stream::unfold(queued, async |mut queued| {
        queued.recv().await.map(|frame| (Ok::<_, Infallible>(frame), queued))
    }))))
}

/// A request that is not executed: the one event says why.
pub(super) fn refused(fault: &Fault, request_id: &str) -> Response {
    let next = format!("event: next\ndata: {}\n\n", json!({ "errors": [fault.entry(request_id)] }));
    response(Body::from(next + COMPLETE))
}

/// Nothing more will come.
const COMPLETE: &str = "event: complete\ndata: \n\n";
/// Nothing has come yet.
const STILL_THERE: &str = ":\n\n";

fn response(body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    response.headers_mut().insert(NO_BUFFERING, HeaderValue::from_static("no"));
    response
}

/// Asks to begin behind the event that the client knows. Every subscription has the argument for it, `after`.
fn begin_behind(operation: &mut Operation, last_event_id: &str) {
    let (Some(operation), variables) = operation.parts_mut() else { return };
    let Some(root) = operation.selection_set.node.items.first_mut() else { return };
    let at = root.pos;
    let Selection::Field(Positioned { node: root, .. }) = &mut root.node else { return };
    let after = root.arguments.iter_mut().find(|(name, _)| name.node.as_str() == "after");
    let known = Value::String(last_event_id.to_owned());
    match after.map(|(_, value)| &mut value.node) {
        // A variable that nothing uses would be a mistake of the document, so it stays where it is and changes its value.
        Some(value) => match value.to_string().strip_prefix('$') {
            Some(variable) => drop(variables.insert(Name::new(variable), known)),
            None => *value = known.into_value(),
        },
        None => {
            root.arguments.push((Positioned::new(Name::new("after"), at), Positioned::new(known.into_value(), at)));
        }
    }
}

/// A stream under way.
struct Streaming {
    edge: Edge,
    follower: Follower,
    frames: mpsc::Sender<Bytes>,
    _held: (Open, Place),
}

impl Streaming {
    async fn run(self, operation: Operation) {
        let stop = self.edge.app.stop();
        let sent = AssertUnwindSafe(self.send_all(operation)).catch_unwind();
        let last = tokio::select! {
            sent = sent => match sent {
                Ok(Ok(())) => None,
                Ok(Err(fault)) => Some(fault),
                Err(panic) => Some(panicked(panic.as_ref())),
            },
            () = self.revoked() => return,
            () = stop.cancelled() => return,
            () = self.frames.closed() => return,
        };
        // The shutdown ends subscriptions too, and a client would take `complete` for the end of what it follows.
        if stop.is_cancelled() {
            return;
        }
        if let Some(fault) = last {
            self.send(None, &json!({ "errors": [fault.entry(&self.follower.request_id)] }).to_string()).await;
        }
        self.push(COMPLETE.to_owned()).await;
    }

    /// Waits until the credentials are good no more.
    async fn revoked(&self) {
        let Follower { caller, token, .. } = &self.follower;
        let Some(token) = token else { return std::future::pending().await };
        let app = &self.edge.app;
        let ended = auth::approaching(app.store().clock().clone(), auth::end(caller), std::time::Duration::ZERO);
        let mut recheck = interval(self.edge.limits().recheck);
        recheck.set_missed_tick_behavior(MissedTickBehavior::Delay);
        recheck.reset();
        let refused = async {
            loop {
                recheck.tick().await;
                if auth::again(app, token).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            _ = ended => {}
            () = refused => {}
        }
    }

    /// Sends what comes of the operation.
    async fn send_all(&self, operation: Operation) -> Result<(), Fault> {
        self.push(STILL_THERE.to_owned()).await;
        let Follower { caller, origin, request_id, .. } = &self.follower;
        if operation.kind != OperationType::Subscription {
            let executing = self.edge.execute(operation, caller.clone(), *origin, request_id);
            let answer = self.alive_until(executing).await?;
            let text = if is_request_error(&answer) {
                json!({ "errors": answer.errors }).to_string()
            } else {
                serde_json::to_string(&answer).map_err(Fault::internal)?
            };
            return self.next(None, &text).await;
        }
        let mut following = self.edge.follow(operation, caller.clone(), *origin, request_id)?;
        while let Some(told) = self.alive_until(following.next(&self.edge)).await {
            match told {
                Ok(told) => self.next(told.cursor, &told.text).await?,
                Err(Stopped::Failed(fault)) => return Err(fault),
                Err(Stopped::Refused(errors)) => {
                    self.send(None, &json!({ "errors": errors }).to_string()).await;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Waits for something and gives a sign of life every so often.
    async fn alive_until<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            match timeout(self.edge.limits().ping, work.as_mut()).await {
                Ok(done) => return done,
                Err(_) => self.push(STILL_THERE.to_owned()).await,
            }
        }
    }

    /// Sends a response that is JSON already.
    async fn next(&self, cursor: Option<Cursor>, response: &str) -> Result<(), Fault> {
        if let Some(fault) = self.edge.too_long(response.len()) {
            return Err(fault);
        }
        self.send(cursor, response).await;
        Ok(())
    }

    /// Sends one `next`. The text is JSON and has no line ends.
    async fn send(&self, id: Option<Cursor>, text: &str) {
        let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
        self.push(format!("event: next\n{id}data: {text}\n\n")).await;
    }

    /// Queues a frame. When the client is gone this waits for ever; then the stream ends by itself.
    async fn push(&self, frame: String) {
        if self.frames.send(Bytes::from(frame)).await.is_err() {
            tracing::trace!("a client left an event stream");
        }
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::parser::types::Field;

    use super::*;
    use crate::{config::Config, transport::document::Documents};

    fn operation(json: serde_json::Value) -> Operation {
        let documents = Documents::open(&Config::in_folder("unused")).unwrap();
        let parameters = serde_json::from_value(json).unwrap();
        Operation::new(&documents, parameters).map_err(|fault| fault.message).unwrap()
    }

    fn root(operation: &mut Operation) -> Field {
        let root = &operation.parts_mut().0.unwrap().selection_set.node.items[0].node;
        let Selection::Field(field) = root else { panic!("no field") };
        field.node.clone()
    }

    #[test]
    fn what_the_client_knows_goes_before_what_its_document_says() {
        for query in ["subscription { a { b } }", "subscription { a(after: \"3\") { b } }"] {
            let mut literal = operation(json!({ "query": query }));
            begin_behind(&mut literal, "7");
            let field = root(&mut literal);
            assert_eq!(field.arguments.len(), 1);
            assert_eq!(field.get_argument("after").unwrap().node.to_string(), "\"7\"");
        }
        let query = "subscription($from: C) { a(after: $from) { b } }";
        let mut variable = operation(json!({ "query": query, "variables": { "from": "3" } }));
        begin_behind(&mut variable, "7");
        assert_eq!(variable.parts_mut().1.get("from"), Some(&Value::String("7".to_owned())));
    }
}
