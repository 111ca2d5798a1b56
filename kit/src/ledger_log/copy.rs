//! The newest checkpoint in a second place: never replaced by an older one.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use tidegate_ledger::{Checkpoint, CheckpointError, VerifierKey};

use super::error::LogError;
use crate::keyfile;

/// Longest checkpoint read, in bytes.
const MAX_LEN: u64 = 64 * 1024;

/// What lies in the second place.
#[derive(Debug)]
pub(super) enum Mark {
    /// A checkpoint of this ledger.
    Ours(Checkpoint),
    /// Something else, and what it says if it is a checkpoint at all.
    Foreign { says: Option<Checkpoint>, source: CheckpointError },
}

#[derive(Clone, Debug)]
pub(super) struct CheckpointCopy {
    path: PathBuf,
}

impl CheckpointCopy {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The copy as it stands; `None` when there is none yet.
    pub(super) fn look(&self, keys: &[VerifierKey]) -> Result<Option<Mark>, LogError> {
        let text = match read_bounded(&self.path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(self.failed("read", source)),
        };
        let mut refused = CheckpointError::Malformed;
        for key in keys.iter().rev() {
            match Checkpoint::open(&text, key) {
                Ok(checkpoint) => return Ok(Some(Mark::Ours(checkpoint))),
                Err(source) => refused = source,
            }
        }
        let says = Checkpoint::unverified(&text).ok();
        Ok(Some(Mark::Foreign { says, source: refused }))
    }

    fn read(&self, keys: &[VerifierKey]) -> Result<Option<Checkpoint>, LogError> {
        match self.look(keys)? {
            None => Ok(None),
            Some(Mark::Ours(checkpoint)) => Ok(Some(checkpoint)),
            Some(Mark::Foreign { source, .. }) => Err(self.foreign(source)),
        }
    }

    pub(super) fn foreign(&self, source: CheckpointError) -> LogError {
        LogError::CopyForeign { path: self.path.clone(), source }
    }

    /// Puts `note`, a checkpoint of `size` entries, in place unless what is there is as new.
    /// Durable before return; several processes may do so at once.
    pub(super) fn advance(
        &self,
        note: &str,
        size: u64,
        keys: &[VerifierKey],
    ) -> Result<(), LogError> {
        let _lock = self.lock()?;
        if self.read(keys)?.is_none_or(|there| there.size < size) {
            self.replace(note).map_err(|source| self.failed("written", source))?;
        }
        Ok(())
    }

    /// Puts `note` in place of a checkpoint of the ledger before this one.
    pub(super) fn supersede(&self, note: &str) -> Result<(), LogError> {
        let _lock = self.lock()?;
        self.replace(note).map_err(|source| self.failed("written", source))
    }

    /// Held until dropped.
    fn lock(&self) -> Result<File, LogError> {
        let mut lock = self.path.clone().into_os_string();
        lock.push(".lock");
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(lock)
            .and_then(|file| {
                flock(&file, FlockOperation::LockExclusive)?;
                Ok(file)
            })
            .map_err(|source| self.failed("locked", source))
    }

    fn replace(&self, note: &str) -> io::Result<()> {
        let mut staged = self.path.clone().into_os_string();
        staged.push(".new");
        let mut file =
            OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&staged)?;
        file.write_all(note.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&staged, &self.path)?;
        match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => keyfile::sync_dir(parent),
            _ => keyfile::sync_dir(Path::new(".")),
        }
    }

    fn failed(&self, doing: &'static str, source: io::Error) -> LogError {
        LogError::Copy { path: self.path.clone(), doing, source }
    }
}

fn read_bounded(path: &Path) -> io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    File::open(path)?.take(MAX_LEN).read_to_string(&mut text)?;
    Ok(text)
}
