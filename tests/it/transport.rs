//! What every client relies on, whatever it asks for: status codes, media types, limits, ids of requests, and that nothing a
//! client sends ends the service.

use std::time::{Duration, Instant};

use reqwest::{
    Method,
    header::{ACCEPT, CONTENT_TYPE},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use url::form_urlencoded;
use zerostate::config::{StatusProfile, Tls};

use crate::world::{Frame, PASSWORD, Reply, World, send};

const GRAPHQL: &str = "application/graphql-response+json; charset=utf-8";
const JSON: &str = "application/json; charset=utf-8";

async fn get(world: &World, path: &str) -> Reply {
    send(world.http().get(world.url(path))).await
}

/// Posts a body as JSON to a client of the older media type or of the newer one.
async fn post(world: &World, accept: &str, body: impl Into<String>) -> Reply {
    let request =
        world.http().post(world.url("/graphql")).header(CONTENT_TYPE, "application/json").header(ACCEPT, accept);
    send(request.body(body.into())).await
}

async fn post_query(world: &World, query: &str) -> Reply {
    post(world, GRAPHQL, json!({ "query": query }).to_string()).await
}

fn by_get(query: &str) -> String {
    format!("/graphql?{}", form_urlencoded::Serializer::new(String::new()).append_pair("query", query).finish())
}

#[tokio::test]
async fn the_process_says_how_it_is() {
    let world = World::start().await;
    for path in ["/health", "/ready", "/metrics", "/graphql/schema.graphql", "/.well-known/jwks.json", "/"] {
        let reply = get(&world, path).await;
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        assert_eq!(reply.header("x-content-type-options"), "nosniff", "{path}");
        let head = send(world.http().head(world.url(path))).await;
        assert_eq!((head.status, head.text.as_str()), (200, ""), "{path}");
    }
    assert_eq!(get(&world, "/health").await.text, "ok\n");
    assert!(get(&world, "/metrics").await.text.contains("zerostate_"));
    assert!(get(&world, "/graphql/schema.graphql").await.text.contains("type Mutation"));
    let jwks = get(&world, "/.well-known/jwks.json").await;
    assert_eq!(jwks.header("cache-control"), "public, max-age=300");
    assert!(jwks.json()["keys"].is_array());
    let ready = get(&world, "/ready").await.json();
    assert_eq!(ready["status"], "ready");
    let checks: Vec<&str> = ready["checks"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(checks, ["draining", "database", "migrations", "ledger"]);
    world.check().await;
}

#[tokio::test]
async fn a_process_that_shuts_down_wants_no_more_requests() {
    let world = World::start().await;
    // This connection is open before the listener closes.
    assert_eq!(get(&world, "/ready").await.status, 200);
    let router = zerostate::transport::router(world.app.clone(), zerostate::graphql::schema(&world.app)).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let other = format!("http://{}/ready", listener.local_addr().unwrap());
    let serving = async move { axum::serve(listener, router).await };
    let asking = async {
        world.app.stop().cancel();
        let reply = send(world.http().get(other)).await;
        assert_eq!(reply.status, 503);
        assert_eq!(reply.json()["status"], "not ready");
        assert_eq!(reply.json()["checks"][0]["reason"], "the process is shutting down");
    };
    tokio::select! {
        _ = serving => panic!("the server ended"),
        () = asking => {}
    }
    world.check().await;
}

#[tokio::test]
async fn pages_that_are_not_there_answer_in_the_same_shape() {
    let world = World::start().await;
    let missing = get(&world, "/nowhere").await;
    assert_eq!((missing.status, missing.code().as_str()), (404, "NOT_FOUND"));
    assert_eq!(missing.json()["errors"][0]["extensions"]["requestId"], missing.header("x-request-id"));
    let method = send(world.http().post(world.url("/health"))).await;
    assert_eq!((method.status, method.code().as_str()), (405, "METHOD_NOT_ALLOWED"));
    assert_eq!(method.header("allow"), "GET,HEAD");
    world.check().await;
}

#[tokio::test]
async fn the_client_chooses_the_media_type() {
    let world = World::start().await;
    let good = json!({ "query": "{ __typename }" }).to_string();
    let bad = json!({ "query": "{ noSuchField }" }).to_string();
    for (accept, media_type, status_of_bad) in [
        ("application/graphql-response+json", GRAPHQL, 400),
        ("application/json", JSON, 200),
        ("*/*", JSON, 200),
        ("application/graphql-response+json, application/json;q=0.9", GRAPHQL, 400),
        ("application/graphql-response+json;q=0.1, application/json;q=0.2", JSON, 200),
    ] {
        let reply = post(&world, accept, good.clone()).await;
        assert_eq!((reply.status, reply.header("content-type")), (200, media_type), "{accept}");
        assert_eq!(reply.header("cache-control"), "no-store", "{accept}");
        assert_eq!(reply.json(), json!({ "data": { "__typename": "Query" } }), "{accept}");
        let reply = post(&world, accept, bad.clone()).await;
        assert_eq!((reply.status, reply.header("content-type")), (status_of_bad, media_type), "{accept}");
        assert_eq!(reply.code(), "GRAPHQL_VALIDATION_FAILED");
        assert!(reply.json().get("data").is_none(), "{accept}");
    }
    let html = post(&world, "text/html", good).await;
    assert_eq!((html.status, html.code().as_str()), (406, "NOT_ACCEPTABLE"));
    world.check().await;
}

#[tokio::test]
async fn a_body_is_one_request_in_json() {
    let world = World::start().await;
    for wrong in [
        "",
        "{",
        "null",
        "[]",
        r#"[{"query": "{ __typename }"}]"#,
        "{}",
        r#"{"query": 1}"#,
        r#"{"query": ""}"#,
        r#"{"query": "{ __typename }", "operationName": 1}"#,
        r#"{"query": "{ __typename }", "variables": "x"}"#,
        r#"{"query": "{ __typename }", "variables": [1]}"#,
        r#"{"query": "{ __typename }", "extensions": "x"}"#,
    ] {
        for accept in [GRAPHQL, JSON] {
            let reply = post(&world, accept, wrong).await;
            assert_eq!((reply.status, reply.code().as_str()), (400, "BAD_USER_INPUT"), "{wrong}");
            assert!(!reply.json()["errors"][0]["message"].as_str().unwrap().contains("untagged"), "{wrong}");
        }
    }
    for right in [
        r#"{"query": "{ __typename }", "operationName": null, "variables": null, "extensions": null}"#,
        r#"{"query": "query Q { __typename }", "operationName": "Q", "variables": {}, "extensions": {"a": 1}}"#,
    ] {
        assert_eq!(post(&world, GRAPHQL, right).await.status, 200, "{right}");
    }
    for media_type in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        let request = world.http().post(world.url("/graphql")).header(CONTENT_TYPE, media_type);
        let reply = send(request.body(r#"{"query": "{ __typename }"}"#)).await;
        assert_eq!((reply.status, reply.code().as_str()), (415, "UNSUPPORTED_MEDIA_TYPE"), "{media_type}");
    }
    world.check().await;
}

#[tokio::test]
async fn get_is_for_queries() {
    let world = World::start().await;
    let reply = get(&world, &by_get("{ __typename }")).await;
    assert_eq!((reply.status, reply.json()), (200, json!({ "data": { "__typename": "Query" } })));
    for document in ["mutation { anything }", "subscription { anything }"] {
        for accept in [GRAPHQL, JSON] {
            let reply = send(world.http().get(world.url(&by_get(document))).header(ACCEPT, accept)).await;
            assert_eq!((reply.status, reply.code().as_str()), (405, "METHOD_NOT_ALLOWED"), "{document}");
            assert_eq!(reply.header("allow"), "POST");
        }
    }
    assert_eq!(get(&world, "/graphql").await.status, 400);
    let put = send(world.http().put(world.url("/graphql"))).await;
    assert_eq!((put.status, put.header("allow")), (405, "GET, POST"));
    world.check().await;
}

#[tokio::test]
async fn requests_that_cannot_be_executed_say_why() {
    let world = World::start().await;
    for (body, code, message) in [
        (json!({ "query": "{ a(" }), "GRAPHQL_PARSE_FAILED", "Syntax error at line 1, column 5: expected"),
        (
            json!({ "query": "query A { __typename } query B { __typename }" }),
            "OPERATION_RESOLUTION_FAILURE",
            "several",
        ),
        (json!({ "query": "query A { __typename }", "operationName": "B" }), "OPERATION_RESOLUTION_FAILURE", "\"B\""),
        (json!({ "query": "query($id: ID!) { node(id: $id) { id } }" }), "BAD_USER_INPUT", "Variable \"$id\""),
        (json!({ "query": "subscription { anything }" }), "OPERATION_RESOLUTION_FAILURE", "/graphql/ws"),
    ] {
        let reply = post(&world, GRAPHQL, body.to_string()).await;
        assert_eq!((reply.status, reply.code().as_str()), (400, code), "{body}");
        let error = &reply.json()["errors"][0];
        assert!(error["message"].as_str().unwrap().contains(message), "{error}");
        assert!(!error["message"].as_str().unwrap().contains('\n'), "{error}");
        assert_eq!(error["extensions"]["retryable"], false);
        assert!(reply.json().get("data").is_none());
        assert_eq!(post(&world, JSON, body.to_string()).await.status, 200, "{body}");
    }
    world.check().await;
}

#[tokio::test]
async fn a_refusal_by_the_rules_is_data() {
    let world = World::start().await;
    world.user("ada").await;
    let document = "mutation($input: RegisterUserInput!) {
        registerUser(input: $input) { tokens { accessToken } userErrors { code message field } }
    }";
    let input = json!({ "input": { "email": "ada@example.com", "displayName": "Ada", "password": PASSWORD } });
    assert_eq!(world.anonymous().refused("registerUser", document, input.clone()).await.len(), 1);
    let reply = world.anonymous().raw(document, &input).await;
    assert_eq!((reply.status, &reply.json()["data"]["registerUser"]["tokens"]), (200, &Value::Null));
    assert!(reply.json().get("errors").is_none());
    world.check().await;
}

#[tokio::test]
async fn a_request_has_an_id() {
    let world = World::start().await;
    let asked = |id: &'static str| {
        let request = world.http().post(world.url("/graphql")).header(CONTENT_TYPE, "application/json");
        send(request.header("x-request-id", id).body(r#"{"query": "{ noSuchField }"}"#))
    };
    let mine = asked("my-id.7").await;
    assert_eq!(mine.header("x-request-id"), "my-id.7");
    assert_eq!(mine.json()["errors"][0]["extensions"]["requestId"], "my-id.7");
    let (one, two) = (asked("not mine").await, asked("not mine").await);
    assert_ne!(one.header("x-request-id"), "not mine");
    assert_ne!(one.header("x-request-id"), two.header("x-request-id"));
    assert_eq!(one.json()["errors"][0]["extensions"]["requestId"], one.header("x-request-id"));
    world.check().await;
}

#[tokio::test]
async fn a_token_that_is_not_valid_is_told_before_anything_else() {
    let world = World::start().await;
    let ada = world.user("ada").await;
    assert_eq!(ada.query("{ me { id } }", json!({})).await["me"]["id"], ada.id());
    // Nobody in particular may ask, and is told by the field and not by HTTP.
    let anonymous = world.anonymous().raw("{ me { id } }", &json!({})).await;
    assert_eq!((anonymous.status, anonymous.code().as_str()), (200, "UNAUTHENTICATED"));
    for authorization in ["Bearer wrong", "Bearer ", "Basic YTpi", "wrong"] {
        let request = world.http().post(world.url("/graphql")).header("authorization", authorization);
        // The document is not even GraphQL.
        let reply = send(request.header(CONTENT_TYPE, "application/json").body(r#"{"query": "{"}"#)).await;
        assert_eq!((reply.status, reply.code().as_str()), (401, "UNAUTHENTICATED"), "{authorization}");
        assert!(reply.header("www-authenticate").starts_with("Bearer "), "{authorization}");
    }
    world.check().await;
}

#[tokio::test]
async fn bodies_are_bounded() {
    let world = World::with(|config| config.limits.body_bytes = 10_000).await;
    let fits = json!({ "query": "{ __typename }", "extensions": { "x": "y".repeat(9_000) } }).to_string();
    assert_eq!(post(&world, GRAPHQL, fits).await.status, 200);
    for accept in [GRAPHQL, JSON] {
        let reply = post(&world, accept, format!("\"{}\"", "x".repeat(20_000))).await;
        assert_eq!((reply.status, reply.code().as_str()), (413, "PAYLOAD_TOO_LARGE"));
    }
    world.check().await;
}

#[tokio::test]
async fn attacks_are_answered_at_once_and_the_service_lives() {
    let world = World::start().await;
    let deep_list = format!("{{ a(x: {}{}) }}", "[".repeat(2_000), "]".repeat(2_000));
    let deep_object = format!("{{ a(x: {}1{}) }}", "{x:".repeat(2_000), "}".repeat(2_000));
    let deep_fields = format!("{}a{}", "{a".repeat(2_000), "}".repeat(2_000));
    let hidden = format!("{{ a(x: [\"\"\" \" {}", "[".repeat(2_000));
    let number = |count: usize, text: &dyn Fn(usize) -> String| (0..count).map(text).collect::<Vec<_>>().join(" ");
    let aliases = format!("{{ {} }}", number(20_000, &|n| format!("a{n}:__typename")));
    let some_aliases = format!("{{ {} }}", number(1_000, &|n| format!("a{n}:__typename")));
    let lace = number(30, &|n| format!("fragment F{n} on Query{{...F{0} ...F{0}}}", n + 1));
    let laced = format!("{{...F0}}{lace} fragment F30 on Query{{__typename}}");
    let headless = format!("{{...F0}}{lace}");
    let cycle = "{...A} fragment A on Query{...B} fragment B on Query{...A}".to_owned();
    let directives = format!("{{ __typename {} }}", "@skip(if: false) ".repeat(500));
    let unused = format!("query({}) {{ __typename }}", number(900, &|n| format!("$v{n}:Int")));
    for (name, document, codes) in [
        ("a list 2,000 deep", deep_list, "QUERY_LIMIT_EXCEEDED"),
        ("an object 2,000 deep", deep_object, "QUERY_LIMIT_EXCEEDED"),
        ("fields 2,000 deep", deep_fields, "QUERY_LIMIT_EXCEEDED"),
        ("brackets behind quotes", hidden, "GRAPHQL_PARSE_FAILED"),
        ("20,000 aliases", aliases, "QUERY_LIMIT_EXCEEDED"),
        ("1,000 aliases", some_aliases, "QUERY_LIMIT_EXCEEDED"),
        ("fragments that double", laced, "QUERY_LIMIT_EXCEEDED"),
        ("fragments that double into nothing", headless, "GRAPHQL_VALIDATION_FAILED"),
        ("fragments in a circle", cycle, "GRAPHQL_VALIDATION_FAILED"),
        ("500 directives", directives, "QUERY_LIMIT_EXCEEDED"),
        ("900 unused variables", unused, "GRAPHQL_VALIDATION_FAILED"),
        ("a mutation that repeats a field", "mutation { logout logout }".to_owned(), "GRAPHQL_VALIDATION_FAILED"),
        ("a mutation in a fragment", "mutation { ... { logout } }".to_owned(), "GRAPHQL_VALIDATION_FAILED"),
    ] {
        let started = Instant::now();
        let reply = post_query(&world, &document).await;
        assert!(started.elapsed() < Duration::from_secs(2), "{name} took {:?}", started.elapsed());
        assert_eq!((reply.status, reply.code().as_str()), (400, codes), "{name}");
        assert!(reply.json()["errors"].as_array().unwrap().len() <= 20, "{name}");
        assert_eq!(post_query(&world, "{ __typename }").await.status, 200, "after {name}");
    }
    world.check().await;
}

#[tokio::test]
async fn json_that_is_deep_or_odd_is_answered() {
    let world = World::start().await;
    let deep =
        format!(r#"{{"query": "{{ __typename }}", "variables": {{"x": {}{}}}}}"#, "[".repeat(5_000), "]".repeat(5_000));
    assert_eq!(post(&world, GRAPHQL, deep).await.status, 400);
    for odd in
        [r#"{"query": "{ __typename }", "variables": {"not a name!": 1}}"#, r#"{"query": "{ __typename \u0000 }"}"#]
    {
        assert!(post(&world, GRAPHQL, odd).await.status < 500, "{odd}");
    }
    world.check().await;
}

#[tokio::test]
async fn other_sites_may_call_only_when_they_are_listed() {
    let preflight = |world: &World, origin: &'static str| {
        let request = world.http().request(Method::OPTIONS, world.url("/graphql")).header("origin", origin);
        send(request.header("access-control-request-method", "POST"))
    };
    let closed = World::start().await;
    assert_eq!(preflight(&closed, "https://app.example").await.header("access-control-allow-origin"), "");
    closed.check().await;

    let open = World::with(|config| config.cors_origins = vec!["https://app.example".to_owned()]).await;
    let listed = preflight(&open, "https://app.example").await;
    assert_eq!(listed.header("access-control-allow-origin"), "https://app.example");
    assert!(listed.header("access-control-allow-headers").contains("authorization"));
    assert_eq!(preflight(&open, "https://evil.example").await.header("access-control-allow-origin"), "");
    open.check().await;
}

#[tokio::test]
async fn a_module_is_taken_from_the_agents_owner_alone() {
    let world = World::with(|config| config.terms.max_module_bytes = 4_096).await;
    let (ada, eve) = (world.user("ada").await, world.user("eve").await);
    let command = wat::parse_str(r#"(module (memory (export "memory") 1) (func (export "_start")))"#).unwrap();
    let agent = world.hosted_agent(&ada, "worker", "echo", "1", command.clone()).await.to_string();

    let again = ada.upload(&agent, command.clone()).await;
    assert_eq!((again.status, &again.json()["sizeBytes"]), (200, &json!(command.len())));
    assert_eq!(again.json()["interface"], "WASI_COMMAND");
    assert_eq!(again.json()["agentId"], agent);
    assert_eq!(again.json()["sha256"].as_str().unwrap().len(), 64);

    let outcome = |reply: Reply| (reply.status, reply.code());
    let anonymous = world.anonymous();
    assert_eq!(outcome(anonymous.upload(&agent, command.clone()).await), (401, "UNAUTHENTICATED".to_owned()));
    assert_eq!(
        outcome(ada.with_token("wrong").upload(&agent, command.clone()).await),
        (401, "UNAUTHENTICATED".to_owned())
    );
    assert_eq!(outcome(eve.upload(&agent, command.clone()).await), (404, "NOT_FOUND".to_owned()));
    assert_eq!(outcome(ada.upload("agent_nobody", command.clone()).await), (404, "NOT_FOUND".to_owned()));
    assert_eq!(outcome(ada.upload(&agent, vec![0; 5_000]).await), (413, "PAYLOAD_TOO_LARGE".to_owned()));
    assert_eq!(outcome(ada.upload(&agent, b"no module".to_vec()).await), (422, "NOT_WASM".to_owned()));
    let external = world.agent(&ada, "outside", "EXTERNAL", "echo", "1").await.to_string();
    assert_eq!(ada.upload(&external, command.clone()).await.status, 409);

    let path = format!("/agents/{agent}/module");
    let plain = send(ada.request(Method::PUT, &path).header(CONTENT_TYPE, "text/plain").body(command)).await;
    assert_eq!(outcome(plain), (415, "UNSUPPORTED_MEDIA_TYPE".to_owned()));
    let read = send(ada.request(Method::GET, &path)).await;
    assert_eq!((read.status, read.code().as_str()), (405, "METHOD_NOT_ALLOWED"));
    world.check().await;
}

#[tokio::test]
async fn a_strangers_upload_is_not_read() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let world = World::start().await;
    let (ada, eve) = (world.user("ada").await, world.user("eve").await);
    let agent = world.agent(&ada, "worker", "HOSTED", "echo", "1").await;
    let mut stream = tokio::net::TcpStream::connect(world.address).await.unwrap();
    let head = format!(
        "PUT /agents/{agent}/module HTTP/1.1\r\nhost: x\r\ncontent-type: application/wasm\r\ncontent-length: 1000000\r\n\
         authorization: Bearer {}\r\nexpect: 100-continue\r\n\r\n",
        eve.token().unwrap()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 64];
    let read = stream.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 404"), "asked for the body first: {answer}");
    world.check().await;
}

#[tokio::test]
async fn many_questions_at_once_are_all_answered() {
    let world = World::start().await;
    let ada = world.user("ada").await;
    let asked = (0..64).map(|_| ada.try_query("{ me { id } }", json!({})));
    let answers: Vec<Result<Value, _>> = futures_util::future::join_all(asked).await;
    assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|data| data["me"]["id"] == ada.id())), "{answers:?}");
    world.check().await;
}

#[tokio::test]
async fn the_profile_of_the_draft_has_finer_codes() {
    let world = World::with(|config| config.http.status_profile = StatusProfile::Draft202608).await;
    let query = |text: &str| json!({ "query": text }).to_string();
    for (accept, body, status) in [
        (GRAPHQL, "{".to_owned(), 400),
        (GRAPHQL, "{}".to_owned(), 422),
        (GRAPHQL, query("{"), 400),
        (GRAPHQL, query("{ noSuchField }"), 422),
        (JSON, query("{ noSuchField }"), 422),
        (GRAPHQL, query("query A { __typename } query B { __typename }"), 422),
        (GRAPHQL, query("query($id: ID!) { node(id: $id) { id } }"), 422),
        (GRAPHQL, query("mutation { logout logout }"), 422),
        (GRAPHQL, query("{ __typename }"), 200),
        (GRAPHQL, query("{ __typename me { id } }"), 294),
        (JSON, query("{ __typename me { id } }"), 200),
    ] {
        let reply = post(&world, accept, body.clone()).await;
        assert_eq!(reply.status, status, "{accept} {body}");
        assert_eq!(reply.json().get("data").is_some(), status < 300, "{accept} {body}");
    }
    world.check().await;
}

fn persisted(hash: &str) -> Value {
    json!({ "persistedQuery": { "version": 1, "sha256Hash": hash } })
}

fn hash_of(text: &str) -> String {
    hex::encode(Sha256::digest(text))
}

#[tokio::test]
async fn a_document_may_be_named_by_its_hash() {
    let world = World::start().await;
    let query = "{ __typename }";
    let by_hash = json!({ "extensions": persisted(&hash_of(query)) });
    let unknown = post(&world, GRAPHQL, by_hash.to_string()).await;
    assert_eq!((unknown.status, unknown.code().as_str()), (400, "PERSISTED_QUERY_NOT_FOUND"));
    assert_eq!(unknown.json()["errors"][0]["message"], "PersistedQueryNotFound");
    assert_eq!(post(&world, JSON, by_hash.to_string()).await.status, 200);

    let both = json!({ "query": query, "extensions": persisted(&hash_of(query)) });
    let expected = json!({ "data": { "__typename": "Query" } });
    assert_eq!(post(&world, GRAPHQL, both.to_string()).await.json(), expected);
    assert_eq!(post(&world, GRAPHQL, by_hash.to_string()).await.json(), expected);
    let by_id = json!({ "documentId": format!("sha256:{}", hash_of(query)) });
    assert_eq!(post(&world, GRAPHQL, by_id.to_string()).await.json(), expected);
    let mut parameters = form_urlencoded::Serializer::new(String::new());
    let parameters = parameters.append_pair("extensions", &persisted(&hash_of(query)).to_string()).finish();
    assert_eq!(get(&world, &format!("/graphql?{parameters}")).await.json(), expected);
    let mut socket = world.socket().await;
    socket.init(None).await;
    socket.send(json!({ "type": "subscribe", "id": "1", "payload": by_hash })).await;
    assert_eq!(socket.message().await["payload"], expected);

    let other = json!({ "query": query, "extensions": persisted(&hash_of("{ me { id } }")) });
    assert_eq!(post(&world, GRAPHQL, other.to_string()).await.code(), "BAD_USER_INPUT");
    for wrong in [json!(1), json!({ "version": 2, "sha256Hash": "00" }), json!({ "version": 1 })] {
        let body = json!({ "query": query, "extensions": { "persistedQuery": wrong } }).to_string();
        assert_eq!(post(&world, GRAPHQL, body).await.status, 400);
    }
    // What cannot be executed cannot be kept under a hash either.
    let deep = format!("{{ a(x: {}{}) }}", "[".repeat(100), "]".repeat(100));
    let body = json!({ "query": deep, "extensions": persisted(&hash_of(&deep)) }).to_string();
    assert_eq!(post(&world, GRAPHQL, body).await.code(), "QUERY_LIMIT_EXCEEDED");
    let body = json!({ "extensions": persisted(&hash_of(&deep)) }).to_string();
    assert_eq!(post(&world, GRAPHQL, body).await.code(), "PERSISTED_QUERY_NOT_FOUND");
    world.check().await;
}

#[tokio::test]
async fn with_trusted_documents_nothing_else_is_executed() {
    let listed = "query Named { __typename }";
    let world = World::with(|config| {
        let file = config.data.join("documents.json");
        std::fs::write(&file, json!({ "named": listed }).to_string()).unwrap();
        config.http.trusted_documents = Some(file);
    })
    .await;
    let expected = json!({ "data": { "__typename": "Query" } });
    for body in [
        json!({ "query": listed }),
        json!({ "documentId": "named" }),
        json!({ "extensions": persisted(&hash_of(listed)) }),
    ] {
        assert_eq!(post(&world, GRAPHQL, body.to_string()).await.json(), expected, "{body}");
    }
    let mut socket = world.socket().await;
    socket.init(None).await;
    for other in [
        json!({ "query": "{ __typename }" }),
        json!({ "query": "{ __schema { types { name } } }" }),
        json!({ "documentId": "other" }),
        json!({ "query": "{ __typename }", "extensions": persisted(&hash_of("{ __typename }")) }),
        json!({ "extensions": persisted(&hash_of("{ __typename }")) }),
    ] {
        let reply = post(&world, GRAPHQL, other.to_string()).await;
        assert_eq!((reply.status, reply.code().as_str()), (403, "PERSISTED_QUERY_NOT_IN_LIST"), "{other}");
        socket.send(json!({ "type": "subscribe", "id": "1", "payload": other })).await;
        let message = socket.message().await;
        assert_eq!(message["payload"][0]["extensions"]["code"], "PERSISTED_QUERY_NOT_IN_LIST", "{other}");
    }
    // Nobody could sign in here, so there is nothing to audit but the empty books.
    world.check().await;
}

#[tokio::test]
async fn an_answer_is_bounded() {
    let world = World::with(|config| config.limits.response_bytes = 2_000).await;
    let large = "{ __schema { types { name } } }";
    let reply = post_query(&world, large).await;
    assert_eq!((reply.status, reply.code().as_str()), (200, "RESPONSE_TOO_LARGE"));
    assert_eq!(reply.json()["data"], Value::Null);
    assert!(reply.text.len() < 2_000);
    let mut socket = world.socket().await;
    socket.init(None).await;
    socket.subscribe("1", large, json!({})).await;
    let message = socket.message().await;
    assert_eq!(message["type"], "error");
    assert_eq!(message["payload"][0]["extensions"]["code"], "RESPONSE_TOO_LARGE");
    assert_eq!(post_query(&world, "{ __typename }").await.status, 200);
    world.check().await;
}

#[tokio::test]
async fn requests_of_one_caller_are_bounded() {
    let world = World::with(|config| {
        config.limits.requests_per_caller = 2;
        // Long enough for all to be there before the first is done.
        config.auth.argon2 = (64 * 1024, 8, 1);
    })
    .await;
    let login = "mutation { login(input: {email: \"nobody@example.com\", password: \"some password\"}) {
        userErrors { code } } }";
    let replies = futures_util::future::join_all((0..8).map(|_| post_query(&world, login))).await;
    let (refused, answered): (Vec<&Reply>, Vec<&Reply>) = replies.iter().partition(|reply| reply.status == 429);
    assert!(!refused.is_empty() && answered.len() >= 2, "{replies:?}");
    for reply in refused {
        assert_eq!(reply.code(), "RATE_LIMITED");
        assert_eq!(reply.header("retry-after"), "1");
        assert_eq!(reply.json()["errors"][0]["extensions"]["retryable"], true);
    }
    assert_eq!(post_query(&world, "{ __typename }").await.status, 200);
    world.check().await;
}

#[tokio::test]
async fn literals_of_every_depth_are_answered() {
    let world = World::start().await;
    for depth in [10, 30, 60, 63, 64, 65, 100, 200, 500, 1_000, 2_000, 4_000, 7_800, 20_000, 50_000] {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        let object = format!("{}1{}", "{x:".repeat(depth), "}".repeat(depth));
        for document in [
            format!("{{ node(id: {open}{close}) {{ id }} }}"),
            format!("{{ node(id: {object}) {{ id }} }}"),
            format!("query($a: {open}Int{close}) {{ __typename }}"),
            format!("query($a: Int = {open}{close}) {{ __typename }}"),
            format!("query @a(x: {open}{close}) {{ __typename }}"),
            format!("{{ {} }}", "a {".repeat(depth) + &"}".repeat(depth)),
            format!("{}{}", "{ ...{".repeat(depth), "}".repeat(2 * depth)),
            "{".repeat(depth),
            open.clone(),
        ] {
            let reply = post_query(&world, &document).await;
            assert_eq!(reply.status, 400, "depth {depth}: {}…", &document[..40.min(document.len())]);
            let code = reply.code();
            let typed = ["QUERY_LIMIT_EXCEEDED", "GRAPHQL_PARSE_FAILED", "GRAPHQL_VALIDATION_FAILED"];
            assert!(typed.contains(&code.as_str()), "{code}");
            let message = reply.json()["errors"][0]["message"].as_str().unwrap().to_owned();
            assert!(!message.contains('\n') && message.len() < 300, "{message}");
        }
    }
    assert_eq!(post_query(&world, "{ __typename }").await.status, 200);
    world.check().await;
}

#[tokio::test]
async fn what_is_long_is_answered() {
    let world = World::start().await;
    let number = |count: usize, text: &dyn Fn(usize) -> String| (0..count).map(text).collect::<Vec<_>>().join(" ");
    let long = "x".repeat(300_000);
    for (name, document, code) in [
        (
            "5,000 unused variables",
            format!("query({}) {{ __typename }}", number(5_000, &|n| format!("$v{n}:Int"))),
            400,
        ),
        ("a string of 300 kB", format!("{{ node(id: \"{long}\") {{ id }} }}"), 400),
        ("a block string of 300 kB", format!("{{ node(id: \"\"\"{long}\"\"\") {{ id }} }}"), 400),
        ("a name of 300 kB", format!("{{ {long} }}"), 400),
        ("a comment of 300 kB", format!("{{ __typename }} # {long}"), 400),
        ("a mutation 500 times", format!("mutation {{ {} }}", number(500, &|n| format!("a{n}: __typename"))), 400),
        ("500 operations", number(500, &|n| format!("query Q{n} {{ __typename }}")), 400),
        ("a string of 60 kB", format!("{{ node(id: \"{}\") {{ id }} }}", "x".repeat(60_000)), 200),
        ("an emoji in a name", "{ \u{1F600} }".to_owned(), 400),
        ("half a surrogate", "{ node(id: \"\\uD83D\") { id } }".to_owned(), 0),
    ] {
        let reply = post_query(&world, &document).await;
        assert!(code == 0 || reply.status == code, "{name}: {reply:?}");
        assert!(reply.status < 500, "{name}: {reply:?}");
        assert!(reply.text.len() < 100_000, "{name} gets {} bytes", reply.text.len());
    }
    let id = json!({ "query": "query($id: ID!) { node(id: $id) { id } }", "variables": { "id": long } });
    assert!(post(&world, GRAPHQL, id.to_string()).await.status < 500);
    world.check().await;
}

#[tokio::test]
async fn the_schema_cannot_be_asked_for_many_times_over() {
    let world = World::start().await;
    let nested = |depth: usize| {
        format!("{{ __schema {{ types {}{{ name }}{} }} }}", "{ fields { type ".repeat(depth), "} }".repeat(depth))
    };
    let aliases = (0..150).map(|n| format!("a{n}: name")).collect::<Vec<_>>().join(" ");
    let twice = "{ __schema { types { fields { type { fields { name description type { name } } } } } } }";
    for document in [
        nested(3),
        nested(5),
        format!("{{ __schema {{ types {{ fields {{ {aliases} }} }} }} }}"),
        format!(
            "{{ {} }}",
            (0..20)
                .map(|n| format!("a{n}: __schema {{ types {{ fields {{ args {{ name type {{ name kind }} }} }} }} }}"))
                .collect::<Vec<_>>()
                .join(" ")
        ),
        "{ __schema { types { ...T } } } fragment T on __Type { fields { type { ...U } } }
         fragment U on __Type { fields { type { ...V } } } fragment V on __Type { fields { name } }"
            .to_owned(),
    ] {
        let reply = post_query(&world, &document).await;
        assert_eq!((reply.status, reply.code().as_str()), (400, "QUERY_LIMIT_EXCEEDED"), "{document}");
    }
    assert_eq!(post_query(&world, twice).await.status, 200);
    world.check().await;
}

#[tokio::test]
async fn who_sends_slowly_is_let_go() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let world = World::with(|config| {
        config.limits.head_patience = Duration::from_millis(200);
        config.limits.body_patience = Duration::from_millis(200);
    })
    .await;
    let sent = async |bytes: &str| {
        let mut stream = tokio::net::TcpStream::connect(world.address).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    };
    // Nothing at all, and half a head: the connection ends.
    assert_eq!(sent("").await, "");
    assert!(!sent("POST /graphql HTTP/1.1\r\nhost: x\r\ncontent-ty").await.contains("200 OK"));
    // Half a body: an answer.
    let head = "POST /graphql HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n";
    let answer = sent(&format!("{head}{{\"query\": ")).await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("TIMEOUT"), "{answer}");
    assert_eq!(post_query(&world, "{ __typename }").await.status, 200);
    world.check().await;
}

