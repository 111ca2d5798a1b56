use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload};

use crate::keyfile::{self, KeyFileError};
use crate::meters;

/// How often an unanswered create is tried before giving up.
const TRIES: usize = 4;

/// Who made the object that is now there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Creation {
    /// We did; it is durable.
    Created,
    /// Somebody else did, with other bytes.
    Exists,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    #[error("{0}: the revisions are not numbered one by one, so one was lost or removed")]
    Gap(String),
    #[error("{0}: not written by a gateway of this state directory, or moved here")]
    Foreign(String),
    #[error("the state directory")]
    Directory(#[from] KeyFileError),
    #[error("{path}: cannot make it durable")]
    NotDurable {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{place} cannot hold state: {why}")]
    Unfit { place: String, why: &'static str },
    #[error("{0:?} is not a name in the state")]
    Path(String),
    #[error("{path}: cannot {doing}")]
    Store {
        path: String,
        doing: &'static str,
        #[source]
        source: object_store::Error,
    },
}

/// Objects under one root. Cheap to clone; any number of processes may share a root.
#[derive(Clone, Debug)]
pub struct StateStore {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) place: Arc<Place>,
}

/// What is behind a store.
#[derive(Debug)]
pub(super) enum Place {
    Directory(PathBuf),
    Bucket(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => path.display().fmt(f),
            Self::Bucket(name) => f.write_str(name),
        }
    }
}

impl StateStore {
    /// A bucket, or a prefix of one; `name` is for messages. Takes a store that creates only what
    /// is absent, keeps no versions and lists what it has; anything else is [`StateError::Unfit`].
    pub async fn in_bucket(store: Arc<dyn ObjectStore>, name: String) -> Result<Self, StateError> {
        let state = Self { store, place: Arc::new(Place::Bucket(name)) };
        state.probe().await?;
        Ok(state)
    }

    /// Opens a directory, creating it (0700) when there is none. Every write is fsynced, file and
    /// directory.
    pub fn open(root: &Path) -> Result<Self, StateError> {
        keyfile::private_dir(root)?;
        let store = LocalFileSystem::new_with_prefix(root)
            .map_err(|source| StateError::Store {
                path: root.display().to_string(),
                doing: "use this directory",
                source,
            })?
            .with_fsync(true);
        Ok(Self { store: Arc::new(store), place: Arc::new(Place::Directory(root.to_owned())) })
    }

