//! Results that a worker says it could not bring home, for the ledger.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tidegate_ledger::{Event, LISTED_MAX, LOST_NAMES_MAX, ListedResult, ResultsAct, Stated};
use tidegate_plan::LeaseId;

use crate::book::{Document, Lost, ResultsPart};
use crate::record::{Record, RecordError};
use crate::results::{Provenance, listing_document};

/// A store at some distance takes its time for each.
const LISTINGS_AT_ONCE: usize = 16;

/// The documents that name what a statement says was lost. The home is not asked: it may be away.
pub(crate) async fn losses(
    record: &Record,
    document: &Document,
    rank: u16,
    stated: &Stated,
) -> Result<Vec<Lost>, RecordError> {
    let (Some(part), Some(said)) = (&document.results, &stated.results) else {
        return Ok(Vec::new());
    };
    if said.lost_files == 0 && said.lost.is_empty() {
        return Ok(Vec::new());
    }
    let made = provenance(document, part);
    let names = &said.lost[..said.lost.len().min(LOST_NAMES_MAX)];
    let (act, home) = ((rank, ResultsAct::Lost), part.home.to_string());
    let file =
        |path: &String| ListedResult { path: path.clone(), from: None, bytes: 0, blake3: None };
    let mut groups: Vec<Vec<_>> =
        names.chunks(LISTED_MAX).map(|names| names.iter().map(file).collect()).collect();
    if groups.is_empty() {
        groups.push(Vec::new());
    }
    let (made, home) = (&made, home.as_str());
    let listed = groups.into_iter().map(|listed| async move {
        let files = listed.len() as u64;
        let listing = listing_document(record, made, home, act, listed).await?;
        Ok::<_, RecordError>(Lost { rank, files, listing })
    });
    let mut lost: Vec<Lost> = stream::iter(listed).buffered(LISTINGS_AT_ONCE).try_collect().await?;
    // Those that are not named count with the last.
    if let Some(last) = lost.last_mut() {
        last.files += said.lost_files.saturating_sub(names.len() as u64);
    }
    Ok(lost)
}

/// Which lease makes results, of which data.
pub(crate) fn provenance(document: &Document, part: &ResultsPart) -> Provenance {
    let lease = &document.lease;
    Provenance {
        lease: lease.id,
        snapshot: lease.snapshot,
        selection: lease.selection,
        image: part.image.clone(),
    }
}

/// Losses whose entries are owed.
pub(crate) fn owed(document: &Document) -> impl Iterator<Item = &Lost> {
    document.results.iter().flat_map(|part| &part.lost)
}

/// The entry of one.
pub(crate) const fn event(lease: LeaseId, lost: &Lost) -> Event {
    Event::Results {
        lease,
        rank: lost.rank,
        act: ResultsAct::Lost,
        files: lost.files,
        bytes: 0,
        listing: lost.listing,
    }
}
