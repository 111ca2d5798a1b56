//! What became of files goes to the ledger: what comes while one batch is being written is the next.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tidegate_ledger::{Commitment, Event, LISTED_MAX, ListedResult, ResultsAct, ResultsListing};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::file::Provenance;
use crate::record::{Record, RecordError};

/// Files of one append to the ledger.
const BATCH: usize = 4 * LISTED_MAX;

struct Note {
    rank: u16,
    act: ResultsAct,
    file: ListedResult,
    done: oneshot::Sender<bool>,
}

/// The notes of one lease.
#[derive(Default)]
pub(crate) struct Clerk {
    waiting: Mutex<Vec<Note>>,
    writing: tokio::sync::Mutex<()>,
}

/// The batch that a note was in could not be written; the log says why.
#[derive(Debug, thiserror::Error)]
#[error("the entry could not be written")]
pub(crate) struct Unwritten;

impl Clerk {
    /// Writes down what became of a file; durable when this returns. Not to be dropped before that: others may
    /// wait for the same batch.
    pub(crate) async fn note(
        &self,
        record: &Record,
        (made, place): (&Provenance, &str),
        (rank, act): (u16, ResultsAct),
        file: ListedResult,
    ) -> Result<(), Unwritten> {
        let (done, mut answer) = oneshot::channel();
        self.lock().push(Note { rank, act, file, done });
        let _one = self.writing.lock().await;
        loop {
            match answer.try_recv() {
                Ok(true) => return Ok(()),
                Ok(false) | Err(TryRecvError::Closed) => return Err(Unwritten),
                Err(TryRecvError::Empty) => self.write_batch(record, made, place).await,
            }
        }
    }

    async fn write_batch(&self, record: &Record, made: &Provenance, place: &str) {
        let batch: Vec<_> = {
            let mut waiting = self.lock();
            let most = waiting.len().min(BATCH);
            waiting.drain(..most).collect()
        };
        let written = write(record, made, place, &batch).await;
        if let Err(error) = &written {
            tracing::error!(cause = %error, "what became of results cannot be recorded");
        }
        for note in batch {
            // Who has left is written down all the same.
            let _ = note.done.send(written.is_ok());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Note>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn write(
    record: &Record,
    made: &Provenance,
    place: &str,
    batch: &[Note],
) -> Result<(), RecordError> {
    // A path is in a batch once: who has its turn waits here.
    let mut groups: BTreeMap<(u16, u8), (ResultsAct, Vec<ListedResult>)> = BTreeMap::new();
    for note in batch {
        let group = groups.entry((note.rank, note.act as u8));
        group.or_insert_with(|| (note.act, Vec::new())).1.push(note.file.clone());
    }
    let mut events = Vec::new();
    for ((rank, _), (act, files)) in groups {
        for files in files.chunks(LISTED_MAX) {
            events.push(event(record, made, place, (rank, act), files.to_vec()).await?);
        }
    }
    record.append(events).await.map(drop)
}

async fn event(
    record: &Record,
    made: &Provenance,
    place: &str,
    (rank, act): (u16, ResultsAct),
    files: Vec<ListedResult>,
) -> Result<Event, RecordError> {
    let (count, bytes) = (files.len() as u64, files.iter().map(|file| file.bytes).sum());
    let listing = listing_document(record, made, place, (rank, act), files).await?;
    Ok(Event::Results { lease: made.lease, rank, act, files: count, bytes, listing })
}

/// Stores the document behind an entry.
pub(crate) async fn listing_document(
    record: &Record,
    made: &Provenance,
    place: &str,
    (rank, act): (u16, ResultsAct),
    files: Vec<ListedResult>,
) -> Result<Commitment, RecordError> {
    let listing = ResultsListing {
        v: ResultsListing::VERSION,
        act,
        lease: made.lease,
        rank,
        snapshot: made.snapshot,
        selection: made.selection,
        image: made.image.clone(),
        home: place.to_owned(),
        files,
    };
    record.document(listing.to_canonical()?).await
}
