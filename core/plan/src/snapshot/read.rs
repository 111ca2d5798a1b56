//! From bytes that somebody kept for us.

use crate::codec::{FormatError, Reader};
use crate::entry::{Unshown, Version};
use crate::ids::SnapshotId;
use crate::path::{PATH_MAX, is_name};

use super::record::{HEAD_LEN, LEN, MAGIC, NANOS, Raw, Tag, inode};
use super::{CONTEXT, Snapshot};

/// Longest name of a source, and longest name and reason of what is not shown.
const STRING_MAX: usize = 64 * 1024;
/// Shortest encoding of an unshown name; bounds the count before allocation.
const UNSHOWN_MIN: u64 = 8;

impl Snapshot {
    /// Takes canonical bytes and refuses every other form. The caller compares the id.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, FormatError> {
        let mut reader = Reader::new(&bytes);
        if &reader.array::<16>()? != MAGIC {
            return Err(FormatError::new(0, "not a snapshot of version 2"));
        }
        let (n_entries, n_unshown, heap_len) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let source_len = reader.u32()? as usize;
        if reader.u32()? != 0 || source_len > STRING_MAX {
            return Err(reader.refuse("a field of the head is out of range"));
        }
        let source = std::str::from_utf8(reader.take(source_len)?)
            .map_err(|_| reader.refuse("text is not UTF-8"))?
            .to_owned();
        let records_at = HEAD_LEN + source_len;
        let too_many = || FormatError::new(16, "a count is over what the bytes can hold");
        let len = u32::try_from(n_entries).ok().filter(|n| *n != u32::MAX).ok_or_else(too_many)?;
        let records = reader.take(len as usize * LEN).map_err(|_| too_many())?;
        let heap_at = records_at + records.len();
        let heap_len = usize::try_from(heap_len).map_err(|_| too_many())?;
        let heap = reader.take(heap_len).map_err(|_| too_many())?;
        if n_unshown > reader.remaining() as u64 / UNSHOWN_MIN {
            return Err(too_many());
        }
        let (files, content) = check(records, heap, records_at)?;
        let mut unshown = Vec::new();
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
        let id = SnapshotId::from_bytes(blake3::derive_key(CONTEXT, &bytes));
        Ok(Self { bytes, source, records_at, heap_at, len, files, content, unshown, id })
    }
}

/// A directory around the current record.
struct Open<'a> {
    record: u32,
    /// Length of its path.
    path: usize,
    /// The newest name in it.
    last: &'a [u8],
}

/// Checks every record; the number of files and their content.
fn check(records: &[u8], heap: &[u8], records_at: usize) -> Result<(u64, u64), FormatError> {
    let (mut files, mut content, mut heap_end) = (0, 0_u64, 0);
    let mut top: &[u8] = b"";
    let mut open: Vec<Open<'_>> = Vec::new();
    for (record, bytes) in (0_u32..).zip(records.chunks_exact(LEN)) {
        let at = records_at + record as usize * LEN;
        let refuse = |rule| FormatError::new(at, rule);
        let raw = Raw::decode(bytes).map_err(|error| FormatError::new(at, error.rule))?;
        if raw.name().start != heap_end || raw.rest().end > heap.len() {
            return Err(refuse("names are not in the order of the records"));
        }
        heap_end = raw.rest().end;
        let (name, rest) = (&heap[raw.name()], &heap[raw.rest()]);
        if !is_name(name) {
            return Err(refuse("a name is not allowed"));
        }
        while open.last().is_some_and(|dir| Some(dir.record) != raw.parent()) {
            open.pop();
        }
        if raw.parent().is_some() == open.is_empty() {
            return Err(refuse("an entry's directory is not around it"));
        }
        let (above, last) = match open.last_mut() {
            Some(dir) => (dir.path + 1, &mut dir.last),
            None => (0, &mut top),
        };
        if *last >= name {
            return Err(refuse("names are not in ascending order"));
        }
        *last = name;
        let path = above + name.len();
        if path > PATH_MAX {
            return Err(refuse("a path is too long"));
        }
        if !rest_is_sound(&raw, rest) {
            return Err(refuse("what pins an entry is not as written"));
        }
        if raw.tag.is_file() {
            files += 1;
            content = content.saturating_add(raw.size);
        }
        if raw.tag == Tag::Dir {
            open.push(Open { record, path, last: b"" });
        }
    }
    if heap_end != heap.len() {
        return Err(FormatError::new(records_at, "the heap holds more than the records say"));
    }
    Ok((files, content))
}

fn rest_is_sound(raw: &Raw, rest: &[u8]) -> bool {
    match raw.tag {
        Tag::Dir | Tag::Symlink | Tag::File => true,
        Tag::Inode => {
            matches!(inode(rest), Version::Inode { ctime, .. } if ctime.nanos < NANOS)
        }
        Tag::Object | Tag::Versioned => {
            let (etag, id) = rest.split_at(raw.first.into());
            std::str::from_utf8(etag).is_ok() && std::str::from_utf8(id).is_ok()
        }
    }
}
