//! The append-only record of what left and what became of it.
//!
//! An [`Event`] becomes an [`Entry`], canonical JSON under 64 KiB. Entries are the leaves of an
//! RFC 6962 Merkle [`Tree`]; each [`Batch`] of them ends in a signed [`Checkpoint`] (C2SP
//! tlog-checkpoint, signed-note). [`Ledger`] proposes and accepts batches, [`verify`] judges a
//! copy of them offline, [`tiles::export`] writes them as C2SP tlog-tiles. Entries hold ids,
//! counts and [`Commitment`]s only; the [`Document`]s behind those lie beside the log and can be
//! erased without breaking it.
//!
//! Pure: values in, values out. Clock, randomness and files belong to the caller.

mod batch;
mod canonical;
mod certificate;
mod checkpoint;
mod digest;
mod document;
mod event;
mod history;
mod note;
mod receipt;
mod results;
mod tree;
mod verify;

pub mod tiles;

pub use batch::{Batch, BatchError, Fault, MAX_BATCH_BYTES, Why, batch_name};
pub use canonical::{CanonicalError, to_canonical};
pub use certificate::{
    CertificateError, Discarded, LOST_NAMES_MAX, METHOD_OVERWRITE, Observed, Shortfall, Stated,
    StatedCounters, StatedFacts, StatedResults, WipeCertificate, verify_signature, verify_stated,
};
pub use checkpoint::{Checkpoint, CheckpointError};
pub use digest::{Digest, DigestError};
pub use document::{Commitment, Document, DocumentError, commit};
pub use event::{
    Action, Cause, Entry, EntryError, Event, MAX_ENTRY_BYTES, Outcome, Predecessor, ResultsAct,
};
pub use history::{Ledger, ProposeError};
pub use note::{KeyError, NoteError, SigningKey, VerifierKey, open_note};
pub use receipt::{Receipt, ReceiptError, verify_receipt};
pub use results::{LISTED_MAX, ListedResult, ResultsListing};
pub use tree::{Tree, leaf_hash, node_hash, verify_consistency, verify_inclusion};
pub use verify::{Report, verify, verify_followed};

/// The ids that entries carry, for crates that know the ledger but not the plan.
pub use tidegate_plan::{IdError, InstanceId, LayoutId, LeaseId, SelectionId, SnapshotId, TokenId};
