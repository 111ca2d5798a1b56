//! What a fence or a lease's end owes the ledger: noted in the state first, so that an entry that could not be
//! written is written by whoever comes next. Twice is possible, never is not.

use std::collections::{BTreeMap, HashSet};

use tidegate_lease::{Cause as LeaseCause, Outcome as LeaseOutcome, Phase};
use tidegate_ledger::{Cause, CertificateError, Digest, Event, Outcome};
use tidegate_plan::LeaseId;
use tidegate_wire::Receipt;

use crate::book::{Certified, Document, Fence};
use crate::keyring::KeyringError;
use crate::live::Live;
use crate::losses;
use crate::office::{AdvanceError, Office};
use crate::record::RecordError;

/// A lease could not be closed; what was done of it stays done, and closing may be tried again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CloseError {
    #[error("there is no such lease here")]
    NoSuchLease,
    #[error("the lease key cannot be destroyed")]
    Keyring(#[from] KeyringError),
    #[error("the lease's state cannot be written")]
    Advance(#[from] AdvanceError),
    #[error("the closing cannot be recorded")]
    Record(#[from] RecordError),
    #[error("a certificate would not hold")]
    Certificate(#[from] CertificateError),
}

/// Whether entries are owed.
pub(crate) fn owes(document: &Document) -> bool {
    let closing = document.lease.is_closed() && !document.recorded;
    let lost = losses::owed(document).next().is_some();
    closing || lost || !document.fences.is_empty() || owed(document).next().is_some()
}

/// Certificates whose entries are owed, each with its rank.
fn owed(document: &Document) -> impl Iterator<Item = (u16, &Certified)> {
    let current = document.certificates.iter().map(|(rank, certified)| (*rank, certified));
    let fenced = document.fenced_certificates.iter().map(|made| (made.rank, &made.certified));
    current.chain(fenced).filter(|(_, certified)| !certified.recorded)
}

/// Writes the entries that are owed, and notes that they are. Returns the receipts of the
/// certificates' entries, by their digests. The caller holds the lease's turn.
pub(crate) async fn settle_up(
    office: &Office,
    live: &Live,
) -> Result<BTreeMap<Digest, Receipt>, CloseError> {
    let document = live.view().document;
    let digests: Vec<_> = owed(&document).map(|(_, certified)| certified.digest).collect();
    let lost: Vec<_> = losses::owed(&document).copied().collect();
    let mut events: Vec<_> = lost.iter().map(|lost| losses::event(live.id, lost)).collect();
    events.extend(owed(&document).map(|(rank, made)| certified_event(live.id, rank, made)));
    events.extend(fenced_events(live.id, &document));
    let closes = document.lease.is_closed() && !document.recorded;
    if closes {
        events.push(closed_event(live.id, &document));
    }
    if events.is_empty() {
        return Ok(BTreeMap::new());
    }
    let receipts = office.record.append(events).await?;
    let fences = &document.fences;
    let told: HashSet<_> = lost.iter().map(|lost| lost.listing).collect();
    office
        .advance(live, |document| {
            let fenced = document.fenced_certificates.iter_mut().map(|made| &mut made.certified);
            for certified in document.certificates.values_mut().chain(fenced) {
                certified.recorded |= digests.contains(&certified.digest);
            }
            if let Some(part) = &mut document.results {
                part.lost.retain(|noted| !told.contains(&noted.listing));
            }
            document.fences.retain(|fence| !fences.contains(fence));
            document.recorded |= closes;
            Ok(())
        })
        .await?;
    if closes {
        unmark(office, live.id).await;
        let word = if outcome(&document) == Outcome::Wiped { "wiped" } else { "withdrawn" };
        crate::meters::CLOSED.add_for(&[word], 1);
        tracing::info!(lease = %live.id, outcome = ?outcome(&document), "a lease was closed");
    }
    Ok(digests.into_iter().zip(receipts.into_iter().skip(lost.len())).collect())
}

/// The lease is closed and owes nothing; the mark of an open one is only tidied away.
pub(crate) async fn unmark(office: &Office, lease: LeaseId) {
    if let Err(error) = office.book.unmark(lease).await {
        tracing::warn!(%lease, %error, "a closed lease stays marked as open until the next start");
    }
}

/// The entry of one certificate.
pub(crate) fn certified_event(lease: LeaseId, rank: u16, certified: &Certified) -> Event {
    let certificate = certified.digest;
    if certified.complete {
        Event::Wiped { lease, rank, certificate }
    } else {
        Event::Withdrawn { lease, rank, certificate }
    }
}

/// The entries of the workers that were fenced.
pub(crate) fn fenced_events(lease: LeaseId, document: &Document) -> impl Iterator<Item = Event> {
    let fences = document.fences.iter();
    fences.map(move |&Fence { rank, instance }| Event::Fenced { lease, rank, instance })
}

/// Notes that they are written. Where that fails they are owed still, and written once more.
pub(crate) async fn fenced_recorded(office: &Office, live: &Live, written: &[Fence]) {
    if written.is_empty() {
        return;
    }
    let noted = office.advance(live, |document| {
        document.fences.retain(|fence| !written.contains(fence));
        Ok(())
    });
    if let Err(error) = noted.await {
        tracing::warn!(lease = %live.id, %error, "a fenced worker is written to the ledger twice");
    }
}

fn closed_event(lease: LeaseId, document: &Document) -> Event {
    Event::LeaseClosed {
        lease,
        outcome: outcome(document),
        cause: document.lease.ending.map(|ending| cause(ending.cause)),
        released_blocks: document.lease.released_blocks(),
        released_bytes: document.released_in_all(),
        sent_bytes: document.sent_bytes,
        last_release_at: document.last_release_at,
        key_destroyed_at: document.key_destroyed_at,
        absence_confirmed: document.key_absent,
    }
}

const fn cause(cause: LeaseCause) -> Cause {
    match cause {
        LeaseCause::Abandoned => Cause::Abandoned,
        LeaseCause::Drained => Cause::Drained,
        LeaseCause::Expired => Cause::Expired,
        LeaseCause::Revoked => Cause::Revoked,
        LeaseCause::Vanished => Cause::Vanished,
    }
}

pub(crate) fn outcome(document: &Document) -> Outcome {
    match document.lease.phase {
        Phase::Closed(LeaseOutcome::Wiped) => Outcome::Wiped,
        _ => Outcome::Withdrawn,
    }
}
