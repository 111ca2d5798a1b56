//! Bytes and names of what is open.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::fs::RawDir;
use rustix::io::{Errno, pread, pwrite};

use super::super::error::HomeError;

/// Bytes of directory entries fetched by one system call.
const LISTING: usize = 64 << 10;

/// Writes all of `bytes` at an offset.
pub(super) fn write_at(file: &OwnedFd, mut offset: u64, mut bytes: &[u8]) -> Result<(), HomeError> {
    while !bytes.is_empty() {
        let written = pwrite(file, bytes, offset)?;
        if written == 0 {
            return Err(HomeError::Full);
        }
        bytes = &bytes[written..];
        offset += written as u64;
    }
    Ok(())
}

/// Reads exactly so much; `None` when there is less.
pub(super) fn read_at(
    file: &OwnedFd,
    offset: u64,
    len: usize,
) -> Result<Option<Vec<u8>>, HomeError> {
    let mut bytes = vec![0; len];
    let mut read = 0;
    while read < len {
        match pread(file, &mut bytes[read..], offset + read as u64) {
            Ok(0) => return Ok(None),
            Ok(more) => read += more,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(Some(bytes))
}

/// All names in an open directory, sorted.
pub(super) fn names(dir: &OwnedFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    let mut buffer = vec![MaybeUninit::<u8>::uninit(); LISTING];
    let mut listing = RawDir::new(dir, &mut buffer);
    while let Some(item) = listing.next() {
        let item = item?;
        let name = item.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names)
}
