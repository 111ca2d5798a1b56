use proptest::prelude::*;
use tidegate_plan::{
    Entry, Extent, Kind, Layout, RelPath, Selection, SelectionSpec, Snapshot, Version,
    build_manifest,
};

use super::*;

const ROOT: u32 = 0;

fn entry(path: &[u8], kind: Kind, size: u64) -> Entry {
    let mtime = Timestamp { secs: -2, nanos: 500_000_000 };
    let version = match kind {
        Kind::File => Version::Inode { dev: 1, ino: 2, ctime: mtime },
        Kind::Dir | Kind::Symlink(_) => Version::None,
    };
    Entry { path: RelPath::new(path).unwrap(), kind, size, mode: 0o4640, mtime, version }
}

/// The tree, and the extents of every block.
fn tree(entries: Vec<Entry>) -> (Tree<Vec<u8>>, Vec<Vec<Extent>>) {
    let snapshot = Snapshot::build("test".into(), entries, Vec::new());
    let selection = Selection::resolve(&snapshot, &SelectionSpec::default()).unwrap();
    let layout = Layout::build(&snapshot, &selection, 1).unwrap();
    let manifest = Manifest::parse(build_manifest(&snapshot, &selection, &layout, 0)).unwrap();
    let extents = (0..).take(layout.blocks().len());
    let extents = extents.map(|number| layout.extents_of(&snapshot, &selection, number)).collect();
    (Tree::new(Arc::new(manifest), (7, 8)), extents)
}

fn names(tree: &Tree<Vec<u8>>, directory: u32, offset: u64) -> Vec<(u64, Vec<u8>)> {
    tree.list(directory, offset).map(|listed| (listed.next, listed.name.to_vec())).collect()
}

#[test]
fn attributes_are_the_snapshots() {
    let link = Kind::Symlink(b"../any\xff".to_vec().into());
    let (tree, _) = tree(vec![entry(b"d/f", Kind::File, 3 << 20), entry(b"d/l", link, 0)]);
    let directory = tree.lookup(ROOT, b"d").unwrap();
    let file = tree.lookup(directory, b"f").unwrap();
    let attributes = tree.attributes(file);
    assert_eq!(attributes.ino, INodeNo(u64::from(file) + 1));
    assert_eq!(tree.record(attributes.ino), Some(file));
    assert_eq!((attributes.size, attributes.blocks), (3 << 20, 3 << 11));
    assert_eq!((attributes.perm, attributes.nlink), (0o4640, 1));
    assert_eq!((attributes.uid, attributes.gid), (7, 8));
    assert_eq!(UNIX_EPOCH.duration_since(attributes.mtime).unwrap(), Duration::from_millis(1500));
    assert_eq!(tree.attributes(directory).kind, FileType::Directory);
    let link = tree.lookup(directory, b"l").unwrap();
    assert_eq!(tree.attributes(link).size, 7);
    assert_eq!(tree.link_target(link), Some(&b"../any\xff"[..]));
    assert_eq!(tree.link_target(file), None);
}

#[test]
fn what_is_not_there_is_not_found() {
    let (tree, _) = tree(vec![entry(b"f", Kind::File, 1)]);
    assert_eq!(tree.lookup(ROOT, b"g"), None);
    assert_eq!(tree.lookup(ROOT, b""), None);
    assert_eq!(tree.record(INodeNo(0)), None);
    assert_eq!(tree.record(INodeNo(3)), None);
    assert_eq!(tree.record(INodeNo(u64::MAX)), None);
}

#[test]
fn a_listing_goes_on_from_any_offset() {
    let (tree, _) = tree(vec![
        entry(b"c", Kind::File, 1),
        entry(b"a/x", Kind::File, 1),
        entry(b"b", Kind::Dir, 0),
    ]);
    let all = names(&tree, ROOT, 0);
    let expected: [&[u8]; 5] = [b".", b"..", b"a", b"b", b"c"];
    assert_eq!(all.iter().map(|(_, name)| name.as_slice()).collect::<Vec<_>>(), expected);
    for (at, (next, _)) in all.iter().enumerate() {
        assert_eq!(names(&tree, ROOT, *next), all[at + 1..]);
    }
    assert!(names(&tree, ROOT, u64::MAX).is_empty());
    let inner = tree.lookup(ROOT, b"a").unwrap();
    let dots: Vec<_> = tree.list(inner, 0).take(2).map(|listed| listed.record).collect();
    assert_eq!(dots, [inner, ROOT]);
    assert_eq!(tree.list(tree.lookup(ROOT, b"b").unwrap(), 0).count(), 2);
}

proptest! {
    /// Whatever is asked, the parts follow on each other, hold exactly what is left of the file, and
    /// lie where the layout put those bytes.
    #[test]
    fn parts_cover_a_read_exactly(
        sizes in proptest::collection::vec(prop_oneof![0u64..70_000, 4_000_000u64..13_000_000], 1..8),
        which in any::<prop::sample::Index>(),
        offset in 0u64..14_000_000,
        size in 0u32..(2 << 20),
    ) {
        let names: Vec<_> = (0..sizes.len()).map(|n| format!("f{n}")).collect();
        let entries = names.iter().zip(&sizes).map(|(n, s)| entry(n.as_bytes(), Kind::File, *s)).collect();
        let (tree, extents) = tree(entries);
        let chosen = which.index(sizes.len());
        let record = tree.lookup(ROOT, names[chosen].as_bytes()).unwrap();
        let mut at = offset;
        for part in tree.parts(record, offset, size) {
            let extent = extents[part.piece.block as usize]
                .iter()
                .find(|extent| extent.at == part.piece.extent_at)
                .unwrap();
            prop_assert_eq!(extent.file as usize, chosen);
            prop_assert_eq!(extent.offset + u64::from(part.piece.at - extent.at), at);
            prop_assert!(part.len > 0 && part.len <= part.piece.len as usize);
            at += part.len as u64;
        }
        let end = (offset + u64::from(size)).min(sizes[chosen]);
        prop_assert_eq!(at, end.max(offset));
    }
}
