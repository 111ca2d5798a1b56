//! A version is taken: nobody writes while all of the file is sealed to the last byte. From then on the
//! file may go on to change, since the version holds its own sealed blocks.

use std::sync::{Arc, Mutex};

use tidegate_plan::{RESULT_PART_LEN, result_blocks};
use tidegate_wire::ReadRequest;

use super::block::{BLOCK, Content, Plain};
use super::content::{Block, PART_BLOCKS, State};
use super::core::{Core, File, Part, Version, lock};
use super::home::Refusal;
use super::journal::{Complete, PartRecord, Record};
use crate::budget::Buffer;
use crate::errno::FsError;

/// What is still to be done before a version can be taken.
enum Lacks {
    Nothing,
    Seal(Vec<u64>),
    Open(u64),
    Fill(u64),
    /// Zeros behind what was written, up to the block's length.
    Stretch(u64, usize),
    Change,
}

impl Core {
    /// Takes the present content as a version, or the one that was taken and is not at home yet.
    pub(super) async fn take_version(
        self: &Arc<Self>,
        file: &Arc<File>,
    ) -> Result<Option<Arc<Version>>, FsError> {
        self.check()?;
        {
            let mut state = file.state();
            if state.lost {
                return Err(FsError::Lost);
            }
            if !state.dirty {
                return Ok(lock(&file.pending).clone());
            }
            state.frozen = true;
        }
        let taken = self.complete(file).await;
        file.state().frozen = false;
        file.has_changed();
        taken.map(Some)
    }

    /// Tells a successor of a version, if all of it lies where he finds it.
    pub(super) fn record_complete(&self, file: &File, version: &Arc<Version>) {
        self.write_complete(file, &file.state(), version);
    }

    /// Under the lock of the state: what was written since the version was taken stays dirty.
    pub(super) fn write_complete(&self, file: &File, state: &State, version: &Arc<Version>) {
        let Some(complete) = complete_record(version) else { return };
        let (node, dirty) = (file.node, state.told || state.lost);
        self.record(&[Record::Complete { node, complete: Box::new(complete), dirty }]);
        *lock(&file.recorded) = Some(Arc::clone(version));
    }

    /// Seals all that is not, while nobody writes.
    async fn complete(self: &Arc<Self>, file: &Arc<File>) -> Result<Arc<Version>, FsError> {
        let mut changes = file.changes();
        loop {
            changes.borrow_and_update();
            self.check()?;
            let content = self.content_of(file)?;
            let lacks = lacks(&file.state(), &content);
            match lacks {
                Lacks::Nothing => {}
                Lacks::Seal(blocks) => {
                    for block in blocks {
                        self.seal_later(file, block);
                    }
                    continue;
                }
                Lacks::Open(block) => {
                    self.open_block(file, block).await?;
                    continue;
                }
                Lacks::Fill(block) => {
                    self.fill_block(file, block).await?;
                    continue;
                }
                Lacks::Stretch(block, len) => {
                    self.stretch(file, block, len).await?;
                    continue;
                }
                Lacks::Change => {
                    let _file_lives = changes.changed().await;
                    continue;
                }
            }
            let mut state = file.state();
            let Some(parts) = parts(&state) else { continue };
            let version = Arc::new(Version { content, len: state.len, parts: Mutex::new(parts) });
            state.content = None;
            state.dirty = false;
            state.told = false;
            state.low = state.len;
            *lock(&file.pending) = Some(Arc::clone(&version));
            drop(state);
            return Ok(version);
        }
    }

    /// Zeros up to the block's length.
    async fn stretch(
        self: &Arc<Self>,
        file: &Arc<File>,
        block: u64,
        len: usize,
    ) -> Result<(), FsError> {
        let has_room = match file.state().blocks.get(&block) {
            Some(Block::Plain(plain)) => plain.holds(len),
            _ => return Ok(()),
        };
        let buffer = if has_room { None } else { Some(self.room(len).await?) };
        let mut state = file.state();
        if let Some(buffer) = buffer {
            state.give_room(block, buffer);
        }
        if let Some(Block::Plain(plain)) = state.blocks.get_mut(&block)
            && plain.holds(len)
        {
            plain.extend(len);
        }
        Ok(())
    }

