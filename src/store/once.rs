//! Doing a thing once however often it is asked for: idempotency keys.
//!
//! The record is written in the transaction of the effect. A retry with the same key and the same input gets the first answer,
//! refusals included; the same key with another input is refused. When two calls with one key run at the same time, the primary
//! key of the record lets one of them commit, and the other undoes its work and answers what the first one did.

use std::{any::type_name_of_val, collections::HashMap};

use entity::{id::UserId, idempotency, text::JsonText};
use sea_orm::{ActiveValue::Set, ColumnTrait, Condition, ConnectionTrait, EntityTrait, QueryFilter, SqlErr};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use tracing::{Instrument, Span};

use super::{Notice, Store, Work, each, ended, failpoint, insert_all, padded, unit_of_work};
use crate::{
    caller::Caller,
    error::{Error, Refusal, Result, refusals},
};

/// Characters of a key at most.
const MAX_KEY: usize = 128;

refusals! {
    /// Why a key cannot be used.
    OnceRefused {
        /// The key was used for something else.
        IdempotencyKeyReused = "This idempotency key was used with another input. Use a new key for a new intent.",
    }
}

/// The key of one intent and what it intends.
#[derive(Clone, Debug)]
pub struct Once {
    operation: &'static str,
    key: String,
    input_hash: String,
}

impl Once {
    /// `input` is everything that makes this intent differ from another one; the key itself is not part of it.
    pub fn new(operation: &'static str, key: &str, input: &impl Serialize) -> Result<Self> {
        let printable = !key.is_empty() && key.len() <= MAX_KEY && key.bytes().all(|byte| byte.is_ascii_graphic());
        if !printable {
            return Err(Error::invalid("idempotencyKey", "must be 1 to 128 visible ASCII characters"));
        }
        let input_hash = hex::encode(Sha256::digest(serde_json::to_vec(input)?));
        Ok(Self { operation, key: key.to_owned(), input_hash })
    }

    /// The key that the client chose.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }
}

/// What came of a call, and whether it came of an earlier one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<T> {
    /// What the first call came to: a value, or a refusal.
    pub outcome: std::result::Result<T, Refusal>,
    /// Whether this call found it done.
    pub replayed: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Recorded {
    Done(serde_json::Value),
    Refused(Refusal),
}

impl Store {
    /// Runs `verb` as one unit of work, unless this intent has been answered before; then answers the same again. A refusal is an
    /// answer. What fails for another reason is not one, is not kept, and may be tried again with the same key.
    ///
    /// Who repeats an intent is not asked again whether they may: the caller of this checks that first.
    pub async fn write_once<T>(
        &self,
        caller: Caller,
        once: Once,
        verb: impl AsyncFnOnce(&mut Work) -> Result<T>,
    ) -> Result<Answer<T>>
    where
        T: Serialize + DeserializeOwned,
    {
        let span = unit_of_work(type_name_of_val(&verb), Some(once.operation));
        let done = self.once(caller, once, verb, &span).instrument(span.clone()).await;
        match &done {
            Ok(Answer { replayed: true, .. }) => drop(span.record("zerostate.outcome", "replayed")),
            Ok(Answer { outcome: Err(refusal), .. }) => {
                span.record("zerostate.outcome", "refused").record("zerostate.code", refusal.code.as_str());
            }
            Ok(Answer { outcome: Ok(_), .. }) | Err(_) => ended(&span, &done),
        }
        done.inspect_err(|error| self.notice_failure(error))
    }

