use std::ops::Range;

use serde::{Deserialize, Serialize};
use tidegate_plan::{InstanceId, LayoutId, LeaseId, SnapshotId};

use crate::{Base64, NodeFacts, Receipt, ResultsTerms};

/// What was granted: everything a worker must know to ask for, open and place blocks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LeaseTerms {
    pub lease: LeaseId,
    pub snapshot: SnapshotId,
    pub layout: LayoutId,
    pub rank: u16,
    pub ranks: u16,
    /// Blocks of the whole lease; the key tree's depth follows from it.
    pub blocks: u32,
    /// This share's blocks: `first_block..end_block`.
    pub first_block: u32,
    pub end_block: u32,
    /// Most blocks whose keys one release hands out.
    pub window_blocks: u32,
    /// Plaintext length of the share's manifest in bytes; it is sealed in pieces of at most 4 MiB.
    pub manifest_len: u64,
    /// Sum of the share's file sizes in bytes.
    pub bytes: u64,
    pub files: u64,
    /// Lease deadline, seconds since the epoch by the gateway's clock.
    pub deadline: u64,
    /// Seconds between heartbeats, and how long the worker may serve without one.
    pub heartbeat: u32,
    pub grace: u32,
    /// What the worker may bring home; nothing when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results: Option<ResultsTerms>,
}

impl LeaseTerms {
    /// The window of keys that a block of the share is in. Windows begin at multiples of their
    /// length, which keeps their covers small, and end with the share.
    pub fn window_of(&self, block: u32) -> Range<u32> {
        let len = self.window_blocks.max(1);
        let start = block / len * len;
        let end = start.saturating_add(len).min(self.end_block);
        start.max(self.first_block).min(end)..end
    }
}

/// `POST /v1/leases/{lease}/keys`: blocks inside the share, no more than
/// [`LeaseTerms::window_blocks`]; none for the manifest's key alone. Repeatable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KeyRequest {
    pub first_block: u32,
    pub end_block: u32,
}

/// One release: manifest key and cover, sealed to the attachment's HPKE key with the join secret as PSK.
///
/// The HPKE plaintext is `tidegate_seal::Release`; its associated data is [`KeyGrant::aad`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KeyGrant {
    pub lease: LeaseId,
    pub layout: LayoutId,
    pub rank: u16,
    /// Counts the releases of this lease, from 1.
    pub epoch: u32,
    pub first_block: u32,
    pub end_block: u32,
    /// Seconds since the epoch after which the keys must not be used.
    pub expiry: u64,
    pub sealed: Base64,
    pub receipt: Receipt,
    pub time: u64,
}

impl KeyGrant {
    /// Fixed-width binding of a release to its lease, layout, rank, epoch, window and expiry.
    pub fn aad(&self) -> Vec<u8> {
        let mut out = b"tidegate/v1 key grant\0".to_vec();
        out.extend_from_slice(self.lease.as_bytes());
        out.extend_from_slice(self.layout.as_bytes());
        out.extend_from_slice(&self.rank.to_be_bytes());
        out.extend_from_slice(&self.epoch.to_be_bytes());
        out.extend_from_slice(&self.first_block.to_be_bytes());
        out.extend_from_slice(&self.end_block.to_be_bytes());
        out.extend_from_slice(&self.expiry.to_be_bytes());
        out
    }
}

/// What a worker counted since it attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Counters {
    pub blocks_fetched: u64,
    /// Sealed bytes received.
    pub bytes_fetched: u64,
    /// Plaintext bytes answered to readers.
    pub bytes_read: u64,
    pub reads: u64,
    pub read_errors: u64,
    pub refetched: u64,
    /// Blocks resident on disk now.
    pub resident: u64,
    /// Bytes of results that are not at home yet.
    #[serde(default)]
    pub results_unsent: u64,
    /// Files and bytes of results brought home.
    #[serde(default)]
    pub results_files: u64,
    #[serde(default)]
    pub results_bytes: u64,
}

/// `POST /v1/leases/{lease}/heartbeat`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Heartbeat {
    pub instance: InstanceId,
    pub counters: Counters,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Directive {
    Continue,
    /// Finish what is open, bring results home, then wipe.
    Drain,
    /// Destroy the keys now.
    Die,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HeartbeatReply {
    pub directive: Directive,
    pub deadline: u64,
    /// A new client certificate (PEM) and its end, once half of the old one's life is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<(String, u64)>,
    pub time: u64,
}

/// `POST /v1/leases/{lease}/wipe-certificate`: the *stated* part, in the worker's words.
///
/// `signature` is Ed25519 by the identity key over `statement` exactly as sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WipeStatement {
    /// Canonical JSON of `tidegate_ledger::Stated`.
    pub statement: String,
    pub facts: NodeFacts,
    pub signature: Base64,
}

/// The gateway's answer: the whole certificate, counter-signed by its ledger entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WipeReceipt {
    /// JSON of `tidegate_ledger::WipeCertificate`.
    pub certificate: String,
    pub receipt: Receipt,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(first_block: u32, end_block: u32, window_blocks: u32) -> LeaseTerms {
        LeaseTerms {
            lease: LeaseId::from_bytes([1; 16]),
            snapshot: SnapshotId::from_bytes([2; 32]),
            layout: LayoutId::from_bytes([3; 32]),
            rank: 0,
            ranks: 1,
            blocks: u32::MAX,
            first_block,
            end_block,
            window_blocks,
            manifest_len: 0,
            bytes: 0,
            files: 0,
            deadline: 0,
            heartbeat: 1,
            grace: 3,
            results: None,
        }
    }

    #[test]
    fn windows_tile_the_share() {
        for (first, end, len) in
            [(0, 10, 4), (5, 23, 4), (5, 6, 4), (7, 7, 4), (3, 9, u32::MAX), (1, 5, 0)]
        {
            let terms = terms(first, end, len);
            let mut next = first;
            while next < end {
                let window = terms.window_of(next);
                assert_eq!(window.start, next, "{terms:?}");
                assert!(window.len() <= len.max(1) as usize && !window.is_empty());
                assert!(window.clone().all(|block| terms.window_of(block) == window));
                next = window.end;
            }
            assert_eq!(next, end);
            assert!(terms.window_of(end).len() <= len.max(1) as usize);
        }
        let last = terms(u32::MAX - 2, u32::MAX, 4).window_of(u32::MAX - 1);
        assert_eq!(last, u32::MAX - 2..u32::MAX);
        assert!(terms(7, 7, 4).window_of(7).is_empty());
    }
}
