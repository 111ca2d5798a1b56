//! The holder's part of results: their mount, and the journal by which a worker goes on with what a killed
//! one had begun.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::MemfdFlags;
use tidegate_ledger::StatedResults;

use crate::control::ResultsStart;
use crate::holder::Mount;

/// A mount for results and how they are brought home.
#[derive(Debug)]
pub struct ResultsMount {
    /// Made as [`MountKind::Results`](crate::holder::MountKind::Results).
    pub mount: Mount,
    /// Most bytes of ciphertext on disk.
    pub spool_bytes: Option<u64>,
    /// `fsync` and `close` return once everything is sealed on this machine's disk.
    pub asynchronous: bool,
    /// A lease that brings nothing home is an error. Otherwise the mount goes, and
    /// [`Ready::results`](crate::Ready::results) says so.
    pub required: bool,
}

impl ResultsMount {
    pub(super) fn place(&self) -> (PathBuf, Option<u64>) {
        (self.mount.at().to_owned(), self.mount.id())
    }
}

/// The mount, while workers come and go.
pub(super) struct HeldResults {
    pub(super) mount: Mount,
    /// In memory only, since it has the names. Written and read by workers.
    journal: OwnedFd,
    spool_bytes: Option<u64>,
    asynchronous: bool,
    required: bool,
}

impl HeldResults {
    pub(super) fn new(results: ResultsMount) -> io::Result<Self> {
        let journal = rustix::fs::memfd_create("tidegate-results", MemfdFlags::CLOEXEC)?;
        let ResultsMount { mount, spool_bytes, asynchronous, required } = results;
        Ok(Self { mount, journal, spool_bytes, asynchronous, required })
    }

    pub(super) fn start(&self) -> ResultsStart {
        ResultsStart {
            devices: self.mount.devices().len(),
            at: self.mount.at().to_owned(),
            mount_id: self.mount.id(),
            init: self.mount.init().into(),
            spool_bytes: self.spool_bytes,
            asynchronous: self.asynchronous,
            required: self.required,
        }
    }

    /// What the last worker, which ended without a statement, had not brought home.
    pub(super) fn left_behind(&self) -> Option<StatedResults> {
        let left = self.journal.try_clone().and_then(crate::results::left_behind);
        left.unwrap_or_else(|error| {
            tracing::error!(%error, "nobody can say which results are not home");
            None
        })
    }

    pub(super) fn journal(&self) -> BorrowedFd<'_> {
        self.journal.as_fd()
    }
}
