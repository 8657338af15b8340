//! One person, or nobody in particular, and what they can say over HTTP.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use reqwest::{
    Method, RequestBuilder,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
};
use serde_json::{Value, json};

use super::Stream;

/// A client of the service.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    address: SocketAddr,
    name: String,
    id: String,
    token: Option<String>,
}

/// What came back over HTTP.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Reply {
    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// A header, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The code of the first error.
    #[track_caller]
    pub fn code(&self) -> String {
        self.json()["errors"][0]["extensions"]["code"]
            .as_str()
            .unwrap_or_else(|| panic!("no code: {self:?}"))
            .to_owned()
    }
}

/// A key that no other intent has.
pub fn fresh_key() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("key-{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// The HTTP client of a world.
pub fn http() -> reqwest::Client {
    // Another test may have chosen it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().timeout(super::PATIENCE * 3).build().unwrap()
}

/// Sends a request and reads all of the answer.
pub async fn send(request: RequestBuilder) -> Reply {
    let response = request.send().await.expect("the server answers");
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Reply { status, headers, text: response.text().await.unwrap() }
}

impl Client {
    pub fn new(http: reqwest::Client, address: SocketAddr) -> Self {
        Self { http, address, name: "nobody".to_owned(), id: String::new(), token: None }
    }

    /// The same client for a person who signed in; `tokens` is what the mutation answered.
    pub fn signed_in(self, name: &str, tokens: &Value) -> Self {
        let token = tokens["accessToken"].as_str().expect("an access token").to_owned();
        let id = tokens["user"]["id"].as_str().expect("a user id").to_owned();
        Self { name: name.to_owned(), id, token: Some(token), ..self }
    }

    /// The same client with another token, for example an API key.
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// The same client talking to another process.
    pub fn at(&self, address: SocketAddr) -> Self {
        Self { address, ..self.clone() }
    }

    /// Nobody in particular, at the same place.
    pub fn anonymous(&self) -> Self {
        Self::new(self.http.clone(), self.address)
    }

    /// The same client with connections of another kind.
    pub fn through(&self, http: reqwest::Client) -> Self {
        Self { http, ..self.clone() }
    }

    /// The id of the user.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The access token, or none.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// A request of this client.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("http://{}{path}", self.address));
        match &self.token {
            Some(token) => request.header(AUTHORIZATION, format!("Bearer {token}")),
            None => request,
        }
    }

    /// Sends a GraphQL request and gives the whole answer back, whatever it is.
    pub async fn raw(&self, document: &str, variables: &Value) -> Reply {
        let body = json!({ "query": document, "variables": variables }).to_string();
        let request = self
            .request(Method::POST, "/graphql")
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/graphql-response+json")
            .body(body);
        send(request).await
    }

    /// The data of a GraphQL request, or its errors.
    pub async fn try_query(&self, document: &str, variables: Value) -> Result<Value, Vec<Value>> {
        let mut answer = self.raw(document, &variables).await.json();
        match answer["errors"].as_array() {
            Some(errors) => Err(errors.clone()),
            None => Ok(answer["data"].take()),
        }
    }

    /// The data of a GraphQL request that must succeed.
    #[track_caller]
    pub fn query(&self, document: &str, variables: Value) -> impl Future<Output = Value> {
        let at = std::panic::Location::caller();
        async move {
            match self.try_query(document, variables).await {
                Ok(data) => data,
                Err(errors) => panic!("{at}: {} asked {document}\nand got {errors:#?}", self.name),
            }
        }
    }

    /// The payload of the one mutation of a document, which must not be refused.
    pub async fn done(&self, field: &str, document: &str, variables: Value) -> Value {
        super::done(&self.query(document, variables).await, field)
    }

    /// The codes of the user errors of the one mutation of a document.
    pub async fn refused(&self, field: &str, document: &str, variables: Value) -> Vec<String> {
        let answer = self.query(document, variables).await;
        let errors = answer[field]["userErrors"].as_array().unwrap_or_else(|| panic!("no userErrors: {answer:#}"));
        errors.iter().map(|error| error["code"].as_str().unwrap().to_owned()).collect()
    }

    /// Puts the module of an agent.
    pub async fn upload(&self, agent: &str, wasm: Vec<u8>) -> Reply {
        let path = format!("/agents/{agent}/module");
        send(self.request(Method::PUT, &path).header(CONTENT_TYPE, "application/wasm").body(wasm)).await
    }

    /// Subscribes over a WebSocket of its own. Give the document [`super::World::cursor`] as `after` where the first event must
    /// not be missed: nothing tells a client when the server has begun to listen.
    pub async fn subscribe(&self, document: &str, variables: Value) -> Stream {
        Stream::open(self.address, self.token(), document, variables).await
    }
}
