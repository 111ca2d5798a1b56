//! Changes of names in a directory.

use rustix::fs::{AtFlags, FileType, Mode, fsync, mkdirat, renameat, statat, unlinkat};
use rustix::io::Errno;

use super::super::error::HomeError;
use super::super::file::Kept;
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

    /// Blocking.
    pub(in super::super) fn rename(&self, from: &str, to: &str) -> Result<Kept, HomeError> {
        match self.look(from)? {
            // It has the name already, or never was.
            None => return marks::kept(self.open_file(to)?),
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
            None => self.open_dir(to).map(drop),
            Some((FileType::Directory, place)) => {
                let new = self.make_place(to)?;
                renameat(&place.parent, place.leaf, &new.parent, new.leaf)?;
                fsync(&new.parent)?;
                Ok(fsync(&place.parent)?)
            }
            Some(_) => Err(HomeError::Occupied),
        }
    }

    /// Blocking.
    pub(in super::super) fn unlink(&self, path: &str) -> Result<Option<Kept>, HomeError> {
        let place = match self.look(path)? {
            None => return Ok(None),
            Some((FileType::Directory, _)) => return Err(HomeError::Occupied),
            Some((_, place)) => place,
        };
        let kept = self.open_file(path).and_then(marks::kept).ok();
        match unlinkat(&place.parent, place.leaf, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        fsync(&place.parent)?;
        let unknown = || Kept { version: String::new(), len: 0, blake3: None };
        Ok(Some(kept.unwrap_or_else(unknown)))
    }

    /// Blocking.
    pub(in super::super) fn make_directory(&self, path: &str, mode: u32) -> Result<(), HomeError> {
        let place = self.make_place(path)?;
        // The owner can always use it: more comes home into it.
        match mkdirat(&place.parent, place.leaf, Mode::from_raw_mode(mode & 0o777 | 0o700)) {
            Ok(()) => Ok(fsync(&place.parent)?),
            Err(Errno::EXIST) => self.open_dir(path).map(drop),
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
        match unlinkat(&place.parent, place.leaf, AtFlags::REMOVEDIR) {
            Ok(()) => Ok(fsync(&place.parent)?),
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}
