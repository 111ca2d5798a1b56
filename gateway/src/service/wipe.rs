//! `POST /v1/leases/{lease}/wipe-certificate`: the worker's last words.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::response::Response;
use hyper::HeaderMap;
use tidegate_wire::WipeStatement;

use crate::admission::{Caller, Purpose, admit};
use crate::json::{json, read};
use crate::office::Office;
use crate::problem::Refusal;

pub(super) async fn wipe_certificate(
    State(office): State<Arc<Office>>,
    Extension(caller): Extension<Caller>,
    Path(lease): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let admitted = admit(&office, &caller, &lease, Purpose::Settle).await?;
    let statement: WipeStatement = read(&headers, body).await?;
    Ok(json(&crate::wiping::wiped(&office, &admitted, statement).await?))
}
