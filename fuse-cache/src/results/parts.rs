//! Parts of a file's present content: which can be copied at home, which are sealed, which are in the upload.

use std::sync::Arc;

use tidegate_plan::{RESULT_PART_LEN, result_blocks};
use tidegate_wire::PartReceipt;

use super::block::{Part, Sealed};
use super::content::{Block, PART_BLOCKS, State};

impl State {
    /// Whether a part is as in the version at home, and we can prove which that is.
    pub(super) fn copyable(&self, part: u32) -> Option<&PartReceipt> {
        let receipt = self.home.as_ref()?.receipts.get(part as usize)?;
        let start = u64::from(part) * RESULT_PART_LEN as u64;
        let len = self.len.saturating_sub(start).min(RESULT_PART_LEN as u64);
        let same = u64::from(receipt.len) == len && self.seen >= start + len;
        let differs =
            |(_, block): (&u64, &Block)| !matches!(block, Block::Sealed { clean: true, .. });
        (same && !self.blocks.range(Self::blocks_of(part)).any(differs)).then_some(receipt)
    }

    /// The sealed blocks of a part as it is now, if all are sealed as one content.
    pub(super) fn sealed_part(&self, part: u32) -> Option<Vec<Arc<Sealed>>> {
        let blocks = Self::blocks_of(part);
        let blocks = blocks.start..blocks.end.min(result_blocks(self.len));
        let mut found: Vec<Arc<Sealed>> = Vec::with_capacity(blocks.clone().count());
        for block in blocks {
            match self.blocks.get(&block)? {
                Block::Sealed { sealed, valid, .. }
                    if *valid == sealed.len && sealed.len == self.block_len(block) =>
                {
                    if found
                        .first()
                        .is_some_and(|first| !Arc::ptr_eq(&first.content, &sealed.content))
                    {
                        return None;
                    }
                    found.push(Arc::clone(sealed));
                }
                _ => return None,
            }
        }
        Some(found)
    }

    /// Whether the part is still as it is in a version.
    pub(super) fn is_still(&self, number: u32, part: &Part) -> bool {
        match part {
            Part::Sealed(blocks) => self.part_is(number, blocks),
            Part::Copy(receipt) => self.copyable(number) == Some(receipt),
            Part::Brought { upload, .. } => {
                self.upload.as_ref().is_some_and(|open| open.id == *upload)
            }
        }
    }

    /// The receipt of a part that is in an upload as it is in a version.
    pub(super) fn receipt(&self, upload: &str, number: u32, part: &Part) -> Option<&PartReceipt> {
        let open = self.upload.as_ref().filter(|open| open.id == upload)?;
        open.receipts.get(&number).filter(|_| self.is_still(number, part))
    }

    /// Whether the part's blocks are still these.
    fn part_is(&self, part: u32, blocks: &[Arc<Sealed>]) -> bool {
        self.sealed_part(part).is_some_and(|now| {
            now.len() == blocks.len() && now.iter().zip(blocks).all(|(a, b)| Arc::ptr_eq(a, b))
        })
    }

    /// Lets go of the blocks of full parts that were brought home; how many. Never of some of a part: it
    /// is in the upload only, or here.
    pub(super) fn drop_uploaded(&mut self) -> usize {
        let Some(upload) = &self.upload else { return 0 };
        // A file of one part goes without an upload.
        if self.len <= RESULT_PART_LEN as u64 {
            return 0;
        }
        let full = |(_, receipt): &(&u32, &PartReceipt)| receipt.len as usize == RESULT_PART_LEN;
        let brought: Vec<_> = upload.receipts.iter().filter(full).map(|(part, _)| *part).collect();
        let mut dropped = 0;
        for part in brought {
            let here = self.sealed_part(part).is_some_and(|part| part.len() as u64 == PART_BLOCKS);
            if !here || self.copyable(part).is_some() {
                continue;
            }
            for block in Self::blocks_of(part) {
                self.blocks.insert(block, Block::Uploaded);
                dropped += 1;
            }
        }
        dropped
    }
}
