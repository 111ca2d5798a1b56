//! Where results lie: one of two kinds of store, with the same steps.

use std::panic::resume_unwind;
use std::sync::Arc;

use tidegate_plan::{LeaseId, PartHash};
use tidegate_wire::{Attributes, PartReceipt};
use tokio::task::spawn_blocking;

use super::bucket::Bucket;
use super::directory::Directory;
use super::error::HomeError;
use super::file::{Arrival, Gone, Kept, Listed, Provenance, Upload};
use super::ticket::Ticket;
use crate::source::{SourceError, SourceSpec};

/// The home of a lease's results. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) enum Home {
    Directory(Arc<Directory>),
    Bucket(Arc<Bucket>),
}

impl Home {
    /// Opens and tries the home: something is written there and taken away again.
    pub(crate) async fn open(spec: &SourceSpec) -> Result<Self, SourceError> {
        match spec {
            SourceSpec::Directory(path) => {
                let path = path.clone();
                let directory = blocking(move || Directory::open(&path)).await?;
                Ok(Self::Directory(Arc::new(directory)))
            }
            SourceSpec::S3 { bucket, prefix, options } => {
                Ok(Self::Bucket(Arc::new(Bucket::open(bucket, prefix, options).await?)))
            }
        }
    }

    /// Makes what a lease's home is known by, where it is a directory.
    pub(crate) async fn begin_in(&self, lease: LeaseId) -> Result<(), HomeError> {
        match self {
            Self::Directory(directory) => of(directory, move |it| it.begin_in(lease)).await,
            Self::Bucket(_) => Ok(()),
        }
    }

    /// Whether a lease has begun here.
    pub(crate) async fn has_begun(&self, lease: LeaseId) -> Result<bool, HomeError> {
        match self {
            Self::Directory(directory) => of(directory, move |it| it.has_begun(lease)).await,
            Self::Bucket(_) => Ok(true),
        }
    }

    /// Finds out whether something can be written, and takes it away again.
    pub(crate) async fn try_out(&self) -> Result<(), HomeError> {
        match self {
            Self::Directory(directory) => of(directory, Directory::try_out).await,
            Self::Bucket(bucket) => bucket.try_out().await,
        }
    }

    /// What is open: a directory by its real path, whatever links led to it.
    pub(crate) fn real_path(&self) -> Result<Option<std::path::PathBuf>, SourceError> {
        match self {
            Self::Directory(directory) => directory.real_path().map(Some),
            Self::Bucket(_) => Ok(None),
        }
    }

    /// Whether a file may be called so here.
    pub(crate) fn takes(&self, path: &str) -> Result<(), HomeError> {
        match self {
            Self::Directory(_) => Ok(()),
            Self::Bucket(bucket) => bucket.takes(path),
        }
    }

    /// A file of one part, whole. Returns its version.
    pub(crate) async fn put(
        &self,
        made: &Provenance,
        file: Arrival,
        bytes: Vec<u8>,
    ) -> Result<String, HomeError> {
        match self {
            Self::Directory(directory) => {
                let made = made.clone();
                of(directory, move |directory| directory.put(&made, &file, &bytes)).await
            }
            Self::Bucket(bucket) => bucket.put(made, &file, bytes).await,
        }
    }

    /// Begins a file of several parts; `id` is random.
    pub(crate) async fn begin(
        &self,
        made: &Provenance,
        path: &str,
        id: String,
    ) -> Result<Ticket, HomeError> {
        let path = path.to_owned();
        match self {
            Self::Directory(directory) => {
                let lease = made.lease;
                of(directory, move |directory| {
                    directory.begin(lease, &id)?;
                    Ok(Ticket { id, path, store: String::new() })
                })
                .await
            }
            Self::Bucket(bucket) => {
                let store = bucket.begin(made, &path, &id).await?;
                Ok(Ticket { id, path, store })
            }
        }
    }

    /// One part, durable when this returns. Returns the store's word for it.
    pub(crate) async fn part(
        &self,
        lease: LeaseId,
        ticket: &Ticket,
        part: u32,
        hash: PartHash,
        bytes: Vec<u8>,
    ) -> Result<String, HomeError> {
        match self {
            Self::Directory(directory) => {
                let id = ticket.id.clone();
                of(directory, move |directory| directory.part(lease, &id, part, hash, &bytes))
                    .await?;
                Ok(String::new())
            }
            Self::Bucket(bucket) => bucket.part(ticket, part, bytes).await,
        }
    }

