//! The audit: the invariants of the books as questions to the database. Each is one statement, so each sees one consistent state
//! while the market goes on, and each answers how many rows break it.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use sea_orm::{ConnectionTrait, Statement};

use crate::error::Result;

/// One invariant and how often it is broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The short name, stable, for example `L1`.
    pub name: &'static str,
    /// What must hold.
    pub statement: &'static str,
    /// How many rows break it.
    pub violations: u64,
}

/// The answer of an audit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    pub checks: Vec<Check>,
}

impl Audit {
    /// Whether every invariant holds.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.violations() == 0
    }

    /// How many rows break an invariant, over all of them.
    #[must_use]
    pub fn violations(&self) -> u64 {
        self.checks.iter().map(|check| check.violations).sum()
    }
}

/// Name, statement, and the SQL that counts violations. It is written in what SQLite and PostgreSQL have in common.
const CHECKS: &[(&str, &str, &str)] = &[
    (
        "L1",
        "The balances of all accounts sum to zero.",
        "SELECT CASE WHEN COALESCE(SUM(balance), 0) = 0 THEN 0 ELSE 1 END FROM accounts",
    ),
    (
        "L2",
        "No account but EXTERNAL is below zero.",
        "SELECT COUNT(*) FROM accounts WHERE balance < 0 AND kind <> 'EXTERNAL'",
    ),
    (
        "L3",
        "Every transfer has exactly two entries: minus its amount on the debit, plus its amount on the credit.",
        "SELECT COUNT(*) FROM (SELECT t.id FROM transfers t LEFT JOIN entries e ON e.transfer_id = t.id GROUP BY t.id \
         HAVING COUNT(e.version) <> 2 OR \
         SUM(CASE WHEN e.account_id = t.debit_id AND e.amount = -t.amount THEN 1 ELSE 0 END) <> 1 OR \
         SUM(CASE WHEN e.account_id = t.credit_id AND e.amount = t.amount THEN 1 ELSE 0 END) <> 1) broken",
    ),
    (
        "L4",
        "An account's entries are numbered from 1 without a gap, each begins where the one before ended, and the last one ends \
         at the balance.",
        "SELECT COUNT(*) FROM (SELECT a.id FROM accounts a LEFT JOIN (SELECT account_id, version, current, \
         ROW_NUMBER() OVER (PARTITION BY account_id ORDER BY version) AS place, \
         previous - LAG(current, 1, CAST(0 AS BIGINT)) OVER (PARTITION BY account_id ORDER BY version) AS jump \
         FROM entries) e ON e.account_id = a.id GROUP BY a.id, a.version, a.balance \
         HAVING COUNT(e.version) <> a.version OR COALESCE(SUM(ABS(e.jump)), 0) <> 0 OR \
         COALESCE(SUM(ABS(e.version - e.place)), 0) <> 0 OR \
         COALESCE(MAX(CASE WHEN e.version = a.version THEN e.current END), 0) <> a.balance) broken",
    ),
    (
        "L5",
        "An escrow account holds exactly its unresolved hold, a streaming channel's account what it has not paid, a bond's account \
         the bond while it is held; and nothing once that is over.",
        "SELECT COUNT(*) FROM accounts a LEFT JOIN holds h ON h.escrow_id = a.id \
         LEFT JOIN channels c ON c.id = a.owner_id AND a.kind = 'ESCROW_CHANNEL' AND c.purpose = 'STREAM' \
         LEFT JOIN bonds b ON b.id = a.owner_id AND a.kind = 'BOND' \
         WHERE a.kind IN ('ESCROW_TASK', 'ESCROW_CHANNEL', 'BOND') AND a.balance <> CASE WHEN h.status = 'HELD' THEN h.amount \
         WHEN c.status IN ('OPEN', 'CLOSING') THEN c.deposit - c.paid WHEN b.status = 'HELD' THEN b.amount ELSE 0 END",
    ),
    (
        "L6",
        "A resolved hold has exactly one resolution, which shares out exactly its amount; an unresolved one has none.",
        "SELECT COUNT(*) FROM holds h LEFT JOIN hold_resolutions r ON r.hold_id = h.id \
         WHERE (h.status = 'HELD') <> (r.hold_id IS NULL) OR \
         (r.hold_id IS NOT NULL AND (r.posted + r.returned <> h.amount OR (h.status = 'POSTED') <> (r.kind = 'POST')))",
    ),
    (
        "L7",
        "A task that is over holds nothing; one that is not holds exactly once; it is COMPLETED if and only if its channel paid.",
        "SELECT COUNT(*) FROM (SELECT t.id FROM tasks t LEFT JOIN holds h ON h.task_id = t.id \
         LEFT JOIN channels c ON c.id = t.channel_id LEFT JOIN hold_resolutions r ON r.hold_id = c.hold_id \
         GROUP BY t.id, t.status, t.finished_at, r.posted HAVING \
         SUM(CASE WHEN h.status = 'HELD' THEN 1 ELSE 0 END) <> CASE WHEN t.finished_at IS NULL THEN 1 ELSE 0 END OR \
         (t.status = 'COMPLETED') <> (COALESCE(r.posted, 0) > 0)) broken",
    ),
    (
        "L8",
        "A COMPLETED task has a stored result and exactly one piece of evidence, a success or a ruling; no other task has a \
         success, and only a REFUNDED one may have been ruled.",
        "SELECT COUNT(*) FROM (SELECT t.id FROM tasks t \
         LEFT JOIN task_results r ON r.task_id = t.id AND r.outcome = 'SUCCEEDED' \
         LEFT JOIN reputation_events e ON e.task_id = t.id AND e.cause IN ('SUCCESS', 'RULING') \
         GROUP BY t.id, t.status, r.task_id HAVING \
         (t.status = 'COMPLETED' AND (r.task_id IS NULL OR COUNT(e.id) <> 1)) OR \
         (t.status <> 'COMPLETED' AND SUM(CASE WHEN e.cause = 'SUCCESS' THEN 1 ELSE 0 END) > 0) OR \
         (t.status NOT IN ('COMPLETED', 'REFUNDED') AND COUNT(e.id) > 0)) broken",
    ),
    (
        "L9",
        "No credits move for a task after it is over.",
        "SELECT COUNT(*) FROM transfers x JOIN tasks t ON t.id = x.task_id WHERE x.created_at > t.finished_at",
    ),
    (
        "L10",
        "A channel has paid what agents and fees received from it, at most its deposit; an escrow channel pays \
         nothing while it is open.",
        "SELECT COUNT(*) FROM (SELECT c.id FROM channels c LEFT JOIN transfers x ON x.channel_id = c.id AND \
         x.kind IN ('PAYOUT', 'FEE') GROUP BY c.id, c.paid, c.deposit, c.status, c.purpose \
         HAVING COALESCE(SUM(x.amount), 0) <> c.paid OR c.paid > c.deposit OR (c.purpose = 'ESCROW' AND c.status = 'OPEN' AND c.paid <> 0)) broken",
    ),
];

/// Checks every invariant of the books.
pub async fn audit(db: &impl ConnectionTrait) -> Result<Audit> {
    let mut checks = Vec::with_capacity(CHECKS.len());
    for (name, statement, sql) in CHECKS.iter().copied() {
        let sql = format!("SELECT CAST(({sql}) AS BIGINT) AS violations");
        let row = db.query_one_raw(Statement::from_string(db.get_database_backend(), sql)).await?;
        let violations: i64 = row.map(|row| row.try_get("", "violations")).transpose()?.unwrap_or(0);
        checks.push(Check { name, statement, violations: u64::try_from(violations).unwrap_or(0) });
    }
    Ok(Audit { checks })
}
