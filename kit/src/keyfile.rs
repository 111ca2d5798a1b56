//! Secret files: mode 0600, created whole or not at all, and only once.
//!
//! Processes that start together on a new directory agree on one key, because a finished file is
//! linked into its place and a link never replaces.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Longest key file read, in bytes.
const MAX_LEN: u64 = 64 * 1024;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    #[error("{path}: {doing}")]
    Io {
        path: PathBuf,
        doing: &'static str,
        #[source]
        source: io::Error,
    },
    #[error(
        "{0} can be read by others than its owner: run chmod 600 on it, and consider its key known"
    )]
    Exposed(PathBuf),
    #[error("{0} is open to others than its owner and not empty: run chmod 700 on it")]
    OpenDirectory(PathBuf),
    #[error("{0} is longer than any key file")]
    TooLong(PathBuf),
}

fn failed(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> KeyFileError {
    move |source| KeyFileError::Io { path: path.to_owned(), doing, source }
}

/// Makes a directory (and its parents) with mode 0700. An empty one that is wider is narrowed,
/// one that holds files and is open to others is refused.
pub fn private_dir(path: &Path) -> Result<(), KeyFileError> {
    use std::os::unix::fs::PermissionsExt as _;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(failed(path, "cannot create this directory"))?;
    let meta = path.metadata().map_err(failed(path, "cannot look at this directory"))?;
    if meta.mode() & 0o077 == 0 {
        return Ok(());
    }
    let empty =
        path.read_dir().map_err(failed(path, "cannot read this directory"))?.next().is_none();
    if !empty {
        return Err(KeyFileError::OpenDirectory(path.to_owned()));
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
        .map_err(failed(path, "cannot make this directory private"))
}

/// Reads a secret file; `None` when there is none. One that others can read is refused.
pub fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, KeyFileError> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(path, "cannot open this key file")(e)),
    };
    let meta = file.metadata().map_err(failed(path, "cannot look at this key file"))?;
    if meta.mode() & 0o077 != 0 {
        return Err(KeyFileError::Exposed(path.to_owned()));
    }
    // Room for all of it at once, so that no copy is left behind by a growing buffer.
    let Some(len) = usize::try_from(meta.len()).ok().filter(|_| meta.len() <= MAX_LEN) else {
        return Err(KeyFileError::TooLong(path.to_owned()));
    };
    let mut bytes = Zeroizing::new(vec![0; len]);
    file.read_exact(&mut bytes).map_err(failed(path, "cannot read this key file"))?;
    Ok(Some(bytes))
}

/// Reads a secret file, or creates it with what `make` gives. Whoever else creates it at the same
/// time gets the same bytes back. Durable before return.
pub fn load_or_create(
    path: &Path,
    make: impl FnOnce() -> Zeroizing<Vec<u8>>,
) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    if let Some(bytes) = read(path)? {
        return Ok(bytes);
    }
    create(path, &make())?;
    read(path)?.ok_or_else(|| {
        failed(path, "the key file vanished")(io::Error::from(io::ErrorKind::NotFound))
    })
}

/// Creates a secret file unless there is one; says whether it did. Durable before return.
pub fn create(path: &Path, bytes: &[u8]) -> Result<bool, KeyFileError> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(parent)
        .map_err(failed(parent, "cannot create this directory"))?;
    let mut staged = path.as_os_str().to_owned();
    staged.push(format!(".{}", crate::keyfile::random_hex::<8>()));
    let staged = PathBuf::from(staged);
    let linked = stage(&staged, bytes).and_then(|()| match std::fs::hard_link(&staged, path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(e),
    });
    let unlinked = std::fs::remove_file(&staged);
    let linked = linked.map_err(failed(path, "cannot create this key file"))?;
    unlinked.map_err(failed(&staged, "cannot remove this temporary key file"))?;
    sync_dir(parent).map_err(failed(parent, "cannot flush this directory"))?;
    Ok(linked)
}

/// Whether files can be made in a directory as [`create`] makes them; nothing stays.
pub fn try_out(directory: &Path) -> Result<(), KeyFileError> {
    let path = directory.join(format!(".probe-{}", random_hex::<8>()));
    create(&path, b"")?;
    std::fs::remove_file(&path).map_err(failed(&path, "cannot remove this probe"))
}

fn stage(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Random bytes from the system.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .expect("the kernel's random source works, or nothing here may go on");
    bytes
}

pub(crate) fn random_hex<const N: usize>() -> String {
    random::<N>().iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn one_key_whoever_starts_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/dir/key");
        let start = std::sync::Barrier::new(8);
        let keys: Vec<_> = std::thread::scope(|scope| {
            let (path, start) = (&path, &start);
            let threads: Vec<_> = (0..8u8)
                .map(|i| {
                    scope.spawn(move || {
                        start.wait();
                        load_or_create(path, || Zeroizing::new(vec![i; 32])).unwrap()
                    })
                })
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|key| *key == keys[0]));
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(path.parent().unwrap().metadata().unwrap().mode() & 0o777, 0o700);
        assert_eq!(path.parent().unwrap().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn what_is_tried_out_stays_empty() {
        let dir = tempfile::tempdir().unwrap();
        try_out(dir.path()).unwrap();
        assert!(dir.path().read_dir().unwrap().next().is_none());
        assert!(matches!(try_out(Path::new("/proc/self")), Err(KeyFileError::Io { .. })));
    }

    #[test]
    fn exposed_files_and_directories_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        assert!(create(&path, b"secret").unwrap());
        assert!(!create(&path, b"other").unwrap());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(read(&path), Err(KeyFileError::Exposed(_))));
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(private_dir(dir.path()), Err(KeyFileError::OpenDirectory(_))));
        std::fs::remove_file(&path).unwrap();
        private_dir(dir.path()).unwrap();
        assert_eq!(dir.path().metadata().unwrap().mode() & 0o777, 0o700);
        let big = dir.path().join("big");
        std::fs::write(&big, vec![0; 70_000]).unwrap();
        std::fs::set_permissions(&big, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(read(&big), Err(KeyFileError::TooLong(_))));
    }
}
