use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::testing::{everything, file, link, listing, size, snapshot};
use crate::{SelectionSpec, Snapshot};

fn sized(sizes: &[u64]) -> Snapshot {
    let files = sizes.iter().enumerate().map(|(n, size)| file(&format!("d/{n:08}"), *size));
    snapshot(files.collect())
}

fn lay(sizes: &[u64], ranks: u16) -> Layout {
    let taken = sized(sizes);
    Layout::build(&taken, &everything(&taken), ranks).unwrap()
}

/// All that the rules promise of any layout.
fn check(snapshot: &Snapshot, selection: &Selection, layout: &Layout, ranks: u16) {
    let content = |file: u32| snapshot.content_of(selection.files()[file as usize]);
    let n_files = u32::try_from(selection.files().len()).unwrap();
    assert_eq!(layout.ranks(), ranks);

    // Shares tile the files and the blocks, and are even to within one largest file.
    let (mut files, mut blocks, mut bytes) = (0, 0, 0);
    let weights: u64 = (0..n_files).map(|f| content(f) + 1).sum();
    let largest = (0..n_files).map(|f| content(f) + 1).max().unwrap();
    for share in layout.shares() {
        assert_eq!((share.files.start, share.blocks.start), (files, blocks));
        (files, blocks) = (share.files.end, share.blocks.end);
        assert_eq!(share.bytes, share.files.clone().map(content).sum::<u64>());
        bytes += share.bytes;
        let weight = share.bytes + share.files.len() as u64;
        let even = weights / u64::from(ranks);
        assert!(weight <= even + largest + 1 && weight + largest + 1 >= even);
        for number in share.blocks.clone() {
            let inside = layout.extents_of(snapshot, selection, number);
            assert!(inside.iter().all(|extent| share.files.contains(&extent.file)));
        }
    }
    assert_eq!((files, blocks as usize), (n_files, layout.blocks().len()));
    assert_eq!(bytes, selection.bytes());

    // Extents tile the blocks, and their content tiles the files: every byte once.
    let mut all = Vec::new();
    for (number, block) in (0..).zip(layout.blocks()) {
        let inside = layout.extents_of(snapshot, selection, number);
        assert!(!inside.is_empty());
        assert_eq!(inside.len(), block.extents as usize);
        let n_inside = u32::try_from(inside.len()).unwrap();
        let large = content(inside[0].file) > PACK_DATA_MAX.into();
        assert_eq!(block.kind == BlockKind::Whole, large && n_inside == 1);
        let mut at = if block.kind == BlockKind::Whole { 0 } else { n_inside.div_ceil(8) };
        assert!(n_inside <= PACK_EXTENTS_MAX);
        for extent in &inside {
            assert!(extent.len > 0);
            assert_eq!(extent.at, at);
            at += extent.len;
        }
        assert_eq!(block.plain_len, at);
        assert!(block.plain_len <= BLOCK_MAX);
        all.extend(inside);
    }
    let mut extents = all.into_iter().peekable();
    for file in 0..n_files {
        let mut offset = 0;
        while let Some(extent) = extents.next_if(|extent| extent.file == file) {
            assert_eq!(extent.offset, offset);
            offset += u64::from(extent.len);
        }
        assert_eq!(offset, content(file));
    }
    assert_eq!(extents.next(), None);
}

#[test]
fn thresholds() {
    let kinds = |sizes: &[u64]| {
        let layout = lay(sizes, 1);
        layout.blocks().iter().map(|b| (b.kind, b.plain_len)).collect::<Vec<_>>()
    };
    use BlockKind::{Packed, Whole};
    let (cap, max) = (u64::from(PACK_DATA_MAX), u64::from(BLOCK_MAX));
    assert_eq!(kinds(&[0, 0]), []);
    assert_eq!(kinds(&[1]), [(Packed, 2)]);
    assert_eq!(kinds(&[cap]), [(Packed, PACK_DATA_MAX + 1)]);
    assert_eq!(kinds(&[cap, 1]), [(Packed, PACK_DATA_MAX + 1), (Packed, 2)]);
    assert_eq!(kinds(&[cap + 1, 1]), [(Whole, PACK_DATA_MAX + 1), (Packed, 2)]);
    assert_eq!(kinds(&[max]), [(Whole, BLOCK_MAX)]);
    assert_eq!(kinds(&[max + 3]), [(Whole, BLOCK_MAX), (Whole, 3)]);
    assert_eq!(kinds(&[max + 3, 0, 4]), [(Whole, BLOCK_MAX), (Packed, 8)]);
    assert_eq!(kinds(&[5, max + 3]), [(Packed, 6), (Whole, BLOCK_MAX), (Whole, 3)]);
    assert_eq!(
        kinds(&[max + cap + 1, 1]),
        [(Whole, BLOCK_MAX), (Whole, PACK_DATA_MAX + 1), (Packed, 2)]
    );
}

