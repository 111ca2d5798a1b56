//! Where sealed blocks lie on the worker: one preallocated file of fixed slots.
//!
//! ```text
//! superblock    page: which lease and layout, slot length, slots; then nothing up to 64 KiB
//! slot 0        the sealed chunks as received; last page: header (block, sealing, complete?)
//! slot 1        ...
//! ```
//!
//! Slots begin on multiples of 64 KiB, so that the kernel keeps their bytes in large folios.
//! Space is reserved before it is written, so a full disk shows at the start and never in the job.
//! Slot headers let a restarted worker take complete slots up again; they are not trusted for more
//! than that, since every chunk authenticates when it is opened. The file is named, mode 0600, and
//! locked while a worker has it.

mod file;
mod page;
mod slot;
mod wipe;

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_plan::sealed_len;
use tidegate_seal::HEADER_LEN;
use tidegate_wire::LeaseTerms;
use tokio::sync::Notify;

use crate::budget::PAGE;
use page::SlotPage;

pub(crate) use file::{CacheFile, path_in};
pub(crate) use page::Superblock;
pub use slot::Slot;
pub use wipe::WipeFigures;
pub(crate) use wipe::{overwrite_foreign, wipe as wipe_file};

/// Fewer slots are refused, unless the share has fewer blocks.
pub const LEAST_SLOTS: u32 = 4;

/// Largest cache that nobody asked for, bytes. `--help` says the same.
pub const DEFAULT_MOST: u64 = 20 << 30;

/// What slots begin on, bytes.
const GRAIN: u64 = 64 << 10;

/// Where the cache lies and how large it may be.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// An existing directory on a disk of the node.
    pub dir: PathBuf,
    /// Bytes; `None` is what the share needs, at most [`DEFAULT_MOST`] and nine tenths of what the
    /// disk has free.
    pub bytes: Option<u64>,
}

/// Why there is no cache. Each message says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    #[error("another worker holds the cache {}; wait for it or name another directory", .0.display())]
    InUse(PathBuf),
    #[error("the cache in {} cannot be {what}", .path.display())]
    Io {
        path: PathBuf,
        what: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("the cache directory {} does not exist or is not a directory; create it or name another", .0.display())]
    NoDirectory(PathBuf),
    #[error("no space for a cache of {needs} bytes in {}, which has {free} free; make room or give a smaller cache size", .path.display())]
    NoSpace { path: PathBuf, needs: u64, free: u64 },
    #[error("the cache directory {} may not be written by this user; change its owner or name another", .0.display())]
    NotAllowed(PathBuf),
    #[error("the cache directory {} is on a read-only file system; name another", .0.display())]
    ReadOnly(PathBuf),
    #[error("a cache of {bytes} bytes is too small; give at least {least}")]
    TooSmall { bytes: u64, least: u64 },
}

/// What the share asks of a store.
#[derive(Clone, Copy, Debug)]
pub struct Demand {
    /// Blocks of the share.
    pub blocks: u32,
    /// Plaintext bytes of its largest block.
    pub largest: u32,
}

/// A block that lay complete in the cache when it was opened.
#[derive(Debug)]
pub struct Adopted {
    pub block: u32,
    pub header: [u8; HEADER_LEN],
    pub slot: Slot,
}

/// The open cache.
pub struct Store {
    file: CacheFile,
    slot_len: u64,
    slots: u32,
    state: Mutex<State>,
    freed: Notify,
}

struct State {
    free: Vec<u32>,
    /// One bit a slot: whether sealed bytes were ever written there.
    written: Vec<bool>,
}

impl Store {
    /// Creates the cache of a lease and rank in the directory, or takes up the one that a killed
    /// worker left. Blocking.
    pub fn open(
        config: &StoreConfig,
        terms: &LeaseTerms,
        demand: Demand,
    ) -> Result<(Arc<Self>, Vec<Adopted>), StoreError> {
        let slot_len = slot_len(demand.largest);
        let wanted = Superblock {
            lease: terms.lease,
            layout: terms.layout,
            rank: terms.rank,
            slot_len,
            slots: 0,
        };
        let file = CacheFile::open(&config.dir, &wanted)?;
        let left = file.superblock()?.filter(|left| wanted.is_same_lease(left));
        let (slots, adopts) = match left {
            Some(left) if file.len()? >= file_len(left.slots, slot_len) => (left.slots, true),
            _ => (Self::reserve(&file, config, wanted, demand)?, false),
        };
        let store = Arc::new(Self {
            file,
            slot_len,
            slots,
            state: Mutex::new(State {
                free: (0..slots).rev().collect(),
                written: vec![adopts; slots as usize],
            }),
            freed: Notify::new(),
        });
        let adopted = if adopts { store.scan(terms)? } else { Vec::new() };
        Ok((store, adopted))
    }

