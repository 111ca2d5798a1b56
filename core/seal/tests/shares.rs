//! What one rank is handed opens nothing of another's.

use proptest::prelude::*;
use tidegate_plan::{LayoutId, LeaseId};
use tidegate_seal::{BlockKey, Context, Kind, LeaseKey, depth, open_message, seal_message};

fn context(kind: Kind, number: u64, count: u64) -> Context {
    let (lease, layout) = (LeaseId::from_bytes([1; 16]), LayoutId::from_bytes([2; 32]));
    Context { kind, lease, layout, number, count }
}

proptest! {
    /// Two shares that meet anywhere: neither's cover and manifest key open a block or a manifest of
    /// the other, wherever they are said to lie.
    #[test]
    fn keys_end_at_the_share(
        key: [u8; 32], blocks in 2..40_u32, cut: u32, nth: u32, windows in 1..9_u32,
    ) {
        let cut = 1 + cut % (blocks - 1);
        let lease_key = LeaseKey::from_bytes(key);
        let root = lease_key.tree_root();
        let shares = [0..cut, cut..blocks];
        for (rank, other) in [(0_usize, 1_usize), (1, 0)] {
            let (mine, theirs) = (&shares[rank], &shares[other]);
            // Handed out window by window, as they are.
            let width = windows as usize;
            let covers = mine.clone().step_by(width).map(|first| {
                root.cover(depth(blocks), first..first.saturating_add(windows).min(mine.end))
            });
            let covers: Vec<_> = covers.collect();
            let manifest_key = |rank: usize| lease_key.manifest_key(u16::try_from(rank).unwrap());
            let keys: Vec<BlockKey> = covers
                .iter()
                .flat_map(|cover| cover.leaves().map(|(_, key)| key))
                .chain([manifest_key(rank)])
                .collect();
            prop_assert_eq!(keys.len(), mine.len() + 1);

            let block = theirs.start + nth % (theirs.end - theirs.start);
            prop_assert!(covers.iter().all(|cover| cover.leaf(block).is_none()));
            let leaf = root.cover(depth(blocks), block..block + 1).leaf(block).unwrap();
            let place = context(Kind::Block, block.into(), blocks.into());
            let names = context(Kind::Manifest, 0, 1);
            let sealed = [
                (seal_message(&leaf, &place, [3; 24], b"their bytes"), place),
                (seal_message(&manifest_key(other), &names, [4; 24], b"their names"), names),
            ];
            for (bytes, place) in &sealed {
                prop_assert!(keys.iter().all(|key| open_message(key, place, bytes).is_err()));
            }
            prop_assert!(open_message(&leaf, &sealed[0].1, &sealed[0].0).is_ok());
            prop_assert!(open_message(&manifest_key(other), &sealed[1].1, &sealed[1].0).is_ok());
        }
    }
}
