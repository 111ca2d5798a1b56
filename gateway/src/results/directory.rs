//! A directory tree as the home of results.
//!
//! Names are opened below one descriptor of the root, never through a link. A file is written in the lease's
//! own directory `.tidegate-LEASE` at the root, flushed, and takes its name by a rename, after which the
//! directory that holds it is flushed too: it is there whole, and stays, or it is not there.

mod change;
mod io;
mod list;
mod marks;
mod parts;
mod write;

use std::collections::HashSet;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, Mode, OFlags, fsync, mkdirat, unlinkat};
use rustix::io::Errno;
use tidegate_plan::LeaseId;
use tokio::sync::Semaphore;

use super::error::HomeError;
use super::names::RESERVED;
use crate::source::{SourceError, open_beneath};

/// Directories that only a file's path implies.
const IMPLIED: u32 = 0o755;
/// Files that have no name yet.
const UNNAMED: u32 = 0o600;
/// Parts that are written at once, beyond which some wait for others.
const STRIPES: usize = 64;
/// Directories remembered as flushed.
const SETTLED: usize = 16_384;
/// Threads that one lease's home may hold at once: it may be on a network that hangs, and a worker asks again
/// for what was not answered.
const THREADS: usize = 32;

#[derive(Debug)]
pub(crate) struct Directory {
    root: OwnedFd,
    /// Who has a permit has a thread.
    pub(super) threads: Arc<Semaphore>,
    /// A part is written by one at a time.
    stripes: [Mutex<()>; STRIPES],
    /// One file at a time is read to be compared: a part of it is in memory, for which nobody made room.
    comparing: Mutex<()>,
    /// Directories whose names are known to be flushed: made by whomever, perhaps just before a crash.
    settled: Mutex<HashSet<String>>,
}

/// Where a name lies: its directory, open, and its last component.
struct Place<'a> {
    parent: OwnedFd,
    leaf: &'a str,
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY);

