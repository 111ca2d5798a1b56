use std::sync::Arc;

use ed25519_dalek::Signer as _;
use rustls::sign::{Signer, SigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};
use zeroize::Zeroizing;

use crate::keyfile;

/// A worker's Ed25519 identity: signs its attach, its TLS handshakes and its wipe statement.
///
/// One copy in memory, shared by its clones and wiped with the last of them.
#[derive(Clone)]
pub struct IdentityKey(Arc<ed25519_dalek::SigningKey>);

impl IdentityKey {
    pub fn generate() -> Self {
        Self::from_seed(&Zeroizing::new(keyfile::random()))
    }

    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(Arc::new(ed25519_dalek::SigningKey::from_bytes(seed)))
    }

    /// The private seed, for the 0600 file from which a restarted worker takes its identity.
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    pub fn public_key(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// Ed25519 signature (RFC 8032) over the message.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }

    pub(super) fn for_tls(&self) -> Arc<dyn SigningKey> {
        Arc::new(self.clone())
    }
}

impl std::fmt::Debug for IdentityKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let public: String = self.public_key().iter().map(|b| format!("{b:02x}")).collect();
        f.debug_tuple("IdentityKey").field(&public).finish()
    }
}

impl SigningKey for IdentityKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered
            .contains(&SignatureScheme::ED25519)
            .then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for IdentityKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        Ok(Self::sign(self, message).to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}
