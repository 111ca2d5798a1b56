use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// A reader with a cache of `slots`: every touch is a demand, every miss evicts if it must.
/// Returns how many blocks had to be fetched.
fn fetches(plan: Range<u32>, slots: usize, reads: impl Iterator<Item = (u64, u32)>) -> usize {
    let mut schedule = Schedule::new(plan);
    let mut resident = BTreeSet::new();
    let mut fetched = 0;
    for (handle, block) in reads {
        schedule.touch(handle, block);
        if resident.contains(&block) {
            continue;
        }
        if resident.len() == slots {
            let victim = schedule.outlook().victim(resident.iter().copied()).unwrap().0;
            resident.remove(&victim);
        }
        resident.insert(block);
        fetched += 1;
    }
    fetched
}

#[test]
fn sequential_readers_are_read_ahead() {
    let mut schedule = Schedule::new(0..1000);
    for block in [10, 11, 12] {
        schedule.touch(1, block);
    }
    assert_eq!(schedule.outlook().ahead(100, 3, |_| false), [13, 14, 15]);
    assert_eq!(schedule.outlook().ahead(100, 3, |block| block == 14), [13, 15, 16]);
}

#[test]
fn interleaved_readers_of_one_file_are_told_apart() {
    let mut schedule = Schedule::new(0..10_000);
    for step in 0..4 {
        for stream in [100, 3000, 7000] {
            schedule.touch(1, stream + step);
        }
    }
    let mut ahead = schedule.outlook().ahead(100, 3, |_| false);
    ahead.sort_unstable();
    assert_eq!(ahead, [104, 3004, 7004]);
}

#[test]
fn strided_and_backward_readers_are_recognised() {
    let mut schedule = Schedule::new(0..1000);
    for block in [500, 510, 520] {
        schedule.touch(1, block);
    }
    for block in [90, 89, 88] {
        schedule.touch(2, block);
    }
    let outlook = schedule.outlook();
    assert_eq!(outlook.wanted(550), 3);
    assert_eq!(outlook.wanted(87), 1);
    assert!(outlook.wanted(551) > PLAN);
}

#[test]
fn a_walk_over_many_small_files_is_one_stream() {
    let mut schedule = Schedule::new(0..1000);
    for file in 0..40 {
        schedule.touch(file, 20 + u32::try_from(file / 10).unwrap());
        schedule.forget(file);
    }
    assert_eq!(schedule.outlook().ahead(16, 2, |_| false), [24, 25]);
}

#[test]
fn epochs_over_a_cache_that_is_too_small_keep_a_part() {
    // An LRU would fetch all of both epochs: 200. The best possible is 100 + 51.
    let epochs = (0..2).flat_map(|_| 0..100).map(|block| (1, block));
    let fetched = fetches(0..100, 50, epochs);
    assert!(fetched <= 160, "{fetched}");
}

#[test]
fn the_plan_is_filled_in_order_and_gaps_again() {
    let mut schedule = Schedule::new(5..8);
    assert_eq!(schedule.next_of_plan(|_| false), Some(5));
    assert_eq!(schedule.next_of_plan(|block| block < 7), Some(7));
    assert_eq!(schedule.next_of_plan(|_| true), None);
    schedule.lost(6);
    assert_eq!(schedule.next_of_plan(|block| block != 6), Some(6));
}

proptest! {
    /// Whatever the readers do: no panic, what is ahead lies in the plan and is not had, a victim
    /// is one of those offered and none offered is wanted later.
    #[test]
    fn decisions_are_sound(
        start in 0u32..50,
        len in 1u32..200,
        slots in 1u32..40,
        touches in prop::collection::vec((0u64..6, 0u32..200, any::<bool>()), 0..200),
        had in prop::collection::btree_set(0u32..250, 0..60),
    ) {
        let plan = start..start + len;
        let mut schedule = Schedule::new(plan.clone());
        for (handle, block, close) in touches {
            schedule.touch(handle, start + block % len);
            if close {
                schedule.forget(handle);
            }
        }
        let outlook = schedule.outlook();
        let ahead = outlook.ahead(slots, 8, |block| had.contains(&block));
        prop_assert!(ahead.len() <= 8);
        for block in &ahead {
            prop_assert!(plan.contains(block) && !had.contains(block));
        }
        if let Some((victim, wanted)) = outlook.victim(had.iter().copied()) {
            prop_assert!(had.contains(&victim));
            prop_assert!(had.iter().all(|block| outlook.wanted(*block) <= wanted));
        } else {
            prop_assert!(had.is_empty());
        }
        if let Some(next) = schedule.next_of_plan(|block| had.contains(&block)) {
            prop_assert!(plan.contains(&next) && !had.contains(&next));
        } else {
            let mut rest = plan;
            prop_assert!(rest.all(|block| had.contains(&block)));
        }
    }

    /// One sequential reader never needs more fetches than blocks it reads.
    #[test]
    fn a_sequential_reader_fetches_each_block_once(len in 1u32..300, slots in 4usize..40) {
        prop_assert_eq!(fetches(0..len, slots, (0..len).map(|block| (1, block))), len as usize);
    }
}
