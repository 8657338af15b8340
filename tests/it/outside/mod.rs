//! Two real workers of one agent on the real program. One is stopped by the system past its lease and goes on when the other one has
//! done the work: the work is paid once, to the right result.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use sea_orm::{ConnectionTrait, Statement};
use serde_json::{Value, json};
use tokio::{
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    time::timeout,
};

use crate::{
    faults::{
        Folder,
        program::{ADMIN, Program},
    },
    world::{Client, Database, PASSWORD, fresh_key, http},
};

const TOKENS: &str = "tokens { accessToken user { id } }";
/// How long a worker may take to say its next word, on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// A worker in a process of its own, which dies with this value.
struct Worker {
    process: Child,
    said: UnboundedReceiver<String>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Worker {
    fn start(url: &str, key: &str, agent: &str, name: &str, seconds: &str) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/outside/worker.py");
        let mut process = Command::new("python3")
            .args([script, url, key, agent, name, seconds])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this story runs two workers in Python: install python3");
        let (output, (says, said)) = (process.stdout.take().unwrap(), unbounded_channel());
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                // Nobody may listen any more.
                let _ = says.send(line);
            }
        });
        Self { process, said }
    }

    /// The next line that it says; nothing at its end.
    async fn says(&mut self) -> Option<String> {
        timeout(PATIENCE, self.said.recv()).await.expect("the worker says something in time")
    }

    /// Sends it a signal, `STOP` or `CONT`.
    fn signal(&self, name: &str) {
        let kill = Command::new("kill").args([format!("-{name}"), self.process.id().to_string()]).status().unwrap();
        assert!(kill.success());
    }

    async fn ends(mut self) {
        assert_eq!(self.says().await, None);
        assert!(self.process.wait().unwrap().success());
    }
}

/// Somebody on the real program.
async fn person(nobody: &Client, field: &str, input: Value) -> Client {
    let answer = nobody.call(field, TOKENS, input).await;
    nobody.clone().signed_in(field, &answer["tokens"])
}

async fn number(url: &str, question: &str) -> i64 {
    let database = sea_orm::Database::connect(url).await.unwrap();
    let statement = Statement::from_string(database.get_database_backend(), question.to_owned());
    let row = database.query_one_raw(statement).await.unwrap().unwrap();
    let number = row.try_get("", "n").unwrap();
    database.close().await.unwrap();
    number
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_the_system_stops_past_its_lease_loses_the_work_to_the_one_that_does_it() {
    let folder = Folder::new();
    let database = Database::empty(folder.path()).await;
    let url = match &database {
        Database::Sqlite(_) => None,
        Database::Postgres { .. } => Some(database.url()),
    };
    // Its leases take a second.
    let server = Program::new(folder.path(), url);
    let running = server.start();
    server.is_ready().await;
    let nobody = Client::new(http(), server.address);
    let admin = person(&nobody, "login", json!({ "email": ADMIN, "password": PASSWORD })).await;
    let someone =
        |name: &str| json!({ "email": format!("{name}@example.com"), "displayName": name, "password": PASSWORD });
    let (ada, bob) =
        (person(&nobody, "registerUser", someone("ada")).await, person(&nobody, "registerUser", someone("bob")).await);
    let issue = json!({ "userId": ada.id(), "amount": "100", "reference": fresh_key() });
    admin.call("issueCredits", "transfer { id }", issue).await;
    let agent = json!({ "name": "hand", "capabilities": ["hand"], "runtime": "EXTERNAL", "price": "1" });
    let agent = bob.call("registerAgent", "agent { id }", agent).await["agent"]["id"].as_str().unwrap().to_owned();
    let key = json!({ "name": "workers", "scopes": ["READ", "WORK_WRITE"], "agentId": agent });
    let key = bob.call("createApiKey", "secret", key).await["secret"].as_str().unwrap().to_owned();
    let auction = ada
        .open(json!({ "capabilities": ["hand"], "closeAfterBids": 1, "timeout": "PT2M", "startTimeout": "PT2M" }))
        .await;

    let endpoint = format!("http://{}/graphql", server.address);
    let mut first = Worker::start(&endpoint, &key, &agent, "first", "600");
    bob.call("submitBid", "bid { id }", json!({ "auctionId": auction, "agentId": agent, "price": "2" })).await;
    assert_eq!(first.says().await.as_deref(), Some("claim 1"));
    // It works for longer than a lease, because its heart beats.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    first.signal("STOP");
    let mut second = Worker::start(&endpoint, &key, &agent, "second", "1.5");
    assert_eq!(second.says().await.as_deref(), Some("claim 2"));
    assert_eq!(second.says().await.as_deref(), Some("submit DONE"));
    second.ends().await;
    first.signal("CONT");
    assert_eq!(first.says().await.as_deref(), Some("heartbeat LEASE_LOST"));
    assert_eq!(first.says().await.as_deref(), Some("submit LEASE_LOST"));
    first.ends().await;

    let task = ada.task_of(&auction).await;
    assert_eq!((&task["status"], &task["paid"]), (&json!("COMPLETED"), &json!("2")));
    assert_eq!(task["result"]["output"], "second");
    let earned = bob.query("query($id: ID!) { agent(id: $id) { earnings inWork } }", json!({ "id": agent })).await;
    assert_eq!(earned["agent"], json!({ "earnings": "2", "inWork": 0 }));
    assert_eq!(ada.wallet().await, ("98".to_owned(), "0".to_owned()));
    drop(running);
    let (database, count) = (server.database_url(), "SELECT COUNT(*) AS n FROM");
    assert_eq!(number(&database, &format!("{count} transfers WHERE kind = 'PAYOUT'")).await, 1);
    assert_eq!(number(&database, &format!("{count} task_results")).await, 1);
    server.audit();
}
