//! The rules of an auction: who may bid, how bids are scored and ranked, what the winner is paid.
//!
//! The score of a bid with price `p` from an agent with reputation `R` (basis points, 0 to 10,000) under a budget `B` and the
//! weights `wp + wr = 10,000` basis points is the exact integer
//!
//! ```text
//! N = wp·(B − p)·10⁴ + wr·B·R                0 ≤ N ≤ 10⁸·B
//! ```
//!
//! The price term is measured against the budget, never against the other bids, so a bid that loses cannot change who wins.
//! Bids are ordered by (N descending, R descending, order of arrival). Equal N and equal R mean equal prices, so the price is
//! never needed to break a tie.
//!
//! In a second-price auction the winner is paid its *critical price*: the highest price at which it would still have won against
//! the best rival. That makes telling the true price a dominant strategy in one auction (Che 1993, "Design competition through
//! multidimensional auctions"; Vickrey's rule on a score).

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::cmp::Reverse;

use entity::{
    agent,
    auction::{self, Kind, Visibility},
    bid, commitment,
    id::{AgentId, BidId, UserId},
    money::Amount,
    time::Timestamp,
};

use super::commitment::Sealed;
use crate::{
    agent::rules::{has_room, is_online},
    error::refusals,
};

/// Basis points in the whole.
pub const WHOLE: i32 = 10_000;
/// `WHOLE` squared: the denominator of a score over the budget.
const SCALE: i128 = 100_000_000;

refusals! {
    /// Why an auction does not do what it is asked.
    AuctionRefused {
        /// The auction takes no more bids.
        AuctionNotOpen = "The auction is not open.",
        /// The close has passed.
        AuctionClosed = "The auction has closed; bids at or after its close are not taken.",
        /// The bidder is the requester.
        OwnAuction = "You cannot bid on your own auction.",
        /// The agent is paused, retired or has no module.
        AgentNotReady = "The agent is not taking work.",
        /// The agent lacks a capability that the task asks for.
        CapabilityMissing = "The agent does not have the capabilities that the task asks for.",
        /// The agent or its owner failed at this before, or does the same beside it.
        AgentExcluded = "The agent may not win this auction: it failed at this work before, or its owner does the same beside it.",
        /// The agent has as many tasks in work as it does at once.
        AgentAtCapacity = "The agent has as many tasks in work as it does at once.",
        /// The price is above the ceiling.
        PriceAboveCeiling = "The price is above the highest price that the auction takes.",
        /// The agent's own minimum is above the price.
        PriceBelowMinimum = "The price is below the least that the agent works for.",
        /// The agent's reputation is too low.
        ReputationTooLow = "The agent's reputation is below what the auction asks for.",
        /// The auction has as many bids as it takes.
        AuctionFull = "The auction has as many bids as it takes.",
        /// The bid was replaced, withdrawn or decided.
        BidNotActive = "The bid does not stand any more.",
        /// Nobody to award to.
        NoEligibleBid = "There is no eligible bid to award.",
        /// The named bid may not win.
        BidNotEligible = "This bid may not win: it is above the reserve or its agent does not qualify any more.",
        /// Only MANUAL auctions are awarded by hand.
        AwardIsAutomatic = "This auction awards by itself at its close.",
        /// The auction takes commitments, not bids.
        UseCommitBid = "This auction takes commitments: use commitBid now and revealBid after the close.",
        /// The auction takes bids, not commitments.
        UseSubmitBid = "This auction takes no commitments: use submitBid.",
        /// One agent has bid or committed as often as it may.
        TooManyChanges = "The agent has bid in this auction as often as one agent may.",
        /// The commitment was replaced, withdrawn, revealed or lost.
        CommitmentNotLive = "The commitment does not stand any more.",
        /// The time for reveals has not begun.
        RevealNotOpen = "Bids are revealed after the close; this auction still takes commitments.",
        /// The time for reveals is over.
        RevealClosed = "The time to reveal bids is over.",
        /// The agent did not commit to anything that could be revealed.
        NoCommitment = "The agent has no commitment that stands in this auction.",
        /// The bid was revealed before.
        AlreadyRevealed = "The agent's bid has been revealed.",
        /// Price, duration and salt do not make the hash.
        CommitmentMismatch = "The commitment does not fit: another price, duration or salt, another auction or another agent.",
        /// A COMMIT_REVEAL auction is awarded after the reveals.
        BidsNotRevealed = "The bids are not revealed yet; award when the time for reveals is over.",
    }
}

