//! A delegation as a whole: its steps, their tasks and the delegations below, how far it has come and what it costs. For reading.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use entity::{
    delegation, delegation_step,
    delegation_step::{Kind, Status as StepStatus},
    delegation_task,
    id::{DelegationId, StepId, TaskId},
    money::Amount,
    task, transfer,
};
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder};

use super::rules;
use crate::{
    error::{Error, Result},
    plan::Plan,
    task::rules::is_over,
};

/// A delegation with everything below it.
#[derive(Clone, Debug)]
pub struct Tree {
    pub row: delegation::Model,
    /// In the order of their positions.
    pub steps: Vec<Arc<Branch>>,
}

/// A step with everything below it.
#[derive(Clone, Debug)]
pub struct Branch {
    pub step: delegation_step::Model,
    /// What it bought, in the order of the attempts and replicas, each with the platform's share of its pay.
    pub tasks: Vec<(task::Model, Amount)>,
    /// The delegations that a group was, in the order of the attempts.
    pub children: Vec<Arc<Tree>>,
}

/// Where the credits of a part are. What is held, was paid and came back is together its budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cost {
    pub budget: Amount,
    /// Set aside for it.
    pub held: Amount,
    /// What agents were paid, the platform's share included.
    pub paid: Amount,
    /// The platform's share of it.
    pub fee: Amount,
    /// What it did not need.
    pub returned: Amount,
}

/// Reads a delegation with everything below it; a level at a time, so the number of statements does not depend on its size.
pub async fn tree(db: &impl ConnectionTrait, root: delegation::Model) -> Result<Tree> {
    let mut level = vec![root.id];
    let mut rows: HashMap<DelegationId, delegation::Model> = HashMap::from([(root.id, root.clone())]);
    let mut steps: HashMap<DelegationId, Vec<delegation_step::Model>> = HashMap::new();
    let mut children: HashMap<StepId, Vec<DelegationId>> = HashMap::new();
    while !level.is_empty() {
        let found = delegation_step::Entity::find()
            .filter(delegation_step::Column::DelegationId.is_in(level.iter().copied()))
            .order_by_asc(delegation_step::Column::Position)
            .all(db)
            .await?;
        for step in found {
            steps.entry(step.delegation_id).or_default().push(step);
        }
        let below = delegation::Entity::find()
            .filter(delegation::Column::ParentId.is_in(level.iter().copied()))
            .order_by_asc(delegation::Column::Attempt)
            .all(db)
            .await?;
        level = below.iter().map(|row| row.id).collect();
        for row in below {
            if let Some(step) = row.step_id {
                children.entry(step).or_default().push(row.id);
            }
            rows.insert(row.id, row);
        }
    }
    let tasks = tasks_of(db, &rows, &steps).await?;
    let mut parts = Parts { rows, steps, children, tasks };
    parts.take(root.id)
}

/// The tasks of all steps with the platform's share of their pay.
async fn tasks_of(
    db: &impl ConnectionTrait,
    rows: &HashMap<DelegationId, delegation::Model>,
    steps: &HashMap<DelegationId, Vec<delegation_step::Model>>,
) -> Result<HashMap<StepId, Vec<(task::Model, Amount)>>> {
    let bought = task::Entity::find().filter(task::Column::DelegationId.is_in(rows.keys().copied())).all(db).await?;
    let mut by_id: HashMap<TaskId, task::Model> = bought.into_iter().map(|task| (task.id, task)).collect();
    let mut fees: HashMap<TaskId, Amount> = HashMap::new();
    let paid = transfer::Entity::find()
        .filter(transfer::Column::TaskId.is_in(by_id.keys().copied()))
        .filter(transfer::Column::Kind.eq(transfer::Kind::Fee))
        .all(db)
        .await?;
    for fee in paid {
        if let Some(task) = fee.task_id {
            let sum = fees.entry(task).or_default();
            *sum = [*sum, fee.amount].into_iter().sum();
        }
    }
    let links = delegation_task::Entity::find()
        .filter(delegation_task::Column::StepId.is_in(steps.values().flatten().map(|step| step.id)))
        .order_by_asc(delegation_task::Column::Attempt)
        .order_by_asc(delegation_task::Column::Replica)
        .all(db)
        .await?;
    let mut tasks: HashMap<StepId, Vec<(task::Model, Amount)>> = HashMap::new();
    for link in links {
        // One that was bought between the two statements is left for the next reader.
        if let Some(task) = by_id.remove(&link.task_id) {
            let fee = fees.get(&task.id).copied().unwrap_or_default();
            tasks.entry(link.step_id).or_default().push((task, fee));
        }
    }
    Ok(tasks)
}

