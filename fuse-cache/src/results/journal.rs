//! What the worker tells its successor: names, what is at home, what lies complete in the spool.
//!
//! Names are secret, so it lies in memory that the holder keeps (a memfd), never on a disk. It is a run
//! of frames, each one batch of records that count together; a frame that was cut off by the worker's
//! end does not count. When it is more than twice as long as what still matters, that is written anew
//! behind it, and one small write makes the new run the one that counts. A run ends at a frame of no length,
//! or where the file does; a worker that was killed before all of the beginning was told has told nothing.
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

pub(super) use record::{Brought, Complete, HomeRecord, Known, Model, Move, PartRecord, Record};

const MAGIC: u64 = u64::from_le_bytes(*b"tgresul1");
const BEGIN: u64 = 64;
/// Shorter ones are not written anew.
const COMPACT: u64 = 1 << 20;
/// In front of a frame's text, bytes.
const HEAD: usize = 12;

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
        let mut end = replay(&file, begin, &mut model)?;
        if !model.begun {
            (model, end) = (Model::default(), begin);
        }
        // Nothing of what was cut off may be taken for what comes behind.
        file.set_len(end)?;
        let inner = Inner { file, begin, end, base: end - begin, model, failed: false };
        Ok(Self(Mutex::new(inner)))
    }

    /// All that is known.
    pub(super) fn model(&self) -> Model {
        self.lock().model.clone()
    }

    /// Nobody served before.
    pub(super) fn is_empty(&self) -> bool {
        !self.lock().model.begun
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
        self.rewrite()
    }

    /// Writes what still matters anew, and lets that count.
    fn rewrite(&mut self) -> io::Result<()> {
        let old = self.begin;
        let begin = self.write_anew()?;
        write_head(&self.file, begin)?;
        self.begin = begin;
        self.base = self.end - begin;
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(fallocate(&self.file, punch, old, begin - old)?)
    }

    /// Where it begins. The run that counts ends in front of it, should the new one not be ended.
    fn write_anew(&mut self) -> io::Result<u64> {
        self.file.write_all_at(&[0; HEAD], self.end)?;
        self.end += HEAD as u64;
        let begin = self.end;
        for records in self.model.records().chunks(256) {
            let frame = frame(records)?;
            self.file.write_all_at(&frame, self.end)?;
            self.end += frame.len() as u64;
        }
        Ok(begin)
    }
}

fn frame(records: &[Record]) -> io::Result<Vec<u8>> {
    let text = serde_json::to_vec(records)?;
    let len = u32::try_from(text.len()).map_err(io::Error::other)?;
    let mut frame = Vec::with_capacity(text.len() + HEAD);
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

/// Applies every whole frame. Returns where the next one comes. One that is whole and not what was written
/// is an error: what follows from the rest alone would be wrong.
fn replay(file: &File, begin: u64, model: &mut Model) -> io::Result<u64> {
    let all = file.metadata()?.len();
    let mut at = begin;
    while at + HEAD as u64 <= all {
        let mut head = [0; HEAD];
        file.read_exact_at(&mut head, at)?;
        let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        let next = at + HEAD as u64 + u64::from(len);
        if len == 0 || next > all {
            break;
        }
        let mut text = vec![0; len as usize];
        file.read_exact_at(&mut text, at + HEAD as u64)?;
        if head[4..] != sum(&text) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a record is not what it was"));
        }
        for record in &serde_json::from_slice::<Vec<Record>>(&text)? {
            model.apply(record);
        }
        at = next;
    }
    Ok(at)
}

#[cfg(test)]
mod tests;
