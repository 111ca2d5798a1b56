//! A directory as the home of results, on a real tree.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt as _;

use rustix::fs::removexattr;
use rustix::process::{Uid, geteuid};
use rustix::thread::set_thread_res_uid;
use tempfile::TempDir;
use tidegate_plan::{ContentId, PartHash, RESULT_PART_LEN, SelectionId, SnapshotId};
use tidegate_wire::{Attributes, PartReceipt};

use super::super::file::{Arrival, Provenance};
use super::*;

const LEASE: LeaseId = LeaseId::from_bytes([1; 16]);
const PART: u64 = RESULT_PART_LEN as u64;

fn made() -> Provenance {
    Provenance {
        lease: LEASE,
        snapshot: SnapshotId::from_bytes([2; 32]),
        selection: SelectionId::from_bytes([3; 32]),
        image: None,
    }
}

fn arrival(path: &str, len: u64) -> Arrival {
    Arrival {
        path: path.to_owned(),
        attributes: Attributes { mode: 0o640, mtime_s: 1_700_000_001, mtime_ns: 5 },
        content: ContentId::from_bytes([4; 32]),
        len,
        blake3: [5; 32],
    }
}

/// A part of the upload `id` comes, of whatever length.
fn sent(directory: &Directory, part: u32, bytes: &[u8]) -> PartReceipt {
    let hash = PartHash::of(part, bytes).unwrap();
    directory.part(LEASE, "id", part, hash, bytes).unwrap();
    PartReceipt {
        part,
        len: u32::try_from(bytes.len()).unwrap(),
        hash: hash.0.as_slice().into(),
        tag: String::new(),
        proof: Vec::new().into(),
    }
}

#[test]
fn a_file_that_does_not_say_what_it_is_is_known_by_its_bytes() {
    let home = TempDir::new().unwrap();
    let directory = Directory::open(home.path()).unwrap();
    directory.begin(LEASE, "id").unwrap();
    let parts = [sent(&directory, 0, &vec![7; RESULT_PART_LEN]), sent(&directory, 1, b"tail")];
    let file = arrival("file", PART + 4);
    directory.commit(&made(), "id", &file, &parts).unwrap();
    for name in ["content", "blake3"] {
        // Where there are no extended attributes there is none to take away.
        let _ = removexattr(home.path().join("file"), format!("user.tidegate.{name}"));
    }
    let version = directory.version("file").unwrap();
    assert!(version.is_some());
    assert_eq!(directory.finished(&file, &parts, None).unwrap(), version);
    assert_eq!(directory.finished(&arrival("file", PART + 3), &parts, None).unwrap(), None);
    let [first, last] = parts;
    let other = [first, PartReceipt { hash: vec![9; 32].into(), ..last }];
    assert_eq!(directory.finished(&file, &other, None).unwrap(), None);
    assert_eq!(directory.finished(&file, &other, Some("another")).unwrap(), None);
    let known = directory.finished(&file, &other, version.as_deref()).unwrap();
    assert_eq!(known, version, "its bytes are not looked at");
}

#[test]
fn a_rename_is_of_the_version_that_it_names() {
    let home = TempDir::new().unwrap();
    let directory = Directory::open(home.path()).unwrap();
    let put = |bytes: &[u8]| {
        let file = arrival("tmp", bytes.len() as u64);
        directory.put(&made(), &file, bytes).unwrap()
    };
    let rename = |version: &str| directory.rename("tmp", "best", Some(version), None);
    let first = put(b"1");
    assert_eq!(rename(&first).unwrap().version, first);
    // Its answer was lost, and another file has the old name by now.
    let second = put(b"22");
    assert_eq!(rename(&first).unwrap().version, first);
    assert_eq!(std::fs::read(home.path().join("tmp")).unwrap(), b"22");
    let other = rename("other");
    assert!(matches!(other, Err(HomeError::Changed)), "{other:?}");
    assert_eq!(std::fs::read(home.path().join("best")).unwrap(), b"1");
    assert_eq!(rename(&second).unwrap().version, second);
    assert_eq!(std::fs::read(home.path().join("best")).unwrap(), b"22");
}

#[test]
fn a_read_only_file_can_be_committed_again_by_whoever_is_not_root() {
    let home = TempDir::new().unwrap();
    set_permissions(&home, Permissions::from_mode(0o777)).unwrap();
    let root = home.path().to_owned();
    // Root writes to everything, so this is done by a thread that is nobody.
    let committing = std::thread::spawn(move || {
        if geteuid().is_root() {
            let nobody = Uid::from_raw(65534);
            set_thread_res_uid(nobody, nobody, nobody).unwrap();
        }
        let directory = Directory::open(&root).unwrap();
        directory.begin(LEASE, "id").unwrap();
        let parts = [sent(&directory, 0, b"first"), sent(&directory, 1, b"last")];
        // A commit that broke off before it gave the file its name.
        let unnamed = root.join(format!("{RESERVED}{LEASE}/id"));
        set_permissions(unnamed, Permissions::from_mode(0o444)).unwrap();
        directory.commit(&made(), "id", &arrival("file", PART + 4), &parts).map(drop)
    });
    committing.join().unwrap().unwrap();
    assert_eq!(std::fs::metadata(home.path().join("file")).unwrap().len(), PART + 4);
}

#[test]
fn what_a_commit_that_broke_off_has_cut_off_must_come_again() {
    let home = TempDir::new().unwrap();
    let directory = Directory::open(home.path()).unwrap();
    std::fs::create_dir(home.path().join("taken")).unwrap();
    directory.begin(LEASE, "id").unwrap();
    let parts = [0, 1, 2, 3].map(|part| sent(&directory, part, b"part"));
    let short = directory.commit(&made(), "id", &arrival("taken", 2 * PART), &parts[..2]);
    assert!(matches!(short, Err(HomeError::Occupied)), "{short:?}");
    let file = arrival("file", 3 * PART + 4);
    sent(&directory, 3, b"part");
    let torn = directory.commit(&made(), "id", &file, &parts);
    assert!(matches!(torn, Err(HomeError::Torn)), "{torn:?}");
    sent(&directory, 2, b"part");
    directory.commit(&made(), "id", &file, &parts).unwrap();
}
