//! Auctions against a model of them: the same steps in both, in any order, and after each step the same refusal or none, the same
//! states, bids, bonds and wallets, and books that are right.
//!
//! Prices are all that counts in the score here, and no two agents ask the same, so that the model needs no reputations. A failure is
//! shrunk to few steps and printed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
    time::Duration,
};

use entity::{
    account, agent, auction,
    auction::{AwardMode, Status, Visibility},
    bond,
    id::{AgentId, AuctionId, BidId, CommitmentId, TaskId},
    money::Amount,
    task,
    user::Role,
};
use proptest::{prelude::*, sample::select, strategy::Union, test_runner::Config};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use serde_json::json;
use tokio::runtime::Runtime;
use uuid::Uuid;
use zerostate::{
    agent as agents,
    auction::{
        self as auctions, NewBid, Terms,
        commitment::Sealed,
        reveal::{NewCommitment, Reveal},
    },
    caller::{Caller, Identity},
    error::{Error, Result},
    ledger,
    store::Work,
    task::{self as tasks, NewTask},
};

use crate::world::{World, on_postgres};

const BUDGET: i64 = 1_000_000;
const CEILING: i64 = 800_000;
const RESERVE: i64 = 600_000;
const LEAST: i64 = 100_000;
/// Whom the agents belong to: 0 buys, 1 and 2 sell. The last one may not bid.
const OWNERS: [usize; 4] = [1, 1, 2, 0];
const SALT: [u8; 32] = [9; 32];
/// How often an agent may bid or commit in one auction.
const MOST_BIDS: usize = 4;
/// Milliseconds.
const OPEN_FOR: i64 = 100_000;
const REVEAL_FOR: i64 = 60_000;
const AWARD_WITHIN: i64 = 24 * 3_600_000;
const START_WITHIN: i64 = 60_000;
/// Three attempts of ten seconds, each with a lease of thirty and its pause.
const RUN_FOR: i64 = 3 * 40_000 + 500 + 1_000 + 2_000;

#[derive(Clone, Debug)]
enum Step {
    Open {
        visibility: Visibility,
        manual: bool,
        bond: i64,
        enough: Option<usize>,
    },
    Bid {
        agent: usize,
        price: i64,
    },
    WithdrawBid {
        agent: usize,
    },
    Commit {
        agent: usize,
        price: i64,
    },
    WithdrawCommitment {
        agent: usize,
    },
    Reveal {
        agent: usize,
        lie: bool,
    },
    Award {
        chosen: Option<usize>,
    },
    Cancel,
    Start,
    PauseOrResume {
        agent: usize,
    },
    Credit {
        seller: usize,
    },
    /// Turns the clock and lets nothing happen.
    Turn(i64),
    /// Turns the clock and does all that is due.
    Pass(i64),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Word {
    Committed,
    Withdrawn,
    Revealed,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    Open,
    Awarded { agent: usize, price: i64, start_by: i64 },
    Running { price: i64, until: i64 },
    Over,
}

#[derive(Clone, Debug)]
struct Model {
    now: i64,
    wallets: [i64; 3],
    paused: BTreeSet<usize>,
    auction: Option<Modelled>,
    /// What the last step was refused for.
    refused: Option<&'static str>,
}

#[derive(Clone, Debug)]
struct Modelled {
    visibility: Visibility,
    manual: bool,
    bond: i64,
    enough: Option<usize>,
    status: Status,
    closes_at: i64,
    deadline: i64,
    reveal_until: i64,
    /// Bids that stand, by agent.
    bids: BTreeMap<usize, i64>,
    /// How often an agent has bid.
    tries: BTreeMap<usize, usize>,
    /// The newest commitment of an agent.
    words: BTreeMap<usize, (i64, Word)>,
    committed: usize,
    revealed: usize,
    bonds: BTreeSet<usize>,
    /// Runners-up, best first.
    lost: Vec<(usize, i64)>,
    work: Stage,
}

impl Modelled {
    /// Whether bids or commitments are taken.
    fn open(&self, now: i64) -> std::result::Result<(), &'static str> {
        match self.status {
            Status::Open if now < self.closes_at => Ok(()),
            Status::Open | Status::Revealing => Err("AUCTION_CLOSED"),
            Status::Awarded | Status::Expired | Status::Cancelled => Err("AUCTION_NOT_OPEN"),
        }
    }

