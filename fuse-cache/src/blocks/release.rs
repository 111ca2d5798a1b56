//! Windows of keys from the gateway: which to ask for, and what becomes of the answer.
//!
//! One request a window at a time, whoever waits for it.

use std::collections::HashSet;
use std::sync::Arc;

use tidegate_wire::ProblemKind;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::ReadError;
use super::core::Core;
use super::table::Table;
use super::trouble::Troubles;
use crate::client::ClientError;
use crate::schedule::Windows;

/// Releases under way at once.
const AT_ONCE: usize = 4;

/// How asking for a window went.
pub(super) struct Released {
    window: u32,
    outcome: Result<(), Refusal>,
    /// A gateway answered, whatever it said.
    pub(super) heard: bool,
}

/// Why there are no keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// Asking again may help.
    Torn,
    Over,
}

pub(super) struct Releases {
    core: Arc<Core>,
    pub(super) windows: Windows,
    under_way: JoinSet<Released>,
    asked: HashSet<u32>,
    troubles: Troubles,
}

impl Releases {
    /// Knows of what the ring has open already.
    pub(super) fn new(core: Arc<Core>) -> Self {
        let terms = core.client.terms();
        let share = terms.first_block..terms.end_block;
        let mut windows = Windows::new(share, terms.window_blocks, core.open_windows);
        for open in core.keys.windows() {
            windows.opened(windows.of(open.start), |_| true);
        }
        Self {
            core,
            windows,
            under_way: JoinSet::new(),
            asked: HashSet::new(),
            troubles: Troubles::default(),
        }
    }

    /// Asks for the windows that readers wait for, and then for those that will be needed; no more
    /// than `most` are under way.
    pub(super) fn ask(&mut self, table: &mut Table, most: usize, now: Instant) {
        let awaited: HashSet<u32> = table.awaited().map(|block| self.windows.of(block)).collect();
        self.troubles.forgive(now, |window| awaited.contains(&window), |_| ());
        let most = most.min(AT_ONCE);
        let locked = |block: &u32| table.is_locked(*block) || !self.windows.is_open(*block);
        let wanted: Vec<u32> = table.awaited().filter(locked).collect();
        for block in wanted {
            self.ask_for(block, most, now);
        }
        let (slots, free) = (self.core.store.slots(), self.core.store.free_slots());
        if let Some(block) = table.next_lock(&self.windows, slots, free, now) {
            self.ask_for(block, most, now);
        }
    }

    fn ask_for(&mut self, block: u32, most: usize, now: Instant) {
        let window = self.windows.of(block);
        if self.under_way.len() >= most
            || !self.troubles.may_try(window, now)
            || !self.asked.insert(window)
        {
            return;
        }
        let (core, range) = (Arc::clone(&self.core), self.windows.range(window));
        self.under_way.spawn(async move {
            let answer = tokio::select! {
                answer = core.client.keys(range.clone()) => answer,
                () = core.closed() => {
                    return Released { window, outcome: Err(Refusal::Over), heard: true };
                }
            };
            let Err(error) = answer else { return Released { window, outcome: Ok(()), heard: true } };
            let heard = !matches!(error, ClientError::Unreachable(_) | ClientError::Untrusted(_));
            let refusal = match error.refusal() {
                Some(
                    ProblemKind::LeaseOver | ProblemKind::Forbidden | ProblemKind::Unauthenticated,
                ) => Refusal::Over,
                _ => Refusal::Torn,
            };
            tracing::warn!(first = range.start, end = range.end, %error, "no keys for these blocks");
            Released { window, outcome: Err(refusal), heard }
        });
    }

    /// Releases under way.
    pub(super) fn len(&self) -> usize {
        self.under_way.len()
    }

    /// Whether a window is to be asked for again after a while.
    pub(super) fn is_troubled(&self) -> bool {
        !self.troubles.is_empty()
    }

    /// The next answer; `None` at once when none is under way.
    pub(super) async fn next(&mut self) -> Option<Released> {
        loop {
            match self.under_way.join_next().await? {
                Ok(released) => return Some(released),
                Err(why) => tracing::error!(error = %why, "a release ended badly"),
            }
        }
    }

    /// Another answer that has come already.
    pub(super) fn try_next(&mut self) -> Option<Released> {
        self.under_way.try_join_next()?.ok()
    }

    /// Gives the keys to those who wait, and closes windows that are no longer needed.
    pub(super) fn settle(&mut self, released: &Released, table: &mut Table, now: Instant) {
        let window = released.window;
        self.asked.remove(&window);
        let range = self.windows.range(window);
        match released.outcome {
            Ok(()) => {
                self.troubles.over(window);
                let plan = self.windows.of(table.schedule.filled());
                let awaited: HashSet<u32> =
                    table.awaited().map(|block| self.windows.of(block)).collect();
                let needed =
                    |other: u32| awaited.contains(&other) || other == plan || other == plan + 1;
                for closed in self.windows.opened(window, needed) {
                    self.core.keys.close(&self.windows.range(closed));
                }
                table.unlocked(&range, Ok(()));
            }
            Err(Refusal::Over) => {
                self.troubles.failed(window, now);
                table.unlocked(&range, Err(ReadError::LeaseOver));
            }
            Err(Refusal::Torn) => {
                let since = self.troubles.failed(window, now);
                if now.duration_since(since) >= self.core.grace {
                    table.unlocked(&range, Err(ReadError::Unavailable));
                }
            }
        }
    }
}
