//! What an administrator can ask.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Extension, Path, State};
use axum::middleware::map_response;
use axum::response::Response;
use axum::routing::{get, post};
use hyper::HeaderMap;
use serde::{Deserialize, Serialize};
use tidegate_lease::{Event as LeaseEvent, Refusal as LeaseRefusal};
use tidegate_ledger::Action;
use tidegate_plan::{LeaseId, SelectionSpec};
use tidegate_wire::{JoinFile, ProblemKind};

use crate::closing::{Closed, cut_off, drain};
use crate::granting::{GrantError, GrantRequest, grant};
use crate::json::{json, read};
use crate::live::Live;
use crate::office::{AdvanceError, Office};
use crate::problem::{Refusal, only_problems};
use crate::record::RecordError;
use crate::source::{S3Options, SourceSpec};
use crate::status::{LeaseStatus, status};
use crate::tokens::{TokenError, further};

/// `POST /v1/admin/leases`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseRequest {
    /// A directory or `s3://bucket/prefix`.
    pub source: String,
    #[serde(default)]
    pub s3: S3Options,
    #[serde(default)]
    pub selection: SelectionSpec,
    #[serde(default = "one")]
    pub ranks: u16,
    #[serde(default)]
    pub only_rank: Option<u16>,
    /// Seconds until the deadline.
    pub duration_s: u64,
    /// Under whose name data leaves; the socket's caller when absent.
    #[serde(default)]
    pub subject: Option<String>,
    #[serde(default)]
    pub dataset: String,
}

const fn one() -> u16 {
    1
}

/// `POST /v1/admin/leases/{lease}/tokens`: answered with a join file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenRequest {
    #[serde(default)]
    rank: u16,
}

/// A name that cannot be shown as a POSIX path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unshown {
    pub name: String,
    pub reason: String,
}

/// Answer to [`LeaseRequest`]: holds join secrets.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Joined {
    pub lease: LeaseId,
    pub files: u64,
    pub bytes: u64,
    pub blocks: u64,
    pub deadline: u64,
    pub joins: Vec<JoinFile>,
    pub unshown: Vec<Unshown>,
}

/// `GET /v1/admin/status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub time: u64,
    /// Where workers connect.
    pub gateways: Vec<String>,
    pub open_leases: usize,
    pub sent_bytes: u64,
    /// Bytes of pipeline buffers in use.
    pub buffers: u64,
    /// Callers refused who proved nothing, since the start.
    pub strangers: u64,
}

/// `GET /v1/admin/ledger`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LedgerHead {
    pub checkpoint: String,
    pub key: String,
}

/// How a lease ended, on the wire.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ended {
    pub lease: LeaseId,
    pub status: LeaseStatus,
    pub certificates: Vec<String>,
    pub checkpoint: String,
}

type Answer = Result<Response, Refusal>;

/// The routes of the admin socket.
pub(crate) fn router(office: Arc<Office>) -> Router {
    Router::new()
        .route("/v1/admin/leases", post(create).get(list))
        .route("/v1/admin/leases/{lease}", get(show))
        .route("/v1/admin/leases/{lease}/revoke", post(end))
        .route("/v1/admin/leases/{lease}/drain", post(finish))
        .route("/v1/admin/leases/{lease}/tokens", post(token))
        .route("/v1/admin/status", get(state))
        .route("/v1/admin/ledger", get(ledger))
        .fallback(async || Refusal::new(ProblemKind::NotFound, ""))
        .method_not_allowed_fallback(async || Refusal::new(ProblemKind::MethodNotAllowed, ""))
        .layer(DefaultBodyLimit::disable())
        .layer(map_response(only_problems))
        .with_state(office)
}

/// User id of the process at the other end of the socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerUser(pub(crate) u32);

impl PeerUser {
    fn subject(self) -> String {
        format!("uid {}, admin socket", self.0)
    }
}

async fn create(
    State(office): State<Arc<Office>>,
    Extension(peer): Extension<PeerUser>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let request: LeaseRequest = read(&headers, body).await?;
    let source = SourceSpec::parse(&request.source, request.s3)
        .map_err(|error| Refusal::new(ProblemKind::Malformed, error.to_string()))?;
    let granted = grant(
        &office,
        GrantRequest {
            source,
            selection: request.selection,
            ranks: request.ranks,
            only_rank: request.only_rank,
            duration: Duration::from_secs(request.duration_s),
            subject: match request.subject {
                Some(name) => format!("{name}, asked for by {}", peer.subject()),
                None => peer.subject(),
            },
            dataset: request.dataset,
        },
    )
    .await
    .map_err(refused)?;
    let unshown = granted.unshown.into_iter().map(|(name, reason)| Unshown { name, reason });
    Ok(json(&Joined {
        lease: granted.lease,
        files: granted.terms.files,
        bytes: granted.terms.bytes,
        blocks: granted.terms.blocks,
        deadline: granted.deadline,
        joins: granted.joins,
        unshown: unshown.collect(),
    }))
}

