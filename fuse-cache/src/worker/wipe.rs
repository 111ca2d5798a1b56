//! The end in good order. Keys first; everything after that only clears what nobody can open any more.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tidegate_ledger::{Discarded, METHOD_OVERWRITE, Stated, StatedCounters};
use tidegate_wire::WipeReceipt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::control::{Control, FromWorker, Progress, ToWorker};
use crate::fuse::Served;
use crate::results::Results;
use crate::store::WipeFigures;

use super::WorkerError;
use super::blocking::blocking;
use super::homeward::Homeward;
use super::live::Live;
use super::patience::Patience;

/// How long results may take to come home when there is no holder any more.
const LAST_DRAIN: Duration = Duration::from_secs(60);
/// How long the session threads may take to notice that the mount is gone.
const SESSIONS_END: Duration = Duration::from_secs(10);

/// Wipes; the holder unmounts.
pub(super) async fn with_holder(
    mut live: Live,
    control: &Arc<Control>,
    orders: &mut mpsc::UnboundedReceiver<ToWorker>,
) -> Result<(), WorkerError> {
    live.destroy_keys().await;
    // Whatever comes of the rest: these are the last figures.
    let progress = live.progress();
    let _last_figures = control.send(&FromWorker::Progress(progress), &[]);
    let unmount = async {
        control.send(&FromWorker::KeysDestroyed, &[]).map_err(|error| {
            WorkerError::Internal(format!("the holder cannot be told: {error}"))
        })?;
        loop {
            match orders.recv().await {
                Some(ToWorker::Unmounted { clean }) => return Ok(clean),
                Some(_) => {}
                None => {
                    return Err(WorkerError::Internal(
                        "the holder vanished during the wipe".into(),
                    ));
                }
            }
        }
    };
    let patience = Duration::from_secs(u64::from(live.client.terms().grace));
    let (receipt, statement) = wipe(live, unmount, patience).await?;
    control
        .send(&FromWorker::Wiped { receipt: Box::new(receipt), statement }, &[])
        .map_err(|error| WorkerError::Internal(format!("the holder cannot be told: {error}")))
}

/// Wipes without a holder: this process is the last that can bring results home and take the mounts away.
pub(super) async fn alone(mut live: Live) -> Result<(), WorkerError> {
    if let Some(drain) = live.drain(LAST_DRAIN) {
        drain.await;
    }
    let mut mounts = vec![(live.at.clone(), live.mount_id)];
    mounts.extend(live.homeward.as_ref().map(|home| (home.at.clone(), home.mount_id)));
    let unmount = async move {
        let taken = mounts.into_iter().map(|(at, id)| {
            crate::holder::unmount(&at, id).unwrap_or_else(|error| {
                tracing::warn!(%error, "could not unmount");
                false
            })
        });
        // Each of them, whatever became of the other.
        Ok(!taken.collect::<Vec<_>>().contains(&false))
    };
    wipe(live, unmount, Duration::ZERO).await.map(|_| ())
}

async fn wipe(
    mut live: Live,
    unmount: impl Future<Output = Result<bool, WorkerError>>,
    patience: Duration,
) -> Result<(WipeReceipt, String), WorkerError> {
    let progress = live.progress();
    live.destroy_keys().await;
    let keys_destroyed_at = now();
    let Live { client, cache, fs, served, homeward, identity, facts, heartbeat, .. } = live;
    // Until the statement is answered: however long the overwriting takes, the gateway waits for it.
    let heart = Heart(heartbeat);
    let results = homeward.as_ref().and_then(Homeward::stated);
    let (home, written) = homeward.map(Homeward::into_parts).unzip();
    let mut page_cache_bytes = fs.page_cache_bytes();
    page_cache_bytes += home.as_ref().map_or(0, |home: &Arc<Results>| home.page_cache_bytes());
    drop(fs);
    let clean = unmount.await?;
    // The threads end when the kernel has let go of the mounts, wherever else they may have been seen.
    let all = [Some(served), written].into_iter().flatten();
    let ended = blocking(move || all.for_each(Served::join));
    let unmounted = tokio::time::timeout(SESSIONS_END, ended).await.is_ok();
    if !unmounted {
        tracing::warn!(clean, "the mount is still in use; it is detached and answers nothing");
    }

    let mut figures = cache.wipe().await;
    if let Some(home) = home {
        figures = figures.and(home.wipe().await);
    }
    let terms = client.terms();
    let stated = Stated {
        v: Stated::VERSION,
        lease: terms.lease,
        rank: terms.rank,
        instance: client.instance(),
        time: now(),
        keys_destroyed_at,
        unmounted,
        cache_bytes: figures.cache_bytes,
        overwritten_bytes: figures.overwritten_bytes,
        read_back_bytes: figures.read_back_bytes,
        mismatched_bytes: figures.mismatched_bytes,
        discarded: discarded(&figures),
        unlinked: figures.unlinked.is_ok(),
        method: METHOD_OVERWRITE.into(),
        page_cache_bytes_freed_without_overwrite: page_cache_bytes,
        counters: stated_counters(&progress),
        facts: crate::facts::stated(&facts),
        results,
    };
    let statement = stated.to_canonical()?;
    let post = || client.wipe_certificate(statement.clone(), facts.clone());
    let waiting = "the wipe is done; its certificate waits for the gateway";
    let receipt = Patience::of(patience).with(waiting, post).await?;
    heart.stop().await;
    drop(client);
    identity.destroy().map_err(WorkerError::Serve)?;
    Ok((receipt, statement))
}

/// The heartbeats, which end with the wipe however it ends.
struct Heart(JoinHandle<()>);

impl Heart {
    /// Lets go of what the heartbeats hold of the attachment.
    async fn stop(mut self) {
        self.0.abort();
        let _cancelled = (&mut self.0).await;
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn discarded(figures: &WipeFigures) -> Discarded {
    match &figures.discarded {
        Ok(()) => Discarded::Done,
        Err(why) => Discarded::NotDone(why.clone()),
    }
}

fn stated_counters(progress: &Progress) -> StatedCounters {
    StatedCounters {
        blocks_fetched: progress.blocks_fetched,
        bytes_fetched: progress.bytes_fetched,
        bytes_read: progress.bytes_read,
        reads: progress.reads,
        read_errors: progress.read_errors,
        refetched: progress.refetched,
    }
}

/// Seconds since the epoch by this node's clock.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
