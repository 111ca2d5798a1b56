use serde::{Deserialize, Serialize};
use tidegate_plan::{InstanceId, LeaseId, TokenId};

use crate::{Base64, LeaseTerms, Receipt};

/// Answer to `POST /v1/challenge` (empty body): a nonce to be signed once, within `expires_in` seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Challenge {
    /// 32 bytes; self-authenticating, so that asking for one makes the gateway store nothing.
    pub nonce: Base64,
    pub expires_in: u32,
    /// Gateway time, seconds since the epoch.
    pub time: u64,
}

/// `POST /v1/attach`: who asks, with what keys, on what node.
///
/// `signature` is Ed25519 by the identity key over [`AttachRequest::transcript`]. `proof` is
/// HMAC-SHA-256 over the same bytes under a key derived from the join token's secret, which is
/// itself never sent: a stranger who saw a token's id can neither use nor burn it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AttachRequest {
    pub lease: LeaseId,
    pub token: TokenId,
    pub nonce: Base64,
    /// Random for each worker process; a restarted worker has the same identity and a new instance.
    pub instance: InstanceId,
    /// Raw Ed25519 public key, 32 bytes.
    pub identity_key: Base64,
    /// HPKE public key of this attachment (X-Wing, 1216 bytes).
    pub hpke_key: Base64,
    /// JSON of [`crate::NodeFacts`], exactly as it is signed.
    pub facts: String,
    /// JSON of [`crate::Evidence`], exactly as it is signed.
    pub evidence: String,
    pub proof: Base64,
    pub signature: Base64,
}

impl AttachRequest {
    /// The bytes that `proof` and `signature` cover: a label, then each field behind its length
    /// (u32, big-endian), in the order of the struct; facts and evidence as the text that was sent, so
    /// that what a newer worker says besides is covered although an older gateway does not know it.
    pub fn transcript(&self) -> Vec<u8> {
        let fields: [&[u8]; 8] = [
            self.lease.as_bytes(),
            self.token.as_bytes(),
            &self.nonce.0,
            self.instance.as_bytes(),
            &self.identity_key.0,
            &self.hpke_key.0,
            self.facts.as_bytes(),
            self.evidence.as_bytes(),
        ];
        let mut out = b"tidegate/v1 attach\0".to_vec();
        for field in fields {
            out.extend_from_slice(&u32::try_from(field.len()).unwrap_or(u32::MAX).to_be_bytes());
            out.extend_from_slice(field);
        }
        out
    }
}

/// Answer to `POST /v1/attach`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AttachResponse {
    pub terms: LeaseTerms,
    /// Client certificate for the identity key, PEM, at most 15 minutes long.
    pub certificate: String,
    /// Seconds since the epoch at which the certificate ends.
    pub certificate_expires: u64,
    /// Lease revision made by this attachment.
    pub revision: u64,
    pub receipt: Receipt,
    pub time: u64,
}
