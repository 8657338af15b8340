//! Streaming channels against a reference in memory: random sequences of everything that can be tried, each step predicted by a model
//! that knows the specification and nothing of the program. What the model says about the answer, the channel, the history and the
//! money must be what the database says.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use entity::{
    account, agent,
    channel::{self, CloseReason, Status},
    channel_change, equivocation,
    id::{AgentId, ChannelId, Id},
    money::Amount,
    user::Role,
};
use proptest::{prelude::*, test_runner::TestRunner};
use proptest_state_machine::ReferenceStateMachine;
use sea_orm::{ColumnTrait, EntityTrait, PaginatorTrait, QueryFilter};
use zerostate::{
    agent::{self as agents, NewAgent},
    caller::{Caller, Identity},
    channel::stream::{self, Agreement, NewStream, Offer, Outcome, Settlement},
    error::{Error, Result},
    ledger,
    store::Work,
    user::{self as users, NewAccount},
    voucher::{CooperativeClose, Voucher, public_key, read_hex},
};

use crate::world::World;

const HASH: &str = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$4UAxMXjBSHqDwrs1MLXbUg";
const PAYER: [u8; 32] = [11; 32];
const AGENT: [u8; 32] = [12; 32];
const FEE_BPS: i64 = 2_500;
/// The delay of a close and the life of a channel, in seconds.
const DELAY: i64 = 1_000;
const LIFE: i64 = 3_000;

/// Who does it.
#[derive(Clone, Copy, Debug)]
enum Who {
    Payer,
    Owner,
    Stranger,
}

/// What is tried.
#[derive(Clone, Debug)]
enum Step {
    TopUp(Who, i64),
    Deduct(Who, i64),
    /// Nonce, sum, until when after the opening (or for ever), and whether the right key signed.
    Claim(Who, i64, i64, Option<i64>, bool),
    RequestClose(Who),
    CancelClose(Who),
    /// With a last voucher or without.
    Settle(Who, Option<(i64, i64)>),
    Cooperate(Who, i64, i64, bool),
    /// Seconds go by, and the sweeper looks or does not.
    Pass(i64, bool),
}

/// The specification in memory, in seconds after the opening and in micro-credits.
#[derive(Clone, Debug)]
struct Model {
    keyed: bool,
    status: Status,
    reason: Option<CloseReason>,
    deposit: i64,
    paid: i64,
    last_nonce: i64,
    close_at: Option<i64>,
    now: i64,
    /// Changes so far; the opening is one.
    changes: i64,
    /// What was claimed under which nonce, and until when it was good.
    claimed: BTreeMap<i64, (i64, Option<i64>)>,
    contradicted: BTreeSet<i64>,
}

type Said = std::result::Result<(), &'static str>;

impl Model {
    fn opened(keyed: bool, deposit: i64) -> Self {
        Self {
            keyed,
            status: Status::Open,
            reason: None,
            deposit,
            paid: 0,
            last_nonce: 0,
            close_at: None,
            now: 0,
            changes: 1,
            claimed: BTreeMap::new(),
            contradicted: BTreeSet::new(),
        }
    }

    fn expired(&self) -> bool {
        self.now >= LIFE || self.close_at.is_some_and(|at| self.now >= at)
    }

    fn live(&self) -> Said {
        if self.status == Status::Closed { Err("CHANNEL_CLOSED") } else { Ok(()) }
    }

    fn in_time(&self) -> Said {
        if self.expired() { Err("CHANNEL_EXPIRED") } else { Ok(()) }
    }

    fn end(&mut self, reason: CloseReason) {
        self.status = Status::Closed;
        self.reason = Some(reason);
        self.close_at = None;
        self.changes += 1;
    }

    fn finalise(&mut self) {
        let by_payer = self.close_at.is_some_and(|at| at < LIFE);
        self.end(if by_payer { CloseReason::PayerClosed } else { CloseReason::Expired });
    }

    /// A voucher with a good signature.
    fn claim(&mut self, nonce: i64, sum: i64, until: Option<i64>) -> Said {
        if let Some((first, end)) = self.claimed.get(&nonce) {
            if *first != sum {
                self.contradicted.insert(nonce);
                return Err("EQUIVOCATION");
            }
            let same = *end == until;
            return if same || until.is_none_or(|until| until >= self.now) { Ok(()) } else { Err("VOUCHER_EXPIRED") };
        }
        self.live()?;
        self.in_time()?;
        if until.is_some_and(|until| until < self.now) {
            return Err("VOUCHER_EXPIRED");
        }
        if nonce <= self.last_nonce {
            return Err("VOUCHER_STALE");
        }
        if sum <= self.paid {
            return Err("ALREADY_PAID");
        }
        if sum > self.deposit {
            return Err("ABOVE_DEPOSIT");
        }
        self.claimed.insert(nonce, (sum, until));
        (self.last_nonce, self.paid) = (nonce, sum);
        self.changes += 1;
        Ok(())
    }

