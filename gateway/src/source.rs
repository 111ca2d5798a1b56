//! Where data lies at home: a directory tree, or a bucket under a prefix.
//!
//! A source is opened once, listed into a [`Snapshot`], and then read only by entries of that
//! snapshot: each read proves that the object still is the pinned version, or fails with
//! [`ReadError::Changed`]. A directory's file is compared on the descriptor that is read, before
//! and after; an object is read under `If-Match` and, in a versioned bucket, by its version id.
//!
//! What a directory tree cannot show (keys with `//`, sockets, unreadable files) is named in
//! [`Snapshot::unshown`] with the reason.

mod beneath;
mod bucket;
mod client;
mod directory;
mod error;
mod found;
mod keys;
mod listing;
mod partition;
mod pinned;
mod refusal;
mod spec;
mod walk;

use std::io::IoSliceMut;
use std::panic::resume_unwind;
use std::sync::Arc;

use tidegate_plan::{Entry, Snapshot};
use tokio::task::spawn_blocking;

pub(crate) use beneath::open_beneath;
pub(crate) use bucket::{Bucket, RangeReader};
pub(crate) use client::{S3Access, connect};
pub(crate) use directory::Directory;
pub use error::{ReadError, SourceError};
pub(crate) use keys::{bare, decoded};
pub(crate) use pinned::PinnedFile;
pub(crate) use refusal::{NO_CODE, code, listing as refusal_of, status};
pub(crate) use spec::is_plain_prefix;
pub use spec::{S3Options, SourceSpec, SpecError};

/// An open source. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Source {
    spec: SourceSpec,
    store: Store,
}

#[derive(Clone, Debug)]
pub(crate) enum Store {
    Directory(Arc<Directory>),
    Bucket(Arc<Bucket>),
}

impl Source {
    /// Opens and tries the source, so that what is wrong is said now and not at the first read.
    pub async fn open(spec: SourceSpec) -> Result<Self, SourceError> {
        let store = match spec.clone() {
            SourceSpec::Directory(path) => {
                let directory = blocking(move || Directory::open(&path)).await?;
                Store::Directory(Arc::new(directory))
            }
            SourceSpec::S3 { bucket, prefix, options } => {
                Store::Bucket(Arc::new(Bucket::open(&bucket, &prefix, &options).await?))
            }
        };
        Ok(Self { spec, store })
    }

    /// What is open: a directory by its real path, whatever links led to it.
    pub(crate) fn place(&self) -> Result<SourceSpec, SourceError> {
        match &self.store {
            Store::Directory(directory) => Ok(SourceSpec::Directory(directory.real_path()?)),
            Store::Bucket(_) => Ok(self.spec.clone()),
        }
    }

    /// Lists everything there is.
    pub async fn snapshot(&self) -> Result<Snapshot, SourceError> {
        let name = self.spec.to_string();
        match &self.store {
            Store::Directory(directory) => {
                let directory = Arc::clone(directory);
                blocking(move || {
                    let found = directory.list()?;
                    Ok(Snapshot::build(name, found.entries, found.unshown))
                })
                .await
            }
            Store::Bucket(bucket) => {
                let found = bucket.list().await?;
                Ok(blocking(move || Snapshot::build(name, found.entries, found.unshown)).await)
            }
        }
    }

    /// Fills `out` from `offset` on with bytes of the pinned version.
    pub async fn read_at(
        &self,
        entry: &Entry,
        offset: u64,
        out: &mut [u8],
    ) -> Result<(), ReadError> {
        match &self.store {
            Store::Directory(directory) => {
                let (directory, entry, len) = (Arc::clone(directory), entry.clone(), out.len());
                let bytes = blocking(move || {
                    let file = directory.open_file(&entry)?;
                    let mut bytes = vec![0; len];
                    file.read_pieces(offset, &mut [IoSliceMut::new(&mut bytes)])?;
                    file.check()?;
                    Ok(bytes)
                })
                .await?;
                out.copy_from_slice(&bytes);
            }
            Store::Bucket(bucket) => {
                let mut reader = bucket.read(entry, offset, out.len() as u64).await?;
                let mut rest = out;
                while let Some(bytes) = reader.chunk().await? {
                    let (filled, left) = rest.split_at_mut(bytes.len());
                    filled.copy_from_slice(&bytes);
                    rest = left;
                }
            }
        }
        Ok(())
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // Cancelled: the runtime is going down, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}

#[cfg(test)]
mod tests;
