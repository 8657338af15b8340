//! Every setting of the program with its default. Where the values come from (flags, environment, files) is the command
//! line's business; what they mean is said here.

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use url::Url;

/// What a process is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, strum::Display, strum::EnumString, strum::VariantNames)]
#[strum(serialize_all = "kebab-case")]
pub enum Profile {
    /// For one's own machine: what is missing is made.
    #[default]
    Development,
    /// For others: what is missing or open to the world keeps the service from starting.
    Production,
}

/// A text that no log and no message shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("…")
    }
}

/// The keys that were given from outside. Each is 32 bytes in hex, or what the file of that key in the data folder has; one that is
/// given stands in for the file.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    /// The identity of the market.
    pub instance: Option<Secret>,
    /// What access tokens are signed with.
    pub signing: Option<Secret>,
    /// What refresh tokens are made with.
    pub refresh: Option<Secret>,
}

/// How the database is reached.
#[derive(Clone, Debug)]
pub struct Storage {
    /// `postgres://…`, or `sqlite:PATH` for the embedded database.
    pub url: String,
    /// A standby of PostgreSQL for queries of callers who are not signed in: `postgres://…`.
    pub replica_url: Option<String>,
    /// Connections to PostgreSQL, or readers of SQLite, which has one writer besides.
    pub max_connections: u32,
    /// How long an operation may wait for a connection.
    pub acquire_timeout: Duration,
    /// How long PostgreSQL works on one statement before it gives up.
    pub statement_timeout: Duration,
    /// Whether a process that finds the schema older than itself migrates it; otherwise it refuses to start.
    pub migrate: bool,
}

impl Storage {
    /// The defaults for a database at `url`.
    #[must_use]
    pub fn at(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            replica_url: None,
            max_connections: 12,
            acquire_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(30),
            migrate: true,
        }
    }
}

/// How long what is not needed for the books is kept, counted from when it was last of use; for ever where nothing is said.
#[derive(Clone, Debug)]
pub struct Keep {
    /// Lines of the event log.
    pub events: Option<Duration>,
    /// Answers to idempotency keys: so long a retry gets the first answer.
    pub answers: Option<Duration>,
    /// Messages to webhooks that were taken or given up.
    pub deliveries: Option<Duration>,
    /// Sessions that are over.
    pub sessions: Option<Duration>,
    /// What agents wrote to standard error.
    pub logs: Option<Duration>,
}

impl Default for Keep {
    fn default() -> Self {
        let month = Some(Duration::from_hours(30 * 24));
        Self { events: None, answers: month, deliveries: month, sessions: month, logs: None }
    }
}

