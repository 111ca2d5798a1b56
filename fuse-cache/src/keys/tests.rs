use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidegate_kit::clock::{BootClock, boottime};
use tidegate_plan::SnapshotId;
use tidegate_seal::{LeaseKey, Sealer, depth};

use super::*;

const BLOCKS: u32 = 2000;

fn terms() -> LeaseTerms {
    LeaseTerms {
        lease: LeaseId::from_bytes([1; 16]),
        snapshot: SnapshotId::from_bytes([2; 32]),
        layout: LayoutId::from_bytes([3; 32]),
        rank: 0,
        ranks: 1,
        blocks: BLOCKS,
        first_block: 0,
        end_block: BLOCKS,
        manifest_len: 0,
        bytes: 0,
        files: 0,
        deadline: 0,
        heartbeat: 1,
        grace: 3,
    }
}

fn cover(window: std::ops::Range<u32>) -> Cover {
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

#[test]
fn openers_are_made_once_and_belong_to_their_block() {
    let ring = ring();
    assert_eq!(ring.opener(7, &header(7), 10).err(), Some(KeyError::Unreleased));
    ring.add(cover(0..100), later()).unwrap();
    let first = ring.opener(7, &header(7), 10).unwrap();
    assert!(Arc::ptr_eq(&first, &ring.opener(7, &header(7), 10).unwrap()));
    assert_eq!(ring.opener(7, &header(8), 10).err(), Some(KeyError::Foreign));
    assert_eq!(ring.opener(100, &header(100), 10).err(), Some(KeyError::Unreleased));
    ring.add(cover(100..BLOCKS), later()).unwrap();
    assert!(ring.opener(100, &header(100), 10).is_ok());
}

#[test]
fn keys_past_their_time_or_destroyed_open_nothing() {
    let ring = ring();
    ring.add(cover(0..9), boottime()).unwrap();
    assert!(!ring.is_live());
    assert_eq!(ring.opener(1, &header(1), 10).err(), Some(KeyError::Over));
    ring.add(cover(0..9), later()).unwrap();
    assert!(ring.is_live() && ring.opener(1, &header(1), 10).is_ok());
    ring.destroy();
    assert!(!ring.is_live());
    assert_eq!(ring.opener(1, &header(1), 10).err(), Some(KeyError::Over));
    assert_eq!(ring.add(cover(0..9), later()), Err(KeyError::Over));
}

#[test]
fn openers_are_bounded() {
    let ring = ring();
    ring.add(cover(0..BLOCKS), later()).unwrap();
    let kept = ring.opener(0, &header(0), 10).unwrap();
    for block in 1..BLOCKS {
        ring.opener(block, &header(block), 10).unwrap();
        let again = ring.opener(0, &header(0), 10).unwrap();
        assert!(Arc::ptr_eq(&kept, &again), "the one in use is not removed");
    }
    assert_eq!(ring.lock().openers.by_block.len(), OPENERS);
}

#[test]
fn nothing_opens_once_the_life_is_past_and_a_late_word_brings_nothing_back() {
    let hands = Arc::new(AtomicU64::new(0));
    let clock = BootClock::Hands(Arc::clone(&hands));
    let second = Duration::from_secs(1);
    let ring = KeyRing::new(&terms(), Life::new(clock, Duration::ZERO, 9 * second, 60 * second));
    ring.add(cover(0..9), later()).unwrap();
    ring.opener(1, &header(1), 10).unwrap();
    hands.store(9_000_000_000, Ordering::SeqCst);
    assert_eq!(ring.opener(1, &header(1), 10).err(), Some(KeyError::Over), "cached or not");
    assert!(!ring.is_live() && !ring.is_destroyed());
    ring.destroy();
    ring.life().heard(8 * second);
    assert_eq!(ring.opener(1, &header(1), 10).err(), Some(KeyError::Over));
    assert!(ring.is_destroyed());
}
