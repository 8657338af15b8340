//! The settings of the service: each is declared once, as a flag; [`super::layers`] makes the variable and the key of the settings
//! file of it.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{
    ArgMatches, Args,
    builder::{BoolishValueParser, TypedValueParser},
    parser::ValueSource,
};
use strum::VariantNames;
use url::Url;

use super::{failure::Failure, layers::Layers, log::LogFormat};
use crate::{
    config::{Config, Limits, Profile, Secret, StatusProfile, Storage, Tls},
    store::keys,
};

/// The port when nobody says one.
pub(super) const DEFAULT_PORT: u16 = 8080;

/// The settings of every command.
#[derive(Args, Clone, Debug)]
pub(super) struct Settings {
    /// A file with settings: the long flags as keys, in TOML; ./zerostate.toml when it is left out and there is one.
    #[arg(long, global = true, env = "ZEROSTATE_CONFIG", value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// `development`, which makes what is missing, or `production`, which refuses to start without it.
    #[arg(
        long, global = true, env = "ZEROSTATE_PROFILE", value_name = "PROFILE", hide_possible_values = true,
        default_value = "development",
        value_parser = clap::builder::PossibleValuesParser::new(Profile::VARIANTS).try_map(|name| name.parse::<Profile>())
    )]
    pub(super) profile: Profile,
    /// The key that the market signs with and is known by, from the environment: 32 bytes in hex, or PKCS#8 in PEM.
    #[arg(
        long, global = true, env = "ZEROSTATE_INSTANCE_KEY", value_name = "KEY", hide = true, hide_env_values = true,
        value_parser = private_key
    )]
    pub(super) instance_key: Option<String>,
    /// The key that signs access tokens, from the environment: 32 bytes in hex, or PKCS#8 in PEM.
    #[arg(
        long, global = true, env = "ZEROSTATE_SIGNING_KEY", value_name = "KEY", hide = true, hide_env_values = true,
        value_parser = private_key
    )]
    pub(super) signing_key: Option<String>,
    /// The key that makes refresh tokens, from the environment: 32 bytes in hex.
    #[arg(
        long, global = true, env = "ZEROSTATE_REFRESH_KEY", value_name = "KEY", hide = true, hide_env_values = true,
        value_parser = private_bytes
    )]
    pub(super) refresh_key: Option<String>,
    /// Whether callers who are not signed in may ask for the schema by introspection: yes in development, no in production. The
    /// schema is at /graphql/schema.graphql for everybody.
    #[arg(
        long, global = true, env = "ZEROSTATE_ANONYMOUS_INTROSPECTION", value_name = "BOOLEAN", default_value = "true",
        action = clap::ArgAction::Set, value_parser = BoolishValueParser::new()
    )]
    pub(super) anonymous_introspection: bool,
    /// The folder of the embedded database, the keys and the modules.
    #[arg(long, global = true, env = "ZEROSTATE_DATA", default_value = "./data", value_name = "FOLDER")]
    pub(super) data: PathBuf,
    /// postgres://… for PostgreSQL, or sqlite:PATH; the database embedded in the data folder when it is left out.
    #[arg(
        long, global = true, env = "DATABASE_URL", value_name = "URL", value_parser = database_url, hide_env_values = true
    )]
    pub(super) database_url: Option<String>,
    /// postgres://… of a standby that follows the database. Queries of callers who are not signed in read there while it is at most
    /// five seconds behind; everybody else, and everybody when it is away, reads the database itself.
    #[arg(
        long, global = true, env = "ZEROSTATE_REPLICA_URL", value_name = "URL", value_parser = replica_url,
        hide_env_values = true
    )]
    pub(super) replica_url: Option<String>,
    /// Connections to PostgreSQL, or readers of the embedded database.
    #[arg(
        long, global = true, env = "ZEROSTATE_MAX_CONNECTIONS", value_name = "COUNT",
        value_parser = clap::value_parser!(u32).range(1..=1_000)
    )]
    pub(super) max_connections: Option<u32>,
    /// What a service does that finds the schema older than itself: `auto` migrates it, `check` refuses to start.
    #[arg(
        long,
        global = true,
        env = "ZEROSTATE_MIGRATE",
        value_name = "WHEN",
        value_enum,
        default_value = "auto",
        hide_possible_values = true
    )]
    pub(super) migrate: Migrations,
    /// Where modules are kept: a folder or s3://bucket/prefix; `modules` in the data folder when it is left out.
    #[arg(long, global = true, env = "ZEROSTATE_MODULES", value_name = "PLACE")]
    pub(super) modules: Option<String>,
    /// The platform's share of a payout in basis points.
    #[arg(
        long, global = true, env = "ZEROSTATE_FEE_BPS", value_name = "POINTS",
        value_parser = clap::value_parser!(u16).range(0..=10_000)
    )]
    pub(super) fee_bps: Option<u16>,
    /// Hosted agents that run at the same time in this process.
    #[arg(
        long, global = true, env = "ZEROSTATE_WORKERS", value_name = "COUNT",
        value_parser = clap::value_parser!(u16).range(1..=256)
    )]
    pub(super) workers: Option<u16>,
    /// For how many seconds a worker owns what it claimed without a sign of life.
    #[arg(
        long, global = true, env = "ZEROSTATE_LEASE", value_name = "SECONDS",
        value_parser = clap::value_parser!(u64).range(1..=3_600)
    )]
    pub(super) lease: Option<u64>,
    /// Let webhooks lead to private networks, and go without TLS: for tests and closed networks.
    #[arg(long, global = true, env = "ZEROSTATE_ALLOW_PRIVATE_WEBHOOKS", value_parser = BoolishValueParser::new())]
    pub(super) allow_private_webhooks: bool,
    /// The issuer that access tokens name.
    #[arg(long, global = true, env = "ZEROSTATE_ISSUER", value_name = "NAME")]
    pub(super) issuer: Option<String>,
    /// The audience that access tokens name.
    #[arg(long, global = true, env = "ZEROSTATE_AUDIENCE", value_name = "NAME")]
    pub(super) audience: Option<String>,
    /// Origins of browsers that may call, separated by commas; `*` for all.
    #[arg(long, global = true, env = "ZEROSTATE_CORS_ORIGINS", value_name = "ORIGINS", value_delimiter = ',')]
    pub(super) cors_origins: Vec<String>,
    /// What is logged: a level, or a filter such as zerostate=debug,info.
    #[arg(long, global = true, env = "RUST_LOG", value_name = "FILTER")]
    pub(super) log: Option<String>,
    /// How log lines look.
    #[arg(
        long,
        global = true,
        env = "ZEROSTATE_LOG_FORMAT",
        value_name = "FORMAT",
        value_enum,
        default_value = "auto"
    )]
    pub(super) log_format: LogFormat,
    /// Which status codes answer GraphQL requests: `audit`, what the public audits ask for, or `draft-2026-08`, with 422 and 294.
    #[arg(
        long, global = true, env = "ZEROSTATE_STATUS_PROFILE", value_name = "PROFILE", hide_possible_values = true,
        value_parser = clap::builder::PossibleValuesParser::new(StatusProfile::VARIANTS).try_map(|name| name.parse::<StatusProfile>())
    )]
    pub(super) status_profile: Option<StatusProfile>,
    /// A file with the only GraphQL documents that are executed, by name; any document when it is left out.
    #[arg(long, global = true, env = "ZEROSTATE_TRUSTED_DOCUMENTS", value_name = "FILE")]
    pub(super) trusted_documents: Option<PathBuf>,
    /// A file with the certificate and its chain as PEM; the service then speaks HTTPS, HTTP/2 and HTTP/1.1, alone.
    #[arg(long, global = true, env = "ZEROSTATE_TLS_CERTIFICATE", value_name = "FILE", requires = "tls_key")]
    pub(super) tls_certificate: Option<PathBuf>,
    /// A file with the key of the certificate as PEM.
    #[arg(long, global = true, env = "ZEROSTATE_TLS_KEY", value_name = "FILE", requires = "tls_certificate")]
    pub(super) tls_key: Option<PathBuf>,
    /// Where clients reach the service, with its path if it has one: https://example.com/market.
    #[arg(long, global = true, env = "PUBLIC_URL", value_name = "URL", value_parser = public_url)]
    pub(super) public_url: Option<Url>,
    /// The header in which a trusted proxy gives the client's address as the last one; without it the connection's counts.
    #[arg(long, global = true, env = "ZEROSTATE_ADDRESS_HEADER", value_name = "NAME", value_parser = header_name)]
    pub(super) address_header: Option<String>,
    /// Where metrics are served, with health and readiness and without TLS, instead of on the public port: an address with a port.
    #[arg(long, global = true, env = "ZEROSTATE_METRICS_ADDRESS", value_name = "ADDRESS")]
    pub(super) metrics_address: Option<SocketAddr>,
    #[command(flatten)]
    pub(super) limits: LimitSettings,
    #[command(flatten)]
    pub(super) spans: SpanSettings,
}

