//! A file held open and checked against its version in the snapshot.

use std::io::IoSliceMut;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{FileType, OFlags, fstat};
use rustix::io::{Errno, preadv};
use tidegate_plan::{Entry, Kind};

use super::beneath::{Facts, denied, open_beneath};
use super::error::ReadError;

/// Most pieces one preadv call takes (IOV_MAX of Linux).
const MOST_PIECES: usize = 1024;

/// An open file whose version was compared on this very descriptor.
#[derive(Debug)]
pub(crate) struct PinnedFile {
    file: OwnedFd,
    pinned: Facts,
}

impl PinnedFile {
    /// Opens and compares: the check before a read.
    pub(super) fn open(root: BorrowedFd<'_>, entry: &Entry) -> Result<Self, ReadError> {
        if entry.kind != Kind::File {
            return Err(ReadError::Changed);
        }
        // Not to hang on a pipe that took the file's place.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = open_beneath(root, entry.path.as_bytes(), flags).map_err(refused)?;
        let pinned = Facts { size: entry.size, mtime: entry.mtime, version: entry.version.clone() };
        let file = Self { file, pinned };
        file.check()?;
        Ok(file)
    }

    /// Whether the descriptor still is the pinned version: the check after a read. Edits finer
    /// than the file system's timestamps are not seen.
    pub(crate) fn check(&self) -> Result<(), ReadError> {
        let stat = fstat(&self.file).map_err(refused)?;
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if is_file && Facts::of(&stat) == self.pinned { Ok(()) } else { Err(ReadError::Changed) }
    }

    /// Fills every piece in turn from `offset` on. An early end is [`ReadError::Changed`].
    pub(crate) fn read_pieces(
        &self,
        mut offset: u64,
        mut pieces: &mut [IoSliceMut<'_>],
    ) -> Result<(), ReadError> {
        IoSliceMut::advance_slices(&mut pieces, 0);
        while !pieces.is_empty() {
            let many = pieces.len().min(MOST_PIECES);
            match preadv(&self.file, &mut pieces[..many], offset) {
                Ok(0) => return Err(ReadError::Changed),
                Ok(read) => {
                    offset += read as u64;
                    IoSliceMut::advance_slices(&mut pieces, read);
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(refused(errno)),
            }
        }
        Ok(())
    }
}

fn refused(errno: Errno) -> ReadError {
    match errno {
        // Gone; or a link, a mount of another tree or a socket stands there now; or a network
        // file system says that the inode is no more.
        Errno::NOENT
        | Errno::NOTDIR
        | Errno::ISDIR
        | Errno::LOOP
        | Errno::XDEV
        | Errno::NXIO
        | Errno::NODEV
        | Errno::STALE => ReadError::Changed,
        errno if denied(errno) => ReadError::Denied,
        errno => ReadError::Unavailable(errno.to_string()),
    }
}
