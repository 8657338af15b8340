//! The machine of a streaming channel: what may happen to it, and what that moves. It is small enough to be explored whole, and a
//! test does: see the end of this file.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::time::Duration;

use entity::{
    channel::{CloseReason, Status},
    money::{Amount, MAX_AMOUNT},
    time::Timestamp,
};

use crate::error::refusals;

refusals! {
    /// Why a channel stays as it is.
    ChannelRefused {
        /// An escrow channel is opened by an award and settles by its task.
        NotAStream = "This channel backs a task and settles with it.",
        /// The payer owns the agent.
        OwnAgent = "The agent is your own.",
        /// The agent takes nothing new.
        AgentNotReady = "The agent is paused or retired.",
        /// There is or was a channel with exactly this configuration.
        ChannelExists = "There was a channel with this configuration before. Use another salt.",
        /// Somebody changed the channel since the caller read it.
        ChannelChanged = "The channel has changed since you read it. Read it again.",
        /// The channel has a key, which signs for every payment.
        SignerRequired = "This channel pays by vouchers that its key signs.",
        /// The channel has no key, so nothing that is signed counts.
        NoSignerKey = "This channel has no key; its payer pays by deductFromChannel.",
        /// The agent has no public key to check its signature by.
        NoAgentKey = "The agent has no public key. Its owner sets one by updateAgent.",
        /// The signature is not that of the right key over these values for this channel of this market.
        SignatureInvalid = "The signature is not that of the channel's key over these values.",
        /// The payer signed this nonce before, for another amount.
        Equivocation = "The payer signed another amount under this nonce. Both vouchers are kept as evidence.",
        /// Closed is for ever.
        ChannelClosed = "The channel is closed.",
        /// Its time is over; it waits to be closed.
        ChannelExpired = "The time of the channel is over.",
        /// Neither its end nor the payer's delay is reached.
        ChannelNotExpired = "The time of the channel is not over.",
        /// The payer asked for the close before.
        CloseRequested = "The close was requested before.",
        /// There is no request to take back.
        CloseNotRequested = "No close was requested.",
        /// The time up to which it was good has passed.
        VoucherExpired = "The time until which this was valid is over.",
        /// A voucher of this nonce or a higher one was claimed.
        VoucherStale = "A voucher with this nonce or a higher one was claimed before.",
        /// Vouchers are cumulative: this one promises no more than what was paid.
        AlreadyPaid = "The channel has paid as much or more already.",
        /// It promises more than the deposit.
        AboveDeposit = "The deposit does not cover it.",
        /// A deposit is bounded like every amount.
        DepositTooLarge = "The deposit would pass 1000000000 credits.",
    }
}

/// What about a channel never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// When it ends at the latest.
    pub expires_at: Timestamp,
    /// How long the agent has for its last claims when the payer asks for the close.
    pub settle_delay: Duration,
    /// The platform's share of what is paid, in basis points.
    pub fee_bps: u16,
    /// Whether a key signs for payments; the payer's calls do otherwise.
    pub keyed: bool,
}

/// What about a channel changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct State {
    pub status: Status,
    pub deposit: Amount,
    /// What agent and fees received.
    pub paid: Amount,
    /// The nonce of the newest voucher that was claimed; 0 before the first.
    pub last_nonce: i64,
    /// When a CLOSING channel closes.
    pub close_at: Option<Timestamp>,
}

/// A signed sum whose signatures were checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signed {
    pub nonce: i64,
    /// What the agent may have in all.
    pub cumulative: Amount,
    /// Until when it may be used; nothing for ever.
    pub valid_until: Option<Timestamp>,
}

/// What somebody who may wants to do. Who may is decided outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The payer puts more in.
    TopUp { amount: Amount },
    /// The payer of a channel without a key pays.
    Deduct { amount: Amount },
    /// A voucher is claimed, by whomever.
    Claim(Signed),
    /// The payer wants it closed.
    RequestClose,
    /// The payer takes that back.
    CancelClose,
    /// The agent closes at once.
    Close,
    /// Both parties signed how it is shared out.
    Cooperate(Signed),
    /// Its time is over; anybody may say so.
    Finalise,
}

