//! What the process owns: the database, the keys, the modules, the sandbox, the metrics and the tasks that run in the background.
//! Built once from the configuration and seen only by the edge.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use entity::event;
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    agent::modules::Modules,
    config::Config,
    error::{Error, Result},
    execution::{
        Worker, is_waiting,
        sandbox::{Sandbox, SandboxConfig},
    },
    ledger::{self, Audit, Check},
    metrics::Metrics,
    reputation,
    store::{Clock, Entropy, Instance, Store},
    sweep,
    user::Auth,
};

/// How long an idle worker waits before it looks for work by itself; a commit that makes work wakes it at once.
const IDLE: Duration = Duration::from_millis(500);
/// How often the gauges of the market are sampled.
const SAMPLE: Duration = Duration::from_secs(15);
/// How often the books are audited while the service runs.
const AUDIT: Duration = Duration::from_mins(1);

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
    work_waits: Arc<Notify>,
    last_audit: Mutex<Option<Audit>>,
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl App {
    /// Opens everything and brings the schema up to date. Nothing runs in the background yet; see [`App::start`].
    pub async fn open(config: Config, clock: Clock, entropy: Entropy) -> Result<Self> {
        tokio::fs::create_dir_all(&config.data).await.map_err(Error::internal)?;
        let store = Store::connect(&config.storage, config.terms.clone(), clock, entropy).await?;
        store.migrate().await?;
        store.identify(Instance::open(&config.data, store.entropy())?).await?;
        let auth = Auth::open(config.auth.clone(), &config.data, store.entropy())?;
        let modules = Modules::open(&config.modules_url).map_err(Error::internal)?;
        let concurrent_runs = u32::try_from(config.execution.concurrency).unwrap_or(u32::MAX);
        let sandbox =
            Sandbox::new(SandboxConfig { concurrent_runs, ..SandboxConfig::default() }).map_err(Error::internal)?;
        let metrics = Arc::new(Metrics::new()?);
        let work_waits = Arc::new(Notify::new());
        let (observed, waits) = (Arc::clone(&metrics), Arc::clone(&work_waits));
        store.on_commit(move |events| {
            observed.observe(events);
            if events.iter().any(makes_work) {
                waits.notify_one();
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
        let stop = CancellationToken::new();
        let last_audit = Mutex::new(None);
        let inner =
            Inner { config, store, auth, modules, sandbox, metrics, worker, work_waits, last_audit, tracker, stop };
        Ok(Self(Arc::new(inner)))
    }

    /// Starts what runs in the background: the event feed, the sweeper, the workers, the sampler and the audit.
    pub fn start(&self) {
        self.feed();
        let (store, stop) = (self.store().clone(), self.stop());
        self.tracker().spawn(sweep::run(store, self.config().sweep_interval, stop));
        for _ in 0..self.config().execution.concurrency {
            self.tracker().spawn(self.clone().work());
        }
        self.tracker().spawn(self.clone().every(SAMPLE, async |app| app.metrics().sample(app.store()).await));
        self.tracker().spawn(self.clone().every(AUDIT, async |app| app.audit().await.map(|_| ())));
    }

    /// Starts the event feed alone, for tests that turn everything else by hand.
    pub fn feed(&self) {
        let (store, stop) = (self.store().clone(), self.stop());
        self.tracker().spawn(async move { logged("the event feed", store.tail(stop).await) });
        let (store, stop) = (self.store().clone(), self.stop());
        self.tracker().spawn(async move { logged("the listener for other instances", store.listen(stop).await) });
    }

    /// Ends what runs in the background, letting it finish what it is at, for `patience` at most.
    pub async fn shutdown(&self, patience: Duration) {
        self.stop().cancel();
        self.tracker().close();
        if tokio::time::timeout(patience, self.tracker().wait()).await.is_err() {
            tracing::warn!("some background work did not end in time; leases and deadlines will take care of it");
        }
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

    /// Checks the books and that every reputation is the sum of its evidence. Remembered for readiness and metrics.
    pub async fn audit(&self) -> Result<Audit> {
        let mut audit = ledger::audit(self.store().read()).await?;
        audit.checks.push(Check {
            name: "L12",
            statement: "Every stored reputation is what replaying its evidence gives, bit for bit.",
            violations: reputation::replay_violations(self.store().read()).await?,
        });
        if !audit.ok() {
            tracing::error!(violations = audit.violations(), "the books are broken");
        }
        self.metrics().audited(&audit);
        *self.0.last_audit.lock().unwrap_or_else(PoisonError::into_inner) = Some(audit.clone());
        Ok(audit)
    }

    /// The newest audit of this process.
    pub fn last_audit(&self) -> Option<Audit> {
        self.0.last_audit.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Does once whatever is due, for tests that turn the clock. Answers how many things it did.
    pub async fn sweep_once(&self) -> Result<u64> {
        sweep::once(self.store()).await
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

    pub fn modules(&self) -> &Modules {
        &self.0.modules
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

/// Whether an event means that hosted work may wait.
fn makes_work(event: &event::Model) -> bool {
    matches!(event.kind, event::Kind::ChannelOpened | event::Kind::TaskRetried)
}

fn logged(what: &str, ended: Result<()>) {
    if let Err(error) = ended {
        tracing::error!(%error, "{what} ended");
    }
}
