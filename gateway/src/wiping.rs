//! A worker's last words: checked, certified, entered, and the same answer when they come again.

use tidegate_ledger::{Stated, WipeCertificate, verify_stated};
use tidegate_wire::{ProblemKind, WipeReceipt, WipeStatement};

use crate::admission::{Admitted, over, refuse, refused};
use crate::book::Certified;
use crate::certificates::Statement;
use crate::closing::{CloseError, settle, settle_fenced, settled};
use crate::office::Office;
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
    let document = live.view().document;
    // It may have lost the rank while it wiped; then its words are about itself alone.
    let held = admitted.held_before(&document.lease);
    let made = match held {
        Some(held) => {
            let mut all = document.fenced_certificates.iter();
            all.find(|made| (made.rank, made.instance) == (held.rank, held.instance))
                .map(|made| made.certified)
        }
        None => document.certificates.get(&rank).copied(),
    };
    if let Some(certified) = made {
        return again(office, admitted, &certified, &stated).await;
    }
    if live.is_closed() {
        return Err(over(office, live.id).await);
    }
    let now = office.now();
    if let Some(shortfall) = stated.shortfall() {
        tracing::warn!(lease = %live.id, rank, %shortfall, "a worker's wipe is not complete");
    }
    let statement = Statement { stated, signature: statement.signature.0 };
    let settled = match held {
        Some(held) => settle_fenced(office, live, held, statement, now).await,
        None => settle(office, live, rank, statement, now).await,
    };
    match settled {
        Ok((certificate, receipt)) => {
            let receipt = WipeReceipt { certificate, receipt };
            live.keep(admitted.peer.instance, receipt.clone());
            Ok(receipt)
        }
        Err(CloseError::Advance(error)) => Err(refused(office, live.id, error).await),
        Err(error) => Err(Refusal::unavailable("the wipe cannot be recorded now", &error)),
    }
}

/// The same answer for the same statement: the first may have been lost on its way, or its entry
/// could not be written then.
async fn again(
    office: &Office,
    admitted: &Admitted,
    certified: &Certified,
    stated: &Stated,
) -> Result<WipeReceipt, Refusal> {
    let (live, rank) = (&admitted.live, admitted.rank);
    let receipt = match live.kept(admitted.peer.instance) {
        Some(kept) => kept,
        None => match settled(office, live, rank, certified).await {
            Ok(Some((certificate, receipt))) => {
                let receipt = WipeReceipt { certificate, receipt };
                // Whatever comes next from this worker makes no further entry.
                live.keep(admitted.peer.instance, receipt.clone());
                receipt
            }
            Ok(None) => return Err(over(office, live.id).await),
            Err(error) => {
                return Err(Refusal::unavailable("the wipe cannot be recorded now", &error));
            }
        },
    };
    let certificate = WipeCertificate::parse(&receipt.certificate)
        .map_err(|error| Refusal::internal("a stored certificate does not hold", &error))?;
    if certificate.stated.as_ref() != Some(stated) {
        return Err(over(office, live.id).await);
    }
    Ok(receipt)
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
