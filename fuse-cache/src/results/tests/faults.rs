use tidegate_wire::ProblemKind;
use tokio::sync::Notify;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn troubles_of_the_moment_are_waited_out() {
    let worker = Worker::start(PLAIN).await;
    let passing = || {
        [
            Fault::Cut,
            Fault::Unheard,
            Fault::Refuse(ProblemKind::Unavailable),
            Fault::Refuse(ProblemKind::SourceUnavailable),
            Fault::Refuse(ProblemKind::TooMany),
            Fault::Refuse(ProblemKind::Internal),
        ]
    };
    for fault in passing() {
        for route in ["store", "begin", "part", "commit", "change", "read"] {
            worker.home.once(route, fault.clone());
        }
    }
    worker.put("small", b"small").await.unwrap();
    assert_eq!(worker.home.bytes("small"), Some(b"small".into()));
    let long = bytes(1, 33 * MIB);
    worker.put("long", &long).await.unwrap();
    assert!(worker.home.bytes("long").unwrap() == long);
    worker.rename("long", "longer").await.unwrap();
    let node = worker.node("longer").unwrap();
    assert!(worker.read(node).await.unwrap() == long);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_answers() {
    let worker = Worker::start(PLAIN).await;
    for (kind, error) in [
        (ProblemKind::OverBudget, FsError::OverBudget),
        (ProblemKind::NoSpace, FsError::NoSpace),
        (ProblemKind::TooLarge, FsError::TooLarge),
    ] {
        worker.home.always("store", Fault::Refuse(kind));
        let file = worker.create("f").await;
        worker.write(file.0, 0, b"f").await;
        assert_eq!(worker.close(file).await, Err(error));
        assert_eq!(worker.home.bytes("f"), None);
        worker.home.heal();
    }
    // It is still here, and lost if nothing comes after.
    let node = worker.node("f").unwrap();
    assert_eq!(worker.read(node).await.unwrap(), b"f");
    worker.home.always("store", Fault::Refuse(ProblemKind::OverBudget));
    let stated = worker.results.drain(boottime() + Duration::from_secs(60)).await;
    assert_eq!((stated.lost_files, stated.lost), (1, vec!["f".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_superseded_or_vanished_upload_begins_again() {
    let worker = Worker::start(PLAIN).await;
    let long = bytes(1, 33 * MIB);
    worker.home.once("commit", Fault::Superseded);
    worker.home.once("store", Fault::Superseded);
    worker.put("long", &long).await.unwrap();
    worker.put("short", b"short").await.unwrap();
    assert!(worker.home.bytes("long").unwrap() == long);
    assert_eq!(worker.home.bytes("short"), Some(b"short".into()));
    for route in ["part", "commit"] {
        worker.home.once(route, Fault::Refuse(ProblemKind::Absent));
        worker.put(route, &long).await.unwrap();
        assert!(worker.home.bytes(route).unwrap() == long, "{route}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_cannot_be_copied_is_sent() {
    let worker = Worker::start(PLAIN).await;
    let mut long = bytes(1, 33 * MIB);
    worker.put("long", &long).await.unwrap();
    worker.home.always("copy", Fault::Refuse(ProblemKind::NotOffered));
    let node = worker.node("long").unwrap();
    let handle = worker.results.open(node, true).unwrap();
    worker.write(node, 0, b"changed").await;
    worker.close((node, handle)).await.unwrap();
    long[..7].copy_from_slice(b"changed");
    assert!(worker.home.bytes("long").unwrap() == long);
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_fly_side_by_side_and_behind_the_writer() {
    let worker = Worker::start(PLAIN).await;
    let long = bytes(1, 66 * MIB);
    let go_on = Arc::new(Notify::new());
    worker.home.always("part", Fault::Hold(Arc::clone(&go_on)));
    let file = worker.create("long").await;
    worker.write(file.0, 0, &long).await;
    // Nobody has asked for anything to be safe, and four parts are complete.
    until(|| worker.home.lock().most >= 4).await;
    worker.home.heal();
    let closing = worker.close(file);
    let mut closing = std::pin::pin!(closing);
    loop {
        go_on.notify_waiters();
        tokio::select! {
            closed = &mut closing => break closed.unwrap(),
            () = tokio::time::sleep(Duration::from_millis(5)) => {}
        }
    }
    assert!(worker.home.bytes("long").unwrap() == long);
    assert_eq!(worker.home.asked("part"), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_writes_while_a_version_goes_home_is_not_kept_and_not_lost() {
    let worker = Arc::new(Worker::start(PLAIN).await);
    let go_on = Arc::new(Notify::new());
    worker.home.once("store", Fault::Hold(Arc::clone(&go_on)));
    let file = worker.create("f").await;
    worker.write(file.0, 0, &bytes(1, 3 * MIB)).await;
    let syncing = {
        let worker = Arc::clone(&worker);
        tokio::spawn(async move { worker.results.fsync(file.0).await })
    };
    until(|| worker.home.asked("store") == 1).await;
    worker.write(file.0, MIB as u64 + 9, b"second").await;
    worker
        .results
        .core
        .resize(worker.caller(), &worker.results.core.file(file.0).unwrap(), 2 * MIB as u64)
        .await
        .unwrap();
    go_on.notify_one();
    syncing.await.unwrap().unwrap();
    assert!(worker.home.bytes("f").unwrap() == bytes(1, 3 * MIB));
    worker.write(file.0, 3 * MIB as u64, b"end").await;
    worker.close(file).await.unwrap();
    let mut expected = bytes(1, 3 * MIB);
    expected[MIB + 9..MIB + 15].copy_from_slice(b"second");
    expected[2 * MIB..].fill(0);
    expected.extend(b"end");
    assert!(worker.home.bytes("f").unwrap() == expected);
}

/// What readers hold while home does not answer comes back: who needs room waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn reads_that_wait_for_home_are_no_lack_of_space() {
    let worker = Arc::new(Worker::start(How { budget: 0, ..PLAIN }).await);
    let long = bytes(1, 20 * MIB);
    worker.put("f", &long).await.unwrap();
    let node = worker.node("f").unwrap();
    worker.results.core.let_go();
    let (go_on, reads) = (Arc::new(Notify::new()), worker.home.asked("read"));
    worker.home.always("read", Fault::Hold(Arc::clone(&go_on)));
    let blocks = worker.results.core.budget.total() / MIB as u64;
    let reading: Vec<_> = (0..blocks)
        .map(|n| {
            let (worker, at) = (Arc::clone(&worker), (1 + 2 * n) * MIB as u64);
            tokio::spawn(async move { worker.results.read(node, at, 100).await })
        })
        .collect();
    let all = reads + usize::try_from(blocks).unwrap();
    until(|| worker.home.asked("read") == all).await;
    let other = worker.create("g").await;
    let block = [7; MIB];
    let mut writing = Box::pin(worker.results.write(worker.caller(), other.0, 0, &block));
    let waits = tokio::time::timeout(Duration::from_millis(400), &mut writing).await;
    assert!(waits.is_err(), "{waits:?}");
    worker.home.heal();
    go_on.notify_waiters();
    assert_eq!(writing.await, Ok(u32::try_from(MIB).unwrap()));
    for read in reading {
        assert_eq!(read.await.unwrap().unwrap().len(), 100);
    }
    worker.close(other).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_and_nothing_to_drain_is_no_space() {
    let how = How { spool: Some(1), budget: 0, ..PLAIN };
    let worker = Worker::start(how).await;
    // The smallest spool has 40 blocks and the smallest budget a few; each file keeps one open.
    let mut files = Vec::new();
    let refused = loop {
        let name = format!("f{}", files.len());
        let file = worker.create(&name).await;
        files.push(file);
        let block = bytes(1, MIB);
        match worker.results.write(worker.caller(), file.0, 0, &block).await {
            Ok(_) => assert!(files.len() < 100),
            Err(error) => break error,
        }
    };
    assert_eq!(refused, FsError::NoSpace);
    assert!(files.len() > 40, "{}", files.len());
    // Room comes back when one is closed.
    worker.close(files.remove(0)).await.unwrap();
    let last = *files.last().unwrap();
    worker.write(last.0, 0, &bytes(1, MIB)).await;
    for file in files {
        worker.close(file).await.unwrap();
    }
    assert!(worker.home.lock().files.values().all(|file| file.bytes == bytes(1, MIB)));
}

/// Far more than RAM and spool hold: what was brought leaves the worker, and is read and changed still.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_larger_than_the_spool_passes_through() {
    let how = How { spool: Some(1), budget: 0, ..PLAIN };
    let worker = Worker::start(how).await;
    let mut long = bytes(1, 150 * MIB);
    let file = worker.create("long").await;
    worker.write(file.0, 0, &long).await;
    assert_eq!(worker.home.bytes("long"), None);
    // Bytes that are in the upload only come home first.
    assert!(worker.results.read(file.0, 5, 1000).await.unwrap()[..] == long[5..1005]);
    worker.write(file.0, 17 * MIB as u64, b"changed").await;
    worker.rename("long", "longer").await.unwrap();
    worker.close(file).await.unwrap();
    long[17 * MIB..17 * MIB + 7].copy_from_slice(b"changed");
    assert!(worker.home.bytes("longer").unwrap() == long);
    assert!(worker.results.core.budget.in_use() < 8 << 20);
}

/// What home has under the new name is not taken for the file, should somebody have removed that.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_gone_at_home_is_not_renamed() {
    let worker = Worker::start(PLAIN).await;
    worker.put("a", b"a").await.unwrap();
    worker.put("b", b"b").await.unwrap();
    worker.home.lock().files.remove("a");
    assert_eq!(worker.rename("a", "b").await, Err(FsError::Gone));
    let node = worker.node("b").unwrap();
    assert_eq!(worker.read(node).await.unwrap(), b"b");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_that_cannot_be_read_is_an_error_and_no_silence() {
    let worker = Worker::start(PLAIN).await;
    let file = worker.create("f").await;
    worker.write(file.0, 0, &bytes(1, MIB)).await;
    let (core, state) = (&worker.results.core, worker.file(file.0));
    let sealed = || match state.state().blocks.get(&0) {
        Some(content::Block::Sealed { sealed, .. }) => Some(Arc::clone(sealed)),
        _ => None,
    };
    until(|| sealed().is_some()).await;
    let sealed = sealed().unwrap();
    assert!(core.spool_now(&sealed) && sealed.leave_ram());
    std::fs::File::options().write(true).open(core.spool.path()).unwrap().set_len(0).unwrap();
    assert_eq!(worker.results.fsync(file.0).await, Err(FsError::Lost));
}

/// Nobody is told that a version is safe which has no place to wait in and did not come home.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_refused_and_is_kept_nowhere_is_refused_again() {
    let worker = Worker::start(How { asynchronous: true, spool: Some(0), ..PLAIN }).await;
    let spool = &worker.results.core.spool;
    let full: Vec<_> = std::iter::from_fn(|| spool.take(MIB)).collect();
    worker.home.always("store", Fault::Refuse(ProblemKind::OverBudget));
    let file = worker.create("f").await;
    worker.write(file.0, 0, &bytes(1, 20_000)).await;
    for _ in 0..3 {
        assert_eq!(worker.results.fsync(file.0).await, Err(FsError::OverBudget));
    }
    worker.home.heal();
    worker.results.fsync(file.0).await.unwrap();
    assert!(worker.home.bytes("f").unwrap() == bytes(1, 20_000));
    drop(full);
}
