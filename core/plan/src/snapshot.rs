//! A snapshot: an immutable, sorted listing of a source, and its canonical bytes.
//!
//! All integers little-endian. `str32` is a u32 length, then that many bytes.
//!
//! | part | fields |
//! | --- | --- |
//! | head | 16 bytes `tidegate snapsh1`, source `str32`, entries u64, unshown u64 |
//! | entry | path `str32`, kind u8 (0 dir, 1 file, 2 link + target `str32`), size u64, mode u32, mtime i64 + u32, version |
//! | version | tag u8: 0 none; 1 inode: dev u64, ino u64, ctime i64 + u32; 2 object: etag `str32`; 3 the same + version id `str32` |
//! | unshown | name `str32`, reason `str32` |
//!
//! The id is BLAKE3 in key-derivation mode, context `tidegate/v1 snapshot`, over exactly these bytes.
//! One snapshot has one encoding: entries strictly ascending, every parent present, unused fields zero.

use crate::codec::{FormatError, Reader, put_bytes32};
use crate::entry::{Entry, Kind, Timestamp, Unshown, Version};
use crate::ids::SnapshotId;
use crate::path::RelPath;

const MAGIC: &[u8; 16] = b"tidegate snapsh1";
const CONTEXT: &str = "tidegate/v1 snapshot";
/// Longest byte string in the canonical form.
const STRING_MAX: usize = 64 * 1024;
/// Shortest encoding of an entry and of an unshown name; bounds the counts before allocation.
const ENTRY_MIN: u64 = 4 + 1 + 1 + 8 + 4 + 12 + 1;
const UNSHOWN_MIN: u64 = 8;
const NANOS: u32 = 1_000_000_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    source: String,
    entries: Vec<Entry>,
    unshown: Vec<Unshown>,
    id: SnapshotId,
}

impl Snapshot {
    /// Makes a snapshot of a listing in any order.
    ///
    /// Directories that are only implied by their children are added (mode 0755, mtime 0). Where a
    /// name is both a file and a directory, the directory stays; of several entries of one name, the
    /// first. What is dropped so is named in [`Self::unshown`]. Fields that a kind does not use are cleared.
    pub fn build(source: String, mut listed: Vec<Entry>, mut unshown: Vec<Unshown>) -> Self {
        listed.sort_by(|a, b| a.path.cmp(&b.path));
        let mut entries: Vec<Entry> = Vec::with_capacity(listed.len() + listed.len() / 8);
        // The chain of directories, by index into `entries`, that are open around the current path.
        let mut open: Vec<usize> = Vec::new();
        let mut rest = listed.into_iter().peekable();
        while let Some(first) = rest.next() {
            while open.last().is_some_and(|dir| !first.path.is_below(&entries[*dir].path)) {
                open.pop();
            }
            let known = open.last().map_or(0, |dir| entries[*dir].path.as_bytes().len());
            for dir in first.path.ancestors_longer_than(known) {
                open.push(entries.len());
                entries.push(Entry::implied_dir(dir));
            }
            let mut same = vec![first];
            while let Some(next) = rest.next_if(|next| next.path == same[0].path) {
                same.push(next);
            }
            let dir = same.iter().position(Entry::is_dir);
            let is_dir =
                dir.is_some() || rest.peek().is_some_and(|next| next.path.is_below(&same[0].path));
            let kept = if is_dir { dir } else { Some(0) };
            for (at, entry) in same.into_iter().enumerate() {
                if kept == Some(at) {
                    if is_dir {
                        open.push(entries.len());
                    }
                    entries.push(normal(entry));
                } else if !entry.is_dir() {
                    let other = if is_dir { "a directory" } else { "another entry" };
                    unshown.push(Unshown {
                        name: entry.path.as_bytes().into(),
                        reason: format!("{other} has the same name"),
                    });
                }
            }
        }
        unshown.sort();
        Self::sealed(source, entries, unshown)
    }

    fn sealed(source: String, entries: Vec<Entry>, unshown: Vec<Unshown>) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
        encode(&source, &entries, &unshown, |part| {
            hasher.update(part);
        });
        let id = SnapshotId::from_bytes(*hasher.finalize().as_bytes());
        Self { source, entries, unshown, id }
    }

    pub fn id(&self) -> SnapshotId {
        self.id
    }

    /// Where the listing was taken, in words.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// In path order; every entry's directory comes before it.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Names of the source that cannot be shown as POSIX paths, sorted.
    pub fn unshown(&self) -> &[Unshown] {
        &self.unshown
    }

    /// The canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        encode(&self.source, &self.entries, &self.unshown, |part| out.extend_from_slice(part));
        out
    }

    /// Reads canonical bytes and refuses every other form. The caller compares the id.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes);
        if &reader.array::<16>()? != MAGIC {
            return Err(FormatError::new(0, "not a snapshot of version 1"));
        }
        let source = reader.text32(STRING_MAX)?.to_owned();
        let (n_entries, n_unshown) = (reader.u64()?, reader.u64()?);
        let mut entries: Vec<Entry> = Vec::with_capacity(capacity(&reader, n_entries, ENTRY_MIN)?);
        let mut open: Vec<usize> = Vec::new();
        for _ in 0..n_entries {
            let entry = decode_entry(&mut reader)?;
            let ascends = entries.last().is_none_or(|last| last.path < entry.path);
            if !ascends {
                return Err(reader.refuse("entries are not in ascending order"));
            }
            while open.last().is_some_and(|dir| !entry.path.is_below(&entries[*dir].path)) {
                open.pop();
            }
            let above = open.last().map_or(0, |dir| entries[*dir].path.depth());
            if above + 1 != entry.path.depth() {
                return Err(reader.refuse("an entry's directory is missing"));
            }
            if entry.is_dir() {
                open.push(entries.len());
            }
            entries.push(entry);
        }
        let mut unshown = Vec::with_capacity(capacity(&reader, n_unshown, UNSHOWN_MIN)?);
        for _ in 0..n_unshown {
            let name = reader.bytes32(STRING_MAX)?.into();
            let reason = reader.text32(STRING_MAX)?.to_owned();
            unshown.push(Unshown { name, reason });
        }
        if !unshown.is_sorted() {
            return Err(reader.refuse("unshown names are not in ascending order"));
        }
        if reader.remaining() != 0 {
            return Err(reader.refuse("bytes after the end"));
        }
        Ok(Self::sealed(source, entries, unshown))
    }
}