    fn veiled(&self) -> bool {
        self.visibility == Visibility::CommitReveal
    }

    fn missing(&self) -> Vec<usize> {
        self.words.iter().filter(|(_, word)| word.1 == Word::Committed).map(|(agent, _)| *agent).collect()
    }

    fn standing(&self) -> usize {
        if self.veiled() { self.committed } else { self.bids.len() }
    }
}

impl Model {
    fn able(&self, agent: usize) -> bool {
        !self.paused.contains(&agent)
    }

    /// Ends the bond of an agent, if it has one.
    fn end_bond(&mut self, a: &mut Modelled, agent: usize, forfeited: bool) {
        if a.bonds.remove(&agent) {
            self.wallets[if forfeited { 0 } else { OWNERS[agent] }] += a.bond;
        }
    }

    fn end_bonds(&mut self, a: &mut Modelled) {
        for agent in a.bonds.clone() {
            self.end_bond(a, agent, false);
        }
    }

    fn put_bond(&mut self, a: &mut Modelled, agent: usize) -> std::result::Result<(), &'static str> {
        if a.bond == 0 || a.bonds.contains(&agent) {
            return Ok(());
        }
        let wallet = &mut self.wallets[OWNERS[agent]];
        if *wallet < a.bond {
            return Err("INSUFFICIENT_FUNDS");
        }
        *wallet -= a.bond;
        a.bonds.insert(agent);
        Ok(())
    }

    fn admit_bidder(&self, agent: usize) -> std::result::Result<(), &'static str> {
        if OWNERS[agent] == 0 {
            return Err("OWN_AUCTION");
        }
        if !self.able(agent) {
            return Err("AGENT_NOT_READY");
        }
        Ok(())
    }

    fn admit_price(price: i64) -> std::result::Result<(), &'static str> {
        match price {
            _ if price > CEILING => Err("PRICE_ABOVE_CEILING"),
            _ if price < LEAST => Err("PRICE_BELOW_MINIMUM"),
            _ => Ok(()),
        }
    }

    /// Bids that may win, best first.
    fn eligible(&self, a: &Modelled) -> Vec<(usize, i64)> {
        let mut found: Vec<(usize, i64)> = a
            .bids
            .iter()
            .filter(|(agent, price)| **price <= RESERVE && self.able(**agent))
            .map(|(a, p)| (*a, *p))
            .collect();
        found.sort_by_key(|(_, price)| *price);
        found
    }

    fn expire(&mut self, a: &mut Modelled, status: Status) {
        self.end_bonds(a);
        self.wallets[0] += BUDGET;
        a.status = status;
        a.work = Stage::Over;
        a.bids.clear();
    }

    fn award(&mut self, a: &mut Modelled, winner: (usize, i64), ranked: &[(usize, i64)]) {
        self.wallets[0] += BUDGET - winner.1;
        self.judge(a, Some(winner.0));
        a.lost = ranked.iter().filter(|bid| **bid != winner).copied().collect();
        a.status = Status::Awarded;
        a.bids.clear();
        a.work = Stage::Awarded { agent: winner.0, price: winner.1, start_by: self.now + START_WITHIN };
    }

    /// Ends all bonds but the winner's: those of bidders who backed out are lost.
    fn judge(&mut self, a: &mut Modelled, winner: Option<usize>) {
        for agent in a.bonds.clone() {
            if Some(agent) != winner {
                let backed_out = a.veiled() && !self.able(agent);
                self.end_bond(a, agent, backed_out);
            }
        }
    }

    fn choose(&mut self, a: &mut Modelled) {
        if a.manual {
            if a.veiled() {
                a.reveal_until = a.reveal_until.min(self.now);
            } else {
                a.closes_at = self.now;
            }
            a.deadline = self.now + AWARD_WITHIN;
            return;
        }
        let ranked = self.eligible(a);
        if let Some(first) = ranked.first() {
            self.award(a, *first, &ranked);
        } else {
            self.judge(a, None);
            self.expire(a, Status::Expired);
        }
    }

    fn end_bidding(&mut self, a: &mut Modelled) {
        if !a.veiled() {
            self.choose(a);
        } else if a.committed == 0 {
            self.expire(a, Status::Expired);
        } else {
            a.status = Status::Revealing;
            a.closes_at = a.closes_at.min(self.now);
            a.reveal_until = self.now + REVEAL_FOR;
            a.deadline = a.reveal_until;
        }
    }

    fn close(&mut self, a: &mut Modelled) {
        if a.status == Status::Open {
            if a.manual && !a.veiled() {
                self.expire(a, Status::Expired);
            } else {
                self.end_bidding(a);
            }
            return;
        }
        let missing = a.missing();
        for agent in &missing {
            self.end_bond(a, *agent, true);
            a.words.remove(agent);
        }
        if a.manual && missing.is_empty() { self.expire(a, Status::Expired) } else { self.choose(a) }
    }

    /// Does what is due, until nothing is.
    fn sweep(&mut self, a: &mut Modelled) {
        loop {
            let live = matches!(a.status, Status::Open | Status::Revealing);
            match a.work {
                _ if live && a.deadline <= self.now => self.close(a),
                Stage::Awarded { agent, price, start_by } if start_by <= self.now => {
                    self.end_bond(a, agent, true);
                    self.wallets[0] += price;
                    let next = a.lost.iter().position(|(agent, price)| self.able(*agent) && *price <= self.wallets[0]);
                    a.work = match next.map(|place| a.lost.remove(place)) {
                        Some((agent, price)) => {
                            self.wallets[0] -= price;
                            Stage::Awarded { agent, price, start_by: self.now + START_WITHIN }
                        }
                        None => Stage::Over,
                    };
                }
                Stage::Running { price, until } if until <= self.now => {
                    self.wallets[0] += price;
                    a.work = Stage::Over;
                }
                Stage::Open | Stage::Awarded { .. } | Stage::Running { .. } | Stage::Over => return,
            }
        }
    }

    fn step(&mut self, a: &mut Modelled, step: &Step) -> std::result::Result<(), &'static str> {
        match *step {
            Step::Open { .. } | Step::PauseOrResume { .. } | Step::Credit { .. } => {}
            Step::Bid { agent, price } => {
                a.open(self.now)?;
                if a.veiled() {
                    return Err("USE_COMMIT_BID");
                }
                self.admit_bidder(agent)?;
                Self::admit_price(price)?;
                self.may_try(a, agent)?;
                a.bids.insert(agent, price);
                self.after_offer(a);
            }
            Step::WithdrawBid { agent } => {
                a.open(self.now)?;
                a.bids.remove(&agent).ok_or("BID_NOT_ACTIVE")?;
                self.end_bond(a, agent, false);
            }
            Step::Commit { agent, price } => {
                a.open(self.now)?;
                if !a.veiled() {
                    return Err("USE_SUBMIT_BID");
                }
                self.admit_bidder(agent)?;
                self.may_try(a, agent)?;
                if a.words.insert(agent, (price, Word::Committed)).is_none_or(|old| old.1 != Word::Committed) {
                    a.committed += 1;
                }
                self.after_offer(a);
            }
            Step::WithdrawCommitment { agent } => {
                a.open(self.now)?;
                let word = a.words.get_mut(&agent).filter(|word| word.1 == Word::Committed);
                word.ok_or("COMMITMENT_NOT_LIVE")?.1 = Word::Withdrawn;
                a.committed -= 1;
                self.end_bond(a, agent, false);
            }
            Step::Reveal { agent, lie } => {
                if !a.veiled() {
                    return Err("USE_SUBMIT_BID");
                }
                match a.status {
                    Status::Open => return Err("REVEAL_NOT_OPEN"),
                    Status::Revealing if self.now < a.reveal_until => {}
                    Status::Revealing | Status::Awarded | Status::Expired | Status::Cancelled => {
                        return Err("REVEAL_CLOSED");
                    }
                }
                let (price, word) = a.words.get(&agent).copied().ok_or("NO_COMMITMENT")?;
                match word {
                    Word::Revealed => return Err("ALREADY_REVEALED"),
                    Word::Withdrawn => return Err("NO_COMMITMENT"),
                    Word::Committed if lie => return Err("COMMITMENT_MISMATCH"),
                    Word::Committed => {}
                }
                a.words.insert(agent, (price, Word::Revealed));
                if Self::admit_price(price).is_ok() {
                    a.revealed += 1;
                    a.bids.insert(agent, price);
                } else {
                    self.end_bond(a, agent, true);
                }
                if a.missing().is_empty() {
                    self.choose(a);
                }
            }
            Step::Award { chosen } => {
                if !matches!(a.status, Status::Open | Status::Revealing) {
                    return Err("AUCTION_NOT_OPEN");
                }
                if !a.manual {
                    return Err("AWARD_IS_AUTOMATIC");
                }
                if a.veiled() && (a.status == Status::Open || !a.missing().is_empty()) {
                    return Err("BIDS_NOT_REVEALED");
                }
                let ranked = self.eligible(a);
                let winner = match chosen {
                    None => *ranked.first().ok_or("NO_ELIGIBLE_BID")?,
                    Some(agent) if a.bids.contains_key(&agent) => {
                        *ranked.iter().find(|bid| bid.0 == agent).ok_or("BID_NOT_ELIGIBLE")?
                    }
                    Some(_) => return Err("BID_NOT_ACTIVE"),
                };
                self.award(a, winner, &ranked);
            }
            Step::Cancel => {
                if a.work != Stage::Open {
                    return Err("TASK_NOT_OPEN");
                }
                self.expire(a, Status::Cancelled);
            }
            Step::Start => {
                if let Stage::Awarded { agent, price, .. } = a.work {
                    self.end_bond(a, agent, false);
                    a.work = Stage::Running { price, until: self.now + RUN_FOR };
                }
            }
            Step::Turn(millis) => self.now += millis,
            Step::Pass(millis) => {
                self.now += millis;
                self.sweep(a);
            }
        }
        Ok(())
    }

    fn may_try(&mut self, a: &mut Modelled, agent: usize) -> std::result::Result<(), &'static str> {
        if a.tries.get(&agent).is_some_and(|tries| *tries >= MOST_BIDS) {
            return Err("TOO_MANY_CHANGES");
        }
        self.put_bond(a, agent)?;
        *a.tries.entry(agent).or_default() += 1;
        Ok(())
    }

    fn after_offer(&mut self, a: &mut Modelled) {
        if a.enough.is_some_and(|enough| a.standing() >= enough) {
            self.end_bidding(a);
        }
    }
}

