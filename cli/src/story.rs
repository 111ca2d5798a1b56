//! Ledger entries in words that a data-protection officer reads.

use tidegate_ledger::{Cause, Event, LeaseId, Outcome};

/// One sentence for one event.
pub(crate) fn sentence(event: &Event) -> String {
    match event {
        Event::LedgerOpened { origin } => format!("ledger {origin} opened"),
        Event::KeyRotated { key } => format!("signing key handed over to {key}"),
        Event::SnapshotTaken { snapshot, files, bytes, unshown, .. } => format!(
            "snapshot {} taken: {files} files, {bytes} bytes, {unshown} names that cannot be shown",
            short(snapshot)
        ),
        Event::LeaseGranted { lease, snapshot, ranks, blocks, bytes, files, deadline, .. } => {
            format!(
                "lease {lease} granted on snapshot {}: {files} files, {bytes} bytes in {blocks} blocks for {ranks} \
             ranks, until {}",
                short(snapshot),
                when(*deadline)
            )
        }
        Event::Attached { lease, rank, instance, identity, revision, .. } => format!(
            "rank {rank} of lease {lease} attached: worker {instance}, identity {}, revision {revision}",
            short(identity)
        ),
        Event::Refused { lease, reason, count } => match lease {
            Some(lease) => format!("refused {count} times on lease {lease}: {reason}"),
            None => format!("refused {count} times: {reason}"),
        },
        Event::KeysReleased { lease, rank, epoch, first_block, end_block, bytes } => format!(
            "keys of blocks {first_block}..{end_block} released to rank {rank} of lease {lease} \
             (release {epoch}, up to {bytes} bytes)"
        ),
        Event::Wiped { lease, rank, certificate } => format!(
            "rank {rank} of lease {lease} stated its wipe; certificate {}",
            short(certificate)
        ),
        Event::Withdrawn { lease, rank, certificate } => format!(
            "rank {rank} of lease {lease} ended without a statement; certificate {}",
            short(certificate)
        ),
        Event::LeaseClosed {
            lease,
            outcome,
            cause,
            released_blocks,
            released_bytes,
            sent_bytes,
            key_destroyed_at,
            absence_confirmed,
            ..
        } => {
            let outcome = match outcome {
                Outcome::Wiped => "wiped",
                Outcome::Withdrawn => "withdrawn (destruction on the node was not observed)",
            };
            let sent = match sent_bytes {
                Some(bytes) => format!("{bytes} sealed bytes sent"),
                None => "bytes sent unknown, the bound stands".into(),
            };
            let key = match (key_destroyed_at, absence_confirmed) {
                (Some(at), true) => {
                    format!("key destroyed {} and its absence read back", when(*at))
                }
                (Some(at), false) => format!("key destroyed {}, absence not confirmed", when(*at)),
                (None, _) => "key not destroyed".into(),
            };
            format!(
                "lease {lease} closed as {outcome}{}: keys of {released_blocks} blocks (at most {released_bytes} \
                 bytes) had been released, {sent}; {key}",
                cause.map_or("", because)
            )
        }
        Event::EpochDestroyed { epoch } => {
            format!(
                "key-encryption key of epoch {epoch} destroyed: backups of its lease keys are dead"
            )
        }
        other => format!("{other:?}"),
    }
}

/// Why a lease ended, to follow how.
const fn because(cause: Cause) -> &'static str {
    match cause {
        Cause::Abandoned => {
            ", because its gateway could not serve it any longer or its user gave it up"
        }
        Cause::Drained => ", because the job was done or was asked to finish",
        Cause::Expired => ", because its deadline had come",
        Cause::Revoked => ", because an administrator took it away",
        Cause::Vanished => ", because a worker was not heard any more",
        _ => "",
    }
}

/// The lease that an event is about.
pub(crate) fn lease_of(event: &Event) -> Option<LeaseId> {
    match event {
        Event::LeaseGranted { lease, .. }
        | Event::Attached { lease, .. }
        | Event::KeysReleased { lease, .. }
        | Event::Wiped { lease, .. }
        | Event::Withdrawn { lease, .. }
        | Event::LeaseClosed { lease, .. } => Some(*lease),
        Event::Refused { lease, .. } => *lease,
        _ => None,
    }
}

/// UTC in RFC 3339.
pub(crate) fn when(seconds: u64) -> String {
    i64::try_from(seconds)
        .ok()
        .and_then(|s| jiff::Timestamp::from_second(s).ok())
        .map_or_else(|| format!("{seconds} s after the epoch"), |t| t.to_string())
}

fn short(id: &impl ToString) -> String {
    id.to_string().chars().take(12).collect()
}
