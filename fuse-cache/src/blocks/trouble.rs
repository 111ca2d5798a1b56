//! What could not be had from the gateway, and when to ask for it again.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// First pause before something is asked for again, doubled up to [`LONGEST`].
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(2);

/// Blocks, or windows of keys, by number.
#[derive(Default)]
pub(super) struct Troubles(HashMap<u32, Trouble>);

struct Trouble {
    since: Instant,
    failures: u32,
    not_before: Instant,
}

impl Troubles {
    /// Notes that asking failed; returns since when it does.
    pub(super) fn failed(&mut self, number: u32, now: Instant) -> Instant {
        let trouble =
            self.0.entry(number).or_insert(Trouble { since: now, failures: 0, not_before: now });
        trouble.not_before = now + pause(trouble.failures);
        trouble.failures = trouble.failures.saturating_add(1);
        trouble.since
    }

    pub(super) fn over(&mut self, number: u32) {
        self.0.remove(&number);
    }

    pub(super) fn contains(&self, number: u32) -> bool {
        self.0.contains_key(&number)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn may_try(&self, number: u32, now: Instant) -> bool {
        self.0.get(&number).is_none_or(|trouble| trouble.not_before <= now)
    }

    /// When the first of these may be tried that are in trouble.
    pub(super) fn next_try(&self, numbers: impl Iterator<Item = u32>) -> Option<Instant> {
        numbers.filter_map(|number| self.0.get(&number)).map(|trouble| trouble.not_before).min()
    }

    /// Forgets those that nobody waits for, once their pause is over; tells which.
    pub(super) fn forgive(
        &mut self,
        now: Instant,
        awaited: impl Fn(u32) -> bool,
        mut forgiven: impl FnMut(u32),
    ) {
        self.0.retain(|number, trouble| {
            let keep = awaited(*number) || now < trouble.not_before + LONGEST;
            if !keep {
                forgiven(*number);
            }
            keep
        });
    }
}

/// The pause after so many failures before.
pub(super) fn pause(failures: u32) -> Duration {
    PAUSE.saturating_mul(1 << failures.min(6)).min(LONGEST)
}
