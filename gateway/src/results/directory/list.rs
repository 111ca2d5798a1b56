//! Listing and reading a directory.

use std::cmp::Ordering;
use std::os::fd::AsFd as _;

use rustix::fs::{AtFlags, FileType, fstat, statat};
use rustix::io::Errno;
use tidegate_plan::RelPath;
use tidegate_wire::Found;

use super::super::error::HomeError;
use super::super::file::{Kept, Listed};
use super::super::names::is_reserved;
use super::io::{names, read_at};
use super::{Directory, marks};

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
        self.list_dir("", &mut page)?;
        Ok(page.listed)
    }

    /// Returns `false` when the page is full.
    fn list_dir(&self, dir: &str, page: &mut Page) -> Result<bool, HomeError> {
        let open = match self.open_dir(dir) {
            Ok(open) => open,
            // Gone, or replaced, meanwhile.
            Err(HomeError::Absent | HomeError::Occupied) if !dir.is_empty() => return Ok(true),
            Err(error) => return Err(error),
        };
        for name in names(&open)? {
            let Ok(name) = String::from_utf8(name) else { continue };
            let path = if dir.is_empty() { name.clone() } else { format!("{dir}/{name}") };
            let Ok(rel) = RelPath::new(path.as_bytes()) else { continue };
            if is_reserved(&path) || page.is_all_past(&rel) {
                continue;
            }
            let stat = match statat(&open, name.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(errno.into()),
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
                    if (!page.is_past(&rel) && !page.put(found)) || !self.list_dir(&path, page)? {
                        return Ok(false);
                    }
                }
                FileType::RegularFile if !page.is_past(&rel) => {
                    let Some(found) = self.find(path)? else { continue };
                    if !page.put(found) {
                        return Ok(false);
                    }
                }
                _ => {}
            }
        }
        Ok(true)
    }

    fn find(&self, path: String) -> Result<Option<Found>, HomeError> {
        let file = match self.open_file(&path) {
            Ok(file) => file,
            Err(HomeError::Absent | HomeError::Occupied) => return Ok(None),
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
        offset: u64,
        len: u32,
    ) -> Result<(Kept, Vec<u8>), HomeError> {
        let file = match self.open_file(path) {
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
