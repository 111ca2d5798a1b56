use std::collections::BTreeMap;

use proptest::prelude::*;

use super::record::{HEAD_LEN, RECORD_LEN};
use super::*;
use crate::layout::{BLOCK_MAX, BlockKind, PACK_DATA_MAX};
use crate::testing::{dir, everything, file, link, listing, snapshot};
use crate::{Entry, Estimate, Kind, Layout, Selection, SelectionSpec, Snapshot};

struct Plan {
    snapshot: Snapshot,
    selection: Selection,
    layout: Layout,
}

impl Plan {
    fn new(listed: Vec<Entry>, ranks: u16) -> Self {
        let snapshot = snapshot(listed);
        let selection = everything(&snapshot);
        let layout = Layout::build(&snapshot, &selection, ranks).unwrap();
        Self { snapshot, selection, layout }
    }

    fn bytes(&self, rank: u16) -> Vec<u8> {
        build_manifest(&self.snapshot, &self.selection, &self.layout, rank)
    }

    fn manifest(&self, rank: u16) -> Manifest<Vec<u8>> {
        Manifest::parse(self.bytes(rank)).unwrap()
    }

    fn entry(&self, file: u32) -> Entry {
        self.snapshot.get(self.selection.files()[file as usize]).unwrap()
    }

    /// The manifest says of every record, name and byte what snapshot and layout say.
    fn check(&self, rank: u16) {
        let manifest = self.manifest(rank);
        let share = &self.layout.shares()[usize::from(rank)];
        assert_eq!(manifest.rank(), rank);
        assert_eq!(manifest.layout(), self.layout.id());
        assert_eq!(manifest.blocks(), share.blocks);
        assert_eq!(manifest.total_bytes(), share.bytes);
        for number in share.blocks.clone() {
            let block = self.layout.block(number).unwrap();
            let info = manifest.block(number).unwrap();
            assert_eq!(info.plain_len, block.plain_len);
            assert_eq!(info.packed, block.kind == BlockKind::Packed);
            assert_eq!(info.extents, block.extents);
        }
        assert_eq!(manifest.block(share.blocks.end), None);
        assert_eq!(share.blocks.start.checked_sub(1).and_then(|n| manifest.block(n)), None);

        let by_path: BTreeMap<Vec<u8>, u32> =
            (0..manifest.len()).map(|i| (manifest.path(i), i)).collect();
        assert_eq!(by_path.len(), manifest.len() as usize, "a path came twice");
        let mut expected: Vec<Vec<u8>> = vec![Vec::new()];
        for position in share.files.clone() {
            let entry = self.entry(position);
            expected.push(entry.path.as_bytes().to_vec());
            expected.extend(entry.path.ancestors_longer_than(0).map(|dir| dir.as_bytes().to_vec()));
            let i = by_path[entry.path.as_bytes()];
            let record = manifest.record(i);
            assert_eq!(record.name, entry.path.name());
            assert_eq!((record.size, record.mode), (entry.size, entry.mode));
            assert_eq!(record.mtime, entry.mtime);
            match &entry.kind {
                Kind::Symlink(target) => assert_eq!(manifest.link_target(i), Some(&target[..])),
                _ => assert_eq!(manifest.link_target(i), None),
            }
            self.check_places(&manifest, i, position);
        }
        if self.layout.ranks() == 1 {
            let dirs = self.selection.dirs().iter();
            let path = |at: &u32| self.snapshot.get(*at).unwrap().path.as_bytes().to_vec();
            expected.extend(dirs.map(path));
        }
        expected.sort_unstable();
        expected.dedup();
        assert!(by_path.keys().eq(&expected), "names of the share, and no others");
        check_walk(&manifest);

        let estimate = Estimate::of_share(&self.snapshot, &self.selection, &self.layout, rank);
        assert_eq!(estimate.manifest_bytes, self.bytes(rank).len() as u64);
        assert_eq!(estimate.files, manifest.files());
        let all = u64::from(manifest.len()) - 1;
        assert_eq!(estimate.dirs + estimate.files + estimate.symlinks, all);
        let per_name = |path: &Vec<u8>| path.rsplit(|b| *b == b'/').next().unwrap().len();
        let names: usize = by_path.keys().map(per_name).sum();
        let links: u64 = (0..manifest.len())
            .filter_map(|i| manifest.link_target(i))
            .map(|t| t.len() as u64)
            .sum();
        let fixed = self.bytes(rank).len() as u64 - names as u64 - links;
        assert_eq!(fixed, 88 + 48 * u64::from(manifest.len()) + 8 * share.blocks.len() as u64);
    }

