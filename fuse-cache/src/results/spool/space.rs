//! Which pages of the spool are taken. Pure.
//!
//! The spool is cut into slots, each as large as a sealed block of the largest size. Such a block takes
//! a slot for itself; smaller ones share slots, so that thousands of small files in flight take little
//! more of the disk than they are long.

use std::collections::BTreeSet;

/// Plain page of the disk, bytes.
pub(in crate::results) const PAGE: usize = 4096;

/// Pages of a slot.
pub(super) const SLOT_PAGES: u32 = 257;

/// A bit for each page of a shared slot.
const WORDS: usize = (SLOT_PAGES as usize).div_ceil(64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Free,
    Whole,
    Shared([u64; WORDS]),
}

/// Slots and their pages.
pub(super) struct Space {
    slots: Vec<Use>,
    free: BTreeSet<u32>,
    /// Shared slots that may have room.
    shared: BTreeSet<u32>,
    most: u32,
}

impl Space {
    pub(super) fn new(most: u32) -> Self {
        Self { slots: Vec::new(), free: BTreeSet::new(), shared: BTreeSet::new(), most }
    }

    /// Slots that were ever taken: those below this number.
    pub(super) fn slots(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    /// The slot that the next whole block takes, if there is one.
    fn next_slot(&self) -> Option<u32> {
        let new = self.slots();
        self.free.first().copied().or_else(|| (new < self.most).then_some(new))
    }

    /// First page of a run of pages.
    pub(super) fn take(&mut self, pages: u32) -> Option<u32> {
        if pages == 0 || pages > SLOT_PAGES {
            return None;
        }
        if pages == SLOT_PAGES {
            let slot = self.next_slot()?;
            self.begin(slot, Use::Whole);
            return Some(slot * SLOT_PAGES);
        }
        let known = self.shared.iter().find_map(|slot| Some((*slot, self.gap(*slot, pages)?)));
        let (slot, at) = match known {
            Some(found) => found,
            None => {
                let slot = self.next_slot()?;
                self.begin(slot, Use::Shared([0; WORDS]));
                self.shared.insert(slot);
                (slot, 0)
            }
        };
        self.mark(slot, at, pages, true);
        Some(slot * SLOT_PAGES + at)
    }

    /// Takes a run that another worker had taken. False: it is taken already or lies outside.
    pub(super) fn adopt(&mut self, first: u32, pages: u32) -> bool {
        let (slot, at) = (first / SLOT_PAGES, first % SLOT_PAGES);
        if pages == 0 || at + pages > SLOT_PAGES || slot >= self.most {
            return false;
        }
        while self.slots() <= slot {
            self.free.insert(self.slots());
            self.slots.push(Use::Free);
        }
        match self.slots[slot as usize] {
            Use::Free if pages == SLOT_PAGES => self.begin(slot, Use::Whole),
            Use::Free => {
                self.begin(slot, Use::Shared([0; WORDS]));
                self.shared.insert(slot);
                self.mark(slot, at, pages, true);
            }
            Use::Shared(bits) if (at..at + pages).all(|page| !is_set(&bits, page)) => {
                self.mark(slot, at, pages, true);
            }
            Use::Shared(_) | Use::Whole => return false,
        }
        true
    }

    pub(super) fn give_back(&mut self, first: u32, pages: u32) {
        let (slot, at) = (first / SLOT_PAGES, first % SLOT_PAGES);
        if pages < SLOT_PAGES {
            self.mark(slot, at, pages, false);
        }
        let empty = match self.slots[slot as usize] {
            Use::Shared(bits) => bits == [0; WORDS],
            Use::Whole | Use::Free => true,
        };
        if empty {
            self.slots[slot as usize] = Use::Free;
            self.free.insert(slot);
            self.shared.remove(&slot);
        } else {
            self.shared.insert(slot);
        }
    }

    /// Slots in use.
    pub(super) fn used(&self) -> u32 {
        self.slots() - u32::try_from(self.free.len()).unwrap_or(u32::MAX)
    }

    fn begin(&mut self, slot: u32, how: Use) {
        self.free.remove(&slot);
        if slot == self.slots() {
            self.slots.push(how);
        } else {
            self.slots[slot as usize] = how;
        }
    }

    fn mark(&mut self, slot: u32, at: u32, pages: u32, taken: bool) {
        if let Use::Shared(bits) = &mut self.slots[slot as usize] {
            for page in at..at + pages {
                let (word, bit) = (page as usize / 64, 1 << (page % 64));
                if taken {
                    bits[word] |= bit;
                } else {
                    bits[word] &= !bit;
                }
            }
        }
    }

    /// Where a shared slot has so many pages free.
    fn gap(&self, slot: u32, pages: u32) -> Option<u32> {
        let Use::Shared(bits) = &self.slots[slot as usize] else { return None };
        let mut run = 0;
        for page in 0..SLOT_PAGES {
            run = if is_set(bits, page) { 0 } else { run + 1 };
            if run == pages {
                return Some(page + 1 - pages);
            }
        }
        None
    }
}

fn is_set(bits: &[u64; WORDS], page: u32) -> bool {
    bits[page as usize / 64] & (1 << (page % 64)) != 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Runs are apart, within their slot, and all space comes back.
        #[test]
        fn no_page_is_given_twice(
            steps in prop::collection::vec((any::<bool>(), 1..=SLOT_PAGES, any::<prop::sample::Index>()), 1..200)
        ) {
            let mut space = Space::new(8);
            let mut held: Vec<(u32, u32)> = Vec::new();
            for (take, pages, which) in steps {
                if take {
                    if let Some(first) = space.take(pages) {
                        prop_assert_eq!(first / SLOT_PAGES, (first + pages - 1) / SLOT_PAGES);
                        prop_assert!(first / SLOT_PAGES < 8);
                        for (other, len) in &held {
                            prop_assert!(first + pages <= *other || other + len <= first);
                        }
                        held.push((first, pages));
                    } else {
                        prop_assert_eq!(space.used(), 8, "refused while a slot was free");
                    }
                } else if !held.is_empty() {
                    let (first, pages) = held.swap_remove(which.index(held.len()));
                    space.give_back(first, pages);
                }
            }
            // A worker that comes after takes up the same.
            let mut successor = Space::new(8);
            for (first, pages) in &held {
                prop_assert!(successor.adopt(*first, *pages));
                prop_assert!(!successor.adopt(*first, *pages));
            }
            prop_assert_eq!(successor.used(), space.used());
            for (first, pages) in held {
                space.give_back(first, pages);
            }
            prop_assert_eq!(space.used(), 0);
        }
    }

    #[test]
    fn small_ones_share_a_slot() {
        let mut space = Space::new(2);
        let firsts: Vec<_> = (0..42).map(|_| space.take(6).unwrap()).collect();
        assert_eq!(space.used(), 1);
        assert!(space.take(6).is_some_and(|first| first >= SLOT_PAGES));
        assert_eq!(space.take(SLOT_PAGES), None);
        for first in firsts {
            space.give_back(first, 6);
        }
        assert_eq!(space.take(SLOT_PAGES), Some(0));
    }
}
