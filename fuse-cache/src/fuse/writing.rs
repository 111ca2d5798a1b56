//! The handlers of the results mount: each calls [`Results`] and replies.
//!
//! The kernel may remember names, absences and attributes for ever, since this mount is the only one
//! that changes them. Files go through its page cache, which also makes shared writable mappings work.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, FileHandle, FileType, Filesystem, FopenFlags, INodeNo,
    IoctlFlags, LockOwner, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::{FileType as Kind, OFlags};
use zeroize::Zeroizing;

use crate::errno::FsError;
use crate::results::{Caller, NewAttributes, Results};

use super::adaptor::{FOREVER, GENERATION, absence};
use super::later::Later;
use super::listing;
use super::replies::{attributes, done, entry, opened, written};

/// Set in the number of a request that is sent again (Linux 6.9).
const RESENT: u64 = 1 << 63;
/// Permission bits, with set-user-id and its like.
const PERMISSIONS: u32 = 0o7777;

pub(super) struct Writing {
    results: Arc<Results>,
    later: Later,
}

impl Writing {
    pub(super) fn new(results: Arc<Results>, later: Later) -> Self {
        Self { results, later }
    }

    fn results(&self) -> Arc<Results> {
        Arc::clone(&self.results)
    }

    fn check_directory(&self, ino: INodeNo) -> Result<(), FsError> {
        match self.results.attributes(ino.0)?.kind {
            FileType::Directory => Ok(()),
            _ => Err(FsError::NotDirectory),
        }
    }
}

/// Who asks, and the number of the request, the same when it is sent again.
fn caller(request: &Request) -> Caller {
    Caller { unique: request.unique().0 & !RESENT, thread: request.pid() }
}

fn has(flags: i32, flag: OFlags) -> bool {
    OFlags::from_bits_retain(flags.cast_unsigned()).contains(flag)
}

fn time(given: TimeOrNow) -> SystemTime {
    match given {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => SystemTime::now(),
    }
}

