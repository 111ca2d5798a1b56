//! The task that decides which fetches run: demands first, then the schedule. A block is fetched
//! once its key is here.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::ReadError;
use super::core::Core;
use super::fetch::{self, Fetched};
use super::release::{Released, Releases};
use super::resident::{End, Resident};
use super::trouble::pause;
use crate::schedule::Concurrency;
use crate::store::Slot;

/// Demands may go this far over the measured limit.
const HASTE: u32 = 2;
/// Blocks in trouble are looked at again this often.
const REVIEW: Duration = Duration::from_millis(500);

/// Runs until the cache is closed; then waits for the fetches under way to stop.
pub(super) async fn run(core: Arc<Core>) {
    let mut filling = Filling {
        concurrency: Concurrency::new(2, core.connections),
        fetches: JoinSet::new(),
        prefetches: 0,
        releases: Releases::new(Arc::clone(&core)),
        link: Link::default(),
        begun: Instant::now(),
        core,
    };
    while !filling.core.table().is_closed() {
        filling.start_what_may();
        filling.wait().await;
    }
    while filling.fetches.join_next().await.is_some() {}
}

struct Filling {
    core: Arc<Core>,
    concurrency: Concurrency,
    fetches: JoinSet<(Fetched, bool)>,
    /// Fetches under way that nobody demanded.
    prefetches: u32,
    releases: Releases,
    link: Link,
    begun: Instant,
}

/// Whether any gateway answers.
#[derive(Default)]
struct Link {
    down: Option<Down>,
}

struct Down {
    since: Instant,
    failures: u32,
    /// One fetch may try again then.
    not_before: Instant,
}

impl Filling {
    fn start_what_may(&mut self) {
        let now = Instant::now();
        let core = Arc::clone(&self.core);
        let mut table = core.table();
        table.forgive(now);
        table.forget_the_gone();
        if let Some(down) = &self.link.down
            && now.duration_since(down.since) >= core.grace
        {
            table.refuse_all(ReadError::Unavailable);
        }
        match &self.link.down {
            Some(down) if now < down.not_before || !self.is_idle() => return,
            // A window, if one is needed, tries the link as well as a block would.
            Some(_) => self.releases.ask(&mut table, 1, now),
            None => self.releases.ask(&mut table, usize::MAX, now),
        }
        loop {
            if self.link.down.is_some() && !self.is_idle() {
                return;
            }
            let under_way = u32::try_from(self.fetches.len()).unwrap_or(u32::MAX);
            let windows = &self.releases.windows;
            let limit = self.concurrency.limit();
            let demand = table.next_demand(windows, now);
            let (block, than) = match demand {
                Some(block) if under_way < (limit + HASTE).min(core.connections) => (block, None),
                Some(_) => return,
                None => {
                    // What nobody asked for holds no more than half of a small cache, and leaves
                    // a connection to those who ask.
                    let most = limit.min(core.store.slots() / 2).min(core.connections - 1).max(1);
                    if under_way >= limit || self.prefetches >= most {
                        return;
                    }
                    let free = core.store.free_slots();
                    match table.next_wish(windows, core.store.slots(), free, now) {
                        Some((block, wanted)) => (block, Some(wanted)),
                        None => return,
                    }
                }
            };
            let Some(info) = core.manifest.block(block) else {
                tracing::error!(block, "a block outside the share was asked for");
                table.set_stale(block);
                continue;
            };
            let Some(slot) = self.slot(&mut table, than) else { return };
            if !core.keys.hold(block) {
                let window = self.releases.windows.of(block);
                self.releases.windows.lost(window);
                core.wake();
                continue;
            }
            self.releases.windows.used(block);
            let resident = Arc::new(Resident::arriving(block, info, slot));
            table.begin(&resident);
            let prefetch = than.is_some();
            self.prefetches += u32::from(prefetch);
            let core = Arc::clone(&core);
            self.fetches.spawn(async move { (fetch::run(core, resident).await, prefetch) });
        }
    }

    /// Nothing is asked of a gateway.
    fn is_idle(&self) -> bool {
        self.fetches.is_empty() && self.releases.len() == 0
    }

