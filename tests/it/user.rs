//! Signing in, staying signed in, and what everybody else cannot do with it.

use std::time::Duration;

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use entity::{id::UserId, user};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::Method;
use sea_orm::{ActiveModelTrait, ActiveValue::Set};
use serde_json::{Value, json};
use zerostate::caller::Caller;

use crate::world::{Client, PASSWORD, Reply, World, send};

const TOKENS: &str = "tokens { accessToken refreshToken accessTokenExpiresAt user { id } session { id } }";
const ME: &str = "{ me { id } }";

/// Registers or signs in and gives all the tokens.
async fn tokens(who: &Client, field: &str, input: Value) -> Value {
    who.call(field, TOKENS, input).await["tokens"].take()
}

async fn login(world: &World, email: &str, password: &str) -> Value {
    tokens(&world.anonymous(), "login", json!({ "email": email, "password": password })).await
}

/// The answer to a sign-in that fails: its status and its body without what differs between any two requests.
async fn failed_login(world: &World, email: &str, password: &str) -> (u16, Value) {
    let document =
        "mutation($input: LoginInput!) { login(input: $input) { tokens { accessToken } userErrors { code } } }";
    let variables = json!({ "input": { "email": email, "password": password } });
    let reply = world.anonymous().raw(document, &variables).await;
    let mut body = reply.json();
    assert!(body["data"]["login"].is_null(), "{body:#}");
    body["errors"][0]["extensions"]["requestId"].take();
    (reply.status, body)
}

fn code(answer: &(u16, Value)) -> &str {
    answer.1["errors"][0]["extensions"]["code"].as_str().unwrap()
}

/// What the service says to a token: 200 and who it is, or a refusal.
async fn shown(world: &World, token: &str) -> Reply {
    world.anonymous().with_token(token).raw(ME, &json!({})).await
}

async fn assert_refused(world: &World, token: &str, why: &str) {
    let reply = shown(world, token).await;
    assert_eq!((reply.status, reply.code().as_str()), (401, "UNAUTHENTICATED"), "{why}");
}

#[tokio::test]
async fn a_person_registers_once_whatever_the_case_of_the_address() {
    let world = World::start().await;
    let input = json!({ "email": " Ada.Lovelace@Example.COM ", "displayName": "Ada", "password": PASSWORD });
    let first = tokens(&world.anonymous(), "registerUser", input).await;
    let ada = world.anonymous().signed_in("ada", &first);
    let me = ada.query("{ me { email role status displayName lastLoginAt } }", json!({})).await;
    let expected = json!({ "email": "ada.lovelace@example.com", "role": "USER", "status": "ACTIVE", "displayName": "Ada",
        "lastLoginAt": "2026-11-23T12:00:00.000000Z" });
    assert_eq!(me["me"], expected);
    let again = json!({ "email": "ADA.LOVELACE@example.com", "displayName": "Eve", "password": PASSWORD });
    assert_eq!(world.anonymous().refusal("registerUser", again).await, "EMAIL_TAKEN");
    world.pass(Duration::from_mins(1)).await;
    let second = login(&world, "ada.LOVELACE@example.com", PASSWORD).await;
    assert_eq!(second["user"]["id"], first["user"]["id"]);
    assert_ne!(second["session"]["id"], first["session"]["id"]);
    let me = ada.query("{ me { lastLoginAt sessions { totalCount } } }", json!({})).await;
    assert_eq!(me["me"], json!({ "lastLoginAt": "2026-11-23T12:01:00.000000Z", "sessions": { "totalCount": 2 } }));
    world.check().await;
}

#[tokio::test]
async fn what_is_no_address_or_no_password_is_not_registered() {
    let world = World::start().await;
    for (email, name, password) in [
        ("ada", "Ada", PASSWORD),
        ("ada@", "Ada", PASSWORD),
        ("a da@example.com", "Ada", PASSWORD),
        ("ada@example.com", "", PASSWORD),
        ("ada@example.com", "A\u{0}da", PASSWORD),
        ("ada@example.com", "Ada", "too short"),
        ("ada@example.com", "Ada", &"x".repeat(129)),
    ] {
        let input = json!({ "email": email, "displayName": name, "password": password });
        assert_eq!(world.anonymous().refusal("registerUser", input).await, "INVALID_INPUT", "{email} {name}");
    }
    assert_eq!(world.rows("users").await, 0);
    // A long password is one, to its last character.
    let long = format!("{}1", "x".repeat(100));
    let input = json!({ "email": "ada@example.com", "displayName": "Ada", "password": long });
    tokens(&world.anonymous(), "registerUser", input).await;
    login(&world, "ada@example.com", &long).await;
    let cut = format!("{}2", "x".repeat(100));
    assert_eq!(code(&failed_login(&world, "ada@example.com", &cut).await), "UNAUTHENTICATED");
    world.check().await;
}

