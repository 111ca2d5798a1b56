//! Trees of files from a seed: the same seed is the same bytes, everywhere and for ever.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use anyhow::{Context as _, Result};

/// SplitMix64 (Steele, Lea, Flood 2014): good enough to choose with, never to hide with.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub const fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 when `end` is 0.
    pub const fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.roll() % end }
    }
}

/// `len` bytes that do not compress and do not repeat.
pub fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

/// Writes a file and the folders above it.
pub fn write(root: &Path, name: impl AsRef<OsStr>, content: &[u8]) -> Result<()> {
    let path = root.join(name.as_ref());
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))
}

/// A small tree with one of everything a directory source must carry: odd names, links, an empty
/// file, an empty folder, a sparse file, sizes around every boundary, modes and old times.
pub fn odd_tree(root: &Path) -> Result<()> {
    let chunk = 16 * 1024;
    let block = 4 << 20;
    let sizes = [1, 4095, 4096, 4097, chunk - 1, chunk, chunk + 1, block - 4096, block - 1, block];
    for (seed, size) in (0..).zip(sizes) {
        write(root, format!("sizes/{size:08}"), &bytes(seed, size))?;
    }
    write(root, "large/two-blocks-and-a-tail", &bytes(20, 2 * block + 12_345))?;
    write(root, "large/one-block-and-one-byte", &bytes(21, block + 1))?;
    for n in 0..300 {
        let len = usize::try_from(Dice::new(n).below(9000)).unwrap_or(0);
        write(root, format!("small/{:02}/{n:03}.bin", n % 7), &bytes(1000 + n, len))?;
    }
    write(root, "names/with space and\ttab", b"space")?;
    write(root, "names/new\nline", b"newline")?;
    write(root, "names/été-日本語-🌊", b"unicode")?;
    write(root, OsStr::from_bytes(b"names/not-utf8-\xff\xfe"), b"raw bytes")?;
    write(root, "names/*[glob]?{a,b}", b"glob")?;
    write(root, format!("names/{}", "n".repeat(255)), b"longest")?;
    write(root, "names/-dash", b"dash")?;
    write(root, "names/.hidden", b"hidden")?;
    write(root, "empty-file", b"")?;
    fs::create_dir_all(root.join("empty-dir/inner"))?;
    let sparse = File::create(root.join("sparse"))?;
    sparse.write_all_at(b"head", 0)?;
    sparse.write_all_at(b"tail", 9 << 20)?;
    symlink("small/00/000.bin", root.join("link"))?;
    symlink("nowhere", root.join("dangling"))?;
    symlink("../sizes", root.join("names/link-to-dir"))?;
    symlink("/etc/hostname", root.join("absolute"))?;
    fs::set_permissions(root.join("names/-dash"), fs::Permissions::from_mode(0o400))?;
    fs::set_permissions(root.join("names/.hidden"), fs::Permissions::from_mode(0o755))?;
    let old = std::time::UNIX_EPOCH + std::time::Duration::new(981_173_106, 123_456_789);
    File::options().write(true).open(root.join("empty-file"))?.set_modified(old)?;
    Ok(())
}

/// `count` files of `size` bytes, named in order.
pub fn flat(root: &Path, count: u64, size: usize, seed: u64) -> Result<()> {
    for n in 0..count {
        write(root, format!("{n:05}.bin"), &bytes(seed + n, size))?;
    }
    Ok(())
}
