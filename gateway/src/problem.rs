//! Every refusal as one RFC 9457 document.

use axum::response::{IntoResponse, Response};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE};
use hyper::{HeaderMap, StatusCode};
use tidegate_wire::{Problem, ProblemKind};

/// A refusal on its way out. The text reaches the caller: it names no object, path or key.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) kind: ProblemKind,
    pub(crate) detail: String,
}

impl Refusal {
    pub(crate) fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }

    /// The one answer to strangers, the same for every cause.
    pub(crate) fn stranger() -> Self {
        Self::new(ProblemKind::Unauthenticated, "")
    }

    /// Our own fault: the cause goes to the log, the caller learns only that it failed.
    pub(crate) fn internal(what: &'static str, cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(cause = %cause, "{what}");
        Self::new(ProblemKind::Internal, "")
    }

    /// State or ledger could not be written or read back: nothing was released.
    pub(crate) fn unavailable(what: &'static str, cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(cause = %cause, "{what}");
        Self::new(ProblemKind::Unavailable, what)
    }
}

/// Turns what a framework answers on its own (a path that is not UTF-8, say) into a problem document.
pub(crate) async fn only_problems(response: Response) -> Response {
    let status = response.status();
    let is_problem =
        response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == Problem::MEDIA_TYPE);
    if is_problem || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let kind = match status {
        StatusCode::NOT_FOUND => ProblemKind::NotFound,
        StatusCode::METHOD_NOT_ALLOWED => ProblemKind::MethodNotAllowed,
        StatusCode::PAYLOAD_TOO_LARGE => ProblemKind::TooLarge,
        status if status.is_server_error() => ProblemKind::Internal,
        _ => ProblemKind::Malformed,
    };
    Refusal::new(kind, "").into_response()
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let problem = Problem::new(self.kind, self.detail);
        let status =
            StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(Problem::MEDIA_TYPE));
        headers.insert(CACHE_CONTROL, hyper::header::HeaderValue::from_static("no-store"));
        (status, headers, body).into_response()
    }
}
