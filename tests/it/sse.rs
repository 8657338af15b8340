//! Operations as event streams: what is sent, from where a client goes on, and how a stream ends.

use std::time::Duration;

use futures_util::StreamExt;
use reqwest::{
    Method, Response,
    header::{ACCEPT, CONTENT_TYPE},
};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::world::{Client, PATIENCE, World};

const SETTLEMENTS: &str = "subscription($after: EventCursor) { settlementEvents(after: $after) { id } }";

/// What a stream sends.
#[derive(Clone, Debug, PartialEq)]
enum Sent {
    /// An answer, with the id of the event.
    Next(Option<String>, Value),
    /// The end of what there is.
    Complete,
    /// A sign of life.
    Comment,
    /// The stream broke off.
    End,
}

/// An event stream.
struct Events {
    response: Response,
    text: String,
}

impl Events {
    async fn post(client: &Client, query: &str, variables: Value, last_event_id: Option<&str>) -> Self {
        let body = json!({ "query": query, "variables": variables }).to_string();
        let mut request = client.request(Method::POST, "/graphql").header(ACCEPT, "text/event-stream");
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let response = request.header(CONTENT_TYPE, "application/json").body(body).send().await.unwrap();
        Self { response, text: String::new() }
    }

    fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// Whatever comes next.
    async fn any(&mut self) -> Sent {
        timeout(PATIENCE, self.read()).await.expect("something in time")
    }

    async fn read(&mut self) -> Sent {
        loop {
            if let Some((frame, rest)) = self.text.split_once("\n\n") {
                let (frame, rest) = (frame.to_owned(), rest.to_owned());
                self.text = rest;
                return parse(&frame);
            }
            match self.response.chunk().await.ok().flatten() {
                Some(chunk) => self.text.push_str(std::str::from_utf8(&chunk).unwrap()),
                None => return Sent::End,
            }
        }
    }

    /// What comes next besides signs of life.
    async fn next(&mut self) -> Sent {
        loop {
            match self.any().await {
                Sent::Comment => {}
                sent @ (Sent::Next(..) | Sent::Complete | Sent::End) => return sent,
            }
        }
    }

    /// The next event, as its id and its data.
    async fn event(&mut self) -> (String, Value) {
        match self.next().await {
            Sent::Next(Some(id), answer) => {
                assert!(answer["errors"].is_null(), "{answer}");
                (id, answer["data"].clone())
            }
            other @ (Sent::Next(..) | Sent::Complete | Sent::Comment | Sent::End) => {
                panic!("expected an event, got {other:?}")
            }
        }
    }
}

fn parse(frame: &str) -> Sent {
    if frame.lines().all(|line| line.starts_with(':')) {
        return Sent::Comment;
    }
    let field = |name: &str| frame.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    match field("event") {
        Some("next") => {
            Sent::Next(field("id").map(str::to_owned), serde_json::from_str(field("data").unwrap()).unwrap())
        }
        Some("complete") => {
            assert_eq!(field("data"), Some(""));
            Sent::Complete
        }
        Some(_) | None => panic!("an event of another kind: {frame:?}"),
    }
}

#[tokio::test]
async fn every_kind_of_operation_can_be_a_stream() {
    let world = World::start().await;
    let ada = world.user("ada").await;
    let mut query = Events::post(&ada, "{ me { id } }", json!({}), None).await;
    assert_eq!(query.status(), 200);
    let header = |name: &str| query.response.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("content-type"), "text/event-stream; charset=utf-8");
    assert_eq!((header("cache-control").as_str(), header("x-accel-buffering").as_str()), ("no-store", "no"));
    assert_eq!(query.any().await, Sent::Comment);
    assert_eq!(query.next().await, Sent::Next(None, json!({ "data": { "me": { "id": ada.id() } } })));
    assert_eq!(query.next().await, Sent::Complete);
    assert_eq!(query.next().await, Sent::End);

    let rename = "mutation($input: UpdateProfileInput!) { updateProfile(input: $input) { user { displayName } } }";
    let mut mutation = Events::post(&ada, rename, json!({ "input": { "displayName": "Ada L." } }), None).await;
    let expected = json!({ "data": { "updateProfile": { "user": { "displayName": "Ada L." } } } });
    assert_eq!(mutation.next().await, Sent::Next(None, expected));
    assert_eq!(mutation.next().await, Sent::Complete);
    world.check().await;
}