    fn check_places(&self, manifest: &Manifest<Vec<u8>>, i: u32, position: u32) {
        let entry = self.entry(position);
        let size = if entry.is_file() { entry.size } else { 0 };
        assert_eq!(manifest.locate(i, size), None);
        assert_eq!(manifest.locate(i, u64::MAX), None);
        let mut covered = 0;
        let share = self.layout.shares().iter().find(|s| s.files.contains(&position)).unwrap();
        for number in share.blocks.clone() {
            for (ordinal, extent) in
                (0_u16..).zip(self.layout.extents_of(&self.snapshot, &self.selection, number))
            {
                if extent.file != position {
                    continue;
                }
                for inside in [0, 1, extent.len / 2, extent.len - 1] {
                    if inside < extent.len {
                        let piece = Piece {
                            block: number,
                            at: extent.at + inside,
                            len: extent.len - inside,
                            ordinal,
                            extent_at: extent.at,
                        };
                        let offset = extent.offset + u64::from(inside);
                        assert_eq!(manifest.locate(i, offset), Some(piece));
                    }
                }
                covered += u64::from(extent.len);
            }
        }
        assert_eq!(covered, size);
    }
}

/// Uses every accessor on every record, as a mount would.
fn check_walk(manifest: &Manifest<Vec<u8>>) {
    for i in 0..manifest.len() {
        let record = manifest.record(i);
        for child in manifest.children(i) {
            assert_eq!(manifest.record(child).parent, i);
            assert_eq!(manifest.lookup(i, manifest.record(child).name), Some(child));
        }
        assert_eq!(manifest.lookup(i, b"no such name"), None);
        let _ = (manifest.path(i), manifest.link_target(i));
        let mut offset = 0;
        while let Some(piece) = manifest.locate(i, offset) {
            let block = manifest.block(piece.block).unwrap();
            assert!(piece.len > 0 && piece.at + piece.len <= block.plain_len);
            assert!(u32::from(piece.ordinal) < block.extents);
            offset += u64::from(piece.len);
        }
        assert_eq!(offset, if record.kind == RecordKind::File { record.size } else { 0 });
    }
    let outside = manifest.len();
    assert_eq!(manifest.get(outside), None);
    assert_eq!(manifest.children(outside), 0..0);
    assert_eq!(manifest.lookup(outside, b"a"), None);
    assert_eq!(manifest.locate(outside, 0), None);
    assert_eq!(manifest.link_target(outside), None);
}

#[test]
fn a_small_tree() {
    let plan = Plan::new(
        vec![
            file("b/y", 10),
            file("b/x", u64::from(BLOCK_MAX) + 5),
            link("a", "b/x"),
            dir("c/d"),
            file("z", 0),
        ],
        1,
    );
    plan.check(0);
    let manifest = plan.manifest(0);
    let names: Vec<_> = (0..manifest.len()).map(|i| manifest.path(i)).collect();
    assert_eq!(names, [&b""[..], b"a", b"b", b"c", b"z", b"b/x", b"b/y", b"c/d"]);
    assert_eq!(manifest.record(0).kind, RecordKind::Dir);
    assert_eq!(manifest.children(0), 1..5);
    assert_eq!(manifest.files(), 3);
}

#[test]
fn a_rank_sees_its_own_names_only() {
    let plan = Plan::new(vec![file("a/x", 10), file("b/y", 10), dir("c")], 2);
    let names = |rank| {
        let manifest = plan.manifest(rank);
        (0..manifest.len()).map(|i| manifest.path(i)).collect::<Vec<_>>()
    };
    assert_eq!(names(0), [&b""[..], b"a", b"a/x"]);
    assert_eq!(names(1), [&b""[..], b"b", b"b/y"]);
    assert_eq!(names(7), [b""]);
}

#[test]
fn ten_thousand_files_stay_within_64_bytes_each() {
    // The worst small case: every file opens a block of its own.
    let each = u64::from(PACK_DATA_MAX);
    let plan = Plan::new((0..10_000).map(|n| file(&format!("{n:05}"), each)).collect(), 1);
    let len = plan.bytes(0).len();
    assert!(len <= 10_000 * (64 + 5));
    assert!((len - HEAD_LEN) / (RECORD_LEN + 8 + 5) <= 10_001);
}

