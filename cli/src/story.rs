//! Ledger entries in words that a data-protection officer reads: a sentence for each, and the
//! whole story of one lease, from who asked to whether it is gone.

use anyhow::{Result, bail};
use serde::Serialize;
use tidegate_ledger::{Event, LeaseId, Outcome};

use crate::stored::{Stored, Told};

mod account;
mod ending;
mod homecoming;
mod text;
mod words;

pub(crate) use words::when;
use words::{act, because, results, short};

/// Prints the story of a lease, as text or as one JSON document.
#[allow(clippy::print_stdout, reason = "the story is this command's output")]
pub(crate) fn tell(stored: &Stored, lease: LeaseId, json: bool) -> Result<()> {
    let Some(account) = account::of(stored, lease)? else {
        bail!("the ledger says nothing about {lease}");
    };
    if json {
        println!("{}", serde_json::to_string(&account)?);
    } else {
        print!("{}", text::of(&account));
    }
    Ok(())
}

/// Who asked for the data of a lease, and for which.
#[derive(Debug, Serialize)]
pub(crate) struct Asked {
    pub(crate) by: Told,
    pub(crate) source: Told,
    /// In words.
    pub(crate) which: String,
}

/// `None` when the ledger does not know the lease.
pub(crate) fn asked(stored: &Stored, lease: LeaseId) -> Result<Option<Asked>> {
    let known = |told: Option<Told>| told.unwrap_or_else(|| Told::Text("(not recorded)".into()));
    Ok(account::of(stored, lease)?.map(|account| Asked {
        which: text::which(account.selected.as_ref()),
        by: known(account.asked_by),
        source: known(account.source),
    }))
}

/// One sentence for one event.
pub(crate) fn sentence(event: &Event) -> String {
    match event {
        Event::Admin { action, lease, .. } => match lease {
            Some(lease) => format!("an administrator {} lease {lease}", act(*action)),
            None => format!("an administrator {} the state", act(*action)),
        },
        Event::LedgerOpened { origin, after: None } => format!("ledger {origin} opened"),
        Event::LedgerOpened { origin, after: Some(after) } => {
            let found = &after.found;
            let lost = match &after.known {
                Some(known) => format!(", of which {} entries were known", known.size),
                None => String::new(),
            };
            format!(
                "ledger {origin} opened after a restore: it follows {} with {} entries{lost}",
                found.origin, found.size
            )
        }
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
        Event::TokenMade { lease, rank, .. } => {
            format!("a further join file made for rank {rank} of lease {lease}")
        }
        Event::Fenced { lease, rank, instance } => format!(
            "worker {instance} lost rank {rank} of lease {lease} to another and gets nothing more"
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
            "rank {rank} of lease {lease} ended without a statement of a whole wipe; certificate {}",
            short(certificate)
        ),
        Event::Results { lease, rank, act, files, bytes, .. } => {
            format!("rank {rank} of lease {lease}: {}", results(*act, *files, *bytes))
        }
        Event::LeaseClosed { .. } => closed(event),
        Event::EpochDestroyed { epoch } => {
            format!(
                "key-encryption key of epoch {epoch} destroyed: backups of its lease keys are dead"
            )
        }
        other => format!("{other:?}"),
    }
}

fn closed(event: &Event) -> String {
    let Event::LeaseClosed {
        lease,
        outcome,
        cause,
        released_blocks,
        released_bytes,
        sent_bytes,
        key_destroyed_at,
        absence_confirmed,
        ..
    } = event
    else {
        return String::new();
    };
    let outcome = match outcome {
        Outcome::Wiped => "wiped",
        Outcome::Withdrawn => "withdrawn (destruction on the node was not observed)",
    };
    let sent = match sent_bytes {
        Some(bytes) => format!("{bytes} sealed bytes sent"),
        None => "bytes sent unknown, the bound stands".into(),
    };
    let key = match (key_destroyed_at, absence_confirmed) {
        (Some(at), true) => format!("key destroyed {} and its absence read back", when(*at)),
        (Some(at), false) => format!("key destroyed {}, absence not confirmed", when(*at)),
        (None, _) => "key not destroyed".into(),
    };
    format!(
        "lease {lease} closed as {outcome}{}: keys of {released_blocks} blocks (at most {released_bytes} \
         bytes) had been released, {sent}; {key}",
        cause.map_or("", because)
    )
}

#[cfg(test)]
mod tests;
