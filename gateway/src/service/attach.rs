//! `POST /v1/attach`: a worker shows its token's proof and its identity, and gets a certificate.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use hyper::HeaderMap;
use tidegate_wire::AttachRequest;

use crate::json::{json, read};
use crate::office::Office;
use crate::problem::Refusal;

pub(super) async fn attach(
    State(office): State<Arc<Office>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let request: AttachRequest = read(&headers, body).await?;
    Ok(json(&crate::attaching::attach(&office, request).await?))
}
