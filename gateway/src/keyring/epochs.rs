//! Key-encryption keys, one a week.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tidegate_plan::LeaseId;
use tidegate_seal::{EpochKey, LeaseKey, SALT_LEN, unwrap_lease_key, wrap_lease_key};
use zeroize::Zeroizing;

use super::{KeyringError, SecretDir, random};

/// Seconds of an epoch: a week, so that a closed lease's backups die soon.
const EPOCH_S: u64 = 7 * 24 * 3600;

/// The epoch of a moment, seconds since the Unix epoch.
pub(crate) fn epoch_of(now: u64) -> u32 {
    u32::try_from(now / EPOCH_S).unwrap_or(u32::MAX)
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

    fn destroy(&self, epoch: u32) -> BoxFuture<'_, Result<bool, KeyringError>> {
        Box::pin(self.on_disk(move |dir| dir.destroy(&epoch.to_string())))
    }
}
