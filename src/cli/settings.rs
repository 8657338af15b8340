//! Where settings come from: a flag beats its environment variable, which beats the default. A variable that is set to nothing
//! counts as not set, because that is what compose files do. A variable of ours that does not exist is refused, because a
//! misspelled setting that is silently ignored costs an evening.

use std::{
    ffi::OsStr,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, Command, builder::Resettable};

use super::{
    failure::{Exit, Failure},
    log::LogFormat,
};
use crate::config::{Config, Storage};

/// The prefix of our environment variables.
const PREFIX: &str = "ZEROSTATE_";
/// Variables with our prefix that are read by others: the test suite and the example programs.
const FOREIGN: [&str; 3] = ["ZEROSTATE_TEST_", "ZEROSTATE_URL", "ZEROSTATE_TOKEN"];
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
        if let Some(issuer) = &self.issuer {
            config.auth.issuer.clone_from(issuer);
        }
        if let Some(audience) = &self.audience {
            config.auth.audience.clone_from(audience);
        }
        if !self.cors_origins.is_empty() {
            config.cors_origins.clone_from(&self.cors_origins);
        }
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
            let plain = ["DATABASE_URL", "HOST", "PORT", "RUST_LOG"].contains(&name.as_ref());
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
        let embedded = read(&["--data", "/d"]).unwrap().settings.config();
        assert_eq!(embedded.storage.url, "sqlite:/d/zerostate.db");
        assert_eq!(embedded.modules_url, "/d/modules");
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
            &["--port", "65536"],
            &["--host", "everywhere"],
            &["--nonsense"],
        ] {
            assert!(read(wrong).is_err(), "{wrong:?}");
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