#[tokio::test]
async fn an_unknown_address_is_answered_like_a_wrong_password() {
    let world = World::start().await;
    world.user("ada").await;
    for attempt in 0..8 {
        let known = failed_login(&world, "ada@example.com", "wrong password").await;
        let unknown = failed_login(&world, "nobody@example.com", "wrong password").await;
        assert_eq!(known, unknown, "attempt {attempt}");
        assert_eq!(code(&known), if attempt < 5 { "UNAUTHENTICATED" } else { "RATE_LIMITED" });
    }
    world.check().await;
}

#[tokio::test]
async fn wrong_passwords_lock_an_account_for_longer_and_longer() {
    let world = World::start().await;
    world.user("ada").await;
    let bob = world.user("bob").await;
    let ada = "ada@example.com";
    for _ in 0..5 {
        assert_eq!(code(&failed_login(&world, ada, "wrong password").await), "UNAUTHENTICATED");
    }
    // Behind the lock the right password is as good as a wrong one.
    let locked = failed_login(&world, ada, PASSWORD).await;
    assert_eq!(code(&locked), "RATE_LIMITED");
    assert_eq!(locked.1["errors"][0]["extensions"]["retryAfterMs"], 30_000);
    assert_eq!(locked.1["errors"][0]["extensions"]["retryable"], true);
    world.pass(Duration::from_secs(30)).await;
    assert_eq!(code(&failed_login(&world, ada, "wrong password").await), "UNAUTHENTICATED");
    assert_eq!(failed_login(&world, ada, PASSWORD).await.1["errors"][0]["extensions"]["retryAfterMs"], 60_000);
    world.pass(Duration::from_mins(1)).await;
    login(&world, ada, PASSWORD).await;
    // A sign-in forgets them, and nobody else was locked.
    assert_eq!(code(&failed_login(&world, ada, "wrong password").await), "UNAUTHENTICATED");
    login(&world, ada, PASSWORD).await;
    bob.query(ME, json!({})).await;
    world.check().await;
}

#[tokio::test]
async fn a_suspended_user_is_nobody() {
    let world = World::start().await;
    let ada = world.user("ada").await;
    let id: UserId = ada.id().parse().unwrap();
    let suspend = async |work: &mut zerostate::store::Work| {
        let row = user::ActiveModel { id: Set(id), status: Set(user::Status::Suspended), ..Default::default() };
        row.update(work.tx()).await?;
        Ok(())
    };
    world.app.store().write(Caller::System, suspend).await.unwrap();
    world.turn(Duration::from_secs(5));
    assert_refused(&world, ada.token().unwrap(), "suspended").await;
    let refused = failed_login(&world, "ada@example.com", PASSWORD).await;
    assert_eq!(refused, failed_login(&world, "nobody@example.com", PASSWORD).await);
    world.check().await;
}

#[tokio::test]
async fn an_access_token_ends_and_is_renewed() {
    let world = World::with(|config| {
        config.auth.access_ttl = Duration::from_mins(15);
        config.auth.session_ttl = Duration::from_hours(24);
    })
    .await;
    world.user("ada").await;
    let first = login(&world, "ada@example.com", PASSWORD).await;
    assert_eq!(first["accessTokenExpiresAt"], "2026-11-23T12:15:00.000000Z");
    let access = first["accessToken"].as_str().unwrap();
    assert_eq!(shown(&world, access).await.status, 200);
    world.pass(Duration::from_secs(15 * 60 + 5)).await;
    assert_refused(&world, access, "expired").await;
    let refresh = json!({ "refreshToken": first["refreshToken"] });
    let second = tokens(&world.anonymous(), "refreshSession", refresh).await;
    assert_eq!(second["session"]["id"], first["session"]["id"]);
    assert_eq!(shown(&world, second["accessToken"].as_str().unwrap()).await.status, 200);
    // The session itself ends a day after the sign-in, whatever is renewed.
    world.pass(Duration::from_hours(24)).await;
    let refresh = json!({ "refreshToken": second["refreshToken"] });
    assert_eq!(world.anonymous().fault("refreshSession", refresh).await, "UNAUTHENTICATED");
    world.check().await;
}