#[tokio::test]
async fn who_reads_nothing_is_let_go() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let world = World::with(|config| config.limits.send_patience = Duration::from_millis(300)).await;
    let schema = get(&world, "/graphql/schema.graphql").await.text.len();
    let asked = 64 * 1024 * 1024 / schema;
    let mut stream = tokio::net::TcpStream::connect(world.address).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let requests = "GET /graphql/schema.graphql HTTP/1.1\r\nhost: x\r\n\r\n".repeat(asked);
    // It is given up while it writes, or while it waits.
    let written = tokio::time::timeout(Duration::from_secs(2), writer.write_all(requests.as_bytes())).await;
    if matches!(written, Ok(Ok(()))) {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
    }
    let mut received = 0;
    let mut chunk = vec![0; 1024 * 1024];
    while let Ok(bytes @ 1..) = reader.read(&mut chunk).await {
        received += bytes;
    }
    assert!(received < asked * schema, "all {received} bytes came");
    assert_eq!(post_query(&world, "{ __typename }").await.status, 200);
    world.check().await;
}

#[tokio::test]
async fn a_socket_that_gives_no_sign_of_life_is_let_go() {
    let world = World::with(|config| {
        config.limits.ping = Duration::from_millis(50);
        config.limits.silence = Duration::from_millis(150);
    })
    .await;
    let mut socket = world.socket().await;
    socket.init(None).await;
    // Pings are answered by reading: for a while this one does, and then no more.
    assert_eq!(socket.receive_within(Duration::from_millis(600)).await, None);
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(socket.closed().await, 4499);
    world.check().await;
}

