use std::fs::Permissions;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;

use tidegate_plan::{LayoutId, LeaseId, SnapshotId};

use super::*;

fn terms(lease: u8) -> LeaseTerms {
    LeaseTerms {
        lease: LeaseId::from_bytes([lease; 16]),
        snapshot: SnapshotId::from_bytes([2; 32]),
        layout: LayoutId::from_bytes([3; 32]),
        rank: 4,
        ranks: 5,
        blocks: 100,
        first_block: 10,
        window_blocks: 10,
        end_block: 30,
        manifest_len: 0,
        bytes: 0,
        files: 0,
        deadline: 0,
        heartbeat: 1,
        grace: 3,
        results: None,
    }
}

const DEMAND: Demand = Demand { blocks: 20, largest: 100_000 };

fn config(dir: &Path, bytes: Option<u64>) -> StoreConfig {
    StoreConfig { dir: dir.to_owned(), bytes }
}

/// A directory on a real disk, so that reservation, direct reads and discard are the real ones.
fn disk() -> tempfile::TempDir {
    tempfile::tempdir_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap()
}

fn fill(slot: &Slot, block: u32, byte: u8) {
    slot.begin().unwrap();
    slot.write_at(0, &[&[byte; 70_000], &[], &[byte; 500]]).unwrap();
    slot.write_at(70_500, &[&[byte; 30]]).unwrap();
    let terms = terms(1);
    slot.finish(terms.lease, terms.layout, block, [byte; HEADER_LEN]).unwrap();
}