/// Whether `agent` may bid `price` in `auction` now. The checks run in the order of the refusals.
pub fn admit_bid(
    auction: &auction::Model,
    agent: &agent::Model,
    reputation: i32,
    price: Amount,
    now: Timestamp,
) -> Result<(), AuctionRefused> {
    open(auction, now)?;
    if auction.visibility == Visibility::CommitReveal {
        return Err(AuctionRefused::UseCommitBid);
    }
    admit_bidder(auction, agent, reputation)?;
    admit_price(auction, agent, price)
}

/// Whether `agent` may commit to a bid in `auction` now, whatever its price.
pub fn admit_commitment(
    auction: &auction::Model,
    agent: &agent::Model,
    reputation: i32,
    now: Timestamp,
) -> Result<(), AuctionRefused> {
    open(auction, now)?;
    if auction.visibility != Visibility::CommitReveal {
        return Err(AuctionRefused::UseSubmitBid);
    }
    admit_bidder(auction, agent, reputation)
}

fn admit_bidder(auction: &auction::Model, agent: &agent::Model, reputation: i32) -> Result<(), AuctionRefused> {
    if agent.owner_id == auction.requester_id {
        return Err(AuctionRefused::OwnAuction);
    }
    qualified(auction, agent, reputation)
}

/// Whether a bid may name `price`.
pub fn admit_price(auction: &auction::Model, agent: &agent::Model, price: Amount) -> Result<(), AuctionRefused> {
    if price > auction.max_price {
        return Err(AuctionRefused::PriceAboveCeiling);
    }
    if price < agent.min_price {
        return Err(AuctionRefused::PriceBelowMinimum);
    }
    Ok(())
}

/// Whether the auction takes reveals at `now`.
pub fn revealing(auction: &auction::Model, now: Timestamp) -> Result<(), AuctionRefused> {
    if auction.visibility != Visibility::CommitReveal {
        return Err(AuctionRefused::UseSubmitBid);
    }
    match auction.status {
        auction::Status::Open => Err(AuctionRefused::RevealNotOpen),
        auction::Status::Revealing if auction.reveal_until.is_some_and(|until| now < until) => Ok(()),
        auction::Status::Revealing
        | auction::Status::Awarded
        | auction::Status::Expired
        | auction::Status::Cancelled => Err(AuctionRefused::RevealClosed),
    }
}

/// Whether a commitment may be answered with a bid of these values: it stands, and they make its hash.
pub fn admit_reveal(commitment: &commitment::Model, sealed: &Sealed) -> Result<(), AuctionRefused> {
    match commitment.status {
        commitment::Status::Revealed => Err(AuctionRefused::AlreadyRevealed),
        commitment::Status::Committed if commitment.hash == sealed.commitment_hex() => Ok(()),
        commitment::Status::Committed => Err(AuctionRefused::CommitmentMismatch),
        commitment::Status::Replaced
        | commitment::Status::Withdrawn
        | commitment::Status::Unrevealed
        | commitment::Status::Cancelled => Err(AuctionRefused::NoCommitment),
    }
}

/// Whether the owner of an agent took it out of a decision by a deed of their own after the close: then its bid did not stand, and
/// its bond is lost. Before the close they could have withdrawn, so this is about COMMIT_REVEAL alone, where the decision comes
/// later than the close. That its reputation fell is no deed.
#[must_use]
pub fn backed_out(auction: &auction::Model, agent: &agent::Model) -> bool {
    auction.visibility == Visibility::CommitReveal && able(auction, agent).is_err()
}

/// Whether the auction takes bids at `now`.
pub fn open(auction: &auction::Model, now: Timestamp) -> Result<(), AuctionRefused> {
    match auction.status {
        auction::Status::Open if now < auction.closes_at => Ok(()),
        auction::Status::Open | auction::Status::Revealing => Err(AuctionRefused::AuctionClosed),
        auction::Status::Awarded | auction::Status::Expired | auction::Status::Cancelled => {
            Err(AuctionRefused::AuctionNotOpen)
        }
    }
}