/// Who migrates the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Migrations {
    /// The first process that needs it.
    Auto,
    /// An operator, by `zerostate migrate up`.
    Check,
}

/// Declares a setting for each limit: `name: kind(least..=most) = "VARIABLE", "what it is"`.
macro_rules! limits {
    ($($field:ident: $kind:ident($least:literal..=$most:literal) = $env:literal, $flag:literal, $help:literal;)+) => {
        /// What requests, connections and callers may cost; `config::Limits` says more about each.
        #[derive(Args, Clone, Debug, Default)]
        pub(super) struct LimitSettings {
            $(
                #[arg(
                    long = $flag, global = true, env = $env, help = $help, value_name = limits!(@unit $kind),
                    help_heading = "Limits", hide_short_help = true, default_value = limits!(@default $kind $field),
                    value_parser = clap::value_parser!(u64).range($least..=$most)
                )]
                $field: Option<u64>,
            )+
        }

        impl LimitSettings {
            fn put_over(&self, limits: &mut Limits) {
                $(if let Some(value) = self.$field {
                    limits.$field = limits!(@value $kind, value);
                })+
            }
        }
    };
    (@unit seconds) => { "SECONDS" };
    (@unit bytes) => { "BYTES" };
    (@unit count) => { "COUNT" };
    (@default seconds $field:ident) => { Limits::default().$field.as_secs().to_string() };
    (@default bytes $field:ident) => { Limits::default().$field.to_string() };
    (@default count $field:ident) => { Limits::default().$field.to_string() };
    (@value seconds, $value:ident) => { Duration::from_secs($value) };
    (@value bytes, $value:ident) => { $value.try_into().unwrap_or(limits_end()) };
    (@value count, $value:ident) => { $value.try_into().unwrap_or(limits_end()) };
}