    /// A part that is the same in the version at home. `vouched` says what its receipt says of a part of
    /// the upload of an id; a directory looks at the bytes themselves.
    pub(crate) async fn copy(
        &self,
        lease: LeaseId,
        ticket: &Ticket,
        (path, version): (&str, &str),
        receipt: &PartReceipt,
        vouched: impl Fn(&str) -> Option<PartHash>,
        only: Option<LeaseId>,
    ) -> Result<(PartHash, String), HomeError> {
        let (part, len) = (receipt.part, receipt.len);
        match self {
            Self::Directory(directory) => {
                let hash: [u8; 32] = receipt.hash.0.as_slice().try_into().map_err(|_| UNVOUCHED)?;
                let (id, path, version) = (ticket.id.clone(), path.to_owned(), version.to_owned());
                of(directory, move |directory| {
                    let at = (part, len);
                    directory.copy(lease, &id, (&path, &version), at, PartHash(hash), only)
                })
                .await?;
                Ok((PartHash(hash), String::new()))
            }
            Self::Bucket(bucket) => {
                let upload = bucket.upload_of(path, version).await?;
                let hash = upload.as_deref().and_then(vouched).ok_or(UNVOUCHED)?;
                Ok((hash, bucket.copy(ticket, (path, version), receipt, hash).await?))
            }
        }
    }

    /// The file appears, whole. Returns its version.
    pub(crate) async fn commit(
        &self,
        made: &Provenance,
        ticket: &Ticket,
        file: Arrival,
        parts: Vec<PartReceipt>,
    ) -> Result<String, HomeError> {
        match self {
            Self::Directory(directory) => {
                let (made, id) = (made.clone(), ticket.id.clone());
                of(directory, move |directory| directory.commit(&made, &id, &file, &parts)).await
            }
            Self::Bucket(bucket) => bucket.commit(ticket, &file, &parts).await,
        }
    }

    /// Which version has a name, if a file has it.
    pub(crate) async fn version(&self, path: &str) -> Result<Option<String>, HomeError> {
        match self {
            Self::Directory(directory) => {
                let path = path.to_owned();
                of(directory, move |directory| directory.version(&path)).await
            }
            Self::Bucket(bucket) => bucket.version(path).await,
        }
    }

    /// Whether a commit has been done before: its upload is gone and its file is there. The version that it made,
    /// if that is `known`, is not read to be compared.
    pub(crate) async fn finished(
        &self,
        ticket: &Ticket,
        file: &Arrival,
        parts: &[PartReceipt],
        known: Option<&str>,
    ) -> Result<Option<String>, HomeError> {
        match self {
            Self::Directory(directory) => {
                let (file, parts) = (file.clone(), parts.to_vec());
                let known = known.map(str::to_owned);
                let finished =
                    move |home: &Directory| home.finished(&file, &parts, known.as_deref());
                of(directory, finished).await
            }
            Self::Bucket(bucket) => bucket.finished(ticket, file, parts, known).await,
        }
    }

    pub(crate) async fn abandon(&self, lease: LeaseId, ticket: &Ticket) -> Result<(), HomeError> {
        match self {
            Self::Directory(directory) => {
                let id = ticket.id.clone();
                of(directory, move |directory| directory.abandon(lease, &id)).await
            }
            Self::Bucket(bucket) => bucket.abandon(&ticket.path, &ticket.store).await,
        }
    }

    /// Takes away what a lease that is over has left half done, as far as it lies where all can see whose it is.
    pub(crate) async fn tidy(&self, lease: LeaseId) -> Result<(), HomeError> {
        match self {
            Self::Directory(directory) => {
                of(directory, move |directory| directory.tidy(lease)).await
            }
            Self::Bucket(_) => Ok(()),
        }
    }

    /// Leases that have something half done here, as far as it can be seen.
    pub(crate) async fn left_by(&self) -> Result<Vec<LeaseId>, HomeError> {
        match self {
            Self::Directory(directory) => of(directory, Directory::left_by).await,
            Self::Bucket(_) => Ok(Vec::new()),
        }
    }

