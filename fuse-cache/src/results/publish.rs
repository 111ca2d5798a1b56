//! A file's way home, one at a time for each file (`File::turn`): a version is taken, and brought. A
//! short one goes in one request, a longer one part by part.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tidegate_plan::{RESULT_PART_LEN, result_parts};
use tidegate_wire::{CommitRequest, PartReceipt, ProblemKind, StoreRequest, Stored};
use tokio::task::JoinSet;

use super::block::{Part, Sealed};
use super::content::{AtHome, Block};
use super::core::{Core, File, lock};
use super::flights::framed;
use super::home::Refusal;
use super::journal::{HomeRecord, Record};
use super::version::Version;
use crate::errno::FsError;

/// Times that a version's way home begins again because of what became of an upload.
pub(super) const AGAIN: u32 = 6;

impl Core {
    /// Brings the present content home, if it is not. The caller holds the file's turn.
    pub(super) async fn publish(self: &Arc<Self>, file: &Arc<File>) -> Result<(), FsError> {
        if self.path(file.node).is_none() {
            return Ok(());
        }
        while let Some(version) = self.take_version(file).await? {
            // What lies in the spool already is told at once.
            self.record_complete(file, &version);
            if self.bring_and_keep(file, &version).await? {
                break;
            }
        }
        Ok(())
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
                *lock(&file.recorded) = None;
                self.drop_upload(file);
                return Ok(true);
            };
            let brought = if version.len <= RESULT_PART_LEN as u64 {
                self.drop_upload(file);
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
                Ok(_) | Err(Refusal::Kind(ProblemKind::Absent)) => {
                    self.end_upload(file, None);
                }
                Err(refusal) => {
                    self.came_to_nothing(file, version);
                    if refusal == Refusal::Lost {
                        self.lose(file);
                    }
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
        // What a worker before this one sealed can be sent, and not be sealed again: while the file still is of
        // that, it stays as it is.
        let is_needed = state
            .blocks
            .values()
            .any(|block| matches!(block, Block::Sealed { sealed, .. } if !sealed.content.opens()));
        if !self.asynchronous
            && (version.opens() || !is_needed)
            && pending.as_ref().is_some_and(|pending| Arc::ptr_eq(pending, version))
        {
            *pending = None;
            (state.dirty, state.told) = (true, true);
            state.writers.join(&version.writers);
            self.record(&[Record::Withdrawn { node: file.node }]);
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
        self.sets_out(file);
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
        self.sets_out(file);
        Ok((self.home.ask("commit", &request).await?, receipts))
    }

    /// From now on it may be at home, whether or not this worker lives to hear of it: who renames or
    /// removes it must look there.
    fn sets_out(&self, file: &File) {
        let mut state = file.state();
        state.unheard = true;
        if state.home.is_none() && !state.covers {
            state.covers = true;
            self.record(&[Record::SetsOut { node: file.node }]);
        }
    }

    fn is_home(
        self: &Arc<Self>,
        file: &Arc<File>,
        version: &Arc<Version>,
        stored: Stored,
        receipts: Vec<PartReceipt>,
    ) {
        let files = self.stored_files.fetch_add(1, Ordering::Relaxed) + 1;
        let bytes = self.stored_bytes.fetch_add(version.len, Ordering::Relaxed) + version.len;
        let home = AtHome { version: stored.version, len: version.len, receipts };
        let mut state = file.state();
        let parts = std::mem::take(&mut *lock(&version.parts));
        // What was copied at home costs nothing.
        let copied = parts.iter().map(|part| match part {
            Part::Copy(receipt) => u64::from(receipt.len),
            Part::Sealed(_) | Part::Brought { .. } => 0,
        });
        let sent = version.len.saturating_sub(copied.sum());
        self.spent_files.fetch_add(1, Ordering::Relaxed);
        self.spent_bytes.fetch_add(sent, Ordering::Relaxed);
        let brought: BTreeMap<u64, &Arc<Sealed>> = parts
            .iter()
            .flat_map(|part| match part {
                Part::Sealed(blocks) => blocks.as_slice(),
                Part::Copy(_) | Part::Brought { .. } => &[],
            })
            .map(|sealed| (sealed.number, sealed))
            .collect();
        state.blocks.retain(|block, kept| match kept {
            Block::Uploaded => false,
            Block::Sealed { sealed, valid, clean } => {
                let same = brought.get(block).is_some_and(|brought| Arc::ptr_eq(brought, sealed));
                *clean |= same && *valid == sealed.len;
                // What a worker before this one sealed is read from home now.
                !same && !*clean || sealed.content.opens()
            }
            Block::Plain(_) | Block::Underway(_) => true,
        });
        state.seen = version.len.min(state.low);
        state.upload = None;
        (state.covers, state.unheard) = (false, false);
        let mut pending = lock(&file.pending);
        if pending.as_ref().is_some_and(|pending| Arc::ptr_eq(pending, version)) {
            *pending = None;
        }
        if !state.dirty && pending.is_none() {
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
        let dirty = state.told || state.lost;
        self.record(&[
            Record::Attributes { node: file.node, attributes },
            Record::Home { node: file.node, home: record, dirty },
            Record::Sums { files, bytes },
        ]);
        *lock(&file.recorded) = None;
        drop(state);
        lock(&file.cache).clear();
        file.has_changed();
        self.ease();
        self.send_ripe(file);
    }
}

/// Nothing of what is at home can be copied; the version is to be taken again, and stays until then.
fn forget_receipts(file: &File, version: &Version) {
    let mut state = file.state();
    if let Some(home) = &state.home {
        let (version, len) = (home.version.clone(), home.len);
        state.home = Some(Arc::new(AtHome { version, len, receipts: Vec::new() }));
    }
    state.dirty = true;
    state.writers.join(&version.writers);
}