struct Parts {
    rows: HashMap<DelegationId, delegation::Model>,
    steps: HashMap<DelegationId, Vec<delegation_step::Model>>,
    children: HashMap<StepId, Vec<DelegationId>>,
    tasks: HashMap<StepId, Vec<(task::Model, Amount)>>,
}

impl Parts {
    fn take(&mut self, id: DelegationId) -> Result<Tree> {
        let row = self.rows.remove(&id).ok_or_else(|| Error::internal("a delegation that is below itself"))?;
        let mut steps = Vec::new();
        for step in self.steps.remove(&id).unwrap_or_default() {
            let below = self.children.remove(&step.id).unwrap_or_default();
            let children = below.into_iter().map(|child| self.take(child).map(Arc::new)).collect::<Result<_>>()?;
            let tasks = self.tasks.remove(&step.id).unwrap_or_default();
            steps.push(Arc::new(Branch { step, tasks, children }));
        }
        Ok(Tree { row, steps })
    }
}

impl Tree {
    /// Where its credits are.
    #[must_use]
    pub fn cost(&self) -> Cost {
        let parts: Vec<Cost> = self.steps.iter().map(|branch| branch.cost()).collect();
        whole(self.row.budget, &parts, rules::is_over(self.row.status))
    }

    /// How much of its work is behind it, in whole percent: pieces of work, those of its groups included, that have ended in any way.
    pub fn progress(&self) -> Result<i32> {
        let (done, all) = self.pieces()?;
        let percent = done.saturating_mul(100).checked_div(all).unwrap_or(0);
        i32::try_from(percent).map_err(Error::internal)
    }

    fn pieces(&self) -> Result<(usize, usize)> {
        let mut sum = (0_usize, 0_usize);
        for branch in &self.steps {
            let (done, all) = branch.pieces()?;
            sum = (sum.0.saturating_add(done), sum.1.saturating_add(all));
        }
        Ok(sum)
    }

    /// How many different agents won work of it.
    #[must_use]
    pub fn agents(&self) -> usize {
        let mut known = BTreeSet::new();
        self.collect(&mut known);
        known.len()
    }

    fn collect(&self, known: &mut BTreeSet<entity::id::AgentId>) {
        for branch in &self.steps {
            known.extend(branch.tasks.iter().filter_map(|(task, _)| task.agent_id));
            branch.children.iter().for_each(|child| child.collect(known));
        }
    }
}

impl Branch {
    /// Where its credits are, those of all its attempts.
    #[must_use]
    pub fn cost(&self) -> Cost {
        let tasks = self.tasks.iter().map(|(task, fee)| of_task(task, *fee));
        let parts: Vec<Cost> = tasks.chain(self.children.iter().map(|child| child.cost())).collect();
        whole(self.step.budget, &parts, rules::is_ended(self.step.status))
    }

    fn pieces(&self) -> Result<(usize, usize)> {
        let ended = rules::is_ended(self.step.status);
        match (self.step.kind, &self.step.plan) {
            (Kind::Plan, _) => Ok((0, 0)),
            (Kind::Work, _) | (Kind::Group, None) => Ok((usize::from(ended), 1)),
            (Kind::Group, Some(plan)) => {
                let leaves = Plan::read(&plan.0).map_err(Error::internal)?.leaves();
                let running = self.step.status == StepStatus::Running;
                let done = match self.children.last() {
                    Some(child) if running => child.pieces()?.0,
                    Some(_) | None => 0,
                };
                Ok((if ended { leaves } else { done }, leaves))
            }
        }
    }
}

/// Where the credits of a task are.
#[must_use]
pub fn of_task(task: &task::Model, fee: Amount) -> Cost {
    let paid = task.paid.unwrap_or(Amount::ZERO);
    let held = if is_over(task.status) { Amount::ZERO } else { task.price.unwrap_or(task.budget) };
    let returned = task.budget.checked_sub(held).and_then(|rest| rest.checked_sub(paid)).unwrap_or(Amount::ZERO);
    Cost { budget: task.budget, held, paid, fee, returned }
}

/// Where the credits of something with parts are: what its parts were paid is gone, the rest is set aside for it until it is over.
fn whole(budget: Amount, parts: &[Cost], over: bool) -> Cost {
    let paid: Amount = parts.iter().map(|part| part.paid).sum();
    let fee = parts.iter().map(|part| part.fee).sum();
    let rest = budget.checked_sub(paid).unwrap_or(Amount::ZERO);
    let (held, returned) = if over { (Amount::ZERO, rest) } else { (rest, Amount::ZERO) };
    Cost { budget, held, paid, fee, returned }
}
