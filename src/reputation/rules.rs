//! The formula `rep-v1`, in integers.
//!
//! A share (how well something went) and a weight (how much it counts) are fixed-point numbers in which [`UNIT`] = 10⁹ stands
//! for one. A sum of a billion pieces of evidence of full weight still fits the columns, which are `i64`.
//!
//! ```text
//! evidence at t:  S_f, N_f, P are multiplied by 2^(−Δt/H), H = 90 days;  then S_f += w·x_f, N_f += w, P += w·x_success
//! mean_f  = (k·0.5 + S_f) / (k + N_f), k = 4          experience = P / (P + 10)
//! score   = 40·success + 20·rating + 15·timeliness + 10·cost + 15·experience, on a scale of 0 to 100
//! w       = a / (a + A0) · 1/j, and 0 between agents and tasks of one owner
//! ```
//!
//! The means are those of the beta reputation system (Jøsang and Ismail, 2002) with the strength of the prior as a parameter
//! and with forgetting toward the prior, so that a name that rests is never worth less than a new one of the same record.
//! Experience counts successes only; if it counted all tasks, an agent could gain by failing.
//!
//! What always holds: `0 ≤ S_f ≤ N_f`; time never makes a sum larger; a perfect success never lowers the score, a failure
//! never raises it and a better share never lowers it; the points of the factors are whole milli-points whose sum is the
//! score; the same evidence at the same instants gives the same bits.

use std::time::Duration;

use entity::{
    id::AgentId, money::Amount, reputation, reputation_event, reputation_event::Cause, task, time::Timestamp,
};

use crate::error::refusals;

/// The name of the formula.
pub const VERSION: &str = "rep-v1";
/// The fixed-point number that stands for one.
pub const UNIT: i64 = 1_000_000_000;
/// The score of an agent without evidence, in milli-points: four factors at half of their weight and no experience.
pub const NEWCOMER: i32 = 42_500;
/// The highest score, in milli-points.
pub const MAX_SCORE: i32 = 100_000;
/// The time in which evidence loses half of its weight, in microseconds: 90 days.
pub const HALF_LIFE_MICROS: u64 = 90 * 24 * 3600 * 1_000_000;
/// How far back the settled tasks of a client and an owner damp the weight of the next one.
pub const PAIR_WINDOW: Duration = Duration::from_hours(90 * 24);
/// Settled tasks of one pair in the window from which on another one weighs nothing. It bounds the work of counting; the
/// weight that is cut off is at most a ten-thousandth of a task.
pub const PAIR_CAP: i64 = 10_000;
/// How many recent settled tasks make the usual price of the market.
pub const PRICE_SAMPLE: u64 = 101;
/// Characters of a rating's comment at most.
pub const MAX_COMMENT: usize = 2_000;

/// The prior's strength k in tasks of full weight, and what it assumes of them.
const PRIOR_WEIGHT: i128 = 4;
const PRIOR_SUM: i128 = 2;
/// Successes of full weight that make half of the experience factor.
const HALF_EXPERIENCE: i128 = 10;

refusals! {
    /// Why a rating is not taken, in the order in which it is checked.
    RatingRefused {
        /// The caller did the task and did not pay for it.
        RatingNotPayer = "Only who paid for a task may rate it.",
        /// The task is not settled in the agent's favour.
        TaskNotSettled = "Only a completed task can be rated.",
        /// There is a rating already.
        AlreadyRated = "This task has been rated; a rating is final.",
        /// Too late.
        RatingWindowClosed = "The time for rating this task is over.",
    }
}

/// Fraction bits of [`FACTORS`].
const FACTOR_BITS: u32 = 62;
/// How many binary digits of a half-life the table covers: one digit of it is shorter than a microsecond.
const FACTOR_COUNT: u32 = 43;

/// ⌊2⁶² · 2^(−2^−i)⌋ for i = 1, 2, …, 43: what half a half-life, a quarter of one, and so on, leave.
const FACTORS: [u64; 43] = [
    0x2d41_3ccc_fe77_9921,
    0x35d1_3f32_b5a7_5abd,
    0x3ab0_31b9_f749_0e4b,
    0x3d49_5f45_4921_b30b,
    0x3ea0_ecb6_dc8a_80ce,
    0x3f4f_8303_3d21_b05d,
    0x3fa7_8457_1ee3_e212,
    0x3fd3_b2d6_5447_b229,
    0x3fe9_d594_8723_6bb4,
    0x3ff4_e9d4_703d_f842,
    0x3ffa_74ac_bdf6_c9d5,
    0x3ffd_3a46_ffc6_e30f,
    0x3ffe_9d1f_a801_0199,
    0x3fff_4e8e_de05_3ad4,
    0x3fff_a747_3183_76ac,
    0x3fff_d3a3_8961_e6fe,
    0x3fff_e9d1_c0d8_fd14,
    0x3fff_f4e8_df76_80c4,
    0x3fff_fa74_6f7d_c0eb,
    0x3fff_fd3a_37af_8097,
    0x3fff_fe9d_1bd3_e854,
    0x3fff_ff4e_8de8_fe2c,
    0x3fff_ffa7_46f4_4196,
    0x3fff_ffd3_a37a_116b,
    0x3fff_ffe9_d1bd_04dd,
    0x3fff_fff4_e8de_8178,
    0x3fff_fffa_746f_407e,
    0x3fff_fffd_3a37_a030,
    0x3fff_fffe_9d1b_d014,
    0x3fff_ffff_4e8d_e809,
    0x3fff_ffff_a746_f404,
    0x3fff_ffff_d3a3_7a02,
    0x3fff_ffff_e9d1_bd01,
    0x3fff_ffff_f4e8_de80,
    0x3fff_ffff_fa74_6f40,
    0x3fff_ffff_fd3a_37a0,
    0x3fff_ffff_fe9d_1bd0,
    0x3fff_ffff_ff4e_8de8,
    0x3fff_ffff_ffa7_46f4,
    0x3fff_ffff_ffd3_a37a,
    0x3fff_ffff_ffe9_d1bd,
    0x3fff_ffff_fff4_e8de,
    0x3fff_ffff_fffa_746f,
];

