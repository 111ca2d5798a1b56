//! The operations of the mount, without FUSE: each takes numbers and names and gives a value or an
//! [`FsError`]. The adaptor in `fuse` turns both into replies.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use fuser::{FileAttr, FileType, FopenFlags, INodeNo};

use crate::blocks::{Cache, ReadError, ShareManifest};
use crate::client::ManifestBytes;
use crate::errno::FsError;
use crate::readmode::ReadMode;
use crate::tree::{Listed, Part, Tree};

/// Low bits of a file handle that count opens; the worker's generation stands above them, so that
/// handles that a killed worker gave out are not given out again.
const HANDLE_BITS: u32 = 40;

/// Longest name, in bytes.
const NAME_MAX: u32 = 255;

/// Answer to `statfs`: sizes in units of 4096 bytes, nothing free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Statfs {
    pub(crate) name_max: u32,
    pub(crate) blocks: u64,
    pub(crate) files: u64,
}

pub(crate) struct Fs {
    tree: Tree<ManifestBytes>,
    /// What answers reads, or why nothing is opened or read.
    cache: RwLock<Result<Arc<Cache>, ReadError>>,
    /// Reads refused because there was no cache to count them.
    refused: AtomicU64,
    next_handle: AtomicU64,
    cached: PageCacheUse,
}

/// What a read needs, in order, and what answers it; nothing at and past the end of the file.
pub(crate) struct Reading {
    pub(crate) cache: Arc<Cache>,
    pub(crate) parts: Vec<Part>,
}

impl Fs {
    /// `generation`: which worker of this mount this is, from 1.
    pub(crate) fn new(
        manifest: Arc<ShareManifest>,
        cache: Arc<Cache>,
        owner: (u32, u32),
        generation: u32,
    ) -> Self {
        let tree = Tree::new(manifest, owner);
        let cached = PageCacheUse::new(tree.inodes(), generation > 1, tree.total_bytes());
        Self {
            tree,
            cache: RwLock::new(Ok(cache)),
            refused: AtomicU64::new(0),
            next_handle: AtomicU64::new(u64::from(generation) << HANDLE_BITS),
            cached,
        }
    }

    /// What answers reads now. Asked for each open and each read, it looks at the keys' time as well.
    fn cache(&self) -> Result<Arc<Cache>, ReadError> {
        let cache = self.cache.read().unwrap_or_else(PoisonError::into_inner).clone()?;
        if cache.may_read() { Ok(cache) } else { Err(ReadError::Unavailable) }
    }

    fn exchange(&self, cache: Result<Arc<Cache>, ReadError>) {
        *self.cache.write().unwrap_or_else(PoisonError::into_inner) = cache;
    }

    pub(crate) fn attributes(&self, inode: INodeNo) -> Result<FileAttr, FsError> {
        Ok(self.tree.attributes(self.record(inode)?))
    }

    /// `Ok(None)`: there is no such name, and there never will be.
    pub(crate) fn lookup(&self, parent: INodeNo, name: &[u8]) -> Result<Option<FileAttr>, FsError> {
        let directory = self.directory(parent)?;
        if name.len() > NAME_MAX as usize {
            return Err(FsError::NameTooLong);
        }
        Ok(self.tree.lookup(directory, name).map(|record| self.tree.attributes(record)))
    }

    pub(crate) fn link_target(&self, inode: INodeNo) -> Result<&[u8], FsError> {
        self.tree.link_target(self.record(inode)?).ok_or(FsError::NotLink)
    }

    pub(crate) fn check_directory(&self, inode: INodeNo) -> Result<(), FsError> {
        self.directory(inode).map(|_| ())
    }

