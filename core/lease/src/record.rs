use serde::{Deserialize, Serialize};
use tidegate_plan::{InstanceId, LayoutId, LeaseId, SelectionId, SnapshotId, TokenId};

use crate::identity::Identity;
use crate::ranges;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    Requested,
    Granted,
    Active,
    Draining,
    Wiping,
    Closed(Outcome),
}

/// How a lease ended. Never claims more than was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Every worker that was ever attached has stated its wipe.
    Wiped,
    /// The gateway's key is destroyed; destruction on the nodes was not observed.
    Withdrawn,
}

/// Why a lease is ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// By its gateway, or by the program that asked for it.
    Abandoned,
    /// The job was done, or was asked to finish.
    Drained,
    Expired,
    Revoked,
    Vanished,
}

/// When a lease began to end, and why. An orderly drain may give way to a harder cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ending {
    pub cause: Cause,
    /// Seconds since the epoch.
    pub at: u64,
}

/// What a worker of the lease may count on and must keep to. 2 × heartbeat < grace ≤ silence: the
/// dead-man's switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Seconds between a worker's heartbeats.
    pub heartbeat_s: u32,
    /// Seconds of silence after which a worker destroys its keys and serves nothing.
    pub grace_s: u32,
    /// Seconds of silence after which the gateway takes a worker for gone. Longer than the grace, so
    /// that one whose link was cut finds its lease alive. Absent: the grace.
    #[serde(default)]
    pub silence_s: u32,
    /// Blocks whose keys one release may hand out.
    pub window_blocks: u32,
}

impl Policy {
    /// What is wrong with it, if anything.
    pub fn fault(&self) -> Option<&'static str> {
        if self.heartbeat_s == 0 || u64::from(self.heartbeat_s) * 2 >= u64::from(self.grace_s) {
            Some("the grace must be longer than two heartbeats")
        } else if self.silence_s < self.grace_s {
            Some("a worker must not be taken for gone within its grace")
        } else if self.window_blocks == 0 {
            Some("a window must hold at least one block")
        } else {
            None
        }
    }

    /// Whether a worker that was last heard at `last_seen` is taken for gone at `now`.
    pub fn is_gone(&self, last_seen: u64, now: u64) -> bool {
        now.saturating_sub(last_seen) > u64::from(self.silence_s.max(self.grace_s))
    }
}

/// The right to join as one rank. Single use: bound to the first identity that used it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinToken {
    pub id: TokenId,
    pub rank: u16,
    pub bound: Option<Identity>,
}

/// One worker's hold on one rank. Kept after it is fenced: what it was given is part of the history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attachment {
    pub rank: u16,
    pub identity: Identity,
    /// The newest process of this identity.
    pub instance: InstanceId,
    /// Processes before it, the newest last, as far as they are remembered. None of them comes back:
    /// an attach request that is seen again must not take the rank from a later process.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub past: Vec<InstanceId>,
    pub token: TokenId,
    /// Seconds since the epoch.
    pub attached_at: u64,
    /// Seconds since the epoch. Heartbeats move it in the gateway's memory; see [`Lease::note_seen`].
    pub last_seen: u64,
    /// Blocks whose keys were released to it: half-open, sorted, merged.
    pub released: Vec<(u32, u32)>,
    /// Number of releases.
    pub releases: u32,
    /// When the holder of another token took the rank over.
    pub fenced_at: Option<u64>,
    /// It has stated its wipe.
    pub wiped: bool,
}

/// Former processes that are remembered: more than one gateway lets attach while a request of theirs can be
/// replayed.
const PAST: usize = 32;

impl Attachment {
    /// Another process of the same worker takes over.
    pub(crate) fn passes_to(&mut self, instance: InstanceId) {
        if self.instance != instance {
            if self.past.len() >= PAST {
                self.past.remove(0);
            }
            self.past.push(self.instance);
            self.instance = instance;
        }
    }

    /// It holds its rank now.
    pub fn is_current(&self) -> bool {
        self.fenced_at.is_none()
    }

    /// Blocks whose keys were released to it.
    pub fn released_blocks(&self) -> u64 {
        ranges::len(&self.released)
    }
}

/// What is asked for, before anything is granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    pub id: LeaseId,
    pub snapshot: SnapshotId,
    pub selection: SelectionId,
    pub layout: LayoutId,
    /// Blocks `first..end` of each rank's share, in order, without gaps.
    pub shares: Vec<(u32, u32)>,
    pub dataset: String,
    pub subject: String,
    /// Seconds since the epoch.
    pub deadline: u64,
    pub policy: Policy,
    pub key_epoch: u32,
    /// (id, rank)
    pub tokens: Vec<(TokenId, u16)>,
}

/// One lease as it is stored: a revision of its document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    pub id: LeaseId,
    pub snapshot: SnapshotId,
    pub selection: SelectionId,
    pub layout: LayoutId,
    pub ranks: u16,
    pub blocks: u32,
    /// Blocks `first..end` of each rank's share.
    pub shares: Vec<(u32, u32)>,
    pub dataset: String,
    /// Who asked for it.
    pub subject: String,
    /// Seconds since the epoch; 0 before the grant.
    pub granted_at: u64,
    /// Seconds since the epoch.
    pub deadline: u64,
    pub policy: Policy,
    pub phase: Phase,
    /// Epoch of the key-encryption key that wraps the lease key.
    pub key_epoch: u32,
    pub tokens: Vec<JoinToken>,
    /// In the order of their first attachment; the fenced too.
    pub attachments: Vec<Attachment>,
    pub ending: Option<Ending>,
    pub key_destroyed_at: Option<u64>,
    /// Time of the latest event.
    pub changed_at: u64,
}
