//! Which windows of keys to have, as pure decisions.
//!
//! Blocks in the cache keep their own keys, so a window must be open only while blocks of it are
//! fetched. One that was passed is closed when others open. One that had to be asked for again shows
//! that readers come back to it, and stays open while there is room: so however they jump about, no
//! window is asked for more than twice, as long as all of the share's windows fit.

use std::collections::HashMap;
use std::ops::Range;

/// Windows that were asked for once, are not needed now, and stay open all the same: readers that
/// walk side by side.
const SPARE: usize = 2;
/// Windows that may be open at once, whatever the memory: the plan's two, and spare ones.
pub const FEWEST: usize = 4;

/// The windows of a share.
#[derive(Debug)]
pub struct Windows {
    share: Range<u32>,
    len: u32,
    most: usize,
    seen: HashMap<u32, Seen>,
    /// Counts uses, to tell recent from old.
    now: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    open: bool,
    /// Times that its keys came.
    came: u32,
    used: u64,
}

impl Windows {
    /// The windows of `len` blocks that tile a share; at most `most` are to be open, and never fewer
    /// than [`FEWEST`].
    pub fn new(share: Range<u32>, len: u32, most: usize) -> Self {
        Self { share, len: len.max(1), most: most.max(FEWEST), seen: HashMap::new(), now: 0 }
    }

    /// The number of a block's window.
    pub fn of(&self, block: u32) -> u32 {
        block / self.len
    }

    /// The blocks of a window.
    pub fn range(&self, window: u32) -> Range<u32> {
        let start = window.saturating_mul(self.len);
        let end = start.saturating_add(self.len).min(self.share.end);
        start.max(self.share.start).min(end)..end
    }

    /// Whether the keys of a block's window are here.
    pub fn is_open(&self, block: u32) -> bool {
        self.seen.get(&self.of(block)).is_some_and(|seen| seen.open)
    }

    /// A block is fetched.
    pub fn used(&mut self, block: u32) {
        self.now += 1;
        let (now, window) = (self.now, self.of(block));
        if let Some(seen) = self.seen.get_mut(&window) {
            seen.used = now;
        }
    }

    /// The keys of a window are not here after all.
    pub fn lost(&mut self, window: u32) {
        if let Some(seen) = self.seen.get_mut(&window) {
            seen.open = false;
        }
    }

    /// The keys of a window have come. Which windows to close for it: none that is needed now.
    pub fn opened(&mut self, window: u32, needed: impl Fn(u32) -> bool) -> Vec<u32> {
        self.now += 1;
        let seen = self.seen.entry(window).or_default();
        *seen = Seen { open: true, came: seen.came.saturating_add(1), used: self.now };

        let open = self.seen.iter().filter(|(_, seen)| seen.open);
        let many = open.clone().count();
        let idle = open.filter(|(other, _)| **other != window && !needed(**other));
        let mut idle: Vec<(u32, Seen)> = idle.map(|(other, seen)| (*other, *seen)).collect();
        idle.sort_unstable_by_key(|(_, seen)| seen.used);
        let (passed, returned): (Vec<_>, Vec<_>) =
            idle.into_iter().partition(|(_, seen)| seen.came < 2);
        let too_many = passed.len().saturating_sub(SPARE);
        let first = passed.into_iter().chain(returned).map(|(other, _)| other);
        let closed: Vec<u32> = first.take(too_many.max(many.saturating_sub(self.most))).collect();
        closed.iter().for_each(|other| self.lost(*other));
        closed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Opens the window of a block unless it is open; true when it had to be asked for.
    fn demand(windows: &mut Windows, block: u32) -> bool {
        let asked = !windows.is_open(block);
        if asked {
            let window = windows.of(block);
            let closed = windows.opened(window, |_| false);
            assert!(!closed.contains(&window));
            assert!(closed.iter().all(|window| !windows.is_open(windows.range(*window).start)));
        }
        windows.used(block);
        asked
    }

    fn open(windows: &Windows) -> usize {
        windows.seen.values().filter(|seen| seen.open).count()
    }

    #[test]
    fn windows_tile_the_share() {
        let windows = Windows::new(5..23, 4, 9);
        let ranges: Vec<_> = (1..=5).map(|window| windows.range(window)).collect();
        assert_eq!(ranges, [5..8, 8..12, 12..16, 16..20, 20..23]);
        assert!((5..23).all(|block| windows.range(windows.of(block)).contains(&block)));
        assert!(windows.range(0).is_empty() && windows.range(9).is_empty());
    }

    #[test]
    fn one_pass_asks_once_for_each_and_keeps_few() {
        let mut windows = Windows::new(0..1000, 10, 1000);
        let asked = (0..1000).filter(|block| demand(&mut windows, *block)).count();
        assert_eq!((asked, open(&windows)), (100, 1 + SPARE));
    }

    #[test]
    fn what_is_needed_is_not_closed() {
        let mut windows = Windows::new(0..1000, 10, FEWEST);
        for window in 0..50 {
            let closed = windows.opened(window, |other| other < 2);
            assert!(!closed.contains(&0) && !closed.contains(&1));
        }
        assert!(windows.is_open(0) && windows.is_open(10) && open(&windows) <= FEWEST);
    }

    #[test]
    fn what_was_lost_is_asked_for_again() {
        let mut windows = Windows::new(0..100, 10, 10);
        assert!(demand(&mut windows, 7) && !demand(&mut windows, 7));
        windows.lost(0);
        assert!(demand(&mut windows, 7));
    }

    proptest! {
        /// However readers jump about, two asks a window are enough where all fit.
        #[test]
        fn jumping_asks_at_most_twice(blocks in prop::collection::vec(0..400_u32, 0..600)) {
            let mut windows = Windows::new(0..400, 10, 40);
            let asked = blocks.iter().filter(|block| demand(&mut windows, **block)).count();
            prop_assert!(asked <= 80, "{} asks for 40 windows", asked);
        }

        /// And where they do not fit, no more are open than may be.
        #[test]
        fn no_more_are_open_than_may_be(
            blocks in prop::collection::vec(0..400_u32, 0..600), most in 0..20_usize,
        ) {
            let mut windows = Windows::new(0..400, 10, most);
            for block in blocks {
                demand(&mut windows, block);
                prop_assert!(open(&windows) <= most.max(FEWEST));
            }
        }
    }
}
