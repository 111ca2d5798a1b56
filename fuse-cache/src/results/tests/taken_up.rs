//! What a worker does with what others did: the one before it, and whoever changes things at home.

use tidegate_wire::ProblemKind;
use tokio::sync::Notify;

use super::*;
use crate::results::core::MORE_NAMES;

/// A file whose `fsync` was under way when its worker was killed, and the worker after that.
async fn kept_from_before() -> (Worker, u64) {
    let worker = Worker::start(PLAIN).await;
    worker.home.always("store", Fault::Hold(Arc::new(Notify::new())));
    let file = worker.create("f").await;
    worker.write(file.0, 0, &bytes(1, 2_500_000)).await;
    let results = Arc::clone(&worker.results);
    let flushing = tokio::spawn(async move { results.fsync(file.0).await });
    until(|| worker.is_kept(file.0)).await;
    flushing.abort();
    let _aborted = flushing.await;
    worker.home.heal();
    worker.home.always("store", Fault::Refuse(ProblemKind::NoSpace));
    (worker.killed().await, file.0)
}

/// Home says once that it is full: what the worker before kept for sending is sent when it is asked for again.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_successor_is_refused_once_is_sent_again() {
    let (worker, node) = kept_from_before().await;
    assert_eq!(worker.results.fsync(node).await, Err(FsError::NoSpace));
    worker.home.heal();
    worker.results.fsync(node).await.unwrap();
    assert!(worker.home.bytes("f").unwrap() == bytes(1, 2_500_000));
    assert!(worker.read(node).await.unwrap() == bytes(1, 2_500_000));
}

/// Home has no room for it, and never will: the file may be written anew.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_successor_is_refused_does_not_stay_in_the_way() {
    let (worker, node) = kept_from_before().await;
    let empty = NewAttributes { size: Some(0), ..NewAttributes::default() };
    worker.results.set_attributes(worker.caller(), node, empty).await.unwrap();
    worker.write(node, 0, b"short").await;
    assert_eq!(worker.results.fsync(node).await, Err(FsError::NoSpace));
    worker.home.heal();
    let asked = worker.home.asked("store");
    worker.results.fsync(node).await.unwrap();
    assert_eq!(worker.home.asked("store"), asked + 1, "what came before is not sent first");
    assert_eq!(worker.home.bytes("f"), Some(b"short".into()));
}

/// A listing that was begun before goes on where it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_listing_goes_on_with_the_worker_that_comes_next() {
    let worker = Worker::start(PLAIN).await;
    for number in 0..20 {
        worker.put("temporary", b"").await.unwrap();
        worker.rename("temporary", &format!("f{number}")).await.unwrap();
    }
    let first = worker.results.list(1, 0, 12).unwrap();
    let worker = worker.killed().await;
    let rest = worker.results.list(1, first.last().unwrap().next, 100).unwrap();
    let names: std::collections::BTreeSet<_> =
        first.iter().chain(&rest).map(|entry| entry.name.clone()).collect();
    assert_eq!((first.len() + rest.len(), names.len()), (22, 22));
}

/// Somebody replaced the file at home: it is not taken for ours under another name.
#[tokio::test(flavor = "multi_thread")]
async fn a_rename_does_not_adopt_what_somebody_else_put_there() {
    let worker = Worker::start(PLAIN).await;
    for name in ["clean", "dirty"] {
        worker.put(name, b"ours").await.unwrap();
    }
    worker.write(worker.node("dirty").unwrap(), 4, b" and more").await;
    for name in ["clean", "dirty"] {
        worker.home.put(name, b"theirs, and longer");
    }
    for name in ["clean", "dirty"] {
        assert_eq!(worker.rename(name, "new").await, Err(FsError::Gone), "{name}");
        assert_eq!(worker.home.bytes(name), Some(b"theirs, and longer".into()));
        assert_eq!(worker.home.bytes("new"), None);
    }
    // What is gone there is not taken for what has the new name already.
    worker.put("log.1", b"older").await.unwrap();
    worker.put("log", b"newer").await.unwrap();
    worker.write(worker.node("log").unwrap(), 5, b" and more").await;
    worker.home.lock().files.remove("log");
    assert_eq!(worker.rename("log", "log.1").await, Err(FsError::Gone));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_open_and_has_no_name_is_lost_with_its_worker() {
    let worker = Worker::start(PLAIN).await;
    let file = worker.create("f").await;
    worker.write(file.0, 0, b"open").await;
    worker.unlink("f").await.unwrap();
    let worker = worker.killed().await;
    let written = worker.results.write(worker.caller(), file.0, 0, b"more").await;
    assert_eq!(written, Err(FsError::Lost));
    assert_eq!(worker.results.read(file.0, 0, 4).await.err(), Some(FsError::Lost));
    assert_eq!(worker.results.attributes(file.0).err(), Some(FsError::Lost));
    let empty = NewAttributes { size: Some(0), ..NewAttributes::default() };
    let set = worker.results.set_attributes(worker.caller(), file.0, empty).await;
    assert_eq!(set.err(), Some(FsError::Lost));
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_bounded() {
    let worker = Worker::start(How { files: 2, ..PLAIN }).await;
    for number in 0..2 + MORE_NAMES {
        worker.create(&format!("f{number}")).await;
    }
    let create = async |name: &[u8]| {
        worker.results.create(worker.caller(), 1, name, 0o644, false, false).await
    };
    assert_eq!(create(b"one more").await.err(), Some(FsError::OverBudget));
    let directory = worker.results.make_directory(worker.caller(), 1, b"d", 0o755).await;
    assert_eq!(directory.err(), Some(FsError::OverBudget));
    assert!(create(b"f1").await.is_ok(), "what is there may be opened");
    let gone = worker.node("f0").unwrap();
    // What goes makes room.
    worker.unlink("f0").await.unwrap();
    worker.results.forget(gone, 2);
    assert!(create(b"one more").await.is_ok());
}
