//! Traces and the lines of operations, of the real program and with a collector of ours: that a request is one trace from the transport
//! to the statements, what stands in it, and that a collector which is not well stops nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use futures_util::future::join_all;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value as Any},
    trace::v1::{Span, span::SpanKind, status::StatusCode as SpanStatus},
};
use prost::Message;
use reqwest::Method;
use serde_json::{Value, json};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::{
    cli::command,
    faults::program::ADMIN,
    world::{Client, Database, PASSWORD, PATIENCE, Socket, echoing, fresh_key, http, send, sha256},
};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// What must not be read in any trace or line.
const SECRETS: &[&str] = &[
    PASSWORD,
    "canary-input-4716",
    "canary-output-4717",
    "canary-path-4718",
    "canary-collector-4719",
    "canary-argument-4720",
    "ada@example.com",
    ADMIN,
];

/// How a collector behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Takes,
    Fails,
    Hangs,
}

/// A collector of ours, which is also the receiver of a webhook.
struct Collector {
    address: SocketAddr,
    batches: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    /// The headers of what came, for spans and for messages.
    heads: Arc<Mutex<Vec<(&'static str, HeaderMap)>>>,
    asked: Arc<AtomicUsize>,
    _serving: AbortOnDropHandle<()>,
}

impl Collector {
    async fn start(manner: Manner) -> Self {
        let (batches, asked) = (Arc::<Mutex<Vec<_>>>::default(), Arc::new(AtomicUsize::new(0)));
        let heads = Arc::<Mutex<Vec<(&str, HeaderMap)>>>::default();
        let (taken, seen, counted) = (Arc::clone(&batches), Arc::clone(&heads), Arc::clone(&asked));
        let told = Arc::clone(&heads);
        let spans = move |head: HeaderMap, body: Bytes| {
            counted.fetch_add(1, Ordering::SeqCst);
            seen.lock().unwrap().push(("spans", head));
            taken.lock().unwrap().push(ExportTraceServiceRequest::decode(body).unwrap());
            async move {
                match manner {
                    Manner::Takes => StatusCode::OK,
                    Manner::Fails => StatusCode::INTERNAL_SERVER_ERROR,
                    Manner::Hangs => std::future::pending().await,
                }
            }
        };
        let message = async move |head: HeaderMap| told.lock().unwrap().push(("message", head));
        let router = Router::new().route("/v1/traces", post(spans)).route("/canary-path-4718", post(message));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = async move { axum::serve(listener, router).await.unwrap() };
        Self { address, batches, heads, asked, _serving: AbortOnDropHandle::new(TaskTracker::new().spawn(serving)) }
    }

    fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    fn spans(&self) -> Vec<Span> {
        let batches = self.batches.lock().unwrap();
        let scopes = batches.iter().flat_map(|batch| &batch.resource_spans).flat_map(|of| &of.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }

    fn resource(&self) -> BTreeMap<String, String> {
        let batches = self.batches.lock().unwrap();
        texts(&batches[0].resource_spans[0].resource.as_ref().unwrap().attributes)
    }

    fn heads(&self, of: &str) -> Vec<HeaderMap> {
        self.heads.lock().unwrap().iter().filter(|(what, _)| *what == of).map(|(_, head)| head.clone()).collect()
    }
}

/// The service with its variables, which dies with this value.
struct Service {
    _folder: tempfile::TempDir,
    log: PathBuf,
    address: SocketAddr,
    child: Child,
    _database: Database,
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program(variables: &[(&str, &str)]) -> Command {
    let mut program = command("127.0.0.1:1".parse().unwrap(), None, &[]);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("OTEL_")) {
        program.env_remove(name);
    }
    program.envs(variables.iter().copied()).stdin(Stdio::null());
    program
}

impl Service {
    async fn start(variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let log = folder.path().join("log");
        let database = Database::empty(folder.path()).await;
        let mut program = program(variables);
        program
            .args(["serve", "--host", "127.0.0.1", "--port", &address.port().to_string()])
            .env("DATABASE_URL", database.url())
            .envs([("ZEROSTATE_ADMIN_EMAIL", ADMIN), ("ZEROSTATE_ADMIN_PASSWORD", PASSWORD)])
            .env("ZEROSTATE_DATA", folder.path())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap());
        let child = program.spawn().unwrap();
        let service = Self { _folder: folder, log, address, child, _database: database };
        let (ready, since) = (format!("http://{address}/ready"), Instant::now());
        while !http().get(&ready).send().await.is_ok_and(|reply| reply.status() == 200) {
            assert!(since.elapsed() < Duration::from_mins(1), "it does not start: {}", service.said());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        service
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// The lines of the log.
    fn lines(&self) -> Vec<Value> {
        let line = |line: &str| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
        self.said().lines().map(line).collect()
    }

    /// The lines of operations.
    fn operations(&self) -> Vec<Value> {
        self.lines().into_iter().filter(|line| line["target"] == "zerostate::operation").collect()
    }

    fn client(&self) -> Client {
        Client::new(http(), self.address)
    }

    /// Tells it to end. Answers how long that took.
    async fn ends(&mut self) -> Duration {
        let since = Instant::now();
        let told = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(told.success());
        loop {
            if let Some(ended) = self.child.try_wait().unwrap() {
                assert!(ended.success(), "{ended}: {}", self.said());
                return since.elapsed();
            }
            assert!(since.elapsed() < Duration::from_secs(30), "it does not end: {}", self.said());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn text(value: Option<&Any>) -> String {
    match value {
        Some(Any::StringValue(text)) => text.clone(),
        Some(Any::IntValue(number)) => number.to_string(),
        Some(Any::BoolValue(is)) => is.to_string(),
        other => panic!("{other:?}"),
    }
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let one = |it: &KeyValue| (it.key.clone(), text(it.value.as_ref().and_then(|value| value.value.as_ref())));
    attributes.iter().map(one).collect()
}

/// The text of an attribute, or nothing.
fn said_by(span: &Span, key: &str) -> String {
    texts(&span.attributes).remove(key).unwrap_or_default()
}

/// Whoever knows the name of the span above a span.
struct Tree(BTreeMap<Vec<u8>, Span>);

impl Tree {
    fn new(spans: &[Span]) -> Self {
        let known: BTreeMap<_, _> = spans.iter().map(|span| (span.span_id.clone(), span.clone())).collect();
        assert_eq!(known.len(), spans.len(), "no span is exported twice");
        Self(known)
    }

    fn above(&self, span: &Span) -> Option<&Span> {
        self.0.get(&span.parent_span_id)
    }

    /// The names from the top down to a span.
    fn path(&self, span: &Span) -> Vec<String> {
        let mut path = self.above(span).map(|above| self.path(above)).unwrap_or_default();
        path.push(span.name.clone());
        path
    }
}

/// Executes a document as somebody, in a span of theirs.
async fn within(client: &Client, document: &str, name: &str, variables: Value, headers: &[(&str, &str)]) -> Value {
    let body = json!({ "query": document, "operationName": name, "variables": variables }).to_string();
    let mut request = client.request(Method::POST, "/graphql").header("content-type", "application/json").body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let reply = send(request).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}

async fn wait_until(what: &str, is: impl AsyncFn() -> bool) {
    let since = Instant::now();
    while !is().await {
        assert!(since.elapsed() < PATIENCE * 3, "{what} does not happen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn sign_in(nobody: &Client, email: &str) -> Client {
    let login = json!({ "email": email, "password": PASSWORD });
    let tokens = nobody.call("login", "tokens { accessToken user { id } }", login).await;
    nobody.clone().signed_in(email, &tokens["tokens"])
}

const POST: &str =
    "mutation Post($input: ExecuteTaskInput!) { executeTask(input: $input) { task { id } userErrors { code } } }";

fn task(capability: &str) -> Value {
    json!({ "input": {
        "title": "one", "capabilities": [capability], "input": "canary-input-4716", "budget": "10", "idempotencyKey": fresh_key(),
    } })
}

/// A market with a buyer and two agents, a task for each of them, sockets, and everything that is refused.
async fn story(service: &Service, collector: &Collector) -> String {
    let nobody = service.client();
    let join = async |name: &str| {
        let input = json!({ "email": format!("{name}@example.com"), "displayName": name, "password": PASSWORD });
        let made = nobody.call("registerUser", "tokens { accessToken user { id } }", input).await;
        nobody.clone().signed_in(name, &made["tokens"])
    };
    let (ada, bob) = (join("ada").await, join("bob").await);
    let admin = sign_in(&nobody, ADMIN).await;
    let issue = json!({ "userId": ada.id(), "amount": "100", "reference": "first" });
    admin.call("issueCredits", "transfer { id }", issue).await;
    let mut outside = String::new();
    for (name, runtime) in [("hosted", "HOSTED"), ("outside", "EXTERNAL")] {
        let input = json!({ "name": name, "capabilities": [name], "runtime": runtime, "price": "1" });
        let agent = bob.call("registerAgent", "agent { id }", input).await["agent"]["id"].take();
        let agent = agent.as_str().unwrap();
        if runtime == "HOSTED" {
            assert_eq!(bob.upload(agent, echoing()).await.status, 200);
        } else {
            let url = format!("{}/canary-path-4718", collector.endpoint());
            agent.clone_into(&mut outside);
            bob.call("setWebhook", "secret", json!({ "agentId": agent, "url": url })).await;
        }
    }
    let parent = format!("00-{TRACE}-{CALLER}-01");
    let headers = [("traceparent", parent.as_str()), ("tracestate", "vendor=1"), ("x-request-id", "request-1")];
    let posted = within(&ada, POST, "Post", task("hosted"), &headers).await;
    let id = posted["data"]["executeTask"]["task"]["id"].as_str().unwrap_or_else(|| panic!("{posted}")).to_owned();
    let done = async || {
        let query = "query Look($id: ID!) { task(id: $id) { status } }";
        ada.query(query, json!({ "id": id })).await["task"]["status"] == "COMPLETED"
    };
    wait_until("the end of the task", done).await;
    let auction = ada.open(json!({ "capabilities": ["outside"], "closeAfterBids": 1, "startTimeout": "P7D" })).await;
    bob.bid(&auction, outside.parse().unwrap(), "3").await;
    wait_until("a message", async || !collector.heads("message").is_empty()).await;

    // A refusal in the data, an error, what cannot be read, and headers that are broken.
    let mut dear = task("hosted");
    dear["input"]["budget"] = json!("100000");
    within(&ada, POST, "Post", dear, &[("x-request-id", "request-2")]).await;
    let login = "mutation In($input: LoginInput!) { login(input: $input) { userErrors { code } } }";
    let wrong = json!({ "input": { "email": "ada@example.com", "password": "canary-argument-4720" } });
    within(&nobody, login, "In", wrong, &[("traceparent", "00-canary-argument-4720"), ("x-request-id", "request-3")])
        .await;
    nobody.raw("{ canary-argument-4720 ", &json!({})).await;
    nobody.raw("query($a: ID!) { task(id: $a) { id } }", &json!({ "a": "canary-argument-4720" })).await;

    // Over a socket: the span of the connection, and that of a message.
    let mut socket = Socket::open(service.address, Some("graphql-transport-ws"), None).await.unwrap();
    let of = |span: &str| format!("00-{TRACE}-{span}-01");
    let payload = json!({ "authorization": ada.token(), "traceparent": of("00000000000000c1") });
    socket.send(json!({ "type": "connection_init", "payload": payload })).await;
    assert_eq!(socket.message().await["type"], "connection_ack");
    for (id, extensions) in [
        ("1", json!({})),
        ("2", json!({ "traceparent": of("00000000000000c2") })),
        ("3", json!({ "traceparent": 17 })),
        ("4", json!({ "traceparent": "nonsense" })),
    ] {
        let payload = json!({ "query": "query Who { me { id } }", "extensions": extensions });
        socket.send(json!({ "type": "subscribe", "id": id, "payload": payload })).await;
        assert_eq!(socket.message().await["payload"]["data"]["me"]["id"], ada.id());
        assert_eq!(socket.message().await["type"], "complete");
    }
    // What happened to the task, up to its end.
    let from = ada.query("query From($id: ID!) { task(id: $id) { auction { id } } }", json!({ "id": id })).await;
    assert!(from["task"]["auction"]["id"].is_string());
    let document = "subscription Seen($id: ID!) { taskEvents(taskId: $id, after: \"ZTEuMA\") { kind ... on TaskEvent { agent { name } } } }";
    socket.subscribe("5", document, json!({ "id": id })).await;
    let mut seen = 0;
    while socket.message().await["type"] == "next" {
        seen += 1;
    }
    assert!(seen > 2, "{seen}");
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_one_trace_from_the_transport_to_the_statements() {
    let collector = Collector::start(Manner::Takes).await;
    let endpoint = collector.endpoint();
    let mut service = Service::start(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-collector-key=canary-collector-4719"),
        ("OTEL_SERVICE_NAME", "market-7"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test"),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
        ("RUST_LOG", "info,zerostate=debug,sea_orm=debug,sqlx=debug"),
        ("ZEROSTATE_ALLOW_PRIVATE_WEBHOOKS", "true"),
    ])
    .await;
    let task = Box::pin(story(&service, &collector)).await;
    service.ends().await;
    let spans = collector.spans();
    let tree = Tree::new(&spans);

    // The tree of the request, in the caller's trace.
    let ours: Vec<&Span> = spans.iter().filter(|span| hex::encode(&span.trace_id) == TRACE).collect();
    let root = ours.iter().find(|span| hex::encode(&span.parent_span_id) == CALLER).expect("the request");
    assert_eq!((root.name.as_str(), root.kind()), ("POST /graphql", SpanKind::Server));
    assert_eq!(root.trace_state, "vendor=1");
    let of_root = texts(&root.attributes);
    for (key, value) in [
        ("http.request.method", "POST"),
        ("http.route", "/graphql"),
        ("http.response.status_code", "200"),
        ("zerostate.request_id", "request-1"),
    ] {
        assert_eq!(of_root.get(key).map(String::as_str), Some(value), "{key}: {of_root:?}");
    }
    let below: Vec<&&Span> = ours.iter().filter(|span| tree.path(span)[0] == "POST /graphql").collect();
    let paths: BTreeSet<Vec<String>> = below.iter().map(|span| tree.path(span)).collect();
    for path in [
        &["POST /graphql", "mutation"][..],
        &["POST /graphql", "mutation", "unit of work"],
        &["POST /graphql", "mutation", "unit of work", "sea_orm.query_one"],
    ] {
        assert!(paths.iter().any(|known| known == path), "no {path:?} in {paths:#?}");
    }
    // Units of work that go together share a begin and a commit, which stand in the trace of one of them, perhaps of one that is in
    // nobody's trace. So they are looked for in all mutations of the story.
    let every: BTreeSet<Vec<String>> = spans.iter().map(|span| tree.path(span)).collect();
    for end in ["sea_orm.begin", "sea_orm.commit"] {
        let path = ["POST /graphql", "mutation", "unit of work", end];
        assert!(every.iter().any(|known| *known == path), "no {path:?} in {every:#?}");
    }
    let named = |name: &str| below.iter().find(|span| span.name == name).unwrap();
    let operation = texts(&named("mutation").attributes);
    assert_eq!(operation["graphql.operation.name"], "Post");
    assert_eq!(operation["zerostate.outcome"], "ok");
    assert!(operation["user.id"].starts_with("user_") && operation["zerostate.cost"].parse::<u64>().unwrap() > 0);
    assert_eq!(operation["zerostate.document"], sha256(POST));
    let work = texts(&named("unit of work").attributes);
    assert_eq!((work["zerostate.mutation"].as_str(), work["zerostate.outcome"].as_str()), ("executeTask", "committed"));
    assert!(work["code.function.name"].starts_with("zerostate::graphql::task"), "{work:?}");
    assert!(work["zerostate.events"].parse::<u64>().unwrap() > 1);

    // What is done for it later begins traces of its own, which are linked with it.
    let attempt = spans.iter().find(|span| span.name == "attempt" && said_by(span, "zerostate.task") == task).unwrap();
    assert!(attempt.parent_span_id.is_empty() && hex::encode(&attempt.trace_id) != TRACE);
    let links: Vec<String> = attempt.links.iter().map(|link| hex::encode(&link.trace_id)).collect();
    assert_eq!(links, [TRACE]);
    assert_eq!(
        (said_by(attempt, "zerostate.attempt"), said_by(attempt, "zerostate.outcome")),
        ("1".into(), "succeeded".into())
    );
    // Its commit may stand in the trace of another unit of work, which it shared.
    let settled = spans
        .iter()
        .filter(|span| span.name == "unit of work" && span.trace_id == attempt.trace_id)
        .filter(|span| said_by(span, "zerostate.outcome") == "committed")
        .count();
    assert!(settled >= 1);

    // A message takes its trace along and names the host alone.
    let message = spans.iter().find(|span| span.name == "webhook").unwrap();
    assert_eq!((message.kind(), said_by(message, "server.address")), (SpanKind::Client, "127.0.0.1".into()));
    assert_eq!(said_by(message, "http.response.status_code"), "200");
    let sent: Vec<String> =
        collector.heads("message").iter().map(|head| head["traceparent"].to_str().unwrap().to_owned()).collect();
    let expected = format!("00-{}-{}-01", hex::encode(&message.trace_id), hex::encode(&message.span_id));
    assert!(sent.contains(&expected), "{sent:?} {expected}");

    // Over a socket the message goes before the connection.
    let of_socket = spans.iter().filter(|span| span.name == "WS /graphql/ws");
    let parents: BTreeMap<String, usize> = of_socket.fold(BTreeMap::new(), |mut known, span| {
        *known.entry(hex::encode(&span.parent_span_id)).or_default() += 1;
        known
    });
    assert_eq!(parents, BTreeMap::from([("00000000000000c1".into(), 4), ("00000000000000c2".into(), 1)]));

    // A subscription may last for days; what it asks for again and again is no part of its trace.
    let subscription = spans.iter().find(|span| span.name == "subscription").unwrap();
    assert_eq!(said_by(subscription, "graphql.operation.name"), "Seen");
    assert!(spans.iter().all(|span| span.parent_span_id != subscription.span_id));

    // Statements stand inside something, without values; probes and the export itself leave no span; failures are marked.
    let tops: BTreeSet<&str> =
        spans.iter().filter(|span| tree.above(span).is_none()).map(|span| span.name.as_str()).collect();
    let known = [
        "POST /graphql",
        "PUT /agents/{id}/module",
        "GET /graphql/ws",
        "WS /graphql/ws",
        "attempt",
        "sweep",
        "webhook",
    ];
    assert!(tops.iter().all(|name| known.contains(name)), "{tops:?}");
    for span in spans.iter().filter(|span| span.name.starts_with("sea_orm.")) {
        let statement = said_by(span, "db.query.text");
        assert!(!statement.contains('\''), "{statement}");
        assert!(span.events.is_empty() && ["sqlite", "postgresql"].contains(&said_by(span, "db.system.name").as_str()));
    }
    let inserted = |span: &&Span| said_by(span, "db.query.text").starts_with("INSERT INTO \"tasks\"");
    assert!(spans.iter().any(|span| inserted(&span)), "the text of a statement is there");
    assert!(spans.iter().all(|span| span.status.as_ref().is_none_or(|status| status.code() != SpanStatus::Error)));

    // Who sends them, and with what.
    let resource = collector.resource();
    assert_eq!((resource["service.name"].as_str(), resource["deployment.environment"].as_str()), ("market-7", "test"));
    assert_eq!(resource["service.version"], env!("CARGO_PKG_VERSION"));
    assert!(collector.heads("spans").iter().all(|head| head["x-collector-key"] == "canary-collector-4719"));

    // No secret anywhere.
    let all = format!("{spans:?}") + &service.said();
    let found: Vec<&&str> = SECRETS.iter().filter(|secret| all.contains(**secret)).collect();
    assert!(
        found.is_empty(),
        "{found:?} in {}",
        all.lines().filter(|line| found.iter().any(|it| line.contains(**it))).collect::<String>()
    );

    lines(&service, root);
}

/// The keys of the line of an operation that every one has, and all that there are.
const ALWAYS: &[&str] =
    &["timestamp", "level", "target", "message", "request_id", "trace_id", "span_id", "outcome", "cost", "ms"];
const ALL: &[&str] = &[
    "actor",
    "code",
    "cost",
    "document",
    "level",
    "message",
    "ms",
    "name",
    "outcome",
    "request_id",
    "span_id",
    "target",
    "timestamp",
    "trace_id",
    "type",
];

/// Each operation left one line, which says these things and no other.
fn lines(service: &Service, root: &Span) {
    let operations = service.operations();
    for line in &operations {
        let keys: BTreeSet<&str> = line.as_object().unwrap().keys().map(String::as_str).collect();
        assert!(keys.iter().all(|key| ALL.contains(key)), "{line}");
        let missing: Vec<_> = ALWAYS.iter().filter(|key| !keys.contains(**key) && line["type"].is_string()).collect();
        assert!(missing.is_empty(), "{missing:?} in {line}");
        assert_eq!((&line["message"], &line["level"]), (&json!("graphql"), &json!("INFO")), "{line}");
    }
    let of = |request: &str| {
        let found: Vec<&Value> = operations.iter().filter(|line| line["request_id"] == request).collect();
        assert_eq!(found.len(), 1, "{request}: {found:?}");
        found[0]
    };
    let posted = of("request-1");
    assert_eq!(
        (&posted["type"], &posted["name"], &posted["outcome"]),
        (&json!("mutation"), &json!("Post"), &json!("ok"))
    );
    assert_eq!((&posted["trace_id"], &posted["span_id"]), (&json!(TRACE), &json!(hex::encode(&root.span_id))));
    let refused = of("request-3");
    assert_eq!((&refused["outcome"], &refused["name"]), (&json!("client_error"), &json!("In")), "{refused}");
    assert!(refused["code"] == "UNAUTHENTICATED" && refused["trace_id"] != TRACE, "{refused}");
    let unread = operations.iter().find(|line| line["code"] == "GRAPHQL_PARSE_FAILED").unwrap();
    assert!(
        unread["type"].is_null() && unread["outcome"] == "client_error" && unread["document"].is_string(),
        "{unread}"
    );
    assert!(operations.iter().filter(|line| line["name"] == "Who").count() == 4);
    // A person's line, refused: everything that there is.
    let full = of("request-2");
    assert_eq!((&full["outcome"], &full["code"]), (&json!("refused"), &json!("INSUFFICIENT_FUNDS")), "{full}");
    assert_eq!(full.as_object().unwrap().keys().map(String::as_str).collect::<Vec<_>>(), ALL);
    // Lines have their keys in order.
    let said = service.said();
    let line = said.lines().find(|line| line.contains("request-1") && line.contains("zerostate::operation")).unwrap();
    let at = |key: &str| line.find(&format!("\"{key}\":")).unwrap();
    let first = ["timestamp", "level", "target", "message", "request_id", "trace_id", "span_id", "type"];
    assert!(first.windows(2).all(|pair| at(pair[0]) < at(pair[1])), "{line}");
    // What runs in the background has its trace too, and probes are told of nowhere.
    assert!(!said.contains("/ready") && !said.contains("/health"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_not_well_stops_nothing() {
    let (fails, hangs) = (Collector::start(Manner::Fails).await, Collector::start(Manner::Hangs).await);
    let away = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let endpoints = [fails.endpoint(), hangs.endpoint(), format!("http://{away}")];
    let stories = endpoints.iter().map(async |endpoint| {
        let mut service = Service::start(&[
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &format!("{endpoint}/v1/traces")),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "300"),
            ("OTEL_BSP_SCHEDULE_DELAY", "50"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "64"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8"),
        ])
        .await;
        let (nobody, since) = (service.client(), Instant::now());
        // More spans than there is room for, in several batches.
        let warned = || {
            service
                .lines()
                .iter()
                .filter(|line| line["message"].as_str().is_some_and(|it| it.starts_with("traces cannot be exported")))
                .count()
        };
        wait_until("a warning", async || {
            for _ in 0..20 {
                assert_eq!(nobody.query("{ __typename }", json!({})).await["__typename"], "Query");
            }
            warned() > 0 && since.elapsed() > Duration::from_secs(1)
        })
        .await;
        assert_eq!(warned(), 1, "{}", service.said());
        let took = service.ends().await;
        assert!(took < Duration::from_secs(10), "{endpoint}: {took:?}");
        assert!(service.lines().iter().any(|line| line["event"] == "stopped"));
        let about: Vec<Value> = service
            .lines()
            .into_iter()
            .filter(|line| line["target"].as_str().unwrap().starts_with("opentelemetry"))
            .collect();
        assert!(about.is_empty(), "{about:?}");
    });
    join_all(stories).await;
    assert!(fails.asked.load(Ordering::SeqCst) > 1 && hangs.asked.load(Ordering::SeqCst) > 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_exported_that_nobody_wants() {
    let collector = Collector::start(Manner::Takes).await;
    let endpoint = collector.endpoint();
    let parent = format!("00-{TRACE}-{CALLER}-01");
    let ways: &[(&str, &str)] =
        &[("OTEL_TRACES_SAMPLER", "always_off"), ("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")];
    let stories = ways.iter().map(async |way| {
        let mut service =
            Service::start(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint), ("OTEL_BSP_SCHEDULE_DELAY", "50"), *way])
                .await;
        let nobody = service.client();
        within(&nobody, "query Q { __typename }", "Q", json!({}), &[("traceparent", &parent)]).await;
        service.ends().await;
        // The lines name the trace of the caller all the same.
        let operations = service.operations();
        assert_eq!(operations.len(), 1, "{way:?} {operations:?}");
        assert_eq!(operations[0]["trace_id"], TRACE);
    });
    join_all(stories).await;
    assert_eq!(collector.asked.load(Ordering::SeqCst), 0);

    for (wrong, said) in [
        (("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), "http/protobuf"),
        (("OTEL_EXPORTER_OTLP_ENDPOINT", "nowhere"), "http://"),
        (("OTEL_TRACES_SAMPLER", "traceidratio"), "OTEL_TRACES_SAMPLER_ARG"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut program = program(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint), wrong]);
        let ended = program.arg("serve").env("ZEROSTATE_DATA", folder.path()).output().unwrap();
        let told = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.code() == Some(3) && told.contains(said), "{wrong:?}: {told}");
    }
}
