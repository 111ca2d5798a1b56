//! A lease is granted from home: survey, key, state, ledger, join files.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tidegate_kit::state::StateError;
use tidegate_lease::{Event as LeaseEvent, JoinToken, Lease, Policy, Proposal};
use tidegate_ledger::Event;
use tidegate_plan::{Estimate, LeaseId, SelectionSpec, TokenId};
use tidegate_wire::JoinFile;
use tokio::sync::OwnedSemaphorePermit;

use crate::book::{Document, KeysGone, ResultsPart};
use crate::bringing::{Asked, HomeRefused, begin_home, prepare, terms_document};
use crate::config::Inadmissible;
use crate::keyring::{KeyringError, random};
use crate::live::{Goods, Live};
use crate::office::{AdvanceError, Office};
use crate::owed::settle_up;
use crate::record::RecordError;
use crate::source::SourceSpec;
use crate::survey::{Survey, SurveyError};

/// What is asked for.
#[derive(Clone, Debug)]
pub struct GrantRequest {
    pub source: SourceSpec,
    pub selection: SelectionSpec,
    /// Shares the selection is cut into.
    pub ranks: u16,
    /// Make a token for this rank only; the shares stay those of `ranks`.
    pub only_rank: Option<u16>,
    pub duration: Duration,
    /// Under whose name data leaves.
    pub subject: String,
    /// What the dataset is called; empty for none.
    pub dataset: String,
    /// Where its results go; nowhere when absent.
    pub results: Option<ResultsRequest>,
}

/// Results that a job may bring home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultsRequest {
    /// A directory, or a bucket with a prefix.
    pub home: SourceSpec,
    /// Show the worker what is there already.
    pub resume: bool,
    /// Most bytes and files, what is stored again counted again; as the configuration says when absent.
    pub bytes: Option<u64>,
    pub files: Option<u64>,
    /// Digest of the job's image, for the provenance of what it makes.
    pub image: Option<String>,
}

impl<'a> From<&'a ResultsRequest> for Asked<'a> {
    fn from(request: &'a ResultsRequest) -> Self {
        let ResultsRequest { home, resume, bytes, files, image } = request;
        Self { home, resume: *resume, bytes: *bytes, files: *files, image: image.as_deref() }
    }
}

/// What was granted.
#[derive(Debug)]
pub struct Granted {
    pub lease: LeaseId,
    /// Sums over the ranks that have a token.
    pub terms: Estimate,
    /// Sums over the whole lease.
    pub whole: Estimate,
    /// Seconds since the epoch.
    pub deadline: u64,
    /// One a token, in order of rank.
    pub joins: Vec<JoinFile>,
    /// Names that cannot be shown as POSIX paths, each with the reason.
    pub unshown: Vec<(String, String)>,
}