/// More than any limit: what a number that this machine cannot count to comes to.
fn limits_end<T: TryFrom<u32> + Default>() -> T {
    u32::MAX.try_into().unwrap_or_default()
}

limits! {
    body_bytes: bytes(1_024..=67_108_864) = "ZEROSTATE_BODY_BYTES", "body-bytes", "Bytes of a request body on /graphql";
    document_bytes: bytes(1_024..=1_048_576) = "ZEROSTATE_DOCUMENT_BYTES", "document-bytes", "Bytes of a GraphQL document";
    tokens: count(100..=100_000) = "ZEROSTATE_DOCUMENT_TOKENS", "document-tokens", "Tokens of a GraphQL document";
    nesting: count(16..=64) = "ZEROSTATE_DOCUMENT_NESTING", "document-nesting", "Brackets inside one another in a GraphQL document";
    depth: count(4..=64) = "ZEROSTATE_DOCUMENT_DEPTH", "document-depth", "Fields inside one another in a GraphQL document";
    fields: count(100..=100_000) = "ZEROSTATE_DOCUMENT_FIELDS", "document-fields", "Fields of a GraphQL document with its fragments written out";
    aliases: count(0..=100_000) = "ZEROSTATE_DOCUMENT_ALIASES", "document-aliases", "Aliases of a GraphQL document with its fragments written out";
    directives: count(0..=10_000) = "ZEROSTATE_DOCUMENT_DIRECTIVES", "document-directives", "Directives of a GraphQL document with its fragments written out";
    root_fields: count(1..=10_000) = "ZEROSTATE_ROOT_FIELDS", "root-fields", "Fields at the root of an operation";
    introspection: count(100_000..=100_000_000) = "ZEROSTATE_INTROSPECTION", "introspection", "Values that a query for the schema itself may come to, roughly counted";
    complexity: count(100..=10_000_000) = "ZEROSTATE_COMPLEXITY", "complexity", "The cost of a query, where a list costs its length times its content";
    points: count(1_000..=1_000_000_000) = "ZEROSTATE_POINTS", "points", "Points of cost that one user, or one address without a user, may spend at once";
    points_per_second: count(0..=1_000_000_000) = "ZEROSTATE_POINTS_PER_SECOND", "points-per-second", "Points that come back in a second; nobody is limited when it is 0";
    document_cache_bytes: bytes(0..=1_073_741_824) = "ZEROSTATE_DOCUMENT_CACHE", "document-cache", "Bytes of text of the documents that are kept parsed and may be named by their hash";
    execution: seconds(1..=3_600) = "ZEROSTATE_EXECUTION_TIMEOUT", "execution-timeout", "How long a query or a mutation may run";
    response_bytes: bytes(1_024..=1_073_741_824) = "ZEROSTATE_RESPONSE_BYTES", "response-bytes", "Bytes of one answer";
    requests_per_caller: count(1..=1_000_000) = "ZEROSTATE_REQUESTS_PER_CALLER", "requests-per-caller", "Queries and mutations of one user, or of one address without a user, at the same time";
    connections: count(1..=1_000_000) = "ZEROSTATE_CONNECTIONS", "connections", "Connections to this process";
    head_patience: seconds(1..=3_600) = "ZEROSTATE_HEAD_TIMEOUT", "head-timeout", "How long a client may take to send the head of a request";
    body_patience: seconds(1..=3_600) = "ZEROSTATE_BODY_TIMEOUT", "body-timeout", "How long a client may take to send the body of a request";
    send_patience: seconds(1..=3_600) = "ZEROSTATE_SEND_TIMEOUT", "send-timeout", "How long a client may take nothing of what is sent to it";
    sockets: count(1..=1_000_000) = "ZEROSTATE_SOCKETS", "sockets", "WebSockets and event streams of this process";
    sockets_per_caller: count(1..=1_000_000) = "ZEROSTATE_SOCKETS_PER_CALLER", "sockets-per-caller", "WebSockets and event streams of one user";
    sockets_per_address: count(1..=1_000_000) = "ZEROSTATE_SOCKETS_PER_ADDRESS", "sockets-per-address", "WebSockets and event streams of one address";
    operations_per_socket: count(1..=10_000) = "ZEROSTATE_OPERATIONS_PER_SOCKET", "operations-per-socket", "Operations on one WebSocket at the same time";
    message_bytes: bytes(1_024..=67_108_864) = "ZEROSTATE_MESSAGE_BYTES", "message-bytes", "Bytes of a message from a WebSocket";
    queue: count(1..=10_000) = "ZEROSTATE_QUEUE", "queue", "Messages that wait for one WebSocket or event stream";
    init_patience: seconds(1..=3_600) = "ZEROSTATE_INIT_TIMEOUT", "init-timeout", "How long a WebSocket may take to send connection_init";
    ping: seconds(1..=3_600) = "ZEROSTATE_PING_INTERVAL", "ping-interval", "How often a WebSocket is asked for a sign of life, and an event stream gives one";
    silence: seconds(1..=3_600) = "ZEROSTATE_SILENCE", "silence", "How long a WebSocket may give no sign of life";
    recheck: seconds(1..=3_600) = "ZEROSTATE_RECHECK_INTERVAL", "recheck-interval", "How often the credentials of a stream are checked again";
    expiry_warning: seconds(1..=3_600) = "ZEROSTATE_EXPIRY_WARNING", "expiry-warning", "How long before the end of its token a WebSocket is told of it";
}

