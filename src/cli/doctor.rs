//! `zerostate doctor`: tries everything that the service needs, and says of each what mends it.

use std::{
    fs,
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use clap::Args;
use entity::time::Timestamp;
use migration::{Migrator, MigratorTrait};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use url::Url;

use super::{
    check::health,
    database::connect,
    failure::{Exit, Failure, chain},
    layers::Layers,
    output::Output,
    production,
    settings::{Listen, Settings, reachable, redacted},
};
use crate::{
    agent::modules::{Modules, ModulesError},
    config::{Config, Profile},
    execution::{
        self,
        sandbox::{Request, Sandbox, SandboxConfig},
    },
    ledger::{
        self, Reach,
        journal::{References, Signer},
    },
    store::{Following, Store, keys},
    transport,
};

/// How long anything over a network may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Less free space than this is no room to work, and less than that is little.
const NO_ROOM: u64 = 64 * 1024 * 1024;
const LITTLE_ROOM: u64 = 1024 * 1024 * 1024;
/// Clocks that differ by more make tokens and deadlines look wrong.
const SKEW: i64 = 2_000_000;
const MUCH_SKEW: i64 = 30_000_000;
/// A certificate that ends sooner should have been renewed.
const RENEW: i64 = 14 * 24 * 3_600;
/// How long the books may take to be looked through.
const AUDIT: Duration = Duration::from_secs(30);

/// A module that does nothing: `(module (memory (export "memory") 1) (func (export "_start")))`.
const NOTHING: &[u8] = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x05\x03\x01\0\x01\
    \x07\x13\x02\x06memory\x02\0\x06_start\0\0\x0a\x04\x01\x02\0\x0b";

/// `zerostate doctor`
#[derive(Args, Clone, Debug)]
pub(super) struct DoctorCommand {
    #[command(flatten)]
    pub(super) listen: Listen,
    /// Print a JSON document.
    #[arg(long)]
    json: bool,
}

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Grade {
    Ok,
    Warn,
    Fail,
}

impl Grade {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One thing that was tried.
#[derive(Clone, Debug)]
struct Line {
    name: &'static str,
    grade: Grade,
    found: String,
    /// What mends it; nothing for what is in order.
    mend: String,
}

impl Line {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, grade: Grade::Ok, found: found.into(), mend: String::new() }
    }

    fn warn(name: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { name, grade: Grade::Warn, found: found.into(), mend: mend.into() }
    }

    fn fail(name: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { name, grade: Grade::Fail, found: found.into(), mend: mend.into() }
    }
}

/// Runs `zerostate doctor`.
pub(super) async fn run(
    command: DoctorCommand,
    settings: &Settings,
    sound: Result<(), Failure>,
    layers: &Layers,
    by_platform: bool,
) -> Result<(), Failure> {
    let config = settings.config();
    let mut lines = vec![configuration(&config, &sound, layers)];
    let misconfigured = sound.is_err();
    // With settings that cannot be read, everything else would be about others than were meant.
    if !misconfigured {
        lines.extend(profile(&config));
        lines.extend(data(&config));
        lines.extend(keys_of(&config));
        lines.extend(database(&config).await);
        lines.push(modules(&config).await);
        lines.push(sandbox(&config).await);
        lines.push(port(command.listen.address(by_platform)).await);
        lines.push(public_url(&config).await);
        lines.extend(certificate(&config));
        lines.extend(collector().await);
        lines.push(pages());
    }
    show(&lines, command.json)?;
    let count = |grade| lines.iter().filter(|line| line.grade == grade).count();
    match count(Grade::Fail) {
        0 => Ok(()),
        failed => {
            let exit = if misconfigured { Exit::Configuration } else { Exit::Unhealthy };
            let noun = if failed == 1 { "thing is" } else { "things are" };
            Err(Failure::new(exit, format!("{failed} {noun} wrong."), "Each line above says what mends it."))
        }
    }
}

fn show(lines: &[Line], as_json: bool) -> Result<(), Failure> {
    let mut output = Output::new();
    if as_json {
        let worst = lines.iter().map(|line| line.grade).max().unwrap_or(Grade::Ok);
        let checks: Vec<_> = lines
            .iter()
            .map(|line| json!({ "name": line.name, "status": line.grade.name(), "found": line.found, "mend": line.mend }))
            .collect();
        output.json(&json!({ "status": worst.name(), "checks": checks }))?;
        return Ok(());
    }
    for Line { name, grade, found, mend } in lines {
        writeln!(output, "{:<4}  {name:<14} {found}", grade.name())?;
        for line in mend.lines().filter(|line| !line.is_empty()) {
            writeln!(output, "{:22}{line}", "")?;
        }
    }
    Ok(output.flush()?)
}

