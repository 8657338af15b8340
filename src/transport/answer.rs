//! The one shape of everything that went wrong: `{"errors": [{message, locations, path, extensions: {code, requestId,
//! retryable}}]}`, over HTTP, over WebSocket and for uploads.

use std::borrow::Cow;
use std::collections::HashSet;
use std::time::Duration;

use async_graphql::{ErrorExtensionValues, Pos, ServerError};
use axum::{
    body::Body,
    http::{
        HeaderValue, StatusCode,
        header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::Response,
};
use serde_json::{Value, json};

use super::guard::Rejected;
use crate::{error::Error, store::is_outage};

/// Errors that one answer lists at most; a document of a few kilobytes can contain thousands.
const LISTED: usize = 20;

/// The codes that the transport itself gives, as clients read them in `extensions.code`.
pub(super) mod code {
    pub(in crate::transport) const BAD_USER_INPUT: &str = "BAD_USER_INPUT";
    pub(in crate::transport) const FORBIDDEN: &str = "FORBIDDEN";
    pub(in crate::transport) const INTERNAL: &str = "INTERNAL_SERVER_ERROR";
    pub(in crate::transport) const INVALID: &str = "GRAPHQL_VALIDATION_FAILED";
    pub(in crate::transport) const LIMIT: &str = "QUERY_LIMIT_EXCEEDED";
    pub(in crate::transport) const METHOD: &str = "METHOD_NOT_ALLOWED";
    pub(in crate::transport) const NOT_ACCEPTABLE: &str = "NOT_ACCEPTABLE";
    pub(in crate::transport) const NOT_FOUND: &str = "NOT_FOUND";
    pub(in crate::transport) const OPERATION: &str = "OPERATION_RESOLUTION_FAILURE";
    pub(in crate::transport) const PARSE: &str = "GRAPHQL_PARSE_FAILED";
    pub(in crate::transport) const RATE: &str = "RATE_LIMITED";
    pub(in crate::transport) const RESPONSE_TOO_LARGE: &str = "RESPONSE_TOO_LARGE";
    pub(in crate::transport) const TIMEOUT: &str = "TIMEOUT";
    pub(in crate::transport) const TOO_LARGE: &str = "PAYLOAD_TOO_LARGE";
    pub(in crate::transport) const UNAUTHENTICATED: &str = "UNAUTHENTICATED";
    pub(in crate::transport) const UNAVAILABLE: &str = "UNAVAILABLE";
    pub(in crate::transport) const UNKNOWN_DOCUMENT: &str = "PERSISTED_QUERY_NOT_FOUND";
    pub(in crate::transport) const UNSUPPORTED_MEDIA: &str = "UNSUPPORTED_MEDIA_TYPE";
    pub(in crate::transport) const UNTRUSTED_DOCUMENT: &str = "PERSISTED_QUERY_NOT_IN_LIST";
}

/// Whether the same request may succeed later without a change.
fn retryable(code: &str) -> bool {
    matches!(code, code::RATE | code::TIMEOUT | code::UNAVAILABLE)
}

/// What the caller of a broken assumption of ours is told; the cause is in the log under the request id.
const INTERNAL_MESSAGE: &str = "Something went wrong on our side. Report the request id if it happens again.";

/// Why a request was not executed.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    /// As exact as HTTP can say it; a profile may say it more simply.
    pub(super) status: StatusCode,
    pub(super) code: Cow<'static, str>,
    pub(super) message: String,
    pub(super) locations: Vec<Pos>,
    pub(super) retry_after: Option<Duration>,
    /// Whether it is about the GraphQL request and not about HTTP: clients that accept only `application/json` are told of it
    /// with the status 200, as they have always been.
    pub(super) of_graphql: bool,
}