/// The market's terms: what verbs may assume about money and time.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The platform's share of a payout in basis points, rounded down; the remainder is the agent's.
    pub fee_bps: u16,
    /// How long an auction with `closesIn` may at most take bids.
    pub max_auction: Duration,
    /// How long a requester of a MANUAL auction has to award after the close before the auction expires.
    pub manual_award_window: Duration,
    /// How often a soft close may move the close.
    pub max_extensions: i32,
    /// Live bids that one auction takes at most.
    pub max_bids: i32,
    /// Hosted agents that bid by themselves when an auction opens, best expected score first.
    pub max_auto_bids: u64,
    /// How long a winner may take to start when the task does not say.
    pub start_timeout: Duration,
    /// The wall-clock limit of one attempt when the task does not say, and the most that it may say.
    pub run_timeout: Duration,
    pub max_run_timeout: Duration,
    /// How often work is tried when the fault is ours and the task does not say, and the most that it may say.
    pub max_attempts: i32,
    /// How long a worker owns what it claimed without a heartbeat.
    pub lease: Duration,
    /// How long after its last sign of life an agent that runs elsewhere counts as online.
    pub presence: Duration,
    /// The first pause before a retry; it doubles with every attempt, with full jitter.
    pub retry_base: Duration,
    /// Bytes of a task's input at most.
    pub max_input_bytes: usize,
    /// Bytes of a module at most.
    pub max_module_bytes: usize,
    /// How long after the settlement a payer may rate.
    pub rating_window: Duration,
    /// How long a payer may look at a result when the task does not say, and the least and most that it may say.
    pub review_window: Duration,
    pub min_review_window: Duration,
    pub max_review_window: Duration,
    /// How long the parties of a dispute may show evidence, and how long after that an arbiter may rule.
    pub evidence_window: Duration,
    pub ruling_window: Duration,
    /// Pieces of evidence that one party of a dispute may show.
    pub max_evidence: u64,
    /// How long the reveals of a COMMIT_REVEAL auction may take at least: bidders must get to know of the close and answer.
    pub min_reveal: Duration,
    /// How long they may take at most.
    pub max_reveal: Duration,
    /// How often one agent may bid or commit in one auction, replacements included.
    pub max_bids_of_agent: i32,
    /// The bounds of the delay with which a streaming channel closes at its payer's request.
    pub min_settle_delay: Duration,
    pub max_settle_delay: Duration,
    /// What a streaming channel must live beyond that delay at its opening.
    pub stream_margin: Duration,
    /// How long a streaming channel may live.
    pub max_stream: Duration,
    /// Whether webhooks may lead to private networks, and go without TLS: for tests and closed networks.
    pub allow_private_webhooks: bool,
    /// How long things are kept.
    pub keep: Keep,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            fee_bps: 0,
            max_auction: Duration::from_hours(30 * 24),
            manual_award_window: Duration::from_hours(24),
            max_extensions: 10,
            max_bids: 1_000,
            max_auto_bids: 20,
            start_timeout: Duration::from_mins(1),
            run_timeout: Duration::from_secs(10),
            max_run_timeout: Duration::from_mins(5),
            max_attempts: 3,
            lease: Duration::from_secs(30),
            presence: Duration::from_mins(2),
            retry_base: Duration::from_millis(500),
            max_input_bytes: 256 * 1024,
            max_module_bytes: 8 * 1024 * 1024,
            rating_window: Duration::from_hours(14 * 24),
            review_window: Duration::from_hours(24),
            min_review_window: Duration::from_mins(1),
            max_review_window: Duration::from_hours(30 * 24),
            evidence_window: Duration::from_hours(3 * 24),
            ruling_window: Duration::from_hours(7 * 24),
            max_evidence: 20,
            min_reveal: Duration::from_mins(1),
            max_reveal: Duration::from_hours(7 * 24),
            max_bids_of_agent: 100,
            min_settle_delay: Duration::from_mins(15),
            max_settle_delay: Duration::from_hours(30 * 24),
            stream_margin: Duration::from_mins(5),
            max_stream: Duration::from_hours(366 * 24),
            allow_private_webhooks: false,
            keep: Keep::default(),
        }
    }
}

/// Sign-in and tokens.
#[derive(Clone, Debug)]
pub struct Auth {
    /// The `iss` of access tokens.
    pub issuer: String,
    /// The `aud` of access tokens.
    pub audience: String,
    /// How long an access token is good.
    pub access_ttl: Duration,
    /// How long a session may be renewed.
    pub session_ttl: Duration,
    /// How long a spent refresh token still gets its one successor: the answer may have been lost on the way.
    pub refresh_grace: Duration,
    /// argon2id memory in KiB, passes and lanes; the default is the OWASP minimum.
    pub argon2: (u32, u32, u32),
    /// Wrong passwords in a row before an account is locked.
    pub max_failed_logins: i32,
    /// How long the first lock lasts; it doubles with every further wrong password, up to an hour.
    pub lock_base: Duration,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            issuer: "zerostate".into(),
            audience: "zerostate".into(),
            access_ttl: Duration::from_mins(15),
            session_ttl: Duration::from_hours(30 * 24),
            refresh_grace: Duration::from_secs(10),
            argon2: (19_456, 2, 1),
            max_failed_logins: 5,
            lock_base: Duration::from_secs(30),
        }
    }
}

