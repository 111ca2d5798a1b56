//! What is asked of the pipeline, and what comes back.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Wake, Poll};

use bytes::Bytes;
use futures_util::Stream;
use tidegate_plan::{Entry, Extent, Layout, RelPath, Selection, Snapshot};
use tidegate_seal::{BlockKey, Context, SALT_LEN, Sealer};
use tokio::sync::mpsc;

use crate::source::{ReadError, Source};

/// One block to read and seal.
#[derive(Debug)]
pub struct BlockJob {
    pub source: Arc<Source>,
    pub snapshot: Arc<Snapshot>,
    pub selection: Arc<Selection>,
    pub layout: Arc<Layout>,
    /// Number in the layout.
    pub block: u32,
    pub key: BlockKey,
    pub context: Context,
    /// Fresh for every sealing.
    pub salt: [u8; SALT_LEN],
}

impl BlockJob {
    pub(super) fn sealer(&self) -> Sealer {
        Sealer::new(&self.key, &self.context, self.salt)
    }

    /// The snapshot's entry that an extent is a part of.
    pub(super) fn entry(&self, extent: &Extent) -> Option<Entry> {
        let at = self.selection.files().get(extent.file as usize)?;
        self.snapshot.get(*at)
    }

    pub(super) fn extents(&self) -> Vec<Extent> {
        self.layout.extents_of(&self.snapshot, &self.selection, self.block)
    }

    /// Says in the log which object is not as it was.
    pub(super) fn log(&self, entry: &Entry, why: &ReadError) {
        tracing::warn!(
            lease = %self.context.lease,
            block = self.block,
            object = %entry.path,
            "an object of the selection cannot be read: {why}"
        );
    }
}

/// Nothing of the block is sent.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The layout and its parts do not belong together, or have no such block.
    #[error("there is no block {0} of these objects")]
    NoSuchBlock(u32),
    /// The object of a whole block is not what the snapshot says, and will not be again.
    #[error("{path} changed at home since the snapshot")]
    SourceChanged { path: RelPath },
    /// The thread that reads and seals ended without a word: a fault of ours.
    #[error("reading and sealing a block failed")]
    Failed,
    /// May be asked for again later.
    #[error("{path} cannot be read now: {why}")]
    SourceUnavailable { path: RelPath, why: String },
}

impl Refused {
    pub(super) fn of(entry: &Entry, error: ReadError) -> Self {
        let path = entry.path.clone();
        match error {
            ReadError::Changed | ReadError::Denied => Self::SourceChanged { path },
            ReadError::Unavailable(why) => Self::SourceUnavailable { path, why },
        }
    }
}

/// The block broke off: its object changed, or could not be read on. The connection must be torn,
/// so that nobody takes what was sent for the whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {why}")]
pub struct Torn {
    pub path: RelPath,
    pub why: ReadError,
}

pub(super) type Sender = mpsc::Sender<Result<Bytes, Torn>>;

/// A sealed block on its way.
#[derive(Debug)]
pub struct SealedStream {
    /// Bytes of the whole sealed message.
    pub len: u64,
    pub frames: Frames,
}

/// The message's bytes in order; after an error nothing more comes.
#[derive(Debug)]
pub struct Frames(pub(super) mpsc::Receiver<Result<Bytes, Torn>>);

impl Stream for Frames {
    type Item = Result<Bytes, Torn>;

    fn poll_next(mut self: Pin<&mut Self>, wake: &mut Wake<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(wake)
    }
}
