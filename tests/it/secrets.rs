//! What nobody may read afterwards: passwords, tokens, keys and modules, in the log of the process and in what it answers when
//! something is wrong.

use std::{fs::File, net::TcpListener, process::Stdio, time::Duration};

use serde_json::{Value, json};

use crate::{
    cli::command,
    faults::program::ADMIN,
    world::{Client, Reply, guest, http},
};

const PASSWORD: &str = "a-password-that-nobody-may-read-4711";
const NEW_PASSWORD: &str = "another-password-that-nobody-may-read-4712";
const ADMIN_PASSWORD: &str = "an-administrators-password-4713";
/// A text in the module of a hosted agent.
const MODULE: &str = "the-bytes-of-a-module-4714";
/// A text in what an agent is asked.
const INPUT: &str = "what-the-agent-is-asked-4715";

/// What must not be read, with its name, and every answer that was no place for it.
#[derive(Default)]
struct Watch {
    secrets: Vec<(&'static str, String)>,
    answers: Vec<String>,
}

impl Watch {
    fn keep(&mut self, name: &'static str, secret: &Value) -> String {
        let secret = secret.as_str().unwrap_or_else(|| panic!("no {name}")).to_owned();
        self.secrets.push((name, secret.clone()));
        secret
    }

    /// An answer that says what was wrong, and must say nothing else.
    fn refused(&mut self, reply: &Reply) {
        let answer: Value = serde_json::from_str(&reply.text).unwrap_or_default();
        let refused = reply.status >= 400
            || answer["errors"].is_array()
            || answer["data"].as_object().is_some_and(|data| data.values().any(|it| !it["userErrors"][0].is_null()));
        assert!(refused, "{reply:?}");
        self.answers.push(format!("{:?} {}", reply.headers, reply.text));
    }

    /// Where one of the secrets stands in a text.
    fn found_in(&self, text: &str) -> Vec<&'static str> {
        let parts = |secret: &str| {
            // A key is its id and its secret; the id is no secret. So is the signature the secret of an access token.
            let last = secret.rsplit(['.', '_']).next().unwrap_or(secret).to_owned();
            [secret.to_owned(), last]
        };
        let stands = |secret: &str| parts(secret).iter().any(|part| part.len() > 8 && text.contains(part.as_str()));
        self.secrets.iter().filter(|(_, secret)| stands(secret)).map(|(name, _)| *name).collect()
    }
}

