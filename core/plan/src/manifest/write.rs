use std::ops::Range;
use std::vec::IntoIter;

use crate::layout::{BlockKind, Extent, Layout};
use crate::selection::Selection;
use crate::snapshot::{Node, NodeKind, Snapshot};

use super::record::{BLOCK_LEN, BlockInfo, HEAD_LEN, Head, RECORD_LEN, RawRecord, RecordKind};
use super::tree::walk;

/// What a share's manifest comes to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sums {
    pub(crate) files: u64,
    pub(crate) symlinks: u64,
    /// Below the root.
    pub(crate) dirs: u64,
    /// Records and heap bytes of each depth; the root is depth 0.
    depths: Vec<(u32, u64)>,
    blocks: u64,
}

impl Sums {
    pub(crate) fn of(
        snapshot: &Snapshot,
        selection: &Selection,
        layout: &Layout,
        rank: u16,
    ) -> Self {
        let blocks = layout.share(rank).map_or(0, |share| share.blocks.len() as u64);
        let mut sums = Self { depths: vec![(1, 0)], blocks, ..Self::default() };
        walk(snapshot, selection, layout, rank, |at, _, depth| {
            let node = snapshot.node(at);
            *match node.kind {
                NodeKind::Dir => &mut sums.dirs,
                NodeKind::File => &mut sums.files,
                NodeKind::Symlink(_) => &mut sums.symlinks,
            } += 1;
            if sums.depths.len() <= depth {
                sums.depths.resize(depth + 1, (0, 0));
            }
            sums.depths[depth].0 += 1;
            sums.depths[depth].1 += heap_len(&node);
        });
        sums
    }

    fn records(&self) -> u64 {
        1 + self.files + self.symlinks + self.dirs
    }

    fn heap_len(&self) -> u64 {
        self.depths.iter().map(|(_, heap)| heap).sum()
    }

    /// Length in bytes of the manifest.
    pub(crate) fn manifest_len(&self) -> u64 {
        HEAD_LEN as u64
            + self.records() * RECORD_LEN as u64
            + self.blocks * BLOCK_LEN as u64
            + self.heap_len()
    }
}

/// Writes the manifest of one share. A rank that the layout does not have sees an empty root.
///
/// Must be given the snapshot and the selection that the layout was built from. Takes the memory of
/// what it returns and no more: within one depth, path order keeps the children of a directory together
/// and sorted, so breadth-first order is path order with a place to write for each depth.
pub fn build_manifest(
    snapshot: &Snapshot,
    selection: &Selection,
    layout: &Layout,
    rank: u16,
) -> Vec<u8> {
    let sums = Sums::of(snapshot, selection, layout, rank);
    let share = layout.share(rank);
    let blocks = share.map_or(0..0, |share| share.blocks.clone());
    let head = Head {
        rank,
        records: u32::try_from(sums.records()).unwrap_or(u32::MAX),
        first_block: blocks.start,
        blocks: blocks.end - blocks.start,
        layout: layout.id(),
        files: sums.files,
        bytes: share.map_or(0, |share| share.bytes),
        heap_len: sums.heap_len(),
    };
    let mut out = Vec::with_capacity(usize::try_from(sums.manifest_len()).unwrap_or_default());
    head.encode(&mut out);
    out.resize(head.block_at(0), 0);
    for block in &layout.blocks()[blocks.start as usize..blocks.end as usize] {
        let packed = block.kind == BlockKind::Packed;
        BlockInfo { plain_len: block.plain_len, packed, extents: block.extents }.encode(&mut out);
    }
    out.resize(usize::try_from(sums.manifest_len()).unwrap_or_default(), 0);

    let mut places = Places::new(snapshot, selection, layout, blocks);
    let mut tree = Writer::new(&mut out, &head, &sums);
    walk(snapshot, selection, layout, rank, |at, file, depth| {
        let node = snapshot.node(at);
        let place = match node.kind {
            NodeKind::File if node.size > 0 => file.map(|file| places.of(file)),
            _ => None,
        };
        tree.write(&node, depth, place.unwrap_or_default());
    });
    out
}

fn heap_len(node: &Node<'_>) -> u64 {
    let target = if let NodeKind::Symlink(target) = node.kind { target.len() } else { 0 };
    (node.name.len() + target) as u64
}

