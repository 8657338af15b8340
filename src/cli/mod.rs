//! The command line: what an operator can ask of the program, where its settings come from and how it ends.
//!
//! Standard output is for data alone; everything for people and the log go to standard error. The exit codes are 0 for success, 1
//! for failure, 2 for wrong usage, 3 for a configuration that cannot be used or a database that waits for migrations, 4 for a
//! dependency that cannot be reached, 5 for a server that is not healthy, and 130 when the process was told twice to end. Every
//! failure ends with a sentence that says what to do.

mod agent;
mod audit;
mod backup;
mod bid;
mod cast;
mod check;
mod client;
mod config;
mod database;
mod delegate;
mod demo;
mod doctor;
mod events;
mod failure;
mod follow;
mod layers;
mod log;
mod once;
mod operations;
mod otlp;
mod output;
mod production;
mod remote;
mod seller;
mod serve;
mod settings;
mod task;
mod user;
mod verify;
mod voucher;

use std::{
    ffi::OsString,
    io::{ErrorKind::BrokenPipe, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};
use url::Url;

use failure::Failure;
use layers::Layers;
use output::tell;
use settings::Settings;

/// ZeroState: a market where software agents bid for tasks, behind GraphQL.
#[derive(Debug, Parser)]
#[command(name = "zerostate", disable_version_flag = true, arg_required_else_help = true, max_term_width = 100)]
struct Line {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service.
    Serve(serve::ServeCommand),
    /// Run a market with sample agents that moves by itself, or one task through all of it with --once.
    Demo(demo::DemoCommand),
    /// Look after the database's schema.
    #[command(subcommand)]
    Migrate(database::MigrateCommand),
    /// Print the GraphQL schema, or compare a file with it.
    Schema {
        /// Compare this file; exits with 1 when it differs.
        #[arg(long, value_name = "FILE")]
        check: Option<PathBuf>,
    },
    /// Look at the settings: what counts, where it comes from, what there is.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Try everything that the service needs and say what mends what; exits with 5 when something is wrong.
    Doctor(doctor::DoctorCommand),
    /// Copy the embedded database, the keys and the modules into one file, also while the service runs.
    Backup(backup::BackupCommand),
    /// Bring back what `zerostate backup` copied, into an empty data folder.
    Restore(backup::RestoreCommand),
    /// Check the books, or let others check them; exits with 1 when an invariant is broken.
    Audit(audit::AuditCommand),
    /// Check award certificates and task receipts offline; exits with 1 when something in them is not right.
    Verify(verify::VerifyCommand),
    /// Look after accounts.
    #[command(subcommand)]
    User(user::UserCommand),
    /// Buy work from a running server.
    #[command(subcommand)]
    Task(task::TaskCommand),
    /// Have a goal reached by several agents of a running server.
    Delegate(delegate::DelegateCommand),
    /// Watch what happens on a running server.
    #[command(subcommand)]
    Events(events::EventsCommand),
    /// Put agents on the market of a running server and look after them; try a module on this machine.
    #[command(subcommand)]
    Agent(agent::AgentCommand),
    /// Make and check commitments to sealed bids, without a server.
    #[command(subcommand)]
    Bid(bid::BidCommand),
    /// Make, check and look into vouchers of payment channels, without a server.
    #[command(subcommand)]
    Voucher(voucher::VoucherCommand),
    /// Print the reference of the metrics.
    Metrics,
    /// Ask a server whether it is healthy; exits with 5 when it is not.
    Healthcheck {
        /// The address to ask; /health of this machine when it is left out.
        url: Option<Url>,
        /// The port of this machine to ask; an address beats it.
        #[arg(long, env = "PORT")]
        port: Option<u16>,
    },
    /// Print what completes commands in a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the version.
    Version {
        /// Print a JSON document.
        #[arg(long)]
        json: bool,
    },
}

impl Command {
    /// Whether it serves requests, and so has something to trace.
    fn is_service(&self) -> bool {
        matches!(self, Self::Serve(_) | Self::Demo(_))
    }

    /// What is logged when nobody says: a service tells what it does, a command only what goes wrong.
    fn default_log(&self) -> &'static str {
        match self {
            Self::Serve(_) => "info,sqlx=warn",
            Self::Demo(_)
            | Self::Migrate(_)
            | Self::Schema { .. }
            | Self::Config(_)
            | Self::Doctor(_)
            | Self::Backup(_)
            | Self::Restore(_)
            | Self::Completions { .. }
            | Self::Audit(_)
            | Self::Verify(_)
            | Self::User(_)
            | Self::Task(_)
            | Self::Delegate(_)
            | Self::Events(_)
            | Self::Agent(_)
            | Self::Bid(_)
            | Self::Voucher(_)
            | Self::Metrics
            | Self::Healthcheck { .. }
            | Self::Version { .. } => "warn",
        }
    }
}

