//! The two clocks. Wall time goes into records; deadlines run on the boot clock, which counts
//! through suspend where tokio's and std's clocks stop.
//!
//! Programs that must also run against other clocks, a simulation's say, are given a [`Clock`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::thread::clock_nanosleep_absolute;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// Both clocks as a value.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Wall time in whole seconds since the Unix epoch.
    fn now_unix(&self) -> u64;

    /// Time since boot, suspend included.
    fn boottime(&self) -> Duration;
}

/// The clocks of this machine.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_unix(&self) -> u64 {
        now_unix()
    }

    fn boottime(&self) -> Duration {
        boottime()
    }
}

/// Wall time in whole seconds since the Unix epoch; 0 when the clock stands before it.
pub fn now_unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Time since boot, suspend included (`CLOCK_BOOTTIME`).
pub fn boottime() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(
        u64::try_from(now.tv_sec).unwrap_or_default(),
        u32::try_from(now.tv_nsec).unwrap_or_default(),
    )
}

/// Blocks the thread until the boot clock stands at `at`. A machine that was suspended past it goes on
/// at once when it wakes.
pub fn sleep_until(at: Duration) {
    let at = Timespec {
        tv_sec: i64::try_from(at.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: at.subsec_nanos().into(),
    };
    while clock_nanosleep_absolute(ClockId::Boottime, &at) == Err(rustix::io::Errno::INTR) {}
}

/// Where a deadline takes the time from: the boot clock, or hands that a test moves.
#[derive(Clone, Debug, Default)]
pub enum BootClock {
    #[default]
    Real,
    /// Nanoseconds since boot.
    Hands(Arc<AtomicU64>),
}

impl BootClock {
    /// Time since boot, suspend included.
    pub fn now(&self) -> Duration {
        match self {
            Self::Real => boottime(),
            Self::Hands(nanos) => Duration::from_nanos(nanos.load(Ordering::SeqCst)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_clock_never_runs_backwards() {
        let first = boottime();
        assert!(first > Duration::ZERO && boottime() >= first);
        assert!(now_unix() > 1_700_000_000);
    }

    #[test]
    fn a_sleep_ends_when_it_should_and_not_before() {
        let at = boottime() + Duration::from_millis(20);
        sleep_until(at);
        assert!(boottime() >= at);
        sleep_until(Duration::ZERO);
    }
}
