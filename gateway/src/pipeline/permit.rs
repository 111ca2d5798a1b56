//! Leave to hold buffers: counted against the budget, and against the part of who asked for them.

use tokio::sync::OwnedSemaphorePermit;

#[derive(Debug)]
pub(super) struct Permit {
    pub(super) all: OwnedSemaphorePermit,
    pub(super) part: Option<OwnedSemaphorePermit>,
}

impl Permit {
    /// One frame's leave out of this one, if there is any left.
    pub(super) fn split_one(&mut self) -> Option<Self> {
        let all = self.all.split(1)?;
        // Both count the same.
        let part = self.part.as_mut().and_then(|part| part.split(1));
        Some(Self { all, part })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.num_permits() == 0
    }
}
