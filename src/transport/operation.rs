//! From the parameters of a GraphQL request to its answer, the same over HTTP and WebSocket.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_graphql::{
    Extensions, Positioned, Request, Response, ServerError, Variables,
    parser::types::{
        DocumentOperations, ExecutableDocument, OperationDefinition, OperationType, Selection, SelectionSet,
    },
};
use axum::http::{HeaderValue, StatusCode};
use futures_util::FutureExt;
use serde::Deserialize;
use serde_json::{Map, Value};
use tracing::Instrument;

use super::{
    Edge, Origin, RATE_LIMIT, RATE_LIMIT_POLICY,
    answer::{Fault, code, complete},
    budget::{Standing, Taken},
    cost,
    document::{Documents, Wanted},
    integers::unfit_variable,
    live::{Following, Reader},
    places::Holder,
    trail::{Known, Trail},
};
use crate::{
    app::App,
    caller::Caller,
    error::Error,
    graphql::{Budget, Remarks, Replays, Session},
    metrics::{self, Limited, RequestOutcome},
    trace::{Parent, TRACEPARENT, TRACESTATE},
};

/// The parameters of a GraphQL request as GraphQL over HTTP and graphql-transport-ws name them.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Written")]
pub(super) struct Parameters {
    document: Wanted,
    operation_name: Option<String>,
    variables: Variables,
    /// Whether the client wants to be told what the operation cost: its extensions are `{"cost": true}`.
    tell_cost: bool,
    /// The span of the client, as the extensions name it; only messages of a socket do.
    parent: Parent,
}

/// The parameters as they are written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    query: Option<String>,
    document_id: Option<String>,
    operation_name: Option<String>,
    #[serde(default, deserialize_with = "variables")]
    variables: Variables,
    extensions: Option<Map<String, Value>>,
}

impl TryFrom<Written> for Parameters {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let mut extensions = written.extensions.unwrap_or_default();
        let tell_cost = extensions.get("cost") == Some(&Value::Bool(true));
        let parent = parent_of(&extensions);
        let persisted = extensions.remove("persistedQuery");
        let document = Wanted::new(written.query.unwrap_or_default(), written.document_id, persisted)
            .map_err(|fault| fault.message)?;
        let Written { operation_name, variables, .. } = written;
        Ok(Self { document, operation_name, variables, tell_cost, parent })
    }
}

impl Parameters {
    /// Parameters that came in another form than JSON of this type.
    pub(super) fn new(
        query: String,
        document_id: Option<String>,
        operation_name: Option<String>,
        variables: Variables,
        extensions: &Extensions,
    ) -> Result<Self, Fault> {
        let persisted = extensions.get("persistedQuery").cloned().map(async_graphql::Value::into_json);
        let persisted = persisted.transpose().map_err(|_| Fault::misshapen("`extensions` must be a JSON object."))?;
        let tell_cost = extensions.get("cost") == Some(&async_graphql::Value::Boolean(true));
        let (document, parent) = (Wanted::new(query, document_id, persisted)?, Parent::default());
        Ok(Self { document, operation_name, variables, tell_cost, parent })
    }

    /// The span of the client, if the extensions name one.
    pub(super) fn parent(&self) -> Parent {
        self.parent.clone()
    }
}

/// The span that a map of a client names, where there are no headers.
pub(super) fn parent_of(map: &Map<String, Value>) -> Parent {
    let text = |key| map.get(key).and_then(Value::as_str);
    Parent::read(text(TRACEPARENT), text(TRACESTATE))
}

/// Variables are a map or null. The executor's own type would also take what is no map, for nothing.
fn variables<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Variables, D::Error> {
    let map = Option::<Map<String, Value>>::deserialize(deserializer)?.unwrap_or_default();
    Ok(Variables::from_json(Value::Object(map)))
}

