//! `POST /v1/leases/{lease}/results/…`: results on their way home. What each takes and answers is in
//! `tidegate_wire`.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use serde::Serialize;
use tidegate_wire::{
    AbandonRequest, BeginRequest, ChangeRequest, CommitRequest, CopyRequest, ListRequest,
    MAX_COMMIT_BODY, PartRequest, ReadRequest, SEALED_MEDIA_TYPE, StoreRequest,
};

use super::blocks::Torn;
use super::call::Call;
use crate::admission::Purpose;
use crate::bringing::{self, Bringing};
use crate::json::json;
use crate::meters;
use crate::office::Office;
use crate::problem::Refusal;
use crate::results::Framed;

type Answer = Result<Response, Refusal>;

/// Admits the caller to what its lease may bring home.
// Not an `async fn`, for the same reason as [`Call::admit`].
fn admitted(office: &Arc<Office>, call: &Call) -> impl Future<Output = Result<Bringing, Refusal>> {
    let admitting = call.admit(office, Purpose::Serve);
    async move { bringing::desk(office, admitting.await?).await }
}

fn answer<T: Serialize>(route: &'static str, asked: Instant, value: &T) -> Response {
    meters::RESULTS.record(&[route], asked);
    json(value)
}

/// A refusal of a body that may still be under way is answered once it was read away.
async fn refused((refusal, framed): (Refusal, Option<Framed>)) -> Refusal {
    if let Some(framed) = framed {
        framed.pass_over().await;
    }
    refusal
}

/// A file of one part or less, whole: a framed head (`StoreRequest`), then its sealed blocks.
#[cfg_attr(test, utoipa::path(
    post, path = "/v1/leases/{lease}/results/store", tag = "worker",
    params(("lease" = tidegate_plan::LeaseId, Path)),
    request_body(content = super::schema::Sealed, content_type = "application/octet-stream"),
    responses((status = 200, description = "At home, and in the ledger", body = tidegate_wire::Stored)),
))]
pub(super) async fn store(State(office): State<Arc<Office>>, call: Call) -> Answer {
    let asked = Instant::now();
    let bringing = admitted(&office, &call).await;
    let mut framed = call.framed();
    let bringing = match bringing {
        Ok(bringing) => bringing,
        Err(refusal) => return Err(refused((refusal, Some(framed))).await),
    };
    let head: StoreRequest = framed.head().await?;
    match bringing::store(&bringing, head, framed).await {
        Ok(stored) => Ok(answer("store", asked, &stored)),
        Err(error) => Err(refused(error).await),
    }
}

/// Begin a file of several parts.
#[cfg_attr(test, utoipa::path(
    post, path = "/v1/leases/{lease}/results/begin", tag = "worker",
    params(("lease" = tidegate_plan::LeaseId, Path)),
    request_body = BeginRequest,
    responses((status = 200, description = "Begun", body = tidegate_wire::BeginReply)),
))]
pub(super) async fn begin(State(office): State<Arc<Office>>, call: Call) -> Answer {
    let asked = Instant::now();
    let bringing = admitted(&office, &call).await?;
    let request: BeginRequest = call.json().await?;
    Ok(answer("begin", asked, &bringing::begin(&bringing, request).await?))
}

/// One part: a framed head (`PartRequest`), then its sealed blocks.
#[cfg_attr(test, utoipa::path(
    post, path = "/v1/leases/{lease}/results/part", tag = "worker",
    params(("lease" = tidegate_plan::LeaseId, Path)),
    request_body(content = super::schema::Sealed, content_type = "application/octet-stream"),
    responses((status = 200, description = "Durable at home", body = tidegate_wire::PartReceipt)),
))]
pub(super) async fn part(State(office): State<Arc<Office>>, call: Call) -> Answer {
    let asked = Instant::now();
    let bringing = admitted(&office, &call).await;
    let mut framed = call.framed();
    let bringing = match bringing {
        Ok(bringing) => bringing,
        Err(refusal) => return Err(refused((refusal, Some(framed))).await),
    };
    let head: PartRequest = framed.head().await?;
    match bringing::part(&bringing, head, framed).await {
        Ok(receipt) => Ok(answer("part", asked, &receipt)),
        Err(error) => Err(refused(error).await),
    }
}

/// A part that is the same in the version at home.
#[cfg_attr(test, utoipa::path(
    post, path = "/v1/leases/{lease}/results/copy", tag = "worker",
    params(("lease" = tidegate_plan::LeaseId, Path)),
    request_body = CopyRequest,
    responses((status = 200, description = "Durable at home", body = tidegate_wire::PartReceipt)),
))]
pub(super) async fn copy(State(office): State<Arc<Office>>, call: Call) -> Answer {
    let asked = Instant::now();
    let bringing = admitted(&office, &call).await?;
    let request: CopyRequest = call.json().await?;
    Ok(answer("copy", asked, &bringing::copy(&bringing, request).await?))
}