/// Puts each record and name to its place.
struct Writer<'a> {
    out: &'a mut [u8],
    heap_at: usize,
    /// Of each depth: the next record and where its name goes.
    next: Vec<(u32, u64)>,
    /// Of each depth: the newest record, the directory around what comes one level down.
    newest: Vec<u32>,
}

impl<'a> Writer<'a> {
    /// With the root written.
    fn new(out: &'a mut [u8], head: &Head, sums: &Sums) -> Self {
        let (mut record, mut heap) = (0, 0);
        let mut next = Vec::with_capacity(sums.depths.len() + 1);
        for (records, heap_len) in &sums.depths {
            next.push((record, heap));
            (record, heap) = (record + records, heap + heap_len);
        }
        // Directories without children at the greatest depth.
        next.push((record, heap));
        let newest = vec![0; next.len()];
        let mut writer = Self { out, heap_at: head.heap_at(), next, newest };
        let root = RawRecord { mode: 0o755, a: 1, ..RawRecord::dir() };
        writer.put(0, &root);
        writer
    }

    fn write(&mut self, node: &Node<'_>, depth: usize, place: Place) {
        let parent = self.newest[depth - 1];
        let (record, name_at) = self.next[depth];
        let mut raw = RawRecord {
            name_at,
            name_len: u8::try_from(node.name.len()).unwrap_or(u8::MAX),
            size: node.size,
            mtime: node.mtime,
            mode: node.mode,
            parent,
            ..RawRecord::dir()
        };
        match node.kind {
            NodeKind::Dir => raw.a = self.next[depth + 1].0,
            NodeKind::File => {
                raw.kind = RecordKind::File;
                (raw.a, raw.b, raw.ordinal) = (place.first_block, place.at, place.ordinal);
            }
            NodeKind::Symlink(_) => raw.kind = RecordKind::Symlink,
        }
        self.put(record, &raw);
        RawRecord::add_child(&mut self.out[Head::record_at(parent)..]);
        let target = if let NodeKind::Symlink(target) = node.kind { target } else { &[] };
        let mut at = self.heap_at + usize::try_from(name_at).unwrap_or(usize::MAX);
        for part in [node.name, target] {
            self.out[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        self.newest[depth] = record;
        self.next[depth] = (record + 1, name_at + heap_len(node));
    }

    fn put(&mut self, record: u32, raw: &RawRecord) {
        let at = Head::record_at(record);
        self.out[at..at + RECORD_LEN].copy_from_slice(&raw.encode());
    }
}

/// Where a file's first byte and its packed extent lie.
#[derive(Clone, Copy, Default)]
struct Place {
    first_block: u32,
    at: u32,
    ordinal: u16,
}

/// The places of files in the order of the share, from its blocks in turn.
struct Places<'a> {
    snapshot: &'a Snapshot,
    selection: &'a Selection,
    layout: &'a Layout,
    blocks: Range<u32>,
    /// The block before `blocks`, what is left of its extents, and the ordinal of the first of them.
    number: u32,
    extents: IntoIter<Extent>,
    ordinal: u16,
}

impl<'a> Places<'a> {
    fn new(
        snapshot: &'a Snapshot,
        selection: &'a Selection,
        layout: &'a Layout,
        blocks: Range<u32>,
    ) -> Self {
        let extents = Vec::new().into_iter();
        Self { snapshot, selection, layout, blocks, number: 0, extents, ordinal: 0 }
    }

    /// Files must be asked for in ascending order. A file's first extent gives its first block, its last
    /// the packed place: for a large file the tail, where it has one in a packed block, else 0.
    fn of(&mut self, file: u32) -> Place {
        let mut place = Place::default();
        while let Some((number, ordinal, extent)) = self.next_up_to(file) {
            if extent.file < file {
                continue;
            }
            if extent.offset == 0 {
                place.first_block = number;
            }
            (place.at, place.ordinal) = (extent.at, ordinal);
        }
        place
    }

    fn next_up_to(&mut self, file: u32) -> Option<(u32, u16, Extent)> {
        while self.extents.as_slice().is_empty() {
            self.number = self.blocks.next()?;
            let extents = self.layout.extents_of(self.snapshot, self.selection, self.number);
            (self.extents, self.ordinal) = (extents.into_iter(), 0);
        }
        let extent = *self.extents.as_slice().first().filter(|extent| extent.file <= file)?;
        self.extents.next();
        let ordinal = self.ordinal;
        self.ordinal = ordinal.saturating_add(1);
        Some((self.number, ordinal, extent))
    }
}
