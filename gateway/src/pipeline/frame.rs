//! A frame: up to 16 chunks of one block, read, sealed and sent in one and the same buffer.
//!
//! Chunks lie where the sealed message has them, each with room for its tag behind it, so plaintext
//! is read straight into its place, sealed there, and the buffer goes to the connection as it is.

use std::io::IoSliceMut;
use std::ops::Range;

use bytes::Bytes;
use tidegate_seal::{CHUNK_LEN, HEADER_LEN, SEALED_CHUNK_LEN, Sealer, TAG_LEN};

use super::buffer::{Buffer, CHUNKS, Lent};

/// Plaintext of every frame but the last, bytes.
pub(super) const FRAME_PLAIN: usize = CHUNKS * CHUNK_LEN;
/// Frames of the largest block.
pub(super) const MOST_FRAMES: usize = (tidegate_plan::BLOCK_MAX as usize).div_ceil(FRAME_PLAIN);

/// A buffer on loan from the budget. Its content is whatever the last user left: every byte that
/// is sealed was written before.
#[derive(Debug)]
pub(super) struct Frame {
    buffer: Buffer,
    lent: Lent,
}

impl Frame {
    pub(super) fn new(buffer: Buffer, lent: Lent) -> Self {
        Self { buffer, lent }
    }

    /// The places of a run of plaintext, in order.
    pub(super) fn pieces(&mut self, run: Range<usize>) -> impl Iterator<Item = &mut [u8]> {
        let first = run.start / CHUNK_LEN;
        let chunks = self.buffer.bytes[self.buffer.first..].chunks_mut(SEALED_CHUNK_LEN);
        let many = run.end.div_ceil(CHUNK_LEN).saturating_sub(first);
        chunks.enumerate().skip(first).take(many).map(move |(at, chunk)| {
            let start = at * CHUNK_LEN;
            let end = run.end.min(start + CHUNK_LEN);
            &mut chunk[run.start.max(start) - start..end - start]
        })
    }

    pub(super) fn io_pieces(&mut self, run: Range<usize>) -> Vec<IoSliceMut<'_>> {
        self.pieces(run).map(IoSliceMut::new).collect()
    }

    /// Puts bytes at their place in the plaintext.
    pub(super) fn put(&mut self, at: usize, mut bytes: &[u8]) {
        for piece in self.pieces(at..at + bytes.len()) {
            let (now, rest) = bytes.split_at(piece.len());
            piece.copy_from_slice(now);
            bytes = rest;
        }
    }

    /// Seals the first `plain` bytes where they lie. The header precedes the block's first frame;
    /// the last frame ends with the short chunk, which may be empty.
    pub(super) fn seal(mut self, sealer: &mut Sealer, plain: usize, part: Part) -> Bytes {
        let first = self.buffer.first;
        let mut end = first;
        let full = plain / CHUNK_LEN;
        let chunks = if part.last { full + 1 } else { full };
        for chunk in 0..chunks {
            let start = first + chunk * SEALED_CHUNK_LEN;
            end = start + CHUNK_LEN.min(plain - chunk * CHUNK_LEN);
            let tag = sealer
                .seal_chunk(&mut self.buffer.bytes[start..end])
                .expect("chunks are full until the last, and a block has a few hundred");
            self.buffer.bytes[end..end + TAG_LEN].copy_from_slice(&tag);
            end += TAG_LEN;
        }
        let mut start = first;
        if part.first {
            start -= HEADER_LEN;
            self.buffer.bytes[start..first].copy_from_slice(&sealer.header());
        }
        Bytes::from_owner(Sealed { frame: self, range: start..end })
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        self.lent.take_back(&mut self.buffer);
    }
}

/// Which part of its block a frame is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) first: bool,
    pub(super) last: bool,
}

/// How many frames a block of `plain` bytes has.
pub(super) fn frames(plain: usize) -> usize {
    plain.div_ceil(FRAME_PLAIN).max(1)
}

/// Plaintext bytes and part of frame `n`.
pub(super) fn shape(plain: usize, n: usize) -> (usize, Part) {
    let last = frames(plain) - 1;
    let len = plain.saturating_sub(n * FRAME_PLAIN).min(FRAME_PLAIN);
    (len, Part { first: n == 0, last: n == last })
}

struct Sealed {
    frame: Frame,
    range: Range<usize>,
}

impl AsRef<[u8]> for Sealed {
    fn as_ref(&self) -> &[u8] {
        &self.frame.buffer.bytes[self.range.clone()]
    }
}
