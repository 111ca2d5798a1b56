//! `POST /v1/leases/{lease}/keys`: the keys of a window of blocks, recorded before they leave.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::response::Response;
use hyper::HeaderMap;
use tidegate_wire::KeyRequest;

use crate::admission::{Caller, Purpose, admit};
use crate::json::{json, read};
use crate::office::Office;
use crate::problem::Refusal;

pub(super) async fn keys(
    State(office): State<Arc<Office>>,
    Extension(caller): Extension<Caller>,
    Path(lease): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let admitted = admit(&office, &caller, &lease, Purpose::Serve).await?;
    let request: KeyRequest = read(&headers, body).await?;
    Ok(json(&crate::releasing::release(&office, &admitted, &request).await?))
}
