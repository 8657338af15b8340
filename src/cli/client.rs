//! A client of our own GraphQL API: HTTP for queries and mutations, graphql-transport-ws for subscriptions. It knows nothing of
//! the server but its address, so what it does any other client can do.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{
        Message,
        client::IntoClientRequest,
        http::{HeaderValue, header::SEC_WEBSOCKET_PROTOCOL},
        protocol::frame::coding::CloseCode,
    },
};
use url::Url;

use super::{
    failure::{Exit, Failure, chain},
    operations,
};

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// For how long a call is repeated that a server which restarts, or is busy, did not answer.
const INSISTENCE: Duration = Duration::from_mins(1);
/// The shortest and the longest pause before something is tried again.
const SHORT: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(5);

/// Why a call was not answered as it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// The stable code of the user error or of the error at the top level.
    pub(super) code: String,
    pub(super) message: String,
}

impl Refused {
    fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into() }
    }

    fn unreachable(error: &dyn std::error::Error) -> Self {
        Self::new("UNREACHABLE", format!("the server does not answer: {}", chain(error)))
    }

    pub(super) fn unexpected(what: impl fmt::Display) -> Self {
        Self::new("UNEXPECTED_ANSWER", format!("the server answered unexpectedly: {what}"))
    }

    /// Why a server closed a socket, in the terms of the answers over HTTP where they have one.
    fn closed(code: u16, reason: &str) -> Self {
        let said = format!("the server closed the socket: {code} {reason}");
        match code {
            4401 | 4403 => Self::new("UNAUTHENTICATED", said),
            1009 | 4400 | 4406 | 4409 | 4429 => Self::new("PROTOCOL", said),
            _ => Self::new("CLOSED", said),
        }
    }

    /// Whether the same may well be answered a moment later.
    pub(super) fn is_passing(&self) -> bool {
        ["UNREACHABLE", "CLOSED", "TIMEOUT", "UNAVAILABLE", "RATE_LIMITED"].contains(&self.code.as_str())
    }
}

/// The pause before something that failed is tried again, for the so-manieth time.
pub(super) fn pause(tries: u32) -> Duration {
    SHORT.saturating_mul(2_u32.saturating_pow(tries)).min(LONG)
}

impl fmt::Display for Refused {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} ({})", self.message.trim_end_matches('.'), self.code)
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        if refused.code == "UNREACHABLE" {
            let advice = "Start one by `zerostate serve`, or name another by --server or ZEROSTATE_SERVER.";
            return Self::new(Exit::Unreachable, format!("{}.", capitalised(&refused.message)), advice);
        }
        if refused.code == "UNAUTHENTICATED" {
            let advice = "Sign in again; an access token is good for minutes, an API key until it is revoked.";
            return Self::failed(format!("The server does not accept the credentials: {refused}."), advice);
        }
        Self::failed(format!("The API refused: {refused}."), "Correct what it says and run the command again.")
    }
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// Somebody with an account, or with a token or key of one. Only who has a password can sign in again.
#[derive(Debug)]
pub(super) struct Person {
    pub(super) email: String,
    pub(super) display_name: String,
    pub(super) password: String,
    signed_in: Mutex<SignedIn>,
}

#[derive(Clone, Debug, Default)]
struct SignedIn {
    id: String,
    token: String,
}

impl Person {
    pub(super) fn new(email: String, display_name: &str, password: String) -> Self {
        Self { email, display_name: display_name.to_owned(), password, signed_in: Mutex::default() }
    }

    /// Somebody of whom nothing is known but an access token or API key; nobody in particular if that is empty.
    pub(super) fn bearer(token: String) -> Self {
        let person = Self::new(String::new(), "", String::new());
        *person.signed_in.lock().unwrap_or_else(PoisonError::into_inner) = SignedIn { id: String::new(), token };
        person
    }

    /// Whether signing in again is possible.
    pub(super) fn has_password(&self) -> bool {
        !self.password.is_empty()
    }

