//! `zerostate serve`: the service, from its start to its orderly end.

use std::{
    future::Future,
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use clap::Args;
use sea_orm::DbBackend;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{
    check::{taken, version_line},
    failure::Failure,
    otlp,
    output::tell,
    settings::{Listen, Settings, reachable, redacted},
    user::FirstAdmin,
};
use crate::{
    app::App,
    store::{Clock, Entropy},
    transport,
};

/// How long background work may take to end once the last request is answered.
const PATIENCE: Duration = Duration::from_secs(10);
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
}

/// Runs `zerostate serve`.
pub(super) async fn run(command: ServeCommand, settings: &Settings, port_by_environment: bool) -> Result<(), Failure> {
    let started = Instant::now();
    let enough = CancellationToken::new();
    until_told(enough.clone(), async {
        let config = settings.config();
        let app = App::open(config, Clock::System, Entropy::system()).await?;
        let has_admin = command.admin.ensure(&app).await?;
        // The audit reports violations by itself; the service starts all the same, so that the books can be looked into.
        app.audit().await?;
        let wanted = command.listen.address(port_by_environment);
        let listener = TcpListener::bind(wanted).await.map_err(|error| taken(wanted, &error))?;
        let address = listener.local_addr()?;
        app.start();
        tracing::info!(event = "listening", %address, version = env!("CARGO_PKG_VERSION"), "ready");
        if command.banner || io::stderr().is_terminal() {
            let (database, folder) = (redacted(&app.config().storage.url), settings.data.display());
            let embedded = app.store().backend() == DbBackend::Sqlite;
            let rest = if embedded { "keys and modules" } else { "keys" };
            let data = format!("{database}, migrated; {rest} in {folder}");
            let mut banner = Banner::new(&app, &format!("http://{}", reachable(address)), started.elapsed());
            banner.line("Data", &data);
            if !has_admin {
                banner.line("Admin", "none yet: `zerostate user create EMAIL --role admin` makes one");
            }
            banner.show("Ctrl-C stops.");
        }
        // Boxed: what serving keeps on its way is large.
        Box::pin(serve(&app, listener, &enough)).await
    })
    .await
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
            app.stop().cancel();
            serving.await
        }
    };
    app.shutdown(PATIENCE).await;
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
    pub(super) fn new(app: &App, at: &str, took: Duration) -> Self {
        let database = database(app);
        let http = &app.config().http;
        let secure = if http.tls.is_some() { at.replacen("http:", "https:", 1) } else { at.to_owned() };
        let home = http.public_url.as_ref().map_or(secure, ToString::to_string);
        let home = home.trim_end_matches('/');
        let socket = home.replacen("http", "ws", 1);
        let ready = format!("{}, {database}", version_line());
        let mut banner = Self { text: format!("\n  {ready:<44}ready in {} ms\n\n", took.as_millis()) };
        banner.line("Console", &format!("{home}/"));
        banner.line("GraphiQL", &format!("{home}/graphiql"));
        if !transport::has_console() {
            banner.line("", "at both a small page: `make web` and a new build bring the console and GraphiQL");
        }
        banner.line("GraphQL", &format!("{home}/graphql   {socket}/graphql/ws"));
        banner.line("Schema", &format!("{home}/graphql/schema.graphql"));
        banner.line("Health", &format!("{home}/health"));
        let metrics = http.metrics_address.map_or_else(|| home.to_owned(), |at| format!("http://{}", reachable(at)));
        banner.line("Metrics", &format!("{metrics}/metrics"));
        banner
    }

    /// Adds a line with a name.
    pub(super) fn line(&mut self, name: &str, text: &str) {
        self.text = format!("{}  {name:<10} {text}\n", self.text);
    }

    /// Adds text as it is, after an empty line.
    pub(super) fn paragraph(&mut self, text: &str) {
        self.text = format!("{}\n{text}\n", self.text);
    }

    pub(super) fn show(self, last: &str) {
        tell(&format!("{}\n  {last}", self.text));
    }
}
