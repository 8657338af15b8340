//! GraphQL over HTTP: `POST` with JSON, `GET` for queries, one request at a time.
//!
//! The order of refusals: method (405), what the client accepts (406), what it sends (415), who it is (401), how much it sends
//! (413), then the GraphQL request. Clients that accept `text/event-stream` get the answer as a stream ([`sse`]).
//!
//! | | `audit` profile | `draft-2026-08` profile |
//! |---|---|---|
//! | a body that is not JSON, a document that is not GraphQL | 400 | 400 |
//! | JSON of another shape, a document or variables that do not fit the schema | 400 | 422 |
//! | the same to clients of `application/json`, where a GraphQL request arrived | 200 | the same codes |
//! | data with errors | 200 | 294, and 200 to clients of `application/json` |
//!
//! A GraphQL request that is refused answers without `data`. The clients of the older `application/json` read another status
//! than 200 as trouble between them and us, which is why the public audits ask for it.
//!
//! Of async-graphql-axum this uses the extractor that reads a `POST` body and the response type that writes an executed answer.
//! Its handler is not used: it runs mutations on `GET`, takes batches of any length and ignores what the client accepts. Nor
//! is its reading of a query string, which looks for `operation_name`.

use async_graphql::{Extensions, ParseRequestError, Variables, parser::types::OperationType};
use async_graphql_axum::{GraphQLRequest, GraphQLResponse};
use axum::{
    body::{Body, Bytes, HttpBody},
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
    Edge, LAST_EVENT_ID, Origin, RequestId,
    answer::{self, Fault, code, is_request_error},
    auth,
    operation::Parameters,
    sse,
};
use crate::config::{Limits, StatusProfile};

/// Data with errors, as the draft of GraphQL over HTTP has it.
const PARTIAL_SUCCESS: u16 = 294;

/// The media types of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Media {
    /// `application/graphql-response+json`: the status tells whether the request was executed.
    Graphql,
    /// `application/json`: the status tells whether there is a GraphQL answer at all.
    Json,
    /// `text/event-stream`: the answer is a stream of answers.
    Events,
}

