//! How the bytes of a result are cut, and BLAKE3 over bytes that are seen part by part.
//!
//! A file comes home in *parts*, each a whole number of *blocks* but the last. A part's length is a
//! power of two of BLAKE3 chunks, so that each part is a subtree of the whole file's hash and parts may
//! be hashed apart, in any order, by any replica.

use blake3::Hasher;
use blake3::hazmat::{
    ChainingValue, HasherExt as _, Mode, merge_subtrees_non_root, merge_subtrees_root,
};

/// Plaintext of one sealed block of a result, bytes; the last is shorter.
pub const RESULT_BLOCK_LEN: usize = 1 << 20;
/// Plaintext of one part, bytes; the last is shorter. A file of one part or less comes in one piece.
pub const RESULT_PART_LEN: usize = 16 << 20;
/// Most parts of a file: what stores allow of a multipart upload.
pub const RESULT_PARTS_MAX: u32 = 10_000;
/// Longest result, bytes (156 GiB).
pub const RESULT_LEN_MAX: u64 = RESULT_PART_LEN as u64 * RESULT_PARTS_MAX as u64;

/// BLAKE3 chaining value of one part of a file of several parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartHash(pub [u8; 32]);

impl PartHash {
    /// Hashes part number `part`; `None` when it has no bytes or more than a part holds.
    pub fn of(part: u32, bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() || bytes.len() > RESULT_PART_LEN {
            return None;
        }
        let mut hasher = Hasher::new();
        hasher.set_input_offset(u64::from(part) * RESULT_PART_LEN as u64);
        hasher.update(bytes);
        Some(Self(hasher.finalize_non_root()))
    }

    /// BLAKE3 of the whole file from those of its parts, in order; `None` for fewer than two.
    pub fn combine(parts: &[Self]) -> Option<[u8; 32]> {
        let (left, right) = split(parts)?;
        let root = merge_subtrees_root(&merge(left)?, &merge(right)?, Mode::Hash);
        Some(*root.as_bytes())
    }
}

/// The left subtree holds the largest power of two of parts that leaves at least one.
fn split(parts: &[PartHash]) -> Option<(&[PartHash], &[PartHash])> {
    let last = parts.len().checked_sub(1).filter(|last| *last > 0)?;
    Some(parts.split_at(1 << last.ilog2()))
}

fn merge(parts: &[PartHash]) -> Option<ChainingValue> {
    match split(parts) {
        Some((left, right)) => {
            Some(merge_subtrees_non_root(&merge(left)?, &merge(right)?, Mode::Hash))
        }
        None => parts.first().map(|part| part.0),
    }
}

/// Blocks of so many bytes; an empty content has one empty block.
pub fn result_blocks(len: u64) -> u64 {
    len.div_ceil(RESULT_BLOCK_LEN as u64).max(1)
}

/// Parts of so many bytes; an empty content has one empty part.
pub fn result_parts(len: u64) -> u64 {
    len.div_ceil(RESULT_PART_LEN as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_hashed_apart_give_the_hash_of_the_whole() {
        let pattern: Vec<u8> = (0..251).collect();
        let bytes: Vec<u8> = pattern.into_iter().cycle().take(5 * RESULT_PART_LEN + 3).collect();
        for len in [1, 2, 3, 4, 5].map(|parts| parts * RESULT_PART_LEN) {
            for len in [len + 1, len + 3, len + RESULT_PART_LEN.min(bytes.len() - len)] {
                let file = &bytes[..len.min(bytes.len())];
                let parts = (0..).zip(file.chunks(RESULT_PART_LEN));
                let parts: Vec<_> =
                    parts.map(|(number, part)| PartHash::of(number, part).unwrap()).collect();
                assert_eq!(PartHash::combine(&parts), Some(*blake3::hash(file).as_bytes()));
            }
        }
    }

    #[test]
    fn what_is_no_part_has_no_hash() {
        assert_eq!(PartHash::of(0, &[]), None);
        assert_eq!(PartHash::of(0, &vec![0; RESULT_PART_LEN + 1]), None);
        assert_eq!(PartHash::combine(&[]), None);
        assert_eq!(PartHash::combine(&[PartHash([0; 32])]), None);
        assert_eq!((result_blocks(0), result_parts(0)), (1, 1));
        assert_eq!(result_blocks(RESULT_BLOCK_LEN as u64 + 1), 2);
    }
}