fn configuration(config: &Config, sound: &Result<(), Failure>, layers: &Layers) -> Line {
    if let Err(failure) = sound {
        let mend = "`zerostate config example` prints every setting.";
        return Line::fail("configuration", failure.to_string(), mend);
    }
    let file = layers.file.as_ref().map_or_else(|| "no file".to_owned(), |file| file.display().to_string());
    let all = "`zerostate config show --origin` has all of it";
    Line::ok("configuration", format!("{}, {file}; {all}", config.profile))
}

fn profile(config: &Config) -> Vec<Line> {
    if config.profile == Profile::Development {
        let mend = "Set ZEROSTATE_PROFILE=production where others use it.";
        return vec![Line::warn("profile", "development: what is missing is made, and little is refused", mend)];
    }
    let refused = production::refusals(config);
    let mut lines: Vec<Line> = refused.into_iter().map(|(what, mend)| Line::fail("profile", what, mend)).collect();
    if lines.is_empty() {
        lines.push(Line::ok("profile", "production, with all that it needs"));
    }
    lines.extend(production::plain_database(config).map(|(what, mend)| Line::warn("profile", what, mend)));
    lines
}

/// The nearest folder above a path that is there.
fn existing(path: &Path) -> PathBuf {
    let mut folder = path;
    while !folder.exists() {
        match folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => folder = parent,
            None => return PathBuf::from("."),
        }
    }
    folder.to_owned()
}

/// Who this process is, as far as files are concerned.
#[cfg(unix)]
fn who() -> String {
    format!("the user with the number {}", rustix::process::geteuid().as_raw())
}

#[cfg(not(unix))]
fn who() -> String {
    "this user".to_owned()
}

fn data(config: &Config) -> Vec<Line> {
    let (folder, there) = (&config.data, existing(&config.data));
    let shown = folder.display();
    let mut lines = Vec::new();
    lines.push(match tempfile::NamedTempFile::new_in(&there) {
        Err(error) => {
            let owner = owner(&there);
            let mend = format!(
                "Run `chown {} {}` as root, or name another folder by ZEROSTATE_DATA.",
                owner.1,
                there.display()
            );
            Line::fail(
                "data folder",
                format!("{} cannot write into {}{}: {error}", who(), there.display(), owner.0),
                mend,
            )
        }
        Ok(_) if there != *folder => {
            Line::ok("data folder", format!("{shown} is not there yet; the first start makes it"))
        }
        Ok(_) => match production::open_to_others(folder) {
            Some(mode) => {
                let what = format!("{shown} can be written, and others may enter it (mode {mode:o})");
                Line::warn("data folder", what, format!("Run `chmod 700 {shown}`."))
            }
            None => Line::ok("data folder", format!("{shown} can be written, and is private")),
        },
    });
    #[cfg(unix)]
    lines.push(match rustix::fs::statvfs(&there) {
        Err(error) => {
            Line::warn("disk space", format!("cannot be told of {}: {error}", there.display()), "Look with `df`.")
        }
        Ok(stat) => room(stat.f_bavail.saturating_mul(stat.f_frsize), &there),
    });
    lines
}

/// Whether the free bytes at a place are enough.
fn room(free: u64, at: &Path) -> Line {
    let found = format!("{} MB free at {}", free / 1_000_000, at.display());
    let mend = "Make room, or move the data folder; `keep-events` and its siblings bound what is kept.";
    match free {
        ..NO_ROOM => Line::fail("disk space", found, mend),
        NO_ROOM..LITTLE_ROOM => Line::warn("disk space", found, mend),
        LITTLE_ROOM.. => Line::ok("disk space", found),
    }
}

/// Who owns a folder, for people, and who should, for `chown`.
#[cfg(unix)]
fn owner(path: &Path) -> (String, String) {
    let owned = fs::metadata(path).map(|meta| std::os::unix::fs::MetadataExt::uid(&meta));
    let shown = owned.map_or_else(|_| String::new(), |owner| format!(", which belongs to {owner}"));
    (shown, rustix::process::geteuid().as_raw().to_string())
}

#[cfg(not(unix))]
fn owner(_: &Path) -> (String, String) {
    (String::new(), "USER".to_owned())
}