#[test]
fn a_million_files_in_deep_and_flat_directories() {
    let flat = (0..700_000).map(|n| file(&format!("flat/{n:07}"), n % 3000));
    let deep = (0..300_000).map(|n| file(&format!("deep/{}/{}/{n}", n % 97, n % 1009), n % 9000));
    let plan = Plan::new(flat.chain(deep).collect(), 3);
    for rank in 0..3 {
        let manifest = plan.manifest(rank);
        let share = &plan.layout.shares()[usize::from(rank)];
        assert_eq!(manifest.files(), share.files.len() as u64);
        let last = plan.entry(share.files.end - 1).path.clone();
        let found = last.components().try_fold(0, |dir, name| manifest.lookup(dir, name));
        assert_eq!(manifest.path(found.unwrap()), last.as_bytes());
    }
}

/// Many records that claim the same run of full blocks must not make parsing quadratic.
#[test]
fn records_that_share_blocks_are_refused() {
    let size = 4 * u64::from(BLOCK_MAX);
    let plan = Plan::new((0..4).map(|n| file(&format!("{n}"), size)).collect(), 1);
    let mut bytes = plan.bytes(0);
    let size_of = |i: usize| HEAD_LEN + i * RECORD_LEN + 8;
    for i in 1..=4 {
        bytes[size_of(i)..size_of(i) + 8].copy_from_slice(&(2 * size).to_le_bytes());
    }
    assert!(Manifest::parse(bytes).is_err());
}

#[test]
fn estimates_of_a_lease() {
    let listed = vec![file("a/x", 10), file("b/y", 20_000), link("b/l", "y"), dir("c")];
    let plan = Plan::new(listed, 2);
    let sum = Estimate::of_lease(&plan.snapshot, &plan.selection, &plan.layout);
    let manifests = plan.bytes(0).len() + plan.bytes(1).len();
    assert_eq!((sum.files, sum.symlinks, sum.dirs, sum.bytes), (2, 1, 3, 20_010));
    assert_eq!(sum.manifest_bytes, manifests as u64);
    let sealed: u64 =
        plan.layout.blocks().iter().map(|b| crate::sealed_len(b.plain_len.into())).sum();
    assert_eq!((sum.blocks, sum.sealed_bytes), (plan.layout.blocks().len() as u64, sealed));
    assert_eq!(crate::sealed_len(0), 56 + 16);
    assert_eq!(crate::sealed_len(16_384), 56 + 16_384 + 32);
    assert_eq!(crate::sealed_len(4 << 20), 4_198_472);
}

#[test]
fn a_part_of_the_snapshot() {
    let snapshot = snapshot(vec![file("a/x", 10), file("a/y", 10), file("b/y", 10), dir("e")]);
    let spec = SelectionSpec { include: vec!["*/y".into()], ..SelectionSpec::default() };
    let selection = Selection::resolve(&snapshot, &spec).unwrap();
    let layout = Layout::build(&snapshot, &selection, 1).unwrap();
    let plan = Plan { snapshot, selection, layout };
    plan.check(0);
    assert_eq!(plan.manifest(0).len(), 5);
}

proptest! {
    #[test]
    fn manifest_agrees_with_layout(listed in listing(40), ranks in 1..5_u16) {
        let plan = Plan::new(listed, ranks);
        for rank in 0..ranks {
            plan.check(rank);
        }
    }

    #[test]
    fn changed_bytes_never_panic(
        listed in listing(12),
        ranks in 1..3_u16,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        cut in any::<prop::sample::Index>(),
    ) {
        let original = Plan::new(listed, ranks).bytes(0);
        let mut bytes = original.clone();
        for (at, value) in changes {
            // Most of the changes fall on the fixed part, where the structure is.
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(manifest) = Manifest::parse(bytes) {
            check_walk(&manifest);
        }
        let cut = cut.index(original.len());
        prop_assert!(Manifest::parse(&original[..cut]).is_err());
        let mut longer = original;
        longer.push(0);
        prop_assert!(Manifest::parse(longer).is_err());
    }

    #[test]
    fn changed_integers_never_panic(
        listed in listing(12),
        at in any::<prop::sample::Index>(),
        value in prop_oneof![0..8_u32, Just(BLOCK_MAX), Just(u32::MAX), Just(PACK_DATA_MAX), any::<u32>()],
    ) {
        let mut bytes = Plan::new(listed, 1).bytes(0);
        let at = 4 * at.index(bytes.len() / 4);
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        if let Ok(manifest) = Manifest::parse(bytes) {
            check_walk(&manifest);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(tail in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Manifest::parse(tail.clone()).is_err());
        let mut bytes = b"tgmanif1\x02\0".to_vec();
        bytes.extend(tail);
        if let Ok(manifest) = Manifest::parse(bytes) {
            check_walk(&manifest);
        }
    }
}
