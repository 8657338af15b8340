//! Seeded random histories of the market against a small model: whatever happens in whatever order, the money adds up.
//!
//! The model knows only what the verbs answered: what was issued, what each task holds or paid. From that alone it says what every
//! wallet and every agent must have. A failure prints its seed; `HISTORY_SEED` runs that one again.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use bytes::Bytes;
use entity::{
    account, agent, auction, bid,
    id::{AgentId, AuctionId, BidId, TaskId, UserId},
    money::Amount,
    task,
    user::Role,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use serde_json::json;
use zerostate::{
    agent::{self as agents, NewAgent},
    auction::{self as auctions, NewBid, Terms},
    caller::{Caller, Identity},
    error::{Error, Result},
    ledger,
    reputation::{self, NewRating},
    store::Work,
    task::{self as tasks, NewTask},
    user::{self as users, NewAccount},
};

use crate::world::World;

const GOOD: &[u8] = include_bytes!("../../agents/wasm/text-stats-lite.wasm");
const BROKEN: &str = r#"(module (memory (export "memory") 1) (func (export "_start") unreachable))"#;
const HASH: &str = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$4UAxMXjBSHqDwrs1MLXbUg";

/// What one task means for the money.
struct Stake {
    payer: UserId,
    budget: i64,
}

struct History {
    world: World,
    dice: StdRng,
    users: Vec<Caller>,
    admin: Caller,
    agents: Vec<(AgentId, usize)>,
    issued: BTreeMap<UserId, i64>,
    stakes: HashMap<TaskId, Stake>,
    auctions: Vec<AuctionId>,
    bids: Vec<BidId>,
}

impl History {
    async fn begin(seed: u64) -> Self {
        let world = World::with(|config| config.terms.fee_bps = 250).await;
        let mut history = Self {
            world,
            dice: StdRng::seed_from_u64(seed),
            users: Vec::new(),
            admin: Caller::System,
            agents: Vec::new(),
            issued: BTreeMap::new(),
            stakes: HashMap::new(),
            auctions: Vec::new(),
            bids: Vec::new(),
        };
        history.admin = history.user("root", Role::Admin).await;
        for name in ["ada", "bob", "cyd", "dan"] {
            let user = history.user(name, Role::User).await;
            history.users.push(user);
        }
        let broken = wat::parse_str(BROKEN).unwrap();
        for (number, module) in [Some(GOOD), Some(GOOD), Some(&broken[..]), None, None].into_iter().enumerate() {
            history.agent(number % 4, number, module).await;
        }
        history
    }

    async fn write<T>(&self, caller: &Caller, verb: impl AsyncFnOnce(&mut Work) -> Result<T>) -> Result<T> {
        self.world.app.store().write(caller.clone(), verb).await
    }

    async fn user(&self, name: &str, role: Role) -> Caller {
        let email = format!("{name}@example.org");
        let new = NewAccount { email, display_name: name.into(), password_hash: HASH.into(), role };
        let row = self.write(&Caller::System, async |work| users::create(work, new).await).await.unwrap();
        Caller::User(Identity { user: row.id, role, session: None, key: None, expires_at: None })
    }

    async fn agent(&mut self, owner: usize, number: usize, module: Option<&[u8]>) {
        let price = self.amount(100, 900);
        let new = NewAgent {
            name: format!("agent-{number}"),
            description: String::new(),
            capabilities: vec!["text.stats".into()],
            runtime: if module.is_some() { agent::Runtime::Hosted } else { agent::Runtime::External },
            price,
            min_price: None,
            promised: None,
            public_key: None,
            capacity: Some(10_000),
            fuel_price: None,
        };
        let caller = self.users[owner].clone();
        let id = self.write(&caller, async |work| agents::register(work, new).await).await.unwrap().id;
        if let Some(module) = module {
            let modules = self.world.app.modules();
            let stored = modules.store_bytes(Bytes::copy_from_slice(module), 1 << 20).await.unwrap();
            let interface = entity::agent_module::Interface::WasiCommand;
            let sha256 = hex::encode(stored.sha256);
            self.write(&caller, async |work| agents::set_module(work, id, sha256, stored.size, interface).await)
                .await
                .unwrap();
        }
        self.agents.push((id, owner));
    }

    /// A random amount of whole thousandths of a credit.
    fn amount(&mut self, least: i64, most: i64) -> Amount {
        Amount::from_micros(self.dice.random_range(least..=most) * 1_000).unwrap()
    }

    fn somebody(&mut self) -> Caller {
        let at = self.dice.random_range(0..self.users.len());
        self.users[at].clone()
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| from[self.dice.random_range(0..from.len())])
    }

    fn maybe(&mut self) -> bool {
        self.dice.random()
    }

    fn terms(&mut self) -> Terms {
        let manual = self.dice.random_range(0..4) == 0;
        let timed = manual || self.maybe();
        let open = self.maybe();
        Terms {
            kind: if self.maybe() { auction::Kind::FirstPrice } else { auction::Kind::SecondPrice },
            visibility: if open { auction::Visibility::Open } else { auction::Visibility::Sealed },
            award_mode: if manual { auction::AwardMode::Manual } else { auction::AwardMode::Automatic },
            min_reputation: if self.maybe() { 0 } else { self.dice.random_range(0..6_000) },
            price_weight: self.dice.random_range(0..=10_000),
            closes_in: timed.then(|| Duration::from_secs(self.dice.random_range(1..120))),
            close_after_bids: self.maybe().then(|| self.dice.random_range(1..5)),
            soft_close: (open && timed && self.maybe()).then_some(Duration::from_secs(5)),
            ..Terms::default()
        }
    }

    /// One random verb. Refusals are fine; internal errors are not.
    async fn step(&mut self) {
        let outcome = match self.dice.random_range(0..12) {
            0 | 1 => self.issue_or_redeem().await,
            2..=4 => self.post().await,
            5..=6 => self.bid().await,
            7 => self.withdraw().await,
            8 => self.cancel_or_award().await,
            9 => self.rate().await,
            10 => self.pause_or_resume().await,
            _ => {
                let pause = Duration::from_secs(self.dice.random_range(0..90));
                self.world.pass(pause).await;
                Ok(())
            }
        };
        if let Err(error @ Error::Internal(_)) = outcome {
            panic!("a verb broke: {error}");
        }
    }

    async fn issue_or_redeem(&mut self) -> Result<()> {
        let user = self.somebody().user()?;
        let amount = self.amount(1, 5_000);
        let reference = format!("paper-{}", self.dice.random::<u64>());
        let admin = self.admin.clone();
        if self.dice.random_range(0..4) == 0 {
            self.write(&admin, async |work| ledger::redeem(work, user, amount, &reference).await).await?;
            *self.issued.entry(user).or_default() -= amount.micros();
        } else {
            self.write(&admin, async |work| ledger::issue(work, user, amount, &reference).await).await?;
            *self.issued.entry(user).or_default() += amount.micros();
        }
        Ok(())
    }

    async fn post(&mut self) -> Result<()> {
        let (caller, terms, budget) = (self.somebody(), self.terms(), self.amount(50, 2_000));
        let new = NewTask {
            title: "Count".into(),
            capabilities: vec!["text.stats".into()],
            input: json!("one two three"),
            output_schema: self.maybe().then(|| json!({"type": "object"})),
            budget,
            timeout: None,
            start_timeout: None,
            max_attempts: None,
            acceptance: task::Acceptance::Automatic,
            review_window: None,
            checker: None,
        };
        let posted = self.write(&caller, async |work| tasks::create_auction(work, new, terms).await).await?;
        self.auctions.push(posted.id);
        self.stakes.insert(posted.task_id, Stake { payer: posted.requester_id, budget: budget.micros() });
        Ok(())
    }

    async fn bid(&mut self) -> Result<()> {
        let auctions = self.auctions.clone();
        let (Some(auction), Some((agent, owner))) = (self.pick(&auctions), self.pick(&self.agents.clone())) else {
            return Ok(());
        };
        let caller = self.users[owner].clone();
        let offer = NewBid { auction, agent, price: self.amount(50, 1_500), promised: None };
        let bid = self.write(&caller, async |work| tasks::submit_bid(work, offer).await).await?;
        self.bids.push(bid.id);
        Ok(())
    }

    async fn withdraw(&mut self) -> Result<()> {
        let Some(id) = self.pick(&self.bids.clone()) else { return Ok(()) };
        let caller = self.somebody();
        self.write(&caller, async |work| auctions::withdraw_bid(work, id).await).await.map(|_| ())
    }

    async fn cancel_or_award(&mut self) -> Result<()> {
        let Some(id) = self.pick(&self.auctions.clone()) else { return Ok(()) };
        let caller = self.somebody();
        if self.maybe() {
            self.write(&caller, async |work| tasks::cancel_auction(work, id).await).await.map(|_| ())
        } else {
            let chosen = if self.maybe() { self.pick(&self.bids.clone()) } else { None };
            self.write(&caller, async |work| tasks::award(work, id, chosen).await).await.map(|_| ())
        }
    }

    async fn rate(&mut self) -> Result<()> {
        let mut known: Vec<TaskId> = self.stakes.keys().copied().collect();
        known.sort();
        let Some(task) = self.pick(&known) else { return Ok(()) };
        let (caller, stars) = (self.somebody(), self.dice.random_range(1..=5));
        let new = NewRating { task, stars, comment: None };
        self.write(&caller, async |work| reputation::rate(work, new).await).await.map(|_| ())
    }

    async fn pause_or_resume(&mut self) -> Result<()> {
        let Some((agent, owner)) = self.pick(&self.agents.clone()) else { return Ok(()) };
        let caller = self.users[owner].clone();
        if self.maybe() {
            self.write(&caller, async |work| agents::resume(work, agent).await).await.map(|_| ())
        } else {
            self.write(&caller, async |work| agents::pause(work, agent).await).await.map(|_| ())
        }
    }

    /// What the model says against what the books say, and the audit.
    async fn check(&self) {
        let db = self.world.app.store().read();
        let rows = task::Entity::find().all(db).await.unwrap();
        assert_eq!(rows.len(), self.stakes.len(), "every posted task is there and nothing else");
        let mut spent: BTreeMap<UserId, i64> = BTreeMap::new();
        let mut earned: BTreeMap<AgentId, i64> = BTreeMap::new();
        for row in &rows {
            let stake = &self.stakes[&row.id];
            let price = row.price.map_or(0, Amount::micros);
            let out = match row.status {
                task::Status::Open => stake.budget,
                task::Status::Awarded | task::Status::Running | task::Status::Submitted | task::Status::Disputed => {
                    price
                }
                task::Status::Completed => {
                    *earned.entry(row.agent_id.unwrap()).or_default() += price - price * 250 / 10_000;
                    price
                }
                task::Status::Refunded | task::Status::Expired | task::Status::Cancelled => 0,
            };
            assert!(price <= stake.budget, "nobody pays more than the budget");
            *spent.entry(stake.payer).or_default() += out;
        }
        for user in &self.users {
            let user = user.user().unwrap();
            let wallet = ledger::wallet(db, user).await.unwrap();
            let expected = self.issued.get(&user).unwrap_or(&0) - spent.get(&user).unwrap_or(&0);
            assert_eq!(wallet.available.micros(), expected, "the wallet of {user}");
        }
        for (agent, _) in &self.agents {
            let balance = ledger::balance_of(db, account::Kind::Agent, agent.0).await.unwrap();
            assert_eq!(balance, *earned.get(agent).unwrap_or(&0), "the earnings of {agent}");
        }
        let audit = self.world.app.audit().await.unwrap();
        assert!(audit.ok(), "{audit:#?}");
    }

    /// Time alone ends everything.
    async fn let_time_end_everything(&self) {
        for _ in 0..40 {
            self.world.pass(Duration::from_hours(2)).await;
        }
        let db = self.world.app.store().read();
        let open = task::Entity::find().filter(task::Column::DeadlineAt.is_not_null()).all(db).await.unwrap();
        assert!(open.is_empty(), "stranded: {open:?}");
        let live = bid::Entity::find().filter(bid::Column::Status.eq(bid::Status::Active)).all(db).await.unwrap();
        assert!(live.is_empty(), "bids that stand for ever: {live:?}");
    }
}

async fn run(seed: u64, steps: usize) {
    eprintln!("history: seed {seed}");
    let mut history = History::begin(seed).await;
    for step in 1..=steps {
        history.step().await;
        if step % 20 == 0 {
            history.check().await;
        }
    }
    history.check().await;
    history.let_time_end_everything().await;
    history.check().await;
    history.world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_the_money_adds_up() {
    match std::env::var("HISTORY_SEED") {
        Ok(seed) => Box::pin(run(seed.parse().expect("HISTORY_SEED is a number"), 400)).await,
        Err(_) => {
            for seed in 1..=4 {
                Box::pin(run(seed, 120)).await;
            }
        }
    }
}
