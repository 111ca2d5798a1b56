//! The fixed-width parts: head and record.

use std::ops::Range;

use crate::codec::{FormatError, Reader};
use crate::entry::{Timestamp, Version};

pub(super) const MAGIC: &[u8; 16] = b"tidegate snapsh2";
pub(super) const HEAD_LEN: usize = 48;
/// Bytes of a record.
pub(super) const LEN: usize = 40;
/// Bytes that pin a file of a tree.
pub(super) const INODE_LEN: usize = 28;
pub(super) const NANOS: u32 = 1_000_000_000;
/// In place of a parent directly below the root.
const ROOT: u32 = u32::MAX;

/// What an entry is and what pins it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    Dir,
    Symlink,
    File,
    Inode,
    Object,
    Versioned,
}

impl Tag {
    pub(super) fn is_file(self) -> bool {
        !matches!(self, Self::Dir | Self::Symlink)
    }
}

/// A record as it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Raw {
    pub(super) name_at: u64,
    pub(super) size: u64,
    pub(super) mtime: Timestamp,
    pub(super) parent: u32,
    pub(super) name_len: u8,
    pub(super) tag: Tag,
    pub(super) mode: u16,
    pub(super) first: u16,
    pub(super) second: u16,
}

impl Raw {
    pub(super) fn parent(&self) -> Option<u32> {
        (self.parent != ROOT).then_some(self.parent)
    }

    /// Places in the heap. What does not fit into memory is not there, so the sums may saturate.
    pub(super) fn name(&self) -> Range<usize> {
        let start = usize::try_from(self.name_at).unwrap_or(usize::MAX);
        start..start.saturating_add(self.name_len.into())
    }

    pub(super) fn rest(&self) -> Range<usize> {
        let start = self.name().end;
        start..start.saturating_add(self.rest_len())
    }

    pub(super) fn rest_len(&self) -> usize {
        match self.tag {
            Tag::Dir | Tag::File => 0,
            Tag::Inode => INODE_LEN,
            Tag::Symlink | Tag::Object => self.first.into(),
            Tag::Versioned => usize::from(self.first) + usize::from(self.second),
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.name_at.to_le_bytes());
        out.extend_from_slice(&self.size.to_le_bytes());
        out.extend_from_slice(&self.mtime.secs.to_le_bytes());
        out.extend_from_slice(&self.mtime.nanos.to_le_bytes());
        out.extend_from_slice(&self.parent.to_le_bytes());
        out.push(self.name_len);
        out.push(match self.tag {
            Tag::Dir => 0,
            Tag::Symlink => 1,
            Tag::File => 2,
            Tag::Inode => 3,
            Tag::Object => 4,
            Tag::Versioned => 5,
        });
        out.extend_from_slice(&self.mode.to_le_bytes());
        out.extend_from_slice(&self.first.to_le_bytes());
        out.extend_from_slice(&self.second.to_le_bytes());
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes);
        let raw = Self {
            name_at: reader.u64()?,
            size: reader.u64()?,
            mtime: Timestamp { secs: reader.i64()?, nanos: reader.u32()? },
            parent: reader.u32()?,
            name_len: reader.u8()?,
            tag: match reader.u8()? {
                0 => Tag::Dir,
                1 => Tag::Symlink,
                2 => Tag::File,
                3 => Tag::Inode,
                4 => Tag::Object,
                5 => Tag::Versioned,
                _ => return Err(reader.refuse("unknown kind of entry")),
            },
            mode: reader.u16()?,
            first: reader.u16()?,
            second: reader.u16()?,
        };
        let used = match raw.tag {
            Tag::Dir => raw.size == 0 && raw.first == 0 && raw.second == 0,
            Tag::Symlink => raw.size == u64::from(raw.first) && raw.second == 0,
            Tag::File | Tag::Inode => raw.first == 0 && raw.second == 0,
            Tag::Object => raw.second == 0,
            Tag::Versioned => true,
        };
        if !used || raw.mode > 0o7777 || raw.mtime.nanos >= NANOS {
            return Err(reader.refuse("a field is out of range or not used by the entry's kind"));
        }
        Ok(raw)
    }
}

pub(super) fn parent_field(parent: Option<u32>) -> u32 {
    parent.unwrap_or(ROOT)
}

/// The pin of a file of a tree, from [`INODE_LEN`] bytes.
pub(super) fn inode(bytes: &[u8]) -> Version {
    let mut reader = Reader::new(bytes);
    let mut read = || {
        let (dev, ino) = (reader.u64()?, reader.u64()?);
        let ctime = Timestamp { secs: reader.i64()?, nanos: reader.u32()? };
        Ok::<_, FormatError>(Version::Inode { dev, ino, ctime })
    };
    read().unwrap_or(Version::None)
}
