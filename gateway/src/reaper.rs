//! What time does to leases: silence and deadlines end them, and refusals are summed into entries.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tidegate_lease::{Event as LeaseEvent, Phase};
use tokio::time::{Interval, MissedTickBehavior};
use tracing::Instrument as _;

use crate::bringing::tidy;
use crate::closing::{CloseError, cut_off, finish, has_ended, retire_epochs};
use crate::keepers::{due, give_up, is_anybody_wiping};
use crate::live::Live;
use crate::office::{AdvanceError, Office};
use crate::owed::{owes, settle_up};
use crate::recovery::{chain, look_around};
use crate::stop::{Stop, stopped};

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(1);
/// Leases looked at together: with state in a bucket each look is a round trip.
const AT_ONCE: usize = 32;
/// Seconds after which entries that another replica owes are written here.
const SETTLING_S: u64 = 20;
/// Between two looks for leases that are not served here, and for epochs that are over.
const ROUND: Duration = Duration::from_secs(10);

/// A look that comes so much later than it should: we were stopped, or the wall clock was set.
const LATE_S: u64 = 5;

/// Looks after the leases until told to stop.
pub(crate) async fn keep(office: Arc<Office>, mut stop: Stop) {
    let mut ticks = timer(PERIOD);
    let mut last = office.now();
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut stop) => return,
            _ = ticks.tick() => look(&office, last).await,
        }
        last = office.now();
    }
}

/// Makes the rounds until told to stop. A task apart from [`keep`]: a store that does not answer holds up
/// no deadline.
pub(crate) async fn go_round(office: Arc<Office>, mut stop: Stop) {
    let mut ticks = timer(ROUND);
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut stop) => return,
            _ = ticks.tick() => round(&office).await,
        }
    }
}

/// Tidies up after leases that are over until told to stop: a home that hangs holds up no round.
pub(crate) async fn tidy_up(office: Arc<Office>, mut stop: Stop) {
    let mut ticks = timer(ROUND);
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut stop) => return,
            _ = ticks.tick() => tidy(&office).await,
        }
    }
}

fn timer(period: Duration) -> Interval {
    let mut timer = tokio::time::interval(period);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    timer
}

/// What is done now and then.
pub(crate) async fn round(office: &Office) {
    if let Err(error) = retire_epochs(office, office.now()).await {
        tracing::warn!(error = %chain(&error), "the keys of past epochs stay for now");
    }
    if office.owner.is_none() {
        look_around(office).await;
    }
}

/// Counts every worker as just seen, as after a start: who did not listen cannot say that they were
/// silent. One that is gone is missed as much later.
fn excuse(office: &Office, now: u64) {
    tracing::warn!(
        "this gateway was stopped or its clock was set; its workers are waited for anew"
    );
    for live in office.all() {
        for held in &live.view().document.lease.attachments {
            live.presence(held.rank).seen(now);
        }
    }
}

/// What is done each period; `last` is when the last of it was over.
pub(crate) async fn look(office: &Office, last: u64) {
    let now = office.now();
    if now > last + PERIOD.as_secs() + LATE_S {
        excuse(office, now);
    }
    let looks = futures_util::stream::iter(office.all()).for_each_concurrent(AT_ONCE, async |live| {
        let span = tracing::error_span!("lease", lease = %live.id);
        if let Err(error) = look_at(office, &live).instrument(span).await {
            tracing::error!(lease = %live.id, error = %chain(&error), "a lease could not be ended; trying again");
        }
    });
    looks.await;
    let sums = office.refusals.due(Some(office.now()));
    if !sums.is_empty()
        && let Err(error) = office.record.append(sums).await
    {
        tracing::error!(%error, "sums of refusals could not be recorded");
    }
}

async fn look_at(office: &Office, live: &Live) -> Result<(), CloseError> {
    let now = office.now();
    if office.is_replicated()
        && let Err(error) = follow(office, live).await
    {
        // The deadline needs nobody's word.
        if now >= live.view().document.lease.deadline {
            live.cut_off(&LeaseEvent::Expire, now);
            office.keyring.forget(live.id);
        }
        return Err(error);
    }
    let document = live.view().document;
    // Whoever closed it is about to settle up, if that is another gateway.
    let is_left = !office.is_replicated() || now > document.lease.changed_at + SETTLING_S;
    if owes(&document) && is_left {
        let _turn = live.turn.lock().await;
        settle_up(office, live).await?;
    }
    match document.lease.phase {
        Phase::Closed(_) => {
            // Kept for as long as a worker's certificate may still knock with a lost answer.
            let end = document.lease.changed_at + u64::from(office.config.certificate_s);
            if now > end {
                office.forget(live.id);
            }
            Ok(())
        }
        // Its keys are gone; its worker may wipe for as long as it is heard, within the limit.
        _ if live.is_over() => {
            // Whoever ended it may be gone before its key was.
            let cut = live.cut();
            if document.key_destroyed_at.is_none() && (is_left || cut.is_some()) {
                cut_off(office, live, cut.unwrap_or(LeaseEvent::Abandon)).await?;
            }
            // Whoever was heard lately or long ago has this long to hear of the end.
            let grace = u64::from(document.lease.policy.grace_s);
            let waited = now > live.over_at().unwrap_or(0).saturating_add(grace);
            if !waited {
                return Ok(());
            }
            if is_anybody_wiping(office, live, &document, now) {
                let Some(wipe_s) = document.overdue(office.config.wipe_s, now) else {
                    return Ok(give_up(office, live, &document, now).await?);
                };
                tracing::warn!(
                    wipe_s,
                    "a worker that is heard has not stated its wipe within `wipe_s`; its part is closed as withdrawn"
                );
            }
            let _turn = live.turn.lock().await;
            let cause = live.cut().unwrap_or(LeaseEvent::Abandon);
            finish(office, live, cause, office.now()).await?;
            Ok(())
        }
        _ => match due(office, live, &document, now) {
            Some(LeaseEvent::Expire) => {
                tracing::info!(lease = %live.id, "the lease's deadline is over");
                cut_off(office, live, LeaseEvent::Expire).await.map(drop)
            }
            Some(gone) => {
                let _turn = live.turn.lock().await;
                let now = office.now();
                // It may have spoken while we waited for our turn.
                if due(office, live, &live.view().document, now).as_ref() != Some(&gone) {
                    return Ok(());
                }
                tracing::warn!(lease = %live.id, "a worker that was not heard is taken for gone");
                match finish(office, live, gone, now).await {
                    // It spoke to another gateway meanwhile.
                    Err(CloseError::Advance(AdvanceError::Refused(_))) => Ok(()),
                    finished => finished.map(drop),
                }
            }
            None => Ok(()),
        },
    }
}

/// Keeps up with what other replicas did to the lease.
async fn follow(office: &Office, live: &Live) -> Result<(), CloseError> {
    office.refresh(live).await.map_err(AdvanceError::Book)?;
    let document = live.view().document;
    if document.key_destroyed_at.is_some() || has_ended(&document) {
        live.end(office.now());
        office.keyring.forget(live.id);
    }
    if document.lease.is_closed() {
        live.clear();
    }
    Ok(())
}
