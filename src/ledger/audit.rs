//! The audit: the invariants of the books as questions to the database, each of which answers how many rows break it.
//!
//! A whole audit reads everything. A recent one reads what the journal's newest transfers touch, so that it costs the same however
//! long the history is: damage to older rows is found by the next whole audit.
//!
//! Each question is one statement, or runs over lines that are never changed, so it sees one consistent state while the market
//! goes on. The words in braces stand for what a recent audit looks at; a whole one has `1 = 1` in their place.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use entity::time::Timestamp;
use sea_orm::{ConnectionTrait, DbBackend, Statement};
use uuid::Uuid;

use super::journal::{self, References, Signer};
use crate::{error::Result, store::first_id};

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
    /// Whether everything was read, or only what is recent.
    pub whole: bool,
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
        self.checks.iter().fold(0, |sum, check| sum.saturating_add(check.violations))
    }

    /// Adds what another module found to the check with this name.
    pub fn add(&mut self, name: &str, violations: u64) {
        for check in self.checks.iter_mut().filter(|check| check.name == name) {
            check.violations = check.violations.saturating_add(violations);
        }
    }
}

/// What an audit reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Everything.
    Whole,
    /// What transfers from an instant on touched, and the journal behind a place.
    Recent {
        /// From when on.
        since: Timestamp,
        /// Behind which place.
        place: i64,
    },
}