impl Media {
    /// The media type of an answer that is no stream.
    fn name(self) -> &'static str {
        match self {
            Self::Graphql => "application/graphql-response+json; charset=utf-8",
            Self::Json | Self::Events => answer::JSON,
        }
    }

    /// The status of a request that is not executed.
    fn refused(self, profile: StatusProfile, status: StatusCode, of_graphql: bool) -> StatusCode {
        match (profile, self) {
            (StatusProfile::Audit, Self::Json) if of_graphql => StatusCode::OK,
            (StatusProfile::Audit, Self::Graphql | Self::Json | Self::Events)
                if status == StatusCode::UNPROCESSABLE_ENTITY =>
            {
                StatusCode::BAD_REQUEST
            }
            (StatusProfile::Audit | StatusProfile::Draft202608, Self::Graphql | Self::Json | Self::Events) => status,
        }
    }

    /// The status of a request that was executed.
    fn executed(self, profile: StatusProfile, with_errors: bool) -> StatusCode {
        match (profile, self) {
            (StatusProfile::Draft202608, Self::Graphql) if with_errors => {
                StatusCode::from_u16(PARTIAL_SUCCESS).unwrap_or(StatusCode::OK)
            }
            (StatusProfile::Draft202608 | StatusProfile::Audit, Self::Graphql | Self::Json | Self::Events) => {
                StatusCode::OK
            }
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
                "text/event-stream" => Self::Events,
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
    Extension(origin): Extension<Origin>,
    request: Request,
) -> Response {
    let media = Media::accepted(request.headers());
    let answered = match media {
        _ if !matches!(*request.method(), Method::GET | Method::HEAD | Method::POST) => {
            Err(Fault::new(StatusCode::METHOD_NOT_ALLOWED, code::METHOD, "Use POST, or GET for queries."))
        }
        Some(media) => answer(&edge, &id, origin, media, request).await,
        None => Err(Fault::new(
            StatusCode::NOT_ACCEPTABLE,
            code::NOT_ACCEPTABLE,
            "Accept application/graphql-response+json, application/json or text/event-stream.",
        )),
    };
    answered.unwrap_or_else(|fault| {
        let media = media.unwrap_or(Media::Json);
        if fault.status == StatusCode::METHOD_NOT_ALLOWED {
            let mut response = fault.response(fault.status, media.name(), &id);
            let allowed = if fault.of_graphql { "POST" } else { "GET, POST" };
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
            return response;
        }
        if media == Media::Events && fault.of_graphql {
            return sse::refused(&fault, &id);
        }
        let status = media.refused(edge.app.config().http.status_profile, fault.status, fault.of_graphql);
        fault.response(status, media.name(), &id)
    })
}

async fn answer(edge: &Edge, id: &str, origin: Origin, media: Media, request: Request) -> Result<Response, Fault> {
    let by_post = request.method() == Method::POST;
    if by_post {
        require_json(request.headers())?;
    }
    let token = auth::bearer(request.headers())?;
    let caller = auth::caller(&edge.app, token.as_deref()).await?;
    let last_event_id = request.headers().get(LAST_EVENT_ID).and_then(|id| id.to_str().ok()).map(str::to_owned);
    let parameters = if by_post {
        posted(request, edge.limits()).await?
    } else {
        queried(request.uri().query().unwrap_or_default())?
    };
    let operation = edge.read(parameters, &caller)?;
    // A subscription changes nothing, and browsers can follow one in no other way.
    let by_get = match operation.kind {
        OperationType::Query => true,
        OperationType::Subscription => media == Media::Events,
        OperationType::Mutation => false,
    };
    if !by_post && !by_get {
        let message = format!("Send the {} by POST; GET is for queries.", operation.kind);
        let status = StatusCode::METHOD_NOT_ALLOWED;
        let fault = Fault { status, ..Fault::of_graphql(code::METHOD, message, Vec::new()) };
        operation.rejected(&caller, &fault);
        return Err(fault);
    }
    if media == Media::Events {
        let follower = sse::Follower { caller, token, origin, last_event_id, request_id: id.to_owned() };
        return sse::open(edge, operation, follower);
    }
    let profile = edge.app.config().http.status_profile;
    let response = edge.execute(operation, caller, origin, id).await?;
    if is_request_error(&response) {
        let status = media.refused(profile, StatusCode::UNPROCESSABLE_ENTITY, true);
        return Ok(answer::body(status, media.name(), &json!({ "errors": response.errors })));
    }
    let with_errors = !response.errors.is_empty();
    let mut response = GraphQLResponse::from(response).into_response();
    let bytes = response.body().size_hint().lower();
    if let Some(fault) = edge.too_long(usize::try_from(bytes).unwrap_or(usize::MAX)) {
        let instead = json!({ "data": null, "errors": [fault.entry(id)] });
        return Ok(answer::body(media.executed(profile, true), media.name(), &instead));
    }
    *response.status_mut() = media.executed(profile, with_errors);
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
async fn posted(request: Request, limits: &Limits) -> Result<Parameters, Fault> {
    let (parts, body) = request.into_parts();
    let bytes = read(body, limits).await?;
    let request = Request::from_parts(parts, Body::from(bytes.clone()));
    let Unreadable(fault) = match GraphQLRequest::<Unreadable>::from_request(request, &()).await {
        Ok(read) => {
            let request = read.into_inner();
            let name = if request.query.is_empty() { document_id(&bytes)? } else { None };
            let (operation_name, extensions) = (request.operation_name, request.extensions);
            return Parameters::new(request.query, name, operation_name, request.variables, &extensions);
        }
        Err(unreadable) => unreadable,
    };
    Err(fault)
}

/// The name of the document in a body that brings no text, which the extractor does not read.
fn document_id(body: &[u8]) -> Result<Option<String>, Fault> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Named {
        document_id: Option<String>,
    }
    let named = serde_json::from_slice::<Named>(body);
    named.map(|named| named.document_id).map_err(|_| Fault::misshapen("`documentId` must be a string."))
}

/// A body of bounded length, within bounded time.
async fn read(body: Body, limits: &Limits) -> Result<Bytes, Fault> {
    let limit = limits.body_bytes;
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
    match tokio::time::timeout(limits.body_patience, reading).await {
        Ok(read) => read.map(|()| Bytes::from(bytes)),
        Err(_) => Err(Fault::new(StatusCode::REQUEST_TIMEOUT, code::TIMEOUT, "The body did not arrive in time.")),
    }
}

/// Why the extractor could not read a body, in our words.
struct Unreadable(Fault);

impl From<ParseRequestError> for Unreadable {
    fn from(error: ParseRequestError) -> Self {
        let text = error.to_string();
        if matches!(error, ParseRequestError::UnsupportedBatch) || text.contains("did not match any") {
            return Self(Fault::misshapen(
                "The body must be one JSON object with `query` (a string) and, if needed, `operationName` (a string), \
                 `variables` and `extensions` (objects). Batches are not supported.",
            ));
        }
        let reason = text.trim_start_matches("Invalid request: ").trim_end_matches('.');
        Self(Fault::malformed(format!("The body is not JSON: {reason}.")))
    }
}

impl IntoResponse for Unreadable {
    fn into_response(self) -> Response {
        self.0.json("")
    }
}

/// The parameters of a `GET`. An empty parameter is an absent one.
fn queried(query: &str) -> Result<Parameters, Fault> {
    let (mut document, mut document_id, mut operation_name) = (String::new(), None, None);
    let (mut variables, mut extensions) = (Variables::default(), Extensions::default());
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()).filter(|(_, value)| !value.is_empty()) {
        match &*name {
            "query" => document = value.into_owned(),
            "documentId" => document_id = Some(value.into_owned()),
            "operationName" => operation_name = Some(value.into_owned()),
            "variables" => variables = Variables::from_json(Value::Object(json_map("variables", &value)?)),
            "extensions" => {
                let map = json_map("extensions", &value)?;
                extensions = serde_json::from_value(Value::Object(map)).map_err(Fault::internal)?;
            }
            _ => {}
        }
    }
    Parameters::new(document, document_id, operation_name, variables, &extensions)
}

