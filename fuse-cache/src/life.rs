//! The dead-man's switch of one attachment: how long its keys may be used without word from home.
//!
//! Both ends of it lie on the boot clock, which runs on in suspend and which nobody sets: a machine that
//! wakes after its time serves nothing, and a wall clock that jumps changes nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidegate_kit::clock::BootClock;

/// Why keys must not be used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Past {
    /// The lease's deadline has come.
    Deadline,
    /// No gateway was heard for the grace. It may be heard again.
    Grace,
}

/// Until when one attachment may use its keys.
#[derive(Debug)]
pub struct Life {
    clock: BootClock,
    grace: Duration,
    /// End of the lease on the boot clock.
    ends: Duration,
    /// End of the grace on the boot clock, nanoseconds.
    silent: AtomicU64,
}

impl Life {
    /// A gateway was heard by what was asked of it at `asked`, and the lease lasts for `left` from then.
    pub fn new(clock: BootClock, asked: Duration, grace: Duration, left: Duration) -> Self {
        let silent = AtomicU64::new(nanos(asked + grace));
        Self { clock, grace, ends: asked.saturating_add(left), silent }
    }

    /// The boot clock's time, as this life counts it.
    pub fn now(&self) -> Duration {
        self.clock.now()
    }

    /// A gateway has answered what was asked at `asked`: it had not given us up before that.
    pub fn heard(&self, asked: Duration) {
        self.silent.fetch_max(nanos(asked + self.grace), Ordering::SeqCst);
    }

    /// When this life ends if nothing more is heard, on the boot clock.
    pub fn until(&self) -> Duration {
        Duration::from_nanos(self.silent.load(Ordering::SeqCst)).min(self.ends)
    }

    /// The lease's end on the boot clock.
    pub fn ends(&self) -> Duration {
        self.ends
    }

    /// What has ended it, if anything has by now.
    pub fn past(&self) -> Option<Past> {
        let now = self.now();
        if now >= self.ends {
            return Some(Past::Deadline);
        }
        (now >= self.until()).then_some(Past::Grace)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Asked 100 s after boot, a grace of 10 s, a lease of 60 s.
    fn life() -> (Life, Arc<AtomicU64>) {
        let hands = Arc::new(AtomicU64::new(nanos(100 * SECOND)));
        let clock = BootClock::Hands(Arc::clone(&hands));
        (Life::new(clock, 100 * SECOND, 10 * SECOND, 60 * SECOND), hands)
    }

    fn set(hands: &AtomicU64, seconds: f64) {
        hands.store(nanos(Duration::from_secs_f64(seconds)), Ordering::SeqCst);
    }

    #[test]
    fn silence_ends_it_and_a_word_in_time_moves_the_end() {
        let (life, hands) = life();
        set(&hands, 109.9);
        assert_eq!(life.past(), None);
        life.heard(105 * SECOND);
        life.heard(103 * SECOND);
        set(&hands, 114.9);
        assert_eq!(life.past(), None, "an older word takes nothing back");
        set(&hands, 115.0);
        assert_eq!((life.past(), life.until()), (Some(Past::Grace), 115 * SECOND));
    }

    #[test]
    fn the_deadline_ends_it_whatever_is_heard() {
        let (life, hands) = life();
        life.heard(159 * SECOND);
        set(&hands, 159.9);
        assert_eq!((life.past(), life.until()), (None, 160 * SECOND));
        set(&hands, 160.0);
        assert_eq!(life.past(), Some(Past::Deadline));
        life.heard(160 * SECOND);
        assert_eq!(life.past(), Some(Past::Deadline));
    }

    #[test]
    fn a_machine_that_slept_past_its_time_wakes_without_keys() {
        let (life, hands) = life();
        set(&hands, 100.0 + 8.0 * 3600.0);
        assert_eq!(life.past(), Some(Past::Deadline));
    }

    #[test]
    fn an_answer_counts_from_when_it_was_asked() {
        let (life, hands) = life();
        set(&hands, 130.0);
        life.heard(101 * SECOND);
        assert_eq!(life.past(), Some(Past::Grace), "asked before the suspend, answered after it");
    }
}
