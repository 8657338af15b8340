//! What the process owns: the database, the keys, the modules, the sandbox, the metrics and the tasks that run in the background.
//! Built once from the configuration and seen only by the edge.

use std::{
    io::{BufRead, Write},
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use entity::{event, time::Timestamp};
use futures_util::FutureExt;
use tokio::sync::{Notify, OnceCell};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use crate::{
    agent::modules::Modules,
    auction::page::Pages,
    caller::Caller,
    config::Config,
    error::{Error, Result},
    execution::{
        Worker, is_waiting,
        sandbox::{Sandbox, SandboxConfig},
    },
    ledger::{
        self, Audit, Check, Reach,
        archive::{self, Contents, Loaded},
        journal::{self, References, Signer},
    },
    metrics::Metrics,
    reputation,
    store::{self, Clock, Entropy, Instance, Store},
    sweep,
    task::desk::Desk,
    user::Auth,
    webhook::messenger::Messenger,
};

/// How long an idle worker waits before it looks for work by itself; a commit that makes work wakes it at once.
const IDLE: Duration = Duration::from_millis(500);
/// How many rounds of messages are carried at the same time.
const MESSENGERS: usize = 2;
/// How often the gauges of the market are sampled.
const SAMPLE: Duration = Duration::from_secs(15);
/// How often the newest part of the books is audited while the service runs.
const AUDIT: Duration = Duration::from_mins(1);
/// How often all of the books are.
const WHOLE_AUDIT: Duration = Duration::from_hours(1);
/// How often new transfers are sealed into the journal.
const SEAL: Duration = Duration::from_secs(10);

/// The process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct App(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Config,
    store: Store,
    auth: Auth,
    modules: Modules,
    sandbox: Sandbox,
    metrics: Arc<Metrics>,
    worker: Worker,
    desk: Desk,
    pages: Pages,
    work_waits: Arc<Notify>,
    messenger: OnceCell<Messenger>,
    messages_wait: Arc<Notify>,
    step_ended: Arc<Notify>,
    last_audit: Mutex<Option<Audit>>,
    audited: tokio::sync::Mutex<Option<Audited>>,
    tracker: TaskTracker,
    draining: CancellationToken,
    stop: CancellationToken,
}

/// How far the last clean audit came.
#[derive(Clone, Copy, Debug)]
struct Audited {
    /// When it began.
    at: Timestamp,
    /// When the last one of everything did.
    whole_at: Timestamp,
    /// The newest line of the journal then.
    place: i64,
}

impl App {
    /// Opens everything and brings the schema up to date. Nothing runs in the background yet; see [`App::start`].
    pub async fn open(config: Config, clock: Clock, entropy: Entropy) -> Result<Self> {
        store::keys::make_private_folder(&config.data).map_err(Error::internal)?;
        let store = Store::connect(&config.storage, config.terms.clone(), clock, entropy).await?;
        if config.storage.migrate {
            store.migrate().await?;
        } else {
            store.refuse_older().await?;
        }
        let keys = (&config.keys, config.profile);
        store.identify(Instance::open(keys.0, keys.1, &config.data, store.entropy())?).await?;
        let auth = Auth::open(config.auth.clone(), keys, &config.data, store.entropy())?;
        let modules = Modules::open(&config.modules_url).map_err(Error::internal)?;
        let concurrent_runs = u32::try_from(config.execution.concurrency).unwrap_or(u32::MAX);
        let sandbox = Sandbox::keeping(
            SandboxConfig { concurrent_runs, ..SandboxConfig::default() },
            &config.data.join("compiled"),
        )
        .map_err(Error::internal)?;
        let metrics = Arc::new(Metrics::new()?);
        let work_waits = Arc::new(Notify::new());
        let (messages_wait, step_ended) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (noticing, asked) = (Arc::clone(&metrics), Arc::clone(&metrics));
        store.on_notice(move |notice| noticing.noticed(notice))?;
        sandbox.on_asked(move |how| asked.module_asked(how)).map_err(Error::internal)?;
        let (observed, waits) = (Arc::clone(&metrics), Arc::clone(&work_waits));
        let (told, ended) = (Arc::clone(&messages_wait), Arc::clone(&step_ended));
        store.on_commit(move |events| {
            observed.observe(events);
            if events.iter().any(makes_work) {
                waits.notify_one();
            }
            if events.iter().any(makes_messages) {
                told.notify_one();
            }
            if events.iter().any(moves_delegation) {
                ended.notify_one();
            }
        })?;
        let worker = Worker {
            name: format!("worker-{}", hex::encode(store.entropy().bytes::<6>())),
            store: store.clone(),
            modules: modules.clone(),
            sandbox: sandbox.clone(),
            limits: config.execution.clone(),
        };
        let tracker = TaskTracker::new();
        let desk = Desk::new(store.clone(), tracker.clone());
        let pages = Pages::new(tracker.clone());
        let stop = CancellationToken::new();
        let (last_audit, audited) = (Mutex::new(None), tokio::sync::Mutex::new(None));
        let inner = Inner {
            config,
            store,
            auth,
            modules,
            sandbox,
            metrics,
            worker,
            desk,
            pages,
            work_waits,
            messenger: OnceCell::new(),
            messages_wait,
            step_ended,
            last_audit,
            audited,
            tracker,
            draining: CancellationToken::new(),
            stop,
        };
        Ok(Self(Arc::new(inner)))
    }