/// What a step moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// From the payer's wallet into the channel.
    pub put: Amount,
    /// Out of the channel to the agent and the platform.
    pub paid: Amount,
    /// The platform's share of `paid`.
    pub fee: Amount,
    /// Out of the channel back to the payer.
    pub returned: Amount,
    /// How the channel ended, if it did.
    pub closed: Option<CloseReason>,
}

/// Whether the time of a channel is over: at its end, or when the delay after the payer's request is.
#[must_use]
pub fn is_expired(state: &State, now: Timestamp, config: &Config) -> bool {
    now >= config.expires_at || state.close_at.is_some_and(|close_at| now >= close_at)
}

/// The platform's share of a payment that brings what was paid from `before` to `after`. It is the difference of two shares of
/// sums, each rounded down, so that many small claims cost what one large claim does.
#[must_use]
pub fn fee_between(before: Amount, after: Amount, fee_bps: u16) -> Amount {
    after.basis_points(fee_bps).checked_sub(before.basis_points(fee_bps)).unwrap_or(Amount::ZERO)
}

/// One step of the machine: the state after it and what it moves, or why it does not happen.
pub fn next(state: &State, event: Event, now: Timestamp, config: &Config) -> Result<(State, Effect), ChannelRefused> {
    match state.status {
        Status::Open | Status::Closing => {}
        Status::Closed => return Err(ChannelRefused::ChannelClosed),
    }
    let expired = is_expired(state, now, config);
    let in_time = || if expired { Err(ChannelRefused::ChannelExpired) } else { Ok(()) };
    match event {
        Event::TopUp { amount } => {
            in_time()?;
            let deposit = state.deposit.checked_add(amount).filter(|deposit| *deposit <= MAX_AMOUNT);
            let deposit = deposit.ok_or(ChannelRefused::DepositTooLarge)?;
            Ok((State { deposit, ..*state }, Effect { put: amount, ..Effect::default() }))
        }
        Event::Deduct { amount } => {
            if config.keyed {
                return Err(ChannelRefused::SignerRequired);
            }
            in_time()?;
            let paid = state.paid.checked_add(amount).ok_or(ChannelRefused::AboveDeposit)?;
            pay(state, paid, config)
        }
        Event::Claim(signed) => {
            if !config.keyed {
                return Err(ChannelRefused::NoSignerKey);
            }
            in_time()?;
            if signed.valid_until.is_some_and(|end| end < now) {
                return Err(ChannelRefused::VoucherExpired);
            }
            if signed.nonce <= state.last_nonce {
                return Err(ChannelRefused::VoucherStale);
            }
            if signed.cumulative <= state.paid {
                return Err(ChannelRefused::AlreadyPaid);
            }
            let (after, effect) = pay(state, signed.cumulative, config)?;
            Ok((State { last_nonce: signed.nonce, ..after }, effect))
        }
        Event::RequestClose => {
            if state.close_at.is_some() {
                return Err(ChannelRefused::CloseRequested);
            }
            let close_at = now.after(config.settle_delay).min(config.expires_at);
            Ok((State { status: Status::Closing, close_at: Some(close_at), ..*state }, Effect::default()))
        }
        Event::CancelClose => {
            if state.close_at.is_none() {
                return Err(ChannelRefused::CloseNotRequested);
            }
            in_time()?;
            Ok((State { status: Status::Open, close_at: None, ..*state }, Effect::default()))
        }
        Event::Close => close(state, Effect::default(), CloseReason::AgentClosed),
        Event::Cooperate(signed) => {
            if !config.keyed {
                return Err(ChannelRefused::NoSignerKey);
            }
            // An agreement without an end could be pulled out long after the parties forgot it.
            if signed.valid_until.is_none_or(|end| end < now) {
                return Err(ChannelRefused::VoucherExpired);
            }
            if signed.nonce <= state.last_nonce {
                return Err(ChannelRefused::VoucherStale);
            }
            if signed.cumulative < state.paid {
                return Err(ChannelRefused::AlreadyPaid);
            }
            let (after, effect) = pay(state, signed.cumulative, config)?;
            close(&State { last_nonce: signed.nonce, ..after }, effect, CloseReason::Cooperative)
        }
        Event::Finalise => {
            if !expired {
                return Err(ChannelRefused::ChannelNotExpired);
            }
            // By what came first, so that the reason does not depend on when somebody looks.
            let by_payer = state.close_at.is_some_and(|close_at| close_at < config.expires_at);
            let reason = if by_payer { CloseReason::PayerClosed } else { CloseReason::Expired };
            close(state, Effect::default(), reason)
        }
    }
}

