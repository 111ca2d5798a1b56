//! `GET /v1/leases/{lease}/blocks/{n}`: one sealed block, streamed while it is sealed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use futures_util::StreamExt as _;
use hyper::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use tidegate_wire::{ProblemKind, SEALED_MEDIA_TYPE};

use super::call::Call;
use crate::admission::{Admitted, Purpose};
use crate::keepers::about_to_send;
use crate::meters;
use crate::office::Office;
use crate::problem::Refusal;
use crate::serving::Sealed;

/// One block of the caller's share, sealed while it is sent.
#[cfg_attr(test, utoipa::path(
    get, path = "/v1/leases/{lease}/blocks/{block}", tag = "worker",
    params(("lease" = tidegate_plan::LeaseId, Path), ("block" = u32, Path)),
    responses((status = 200, description = "Sealed bytes, their length said first", body = super::schema::Sealed, content_type = "application/octet-stream")),
))]
pub(super) async fn block(
    State(office): State<Arc<Office>>,
    call: Call,
) -> Result<Response, Refusal> {
    let admitted = call.admit(&office, Purpose::Serve).await?;
    let block = call
        .param("block")
        .parse::<u32>()
        .map_err(|_| Refusal::new(ProblemKind::Malformed, "a block is named by its number"))?;
    let asked = Instant::now();
    let sealed = crate::serving::block(&office, &admitted, block).await?;
    about_to_send(&office, &admitted).await?;
    let sending = Sending::new("block", asked, sealed.len);
    Ok(sealed_answer(&office, &admitted, sealed, sending))
}

/// The connection breaks off: the source changed under the reader, or the lease ended.
#[derive(Debug, thiserror::Error)]
#[error("the sealed bytes break off")]
pub(super) struct Torn;

/// Meters one block or manifest from its request to its last byte, or to where it broke off.
pub(super) struct Sending {
    what: &'static str,
    asked: Instant,
    left: AtomicU64,
}

impl Sending {
    /// The first sealed bytes are ready, of so many.
    pub(super) fn new(what: &'static str, asked: Instant, len: u64) -> Self {
        meters::SEAL.record(&[what], asked);
        Self { what, asked, left: AtomicU64::new(len) }
    }

    fn sent(&self, bytes: u64) {
        self.left.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if *self.left.get_mut() == 0 {
            meters::SERVE.record(&[self.what], self.asked);
            meters::SERVED.add_for(&[self.what], 1);
        } else {
            meters::TORN.add_for(&[self.what], 1);
        }
    }
}

/// Sends sealed bytes with their length said first, so that a torn stream is seen as torn. Counts
/// what is sent, holds to the rate, and stops when the lease is over.
pub(super) fn sealed_answer(
    office: &Arc<Office>,
    admitted: &Admitted,
    sealed: Sealed,
    sending: Sending,
) -> Response {
    let office = Arc::clone(office);
    let live = Arc::clone(&admitted.live);
    let presence = live.presence(admitted.rank);
    let sending = Arc::new(sending);
    let frames = sealed.frames.then(move |frame| {
        let (office, live, presence) =
            (Arc::clone(&office), Arc::clone(&live), Arc::clone(&presence));
        let sending = Arc::clone(&sending);
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
            sending.sent(frame.len() as u64);
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
