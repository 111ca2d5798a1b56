//! A lease as the running gateway holds it: its goods, the head of its history, who is there.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tidegate_lease::Lease;
use tidegate_plan::LeaseId;
use tidegate_wire::{Counters, ProblemKind, WipeReceipt};
use tokio::sync::OwnedSemaphorePermit;

use crate::book::Document;
use crate::problem::Refusal;
use crate::shelf::Cut;
use crate::source::Source;

/// Attachments and releases of one rank in a span: ten a second is more than any window asks for,
/// and bounds what a worker can make us write.
const WRITES_MAX: u32 = 600;
const WRITES_SPAN_S: u64 = 60;

/// What a lease gives out: the source and how its selection is cut.
pub(crate) struct Goods {
    pub(crate) source: Arc<Source>,
    /// Shared with the leases that have the same.
    pub(crate) cut: Arc<Cut>,
    /// Counts against the leases that may be open; given back with the goods.
    pub(crate) _place: Option<OwnedSemaphorePermit>,
}

impl Deref for Goods {
    type Target = Cut;

    fn deref(&self) -> &Cut {
        &self.cut
    }
}

/// The newest known revision of a lease.
#[derive(Clone)]
pub(crate) struct View {
    pub(crate) revision: u64,
    pub(crate) document: Arc<Document>,
    /// Boot time before which it was last seen to be the newest.
    pub(crate) checked: Duration,
}

/// What is known of the worker of one rank beyond its attachment. Lost with the process.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    last_seen: AtomicU64,
    sent: AtomicU64,
    certificate: Mutex<(u64, u64)>,
    /// Start and count of the present span of writes.
    writes: Mutex<(u64, u32)>,
    counters: Mutex<Counters>,
}

impl Presence {
    /// A sign of life.
    pub(crate) fn seen(&self, now: u64) {
        self.last_seen.fetch_max(now, Ordering::Relaxed);
    }

    pub(crate) fn beat(&self, counters: Counters, now: u64) {
        self.seen(now);
        *self.counters.lock().unwrap_or_else(PoisonError::into_inner) = counters;
    }

