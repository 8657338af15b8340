//! The protocol graphql-transport-ws frame by frame, and streams that outlive what happens to them.

use std::time::Duration;

use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::world::{DAWN, Frame, Socket, World};

const SETTLEMENTS: &str = "subscription($after: EventCursor) { settlementEvents(after: $after) { cursor } }";

#[tokio::test]
async fn a_socket_begins_with_connection_init() {
    let world = World::start().await;
    for (message, code) in [
        (json!({ "type": "subscribe", "id": "1", "payload": { "query": "{ __typename }" } }), 4401),
        (json!({ "type": "nonsense" }), 4400),
        (json!({ "id": "1" }), 4400),
        (json!([]), 4400),
        (json!({ "type": "connection_init", "payload": "x" }), 4400),
        (json!({ "type": "connection_init", "payload": { "authorization": "Bearer wrong" } }), 4403),
        (json!({ "type": "connection_init", "payload": { "authorization": 1 } }), 4403),
    ] {
        let mut socket = world.socket().await;
        socket.send(message.clone()).await;
        assert_eq!(socket.closed().await, code, "{message}");
    }
    let mut socket = world.socket().await;
    socket.send_raw(Message::text("no JSON")).await;
    assert_eq!(socket.closed().await, 4400);
    let mut socket = world.socket().await;
    socket.send_raw(Message::binary(vec![1, 2, 3])).await;
    assert_eq!(socket.closed().await, 4400);
    let mut silent = world.socket().await;
    assert_eq!(silent.closed().await, 4408);
    let mut twice = world.socket().await;
    twice.init(None).await;
    twice.send(json!({ "type": "connection_init" })).await;
    assert_eq!(twice.closed().await, 4429);
    world.check().await;
}

#[tokio::test]
async fn the_handshake_names_the_protocol() {
    let world = World::start().await;
    let mut unnamed = Socket::open(world.address, None, None).await.unwrap();
    assert_eq!(unnamed.closed().await, 4406);
    let plain = world.http().get(world.url("/graphql/ws")).send().await.unwrap();
    assert!(plain.status().is_client_error(), "{plain:?}");
    let refused = Socket::open(world.address, Some("graphql-transport-ws"), Some("Basic x")).await;
    assert!(matches!(refused, Err(401)));
    world.check().await;
}

#[tokio::test]
async fn the_token_comes_in_the_payload_or_in_the_header() {
    let world = World::start().await;
    let ada = world.user("ada").await;
    let token = ada.token().unwrap().to_owned();
    let bearer = format!("Bearer {token}");
    for (header, payload) in [
        (None, json!({ "authorization": bearer })),
        (None, json!({ "authorization": token })),
        (Some(bearer.as_str()), json!({})),
        (Some("Bearer wrong"), json!({ "authorization": token })),
    ] {
        let mut socket = Socket::open(world.address, Some("graphql-transport-ws"), header).await.unwrap();
        socket.send(json!({ "type": "connection_init", "payload": payload })).await;
        assert_eq!(socket.message().await, json!({ "type": "connection_ack" }));
        socket.subscribe("q", "{ me { id } }", json!({})).await;
        assert_eq!(socket.message().await["payload"]["data"]["me"]["id"], ada.id());
    }
    let mut socket = Socket::open(world.address, Some("graphql-transport-ws"), Some("Bearer wrong")).await.unwrap();
    socket.send(json!({ "type": "connection_init" })).await;
    assert_eq!(socket.closed().await, 4403);
    world.check().await;
}

#[tokio::test]
async fn queries_and_mutations_run_here_too() {
    let world = World::start().await;
    let mut socket = world.socket().await;
    socket.init(None).await;
    socket.subscribe("q", "{ __typename }", json!({})).await;
    let next = json!({ "type": "next", "id": "q", "payload": { "data": { "__typename": "Query" } } });
    assert_eq!(socket.message().await, next);
    assert_eq!(socket.message().await, json!({ "type": "complete", "id": "q" }));
    // The id is free again.
    socket.subscribe("q", "{ __typename }", json!({})).await;
    assert_eq!(socket.message().await, next);
    assert_eq!(socket.message().await, json!({ "type": "complete", "id": "q" }));
    socket.subscribe("m", "mutation { __typename }", json!({})).await;
    assert_eq!(socket.message().await["payload"]["data"]["__typename"], "Mutation");
    assert_eq!(socket.message().await, json!({ "type": "complete", "id": "m" }));
    world.check().await;
}

