//! Writing, cutting and reading a file's bytes.

use std::sync::{Arc, MutexGuard};
use std::time::SystemTime;

use tidegate_plan::RESULT_LEN_MAX;

use super::Caller;
use super::block::BLOCK;
use super::content::{Need, PART_BLOCKS, Reading, State, room_len, spans};
use super::core::{Core, File, lock};
use super::home::Refusal;
use super::journal::Record;
use super::writers::process_of;
use crate::budget::Buffer;
use crate::errno::FsError;
use tidegate_wire::ReadRequest;
use zeroize::Zeroizing;

/// So many readers may read ahead at once before they take all buffers.
const AHEAD: u64 = 32;

impl Core {
    /// Writes at once, or says that it would have to wait.
    pub(super) fn try_write(
        self: &Arc<Self>,
        caller: Caller,
        file: &Arc<File>,
        offset: u64,
        data: &[u8],
    ) -> Option<Result<u32, FsError>> {
        if let Err(error) = self.check().and_then(|()| check_range(offset, data.len())) {
            return Some(Err(error));
        }
        let Ok(written) = u32::try_from(data.len()) else { return Some(Err(FsError::Invalid)) };
        if data.is_empty() {
            return Some(Ok(0));
        }
        let state = file.state();
        if state.lost || self.check().is_err() {
            return Some(Err(FsError::Lost));
        }
        // All or nothing: a block that was given room and not written yet would be seen as zeros.
        let rooms = state.write_needs(offset, data.len()).ok()?.into_iter();
        let room = |(block, plain)| Some((block, self.budget.try_buffer(room_len(plain))?));
        let rooms = rooms.map(room).collect::<Option<Vec<_>>>()?;
        self.write_now(caller, file, state, offset, data, rooms);
        Some(Ok(written))
    }

    fn write_now(
        self: &Arc<Self>,
        caller: Caller,
        file: &Arc<File>,
        mut state: MutexGuard<'_, State>,
        offset: u64,
        data: &[u8],
        rooms: Vec<(u64, Buffer)>,
    ) {
        let began: Vec<_> = rooms.iter().map(|(block, _)| *block).collect();
        if !std::mem::replace(&mut state.told, true) {
            self.record(&[Record::Dirty { node: file.node }]);
        }
        let full = state.write(offset, data, rooms, SystemTime::now());
        state.writers.changed_by(caller.thread, process_of);
        self.tell(file, &mut state);
        drop(state);
        for block in began {
            self.is_plain(file, block);
        }
        for block in full {
            self.seal_later(file, block);
        }
    }

    /// Tells a successor which parts are no more what was brought of them.
    fn tell(&self, file: &File, state: &mut State) {
        let node = file.node;
        let untold: Vec<_> =
            state.untold.drain(..).map(|part| Record::NoPart { node, part }).collect();
        if !untold.is_empty() {
            self.record(&untold);
        }
    }

