//! The bytes of one file: what of it is at home, what was written since, and where that lies.
//!
//! Only blocks that differ from the version at home are kept here. A block that is not is at home as
//! far as that version is still seen (`seen`), and zero behind. Nothing here waits: who needs
//! something that is not there is told what ([`Need`]), and asks again when it is.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use tidegate_plan::{RESULT_BLOCK_LEN, RESULT_LEN_MAX, RESULT_PART_LEN, result_parts};
use tidegate_wire::PartReceipt;

use super::block::{BLOCK, Content, Plain, Sealed, buffer_len};
use super::writers::Writers;
use crate::budget::Buffer;
use crate::errno::FsError;

/// Blocks of a part.
pub(super) const PART_BLOCKS: u64 = (RESULT_PART_LEN / RESULT_BLOCK_LEN) as u64;

/// A version of a file that is durable at home.
#[derive(Debug)]
pub(super) struct AtHome {
    pub(super) version: String,
    pub(super) len: u64,
    /// Of its parts, if it has several and we brought them.
    pub(super) receipts: Vec<PartReceipt>,
}

/// A block that is not as it is at home.
pub(super) enum Block {
    Plain(Plain),
    /// Its bytes are being sealed or opened; the number tells this time from another.
    Underway(u64),
    Sealed {
        sealed: Arc<Sealed>,
        /// Bytes of it that still count; zeros follow.
        valid: usize,
        /// As at home: may be let go.
        clean: bool,
    },
    /// In the upload only: its part was brought there and then left the worker.
    Uploaded,
}

/// What has to be done before a block can be written or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Wait until something changes.
    Change,
    /// Open a sealed block.
    Open(u64),
    /// Fetch a block from home.
    Fetch(u64),
    /// Bring home what there is: a part of it has left the worker.
    Publish,
}

/// Parts of an unfinished version that are durable at home. A receipt is there only while the bytes of
/// its part are the file's still.
pub(super) struct Upload {
    pub(super) id: String,
    pub(super) path: String,
    pub(super) receipts: BTreeMap<u32, PartReceipt>,
}

/// A file's present content.
pub(super) struct State {
    pub(super) len: u64,
    pub(super) home: Option<Arc<AtHome>>,
    /// Bytes of the version at home that are still the file's.
    pub(super) seen: u64,
    /// Shortest length since the newest version was taken.
    pub(super) low: u64,
    pub(super) blocks: BTreeMap<u64, Block>,
    /// What blocks are sealed as from now on.
    pub(super) content: Option<Arc<Content>>,
    /// Differs from what was last taken to be brought home.
    pub(super) dirty: bool,
    /// Who changed it since.
    pub(super) writers: Writers,
    /// The journal says that there are bytes in memory only.
    pub(super) told: bool,
    pub(super) upload: Option<Upload>,
    /// Parts whose way home has begun.
    pub(super) flying: HashSet<u32>,
    /// Parts whose receipts are no more, which the journal is still to be told.
    pub(super) untold: Vec<u32>,
    /// Nobody may write: a version is being taken.
    pub(super) frozen: bool,
    /// What a worker before this one had in memory is gone.
    pub(super) lost: bool,
    /// Something may be at home under its name that is not `home`: what another file left there, or what
    /// set out from here and nobody heard of. It is there until this file comes.
    pub(super) covers: bool,
    /// A version set out for home, and nobody heard whether it came.
    pub(super) unheard: bool,
    pub(super) handles: u32,
    /// There may be more, opened before this worker came.
    pub(super) adopted: bool,
    pub(super) mode: u32,
    pub(super) mtime: SystemTime,
    pub(super) ctime: SystemTime,
    /// The kernel may have kept so many of its bytes.
    pub(super) cached: u64,
    pub(super) dirty_since: Option<std::time::Duration>,
    next_ticket: u64,
}

impl State {
    /// A new file, which is not at home yet.
    pub(super) fn new(mode: u32, now: SystemTime) -> Self {
        Self {
            len: 0,
            home: None,
            seen: 0,
            low: 0,
            blocks: BTreeMap::new(),
            content: None,
            dirty: true,
            writers: Writers::default(),
            told: false,
            upload: None,
            flying: HashSet::new(),
            untold: Vec::new(),
            frozen: false,
            lost: false,
            covers: false,
            unheard: false,
            handles: 0,
            adopted: false,
            mode,
            mtime: now,
            ctime: now,
            cached: 0,
            dirty_since: None,
            next_ticket: 0,
        }
    }

    /// Plaintext length of a block of the present content.
    pub(super) fn block_len(&self, block: u64) -> usize {
        let rest = self.len.saturating_sub(block * BLOCK as u64);
        usize::try_from(rest).map_or(BLOCK, |rest| rest.min(BLOCK))
    }

    /// Bytes of a block that are at home and still the file's.
    pub(super) fn at_home(&self, block: u64) -> usize {
        let rest = self.seen.saturating_sub(block * BLOCK as u64);
        usize::try_from(rest).map_or(BLOCK, |rest| rest.min(BLOCK))
    }

