//! Gauges that are read from the database every so often. The statement finds everything by an index over what is open, live or due,
//! so what it costs grows with that and with the number of active agents, and not with the history.

use entity::time::Timestamp;
use sea_orm::{ConnectionTrait, QueryResult, Statement};

use super::{
    Metrics,
    label::{AgentRuntime, PoolState, Side},
};
use crate::{error::Result, store::Store};

/// What is sampled: the name of the column and the expression behind it.
const COUNTS: &[(&str, &str)] = &[
    ("auctions", "SELECT COUNT(*) FROM auctions WHERE status IN ('OPEN', 'REVEALING')"),
    ("channels", "SELECT COUNT(*) FROM channels WHERE status IN ('OPEN', 'CLOSING')"),
    (
        "tasks_wasm",
        "SELECT COUNT(*) FROM tasks t JOIN agents a ON a.id = t.agent_id WHERE t.status = 'RUNNING' AND a.runtime = 'HOSTED'",
    ),
    (
        "tasks_external",
        "SELECT COUNT(*) FROM tasks t JOIN agents a ON a.id = t.agent_id WHERE t.status = 'RUNNING' AND a.runtime = 'EXTERNAL'",
    ),
    (
        "agents_wasm",
        "SELECT COUNT(*) FROM agents WHERE status = 'ACTIVE' AND runtime = 'HOSTED' AND module_id IS NOT NULL",
    ),
    (
        "agents_external",
        "SELECT COUNT(*) FROM agents WHERE status = 'ACTIVE' AND runtime = 'EXTERNAL' AND last_seen_at >= {seen_since}",
    ),
    ("webhooks", "SELECT COUNT(*) FROM deliveries WHERE status = 'PENDING'"),
];

/// Sums and means, in the unit of the metric.
const NUMBERS: &[(&str, &str)] = &[
    (
        // An account of escrow holds something only while its task, channel or delegation is open.
        "locked",
        "SELECT SUM(balance) / 1000000.0 FROM (\
         SELECT balance FROM accounts WHERE kind = 'ESCROW_TASK' AND owner_id IN \
         (SELECT id FROM tasks WHERE deadline_at IS NOT NULL) \
         UNION ALL SELECT balance FROM accounts WHERE kind = 'ESCROW_CHANNEL' AND owner_id IN \
         (SELECT id FROM channels WHERE status IN ('OPEN', 'CLOSING')) \
         UNION ALL SELECT balance FROM accounts WHERE kind = 'ESCROW_DELEGATION' AND owner_id IN \
         (SELECT id FROM delegations WHERE deadline_at IS NOT NULL)) escrow",
    ),
    ("payer", "SELECT SUM(deposit - paid) / 1000000.0 FROM channels WHERE status IN ('OPEN', 'CLOSING')"),
    ("payee", "SELECT SUM(paid) / 1000000.0 FROM channels WHERE status IN ('OPEN', 'CLOSING')"),
    ("success", "SELECT SUM(successes) * 1.0 / NULLIF(SUM(tasks), 0) FROM reputations"),
    (
        "duration",
        "SELECT AVG(r.busy_ms / 1000.0 / r.successes) FROM agents a JOIN reputations r ON r.agent_id = a.id \
         WHERE a.status = 'ACTIVE' AND r.successes > 0",
    ),
    (
        "cost",
        "SELECT AVG(r.earned / 1000000.0 / r.successes) FROM agents a JOIN reputations r ON r.agent_id = a.id \
         WHERE a.status = 'ACTIVE' AND r.successes > 0",
    ),
];

/// The oldest of what is due, in microseconds since 1970.
const INSTANTS: &[(&str, &str)] = &[
    ("webhook", "SELECT MIN(next_at) FROM deliveries WHERE status = 'PENDING'"),
    ("auction", "SELECT MIN(deadline_at) FROM auctions WHERE deadline_at IS NOT NULL"),
    (
        "task",
        "SELECT MIN(deadline_at) FROM tasks WHERE deadline_at IS NOT NULL \
         AND status IN ('AWARDED', 'RUNNING', 'SUBMITTED', 'DISPUTED')",
    ),
    ("lease", "SELECT MIN(leased_until) FROM executions WHERE status = 'RUNNING'"),
    (
        "stream",
        "SELECT MIN(COALESCE(close_at, expires_at)) FROM channels WHERE purpose = 'STREAM' AND status <> 'CLOSED'",
    ),
    ("delegation", "SELECT MIN(deadline_at) FROM delegations WHERE deadline_at IS NOT NULL"),
];

