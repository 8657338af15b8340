//! From the parameters of a GraphQL request to its answer, the same over HTTP and WebSocket.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use async_graphql::{
    Positioned, Request, Response, ServerError, Variables,
    parser::types::{DocumentOperations, ExecutableDocument, OperationDefinition, OperationType},
};
use axum::http::StatusCode;
use futures_util::FutureExt;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    Edge,
    answer::{Fault, code, complete},
    guard::Guard,
};
use crate::{
    caller::Caller,
    graphql::{Replays, Session},
    metrics::{self, RequestOutcome},
};

/// The parameters of a GraphQL request as GraphQL over HTTP and graphql-transport-ws name them.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Parameters {
    pub(super) query: String,
    #[serde(default)]
    pub(super) operation_name: Option<String>,
    #[serde(default, deserialize_with = "variables")]
    pub(super) variables: Variables,
    /// Nothing reads it yet; it has to be a map all the same.
    #[serde(default, rename = "extensions")]
    pub(super) _extensions: Option<Map<String, Value>>,
}

impl Parameters {
    /// Parameters that came in another form than JSON of this type.
    pub(super) fn new(query: String, operation_name: Option<String>, variables: Variables) -> Result<Self, Fault> {
        if query.trim().is_empty() {
            return Err(Fault::malformed("`query` must be a string with a GraphQL document."));
        }
        Ok(Self { query, operation_name, variables, _extensions: None })
    }
}

/// Variables are a map or null. The executor's own type would also take what is no map, for nothing.
fn variables<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Variables, D::Error> {
    let map = Option::<Map<String, Value>>::deserialize(deserializer)?.unwrap_or_default();
    Ok(Variables::from_json(Value::Object(map)))
}

/// A request that keeps the limits, with the one operation of its document that it is about.
pub(super) struct Operation {
    pub(super) kind: OperationType,
    /// The name that the client gave, for the log.
    name: Option<String>,
    request: Request,
}

impl Operation {
    /// Checks the parameters up to what needs the schema.
    pub(super) fn new(guard: &Guard, parameters: Parameters) -> Result<Self, Fault> {
        let document = guard.check(&parameters.query)?;
        let name = parameters.operation_name.filter(|name| !name.is_empty());
        let operation = select(&document, name.as_deref())?;
        require_variables(&operation.node, &parameters.variables)?;
        let kind = operation.node.ty;
        let mut request = Request::new(String::new()).variables(parameters.variables);
        request.operation_name.clone_from(&name);
        request.set_parsed_query(ExecutableDocument::clone(&document));
        Ok(Self { kind, name, request })
    }

    /// As the executor takes it, with the place where it will say which fields were answered before.
    pub(super) fn into_request(self, edge: &Edge, caller: Caller, request_id: &str) -> (Request, Replays) {
        let session = Session::new(edge.app.clone(), caller, request_id.to_owned());
        let replays = session.replays();
        (self.request.data(session), replays)
    }
}

/// The operation that the request is about.
fn select<'a>(
    document: &'a ExecutableDocument,
    name: Option<&str>,
) -> Result<&'a Positioned<OperationDefinition>, Fault> {
    let found = match (&document.operations, name) {
        (DocumentOperations::Single(operation), None) => Some(operation),
        (DocumentOperations::Multiple(operations), Some(name)) => operations.get(name),
        (DocumentOperations::Multiple(operations), None) if operations.len() == 1 => operations.values().next(),
        (DocumentOperations::Single(_), Some(_)) | (DocumentOperations::Multiple(_), None) => None,
    };
    found.ok_or_else(|| {
        let message = match name {
            Some(name) => format!("The document has no operation named \"{name}\"."),
            None => "The document has several operations; say which one in `operationName`.".to_owned(),
        };
        Fault::of_graphql(code::OPERATION, message, Vec::new())
    })
}

