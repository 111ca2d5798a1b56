//! A file's way home: its version is taken, sealed to the last byte, and brought.
//!
//! One at a time for each file (`File::turn`). A version is taken while nobody writes; from then on
//! the file may go on to change, since the version holds its own sealed blocks. Parts fly side by side;
//! those that are complete behind a writer fly before anybody asks.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use tidegate_plan::{RESULT_PART_LEN, result_blocks, result_parts};
use tidegate_wire::{
    AbandonRequest, BeginReply, BeginRequest, CommitRequest, CopyRequest, PartReceipt, PartRequest,
    ProblemKind, ReadRequest, StoreRequest, Stored, frame_head,
};
use tokio::task::JoinSet;

use super::block::{BLOCK, Content, Plain, Sealed};
use super::content::{AtHome, Block, PART_BLOCKS, State, Upload};
use super::core::{Core, File, Part, Version, lock};
use super::home::Refusal;
use super::journal::{Complete, HomeRecord, PartRecord, Record};
use crate::client::{Outgoing, Piece, Source};
use crate::errno::FsError;

/// Times that a version's way home begins again because of what became of an upload.
const AGAIN: u32 = 6;

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
    /// Brings the present content home, if it is not. The caller holds the file's turn.
    pub(super) async fn publish(self: &Arc<Self>, file: &Arc<File>) -> Result<(), FsError> {
        while let Some(version) = self.take_version(file).await? {
            self.record_complete(file, &version);
            if self.bring(file, &version).await? {
                break;
            }
        }
        Ok(())
    }

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
    pub(super) fn record_complete(&self, file: &File, version: &Version) {
        if let Some(complete) = complete_record(version) {
            self.record(&[Record::Complete { node: file.node, complete: Box::new(complete) }]);
        }
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
    ) -> Result<crate::budget::Buffer, FsError> {
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

    /// Brings a version home. False: it must be taken again, since less of it can be copied there than
    /// was thought. The caller holds the file's turn.
    pub(super) async fn bring(
        self: &Arc<Self>,
        file: &Arc<File>,
        version: &Arc<Version>,
    ) -> Result<bool, FsError> {
        let _work = self.begin_work();
        for _ in 0..AGAIN {
            // What has no name any more need not come home.
            let Some(path) = self.path(file.node) else {
                *lock(&file.pending) = None;
                self.drop_upload(file).await;
                return Ok(true);
            };
            let brought = if version.len <= RESULT_PART_LEN as u64 {
                self.drop_upload(file).await;
                self.store(file, version, &path).await
            } else {
                self.upload(file, version, &path).await
            };
            match brought {
                Ok((stored, receipts)) if !stored.superseded => {
                    self.is_home(file, version, stored, receipts);
                    return Ok(true);
                }
                Err(Refusal::NoCopy) => {
                    forget_receipts(file, version);
                    return Ok(false);
                }
                Ok(_) => self.forget_upload(file),
                Err(Refusal::Kind(ProblemKind::Absent)) => self.forget_upload(file),
                Err(refusal) => {
                    self.came_to_nothing(file, version);
                    file.state().lost |= refusal == Refusal::Lost;
                    return Err(refusal.errno());
                }
            }
        }
        self.came_to_nothing(file, version);
        Err(FsError::Lost)
    }

    /// The version is still to be brought home, by whoever asks next.
    fn came_to_nothing(&self, file: &File, version: &Arc<Version>) {
        let mut state = file.state();
        let mut pending = lock(&file.pending);
        if !self.asynchronous
            && pending.as_ref().is_some_and(|pending| Arc::ptr_eq(pending, version))
        {
            *pending = None;
            state.dirty = true;
        }
    }

    async fn store(
        &self,
        file: &File,
        version: &Version,
        path: &str,
    ) -> Result<(Stored, Vec<PartReceipt>), Refusal> {
        let Some(Part::Sealed(blocks)) = version.part(0) else { return Err(Refusal::Over) };
        let content = blocks.first().map_or(&version.content, |block| &block.content);
        let request = StoreRequest {
            path: path.to_owned(),
            seq: self.home.next_seq(),
            attributes: file.attributes(),
            content: content.id,
            key: content.sealed_key.as_slice().into(),
            len: version.len,
        };
        let body = framed(&request, &blocks)?;
        Ok((self.home.send("store", &body).await?, Vec::new()))
    }

    async fn upload(
        self: &Arc<Self>,
        file: &Arc<File>,
        version: &Arc<Version>,
        path: &str,
    ) -> Result<(Stored, Vec<PartReceipt>), Refusal> {
        let upload = self.begin_upload(file, version.content.id, path).await?;
        let parts = u32::try_from(result_parts(version.len)).unwrap_or(u32::MAX);
        let mut receipts = BTreeMap::new();
        let mut flights = JoinSet::new();
        for part in 0..parts {
            let (core, file, version) = (Arc::clone(self), Arc::clone(file), Arc::clone(version));
            let (upload, path) = (upload.clone(), path.to_owned());
            // Not all at once: each knows its receipt or waits for its flight.
            let permit = Arc::clone(&self.flights).acquire_owned().await;
            flights.spawn(async move {
                let _permit = permit;
                core.bring_part(&file, &version, part, &upload, &path).await
            });
            while let Some(done) = flights.try_join_next() {
                let receipt = done.map_err(|_| Refusal::Over)??;
                receipts.insert(receipt.part, receipt);
            }
        }
        while let Some(done) = flights.join_next().await {
            let receipt = done.map_err(|_| Refusal::Over)??;
            receipts.insert(receipt.part, receipt);
        }
        let receipts: Vec<PartReceipt> = receipts.into_values().collect();
        let request = CommitRequest {
            upload,
            path: path.to_owned(),
            seq: self.home.next_seq(),
            attributes: file.attributes(),
            content: version.content.id,
            len: version.len,
            parts: receipts.clone(),
        };
        Ok((self.home.ask("commit", &request).await?, receipts))
    }

    /// One part of a version; the caller has its permit to fly.
    async fn bring_part(
        self: &Arc<Self>,
        file: &Arc<File>,
        version: &Version,
        part: u32,
        upload: &str,
        path: &str,
    ) -> Result<PartReceipt, Refusal> {
        let mut changes = file.changes();
        // A flight of this part that began before must end first, whatever it brings.
        loop {
            changes.borrow_and_update();
            if !file.state().flying.contains(&part) {
                break;
            }
            let _file_lives = changes.changed().await;
        }
        let blocks = match version.part(part).ok_or(Refusal::Over)? {
            Part::Brought(receipt) => {
                let state = file.state();
                let same = state.upload.as_ref().is_some_and(|open| open.id == upload);
                drop(state);
                // Of an upload that is no more, and nowhere else.
                return if same { Ok(receipt) } else { Err(Refusal::Lost) };
            }
            Part::Copy(receipt) => {
                let version = file.state().home.as_ref().map(|home| home.version.clone());
                let version = version.ok_or(Refusal::Over)?;
                let request =
                    CopyRequest { upload: upload.into(), path: path.into(), version, receipt };
                let copied = self.home.ask("copy", &request).await;
                return copied.map_err(|refusal| match refusal {
                    Refusal::Kind(ProblemKind::OverBudget | ProblemKind::NoSpace) => refusal,
                    // Of the upload or of the version: a version that is sent whole tells.
                    Refusal::Kind(_) => Refusal::NoCopy,
                    other => other,
                });
            }
            Part::Sealed(blocks) => blocks,
        };
        {
            let mut state = file.state();
            if let Some(receipt) = state.upload.as_ref().and_then(|open| open.receipts.get(&part))
                && state.part_is(part, &blocks)
            {
                return Ok(receipt.clone());
            }
            state.flying.insert(part);
        }
        self.fly(Flight { file, part }, &blocks, upload).await
    }

    /// Sends a part that was marked as flying.
    async fn fly(
        &self,
        flight: Flight<'_>,
        blocks: &[Arc<Sealed>],
        upload: &str,
    ) -> Result<PartReceipt, Refusal> {
        let Flight { file, part } = flight;
        let sent = self.send_part(part, blocks, upload).await;
        let mut state = file.state();
        if let Ok(receipt) = &sent
            && state.part_is(part, blocks)
            && let Some(open) = state.upload.as_mut().filter(|open| open.id == upload)
        {
            open.receipts.insert(part, receipt.clone());
            self.record(&[Record::Part { node: file.node, receipt: receipt.clone() }]);
        }
        drop(state);
        drop(flight);
        sent
    }

    async fn send_part(
        &self,
        part: u32,
        blocks: &[Arc<Sealed>],
        upload: &str,
    ) -> Result<PartReceipt, Refusal> {
        let first = blocks.first().ok_or(Refusal::Over)?;
        let len: usize = blocks.iter().map(|block| block.len).sum();
        let request = PartRequest {
            upload: upload.into(),
            content: first.content.id,
            key: first.content.sealed_key.as_slice().into(),
            part,
            len: u32::try_from(len).map_err(|_| Refusal::Over)?,
        };
        self.home.send("part", &framed(&request, blocks)?).await
    }

    /// The file's upload under its present name.
    async fn begin_upload(
        self: &Arc<Self>,
        file: &Arc<File>,
        content: tidegate_plan::ContentId,
        path: &str,
    ) -> Result<String, Refusal> {
        let _alone = file.beginning.lock().await;
        if let Some(open) = &file.state().upload
            && open.path == path
        {
            return Ok(open.id.clone());
        }
        let request = BeginRequest { path: path.to_owned(), content };
        let BeginReply { upload } = self.home.ask("begin", &request).await?;
        self.record(&[Record::Upload {
            node: file.node,
            id: upload.clone(),
            path: path.to_owned(),
        }]);
        file.state().upload =
            Some(Upload { id: upload.clone(), path: path.to_owned(), receipts: BTreeMap::new() });
        Ok(upload)
    }

    fn forget_upload(&self, file: &File) {
        file.state().upload = None;
        self.record(&[Record::NoUpload { node: file.node }]);
    }

    /// Gives an upload up that nobody will commit.
    pub(super) async fn drop_upload(self: &Arc<Self>, file: &Arc<File>) {
        let _alone = file.beginning.lock().await;
        let Some(open) = file.state().upload.take() else { return };
        self.record(&[Record::NoUpload { node: file.node }]);
        let request = AbandonRequest { upload: open.id, path: open.path };
        let core = Arc::clone(self);
        self.handle.spawn(async move {
            let given_up: Result<serde_json::Value, Refusal> =
                core.home.ask("abandon", &request).await;
            if let Err(error) = given_up {
                tracing::debug!(?error, "an upload was left to its store");
            }
        });
    }

    /// A part that is complete behind its writer.
    pub(super) async fn early(self: &Arc<Self>, file: &Arc<File>, part: u32) {
        let _work = self.begin_work();
        let Ok(_permit) = self.flights.acquire().await else { return };
        let ready = |state: &State| {
            let brought = state.upload.as_ref().is_some_and(|u| u.receipts.contains_key(&part));
            let behind = state.len > (u64::from(part) + 1) * RESULT_PART_LEN as u64;
            let idle = !state.frozen && !state.flying.contains(&part);
            (behind && idle && !brought).then(|| state.sealed_part(part)).flatten()
        };
        let Some(blocks) = ready(&file.state()) else { return };
        let Some(content) = blocks.first().map(|block| block.content.id) else { return };
        let Some(path) = self.path(file.node) else { return };
        if lock(&file.pending).is_some() {
            return;
        }
        let Ok(upload) = self.begin_upload(file, content, &path).await else { return };
        {
            let mut state = file.state();
            let still = ready(&state).is_some() && state.part_is(part, &blocks);
            if !still || lock(&file.pending).is_some() {
                return;
            }
            state.flying.insert(part);
        }
        if let Err(Refusal::Kind(ProblemKind::Absent)) =
            self.fly(Flight { file, part }, &blocks, &upload).await
        {
            self.forget_upload(file);
        }
    }

    fn is_home(
        &self,
        file: &File,
        version: &Arc<Version>,
        stored: Stored,
        receipts: Vec<PartReceipt>,
    ) {
        let files = self.stored_files.fetch_add(1, Ordering::Relaxed) + 1;
        let bytes = self.stored_bytes.fetch_add(version.len, Ordering::Relaxed) + version.len;
        let home = AtHome { version: stored.version, len: version.len, receipts };
        let parts = std::mem::take(&mut *lock(&version.parts));
        let mut state = file.state();
        let brought: BTreeMap<u64, &Arc<Sealed>> = parts
            .iter()
            .flat_map(|part| match part {
                Part::Sealed(blocks) => blocks.as_slice(),
                Part::Copy(_) | Part::Brought(_) => &[],
            })
            .map(|sealed| (sealed.number, sealed))
            .collect();
        state.blocks.retain(|block, kept| match kept {
            Block::Uploaded => false,
            Block::Sealed { sealed, valid, clean } => {
                let same = brought.get(block).is_some_and(|brought| Arc::ptr_eq(brought, sealed));
                *clean |= same && *valid == sealed.len;
                true
            }
            Block::Plain(_) | Block::Underway(_) => true,
        });
        state.seen = version.len.min(state.low);
        state.upload = None;
        state.covers = false;
        let mut pending = lock(&file.pending);
        if pending.as_ref().is_some_and(|pending| Arc::ptr_eq(pending, version)) {
            *pending = None;
        }
        let newest = !state.dirty && pending.is_none();
        if newest {
            state.dirty_since = None;
        }
        drop(pending);
        if state.handles == 0 {
            state.drop_clean();
        }
        let record = HomeRecord {
            version: home.version.clone(),
            len: home.len,
            receipts: home.receipts.clone(),
        };
        state.home = Some(Arc::new(home));
        let attributes = super::core::attributes(state.mode, state.mtime);
        drop(state);
        lock(&file.cache).clear();
        self.record(&[
            Record::Attributes { node: file.node, attributes },
            Record::Home { node: file.node, home: record, newest },
            Record::Sums { files, bytes },
        ]);
        file.has_changed();
        self.ease();
    }
}