/// Runs the command line of this process and answers how it ends.
pub fn run() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let root = Line::command();
    let (layers, wrong) = match Layers::read(&root, &arguments) {
        Ok(layers) => (layers, None),
        Err(failure) => (Layers::default(), Some(failure)),
    };
    let read = layers.under(root.clone()).try_get_matches_from(arguments);
    let read = read.and_then(|matches| Ok((Line::from_arg_matches(&matches)?, matches)));
    let (line, matches) = match read {
        Ok(read) => read,
        Err(error) => {
            // Help that nobody reads to its end is no failure.
            let printed = error.print().or_else(|why| if why.kind() == BrokenPipe { Ok(()) } else { Err(why) });
            let code = u8::try_from(error.exit_code()).ok().filter(|_| printed.is_ok());
            return code.map_or(ExitCode::FAILURE, ExitCode::from);
        }
    };
    let known = layers::names(&layers::declared(&root));
    let sound = wrong.map_or_else(|| layers::refuse_unknown("The environment", layers::set_variables(), &known), Err);
    let place = Place { root, layers, matches };
    match start(line, sound, &place) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tell(&format!("error: {failure}"));
            ExitCode::from(failure.exit.code())
        }
    }
}

/// Where the settings of a command come from.
struct Place {
    root: clap::Command,
    layers: Layers,
    matches: ArgMatches,
}

impl Place {
    /// What was found out about the command that was given, and not about those around it.
    fn innermost(&self) -> &ArgMatches {
        let mut matches = &self.matches;
        while let Some((_, inner)) = matches.subcommand() {
            matches = inner;
        }
        matches
    }
}

fn start(line: Line, sound: Result<(), Failure>, place: &Place) -> Result<(), Failure> {
    // What needs no setting also works where they are wrong, and the doctor is asked because they are.
    let needs_none = matches!(
        &line.command,
        Command::Version { .. }
            | Command::Completions { .. }
            | Command::Schema { .. }
            | Command::Healthcheck { .. }
            | Command::Config(config::ConfigCommand::Example | config::ConfigCommand::Reference)
    );
    let sound = if needs_none { Ok(()) } else { sound.and_then(|()| line.settings.check()) };
    let sound = if matches!(&line.command, Command::Doctor(_)) { Ok(sound) } else { sound.map(Ok) }?;
    // HTTP clients, that of modules in S3 and that of traces too, have no cryptography of their own.
    let provided = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("zerostate").build()?;
    let served_by = line.command.is_service().then(|| runtime.handle());
    let (format, filter) = (line.settings.log_format, line.settings.log.as_deref());
    let traces = log::start(format, filter, line.command.default_log(), served_by)?;
    if provided.is_err() {
        tracing::debug!("a provider of cryptography was installed already");
    }
    let ended = runtime.block_on(dispatch(line, sound, place));
    traces.end();
    ended
}