/// The executor would notice a missing variable only where a field uses it, with other fields executed already.
fn require_variables(operation: &OperationDefinition, given: &Variables) -> Result<(), Fault> {
    for definition in &operation.variable_definitions {
        let variable = &definition.node;
        let required = !variable.var_type.node.nullable && variable.default_value.is_none();
        let value = given.get(&variable.name.node);
        if required && matches!(value, None | Some(async_graphql::Value::Null)) {
            let message = format!(
                "Variable \"${}\" of required type \"{}\" was not provided.",
                variable.name.node, variable.var_type.node
            );
            return Err(Fault::of_graphql(code::BAD_USER_INPUT, message, vec![definition.pos]));
        }
    }
    Ok(())
}

impl Edge {
    /// Executes a query or a mutation and completes the errors of its answer.
    ///
    /// A mutation runs to its end even when the client goes away meanwhile, so that what it commits is also announced.
    pub(super) async fn execute(
        &self,
        operation: Operation,
        caller: Caller,
        request_id: &str,
    ) -> Result<Response, Fault> {
        let started = Instant::now();
        let (kind, name, actor) = (operation.kind, operation.name.clone(), caller.user_id());
        let limit = self.app.config().limits.execution;
        let (request, replays) = operation.into_request(self, caller, request_id);
        let schema = self.schema.clone();
        let work = bounded(limit, async move { schema.execute(request).await });
        let outcome = match kind {
            OperationType::Query => work.await,
            OperationType::Mutation => match self.app.tracker().spawn(work).await {
                Ok(outcome) => outcome,
                Err(error) => Err(Fault::internal(error)),
            },
            OperationType::Subscription => Err(Fault::of_graphql(
                code::OPERATION,
                "Subscriptions run over WebSocket: connect to /graphql/ws with graphql-transport-ws.",
                Vec::new(),
            )),
        };
        tracing::info!(
            request_id,
            operation = %kind,
            name,
            actor = actor.map(tracing::field::display),
            millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            errors = outcome.as_ref().map_or(1, |response| response.errors.len()),
            "graphql"
        );
        let outcome = outcome.map(|mut response| {
            complete(&mut response, request_id);
            tell_replays(&mut response, &replays);
            response
        });
        let went = match &outcome {
            Ok(response) => went(response),
            Err(fault) if fault.status.is_server_error() => RequestOutcome::ServerError,
            Err(_) => RequestOutcome::ClientError,
        };
        self.app.metrics().request(kind_label(kind), went, Some(started.elapsed()));
        outcome
    }
}

/// Says in the extensions of an answer which mutations of it were done before: `idempotentReplay` is true when any was, and
/// `replayed` has their names in the answer.
fn tell_replays(response: &mut Response, replays: &Replays) {
    let fields = replays.fields();
    if !fields.is_empty() {
        let fields = fields.into_iter().map(async_graphql::Value::from).collect();
        response.extensions.insert("idempotentReplay".to_owned(), true.into());
        response.extensions.insert("replayed".to_owned(), async_graphql::Value::List(fields));
    }
}

/// How a completed answer is counted: what is wrong with us outweighs what is wrong with the request.
pub(super) fn went(response: &Response) -> RequestOutcome {
    let ours = |error: &ServerError| {
        let code = error.extensions.as_ref().and_then(|extensions| extensions.get("code"));
        let ours = [code::INTERNAL, code::TIMEOUT, code::UNAVAILABLE];
        matches!(code, Some(async_graphql::Value::String(code)) if ours.contains(&code.as_str()))
    };
    if response.errors.is_empty() {
        RequestOutcome::Ok
    } else if response.errors.iter().any(ours) {
        RequestOutcome::ServerError
    } else {
        RequestOutcome::ClientError
    }
}

/// The kind of an operation as the metrics name it.
fn kind_label(kind: OperationType) -> metrics::OperationType {
    match kind {
        OperationType::Query => metrics::OperationType::Query,
        OperationType::Mutation => metrics::OperationType::Mutation,
        OperationType::Subscription => metrics::OperationType::Subscription,
    }
}

/// Runs a future for `limit` at most; a panic in it is an answer too.
async fn bounded<T>(limit: Duration, work: impl Future<Output = T>) -> Result<T, Fault> {
    match tokio::time::timeout(limit, AssertUnwindSafe(work).catch_unwind()).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(panic)) => Err(panicked(panic.as_ref())),
        Err(_) => {
            let message = "The operation took too long and was given up. Retry it with the same idempotency key.";
            Err(Fault::new(StatusCode::SERVICE_UNAVAILABLE, code::TIMEOUT, message))
        }
    }
}