#[test]
fn a_block_takes_no_more_extents_than_a_source_can_give() {
    let sizes = vec![1; PACK_EXTENTS_MAX as usize + 9];
    let layout = lay(&sizes, 1);
    let counts: Vec<_> = layout.blocks().iter().map(|block| block.extents).collect();
    assert_eq!(counts, [PACK_EXTENTS_MAX, 9]);
    assert_eq!(layout.blocks()[0].plain_len, PACK_EXTENTS_MAX / 8 + PACK_EXTENTS_MAX);
    assert_eq!(layout.blocks()[1].plain_len, 2 + 9);
}

#[test]
fn empty_files_spread_over_the_ranks() {
    let layout = lay(&[0; 8], 4);
    let files: Vec<_> = layout.shares().iter().map(|share| share.files.clone()).collect();
    assert_eq!(files, [0..2, 2..4, 4..6, 6..8]);
    assert!(layout.blocks().is_empty());
}

#[test]
fn more_ranks_than_files() {
    let taken = sized(&[10, 10]);
    let layout = Layout::build(&taken, &everything(&taken), 7).unwrap();
    check(&taken, &everything(&taken), &layout, 7);
    assert_eq!(layout.shares().iter().filter(|share| !share.files.is_empty()).count(), 2);
}

#[test]
fn refusals() {
    let taken = sized(&[1]);
    let selection = everything(&taken);
    assert_eq!(Layout::build(&taken, &selection, 0), Err(LayoutError::NoRanks));
    let other = sized(&[2]);
    assert_eq!(Layout::build(&other, &selection, 1), Err(LayoutError::OtherSnapshot));
    for sizes in [vec![u64::MAX], vec![1 << 51], vec![u64::MAX, u64::MAX]] {
        let huge = sized(&sizes);
        assert_eq!(Layout::build(&huge, &everything(&huge), 1), Err(LayoutError::TooLarge));
    }
}

#[test]
fn the_id_is_of_snapshot_selection_and_ranks() {
    let taken = sized(&[1, 2]);
    let base = lay(&[1, 2], 1).id();
    assert_eq!(lay(&[1, 2], 1).id(), base);
    assert_ne!(lay(&[1, 2], 2).id(), base);
    assert_ne!(lay(&[1, 3], 1).id(), base);
    let spec = SelectionSpec { include: vec!["**".into()], ..SelectionSpec::default() };
    let same_files = Selection::resolve(&taken, &spec).unwrap();
    assert_ne!(Layout::build(&taken, &same_files, 1).unwrap().id(), base);
}

#[test]
fn a_million_files() {
    let sizes: Vec<u64> = (0..1_000_000_u64).map(|n| n * 7919 % 5000).collect();
    let taken = sized(&sizes);
    let selection = everything(&taken);
    let layout = Layout::build(&taken, &selection, 8).unwrap();
    check(&taken, &selection, &layout, 8);
}

proptest! {
    #[test]
    fn rules_hold_for_sizes(sizes in vec(size(), 1..60), ranks in 1..9_u16) {
        let taken = sized(&sizes);
        let selection = everything(&taken);
        let layout = Layout::build(&taken, &selection, ranks).unwrap();
        check(&taken, &selection, &layout, ranks);
    }

    #[test]
    fn rules_hold_for_trees(listed in listing(40), ranks in 1..5_u16) {
        let taken = snapshot(listed);
        let selection = everything(&taken);
        let layout = Layout::build(&taken, &selection, ranks).unwrap();
        check(&taken, &selection, &layout, ranks);
    }

    /// A rank's share is the same however often and wherever it is computed, and what lies in it
    /// does not depend on anything after it.
    #[test]
    fn shares_are_stable(sizes in vec(size(), 1..40), ranks in 1..6_u16) {
        let taken = sized(&sizes);
        let layout = Layout::build(&taken, &everything(&taken), ranks).unwrap();
        let read = Snapshot::from_bytes(taken.as_bytes().to_vec()).unwrap();
        prop_assert_eq!(&Layout::build(&read, &everything(&read), ranks).unwrap(), &layout);
        // One rank alone cuts a share's files as the whole lease does.
        for share in layout.shares().iter().filter(|share| !share.files.is_empty()) {
            let alone = lay(&sizes[share.files.start as usize..share.files.end as usize], 1);
            let lens = |blocks: &[Block]| blocks.iter().map(|b| (b.kind, b.plain_len)).collect::<Vec<_>>();
            let within = &layout.blocks()[share.blocks.start as usize..share.blocks.end as usize];
            prop_assert_eq!(lens(alone.blocks()), lens(within));
        }
    }
}

#[test]
fn links_take_no_extent() {
    let taken = snapshot(vec![file("a", 3), link("b", "a"), file("c", 4)]);
    let all = everything(&taken);
    let layout = Layout::build(&taken, &all, 1).unwrap();
    let files: Vec<_> =
        layout.extents_of(&taken, &all, 0).iter().map(|extent| extent.file).collect();
    assert_eq!(files, [0, 2]);
}
