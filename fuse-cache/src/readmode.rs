//! The one place that chooses how an inode's bytes reach its readers.
//!
//! The kernel wants one mode per inode from its first open to its last close: mixing them breaks
//! mappings and opens. The choice here follows from the file's size alone, so it is the same for
//! every open, and for every worker that replaces another under open files. (A mode that depends on
//! time, such as passthrough to decrypted bytes, would be chosen when the open count leaves 0 and
//! kept until it is back, and belongs here too.)
//!
//! It is also a decision about secrecy: bytes in the kernel's page cache cannot be overwritten by
//! us. What went there is dropped at wipe and stated in the certificate as freed, not overwritten.

use fuser::FopenFlags;

/// Files up to this size go through the kernel's page cache, in bytes. A direct read of a small file
/// costs about as much as a cached one, but its second epoch is 6 times dearer; large files read
/// through the page cache cost 4 to 5 times the CPU of direct reads.
pub(crate) const SMALL_FILE_MAX: u64 = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadMode {
    /// Every read is answered by the worker; the page cache holds only what is mapped.
    Direct,
    /// Pages stay in the kernel's page cache from one open to the next.
    KeptPageCache,
}

impl ReadMode {
    pub(crate) const fn of(size: u64) -> Self {
        if size > SMALL_FILE_MAX { Self::Direct } else { Self::KeptPageCache }
    }

    pub(crate) fn open_flags(self) -> FopenFlags {
        let mode = match self {
            Self::Direct => FopenFlags::FOPEN_DIRECT_IO,
            Self::KeptPageCache => FopenFlags::FOPEN_KEEP_CACHE,
        };
        mode | FopenFlags::FOPEN_NOFLUSH
    }

    /// `st_blksize`: what stdio and Python's buffered readers ask for at once. Small direct reads are
    /// dear, so large files ask for eight chunks; pages need no hint.
    pub(crate) const fn preferred_io(self) -> u32 {
        match self {
            Self::Direct => 128 << 10,
            Self::KeptPageCache => 4096,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boundary_is_small() {
        assert_eq!(ReadMode::of(0), ReadMode::KeptPageCache);
        assert_eq!(ReadMode::of(SMALL_FILE_MAX), ReadMode::KeptPageCache);
        assert_eq!(ReadMode::of(SMALL_FILE_MAX + 1), ReadMode::Direct);
    }
}