async fn dispatch(line: Line, sound: Result<(), Failure>, place: &Place) -> Result<(), Failure> {
    let settings = &line.settings;
    let (layers, matches) = (&place.layers, place.innermost());
    match line.command {
        Command::Serve(command) => {
            let by_platform = command.listen.is_by_platform(matches, layers);
            Box::pin(serve::run(command, settings, by_platform)).await
        }
        Command::Demo(command) => {
            let by_platform = command.listen.is_by_platform(matches, layers);
            Box::pin(demo::run(command, settings, by_platform)).await
        }
        Command::Migrate(command) => database::migrate(command, settings).await,
        Command::Schema { check } => check::schema(check.as_deref()),
        Command::Config(command) => config::run(command, settings, &place.root, Some(matches), layers),
        Command::Doctor(command) => {
            let by_platform = command.listen.is_by_platform(matches, layers);
            Box::pin(doctor::run(command, settings, sound, layers, by_platform)).await
        }
        Command::Backup(command) => backup::backup(&command, settings).await,
        Command::Restore(command) => backup::restore(&command, settings).await,
        Command::Audit(command) => audit::run(command, settings).await,
        Command::Verify(command) => verify::run(&command),
        Command::User(command) => user::run(command, settings).await,
        Command::Task(command) => task::run(command).await,
        Command::Delegate(command) => delegate::run(command).await,
        Command::Events(command) => events::run(command).await,
        Command::Agent(command) => agent::run(command, settings).await,
        Command::Bid(command) => bid::run(&command),
        Command::Voucher(command) => voucher::run(command),
        Command::Metrics => check::metrics(),
        Command::Healthcheck { url, port } => check::health(url, port).await,
        Command::Completions { shell } => completions(shell, place.root.clone()),
        Command::Version { json } => check::version(json),
    }
}