struct Reference;

impl ReferenceStateMachine for Reference {
    type State = Model;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Model> {
        let wallets = [3_000_000, 1_000_000, 1_000_000];
        Just(Model { now: 0, wallets, paused: BTreeSet::new(), auction: None, refused: None }).boxed()
    }

    fn transitions(state: &Model) -> BoxedStrategy<Step> {
        let visibility = prop_oneof![
            1 => Just(Visibility::Sealed),
            1 => Just(Visibility::Open),
            3 => Just(Visibility::CommitReveal),
        ];
        let open =
            (visibility, any::<bool>(), select(vec![0, 400_000, 700_000]), select(vec![None, None, Some(1), Some(2)]))
                .prop_map(|(visibility, manual, bond, enough)| {
                    let bond = if visibility == Visibility::CommitReveal { bond.max(400_000) } else { bond };
                    Step::Open { visibility, manual, bond, enough }
                });
        let Some(a) = &state.auction else { return open.boxed() };
        let over = a.work == Stage::Over;
        let seller = || prop_oneof![12 => 0_usize..3, 1 => Just(3_usize)];
        // Tenths of a credit, and what makes an agent's price its own.
        let offer = || {
            (seller(), 0_i64..=9)
                .prop_map(|(agent, tenths)| (agent, tenths * 100_000 + i64::try_from(agent).unwrap() + 1))
        };
        let deadline = match a.work {
            Stage::Open => a.deadline,
            Stage::Awarded { start_by, .. } => start_by,
            Stage::Running { until, .. } => until,
            Stage::Over => state.now + 1_000,
        };
        let left = (deadline - state.now).max(1);
        let times = select(vec![1, 1_000, left - 1, left, left]).prop_map(|millis| millis.max(0));
        let pass = times.clone().prop_map(Step::Pass);
        let turn = times.prop_map(Step::Turn);
        let bid = offer().prop_map(|(agent, price)| Step::Bid { agent, price });
        let commit = offer().prop_map(|(agent, price)| Step::Commit { agent, price });
        let taking = a.open(state.now).is_ok();
        let telling = a.status == Status::Revealing && state.now < a.reveal_until && !a.missing().is_empty();
        let awarding = a.manual && a.work == Stage::Open && !taking && !telling;
        let often = |when: bool, weight: u32| if when { weight } else { 1 };
        let whose = if telling { select(a.missing()).boxed() } else { (0_usize..3).boxed() };
        let told = (prop_oneof![4 => whose, 1 => 0_usize..3], select(vec![false, false, false, true]));
        let steps = vec![
            (if over { 80 } else { 0 }, open.boxed()),
            (often(taking && !a.veiled(), 24), bid.boxed()),
            (often(taking && a.veiled(), 24), commit.boxed()),
            (often(taking, 3), (0_usize..3).prop_map(|agent| Step::WithdrawBid { agent }).boxed()),
            (often(taking, 3), (0_usize..3).prop_map(|agent| Step::WithdrawCommitment { agent }).boxed()),
            (often(telling, 30), told.prop_map(|(agent, lie)| Step::Reveal { agent, lie }).boxed()),
            (often(awarding, 20), proptest::option::of(0_usize..3).prop_map(|chosen| Step::Award { chosen }).boxed()),
            (1, Just(Step::Cancel).boxed()),
            (if matches!(a.work, Stage::Awarded { .. }) { 4 } else { 0 }, Just(Step::Start).boxed()),
            (1, (0_usize..3).prop_map(|agent| Step::PauseOrResume { agent }).boxed()),
            (1, (1_usize..3).prop_map(|seller| Step::Credit { seller }).boxed()),
            (1, turn.boxed()),
            (if taking { 3 } else { 6 }, pass.boxed()),
            // Those who take a break come back.
            (4 * u32::try_from(state.paused.len()).unwrap(), {
                let paused: Vec<usize> = state.paused.iter().copied().chain([0]).collect();
                select(paused).prop_map(|agent| Step::PauseOrResume { agent }).boxed()
            }),
        ];
        Union::new_weighted(steps.into_iter().filter(|(weight, _)| *weight > 0).collect()).boxed()
    }