impl Directory {
    /// Blocking. Links in `path` itself are followed, it is the caller's word.
    pub(super) fn open(path: &Path) -> Result<Self, SourceError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let refused = |errno: Errno| match errno {
            Errno::NOENT => SourceError::NoSuchPath { path: path.to_owned() },
            Errno::NOTDIR => SourceError::NotADirectory { path: path.to_owned() },
            errno => SourceError::Io { path: path.to_owned(), source: errno.into() },
        };
        let root = rustix::fs::open(path, flags, Mode::empty()).map_err(refused)?;
        match open_beneath(root.as_fd(), b".", DIRECTORY) {
            Ok(_) => Ok(Self {
                root,
                threads: Arc::new(Semaphore::new(THREADS)),
                stripes: std::array::from_fn(|_| Mutex::default()),
                comparing: Mutex::default(),
                settled: Mutex::default(),
            }),
            Err(Errno::NOSYS | Errno::PERM) => Err(SourceError::NoOpenat2),
            Err(errno) => Err(refused(errno)),
        }
    }

    /// The path of the root that is open, without links.
    pub(super) fn real_path(&self) -> Result<PathBuf, SourceError> {
        let path = PathBuf::from(format!("/proc/self/fd/{}", self.root.as_raw_fd()));
        std::fs::read_link(&path).map_err(|source| SourceError::Io { path, source })
    }

    /// Blocking: makes a directory as a lease would, a file in it, and takes both away.
    pub(super) fn try_out(&self) -> Result<(), HomeError> {
        let name = format!("{RESERVED}try-{}", hex::encode(crate::keyring::random::<8>()));
        mkdirat(&self.root, name.as_str(), Mode::from_raw_mode(0o700))?;
        let tried = self.open_dir(&name).and_then(|dir| {
            let file = create(dir.as_fd(), "file")?;
            fsync(&file)?;
            unlinkat(&dir, "file", AtFlags::empty())?;
            Ok(fsync(&dir)?)
        });
        unlinkat(&self.root, name.as_str(), AtFlags::REMOVEDIR)?;
        tried
    }

    /// A directory below the root, readable so that it can be flushed; the root itself by an empty path.
    fn open_dir(&self, path: &str) -> Result<OwnedFd, HomeError> {
        let path = if path.is_empty() { "." } else { path };
        Ok(open_beneath(self.root.as_fd(), path.as_bytes(), DIRECTORY)?)
    }

    /// A regular file below the root, to be read.
    fn open_file(&self, path: &str) -> Result<OwnedFd, HomeError> {
        // Whatever lies there, opening it waits for nobody.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let file = open_beneath(self.root.as_fd(), path.as_bytes(), flags)?;
        if marks::is_file(&rustix::fs::fstat(&file)?) { Ok(file) } else { Err(HomeError::Occupied) }
    }

    /// Blocking: which version has a name, if a file has it.
    pub(super) fn version(&self, path: &str) -> Result<Option<String>, HomeError> {
        match self.open_file(path).and_then(marks::version) {
            Ok(version) => Ok(Some(version)),
            Err(HomeError::Absent | HomeError::Occupied) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Where a name lies; its directory must be there.
    fn place<'a>(&self, path: &'a str) -> Result<Place<'a>, HomeError> {
        let (parent, leaf) = path.rsplit_once('/').unwrap_or(("", path));
        Ok(Place { parent: self.open_dir(parent)?, leaf })
    }

    /// Where a name is to lie; its directories are made where they are not there.
    fn make_place<'a>(&self, path: &'a str) -> Result<Place<'a>, HomeError> {
        let (parent, leaf) = path.rsplit_once('/').unwrap_or(("", path));
        Ok(Place { parent: self.make_dirs(parent)?, leaf })
    }

    /// Opens a directory, and makes it and those above it where they are not there.
    fn make_dirs(&self, path: &str) -> Result<OwnedFd, HomeError> {
        match self.open_dir(path) {
            Ok(open) if path.is_empty() || self.is_settled(path) => return Ok(open),
            Ok(_) | Err(HomeError::Absent) => {}
            refused => return refused,
        }
        let (above, leaf) = path.rsplit_once('/').unwrap_or(("", path));
        let above = self.make_dirs(above)?;
        match mkdirat(&above, leaf, Mode::from_raw_mode(IMPLIED)) {
            // Who made it may not have come to flush it.
            Ok(()) | Err(Errno::EXIST) => fsync(&above)?,
            Err(errno) => return Err(errno.into()),
        }
        self.settle(path);
        self.open_dir(path)
    }

    fn is_settled(&self, path: &str) -> bool {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner).contains(path)
    }

    fn settle(&self, path: &str) {
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        if settled.len() >= SETTLED {
            settled.clear();
        }
        settled.insert(path.to_owned());
    }

    /// Directories go or take other names.
    fn forget_settled(&self) {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The lease's own directory.
    fn own(&self, lease: LeaseId) -> Result<OwnedFd, HomeError> {
        self.open_dir(&format!("{RESERVED}{lease}"))
    }

    /// The same, made where it is not there.
    fn make_own(&self, lease: LeaseId) -> Result<OwnedFd, HomeError> {
        let name = format!("{RESERVED}{lease}");
        match self.own(lease) {
            Ok(open) if self.is_settled(&name) => return Ok(open),
            Ok(_) | Err(HomeError::Absent) => {}
            refused => return refused,
        }
        match mkdirat(&self.root, name.as_str(), Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => fsync(self.open_dir("")?)?,
            Err(errno) => return Err(errno.into()),
        }
        self.settle(&name);
        self.own(lease)
    }

    /// Blocking.
    pub(super) fn begin_in(&self, lease: LeaseId) -> Result<(), HomeError> {
        self.make_own(lease).map(drop)
    }

    /// Blocking: whether the lease's own directory is here. A mount point whose file system is not mounted is
    /// another directory than that.
    pub(super) fn has_begun(&self, lease: LeaseId) -> Result<bool, HomeError> {
        match self.own(lease) {
            Ok(_) => Ok(true),
            Err(HomeError::Absent) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// A new file in an open directory.
fn create(dir: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, HomeError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(UNNAMED))?)
}

#[cfg(test)]
mod tests;
