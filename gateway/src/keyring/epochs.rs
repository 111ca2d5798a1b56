//! Key-encryption keys, one a week.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tidegate_plan::LeaseId;
use tidegate_seal::{EpochKey, LeaseKey, SALT_LEN, unwrap_lease_key, wrap_lease_key};
use zeroize::Zeroizing;

use super::{KeyringError, SecretDir, random};

/// How far the clocks of replicas may stand apart while an epoch begins, in seconds.
const SETTLE_S: u64 = 60;

/// How time is cut into epochs: a closed lease's backups die with its epoch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Calendar {
    /// Seconds of an epoch.
    pub(crate) epoch_s: u64,
}

impl Calendar {
    /// The epoch of a moment, seconds since the Unix epoch.
    pub(crate) fn epoch_of(self, now: u64) -> u32 {
        u32::try_from(now / self.epoch_s.max(1)).unwrap_or(u32::MAX)
    }

    /// Whether no replica can be making new lease keys in this epoch. True of epochs that were
    /// counted in another length too.
    pub(crate) fn is_past(self, epoch: u32, now: u64) -> bool {
        let settle = SETTLE_S.min(self.epoch_s / 4);
        let near = [now.saturating_sub(settle), now, now.saturating_add(settle)];
        !near.map(|time| self.epoch_of(time)).contains(&epoch)
    }
}

/// Where epoch keys are held and used. A KMS wraps and unwraps without ever showing them.
pub(crate) trait EpochKeys: Send + Sync {
    /// Wraps a lease key, making the epoch's key when there is none yet.
    fn wrap<'a>(
        &'a self,
        epoch: u32,
        lease: LeaseId,
        key: &'a LeaseKey,
    ) -> BoxFuture<'a, Result<Vec<u8>, KeyringError>>;

    fn unwrap<'a>(
        &'a self,
        epoch: u32,
        lease: LeaseId,
        wrapped: &'a [u8],
    ) -> BoxFuture<'a, Result<LeaseKey, KeyringError>>;

    /// Epochs whose keys exist.
    fn list(&self) -> BoxFuture<'_, Result<Vec<u32>, KeyringError>>;

    /// What tells one key of this epoch from another, and nothing else of it; `None` without a key.
    fn mark(&self, epoch: u32) -> BoxFuture<'_, Result<Option<[u8; 32]>, KeyringError>>;

    /// Destroys an epoch's key; `false` when there was none.
    fn destroy(&self, epoch: u32) -> BoxFuture<'_, Result<bool, KeyringError>>;
}

/// Epoch keys as files of a 0700 directory.
pub(crate) struct DirectoryEpochs {
    dir: Arc<SecretDir>,
}

impl DirectoryEpochs {
    pub(crate) fn new(dir: SecretDir) -> Self {
        Self { dir: Arc::new(dir) }
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&SecretDir) -> Result<T, KeyringError> + Send + 'static,
    ) -> Result<T, KeyringError> {
        let dir = Arc::clone(&self.dir);
        tokio::task::spawn_blocking(move || work(&dir)).await?
    }
}

fn epoch_key(bytes: &[u8]) -> Result<EpochKey, KeyringError> {
    EpochKey::from_slice(bytes).ok_or(KeyringError::Damaged)
}

impl EpochKeys for DirectoryEpochs {
    fn wrap<'a>(
        &'a self,
        epoch: u32,
        lease: LeaseId,
        key: &'a LeaseKey,
    ) -> BoxFuture<'a, Result<Vec<u8>, KeyringError>> {
        Box::pin(async move {
            let bytes = self
                .on_disk(move |dir| {
                    dir.read_or_create(&epoch.to_string(), || {
                        Zeroizing::new(random::<32>().to_vec())
                    })
                })
                .await?;
            Ok(wrap_lease_key(&epoch_key(&bytes)?, epoch, &lease, key, random::<SALT_LEN>()))
        })
    }

    fn unwrap<'a>(
        &'a self,
        epoch: u32,
        lease: LeaseId,
        wrapped: &'a [u8],
    ) -> BoxFuture<'a, Result<LeaseKey, KeyringError>> {
        Box::pin(async move {
            let bytes = self
                .on_disk(move |dir| dir.read(&epoch.to_string()))
                .await?
                .ok_or(KeyringError::NoEpoch(epoch))?;
            unwrap_lease_key(&epoch_key(&bytes)?, epoch, &lease, wrapped)
                .map_err(|_| KeyringError::Unwrap(epoch))
        })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<u32>, KeyringError>> {
        Box::pin(async {
            let names = self.on_disk(SecretDir::names).await?;
            Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
        })
    }

    fn mark(&self, epoch: u32) -> BoxFuture<'_, Result<Option<[u8; 32]>, KeyringError>> {
        Box::pin(async move {
            let key = self.on_disk(move |dir| dir.read(&epoch.to_string())).await?;
            Ok(key.map(|key| blake3::derive_key("tidegate/v1 mark of an epoch key", &key)))
        })
    }

    fn destroy(&self, epoch: u32) -> BoxFuture<'_, Result<bool, KeyringError>> {
        Box::pin(self.on_disk(move |dir| dir.destroy(&epoch.to_string())))
    }
}