/// A request that keeps the limits, with the one operation of its document that it is about.
#[derive(Clone)]
pub(super) struct Operation {
    pub(super) kind: OperationType,
    /// The name that the client gave.
    pub(super) name: Option<String>,
    pub(super) document: Arc<ExecutableDocument>,
    pub(super) variables: Variables,
    /// What it costs at most, as far as can be told before it runs.
    points: u64,
    tell_cost: bool,
    /// The SHA-256 of the document's text, if the request says it.
    pub(super) hash: Option<[u8; 32]>,
}

impl Operation {
    /// Checks the parameters up to what needs the schema.
    #[cfg(test)]
    pub(super) fn new(documents: &Documents, parameters: Parameters) -> Result<Self, Fault> {
        let hash = parameters.document.hash();
        Self::of(documents, parameters, hash)
    }

    /// The same where the hash of the document is known already.
    fn of(documents: &Documents, parameters: Parameters, hash: Option<[u8; 32]>) -> Result<Self, Fault> {
        let document = documents.find(&parameters.document, hash)?;
        let name = parameters.operation_name.filter(|name| !name.is_empty());
        let operation = select(&document, name.as_deref())?;
        require_variables(&operation.node, &parameters.variables)?;
        let kind = operation.node.ty;
        let points = cost::reckoned(&document, &operation.node, &parameters.variables);
        let Parameters { variables, tell_cost, .. } = parameters;
        Ok(Self { kind, name, document, variables, points, tell_cost, hash })
    }

    /// What there is to say of it before it runs.
    fn known(&self, caller: &Caller) -> Known {
        let in_document = match &self.document.operations {
            DocumentOperations::Multiple(operations) if operations.len() == 1 => operations.keys().next(),
            DocumentOperations::Single(_) | DocumentOperations::Multiple(_) => None,
        };
        Known {
            kind: Some(self.kind),
            name: self.name.clone().or_else(|| in_document.map(ToString::to_string)),
            document: self.hash,
            actor: caller.user_id(),
            points: Some(self.points),
        }
    }

    /// The operation itself with the variables, to be changed.
    pub(super) fn parts_mut(&mut self) -> (Option<&mut OperationDefinition>, &mut Variables) {
        let document = Arc::make_mut(&mut self.document);
        let operation = match (&mut document.operations, self.name.as_deref()) {
            (DocumentOperations::Single(operation), _) => Some(operation),
            (DocumentOperations::Multiple(operations), Some(name)) => operations.get_mut(name),
            (DocumentOperations::Multiple(operations), None) => operations.values_mut().next(),
        };
        (operation.map(|operation| &mut operation.node), &mut self.variables)
    }

    /// Leaves the line of an operation that is not carried out.
    pub(super) fn rejected(&self, caller: &Caller, fault: &Fault) {
        Trail::rejected(self.known(caller), fault);
    }

    /// Whether the operation asks for the schema itself.
    fn asks_for_the_schema(&self) -> bool {
        let fragments = &self.document.fragments;
        let mut sets: Vec<&SelectionSet> = match select(&self.document, self.name.as_deref()) {
            Ok(operation) => vec![&operation.node.selection_set.node],
            Err(_) => Vec::new(),
        };
        // The guard has refused documents whose fragments lead to themselves.
        while let Some(set) = sets.pop() {
            for item in &set.items {
                match &item.node {
                    Selection::Field(field) if matches!(field.node.name.node.as_str(), "__schema" | "__type") => {
                        return true;
                    }
                    Selection::Field(_) => {}
                    Selection::InlineFragment(inline) => sets.push(&inline.node.selection_set.node),
                    Selection::FragmentSpread(spread) => {
                        let named = fragments.get(&spread.node.fragment_name.node);
                        sets.extend(named.map(|fragment| &fragment.node.selection_set.node));
                    }
                }
            }
        }
        false
    }

    /// As the executor takes it, with the place where it will say which fields were answered before, and whether it reads from the
    /// replica, which it does only if it may.
    fn into_request(
        self,
        edge: &Edge,
        caller: Caller,
        request_id: &str,
        budget: Option<Budget>,
        remarks: Remarks,
        from_replica: bool,
    ) -> (Request, (Replays, bool)) {
        let mut request = Request::new(String::new()).variables(self.variables);
        request.operation_name = self.name;
        request.set_parsed_query(Arc::unwrap_or_clone(self.document));
        let session = Session::new(edge.app.clone(), caller, request_id.to_owned());
        let session = if from_replica { session.from_replica() } else { session };
        let session = session.with_budget(budget).with_remarks(remarks);
        let told = (session.replays(), session.reads_replica());
        (request.data(session), told)
    }
}

