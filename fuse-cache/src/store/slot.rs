//! One slot of the cache file, held by whoever fills or reads it.

use std::fmt;
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use rustix::io::pwritev;
use tidegate_plan::{LayoutId, LeaseId};
use tidegate_seal::HEADER_LEN;

use super::Store;
use super::page::SlotPage;
use crate::budget::PAGE;

/// A slot in use. It goes back to the store when the last holder drops it, so no reader ever sees
/// a slot that is being given to another block.
pub struct Slot {
    store: Arc<Store>,
    index: u32,
}

impl Slot {
    pub(super) fn new(store: Arc<Store>, index: u32) -> Self {
        Self { store, index }
    }

    /// Begins to fill: what the slot's page said holds no more. Blocking.
    pub fn begin(&self) -> io::Result<()> {
        self.store.lock().written[self.index as usize] = true;
        self.store.file.as_file().write_all_at(&[0; PAGE], self.page_at())
    }

    /// Writes sealed chunk bytes at an offset behind the sealed header. Blocking.
    pub fn write_at(&self, offset: u64, pieces: &[&[u8]]) -> io::Result<()> {
        let mut at = self.at() + offset;
        let len: usize = pieces.iter().map(|piece| piece.len()).sum();
        if offset + len as u64 > self.store.slot_len - PAGE as u64 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "past the end of the slot"));
        }
        let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        let mut rest = slices.as_mut_slice();
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            let many = rest.len().min(MAX_SLICES);
            let written = match pwritev(self.store.file.as_file(), &rest[..many], at) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => written,
                Err(rustix::io::Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            at += written as u64;
            IoSlice::advance_slices(&mut rest, written);
        }
        Ok(())
    }

    /// Marks the slot complete, so that a restarted worker takes it up. Blocking.
    pub fn finish(
        &self,
        lease: LeaseId,
        layout: LayoutId,
        block: u32,
        header: [u8; HEADER_LEN],
    ) -> io::Result<()> {
        let page = SlotPage { lease, layout, block, header }.to_page();
        self.store.file.as_file().write_all_at(page.as_slice(), self.page_at())
    }

    /// Reads sealed chunk bytes at an offset behind the sealed header. Blocking.
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.store.file.as_file().read_exact_at(out, self.at() + offset)
    }

    fn at(&self) -> u64 {
        self.store.slot_at(self.index)
    }

    fn page_at(&self) -> u64 {
        self.store.slot_page_at(self.index)
    }
}

/// Fewer than the kernel's IOV_MAX.
const MAX_SLICES: usize = 512;

impl Drop for Slot {
    fn drop(&mut self) {
        self.store.lock().free.push(self.index);
        self.store.freed.notify_one();
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slot({})", self.index)
    }
}
