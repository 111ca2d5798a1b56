//! From a listing in any order to a snapshot.

use std::iter::Peekable;
use std::vec::IntoIter;

use crate::codec::put_bytes32;
use crate::entry::{Entry, Kind, Unshown, Version};
use crate::ids::SnapshotId;
use crate::path::{RelPath, is_below};

use super::record::{HEAD_LEN, LEN, MAGIC, NANOS, Raw, Tag, parent_field};
use super::{CONTEXT, Snapshot};

impl Snapshot {
    /// Makes a snapshot of a listing in any order.
    ///
    /// Directories that are only implied by their children are added (mode 0755, mtime 0). Where a
    /// name is both a file and a directory, the directory stays; of several entries of one name, the
    /// first. What is dropped so is named in [`Self::unshown`]. Fields that a kind does not use are cleared.
    pub fn build(source: String, mut listed: Vec<Entry>, mut unshown: Vec<Unshown>) -> Self {
        listed.retain(|entry| {
            let fits = pins_fit(entry);
            if !fits {
                unshown.push(left_out(entry, "what pins it is too long"));
            }
            fits
        });
        listed.sort_by(|a, b| a.path.cmp(&b.path));
        let mut out = Writer {
            records: Vec::with_capacity(listed.len() * LEN),
            heap: Vec::with_capacity(listed.len() * 64),
            ..Writer::default()
        };
        let mut rest = listed.into_iter().peekable();
        while let Some(first) = rest.next() {
            out.enter_directory_of(&first.path);
            if let Some(kept) = choose(first, &mut rest, &mut unshown) {
                out.push(&kept);
            }
        }
        drop(rest);
        unshown.sort();
        out.seal(source, unshown)
    }
}

fn left_out(entry: &Entry, reason: &str) -> Unshown {
    Unshown { name: entry.path.as_bytes().into(), reason: reason.to_owned() }
}

/// Whether targets, ETags and version ids are within what a record can say of their length.
fn pins_fit(entry: &Entry) -> bool {
    let fits = |len: usize| u16::try_from(len).is_ok();
    let target = if let Kind::Symlink(target) = &entry.kind { target.len() } else { 0 };
    let pins = match &entry.version {
        Version::Object { etag, version_id } => {
            fits(etag.len()) && version_id.as_ref().is_none_or(|id| fits(id.len()))
        }
        Version::None | Version::Inode { .. } => true,
    };
    fits(target) && pins
}

/// Of all entries with the name of `first`, the one that stays; `None` for a directory that nobody
/// listed but that the next entry lies in.
fn choose(
    first: Entry,
    rest: &mut Peekable<IntoIter<Entry>>,
    unshown: &mut Vec<Unshown>,
) -> Option<Entry> {
    let below = |next: &Entry, first: &Entry| next.path.is_below(&first.path);
    let alone = rest
        .peek()
        .is_none_or(|next| next.path != first.path && (first.is_dir() || !below(next, &first)));
    if alone {
        return Some(first);
    }
    let mut same = vec![first];
    while let Some(next) = rest.next_if(|next| next.path == same[0].path) {
        same.push(next);
    }
    let dir = same.iter().position(Entry::is_dir);
    let is_dir = dir.is_some() || rest.peek().is_some_and(|next| below(next, &same[0]));
    let kept = if is_dir { dir } else { Some(0) };
    let mut chosen = None;
    for (at, entry) in same.into_iter().enumerate() {
        if kept == Some(at) {
            chosen = Some(entry);
        } else if !entry.is_dir() {
            let other = if is_dir { "a directory" } else { "another entry" };
            unshown.push(left_out(&entry, &format!("{other} has the same name")));
        }
    }
    chosen
}

#[derive(Default)]
struct Writer {
    records: Vec<u8>,
    heap: Vec<u8>,
    files: u64,
    content: u64,
    /// Directories around the current place: record, and length of its path.
    open: Vec<(u32, usize)>,
    /// Path of the innermost of them.
    inside: Vec<u8>,
}

impl Writer {
    /// Leaves directories that do not hold `path`, and adds those above it that nobody listed.
    fn enter_directory_of(&mut self, path: &RelPath) {
        let holds = |dir: &[u8]| is_below(path.as_bytes(), dir);
        while self.open.last().is_some_and(|(_, len)| !holds(&self.inside[..*len])) {
            self.open.pop();
        }
        let known = self.open.last().map_or(0, |(_, len)| *len);
        self.inside.truncate(known);
        for dir in path.ancestors_longer_than(known) {
            self.push(&Entry::implied_dir(dir));
        }
    }