fn json_map(name: &str, text: &str) -> Result<Map<String, Value>, Fault> {
    serde_json::from_str::<Option<Map<String, Value>>>(text)
        .map(Option::unwrap_or_default)
        .map_err(|_| Fault::misshapen(format!("`{name}` must be a JSON object.")))
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
            ("text/event-stream", Some(Media::Events)),
            ("text/event-stream, application/json;q=0.9", Some(Media::Events)),
            ("application/json, text/event-stream", Some(Media::Json)),
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
        assert!(read.is_ok());
        assert!(queried("documentId=sha256:00").is_ok());
        let persisted = "%7B%22persistedQuery%22%3A%7B%22version%22%3A1%2C%22sha256Hash%22%3A%22ab%22%7D%7D";
        assert!(queried(&format!("extensions={persisted}")).is_ok());
        assert!(queried("query=%7Ba%7D&operationName=&variables=&extensions=").is_ok());
        for wrong in
            ["", "query=", "query=%7Ba%7D&variables=[1]", "query=%7Ba%7D&variables=x", "query=%7Ba%7D&extensions=1"]
        {
            assert!(queried(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_profile_decides_the_status() {
        use StatusProfile::{Audit, Draft202608 as Draft};
        let unprocessable = StatusCode::UNPROCESSABLE_ENTITY;
        for (media, profile, refused, partial) in [
            (Media::Graphql, Audit, 400, 200),
            (Media::Json, Audit, 200, 200),
            (Media::Graphql, Draft, 422, 294),
            (Media::Json, Draft, 422, 200),
        ] {
            assert_eq!(media.refused(profile, unprocessable, true).as_u16(), refused);
            assert_eq!(media.executed(profile, true).as_u16(), partial);
            assert_eq!(media.executed(profile, false).as_u16(), 200);
            assert_eq!(media.refused(profile, StatusCode::UNAUTHORIZED, false).as_u16(), 401);
        }
        assert_eq!(Media::Json.refused(Audit, unprocessable, false).as_u16(), 400);
    }
}
