//! Key release: HPKE (RFC 9180) in mode PSK with X-Wing (KEM 0x647A), HKDF-SHA256 and AES-256-GCM.

use std::fmt;

use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::XWing;
use hpke::rand_core::CryptoRng;
use hpke::{Deserializable as _, HpkeError, Kem, OpModeR, OpModeS, PskBundle, Serializable};
use tidegate_plan::TokenId;
use zeroize::Zeroizing;

use crate::keys::{BlockKey, JoinSecret};
use crate::opener::OpenError;
use crate::sealer::SealError;
use crate::stack::wipe_stack_below;
use crate::tree::{Cover, FormatError};

/// Length of an X-Wing public key, bytes.
pub const HPKE_PUBLIC_LEN: usize = 1216;

const INFO: &[u8] = b"tidegate/v1 release";
const VERSION: u8 = 1;
const KEY_LEN: usize = 32;
/// Words of stack wiped behind a decapsulation: ML-KEM's matrices and what it decrypts.
pub(crate) const HPKE_STACK: usize = 8 * 1024;

type PublicKey = <XWing as Kem>::PublicKey;
type PrivateKey = <XWing as Kem>::PrivateKey;
type EncappedKey = <XWing as Kem>::EncappedKey;

/// What a worker is handed: its manifest's key and the keys of its window.
#[derive(Debug)]
pub struct Release {
    pub manifest_key: BlockKey,
    pub cover: Cover,
}

impl Release {
    /// version ‖ manifest key ‖ cover.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let cover = self.cover.to_bytes();
        let mut out = Zeroizing::new(Vec::with_capacity(1 + KEY_LEN + cover.len()));
        out.push(VERSION);
        out.extend_from_slice(self.manifest_key.expose());
        out.extend_from_slice(&cover);
        out
    }

    /// Reads what [`Release::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FormatError> {
        let rest = bytes.strip_prefix(&[VERSION]).ok_or(FormatError)?;
        let (key, cover) = rest.split_at_checked(KEY_LEN).ok_or(FormatError)?;
        let manifest_key = BlockKey::from_slice(key).ok_or(FormatError)?;
        Ok(Self { manifest_key, cover: Cover::from_bytes(cover)? })
    }
}

/// A worker's HPKE key pair, one for each attachment. The private key is wiped when dropped.
pub struct HpkeKeyPair {
    private: PrivateKey,
    public: PublicKey,
}

impl HpkeKeyPair {
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let (private, public) = XWing::gen_keypair_with_rng(rng);
        Self { private, public }
    }

    /// The public key, [`HPKE_PUBLIC_LEN`] bytes.
    pub fn public(&self) -> Vec<u8> {
        self.public.to_bytes().to_vec()
    }

    /// Opens a release sealed to this key pair, under the same token and `aad`.
    pub fn open_release(
        &self,
        secret: &JoinSecret,
        token: &TokenId,
        aad: &[u8],
        sealed: &[u8],
    ) -> Result<Release, OpenError> {
        let (enc, ciphertext) = sealed.split_at_checked(EncappedKey::size()).ok_or(OpenError)?;
        let enc = EncappedKey::from_bytes(enc).map_err(|_| OpenError)?;
        let psk = PskBundle::new(secret.expose(), token.as_bytes()).map_err(|_| OpenError)?;
        let plain = self.open_hpke(&OpModeR::Psk(psk), &enc, ciphertext, aad);
        wipe_stack_below::<HPKE_STACK>();
        let plain = Zeroizing::new(plain.map_err(|_| OpenError)?);
        Release::from_bytes(&plain).map_err(|_| OpenError)
    }

    #[inline(never)]
    fn open_hpke(
        &self,
        mode: &OpModeR<'_, XWing>,
        enc: &EncappedKey,
        ciphertext: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, HpkeError> {
        hpke::single_shot_open::<AesGcm256, HkdfSha256, XWing>(
            mode,
            &self.private,
            enc,
            INFO,
            ciphertext,
            aad,
        )
    }
}

impl fmt::Debug for HpkeKeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HpkeKeyPair(..)")
    }
}

/// Seals a release to a worker's public key. Only who holds both the private key and the token's
/// secret opens it; `aad` binds it to the attachment. Returns enc ‖ ciphertext.
pub fn seal_release(
    public: &[u8],
    secret: &JoinSecret,
    token: &TokenId,
    aad: &[u8],
    release: &Release,
    rng: &mut impl CryptoRng,
) -> Result<Vec<u8>, SealError> {
    let public = PublicKey::from_bytes(public).map_err(|_| SealError::PublicKey)?;
    let psk = PskBundle::new(secret.expose(), token.as_bytes()).map_err(|_| SealError::Failed)?;
    let (enc, ciphertext) = hpke::single_shot_seal_with_rng::<AesGcm256, HkdfSha256, XWing>(
        &OpModeS::Psk(psk),
        &public,
        INFO,
        &release.to_bytes(),
        aad,
        rng,
    )
    .map_err(|_| SealError::Failed)?;
    let mut out = enc.to_bytes().to_vec();
    out.extend_from_slice(&ciphertext);
    Ok(out)
}
