//! How a selection is cut: shares of ranks, blocks of shares, extents of blocks.
//!
//! The cut depends on nothing but (snapshot, selection, ranks, [`LAYOUT_VERSION`]), whose digest is
//! the layout's id. The rules:
//!
//! 1. A share is a contiguous run of the selection's files. A file weighs its size + 1, and belongs
//!    to the share in which the middle of its weight falls, so shares differ by at most the weight
//!    of one largest file from an even split.
//! 2. No block crosses a share's boundary.
//! 3. Files are placed in path order. Empty files and links take no extent. A file that fits whole
//!    into the open packed block goes there; otherwise the block is closed. A file of at most
//!    [`PACK_DATA_MAX`] bytes then opens a fresh block; a larger one fills whole blocks of
//!    [`BLOCK_MAX`], and its tail opens a block into which following small files may go. A packed
//!    block has at most [`PACK_EXTENTS_MAX`] extents, so that a source which answers slowly, file by
//!    file, still gives a block in seconds.
//! 4. A block that holds one extent of a file over [`PACK_DATA_MAX`] and nothing else is *whole*:
//!    its plaintext is those bytes. Every other block is *packed*: its plaintext is a status bitmap,
//!    one bit an extent, least significant bit first, 1 = good, 0 = stale; then the extents' bytes.

use std::ops::Range;

use crate::ids::LayoutId;
use crate::selection::Selection;
use crate::snapshot::Snapshot;

/// AEAD unit inside a sealed block, plaintext bytes (C2SP chunked-encryption).
pub const CHUNK: u32 = 16 * 1024;
/// Largest plaintext of a block, bytes, bitmap included.
pub const BLOCK_MAX: u32 = 4 << 20;
/// Most extents of a packed block. A store that takes 20 ms for an object, asked for 32 at a time,
/// gives as many in 3 s; a worker waits 30 s for a block to begin.
pub const PACK_EXTENTS_MAX: u32 = 4096;
/// Most file bytes in a packed block; a file over this is *large*. What is left is one page, more
/// than the bitmap takes.
pub const PACK_DATA_MAX: u32 = BLOCK_MAX - 4096;
const _: () = assert!(PACK_DATA_MAX + bitmap_len(PACK_EXTENTS_MAX) <= BLOCK_MAX);
/// Version of the rules above.
pub const LAYOUT_VERSION: u16 = 2;
/// Most blocks of one lease: 1 PiB in whole blocks. Bounds memory before anything is allocated.
pub const MAX_BLOCKS: u32 = 1 << 28;

const CONTEXT: &str = "tidegate/v1 layout";

/// Length in bytes of the status bitmap of a packed block with so many extents.
pub const fn bitmap_len(extents: u32) -> u32 {
    extents.div_ceil(8)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockKind {
    Packed,
    Whole,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    pub kind: BlockKind,
    /// Plaintext bytes, bitmap included.
    pub plain_len: u32,
    /// How many extents it holds.
    pub extents: u32,
    /// Position in [`Selection::files`] of the file that its first extent is of, and the place there.
    file: u32,
    offset: u64,
}

/// A run of one file's bytes in one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Position in [`Selection::files`].
    pub file: u32,
    /// In the file.
    pub offset: u64,
    pub len: u32,
    /// In the block's plaintext, after the bitmap.
    pub at: u32,
}

/// One rank's part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Positions in [`Selection::files`].
    pub files: Range<u32>,
    /// Global block numbers.
    pub blocks: Range<u32>,
    pub bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    #[error("a lease needs at least one rank")]
    NoRanks,
    #[error("the selection was made of another snapshot")]
    OtherSnapshot,
    #[error("the selection needs more than {MAX_BLOCKS} blocks")]
    TooLarge,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    id: LayoutId,
    blocks: Vec<Block>,
    shares: Vec<Share>,
}

impl Layout {
    pub fn build(
        snapshot: &Snapshot,
        selection: &Selection,
        ranks: u16,
    ) -> Result<Self, LayoutError> {
        if ranks == 0 {
            return Err(LayoutError::NoRanks);
        }
        if selection.snapshot() != snapshot.id() {
            return Err(LayoutError::OtherSnapshot);
        }
        let sizes: Vec<u64> = selection.files().iter().map(|at| snapshot.content_of(*at)).collect();
        let full = |size: &u64| u128::from(size / u64::from(BLOCK_MAX));
        let full_blocks: u128 = sizes.iter().map(full).sum();
        if full_blocks > MAX_BLOCKS.into() {
            return Err(LayoutError::TooLarge);
        }
        let mut cut = Cut { sizes: &sizes, ..Cut::default() };
        let mut shares = Vec::with_capacity(ranks.into());
        for files in share_files(&sizes, ranks) {
            let first = cut.blocks.len();
            for file in files.clone() {
                cut.place(file)?;
            }
            cut.close()?;
            let blocks = index(first)?..index(cut.blocks.len())?;
            let bytes = sizes[files.start as usize..files.end as usize].iter().sum();
            shares.push(Share { files, blocks, bytes });
        }
        let id = layout_id(snapshot, selection, ranks);
        cut.blocks.shrink_to_fit();
        Ok(Self { id, blocks: cut.blocks, shares })
    }

    pub fn id(&self) -> LayoutId {
        self.id
    }

