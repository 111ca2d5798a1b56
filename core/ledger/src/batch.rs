use serde::{Deserialize, Serialize};

use crate::canonical::{CanonicalError, from_canonical, to_canonical};
use crate::{CheckpointError, Digest, EntryError};

/// Longest stored batch in bytes; read no further before refusing.
pub const MAX_BATCH_BYTES: usize = 8 << 20;

/// Name of the batch that starts at entry `first`: 20 digits, so that names sort like numbers.
pub fn batch_name(first: u64) -> String {
    format!("{first:020}")
}

/// The unit of writing: some entries, their leaf hashes and the checkpoint that ends in them.
///
/// One object, created once and never changed, under [`batch_name`]. Every byte of its canonical
/// JSON is covered: by the checkpoint's signature, or by having to fit what the signature covers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// Signed note over the tree that this batch completes.
    pub checkpoint: String,
    /// Canonical text of each entry.
    pub entries: Vec<String>,
    /// Index of the first entry.
    pub first: u64,
    /// Leaf hash of each entry: tells *which* entry was changed.
    pub leaves: Vec<Digest>,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    #[error("not a batch in canonical form")]
    Syntax(#[from] CanonicalError),
    #[error("the batch is longer than {MAX_BATCH_BYTES} bytes")]
    TooLong,
}

impl Batch {
    pub fn to_bytes(&self) -> Result<Vec<u8>, BatchError> {
        let text = to_canonical(self)?;
        if text.len() > MAX_BATCH_BYTES { Err(BatchError::TooLong) } else { Ok(text.into()) }
    }

    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        if bytes.len() > MAX_BATCH_BYTES {
            return Err(BatchError::TooLong);
        }
        let text = std::str::from_utf8(bytes)
            .map_err(|_| BatchError::Syntax(CanonicalError::NotCanonical))?;
        Ok(from_canonical(text)?)
    }

    /// Index after the last entry.
    pub fn end(&self) -> u64 {
        self.first.saturating_add(self.entries.len() as u64)
    }
}

/// Where a log stops holding: the first bad entry lies in `first..end` (a single entry when it
/// could be told), or is missing when the range is empty.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", self.place())]
pub struct Fault {
    pub first: u64,
    pub end: u64,
    pub why: Why,
}

impl Fault {
    pub(crate) fn at(index: u64, why: Why) -> Self {
        Self { first: index, end: index.saturating_add(1), why }
    }

    pub(crate) fn within(first: u64, end: u64, why: Why) -> Self {
        Self { first, end, why }
    }

    fn place(&self) -> String {
        match self.end.saturating_sub(self.first) {
            0 | 1 => format!("entry {}", self.first),
            _ => format!("entry {} or one after it, before {}", self.first, self.end),
        }
    }
}

/// What does not hold.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Why {
    #[error("the batch that holds it cannot be read: {0}")]
    Batch(#[source] BatchError),
    #[error("the batch's checkpoint: {0}")]
    Checkpoint(#[source] CheckpointError),
    #[error("the batch has no entries, or not one leaf hash for each")]
    Count,
    #[error("the log ends here, but a checkpoint that was given out says {known} entries")]
    Cut { known: u64 },
    #[error("it cannot be read: {0}")]
    Entry(#[source] EntryError),
    #[error(
        "another log was signed: a checkpoint that was given out for {known} entries has another root"
    )]
    Fork { known: u64 },
    #[error("a known checkpoint cannot be used: {0}")]
    Known(#[source] CheckpointError),
    #[error("its bytes do not have its recorded leaf hash")]
    Leaf,
    #[error("the batch lies under the name {0:?}, which is not that of its first entry")]
    Name(String),
    #[error("the log does not open with its own origin, or opens twice")]
    Opening,
    #[error("it says it is entry {says}: an entry is missing, doubled or moved")]
    Order { says: u64 },
    #[error("the signed root does not fit the entries: they or their leaf hashes were rewritten")]
    Root,
    #[error("a key rotation names no usable key, or is not the last entry of its batch")]
    Rotation,
    #[error("the batch's checkpoint is for {says} entries, the batch ends at {end}")]
    Size { says: u64, end: u64 },
    #[error("its time is before that of the entry before it")]
    Time,
}
