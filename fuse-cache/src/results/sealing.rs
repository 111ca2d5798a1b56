//! Between plaintext in RAM and sealed blocks in the spool, away from the threads that wait for
//! the kernel.

use std::sync::Arc;

use super::block::{Content, Plain, Sealed};
use super::content::{Block, PART_BLOCKS};
use super::core::{Core, File, lock, wait_for_room};
use super::flights::ripe;
use crate::budget::Buffer;
use crate::errno::FsError;

/// Times that nothing is seen under way before there is no space.
const IDLE: u32 = 3;

impl Core {
    /// A buffer for so much plaintext of a block. Waits for what is under way; when nothing is, there is
    /// no space.
    pub(super) async fn room(self: &Arc<Self>, plain: usize) -> Result<Buffer, FsError> {
        let mut eased = self.eased();
        let (mut stirred, mut seen_idle) = (false, 0);
        loop {
            eased.borrow_and_update();
            self.check()?;
            // Seen before it is tried: what ends meanwhile has given its room back.
            let mut idle = self.is_idle();
            if let Some(buffer) = self.try_room(plain) {
                return Ok(buffer);
            }
            if let Some((file, block)) = self.oldest_plain() {
                self.seal_later(&file, block);
                // Sealed, which may be done by now, it can be spilled.
                idle = false;
            } else if self.spill().await {
                continue;
            }
            if self.let_go() > 0 {
                stirred = false;
                if let Some(buffer) = self.try_room(plain) {
                    return Ok(buffer);
                }
            }
            idle = idle && self.is_idle();
            seen_idle = if idle { seen_idle + 1 } else { 0 };
            if idle && !std::mem::replace(&mut stirred, true) && self.stir() > 0 {
                seen_idle = 0;
            }
            if seen_idle >= IDLE {
                return Err(FsError::NoSpace);
            }
            wait_for_room(&mut eased, idle).await;
        }
    }

    /// Sets on its way home what could give room and that nobody brings; how much there was.
    fn stir(self: &Arc<Self>) -> usize {
        let files = self.names().files();
        let stir = |file: &Arc<File>| {
            let Ok(turn) = file.turn.try_lock() else { return 0 };
            drop(turn);
            if lock(&file.pending).is_none() {
                return self.send_ripe(file);
            }
            self.bring_later(file);
            1
        };
        files.iter().map(|(_, file)| stir(file)).sum()
    }

    /// Finds a place in the spool for one sealed block that had none: the newest, whose turn to go home comes
    /// last. False: there is none.
    async fn spill(self: &Arc<Self>) -> bool {
        let core = Arc::clone(self);
        let spilling = self.handle.spawn_blocking(move || {
            core.homeless().last().is_some_and(|sealed| core.spool_now(sealed))
        });
        spilling.await.unwrap_or(false)
    }

    /// Begins to seal a block that is plaintext.
    pub(super) fn seal_later(self: &Arc<Self>, file: &Arc<File>, block: u64) {
        let mut state = file.state();
        let Some(Block::Plain(_)) = state.blocks.get(&block) else { return };
        let ticket = state.ticket();
        let Some(Block::Plain(plain)) = state.blocks.insert(block, Block::Underway(ticket)) else {
            return;
        };
        drop(state);
        let (core, file, work) = (Arc::clone(self), Arc::clone(file), self.begin_work());
        self.handle.spawn_blocking(move || {
            core.seal_now(&file, block, ticket, plain);
            drop(work);
        });
    }

    fn seal_now(self: &Arc<Self>, file: &Arc<File>, block: u64, ticket: u64, plain: Plain) {
        let sealed = self.content_of(file).and_then(|content| self.seal(&content, block, plain));
        let mut state = file.state();
        // Truncated away meanwhile, it is of no use.
        if matches!(state.blocks.get(&block), Some(Block::Underway(now)) if *now == ticket) {
            match sealed {
                Ok(sealed) => {
                    let valid = sealed.len;
                    let sealed = Block::Sealed { sealed, valid, clean: false };
                    state.blocks.insert(block, sealed);
                }
                Err(_keys_destroyed) => {
                    state.blocks.remove(&block);
                    state.lost = true;
                }
            }
        }
        // Its writer may have left this part behind, or the one before.
        let part = u32::try_from(block / PART_BLOCKS).unwrap_or(u32::MAX);
        let around = [part.checked_sub(1), Some(part)].into_iter().flatten();
        let around: Vec<_> = around.filter(|part| ripe(&state, *part).is_some()).collect();
        drop(state);
        file.has_changed();
        for part in around {
            let _nobody_drains = self.ripe.send((Arc::clone(file), part, self.begin_work()));
        }
    }

    fn seal(
        self: &Arc<Self>,
        content: &Arc<Content>,
        block: u64,
        plain: Plain,
    ) -> Result<Arc<Sealed>, FsError> {
        let sealed = Arc::new(plain.seal(content, self.lease, block)?);
        // Otherwise it finds a place when its room is needed, or its way home takes long.
        if self.asynchronous {
            self.spool_now(&sealed);
        }
        self.is_resident(&sealed);
        Ok(sealed)
    }

    /// Writes a sealed block to the spool if that has room. Blocking.
    pub(super) fn spool_now(&self, sealed: &Sealed) -> bool {
        if sealed.spooled().is_some() {
            return true;
        }
        let mut slot = self.spool.take(sealed.sealed_len());
        if slot.is_none() && self.let_go() > 0 {
            slot = self.spool.take(sealed.sealed_len());
        }
        let Some(slot) = slot else { return false };
        match sealed.spool(slot) {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(%error, "the spool cannot be written");
                false
            }
        }
    }

    /// Makes a sealed block plaintext again.
    pub(super) async fn open_block(
        self: &Arc<Self>,
        file: &Arc<File>,
        block: u64,
    ) -> Result<(), FsError> {
        let (len, room) = {
            let state = file.state();
            match state.blocks.get(&block) {
                Some(Block::Sealed { sealed, .. }) => {
                    (sealed.len, sealed.len.max(state.block_len(block)))
                }
                _ => return Ok(()),
            }
        };
        let buffer = self.room(room).await?;
        let (from, valid, clean, ticket) = {
            let mut state = file.state();
            let ticket = state.ticket();
            match state.blocks.get(&block) {
                Some(Block::Sealed { sealed, valid, clean }) if sealed.len == len => {
                    let taken = (Arc::clone(sealed), *valid, *clean, ticket);
                    state.blocks.insert(block, Block::Underway(ticket));
                    taken
                }
                _ => return Ok(()),
            }
        };
        let (core, work) = (Arc::clone(self), self.begin_work());
        let (file, lease) = (Arc::clone(file), self.lease);
        let opening = self.handle.spawn_blocking(move || {
            let opened = Plain::open(&from, valid, buffer, lease);
            let mut state = file.state();
            let ours = matches!(
                state.blocks.get(&block),
                Some(Block::Underway(now)) if *now == ticket
            );
            let outcome = match opened {
                Ok(plain) if ours => {
                    state.blocks.insert(block, Block::Plain(plain));
                    Ok(())
                }
                Ok(_) => Ok(()),
                Err(error) => {
                    if ours {
                        let sealed = Block::Sealed { sealed: from, valid, clean };
                        state.blocks.insert(block, sealed);
                    }
                    Err(error)
                }
            };
            drop(state);
            core.is_plain(&file, block);
            file.has_changed();
            drop(work);
            outcome
        });
        opening.await.unwrap_or(Err(FsError::Lost))
    }
}
