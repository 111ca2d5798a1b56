//! What takes long: everyday in small, in the full tier at its real size.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tidegate_tests::process::rss;
use tidegate_tests::results::{Desk, Home};

use super::storm::PATIENT;

const PIECE: usize = 4 << 20;
/// Of the worker beyond its buffers; what it has whatever the file's length.
const MEMORY: u64 = 800 << 20;

/// Piece `n` of a long file: one of many that are cheap to make and all different.
fn piece(base: &mut [u8], n: u64) {
    for (word, at) in base.chunks_exact_mut(4096).zip(0_u64..) {
        word[..8].copy_from_slice(&n.to_le_bytes());
        word[8..16].copy_from_slice(&at.to_le_bytes());
    }
}

/// One file of so many MiB: written once, renamed, at home under one hash, and the worker stays small.
pub(crate) fn one_large_file(home: Home, mib: u64, args: &[&str]) -> Result<()> {
    let desk = Desk::start(home, PATIENT)?;
    let mount = desk.mount("one.join", &[], args)?;
    let mut bytes = tidegate_tests::dataset::bytes(1, PIECE);
    let mut hasher = blake3::Hasher::new();
    let at = |name: &str| mount.results().join(name);
    let mut file = File::create(at("temporary"))?;
    let mut peak = 0;
    for n in 0..(mib << 20) / PIECE as u64 {
        piece(&mut bytes, n);
        hasher.update(&bytes);
        file.write_all(&bytes).with_context(|| format!("at piece {n}"))?;
        if n % 16 == 0 {
            peak = peak.max(rss(mount.worker()?)?);
        }
    }
    file.sync_all()?;
    drop(file);
    fs::rename(at("temporary"), at("large"))?;
    let want = hasher.finalize().to_hex().to_string();
    let look = desk.home.look()?;
    assert_eq!(look.notes("large")?.get("blake3"), Some(&want), "beside the object");
    if desk.home.is_directory() {
        assert_eq!(hash(&desk.home.path().join("large"))?, want, "at home");
    }
    assert_eq!(hash(&at("large"))?, want, "through the mount");
    ensure!(peak < MEMORY, "the worker weighed {peak} bytes");
    mount.finish()?;
    Ok(())
}

fn hash(path: &Path) -> Result<String> {
    let (mut file, mut bytes) = (File::open(path)?, vec![0; PIECE]);
    let mut hasher = blake3::Hasher::new();
    loop {
        match file.read(&mut bytes)? {
            0 => return Ok(hasher.finalize().to_hex().to_string()),
            len => drop(hasher.update(&bytes[..len])),
        }
    }
}

#[test]
fn a_file_larger_than_the_spool_comes_home() -> Result<()> {
    one_large_file(Home::directory()?, 256, &["--results-spool", "64MiB", "--memory", "128MiB"])
}

pub(crate) fn very_large_files() -> Result<()> {
    one_large_file(Home::directory()?, 20 << 10, &[])?;
    // Larger than stores copy in one request.
    one_large_file(Home::versitygw()?, 6 << 10, &[])
}

pub(crate) fn long_storms() -> Result<()> {
    super::storm::killed(Home::directory()?, 240, &[])?;
    super::storm::killed(Home::versitygw()?, 240, &["--results-async"])?;
    super::storm::troubled(Home::versitygw()?, 240)
}

pub(crate) fn a_cut_of_a_minute() -> Result<()> {
    super::cut::a_cut_of(Home::directory()?, Duration::from_secs(60), 120)
}

/// What the everyday tier does to one kind of home, done to the others.
pub(crate) fn every_trouble_on_every_home() -> Result<()> {
    super::storm::killed(Home::ceph()?, 60, &[])?;
    super::storm::killed(Home::ceph()?, 60, &["--results-async"])?;
    super::storm::killed(Home::directory()?, 60, &["--results-async"])?;
    super::storm::everything_dies(Home::ceph()?, 60)?;
    super::storm::troubled(Home::ceph()?, 60)?;
    for home in [Home::versitygw, Home::ceph] {
        super::cut::a_cut_of(home()?, Duration::from_secs(60), 100)?;
        super::spool::the_disk_fills_up(home()?)?;
    }
    Ok(())
}
