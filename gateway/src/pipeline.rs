//! From extents to a sealed stream: read, seal in place, hand over.
//!
//! ```text
//! source ──read──▶ frame (256 KiB, one buffer) ──seal in place──▶ channel (bounded) ──▶ connection
//! ```
//!
//! Only the bytes of the block's extents are read. A *packed* block is gathered whole, and files
//! that changed since the snapshot are marked in its bitmap; a *whole* block is sealed and sent while
//! it is read, and fails as a whole. Sealing runs on blocking threads, never on the reactor. All
//! buffers come from one [`Budget`].

mod budget;
mod buffer;
mod frame;
mod gathered;
mod job;
mod manifest;
mod outlet;
mod packed;
mod permit;
mod whole_file;
mod whole_object;

pub use budget::Budget;
pub use job::{BlockJob, Frames, Refused, SealedStream, Torn};
pub use manifest::{MANIFEST_PIECE, manifest_pieces, seal_manifest};
use tidegate_plan::{BlockKind, sealed_len};

use crate::source::Store;

/// Reads and seals one block. When this returns a stream, a whole block's first bytes were read and
/// a packed block is complete.
pub async fn start(job: BlockJob, budget: &Budget) -> Result<SealedStream, Refused> {
    let block = job.layout.block(job.block).ok_or(Refused::NoSuchBlock(job.block))?;
    let (kind, plain) = (block.kind, block.plain_len);
    let store = job.source.store().clone();
    let frames = match kind {
        BlockKind::Packed => {
            let plain = plain as usize;
            match store {
                Store::Directory(directory) => {
                    packed::of_files(job, directory, plain, budget).await?
                }
                Store::Bucket(bucket) => packed::of_objects(job, bucket, plain, budget).await?,
            }
        }
        BlockKind::Whole => {
            let extent = match job.extents()[..] {
                [only] if (only.at, only.len) == (0, plain) => only,
                _ => return Err(Refused::NoSuchBlock(job.block)),
            };
            let entry = job.entry(&extent).ok_or(Refused::NoSuchBlock(job.block))?;
            match store {
                Store::Directory(directory) => {
                    whole_file::start(job, directory, extent, entry, budget).await?
                }
                Store::Bucket(bucket) => {
                    whole_object::start(job, bucket, extent, entry, budget).await?
                }
            }
        }
    };
    Ok(SealedStream { len: sealed_len(plain.into()), frames })
}

#[cfg(test)]
mod tests;
