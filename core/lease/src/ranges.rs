//! Half-open ranges of block numbers, kept sorted, apart and merged.

/// Adds `first..end`; an empty range adds nothing.
pub(crate) fn insert(ranges: &mut Vec<(u32, u32)>, first: u32, end: u32) {
    if first >= end {
        return;
    }
    // All that overlap or touch the new one.
    let from = ranges.partition_point(|range| range.1 < first);
    let to = ranges.partition_point(|range| range.0 <= end);
    let touched = &ranges[from..to];
    let merged = (
        touched.first().map_or(first, |range| range.0.min(first)),
        touched.last().map_or(end, |range| range.1.max(end)),
    );
    ranges.splice(from..to, [merged]);
}

/// Numbers in all ranges.
pub(crate) fn len(ranges: &[(u32, u32)]) -> u64 {
    ranges.iter().map(|(first, end)| u64::from(end - first)).sum()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn same_as_a_set(added in prop::collection::vec((0..40_u32, 0..40_u32), 0..30)) {
            let (mut ranges, mut set) = (Vec::new(), BTreeSet::new());
            for (first, end) in added {
                insert(&mut ranges, first, end);
                set.extend(first..end);
            }
            let listed: Vec<u32> = ranges.iter().flat_map(|(first, end)| *first..*end).collect();
            prop_assert!(listed.iter().eq(&set));
            prop_assert_eq!(len(&ranges), set.len() as u64);
            prop_assert!(ranges.windows(2).all(|pair| pair[0].1 < pair[1].0));
        }
    }
}