#[tokio::test]
async fn sockets_are_counted_by_caller_and_by_address() {
    let world = World::with(|config| {
        config.limits.sockets_per_caller = 2;
        config.limits.sockets_per_address = 4;
    })
    .await;
    let ada = world.user("ada").await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut socket = world.socket().await;
        socket.init(ada.token()).await;
        held.push(socket);
    }
    let mut third = world.socket().await;
    third.send(json!({ "type": "connection_init", "payload": { "authorization": ada.token() } })).await;
    assert!(matches!(third.receive().await, Frame::Closed(1013, _)));
    drop(third);
    // Nobody in particular is bounded by the address.
    loop {
        match crate::world::Socket::open(world.address, Some("graphql-transport-ws"), None).await {
            Ok(socket) => held.push(socket),
            Err(status) => {
                assert_eq!(status, 429);
                break;
            }
        }
    }
    // Who leaves makes room.
    held.clear();
    let again = async {
        loop {
            if let Ok(mut socket) = crate::world::Socket::open(world.address, Some("graphql-transport-ws"), None).await
            {
                socket.init(ada.token()).await;
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(crate::world::PATIENCE, again).await.expect("room in time");
    world.check().await;
}

#[tokio::test]
async fn a_proxy_that_is_trusted_says_where_callers_are() {
    let world = World::with(|config| {
        config.limits.sockets_per_address = 1;
        config.http.address_header = Some("x-forwarded-for".to_owned());
    })
    .await;
    let open = async |from: &str| {
        let request = world.http().get(by_get_url(&world)).header(ACCEPT, "text/event-stream");
        request.header("x-forwarded-for", from).send().await.unwrap()
    };
    let first = open("203.0.113.9, 198.51.100.1").await;
    assert_eq!(first.status(), 200);
    // The last address is the proxy's word; what stands before it is anybody's.
    assert_eq!(open("203.0.113.10, 198.51.100.1").await.status(), 429);
    assert_eq!(open("203.0.113.9, 198.51.100.2").await.status(), 200);
    drop(first);
    world.check().await;
}

fn by_get_url(world: &World) -> String {
    world.url(&by_get("subscription { marketEvents { id } }"))
}

#[tokio::test]
async fn a_flood_of_messages_is_answered_or_ended() {
    let world = World::start().await;
    let mut socket = world.socket().await;
    socket.init(None).await;
    for n in 0..1_000 {
        socket.send(json!({ "type": "ping", "payload": { "n": n } })).await;
    }
    for n in 0..1_000 {
        assert_eq!(socket.message().await["payload"]["n"], n);
    }
    let deep = format!("{{ a(x: {}{}) }}", "[".repeat(2_000), "]".repeat(2_000));
    for n in 0..200 {
        socket.subscribe(&n.to_string(), if n % 2 == 0 { "{ __typename }" } else { &deep }, json!({})).await;
    }
    // Each has one end: the answer, a limit of documents, or the limit of operations.
    let mut ended = 0;
    while ended < 200 {
        let message = socket.message().await;
        ended += usize::from(message["type"] == "complete" || message["type"] == "error");
    }
    assert_eq!(post_query(&world, "{ __typename }").await.status, 200);
    world.check().await;
}

#[tokio::test]
async fn who_spends_more_points_than_there_are_waits() {
    let world = World::with(|config| (config.limits.points, config.limits.points_per_second) = (1_000, 1)).await;
    let ada = world.user("ada").await;
    let told = ada.raw("{ rateLimit { limit remaining reckoned resetAt } }", &json!({})).await;
    let rate = told.json()["data"]["rateLimit"].clone();
    assert_eq!((&rate["limit"], &rate["reckoned"]), (&json!("1000"), &json!("5")), "{rate}");
    assert_eq!(told.header("ratelimit-policy"), "\"points\";q=1000;w=1000");
    assert!(told.header("ratelimit").starts_with("\"points\";r=99"), "{told:?}");

    // What the answer does not need is put back, but for a tenth.
    let page = "{ tasks(first: 40) { nodes { id title } } }";
    let body = json!({ "query": page, "extensions": { "cost": true } }).to_string();
    let request = || ada.request(Method::POST, "/graphql").header(CONTENT_TYPE, "application/json").body(body.clone());
    let cost = send(request()).await.json()["extensions"]["cost"].clone();
    assert_eq!((&cost["reckoned"], &cost["actual"]), (&json!(121), &json!(12)), "{cost}");
    assert_eq!(cost["budget"]["limit"], 1_000);

    let refused = loop {
        let reply = send(request()).await;
        if reply.status != 200 {
            break reply;
        }
    };
    assert_eq!((refused.status, refused.code().as_str()), (429, "RATE_LIMITED"), "{refused:?}");
    let seconds: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=121).contains(&seconds), "{seconds}");
    // Others have their own points, by whatever way they come; a socket is told in its own words.
    assert_eq!(world.user("bob").await.raw(page, &json!({})).await.status, 200);
    let mut socket = world.socket().await;
    socket.init(ada.token()).await;
    socket.subscribe("1", page, json!({})).await;
    let error = socket.message().await;
    assert_eq!((&error["type"], &error["payload"][0]["extensions"]["code"]), (&json!("error"), &json!("RATE_LIMITED")));
    world.check().await;
}

