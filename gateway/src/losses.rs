//! Results that a worker says it could not bring home, for the ledger.

use tidegate_ledger::{Event, LISTED_MAX, LOST_NAMES_MAX, ListedResult, ResultsAct, Stated};
use tidegate_plan::LeaseId;

use crate::book::{Document, Lost, ResultsPart};
use crate::record::{Record, RecordError};
use crate::results::{Provenance, listing_document};

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
    // Of those that are not named too, with the last.
    let mut unnamed = said.lost_files.saturating_sub(names.len() as u64);
    let nobody: [&[String]; 1] = [&[]];
    let mut groups: Vec<_> =
        if names.is_empty() { nobody.to_vec() } else { names.chunks(LISTED_MAX).collect() };
    groups.reverse();
    let mut lost = Vec::with_capacity(groups.len());
    for names in groups {
        let file =
            |path: &String| ListedResult { path: path.clone(), from: None, bytes: 0, blake3: None };
        let files = names.iter().map(file).collect();
        let act = (rank, ResultsAct::Lost);
        let listing = listing_document(record, &made, &part.home.to_string(), act, files).await?;
        let files = names.len() as u64 + std::mem::take(&mut unnamed);
        lost.push(Lost { rank, files, listing, recorded: false });
    }
    lost.reverse();
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
    let lost = document.results.iter().flat_map(|part| &part.lost);
    lost.filter(|lost| !lost.recorded)
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