    pub(super) fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }

    pub(super) fn blocks_of(part: u32) -> std::ops::Range<u64> {
        let first = u64::from(part) * PART_BLOCKS;
        first..first + PART_BLOCKS
    }

    pub(super) fn parts(&self) -> u32 {
        u32::try_from(result_parts(self.len)).unwrap_or(u32::MAX)
    }

    /// Blocks that a write needs buffers for, and for how much plaintext; or what must be done first.
    pub(super) fn write_needs(&self, offset: u64, len: usize) -> Result<Vec<(u64, usize)>, Need> {
        if self.frozen {
            return Err(Need::Change);
        }
        let mut rooms = Vec::new();
        for (block, at, many) in spans(offset, len) {
            // What the write does not bring and the block must keep.
            let keeps = self.at_home(block);
            let room = match self.blocks.get(&block) {
                Some(Block::Plain(plain)) if plain.holds(at + many) => continue,
                Some(Block::Plain(_)) => at + many,
                Some(Block::Underway(_)) => return Err(Need::Change),
                Some(Block::Sealed { valid, .. }) if at == 0 && many >= *valid => many,
                Some(Block::Sealed { .. }) => return Err(Need::Open(block)),
                Some(Block::Uploaded) => return Err(Need::Publish),
                None if keeps == 0 || (at == 0 && many >= keeps) => at + many,
                None => return Err(Need::Fetch(block)),
            };
            rooms.push((block, self.room(block, room)));
        }
        Ok(rooms)
    }

    /// A file's first block may stay small; the others will be filled.
    fn room(&self, block: u64, len: usize) -> usize {
        if block == 0 { len } else { BLOCK }
    }

    /// Gives a block the buffer that it needs. Unless it is plaintext, what is written next covers all
    /// of it: both happen before anybody else sees the file.
    fn give_room(&mut self, block: u64, buffer: Buffer) {
        let plain = match self.blocks.remove(&block) {
            Some(Block::Plain(plain)) => plain.moved_to(buffer),
            _ => Plain::new(buffer),
        };
        self.blocks.insert(block, Block::Plain(plain));
    }

    /// Zeros up to so much of a block that is plaintext, in another buffer if one is given.
    pub(super) fn stretch(&mut self, block: u64, len: usize, buffer: Option<Buffer>) {
        if !matches!(self.blocks.get(&block), Some(Block::Plain(_))) {
            return;
        }
        if let Some(buffer) = buffer {
            self.give_room(block, buffer);
        }
        if let Some(Block::Plain(plain)) = self.blocks.get_mut(&block)
            && plain.holds(len)
        {
            plain.extend(len);
        }
    }

    /// Writes, with the buffers that [`Self::write_needs`] asked for. Returns the blocks that are full
    /// by it.
    pub(super) fn write(
        &mut self,
        offset: u64,
        data: &[u8],
        rooms: Vec<(u64, Buffer)>,
        now: SystemTime,
    ) -> Vec<u64> {
        for (block, buffer) in rooms {
            self.give_room(block, buffer);
        }
        let mut full = Vec::new();
        let mut done = 0;
        for (block, at, many) in spans(offset, data.len()) {
            if let Some(Block::Plain(plain)) = self.blocks.get_mut(&block) {
                plain.write(at, &data[done..done + many]);
                if at + many == BLOCK && plain.len() == BLOCK {
                    full.push(block);
                }
            }
            self.touch_part(block);
            done += many;
        }
        let before = self.len;
        self.len = self.len.max(offset + data.len() as u64);
        if self.len > before {
            self.end_moved(before);
        }
        self.touched(now);
        self.cached = self.cached.max(self.len);
        full
    }

    /// The part that held the end is another one now, unless it was full.
    fn end_moved(&mut self, end: u64) {
        if !end.is_multiple_of(RESULT_PART_LEN as u64) {
            self.touch_part(end / BLOCK as u64);
        }
    }

    pub(super) fn touched(&mut self, now: SystemTime) {
        self.dirty = true;
        self.mtime = now;
        self.ctime = now;
        self.dirty_since.get_or_insert_with(tidegate_kit::clock::boottime);
    }

    /// The part of a block is no more what was brought home of it.
    fn touch_part(&mut self, block: u64) {
        if let Ok(part) = u32::try_from(block / PART_BLOCKS)
            && let Some(upload) = &mut self.upload
            && upload.receipts.remove(&part).is_some()
        {
            self.untold.push(part);
        }
    }

    /// Some of the file's bytes are in the upload only.
    pub(super) fn has_uploaded(&self) -> bool {
        self.blocks.values().any(|block| matches!(block, Block::Uploaded))
    }

    /// What must be done before the file can get another length.
    pub(super) fn resize_needs(&self, len: u64) -> Option<Need> {
        if self.frozen {
            return Some(Need::Change);
        }
        if len == 0 {
            return None;
        }
        // The part in which the new end lies becomes another one; a file of one part goes without an upload.
        let part = (len - 1) / RESULT_PART_LEN as u64 * PART_BLOCKS;
        let mut cut = self.blocks.range(part..part + PART_BLOCKS);
        let changes = !len.is_multiple_of(RESULT_PART_LEN as u64) || part == 0;
        if len < self.len && changes && cut.any(|(_, block)| matches!(block, Block::Uploaded)) {
            return Some(Need::Publish);
        }
        match self.blocks.get(&(len / BLOCK as u64)) {
            Some(Block::Underway(_)) => Some(Need::Change),
            _ => None,
        }
    }

    /// Sets the length; zeros where it grows.
    pub(super) fn resize(&mut self, len: u64, now: SystemTime) -> Result<(), FsError> {
        if len > RESULT_LEN_MAX {
            return Err(FsError::TooLarge);
        }
        if len == self.len && !self.lost {
            return Ok(());
        }
        let before = self.len;
        self.len = len;
        self.low = self.low.min(len);
        if len < before {
            let edge = len.div_ceil(BLOCK as u64);
            drop(self.blocks.split_off(&edge));
            self.seen = self.seen.min(len);
            let keeps = self.block_len(len / BLOCK as u64);
            match self.blocks.get_mut(&(len / BLOCK as u64)) {
                Some(Block::Plain(plain)) => plain.truncate(keeps),
                Some(Block::Sealed { valid, clean, .. }) => {
                    *valid = (*valid).min(keeps);
                    *clean = false;
                }
                _ => {}
            }
            if let Some(upload) = &mut self.upload {
                let parts = len.div_ceil(RESULT_PART_LEN as u64);
                let parts = u32::try_from(parts).unwrap_or(u32::MAX);
                self.untold.extend(upload.receipts.split_off(&parts).into_keys());
            }
            self.end_moved(len);
        } else {
            self.end_moved(before);
        }
        if len == 0 {
            self.lost = false;
        }
        self.touched(now);
        Ok(())
    }

    /// Reads what is at hand; what a block needs first otherwise. The range lies within the file and
    /// within one block.
    pub(super) fn read_plain(&self, block: u64, at: usize, out: &mut [u8]) -> Reading {
        match self.blocks.get(&block) {
            Some(Block::Plain(plain)) => {
                plain.read(at, out);
                Reading::Done
            }
            Some(Block::Underway(_)) => Reading::Needs(Need::Change),
            Some(Block::Sealed { sealed, valid, .. }) => {
                Reading::Sealed(Arc::clone(sealed), *valid)
            }
            Some(Block::Uploaded) => Reading::Needs(Need::Publish),
            None => {
                let there = self.at_home(block).saturating_sub(at).min(out.len());
                out[there..].fill(0);
                if there == 0 { Reading::Done } else { Reading::Home(there) }
            }
        }
    }

    /// Bytes of the file that are neither at home nor in an upload.
    pub(super) fn unsent(&self) -> u64 {
        let brought = |block: u64| {
            let part = u32::try_from(block / PART_BLOCKS).unwrap_or(u32::MAX);
            self.upload.as_ref().is_some_and(|upload| upload.receipts.contains_key(&part))
        };
        let bytes = |(block, kept): (&u64, &Block)| match kept {
            Block::Sealed { clean: true, .. } | Block::Uploaded => 0,
            Block::Sealed { .. } if brought(*block) => 0,
            _ => self.block_len(*block) as u64,
        };
        self.blocks.iter().map(bytes).sum()
    }

    /// Lets go of what is at home anyway; while a version is being taken, of what that does not need.
    pub(super) fn drop_clean(&mut self) {
        let whole = self.len <= RESULT_PART_LEN as u64;
        let needed: HashSet<u32> = (0..self.parts())
            .filter(|part| self.frozen && (whole || self.copyable(*part).is_none()))
            .collect();
        self.blocks.retain(|number, block| {
            let part = u32::try_from(number / PART_BLOCKS).unwrap_or(u32::MAX);
            !matches!(block, Block::Sealed { clean: true, .. }) || needed.contains(&part)
        });
        if self.blocks.is_empty() && !self.frozen {
            self.content = None;
        }
    }
}

/// What a read of one block finds.
pub(super) enum Reading {
    Done,
    /// In a sealed block, of which so many bytes count.
    Sealed(Arc<Sealed>, usize),
    /// So many bytes of it are at home; what is behind them is filled.
    Home(usize),
    Needs(Need),
}

/// The blocks of a range: number, offset in it, length.
pub(super) fn spans(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        (done < len).then(|| {
            let from = offset + done as u64;
            let at = usize::try_from(from % BLOCK as u64).unwrap_or(0);
            let many = (len - done).min(BLOCK - at);
            done += many;
            (from / BLOCK as u64, at, many)
        })
    })
}

/// Length of the buffer for so much of a block.
pub(super) fn room_len(plain: usize) -> usize {
    buffer_len(plain)
}