/// Declares a setting for each length of time: `name: kind place, least..=most in seconds => "flag", "VARIABLE", "what it is"`.
macro_rules! spans {
    ($($field:ident: $kind:ident $($place:ident).+, $least:literal..=$most:literal => $flag:literal, $env:literal, $help:literal;)+) => {
        /// How long things take and are kept; `config` says more about each.
        #[derive(Args, Clone, Debug)]
        pub(super) struct SpanSettings {
            $(
                #[arg(
                    long = $flag, global = true, env = $env, help = $help, value_name = "DURATION",
                    help_heading = spans!(@heading $kind), hide_short_help = true,
                    default_value = spans!(@default $kind Config::in_folder("").$($place).+),
                    value_parser = |text: &str| spans!(@parse $kind text, $least, $most)
                )]
                $field: spans!(@type $kind),
            )+
        }

        impl SpanSettings {
            fn put_over(&self, config: &mut Config) {
                $(config.$($place).+ = spans!(@value $kind self.$field);)+
            }
        }
    };
    (@heading span) => { "Times" };
    (@heading keep) => { "Retention" };
    (@type span) => { Duration };
    (@type keep) => { Kept };
    (@default span $value:expr) => { spell_span($value) };
    (@default keep $value:expr) => { $value.map_or_else(|| FOR_EVER.to_owned(), spell_span) };
    (@parse span $text:ident, $least:literal, $most:literal) => { span($text, $least, $most) };
    (@parse keep $text:ident, $least:literal, $most:literal) => {
        if $text == FOR_EVER { Ok(Kept(None)) } else { span($text, $least, $most).map(|span| Kept(Some(span))) }
    };
    (@value span $value:expr) => { $value };
    (@value keep $value:expr) => { $value.0 };
}

/// How long something is kept, if there is an end to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kept(Option<Duration>);

/// What is kept without end.
const FOR_EVER: &str = "forever";
const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;

