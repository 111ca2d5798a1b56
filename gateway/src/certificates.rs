//! The observed part of a wipe certificate: what this gateway itself saw, and nothing more.

use tidegate_lease::Attachment;
use tidegate_ledger::{Digest, Observed, Outcome, Stated, WipeCertificate};
use tidegate_plan::BLOCK_MAX;

use crate::book::{Document, KeysGone};
use crate::live::Live;

/// A worker's statement as it was checked, and its signature.
#[derive(Clone)]
pub(crate) struct Statement {
    pub(crate) stated: Stated,
    pub(crate) signature: Vec<u8>,
}

/// The certificate of one attachment. Without a complete statement it says *withdrawn*.
pub(crate) fn certificate(
    live: &Live,
    document: &Document,
    attachment: &Attachment,
    keys: KeysGone,
    statement: Option<Statement>,
    now: u64,
) -> WipeCertificate {
    let rank = attachment.rank;
    let (presence, current) = (live.presence(rank), attachment.is_current());
    // A rank that another gateway heard last may have brought more home since.
    let heard_here = current && presence.last_seen() >= attachment.last_seen;
    let is_told = document.results.is_some() && heard_here && statement.is_none();
    let unsent = Some(presence.counters().results_unsent).filter(|bytes| is_told && *bytes > 0);
    let complete = statement.as_ref().is_some_and(|s| s.stated.shortfall().is_none());
    let observed = Observed {
        outcome: if complete { Outcome::Wiped } else { Outcome::Withdrawn },
        attached_at: Some(attachment.attached_at),
        released: attachment.released.clone(),
        releases: attachment.releases,
        released_bytes: if current {
            document.released_bytes.get(&rank).copied().unwrap_or_default()
        } else {
            attachment.released_blocks() * u64::from(BLOCK_MAX)
        },
        // The rank's count goes on with the worker that has it now, and so do its signs of life.
        sent_bytes: (current && live.counts_all()).then(|| presence.sent_bytes()),
        last_release_at: document.last_release_at,
        last_seen: Some(if current {
            attachment.last_seen.max(presence.last_seen())
        } else {
            attachment.last_seen
        }),
        closed_at: now,
        lease_key_destroyed_at: keys.destroyed_at,
        wrapped_key_absent: keys.absent,
        epoch_key_destroyed: keys.epoch,
        waited_s: None,
        results_unsent_bytes: unsent,
    };
    let (stated, stated_signature) = match statement {
        Some(Statement { stated, signature }) => (Some(stated), Some(hex::encode(signature))),
        None => (None, None),
    };
    WipeCertificate {
        version: WipeCertificate::VERSION,
        lease: live.id,
        rank,
        identity: Some(Digest::from_bytes(attachment.identity.0)),
        observed,
        stated,
        stated_signature,
    }
}
