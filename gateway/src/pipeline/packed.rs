//! Packed blocks: extents of many files, gathered whole. A file that changed is marked in the
//! block's bitmap and is stale alone.

use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream;
use tidegate_plan::{Entry, Extent};
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;

use super::budget::Budget;
use super::frame::frames;
use super::gathered::Gathered;
use super::job::{BlockJob, Frames, Refused};
use crate::source::{Bucket, Directory, ReadError};

/// Objects of one block that are asked of a store at the same time.
const REQUESTS: usize = 32;

/// Reads the extents on a thread of its own, which then seals.
pub(super) async fn of_files(
    job: BlockJob,
    directory: Arc<Directory>,
    plain: usize,
    budget: &Budget,
) -> Result<Frames, Refused> {
    let many = frames(plain);
    let (buffers, _) = budget.frames(many, 0).await;
    let (sender, receiver) = mpsc::channel(many);
    let (gathered, ready) = oneshot::channel();
    spawn_blocking(move || {
        let extents = job.extents();
        let block = Gathered::new(buffers, plain, &extents)
            .ok_or(Refused::NoSuchBlock(job.block))
            .and_then(|mut block| {
                for (ordinal, extent) in extents.iter().enumerate() {
                    // Whoever asked is gone: no use in reading on.
                    if gathered.is_closed() {
                        return Err(Refused::Failed);
                    }
                    let entry = job.entry(extent).ok_or(Refused::NoSuchBlock(job.block))?;
                    let read = read_file(&directory, &entry, extent, &mut block);
                    settle(&job, &mut block, (ordinal, extent, &entry), read)?;
                }
                Ok(block)
            });
        match block {
            Err(refused) => {
                // Whoever asked may be gone.
                let _ = gathered.send(Err(refused));
            }
            Ok(block) => {
                if gathered.send(Ok(())).is_ok() {
                    // The channel holds a block's frames, so this waits for nobody.
                    block.seal(job.sealer()).all(|frame| sender.try_send(Ok(frame)).is_ok());
                }
            }
        }
    });
    match ready.await {
        Ok(result) => result.map(|()| Frames(receiver)),
        Err(_) => Err(Refused::Failed),
    }
}

fn read_file(
    directory: &Directory,
    entry: &Entry,
    extent: &Extent,
    block: &mut Gathered,
) -> Result<(), ReadError> {
    let file = directory.open_file(entry)?;
    file.read_pieces(extent.offset, &mut block.places(extent))?;
    file.check()
}

/// Asks for the extents several at a time; seals on a thread of its own.
pub(super) async fn of_objects(
    job: BlockJob,
    bucket: Arc<Bucket>,
    plain: usize,
    budget: &Budget,
) -> Result<Frames, Refused> {
    let many = frames(plain);
    // What the store sends lies in buffers of its connections until it is copied to its place.
    let (buffers, in_flight) = budget.frames(many, many).await;
    let extents = job.extents();
    let mut block =
        Gathered::new(buffers, plain, &extents).ok_or(Refused::NoSuchBlock(job.block))?;
    let mut parts = Vec::with_capacity(extents.len());
    for (ordinal, extent) in extents.into_iter().enumerate() {
        let entry = job.entry(&extent).ok_or(Refused::NoSuchBlock(job.block))?;
        parts.push((ordinal, extent, entry));
    }
    let read = move |(ordinal, extent, entry): (usize, Extent, Entry)| {
        let bucket = Arc::clone(&bucket);
        async move {
            let read = read_object(&bucket, &entry, &extent).await;
            (ordinal, extent, entry, read)
        }
    };
    let mut reads = stream::iter(parts).map(read).buffer_unordered(REQUESTS);
    while let Some((ordinal, extent, entry, read)) = reads.next().await {
        let placed = read.map(|chunks| {
            let mut from = 0;
            for chunk in chunks {
                block.put(&extent, from, &chunk);
                from += chunk.len();
            }
        });
        settle(&job, &mut block, (ordinal, &extent, &entry), placed)?;
    }
    drop(reads);
    drop(in_flight);
    let (sender, receiver) = mpsc::channel(many);
    let sealer = job.sealer();
    spawn_blocking(move || block.seal(sealer).all(|frame| sender.try_send(Ok(frame)).is_ok()));
    Ok(Frames(receiver))
}

async fn read_object(
    bucket: &Arc<Bucket>,
    entry: &Entry,
    extent: &Extent,
) -> Result<Vec<bytes::Bytes>, ReadError> {
    let mut reader = bucket.read(entry, extent.offset, extent.len.into()).await?;
    let mut chunks = Vec::new();
    while let Some(chunk) = reader.chunk().await? {
        chunks.push(chunk);
    }
    Ok(chunks)
}

/// Marks an extent good or stale. A source that does not answer now fails the block: it may
/// answer later, and stale is for ever.
fn settle(
    job: &BlockJob,
    block: &mut Gathered,
    (ordinal, extent, entry): (usize, &Extent, &Entry),
    read: Result<(), ReadError>,
) -> Result<(), Refused> {
    match read {
        Ok(()) => block.good(ordinal),
        Err(why @ (ReadError::Changed | ReadError::Denied)) => {
            job.log(entry, &why);
            block.stale(extent);
        }
        Err(why) => {
            job.log(entry, &why);
            return Err(Refused::of(entry, why));
        }
    }
    Ok(())
}
