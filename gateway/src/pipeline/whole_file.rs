//! Whole blocks of a directory's files: read, sealed and sent frame by frame.
//!
//! The version is proved for every frame after its bytes were read and before any of them is
//! sealed, so no chunk of another version is ever sent. The first frame is read before the caller
//! hears anything: what changed before that is a clean refusal, what changes later tears the
//! stream, which then never reaches its last chunk.

use std::sync::Arc;

use bytes::Bytes;
use tidegate_plan::{Entry, Extent};
use tidegate_seal::Sealer;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use super::budget::Budget;
use super::frame::{FRAME_PLAIN, Frame, frames, shape};
use super::job::{BlockJob, Frames, Refused, Torn};
use super::outlet::{Outlet, Ready};
use crate::source::{Directory, PinnedFile, ReadError};

/// Reads and seals on a thread of its own while there is room; waits for room without one.
pub(super) async fn start(
    job: BlockJob,
    directory: Arc<Directory>,
    extent: Extent,
    entry: Entry,
    budget: &Budget,
) -> Result<Frames, Refused> {
    let (outlet, stream) = Outlet::new(budget);
    let Some(first) = outlet.wait().await else { return Ok(stream) };
    let (begun, ready) = oneshot::channel();
    tokio::spawn(async move {
        let opening = {
            let outlet = outlet.clone();
            move || {
                let opened = Run::open(job, &directory, extent, entry);
                let refused = match opened.and_then(|run| run.begin(first)) {
                    Ok(run) => {
                        let heard = begun.send(Ok(())).is_ok();
                        return run.filter(|_| heard).and_then(|run| match outlet.at_once() {
                            Some(ready) => run.on(ready, &outlet),
                            None => Some(run),
                        });
                    }
                    Err(refused) => refused,
                };
                // Whoever asked may be gone.
                let _ = begun.send(Err(refused));
                None
            }
        };
        let mut run = spawn_blocking(opening).await.ok().flatten();
        while let Some(waiting) = run {
            let Some(ready) = outlet.wait().await else { return };
            let outlet = outlet.clone();
            run = spawn_blocking(move || waiting.on(ready, &outlet)).await.ok().flatten();
        }
    });
    match ready.await {
        Ok(result) => result.map(|()| stream),
        Err(_) => Err(Refused::Failed),
    }
}

/// One block under way.
struct Run {
    job: BlockJob,
    entry: Entry,
    file: PinnedFile,
    extent: Extent,
    sealer: Sealer,
    /// Number of the next frame.
    next: usize,
}

impl Run {
    fn open(
        job: BlockJob,
        directory: &Directory,
        extent: Extent,
        entry: Entry,
    ) -> Result<Self, Refused> {
        match directory.open_file(&entry) {
            Ok(file) => {
                let sealer = job.sealer();
                Ok(Self { job, entry, file, extent, sealer, next: 0 })
            }
            Err(why) => {
                job.log(&entry, &why);
                Err(Refused::of(&entry, why))
            }
        }
    }

    /// Sends the first frame; `None` when it is the only one.
    fn begin(mut self, ready: Ready) -> Result<Option<Self>, Refused> {
        match self.frame(ready.frame) {
            Ok(bytes) => {
                ready.room.send(Ok(bytes));
                Ok(self.unfinished())
            }
            Err(why) => {
                self.job.log(&self.entry, &why);
                Err(Refused::of(&self.entry, why))
            }
        }
    }

    /// Sends frames as long as there is room; `None` when there is nothing more to send.
    fn on(mut self, mut ready: Ready, outlet: &Outlet) -> Option<Self> {
        loop {
            match self.frame(ready.frame) {
                Ok(bytes) => ready.room.send(Ok(bytes)),
                Err(why) => {
                    self.job.log(&self.entry, &why);
                    ready.room.send(Err(Torn { path: self.entry.path, why }));
                    return None;
                }
            };
            self = self.unfinished()?;
            match outlet.at_once() {
                Some(next) => ready = next,
                None => return Some(self),
            }
        }
    }

    fn frame(&mut self, mut frame: Frame) -> Result<Bytes, ReadError> {
        let (len, part) = shape(self.extent.len as usize, self.next);
        let offset = self.extent.offset + (self.next * FRAME_PLAIN) as u64;
        self.file.read_pieces(offset, &mut frame.io_pieces(0..len))?;
        self.file.check()?;
        self.next += 1;
        Ok(frame.seal(&mut self.sealer, len, part))
    }

    fn unfinished(self) -> Option<Self> {
        (self.next < frames(self.extent.len as usize)).then_some(self)
    }
}