/// Clears what the kind does not use, so that one snapshot has one encoding.
fn normal(mut entry: Entry) -> Entry {
    entry.mode &= 0o7777;
    entry.mtime.nanos = entry.mtime.nanos.min(NANOS - 1);
    match &entry.kind {
        Kind::File => {
            if let Version::Inode { ctime, .. } = &mut entry.version {
                ctime.nanos = ctime.nanos.min(NANOS - 1);
            }
        }
        Kind::Dir => (entry.size, entry.version) = (0, Version::None),
        Kind::Symlink(target) => (entry.size, entry.version) = (target.len() as u64, Version::None),
    }
    entry
}

/// How many records to make room for: no more than the bytes at hand can hold.
fn capacity(reader: &Reader<'_>, count: u64, each: u64) -> Result<usize, FormatError> {
    usize::try_from(count)
        .ok()
        .filter(|_| count <= reader.remaining() as u64 / each)
        .ok_or_else(|| reader.refuse("a count is over what the bytes can hold"))
}

/// Hands the canonical bytes to `sink`, entry by entry.
fn encode(source: &str, entries: &[Entry], unshown: &[Unshown], mut sink: impl FnMut(&[u8])) {
    let mut part = MAGIC.to_vec();
    put_bytes32(&mut part, source.as_bytes());
    part.extend_from_slice(&(entries.len() as u64).to_le_bytes());
    part.extend_from_slice(&(unshown.len() as u64).to_le_bytes());
    for entry in entries {
        if part.len() >= STRING_MAX {
            sink(&part);
            part.clear();
        }
        encode_entry(&mut part, entry);
    }
    for name in unshown {
        put_bytes32(&mut part, &name.name);
        put_bytes32(&mut part, name.reason.as_bytes());
    }
    sink(&part);
}

fn encode_entry(out: &mut Vec<u8>, entry: &Entry) {
    put_bytes32(out, entry.path.as_bytes());
    match &entry.kind {
        Kind::Dir => out.push(0),
        Kind::File => out.push(1),
        Kind::Symlink(target) => {
            out.push(2);
            put_bytes32(out, target);
        }
    }
    out.extend_from_slice(&entry.size.to_le_bytes());
    out.extend_from_slice(&entry.mode.to_le_bytes());
    put_time(out, entry.mtime);
    match &entry.version {
        Version::None => out.push(0),
        Version::Inode { dev, ino, ctime } => {
            out.push(1);
            out.extend_from_slice(&dev.to_le_bytes());
            out.extend_from_slice(&ino.to_le_bytes());
            put_time(out, *ctime);
        }
        Version::Object { etag, version_id } => {
            out.push(if version_id.is_some() { 3 } else { 2 });
            put_bytes32(out, etag.as_bytes());
            if let Some(id) = version_id {
                put_bytes32(out, id.as_bytes());
            }
        }
    }
}

fn put_time(out: &mut Vec<u8>, time: Timestamp) {
    out.extend_from_slice(&time.secs.to_le_bytes());
    out.extend_from_slice(&time.nanos.to_le_bytes());
}

fn decode_time(reader: &mut Reader<'_>) -> Result<Timestamp, FormatError> {
    let (secs, nanos) = (reader.i64()?, reader.u32()?);
    if nanos >= NANOS {
        return Err(reader.refuse("a second has too many nanoseconds"));
    }
    Ok(Timestamp { secs, nanos })
}

fn decode_entry(reader: &mut Reader<'_>) -> Result<Entry, FormatError> {
    let path =
        RelPath::new(reader.bytes32(STRING_MAX)?).map_err(|_| reader.refuse("not a path"))?;
    let kind = match reader.u8()? {
        0 => Kind::Dir,
        1 => Kind::File,
        2 => Kind::Symlink(reader.bytes32(STRING_MAX)?.into()),
        _ => return Err(reader.refuse("unknown kind of entry")),
    };
    let (size, mode, mtime) = (reader.u64()?, reader.u32()?, decode_time(reader)?);
    let version = match reader.u8()? {
        0 => Version::None,
        1 => Version::Inode { dev: reader.u64()?, ino: reader.u64()?, ctime: decode_time(reader)? },
        tag @ (2 | 3) => {
            let etag = reader.text32(STRING_MAX)?.to_owned();
            let version_id = (tag == 3).then(|| reader.text32(STRING_MAX)).transpose()?;
            Version::Object { etag, version_id: version_id.map(str::to_owned) }
        }
        _ => return Err(reader.refuse("unknown kind of version")),
    };
    let size_fits = match &kind {
        Kind::File => true,
        Kind::Dir => size == 0 && version == Version::None,
        Kind::Symlink(target) => size == target.len() as u64 && version == Version::None,
    };
    if mode > 0o7777 || !size_fits {
        return Err(reader.refuse("a field that the entry's kind does not use is set"));
    }
    Ok(Entry { path, kind, size, mode, mtime, version })
}

#[cfg(test)]
mod tests;
