use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tidegate_kit::state::{Revisions, StateStore};

use super::*;

const WEEK: u64 = 7 * 24 * 3600;

fn lease(n: u8) -> LeaseId {
    LeaseId::from_bytes([n; 16])
}

async fn opened(root: &Path) -> Result<Keyring, KeyringError> {
    let wrapped = Wrapped::directory(&root.join("leases")).await?;
    let store = StateStore::open(&root.with_extension("state")).unwrap();
    Keyring::open(root, wrapped, retired(store, root), WEEK).await
}

/// Marks under the key in `root`.
fn retired(store: StateStore, root: &Path) -> Retired {
    Retired::new(&Revisions::open(store, &root.with_extension("key")).unwrap())
}

fn mark(key: &LeaseKey) -> [u8; 32] {
    *key.tree_root().expose()
}

#[tokio::test]
async fn a_key_survives_a_restart_and_not_its_destruction() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("keyring");
    let keyring = opened(&root).await.unwrap();
    keyring.create(lease(1), 5).await.unwrap();
    let before = keyring.with(lease(1), mark).unwrap();
    drop(keyring);

    let keyring = opened(&root).await.unwrap();
    assert!(keyring.with(lease(1), mark).is_none());
    assert!(keyring.load(lease(1)).await.unwrap());
    assert_eq!(keyring.with(lease(1), mark), Some(before));

    assert!(keyring.destroy(lease(1)).await.unwrap().absent);
    assert!(keyring.with(lease(1), mark).is_none());
    assert!(!keyring.load(lease(1)).await.unwrap());
    assert!(!root.join("leases").join(lease(1).to_string()).exists());
    assert!(keyring.destroy(lease(1)).await.unwrap().absent, "repeatable");
}

#[tokio::test]
async fn a_wrapped_key_opens_for_its_lease_only() {
    let dir = tempfile::tempdir().unwrap();
    let keyring = opened(&dir.path().join("k")).await.unwrap();
    keyring.create(lease(1), 0).await.unwrap();
    let leases = dir.path().join("k/leases");
    std::fs::copy(leases.join(lease(1).to_string()), leases.join(lease(2).to_string())).unwrap();
    assert!(matches!(keyring.load(lease(2)).await, Err(KeyringError::Unwrap(0))));
}

#[tokio::test]
async fn an_epoch_key_goes_with_its_last_lease_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let keyring = opened(&dir.path().join("k")).await.unwrap();
    assert_eq!(keyring.epoch_of(3 * WEEK), 3);
    keyring.create(lease(1), 3).await.unwrap();
    keyring.create(lease(2), 3).await.unwrap();
    keyring.destroy(lease(1)).await.unwrap();
    assert!(keyring.retire_epochs(5 * WEEK).await.unwrap().is_empty());
    keyring.destroy(lease(2)).await.unwrap();
    assert!(keyring.retire_epochs(3 * WEEK).await.unwrap().is_empty(), "the epoch is not over");
    assert!(!keyring.epoch_is_destroyed(3).await.unwrap());
    assert_eq!(keyring.retire_epochs(5 * WEEK).await.unwrap(), [3]);
    assert!(keyring.epoch_is_destroyed(3).await.unwrap());
    assert_eq!(keyring.retire_epochs(5 * WEEK).await.unwrap(), [3], "until it is written down");
    keyring.written(&[3]).await.unwrap();
    assert!(keyring.retire_epochs(5 * WEEK).await.unwrap().is_empty());
}

/// Epoch keys whose destruction does not come back: nothing was done, or all of it was.
struct Breaking {
    inner: Box<dyn EpochKeys>,
    /// The key is gone before the caller is.
    done: bool,
    reached: Arc<AtomicBool>,
}

impl EpochKeys for Breaking {
    fn wrap<'a>(
        &'a self,
        epoch: u32,
        lease: LeaseId,
        key: &'a LeaseKey,
    ) -> BoxFuture<'a, Result<Vec<u8>, KeyringError>> {
        self.inner.wrap(epoch, lease, key)
    }

    fn unwrap<'a>(
        &'a self,
        epoch: u32,
        lease: LeaseId,
        wrapped: &'a [u8],
    ) -> BoxFuture<'a, Result<LeaseKey, KeyringError>> {
        self.inner.unwrap(epoch, lease, wrapped)
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<u32>, KeyringError>> {
        self.inner.list()
    }

    fn mark(&self, epoch: u32) -> BoxFuture<'_, Result<Option<[u8; 32]>, KeyringError>> {
        self.inner.mark(epoch)
    }

    fn destroy(&self, epoch: u32) -> BoxFuture<'_, Result<bool, KeyringError>> {
        async move {
            if self.done {
                self.inner.destroy(epoch).await?;
            }
            self.reached.store(true, Ordering::SeqCst);
            std::future::pending().await
        }
        .boxed()
    }
}

