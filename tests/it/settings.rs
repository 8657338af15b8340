//! The program with settings of all kinds and places: what counts, what is refused, and how it ends.

use std::{
    net::TcpListener,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use sea_orm::ConnectionTrait as _;
use serde_json::{Value, json};

use crate::world::http;

/// The program in a folder of its own, without a setting.
fn zerostate(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zerostate"));
    for (name, _) in std::env::vars() {
        let ours = ["DATABASE_URL", "HOST", "PORT", "PUBLIC_URL", "RUST_LOG", "FAILPOINTS"].contains(&name.as_str());
        if name.starts_with("ZEROSTATE_") || name.starts_with("OTEL_") || ours {
            command.env_remove(name);
        }
    }
    command.current_dir(folder).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// How a command ended: its code, what it printed, and what it said.
fn ended(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap_or(-1), text(stdout), text(stderr))
}

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).unwrap();
}

/// A server that ends with this value.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits until a page has this status.
async fn answers(port: u16, path: &str, status: u16) {
    let (client, since, url) = (http(), Instant::now(), format!("http://127.0.0.1:{port}{path}"));
    while !client.get(&url).send().await.is_ok_and(|reply| reply.status() == status) {
        assert!(since.elapsed() < Duration::from_mins(1), "{path} does not answer {status}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn a_flag_beats_a_variable_beats_dot_env_beats_the_file_beats_the_default() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write(
        folder,
        "zerostate.toml",
        "fee-bps = 1\nworkers = 2\nlease = 3\nissuer = \"by the file\"\nreview-window = \"2h\"\nport = 9001",
    );
    write(folder, ".env", "ZEROSTATE_WORKERS=5\nZEROSTATE_LEASE=6\nZEROSTATE_FEE_BPS=7\nPORT=9002\n");
    write(folder, "password", "a secret\n");
    let mut command = zerostate(folder, &["config", "show", "--json", "--fee-bps", "11"]);
    command.envs([("ZEROSTATE_LEASE", "8"), ("ZEROSTATE_FEE_BPS", "9"), ("ZEROSTATE_ISSUER", "")]);
    command.env("ZEROSTATE_ADMIN_PASSWORD_FILE", "password").env("DATABASE_URL", "postgres://u:hidden@h/db");
    command.env("ZEROSTATE_REFRESH_KEY_FILE", "refresh");
    write(folder, "refresh", &"ab".repeat(32));
    let (code, out, said) = ended(&mut command);
    assert_eq!(code, 0, "{said}");
    let shown: Value = serde_json::from_str(&out).unwrap();
    for (key, value, origin) in [
        ("fee-bps", "11", "flag"),
        ("lease", "8", "variable ZEROSTATE_LEASE"),
        ("workers", "5", "variable ZEROSTATE_WORKERS in .env"),
        ("issuer", "by the file", "file zerostate.toml"),
        ("review-window", "2h", "file zerostate.toml"),
        ("audience", "zerostate", "default"),
        ("sweep-interval", "200ms", "default"),
        ("keep-events", "forever", "default"),
        ("sockets", "20000", "default"),
        ("port", "9002", "variable PORT in .env"),
        // A person wrote that port, so it is for this machine.
        ("host", "127.0.0.1", "default"),
        ("modules", "./data/modules", "default"),
        ("database-url", "postgres://u:…@h/db", "variable DATABASE_URL"),
        ("refresh-key", "…", "file refresh, by ZEROSTATE_REFRESH_KEY_FILE"),
    ] {
        assert_eq!((&shown[key]["value"], &shown[key]["origin"]), (&json!(value), &json!(origin)), "{key}");
    }
    for secret in ["hidden", "a secret", "abab"] {
        assert!(!out.contains(secret), "{secret} is shown");
    }
    let (code, out, _) = ended(zerostate(folder, &["config", "show", "--origin"]).env("PORT", "9003"));
    assert!(code == 0 && out.lines().any(|line| line.starts_with("host ") && line.contains("0.0.0.0")), "{out}");

    // Production reads no .env, and has other defaults.
    let mut command = zerostate(folder, &["config", "show", "--json"]);
    let (_, out, _) = ended(command.env("ZEROSTATE_PROFILE", "production"));
    let shown: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&shown["workers"]["value"], &shown["drain-delay"]["value"]), (&json!("2"), &json!("5s")));
    assert_eq!(shown["anonymous-introspection"]["value"], "false");
}