spans! {
    max_auction: span terms.max_auction, 1..=31_536_000 => "max-auction", "ZEROSTATE_MAX_AUCTION", "How long an auction may take bids at most";
    manual_award_window: span terms.manual_award_window, 60..=31_536_000 => "award-window", "ZEROSTATE_AWARD_WINDOW", "How long the requester of a MANUAL auction has to award after its close";
    start_timeout: span terms.start_timeout, 1..=86_400 => "start-timeout", "ZEROSTATE_START_TIMEOUT", "How long a winner may take to start when the task does not say";
    run_timeout: span terms.run_timeout, 1..=86_400 => "run-timeout", "ZEROSTATE_RUN_TIMEOUT", "How long one attempt may run when the task does not say";
    max_run_timeout: span terms.max_run_timeout, 1..=86_400 => "max-run-timeout", "ZEROSTATE_MAX_RUN_TIMEOUT", "How long a task may let one attempt run at most";
    review_window: span terms.review_window, 60..=31_536_000 => "review-window", "ZEROSTATE_REVIEW_WINDOW", "How long a payer may look at a result when the task does not say; silence after it accepts";
    max_review_window: span terms.max_review_window, 60..=31_536_000 => "max-review-window", "ZEROSTATE_MAX_REVIEW_WINDOW", "How long a task may let its payer look at most";
    evidence_window: span terms.evidence_window, 60..=31_536_000 => "evidence-window", "ZEROSTATE_EVIDENCE_WINDOW", "How long the parties of a dispute may show evidence";
    ruling_window: span terms.ruling_window, 60..=31_536_000 => "ruling-window", "ZEROSTATE_RULING_WINDOW", "How long an arbiter has to rule after that";
    rating_window: span terms.rating_window, 60..=31_536_000 => "rating-window", "ZEROSTATE_RATING_WINDOW", "How long after the settlement a payer may rate";
    presence: span terms.presence, 10..=86_400 => "presence", "ZEROSTATE_PRESENCE", "How long after its last sign of life an outside agent counts as online";
    min_settle_delay: span terms.min_settle_delay, 1..=31_536_000 => "min-settle-delay", "ZEROSTATE_MIN_SETTLE_DELAY", "The shortest delay with which a streaming channel may close at its payer's request";
    max_settle_delay: span terms.max_settle_delay, 1..=31_536_000 => "max-settle-delay", "ZEROSTATE_MAX_SETTLE_DELAY", "The longest such delay";
    max_stream: span terms.max_stream, 60..=315_360_000 => "max-stream", "ZEROSTATE_MAX_STREAM", "How long a streaming channel may live";
    access_ttl: span auth.access_ttl, 10..=86_400 => "access-token-life", "ZEROSTATE_ACCESS_TOKEN_LIFE", "How long an access token is good";
    session_ttl: span auth.session_ttl, 60..=31_536_000 => "session-life", "ZEROSTATE_SESSION_LIFE", "How long a session may be renewed";
    sweep_interval: span sweep_interval, 0..=60 => "sweep-interval", "ZEROSTATE_SWEEP_INTERVAL", "How often the sweeper looks for what is due; 10ms at least";
    drain_delay: span drain_delay, 0..=600 => "drain-delay", "ZEROSTATE_DRAIN_DELAY", "How long requests are still taken after the process was told to end; 5s in production when it is not said";
    shutdown_patience: span shutdown_patience, 1..=3_600 => "shutdown-timeout", "ZEROSTATE_SHUTDOWN_TIMEOUT", "How long what is under way may take to end";
    keep_events: keep terms.keep.events, 3_600..=3_153_600_000 => "keep-events", "ZEROSTATE_KEEP_EVENTS", "How long lines of the event log are kept";
    keep_answers: keep terms.keep.answers, 86_400..=3_153_600_000 => "keep-answers", "ZEROSTATE_KEEP_ANSWERS", "How long a retry with an idempotency key gets the first answer";
    keep_deliveries: keep terms.keep.deliveries, 3_600..=3_153_600_000 => "keep-deliveries", "ZEROSTATE_KEEP_DELIVERIES", "How long messages to webhooks are kept that were taken or given up";
    keep_sessions: keep terms.keep.sessions, 3_600..=3_153_600_000 => "keep-sessions", "ZEROSTATE_KEEP_SESSIONS", "How long sessions are kept that are over";
    keep_logs: keep terms.keep.logs, 3_600..=3_153_600_000 => "keep-logs", "ZEROSTATE_KEEP_LOGS", "How long the logs of agents are kept with their results";
}

/// Reads a length of time: a whole number with `ms`, `s`, `m`, `h` or `d`.
fn span(text: &str, least: u64, most: u64) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| "must be a length of time such as 90s, 15m, 12h or 30d".to_owned())?;
    let seconds = |unit: u64| number.checked_mul(unit).map(Duration::from_secs);
    let span = match text.get(digits.len()..).unwrap_or_default() {
        "ms" => Some(Duration::from_millis(number)),
        "s" => seconds(1),
        "m" => seconds(60),
        "h" => seconds(HOUR),
        "d" => seconds(DAY),
        _ => return Err("must end with a unit: ms, s, m, h or d".to_owned()),
    };
    let within = Duration::from_secs(least)..=Duration::from_secs(most);
    span.filter(|span| within.contains(span))
        .ok_or_else(|| format!("must be from {} to {}", spell_span(*within.start()), spell_span(*within.end())))
}

/// The shortest way to write a length of time.
fn spell_span(span: Duration) -> String {
    let seconds = span.as_secs();
    if span.subsec_millis() > 0 {
        format!("{}ms", span.as_millis())
    } else if seconds > 0 && seconds.is_multiple_of(DAY) {
        format!("{}d", seconds / DAY)
    } else if seconds > 0 && seconds.is_multiple_of(HOUR) {
        format!("{}h", seconds / HOUR)
    } else if seconds > 0 && seconds.is_multiple_of(60) {
        format!("{}m", seconds / 60)
    } else {
        format!("{seconds}s")
    }
}

impl Settings {
    /// The configuration that the settings make.
    pub(super) fn config(&self) -> Config {
        self.config_over(Config::in_folder(&self.data))
    }

