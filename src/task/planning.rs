//! Whether a plan can be carried out on this market: what the rules of plans say, and beyond them that schemas compile, times are
//! within the terms, and somebody could do each step. Asked before a delegation spends anything, and before an agent is paid for a
//! plan.

use std::time::Duration;

use entity::{
    agent, delegation,
    id::{AgentId, ModuleId, UserId},
    money::Amount,
    task,
    text::{JsonText, Words},
};
use sea_orm::{ConnectionTrait, EntityTrait};

use super::{Fault, schema};
use crate::{
    agent as agents,
    error::{Error, Result},
    plan::{
        Plan, PlanStep,
        rules::{self, Arranged, PlanRefused, Setting},
    },
    store::Work,
};

/// Characters of what is wrong with a plan that people are shown.
const MAX_MESSAGE: usize = 500;

/// Checks a plan of `requester`.
pub async fn arrange(work: &Work, requester: UserId, plan: &Plan, setting: &Setting<'_>) -> Result<Arranged> {
    let arranged = rules::arrange(plan, setting)?;
    let mut steps = Vec::new();
    pieces(plan, &mut steps);
    for step in steps {
        check_step(work, requester, step).await?;
    }
    Ok(arranged)
}

/// All steps of a plan and of its groups.
fn pieces<'a>(plan: &'a Plan, found: &mut Vec<&'a PlanStep>) {
    for step in &plan.steps {
        found.push(step);
        if let Some(plan) = &step.plan {
            pieces(plan, found);
        }
    }
}

async fn check_step(work: &Work, requester: UserId, step: &PlanStep) -> Result<()> {
    let terms = work.terms();
    if let Some(timeout) = step.timeout
        && (timeout.0 < Duration::from_millis(1) || timeout.0 > terms.max_run_timeout)
    {
        let most = terms.max_run_timeout.as_secs();
        return Err(at(step, "timeout", &format!("must be between one millisecond and {most} seconds")));
    }
    if let Some(closes_in) = step.closes_in
        && (closes_in.0 < Duration::from_secs(1) || closes_in.0 > terms.max_auction)
    {
        return Err(at(step, "closesIn", "must be between one second and 30 days"));
    }
    if let Some(output_schema) = &step.output_schema {
        schema::compile(output_schema)?;
    }
    if let Some(id) = &step.checker_id {
        checker(work.tx(), id).await?;
    }
    if step.plan.is_some() {
        return Ok(());
    }
    let capabilities = agents::normalise_capabilities(step.capabilities.clone(), true)?;
    offered(work, requester, &capabilities).await
}

fn at(step: &PlanStep, field: &str, why: &str) -> Error {
    let name: String = step.name.chars().take(40).collect();
    Error::invalid("plan", format!("has a step {name} whose {field} {why}"))
}

/// Fails unless somebody else than the requester has an active agent that can do all of this.
pub async fn offered(work: &Work, requester: UserId, capabilities: &Words) -> Result<()> {
    if agents::is_offered(work.tx(), capabilities, requester, &[]).await? {
        return Ok(());
    }
    Err(PlanRefused::UnknownCapability.at(capabilities.0.join(", ")).into())
}

/// The module of a hosted agent that checks outputs, as it is now.
pub async fn checker(db: &impl ConnectionTrait, id: &str) -> Result<ModuleId> {
    let unknown = || Error::from(PlanRefused::UnknownChecker.at(id.chars().take(40).collect::<String>()));
    let id: AgentId = id.parse().map_err(|_| unknown())?;
    let agent = agent::Entity::find_by_id(id).one(db).await?.ok_or_else(unknown)?;
    let ready = agent.runtime == agent::Runtime::Hosted && agent.status == agent::Status::Active;
    agent.module_id.filter(|_| ready).ok_or_else(unknown)
}

/// What a delegation's plan is carried out with: its budget without what making the plan may cost.
pub fn setting<'a>(row: &'a delegation::Model, input: &'a serde_json::Value, max_input: usize) -> Result<Setting<'a>> {
    let budget: Option<Amount> = row.budget.checked_sub(row.planning_budget);
    let budget = budget.ok_or_else(|| Error::internal("a plan costs more to make than there is"))?;
    Ok(Setting { goal: &row.goal, input: Some(input), budget, depth: row.depth, max_input })
}

/// What is wrong with the output of an agent that was to make a plan; nothing if it can be carried out.
pub async fn fault(work: &Work, task: &task::Model, output: &JsonText) -> Result<Option<Fault>> {
    let of = task.delegation_id.ok_or_else(|| Error::internal("a plan for no delegation"))?;
    let row = delegation::Entity::find_by_id(of).one(work.tx()).await?;
    let row = row.ok_or_else(|| Error::internal("a plan for a delegation that is not there"))?;
    let input = serde_json::from_str(&row.input.0)?;
    let wrong = match Plan::read(&output.0) {
        Ok(plan) => {
            let setting = setting(&row, &input, work.terms().max_input_bytes)?;
            match arrange(work, row.requester_id, &plan, &setting).await {
                Ok(_) => return Ok(None),
                Err(error @ (Error::Refused(_) | Error::Invalid { .. })) => {
                    let code = error.refusal_code().unwrap_or("INVALID_INPUT").to_owned();
                    format!("{code}: {error}")
                }
                Err(error) => return Err(error),
            }
        }
        Err(why) => why,
    };
    let message = format!("The output is not a plan that can be carried out. {wrong}");
    let message = message.chars().take(MAX_MESSAGE).collect();
    Ok(Some(Fault { code: "OUTPUT_NOT_A_PLAN".to_owned(), message, of_agent: true, output: None }))
}