    fn preconditions(state: &Model, step: &Step) -> bool {
        match (step, &state.auction) {
            (Step::Open { .. }, None) => true,
            (Step::Open { .. }, Some(a)) => a.work == Stage::Over,
            (_, None) => false,
            (Step::WithdrawBid { agent }, Some(a)) => {
                if a.veiled() {
                    a.words.get(agent).is_some_and(|word| word.1 == Word::Revealed)
                } else {
                    a.tries.contains_key(agent)
                }
            }
            (Step::WithdrawCommitment { agent }, Some(a)) => a.veiled() && a.tries.contains_key(agent),
            (Step::Start, Some(a)) => matches!(a.work, Stage::Awarded { .. }),
            (_, Some(_)) => true,
        }
    }

    fn apply(mut state: Model, step: &Step) -> Model {
        state.refused = None;
        match *step {
            Step::Open { visibility, manual, bond, enough } => {
                state.wallets[0] -= BUDGET;
                let closes_at = state.now + OPEN_FOR;
                let veiled = visibility == Visibility::CommitReveal;
                state.auction = Some(Modelled {
                    visibility,
                    manual,
                    bond,
                    enough,
                    status: Status::Open,
                    closes_at,
                    deadline: if manual && !veiled { closes_at + AWARD_WITHIN } else { closes_at },
                    reveal_until: 0,
                    bids: BTreeMap::new(),
                    tries: BTreeMap::new(),
                    words: BTreeMap::new(),
                    committed: 0,
                    revealed: 0,
                    bonds: BTreeSet::new(),
                    lost: Vec::new(),
                    work: Stage::Open,
                });
            }
            Step::PauseOrResume { agent } => {
                if !state.paused.remove(&agent) {
                    state.paused.insert(agent);
                }
            }
            Step::Credit { seller } => state.wallets[seller] += 1_000_000,
            Step::Bid { .. }
            | Step::WithdrawBid { .. }
            | Step::Commit { .. }
            | Step::WithdrawCommitment { .. }
            | Step::Reveal { .. }
            | Step::Award { .. }
            | Step::Cancel
            | Step::Start
            | Step::Turn(_)
            | Step::Pass(_) => {
                let mut a = state.auction.take().unwrap();
                state.refused = state.step(&mut a, step).err();
                state.auction = Some(a);
            }
        }
        state
    }
}

