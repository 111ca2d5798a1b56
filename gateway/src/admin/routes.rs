//! What an administrator can ask.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Extension, Path, Request, State};
use axum::middleware::{Next, from_fn, map_response};
use axum::response::Response;
use axum::routing::{get, post};
use hyper::HeaderMap;
use serde::{Deserialize, Serialize};
use tidegate_kit::telemetry::chain;
use tidegate_lease::{Event as LeaseEvent, Refusal as LeaseRefusal};
use tidegate_ledger::Action;
use tidegate_plan::{LeaseId, SelectionSpec};
use tidegate_wire::{JoinFile, ProblemKind};
use tracing::Instrument as _;

use crate::bringing::HomeRefused;
use crate::closing::{Closed, cut_off, drain};
use crate::granting::{GrantError, GrantRequest, ResultsRequest, grant};
use crate::json::{json, read, read_large};
use crate::live::Live;
use crate::office::{AdvanceError, Office};
use crate::problem::{Refusal, only_problems};
use crate::record::RecordError;
use crate::recovery::find_any;
use crate::shelf::CutError;
use crate::source::{S3Options, SourceSpec};
use crate::status::{LeaseStatus, status};
use crate::survey::SurveyError;
use crate::tokens::{TokenError, further};

/// `POST /v1/admin/leases`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
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
    /// Where results go, a directory or `s3://bucket/prefix` under `results.allow`; nowhere when absent.
    #[serde(default)]
    pub results: Option<String>,
    /// Show the worker what is there already.
    #[serde(default)]
    pub resume: bool,
    /// Most bytes and files of results, what is stored again counted again; as the configuration says when absent.
    #[serde(default)]
    pub results_bytes: Option<u64>,
    #[serde(default)]
    pub results_files: Option<u64>,
    /// Digest of the job's image, for the provenance of its results.
    #[serde(default)]
    pub image: Option<String>,
}

const fn one() -> u16 {
    1
}

/// `POST /v1/admin/leases/{lease}/tokens`: answered with a join file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub(super) struct TokenRequest {
    #[serde(default)]
    rank: u16,
}

/// A name that cannot be shown as a POSIX path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Unshown {
    pub name: String,
    pub reason: String,
}

/// Answer to [`LeaseRequest`]: holds join secrets.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
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
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Status {
    pub version: String,
    pub time: u64,
    /// Where workers connect.
    pub gateways: Vec<String>,
    /// This replica, the same over restarts.
    pub replica: String,
    /// `directory` or `bucket`.
    pub state: String,
    pub open_leases: usize,
    /// Leases that may be open at once.
    pub most_leases: usize,
    /// Workers that hold a rank of an open lease.
    pub workers: usize,
    /// Plaintext bytes whose keys were released, of the leases known here.
    pub released_bytes: u64,
    /// Sealed bytes sent by this process, of the leases known here.
    pub sent_bytes: u64,
    /// Bytes of pipeline buffers in use, and the most there may be.
    pub buffers: u64,
    pub most_buffers: u64,
    /// Callers refused who proved nothing, since the start.
    pub strangers: u64,
    pub ledger: LedgerHead,
}

/// `GET /v1/admin/ledger`: the newest head that this replica knows.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct LedgerHead {
    /// Entries.
    pub entries: u64,
    /// Time of the newest, seconds since the epoch.
    pub time: u64,
    pub checkpoint: String,
    pub key: String,
}

/// Longest certificate in an answer, bytes: those of all ranks fit in what callers read.
const CERTIFICATE_MAX: usize = 48 << 10;

/// How a lease ended, on the wire.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct Ended {
    pub lease: LeaseId,
    pub status: LeaseStatus,
    /// One a worker, canonical JSON. Long ones, which name what was lost, lie in the ledger only.
    pub certificates: Vec<String>,
    pub checkpoint: String,
}

type Answer = Result<Response, Refusal>;

/// The routes of the admin socket.
pub(crate) fn router(office: Arc<Office>) -> Router {
    Router::new()
        .route("/openapi.json", get(crate::openapi::document))
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
        .layer(from_fn(of_lease))
        .with_state(office)
}

/// Whatever is logged of a request about a lease names it.
async fn of_lease(request: Request, next: Next) -> Response {
    let lease = request.uri().path().split('/').find_map(|part| part.parse::<LeaseId>().ok());
    match lease {
        Some(lease) => next.run(request).instrument(tracing::error_span!("admin", %lease)).await,
        None => next.run(request).await,
    }
}