    /// What comes of a step.
    fn take(&mut self, step: &Step) -> Said {
        let payer_alone = |who: Who| match who {
            Who::Payer => Ok(()),
            Who::Owner | Who::Stranger => Err("NOT_FOUND"),
        };
        match *step {
            Step::TopUp(who, amount) => {
                payer_alone(who)?;
                self.live()?;
                self.in_time()?;
                self.deposit += amount;
            }
            Step::Deduct(who, amount) => {
                payer_alone(who)?;
                self.live()?;
                if self.keyed {
                    return Err("SIGNER_REQUIRED");
                }
                self.in_time()?;
                if self.paid + amount > self.deposit {
                    return Err("ABOVE_DEPOSIT");
                }
                self.paid += amount;
            }
            Step::Claim(who, nonce, sum, until, good) => {
                if !self.keyed || !good {
                    return Err(match who {
                        Who::Stranger => "NOT_FOUND",
                        Who::Payer | Who::Owner if self.keyed => "SIGNATURE_INVALID",
                        Who::Payer | Who::Owner => "NO_SIGNER_KEY",
                    });
                }
                return self.claim(nonce, sum, until);
            }
            Step::RequestClose(who) => {
                payer_alone(who)?;
                self.live()?;
                if self.close_at.is_some() {
                    return Err("CLOSE_REQUESTED");
                }
                self.status = Status::Closing;
                self.close_at = Some((self.now + DELAY).min(LIFE));
            }
            Step::CancelClose(who) => {
                payer_alone(who)?;
                self.live()?;
                if self.close_at.is_none() {
                    return Err("CLOSE_NOT_REQUESTED");
                }
                self.in_time()?;
                self.status = Status::Open;
                self.close_at = None;
            }
            Step::Settle(Who::Owner, last) => {
                if let Some((nonce, sum)) = last {
                    if !self.keyed {
                        return Err("NO_SIGNER_KEY");
                    }
                    let known = self.claimed.contains_key(&nonce);
                    let mut after = self.clone();
                    let said = after.claim(nonce, sum, None);
                    self.contradicted.clone_from(&after.contradicted);
                    said?;
                    after.live()?;
                    assert!(known || after.changes == self.changes + 1);
                    *self = after;
                }
                self.live()?;
                self.end(CloseReason::AgentClosed);
                return Ok(());
            }
            Step::Settle(Who::Payer, Some(_)) => return Err("invalid"),
            Step::Settle(Who::Stranger, Some(_)) => {
                let over = self.status != Status::Closed && self.expired();
                return Err(if over { "invalid" } else { "NOT_FOUND" });
            }
            Step::Settle(who, None) => {
                let over = self.status != Status::Closed && self.expired();
                if !over {
                    return Err(match who {
                        Who::Stranger => "NOT_FOUND",
                        Who::Payer | Who::Owner if self.status == Status::Closed => "CHANNEL_CLOSED",
                        Who::Payer | Who::Owner => "CHANNEL_NOT_EXPIRED",
                    });
                }
                self.finalise();
                return Ok(());
            }
            Step::Cooperate(who, nonce, sum, good) => {
                if matches!(who, Who::Stranger) {
                    return Err("NOT_FOUND");
                }
                if !self.keyed {
                    return Err("NO_SIGNER_KEY");
                }
                if !good {
                    return Err("SIGNATURE_INVALID");
                }
                self.live()?;
                if nonce <= self.last_nonce {
                    return Err("VOUCHER_STALE");
                }
                if sum < self.paid {
                    return Err("ALREADY_PAID");
                }
                if sum > self.deposit {
                    return Err("ABOVE_DEPOSIT");
                }
                (self.last_nonce, self.paid) = (nonce, sum);
                self.end(CloseReason::Cooperative);
                return Ok(());
            }
            Step::Pass(seconds, swept) => {
                self.now += seconds;
                if swept && self.status != Status::Closed && self.expired() {
                    self.finalise();
                }
                return Ok(());
            }
        }
        self.changes += 1;
        Ok(())
    }
}

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Self> {
        (prop::bool::weighted(0.8), 4..10_i64).prop_map(|(keyed, deposit)| Self::opened(keyed, deposit)).boxed()
    }

    /// Mostly what could succeed, and always also what could not.
    fn transitions(state: &Self) -> BoxedStrategy<Step> {
        let who = || prop_oneof![5 => Just(Who::Payer), 1 => Just(Who::Owner), 1 => Just(Who::Stranger)];
        let payee = || prop_oneof![1 => Just(Who::Payer), 4 => Just(Who::Owner), 1 => Just(Who::Stranger)];
        let until = prop_oneof![3 => Just(None), 1 => (0..LIFE).prop_map(Some)];
        let (near, sums) = ((state.last_nonce - 1).max(1)..=state.last_nonce + 2, 1..=state.deposit + 1);
        let again: Vec<(i64, i64, Option<i64>)> =
            state.claimed.iter().map(|(nonce, (sum, until))| (*nonce, *sum, *until)).collect();
        let replay = if again.is_empty() { Just((1, 1, None)).boxed() } else { prop::sample::select(again).boxed() };
        prop_oneof![
            2 => (who(), 1..4_i64).prop_map(|(who, amount)| Step::TopUp(who, amount)),
            2 => (who(), 1..4_i64).prop_map(|(who, amount)| Step::Deduct(who, amount)),
            8 => (payee(), near.clone(), sums.clone(), until, prop::bool::weighted(0.95))
                .prop_map(|(who, nonce, sum, until, good)| Step::Claim(who, nonce, sum, until, good)),
            2 => (payee(), replay).prop_map(|(who, (nonce, sum, until))| Step::Claim(who, nonce, sum, until, true)),
            2 => who().prop_map(Step::RequestClose),
            2 => who().prop_map(Step::CancelClose),
            1 => (payee(), prop::option::of((near.clone(), sums.clone())))
                .prop_map(|(who, last)| Step::Settle(who, last)),
            1 => (payee(), near, sums, prop::bool::weighted(0.5))
                .prop_map(|(who, nonce, sum, good)| Step::Cooperate(who, nonce, sum, good)),
            3 => (0..400_i64, any::<bool>()).prop_map(|(seconds, swept)| Step::Pass(seconds, swept)),
        ]
        .boxed()
    }

    fn apply(mut state: Self, step: &Step) -> Self {
        // Whether it succeeds is part of what is compared later; a refusal only keeps evidence.
        let _ = state.take(step);
        state
    }
}

