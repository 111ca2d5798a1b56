//! Files of one part: written apart, flushed, named.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{AtFlags, fsync, renameat, unlinkat};
use tidegate_plan::LeaseId;
use tidegate_wire::Attributes;

use super::super::error::HomeError;
use super::super::file::{Arrival, Provenance};
use super::io::{names, write_at};
use super::{Directory, RESERVED, create, marks};

impl Directory {
    /// Blocking.
    pub(in super::super) fn put(
        &self,
        made: &Provenance,
        file: &Arrival,
        bytes: &[u8],
    ) -> Result<String, HomeError> {
        let own = self.make_own(made.lease)?;
        let name = hex::encode(crate::keyring::random::<16>());
        let open = create(own.as_fd(), &name)?;
        let put =
            write_at(&open, 0, bytes).and_then(|()| self.publish(&own, &name, &open, made, file));
        if put.is_err() {
            // Its lease's end takes it away, if nothing else does.
            let _ = unlinkat(&own, name.as_str(), AtFlags::empty());
        }
        put
    }

    /// Gives a written file its attributes and its name. Durable when this returns.
    pub(super) fn publish(
        &self,
        own: &OwnedFd,
        name: &str,
        open: &OwnedFd,
        made: &Provenance,
        file: &Arrival,
    ) -> Result<String, HomeError> {
        marks::mark(open, made, file)?;
        marks::set_attributes(open, &file.attributes)?;
        fsync(open)?;
        let place = self.make_place(&file.path)?;
        renameat(own, name, &place.parent, place.leaf)?;
        fsync(&place.parent)?;
        marks::version(open)
    }

    /// Blocking.
    pub(in super::super) fn set_attributes(
        &self,
        path: &str,
        attributes: Attributes,
        only: Option<LeaseId>,
    ) -> Result<(), HomeError> {
        let file = self.open_shown(path, only)?;
        marks::set_attributes(&file, &attributes)?;
        Ok(fsync(&file)?)
    }

    /// Blocking: leases that have a directory of their own here.
    pub(in super::super) fn left_by(&self) -> Result<Vec<LeaseId>, HomeError> {
        let names = names(&self.open_dir("")?)?;
        let names = names.iter().filter_map(|name| std::str::from_utf8(name).ok());
        Ok(names.filter_map(|name| name.strip_prefix(RESERVED)?.parse().ok()).collect())
    }

    /// Blocking: takes the lease's own directory away with all that is left in it.
    pub(in super::super) fn tidy(&self, lease: LeaseId) -> Result<(), HomeError> {
        let own = match self.own(lease) {
            Ok(own) => own,
            Err(HomeError::Absent) => return Ok(()),
            Err(error) => return Err(error),
        };
        for name in names(&own)? {
            unlinkat(&own, name.as_slice(), AtFlags::empty())?;
        }
        let name = format!("{}{lease}", RESERVED);
        unlinkat(&self.root, name.as_str(), AtFlags::REMOVEDIR)?;
        Ok(fsync(self.open_dir("")?)?)
    }
}