/// Whether the agent is one that the auction asks for, whatever its price.
fn qualified(auction: &auction::Model, agent: &agent::Model, reputation: i32) -> Result<(), AuctionRefused> {
    able(auction, agent)?;
    if !has_room(agent) {
        return Err(AuctionRefused::AgentAtCapacity);
    }
    if reputation < auction.min_reputation {
        return Err(AuctionRefused::ReputationTooLow);
    }
    Ok(())
}

/// Whether the agent takes work of this kind.
fn able(auction: &auction::Model, agent: &agent::Model) -> Result<(), AuctionRefused> {
    let ready = match (agent.status, agent.runtime) {
        (agent::Status::Active, agent::Runtime::Hosted) => agent.module_id.is_some(),
        (agent::Status::Active, agent::Runtime::External) => true,
        (agent::Status::Paused | agent::Status::Retired, agent::Runtime::Hosted | agent::Runtime::External) => false,
    };
    if !ready {
        return Err(AuctionRefused::AgentNotReady);
    }
    if !agent.capabilities.contains_all(&auction.capabilities) {
        return Err(AuctionRefused::CapabilityMissing);
    }
    let excluded = |id: String| auction.excluded.0.contains(&id);
    if !auction.excluded.0.is_empty() && (excluded(agent.id.to_string()) || excluded(agent.owner_id.to_string())) {
        return Err(AuctionRefused::AgentExcluded);
    }
    Ok(())
}

/// The score of one bid and where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Score {
    /// The exact numerator N.
    pub total: i128,
    /// What the price contributes to N.
    pub price_part: i128,
    /// What the reputation contributes to N.
    pub reputation_part: i128,
    budget: i64,
}

impl Score {
    /// A part of N on a scale of 0 to 100 in micro-points, rounded down: what people are shown. Decisions use N itself.
    #[must_use]
    pub fn micro_points(&self, part: i128) -> i64 {
        // 100 points of 10⁶ micro-points are 10⁸, which is just the denominator's scale.
        part.checked_div(i128::from(self.budget)).and_then(|points| i64::try_from(points).ok()).unwrap_or(0)
    }
}

/// Scores a bid. A price above the budget scores below zero on its price part; such bids are never admitted.
#[must_use]
pub fn score(price: Amount, reputation: i32, budget: Amount, price_weight: i32) -> Score {
    let budget_micros = i128::from(budget.micros());
    let saved = budget_micros.saturating_sub(i128::from(price.micros()));
    let reputation_weight = i128::from(WHOLE.saturating_sub(price_weight));
    let price_part = i128::from(price_weight).saturating_mul(saved).saturating_mul(i128::from(WHOLE));
    let reputation_part = reputation_weight.saturating_mul(budget_micros).saturating_mul(i128::from(reputation));
    Score { total: price_part.saturating_add(reputation_part), price_part, reputation_part, budget: budget.micros() }
}

/// What the ranking needs to know of a bid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    pub bid: BidId,
    pub agent: AgentId,
    pub bidder: UserId,
    pub price: Amount,
    /// Basis points.
    pub reputation: i32,
    /// The order of arrival.
    pub seq: i32,
}

/// Offers with their scores, best first.
#[must_use]
pub fn rank(offers: &[Offer], budget: Amount, price_weight: i32) -> Vec<(Offer, Score)> {
    let mut ranked: Vec<(Offer, Score)> =
        offers.iter().map(|offer| (*offer, score(offer.price, offer.reputation, budget, price_weight))).collect();
    ranked.sort_by_key(|(offer, score)| (Reverse(score.total), Reverse(offer.reputation), offer.seq));
    ranked
}

