//! Results: a tree that the job writes, whose bytes are sealed here and durable at home.
//!
//! A byte's way: the kernel's buffer → a block in RAM ([`block`], one copy) → sealed where it lies → the
//! gateway, from the same RAM. Per MiB written by a large file that is 1 MiB copied, 1 MiB sealed in place
//! and one part of a request; TLS encrypts it once more on the way out. RAM is a part of the worker's budget:
//! when it is used up, blocks that are plaintext are sealed early, and sealed ones go to the spool (one
//! `pwrite` each, ciphertext, never synced) and leave RAM. So does what a close waits for longer than a moment,
//! for a successor, and all of the asynchronous mode. When the spool is full, writers wait for what is on
//! its way home.
//!
//! `names`, `content`, `parts` and `version` are pure; `core` is what all share; `sealing`, `taking`, `flights`, `publish`,
//! `bytes`, `changes` and `draining` are what is done with it; `journal` and `beginning` are for the worker that comes after.

mod beginning;
mod block;
mod bytes;
mod cache;
mod changes;
mod content;
mod core;
mod draining;
mod flights;
mod home;
mod journal;
mod names;
mod parts;
mod publish;
mod sealing;
mod spool;
mod taking;
#[cfg(test)]
mod tests;
mod version;
mod writers;

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use fuser::{FileAttr, FileType, INodeNo};
use serde::Serialize;
use tidegate_ledger::StatedResults;
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use crate::budget::Budget;
use crate::client::Client;
use crate::errno::FsError;
use crate::store::{StoreError, WipeFigures};
use block::{BLOCK, buffer_len};
use core::{Core, File, Parts, lock};
use home::Home;
use journal::{Journal, Record};
use names::{Kind, NAME_MAX};
use spool::Spool;
use writers::{Writers, process_of};

pub(crate) use spool::spool_in;

/// Low bits of what counts opens; the worker's generation stands above them.
const HANDLE_BITS: u32 = 40;
/// Parts on their way at the same time.
const FLIGHTS: usize = 8;
/// Files that are brought home at the same time while nobody waits.
const DRAINS: usize = 32;
/// Names of the beginning that are told a successor at a time.
const TOLD: usize = 1024;
/// Least RAM for results, bytes.
const LEAST: u64 = 6 << 20;
/// What `statfs` counts in, bytes.
const UNIT: u64 = 4096;

/// What was not home when the last worker ended, by its journal; `None`: none ever served.
pub(crate) fn left_behind(journal: OwnedFd) -> io::Result<Option<StatedResults>> {
    let journal = Journal::open(journal)?;
    Ok((!journal.is_empty()).then(|| draining::stated_from(&journal.model())))
}

/// What results are begun with.
#[derive(Debug)]
pub(crate) struct ResultsConfig {
    /// Of the spool file: the cache directory.
    pub(crate) dir: PathBuf,
    /// `None`: a quarter of what is free, at most 20 GiB.
    pub(crate) spool_bytes: Option<u64>,
    /// Close and fsync return when all is sealed in the spool.
    pub(crate) asynchronous: bool,
    pub(crate) owner: (u32, u32),
    /// A memfd of the holder, empty for the first worker.
    pub(crate) journal: OwnedFd,
    pub(crate) generation: u32,
}

/// Why there are no results.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResultsError {
    #[error("the lease brings no results home; it must be granted with a place for them")]
    NotGranted,
    #[error("the spool of the results cannot be used")]
    Spool(#[from] StoreError),
    #[error("the journal of the results cannot be used")]
    Journal(#[source] io::Error),
    #[error("what is at home cannot be listed; see the gateway's log")]
    List(#[source] FsError),
    #[error("a thread ended before its time")]
    Thread,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    /// FUSE's number of the request.
    pub(crate) unique: u64,
    /// The thread, as whoever mounted sees it; 0: not known.
    pub(crate) thread: u32,
}

/// What is to be set.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NewAttributes {
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) size: Option<u64>,
    pub(crate) mtime: Option<SystemTime>,
}

/// One name of a listing, and where it goes on behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) node: u64,
    pub(crate) kind: FileType,
    pub(crate) name: Vec<u8>,
    pub(crate) next: u64,
}

/// Answer to `statfs`, in units of 4096 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Statfs {
    pub(crate) name_max: u32,
    pub(crate) blocks: u64,
    pub(crate) free: u64,
    pub(crate) files: u64,
    pub(crate) free_files: u64,
}

/// Where results stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct ResultsFigures {
    /// Written and not home.
    pub(crate) unsent_bytes: u64,
    /// Files of which something is not home.
    pub(crate) unsent_files: u64,
    pub(crate) spool_bytes: u64,
    pub(crate) home_bytes: u64,
    pub(crate) home_files: u64,
    /// Seconds since the first byte was written that is not home.
    pub(crate) oldest_unsaved_s: Option<u64>,
}

