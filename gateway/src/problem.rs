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
