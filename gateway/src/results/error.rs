//! What can go wrong at the home of results, sorted by what the worker can make of it.

use rustix::io::Errno;

/// A step at home did not happen, and nothing of it is visible there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HomeError {
    #[error("there is no such file or upload")]
    Absent,
    #[error("the parts of the upload are not those of the receipts")]
    Torn,
    #[error("the name is in use by something of another kind, or the directory is not empty")]
    Occupied,
    #[error("this store has nothing of the kind")]
    NotOffered,
    #[error("the file at home is no longer this version")]
    Changed,
    #[error("a name or length that this home does not take: {0}")]
    Unfit(&'static str),
    #[error("the file system or store is full")]
    Full,
    /// It may pass, or somebody at home must mend it: the worker tries again.
    #[error("the results home cannot be used now: {0}")]
    Unavailable(String),
}

impl From<Errno> for HomeError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOENT => Self::Absent,
            Errno::ISDIR | Errno::NOTDIR | Errno::EXIST | Errno::NOTEMPTY | Errno::LOOP => {
                Self::Occupied
            }
            Errno::NOSPC | Errno::DQUOT | Errno::FBIG => Self::Full,
            Errno::NAMETOOLONG | Errno::INVAL => Self::Unfit("the file system refuses it"),
            // Another file system is mounted there.
            Errno::XDEV => Self::NotOffered,
            errno => Self::Unavailable(errno.to_string()),
        }
    }
}
