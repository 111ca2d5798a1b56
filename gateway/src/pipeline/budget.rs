//! The one bound on the pipeline's memory, and the buffers it counts.
//!
//! A permit is one frame's buffer. Whoever needs several at once takes them in one go; whoever
//! streams takes one at a time and gives it back when the connection took its bytes. So nobody
//! holds some and waits for more, and nothing can lock up.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::buffer::{FRAME_BYTES, Unused};
use super::frame::{Frame, MOST_FRAMES};

/// Byte budget of all blocks that are read and sealed at once. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Budget {
    permits: Arc<Semaphore>,
    total: usize,
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
        Self { permits: Arc::new(Semaphore::new(total)), total, unused }
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
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        Some(self.fill(permit))
    }

    /// `n` frames, and room for `more` frames' worth of bytes that lie elsewhere.
    pub(super) async fn frames(
        &self,
        n: usize,
        more: usize,
    ) -> (Vec<Frame>, Option<OwnedSemaphorePermit>) {
        let asked = u32::try_from(n + more).expect("a block has a few frames");
        let mut permit = Arc::clone(&self.permits)
            .acquire_many_owned(asked)
            .await
            .expect("the budget is never closed");
        let frames = (0..n).filter_map(|_| permit.split(1)).map(|one| self.fill(one)).collect();
        (frames, Some(permit).filter(|rest| rest.num_permits() > 0))
    }

    fn fill(&self, permit: OwnedSemaphorePermit) -> Frame {
        let (buffer, lent) = Unused::lend(&self.unused, permit);
        Frame::new(buffer, lent)
    }
}
