//! The FUSE adaptor: one handler an operation, which calls `fs` and replies.
//!
//! A read whose bytes are here is answered inline, from a page-aligned buffer of the thread. One that
//! must wait moves its reply into a task and the thread goes back to its queue, so that cold reads
//! never stall hot ones. A reply that is dropped unsent answers EIO by itself.

mod adaptor;
mod assembly;
mod later;
mod listing;
mod reads;
mod replies;
mod session;
mod writing;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use fuser::{BackgroundSession, Filesystem, INodeNo, Notifier};
use tokio::runtime::Handle;

use crate::budget::Budget;
use crate::fs::Fs;
use crate::holder::MountKind;
use crate::results::Results;

use self::adaptor::Adaptor;
use self::assembly::Assembly;
use self::later::Later;
use self::reads::Reads;
use self::writing::Writing;

/// A served mount: its session threads and a way to tell the kernel things.
pub(crate) struct Served {
    sessions: Vec<BackgroundSession>,
    notifier: Notifier,
    /// Buffers that reads of data are put together in; results have none.
    assembly: Option<Arc<Assembly>>,
}

/// What the holder handed over of a mount.
pub(crate) struct Connection {
    pub(crate) devices: Vec<OwnedFd>,
    /// The INIT request that the holder answered.
    pub(crate) init: Vec<u8>,
    /// A worker before this one was killed and may have left requests unanswered.
    pub(crate) successor: bool,
}

/// Serves `fs` on each descriptor with a thread of its own.
pub(crate) fn serve(fs: &Arc<Fs>, budget: &Budget, connection: Connection) -> io::Result<Served> {
    let assembly = Arc::new(Assembly::new(budget)?);
    let runtime = Handle::current();
    let reads = || Reads::new(Arc::clone(&assembly), runtime.clone());
    let adaptor = || Adaptor::new(Arc::clone(fs), reads());
    let (sessions, notifier) = adopt(&connection, MountKind::Data, adaptor)?;
    Ok(Served { sessions, notifier, assembly: Some(assembly) })
}

/// Serves results on each descriptor with a thread of its own.
pub(crate) fn serve_results(results: &Arc<Results>, connection: Connection) -> io::Result<Served> {
    let later = Later::new(Handle::current());
    let writing = || Writing::new(Arc::clone(results), later.clone());
    let (sessions, notifier) = adopt(&connection, MountKind::Results, writing)?;
    Ok(Served { sessions, notifier, assembly: None })
}

fn adopt<F: Filesystem>(
    connection: &Connection,
    kind: MountKind,
    filesystem: impl Fn() -> F,
) -> io::Result<(Vec<BackgroundSession>, Notifier)> {
    let devices = &connection.devices;
    let adopted = |_| session::adopt(filesystem(), &connection.init);
    let sessions = devices.iter().map(adopted).collect::<io::Result<Vec<_>>>()?;
    let (Some(first), Some(device)) = (sessions.first(), devices.first()) else {
        return Err(io::Error::other("no /dev/fuse descriptor was handed over"));
    };
    let notifier = first.notifier();
    if connection.successor {
        session::resend(device)?;
    }
    let started = |(session, device)| session::start(session, device, kind.longest_write());
    let sessions = sessions.into_iter().zip(devices).map(started).collect::<io::Result<_>>()?;
    Ok((sessions, notifier))
}

impl Served {
    /// Wipes the buffers in which reads are put together.
    pub(crate) fn wipe_buffers(&self) {
        if let Some(assembly) = &self.assembly {
            assembly.wipe();
        }
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