    /// Puts the settings over a configuration that has a data folder already.
    pub(super) fn config_over(&self, mut config: Config) -> Config {
        if let Some(url) = &self.database_url {
            config.storage = Storage::at(url);
        }
        config.storage.replica_url.clone_from(&self.replica_url);
        if let Some(connections) = self.max_connections {
            config.storage.max_connections = connections;
        }
        config.storage.migrate = self.migrate == Migrations::Auto;
        if let Some(modules) = &self.modules {
            config.modules_url.clone_from(modules);
        }
        if let Some(fee_bps) = self.fee_bps {
            config.terms.fee_bps = fee_bps;
        }
        if let Some(workers) = self.workers {
            config.execution.concurrency = workers.into();
        }
        if let Some(seconds) = self.lease {
            config.terms.lease = Duration::from_secs(seconds);
        }
        config.terms.allow_private_webhooks |= self.allow_private_webhooks;
        if let Some(issuer) = &self.issuer {
            config.auth.issuer.clone_from(issuer);
        }
        if let Some(audience) = &self.audience {
            config.auth.audience.clone_from(audience);
        }
        if !self.cors_origins.is_empty() {
            config.cors_origins.clone_from(&self.cors_origins);
        }
        if let Some(profile) = self.status_profile {
            config.http.status_profile = profile;
        }
        if let Some(file) = &self.trusted_documents {
            config.http.trusted_documents = Some(file.clone());
        }
        if let (Some(certificate), Some(key)) = (self.tls_certificate.clone(), self.tls_key.clone()) {
            config.http.tls = Some(Tls { certificate, key });
        }
        if let Some(url) = &self.public_url {
            config.http.public_url = Some(url.clone());
        }
        if let Some(name) = &self.address_header {
            config.http.address_header = Some(name.clone());
        }
        config.http.metrics_address = self.metrics_address;
        self.limits.put_over(&mut config.limits);
        self.spans.put_over(&mut config);
        config.profile = self.profile;
        let secret = |text: &Option<String>| text.clone().map(Secret::new);
        config.keys.instance = secret(&self.instance_key);
        config.keys.signing = secret(&self.signing_key);
        config.keys.refresh = secret(&self.refresh_key);
        config.http.closed_introspection = !self.anonymous_introspection;
        config
    }

    /// Refuses settings that contradict one another.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let config = self.config();
        let (terms, auth) = (&config.terms, &config.auth);
        let contradictions = [
            (self.tls_certificate.is_some() != self.tls_key.is_some(), "tls-certificate and tls-key are set together"),
            (terms.run_timeout > terms.max_run_timeout, "run-timeout is at most max-run-timeout"),
            (terms.review_window > terms.max_review_window, "review-window is at most max-review-window"),
            (terms.min_settle_delay > terms.max_settle_delay, "min-settle-delay is at most max-settle-delay"),
            (terms.max_settle_delay > terms.max_stream, "max-settle-delay is at most max-stream"),
            (auth.access_ttl > auth.session_ttl, "access-token-life is at most session-life"),
            (config.sweep_interval < Duration::from_millis(10), "sweep-interval is at least 10ms"),
        ];
        match contradictions.into_iter().find(|(broken, _)| *broken) {
            None => Ok(()),
            Some((_, rule)) => Err(Failure::configuration(
                format!("Two settings contradict each other: {rule}."),
                "`zerostate config show --origin` says where each comes from.",
            )),
        }
    }
}

/// What production has when nobody says: the keys, and their values.
pub(super) const IN_PRODUCTION: [(&str, &str); 2] = [("anonymous-introspection", "false"), ("drain-delay", "5s")];

/// Accepts an Ed25519 key.
fn private_key(text: &str) -> Result<String, String> {
    match keys::read_signing(Path::new("key"), text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("must be 32 bytes in hex, or PKCS#8 in PEM".to_owned()),
    }
}

/// Accepts 32 bytes.
fn private_bytes(text: &str) -> Result<String, String> {
    keys::read_hex(text).map(|_| text.to_owned()).ok_or_else(|| "must be 32 bytes in hex".to_owned())
}

/// Where a server listens.
#[derive(Args, Clone, Debug)]
pub(super) struct Listen {
    /// The address to listen on: 127.0.0.1, or every address when the environment sets PORT alone.
    #[arg(long, env = "HOST", value_name = "ADDRESS")]
    pub(super) host: Option<IpAddr>,
    /// The port to listen on; 8080 when it is left out, any free one for 0.
    #[arg(long, env = "PORT", value_name = "PORT")]
    pub(super) port: Option<u16>,
}

impl Listen {
    /// Whether it is a platform that says the port: by the environment, and not by a file that a person wrote.
    pub(super) fn is_by_platform(&self, matches: &ArgMatches, layers: &Layers) -> bool {
        let source = matches.try_contains_id("port").is_ok().then(|| matches.value_source("port")).flatten();
        self.port.is_some() && source == Some(ValueSource::EnvVariable) && !layers.is_dotted("PORT")
    }

    /// The address. A platform that says PORT and nothing else routes to the machine from outside, so there the server listens
    /// on all of its addresses; a person who says `--port` means this machine.
    pub(super) fn address(&self, by_platform: bool) -> SocketAddr {
        let default = if by_platform { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST };
        SocketAddr::new(self.host.unwrap_or(default.into()), self.port.unwrap_or(DEFAULT_PORT))
    }
}

/// The address under which this machine reaches a server that listens on `address`: never the unspecified one, which no browser
/// takes.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), address.port()),
        IpAddr::V4(_) | IpAddr::V6(_) => address,
    }
}