/// The results of one lease and rank.
pub(crate) struct Results {
    core: Arc<Core>,
    /// Once keys are destroyed: what was not home then.
    stated: Mutex<Option<StatedResults>>,
}

impl Results {
    /// Replays the journal, opens the spool, lists what is at home when the terms say resume, and goes on
    /// with what was complete and unsent. `budget`: a [`part_of`] the worker's.
    pub(crate) async fn begin(
        config: ResultsConfig,
        client: Arc<Client>,
        budget: Budget,
    ) -> Result<Arc<Self>, ResultsError> {
        let terms = client.terms().clone();
        let results = terms.results.clone().ok_or(ResultsError::NotGranted)?;
        let ResultsConfig { dir, spool_bytes, asynchronous, owner, journal, generation } = config;
        let opening = tokio::task::spawn_blocking(move || {
            let journal = Journal::open(journal).map_err(ResultsError::Journal)?;
            let successor = !journal.is_empty();
            let spool = Spool::open(&dir, spool_bytes, &terms, successor, asynchronous)?;
            Ok((journal, spool, successor))
        });
        let (journal, spool, successor) = opening.await.unwrap_or(Err(ResultsError::Thread))?;
        let model = journal.model();
        let (mut names, unsent) = beginning::taken_up(&model, &spool);
        let home = Home::new(Arc::clone(&client), model.seq);
        if results.resume && !successor {
            let shown = beginning::resumed(&home, &mut names).await;
            for some in shown.map_err(ResultsError::List)?.chunks(TOLD) {
                journal.append(some);
            }
        }
        let next = Record::Next { node: names.next_number(), seq: home.seq_base() };
        journal.append(&[next, Record::Begun]);
        let (ripe, ripened) = mpsc::unbounded_channel();
        let core = Core::new(Parts {
            lease: client.terms().lease,
            terms: results,
            asynchronous,
            owner,
            budget,
            spool,
            journal,
            home,
            names,
            first_handle: u64::from(generation) << HANDLE_BITS,
            flights: FLIGHTS,
            drains: DRAINS,
            ripe,
        });
        core.stored_files.store(model.sums.0, Ordering::Relaxed);
        core.stored_bytes.store(model.sums.1, Ordering::Relaxed);
        // Parts of what the worker before lost may yet arrive there: nothing new goes with them.
        let files = core.names().files();
        let lost = files.iter().filter(|(_, file)| core::lock(&file.pending).is_none());
        let useless: Vec<_> = lost.filter_map(|(_, file)| core.end_upload(file, None)).collect();
        draining::follow(&core, ripened);
        // Home may be away: nobody waits for it here.
        let going_on = Arc::clone(&core);
        tokio::spawn(async move {
            going_on.move_on(&model).await;
            for file in unsent {
                going_on.bring_later(&file);
            }
            for upload in useless {
                going_on.abandon(upload).await;
            }
        });
        Ok(Arc::new(Self { core, stated: Mutex::default() }))
    }

    /// Goes on with another attachment of this worker.
    pub(crate) fn reattached(&self, client: Arc<Client>) {
        self.core.home.exchange(client);
    }

    pub(crate) fn attributes(&self, node: u64) -> Result<FileAttr, FsError> {
        let names = self.core.names();
        let known = self.core.known(node, names.node(node))?;
        let (kind, nlink) = match &known.kind {
            Kind::File(file) => {
                let nlink = u32::from(known.within.is_some());
                return Ok(self.file_attributes(node, file, nlink));
            }
            Kind::Directory(directory) => (directory, 2),
        };
        let mtime = kind.mtime.unwrap_or(SystemTime::UNIX_EPOCH);
        let (mode, times) = (kind.mode, (mtime, mtime));
        Ok(self.shown(node, FileType::Directory, 0, mode, nlink, times))
    }

    fn file_attributes(&self, node: u64, file: &File, nlink: u32) -> FileAttr {
        let state = file.state();
        let times = (state.mtime, state.ctime);
        self.shown(node, FileType::RegularFile, state.len, state.mode, nlink, times)
    }

    fn shown(
        &self,
        node: u64,
        kind: FileType,
        size: u64,
        mode: u32,
        nlink: u32,
        (mtime, ctime): (SystemTime, SystemTime),
    ) -> FileAttr {
        FileAttr {
            ino: INodeNo(node),
            size,
            blocks: size.div_ceil(512),
            atime: mtime,
            mtime,
            ctime,
            crtime: mtime,
            kind,
            perm: u16::try_from(mode & 0o7777).unwrap_or(0o7777),
            nlink,
            uid: self.core.owner.0,
            gid: self.core.owner.1,
            rdev: 0,
            blksize: u32::try_from(BLOCK).unwrap_or(4096),
            flags: 0,
        }
    }

