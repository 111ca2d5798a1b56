//! What the worker tells its successor: names, what is at home, what lies complete in the spool.
//!
//! Names are secret, so it lies in memory that the holder keeps (a memfd), never on a disk. It is a run
//! of frames, each one batch of records that count together; a frame that was cut off by the worker's
//! end does not count. When it is more than twice as long as what still matters, that is written anew
//! behind it, and one small write makes the new run the one that counts.
//!
//! ```text
//! 0    magic u64, begin of the run u64, sum of those u64 (little-endian)
//! 64   frames: length u32, BLAKE3 of the text (first 8 bytes), text (JSON)
//! ```

mod record;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{FallocateFlags, fallocate};

pub(super) use record::{Complete, HomeRecord, Known, Model, PartRecord, Record};

const MAGIC: u64 = u64::from_le_bytes(*b"tgresul1");
const BEGIN: u64 = 64;
/// Shorter ones are not written anew.
const COMPACT: u64 = 1 << 20;
/// Longest frame, bytes.
const LONGEST: usize = 64 << 20;

/// The open journal.
pub(super) struct Journal(Mutex<Inner>);

struct Inner {
    file: File,
    begin: u64,
    end: u64,
    /// Length of what was written anew last.
    base: u64,
    model: Model,
    failed: bool,
}

impl Journal {
    /// Reads what is there.
    pub(super) fn open(fd: OwnedFd) -> io::Result<Self> {
        let file = File::from(fd);
        let (begin, found) = match read_head(&file)? {
            Some(begin) => (begin, true),
            None => (BEGIN, false),
        };
        if !found {
            file.set_len(0)?;
            write_head(&file, begin)?;
        }
        let mut model = Model::default();
        let end = replay(&file, begin, &mut model)?;
        let inner = Inner { file, begin, end, base: end - begin, model, failed: false };
        Ok(Self(Mutex::new(inner)))
    }

    /// All that is known.
    pub(super) fn model(&self) -> Model {
        self.lock().model.clone()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().model == Model::default()
    }

    /// Writes records down that count together.
    pub(super) fn append(&self, records: &[Record]) {
        let mut inner = self.lock();
        for record in records {
            inner.model.apply(record);
        }
        if let Err(error) = inner.append(records).and_then(|()| inner.compact())
            && !inner.failed
        {
            inner.failed = true;
            tracing::error!(%error, "a worker after this one will not know all of the results");
        }
    }

    pub(super) fn was_done(&self, unique: u64) -> bool {
        self.lock().model.was_done(unique)
    }

    /// Forgets everything.
    pub(super) fn clear(&self) -> io::Result<()> {
        let mut inner = self.lock();
        inner.model = Model::default();
        inner.failed = true;
        inner.file.set_len(0)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn append(&mut self, records: &[Record]) -> io::Result<()> {
        if self.failed {
            return Ok(());
        }
        let frame = frame(records)?;
        self.file.write_all_at(&frame, self.end)?;
        self.end += frame.len() as u64;
        Ok(())
    }

    fn compact(&mut self) -> io::Result<()> {
        let len = self.end - self.begin;
        if self.failed || len < COMPACT || len < 2 * self.base {
            return Ok(());
        }
        let (old, begin) = (self.begin, self.end);
        for records in self.model.records().chunks(256) {
            let frame = frame(records)?;
            self.file.write_all_at(&frame, self.end)?;
            self.end += frame.len() as u64;
        }
        write_head(&self.file, begin)?;
        self.begin = begin;
        self.base = self.end - begin;
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(fallocate(&self.file, punch, old, begin - old)?)
    }
}

fn frame(records: &[Record]) -> io::Result<Vec<u8>> {
    let text = serde_json::to_vec(records)?;
    let len = u32::try_from(text.len()).map_err(io::Error::other)?;
    let mut frame = Vec::with_capacity(text.len() + 12);
    frame.extend_from_slice(&len.to_le_bytes());
    frame.extend_from_slice(&sum(&text));
    frame.extend_from_slice(&text);
    Ok(frame)
}

fn sum(bytes: &[u8]) -> [u8; 8] {
    let mut sum = [0; 8];
    sum.copy_from_slice(&blake3::hash(bytes).as_bytes()[..8]);
    sum
}

fn write_head(file: &File, begin: u64) -> io::Result<()> {
    let mut head = [0; 24];
    head[..8].copy_from_slice(&MAGIC.to_le_bytes());
    head[8..16].copy_from_slice(&begin.to_le_bytes());
    let sum = sum(&head[..16]);
    head[16..].copy_from_slice(&sum);
    file.write_all_at(&head, 0)
}

/// Where the run begins, if there is one.
fn read_head(file: &File) -> io::Result<Option<u64>> {
    let mut head = [0; 24];
    match file.read_exact_at(&mut head, 0) {
        Ok(()) => {}
        Err(why) if why.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(why) => return Err(why),
    }
    if head[..8] != MAGIC.to_le_bytes() || head[16..] != sum(&head[..16]) {
        return Ok(None);
    }
    let mut begin = [0; 8];
    begin.copy_from_slice(&head[8..16]);
    Ok(Some(u64::from_le_bytes(begin)))
}

/// Applies every whole frame. Returns where the next one comes.
fn replay(file: &File, begin: u64, model: &mut Model) -> io::Result<u64> {
    let mut at = begin;
    loop {
        let mut head = [0; 12];
        let mut text = Vec::new();
        let read = file.read_exact_at(&mut head, at).and_then(|()| {
            let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
            text = vec![0; if len > LONGEST { 0 } else { len }];
            file.read_exact_at(&mut text, at + 12)
        });
        match read {
            Err(why) if why.kind() == io::ErrorKind::UnexpectedEof => return Ok(at),
            Err(why) => return Err(why),
            Ok(()) if text.is_empty() || head[4..] != sum(&text) => return Ok(at),
            Ok(()) => {}
        }
        let Ok(records) = serde_json::from_slice::<Vec<Record>>(&text) else { return Ok(at) };
        for record in &records {
            model.apply(record);
        }
        at += 12 + text.len() as u64;
    }
}

#[cfg(test)]
mod tests;
