//! Whole messages in one call: manifest pieces, wrapped keys, tests.

use zeroize::Zeroizing;

use crate::chunk::{CHUNK_LEN, HEADER_LEN, SALT_LEN, Shape, TAG_LEN};
use crate::context::Context;
use crate::keys::BlockKey;
use crate::opener::{OpenError, Opener};
use crate::sealer::Sealer;

/// Seals `plain` as one message: header, then each chunk with its tag.
pub fn seal_message(
    key: &BlockKey,
    context: &Context,
    salt: [u8; SALT_LEN],
    plain: &[u8],
) -> Vec<u8> {
    seal_under(key, &context.encode(), salt, plain)
}

pub(crate) fn seal_under(
    key: &BlockKey,
    context: &[u8],
    salt: [u8; SALT_LEN],
    plain: &[u8],
) -> Vec<u8> {
    let chunks = plain.len() / CHUNK_LEN + 1;
    let mut sealer = Sealer::under(key, context, salt);
    let mut out = Vec::with_capacity(HEADER_LEN + plain.len() + chunks * TAG_LEN);
    out.extend_from_slice(&sealer.header());
    let last = [];
    let empty_end = plain.len().is_multiple_of(CHUNK_LEN).then_some(last.as_slice());
    for chunk in plain.chunks(CHUNK_LEN).chain(empty_end) {
        let start = out.len();
        out.extend_from_slice(chunk);
        let tag = sealer
            .seal_chunk(&mut out[start..])
            .expect("a slice is cut into 16 KiB chunks and is far shorter than 4 PiB");
        out.extend_from_slice(&tag);
    }
    out
}

/// Opens one whole message, whose length says where it ends.
pub fn open_message(
    key: &BlockKey,
    context: &Context,
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    open_under(key, &context.encode(), sealed)
}

pub(crate) fn open_under(
    key: &BlockKey,
    context: &[u8],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let plain_len = Shape::plain_len(sealed.len()).ok_or(OpenError)?;
    let (header, chunks) = sealed.split_first_chunk::<HEADER_LEN>().ok_or(OpenError)?;
    let opener = Opener::under(key, context, header, plain_len as u64)?;
    let mut buf = Zeroizing::new(chunks.to_vec());
    let opened = opener.open_run(0, &mut buf)?.len();
    buf.truncate(opened);
    Ok(buf)
}
