//! What leaves and how it is cut: ids, snapshot, selection, block layout, manifest.
//!
//! Pure: values in, values out. No files, sockets, clock or randomness.
//!
//! One way through the crate: a listing becomes a [`Snapshot`]; a [`SelectionSpec`] picks a
//! [`Selection`] of it; [`Layout`] cuts the selection into shares and blocks; [`build_manifest`]
//! writes one share's names and places; [`Manifest`] reads them on the other side. Results go the other
//! way, cut into blocks and parts: [`PartHash`].

mod codec;
mod content;
mod entry;
mod estimate;
mod ids;
mod layout;
mod manifest;
mod path;
mod selection;
mod snapshot;
#[cfg(test)]
mod testing;

pub use codec::FormatError;
pub use content::{
    PartHash, RESULT_BLOCK_LEN, RESULT_LEN_MAX, RESULT_PART_LEN, RESULT_PARTS_MAX, result_blocks,
    result_parts,
};
pub use entry::{Entry, Kind, Timestamp, Unshown, Version};
pub use estimate::{Estimate, sealed_len};
pub use ids::{
    ContentId, IdError, InstanceId, LayoutId, LeaseId, SelectionId, SnapshotId, TokenId,
};
pub use layout::{
    BLOCK_MAX, Block, BlockKind, CHUNK, Extent, LAYOUT_VERSION, Layout, LayoutError, MAX_BLOCKS,
    PACK_DATA_MAX, PACK_EXTENTS_MAX, Share, bitmap_len,
};
pub use manifest::{BlockInfo, Manifest, Piece, Record, RecordKind, build_manifest};
pub use path::{PathError, RelPath, Shown};
pub use selection::{Selection, SelectionError, SelectionSpec};
pub use snapshot::Snapshot;