/// The one statement, for agents that were seen since an instant.
fn statement(seen_since: Timestamp) -> String {
    let counts = COUNTS.iter().map(|(name, sql)| format!("({sql}) AS {name}"));
    let numbers = NUMBERS.iter().map(|(name, sql)| format!("CAST(COALESCE(({sql}), 0) AS DOUBLE PRECISION) AS {name}"));
    let instants = INSTANTS.iter().map(|(name, sql)| format!("({sql}) AS {name}"));
    let columns: Vec<String> = counts.chain(numbers).chain(instants).collect();
    format!("SELECT {}", columns.join(", ")).replace("{seen_since}", &seen_since.micros().to_string())
}

impl Metrics {
    /// Samples the gauges of the market from the database, and those of this process's connections to it.
    pub async fn sample(&self, store: &Store) -> Result<()> {
        let now = store.clock().now();
        let sql = statement(now.before(store.terms().presence));
        let statement = Statement::from_string(store.backend(), sql);
        let Some(row) = store.read().query_one_raw(statement).await? else { return Ok(()) };
        self.auctions_open.set(row.try_get("", "auctions")?);
        self.channels_active.set(row.try_get("", "channels")?);
        self.webhooks_pending.set(row.try_get("", "webhooks")?);
        for (runtime, tasks, agents) in [
            (AgentRuntime::Wasm, "tasks_wasm", "agents_wasm"),
            (AgentRuntime::External, "tasks_external", "agents_external"),
        ] {
            self.tasks_running.at(runtime).set(row.try_get("", tasks)?);
            self.agents_online.at(runtime).set(row.try_get("", agents)?);
        }
        self.escrow_locked.set(row.try_get("", "locked")?);
        self.channel_balance.at(Side::Payer).set(row.try_get("", "payer")?);
        self.channel_balance.at(Side::Payee).set(row.try_get("", "payee")?);
        self.reputation_success_ratio.set(row.try_get("", "success")?);
        self.reputation_mean_task_duration.set(row.try_get("", "duration")?);
        self.reputation_mean_task_cost.set(row.try_get("", "cost")?);
        self.webhook_oldest_due.set(age(now, instant(&row, "webhook")?));
        let mut oldest = None;
        for name in ["auction", "task", "lease", "stream", "delegation"] {
            oldest = oldest.into_iter().chain(instant(&row, name)?).min();
        }
        self.sweep_oldest_due.set(age(now, oldest));
        self.outbox_oldest_event_age.set(age(now, store.oldest_untold().await?));
        let (size, idle, most) = store.pool();
        self.pool_connections.at(PoolState::Idle).set(idle.into());
        self.pool_connections.at(PoolState::Used).set(size.saturating_sub(idle).into());
        self.pool_limit.set(most.into());
        Ok(())
    }
}

fn instant(row: &QueryResult, name: &str) -> Result<Option<Timestamp>> {
    let micros: Option<i64> = row.try_get("", name)?;
    Ok(micros.map(Timestamp::from_micros))
}

/// For how many seconds an instant is over; 0 while it is not.
fn age(now: Timestamp, since: Option<Timestamp>) -> f64 {
    since.map_or(0.0, |since| now.since(since).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use sea_orm::DbBackend;

    use super::*;
    use crate::{
        config::{Storage, Terms},
        store::{Clock, Entropy},
    };

    /// What SQLite says that it will do: of the tables that grow with the history none is read from end to end, and of an index
    /// only a part. Reputations are one small row for an agent, and their sum needs all of them.
    #[tokio::test]
    async fn a_sample_reads_no_table_of_the_history_from_end_to_end() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::at(format!("sqlite:{}", folder.path().join("plan.db").display()));
        let clock = Clock::manual(Timestamp::from_micros(1_795_435_200_000_000));
        let store = Store::connect(&storage, Terms::default(), clock, Entropy::seeded(1)).await.unwrap();
        store.migrate().await.unwrap();
        let sql = format!("EXPLAIN QUERY PLAN {}", statement(store.clock().now()));
        let rows = store.read().query_all_raw(Statement::from_string(DbBackend::Sqlite, sql)).await.unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.try_get("", "detail").unwrap()).collect();
        assert!(plan.len() > 20, "{plan:#?}");
        // An index over live rows alone is short however long the table is.
        let short = ["_due", "executions_leased"];
        let scans: Vec<&String> = plan
            .iter()
            .filter(|step| {
                step.starts_with("SCAN ") && !["SCAN CONSTANT ROW", "SCAN reputations"].contains(&step.as_str())
            })
            .filter(|step| !step.starts_with("SCAN escrow") && !short.iter().any(|index| step.ends_with(index)))
            .collect();
        assert!(scans.is_empty(), "{scans:#?} in {plan:#?}");
        drop(store);
    }
}
