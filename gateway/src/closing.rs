//! The end of a lease: a revision after which no replica releases anything, then the keys, then what
//! is known about it, then the ledger.
//!
//! A replica may hold an old head, so an end that the newest head does not allow destroys nothing,
//! and what certificates say was released cannot become more.
//!
//! *Wiped* when every worker stated a complete wipe, else *withdrawn*: the gateway's key is gone,
//! what had been released is recorded, and nobody claims to have seen the node. Each step can be
//! taken again: a closing that broke off is finished by whoever comes next.

use tidegate_kit::telemetry::chain;
use tidegate_lease::{Attachment, Cause, Event as LeaseEvent, Phase, Refusal};
use tidegate_ledger::{Event, Outcome, WipeCertificate};
use tidegate_plan::LeaseId;
use tidegate_wire::Receipt;

use crate::book::{Certified, Document, FencedCertified, KeysGone};
use crate::certificates::{Statement, certificate};
use crate::heard::as_heard;
use crate::live::Live;
use crate::losses::losses;
use crate::office::{AdvanceError, Office};
pub use crate::owed::CloseError;
use crate::owed::{certified_event, outcome, settle_up};
use crate::record::RecordError;

/// How a lease ended.
#[derive(Clone, Debug)]
pub struct Closed {
    pub lease: LeaseId,
    pub outcome: Outcome,
    /// One certificate a rank that had a worker, canonical JSON, in order of rank; then those of workers
    /// that had lost theirs and stated a wipe.
    pub certificates: Vec<String>,
    /// The ledger's newest signed head.
    pub checkpoint: String,
    /// Plaintext bytes whose keys were released: an upper bound of what can have been read.
    pub released_bytes: u64,
    /// Sealed bytes sent; `None` when a crash lost the count.
    pub sent_bytes: Option<u64>,
}

/// No replica releases anything by this head.
pub(crate) fn has_ended(document: &Document) -> bool {
    let hard = document.lease.ending.is_some_and(|ending| ending.cause != Cause::Drained);
    hard || matches!(document.lease.phase, Phase::Wiping | Phase::Closed(_))
}

/// Makes the revision after which no replica releases anything, unless there is one, or the newest head
/// is `still` not for it.
async fn end(
    office: &Office,
    live: &Live,
    causes: &[LeaseEvent],
    now: u64,
    still: impl Fn(&Document) -> Result<(), Refusal>,
) -> Result<(), CloseError> {
    if has_ended(&live.view().document) {
        return Ok(());
    }
    office
        .advance(live, |document| {
            // Another replica may have ended it meanwhile.
            if !has_ended(document) {
                still(document)?;
                for cause in causes {
                    document.lease = document.lease.apply(cause.clone(), now)?;
                }
            }
            Ok(())
        })
        .await?;
    Ok(())
}

/// Ends serving and destroys the keys of a lease that [has ended](has_ended). Repeatable.
async fn destroy_keys(office: &Office, live: &Live, now: u64) -> Result<KeysGone, CloseError> {
    live.end(now);
    let absent = office.keyring.destroy(live.id).await?.absent;
    // Tried again now and then: a lease can be closed without.
    if let Err(error) = retire_epochs(office, now).await {
        tracing::warn!(error = %chain(&error), "the keys of past epochs stay for now");
    }
    let document = live.view().document;
    // By the lease's own time: the last release may have been made by a clock that is ahead of ours.
    let now = now.max(document.lease.changed_at);
    Ok(KeysGone {
        destroyed_at: Some(document.key_destroyed_at.unwrap_or(now)),
        absent: Some(absent),
        epoch: Some(office.keyring.epoch_is_destroyed(document.lease.key_epoch).await?),
    })
}

/// Destroys the keys of epochs that are over and under which no lease is open, so that backups of
/// the leases' keys die too. Each has its entry, also when whoever destroyed it died before he could
/// write it; two entries when he died after that, or when two replicas do it at once.
pub(crate) async fn retire_epochs(office: &Office, now: u64) -> Result<(), CloseError> {
    let retired = office.keyring.retire_epochs(now).await?;
    if !retired.is_empty() {
        tracing::info!(epochs = ?retired, "keys of past epochs were destroyed");
        let event = |epoch: &u32| Event::EpochDestroyed { epoch: *epoch };
        office.record.append(retired.iter().map(event).collect()).await?;
        office.keyring.written(&retired).await?;
    }
    Ok(())
}

/// Asks the workers to finish what is open and to wipe: reads go on until they have.
pub(crate) async fn drain(office: &Office, live: &Live) -> Result<(), CloseError> {
    let _turn = live.turn.lock().await;
    let now = office.now();
    office
        .advance(live, |document| {
            document.lease = document.lease.apply(LeaseEvent::Drain, now)?;
            Ok(())
        })
        .await?;
    Ok(())
}