    fn push(&mut self, entry: &Entry) {
        let record = u32::try_from(self.records.len() / LEN)
            .ok()
            .filter(|record| *record != u32::MAX)
            .expect("a listing of 2^32 entries would not have fitted into memory");
        let name = entry.path.name();
        let name_at = self.heap.len() as u64;
        self.heap.extend_from_slice(name);
        let (tag, size, first, second) = self.push_rest(entry);
        let mut mtime = entry.mtime;
        mtime.nanos = mtime.nanos.min(NANOS - 1);
        let raw = Raw {
            name_at,
            size,
            mtime,
            parent: parent_field(self.open.last().map(|(dir, _)| *dir)),
            name_len: u8::try_from(name.len()).expect("a component has at most 255 bytes"),
            tag,
            mode: u16::try_from(entry.mode & 0o7777).expect("12 bits fit into 16"),
            first,
            second,
        };
        raw.encode(&mut self.records);
        if tag.is_file() {
            self.files += 1;
            self.content = self.content.saturating_add(size);
        }
        if tag == Tag::Dir {
            self.inside.clear();
            self.inside.extend_from_slice(entry.path.as_bytes());
            self.open.push((record, self.inside.len()));
        }
    }

    /// What follows the name in the heap; kind, size and the two lengths of the record.
    fn push_rest(&mut self, entry: &Entry) -> (Tag, u64, u16, u16) {
        let short = |len: usize| u16::try_from(len).expect("`pins_fit` let no longer one in");
        match (&entry.kind, &entry.version) {
            (Kind::Dir, _) => (Tag::Dir, 0, 0, 0),
            (Kind::Symlink(target), _) => {
                self.heap.extend_from_slice(target);
                (Tag::Symlink, target.len() as u64, short(target.len()), 0)
            }
            (Kind::File, Version::None) => (Tag::File, entry.size, 0, 0),
            (Kind::File, Version::Inode { dev, ino, ctime }) => {
                self.heap.extend_from_slice(&dev.to_le_bytes());
                self.heap.extend_from_slice(&ino.to_le_bytes());
                self.heap.extend_from_slice(&ctime.secs.to_le_bytes());
                self.heap.extend_from_slice(&ctime.nanos.min(NANOS - 1).to_le_bytes());
                (Tag::Inode, entry.size, 0, 0)
            }
            (Kind::File, Version::Object { etag, version_id }) => {
                self.heap.extend_from_slice(etag.as_bytes());
                let first = short(etag.len());
                let Some(id) = version_id else { return (Tag::Object, entry.size, first, 0) };
                self.heap.extend_from_slice(id.as_bytes());
                (Tag::Versioned, entry.size, first, short(id.len()))
            }
        }
    }

    fn seal(self, source: String, unshown: Vec<Unshown>) -> Snapshot {
        let Self { records, heap, files, content, .. } = self;
        let count = records.len() / LEN;
        let mut bytes = Vec::with_capacity(HEAD_LEN + source.len() + records.len() + heap.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&(count as u64).to_le_bytes());
        bytes.extend_from_slice(&(unshown.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&(heap.len() as u64).to_le_bytes());
        let source_len = u32::try_from(source.len()).expect("a source is named in a line");
        bytes.extend_from_slice(&source_len.to_le_bytes());
        bytes.extend_from_slice(&0_u32.to_le_bytes());
        bytes.extend_from_slice(source.as_bytes());
        let records_at = bytes.len();
        bytes.extend_from_slice(&records);
        drop(records);
        let heap_at = bytes.len();
        bytes.extend_from_slice(&heap);
        drop(heap);
        for name in &unshown {
            put_bytes32(&mut bytes, &name.name);
            put_bytes32(&mut bytes, name.reason.as_bytes());
        }
        let id = SnapshotId::from_bytes(blake3::derive_key(CONTEXT, &bytes));
        Snapshot {
            bytes,
            source,
            records_at,
            heap_at,
            len: u32::try_from(count).expect("each record was counted in 32 bits"),
            files,
            content,
            unshown,
            id,
        }
    }
}
