//! The wipe certificate: what the gateway observed and what the worker stated, never merged.
//!
//! Fields after NIST SP 800-88r2 (media, method, verification, by whom, when). The stated part is
//! signed by the worker's identity key; the whole is counter-signed by the ledger entry that
//! holds its digest.

use ed25519_dalek::{Signature, VerifyingKey};
use serde::{Deserialize, Serialize};
use tidegate_plan::{InstanceId, LeaseId};

use crate::canonical::{CanonicalError, from_canonical, to_canonical};
use crate::{Digest, Outcome};

/// Method text for an overwritten cache file; whoever does something else says so in its own words.
pub const METHOD_OVERWRITE: &str = "NIST SP 800-88r2 Clear: keys destroyed, then a single overwrite of the cache with zeros, read back";

/// The gateway's facts about one rank of a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Observed {
    pub outcome: Outcome,
    /// Seconds since the epoch; `None` when no worker ever attached.
    pub attached_at: Option<u64>,
    /// Block ranges `first..end` whose keys were released.
    pub released: Vec<(u32, u32)>,
    pub releases: u32,
    /// Plaintext bytes those releases authorised, an upper bound.
    pub released_bytes: u64,
    /// Sealed bytes sent; `None` when a crash lost the count.
    pub sent_bytes: Option<u64>,
    pub last_release_at: Option<u64>,
    pub last_seen: Option<u64>,
    pub closed_at: u64,
    pub lease_key_destroyed_at: Option<u64>,
    /// The wrapped key's object was deleted and found absent; `None`: not yet looked at.
    pub wrapped_key_absent: Option<bool>,
    /// The key-encryption key of the lease's epoch is destroyed, so backups are dead too.
    pub epoch_key_destroyed: Option<bool>,
    /// Seconds after the key's destruction for which the gateway waited for the worker's statement:
    /// its limit. `None` when it did not wait as long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waited_s: Option<u64>,
    /// Bytes of results that were not at home when the worker, which stated nothing, last said so; absent
    /// where there were none, or none is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results_unsent_bytes: Option<u64>,
}

/// Whether the file system was told to discard the cache's blocks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Discarded {
    Done,
    /// Why not.
    NotDone(String),
}

/// The worker's counters at the end of its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatedCounters {
    pub blocks_fetched: u64,
    /// Sealed bytes received.
    pub bytes_fetched: u64,
    /// Plaintext bytes answered to readers.
    pub bytes_read: u64,
    pub reads: u64,
    pub read_errors: u64,
    pub refetched: u64,
}

/// Facts about the node that bear on what a wipe can mean.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatedFacts {
    /// Active swap areas; empty is none.
    pub swap: Vec<String>,
    pub core_pattern: String,
    pub core_dumps_off: bool,
    /// The kernel zeroes freed pages.
    pub init_on_free: bool,
    /// File system type under the cache.
    pub cache_fs: String,
}

/// Most names in [`StatedResults::lost`].
pub const LOST_NAMES_MAX: usize = 1 << 16;

/// What the worker says of the results.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatedResults {
    /// Brought home; a file that was stored again counts again.
    pub stored_files: u64,
    pub stored_bytes: u64,
    /// Written by the job and not at home as it was last written.
    pub lost_files: u64,
    /// Their names, at most [`LOST_NAMES_MAX`] of them.
    pub lost: Vec<String>,
}

/// The worker's own words about its wipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stated {
    pub v: u32,
    pub lease: LeaseId,
    pub rank: u16,
    pub instance: InstanceId,
    /// When the statement was made, the worker's clock, seconds since the epoch.
    pub time: u64,
    pub keys_destroyed_at: u64,
    pub unmounted: bool,
    pub cache_bytes: u64,
    pub overwritten_bytes: u64,
    pub read_back_bytes: u64,
    /// Read back and found not overwritten.
    pub mismatched_bytes: u64,
    pub discarded: Discarded,
    pub unlinked: bool,
    pub method: String,
    /// Plaintext in the kernel's page cache that was freed, not overwritten; an upper bound.
    pub page_cache_bytes_freed_without_overwrite: u64,
    pub counters: StatedCounters,
    pub facts: StatedFacts,
    /// Absent for a lease that brings nothing home.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results: Option<StatedResults>,
}

impl Stated {
    pub const VERSION: u32 = 1;

    /// The exact text that the worker signs.
    pub fn to_canonical(&self) -> Result<String, CanonicalError> {
        to_canonical(self)
    }

    /// Reads a statement; anything but the exact canonical text of version 1 is refused.
    pub fn parse(text: &str) -> Result<Self, CertificateError> {
        let stated: Self = from_canonical(text)?;
        if stated.v != Self::VERSION {
            return Err(CertificateError::Version(stated.v));
        }
        Ok(stated)
    }

