//! The office: everything the gateway keeps between requests, and the one way to change a lease.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Semaphore;

use tidegate_kit::clock::Clock;
use tidegate_lease as lease;
use tidegate_plan::LeaseId;

use crate::book::{Book, BookError, Document};
use crate::config::GatewayConfig;
use crate::keyring::Keyring;
use crate::live::Live;
use crate::lookups::Lookups;
use crate::nonce::Nonces;
use crate::pipeline::Budget;
use crate::rate::Rate;
use crate::record::Record;
use crate::refusals::Refusals;
use crate::results::Intake;
use crate::shelf::Shelf;
use tidegate_kit::tls::Authority;

/// A head older than this is looked at again before anything is served by it.
const HEAD_AGE: Duration = Duration::from_secs(4);
/// Nothing is served by a head older than this, however long looking at it takes (design: 5 s).
const HEAD_AGE_MAX: Duration = Duration::from_secs(5);
/// Sources of dormant leases that are being opened at once.
const OPENINGS: usize = 64;
/// Manifests in memory at once.
const MANIFESTS: usize = 4;
/// Lost races for one revision before the gateway gives up; only another gateway can win them.
const TRIES: u32 = 4;

pub(crate) struct Office {
    pub(crate) config: GatewayConfig,
    pub(crate) book: Book,
    pub(crate) budget: Budget,
    /// Room for results on their way.
    pub(crate) intake: Intake,
    pub(crate) keyring: Keyring,
    pub(crate) lookups: Lookups,
    /// Manifests built and sent at once: each is as large as its share's names.
    pub(crate) manifests: Arc<Semaphore>,
    pub(crate) nonces: Nonces,
    pub(crate) authority: Arc<Authority>,
    /// One for each lease that may be open.
    pub(crate) places: Arc<Semaphore>,
    pub(crate) rate: Option<Rate>,
    pub(crate) record: Record,
    pub(crate) refusals: Refusals,
    /// Snapshots and cuts of all leases.
    pub(crate) shelf: Arc<Shelf>,
    /// `https://host:port` of the workers' listener, for join files.
    pub(crate) urls: Vec<String>,
    /// This replica, the same over restarts.
    pub(crate) replica: String,
    /// Held by every grant that is being made.
    pub(crate) granting: Arc<tokio::sync::RwLock<()>>,
    /// Shared by all steps of results that are under way: a shutdown waits for their entries.
    pub(crate) steps: Arc<tokio::sync::RwLock<()>>,
    pub(crate) clock: Arc<dyn Clock>,
    /// One lease at a time is taken up from the state.
    pub(crate) adopting: tokio::sync::Mutex<()>,
    /// Sources that may be waited for at once: each that hangs keeps a thread.
    pub(crate) openings: Arc<Semaphore>,
    /// The same of homes of results.
    pub(crate) home_openings: Arc<Semaphore>,
    /// Marks the leases of an embedded gateway; `None` for a daemon's.
    pub(crate) owner: Option<String>,
    leases: RwLock<HashMap<LeaseId, Arc<Live>>>,
    latest: AtomicU64,
}

/// A lease could not be moved on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdvanceError {
    #[error("the lease does not allow this")]
    Refused(#[source] lease::Refusal),
    #[error("the lease's state cannot be written or read")]
    Book(#[from] BookError),
}

/// The parts of an office that are opened one by one.
pub(crate) struct Parts {
    pub(crate) config: GatewayConfig,
    pub(crate) book: Book,
    pub(crate) keyring: Keyring,
    pub(crate) authority: Arc<Authority>,
    pub(crate) record: Record,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) urls: Vec<String>,
    pub(crate) owner: Option<String>,
    pub(crate) replica: String,
    /// The same for all replicas, so that any takes a nonce that another gave out.
    pub(crate) nonce_key: [u8; 32],
}

