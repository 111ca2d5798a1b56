//! JSON in and out, with bounds on size and time.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::{IntoResponse as _, Response};
use bytes::BytesMut;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidegate_wire::{MAX_JSON_BODY, ProblemKind};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::problem::Refusal;

/// What a body may be.
#[derive(Clone, Copy)]
struct Bound {
    bytes: usize,
    /// One that takes longer than this comes from nobody who means it.
    time: Duration,
    /// So many more bytes renew its time; `None`: it is for the whole.
    renewed: Option<usize>,
    /// What is said of one that is larger.
    larger: &'static str,
}

const SMALL: Bound = Bound {
    bytes: MAX_JSON_BODY,
    time: Duration::from_secs(30),
    renewed: None,
    larger: "a body has at most 256 KiB",
};

/// A million listed paths of 250 bytes each.
const LARGE: Bound = Bound {
    bytes: 256 << 20,
    time: Duration::from_secs(120),
    renewed: None,
    larger: "a request has at most 256 MiB: select with globs, or take several leases",
};

/// Bytes of a body that shows thereby that it comes.
const PROGRESS: usize = 64 << 10;

/// Large bodies at once; others wait for their turn within their time.
static LARGE_TURN: Semaphore = Semaphore::const_new(1);

/// The same of bodies that may be longer than most.
static LONG_TURNS: Semaphore = Semaphore::const_new(8);

/// The turn of a long body, given back when dropped.
pub(crate) struct LongTurn(
    #[expect(dead_code, reason = "held")] OwnedSemaphorePermit,
    #[expect(dead_code, reason = "held")] SemaphorePermit<'static>,
);

/// Reads a whole JSON body. Its content is never repeated in an error.
pub(crate) async fn read<T: DeserializeOwned>(
    headers: &hyper::HeaderMap,
    body: Body,
) -> Result<T, Refusal> {
    let bytes = within(SMALL, headers, body).await?;
    serde_json::from_slice(&bytes).map_err(not_taken)
}

/// The same of a body of at most `most` bytes, which takes its time as long as it comes. Whoever sends more than
/// a small one waits for a turn, of its `own` and of all, and has it until that is dropped.
pub(crate) async fn read_within<T: DeserializeOwned>(
    most: usize,
    own: &Arc<Semaphore>,
    headers: &hyper::HeaderMap,
    body: Body,
) -> Result<(T, Option<LongTurn>), Refusal> {
    let larger = "the body is larger than this route takes";
    let bound = Bound { bytes: most, larger, renewed: Some(PROGRESS), ..SMALL };
    let turn = match is_small(headers) {
        true => None,
        false => Some(long_turn(own, bound.time).await?),
    };
    let bytes = within(bound, headers, body).await?;
    Ok((serde_json::from_slice(&bytes).map_err(not_taken)?, turn))
}

