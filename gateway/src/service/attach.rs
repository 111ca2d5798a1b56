//! `POST /v1/attach`: a worker shows its token's proof and its identity, and gets a certificate.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use hyper::HeaderMap;
use tidegate_wire::AttachRequest;
use tracing::Instrument as _;
use tracing::field::Empty;

use crate::json::{json, read};
use crate::lobby::Proved;
use crate::office::Office;
use crate::problem::Refusal;

/// Join a lease: a token's proof and an identity for a client certificate.
#[cfg_attr(test, utoipa::path(
    post, path = "/v1/attach", tag = "worker",
    request_body = AttachRequest,
    responses((status = 200, description = "Attached, and in the ledger", body = tidegate_wire::AttachResponse)),
))]
pub(super) async fn attach(
    State(office): State<Arc<Office>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let request: AttachRequest = read(&headers, body).await?;
    // Filled in once the caller has proved whose it is.
    let span = tracing::error_span!("attach", lease = Empty, rank = Empty);
    let mut response = json(&crate::attaching::attach(&office, request).instrument(span).await?);
    response.extensions_mut().insert(Proved);
    Ok(response)
}
