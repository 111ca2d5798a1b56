//! `GET /v1/leases/{lease}/manifest`: the share's map, sealed like a run of blocks.

use std::sync::Arc;

use axum::extract::{Extension, Path, State};
use axum::response::Response;

use super::blocks::sealed_answer;
use crate::admission::{Caller, Purpose, admit};
use crate::office::Office;
use crate::problem::Refusal;

pub(super) async fn manifest(
    State(office): State<Arc<Office>>,
    Extension(caller): Extension<Caller>,
    Path(lease): Path<String>,
) -> Result<Response, Refusal> {
    let admitted = admit(&office, &caller, &lease, Purpose::Serve).await?;
    let sealed = crate::serving::manifest(&office, &admitted).await?;
    Ok(sealed_answer(&office, &admitted, sealed))
}