/// What a stretch of time leaves of a sum: a factor of [`FACTOR_BITS`] fraction bits, and whole half-lives as a shift.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Decay {
    factor: u128,
    halvings: u32,
}

impl Decay {
    /// `elapsed` is cut into whole half-lives, which halve, and the rest as a binary fraction of 43 digits of a half-life,
    /// rounded down, whose set digits pick the factors of the table. A digit is worth more than the rounding of all that
    /// follow it, so a longer time never leaves more.
    fn over(elapsed: Duration) -> Self {
        let micros = elapsed.as_micros();
        let half_life = u128::from(HALF_LIFE_MICROS);
        let halvings = u32::try_from(micros / half_life).unwrap_or(u32::MAX);
        let fraction = ((micros % half_life) << FACTOR_COUNT) / half_life;
        let factor = (0..FACTOR_COUNT)
            .rev()
            .zip(FACTORS)
            .filter(|(digit, _)| (fraction >> digit) & 1 == 1)
            .fold(1 << FACTOR_BITS, |product: u128, (_, factor)| (product * u128::from(factor)) >> FACTOR_BITS);
        Self { factor, halvings }
    }

    /// The rest of a sum, rounded down.
    fn of(self, sum: i64) -> i64 {
        let product = u128::from(sum.unsigned_abs()) * self.factor;
        let rest = FACTOR_BITS.checked_add(self.halvings).and_then(|shift| product.checked_shr(shift)).unwrap_or(0);
        i64::try_from(rest).unwrap_or(sum).min(sum)
    }
}

/// The evidence for one mean: how well, weighted, and how much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mean {
    /// Σ w·x, decayed.
    pub sum: i64,
    /// Σ w, decayed; never less than `sum`.
    pub weight: i64,
}

impl Mean {
    fn decayed(self, decay: Decay) -> Self {
        Self { sum: decay.of(self.sum), weight: decay.of(self.weight) }
    }

    fn with(self, weight: i64, share: Option<i64>) -> Self {
        match share {
            None => self,
            Some(share) => Self {
                sum: self.sum.saturating_add(part(weight, share)).min(self.weight.saturating_add(weight)),
                weight: self.weight.saturating_add(weight),
            },
        }
    }

    /// The mean with its prior as numerator and denominator.
    fn ratio(self) -> Ratio {
        let unit = i128::from(UNIT);
        Ratio {
            numerator: PRIOR_SUM * unit + i128::from(self.sum),
            denominator: PRIOR_WEIGHT * unit + i128::from(self.weight),
        }
    }
}

/// A fraction between 0 and 1 whose denominator is positive.
#[derive(Clone, Copy, Debug)]
struct Ratio {
    numerator: i128,
    denominator: i128,
}

impl Ratio {
    /// `whole` times the fraction, rounded down.
    fn of(self, whole: i128) -> i128 {
        whole * self.numerator / self.denominator
    }
}

/// `weight` times `share`, rounded down; exact where the share is nothing or all.
fn part(weight: i64, share: i64) -> i64 {
    let product = i128::from(weight) * i128::from(share.clamp(0, UNIT)) / i128::from(UNIT);
    i64::try_from(product).unwrap_or(weight)
}

/// `numerator / denominator` of [`UNIT`], rounded down and kept within 0 and [`UNIT`]. Nothing of nothing is nothing.
fn share(numerator: i128, denominator: i128) -> i64 {
    if denominator <= 0 {
        return 0;
    }
    let scaled = numerator.max(0).saturating_mul(i128::from(UNIT)) / denominator;
    i64::try_from(scaled).unwrap_or(UNIT).min(UNIT)
}

/// What one piece of evidence says about each factor: a share of [`UNIT`], or nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    pub success: Option<i64>,
    pub rating: Option<i64>,
    pub timeliness: Option<i64>,
    pub cost: Option<i64>,
}

impl Marks {
    /// The marks of a task that was settled in the agent's favour. Without a promise nothing is said about timeliness.
    #[must_use]
    pub fn success(worked: Option<Duration>, promised: Option<Duration>) -> Self {
        let timeliness = worked.zip(promised).and_then(|(worked, promised)| timeliness(worked, promised));
        Self { success: Some(UNIT), timeliness, ..Self::default() }
    }

    /// The marks of a task that was refunded through the agent's fault, or that it never started.
    #[must_use]
    pub fn failure() -> Self {
        Self { success: Some(0), ..Self::default() }
    }

    /// The marks of a dispute that gave the agent `paid` of `price`: that share of a success, and never nothing where anything was
    /// paid. Work that was worth nothing says nothing about timeliness.
    #[must_use]
    pub fn ruling(paid: Amount, price: Amount, worked: Option<Duration>, promised: Option<Duration>) -> Self {
        if paid.is_zero() {
            return Self::failure();
        }
        let worth = share(i128::from(paid.micros()), i128::from(price.micros())).max(1);
        Self { success: Some(worth), ..Self::success(worked, promised) }
    }

