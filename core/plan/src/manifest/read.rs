use std::fmt;
use std::ops::Range;

use crate::codec::FormatError;
use crate::ids::LayoutId;
use crate::layout::{BLOCK_MAX, PACK_DATA_MAX, PACK_EXTENTS_MAX, bitmap_len};
use crate::path::is_name;

use super::record::{BLOCK_LEN, BlockInfo, Head, RECORD_LEN, RawRecord, Record, RecordKind};

/// Where one byte of a file lies, and how far the run goes on from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Global block number.
    pub block: u32,
    /// Place of the byte in the block's plaintext.
    pub at: u32,
    /// Bytes from there to the extent's end, at least 1.
    pub len: u32,
    /// Number of the extent in its block: its bit of the status bitmap, if the block is packed.
    pub ordinal: u16,
    /// Place of the extent's first byte in the block's plaintext.
    pub extent_at: u32,
}

/// A parsed manifest over bytes it does not copy.
#[derive(Clone)]
pub struct Manifest<B> {
    bytes: B,
    head: Head,
}

impl<B> fmt::Debug for Manifest<B> {
    /// Names are secrets, so none is printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manifest").field("head", &self.head).finish_non_exhaustive()
    }
}

impl<B: AsRef<[u8]> + Send + Sync> Manifest<B> {
    /// Checks every field of every record and block, once. The bytes must not change afterwards.
    pub fn parse(bytes: B) -> Result<Self, FormatError> {
        let head = Head::decode(bytes.as_ref())?;
        let manifest = Self { bytes, head };
        for number in 0..head.blocks {
            let block = manifest.raw_block(number)?;
            if !block_is_sound(block) {
                return Err(FormatError::new(head.block_at(number), "a block is not as laid out"));
            }
        }
        manifest.check_records()?;
        Ok(manifest)
    }

    fn check_records(&self) -> Result<(), FormatError> {
        let head = &self.head;
        // Children run on in the order of their directories; names run on in the order of records.
        let (mut next_child, mut heap) = (1_u32, 0_u64);
        let (mut files, mut bytes, mut full_blocks) = (0_u64, 0_u64, 0_u64);
        // The newest name, and the directory it is in: siblings stand together.
        let mut before: Option<(u32, &[u8])> = None;
        let mut around = (0, self.raw(0)?);
        for i in 0..head.records {
            let at = Head::record_at(i);
            let refuse = |rule| FormatError::new(at, rule);
            let raw = self.raw(i)?;
            let target = if raw.kind == RecordKind::Symlink { raw.size } else { 0 };
            if raw.name_at != heap {
                return Err(refuse("names are not in the order of the records"));
            }
            heap = heap
                .checked_add(u64::from(raw.name_len))
                .and_then(|end| end.checked_add(target))
                .filter(|end| *end <= head.heap_len)
                .ok_or_else(|| refuse("a name is outside the heap"))?;
            let name = self.heap(raw.name_at, raw.name_len.into());
            if i == 0 {
                if raw.kind != RecordKind::Dir || raw.parent != 0 || !name.is_empty() {
                    return Err(refuse("the first record is no root"));
                }
            } else {
                if i >= next_child || raw.parent >= i {
                    return Err(refuse("a record is in no directory"));
                }
                if around.0 != raw.parent {
                    around = (raw.parent, self.raw(raw.parent)?);
                }
                let (_, parent) = around;
                let siblings = parent.a..parent.a.saturating_add(parent.b);
                if parent.kind != RecordKind::Dir || !siblings.contains(&i) {
                    return Err(refuse("a record is not among its directory's children"));
                }
                if !is_name(name) {
                    return Err(refuse("a name is not allowed"));
                }
                if before.is_some_and(|(dir, last)| dir == raw.parent && last >= name) {
                    return Err(refuse("names of a directory are not in ascending order"));
                }
                before = Some((raw.parent, name));
            }
            match raw.kind {
                RecordKind::Dir => {
                    if raw.a != next_child || raw.size != 0 || raw.ordinal != 0 {
                        return Err(refuse("a directory's children do not follow on"));
                    }
                    next_child = next_child
                        .checked_add(raw.b)
                        .filter(|end| *end <= head.records)
                        .ok_or_else(|| {
                        refuse("a directory's children are outside the manifest")
                    })?;
                }
                RecordKind::File => {
                    files += 1;
                    bytes = bytes
                        .checked_add(raw.size)
                        .ok_or_else(|| refuse("the files' sizes overflow"))?;
                    full_blocks += raw.size / u64::from(BLOCK_MAX);
                    // So that all files together cost no more steps than there are blocks.
                    if full_blocks > head.blocks.into() || !self.place_is_sound(&raw) {
                        return Err(refuse("a file's place is not as laid out"));
                    }
                }
                RecordKind::Symlink => {
                    if (raw.a, raw.b, raw.ordinal) != (0, 0, 0) {
                        return Err(refuse("a link has a place"));
                    }
                }
            }
        }
        let counted = (files, bytes, heap, next_child);
        if counted != (head.files, head.bytes, head.heap_len, head.records) {
            return Err(FormatError::new(0, "the head's sums are wrong"));
        }
        Ok(())
    }

