//! Heartbeats: they renew the attachment, carry the counters home and bring the gateway's word back.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tidegate_wire::{Directive, ProblemKind};
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::turn::Turn;
use crate::blocks::Cache;
use crate::client::Client;
use crate::meters;

use super::figures;

/// Beats until told to stop, or until this attachment is refused; each new word of the gateway goes to
/// `turns`. The counters are those of the cache, once there is one. It beats on after `Die`: a worker
/// that wipes is no lost one, and needs a certificate to say so at the end.
pub(super) fn start(
    client: Arc<Client>,
    cache: Arc<OnceLock<Arc<Cache>>>,
    turns: UnboundedSender<Turn>,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let every = Duration::from_secs(u64::from(client.terms().heartbeat.max(1)));
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = Directive::Continue;
        loop {
            ticks.tick().await;
            let counters = cache.get().map(|cache| cache.counters()).unwrap_or_default();
            let (word, refused) = match client.heartbeat(counters).await {
                Ok(reply) => {
                    figures::heard();
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
