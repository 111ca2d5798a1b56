//! A worker's last words: checked, certified, entered, and the same answer when they come again.

use tidegate_ledger::{Stated, WipeCertificate, verify_stated};
use tidegate_wire::{ProblemKind, WipeReceipt, WipeStatement};

use crate::admission::{Admitted, over, refuse, refused};
use crate::certificates::Statement;
use crate::closing::{CloseError, settle};
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
    if let Some(kept) = live.kept(rank) {
        return again(&kept, &stated).ok_or_else(|| {
            Refusal::new(ProblemKind::LeaseOver, "this rank has its certificate already")
        });
    }
    if live.is_closed() {
        return Err(over(office, live.id).await);
    }
    let now = office.now();
    if let Some(shortfall) = stated.shortfall() {
        tracing::warn!(lease = %live.id, rank, %shortfall, "a worker's wipe is not complete");
    }
    let statement = Statement { stated, signature: statement.signature.0 };
    match settle(office, live, rank, statement, now).await {
        Ok((certificate, receipt)) => {
            let receipt = WipeReceipt { certificate, receipt };
            live.keep(rank, receipt.clone());
            Ok(receipt)
        }
        Err(CloseError::Advance(error)) => Err(refused(office, live.id, error).await),
        Err(error) => Err(Refusal::unavailable("the wipe cannot be recorded now", &error)),
    }
}

/// The kept answer, when it was given to the same statement: its first answer may have been lost.
fn again(kept: &WipeReceipt, stated: &Stated) -> Option<WipeReceipt> {
    let certificate = WipeCertificate::parse(&kept.certificate).ok()?;
    (certificate.stated.as_ref() == Some(stated)).then(|| kept.clone())
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
