//! Results: who seals them cannot open them once he has forgotten the content's key.
//!
//! Each content has a random key of its own. It leaves the worker, and stays on its disk, only under HPKE
//! (RFC 9180, mode base, X-Wing, HKDF-SHA256, AES-256-GCM) sealed to a public key that follows from the
//! lease key: destroying that shuts every content for good.

use hmac::{Hmac, KeyInit as _, Mac as _};
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::XWing;
use hpke::rand_core::CryptoRng;
use hpke::{Deserializable as _, HpkeError, Kem, OpModeR, OpModeS, Serializable};
use sha2::Sha256;
use tidegate_plan::{ContentId, LeaseId};
use zeroize::Zeroizing;

use crate::keys::{BlockKey, ResultsKey};
use crate::opener::OpenError;
use crate::release::{HPKE_PUBLIC_LEN, HPKE_STACK};
use crate::sealer::SealError;
use crate::stack::wipe_stack_below;

/// Length of a lease's results public key, bytes: X-Wing's.
pub const RESULTS_PUBLIC_LEN: usize = HPKE_PUBLIC_LEN;

const INFO: &[u8] = b"tidegate/v1 content key";

type PublicKey = <XWing as Kem>::PublicKey;
type PrivateKey = <XWing as Kem>::PrivateKey;
type EncappedKey = <XWing as Kem>::EncappedKey;

#[inline(never)]
fn key_pair(key: &ResultsKey) -> (PrivateKey, PublicKey) {
    XWing::derive_keypair(key.pair_seed().expose())
}

/// Binds a content key to its lease and content.
fn aad(lease: &LeaseId, content: &ContentId) -> Vec<u8> {
    [lease.as_bytes().as_slice(), content.as_bytes()].concat()
}

/// What content keys of the lease are sealed to, [`RESULTS_PUBLIC_LEN`] bytes.
pub fn results_public_key(key: &ResultsKey) -> Vec<u8> {
    let (_private, public) = key_pair(key);
    let bytes = public.to_bytes().to_vec();
    wipe_stack_below::<HPKE_STACK>();
    bytes
}

/// Seals the key of one content to the lease's results public key. Returns enc ‖ ciphertext.
pub fn seal_content_key(
    public: &[u8],
    lease: &LeaseId,
    content: &ContentId,
    key: &BlockKey,
    rng: &mut impl CryptoRng,
) -> Result<Vec<u8>, SealError> {
    let public = PublicKey::from_bytes(public).map_err(|_| SealError::PublicKey)?;
    let aad = aad(lease, content);
    let mode = OpModeS::Base;
    let sealed = hpke::single_shot_seal_with_rng::<AesGcm256, HkdfSha256, XWing>(
        &mode,
        &public,
        INFO,
        key.expose(),
        &aad,
        rng,
    );
    let (enc, ciphertext) = sealed.map_err(|_| SealError::Failed)?;
    let mut out = enc.to_bytes().to_vec();
    out.extend_from_slice(&ciphertext);
    Ok(out)
}

/// Opens what [`seal_content_key`] sealed for the same lease and content.
pub fn open_content_key(
    key: &ResultsKey,
    lease: &LeaseId,
    content: &ContentId,
    sealed: &[u8],
) -> Result<BlockKey, OpenError> {
    let (enc, ciphertext) = sealed.split_at_checked(EncappedKey::size()).ok_or(OpenError)?;
    let enc = EncappedKey::from_bytes(enc).map_err(|_| OpenError)?;
    let plain = open_hpke(key, &enc, ciphertext, &aad(lease, content));
    wipe_stack_below::<HPKE_STACK>();
    let plain = Zeroizing::new(plain.map_err(|_| OpenError)?);
    BlockKey::from_slice(&plain).ok_or(OpenError)
}

#[inline(never)]
fn open_hpke(
    key: &ResultsKey,
    enc: &EncappedKey,
    ciphertext: &[u8],
    aad: &[u8],
) -> Result<Vec<u8>, HpkeError> {
    let (private, _public) = key_pair(key);
    let mode = OpModeR::Base;
    hpke::single_shot_open::<AesGcm256, HkdfSha256, XWing>(
        &mode, &private, enc, INFO, ciphertext, aad,
    )
}

fn mac(key: &ResultsKey, message: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.proof_key().expose())
        .expect("HMAC takes a key of any length");
    mac.update(message);
    mac
}

/// HMAC-SHA-256 (RFC 2104) by which a gateway knows again what it said of a result.
pub fn results_proof(key: &ResultsKey, message: &[u8]) -> [u8; 32] {
    mac(key, message).finalize().into_bytes().into()
}

/// Whether `proof` is the proof of that message; compared in constant time.
pub fn verify_results_proof(key: &ResultsKey, message: &[u8], proof: &[u8]) -> bool {
    mac(key, message).verify_slice(proof).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::LeaseKey;
    use getrandom::SysRng;
    use hpke::rand_core::UnwrapErr;

    fn rng() -> UnwrapErr<SysRng> {
        UnwrapErr(SysRng)
    }

    #[test]
    fn a_content_key_opens_for_its_lease_and_content_only() {
        let key = LeaseKey::from_bytes([7; 32]).results_key();
        let other = LeaseKey::from_bytes([8; 32]).results_key();
        let (lease, content) = (LeaseId::from_bytes([1; 16]), ContentId::from_bytes([2; 32]));
        let public = results_public_key(&key);
        assert_eq!(public.len(), RESULTS_PUBLIC_LEN);
        assert_eq!(public, results_public_key(&key), "every replica derives the same");
        let secret = BlockKey::from_bytes([9; 32]);
        let sealed = seal_content_key(&public, &lease, &content, &secret, &mut rng()).unwrap();
        let opened = open_content_key(&key, &lease, &content, &sealed).unwrap();
        assert_eq!(opened.expose(), secret.expose());
        assert!(open_content_key(&other, &lease, &content, &sealed).is_err());
        let elsewhere = LeaseId::from_bytes([3; 16]);
        assert!(open_content_key(&key, &elsewhere, &content, &sealed).is_err());
        let another = ContentId::from_bytes([3; 32]);
        assert!(open_content_key(&key, &lease, &another, &sealed).is_err());
        for at in [0, sealed.len() / 2, sealed.len() - 1] {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(open_content_key(&key, &lease, &content, &changed).is_err());
        }
        assert!(open_content_key(&key, &lease, &content, &sealed[..40]).is_err());
        let refused = seal_content_key(&public[1..], &lease, &content, &secret, &mut rng());
        assert_eq!(refused, Err(SealError::PublicKey));
    }

    #[test]
    fn a_proof_holds_for_its_message_and_lease() {
        let key = LeaseKey::from_bytes([7; 32]).results_key();
        let proof = results_proof(&key, b"part");
        assert!(verify_results_proof(&key, b"part", &proof));
        assert!(!verify_results_proof(&key, b"parts", &proof));
        assert!(!verify_results_proof(&key, b"part", &proof[..31]));
        let other = LeaseKey::from_bytes([8; 32]).results_key();
        assert!(!verify_results_proof(&other, b"part", &proof));
    }
}
