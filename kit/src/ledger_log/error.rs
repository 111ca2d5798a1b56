use std::path::PathBuf;
use std::sync::Arc;

use tidegate_ledger::{CheckpointError, DocumentError, Fault, KeyError, ProposeError};

use crate::keyfile::KeyFileError;
use crate::state::StateError;

/// What to do about a ledger that is not what it was.
const RESTORE: &str = "bring the newer state back; if it is lost, `tidegate gateway restore` ends every lease \
                       and opens a new ledger that names what is missing";

/// Why a ledger cannot be opened or appended to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    #[error(
        "the ledger holds {log} entries, but {path} says that there were {copy}: the state was set back or \
         cut; {RESTORE}"
    )]
    Behind { log: u64, copy: u64, path: PathBuf },
    #[error("the ledger does not verify; {RESTORE}")]
    Broken(#[from] Fault),
    #[error("the ledger's writer has ended")]
    Closed,
    #[error("the ledger was always written by another first while appending")]
    Contended,
    #[error("{path}: the checkpoint copy cannot be {doing}")]
    Copy {
        path: PathBuf,
        doing: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "{path}: the checkpoint copy is not one of this ledger: the state was replaced, or the copy belongs \
         to another gateway; {RESTORE}"
    )]
    CopyForeign {
        path: PathBuf,
        #[source]
        source: CheckpointError,
    },
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error("another ledger followed this one after a restore: start this gateway again")]
    Followed,
    #[error(
        "{path} was signed for another history of {size} entries: the ledger forked; {RESTORE}"
    )]
    Forked { size: u64, path: PathBuf },
    #[error(
        "the ledger has a batch that starts at entry {batch}, but ends at {end} before it; {RESTORE}"
    )]
    Gap { end: u64, batch: u64 },
    #[error("the ledger's signing key")]
    Key(#[from] KeyError),
    #[error("the ledger's signing key")]
    KeyFile(#[from] KeyFileError),
    #[error(
        "the ledger has {batches} batches but its signing key {file} is missing: bring it back from a \
         backup, or from another replica; without it only `tidegate gateway restore` helps"
    )]
    KeyMissing { batches: usize, file: PathBuf },
    #[error("there is no ledger here, but {path} is the checkpoint of one; {RESTORE}")]
    Lost { path: PathBuf },
    #[error("there is neither a ledger nor a checkpoint copy here, so nothing is to be restored")]
    NothingToRestore,
    #[error("the events cannot be recorded")]
    Propose(#[from] ProposeError),
    #[error("the ledger's state")]
    State(#[from] StateError),
    #[error(
        "a restore of this state was begun and has not ended: wait for it, or run `tidegate gateway restore` again"
    )]
    Unfinished,
    /// One failure that several callers share.
    #[error(transparent)]
    Shared(Arc<Self>),
}

impl LogError {
    /// The events cannot be entered, which says nothing about the ledger.
    pub(super) fn is_callers(&self) -> bool {
        match self {
            Self::Propose(_) => true,
            Self::Shared(error) => error.is_callers(),
            _ => false,
        }
    }
}