    /// Counts a reference of the kernel when there is such a name.
    pub(crate) fn lookup(&self, parent: u64, name: &[u8]) -> Result<Option<FileAttr>, FsError> {
        if name.len() > NAME_MAX {
            return Err(FsError::NameTooLong);
        }
        let Ok(name) = std::str::from_utf8(name) else { return Ok(None) };
        let found = self.core.names().child(parent, name)?;
        found.map(|node| self.referred(node)).transpose()
    }

    fn referred(&self, node: u64) -> Result<FileAttr, FsError> {
        let attributes = self.attributes(node)?;
        self.core.names().refer(node);
        Ok(attributes)
    }

    pub(crate) fn forget(&self, node: u64, many: u64) {
        self.core.names().forget(node, many);
    }

    /// Includes `.` and `..`.
    pub(crate) fn list(&self, node: u64, from: u64, most: usize) -> Result<Vec<Entry>, FsError> {
        let listed = self.core.names().list(node, from, most)?;
        let entry = |listed: names::Listed| Entry {
            node: listed.node,
            kind: if listed.directory { FileType::Directory } else { FileType::RegularFile },
            name: listed.name.into_bytes(),
            next: listed.next,
        };
        Ok(listed.into_iter().map(entry).collect())
    }

    pub(crate) fn statfs(&self) -> Statfs {
        let terms = &self.core.terms;
        // The terms say what was left when this worker came.
        let bytes = self.core.spent_bytes.load(Ordering::Relaxed);
        let files = self.core.spent_files.load(Ordering::Relaxed);
        Statfs {
            name_max: u32::try_from(NAME_MAX).unwrap_or(255),
            blocks: terms.bytes / UNIT,
            free: terms.bytes.saturating_sub(bytes) / UNIT,
            files: terms.files,
            free_files: terms.files.saturating_sub(files),
        }
    }

    /// Makes a file or opens what is there; the answer's node is referred to once more.
    pub(crate) async fn create(
        &self,
        caller: Caller,
        parent: u64,
        name: &[u8],
        mode: u32,
        exclusive: bool,
        truncate: bool,
    ) -> Result<(FileAttr, u64), FsError> {
        let file = self.core.create(caller, parent, name, mode, exclusive, truncate).await?;
        let attributes = self.referred(file.node)?;
        Ok((attributes, self.handle(&file, true)))
    }

    pub(crate) async fn make_directory(
        &self,
        caller: Caller,
        parent: u64,
        name: &[u8],
        mode: u32,
    ) -> Result<FileAttr, FsError> {
        let node = self.core.make_directory(caller, parent, name, mode).await?;
        self.referred(node)
    }

    pub(crate) async fn remove_directory(
        &self,
        caller: Caller,
        parent: u64,
        name: &[u8],
    ) -> Result<(), FsError> {
        self.core.remove_directory(caller, parent, name).await
    }

    pub(crate) async fn unlink(
        &self,
        caller: Caller,
        parent: u64,
        name: &[u8],
    ) -> Result<(), FsError> {
        self.core.unlink(caller, parent, name).await
    }

    pub(crate) async fn rename(
        &self,
        caller: Caller,
        from: (u64, &[u8]),
        to: (u64, &[u8]),
        no_replace: bool,
    ) -> Result<(), FsError> {
        self.core.rename(caller, from, to, no_replace).await
    }

    pub(crate) async fn set_attributes(
        &self,
        caller: Caller,
        node: u64,
        new: NewAttributes,
    ) -> Result<FileAttr, FsError> {
        self.core.set_attributes(caller, node, new).await?;
        self.attributes(node)
    }

    pub(crate) fn open(&self, node: u64, writing: bool) -> Result<u64, FsError> {
        let file = self.core.file(node)?;
        Ok(self.handle(&file, writing))
    }

    /// Its lowest bit says whether it was opened to write.
    fn handle(&self, file: &File, writing: bool) -> u64 {
        file.state().handles += 1;
        self.core.next_handle.fetch_add(1, Ordering::Relaxed) << 1 | u64::from(writing)
    }

    /// The synchronous way in; `None`: it must wait (copy the bytes and use [`Self::write`]).
    pub(crate) fn try_write(
        &self,
        caller: Caller,
        node: u64,
        offset: u64,
        data: &[u8],
    ) -> Option<Result<u32, FsError>> {
        match self.core.file(node) {
            Ok(file) => self.core.try_write(caller, &file, offset, data),
            Err(error) => Some(Err(error)),
        }
    }