    /// The marks of a payer's stars.
    #[must_use]
    pub fn rating(stars: i32) -> Self {
        Self { rating: Some(rating(stars)), ..Self::default() }
    }

    /// The marks that an event carries.
    #[must_use]
    pub fn of(event: &reputation_event::Model) -> Self {
        Self { success: event.success, rating: event.rating, timeliness: event.timeliness, cost: event.cost }
    }
}

/// `clamp(1 − max(0, worked − promised) / promised)`: one when the promise was kept, nothing at twice the time. A promise of
/// no time at all says nothing.
#[must_use]
pub fn timeliness(worked: Duration, promised: Duration) -> Option<i64> {
    let worked = i128::try_from(worked.as_micros()).unwrap_or(i128::MAX);
    let promised = i128::try_from(promised.as_micros()).unwrap_or(i128::MAX);
    (promised > 0).then(|| share(promised.saturating_sub(worked.saturating_sub(promised).max(0)), promised))
}

/// `clamp(1 − max(0, charged − bid) / bid)`, for metered tasks only. A bid of nothing says nothing.
#[must_use]
pub fn cost(charged: Amount, bid: Amount) -> Option<i64> {
    let (charged, bid) = (i128::from(charged.micros()), i128::from(bid.micros()));
    (bid > 0).then(|| share(bid - (charged - bid).max(0), bid))
}

/// `(stars − 1) / 4`.
#[must_use]
pub fn rating(stars: i32) -> i64 {
    share(i128::from(stars) - 1, 4)
}

/// The weight of a task: `a / (a + A0) · 1/j`, rounded down.
///
/// `usual` is A0, the median price of the market's recent tasks, or `None` when there was none yet; then the task's own price
/// stands for it. `settled_before` counts the settled tasks of this client and this owner in the [`PAIR_WINDOW`], so that
/// j = `settled_before` + 1; from [`PAIR_CAP`] on the weight is nothing. Work for oneself weighs nothing.
#[must_use]
pub fn weight(amount: Amount, usual: Option<Amount>, settled_before: i64, same_owner: bool) -> i64 {
    if same_owner || settled_before >= PAIR_CAP {
        return 0;
    }
    let amount = i128::from(amount.micros());
    let usual = usual.map_or(amount, |usual| i128::from(usual.micros()));
    share(amount, (amount + usual).saturating_mul(i128::from(settled_before.max(0)) + 1))
}

/// The median of prices, the lower of the two in the middle where there are two; `None` of nothing.
#[must_use]
pub fn median(mut prices: Vec<Amount>) -> Option<Amount> {
    prices.sort_unstable();
    let middle = prices.len().checked_sub(1)? / 2;
    prices.get(middle).copied()
}

/// The decayed sums of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    pub success: Mean,
    pub rating: Mean,
    pub timeliness: Mean,
    pub cost: Mean,
    /// P: decayed successes.
    pub experience: i64,
    /// The instant to which the sums are decayed.
    pub as_of: Timestamp,
}

impl State {
    /// An agent of which nothing is known.
    #[must_use]
    pub fn newcomer(as_of: Timestamp) -> Self {
        let none = Mean::default();
        Self { success: none, rating: none, timeliness: none, cost: none, experience: 0, as_of }
    }

    /// The same evidence at a later instant. An earlier one changes nothing: clocks of several instances may differ a little.
    #[must_use]
    pub fn at(self, now: Timestamp) -> Self {
        let decay = Decay::over(now.since(self.as_of));
        Self {
            success: self.success.decayed(decay),
            rating: self.rating.decayed(decay),
            timeliness: self.timeliness.decayed(decay),
            cost: self.cost.decayed(decay),
            experience: decay.of(self.experience),
            as_of: self.as_of.max(now),
        }
    }

    /// One more piece of evidence, at this instant.
    #[must_use]
    pub fn with(self, weight: i64, marks: Marks) -> Self {
        Self {
            success: self.success.with(weight, marks.success),
            rating: self.rating.with(weight, marks.rating),
            timeliness: self.timeliness.with(weight, marks.timeliness),
            cost: self.cost.with(weight, marks.cost),
            experience: self.experience.saturating_add(marks.success.map_or(0, |share| part(weight, share))),
            as_of: self.as_of,
        }
    }

    /// The score in milli-points, 0 to 100,000.
    #[must_use]
    pub fn score(&self) -> i32 {
        Points::of(self).score
    }

    fn ratio(&self, name: FactorName) -> Ratio {
        match name {
            FactorName::Success => self.success.ratio(),
            FactorName::Rating => self.rating.ratio(),
            FactorName::Timeliness => self.timeliness.ratio(),
            FactorName::Cost => self.cost.ratio(),
            FactorName::Experience => {
                let experience = i128::from(self.experience);
                Ratio { numerator: experience, denominator: experience + HALF_EXPERIENCE * i128::from(UNIT) }
            }
        }
    }

    fn samples(&self, name: FactorName) -> i64 {
        match name {
            FactorName::Success => self.success.weight,
            FactorName::Rating => self.rating.weight,
            FactorName::Timeliness => self.timeliness.weight,
            FactorName::Cost => self.cost.weight,
            FactorName::Experience => self.experience,
        }
    }
}