    /// Makes the file as long as it will ever be. A file left by something else is overwritten
    /// before its space is used again.
    fn reserve(
        file: &CacheFile,
        config: &StoreConfig,
        superblock: Superblock,
        demand: Demand,
    ) -> Result<u32, StoreError> {
        let len = file.len()?;
        if len > 0 {
            wipe::overwrite_foreign(file, len)?;
        }
        let least = LEAST_SLOTS.min(demand.blocks.max(1));
        let free = file.free_bytes()?;
        let slots_in = |bytes: u64| {
            let slots = bytes.saturating_sub(GRAIN) / superblock.slot_len;
            u32::try_from(slots).unwrap_or(u32::MAX).min(demand.blocks.max(LEAST_SLOTS))
        };
        let slots = slots_in(config.bytes.unwrap_or_else(|| default_bytes(free)));
        let needs = file_len(least, superblock.slot_len);
        if slots < least {
            file.unlink_now();
            return Err(match config.bytes {
                Some(bytes) => StoreError::TooSmall { bytes, least: needs },
                None => StoreError::NoSpace { path: config.dir.clone(), needs, free },
            });
        }
        let needs = file_len(slots, superblock.slot_len);
        if let Err(why) = file.reserve(needs, free) {
            file.unlink_now();
            return Err(why);
        }
        file.write_superblock(&Superblock { slots, ..superblock })?;
        Ok(slots)
    }

    /// Takes the complete slots of this lease up.
    fn scan(self: &Arc<Self>, terms: &LeaseTerms) -> Result<Vec<Adopted>, StoreError> {
        let mut adopted: Vec<Adopted> = Vec::new();
        let mut blocks = HashSet::new();
        let mut free = Vec::new();
        for index in 0..self.slots {
            let page = self.file.read_page(self.slot_page_at(index))?;
            match SlotPage::parse(&page).filter(|page| {
                page.lease == terms.lease
                    && page.layout == terms.layout
                    && (terms.first_block..terms.end_block).contains(&page.block)
                    && blocks.insert(page.block)
            }) {
                Some(page) => adopted.push(Adopted {
                    block: page.block,
                    header: page.header,
                    slot: Slot::new(Arc::clone(self), index),
                }),
                None => free.push(index),
            }
        }
        free.reverse();
        self.lock().free = free;
        Ok(adopted)
    }

    /// A free slot, which goes back when it is dropped.
    pub fn take(self: &Arc<Self>) -> Option<Slot> {
        let index = self.lock().free.pop()?;
        Some(Slot::new(Arc::clone(self), index))
    }

    /// Resolves after a slot was given back (or at once, if one was since the last call).
    pub async fn freed(&self) {
        self.freed.notified().await;
    }

    /// Length of the file, bytes.
    pub fn bytes(&self) -> u64 {
        file_len(self.slots, self.slot_len)
    }

    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// Free slots now.
    pub fn free_slots(&self) -> usize {
        self.lock().free.len()
    }

    /// Overwrites every slot that ever held sealed bytes, reads back, discards and unlinks. The
    /// caller has destroyed the keys and stopped every reader and writer. Blocking.
    pub fn wipe(&self) -> WipeFigures {
        let written = self.lock().written.clone();
        let slots = (0..self.slots).filter(|index| written[*index as usize]);
        let ranges: Vec<_> = std::iter::once((0, PAGE as u64))
            .chain(slots.map(|index| (self.slot_at(index), self.slot_len)))
            .collect();
        wipe::wipe(&self.file, &ranges, self.bytes())
    }

    /// The cache file.
    pub fn path(&self) -> &std::path::Path {
        self.file.path()
    }

    fn slot_at(&self, index: u32) -> u64 {
        GRAIN + u64::from(index) * self.slot_len
    }

    fn slot_page_at(&self, index: u32) -> u64 {
        self.slot_at(index) + self.slot_len - PAGE as u64
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The most that is taken of a disk with so many bytes free when nobody said how much.
fn default_bytes(free: u64) -> u64 {
    DEFAULT_MOST.min(free / 10 * 9)
}

/// Sealed chunks of a block that long and the slot's page, rounded up to grains.
fn slot_len(largest: u32) -> u64 {
    let chunks = sealed_len(largest.into()) - HEADER_LEN as u64;
    (chunks + PAGE as u64).next_multiple_of(GRAIN)
}

fn file_len(slots: u32, slot_len: u64) -> u64 {
    GRAIN + u64::from(slots) * slot_len
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({}, {} slots)", self.path().display(), self.slots)
    }
}

#[cfg(test)]
mod tests;
