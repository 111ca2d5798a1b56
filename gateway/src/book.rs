//! Leases at rest: small documents as numbered revisions, each created once and never changed.
//!
//! `leases/ID/00000007` holds the document's JSON under a MAC over its place, so that a revision
//! that was moved, edited or written by somebody else is not believed.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tidegate_kit::state::{Creation, Revision, Revisions, StateError};
use tidegate_lease::{Attachment, Event, Lease, Refusal};
use tidegate_ledger::{Commitment, Digest};
use tidegate_plan::{InstanceId, LeaseId};
use tidegate_wire::Base64;

use crate::results::Share;
use crate::source::SourceSpec;

/// What happened to a lease's keys.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct KeysGone {
    pub(crate) destroyed_at: Option<u64>,
    /// The wrapped key was looked for and is absent; `None` when nobody looked yet.
    pub(crate) absent: Option<bool>,
    /// The epoch's key is destroyed too.
    pub(crate) epoch: Option<bool>,
}

/// A wipe certificate that was made.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Certified {
    pub(crate) digest: Digest,
    /// It certifies a complete wipe.
    pub(crate) complete: bool,
    /// Its entry is durable in the ledger.
    pub(crate) recorded: bool,
}

/// The same of a worker that lost its rank to another.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FencedCertified {
    pub(crate) rank: u16,
    pub(crate) instance: InstanceId,
    pub(crate) certified: Certified,
}

/// The replica that keeps a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Keeper {
    pub(crate) replica: String,
    /// Gateway time of the change, seconds.
    pub(crate) since: u64,
}

/// A worker that lost its rank to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fence {
    pub(crate) rank: u16,
    pub(crate) instance: InstanceId,
}

/// Results that a worker said were lost, until their entry is durable in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Lost {
    pub(crate) rank: u16,
    pub(crate) files: u64,
    /// The document that names them.
    pub(crate) listing: Commitment,
}

/// What a lease may bring home.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResultsPart {
    /// A directory by its real path, or a bucket with a prefix.
    pub(crate) home: SourceSpec,
    pub(crate) resume: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) image: Option<String>,
    pub(crate) bytes: u64,
    pub(crate) files: u64,
    /// Of these: given to replicas, which may not have used all of it.
    pub(crate) reserved_bytes: u64,
    pub(crate) reserved_files: u64,
    pub(crate) drain_s: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) lost: Vec<Lost>,
}

impl ResultsPart {
    pub(crate) const fn most(&self) -> Share {
        Share { bytes: self.bytes, files: self.files }
    }

    pub(crate) const fn reserved(&self) -> Share {
        Share { bytes: self.reserved_bytes, files: self.reserved_files }
    }

    pub(crate) const fn reserve(&mut self, slice: Share) {
        self.reserved_bytes = self.reserved_bytes.saturating_add(slice.bytes);
        self.reserved_files = self.reserved_files.saturating_add(slice.files);
    }

    /// Whether directories exist by themselves at home.
    pub(crate) const fn has_directories(&self) -> bool {
        matches!(self.home, SourceSpec::Directory(_))
    }
}

/// What the gateway must know of a lease after a restart.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Document {
    pub(crate) v: u32,
    pub(crate) lease: Lease,
    /// The embedded gateway whose end is the lease's end; `None` for a daemon's leases.
    pub(crate) owner: Option<String>,
    pub(crate) source: SourceSpec,
    /// What it may bring home; nothing when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) results: Option<ResultsPart>,
    /// The replica that each rank's worker speaks to.
    #[serde(default)]
    pub(crate) keepers: BTreeMap<u16, Keeper>,
    /// More than one replica sent bytes to one worker, so none of them counted all.
    #[serde(default)]
    pub(crate) handed_over: bool,
    /// Ranks whose worker is not waited for any more: after the lease had ended, its replica took it
    /// for gone.
    #[serde(default)]
    pub(crate) given_up: BTreeSet<u16>,
    /// Selected files and their bytes.
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    /// HPKE public key of the newest attachment of each rank.
    pub(crate) hpke: BTreeMap<u16, Base64>,
    pub(crate) last_release_at: Option<u64>,
    /// Plaintext bytes whose keys were released, by rank.
    pub(crate) released_bytes: BTreeMap<u16, u64>,
    /// The same of workers that were fenced.
    #[serde(default)]
    pub(crate) fenced_bytes: u64,
    /// Fenced workers whose entry is not known to be durable in the ledger.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) fences: Vec<Fence>,
    /// Wipe certificates by rank.
    pub(crate) certificates: BTreeMap<u16, Certified>,
    /// Those of workers that were fenced, in the order in which they were made.
    #[serde(default)]
    pub(crate) fenced_certificates: Vec<FencedCertified>,
    /// When the lease key was destroyed: at the close, or before it when the lease was cut off.
    pub(crate) key_destroyed_at: Option<u64>,
    /// The wrapped key's file was deleted and found absent.
    pub(crate) key_absent: bool,
    /// Sealed bytes sent, set at the close; `None` when a crash lost the count.
    pub(crate) sent_bytes: Option<u64>,
    /// The closing entry is durable in the ledger.
    pub(crate) recorded: bool,
}

impl Document {
    /// Notes that a rank's worker speaks to this replica now.
    pub(crate) fn kept_by(&mut self, rank: u16, replica: &str, now: u64) {
        let keeper = Keeper { replica: replica.to_owned(), since: now };
        let before = self.keepers.insert(rank, keeper);
        self.handed_over |= before.is_some_and(|before| before.replica != replica);
    }

