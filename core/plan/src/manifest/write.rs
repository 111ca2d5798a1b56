use crate::entry::{Entry, Kind, Timestamp};
use crate::layout::{BlockKind, Layout};
use crate::selection::Selection;
use crate::snapshot::Snapshot;

use super::record::{BLOCK_LEN, BlockInfo, HEAD_LEN, Head, RECORD_LEN, RawRecord, RecordKind};
use super::tree::{Node, breadth_first, walk};

/// Where a file's first byte and its packed extent lie.
#[derive(Clone, Copy, Default)]
struct Place {
    first_block: u32,
    at: u32,
    ordinal: u16,
}

/// Writes the manifest of one share. A rank that the layout does not have sees an empty root.
///
/// Must be given the snapshot and the selection that the layout was built from.
pub fn build_manifest(
    snapshot: &Snapshot,
    selection: &Selection,
    layout: &Layout,
    rank: u16,
) -> Vec<u8> {
    let entries = snapshot.entries();
    let nodes = breadth_first(entries, selection, layout, rank);
    let share = layout.share(rank);
    let (files, blocks) =
        share.map(|share| (share.files.clone(), share.blocks.clone())).unwrap_or_default();
    let places = places(layout, &files, &blocks);
    let entry_of = |node: &Node| node.entry.map(|at| &entries[at as usize]);
    let is_file = |node: &&Node| entry_of(node).is_some_and(Entry::is_file);
    let head = Head {
        rank,
        records: u32::try_from(nodes.len()).unwrap_or(u32::MAX),
        first_block: blocks.start,
        blocks: blocks.end - blocks.start,
        layout: layout.id(),
        files: nodes.iter().filter(is_file).count() as u64,
        bytes: share.map_or(0, |share| share.bytes),
        heap_len: nodes.iter().filter_map(entry_of).map(heap_len).sum(),
    };
    let mut out = Vec::with_capacity(head.heap_at());
    head.encode(&mut out);
    let mut heap = Vec::with_capacity(usize::try_from(head.heap_len).unwrap_or_default());
    for node in &nodes {
        let entry = entry_of(node);
        let record = raw_record(entry, node, heap.len() as u64, |file| {
            places[(file - files.start) as usize]
        });
        out.extend_from_slice(&record.encode());
        if let Some(entry) = entry {
            heap.extend_from_slice(entry.path.name());
            if let Kind::Symlink(target) = &entry.kind {
                heap.extend_from_slice(target);
            }
        }
    }
    for block in &layout.blocks()[blocks.start as usize..blocks.end as usize] {
        let packed = block.kind == BlockKind::Packed;
        let extents = block.extents.end - block.extents.start;
        BlockInfo { plain_len: block.plain_len, packed, extents }.encode(&mut out);
    }
    out.append(&mut heap);
    out
}

fn raw_record(
    entry: Option<&Entry>,
    node: &Node,
    name_at: u64,
    place: impl Fn(u32) -> Place,
) -> RawRecord {
    let place = node.file.map(place).unwrap_or_default();
    let mut record = RawRecord {
        name_at,
        name_len: 0,
        kind: RecordKind::Dir,
        size: 0,
        mtime: Timestamp::default(),
        mode: 0o755,
        parent: node.parent,
        a: node.first_child,
        b: node.children,
        ordinal: 0,
    };
    let Some(entry) = entry else { return record };
    record.name_len = u8::try_from(entry.path.name().len())
        .expect("a component of a RelPath has at most 255 bytes");
    (record.size, record.mtime) = (entry.size, entry.mtime);
    record.mode = u16::try_from(entry.mode & 0o7777).expect("12 bits fit into 16");
    match &entry.kind {
        Kind::Dir => {}
        Kind::File => {
            record.kind = RecordKind::File;
            (record.a, record.b, record.ordinal) = (place.first_block, place.at, place.ordinal);
        }
        Kind::Symlink(_) => {
            record.kind = RecordKind::Symlink;
            (record.a, record.b) = (0, 0);
        }
    }
    record
}

/// By position in the share's files. Every file's first extent gives its first block, its last the
/// packed place: for a large file the tail, where it has one in a packed block, else 0.
fn places(
    layout: &Layout,
    files: &std::ops::Range<u32>,
    blocks: &std::ops::Range<u32>,
) -> Vec<Place> {
    let mut places = vec![Place::default(); files.len()];
    for number in blocks.clone() {
        for (ordinal, extent) in (0_u16..).zip(layout.extents_of(number)) {
            let place = &mut places[(extent.file - files.start) as usize];
            if extent.offset == 0 {
                place.first_block = number;
            }
            (place.at, place.ordinal) = (extent.at, ordinal);
        }
    }
    places
}

fn heap_len(entry: &Entry) -> u64 {
    let target = if let Kind::Symlink(target) = &entry.kind { target.len() } else { 0 };
    (entry.path.name().len() + target) as u64
}

/// Length in bytes of the manifest that [`build_manifest`] would write.
pub(crate) fn manifest_len(
    snapshot: &Snapshot,
    selection: &Selection,
    layout: &Layout,
    rank: u16,
) -> u64 {
    let mut len = (HEAD_LEN + RECORD_LEN) as u64;
    walk(snapshot.entries(), selection, layout, rank, |entry, _, _| {
        len += RECORD_LEN as u64 + heap_len(&snapshot.entries()[entry as usize]);
    });
    len + layout.share(rank).map_or(0, |share| (share.blocks.len() * BLOCK_LEN) as u64)
}

/// Directories below the root that the share shows.
pub(crate) fn shown_dirs(
    snapshot: &Snapshot,
    selection: &Selection,
    layout: &Layout,
    rank: u16,
) -> u64 {
    let mut dirs = 0;
    walk(snapshot.entries(), selection, layout, rank, |_, file, _| {
        dirs += u64::from(file.is_none())
    });
    dirs
}