impl Fault {
    /// A fault of the HTTP request, or of ours.
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code: Cow::Borrowed(code),
            message: message.into(),
            locations: Vec::new(),
            retry_after: None,
            of_graphql: false,
        }
    }

    /// A fault of a GraphQL request that arrived well.
    pub(super) fn of_graphql(code: &'static str, message: impl Into<String>, locations: Vec<Pos>) -> Self {
        Self { locations, of_graphql: true, ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message) }
    }

    /// An HTTP request whose JSON is not that of a GraphQL request.
    pub(super) fn misshapen(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code::BAD_USER_INPUT, message)
    }

    /// Somebody has as much of something as one may have.
    pub(super) fn crowded(message: impl Into<String>) -> Self {
        Self {
            retry_after: Some(Duration::from_secs(1)),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, code::RATE, message)
        }
    }

    /// A malformed HTTP request.
    pub(super) fn malformed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code::BAD_USER_INPUT, message)
    }

    /// A broken assumption of ours, which is logged here and once.
    pub(super) fn internal(cause: impl std::fmt::Display) -> Self {
        tracing::error!(%cause, "internal error");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, code::INTERNAL, INTERNAL_MESSAGE)
    }

    /// As an entry of `errors`.
    pub(super) fn entry(&self, request_id: &str) -> Value {
        let mut extensions = json!({ "code": self.code, "requestId": request_id, "retryable": retryable(&self.code) });
        let mut entry = json!({ "message": self.message });
        if let (Some(after), Some(extensions)) = (self.retry_after, extensions.as_object_mut()) {
            extensions.insert("retryAfterMs".to_owned(), json!(u64::try_from(after.as_millis()).unwrap_or(u64::MAX)));
        }
        if let Some(entry) = entry.as_object_mut() {
            if !self.locations.is_empty() {
                entry.insert("locations".to_owned(), json!(self.locations));
            }
            entry.insert("extensions".to_owned(), extensions);
        }
        entry
    }

    /// As an HTTP response in the given media type.
    pub(super) fn response(&self, status: StatusCode, media_type: &'static str, request_id: &str) -> Response {
        let mut response = body(status, media_type, &json!({ "errors": [self.entry(request_id)] }));
        if status == StatusCode::UNAUTHORIZED {
            let challenge = r#"Bearer realm="zerostate", error="invalid_token""#;
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if let Some(after) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
        }
        response
    }

    /// As a response of an endpoint that speaks plain JSON.
    pub(super) fn json(&self, request_id: &str) -> Response {
        self.response(self.status, JSON, request_id)
    }
}

/// The media type of plain JSON.
pub(super) const JSON: &str = "application/json; charset=utf-8";

/// A response with a JSON body.
pub(super) fn body(status: StatusCode, media_type: &'static str, value: &Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Unauthenticated(_) => Self::new(StatusCode::UNAUTHORIZED, code::UNAUTHENTICATED, message),
            Error::Forbidden(_) => Self::new(StatusCode::FORBIDDEN, code::FORBIDDEN, message),
            Error::NotFound(_) => Self::new(StatusCode::NOT_FOUND, code::NOT_FOUND, message),
            Error::Invalid { .. } => Self::malformed(message),
            Error::Refused(refusal) => Self {
                code: Cow::Owned(refusal.code),
                ..Self::new(StatusCode::CONFLICT, code::BAD_USER_INPUT, refusal.message)
            },
            Error::Throttled(after) => {
                Self { retry_after: Some(after), ..Self::new(StatusCode::TOO_MANY_REQUESTS, code::RATE, message) }
            }
            Error::Unavailable(_) | Error::BooksBroken => Self {
                retry_after: Some(Duration::from_secs(1)),
                ..Self::new(StatusCode::SERVICE_UNAVAILABLE, code::UNAVAILABLE, message)
            },
            Error::Internal(cause) if is_outage(cause.as_ref()) => {
                tracing::error!(error = %cause, "a request failed");
                Error::Unavailable("The service is too busy; try again.").into()
            }
            Error::Internal(cause) => Self::internal(cause),
        }
    }
}

impl From<Rejected> for Fault {
    fn from(rejected: Rejected) -> Self {
        match rejected {
            Rejected::Limit(message) => Self::of_graphql(code::LIMIT, message, Vec::new()),
            Rejected::Syntax(message, locations) => {
                Self { status: StatusCode::BAD_REQUEST, ..Self::of_graphql(code::PARSE, message, locations) }
            }
            Rejected::Invalid(message, locations) => Self::of_graphql(code::INVALID, message, locations),
        }
    }
}

/// Whether an executor's answer says that nothing was executed.
pub(super) fn is_request_error(response: &async_graphql::Response) -> bool {
    response.data == async_graphql::Value::Null
        && !response.errors.is_empty()
        && response.errors.iter().all(|error| error.path.is_empty())
}

/// Gives every error of an executor's answer its code, the request id and whether a retry can help, and lets out no text that
/// was not written for callers.
pub(super) fn complete(response: &mut async_graphql::Response, request_id: &str) {
    let unexecuted = is_request_error(response);
    // What is wrong in the same words in many places is told once.
    let mut told = HashSet::new();
    response.errors.retain(|error| !error.path.is_empty() || told.insert(error.message.clone()));
    response.errors.truncate(LISTED);
    for error in &mut response.errors {
        complete_error(error, unexecuted, request_id);
    }
}

