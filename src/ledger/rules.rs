//! The arithmetic of the ledger: from accounts and movements to new balances and entries, or a named no.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::collections::BTreeMap;

use entity::{
    account::{self, Kind},
    id::AccountId,
    money::Amount,
};

use crate::error::refusals;

refusals! {
    /// Why the ledger does not move credits.
    LedgerRefused {
        /// The debited account has less than the amount.
        InsufficientFunds = "The wallet does not hold enough credits.",
        /// An issue or a redemption names a reference that an earlier one of its kind named.
        ReferenceUsed = "This reference was used by an earlier operation of the same kind.",
        /// A sum would pass what a balance can hold.
        BalanceOverflow = "The balance would pass the largest amount that an account can hold.",
    }
}

/// One movement as the arithmetic sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leg {
    /// The account that the credits leave.
    pub debit: AccountId,
    /// The account that the credits reach.
    pub credit: AccountId,
    /// How much; more than zero.
    pub amount: Amount,
}

/// One side of a movement, with its place in its account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub account: AccountId,
    pub version: i64,
    pub amount: i64,
    pub previous: i64,
    pub current: i64,
}

/// Applies `legs` in order: the two entries of each, debit first. `accounts` end up with their new balances and versions. Only an
/// `EXTERNAL` account may go below zero, at no step.
pub fn apply(
    accounts: &mut BTreeMap<AccountId, account::Model>,
    legs: &[Leg],
) -> Result<Vec<[Entry; 2]>, LedgerRefused> {
    let mut entries = Vec::with_capacity(legs.len());
    for leg in legs {
        let debit = step(accounts, leg.debit, leg.amount.micros().checked_neg())?;
        let credit = step(accounts, leg.credit, Some(leg.amount.micros()))?;
        entries.push([debit, credit]);
    }
    Ok(entries)
}

fn step(
    accounts: &mut BTreeMap<AccountId, account::Model>,
    id: AccountId,
    amount: Option<i64>,
) -> Result<Entry, LedgerRefused> {
    // An account that the caller did not load has nothing to give and takes nothing.
    let account = accounts.get_mut(&id).ok_or(LedgerRefused::InsufficientFunds)?;
    let amount = amount.ok_or(LedgerRefused::BalanceOverflow)?;
    let previous = account.balance;
    let current = previous.checked_add(amount).ok_or(LedgerRefused::BalanceOverflow)?;
    if current < 0 && account.kind != Kind::External {
        return Err(LedgerRefused::InsufficientFunds);
    }
    account.balance = current;
    account.version = account.version.checked_add(1).ok_or(LedgerRefused::BalanceOverflow)?;
    Ok(Entry { account: id, version: account.version, amount, previous, current })
}

/// How a payout is shared: the platform's part, rounded down, and the agent's, which gets every remainder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    pub agent: Amount,
    pub fee: Amount,
}

/// Splits `amount` at `fee_bps` basis points.
#[must_use]
pub fn split_fee(amount: Amount, fee_bps: u16) -> Shares {
    let fee = amount.basis_points(fee_bps);
    Shares { agent: amount.checked_sub(fee).unwrap_or(Amount::ZERO), fee }
}

#[cfg(test)]
mod tests {
    use super::*;
    use entity::{money::MAX_AMOUNT, time::Timestamp};
    use proptest::prelude::*;
    use uuid::Uuid;

    fn books(balances: &[i64]) -> BTreeMap<AccountId, account::Model> {
        (0_u128..)
            .zip(balances)
            .map(|(number, balance)| {
                let id = AccountId(Uuid::from_u128(number));
                let kind = if number == 0 { Kind::External } else { Kind::User };
                let created_at = Timestamp::from_micros(0);
                (id, account::Model { id, kind, owner_id: id.0, shard: 0, balance: *balance, version: 0, created_at })
            })
            .collect()
    }

    fn leg(debit: u128, credit: u128, micros: i64) -> Leg {
        let account = |number| AccountId(Uuid::from_u128(number));
        Leg { debit: account(debit), credit: account(credit), amount: Amount::from_micros(micros).unwrap() }
    }

    #[test]
    fn a_wallet_never_goes_below_zero_and_the_outside_may() {
        assert_eq!(apply(&mut books(&[0, 10]), &[leg(1, 0, 11)]), Err(LedgerRefused::InsufficientFunds));
        let mut accounts = books(&[0, 0]);
        apply(&mut accounts, &[leg(0, 1, 11)]).unwrap();
        assert_eq!(accounts.values().map(|account| account.balance).collect::<Vec<_>>(), [-11, 11]);
    }

    #[test]
    fn credits_that_arrive_first_may_be_spent_in_the_same_batch() {
        assert!(apply(&mut books(&[0, 0, 0]), &[leg(0, 1, 5), leg(1, 2, 5)]).is_ok());
        assert!(apply(&mut books(&[0, 0, 0]), &[leg(1, 2, 5), leg(0, 1, 5)]).is_err());
    }

    #[test]
    fn an_account_that_was_not_loaded_moves_nothing() {
        assert_eq!(apply(&mut books(&[0]), &[leg(0, 9, 1)]), Err(LedgerRefused::InsufficientFunds));
    }

    proptest! {
        #[test]
        fn whatever_moves_nothing_is_made_or_lost(
            moves in prop::collection::vec((0_u128..5, 0_u128..5, 1_i64..1_000_000), 0..40),
        ) {
            let mut accounts = books(&[0, 500_000, 500_000, 0, 0]);
            let before: i64 = accounts.values().map(|account| account.balance).sum();
            for (debit, credit, micros) in moves {
                let untouched = accounts.clone();
                match apply(&mut accounts, &[leg(debit, credit, micros)]) {
                    Ok(entries) => {
                        for [debit, credit] in entries {
                            prop_assert_eq!(debit.amount, -credit.amount);
                            prop_assert_eq!(debit.previous + debit.amount, debit.current);
                            prop_assert_eq!(credit.previous + credit.amount, credit.current);
                        }
                    }
                    Err(_) => accounts = untouched,
                }
                prop_assert_eq!(accounts.values().map(|account| account.balance).sum::<i64>(), before);
                prop_assert!(accounts.values().all(|account| account.balance >= 0 || account.kind == Kind::External));
            }
        }

        #[test]
        fn a_fee_and_its_payout_make_the_whole(micros in 0..=MAX_AMOUNT.micros(), bps in 0..=10_000_u16) {
            let whole = Amount::from_micros(micros).unwrap();
            let shares = split_fee(whole, bps);
            prop_assert_eq!(shares.agent.checked_add(shares.fee), Some(whole));
        }
    }
}
