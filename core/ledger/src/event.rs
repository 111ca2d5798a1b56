use serde::{Deserialize, Serialize};
use tidegate_plan::{InstanceId, LayoutId, LeaseId, SelectionId, SnapshotId, TokenId};

use crate::canonical::{CanonicalError, from_canonical, to_canonical};
use crate::{Checkpoint, Commitment, Digest};

/// Longest entry in bytes: an entry bundle counts them in 16 bits (C2SP tlog-tiles).
pub const MAX_ENTRY_BYTES: usize = 65_535;

/// How a lease or one rank of it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Every worker stated its wipe and the gateway saw the statement.
    Wiped,
    /// The gateway destroyed its key; destruction on the node was not observed.
    Withdrawn,
}

/// Why a lease ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Cause {
    /// Its gateway could not serve it any longer, or the program that asked for it gave it up.
    Abandoned,
    /// The job was done, or was asked to finish.
    Drained,
    /// The deadline came.
    Expired,
    /// An administrator took it away.
    Revoked,
    /// A worker was silent for so long that it was taken for gone.
    Vanished,
}

/// What an administrator did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Action {
    /// Asked a lease's workers to finish and wipe.
    Drain,
    /// Opened this ledger after another was lost, cut or forked.
    Restore,
    /// Took a lease away.
    Revoke,
    /// Destroyed the key of a lease of which nothing else was left.
    Void,
}

/// What became of results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ResultsAct {
    Stored,
    Renamed,
    Removed,
    Read,
    Lost,
}

/// The ledger before this one, as it was found when this one was opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Predecessor {
    /// Head over the entries that were still there and held.
    pub found: Checkpoint,
    /// Its first verifier key, in signed-note form; `None` when nothing of it was left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The head in its second place, when that is another: what lies between is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<Checkpoint>,
}

/// What happened. Ids, counts and commitments only; no name of a person, object or host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Event {
    /// An administrator's act on a lease, or on the gateway.
    Admin { action: Action, lease: Option<LeaseId>, subject: Commitment },
    /// Entry 0 of every ledger, and of no other place.
    LedgerOpened {
        origin: String,
        /// The ledger that this one follows after a restore.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<Box<Predecessor>>,
    },
    /// Signed by the old key, names the new one; the last entry of its batch.
    KeyRotated {
        /// Signed-note verifier key under the same name.
        key: String,
    },
    SnapshotTaken {
        snapshot: SnapshotId,
        source: Commitment,
        files: u64,
        bytes: u64,
        /// Names that POSIX cannot show.
        unshown: u64,
    },
    LeaseGranted {
        lease: LeaseId,
        snapshot: SnapshotId,
        selection: SelectionId,
        layout: LayoutId,
        ranks: u16,
        blocks: u32,
        bytes: u64,
        files: u64,
        subject: Commitment,
        /// Seconds since the epoch.
        deadline: u64,
        /// Which part of which dataset, in words of the request.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        selected: Option<Commitment>,
        /// Epoch of the key that wraps the lease key.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key_epoch: Option<u32>,
        /// Where its results may go and how many; absent: nowhere.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        results: Option<Commitment>,
    },
    Attached {
        lease: LeaseId,
        rank: u16,
        instance: InstanceId,
        /// Ed25519 public key of the worker.
        identity: Digest,
        facts: Commitment,
        /// Lease revision that this attachment made.
        revision: u64,
    },
    /// An administrator made a further join token for a rank.
    TokenMade { lease: LeaseId, rank: u16, token: TokenId, subject: Commitment },
    /// A worker with another token took the rank over: this one gets nothing more.
    Fenced { lease: LeaseId, rank: u16, instance: InstanceId },
    /// Refusals of callers that were identified, summed over a span by the gateway's rate limit.
    Refused { lease: Option<LeaseId>, reason: String, count: u64 },
    /// Written before the keys leave: authorises *up to* `bytes`.
    KeysReleased {
        lease: LeaseId,
        rank: u16,
        epoch: u32,
        first_block: u32,
        end_block: u32,
        bytes: u64,
    },
    /// A worker's statement was received and checked; `certificate` is [`crate::WipeCertificate::digest`].
    Wiped { lease: LeaseId, rank: u16, certificate: Digest },
    /// A rank ended without a statement.
    Withdrawn { lease: LeaseId, rank: u16, certificate: Digest },
    /// Results of a rank; `listing` is a document that names them (a [`ResultsListing`]).
    ///
    /// Stored, renamed, removed: it has happened and is durable at home. Read: written before the bytes
    /// leave. Lost: they were written on the worker and did not come home.
    Results {
        lease: LeaseId,
        rank: u16,
        act: ResultsAct,
        files: u64,
        bytes: u64,
        listing: Commitment,
    },
    LeaseClosed {
        lease: LeaseId,
        outcome: Outcome,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cause: Option<Cause>,
        released_blocks: u64,
        /// Upper bound: what the releases authorised.
        released_bytes: u64,
        /// What was sent; `None` when a crash lost the count and the upper bound stands.
        sent_bytes: Option<u64>,
        /// Time of the last release (T0); nothing was released after it.
        last_release_at: Option<u64>,
        /// When the gateway destroyed the lease key (T).
        key_destroyed_at: Option<u64>,
        /// The wrapped key's object was deleted and its absence read back.
        absence_confirmed: bool,
    },
    /// The epoch's key-encryption key was destroyed, so that backups of its leases' keys died too.
    EpochDestroyed { epoch: u32 },
}

