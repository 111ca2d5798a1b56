//! A further join token for a rank, so that another worker can take the rank over: from one that hangs
//! on a node nobody reaches any more, say. The gateway never waits for the older one's consent; the
//! moment the newer attaches, the older is fenced.

use tidegate_lease::{Event as LeaseEvent, JoinToken};
use tidegate_ledger::Event;
use tidegate_plan::TokenId;
use tidegate_wire::JoinFile;

use crate::granting::join_file;
use crate::keyring::random;
use crate::live::Live;
use crate::office::{AdvanceError, Office};
use crate::record::RecordError;

/// There is no further token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("the lease's state does not take it")]
    Advance(#[from] AdvanceError),
    #[error("it cannot be recorded")]
    Record(#[from] RecordError),
    #[error("the lease key is gone")]
    KeyGone,
}

/// Makes a token for the rank; the join file, once its entry is durable.
pub(crate) async fn further(
    office: &Office,
    live: &Live,
    rank: u16,
    subject: &str,
) -> Result<JoinFile, TokenError> {
    let _turn = live.turn.lock().await;
    let (now, id) = (office.now(), TokenId::from_bytes(random()));
    office
        .advance(live, |document| {
            document.lease = document.lease.apply(LeaseEvent::Token { id, rank }, now)?;
            Ok(())
        })
        .await?;
    let subject = office.record.document(subject).await?;
    office.record.append_one(Event::TokenMade { lease: live.id, rank, token: id, subject }).await?;
    join_file(office, live.id, &JoinToken { id, rank, bound: None }).ok_or(TokenError::KeyGone)
}
