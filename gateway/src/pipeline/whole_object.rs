//! Whole blocks of a bucket's objects: one range request, sealed and sent as it comes in.
//!
//! The store answers for one version (`If-Match`, version id) or not at all, so what comes in
//! belongs together; the last chunk is sealed only when the whole range has come.

use std::sync::Arc;

use bytes::Bytes;
use tidegate_plan::{Entry, Extent};
use tidegate_seal::Sealer;
use tokio::task::spawn_blocking;

use super::budget::Budget;
use super::frame::{Frame, frames, shape};
use super::job::{BlockJob, Frames, Refused, Torn};
use super::outlet::Outlet;
use crate::source::{Bucket, RangeReader, ReadError};

/// Returns when the first frame is sealed.
pub(super) async fn start(
    job: BlockJob,
    bucket: Arc<Bucket>,
    extent: Extent,
    entry: Entry,
    budget: &Budget,
) -> Result<Frames, Refused> {
    let (outlet, stream) = Outlet::new(budget);
    let Some(first) = outlet.wait().await else { return Ok(stream) };
    let refused = |why: ReadError| {
        job.log(&entry, &why);
        Refused::of(&entry, why)
    };
    let reader = bucket.read(&entry, extent.offset, extent.len.into()).await.map_err(refused)?;
    let plain = extent.len as usize;
    let run = Run { reader, rest: Bytes::new(), plain, sealer: job.sealer(), next: 0 };
    let (run, bytes) = run.frame(first.frame).await.map_err(refused)?;
    first.room.send(Ok(bytes));
    let mut next = run.unfinished();
    tokio::spawn(async move {
        while let Some(run) = next {
            let Some(ready) = (match outlet.at_once() {
                Some(ready) => Some(ready),
                None => outlet.wait().await,
            }) else {
                return;
            };
            match run.frame(ready.frame).await {
                Ok((run, bytes)) => {
                    ready.room.send(Ok(bytes));
                    next = run.unfinished();
                }
                Err(why) => {
                    job.log(&entry, &why);
                    ready.room.send(Err(Torn { path: entry.path, why }));
                    return;
                }
            }
        }
    });
    Ok(stream)
}

/// One block under way.
struct Run {
    reader: RangeReader,
    /// Came in and is not in a frame yet.
    rest: Bytes,
    plain: usize,
    sealer: Sealer,
    /// Number of the next frame.
    next: usize,
}

impl Run {
    async fn frame(mut self, mut frame: Frame) -> Result<(Self, Bytes), ReadError> {
        let (len, part) = shape(self.plain, self.next);
        let mut filled = 0;
        while filled < len {
            if self.rest.is_empty() {
                self.rest = self.reader.chunk().await?.ok_or_else(ended)?;
            }
            let now = self.rest.split_to(self.rest.len().min(len - filled));
            frame.put(filled, &now);
            filled += now.len();
        }
        let whole = self.rest.is_empty() && (!part.last || self.reader.chunk().await?.is_none());
        if part.last && !whole {
            return Err(ended());
        }
        self.next += 1;
        let sealing = spawn_blocking(move || {
            let bytes = frame.seal(&mut self.sealer, len, part);
            (self, bytes)
        });
        sealing.await.map_err(|failed| ReadError::Unavailable(failed.to_string()))
    }

    fn unfinished(self) -> Option<Self> {
        (self.next < frames(self.plain)).then_some(self)
    }
}

fn ended() -> ReadError {
    ReadError::Unavailable("the store sent another length than was asked for".to_owned())
}
