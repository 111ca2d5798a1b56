//! Bytes of a file that came back from home, in RAM only and few of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::budget::Buffer;

/// Blocks that are kept of one file.
const MOST: usize = 24;

/// Blocks of one version.
#[derive(Default)]
pub(super) struct HomeCache {
    version: String,
    blocks: BTreeMap<u64, Arc<Buffer>>,
    /// The block that would follow if the file is read from front to back.
    next: u64,
}

impl HomeCache {
    pub(super) fn get(&mut self, version: &str, block: u64) -> Option<Arc<Buffer>> {
        if self.version != version {
            return None;
        }
        let found = self.blocks.get(&block).cloned()?;
        self.next = block + 1;
        Some(found)
    }

    /// Whether this read goes on where the one before ended, or begins at the front.
    pub(super) fn is_sequential(&self, block: u64) -> bool {
        block == 0 || block == self.next
    }

    pub(super) fn put(&mut self, version: &str, block: u64, bytes: Arc<Buffer>) {
        if self.version != version {
            self.clear();
            version.clone_into(&mut self.version);
        }
        while self.blocks.len() >= MOST {
            // What lies behind the reader goes first.
            let first = self.blocks.first_key_value().map(|(first, _)| *first);
            let goes = first.filter(|first| *first < block);
            let goes = goes.or_else(|| self.blocks.last_key_value().map(|(last, _)| *last));
            let Some(goes) = goes else { break };
            self.blocks.remove(&goes);
        }
        self.blocks.insert(block, bytes);
    }

    /// How many blocks there were.
    pub(super) fn clear(&mut self) -> usize {
        std::mem::take(&mut self.blocks).len()
    }
}
