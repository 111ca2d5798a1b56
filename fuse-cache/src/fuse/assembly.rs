//! Buffers for reads that lie in more than one block. A fixed few, taken out of the budget once: a
//! read that holds one waits for blocks, and blocks never wait for one, so nothing can lock up.

use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zeroize::Zeroize as _;

use crate::blocks::MAX_READ;
use crate::budget::{Budget, Buffer};

/// At most this many buffers, and no more than one for each 32 MiB of the budget.
const BUFFERS: u64 = 8;

pub(super) struct Assembly {
    permits: Arc<Semaphore>,
    free: Arc<Mutex<Free>>,
}

struct Free {
    buffers: Vec<Buffer>,
    /// How often all were wiped.
    wipes: u64,
}

/// A buffer of [`MAX_READ`] bytes, given back when dropped.
pub(super) struct Taken {
    buffer: Option<Buffer>,
    /// Wipes before it was taken.
    wipes: u64,
    free: Arc<Mutex<Free>>,
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
            free: Arc::new(Mutex::new(Free { buffers, wipes: 0 })),
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

    /// Wipes the plaintext in the buffers, now or when the last reader gives its one back.
    pub(super) fn wipe(&self) {
        let mut free = lock(&self.free);
        free.wipes += 1;
        for buffer in &mut free.buffers {
            buffer.zeroize();
        }
    }

    fn taken(&self, permit: OwnedSemaphorePermit) -> Taken {
        let mut free = lock(&self.free);
        let (buffer, wipes) = (free.buffers.pop(), free.wipes);
        drop(free);
        Taken { buffer, wipes, free: Arc::clone(&self.free), _permit: permit }
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
        let Some(mut buffer) = self.buffer.take() else { return };
        let mut free = lock(&self.free);
        if free.wipes != self.wipes {
            buffer.zeroize();
        }
        free.buffers.push(buffer);
    }
}

fn lock(free: &Mutex<Free>) -> MutexGuard<'_, Free> {
    free.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_plaintext_outlives_a_wipe() {
        let budget = Budget::new(64 << 20);
        let assembly = Assembly::new(&budget).unwrap();
        let mut taken = [assembly.try_take().unwrap(), assembly.try_take().unwrap()];
        let [early, late] = &mut taken;
        early.fill(0x55);
        late.fill(0x66);
        let [early, late] = taken;
        drop(early);
        assembly.wipe();
        assert!(late.iter().all(|byte| *byte == 0x66), "a reader's bytes do not change under it");
        drop(late);
        for buffer in &lock(&assembly.free).buffers {
            assert!(buffer.iter().all(|byte| *byte == 0));
        }
    }
}
