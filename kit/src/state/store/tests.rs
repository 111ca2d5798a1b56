use std::os::unix::fs::MetadataExt as _;
use std::sync::Mutex;

use futures_util::stream::BoxStream;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    PutMultipartOptions, PutResult, Result,
};

use super::*;

/// What goes wrong with the next write.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    /// It is done, but the answer is lost.
    AnswerLost,
    /// It never arrives.
    RequestLost,
    /// Another writer's object is there, and the answer is lost.
    OtherFirst,
}

/// A real store whose writes run into trouble, first to last, then work.
#[derive(Debug)]
struct Troubled {
    inner: Arc<dyn ObjectStore>,
    troubles: Mutex<Vec<Trouble>>,
}

fn lost() -> object_store::Error {
    object_store::Error::Generic { store: "troubled", source: "connection reset".into() }
}

impl std::fmt::Display for Troubled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("troubled")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Troubled {
    async fn put_opts(
        &self,
        location: &ObjectPath,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let trouble = self.troubles.lock().unwrap().pop();
        match trouble {
            None => self.inner.put_opts(location, payload, options).await,
            Some(Trouble::RequestLost) => Err(lost()),
            Some(Trouble::AnswerLost) => {
                self.inner.put_opts(location, payload, options).await?;
                Err(lost())
            }
            Some(Trouble::OtherFirst) => {
                self.inner.put_opts(location, "other".into(), options).await?;
                Err(lost())
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &ObjectPath,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &ObjectPath, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<ObjectPath>>,
    ) -> BoxStream<'static, Result<ObjectPath>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&ObjectPath>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&ObjectPath>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(
        &self,
        from: &ObjectPath,
        to: &ObjectPath,
        options: CopyOptions,
    ) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[tokio::test]
async fn create_read_list_delete() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("state");
    let store = StateStore::open(&root).unwrap();
    assert_eq!(root.metadata().unwrap().mode() & 0o777, 0o700);
    assert_eq!(store.read("a/b").await.unwrap(), None);
    assert_eq!(store.create("a/b", "one").await.unwrap(), Creation::Created);
    assert_eq!(store.create("a/b", "two").await.unwrap(), Creation::Exists);
    assert_eq!(store.create("a/c/d", "x").await.unwrap(), Creation::Created);
    assert_eq!(store.create("a/a", "").await.unwrap(), Creation::Created);
    assert_eq!(store.read("a/b").await.unwrap().unwrap(), "one");
    assert_eq!(store.list("a").await.unwrap(), ["a", "b"]);
    assert_eq!(store.directories("a").await.unwrap(), ["c"]);
    assert!(store.list("nothing").await.unwrap().is_empty());
    store.delete("a/b").await.unwrap();
    store.delete("a/b").await.unwrap();
    assert_eq!(store.read("a/b").await.unwrap(), None);
    // An unfinished write of a process that died is no object and no obstacle.
    std::fs::write(root.join("a/b#1"), "torn").unwrap();
    assert_eq!(store.list("a").await.unwrap(), ["a"]);
    assert_eq!(store.create("a/b", "again").await.unwrap(), Creation::Created);
}

#[tokio::test]
async fn names_that_leave_the_root_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = StateStore::open(dir.path()).unwrap();
    for name in ["", "/a", "a/", "a//b", "../a", "a/../b", "a/./b", "a#1"] {
        assert!(matches!(store.create(name, "x").await, Err(StateError::Path(_))), "{name}");
        assert!(matches!(store.read(name).await, Err(StateError::Path(_))), "{name}");
        assert!(matches!(store.delete(name).await, Err(StateError::Path(_))), "{name}");
    }
}

#[tokio::test]
async fn after_a_lost_answer_what_is_there_decides() {
    use Trouble::{AnswerLost, OtherFirst, RequestLost};
    let table: [(&[Trouble], Option<Creation>); 5] = [
        (&[AnswerLost], Some(Creation::Created)),
        (&[OtherFirst], Some(Creation::Exists)),
        (&[RequestLost, RequestLost], Some(Creation::Created)),
        (&[RequestLost, AnswerLost], Some(Creation::Created)),
        (&[RequestLost, RequestLost, RequestLost, RequestLost], None),
    ];
    for (troubles, expected) in table {
        let dir = tempfile::tempdir().unwrap();
        let troubles: Vec<_> = troubles.iter().rev().copied().collect();
        let store = StateStore::open(dir.path())
            .unwrap()
            .behind(|inner| Arc::new(Troubled { inner, troubles: Mutex::new(troubles) }));
        let outcome = store.create("x/y", "ours").await;
        let there = store.read("x/y").await.unwrap();
        match expected {
            Some(creation) => {
                assert_eq!(outcome.unwrap(), creation);
                let ours = creation == Creation::Created;
                assert_eq!(there.unwrap(), if ours { "ours" } else { "other" });
            }
            None => assert!(matches!(outcome, Err(StateError::Store { .. })) && there.is_none()),
        }
    }
}

#[test]
fn a_directory_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "x").unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o750)).unwrap();
    assert!(matches!(StateStore::open(dir.path()), Err(StateError::Directory(_))));
}