/// The operation that the request is about.
pub(super) fn select<'a>(
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

/// The executor would notice a missing variable, and one that does not fit, only where a field uses it, with other fields executed already.
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
    if let Some((name, at)) = unfit_variable(operation, given) {
        let message = format!("Variable \"${name}\" of type \"Int\" must be a whole number of 32 bits.");
        return Err(Fault::of_graphql(code::BAD_USER_INPUT, message, vec![at]));
    }
    Ok(())
}

impl Edge {
    /// Checks the parameters up to what needs the schema.
    pub(super) fn read(&self, parameters: Parameters, caller: &Caller) -> Result<Operation, Fault> {
        let (document, name) = (parameters.document.hash(), parameters.operation_name.clone());
        Operation::of(&self.documents, parameters, document).inspect_err(|fault| {
            let actor = caller.user_id();
            Trail::rejected(Known { kind: None, name, document, actor, points: None }, fault);
        })
    }

    /// Executes a query or a mutation and completes the errors of its answer.
    ///
    /// A mutation runs to its end even when the client goes away meanwhile, so that what it commits is also announced.
    pub(super) async fn execute(
        &self,
        operation: Operation,
        caller: Caller,
        origin: Origin,
        request_id: &str,
    ) -> Result<Response, Fault> {
        let mut trail = Trail::new(operation.known(&caller));
        let span = trail.span().clone();
        // Boxed: it is large, and whoever waits for it would carry it.
        let carried_out = Box::pin(self.carry_out(operation, caller, origin, request_id, &mut trail));
        let outcome = carried_out.instrument(span).await;
        match &outcome {
            Ok(response) => trail.answered(response, went(response).value()),
            Err(fault) => trail.faulted(fault),
        }
        outcome
    }

    async fn carry_out(
        &self,
        operation: Operation,
        caller: Caller,
        origin: Origin,
        request_id: &str,
        trail: &mut Trail,
    ) -> Result<Response, Fault> {
        let started = Instant::now();
        let closed = self.app.config().http.closed_introspection && caller.user_id().is_none();
        if closed && operation.asks_for_the_schema() {
            const SIGN_IN: &str =
                "Sign in to ask for the schema here; everybody may read it at /graphql/schema.graphql.";
            return Err(Error::Unauthenticated(SIGN_IN).into());
        }
        let most = self.app.config().limits.requests_per_caller;
        let Some(place) = self.requests.take(Holder::of(&caller, origin), most) else {
            self.app.metrics().limited(Limited::Requests);
            let message = format!("One caller may have {most} requests under way at a time.");
            return Err(Fault::crowded(message));
        };
        let (kind, points, tell_cost) = (operation.kind, operation.points, operation.tell_cost);
        let taken = self.charge(Holder::of(&caller, origin), points)?;
        let budget = taken.as_ref().map(|taken| self.budget(taken, points));
        let limit = self.app.config().limits.execution;
        let key =
            operation.hash.map(|document| self.passed.key(&document, operation.name.as_deref(), &operation.variables));
        let passed = key.as_ref().and_then(|key| self.passed.schema_for(key));
        let to_remember = key.filter(|_| passed.is_none());
        let schema = passed.unwrap_or(&self.schema).clone();
        let query = kind == OperationType::Query;
        // A query that the replica fails is answered by the database itself.
        let again = (query && self.app.store().replica().is_some()).then(|| (operation.clone(), caller.clone()));
        let (request, (replays, behind)) =
            operation.into_request(self, caller, request_id, budget, trail.remarks(), query);
        let again = again.filter(|_| behind).map(|(operation, caller)| {
            operation.into_request(self, caller, request_id, budget, trail.remarks(), false).0
        });
        let store = self.app.store().clone();
        let work = bounded(limit, async move {
            let mut response = schema.execute(request).await;
            if let Some(request) = again.filter(|_| went(&response) == RequestOutcome::ServerError) {
                store.replica_failed();
                response = schema.execute(request).await;
            }
            drop(place);
            response
        });
        let outcome = match kind {
            OperationType::Query => work.await,
            OperationType::Mutation => match self.app.tracker().spawn(work.in_current_span()).await {
                Ok(outcome) => outcome,
                Err(error) => Err(Fault::internal(error)),
            },
            OperationType::Subscription => Err(Fault::of_graphql(
                code::OPERATION,
                "A subscription is a stream: accept text/event-stream here, or connect to /graphql/ws with \
                 graphql-transport-ws.",
                Vec::new(),
            )),
        };
        let outcome = outcome.map(|mut response| {
            if let Some(key) = to_remember.filter(|_| response.errors.is_empty()) {
                self.passed.remember(key);
            }
            complete(&mut response, request_id);
            tell_replays(&mut response, &replays);
            let actual = cost::actual(kind, &response.data, points);
            trail.cost(actual);
            let standing = taken.map(|taken| {
                taken.spend(actual);
                taken.standing(Instant::now())
            });
            if let Some(standing) = &standing {
                tell_limits(&mut response, standing);
            }
            if tell_cost {
                response.extensions.insert("cost".to_owned(), told_cost(points, actual, standing));
            }
            response
        });
        let went = match &outcome {
            Ok(response) => went(response),
            Err(fault) if fault.status.is_server_error() => RequestOutcome::ServerError,
            Err(_) => RequestOutcome::ClientError,
        };
        self.app.metrics().request(kind_label(kind), went, started.elapsed());
        outcome
    }
}

