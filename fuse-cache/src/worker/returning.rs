//! The way back of a worker that heard no gateway for the grace: it attaches again as who it is, and is
//! given keys anew, each release with an entry of its own. It has none of its former keys to come with.

use std::sync::Arc;
use std::time::Duration;

use tidegate_wire::{NodeFacts, ProblemKind};
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;

use super::turn::{Return, Turn};
use crate::client::{Client, ClientError};

/// Between two tries.
const PAUSE: Duration = Duration::from_secs(1);
/// Times that a gateway may not know us: one that was just started may take a nonce of before for wrong.
const UNKNOWN: u32 = 3;

/// Tries until a gateway gives keys or says that it never will.
pub(super) fn start(
    client: Arc<Client>,
    facts: NodeFacts,
    turns: UnboundedSender<Turn>,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut unknown = 0;
        let outcome = loop {
            let outcome = come_back(&client, &facts).await;
            let refusal = outcome.as_ref().err().and_then(ClientError::refusal);
            unknown += u32::from(refusal == Some(ProblemKind::Unauthenticated));
            match outcome {
                Err(error) if unknown < UNKNOWN && !is_final(refusal) => {
                    tracing::debug!(%error, "no way back yet");
                    tokio::time::sleep(PAUSE).await;
                }
                outcome => break outcome,
            }
        };
        let _already_leaving = turns.send(Turn::Returned(outcome));
    })
}

async fn come_back(client: &Client, facts: &NodeFacts) -> Result<Return, ClientError> {
    let attached = client.attach_again(facts.clone()).await?;
    let (client, first) = (attached.client, attached.terms.first_block);
    // That keys are given at all; those of blocks are asked for as they are read.
    client.keys(first..first).await?;
    let keys = Arc::clone(client.ring());
    Ok(Return { client, keys })
}

/// The lease is over, or the rank another worker's. (A gateway that knows us no more has closed it.)
fn is_final(refusal: Option<ProblemKind>) -> bool {
    matches!(refusal, Some(ProblemKind::LeaseOver | ProblemKind::Forbidden))
}