/// The highest price at which `winner` would still be placed before `rival`, at most `ceiling`; `ceiling` when there is no rival.
///
/// With X = N(rival) − wr·B·R(winner), the winner keeps its place while wp·(B − p)·10⁴ ≥ X, or > X when the rival wins ties.
#[must_use]
pub fn critical_price(
    winner: &Offer,
    rival: Option<&Offer>,
    budget: Amount,
    price_weight: i32,
    ceiling: Amount,
) -> Amount {
    let Some(rival) = rival else { return ceiling };
    let step = i128::from(price_weight).saturating_mul(i128::from(WHOLE));
    if step == 0 {
        // The price does not count, so no price below the ceiling could have lost.
        return ceiling;
    }
    let rival_score = score(rival.price, rival.reputation, budget, price_weight).total;
    let own = score(budget, winner.reputation, budget, price_weight).total;
    let lead = rival_score.saturating_sub(own);
    let wins_ties = (Reverse(winner.reputation), winner.seq) < (Reverse(rival.reputation), rival.seq);
    let least_saving = if wins_ties { ceil_div(lead, step) } else { lead.div_euclid(step).saturating_add(1) };
    let price = i128::from(budget.micros()).saturating_sub(least_saving);
    let price = i64::try_from(price.clamp(0, i128::from(ceiling.micros()))).unwrap_or(0);
    Amount::from_micros(price).unwrap_or(ceiling).max(winner.price)
}

fn ceil_div(numerator: i128, denominator: i128) -> i128 {
    let floor = numerator.div_euclid(denominator);
    if numerator.rem_euclid(denominator) == 0 { floor } else { floor.saturating_add(1) }
}

/// The highest price at which the requester buys: the ceiling and the secret reserve, whichever is lower.
#[must_use]
pub fn cap(auction: &auction::Model) -> Amount {
    auction.reserve_price.map_or(auction.max_price, |reserve| reserve.min(auction.max_price))
}

/// Whether a bid may win at the close: at or below the cap, by an agent that still qualifies. Where the auction asks for it, the agent
/// must be online, which an agent that runs elsewhere is if it was heard of since `seen_since`.
#[must_use]
pub fn eligible(
    auction: &auction::Model,
    bid: &bid::Model,
    agent: &agent::Model,
    reputation: i32,
    seen_since: Timestamp,
) -> bool {
    let there = !auction.online_only || is_online(agent, seen_since);
    there && bid.price <= cap(auction) && qualified(auction, agent, reputation).is_ok()
}

/// What the winner is paid, given the eligible offers in their order.
#[must_use]
pub fn payment(auction: &auction::Model, winner: &Offer, ranked: &[(Offer, Score)]) -> Amount {
    match auction.kind {
        Kind::FirstPrice => winner.price,
        Kind::SecondPrice => {
            let rival = ranked.iter().map(|(offer, _)| offer).find(|offer| offer.bid != winner.bid);
            critical_price(winner, rival, auction.budget, auction.price_weight, cap(auction))
        }
    }
}

/// How many agents stand in the auction while it takes bids: with a bid, or with a commitment.
#[must_use]
pub fn standing(auction: &auction::Model) -> i32 {
    match auction.visibility {
        Visibility::Sealed | Visibility::Open => auction.bid_count,
        Visibility::CommitReveal => auction.commitment_count,
    }
}

/// Whether bids of others are still hidden: until the decision, but in an OPEN auction.
#[must_use]
pub fn hidden(auction: &auction::Model) -> bool {
    match (auction.status, auction.visibility) {
        (auction::Status::Open | auction::Status::Revealing, Visibility::Sealed | Visibility::CommitReveal) => true,
        (auction::Status::Open | auction::Status::Revealing, Visibility::Open)
        | (
            auction::Status::Awarded | auction::Status::Expired | auction::Status::Cancelled,
            Visibility::Open | Visibility::Sealed | Visibility::CommitReveal,
        ) => false,
    }
}

/// Whether the requester of a MANUAL auction may look at the bids to pick one: bidding is over, and the reveals are too.
#[must_use]
pub fn may_pick(auction: &auction::Model, now: Timestamp) -> bool {
    let over = match auction.visibility {
        Visibility::Sealed | Visibility::Open => now >= auction.closes_at,
        Visibility::CommitReveal => auction.reveal_until.is_some_and(|until| now >= until),
    };
    over && auction.award_mode == auction::AwardMode::Manual
}

/// What a soft close does to the close when a bid comes at `now`: the new close, if it moves.
#[must_use]
pub fn extended_close(auction: &auction::Model, now: Timestamp, max_extensions: i32) -> Option<Timestamp> {
    let quiet = std::time::Duration::from_millis(u64::try_from(auction.soft_close_ms).unwrap_or(0));
    let extended = now.after(quiet);
    let late = auction.visibility == Visibility::Open && extended > auction.closes_at;
    (late && auction.soft_close_ms > 0 && auction.extensions < max_extensions).then_some(extended)
}

