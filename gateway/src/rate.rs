//! Bytes a second over all workers, as one virtual queue (generic cell rate algorithm).

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Idle time that may be caught up on: a short burst at full speed.
const BURST: Duration = Duration::from_millis(100);

/// The moment until which the allowance is spent, moved on by every send.
#[derive(Debug)]
pub(crate) struct Rate {
    bytes_per_s: u64,
    spent_until: Mutex<Instant>,
}

impl Rate {
    pub(crate) fn new(bytes_per_s: u64) -> Self {
        Self { bytes_per_s: bytes_per_s.max(1), spent_until: Mutex::new(Instant::now()) }
    }

    /// Books `bytes` at `now` and returns how long to wait before sending them.
    fn book(&self, bytes: u64, now: Instant) -> Duration {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_s);
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let mut spent_until = self.spent_until.lock().unwrap_or_else(PoisonError::into_inner);
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let start = (*spent_until).max(earliest);
        *spent_until = start + cost;
        start.saturating_duration_since(now)
    }

    /// Waits until `bytes` may be sent.
    pub(crate) async fn take(&self, bytes: u64) {
        let wait = self.book(bytes, Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_of_bytes_takes_a_second() {
        let rate = Rate::new(1000);
        let start = Instant::now();
        let waits: Vec<_> = (0..10).map(|_| rate.book(100, start)).collect();
        assert!(waits.is_sorted());
        let last = *waits.last().unwrap();
        assert!(
            last > Duration::from_millis(700) && last <= Duration::from_millis(900),
            "{last:?}"
        );
        assert_eq!(rate.book(1, start + Duration::from_secs(60)), Duration::ZERO);
    }
}
