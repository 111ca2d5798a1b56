//! What leaves and how it is cut: ids, snapshot, selection, block layout, manifest.
//!
//! Pure: values in, values out. No files, sockets, clock or randomness.

mod ids;

pub use ids::{IdError, InstanceId, LayoutId, LeaseId, SelectionId, SnapshotId, TokenId};