#[tokio::test]
async fn an_operation_that_cannot_run_is_an_error_message() {
    let world = World::start().await;
    let mut socket = world.socket().await;
    socket.init(None).await;
    for (document, code) in [
        ("{", "GRAPHQL_PARSE_FAILED"),
        ("{ noSuchField }", "GRAPHQL_VALIDATION_FAILED"),
        ("subscription { noSuchField }", "GRAPHQL_VALIDATION_FAILED"),
        ("subscription { a b }", "GRAPHQL_VALIDATION_FAILED"),
        ("mutation { logout logout }", "GRAPHQL_VALIDATION_FAILED"),
        ("query($id: ID!) { node(id: $id) { id } }", "BAD_USER_INPUT"),
    ] {
        socket.subscribe("1", document, json!({})).await;
        let message = socket.message().await;
        assert_eq!((&message["type"], &message["id"]), (&json!("error"), &json!("1")), "{document}: {message}");
        let extensions = &message["payload"][0]["extensions"];
        assert_eq!(extensions["code"], code, "{document}");
        assert!(extensions["requestId"].is_string() && extensions["retryable"].is_boolean(), "{document}");
    }
    let deep = format!("{{ a(x: {}{}) }}", "[".repeat(2_000), "]".repeat(2_000));
    socket.subscribe("1", &deep, json!({})).await;
    assert_eq!(socket.message().await["payload"][0]["extensions"]["code"], "QUERY_LIMIT_EXCEEDED");
    world.check().await;
}

#[tokio::test]
async fn pings_are_answered_also_before_the_beginning() {
    let world = World::start().await;
    let mut socket = world.socket().await;
    socket.send(json!({ "type": "ping" })).await;
    assert_eq!(socket.message().await, json!({ "type": "pong" }));
    socket.send(json!({ "type": "ping", "payload": { "n": 1 } })).await;
    assert_eq!(socket.message().await, json!({ "type": "pong", "payload": { "n": 1 } }));
    socket.send(json!({ "type": "pong" })).await;
    socket.init(None).await;
    world.check().await;
}

#[tokio::test]
async fn a_socket_is_bounded() {
    let world = World::with(|config| {
        config.limits.operations_per_socket = 2;
        config.limits.message_bytes = 10_000;
    })
    .await;
    let ada = world.user("ada").await;
    let mut socket = world.socket().await;
    socket.init(ada.token()).await;
    for id in ["1", "2", "3"] {
        socket.subscribe(id, SETTLEMENTS, json!({})).await;
    }
    let message = socket.message().await;
    assert_eq!((&message["type"], &message["id"]), (&json!("error"), &json!("3")));
    assert_eq!(message["payload"][0]["extensions"]["code"], "QUERY_LIMIT_EXCEEDED");
    // What was completed makes room.
    socket.send(json!({ "type": "complete", "id": "1" })).await;
    socket.subscribe("4", "{ __typename }", json!({})).await;
    assert_eq!(socket.message().await["id"], "4");
    assert_eq!(socket.message().await["type"], "complete");
    socket.subscribe("2", SETTLEMENTS, json!({})).await;
    assert_eq!(socket.closed().await, 4409);

    let mut long_id = world.socket().await;
    long_id.init(None).await;
    long_id.subscribe(&"x".repeat(200), "{ __typename }", json!({})).await;
    assert_eq!(long_id.closed().await, 4400);
    let mut large = world.socket().await;
    large.init(None).await;
    large.subscribe("1", &format!("{{ __typename }} # {}", "x".repeat(20_000)), json!({})).await;
    assert!(matches!(large.receive().await, Frame::Closed(1009, _) | Frame::Gone));
    world.check().await;
}

#[tokio::test]
async fn events_arrive_in_order_and_a_stream_resumes_where_it_was() {
    let world = World::start().await;
    let ada = world.user("ada").await;
    let start = world.cursor().await;
    let mut stream = ada.subscribe(SETTLEMENTS, json!({ "after": start })).await;
    for _ in 0..3 {
        world.credit(&ada, "1").await;
    }
    let mut cursors = Vec::new();
    for _ in 0..3 {
        cursors.push(stream.next().await["settlementEvents"]["cursor"].as_str().unwrap().to_owned());
    }
    assert_eq!(stream.next_within(Duration::from_millis(100)).await, None);
    drop(stream);
    // What happens while nobody listens is there afterwards, once, in order.
    world.credit(&ada, "1").await;
    let mut resumed = ada.subscribe(SETTLEMENTS, json!({ "after": cursors[0] })).await;
    let again: Vec<String> = [resumed.next().await, resumed.next().await]
        .map(|data| data["settlementEvents"]["cursor"].as_str().unwrap().to_owned())
        .into();
    assert_eq!(again, cursors[1..]);
    let missed = resumed.next().await["settlementEvents"]["cursor"].as_str().unwrap().to_owned();
    assert!(!cursors.contains(&missed));
    world.credit(&ada, "1").await;
    resumed.next().await;
    world.check().await;
}

