//! Sealing a message chunk by chunk.

use crate::chunk::{CHUNK_LEN, HEADER_LEN, MAX_CHUNKS, SALT_LEN, TAG_LEN};
use crate::context::Context;
use crate::keys::BlockKey;
use crate::schedule::Schedule;

/// A chunk or a recipient that nothing can be sealed for: a fault of the caller, not of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("the message has already ended with a short chunk")]
    Ended,
    #[error("a chunk is longer than 16 KiB")]
    ChunkTooLong,
    #[error("the message is longer than 4 PiB")]
    MessageTooLong,
    #[error("not an X-Wing public key")]
    PublicKey,
    #[error("sealing failed")]
    Failed,
}

/// Seals one message of C2SP `chunked-encryption` in place: every chunk is 16 KiB but the last,
/// which is shorter, may be empty, and ends the message.
///
/// The salt must be fresh for every sealing under the same key: two messages under one salt, key
/// and context would share nonces.
#[derive(Debug)]
pub struct Sealer {
    schedule: Schedule,
    header: [u8; HEADER_LEN],
    next: u64,
    finished: bool,
}

impl Sealer {
    pub fn new(key: &BlockKey, context: &Context, salt: [u8; SALT_LEN]) -> Self {
        Self::under(key, &context.encode(), salt)
    }

    /// With the format's free context, as the published vectors have it.
    pub(crate) fn under(key: &BlockKey, context: &[u8], salt: [u8; SALT_LEN]) -> Self {
        let (schedule, commitment) = Schedule::derive(key, context, &salt);
        let mut header = [0; HEADER_LEN];
        header[..SALT_LEN].copy_from_slice(&salt);
        header[SALT_LEN..].copy_from_slice(&commitment);
        Self { schedule, header, next: 0, finished: false }
    }

    /// Salt and commitment: what the message begins with.
    pub fn header(&self) -> [u8; HEADER_LEN] {
        self.header
    }

    /// Seals the next chunk where it lies and returns the tag that follows it.
    pub fn seal_chunk(&mut self, chunk: &mut [u8]) -> Result<[u8; TAG_LEN], SealError> {
        if self.finished {
            return Err(SealError::Ended);
        }
        if chunk.len() > CHUNK_LEN {
            return Err(SealError::ChunkTooLong);
        }
        if self.next >= MAX_CHUNKS {
            return Err(SealError::MessageTooLong);
        }
        let index = self.next;
        // Counted before it is used: whatever happens, no nonce is used twice.
        self.next += 1;
        self.finished = chunk.len() < CHUNK_LEN;
        self.schedule.seal(index, chunk).map_err(|_| SealError::Failed)
    }

    /// The short last chunk has been sealed; until then the message does not open as a whole.
    pub fn finished(&self) -> bool {
        self.finished
    }
}
