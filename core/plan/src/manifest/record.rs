//! The fixed-width parts: head, record, block.

use crate::codec::{FormatError, Reader};
use crate::entry::Timestamp;
use crate::ids::LayoutId;
use crate::layout::LAYOUT_VERSION;

const MAGIC: &[u8; 8] = b"tgmanif1";
pub(super) const HEAD_LEN: usize = 88;
pub(super) const RECORD_LEN: usize = 48;
pub(super) const BLOCK_LEN: usize = 8;
// The promise of the format: names apart, a file of up to 8 MiB stays within 64 bytes.
const _: () = assert!(RECORD_LEN + 2 * BLOCK_LEN <= 64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    Dir,
    File,
    Symlink,
}

/// One name of the share, as shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Empty for the root.
    pub name: &'a [u8],
    /// Record of the directory that holds it; the root is its own.
    pub parent: u32,
    pub kind: RecordKind,
    /// Bytes: content of a file, target of a link, 0 for a directory.
    pub size: u64,
    /// The 12 permission bits.
    pub mode: u32,
    pub mtime: Timestamp,
}

/// One block of the share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockInfo {
    /// Plaintext bytes, bitmap included.
    pub plain_len: u32,
    /// Opens with a status bitmap of one bit an extent.
    pub packed: bool,
    pub extents: u32,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) rank: u16,
    pub(super) records: u32,
    pub(super) first_block: u32,
    pub(super) blocks: u32,
    pub(super) layout: LayoutId,
    pub(super) files: u64,
    pub(super) bytes: u64,
    pub(super) heap_len: u64,
}

impl Head {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&LAYOUT_VERSION.to_le_bytes());
        out.extend_from_slice(&self.rank.to_le_bytes());
        out.extend_from_slice(&self.records.to_le_bytes());
        out.extend_from_slice(&self.first_block.to_le_bytes());
        out.extend_from_slice(&self.blocks.to_le_bytes());
        out.extend_from_slice(self.layout.as_bytes());
        out.extend_from_slice(&self.files.to_le_bytes());
        out.extend_from_slice(&self.bytes.to_le_bytes());
        out.extend_from_slice(&self.heap_len.to_le_bytes());
        out.extend_from_slice(&0_u64.to_le_bytes());
    }

    /// Reads the head and checks that the parts it announces fill `bytes` exactly.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes);
        if &reader.array::<8>()? != MAGIC || reader.u16()? != LAYOUT_VERSION {
            return Err(FormatError::new(0, "not a manifest of version 2"));
        }
        let head = Self {
            rank: reader.u16()?,
            records: reader.u32()?,
            first_block: reader.u32()?,
            blocks: reader.u32()?,
            layout: LayoutId::from_bytes(reader.array()?),
            files: reader.u64()?,
            bytes: reader.u64()?,
            heap_len: reader.u64()?,
        };
        if reader.u64()? != 0 {
            return Err(reader.refuse("a reserved field is set"));
        }
        let fixed = head.heap_at() as u128;
        if head.records == 0 || fixed + u128::from(head.heap_len) != bytes.len() as u128 {
            return Err(reader.refuse("the parts do not fill the manifest"));
        }
        if head.first_block.checked_add(head.blocks).is_none() {
            return Err(reader.refuse("block numbers overflow"));
        }
        Ok(head)
    }

    pub(super) fn record_at(record: u32) -> usize {
        HEAD_LEN + RECORD_LEN * record as usize
    }

    pub(super) fn block_at(&self, block: u32) -> usize {
        Self::record_at(self.records) + BLOCK_LEN * block as usize
    }

    pub(super) fn heap_at(&self) -> usize {
        self.block_at(self.blocks)
    }
}

/// A record as it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawRecord {
    pub(super) name_at: u64,
    pub(super) name_len: u8,
    pub(super) kind: RecordKind,
    pub(super) size: u64,
    pub(super) mtime: Timestamp,
    pub(super) mode: u16,
    pub(super) parent: u32,
    /// First child or first block.
    pub(super) a: u32,
    /// Number of children, or place of the packed extent in its block.
    pub(super) b: u32,
    /// Number of the packed extent in its block.
    pub(super) ordinal: u16,
}

/// Where a record counts its children.
const CHILDREN_AT: usize = 36;

impl RawRecord {
    /// A directory of nothing, without a name.
    pub(super) fn dir() -> Self {
        Self {
            name_at: 0,
            name_len: 0,
            kind: RecordKind::Dir,
            size: 0,
            mtime: Timestamp::default(),
            mode: 0,
            parent: 0,
            a: 0,
            b: 0,
            ordinal: 0,
        }
    }

    /// Counts one child more in the encoded record of a directory.
    pub(super) fn add_child(encoded: &mut [u8]) {
        let mut count = [0; 4];
        let place = &mut encoded[CHILDREN_AT..CHILDREN_AT + 4];
        count.copy_from_slice(place);
        place.copy_from_slice(&(u32::from_le_bytes(count) + 1).to_le_bytes());
    }

    pub(super) fn encode(&self) -> [u8; RECORD_LEN] {
        let mut out = [0; RECORD_LEN];
        out[0..8].copy_from_slice(&self.name_at.to_le_bytes());
        out[8..16].copy_from_slice(&self.size.to_le_bytes());
        out[16..24].copy_from_slice(&self.mtime.secs.to_le_bytes());
        out[24..28].copy_from_slice(&self.mtime.nanos.to_le_bytes());
        out[28..32].copy_from_slice(&self.parent.to_le_bytes());
        out[32..36].copy_from_slice(&self.a.to_le_bytes());
        out[36..40].copy_from_slice(&self.b.to_le_bytes());
        out[40..42].copy_from_slice(&self.ordinal.to_le_bytes());
        out[42..44].copy_from_slice(&self.mode.to_le_bytes());
        out[44] = self.name_len;
        out[45] = match self.kind {
            RecordKind::Dir => 0,
            RecordKind::File => 1,
            RecordKind::Symlink => 2,
        };
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes);
        let (name_at, size) = (reader.u64()?, reader.u64()?);
        let mtime = Timestamp { secs: reader.i64()?, nanos: reader.u32()? };
        let (parent, a, b) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let (ordinal, mode, name_len) = (reader.u16()?, reader.u16()?, reader.u8()?);
        let kind = match reader.u8()? {
            0 => RecordKind::Dir,
            1 => RecordKind::File,
            2 => RecordKind::Symlink,
            _ => return Err(reader.refuse("unknown kind of record")),
        };
        if reader.u16()? != 0 || mode > 0o7777 || mtime.nanos >= 1_000_000_000 {
            return Err(reader.refuse("a field of a record is out of range"));
        }
        Ok(Self { name_at, name_len, kind, size, mtime, mode, parent, a, b, ordinal })
    }
}

impl BlockInfo {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.plain_len.to_le_bytes());
        // At most 32768, so it fits.
        out.extend_from_slice(&u16::try_from(self.extents).unwrap_or(u16::MAX).to_le_bytes());
        out.extend_from_slice(&[u8::from(self.packed), 0]);
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes);
        let (plain_len, extents) = (reader.u32()?, u32::from(reader.u16()?));
        let packed = match reader.u16()? {
            0 => false,
            1 => true,
            _ => return Err(reader.refuse("unknown kind of block")),
        };
        Ok(Self { plain_len, packed, extents })
    }
}
