//! `POST /v1/challenge`: a nonce for one attach. Anybody may ask; nothing is stored.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use tidegate_wire::Challenge;

use crate::json::json;
use crate::keyring::random;
use crate::nonce::NONCE_LIFE_S;
use crate::office::Office;

/// A nonce for one attach. Anybody may ask; nothing is stored.
#[cfg_attr(test, utoipa::path(
    post, path = "/v1/challenge", tag = "worker",
    responses((status = 200, description = "A nonce", body = Challenge)),
))]
pub(super) async fn challenge(State(office): State<Arc<Office>>) -> Response {
    let now = office.now();
    let nonce = office.nonces.issue(now, random::<8>());
    let expires_in = u32::try_from(NONCE_LIFE_S).unwrap_or(u32::MAX);
    json(&Challenge { nonce: nonce.as_slice().into(), expires_in, time: now })
}