#[tokio::test]
async fn a_refresh_token_that_was_spent_ends_its_session_when_it_is_shown_again() {
    let world = World::start().await;
    let ada = world.user("ada").await;
    let first = login(&world, "ada@example.com", PASSWORD).await;
    let renew =
        async |token: &Value| tokens(&world.anonymous(), "refreshSession", json!({ "refreshToken": token })).await;
    let second = renew(&first["refreshToken"]).await;
    assert_ne!(second["refreshToken"], first["refreshToken"]);
    // The answer may have been lost: for a moment the same successor is given again.
    assert_eq!(renew(&first["refreshToken"]).await["refreshToken"], second["refreshToken"]);
    let third = renew(&second["refreshToken"]).await;
    world.pass(Duration::from_secs(10)).await;
    // Somebody has a copy. Nobody can tell who, so nobody goes on.
    for spent in [&first, &third, &second] {
        let input = json!({ "refreshToken": spent["refreshToken"] });
        assert_eq!(world.anonymous().fault("refreshSession", input).await, "UNAUTHENTICATED");
    }
    world.turn(Duration::from_secs(5));
    for token in [&first, &second, &third] {
        assert_refused(&world, token["accessToken"].as_str().unwrap(), "of a session that ended").await;
    }
    // Other sessions go on, and tell.
    let sessions = ada.query("{ me { sessions { nodes { id revokeReason } } } }", json!({})).await;
    let ended = json!({ "id": first["session"]["id"], "revokeReason": "TOKEN_REUSE" });
    assert_eq!(sessions["me"]["sessions"]["nodes"][0], ended);
    assert_eq!(sessions["me"]["sessions"]["nodes"][1]["revokeReason"], Value::Null);
    for nonsense in ["", "zsr_x_1_00", first["accessToken"].as_str().unwrap()] {
        let input = json!({ "refreshToken": nonsense });
        assert_eq!(world.anonymous().fault("refreshSession", input).await, "UNAUTHENTICATED", "{nonsense}");
    }
    world.check().await;
}

#[tokio::test]
async fn a_sign_out_ends_the_session_and_its_tokens() {
    let world = World::start().await;
    let ada = world.user("ada").await;
    let other = login(&world, "ada@example.com", PASSWORD).await;
    let document = "mutation { logout { session { id revokeReason } userErrors { code } } }";
    let signed_in = world.anonymous().signed_in("ada", &other);
    let ended = signed_in.done("logout", document, json!({})).await;
    assert_eq!(ended["session"], json!({ "id": other["session"]["id"], "revokeReason": "LOGOUT" }));
    world.turn(Duration::from_secs(5));
    assert_refused(&world, other["accessToken"].as_str().unwrap(), "signed out").await;
    let refresh = json!({ "refreshToken": other["refreshToken"] });
    assert_eq!(world.anonymous().fault("refreshSession", refresh).await, "UNAUTHENTICATED");
    ada.query(ME, json!({})).await;
    assert_eq!(world.anonymous().error(document, json!({})).await, "UNAUTHENTICATED");
    world.check().await;
}

#[tokio::test]
async fn a_new_password_ends_all_other_sessions() {
    let world = World::start().await;
    let ada = world.user("ada").await;
    let other = world.login("ada").await;
    let new = "a whole new password";
    let change = |old: &str, new: &str| json!({ "oldPassword": old, "newPassword": new });
    assert_eq!(ada.refusal("changePassword", change("wrong password", new)).await, "WRONG_PASSWORD");
    assert_eq!(ada.refusal("changePassword", change(PASSWORD, "short")).await, "INVALID_INPUT");
    ada.call("changePassword", "user { id }", change(PASSWORD, new)).await;
    world.turn(Duration::from_secs(5));
    ada.query(ME, json!({})).await;
    assert_refused(&world, other.token().unwrap(), "of another session").await;
    assert_eq!(code(&failed_login(&world, "ada@example.com", PASSWORD).await), "UNAUTHENTICATED");
    login(&world, "ada@example.com", new).await;
    world.check().await;
}

