//! A directory of secrets: mode 0700, files 0600, each made whole or not at all, overwritten before
//! it is deleted.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use tidegate_kit::keyfile;
use zeroize::Zeroizing;

use super::KeyringError;

#[derive(Debug)]
pub(crate) struct SecretDir {
    root: PathBuf,
}

impl SecretDir {
    /// Opens the directory, making it with mode 0700; refuses one that others may enter.
    pub(crate) fn open(root: &Path) -> Result<Self, KeyringError> {
        keyfile::private_dir(root)?;
        Ok(Self { root: root.to_owned() })
    }

    fn io(&self, what: &'static str, source: std::io::Error) -> KeyringError {
        KeyringError::Io { what, path: self.root.clone(), source }
    }

    /// Writes a secret that is not there yet, durably; `false` when the name is taken.
    pub(crate) fn create(&self, name: &str, bytes: &[u8]) -> Result<bool, KeyringError> {
        Ok(keyfile::create(&self.root.join(name), bytes)?)
    }

    /// The secret of that name.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, KeyringError> {
        Ok(keyfile::read(&self.root.join(name))?)
    }

    /// The secret of that name, made when absent. Whoever is first decides.
    pub(crate) fn read_or_create(
        &self,
        name: &str,
        make: impl FnOnce() -> Zeroizing<Vec<u8>>,
    ) -> Result<Zeroizing<Vec<u8>>, KeyringError> {
        Ok(keyfile::load_or_create(&self.root.join(name), make)?)
    }

    /// Overwrites and deletes a secret; `false` when there was none.
    ///
    /// What an SSD or a copy-on-write file system keeps of it is out of our reach: that is what the
    /// epoch keys are for.
    pub(crate) fn destroy(&self, name: &str) -> Result<bool, KeyringError> {
        let path = self.root.join(name);
        let mut file = match OpenOptions::new().write(true).open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(self.io("open a file", e)),
        };
        let len = file.metadata().map_err(|e| self.io("look at a file", e))?.len();
        let zeros = vec![0; usize::try_from(len).unwrap_or(usize::MAX).min(64 * 1024)];
        file.write_all(&zeros)
            .and_then(|()| file.sync_all())
            .map_err(|e| self.io("overwrite a file", e))?;
        match std::fs::remove_file(&path) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(self.io("delete a file", e)),
        }
        File::open(&self.root)
            .and_then(|dir| dir.sync_all())
            .map_err(|e| self.io("sync the directory", e))?;
        Ok(true)
    }

    /// Whether no file of that name is there; an error when that cannot be seen.
    pub(crate) fn absent(&self, name: &str) -> Result<bool, KeyringError> {
        match std::fs::symlink_metadata(self.root.join(name)) {
            Ok(_) => Ok(false),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(true),
            Err(e) => Err(self.io("look for a file", e)),
        }
    }

    /// Names of all finished secrets.
    pub(crate) fn names(&self) -> Result<Vec<String>, KeyringError> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.root).map_err(|e| self.io("list", e))? {
            let name = entry.map_err(|e| self.io("list", e))?.file_name();
            // A dot marks a file that is still being written.
            if let Some(name) = name.to_str().filter(|name| !name.contains('.')) {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }
}
