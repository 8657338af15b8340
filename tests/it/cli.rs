//! The program as people and scripts use it against a running server: what it prints where, and how it ends.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    faults::program::{ADMIN, Program},
    world::{Client, PASSWORD, PATIENCE, World, answering, crashing, http},
};

/// The program with the server and the credentials in its environment, and nothing else of ours.
pub fn command(address: SocketAddr, token: Option<&str>, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zerostate"));
    for (name, _) in std::env::vars() {
        if name.starts_with("ZEROSTATE_") || ["DATABASE_URL", "HOST", "PORT", "RUST_LOG"].contains(&name.as_str()) {
            command.env_remove(name);
        }
    }
    if let Some(token) = token {
        command.env("ZEROSTATE_TOKEN", token);
    }
    command.env("ZEROSTATE_SERVER", format!("http://{address}")).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub said: String,
}

impl Ended {
    pub fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), out: text(output.stdout), said: text(output.stderr) }
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// The text on standard output of a command that had to succeed.
    #[track_caller]
    pub fn done(&self) -> &str {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out.trim_end()
    }
}

/// Runs a command with this on its standard input, and the market at the same time.
pub async fn run(world: &World, who: &Client, arguments: &[&str], input: &str) -> Ended {
    let mut child = command(world.address, who.token(), arguments).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let mut ended = tokio::task::spawn_blocking(|| Ended::of(child.wait_with_output().unwrap()));
    loop {
        tokio::select! {
            ended = &mut ended => return ended.unwrap(),
            () = tokio::time::sleep(Duration::from_millis(20)) => world.settle().await,
        }
    }
}