/// The process dies at the destruction of an epoch's key, just before it or just after. The next one
/// finds out which, and owes the entry for a key that is gone.
#[tokio::test]
async fn an_epochs_entry_is_owed_whoever_destroyed_its_key() {
    for done in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("k");
        let mut keyring = opened(&root).await.unwrap();
        let reached = Arc::new(AtomicBool::new(false));
        let inner = DirectoryEpochs::new(SecretDir::open(&root.join("epochs")).unwrap());
        let inner = Box::new(inner) as Box<dyn EpochKeys>;
        keyring.epochs = Box::new(Breaking { inner, done, reached: Arc::clone(&reached) });
        keyring.create(lease(1), 3).await.unwrap();
        keyring.destroy(lease(1)).await.unwrap();
        let gone = || !root.join("epochs/3").exists();
        {
            let mut retiring = std::pin::pin!(keyring.retire_epochs(5 * WEEK));
            while !reached.load(Ordering::SeqCst) {
                assert!(retiring.as_mut().now_or_never().is_none());
                tokio::task::yield_now().await;
            }
        }
        drop(keyring);
        assert_eq!(gone(), done);

        let next = opened(&root).await.unwrap();
        if !done {
            assert_eq!(next.retired.marked().await.unwrap(), [3]);
            assert!(next.retire_epochs(3 * WEEK).await.unwrap().is_empty(), "its key is there");
        }
        assert_eq!(next.retire_epochs(5 * WEEK).await.unwrap(), [3], "{done}");
        assert!(gone());
        next.written(&[3]).await.unwrap();
        assert!(next.retire_epochs(5 * WEEK).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_mark_of_somebody_else_makes_no_entry() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("k");
    let keyring = opened(&root).await.unwrap();
    let store = StateStore::open(&root.with_extension("state")).unwrap();
    let theirs = retired(store, &dir.path().join("theirs"));
    theirs.mark(4).await.unwrap();
    assert!(keyring.retire_epochs(9 * WEEK).await.unwrap().is_empty());
    assert_eq!(theirs.marked().await.unwrap(), [4]);
}

/// Two keyrings over one bucket: the second one's key of the epoch is another, and it says so.
#[tokio::test]
async fn replicas_with_other_epoch_keys_refuse() {
    let dir = tempfile::tempdir().unwrap();
    let store = StateStore::open(&dir.path().join("bucket")).unwrap();
    let open = |name: &str| {
        let (root, store) = (dir.path().join(name), store.clone());
        let retired = retired(store.clone(), &dir.path().join("common"));
        async move { Keyring::open(&root, Wrapped::in_store(store), retired, WEEK).await.unwrap() }
    };
    let (one, same, other) = (open("one").await, open("one").await, open("other").await);
    one.create(lease(1), 7).await.unwrap();
    assert!(same.load(lease(1)).await.unwrap());
    assert!(matches!(other.load(lease(1)).await, Err(KeyringError::OtherEpoch(7))), "no key");
    assert!(matches!(other.create(lease(2), 7).await, Err(KeyringError::OtherEpoch(7))));
    assert!(matches!(other.load(lease(1)).await, Err(KeyringError::OtherEpoch(7))), "another key");
    assert!(!one.load(lease(2)).await.unwrap(), "nothing was left");
    one.destroy(lease(1)).await.unwrap();
    assert_eq!(one.retire_epochs(9 * WEEK).await.unwrap(), [7]);
    assert_eq!(same.retire_epochs(9 * WEEK).await.unwrap(), [7], "whoever comes next writes it");
    one.written(&[7]).await.unwrap();
    assert!(same.retire_epochs(9 * WEEK).await.unwrap().is_empty());
    assert!(store.list("epochs").await.unwrap().is_empty());
}

#[test]
fn an_epoch_is_past_when_no_clock_of_a_replica_is_in_it() {
    let calendar = Calendar { epoch_s: WEEK };
    assert!(!calendar.is_past(4, 5 * WEEK + 30) && calendar.is_past(4, 5 * WEEK + 90));
    assert!(!calendar.is_past(5, 5 * WEEK - 30));
    // Counted when epochs were days.
    assert!(calendar.is_past(20_000, 5 * WEEK + 90));
}

#[tokio::test]
async fn a_directory_open_to_others_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("k");
    let keyring = opened(&root).await.unwrap();
    keyring.create(lease(1), 0).await.unwrap();
    std::fs::set_permissions(root.join("epochs"), std::fs::Permissions::from_mode(0o750)).unwrap();
    assert!(matches!(opened(&root).await, Err(KeyringError::KeyFile(_))));
}

#[tokio::test]
async fn secrets_are_created_once_and_no_spool_stays() {
    let dir = tempfile::tempdir().unwrap();
    let secrets = SecretDir::open(&dir.path().join("s")).unwrap();
    assert!(secrets.create("a", b"one").unwrap());
    assert!(!secrets.create("a", b"two").unwrap());
    assert_eq!(secrets.read("a").unwrap().unwrap().as_slice(), b"one");
    assert_eq!(std::fs::read_dir(dir.path().join("s")).unwrap().count(), 1);
    assert!(secrets.destroy("a").unwrap());
    assert!(!secrets.destroy("a").unwrap());
    assert!(secrets.absent("a").unwrap());
}