#[tokio::test]
async fn the_id_of_an_event_is_where_the_stream_goes_on() {
    let world = World::start().await;
    let ada = world.user("ada").await;
    let start = world.cursor().await;
    let mut stream = Events::post(&ada, SETTLEMENTS, json!({ "after": start }), None).await;
    for _ in 0..3 {
        world.credit(&ada, "1").await;
    }
    let mut events = Vec::new();
    for _ in 0..3 {
        let (id, data) = stream.event().await;
        // What was not asked for is not there.
        assert_eq!(data["settlementEvents"].as_object().unwrap().keys().collect::<Vec<_>>(), ["id"]);
        events.push((id, data));
    }
    drop(stream);
    world.credit(&ada, "1").await;
    // The id goes before what the variables say, whether the document has a variable for it or not.
    for document in [SETTLEMENTS, "subscription { settlementEvents { id } }"] {
        let variables = if document == SETTLEMENTS { json!({ "after": start }) } else { json!({}) };
        let mut again = Events::post(&ada, document, variables, Some(&events[0].0)).await;
        assert_eq!([again.event().await, again.event().await], events[1..]);
        assert!(!events.contains(&again.event().await));
    }
    let mut nowhere = Events::post(&ada, SETTLEMENTS, json!({}), Some("nonsense")).await;
    let Sent::Next(None, answer) = nowhere.next().await else { panic!() };
    assert!(answer["errors"][0]["extensions"]["code"].is_string(), "{answer}");
    assert_eq!(nowhere.next().await, Sent::Complete);
    world.check().await;
}

#[tokio::test]
async fn every_subscription_has_a_cursor_to_go_on_behind() {
    let world = World::start().await;
    let query = "{ __schema { subscriptionType { fields { name args { name type { name } }
        type { ofType { fields { name type { ofType { name } } } } fields { name type { ofType { name } } } } } } } }";
    let answer = world.anonymous().query(query, json!({})).await;
    let fields = answer["__schema"]["subscriptionType"]["fields"].as_array().unwrap();
    assert!(!fields.is_empty());
    for field in fields {
        let args = field["args"].as_array().unwrap();
        let after = args.iter().any(|arg| arg["name"] == "after" && arg["type"]["name"] == "EventCursor");
        let of = [&field["type"]["fields"], &field["type"]["ofType"]["fields"]].into_iter().find_map(Value::as_array);
        let cursor =
            of.unwrap().iter().any(|it| it["name"] == "cursor" && it["type"]["ofType"]["name"] == "EventCursor");
        assert!(after && cursor, "{}", field["name"]);
    }
    world.check().await;
}

#[tokio::test]
async fn a_request_that_is_wrong_is_told_in_the_stream() {
    let world = World::start().await;
    let anonymous = world.anonymous();
    for (document, code) in [
        ("{", "GRAPHQL_PARSE_FAILED"),
        ("{ noSuchField }", "GRAPHQL_VALIDATION_FAILED"),
        ("subscription { noSuchField { id } }", "GRAPHQL_VALIDATION_FAILED"),
        ("subscription { marketEvents }", "GRAPHQL_VALIDATION_FAILED"),
        ("subscription { a b }", "GRAPHQL_VALIDATION_FAILED"),
        ("subscription { settlementEvents { id } }", "UNAUTHENTICATED"),
        ("query($id: ID!) { node(id: $id) { id } }", "BAD_USER_INPUT"),
    ] {
        let mut stream = Events::post(&anonymous, document, json!({}), None).await;
        assert_eq!(stream.status(), 200, "{document}");
        let Sent::Next(None, answer) = stream.next().await else { panic!("{document}") };
        assert!(answer.get("data").is_none(), "{document}: {answer}");
        let extensions = &answer["errors"][0]["extensions"];
        assert_eq!(extensions["code"], code, "{document}: {answer}");
        assert!(extensions["requestId"].is_string(), "{document}");
        assert_eq!(stream.next().await, Sent::Complete, "{document}");
    }
    // What is wrong with the HTTP request is told by HTTP.
    let with_wrong_token = Events::post(&anonymous.with_token("wrong"), "{ __typename }", json!({}), None).await;
    assert_eq!(with_wrong_token.status(), 401);
    let by_get = |query: &str| {
        let query = url::form_urlencoded::Serializer::new(String::new()).append_pair("query", query).finish();
        anonymous.request(Method::GET, &format!("/graphql?{query}")).header(ACCEPT, "text/event-stream").send()
    };
    assert_eq!(by_get("mutation { logout { __typename } }").await.unwrap().status(), 405);
    assert_eq!(by_get("subscription { marketEvents { id } }").await.unwrap().status(), 200);
    let as_json = anonymous.request(Method::GET, "/graphql?query=subscription%7BmarketEvents%7Bid%7D%7D");
    assert_eq!(as_json.send().await.unwrap().status(), 405);
    world.check().await;
}

