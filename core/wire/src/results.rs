//! Results on their way home, over mTLS below `/v1/leases/{lease}/results/`.
//!
//! | request | body | answer |
//! | --- | --- | --- |
//! | `POST store` | [`StoreRequest`] framed, then the sealed blocks | [`Stored`] |
//! | `POST begin` | [`BeginRequest`] | [`BeginReply`] |
//! | `POST part` | [`PartRequest`] framed, then the part's sealed blocks | [`PartReceipt`] |
//! | `POST copy` | [`CopyRequest`] | [`PartReceipt`] |
//! | `POST commit` | [`CommitRequest`] | [`Stored`] |
//! | `POST abandon` | [`AbandonRequest`] | `{}` |
//! | `POST change` | [`ChangeRequest`] | [`Changed`] |
//! | `POST list` | [`ListRequest`] | [`ListReply`] |
//! | `POST read` | [`ReadRequest`] | the plaintext range, into the worker's memory |
//!
//! Every request may be repeated. A request that names a path carries a sequence number of its worker;
//! one that comes after a later one for the same path changes nothing and is `superseded`.

use serde::ser::Error as _;
use serde::{Deserialize, Serialize};
use tidegate_plan::ContentId;

use crate::Base64;

/// Longest head of a framed body, bytes.
pub const MAX_RESULT_HEAD: usize = 16 * 1024;
/// Largest JSON body of a commit, bytes: 10,000 receipts.
pub const MAX_COMMIT_BODY: usize = 4 << 20;

/// What a worker may bring home. Absent in [`crate::LeaseTerms`]: nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ResultsTerms {
    /// HPKE public key (X-Wing, 1216 bytes) that content keys are sealed to.
    pub public_key: Base64,
    /// Show what is at home already.
    pub resume: bool,
    /// Bytes and files that may still be brought home when the worker attaches; what is stored again
    /// counts again.
    pub bytes: u64,
    pub files: u64,
    /// Seconds that draining may take once the job has ended.
    pub drain_s: u32,
    /// Directories exist by themselves at home, and can be renamed (a directory, not a bucket).
    pub directories: bool,
}

/// What is kept of a file besides its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Attributes {
    /// Permission bits.
    pub mode: u32,
    /// Seconds since the epoch, and nanoseconds, by the worker's clock.
    pub mtime_s: i64,
    pub mtime_ns: u32,
}

/// `POST store`: a file of one part or less, whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StoreRequest {
    pub path: String,
    pub seq: u64,
    pub attributes: Attributes,
    pub content: ContentId,
    /// The content's key, HPKE-sealed to [`ResultsTerms::public_key`].
    pub key: Base64,
    /// Plaintext length in bytes.
    pub len: u64,
}

/// `POST begin`: a file of several parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BeginRequest {
    pub path: String,
    pub content: ContentId,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BeginReply {
    /// Names the upload to any replica; opaque.
    pub upload: String,
}

/// `POST part`: one part of a file, of at most `RESULT_PART_LEN` bytes. Parts come in any order and may
/// come again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PartRequest {
    pub upload: String,
    /// What the sealed blocks are sealed as. A later content of the same file may go on with the
    /// upload of an earlier one.
    pub content: ContentId,
    pub key: Base64,
    /// Counted from 0.
    pub part: u32,
    /// Plaintext length in bytes.
    pub len: u32,
}

/// What a gateway says of a part that is durable at home.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PartReceipt {
    pub part: u32,
    pub len: u32,
    /// BLAKE3 chaining value of the part (`tidegate_plan::PartHash`), 32 bytes.
    pub hash: Base64,
    /// The store's word for it; may be empty.
    pub tag: String,
    /// By which any replica knows that one of them said this of this upload.
    pub proof: Base64,
}

/// `POST copy`: a part that is the same as in the version at home, without its bytes crossing the link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CopyRequest {
    pub upload: String,
    pub path: String,
    /// [`Stored::version`] of what is at home.
    pub version: String,
    /// Of the part, from the upload that made that version.
    pub receipt: PartReceipt,
}

/// `POST commit`: the file appears at home, whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CommitRequest {
    pub upload: String,
    pub path: String,
    pub seq: u64,
    pub attributes: Attributes,
    pub content: ContentId,
    /// Plaintext length in bytes.
    pub len: u64,
    /// Of every part, in order.
    pub parts: Vec<PartReceipt>,
}