fn login(password: &Value) -> (&'static str, Value) {
    let document = "mutation($input: LoginInput!) { login(input: $input) {
        tokens { accessToken refreshToken user { id } } userErrors { code message } } }";
    (document, json!({ "input": { "email": "ada@example.com", "password": password } }))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_ever_in_the_log_or_in_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let log = folder.path().join("log");
    let port = address.port().to_string();
    let mut server = command(address, None, &["serve", "--host", "127.0.0.1", "--port", &port]);
    server
        .env("ZEROSTATE_DATA", folder.path())
        .env("RUST_LOG", "trace")
        .env("ZEROSTATE_ADMIN_EMAIL", ADMIN)
        .env("ZEROSTATE_ADMIN_PASSWORD", ADMIN_PASSWORD)
        .stdin(Stdio::null())
        .stdout(File::create(folder.path().join("out")).unwrap())
        .stderr(File::create(&log).unwrap());
    let mut server = server.spawn().unwrap();
    let ready = format!("http://{address}/ready");
    for tries in 0.. {
        if http().get(&ready).send().await.is_ok_and(|reply| reply.status() == 200) {
            break;
        }
        assert!(tries < 1_500, "{}", std::fs::read_to_string(&log).unwrap());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let watch = Box::pin(story(Client::new(http(), address))).await;
    // What is in the background has its time too.
    tokio::time::sleep(Duration::from_secs(1)).await;
    server.kill().unwrap();
    server.wait().unwrap();

    let mut wrong = Vec::new();
    for answer in &watch.answers {
        for name in watch.found_in(answer) {
            wrong.push(format!("{name} in {answer}"));
        }
    }
    for file in ["log", "out"] {
        let text = std::fs::read_to_string(folder.path().join(file)).unwrap();
        assert!(file == "out" || (text.contains("TRACE") && text.contains("zerostate::")), "{text}");
        for line in text.lines() {
            for name in watch.found_in(line) {
                wrong.push(format!("{name} in {file}: {line}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} times\n{}", wrong.len(), wrong[..wrong.len().min(20)].join("\n"));
}

/// People, keys, an agent with a webhook, one with a module, a task; and everything wrong that one can say with a secret.
async fn story(nobody: Client) -> Watch {
    let mut watch = Watch::default();
    for (name, secret) in [
        ("the password", PASSWORD),
        ("the new password", NEW_PASSWORD),
        ("the administrator's password", ADMIN_PASSWORD),
        ("the module", MODULE),
        ("the input", INPUT),
    ] {
        watch.keep(name, &json!(secret));
    }
    let input = json!({ "email": "ada@example.com", "displayName": "Ada", "password": PASSWORD });
    let selection = "tokens { accessToken refreshToken user { id } }";
    let made = nobody.call("registerUser", selection, input.clone()).await;
    let ada = nobody.clone().signed_in("ada", &made["tokens"]);
    watch.keep("an access token", &made["tokens"]["accessToken"]);
    let spent = watch.keep("a refresh token", &made["tokens"]["refreshToken"]);
    let made = nobody.call("refreshSession", selection, json!({ "refreshToken": spent })).await;
    watch.keep("the next access token", &made["tokens"]["accessToken"]);
    watch.keep("the next refresh token", &made["tokens"]["refreshToken"]);

    let made = ada.call("createApiKey", "apiKey { id } secret", json!({ "name": "k", "scopes": ["READ"] })).await;
    let key = watch.keep("the API key", &made["secret"]);
    let reader = nobody.with_token(&key);
    reader.query("{ me { id } }", json!({})).await;
    let input = json!({ "name": "out", "capabilities": ["out"], "runtime": "EXTERNAL", "price": "1" });
    let made = ada.call("registerAgent", "agent { id }", input).await;
    let hook = json!({ "agentId": made["agent"]["id"], "url": "https://example.org/hook" });
    let made = ada.call("setWebhook", "secret", hook.clone()).await;
    watch.keep("the webhook's secret", &made["secret"]);
    let input = json!({ "name": "in", "capabilities": ["in"], "runtime": "HOSTED", "price": "1" });
    let made = ada.call("registerAgent", "agent { id }", input).await;
    let agent = made["agent"]["id"].as_str().unwrap().to_owned();
    let module = guest(&format!(r#"(data (i32.const 16) "{MODULE}") (func (export "_start") unreachable)"#));
    assert_eq!(ada.upload(&agent, module.clone()).await.status, 200);

    let admin_login = json!({ "email": ADMIN, "password": ADMIN_PASSWORD });
    let made = nobody.call("login", selection, admin_login).await;
    watch.keep("the administrator's token", &made["tokens"]["accessToken"]);
    let admin = nobody.clone().signed_in("admin", &made["tokens"]);
    let issue = json!({ "userId": ada.id(), "amount": "10", "reference": "first" });
    admin.call("issueCredits", "transfer { id }", issue).await;
    // A module that is at fault, with what it was asked.
    ada.execute(json!({ "capabilities": ["in"], "input": INPUT })).await;

    // Wrong in every way that comes to mind.
    let documents = [
        format!("mutation {{ login(input: {{ email: \"ada@example.com\", password: \"{PASSWORD}\" "),
        format!(
            "mutation {{ login(input: {{ email: \"ada@example.com\", password: {{ it: \"{PASSWORD}\" }} }}) {{ userErrors {{ code }} }} }}"
        ),
        format!(
            "mutation {{ login(input: {{ email: \"ada@example.com\", password: \"{PASSWORD}\", more: \"{PASSWORD}\" }}) {{ userErrors {{ code }} }} }}"
        ),
        format!("mutation {{ login(input: \"{PASSWORD}\") {{ userErrors {{ code }} }} }}"),
        format!("mutation {{ login(input: [\"{PASSWORD}\"]) {{ userErrors {{ code }} }} }}"),
        format!(
            "mutation {{ createApiKey(input: {{ name: \"x\", scopes: \"{PASSWORD}\", idempotencyKey: \"1\" }}) {{ userErrors {{ code }} }} }}"
        ),
        format!("mutation {{ refreshSession(input: {{ refreshToken: \"{spent}x\" }}) {{ userErrors {{ code }} }} }}"),
        format!(
            "mutation {{ refreshSession(input: {{ refreshToken: [\"{spent}\"], and: 1 }}) {{ userErrors {{ code }} }} }}"
        ),
    ];
    for document in documents {
        watch.refused(&nobody.raw(&document, &json!({})).await);
    }
    for password in [json!([PASSWORD]), json!({ "it": PASSWORD }), json!(format!("{PASSWORD}x"))] {
        let (document, variables) = login(&password);
        watch.refused(&nobody.raw(document, &variables).await);
    }
    let (document, _) = login(&json!(null));
    for variables in [
        json!({ "input": PASSWORD }),
        json!({ "input": { "email": [PASSWORD], "password": PASSWORD } }),
        json!([PASSWORD]),
    ] {
        watch.refused(&nobody.raw(document, &variables).await);
    }
    let register =
        "mutation($input: RegisterUserInput!) { registerUser(input: $input) { userErrors { code message } } }";
    for (email, name) in [("ada@example.com", "Ada"), ("no address", "Ada"), ("eve@example.com", "")] {
        let input = json!({ "email": email, "displayName": name, "password": PASSWORD });
        watch.refused(&nobody.raw(register, &json!({ "input": input })).await);
    }
    for token in [format!("{key}x"), key.replace('_', "-"), format!("{}x", ada.token().unwrap())] {
        watch.refused(&nobody.with_token(&token).raw("{ me { id } }", &json!({})).await);
    }
    // A key that may not, and one that is over.
    let issue = "mutation($input: IssueCreditsInput!) { issueCredits(input: $input) { userErrors { code } } }";
    let input = json!({ "input": { "userId": ada.id(), "amount": "1", "reference": "x", "idempotencyKey": "x" } });
    watch.refused(&reader.raw(issue, &input).await);
    ada.call("revokeApiKey", "apiKey { id }", json!({ "apiKeyId": reader_id(&ada).await })).await;
    watch.refused(&reader.upload(&agent, module.clone()).await);
    watch.refused(&ada.upload(&agent, [module.as_slice(), MODULE.as_bytes()].concat()).await);
    watch.refused(&ada.upload(&agent, MODULE.as_bytes().to_vec()).await);
    let change = |old: &str| json!({ "oldPassword": old, "newPassword": NEW_PASSWORD });
    let document =
        "mutation($input: ChangePasswordInput!) { changePassword(input: $input) { userErrors { code message } } }";
    watch.refused(&ada.raw(document, &json!({ "input": change(&format!("{PASSWORD}x")) })).await);
    ada.call("changePassword", "user { id }", change(PASSWORD)).await;
    let (document, variables) = login(&json!(PASSWORD));
    watch.refused(&nobody.raw(document, &variables).await);
    watch
}

/// The one key of a user that may read.
async fn reader_id(client: &Client) -> String {
    let keys = client.query("{ me { apiKeys { nodes { id } } } }", json!({})).await;
    keys["me"]["apiKeys"]["nodes"][0]["id"].as_str().unwrap().to_owned()
}