/// A lease was not granted. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GrantError {
    #[error(transparent)]
    Inadmissible(#[from] Inadmissible),
    #[error("there is no directory {}", .path.display())]
    NoDirectory { path: std::path::PathBuf, source: std::io::Error },
    #[error("rank {rank} does not exist: there are {ranks} ranks, counted from 0")]
    NoSuchRank { rank: u16, ranks: u16 },
    #[error("{ranks} ranks are more than a lease of this gateway may have: {max} (`limits.ranks`)")]
    Ranks { ranks: u16, max: u16 },
    #[error("a lease has at least 1 second and at most {max} seconds")]
    Duration { max: u64 },
    #[error("{0} leases are open, which is as many as this gateway may have")]
    TooMany(usize),
    #[error(transparent)]
    Results(#[from] HomeRefused),
    #[error("the gateway is shutting down")]
    ShuttingDown,
    #[error(transparent)]
    Survey(#[from] SurveyError),
    #[error("the lease key cannot be made")]
    Keyring(#[from] KeyringError),
    #[error("the lease's state cannot be written")]
    Advance(#[from] AdvanceError),
    #[error("the snapshot cannot be stored")]
    Snapshot(#[from] StateError),
    #[error("the grant cannot be recorded")]
    Record(#[from] RecordError),
}

/// The source as it will be opened: a directory by its real path, so that no link leads out of
/// what is allowed.
async fn resolved(spec: &SourceSpec) -> Result<SourceSpec, GrantError> {
    match spec {
        SourceSpec::Directory(path) => {
            let real = tokio::fs::canonicalize(path)
                .await
                .map_err(|source| GrantError::NoDirectory { path: path.clone(), source })?;
            Ok(SourceSpec::Directory(real))
        }
        SourceSpec::S3 { .. } => Ok(spec.clone()),
    }
}

/// Grants a lease.
pub(crate) async fn grant(
    office: &Arc<Office>,
    request: GrantRequest,
) -> Result<Granted, GrantError> {
    let max = office.config.limits.lease_s;
    let seconds = request.duration.as_secs();
    if seconds == 0 || seconds > max {
        return Err(GrantError::Duration { max });
    }
    let (ranks, max) = (request.ranks, office.config.limits.ranks);
    if ranks > max {
        return Err(GrantError::Ranks { ranks, max });
    }
    if let Some(rank) = request.only_rank.filter(|rank| *rank >= request.ranks) {
        return Err(GrantError::NoSuchRank { rank, ranks: request.ranks });
    }
    let place = Arc::clone(&office.places).try_acquire_owned();
    let place = place.map_err(|_| GrantError::TooMany(office.config.limits.leases))?;
    let spec = resolved(&request.source).await?;
    let admitted = office.config.admit(&spec)?;
    let results = match &request.results {
        Some(asked) => Some(prepare(office, asked.into(), &spec).await?),
        None => None,
    };
    let selection = request.selection.clone();
    let survey = Survey::take(&office.shelf, admitted, selection, request.ranks).await?;
    // A link may have been turned since the look above: what is open counts.
    office.config.admit(&survey.source.place().map_err(SurveyError::from)?)?;
    office.record.store_snapshot(&survey.cut.snapshot).await?;
    office.record.store_selection(&request.selection).await?;
    // From here on the caller's patience does not matter: a lease is made whole or voided.
    let held = Arc::clone(&office.granting).read_owned().await;
    let office = Arc::clone(office);
    let making = tokio::spawn(async move {
        let places = Places { source: spec, results };
        let made = make(&office, &request, places, survey, place).await;
        drop(held);
        made
    });
    making.await.map_err(|_| GrantError::ShuttingDown)?
}

/// Where a lease reads and writes at home.
struct Places {
    source: SourceSpec,
    results: Option<ResultsPart>,
}

async fn make(
    office: &Office,
    request: &GrantRequest,
    places: Places,
    survey: Survey,
    place: OwnedSemaphorePermit,
) -> Result<Granted, GrantError> {
    let now = office.now();
    let document = propose(office, request, places, &survey, now)?;
    let id = document.lease.id;
    office.book.mark_open(id).await.map_err(AdvanceError::Book)?;
    office.book.create(1, &document).await.map_err(AdvanceError::Book)?;
    let goods = Goods {
        source: Arc::clone(&survey.source),
        cut: Arc::clone(&survey.cut),
        _place: Some(place),
    };
    let live = Live::new(1, document, Some(goods), false);
    let granting = async {
        begin_home(office, &live).await?;
        record_grant(office, request, &live, &survey, now).await
    };
    if let Err(error) = granting.await {
        void(office, &live, now).await?;
        return Err(error);
    }
    let live = office.put(live);
    let document = live.view().document;
    let ranks = document.lease.tokens.iter().map(|token| token.rank);
    let terms = ranks.map(|rank| survey.cut.share(rank)).fold(Estimate::default(), sum);
    tracing::info!(lease = %id, files = terms.files, bytes = terms.bytes, "a lease was granted");
    Ok(Granted {
        lease: id,
        terms,
        whole: survey.cut.lease,
        deadline: document.lease.deadline,
        joins: joins(office, &document),
        unshown: survey.unshown(),
    })
}

fn sum(a: Estimate, b: Estimate) -> Estimate {
    Estimate {
        files: a.files + b.files,
        symlinks: a.symlinks + b.symlinks,
        dirs: a.dirs + b.dirs,
        bytes: a.bytes + b.bytes,
        blocks: a.blocks + b.blocks,
        sealed_bytes: a.sealed_bytes + b.sealed_bytes,
        manifest_bytes: a.manifest_bytes + b.manifest_bytes,
    }
}

/// The lease as it is asked for, and what the gateway must know of it.
fn propose(
    office: &Office,
    request: &GrantRequest,
    places: Places,
    survey: &Survey,
    now: u64,
) -> Result<Document, AdvanceError> {
    let tokens = (0..request.ranks)
        .filter(|rank| request.only_rank.is_none_or(|only| only == *rank))
        .map(|rank| (TokenId::from_bytes(random()), rank))
        .collect();
    let cut = &survey.cut;
    let shares = cut.layout.shares().iter();
    let proposal = Proposal {
        id: LeaseId::from_bytes(random()),
        snapshot: cut.snapshot.id(),
        selection: cut.selection.id(),
        layout: cut.layout.id(),
        shares: shares.map(|share| (share.blocks.start, share.blocks.end)).collect(),
        dataset: request.dataset.clone(),
        subject: request.subject.clone(),
        deadline: now + request.duration.as_secs(),
        policy: Policy {
            heartbeat_s: office.config.heartbeat_s,
            grace_s: office.config.grace_s,
            silence_s: office.config.silence_s(),
            window_blocks: office.config.limits.window_blocks(),
        },
        key_epoch: office.keyring.epoch_of(now),
        tokens,
    };
    Ok(Document {
        v: Document::VERSION,
        lease: Lease::request(proposal, now).map_err(AdvanceError::Refused)?,
        owner: office.owner.clone(),
        keepers: BTreeMap::new(),
        handed_over: false,
        given_up: BTreeSet::new(),
        source: places.source,
        results: places.results,
        files: cut.lease.files,
        bytes: cut.lease.bytes,
        hpke: BTreeMap::new(),
        last_release_at: None,
        released_bytes: BTreeMap::new(),
        fenced_bytes: 0,
        fences: Vec::new(),
        certificates: BTreeMap::new(),
        fenced_certificates: Vec::new(),
        key_destroyed_at: None,
        key_absent: false,
        sent_bytes: None,
        recorded: false,
    })
}

/// Key, entries, then *granted*: a lease that is not in the ledger never becomes active.
async fn record_grant(
    office: &Office,
    request: &GrantRequest,
    live: &Live,
    survey: &Survey,
    now: u64,
) -> Result<(), GrantError> {
    let document = live.view().document;
    let lease = &document.lease;
    office.keyring.create(lease.id, lease.key_epoch).await?;
    let source = office.record.document(document.source.to_string()).await?;
    let subject = office.record.document(lease.subject.clone()).await?;
    let selected = office.record.document(selected(&request.selection, lease)).await?;
    let results = match &document.results {
        Some(part) => Some(office.record.document(terms_document(part)).await?),
        None => None,
    };
    let listed = &survey.cut.snapshot;
    let taken = Event::SnapshotTaken {
        snapshot: lease.snapshot,
        source,
        files: listed.files(),
        bytes: listed.content(),
        unshown: listed.unshown().len() as u64,
    };
    let granted = Event::LeaseGranted {
        lease: lease.id,
        snapshot: lease.snapshot,
        selection: lease.selection,
        layout: lease.layout,
        ranks: lease.ranks,
        blocks: lease.blocks,
        bytes: document.bytes,
        files: document.files,
        subject,
        deadline: lease.deadline,
        selected: Some(selected),
        key_epoch: Some(lease.key_epoch),
        results,
    };
    office.record.append(vec![taken, granted]).await?;
    office
        .advance(live, |document| {
            document.lease = document.lease.apply(LeaseEvent::Grant, now)?;
            Ok(())
        })
        .await?;
    Ok(())
}

/// Which part of which dataset, for the document beside the entry. A list of paths is counted.
fn selected(selection: &SelectionSpec, lease: &Lease) -> String {
    let SelectionSpec { include, exclude, list } = selection;
    let tokens = lease.tokens.iter();
    serde_json::json!({
        "dataset": lease.dataset,
        "include": include,
        "exclude": exclude,
        "listed": list.as_ref().map(Vec::len),
        "ranks": tokens.map(|token| token.rank).collect::<Vec<_>>(),
    })
    .to_string()
}

/// Makes a grant that broke off harmless: its key goes, and where the state can be written its
/// document says so. Nobody was told of the lease, but its entries may be in the ledger: there it is
/// closed too.
async fn void(office: &Office, live: &Live, now: u64) -> Result<(), KeyringError> {
    let absent = office.keyring.destroy(live.id).await?.absent;
    let gone = KeysGone { destroyed_at: Some(now), absent: Some(absent), epoch: None };
    let closed = office
        .advance(live, |document| {
            document.lease = document.lease.apply(LeaseEvent::Abandon, now)?;
            document.keys_gone(gone);
            document.lease = document.lease.apply(LeaseEvent::KeyDestroyed, now)?;
            Ok(())
        })
        .await;
    let settled = match closed {
        Ok(_) => settle_up(office, live).await.map(drop),
        Err(error) => Err(error.into()),
    };
    if let Err(error) = settled {
        tracing::warn!(lease = %live.id, %error, "a grant that broke off is closed by the next start");
    }
    Ok(())
}

/// The join files of a lease, while its key lives.
fn joins(office: &Office, document: &Document) -> Vec<JoinFile> {
    let lease = &document.lease;
    lease.tokens.iter().filter_map(|token| join_file(office, lease.id, token)).collect()
}

/// What a worker needs to join with a token, while the lease's key lives.
pub(crate) fn join_file(office: &Office, lease: LeaseId, token: &JoinToken) -> Option<JoinFile> {
    let secret = office.keyring.with(lease, |key| key.join_secret(&token.id).expose().to_vec())?;
    Some(JoinFile {
        version: JoinFile::VERSION,
        gateways: office.urls.clone(),
        ca: office.authority.certificate_pem().to_owned(),
        ledger_key: office.record.vkey(),
        lease,
        rank: token.rank,
        token: token.id,
        secret: secret.into(),
    })
}
