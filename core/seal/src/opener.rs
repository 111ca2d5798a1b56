//! Opening chunks of a sealed message, in any order.

use std::fmt;
use std::ops::Deref;

use subtle::ConstantTimeEq as _;
use zeroize::Zeroize as _;

use crate::chunk::{CHUNK_LEN, HEADER_LEN, SALT_LEN, SEALED_CHUNK_LEN, Shape, TAG_LEN};
use crate::context::Context;
use crate::keys::BlockKey;
use crate::schedule::Schedule;

/// The bytes are not what was sealed under this key for this place. One answer for every cause:
/// a caller, and so an attacker, learns nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot be opened")]
pub struct OpenError;

/// Plaintext that was authenticated: only a successful open makes one.
pub struct Authenticated<'a>(&'a [u8]);

impl<'a> Authenticated<'a> {
    /// The bytes for as long as the buffer they lie in.
    pub fn into_bytes(self) -> &'a [u8] {
        self.0
    }
}

impl Deref for Authenticated<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0
    }
}

impl AsRef<[u8]> for Authenticated<'_> {
    fn as_ref(&self) -> &[u8] {
        self.0
    }
}

impl fmt::Debug for Authenticated<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authenticated({} bytes)", self.0.len())
    }
}

/// Opens chunks of one sealed message whose plaintext length is known beforehand.
///
/// What comes back is bound to (key, context, salt, chunk number), and the last chunk to the
/// length: chunks swapped, cut off or added do not open.
#[derive(Debug)]
pub struct Opener {
    schedule: Schedule,
    shape: Shape,
}

impl Opener {
    /// Checks the key commitment, in constant time. `plain_len` is in bytes and comes from where
    /// the message's place does (the manifest), not from beside the ciphertext.
    pub fn new(
        key: &BlockKey,
        context: &Context,
        header: &[u8; HEADER_LEN],
        plain_len: u64,
    ) -> Result<Self, OpenError> {
        Self::under(key, &context.encode(), header, plain_len)
    }

    /// With the format's free context, as the published vectors have it.
    pub(crate) fn under(
        key: &BlockKey,
        context: &[u8],
        header: &[u8; HEADER_LEN],
        plain_len: u64,
    ) -> Result<Self, OpenError> {
        let shape = Shape::of(plain_len).ok_or(OpenError)?;
        let (salt, stated) = header.split_first_chunk::<SALT_LEN>().ok_or(OpenError)?;
        let (schedule, commitment) = Schedule::derive(key, context, salt);
        if bool::from(commitment.ct_eq(stated)) {
            Ok(Self { schedule, shape })
        } else {
            Err(OpenError)
        }
    }

    /// Chunks in the message: at least one.
    pub fn chunks(&self) -> u64 {
        self.shape.chunks()
    }

    /// Length of one sealed chunk with its tag, bytes; `None` past the end.
    pub fn sealed_chunk_len(&self, index: u64) -> Option<usize> {
        self.shape.chunk_len(index).map(|len| len + TAG_LEN)
    }

    /// Opens one sealed chunk, ciphertext ‖ tag, where it lies. Its length must be exactly what
    /// the message's length implies. If it does not open, the buffer is zeroed.
    pub fn open_chunk<'a>(
        &self,
        index: u64,
        sealed_in_out: &'a mut [u8],
    ) -> Result<Authenticated<'a>, OpenError> {
        if self.sealed_chunk_len(index) != Some(sealed_in_out.len()) {
            sealed_in_out.zeroize();
            return Err(OpenError);
        }
        self.open_run(index, sealed_in_out)
    }

    /// Opens consecutive sealed chunks, the first of which has the number `first`, where they lie,
    /// and closes the gaps that the tags leave: the plaintext is the contiguous front of `buf`. No
    /// second buffer and no second pass. A run may end at any chunk's edge, so only one that holds
    /// the last chunk (which may be empty) shows that the message is whole. If any chunk does not open, the whole buffer is zeroed.
    pub fn open_run<'a>(
        &self,
        first: u64,
        buf: &'a mut [u8],
    ) -> Result<Authenticated<'a>, OpenError> {
        match self.compact(first, buf) {
            Ok(plain_len) => Ok(Authenticated(&buf[..plain_len])),
            Err(refused) => {
                buf.zeroize();
                Err(refused)
            }
        }
    }

    fn compact(&self, first: u64, buf: &mut [u8]) -> Result<usize, OpenError> {
        let mut index = first;
        let (mut read, mut written) = (0, 0);
        loop {
            let len = self.shape.chunk_len(index).ok_or(OpenError)?;
            let end = read + len;
            let tag = buf.get(end..).and_then(|rest| rest.first_chunk()).ok_or(OpenError)?;
            let (tag, shift) = (*tag, read - written);
            self.schedule
                .open(index, tag, &mut buf[written..end], shift..)
                .map_err(|_| OpenError)?;
            written += len;
            read = end + TAG_LEN;
            if read == buf.len() {
                return Ok(written);
            }
            index += 1;
        }
    }
}

const _: () = assert!(SEALED_CHUNK_LEN == CHUNK_LEN + TAG_LEN);
