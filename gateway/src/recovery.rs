//! What a gateway finds when it starts: its own leases go on, those of embedded gateways that are
//! gone are withdrawn, and closings that broke off are finished.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};
use tidegate_lease::{Event as LeaseEvent, Phase};
use tidegate_plan::LeaseId;

use crate::book::{BookError, Document};
use crate::closing::{CloseError, finish};
use crate::keyring::{KeyringError, random};
use crate::live::{Goods, Live};
use crate::office::Office;
use crate::owed::owes;
use crate::source::Source;
use crate::survey::{Survey, SurveyError};

/// The state directory is in use, or its leases cannot be taken over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecoveryError {
    #[error("another gateway runs on this state directory")]
    InUse,
    #[error("cannot lock {path}")]
    Lock { path: PathBuf, source: std::io::Error },
    #[error("the leases cannot be read")]
    Book(#[from] BookError),
    #[error("a lease's key cannot be read")]
    Keyring(#[from] KeyringError),
    #[error("an abandoned lease cannot be withdrawn")]
    Close(#[from] CloseError),
}

/// A mark that this process lives, held by a file lock that the kernel drops with it.
#[derive(Debug)]
pub(crate) struct Alive {
    /// Holds the lock.
    _file: File,
    /// Name of an embedded gateway; `None` for a daemon.
    pub(crate) owner: Option<String>,
    path: PathBuf,
}

const DIRECTORY: &str = "gateways";
const DAEMON: &str = "daemon";

fn lock_file(path: &Path) -> Result<File, RecoveryError> {
    let failed = |source| RecoveryError::Lock { path: path.to_owned(), source };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    OpenOptions::new().write(true).create(true).truncate(false).open(path).map_err(failed)
}

fn try_lock(file: &File) -> bool {
    flock(file, FlockOperation::NonBlockingLockExclusive).is_ok()
}

impl Alive {
    /// Marks this gateway as alive in `state`.
    pub(crate) fn mark(state: &Path, embedded: bool) -> Result<Self, RecoveryError> {
        let owner = embedded.then(|| hex::encode(random::<16>()));
        let path = state.join(DIRECTORY).join(owner.as_deref().unwrap_or(DAEMON));
        let file = lock_file(&path)?;
        if try_lock(&file) {
            Ok(Self { _file: file, owner, path })
        } else {
            Err(RecoveryError::InUse)
        }
    }
}

impl Alive {
    /// Removes the mark of an embedded gateway that leaves no lease behind.
    pub(crate) fn leave(&self) {
        if self.owner.is_some() {
            // Only tidiness: a mark that nobody locks means the same as none.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Marks of embedded gateways that are gone. Their locks are held while their leases are withdrawn,
/// so that two who start together do not both do it.
fn abandoned(state: &Path) -> Result<BTreeMap<String, (File, PathBuf)>, RecoveryError> {
    let directory = state.join(DIRECTORY);
    let failed = |source| RecoveryError::Lock { path: directory.clone(), source };
    let mut gone = BTreeMap::new();
    for entry in std::fs::read_dir(&directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
        let file = match OpenOptions::new().write(true).open(entry.path()) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error)),
        };
        if name != DAEMON && try_lock(&file) {
            gone.insert(name, (file, entry.path()));
        }
    }
    Ok(gone)
}

/// Takes over, withdraws or finishes every lease that is not at its end.
pub(crate) async fn recover(office: &Arc<Office>) -> Result<(), RecoveryError> {
    let gone = abandoned(&office.config.state)?;
    let daemon = office.owner.is_none();
    if gone.is_empty() && !daemon {
        return Ok(());
    }
    for id in office.book.leases().await? {
        let (revision, document) = match office.book.head(id).await {
            Ok(head) => head,
            // Another gateway is just granting it: its first revision is not there yet.
            Err(BookError::Gone) => continue,
            Err(error) => return Err(error.into()),
        };
        if document.lease.is_closed() && !owes(&document) {
            continue;
        }
        match &document.owner {
            Some(owner) if gone.contains_key(owner) => {
                withdraw(office, id, revision, document).await?;
            }
            None if daemon => take_over(office, revision, document).await?,
            _ => {}
        }
    }
    for (lock, path) in gone.into_values() {
        let _ = std::fs::remove_file(path);
        drop(lock);
    }
    Ok(())
}

async fn withdraw(
    office: &Office,
    id: LeaseId,
    revision: u64,
    document: Document,
) -> Result<(), RecoveryError> {
    tracing::warn!(lease = %id, "withdrawing a lease whose gateway is gone");
    let count_lost = !document.lease.attachments.is_empty();
    let live = Live::new(revision, document, None, count_lost);
    let _turn = live.turn.lock().await;
    finish(office, &live, LeaseEvent::Revoke, office.now()).await?;
    Ok(())
}

/// A lease that may be served, also one that another replica granted. For strangers: what is not
/// open is not looked at further than one read.
pub(crate) async fn find_open(
    office: &Office,
    id: LeaseId,
) -> Result<Option<Arc<Live>>, RecoveryError> {
    match office.find(id) {
        None if office.is_replicated() => adopted(office, id, false).await,
        found => Ok(found),
    }
}

/// A lease whose worker has shown a certificate of ours; it may be closed.
pub(crate) async fn find_any(
    office: &Office,
    id: LeaseId,
) -> Result<Option<Arc<Live>>, RecoveryError> {
    match office.find(id) {
        None => adopted(office, id, true).await,
        found => Ok(found),
    }
}

async fn adopted(
    office: &Office,
    id: LeaseId,
    even_closed: bool,
) -> Result<Option<Arc<Live>>, RecoveryError> {
    let _one = office.adopting.lock().await;
    match office.find(id) {
        None => adopt(office, id, even_closed).await,
        found => Ok(found),
    }
}

/// Takes a lease up that this process did not grant, and changes nothing about it.
async fn adopt(
    office: &Office,
    id: LeaseId,
    even_closed: bool,
) -> Result<Option<Arc<Live>>, RecoveryError> {
    let has_key = office.keyring.load(id).await?;
    if !has_key && !even_closed {
        return Ok(None);
    }
    let (revision, document) = match office.book.head(id).await {
        Ok(head) => head,
        Err(BookError::Gone) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // An embedded gateway's leases live and die with it.
    if document.owner != office.owner {
        office.keyring.forget(id);
        return Ok(None);
    }
    let goods = match document.lease.phase {
        // The grant is not over yet.
        Phase::Requested => {
            office.keyring.forget(id);
            return Ok(None);
        }
        Phase::Closed(_) => None,
        _ if has_key => match goods(office, &document).await {
            Ok(goods) => Some(goods),
            Err(error) => {
                tracing::error!(lease = %id, %error, "a lease cannot be served here");
                office.keyring.forget(id);
                return Ok(None);
            }
        },
        _ => None,
    };
    let over = goods.is_none();
    if over {
        office.keyring.forget(id);
    }
    let count_lost = !document.lease.attachments.is_empty();
    let live = Live::new(revision, document, goods, count_lost);
    if over {
        live.end(office.now());
    } else {
        tracing::info!(lease = %id, "a lease of another gateway is served here too");
    }
    Ok(Some(office.put(live)))
}

/// Takes up what other replicas granted, so that its deadlines are kept whatever becomes of them.
pub(crate) async fn look_around(office: &Office) {
    match office.keyring.leases().await {
        Ok(leases) => {
            for id in leases.into_iter().filter(|id| office.find(*id).is_none()) {
                if let Err(error) = adopted(office, id, false).await {
                    tracing::warn!(lease = %id, error = %chain(&error), "a lease cannot be taken up");
                }
            }
        }
        Err(error) => tracing::warn!(error = %chain(&error), "the open leases cannot be listed"),
    }
}

/// An error with its causes, for one line of log.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}

async fn take_over(
    office: &Arc<Office>,
    revision: u64,
    document: Document,
) -> Result<(), RecoveryError> {
    let id = document.lease.id;
    let serving = matches!(document.lease.phase, Phase::Granted | Phase::Active);
    let has_key = match office.keyring.load(id).await {
        Ok(there) => there,
        // Unreadable for good: the lease is over, the gateway is not.
        Err(
            error @ (KeyringError::Damaged | KeyringError::NoEpoch(_) | KeyringError::Unwrap(_)),
        ) => {
            tracing::error!(lease = %id, %error, "a lease's key is lost");
            false
        }
        Err(error) => return Err(error.into()),
    };
    if !serving || !has_key {
        return withdraw(office, id, revision, document).await;
    }
    let count_lost = !document.lease.attachments.is_empty();
    match goods(office, &document).await {
        Ok(goods) => {
            let live = Live::new(revision, document, Some(goods), count_lost);
            let now = office.now();
            for worker in &live.view().document.lease.attachments {
                // Its silence was ours: it gets a whole grace from now on.
                live.presence(worker.rank).seen(now);
            }
            office.put(live);
            tracing::info!(lease = %id, "a lease goes on");
            Ok(())
        }
        Err(error) => {
            tracing::error!(lease = %id, %error, "a lease cannot go on");
            withdraw(office, id, revision, document).await
        }
    }
}

/// A lease cannot be served any more as it was granted.
#[derive(Debug, thiserror::Error)]
enum GoodsError {
    #[error("its snapshot is not there: {0}")]
    Snapshot(String),
    #[error(transparent)]
    Survey(#[from] SurveyError),
    #[error("its selection is cut in another way by this version")]
    Layout,
}

async fn goods(office: &Office, document: &Document) -> Result<Goods, GoodsError> {
    let lease = &document.lease;
    let snapshot = office
        .record
        .snapshot(lease.snapshot)
        .await
        .map_err(|error| GoodsError::Snapshot(error.to_string()))?
        .ok_or_else(|| GoodsError::Snapshot("missing or damaged".to_owned()))?;
    let source = Source::open(document.source.clone()).await.map_err(SurveyError::from)?;
    let (source, snapshot) = (Arc::new(source), Arc::new(snapshot));
    let survey = Survey::of(source, snapshot, document.selection.clone(), lease.ranks).await?;
    if survey.layout.id() != lease.layout {
        return Err(GoodsError::Layout);
    }
    Ok(Goods {
        source: survey.source,
        snapshot: survey.snapshot,
        selection: survey.selection,
        layout: survey.layout,
        _place: Arc::clone(&office.places).try_acquire_owned().ok(),
    })
}