/// The program under the test.
struct Stage {
    world: World,
    payer: Caller,
    owner: Caller,
    stranger: Caller,
    agent: AgentId,
}

/// One channel of it.
struct Subject {
    id: ChannelId,
    hash: [u8; 32],
    opened: i64,
    /// What the agent, the platform and the payer had before.
    before: [i64; 3],
}

fn micros(micros: i64) -> Amount {
    Amount::from_micros(micros).unwrap()
}

impl Stage {
    async fn set() -> Self {
        let world = World::with(|config| config.terms.fee_bps = u16::try_from(FEE_BPS).unwrap()).await;
        let mut people = Vec::new();
        for (name, role) in [("payer", Role::User), ("owner", Role::User), ("eve", Role::User), ("root", Role::Admin)] {
            let email = format!("{name}@example.org");
            let new = NewAccount { email, display_name: name.into(), password_hash: HASH.into(), role };
            let store = world.app.store();
            let user = store.write(Caller::System, async |work| users::create(work, new).await).await.unwrap().id;
            people.push(Caller::User(Identity { user, role, session: None, key: None, expires_at: None }));
        }
        let [payer, owner, stranger, root] = people.try_into().unwrap();
        let new = NewAgent {
            name: "worker".into(),
            description: String::new(),
            capabilities: vec!["stream".into()],
            runtime: agent::Runtime::External,
            price: micros(1),
            min_price: None,
            promised: None,
            public_key: Some(hex::encode(public_key(&AGENT))),
            capacity: Some(10_000),
            fuel_price: None,
        };
        let store = world.app.store();
        let agent = store.write(owner.clone(), async |work| agents::register(work, new).await).await.unwrap().id;
        let user = payer.user().unwrap();
        let amount = Amount::from_credits(1_000).unwrap();
        store.write(root, async |work| ledger::issue(work, user, amount, "start").await).await.unwrap();
        Self { world, payer, owner, stranger, agent }
    }

    fn caller(&self, who: Who) -> Caller {
        match who {
            Who::Payer => &self.payer,
            Who::Owner => &self.owner,
            Who::Stranger => &self.stranger,
        }
        .clone()
    }

    async fn write<T>(&self, who: Who, verb: impl AsyncFnOnce(&mut Work) -> Result<T>) -> Result<T> {
        self.world.app.store().write(self.caller(who), verb).await
    }

