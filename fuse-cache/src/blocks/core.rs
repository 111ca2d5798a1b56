//! What the readers, the filling and the fetches share.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tidegate_kit::clock::boottime;
use tidegate_wire::{Counters, LeaseTerms};
use tokio::sync::{Notify, watch};

use super::resident::{End, Resident};
use super::scratch::Scratches;
use super::table::Table;
use super::{CacheConfig, CacheParts, ReadError, ShareManifest};
use crate::budget::{Budget, Reservation};
use crate::client::Client;
use crate::keys::{KEY_LEN, KeyRing};
use crate::schedule::{FEWEST_WINDOWS, Schedule};
use crate::store::Store;

/// Buffers of one connection and of the bytes on their way to the disk.
const CONNECTION: usize = 1 << 20;
/// Part of the budget for the keys of open windows: with the default of 512 MiB, those of 4 TiB.
const KEY_SHARE_OF_BUDGET: u64 = 16;
const FEWEST: usize = 2;
const MOST: usize = 16;

pub(super) struct Core {
    pub(super) manifest: Arc<ShareManifest>,
    pub(super) client: Arc<Client>,
    pub(super) keys: Arc<KeyRing>,
    pub(super) store: Arc<Store>,
    pub(super) scratches: Scratches,
    pub(super) totals: Totals,
    /// Most blocks under way.
    pub(super) connections: u32,
    /// Most windows of keys open at once.
    pub(super) open_windows: usize,
    pub(super) grace: Duration,
    /// Blocks under suspicion: none, nearly always, and then reads need not ask the table.
    pub(super) suspects: AtomicUsize,
    /// A demand found every slot in use.
    starved: AtomicBool,
    table: Mutex<Table>,
    woken: Notify,
    closed: watch::Sender<bool>,
    /// Of connections and keys; given back when the cache is retired.
    reserved: Mutex<[Option<Reservation>; 2]>,
}

impl Core {
    pub(super) fn new(parts: CacheParts, config: CacheConfig) -> Arc<Self> {
        let CacheParts { manifest, client, keys, store, adopted, budget } = parts;
        let mut table = Table::new(Schedule::new(manifest.blocks()), Arc::clone(&keys));
        for found in adopted {
            if let Some(info) = manifest.block(found.block) {
                let resident = Resident::complete(found.block, info, found.slot, found.header);
                table.insert(Arc::new(resident));
            }
        }
        let scratches = Scratches::new(&budget);
        let (connections, buffers) = connections(&budget, config.connections);
        let (open_windows, key_memory) = open_windows(&budget, client.terms());
        Arc::new(Self {
            manifest,
            client,
            keys,
            store,
            scratches,
            totals: Totals::new(),
            connections,
            open_windows,
            grace: config.grace,
            suspects: AtomicUsize::new(0),
            starved: AtomicBool::new(false),
            table: Mutex::new(table),
            woken: Notify::new(),
            closed: watch::Sender::new(false),
            reserved: Mutex::new([buffers, key_memory]),
        })
    }

    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A block for a reader's use, which keeps it from being evicted.
    pub(super) fn pin(&self, resident: Arc<Resident>) -> Pinned<'_> {
        Pinned { core: self, resident: Some(resident) }
    }

    /// Says that a demand waits for a slot, so that whoever lets a block go wakes the filling. To be
    /// called before the last look for one.
    pub(super) fn set_starved(&self) {
        self.starved.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Makes the filling look again.
    pub(super) fn wake(&self) {
        self.woken.notify_one();
    }

    pub(super) async fn woken(&self) {
        self.woken.notified().await;
    }

    /// Resolves once [`Self::close`] was called.
    pub(super) async fn closed(&self) {
        let mut closed = self.closed.subscribe();
        if closed.wait_for(|closed| *closed).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Destroys keys and plaintext and turns every reader away.
    pub(super) fn close(&self) {
        self.keys.destroy();
        self.scratches.wipe();
        let residents = self.table().close();
        for resident in residents {
            resident.fail(End::Over);
        }
        self.closed.send_replace(true);
        self.wake();
    }

    /// For a cache that comes after this one, whose fetches have all ended.
    pub(super) fn give_buffers_back(&self) {
        *self.reserved.lock().unwrap_or_else(PoisonError::into_inner) = [None, None];
    }

    /// The resident's bytes did not open: it is dropped, and once it may be fetched again.
    pub(super) fn distrust(&self, resident: &Arc<Resident>) -> Result<(), ReadError> {
        let mut table = self.table();
        let again = table.distrust(resident);
        if again == Some(false) {
            // Filling it a third time is left until somebody asks or a while has passed.
            table.failed(resident.block, tokio::time::Instant::now());
        }
        self.suspects.store(table.suspects(), Ordering::Relaxed);
        drop(table);
        resident.fail(End::Torn);
        match again {
            None => Ok(()),
            Some(true) => {
                tracing::warn!(block = resident.block, "a block does not open; fetching it again");
                self.totals.refetched.fetch_add(1, Ordering::Relaxed);
                self.wake();
                Ok(())
            }
            Some(false) => {
                tracing::error!(block = resident.block, "a block fetched again does not open");
                Err(ReadError::Integrity)
            }
        }
    }
}

/// A resident that a reader uses.
pub(super) struct Pinned<'a> {
    core: &'a Core,
    /// `None` only while it is dropped.
    resident: Option<Arc<Resident>>,
}

