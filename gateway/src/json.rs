//! JSON in and out, with bounds on size and time.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::{IntoResponse as _, Response};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidegate_wire::{MAX_JSON_BODY, ProblemKind};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::problem::Refusal;

/// What a body may be.
#[derive(Clone, Copy)]
struct Bound {
    bytes: usize,
    /// One that takes longer than this comes from nobody who means it.
    time: Duration,
    /// What is said of one that is larger.
    larger: &'static str,
}

const SMALL: Bound = Bound {
    bytes: MAX_JSON_BODY,
    time: Duration::from_secs(30),
    larger: "a body has at most 256 KiB",
};

/// A million listed paths of 250 bytes each.
const LARGE: Bound = Bound {
    bytes: 256 << 20,
    time: Duration::from_secs(120),
    larger: "a request has at most 256 MiB: select with globs, or take several leases",
};

/// Large bodies at once; others wait for their turn within their time.
static LARGE_TURN: Semaphore = Semaphore::const_new(1);

/// Reads a whole JSON body. Its content is never repeated in an error.
pub(crate) async fn read<T: DeserializeOwned>(
    headers: &hyper::HeaderMap,
    body: Body,
) -> Result<T, Refusal> {
    let bytes = within(SMALL, headers, body).await?;
    serde_json::from_slice(&bytes).map_err(not_taken)
}

/// The same of a body of at most `most` bytes.
pub(crate) async fn read_within<T: DeserializeOwned>(
    most: usize,
    headers: &hyper::HeaderMap,
    body: Body,
) -> Result<T, Refusal> {
    let bound = Bound { bytes: most, larger: "the body is larger than this route takes", ..SMALL };
    let bytes = within(bound, headers, body).await?;
    serde_json::from_slice(&bytes).map_err(not_taken)
}

/// The same of a body that may be large, as only an administrator's may. Whoever sends more than a small
/// one waits for the turn to, and has it until what was read is let go.
pub(crate) async fn read_large<T: DeserializeOwned + Send + 'static>(
    headers: &hyper::HeaderMap,
    body: Body,
) -> Result<(T, Option<SemaphorePermit<'static>>), Refusal> {
    if declared(headers).is_some_and(|len| len <= MAX_JSON_BODY as u64) {
        return Ok((read(headers, body).await?, None));
    }
    let waited = tokio::time::timeout(LARGE.time, LARGE_TURN.acquire()).await;
    // Never closed, so only time can run out.
    let Ok(Ok(turn)) = waited else {
        let detail = "another large request is being read; ask again later";
        return Err(Refusal::new(ProblemKind::TooMany, detail));
    };
    let bytes = within(LARGE, headers, body).await?;
    let parsing = tokio::task::spawn_blocking(move || serde_json::from_slice(&bytes));
    let parsed = parsing.await.map_err(|error| Refusal::internal("a body was not read", &error))?;
    Ok((parsed.map_err(not_taken)?, Some(turn)))
}

fn not_taken(_: serde_json::Error) -> Refusal {
    Refusal::new(ProblemKind::Malformed, "the body is not what this route takes")
}

/// How long a body says it is.
fn declared(headers: &hyper::HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

async fn within(bound: Bound, headers: &hyper::HeaderMap, body: Body) -> Result<Bytes, Refusal> {
    let too_large = || Refusal::new(ProblemKind::TooLarge, bound.larger);
    if declared(headers).is_some_and(|len| len > bound.bytes as u64) {
        pass_over(bound, body).await;
        return Err(too_large());
    }
    let reading = Limited::new(body, bound.bytes).collect();
    match tokio::time::timeout(bound.time, reading).await {
        Err(_) => Err(Refusal::new(ProblemKind::Malformed, "the body took too long")),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Refusal::new(ProblemKind::Malformed, "the body broke off")),
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
    }
}

/// Reads a body away, a little of it at a time, so that a caller who is still writing gets to read
/// the refusal. Gives up on one that is far too long or too slow.
async fn pass_over(bound: Bound, body: Body) {
    let reading = async {
        let mut body = Limited::new(body, 4 * bound.bytes);
        while let Some(Ok(_)) = body.frame().await {}
    };
    // Whichever way it ends, the refusal is what is answered.
    let _ = tokio::time::timeout(bound.time, reading).await;
}

/// A JSON answer that nobody may keep.
pub(crate) fn json<T: Serialize>(value: &T) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => {
            let mut response = Response::new(Body::from(bytes));
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        Err(error) => Refusal::internal("an answer cannot be written", &error).into_response(),
    }
}
