//! `POST /v1/leases/{lease}/keys`: the keys of a window of blocks, recorded before they leave.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use tidegate_wire::KeyRequest;

use super::call::Call;
use crate::admission::Purpose;
use crate::json::json;
use crate::office::Office;
use crate::problem::Refusal;

/// The keys of a window of blocks of the caller's share; in the ledger before they leave.
#[cfg_attr(test, utoipa::path(
    post, path = "/v1/leases/{lease}/keys", tag = "worker",
    params(("lease" = tidegate_plan::LeaseId, Path)),
    request_body = KeyRequest,
    responses((status = 200, description = "Keys, sealed to the attachment", body = tidegate_wire::KeyGrant)),
))]
pub(super) async fn keys(
    State(office): State<Arc<Office>>,
    call: Call,
) -> Result<Response, Refusal> {
    let admitted = call.admit(&office, Purpose::Serve).await?;
    let request: KeyRequest = call.json().await?;
    Ok(json(&crate::releasing::release(&office, &admitted, &request).await?))
}