/// The market itself.
struct System {
    runtime: Runtime,
    world: World,
    people: Vec<Caller>,
    clients: Vec<crate::world::Client>,
    agents: Vec<AgentId>,
    auction: AuctionId,
    task: TaskId,
    /// The newest of each agent in this auction.
    bids: BTreeMap<usize, BidId>,
    commitments: BTreeMap<usize, (CommitmentId, Amount)>,
}

fn micros(micros: i64) -> Amount {
    Amount::from_micros(micros).unwrap()
}

fn code(outcome: Result<()>) -> Option<String> {
    match outcome {
        Ok(()) => None,
        Err(Error::Refused(refusal)) => Some(refusal.code),
        Err(other) => panic!("{other:?}"),
    }
}

impl System {
    async fn write<T>(&self, who: usize, verb: impl AsyncFnOnce(&mut Work) -> Result<T>) -> Result<T> {
        self.world.app.store().write(self.people[who].clone(), verb).await
    }

    async fn step(&mut self, step: Step) -> Result<()> {
        match step {
            Step::Open { visibility, manual, bond, enough } => {
                let new = NewTask {
                    title: "A task".into(),
                    capabilities: vec!["text.stats".into()],
                    input: json!(1),
                    output_schema: None,
                    budget: micros(BUDGET),
                    timeout: None,
                    start_timeout: None,
                    max_attempts: None,
                    acceptance: task::Acceptance::Automatic,
                    review_window: None,
                    checker: None,
                };
                let terms = Terms {
                    visibility,
                    award_mode: if manual { AwardMode::Manual } else { AwardMode::Automatic },
                    max_price: Some(micros(CEILING)),
                    reserve_price: Some(micros(RESERVE)),
                    price_weight: 10_000,
                    closes_in: Some(Duration::from_millis(OPEN_FOR.unsigned_abs())),
                    close_after_bids: enough.map(|enough| i32::try_from(enough).unwrap()),
                    bid_bond: (bond > 0).then(|| micros(bond)),
                    reveal_window: (visibility == Visibility::CommitReveal)
                        .then(|| Duration::from_millis(REVEAL_FOR.unsigned_abs())),
                    ..Terms::default()
                };
                let row = self.write(0, async |work| tasks::create_auction(work, new, terms).await).await?;
                (self.auction, self.task) = (row.id, row.task_id);
                self.bids.clear();
                self.commitments.clear();
            }
            Step::Bid { agent, price } => {
                let offer =
                    NewBid { auction: self.auction, agent: self.agents[agent], price: micros(price), promised: None };
                let bid = self.write(OWNERS[agent], async |work| tasks::submit_bid(work, offer).await).await?;
                self.bids.insert(agent, bid.id);
            }
            Step::WithdrawBid { agent } => {
                let bid = self.bids[&agent];
                self.write(OWNERS[agent], async |work| auctions::withdraw_bid(work, bid).await).await?;
            }
            Step::Commit { agent, price } => {
                let hash = self.sealed(agent, micros(price)).commitment_hex();
                let new = NewCommitment { auction: self.auction, agent: self.agents[agent], hash };
                let made = self.write(OWNERS[agent], async |work| tasks::commit_bid(work, new).await).await?;
                self.commitments.insert(agent, (made.id, micros(price)));
            }
            Step::WithdrawCommitment { agent } => {
                let id = self.commitments[&agent].0;
                let verb = async |work: &mut Work| auctions::reveal::withdraw_commitment(work, id).await;
                self.write(OWNERS[agent], verb).await?;
            }
            Step::Reveal { agent, lie } => {
                let price = self.commitments.get(&agent).map_or(micros(LEAST), |(_, price)| *price);
                let price = if lie { price.checked_add(micros(1)).unwrap() } else { price };
                let salt = hex::encode(SALT);
                let told = Reveal { auction: self.auction, agent: self.agents[agent], price, promised: None, salt };
                let bid = self.write(OWNERS[agent], async |work| tasks::reveal_bid(work, told).await).await?;
                self.bids.insert(agent, bid.id);
            }
            Step::Award { chosen } => {
                let (id, nobody) = (self.auction, BidId(Uuid::nil()));
                let chosen = chosen.map(|agent| self.bids.get(&agent).copied().unwrap_or(nobody));
                self.write(0, async |work| tasks::award(work, id, chosen).await).await?;
            }
            Step::Cancel => {
                let id = self.auction;
                self.write(0, async |work| tasks::cancel_auction(work, id).await).await?;
            }
            Step::Start => {
                let id = self.task;
                let verb = async |work: &mut Work| {
                    let task = tasks::lock(work, id).await?;
                    let agent = agent::Entity::find_by_id(task.agent_id.unwrap()).one(work.tx()).await?.unwrap();
                    tasks::start(work, task, &agent, 1).await
                };
                self.world.app.store().write(Caller::System, verb).await?;
            }
            Step::PauseOrResume { agent } => {
                let (id, who) = (self.agents[agent], OWNERS[agent]);
                let row = crate::world::agent_row(&self.world, id).await;
                if row.status == agent::Status::Active {
                    self.write(who, async |work| agents::pause(work, id).await).await?;
                } else {
                    self.write(who, async |work| agents::resume(work, id).await).await?;
                }
            }
            Step::Credit { seller } => self.world.credit(&self.clients[seller], "1").await,
            Step::Turn(millis) => self.world.turn(Duration::from_millis(millis.unsigned_abs())),
            Step::Pass(millis) => {
                self.world.turn(Duration::from_millis(millis.unsigned_abs()));
                while self.world.app.sweep_once().await? > 0 {}
            }
        }
        Ok(())
    }

