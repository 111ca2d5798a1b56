//! Parts on their way, side by side. Those that are complete behind a writer fly before anybody asks.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use tidegate_plan::{ContentId, RESULT_PART_LEN};
use tidegate_wire::{
    AbandonRequest, BeginReply, BeginRequest, CopyRequest, PartReceipt, PartRequest, ProblemKind,
    frame_head,
};

use super::block::{Part, Sealed};
use super::content::{State, Upload};
use super::core::{Core, File, UnderWay, lock};
use super::home::Refusal;
use super::journal::Record;
use super::version::Version;
use crate::client::{Outgoing, Piece, Source};

impl Core {
    /// One part of a version; the caller has its permit to fly.
    pub(super) async fn bring_part(
        self: &Arc<Self>,
        file: &Arc<File>,
        version: &Version,
        number: u32,
        upload: &str,
        path: &str,
    ) -> Result<PartReceipt, Refusal> {
        let mut changes = file.changes();
        let part = loop {
            changes.borrow_and_update();
            // A flight of this part that began before must end first, whatever it brings.
            if !file.state().flying.contains(&number) {
                let part = version.part(number).ok_or(Refusal::Over)?;
                let mut state = file.state();
                if let Some(receipt) = state.receipt(upload, number, &part) {
                    return Ok(receipt.clone());
                }
                match part {
                    Part::Brought { upload: of, receipt } if of == upload => return Ok(receipt),
                    // Of an upload that is no more, and nowhere else.
                    Part::Brought { .. } => return Err(Refusal::Lost),
                    part => {
                        state.flying.insert(number);
                        break part;
                    }
                }
            }
            let _file_lives = changes.changed().await;
        };
        self.fly(Flight { file, number }, &part, upload, path).await
    }

    /// Brings a part that was marked as flying.
    async fn fly(
        &self,
        flight: Flight<'_>,
        part: &Part,
        upload: &str,
        path: &str,
    ) -> Result<PartReceipt, Refusal> {
        let Flight { file, number } = flight;
        let brought = match part {
            Part::Sealed(blocks) => self.send_part(number, blocks, upload).await,
            Part::Copy(receipt) => self.copy_part(file, receipt, upload, path).await,
            Part::Brought { receipt, .. } => Ok(receipt.clone()),
        };
        let mut state = file.state();
        if let Ok(receipt) = &brought
            && state.is_still(number, part)
            && let Some(open) = state.upload.as_mut().filter(|open| open.id == upload)
        {
            open.receipts.insert(number, receipt.clone());
            let (content, receipt) = (part.content(), receipt.clone());
            self.record(&[Record::Part { node: file.node, content, receipt }]);
        }
        drop(state);
        drop(flight);
        brought
    }