    /// Starts what runs in the background: the event feed, the sweeper, the workers, the messengers, the sampler and the audit.
    pub fn start(&self) {
        self.feed();
        self.keep("the sweeper", |app| {
            sweep::run(app.store().clone(), app.config().sweep_interval, Arc::clone(&app.0.step_ended), app.stop())
        });
        // While half of them wait for the database the other half has guests that run.
        for _ in 0..self.config().execution.concurrency.saturating_mul(2) {
            self.keep("a worker", Self::work);
        }
        for _ in 0..MESSENGERS {
            self.keep("a messenger", Self::carry);
        }
        self.keep("the sampler", |app| app.every(SAMPLE, async |app| app.metrics().sample(app.store()).await));
        self.keep("the audit", |app| app.every(AUDIT, async |app| app.audit_recent().await.map(|_| ())));
        self.keep("the seal", |app| app.every(SEAL, async |app| app.seal(false).await.map(|_| ())));
    }

    /// Runs a loop in the background until the process ends. A panic in it is logged and it begins again: what it does must not stay
    /// undone for as long as the process lives.
    fn keep<F>(&self, what: &'static str, run: impl Fn(Self) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let app = self.clone();
        self.tracker().spawn(async move {
            while AssertUnwindSafe(run(app.clone())).catch_unwind().await.is_err() {
                tracing::error!("{what} panicked; it begins again");
                tokio::time::sleep(IDLE).await;
            }
        });
    }

    /// Starts the event feed alone, for tests that turn everything else by hand.
    pub fn feed(&self) {
        let (store, stop) = (self.store().clone(), self.stop());
        self.tracker().spawn(async move { logged("the event feed", store.tail(stop).await) });
        let (store, stop) = (self.store().clone(), self.stop());
        self.tracker().spawn(async move { store.watch_replica(stop).await });
        let (store, stop) = (self.store().clone(), self.stop());
        self.tracker().spawn(async move { logged("the listener for other instances", store.listen(stop).await) });
    }

    /// Says that the process will end: it still works, and nothing more should be sent to it.
    pub fn drain(&self) {
        self.0.draining.cancel();
    }

    /// Whether the process will end.
    pub fn is_draining(&self) -> bool {
        self.0.draining.is_cancelled() || self.0.stop.is_cancelled()
    }

    /// Ends what runs in the background, letting it finish what it is at, for `patience` at most.
    pub async fn shutdown(&self, patience: Duration) {
        self.stop().cancel();
        self.tracker().close();
        if tokio::time::timeout(patience, self.tracker().wait()).await.is_err() {
            tracing::warn!("some background work did not end in time; leases and deadlines will take care of it");
        }
        logged("the last seal of the journal", self.seal(false).await.map(|_| ()));
    }

    async fn work(self) {
        while !self.stop().is_cancelled() {
            match self.0.worker.run_next().await {
                // There may be more, and somebody else may be idle.
                Ok(true) => self.0.work_waits.notify_one(),
                Ok(false) => self.idle().await,
                Err(error) => {
                    tracing::error!(%error, "a worker could not go on; it will try again");
                    self.idle().await;
                }
            }
        }
    }

    async fn idle(&self) {
        tokio::select! {
            () = self.stop().cancelled_owned() => {}
            () = self.0.work_waits.notified() => {}
            () = tokio::time::sleep(IDLE) => {}
        }
    }

    async fn carry(self) {
        while !self.stop().is_cancelled() {
            match self.carry_once().await {
                Ok(0) => {}
                // There may be more, and somebody else may be idle.
                Ok(_) => {
                    self.0.messages_wait.notify_one();
                    continue;
                }
                Err(error) => tracing::error!(%error, "messages could not be carried; they will be tried again"),
            }
            tokio::select! {
                () = self.stop().cancelled_owned() => {}
                () = self.0.messages_wait.notified() => {}
                () = tokio::time::sleep(IDLE) => {}
            }
        }
    }