#[tokio::test]
async fn a_cursor_of_somewhere_else_is_refused() {
    let world = World::start().await;
    let ada = world.user("ada").await;
    let mut stream = ada.subscribe(SETTLEMENTS, json!({ "after": "nonsense" })).await;
    let error = stream.error().await;
    assert!(error[0]["extensions"]["code"].is_string(), "{error}");
    world.check().await;
}

#[tokio::test]
async fn a_stream_ends_with_its_token() {
    let world = World::with(|config| config.auth.access_ttl = Duration::from_mins(15)).await;
    let ada = world.user("ada").await;
    let mut socket = world.socket().await;
    socket.init(ada.token()).await;
    socket.subscribe("1", SETTLEMENTS, json!({})).await;
    world.pass(Duration::from_secs(14 * 60 + 30)).await;
    let warning = socket.message().await;
    assert_eq!(warning["payload"], json!({ "type": "token_expiring", "inMs": 30_000 }));
    world.pass(Duration::from_mins(1)).await;
    assert_eq!(socket.closed().await, 4401);
    assert!(world.now() > DAWN);
    world.check().await;
}

#[tokio::test]
async fn a_new_token_keeps_a_stream_alive() {
    let world = World::with(|config| config.auth.access_ttl = Duration::from_mins(15)).await;
    let ada = world.user("ada").await;
    let mut socket = world.socket().await;
    socket.init(ada.token()).await;
    world.pass(Duration::from_mins(10)).await;
    let renewed = world.login("ada").await;
    socket.send(json!({ "type": "ping", "payload": { "authorization": renewed.token() } })).await;
    assert_eq!(socket.message().await, json!({ "type": "pong" }));
    world.pass(Duration::from_mins(10)).await;
    socket.subscribe("q", "{ me { id } }", json!({})).await;
    assert_eq!(socket.message().await["payload"]["data"]["me"]["id"], ada.id());
    let eve = world.user("eve").await;
    socket.send(json!({ "type": "ping", "payload": { "authorization": eve.token() } })).await;
    assert_eq!(socket.closed().await, 4403);
    world.check().await;
}

#[tokio::test]
async fn operations_are_counted() {
    let world = World::start().await;
    let ada = world.user("ada").await;
    let count = async |metric: &str| {
        let text = world.http().get(world.url("/metrics")).send().await.unwrap().text().await.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(metric)).unwrap_or_else(|| panic!("no {metric}"));
        line.trim().parse::<u32>().unwrap()
    };
    let queries =
        |outcome| format!("zerostate_graphql_requests_total{{operation_type=\"query\",outcome=\"{outcome}\"}}");
    let (fine, wrong) = (count(&queries("ok")).await, count(&queries("client_error")).await);
    ada.query("{ me { id } }", json!({})).await;
    ada.try_query("{ noSuchField }", json!({})).await.unwrap_err();
    assert_eq!(count(&queries("ok")).await, fine + 1);
    assert_eq!(count(&queries("client_error")).await, wrong + 1);

    let start = world.cursor().await;
    let mut stream = ada.subscribe(SETTLEMENTS, json!({ "after": start })).await;
    world.credit(&ada, "1").await;
    stream.next().await;
    assert_eq!(count("zerostate_graphql_subscriptions_active").await, 1);
    drop(stream);
    while count("zerostate_graphql_subscriptions_active").await > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.check().await;
}

#[tokio::test]
async fn signing_out_ends_what_a_socket_may_do() {
    let world = World::start().await;
    let ada = world.user("ada").await;
    let mut socket = world.socket().await;
    socket.init(ada.token()).await;
    ada.query("mutation { logout { __typename } }", json!({})).await;
    // A token that was good a moment ago is not looked up again at once.
    world.pass(Duration::from_mins(1)).await;
    socket.subscribe("q", "{ me { id } }", json!({})).await;
    assert_eq!(socket.closed().await, 4401);
    world.check().await;
}

#[tokio::test]
async fn a_shutdown_closes_with_a_code_that_clients_retry() {
    let world = World::start().await;
    let ada = world.user("ada").await;
    let mut socket = world.socket().await;
    socket.init(ada.token()).await;
    socket.subscribe("1", SETTLEMENTS, json!({})).await;
    socket.send(json!({ "type": "ping" })).await;
    assert_eq!(socket.message().await["type"], "pong");
    world.app.stop().cancel();
    // No `complete` before it: that would tell the client that the stream is over.
    assert!(matches!(socket.receive().await, Frame::Closed(1012, _)));
    world.check().await;
}