/// A part on its way, until this is dropped.
struct Flight<'a> {
    file: &'a Arc<File>,
    part: u32,
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.file.state().flying.remove(&self.part);
        self.file.has_changed();
    }
}

/// Nothing of what is at home can be copied; the version is to be taken again.
fn forget_receipts(file: &File, version: &Arc<Version>) {
    let mut state = file.state();
    if let Some(home) = &state.home {
        let (version, len) = (home.version.clone(), home.len);
        state.home = Some(Arc::new(AtHome { version, len, receipts: Vec::new() }));
    }
    state.dirty = true;
    let mut pending = lock(&file.pending);
    if pending.as_ref().is_some_and(|pending| Arc::ptr_eq(pending, version)) {
        *pending = None;
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

fn framed(head: &impl serde::Serialize, blocks: &[Arc<Sealed>]) -> Result<Outgoing, Refusal> {
    let head = frame_head(head).map_err(|_| Refusal::Kind(ProblemKind::Malformed))?;
    let len = head.len() + blocks.iter().map(|block| block.sealed_len()).sum::<usize>();
    let source = |block: &Arc<Sealed>| {
        let block = Arc::clone(block);
        Arc::new(move || match block.in_ram() {
            Some(bytes) => Piece::Ready(bytes),
            None => {
                let block = Arc::clone(&block);
                Piece::Blocking(Box::new(move || block.bytes().map_err(std::io::Error::other)))
            }
        }) as Source
    };
    Ok(Outgoing::new(head.into(), blocks.iter().map(source).collect(), len as u64))
}