    /// Applies the attachment of another process or worker to its rank, and notes whom it fences.
    pub(crate) fn attach(&mut self, rank: u16, attach: Event, now: u64) -> Result<(), Refusal> {
        let before = self.lease.attachment(rank).map(|held| (held.token, held.instance));
        self.lease = self.lease.apply(attach, now)?;
        let after = self.lease.attachment(rank).map(|held| held.token);
        if let Some((token, instance)) = before
            && after != Some(token)
        {
            self.fences.push(Fence { rank, instance });
            self.fenced_bytes += self.released_bytes.remove(&rank).unwrap_or_default();
        }
        Ok(())
    }

    pub(crate) fn is_kept_by(&self, rank: u16, replica: &str) -> bool {
        self.keepers.get(&rank).is_some_and(|keeper| keeper.replica == replica)
    }
}

impl Document {
    pub(crate) const VERSION: u32 = 2;

    /// Plaintext bytes whose keys were released, counted once for each worker that had them.
    pub(crate) fn released_in_all(&self) -> u64 {
        self.fenced_bytes + self.released_bytes.values().sum::<u64>()
    }

    /// Whether a wipe of this worker may still come.
    pub(crate) fn waits_for(&self, held: &Attachment) -> bool {
        held.is_current()
            && !self.certificates.contains_key(&held.rank)
            && !self.given_up.contains(&held.rank)
    }

    /// For how long the workers' statements were waited for, once that is `limit`, as long as is allowed.
    /// By the lease's own time, so that neither a restart nor another replica begins anew.
    pub(crate) fn overdue(&self, limit: u32, now: u64) -> Option<u64> {
        let limit = u64::from(limit);
        let gone = self.key_destroyed_at?;
        (now > gone.saturating_add(limit)).then_some(limit)
    }

    /// Notes what a worker said was lost; its entries come before the worker's certificate.
    pub(crate) fn lose(&mut self, lost: &[Lost]) {
        if let Some(part) = &mut self.results {
            part.lost.extend_from_slice(lost);
        }
    }

    /// Notes what became of the lease's key.
    pub(crate) fn keys_gone(&mut self, gone: KeysGone) {
        self.key_destroyed_at = self.key_destroyed_at.or(gone.destroyed_at);
        self.key_absent = gone.absent == Some(true);
    }
}

/// The book cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BookError {
    #[error("another gateway made this revision first")]
    Taken,
    #[error("the lease's newest revision is gone")]
    Gone,
    #[error("revision {revision} of lease {lease} was written by another version of this program")]
    Unreadable { lease: LeaseId, revision: u64 },
    #[error("a lease document cannot be written as JSON")]
    Unwritable(#[source] serde_json::Error),
    #[error(transparent)]
    State(#[from] StateError),
}

impl BookError {
    /// Something is wrong with this lease's documents, not with the store.
    pub(crate) const fn is_the_lease_s(&self) -> bool {
        matches!(
            self,
            Self::Gone
                | Self::Unreadable { .. }
                | Self::State(StateError::Foreign(_) | StateError::Gap(_))
        )
    }
}

/// Where open leases are marked, so that none has to look through the closed ones for them.
const OPEN: &str = "open";

/// All leases of a state directory.
pub(crate) struct Book {
    revisions: Revisions,
}

fn directory(lease: LeaseId) -> String {
    format!("leases/{lease}")
}

impl Book {
    pub(crate) fn new(revisions: Revisions) -> Self {
        Self { revisions }
    }

    /// Creates a revision; [`BookError::Taken`] when it is there already.
    pub(crate) async fn create(&self, revision: u64, document: &Document) -> Result<(), BookError> {
        let bytes = serde_json::to_vec(document).map_err(BookError::Unwritable)?;
        let name = directory(document.lease.id);
        match self.revisions.create_next(&name, revision, &bytes).await? {
            Creation::Created => Ok(()),
            Creation::Exists => Err(BookError::Taken),
        }
    }

    /// The newest revision of a lease.
    pub(crate) async fn head(&self, lease: LeaseId) -> Result<(u64, Document), BookError> {
        let newest = self.revisions.latest(&directory(lease)).await?;
        parse(lease, newest.ok_or(BookError::Gone)?)
    }

    /// The newest revision of a lease after a known one, which must still be there.
    pub(crate) async fn newer(
        &self,
        lease: LeaseId,
        known: u64,
    ) -> Result<Option<(u64, Document)>, BookError> {
        let name = directory(lease);
        match self.revisions.newer(&name, known).await? {
            Some(newest) => parse(lease, newest).map(Some),
            None if self.revisions.read(&name, known).await?.is_some() => Ok(None),
            None => Err(BookError::Gone),
        }
    }

    /// Marks a lease as open, before its first revision is made.
    pub(crate) async fn mark_open(&self, lease: LeaseId) -> Result<(), BookError> {
        // Only one gateway makes a lease, so the name was free.
        let _ = self.revisions.store().create(&mark(lease), Vec::new()).await?;
        Ok(())
    }

    /// Takes the mark away: the lease is closed and owes nothing.
    pub(crate) async fn unmark(&self, lease: LeaseId) -> Result<(), BookError> {
        Ok(self.revisions.store().delete(&mark(lease)).await?)
    }

    /// Leases marked as open; some may have just closed.
    pub(crate) async fn marked(&self) -> Result<Vec<LeaseId>, BookError> {
        let names = self.revisions.store().list(OPEN).await?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }
}

fn mark(lease: LeaseId) -> String {
    format!("{OPEN}/{lease}")
}

fn parse(lease: LeaseId, revision: Revision) -> Result<(u64, Document), BookError> {
    match serde_json::from_slice::<Document>(&revision.body) {
        Ok(document) if document.v == Document::VERSION && document.lease.id == lease => {
            Ok((revision.number, document))
        }
        _ => Err(BookError::Unreadable { lease, revision: revision.number }),
    }
}