    /// All blocks of the lease; a block's number is its index.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    pub fn block(&self, number: u32) -> Option<&Block> {
        self.blocks.get(number as usize)
    }

    /// The extents of one block, in path order; empty for a block that does not exist.
    ///
    /// Must be given the snapshot and the selection that the layout was built from.
    pub fn extents_of(
        &self,
        snapshot: &Snapshot,
        selection: &Selection,
        number: u32,
    ) -> Vec<Extent> {
        let Some(block) = self.block(number) else { return Vec::new() };
        let mut at = match block.kind {
            BlockKind::Packed => bitmap_len(block.extents),
            BlockKind::Whole => 0,
        };
        let mut offset = block.offset;
        let files = selection.files().get(block.file as usize..).unwrap_or_default();
        let sizes = files.iter().map(|at| snapshot.content_of(*at));
        let filled = (block.file..).zip(sizes).filter(|(_, size)| *size > 0);
        let extents = filled.take(block.extents as usize).map(|(file, size)| {
            let len = piece(size, offset);
            let extent = Extent { file, offset, len, at };
            (at, offset) = (at + len, 0);
            extent
        });
        extents.collect()
    }

    /// One a rank.
    pub fn shares(&self) -> &[Share] {
        &self.shares
    }

    pub fn share(&self, rank: u16) -> Option<&Share> {
        self.shares.get(usize::from(rank))
    }

    pub fn ranks(&self) -> u16 {
        u16::try_from(self.shares.len()).expect("built with one share a rank, and ranks are a u16")
    }
}

fn layout_id(snapshot: &Snapshot, selection: &Selection, ranks: u16) -> LayoutId {
    let mut bytes = Vec::with_capacity(68);
    bytes.extend_from_slice(snapshot.id().as_bytes());
    bytes.extend_from_slice(selection.id().as_bytes());
    bytes.extend_from_slice(&ranks.to_le_bytes());
    bytes.extend_from_slice(&LAYOUT_VERSION.to_le_bytes());
    LayoutId::from_bytes(blake3::derive_key(CONTEXT, &bytes))
}

fn index(len: usize) -> Result<u32, LayoutError> {
    u32::try_from(len).map_err(|_| LayoutError::TooLarge)
}

/// Rule 1: contiguous runs of files, one a rank.
fn share_files(sizes: &[u64], ranks: u16) -> Vec<Range<u32>> {
    let weight = |size: &u64| u128::from(*size) + 1;
    let total: u128 = sizes.iter().map(weight).sum();
    let mut ends = vec![0_u32; usize::from(ranks)];
    let mut before = 0_u128;
    for (end, size) in (1_u32..).zip(sizes) {
        // The doubled midpoint keeps the arithmetic whole.
        let middle = 2 * before + weight(size);
        let share = middle * u128::from(ranks) / (2 * total);
        before += weight(size);
        ends[usize::try_from(share).unwrap_or(usize::MAX).min(usize::from(ranks) - 1)] = end;
    }
    let mut start = 0;
    let runs = ends.into_iter().map(|end| {
        let run = start..end.max(start);
        start = run.end;
        run
    });
    runs.collect()
}

/// Length of the extent that begins at `offset` of a file.
fn piece(size: u64, offset: u64) -> u32 {
    u32::try_from(size - offset).unwrap_or(u32::MAX).min(BLOCK_MAX)
}

/// The blocks cut so far and the one that is open.
#[derive(Default)]
struct Cut<'a> {
    sizes: &'a [u64],
    blocks: Vec<Block>,
    /// File and offset of the open block's first extent.
    first: (u32, u64),
    /// Extents and file bytes in the open block.
    extents: u32,
    data: u32,
}

impl Cut<'_> {
    /// Rule 3 for one file.
    fn place(&mut self, file: u32) -> Result<(), LayoutError> {
        let size = self.sizes[file as usize];
        if size == 0 {
            return Ok(());
        }
        if let Some(len) = small(size) {
            if self.data + len > PACK_DATA_MAX || self.extents == PACK_EXTENTS_MAX {
                self.close()?;
            }
            self.push(file, 0, len);
            return Ok(());
        }
        self.close()?;
        let mut offset = 0;
        while offset < size {
            let len = piece(size, offset);
            self.push(file, offset, len);
            offset += u64::from(len);
            if len > PACK_DATA_MAX {
                self.close()?;
            }
        }
        Ok(())
    }

    fn push(&mut self, file: u32, offset: u64, len: u32) {
        if self.extents == 0 {
            self.first = (file, offset);
        }
        self.extents += 1;
        self.data += len;
    }

    /// Rule 4.
    fn close(&mut self) -> Result<(), LayoutError> {
        let extents = std::mem::take(&mut self.extents);
        let data = std::mem::take(&mut self.data);
        if extents == 0 {
            return Ok(());
        }
        if self.blocks.len() >= MAX_BLOCKS as usize {
            return Err(LayoutError::TooLarge);
        }
        let (file, offset) = self.first;
        let large = small(self.sizes[file as usize]).is_none();
        let (kind, bitmap) = if large && extents == 1 {
            (BlockKind::Whole, 0)
        } else {
            (BlockKind::Packed, bitmap_len(extents))
        };
        self.blocks.push(Block { kind, plain_len: bitmap + data, extents, file, offset });
        Ok(())
    }
}

/// The size of a file that is packed whole; `None` if it is large.
fn small(size: u64) -> Option<u32> {
    u32::try_from(size).ok().filter(|len| *len <= PACK_DATA_MAX)
}

#[cfg(test)]
mod tests;
