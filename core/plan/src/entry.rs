use crate::path::RelPath;

/// An instant of a source's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Seconds since the Unix epoch.
    pub secs: i64,
    /// 0 ..= 999 999 999.
    pub nanos: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Dir,
    File,
    /// With its target, which is data and is never followed.
    Symlink(Box<[u8]>),
}

/// What pins a file's content: a read that finds another version is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Version {
    /// Directories and links.
    None,
    /// A file of a directory source, together with size and mtime.
    Inode { dev: u64, ino: u64, ctime: Timestamp },
    /// An S3 object.
    Object { etag: String, version_id: Option<String> },
}

/// One name of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub path: RelPath,
    pub kind: Kind,
    /// Bytes: content of a file, target of a link, 0 for a directory.
    pub size: u64,
    /// The 12 permission bits.
    pub mode: u32,
    pub mtime: Timestamp,
    pub version: Version,
}

impl Entry {
    /// A directory that nobody listed but whose children exist.
    pub(crate) fn implied_dir(path: RelPath) -> Self {
        Self {
            path,
            kind: Kind::Dir,
            size: 0,
            mode: 0o755,
            mtime: Timestamp::default(),
            version: Version::None,
        }
    }

    pub fn is_dir(&self) -> bool {
        self.kind == Kind::Dir
    }

    pub fn is_file(&self) -> bool {
        self.kind == Kind::File
    }
}

/// A name of the source that the snapshot leaves out, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unshown {
    pub name: Box<[u8]>,
    pub reason: String,
}