impl Filesystem for Writing {
    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.results.lookup(parent.0, name.as_bytes());
        entry(reply, found.map(|found| found.unwrap_or_else(absence)));
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.results.forget(ino.0, nlookup);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        attributes(reply, self.results.attributes(ino.0));
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let (results, caller) = (self.results(), caller(req));
        let mode = mode.map(|mode| mode & PERMISSIONS);
        let new = NewAttributes { mode, uid, gid, size, mtime: mtime.map(time) };
        self.later.run(async move {
            attributes(reply, results.set_attributes(caller, ino.0, new).await);
        });
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        if Kind::from_raw_mode(mode) != Kind::RegularFile {
            return reply.error(FsError::NotPermitted.errno());
        }
        let (results, caller, name) = (self.results(), caller(req), name.as_bytes().to_vec());
        self.later.run(async move {
            let mode = mode & PERMISSIONS;
            match results.create(caller, parent.0, &name, mode, true, false).await {
                Ok((attributes, handle)) => {
                    results.release(attributes.ino.0, handle).await;
                    entry(reply, Ok(attributes));
                }
                Err(error) => reply.error(error.errno()),
            }
        });
    }

    fn mkdir(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let (results, caller, name) = (self.results(), caller(req), name.as_bytes().to_vec());
        self.later.run(async move {
            let mode = mode & PERMISSIONS;
            entry(reply, results.make_directory(caller, parent.0, &name, mode).await);
        });
    }

    fn unlink(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (results, caller, name) = (self.results(), caller(req), name.as_bytes().to_vec());
        self.later.run(async move {
            done(reply, results.unlink(caller, parent.0, &name).await);
        });
    }

    fn rmdir(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (results, caller, name) = (self.results(), caller(req), name.as_bytes().to_vec());
        self.later.run(async move {
            done(reply, results.remove_directory(caller, parent.0, &name).await);
        });
    }

    fn rename(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !RenameFlags::RENAME_NOREPLACE.contains(flags) {
            return reply.error(FsError::Invalid.errno());
        }
        let (results, caller) = (self.results(), caller(req));
        let (name, newname) = (name.as_bytes().to_vec(), newname.as_bytes().to_vec());
        let no_replace = flags.contains(RenameFlags::RENAME_NOREPLACE);
        self.later.run(async move {
            let (from, to) = ((parent.0, name.as_slice()), (newparent.0, newname.as_slice()));
            done(reply, results.rename(caller, from, to, no_replace).await);
        });
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (results, caller, name) = (self.results(), caller(req), name.as_bytes().to_vec());
        let (exclusive, truncate) = (has(flags, OFlags::EXCL), has(flags, OFlags::TRUNC));
        self.later.run(async move {
            let mode = mode & PERMISSIONS;
            match results.create(caller, parent.0, &name, mode, exclusive, truncate).await {
                Ok((attributes, handle)) => reply.created(
                    &FOREVER,
                    &attributes,
                    GENERATION,
                    FileHandle(handle),
                    FopenFlags::FOPEN_KEEP_CACHE,
                ),
                Err(error) => reply.error(error.errno()),
            }
        });
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let writing = flags.acc_mode() != OpenAccMode::O_RDONLY;
        if !has(flags.0, OFlags::TRUNC) {
            return opened(reply, self.results.open(ino.0, writing));
        }
        let (results, caller) = (self.results(), caller(req));
        self.later.run(async move {
            let empty = NewAttributes { size: Some(0), ..NewAttributes::default() };
            match results.set_attributes(caller, ino.0, empty).await {
                Ok(_) => opened(reply, results.open(ino.0, writing)),
                Err(error) => reply.error(error.errno()),
            }
        });
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let results = self.results();
        self.later.run(async move {
            match results.read(ino.0, offset, size).await {
                Ok(bytes) => reply.data(&bytes),
                Err(error) => reply.error(error.errno()),
            }
        });
    }

    fn write(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let caller = caller(req);
        if let Some(outcome) = self.results.try_write(caller, ino.0, offset, data) {
            return written(reply, outcome);
        }
        let (results, data) = (self.results(), Zeroizing::new(data.to_vec()));
        self.later.run(async move {
            written(reply, results.write(caller, ino.0, offset, &data).await);
        });
    }

    fn flush(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        let (results, caller) = (self.results(), caller(req));
        self.later.run(async move { done(reply, results.flush(caller, ino.0, fh.0).await) });
    }

    fn fsync(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        let results = self.results();
        self.later.run(async move { done(reply, results.fsync(ino.0).await) });
    }

    fn release(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let results = self.results();
        self.later.run(async move {
            results.release(ino.0, fh.0).await;
            reply.ok();
        });
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.check_directory(ino) {
            Ok(()) => reply.opened(FileHandle(0), FopenFlags::empty()),
            Err(error) => reply.error(error.errno()),
        }
    }

    fn readdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        listing::names(&self.results, ino, offset, reply);
    }

    fn readdirplus(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        listing::names_and_attributes(&self.results, ino, offset, reply);
    }

    fn fsyncdir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        // A change of names is at home before it is answered.
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let figures = self.results.statfs();
        reply.statfs(
            figures.blocks,
            figures.free,
            figures.free,
            figures.files,
            figures.free_files,
            4096,
            figures.name_max,
            4096,
        );
    }

    fn symlink(
        &self,
        _req: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _target: &Path,
        reply: ReplyEntry,
    ) {
        reply.error(FsError::NotPermitted.errno());
    }

    fn link(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _newparent: INodeNo,
        _newname: &OsStr,
        reply: ReplyEntry,
    ) {
        reply.error(FsError::NotPermitted.errno());
    }

    // Not offered. The kernel remembers each of these and answers alone from then on: no reserved space,
    // no holes, copies by reading and writing, no extended attributes (ENOTSUP to the caller).

    fn fallocate(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _offset: u64,
        _length: u64,
        _mode: i32,
        reply: ReplyEmpty,
    ) {
        reply.error(FsError::NotOffered.errno());
    }

    fn lseek(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _offset: i64,
        _whence: i32,
        reply: ReplyLseek,
    ) {
        reply.error(FsError::NotOffered.errno());
    }

    fn copy_file_range(
        &self,
        _req: &Request,
        _ino_in: INodeNo,
        _fh_in: FileHandle,
        _offset_in: u64,
        _ino_out: INodeNo,
        _fh_out: FileHandle,
        _offset_out: u64,
        _len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        reply.error(FsError::NotOffered.errno());
    }

    fn ioctl(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(FsError::NotOffered.errno());
    }

    fn getxattr(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _name: &OsStr,
        _size: u32,
        reply: ReplyXattr,
    ) {
        reply.error(FsError::NotOffered.errno());
    }

    fn listxattr(&self, _req: &Request, _ino: INodeNo, _size: u32, reply: ReplyXattr) {
        reply.error(FsError::NotOffered.errno());
    }

    fn setxattr(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _name: &OsStr,
        _value: &[u8],
        _flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        reply.error(FsError::NotOffered.errno());
    }

    fn removexattr(&self, _req: &Request, _ino: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(FsError::NotOffered.errno());
    }
}
