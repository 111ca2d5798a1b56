//! Sealed blocks on the worker's disk: one file beside the cache, mode 0600, that holds ciphertext and
//! a first page that says whose it is. Nothing in it can be opened with what lies on the disk.
//!
//! The file grows by pieces whose space is reserved before it is written, so that a full disk shows as
//! "no place" and never in the middle of a write. It is not synced: it outlives a worker, not a machine.

mod space;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use rustix::fs::{FallocateFlags, fallocate};
use tidegate_plan::LeaseId;
use tidegate_wire::LeaseTerms;

use crate::store::{CacheFile, StoreError, Superblock, WipeFigures, overwrite_foreign, wipe_file};
use space::{PAGE, SLOT_PAGES, Space};

/// A slot, bytes.
const SLOT: u64 = SLOT_PAGES as u64 * PAGE as u64;
/// What slots begin behind: the superblock's page, and room to align.
const BEGIN: u64 = 64 << 10;
/// Slots that are reserved at once, if the disk has so much.
const PIECE: u32 = 32;
/// Largest spool that nobody asked for, bytes.
const DEFAULT_MOST: u64 = 20 << 30;
/// Smallest spool: two parts and what shares slots.
const LEAST_SLOTS: u32 = 40;

/// Where the spool of a lease and rank lies in a directory.
pub(crate) fn spool_in(dir: &Path, lease: LeaseId, rank: u16) -> PathBuf {
    dir.join(format!("tidegate-{lease}-{rank}.spool"))
}

/// What is at least so long goes past the page cache, bytes: copying it there would cost more than the disk.
const LONG: usize = 256 << 10;

/// The open spool.
pub(super) struct Spool {
    file: CacheFile,
    /// The same past the page cache, where that can be.
    direct: Option<File>,
    most: u32,
    state: Mutex<State>,
    /// Nothing is written any more. Whoever writes keeps it from being said meanwhile.
    closed: RwLock<bool>,
}

struct State {
    space: Space,
    /// Slots whose space is reserved: those below this number.
    reserved: u32,
    /// Slots that a worker before this one may have written.
    inherited: u32,
    /// The disk had no room for more when it was asked last.
    full: bool,
    wiped: bool,
}

/// Pages that hold one sealed block, given back when dropped.
pub(super) struct Slot {
    spool: Arc<Spool>,
    first: u32,
    len: u32,
}

impl Spool {
    /// Makes the spool, or takes up what a worker before this one left; `successor` says that the journal
    /// names what lies in it. `quick`: somebody waits for each write, so the page cache takes it. Blocking.
    pub(super) fn open(
        dir: &Path,
        bytes: Option<u64>,
        terms: &LeaseTerms,
        successor: bool,
        quick: bool,
    ) -> Result<Arc<Self>, StoreError> {
        let superblock = Superblock {
            lease: terms.lease,
            layout: terms.layout,
            rank: terms.rank,
            slot_len: SLOT,
            slots: 0,
        };
        let file = CacheFile::open_at(dir, spool_in(dir, terms.lease, terms.rank))?;
        let len = file.len()?;
        let ours = file.superblock()?.is_some_and(|left| superblock.is_same_lease(&left));
        let adopts = successor && ours;
        if !adopts && len > 0 {
            overwrite_foreign(&file, len)?;
        }
        let free = file.free_bytes()?.saturating_add(if adopts { len } else { 0 });
        let most = bytes.unwrap_or_else(|| DEFAULT_MOST.min(free / 4));
        let most = u32::try_from(most / SLOT).unwrap_or(u32::MAX / SLOT_PAGES);
        let most = most.clamp(LEAST_SLOTS, u32::MAX / SLOT_PAGES);
        let reserved =
            if adopts { u32::try_from(len.saturating_sub(BEGIN) / SLOT).unwrap_or(0) } else { 0 };
        // What lies in it stays in it, however little would be given now.
        let most = most.max(reserved);
        file.write_superblock(&Superblock { slots: most, ..superblock })?;
        let state = State {
            space: Space::new(most),
            reserved,
            inherited: reserved,
            full: false,
            wiped: false,
        };
        let (state, closed) = (Mutex::new(state), RwLock::new(false));
        let direct = if quick { None } else { file.direct() };
        Ok(Arc::new(Self { file, direct, most, state, closed }))
    }

    /// A place for so many sealed bytes; `None` when there is none within the spool's bound or on the disk.
    pub(super) fn take(self: &Arc<Self>, len: usize) -> Option<Slot> {
        let pages = pages(len)?;
        let mut state = self.lock();
        if state.wiped {
            return None;
        }
        let first = state.space.take(pages)?;
        if first / SLOT_PAGES >= state.reserved && !self.reserve(&mut state) {
            state.space.give_back(first, pages);
            return None;
        }
        Some(Slot { spool: Arc::clone(self), first, len: u32::try_from(len).ok()? })
    }

