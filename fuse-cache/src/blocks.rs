//! Plaintext of blocks, wherever their sealed bytes are: on disk, on the wire, or still at home.
//!
//! A read looks its block up in the `table`. If the chunks it needs have arrived, they are read
//! from the block's slot and opened where they lie; nothing else is read or opened. If not, the
//! block is demanded, and the reader waits for its chunks only, not for the block's end. The
//! `fill` task starts a `fetch` for each demand at once and uses what is left of the link to fill
//! in the order of [`crate::schedule`]. Keys come by window: a `release` is asked for ahead of the
//! filling, and by whoever needs a key that is not here.
//!
//! A block in the cache is a `resident`, shared by the table, its fetch and its readers. Its slot
//! goes back to the store with the last of them, so evicting or dropping a block never changes the
//! bytes under a reader, and a reader waiting for a block keeps it from being evicted.

mod core;
mod fetch;
mod fill;
mod read;
mod release;
mod resident;
mod scratch;
mod table;
mod trouble;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{fmt, io};

use tidegate_plan::{Manifest, Piece};
use tidegate_wire::Counters;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use self::core::Core;
use self::resident::Resident;
use crate::budget::Budget;
use crate::client::{Client, ManifestBytes};
use crate::keys::KeyRing;
use crate::meters;
use crate::store::{Adopted, Store, WipeFigures};

pub use scratch::MAX_READ;

/// The share's manifest, in memory of its own.
pub type ShareManifest = Manifest<ManifestBytes>;

/// Why a read fails. It never returns other bytes than those that were sealed at home.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// What came could not be opened, and what came when it was asked for again neither.
    #[error("the sealed bytes cannot be opened")]
    Integrity,
    /// The lease is closed, its keys are past their time or destroyed, or we were refused.
    #[error("the lease is over")]
    LeaseOver,
    /// The object changed at home since the snapshot.
    #[error("the object changed at home since the snapshot")]
    Stale,
    /// No gateway gave the block within the grace.
    #[error("no gateway gave the block in time")]
    Unavailable,
}

/// How the cache behaves.
#[derive(Clone, Copy, Debug)]
pub struct CacheConfig {
    /// Most blocks under way at once, each over a connection of its own; 2 to 16 are used.
    pub connections: usize,
    /// How long reads stall on a lost link before they fail.
    pub grace: Duration,
}

/// What a cache is made of.
#[derive(Debug)]
pub struct CacheParts {
    pub manifest: Arc<ShareManifest>,
    pub client: Arc<Client>,
    pub keys: Arc<KeyRing>,
    pub store: Arc<Store>,
    /// What [`Store::open`] found.
    pub adopted: Vec<Adopted>,
    pub budget: Budget,
}

/// How far things have come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Blocks complete on disk.
    pub resident_blocks: u32,
    /// Blocks of the share.
    pub blocks: u32,
    pub counters: Counters,
    /// When the first byte was here that a reader may have, on the boot clock.
    pub first_byte: Option<Duration>,
}

/// The blocks of one lease on this worker.
pub struct Cache {
    core: Arc<Core>,
    filling: Mutex<Option<Filling>>,
}

/// The filling and the threads it has to itself: they receive, decrypt the link and write to the
/// disk, and may block there without holding up a heartbeat or a read.
struct Filling {
    task: JoinHandle<()>,
    threads: Runtime,
}

/// Threads of the filling: each takes in about 1 GB/s.
const THREADS: usize = 4;

impl Cache {
    /// Takes up what the store holds and begins to fill, in plan order.
    pub fn start(parts: CacheParts, config: CacheConfig) -> io::Result<Arc<Self>> {
        let core = Core::new(parts, config);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = Builder::new_multi_thread()
            .worker_threads(cores.min(THREADS))
            .thread_name("tidegate-fill")
            .enable_all()
            .build()?;
        let task = threads.spawn(fill::run(Arc::clone(&core)));
        Ok(Arc::new(Self { core, filling: Mutex::new(Some(Filling { task, threads })) }))
    }

