//! `PUT /agents/{id}/module`: the bytes of a hosted agent's module.
//!
//! Who may do it is decided before the first byte of the body is read, so that a stranger's upload costs nothing.

use std::time::Duration;

use axum::{
    extract::{Extension, Path, Request, State},
    http::{
        HeaderMap, StatusCode,
        header::{CONTENT_LENGTH, CONTENT_TYPE},
    },
    response::Response,
};
use entity::{agent, agent_module, id::AgentId};
use sea_orm::EntityTrait;
use serde_json::json;

use super::{
    Edge, RequestId,
    answer::{self, Fault, code},
    auth,
};
use crate::{
    agent::{
        modules::{Interface, Invalid, ModulesError, Stored},
        rules::may_host,
        set_module,
    },
    caller::{Caller, Scope},
    error::Error,
};

/// How long an upload may take.
const PATIENCE: Duration = Duration::from_mins(2);

/// The handler.
pub(super) async fn put(
    State(edge): State<Edge>,
    Extension(RequestId(id)): Extension<RequestId>,
    Path(agent): Path<String>,
    request: Request,
) -> Response {
    match take(&edge, &agent, request).await {
        Ok(module) => answer::body(
            StatusCode::OK,
            answer::JSON,
            &json!({
                "agentId": module.agent_id.to_string(),
                "moduleId": module.id.to_string(),
                "sha256": module.sha256,
                "sizeBytes": module.size_bytes,
                "interface": module.interface.name(),
            }),
        ),
        Err(fault) => fault.json(&id),
    }
}

async fn take(edge: &Edge, agent: &str, request: Request) -> Result<agent_module::Model, Fault> {
    let bearer = auth::bearer(request.headers())?;
    let caller = auth::caller(&edge.app, bearer.as_deref()).await?;
    caller.identity()?;
    let agent = controlled(edge, &caller, agent).await?;
    require_module(request.headers())?;
    let limit = edge.app.config().terms.max_module_bytes;
    if declared_length(request.headers()).is_some_and(|length| length > limit) {
        return Err(too_large(limit));
    }
    let chunks = request.into_body().into_data_stream();
    let storing = tokio::time::timeout(PATIENCE, edge.app.modules().store(chunks, limit));
    let stored = storing
        .await
        .map_err(|_| Fault::new(StatusCode::REQUEST_TIMEOUT, code::TIMEOUT, "The module did not arrive in time."))?;
    let stored = stored.map_err(|error| refused(error, limit))?;
    attach(edge, caller, agent, stored).await
}

/// The agent, if the caller may change it.
async fn controlled(edge: &Edge, caller: &Caller, agent: &str) -> Result<AgentId, Fault> {
    let id: AgentId = agent.parse().map_err(|_| Error::NotFound("agent"))?;
    let found = agent::Entity::find_by_id(id).one(edge.app.store().read()).await.map_err(Error::from)?;
    let agent = found.ok_or(Error::NotFound("agent"))?;
    caller.controls(&agent, Scope::AgentsWrite)?;
    may_host(&agent).map_err(Error::from)?;
    Ok(id)
}

/// The rows of an upload. It runs to its end even when the client goes away meanwhile.
async fn attach(edge: &Edge, caller: Caller, agent: AgentId, stored: Stored) -> Result<agent_module::Model, Fault> {
    let store = edge.app.store().clone();
    let (sha256, interface) = (hex::encode(stored.sha256), interface(stored.interface));
    let attached = edge.app.tracker().spawn(async move {
        store.write(caller, async move |work| set_module(work, agent, sha256, stored.size, interface).await).await
    });
    Ok(attached.await.map_err(Fault::internal)??)
}

/// The column's word for what the module store found out.
fn interface(found: Interface) -> agent_module::Interface {
    match found {
        Interface::WasiCommand => agent_module::Interface::WasiCommand,
        Interface::JsonAbi => agent_module::Interface::JsonAbi,
        Interface::WasiComponent => agent_module::Interface::WasiComponent,
    }
}

fn require_module(headers: &HeaderMap) -> Result<(), Fault> {
    let declared = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let declared = declared.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if matches!(declared.as_str(), "application/wasm" | "application/octet-stream") {
        Ok(())
    } else {
        let message = "Send the module as application/wasm.";
        Err(Fault::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, code::UNSUPPORTED_MEDIA, message))
    }
}

fn declared_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn too_large(limit: usize) -> Fault {
    let message = format!("The module is larger than {limit} bytes.");
    Fault::new(StatusCode::PAYLOAD_TOO_LARGE, code::TOO_LARGE, message)
}

fn refused(error: ModulesError, limit: usize) -> Fault {
    match error {
        ModulesError::Invalid(Invalid::TooLarge { .. }) => too_large(limit),
        ModulesError::Invalid(invalid) => {
            let (code, text) = (invalid.code(), invalid.to_string());
            Fault::new(StatusCode::UNPROCESSABLE_ENTITY, code, format!("The module is refused: {text}."))
        }
        ModulesError::Upload(_) => Fault::malformed("The body broke off."),
        error @ (ModulesError::Missing(_)
        | ModulesError::HashMismatch { .. }
        | ModulesError::Place { .. }
        | ModulesError::Store(_)
        | ModulesError::Interrupted(_)) => Fault::internal(error),
    }
}