/// One leaf of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Schema version.
    pub v: u32,
    pub index: u64,
    /// Gateway time in seconds since the epoch, never less than the entry before.
    pub time: u64,
    /// Random for each writing process, so that no two writers ever make the same bytes.
    pub writer: InstanceId,
    pub event: Event,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    #[error("not an entry of schema version 1 in canonical form")]
    Syntax(#[from] CanonicalError),
    #[error("the entry is {0} bytes long, the limit is {MAX_ENTRY_BYTES}")]
    TooLong(usize),
    #[error("the entry has schema version {0}, this program reads version 1")]
    Version(u32),
}

impl Entry {
    pub const VERSION: u32 = 1;

    /// The bytes that are hashed into the tree.
    pub fn to_canonical(&self) -> Result<String, EntryError> {
        let text = to_canonical(self)?;
        if text.len() > MAX_ENTRY_BYTES {
            return Err(EntryError::TooLong(text.len()));
        }
        Ok(text)
    }

    /// Reads an entry; anything but the exact canonical text is refused.
    pub fn parse(text: &str) -> Result<Self, EntryError> {
        if text.len() > MAX_ENTRY_BYTES {
            return Err(EntryError::TooLong(text.len()));
        }
        let entry: Self = from_canonical(text)?;
        if entry.v != Self::VERSION {
            return Err(EntryError::Version(entry.v));
        }
        Ok(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry() -> Entry {
        Entry {
            v: 1,
            index: 3,
            time: 1_700_000_000,
            writer: InstanceId::from_bytes([1; 16]),
            event: Event::Refused { lease: None, reason: "token-bound".into(), count: 2 },
        }
    }

    #[test]
    fn the_text_is_fixed() {
        let text = entry().to_canonical().unwrap();
        assert_eq!(
            text,
            "{\"event\":{\"count\":2,\"lease\":null,\"reason\":\"token-bound\",\"type\":\"refused\"},\
             \"index\":3,\"time\":1700000000,\"v\":1,\"writer\":\"01010101010101010101010101010101\"}"
        );
        assert_eq!(Entry::parse(&text).unwrap(), entry());
    }

    #[test]
    fn what_was_written_before_a_field_was_added_still_reads() {
        let text = "{\"event\":{\"origin\":\"o\",\"type\":\"ledger-opened\"},\"index\":0,\"time\":1,\"v\":1,\
                    \"writer\":\"01010101010101010101010101010101\"}";
        let read = Entry::parse(text).unwrap();
        assert_eq!(read.event, Event::LedgerOpened { origin: "o".into(), after: None });
        let null = text.replace("\"origin\"", "\"after\":null,\"origin\"");
        assert!(matches!(Entry::parse(&null), Err(EntryError::Syntax(_))), "one form only");
        let root = Digest::from_bytes([3; 32]);
        let head = |size| Checkpoint { origin: "o".into(), size, root };
        let after = Predecessor { found: head(4), key: Some("k".into()), known: Some(head(9)) };
        let after = Some(Box::new(after));
        let entry = Entry { event: Event::LedgerOpened { origin: "p".into(), after }, ..read };
        assert_eq!(Entry::parse(&entry.to_canonical().unwrap()).unwrap(), entry);
    }

    #[test]
    fn other_versions_unknown_keys_and_long_entries_are_refused() {
        let text = entry().to_canonical().unwrap();
        let v2 = text.replace("\"v\":1", "\"v\":2");
        assert!(matches!(Entry::parse(&v2), Err(EntryError::Version(2))));
        let more = text.replace("\"v\":1", "\"v\":1,\"vv\":1");
        assert!(matches!(Entry::parse(&more), Err(EntryError::Syntax(_))));
        let inner = text.replace("\"count\":2", "\"count\":2,\"countess\":1");
        assert!(matches!(Entry::parse(&inner), Err(EntryError::Syntax(_))));
        let mut long = entry();
        long.event = Event::Refused { lease: None, reason: "x".repeat(MAX_ENTRY_BYTES), count: 1 };
        assert!(matches!(long.to_canonical(), Err(EntryError::TooLong(_))));
    }

    proptest! {
        #[test]
        fn one_changed_byte_is_refused_or_another_entry(at in 0usize..160, to in any::<u8>()) {
            let text = entry().to_canonical().unwrap();
            let mut bytes = text.clone().into_bytes();
            let at = at % bytes.len();
            bytes[at] = to;
            if let Ok(changed) = String::from_utf8(bytes)
                && let Ok(read) = Entry::parse(&changed)
            {
                prop_assert_eq!(changed == text, read == entry());
            }
        }
    }
}
