//! What must be true after a fault, whatever it was.

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

use entity::money::Amount;
use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};
use serde_json::Value;

use super::workload::{Intent, Workload};

/// How long everything may take to come to its end: leases, starts and retries of all attempts, on a busy machine.
const DRAIN: Duration = Duration::from_secs(90);

/// The whole judgement of what clients did since the last one: `new` is added to `intents`. Answers how long it took until
/// everything had come to its end. The service works meanwhile.
pub async fn judge(url: &str, workload: &mut Workload, new: &mut Vec<Intent>, intents: &mut Vec<Intent>) -> Duration {
    let oracle = Oracle::open(url).await;
    oracle.everything_happened_as_it_was_answered(new).await;
    oracle.everything_is_answered_the_same(workload, new).await;
    workload.clear_up().await;
    let took = oracle.everything_ends().await;
    oracle.everything_happened_as_it_was_answered(new).await;
    intents.append(new);
    oracle.the_money_adds_up(workload, intents).await;
    oracle.close().await;
    took
}

/// A look into the database from outside.
pub struct Oracle(DatabaseConnection);

impl Oracle {
    pub async fn open(url: &str) -> Self {
        Self(sea_orm::Database::connect(url).await.unwrap())
    }

    /// The one number that a question asks for.
    pub async fn number(&self, question: &str) -> i64 {
        let statement = Statement::from_string(self.0.get_database_backend(), question.to_owned());
        let row = self.0.query_one_raw(statement).await.unwrap_or_else(|error| panic!("{question}: {error}"));
        row.unwrap().try_get("", "n").unwrap()
    }

    pub async fn close(self) {
        self.0.close().await.unwrap();
    }

    /// What was acknowledged is there exactly once, what was refused is not there, and what was not acknowledged is there once or
    /// not at all.
    pub async fn everything_happened_as_it_was_answered(&self, intents: &[Intent]) {
        for intent in intents {
            let found = self.number(&intent.operation.count.replace("{mark}", &intent.mark)).await;
            let right = match &intent.answer {
                Some(_) if intent.is_done() => found == 1,
                Some(_) => found == 0,
                None => found <= 1,
            };
            let (field, mark) = (intent.operation.field, &intent.mark);
            assert!(right, "{field} {mark} is there {found} times and was answered {:?}", intent.answer);
        }
    }

    /// Every intent is answered as it was before; what was never answered is answered now.
    pub async fn everything_is_answered_the_same(&self, workload: &mut Workload, intents: &mut [Intent]) {
        let mut ids: HashSet<(&str, String)> = HashSet::new();
        for intent in intents {
            let player = &mut workload.players[intent.by];
            let again = player.until_answered(&workload.board, intent.operation, &intent.variables).await;
            match &intent.answer {
                Some(before) => assert_eq!(again, *before, "{} is answered otherwise", intent.mark),
                None => workload.learn(intent, again),
            }
            let field = intent.operation.field;
            if let Some(id) = intent.answer.as_ref().and_then(id_of) {
                assert!(ids.insert((field, id)), "two intents of {field} did one thing: {:?}", intent.answer);
            }
        }
    }

    /// Time and the sweeper alone bring everything to its end.
    pub async fn everything_ends(&self) -> Duration {
        let since = Instant::now();
        for question in [
            "SELECT COUNT(*) AS n FROM delegations WHERE deadline_at IS NOT NULL",
            "SELECT COUNT(*) AS n FROM tasks WHERE deadline_at IS NOT NULL",
            "SELECT COUNT(*) AS n FROM holds WHERE status = 'HELD'",
            "SELECT COUNT(*) AS n FROM channels WHERE status <> 'CLOSED'",
            "SELECT COUNT(*) AS n FROM executions WHERE status IN ('READY', 'RUNNING')",
        ] {
            while self.number(question).await > 0 {
                assert!(since.elapsed() < DRAIN, "{question}: {}", self.number(question).await);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        since.elapsed()
    }

    /// Nothing is there that nobody asked for, and every wallet holds what was answered: what came in, less what went out, less
    /// what its tasks and streams paid.
    pub async fn the_money_adds_up(&self, workload: &Workload, intents: &[Intent]) {
        let mut totals: BTreeMap<&str, u64> = BTreeMap::new();
        let mut moved: BTreeMap<&str, i64> = BTreeMap::new();
        for intent in intents.iter().filter(|intent| intent.is_done()) {
            if let Some(total) = intent.operation.total {
                *totals.entry(total).or_insert_with(|| Workload::total_before(total)) += 1;
            }
            if intent.operation.moves != 0 {
                let input = &intent.variables["input"];
                let amount: Amount = input["amount"].as_str().unwrap().parse().unwrap();
                let user = input["userId"].as_str().unwrap_or_else(|| workload.id_of(intent.by));
                *moved.entry(user).or_default() += amount.micros() * intent.operation.moves;
            }
        }
        for (question, expected) in totals {
            assert_eq!(self.number(question).await, i64::try_from(expected).unwrap(), "{question}");
        }
        for (email, id, beginning) in workload.wallets() {
            let paid = self
                .number(&format!(
                    "SELECT CAST(COALESCE(SUM(tasks.paid), 0) AS BIGINT) AS n FROM tasks \
                     JOIN users ON users.id = tasks.requester_id WHERE users.email = '{email}'"
                ))
                .await;
            let balance = self
                .number(&format!(
                    "SELECT accounts.balance AS n FROM accounts JOIN users ON users.id = accounts.owner_id \
                     WHERE accounts.kind = 'USER' AND users.email = '{email}'"
                ))
                .await;
            let streamed = self
                .number(&format!(
                    "SELECT CAST(COALESCE(SUM(channels.paid), 0) AS BIGINT) AS n FROM channels \
                     JOIN users ON users.id = channels.payer_id WHERE channels.purpose = 'STREAM' AND users.email = '{email}'"
                ))
                .await;
            let expected = beginning + moved.get(id).unwrap_or(&0) - paid - streamed;
            assert_eq!(
                balance, expected,
                "the wallet of {email}, whose tasks paid {paid} and whose streams {streamed}"
            );
        }
    }
}

/// The id of the entity that an answer has.
fn id_of(answer: &Value) -> Option<String> {
    answer.as_object()?.values().find_map(|entity| entity["id"].as_str().map(str::to_owned))
}
