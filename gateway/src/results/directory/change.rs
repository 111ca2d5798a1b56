//! Changes of names in a directory.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, Mode, fsync, mkdirat, renameat, statat, unlinkat};
use rustix::io::Errno;
use tidegate_plan::LeaseId;

use super::super::error::HomeError;
use super::super::file::{Gone, Kept};
use super::{Directory, Place, marks};

fn kind(place: &Place<'_>) -> Result<Option<FileType>, HomeError> {
    match statat(&place.parent, place.leaf, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

impl Directory {
    /// Where a name lies, and what has it; `None` when nothing has.
    fn look<'a>(&self, path: &'a str) -> Result<Option<(FileType, Place<'a>)>, HomeError> {
        match self.place(path) {
            Ok(place) => Ok(kind(&place)?.map(|kind| (kind, place))),
            Err(HomeError::Absent) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A file that is shown: to a lease that does not resume, only what it brought home itself.
    pub(super) fn open_shown(
        &self,
        path: &str,
        only: Option<LeaseId>,
    ) -> Result<OwnedFd, HomeError> {
        let file = self.open_file(path)?;
        let is_shown = only.is_none_or(|lease| marks::is_from(&file, lease));
        if is_shown { Ok(file) } else { Err(HomeError::Absent) }
    }

    /// Flushes the directory that a name was in, as far as it is there.
    fn settle_place(&self, path: &str) -> Result<(), HomeError> {
        match self.place(path) {
            Ok(place) => Ok(fsync(&place.parent)?),
            Err(HomeError::Absent) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What a rename that was done before has left under the new name: that version, if one is named.
    fn renamed_before(
        &self,
        from: &str,
        to: &str,
        version: Option<&str>,
        only: Option<LeaseId>,
    ) -> Result<Option<Kept>, HomeError> {
        let kept = match self.open_shown(to, only) {
            Ok(file) => marks::kept(file)?,
            Err(HomeError::Absent) => return Ok(None),
            Err(error) => return Err(error),
        };
        if version.is_some_and(|version| version != kept.version) {
            return Ok(None);
        }
        // Who did it may not have come to flush it.
        fsync(&self.place(to)?.parent)?;
        self.settle_place(from)?;
        Ok(Some(kept))
    }

    /// Whether what has a name may be the version that is meant, if one is.
    fn may_be(&self, path: &str, version: Option<&str>) -> Result<bool, HomeError> {
        let Some(named) = version else { return Ok(true) };
        Ok(self.version(path)?.is_some_and(|is| marks::may_be(&is, named)))
    }

    /// Blocking.
    pub(in super::super) fn rename(
        &self,
        from: &str,
        to: &str,
        version: Option<&str>,
        only: Option<LeaseId>,
    ) -> Result<Kept, HomeError> {
        let there = match self.look(from)? {
            Some((FileType::RegularFile, _)) if self.is_hidden(from, only)? => None,
            there => there,
        };
        match there {
            // It has the name already, or never was.
            None => {
                let before = self.renamed_before(from, to, version, only)?;
                return before.ok_or(HomeError::Absent);
            }
            // Another file came under the old name since, or in the place of what is meant.
            Some((FileType::RegularFile, _)) if !self.may_be(from, version)? => {
                let before = self.renamed_before(from, to, version, only)?;
                return before.ok_or(HomeError::Changed);
            }
            Some((FileType::RegularFile, place)) => {
                let new = self.make_place(to)?;
                renameat(&place.parent, place.leaf, &new.parent, new.leaf)?;
                fsync(&new.parent)?;
                fsync(&place.parent)?;
            }
            Some(_) => return Err(HomeError::Occupied),
        }
        marks::kept(self.open_file(to)?)
    }

    /// Blocking.
    pub(in super::super) fn rename_directory(&self, from: &str, to: &str) -> Result<(), HomeError> {
        match self.look(from)? {
            None => {
                self.open_dir(to)?;
                fsync(&self.place(to)?.parent)?;
                self.settle_place(from)
            }
            Some((FileType::Directory, place)) => {
                let new = self.make_place(to)?;
                self.forget_settled();
                renameat(&place.parent, place.leaf, &new.parent, new.leaf)?;
                fsync(&new.parent)?;
                Ok(fsync(&place.parent)?)
            }
            Some(_) => Err(HomeError::Occupied),
        }
    }

    fn is_hidden(&self, path: &str, only: Option<LeaseId>) -> Result<bool, HomeError> {
        match self.open_shown(path, only) {
            Ok(_) => Ok(false),
            Err(HomeError::Absent | HomeError::Occupied) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Blocking.
    pub(in super::super) fn unlink(
        &self,
        path: &str,
        only: Option<LeaseId>,
    ) -> Result<Gone, HomeError> {
        let place = match self.look(path)? {
            None => {
                self.settle_place(path)?;
                return Ok(Gone::Before);
            }
            Some((kind, _))
                if kind != FileType::Directory
                    && only.is_some()
                    && self.is_hidden(path, only)? =>
            {
                return Ok(Gone::Hidden);
            }
            Some((FileType::Directory, _)) => return Err(HomeError::Occupied),
            Some((_, place)) => place,
        };
        let kept = self.open_file(path).and_then(marks::kept).ok();
        match unlinkat(&place.parent, place.leaf, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        fsync(&place.parent)?;
        Ok(Gone::Now(kept.unwrap_or_default()))
    }

    /// Blocking.
    pub(in super::super) fn make_directory(&self, path: &str, mode: u32) -> Result<(), HomeError> {
        let place = self.make_place(path)?;
        // The owner can always use it: more comes home into it.
        match mkdirat(&place.parent, place.leaf, Mode::from_raw_mode(mode & 0o777 | 0o700)) {
            Ok(()) => Ok(fsync(&place.parent)?),
            Err(Errno::EXIST) => {
                self.open_dir(path)?;
                Ok(fsync(&place.parent)?)
            }
            Err(errno) => Err(errno.into()),
        }
    }

    /// Blocking.
    pub(in super::super) fn remove_directory(&self, path: &str) -> Result<(), HomeError> {
        let place = match self.place(path) {
            Ok(place) => place,
            Err(HomeError::Absent) => return Ok(()),
            Err(error) => return Err(error),
        };
        self.forget_settled();
        match unlinkat(&place.parent, place.leaf, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(fsync(&place.parent)?),
            Err(errno) => Err(errno.into()),
        }
    }
}
