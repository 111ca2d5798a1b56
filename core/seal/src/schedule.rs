//! The AES-256-GCM key of one message, with its nonces, wiped when dropped.

use std::fmt;
use std::mem::{MaybeUninit, needs_drop};
use std::ops::RangeFrom;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, Tag, UnboundKey};
use ring::error::Unspecified;
use zeroize::{Zeroize as _, Zeroizing};

use crate::chunk::{COMMITMENT_LEN, MAX_CHUNKS, SALT_LEN, TAG_LEN};
use crate::keys::BlockKey;
use crate::stack::wipe_stack_below;

const INFO_PREFIX: &[u8] = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0";
const KEY_LEN: usize = 32;
const NONCE_LEN: usize = 12;

/// A message's key schedule and base nonce.
pub(crate) struct Schedule {
    key: WipedKey,
    base_nonce: [u8; NONCE_LEN],
}

impl Schedule {
    /// key ‖ base nonce ‖ commitment = HKDF-Expand-SHA-512(input key, info ‖ salt ‖ context).
    pub(crate) fn derive(
        key: &BlockKey,
        context: &[u8],
        salt: &[u8; SALT_LEN],
    ) -> (Self, [u8; COMMITMENT_LEN]) {
        let mut okm = Zeroizing::new([0; KEY_LEN + NONCE_LEN + COMMITMENT_LEN]);
        key.expand(&[INFO_PREFIX, salt, context], okm.as_mut_slice());
        let mut base_nonce = [0; NONCE_LEN];
        base_nonce.copy_from_slice(&okm[KEY_LEN..KEY_LEN + NONCE_LEN]);
        let mut commitment = [0; COMMITMENT_LEN];
        commitment.copy_from_slice(&okm[KEY_LEN + NONCE_LEN..]);
        (Self { key: WipedKey::new(&okm[..KEY_LEN]), base_nonce }, commitment)
    }

    /// Seals one chunk where it lies. The caller never uses an index twice.
    pub(crate) fn seal(&self, index: u64, chunk: &mut [u8]) -> Result<[u8; TAG_LEN], Unspecified> {
        let nonce = self.nonce(index)?;
        let tag = self.key.get().seal_in_place_separate_tag(nonce, Aad::empty(), chunk)?;
        let mut out = [0; TAG_LEN];
        out.copy_from_slice(tag.as_ref());
        Ok(out)
    }

    /// Opens the ciphertext at `in_out[from..]` to the front of `in_out`.
    pub(crate) fn open<'a>(
        &self,
        index: u64,
        tag: [u8; TAG_LEN],
        in_out: &'a mut [u8],
        from: RangeFrom<usize>,
    ) -> Result<&'a mut [u8], Unspecified> {
        let nonce = self.nonce(index)?;
        self.key.get().open_in_place_separate_tag(nonce, Aad::empty(), Tag::from(tag), in_out, from)
    }

    #[cfg(test)]
    pub(crate) fn base_nonce(&self) -> &[u8] {
        &self.base_nonce
    }

    /// Base nonce XOR the chunk's number.
    fn nonce(&self, index: u64) -> Result<Nonce, Unspecified> {
        if index >= MAX_CHUNKS {
            return Err(Unspecified);
        }
        let mut nonce = self.base_nonce;
        for (byte, counter) in nonce[NONCE_LEN - 8..].iter_mut().zip(index.to_be_bytes()) {
            *byte ^= counter;
        }
        Ok(Nonce::assume_unique_for_key(nonce))
    }
}

impl Drop for Schedule {
    fn drop(&mut self) {
        self.base_nonce.zeroize();
    }
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Schedule(..)")
    }
}

/// ring's expanded key at one place on the heap. ring leaves it there when it is dropped; this
/// wipes it.
struct WipedKey(Box<MaybeUninit<LessSafeKey>>);

// Nothing of ring's is lost when the bytes go without its drop being run.
const _: () = assert!(!needs_drop::<LessSafeKey>());

impl WipedKey {
    fn new(key: &[u8]) -> Self {
        let mut place = Box::new(MaybeUninit::uninit());
        expand_into(&mut place, key);
        wipe_stack_below::<512>();
        Self(place)
    }

    fn get(&self) -> &LessSafeKey {
        #[allow(unsafe_code, reason = "a wiped place is only expressible as MaybeUninit")]
        // SAFETY: `new` is the only constructor and initialises the place; only `drop` wipes it.
        unsafe {
            self.0.assume_init_ref()
        }
    }

    fn wipe(&mut self) {
        // As a slice: byte by byte, so that padding and the unused parts of ring's enums go too.
        std::slice::from_mut(self.0.as_mut()).zeroize();
    }
}

impl Drop for WipedKey {
    fn drop(&mut self) {
        self.wipe();
    }
}

/// A function of its own, so that ring's temporary copies of the schedule lie below the caller's
/// frame, where [`wipe_stack_below`] reaches them.
#[inline(never)]
fn expand_into(place: &mut MaybeUninit<LessSafeKey>, key: &[u8]) {
    let key = UnboundKey::new(&AES_256_GCM, key).expect("AES-256 takes the 32 bytes it is given");
    place.write(LessSafeKey::new(key));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_key_leaves_zeros() {
        let mut key = WipedKey::new(&[0x5a; 32]);
        key.wipe();
        let place: *const [u8; size_of::<LessSafeKey>()] = key.0.as_ptr().cast();
        #[allow(unsafe_code, reason = "looks at the bytes where the key lay")]
        // SAFETY: the allocation is live and of that size, and the wipe has written every byte.
        let left = unsafe { place.read_volatile() };
        assert!(left.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn the_counter_stops_where_the_format_does() {
        let (schedule, _) = Schedule::derive(&BlockKey::from_bytes([1; 32]), b"", &[0; SALT_LEN]);
        assert!(schedule.seal(MAX_CHUNKS - 1, &mut [0]).is_ok());
        assert!(schedule.seal(MAX_CHUNKS, &mut [0]).is_err());
        let mut last = [0; 1];
        assert!(schedule.open(MAX_CHUNKS, [0; TAG_LEN], &mut last, 0..).is_err());
    }
}