    pub(crate) async fn write(
        &self,
        caller: Caller,
        node: u64,
        offset: u64,
        data: &[u8],
    ) -> Result<u32, FsError> {
        let file = self.core.file(node)?;
        self.core.write(caller, &file, offset, data).await
    }

    /// Short only at the end of the file.
    pub(crate) async fn read(
        &self,
        node: u64,
        offset: u64,
        size: u32,
    ) -> Result<Zeroizing<Vec<u8>>, FsError> {
        let file = self.core.file(node)?;
        self.core.read(&file, offset, size).await
    }

    /// Close of a descriptor. What is half written does not come home by one that only reads, nor by
    /// one that was inherited by a process that changed nothing.
    pub(crate) async fn flush(
        &self,
        caller: Caller,
        node: u64,
        handle: u64,
    ) -> Result<(), FsError> {
        let file = self.core.file(node)?;
        if !is_writing(handle) {
            return Ok(());
        }
        let changed_by = {
            let state = file.state();
            let pending = lock(&file.pending).as_ref().map(|pending| pending.writers.clone());
            state.dirty.then(|| std::iter::once(state.writers.clone()).chain(pending))
        };
        let may_be = |writers: Writers| writers.may_be(caller.thread, process_of);
        if changed_by.is_some_and(|mut all| !all.any(may_be)) {
            return Ok(());
        }
        self.core.save(&file).await
    }

    pub(crate) async fn fsync(&self, node: u64) -> Result<(), FsError> {
        let file = self.core.file(node)?;
        self.core.save(&file).await
    }

    pub(crate) async fn release(&self, node: u64, handle: u64) {
        if let Ok(file) = self.core.file(node) {
            self.core.release(&file, is_writing(handle)).await;
        }
    }

    pub(crate) fn figures(&self) -> ResultsFigures {
        self.core.figures()
    }

    /// The job has ended: brings everything home until that time on the boot clock. What does not come
    /// is lost.
    pub(crate) async fn drain(&self, until: Duration) -> StatedResults {
        self.core.drain(until).await
    }

    /// Content keys and what is in RAM go; every later operation fails. Names of what is unsent stay for
    /// the statement.
    pub(crate) fn destroy_keys(&self) -> StatedResults {
        let mut stated = lock(&self.stated);
        if let Some(stated) = &*stated {
            return stated.clone();
        }
        self.core.home.end_at(Duration::ZERO);
        // Nothing is written any more that the statement would not know of.
        self.core.destroy_contents();
        let now = self.core.stated();
        for (_, file) in self.core.names().files() {
            let mut state = file.state();
            state.blocks.clear();
            state.content = None;
            drop(state);
            *lock(&file.pending) = None;
            lock(&file.cache).clear();
            file.has_changed();
        }
        self.core.ease();
        *stated = Some(now.clone());
        now
    }

    /// Nodes whose bytes may be in the kernel's page cache.
    pub(crate) fn cached_nodes(&self) -> Vec<u64> {
        let files = self.core.names().files();
        let cached = |(_, file): &(u64, Arc<File>)| file.state().cached > 0;
        files.into_iter().filter(cached).map(|(node, _)| node).collect()
    }

    /// Bytes that may be in the kernel's page cache; an upper bound.
    pub(crate) fn page_cache_bytes(&self) -> u64 {
        self.core.names().files().iter().map(|(_, file)| file.state().cached).sum()
    }

    /// Overwrites the spool, reads back, discards, unlinks. The journal goes with the holder's memory: it
    /// says what was lost, should this worker be killed before it could.
    pub(crate) async fn wipe(&self) -> WipeFigures {
        let spool = Arc::clone(&self.core.spool);
        let wiping = tokio::task::spawn_blocking(move || spool.wipe());
        wiping.await.unwrap_or_else(|error| WipeFigures::failed(error.to_string()))
    }
}

/// Whether a handle was opened to write.
const fn is_writing(handle: u64) -> bool {
    handle & 1 == 1
}

/// Half of the budget, or what is left of it, for results alone: neither side takes what is the other's.
pub(crate) async fn part_of(budget: &Budget) -> Budget {
    let mut bytes = budget.total() / 2;
    loop {
        let len = usize::try_from(bytes).unwrap_or(usize::MAX);
        if let Some(reservation) = budget.try_reserve(len) {
            return budget.part(bytes, reservation, buffer_len(BLOCK));
        }
        if bytes / 2 < LEAST {
            let least = usize::try_from(LEAST).unwrap_or(usize::MAX);
            return budget.part(LEAST, budget.reserve(least).await, buffer_len(BLOCK));
        }
        bytes /= 2;
    }
}

impl fmt::Debug for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Results({})", self.core.lease)
    }
}