fn completions(shell: clap_complete::Shell, mut root: clap::Command) -> Result<(), Failure> {
    // The generator does not expect a reader who goes away, so it writes to memory first.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut root, "zerostate", &mut script);
    let mut output = output::Output::new();
    output.write_all(&script)?;
    Ok(output.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Line::command().debug_assert();
    }

    #[test]
    fn a_setting_has_one_variable_wherever_it_stands() {
        fn walk(command: &clap::Command, of: &mut std::collections::HashMap<String, String>) {
            for arg in command.get_arguments() {
                let (Some(key), Some(variable)) = (arg.get_long(), arg.get_env()) else { continue };
                let variable = variable.to_string_lossy().into_owned();
                assert_eq!(of.entry(key.to_owned()).or_insert_with(|| variable.clone()), &variable, "{key}");
            }
            command.get_subcommands().for_each(|inner| walk(inner, of));
        }
        let mut of = std::collections::HashMap::new();
        walk(&Line::command(), &mut of);
        assert!(of.len() > 60);
    }

    #[test]
    fn the_example_and_the_reference_are_up_to_date() {
        let root = Line::command();
        let same = |file: &str, made: &str, what: &str| {
            let stored = std::fs::read_to_string(format!("{}/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
            assert!(stored == made, "{file} is out of date: run `zerostate config {what} > {file}`");
        };
        same("zerostate.example.toml", &config::example(&root), "example");
        same("docs/configuration.md", &config::reference(&root), "reference");
    }

    #[test]
    fn completions_know_the_commands() {
        for shell in [clap_complete::Shell::Bash, clap_complete::Shell::Zsh, clap_complete::Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Line::command(), "zerostate", &mut script);
            let script = String::from_utf8(script).unwrap();
            assert!(["doctor", "healthcheck", "keep-events"].iter().all(|word| script.contains(word)), "{shell}");
        }
    }

    const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    const BID: &[&str] = &[
        "--instance",
        HEX,
        "--auction",
        "auc_01h455vb4pex5vsknk084sn02q",
        "--agent",
        "agent_01h455vb4pex5vsknk084sn02r",
        "--price",
        "2.5",
    ];

    #[test]
    fn commands_are_read() {
        for line in [
            &["serve", "--port", "0"][..],
            &["demo"],
            &["demo", "--speed", "20", "--keep", "folder"],
            &["demo", "--once", "--capability", "text.stats", "--input", "-", "--budget", "2.5", "--json"],
            &["migrate", "down", "--steps", "2"],
            &["schema", "--check", "schema.graphql"],
            &["audit", "--json"],
            &["audit", "export", "books.ndjson"],
            &["audit", "verify", "books.ndjson", "--json"],
            &["verify", "receipt.json", "--json"],
            &["user", "promote", "a@b.example", "--role", "arbiter"],
            &["agent", "check", "double.wasm", "--json"],
            &["agent", "run", "double.wasm", "--input", "-", "--timeout", "3"],
            &["agent", "register", "one", "--capability", "a,b", "--price", "1", "--runtime", "external"],
            &["agent", "key", "agent_1", "--scope", "read,work-write", "--days", "7"],
            &["agent", "earnings", "agent_1", "--withdraw", "--json"],
            &["agent", "earnings", "agent_1", "--withdraw", "--amount", "2.5"],
            &["task", "run", "--capability", "a", "--input", "-", "--budget", "2.5", "--follow"],
            &["task", "list", "--status", "OPEN,RUNNING", "--server", "https://market.example"],
            &["events", "tail", "--kind", "AUCTION_OPENED", "--after", "start"],
            &["delegate", "--goal", "a page", "--budget", "10", "--plan", "plan.json", "--input", "-", "--follow"],
            &["delegate", "--goal", "a page", "--budget", "10", "--capability", "a,b"],
            &["delegate", "--show", "dlg_1", "--json"],
            &["voucher", "keygen", "payer.key", "--json"],
            &["voucher", "verify", "-", "--signer", "00"],
            &["healthcheck", "http://127.0.0.1:8080/ready"],
            &["config", "show", "--origin", "--json", "--port", "9000"],
            &["config", "example"],
            &["doctor", "--json"],
            &["backup", "market.tar"],
            &["restore", "market.tar"],
            &["completions", "fish"],
            // As where the environment has PORT.
            &["healthcheck", "http://127.0.0.1:8080/ready", "--port", "80"],
            &[&["bid", "commit"][..], BID].concat(),
            &[&["bid", "inspect", "--salt", HEX, "--commitment", HEX][..], BID].concat(),
        ] {
            assert!(Line::try_parse_from([&["zerostate"], line].concat()).is_ok(), "{line:?}");
        }
        for line in [
            &["demo", "--once"][..],
            &["demo", "--capability", "text.stats"],
            &["demo", "--once", "--capability", "text.stats", "--input", "-", "--budget", "-1"],
            &["demo", "--speed", "0"],
            &["migrate"],
            &["migrate", "down", "--steps", "0"],
            &["serve", "--speed", "2"],
            &["agent", "run", "double.wasm"],
            &["agent", "register", "one", "--capability", "a"],
            &["agent", "key", "agent_1", "--scope", "everything"],
            &["task", "run", "--capability", "a", "--input", "-", "--budget", "0"],
            &["task", "list", "--server", "localhost:8080"],
            &["events", "tail", "--task", "task_1", "--auction", "auc_1"],
            &["delegate", "--plan", "plan.json"],
            &["delegate", "--show", "dlg_1", "--cancel", "dlg_1"],
            &["delegate", "--show", "dlg_1", "--goal", "a page"],
            &["delegate", "--goal", "a", "--budget", "1", "--plan", "p", "--planning-budget", "1"],
            &["agent", "run", "double.wasm", "--input", "-", "--timeout", "0"],
            &["backup"],
            &["completions", "tcsh"],
            &["serve", "--drain-delay", "5"],
            &["serve", "--keep-events", "1m"],
            &["serve", "--profile", "staging"],
            &["verify"],
            &["verify", "receipt.json", "--public-key", "ab"],
            &["user", "promote", "a@b.example", "--role", "king"],
            &[&["bid", "inspect", "--salt", HEX][..], BID].concat(),
            &[&["bid", "commit", "--salt", "ab"][..], BID].concat(),
            &[&["bid", "commit", "--promised-ms", "3600001"][..], BID].concat(),
            &["voucher", "sign", "--nonce", "-1"],
        ] {
            assert!(Line::try_parse_from([&["zerostate"], line].concat()).is_err(), "{line:?}");
        }
    }
}
