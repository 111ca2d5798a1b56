//! Heartbeats: they renew the attachment, carry the counters home and bring the gateway's word back.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tidegate_kit::clock::boottime;
use tidegate_wire::{Counters, Directive, ProblemKind};
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::turn::Turn;
use crate::blocks::Cache;
use crate::client::Client;
use crate::meters;
use crate::results::Results;

/// When the gateway last answered a heartbeat, on the boot clock.
static HEARD: Mutex<Option<Duration>> = Mutex::new(None);

/// When the gateway last answered, on the boot clock; `None` before the first answer.
pub(super) fn last_heard() -> Option<Duration> {
    *HEARD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a heartbeat counts, as far as it is there.
#[derive(Default)]
pub(super) struct Counted {
    pub(super) cache: OnceLock<Arc<Cache>>,
    pub(super) results: OnceLock<Arc<Results>>,
}

impl Counted {
    fn counters(&self) -> Counters {
        let counters = self.cache.get().map(|cache| cache.counters()).unwrap_or_default();
        match self.results.get().map(|results| results.figures()) {
            Some(seen) => Counters {
                results_unsent: seen.unsent_bytes,
                results_files: seen.home_files,
                results_bytes: seen.home_bytes,
                ..counters
            },
            None => counters,
        }
    }
}

/// Beats until told to stop, or until this attachment is refused; each new word of the gateway goes to
/// `turns`. It beats on after `Die`: a worker
/// that wipes is no lost one, and needs a certificate to say so at the end.
pub(super) fn start(
    client: Arc<Client>,
    counted: Arc<Counted>,
    turns: UnboundedSender<Turn>,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let every = Duration::from_secs(u64::from(client.terms().heartbeat.max(1)));
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = Directive::Continue;
        loop {
            ticks.tick().await;
            let (word, refused) = match client.heartbeat(counted.counters()).await {
                Ok(reply) => {
                    *HEARD.lock().unwrap_or_else(PoisonError::into_inner) = Some(boottime());
                    (reply.directive, false)
                }
                Err(error) if is_end(error.refusal()) => {
                    tracing::warn!(%error, "the gateway has ended this attachment");
                    (Directive::Die, true)
                }
                Err(error) => {
                    meters::HEARTBEATS_FAILED.add(1);
                    tracing::warn!(%error, "no heartbeat");
                    continue;
                }
            };
            if std::mem::replace(&mut last, word) != word {
                let _already_leaving = turns.send(Turn::Directed(word));
            }
            if refused {
                return;
            }
        }
    })
}

/// The lease is over, or another worker holds our rank now.
fn is_end(refusal: Option<ProblemKind>) -> bool {
    matches!(refusal, Some(ProblemKind::LeaseOver | ProblemKind::Forbidden))
}