/// The service's own signing key, which only a test that stands beside it can read.
fn signing_key(world: &World) -> EncodingKey {
    let pem = std::fs::read_to_string(world.folder().join("keys/signing.key")).unwrap();
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    EncodingKey::from_ed_der(&STANDARD.decode(body).unwrap())
}

fn part(token: &str, number: usize) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(number).unwrap()).unwrap()).unwrap()
}

#[tokio::test]
async fn only_an_access_token_of_ours_for_us_is_one() {
    let world = World::start().await;
    let ada = world.user("ada").await;
    let all = login(&world, "ada@example.com", PASSWORD).await;
    let token = all["accessToken"].as_str().unwrap();
    let (head, claims) = (part(token, 0), part(token, 1));
    let kid = head["kid"].as_str().unwrap().to_owned();
    let jwks = send(world.http().get(world.url("/.well-known/jwks.json"))).await.json();
    assert_eq!((&jwks["keys"][0]["kid"], &head["alg"], &head["typ"]), (&json!(kid), &json!("EdDSA"), &json!("at+jwt")));

    let header = |algorithm, kid: Option<&str>, typ: &str| Header {
        typ: Some(typ.to_owned()),
        kid: kid.map(str::to_owned),
        ..Header::new(algorithm)
    };
    let ours = signing_key(&world);
    let sign = |header: &Header, claims: &Value, key: &EncodingKey| jsonwebtoken::encode(header, claims, key).unwrap();
    let good = header(Algorithm::EdDSA, Some(&kid), "at+jwt");
    // The test can make a good token, so that the bad ones are bad for one reason each.
    assert_eq!(shown(&world, &sign(&good, &claims, &ours)).await.status, 200);
    let with = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        claims
    };
    let without = |name: &str| {
        let mut claims = claims.clone();
        claims.as_object_mut().unwrap().remove(name);
        claims
    };
    let x = URL_SAFE_NO_PAD.decode(jwks["keys"][0]["x"].as_str().unwrap()).unwrap();
    let secret = |bytes: &[u8]| EncodingKey::from_secret(bytes);
    let hmac = header(Algorithm::HS256, Some(&kid), "at+jwt");
    let now = claims["iat"].as_i64().unwrap();
    let unsigned = |algorithm: &str| {
        let head = json!({ "alg": algorithm, "typ": "at+jwt", "kid": kid }).to_string();
        let (head, body) = (URL_SAFE_NO_PAD.encode(head), URL_SAFE_NO_PAD.encode(claims.to_string()));
        format!("{head}.{body}.")
    };
    let mut stranger = [7_u8; 48];
    stranger[..16].copy_from_slice(&hex::decode("302e020100300506032b657004220420").unwrap());
    for (why, forged) in [
        ("the secret that everybody knew", sign(&hmac, &claims, &secret(b"CHANGE_ME_IN_PRODUCTION"))),
        ("the public key as a secret", sign(&hmac, &claims, &secret(&x))),
        ("no signature", unsigned("none")),
        ("no signature under our algorithm", unsigned("EdDSA")),
        ("somebody else's key", sign(&good, &claims, &EncodingKey::from_ed_der(&stranger))),
        ("another audience", sign(&good, &with("aud", json!("other")), &ours)),
        ("no audience", sign(&good, &without("aud"), &ours)),
        ("another issuer", sign(&good, &with("iss", json!("other")), &ours)),
        ("expired", sign(&good, &with("exp", json!(now - 6)), &ours)),
        ("without an end", sign(&good, &without("exp"), &ours)),
        ("not yet", sign(&good, &with("nbf", json!(now + 60)), &ours)),
        ("without a session", sign(&good, &without("sid"), &ours)),
        ("of another session", sign(&good, &with("sid", json!("sess_01h455vb4pex5vsknk084sn02q")), &ours)),
        (
            "of a user who is not of this session",
            sign(&good, &with("sub", json!("user_01h455vb4pex5vsknk084sn02q")), &ours),
        ),
        ("another type", sign(&header(Algorithm::EdDSA, Some(&kid), "JWT"), &claims, &ours)),
        ("no key id", sign(&header(Algorithm::EdDSA, None, "at+jwt"), &claims, &ours)),
        ("an unknown key id", sign(&header(Algorithm::EdDSA, Some("other"), "at+jwt"), &claims, &ours)),
        ("a refresh token", all["refreshToken"].as_str().unwrap().to_owned()),
        ("a changed signature", format!("{}A", &token[..token.len() - 2])),
        ("nonsense", "nonsense".to_owned()),
    ] {
        assert_refused(&world, &forged, why).await;
    }
    // The role in a token gives nothing: the database says who is an administrator.
    let risen = sign(&good, &with("role", json!("ADMIN")), &ours);
    let admin = ada.with_token(&risen);
    assert_eq!(admin.error("{ users { totalCount } }", json!({})).await, "FORBIDDEN");
    world.check().await;
}

