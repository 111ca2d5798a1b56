//! Sizes of the sealed format (C2SP `chunked-encryption` v1). All lengths are in bytes.

/// Plaintext of every chunk but the last, which is shorter and may be empty.
pub const CHUNK_LEN: usize = 16 * 1024;
/// AES-GCM tag behind each chunk.
pub const TAG_LEN: usize = 16;
/// A full chunk with its tag.
pub const SEALED_CHUNK_LEN: usize = CHUNK_LEN + TAG_LEN;
/// Random salt at the head of a message.
pub const SALT_LEN: usize = 24;
/// Key commitment behind the salt.
pub(crate) const COMMITMENT_LEN: usize = 32;
/// Salt and commitment.
pub const HEADER_LEN: usize = SALT_LEN + COMMITMENT_LEN;
/// Chunks of a message stop before 2³⁸ (C2SP: "implementations MUST abort").
pub(crate) const MAX_CHUNKS: u64 = 1 << 38;
/// Longest message: 4 PiB − 1 byte.
pub const MAX_PLAIN_LEN: u64 = MAX_CHUNKS * CHUNK_LEN as u64 - 1;

/// How a message of a known length falls into chunks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Number of the last chunk, the short one.
    last: u64,
    last_len: usize,
}

impl Shape {
    /// `None` if no message is that long.
    pub(crate) fn of(plain_len: u64) -> Option<Self> {
        let last_len = usize::try_from(plain_len % CHUNK_LEN as u64).ok()?;
        (plain_len <= MAX_PLAIN_LEN)
            .then_some(Self { last: plain_len / CHUNK_LEN as u64, last_len })
    }

    /// Plaintext length of a sealed message, or `None` if no message has that sealed length: cut
    /// at a chunk's edge, too short for its header, or with a last chunk shorter than a tag.
    pub(crate) fn plain_len(sealed_len: usize) -> Option<usize> {
        let chunks = sealed_len.checked_sub(HEADER_LEN)?;
        let last = (chunks % SEALED_CHUNK_LEN).checked_sub(TAG_LEN)?;
        Some(chunks / SEALED_CHUNK_LEN * CHUNK_LEN + last)
    }

    /// Plaintext length of one chunk; `None` past the end.
    pub(crate) fn chunk_len(&self, index: u64) -> Option<usize> {
        match index {
            _ if index < self.last => Some(CHUNK_LEN),
            _ if index == self.last => Some(self.last_len),
            _ => None,
        }
    }

    pub(crate) fn chunks(&self) -> u64 {
        self.last + 1
    }
}
