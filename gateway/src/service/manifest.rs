//! `GET /v1/leases/{lease}/manifest`: the share's map, sealed like a run of blocks.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::response::Response;

use super::blocks::{Sending, sealed_answer};
use super::call::Call;
use crate::admission::Purpose;
use crate::keepers::about_to_send;
use crate::office::Office;
use crate::problem::Refusal;

/// The share's manifest, sealed.
#[cfg_attr(test, utoipa::path(
    get, path = "/v1/leases/{lease}/manifest", tag = "worker",
    params(("lease" = tidegate_plan::LeaseId, Path)),
    responses((status = 200, description = "Sealed bytes, their length said first", body = super::schema::Sealed, content_type = "application/octet-stream")),
))]
pub(super) async fn manifest(
    State(office): State<Arc<Office>>,
    call: Call,
) -> Result<Response, Refusal> {
    let admitted = call.admit(&office, Purpose::Serve).await?;
    let asked = Instant::now();
    let sealed = crate::serving::manifest(&office, &admitted).await?;
    about_to_send(&office, &admitted).await?;
    let sending = Sending::new("manifest", asked, sealed.len);
    Ok(sealed_answer(&office, &admitted, sealed, sending))
}
