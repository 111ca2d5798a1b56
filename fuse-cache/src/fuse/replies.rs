//! Outcomes as replies.

use fuser::{
    FileAttr, FileHandle, FopenFlags, ReplyAttr, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite,
};

use crate::errno::FsError;

use super::adaptor::{FOREVER, GENERATION};

pub(super) fn done(reply: ReplyEmpty, outcome: Result<(), FsError>) {
    match outcome {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error.errno()),
    }
}

pub(super) fn entry(reply: ReplyEntry, outcome: Result<FileAttr, FsError>) {
    match outcome {
        Ok(attributes) => reply.entry(&FOREVER, &attributes, GENERATION),
        Err(error) => reply.error(error.errno()),
    }
}

pub(super) fn attributes(reply: ReplyAttr, outcome: Result<FileAttr, FsError>) {
    match outcome {
        Ok(attributes) => reply.attr(&FOREVER, &attributes),
        Err(error) => reply.error(error.errno()),
    }
}

pub(super) fn opened(reply: ReplyOpen, outcome: Result<u64, FsError>) {
    match outcome {
        Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::FOPEN_KEEP_CACHE),
        Err(error) => reply.error(error.errno()),
    }
}

pub(super) fn written(reply: ReplyWrite, outcome: Result<u32, FsError>) {
    match outcome {
        Ok(length) => reply.written(length),
        Err(error) => reply.error(error.errno()),
    }
}
