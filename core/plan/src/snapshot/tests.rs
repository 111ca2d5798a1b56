use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::testing::{dir, file, link, listing, path, snapshot};

fn names(snapshot: &Snapshot) -> Vec<String> {
    snapshot.entries().iter().map(|entry| entry.path.to_string()).collect()
}

#[test]
fn adds_implied_directories_and_sorts() {
    let taken = snapshot(vec![file("b/c/d", 1), file("a!", 1), file("a/x", 2)]);
    assert_eq!(names(&taken), ["a", "a/x", "a!", "b", "b/c", "b/c/d"]);
    assert!(taken.entries()[4].is_dir());
    assert_eq!(taken.entries()[4].mtime, Timestamp::default());
    assert!(taken.unshown().is_empty());
}

#[test]
fn a_directory_wins_over_a_file_of_its_name() {
    for listed in [
        vec![file("a", 1), file("a/b", 2)],
        vec![file("a", 1), dir("a"), file("a/b", 2)],
        vec![file("a", 1), dir("a"), dir("a"), link("a", "t"), file("a/b", 2), file("a/b", 3)],
    ] {
        let extra = listed.len() - 2;
        let taken = snapshot(listed);
        assert_eq!(names(&taken), ["a", "a/b"]);
        assert!(taken.entries()[0].is_dir());
        assert_eq!(taken.entries()[1].size, 2);
        let left_out = taken.unshown();
        assert_eq!(left_out[0].name.as_ref(), b"a");
        assert_eq!(left_out[0].reason, "a directory has the same name");
        assert_eq!(left_out.len(), if extra > 1 { 3 } else { 1 });
    }
}

#[test]
fn an_explicit_directory_keeps_its_attributes() {
    let mut listed = dir("a");
    listed.mode = 0o700;
    let taken = snapshot(vec![file("a/b", 2), listed.clone()]);
    assert_eq!(taken.entries()[0], listed);
}

#[test]
fn every_field_counts_for_the_id() {
    let base = || (String::from("s"), vec![file("a", 1)], Vec::<Unshown>::new());
    let id = |(source, entries, unshown)| Snapshot::build(source, entries, unshown).id();
    let mut ids = BTreeSet::from([id(base())]);
    let mut distinct = |change: &dyn Fn(&mut String, &mut Entry, &mut Vec<Unshown>)| {
        let (mut source, mut entries, mut unshown) = base();
        change(&mut source, &mut entries[0], &mut unshown);
        assert!(ids.insert(id((source, entries, unshown))), "an id came twice");
    };
    let object = |etag: &str, version_id: Option<&str>| Version::Object {
        etag: etag.into(),
        version_id: version_id.map(Into::into),
    };
    let inode =
        |dev, ino, secs, nanos| Version::Inode { dev, ino, ctime: Timestamp { secs, nanos } };
    distinct(&|source, _, _| source.push('t'));
    distinct(&|_, entry, _| entry.path = path("b"));
    distinct(&|_, entry, _| entry.size = 2);
    distinct(&|_, entry, _| entry.mode = 0o600);
    distinct(&|_, entry, _| entry.mtime.secs += 1);
    distinct(&|_, entry, _| entry.mtime.nanos += 1);
    distinct(&|_, entry, _| entry.kind = Kind::Symlink(b"x".as_slice().into()));
    distinct(&|_, entry, _| entry.kind = Kind::Dir);
    distinct(&|_, entry, _| entry.version = Version::None);
    distinct(&|_, entry, _| entry.version = inode(2, 1, 7, 8));
    distinct(&|_, entry, _| entry.version = inode(1, 2, 7, 8));
    distinct(&|_, entry, _| entry.version = inode(1, 1, 8, 8));
    distinct(&|_, entry, _| entry.version = inode(1, 1, 7, 9));
    distinct(&|_, entry, _| entry.version = object("", None));
    distinct(&|_, entry, _| entry.version = object("", Some("")));
    distinct(&|_, entry, _| entry.version = object("e", None));
    distinct(&|_, entry, _| entry.version = object("", Some("e")));
    let left_out =
        |name: &str, reason: &str| Unshown { name: name.as_bytes().into(), reason: reason.into() };
    distinct(&|_, _, unshown| unshown.push(left_out("", "")));
    distinct(&|_, _, unshown| unshown.push(left_out("a//b", "")));
    distinct(&|_, _, unshown| unshown.push(left_out("", "a//b")));
}

#[test]
fn the_id_is_the_digest_of_the_bytes() {
    let taken = snapshot(vec![file("a", 1)]);
    let digest = blake3::derive_key("tidegate/v1 snapshot", &taken.to_bytes());
    assert_eq!(taken.id().as_bytes(), &digest);
}

#[test]
fn refuses_counts_that_the_bytes_cannot_hold() {
    let mut bytes = snapshot(vec![file("a", 1)]).to_bytes();
    let count_at = 16 + 4 + "test".len();
    bytes[count_at..count_at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(Snapshot::from_bytes(&bytes).is_err());
}

proptest! {
    #[test]
    fn canonical_bytes_round_trip(listed in listing(40)) {
        let taken = snapshot(listed);
        let again = Snapshot::from_bytes(&taken.to_bytes()).unwrap();
        prop_assert_eq!(&again, &taken);
        prop_assert_eq!(again.to_bytes(), taken.to_bytes());
    }

    #[test]
    fn the_listing_order_of_distinct_names_is_of_no_account(listed in listing(20), seed in any::<u64>()) {
        let mut distinct = snapshot(listed).entries().to_vec();
        let taken = snapshot(distinct.clone());
        let turn = usize::try_from(seed % distinct.len() as u64).unwrap();
        distinct.rotate_left(turn);
        distinct.reverse();
        prop_assert_eq!(snapshot(distinct).id(), taken.id());
    }

    #[test]
    fn nothing_listed_disappears(listed in listing(40)) {
        let n_named: BTreeSet<_> = listed.iter().map(|entry| entry.path.clone()).collect();
        let taken = snapshot(listed.clone());
        for name in n_named {
            prop_assert!(taken.entries().binary_search_by(|e| e.path.cmp(&name)).is_ok());
        }
        let files = |entries: &[Entry]| entries.iter().filter(|e| !e.is_dir()).count();
        prop_assert_eq!(files(taken.entries()) + taken.unshown().len(), files(&listed));
    }

    #[test]
    fn changed_bytes_never_panic_and_are_canonical_if_accepted(
        listed in listing(8),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = snapshot(listed).to_bytes();
        let original = bytes.clone();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(read) = Snapshot::from_bytes(&bytes) {
            prop_assert_eq!(read.to_bytes(), bytes);
        }
        let cut = cut.index(original.len());
        prop_assert!(Snapshot::from_bytes(&original[..cut]).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Snapshot::from_bytes(&bytes);
        let mut bytes = bytes;
        bytes.splice(0..0, *MAGIC);
        let _ = Snapshot::from_bytes(&bytes);
    }
}