    fn sealed(&self, agent: usize, price: Amount) -> Sealed {
        Sealed {
            instance: self.world.app.store().instance().unwrap().id(),
            auction: self.auction,
            agent: self.agents[agent],
            price,
            promised_ms: 0,
            salt: SALT,
        }
    }

    async fn compare(&self, model: &Model) {
        let db = self.world.app.store().read();
        let audit = self.world.app.audit().await.unwrap();
        assert!(audit.ok(), "{audit:#?}");
        for (who, expected) in model.wallets.iter().enumerate() {
            let user = self.people[who].user().unwrap();
            let balance = ledger::balance_of(db, account::Kind::User, user.0).await.unwrap();
            assert_eq!(balance, *expected, "the wallet of {who}");
        }
        let Some(expected) = &model.auction else { return };
        let row = auction::Entity::find_by_id(self.auction).one(db).await.unwrap().unwrap();
        assert_eq!(row.status, expected.status);
        let held = bond::Entity::find().filter(bond::Column::Status.eq(bond::Status::Held)).all(db).await.unwrap();
        let held: BTreeSet<usize> =
            held.iter().map(|bond| self.agents.iter().position(|agent| *agent == bond.agent_id).unwrap()).collect();
        assert_eq!(held, expected.bonds, "whose bonds are held");
        if expected.veiled() {
            let counts = (row.commitment_count, row.bid_count);
            let of = |count: usize| i32::try_from(count).unwrap();
            assert_eq!(counts, (of(expected.committed), of(expected.revealed)));
        }
        let live = entity::bid::Entity::find()
            .filter(entity::bid::Column::AuctionId.eq(self.auction))
            .filter(entity::bid::Column::Status.eq(entity::bid::Status::Active))
            .all(db)
            .await
            .unwrap();
        let live: BTreeMap<usize, i64> = live
            .iter()
            .map(|bid| (self.agents.iter().position(|agent| *agent == bid.agent_id).unwrap(), bid.price.micros()))
            .collect();
        assert_eq!(live, expected.bids, "bids that stand");
        let task = task::Entity::find_by_id(self.task).one(db).await.unwrap().unwrap();
        let agent = |id: Option<AgentId>| self.agents.iter().position(|agent| Some(*agent) == id);
        match expected.work {
            Stage::Open => assert_eq!(task.status, task::Status::Open),
            Stage::Awarded { agent: who, price, .. } => assert_eq!(
                (task.status, agent(task.agent_id), task.price),
                (task::Status::Awarded, Some(who), Some(micros(price)))
            ),
            Stage::Running { price, .. } => {
                assert_eq!((task.status, task.price), (task::Status::Running, Some(micros(price))));
            }
            Stage::Over => assert!(tasks::rules::is_over(task.status), "{:?}", task.status),
        }
    }
}

