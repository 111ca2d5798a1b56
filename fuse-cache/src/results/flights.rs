//! Parts on their way, side by side. Those that are complete behind a writer fly before anybody asks.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use tidegate_plan::{ContentId, RESULT_PART_LEN};
use tidegate_wire::{
    AbandonRequest, BeginReply, BeginRequest, CopyRequest, PartReceipt, PartRequest, ProblemKind,
    frame_head,
};

use super::block::Sealed;
use super::content::{State, Upload};
use super::core::{Core, File, Part, Version, lock};
use super::home::Refusal;
use super::journal::Record;
use crate::client::{Outgoing, Piece, Source};

impl Core {
    /// One part of a version; the caller has its permit to fly.
    pub(super) async fn bring_part(
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
    pub(super) async fn begin_upload(
        self: &Arc<Self>,
        file: &Arc<File>,
        content: ContentId,
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

    pub(super) fn forget_upload(&self, file: &File) {
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

pub(super) fn framed(head: &impl Serialize, blocks: &[Arc<Sealed>]) -> Result<Outgoing, Refusal> {
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
