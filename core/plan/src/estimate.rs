//! What a plan would move, without moving it.

use crate::layout::Layout;
use crate::manifest::Sums;
use crate::selection::Selection;
use crate::snapshot::Snapshot;

/// Length in bytes of a sealed message of so much plaintext (C2SP chunked-encryption v1): 56 bytes of
/// header, and a 16-byte tag for each 16 KiB chunk, the last of which is always short, so maybe empty.
pub const fn sealed_len(plain_len: u64) -> u64 {
    56 + plain_len + 16 * (plain_len / 16384 + 1)
}

/// The sums of one share or of a whole lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimate {
    /// Regular files.
    pub files: u64,
    pub symlinks: u64,
    /// Directories shown, the root apart. Of a whole lease: each once, however many shares show it.
    pub dirs: u64,
    /// Content of the files.
    pub bytes: u64,
    pub blocks: u64,
    /// What the blocks come to on the wire and on disk.
    pub sealed_bytes: u64,
    /// Plaintext of the manifests: what a worker holds in memory for its names.
    pub manifest_bytes: u64,
}

impl Estimate {
    /// Of one rank's share; all zero for a rank that the layout does not have.
    pub fn of_share(
        snapshot: &Snapshot,
        selection: &Selection,
        layout: &Layout,
        rank: u16,
    ) -> Self {
        let Some(share) = layout.share(rank) else { return Self::default() };
        let sums = Sums::of(snapshot, selection, layout, rank);
        let blocks = &layout.blocks()[share.blocks.start as usize..share.blocks.end as usize];
        Self {
            files: sums.files,
            symlinks: sums.symlinks,
            dirs: sums.dirs,
            bytes: share.bytes,
            blocks: blocks.len() as u64,
            sealed_bytes: blocks.iter().map(|block| sealed_len(block.plain_len.into())).sum(),
            manifest_bytes: sums.manifest_len(),
        }
    }

    /// Of all shares together.
    pub fn of_lease(snapshot: &Snapshot, selection: &Selection, layout: &Layout) -> Self {
        let shares = (0..layout.ranks()).map(|r| Self::of_share(snapshot, selection, layout, r));
        Self::of_shares(selection, &shares.collect::<Vec<_>>())
    }

    /// Of all shares together, which were estimated one by one.
    pub fn of_shares(selection: &Selection, shares: &[Self]) -> Self {
        let mut sum = shares.iter().fold(Self::default(), |sum, share| Self {
            files: sum.files + share.files,
            symlinks: sum.symlinks + share.symlinks,
            dirs: 0,
            bytes: sum.bytes + share.bytes,
            blocks: sum.blocks + share.blocks,
            sealed_bytes: sum.sealed_bytes + share.sealed_bytes,
            manifest_bytes: sum.manifest_bytes + share.manifest_bytes,
        });
        sum.dirs = selection.dirs().len() as u64;
        sum
    }
}
