//! The names of a directory of results.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use fuser::{INodeNo, ReplyDirectory, ReplyDirectoryPlus};

use crate::results::Results;

use super::adaptor::{FOREVER, GENERATION};

/// Names that are asked for at a time.
const NAMES: usize = 128;

/// As many names from `offset` on as the reply holds.
pub(super) fn names(results: &Results, ino: INodeNo, mut offset: u64, mut reply: ReplyDirectory) {
    loop {
        let names = match results.list(ino.0, offset, NAMES) {
            Ok(names) => names,
            Err(error) => return reply.error(error.errno()),
        };
        let Some(last) = names.last() else { return reply.ok() };
        offset = last.next;
        let is_full = names.iter().any(|found| {
            let name = OsStr::from_bytes(&found.name);
            reply.add(INodeNo(found.node), found.next, found.kind, name)
        });
        if is_full {
            return reply.ok();
        }
    }
}

/// The same with attributes, each but those of the dots with a reference of the kernel's.
pub(super) fn names_and_attributes(
    results: &Results,
    ino: INodeNo,
    mut offset: u64,
    mut reply: ReplyDirectoryPlus,
) {
    loop {
        let names = match results.list(ino.0, offset, NAMES) {
            Ok(names) => names,
            Err(error) => return reply.error(error.errno()),
        };
        let Some(last) = names.last() else { return reply.ok() };
        offset = last.next;
        for found in &names {
            let is_dots = matches!(found.name.as_slice(), b"." | b"..");
            let attributes = if is_dots {
                results.attributes(found.node).ok()
            } else {
                results.lookup(ino.0, &found.name).ok().flatten()
            };
            // Gone since it was listed.
            let Some(attributes) = attributes else { continue };
            let name = OsStr::from_bytes(&found.name);
            if reply.add(attributes.ino, found.next, name, &FOREVER, &attributes, GENERATION) {
                if !is_dots {
                    results.forget(attributes.ino.0, 1);
                }
                return reply.ok();
            }
        }
    }
}
