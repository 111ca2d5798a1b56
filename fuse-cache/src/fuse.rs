//! The FUSE adaptor: one handler an operation, which calls `fs` and replies.
//!
//! A read whose bytes are here is answered inline, from a page-aligned buffer of the thread. One that
//! must wait moves its reply into a task and the thread goes back to its queue, so that cold reads
//! never stall hot ones. A reply that is dropped unsent answers EIO by itself.

mod adaptor;
mod assembly;
mod reads;
mod session;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use fuser::{BackgroundSession, INodeNo, Notifier};
use tokio::runtime::Handle;

use crate::budget::Budget;
use crate::fs::Fs;

use self::adaptor::Adaptor;
use self::assembly::Assembly;
use self::reads::Reads;

/// A served mount: its session threads and a way to tell the kernel things.
pub(crate) struct Served {
    sessions: Vec<BackgroundSession>,
    notifier: Notifier,
    assembly: Arc<Assembly>,
}

/// Serves `fs` on each descriptor with a thread of its own. `init`: the INIT request the holder
/// answered. `successor`: a worker before this one was killed and may have left requests unanswered.
pub(crate) fn serve(
    fs: &Arc<Fs>,
    budget: &Budget,
    devices: Vec<OwnedFd>,
    init: &[u8],
    successor: bool,
) -> io::Result<Served> {
    let assembly = Arc::new(Assembly::new(budget)?);
    let runtime = Handle::current();
    let sessions = devices
        .iter()
        .map(|device| {
            let reads = Reads::new(Arc::clone(&assembly), runtime.clone());
            session::adopt(Adaptor::new(Arc::clone(fs), reads), device, init)
        })
        .collect::<io::Result<Vec<_>>>()?;
    let first = sessions
        .first()
        .ok_or_else(|| io::Error::other("no /dev/fuse descriptor was handed over"))?;
    let notifier = first.notifier();
    if successor {
        session::resend(first)?;
    }
    let sessions =
        sessions.into_iter().map(fuser::Session::spawn).collect::<io::Result<Vec<_>>>()?;
    Ok(Served { sessions, notifier, assembly })
}

impl Served {
    /// Wipes the buffers in which reads are put together.
    pub(crate) fn wipe_buffers(&self) {
        self.assembly.wipe();
    }

    pub(crate) fn pages(&self) -> Pages {
        Pages(self.notifier.clone())
    }

    /// Blocking: returns when the mount is gone and every thread has ended.
    pub(crate) fn join(self) {
        for session in self.sessions {
            if let Err(error) = session.join() {
                tracing::warn!(%error, "a FUSE session ended badly");
            }
        }
    }
}

/// A hold on the kernel's page cache of the mount.
pub(crate) struct Pages(Notifier);

impl Pages {
    /// Makes the kernel drop the cached pages of these inodes, out of mappings too. Blocking: pages
    /// that are just being read are waited for. Returns how many inodes the kernel refused.
    pub(crate) fn drop_of(&self, inodes: impl Iterator<Item = INodeNo>) -> u64 {
        inodes.filter(|inode| self.0.inval_inode(*inode, 0, 0).is_err()).map(|_| 1).sum()
    }
}

impl std::fmt::Debug for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Served").field("sessions", &self.sessions.len()).finish_non_exhaustive()
    }
}
