//! `zerostate serve`: the service, from its start to its orderly end.

use std::{
    future::Future,
    io::{self, IsTerminal},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use clap::Args;
use sea_orm::DbBackend;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{
    check::{taken, version_line},
    failure::{Exit, Failure},
    otlp,
    output::tell,
    production,
    settings::{Listen, Settings, reachable, redacted},
    user::FirstAdmin,
};
use crate::{
    app::App,
    config::{Config, Storage},
    store::{Clock, Entropy, Store},
    transport,
};

/// How long background work may take to end once the last request is answered, if the shutdown may take so long.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long one look at a database that cannot be reached takes at most.
const ONE_TRY: Duration = Duration::from_secs(1);
/// The pause after the first look; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The exit code of a process that was told twice to end.
const TOLD_TWICE: i32 = 130;

/// `zerostate serve`
#[derive(Args, Clone, Debug)]
#[command(after_help = otlp::HELP)]
pub(super) struct ServeCommand {
    #[command(flatten)]
    pub(super) listen: Listen,
    #[command(flatten)]
    admin: FirstAdmin,
    /// Print the banner even when standard error is no terminal.
    #[arg(long)]
    banner: bool,
    /// Open the console in the browser.
    #[arg(long)]
    open: bool,
    /// For how many seconds to wait for a database that cannot be reached yet.
    #[arg(
        long, env = "ZEROSTATE_WAIT_FOR", value_name = "SECONDS", default_value_t = 0,
        value_parser = clap::value_parser!(u64).range(0..=3_600)
    )]
    wait_for: u64,
}

/// Runs `zerostate serve`.
pub(super) async fn run(command: ServeCommand, settings: &Settings, by_platform: bool) -> Result<(), Failure> {
    let started = Instant::now();
    let enough = CancellationToken::new();
    // Boxed: what a service keeps on its way is large.
    let serving = Box::pin(async {
        let config = settings.config();
        production::admit(&config)?;
        reached(&config, Duration::from_secs(command.wait_for), &enough).await?;
        let app = App::open(config, Clock::System, Entropy::system()).await?;
        let has_admin = command.admin.ensure(&app).await?;
        // The audit reports violations by itself; the service starts all the same, so that the books can be looked into.
        app.audit().await?;
        let wanted = command.listen.address(by_platform);
        let listener = TcpListener::bind(wanted).await.map_err(|error| taken(wanted, &error))?;
        let address = listener.local_addr()?;
        app.start();
        let home = home(&app, &format!("http://{}", reachable(address)));
        tracing::info!(event = "listening", %address, url = home, version = env!("CARGO_PKG_VERSION"), "ready");
        if command.open {
            open(&home);
        }
        if command.banner || io::stderr().is_terminal() {
            let (database, folder) = (redacted(&app.config().storage.url), settings.data.display());
            let embedded = app.store().backend() == DbBackend::Sqlite;
            let rest = if embedded { "keys and modules" } else { "keys" };
            let data = format!("{database}, migrated; {rest} in {folder}");
            let (kind, took) = (self::database(&app), started.elapsed());
            Banner::new(&version_line(), kind, &home, &metrics_home(&app, &home), took, transport::has_console())
                .of_service(&data, has_admin)
                .show();
        }
        // Boxed: what serving keeps on its way is large.
        Box::pin(serve(&app, listener, &enough)).await
    });
    until_told(enough.clone(), serving).await
}

/// Waits for a database that cannot be reached yet, with a line in the log for each try.
async fn reached(config: &Config, wait: Duration, enough: &CancellationToken) -> Result<(), Failure> {
    // The embedded database is always there, and looking for it would make it.
    if wait.is_zero() || config.storage.url.starts_with("sqlite:") {
        return Ok(());
    }
    let (since, mut pause) = (Instant::now(), FIRST_PAUSE);
    let storage = Storage { acquire_timeout: ONE_TRY, max_connections: 1, ..config.storage.clone() };
    loop {
        let tried = Store::connect(&storage, config.terms.clone(), Clock::System, Entropy::system()).await;
        let failure = match tried {
            Ok(_) => return Ok(()),
            Err(error) => Failure::from(error),
        };
        let left = wait.saturating_sub(since.elapsed());
        if failure.exit != Exit::Unreachable || left.is_zero() {
            return Err(failure);
        }
        let now = pause.min(left);
        tracing::warn!(event = "waiting", left = left.as_secs(), "{failure} Trying again in {} ms.", now.as_millis());
        tokio::select! {
            () = enough.cancelled() => return Err(failure),
            () = tokio::time::sleep(now) => {}
        }
        pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
    }
}

/// Shows a page in the browser of whoever sits here. That there is none is no reason to stop.
pub(super) fn open(url: &str) {
    let opener = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let quiet = Stdio::null;
    if let Err(error) = Command::new(opener).arg(url).stdin(quiet()).stdout(quiet()).stderr(quiet()).spawn() {
        tracing::warn!(%error, "no browser could be opened by {opener}; the page is at {url}");
    }
}

/// The address under which the service is known, without a slash at its end.
pub(super) fn home(app: &App, at: &str) -> String {
    let http = &app.config().http;
    let secure = if http.tls.is_some() { at.replacen("http:", "https:", 1) } else { at.to_owned() };
    let home = http.public_url.as_ref().map_or(secure, ToString::to_string);
    home.trim_end_matches('/').to_owned()
}

/// The address under which the metrics are, without a slash at its end.
pub(super) fn metrics_home(app: &App, home: &str) -> String {
    app.config().http.metrics_address.map_or_else(|| home.to_owned(), |at| format!("http://{}", reachable(at)))
}

