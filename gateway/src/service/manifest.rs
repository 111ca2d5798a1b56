//! `GET /v1/leases/{lease}/manifest`: the share's map, sealed like a run of blocks.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;

use super::blocks::sealed_answer;
use super::call::Call;
use crate::admission::Purpose;
use crate::keepers::about_to_send;
use crate::office::Office;
use crate::problem::Refusal;

pub(super) async fn manifest(
    State(office): State<Arc<Office>>,
    call: Call,
) -> Result<Response, Refusal> {
    let admitted = call.admit(&office, Purpose::Serve).await?;
    let sealed = crate::serving::manifest(&office, &admitted).await?;
    about_to_send(&office, &admitted).await?;
    Ok(sealed_answer(&office, &admitted, sealed))
}