/// Accepts the addresses of databases that we can open.
fn database_url(text: &str) -> Result<String, String> {
    let known = ["postgres://", "postgresql://", "sqlite:"].iter().any(|scheme| text.starts_with(scheme));
    if known && text != "sqlite:" {
        Ok(text.to_owned())
    } else {
        Err("must start with postgres:// or sqlite:".to_owned())
    }
}

/// Accepts the addresses of databases that can follow another one.
fn replica_url(text: &str) -> Result<String, String> {
    let known = ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme));
    if known { Ok(text.to_owned()) } else { Err("must start with postgres://".to_owned()) }
}

/// Accepts the addresses that a service can have.
fn public_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    let plain = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    if matches!(url.scheme(), "http" | "https") && url.has_host() && plain {
        Ok(url)
    } else {
        Err("must be http:// or https:// with a host and at most a path".to_owned())
    }
}

/// Accepts the names that a header can have.
fn header_name(text: &str) -> Result<String, String> {
    match axum::http::HeaderName::try_from(text) {
        Ok(name) => Ok(name.as_str().to_owned()),
        Err(_) => Err("must be the name of a header".to_owned()),
    }
}

/// A database's address without its password.
pub(super) fn redacted(url: &str) -> String {
    let Ok(mut parsed) = url::Url::parse(url) else { return url.to_owned() };
    if parsed.password().is_none() || parsed.set_password(Some("…")).is_err() {
        return url.to_owned();
    }
    parsed.to_string().replace("%E2%80%A6", "…")
}

#[cfg(test)]
mod tests {
    use clap::{Command, CommandFactory, FromArgMatches, Parser, builder::Resettable};

