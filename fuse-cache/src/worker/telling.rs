//! What the holder hears from a worker that serves.

use std::sync::Arc;
use std::time::Duration;

use tidegate_wire::Directive;

use super::WorkerError;
use super::live::Live;
use super::turn::Turn;
use crate::control::{Control, FromWorker, Progress};
use crate::life::Past;

pub(super) struct Telling {
    control: Arc<Control>,
    until: Option<Option<Duration>>,
    progress: Option<Progress>,
}

impl Telling {
    pub(super) fn new(control: &Arc<Control>) -> Self {
        Self { control: Arc::clone(control), until: None, progress: None }
    }

    pub(super) fn say(&self, word: &FromWorker) {
        // A worker without a holder hears of it from its orders.
        let _sent_or_orphaned = self.control.send(word, &[]);
    }

    /// What has changed since it was told last.
    pub(super) fn tell(&mut self, live: &Live) {
        let until = live.until();
        if self.until.replace(until) != Some(until) {
            self.say(&FromWorker::Serving { until });
        }
        let progress = live.progress();
        if self.progress.replace(progress) != Some(progress) {
            self.say(&FromWorker::Progress(progress));
        }
    }
}

/// What one turn does, and what the holder is to hear of it.
pub(super) async fn take(live: &mut Live, turn: Turn) -> Result<FromWorker, WorkerError> {
    let over = match turn {
        Turn::Directed(Directive::Die) => {
            tracing::warn!("the gateway ended the lease: destroying the keys");
            true
        }
        Turn::Directed(directive) => return Ok(FromWorker::Directed(directive)),
        Turn::Past(Past::Deadline) if live.is_past_deadline() => {
            tracing::warn!("the lease's deadline is over: destroying the keys");
            true
        }
        // Of an attachment before this one.
        Turn::Past(Past::Deadline) => return Ok(FromWorker::Serving { until: live.until() }),
        Turn::Past(Past::Grace) => {
            tracing::warn!("no gateway was heard for the grace: the keys are destroyed");
            false
        }
        Turn::Returned(Ok(back)) => {
            live.resume(back).await.map_err(WorkerError::Serve)?;
            tracing::warn!("a gateway is heard again, and the lease still lives");
            return Ok(FromWorker::Serving { until: live.until() });
        }
        Turn::Returned(Err(error)) => {
            tracing::warn!(%error, "a gateway is heard again, and the lease is over");
            true
        }
    };
    if over {
        live.destroy_keys().await;
        Ok(FromWorker::Directed(Directive::Die))
    } else {
        live.fall_silent().await;
        Ok(FromWorker::Serving { until: None })
    }
}
