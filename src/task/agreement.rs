//! What becomes of the result of one of several agents that do the same: paid when enough of the others gave the same one, given
//! back with a mark against the agent when they gave another, given back without one when nobody knows who is right. Who agrees
//! with whom is found out where the step is known; here a result learns its fate, under the lock of its task.

use entity::{id::TaskId, task::Acceptance, task::Status};

use super::{
    dispute::end,
    lock,
    rules::{self, Life, Step},
};
use crate::{
    caller::Caller,
    error::{Error, Result},
    store::Work,
};

/// What the others say about a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Enough of them gave the same.
    Agrees,
    /// Enough of them gave another one.
    Disagrees,
    /// There is no result on which enough of them agree.
    Undecided,
}

/// Settles a task whose result waits for those of the others. For the program itself. Answers whether it waited.
pub async fn judge(work: &mut Work, id: TaskId, verdict: Verdict) -> Result<bool> {
    if *work.caller() != Caller::System {
        return Err(Error::Forbidden("Agreement is found by the service itself."));
    }
    let task = lock(work, id).await?;
    if task.status != Status::Submitted || task.acceptance != Acceptance::Agreement {
        return Ok(false);
    }
    let (step, why) = match verdict {
        Verdict::Agrees => (Step::Accept, None),
        Verdict::Disagrees => {
            (Step::Disagree, Some(("DISAGREES", "Other agents that did the same agree on another result.")))
        }
        Verdict::Undecided => (Step::Expire, Some(("NO_AGREEMENT", "Too few of the agents gave the same result."))),
    };
    let turn = rules::next(&Life::of(&task, None), step)
        .ok_or_else(|| Error::internal(format!("{id} waits for the others and cannot {step:?}")))?;
    end(work, task, &turn, why).await?;
    Ok(true)
}