    /// Makes plaintext of a block that is at home, zeros, or both.
    pub(super) async fn fill_block(
        self: &Arc<Self>,
        file: &Arc<File>,
        block: u64,
    ) -> Result<(), FsError> {
        let (there, len) = {
            let state = file.state();
            (state.at_home(block), state.block_len(block).max(state.at_home(block)))
        };
        let buffer = self.room(len).await?;
        let ticket = {
            let mut state = file.state();
            if state.blocks.contains_key(&block) {
                return Ok(());
            }
            let ticket = state.ticket();
            state.blocks.insert(block, Block::Underway(ticket));
            ticket
        };
        let mut plain = Plain::new(buffer);
        let outcome = match there {
            0 => Ok(()),
            _ => self.fetch(file, block * BLOCK as u64, there).await.map(|bytes| {
                plain.write(0, &bytes);
            }),
        };
        let mut state = file.state();
        if matches!(state.blocks.get(&block), Some(Block::Underway(now)) if *now == ticket) {
            if outcome.is_ok() {
                // It may have been cut meanwhile.
                plain.truncate(state.at_home(block));
                plain.extend(state.block_len(block).min(len));
                state.blocks.insert(block, Block::Plain(plain));
            } else {
                state.blocks.remove(&block);
            }
        }
        drop(state);
        self.is_plain(file, block);
        file.has_changed();
        outcome
    }

    /// Bytes of the version at home.
    pub(super) async fn fetch(
        self: &Arc<Self>,
        file: &Arc<File>,
        offset: u64,
        len: usize,
    ) -> Result<Buffer, FsError> {
        let home = file.state().home.clone().ok_or(FsError::Gone)?;
        let path = self.path(file.node).ok_or(FsError::Gone)?;
        let mut buffer = self.room(len).await?;
        let asked = ReadRequest {
            path,
            version: home.version.clone(),
            offset,
            len: u32::try_from(len).map_err(|_| FsError::Invalid)?,
        };
        let read = self.home.read(&asked, &mut buffer[..len]).await;
        read.map_err(Refusal::errno)?;
        buffer.truncate(len);
        Ok(buffer)
    }
}

/// What is missing for a version, the cheapest first.
fn lacks(state: &State, content: &Arc<Content>) -> Lacks {
    let blocks = result_blocks(state.len);
    let whole = state.len <= RESULT_PART_LEN as u64;
    let mut seal = Vec::new();
    let mut other = Lacks::Nothing;
    for part in 0..state.parts() {
        if !whole && (state.copyable(part).is_some() || state.sealed_part(part).is_some()) {
            continue;
        }
        let range = State::blocks_of(part);
        for block in range.start..range.end.min(blocks) {
            let lack = match state.blocks.get(&block) {
                Some(Block::Plain(plain)) if plain.len() < state.block_len(block) => {
                    Lacks::Stretch(block, state.block_len(block))
                }
                Some(Block::Plain(_)) => {
                    seal.push(block);
                    continue;
                }
                Some(Block::Underway(_)) => Lacks::Change,
                Some(Block::Uploaded) => continue,
                Some(Block::Sealed { sealed, valid, .. })
                    if Arc::ptr_eq(&sealed.content, content)
                        && *valid == sealed.len
                        && sealed.len == state.block_len(block) =>
                {
                    continue;
                }
                Some(Block::Sealed { .. }) => Lacks::Open(block),
                None => Lacks::Fill(block),
            };
            if matches!(other, Lacks::Nothing | Lacks::Change) {
                other = lack;
            }
        }
    }
    if seal.is_empty() { other } else { Lacks::Seal(seal) }
}

fn parts(state: &State) -> Option<Vec<Part>> {
    let whole = state.len <= RESULT_PART_LEN as u64;
    let part = |part| {
        if !whole {
            if let Some(Block::Uploaded) = state.blocks.get(&(u64::from(part) * PART_BLOCKS)) {
                let receipt = state.upload.as_ref()?.receipts.get(&part)?;
                return Some(Part::Brought(receipt.clone()));
            }
            if let Some(receipt) = state.copyable(part) {
                return Some(Part::Copy(receipt.clone()));
            }
        }
        state.sealed_part(part).map(Part::Sealed)
    };
    (0..state.parts()).map(part).collect()
}

/// `None` when some of it is in RAM only: a worker after this one could do nothing with it.
fn complete_record(version: &Version) -> Option<Complete> {
    let mut keys: Vec<Arc<Content>> = Vec::new();
    let parts = lock(&version.parts);
    let record = |part: &Part| {
        Some(match part {
            Part::Copy(receipt) => PartRecord::Copy(receipt.clone()),
            Part::Brought(receipt) => PartRecord::Brought(receipt.clone()),
            Part::Sealed(blocks) => {
                let content = &blocks.first()?.content;
                let known = keys.iter().position(|key| Arc::ptr_eq(key, content));
                let key = known.unwrap_or_else(|| {
                    keys.push(Arc::clone(content));
                    keys.len() - 1
                });
                let slots = blocks.iter().map(|block| block.spooled()).collect::<Option<_>>()?;
                PartRecord::Spooled { key: u32::try_from(key).ok()?, slots }
            }
        })
    };
    let parts = parts.iter().map(record).collect::<Option<_>>()?;
    Some(Complete {
        content: version.content.id,
        len: version.len,
        keys: keys.iter().map(|key| (key.id, key.sealed_key.as_slice().into())).collect(),
        parts,
    })
}