#[tokio::test]
async fn a_key_does_what_its_scopes_say_and_nothing_more() {
    let world = World::start().await;
    let (ada, bob) = (world.user("ada").await, world.user("bob").await);
    world.credit(&ada, "10").await;
    let agent = world.agent(&ada, "one", "EXTERNAL", "text.stats", "1").await;
    let other = world.agent(&ada, "two", "EXTERNAL", "text.stats", "1").await;
    let key = async |scopes: Value, over: Value| {
        let mut input = json!({ "name": "a program", "scopes": scopes });
        input.as_object_mut().unwrap().extend(over.as_object().unwrap().clone());
        let made = ada.call("createApiKey", "secret apiKey { id scopes }", input).await;
        ada.with_token(made["secret"].as_str().unwrap())
    };
    let reader = key(json!(["READ"]), json!({})).await;
    assert_eq!(reader.query("{ me { id wallet { available } } }", json!({})).await["me"]["wallet"]["available"], "10");
    let order = json!({ "title": "x", "capabilities": ["a"], "input": 1, "budget": "1" });
    assert_eq!(reader.fault("executeTask", order.clone()).await, "FORBIDDEN");
    let buyer = key(json!(["TASKS_WRITE"]), json!({})).await;
    buyer.call("executeTask", "task { id }", order.clone()).await;
    assert_eq!(buyer.error(ME, json!({})).await, "FORBIDDEN");
    assert_eq!(
        buyer
            .query("query($id: ID!) { user(id: $id) { email wallet { available } } }", json!({ "id": ada.id() }))
            .await["user"],
        json!({ "email": null, "wallet": null })
    );

    // Keys never do what only a person may.
    let whole = key(json!(["READ", "TASKS_WRITE", "BIDS_WRITE", "AGENTS_WRITE", "WORK_WRITE"]), json!({})).await;
    let made = json!({ "name": "another", "scopes": ["READ"] });
    assert_eq!(whole.fault("createApiKey", made.clone()).await, "FORBIDDEN");
    let change = json!({ "oldPassword": PASSWORD, "newPassword": "a whole new password" });
    assert_eq!(whole.fault("changePassword", change).await, "FORBIDDEN");
    assert_eq!(whole.fault("updateProfile", json!({ "displayName": "x" })).await, "FORBIDDEN");
    assert_eq!(whole.error("mutation { logout { userErrors { code } } }", json!({})).await, "FORBIDDEN");

    // One that is bound to an agent knows only this one.
    let auction = {
        world.credit(&bob, "10").await;
        bob.open(json!({})).await
    };
    let bound = key(json!(["BIDS_WRITE"]), json!({ "agentId": agent.to_string() })).await;
    assert_eq!(bound.refused_bid(&auction, other, "2").await, "NOT_FOUND");
    bound.bid(&auction, agent, "2").await;
    assert_eq!(bound.fault("pauseAgent", json!({ "agentId": agent.to_string() })).await, "FORBIDDEN");
    assert_eq!(
        bob.refusal("createApiKey", json!({ "name": "x", "scopes": ["READ"], "agentId": agent.to_string() })).await,
        "NOT_FOUND"
    );
    assert_eq!(ada.refusal("createApiKey", json!({ "name": "x", "scopes": [] })).await, "INVALID_INPUT");
    ada.call("retireAgent", "agent { id }", json!({ "agentId": other.to_string() })).await;
    let retired = json!({ "name": "x", "scopes": ["READ"], "agentId": other.to_string() });
    assert_eq!(ada.refusal("createApiKey", retired).await, "AGENT_RETIRED");

    // A key ends by its time, or when it is revoked.
    let brief = key(json!(["READ"]), json!({ "expiresIn": "PT1M" })).await;
    brief.query(ME, json!({})).await;
    world.pass(Duration::from_mins(1)).await;
    assert_refused(&world, brief.token().unwrap(), "expired").await;
    let keys =
        ada.query("{ me { apiKeys { totalCount nodes { id lastUsedAt } } } }", json!({})).await["me"]["apiKeys"].take();
    assert_eq!(keys["totalCount"], 5);
    let readers = keys["nodes"][4]["id"].clone();
    assert_eq!(keys["nodes"][4]["lastUsedAt"], "2026-11-23T12:00:00.000000Z");
    assert_eq!(bob.refusal("revokeApiKey", json!({ "apiKeyId": readers })).await, "NOT_FOUND");
    ada.call("revokeApiKey", "apiKey { revokedAt }", json!({ "apiKeyId": readers })).await;
    world.turn(Duration::from_secs(5));
    assert_refused(&world, reader.token().unwrap(), "revoked").await;
    assert_refused(&world, &format!("{}x", whole.token().unwrap()), "not a key").await;
    whole.query(ME, json!({})).await;
    world.check().await;
}

