//! The document behind an entry about results: which files, with which bytes, made of which data.

use serde::{Deserialize, Serialize};
use tidegate_plan::{LeaseId, SelectionId, SnapshotId};

use crate::canonical::{CanonicalError, from_canonical, to_canonical};
use crate::{Digest, ResultsAct};

/// Most files of one listing.
pub const LISTED_MAX: usize = 256;

/// What was done to which results. The body of a [`crate::Document`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResultsListing {
    pub v: u32,
    pub act: ResultsAct,
    pub lease: LeaseId,
    pub rank: u16,
    /// The data that the job could see.
    pub snapshot: SnapshotId,
    pub selection: SelectionId,
    /// Digest of the job's image, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Where they lie: a directory or `s3://bucket/prefix/`.
    pub home: String,
    pub files: Vec<ListedResult>,
}

/// One file of a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListedResult {
    /// Below the home.
    pub path: String,
    /// Renamed: what it was called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    pub bytes: u64,
    /// BLAKE3 of the plaintext; absent where nobody looked at the bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blake3: Option<Digest>,
}

impl ResultsListing {
    pub const VERSION: u32 = 1;

    pub fn to_canonical(&self) -> Result<String, CanonicalError> {
        to_canonical(self)
    }

    /// Reads a listing of this version.
    pub fn parse(text: &str) -> Option<Self> {
        from_canonical::<Self>(text).ok().filter(|listing| listing.v == Self::VERSION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_reads_as_it_was_written() {
        let listing = ResultsListing {
            v: 1,
            act: ResultsAct::Stored,
            lease: LeaseId::from_bytes([1; 16]),
            rank: 0,
            snapshot: SnapshotId::from_bytes([2; 32]),
            selection: SelectionId::from_bytes([3; 32]),
            image: None,
            home: "s3://bucket/prefix/".into(),
            files: vec![ListedResult {
                path: "a/ü.pt".into(),
                from: None,
                bytes: 7,
                blake3: Some(Digest::from_bytes([4; 32])),
            }],
        };
        let text = listing.to_canonical().unwrap();
        assert_eq!(ResultsListing::parse(&text), Some(listing));
        assert_eq!(ResultsListing::parse(&text.replace("\"v\":1", "\"v\":2")), None);
        assert_eq!(ResultsListing::parse(&format!("{text} ")), None, "one form only");
    }
}
