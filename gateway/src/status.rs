//! What can be said of a lease and of the gateway at this moment, without names of files.

use serde::{Deserialize, Serialize};
use tidegate_lease::{Cause, Ending, Outcome, Phase};
use tidegate_plan::{LayoutId, LeaseId, SnapshotId};
use tidegate_wire::Counters;

use crate::live::Live;
use crate::office::Office;

/// A lease as an administrator sees it. Times are seconds since the epoch by the gateway's clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct LeaseStatus {
    pub lease: LeaseId,
    /// `requested`, `granted`, `active`, `draining`, `wiping`, `wiped` or `withdrawn`.
    pub phase: String,
    /// Why it ends: `abandoned`, `drained`, `expired`, `revoked` or `vanished`. Absent while it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<LeaseEnding>,
    pub dataset: String,
    pub subject: String,
    pub snapshot: SnapshotId,
    pub layout: LayoutId,
    pub revision: u64,
    pub files: u64,
    pub bytes: u64,
    pub blocks: u32,
    pub ranks: u16,
    pub granted_at: u64,
    pub deadline: u64,
    pub releases: u32,
    /// Blocks whose keys were released, each counted once for each worker that had them.
    pub released_blocks: u64,
    /// Plaintext bytes whose keys were released.
    pub released_bytes: u64,
    pub last_release_at: Option<u64>,
    /// Sealed bytes sent by this process.
    pub sent_bytes: u64,
    /// When the lease's key was destroyed.
    pub key_destroyed_at: Option<u64>,
    pub workers: Vec<WorkerStatus>,
}

/// Why and since when a lease ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct LeaseEnding {
    pub cause: String,
    pub at: u64,
}

/// The newest worker of a rank.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct WorkerStatus {
    pub rank: u16,
    pub attached_at: u64,
    /// When this replica, or the one that keeps the worker, last heard it.
    pub last_seen: u64,
    /// The replica that keeps the worker: the one its heartbeats come to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keeper: Option<String>,
    pub released_blocks: u64,
    /// Sealed bytes sent by this process.
    pub sent_bytes: u64,
    /// As the worker said in its last heartbeat here.
    pub counters: Counters,
    pub wiped: bool,
}

/// Every word that [`phase`] says.
pub(crate) const PHASES: [&str; 7] =
    ["requested", "granted", "active", "draining", "wiping", "wiped", "withdrawn"];

/// A lease's phase in one word; one whose key is gone drains, whatever its last revision says.
pub(crate) fn phase(live: &Live) -> &'static str {
    match live.view().document.lease.phase {
        Phase::Active | Phase::Granted if live.is_over() => "draining",
        Phase::Requested => "requested",
        Phase::Granted => "granted",
        Phase::Active => "active",
        Phase::Draining => "draining",
        Phase::Wiping => "wiping",
        Phase::Closed(Outcome::Wiped) => "wiped",
        Phase::Closed(Outcome::Withdrawn) => "withdrawn",
    }
}

fn ending(ending: Ending) -> LeaseEnding {
    let cause = match ending.cause {
        Cause::Abandoned => "abandoned",
        Cause::Drained => "drained",
        Cause::Expired => "expired",
        Cause::Revoked => "revoked",
        Cause::Vanished => "vanished",
    };
    LeaseEnding { cause: cause.to_owned(), at: ending.at }
}

pub(crate) fn status(office: &Office, live: &Live) -> LeaseStatus {
    let view = live.view();
    let (document, lease) = (&view.document, &view.document.lease);
    let workers = lease.attachments.iter().filter(|held| held.is_current()).map(|attachment| {
        let presence = live.presence(attachment.rank);
        WorkerStatus {
            rank: attachment.rank,
            attached_at: attachment.attached_at,
            last_seen: attachment.last_seen.max(presence.last_seen()).min(office.now()),
            keeper: document.keepers.get(&attachment.rank).map(|keeper| keeper.replica.clone()),
            released_blocks: attachment.released_blocks(),
            sent_bytes: presence.sent_bytes(),
            counters: presence.counters(),
            wiped: attachment.wiped,
        }
    });
    LeaseStatus {
        lease: lease.id,
        phase: phase(live).to_owned(),
        ending: lease.ending.map(ending),
        dataset: lease.dataset.clone(),
        subject: lease.subject.clone(),
        snapshot: lease.snapshot,
        layout: lease.layout,
        revision: view.revision,
        files: document.files,
        bytes: document.bytes,
        blocks: lease.blocks,
        ranks: lease.ranks,
        granted_at: lease.granted_at,
        deadline: lease.deadline,
        releases: lease.releases(),
        released_blocks: lease.released_blocks(),
        released_bytes: document.released_in_all(),
        last_release_at: document.last_release_at,
        sent_bytes: live.sent_bytes(),
        key_destroyed_at: document.key_destroyed_at,
        workers: workers.collect(),
    }
}