/// User id of the process at the other end of the socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerUser(pub(crate) u32);

impl PeerUser {
    fn subject(self) -> String {
        format!("uid {}, admin socket", self.0)
    }
}

/// Grant a lease; the answer holds join secrets.
#[cfg_attr(test, utoipa::path(
    post, path = "/v1/admin/leases", tag = "admin",
    request_body = LeaseRequest,
    responses((status = 200, description = "Granted, and in the ledger", body = Joined)),
))]
pub(super) async fn create(
    State(office): State<Arc<Office>>,
    Extension(peer): Extension<PeerUser>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let (request, _turn) = read_large::<LeaseRequest>(&headers, body).await?;
    let source = SourceSpec::parse(&request.source, request.s3)
        .map_err(|error| Refusal::new(ProblemKind::Malformed, error.to_string()))?;
    let results = match &request.results {
        None if request.resume || request.results_bytes.or(request.results_files).is_some() => {
            let detail = "`resume`, `results_bytes` and `results_files` go with `results`";
            return Err(Refusal::new(ProblemKind::Malformed, detail));
        }
        None => None,
        Some(home) => Some(ResultsRequest {
            home: SourceSpec::parse(home, S3Options::default())
                .map_err(|error| Refusal::new(ProblemKind::Malformed, error.to_string()))?,
            resume: request.resume,
            bytes: request.results_bytes,
            files: request.results_files,
            image: request.image,
        }),
    };
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
            results,
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
        GrantError::Inadmissible(_) | GrantError::Results(HomeRefused::Inadmissible(_)) => {
            ProblemKind::Forbidden
        }
        GrantError::TooMany(_) | GrantError::Survey(SurveyError::Cut(CutError::Full { .. })) => {
            ProblemKind::TooMany
        }
        GrantError::Survey(_)
        | GrantError::Results(_)
        | GrantError::NoDirectory { .. }
        | GrantError::NoSuchRank { .. }
        | GrantError::Ranks { .. }
        | GrantError::Duration { .. } => ProblemKind::Malformed,
        _ => ProblemKind::Unavailable,
    };
    Refusal::new(kind, chain(&error))
}

/// All leases that this replica knows.
#[cfg_attr(test, utoipa::path(
    get, path = "/v1/admin/leases", tag = "admin",
    responses((status = 200, description = "Leases, oldest first", body = Vec<LeaseStatus>)),
))]
pub(super) async fn list(State(office): State<Arc<Office>>) -> Response {
    let mut rows: Vec<_> = office.all().iter().map(|live| status(&office, live)).collect();
    rows.sort_by_key(|row| (row.granted_at, row.lease));
    json(&rows)
}

fn lease_id(text: &str) -> Result<LeaseId, Refusal> {
    text.parse().map_err(|_| Refusal::new(ProblemKind::Malformed, "not a lease id"))
}

/// A lease of this house, also one that another replica granted a moment ago.
async fn known(office: &Office, lease: &str) -> Result<Arc<Live>, Refusal> {
    let found = find_any(office, lease_id(lease)?).await;
    let found = found.map_err(|error| Refusal::new(ProblemKind::Unavailable, chain(&error)))?;
    found.ok_or_else(|| Refusal::new(ProblemKind::NotFound, "no such lease here"))
}

/// One lease.
#[cfg_attr(test, utoipa::path(
    get, path = "/v1/admin/leases/{lease}", tag = "admin",
    params(("lease" = tidegate_plan::LeaseId, Path)),
    responses((status = 200, description = "The lease as it stands", body = LeaseStatus)),
))]
pub(super) async fn show(State(office): State<Arc<Office>>, Path(lease): Path<String>) -> Answer {
    let live = known(&office, &lease).await?;
    Ok(json(&status(&office, &live)))
}

/// What was done is not undone when it cannot be written down, but the caller is told.
fn written(recorded: Result<(), RecordError>) -> Result<(), Refusal> {
    recorded.map_err(|error| {
        let detail = format!("it was done, but cannot be recorded: {}", chain(&error));
        Refusal::new(ProblemKind::Unavailable, detail)
    })
}

