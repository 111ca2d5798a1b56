//! Lease keys: in RAM while their leases live, at rest only wrapped under the key of a short epoch.
//!
//! A wrapped key is one file named after its lease, apart from the state's history. Closing a lease
//! wipes the key in RAM, overwrites and deletes that file and looks that it is gone. When the last
//! lease of a past epoch is closed, the epoch's key goes too, and with it every backup of the
//! wrapped keys. That is [marked](Retired) first, so that its entry is not lost with the process.
//! Epoch keys hide behind [`EpochKeys`], so that a KMS can hold them instead.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::{PoisonError, RwLock};

use tidegate_kit::keyfile::KeyFileError;
use tidegate_kit::state::StateError;
use tidegate_plan::LeaseId;
use tidegate_seal::LeaseKey;
use tidegate_seal::rand_core::UnwrapErr;

mod directory;
mod epochs;
mod retired;
mod wrapped;

pub(crate) use directory::SecretDir;
pub(crate) use epochs::{Calendar, DirectoryEpochs, EpochKeys};
pub(crate) use retired::Retired;
pub(crate) use wrapped::Wrapped;

/// The keyring could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyringError {
    #[error("cannot {what} in the keyring {path}")]
    Io { what: &'static str, path: std::path::PathBuf, source: std::io::Error },
    #[error("a file of the keyring cannot be used")]
    KeyFile(#[from] KeyFileError),
    #[error("a wrapped lease key does not open under the key of epoch {0}")]
    Unwrap(u32),
    #[error("the key of epoch {0} is not there")]
    NoEpoch(u32),
    #[error(
        "the key of epoch {0} is not the one that other replicas use: give all of them the same `secrets`"
    )]
    OtherEpoch(u32),
    #[error("a file of the keyring is not what it should be")]
    Damaged,
    #[error("the keyring's part of the state cannot be reached")]
    State(#[from] StateError),
    #[error("a task of the keyring ended early")]
    Task(#[from] tokio::task::JoinError),
}

/// What a destruction showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Destroyed {
    /// The wrapped key's file was looked for afterwards and is not there.
    pub(crate) absent: bool,
}

/// Keys of the leases that this gateway serves.
pub(crate) struct Keyring {
    epochs: Box<dyn EpochKeys>,
    calendar: Calendar,
    wrapped: Wrapped,
    retired: Retired,
    live: RwLock<HashMap<LeaseId, LeaseKey>>,
}

/// The system's generator; the process ends when the kernel cannot give random bytes.
pub(crate) fn rng() -> UnwrapErr<getrandom::SysRng> {
    UnwrapErr(getrandom::SysRng)
}

/// Fresh random bytes.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    use tidegate_seal::rand_core::Rng as _;
    let mut bytes = [0; N];
    rng().fill_bytes(&mut bytes);
    bytes
}

impl Keyring {
    /// Opens the keyring: epoch keys under `root`, made when there are none, each for `epoch_s`
    /// seconds, and the wrapped keys.
    pub(crate) async fn open(
        root: &Path,
        wrapped: Wrapped,
        retired: Retired,
        epoch_s: u64,
    ) -> Result<Self, KeyringError> {
        let epochs = root.join("epochs");
        let epochs = tokio::task::spawn_blocking(move || SecretDir::open(&epochs)).await??;
        Ok(Self {
            epochs: Box::new(DirectoryEpochs::new(epochs)),
            calendar: Calendar { epoch_s },
            wrapped,
            retired,
            live: RwLock::new(HashMap::new()),
        })
    }

    /// The epoch whose key wraps what is made at `now`.
    pub(crate) fn epoch_of(&self, now: u64) -> u32 {
        self.calendar.epoch_of(now)
    }

    /// Whether the epoch's key here is the one that wraps for all replicas.
    async fn agrees(&self, epoch: u32) -> Result<bool, KeyringError> {
        let mark = self.epochs.mark(epoch).await?;
        self.wrapped.agrees(epoch, mark.as_ref()).await
    }

    /// Makes the key of a new lease, wraps it under an epoch's key and keeps it.
    pub(crate) async fn create(&self, lease: LeaseId, epoch: u32) -> Result<(), KeyringError> {
        let key = LeaseKey::generate(&mut rng());
        let mut record = epoch.to_be_bytes().to_vec();
        record.extend(self.epochs.wrap(epoch, lease, &key).await?);
        if !self.agrees(epoch).await? {
            return Err(KeyringError::OtherEpoch(epoch));
        }
        if !self.wrapped.create(lease, record).await? {
            return Err(KeyringError::Damaged);
        }
        self.live.write().unwrap_or_else(PoisonError::into_inner).insert(lease, key);
        Ok(())
    }