const RUN: &[&str] = &["task", "run", "--capability", "text.stats", "--input", "-", "--budget", "10"];

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_bought_followed_and_looked_at() {
    let world = World::start().await;
    let (ada, bob) = (world.user("ada").await, world.user("bob").await);
    world.credit(&ada, "100").await;
    world.hosted_agent(&bob, "one", "text.stats", "2", answering("{\"words\": 3}")).await;

    let paid = run(&world, &ada, &[RUN, &["--follow", "--key", "cli-1"]].concat(), "one two three").await;
    assert_eq!(serde_json::from_str::<Value>(paid.done()).unwrap(), json!({ "words": 3 }));
    for kind in ["TASK_POSTED", "AUCTION_AWARDED", "TASK_STARTED", "TASK_COMPLETED", "is done: 2 credits to one"] {
        assert!(paid.said.contains(kind), "{kind}: {paid:?}");
    }
    // The same intent again buys nothing more.
    let again = run(&world, &ada, &[RUN, &["--follow", "--key", "cli-1", "--json"]].concat(), "one two three").await;
    let task = again.json();
    assert_eq!((&task["status"], &task["paid"]), (&json!("COMPLETED"), &json!("2")));
    assert_eq!(world.rows("tasks").await, 1);
    let id = task["id"].as_str().unwrap().to_owned();

    let shown = run(&world, &ada, &["task", "show", &id], "").await;
    assert!(shown.done().starts_with(&format!("{id}  COMPLETED  text.stats from the command line")), "{shown:?}");
    assert!(shown.out.contains("\"words\": 3") && shown.out.contains("agent         one"), "{shown:?}");
    let posted = run(&world, &ada, &[RUN, &["--closes-in", "60"]].concat(), "more").await;
    let second = posted.done().to_owned();
    let open = run(&world, &ada, &["task", "list", "--status", "open", "--json"], "").await;
    assert_eq!(open.json()[0]["id"], second.as_str(), "{open:?}");
    let cancelled = run(&world, &ada, &["task", "cancel", &second, "--json"], "").await;
    assert_eq!(cancelled.json()["status"], "CANCELLED", "{cancelled:?}");
    let all = run(&world, &ada, &["task", "list"], "").await;
    assert_eq!(all.done().lines().count(), 2, "{all:?}");
    let work = run(&world, &bob, &["task", "list", "--work", "--json"], "").await;
    assert_eq!(work.json()[0]["id"], id.as_str(), "{work:?}");
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_was_not_paid_is_a_failure() {
    let world = World::start().await;
    let (ada, bob) = (world.user("ada").await, world.user("bob").await);
    world.credit(&ada, "100").await;
    world.hosted_agent(&bob, "one", "text.stats", "2", crashing()).await;
    let refunded = run(&world, &ada, &[RUN, &["--follow"]].concat(), "x").await;
    assert_eq!((refunded.code, refunded.out.as_str()), (Some(1), ""), "{refunded:?}");
    assert!(refunded.said.contains("ended as REFUNDED"), "{refunded:?}");
    let nobody = ["task", "run", "--capability", "no.agent", "--input", "-", "--budget", "1", "--follow", "--json"];
    let expired = run(&world, &ada, &nobody, "x").await;
    assert_eq!((expired.code, &expired.json()["status"]), (Some(1), &json!("EXPIRED")), "{expired:?}");
    let dear = run(&world, &ada, &["task", "run", "--capability", "a", "--input", "-", "--budget", "1000"], "x").await;
    assert!(dear.code == Some(1) && dear.said.contains("INSUFFICIENT_FUNDS"), "{dear:?}");
    let strange = run(&world, &bob, &["task", "show", expired.json()["id"].as_str().unwrap()], "").await;
    assert!(strange.code == Some(1) && strange.said.contains("NOT_FOUND"), "{strange:?}");
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_named() {
    let world = World::start().await;
    let ada = world.user("ada").await;
    let ended = |arguments: Vec<&'static str>, token: Option<String>, address| {
        tokio::task::spawn_blocking(move || {
            let mut command = command(address, token.as_deref(), &arguments);
            Ended::of(command.stdin(Stdio::null()).output().unwrap())
        })
    };
    let list = vec!["task", "list"];
    let nobody = ended(list.clone(), None, world.address).await.unwrap();
    assert!(nobody.code == Some(3) && nobody.said.contains("ZEROSTATE_API_KEY"), "{nobody:?}");
    let wrong = ended(list.clone(), Some("zs_wrong".to_owned()), world.address).await.unwrap();
    assert!(wrong.code == Some(1) && wrong.said.contains("does not accept the credentials"), "{wrong:?}");
    let tail = ended(vec!["events", "tail"], Some("zs_wrong".to_owned()), world.address).await.unwrap();
    assert!(tail.code == Some(1) && tail.said.contains("does not accept the credentials"), "{tail:?}");
    let away = ended(vec!["events", "tail"], ada.token().map(str::to_owned), "127.0.0.1:1".parse().unwrap());
    let away = away.await.unwrap();
    assert!(away.code == Some(4) && away.said.contains("zerostate serve"), "{away:?}");
    let silent = ended(vec!["task", "list", "--email", "ada@example.com"], None, world.address).await.unwrap();
    assert!(silent.code == Some(3) && silent.said.contains("ZEROSTATE_PASSWORD"), "{silent:?}");
    let wrong = vec!["task", "list", "--email", "ada@example.com", "--password-file", "/dev/null"];
    let wrong = ended(wrong, None, world.address).await.unwrap();
    assert!(wrong.code == Some(1) && wrong.said.contains("was not signed in"), "{wrong:?}");

    // A password by the environment.
    let address = world.address;
    let signed = tokio::task::spawn_blocking(move || {
        let mut command = command(address, None, &["task", "list", "--json"]);
        command.envs([("ZEROSTATE_EMAIL", "ada@example.com"), ("ZEROSTATE_PASSWORD", PASSWORD)]);
        Ended::of(command.output().unwrap())
    });
    assert_eq!(signed.await.unwrap().json(), json!([]));
    world.check().await;
}

/// A command that runs on, with the lines that it prints.
struct Tail {
    child: Child,
    lines: Receiver<String>,
}

impl Tail {
    fn start(address: SocketAddr, token: &str, arguments: &[&str]) -> Self {
        let mut child = command(address, Some(token), arguments).stderr(Stdio::inherit()).spawn().unwrap();
        let (send, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        Self { child, lines }
    }

    async fn next(&self) -> Value {
        let since = std::time::Instant::now();
        loop {
            match self.lines.try_recv() {
                Ok(line) => return serde_json::from_str(&line).unwrap(),
                Err(_) => assert!(since.elapsed() < PATIENCE * 2, "no event came"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ctrl-C, and how it ends.
    fn interrupt(mut self) -> Option<i32> {
        let told = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap();
        assert!(told.success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_followed_over_a_restart_of_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let program = Program::new(folder.path(), None);
    let server = program.start();
    program.is_ready().await;
    let admin = sign_in(&program, ADMIN).await;
    let post = async |client: &Client, number: u32| {
        let input = json!({
            "title": "nobody", "capabilities": ["nobody.can"], "input": 1, "budget": "1",
            "idempotencyKey": format!("post-{number}"),
        });
        let query =
            "mutation($input: ExecuteTaskInput!) { executeTask(input: $input) { task { id } userErrors { message } } }";
        client.done("executeTask", query, json!({ "input": input })).await
    };
    let issue = json!({ "userId": admin.id(), "amount": "100", "reference": "r", "idempotencyKey": "k" });
    let query = "mutation($input: IssueCreditsInput!) { issueCredits(input: $input) { transfer { id } userErrors { message } } }";
    admin.done("issueCredits", query, json!({ "input": issue })).await;
    post(&admin, 1).await;
    let kinds = "auction_opened,AUCTION_EXPIRED";
    let arguments = ["events", "tail", "--after", "start", "--json", "--kind", kinds];
    let tail = Tail::start(program.address, admin.token().unwrap(), &arguments);
    let mut seen = vec![tail.next().await, tail.next().await];

    // The server dies without a word, and comes back with more to tell.
    drop(server);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let _server = program.start();
    program.is_ready().await;
    post(&admin, 2).await;
    seen.extend([tail.next().await, tail.next().await]);
    assert_eq!(
        seen.iter().map(|event| event["kind"].as_str().unwrap()).collect::<Vec<_>>(),
        ["AUCTION_OPENED", "AUCTION_EXPIRED", "AUCTION_OPENED", "AUCTION_EXPIRED"]
    );
    let cursors: std::collections::HashSet<&str> = seen.iter().map(|event| event["cursor"].as_str().unwrap()).collect();
    assert_eq!(cursors.len(), 4);
    assert_eq!(tail.interrupt(), Some(0));

    // From a cursor on, and to the end of what it is about.
    let third = seen[2]["cursor"].as_str().unwrap();
    let auction = seen[2]["auctionId"].as_str().unwrap();
    let arguments = ["events", "tail", "--auction", auction, "--after", third];
    let rest = Ended::of(command(program.address, admin.token(), &arguments).output().unwrap());
    assert_eq!(rest.done().lines().count(), 1, "{rest:?}");
    assert!(rest.out.contains("AUCTION_EXPIRED") && rest.out.contains(auction), "{rest:?}");

    // A reader that goes away is no failure.
    let mut child = command(program.address, admin.token(), &["events", "tail", "--after", "start"]).spawn().unwrap();
    let mut byte = [0];
    child.stdout.take().unwrap().read_exact(&mut byte).unwrap();
    let number = std::cell::Cell::new(3);
    let ended = async {
        while child.try_wait().unwrap().is_none() {
            post(&admin, number.replace(number.get() + 1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("it ends when nobody reads");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// Signs somebody in at a program.
pub async fn sign_in(program: &Program, email: &str) -> Client {
    let nobody = Client::new(http(), program.address);
    let query = "mutation($input: LoginInput!) { login(input: $input) { tokens { accessToken user { id } } userErrors { message } } }";
    let answer = nobody.done("login", query, json!({ "input": { "email": email, "password": PASSWORD } })).await;
    nobody.clone().signed_in(email, &answer["tokens"])
}

#[test]
fn a_command_needs_no_data_folder() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = command("127.0.0.1:1".parse().unwrap(), None, &["task", "list"]);
    let ended = Ended::of(command.current_dir(folder.path()).output().unwrap());
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(!Path::new(&folder.path().join("data")).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_are_put_on_the_market_and_looked_after() {
    let world = World::start().await;
    let (ada, bob) = (world.user("ada").await, world.user("bob").await);
    world.credit(&ada, "100").await;
    let agent = async |arguments: &[&str]| run(&world, &bob, &[&["agent"], arguments].concat(), "").await;
    let folder = tempfile::tempdir().unwrap();
    let module = folder.path().join("module.wasm");
    std::fs::write(&module, answering("{\"words\": 1}")).unwrap();
    let module = module.to_str().unwrap();

    let made = agent(&["register", "one", "--capability", "text.stats", "--price", "2", "--module", module]).await;
    let id = made.done().to_owned();
    let shown = agent(&["show", &id]).await;
    assert!(shown.done().contains("text.stats") && shown.out.contains("WASI_COMMAND"), "{shown:?}");
    let other = agent(&["register", "two", "--capability", "a,b", "--price", "0.5", "--min-price", "0.25"]).await;
    assert!(other.said.contains("agent upload"), "{other:?}");
    let other = other.done().to_owned();
    let uploaded = agent(&["upload", &other, module, "--json"]).await.json();
    let of_one = agent(&["show", &id, "--json"]).await.json();
    assert_eq!(
        (uploaded["agentId"].as_str(), &uploaded["sha256"]),
        (Some(other.as_str()), &of_one["module"]["sha256"])
    );
    std::fs::write(folder.path().join("no.wasm"), "no module").unwrap();
    let refused = agent(&["upload", &other, folder.path().join("no.wasm").to_str().unwrap()]).await;
    assert!(refused.code == Some(1) && refused.said.contains("NOT_WASM"), "{refused:?}");

    // Paused it wins nothing, resumed it works, and what it earned goes to its owner.
    assert!(agent(&["pause", &id]).await.done().ends_with("PAUSED"));
    let expired = run(&world, &ada, &[RUN, &["--follow"]].concat(), "x").await;
    assert!(expired.code == Some(1) && expired.said.contains("EXPIRED"), "{expired:?}");
    assert_eq!(agent(&["resume", &id, "--json"]).await.json()["status"], "ACTIVE");
    run(&world, &ada, &[RUN, &["--follow"]].concat(), "x").await.done();
    assert_eq!(agent(&["earnings", &id]).await.done(), "2");
    let moved = agent(&["earnings", &id, "--withdraw", "--amount", "0.5"]).await;
    assert!(moved.done() == "1.5" && moved.said.contains("0.5 credits moved"), "{moved:?}");
    assert_eq!(agent(&["earnings", &id, "--withdraw", "--json"]).await.json()["earnings"], "0");
    let all = agent(&["list"]).await;
    assert!(all.done().lines().count() == 2 && all.out.contains("ACTIVE"), "{all:?}");
    assert!(agent(&["retire", &other]).await.done().ends_with("RETIRED"));
    let strange = run(&world, &ada, &["agent", "retire", &id], "").await;
    assert!(strange.code == Some(1) && strange.said.contains("NOT_FOUND"), "{strange:?}");

    // An outside agent's program has a key of its own, which sees what the agent won and may do nothing else.
    let made = agent(&["register", "away", "--capability", "ocr", "--price", "1", "--runtime", "external"]).await;
    assert!(made.said.contains("agent key"), "{made:?}");
    let away = made.done().to_owned();
    let key = agent(&["key", &away, "--days", "1", "--json"]).await.json();
    assert_eq!(key["apiKey"]["scopes"].as_array().unwrap().len(), 3, "{key}");
    let program = bob.with_token(key["secret"].as_str().unwrap());
    assert_eq!(run(&world, &program, &["agent", "offers", &away, "--json"], "").await.json(), json!([]));
    let order = ["task", "run", "--capability", "ocr", "--input", "-", "--budget", "3", "--closes-in", "5"];
    let task = run(&world, &ada, &order, "x").await.done().to_owned();
    let auction = ada.query("query($id: ID!) { task(id: $id) { auction { id } } }", json!({ "id": task })).await;
    let bid = json!({
        "auctionId": auction["task"]["auction"]["id"], "agentId": away, "price": "1", "idempotencyKey": "bid",
    });
    let query = "mutation($input: SubmitBidInput!) { submitBid(input: $input) { bid { id } userErrors { message } } }";
    program.done("submitBid", query, json!({ "input": bid })).await;
    world.pass(Duration::from_secs(6)).await;
    let offers = run(&world, &program, &["agent", "offers", &away], "").await;
    assert!(offers.done().starts_with(&task), "{offers:?}");
    let forbidden = run(&world, &program, &["agent", "pause", &away], "").await;
    assert!(forbidden.code == Some(1) && forbidden.said.contains("FORBIDDEN"), "{forbidden:?}");
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_goal_is_delegated_followed_and_looked_at() {
    let world = World::start().await;
    let (ada, bob) = (world.user("ada").await, world.user("bob").await);
    world.credit(&ada, "100").await;
    world.hosted_agent(&bob, "counter", "text.stats", "1", answering("{\"words\": 3}")).await;
    world.hosted_agent(&bob, "key", "text.keywords", "2", answering("[\"one\"]")).await;
    let folder = tempfile::tempdir().unwrap();
    let plan = folder.path().join("plan.json");
    let steps = json!({
        "steps": [
            { "name": "count", "capabilities": ["text.stats"], "input": { "$ref": "input" } },
            { "name": "keywords", "capabilities": ["text.keywords"], "input": { "$ref": "input" }, "dependsOn": ["count"] },
        ],
        "output": { "words": { "$ref": "count#/words" }, "keywords": { "$ref": "keywords" } },
    });
    std::fs::write(&plan, steps.to_string()).unwrap();
    let delegate =
        ["delegate", "--goal", "know the text", "--budget", "20", "--plan", plan.to_str().unwrap(), "--input", "-"];
    let reached = run(&world, &ada, &[&delegate[..], &["--follow", "--key", "one"]].concat(), "one two three").await;
    assert_eq!(serde_json::from_str::<Value>(reached.done()).unwrap(), json!({ "words": 3, "keywords": ["one"] }));
    for kind in ["DELEGATION_CREATED", "STEP_STARTED", "step keywords", "DELEGATION_COMPLETED", "3 credits spent"] {
        assert!(reached.said.contains(kind), "{kind}: {reached:?}");
    }
    let again =
        run(&world, &ada, &[&delegate[..], &["--follow", "--key", "one", "--json"]].concat(), "one two three").await;
    let again = again.json();
    assert_eq!((&again["status"], &again["costTree"]["paid"]), (&json!("COMPLETED"), &json!("3")));
    assert_eq!(world.rows("delegations").await, 1);
    let id = again["id"].as_str().unwrap();
    let shown = run(&world, &ada, &["delegate", "--show", id], "").await;
    assert!(shown.done().starts_with(&format!("{id}  COMPLETED  100 %  know the text")), "{shown:?}");
    assert!(shown.out.contains("counter") && shown.out.contains("task count"), "{shown:?}");
    let tail = run(&world, &ada, &["events", "tail", "--delegation", id, "--after", "start", "--json"], "").await;
    assert!(tail.done().lines().count() >= 6 && tail.out.contains("DELEGATION_COMPLETED"), "{tail:?}");

    // One step for each capability; called off while its first auction takes bids.
    let slow = [
        "delegate",
        "--goal",
        "both",
        "--budget",
        "20",
        "--capability",
        "text.stats,text.keywords",
        "--closes-in",
        "600",
    ];
    let begun = run(&world, &ada, &slow, "").await.done().to_owned();
    let cancelled = run(&world, &ada, &["delegate", "--cancel", &begun], "").await;
    assert_eq!(cancelled.done(), begun);
    world.settle().await;
    let ended = run(&world, &ada, &["delegate", "--show", &begun, "--json"], "").await.json();
    assert_eq!((&ended["status"], &ended["returned"]), (&json!("CANCELLED"), &json!("20")), "{ended}");

    // What makes no sense is refused before anything is spent, and a goal that was not reached is a failure.
    std::fs::write(
        &plan,
        json!({ "steps": [
        { "name": "a", "capabilities": ["text.stats"], "dependsOn": ["b"] },
        { "name": "b", "capabilities": ["text.stats"], "dependsOn": ["a"] },
    ] })
        .to_string(),
    )
    .unwrap();
    let refused = run(&world, &ada, &delegate, "x").await;
    assert!(refused.code == Some(1) && refused.said.contains("PLAN_HAS_CYCLE"), "{refused:?}");
    world.hosted_agent(&bob, "broken", "text.broken", "1", crashing()).await;
    let broken = ["delegate", "--goal", "it", "--budget", "5", "--capability", "text.broken", "--follow"];
    let failed = run(&world, &ada, &broken, "").await;
    assert!(failed.code == Some(1) && failed.out.is_empty() && failed.said.contains("ended as FAILED"), "{failed:?}");
    world.check().await;
}