impl From<&reputation::Model> for State {
    fn from(row: &reputation::Model) -> Self {
        Self {
            success: Mean { sum: row.success_sum, weight: row.success_weight },
            rating: Mean { sum: row.rating_sum, weight: row.rating_weight },
            timeliness: Mean { sum: row.timeliness_sum, weight: row.timeliness_weight },
            cost: Mean { sum: row.cost_sum, weight: row.cost_weight },
            experience: row.experience,
            as_of: row.as_of,
        }
    }
}

/// The five parts of the score.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::EnumIter, strum::IntoStaticStr, strum::Display)]
#[strum(serialize_all = "SCREAMING_SNAKE_CASE")]
pub enum FactorName {
    /// Tasks settled in the agent's favour.
    Success,
    /// The payers' stars.
    Rating,
    /// Promises of time kept.
    Timeliness,
    /// Bids kept by metered tasks.
    Cost,
    /// How many successes there are.
    Experience,
}

impl FactorName {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 5] = [Self::Success, Self::Rating, Self::Timeliness, Self::Cost, Self::Experience];

    /// The most points that the factor gives; they make 100.
    #[must_use]
    pub const fn weight(self) -> i32 {
        match self {
            Self::Success => 40,
            Self::Rating => 20,
            Self::Timeliness | Self::Experience => 15,
            Self::Cost => 10,
        }
    }

    /// What is assumed without evidence, in basis points.
    #[must_use]
    pub const fn prior(self) -> i32 {
        match self {
            Self::Success | Self::Rating | Self::Timeliness | Self::Cost => 5_000,
            Self::Experience => 0,
        }
    }
}

/// The score and its split.
struct Points {
    score: i32,
    factors: [i32; 5],
}

impl Points {
    /// Every factor's points are computed to 10⁻⁹ of a milli-point and rounded down; the score is the whole milli-points of
    /// their sum. The milli-points that the rounding of the single factors loses go, one each, to the factors with the
    /// largest remainders, the earlier one of equals. A factor without a remainder never gets one, so none passes its weight.
    fn of(state: &State) -> Self {
        let unit = i128::from(UNIT);
        let exact = FactorName::ALL.map(|name| state.ratio(name).of(i128::from(name.weight()) * 1000 * unit));
        let total: i128 = exact.iter().sum();
        let whole: i128 = exact.iter().map(|points| points / unit).sum();
        let missing = usize::try_from(total / unit - whole).unwrap_or(0);
        let mut order: Vec<(usize, i128)> = exact.iter().map(|points| points % unit).enumerate().collect();
        order.sort_by_key(|(_, remainder)| std::cmp::Reverse(*remainder));
        let mut factors = exact.map(|points| i32::try_from(points / unit).unwrap_or(0));
        for (place, _) in order.into_iter().take(missing) {
            if let Some(points) = factors.get_mut(place) {
                *points += 1;
            }
        }
        Self { score: factors.iter().sum(), factors }
    }
}

/// One line of a [`Breakdown`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Factor {
    pub name: FactorName,
    /// The factor itself, prior included, in basis points, rounded down.
    pub value: i32,
    /// The most points that it gives.
    pub weight: i32,
    /// What it gives, in milli-points. The points of all factors make the score exactly.
    pub points: i32,
    /// How much evidence stands behind it, in thousandths of a task of full weight of today.
    pub effective_samples: i64,
    /// What is assumed without evidence, in basis points.
    pub prior: i32,
}

/// A score, explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breakdown {
    pub agent_id: AgentId,
    /// The name of the formula.
    pub version: &'static str,
    /// The instant for which it was computed.
    pub as_of: Timestamp,
    /// The score in milli-points, 0 to 100,000.
    pub score_milli: i32,
    pub factors: [Factor; 5],
    /// The lower end of the 95 % Wilson interval of the success rate in basis points; `None` without a task.
    pub wilson_lower: Option<i32>,
    /// Tasks that the agent won, as far as they are settled: `successes` and `failures` together.
    pub tasks: i64,
    pub successes: i64,
    /// Refunds through the agent's fault, and wins that it did not start.
    pub failures: i64,
    /// Credits earned over its life.
    pub earned: Amount,
    /// The mean wall time of successful work in milliseconds, rounded down; `None` without a success.
    pub mean_work_ms: Option<i64>,
    /// Pieces of evidence, ratings included.
    pub evidence: i64,
}

/// Explains the score of a row at `now`, which is the newcomer's row where nothing is known.
#[must_use]
pub fn explain(row: &reputation::Model, now: Timestamp) -> Breakdown {
    let state = State::from(row).at(now);
    let points = Points::of(&state);
    let mut given = points.factors.into_iter();
    let factors = FactorName::ALL.map(|name| Factor {
        name,
        value: i32::try_from(state.ratio(name).of(10_000)).unwrap_or(0),
        weight: name.weight(),
        points: given.next().unwrap_or(0),
        effective_samples: state.samples(name) / (UNIT / 1000),
        prior: name.prior(),
    });
    Breakdown {
        agent_id: row.agent_id,
        version: VERSION,
        as_of: now,
        score_milli: points.score,
        factors,
        wilson_lower: wilson_lower(row.successes, row.tasks),
        tasks: row.tasks,
        successes: row.successes,
        failures: row.failures,
        earned: Amount::from_micros(row.earned).unwrap_or(Amount::ZERO),
        mean_work_ms: row.busy_ms.checked_div(row.successes),
        evidence: row.version,
    }
}

