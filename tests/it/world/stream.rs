//! Subscriptions: frames as they are, and events one after the other.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{Error, Message, client::IntoClientRequest, protocol::WebSocketConfig},
};

use super::PATIENCE;

/// What a server sends.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// A message of the protocol.
    Message(Value),
    /// The end, with the code and the reason.
    Closed(u16, String),
    /// The end without a word.
    Gone,
}

/// A WebSocket whose frames are the test's own affair.
pub struct Socket {
    stream: WebSocketStream<TcpStream>,
}

impl Socket {
    /// Connects, or gives the status of the refusal.
    pub async fn open(address: SocketAddr, protocol: Option<&str>, authorization: Option<&str>) -> Result<Self, u16> {
        let mut request = format!("ws://{address}/graphql/ws").into_client_request().unwrap();
        for (name, value) in [("sec-websocket-protocol", protocol), ("authorization", authorization)] {
            if let Some(value) = value {
                request.headers_mut().insert(name, value.parse().unwrap());
            }
        }
        let tcp = TcpStream::connect(address).await.unwrap();
        // Small buffers, so that a story may have many sockets.
        let config = WebSocketConfig::default().read_buffer_size(4_096).write_buffer_size(4_096);
        match client_async_with_config(request, tcp, Some(config)).await {
            Ok((stream, _)) => Ok(Self { stream }),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            // The server took the socket without a sub-protocol; the client gives up, which is what this asks for.
            Err(error) => panic!("{error}"),
        }
    }

    /// Sends a message of the protocol.
    pub async fn send(&mut self, message: Value) {
        self.send_raw(Message::text(message.to_string())).await;
    }

    /// Sends any frame.
    pub async fn send_raw(&mut self, frame: Message) {
        // The server may have closed already; then the next `receive` says so.
        let _ = self.stream.send(frame).await;
    }

    /// The next message or the end, without the pings of WebSocket itself.
    pub async fn receive(&mut self) -> Frame {
        self.receive_within(PATIENCE).await.expect("a frame in time")
    }

    /// The same with another patience; `None` when nothing came.
    pub async fn receive_within(&mut self, patience: Duration) -> Option<Frame> {
        let next = async {
            loop {
                match self.stream.next().await {
                    Some(Ok(Message::Text(text))) => return Frame::Message(serde_json::from_str(&text).unwrap()),
                    Some(Ok(Message::Close(Some(close)))) => {
                        return Frame::Closed(close.code.into(), close.reason.to_string());
                    }
                    Some(Ok(Message::Close(None)) | Err(_)) | None => return Frame::Gone,
                    Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Binary(_) | Message::Frame(_))) => {}
                }
            }
        };
        timeout(patience, next).await.ok()
    }

    /// The next message, which has to be one.
    #[track_caller]
    pub fn message(&mut self) -> impl Future<Output = Value> {
        let at = std::panic::Location::caller();
        async move {
            match self.receive().await {
                Frame::Message(message) => message,
                end @ (Frame::Closed(..) | Frame::Gone) => panic!("{at}: expected a message, got {end:?}"),
            }
        }
    }

    /// The code with which the server closes; what comes before it is skipped.
    pub async fn closed(&mut self) -> u16 {
        loop {
            match self.receive().await {
                Frame::Message(_) => {}
                Frame::Closed(code, _) => return code,
                Frame::Gone => panic!("closed without a code"),
            }
        }
    }

    /// `connection_init` with a token or without one, up to the acknowledgement.
    pub async fn init(&mut self, token: Option<&str>) {
        let payload = token.map(|token| json!({ "authorization": format!("Bearer {token}") }));
        self.send(json!({ "type": "connection_init", "payload": payload })).await;
        assert_eq!(self.message().await, json!({ "type": "connection_ack" }));
    }

    /// Starts an operation.
    pub async fn subscribe(&mut self, id: &str, document: &str, variables: Value) {
        let payload = json!({ "query": document, "variables": variables });
        self.send(json!({ "type": "subscribe", "id": id, "payload": payload })).await;
    }
}

/// One subscription on a socket of its own.
pub struct Stream {
    socket: Socket,
}

impl Stream {
    pub(super) async fn open(address: SocketAddr, token: Option<&str>, document: &str, variables: Value) -> Self {
        let mut socket = Socket::open(address, Some("graphql-transport-ws"), None).await.unwrap();
        socket.init(token).await;
        socket.subscribe("1", document, variables).await;
        Self { socket }
    }

    /// The data of the next event.
    pub async fn next(&mut self) -> Value {
        let message = self.socket.message().await;
        assert_eq!(message["type"], "next", "expected an event, got {message:#}");
        assert!(message["payload"]["errors"].is_null(), "{message:#}");
        message["payload"]["data"].clone()
    }

    /// The data of the next event, if there is one within `patience`.
    pub async fn next_within(&mut self, patience: Duration) -> Option<Value> {
        match self.socket.receive_within(patience).await? {
            Frame::Message(message) => {
                assert_eq!(message["type"], "next", "expected an event, got {message:#}");
                Some(message["payload"]["data"].clone())
            }
            end @ (Frame::Closed(..) | Frame::Gone) => panic!("expected an event, got {end:?}"),
        }
    }

    /// The errors with which the subscription was refused or ended.
    pub async fn error(&mut self) -> Value {
        let message = self.socket.message().await;
        assert_eq!(message["type"], "error", "expected an error, got {message:#}");
        message["payload"].clone()
    }

    /// The socket below.
    pub fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }
}
