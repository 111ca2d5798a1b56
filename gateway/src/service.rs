//! The workers' API: routes, and what every request has in common.
//!
//! A handler reads its request, asks [`crate::admission`] who is calling, lets the
//! [`Office`](crate::office::Office) act, and answers. Every refusal is a problem document.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::map_response;
use axum::routing::{get, post};

use crate::office::Office;

mod attach;
mod blocks;
mod call;
mod challenge;
mod heartbeat;
mod keys;
mod manifest;
mod wipe;

use crate::problem::{Refusal, only_problems};
use tidegate_wire::ProblemKind;

/// The routes of the workers' listener. The connection adds a [`crate::admission::Caller`] to each request.
pub(crate) fn router(office: Arc<Office>) -> Router {
    Router::new()
        .route("/v1/challenge", post(challenge::challenge))
        .route("/v1/attach", post(attach::attach))
        .route("/v1/leases/{lease}/keys", post(keys::keys))
        .route("/v1/leases/{lease}/manifest", get(manifest::manifest))
        .route("/v1/leases/{lease}/blocks/{block}", get(blocks::block))
        .route("/v1/leases/{lease}/heartbeat", post(heartbeat::heartbeat))
        .route("/v1/leases/{lease}/wipe-certificate", post(wipe::wipe_certificate))
        .fallback(async || Refusal::new(ProblemKind::NotFound, ""))
        .method_not_allowed_fallback(async || Refusal::new(ProblemKind::MethodNotAllowed, ""))
        // Bodies are read by our own code, which stops at its own limit.
        .layer(DefaultBodyLimit::disable())
        .layer(map_response(only_problems))
        .with_state(office)
}