/// An administrator is told the cause: the socket is theirs alone.
fn refused(error: GrantError) -> Refusal {
    let kind = match &error {
        GrantError::NotAllowed(_) => ProblemKind::Forbidden,
        GrantError::TooMany(_) => ProblemKind::TooMany,
        GrantError::Survey(_)
        | GrantError::NoDirectory { .. }
        | GrantError::NoSuchRank { .. }
        | GrantError::Duration { .. } => ProblemKind::Malformed,
        _ => ProblemKind::Unavailable,
    };
    Refusal::new(kind, chain(&error))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}

async fn list(State(office): State<Arc<Office>>) -> Response {
    let mut rows: Vec<_> = office.all().iter().map(|live| status(&office, live)).collect();
    rows.sort_by_key(|row| (row.granted_at, row.lease));
    json(&rows)
}

fn lease_id(text: &str) -> Result<LeaseId, Refusal> {
    text.parse().map_err(|_| Refusal::new(ProblemKind::Malformed, "not a lease id"))
}

fn known(office: &Office, lease: &str) -> Result<Arc<Live>, Refusal> {
    let live = office.find(lease_id(lease)?);
    live.ok_or_else(|| Refusal::new(ProblemKind::NotFound, "no such lease here"))
}

async fn show(State(office): State<Arc<Office>>, Path(lease): Path<String>) -> Answer {
    let live = known(&office, &lease)?;
    Ok(json(&status(&office, &live)))
}

/// What was done is not undone when it cannot be written down, but the caller is told.
fn written(recorded: Result<(), RecordError>) -> Result<(), Refusal> {
    recorded.map_err(|error| {
        let detail = format!("it was done, but cannot be recorded: {}", chain(&error));
        Refusal::new(ProblemKind::Unavailable, detail)
    })
}

async fn finish(
    State(office): State<Arc<Office>>,
    Extension(peer): Extension<PeerUser>,
    Path(lease): Path<String>,
) -> Answer {
    let live = known(&office, &lease)?;
    let recorded = office.record.act(Action::Drain, live.id, &peer.subject()).await;
    let drained = drain(&office, &live).await;
    written(recorded)?;
    match drained {
        Ok(()) => Ok(json(&status(&office, &live))),
        Err(error) => Err(Refusal::new(ProblemKind::Unavailable, chain(&error))),
    }
}

async fn token(
    State(office): State<Arc<Office>>,
    Extension(peer): Extension<PeerUser>,
    Path(lease): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let live = known(&office, &lease)?;
    let request: TokenRequest = read(&headers, body).await?;
    let subject = peer.subject();
    match further(&office, &live, request.rank, &subject).await {
        Ok(join) => Ok(json(&join)),
        Err(error) => {
            let kind = match &error {
                TokenError::Advance(AdvanceError::Refused(LeaseRefusal::BadTerms(_))) => {
                    ProblemKind::Malformed
                }
                TokenError::Advance(AdvanceError::Refused(_)) | TokenError::KeyGone => {
                    ProblemKind::LeaseOver
                }
                _ => ProblemKind::Unavailable,
            };
            Err(Refusal::new(kind, chain(&error)))
        }
    }
}

async fn end(
    State(office): State<Arc<Office>>,
    Extension(peer): Extension<PeerUser>,
    Path(lease): Path<String>,
) -> Answer {
    let live = known(&office, &lease)?;
    let id = live.id;
    let recorded = office.record.act(Action::Revoke, id, &peer.subject()).await;
    match cut_off(&office, &live, LeaseEvent::Revoke).await {
        Ok(closed) => {
            written(recorded)?;
            let (certificates, checkpoint) = match closed {
                Some(Closed { certificates, checkpoint, .. }) => (certificates, checkpoint),
                None => (Vec::new(), office.record.checkpoint()),
            };
            Ok(json(&Ended { lease: id, status: status(&office, &live), certificates, checkpoint }))
        }
        Err(error) => Err(Refusal::new(ProblemKind::Unavailable, chain(&error))),
    }
}

async fn state(State(office): State<Arc<Office>>) -> Response {
    let all = office.all();
    json(&Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        time: office.now(),
        gateways: office.urls.clone(),
        open_leases: all.iter().filter(|live| !live.is_closed()).count(),
        sent_bytes: all.iter().map(|live| live.sent_bytes()).sum(),
        buffers: office.budget.used(),
        strangers: office.refusals.strangers(),
    })
}

async fn ledger(State(office): State<Arc<Office>>) -> Response {
    json(&LedgerHead { checkpoint: office.record.checkpoint(), key: office.record.vkey() })
}