/// `POST abandon`: nobody will commit the upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AbandonRequest {
    pub upload: String,
    pub path: String,
}

/// The file is durable at home under its name, and in the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Stored {
    /// Names this version at home; opaque. Empty when the request was superseded.
    pub version: String,
    /// BLAKE3 of the plaintext, 32 bytes. Empty when the request was superseded.
    pub blake3: Base64,
    /// A later request for the path had come before this one, which changed nothing.
    pub superseded: bool,
}

/// `POST change`: a change of names. Those of directories that a bucket does not have do nothing there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChangeRequest {
    pub seq: u64,
    pub change: Change,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Change {
    /// A file takes another name, and the place of what has it, if it is that `version`; without one, whichever
    /// it is. Repeated: it has it already, if what has that name is that version.
    Rename {
        from: String,
        to: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<String>,
    },
    /// A directory with all below it; only where [`ResultsTerms::directories`].
    RenameDirectory {
        from: String,
        to: String,
    },
    /// A file is no more. Repeated: it is not there.
    Unlink {
        path: String,
    },
    /// A directory is there, and those above it.
    MakeDirectory {
        path: String,
        mode: u32,
    },
    RemoveDirectory {
        path: String,
    },
    /// A file's mode and time without its bytes; a bucket keeps what came with the bytes.
    SetAttributes {
        path: String,
        attributes: Attributes,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Changed {
    /// Version of what was renamed, under its new name; empty otherwise.
    pub version: String,
}

/// `POST list`: what is at home, a page at a time, for a lease that resumes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ListRequest {
    /// Where the page before ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ListReply {
    /// At most so many that the page stays under the largest JSON body.
    pub found: Vec<Found>,
    /// Ask again with this as `after`; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Found {
    pub path: String,
    pub directory: bool,
    pub len: u64,
    pub attributes: Attributes,
    pub version: String,
}

/// `POST read`: bytes of a version at home; the range lies within it. An entry in the ledger stands
/// before the first byte of a version leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReadRequest {
    pub path: String,
    pub version: String,
    pub offset: u64,
    /// At most `RESULT_PART_LEN`.
    pub len: u32,
}

/// A head and what follows it: length (u32, big-endian), JSON, sealed bytes.
pub fn frame_head(head: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let json = serde_json::to_vec(head)?;
    let len = u32::try_from(json.len()).map_err(serde_json::Error::custom)?;
    Ok([len.to_be_bytes().as_slice(), &json].concat())
}

/// The length of a head from the first four bytes of its body; `None` when it is longer than any may be.
pub fn head_len(prefix: [u8; 4]) -> Option<usize> {
    usize::try_from(u32::from_be_bytes(prefix)).ok().filter(|len| *len <= MAX_RESULT_HEAD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_framed_and_bounded() {
        let head = AbandonRequest { upload: "u".into(), path: "a/ü".into() };
        let framed = frame_head(&head).unwrap();
        let (prefix, json) = framed.split_first_chunk().unwrap();
        assert_eq!(head_len(*prefix), Some(json.len()));
        assert_eq!(serde_json::from_slice::<AbandonRequest>(json).unwrap(), head);
        assert_eq!(head_len(u32::MAX.to_be_bytes()), None);
        assert_eq!(head_len(16_385_u32.to_be_bytes()), None);
    }

    #[test]
    fn a_commit_of_the_most_parts_fits() {
        let receipt = PartReceipt {
            part: 9_999,
            len: u32::MAX,
            hash: vec![7; 32].into(),
            tag: "\"0123456789abcdef0123456789abcdef\"".into(),
            proof: vec![9; 32].into(),
        };
        let commit = CommitRequest {
            upload: "u".repeat(1024),
            path: "p".repeat(4095),
            seq: u64::MAX,
            attributes: Attributes { mode: 0o644, mtime_s: i64::MIN, mtime_ns: 0 },
            content: ContentId::from_bytes([1; 32]),
            len: u64::MAX,
            parts: vec![receipt; 10_000],
        };
        assert!(serde_json::to_vec(&commit).unwrap().len() < MAX_COMMIT_BODY);
    }
}
