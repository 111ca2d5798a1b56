//! A snapshot: an immutable, sorted listing of a source, used where its canonical bytes lie.
//!
//! All integers little-endian and at fixed places. `str32` is a u32 length, then that many bytes.
//!
//! | part | length | fields |
//! | --- | --- | --- |
//! | head | 48 | `tidegate snapsh2`, entries u64, unshown u64, heap length u64, source length u32, reserved u32 = 0 |
//! | source | | in words |
//! | records | 40 each | name at u64, size u64, mtime i64 + u32, parent u32, name length u8, kind u8, mode u16, first u16, second u16 |
//! | heap | | each record's name and what pins it, in the order of the records |
//! | unshown | | name `str32`, reason `str32` |
//!
//! | kind | behind the name in the heap |
//! | --- | --- |
//! | 0 directory, 2 file | nothing |
//! | 1 link | target: `first` bytes |
//! | 3 file of a tree | dev u64, ino u64, ctime i64 + u32 |
//! | 4 object | ETag: `first` bytes |
//! | 5 object with a version | ETag: `first` bytes, version id: `second` bytes |
//!
//! Records stand in path order, so a directory is followed by all that it holds; `parent` is the
//! record of the directory around, `u32::MAX` directly below the root. So a name is kept once, and the
//! bytes need no index and are the only copy in memory.
//!
//! The id is BLAKE3 in key-derivation mode, context `tidegate/v1 snapshot`, over exactly these bytes.
//! One snapshot has one encoding: names strictly ascending, every parent present, unused fields zero.

mod build;
mod read;
mod record;

use std::fmt;
use std::ops::Range;

use crate::entry::{Entry, Kind, Timestamp, Unshown, Version};
use crate::ids::SnapshotId;
use crate::path::RelPath;

use record::{Raw, Tag};

const CONTEXT: &str = "tidegate/v1 snapshot";

#[derive(Clone, PartialEq, Eq)]
pub struct Snapshot {
    bytes: Vec<u8>,
    source: String,
    /// Where the records begin, and the heap behind them.
    records_at: usize,
    heap_at: usize,
    len: u32,
    files: u64,
    content: u64,
    unshown: Vec<Unshown>,
    id: SnapshotId,
}

/// One entry as it lies in the snapshot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node<'a> {
    /// The directory around; `None` directly below the root.
    pub(crate) parent: Option<u32>,
    pub(crate) name: &'a [u8],
    pub(crate) kind: NodeKind<'a>,
    pub(crate) size: u64,
    pub(crate) mode: u16,
    pub(crate) mtime: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NodeKind<'a> {
    Dir,
    File,
    Symlink(&'a [u8]),
}

impl Snapshot {
    pub fn id(&self) -> SnapshotId {
        self.id
    }

    /// Where the listing was taken, in words.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Number of entries.
    pub fn len(&self) -> u32 {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of files.
    pub fn files(&self) -> u64 {
        self.files
    }

    /// Content of all files.
    pub fn content(&self) -> u64 {
        self.content
    }

    /// An entry by its place in path order.
    pub fn get(&self, at: u32) -> Option<Entry> {
        (at < self.len).then(|| self.entry(at))
    }

    /// In path order; every entry's directory comes before it.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = Entry> {
        (0..self.len).map(|at| self.entry(at))
    }

    /// Names of the source that cannot be shown as POSIX paths, sorted.
    pub fn unshown(&self) -> &[Unshown] {
        &self.unshown
    }

    /// The canonical bytes, which are all that it holds of its entries.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Must be below [`Self::len`].
    pub(crate) fn node(&self, at: u32) -> Node<'_> {
        let raw = self.raw(at);
        let kind = match raw.tag {
            Tag::Dir => NodeKind::Dir,
            Tag::Symlink => NodeKind::Symlink(self.rest(&raw)),
            Tag::File | Tag::Inode | Tag::Object | Tag::Versioned => NodeKind::File,
        };
        Node {
            parent: raw.parent(),
            name: self.heap(raw.name()),
            kind,
            size: raw.size,
            mode: raw.mode,
            mtime: raw.mtime,
        }
    }

    /// Bytes of a file's content; 0 for anything else.
    pub(crate) fn content_of(&self, at: u32) -> u64 {
        let raw = self.raw(at);
        if raw.tag.is_file() { raw.size } else { 0 }
    }

    pub(crate) fn parent_of(&self, at: u32) -> Option<u32> {
        self.raw(at).parent()
    }

    /// Calls `visit` with every entry and its path, in path order.
    pub(crate) fn walk(&self, mut visit: impl FnMut(u32, &Node<'_>, &[u8])) {
        let mut path: Vec<u8> = Vec::new();
        // Directories around the current entry, with the lengths of their paths.
        let mut open: Vec<(u32, usize)> = Vec::new();
        for at in 0..self.len {
            let node = self.node(at);
            while open.last().is_some_and(|(dir, _)| Some(*dir) != node.parent) {
                open.pop();
            }
            path.truncate(open.last().map_or(0, |(_, len)| *len));
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(node.name);
            if node.kind == NodeKind::Dir {
                open.push((at, path.len()));
            }
            visit(at, &node, &path);
        }
    }

    fn entry(&self, at: u32) -> Entry {
        let raw = self.raw(at);
        let mut names = vec![raw.name()];
        let mut above = raw.parent();
        while let Some(dir) = above {
            let dir = self.raw(dir);
            names.push(dir.name());
            above = dir.parent();
        }
        let mut path = Vec::with_capacity(names.iter().map(|name| name.len() + 1).sum());
        for name in names.into_iter().rev() {
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(self.heap(name));
        }
        let rest = self.rest(&raw);
        let (kind, version) = match raw.tag {
            Tag::Dir => (Kind::Dir, Version::None),
            Tag::Symlink => (Kind::Symlink(rest.into()), Version::None),
            Tag::File => (Kind::File, Version::None),
            Tag::Inode => (Kind::File, record::inode(rest)),
            Tag::Object | Tag::Versioned => {
                let (etag, id) = rest.split_at(raw.first.into());
                let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                let version_id = (raw.tag == Tag::Versioned).then(|| text(id));
                (Kind::File, Version::Object { etag: text(etag), version_id })
            }
        };
        Entry {
            path: RelPath::of_components(path),
            kind,
            size: raw.size,
            mode: raw.mode.into(),
            mtime: raw.mtime,
            version,
        }
    }

    fn raw(&self, at: u32) -> Raw {
        let start = self.records_at + record::LEN * at as usize;
        Raw::decode(&self.bytes[start..start + record::LEN])
            .expect("records were checked or written by this module")
    }

    fn rest(&self, raw: &Raw) -> &[u8] {
        self.heap(raw.rest())
    }

    fn heap(&self, place: Range<usize>) -> &[u8] {
        &self.bytes[self.heap_at + place.start..self.heap_at + place.end]
    }
}

impl fmt::Debug for Snapshot {
    /// Names are secrets, so none is printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("id", &self.id)
            .field("entries", &self.len)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
