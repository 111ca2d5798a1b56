//! What is said of a file of results, whichever store it goes to.

use tidegate_plan::{ContentId, LeaseId, SelectionId, SnapshotId};
use tidegate_wire::{Attributes, Found};

/// Which lease made a file, of which data.
#[derive(Clone, Debug)]
pub(crate) struct Provenance {
    pub(crate) lease: LeaseId,
    pub(crate) snapshot: SnapshotId,
    pub(crate) selection: SelectionId,
    /// Digest of the job's image, if it is known.
    pub(crate) image: Option<String>,
}

impl Provenance {
    /// Names and values as they lie with each file.
    pub(super) fn marks(&self) -> Vec<(&'static str, String)> {
        let mut marks = vec![
            ("lease", self.lease.to_string()),
            ("snapshot", self.snapshot.to_string()),
            ("selection", self.selection.to_string()),
        ];
        marks.extend(self.image.clone().map(|image| ("image", image)));
        marks
    }
}

/// A file that comes home.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) path: String,
    pub(crate) attributes: Attributes,
    pub(crate) content: ContentId,
    pub(crate) len: u64,
    pub(crate) blake3: [u8; 32],
}

/// A file that is at home.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) version: String,
    pub(crate) len: u64,
    /// As it lies with the file.
    pub(crate) blake3: Option<[u8; 32]>,
}

/// What became of a file that is to be no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    Now(Kept),
    /// It was not there.
    Before,
    /// It is not shown to the lease, and stays.
    Hidden,
}

/// One page of what is at home.
#[derive(Debug, Default)]
pub(crate) struct Listed {
    pub(crate) found: Vec<Found>,
    pub(crate) next: Option<String>,
}

/// An upload that is under way.
#[derive(Clone, Debug)]
pub(crate) struct Upload {
    pub(crate) path: String,
    pub(crate) store: String,
}