impl Deref for Pinned<'_> {
    type Target = Arc<Resident>;

    fn deref(&self) -> &Arc<Resident> {
        self.resident.as_ref().expect("only the drop takes it")
    }
}

impl Drop for Pinned<'_> {
    fn drop(&mut self) {
        self.resident = None;
        // Pairs with the fence in `set_starved`: either we see the flag, or the filling sees that
        // the block is free.
        fence(Ordering::SeqCst);
        if self.core.starved.load(Ordering::SeqCst)
            && self.core.starved.swap(false, Ordering::SeqCst)
        {
            self.core.wake();
        }
    }
}

/// How many connections the wish and half of what is left of the budget allow, and their buffers.
fn connections(budget: &Budget, wish: usize) -> (u32, Option<Reservation>) {
    let left = usize::try_from((budget.total() - budget.in_use()) / 2).unwrap_or(usize::MAX);
    let many = wish.min(left / CONNECTION).clamp(FEWEST, MOST);
    let buffers = budget.try_reserve(many * CONNECTION);
    (u32::try_from(many).unwrap_or(2), buffers)
}

/// How many windows of keys fit into their part of the budget, and that part: no more than the
/// share's windows take.
fn open_windows(budget: &Budget, terms: &LeaseTerms) -> (usize, Option<Reservation>) {
    let share = (terms.end_block - terms.first_block) as usize;
    let window = (terms.window_blocks as usize).clamp(1, share.max(1));
    let memory = usize::try_from(budget.total() / KEY_SHARE_OF_BUDGET).unwrap_or(usize::MAX);
    // One more than fit into the share's length: the first and the last may be cut.
    let all = share.div_ceil(window) + 1;
    let many = (memory / (window * KEY_LEN)).max(FEWEST_WINDOWS).min(all);
    (many, budget.try_reserve(many * window * KEY_LEN))
}

/// What was counted since the start.
pub(super) struct Totals {
    /// On the boot clock.
    first_byte: OnceLock<Duration>,
    pub(super) blocks_fetched: AtomicU64,
    pub(super) bytes_fetched: AtomicU64,
    pub(super) refetched: AtomicU64,
    bytes_read: AtomicU64,
    reads: AtomicU64,
    read_errors: AtomicU64,
}

impl Totals {
    fn new() -> Self {
        Self {
            first_byte: OnceLock::new(),
            blocks_fetched: AtomicU64::new(0),
            bytes_fetched: AtomicU64::new(0),
            refetched: AtomicU64::new(0),
            bytes_read: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            read_errors: AtomicU64::new(0),
        }
    }

    pub(super) fn count_read(&self, bytes: u64, failed: bool) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
        if failed {
            self.read_errors.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Bytes are here that a reader may have.
    pub(super) fn arrived(&self) {
        self.first_byte.get_or_init(boottime);
    }

    pub(super) fn first_byte(&self) -> Option<Duration> {
        self.first_byte.get().copied()
    }

    /// All but the residents.
    pub(super) fn counters(&self) -> Counters {
        let now = |total: &AtomicU64| total.load(Ordering::Relaxed);
        Counters {
            blocks_fetched: now(&self.blocks_fetched),
            bytes_fetched: now(&self.bytes_fetched),
            bytes_read: now(&self.bytes_read),
            reads: now(&self.reads),
            read_errors: now(&self.read_errors),
            refetched: now(&self.refetched),
            ..Counters::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::LEAST_BYTES;

    #[test]
    fn connections_follow_the_wish_and_the_budget() {
        let many = |bytes: u64, wish| connections(&Budget::new(bytes), wish).0;
        assert_eq!((many(512 << 20, 16), many(512 << 20, 5)), (16, 5));
        assert_eq!((many(512 << 20, 0), many(512 << 20, 100)), (2, 16));
        assert_eq!(many(LEAST_BYTES, 16), 8, "half of the budget");
    }
}
