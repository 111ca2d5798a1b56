//! The one place where a failure becomes an errno.

use fuser::Errno;

use crate::blocks::ReadError;

/// Why an operation on the mount fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FsError {
    #[error("no such record")]
    NotFound,
    #[error("the name is longer than any can be")]
    NameTooLong,
    #[error("not a directory")]
    NotDirectory,
    #[error("not a regular file")]
    NotFile,
    #[error("not a symbolic link")]
    NotLink,
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A byte that the manifest promises has no place in any block.
    #[error("the manifest does not place this byte")]
    Unplaced,
    #[error("the tree is read-only")]
    ReadOnly,
    /// Not offered; the kernel remembers and answers in our place from then on.
    #[error("not offered")]
    NotOffered,
    #[error("the name is taken")]
    Exists,
    #[error("the directory is not empty")]
    NotEmpty,
    #[error("no space for more results")]
    NoSpace,
    #[error("more results than the lease may bring home")]
    OverBudget,
    #[error("the store at home renames no directories")]
    CrossDevice,
    #[error("longer than a result may be")]
    TooLarge,
    #[error("the name is not UTF-8")]
    BadName,
    #[error("not permitted on results")]
    NotPermitted,
    #[error("not a possible request")]
    Invalid,
    /// Another version is at home by now.
    #[error("the version is gone at home")]
    Gone,
    /// Bytes that were only in a worker's memory, or keys that were destroyed.
    #[error("the bytes are lost")]
    Lost,
}

impl FsError {
    pub(crate) fn errno(self) -> Errno {
        match self {
            Self::NotFound => Errno::ENOENT,
            Self::NameTooLong => Errno::ENAMETOOLONG,
            Self::NotDirectory => Errno::ENOTDIR,
            Self::NotFile => Errno::EISDIR,
            Self::NotLink => Errno::EINVAL,
            // The object changed at home: like a file replaced under an NFS client.
            Self::Read(ReadError::Stale) => Errno::ESTALE,
            // Never wrong bytes, never zeros, never a false end of file.
            Self::Read(ReadError::Integrity | ReadError::Unavailable | ReadError::LeaseOver)
            | Self::Unplaced => Errno::EIO,
            Self::ReadOnly => Errno::EROFS,
            Self::NotOffered => Errno::ENOSYS,
            Self::Exists => Errno::EEXIST,
            Self::NotEmpty => Errno::ENOTEMPTY,
            Self::NoSpace => Errno::ENOSPC,
            Self::OverBudget => Errno::EDQUOT,
            Self::CrossDevice => Errno::EXDEV,
            Self::TooLarge => Errno::EFBIG,
            Self::BadName => Errno::EILSEQ,
            Self::NotPermitted => Errno::EPERM,
            Self::Invalid => Errno::EINVAL,
            Self::Gone => Errno::ESTALE,
            Self::Lost => Errno::EIO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_object_is_stale_and_every_other_read_failure_is_io() {
        let errno = |error: ReadError| FsError::from(error).errno().code();
        assert_eq!(errno(ReadError::Stale), Errno::ESTALE.code());
        for error in [ReadError::Integrity, ReadError::Unavailable, ReadError::LeaseOver] {
            assert_eq!(errno(error), Errno::EIO.code());
        }
    }
}