    /// The names from `offset` on, each with the offset that continues behind it.
    pub(crate) fn list(
        &self,
        inode: INodeNo,
        offset: u64,
    ) -> Result<impl Iterator<Item = Listed<'_>>, FsError> {
        Ok(self.tree.list(self.directory(inode)?, offset))
    }

    pub(crate) fn listed_attributes(&self, listed: &Listed<'_>) -> FileAttr {
        self.tree.attributes(listed.record)
    }

    /// A new handle and how the kernel is to read through it.
    pub(crate) fn open(&self, inode: INodeNo, writing: bool) -> Result<(u64, FopenFlags), FsError> {
        let record = self.file(inode)?;
        if writing {
            return Err(FsError::ReadOnly);
        }
        let _it_could_be_read = self.cache()?;
        let handle = self.next_handle.fetch_add(1, Ordering::Relaxed);
        Ok((handle, ReadMode::of(self.tree.size(record)).open_flags()))
    }

    pub(crate) fn release(&self, handle: u64) {
        if let Ok(cache) = self.cache() {
            cache.forget(handle);
        }
    }

    /// Prepares a read. `for_page_cache`: the bytes are to stay in the kernel, not to go to one reader.
    pub(crate) fn read(
        &self,
        inode: INodeNo,
        handle: u64,
        offset: u64,
        size: u32,
        for_page_cache: bool,
    ) -> Result<Reading, FsError> {
        let record = self.file(inode)?;
        let cache = self.cache().inspect_err(|_| {
            self.refused.fetch_add(1, Ordering::Relaxed);
        })?;
        let length = u64::from(size).min(self.tree.size(record).saturating_sub(offset));
        let parts = self.tree.parts(record, offset, size);
        let placed: usize = parts.iter().map(|part| part.len).sum();
        if u64::try_from(placed) != Ok(length) {
            cache.count_read(0, true);
            return Err(FsError::Unplaced);
        }
        if for_page_cache {
            self.cached.add(inode, length);
        }
        let mut touched = None;
        for part in &parts {
            if touched.replace(part.piece.block) != Some(part.piece.block) {
                cache.touch(handle, part.piece.block);
            }
        }
        Ok(Reading { cache, parts })
    }

    pub(crate) fn statfs(&self) -> Statfs {
        let inodes = self.tree.inodes();
        Statfs {
            name_max: NAME_MAX,
            blocks: self.tree.total_bytes().div_ceil(4096),
            files: inodes.end - inodes.start,
        }
    }

    /// From here on every open and read fails for this reason; names can still be listed.
    pub(crate) fn refuse(&self, why: ReadError) {
        self.exchange(Err(why));
    }

    /// Opens and reads are answered again, by this cache.
    pub(crate) fn resume(&self, cache: Arc<Cache>) {
        self.exchange(Ok(cache));
    }

    /// Reads refused while there was no cache.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Inodes whose bytes may be in the kernel's page cache.
    pub(crate) fn cached_inodes(&self) -> impl Iterator<Item = INodeNo> {
        self.cached.inodes()
    }

    /// Upper bound of plaintext bytes that went into the kernel's page cache.
    pub(crate) fn page_cache_bytes(&self) -> u64 {
        self.cached.bytes.load(Ordering::Relaxed)
    }

    fn record(&self, inode: INodeNo) -> Result<u32, FsError> {
        self.tree.record(inode).ok_or(FsError::NotFound)
    }

    fn directory(&self, inode: INodeNo) -> Result<u32, FsError> {
        let record = self.record(inode)?;
        match self.tree.kind(record) {
            FileType::Directory => Ok(record),
            _ => Err(FsError::NotDirectory),
        }
    }

    fn file(&self, inode: INodeNo) -> Result<u32, FsError> {
        let record = self.record(inode)?;
        match self.tree.kind(record) {
            FileType::RegularFile => Ok(record),
            _ => Err(FsError::NotFile),
        }
    }
}

impl std::fmt::Debug for Fs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fs").field("cache", &self.cache).finish_non_exhaustive()
    }
}

/// Which inodes gave bytes to the kernel's page cache: one bit each, and a sum.
struct PageCacheUse {
    bits: Box<[AtomicU64]>,
    end: u64,
    bytes: AtomicU64,
}

impl PageCacheUse {
    /// `unknown`: an earlier worker served this mount and its notes died with it, so assume everything.
    fn new(inodes: Range<u64>, unknown: bool, total_bytes: u64) -> Self {
        let words = usize::try_from(inodes.end.div_ceil(64)).unwrap_or(usize::MAX);
        let (word, bytes) = if unknown { (u64::MAX, total_bytes) } else { (0, 0) };
        Self {
            bits: (0..words).map(|_| AtomicU64::new(word)).collect(),
            end: inodes.end,
            bytes: AtomicU64::new(bytes),
        }
    }

    fn add(&self, inode: INodeNo, bytes: u64) {
        if let Some(word) = usize::try_from(inode.0 / 64).ok().and_then(|at| self.bits.get(at)) {
            word.fetch_or(1 << (inode.0 % 64), Ordering::Relaxed);
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn inodes(&self) -> impl Iterator<Item = INodeNo> {
        (1..self.end)
            .filter(|inode| {
                usize::try_from(inode / 64)
                    .ok()
                    .and_then(|at| self.bits.get(at))
                    .is_some_and(|word| word.load(Ordering::Relaxed) >> (inode % 64) & 1 == 1)
            })
            .map(INodeNo)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_cache_use_names_what_was_read() {
        let cached = PageCacheUse::new(1..200, false, 1000);
        cached.add(INodeNo(1), 10);
        cached.add(INodeNo(64), 5);
        cached.add(INodeNo(199), 1);
        cached.add(INodeNo(64), 5);
        assert_eq!(cached.inodes().map(|i| i.0).collect::<Vec<_>>(), [1, 64, 199]);
        assert_eq!(cached.bytes.load(Ordering::Relaxed), 21);
    }

    #[test]
    fn a_successor_assumes_everything() {
        let cached = PageCacheUse::new(1..4, true, 1000);
        assert_eq!(cached.inodes().count(), 3);
        assert_eq!(cached.bytes.load(Ordering::Relaxed), 1000);
    }
}