/// The lower end of the Wilson score interval with z = 1.96, in basis points, rounded down (Wilson, 1927):
/// `(2s + z² − z·√(z² + 4s(n − s)/n)) / 2(n + z²)` for s successes in n tasks. `None` without a task.
#[must_use]
pub fn wilson_lower(successes: i64, tasks: i64) -> Option<i32> {
    // Everything is a multiple of 10⁻⁴, the root of 10⁻⁸: z² = 3.8416 is exact. Far above any real number of tasks the
    // products saturate, which only loses digits.
    const Z: u128 = 196;
    const Z_SQUARED: u128 = Z * Z;
    const FINE: u128 = 1_000_000;
    let n = u128::try_from(tasks).ok().filter(|tasks| *tasks > 0)?;
    let s = u128::try_from(successes).unwrap_or(0).min(n);
    let variance = (Z_SQUARED * n).saturating_add((40_000 * s).saturating_mul(n - s));
    let radicand = variance.saturating_mul(FINE * FINE).div_ceil(n);
    let floor = radicand.isqrt();
    let root = if floor * floor == radicand { floor } else { floor + 1 };
    let numerator = ((20_000 * s + Z_SQUARED) * FINE).saturating_sub(Z * root);
    let denominator = 2 * (10_000 * n + Z_SQUARED) * FINE;
    i32::try_from(numerator.saturating_mul(10_000) / denominator).ok()
}

/// The row of an agent of which nothing is known.
#[must_use]
pub fn newcomer(agent_id: AgentId, as_of: Timestamp) -> reputation::Model {
    reputation::Model {
        agent_id,
        success_sum: 0,
        success_weight: 0,
        rating_sum: 0,
        rating_weight: 0,
        timeliness_sum: 0,
        timeliness_weight: 0,
        cost_sum: 0,
        cost_weight: 0,
        experience: 0,
        as_of,
        version: 0,
        tasks: 0,
        successes: 0,
        failures: 0,
        earned: 0,
        busy_ms: 0,
    }
}

/// The row after an event. What the settlement alone knows, `earned` and `busy_ms`, stays as it is.
#[must_use]
pub fn follow(row: &reputation::Model, event: &reputation_event::Model) -> reputation::Model {
    let state = State::from(row).at(event.created_at).with(event.weight, Marks::of(event));
    let (won, lost) = match event.cause {
        Cause::Success => (1, 0),
        // A ruling that gives the agent anything completes the task.
        Cause::Ruling if event.success.is_some_and(|share| share > 0) => (1, 0),
        Cause::Failure | Cause::Timeout | Cause::Ruling => (0, 1),
        Cause::Rating => (0, 0),
    };
    reputation::Model {
        agent_id: row.agent_id,
        success_sum: state.success.sum,
        success_weight: state.success.weight,
        rating_sum: state.rating.sum,
        rating_weight: state.rating.weight,
        timeliness_sum: state.timeliness.sum,
        timeliness_weight: state.timeliness.weight,
        cost_sum: state.cost.sum,
        cost_weight: state.cost.weight,
        experience: state.experience,
        as_of: state.as_of,
        version: row.version.saturating_add(1),
        tasks: row.tasks.saturating_add(won + lost),
        successes: row.successes.saturating_add(won),
        failures: row.failures.saturating_add(lost),
        earned: row.earned,
        busy_ms: row.busy_ms,
    }
}

