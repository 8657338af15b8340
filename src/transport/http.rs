//! GraphQL over HTTP: `POST` with JSON, `GET` for queries, one request at a time.
//!
//! The order of refusals: method (405), what the client accepts (406), what it sends (415), who it is (401), how much it sends
//! (413), then the GraphQL request. A GraphQL request that is refused answers without `data`: with 400 to clients that accept
//! `application/graphql-response+json`, and with 200 to those of the older `application/json`, which read another status as
//! trouble between them and us. Once execution began the status is 200.
//!
//! Of async-graphql-axum this uses the extractor that reads a `POST` body and the response type that writes an executed answer.
//! Its handler is not used: it runs mutations on `GET`, takes batches of any length and ignores what the client accepts. Nor
//! is its reading of a query string, which looks for `operation_name`.

use std::time::Duration;

use async_graphql::{ParseRequestError, Variables, parser::types::OperationType};
use async_graphql_axum::{GraphQLRequest, GraphQLResponse};
use axum::{
    body::{Body, Bytes},
    extract::{Extension, FromRequest, Request, State},
    http::{
        HeaderMap, HeaderValue, Method, StatusCode,
        header::{ACCEPT, ALLOW, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use futures_util::TryStreamExt;
use serde_json::{Map, Value, json};

use super::{
    Edge, RequestId,
    answer::{self, Fault, code, is_request_error},
    auth,
    operation::{Operation, Parameters},
};

/// How long a client may take to send its body.
const BODY_PATIENCE: Duration = Duration::from_secs(30);

/// The two media types of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Media {
    /// `application/graphql-response+json`: the status tells whether the request was executed.
    Graphql,
    /// `application/json`: the status tells whether there is a GraphQL answer at all.
    Json,
}

impl Media {
    fn name(self) -> &'static str {
        match self {
            Self::Graphql => "application/graphql-response+json; charset=utf-8",
            Self::Json => answer::JSON,
        }
    }

    /// The status of a fault in this media type.
    fn status(self, fault: &Fault) -> StatusCode {
        match self {
            Self::Json if fault.of_graphql => StatusCode::OK,
            Self::Json | Self::Graphql => fault.status,
        }
    }

    /// What a client prefers of what we have; `None` if it accepts neither. Who says nothing gets the older type.
    fn accepted(headers: &HeaderMap) -> Option<Self> {
        let mut ranges = headers.get_all(ACCEPT).iter().peekable();
        if ranges.peek().is_none() {
            return Some(Self::Json);
        }
        let mut best: Option<(u16, Self)> = None;
        for range in ranges.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')) {
            let mut parts = range.split(';').map(str::trim);
            let media = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
                "application/graphql-response+json" => Self::Graphql,
                "application/json" | "application/*" | "*/*" => Self::Json,
                _ => continue,
            };
            let quality = parts.find_map(|part| part.strip_prefix("q=")).map_or(1_000, thousandths);
            if quality > 0 && best.is_none_or(|(so_far, _)| quality > so_far) {
                best = Some((quality, media));
            }
        }
        best.map(|(_, media)| media)
    }
}

/// A quality value of `Accept` in thousandths; 0, which refuses, for what is none.
fn thousandths(text: &str) -> u16 {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let fraction: String = fraction.chars().chain("000".chars()).take(3).collect();
    match (whole, fraction.parse::<u16>()) {
        ("1", Ok(0)) => 1_000,
        ("0", Ok(thousandths)) => thousandths,
        _ => 0,
    }
}

/// The handler of `/graphql`.
pub(super) async fn graphql(
    State(edge): State<Edge>,
    Extension(RequestId(id)): Extension<RequestId>,
    request: Request,
) -> Response {
    let media = Media::accepted(request.headers());
    let answered = match media {
        _ if !matches!(*request.method(), Method::GET | Method::HEAD | Method::POST) => {
            Err(Fault::new(StatusCode::METHOD_NOT_ALLOWED, code::METHOD, "Use POST, or GET for queries."))
        }
        Some(media) => answer(&edge, &id, media, request).await,
        None => Err(Fault::new(
            StatusCode::NOT_ACCEPTABLE,
            code::NOT_ACCEPTABLE,
            "Accept application/graphql-response+json or application/json.",
        )),
    };
    answered.unwrap_or_else(|fault| {
        let media = media.unwrap_or(Media::Json);
        let mut response = fault.response(media.status(&fault), media.name(), &id);
        if fault.status == StatusCode::METHOD_NOT_ALLOWED {
            let allowed = if fault.of_graphql { "POST" } else { "GET, POST" };
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
            *response.status_mut() = fault.status;
        }
        response
    })
}