    /// Loads the key of a lease that was granted before a restart; `false` when there is none.
    pub(crate) async fn load(&self, lease: LeaseId) -> Result<bool, KeyringError> {
        let Some(record) = self.wrapped.read(&lease.to_string()).await? else {
            return Ok(false);
        };
        let (epoch, sealed) = record.split_first_chunk::<4>().ok_or(KeyringError::Damaged)?;
        let epoch = u32::from_be_bytes(*epoch);
        let key = match self.epochs.unwrap(epoch, lease, sealed).await {
            Err(KeyringError::Unwrap(_) | KeyringError::NoEpoch(_))
                if !self.agrees(epoch).await? =>
            {
                return Err(KeyringError::OtherEpoch(epoch));
            }
            unwrapped => unwrapped?,
        };
        self.live.write().unwrap_or_else(PoisonError::into_inner).insert(lease, key);
        Ok(true)
    }

    /// Derives something from a live lease's key; `None` once it is destroyed. The key never leaves.
    pub(crate) fn with<T>(&self, lease: LeaseId, derive: impl FnOnce(&LeaseKey) -> T) -> Option<T> {
        self.live.read().unwrap_or_else(PoisonError::into_inner).get(&lease).map(derive)
    }

    /// Wipes the key in RAM, then its wrapped form, and looks whether that is gone. Repeatable.
    pub(crate) async fn destroy(&self, lease: LeaseId) -> Result<Destroyed, KeyringError> {
        self.forget(lease);
        Ok(Destroyed { absent: self.wrapped.destroy(lease).await? })
    }

    /// Wipes the key in RAM only.
    pub(crate) fn forget(&self, lease: LeaseId) {
        // The key's bytes are zeroized when it is dropped, under the lock: nobody can be using it.
        self.live.write().unwrap_or_else(PoisonError::into_inner).remove(&lease);
    }

    /// Destroys the keys of past epochs under which no wrapped key is left; returns the numbers of
    /// those that are gone and not [written down](Self::written) yet, whoever destroyed them.
    pub(crate) async fn retire_epochs(&self, now: u64) -> Result<Vec<u32>, KeyringError> {
        let mut past = self.epochs.list().await?;
        past.retain(|epoch| self.calendar.is_past(*epoch, now));
        if !past.is_empty() {
            let used = self.epochs_in_use().await?;
            for epoch in past.into_iter().filter(|epoch| !used.contains(epoch)) {
                self.retired.mark(epoch).await?;
                self.epochs.destroy(epoch).await?;
            }
        }
        let mut gone = self.retired.marked().await?;
        if !gone.is_empty() {
            // A mark says what was meant; what was done is looked for.
            let there = self.epochs.list().await?;
            gone.retain(|epoch| !there.contains(epoch));
        }
        Ok(gone)
    }

    /// The destruction of these epochs' keys is in the ledger.
    pub(crate) async fn written(&self, epochs: &[u32]) -> Result<(), KeyringError> {
        for epoch in epochs {
            self.wrapped.forget(*epoch).await?;
            self.retired.unmark(*epoch).await?;
        }
        Ok(())
    }

    async fn epochs_in_use(&self) -> Result<BTreeSet<u32>, KeyringError> {
        let mut used = BTreeSet::new();
        for name in self.wrapped.names().await? {
            // One that is deleted meanwhile is simply not in use.
            if let Some(record) = self.wrapped.read(&name).await? {
                let epoch = record.first_chunk::<4>().ok_or(KeyringError::Damaged)?;
                used.insert(u32::from_be_bytes(*epoch));
            }
        }
        Ok(used)
    }

    /// Whether a lease has a wrapped key.
    pub(crate) async fn has(&self, lease: LeaseId) -> Result<bool, KeyringError> {
        Ok(self.wrapped.read(&lease.to_string()).await?.is_some())
    }

    /// Leases whose wrapped keys are there.
    pub(crate) async fn leases(&self) -> Result<Vec<LeaseId>, KeyringError> {
        let names = self.wrapped.names().await?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Whether an epoch's key is destroyed.
    pub(crate) async fn epoch_is_destroyed(&self, epoch: u32) -> Result<bool, KeyringError> {
        Ok(!self.epochs.list().await?.contains(&epoch))
    }
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keyring(..)")
    }
}

#[cfg(test)]
mod tests;
