//! Files of several parts: each is written to its place in one file apart, which is named when all are there.
//!
//! Beside the file lies a list of what its parts hold, 32 bytes a part, zeros while one is being written. So a
//! commit takes only what lies there as its receipts say, whoever wrote a part again meanwhile, and whatever
//! a crash left. A lock on the list keeps parts and commit apart, also between replicas.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::PoisonError;

use rustix::fs::{
    AtFlags, FallocateFlags, FlockOperation, Mode, OFlags, fallocate, fchmod, fdatasync, flock,
    fstat, fsync, ftruncate, openat, unlinkat,
};
use rustix::io::Errno;
use tidegate_plan::{LeaseId, PartHash, RESULT_PART_LEN};
use tidegate_wire::PartReceipt;

use super::super::error::HomeError;
use super::super::file::{Arrival, Provenance};
use super::io::{read_at, write_at};
use super::{Directory, STRIPES, UNNAMED, create, marks};

const HASH: usize = 32;

/// An upload whose file and list are open.
struct Open {
    own: OwnedFd,
    file: OwnedFd,
    list: OwnedFd,
}

fn list_of(id: &str) -> String {
    format!("{id}.parts")
}

impl Directory {
    /// Blocking.
    pub(in super::super) fn begin(&self, lease: LeaseId, id: &str) -> Result<(), HomeError> {
        let own = self.make_own(lease)?;
        create(own.as_fd(), &list_of(id))?;
        create(own.as_fd(), id)?;
        Ok(fsync(&own)?)
    }

    /// Opens an upload under a lock. Parts share it; a commit has it alone.
    fn upload(&self, lease: LeaseId, id: &str, lock: FlockOperation) -> Result<Open, HomeError> {
        let own = self.own(lease)?;
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let list = openat(&own, list_of(id).as_str(), flags, Mode::empty())?;
        flock(&list, lock)?;
        // Behind the lock: a commit may have given it its name meanwhile.
        let file = match openat(&own, id, flags, Mode::empty()) {
            // One that broke off may have made it read-only before that.
            Err(Errno::ACCESS) => {
                let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let read = openat(&own, id, read, Mode::empty())?;
                fchmod(&read, Mode::from_raw_mode(UNNAMED))?;
                openat(&own, id, flags, Mode::empty())?
            }
            opened => opened?,
        };
        Ok(Open { own, file, list })
    }

    /// Blocking.
    pub(in super::super) fn part(
        &self,
        lease: LeaseId,
        id: &str,
        part: u32,
        hash: PartHash,
        bytes: &[u8],
    ) -> Result<(), HomeError> {
        let stripe = &self.stripes[part as usize % STRIPES];
        let _one = stripe.lock().unwrap_or_else(PoisonError::into_inner);
        let Open { file, list, .. } = self.upload(lease, id, FlockOperation::LockShared)?;
        let at = u64::from(part) * HASH as u64;
        let said = read_at(&list, at, HASH)?;
        if said.is_some_and(|said| said != [0; HASH]) {
            write_at(&list, at, &[0; HASH])?;
            fdatasync(&list)?;
        }
        let first = u64::from(part) * RESULT_PART_LEN as u64;
        let written = write_at(&file, first, bytes).and_then(|()| Ok(fdatasync(&file)?));
        if let Err(error) = written {
            // What there is of it takes no room: others may have use for that. Not every file system can.
            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let _ = fallocate(&file, hole, first, bytes.len() as u64);
            return Err(error);
        }
        write_at(&list, at, &hash.0)?;
        Ok(fdatasync(&list)?)
    }

    /// Blocking.
    pub(in super::super) fn copy(
        &self,
        lease: LeaseId,
        id: &str,
        (path, version): (&str, &str),
        (part, len): (u32, u32),
        hash: PartHash,
        only: Option<LeaseId>,
    ) -> Result<(), HomeError> {
        let first = u64::from(part) * RESULT_PART_LEN as u64;
        let (_, bytes) = self.read(path, version, (first, len), only)?;
        if PartHash::of(part, &bytes) != Some(hash) {
            return Err(HomeError::Changed);
        }
        self.part(lease, id, part, hash, &bytes)
    }

    /// Blocking.
    pub(in super::super) fn commit(
        &self,
        made: &Provenance,
        id: &str,
        file: &Arrival,
        parts: &[PartReceipt],
    ) -> Result<String, HomeError> {
        let open = self.upload(made.lease, id, FlockOperation::LockExclusive)?;
        let said = read_at(&open.list, 0, parts.len() * HASH)?.ok_or(HomeError::Torn)?;
        if !said.chunks(HASH).zip(parts).all(|(said, receipt)| said == receipt.hash.0) {
            return Err(HomeError::Torn);
        }
        if u64::try_from(fstat(&open.file)?.st_size).is_ok_and(|size| size < file.len) {
            return Err(HomeError::Torn);
        }
        // A later content may be shorter than the one that the upload began with. Should this break off, then
        // what is cut off does not stand in the list any more.
        ftruncate(&open.list, (parts.len() * HASH) as u64)?;
        fdatasync(&open.list)?;
        ftruncate(&open.file, file.len)?;
        let version = self.publish(&open.own, id, &open.file, made, file)?;
        unlinkat(&open.own, list_of(id).as_str(), AtFlags::empty())?;
        Ok(version)
    }

    /// Blocking. A file that does not say what it is, since there are no extended attributes, is read, unless it is
    /// the version that is known.
    pub(in super::super) fn finished(
        &self,
        file: &Arrival,
        parts: &[PartReceipt],
        known: Option<&str>,
    ) -> Result<Option<String>, HomeError> {
        let open = match self.open_file(&file.path) {
            Ok(open) => open,
            Err(HomeError::Absent | HomeError::Occupied) => return Ok(None),
            Err(error) => return Err(error),
        };
        if u64::try_from(fstat(&open)?.st_size) != Ok(file.len) {
            return Ok(None);
        }
        let version = marks::version(&open)?;
        let is_it = match marks::is_of(&open, file) {
            Some(is_it) => is_it,
            None => known == Some(version.as_str()) || self.holds(&open, parts)?,
        };
        if !is_it {
            return Ok(None);
        }
        // Who named it may not have come to flush that.
        fsync(&open)?;
        fsync(&self.place(&file.path)?.parent)?;
        Ok(Some(version))
    }

    /// Whether an open file holds the parts of these receipts.
    fn holds(&self, file: &OwnedFd, parts: &[PartReceipt]) -> Result<bool, HomeError> {
        let _one = self.comparing.lock().unwrap_or_else(PoisonError::into_inner);
        for receipt in parts {
            let first = u64::from(receipt.part) * RESULT_PART_LEN as u64;
            let bytes = read_at(file, first, receipt.len as usize)?;
            let hash = bytes.and_then(|bytes| PartHash::of(receipt.part, &bytes));
            if hash.is_none_or(|hash| hash.0 != *receipt.hash.0) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Blocking.
    pub(in super::super) fn abandon(&self, lease: LeaseId, id: &str) -> Result<(), HomeError> {
        let own = match self.own(lease) {
            Ok(own) => own,
            Err(HomeError::Absent) => return Ok(()),
            Err(error) => return Err(error),
        };
        for name in [id, &list_of(id)] {
            match unlinkat(&own, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }
}
