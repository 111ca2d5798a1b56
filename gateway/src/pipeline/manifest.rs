//! Sealing a manifest: a run of messages, each of at most a block's plaintext.

use tidegate_plan::{BLOCK_MAX, LayoutId, LeaseId};
use tidegate_seal::{BlockKey, Context, Kind, SALT_LEN, seal_message};

/// Plaintext of every piece but the last, bytes.
pub const MANIFEST_PIECE: usize = BLOCK_MAX as usize;

/// Pieces of a manifest of so many bytes: at least one.
pub const fn manifest_pieces(plain_len: usize) -> usize {
    let pieces = plain_len.div_ceil(MANIFEST_PIECE);
    if pieces == 0 { 1 } else { pieces }
}

/// Seals the pieces of one share's manifest one after the other. Each is bound to its number and
/// to how many there are; `salt` gives fresh random bytes at every call. Laid end to end the pieces
/// are what a worker fetches: all but the last have the same sealed length.
pub fn seal_manifest<'a>(
    plain: &'a [u8],
    key: &'a BlockKey,
    lease: LeaseId,
    layout: LayoutId,
    mut salt: impl FnMut() -> [u8; SALT_LEN] + 'a,
) -> impl ExactSizeIterator<Item = Vec<u8>> + 'a {
    let pieces = manifest_pieces(plain.len());
    (0..pieces).map(move |piece| {
        let start = piece * MANIFEST_PIECE;
        let end = plain.len().min(start + MANIFEST_PIECE);
        let (number, count) = (piece as u64, pieces as u64);
        let context = Context { kind: Kind::Manifest, lease, layout, number, count };
        seal_message(key, &context, salt(), &plain[start..end])
    })
}
