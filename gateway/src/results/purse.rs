//! What a lease may still bring home, as this process has it in hand.
//!
//! The budget lies in the lease's document, of which slices are reserved before they are used: so neither
//! a crash nor another replica ever gives more than was granted. What a crash leaves of a slice is lost to
//! the lease: at most a part in 64 of its budget each time, and never much, so that a process which is killed
//! again and again does not use the budget up.

use std::sync::{Mutex, PoisonError};

/// Slices of a budget, at least.
const SLICES: u64 = 64;
/// The most that a slice has unless one file needs more: a second of a fast link.
const SLICE_MOST: Share = Share { bytes: 1 << 30, files: 1024 };

/// Bytes and files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) bytes: u64,
    pub(crate) files: u64,
}

impl Share {
    const fn covers(self, need: Self) -> bool {
        self.bytes >= need.bytes && self.files >= need.files
    }

    pub(crate) const fn plus(self, more: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(more.bytes),
            files: self.files.saturating_add(more.files),
        }
    }

    pub(crate) const fn less(self, taken: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(taken.bytes),
            files: self.files.saturating_sub(taken.files),
        }
    }

    /// What to reserve next of a budget of `most` of which `reserved` is gone, so that `need` is met
    /// with what is in hand; `None` when the budget does not have it.
    pub(crate) fn slice(most: Self, reserved: Self, in_hand: Self, need: Self) -> Option<Self> {
        let (left, lack) = (most.less(reserved), need.less(in_hand));
        let one = |most: u64, left: u64, lack: u64, at_most: u64| match lack {
            0 => 0,
            lack => lack.max(most.div_ceil(SLICES).min(at_most)).min(left),
        };
        left.covers(lack).then(|| Self {
            bytes: one(most.bytes, left.bytes, lack.bytes, SLICE_MOST.bytes),
            files: one(most.files, left.files, lack.files, SLICE_MOST.files),
        })
    }
}

/// What is reserved and not used.
#[derive(Debug, Default)]
pub(crate) struct Purse(Mutex<Share>);

impl Purse {
    fn lock(&self) -> std::sync::MutexGuard<'_, Share> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what is needed, if there is so much.
    pub(crate) fn take(&self, need: Share) -> bool {
        let mut held = self.lock();
        let covers = held.covers(need);
        if covers {
            *held = held.less(need);
        }
        covers
    }

    /// Puts a slice in, or back what was taken and did not come home.
    pub(crate) fn put(&self, more: Share) {
        let mut held = self.lock();
        *held = held.plus(more);
    }

    pub(crate) fn held(&self) -> Share {
        *self.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn share(bytes: u64, files: u64) -> Share {
        Share { bytes, files }
    }

    #[test]
    fn a_budget_is_reserved_in_slices_and_never_exceeded() {
        let most = share(6400, 10);
        let (purse, mut reserved) = (Purse::default(), Share::default());
        let (mut used, mut slices) = (Share::default(), 0);
        loop {
            let need = share(7, 0);
            if !purse.take(need) {
                let Some(slice) = Share::slice(most, reserved, purse.held(), need) else { break };
                reserved = reserved.plus(slice);
                purse.put(slice);
                slices += 1;
                assert!(purse.take(need));
            }
            used = used.plus(need);
        }
        assert!(reserved.bytes <= most.bytes && used.bytes <= most.bytes);
        assert!(most.bytes - used.bytes < 7, "{used:?}");
        assert!(slices <= SLICES + 1, "{slices}");
        assert_eq!(reserved.files, 0, "what is not needed is not reserved");
    }

    #[test]
    fn what_is_larger_than_a_slice_is_reserved_whole_or_not_at_all() {
        let most = share(1000, 2);
        assert_eq!(
            Share::slice(most, Share::default(), Share::default(), share(900, 1)),
            Some(share(900, 1))
        );
        assert_eq!(Share::slice(most, share(200, 0), Share::default(), share(900, 1)), None);
        assert_eq!(
            Share::slice(most, share(200, 0), share(100, 0), share(900, 1)),
            Some(share(800, 1))
        );
        assert_eq!(Share::slice(most, share(0, 2), Share::default(), share(0, 1)), None);
        let large = share(1 << 50, 1 << 30);
        let slice = Share::slice(large, Share::default(), Share::default(), share(1, 1));
        assert_eq!(slice, Some(SLICE_MOST));
    }
}