    /// What agent, platform and payer have.
    async fn funds(&self) -> [i64; 3] {
        let db = self.world.app.store().read();
        let agent = ledger::balance_of(db, account::Kind::Agent, self.agent.uuid()).await.unwrap();
        let fees = ledger::balance_of(db, account::Kind::Fees, uuid::Uuid::nil()).await.unwrap();
        let payer = ledger::balance_of(db, account::Kind::User, self.payer.user().unwrap().uuid()).await.unwrap();
        [agent, fees, payer]
    }

    async fn open(&self, model: &Model) -> Subject {
        // Channels end at whole seconds.
        let rest = self.world.now().micros().rem_euclid(1_000_000).unsigned_abs();
        self.world.turn(Duration::from_micros(1_000_000 - rest));
        let (now, before) = (self.world.now(), self.funds().await);
        let seconds = |seconds: i64| Duration::from_secs(seconds.unsigned_abs());
        let new = NewStream {
            agent: self.agent,
            deposit: micros(model.deposit),
            signer: model.keyed.then(|| public_key(&PAYER)),
            settle_delay: seconds(DELAY),
            expires_at: now.after(seconds(LIFE)),
            salt: None,
        };
        let row = self.write(Who::Payer, async |work| stream::open(work, new).await).await.unwrap();
        let hash = read_hex(row.hash.as_deref().unwrap()).unwrap();
        Subject { id: row.id, hash, opened: now.micros() / 1_000_000, before }
    }

    fn offer(&self, subject: &Subject, nonce: i64, sum: i64, until: Option<i64>, good: bool) -> Offer {
        let valid_until = until.map_or(0, |until| subject.opened + until);
        let voucher = Voucher {
            instance_id: self.world.app.store().instance().unwrap().id(),
            channel_id: subject.hash,
            nonce: nonce.unsigned_abs(),
            cumulative: sum.unsigned_abs(),
            valid_until: valid_until.unsigned_abs(),
            context_hash: [0; 32],
        };
        let signature = voucher.sign(if good { &PAYER } else { &AGENT });
        Offer { nonce, cumulative: micros(sum), valid_until, context_hash: [0; 32], signature }
    }

    /// Does a step, and answers the code of its refusal.
    async fn take(&self, subject: &Subject, step: &Step) -> std::result::Result<(), String> {
        let id = subject.id;
        let unit = |outcome: Outcome| match outcome {
            Outcome::Done(_) => Ok(()),
            Outcome::Equivocation => Err("EQUIVOCATION".to_owned()),
        };
        let refused = |error: Error| match &error {
            Error::Refused(refusal) => refusal.code.clone(),
            Error::NotFound(_) => "NOT_FOUND".to_owned(),
            Error::Invalid { .. } => "invalid".to_owned(),
            Error::Unauthenticated(_)
            | Error::Forbidden(_)
            | Error::Throttled(_)
            | Error::Unavailable(_)
            | Error::BooksBroken
            | Error::Internal(_) => panic!("{step:?} broke: {error}"),
        };
        let changed = |came: Result<channel_change::Model>| came.map(|_| ()).map_err(refused);
        let judged = |came: Result<Outcome>| came.map_err(refused).and_then(unit);
        match *step {
            Step::TopUp(who, amount) => {
                changed(self.write(who, async |work| stream::top_up(work, id, micros(amount), None).await).await)
            }
            Step::Deduct(who, amount) => {
                let amount = micros(amount);
                changed(self.write(who, async |work| stream::deduct(work, id, amount, None, None).await).await)
            }
            Step::Claim(who, nonce, sum, until, good) => {
                let offer = self.offer(subject, nonce, sum, until, good);
                judged(self.write(who, async |work| stream::claim(work, id, &offer).await).await)
            }
            Step::RequestClose(who) => {
                changed(self.write(who, async |work| stream::request_close(work, id, None).await).await)
            }
            Step::CancelClose(who) => {
                changed(self.write(who, async |work| stream::cancel_close(work, id, None).await).await)
            }
            Step::Settle(who, last) => {
                let voucher = last.map(|(nonce, sum)| self.offer(subject, nonce, sum, None, true));
                let settlement = Settlement { voucher, cooperative: None };
                judged(self.write(who, async |work| stream::settle(work, id, settlement, None).await).await)
            }
            Step::Cooperate(who, nonce, sum, good) => {
                let close = CooperativeClose {
                    instance_id: self.world.app.store().instance().unwrap().id(),
                    channel_id: subject.hash,
                    nonce: nonce.unsigned_abs(),
                    final_cumulative: sum.unsigned_abs(),
                    valid_until: (subject.opened + 100 * LIFE).unsigned_abs(),
                };
                let agreement = Agreement {
                    nonce,
                    final_cumulative: micros(sum),
                    valid_until: subject.opened + 100 * LIFE,
                    payer_signature: close.sign(&PAYER),
                    agent_signature: close.sign(if good { &AGENT } else { &PAYER }),
                };
                let settlement = Settlement { voucher: None, cooperative: Some(agreement) };
                judged(self.write(who, async |work| stream::settle(work, id, settlement, None).await).await)
            }
            Step::Pass(seconds, swept) => {
                self.world.turn(Duration::from_secs(seconds.unsigned_abs()));
                if swept {
                    self.world.app.sweep_once().await.unwrap();
                }
                Ok(())
            }
        }
    }