/// How often each kind of step came to each end.
static SEEN: Mutex<BTreeMap<(String, &str), usize>> = Mutex::new(BTreeMap::new());

struct Auctions;

impl StateMachineTest for Auctions {
    type SystemUnderTest = System;
    type Reference = Reference;

    fn init_test(model: &Model) -> System {
        let runtime = Runtime::new().unwrap();
        let (world, clients, people, agents) = runtime.block_on(async {
            let world = World::with(|config| {
                config.terms.max_bids_of_agent = i32::try_from(MOST_BIDS).unwrap();
                // The model knows what the limit of a run is made of.
                config.terms.max_attempts = 3;
            })
            .await;
            let (mut clients, mut people) = (Vec::new(), Vec::new());
            for (name, wallet) in ["buyer", "first", "second"].iter().zip(model.wallets) {
                let client = world.user(name).await;
                world.credit(&client, &micros(wallet).to_string()).await;
                let user = client.id().parse().unwrap();
                people.push(Caller::User(Identity {
                    user,
                    role: Role::User,
                    session: None,
                    key: None,
                    expires_at: None,
                }));
                clients.push(client);
            }
            let mut agents = Vec::new();
            for (number, owner) in OWNERS.iter().enumerate() {
                let name = format!("agent{number}");
                agents.push(world.agent(&clients[*owner], &name, "EXTERNAL", "text.stats", "0.1").await);
            }
            (world, clients, people, agents)
        });
        let (auction, task) = (AuctionId(Uuid::nil()), TaskId(Uuid::nil()));
        System {
            runtime,
            world,
            people,
            clients,
            agents,
            auction,
            task,
            bids: BTreeMap::new(),
            commitments: BTreeMap::new(),
        }
    }

