//! One version of a file's bytes, which goes home while the file goes on to change.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_plan::RESULT_PART_LEN;

use super::block::{Content, Part, Sealed};
use super::content::{Block, PART_BLOCKS, State};
use super::journal::{Complete, PartRecord, Record};
use super::writers::Writers;

/// One version of a file's bytes, complete.
pub(super) struct Version {
    pub(super) content: Arc<Content>,
    pub(super) len: u64,
    pub(super) parts: Mutex<Vec<Part>>,
    pub(super) writers: Writers,
}

impl Version {
    fn parts(&self) -> MutexGuard<'_, Vec<Part>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn part(&self, part: u32) -> Option<Part> {
        self.parts().get(part as usize).cloned()
    }

    /// Whether this worker can open what it keeps of it.
    pub(super) fn opens(&self) -> bool {
        self.parts().iter().all(|part| match part {
            Part::Sealed(blocks) => blocks.iter().all(|block| block.content.opens()),
            Part::Copy(_) | Part::Brought { .. } => true,
        })
    }

    /// Some of it is in that upload only.
    pub(super) fn needs_upload(&self, id: &str) -> bool {
        let needs = |part: &Part| matches!(part, Part::Brought { upload, .. } if upload == id);
        self.parts().iter().any(needs)
    }

    /// Lets go of full parts that are in the upload, as they still are in the file. Returns what a
    /// successor must know before the blocks are dropped.
    pub(super) fn let_go(&self, node: u64, state: &State) -> (Vec<Record>, Vec<Arc<Sealed>>) {
        let (mut records, mut gone) = (Vec::new(), Vec::new());
        let Some(open) = &state.upload else { return (records, gone) };
        for (number, part) in (0..).zip(self.parts().iter_mut()) {
            let receipt = state.receipt(&open.id, number, part).cloned();
            if let Part::Sealed(blocks) = part
                && let Some(receipt) = receipt
                && receipt.len as usize == RESULT_PART_LEN
            {
                gone.append(blocks);
                let upload = open.id.clone();
                *part = Part::Brought { upload: upload.clone(), receipt: receipt.clone() };
                records.push(Record::Brought { node, content: self.content.id, upload, receipt });
            }
        }
        (records, gone)
    }

    /// For a successor. `None` when some of it is in RAM only: a worker after this one could do nothing
    /// with it.
    pub(super) fn record(&self) -> Option<Complete> {
        let mut keys: Vec<Arc<Content>> = Vec::new();
        let parts = self.parts();
        let record = |part: &Part| {
            Some(match part {
                Part::Copy(receipt) => PartRecord::Copy(receipt.clone()),
                Part::Brought { upload, receipt } => {
                    PartRecord::Brought { upload: upload.clone(), receipt: receipt.clone() }
                }
                Part::Sealed(blocks) => {
                    let content = &blocks.first()?.content;
                    let known = keys.iter().position(|key| Arc::ptr_eq(key, content));
                    let key = known.unwrap_or_else(|| {
                        keys.push(Arc::clone(content));
                        keys.len() - 1
                    });
                    let slots =
                        blocks.iter().map(|block| block.spooled()).collect::<Option<_>>()?;
                    PartRecord::Spooled { key: u32::try_from(key).ok()?, slots }
                }
            })
        };
        let parts = parts.iter().map(record).collect::<Option<_>>()?;
        Some(Complete {
            content: self.content.id,
            len: self.len,
            keys: keys.iter().map(|key| (key.id, key.sealed_key.as_slice().into())).collect(),
            parts,
        })
    }
}

/// Where each part of the present content is; `None` when one is nowhere.
pub(super) fn parts(state: &State) -> Option<Vec<Part>> {
    let whole = state.len <= RESULT_PART_LEN as u64;
    let part = |part| {
        if !whole {
            if let Some(Block::Uploaded) = state.blocks.get(&(u64::from(part) * PART_BLOCKS)) {
                let open = state.upload.as_ref()?;
                let receipt = open.receipts.get(&part)?.clone();
                return Some(Part::Brought { upload: open.id.clone(), receipt });
            }
            if let Some(receipt) = state.copyable(part) {
                return Some(Part::Copy(receipt.clone()));
            }
        }
        state.sealed_part(part).map(Part::Sealed)
    };
    (0..state.parts()).map(part).collect()
}
