//! The real program as a process of its own, which may be killed at any moment.

use std::{
    fs::File,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use crate::world::{PASSWORD, http};

/// The administrator whom the program makes at its start.
pub const ADMIN: &str = "admin@example.com";

/// The program with its settings.
pub struct Program {
    pub data: PathBuf,
    /// Where its database is; in the data folder when it is left out.
    pub database: Option<String>,
    pub address: SocketAddr,
    /// Connections to the database.
    pub connections: Option<u32>,
}

/// A running server, which dies with this value.
pub struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    /// The number of the process.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().unwrap()
    }

    /// Waits for its end by itself.
    pub async fn ends_within(&mut self, patience: Duration) -> bool {
        let since = Instant::now();
        while since.elapsed() < patience {
            if self.ended().is_some() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        false
    }
}

impl Program {
    /// The program over a folder and a database, on a free port of the loopback address. Each restart listens on it again.
    pub fn new(data: &Path, database: Option<String>) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        Self { data: data.to_owned(), database, address, connections: None }
    }

    fn environment(&self, command: &mut Command) {
        for (name, _) in std::env::vars() {
            let ours = ["DATABASE_URL", "HOST", "PORT", "RUST_LOG", "FAILPOINTS"].contains(&name.as_str());
            if name.starts_with("ZEROSTATE_") || ours {
                command.env_remove(name);
            }
        }
        command.env("ZEROSTATE_DATA", &self.data).env("RUST_LOG", "warn").stdin(Stdio::null());
        if let Some(url) = &self.database {
            command.env("DATABASE_URL", url);
        }
        if let Some(connections) = self.connections {
            command.env("ZEROSTATE_MAX_CONNECTIONS", connections.to_string());
        }
    }

    fn log(&self) -> PathBuf {
        self.data.join("log")
    }

    /// Starts the server by itself, with the failpoints that are to kill it.
    pub fn start_with(&self, failpoints: Option<&str>) -> Server {
        self.start_by(Command::new(env!("CARGO_BIN_EXE_zerostate")), failpoints)
    }

    pub fn start(&self) -> Server {
        self.start_with(None)
    }

    /// Starts the server by a command that ends in the program's arguments.
    pub fn start_by(&self, mut command: Command, failpoints: Option<&str>) -> Server {
        let log = File::options().create(true).append(true).open(self.log()).unwrap();
        self.environment(&mut command);
        command
            .args(["serve", "--host", "127.0.0.1", "--port", &self.address.port().to_string()])
            .envs([("ZEROSTATE_ADMIN_EMAIL", ADMIN), ("ZEROSTATE_ADMIN_PASSWORD", PASSWORD), ("ZEROSTATE_LEASE", "1")])
            .stdout(Stdio::null())
            .stderr(log);
        if let Some(failpoints) = failpoints {
            command.env("FAILPOINTS", failpoints);
        }
        Server(command.spawn().unwrap())
    }

    /// Waits until the server says that it can work.
    pub async fn is_ready(&self) {
        let (client, since) = (http(), Instant::now());
        let url = format!("http://{}/ready", self.address);
        while !client.get(&url).send().await.is_ok_and(|reply| reply.status() == 200) {
            assert!(since.elapsed() < Duration::from_mins(1), "the server does not start: {}", self.last_words());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The end of the log.
    pub fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// `zerostate audit`, which must find nothing.
    pub fn audit(&self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_zerostate"));
        self.environment(&mut command);
        let output = command.arg("audit").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "the audit: {} {said}", output.status);
    }

    /// Where the database is, for looking into it from outside.
    pub fn database_url(&self) -> String {
        self.database.clone().unwrap_or_else(|| format!("sqlite:{}?mode=rwc", self.data.join("zerostate.db").display()))
    }
}