/// Serves until it is enough, then lets everything end. Metrics at an address of their own are there until the very end.
pub(super) async fn serve(app: &App, listener: TcpListener, enough: &CancellationToken) -> Result<(), Failure> {
    let Some(wanted) = app.config().http.metrics_address else { return serve_public(app, listener, enough).await };
    let aside = TcpListener::bind(wanted).await.map_err(|error| taken(wanted, &error))?;
    tracing::info!(event = "metrics", address = %aside.local_addr()?, "metrics are served");
    let over = CancellationToken::new();
    let public = async {
        let served = serve_public(app, listener, enough).await;
        over.cancel();
        served
    };
    let (served, ()) = tokio::join!(public, transport::serve_metrics(app.clone(), aside, over.clone()));
    served
}

async fn serve_public(app: &App, listener: TcpListener, enough: &CancellationToken) -> Result<(), Failure> {
    let serving = transport::serve(app.clone(), listener);
    tokio::pin!(serving);
    let served = tokio::select! {
        served = &mut serving => served,
        () = enough.cancelled() => {
            tracing::info!(event = "stopping", "the service ends: requests under way are finished, streams are told to come back");
            app.drain();
            // Whoever routes here needs a moment to see that /ready says no; until then requests still come.
            let drained = async {
                tokio::time::sleep(app.config().drain_delay).await;
                app.stop().cancel();
            };
            let (served, ()) = tokio::join!(serving, drained);
            served
        }
    };
    app.shutdown(app.config().shutdown_patience.min(PATIENCE)).await;
    tracing::info!(event = "stopped", "the service has ended");
    Ok(served?)
}

/// Does `work` to its end. When the process is told to end, `enough` is cancelled and `work` is expected to come to one; told
/// again, the process ends at once.
pub(super) async fn until_told<T>(
    enough: CancellationToken,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut told = Told::listen()?;
    let impatient = async {
        told.next().await;
        enough.cancel();
        told.next().await;
    };
    tokio::select! {
        done = work => done,
        () = impatient => std::process::exit(TOLD_TWICE),
    }
}

/// The signals that tell a process to end.
#[cfg(unix)]
struct Told {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Told {
    fn listen() -> Result<Self, Failure> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Told;

#[cfg(not(unix))]
impl Told {
    fn listen() -> Result<Self, Failure> {
        Ok(Self)
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The kind of database behind a service.
pub(super) fn database(app: &App) -> &'static str {
    if app.store().backend() == DbBackend::Sqlite { "sqlite" } else { "postgres" }
}

/// What a person sees first: where things are.
pub(super) struct Banner {
    text: String,
}

impl Banner {
    pub(super) fn new(
        version: &str,
        database: &str,
        home: &str,
        metrics: &str,
        took: Duration,
        has_console: bool,
    ) -> Self {
        let socket = home.replacen("http", "ws", 1);
        let ready = format!("{version}, {database}");
        let mut banner = Self { text: format!("\n  {ready:<44}ready in {} ms\n\n", took.as_millis()) };
        banner.line("Console", &format!("{home}/"));
        banner.line("GraphiQL", &format!("{home}/graphiql"));
        if !has_console {
            banner.line("", "at both a small page: `make web` and a new build bring the console and GraphiQL");
        }
        banner.line("GraphQL", &format!("{home}/graphql   {socket}/graphql/ws"));
        banner.line("Metrics", &format!("{metrics}/metrics"));
        banner
    }

    /// The banner of `zerostate serve`.
    fn of_service(mut self, data: &str, has_admin: bool) -> Self {
        self.line("Data", data);
        if has_admin {
            self.line("Next", "zerostate events tail      watch what happens");
        } else {
            self.line("Admin", "none yet");
            self.line("Next", "zerostate user create EMAIL --role admin      makes the first administrator");
        }
        self.paragraph("  Ctrl-C stops.");
        self
    }

    /// Adds a line with a name.
    pub(super) fn line(&mut self, name: &str, text: &str) {
        self.text = format!("{}  {name:<10} {text}\n", self.text);
    }

    /// Adds text as it is, after an empty line.
    pub(super) fn paragraph(&mut self, text: &str) {
        self.text = format!("{}\n{text}\n", self.text);
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn show(self) {
        tell(self.text().trim_end_matches('\n'));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_says_where_things_are() {
        let of = |has_admin| {
            let took = Duration::from_millis(41);
            let (at, data) =
                ("http://127.0.0.1:8080", "sqlite:./data/zerostate.db, migrated; keys and modules in ./data");
            Banner::new("zerostate 0.1.0 (3f2c1ab)", "sqlite", at, at, took, true).of_service(data, has_admin).text
        };
        let expected = "
  zerostate 0.1.0 (3f2c1ab), sqlite           ready in 41 ms

  Console    http://127.0.0.1:8080/
  GraphiQL   http://127.0.0.1:8080/graphiql
  GraphQL    http://127.0.0.1:8080/graphql   ws://127.0.0.1:8080/graphql/ws
  Metrics    http://127.0.0.1:8080/metrics
  Data       sqlite:./data/zerostate.db, migrated; keys and modules in ./data
  Admin      none yet
  Next       zerostate user create EMAIL --role admin      makes the first administrator

  Ctrl-C stops.
";
        assert_eq!(of(false), expected);
        assert!(of(true).contains("  Next       zerostate events tail") && !of(true).contains("Admin"));
    }
}
