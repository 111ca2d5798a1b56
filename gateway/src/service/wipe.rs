//! `POST /v1/leases/{lease}/wipe-certificate`: the worker's last words.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use tidegate_wire::{MAX_WIPE_BODY, WipeStatement};

use super::call::Call;
use crate::admission::Purpose;
use crate::json::json;
use crate::office::Office;
use crate::problem::Refusal;

/// The worker's statement of its wipe; the answer is the counter-signed certificate.
#[cfg_attr(test, utoipa::path(
    post, path = "/v1/leases/{lease}/wipe-certificate", tag = "worker",
    params(("lease" = tidegate_plan::LeaseId, Path)),
    request_body = tidegate_wire::WipeStatement,
    responses((status = 200, description = "Certified, and in the ledger", body = tidegate_wire::WipeReceipt)),
))]
pub(super) async fn wipe_certificate(
    State(office): State<Arc<Office>>,
    call: Call,
) -> Result<Response, Refusal> {
    let admitted = call.admit(&office, Purpose::Settle).await?;
    let own = &admitted.live.long_bodies;
    // Until it is certified: what it names is in memory for so long.
    let (statement, _turn) = call.json_within::<WipeStatement>(MAX_WIPE_BODY, own).await?;
    Ok(json(&crate::wiping::wiped(&office, &admitted, statement).await?))
}