/// What a request, a connection and a caller may cost. The document limits are explained in `transport::guard`, those of
/// connections in `transport::listen` and `transport::ws`.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a request body on `/graphql`.
    pub body_bytes: usize,
    /// Bytes of a GraphQL document.
    pub document_bytes: usize,
    /// Tokens of a document.
    pub tokens: usize,
    /// Depth of brackets of any kind, before parsing.
    pub nesting: u32,
    /// Depth of selections.
    pub depth: u32,
    /// Selected fields with fragments expanded.
    pub fields: u64,
    /// Aliases with fragments expanded.
    pub aliases: u64,
    /// Directives with fragments expanded.
    pub directives: u64,
    /// Fields at the root.
    pub root_fields: u64,
    /// Values that a query for the schema itself may come to by a rough count; the query of the usual tools comes to 120,000.
    pub introspection: u64,
    /// The static cost of a query, where a list costs its `first` times its content.
    pub complexity: usize,
    /// Points that one caller may spend at once, and how many come back in a second; `transport::cost` says what costs how many.
    /// Nobody is limited when nothing comes back.
    pub points: u64,
    pub points_per_second: u64,
    /// Bytes of text of the documents that are kept parsed, and that clients may name by their hash.
    pub document_cache_bytes: u64,
    /// How long one query or mutation may run.
    pub execution: Duration,
    /// Bytes of one answer.
    pub response_bytes: usize,
    /// Queries and mutations of one caller that run at the same time: of a user, or of an address that signed nobody in.
    pub requests_per_caller: usize,
    /// Connections of all kinds to this process.
    pub connections: usize,
    /// How long a client may take to send the head of a request, and how long a connection may wait for one.
    pub head_patience: Duration,
    /// How long a client may take to send its body.
    pub body_patience: Duration,
    /// How long a client may take to accept what is sent to it before it is let go.
    pub send_patience: Duration,
    /// Sockets and event streams of this process.
    pub sockets: usize,
    /// Sockets and event streams of one user.
    pub sockets_per_caller: usize,
    /// Sockets and event streams of one address; an IPv6 address counts with its network of 64 bits.
    pub sockets_per_address: usize,
    /// Operations on one socket at the same time.
    pub operations_per_socket: usize,
    /// Bytes of a message that a client sends on a socket.
    pub message_bytes: usize,
    /// Messages that wait for a client, of one socket or one event stream.
    pub queue: usize,
    /// How long a socket has to send `connection_init`.
    pub init_patience: Duration,
    /// How often a socket is asked for a sign of life, and an event stream gives one.
    pub ping: Duration,
    /// How long a socket may give no sign of life.
    pub silence: Duration,
    /// How often the credentials of a socket or an event stream are checked again.
    pub recheck: Duration,
    /// How long before the end of its token a socket is told of it.
    pub expiry_warning: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 512 * 1024,
            document_bytes: 64 * 1024,
            tokens: 4_000,
            nesting: 64,
            depth: 16,
            fields: 2_000,
            aliases: 100,
            directives: 50,
            root_fields: 30,
            introspection: 300_000,
            complexity: 20_000,
            points: 200_000,
            points_per_second: 10_000,
            document_cache_bytes: 2 * 1024 * 1024,
            execution: Duration::from_secs(30),
            response_bytes: 16 * 1024 * 1024,
            requests_per_caller: 256,
            connections: 25_000,
            head_patience: Duration::from_secs(30),
            body_patience: Duration::from_secs(30),
            send_patience: Duration::from_secs(10),
            sockets: 20_000,
            sockets_per_caller: 64,
            sockets_per_address: 2_000,
            operations_per_socket: 32,
            message_bytes: 512 * 1024,
            queue: 64,
            init_patience: Duration::from_secs(3),
            ping: Duration::from_secs(15),
            silence: Duration::from_secs(45),
            recheck: Duration::from_mins(1),
            expiry_warning: Duration::from_mins(1),
        }
    }
}

