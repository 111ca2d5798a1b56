//! Opening names below a directory without ever leaving it.
//!
//! Links are data here: neither a link nor `..` is followed, whatever the tree does while it is
//! read. Mounts inside the tree are crossed.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags, Stat, openat2};
use rustix::io::Errno;
use tidegate_plan::{Timestamp, Version};

/// The kernel answers EAGAIN when a rename or mount races with the lookup; openat2(2) says to try
/// again. A tree that is renamed without pause is given up on.
const ATTEMPTS: usize = 64;

pub(crate) fn open_beneath(
    root: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mut refused = Errno::AGAIN;
    for _ in 0..ATTEMPTS {
        match openat2(root, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => refused = Errno::AGAIN,
            other => return other,
        }
    }
    Err(refused)
}

pub(super) fn denied(errno: Errno) -> bool {
    matches!(errno, Errno::ACCESS | Errno::PERM)
}

/// What fixes one version of a file or link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) size: u64,
    pub(super) mtime: Timestamp,
    pub(super) version: Version,
}

impl Facts {
    pub(super) fn of(stat: &Stat) -> Self {
        Self {
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime: timestamp(stat.st_mtime, stat.st_mtime_nsec),
            version: Version::Inode {
                dev: stat.st_dev,
                ino: stat.st_ino,
                ctime: timestamp(stat.st_ctime, stat.st_ctime_nsec),
            },
        }
    }
}

fn timestamp(secs: i64, nanos: u64) -> Timestamp {
    // The kernel keeps nanoseconds below a second's worth.
    Timestamp { secs, nanos: u32::try_from(nanos).unwrap_or(0) }
}