    /// Gives up an upload that its lease did not end.
    pub(crate) async fn give_up(&self, upload: &Upload) -> Result<(), HomeError> {
        match self {
            // It lies in its lease's directory.
            Self::Directory(_) => Ok(()),
            Self::Bucket(bucket) => bucket.abandon(&upload.path, &upload.store).await,
        }
    }

    /// A file takes another name, or has it already: that version of it, if one is named. As in all that
    /// follows, with `only` there are no files but those that this lease brought home.
    pub(crate) async fn rename(
        &self,
        from: &str,
        to: &str,
        version: Option<&str>,
        only: Option<LeaseId>,
    ) -> Result<Kept, HomeError> {
        match self {
            Self::Directory(directory) => {
                let (from, to, version) =
                    (from.to_owned(), to.to_owned(), version.map(str::to_owned));
                let rename =
                    move |home: &Directory| home.rename(&from, &to, version.as_deref(), only);
                of(directory, rename).await
            }
            Self::Bucket(bucket) => bucket.rename(from, to, version, only).await,
        }
    }

    /// A file is no more; what it was, if it was there.
    pub(crate) async fn unlink(
        &self,
        path: &str,
        only: Option<LeaseId>,
    ) -> Result<Gone, HomeError> {
        match self {
            Self::Directory(directory) => {
                let path = path.to_owned();
                of(directory, move |directory| directory.unlink(&path, only)).await
            }
            Self::Bucket(bucket) => bucket.unlink(path, only).await,
        }
    }

    pub(crate) async fn rename_directory(&self, from: &str, to: &str) -> Result<(), HomeError> {
        match self {
            Self::Directory(directory) => {
                let (from, to) = (from.to_owned(), to.to_owned());
                of(directory, move |directory| directory.rename_directory(&from, &to)).await
            }
            Self::Bucket(_) => Err(HomeError::NotOffered),
        }
    }

    /// A bucket has no directories and no attributes that change: nothing is done there.
    pub(crate) async fn make_directory(&self, path: &str, mode: u32) -> Result<(), HomeError> {
        let Self::Directory(directory) = self else { return Ok(()) };
        let path = path.to_owned();
        of(directory, move |directory| directory.make_directory(&path, mode)).await
    }

    pub(crate) async fn remove_directory(&self, path: &str) -> Result<(), HomeError> {
        let Self::Directory(directory) = self else { return Ok(()) };
        let path = path.to_owned();
        of(directory, move |directory| directory.remove_directory(&path)).await
    }

    pub(crate) async fn set_attributes(
        &self,
        path: &str,
        attributes: Attributes,
        only: Option<LeaseId>,
    ) -> Result<(), HomeError> {
        let Self::Directory(directory) = self else { return Ok(()) };
        let path = path.to_owned();
        of(directory, move |directory| directory.set_attributes(&path, attributes, only)).await
    }

    /// What is at home behind `after`, a page of it.
    pub(crate) async fn list(&self, after: Option<String>) -> Result<Listed, HomeError> {
        match self {
            Self::Directory(directory) => {
                of(directory, move |directory| directory.list(after.as_deref())).await
            }
            Self::Bucket(bucket) => bucket.list(after.as_deref()).await,
        }
    }

    /// Bytes of a version; the range lies within it.
    pub(crate) async fn read(
        &self,
        path: &str,
        version: &str,
        range: (u64, u32),
        only: Option<LeaseId>,
    ) -> Result<(Kept, Vec<u8>), HomeError> {
        match self {
            Self::Directory(directory) => {
                let (path, version) = (path.to_owned(), version.to_owned());
                of(directory, move |directory| directory.read(&path, &version, range, only)).await
            }
            Self::Bucket(bucket) => bucket.read(path, version, range, only).await,
        }
    }
}

const UNVOUCHED: HomeError = HomeError::Unfit("the receipt is not of a part of this version");

async fn of<T: Send + 'static>(
    directory: &Arc<Directory>,
    work: impl FnOnce(&Directory) -> Result<T, HomeError> + Send + 'static,
) -> Result<T, HomeError> {
    let thread = Arc::clone(&directory.threads).acquire_owned().await;
    let directory = Arc::clone(directory);
    blocking(move || {
        let _until_it_ends = thread;
        work(&directory)
    })
    .await
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
