//! The ledger on a state store: durable appends by any number of processes.
//!
//! Each append is one create-only batch object named by its first index, so of several writers
//! that stand at the same size exactly one wins; the others read what it wrote and try again
//! behind it. One task writes, and takes all that waits into one batch. A batch's checkpoint is
//! shown to nobody before the batch is durable and, where a second place is configured, before
//! the checkpoint lies there as well: that copy is the high-water mark below which no gateway
//! starts.

mod copy;
mod error;
mod offline;
mod restore;
mod volume;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tidegate_ledger::{Commitment, Document, Event, Receipt, VerifierKey};
use tokio::sync::{mpsc, oneshot, watch};

pub use error::LogError;
pub use offline::{ledgers, read_batches, read_certificate, read_document};
pub use restore::inspect;

use crate::clock::{Clock, SystemClock};
use crate::state::StateStore;
use crate::{keyfile, meters};
use writer::{Append, Writer};

/// Where the documents lie in the state.
pub const DOCUMENTS: &str = "ledger/documents";
/// Where the wipe certificates lie in the state.
pub const CERTIFICATES: &str = "ledger/certificates";
/// Appends that may wait at once before callers are held back.
const QUEUE: usize = 256;

/// Settings of a ledger.
#[derive(Clone, Debug)]
pub struct LedgerConfig {
    /// The signing key, 0600; made when missing and the ledger is empty.
    pub key_file: PathBuf,
    /// Origin of a ledger that is new; a random one when not given. An existing key keeps its own.
    pub origin: Option<String>,
    /// Second place for the newest checkpoint, best on another disk.
    pub checkpoint_copy: Option<PathBuf>,
}

/// The newest head that this process knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Entries.
    pub size: u64,
    /// Signed note over them.
    pub checkpoint: String,
    /// Time of the last entry, seconds since the epoch; 0 while there is none.
    pub time: u64,
}

/// A ledger that can be appended to. Cheap to clone; the log closes with the last clone.
#[derive(Clone, Debug)]
pub struct LedgerLog {
    store: StateStore,
    key: Arc<VerifierKey>,
    /// Where the key lies in the store.
    verifier: Arc<str>,
    appends: mpsc::Sender<Append>,
    head: watch::Receiver<Head>,
    /// The last append failed.
    failing: Arc<AtomicBool>,
}

impl LedgerLog {
    /// Opens the ledger in `store`, or starts one: replays and checks every batch, and refuses a
    /// log that is behind, or beside, its checkpoint copy. Needs a running tokio runtime.
    pub async fn open(store: StateStore, config: LedgerConfig) -> Result<Self, LogError> {
        let (log, writing) = Self::open_with(store, config, Arc::new(SystemClock)).await?;
        tokio::spawn(writing);
        Ok(log)
    }

    /// The same with another clock. Nothing is appended unless the caller drives the future that
    /// comes with the log: it writes, and ends when the log's last clone is gone.
    pub async fn open_with(
        store: StateStore,
        config: LedgerConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, impl Future<Output = ()> + Send + 'static), LogError> {
        let (writer, head) = Writer::open(store.clone(), config, clock).await?;
        Self::with(store, writer, head).await
    }

    async fn with(
        store: StateStore,
        writer: Writer,
        head: watch::Receiver<Head>,
    ) -> Result<(Self, impl Future<Output = ()> + Send + 'static), LogError> {
        let key = Arc::new(writer.first_key().clone());
        // Whoever opened the ledger first wrote the same.
        let verifier = Arc::from(writer.volume().verifier());
        let _ = store.create(&verifier, format!("{key}\n")).await?;
        let (appends, requests) = mpsc::channel(QUEUE);
        let log = Self { store, key, verifier, appends, head, failing: Arc::default() };
        Ok((log, writer.run(requests)))
    }

    /// Appends events as one run of entries and returns their receipts, once batch and checkpoint
    /// copy are durable. After an error the entries may or may not be in the log: release nothing.
    pub async fn append(&self, events: Vec<Event>) -> Result<Vec<Receipt>, LogError> {
        let started = Instant::now();
        let outcome = self.try_append(events).await;
        meters::LEDGER_APPEND.record(&[], started);
        if !outcome.as_ref().is_err_and(LogError::is_callers) {
            self.failing.store(outcome.is_err(), Ordering::Relaxed);
            meters::LEDGER_ERRORS.add(outcome.is_err().into());
        }
        outcome
    }

    async fn try_append(&self, events: Vec<Event>) -> Result<Vec<Receipt>, LogError> {
        let (reply, answer) = oneshot::channel();
        let append = Append { events, reply };
        self.appends.send(append).await.map_err(|_| LogError::Closed)?;
        answer.await.map_err(|_| LogError::Closed)?
    }

    /// Whether the ledger can be read and, as far as is known, written: its last append succeeded, or
    /// the store takes writes again.
    pub async fn check(&self) -> Result<(), LogError> {
        if self.store.read(&self.verifier).await?.is_none() {
            return Err(LogError::Closed);
        }
        if self.failing.load(Ordering::Relaxed) {
            self.store.try_out().await?;
            self.failing.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Brings the gauges of the ledger up to date.
    pub fn measure(&self) {
        let head = self.head.borrow();
        meters::LEDGER_ENTRIES.set(head.size);
        meters::LEDGER_TIME.set(head.time);
    }

    /// Appends one event.
    pub async fn append_one(&self, event: Event) -> Result<Receipt, LogError> {
        self.append(vec![event]).await?.pop().ok_or(LogError::Closed)
    }

    /// The newest head after this process's last append. Other writers may be further.
    pub fn head(&self) -> Head {
        self.head.borrow().clone()
    }

    /// The newest signed checkpoint after this process's last append.
    pub fn checkpoint(&self) -> String {
        self.head.borrow().checkpoint.clone()
    }

    /// The ledger's first verifier key.
    pub fn verifier(&self) -> &VerifierKey {
        &self.key
    }

    /// The ledger's first verifier key as text: what an auditor keeps.
    pub fn vkey(&self) -> String {
        self.key.to_string()
    }

    /// Stores a document beside the log and returns the commitment for its entry.
    pub async fn put_document(&self, body: impl Into<String>) -> Result<Commitment, LogError> {
        put_document(&self.store, body).await
    }

    /// The text of a document; `None` once it was erased.
    pub async fn document(&self, commitment: &Commitment) -> Result<Option<String>, LogError> {
        let Some(bytes) = self.store.read(&document_path(commitment)).await? else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(&bytes);
        Ok(Some(Document::parse(&text, commitment)?.body))
    }

    /// Erases a document; the log stays whole.
    pub async fn erase_document(&self, commitment: &Commitment) -> Result<(), LogError> {
        Ok(self.store.delete(&document_path(commitment)).await?)
    }
}

/// Stores a document for an entry of a ledger that is not open yet.
pub async fn put_document(
    store: &StateStore,
    body: impl Into<String>,
) -> Result<Commitment, LogError> {
    let document = Document::new(keyfile::random(), body);
    let commitment = document.commitment();
    let text = document.to_json().map_err(|e| LogError::Document(e.into()))?;
    // The key is random, so nobody else can have made this name.
    let _created = store.create(&document_path(&commitment), text.into_bytes()).await?;
    Ok(commitment)
}

fn document_path(commitment: &Commitment) -> String {
    format!("{DOCUMENTS}/{commitment}")
}

#[cfg(test)]
mod tests;
