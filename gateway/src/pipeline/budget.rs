//! The one bound on the pipeline's memory, and the buffers it counts.
//!
//! A permit is one frame's buffer. Whoever needs several at once takes them in one go; whoever
//! streams takes one at a time and gives it back when the connection took its bytes. So nobody
//! holds some and waits for more, and nothing can lock up.
//!
//! A worker that reads slowly keeps what it was given for as long. So each has a [part](Budget::part)
//! of the budget and waits for itself beyond it.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::buffer::{FRAME_BYTES, Unused};
use super::frame::{Frame, MOST_FRAMES};
use super::permit::Permit;

/// One worker may hold this fraction of the budget: a few workers fill it, no single one does, and a
/// quarter of the default is 15 packed blocks in flight, more than a long link of 10 Gbit/s needs.
const PART: usize = 4;

/// Byte budget of all blocks that are read and sealed at once. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Budget {
    permits: Arc<Semaphore>,
    total: usize,
    /// What this handle and its clones may hold together; `None` for all of it.
    part: Option<Arc<Semaphore>>,
    unused: Arc<Unused>,
}

impl Budget {
    /// At least room for two whole blocks, however little `bytes` is.
    pub fn new(bytes: u64) -> Self {
        let frames = bytes / FRAME_BYTES as u64;
        let total = usize::try_from(frames)
            .unwrap_or(Semaphore::MAX_PERMITS)
            .clamp(2 * MOST_FRAMES, Semaphore::MAX_PERMITS);
        let unused = Arc::new(Unused::default());
        Self { permits: Arc::new(Semaphore::new(total)), total, part: None, unused }
    }

    /// One worker's part of the same budget: room for two whole blocks at least.
    pub fn part(&self) -> Self {
        let most = (self.total / PART).max(2 * MOST_FRAMES);
        Self { part: Some(Arc::new(Semaphore::new(most))), ..self.clone() }
    }

    /// Bytes in use now.
    pub fn used(&self) -> u64 {
        ((self.total - self.permits.available_permits().min(self.total)) * FRAME_BYTES) as u64
    }

    pub(super) async fn frame(&self) -> Frame {
        let (frames, _) = self.frames(1, 0).await;
        frames.into_iter().next().expect("one frame was asked for")
    }

    /// A frame if there is one now.
    pub(super) fn try_frame(&self) -> Option<Frame> {
        let part = match &self.part {
            Some(part) => Some(Arc::clone(part).try_acquire_owned().ok()?),
            None => None,
        };
        let all = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        Some(self.fill(Permit { all, part }))
    }

    /// `n` frames, and room for `more` frames' worth of bytes that lie elsewhere.
    pub(super) async fn frames(&self, n: usize, more: usize) -> (Vec<Frame>, Option<Permit>) {
        let asked = u32::try_from(n + more).expect("a block has a few frames");
        // First the own part: who has used that up does not stand in the way of others.
        let part = match &self.part {
            Some(part) => Some(take(part, asked).await),
            None => None,
        };
        let all = take(&self.permits, asked).await;
        let mut permit = Permit { all, part };
        let frames = (0..n).filter_map(|_| permit.split_one()).map(|one| self.fill(one)).collect();
        (frames, Some(permit).filter(|rest| !rest.is_empty()))
    }

    fn fill(&self, permit: Permit) -> Frame {
        let (buffer, lent) = Unused::lend(&self.unused, permit);
        Frame::new(buffer, lent)
    }
}

async fn take(from: &Arc<Semaphore>, asked: u32) -> OwnedSemaphorePermit {
    Arc::clone(from).acquire_many_owned(asked).await.expect("the budget is never closed")
}