/// Asserts at compile time that the largest score fits: 10⁸ times the largest budget.
const _: () = assert!(SCALE * 1_000_000_000_000_000 < i128::MAX);

/// The unit in which fuel is priced.
const FUEL_UNIT: u128 = 1_000_000;

/// What good work is charged whose price is metered: its fuel at the agent's price for a million units, rounded up to a whole
/// micro-credit and one at least, but never more than the price of the award.
#[must_use]
pub fn metered(price: Amount, fuel: u64, fuel_price: Amount) -> Amount {
    let micros = |amount: Amount| u128::from(amount.micros().unsigned_abs());
    let used = u128::from(fuel).saturating_mul(micros(fuel_price)).div_ceil(FUEL_UNIT).max(1);
    i64::try_from(used).ok().and_then(Amount::from_micros).map_or(price, |used| used.min(price))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn offer(number: i32, price: i64, reputation: i32) -> Offer {
        let uuid = Uuid::from_u128(u128::try_from(number).unwrap());
        Offer {
            bid: BidId(uuid),
            agent: AgentId(uuid),
            bidder: UserId(uuid),
            price: Amount::from_micros(price).unwrap(),
            reputation,
            seq: number,
        }
    }

    fn micros(micros: i64) -> Amount {
        Amount::from_micros(micros).unwrap()
    }

    fn winner(offers: &[Offer], budget: i64, weight: i32) -> i32 {
        rank(offers, micros(budget), weight)[0].0.seq
    }

    #[test]
    fn fuel_is_charged_by_the_million_rounded_up_and_capped() {
        let amount = |micros| Amount::from_micros(micros).unwrap();
        for (price, fuel, fuel_price, charge) in [
            (3_000_000, 1_000_000, 500_000, 500_000),
            (3_000_000, 1_000_001, 500_000, 500_001),
            (3_000_000, 0, 500_000, 1),
            (3_000_000, 1, 1, 1),
            (3_000_000, 6_000_000, 500_000, 3_000_000),
            (3_000_000, 6_000_001, 500_000, 3_000_000),
            (1, u64::MAX, 1, 1),
            (1_000_000_000_000_000, u64::MAX, 1_000_000_000_000_000, 1_000_000_000_000_000),
            (1_000_000_000_000_000, 2_000_000_000, 7, 14_000),
        ] {
            assert_eq!(metered(amount(price), fuel, amount(fuel_price)), amount(charge), "{price} {fuel} {fuel_price}");
        }
    }

    #[test]
    fn the_default_weights_give_forty_points_to_price_and_sixty_to_reputation() {
        let score = score(micros(60), 8_000, micros(100), 4_000);
        assert_eq!(score.total, 40_000 * 1_000 * 40 + 6_000 * 100 * 8_000);
        assert_eq!(score.micro_points(score.price_part), 16_000_000);
        assert_eq!(score.micro_points(score.reputation_part), 48_000_000);
        assert_eq!(score.micro_points(score.total), 64_000_000);
    }

    #[test]
    fn a_hopeless_bid_does_not_change_the_winner() {
        // The two examples in which scoring relative to the other bids lets a loser decide.
        let (cheap, good) = (offer(1, 60, 8_000), offer(2, 80, 9_200));
        let with = winner(&[cheap, good, offer(3, 400, 500)], 400, 4_000);
        assert_eq!(winner(&[cheap, good], 400, 4_000), with);
        let (cheap, good) = (offer(1, 50, 7_000), offer(2, 70, 8_500));
        assert_eq!(winner(&[cheap, good], 100, 4_000), winner(&[cheap, good, offer(3, 20, 0)], 100, 4_000));
    }

    #[test]
    fn a_perfect_tie_goes_to_the_earlier_bid() {
        assert_eq!(winner(&[offer(2, 50, 5_000), offer(1, 50, 5_000)], 100, 4_000), 1);
    }

    #[test]
    fn a_winner_without_rivals_is_paid_the_ceiling_in_a_second_price_auction() {
        assert_eq!(critical_price(&offer(1, 30, 5_000), None, micros(100), 4_000, micros(90)), micros(90));
    }

    fn offers() -> impl Strategy<Value = (i64, i32, Vec<Offer>)> {
        (1_i64..=400, prop_oneof![Just(4_000), Just(1), Just(9_999), Just(10_000), 0..=10_000_i32]).prop_flat_map(
            |(budget, weight)| {
                let one = (1..=budget, 0..=10_000_i32);
                prop::collection::vec(one, 1..8).prop_map(move |bids| {
                    let numbered =
                        (1..).zip(bids).map(|(number, (price, reputation))| offer(number, price, reputation));
                    (budget, weight, numbered.collect())
                })
            },
        )
    }

    proptest! {
        #[test]
        fn the_order_of_arrival_matters_only_in_perfect_ties((budget, weight, offers) in offers(), turn in 0_usize..8) {
            let mut turned = offers.clone();
            let turn = turn % turned.len();
            turned.rotate_left(turn);
            prop_assert_eq!(rank(&offers, micros(budget), weight), rank(&turned, micros(budget), weight));
        }

        #[test]
        fn a_score_is_between_nothing_and_the_best((budget, weight, offers) in offers()) {
            for offer in offers {
                let score = score(offer.price, offer.reputation, micros(budget), weight);
                prop_assert!((0..=SCALE * i128::from(budget)).contains(&score.total));
                prop_assert_eq!(score.price_part + score.reputation_part, score.total);
            }
        }

        #[test]
        fn a_loser_who_leaves_does_not_change_the_winner((budget, weight, offers) in offers(), gone in 0_usize..8) {
            let ranked = rank(&offers, micros(budget), weight);
            let first = ranked[0].0;
            let gone = offers[gone % offers.len()];
            if gone.bid != first.bid {
                let rest: Vec<Offer> = offers.iter().copied().filter(|offer| offer.bid != gone.bid).collect();
                prop_assert_eq!(rank(&rest, micros(budget), weight)[0].0.bid, first.bid);
            }
        }

        #[test]
        fn a_lower_price_or_a_better_reputation_never_loses_places((budget, weight, offers) in offers(), less in 1_i64..50) {
            let place = |offers: &[Offer], bid: BidId| {
                rank(offers, micros(budget), weight).iter().position(|(offer, _)| offer.bid == bid).unwrap()
            };
            let before = place(&offers, offers[0].bid);
            let mut better = offers.clone();
            better[0].price = micros((better[0].price.micros() - less).max(1));
            prop_assert!(place(&better, offers[0].bid) <= before);
            let mut better = offers.clone();
            better[0].reputation = (better[0].reputation + 100).min(10_000);
            prop_assert!(place(&better, offers[0].bid) <= before);
        }

        #[test]
        fn the_critical_price_is_the_highest_winning_price((budget, weight, offers) in offers()) {
            prop_assume!(weight > 0);
            let ranked = rank(&offers, micros(budget), weight);
            let first = ranked[0].0;
            let rival = ranked.get(1).map(|(offer, _)| *offer);
            let paid = critical_price(&first, rival.as_ref(), micros(budget), weight, micros(budget)).micros();
            // Brute force: every price the winner could have named.
            let wins = |price: i64| {
                let mut changed = offers.clone();
                changed.iter_mut().filter(|offer| offer.bid == first.bid).for_each(|offer| offer.price = micros(price));
                rank(&changed, micros(budget), weight)[0].0.bid == first.bid
            };
            let highest = (1..=budget).filter(|price| wins(*price)).max().unwrap();
            prop_assert_eq!(paid, highest);
        }

        #[test]
        fn no_misreport_pays_in_a_second_price_auction((budget, weight, offers) in offers(), lie in 1_i64..=400) {
            prop_assume!(weight > 0);
            let lie = lie.min(budget);
            let gain = |price: i64| {
                let truth = offers[0].price.micros();
                let mut told = offers.clone();
                told[0].price = micros(price);
                let ranked = rank(&told, micros(budget), weight);
                if ranked[0].0.bid != told[0].bid {
                    return 0;
                }
                let rival = ranked.get(1).map(|(offer, _)| *offer);
                critical_price(&ranked[0].0, rival.as_ref(), micros(budget), weight, micros(budget)).micros() - truth
            };
            prop_assert!(gain(lie) <= gain(offers[0].price.micros()));
        }
    }
}
