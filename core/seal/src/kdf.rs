//! HKDF-Expand with SHA-512 (RFC 5869 §2.3).
//!
//! The `hkdf` crate refuses a pseudorandom key shorter than the hash, which the format's 32-byte
//! keys are (RFC 5869 recommends the longer key, C2SP `chunked-encryption` uses the shorter), so
//! the few lines stand here; the tests compare them with two other implementations.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha512;
use zeroize::{Zeroize as _, Zeroizing};

use crate::stack::wipe_stack_below;

const HASH_LEN: usize = 64;

/// Fills `okm` (at most 255 × 64 bytes) from the key and the concatenation of `info`.
pub(crate) fn expand(prk: &[u8; 32], info: &[&[u8]], okm: &mut [u8]) {
    hmac_chain(prk, info, okm);
    // The keyed hash states are not wiped by their crates.
    wipe_stack_below::<512>();
}

#[inline(never)]
fn hmac_chain(prk: &[u8; 32], info: &[&[u8]], okm: &mut [u8]) {
    debug_assert!(okm.len() <= 255 * HASH_LEN, "RFC 5869 stops at 255 blocks");
    let keyed = Hmac::<Sha512>::new_from_slice(prk).expect("HMAC takes a key of any length");
    let mut previous = Zeroizing::new([0; HASH_LEN]);
    let mut previous_len = 0;
    for (counter, out) in (1..=u8::MAX).zip(okm.chunks_mut(HASH_LEN)) {
        let mut mac = keyed.clone();
        mac.update(&previous[..previous_len]);
        for part in info {
            mac.update(part);
        }
        mac.update(&[counter]);
        let mut block = mac.finalize().into_bytes();
        previous.copy_from_slice(&block);
        previous_len = HASH_LEN;
        out.copy_from_slice(&block[..out.len()]);
        block.as_mut_slice().zeroize();
    }
}

/// Thirty-two derived bytes, on the heap from the start.
pub(crate) fn expand_32(prk: &[u8; 32], info: &[&[u8]]) -> Box<[u8; 32]> {
    let mut okm = Box::new([0; 32]);
    expand(prk, info, okm.as_mut_slice());
    okm
}