#[tokio::test]
async fn a_stream_gives_signs_of_life() {
    let world = World::with(|config| config.limits.ping = Duration::from_millis(30)).await;
    let ada = world.user("ada").await;
    let mut stream = Events::post(&ada, SETTLEMENTS, json!({}), None).await;
    for _ in 0..4 {
        assert_eq!(stream.any().await, Sent::Comment);
    }
    world.check().await;
}

#[tokio::test]
async fn a_stream_breaks_off_with_its_token() {
    let world = World::with(|config| config.auth.access_ttl = Duration::from_mins(15)).await;
    let ada = world.user("ada").await;
    let mut stream = Events::post(&ada, SETTLEMENTS, json!({}), None).await;
    assert_eq!(stream.any().await, Sent::Comment);
    world.pass(Duration::from_mins(16)).await;
    // Not complete: the client connects again, and then has to bring a new token.
    assert_eq!(stream.next().await, Sent::End);
    assert_eq!(Events::post(&ada, SETTLEMENTS, json!({}), None).await.status(), 401);
    world.check().await;
}

#[tokio::test]
async fn a_stream_breaks_off_when_its_user_signs_out() {
    let world = World::with(|config| config.limits.recheck = Duration::from_millis(50)).await;
    let ada = world.user("ada").await;
    let mut stream = Events::post(&ada, SETTLEMENTS, json!({}), None).await;
    assert_eq!(stream.any().await, Sent::Comment);
    ada.query("mutation { logout { __typename } }", json!({})).await;
    // A token that was good a moment ago is not looked up again at once.
    world.pass(Duration::from_mins(1)).await;
    assert_eq!(stream.next().await, Sent::End);
    world.check().await;
}

#[tokio::test]
async fn a_shutdown_is_not_the_end_of_what_is_followed() {
    let world = World::start().await;
    let ada = world.user("ada").await;
    let mut stream = Events::post(&ada, SETTLEMENTS, json!({}), None).await;
    assert_eq!(stream.any().await, Sent::Comment);
    world.app.stop().cancel();
    assert_eq!(stream.next().await, Sent::End);
    world.check().await;
}

#[tokio::test]
async fn streams_are_counted_like_sockets() {
    let world = World::with(|config| config.limits.sockets_per_caller = 2).await;
    let ada = world.user("ada").await;
    let mut socket = world.socket().await;
    socket.init(ada.token()).await;
    let stream = Events::post(&ada, SETTLEMENTS, json!({}), None).await;
    assert_eq!(stream.status(), 200);
    let refused = Events::post(&ada, SETTLEMENTS, json!({}), None).await;
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.response.headers()["retry-after"], "1");
    let body: Value = serde_json::from_str(&refused.response.text().await.unwrap()).unwrap();
    assert_eq!(body["errors"][0]["extensions"]["code"], "RATE_LIMITED");
    // Who leaves makes room.
    drop(stream);
    let room = async {
        while Events::post(&ada, SETTLEMENTS, json!({}), None).await.status() != 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, room).await.expect("room in time");
    world.check().await;
}

#[tokio::test]
async fn many_streams_get_every_event_in_order() {
    let world = World::start().await;
    let ada = world.user("ada").await;
    let start = world.cursor().await;
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(Events::post(&ada, SETTLEMENTS, json!({ "after": start }), None).await);
    }
    for _ in 0..10 {
        world.credit(&ada, "1").await;
    }
    let read = streams.into_iter().map(async |mut stream| {
        let events = futures_util::stream::unfold(&mut stream, async |stream| Some((stream.event().await.0, stream)));
        events.take(10).collect::<Vec<String>>().await
    });
    let all = futures_util::future::join_all(read).await;
    assert!(all.iter().all(|ids| *ids == all[0]), "{all:?}");
    assert_eq!(all[0].iter().collect::<std::collections::BTreeSet<_>>().len(), 10);
    world.check().await;
}
