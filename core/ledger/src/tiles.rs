//! The log as C2SP tlog-tiles: static files that other verifiers read.

use crate::{Digest, EntryError, MAX_ENTRY_BYTES, Tree, leaf_hash};

/// Hashes in a full tile, and entries in a full bundle.
const WIDTH: usize = 256;
/// Tree levels in a tile.
const HEIGHT: u32 = 8;

/// Writes a whole log as (path, bytes): `checkpoint`, `tile/<L>/<N>[.p/<W>]` and
/// `tile/entries/<N>[.p/<W>]`, partial ones for exactly this size.
///
/// `entries` are the canonical texts in order, `checkpoint` the signed note over all of them.
pub fn export<E: AsRef<str>>(
    entries: &[E],
    checkpoint: &str,
) -> Result<Vec<(String, Vec<u8>)>, EntryError> {
    let mut files = vec![("checkpoint".to_owned(), checkpoint.as_bytes().to_vec())];
    let mut tree = Tree::new();
    for (n, bundle) in entries.chunks(WIDTH).enumerate() {
        let mut bytes = Vec::new();
        for entry in bundle {
            let entry = entry.as_ref();
            let len = u16::try_from(entry.len()).map_err(|_| EntryError::TooLong(entry.len()))?;
            bytes.extend_from_slice(&len.to_be_bytes());
            bytes.extend_from_slice(entry.as_bytes());
            tree.append(leaf_hash(entry.as_bytes()));
        }
        files.push((path("entries", n as u64, bundle.len() as u64), bytes));
    }
    debug_assert!(MAX_ENTRY_BYTES == usize::from(u16::MAX));
    let mut level = 0;
    loop {
        let nodes = tree.size() >> (level * HEIGHT);
        if nodes == 0 {
            return Ok(files);
        }
        for n in 0..nodes.div_ceil(WIDTH as u64) {
            let hashes = (n * WIDTH as u64)..nodes.min((n + 1) * WIDTH as u64);
            let width = hashes.end - hashes.start;
            let bytes: Vec<u8> =
                hashes.flat_map(|i| *node(&tree, level * HEIGHT, i).as_bytes()).collect();
            files.push((path(&level.to_string(), n, width), bytes));
        }
        level += 1;
    }
}

fn node(tree: &Tree, height: u32, index: u64) -> Digest {
    tree.complete(height, index).expect("the index was counted from the tree's own size")
}

/// `tile/<level>/<N in groups of three digits>[.p/<width>]`.
fn path(level: &str, n: u64, width: u64) -> String {
    let mut groups = vec![format!("{:03}", n % 1000)];
    let mut rest = n / 1000;
    while rest > 0 {
        groups.push(format!("x{:03}", rest % 1000));
        rest /= 1000;
    }
    groups.reverse();
    let partial = if width < WIDTH as u64 { format!(".p/{width}") } else { String::new() };
    format!("tile/{level}/{}{partial}", groups.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn paths_as_the_specification_writes_them() {
        assert_eq!(path("0", 1_234_067, 256), "tile/0/x001/x234/067");
        assert_eq!(path("entries", 5, 12), "tile/entries/005.p/12");
        assert_eq!(path("1", 1000, 256), "tile/1/x001/000");
    }

    #[test]
    fn seventy_thousand_entries_have_the_published_tiles() {
        let entries: Vec<String> = (0..70_000).map(|i| format!("entry {i}")).collect();
        let files: BTreeMap<_, _> = export(&entries, "note").unwrap().into_iter().collect();
        let count = |prefix: &str| files.keys().filter(|k| k.starts_with(prefix)).count();
        assert_eq!(
            (count("tile/0/"), count("tile/1/"), count("tile/2/"), count("tile/entries/")),
            (274, 2, 1, 274)
        );
        assert_eq!(files["tile/0/273.p/112"].len(), 112 * 32);
        assert_eq!(files["tile/1/001.p/17"].len(), 17 * 32);
        assert_eq!(files["tile/2/000.p/1"].len(), 32);
        assert_eq!(files["tile/0/000"].len(), 8192);
        assert_eq!(files["tile/0/000"][32..64], *leaf_hash(b"entry 1").as_bytes());
        let bundle = &files["tile/entries/000"];
        assert_eq!(&bundle[..9], b"\x00\x07entry 0");
        assert_eq!(files["checkpoint"], b"note");
    }

    #[test]
    fn a_tree_of_256_has_a_full_tile_and_one_above() {
        let entries = vec!["e"; 256];
        let names: Vec<_> = export(&entries, "note").unwrap().into_iter().map(|f| f.0).collect();
        assert_eq!(names, ["checkpoint", "tile/entries/000", "tile/0/000", "tile/1/000.p/1"]);
    }

    #[test]
    fn an_empty_log_is_its_checkpoint() {
        assert_eq!(export::<&str>(&[], "note").unwrap().len(), 1);
    }
}
