//! A lease as the running gateway holds it: its goods, the head of its history, who is there.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use tidegate_lease::{Event, Lease};
use tidegate_ledger::Commitment;
use tidegate_plan::{InstanceId, LeaseId};
use tidegate_wire::{Counters, ProblemKind, Receipt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use crate::book::Document;
use crate::pipeline::Budget;
use crate::problem::Refusal;
use crate::results::Desk;
use crate::shelf::Cut;
use crate::source::{Source, SourceError};

/// Releases of one rank in a span: ten a second is more than any window asks for.
const RELEASES_MAX: u32 = 600;
const RELEASES_SPAN_S: u64 = 60;
/// Attachments of one rank at once, and seconds for each one more: a worker attaches when it starts and
/// when it was cut off; one that crashes again and again still comes back within seconds.
const ATTACHES: u64 = 12;
const ATTACH_S: u64 = 5;
const MANIFESTS_EACH: usize = 2;
/// Long bodies of one lease that are read at once: others have some to send too.
const LONG_BODIES: usize = 2;

/// A source that is being opened.
pub(crate) type Opening = JoinHandle<Result<Source, SourceError>>;

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
    /// Start and count of the present span of releases.
    releases: Mutex<(u64, u32)>,
    /// Time until which the attachments are used up.
    attaches: Mutex<u64>,
    /// Digest of the facts of the newest attachment, and their document.
    facts: Mutex<Option<([u8; 32], Commitment)>>,
    counters: Mutex<Counters>,
    /// What it may hold of the pipeline's buffers.
    part: OnceLock<Budget>,
    /// Manifests under way to it.
    manifests: OnceLock<Arc<Semaphore>>,
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

    /// Counts a release, which makes a revision and an entry; refuses when there are too many.
    pub(crate) fn allow_release(&self, now: u64) -> Result<(), Refusal> {
        let mut releases = self.releases.lock().unwrap_or_else(PoisonError::into_inner);
        if now >= releases.0 + RELEASES_SPAN_S {
            *releases = (now, 0);
        }
        releases.1 += 1;
        if releases.1 > RELEASES_MAX {
            return Err(Refusal::new(ProblemKind::TooMany, "too many releases in a minute"));
        }
        Ok(())
    }

    /// Counts an attachment, which makes a document besides; refuses when there are too many.
    pub(crate) fn allow_attach(&self, now: u64) -> Result<(), Refusal> {
        let mut until = self.attaches.lock().unwrap_or_else(PoisonError::into_inner);
        if *until > now + (ATTACHES - 1) * ATTACH_S {
            let detail = "too many attachments of this rank; one may come every 5 seconds";
            return Err(Refusal::new(ProblemKind::TooMany, detail));
        }
        *until = now.max(*until) + ATTACH_S;
        Ok(())
    }

    /// The document of the same facts, if the attachment before had them.
    pub(crate) fn facts_before(&self, digest: &[u8; 32]) -> Option<Commitment> {
        let facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        facts.filter(|(before, _)| before == digest).map(|(_, document)| document)
    }

    pub(crate) fn facts_are(&self, digest: [u8; 32], document: Commitment) {
        *self.facts.lock().unwrap_or_else(PoisonError::into_inner) = Some((digest, document));
    }

    /// The part of the buffers that this rank's answers may hold, whichever process takes them.
    pub(crate) fn part(&self, budget: &Budget) -> Budget {
        self.part.get_or_init(|| budget.part()).clone()
    }

    /// Manifests that may be under way to this rank: half of all, for a process and the one before it.
    pub(crate) fn manifests(&self) -> Arc<Semaphore> {
        let manifests = || Arc::new(Semaphore::new(MANIFESTS_EACH));
        Arc::clone(self.manifests.get_or_init(manifests))
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
    /// `None` once the lease is closed, and while its source cannot be reached from here.
    goods: RwLock<Option<Arc<Goods>>>,
    view: RwLock<View>,
    /// Held while a revision is made and recorded, so that entries follow revisions in order.
    pub(crate) turn: tokio::sync::Mutex<()>,
    /// Its source, while it is being opened. Held by whoever tries to serve a dormant lease.
    pub(crate) opening: tokio::sync::Mutex<Option<Opening>>,
    presence: Mutex<HashMap<u16, Arc<Presence>>>,
    /// What its results need, once they are asked for.
    pub(crate) desk: tokio::sync::OnceCell<Arc<Desk>>,
    /// The home is opened by one at a time, however long it hangs.
    pub(crate) home_opening: Arc<Semaphore>,
    /// What it left half done at the home of its results is taken away.
    pub(crate) tidied: AtomicBool,
    /// Those that read a long body of it.
    pub(crate) long_bodies: Arc<Semaphore>,
    /// Of the entries of wipes, for workers that lost their answer.
    receipts: Mutex<HashMap<InstanceId, Receipt>>,
    /// Nothing more is served, whatever the head says.
    over: AtomicBool,
    /// Why it was cut off here, until that is written down.
    cut: Mutex<Option<Event>>,
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
            opening: tokio::sync::Mutex::default(),
            presence: Mutex::default(),
            desk: tokio::sync::OnceCell::new(),
            home_opening: Arc::new(Semaphore::new(1)),
            tidied: AtomicBool::new(false),
            long_bodies: Arc::new(Semaphore::new(LONG_BODIES)),
            receipts: Mutex::default(),
            over: AtomicBool::new(false),
            cut: Mutex::default(),
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

    /// What was not to be had when the lease was taken up; not for one that has ended meanwhile.
    pub(crate) fn supply(&self, goods: Goods) {
        let mut held = self.goods.write().unwrap_or_else(PoisonError::into_inner);
        if !self.is_over() {
            *held = Some(Arc::new(goods));
        }
    }

    /// Its right goes on, and it may be ended; but there is nothing here to serve it with.
    pub(crate) fn is_dormant(&self) -> bool {
        !self.is_over() && self.goods().is_none()
    }

    /// Waits for whoever tries to serve a dormant lease just now, if anybody does.
    pub(crate) async fn tried(&self) {
        if self.is_dormant() && self.opening.try_lock().is_err() {
            drop(self.opening.lock().await);
        }
    }

    /// Lets go of source and layout.
    pub(crate) fn clear(&self) {
        *self.goods.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(crate) fn presence(&self, rank: u16) -> Arc<Presence> {
        let mut presence = self.presence.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(presence.entry(rank).or_default())
    }

    /// Keeps the receipt of the entry of a worker's wipe.
    pub(crate) fn keep(&self, worker: InstanceId, receipt: Receipt) {
        self.receipts.lock().unwrap_or_else(PoisonError::into_inner).insert(worker, receipt);
    }

    pub(crate) fn kept(&self, worker: InstanceId) -> Option<Receipt> {
        self.receipts.lock().unwrap_or_else(PoisonError::into_inner).get(&worker).cloned()
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

    /// Ends serving for a cause that stands even while the state cannot be written.
    pub(crate) fn cut_off(&self, cause: &Event, now: u64) {
        let mut cut = self.cut.lock().unwrap_or_else(PoisonError::into_inner);
        cut.get_or_insert_with(|| cause.clone());
        self.end(now);
    }

    /// Why it was cut off here, if it was.
    pub(crate) fn cut(&self) -> Option<Event> {
        self.cut.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
        let releases =
            |now, tries| (0..tries).filter(|_| presence.allow_release(now).is_ok()).count();
        assert_eq!(releases(1000, RELEASES_MAX * 2), RELEASES_MAX as usize);
        assert_eq!(releases(1000 + RELEASES_SPAN_S, 1), 1);
        let attaches = |now| (0..100).filter(|_| presence.allow_attach(now).is_ok()).count();
        assert_eq!(attaches(1000), 12, "a few at once");
        assert_eq!((1001..1061).map(attaches).sum::<usize>(), 12, "and so many in each minute");
        assert_eq!(attaches(9000), 12, "whoever was quiet may come back at once");
    }
}
