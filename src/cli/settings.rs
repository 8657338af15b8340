//! Where settings come from: a flag beats its environment variable, which beats the default. A variable that is set to nothing
//! counts as not set, because that is what compose files do. A variable of ours that does not exist is refused, because a
//! misspelled setting that is silently ignored costs an evening.

use std::{
    ffi::OsStr,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::{
    Args, Command,
    builder::{BoolishValueParser, Resettable, TypedValueParser},
};
use strum::VariantNames;
use url::Url;

use super::{
    failure::{Exit, Failure},
    log::LogFormat,
};
use crate::config::{Config, Limits, StatusProfile, Storage, Tls};

/// The prefix of our environment variables.
const PREFIX: &str = "ZEROSTATE_";
/// Variables with our prefix that are read by others: the test suite.
const FOREIGN: [&str; 1] = ["ZEROSTATE_TEST_"];
/// The port when nobody says one.
pub(super) const DEFAULT_PORT: u16 = 8080;

/// The settings of every command.
#[derive(Args, Clone, Debug)]
pub(super) struct Settings {
    /// The folder of the embedded database, the keys and the modules.
    #[arg(long, global = true, env = "ZEROSTATE_DATA", default_value = "./data", value_name = "FOLDER")]
    pub(super) data: PathBuf,
    /// postgres://… for PostgreSQL, or sqlite:PATH; the database embedded in the data folder when it is left out.
    #[arg(
        long, global = true, env = "DATABASE_URL", value_name = "URL", value_parser = database_url, hide_env_values = true
    )]
    pub(super) database_url: Option<String>,
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
                    help_heading = "Limits", hide_short_help = true,
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
        config
    }
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
    /// The address. A platform that says PORT and nothing else routes to the machine from outside, so there the server listens
    /// on all of its addresses; a person who says `--port` means this machine.
    pub(super) fn address(&self, port_by_environment: bool) -> SocketAddr {
        let default = if port_by_environment { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST };
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

/// Takes variables that are set to nothing for not set, in every command.
pub(super) fn without_empty_variables(command: Command, is_empty: &(impl Fn(&OsStr) -> bool + ?Sized)) -> Command {
    command
        .mut_args(|arg| match arg.get_env() {
            Some(name) if is_empty(name) => arg.env(Resettable::Reset),
            Some(_) | None => arg,
        })
        .mut_subcommands(|inner| without_empty_variables(inner, is_empty))
}

/// The environment variables that a command and those inside it read.
pub(super) fn variables(command: &Command) -> Vec<String> {
    let own = command.get_arguments().filter_map(|arg| arg.get_env()).map(|name| name.to_string_lossy().into_owned());
    let inner = command.get_subcommands().flat_map(variables);
    let mut all: Vec<String> = own.chain(inner).collect();
    all.sort();
    all.dedup();
    all
}

/// Refuses variables with our prefix that nothing reads.
pub(super) fn refuse_unknown(set: impl Iterator<Item = String>, known: &[String]) -> Result<(), Failure> {
    let ours = |name: &String| name.starts_with(PREFIX) && !FOREIGN.iter().any(|foreign| name.starts_with(foreign));
    match set.filter(ours).find(|name| !known.contains(name)) {
        None => Ok(()),
        Some(name) => {
            let bare = name.strip_prefix(PREFIX).unwrap_or(&name);
            let close = |known: &&String| distance(known.strip_prefix(PREFIX).unwrap_or(known), bare);
            let nearest = known.iter().min_by_key(close).filter(|known| close(known) <= 4);
            let advice = match nearest {
                Some(nearest) => format!("Did you mean {nearest}? Otherwise unset it."),
                None => "Unset it; `zerostate serve --help` lists the settings.".to_owned(),
            };
            Err(Failure::new(Exit::Configuration, format!("The environment sets {name}, which is no setting."), advice))
        }
    }
}

/// How many letters must be put in, taken out or exchanged to make one word of the other.
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.chars().count()).collect();
    for (place, letter) in left.chars().enumerate() {
        let mut next = vec![place + 1];
        for ((above_left, above), other) in row.iter().zip(row.iter().skip(1)).zip(right.chars()) {
            let before = next.last().copied().unwrap_or(0);
            let exchanged = above_left + usize::from(letter != other);
            next.push(exchanged.min(above + 1).min(before + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, FromArgMatches, Parser};

    use super::*;

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
    fn a_variable_that_is_set_to_nothing_is_not_set() {
        let command = Line::command().mut_arg("data", |arg| arg.env("PATH"));
        let command = without_empty_variables(command, &|_: &OsStr| true);
        assert!(variables(&command).is_empty());
        assert_eq!(read_as(command, &[]).unwrap().settings.data, PathBuf::from("./data"));
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
        assert!(config.terms.allow_private_webhooks);
        assert_eq!(config.http.metrics_address.map(|address| address.port()), Some(9091));
        let embedded = read(&["--data", "/d"]).unwrap().settings.config();
        assert_eq!(embedded.storage.url, "sqlite:/d/zerostate.db");
        assert_eq!(embedded.modules_url, "/d/modules");
        assert!(!embedded.terms.allow_private_webhooks);
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
    fn a_misspelled_variable_is_refused_with_the_nearest_one() {
        let known = variables(&Line::command());
        let refuse = |name: &str| refuse_unknown(std::iter::once(name.to_owned()), &known).map_err(|no| no.to_string());
        assert_eq!(refuse("ZEROSTATE_DATA"), Ok(()));
        assert_eq!(refuse("PATH"), Ok(()));
        assert_eq!(refuse("ZEROSTATE_TEST_DATABASE_URL"), Ok(()));
        assert!(refuse("ZEROSTATE_DATABASE_URL").unwrap_err().contains("Did you mean DATABASE_URL?"));
        assert!(refuse("ZEROSTATE_FEE_BP").unwrap_err().contains("Did you mean ZEROSTATE_FEE_BPS?"));
        assert!(refuse("ZEROSTATE_SOMETHING_ELSE").unwrap_err().contains("lists the settings"));
    }

    #[test]
    fn a_password_is_not_shown() {
        assert_eq!(redacted("postgres://u:secret@h:5432/db"), "postgres://u:…@h:5432/db");
        assert_eq!(redacted("postgres://h/db"), "postgres://h/db");
        assert_eq!(redacted("sqlite:./data/zerostate.db"), "sqlite:./data/zerostate.db");
    }
}
