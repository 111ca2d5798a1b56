//! What several leases have in common is kept in memory once: snapshots, and how a selection of one
//! is cut. Both are named by their content, and go with the last lease that uses them.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tidegate_plan::{
    Estimate, Layout, LayoutError, Selection, SelectionError, SelectionId, SelectionSpec, Snapshot,
    SnapshotId, build_manifest,
};
use tokio::sync::{Semaphore, SemaphorePermit};

/// A selection of a snapshot, cut into shares.
#[derive(Debug)]
pub(crate) struct Cut {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) selection: Arc<Selection>,
    pub(crate) layout: Arc<Layout>,
    /// Sums over all shares.
    pub(crate) lease: Estimate,
    /// Sums of each share.
    shares: Vec<Estimate>,
    /// Manifests that are being sent.
    manifests: Mutex<HashMap<u16, Weak<Vec<u8>>>>,
}

/// A snapshot cannot be selected from or cut; the caller can mend it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CutError {
    #[error("the selection cannot be made")]
    Selection(#[from] SelectionError),
    #[error("the selection cannot be cut into blocks")]
    Layout(#[from] LayoutError),
}

impl Cut {
    /// Blocking.
    fn make(snapshot: Arc<Snapshot>, spec: &SelectionSpec, ranks: u16) -> Result<Self, CutError> {
        let selection = Selection::resolve(&snapshot, spec)?;
        let layout = Layout::build(&snapshot, &selection, ranks)?;
        let shares: Vec<_> = (0..ranks)
            .map(|rank| Estimate::of_share(&snapshot, &selection, &layout, rank))
            .collect();
        Ok(Self {
            lease: Estimate::of_shares(&selection, &shares),
            snapshot,
            selection: Arc::new(selection),
            layout: Arc::new(layout),
            shares,
            manifests: Mutex::default(),
        })
    }

    /// Sums of one rank's share; all zero for a rank that there is not.
    pub(crate) fn share(&self, rank: u16) -> Estimate {
        self.shares.get(usize::from(rank)).copied().unwrap_or_default()
    }

    /// The plaintext of a share's manifest: the one that is being sent to somebody else, or a new
    /// one. Blocking.
    pub(crate) fn manifest(&self, rank: u16) -> Arc<Vec<u8>> {
        let lock = || self.manifests.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = lock().get(&rank).and_then(Weak::upgrade) {
            return shared;
        }
        let made = Arc::new(build_manifest(&self.snapshot, &self.selection, &self.layout, rank));
        lock().insert(rank, Arc::downgrade(&made));
        made
    }
}

/// Listings under way at once: each holds every entry of its source until they are a snapshot.
const LISTINGS: usize = 2;

/// All of what is in use.
#[derive(Debug)]
pub(crate) struct Shelf {
    listings: Semaphore,
    snapshots: Mutex<HashMap<SnapshotId, Weak<Snapshot>>>,
    cuts: Mutex<HashMap<(SnapshotId, SelectionId, u16), Weak<Cut>>>,
}

impl Default for Shelf {
    fn default() -> Self {
        Self {
            listings: Semaphore::new(LISTINGS),
            snapshots: Mutex::default(),
            cuts: Mutex::default(),
        }
    }
}

impl Shelf {
    /// Waits for a turn to list a source; it ends when what is returned is dropped.
    pub(crate) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // Never closed, so there always is a turn.
        self.listings.acquire().await.ok()
    }

    pub(crate) fn snapshot(&self, id: SnapshotId) -> Option<Arc<Snapshot>> {
        find(&self.snapshots, &id)
    }

    /// The snapshot of this content that is in use already, or this one.
    pub(crate) fn keep(&self, snapshot: Snapshot) -> Arc<Snapshot> {
        keep(&self.snapshots, snapshot.id(), snapshot)
    }

    pub(crate) fn cut(
        &self,
        snapshot: SnapshotId,
        selection: SelectionId,
        ranks: u16,
    ) -> Option<Arc<Cut>> {
        find(&self.cuts, &(snapshot, selection, ranks))
    }

    /// Selects and cuts, unless that was done. Blocking.
    pub(crate) fn make(
        &self,
        snapshot: Arc<Snapshot>,
        spec: &SelectionSpec,
        ranks: u16,
    ) -> Result<Arc<Cut>, CutError> {
        let key = (snapshot.id(), spec.id(), ranks);
        match find(&self.cuts, &key) {
            Some(cut) => Ok(cut),
            None => Ok(keep(&self.cuts, key, Cut::make(snapshot, spec, ranks)?)),
        }
    }
}

type Kept<K, V> = Mutex<HashMap<K, Weak<V>>>;

fn find<K: Eq + Hash, V>(kept: &Kept<K, V>, key: &K) -> Option<Arc<V>> {
    kept.lock().unwrap_or_else(PoisonError::into_inner).get(key)?.upgrade()
}

fn keep<K: Eq + Hash, V>(kept: &Kept<K, V>, key: K, value: V) -> Arc<V> {
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(same) = kept.get(&key).and_then(Weak::upgrade) {
        return same;
    }
    kept.retain(|_, value| value.strong_count() > 0);
    let value = Arc::new(value);
    kept.insert(key, Arc::downgrade(&value));
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_plan::{Entry, Kind, RelPath, Timestamp, Version};

    fn snapshot(size: u64) -> Snapshot {
        let entry = Entry {
            path: RelPath::new("a/file").unwrap(),
            kind: Kind::File,
            size,
            mode: 0o644,
            mtime: Timestamp::default(),
            version: Version::None,
        };
        Snapshot::build("test".into(), vec![entry], Vec::new())
    }

    #[test]
    fn the_same_content_is_kept_once_and_goes_with_its_last_user() {
        let shelf = Shelf::default();
        let first = shelf.keep(snapshot(1));
        let again = shelf.keep(snapshot(1));
        assert!(Arc::ptr_eq(&first, &again));
        let all = SelectionSpec::default();
        let one = shelf.make(Arc::clone(&first), &all, 2).unwrap();
        let two = shelf.make(again, &all, 2).unwrap();
        assert!(Arc::ptr_eq(&one, &two));
        assert!(!Arc::ptr_eq(&one, &shelf.make(Arc::clone(&first), &all, 3).unwrap()));
        let (id, selection) = (first.id(), one.selection.id());
        drop((first, one));
        assert!(shelf.cut(id, selection, 2).is_some());
        drop(two);
        assert!(shelf.cut(id, selection, 2).is_none() && shelf.snapshot(id).is_none());
        let _other = shelf.keep(snapshot(2));
        assert_eq!(shelf.snapshots.lock().unwrap().len(), 1, "nothing is kept of what has gone");
    }

    #[test]
    fn a_manifest_is_shared_while_it_is_sent() {
        let cut = Cut::make(Arc::new(snapshot(1)), &SelectionSpec::default(), 1).unwrap();
        let (one, two) = (cut.manifest(0), cut.manifest(0));
        assert!(Arc::ptr_eq(&one, &two));
        assert_eq!(one.len() as u64, cut.share(0).manifest_bytes);
        drop((one, two));
        assert!(cut.manifests.lock().unwrap()[&0].upgrade().is_none());
    }
}
