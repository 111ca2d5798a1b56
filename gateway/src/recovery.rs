//! What a gateway finds when it starts: its own leases go on, those of embedded gateways that are
//! gone are withdrawn, and closings that broke off are finished.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use rustix::fs::{FlockOperation, flock};
pub(crate) use tidegate_kit::telemetry::chain;
use tidegate_lease::{Event as LeaseEvent, Phase};
use tidegate_plan::LeaseId;

use crate::book::{BookError, Document};
use crate::closing::{CloseError, finish, has_ended};
use crate::keyring::{KeyringError, random};
use crate::live::Live;
use crate::office::Office;
use crate::owed::{owes, unmark};
use crate::waking::{GoodsError, wake};

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

/// Leases that are tried again together.
const AT_ONCE: usize = 32;
/// A grant of another replica that takes longer than this was given up.
const GRANTING_S: u64 = 600;
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
    /// Whether no other gateway runs on this state directory, embedded ones included.
    pub(crate) fn is_alone(&self) -> Result<bool, RecoveryError> {
        let Some(directory) = self.path.parent() else { return Ok(true) };
        let failed = |source| RecoveryError::Lock { path: directory.to_owned(), source };
        for entry in std::fs::read_dir(directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path != self.path
                && OpenOptions::new().write(true).open(&path).is_ok_and(|file| !try_lock(&file))
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

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

/// Withdraws the leases of embedded gateways that are gone; a daemon takes all others up again.
pub(crate) async fn recover(office: &Arc<Office>) -> Result<(), RecoveryError> {
    let gone = abandoned(&office.config.state)?;
    let daemon = office.owner.is_none();
    if gone.is_empty() && !daemon {
        return Ok(());
    }
    let mut found = Vec::new();
    for id in open_leases(office).await? {
        let (revision, document) = match head(office, id).await {
            Ok(Some(head)) => head,
            Ok(None) => continue,
            Err(RecoveryError::Book(error)) if error.is_the_lease_s() => {
                tracing::error!(lease = %id, error = %chain(&error), "a lease's document is not to be believed; it is not served");
                continue;
            }
            Err(error) => return Err(error),
        };
        // Whoever was granting it is gone: no other gateway runs on this directory.
        let half_granted = document.lease.phase == Phase::Requested && !office.is_replicated();
        match &document.owner {
            Some(owner) if gone.contains_key(owner) => {
                withdraw(office, id, revision, document).await?;
            }
            None if daemon && half_granted => withdraw(office, id, revision, document).await?,
            None if daemon => found.extend(take_up(office, revision, document).await?),
            _ => {}
        }
    }
    let mut up = FuturesUnordered::new();
    for live in &found {
        if up.len() >= AT_ONCE {
            up.try_next().await?;
        }
        up.push(bring_up(office, live));
    }
    while up.try_next().await?.is_some() {}
    drop(up);
    for (lock, path) in gone.into_values() {
        let _ = std::fs::remove_file(path);
        drop(lock);
    }
    Ok(())
}

/// Leases that are not at their end: those marked, and all that have a key.
async fn open_leases(office: &Office) -> Result<BTreeSet<LeaseId>, RecoveryError> {
    let mut open: BTreeSet<_> = office.book.marked().await?.into_iter().collect();
    open.extend(office.keyring.leases().await?);
    Ok(open)
}

/// The newest revision; `None` before the first.
async fn head(office: &Office, id: LeaseId) -> Result<Option<(u64, Document)>, RecoveryError> {
    match office.book.head(id).await {
        Ok(head) => Ok(Some(head)),
        Err(BookError::Gone) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Closes a lease that nobody serves.
pub(crate) async fn withdraw(
    office: &Office,
    id: LeaseId,
    revision: u64,
    document: Document,
) -> Result<(), RecoveryError> {
    tracing::warn!(lease = %id, "withdrawing a lease that cannot go on");
    let count_lost = !document.lease.attachments.is_empty();
    let live = Live::new(revision, document, None, count_lost);
    let _turn = live.turn.lock().await;
    finish(office, &live, LeaseEvent::Abandon, office.now()).await?;
    Ok(())
}

/// A lease that may be served, also one that another replica granted. For strangers: what has no
/// key is not looked at further.
pub(crate) async fn find_open(
    office: &Office,
    id: LeaseId,
) -> Result<Option<Arc<Live>>, RecoveryError> {
    if let Some(live) = office.find(id) {
        return Ok(Some(live));
    }
    if !office.keyring.has(id).await? {
        return Ok(None);
    }
    find_any(office, id).await
}

/// A lease whose worker has shown a certificate of ours; it may be closed.
pub(crate) async fn find_any(
    office: &Office,
    id: LeaseId,
) -> Result<Option<Arc<Live>>, RecoveryError> {
    if let Some(live) = office.find(id) {
        live.tried().await;
        return Ok(Some(live));
    }
    let live = adopt(office, id).await?;
    if let Some(live) = &live {
        bring_up(office, live).await?;
    }
    Ok(live)
}

async fn adopt(office: &Office, id: LeaseId) -> Result<Option<Arc<Live>>, RecoveryError> {
    let _one = office.adopting.lock().await;
    if let Some(live) = office.find(id) {
        return Ok(Some(live));
    }
    match head(office, id).await? {
        // An embedded gateway's leases live and die with it.
        Some((revision, document)) if document.owner == office.owner => {
            take_up(office, revision, document).await
        }
        _ => Ok(None),
    }
}

/// Takes up what other replicas granted, so that its deadlines are kept whatever becomes of them,
/// and tries again what could not be served before.
pub(crate) async fn look_around(office: &Office) {
    let open = match open_leases(office).await {
        Ok(open) => open,
        Err(error) => {
            tracing::warn!(error = %chain(&error), "the open leases cannot be listed");
            return;
        }
    };
    let looks = open.into_iter().map(|id| look_at(office, id).boxed());
    futures_util::stream::iter(looks).for_each_concurrent(AT_ONCE, |look| look).await;
}

async fn look_at(office: &Office, id: LeaseId) {
    let looked = match office.find(id) {
        Some(live) if live.is_dormant() => bring_up(office, &live).await,
        Some(_) => Ok(()),
        None => find_any(office, id).await.map(drop),
    };
    if let Err(error) = looked {
        tracing::warn!(lease = %id, error = %chain(&error), "a lease cannot be taken up");
    }
}

/// Serves a lease that lies dormant, if it can be served from here. One that nobody can serve any more is
/// withdrawn.
async fn bring_up(office: &Office, live: &Live) -> Result<(), RecoveryError> {
    match wake(office, live).await {
        Ok(()) => Ok(()),
        Err(GoodsError::Keyring(error)) => Err(error.into()),
        Err(error) => {
            tracing::warn!(lease = %live.id, error = %chain(&error), "a lease cannot be served here");
            if !office.is_replicated() && !error.may_pass() {
                tracing::warn!(lease = %live.id, "withdrawing a lease that cannot go on");
                let _turn = live.turn.lock().await;
                finish(office, live, LeaseEvent::Abandon, office.now()).await?;
            }
            Ok(())
        }
    }
}

/// Takes a lease up that this process did not grant, so that it can be ended; to serve it is for
/// [`bring_up`]. What is due is for the reaper to see.
async fn take_up(
    office: &Office,
    revision: u64,
    document: Document,
) -> Result<Option<Arc<Live>>, RecoveryError> {
    let id = document.lease.id;
    let now = office.now();
    let key_is_gone = match document.lease.phase {
        // Somebody may be granting it just now; nobody was told of it yet.
        Phase::Requested => {
            if now > document.lease.changed_at + GRANTING_S {
                withdraw(office, id, revision, document).await?;
            }
            return Ok(None);
        }
        Phase::Closed(_) => {
            // A wrapped key that was on its way to the store when its grant was given up.
            if office.keyring.has(id).await? {
                office.keyring.destroy(id).await?;
            }
            if !owes(&document) {
                unmark(office, id).await;
            }
            true
        }
        _ => !office.keyring.has(id).await?,
    };
    let count_lost = !document.lease.attachments.is_empty();
    let over = key_is_gone || has_ended(&document);
    let live = Live::new(revision, document, None, count_lost);
    for worker in &live.view().document.lease.attachments {
        // Its silence was ours: it is measured from now on.
        live.presence(worker.rank).seen(now);
    }
    if over {
        live.end(now);
    }
    Ok(Some(office.put(live)))
}
