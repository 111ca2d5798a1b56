use std::path::PathBuf;
use std::sync::Arc;

use tidegate_ledger::{CheckpointError, DocumentError, Fault, KeyError, ProposeError};

use crate::keyfile::KeyFileError;
use crate::state::StateError;

/// Why a ledger cannot be opened or appended to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    #[error(
        "the ledger holds {log} entries but its checkpoint copy says {copy}: it was cut or restored \
         from an old backup, so nothing may be appended to it"
    )]
    Behind { log: u64, copy: u64 },
    #[error("the ledger's batches do not verify")]
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
    #[error("{path}: the checkpoint copy is not one of this ledger")]
    CopyForeign {
        path: PathBuf,
        #[source]
        source: CheckpointError,
    },
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error(
        "the checkpoint copy was signed for another history of {size} entries: the ledger forked"
    )]
    Forked { size: u64 },
    #[error("the ledger has a batch that starts at entry {batch}, but ends at {end} before it")]
    Gap { end: u64, batch: u64 },
    #[error("the ledger's signing key")]
    Key(#[from] KeyError),
    #[error("the ledger's signing key")]
    KeyFile(#[from] KeyFileError),
    #[error(
        "the ledger has {0} batches but its signing key is missing; bring it back from a backup"
    )]
    KeyMissing(usize),
    #[error("the events cannot be recorded")]
    Propose(#[from] ProposeError),
    #[error("the ledger's state")]
    State(#[from] StateError),
    /// One failure that several callers share.
    #[error(transparent)]
    Shared(Arc<Self>),
}