    fn apply(mut system: System, model: &Model, step: Step) -> System {
        let spelt = format!("{step:?}");
        let kind = spelt.split([' ', '(']).next().unwrap().to_owned();
        *SEEN.lock().unwrap().entry((kind, model.refused.unwrap_or("done"))).or_default() += 1;
        let runtime = system.runtime.handle().clone();
        let outcome = runtime.block_on(system.step(step.clone()));
        assert_eq!(code(outcome).as_deref(), model.refused, "{step:?}");
        system
    }

    fn check_invariants(system: &System, model: &Model) {
        system.runtime.block_on(system.compare(model));
    }

    fn teardown(system: System, _: Model) {
        let System { runtime, world, .. } = system;
        runtime.block_on(async {
            // Nobody does anything any more: the sweeper alone ends it all.
            for _ in 0..12 {
                world.pass(Duration::from_hours(25)).await;
            }
            assert_eq!(world.rows("bonds WHERE status = 'HELD'").await, 0);
            assert_eq!(world.rows("holds WHERE status = 'HELD'").await, 0);
            world.check().await;
        });
    }
}

/// How many histories of 200 steps there are; fewer where each step is slower and the rules are the same.
fn cases() -> u32 {
    if on_postgres() { 3 } else { 13 }
}

prop_state_machine! {
    #![proptest_config(Config { cases: cases(), failure_persistence: None, max_shrink_iters: 300, ..Config::default() })]

    fn whatever_happens_in_an_auction_it_is_what_the_model_says(sequential 200..201 => Auctions);
}

#[test]
fn an_auction_is_what_its_model_says() {
    whatever_happens_in_an_auction_it_is_what_the_model_says();
    let seen = SEEN.lock().unwrap();
    let share = usize::try_from(cases()).unwrap();
    assert_eq!(seen.values().sum::<usize>(), 200 * share, "{seen:#?}");
    // Random steps that never get anywhere would prove nothing.
    for (kind, outcome, least) in [
        ("Commit", "done", 100),
        ("Reveal", "done", 30),
        ("Bid", "done", 50),
        ("Award", "done", 6),
        ("Start", "done", 6),
        ("WithdrawCommitment", "done", 4),
        ("Reveal", "COMMITMENT_MISMATCH", 4),
        ("Commit", "INSUFFICIENT_FUNDS", 10),
    ] {
        let count = seen.get(&(kind.to_owned(), outcome)).copied().unwrap_or(0);
        assert!(count >= least * share / 13, "{kind} {outcome}: {seen:#?}");
    }
}