impl Office {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { config, book, keyring, authority, record, clock, .. } = parts;
        let Parts { urls, owner, replica, nonce_key, .. } = parts;
        Self {
            budget: Budget::new(config.limits.buffers),
            intake: Intake::default(),
            lookups: Lookups::default(),
            manifests: Arc::new(Semaphore::new(MANIFESTS)),
            places: Arc::new(Semaphore::new(config.limits.leases)),
            nonces: Nonces::new(nonce_key),
            rate: config.rate_limit.map(Rate::new),
            refusals: Refusals::default(),
            shelf: Arc::new(Shelf::new(config.limits.snapshots)),
            leases: RwLock::default(),
            latest: AtomicU64::new(0),
            config,
            book,
            keyring,
            authority,
            record,
            clock,
            urls,
            owner,
            replica,
            granting: Arc::default(),
            steps: Arc::default(),
            adopting: tokio::sync::Mutex::default(),
            openings: Arc::new(Semaphore::new(OPENINGS)),
            home_openings: Arc::new(Semaphore::new(OPENINGS)),
        }
    }

    /// Gateway time in seconds since the epoch: never before the last entry, never going back.
    pub(crate) fn now(&self) -> u64 {
        let now = self.clock.now_unix().max(self.record.time());
        self.latest.fetch_max(now, Ordering::SeqCst).max(now)
    }

    pub(crate) fn find(&self, id: LeaseId) -> Option<Arc<Live>> {
        self.leases.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// Whether other replicas may serve the same leases.
    pub(crate) fn is_replicated(&self) -> bool {
        self.config.state_bucket.is_some()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Live>> {
        self.leases.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub(crate) fn put(&self, live: Live) -> Arc<Live> {
        let live = Arc::new(live);
        let mut leases = self.leases.write().unwrap_or_else(PoisonError::into_inner);
        leases.insert(live.id, Arc::clone(&live));
        live
    }

    pub(crate) fn forget(&self, id: LeaseId) {
        self.leases.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// Makes sure the head is at most a few seconds old.
    pub(crate) async fn refresh(&self, live: &Live) -> Result<(), BookError> {
        if self.head_age(live) < HEAD_AGE {
            return Ok(());
        }
        self.look(live).await
    }

    /// Whether the head is young enough to serve by.
    pub(crate) fn knows_head(&self, live: &Live) -> bool {
        self.head_age(live) <= HEAD_AGE_MAX
    }

    /// For how long the head may have been another one.
    fn head_age(&self, live: &Live) -> Duration {
        self.clock.boottime().saturating_sub(live.view().checked)
    }

    /// Looks for the head whatever is known of it.
    pub(crate) async fn look(&self, live: &Live) -> Result<(), BookError> {
        let (view, began) = (live.view(), self.clock.boottime());
        match self.book.newer(live.id, view.revision).await? {
            Some((revision, document)) => live.set_view(revision, Arc::new(document), began),
            None => live.confirm(view.revision, began),
        }
        Ok(())
    }

    /// Makes the next revision of a lease. The caller holds `live.turn`. `change` may run again when
    /// another gateway was faster.
    pub(crate) async fn advance(
        &self,
        live: &Live,
        change: impl Fn(&mut Document) -> Result<(), lease::Refusal>,
    ) -> Result<(u64, Arc<Document>), AdvanceError> {
        for _ in 0..TRIES {
            let (view, began) = (live.view(), self.clock.boottime());
            let mut document = Document::clone(&view.document);
            live.note_seen(&mut document.lease);
            change(&mut document).map_err(AdvanceError::Refused)?;
            let revision = view.revision + 1;
            match self.book.create(revision, &document).await {
                Ok(()) => {
                    let document = Arc::new(document);
                    live.set_view(revision, Arc::clone(&document), began);
                    return Ok((revision, document));
                }
                Err(BookError::Taken) => {
                    let (revision, document) = self.book.head(live.id).await?;
                    live.set_view(revision, Arc::new(document), began);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(BookError::Taken.into())
    }
}
