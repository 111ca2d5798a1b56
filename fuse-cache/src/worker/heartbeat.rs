//! Heartbeats: they renew the attachment, carry the counters home and bring the gateway's word back.

use std::sync::Arc;
use std::time::Duration;

use tidegate_wire::{Directive, ProblemKind};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::blocks::Cache;
use crate::client::{Client, ClientError};

/// Beats until told to stop, or until the lease is closed; each new word of the gateway goes to
/// `directive`. It beats on after `Die`: a worker that wipes is no lost one, and needs a certificate to
/// say so at the end.
pub(super) fn start(
    client: Arc<Client>,
    cache: Arc<Cache>,
    directive: watch::Sender<Directive>,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let every = Duration::from_secs(u64::from(client.terms().heartbeat.max(1)));
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let (word, closed) = match client.heartbeat(cache.counters()).await {
                Ok(reply) => (reply.directive, false),
                Err(ClientError::Refused(problem)) if problem.kind == ProblemKind::LeaseOver => {
                    (Directive::Die, true)
                }
                Err(error) => {
                    tracing::warn!(%error, "no heartbeat");
                    continue;
                }
            };
            directive.send_if_modified(|last| std::mem::replace(last, word) != word);
            if closed {
                return;
            }
        }
    })
}