fn keys_of(config: &Config) -> Vec<Line> {
    let folder = config.data.join(keys::FOLDER);
    let mut lines = Vec::new();
    for (name, variable, given) in production::keys(config) {
        let path = folder.join(name);
        let shown = path.display();
        if given.is_some() {
            lines.push(Line::ok("keys", format!("{name} is set by {variable}")));
            continue;
        }
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                lines.push(match config.profile {
                    Profile::Development => {
                        Line::ok("keys", format!("{shown} is not there yet; the first start makes it"))
                    }
                    Profile::Production => Line::fail(
                        "keys",
                        format!("{shown} is not there, and production makes no keys"),
                        format!("Bring the file, or for a new market set\n{}", production::fresh(variable)),
                    ),
                });
                continue;
            }
            Err(error) => {
                let mend = format!("Give {} the right to read it.", who());
                lines.push(Line::fail("keys", format!("{shown} cannot be read: {error}"), mend));
                continue;
            }
        };
        let good = if name == keys::REFRESH {
            keys::read_hex(&text).is_some()
        } else {
            keys::read_signing(&path, &text).is_ok()
        };
        lines.push(match (good, production::open_to_others(&path)) {
            (false, _) => Line::fail("keys", format!("{shown} is no key"), "Bring the right file back from a backup."),
            (true, Some(mode)) => {
                let what = format!("{shown} can be read by others (mode {mode:o})");
                Line::warn("keys", what, format!("Run `chmod 600 {shown}`."))
            }
            (true, None) => Line::ok("keys", format!("{shown} is there and private")),
        });
    }
    lines
}

/// The copy of the database for reading, if there is to be one.
async fn replica(config: &Config, store: &Store) -> Option<Line> {
    let shown = redacted(config.storage.replica_url.as_deref()?);
    store.look_at_replica().await;
    Some(match store.following()? {
        Following::Close(_) => Line::ok("replica", format!("{shown} has what the database has")),
        Following::Behind => {
            let mend = "Look whether it follows; until then everybody reads the database itself.";
            Line::warn("replica", format!("{shown} does not have what the database has"), mend)
        }
        Following::Away(why) => {
            let mend = "Check ZEROSTATE_REPLICA_URL and that the standby runs; until then everybody reads the database itself.";
            Line::warn("replica", format!("{shown} does not answer: {why}"), mend)
        }
    })
}

async fn database(config: &Config) -> Vec<Line> {
    let shown = redacted(&config.storage.url);
    if let Some(path) = config.storage.url.strip_prefix("sqlite:").map(|path| path.trim_start_matches("//"))
        && !Path::new(path).exists()
    {
        return vec![Line::ok("database", format!("{path} is not there yet; the first start makes it"))];
    }
    let store = match timeout(PATIENCE.saturating_mul(2), connect(config)).await {
        Ok(Ok(store)) => store,
        Ok(Err(failure)) => return vec![Line::fail("database", format!("{shown}: {failure}"), "")],
        Err(_) => {
            let mend = "Check DATABASE_URL, and that nothing between here and there drops the connection.";
            return vec![Line::fail("database", format!("{shown} does not answer"), mend)];
        }
    };
    let mut lines = vec![match store.ping().await {
        Ok(()) => Line::ok("database", format!("{shown} answers")),
        Err(error) => Line::fail("database", format!("{shown}: {}", chain(&error)), "Look at the log of the database."),
    }];
    lines.extend(replica(config, &store).await);
    let difference = match store.difference().await {
        Ok(difference) => difference,
        Err(error) => {
            lines.push(Line::fail("migrations", chain(&error), "Look at the log of the database."));
            return lines;
        }
    };
    if difference.pending.len() == Migrator::migrations().len() {
        let mend = "`zerostate serve` makes the tables at its start.";
        lines.push(Line::warn("migrations", "the database is empty", mend));
        return lines;
    }
    lines.push(if !difference.newer.is_empty() {
        let found = format!("the database has {}, which this program does not know", difference.newer.join(", "));
        Line::warn("migrations", found, "Run the version of zerostate that migrated it last.")
    } else if difference.pending.is_empty() {
        Line::ok("migrations", "the schema is up to date")
    } else {
        let found = format!("{} wait: {}", difference.pending.len(), difference.pending.join(", "));
        Line::warn("migrations", found, "Run `zerostate migrate up`; `zerostate serve` does it at its start.")
    });
    lines.push(clock(&store).await);
    lines.push(books(&store).await);
    lines
}

