//! JSON in and out, with bounds on size and time.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidegate_wire::{MAX_JSON_BODY, ProblemKind};

use crate::problem::Refusal;

/// A body of 256 KiB that takes longer than this comes from nobody who means it.
const BODY_TIME: Duration = Duration::from_secs(30);

/// How much of a body that is too long is still read.
const PASSED_OVER: usize = 4 * MAX_JSON_BODY;

/// Reads a whole JSON body. Its content is never repeated in an error.
pub(crate) async fn read<T: DeserializeOwned>(
    headers: &hyper::HeaderMap,
    body: Body,
) -> Result<T, Refusal> {
    let too_large = || Refusal::new(ProblemKind::TooLarge, "a body has at most 256 KiB");
    let declared = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse::<u64>().ok());
    if declared.is_some_and(|len| len > MAX_JSON_BODY as u64) {
        pass_over(body).await;
        return Err(too_large());
    }
    let reading = Limited::new(body, MAX_JSON_BODY).collect();
    let bytes = match tokio::time::timeout(BODY_TIME, reading).await {
        Err(_) => return Err(Refusal::new(ProblemKind::Malformed, "the body took too long")),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(too_large()),
        Ok(Err(_)) => return Err(Refusal::new(ProblemKind::Malformed, "the body broke off")),
        Ok(Ok(whole)) => whole.to_bytes(),
    };
    serde_json::from_slice(&bytes)
        .map_err(|_| Refusal::new(ProblemKind::Malformed, "the body is not what this route takes"))
}

/// Reads a body away, a little of it at a time, so that a caller who is still writing gets to read
/// the refusal. Gives up on one that is far too long or too slow.
async fn pass_over(body: Body) {
    let reading = async {
        let mut body = Limited::new(body, PASSED_OVER);
        while let Some(Ok(_)) = body.frame().await {}
    };
    // Whichever way it ends, the refusal is what is answered.
    let _ = tokio::time::timeout(BODY_TIME, reading).await;
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