/// What a recent audit asks.
enum Recent {
    /// The same of the rows for which this holds; it takes the place of `{recent}`.
    Of(&'static str),
    /// Something else that takes the same rows.
    Instead(&'static str),
}

struct Invariant {
    name: &'static str,
    statement: &'static str,
    /// Counts violations in everything. It is written in what SQLite and PostgreSQL have in common.
    whole: &'static str,
    recent: Recent,
}

const INVARIANTS: &[Invariant] = &[
    Invariant {
        name: "L1",
        statement: "The balances of all accounts sum to zero.",
        whole: "SELECT CASE WHEN COALESCE(SUM(balance), 0) = 0 THEN 0 ELSE 1 END FROM accounts",
        recent: Recent::Instead(
            "SELECT CASE WHEN COALESCE(SUM(e.amount), 0) = 0 THEN 0 ELSE 1 END \
             FROM transfers t JOIN entries e ON e.transfer_id = t.id WHERE t.id >= {first}",
        ),
    },
    Invariant {
        name: "L2",
        statement: "No account but EXTERNAL is below zero.",
        whole: "SELECT COUNT(*) FROM accounts a WHERE a.balance < 0 AND a.kind <> 'EXTERNAL' AND {recent}",
        recent: Recent::Of("a.id IN {accounts}"),
    },
    Invariant {
        name: "L3",
        statement: "Every transfer has exactly two entries, minus its amount on the debit and plus its amount on the credit, and \
                    every entry has its transfer.",
        whole: "SELECT (SELECT COUNT(*) FROM (SELECT t.id FROM transfers t LEFT JOIN entries e ON e.transfer_id = t.id GROUP BY \
                t.id HAVING COUNT(e.version) <> 2 OR \
                SUM(CASE WHEN e.account_id = t.debit_id AND e.amount = -t.amount THEN 1 ELSE 0 END) <> 1 OR \
                SUM(CASE WHEN e.account_id = t.credit_id AND e.amount = t.amount THEN 1 ELSE 0 END) <> 1) broken) + \
                (SELECT COUNT(*) FROM entries e LEFT JOIN transfers t ON t.id = e.transfer_id WHERE t.id IS NULL)",
        recent: Recent::Instead(
            "SELECT COUNT(*) FROM (SELECT t.id FROM transfers t LEFT JOIN entries e ON e.transfer_id = t.id \
             WHERE t.id >= {first} GROUP BY t.id HAVING COUNT(e.version) <> 2 OR \
             SUM(CASE WHEN e.account_id = t.debit_id AND e.amount = -t.amount THEN 1 ELSE 0 END) <> 1 OR \
             SUM(CASE WHEN e.account_id = t.credit_id AND e.amount = t.amount THEN 1 ELSE 0 END) <> 1) broken",
        ),
    },
    Invariant {
        name: "L4",
        statement: "An account's entries are numbered from 1 without a gap, each begins where the one before ended, and the last \
                    one ends at the balance.",
        whole: "SELECT COUNT(*) FROM (SELECT a.id FROM accounts a LEFT JOIN (SELECT account_id, version, current, \
                ROW_NUMBER() OVER (PARTITION BY account_id ORDER BY version) AS place, \
                previous - LAG(current, 1, CAST(0 AS BIGINT)) OVER (PARTITION BY account_id ORDER BY version) AS jump \
                FROM entries) e ON e.account_id = a.id GROUP BY a.id, a.version, a.balance \
                HAVING COUNT(e.version) <> a.version OR COALESCE(SUM(ABS(e.jump)), 0) <> 0 OR \
                COALESCE(SUM(ABS(e.version - e.place)), 0) <> 0 OR \
                COALESCE(MAX(CASE WHEN e.version = a.version THEN e.current END), 0) <> a.balance) broken",
        recent: Recent::Instead(
            "SELECT (SELECT COUNT(*) FROM transfers t JOIN entries e ON e.transfer_id = t.id \
             LEFT JOIN entries p ON p.account_id = e.account_id AND p.version = e.version - 1 \
             WHERE t.id >= {first} AND (e.previous <> COALESCE(p.current, 0) OR (e.version > 1 AND p.version IS NULL))) + \
             (SELECT COUNT(*) FROM accounts a LEFT JOIN entries e ON e.account_id = a.id AND e.version = a.version \
             LEFT JOIN entries n ON n.account_id = a.id AND n.version = a.version + 1 WHERE a.id IN {accounts} AND \
             (e.current IS NULL OR e.current <> a.balance OR n.version IS NOT NULL))",
        ),
    },
    Invariant {
        name: "L5",
        statement: "An escrow account holds exactly its unresolved hold, a streaming channel's account what it has not paid, a \
                    bond's account the bond while it is held; and nothing once that is over.",
        whole: "SELECT COUNT(*) FROM accounts a LEFT JOIN holds h ON h.escrow_id = a.id \
                LEFT JOIN channels c ON c.id = a.owner_id AND a.kind = 'ESCROW_CHANNEL' AND c.purpose = 'STREAM' \
                LEFT JOIN bonds b ON b.id = a.owner_id AND a.kind = 'BOND' \
                WHERE a.kind IN ('ESCROW_TASK', 'ESCROW_CHANNEL', 'BOND') AND {recent} AND a.balance <> CASE \
                WHEN h.status = 'HELD' THEN h.amount WHEN c.status IN ('OPEN', 'CLOSING') THEN c.deposit - c.paid \
                WHEN b.status = 'HELD' THEN b.amount ELSE 0 END",
        recent: Recent::Of("a.id IN {accounts}"),
    },
    Invariant {
        name: "L6",
        statement: "A resolved hold has exactly one resolution, which shares out exactly its amount; an unresolved one has none.",
        whole: "SELECT COUNT(*) FROM holds h LEFT JOIN hold_resolutions r ON r.hold_id = h.id \
                WHERE {recent} AND ((h.status = 'HELD') <> (r.hold_id IS NULL) OR (r.hold_id IS NOT NULL AND \
                (r.posted + r.returned <> h.amount OR r.posted < 0 OR r.returned < 0 OR \
                (h.status = 'POSTED') <> (r.kind = 'POST'))))",
        recent: Recent::Of("h.escrow_id IN {accounts}"),
    },
    Invariant {
        name: "L7",
        statement: "A task that is over holds nothing; one that is not holds exactly once; it is COMPLETED if and only if its \
                    channel paid.",
        whole: "SELECT COUNT(*) FROM (SELECT t.id FROM tasks t LEFT JOIN holds h ON h.task_id = t.id \
                LEFT JOIN channels c ON c.id = t.channel_id LEFT JOIN hold_resolutions r ON r.hold_id = c.hold_id \
                WHERE {recent} GROUP BY t.id, t.status, t.finished_at, r.posted HAVING \
                SUM(CASE WHEN h.status = 'HELD' THEN 1 ELSE 0 END) <> CASE WHEN t.finished_at IS NULL THEN 1 ELSE 0 END OR \
                (t.status = 'COMPLETED') <> (COALESCE(r.posted, 0) > 0)) broken",
        recent: Recent::Of("t.id IN {tasks}"),
    },
    Invariant {
        name: "L8",
        statement: "A COMPLETED task has a stored result and exactly one piece of evidence, a success or a ruling; no other task \
                    has a success, and only a REFUNDED one may have been ruled.",
        whole: "SELECT COUNT(*) FROM (SELECT t.id FROM tasks t \
                LEFT JOIN task_results r ON r.task_id = t.id AND r.outcome = 'SUCCEEDED' \
                LEFT JOIN reputation_events e ON e.task_id = t.id AND e.cause IN ('SUCCESS', 'RULING') \
                WHERE {recent} GROUP BY t.id, t.status, r.task_id HAVING \
                (t.status = 'COMPLETED' AND (r.task_id IS NULL OR COUNT(e.id) <> 1)) OR \
                (t.status <> 'COMPLETED' AND SUM(CASE WHEN e.cause = 'SUCCESS' THEN 1 ELSE 0 END) > 0) OR \
                (t.status NOT IN ('COMPLETED', 'REFUNDED') AND COUNT(e.id) > 0)) broken",
        recent: Recent::Of("t.id IN {tasks}"),
    },
    Invariant {
        name: "L9",
        statement: "Credits come into the escrow of a task once and leave it only with its resolution, and none move in a streaming \
                    channel after its end.",
        // By the order of entries and not by instants: a clock may be set back between two movements. The end of a stream is the
        // newest entry of the instant at which it closed.
        whole: "SELECT (SELECT COUNT(*) FROM (SELECT h.id FROM accounts a JOIN holds h ON h.escrow_id = a.id \
                LEFT JOIN hold_resolutions r ON r.hold_id = h.id \
                LEFT JOIN transfers x ON x.debit_id = a.id AND (r.batch_id IS NULL OR x.batch_id <> r.batch_id) \
                LEFT JOIN transfers y ON y.credit_id = a.id \
                WHERE {recent} GROUP BY h.id HAVING COUNT(x.id) > 0 OR COUNT(DISTINCT y.id) <> 1) broken) + \
                (SELECT COUNT(*) FROM accounts a JOIN channels c ON c.id = a.owner_id AND c.purpose = 'STREAM' \
                JOIN entries e ON e.account_id = a.id AND e.created_at > c.closed_at \
                WHERE a.kind = 'ESCROW_CHANNEL' AND {recent} AND e.version > (SELECT MAX(l.version) FROM entries l \
                WHERE l.account_id = a.id AND l.created_at = c.closed_at))",
        recent: Recent::Of("a.id IN {accounts}"),
    },
    Invariant {
        name: "L10",
        statement: "A channel has paid what agents and fees received from it, at most its deposit; an escrow channel pays nothing \
                    while it is open.",
        whole: "SELECT COUNT(*) FROM (SELECT c.id FROM channels c LEFT JOIN transfers x ON x.channel_id = c.id AND \
                x.kind IN ('PAYOUT', 'FEE') WHERE {recent} GROUP BY c.id, c.paid, c.deposit, c.status, c.purpose \
                HAVING COALESCE(SUM(x.amount), 0) <> c.paid OR c.paid > c.deposit OR \
                (c.purpose = 'ESCROW' AND c.status = 'OPEN' AND c.paid <> 0)) broken",
        recent: Recent::Of("c.id IN {channels}"),
    },
    Invariant {
        name: "L11",
        statement: "A delegation holds what its budget has left after what its tasks hold and were paid and what delegations below \
                    it took, and nothing once it is over; then it has spent exactly that, at most its budget.",
        whole: "SELECT COUNT(*) FROM (SELECT d.id, d.budget, d.spent, d.finished_at, COALESCE(a.balance, 0) AS balance, \
                COALESCE((SELECT SUM(CASE WHEN h.status = 'HELD' THEN h.amount WHEN e.kind = 'ESCROW_CHANNEL' THEN r.posted ELSE 0 END) \
                FROM holds h JOIN accounts e ON e.id = h.escrow_id LEFT JOIN hold_resolutions r ON r.hold_id = h.id \
                WHERE h.payer_account_id = a.id), 0) + \
                COALESCE((SELECT SUM(COALESCE(n.spent, n.budget)) FROM delegations n WHERE n.parent_id = d.id), 0) AS gone \
                FROM delegations d LEFT JOIN accounts a ON a.owner_id = d.id AND a.kind = 'ESCROW_DELEGATION' WHERE {recent}) tree \
                WHERE gone > budget OR balance <> CASE WHEN finished_at IS NULL THEN budget - gone ELSE 0 END OR \
                (finished_at IS NOT NULL AND spent <> gone)",
        recent: Recent::Of(
            "d.id IN (SELECT t.owner_id FROM accounts t WHERE t.id IN {accounts} AND t.kind = 'ESCROW_DELEGATION')",
        ),
    },
    Invariant {
        name: "L12",
        statement: "Rebuilding gives what is stored: every balance from the amounts of its entries, and every reputation from its \
                    evidence, bit for bit.",
        whole: "SELECT COUNT(*) FROM (SELECT a.id FROM accounts a LEFT JOIN entries e ON e.account_id = a.id \
                GROUP BY a.id, a.balance HAVING COALESCE(SUM(e.amount), 0) <> a.balance) broken",
        recent: Recent::Instead(
            "SELECT COUNT(*) FROM transfers t JOIN entries e ON e.transfer_id = t.id \
             WHERE t.id >= {first} AND e.current <> e.previous + e.amount",
        ),
    },
];

const LINES: (&str, &str) =
    ("J1", "Every line of the sealed journal is in its place and is the hash of the line before and of its transfer.");
const HEADS: (&str, &str) = ("J2", "Every head of the journal is the market's signature over the line at its place.");
const SEALED: (&str, &str) = ("J3", "Every transfer that is older than the newest head has its place in the journal.");

/// The sum of all accounts in micro-credits, which is nothing while the books are right: it reads every account.
pub async fn imbalance(db: &impl ConnectionTrait) -> Result<i64> {
    let sql = "SELECT CAST(COALESCE(SUM(balance), 0) AS BIGINT) AS imbalance FROM accounts";
    let row = db.query_one_raw(Statement::from_string(db.get_database_backend(), sql)).await?;
    Ok(row.map(|row| row.try_get("", "imbalance")).transpose()?.unwrap_or(0))
}

/// The names of all checks, for metrics that have a series for each.
pub fn names() -> impl Iterator<Item = &'static str> {
    INVARIANTS.iter().map(|invariant| invariant.name).chain([LINES.0, HEADS.0, SEALED.0])
}

impl Invariant {
    /// The statement that counts violations.
    fn sql(&self, backend: DbBackend, first: Option<Uuid>) -> String {
        let Some(first) = first else { return self.whole.replace("{recent}", "1 = 1") };
        let touched = |column: &str| format!("SELECT {column} FROM transfers WHERE id >= {{first}}");
        let text = match self.recent {
            Recent::Of(rows) => self.whole.replace("{recent}", rows),
            Recent::Instead(other) => other.to_owned(),
        };
        text.replace("{accounts}", &format!("({} UNION {})", touched("debit_id"), touched("credit_id")))
            .replace("{tasks}", &format!("({} AND task_id IS NOT NULL)", touched("task_id")))
            .replace("{channels}", &format!("({} AND channel_id IS NOT NULL)", touched("channel_id")))
            .replace("{first}", &journal::literal(backend, first))
    }
}

/// Checks every invariant of the books and of their journal. What reputations add to L12 is not in it.
pub async fn audit(db: &impl ConnectionTrait, signer: Signer, references: References, reach: Reach) -> Result<Audit> {
    let (first, place) = match reach {
        Reach::Whole => (None, 0),
        Reach::Recent { since, place } => (Some(first_id(since)), place),
    };
    let mut checks = Vec::with_capacity(INVARIANTS.len().saturating_add(3));
    let backend = db.get_database_backend();
    for invariant in INVARIANTS {
        let sql = format!("SELECT CAST(({}) AS BIGINT) AS violations", invariant.sql(backend, first));
        let row = db.query_one_raw(Statement::from_string(backend, sql)).await?;
        let violations: i64 = row.map(|row| row.try_get("", "violations")).transpose()?.unwrap_or(0);
        let violations = u64::try_from(violations).unwrap_or(0);
        checks.push(Check { name: invariant.name, statement: invariant.statement, violations });
    }
    let unsealed = journal::unsealed_violations(db, first.unwrap_or(Uuid::nil())).await?;
    for ((name, statement), violations) in [
        (LINES, journal::broken_lines(db, references, place).await?),
        (HEADS, journal::broken_heads(db, signer, place).await?),
        (SEALED, unsealed),
    ] {
        checks.push(Check { name, statement, violations });
    }
    Ok(Audit { whole: reach == Reach::Whole, checks })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Storage, Terms},
        store::{Clock, Entropy, Store},
    };

    /// What SQLite says that it will do: every table that grows with the history is reached by a key, none is read from end to end.
    #[tokio::test]
    async fn a_recent_audit_reads_no_table_from_end_to_end() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::at(format!("sqlite:{}", folder.path().join("plan.db").display()));
        let clock = Clock::manual(Timestamp::from_micros(1_795_435_200_000_000));
        let store = Store::connect(&storage, Terms::default(), clock, Entropy::seeded(1)).await.unwrap();
        store.migrate().await.unwrap();
        let plan = async |sql: String| {
            let rows = store.read().query_all_raw(Statement::from_string(DbBackend::Sqlite, sql)).await.unwrap();
            rows.iter().map(|row| row.try_get::<String>("", "detail").unwrap()).collect::<Vec<_>>()
        };
        let aliases = [
            "a",
            "b",
            "c",
            "e",
            "h",
            "l",
            "n",
            "p",
            "r",
            "t",
            "x",
            "y",
            "transfers",
            "entries",
            "accounts",
            "channels",
        ];
        let scans = |plan: &[String]| {
            plan.iter().filter(|step| aliases.iter().any(|alias| *step == &format!("SCAN {alias}"))).count()
        };
        for invariant in INVARIANTS {
            let recent =
                plan(format!("EXPLAIN QUERY PLAN {}", invariant.sql(DbBackend::Sqlite, Some(Uuid::nil())))).await;
            assert_eq!(scans(&recent), 0, "{}: {recent:#?}", invariant.name);
        }
        let whole = plan(format!("EXPLAIN QUERY PLAN {}", INVARIANTS[0].sql(DbBackend::Sqlite, None))).await;
        assert!(whole.iter().any(|step| step.starts_with("SCAN accounts")), "the plan is not read: {whole:#?}");
    }
}