/// The file of these parts appears at home, whole.
#[cfg_attr(test, utoipa::path(
    post, path = "/v1/leases/{lease}/results/commit", tag = "worker",
    params(("lease" = tidegate_plan::LeaseId, Path)),
    request_body = CommitRequest,
    responses((status = 200, description = "At home, and in the ledger", body = tidegate_wire::Stored)),
))]
pub(super) async fn commit(State(office): State<Arc<Office>>, call: Call) -> Answer {
    let asked = Instant::now();
    let bringing = admitted(&office, &call).await?;
    let own = &bringing.admitted.live.long_bodies;
    let (request, turn) = call.json_within::<CommitRequest>(MAX_COMMIT_BODY, own).await?;
    drop(turn);
    Ok(answer("commit", asked, &bringing::commit(&bringing, request).await?))
}

/// Nobody will commit the upload.
#[cfg_attr(test, utoipa::path(
    post, path = "/v1/leases/{lease}/results/abandon", tag = "worker",
    params(("lease" = tidegate_plan::LeaseId, Path)),
    request_body = AbandonRequest,
    responses((status = 200, description = "Nothing is left of it; an empty object")),
))]
pub(super) async fn abandon(State(office): State<Arc<Office>>, call: Call) -> Answer {
    let asked = Instant::now();
    let bringing = admitted(&office, &call).await?;
    let request: AbandonRequest = call.json().await?;
    bringing::abandon(&bringing, request).await?;
    Ok(answer("abandon", asked, &serde_json::json!({})))
}

/// A change of names.
#[cfg_attr(test, utoipa::path(
    post, path = "/v1/leases/{lease}/results/change", tag = "worker",
    params(("lease" = tidegate_plan::LeaseId, Path)),
    request_body = ChangeRequest,
    responses((status = 200, description = "Changed at home, and in the ledger", body = tidegate_wire::Changed)),
))]
pub(super) async fn change(State(office): State<Arc<Office>>, call: Call) -> Answer {
    let asked = Instant::now();
    let bringing = admitted(&office, &call).await?;
    let request: ChangeRequest = call.json().await?;
    Ok(answer("change", asked, &bringing::change(&bringing, request).await?))
}

/// What is at home, a page at a time, for a lease that resumes.
#[cfg_attr(test, utoipa::path(
    post, path = "/v1/leases/{lease}/results/list", tag = "worker",
    params(("lease" = tidegate_plan::LeaseId, Path)),
    request_body = ListRequest,
    responses((status = 200, description = "A page", body = tidegate_wire::ListReply)),
))]
pub(super) async fn list(State(office): State<Arc<Office>>, call: Call) -> Answer {
    let asked = Instant::now();
    let bringing = admitted(&office, &call).await?;
    let request: ListRequest = call.json().await?;
    Ok(answer("list", asked, &bringing::list(&bringing, request).await?))
}

/// Bytes of a version at home; in the ledger before the first of them leaves.
#[cfg_attr(test, utoipa::path(
    post, path = "/v1/leases/{lease}/results/read", tag = "worker",
    params(("lease" = tidegate_plan::LeaseId, Path)),
    request_body = ReadRequest,
    responses((status = 200, description = "The range, plain, for the worker's memory", body = super::schema::Sealed, content_type = "application/octet-stream")),
))]
pub(super) async fn read(State(office): State<Arc<Office>>, call: Call) -> Answer {
    let asked = Instant::now();
    let bringing = admitted(&office, &call).await?;
    let request: ReadRequest = call.json().await?;
    let readable = bringing::read(&bringing, request).await?;
    meters::RESULTS.record(&["read"], asked);
    let len = readable.bytes.len();
    let (bytes, room) = (Bytes::from(readable.bytes), readable.room);
    let live = Arc::clone(&bringing.admitted.live);
    // The room is given back when the connection has the last of it, and nothing is sent once the lease is over.
    let frames = futures_util::stream::unfold((bytes, room), move |(mut bytes, room)| {
        let is_over = live.is_over();
        async move {
            let frame = bytes.split_to(bytes.len().min(FRAME));
            let frame = if is_over { Err(Torn) } else { Ok(frame) };
            let is_end = matches!(&frame, Ok(frame) if frame.is_empty());
            (!is_end).then_some((frame, (bytes, room)))
        }
    });
    let mut response = Response::new(Body::from_stream(frames));
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(len));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(SEALED_MEDIA_TYPE));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Bytes handed to the connection at once.
const FRAME: usize = 256 << 10;
