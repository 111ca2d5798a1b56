//! Refusals of callers we know, on their way to the ledger: the first at once, the rest summed.
//!
//! A caller with a valid credential could otherwise make the ledger grow as fast as it can ask.
//! Strangers are only counted.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tidegate_ledger::Event;
use tidegate_plan::LeaseId;

/// Seconds for which refusals of one lease and reason make one entry.
const SPAN_S: u64 = 60;
/// Leases × reasons remembered; beyond that they are summed without a lease.
const KNOWN_MAX: usize = 8192;

#[derive(Clone, Copy, Debug)]
struct Span {
    ends: u64,
    waiting: u64,
}

/// Why an identified caller was refused, as the ledger says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reason {
    /// A certificate of another lease.
    ForeignLease,
    /// The attachment is not the newest of its rank.
    Fenced,
    /// The lease is closed, revoked or past its deadline.
    LeaseOver,
    /// A node that this gateway's policy does not allow.
    Node,
    /// Blocks outside the share.
    OutsideShare,
    /// More results than the lease may bring home.
    ResultsBudget,
    /// The home of results is full.
    ResultsNoSpace,
    /// The token belongs to another identity.
    TokenBound,
    /// More keys at once than a release hands out.
    TooWide,
    /// A wipe statement that does not hold.
    Statement,
}

impl Reason {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::ForeignLease => "foreign-lease",
            Self::Fenced => "fenced",
            Self::LeaseOver => "lease-over",
            Self::Node => "node",
            Self::OutsideShare => "outside-share",
            Self::ResultsBudget => "results-budget",
            Self::ResultsNoSpace => "results-no-space",
            Self::TokenBound => "token-bound",
            Self::TooWide => "window-too-wide",
            Self::Statement => "statement",
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Refusals {
    spans: Mutex<HashMap<(Option<LeaseId>, Reason), Span>>,
    strangers: AtomicU64,
}

fn entry(lease: Option<LeaseId>, reason: Reason, count: u64) -> Event {
    Event::Refused { lease, reason: reason.as_str().to_owned(), count }
}

impl Refusals {
    /// Counts a refusal; returns the entry to write when it is the first of its span.
    pub(crate) fn note(&self, lease: LeaseId, reason: Reason, now: u64) -> Option<Event> {
        let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = (Some(lease), reason);
        if spans.len() >= KNOWN_MAX && !spans.contains_key(&key) {
            key.0 = None;
        }
        match spans.get_mut(&key) {
            Some(span) => {
                span.waiting += 1;
                None
            }
            None => {
                spans.insert(key, Span { ends: now + SPAN_S, waiting: 0 });
                Some(entry(key.0, reason, 1))
            }
        }
    }

    /// Ends the spans that are over (all of them when `now` is `None`); returns their sums.
    pub(crate) fn due(&self, now: Option<u64>) -> Vec<Event> {
        let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sums = Vec::new();
        spans.retain(|(lease, reason), span| {
            if now.is_some_and(|now| span.ends > now) {
                return true;
            }
            if span.waiting > 0 {
                sums.push(entry(*lease, *reason, span.waiting));
            }
            false
        });
        sums
    }

    /// Counts a caller who proved nothing.
    pub(crate) fn stranger(&self) {
        self.strangers.fetch_add(1, Ordering::Relaxed);
        crate::meters::STRANGERS.add(1);
    }

    /// Strangers refused since the start.
    pub(crate) fn strangers(&self) -> u64 {
        self.strangers.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(event: &Event) -> u64 {
        match event {
            Event::Refused { count, .. } => *count,
            _ => 0,
        }
    }

    #[test]
    fn a_flood_makes_two_entries_and_loses_no_count() {
        let refusals = Refusals::default();
        let lease = LeaseId::from_bytes([1; 16]);
        let written: Vec<_> =
            (0..1000).filter_map(|_| refusals.note(lease, Reason::OutsideShare, 10)).collect();
        assert_eq!(written.len(), 1);
        assert!(refusals.due(Some(10)).is_empty());
        let sums = refusals.due(Some(10 + SPAN_S));
        assert_eq!(sums.len(), 1);
        assert_eq!(count(&written[0]) + count(&sums[0]), 1000);
        assert!(refusals.due(None).is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let refusals = Refusals::default();
        for n in 0..2 * KNOWN_MAX as u64 {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&n.to_be_bytes());
            refusals.note(LeaseId::from_bytes(id), Reason::Fenced, 0);
        }
        let sums = refusals.due(None);
        assert_eq!(sums.len(), 1);
        assert_eq!(count(&sums[0]), KNOWN_MAX as u64 - 1);
    }
}
