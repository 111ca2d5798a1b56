//! A directory tree as a source.

use std::ffi::OsStr;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use tidegate_plan::Entry;

use super::beneath::{denied, open_beneath};
use super::error::{ReadError, SourceError};
use super::found::Found;
use super::pinned::PinnedFile;
use super::walk::{Broken, walk};

/// A tree, held by one descriptor of its root from the start: whatever is renamed or mounted over
/// its path later, this tree is read.
#[derive(Debug)]
pub(crate) struct Directory {
    root: OwnedFd,
    path: PathBuf,
}

impl Directory {
    /// Blocking. Links in `path` itself are followed, it is the caller's word.
    pub(super) fn open(path: &Path) -> Result<Self, SourceError> {
        let path = path.to_owned();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(root) => root,
            Err(errno) => return Err(root_refused(path, errno)),
        };
        match open_beneath(root.as_fd(), b".", OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(_) => Ok(Self { root, path }),
            Err(Errno::NOSYS | Errno::PERM) => Err(SourceError::NoOpenat2),
            Err(errno) => Err(root_refused(path, errno)),
        }
    }

    /// The path of the root that is open, without links.
    pub(super) fn real_path(&self) -> Result<PathBuf, SourceError> {
        let path = PathBuf::from(format!("/proc/self/fd/{}", self.root.as_raw_fd()));
        std::fs::read_link(&path).map_err(|source| SourceError::Io { path, source })
    }

    /// Blocking: lists the whole tree.
    pub(super) fn list(&self) -> Result<Found, SourceError> {
        walk(self.root.as_fd()).map_err(|Broken { path, errno }| {
            let path = match path.as_slice() {
                [] => self.path.clone(),
                path => self.path.join(OsStr::from_bytes(path)),
            };
            SourceError::Io { path, source: errno.into() }
        })
    }

    /// Blocking.
    pub(crate) fn open_file(&self, entry: &Entry) -> Result<PinnedFile, ReadError> {
        PinnedFile::open(self.root.as_fd(), entry)
    }
}

fn root_refused(path: PathBuf, errno: Errno) -> SourceError {
    match errno {
        Errno::NOENT => SourceError::NoSuchPath { path },
        Errno::NOTDIR => SourceError::NotADirectory { path },
        errno if denied(errno) => SourceError::PathDenied { path },
        errno => SourceError::Io { path, source: errno.into() },
    }
}