    pub(crate) fn sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
        crate::meters::SENT.add(bytes);
    }

    pub(crate) fn last_seen(&self) -> u64 {
        self.last_seen.load(Ordering::Relaxed)
    }

    pub(crate) fn sent_bytes(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(crate) fn counters(&self) -> Counters {
        *self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request that makes a revision and an entry; refuses when there are too many.
    pub(crate) fn allow_write(&self, now: u64) -> Result<(), Refusal> {
        let mut writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        if now >= writes.0 + WRITES_SPAN_S {
            *writes = (now, 0);
        }
        writes.1 += 1;
        if writes.1 > WRITES_MAX {
            let detail = "too many attachments or releases in a minute";
            return Err(Refusal::new(ProblemKind::TooMany, detail));
        }
        Ok(())
    }

    /// Notes a certificate given out: from when to when it holds.
    pub(crate) fn certified(&self, from: u64, until: u64) {
        *self.certificate.lock().unwrap_or_else(PoisonError::into_inner) = (from, until);
    }

    /// Whether half of the newest certificate's life is over (or none is known).
    pub(crate) fn wants_certificate(&self, now: u64) -> bool {
        let (from, until) = *self.certificate.lock().unwrap_or_else(PoisonError::into_inner);
        now >= from + until.saturating_sub(from) / 2
    }
}

/// One lease in RAM.
pub(crate) struct Live {
    pub(crate) id: LeaseId,
    /// `None` once the lease is closed.
    goods: RwLock<Option<Arc<Goods>>>,
    view: RwLock<View>,
    /// Held while a revision is made and recorded, so that entries follow revisions in order.
    pub(crate) turn: tokio::sync::Mutex<()>,
    presence: Mutex<HashMap<u16, Arc<Presence>>>,
    /// Answers to wipe statements, for workers that lost theirs.
    receipts: Mutex<HashMap<u16, WipeReceipt>>,
    /// Nothing more is served, whatever the head says.
    over: AtomicBool,
    /// Time at which the lease stopped serving; 0 while it serves.
    over_at: AtomicU64,
    /// When it was last written down who was heard, for other replicas.
    written_down: AtomicU64,
    /// Bytes were sent by a process before this one, and their count died with it.
    count_lost: bool,
}

impl Live {
    pub(crate) fn new(
        revision: u64,
        document: Document,
        goods: Option<Goods>,
        count_lost: bool,
    ) -> Self {
        Self {
            id: document.lease.id,
            goods: RwLock::new(goods.map(Arc::new)),
            view: RwLock::new(View {
                revision,
                document: Arc::new(document),
                // Nobody knows: it is looked at again before it is used.
                checked: Duration::ZERO,
            }),
            turn: tokio::sync::Mutex::new(()),
            presence: Mutex::default(),
            receipts: Mutex::default(),
            over: AtomicBool::new(false),
            over_at: AtomicU64::new(0),
            written_down: AtomicU64::new(0),
            count_lost,
        }
    }

    pub(crate) fn view(&self) -> View {
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A newer head. `checked` is when the look that found it began.
    pub(crate) fn set_view(&self, revision: u64, document: Arc<Document>, checked: Duration) {
        let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
        if revision > view.revision {
            *view = View { revision, document, checked };
        }
    }

    /// The head was looked for and still is this revision. `checked` is when the look began: an
    /// answer that was long under way says nothing about now.
    pub(crate) fn confirm(&self, revision: u64, checked: Duration) {
        let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
        if view.revision == revision {
            view.checked = view.checked.max(checked);
        }
    }

    pub(crate) fn goods(&self) -> Option<Arc<Goods>> {
        self.goods.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets go of source and layout.
    pub(crate) fn clear(&self) {
        *self.goods.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(crate) fn presence(&self, rank: u16) -> Arc<Presence> {
        let mut presence = self.presence.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(presence.entry(rank).or_default())
    }

    /// Keeps the answer to a rank's wipe statement.
    pub(crate) fn keep(&self, rank: u16, receipt: WipeReceipt) {
        self.receipts.lock().unwrap_or_else(PoisonError::into_inner).insert(rank, receipt);
    }

    pub(crate) fn kept(&self, rank: u16) -> Option<WipeReceipt> {
        self.receipts.lock().unwrap_or_else(PoisonError::into_inner).get(&rank).cloned()
    }

    /// Whether this process has counted every byte that was sent.
    pub(crate) fn counts_all(&self) -> bool {
        !self.count_lost && !self.view().document.handed_over
    }

    /// Sealed bytes sent to all ranks by this process.
    pub(crate) fn sent_bytes(&self) -> u64 {
        let presence = self.presence.lock().unwrap_or_else(PoisonError::into_inner);
        presence.values().map(|p| p.sent_bytes()).sum()
    }

    /// Ends serving at once; streams under way break off.
    pub(crate) fn end(&self, now: u64) {
        if !self.over.swap(true, Ordering::SeqCst) {
            self.over_at.store(now, Ordering::SeqCst);
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// When serving ended.
    pub(crate) fn over_at(&self) -> Option<u64> {
        self.is_over().then(|| self.over_at.load(Ordering::SeqCst))
    }

    /// When it was last written down who was heard.
    pub(crate) fn written_down(&self) -> u64 {
        self.written_down.load(Ordering::SeqCst)
    }

    pub(crate) fn wrote_down(&self, now: u64) {
        self.written_down.store(now, Ordering::SeqCst);
    }

    /// Whether data may be served at `now`.
    pub(crate) fn serves(&self, now: u64) -> bool {
        !self.is_over() && self.view().document.lease.is_serving(now)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.view().document.lease.is_closed()
    }

    /// Brings what was heard since the last revision into a copy of the lease.
    pub(crate) fn note_seen(&self, lease: &mut Lease) {
        let held: Vec<_> = lease.attachments.iter().map(|a| (a.rank, a.instance)).collect();
        for (rank, instance) in held {
            // Refused for a closed lease or a fenced worker, of whom nothing is to be noted.
            let _ = lease.note_seen(rank, instance, self.presence(rank).last_seen());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_after_half_of_its_life() {
        let presence = Presence::default();
        assert!(presence.wants_certificate(1000), "none is known after a restart");
        presence.certified(1000, 1900);
        assert!(!presence.wants_certificate(1449));
        assert!(presence.wants_certificate(1450));
    }

    #[test]
    fn what_a_worker_can_make_us_write_is_bounded() {
        let presence = Presence::default();
        let allowed = (0..WRITES_MAX * 2).filter(|_| presence.allow_write(1000).is_ok()).count();
        assert_eq!(allowed, WRITES_MAX as usize);
        assert!(presence.allow_write(1000 + WRITES_SPAN_S).is_ok());
    }
}
