//! Listing and reading a directory.

use std::cmp::Ordering;
use std::os::fd::{AsFd as _, OwnedFd};
use std::vec::IntoIter;

use rustix::fs::{FileType, OFlags, fstat};
use rustix::io::Errno;
use tidegate_plan::{LeaseId, RelPath};
use tidegate_wire::Found;

use super::super::error::HomeError;
use super::super::file::{Kept, Listed};
use super::super::names::{DEPTH, is_reserved};
use super::io::{names, read_at};
use super::{DIRECTORY, Directory, marks};
use crate::source::open_beneath;

/// Bytes of JSON that a page may come to.
pub(in super::super) const PAGE: usize = 160 << 10;
/// Bytes of JSON that an entry has besides its path, at most.
pub(in super::super) const ENTRY: usize = 320;

/// A page that is being filled.
struct Page {
    after: Option<RelPath>,
    listed: Listed,
    left: usize,
}

/// A directory of which names are still to be listed. It is not held open.
struct Level {
    path: String,
    names: IntoIter<Vec<u8>>,
}

enum Next {
    On,
    Below(String),
    Full,
}

impl Page {
    /// Whether it was on a page before.
    fn is_past(&self, path: &RelPath) -> bool {
        self.after.as_ref().is_some_and(|after| path.cmp(after) != Ordering::Greater)
    }

    /// Whether all below a directory was on a page before.
    fn is_all_past(&self, dir: &RelPath) -> bool {
        let inside = |after: &RelPath| {
            let below = after.as_bytes().strip_prefix(dir.as_bytes());
            below.is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
        };
        self.is_past(dir) && !self.after.as_ref().is_some_and(inside)
    }

    /// Puts one in; `false` when the page is full without it.
    fn put(&mut self, found: Found) -> bool {
        // Each byte may become six in JSON.
        let size = ENTRY + found.path.bytes().map(|b| if b < 0x20 { 6 } else { 2 }).sum::<usize>();
        let Some(left) = self.left.checked_sub(size) else {
            self.listed.next = self.listed.found.last().map(|last| last.path.clone());
            return false;
        };
        self.left = left;
        self.listed.found.push(found);
        true
    }
}

impl Directory {
    /// Blocking. What cannot be a result (a link, a device, a name that is not UTF-8) is passed over.
    pub(in super::super) fn list(&self, after: Option<&str>) -> Result<Listed, HomeError> {
        let after = after.map(|after| RelPath::new(after.as_bytes())).transpose();
        let after = after.map_err(|_| HomeError::Unfit("no page ended there"))?;
        let mut page = Page { after, listed: Listed::default(), left: PAGE };
        let mut above = vec![self.level(String::new())?];
        while let Some(level) = above.last_mut() {
            let Some(name) = level.names.next() else {
                above.pop();
                continue;
            };
            match self.list_one(level, name, &mut page)? {
                Next::Full => break,
                Next::On => {}
                // No file of a job lies there.
                Next::Below(_) if above.len() >= DEPTH => {}
                Next::Below(dir) => {
                    match self.level(dir) {
                        Ok(below) => above.push(below),
                        // Gone, or replaced, meanwhile, or nothing that we may read.
                        Err(HomeError::Absent | HomeError::Occupied) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        Ok(page.listed)
    }

    /// Opens what is shown of a listing; what may not be read is passed over like what is not there.
    fn open_listed(&self, path: &str, flags: OFlags) -> Result<OwnedFd, HomeError> {
        let name = if path.is_empty() { "." } else { path };
        match open_beneath(self.root.as_fd(), name.as_bytes(), flags) {
            Ok(open) => Ok(open),
            Err(Errno::ACCESS | Errno::PERM | Errno::XDEV) if !path.is_empty() => {
                Err(HomeError::Absent)
            }
            Err(errno) => Err(errno.into()),
        }
    }

    fn level(&self, path: String) -> Result<Level, HomeError> {
        let open = self.open_listed(&path, DIRECTORY)?;
        Ok(Level { names: names(&open)?.into_iter(), path })
    }

    fn list_one(&self, level: &Level, name: Vec<u8>, page: &mut Page) -> Result<Next, HomeError> {
        let Ok(name) = String::from_utf8(name) else { return Ok(Next::On) };
        let path = if level.path.is_empty() { name } else { format!("{}/{name}", level.path) };
        let Ok(rel) = RelPath::new(path.as_bytes()) else { return Ok(Next::On) };
        if is_reserved(&path) || page.is_all_past(&rel) {
            return Ok(Next::On);
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let stat = match self.open_listed(&path, flags) {
            Ok(open) => fstat(&open)?,
            Err(HomeError::Absent | HomeError::Occupied) => return Ok(Next::On),
            Err(error) => return Err(error),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let found = Found {
                    path: path.clone(),
                    directory: true,
                    len: 0,
                    attributes: marks::attributes(&stat),
                    version: String::new(),
                };
                let is_put = page.is_past(&rel) || page.put(found);
                Ok(if is_put { Next::Below(path) } else { Next::Full })
            }
            FileType::RegularFile if !page.is_past(&rel) => {
                let Some(found) = self.find(path)? else { return Ok(Next::On) };
                Ok(if page.put(found) { Next::On } else { Next::Full })
            }
            _ => Ok(Next::On),
        }
    }

    fn find(&self, path: String) -> Result<Option<Found>, HomeError> {
        let file = match self.open_listed(&path, OFlags::RDONLY | OFlags::NONBLOCK) {
            Ok(file) if marks::is_file(&fstat(&file)?) => file,
            Ok(_) | Err(HomeError::Absent | HomeError::Occupied) => return Ok(None),
            Err(error) => return Err(error),
        };
        let stat = fstat(&file)?;
        Ok(Some(Found {
            path,
            directory: false,
            len: u64::try_from(stat.st_size).unwrap_or(0),
            attributes: marks::attributes(&stat),
            version: marks::version(file.as_fd())?,
        }))
    }

    /// Blocking.
    pub(in super::super) fn read(
        &self,
        path: &str,
        version: &str,
        (offset, len): (u64, u32),
        only: Option<LeaseId>,
    ) -> Result<(Kept, Vec<u8>), HomeError> {
        let file = match self.open_shown(path, only) {
            Ok(file) => file,
            Err(HomeError::Absent | HomeError::Occupied) => return Err(HomeError::Changed),
            Err(error) => return Err(error),
        };
        let kept = marks::kept(&file)?;
        if kept.version != version {
            return Err(HomeError::Changed);
        }
        let bytes = read_at(&file, offset, len as usize)?;
        Ok((kept, bytes.ok_or(HomeError::Unfit("the range is not in the file"))?))
    }
}