/// Ask a lease's workers to finish and wipe; what they have open they may still read.
#[cfg_attr(test, utoipa::path(
    post, path = "/v1/admin/leases/{lease}/drain", tag = "admin",
    params(("lease" = tidegate_plan::LeaseId, Path)),
    responses((status = 200, description = "Draining", body = LeaseStatus)),
))]
pub(super) async fn finish(
    State(office): State<Arc<Office>>,
    Extension(peer): Extension<PeerUser>,
    Path(lease): Path<String>,
) -> Answer {
    let live = known(&office, &lease).await?;
    let recorded = office.record.act(Action::Drain, live.id, &peer.subject()).await;
    let drained = drain(&office, &live).await;
    written(recorded)?;
    match drained {
        Ok(()) => Ok(json(&status(&office, &live))),
        Err(error) => Err(Refusal::new(ProblemKind::Unavailable, chain(&error))),
    }
}

/// Make a further token for a rank; who joins with it takes the rank over. Holds a join secret.
#[cfg_attr(test, utoipa::path(
    post, path = "/v1/admin/leases/{lease}/tokens", tag = "admin",
    params(("lease" = tidegate_plan::LeaseId, Path)),
    request_body = TokenRequest,
    responses((status = 200, description = "A join file", body = JoinFile)),
))]
pub(super) async fn token(
    State(office): State<Arc<Office>>,
    Extension(peer): Extension<PeerUser>,
    Path(lease): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let live = known(&office, &lease).await?;
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

/// Destroy a lease's keys now; a worker that is not taken for gone is waited for, to wipe and say so.
#[cfg_attr(test, utoipa::path(
    post, path = "/v1/admin/leases/{lease}/revoke", tag = "admin",
    params(("lease" = tidegate_plan::LeaseId, Path)),
    responses((status = 200, description = "Ended", body = Ended)),
))]
pub(super) async fn end(
    State(office): State<Arc<Office>>,
    Extension(peer): Extension<PeerUser>,
    Path(lease): Path<String>,
) -> Answer {
    let live = known(&office, &lease).await?;
    let id = live.id;
    let recorded = office.record.act(Action::Revoke, id, &peer.subject()).await;
    match cut_off(&office, &live, LeaseEvent::Revoke).await {
        Ok(closed) => {
            written(recorded)?;
            let (mut certificates, checkpoint) = match closed {
                Some(Closed { certificates, checkpoint, .. }) => (certificates, checkpoint),
                None => (Vec::new(), office.record.checkpoint()),
            };
            certificates.retain(|text| text.len() <= CERTIFICATE_MAX);
            Ok(json(&Ended { lease: id, status: status(&office, &live), certificates, checkpoint }))
        }
        Err(error) => Err(Refusal::new(ProblemKind::Unavailable, chain(&error))),
    }
}

/// The gateway at this moment.
#[cfg_attr(test, utoipa::path(
    get, path = "/v1/admin/status", tag = "admin",
    responses((status = 200, description = "How it is", body = Status)),
))]
pub(super) async fn state(State(office): State<Arc<Office>>) -> Response {
    let all = office.all();
    let open = || all.iter().filter(|live| !live.is_closed());
    json(&Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        time: office.now(),
        gateways: office.urls.clone(),
        replica: office.replica.clone(),
        state: if office.is_replicated() { "bucket" } else { "directory" }.to_owned(),
        open_leases: open().count(),
        most_leases: office.config.limits.leases,
        workers: open().map(|live| workers(live)).sum(),
        released_bytes: all.iter().map(|live| released(live)).sum(),
        sent_bytes: all.iter().map(|live| live.sent_bytes()).sum(),
        buffers: office.budget.used(),
        most_buffers: office.config.limits.buffers,
        strangers: office.refusals.strangers(),
        ledger: head(&office),
    })
}

fn workers(live: &Live) -> usize {
    live.view().document.lease.attachments.iter().filter(|held| held.is_current()).count()
}

fn released(live: &Live) -> u64 {
    live.view().document.released_bytes.values().sum()
}

fn head(office: &Office) -> LedgerHead {
    LedgerHead {
        entries: office.record.size(),
        time: office.record.time(),
        checkpoint: office.record.checkpoint(),
        key: office.record.vkey(),
    }
}

/// The ledger's newest head.
#[cfg_attr(test, utoipa::path(
    get, path = "/v1/admin/ledger", tag = "admin",
    responses((status = 200, description = "The head", body = LedgerHead)),
))]
pub(super) async fn ledger(State(office): State<Arc<Office>>) -> Response {
    json(&head(&office))
}
