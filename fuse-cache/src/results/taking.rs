//! A version is taken: nobody writes while all of the file is sealed to the last byte. From then on the
//! file may go on to change, since the version holds its own sealed blocks.

use std::sync::{Arc, Mutex};

use tidegate_plan::{RESULT_PART_LEN, result_blocks};
use tidegate_wire::ReadRequest;

use super::block::{BLOCK, Content, Plain};
use super::content::{AtHome, Block, State};
use super::core::{Core, File, lock};
use super::home::Refusal;
use super::journal::Record;
use super::version::{Version, parts};
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
    /// Takes the present content as a version, or the one that was taken and is not at home yet. The
    /// caller holds the file's turn.
    pub(super) async fn take_version(
        self: &Arc<Self>,
        file: &Arc<File>,
    ) -> Result<Option<Arc<Version>>, FsError> {
        let mut brought = false;
        loop {
            self.check()?;
            let pending = lock(&file.pending).clone();
            {
                let mut state = file.state();
                if state.lost {
                    return Err(FsError::Lost);
                }
                if !state.dirty {
                    return Ok(pending);
                }
                state.frozen = brought || pending.as_ref().is_none_or(|pending| pending.opens());
            }
            if !file.state().frozen {
                // What a worker before this one sealed can be taken again only from home.
                if let Some(pending) = pending {
                    brought = !self.bring(file, &pending).await?;
                }
                continue;
            }
            let taken = self.complete(file).await;
            file.state().frozen = false;
            file.has_changed();
            match (taken, pending) {
                // What waits in the spool gives it its room.
                (Err(FsError::NoSpace), Some(pending)) if self.bring(file, &pending).await? => {}
                (taken, _) => return taken.map(Some),
            }
        }
    }

    /// Tells a successor of a version, if all of it lies where he finds it.
    pub(super) fn record_complete(&self, file: &File, version: &Arc<Version>) {
        self.write_complete(file, &file.state(), version);
    }

    /// Under the lock of the state: what was written since the version was taken stays dirty, and one that
    /// came home or to nothing meanwhile is not told of.
    pub(super) fn write_complete(&self, file: &File, state: &State, version: &Arc<Version>) {
        if !lock(&file.pending).as_ref().is_some_and(|pending| Arc::ptr_eq(pending, version)) {
            return;
        }
        let Some(complete) = version.record() else { return };
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
            let lacks = {
                let mut state = file.state();
                match lacks(&state, &content) {
                    Lacks::Nothing => return self.taken(file, &mut state, content),
                    lacks => lacks,
                }
            };
            match lacks {
                Lacks::Nothing => {}
                Lacks::Seal(blocks) => {
                    for block in blocks {
                        self.seal_later(file, block);
                    }
                }
                Lacks::Open(block) => self.open_block(file, block).await?,
                Lacks::Fill(block) => self.fill_block(file, block).await?,
                Lacks::Stretch(block, len) => self.stretch(file, block, len).await?,
                Lacks::Change => {
                    let _file_lives = changes.changed().await;
                }
            }
        }
    }

    /// The version that lacks nothing, unless some of it is nowhere any more.
    fn taken(
        &self,
        file: &File,
        state: &mut State,
        content: Arc<Content>,
    ) -> Result<Arc<Version>, FsError> {
        let Some(parts) = parts(state) else {
            tracing::error!("a part of a result is nowhere any more");
            state.lost = true;
            return Err(FsError::Lost);
        };
        let (parts, writers) = (Mutex::new(parts), std::mem::take(&mut state.writers));
        let version = Arc::new(Version { content, len: state.len, parts, writers });
        state.content = None;
        state.dirty = false;
        state.told = false;
        state.low = state.len;
        *lock(&file.pending) = Some(Arc::clone(&version));
        Ok(version)
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
        // It may have been sealed meanwhile, to make that room.
        file.state().stretch(block, len, buffer);
        Ok(())
    }

    /// Makes plaintext of a block that is at home, zeros, or both.
    pub(super) async fn fill_block(
        self: &Arc<Self>,
        file: &Arc<File>,
        block: u64,
    ) -> Result<(), FsError> {
        let (home, there, len) = {
            let state = file.state();
            let there = state.at_home(block);
            (state.home.clone(), there, state.block_len(block).max(there))
        };
        let mut buffer = self.room(len).await?;
        let _work = self.begin_work();
        let ticket = {
            let mut state = file.state();
            if state.blocks.contains_key(&block) {
                return Ok(());
            }
            let ticket = state.ticket();
            state.blocks.insert(block, Block::Underway(ticket));
            ticket
        };
        let fetched = match &home {
            _ if there == 0 => Ok(()),
            None => Err(FsError::Gone),
            Some(home) => {
                let offset = block * BLOCK as u64;
                self.fetch(file, home, offset, &mut buffer[..there]).await
            }
        };
        let mut state = file.state();
        if matches!(state.blocks.get(&block), Some(Block::Underway(now)) if *now == ticket) {
            state.blocks.remove(&block);
            let same = match (&home, &state.home) {
                (Some(then), Some(now)) => Arc::ptr_eq(then, now),
                (then, now) => then.is_none() && now.is_none(),
            };
            // Who needs it asks again when another version has come home meanwhile.
            if fetched.is_ok() && same {
                let mut plain = Plain::filled(buffer, there);
                // It may have been cut meanwhile.
                plain.truncate(state.at_home(block));
                plain.extend(state.block_len(block).min(len));
                state.blocks.insert(block, Block::Plain(plain));
            }
        }
        drop(state);
        self.is_plain(file, block);
        file.has_changed();
        fetched
    }

    /// Bytes of a version at home.
    async fn fetch(
        self: &Arc<Self>,
        file: &Arc<File>,
        home: &AtHome,
        offset: u64,
        out: &mut [u8],
    ) -> Result<(), FsError> {
        let path = self.path(file.node).ok_or(FsError::Gone)?;
        let len = u32::try_from(out.len()).map_err(|_| FsError::Invalid)?;
        let asked = ReadRequest { path, version: home.version.clone(), offset, len };
        self.home.read(&asked, &mut [out]).await.map_err(Refusal::errno)
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