/// Which status codes tell a client of GraphQL over HTTP how its request went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, strum::Display, strum::EnumString, strum::VariantNames)]
#[strum(serialize_all = "kebab-case")]
pub enum StatusProfile {
    /// What the public audits ask for: 400 for a GraphQL request that is refused, 200 once execution began; and 200 for both to
    /// clients of `application/json`.
    #[default]
    Audit,
    /// The draft of August 2026: 422 for a document or variables that do not fit the schema, 294 for data with errors.
    #[strum(serialize = "draft-2026-08")]
    Draft202608,
}

/// The files of a certificate.
#[derive(Clone, Debug)]
pub struct Tls {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// How clients are met over HTTP.
#[derive(Clone, Debug, Default)]
pub struct Http {
    /// Which status codes are used on `/graphql`.
    pub status_profile: StatusProfile,
    /// A file with the only documents that are executed; any document without it.
    pub trusted_documents: Option<PathBuf>,
    /// The files of the certificate with its chain and of its key, both PEM; the service speaks plainly without them.
    pub tls: Option<Tls>,
    /// Where clients reach the service, with its path when a proxy hands on only a part of its own.
    pub public_url: Option<Url>,
    /// The header in which a trusted proxy gives the address of the client as the last one. The address of the connection counts
    /// without it.
    pub address_header: Option<String>,
    /// Where metrics are served with health and readiness, without TLS, instead of on the public port.
    pub metrics_address: Option<SocketAddr>,
    /// Whether callers who are not signed in are refused introspection. The schema stays public at `/graphql/schema.graphql`.
    pub closed_introspection: bool,
}

/// How executors run.
#[derive(Clone, Debug)]
pub struct Execution {
    /// Guests that run at the same time in this process.
    pub concurrency: usize,
    /// Bytes of linear memory of one guest.
    pub memory_bytes: usize,
    /// Units of fuel of one attempt.
    pub fuel: u64,
    /// Bytes that a guest may write to standard output.
    pub output_bytes: usize,
    /// Bytes of standard error that are kept.
    pub log_bytes: usize,
}

impl Default for Execution {
    fn default() -> Self {
        Self {
            concurrency: 4,
            memory_bytes: 64 * 1024 * 1024,
            fuel: 2_000_000_000,
            output_bytes: 1024 * 1024,
            log_bytes: 64 * 1024,
        }
    }
}

/// All of it.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the embedded database, the keys and the modules lie.
    pub data: PathBuf,
    pub profile: Profile,
    /// Keys from outside.
    pub keys: Keys,
    pub storage: Storage,
    /// Where modules are stored: a folder, or `s3://bucket/prefix`.
    pub modules_url: String,
    pub terms: Terms,
    pub auth: Auth,
    pub limits: Limits,
    pub http: Http,
    pub execution: Execution,
    /// How often the sweeper looks for what is due.
    pub sweep_interval: Duration,
    /// How long requests are still taken after the process was told to end, so that whoever routes here can look away.
    pub drain_delay: Duration,
    /// How long requests and background work that are under way may take to end.
    pub shutdown_patience: Duration,
    /// Origins of browsers that may call; none but our own pages by default.
    pub cors_origins: Vec<String>,
}

impl Config {
    /// The defaults over a data folder with the embedded database in it.
    #[must_use]
    pub fn in_folder(data: impl Into<PathBuf>) -> Self {
        let data = data.into();
        Self {
            storage: Storage::at(format!("sqlite:{}", data.join("zerostate.db").display())),
            modules_url: data.join("modules").display().to_string(),
            data,
            profile: Profile::default(),
            keys: Keys::default(),
            terms: Terms::default(),
            auth: Auth::default(),
            limits: Limits::default(),
            http: Http::default(),
            execution: Execution::default(),
            sweep_interval: Duration::from_millis(200),
            drain_delay: Duration::ZERO,
            shutdown_patience: Duration::from_secs(25),
            cors_origins: Vec::new(),
        }
    }
}
