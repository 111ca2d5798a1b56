use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use tidegate_kit::clock::{BootClock, boottime};
use tidegate_plan::SnapshotId;
use tidegate_seal::{LeaseKey, Sealer, depth};

use super::*;

const BLOCKS: u32 = 2000;

pub(crate) fn terms() -> LeaseTerms {
    LeaseTerms {
        lease: LeaseId::from_bytes([1; 16]),
        snapshot: SnapshotId::from_bytes([2; 32]),
        layout: LayoutId::from_bytes([3; 32]),
        rank: 0,
        ranks: 1,
        blocks: BLOCKS,
        first_block: 0,
        end_block: BLOCKS,
        window_blocks: 100,
        manifest_len: 0,
        bytes: 0,
        files: 0,
        deadline: 0,
        heartbeat: 1,
        grace: 3,
        results: None,
    }
}

fn cover(window: Range<u32>) -> Cover {
    LeaseKey::from_bytes([9; 32]).tree_root().cover(depth(BLOCKS), window)
}

fn header(block: u32) -> [u8; HEADER_LEN] {
    let key = cover(block..block + 1).leaf(block).unwrap();
    let terms = terms();
    let context = Context {
        kind: Kind::Block,
        lease: terms.lease,
        layout: terms.layout,
        number: block.into(),
        count: BLOCKS.into(),
    };
    Sealer::new(&key, &context, [5; 24]).header()
}

/// A ring whose life is an hour from now.
fn ring() -> KeyRing {
    let hour = Duration::from_secs(3600);
    KeyRing::new(&terms(), Life::new(BootClock::Real, boottime(), hour, hour))
}

fn later() -> Duration {
    boottime() + Duration::from_secs(3600)
}

fn why(ring: &KeyRing, block: u32) -> Option<KeyError> {
    ring.opener(block, &header(block), 10).err()
}

#[test]
fn openers_are_made_once_and_belong_to_their_block() {
    let ring = ring();
    assert!(!ring.hold(7), "nothing was released");
    ring.open(cover(0..100), later()).unwrap();
    assert_eq!(why(&ring, 7), Some(KeyError::Unreleased), "only a block that is held is opened");
    assert!(ring.hold(7));
    let first = ring.opener(7, &header(7), 10).unwrap();
    assert!(Arc::ptr_eq(&first, &ring.opener(7, &header(7), 10).unwrap()));
    assert_eq!(ring.opener(7, &header(8), 10).err(), Some(KeyError::Foreign));
    assert!(!ring.hold(100));
    ring.open(cover(100..BLOCKS), later()).unwrap();
    assert!(ring.hold(100) && why(&ring, 100).is_none());
}

#[test]
fn a_closed_window_leaves_the_keys_of_held_blocks_only() {
    let ring = ring();
    ring.open(cover(0..100), later()).unwrap();
    assert!(ring.hold(3) && ring.hold(4));
    ring.close(&(0..100));
    assert!(ring.windows().is_empty() && ring.held() == 2);
    assert!(why(&ring, 3).is_none() && why(&ring, 4).is_none());
    assert!(!ring.hold(5));
    ring.let_go(3);
    assert_eq!(why(&ring, 3), Some(KeyError::Unreleased));
    assert!(!ring.hold(3), "it must be asked for again");
    ring.open(cover(0..100), later()).unwrap();
    assert!(ring.hold(3) && why(&ring, 3).is_none());
}

