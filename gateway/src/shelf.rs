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
    #[error(
        "the listing or its selection takes {wanted} bytes of the gateway's memory, and those of open leases take \
         {held} of at most {most}: name less of the source, end leases on other listings, or raise `limits.snapshots`"
    )]
    Full { wanted: u64, held: u64, most: u64 },
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

    /// Bytes in memory, the snapshot's apart.
    fn size(&self) -> u64 {
        let places = self.selection.files().len() + self.selection.dirs().len();
        let (blocks, shares) = (self.layout.blocks(), self.layout.shares());
        let bytes = places * size_of::<u32>()
            + std::mem::size_of_val(blocks)
            + std::mem::size_of_val(shares)
            + std::mem::size_of_val(self.shares.as_slice());
        bytes as u64
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
    /// Bytes that grants may come to, and those that a restart finds.
    most: u64,
    /// Held while it is looked whether something fits, until it is there.
    admitting: Mutex<()>,
    snapshots: Mutex<HashMap<SnapshotId, Weak<Snapshot>>>,
    cuts: Mutex<HashMap<(SnapshotId, SelectionId, u16), Weak<Cut>>>,
}

impl Shelf {
    pub(crate) fn new(most: u64) -> Self {
        Self {
            listings: Semaphore::new(LISTINGS),
            most,
            admitting: Mutex::default(),
            snapshots: Mutex::default(),
            cuts: Mutex::default(),
        }
    }

    /// Bytes of all that is in use.
    pub(crate) fn bytes(&self) -> u64 {
        let snapshots = in_use(&self.snapshots, |snapshot| snapshot.as_bytes().len() as u64);
        snapshots + in_use(&self.cuts, Cut::size)
    }

    /// The caller holds `admitting`.
    fn fits(&self, wanted: u64) -> Result<(), CutError> {
        let (held, most) = (self.bytes(), self.most);
        if held.saturating_add(wanted) > most {
            return Err(CutError::Full { wanted, held, most });
        }
        Ok(())
    }

    /// The same as [`keep`](Self::keep), if there is room.
    pub(crate) fn admit(&self, snapshot: Snapshot) -> Result<Arc<Snapshot>, CutError> {
        let _one = self.admitting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(same) = self.snapshot(snapshot.id()) {
            return Ok(same);
        }
        self.fits(snapshot.as_bytes().len() as u64)?;
        Ok(self.keep(snapshot))
    }

    /// The same as [`make`](Self::make), if there is room. Blocking.
    pub(crate) fn admit_cut(
        &self,
        snapshot: Arc<Snapshot>,
        spec: &SelectionSpec,
        ranks: u16,
    ) -> Result<Arc<Cut>, CutError> {
        let key = (snapshot.id(), spec.id(), ranks);
        if let Some(cut) = find(&self.cuts, &key) {
            return Ok(cut);
        }
        let cut = Cut::make(snapshot, spec, ranks)?;
        let _one = self.admitting.lock().unwrap_or_else(PoisonError::into_inner);
        self.fits(cut.size())?;
        Ok(keep(&self.cuts, key, cut))
    }

    /// Waits for a turn to list a source; it ends when what is returned is dropped.
    pub(crate) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // Never closed, so there always is a turn.
        self.listings.acquire().await.ok()
    }

    pub(crate) fn snapshot(&self, id: SnapshotId) -> Option<Arc<Snapshot>> {
        find(&self.snapshots, &id)
    }

    /// The snapshot of this content that is in use already, or this one. For leases that were granted.
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

    /// Selects and cuts, unless that was done. For leases that were granted. Blocking.
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

fn in_use<K, V>(kept: &Kept<K, V>, size: impl Fn(&V) -> u64) -> u64 {
    let kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    kept.values().filter_map(Weak::upgrade).map(|value| size(&value)).sum()
}

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
        let shelf = Shelf::new(u64::MAX);
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
    fn what_is_in_use_has_a_limit() {
        let all = SelectionSpec::default();
        let bytes = snapshot(1).as_bytes().len() as u64;
        let cut = Cut::make(Arc::new(snapshot(1)), &all, 1).unwrap().size();
        assert!(cut > 0);

        let shelf = Shelf::new(bytes + cut);
        let first = shelf.admit(snapshot(1)).unwrap();
        let made = shelf.admit_cut(Arc::clone(&first), &all, 1).unwrap();
        assert_eq!(shelf.bytes(), bytes + cut);
        let again = shelf.admit(snapshot(1)).unwrap();
        assert!(Arc::ptr_eq(&first, &again) && shelf.admit_cut(again, &all, 1).is_ok());
        let full = shelf.admit(snapshot(2)).unwrap_err();
        assert!(matches!(full, CutError::Full { wanted, held, most }
            if (wanted, held, most) == (bytes, bytes + cut, bytes + cut)));
        // What was granted before is taken up whatever there is, and counts.
        let taken_up = shelf.keep(snapshot(2));
        assert_eq!(shelf.bytes(), 2 * bytes + cut);
        drop((first, made, taken_up));
        assert_eq!(shelf.bytes(), 0);

        let first = shelf.admit(snapshot(2)).unwrap();
        drop(shelf.admit_cut(Arc::clone(&first), &all, 1).unwrap());
        let narrow = Shelf::new(bytes + cut - 1);
        let first = narrow.admit(snapshot(1)).unwrap();
        assert!(matches!(narrow.admit_cut(first, &all, 1), Err(CutError::Full { .. })));
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