impl Edge {
    /// Takes the points of an operation out of what its caller may spend.
    fn charge(&self, holder: Option<Holder>, points: u64) -> Result<Option<Taken>, Fault> {
        self.budgets.take(holder, points, Instant::now()).map_err(|missing| {
            self.app.metrics().limited(Limited::Points);
            let message = format!("This operation costs {points} points, and there are not enough left for now.");
            Fault { retry_after: Some(missing), ..Fault::crowded(message) }
        })
    }

    /// What a resolver can tell of the caller's points.
    fn budget(&self, taken: &Taken, points: u64) -> Budget {
        let standing = taken.standing(Instant::now());
        let reset_at = self.app.store().clock().now().after(standing.full_in);
        Budget { limit: standing.most, remaining: standing.remaining, reckoned: points, reset_at }
    }
}

/// The headers that tell a caller what it may still spend, after the draft of rate limit headers for HTTP.
fn tell_limits(response: &mut Response, standing: &Standing) {
    let seconds = |duration: Duration| duration.as_secs().max(1);
    let policy = format!("\"points\";q={};w={}", standing.most, seconds(standing.window));
    let state = format!("\"points\";r={};t={}", standing.remaining, seconds(standing.full_in));
    for (name, value) in [(RATE_LIMIT_POLICY, policy), (RATE_LIMIT, state)] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.http_headers.insert(name, value);
        }
    }
}

