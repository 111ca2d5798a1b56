use serde::{Deserialize, Serialize};

/// Why a request failed, sorted by who is at fault. The HTTP status follows from the kind, never from text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ProblemKind {
    /// 400: not a request we understand.
    Malformed,
    /// 401: no credential, or one that proves nothing. Says no more than that.
    Unauthenticated,
    /// 403: known caller, not allowed (outside the share, token bound to another worker).
    Forbidden,
    /// 404: no such route. Never used for objects of a lease.
    NotFound,
    /// 405
    MethodNotAllowed,
    /// 409: the object changed at home since the snapshot.
    SourceChanged,
    /// 410: the lease is closed or past its deadline.
    LeaseOver,
    /// 413
    TooLarge,
    /// 429
    TooMany,
    /// 500: our own fault; details are in the gateway's log.
    Internal,
    /// 502: the source at home failed.
    SourceUnavailable,
    /// 404: no such file or upload among the results.
    Absent,
    /// 409: the directory at home is not empty, or a name is taken by something of another kind.
    Occupied,
    /// 501: the store at home has nothing of the kind.
    NotOffered,
    /// 507: more results than the lease may bring home.
    OverBudget,
    /// 507: the store at home is full.
    NoSpace,
    /// 503: state or ledger cannot be written, or shutting down.
    Unavailable,
}

impl ProblemKind {
    pub const fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::SourceChanged => 409,
            Self::LeaseOver => 410,
            Self::TooLarge => 413,
            Self::TooMany => 429,
            Self::Internal => 500,
            Self::SourceUnavailable => 502,
            Self::Absent => 404,
            Self::Occupied => 409,
            Self::NotOffered => 501,
            Self::OverBudget | Self::NoSpace => 507,
            Self::Unavailable => 503,
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Malformed => "The request is not understood",
            Self::Unauthenticated => "Not authenticated",
            Self::Forbidden => "Not allowed",
            Self::NotFound => "No such resource",
            Self::MethodNotAllowed => "No such method here",
            Self::SourceChanged => "An object changed at home since the snapshot",
            Self::LeaseOver => "The lease is over",
            Self::TooLarge => "The request is too large",
            Self::TooMany => "Too many requests",
            Self::Internal => "The gateway failed",
            Self::SourceUnavailable => "The source at home cannot be read",
            Self::Absent => "There is no such result",
            Self::Occupied => "The name is in use at home",
            Self::NotOffered => "The store at home does not offer this",
            Self::OverBudget => "The lease may not bring more results home",
            Self::NoSpace => "The store at home is full",
            Self::Unavailable => "The gateway cannot serve this now",
        }
    }
}

/// An RFC 9457 problem document. `detail` never names an object, a path or a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// `https://tidegate.dev/problems/` + kind.
    #[serde(rename = "type")]
    pub type_uri: String,
    pub kind: ProblemKind,
    pub title: String,
    pub status: u16,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

impl Problem {
    pub const MEDIA_TYPE: &'static str = "application/problem+json";

    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        let slug = serde_json::to_value(kind)
            .ok()
            .and_then(|v| v.as_str().map(str::to_owned))
            .unwrap_or_default();
        Self {
            type_uri: format!("https://tidegate.dev/problems/{slug}"),
            kind,
            title: kind.title().into(),
            status: kind.status(),
            detail: detail.into(),
        }
    }
}