async fn clock(store: &Store) -> Line {
    match store.clock_skew().await {
        Ok(None) => Line::ok("clock", "the database has none of its own"),
        Err(error) => Line::warn("clock", format!("the database does not say: {}", chain(&error)), "Try again."),
        Ok(Some(micros)) => skewed(micros),
    }
}

/// Whether clocks that are so many microseconds apart are near enough.
fn skewed(micros: i64) -> Line {
    let found = format!("that of the database is {} ms off", micros / 1_000);
    let mend = "Let both machines set their clocks by NTP (`timedatectl status`).";
    match micros.saturating_abs() {
        MUCH_SKEW.. => Line::fail("clock", found, mend),
        SKEW..MUCH_SKEW => Line::warn("clock", found, mend),
        ..SKEW => Line::ok("clock", found),
    }
}

async fn books(store: &Store) -> Line {
    let audited = store.snapshot(async |db| {
        let Some(key) = Store::known_key(db).await? else { return Ok(None) };
        ledger::audit(db, Signer::of(key), References::Text, Reach::Whole).await.map(Some)
    });
    match timeout(AUDIT, audited).await {
        Err(_) => Line::warn("books", "there is too much in them to look at here", "Run `zerostate audit`."),
        Ok(Ok(None)) => Line::ok("books", "nobody has opened this market yet"),
        Ok(Ok(Some(audit))) if audit.ok() => Line::ok("books", "they are right"),
        Ok(Ok(Some(audit))) => {
            let broken: Vec<&str> = audit.checks.iter().filter(|it| it.violations > 0).map(|it| it.name).collect();
            let mend = "No credits move while they are wrong. Run `zerostate audit`, and see docs/ledger.md.";
            Line::fail("books", format!("they break {}", broken.join(", ")), mend)
        }
        Ok(Err(error)) => {
            Line::fail("books", format!("they cannot be read: {}", chain(&error)), "Run `zerostate audit`.")
        }
    }
}

async fn modules(config: &Config) -> Line {
    let place = &config.modules_url;
    // A folder that is not there yet is made by the first start, not by a look.
    if !place.contains("://") && !Path::new(place).exists() {
        return Line::ok("modules", format!("{place} is not there yet; the first start makes it"));
    }
    let mend = "Check --modules or ZEROSTATE_MODULES, and for s3:// the AWS_* variables.";
    let tried = async { Modules::open(place)?.load(Sha256::digest(NOTHING).into()).await };
    match timeout(PATIENCE.saturating_mul(3), tried).await {
        Ok(Ok(_) | Err(ModulesError::Missing(_))) => Line::ok("modules", format!("{place} answers")),
        Ok(Err(error)) => Line::fail("modules", format!("{place}: {}", chain(&error)), mend),
        Err(_) => Line::fail("modules", format!("{place} does not answer"), mend),
    }
}

async fn sandbox(config: &Config) -> Line {
    let mend = "The engine needs about 1 GB of address space; look at `ulimit -v` and the limits of the container.";
    let sha256 = Sha256::digest(NOTHING).into();
    let limits = execution::limits(&config.execution, PATIENCE);
    let request = Request {
        sha256,
        input: Bytes::from_static(b"null"),
        limits,
        now: chrono::DateTime::UNIX_EPOCH,
        seed: [0; 32],
    };
    let ran = async {
        let sandbox = Sandbox::new(SandboxConfig::default()).map_err(|error| chain(&error))?;
        let load = async || Ok::<_, std::convert::Infallible>(Bytes::from_static(NOTHING));
        sandbox.run(request, load).await.map_err(|error| chain(&error))
    };
    match ran.await {
        // It says nothing, which is not an answer; that it was run is what counts.
        Ok(run) if run.usage.fuel > 0 => Line::ok("sandbox", "a module runs"),
        Ok(run) => {
            let said = run.outcome.err().map_or("", |fault| fault.code());
            Line::fail("sandbox", format!("a module does not run: {said}"), mend)
        }
        Err(said) => Line::fail("sandbox", format!("a module does not run: {said}"), mend),
    }
}

async fn port(address: SocketAddr) -> Line {
    match TcpListener::bind(address).await {
        Ok(_) => Line::ok("port", format!("{address} is free")),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            let url = Url::parse(&format!("http://{}/health", reachable(address))).ok();
            if health(url, None).await.is_ok() {
                Line::ok("port", format!("a healthy server listens on {address}"))
            } else {
                let mend = "Stop the other program, or choose another port by --port or PORT.";
                Line::fail("port", format!("another program has {address}"), mend)
            }
        }
        Err(error) => {
            Line::fail("port", format!("{address}: {error}"), "Choose another by --host and --port, HOST and PORT.")
        }
    }
}