/// Whether a task may be rated now by a payer of it. `rated` says that it has been.
pub fn may_rate(
    task: &task::Model,
    rated: bool,
    window: Duration,
    now: Timestamp,
) -> std::result::Result<(), RatingRefused> {
    match task.status {
        task::Status::Completed => {}
        task::Status::Open
        | task::Status::Awarded
        | task::Status::Running
        | task::Status::Submitted
        | task::Status::Disputed
        | task::Status::Refunded
        | task::Status::Expired
        | task::Status::Cancelled => return Err(RatingRefused::TaskNotSettled),
    }
    if rated {
        return Err(RatingRefused::AlreadyRated);
    }
    let settled = task.finished_at.ok_or(RatingRefused::TaskNotSettled)?;
    if now > settled.after(window) {
        return Err(RatingRefused::RatingWindowClosed);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: Duration = Duration::from_hours(24);
    const START: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);

    fn days(count: u32) -> Duration {
        DAY * count
    }

    fn all(share: i64) -> Marks {
        Marks { success: Some(share), rating: Some(share), timeliness: Some(share), cost: Some(share) }
    }

    /// `count` tasks of full weight with every factor, one a day; `mark` says how the n-th goes.
    fn daily(count: u32, mark: impl Fn(u32) -> Marks) -> State {
        (0..count).fold(State::newcomer(START), |state, task| state.at(START.after(days(task))).with(UNIT, mark(task)))
    }

    fn near(state: &State, tenths: i32) {
        let score = state.score();
        assert!((score - tenths * 100).abs() <= 50, "{score} milli-points are not {tenths} tenths");
    }

    #[test]
    fn a_newcomer_has_42_and_a_half_points() {
        let points = Points::of(&State::newcomer(START));
        assert_eq!(points.score, NEWCOMER);
        assert_eq!(points.factors, [20_000, 10_000, 7_500, 5_000, 0]);
        assert_eq!(FactorName::ALL.iter().map(|name| name.weight()).sum::<i32>(), 100);
    }

    #[test]
    fn perfect_tasks_of_full_weight_one_a_day_score_as_published() {
        for (tasks, tenths) in [(0, 425), (1, 524), (5, 709), (10, 799), (25, 891), (100, 958)] {
            near(&daily(tasks, |_| all(UNIT)), tenths);
        }
    }

    #[test]
    fn a_perfect_record_that_rests_falls_as_published_and_never_below_a_newcomer() {
        let record = daily(100, |_| all(UNIT));
        for (idle, tenths) in [(90, 923), (180, 866), (365, 687), (730, 454)] {
            near(&record.at(record.as_of.after(days(idle))), tenths);
        }
        assert_eq!(record.at(record.as_of.after(days(365 * 20))).score(), NEWCOMER);
    }

    #[test]
    fn a_ruling_counts_by_its_share_of_the_price() {
        let price = Amount::from_credits(2).unwrap();
        let share = |micros| Marks::ruling(Amount::from_micros(micros).unwrap(), price, None, None).success;
        assert_eq!([0, 500_000, 1_000_000, 2_000_000].map(share), [0, UNIT / 4, UNIT / 2, UNIT].map(Some));
        // The least that can be paid of the most is still not nothing: the task counts as done.
        let least = Marks::ruling(Amount::from_micros(1).unwrap(), entity::money::MAX_AMOUNT, None, None);
        assert_eq!(least.success, Some(1));
        assert_eq!(Marks::ruling(price, price, Some(DAY), Some(DAY)), Marks::success(Some(DAY), Some(DAY)));
        assert_eq!(Marks::ruling(Amount::ZERO, price, Some(DAY), Some(DAY)), Marks::failure());
        let scores = [0, 1, 500_000, 1_500_000, 2_000_000].map(|micros| {
            let paid = Amount::from_micros(micros).unwrap();
            State::newcomer(START).with(UNIT, Marks::ruling(paid, price, None, None)).score()
        });
        assert!(scores.is_sorted() && scores[0] < NEWCOMER && scores[4] > NEWCOMER, "{scores:?}");
    }

    #[test]
    fn one_colluding_client_gains_little_however_often_it_pays() {
        let price = Amount::from_credits(1).unwrap();
        for (tasks, tenths) in [(100, 716), (10_000, 801)] {
            let state = (0..tasks).fold(State::newcomer(START), |state, before| {
                // Twice the share of the usual price: the published figures damp tasks of full weight.
                state.with(2 * weight(price, Some(price), before, false), all(UNIT))
            });
            near(&state, tenths);
        }
        near(&(0..100).fold(State::newcomer(START), |state, _| state.with(UNIT, all(UNIT))), 970);
        assert_eq!(weight(price, Some(price), PAIR_CAP, false), 0);
    }

    /// The shares of the published figures for imperfect agents are not known; these are for failures that are spread evenly,
    /// and successes that are perfect in every factor or, in the second column, as good as the agent's success rate.
    #[test]
    fn agents_rank_by_how_often_they_succeed() {
        let mut last = (i32::MAX, i32::MAX);
        for (percent, perfect, alike) in
            [(95, 936, 915), (90, 916, 874), (80, 874, 791), (50, 743, 541), (30, 638, 374)]
        {
            let record = |share| {
                daily(100, |task| {
                    let fails = (task + 1) * (100 - percent) / 100 > task * (100 - percent) / 100;
                    if fails { Marks::failure() } else { Marks { success: Some(UNIT), ..all(share) } }
                })
            };
            let (first, second) = (record(UNIT), record(UNIT / 100 * i64::from(percent)));
            near(&first, perfect);
            near(&second, alike);
            assert!(first.score() < last.0 && second.score() < last.1);
            last = (first.score(), second.score());
        }
        assert!(last.1 < NEWCOMER, "an agent that fails most of the time stands below a new name");
    }

    #[test]
    fn the_table_holds_the_roots_of_one_half() {
        // Each factor is the root of the one before it. Squared, it is at most that one, and one unit more is above it.
        let one = 1_u128 << FACTOR_BITS;
        let mut before = one / 2;
        for factor in FACTORS.map(u128::from) {
            assert!(factor * factor <= (before + 1) * one && (factor + 1) * (factor + 1) > before * one);
            before = factor;
        }
        assert_eq!(FACTORS.len(), usize::try_from(FACTOR_COUNT).unwrap());
        assert!(u128::from(HALF_LIFE_MICROS) < 1 << FACTOR_COUNT);
    }

    #[test]
    fn a_half_life_halves_and_ages_forget() {
        let left = |elapsed| Decay::over(elapsed).of(UNIT);
        assert_eq!(left(Duration::ZERO), UNIT);
        assert_eq!(left(days(90)), UNIT / 2);
        assert_eq!(left(days(45)), 707_106_781);
        assert_eq!(left(days(1)), 992_327_946);
        assert_eq!(left(days(900)), UNIT / 1024);
        assert_eq!(left(days(90 * 64)), 0);
        assert_eq!(left(Duration::MAX), 0);
        assert_eq!(Decay::over(Duration::ZERO).of(i64::MAX), i64::MAX);
    }

    #[test]
    fn shares_are_clamped_and_say_nothing_where_nothing_was_promised() {
        let seconds = Duration::from_secs;
        for (worked, promised, expected) in [
            (5, 10, Some(UNIT)),
            (10, 10, Some(UNIT)),
            (15, 10, Some(UNIT / 2)),
            (20, 10, Some(0)),
            (90, 10, Some(0)),
            (0, 10, Some(UNIT)),
            (1, 0, None),
        ] {
            assert_eq!(timeliness(seconds(worked), seconds(promised)), expected, "{worked} of {promised}");
        }
        assert_eq!(timeliness(Duration::MAX, Duration::from_micros(1)), Some(0));
        assert_eq!([1, 2, 3, 4, 5].map(rating), [0, 250_000_000, 500_000_000, 750_000_000, UNIT]);
        let credits = |credits| Amount::from_credits(credits).unwrap();
        assert_eq!(cost(credits(9), credits(10)), Some(UNIT));
        assert_eq!(cost(credits(15), credits(10)), Some(UNIT / 2));
        assert_eq!(cost(credits(30), credits(10)), Some(0));
        assert_eq!(cost(credits(1), Amount::ZERO), None);
        assert_eq!(Marks::failure().timeliness, None);
        assert_eq!(Marks::success(Some(seconds(1)), None).timeliness, None);
    }

    #[test]
    fn the_weight_grows_with_the_price_and_shrinks_with_the_pair() {
        let credits = |credits| Amount::from_credits(credits).unwrap();
        assert_eq!(weight(credits(3), Some(credits(1)), 0, false), UNIT / 4 * 3);
        assert_eq!(weight(credits(3), None, 0, false), UNIT / 2);
        assert_eq!(weight(credits(3), Some(credits(1)), 2, false), UNIT / 4);
        assert_eq!(weight(credits(3), Some(credits(1)), 0, true), 0);
        assert_eq!(weight(Amount::ZERO, None, 0, false), 0);
        assert_eq!(weight(Amount::ZERO, Some(Amount::ZERO), 0, false), 0);
        assert_eq!(median(vec![]), None);
        assert_eq!(median([9, 1, 5].map(credits).to_vec()), Some(credits(5)));
        assert_eq!(median([9, 1, 5, 7].map(credits).to_vec()), Some(credits(5)));
    }

    #[test]
    fn the_wilson_bound_is_the_tabulated_one() {
        for (successes, tasks, expected) in [
            (0, 0, None),
            (0, 1, Some(0)),
            (0, 1_000, Some(0)),
            (1, 1, Some(2_065)),
            (5, 10, Some(2_365)),
            (8, 8, Some(6_755)),
            (10, 10, Some(7_224)),
            (90, 100, Some(8_256)),
            (95, 100, Some(8_882)),
            (1_000_000, 1_000_000, Some(9_999)),
        ] {
            assert_eq!(wilson_lower(successes, tasks), expected, "{successes} of {tasks}");
        }
    }

    fn any_share() -> impl Strategy<Value = i64> {
        prop_oneof![Just(0), Just(UNIT), 0..=UNIT]
    }

    fn any_marks() -> impl Strategy<Value = Marks> {
        let maybe = || proptest::option::of(any_share());
        (maybe(), maybe(), maybe(), maybe()).prop_map(|(success, rating, timeliness, cost)| Marks {
            success,
            rating,
            timeliness,
            cost,
        })
    }

    /// An elapsed time, a weight and marks.
    fn any_step() -> impl Strategy<Value = (u64, i64, Marks)> {
        let elapsed = prop_oneof![Just(0), 0..10_000_u64, 0..HALF_LIFE_MICROS, 0..20 * HALF_LIFE_MICROS];
        (elapsed, 0..=UNIT, any_marks())
    }

    fn any_state() -> impl Strategy<Value = State> {
        proptest::collection::vec(any_step(), 0..40).prop_map(|steps| history(&steps))
    }

    fn history(steps: &[(u64, i64, Marks)]) -> State {
        steps.iter().fold(State::newcomer(START), |state, (elapsed, weight, marks)| {
            let now = state.as_of.after(Duration::from_micros(*elapsed));
            state.at(now).with(*weight, *marks)
        })
    }

    fn means(state: &State) -> [Mean; 4] {
        [state.success, state.rating, state.timeliness, state.cost]
    }

    /// `a` stays between `b` and `c`, up to the rounding of a milli-point.
    fn between(a: i32, b: i32, c: i32) -> bool {
        a >= b.min(c) - 1 && a <= b.max(c) + 1
    }

    proptest! {
        #[test]
        fn the_score_is_in_range_and_is_the_sum_of_its_points(state in any_state()) {
            let points = Points::of(&state);
            prop_assert!((0..=MAX_SCORE).contains(&points.score));
            prop_assert_eq!(points.factors.iter().sum::<i32>(), points.score);
            prop_assert_eq!(state.score(), points.score);
            for (points, name) in points.factors.into_iter().zip(FactorName::ALL) {
                prop_assert!((0..=name.weight() * 1000).contains(&points));
                let exact = state.ratio(name).of(i128::from(name.weight()) * 1000);
                prop_assert!((exact..=exact + 1).contains(&i128::from(points)));
            }
            for mean in means(&state) {
                prop_assert!(0 <= mean.sum && mean.sum <= mean.weight);
            }
            prop_assert!(state.experience <= state.success.sum);
        }

        #[test]
        fn a_perfect_success_never_lowers_the_score(state in any_state(), weight in 0..=UNIT) {
            prop_assert!(state.with(weight, all(UNIT)).score() >= state.score());
            prop_assert!(state.with(weight, Marks::success(None, None)).score() >= state.score());
            prop_assert!(state.with(weight, Marks::rating(5)).score() >= state.score());
        }

        #[test]
        fn a_failure_never_raises_the_score(state in any_state(), weight in 0..=UNIT) {
            prop_assert!(state.with(weight, Marks::failure()).score() <= state.score());
            prop_assert!(state.with(weight, all(0)).score() <= state.score());
            prop_assert!(state.with(weight, Marks::rating(1)).score() <= state.score());
        }

        #[test]
        fn a_better_share_never_lowers_the_score(
            state in any_state(), weight in 0..=UNIT, marks in any_marks(), gains in any_marks(),
        ) {
            let better = |mark: Option<i64>, gain: Option<i64>| mark.map(|mark| mark.max(gain.unwrap_or(0)));
            let improved = Marks {
                success: better(marks.success, gains.success),
                rating: better(marks.rating, gains.rating),
                timeliness: better(marks.timeliness, gains.timeliness),
                cost: better(marks.cost, gains.cost),
            };
            prop_assert!(state.with(weight, improved).score() >= state.with(weight, marks).score());
        }

        #[test]
        fn more_time_never_leaves_more(
            sum in 0..=i64::MAX, first in 0..30 * HALF_LIFE_MICROS, more in prop_oneof![0..5_u64, 0..HALF_LIFE_MICROS],
        ) {
            let left = |micros| Decay::over(Duration::from_micros(micros)).of(sum);
            prop_assert!(left(first) <= sum);
            prop_assert!(left(first + more) <= left(first));
        }

        #[test]
        fn rest_moves_every_factor_toward_its_prior(state in any_state(), idle in 0..40 * HALF_LIFE_MICROS) {
            let rested = state.at(state.as_of.after(Duration::from_micros(idle)));
            let (before, after) = (Points::of(&state), Points::of(&rested));
            for ((before, after), name) in before.factors.into_iter().zip(after.factors).zip(FactorName::ALL) {
                prop_assert!(between(after, before, name.weight() * name.prior() / 10), "{name}");
            }
            let forgotten = state.at(state.as_of.after(Duration::from_micros(64 * HALF_LIFE_MICROS)));
            prop_assert_eq!(forgotten.score(), NEWCOMER);
        }

        #[test]
        fn a_good_record_never_falls_below_a_newcomer_by_resting(
            steps in proptest::collection::vec((0..HALF_LIFE_MICROS, 0..=UNIT, UNIT / 2..=UNIT), 0..40),
            idle in 0..40 * HALF_LIFE_MICROS,
        ) {
            let steps: Vec<_> = steps.into_iter().map(|(elapsed, weight, share)| (elapsed, weight, all(share))).collect();
            let state = history(&steps);
            let rested = state.at(state.as_of.after(Duration::from_micros(idle)));
            prop_assert!(rested.score() >= NEWCOMER - 1);
            prop_assert!(rested.score() <= state.score() + 1);
        }

        #[test]
        fn the_past_does_not_change_a_state_and_the_same_history_gives_the_same_bits(
            steps in proptest::collection::vec(any_step(), 0..40), back in 0..HALF_LIFE_MICROS,
        ) {
            let state = history(&steps);
            prop_assert_eq!(state, history(&steps));
            prop_assert_eq!(state.at(state.as_of.before(Duration::from_micros(back))), state);
        }

        #[test]
        fn no_amount_and_no_count_overflows(
            amount in 0..=entity::money::MAX_AMOUNT.micros(), usual in 0..=entity::money::MAX_AMOUNT.micros(),
            before in 0..=i64::MAX, worked in any::<u64>(), promised in any::<u64>(),
        ) {
            let micros = |micros| Amount::from_micros(micros).unwrap();
            let weighed = weight(micros(amount), Some(micros(usual)), before, false);
            prop_assert!((0..=UNIT).contains(&weighed));
            prop_assert!(weight(micros(amount), Some(micros(usual)), before.saturating_add(1), false) <= weighed);
            prop_assert!(cost(micros(amount), micros(usual)).is_none_or(|share| (0..=UNIT).contains(&share)));
            let kept = timeliness(Duration::from_micros(worked), Duration::from_micros(promised));
            prop_assert!(kept.is_none_or(|share| (0..=UNIT).contains(&share)));
        }

        #[test]
        fn the_wilson_bound_is_below_the_rate_and_grows_with_success(
            tasks in 1..=1_000_000_000_i64, successes in 0..=1_000_000_000_i64,
        ) {
            let successes = successes % (tasks + 1);
            let bound = wilson_lower(successes, tasks).unwrap();
            prop_assert!(i64::from(bound) <= 10_000 * successes / tasks);
            if successes < tasks {
                prop_assert!(wilson_lower(successes + 1, tasks).unwrap() >= bound);
            }
        }
    }

    #[test]
    fn a_million_events_of_full_weight_fit() {
        let full = i64::from(1_000_000) * UNIT;
        let mean = Mean { sum: full, weight: full };
        let state = State { success: mean, rating: mean, timeliness: mean, cost: mean, experience: full, as_of: START };
        assert_eq!(state.with(UNIT, all(UNIT)).score(), 99_999);
        let brim = Mean { sum: i64::MAX, weight: i64::MAX };
        let state =
            State { success: brim, rating: brim, timeliness: brim, cost: brim, experience: i64::MAX, as_of: START };
        assert_eq!(state.with(UNIT, all(UNIT)), state);
        assert!(state.with(UNIT, all(0)).score() <= MAX_SCORE);
    }
}