#[tokio::test]
async fn https_is_spoken_below_the_path_of_the_service() {
    let folder = tempfile::tempdir().unwrap();
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let files = Tls { certificate: folder.path().join("cert.pem"), key: folder.path().join("key.pem") };
    std::fs::write(&files.certificate, cert.pem()).unwrap();
    std::fs::write(&files.key, signing_key.serialize_pem()).unwrap();
    let world = World::with(|config| {
        config.http.tls = Some(files);
        config.http.public_url = Some("https://localhost/zs/".parse().unwrap());
    })
    .await;
    let trusting = || {
        let root = reqwest::Certificate::from_der(cert.der()).unwrap();
        let builder = reqwest::Client::builder().no_proxy().tls_certs_only([root]).resolve("localhost", world.address);
        builder.timeout(Duration::from_secs(20))
    };
    let url = |path: &str| format!("https://localhost:{}{path}", world.address.port());
    for (client, version) in [
        (trusting().build().unwrap(), reqwest::Version::HTTP_2),
        (trusting().http1_only().build().unwrap(), reqwest::Version::HTTP_11),
    ] {
        // The proxy may take the path off or leave it.
        for path in ["/zs/graphql", "/graphql"] {
            let request =
                client.post(url(path)).header(CONTENT_TYPE, "application/json").body(r#"{"query": "{ __typename }"}"#);
            let response = request.send().await.unwrap();
            assert_eq!((response.status().as_u16(), response.version()), (200, version), "{path}");
            assert_eq!(response.text().await.unwrap(), r#"{"data":{"__typename":"Query"}}"#);
        }
        assert_eq!(client.get(url("/zs")).send().await.unwrap().status(), 200);
        assert_eq!(client.get(url("/zs/nothing")).send().await.unwrap().status(), 404);
        assert_eq!(client.get(url("/zsx/health")).send().await.unwrap().status(), 404);
    }
    // Many requests in one connection, and each is answered.
    let client = trusting().http2_prior_knowledge().build().unwrap();
    let page = url("/zs/graphql?query=%7B__typename%7D");
    let all = futures_util::future::join_all((0..200).map(|_| client.get(page.as_str()).send())).await;
    assert!(all.into_iter().all(|answer| answer.is_ok_and(|answer| answer.status() == 200)));
    let plain = world.http().get(world.url("/health")).send().await;
    assert!(plain.is_err(), "who speaks plainly is let go: {plain:?}");
    world.check().await;
}

/// How long each of many small queries took, sorted.
async fn small_queries(world: &World, many: usize) -> Vec<Duration> {
    let mut took = Vec::with_capacity(many);
    for _ in 0..many {
        let started = Instant::now();
        assert_eq!(post_query(world, "{ serviceInfo { version } }").await.status, 200);
        took.push(started.elapsed());
    }
    took.sort_unstable();
    took
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_hardly_notice_an_attack() {
    let world = World::start().await;
    let number = |count: usize, text: &dyn Fn(usize) -> String| (0..count).map(text).collect::<Vec<_>>().join(" ");
    let lace = number(30, &|n| format!("fragment F{n} on Query{{...F{0} ...F{0}}}", n + 1));
    let attacks = [
        format!("{{ a(x: {}{}) }}", "[".repeat(20_000), "]".repeat(20_000)),
        format!("{{ {} }}", number(3_000, &|n| format!("a{n}:__typename"))),
        format!("{{...F0}}{lace} fragment F30 on Query{{__typename}}"),
        format!("query({}) {{ __typename }}", number(900, &|n| format!("$v{n}:Int"))),
        format!("{{ a(x: \"{}\") }}", "x".repeat(60_000)),
        format!("{{ __schema {{ types {}{{ name }}{} }} }}", "{ fields { type ".repeat(7), "} }".repeat(7)),
    ];
    small_queries(&world, 50).await;
    let p99 = |took: &[Duration]| took[took.len() * 99 / 100];
    let alone = p99(&small_queries(&world, 300).await);
    let over = tokio_util::sync::CancellationToken::new();
    let attacking = async {
        let mut sent = 0_u32;
        while !over.is_cancelled() {
            let reply = post_query(&world, &attacks[usize::try_from(sent).unwrap() % attacks.len()]).await;
            assert_eq!(reply.status, 400, "{}", reply.text);
            sent += 1;
        }
        sent
    };
    let asking = async {
        let meanwhile = p99(&small_queries(&world, 300).await);
        over.cancel();
        meanwhile
    };
    let (sent, meanwhile) = futures_util::future::join(attacking, asking).await;
    eprintln!("attack: p99 of small queries {alone:?} alone, {meanwhile:?} beside {sent} attacks");
    // The floor is for machines that do other things as well.
    assert!(meanwhile <= (alone * 2).max(Duration::from_millis(60)), "{alone:?} became {meanwhile:?}");
    world.check().await;
}
