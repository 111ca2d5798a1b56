//! Memory of frames, used again and again.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_seal::{HEADER_LEN, SEALED_CHUNK_LEN, TAG_LEN};

use super::permit::Permit;

/// Chunks of a frame: 256 KiB of plaintext stay in a core's second-level cache from read to seal.
pub(super) const CHUNKS: usize = 16;
const PAGE: usize = 4096;
/// Where the first chunk begins in its page. Copies from a page's start to a little behind
/// another page's start are up to five times slower (Zen 3: the two alias), and chunks are spaced
/// by a page's multiple and 16 bytes; from here none comes close.
const LEAD: usize = 1024;
/// Header before, and the tag of an empty last chunk behind.
const USED: usize = LEAD + CHUNKS * SEALED_CHUNK_LEN + TAG_LEN;
const _: () = assert!(HEADER_LEN <= LEAD);
/// What a frame counts in the budget.
pub(super) const FRAME_BYTES: usize = USED.next_multiple_of(PAGE) + PAGE;

/// Memory of one frame; its first chunk begins at `first`.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    pub(super) bytes: Box<[u8]>,
    pub(super) first: usize,
}

impl Buffer {
    fn allocate() -> Self {
        let bytes = vec![0; FRAME_BYTES].into_boxed_slice();
        let first = bytes.as_ptr().align_offset(PAGE).min(PAGE) + LEAD;
        Self { bytes, first }
    }
}

/// Unused buffers kept for the next frame; the rest goes back to the allocator.
const KEPT: usize = 64;

/// Buffers that wait for their next user.
#[derive(Debug, Default)]
pub(super) struct Unused(Mutex<Vec<Buffer>>);

impl Unused {
    pub(super) fn lend(this: &Arc<Self>, permit: Permit) -> (Buffer, Lent) {
        let buffer = this.lock().pop().unwrap_or_else(Buffer::allocate);
        (buffer, Lent { unused: Arc::clone(this), _permit: permit })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Buffer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a frame holds of the budget.
#[derive(Debug)]
pub(super) struct Lent {
    unused: Arc<Unused>,
    _permit: Permit,
}

impl Lent {
    pub(super) fn take_back(&self, buffer: &mut Buffer) {
        let mut unused = self.unused.lock();
        if unused.len() < KEPT {
            unused.push(mem::take(buffer));
        }
    }
}
