//! Buffers for reads that lie in more than one block. A fixed few, taken out of the budget once: a
//! read that holds one waits for blocks, and blocks never wait for one, so nothing can lock up.

use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::blocks::MAX_READ;
use crate::budget::{Budget, Buffer};

/// At most this many buffers, and no more than one for each 32 MiB of the budget.
const BUFFERS: u64 = 8;

pub(super) struct Assembly {
    permits: Arc<Semaphore>,
    free: Arc<Mutex<Vec<Buffer>>>,
}

/// A buffer of [`MAX_READ`] bytes, given back when dropped.
pub(super) struct Taken {
    buffer: Option<Buffer>,
    free: Arc<Mutex<Vec<Buffer>>>,
    _permit: OwnedSemaphorePermit,
}

impl Assembly {
    /// Takes its buffers out of the budget.
    pub(super) fn new(budget: &Budget) -> io::Result<Self> {
        let wanted = (budget.total() >> 25).clamp(1, BUFFERS);
        let buffers: Vec<_> = (0..wanted).map_while(|_| budget.try_buffer(MAX_READ)).collect();
        if buffers.is_empty() {
            return Err(io::Error::other("the memory budget has no room for a read of 1 MiB"));
        }
        Ok(Self {
            permits: Arc::new(Semaphore::new(buffers.len())),
            free: Arc::new(Mutex::new(buffers)),
        })
    }

    pub(super) fn try_take(&self) -> Option<Taken> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        Some(self.taken(permit))
    }

    pub(super) async fn take(&self) -> Taken {
        let permit =
            Arc::clone(&self.permits).acquire_owned().await.expect("the semaphore is never closed");
        self.taken(permit)
    }

    fn taken(&self, permit: OwnedSemaphorePermit) -> Taken {
        let buffer = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Taken { buffer, free: Arc::clone(&self.free), _permit: permit }
    }
}

impl Deref for Taken {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.buffer.as_deref().unwrap_or_default()
    }
}

impl DerefMut for Taken {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.buffer.as_deref_mut().unwrap_or_default()
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            self.free.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
        }
    }
}
