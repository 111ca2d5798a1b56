use super::*;

fn open(dir: &Path) -> Revisions {
    let store = StateStore::open(&dir.join("state")).unwrap();
    Revisions::open(store, &dir.join("state/state.key")).unwrap()
}

#[tokio::test]
async fn revisions_count_from_one_without_gaps() {
    let dir = tempfile::tempdir().unwrap();
    let revisions = open(dir.path());
    assert_eq!(revisions.latest("leases/a").await.unwrap(), None);
    for number in [0, 2] {
        let refused = revisions.create_next("leases/a", number, b"x").await;
        assert!(matches!(refused, Err(StateError::Gap(_))), "{number}");
    }
    for number in 1..=3u64 {
        let body = format!("body {number}\nwith lines");
        let made = revisions.create_next("leases/a", number, body.as_bytes()).await.unwrap();
        assert_eq!(made, Creation::Created);
    }
    assert_eq!(revisions.create_next("leases/a", 3, b"late").await.unwrap(), Creation::Exists);
    let latest = revisions.latest("leases/a").await.unwrap().unwrap();
    assert_eq!((latest.number, latest.body.as_slice()), (3, &b"body 3\nwith lines"[..]));
    assert_eq!(revisions.newer("leases/a", 1).await.unwrap(), Some(latest));
    assert_eq!(revisions.newer("leases/a", 3).await.unwrap(), None);
    // The same body by another writer is another revision, not ours.
    let body = b"body 3\nwith lines";
    assert_eq!(open(dir.path()).create_next("leases/a", 3, body).await.unwrap(), Creation::Exists);
    assert_eq!(open(dir.path()).latest("leases/a").await.unwrap().unwrap().number, 3);
    std::fs::remove_file(dir.path().join("state/leases/a/00000002")).unwrap();
    assert!(matches!(revisions.latest("leases/a").await, Err(StateError::Gap(_))));
}

#[tokio::test]
async fn changed_moved_and_foreign_revisions_are_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let revisions = open(dir.path());
    for document in ["leases/a", "leases/b"] {
        for number in 1..=2 {
            let _ = revisions.create_next(document, number, b"{\"phase\":1}").await.unwrap();
        }
    }
    let path = |name: &str| dir.path().join("state").join(name);
    let good = std::fs::read(path("leases/a/00000002")).unwrap();
    let text = String::from_utf8(good.clone()).unwrap();
    for bytes in [
        text.replace("\"phase\":1", "\"phase\":2").into_bytes(),
        text.replace("\"revision\":2", "\"revision\":3").into_bytes(),
        text.replace("\"mac\":\"", "\"mac\":\"0").into_bytes(),
        good[..good.len() - 1].to_vec(),
        std::fs::read(path("leases/a/00000001")).unwrap(),
        std::fs::read(path("leases/b/00000002")).unwrap(),
        b"{}".to_vec(),
        Vec::new(),
        vec![0xff, b'\n'],
    ] {
        std::fs::write(path("leases/a/00000002"), bytes).unwrap();
        let refused = revisions.latest("leases/a").await;
        assert!(matches!(refused, Err(StateError::Foreign(_))));
    }
    std::fs::write(path("leases/a/00000002"), good).unwrap();
    assert_eq!(revisions.latest("leases/a").await.unwrap().unwrap().number, 2);
    std::fs::write(path("state.key"), [0; 32]).unwrap();
    assert!(matches!(open(dir.path()).latest("leases/a").await, Err(StateError::Foreign(_))));
    std::fs::write(path("state.key"), [0; 31]).unwrap();
    let store = StateStore::open(&dir.path().join("state")).unwrap();
    assert!(Revisions::open(store, &path("state.key")).is_err());
}

/// Eight writers with a store of their own each, on a directory that is not there yet: every
/// revision has exactly one winner, and it is the winner's body that is read.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_eight_writers_exactly_one_wins() {
    let dir = tempfile::tempdir().unwrap();
    let start = Arc::new(tokio::sync::Barrier::new(8));
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let (dir, start) = (dir.path().to_owned(), start.clone());
            tokio::spawn(async move {
                start.wait().await;
                let revisions = open(&dir);
                let mut won = Vec::new();
                for number in 1..=20 {
                    start.wait().await;
                    let body = format!("writer {writer}");
                    let made = revisions.create_next("doc", number, body.as_bytes()).await;
                    if made.unwrap() == Creation::Created {
                        won.push(number);
                    }
                }
                won
            })
        })
        .collect();
    let mut winners = std::collections::BTreeMap::new();
    for (writer, task) in writers.into_iter().enumerate() {
        for number in task.await.unwrap() {
            assert_eq!(winners.insert(number, writer), None, "revision {number} was won twice");
        }
    }
    assert_eq!(winners.len(), 20);
    let revisions = open(dir.path());
    for (number, writer) in winners {
        let revision = revisions.read("doc", number).await.unwrap().unwrap();
        assert_eq!(revision.body, format!("writer {writer}").into_bytes());
    }
}

#[tokio::test]
async fn all_hold_to_what_the_first_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (open(dir.path()), open(dir.path()));
    assert_eq!(one.claim("site", b"a week").await.unwrap().unwrap(), b"a week");
    assert_eq!(other.claim("site", b"a day").await.unwrap().unwrap(), b"a week");
    // A claim without terms is given some.
    let _ = one.create_next("old", 1, b"").await.unwrap();
    assert_eq!(other.claim("old", b"a day").await.unwrap().unwrap(), b"a day");
    assert_eq!(one.claim("old", b"a week").await.unwrap().unwrap(), b"a day");
    let store = StateStore::open(&dir.path().join("state")).unwrap();
    let stranger = Revisions::open(store, &dir.path().join("other.key")).unwrap();
    assert_eq!(stranger.claim("site", b"a week").await.unwrap(), None);
}
