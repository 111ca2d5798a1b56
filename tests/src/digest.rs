//! What a tree is, in lines that can be compared: one an entry, sorted by path.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::{Context as _, Result};

/// Kind, mode, size, time and content of every entry below `root`; folders' times and sizes left out.
pub fn tree(root: &Path) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    walk(root, Path::new(""), &mut lines)?;
    lines.sort();
    Ok(lines)
}

/// Paths and contents alone: what an object store can carry.
pub fn contents(root: &Path) -> Result<Vec<String>> {
    let lines = tree(root)?.into_iter().filter_map(|line| {
        let mut fields = line.split('\t');
        let (path, kind) = (fields.next()?, fields.next()?);
        (kind == "file").then(|| format!("{path}\t{}", fields.next_back().unwrap_or_default()))
    });
    Ok(lines.collect())
}

fn walk(root: &Path, inside: &Path, lines: &mut Vec<String>) -> Result<()> {
    let folder = root.join(inside);
    let entries = fs::read_dir(&folder).with_context(|| format!("readdir {}", folder.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("readdir {}", folder.display()))?;
        let path = inside.join(entry.file_name());
        let full = root.join(&path);
        let meta =
            fs::symlink_metadata(&full).with_context(|| format!("lstat {}", full.display()))?;
        let name = path.as_os_str().as_bytes().escape_ascii();
        let mode = meta.permissions().mode() & 0o7777;
        let time = format!("{}.{:09}", meta.mtime(), meta.mtime_nsec());
        if meta.is_dir() {
            lines.push(format!("{name}\tdir\t{mode:04o}"));
            walk(root, &path, lines)?;
        } else if meta.is_symlink() {
            let target = fs::read_link(&full)?;
            lines.push(format!("{name}\tlink\t{}", target.as_os_str().as_bytes().escape_ascii()));
        } else {
            let digest = file(&full)?;
            lines.push(format!("{name}\tfile\t{mode:04o}\t{}\t{time}\t{digest}", meta.len()));
        }
    }
    Ok(())
}

/// BLAKE3 of a file's content, by plain reads.
pub fn file(path: &Path) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    let mut file = fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
    io::copy(&mut file, &mut hasher).with_context(|| format!("read {}", path.display()))?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// Fails with the first lines that differ.
pub fn assert_same(want: &[String], got: &[String]) {
    let missing: Vec<_> = want.iter().filter(|line| !got.contains(line)).take(5).collect();
    let surplus: Vec<_> = got.iter().filter(|line| !want.contains(line)).take(5).collect();
    assert!(
        missing.is_empty() && surplus.is_empty() && want.len() == got.len(),
        "trees differ: missing {missing:#?}, surplus {surplus:#?}"
    );
}