async fn public_url(config: &Config) -> Line {
    let Some(url) = &config.http.public_url else {
        return match config.profile {
            Profile::Development => Line::ok("public URL", "not set"),
            Profile::Production => {
                let mend = "Set PUBLIC_URL to where clients reach the service, with https://.";
                Line::warn("public URL", "not set, so links name this machine", mend)
            }
        };
    };
    let health = format!("{}/health", url.as_str().trim_end_matches('/'));
    let mend = format!("Start the service, and let the proxy at {url} hand requests on to it.");
    let asked = async {
        let client = reqwest::Client::builder().timeout(PATIENCE).build()?;
        client.get(&health).send().await?.error_for_status().map(|_| ())
    };
    match asked.await {
        Ok(()) if url.scheme() == "http" && config.profile == Profile::Production => {
            Line::warn("public URL", format!("{health} answers, in the clear"), "Set PUBLIC_URL with https://.")
        }
        Ok(()) => Line::ok("public URL", format!("{health} answers")),
        Err(error) => Line::warn("public URL", format!("{health}: {}", chain(&error)), mend),
    }
}

fn certificate(config: &Config) -> Option<Line> {
    let tls = config.http.tls.as_ref()?;
    let shown = tls.certificate.display();
    let mend = "Renew it; the service reads the files again by itself.";
    let ends = fs::read(&tls.certificate).map_err(|error| error.to_string()).and_then(|pem| {
        let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).map_err(|_| "it is no PEM".to_owned())?;
        let certificate = pem.parse_x509().map_err(|_| "it is no certificate".to_owned())?;
        Ok(certificate.validity().not_after.timestamp())
    });
    let now = crate::store::Clock::System.now().micros().div_euclid(1_000_000);
    Some(match ends {
        Err(error) => Line::fail(
            "certificate",
            format!("{shown}: {error}"),
            "Name the right files by --tls-certificate and --tls-key.",
        ),
        Ok(ends) => {
            let at = Timestamp::from_micros(ends.saturating_mul(1_000_000));
            let found = format!("{shown} ends at {at}");
            match ends.saturating_sub(now) {
                ..=0 => Line::fail("certificate", found, mend),
                1..RENEW => Line::warn("certificate", found, mend),
                RENEW.. => Line::ok("certificate", found),
            }
        }
    })
}

/// Whether the console and GraphiQL are in this binary.
fn pages() -> Line {
    if transport::has_console() {
        return Line::ok("web pages", "the console and GraphiQL are built in");
    }
    Line::warn("web pages", "only the small page is built in", "Run `make web`, which needs Node, and build again.")
}

/// Whether the place that traces are sent to takes connections, if there is one.
async fn collector() -> Option<Line> {
    let names = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
    let endpoint = names.iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))?;
    let mend = "Start the collector, or unset OTEL_EXPORTER_OTLP_ENDPOINT.";
    let parsed = Url::parse(&endpoint).ok();
    let place = parsed.as_ref().and_then(|url| Some((url.host_str()?, url.port_or_known_default()?)));
    let Some((host, port)) = place else {
        return Some(Line::fail("traces", format!("{endpoint} is no address"), "Write it as http://host:4318."));
    };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    Some(match timeout(PATIENCE, TcpStream::connect((bare, port))).await {
        Ok(Ok(_)) => Line::ok("traces", format!("{endpoint} takes connections")),
        Ok(Err(error)) => Line::warn("traces", format!("{endpoint}: {error}"), mend),
        Err(_) => Line::warn("traces", format!("{endpoint} does not answer"), mend),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_and_clocks_apart_are_found() {
        let at = Path::new("/data");
        let of = |free| room(free, at).grade;
        assert_eq!([of(0), of(NO_ROOM), of(LITTLE_ROOM)], [Grade::Fail, Grade::Warn, Grade::Ok]);
        assert!(room(0, at).mend.contains("Make room"));
        let of = |micros| skewed(micros).grade;
        assert_eq!(
            [of(-1), of(-SKEW), of(MUCH_SKEW), of(i64::MIN)],
            [Grade::Ok, Grade::Warn, Grade::Fail, Grade::Fail]
        );
    }

    #[tokio::test]
    async fn a_module_is_run() {
        let line = sandbox(&Config::in_folder("data")).await;
        assert_eq!(line.grade, Grade::Ok, "{line:?}");
    }
}