    #[cfg(test)]
    pub(super) fn behind(
        self,
        wrap: impl FnOnce(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore>,
    ) -> Self {
        Self { store: wrap(self.store), place: self.place }
    }

    /// Creates an object unless its name is taken.
    ///
    /// On any answer but success the name is read back and compared: absent means try again, our
    /// bytes mean that we did create it, others that we lost. Bytes that two writers could both
    /// make are therefore only fit for content-addressed names.
    pub async fn create(
        &self,
        path: &str,
        bytes: impl Into<Bytes>,
    ) -> Result<Creation, StateError> {
        metered("create", self.try_create(path, bytes.into())).await
    }

    async fn try_create(&self, path: &str, bytes: Bytes) -> Result<Creation, StateError> {
        let location = location(path)?;
        let mut last = None;
        for _ in 0..TRIES {
            let options = PutOptions::from(PutMode::Create);
            let payload = PutPayload::from_bytes(bytes.clone());
            match self.store.put_opts(&location, payload, options).await {
                Ok(_) => return Ok(Creation::Created),
                Err(source) => last = Some(source),
            }
            if let Some(found) = self.read(path).await? {
                // The name is there, but whoever linked it may not have flushed it yet.
                self.sync_parent(path).await?;
                let ours = found == bytes;
                return Ok(if ours { Creation::Created } else { Creation::Exists });
            }
        }
        let source = last.unwrap_or(object_store::Error::NotImplemented {
            operation: "create".into(),
            implementer: "state".into(),
        });
        Err(StateError::Store { path: path.to_owned(), doing: "create it", source })
    }

    /// Reads an object; `None` when there is none.
    pub async fn read(&self, path: &str) -> Result<Option<Bytes>, StateError> {
        metered("read", self.try_read(path)).await
    }

    async fn try_read(&self, path: &str) -> Result<Option<Bytes>, StateError> {
        let failed = |source| StateError::Store { path: path.to_owned(), doing: "read it", source };
        match self.store.get(&location(path)?).await {
            Ok(found) => found.bytes().await.map(Some).map_err(failed),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(failed(source)),
        }
    }

    /// Names of the objects directly under `prefix`, sorted, without the prefix.
    pub async fn list(&self, prefix: &str) -> Result<Vec<String>, StateError> {
        let (objects, _) = metered("list", self.level(prefix)).await?;
        Ok(objects)
    }

    /// Names of the directories directly under `prefix`, sorted, without the prefix.
    pub async fn directories(&self, prefix: &str) -> Result<Vec<String>, StateError> {
        let (_, directories) = metered("list", self.level(prefix)).await?;
        Ok(directories)
    }

    /// Deletes an object, makes that durable and reads the absence back. Deleting nothing is fine.
    pub async fn delete(&self, path: &str) -> Result<(), StateError> {
        metered("delete", self.try_delete(path)).await
    }

    async fn try_delete(&self, path: &str) -> Result<(), StateError> {
        let failed =
            |source| StateError::Store { path: path.to_owned(), doing: "delete it", source };
        let location = location(path)?;
        match self.store.delete(&location).await {
            Ok(()) => self.sync_parent(path).await?,
            Err(object_store::Error::NotFound { .. }) => {}
            Err(source) => return Err(failed(source)),
        }
        match self.store.head(&location).await {
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(failed(source)),
            Ok(_) => Err(failed(object_store::Error::AlreadyExists {
                path: path.to_owned(),
                source: "the object is still there after its deletion".into(),
            })),
        }
    }

    /// Writes something of no meaning and deletes it: whether the store takes writes.
    pub async fn try_out(&self) -> Result<(), StateError> {
        let path = format!("probe/{}", keyfile::random_hex::<16>());
        // Random, so nobody else can have made it.
        let _created = self.create(&path, Bytes::new()).await?;
        self.delete(&path).await
    }

    async fn level(&self, prefix: &str) -> Result<(Vec<String>, Vec<String>), StateError> {
        let location = location(prefix)?;
        let listed = self.store.list_with_delimiter(Some(&location)).await.map_err(|source| {
            StateError::Store { path: prefix.to_owned(), doing: "list it", source }
        })?;
        let name = |path: &ObjectPath| path.filename().map(str::to_owned);
        let mut objects: Vec<_> =
            listed.objects.iter().filter_map(|meta| name(&meta.location)).collect();
        let mut directories: Vec<_> = listed.common_prefixes.iter().filter_map(name).collect();
        objects.sort_unstable();
        directories.sort_unstable();
        Ok((objects, directories))
    }

    async fn sync_parent(&self, path: &str) -> Result<(), StateError> {
        let Place::Directory(root) = &*self.place else { return Ok(()) };
        let full = root.join(path);
        let parent = full.parent().map_or_else(|| root.clone(), Path::to_path_buf);
        let synced = tokio::task::spawn_blocking(move || keyfile::sync_dir(&parent)).await;
        let outcome = synced.unwrap_or_else(|stopped| Err(std::io::Error::other(stopped)));
        outcome.map_err(|source| StateError::NotDurable { path: path.to_owned(), source })
    }
}

/// Times a request, and counts it when it fails.
async fn metered<T>(
    operation: &'static str,
    request: impl Future<Output = Result<T, StateError>>,
) -> Result<T, StateError> {
    let started = Instant::now();
    let outcome = request.await;
    meters::STATE_REQUEST.record(&[operation], started);
    if outcome.is_err() {
        meters::STATE_ERRORS.add_for(&[operation], 1);
    }
    outcome
}

fn location(path: &str) -> Result<ObjectPath, StateError> {
    let refused = || StateError::Path(path.to_owned());
    // `#` marks unfinished writes in the store behind.
    if path.is_empty() || path.contains('#') || path.starts_with('/') || path.ends_with('/') {
        return Err(refused());
    }
    ObjectPath::parse(path).map_err(|_| refused())
}

#[cfg(test)]
mod tests;