    /// A free slot, or one of a block that is wanted later.
    fn slot(&self, table: &mut super::table::Table, than: Option<u64>) -> Option<Slot> {
        loop {
            if let Some(slot) = self.core.store.take() {
                return Some(slot);
            }
            if table.evict(than) {
                continue;
            }
            if than.is_some() {
                return None;
            }
            self.core.set_starved();
            if !table.evict(than) {
                return None;
            }
        }
    }

    async fn wait(&mut self) {
        let core = Arc::clone(&self.core);
        let again = [self.link.down.as_ref().map(|down| down.not_before), core.table().next_try()];
        let again = next_look(Instant::now(), again);
        // Time matters only while something is in trouble or waits; otherwise only events do.
        let pressed = core.table().is_pressed() || self.releases.is_troubled();
        let timed = self.link.down.is_some() || pressed;
        tokio::select! {
            () = core.closed() => {}
            () = core.woken() => {}
            () = core.store.freed() => {}
            () = sleep_until(again), if timed => {}
            Some(fetched) = self.fetches.join_next() => match fetched {
                Ok((fetched, prefetch)) => self.settle(fetched, prefetch),
                Err(why) => tracing::error!(error = %why, "a fetch ended badly"),
            },
            Some(released) = self.releases.next() => self.released(&released),
        }
        while let Some(released) = self.releases.try_next() {
            self.released(&released);
        }
        while let Some(Ok((fetched, prefetch))) = self.fetches.try_join_next() {
            self.settle(fetched, prefetch);
        }
        if self.fetches.is_empty() {
            self.concurrency.idle(self.begun.elapsed());
        }
    }

    fn released(&mut self, released: &Released) {
        let now = Instant::now();
        self.link.heard(released.heard, now);
        let core = Arc::clone(&self.core);
        self.releases.settle(released, &mut core.table(), now);
    }

    fn settle(&mut self, fetched: Fetched, prefetch: bool) {
        let Fetched { resident, outcome, heard, bytes, delay } = fetched;
        self.prefetches -= u32::from(prefetch);
        let now = Instant::now();
        self.link.heard(heard, now);
        let end = match outcome {
            Ok(()) => {
                self.core.table().arrived(resident.block);
                self.core.totals.blocks_fetched.fetch_add(1, Ordering::Relaxed);
                self.concurrency.arrived(self.begun.elapsed(), bytes, delay);
                return;
            }
            Err(end) => end,
        };
        let mut table = self.core.table();
        let stood = table.remove(&resident);
        let end = match end {
            End::Stale => {
                table.set_stale(resident.block);
                end
            }
            // Given up by a reader, or by the close: no fault of the gateway's.
            _ if !stood => end,
            End::Torn
                if now.duration_since(table.failed(resident.block, now)) >= self.core.grace =>
            {
                End::Unavailable
            }
            End::Nonsense | End::Over => {
                table.failed(resident.block, now);
                end
            }
            _ => end,
        };
        drop(table);
        resident.fail(end);
    }
}

/// When to look again if nothing happens. What might have been tried by now waits for something else, such
/// as a fetch under way: only events move that.
fn next_look(now: Instant, tries: [Option<Instant>; 2]) -> Instant {
    let review = now + REVIEW;
    tries.into_iter().flatten().filter(|at| *at > now).fold(review, Instant::min)
}

impl Link {
    fn heard(&mut self, heard: bool, now: Instant) {
        if heard {
            if self.down.take().is_some() {
                tracing::warn!("a gateway answers again");
            }
            return;
        }
        let down = self.down.get_or_insert_with(|| {
            tracing::warn!("no gateway answers; reads of what is not here stall");
            Down { since: now, failures: 0, not_before: now }
        });
        down.not_before = now + pause(down.failures);
        down.failures = down.failures.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_gone_by_do_not_make_the_filling_spin() {
        let now = Instant::now();
        let (past, soon) = (now - REVIEW / 5, now + REVIEW / 5);
        assert_eq!(next_look(now, [Some(past), Some(now)]), now + REVIEW);
        assert_eq!(next_look(now, [Some(past), Some(soon)]), soon);
        assert_eq!(next_look(now, [None, Some(now + REVIEW * 2)]), now + REVIEW);
    }
}
