//! Challenge nonces that prove themselves, so that handing one out stores nothing.
//!
//! nonce = expiry (8 bytes, big-endian seconds) ‖ 8 random bytes ‖ first 16 bytes of keyed BLAKE3
//! over both. A nonce is burnt only by a caller who proved a join secret, so strangers cannot fill
//! the replay cache; it holds an entry no longer than the nonce lives and is bounded besides.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use zeroize::Zeroizing;

/// Seconds a nonce lives.
pub(crate) const NONCE_LIFE_S: u64 = 60;
/// Attachments within one nonce's life; more is an attack by somebody with join secrets.
const REPLAY_MAX: usize = 16 * 1024;
const LEN: usize = 32;

/// A nonce was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NonceError {
    /// Not ours, past its life, or used before.
    Invalid,
    /// The replay cache is full.
    Full,
}

/// Makes and checks nonces under a key drawn at start.
pub(crate) struct Nonces {
    key: Zeroizing<[u8; 32]>,
    used: Mutex<HashMap<[u8; LEN], u64>>,
}

impl Nonces {
    pub(crate) fn new(key: [u8; 32]) -> Self {
        Self { key: Zeroizing::new(key), used: Mutex::new(HashMap::new()) }
    }

    /// A fresh nonce that ends [`NONCE_LIFE_S`] after `now`.
    pub(crate) fn issue(&self, now: u64, random: [u8; 8]) -> [u8; LEN] {
        let mut nonce = [0; LEN];
        nonce[..8].copy_from_slice(&(now + NONCE_LIFE_S).to_be_bytes());
        nonce[8..16].copy_from_slice(&random);
        let tag = self.tag(&nonce[..16]);
        nonce[16..].copy_from_slice(&tag);
        nonce
    }

    /// Whether `nonce` is ours and alive. Does not burn it.
    pub(crate) fn check(&self, nonce: &[u8], now: u64) -> Result<[u8; LEN], NonceError> {
        let nonce: [u8; LEN] = nonce.try_into().map_err(|_| NonceError::Invalid)?;
        let expected = self.tag(&nonce[..16]);
        let differs = expected.iter().zip(&nonce[16..]).fold(0, |acc, (a, b)| acc | (a ^ b));
        if differs != 0 || expiry(&nonce) <= now {
            return Err(NonceError::Invalid);
        }
        Ok(nonce)
    }

    /// Burns a checked nonce; an error when it was burnt before.
    pub(crate) fn burn(&self, nonce: [u8; LEN], now: u64) -> Result<(), NonceError> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.len() >= REPLAY_MAX {
            used.retain(|_, expiry| *expiry > now);
            if used.len() >= REPLAY_MAX {
                return Err(NonceError::Full);
            }
        }
        match used.insert(nonce, expiry(&nonce)) {
            None => Ok(()),
            Some(_) => Err(NonceError::Invalid),
        }
    }

    fn tag(&self, head: &[u8]) -> [u8; 16] {
        let hash = blake3::keyed_hash(&self.key, head);
        let mut tag = [0; 16];
        tag.copy_from_slice(&hash.as_bytes()[..16]);
        tag
    }
}

fn expiry(nonce: &[u8; LEN]) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&nonce[..8]);
    u64::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_holds_once_within_its_life() {
        let nonces = Nonces::new([7; 32]);
        let nonce = nonces.issue(1000, [1; 8]);
        let checked = nonces.check(&nonce, 1000).unwrap();
        assert_eq!(nonces.burn(checked, 1000), Ok(()));
        assert_eq!(nonces.burn(checked, 1000), Err(NonceError::Invalid));
        assert_eq!(nonces.check(&nonce, 1000 + NONCE_LIFE_S), Err(NonceError::Invalid));
    }

    #[test]
    fn a_changed_or_foreign_nonce_does_not_hold() {
        let nonces = Nonces::new([7; 32]);
        let nonce = nonces.issue(1000, [1; 8]);
        for bit in 0..LEN * 8 {
            let mut changed = nonce;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(nonces.check(&changed, 1000), Err(NonceError::Invalid), "bit {bit}");
        }
        assert_eq!(Nonces::new([8; 32]).check(&nonce, 1000), Err(NonceError::Invalid));
        assert_eq!(nonces.check(&nonce[..31], 1000), Err(NonceError::Invalid));
    }

    #[test]
    fn the_replay_cache_is_bounded_and_forgets_the_dead() {
        let nonces = Nonces::new([7; 32]);
        for n in 0..REPLAY_MAX as u64 {
            nonces.burn(nonces.issue(1000, n.to_be_bytes()), 1000).unwrap();
        }
        let next = nonces.issue(1000, u64::MAX.to_be_bytes());
        assert_eq!(nonces.burn(next, 1000), Err(NonceError::Full));
        let later = nonces.issue(2000, [0; 8]);
        assert_eq!(nonces.burn(later, 2000), Ok(()));
    }
}
