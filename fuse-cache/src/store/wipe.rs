//! The end of the cache: overwrite, sync, read back from the disk, discard, unlink.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{Advice, FallocateFlags, OFlags, fadvise, fallocate, fcntl_getfl, fcntl_setfl};

use super::StoreError;
use super::file::{CacheFile, io_error};
use crate::budget::Buffer;

/// Bytes a step.
const STEP: usize = 1 << 20;

/// What was done to the cache, in bytes where nothing else is said. Never more than was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WipeFigures {
    /// What the file had reserved, of which only a part was ever written.
    pub reserved_bytes: u64,
    /// What ever held sealed bytes or our own pages, and so had to be overwritten.
    pub cache_bytes: u64,
    pub overwritten_bytes: u64,
    pub read_back_bytes: u64,
    /// Read back and found to be something else than what was written over it.
    pub mismatched_bytes: u64,
    /// The reading back went past the page cache to the disk (O_DIRECT).
    pub read_back_direct: bool,
    /// The blocks were given back to the file system, or why not.
    pub discarded: Result<(), String>,
    /// The name is gone, or why not.
    pub unlinked: Result<(), String>,
    /// The first thing that failed on the way, if anything did.
    pub failure: Option<String>,
}

impl WipeFigures {
    /// Of two files that were wiped one after the other.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            reserved_bytes: self.reserved_bytes + other.reserved_bytes,
            cache_bytes: self.cache_bytes + other.cache_bytes,
            overwritten_bytes: self.overwritten_bytes + other.overwritten_bytes,
            read_back_bytes: self.read_back_bytes + other.read_back_bytes,
            mismatched_bytes: self.mismatched_bytes + other.mismatched_bytes,
            read_back_direct: self.read_back_direct && other.read_back_direct,
            discarded: self.discarded.and(other.discarded),
            unlinked: self.unlinked.and(other.unlinked),
            failure: self.failure.or(other.failure),
        }
    }
}

pub(crate) fn wipe(file: &CacheFile, ranges: &[(u64, u64)], reserved: u64) -> WipeFigures {
    let mut figures = WipeFigures {
        reserved_bytes: reserved,
        cache_bytes: ranges.iter().map(|(_, len)| len).sum(),
        overwritten_bytes: 0,
        read_back_bytes: 0,
        mismatched_bytes: 0,
        read_back_direct: false,
        discarded: Err("not reached".into()),
        unlinked: Err("not reached".into()),
        failure: None,
    };
    let data = file.as_file();
    if let Err(why) = overwrite(data, ranges, &mut figures.overwritten_bytes) {
        figures.failure = Some(format!("overwrite: {why}"));
    }
    match past_page_cache(data) {
        Ok(direct) => figures.read_back_direct = direct,
        Err(why) => tracing::warn!(error = %why, "the read-back may come from memory"),
    }
    if let Err(why) = read_back(data, ranges, &mut figures) {
        figures.failure.get_or_insert_with(|| format!("read back: {why}"));
    }
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    figures.discarded = fallocate(data, punch, 0, reserved)
        .map_err(io::Error::from)
        .and_then(|()| data.sync_all())
        .map_err(|why| why.to_string());
    figures.unlinked = unlink(file).map_err(|why| why.to_string());
    figures
}

/// Overwrites a file that some other lease or version left under our name.
pub(crate) fn overwrite_foreign(file: &CacheFile, len: u64) -> Result<(), StoreError> {
    overwrite(file.as_file(), &[(0, len)], &mut 0)
        .and_then(|()| file.as_file().set_len(0))
        .map_err(|source| io_error(file.dir(), "overwritten", source))
}

/// Writes zeros over the ranges and waits until they are on the disk; counts only then.
fn overwrite(file: &File, ranges: &[(u64, u64)], done: &mut u64) -> io::Result<()> {
    let zeros = buffer();
    for (start, len) in ranges {
        each_step(*start, *len, |at, many| file.write_all_at(&zeros[..many], at))?;
    }
    file.sync_all()?;
    *done = ranges.iter().map(|(_, len)| len).sum();
    Ok(())
}

/// Makes the next reads come from the disk. False: this file system has no direct reads, so its
/// pages were dropped from memory instead.
fn past_page_cache(file: &File) -> io::Result<bool> {
    fadvise(file, 0, None, Advice::DontNeed)?;
    let flags = fcntl_getfl(file)?;
    Ok(fcntl_setfl(file, flags | OFlags::DIRECT).is_ok())
}

pub(super) fn read_back(
    file: &File,
    ranges: &[(u64, u64)],
    figures: &mut WipeFigures,
) -> io::Result<()> {
    let zeros = buffer();
    let mut seen = buffer();
    for (start, len) in ranges {
        each_step(*start, *len, |at, many| {
            file.read_exact_at(&mut seen[..many], at)?;
            figures.read_back_bytes += many as u64;
            if seen[..many] != zeros[..many] {
                let wrong = seen[..many].iter().filter(|byte| **byte != 0).count();
                figures.mismatched_bytes += wrong as u64;
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn unlink(file: &CacheFile) -> io::Result<()> {
    std::fs::remove_file(file.path())?;
    File::open(file.dir())?.sync_all()?;
    match std::fs::symlink_metadata(file.path()) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(why) => Err(why),
        Ok(_) => Err(io::Error::other("the name is still there")),
    }
}

fn each_step(
    start: u64,
    len: u64,
    mut step: impl FnMut(u64, usize) -> io::Result<()>,
) -> io::Result<()> {
    let mut at = start;
    while at < start + len {
        let many = STEP.min(usize::try_from(start + len - at).unwrap_or(STEP));
        step(at, many)?;
        at += many as u64;
    }
    Ok(())
}

/// One page-aligned step, as direct reads need it.
fn buffer() -> Buffer {
    Buffer::unbudgeted(STEP)
}

impl WipeFigures {
    /// Figures of a wipe of which nothing is known but why it failed.
    pub(crate) fn failed(why: String) -> Self {
        Self {
            reserved_bytes: 0,
            cache_bytes: 0,
            overwritten_bytes: 0,
            read_back_bytes: 0,
            mismatched_bytes: 0,
            read_back_direct: false,
            discarded: Err("not reached".into()),
            unlinked: Err("not reached".into()),
            failure: Some(why),
        }
    }
}
