//! The end of a lease: keys first, then what is known about it, then the ledger.
//!
//! *Wiped* when every worker stated a complete wipe, else *withdrawn*: the gateway's key is gone,
//! what had been released is recorded, and nobody claims to have seen the node. Each step can be
//! taken again: a closing that broke off is finished by whoever comes next.

use tidegate_lease::{Attachment, Event as LeaseEvent, Outcome as LeaseOutcome, Phase};
use tidegate_ledger::{CertificateError, Digest, Event, Outcome, WipeCertificate};
use tidegate_plan::LeaseId;
use tidegate_wire::Receipt;

use crate::book::{Document, KeysGone};
use crate::certificates::{Statement, certificate};
use crate::keyring::KeyringError;
use crate::live::Live;
use crate::office::{AdvanceError, Office};
use crate::record::RecordError;

/// How a lease ended.
#[derive(Clone, Debug)]
pub struct Closed {
    pub lease: LeaseId,
    pub outcome: Outcome,
    /// One certificate a rank that had a worker, canonical JSON, in order of rank.
    pub certificates: Vec<String>,
    /// The ledger's newest signed head.
    pub checkpoint: String,
    /// Plaintext bytes whose keys were released: an upper bound of what can have been read.
    pub released_bytes: u64,
    /// Sealed bytes sent; `None` when a crash lost the count.
    pub sent_bytes: Option<u64>,
}

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

/// Ends serving and destroys the lease's keys. Repeatable.
async fn destroy_keys(
    office: &Office,
    live: &Live,
    now: u64,
) -> Result<(KeysGone, Vec<Event>), CloseError> {
    live.end(now);
    let absent = office.keyring.destroy(live.id).await?.absent;
    let document = live.view().document;
    let retired = office.keyring.retire_epochs(now).await?;
    let gone = KeysGone {
        destroyed_at: Some(document.key_destroyed_at.unwrap_or(now)),
        absent: Some(absent),
        epoch: Some(office.keyring.epoch_is_destroyed(document.lease.key_epoch).await?),
    };
    Ok((gone, retired.into_iter().map(|epoch| Event::EpochDestroyed { epoch }).collect()))
}

/// Destroys a lease's keys now, for a cause that leaves no grace to read.
///
/// A worker that is attached has the grace to wipe and say so; `None` then. Otherwise it is closed.
pub(crate) async fn cut_off(
    office: &Office,
    live: &Live,
    cause: LeaseEvent,
) -> Result<Option<Closed>, CloseError> {
    let _turn = live.turn.lock().await;
    let now = office.now();
    if live.is_closed() || !waits_for_a_wipe(&live.view().document) {
        return finish(office, live, cause, now).await.map(Some);
    }
    let (gone, retired) = destroy_keys(office, live, now).await?;
    office
        .advance(live, |document| {
            document.lease = document.lease.apply(cause.clone(), now)?;
            document.keys_gone(gone);
            Ok(())
        })
        .await?;
    if !retired.is_empty() {
        office.record.append(retired).await?;
    }
    Ok(None)
}

/// A worker was attached and has no certificate yet.
fn waits_for_a_wipe(document: &Document) -> bool {
    current(document).any(|held| !document.certificates.contains_key(&held.rank))
}

fn current(document: &Document) -> impl Iterator<Item = &Attachment> {
    document.lease.attachments.iter().filter(|held| held.is_current())
}

/// Closes the lease: every rank without a certificate gets one that says *withdrawn*. The caller
/// holds the turn.
pub(crate) async fn finish(
    office: &Office,
    live: &Live,
    cause: LeaseEvent,
    now: u64,
) -> Result<Closed, CloseError> {
    if !live.is_closed() {
        let (gone, retired) = destroy_keys(office, live, now).await?;
        let document = live.view().document;
        let mut certificates = Vec::new();
        for held in current(&document) {
            if !document.certificates.contains_key(&held.rank) {
                let made = certificate(live, &document, held, gone, None, now);
                certificates.push((held.rank, store(office, &made).await?));
            }
        }
        advance_closed(office, live, gone, &certificates, &cause, now).await?;
        let withdrawn = certificates.into_iter().map(|(rank, certificate)| Event::Withdrawn {
            lease: live.id,
            rank,
            certificate,
        });
        record_closed(office, live, withdrawn.chain(retired).collect()).await?;
    } else if !live.view().document.recorded {
        // The entry was not durable when the last one who tried gave up.
        record_closed(office, live, Vec::new()).await?;
    }
    live.clear();
    closed(office, live).await
}