/// Destroys a lease's keys now, for a cause that leaves no grace to read.
///
/// A worker that is attached is waited for to wipe and say so; `None` then. Otherwise it is closed.
pub(crate) async fn cut_off(
    office: &Office,
    live: &Live,
    cause: LeaseEvent,
) -> Result<Option<Closed>, CloseError> {
    // Whether or not it can be written down: then that is tried again by the reaper.
    live.cut_off(&cause, office.now());
    office.keyring.forget(live.id);
    let _turn = live.turn.lock().await;
    let now = office.now();
    if live.is_closed() || !waits_for_a_wipe(&live.view().document) {
        return finish(office, live, cause, now).await.map(Some);
    }
    end(office, live, &[cause], now, |_| Ok(())).await?;
    let gone = destroy_keys(office, live, now).await?;
    office
        .advance(live, |document| {
            document.keys_gone(gone);
            Ok(())
        })
        .await?;
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
    end(office, live, &[cause], now, |_| Ok(())).await?;
    if !live.is_closed() {
        let gone = destroy_keys(office, live, now).await?;
        let document = live.view().document;
        let lease = as_heard(office, live, &document);
        let mut certificates = Vec::new();
        for held in current(&document) {
            if !document.certificates.contains_key(&held.rank) {
                let mut made = certificate(live, &document, held, gone, None, now);
                let is_heard = |heard: &Attachment| !lease.policy.is_gone(heard.last_seen, now);
                if document.waits_for(held) && lease.attachment(held.rank).is_some_and(is_heard) {
                    made.observed.waited_s = document.overdue(office.config.wipe_s, now);
                }
                certificates.push((held.rank, store(office, &made).await?));
            }
        }
        advance_closed(office, live, gone, now, |document| {
            for (rank, certified) in &certificates {
                // Another replica may have taken its statement meanwhile.
                document.certificates.entry(*rank).or_insert(*certified);
            }
            Ok(())
        })
        .await?;
    }
    settle_up(office, live).await?;
    live.clear();
    closed(office, live).await
}

/// Times that a statement is certified anew because more was released meanwhile.
const TRIES: u32 = 4;

/// Takes the statement of one rank: its certificate, the lease's end when it was the last rank,
/// the entries. Returns the certificate and its entry's receipt. The caller holds the turn.
pub(crate) async fn settle(
    office: &Office,
    live: &Live,
    rank: u16,
    statement: Statement,
    now: u64,
) -> Result<(String, Receipt), CloseError> {
    let lost = losses(&office.record, &live.view().document, rank, &statement.stated).await?;
    let mut tries = 0;
    let (digest, text, last) = loop {
        let last = is_last(live, &live.view().document, rank);
        let gone = if last {
            // The worker may have been quicker than whoever writes down why it was cut off.
            let causes = [live.cut().unwrap_or(LeaseEvent::Drain), LeaseEvent::Wiping];
            let still = |document: &Document| holds(document, rank, &statement);
            end(office, live, &causes, now, still).await?;
            destroy_keys(office, live, now).await?
        } else {
            KeysGone::default()
        };
        let document = live.view().document;
        holds(&document, rank, &statement).map_err(AdvanceError::Refused)?;
        let held = document.lease.attachment(rank).ok_or(CloseError::NoSuchLease)?;
        let made = certificate(live, &document, held, gone, Some(statement.clone()), now);
        made.check()?;
        let certified = store(office, &made).await?;
        let digest = certified.digest;
        let note = |document: &mut Document| {
            note(document, held, certified, now)?;
            document.lose(&lost);
            Ok(())
        };
        let settled = if last {
            advance_closed(office, live, gone, now, note).await
        } else {
            advance_settled(office, live, rank, note).await
        };
        match settled {
            Ok(()) => {
                break (digest, made.to_canonical().map_err(RecordError::Canonical)?, last);
            }
            // Another replica released more to it meanwhile, or settled the others: it is made anew.
            Err(CloseError::Advance(AdvanceError::Refused(Refusal::NotDue))) if tries < TRIES => {
                tries += 1;
            }
            Err(error) => return Err(error),
        }
    };
    let receipt = settle_up(office, live).await?.remove(&digest).ok_or(RecordError::NoReceipt)?;
    if last {
        live.clear();
    }
    Ok((text, receipt))
}

/// That the statement is of the worker that holds the rank: another may have taken it over meanwhile.
fn holds(document: &Document, rank: u16, statement: &Statement) -> Result<(), Refusal> {
    let held = document.lease.attachment(rank);
    let its = held.is_some_and(|held| held.instance == statement.stated.instance);
    its.then_some(()).ok_or(Refusal::NotAttached)
}

