//! `GET /v1/leases/{lease}/blocks/{n}`: one sealed block, streamed while it is sealed.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use futures_util::StreamExt as _;
use hyper::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use tidegate_wire::{ProblemKind, SEALED_MEDIA_TYPE};

use super::call::Call;
use crate::admission::{Admitted, Purpose};
use crate::keepers::about_to_send;
use crate::office::Office;
use crate::problem::Refusal;
use crate::serving::Sealed;

pub(super) async fn block(
    State(office): State<Arc<Office>>,
    call: Call,
) -> Result<Response, Refusal> {
    let admitted = call.admit(&office, Purpose::Serve).await?;
    let block = call
        .param("block")
        .parse::<u32>()
        .map_err(|_| Refusal::new(ProblemKind::Malformed, "a block is named by its number"))?;
    let sealed = crate::serving::block(&office, &admitted, block).await?;
    about_to_send(&office, &admitted).await?;
    Ok(sealed_answer(&office, &admitted, sealed))
}

/// The connection breaks off: the source changed under the reader, or the lease ended.
#[derive(Debug, thiserror::Error)]
#[error("the sealed bytes break off")]
struct Torn;

/// Sends sealed bytes with their length said first, so that a torn stream is seen as torn. Counts
/// what is sent, holds to the rate, and stops when the lease is over.
pub(super) fn sealed_answer(office: &Arc<Office>, admitted: &Admitted, sealed: Sealed) -> Response {
    let office = Arc::clone(office);
    let live = Arc::clone(&admitted.live);
    let presence = live.presence(admitted.rank);
    let frames = sealed.frames.then(move |frame| {
        let (office, live, presence) =
            (Arc::clone(&office), Arc::clone(&live), Arc::clone(&presence));
        async move {
            let frame = frame.map_err(|cause| {
                tracing::warn!(lease = %live.id, %cause, "a block was torn while it was sent");
                Torn
            })?;
            if let Some(rate) = &office.rate {
                rate.take(frame.len() as u64).await;
            }
            if live.is_over() {
                return Err(Torn);
            }
            presence.sent(frame.len() as u64);
            Ok(frame)
        }
    });
    let mut response = Response::new(Body::from_stream(frames));
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(sealed.len));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(SEALED_MEDIA_TYPE));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