/// Takes the statement of one rank: its certificate, the lease's end when it was the last rank,
/// the entries. Returns the certificate and its entry's receipt. The caller holds the turn.
pub(crate) async fn settle(
    office: &Office,
    live: &Live,
    rank: u16,
    statement: Statement,
    now: u64,
) -> Result<(String, Receipt), CloseError> {
    let complete = statement.stated.shortfall().is_none();
    let document = live.view().document;
    let held = document.lease.attachment(rank).ok_or(CloseError::NoSuchLease)?;
    let last = is_last(live, &document, rank);
    let (gone, retired) = if last {
        destroy_keys(office, live, now).await?
    } else {
        (KeysGone::default(), Vec::new())
    };
    let made = certificate(live, &document, held, gone, Some(statement), now);
    made.check()?;
    let digest = store(office, &made).await?;
    office
        .advance(live, |document| {
            document.certificates.insert(rank, digest);
            if complete && !document.lease.is_closed() {
                document.lease = document.lease.apply(LeaseEvent::Wiped { rank }, now)?;
            }
            Ok(())
        })
        .await?;
    let mut events = vec![if complete {
        Event::Wiped { lease: live.id, rank, certificate: digest }
    } else {
        Event::Withdrawn { lease: live.id, rank, certificate: digest }
    }];
    let receipts = if last {
        events.extend(retired);
        advance_closed(office, live, gone, &[], &LeaseEvent::Drain, now).await?;
        let receipts = record_closed(office, live, events).await?;
        live.clear();
        receipts
    } else {
        office.record.append(events).await?
    };
    let receipt = receipts.into_iter().next().ok_or(RecordError::NoReceipt)?;
    Ok((made.to_canonical().map_err(RecordError::Canonical)?, receipt))
}

/// No other worker is still to be waited for.
fn is_last(live: &Live, document: &Document, rank: u16) -> bool {
    let settled = |other: u16| other == rank || document.certificates.contains_key(&other);
    if live.is_over() {
        current(document).all(|held| settled(held.rank))
    } else {
        document.lease.tokens.iter().all(|token| settled(token.rank))
    }
}

async fn store(office: &Office, made: &WipeCertificate) -> Result<Digest, CloseError> {
    office.record.certificate(made).await?;
    Ok(made.digest().map_err(RecordError::Canonical)?)
}

/// Makes the revision that is *closed*: the lease's key is gone.
async fn advance_closed(
    office: &Office,
    live: &Live,
    gone: KeysGone,
    certificates: &[(u16, Digest)],
    cause: &LeaseEvent,
    now: u64,
) -> Result<(), CloseError> {
    office
        .advance(live, |document| {
            document.certificates.extend(certificates.iter().copied());
            document.sent_bytes = (!live.count_lost).then(|| live.sent_bytes());
            if matches!(document.lease.phase, Phase::Requested | Phase::Granted | Phase::Active) {
                document.lease = document.lease.apply(cause.clone(), now)?;
            }
            document.keys_gone(gone);
            document.lease = document.lease.apply(LeaseEvent::KeyDestroyed, now)?;
            Ok(())
        })
        .await?;
    Ok(())
}

/// Appends `events` and the closing entry, then notes in the state that they are in the ledger.
async fn record_closed(
    office: &Office,
    live: &Live,
    mut events: Vec<Event>,
) -> Result<Vec<Receipt>, CloseError> {
    let document = live.view().document;
    events.push(Event::LeaseClosed {
        lease: live.id,
        outcome: outcome(&document),
        released_blocks: document.lease.released_blocks(),
        released_bytes: document.released_bytes.values().sum(),
        sent_bytes: document.sent_bytes,
        last_release_at: document.last_release_at,
        key_destroyed_at: document.key_destroyed_at,
        absence_confirmed: document.key_absent,
    });
    let receipts = office.record.append(events).await?;
    // The lease takes no more events; only this note is made.
    office
        .advance(live, |document| {
            document.recorded = true;
            Ok(())
        })
        .await?;
    tracing::info!(lease = %live.id, outcome = ?outcome(&document), "a lease was closed");
    Ok(receipts)
}

fn outcome(document: &Document) -> Outcome {
    match document.lease.phase {
        Phase::Closed(LeaseOutcome::Wiped) => Outcome::Wiped,
        _ => Outcome::Withdrawn,
    }
}

/// What is kept of a closed lease.
async fn closed(office: &Office, live: &Live) -> Result<Closed, CloseError> {
    let document = live.view().document;
    let mut certificates = Vec::new();
    for digest in document.certificates.values() {
        certificates.extend(office.record.stored_certificate(digest).await?);
    }
    Ok(Closed {
        lease: live.id,
        outcome: outcome(&document),
        certificates,
        checkpoint: office.record.checkpoint(),
        released_bytes: document.released_bytes.values().sum(),
        sent_bytes: document.sent_bytes,
    })
}
