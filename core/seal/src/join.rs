//! Proof that a caller holds a join token's secret, without sending it.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::keys::JoinSecret;

fn mac(secret: &JoinSecret, transcript: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.proof_key().expose())
        .expect("HMAC takes a key of any length");
    mac.update(transcript);
    mac
}

/// HMAC-SHA-256 (RFC 2104) of the attach transcript, under a key derived from the secret.
pub fn attach_proof(secret: &JoinSecret, transcript: &[u8]) -> [u8; 32] {
    mac(secret, transcript).finalize().into_bytes().into()
}

/// Whether `proof` is the proof of that transcript; compared in constant time.
pub fn verify_attach_proof(secret: &JoinSecret, transcript: &[u8], proof: &[u8]) -> bool {
    mac(secret, transcript).verify_slice(proof).is_ok()
}
