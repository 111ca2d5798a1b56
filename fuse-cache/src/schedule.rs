//! What to fetch next and what to let go, as pure decisions: block numbers in, block numbers out.
//!
//! The plan is the share's block order. On top of it every open file has [`cursor`]s that tell
//! where it reads and in what steps, and one more set over all files sees readers that walk from
//! file to file. From them follows for each block how soon it is wanted: a few steps ahead of a
//! reader, or, for everything else, when the plan comes round to it again. What is wanted last is
//! let go first, which for readers that keep to the plan is Belady's choice.

mod concurrency;
mod cursor;
mod windows;

use std::collections::HashMap;
use std::ops::Range;

pub use concurrency::Concurrency;
use cursor::{Cursors, Stream};
pub use windows::{FEWEST as FEWEST_WINDOWS, Windows};

/// Open files whose cursors are kept; the least recently used go first.
const HANDLES: usize = 1024;
/// Streams that are looked at when a block is judged: the most recently moved.
const STREAMS: usize = 32;
/// Furthest that is read ahead of one stream, blocks.
const DEEPEST: u32 = 256;

/// How soon a block is wanted: steps of a reader, or [`PLAN`] plus blocks of the plan. Smaller is
/// sooner.
pub type Wanted = u64;

/// Blocks that no reader is heading for are wanted later than any that one is.
pub const PLAN: Wanted = 1 << 32;

/// The share's plan, and where its readers are.
#[derive(Debug)]
pub struct Schedule {
    plan: Range<u32>,
    handles: HashMap<u64, Handle>,
    across: Cursors,
    /// Counts touches, to tell recent from old.
    now: u64,
    /// Every block of the plan before this one has been had.
    filled: u32,
}

#[derive(Debug)]
struct Handle {
    cursors: Cursors,
    used: u64,
}

impl Schedule {
    pub fn new(plan: Range<u32>) -> Self {
        let filled = plan.start;
        Self { plan, handles: HashMap::new(), across: Cursors::default(), now: 0, filled }
    }

    /// A reader of an open file is at this block. True when that changed what is wanted.
    pub fn touch(&mut self, handle: u64, block: u32) -> bool {
        self.now += 1;
        let now = self.now;
        if let Some(known) = self.handles.get_mut(&handle) {
            known.used = now;
            return known.cursors.touch(block, now);
        }
        if self.handles.len() >= HANDLES
            && let Some(oldest) = self.handles.iter().min_by_key(|(_, known)| known.used)
        {
            let oldest = *oldest.0;
            self.handles.remove(&oldest);
        }
        let mut cursors = Cursors::default();
        cursors.touch(block, now);
        self.handles.insert(handle, Handle { cursors, used: now });
        self.across.touch(block, now)
    }

    /// The file was closed.
    pub fn forget(&mut self, handle: u64) {
        self.handles.remove(&handle);
    }

    /// A block is no longer there, so the plan has a gap.
    pub fn lost(&mut self, block: u32) {
        self.filled = self.filled.min(block);
    }

    /// The first block of the plan that is not had, wherever the readers are.
    pub fn next_of_plan(&mut self, had: impl Fn(u32) -> bool) -> Option<u32> {
        while self.filled < self.plan.end && had(self.filled) {
            self.filled += 1;
        }
        (self.filled < self.plan.end).then_some(self.filled)
    }

    /// The end of the plan.
    pub fn end(&self) -> u32 {
        self.plan.end
    }

    /// How far the plan is filled without a gap.
    pub fn filled(&self) -> u32 {
        self.filled
    }

    /// How things stand for the readers now, for several questions in a row.
    pub fn outlook(&self) -> Outlook {
        let handles = self.handles.values().map(|known| &known.cursors);
        let mut streams: Vec<Stream> =
            handles.chain([&self.across]).flat_map(Cursors::streams).copied().collect();
        streams.sort_unstable_by_key(|stream| std::cmp::Reverse(stream.moved));
        streams.truncate(STREAMS);
        let base = streams.first().map_or(self.plan.start, |stream| stream.last);
        Outlook { plan: self.plan.clone(), streams, base }
    }
}

/// Where the readers are heading.
#[derive(Debug)]
pub struct Outlook {
    plan: Range<u32>,
    streams: Vec<Stream>,
    base: u32,
}

impl Outlook {
    /// How soon the block is wanted.
    pub fn wanted(&self, block: u32) -> Wanted {
        let ahead = self.streams.iter().filter_map(|stream| stream.steps_to(block)).min();
        ahead.map_or_else(|| PLAN + u64::from(self.round_to(block)), Wanted::from)
    }

    /// Blocks ahead of the readers that are not had, soonest first, at most `many`. Each reader is
    /// looked ahead for within its part of `slots`.
    pub fn ahead(&self, slots: u32, many: usize, had: impl Fn(u32) -> bool) -> Vec<u32> {
        let sure: Vec<&Stream> = self.streams.iter().filter(|stream| stream.is_sure()).collect();
        let each = slots / 2 / u32::try_from(sure.len().max(1)).unwrap_or(u32::MAX);
        let mut blocks = Vec::new();
        for step in 1..=each.clamp(1, DEEPEST) {
            for stream in &sure {
                let block = stream.after(step).filter(|block| self.plan.contains(block));
                if let Some(block) = block
                    && !blocks.contains(&block)
                    && !had(block)
                {
                    blocks.push(block);
                    if blocks.len() >= many {
                        return blocks;
                    }
                }
            }
        }
        blocks
    }

    /// The block wanted last of those given, and how soon that is.
    pub fn victim(&self, resident: impl Iterator<Item = u32>) -> Option<(u32, Wanted)> {
        resident.map(|block| (block, self.wanted(block))).max_by_key(|(_, wanted)| *wanted)
    }

    /// Blocks from the newest reader's place to that block, round the end of the plan.
    fn round_to(&self, block: u32) -> u32 {
        match block.checked_sub(self.base) {
            Some(ahead) => ahead,
            None => {
                (self.plan.end - self.base.min(self.plan.end))
                    + (block - self.plan.start.min(block))
            }
        }
    }
}

#[cfg(test)]
mod tests;