/// Pays up to `paid` in all; what was paid before is at most that.
fn pay(state: &State, paid: Amount, config: &Config) -> Result<(State, Effect), ChannelRefused> {
    if paid > state.deposit {
        return Err(ChannelRefused::AboveDeposit);
    }
    let more = paid.checked_sub(state.paid).ok_or(ChannelRefused::AlreadyPaid)?;
    let fee = fee_between(state.paid, paid, config.fee_bps);
    Ok((State { paid, ..*state }, Effect { paid: more, fee, ..Effect::default() }))
}

/// Gives what is left back to the payer.
fn close(state: &State, effect: Effect, reason: CloseReason) -> Result<(State, Effect), ChannelRefused> {
    let returned = state.deposit.checked_sub(state.paid).ok_or(ChannelRefused::AboveDeposit)?;
    let effect = Effect { returned, closed: Some(reason), ..effect };
    Ok((State { status: Status::Closed, close_at: None, ..*state }, effect))
}

/// What a voucher with a nonce that was claimed before is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// The one that was claimed, or one that promises the same: the first receipt answers it.
    Same,
    /// One that promises another amount.
    Contradicts,
}

/// Compares a voucher with the one of the same nonce that was claimed for `claimed`. `identical` says that it is that very voucher,
/// whose time was checked when it was claimed; one that only promises the same must itself still be good.
pub fn again(signed: &Signed, claimed: Amount, identical: bool, now: Timestamp) -> Result<Again, ChannelRefused> {
    if signed.cumulative != claimed {
        return Ok(Again::Contradicts);
    }
    if !identical && signed.valid_until.is_some_and(|end| end < now) {
        return Err(ChannelRefused::VoucherExpired);
    }
    Ok(Again::Same)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet, VecDeque};

    use proptest::prelude::*;

    use super::*;

    fn amount(micros: i64) -> Amount {
        Amount::from_micros(micros).unwrap()
    }

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    fn config(keyed: bool, fee_bps: u16) -> Config {
        Config { expires_at: at(6), settle_delay: Duration::from_micros(2), fee_bps, keyed }
    }

    fn opened(deposit: i64) -> State {
        State { status: Status::Open, deposit: amount(deposit), paid: Amount::ZERO, last_nonce: 0, close_at: None }
    }

    fn signed(nonce: i64, cumulative: i64, valid_until: Option<i64>) -> Signed {
        Signed { nonce, cumulative: amount(cumulative), valid_until: valid_until.map(at) }
    }

    /// The machine with everything around it that the invariants speak of.
    #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
    struct Worldly {
        state: State,
        now: Timestamp,
        /// What the payer has outside of the channel, and what agent and platform got.
        wallet: i64,
        agent: i64,
        fees: i64,
        /// The highest sum that the signer signed, in vouchers or together with the agent.
        signed: i64,
    }

    const NONCES: i64 = 5;
    const CREDITS: i64 = 7;
    const LAST_INSTANT: i64 = 8;

    /// Everything that anybody can try in a state, also what must be refused.
    fn tries() -> Vec<Event> {
        let mut tries = vec![Event::RequestClose, Event::CancelClose, Event::Close, Event::Finalise];
        for size in [1, 2] {
            tries.push(Event::TopUp { amount: amount(size) });
            tries.push(Event::Deduct { amount: amount(size) });
        }
        for nonce in 1..=NONCES {
            for cumulative in 0..=CREDITS {
                for valid_until in [None, Some(3)] {
                    tries.push(Event::Claim(signed(nonce, cumulative, valid_until)));
                    tries.push(Event::Cooperate(signed(nonce, cumulative, valid_until)));
                }
            }
        }
        tries
    }

    fn take(before: &Worldly, event: Event, config: &Config) -> Option<Worldly> {
        let (state, effect) = next(&before.state, event, before.now, config).ok()?;
        let wallet = before.wallet + effect.returned.micros() - effect.put.micros();
        if wallet < 0 {
            return None;
        }
        let promised = match event {
            Event::Claim(signed) | Event::Cooperate(signed) => signed.cumulative.micros(),
            Event::Deduct { amount } => before.agent + before.fees + amount.micros(),
            Event::TopUp { .. } | Event::RequestClose | Event::CancelClose | Event::Close | Event::Finalise => 0,
        };
        let after = Worldly {
            state,
            now: before.now,
            wallet,
            agent: before.agent + effect.paid.micros() - effect.fee.micros(),
            fees: before.fees + effect.fee.micros(),
            signed: before.signed.max(promised),
        };
        holds(before, &after, config);
        Some(after)
    }

    /// What must hold of every step.
    fn holds(before: &Worldly, after: &Worldly, config: &Config) {
        let escrow = |of: &Worldly| match of.state.status {
            Status::Open | Status::Closing => of.state.deposit.micros() - of.state.paid.micros(),
            Status::Closed => 0,
        };
        let all = |of: &Worldly| of.wallet + of.agent + of.fees + escrow(of);
        let say = || format!("{before:?}\n{after:?}");
        assert_eq!(all(before), all(after), "credits were made or lost: {}", say());
        assert!(after.state.paid <= after.state.deposit, "{}", say());
        assert_eq!(after.state.paid.micros(), after.agent + after.fees, "paid is what they received: {}", say());
        assert_eq!(after.fees, after.state.paid.basis_points(config.fee_bps).micros(), "the fee is that of the sum");
        assert!(before.state.paid <= after.state.paid, "paid never decreases: {}", say());
        assert!(before.state.last_nonce <= after.state.last_nonce, "the nonce never decreases: {}", say());
        assert!(after.state.paid.micros() <= after.signed, "more was paid than was ever signed: {}", say());
        assert_ne!(before.state.status, Status::Closed, "CLOSED absorbs: {}", say());
        assert_eq!(after.state.status == Status::Closing, after.state.close_at.is_some(), "{}", say());
        assert!(after.state.close_at.is_none_or(|close_at| close_at <= config.expires_at), "{}", say());
    }

    /// The payer alone, with time, gets back what was not paid.
    fn payer_recovers(from: &Worldly, config: &Config) -> bool {
        if from.state.status == Status::Closed {
            return true;
        }
        let asked = take(from, Event::RequestClose, config).unwrap_or_else(|| from.clone());
        let later = Worldly { now: asked.now.after(config.settle_delay), ..asked };
        let back = from.state.deposit.checked_sub(from.state.paid).unwrap().micros();
        take(&later, Event::Finalise, config)
            .is_some_and(|end| end.state.status == Status::Closed && end.wallet == from.wallet + back)
    }

    /// Explores all that can be reached, and answers how many states and steps there are.
    fn explore(config: &Config) -> (usize, usize) {
        let tries = tries();
        let mut seen = BTreeSet::new();
        let mut queue = VecDeque::new();
        for deposit in 1..=3 {
            let start =
                Worldly { state: opened(deposit), now: at(0), wallet: CREDITS - deposit, agent: 0, fees: 0, signed: 0 };
            seen.insert(start.clone());
            queue.push_back(start);
        }
        let mut steps = 0;
        let mut closed: BTreeMap<CloseReason, usize> = BTreeMap::new();
        while let Some(from) = queue.pop_front() {
            assert!(payer_recovers(&from, config), "stranded: {from:?}");
            let mut reached: Vec<Worldly> = tries.iter().filter_map(|event| take(&from, *event, config)).collect();
            if from.state.status == Status::Closed {
                assert!(reached.is_empty(), "CLOSED absorbs");
                continue;
            }
            for event in &tries {
                if let Ok((_, Effect { closed: Some(reason), .. })) = next(&from.state, *event, from.now, config) {
                    *closed.entry(reason).or_default() += 1;
                }
            }
            if from.now.micros() < LAST_INSTANT {
                reached.push(Worldly { now: from.now.after(Duration::from_micros(1)), ..from.clone() });
            }
            steps += reached.len();
            for to in reached {
                if seen.insert(to.clone()) {
                    queue.push_back(to);
                }
            }
        }
        let ends: Vec<CloseReason> = closed.into_keys().collect();
        let expected: &[CloseReason] = if config.keyed {
            &[CloseReason::AgentClosed, CloseReason::Cooperative, CloseReason::PayerClosed, CloseReason::Expired]
        } else {
            &[CloseReason::AgentClosed, CloseReason::PayerClosed, CloseReason::Expired]
        };
        assert_eq!(ends, expected, "every way to end is reached");
        (seen.len(), steps)
    }

    #[test]
    fn every_reachable_state_keeps_the_invariants_and_none_is_stranded() {
        let (mut states, mut steps) = (0, 0);
        for keyed in [true, false] {
            for fee_bps in [0, 3_333] {
                let (more_states, more_steps) = explore(&config(keyed, fee_bps));
                println!("keyed {keyed}, fee {fee_bps}: {more_states} states, {more_steps} steps");
                states += more_states;
                steps += more_steps;
            }
        }
        println!("explored {states} states and {steps} steps, none stranded");
        assert!(states > 10_000, "{states}");
    }

    #[test]
    fn what_may_not_happen_has_its_name() {
        use ChannelRefused as No;
        let (keyed, unkeyed) = (config(true, 0), config(false, 0));
        let open = State { paid: amount(2), last_nonce: 5, ..opened(4) };
        let closing = State { status: Status::Closing, close_at: Some(at(2)), ..open };
        let closed = State { status: Status::Closed, ..open };
        let claim = |nonce, cumulative, valid_until| Event::Claim(signed(nonce, cumulative, valid_until));
        let agree = |nonce, cumulative, valid_until| Event::Cooperate(signed(nonce, cumulative, valid_until));
        for (state, event, now, config, no) in [
            (open, claim(6, 3, None), 0, unkeyed, No::NoSignerKey),
            (open, agree(6, 3, Some(9)), 0, unkeyed, No::NoSignerKey),
            (open, Event::Deduct { amount: amount(1) }, 0, keyed, No::SignerRequired),
            (open, Event::Deduct { amount: amount(3) }, 0, unkeyed, No::AboveDeposit),
            (open, Event::Deduct { amount: amount(1) }, 6, unkeyed, No::ChannelExpired),
            (open, claim(6, 3, None), 6, keyed, No::ChannelExpired),
            (closing, claim(6, 3, None), 2, keyed, No::ChannelExpired),
            (open, claim(6, 3, Some(3)), 4, keyed, No::VoucherExpired),
            (open, claim(5, 3, None), 0, keyed, No::VoucherStale),
            (open, claim(6, 2, None), 0, keyed, No::AlreadyPaid),
            (open, claim(6, 5, None), 0, keyed, No::AboveDeposit),
            (open, agree(6, 3, None), 0, keyed, No::VoucherExpired),
            (open, agree(6, 3, Some(3)), 4, keyed, No::VoucherExpired),
            (open, agree(5, 3, Some(3)), 0, keyed, No::VoucherStale),
            (open, agree(6, 1, Some(3)), 0, keyed, No::AlreadyPaid),
            (open, agree(6, 5, Some(3)), 0, keyed, No::AboveDeposit),
            (open, Event::TopUp { amount: amount(1) }, 6, keyed, No::ChannelExpired),
            (open, Event::TopUp { amount: MAX_AMOUNT }, 0, keyed, No::DepositTooLarge),
            (open, Event::CancelClose, 0, keyed, No::CloseNotRequested),
            (closing, Event::CancelClose, 2, keyed, No::ChannelExpired),
            (closing, Event::RequestClose, 0, keyed, No::CloseRequested),
            (open, Event::Finalise, 5, keyed, No::ChannelNotExpired),
            (closing, Event::Finalise, 1, keyed, No::ChannelNotExpired),
            (closed, Event::Close, 0, keyed, No::ChannelClosed),
            (closed, Event::Finalise, 9, keyed, No::ChannelClosed),
            (closed, claim(6, 3, None), 0, keyed, No::ChannelClosed),
        ] {
            assert_eq!(next(&state, event, at(now), &config), Err(no), "{state:?} {event:?}");
        }
    }

    #[test]
    fn attack_11_a_voucher_is_good_through_its_last_instant_and_not_behind_it() {
        let claim = Event::Claim(signed(1, 1, Some(3)));
        assert!(next(&opened(2), claim, at(3), &config(true, 0)).is_ok());
        assert_eq!(next(&opened(2), claim, at(4), &config(true, 0)), Err(ChannelRefused::VoucherExpired));
    }

    #[test]
    fn the_reason_of_an_end_does_not_depend_on_when_somebody_looks() {
        let config = config(true, 0);
        let reason = |state: &State, now| next(state, Event::Finalise, at(now), &config).unwrap().1.closed;
        let (early, _) = next(&opened(2), Event::RequestClose, at(1), &config).unwrap();
        let (late, _) = next(&opened(2), Event::RequestClose, at(5), &config).unwrap();
        assert_eq!((early.close_at, late.close_at), (Some(at(3)), Some(at(6))));
        assert_eq!(reason(&early, 3), Some(CloseReason::PayerClosed));
        assert_eq!(reason(&early, 9), Some(CloseReason::PayerClosed));
        assert_eq!(reason(&late, 6), Some(CloseReason::Expired));
        assert_eq!(reason(&opened(2), 6), Some(CloseReason::Expired));
    }

    #[test]
    fn a_voucher_that_comes_again_is_the_same_or_a_contradiction() {
        let one = signed(1, 5, Some(3));
        assert_eq!(again(&one, amount(5), true, at(9)), Ok(Again::Same));
        assert_eq!(again(&one, amount(5), false, at(3)), Ok(Again::Same));
        assert_eq!(again(&one, amount(5), false, at(4)), Err(ChannelRefused::VoucherExpired));
        assert_eq!(again(&one, amount(4), false, at(9)), Ok(Again::Contradicts));
    }

    proptest! {
        #[test]
        fn many_small_claims_cost_what_one_large_one_does(
            sums in proptest::collection::btree_set(1..=MAX_AMOUNT.micros(), 1..20), bps in 0..=10_000_u16,
        ) {
            let mut before = Amount::ZERO;
            let mut fees = 0;
            for sum in &sums {
                fees += fee_between(before, amount(*sum), bps).micros();
                before = amount(*sum);
            }
            prop_assert_eq!(fees, fee_between(Amount::ZERO, before, bps).micros());
        }

        #[test]
        fn a_fee_is_at_most_what_is_paid(before in 0..=MAX_AMOUNT.micros(), more in 0..=MAX_AMOUNT.micros(), bps in 0..=10_000_u16) {
            prop_assert!(fee_between(amount(before), amount(before + more), bps).micros() <= more);
        }
    }
}
