//! The ledger and the documents beside it, as the gateway writes them.
//!
//! A document is stored before the entry that commits to it; an entry is durable before anybody
//! hears of what it records.

use tidegate_kit::ledger_log::{CERTIFICATES, LedgerLog, LogError};
use tidegate_kit::state::{StateError, StateStore};
use tidegate_ledger::{Action, Commitment, Event, Receipt, WipeCertificate};
use tidegate_plan::{LeaseId, SelectionId, SelectionSpec, Snapshot, SnapshotId};
use tokio::task::spawn_blocking;

use crate::kept;
use crate::problem::Refusal;

/// Something could not be recorded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    #[error("the ledger cannot be written")]
    Log(#[from] LogError),
    #[error("a document beside the ledger cannot be written")]
    Store(#[from] StateError),
    #[error("a record cannot be written in canonical form")]
    Canonical(#[from] tidegate_ledger::CanonicalError),
    #[error("the ledger gave no receipt for an entry")]
    NoReceipt,
    #[error("a selection cannot be written as JSON")]
    Selection(#[source] serde_json::Error),
    #[error("it was not stored, or not to its end")]
    Missing,
    #[error("what is stored is not what its name says")]
    Damaged,
}

impl From<RecordError> for Refusal {
    fn from(error: RecordError) -> Self {
        Self::unavailable("the ledger cannot be written, so nothing is released", &error)
    }
}

pub(crate) struct Record {
    log: LedgerLog,
    store: StateStore,
}

/// An entry's receipt in the wire's words.
pub(crate) fn to_wire(receipt: Receipt) -> tidegate_wire::Receipt {
    tidegate_wire::Receipt {
        entry: receipt.entry,
        index: receipt.index,
        proof: receipt.proof.iter().map(|hash| hash.as_bytes().as_slice().into()).collect(),
        checkpoint: receipt.checkpoint,
    }
}

impl Record {
    pub(crate) fn new(log: LedgerLog, store: StateStore) -> Self {
        Self { log, store }
    }

    /// Time of the newest entry that this process knows, seconds since the epoch.
    pub(crate) fn time(&self) -> u64 {
        self.log.head().time
    }

    /// Whether the state and the ledger answer.
    pub(crate) async fn check(&self) -> Result<(), RecordError> {
        Ok(self.log.check().await?)
    }

    /// Brings the ledger's gauges up to date.
    pub(crate) fn measure(&self) {
        self.log.measure();
    }

    /// Entries, as far as this process knows.
    pub(crate) fn size(&self) -> u64 {
        self.log.head().size
    }

    /// Verifier key in signed-note form, for join files.
    pub(crate) fn vkey(&self) -> String {
        self.log.vkey()
    }

    /// The newest signed head.
    pub(crate) fn checkpoint(&self) -> String {
        self.log.checkpoint()
    }

    /// Appends events in one batch; durable when this returns.
    pub(crate) async fn append(
        &self,
        events: Vec<Event>,
    ) -> Result<Vec<tidegate_wire::Receipt>, RecordError> {
        let receipts = self.log.append(events).await?;
        Ok(receipts.into_iter().map(to_wire).collect())
    }

    /// Appends one event.
    pub(crate) async fn append_one(
        &self,
        event: Event,
    ) -> Result<tidegate_wire::Receipt, RecordError> {
        self.append(vec![event]).await?.pop().ok_or(RecordError::NoReceipt)
    }

    /// Writes down what an administrator does.
    pub(crate) async fn act(
        &self,
        action: Action,
        lease: LeaseId,
        subject: &str,
    ) -> Result<(), RecordError> {
        let subject = self.document(subject).await?;
        self.append(vec![Event::Admin { action, lease: Some(lease), subject }]).await?;
        Ok(())
    }

    /// Stores names or details under a fresh key; returns what an entry says of them.
    pub(crate) async fn document(
        &self,
        body: impl Into<String>,
    ) -> Result<Commitment, RecordError> {
        Ok(self.log.put_document(body).await?)
    }

    /// Whether a document was not erased.
    pub(crate) async fn has_document(&self, commitment: &Commitment) -> Result<bool, RecordError> {
        Ok(self.log.document(commitment).await?.is_some())
    }

    /// Stores a wipe certificate under its digest; returns its canonical text.
    pub(crate) async fn certificate(
        &self,
        certificate: &WipeCertificate,
    ) -> Result<String, RecordError> {
        let text = certificate.to_canonical()?;
        let path = format!("{CERTIFICATES}/{}", certificate.digest()?);
        // Named by its content: whoever stored it first stored the same.
        let _ = self.store.create(&path, text.clone()).await?;
        Ok(text)
    }

    /// A stored wipe certificate; `None` when it is not there, does not hold, or is not what its
    /// name says.
    pub(crate) async fn stored_certificate(
        &self,
        digest: &tidegate_ledger::Digest,
    ) -> Result<Option<String>, RecordError> {
        let Some(bytes) = self.store.read(&format!("{CERTIFICATES}/{digest}")).await? else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(&bytes);
        match WipeCertificate::stored(&text, digest) {
            Ok(_) => Ok(Some(text.into_owned())),
            Err(error) => {
                tracing::error!(%digest, %error, "a stored certificate is passed over");
                Ok(None)
            }
        }
    }

    /// Stores a snapshot under its id.
    pub(crate) async fn store_snapshot(&self, snapshot: &Snapshot) -> Result<(), StateError> {
        kept::store(&self.store, &snapshot_name(snapshot.id()), snapshot.as_bytes()).await
    }

    /// A stored snapshot, as its name says.
    pub(crate) async fn snapshot(&self, id: SnapshotId) -> Result<Snapshot, RecordError> {
        let bytes = kept::read(&self.store, &snapshot_name(id)).await?;
        let bytes = bytes.ok_or(RecordError::Missing)?;
        let read = spawn_blocking(move || Snapshot::from_bytes(bytes)).await;
        let read = read.ok().and_then(Result::ok).filter(|snapshot| snapshot.id() == id);
        read.ok_or(RecordError::Damaged)
    }

    /// Stores what was asked for under its id: a list may be as long as the snapshot, and documents of
    /// leases stay small.
    pub(crate) async fn store_selection(&self, spec: &SelectionSpec) -> Result<(), RecordError> {
        let (name, spec) = (selection_name(spec.id()), spec.clone().normal());
        let text = serde_json::to_vec(&spec).map_err(RecordError::Selection)?;
        Ok(kept::store(&self.store, &name, &text).await?)
    }

    /// A stored selection, as its name says.
    pub(crate) async fn selection(&self, id: SelectionId) -> Result<SelectionSpec, RecordError> {
        let text = kept::read(&self.store, &selection_name(id)).await?;
        let text = text.ok_or(RecordError::Missing)?;
        let read = serde_json::from_slice::<SelectionSpec>(&text).ok();
        read.filter(|spec| spec.id() == id).ok_or(RecordError::Damaged)
    }
}

fn snapshot_name(id: SnapshotId) -> String {
    format!("snapshots/{id}")
}

fn selection_name(id: SelectionId) -> String {
    format!("selections/{id}")
}
