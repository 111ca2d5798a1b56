//! The way back of a worker that heard no gateway for the grace: it attaches again as who it is, and is
//! given keys anew, each release with an entry of its own. It has none of its former keys to come with.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidegate_wire::{NodeFacts, ProblemKind};
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;

use super::turn::{Return, Turn};
use crate::client::{Client, ClientError};

/// For how long an end waits for the try that is under way.
const LAST_TRY: Duration = Duration::from_secs(5);
/// Between two tries.
const PAUSE: Duration = Duration::from_secs(1);
/// Times that a gateway may not know us: one that was just started may take a nonce of before for wrong.
const UNKNOWN: u32 = 3;

/// A worker on its way back.
pub(super) struct Returning {
    task: JoinHandle<()>,
    /// Nobody wants to come back any more.
    leaving: Arc<AtomicBool>,
    attached: Newest,
}

/// The attachment that a gateway listens to, whether it gave keys to it or not.
type Newest = Arc<Mutex<Option<Arc<Client>>>>;

fn newest(attached: &Newest) -> Option<Arc<Client>> {
    attached.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

impl Returning {
    /// Ends the way back. What the gateway listens to now, if that changed: an attachment that is just
    /// being made is waited for.
    pub(super) async fn give_up(mut self) -> Option<Arc<Client>> {
        self.leaving.store(true, Ordering::SeqCst);
        if tokio::time::timeout(LAST_TRY, &mut self.task).await.is_err() {
            self.task.abort();
        }
        newest(&self.attached)
    }
}

/// Tries until a gateway gives keys or says that it never will.
pub(super) fn start(
    client: Arc<Client>,
    facts: NodeFacts,
    turns: UnboundedSender<Turn>,
) -> Returning {
    let (attached, leaving) = (Newest::default(), Arc::<AtomicBool>::default());
    let leaves = Arc::clone(&leaving);
    let known = Arc::clone(&attached);
    let task = tokio::spawn(async move {
        let mut unknown = 0;
        let outcome = loop {
            let outcome = come_back(&client, &facts, &known).await;
            let refusal = outcome.as_ref().err().and_then(ClientError::refusal);
            unknown += u32::from(refusal == Some(ProblemKind::Unauthenticated));
            match outcome {
                Err(error) if unknown < UNKNOWN && !is_final(refusal) => {
                    tracing::debug!(%error, "no way back yet");
                    tokio::time::sleep(PAUSE).await;
                    if leaves.load(Ordering::SeqCst) {
                        return;
                    }
                }
                outcome => break outcome,
            }
        };
        let _already_leaving = turns.send(Turn::Returned(outcome));
    });
    Returning { task, leaving, attached }
}

/// Attaches, unless that was done within the grace, and asks for keys.
async fn come_back(
    client: &Client,
    facts: &NodeFacts,
    known: &Newest,
) -> Result<Return, ClientError> {
    let lives = |client: &Arc<Client>| client.ring().life().past().is_none();
    let client = match newest(known).filter(lives) {
        Some(attached) => attached,
        None => {
            let attached = client.attach_again(facts.clone()).await?.client;
            *known.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&attached));
            attached
        }
    };
    let first = client.terms().first_block;
    // That keys are given at all; those of blocks are asked for as they are read.
    client.keys(first..first).await?;
    let keys = Arc::clone(client.ring());
    Ok(Return { client, keys })
}

/// The lease is over, or the rank another worker's. (A gateway that knows us no more has closed it.)
fn is_final(refusal: Option<ProblemKind>) -> bool {
    matches!(refusal, Some(ProblemKind::LeaseOver | ProblemKind::Forbidden))
}
