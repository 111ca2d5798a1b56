//! What can be said of a lease at this moment, without its names.

use serde::{Deserialize, Serialize};
use tidegate_lease::{Outcome, Phase};
use tidegate_plan::{LayoutId, LeaseId, SnapshotId};
use tidegate_wire::Counters;

use crate::live::Live;
use crate::office::Office;

/// A lease as an administrator sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseStatus {
    pub lease: LeaseId,
    /// `requested`, `granted`, `active`, `draining`, `wiping`, `wiped` or `withdrawn`.
    pub phase: String,
    pub dataset: String,
    pub subject: String,
    pub snapshot: SnapshotId,
    pub layout: LayoutId,
    pub revision: u64,
    pub files: u64,
    pub bytes: u64,
    pub blocks: u32,
    pub ranks: u16,
    /// Seconds since the epoch.
    pub granted_at: u64,
    pub deadline: u64,
    pub releases: u32,
    /// Plaintext bytes whose keys were released.
    pub released_bytes: u64,
    /// Sealed bytes sent by this process.
    pub sent_bytes: u64,
    pub workers: Vec<WorkerStatus>,
}

/// The newest worker of a rank.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    pub rank: u16,
    pub attached_at: u64,
    pub last_seen: u64,
    pub sent_bytes: u64,
    /// As the worker said in its last heartbeat.
    pub counters: Counters,
    pub wiped: bool,
}

const fn word(phase: &Phase) -> &'static str {
    match phase {
        Phase::Requested => "requested",
        Phase::Granted => "granted",
        Phase::Active => "active",
        Phase::Draining => "draining",
        Phase::Wiping => "wiping",
        Phase::Closed(Outcome::Wiped) => "wiped",
        Phase::Closed(Outcome::Withdrawn) => "withdrawn",
    }
}

pub(crate) fn status(office: &Office, live: &Live) -> LeaseStatus {
    let view = live.view();
    let (document, lease) = (&view.document, &view.document.lease);
    let phase = if live.is_over() && matches!(lease.phase, Phase::Active | Phase::Granted) {
        "draining"
    } else {
        word(&lease.phase)
    };
    let workers = lease.attachments.iter().filter(|held| held.is_current()).map(|attachment| {
        let presence = live.presence(attachment.rank);
        WorkerStatus {
            rank: attachment.rank,
            attached_at: attachment.attached_at,
            last_seen: attachment.last_seen.max(presence.last_seen()).min(office.now()),
            sent_bytes: presence.sent_bytes(),
            counters: presence.counters(),
            wiped: attachment.wiped,
        }
    });
    LeaseStatus {
        lease: lease.id,
        phase: phase.to_owned(),
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
        released_bytes: document.released_in_all(),
        sent_bytes: live.sent_bytes(),
        workers: workers.collect(),
    }
}
