//! The share's manifest as a file tree: inode numbers, attributes, directory listings and the pieces
//! of blocks that a read needs. Pure; nothing here waits.
//!
//! Inode number = record index + 1, generation 0. Nothing is made or freed while the mount lives, so
//! numbers mean the same to every worker of the mount.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo};
use tidegate_plan::{Manifest, Piece, Record, RecordKind, Timestamp};

use crate::readmode::ReadMode;

/// One listed name of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listed<'a> {
    pub(crate) record: u32,
    /// Offset that continues the listing behind this name.
    pub(crate) next: u64,
    pub(crate) kind: FileType,
    pub(crate) name: &'a [u8],
}

/// A part of a read that lies in one block: `len` bytes from `piece.at` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) piece: Piece,
    pub(crate) len: usize,
}

#[derive(Debug)]
pub(crate) struct Tree<B> {
    manifest: Arc<Manifest<B>>,
    owner: (u32, u32),
}

impl<B: AsRef<[u8]> + Send + Sync> Tree<B> {
    /// `owner`: user and group that every file belongs to.
    pub(crate) fn new(manifest: Arc<Manifest<B>>, owner: (u32, u32)) -> Self {
        Self { manifest, owner }
    }

    /// The record behind an inode number.
    pub(crate) fn record(&self, inode: INodeNo) -> Option<u32> {
        let index = u32::try_from(inode.0.checked_sub(1)?).ok()?;
        (index < self.manifest.len()).then_some(index)
    }

    pub(crate) fn kind(&self, record: u32) -> FileType {
        kind(&self.manifest.record(record))
    }

    pub(crate) fn size(&self, record: u32) -> u64 {
        self.manifest.record(record).size
    }

    pub(crate) fn attributes(&self, record: u32) -> FileAttr {
        let entry = self.manifest.record(record);
        let time = system_time(entry.mtime);
        let size = match entry.kind {
            RecordKind::Dir => 4096,
            RecordKind::File | RecordKind::Symlink => entry.size,
        };
        FileAttr {
            ino: INodeNo(u64::from(record) + 1),
            size,
            blocks: size.div_ceil(512),
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind: kind(&entry),
            perm: u16::try_from(entry.mode & 0o7777).unwrap_or(0),
            nlink: 1,
            uid: self.owner.0,
            gid: self.owner.1,
            rdev: 0,
            blksize: ReadMode::of(entry.size).preferred_io(),
            flags: 0,
        }
    }

    pub(crate) fn lookup(&self, directory: u32, name: &[u8]) -> Option<u32> {
        self.manifest.lookup(directory, name)
    }

    pub(crate) fn link_target(&self, record: u32) -> Option<&[u8]> {
        self.manifest.link_target(record)
    }

    /// The names of a directory from `offset` on: `.`, `..`, then its children by name. Offsets count
    /// names, so a listing goes on where it was left, in any worker, however long it is.
    pub(crate) fn list(&self, directory: u32, offset: u64) -> impl Iterator<Item = Listed<'_>> {
        let children = self.manifest.children(directory);
        let parent = self.manifest.record(directory).parent;
        let dots = [(directory, &b"."[..]), (parent, &b".."[..])];
        let dots =
            dots.into_iter().zip(1u64..).filter(move |(_, next)| *next > offset).map(
                |((record, name), next)| Listed { record, next, kind: FileType::Directory, name },
            );
        let skipped = u32::try_from(offset.saturating_sub(2)).unwrap_or(u32::MAX);
        let first = children.start.saturating_add(skipped).min(children.end);
        let start = children.start;
        let names = (first..children.end).map(move |record| {
            let entry = self.manifest.record(record);
            let next = u64::from(record - start) + 3;
            Listed { record, next, kind: kind(&entry), name: entry.name }
        });
        dots.chain(names)
    }

    /// What a read of `size` bytes at `offset` touches, in order; short or empty at the end of the file.
    pub(crate) fn parts(&self, record: u32, offset: u64, size: u32) -> Vec<Part> {
        let end = offset.saturating_add(u64::from(size)).min(self.size(record));
        let mut parts = Vec::new();
        let mut at = offset;
        while at < end {
            let Some(piece) = self.manifest.locate(record, at) else { break };
            let left = usize::try_from(end - at).unwrap_or(usize::MAX);
            let len = left.min(usize::try_from(piece.len).unwrap_or(0));
            if len == 0 {
                break;
            }
            parts.push(Part { piece, len });
            at += u64::try_from(len).unwrap_or(u64::MAX);
        }
        parts
    }

    /// Inode numbers of every record.
    pub(crate) fn inodes(&self) -> Range<u64> {
        1..u64::from(self.manifest.len()) + 1
    }

    pub(crate) fn total_bytes(&self) -> u64 {
        self.manifest.total_bytes()
    }
}

fn kind(record: &Record<'_>) -> FileType {
    match record.kind {
        RecordKind::File => FileType::RegularFile,
        RecordKind::Dir => FileType::Directory,
        RecordKind::Symlink => FileType::Symlink,
    }
}

fn system_time(time: Timestamp) -> SystemTime {
    let seconds = Duration::from_secs(time.secs.unsigned_abs());
    let base = if time.secs < 0 {
        UNIX_EPOCH.checked_sub(seconds)
    } else {
        UNIX_EPOCH.checked_add(seconds)
    };
    base.and_then(|base| base.checked_add(Duration::from_nanos(u64::from(time.nanos))))
        .unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests;