/// What a caller is told of a panic; its text goes into the log.
pub(super) fn panicked(panic: &(dyn Any + Send)) -> Fault {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Fault::internal(format_args!("panic: {}", text.unwrap_or("without a message")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;

    fn parameters(json: &str) -> serde_json::Result<Parameters> {
        serde_json::from_str(json)
    }

    fn fault(json: &str) -> Fault {
        match Operation::new(&Guard::new(Limits::default()), parameters(json).unwrap()) {
            Ok(_) => panic!("{json} passed"),
            Err(fault) => fault,
        }
    }

    #[test]
    fn parameters_have_their_types() {
        for right in [
            r#"{"query": "{ a }"}"#,
            r#"{"query": "{ a }", "operationName": null, "variables": null, "extensions": null}"#,
            r#"{"query": "{ a }", "operationName": "Q", "variables": {"a": [1]}, "extensions": {"b": 2}, "other": 1}"#,
        ] {
            assert!(parameters(right).is_ok(), "{right}");
        }
        for wrong in [
            "{}",
            "[]",
            r#"[{"query": "{ a }"}]"#,
            r#"{"query": 1}"#,
            r#"{"query": "{ a }", "operationName": 1}"#,
            r#"{"query": "{ a }", "variables": "x"}"#,
            r#"{"query": "{ a }", "variables": []}"#,
            r#"{"query": "{ a }", "extensions": "x"}"#,
        ] {
            assert!(parameters(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_operation_has_to_be_clear() {
        assert_eq!(fault(r#"{"query": "query A { a } query B { b }"}"#).code, code::OPERATION);
        assert_eq!(fault(r#"{"query": "query A { a }", "operationName": "B"}"#).code, code::OPERATION);
        assert_eq!(fault(r#"{"query": "{ a }", "operationName": "B"}"#).code, code::OPERATION);
        let guard = Guard::new(Limits::default());
        let both = r#"{"query": "query A { a } mutation B { b }", "operationName": "B"}"#;
        let operation = Operation::new(&guard, parameters(both).unwrap()).map_err(|fault| fault.message).unwrap();
        assert_eq!(operation.kind, OperationType::Mutation);
    }

    #[test]
    fn required_variables_are_required() {
        let missing = fault(r#"{"query": "query($id: ID!) { a(id: $id) }"}"#);
        assert_eq!(missing.message, "Variable \"$id\" of required type \"ID!\" was not provided.");
        assert_eq!(missing.code, code::BAD_USER_INPUT);
        fault(r#"{"query": "query($id: ID!) { a(id: $id) }", "variables": {"id": null}}"#);
        let guard = Guard::new(Limits::default());
        for fine in [
            r#"{"query": "query($id: ID!) { a(id: $id) }", "variables": {"id": "x"}}"#,
            r#"{"query": "query($id: ID! = \"x\") { a(id: $id) }"}"#,
            r#"{"query": "query($id: ID) { a(id: $id) }"}"#,
        ] {
            assert!(Operation::new(&guard, parameters(fine).unwrap()).is_ok(), "{fine}");
        }
    }

    #[tokio::test]
    async fn a_panic_and_a_timeout_are_answers() {
        let limit = Duration::from_millis(20);
        assert!(matches!(bounded(limit, async { 1 }).await, Ok(1)));
        let fault = bounded(limit, async { panic!("secret") }).await.map(|(): ()| ()).unwrap_err();
        assert_eq!((fault.status, &*fault.code), (StatusCode::INTERNAL_SERVER_ERROR, code::INTERNAL));
        assert!(!fault.message.contains("secret"));
        let fault = bounded(limit, std::future::pending::<()>()).await.unwrap_err();
        assert_eq!((fault.status, &*fault.code), (StatusCode::SERVICE_UNAVAILABLE, code::TIMEOUT));
    }
}