    async fn once<T>(
        &self,
        caller: Caller,
        once: Once,
        verb: impl AsyncFnOnce(&mut Work) -> Result<T>,
        span: &Span,
    ) -> Result<Answer<T>>
    where
        T: Serialize + DeserializeOwned,
    {
        let user = caller.user()?;
        let mut work = self.begin(caller).await?;
        if let Some(record) = find(work.tx(), user, &once).await? {
            work.rollback().await?;
            return replay(&record, &once);
        }
        let outcome = match verb(&mut work).await {
            Ok(value) => Ok(value),
            Err(Error::Refused(refusal)) => {
                work = work.anew().await?;
                span.record("zerostate.begun_again", true);
                Err(refusal)
            }
            Err(error) => {
                let error = work.undo(error).await;
                // The same intent may have been done meanwhile, and that be what is in the way of this call.
                return match find(&self.0.writer, user, &once).await? {
                    Some(record) => replay(&record, &once),
                    None => Err(error),
                };
            }
        };
        failpoint("once::before_record");
        let row = record(user, &once, &outcome, &work)?;
        match idempotency::Entity::insert(row).exec_without_returning(work.tx()).await {
            Ok(_) => {
                work.commit(span).await?;
                Ok(Answer { outcome, replayed: false })
            }
            Err(error) if matches!(error.sql_err(), Some(SqlErr::UniqueConstraintViolation(_))) => {
                work.rollback().await?;
                self.notice(Notice::ToBeRetried);
                let record = find(&self.0.writer, user, &once).await?;
                let record = record.ok_or(Error::Unavailable("An identical request was in progress; try again."))?;
                replay(&record, &once)
            }
            Err(error) => Err(work.undo(error.into()).await),
        }
    }
}

/// The row by which an answer is known again.
fn record<T: Serialize>(
    user: UserId,
    once: &Once,
    outcome: &std::result::Result<T, Refusal>,
    work: &Work,
) -> Result<idempotency::ActiveModel> {
    let recorded = match outcome {
        Ok(value) => Recorded::Done(serde_json::to_value(value)?),
        Err(refusal) => Recorded::Refused(refusal.clone()),
    };
    Ok(idempotency::ActiveModel {
        user_id: Set(user),
        operation: Set(once.operation.to_owned()),
        key: Set(once.key.clone()),
        input_hash: Set(once.input_hash.clone()),
        answer: Set(JsonText(serde_json::to_string(&recorded)?)),
        created_at: Set(work.now()),
    })
}

/// The answers that intents of one operation have had already, in their order. One statement.
pub async fn answered<T: DeserializeOwned>(
    work: &Work,
    intents: &[(UserId, &Once)],
) -> Result<Vec<Option<Result<Answer<T>>>>> {
    let wanted = padded(intents.iter().copied());
    let wanted = wanted.into_iter().map(|(user, once)| idempotency::Entity::find().filter(is(user, once)));
    let records = match each(wanted) {
        Some(select) => select.all(work.tx()).await?,
        None => Vec::new(),
    };
    let records: HashMap<_, _> =
        records.iter().map(|it| ((it.user_id, it.operation.as_str(), it.key.as_str()), it)).collect();
    let known = |(user, once): &(UserId, &Once)| records.get(&(*user, once.operation, once.key.as_str())).copied();
    Ok(intents.iter().map(|intent| known(intent).map(|record| replay(record, intent.1))).collect())
}

/// Keeps the answers to intents. One statement. Says no when one of them was answered before; the unit of work has to be undone then.
pub async fn keep<T: Serialize>(
    work: &Work,
    answers: &[(UserId, &Once, &std::result::Result<T, Refusal>)],
) -> Result<bool> {
    if answers.is_empty() {
        return Ok(true);
    }
    let rows = answers.iter().map(|(user, once, outcome)| record(*user, once, outcome, work));
    let rows = rows.collect::<Result<Vec<_>>>()?;
    match insert_all(work.tx(), rows).await {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.sql_err(), Some(SqlErr::UniqueConstraintViolation(_))) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

async fn find(db: &impl ConnectionTrait, user: UserId, once: &Once) -> Result<Option<idempotency::Model>> {
    Ok(idempotency::Entity::find().filter(is(user, once)).one(db).await?)
}

fn is(user: UserId, once: &Once) -> Condition {
    Condition::all()
        .add(idempotency::Column::UserId.eq(user))
        .add(idempotency::Column::Operation.eq(once.operation))
        .add(idempotency::Column::Key.eq(once.key.as_str()))
}

fn replay<T: DeserializeOwned>(record: &idempotency::Model, once: &Once) -> Result<Answer<T>> {
    if record.input_hash != once.input_hash {
        return Err(OnceRefused::IdempotencyKeyReused.into());
    }
    let outcome = match serde_json::from_str(&record.answer.0)? {
        Recorded::Done(value) => Ok(serde_json::from_value(value)?),
        Recorded::Refused(refusal) => Err(refusal),
    };
    Ok(Answer { outcome, replayed: true })
}