async fn answer(edge: &Edge, id: &str, media: Media, request: Request) -> Result<Response, Fault> {
    let by_post = request.method() == Method::POST;
    if by_post {
        require_json(request.headers())?;
    }
    let bearer = auth::bearer(request.headers())?;
    let caller = auth::caller(&edge.app, bearer.as_deref()).await?;
    let parameters = if by_post {
        posted(request, edge.app.config().limits.body_bytes).await?
    } else {
        queried(request.uri().query().unwrap_or_default())?
    };
    let operation = Operation::new(&edge.guard, parameters)?;
    if !by_post && operation.kind != OperationType::Query {
        let message = format!("Send the {} by POST; GET is for queries.", operation.kind);
        return Err(Fault {
            status: StatusCode::METHOD_NOT_ALLOWED,
            ..Fault::of_graphql(code::METHOD, message, Vec::new())
        });
    }
    let response = edge.execute(operation, caller, id).await?;
    if is_request_error(&response) {
        let status = if media == Media::Graphql { StatusCode::BAD_REQUEST } else { StatusCode::OK };
        return Ok(answer::body(status, media.name(), &json!({ "errors": response.errors })));
    }
    let mut response = GraphQLResponse::from(response).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media.name()));
    Ok(response)
}

/// A body has to be JSON in UTF-8 and to say so: what forms can send, other sites can send in a visitor's name.
fn require_json(headers: &HeaderMap) -> Result<(), Fault> {
    let declared = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let declared = declared.to_ascii_lowercase();
    let mut parts = declared.split(';').map(str::trim);
    let json = parts.next() == Some("application/json");
    let mut charsets = parts.filter_map(|part| part.strip_prefix("charset=")).map(|name| name.trim_matches('"'));
    if json && charsets.all(|name| name == "utf-8") {
        Ok(())
    } else {
        Err(Fault::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            code::UNSUPPORTED_MEDIA,
            "Send application/json in UTF-8 and say so in Content-Type.",
        ))
    }
}

/// The parameters of a `POST`.
async fn posted(request: Request, limit: usize) -> Result<Parameters, Fault> {
    let (parts, body) = request.into_parts();
    let bytes = read(body, limit).await?;
    let request = Request::from_parts(parts, Body::from(bytes));
    let Unreadable(fault) = match GraphQLRequest::<Unreadable>::from_request(request, &()).await {
        Ok(read) => {
            let request = read.into_inner();
            return Parameters::new(request.query, request.operation_name, request.variables);
        }
        Err(unreadable) => unreadable,
    };
    Err(fault)
}