/// Notes the certificate that a rank's own statement made, unless another replica took one before or
/// it says less than was released.
fn note(
    document: &mut Document,
    held: &Attachment,
    certified: Certified,
    now: u64,
) -> Result<(), Refusal> {
    let rank = held.rank;
    if document.lease.is_closed() || document.certificates.contains_key(&rank) {
        return Err(Refusal::RankWiped);
    }
    let there = document.lease.attachment(rank).ok_or(Refusal::NotAttached)?;
    if (there.instance, &there.released) != (held.instance, &held.released) {
        return Err(Refusal::NotDue);
    }
    document.certificates.insert(rank, certified);
    if certified.complete {
        document.lease = document.lease.apply(LeaseEvent::Wiped { rank }, now)?;
    }
    Ok(())
}

/// Notes the certificate of a rank while others go on. If by now none does, the lease is to be closed.
async fn advance_settled(
    office: &Office,
    live: &Live,
    rank: u16,
    note: impl Fn(&mut Document) -> Result<(), Refusal>,
) -> Result<(), CloseError> {
    office
        .advance(live, |document| {
            if is_last(live, document, rank) {
                return Err(Refusal::NotDue);
            }
            note(document)
        })
        .await?;
    Ok(())
}

/// A receipt of now for a certificate that was made before: its first answer was lost, or its entry
/// could not be written. The caller holds the turn.
pub(crate) async fn receipt_again(
    office: &Office,
    live: &Live,
    rank: u16,
    certified: &Certified,
) -> Result<Receipt, CloseError> {
    match settle_up(office, live).await?.remove(&certified.digest) {
        Some(receipt) => Ok(receipt),
        None => Ok(office.record.append_one(certified_event(live.id, rank, certified)).await?),
    }
}

/// Takes the statement of a worker that lost its rank to another: its certificate and entry, and
/// nothing else. The caller holds the turn.
pub(crate) async fn settle_fenced(
    office: &Office,
    live: &Live,
    held: &Attachment,
    statement: Statement,
    now: u64,
) -> Result<(String, Receipt), CloseError> {
    let document = live.view().document;
    let lost = losses(&office.record, &document, held.rank, &statement.stated).await?;
    // What it was given became no more since it lost its rank.
    let made = certificate(live, &document, held, KeysGone::default(), Some(statement), now);
    made.check()?;
    let certified = store(office, &made).await?;
    let (rank, instance) = (held.rank, held.instance);
    office
        .advance(live, |document| {
            let of_it = |made: &FencedCertified| (made.rank, made.instance) == (rank, instance);
            if document.fenced_certificates.iter().any(of_it) {
                return Err(Refusal::RankWiped);
            }
            if document.lease.is_closed() {
                return Err(Refusal::LeaseOver);
            }
            document.lose(&lost);
            document.fenced_certificates.push(FencedCertified { rank, instance, certified });
            if certified.complete {
                let wiped = LeaseEvent::FencedWiped { rank, instance };
                document.lease = document.lease.apply(wiped, now)?;
            }
            Ok(())
        })
        .await?;
    let receipt = settle_up(office, live).await?.remove(&certified.digest);
    let text = made.to_canonical().map_err(RecordError::Canonical)?;
    Ok((text, receipt.ok_or(RecordError::NoReceipt)?))
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

async fn store(office: &Office, made: &WipeCertificate) -> Result<Certified, CloseError> {
    office.record.certificate(made).await?;
    Ok(Certified {
        digest: made.digest().map_err(RecordError::Canonical)?,
        complete: made.observed.outcome == Outcome::Wiped,
        recorded: false,
    })
}

/// Makes the revision that is *closed*, with what `note` brings: the lease's key is gone.
async fn advance_closed(
    office: &Office,
    live: &Live,
    gone: KeysGone,
    now: u64,
    note: impl Fn(&mut Document) -> Result<(), Refusal>,
) -> Result<(), CloseError> {
    office
        .advance(live, |document| {
            document.sent_bytes = live.counts_all().then(|| live.sent_bytes());
            note(document)?;
            document.keys_gone(gone);
            document.lease = document.lease.apply(LeaseEvent::KeyDestroyed, now)?;
            Ok(())
        })
        .await?;
    Ok(())
}

/// What is kept of a closed lease.
async fn closed(office: &Office, live: &Live) -> Result<Closed, CloseError> {
    let document = live.view().document;
    let mut certificates = Vec::new();
    let fenced = document.fenced_certificates.iter().map(|made| &made.certified);
    for certified in document.certificates.values().chain(fenced) {
        certificates.extend(office.record.stored_certificate(&certified.digest).await?);
    }
    Ok(Closed {
        lease: live.id,
        outcome: outcome(&document),
        certificates,
        checkpoint: office.record.checkpoint(),
        released_bytes: document.released_in_all(),
        sent_bytes: document.sent_bytes,
    })
}