    /// Carries the messages to outside agents that are due, one for each agent. Answers how many there were.
    pub async fn carry_once(&self) -> Result<usize> {
        // Made when it is needed: it reads the certificates of this machine, and there may be none.
        let made = self.0.messenger.get_or_try_init(async || Messenger::new(self.store().clone())).await;
        let tried = made?.carry().await?;
        for tried in &tried {
            self.metrics().webhook_tried(*tried);
        }
        Ok(tried.len())
    }

    async fn every(self, period: Duration, what: impl AsyncFn(&Self) -> Result<()>) {
        loop {
            if let Err(error) = what(&self).await {
                tracing::error!(%error, "a periodic check failed");
            }
            tokio::select! {
                () = self.stop().cancelled_owned() => return,
                () = tokio::time::sleep(period) => {}
            }
        }
    }

    /// Checks all of the books: every invariant, every line of the journal and every reputation. What is not sealed yet is sealed
    /// first. A violation stops all movements of credits in this process, and a whole audit without one lets them go on.
    /// Remembered for readiness and metrics.
    pub async fn audit(&self) -> Result<Audit> {
        let mut audited = self.0.audited.lock().await;
        // That the journal cannot be sealed must not keep the books from being looked at.
        logged("sealing the journal", self.seal(true).await.map(|_| ()));
        self.audit_as(&mut audited, Reach::Whole).await
    }

    /// Checks what moved since the last clean audit, with a margin. Where there is none, the last one of everything was long ago, or
    /// the books are broken, all of them are checked.
    pub async fn audit_recent(&self) -> Result<Audit> {
        let (known, now) = (*self.0.audited.lock().await, self.store().clock().now());
        let is_recent = |known: &Audited| self.store().books().is_ok() && now.since(known.whole_at) < WHOLE_AUDIT;
        let Some(known) = known.filter(is_recent) else { return self.audit().await };
        let reach = Reach::Recent { since: known.at.before(journal::MARGIN), place: known.place };
        let mut audited = self.0.audited.lock().await;
        self.audit_as(&mut audited, reach).await
    }

    async fn audit_as(&self, audited: &mut Option<Audited>, reach: Reach) -> Result<Audit> {
        let (store, at) = (self.store(), self.store().clock().now());
        let signer = Signer::of(store.instance()?.public_key());
        let since = match reach {
            Reach::Whole => None,
            Reach::Recent { since, .. } => Some(since),
        };
        let (audit, place, imbalance) = store
            .snapshot(async |db| {
                let mut audit = ledger::audit(db, signer, References::Text, reach).await?;
                audit.add("L12", reputation::replay_violations(db, since).await?);
                let imbalance = if audit.whole { Some(ledger::imbalance(db).await?) } else { None };
                Ok((audit, journal::newest_place(db).await?, imbalance))
            })
            .await?;
        if audit.ok() {
            let whole_at = audited.filter(|_| !audit.whole).map_or(at, |known| known.whole_at);
            *audited = Some(Audited { at, whole_at, place });
            if audit.whole {
                store.set_books(true);
            }
        } else {
            let broken: Vec<&str> = audit.checks.iter().filter(|it| it.violations > 0).map(|it| it.name).collect();
            tracing::error!(
                violations = audit.violations(),
                ?broken,
                "the books are broken; no credits move until a whole audit is clean"
            );
            store.set_books(false);
        }
        self.metrics().audited(&audit, at, imbalance);
        *self.0.last_audit.lock().unwrap_or_else(PoisonError::into_inner) = Some(audit.clone());
        Ok(audit)
    }

    /// Gives every transfer that is not sealed its place in the journal and signs the new head. Looks at the newest transfers, or at
    /// all of them. Answers how many there were. While the books are broken nothing is sealed.
    pub async fn seal(&self, whole: bool) -> Result<u64> {
        let store = self.store();
        if store.books().is_err() {
            return Ok(0);
        }
        let since = journal::unsealed_since(store.read(), store.clock().now()).await?;
        let since = if whole { Uuid::nil() } else { since };
        if !journal::is_unsealed(store.read(), since).await? {
            return Ok(0);
        }
        let (mut sum, mut next) = (0_u64, Some(since));
        while let Some(since) = next {
            let sealed = store.write(Caller::System, async |work| journal::seal(work, since).await).await?;
            sum = sum.saturating_add(sealed.lines);
            next = sealed.next;
        }
        Ok(sum)
    }

    /// Writes the books as an archive that anybody can check, from one snapshot. Everything is sealed first.
    pub async fn export(&self, to: impl Write) -> Result<Contents> {
        self.seal(true).await?;
        let (store, at) = (self.store(), self.store().clock().now());
        let instance = store.instance()?;
        store.snapshot(async |db| archive::export(db, instance, at, to).await).await
    }

