//! Which replica a worker speaks to: it alone can tell when the worker falls silent.
//!
//! A worker may have connections to several replicas at once. One of them keeps it, by its
//! heartbeats; the others do not take its silence towards them for its end.

use tidegate_lease::{Attachment, Event as LeaseEvent};

use crate::admission::{Admitted, refused};
use crate::book::Document;
use crate::heard::as_heard;
use crate::live::Live;
use crate::office::{AdvanceError, Office};
use crate::problem::Refusal;

/// To be called before bytes are sent to a worker: that nobody counts all of them is written down
/// before the first that its keeper does not count. At most one revision a lease.
pub(crate) async fn about_to_send(office: &Office, admitted: &Admitted) -> Result<(), Refusal> {
    let counted = |document: &Document| {
        !office.is_replicated()
            || document.handed_over
            || document.is_kept_by(admitted.rank, &office.replica)
    };
    if counted(&admitted.live.view().document) {
        return Ok(());
    }
    let _turn = admitted.live.turn.lock().await;
    if counted(&admitted.live.view().document) {
        return Ok(());
    }
    write(office, &admitted.live, |document| document.handed_over = true).await
}

/// Takes a worker over whose heartbeats come here. Not again within a third of the grace, so that a
/// worker who speaks to two replicas in turn does not make them write at each word; and soon enough
/// for the one that hears it no more.
pub(crate) async fn heard(office: &Office, admitted: &Admitted, now: u64) -> Result<(), Refusal> {
    let (live, rank) = (&admitted.live, admitted.rank);
    let settled = |document: &Document| {
        let hold = u64::from(document.lease.policy.grace_s) / 3;
        document.keepers.get(&rank).is_some_and(|keeper| {
            keeper.replica == office.replica || now < keeper.since.saturating_add(hold)
        })
    };
    if settled(&live.view().document) {
        return Ok(());
    }
    let _turn = live.turn.lock().await;
    if settled(&live.view().document) || live.is_closed() {
        return Ok(());
    }
    write(office, live, |document| document.kept_by(rank, &office.replica, now)).await?;
    tracing::info!(lease = %live.id, rank, "a worker came over from another gateway");
    Ok(())
}

/// Makes a revision that says when the workers were last heard: for the replicas that do not hear
/// them. To be called at least once in half of a certificate's life; one serves all ranks that come
/// within a quarter of it.
pub(crate) async fn write_down(office: &Office, live: &Live, now: u64) -> Result<(), Refusal> {
    let hold = u64::from(office.config.certificate_s) / 4;
    let _turn = live.turn.lock().await;
    if now < live.written_down().saturating_add(hold) {
        return Ok(());
    }
    write(office, live, |_| {}).await?;
    live.wrote_down(now);
    Ok(())
}

async fn write(
    office: &Office,
    live: &Live,
    change: impl Fn(&mut Document),
) -> Result<(), Refusal> {
    let written = office.advance(live, |document| {
        change(document);
        Ok(())
    });
    match written.await {
        Ok(_) => Ok(()),
        Err(error) => Err(refused(office, live.id, error).await),
    }
}

/// What the lease's own rules say, with what was heard since the last revision.
pub(crate) fn due(
    office: &Office,
    live: &Live,
    document: &Document,
    now: u64,
) -> Option<LeaseEvent> {
    as_heard(office, live, document).due(now)
}

/// Whether a worker that is still to wipe is not taken for gone yet: a large cache takes longer to
/// overwrite, and its worker says all the while that it lives; and one whose link is cut has destroyed
/// its keys at its grace, and may come back to say so.
pub(crate) fn is_anybody_wiping(
    office: &Office,
    live: &Live,
    document: &Document,
    now: u64,
) -> bool {
    let lease = as_heard(office, live, document);
    let mut waited_for = lease.attachments.iter().filter(|held| document.waits_for(held));
    waited_for.any(|held| !lease.policy.is_gone(held.last_seen, now))
}

/// Writes down which workers of this replica are taken for gone, so that others need not wait for them
/// as long as their certificates last. For a lease that has ended.
pub(crate) async fn give_up(
    office: &Office,
    live: &Live,
    document: &Document,
    now: u64,
) -> Result<(), AdvanceError> {
    let lease = as_heard(office, live, document);
    let gone = |held: &&Attachment| {
        document.waits_for(held)
            && document.is_kept_by(held.rank, &office.replica)
            && lease.policy.is_gone(held.last_seen, now)
    };
    let gone: Vec<_> = lease.attachments.iter().filter(gone).map(|held| held.rank).collect();
    if gone.is_empty() {
        return Ok(());
    }
    let _turn = live.turn.lock().await;
    let written = office.advance(live, |document| {
        document.given_up.extend(&gone);
        Ok(())
    });
    written.await.map(drop)
}
