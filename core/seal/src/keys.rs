//! Key types, one for each use, and how those of a lease follow from its one key.

use std::fmt;

use hpke::rand_core::CryptoRng;
use tidegate_plan::TokenId;
use zeroize::Zeroize as _;

use crate::kdf::{expand, expand_32};

/// Thirty-two secret bytes: boxed, so that moving one leaves no copy behind, wiped when dropped,
/// never shown, compared, cloned or serialised.
pub struct Secret32(Box<[u8; 32]>);

impl Secret32 {
    /// Takes the bytes over. The caller's array is a copy: wipe it if it outlives the call.
    pub fn from_bytes(mut bytes: [u8; 32]) -> Self {
        let secret = Self(Box::new(bytes));
        bytes.zeroize();
        secret
    }

    /// `None` unless there are exactly 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        let mut secret = Box::new([0; 32]);
        (bytes.len() == secret.len()).then(|| {
            secret.copy_from_slice(bytes);
            Self(secret)
        })
    }

    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut secret = Box::new([0; 32]);
        rng.fill_bytes(secret.as_mut_slice());
        Self(secret)
    }

    /// The bytes themselves, for a derivation or for writing them to where they are kept.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    fn duplicate(&self) -> Self {
        let mut copy = Box::new([0; 32]);
        copy.copy_from_slice(self.expose());
        Self(copy)
    }

    fn derive(&self, info: &[&[u8]]) -> Self {
        Self(expand_32(&self.0, info))
    }
}

impl Drop for Secret32 {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret32(..)")
    }
}

macro_rules! key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name(Secret32);

        impl $name {
            pub fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(Secret32::from_bytes(bytes))
            }

            /// `None` unless there are exactly 32 bytes.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                Secret32::from_slice(bytes).map(Self)
            }

            pub fn generate(rng: &mut impl CryptoRng) -> Self {
                Self(Secret32::generate(rng))
            }

            /// The secret bytes.
            pub fn expose(&self) -> &[u8; 32] {
                self.0.expose()
            }
        }

        impl From<Secret32> for $name {
            fn from(secret: Secret32) -> Self {
                Self(secret)
            }
        }
    };
}

key!(
    /// The one data key of a lease: random, and never outside the gateway.
    LeaseKey
);
key!(
    /// Input key of one sealed message: a leaf of the block tree, or a share's manifest key.
    BlockKey
);
key!(
    /// An inner node of the block tree.
    NodeKey
);
key!(
    /// Key of a lease's results.
    ResultsKey
);
key!(
    /// Key-encryption key of an epoch: wraps the keys of the leases granted in it.
    EpochKey
);
key!(
    /// Secret of a join token: HPKE pre-shared key and the key of the attach proof; never sent.
    JoinSecret
);

/// Key of a share's manifest: an input key as a block's is.
pub type ManifestKey = BlockKey;

impl LeaseKey {
    /// Root of the block tree.
    pub fn tree_root(&self) -> NodeKey {
        self.0.derive(&[b"tidegate/v1 block tree"]).into()
    }

    /// Key of the manifest of one rank's share.
    pub fn manifest_key(&self, rank: u16) -> BlockKey {
        self.0.derive(&[b"tidegate/v1 manifest", &rank.to_be_bytes()]).into()
    }

    /// Key of the lease's results, from which its HPKE key pair and its proofs follow.
    pub fn results_key(&self) -> ResultsKey {
        self.0.derive(&[b"tidegate/v1 results"]).into()
    }

    /// Secret of the join token with that id.
    pub fn join_secret(&self, token: &TokenId) -> JoinSecret {
        self.0.derive(&[b"tidegate/v1 join", token.as_bytes()]).into()
    }
}

impl NodeKey {
    pub(crate) fn left(&self) -> Self {
        self.0.derive(&[b"tidegate/v1 left"]).into()
    }

    pub(crate) fn right(&self) -> Self {
        self.0.derive(&[b"tidegate/v1 right"]).into()
    }

    pub(crate) fn leaf(&self) -> BlockKey {
        self.0.derive(&[b"tidegate/v1 leaf"]).into()
    }
}

impl ResultsKey {
    pub(crate) fn pair_seed(&self) -> Secret32 {
        self.0.derive(&[b"tidegate/v1 results pair"])
    }

    pub(crate) fn proof_key(&self) -> Secret32 {
        self.0.derive(&[b"tidegate/v1 results proof"])
    }
}

impl JoinSecret {
    pub(crate) fn proof_key(&self) -> Secret32 {
        self.0.derive(&[b"tidegate/v1 attach proof"])
    }
}

impl BlockKey {
    /// Derives a message's own secrets (C2SP `chunked-encryption`, "Key derivation").
    pub(crate) fn expand(&self, info: &[&[u8]], okm: &mut [u8]) {
        expand(self.expose(), info, okm);
    }
}

impl EpochKey {
    pub(crate) fn duplicate(&self) -> Secret32 {
        self.0.duplicate()
    }
}

impl NodeKey {
    pub(crate) fn duplicate(&self) -> Secret32 {
        self.0.duplicate()
    }
}
