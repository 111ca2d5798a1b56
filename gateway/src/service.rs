//! The workers' API: routes, and what every request has in common.
//!
//! A handler reads its request, asks [`crate::admission`] who is calling, lets the
//! [`Office`](crate::office::Office) act, and answers. Every refusal is a problem document.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request};
use axum::middleware::{Next, from_fn, map_response};
use axum::response::Response;
use axum::routing::{get, post};

use crate::meters;
use crate::office::Office;

mod attach;
mod blocks;
mod call;
mod challenge;
#[cfg(test)]
pub(crate) mod document;
mod heartbeat;
mod keys;
mod manifest;
mod results;
#[cfg(test)]
mod schema;
mod wipe;

use crate::problem::{Refusal, only_problems};
use tidegate_wire::ProblemKind;
use tracing::Instrument as _;

/// Counts and times a request under its route, not under its path.
async fn metered(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    let started = Instant::now();
    let span = tracing::error_span!("request", route);
    let response = next.run(request).instrument(span).await;
    meters::REQUEST.record(&[route], started);
    meters::REQUESTS.add_for(&[route, response.status().as_str()], 1);
    response
}

/// The routes of the workers' listener. The connection adds a [`crate::admission::Caller`] to each request.
pub(crate) fn router(office: Arc<Office>) -> Router {
    Router::new()
        .route("/openapi.json", get(crate::openapi::document))
        .route("/v1/challenge", post(challenge::challenge))
        .route("/v1/attach", post(attach::attach))
        .route("/v1/leases/{lease}/keys", post(keys::keys))
        .route("/v1/leases/{lease}/manifest", get(manifest::manifest))
        .route("/v1/leases/{lease}/blocks/{block}", get(blocks::block))
        .route("/v1/leases/{lease}/heartbeat", post(heartbeat::heartbeat))
        .route("/v1/leases/{lease}/wipe-certificate", post(wipe::wipe_certificate))
        .route("/v1/leases/{lease}/results/store", post(results::store))
        .route("/v1/leases/{lease}/results/begin", post(results::begin))
        .route("/v1/leases/{lease}/results/part", post(results::part))
        .route("/v1/leases/{lease}/results/copy", post(results::copy))
        .route("/v1/leases/{lease}/results/commit", post(results::commit))
        .route("/v1/leases/{lease}/results/abandon", post(results::abandon))
        .route("/v1/leases/{lease}/results/change", post(results::change))
        .route("/v1/leases/{lease}/results/list", post(results::list))
        .route("/v1/leases/{lease}/results/read", post(results::read))
        .fallback(async || Refusal::new(ProblemKind::NotFound, ""))
        .method_not_allowed_fallback(async || Refusal::new(ProblemKind::MethodNotAllowed, ""))
        // Bodies are read by our own code, which stops at its own limit.
        .layer(DefaultBodyLimit::disable())
        .layer(map_response(only_problems))
        .layer(from_fn(metered))
        .with_state(office)
}