    /// Writes block by block, waiting for what each needs.
    pub(super) async fn write(
        self: &Arc<Self>,
        caller: Caller,
        file: &Arc<File>,
        offset: u64,
        data: &[u8],
    ) -> Result<u32, FsError> {
        check_range(offset, data.len())?;
        let mut done = 0;
        for (_, _, many) in spans(offset, data.len()) {
            let piece = &data[done..done + many];
            match self.write_block(caller, file, offset + done as u64, piece).await {
                Ok(()) => done += many,
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
        }
        u32::try_from(done).map_err(|_| FsError::Invalid)
    }

    async fn write_block(
        self: &Arc<Self>,
        caller: Caller,
        file: &Arc<File>,
        offset: u64,
        data: &[u8],
    ) -> Result<(), FsError> {
        let mut changes = file.changes();
        let mut spare: Option<Buffer> = None;
        loop {
            changes.borrow_and_update();
            self.check()?;
            let need = {
                let state = file.state();
                if state.lost || self.check().is_err() {
                    return Err(FsError::Lost);
                }
                match state.write_needs(offset, data.len()) {
                    Err(need) => Err(need),
                    Ok(rooms) => {
                        let mut given = Vec::new();
                        let mut short = None;
                        for (block, plain) in rooms {
                            let holds = |buffer: &Buffer| buffer.len() >= room_len(plain);
                            let buffer = spare.take().filter(holds);
                            match buffer.or_else(|| self.budget.try_buffer(room_len(plain))) {
                                Some(buffer) => given.push((block, buffer)),
                                None => short = Some(plain),
                            }
                        }
                        let Some(plain) = short else {
                            self.write_now(caller, file, state, offset, data, given);
                            return Ok(());
                        };
                        Ok(plain)
                    }
                }
            };
            match need {
                Ok(plain) => spare = Some(self.room(plain).await?),
                Err(need) => {
                    // Nobody waits with a buffer in his hand.
                    drop(spare.take());
                    self.meet(file, need, &mut changes).await?;
                }
            }
        }
    }

    /// Does what has to be done first.
    async fn meet(
        self: &Arc<Self>,
        file: &Arc<File>,
        need: Need,
        changes: &mut tokio::sync::watch::Receiver<()>,
    ) -> Result<(), FsError> {
        match need {
            Need::Change => {
                let _file_lives = changes.changed().await;
                self.check()
            }
            Need::Open(block) if self.opens(file, block) => self.open_block(file, block).await,
            Need::Fetch(block) => {
                let place = self.place(file);
                match self.fill_block(file, block).await {
                    Err(FsError::Gone) => self.is_elsewhere(file, place).await,
                    filled => filled,
                }
            }
            Need::Open(_) | Need::Publish => {
                let _turn = file.turn.lock().await;
                if self.path(file.node).is_none() {
                    return Err(FsError::Gone);
                }
                self.publish(file).await
            }
        }
    }

    /// Where the file's bytes are at home.
    fn place(&self, file: &File) -> (Option<String>, Option<String>) {
        let version = file.state().home.as_ref().map(|home| home.version.clone());
        (self.path(file.node), version)
    }

    /// What was not found there may just have been moved or replaced at home: waits until that is known
    /// here too. An error when nothing has changed: it is gone.
    async fn is_elsewhere(
        &self,
        file: &File,
        place: (Option<String>, Option<String>),
    ) -> Result<(), FsError> {
        let _turn = file.turn.lock().await;
        if place.0.is_some() && self.place(file) != place { Ok(()) } else { Err(FsError::Gone) }
    }

    fn opens(&self, file: &File, block: u64) -> bool {
        match file.state().blocks.get(&block) {
            Some(super::content::Block::Sealed { sealed, .. }) => sealed.content.opens(),
            _ => true,
        }
    }

    /// Gives the file another length.
    pub(super) async fn resize(
        self: &Arc<Self>,
        caller: Caller,
        file: &Arc<File>,
        len: u64,
    ) -> Result<(), FsError> {
        if len > RESULT_LEN_MAX {
            return Err(FsError::TooLarge);
        }
        let mut changes = file.changes();
        loop {
            changes.borrow_and_update();
            self.check()?;
            let need = {
                let mut state = file.state();
                if state.lost && len > 0 {
                    return Err(FsError::Lost);
                }
                let need = state.resize_needs(len);
                if need.is_none() {
                    let was_lost = state.lost;
                    state.resize(len, SystemTime::now())?;
                    state.writers.changed_by(caller.thread, process_of);
                    self.tell(file, &mut state);
                    // A version on its way is what a successor would show.
                    let waits = lock(&file.pending).is_some() || lock(&file.recorded).is_some();
                    if was_lost {
                        state.told = false;
                    }
                    if was_lost && !waits {
                        self.record(&[Record::Emptied { node: file.node }]);
                    }
                    // A file that is empty and never was home is nothing to lose until it is written.
                    let loses = len > 0 || state.home.is_some() || waits;
                    if state.dirty && loses && !std::mem::replace(&mut state.told, true) {
                        self.record(&[Record::Dirty { node: file.node }]);
                    }
                    return Ok(());
                }
                need
            };
            if let Some(need) = need {
                self.meet(file, need, &mut changes).await?;
            }
        }
    }

    /// Reads; short only at the end of the file.
    pub(super) async fn read(
        self: &Arc<Self>,
        file: &Arc<File>,
        offset: u64,
        size: u32,
    ) -> Result<Zeroizing<Vec<u8>>, FsError> {
        self.check()?;
        let len = {
            let state = file.state();
            if state.lost {
                return Err(FsError::Lost);
            }
            state.len
        };
        let many = u64::from(size).min(len.saturating_sub(offset));
        let many = usize::try_from(many).map_err(|_| FsError::Invalid)?;
        let mut out = Zeroizing::new(vec![0; many]);
        let mut done = 0;
        for (block, at, many) in spans(offset, out.len()) {
            self.read_block(file, block, at, &mut out[done..done + many]).await?;
            done += many;
        }
        let mut state = file.state();
        state.cached = state.cached.max(offset + out.len() as u64);
        Ok(out)
    }

    async fn read_block(
        self: &Arc<Self>,
        file: &Arc<File>,
        block: u64,
        at: usize,
        out: &mut [u8],
    ) -> Result<(), FsError> {
        let mut changes = file.changes();
        loop {
            changes.borrow_and_update();
            self.check()?;
            let (reading, home) = {
                let state = file.state();
                if state.lost {
                    return Err(FsError::Lost);
                }
                (state.read_plain(block, at, out), state.home.clone())
            };
            match reading {
                Reading::Done => return Ok(()),
                Reading::Sealed(sealed, valid) => {
                    if !sealed.content.opens() {
                        self.meet(file, Need::Publish, &mut changes).await?;
                        continue;
                    }
                    let there = valid.saturating_sub(at).min(out.len());
                    let (lease, mut plain) = (self.lease, Zeroizing::new(vec![0; there]));
                    let opened = self
                        .handle
                        .spawn_blocking(move || sealed.read(at, &mut plain, lease).map(|()| plain));
                    let plain = opened.await.unwrap_or(Err(FsError::Lost))?;
                    out[..there].copy_from_slice(&plain);
                    out[there..].fill(0);
                    return Ok(());
                }
                Reading::Home(there) => {
                    let home = home.ok_or(FsError::Gone)?;
                    let place = self.place(file);
                    let bytes = match self.from_home(file, &home, block).await {
                        Err(FsError::Gone) if self.has_moved(file, &home) => continue,
                        Err(FsError::Gone) => {
                            self.is_elsewhere(file, place).await?;
                            continue;
                        }
                        bytes => bytes?,
                    };
                    let bytes = bytes.get(at..at + there).ok_or(FsError::Gone)?;
                    out[..there].copy_from_slice(bytes);
                    if self.has_moved(file, &home) {
                        continue;
                    }
                    return Ok(());
                }
                Reading::Needs(need) => self.meet(file, need, &mut changes).await?,
            }
        }
    }

    fn has_moved(&self, file: &File, home: &Arc<super::content::AtHome>) -> bool {
        !file.state().home.as_ref().is_some_and(|now| Arc::ptr_eq(now, home))
    }

    /// Blocks that one reader is given ahead: a small share of all buffers, at most a part.
    fn read_ahead(&self) -> u64 {
        (self.budget.total() / AHEAD / BLOCK as u64).clamp(1, PART_BLOCKS)
    }

    /// One block of the version at home, by way of a few that are kept in RAM. Who reads from front to
    /// back is given some at a time.
    async fn from_home(
        self: &Arc<Self>,
        file: &Arc<File>,
        home: &super::content::AtHome,
        block: u64,
    ) -> Result<Arc<Buffer>, FsError> {
        let sequential = {
            let mut cache = lock(&file.cache);
            if let Some(found) = cache.get(&home.version, block) {
                return Ok(found);
            }
            cache.is_sequential(block)
        };
        let blocks = home.len.div_ceil(BLOCK as u64);
        let ahead = if sequential { self.read_ahead() } else { 1 };
        let offset = |block: u64| block * BLOCK as u64;
        let mut buffers = Vec::new();
        for block in block..blocks.min(block + ahead) {
            let len = usize::try_from(home.len - offset(block)).map_or(BLOCK, |len| len.min(BLOCK));
            // More than the first only while there is room to spare.
            let mut buffer = match self.budget.try_buffer(len) {
                Some(buffer) => buffer,
                None if buffers.is_empty() => self.room(len).await?,
                None => break,
            };
            buffer.truncate(len);
            buffers.push(buffer);
        }
        // Who waits for room waits for these, which cannot be let go yet.
        let _work = self.begin_work();
        let len = buffers.iter().map(|buffer| buffer.len()).sum::<usize>();
        let asked = ReadRequest {
            path: self.path(file.node).ok_or(FsError::Gone)?,
            version: home.version.clone(),
            offset: offset(block),
            len: u32::try_from(len).map_err(|_| FsError::Invalid)?,
        };
        let mut pieces: Vec<_> = buffers.iter_mut().map(|buffer| &mut buffer[..]).collect();
        self.home.read(&asked, &mut pieces).await.map_err(Refusal::errno)?;
        let mut first = None;
        let mut cache = lock(&file.cache);
        for (block, buffer) in (block..).zip(buffers) {
            let buffer = Arc::new(buffer);
            cache.put(&home.version, block, Arc::clone(&buffer));
            first.get_or_insert(buffer);
        }
        first.ok_or(FsError::Gone)
    }
}

fn check_range(offset: u64, len: usize) -> Result<(), FsError> {
    let end = offset.checked_add(len as u64).ok_or(FsError::TooLarge)?;
    if end > RESULT_LEN_MAX { Err(FsError::TooLarge) } else { Ok(()) }
}
