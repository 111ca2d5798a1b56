//! Leases that strangers name and this gateway does not serve: what looking for them may cost.
//!
//! Another replica may have granted such a lease, so the state is asked. But whoever asks has proved
//! nothing yet. So looks are few a second over all callers, the same lease is not looked for again at
//! once, and that the state is away is said in the log now and then.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidegate_plan::LeaseId;

/// Looks a second, and at once. The workers of a large job come for one lease together, which needs one.
const LOOKS: u32 = 32;
/// For how long what was found is taken for granted; a worker asks again every second.
const HOLD: Duration = Duration::from_secs(5);
/// Between two lines of log about a state that is away.
const LINES: Duration = Duration::from_secs(10);

/// What is known of a lease that is not served here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// There was none, or it could not be taken up.
    Absent,
    /// The state could not be read.
    Unread,
    /// Nothing, and it is not the time to look.
    TooMany,
}

#[derive(Debug, Default)]
pub(crate) struct Lookups(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// No more of them than looks in [`HOLD`].
    found: HashMap<LeaseId, (Duration, Known)>,
    /// Looks under way, each with the turn of those who came for the same lease.
    under_way: HashMap<LeaseId, Turn>,
    /// Time until which looks are used up.
    spent: Duration,
    last_line: Option<Duration>,
}

/// Whoever holds it looks; the others wait for what comes of it.
type Turn = Arc<tokio::sync::Mutex<()>>;

/// A look that is under way.
#[derive(Debug)]
pub(crate) struct Look<'a> {
    lookups: &'a Lookups,
    lease: LeaseId,
    turn: Turn,
}

impl Look<'_> {
    /// Waits for those who came before for the same lease.
    pub(crate) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }
}

impl Drop for Look<'_> {
    fn drop(&mut self) {
        let mut inner = self.lookups.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The map's and ours.
        if Arc::strong_count(&self.turn) <= 2 {
            inner.under_way.remove(&self.lease);
        }
    }
}

impl Lookups {
    /// Counts a look at `now` on the boot clock, or says why there is none to be taken. Who comes for
    /// a lease that is being looked for waits for the same.
    pub(crate) fn begin(&self, lease: LeaseId, now: Duration) -> Result<Look<'_>, Known> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.found.retain(|_, (at, _)| now < *at + HOLD);
        if let Some((_, known)) = inner.found.get(&lease) {
            return Err(*known);
        }
        if !inner.under_way.contains_key(&lease) {
            let each = Duration::from_secs(1) / LOOKS;
            if inner.spent > now + each * (LOOKS - 1) {
                return Err(Known::TooMany);
            }
            inner.spent = inner.spent.max(now) + each;
        }
        let turn = Arc::clone(inner.under_way.entry(lease).or_default());
        Ok(Look { lookups: self, lease, turn })
    }

    /// What another look has found within the last seconds.
    pub(crate) fn known(&self, lease: LeaseId, now: Duration) -> Option<Known> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.found.get(&lease).filter(|(at, _)| now < *at + HOLD).map(|(_, known)| *known)
    }

    /// Notes what came of a look that found nothing to serve.
    pub(crate) fn note(&self, lease: LeaseId, known: Known, now: Duration) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).found.insert(lease, (now, known));
    }

    /// Whether the log is to say now that the state is away.
    pub(crate) fn says(&self, now: Duration) -> bool {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = inner.last_line.is_none_or(|last| now >= last + LINES);
        if due {
            inner.last_line = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn lease(n: u32) -> LeaseId {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&n.to_be_bytes());
        LeaseId::from_bytes(id)
    }

    #[test]
    fn looks_are_few_whatever_leases_are_named() {
        let lookups = Lookups::default();
        let looks = |from: u32, now| {
            let named = from..from + 1000;
            let looks = named.map(|n| (lookups.begin(lease(n), now), lease(n)));
            let taken = looks.filter(|(look, id)| {
                assert!(matches!(look, Ok(_) | Err(Known::TooMany)));
                lookups.note(*id, Known::Absent, now);
                look.is_ok()
            });
            taken.count()
        };
        assert_eq!(looks(0, 100 * SECOND), 32);
        assert_eq!(looks(1000, 101 * SECOND), 32);
        assert_eq!(looks(2000, 101 * SECOND), 0);
    }

    #[test]
    fn what_was_found_holds_for_a_while() {
        let lookups = Lookups::default();
        let cases = [(100, Known::Absent), (200, Known::Unread)];
        for (at, known) in cases {
            let (id, now) = (lease(at), at * SECOND);
            assert!(lookups.begin(id, now).is_ok());
            lookups.note(id, known, now);
            assert_eq!(lookups.begin(id, now + HOLD - SECOND).unwrap_err(), known);
            assert!(lookups.begin(id, now + HOLD).is_ok());
        }
        let inner = lookups.0.lock().unwrap();
        assert!(inner.found.is_empty() && inner.under_way.is_empty(), "nothing is kept");
    }

    #[test]
    fn who_comes_for_the_same_lease_waits_for_the_same_look() {
        let (lookups, now) = (Lookups::default(), 100 * SECOND);
        let looks: Vec<_> = (0..1000).map(|_| lookups.begin(lease(7), now).unwrap()).collect();
        let others = (100..1000).filter(|n| lookups.begin(lease(*n), now).is_ok()).count();
        assert_eq!(others, 31, "it was one look");
        drop(looks);
        assert!(lookups.0.lock().unwrap().under_way.is_empty());
    }

    #[test]
    fn a_state_that_is_away_is_said_now_and_then() {
        let lookups = Lookups::default();
        let said: Vec<bool> = (0..=20).map(|n| lookups.says(n * SECOND)).collect();
        let lines: Vec<usize> = (0..said.len()).filter(|n| said[*n]).collect();
        assert_eq!(lines, [0, 10, 20]);
    }
}