#[test]
fn slots_hold_what_is_written_and_go_back() {
    let dir = disk();
    let (store, adopted) = Store::open(&config(dir.path(), None), &terms(1), DEMAND).unwrap();
    assert!(adopted.is_empty());
    assert_eq!((store.slots(), store.free_slots()), (20, 20));
    let mode = std::fs::metadata(store.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let slots: Vec<_> = std::iter::from_fn(|| store.take()).collect();
    assert_eq!(slots.len(), 20);
    for (index, slot) in slots.iter().enumerate() {
        fill(slot, 10, u8::try_from(index).unwrap());
    }
    let mut seen = [0; 70_530];
    for (index, slot) in slots.iter().enumerate() {
        slot.read_at(0, &mut seen).unwrap();
        assert!(seen.iter().all(|byte| usize::from(*byte) == index));
    }
    let past = slots[0].write_at(store.slot_len - PAGE as u64, &[&[1]]);
    assert_eq!(past.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    drop(slots);
    assert_eq!(store.free_slots(), 20);
}

#[test]
fn a_cache_that_nobody_sized_is_at_most_20_gib_and_leaves_some_of_the_disk() {
    assert_eq!(default_bytes(1 << 50), 20 << 30);
    assert_eq!(default_bytes(10 << 30), 9 << 30);
    // As it is reserved: a share of 80 GiB on whatever this disk has free.
    let dir = disk();
    let demand = Demand { blocks: 20_000, largest: 4 << 20 };
    match Store::open(&config(dir.path(), None), &terms(1), demand) {
        Ok((store, _)) => assert!(store.bytes() <= DEFAULT_MOST, "{}", store.bytes()),
        Err(why) => panic!("{why}"),
    }
}

#[test]
fn complete_slots_are_taken_up_again_and_no_others() {
    let dir = disk();
    let config = config(dir.path(), None);
    let (store, _) = Store::open(&config, &terms(1), DEMAND).unwrap();
    assert!(matches!(Store::open(&config, &terms(1), DEMAND), Err(StoreError::InUse(_))));
    let slots: Vec<_> = (0..4).map(|_| store.take().unwrap()).collect();
    fill(&slots[0], 10, 1);
    fill(&slots[1], 29, 2);
    fill(&slots[2], 30, 3); // outside the share
    fill(&slots[3], 12, 4);
    slots[3].begin().unwrap(); // being filled again when the worker died
    drop((slots, store));

    let (store, mut adopted) = Store::open(&config, &terms(1), DEMAND).unwrap();
    adopted.sort_by_key(|found| found.block);
    let found: Vec<_> = adopted.iter().map(|found| (found.block, found.header[0])).collect();
    assert_eq!(found, [(10, 1), (29, 2)]);
    assert_eq!(store.free_slots(), 18);
    let mut seen = [0; 100];
    adopted[1].slot.read_at(70_430, &mut seen).unwrap();
    assert_eq!(seen, [2; 100]);
    drop((adopted, store));

    // Another layout under the same name: nothing is taken up, and the old bytes are overwritten.
    let other = LeaseTerms { layout: LayoutId::from_bytes([8; 32]), ..terms(1) };
    let (store, adopted) = Store::open(&config, &other, DEMAND).unwrap();
    assert!(adopted.is_empty());
    let bytes = std::fs::read(store.path()).unwrap();
    assert!(bytes[PAGE..].iter().all(|byte| *byte == 0));
}

#[test]
fn a_wipe_leaves_nothing_and_says_what_it_did() {
    let dir = disk();
    let (store, _) = Store::open(&config(dir.path(), None), &terms(1), DEMAND).unwrap();
    let slots: Vec<_> = (0..3).map(|_| store.take().unwrap()).collect();
    for slot in &slots {
        fill(slot, 10, 0xee);
    }
    let kept = std::fs::File::open(store.path()).unwrap();
    let path = store.path().to_owned();
    drop(slots);
    let figures = store.wipe();
    let cache_bytes = PAGE as u64 + 3 * store.slot_len;
    assert_eq!(figures.failure, None);
    assert_eq!((figures.reserved_bytes, figures.cache_bytes), (store.bytes(), cache_bytes));
    assert_eq!((figures.overwritten_bytes, figures.read_back_bytes), (cache_bytes, cache_bytes));
    assert_eq!((figures.mismatched_bytes, figures.unlinked), (0, Ok(())));
    assert!(!path.exists());
    let mut left = vec![1; usize::try_from(store.bytes()).unwrap()];
    kept.read_exact_at(&mut left, 0).unwrap();
    assert!(left.iter().all(|byte| *byte == 0));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn bytes_that_come_back_changed_are_counted() {
    let dir = disk();
    let (store, _) = Store::open(&config(dir.path(), None), &terms(1), DEMAND).unwrap();
    let mut figures = WipeFigures::failed(String::new());
    let file = store.file.as_file();
    file.write_all_at(&[1, 2, 0, 3], 5000).unwrap();
    wipe::read_back(file, &[(4096, 4096)], &mut figures).unwrap();
    assert_eq!((figures.read_back_bytes, figures.mismatched_bytes), (4096, 3));
}

#[test]
fn sizes_are_checked_before_anything_is_left_behind() {
    let dir = disk();
    let error = Store::open(&config(dir.path(), Some(100_000)), &terms(1), DEMAND).unwrap_err();
    let StoreError::TooSmall { bytes: 100_000, least } = error else { panic!("{error}") };
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    let (store, _) = Store::open(&config(dir.path(), Some(least)), &terms(1), DEMAND).unwrap();
    assert_eq!(store.slots(), LEAST_SLOTS);
    drop(store);

    let few = Demand { blocks: 1, ..DEMAND };
    let (store, _) = Store::open(&config(dir.path(), Some(least / 3)), &terms(2), few).unwrap();
    assert_eq!(store.slots(), 1);
    let none = Demand { blocks: 0, largest: 0 };
    Store::open(&config(dir.path(), None), &terms(3), none).unwrap();
}

#[test]
fn directories_that_cannot_be_used_are_named() {
    let dir = disk();
    let missing = dir.path().join("missing");
    let error = Store::open(&config(&missing, None), &terms(1), DEMAND).unwrap_err();
    assert!(matches!(error, StoreError::NoDirectory(path) if path == missing));
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = Store::open(&config(&file, None), &terms(1), DEMAND).unwrap_err();
    assert!(matches!(error, StoreError::NoDirectory(_)));
    if !rustix::process::geteuid().is_root() {
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o500)).unwrap();
        let error = Store::open(&config(dir.path(), None), &terms(1), DEMAND).unwrap_err();
        assert!(matches!(error, StoreError::NotAllowed(_)));
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
    }
    let error = Store::open(&config(Path::new("/proc"), None), &terms(1), DEMAND).unwrap_err();
    assert!(matches!(error, StoreError::NoDirectory(_) | StoreError::NotAllowed(_)), "{error}");
}

/// Small and read-only file systems, which only root can mount.
#[test]
fn a_full_or_read_only_disk_is_named() {
    use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
    assert!(rustix::process::geteuid().is_root(), "the tests run as root, as CI does");
    let dir = disk();
    let size = c"size=1m";
    if let Err(why) = mount("tidegate-test", dir.path(), "tmpfs", MountFlags::empty(), size) {
        panic!("a test that cannot mount shows nothing: {why}");
    }
    let full = Store::open(&config(dir.path(), Some(2 << 20)), &terms(1), DEMAND).map(drop);
    let least = Store::open(&config(dir.path(), None), &terms(1), DEMAND).map(|(s, _)| s.slots());
    let left = std::fs::read_dir(dir.path()).unwrap().count();
    mount_remount(dir.path(), MountFlags::RDONLY, size).unwrap();
    let read_only = Store::open(&config(dir.path(), None), &terms(2), DEMAND).map(drop);
    unmount(dir.path(), UnmountFlags::DETACH).unwrap();
    let Err(StoreError::NoSpace { needs, free, .. }) = full else { panic!("{full:?}") };
    assert!(needs > free && free > 0);
    assert!(least.is_ok_and(|slots| (4..10).contains(&slots)), "takes what there is");
    assert_eq!(left, 1, "only the cache that could be made");
    assert!(matches!(read_only, Err(StoreError::ReadOnly(_))), "{read_only:?}");
}
