//! The two clocks. Wall time goes into records; deadlines run on the boot clock, which counts
//! through suspend where tokio's and std's clocks stop.
//!
//! Programs that must also run against other clocks, a simulation's say, are given a [`Clock`].

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_clock_never_runs_backwards() {
        let first = boottime();
        assert!(first > Duration::ZERO && boottime() >= first);
        assert!(now_unix() > 1_700_000_000);
    }
}
