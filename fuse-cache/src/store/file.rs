//! The cache file itself: found or made, locked, reserved.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, FlockOperation, Mode, OFlags, fallocate, flock, fstatvfs, open};
use rustix::io::Errno;
use tidegate_plan::LeaseId;

use super::StoreError;
use super::page::Superblock;
use crate::budget::PAGE;

pub(crate) struct CacheFile {
    file: File,
    dir: PathBuf,
    path: PathBuf,
}

/// Where the cache of a lease and rank lies in a directory.
pub(crate) fn path_in(dir: &Path, lease: LeaseId, rank: u16) -> PathBuf {
    dir.join(format!("tidegate-{lease}-{rank}.cache"))
}

impl CacheFile {
    pub(super) fn open(dir: &Path, superblock: &Superblock) -> Result<Self, StoreError> {
        Self::open_at(dir, path_in(dir, superblock.lease, superblock.rank))
    }

    /// Opens or makes a file of ours in a directory, and locks it.
    pub(crate) fn open_at(dir: &Path, path: PathBuf) -> Result<Self, StoreError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let opened = open(&path, flags, Mode::RUSR | Mode::WUSR).map_err(|errno| match errno {
            Errno::NOENT | Errno::NOTDIR => StoreError::NoDirectory(dir.into()),
            Errno::ACCESS | Errno::PERM => StoreError::NotAllowed(dir.into()),
            Errno::ROFS => StoreError::ReadOnly(dir.into()),
            Errno::NOSPC | Errno::DQUOT => {
                StoreError::NoSpace { path: dir.into(), needs: PAGE as u64, free: 0 }
            }
            errno => io_error(dir, "opened", errno.into()),
        })?;
        flock(&opened, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| StoreError::InUse(path.clone()))?;
        Ok(Self { file: opened.into(), dir: dir.into(), path })
    }

    pub(crate) fn as_file(&self) -> &File {
        &self.file
    }

    /// The same file opened past the page cache; `None` where its file system does not do that.
    pub(crate) fn direct(&self) -> Option<File> {
        let same = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let flags = OFlags::RDWR | OFlags::DIRECT | OFlags::CLOEXEC;
        open(same, flags, Mode::empty()).ok().map(File::from)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn len(&self) -> Result<u64, StoreError> {
        let metadata = self.file.metadata();
        Ok(metadata.map_err(|source| io_error(&self.dir, "examined", source))?.len())
    }

    /// Bytes that this user may still write on the file system.
    pub(crate) fn free_bytes(&self) -> Result<u64, StoreError> {
        let stat =
            fstatvfs(&self.file).map_err(|errno| io_error(&self.dir, "examined", errno.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Reserves the whole length. `free` is for the message.
    pub(super) fn reserve(&self, len: u64, free: u64) -> Result<(), StoreError> {
        let no_space = || StoreError::NoSpace { path: self.dir.clone(), needs: len, free };
        match fallocate(&self.file, FallocateFlags::empty(), 0, len) {
            Ok(()) => Ok(()),
            Err(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => Err(no_space()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.fill(len).map_err(|source| {
                match source.raw_os_error().map(Errno::from_raw_os_error) {
                    Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => no_space(),
                    _ => io_error(&self.dir, "reserved", source),
                }
            }),
            Err(errno) => Err(io_error(&self.dir, "reserved", errno.into())),
        }
    }

    /// Reserves by writing, where the file system knows no other way.
    fn fill(&self, len: u64) -> io::Result<()> {
        let zeros = vec![0; 1 << 20];
        let mut at = 0;
        while at < len {
            let many = zeros.len().min(usize::try_from(len - at).unwrap_or(usize::MAX));
            self.file.write_all_at(&zeros[..many], at)?;
            at += many as u64;
        }
        self.file.sync_data()
    }

    /// The superblock, when the file begins with a whole one.
    pub(crate) fn superblock(&self) -> Result<Option<Superblock>, StoreError> {
        if self.len()? < PAGE as u64 {
            return Ok(None);
        }
        Ok(Superblock::parse(&*self.read_page(0)?))
    }

    pub(crate) fn write_superblock(&self, superblock: &Superblock) -> Result<(), StoreError> {
        self.file
            .write_all_at(superblock.to_page().as_slice(), 0)
            .map_err(|source| io_error(&self.dir, "written", source))
    }

    pub(super) fn read_page(&self, at: u64) -> Result<Box<[u8; PAGE]>, StoreError> {
        let mut page = Box::new([0; PAGE]);
        self.file
            .read_exact_at(page.as_mut_slice(), at)
            .map_err(|source| io_error(&self.dir, "read", source))?;
        Ok(page)
    }

    /// Removes the name of a file that never held anything; best effort.
    pub(crate) fn unlink_now(&self) {
        if let Err(why) = std::fs::remove_file(&self.path) {
            tracing::warn!(error = %why, "the empty cache file could not be removed");
        }
    }
}

pub(super) fn io_error(path: &Path, what: &'static str, source: io::Error) -> StoreError {
    StoreError::Io { path: path.into(), what, source }
}