    /// What keeps this statement from being one of a complete wipe; `None` when nothing does.
    pub fn shortfall(&self) -> Option<Shortfall> {
        if !self.unmounted {
            Some(Shortfall::StillMounted)
        } else if self.overwritten_bytes < self.cache_bytes {
            Some(Shortfall::NotOverwritten(self.cache_bytes - self.overwritten_bytes))
        } else if self.read_back_bytes < self.cache_bytes {
            Some(Shortfall::NotReadBack(self.cache_bytes - self.read_back_bytes))
        } else if self.mismatched_bytes > 0 {
            Some(Shortfall::Mismatched(self.mismatched_bytes))
        } else if !self.unlinked {
            Some(Shortfall::NotUnlinked)
        } else {
            None
        }
    }
}

/// The first thing a statement lacks to be one of a complete wipe. Counts are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Shortfall {
    #[error("the mount was still there")]
    StillMounted,
    #[error("{0} bytes of the cache were not overwritten")]
    NotOverwritten(u64),
    #[error("{0} bytes of the cache were not read back")]
    NotReadBack(u64),
    #[error("{0} bytes of the cache did not read back as overwritten")]
    Mismatched(u64),
    #[error("the cache was not unlinked")]
    NotUnlinked,
}

/// Both parts side by side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WipeCertificate {
    pub version: u32,
    pub lease: LeaseId,
    pub rank: u16,
    /// Ed25519 public key of the worker that last held the rank; `None` when none ever attached.
    pub identity: Option<Digest>,
    pub observed: Observed,
    pub stated: Option<Stated>,
    /// Hex of the worker's Ed25519 signature over the stated part's canonical text.
    pub stated_signature: Option<String>,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    #[error("the certificate says wiped but no worker stated it")]
    ClaimsMoreThanSeen,
    #[error("the stated part belongs to another lease or rank")]
    ForeignStatement,
    #[error("a statement needs the worker's key and signature beside it, and they need it")]
    Incomplete,
    #[error("it is not the certificate that its entry names")]
    NotTheOne,
    #[error("the worker's signature does not verify")]
    Signature,
    #[error("not a wipe certificate in canonical form")]
    Syntax(#[from] CanonicalError),
    #[error("the certificate has version {0}, this program reads version 1")]
    Version(u32),
}

impl WipeCertificate {
    pub const VERSION: u32 = 1;

    pub fn to_canonical(&self) -> Result<String, CanonicalError> {
        to_canonical(self)
    }

    /// Reads a certificate and [checks](Self::check) it.
    pub fn parse(text: &str) -> Result<Self, CertificateError> {
        let certificate: Self = from_canonical(text)?;
        certificate.check()?;
        Ok(certificate)
    }

    /// Reads a stored certificate, checks it, and that it is the one whose digest an entry holds.
    pub fn stored(text: &str, digest: &Digest) -> Result<Self, CertificateError> {
        let certificate = Self::parse(text)?;
        if certificate.digest()? != *digest {
            return Err(CertificateError::NotTheOne);
        }
        Ok(certificate)
    }

    /// BLAKE3 of the canonical text: what the ledger entry holds.
    pub fn digest(&self) -> Result<Digest, CanonicalError> {
        Ok(Digest::from_bytes(*blake3::hash(self.to_canonical()?.as_bytes()).as_bytes()))
    }

    /// Checks version, that the parts belong together, the worker's signature, and that the
    /// outcome claims no more than was stated.
    pub fn check(&self) -> Result<(), CertificateError> {
        if self.version != Self::VERSION {
            return Err(CertificateError::Version(self.version));
        }
        match (&self.stated, &self.stated_signature, &self.identity) {
            (Some(stated), Some(signature), Some(identity)) => {
                if stated.lease != self.lease || stated.rank != self.rank {
                    return Err(CertificateError::ForeignStatement);
                }
                let signature = hex::decode(signature).map_err(|_| CertificateError::Signature)?;
                verify_stated(identity.as_bytes(), &stated.to_canonical()?, &signature)?;
                if self.observed.outcome == Outcome::Wiped && stated.shortfall().is_some() {
                    return Err(CertificateError::ClaimsMoreThanSeen);
                }
                Ok(())
            }
            (None, None, _) if self.observed.outcome == Outcome::Withdrawn => Ok(()),
            (None, None, _) => Err(CertificateError::ClaimsMoreThanSeen),
            _ => Err(CertificateError::Incomplete),
        }
    }
}

/// Checks a worker's statement as it arrived: exact canonical text, signed by its identity key.
pub fn verify_stated(
    identity: &[u8; 32],
    text: &str,
    signature: &[u8],
) -> Result<Stated, CertificateError> {
    if !verify_signature(identity, text.as_bytes(), signature) {
        return Err(CertificateError::Signature);
    }
    Stated::parse(text)
}

/// Ed25519 (RFC 8032, strict: no small-order keys, no malleable signatures).
pub fn verify_signature(public_key: &[u8; 32], message: &[u8], signature: &[u8]) -> bool {
    let (Ok(key), Ok(signature)) =
        (VerifyingKey::from_bytes(public_key), Signature::from_slice(signature))
    else {
        return false;
    };
    key.verify_strict(message, &signature).is_ok()
}

#[cfg(test)]
mod tests;
