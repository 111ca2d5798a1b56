//! A lease that this process did not grant gets what it is served with: its source, how its selection is
//! cut, its key.
//!
//! A source may hang for as long as a network file system does. So it is opened in a task of its own, one
//! a lease, for which each try waits a little; and few hang at a time.

use std::sync::Arc;
use std::time::Duration;

use tidegate_lease::Lease;

use crate::book::Document;
use crate::config::Inadmissible;
use crate::keyring::KeyringError;
use crate::live::{Goods, Live, Opening};
use crate::office::Office;
use crate::record::RecordError;
use crate::shelf::{Cut, CutError};
use crate::source::{Source, SourceError};

/// For how long one try waits for a source.
const PATIENCE: Duration = Duration::from_secs(5);

/// A lease cannot be served any more as it was granted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GoodsError {
    #[error("its key is lost")]
    Key(#[source] KeyringError),
    #[error("its key cannot be read")]
    Keyring(#[source] KeyringError),
    #[error(transparent)]
    Inadmissible(#[from] Inadmissible),
    #[error("its {0} cannot be read")]
    Kept(&'static str, #[source] RecordError),
    #[error("its source does not answer")]
    Slow,
    #[error("its source cannot be used")]
    Source(#[from] SourceError),
    #[error(transparent)]
    Cut(#[from] CutError),
    #[error("it was given up")]
    Task(#[from] tokio::task::JoinError),
    #[error("its selection is cut in another way by this version")]
    Layout,
}

impl GoodsError {
    /// Whether it is worth to try again.
    pub(crate) const fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Slow
                | Self::Keyring(_)
                | Self::Source(_)
                | Self::Task(_)
                | Self::Kept(_, RecordError::Store(_))
        )
    }
}

/// Serves a lease that lies dormant, if its source and key can be reached.
pub(crate) async fn wake(office: &Office, live: &Live) -> Result<(), GoodsError> {
    // Whoever comes meanwhile waits for the same.
    let mut opening = live.opening.lock().await;
    if !live.is_dormant() {
        return Ok(());
    }
    let goods = goods(office, &live.view().document, &mut opening).await?;
    // The key last: the lease may end meanwhile, and then it is not to be here.
    let loaded = office.keyring.load(live.id).await;
    if let Ok(true) = loaded {
        live.supply(goods);
    }
    if live.goods().is_none() {
        office.keyring.forget(live.id);
    }
    match loaded {
        Ok(true) if live.is_over() => {}
        Ok(true) => tracing::info!(lease = %live.id, "a lease goes on here"),
        // Destroyed by whoever ended it.
        Ok(false) => live.end(office.now()),
        // Unreadable for good, here at least.
        Err(
            error @ (KeyringError::Damaged | KeyringError::NoEpoch(_) | KeyringError::Unwrap(_)),
        ) => return Err(GoodsError::Key(error)),
        Err(error) => return Err(GoodsError::Keyring(error)),
    }
    Ok(())
}

async fn opened(
    office: &Office,
    document: &Document,
    opening: &mut Option<Opening>,
) -> Result<Source, GoodsError> {
    let under_way = match opening {
        Some(under_way) => under_way,
        None => {
            let spec = office.config.admit(&document.source)?;
            let place = Arc::clone(&office.openings).try_acquire_owned();
            let place = place.map_err(|_| GoodsError::Slow)?;
            opening.insert(tokio::spawn(async move {
                let opened = Source::open(spec).await;
                drop(place);
                opened
            }))
        }
    };
    let ended = tokio::time::timeout(PATIENCE, under_way).await.map_err(|_| GoodsError::Slow)?;
    *opening = None;
    Ok(ended??)
}

async fn goods(
    office: &Office,
    document: &Document,
    opening: &mut Option<Opening>,
) -> Result<Goods, GoodsError> {
    let lease = &document.lease;
    let source = Arc::new(opened(office, document, opening).await?);
    office.config.admit(&source.place()?)?;
    let cut = match office.shelf.cut(lease.snapshot, lease.selection, lease.ranks) {
        Some(cut) => cut,
        None => read_cut(office, lease).await?,
    };
    if cut.layout.id() != lease.layout {
        return Err(GoodsError::Layout);
    }
    let _place = Arc::clone(&office.places).try_acquire_owned().ok();
    Ok(Goods { source, cut, _place })
}

/// Reads the snapshot, unless another lease has it, and selects and cuts as at the grant.
async fn read_cut(office: &Office, lease: &Lease) -> Result<Arc<Cut>, GoodsError> {
    let unread = |what| move |why| GoodsError::Kept(what, why);
    let snapshot = match office.shelf.snapshot(lease.snapshot) {
        Some(snapshot) => snapshot,
        None => {
            let read = office.record.snapshot(lease.snapshot).await;
            office.shelf.keep(read.map_err(unread("snapshot"))?)
        }
    };
    let selection = office.record.selection(lease.selection).await;
    let selection = selection.map_err(unread("selection"))?;
    let (shelf, ranks) = (Arc::clone(&office.shelf), lease.ranks);
    let making = move || shelf.make(snapshot, &selection, ranks);
    Ok(tokio::task::spawn_blocking(making).await??)
}