#[test]
fn mistakes_are_refused_with_what_was_meant() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let check = |change: &dyn Fn(&mut Command)| {
        let mut command = zerostate(folder, &["config", "check"]);
        change(&mut command);
        let (code, out, said) = ended(&mut command);
        assert!(code == 0 || (out.is_empty() && said.trim_end().ends_with('.')), "{code} {out} {said}");
        (code, said)
    };
    let refused = |change: &dyn Fn(&mut Command), says: &str| {
        let (code, said) = check(change);
        assert!(code == 3 && said.contains(says), "{code} {said}");
    };
    let nothing: &dyn Fn(&mut Command) = &|_| {};
    assert_eq!(check(nothing).0, 0);
    refused(
        &|it| {
            it.env("ZEROSTATE_FEE_BP", "1");
        },
        "Did you mean ZEROSTATE_FEE_BPS?",
    );
    refused(
        &|it| {
            it.env("ZEROSTATE_CONFIG", "elsewhere.toml");
        },
        "cannot be read",
    );
    refused(
        &|it| {
            it.env("ZEROSTATE_RUN_TIMEOUT", "1h");
        },
        "max-run-timeout",
    );
    refused(
        &|it| {
            it.env("ZEROSTATE_REFRESH_KEY_FILE", "nowhere");
        },
        "that ZEROSTATE_REFRESH_KEY_FILE names",
    );
    refused(
        &|it| {
            it.env("ZEROSTATE_PROFILE", "production");
        },
        "ZEROSTATE_INSTANCE_KEY=",
    );
    write(folder, "key", "no key");
    refused(
        &|it| {
            it.env("ZEROSTATE_SIGNING_KEY_FILE", "key");
        },
        "cannot be ZEROSTATE_SIGNING_KEY",
    );
    let both = |it: &mut Command| {
        it.env("DATABASE_URL_FILE", "key").env("DATABASE_URL", "postgres://h/db");
    };
    refused(&both, "Unset one of them");
    write(folder, ".env", "ZEROSTATE_WORKER=1");
    refused(nothing, "Did you mean ZEROSTATE_WORKERS?");
    write(folder, ".env", "ZEROSTATE_WORKERS=many");
    refused(nothing, ".env sets ZEROSTATE_WORKERS wrongly");
    write(folder, ".env", "ZEROSTATE_PROFILE=production");
    refused(nothing, "has to be known before");
    std::fs::remove_file(folder.join(".env")).unwrap();
    write(folder, "zerostate.toml", "fee_bps = 1");
    refused(nothing, "Did you mean fee-bps?");

    // What needs no setting works all the same.
    for arguments in [&["version", "--json"][..], &["completions", "bash"], &["config", "example"], &["--help"]] {
        let (code, out, said) = ended(&mut zerostate(folder, arguments));
        assert!(code == 0 && !out.is_empty(), "{arguments:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn production_starts_with_what_it_needs_and_drains_before_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for (name, digit) in [("instance", "1"), ("signing", "2"), ("refresh", "3")] {
        write(folder, name, &format!("{}\n", digit.repeat(64)));
    }
    let port = free_port();
    let shown = port.to_string();
    let production = |arguments: &[&str]| {
        let mut command = zerostate(folder, arguments);
        command.envs([("ZEROSTATE_PROFILE", "production"), ("ZEROSTATE_INSTANCE_KEY_FILE", "instance")]);
        command.envs([("ZEROSTATE_SIGNING_KEY_FILE", "signing"), ("ZEROSTATE_REFRESH_KEY_FILE", "refresh")]);
        command.envs([("ZEROSTATE_ADMIN_EMAIL", "root@example.com"), ("ZEROSTATE_ADMIN_PASSWORD", "correct horse")]);
        command.env("ZEROSTATE_DRAIN_DELAY", "2s");
        command
    };
    let (code, _, said) = ended(&mut production(&["demo", "--port", &shown]));
    assert!(code == 3 && said.contains("zerostate serve"), "{code} {said}");
    let (code, _, said) = ended(&mut production(&["serve", "--port", &shown, "--cors-origins", "*"]));
    assert!(code == 3 && said.contains("ZEROSTATE_CORS_ORIGINS"), "{code} {said}");

    let mut serve = production(&["serve", "--port", &shown]);
    let mut server = Server(serve.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    answers(port, "/ready", 200).await;
    assert!(!folder.join("data/keys/instance.key").exists(), "no key is made");
    #[cfg(unix)]
    {
        let mode = std::fs::metadata(folder.join("data")).unwrap().permissions();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o700);
    }
    // Only those who are signed in may ask for the schema; everybody may read it.
    let ask = async |query: &str, token: Option<&str>| -> Value {
        let request = http().post(format!("http://127.0.0.1:{port}/graphql")).json(&json!({ "query": query }));
        let request = match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        serde_json::from_str(&request.send().await.unwrap().text().await.unwrap()).unwrap()
    };
    let schema = "{ ...f } fragment f on Query { __schema { queryType { name } } }";
    let refused = ask(schema, None).await;
    assert_eq!(refused["errors"][0]["extensions"]["code"], "UNAUTHENTICATED", "{refused}");
    assert_eq!(ask("{ __typename }", None).await["data"]["__typename"], "Query");
    answers(port, "/graphql/schema.graphql", 200).await;
    let login = r#"mutation { login(input: {email: "root@example.com", password: "correct horse"}) { tokens { accessToken } } }"#;
    let signed = ask(login, None).await;
    let token = signed["data"]["login"]["tokens"]["accessToken"].as_str().unwrap();
    assert_eq!(ask(schema, Some(token)).await["data"]["__schema"]["queryType"]["name"], "Query");

    // Told to end, it says so at once and goes on answering for a while.
    let told = Instant::now();
    let id = server.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    answers(port, "/ready", 503).await;
    answers(port, "/health", 200).await;
    assert!(told.elapsed() < Duration::from_secs(2), "it said so too late");
    let status = loop {
        if let Some(status) = server.0.try_wait().unwrap() {
            break status;
        }
        assert!(told.elapsed() < Duration::from_mins(1), "it does not end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(status.success() && told.elapsed() >= Duration::from_secs(2), "{status} {:?}", told.elapsed());

    // Without its keys it is another market, and is refused.
    let (code, _, said) =
        ended(production(&["audit"]).env("ZEROSTATE_PROFILE", "production").env_remove("ZEROSTATE_SIGNING_KEY_FILE"));
    assert!(code == 3 && said.contains("production makes no keys"), "{code} {said}");
}

#[test]
fn a_database_that_is_not_there_yet_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("postgres://127.0.0.1:{}/nothing", free_port());
    let mut command = zerostate(folder.path(), &["serve", "--port", "0", "--wait-for", "3"]);
    let (code, _, said) = ended(command.env("DATABASE_URL", url));
    assert_eq!(code, 4, "{said}");
    assert!(said.matches("\"event\":\"waiting\"").count() >= 2, "{said}");
    assert!(said.contains("Check DATABASE_URL"), "{said}");
}

/// What the doctor says: its code and its lines, by name.
fn doctor(folder: &Path, change: impl FnOnce(&mut Command)) -> (i32, Vec<(String, String, String)>) {
    let mut command = zerostate(folder, &["doctor", "--json"]);
    command.env("PORT", "0");
    change(&mut command);
    let (code, out, said) = ended(&mut command);
    let found: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{code} {out} {said}"));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let lines = found["checks"].as_array().unwrap();
    (
        code,
        lines
            .iter()
            .map(|it| (text(&it["name"]), text(&it["status"]), text(&it["found"]) + " " + &text(&it["mend"])))
            .collect(),
    )
}

#[track_caller]
fn has(lines: &[(String, String, String)], name: &str, status: &str, says: &str) {
    let found = lines.iter().any(|line| line.0 == name && line.1 == status && line.2.contains(says));
    assert!(found, "no line {name} {status} {says}: {lines:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_finds_what_is_broken_and_says_what_mends_it() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    let nothing = |_: &mut Command| {};

    let (code, lines) = doctor(folder, nothing);
    assert_eq!(code, 0, "{lines:#?}");
    has(&lines, "configuration", "ok", "development");
    has(&lines, "sandbox", "ok", "runs");
    has(&lines, "disk space", "ok", "MB free");
    has(&lines, "data folder", "ok", "not there yet");
    assert!(!folder.join("data").exists(), "looking makes nothing");

    // A market of its own, with somebody in it.
    let made = ended(&mut zerostate(folder, &["user", "create", "root@example.com", "--role", "admin"]));
    assert_eq!(made.0, 0, "{made:?}");
    let (code, lines) = doctor(folder, nothing);
    assert_eq!(code, 0, "{lines:#?}");
    for (name, says) in [
        ("database", "answers"),
        ("migrations", "up to date"),
        ("clock", ""),
        ("books", "right"),
        ("modules", "answers"),
        ("keys", "private"),
        ("port", "free"),
    ] {
        has(&lines, name, "ok", says);
    }

    // Each thing broken, one at a time.
    write(folder, "bad.toml", "fee_bps = 1");
    let (code, lines) = doctor(folder, |it| {
        it.env("ZEROSTATE_CONFIG", "bad.toml");
    });
    assert_eq!((code, lines.len()), (3, 1), "{lines:#?}");
    has(&lines, "configuration", "fail", "Did you mean fee-bps?");

    let (code, lines) = doctor(folder, |it| {
        it.env("DATABASE_URL", "postgres://127.0.0.1:1/nothing");
    });
    assert_eq!(code, 5);
    has(&lines, "database", "fail", "DATABASE_URL");

    let (code, lines) = doctor(folder, |it| {
        it.env("ZEROSTATE_DATA", "/proc/zerostate");
    });
    assert_eq!(code, 5);
    has(&lines, "data folder", "fail", "/proc");
    has(&lines, "data folder", "fail", "the user with the number");

    let (code, lines) = doctor(folder, |it| {
        it.env("ZEROSTATE_MODULES", "gopher://nowhere");
    });
    assert_eq!(code, 5);
    has(&lines, "modules", "fail", "ZEROSTATE_MODULES");

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (code, lines) = doctor(folder, |it| {
        it.env("PORT", &port).env("HOST", "127.0.0.1");
    });
    assert_eq!(code, 5);
    has(&lines, "port", "fail", "another program");
    drop(taken);

    let (code, lines) = doctor(folder, |it| {
        it.env("PUBLIC_URL", "http://127.0.0.1:1").env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1");
    });
    assert_eq!(code, 0);
    has(&lines, "public URL", "warn", "/health");
    has(&lines, "traces", "warn", "Start the collector");

    // A certificate that is over, one that soon will be, and a file that is none.
    let until = |year: i32| {
        let mut of = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        of.not_before = rcgen::date_time_ymd(2000, 1, 1);
        of.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        write(folder, "certificate.pem", &of.self_signed(&key).unwrap().pem());
        write(folder, "key.pem", &key.serialize_pem());
        doctor(folder, |it| {
            it.args(["--tls-certificate", "certificate.pem", "--tls-key", "key.pem"]);
        })
    };
    let (code, lines) = until(2001);
    assert_eq!(code, 5);
    has(&lines, "certificate", "fail", "Renew it");
    let (code, lines) = until(3000);
    assert_eq!(code, 0);
    has(&lines, "certificate", "ok", "3000-01-01");
    write(folder, "certificate.pem", "nothing");
    let (_, lines) = doctor(folder, |it| {
        it.args(["--tls-certificate", "certificate.pem", "--tls-key", "key.pem"]);
    });
    has(&lines, "certificate", "fail", "no PEM");

    // Production wants more.
    let (code, lines) = doctor(folder, |it| {
        it.env("ZEROSTATE_PROFILE", "production").env("ZEROSTATE_CORS_ORIGINS", "*").env("ZEROSTATE_DATA", "other");
    });
    assert_eq!(code, 5);
    has(&lines, "profile", "fail", "ZEROSTATE_CORS_ORIGINS");
    has(&lines, "keys", "fail", "ZEROSTATE_SIGNING_KEY=");

    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let allow = |path: &str, mode| {
            std::fs::set_permissions(folder.join(path), std::fs::Permissions::from_mode(mode)).unwrap();
        };
        allow("data", 0o755);
        allow("data/keys/signing.key", 0o644);
        let (code, lines) = doctor(folder, nothing);
        assert_eq!(code, 0);
        has(&lines, "data folder", "warn", "chmod 700");
        has(&lines, "keys", "warn", "chmod 600");
        allow("data", 0o700);
    }

    // Migrations that wait, books that are wrong, a key that is none.
    assert_eq!(ended(&mut zerostate(folder, &["migrate", "down"])).0, 0);
    let (code, lines) = doctor(folder, nothing);
    assert_eq!(code, 0);
    has(&lines, "migrations", "warn", "zerostate migrate up");
    assert_eq!(ended(&mut zerostate(folder, &["migrate", "up"])).0, 0);

    let file = folder.join("data/zerostate.db");
    let db = sea_orm::Database::connect(format!("sqlite:{}", file.display())).await.unwrap();
    let forged = "INSERT INTO accounts (id, kind, owner_id, shard, balance, version, created_at) \
                  VALUES (randomblob(16), 'USER', randomblob(16), 0, 5, 0, 0)";
    db.execute_unprepared(forged).await.unwrap();
    let (code, lines) = doctor(folder, nothing);
    assert_eq!(code, 5);
    has(&lines, "books", "fail", "Run `zerostate audit`");
    db.execute_unprepared("DELETE FROM accounts WHERE balance = 5").await.unwrap();
    drop(db);

    write(folder, "data/keys/instance.key", "no key");
    let (code, lines) = doctor(folder, nothing);
    assert_eq!(code, 5);
    has(&lines, "keys", "fail", "is no key");
}