    fn signed_in(&self) -> SignedIn {
        self.signed_in.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn remember(&self, tokens: Tokens) {
        let now = SignedIn { id: tokens.user.id, token: tokens.access_token };
        *self.signed_in.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    /// The id of the user; empty before the first sign-in.
    pub(super) fn id(&self) -> String {
        self.signed_in().id
    }

    /// The access token; empty before the first sign-in.
    pub(super) fn token(&self) -> String {
        self.signed_in().token
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Tokens {
    access_token: String,
    user: Identified,
}

/// Anything with an id.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Identified {
    pub(super) id: String,
}

/// The API of one server.
#[derive(Clone, Debug)]
pub(super) struct Api {
    http: reqwest::Client,
    /// Scheme, host and port, with the path under which the service is, and no slash at the end.
    base: String,
}

impl Api {
    /// The API of the server on an address of this machine.
    pub(super) fn local(address: SocketAddr) -> Result<Self, Failure> {
        // Nothing is encrypted on the loopback, and an image without certificates must not make this fail.
        Self::over(format!("http://{address}"), reqwest::Client::builder().tls_certs_only([]))
    }

    /// The API of the server at a URL.
    pub(super) fn at(url: &Url) -> Result<Self, Failure> {
        let builder = reqwest::Client::builder();
        let builder = if url.scheme() == "https" { builder } else { builder.tls_certs_only([]) };
        Self::over(url.as_str().trim_end_matches('/').to_owned(), builder)
    }

    /// Not through any proxy: a socket would not go through it either.
    fn over(base: String, builder: reqwest::ClientBuilder) -> Result<Self, Failure> {
        let http =
            builder.no_proxy().timeout(PATIENCE).build().map_err(|error| {
                Failure::failed(format!("No HTTP client: {}.", chain(&error)), "Report this as a bug.")
            })?;
        Ok(Self { http, base })
    }

    /// An address under the server.
    pub(super) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// Runs a document as somebody and answers what its one root field holds. A token that ended is renewed by signing in again.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        who: &Person,
        document: &str,
        variables: Value,
    ) -> Result<T, Refused> {
        match self.send(Some(&who.token()), document, &variables).await {
            Err(refused) if refused.code == "UNAUTHENTICATED" && who.has_password() => {
                self.login(who).await?;
                self.send(Some(&who.token()), document, &variables).await
            }
            done => done,
        }
    }

    /// Runs a document that may be sent twice, a query or a mutation with a key, until a server that restarts or is busy answers it.
    pub(super) async fn insist<T: DeserializeOwned>(
        &self,
        who: &Person,
        document: &str,
        variables: Value,
    ) -> Result<T, Refused> {
        let (since, mut tries) = (Instant::now(), 0);
        loop {
            match self.call(who, document, variables.clone()).await {
                Err(refused) if refused.is_passing() && since.elapsed() < INSISTENCE => sleep(pause(tries)).await,
                done => return done,
            }
            tries += 1;
        }
    }

    /// Makes an account and signs in.
    pub(super) async fn register(&self, who: &Person) -> Result<(), Refused> {
        let Person { email, display_name, password, .. } = who;
        let input = json!({ "input": { "email": email, "displayName": display_name, "password": password } });
        self.tokens(who, operations::REGISTER_USER, &input).await
    }

    /// Signs in.
    pub(super) async fn login(&self, who: &Person) -> Result<(), Refused> {
        let input = json!({ "input": { "email": who.email, "password": who.password } });
        self.tokens(who, operations::LOGIN, &input).await
    }

    async fn tokens(&self, who: &Person, document: &str, variables: &Value) -> Result<(), Refused> {
        #[derive(Deserialize)]
        struct Answer {
            tokens: Tokens,
        }
        let answer: Answer = self.send(None, document, variables).await?;
        who.remember(answer.tokens);
        Ok(())
    }

    async fn send<T: DeserializeOwned>(
        &self,
        token: Option<&str>,
        document: &str,
        variables: &Value,
    ) -> Result<T, Refused> {
        let mut request = self
            .http
            .post(self.url("/graphql"))
            .header("accept", "application/graphql-response+json")
            .json(&json!({ "query": document, "variables": variables }));
        if let Some(token) = token.filter(|token| !token.is_empty()) {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.map_err(|error| Refused::unreachable(&error))?;
        let body: Value = response.json().await.map_err(Refused::unexpected)?;
        read(root(&body)?)
    }

    /// Uploads the module of a hosted agent and answers its SHA-256 as the server sees it.
    pub(super) async fn upload(&self, who: &Person, agent: &str, module: Bytes) -> Result<String, Refused> {
        #[derive(Deserialize)]
        struct Uploaded {
            sha256: String,
        }
        let request = self.http.put(self.url(&format!("/agents/{agent}/module")));
        let request = request.bearer_auth(who.token()).header("content-type", "application/wasm").body(module);
        let response = request.send().await.map_err(|error| Refused::unreachable(&error))?;
        let status = response.status();
        let body: Value = response.json().await.map_err(Refused::unexpected)?;
        if status.is_success() {
            Ok(read::<Uploaded>(body)?.sha256)
        } else {
            Err(first_error(&body).unwrap_or_else(|| Refused::unexpected(status)))
        }
    }

    /// Opens a socket for subscriptions of somebody.
    pub(super) async fn socket(&self, who: &Person) -> Result<Socket, Refused> {
        // http becomes ws, and https wss.
        let url = self.url("/graphql/ws").replacen("http", "ws", 1);
        let mut request = url.into_client_request().map_err(|error| Refused::unreachable(&error))?;
        request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("graphql-transport-ws"));
        let connecting = timeout(PATIENCE, Box::pin(connect_async(request)));
        let (stream, _) = connecting
            .await
            .map_err(|_| Refused::new("TIMEOUT", "the socket did not open in time"))?
            .map_err(|error| Refused::unreachable(&error))?;
        let mut socket = Socket { stream };
        let token = Some(who.token()).filter(|token| !token.is_empty());
        let payload = token.map_or_else(|| json!({}), |token| json!({ "authorization": format!("Bearer {token}") }));
        socket.say(&json!({ "type": "connection_init", "payload": payload })).await?;
        match socket.hear(PATIENCE).await? {
            Heard { kind, .. } if kind == "connection_ack" => Ok(socket),
            Heard { kind, .. } => Err(Refused::unexpected(format!("{kind} instead of connection_ack"))),
        }
    }
}

/// The value of the one root field of a response, or the error that is there instead.
fn root(response: &Value) -> Result<Value, Refused> {
    if let Some(refused) = first_error(response) {
        return Err(refused);
    }
    let data = response.get("data").and_then(Value::as_object).and_then(|data| data.values().next()).cloned();
    let value =
        data.filter(|value| !value.is_null()).ok_or_else(|| Refused::new("NOT_FOUND", "there is no such thing"))?;
    let user_error = value.pointer("/userErrors/0");
    match user_error.and_then(Value::as_object) {
        Some(error) => Err(Refused::new(text(error, "code"), explained(error))),
        None => Ok(value),
    }
}

/// The message of a user error with the field at fault.
fn explained(error: &Map<String, Value>) -> String {
    let path: Vec<&str> =
        error.get("field").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let message = text(error, "message");
    if path.is_empty() { message.to_owned() } else { format!("{message} [{}]", path.join(".")) }
}

/// The first error at the top level of a response.
fn first_error(response: &Value) -> Option<Refused> {
    let error = response.pointer("/errors/0")?.as_object()?;
    let code = error.get("extensions").and_then(Value::as_object).map_or("", |extensions| text(extensions, "code"));
    Some(Refused::new(code, text(error, "message")))
}

fn text<'a>(object: &'a Map<String, Value>, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or("")
}

fn read<T: DeserializeOwned>(value: Value) -> Result<T, Refused> {
    serde_json::from_value(value).map_err(Refused::unexpected)
}

/// A socket that speaks graphql-transport-ws.
#[derive(Debug)]
pub(super) struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

/// What the server says.
#[derive(Debug, Deserialize)]
struct Heard {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    id: String,
    #[serde(default)]
    payload: Value,
}

impl Socket {
    /// Begins a subscription under an id of the caller's choice.
    pub(super) async fn subscribe(&mut self, id: &str, document: &str, variables: Value) -> Result<(), Refused> {
        let payload = json!({ "query": document, "variables": variables });
        self.say(&json!({ "type": "subscribe", "id": id, "payload": payload })).await
    }