    fn place_is_sound(&self, raw: &RawRecord) -> bool {
        let unused = raw.b == 0 && raw.ordinal == 0;
        if raw.size == 0 {
            return unused && raw.a == 0;
        }
        let Some(cut) = Cut::of(raw) else { return false };
        let full_is_sound = (0..cut.full).all(|nth| {
            let block = raw.a.checked_add(nth).and_then(|number| self.block(number));
            block.is_some_and(|block| !block.packed && block.plain_len == BLOCK_MAX)
        });
        if !full_is_sound || cut.packed_len == 0 {
            return full_is_sound && unused;
        }
        let Some(block) = raw.a.checked_add(cut.full).and_then(|number| self.block(number)) else {
            return false;
        };
        let large = raw.size > PACK_DATA_MAX.into();
        if !block.packed {
            return large && unused && block.plain_len == cut.packed_len;
        }
        let bitmap = bitmap_len(block.extents);
        let end = raw.b.checked_add(cut.packed_len);
        raw.b >= bitmap
            && cut.packed_len <= PACK_DATA_MAX
            && end.is_some_and(|end| end <= block.plain_len)
            && u32::from(raw.ordinal) < block.extents
            // A tail opens its block.
            && (!large || (raw.ordinal == 0 && raw.b == bitmap))
    }

    /// Number of records, at least 1. An inode number is a record's number + 1.
    #[expect(clippy::len_without_is_empty, reason = "there is always a root")]
    pub fn len(&self) -> u32 {
        self.head.records
    }

    pub fn rank(&self) -> u16 {
        self.head.rank
    }

    pub fn layout(&self) -> LayoutId {
        self.head.layout
    }

    /// Regular files of the share.
    pub fn files(&self) -> u64 {
        self.head.files
    }

    /// Content of the share's files.
    pub fn total_bytes(&self) -> u64 {
        self.head.bytes
    }

    /// Global numbers of the share's blocks.
    pub fn blocks(&self) -> Range<u32> {
        self.head.first_block..self.head.first_block + self.head.blocks
    }

    /// A block by its global number; `None` outside the share.
    pub fn block(&self, number: u32) -> Option<BlockInfo> {
        let local = number.checked_sub(self.head.first_block).filter(|n| *n < self.head.blocks)?;
        self.raw_block(local).ok()
    }

