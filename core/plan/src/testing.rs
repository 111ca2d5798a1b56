//! Strategies and small listings for the tests of this crate.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::layout::{BLOCK_MAX, PACK_DATA_MAX};
use crate::{Entry, Kind, RelPath, Selection, SelectionSpec, Snapshot, Timestamp, Version};

pub(crate) fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap()
}

pub(crate) fn file(name: &str, size: u64) -> Entry {
    Entry {
        path: path(name),
        kind: Kind::File,
        size,
        mode: 0o644,
        mtime: Timestamp { secs: 1_700_000_000, nanos: 5 },
        version: Version::Inode { dev: 1, ino: size, ctime: Timestamp { secs: 7, nanos: 8 } },
    }
}

pub(crate) fn dir(name: &str) -> Entry {
    Entry { kind: Kind::Dir, size: 0, mode: 0o755, version: Version::None, ..file(name, 0) }
}

pub(crate) fn link(name: &str, target: &str) -> Entry {
    let kind = Kind::Symlink(target.as_bytes().into());
    Entry { kind, size: target.len() as u64, version: Version::None, ..file(name, 0) }
}

pub(crate) fn snapshot(entries: Vec<Entry>) -> Snapshot {
    Snapshot::build("test".into(), entries, Vec::new())
}

pub(crate) fn everything(snapshot: &Snapshot) -> Selection {
    Selection::resolve(snapshot, &SelectionSpec::default()).unwrap()
}

/// Sizes on both sides of every threshold of the layout.
pub(crate) fn size() -> impl Strategy<Value = u64> {
    let near = |at: u32| (at - 2..=at + 2).prop_map(u64::from);
    prop_oneof![
        2 => Just(0_u64),
        6 => 1..3000_u64,
        3 => 100_000..1_500_000_u64,
        1 => near(PACK_DATA_MAX),
        1 => near(BLOCK_MAX),
        1 => near(2 * BLOCK_MAX),
        1 => near(BLOCK_MAX + PACK_DATA_MAX),
        1 => 0..20_000_000_u64,
    ]
}

fn time() -> impl Strategy<Value = Timestamp> {
    (any::<i64>(), 0..1_000_000_000_u32).prop_map(|(secs, nanos)| Timestamp { secs, nanos })
}

fn version() -> impl Strategy<Value = Version> {
    prop_oneof![
        Just(Version::None),
        (any::<u64>(), any::<u64>(), time()).prop_map(|(dev, ino, ctime)| Version::Inode {
            dev,
            ino,
            ctime
        }),
        ("[0-9a-f]{0,8}", proptest::option::of("[a-z]{0,5}"))
            .prop_map(|(etag, version_id)| Version::Object { etag, version_id }),
    ]
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        8 => Just(Kind::File),
        1 => Just(Kind::Dir),
        1 => vec(any::<u8>(), 0..9).prop_map(|target| Kind::Symlink(target.into())),
    ]
}

pub(crate) fn entry() -> impl Strategy<Value = Entry> {
    let path = vec("[a-c!]{1,2}", 1..5).prop_map(|parts| path(&parts.join("/")));
    (path, kind(), size(), any::<u32>(), time(), version()).prop_map(
        |(path, kind, size, mode, mtime, version)| Entry { path, kind, size, mode, mtime, version },
    )
}

/// A listing in no order, with conflicts, and at least one file.
pub(crate) fn listing(most: usize) -> impl Strategy<Value = Vec<Entry>> {
    vec(entry(), 0..most).prop_map(|mut entries| {
        entries.push(file("zz", 77));
        entries
    })
}