    /// A place that the journal names.
    pub(super) fn adopt(self: &Arc<Self>, first: u32, len: u32) -> Option<Slot> {
        let pages = pages(usize::try_from(len).ok()?)?;
        let mut state = self.lock();
        if first / SLOT_PAGES >= state.reserved || !state.space.adopt(first, pages) {
            return None;
        }
        Some(Slot { spool: Arc::clone(self), first, len })
    }

    /// Bytes of slots in use.
    pub(super) fn used(&self) -> u64 {
        u64::from(self.lock().space.used()) * SLOT
    }

    /// Overwrites all that was ever written, reads back, discards, unlinks. Blocking; whoever asks how much
    /// is used is answered meanwhile.
    pub(super) fn wipe(&self) -> WipeFigures {
        // Waits for what is being written.
        *self.closed.write().unwrap_or_else(PoisonError::into_inner) = true;
        let (slots, reserved) = {
            let mut state = self.lock();
            state.wiped = true;
            (state.space.slots().max(state.inherited), state.reserved)
        };
        let slots = (0..slots).map(|slot| (at(slot * SLOT_PAGES), SLOT));
        let ranges: Vec<_> = std::iter::once((0, PAGE as u64)).chain(slots).collect();
        wipe_file(&self.file, &ranges, BEGIN + u64::from(reserved) * SLOT)
    }

    #[cfg(test)]
    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Reserves the next piece, or one slot of it. False: the disk is full.
    fn reserve(&self, state: &mut State) -> bool {
        let first = state.reserved;
        for many in [PIECE.min(self.most - first), 1] {
            match self.allocate(at(first * SLOT_PAGES), u64::from(many) * SLOT) {
                Ok(()) => {
                    (state.reserved, state.full) = (first + many, false);
                    return true;
                }
                Err(error) => tracing::debug!(%error, many, "the spool does not grow"),
            }
        }
        if !std::mem::replace(&mut state.full, true) {
            tracing::warn!("the disk under the results' spool is full");
        }
        false
    }

    fn allocate(&self, at: u64, len: u64) -> io::Result<()> {
        use rustix::io::Errno;
        let file = self.file.as_file();
        match fallocate(file, FallocateFlags::empty(), at, len) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                let zeros = vec![0; 1 << 20];
                let mut done = 0;
                while done < len {
                    let many = zeros.len().min(usize::try_from(len - done).unwrap_or(zeros.len()));
                    file.write_all_at(&zeros[..many], at + done)?;
                    done += many as u64;
                }
                Ok(())
            }
            Err(errno) => Err(errno.into()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// First page and length in bytes, for the journal.
    pub(super) fn place(&self) -> (u32, u32) {
        (self.first, self.len)
    }

    /// Writes the bytes, behind which zeros may fill their last page. Blocking; one call.
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<()> {
        debug_assert!(bytes.len() >= self.len as usize);
        let closed = self.spool.closed.read().unwrap_or_else(PoisonError::into_inner);
        if *closed {
            return Err(io::Error::other("the spool is wiped"));
        }
        if let Some(direct) = self.direct(bytes) {
            match direct.write_all_at(bytes, at(self.first)) {
                // This disk has larger sectors than pages.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
                written => return written,
            }
        }
        self.spool.file.as_file().write_all_at(&bytes[..self.len as usize], at(self.first))
    }

    /// Reads all of it into whole pages. Blocking.
    pub(super) fn read_whole(&self, out: &mut [u8]) -> io::Result<()> {
        if let Some(direct) = self.direct(out) {
            match direct.read_exact_at(out, at(self.first)) {
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
                read => return read,
            }
        }
        self.read(0, &mut out[..self.len as usize])
    }

    /// The way past the page cache, if it pays and these bytes can take it.
    fn direct(&self, bytes: &[u8]) -> Option<&File> {
        let whole = bytes.len().is_multiple_of(PAGE) && bytes.as_ptr().addr().is_multiple_of(PAGE);
        self.spool.direct.as_ref().filter(|_| whole && bytes.len() >= LONG)
    }

    /// Blocking.
    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.spool.file.as_file().read_exact_at(out, at(self.first) + offset)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.spool.lock();
        if let Some(pages) = pages(self.len as usize)
            && !state.wiped
        {
            state.space.give_back(self.first, pages);
        }
    }
}

fn pages(len: usize) -> Option<u32> {
    u32::try_from(len.div_ceil(PAGE)).ok()
}

/// Where a page lies in the file.
fn at(page: u32) -> u64 {
    BEGIN + u64::from(page) * PAGE as u64
}
