//! What time does to leases: silence and deadlines end them, and refusals are summed into entries.

use std::sync::Arc;
use std::time::Duration;

use tidegate_lease::{Event as LeaseEvent, Phase};

use crate::book::Document;
use crate::closing::{CloseError, cut_off, finish};
use crate::config::CERTIFICATE_LIFE_S;
use crate::live::Live;
use crate::office::Office;
use crate::owed::{owes, settle_up};
use crate::stop::{Stop, stopped};

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(1);

/// Runs until told to stop.
pub(crate) async fn keep(office: Arc<Office>, mut stop: Stop) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut stop) => return,
            _ = ticks.tick() => look(&office).await,
        }
    }
}

async fn look(office: &Office) {
    for live in office.all() {
        if let Err(error) = look_at(office, &live).await {
            tracing::error!(lease = %live.id, error = %chain(&error), "a lease could not be ended; trying again");
        }
    }
    let sums = office.refusals.due(Some(office.now()));
    if !sums.is_empty()
        && let Err(error) = office.record.append(sums).await
    {
        tracing::error!(%error, "sums of refusals could not be recorded");
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}

async fn look_at(office: &Office, live: &Live) -> Result<(), CloseError> {
    let now = office.now();
    let document = live.view().document;
    if owes(&document) {
        let _turn = live.turn.lock().await;
        settle_up(office, live).await?;
    }
    match document.lease.phase {
        Phase::Closed(_) => {
            // Kept for as long as a worker's certificate may still knock with a lost answer.
            let end = document.lease.changed_at + u64::from(CERTIFICATE_LIFE_S);
            if now > end {
                office.forget(live.id);
            }
            Ok(())
        }
        // Its keys are gone; its worker has the grace to wipe and say so.
        _ if live.is_over() => {
            let grace = u64::from(document.lease.policy.grace_s);
            if now > live.over_at().unwrap_or(0) + grace {
                let _turn = live.turn.lock().await;
                finish(office, live, LeaseEvent::Revoke, office.now()).await?;
            }
            Ok(())
        }
        _ => match due(live, &document, now) {
            Some(LeaseEvent::Expire) => {
                tracing::info!(lease = %live.id, "the lease's deadline is over");
                cut_off(office, live, LeaseEvent::Expire).await.map(drop)
            }
            Some(_) => {
                let _turn = live.turn.lock().await;
                let now = office.now();
                // It may have spoken while we waited for our turn.
                if due(live, &live.view().document, now) != Some(LeaseEvent::Vanished) {
                    return Ok(());
                }
                tracing::warn!(lease = %live.id, "a worker was not heard for the grace");
                finish(office, live, LeaseEvent::Vanished, now).await.map(drop)
            }
            None => Ok(()),
        },
    }
}

/// What the lease's own rules say, with what was heard since the last revision.
fn due(live: &Live, document: &Document, now: u64) -> Option<LeaseEvent> {
    let mut lease = document.lease.clone();
    live.note_seen(&mut lease);
    // A rank that has its certificate has nothing left to say.
    lease.attachments.retain(|held| !document.certificates.contains_key(&held.rank));
    lease.due(now)
}
