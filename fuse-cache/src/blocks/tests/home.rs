//! Files at home, cut and sealed by the real code, for the gateway of the tests.

use std::collections::HashSet;

use tidegate_plan::{
    BlockKind, Entry, Kind as EntryKind, Layout, LeaseId, Manifest, RelPath, Selection,
    SelectionSpec, Snapshot, Timestamp, Version, bitmap_len, build_manifest,
};
use tidegate_seal::{BlockKey, Context, Kind, LeaseKey, depth, seal_message};
use tidegate_wire::{LeaseTerms, ResultsTerms};

pub(crate) struct Home {
    pub(crate) lease: LeaseId,
    pub(crate) key: LeaseKey,
    pub(crate) layout: Layout,
    pub(crate) snapshot: Snapshot,
    selection: Selection,
    /// Positions of files that changed since the snapshot.
    pub(crate) stale: HashSet<u32>,
    /// Blocks whose keys one release hands out.
    pub(crate) window_blocks: u32,
    pub(crate) results: Option<ResultsTerms>,
    manifest: Vec<u8>,
    sizes: Vec<u64>,
}

impl Home {
    /// Files with these sizes, named so that they keep this order.
    pub(crate) fn new(sizes: &[u64]) -> Self {
        let entry = |(index, size): (usize, &u64)| Entry {
            path: RelPath::new(format!("file-{index:05}").into_bytes()).unwrap(),
            kind: EntryKind::File,
            size: *size,
            mode: 0o644,
            mtime: Timestamp::default(),
            version: Version::Object { etag: index.to_string(), version_id: None },
        };
        let entries = sizes.iter().enumerate().map(entry).collect();
        let snapshot = Snapshot::build("test".into(), entries, Vec::new());
        let selection = Selection::resolve(&snapshot, &SelectionSpec::default()).unwrap();
        let layout = Layout::build(&snapshot, &selection, 1).unwrap();
        Self {
            lease: LeaseId::from_bytes([7; 16]),
            key: LeaseKey::from_bytes([8; 32]),
            manifest: build_manifest(&snapshot, &selection, &layout, 0),
            stale: HashSet::new(),
            window_blocks: 4096,
            results: None,
            sizes: sizes.to_vec(),
            snapshot,
            selection,
            layout,
        }
    }

    pub(crate) fn blocks(&self) -> u32 {
        u32::try_from(self.layout.blocks().len()).unwrap()
    }

    /// What the file holds there.
    pub(crate) fn bytes(&self, file: u32, offset: u64, len: usize) -> Vec<u8> {
        assert!(offset + len as u64 <= self.sizes[file as usize]);
        let byte = |at: u64| {
            let mixed = (at ^ u64::from(file) << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            mixed.to_be_bytes()[1]
        };
        (offset..offset + len as u64).map(byte).collect()
    }

    pub(crate) fn size(&self, file: u32) -> u64 {
        self.sizes[file as usize]
    }

    pub(crate) fn terms(&self) -> LeaseTerms {
        LeaseTerms {
            lease: self.lease,
            snapshot: self.snapshot.id(),
            layout: self.layout.id(),
            rank: 0,
            ranks: 1,
            blocks: self.blocks(),
            first_block: 0,
            end_block: self.blocks(),
            window_blocks: self.window_blocks,
            manifest_len: self.manifest.len() as u64,
            bytes: self.sizes.iter().sum(),
            files: self.sizes.len() as u64,
            deadline: u64::MAX >> 1,
            heartbeat: 1,
            grace: 600,
            results: self.results.clone(),
        }
    }

    /// The manifest in sealed pieces, one behind the other.
    pub(crate) fn sealed_manifest(&self) -> Vec<u8> {
        Manifest::parse(self.manifest.as_slice()).unwrap();
        let pieces: Vec<_> = self.manifest.chunks(4 << 20).collect();
        let key = self.key.manifest_key(0);
        let seal = |(number, piece): (usize, &&[u8])| {
            let context = self.context(Kind::Manifest, number as u64, pieces.len() as u64);
            seal_message(&key, &context, [1; 24], piece)
        };
        pieces.iter().enumerate().flat_map(seal).collect()
    }

    /// A fresh sealing of a block; the salt differs each time.
    pub(crate) fn sealed_block(&self, number: u32, salt: u8) -> Vec<u8> {
        let context = self.context(Kind::Block, number.into(), self.blocks().into());
        seal_message(&self.block_key(number), &context, [salt; 24], &self.plain_block(number))
    }

    fn plain_block(&self, number: u32) -> Vec<u8> {
        let block = self.layout.block(number).unwrap();
        let extents = self.layout.extents_of(&self.snapshot, &self.selection, number);
        let mut plain = vec![0; block.plain_len as usize];
        for (ordinal, extent) in extents.iter().enumerate() {
            if self.stale.contains(&extent.file) {
                continue;
            }
            if block.kind == BlockKind::Packed {
                plain[ordinal / 8] |= 1 << (ordinal % 8);
                assert!(extent.at >= bitmap_len(u32::try_from(extents.len()).unwrap()));
            }
            let at = extent.at as usize;
            let bytes = self.bytes(extent.file, extent.offset, extent.len as usize);
            plain[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        plain
    }

    fn block_key(&self, number: u32) -> BlockKey {
        let blocks = self.blocks();
        self.key.tree_root().cover(depth(blocks), 0..blocks).leaf(number).unwrap()
    }

    fn context(&self, kind: Kind, number: u64, count: u64) -> Context {
        Context { kind, lease: self.lease, layout: self.layout.id(), number, count }
    }
}
