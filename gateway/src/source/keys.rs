//! Object keys as paths: what a store lists becomes an entry, or is reported by name.

use std::collections::HashMap;

use tidegate_plan::{Entry, Kind, RelPath, Timestamp, Version};

use super::found::Found;

/// Permissions of objects and of directories that only keys imply.
const FILE_MODE: u32 = 0o644;
const DIR_MODE: u32 = 0o755;

/// One current object as a store lists it.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    /// Decoded.
    pub(super) key: Vec<u8>,
    pub(super) size: Option<i64>,
    /// Without quotes.
    pub(super) etag: Option<String>,
    pub(super) modified: Timestamp,
    /// The listing was sent in a form that cannot carry every key.
    pub(super) inexact: bool,
}

/// Current version of each key, with the ETag it was listed with.
pub(super) type Versions = HashMap<Vec<u8>, (String, String)>;

/// Turns listed objects into entries; names are relative to `prefix`.
pub(super) fn place(prefix: &str, listed: Vec<Listed>, versions: &Versions) -> Found {
    let mut found = Found::default();
    for object in listed {
        let below = object.key.strip_prefix(prefix.as_bytes());
        let name = below.filter(|name| !name.is_empty()).unwrap_or(&object.key).to_vec();
        match entry(prefix, object, versions) {
            Ok(Some(entry)) => found.entries.push(entry),
            Ok(None) => {}
            Err(reason) => found.cannot_show(&name, reason),
        }
    }
    found
}

/// `None` for the marker of the prefix itself, `Err` why a key cannot be shown.
fn entry(prefix: &str, object: Listed, versions: &Versions) -> Result<Option<Entry>, String> {
    let Listed { key, size, etag, modified, inexact } = object;
    let name = key.strip_prefix(prefix.as_bytes()).ok_or("lies outside the prefix")?;
    let size = size.and_then(|size| u64::try_from(size).ok()).ok_or("listed without a size")?;
    let (name, marker) = match name {
        [] if size == 0 => return Ok(None),
        [] => return Err("has content and the name of the directory itself".to_owned()),
        [dir @ .., b'/'] if size == 0 => (dir, true),
        [_, .., b'/'] => return Err("has content and a name that ends with `/`".to_owned()),
        name => (name, false),
    };
    let path = RelPath::new(name).map_err(|refused| refused.to_string())?;
    let text = std::str::from_utf8(&key).map_err(|_| "its name is not UTF-8")?;
    if inexact && text.contains(char::REPLACEMENT_CHARACTER) {
        return Err("the store does not list its exact name".to_owned());
    }
    if marker {
        let (kind, version) = (Kind::Dir, Version::None);
        return Ok(Some(Entry { path, kind, size: 0, mode: DIR_MODE, mtime: modified, version }));
    }
    let etag = etag.filter(|etag| !etag.is_empty()).ok_or("listed without an ETag to pin it by")?;
    let version_id =
        versions.get(&key).filter(|(_, of)| *of == etag).map(|(version, _)| version.clone());
    let version = Version::Object { etag, version_id };
    Ok(Some(Entry { path, kind: Kind::File, size, mode: FILE_MODE, mtime: modified, version }))
}

/// An ETag without the quotes that some stores send and some do not.
pub(crate) fn bare(etag: &str) -> &str {
    etag.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')).unwrap_or(etag)
}

/// Undoes `encoding-type=url`: percent signs, and `+` for a space.
pub(crate) fn decoded(text: &str) -> Vec<u8> {
    let digit = |at: Option<&u8>| at.and_then(|&b| char::from(b).to_digit(16));
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let pair = (digit(bytes.get(at + 1)), digit(bytes.get(at + 2)));
        match (byte, pair) {
            (b'%', (Some(high), Some(low))) => {
                // Two hexadecimal digits are below 256.
                out.push(u8::try_from(high * 16 + low).unwrap_or_default());
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            _ => out.push(byte),
        }
        at += 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(key: &str, size: i64) -> Listed {
        Listed {
            key: key.as_bytes().to_vec(),
            size: Some(size),
            etag: Some("e".to_owned()),
            modified: Timestamp { secs: 1, nanos: 0 },
            inexact: false,
        }
    }

    #[test]
    fn keys_become_paths_or_are_named() {
        for (key, size, shown) in [
            ("p/a", 1, Some("a")),
            ("p/a b/ü", 0, Some("a b/ü")),
            ("p/dir/", 0, Some("dir")),
            ("p/dir/", 5, None),
            ("p/", 5, None),
            ("p/a//b", 1, None),
            ("p//a", 1, None),
            ("p//", 0, None),
            ("p/a/./b", 1, None),
            ("p/a/../b", 1, None),
            ("p/nul\0", 1, None),
            ("q/a", 1, None),
        ] {
            let found = place("p/", vec![listed(key, size)], &Versions::new());
            let paths: Vec<_> = found.entries.iter().map(|e| e.path.as_bytes()).collect();
            assert_eq!(paths, shown.map(str::as_bytes).into_iter().collect::<Vec<_>>(), "{key:?}");
            let named: Vec<_> = found.unshown.iter().map(|u| &*u.name).collect();
            let name = key.strip_prefix("p/").filter(|name| !name.is_empty()).unwrap_or(key);
            let left = if shown.is_none() { vec![name.as_bytes()] } else { vec![] };
            assert_eq!(named, left, "{key:?}");
        }
        let own = place("p/", vec![listed("p/", 0)], &Versions::new());
        assert!(own.entries.is_empty() && own.unshown.is_empty());
        for long in [listed(&"x".repeat(256), 1), listed(&"y/".repeat(2100), 0)] {
            assert_eq!(place("", vec![long], &Versions::new()).unshown.len(), 1);
        }
    }

    #[test]
    fn a_key_that_is_not_listed_exactly_or_cannot_be_pinned_is_named() {
        let mut inexact = listed("a\u{fffd}b", 1);
        inexact.inexact = true;
        let mut unpinned = listed("a", 1);
        unpinned.etag = None;
        let mut unsized_ = listed("b", 1);
        unsized_.size = None;
        let found = place("", vec![inexact, unpinned, unsized_], &Versions::new());
        assert_eq!((found.entries.len(), found.unshown.len()), (0, 3));
        assert_eq!(place("", vec![listed("a\u{fffd}b", 1)], &Versions::new()).entries.len(), 1);
    }

    #[test]
    fn a_version_counts_only_with_the_same_content() {
        let versions = Versions::from([
            (b"same".to_vec(), ("v1".to_owned(), "e".to_owned())),
            (b"newer".to_vec(), ("v2".to_owned(), "f".to_owned())),
        ]);
        let found = place("", vec![listed("same", 1), listed("newer", 1)], &versions);
        let pins: Vec<_> = found
            .entries
            .iter()
            .map(|entry| match &entry.version {
                Version::Object { version_id, .. } => version_id.as_deref(),
                _ => panic!("an object is pinned by its ETag"),
            })
            .collect();
        assert_eq!(pins, [Some("v1"), None]);
    }

    #[test]
    fn listings_are_decoded() {
        for (text, plain) in [
            ("a%2Fb%20c+d%2Be", "a/b c+d+e".replace("c+d", "c d")),
            ("100%", "100%".to_owned()),
            ("%zz%4", "%zz%4".to_owned()),
            ("%E6%97%A5", "日".to_owned()),
        ] {
            assert_eq!(decoded(text), plain.as_bytes(), "{text}");
        }
        for (etag, inner) in [("\"a\"", "a"), ("a", "a"), ("\"", "\""), ("\"\"", "")] {
            assert_eq!(bare(etag), inner);
        }
    }
}