    use super::{super::layers::PREFIX, *};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        listen: Listen,
    }

    /// Reads a line in an environment in which no variable of ours is set.
    fn read(arguments: &[&str]) -> Result<Line, clap::Error> {
        read_as(Line::command().mut_args(|arg| arg.env(Resettable::Reset)), arguments)
    }

    fn read_as(command: Command, arguments: &[&str]) -> Result<Line, clap::Error> {
        let matches = command.try_get_matches_from([&["zerostate"], arguments].concat())?;
        Line::from_arg_matches(&matches)
    }

    #[test]
    fn a_flag_beats_the_environment_which_beats_the_default() {
        // PATH is the one variable that is there in every environment.
        let path = std::env::var("PATH").unwrap();
        let with_path =
            || Line::command().mut_args(|arg| arg.env(Resettable::Reset)).mut_arg("data", |a| a.env("PATH"));
        assert_eq!(read(&[]).unwrap().settings.data, PathBuf::from("./data"));
        assert_eq!(read_as(with_path(), &[]).unwrap().settings.data, PathBuf::from(path));
        assert_eq!(read_as(with_path(), &["--data", "/x"]).unwrap().settings.data, PathBuf::from("/x"));
    }

    #[test]
    fn every_setting_has_a_variable() {
        for arg in Line::command().get_arguments().filter(|arg| arg.get_id() != "help") {
            let name = arg.get_env().unwrap_or_else(|| panic!("{} has none", arg.get_id())).to_string_lossy();
            let plain = ["DATABASE_URL", "HOST", "PORT", "PUBLIC_URL", "RUST_LOG"].contains(&name.as_ref());
            assert!(plain || name.starts_with(PREFIX), "{name}");
        }
    }

    #[test]
    fn settings_reach_the_configuration() {
        let line = read(&[
            "--data",
            "/d",
            "--database-url",
            "postgres://h/db",
            "--max-connections",
            "7",
            "--fee-bps",
            "250",
            "--workers",
            "2",
            "--cors-origins",
            "https://a,https://b",
            "--issuer",
            "i",
            "--audience",
            "a",
            "--modules",
            "s3://b/p",
            "--status-profile",
            "draft-2026-08",
            "--trusted-documents",
            "/t.json",
            "--address-header",
            "X-Forwarded-For",
            "--sockets-per-caller",
            "3",
            "--execution-timeout",
            "9",
            "--metrics-address",
            "127.0.0.1:9091",
            "--allow-private-webhooks",
            "--review-window",
            "2h",
            "--sweep-interval",
            "500ms",
            "--keep-events",
            "90d",
            "--keep-sessions",
            "forever",
            "--anonymous-introspection",
            "no",
        ]);
        let config = line.unwrap().settings.config();
        assert_eq!(config.data, PathBuf::from("/d"));
        assert_eq!(config.storage.url, "postgres://h/db");
        assert_eq!(config.storage.max_connections, 7);
        assert_eq!(config.terms.fee_bps, 250);
        assert_eq!(config.execution.concurrency, 2);
        assert_eq!(config.cors_origins, ["https://a", "https://b"]);
        assert_eq!((config.auth.issuer.as_str(), config.auth.audience.as_str()), ("i", "a"));
        assert_eq!(config.modules_url, "s3://b/p");
        assert_eq!(config.http.status_profile, StatusProfile::Draft202608);
        assert_eq!(config.http.trusted_documents, Some(PathBuf::from("/t.json")));
        assert_eq!(config.http.address_header.as_deref(), Some("x-forwarded-for"));
        assert_eq!(config.limits.sockets_per_caller, 3);
        assert_eq!(config.limits.execution, Duration::from_secs(9));
        assert_eq!(config.limits.sockets, Limits::default().sockets);
        assert!(config.terms.allow_private_webhooks && config.http.closed_introspection);
        assert_eq!(config.terms.review_window, Duration::from_hours(2));
        assert_eq!(config.sweep_interval, Duration::from_millis(500));
        assert_eq!((config.terms.keep.events, config.terms.keep.sessions), (Some(Duration::from_hours(90 * 24)), None));
        assert_eq!(config.http.metrics_address.map(|address| address.port()), Some(9091));
        let embedded = read(&["--data", "/d"]).unwrap().settings.config();
        assert_eq!(embedded.storage.url, "sqlite:/d/zerostate.db");
        assert_eq!(embedded.modules_url, "/d/modules");
        assert!(!embedded.terms.allow_private_webhooks);
        // What nobody says stays what `config` says.
        assert_eq!(format!("{embedded:?}"), format!("{:?}", Config::in_folder("/d")));
    }

    #[test]
    fn settings_that_contradict_each_other_are_refused() {
        let check =
            |arguments: &[&str]| read(arguments).unwrap().settings.check().map_err(|failure| failure.to_string());
        assert_eq!(check(&[]), Ok(()));
        assert!(check(&["--run-timeout", "10m"]).unwrap_err().contains("max-run-timeout"));
        assert!(check(&["--sweep-interval", "1ms"]).unwrap_err().contains("10ms"));
        assert!(check(&["--session-life", "1m"]).unwrap_err().contains("access-token-life"));
    }

    #[test]
    fn lengths_of_time_are_read_as_they_are_written() {
        for text in ["1ms", "90s", "15m", "12h", "30d", "0s"] {
            assert_eq!(span(text, 0, 10 * 365 * DAY).map(spell_span), Ok(text.to_owned()));
        }
        for wrong in ["", "5", "s", "1.5h", "-1s", "1w", "2 h", "99999999999999999999d"] {
            assert!(span(wrong, 0, DAY).is_err(), "{wrong}");
        }
        assert!(span("25h", 0, DAY).unwrap_err().contains("1d"));
    }

    #[test]
    fn unknown_values_are_refused() {
        for wrong in [
            &["--database-url", "mysql://h/db"][..],
            &["--database-url", "sqlite:"],
            &["--database-url", "/some/file"],
            &["--fee-bps", "10001"],
            &["--fee-bps", "-1"],
            &["--workers", "0"],
            &["--max-connections", "many"],
            &["--log-format", "xml"],
            &["--status-profile", "other"],
            &["--address-header", "no header"],
            &["--sockets", "0"],
            &["--document-nesting", "65"],
            &["--port", "65536"],
            &["--host", "everywhere"],
            &["--nonsense"],
        ] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn every_limit_is_in_the_reference() {
        let reference = include_str!("../../docs/graphql.md");
        let command = Line::command();
        let limits: Vec<_> = command.get_arguments().filter(|arg| arg.get_help_heading() == Some("Limits")).collect();
        assert!(limits.len() > 25);
        for arg in limits {
            let (flag, name) = (arg.get_long().unwrap(), arg.get_env().unwrap().to_string_lossy().into_owned());
            assert!(reference.contains(&format!("| `--{flag}` | `{name}` |")), "{flag}");
        }
    }

    #[test]
    fn a_port_from_the_environment_alone_opens_every_address() {
        let listen =
            |arguments: &[&str], by_environment| read(arguments).unwrap().listen.address(by_environment).to_string();
        assert_eq!(listen(&[], false), "127.0.0.1:8080");
        assert_eq!(listen(&["--port", "9000"], true), "0.0.0.0:9000");
        assert_eq!(listen(&["--port", "9000"], false), "127.0.0.1:9000");
        assert_eq!(listen(&["--port", "9000", "--host", "10.0.0.1"], true), "10.0.0.1:9000");
        assert_eq!(listen(&["--host", "0.0.0.0"], false), "0.0.0.0:8080");
        assert_eq!(listen(&["--host", "::"], false), "[::]:8080");
    }

    #[test]
    fn nobody_is_sent_to_the_unspecified_address() {
        let of = |address: &str| reachable(address.parse().unwrap()).to_string();
        assert_eq!(of("0.0.0.0:80"), "127.0.0.1:80");
        assert_eq!(of("[::]:80"), "[::1]:80");
        assert_eq!(of("10.0.0.1:80"), "10.0.0.1:80");
    }

    #[test]
    fn a_password_is_not_shown() {
        assert_eq!(redacted("postgres://u:secret@h:5432/db"), "postgres://u:…@h:5432/db");
        assert_eq!(redacted("postgres://h/db"), "postgres://h/db");
        assert_eq!(redacted("sqlite:./data/zerostate.db"), "sqlite:./data/zerostate.db");
    }
}
