//! The buffers in which sealed bytes become plaintext.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tidegate_plan::CHUNK;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::budget::{Budget, Buffer};

/// Longest read at once, bytes: the kernel's largest FUSE request.
pub const MAX_READ: usize = 1 << 20;

/// Chunks read and opened in one go: ciphertext and plaintext stay within a core's cache.
pub(super) const RUN: usize = 16;
/// A read that begins and ends within chunks, and the tags of its last run.
const SCRATCH: usize = MAX_READ + 2 * CHUNK as usize + RUN * 16;
/// Readers that open at the same time; each part of the budget that large allows one.
const SHARE_OF_BUDGET: u64 = 8 << 20;
const FEWEST: u64 = 2;
const MOST: u64 = 8;

/// A fixed few page-aligned buffers. A reader holds one only while it opens and answers, never
/// while it waits, so all get their turn.
pub(super) struct Scratches {
    permits: Semaphore,
    free: Mutex<Free>,
}

struct Free {
    buffers: Vec<Buffer>,
    closed: bool,
}

impl Scratches {
    /// Takes its buffers out of the budget.
    pub(super) fn new(budget: &Budget) -> Self {
        let wanted = (budget.total() / SHARE_OF_BUDGET).clamp(FEWEST, MOST);
        let buffers: Vec<_> = (0..wanted).map_while(|_| budget.try_buffer(SCRATCH)).collect();
        // A budget that others have used up already still leaves one reader at a time.
        let buffers = if buffers.is_empty() { vec![Buffer::unbudgeted(SCRATCH)] } else { buffers };
        Self {
            permits: Semaphore::new(buffers.len()),
            free: Mutex::new(Free { buffers, closed: false }),
        }
    }

    pub(super) fn try_take(&self) -> Option<Scratch<'_>> {
        Some(self.taken(self.permits.try_acquire().ok()?))
    }

    pub(super) async fn take(&self) -> Scratch<'_> {
        self.taken(self.permits.acquire().await.expect("the semaphore is never closed"))
    }

    fn taken<'a>(&'a self, permit: SemaphorePermit<'a>) -> Scratch<'a> {
        Scratch { buffer: self.free().buffers.pop(), scratches: self, _permit: permit }
    }

    /// Wipes the plaintext in the buffers, now or when the last reader gives its one back.
    pub(super) fn wipe(&self) {
        let mut free = self.free();
        free.closed = true;
        free.buffers.clear();
    }

    fn free(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A buffer in use, given back when dropped.
pub(super) struct Scratch<'a> {
    /// `None` once the cache was closed.
    buffer: Option<Buffer>,
    scratches: &'a Scratches,
    _permit: SemaphorePermit<'a>,
}

impl Deref for Scratch<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.buffer.as_deref().unwrap_or_default()
    }
}

impl DerefMut for Scratch<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.buffer.as_deref_mut().unwrap_or_default()
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        let mut free = self.scratches.free();
        if !free.closed {
            free.buffers.extend(self.buffer.take());
        }
    }
}