    /// Reads into `out`, no longer than the piece, if the bytes are here. `Ok(false)`: they are
    /// not, and [`Self::read`] waits for them. May read the disk, never the network.
    pub fn try_read(&self, piece: &Piece, out: &mut [u8]) -> Result<bool, ReadError> {
        for (part, out) in parts(piece, out) {
            if self.try_read_with(&part, out.len(), |bytes| out.copy_from_slice(bytes))?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// As [`Self::try_read`] without the copy: `show` sees the plaintext in the page-aligned buffer
    /// where it was opened. `len` is at most [`MAX_READ`] and the piece's length. Allocates nothing.
    pub fn try_read_with<R>(
        &self,
        piece: &Piece,
        len: usize,
        show: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>, ReadError> {
        self.core.try_read(piece, len, show)
    }

    /// Reads into `out`, waiting for the bytes if it must.
    pub async fn read(&self, piece: &Piece, out: &mut [u8]) -> Result<(), ReadError> {
        for (part, out) in parts(piece, out) {
            self.read_with(&part, out.len(), |bytes| out.copy_from_slice(bytes)).await?;
        }
        Ok(())
    }

    /// As [`Self::read`] without the copy; see [`Self::try_read_with`].
    pub async fn read_with<R>(
        &self,
        piece: &Piece,
        len: usize,
        show: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, ReadError> {
        let started = Instant::now();
        let outcome = self.core.read(piece, len, show).await;
        meters::STALL.record(&[], started);
        outcome
    }

    /// A read of an open file has come to this block; moves its cursors.
    pub fn touch(&self, handle: u64, block: u32) {
        if self.core.table().schedule.touch(handle, block) {
            self.core.wake();
        }
    }

    /// An open file was closed.
    pub fn forget(&self, handle: u64) {
        self.core.table().schedule.forget(handle);
    }

    /// Counts an answered read.
    pub fn count_read(&self, bytes: u64, failed: bool) {
        self.core.totals.count_read(bytes, failed);
    }

    pub fn counters(&self) -> Counters {
        let resident = self.core.table().complete();
        Counters { resident: resident.into(), ..self.core.totals.counters() }
    }

    pub fn progress(&self) -> Progress {
        let counters = self.counters();
        let plan = self.core.manifest.blocks();
        Progress {
            resident_blocks: u32::try_from(counters.resident).unwrap_or(u32::MAX),
            blocks: plan.end - plan.start,
            counters,
            first_byte: self.core.totals.first_byte(),
        }
    }

    /// Destroys all keys and wipes the plaintext buffers. Every read from now on, and every one
    /// that waits, is [`ReadError::LeaseOver`].
    pub fn shutdown_keys(&self) {
        self.core.close();
    }

    /// Whether reads may be answered by the keys' time.
    pub(crate) fn may_read(&self) -> bool {
        self.core.keys.life().past().is_none()
    }

    /// Destroys the keys and stops everything; gives back the sealed blocks that lie complete in the
    /// store, for a cache with other keys. Whoever still reads keeps its block from being among them.
    pub(crate) async fn retire(&self) -> Vec<Adopted> {
        self.stop().await;
        self.core.give_buffers_back();
        let residents = self.core.table().clear();
        let unread = residents.into_iter().filter_map(Arc::into_inner);
        unread.filter_map(Resident::into_adopted).collect()
    }

    /// Stops everything and wipes the store. Destroys the keys first if that was not done.
    pub async fn wipe(&self) -> WipeFigures {
        self.stop().await;
        let core = Arc::clone(&self.core);
        let wiping = tokio::task::spawn_blocking(move || core.store.wipe());
        wiping.await.unwrap_or_else(|why| WipeFigures::failed(why.to_string()))
    }

    async fn stop(&self) {
        self.core.close();
        let filling = self.filling.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Filling { task, threads }) = filling {
            if let Err(why) = task.await {
                tracing::error!(error = %why, "the filling of the cache ended badly");
            }
            // Connections without a request under way are all that is left there.
            threads.shutdown_background();
        }
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        self.core.close();
        let filling = self.filling.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(filling) = filling {
            filling.threads.shutdown_background();
        }
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("progress", &self.progress()).finish_non_exhaustive()
    }
}

/// Cuts a read into parts that fit the buffers.
fn parts<'a>(piece: &Piece, out: &'a mut [u8]) -> impl Iterator<Item = (Piece, &'a mut [u8])> {
    let mut at = *piece;
    out.chunks_mut(MAX_READ).map(move |out| {
        let part = at;
        let len = u32::try_from(out.len()).unwrap_or(u32::MAX);
        at = Piece { at: at.at.saturating_add(len), len: at.len.saturating_sub(len), ..at };
        (part, out)
    })
}

#[cfg(test)]
pub(crate) mod tests;