    /// The next value of any subscription with the id of the subscription; no value at the end of one.
    pub(super) async fn next<T: DeserializeOwned>(
        &mut self,
        patience: Duration,
    ) -> Result<(String, Option<T>), Refused> {
        loop {
            let Heard { kind, id, payload } = self.hear(patience).await?;
            match kind.as_str() {
                "next" => return Ok((id, Some(read(root(&payload)?)?))),
                "complete" => return Ok((id, None)),
                "error" => {
                    let refused = first_error(&json!({ "errors": payload }));
                    return Err(refused.unwrap_or_else(|| Refused::unexpected("an error without a text")));
                }
                "ping" => self.say(&json!({ "type": "pong" })).await?,
                _ => {}
            }
        }
    }

    /// Ends the conversation.
    pub(super) async fn close(mut self) {
        if timeout(Duration::from_secs(1), self.stream.close(None)).await.is_err() {
            tracing::debug!("the server did not answer the end of the conversation");
        }
    }

    async fn say(&mut self, message: &Value) -> Result<(), Refused> {
        let sent = self.stream.send(Message::text(message.to_string())).await;
        sent.map_err(|error| Refused::unreachable(&error))
    }

    async fn hear(&mut self, patience: Duration) -> Result<Heard, Refused> {
        loop {
            let heard = timeout(patience, self.stream.next()).await;
            let heard = heard
                .map_err(|_| Refused::new("TIMEOUT", format!("nothing was heard for {} s", patience.as_secs())))?;
            let message = heard.ok_or_else(|| Refused::new("CLOSED", "the server closed the socket"))?;
            match message.map_err(|error| Refused::unreachable(&error))? {
                Message::Text(text) => return serde_json::from_str(&text).map_err(Refused::unexpected),
                Message::Close(frame) => {
                    let told = frame.map(|frame| (frame.code, frame.reason));
                    let (code, reason) = told.unwrap_or((CloseCode::Status, "".into()));
                    return Err(Refused::closed(code.into(), &reason));
                }
                Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_field_is_the_answer() {
        assert_eq!(root(&json!({ "data": { "me": { "id": "user_1" } } })), Ok(json!({ "id": "user_1" })));
        let payload = json!({ "data": { "login": { "tokens": 1, "userErrors": [] } } });
        assert_eq!(root(&payload).unwrap().get("tokens"), Some(&json!(1)));
    }

    #[test]
    fn refusals_are_found_where_they_are() {
        let user = json!({ "data": { "login": { "tokens": null, "userErrors": [
            { "code": "INVALID_INPUT", "message": "email must be an address", "field": ["input", "email"] }
        ] } } });
        assert_eq!(root(&user).unwrap_err(), Refused::new("INVALID_INPUT", "email must be an address [input.email]"));
        let top =
            json!({ "data": null, "errors": [{ "message": "Sign in.", "extensions": { "code": "UNAUTHENTICATED" } }] });
        assert_eq!(root(&top).unwrap_err().to_string(), "Sign in (UNAUTHENTICATED)");
        assert_eq!(root(&json!({ "data": { "task": null } })).unwrap_err().code, "NOT_FOUND");
    }
}
