//! Stub of the results' core: signatures only.
#![allow(dead_code, unused_variables, clippy::unused_async, clippy::todo, reason = "a stub")]

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{FileAttr, FileType};
use serde::Serialize;
use tidegate_ledger::StatedResults;

use crate::budget::Budget;
use crate::client::Client;
use crate::errno::FsError;
use crate::fs::Statfs;
use crate::store::WipeFigures;

pub(crate) fn path_in(dir: &std::path::Path, lease: tidegate_plan::LeaseId, rank: u16) -> PathBuf {
    dir.join(format!("tidegate-{lease}-{rank}.spool"))
}

#[derive(Debug)]
pub(crate) struct ResultsConfig {
    pub(crate) dir: PathBuf,
    pub(crate) spool_bytes: Option<u64>,
    pub(crate) asynchronous: bool,
    pub(crate) owner: (u32, u32),
    pub(crate) journal: OwnedFd,
    pub(crate) generation: u32,
}

#[derive(Debug, thiserror::Error)]
#[error("results")]
pub(crate) struct ResultsError;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) unique: u64,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NewAttributes {
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) size: Option<u64>,
    pub(crate) mtime: Option<SystemTime>,
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) node: u64,
    pub(crate) kind: FileType,
    pub(crate) name: Vec<u8>,
    pub(crate) next: u64,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct ResultsFigures {
    pub(crate) unsent_bytes: u64,
    pub(crate) spool_bytes: u64,
    pub(crate) home_bytes: u64,
    pub(crate) home_files: u64,
    pub(crate) oldest_unsaved_s: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct Results {}

impl Results {
    pub(crate) async fn begin(
        config: ResultsConfig,
        client: Arc<Client>,
        budget: Budget,
    ) -> Result<Arc<Self>, ResultsError> {
        todo!()
    }
    pub(crate) fn reattached(&self, client: Arc<Client>) {
        todo!()
    }
    pub(crate) fn attributes(&self, node: u64) -> Result<FileAttr, FsError> {
        todo!()
    }
    pub(crate) fn lookup(&self, parent: u64, name: &[u8]) -> Result<Option<FileAttr>, FsError> {
        todo!()
    }
    pub(crate) fn forget(&self, node: u64, many: u64) {
        todo!()
    }
    pub(crate) fn list(&self, node: u64, from: u64, most: usize) -> Result<Vec<Entry>, FsError> {
        todo!()
    }
    pub(crate) fn statfs(&self) -> Statfs {
        todo!()
    }
    pub(crate) async fn create(
        &self,
        caller: Caller,
        parent: u64,
        name: &[u8],
        mode: u32,
        exclusive: bool,
        truncate: bool,
    ) -> Result<(FileAttr, u64), FsError> {
        todo!()
    }
    pub(crate) async fn make_directory(
        &self,
        caller: Caller,
        parent: u64,
        name: &[u8],
        mode: u32,
    ) -> Result<FileAttr, FsError> {
        todo!()
    }
    pub(crate) async fn remove_directory(
        &self,
        caller: Caller,
        parent: u64,
        name: &[u8],
    ) -> Result<(), FsError> {
        todo!()
    }
    pub(crate) async fn unlink(
        &self,
        caller: Caller,
        parent: u64,
        name: &[u8],
    ) -> Result<(), FsError> {
        todo!()
    }
    pub(crate) async fn rename(
        &self,
        caller: Caller,
        from: (u64, &[u8]),
        to: (u64, &[u8]),
        no_replace: bool,
    ) -> Result<(), FsError> {
        todo!()
    }
    pub(crate) async fn set_attributes(
        &self,
        caller: Caller,
        node: u64,
        new: NewAttributes,
    ) -> Result<FileAttr, FsError> {
        todo!()
    }
    pub(crate) fn open(&self, node: u64, writing: bool) -> Result<u64, FsError> {
        todo!()
    }
    pub(crate) fn try_write(
        &self,
        node: u64,
        offset: u64,
        data: &[u8],
    ) -> Option<Result<u32, FsError>> {
        todo!()
    }
    pub(crate) async fn write(&self, node: u64, offset: u64, data: &[u8]) -> Result<u32, FsError> {
        todo!()
    }
    pub(crate) async fn read(&self, node: u64, offset: u64, size: u32) -> Result<Vec<u8>, FsError> {
        todo!()
    }
    pub(crate) async fn flush(&self, node: u64) -> Result<(), FsError> {
        todo!()
    }
    pub(crate) async fn fsync(&self, node: u64) -> Result<(), FsError> {
        todo!()
    }
    pub(crate) async fn release(&self, node: u64, handle: u64) {
        todo!()
    }
    pub(crate) fn figures(&self) -> ResultsFigures {
        todo!()
    }
    pub(crate) async fn drain(&self, until: Duration) -> StatedResults {
        todo!()
    }
    pub(crate) fn destroy_keys(&self) -> StatedResults {
        todo!()
    }
    pub(crate) fn cached_nodes(&self) -> Vec<u64> {
        todo!()
    }
    pub(crate) fn page_cache_bytes(&self) -> u64 {
        todo!()
    }
    pub(crate) async fn wipe(&self) -> WipeFigures {
        todo!()
    }
}