    /// # Panics
    ///
    /// If there is no record `i`, as indexing a slice does; see [`Self::get`].
    pub fn record(&self, i: u32) -> Record<'_> {
        self.get(i).expect("the caller asked for a record below len()")
    }

    pub fn get(&self, i: u32) -> Option<Record<'_>> {
        let raw = self.checked(i)?;
        Some(Record {
            name: self.heap(raw.name_at, raw.name_len.into()),
            parent: raw.parent,
            kind: raw.kind,
            size: raw.size,
            mode: raw.mode.into(),
            mtime: raw.mtime,
        })
    }

    /// What a link points to; `None` for anything else.
    pub fn link_target(&self, i: u32) -> Option<&[u8]> {
        let raw = self.checked(i).filter(|raw| raw.kind == RecordKind::Symlink)?;
        Some(self.heap(raw.name_at + u64::from(raw.name_len), raw.size))
    }

    /// The records in a directory, sorted by name; empty for anything else.
    pub fn children(&self, i: u32) -> Range<u32> {
        match self.checked(i) {
            Some(raw) if raw.kind == RecordKind::Dir => raw.a..raw.a + raw.b,
            _ => 0..0,
        }
    }

    /// Binary search for a name in a directory.
    pub fn lookup(&self, dir: u32, name: &[u8]) -> Option<u32> {
        let Range { start: mut low, end: mut high } = self.children(dir);
        while low < high {
            let middle = low + (high - low) / 2;
            let raw = self.checked(middle)?;
            match self.heap(raw.name_at, raw.name_len.into()).cmp(name) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Some(middle),
            }
        }
        None
    }

    /// The path from the root, without a leading `/`; empty for the root.
    pub fn path(&self, i: u32) -> Vec<u8> {
        let mut names = Vec::new();
        let mut at = i;
        // A parent's number is below its child's, so this ends.
        while let Some(record) = self.get(at).filter(|_| at != 0) {
            names.push(record.name);
            at = record.parent;
        }
        names.reverse();
        names.join(&b'/')
    }

    /// Where the byte at `offset` of file `i` lies; `None` past its end and for anything but a file.
    pub fn locate(&self, i: u32, offset: u64) -> Option<Piece> {
        let raw =
            self.checked(i).filter(|raw| raw.kind == RecordKind::File && offset < raw.size)?;
        let cut = Cut::of(&raw)?;
        let nth = u32::try_from(offset / u64::from(BLOCK_MAX)).ok()?;
        let inside = u32::try_from(offset % u64::from(BLOCK_MAX)).ok()?;
        let block = raw.a + nth;
        if nth < cut.full {
            let len = BLOCK_MAX - inside;
            return Some(Piece { block, at: inside, len, ordinal: 0, extent_at: 0 });
        }
        let (at, len) = (raw.b + inside, cut.packed_len - inside);
        Some(Piece { block, at, len, ordinal: raw.ordinal, extent_at: raw.b })
    }

    fn checked(&self, i: u32) -> Option<RawRecord> {
        if i < self.head.records { self.raw(i).ok() } else { None }
    }

    fn raw(&self, i: u32) -> Result<RawRecord, FormatError> {
        RawRecord::decode(self.slice(Head::record_at(i), RECORD_LEN))
            .map_err(|error| FormatError { at: Head::record_at(i) as u64 + error.at, ..error })
    }

    fn raw_block(&self, local: u32) -> Result<BlockInfo, FormatError> {
        BlockInfo::decode(self.slice(self.head.block_at(local), BLOCK_LEN))
    }

    fn heap(&self, at: u64, len: u64) -> &[u8] {
        let place = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        self.slice(self.head.heap_at().saturating_add(place(at)), place(len))
    }

    /// Empty where the bytes end earlier, which parsing has ruled out.
    fn slice(&self, at: usize, len: usize) -> &[u8] {
        at.checked_add(len).and_then(|end| self.bytes.as_ref().get(at..end)).unwrap_or_default()
    }
}

/// How a file of a given size lies in blocks, by the layout's rules.
struct Cut {
    /// Blocks of [`BLOCK_MAX`] bytes that it fills alone.
    full: u32,
    /// Bytes of the extent after those: all of a small file, or a large file's tail.
    packed_len: u32,
}

impl Cut {
    fn of(raw: &RawRecord) -> Option<Self> {
        let full = u32::try_from(raw.size / u64::from(BLOCK_MAX)).ok()?;
        let packed_len = u32::try_from(raw.size % u64::from(BLOCK_MAX)).ok()?;
        Some(Self { full, packed_len })
    }
}

fn block_is_sound(block: BlockInfo) -> bool {
    let least =
        if block.packed { bitmap_len(block.extents).saturating_add(block.extents) } else { 1 };
    let extents = if block.packed { 1..=PACK_EXTENTS_MAX } else { 1..=1 };
    extents.contains(&block.extents) && (least..=BLOCK_MAX).contains(&block.plain_len)
}