/// A body of `limit` bytes at most, within bounded time.
async fn read(body: Body, limit: usize) -> Result<Bytes, Fault> {
    let mut chunks = body.into_data_stream();
    let mut bytes = Vec::new();
    let reading = async {
        while let Some(chunk) = chunks.try_next().await.map_err(|_| Fault::malformed("The body broke off."))? {
            if chunk.len() > limit.saturating_sub(bytes.len()) {
                let message = format!("The body is larger than {limit} bytes.");
                return Err(Fault::new(StatusCode::PAYLOAD_TOO_LARGE, code::TOO_LARGE, message));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(())
    };
    match tokio::time::timeout(BODY_PATIENCE, reading).await {
        Ok(read) => read.map(|()| Bytes::from(bytes)),
        Err(_) => Err(Fault::new(StatusCode::REQUEST_TIMEOUT, code::TIMEOUT, "The body did not arrive in time.")),
    }
}

/// Why the extractor could not read a body, in our words.
struct Unreadable(Fault);

impl From<ParseRequestError> for Unreadable {
    fn from(error: ParseRequestError) -> Self {
        let text = error.to_string();
        let message = if matches!(error, ParseRequestError::UnsupportedBatch) || text.contains("did not match any") {
            "The body must be one JSON object with `query` (a string) and, if needed, `operationName` (a string), \
             `variables` and `extensions` (objects). Batches are not supported."
                .to_owned()
        } else {
            format!("The body is not JSON: {}.", text.trim_start_matches("Invalid request: ").trim_end_matches('.'))
        };
        Self(Fault::malformed(message))
    }
}

impl IntoResponse for Unreadable {
    fn into_response(self) -> Response {
        self.0.json("")
    }
}

/// The parameters of a `GET`. An empty parameter is an absent one.
fn queried(query: &str) -> Result<Parameters, Fault> {
    let (mut document, mut operation_name, mut variables) = (String::new(), None, Variables::default());
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()).filter(|(_, value)| !value.is_empty()) {
        match &*name {
            "query" => document = value.into_owned(),
            "operationName" => operation_name = Some(value.into_owned()),
            "variables" => variables = Variables::from_json(Value::Object(json_map("variables", &value)?)),
            "extensions" => drop(json_map("extensions", &value)?),
            _ => {}
        }
    }
    Parameters::new(document, operation_name, variables)
}

fn json_map(name: &str, text: &str) -> Result<Map<String, Value>, Fault> {
    serde_json::from_str::<Option<Map<String, Value>>>(text)
        .map(Option::unwrap_or_default)
        .map_err(|_| Fault::malformed(format!("`{name}` must be a JSON object.")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(value: &'static str) -> Option<Media> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(value));
        Media::accepted(&headers)
    }

    #[test]
    fn the_client_chooses_the_media_type() {
        assert_eq!(Media::accepted(&HeaderMap::new()), Some(Media::Json));
        for (value, expected) in [
            ("*/*", Some(Media::Json)),
            ("application/*", Some(Media::Json)),
            ("application/json", Some(Media::Json)),
            ("application/graphql-response+json", Some(Media::Graphql)),
            ("Application/GraphQL-Response+JSON; charset=utf-8", Some(Media::Graphql)),
            ("application/graphql-response+json, application/json;q=0.9", Some(Media::Graphql)),
            ("application/graphql-response+json;q=0.1, application/json;q=0.25", Some(Media::Json)),
            ("application/json, application/graphql-response+json", Some(Media::Json)),
            ("text/html, application/json;q=0.5", Some(Media::Json)),
            ("application/json;q=0", None),
            ("text/html", None),
            ("", None),
        ] {
            assert_eq!(accepted(value), expected, "{value}");
        }
    }

    #[test]
    fn quality_values_are_compared_exactly() {
        for (text, expected) in
            [("1", 1_000), ("1.0", 1_000), ("0.5", 500), ("0.123", 123), ("0", 0), ("2", 0), ("x", 0), ("0.1234", 123)]
        {
            assert_eq!(thousandths(text), expected, "{text}");
        }
    }

    #[test]
    fn only_json_in_utf_8_is_read() {
        let of = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(value));
            require_json(&headers).is_ok()
        };
        assert!(
            of("application/json") && of("application/JSON; charset=UTF-8") && of("application/json;charset=\"utf-8\"")
        );
        for wrong in
            ["text/plain", "application/json; charset=utf-16", "multipart/form-data", "application/graphql", ""]
        {
            assert!(!of(wrong), "{wrong}");
        }
        assert!(require_json(&HeaderMap::new()).is_err());
    }

    #[test]
    fn a_query_string_is_read_like_a_body() {
        let read = queried("query=%7Ba%7D&operationName=Q&variables=%7B%22x%22%3A1%7D&extensions=%7B%7D&other=1");
        let read = read.map_err(|fault| fault.message).unwrap();
        assert_eq!((read.query.as_str(), read.operation_name.as_deref()), ("{a}", Some("Q")));
        assert_eq!(read.variables.len(), 1);
        assert!(queried("query=%7Ba%7D&operationName=&variables=&extensions=").is_ok());
        for wrong in
            ["", "query=", "query=%7Ba%7D&variables=[1]", "query=%7Ba%7D&variables=x", "query=%7Ba%7D&extensions=1"]
        {
            assert!(queried(wrong).is_err(), "{wrong}");
        }
    }
}
