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

pub(super) async fn keys(
    State(office): State<Arc<Office>>,
    call: Call,
) -> Result<Response, Refusal> {
    let admitted = call.admit(&office, Purpose::Serve).await?;
    let request: KeyRequest = call.json().await?;
    Ok(json(&crate::releasing::release(&office, &admitted, &request).await?))
}
