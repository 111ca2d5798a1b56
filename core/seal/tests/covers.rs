//! Covers: minimal, exact, and the same leaves as the root's.

use proptest::prelude::*;
use std::ops::Range;
use tidegate_seal::{Cover, LeaseKey, NodeKey, depth};

fn root() -> NodeKey {
    LeaseKey::from_bytes([5; 32]).tree_root()
}

fn leaf(cover: &Cover, block: u32) -> [u8; 32] {
    *cover.leaf(block).expect("within the range").expose()
}

/// The fewest subtrees that hold exactly a range, by trying every subtree from the top.
fn fewest(range: &Range<u64>, first: u64, height: u8) -> usize {
    let end = first + (1 << height);
    if range.end <= first || end <= range.start {
        0
    } else if range.start <= first && end <= range.end {
        1
    } else {
        let half = first + (1 << (height - 1));
        fewest(range, first, height - 1) + fewest(range, half, height - 1)
    }
}

fn tree_and_range() -> impl Strategy<Value = (u32, Range<u32>)> {
    let blocks = prop_oneof![1..40_u32, 1..100_000_u32, Just(u32::MAX)];
    blocks.prop_flat_map(|blocks| {
        (0..blocks, 0..=blocks).prop_map(move |(a, b)| (blocks, a.min(b)..a.max(b)))
    })
}

#[test]
fn depth_is_the_logarithm_rounded_up() {
    let cases =
        [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (1024, 10), (1025, 11), (1 << 31, 31)];
    for (blocks, expected) in cases {
        assert_eq!(depth(blocks), expected, "{blocks} blocks");
    }
    assert_eq!(depth(u32::MAX), 32);
}

/// Every range of every tree of up to 17 blocks.
#[test]
fn small_trees_exhaustively() {
    let root = root();
    for blocks in 1..=17 {
        let depth = depth(blocks);
        let whole = root.cover(depth, 0..blocks);
        let all: Vec<_> = (0..blocks).map(|block| leaf(&whole, block)).collect();
        for start in 0..blocks {
            for end in start..=blocks {
                let cover = root.cover(depth, start..end);
                assert_eq!(cover.range(), start..end);
                for block in 0..blocks + 3 {
                    let inside = (start..end).contains(&block);
                    assert_eq!(cover.leaf(block).is_some(), inside);
                    if inside {
                        assert_eq!(leaf(&cover, block), all[block as usize]);
                    }
                }
                let leaves: Vec<_> =
                    cover.leaves().map(|(block, key)| (block, *key.expose())).collect();
                let expected: Vec<_> = (start..end).map(|b| (b, all[b as usize])).collect();
                assert_eq!(leaves, expected);
            }
        }
    }
}

#[test]
fn keys_of_different_blocks_differ() {
    let cover = root().cover(10, 0..1024);
    let keys: std::collections::BTreeSet<_> =
        cover.leaves().map(|(_, key)| *key.expose()).collect();
    assert_eq!(keys.len(), 1024);
}

#[test]
fn a_range_past_the_tree_is_cut() {
    let root = root();
    assert_eq!(root.cover(2, 1..9).range(), 1..4);
    assert_eq!(root.cover(2, 7..9).range(), 4..4);
    assert!(root.cover(2, 7..9).leaf(4).is_none());
    #[allow(clippy::reversed_empty_ranges, reason = "what a hostile caller may pass")]
    let reversed = root.cover(3, 6..2);
    assert_eq!((reversed.range().len(), reversed.nodes()), (0, 0));
}

#[test]
fn a_cover_never_prints_its_keys() {
    let cover = root().cover(4, 3..9);
    assert_eq!(format!("{cover:?}"), "Cover(3..9, 3 nodes)");
    assert_eq!(format!("{:?}", cover.leaf(3).unwrap()), "BlockKey(Secret32(..))");
}

proptest! {
    #[test]
    fn covers_are_minimal_and_exact((blocks, range) in tree_and_range(), probe: u32) {
        let (depth, root) = (depth(blocks), root());
        let cover = root.cover(depth, range.clone());
        let wide = u64::from(range.start)..u64::from(range.end);
        prop_assert_eq!(cover.nodes(), fewest(&wide, 0, depth));
        prop_assert!(cover.nodes() <= (2 * usize::from(depth)).max(1));
        let whole = root.cover(depth, 0..blocks);
        if !range.is_empty() {
            let inside = range.start + probe % (range.end - range.start);
            for block in [range.start, inside, range.end - 1] {
                prop_assert_eq!(leaf(&cover, block), leaf(&whole, block));
            }
        }
        prop_assert!(cover.leaf(range.end).is_none());
        prop_assert!(range.start == 0 || cover.leaf(range.start - 1).is_none());
        prop_assert_eq!(cover.leaf(probe).is_some(), range.contains(&probe));
    }

    #[test]
    fn encoded_covers_come_back((blocks, range) in tree_and_range()) {
        let cover = root().cover(depth(blocks), range.start..range.end);
        let bytes = cover.to_bytes();
        let again = Cover::from_bytes(&bytes).unwrap();
        prop_assert_eq!(again.range(), range.start..range.end);
        prop_assert_eq!(&*again.to_bytes(), &*bytes);
        if !range.is_empty() {
            prop_assert_eq!(leaf(&again, range.start), leaf(&cover, range.start));
        }
        prop_assert!(Cover::from_bytes(&bytes[..bytes.len() - 1]).is_err());
        prop_assert!(Cover::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
    }

    /// Arbitrary bytes decode or do not; what decodes is exactly what encodes.
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(cover) = Cover::from_bytes(&bytes) {
            prop_assert_eq!(&*cover.to_bytes(), &bytes);
        }
    }

    /// The same with a head that is nearly right, so that the inner checks are reached.
    #[test]
    fn nearly_covers_never_panic(
        depth in 0..40_u8, start: u32, end: u32, keys in prop::collection::vec(any::<u8>(), 0..2200)
    ) {
        let head = [&[1, depth][..], &start.to_be_bytes(), &end.to_be_bytes()].concat();
        let bytes = [head, keys].concat();
        if let Ok(cover) = Cover::from_bytes(&bytes) {
            prop_assert_eq!(&*cover.to_bytes(), &bytes);
            prop_assert!(cover.leaf(end).is_none());
        }
    }
}