#[tokio::test]
async fn the_secret_of_a_key_is_told_once() {
    let world = World::start().await;
    let ada = world.user("ada").await;
    let input = json!({ "name": "ci", "scopes": ["READ"], "idempotencyKey": "ci" });
    let first = ada.call("createApiKey", "secret apiKey { id }", input.clone()).await;
    let again = ada.call("createApiKey", "secret apiKey { id }", input).await;
    assert_eq!((&again["apiKey"], &again["secret"]), (&first["apiKey"], &Value::Null));
    let other = json!({ "name": "ci", "scopes": ["READ", "TASKS_WRITE"], "idempotencyKey": "ci" });
    assert_eq!(ada.refusal("createApiKey", other).await, "IDEMPOTENCY_KEY_REUSED");
    assert_eq!(world.rows("api_keys").await, 1);
    world.check().await;
}

#[tokio::test]
async fn private_things_are_for_their_owner_and_administrators() {
    let world = World::start().await;
    let (ada, bob, admin) = (world.user("ada").await, world.user("bob").await, world.admin().await);
    let arbiter = world.of_role("arbiter", user::Role::Arbiter).await;
    let document = "query($id: ID!) { user(id: $id) { displayName email status lastLoginAt wallet { available }
        sessions { totalCount } apiKeys { totalCount } } }";
    let variables = json!({ "id": ada.id() });
    for stranger in [&bob, &arbiter, &world.anonymous()] {
        let seen = stranger.query(document, variables.clone()).await;
        let public = json!({ "displayName": "ada", "email": null, "status": null, "lastLoginAt": null, "wallet": null,
            "sessions": null, "apiKeys": null });
        assert_eq!(seen["user"], public);
    }
    for trusted in [&ada, &admin] {
        let seen = trusted.query(document, variables.clone()).await;
        assert_eq!(
            (&seen["user"]["email"], &seen["user"]["sessions"]["totalCount"]),
            (&json!("ada@example.com"), &json!(1))
        );
    }
    assert_eq!(admin.query("{ users { totalCount } me { role } }", json!({})).await["me"]["role"], "ADMIN");
    for other in [&ada, &arbiter] {
        assert_eq!(other.error("{ users { totalCount } }", json!({})).await, "FORBIDDEN");
    }
    assert_eq!(world.anonymous().error("{ users { totalCount } }", json!({})).await, "UNAUTHENTICATED");
    assert_eq!(world.anonymous().error(ME, json!({})).await, "UNAUTHENTICATED");
    // A program of the administrator is not an administrator.
    let made = admin.call("createApiKey", "secret", json!({ "name": "x", "scopes": ["READ"] })).await;
    let program = admin.with_token(made["secret"].as_str().unwrap());
    assert_eq!(program.error("{ users { totalCount } }", json!({})).await, "FORBIDDEN");
    let renamed = ada.call("updateProfile", "user { displayName }", json!({ "displayName": "  Ada L. " })).await;
    assert_eq!(renamed["user"]["displayName"], "Ada L.");
    let wrong = send(
        world.http().request(Method::POST, world.url("/graphql")).header("authorization", "Basic YTpi").body("{}"),
    )
    .await;
    assert_ne!(wrong.status, 200);
    world.check().await;
}