fn complete_error(error: &mut ServerError, unexecuted: bool, request_id: &str) {
    let given = error.extensions.as_ref().and_then(|extensions| match extensions.get("code") {
        Some(async_graphql::Value::String(code)) => Some(code.clone()),
        Some(_) | None => None,
    });
    let code = given.unwrap_or_else(|| {
        if unexecuted {
            let too_much = error.message.starts_with("Query is ") || error.message.contains("recursion depth");
            return if too_much { code::LIMIT } else { code::INVALID }.to_owned();
        }
        // These come from reading arguments; whatever else has no code was not meant for callers.
        let of_arguments = ["Failed to parse \"", "Invalid value for ", "Expected input type \""];
        if of_arguments.iter().any(|start| error.message.starts_with(start)) {
            return code::BAD_USER_INPUT.to_owned();
        }
        tracing::error!(request_id, message = error.message, "a resolver failed without a code");
        INTERNAL_MESSAGE.clone_into(&mut error.message);
        code::INTERNAL.to_owned()
    });
    error.message = without_values(std::mem::take(&mut error.message));
    let extensions = error.extensions.get_or_insert_with(ErrorExtensionValues::default);
    extensions.set("retryable", retryable(&code));
    extensions.set("requestId", request_id);
    extensions.set("code", code);
}

/// A message without the value that did not fit: it may be a password that was put in the wrong place, and answers are kept by
/// proxies and in the logs of clients.
fn without_values(mut message: String) -> String {
    if let Some(at) = message.find("Expected input type \"").and_then(|start| find_after(&message, start, "\", found "))
    {
        message.truncate(at);
        message.push_str("\".");
    }
    if let Some(at) = find_after(&message, 0, "does not contain the value \"") {
        message.truncate(at);
        message.push_str("does not contain the value given");
    }
    message
}

/// Where `part` stands in a text behind `start`.
fn find_after(text: &str, start: usize, part: &str) -> Option<usize> {
    text.get(start..).and_then(|rest| rest.find(part)).map(|at| start.saturating_add(at))
}

#[cfg(test)]
mod tests {
    use async_graphql::{ErrorExtensions, PathSegment};

    use super::*;

    fn completed(errors: Vec<ServerError>) -> Value {
        let mut response = async_graphql::Response::from_errors(errors);
        complete(&mut response, "r1");
        serde_json::to_value(&response.errors).unwrap()
    }

    fn at_field(mut error: ServerError) -> ServerError {
        error.path = vec![PathSegment::Field("f".to_owned())];
        error
    }

    #[test]
    fn every_error_has_a_code_an_id_and_says_whether_to_retry() {
        let validation = completed(vec![ServerError::new("Unknown field", None)]);
        assert_eq!(
            validation[0]["extensions"],
            json!({"code": "GRAPHQL_VALIDATION_FAILED", "requestId": "r1", "retryable": false})
        );
        let complexity = completed(vec![ServerError::new("Query is too complex.", None)]);
        assert_eq!(complexity[0]["extensions"]["code"], "QUERY_LIMIT_EXCEEDED");
        let coded = async_graphql::Error::new("Later.").extend_with(|_, it| it.set("code", "UNAVAILABLE"));
        let coded = completed(vec![at_field(coded.into_server_error(Pos::default()))]);
        assert_eq!(coded[0]["extensions"], json!({"code": "UNAVAILABLE", "requestId": "r1", "retryable": true}));
        assert_eq!(coded[0]["message"], "Later.");
    }

    #[test]
    fn text_that_was_not_meant_for_callers_stays_inside() {
        let leaked = completed(vec![at_field(ServerError::new("password is hunter2", None))]);
        assert_eq!(leaked[0]["extensions"]["code"], "INTERNAL_SERVER_ERROR");
        assert!(!leaked.to_string().contains("hunter2"));
        let fault = Fault::from(Error::internal("password is hunter2"));
        assert!(!fault.entry("r1").to_string().contains("hunter2"));
        let argument = completed(vec![at_field(ServerError::new("Failed to parse \"Credits\": no", None))]);
        assert_eq!(argument[0]["extensions"]["code"], "BAD_USER_INPUT");
    }

    #[test]
    fn a_value_that_does_not_fit_is_not_repeated() {
        for (message, said) in [
            ("Expected input type \"LoginInput\", found \"hunter2\".", "Expected input type \"LoginInput\"."),
            (
                "Failed to parse \"LoginInput\": Expected input type \"String\", found [\"hunter2\"]. (occurred while parsing)",
                "Failed to parse \"LoginInput\": Expected input type \"String\".",
            ),
            (
                "Invalid value for argument \"x\", enumeration type \"E\" does not contain the value \"hunter2\"",
                "Invalid value for argument \"x\", enumeration type \"E\" does not contain the value given",
            ),
        ] {
            let answer = completed(vec![at_field(ServerError::new(message, None))]);
            assert_eq!(
                (&answer[0]["message"], &answer[0]["extensions"]["code"]),
                (&json!(said), &json!("BAD_USER_INPUT"))
            );
        }
    }

    #[test]
    fn the_list_of_errors_is_short() {
        let many = (0..5_000).map(|n| ServerError::new(format!("e{n}"), None)).collect();
        assert_eq!(completed(many).as_array().unwrap().len(), LISTED);
    }
}