    /// The newest audit of this process.
    pub fn last_audit(&self) -> Option<Audit> {
        self.0.last_audit.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Does once whatever is due, for tests that turn the clock. Answers how many things it did.
    pub async fn sweep_once(&self) -> Result<u64> {
        Box::pin(sweep::once(self.store())).await
    }

    /// Takes out once what need not be kept any more, for tests that turn the clock. Answers how many rows that were.
    pub async fn tidy_once(&self) -> Result<u64> {
        sweep::tidy(self.store()).await
    }

    /// Does all hosted work that waits, for tests that turn the clock. Answers how much there was.
    pub async fn run_ready(&self) -> Result<u64> {
        let mut done = 0;
        while is_waiting(self.store()).await? && self.0.worker.run_next().await? {
            done += 1;
        }
        Ok(done)
    }

    pub fn config(&self) -> &Config {
        &self.0.config
    }

    pub fn store(&self) -> &Store {
        &self.0.store
    }

    pub fn auth(&self) -> &Auth {
        &self.0.auth
    }

    /// Where bids are handed in.
    pub fn desk(&self) -> &Desk {
        &self.0.desk
    }

    /// Who reads the pages of auctions.
    #[must_use]
    pub fn pages(&self) -> &Pages {
        &self.0.pages
    }

    pub fn modules(&self) -> &Modules {
        &self.0.modules
    }

    /// What hosted work runs with, and what outside work is judged with.
    pub fn worker(&self) -> &Worker {
        &self.0.worker
    }

    pub fn sandbox(&self) -> &Sandbox {
        &self.0.sandbox
    }

    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    pub fn tracker(&self) -> &TaskTracker {
        &self.0.tracker
    }

    /// Cancelled when the process is to end.
    pub fn stop(&self) -> CancellationToken {
        self.0.stop.clone()
    }
}

/// What a stranger finds out about an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub contents: Contents,
    /// The checks of the file, then those of the books in it.
    pub audit: Audit,
    /// The newest head in it: the place and the hash.
    pub head: Option<(i64, String)>,
}

/// Checks an archive that [`App::export`] wrote, without the database and without us. `key` is the market's public key and `kept` a
/// place with its hash, both from elsewhere: without them the archive vouches only for itself.
pub async fn verify(from: impl BufRead, key: Option<[u8; 32]>, kept: Option<(i64, String)>) -> Result<Verdict> {
    let folder = tempfile::tempdir().map_err(Error::internal)?;
    let Loaded { db, contents, mut checks } = archive::load(from, folder.path()).await?;
    if let Some(key) = key {
        let violations = u64::from(key != contents.signer_key);
        checks.push(Check {
            name: "A3",
            statement: "The archive is of the market with the key that was named.",
            violations,
        });
    }
    if let Some((place, hash)) = kept {
        let found = journal::hash_at(&db, place).await?;
        let violations = u64::from(found != Some(hash));
        checks.push(Check { name: "A4", statement: "The journal goes on from the head that was kept.", violations });
    }
    let mut audit = ledger::audit(&db, Signer::of(contents.signer_key), References::Hashed, Reach::Whole).await?;
    audit.add("L12", reputation::replay_violations(&db, None).await?);
    checks.append(&mut audit.checks);
    let head = journal::head(&db).await?.map(|head| (head.place, head.hash));
    db.close().await?;
    Ok(Verdict { contents, audit: Audit { checks, ..audit }, head })
}

/// Whether an event means that hosted work may wait.
fn makes_work(event: &event::Model) -> bool {
    matches!(event.kind, event::Kind::ChannelOpened | event::Kind::TaskRetried)
}

/// Whether an event means that a message to an outside agent may wait.
fn makes_messages(event: &event::Model) -> bool {
    matches!(event.kind, event::Kind::ChannelOpened | event::Kind::TaskCompleted | event::Kind::TaskRefunded)
}

/// Whether an event means that a delegation may have something to do: it began, stops, or what it waits for is there.
fn moves_delegation(event: &event::Model) -> bool {
    let ends = matches!(
        event.kind,
        event::Kind::TaskSubmitted
            | event::Kind::TaskCompleted
            | event::Kind::TaskRefunded
            | event::Kind::TaskExpired
            | event::Kind::TaskCancelled
            | event::Kind::DelegationCreated
            | event::Kind::DelegationStopping
            | event::Kind::DelegationCompleted
            | event::Kind::DelegationFailed
            | event::Kind::DelegationCancelled
    );
    ends && event.delegation_id.is_some()
}

fn logged(what: &str, ended: Result<()>) {
    if let Err(error) = ended {
        tracing::error!(%error, "{what} ended");
    }
}
