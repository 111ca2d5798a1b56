//! A worker's last words: checked, certified, entered, and the same answer when they come again.

use tidegate_kit::telemetry::chain;
use tidegate_lease::Refusal as LeaseRefusal;
use tidegate_ledger::{Stated, WipeCertificate, verify_stated};
use tidegate_wire::{ProblemKind, Receipt, WipeReceipt, WipeStatement};

use crate::admission::{Admitted, over, refuse, refused};
use crate::book::Certified;
use crate::certificates::Statement;
use crate::closing::{CloseError, receipt_again, settle, settle_fenced};
use crate::office::{AdvanceError, Office};
use crate::problem::Refusal;
use crate::refusals::Reason;

pub(crate) async fn wiped(
    office: &Office,
    admitted: &Admitted,
    statement: WipeStatement,
) -> Result<WipeReceipt, Refusal> {
    let (live, rank) = (&admitted.live, admitted.rank);
    let stated = match check(admitted, &statement) {
        Ok(stated) => stated,
        Err(why) => {
            let kind = ProblemKind::Forbidden;
            return Err(refuse(office, live.id, Reason::Statement, kind, why).await);
        }
    };
    let _turn = live.turn.lock().await;
    if let Some(certified) = made(admitted) {
        return again(office, admitted, &certified, &stated).await;
    }
    if live.is_closed() {
        return Err(over(office, live.id).await);
    }
    let now = office.now();
    if let Some(shortfall) = stated.shortfall() {
        tracing::warn!(lease = %live.id, rank, %shortfall, "a worker's wipe is not complete");
    }
    let statement = Statement { stated: stated.clone(), signature: statement.signature.0 };
    let mut settled = settle_part(office, admitted, statement.clone(), now).await;
    if let Err(CloseError::Advance(AdvanceError::Refused(LeaseRefusal::NotAttached))) = settled {
        // Another worker has just taken the rank over at another replica.
        settled = settle_part(office, admitted, statement, now).await;
    }
    match settled {
        Ok((certificate, receipt)) => {
            live.keep(admitted.peer.instance, receipt.clone());
            Ok(WipeReceipt { certificate, receipt })
        }
        Err(CloseError::Advance(error)) => match made(admitted) {
            // It said the same to another replica, or was given up there.
            Some(certified) => again(office, admitted, &certified, &stated).await,
            None => Err(refused(office, live.id, error).await),
        },
        Err(error) => Err(Refusal::unavailable("the wipe cannot be recorded now", &error)),
    }
}

async fn settle_part(
    office: &Office,
    admitted: &Admitted,
    statement: Statement,
    now: u64,
) -> Result<(String, Receipt), CloseError> {
    let live = &admitted.live;
    let document = live.view().document;
    match admitted.held_before(&document.lease) {
        // It lost the rank while it wiped: its words are about itself alone.
        Some(held) => settle_fenced(office, live, held, statement, now).await,
        None => settle(office, live, admitted.rank, statement, now).await,
    }
}

/// The certificate of the caller's part, if there is one.
fn made(admitted: &Admitted) -> Option<Certified> {
    let document = admitted.live.view().document;
    let Some(held) = admitted.held_before(&document.lease) else {
        return document.certificates.get(&admitted.rank).copied();
    };
    let mut all = document.fenced_certificates.iter();
    let its = all.find(|made| (made.rank, made.instance) == (held.rank, held.instance));
    its.map(|made| made.certified)
}

/// The same answer for the same statement, which may have been lost on its way, or whose entry could
/// not be written then. Another statement comes too late, and makes no entry.
async fn again(
    office: &Office,
    admitted: &Admitted,
    certified: &Certified,
    stated: &Stated,
) -> Result<WipeReceipt, Refusal> {
    let (live, rank, instance) = (&admitted.live, admitted.rank, admitted.peer.instance);
    let unrecorded = |error: &dyn std::error::Error| {
        Refusal::unavailable("the wipe cannot be recorded now", &chain(error))
    };
    let text = match office.record.stored_certificate(&certified.digest).await {
        Ok(Some(text)) => text,
        Ok(None) => return Err(over(office, live.id).await),
        Err(error) => return Err(unrecorded(&error)),
    };
    let certificate = WipeCertificate::parse(&text)
        .map_err(|error| Refusal::internal("a stored certificate does not hold", &error))?;
    if certificate.stated.as_ref() != Some(stated) {
        return Err(over(office, live.id).await);
    }
    if let Some(receipt) = live.kept(instance) {
        return Ok(WipeReceipt { certificate: text, receipt });
    }
    match receipt_again(office, live, rank, certified).await {
        Ok(receipt) => {
            live.keep(instance, receipt.clone());
            Ok(WipeReceipt { certificate: text, receipt })
        }
        Err(error) => Err(unrecorded(&error)),
    }
}

/// The statement is the caller's own, of this attachment.
fn check(admitted: &Admitted, statement: &WipeStatement) -> Result<Stated, &'static str> {
    let identity = &admitted.peer.public_key;
    let stated = verify_stated(identity, &statement.statement, &statement.signature.0)
        .map_err(|_| "the statement or its signature does not hold")?;
    if stated.lease != admitted.live.id
        || stated.rank != admitted.rank
        || stated.instance != admitted.peer.instance
    {
        return Err("the statement is of another worker");
    }
    Ok(stated)
}