    /// Has home take a part from the version that is there.
    async fn copy_part(
        &self,
        file: &File,
        receipt: &PartReceipt,
        upload: &str,
        path: &str,
    ) -> Result<PartReceipt, Refusal> {
        let version = file.state().home.as_ref().map(|home| home.version.clone());
        let version = version.ok_or(Refusal::Over)?;
        let (upload, path, receipt) = (upload.into(), path.into(), receipt.clone());
        let copied = self.home.ask("copy", &CopyRequest { upload, path, version, receipt }).await;
        copied.map_err(|refusal| match refusal {
            Refusal::Kind(ProblemKind::OverBudget | ProblemKind::NoSpace) => refusal,
            // Of the upload or of the version: a version that is sent whole tells.
            Refusal::Kind(_) => Refusal::NoCopy,
            other => other,
        })
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

    /// The file's upload under its present name. The caller holds the file's turn.
    pub(super) async fn begin_upload(
        self: &Arc<Self>,
        file: &Arc<File>,
        content: ContentId,
        path: &str,
    ) -> Result<String, Refusal> {
        let open = file.state().upload.as_ref().map(|open| (open.id.clone(), open.path == path));
        match open {
            Some((id, true)) => return Ok(id),
            Some(_) => self.drop_upload(file),
            None => {}
        }
        let request = BeginRequest { path: path.to_owned(), content };
        let BeginReply { upload } = self.home.ask("begin", &request).await?;
        let mut state = file.state();
        let (id, path) = (upload.clone(), path.to_owned());
        self.record(&[Record::Upload { node: file.node, id: id.clone(), path: path.clone() }]);
        state.upload = Some(Upload { id, path, receipts: BTreeMap::new() });
        Ok(upload)
    }

    /// Forgets the file's upload, only if it is this one. What is in it and nowhere else is lost.
    pub(super) fn end_upload(&self, file: &File, only: Option<&str>) -> Option<Upload> {
        let mut state = file.state();
        let open = state.upload.take_if(|open| only.is_none_or(|only| open.id == only))?;
        let pending = lock(&file.pending).clone();
        state.lost |=
            state.has_uploaded() || pending.is_some_and(|version| version.needs_upload(&open.id));
        self.record(&[Record::NoUpload { node: file.node }]);
        Some(open)
    }

    /// Gives an upload up that nobody will commit. The caller holds the file's turn.
    pub(super) fn drop_upload(self: &Arc<Self>, file: &File) {
        let Some(open) = self.end_upload(file, None) else { return };
        let core = Arc::clone(self);
        self.handle.spawn(async move { core.abandon(open).await });
    }

    /// Tells home that nobody will commit this.
    pub(super) async fn abandon(&self, open: Upload) {
        let request = AbandonRequest { upload: open.id, path: open.path };
        let given_up: Result<serde_json::Value, Refusal> = self.home.ask("abandon", &request).await;
        if let Err(error) = given_up {
            tracing::debug!(?error, "an upload was left to its store");
        }
    }

    /// Sends the parts of a file on their way that are complete behind its writer; how many.
    pub(super) fn send_ripe(self: &Arc<Self>, file: &Arc<File>) -> usize {
        let state = file.state();
        let ripe: Vec<_> =
            (0..state.parts()).filter(|part| ripe(&state, *part).is_some()).collect();
        drop(state);
        for part in &ripe {
            let _nobody_drains = self.ripe.send((Arc::clone(file), *part, self.begin_work()));
        }
        ripe.len()
    }

    /// A part that is complete behind its writer.
    pub(super) async fn early(self: &Arc<Self>, file: &Arc<File>, number: u32, work: UnderWay) {
        let (turn, work) = self.turn_of(file, work).await;
        let Ok(permit) = self.flights.acquire().await else { return };
        let first = ripe(&file.state(), number);
        let Some(content) = first.and_then(|blocks| Some(blocks.first()?.content.id)) else {
            return;
        };
        let Some(path) = self.path(file.node) else { return };
        // The upload is that version's.
        if lock(&file.pending).is_some() {
            return;
        }
        let Ok(upload) = self.begin_upload(file, content, &path).await else { return };
        let part = {
            let mut state = file.state();
            let Some(blocks) = ripe(&state, number) else { return };
            state.flying.insert(number);
            Part::Sealed(blocks)
        };
        drop(turn);
        let flown = self.fly(Flight { file, number }, &part, &upload, &path).await;
        if flown == Err(Refusal::Kind(ProblemKind::Absent)) {
            drop((permit, work));
            // It may be gone because it was just committed, without this part.
            let _turn = file.turn.lock().await;
            self.end_upload(file, Some(&upload));
        }
    }
}

/// The blocks of a part that its writer has left behind and that nobody has brought.
pub(super) fn ripe(state: &State, part: u32) -> Option<Vec<Arc<Sealed>>> {
    let brought = state.upload.as_ref().is_some_and(|open| open.receipts.contains_key(&part));
    let behind = state.len > (u64::from(part) + 1) * RESULT_PART_LEN as u64;
    let here = behind && !brought && !state.flying.contains(&part);
    (here && state.copyable(part).is_none()).then(|| state.sealed_part(part)).flatten()
}

/// A part on its way, until this is dropped.
struct Flight<'a> {
    file: &'a Arc<File>,
    number: u32,
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.file.state().flying.remove(&self.number);
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
