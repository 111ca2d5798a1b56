use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::testing::{dir, file, link, listing, path, snapshot};

fn read(bytes: &[u8]) -> Result<Snapshot, crate::FormatError> {
    Snapshot::from_bytes(bytes.to_vec())
}

fn at(snapshot: &Snapshot, at: u32) -> Entry {
    snapshot.get(at).unwrap()
}

fn names(snapshot: &Snapshot) -> Vec<String> {
    snapshot.entries().map(|entry| entry.path.to_string()).collect()
}

#[test]
fn adds_implied_directories_and_sorts() {
    let taken = snapshot(vec![file("b/c/d", 1), file("a!", 1), file("a/x", 2)]);
    assert_eq!(names(&taken), ["a", "a/x", "a!", "b", "b/c", "b/c/d"]);
    assert!(at(&taken, 4).is_dir());
    assert_eq!(at(&taken, 4).mtime, Timestamp::default());
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
        assert!(at(&taken, 0).is_dir());
        assert_eq!(at(&taken, 1).size, 2);
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
    assert_eq!(at(&taken, 0), listed);
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
    let digest = blake3::derive_key("tidegate/v1 snapshot", taken.as_bytes());
    assert_eq!(taken.id().as_bytes(), &digest);
}

#[test]
fn refuses_counts_that_the_bytes_cannot_hold() {
    let good = snapshot(vec![file("a", 1)]).as_bytes().to_vec();
    for count_at in [16, 24, 32] {
        for count in [u64::MAX, u32::MAX.into(), 1 << 20] {
            let mut bytes = good.clone();
            bytes[count_at..count_at + 8].copy_from_slice(&count.to_le_bytes());
            assert!(read(&bytes).is_err());
        }
    }
}

proptest! {
    #[test]
    fn canonical_bytes_round_trip(listed in listing(40)) {
        let taken = snapshot(listed);
        let again = read(taken.as_bytes()).unwrap();
        prop_assert_eq!(&again, &taken);
    }

    #[test]
    fn entries_are_those_that_were_listed(listed in listing(40)) {
        let taken = snapshot(listed.clone());
        for entry in taken.entries().filter(|entry| !entry.is_dir()) {
            let same = listed.iter().find(|other| other.path == entry.path && !other.is_dir());
            let mut same = same.unwrap().clone();
            same.mode &= 0o7777;
            if let Kind::Symlink(target) = &same.kind {
                (same.size, same.version) = (target.len() as u64, Version::None);
            }
            prop_assert_eq!(entry, same);
        }
        let (mut files, mut content) = (0, 0);
        taken.walk(|at, node, path| {
            assert_eq!(taken.get(at).unwrap().path.as_bytes(), path);
            files += u64::from(node.kind == NodeKind::File);
            content += taken.content_of(at);
        });
        prop_assert_eq!((taken.files(), taken.content()), (files, content));
    }

    #[test]
    fn the_listing_order_of_distinct_names_is_of_no_account(listed in listing(20), seed in any::<u64>()) {
        let mut distinct: Vec<_> = snapshot(listed).entries().collect();
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
        let shown: Vec<_> = taken.entries().map(|entry| entry.path).collect();
        prop_assert!(shown.is_sorted());
        for name in n_named {
            prop_assert!(shown.binary_search(&name).is_ok());
        }
        let files = |entries: &[Entry]| entries.iter().filter(|e| !e.is_dir()).count();
        let shown: Vec<_> = taken.entries().collect();
        prop_assert_eq!(files(&shown) + taken.unshown().len(), files(&listed));
    }

    #[test]
    fn changed_bytes_never_panic_and_are_canonical_if_accepted(
        listed in listing(8),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let original = snapshot(listed).as_bytes().to_vec();
        let mut bytes = original.clone();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        // What is accepted is what the listing of its entries would have been written as.
        if let Ok(read) = read(&bytes) {
            let entries = read.entries().collect();
            let unshown = read.unshown().to_vec();
            let again = Snapshot::build(read.source().to_owned(), entries, unshown);
            prop_assert_eq!(again.as_bytes(), bytes);
        }
        let cut = cut.index(original.len());
        prop_assert!(read(&original[..cut]).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&bytes);
        let mut bytes = bytes;
        bytes.splice(0..0, *record::MAGIC);
        let _ = read(&bytes);
    }
}

#[test]
fn what_cannot_be_pinned_in_64_kib_is_named() {
    let mut object = file("a", 1);
    object.version = Version::Object { etag: "e".repeat(70_000), version_id: None };
    let taken = snapshot(vec![object, file("b", 1), link("c", &"t".repeat(70_000))]);
    assert_eq!(names(&taken), ["b"]);
    let left_out: Vec<_> = taken.unshown().iter().map(|name| &name.name[..]).collect();
    assert_eq!(left_out, [&b"a"[..], b"c"]);
}

#[test]
fn a_name_costs_its_length_and_little_more() {
    let listed = (0..10_000).map(|n| file(&format!("directory-of-a-long-name/{n:06}"), n));
    let taken = snapshot(listed.collect());
    // A record, the name, and the facts of the inode.
    assert!(taken.as_bytes().len() <= 10_001 * (40 + 6 + 28) + 200);
}
