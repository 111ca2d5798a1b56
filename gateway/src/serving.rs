//! Blocks and manifests of an admitted worker, and the terms it works by.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use tidegate_plan::{Layout, sealed_len};
use tidegate_seal::{Context, Kind, SALT_LEN, depth};
use tidegate_wire::{LeaseTerms, ProblemKind};
use tokio::sync::mpsc;

use crate::admission::{Admitted, over, refuse};
use crate::book::Document;
use crate::keyring::random;
use crate::live::{Goods, Live};
use crate::office::Office;
use crate::pipeline::{self, BlockJob};
use crate::problem::Refusal;
use crate::refusals::Reason;

/// Sealed bytes on their way, their exact number known.
pub(crate) struct Sealed {
    pub(crate) len: u64,
    pub(crate) frames: BoxStream<'static, Result<Bytes, pipeline::Torn>>,
}

/// The blocks of a rank's share.
pub(crate) fn share_of(layout: &Layout, rank: u16) -> Result<Range<u32>, Refusal> {
    layout
        .share(rank)
        .map(|share| share.blocks.clone())
        .ok_or_else(|| Refusal::internal("a rank has no share", &rank))
}

/// Plaintext bytes of a window of blocks.
pub(crate) fn window_bytes(layout: &Layout, window: Range<u32>) -> u64 {
    window.filter_map(|n| layout.block(n)).map(|block| u64::from(block.plain_len)).sum()
}

/// What the lease gives out. A worker may find it at another replica when it is not to be had here.
pub(crate) async fn goods(office: &Office, live: &Live) -> Result<Arc<Goods>, Refusal> {
    match live.goods() {
        Some(goods) => Ok(goods),
        None if live.is_dormant() => Err(dormant()),
        None => Err(over(office, live.id).await),
    }
}

/// The answer while a lease's source or key cannot be reached from here.
pub(crate) fn dormant() -> Refusal {
    Refusal::new(ProblemKind::Unavailable, "the lease cannot be served from this gateway now")
}

/// What a worker must know to ask for, open and place its blocks; nothing of results.
pub(crate) async fn terms(
    office: &Office,
    live: &Live,
    document: &Document,
    rank: u16,
) -> Result<LeaseTerms, Refusal> {
    let goods = goods(office, live).await?;
    let share = share_of(&goods.layout, rank)?;
    let (first_block, end_block) = (share.start, share.end);
    let estimate = goods.share(rank);
    let lease = &document.lease;
    Ok(LeaseTerms {
        lease: lease.id,
        snapshot: lease.snapshot,
        layout: lease.layout,
        rank,
        ranks: lease.ranks,
        blocks: lease.blocks,
        first_block,
        end_block,
        window_blocks: lease.policy.window_blocks,
        manifest_len: estimate.manifest_bytes,
        bytes: estimate.bytes,
        files: estimate.files,
        deadline: lease.deadline,
        heartbeat: lease.policy.heartbeat_s,
        grace: lease.policy.grace_s,
        results: None,
    })
}

/// One block, sealed while it is sent.
pub(crate) async fn block(
    office: &Office,
    admitted: &Admitted,
    number: u32,
) -> Result<Sealed, Refusal> {
    let live = &admitted.live;
    let goods = goods(office, live).await?;
    if !share_of(&goods.layout, admitted.rank)?.contains(&number) {
        let detail = "the block is not of this share";
        let kind = ProblemKind::Forbidden;
        return Err(refuse(office, live.id, Reason::OutsideShare, kind, detail).await);
    }
    let lease = &live.view().document.lease;
    let key = office.keyring.with(live.id, |key| {
        key.tree_root().cover(depth(lease.blocks), number..number + 1).leaf(number)
    });
    let Some(Some(key)) = key else { return Err(over(office, live.id).await) };
    let context = Context {
        kind: Kind::Block,
        lease: live.id,
        layout: lease.layout,
        number: number.into(),
        count: lease.blocks.into(),
    };
    let job = BlockJob {
        source: Arc::clone(&goods.source),
        snapshot: Arc::clone(&goods.snapshot),
        selection: Arc::clone(&goods.selection),
        layout: Arc::clone(&goods.layout),
        block: number,
        key,
        context,
        salt: random::<SALT_LEN>(),
    };
    match pipeline::start(job, &live.presence(admitted.rank).part(&office.budget)).await {
        Ok(stream) => Ok(Sealed { len: stream.len, frames: Box::pin(stream.frames) }),
        Err(pipeline::Refused::SourceChanged { .. }) => {
            crate::meters::SOURCE_ERRORS.add_for(&["changed"], 1);
            Err(Refusal::new(ProblemKind::SourceChanged, ""))
        }
        Err(refused) => {
            tracing::warn!(lease = %live.id, block = number, %refused, "a block cannot be read");
            crate::meters::SOURCE_ERRORS.add_for(&["unavailable"], 1);
            Err(Refusal::new(ProblemKind::SourceUnavailable, ""))
        }
    }
}

/// The share's manifest: pieces sealed one after the other while they are sent.
pub(crate) async fn manifest(office: &Office, admitted: &Admitted) -> Result<Sealed, Refusal> {
    let (live, rank) = (&admitted.live, admitted.rank);
    let goods = goods(office, live).await?;
    let Some(key) = office.keyring.with(live.id, |key| key.manifest_key(rank)) else {
        return Err(over(office, live.id).await);
    };
    let own = live.presence(rank).manifests().acquire_owned().await;
    let permit = Arc::clone(&office.manifests).acquire_owned().await;
    let (Ok(own), Ok(permit)) = (own, permit) else {
        return Err(Refusal::internal("no manifests are made any more", &live.id));
    };
    let (id, layout) = (live.id, live.view().document.lease.layout);
    let plain = tokio::task::spawn_blocking(move || goods.manifest(rank))
        .await
        .map_err(|error| Refusal::internal("a manifest was given up", &error))?;
    let pieces = plain.chunks(pipeline::MANIFEST_PIECE).map(|piece| sealed_len(piece.len() as u64));
    let len = if plain.is_empty() { sealed_len(0) } else { pieces.sum() };
    let (sender, receiver) = mpsc::channel(1);
    tokio::task::spawn_blocking(move || {
        let _permits = (own, permit);
        for piece in pipeline::seal_manifest(&plain, &key, id, layout, random::<SALT_LEN>) {
            if sender.blocking_send(Ok(Bytes::from(piece))).is_err() {
                break;
            }
        }
    });
    let frames = futures_util::stream::unfold(receiver, async |mut receiver| {
        receiver.recv().await.map(|piece| (piece, receiver))
    });
    Ok(Sealed { len, frames: Box::pin(frames) })
}