#[test]
fn keys_past_their_time_or_destroyed_open_nothing() {
    let ring = ring();
    ring.open(cover(0..9), boottime()).unwrap();
    assert!(!ring.is_live() && !ring.hold(1));
    let soon = boottime() + Duration::from_millis(200);
    ring.open(cover(0..9), soon).unwrap();
    assert!(ring.hold(1));
    while boottime() < soon {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(why(&ring, 1), Some(KeyError::Over));
    ring.open(cover(0..9), later()).unwrap();
    assert!(ring.is_live() && ring.hold(1) && why(&ring, 1).is_none());
    ring.destroy();
    assert!(!ring.is_live() && !ring.hold(1));
    assert_eq!(why(&ring, 1), Some(KeyError::Over));
    assert_eq!(ring.open(cover(0..9), later()), Err(KeyError::Over));
}

#[test]
fn openers_are_bounded() {
    let ring = ring();
    ring.open(cover(0..BLOCKS), later()).unwrap();
    assert!((0..BLOCKS).all(|block| ring.hold(block)));
    let kept = ring.opener(0, &header(0), 10).unwrap();
    for block in 1..BLOCKS {
        ring.opener(block, &header(block), 10).unwrap();
        let again = ring.opener(0, &header(0), 10).unwrap();
        assert!(Arc::ptr_eq(&kept, &again), "the one in use is not removed");
    }
    assert_eq!(openers(&ring), OPENERS);
    assert_eq!(ring.lock().hand.len(), OPENERS);
}

fn openers(ring: &KeyRing) -> usize {
    ring.lock().held.values().filter(|held| held.opener.is_some()).count()
}

#[derive(Clone, Debug)]
enum Step {
    Open(u32),
    Close(u32),
    Hold(u32),
    LetGo(u32),
    Read(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let window = 0..4_u32;
    let block = 0..40_u32;
    prop_oneof![
        window.clone().prop_map(Step::Open),
        window.prop_map(Step::Close),
        block.clone().prop_map(Step::Hold),
        block.clone().prop_map(Step::LetGo),
        block.prop_map(Step::Read),
    ]
}

proptest! {
    /// Four windows of ten blocks: a key is here exactly when its window is open or its block held.
    #[test]
    fn what_is_kept_is_what_was_asked_for(steps in prop::collection::vec(step(), 0..80)) {
        let ring = ring();
        let (mut open, mut held) = (HashSet::new(), HashSet::new());
        let mut headers = HashMap::new();
        let range = |window: u32| window * 10..window * 10 + 10;
        for step in steps {
            match step {
                Step::Open(window) => {
                    ring.open(cover(range(window)), later()).unwrap();
                    open.insert(window);
                }
                Step::Close(window) => {
                    ring.close(&range(window));
                    open.remove(&window);
                }
                Step::Hold(block) => {
                    let here = held.contains(&block) || open.contains(&(block / 10));
                    prop_assert_eq!(ring.hold(block), here);
                    if here {
                        held.insert(block);
                    }
                }
                Step::LetGo(block) => {
                    ring.let_go(block);
                    held.remove(&block);
                }
                Step::Read(block) => {
                    let header = headers.entry(block).or_insert_with(|| header(block));
                    let opener = ring.opener(block, header, 10);
                    prop_assert_eq!(opener.is_ok(), held.contains(&block));
                }
            }
            prop_assert_eq!((ring.windows().len(), ring.held()), (open.len(), held.len()));
            prop_assert_eq!(ring.lock().hand.len(), openers(&ring));
        }
    }
}

#[test]
fn nothing_opens_once_the_life_is_past_and_a_late_word_brings_nothing_back() {
    let hands = Arc::new(AtomicU64::new(0));
    let clock = BootClock::Hands(Arc::clone(&hands));
    let second = Duration::from_secs(1);
    let ring = KeyRing::new(&terms(), Life::new(clock, Duration::ZERO, 9 * second, 60 * second));
    ring.open(cover(0..9), later()).unwrap();
    assert!(ring.hold(1));
    ring.opener(1, &header(1), 10).unwrap();
    hands.store(9_000_000_000, Ordering::SeqCst);
    assert_eq!(ring.opener(1, &header(1), 10).err(), Some(KeyError::Over), "cached or not");
    assert!(!ring.is_live() && !ring.is_destroyed());
    ring.destroy();
    ring.life().heard(8 * second);
    assert_eq!(ring.opener(1, &header(1), 10).err(), Some(KeyError::Over));
    assert!(ring.is_destroyed());
}
