//! A packed block's plaintext, gathered whole before any of it is sealed.

use std::io::IoSliceMut;

use bytes::Bytes;
use tidegate_plan::Extent;
use tidegate_seal::Sealer;

use super::frame::{FRAME_PLAIN, Frame, shape};

/// The block's bytes over its frames, addressed by their place in the plaintext.
#[derive(Debug)]
pub(super) struct Gathered {
    frames: Vec<Frame>,
    plain: usize,
    good: Vec<u8>,
}

impl Gathered {
    /// `extents` must follow the bitmap and each other without a gap up to `plain`: then every byte
    /// is written, and nothing of what the buffers held before is left.
    pub(super) fn new(frames: Vec<Frame>, plain: usize, extents: &[Extent]) -> Option<Self> {
        let mut end = extents.len().div_ceil(8);
        let good = vec![0; end];
        for extent in extents {
            if extent.at as usize != end {
                return None;
            }
            end += extent.len as usize;
        }
        (end == plain && frames.len() == super::frame::frames(plain)).then_some(Self {
            frames,
            plain,
            good,
        })
    }

    fn pieces(&mut self, at: usize, len: usize) -> impl Iterator<Item = &mut [u8]> {
        let first = at / FRAME_PLAIN;
        let many = (at + len).div_ceil(FRAME_PLAIN).saturating_sub(first);
        self.frames.iter_mut().enumerate().skip(first).take(many).flat_map(move |(n, frame)| {
            let start = n * FRAME_PLAIN;
            let end = (at + len).min(start + FRAME_PLAIN);
            frame.pieces(at.max(start) - start..end - start)
        })
    }

    /// Where an extent's bytes belong.
    pub(super) fn places(&mut self, extent: &Extent) -> Vec<IoSliceMut<'_>> {
        let pieces = self.pieces(extent.at as usize, extent.len as usize);
        pieces.map(IoSliceMut::new).collect()
    }

    /// Puts an extent's bytes, or a part of them, `from` bytes into it.
    pub(super) fn put(&mut self, extent: &Extent, from: usize, mut bytes: &[u8]) {
        for piece in self.pieces(extent.at as usize + from, bytes.len()) {
            let (now, rest) = bytes.split_at(piece.len());
            piece.copy_from_slice(now);
            bytes = rest;
        }
    }

    /// The extent was read as it was pinned.
    pub(super) fn good(&mut self, ordinal: usize) {
        self.good[ordinal / 8] |= 1 << (ordinal % 8);
    }

    /// The extent changed at home: zeros in its place, and its bit stays unset.
    pub(super) fn stale(&mut self, extent: &Extent) {
        self.pieces(extent.at as usize, extent.len as usize).for_each(|piece| piece.fill(0));
    }

    /// Writes the bitmap and seals frame after frame.
    pub(super) fn seal(mut self, mut sealer: Sealer) -> impl Iterator<Item = Bytes> {
        let good = std::mem::take(&mut self.good);
        let bitmap = Extent {
            file: 0,
            offset: 0,
            len: u32::try_from(good.len()).expect("a bitmap has at most 4 KiB"),
            at: 0,
        };
        self.put(&bitmap, 0, &good);
        let plain = self.plain;
        self.frames.into_iter().enumerate().map(move |(n, frame)| {
            let (len, part) = shape(plain, n);
            frame.seal(&mut sealer, len, part)
        })
    }
}