    /// What the database says is what the model says.
    async fn compare(&self, subject: &Subject, model: &Model) {
        let db = self.world.app.store().read();
        let row = channel::Entity::find_by_id(subject.id).one(db).await.unwrap().unwrap();
        let close_at = row.close_at.map(|at| at.micros() / 1_000_000 - subject.opened);
        assert_eq!(
            (
                row.status,
                row.close_reason,
                row.deposit.micros(),
                row.paid.micros(),
                row.voucher_nonce,
                row.nonce,
                close_at
            ),
            (model.status, model.reason, model.deposit, model.paid, model.last_nonce, model.changes, model.close_at)
        );
        let left = if model.status == Status::Closed { 0 } else { model.deposit - model.paid };
        let held = ledger::balance_of(db, account::Kind::EscrowChannel, subject.id.uuid()).await.unwrap();
        assert_eq!(held, left, "the channel's account");
        let fee = model.paid * FEE_BPS / 10_000;
        let [agent, fees, payer] = subject.before;
        assert_eq!(self.funds().await, [agent + model.paid - fee, fees + fee, payer - model.paid - left]);
        let of = channel_change::Column::ChannelId.eq(subject.id);
        let changes = channel_change::Entity::find().filter(of).count(db).await.unwrap();
        let of = equivocation::Column::ChannelId.eq(subject.id);
        let evidence = equivocation::Entity::find().filter(of).count(db).await.unwrap();
        assert_eq!(changes, u64::try_from(model.changes).unwrap());
        assert_eq!(evidence, u64::try_from(model.contradicted.len()).unwrap());
    }
}

#[test]
fn whatever_is_tried_in_whatever_order_the_channel_does_what_the_specification_says() {
    const CASES: u32 = 90;
    const STEPS: usize = 36;
    let began = Instant::now();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let stage = runtime.block_on(Stage::set());
    let (steps, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let config =
        ProptestConfig { cases: CASES, failure_persistence: None, max_shrink_iters: 200, ..ProptestConfig::default() };
    let outcome =
        TestRunner::new(config).run(&Model::sequential_strategy(STEPS..STEPS + 1), |(start, trials, seen)| {
            runtime.block_on(async {
                let mut model = start;
                let subject = stage.open(&model).await;
                for step in trials {
                    if let Some(seen) = &seen {
                        seen.fetch_add(1, Ordering::SeqCst);
                    }
                    let expected = model.take(&step);
                    let came = stage.take(&subject, &step).await;
                    assert_eq!(came, expected.map_err(str::to_owned), "{step:?} in {model:?}");
                    stage.compare(&subject, &model).await;
                    done.fetch_add(usize::from(came.is_ok()), Ordering::Relaxed);
                    // The audit reads all of the books, which grow; the channel's own books were compared above.
                    if steps.fetch_add(1, Ordering::Relaxed) % 20 == 0 {
                        let audit = stage.world.app.audit().await.unwrap();
                        assert!(audit.ok(), "{step:?}: {audit:#?}");
                    }
                }
                // Time alone ends whatever is left.
                let rest = Step::Pass(LIFE, true);
                model.take(&rest).unwrap();
                stage.take(&subject, &rest).await.unwrap();
                stage.compare(&subject, &model).await;
                assert_eq!(model.status, Status::Closed);
            });
            Ok(())
        });
    let (steps, done) = (steps.into_inner(), done.into_inner());
    println!("channel model: {CASES} cases, {steps} steps, {done} of them done, in {:?}", began.elapsed());
    if let Err(error) = outcome {
        runtime.block_on(async { stage.world.app.shutdown(Duration::from_secs(1)).await });
        panic!("{error}");
    }
    assert!(steps >= 3_000, "{steps}");
    assert!(done * 4 >= steps, "only {done} of {steps} steps were done");
    runtime.block_on(stage.world.check());
}