/// The same of a body that may be large, as only an administrator's may. Whoever sends more than a small
/// one waits for the turn to, and has it until what was read is let go.
pub(crate) async fn read_large<T: DeserializeOwned + Send + 'static>(
    headers: &hyper::HeaderMap,
    body: Body,
) -> Result<(T, Option<SemaphorePermit<'static>>), Refusal> {
    if is_small(headers) {
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

async fn long_turn(own: &Arc<Semaphore>, time: Duration) -> Result<LongTurn, Refusal> {
    let own = Arc::clone(own).acquire_owned();
    let turn = async { Some(LongTurn(own.await.ok()?, LONG_TURNS.acquire().await.ok()?)) };
    tokio::time::timeout(time, turn).await.ok().flatten().ok_or_else(|| {
        let detail = "other long requests are being read; ask again later";
        Refusal::new(ProblemKind::TooMany, detail)
    })
}

fn not_taken(_: serde_json::Error) -> Refusal {
    Refusal::new(ProblemKind::Malformed, "the body is not what this route takes")
}

/// How long a body says it is.
fn declared(headers: &hyper::HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn is_small(headers: &hyper::HeaderMap) -> bool {
    declared(headers).is_some_and(|len| len <= MAX_JSON_BODY as u64)
}

async fn within(bound: Bound, headers: &hyper::HeaderMap, body: Body) -> Result<Bytes, Refusal> {
    let too_large = || Refusal::new(ProblemKind::TooLarge, bound.larger);
    if declared(headers).is_some_and(|len| len > bound.bytes as u64) {
        pass_over(bound, body).await;
        return Err(too_large());
    }
    let mut body = Limited::new(body, bound.bytes);
    let mut whole = BytesMut::new();
    let (mut until, mut renewed) = (Instant::now() + bound.time, 0);
    // What is the link's fault and not that of what was sent may be sent again.
    let broken = |why| Refusal::new(ProblemKind::Unavailable, why);
    loop {
        match tokio::time::timeout_at(until, body.frame()).await {
            Err(_) => return Err(broken("the body took too long")),
            Ok(None) => return Ok(whole.freeze()),
            Ok(Some(Err(error))) if error.is::<LengthLimitError>() => return Err(too_large()),
            Ok(Some(Err(_))) => return Err(broken("the body broke off")),
            Ok(Some(Ok(frame))) => whole.extend_from_slice(&frame.into_data().unwrap_or_default()),
        }
        if bound.renewed.is_some_and(|more| whole.len() - renewed >= more) {
            (until, renewed) = (Instant::now() + bound.time, whole.len());
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{StreamExt as _, stream};

    /// Takes so long between its pieces, and ends or not.
    fn body(pieces: usize, pause: Duration, ends: bool) -> Body {
        let pieces = stream::iter(0..pieces).then(move |_| async move {
            tokio::time::sleep(pause).await;
            Ok::<_, std::io::Error>(Bytes::from(vec![b' '; PROGRESS]))
        });
        let end =
            if ends { stream::empty().left_stream() } else { stream::pending().right_stream() };
        Body::from_stream(pieces.chain(stream::iter([Ok(Bytes::from_static(b"1"))])).chain(end))
    }

    #[tokio::test]
    async fn a_body_has_its_time_as_long_as_it_comes() {
        let headers = hyper::HeaderMap::new();
        let once = Bound { bytes: 4 << 20, time: Duration::from_millis(200), ..SMALL };
        let bound = Bound { renewed: Some(PROGRESS), ..once };
        let slow = || body(16, Duration::from_millis(20), true);
        let whole = within(bound, &headers, slow()).await.unwrap();
        assert_eq!(whole.len(), 16 * PROGRESS + 1);
        for (bound, body) in [(once, slow()), (bound, body(2, Duration::ZERO, false))] {
            let refused = within(bound, &headers, body).await.unwrap_err();
            assert_eq!(refused.kind, ProblemKind::Unavailable);
        }
    }

    #[tokio::test]
    async fn a_long_body_waits_for_its_turn_and_a_small_one_does_not() {
        let most = 4 * MAX_JSON_BODY;
        let own = Arc::new(Semaphore::new(1));
        let unknown = hyper::HeaderMap::new();
        let mut reading =
            Box::pin(read_within::<u8>(most, &own, &unknown, body(1, Duration::ZERO, false)));
        assert!(tokio::time::timeout(Duration::ZERO, &mut reading).await.is_err());
        assert_eq!(own.available_permits(), 0, "it is being read");
        drop(reading);
        assert_eq!(own.available_permits(), 1);
        let (_, turn) = read_within::<u8>(most, &own, &unknown, Body::from("1")).await.unwrap();
        assert_eq!(own.available_permits(), 0, "whoever asked has it yet");
        drop(turn);
        // No turn comes any more.
        own.close();
        let refused = read_within::<u8>(most, &own, &unknown, Body::from("1")).await.err().unwrap();
        assert_eq!(refused.kind, ProblemKind::TooMany);
        for (len, wanted) in [(1, Some(1)), (MAX_JSON_BODY + 1, None)] {
            let mut headers = hyper::HeaderMap::new();
            headers.insert(CONTENT_LENGTH, HeaderValue::from(len));
            let read = read_within::<u8>(most, &own, &headers, Body::from("1")).await;
            assert_eq!(read.ok().map(|(read, _)| read), wanted, "{len}");
        }
    }
}
