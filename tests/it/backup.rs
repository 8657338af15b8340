//! Backups that are made while the market is at work, and brought back somewhere else.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    cli::sign_in,
    faults::program::{ADMIN, Program},
    world::{Client, Database, fresh_key, on_postgres},
};

const ISSUE: &str =
    "mutation($input: IssueCreditsInput!) { issueCredits(input: $input) { transfer { id } userErrors { code } } }";
const TASK: &str =
    "mutation($input: ExecuteTaskInput!) { executeTask(input: $input) { task { id } userErrors { code } } }";

/// The program over a folder, once, with what it prints and says.
fn zerostate(data: &Path, database: Option<&str>, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zerostate"));
    for (name, _) in std::env::vars() {
        if name.starts_with("ZEROSTATE_") || ["DATABASE_URL", "HOST", "PORT", "RUST_LOG"].contains(&name.as_str()) {
            command.env_remove(name);
        }
    }
    command.env("ZEROSTATE_DATA", data).args(arguments);
    if let Some(url) = database {
        command.env("DATABASE_URL", url);
    }
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap_or(-1), text(stdout) + &text(stderr))
}

/// Buys and issues until it is told to stop, and counts the rounds that were acknowledged.
fn load(admin: &Client, stop: &Arc<AtomicBool>, done: &Arc<AtomicU64>) -> impl Future<Output = ()> + use<> {
    let (admin, stop, done) = (admin.clone(), Arc::clone(stop), Arc::clone(done));
    async move {
        while !stop.load(Ordering::Relaxed) {
            let input =
                json!({ "userId": admin.id(), "amount": "1", "reference": fresh_key(), "idempotencyKey": fresh_key() });
            admin.done("issueCredits", ISSUE, json!({ "input": input })).await;
            let input = json!({ "title": "load", "capabilities": ["nobody.can"], "input": "x", "budget": "0.5", "idempotencyKey": fresh_key() });
            admin.done("executeTask", TASK, json!({ "input": input })).await;
            done.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Waits until the load has gone on by so many rounds.
async fn rounds(done: &AtomicU64, more: u64) {
    let (until, since) = (done.load(Ordering::Relaxed) + more, Instant::now());
    while done.load(Ordering::Relaxed) < until {
        assert!(since.elapsed() < Duration::from_mins(1), "the market does not work");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What the administrator has, in whole credits.
async fn credits(admin: &Client) -> u64 {
    let me = admin.query("{ me { wallet { available } } }", json!({})).await;
    let amount = me["me"]["wallet"]["available"].as_str().unwrap().to_owned();
    amount.split('.').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_market_at_work_is_backed_up_and_brought_back_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let (data, elsewhere) = (folder.path().join("data"), folder.path().join("elsewhere"));
    std::fs::create_dir(&data).unwrap();
    let program = Program::new(&data, None);
    let server = program.start();
    program.is_ready().await;
    let admin = sign_in(&program, ADMIN).await;
    let (stop, done) = (Arc::default(), Arc::default());
    let mut loads = JoinSet::new();
    loads.spawn(load(&admin, &stop, &done));
    loads.spawn(load(&admin, &stop, &done));
    rounds(&done, 10).await;
    let acknowledged = done.load(Ordering::Relaxed);

    let file = folder.path().join("market.tar");
    let shown = file.display().to_string();
    let made = {
        let (data, shown) = (data.clone(), shown.clone());
        tokio::task::spawn_blocking(move || zerostate(&data, None, &["backup", &shown])).await.unwrap()
    };
    assert!(made.0 == 0 && made.1.contains("3 keys"), "{made:?}");
    rounds(&done, 10).await;
    stop.store(true, Ordering::Relaxed);
    loads.join_all().await;
    #[cfg(unix)]
    {
        let rights = std::fs::metadata(&file).unwrap().permissions();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&rights) & 0o777, 0o600, "it has the keys in it");
    }
    // None is written over, and nothing is left lying about.
    let again = zerostate(&data, None, &["backup", &shown]);
    assert!(again.0 == 1 && again.1.contains("there already"), "{again:?}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);

    // Never over something that is there.
    let occupied = zerostate(&data, None, &["restore", &shown]);
    assert!(occupied.0 == 1 && occupied.1.contains("not empty"), "{occupied:?}");
    let restored = zerostate(&elsewhere, None, &["restore", &shown]);
    assert_eq!(restored.0, 0, "{restored:?}");
    #[cfg(unix)]
    for (name, expected) in [("", 0o700), ("keys", 0o700), ("keys/instance.key", 0o600)] {
        let rights = std::fs::metadata(elsewhere.join(name)).unwrap().permissions();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&rights) & 0o777, expected, "{name}");
    }
    let audited = zerostate(&elsewhere, None, &["audit"]);
    assert_eq!(audited.0, 0, "{audited:?}");
    let journal = folder.path().join("journal").display().to_string();
    for arguments in [["audit", "export", &journal], ["audit", "verify", &journal]] {
        let (code, said) = zerostate(&elsewhere, None, &arguments);
        assert_eq!(code, 0, "{said}");
    }
    drop(server);

    // It is the same market: who was signed in still is, what was acknowledged before is there, and it goes on.
    let there = Program { data: elsewhere.clone(), ..Program::new(&elsewhere, None) };
    let _server = there.start();
    there.is_ready().await;
    let admin = admin.at(there.address);
    let kept = credits(&admin).await;
    assert!(kept >= acknowledged, "{kept} of {acknowledged}");
    let input = json!({ "userId": admin.id(), "amount": "1", "reference": fresh_key(), "idempotencyKey": fresh_key() });
    admin.done("issueCredits", ISSUE, json!({ "input": input })).await;
    there.audit();
}

#[test]
fn what_is_no_backup_is_not_brought_back() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let empty = zerostate(&data, None, &["backup", &folder.path().join("none.tar").display().to_string()]);
    assert!(empty.0 == 3 && empty.1.contains("no database"), "{empty:?}");
    let file = folder.path().join("strange.tar");
    std::fs::write(&file, "not a tar archive at all").unwrap();
    let strange = zerostate(&data, None, &["restore", &file.display().to_string()]);
    assert!(strange.0 == 1 && strange.1.contains("cannot be brought back"), "{strange:?}");

    // An archive that wants to write elsewhere.
    let mut archive = tar::Builder::new(std::fs::File::create(&file).unwrap());
    let mut header = tar::Header::new_gnu();
    header.set_size(1);
    header.as_gnu_mut().unwrap().name[..7].copy_from_slice(b"../evil");
    header.set_cksum();
    archive.append(&header, &b"x"[..]).unwrap();
    archive.finish().unwrap();
    let evil = zerostate(&folder.path().join("other"), None, &["restore", &file.display().to_string()]);
    assert!(evil.0 == 1 && evil.1.contains("does not belong"), "{evil:?}");
    assert!(!folder.path().join("evil").exists());
}

/// A program of PostgreSQL's client, which comes with its server.
fn client_program(name: &str) -> PathBuf {
    let named = std::env::var_os("PG_BINDIR").map(PathBuf::from);
    let mut folders: Vec<PathBuf> = named.into_iter().collect();
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    folders.extend(versions.map(|version| version.path().join("bin")));
    folders.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let found = folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is missing: install postgresql-client, or set PG_BINDIR to its folder"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgresql_market_at_work_is_dumped_and_brought_back() {
    if !on_postgres() {
        // What it says when it is asked to is the same everywhere.
        let folder = tempfile::tempdir().unwrap();
        let refused = zerostate(folder.path(), Some("postgres://u:secret@h/db"), &["backup", "market.dump"]);
        assert!(refused.0 == 3 && refused.1.contains("pg_dump --format=custom --file=market.dump"), "{refused:?}");
        assert!(!refused.1.contains("secret"), "{refused:?}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (database, empty) = (Database::fresh(folder.path()).await, Database::empty(folder.path()).await);
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let program = Program::new(&data, Some(database.url()));
    let server = program.start();
    program.is_ready().await;
    let admin = sign_in(&program, ADMIN).await;
    let (stop, done) = (Arc::default(), Arc::default());
    let mut loads = JoinSet::new();
    loads.spawn(load(&admin, &stop, &done));
    loads.spawn(load(&admin, &stop, &done));
    rounds(&done, 10).await;
    let acknowledged = done.load(Ordering::Relaxed);
    let file = folder.path().join("market.dump");
    let run = |command: &mut Command| {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    run(Command::new(client_program("pg_dump")).args(["--format=custom", "--file"]).arg(&file).arg(database.url()));
    rounds(&done, 5).await;
    stop.store(true, Ordering::Relaxed);
    loads.join_all().await;
    drop(server);

    run(Command::new(client_program("pg_restore"))
        .args(["--no-owner", "--exit-on-error", "--dbname"])
        .arg(empty.url())
        .arg(&file));
    let there = Program::new(&data, Some(empty.url()));
    let _server = there.start();
    there.is_ready().await;
    there.audit();
    let admin = sign_in(&there, ADMIN).await;
    let kept = credits(&admin).await;
    assert!(kept >= acknowledged, "{kept} of {acknowledged}");
    let journal = folder.path().join("journal").display().to_string();
    for arguments in [["audit", "export", &journal], ["audit", "verify", &journal]] {
        let (code, said) = zerostate(&data, Some(&empty.url()), &arguments);
        assert_eq!(code, 0, "{said}");
    }
    let (code, said) = zerostate(&data, Some(&database.url()), &["backup", "x.dump"]);
    assert!(code == 3 && said.contains("pg_dump"), "{said}");
}

#[test]
fn a_postgresql_market_comes_back_as_it_was_at_a_point_in_time() {
    if !on_postgres() {
        return;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recovery.sh");
    let output = Command::new("bash").arg(script).env("ZEROSTATE", env!("CARGO_BIN_EXE_zerostate")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains(" passed, 0 failed"), "{said}");
}