/// `extensions.cost`: what was reckoned before, what it came to, and what is left.
fn told_cost(reckoned: u64, actual: u64, standing: Option<Standing>) -> async_graphql::Value {
    let left = standing.map(|standing| {
        let full_in_ms = u64::try_from(standing.full_in.as_millis()).unwrap_or(u64::MAX);
        async_graphql::value!({ "limit": standing.most, "remaining": standing.remaining, "fullInMs": full_in_ms })
    });
    async_graphql::value!({ "reckoned": reckoned, "actual": actual, "budget": left })
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

impl Edge {
    /// What is told instead of an answer of `bytes` bytes if that is too long. Whatever was executed stays done.
    pub(super) fn too_long(&self, bytes: usize) -> Option<Fault> {
        let most = self.app.config().limits.response_bytes;
        (bytes > most).then(|| {
            let message = format!(
                "The operation was executed, but its answer is longer than {most} bytes. Ask for less; repeat a mutation \
                 with the same idempotency key."
            );
            Fault::new(StatusCode::OK, code::RESPONSE_TOO_LARGE, message)
        })
    }

    /// Follows a subscription.
    pub(super) fn follow(
        &self,
        operation: Operation,
        caller: Caller,
        origin: Origin,
        request_id: &str,
    ) -> Result<Following, Fault> {
        let mut trail = Trail::new(operation.known(&caller));
        let points = operation.points;
        let taken = self.charge(Holder::of(&caller, origin), points).inspect_err(|fault| trail.faulted(fault))?;
        let budget = taken.as_ref().map(|taken| self.budget(taken, points));
        Ok(Following::new(self, operation, Reader { caller, request_id: request_id.to_owned(), budget }, trail))
    }
}

/// A subscription as the metrics see it: active until this is dropped, and then one more request.
pub(super) struct Counted {
    app: App,
    pub(super) went: RequestOutcome,
    started: Instant,
    _active: metrics::Open,
}

impl Counted {
    pub(super) fn new(app: &App) -> Self {
        let active = app.metrics().subscription();
        Self { app: app.clone(), went: RequestOutcome::Ok, started: Instant::now(), _active: active }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.app.metrics().request(metrics::OperationType::Subscription, self.went, self.started.elapsed());
    }
}

/// Whether a subscription's first response says that there will be no stream: the errors are about the request or about the
/// one field itself, and there is no data.
pub(super) fn did_not_start(response: &Response) -> bool {
    response.data == async_graphql::Value::Null
        && !response.errors.is_empty()
        && response.errors.iter().all(|error| error.path.len() <= 1)
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
    use crate::config::Config;

    fn parameters(json: &str) -> serde_json::Result<Parameters> {
        serde_json::from_str(json)
    }

    fn documents() -> Documents {
        Documents::open(&Config::in_folder("unused")).unwrap()
    }

    fn fault(json: &str) -> Fault {
        match Operation::new(&documents(), parameters(json).unwrap()) {
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
            r#"{"extensions": {"persistedQuery": {"version": 1, "sha256Hash": "00"}}}"#,
            r#"{"documentId": "sha256:00"}"#,
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
            r#"{"extensions": {"persistedQuery": {"version": 2, "sha256Hash": "00"}}}"#,
            r#"{"documentId": 1}"#,
        ] {
            assert!(parameters(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_operation_has_to_be_clear() {
        assert_eq!(fault(r#"{"query": "query A { a } query B { b }"}"#).code, code::OPERATION);
        assert_eq!(fault(r#"{"query": "query A { a }", "operationName": "B"}"#).code, code::OPERATION);
        assert_eq!(fault(r#"{"query": "{ a }", "operationName": "B"}"#).code, code::OPERATION);
        let documents = documents();
        let both = r#"{"query": "query A { a } mutation B { b }", "operationName": "B"}"#;
        let operation = Operation::new(&documents, parameters(both).unwrap()).map_err(|fault| fault.message).unwrap();
        assert_eq!(operation.kind, OperationType::Mutation);
    }

    #[test]
    fn required_variables_are_required() {
        let missing = fault(r#"{"query": "query($id: ID!) { a(id: $id) }"}"#);
        assert_eq!(missing.message, "Variable \"$id\" of required type \"ID!\" was not provided.");
        assert_eq!(missing.code, code::BAD_USER_INPUT);
        fault(r#"{"query": "query($id: ID!) { a(id: $id) }", "variables": {"id": null}}"#);
        let documents = documents();
        for fine in [
            r#"{"query": "query($id: ID!) { a(id: $id) }", "variables": {"id": "x"}}"#,
            r#"{"query": "query($id: ID! = \"x\") { a(id: $id) }"}"#,
            r#"{"query": "query($id: ID) { a(id: $id) }"}"#,
        ] {
            assert!(Operation::new(&documents, parameters(fine).unwrap()).is_ok(), "{fine}");
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
