//! Wrapped lease keys: one object a lease, apart from the state's history, so that they can go.

use std::path::Path;
use std::sync::Arc;

use tidegate_kit::state::{Creation, StateStore};
use tidegate_plan::LeaseId;
use tokio::task::spawn_blocking;

use super::{KeyringError, SecretDir};

/// Where they lie in a bucket.
const PREFIX: &str = "wrapped";
/// Where it lies there which epoch keys wrap them.
const MARKS: &str = "epochs";

#[derive(Clone, Debug)]
pub(crate) enum Wrapped {
    /// Files that are overwritten before they are deleted.
    Directory(Arc<SecretDir>),
    /// Objects that replicas share.
    Store(StateStore),
}

impl Wrapped {
    pub(crate) async fn directory(root: &Path) -> Result<Self, KeyringError> {
        let root = root.to_owned();
        let opened = spawn_blocking(move || SecretDir::open(&root)).await??;
        Ok(Self::Directory(Arc::new(opened)))
    }

    pub(crate) fn in_store(store: StateStore) -> Self {
        Self::Store(store)
    }

    /// `false` when the lease has one already.
    pub(super) async fn create(
        &self,
        lease: LeaseId,
        record: Vec<u8>,
    ) -> Result<bool, KeyringError> {
        match self {
            Self::Directory(dir) => {
                let dir = Arc::clone(dir);
                spawn_blocking(move || dir.create(&lease.to_string(), &record)).await?
            }
            Self::Store(store) => {
                Ok(store.create(&path(&lease.to_string()), record).await? == Creation::Created)
            }
        }
    }

    pub(super) async fn read(&self, name: &str) -> Result<Option<Vec<u8>>, KeyringError> {
        match self {
            Self::Directory(dir) => {
                let (dir, name) = (Arc::clone(dir), name.to_owned());
                let found = spawn_blocking(move || dir.read(&name)).await??;
                Ok(found.map(|bytes| bytes.to_vec()))
            }
            Self::Store(store) => Ok(store.read(&path(name)).await?.map(Vec::from)),
        }
    }

    /// Deletes; whether it was looked for afterwards and is not there.
    pub(super) async fn destroy(&self, lease: LeaseId) -> Result<bool, KeyringError> {
        let name = lease.to_string();
        match self {
            Self::Directory(dir) => {
                let dir = Arc::clone(dir);
                spawn_blocking(move || {
                    dir.destroy(&name)?;
                    dir.absent(&name)
                })
                .await?
            }
            Self::Store(store) => {
                // Reads the absence back, or fails.
                store.delete(&path(&name)).await?;
                Ok(true)
            }
        }
    }

    /// Whether this is the epoch's key for all who share the wrapped keys. The first one is.
    pub(super) async fn agrees(
        &self,
        epoch: u32,
        mark: Option<&[u8; 32]>,
    ) -> Result<bool, KeyringError> {
        let Self::Store(store) = self else { return Ok(true) };
        let path = format!("{MARKS}/{epoch}");
        match mark {
            Some(mark) => Ok(store.create(&path, hex::encode(mark)).await? == Creation::Created),
            None => Ok(store.read(&path).await?.is_none()),
        }
    }

    /// The epoch is over.
    pub(super) async fn forget(&self, epoch: u32) -> Result<(), KeyringError> {
        match self {
            Self::Directory(_) => Ok(()),
            Self::Store(store) => Ok(store.delete(&format!("{MARKS}/{epoch}")).await?),
        }
    }

    pub(super) async fn names(&self) -> Result<Vec<String>, KeyringError> {
        match self {
            Self::Directory(dir) => {
                let dir = Arc::clone(dir);
                spawn_blocking(move || dir.names()).await?
            }
            Self::Store(store) => Ok(store.list(PREFIX).await?),
        }
    }
}

fn path(name: &str) -> String {
    format!("{PREFIX}/{name}")
}
