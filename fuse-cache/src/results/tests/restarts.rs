use tidegate_wire::ProblemKind;
use tokio::sync::Notify;

use super::*;

const LATER: How = How { asynchronous: true, ..PLAIN };

#[tokio::test(flavor = "multi_thread")]
async fn asynchronous_closes_return_early_and_drain_at_the_end() {
    let worker = Worker::start(LATER).await;
    let go_on = Arc::new(Notify::new());
    worker.home.always("store", Fault::Hold(Arc::clone(&go_on)));
    for number in 0..50 {
        worker.put(&format!("f{number}"), &bytes(number, 20_000)).await.unwrap();
    }
    assert!(worker.home.lock().files.is_empty());
    assert_eq!(worker.results.figures().unsent_bytes, 50 * 20_000);
    // What is not home yet is read here.
    let node = worker.node("f7").unwrap();
    assert!(worker.read(node).await.unwrap() == bytes(7, 20_000));
    until(|| worker.home.lock().most >= 10).await;
    worker.home.heal();
    let mut drain = std::pin::pin!(worker.results.drain(boottime() + Duration::from_secs(60)));
    let stated = loop {
        go_on.notify_waiters();
        tokio::select! {
            stated = &mut drain => break stated,
            () = tokio::time::sleep(Duration::from_millis(5)) => {}
        }
    };
    assert_eq!((stated.stored_files, stated.lost_files), (50, 0));
    for number in 0..50 {
        let name = format!("f{number}");
        assert!(worker.home.bytes(&name).unwrap() == bytes(number, 20_000), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_come_in_time_is_named() {
    let worker = Worker::start(LATER).await;
    worker.put("home", b"home").await.unwrap();
    until(|| worker.home.bytes("home").is_some()).await;
    worker.home.always("store", Fault::Cut);
    worker.put("b", b"b").await.unwrap();
    worker.put("a", b"a").await.unwrap();
    let stated = worker.results.drain(boottime() + Duration::from_millis(300)).await;
    assert_eq!(stated.lost, ["a", "b"]);
    assert_eq!(worker.results.destroy_keys(), stated);
    let node = worker.node("a").unwrap();
    assert_eq!(worker.read(node).await, Err(FsError::Lost));
    let path = worker.results.core.spool.path().to_owned();
    let figures = worker.results.wipe().await;
    assert_eq!((figures.failure, figures.mismatched_bytes, figures.unlinked), (None, 0, Ok(())));
    assert!(!path.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_brings_home_what_was_complete_and_names_what_is_lost() {
    let worker = Worker::start(LATER).await;
    worker.put("before", &bytes(9, 5000)).await.unwrap();
    until(|| worker.home.bytes("before").is_some()).await;
    let long = bytes(2, 40 * MIB);
    // Nothing passes any more.
    worker.home.always("store", Fault::Cut);
    worker.home.always("commit", Fault::Cut);
    worker.make_directory("d").await;
    worker.put("d/small", &bytes(1, 20_000)).await.unwrap();
    worker.put("long", &long).await.unwrap();
    worker.put("both", b"acknowledged").await.unwrap();
    let both = worker.node("both").unwrap();
    worker.write(both, 0, b"UNFINISHED").await;
    let open = worker.create("open").await;
    worker.write(open.0, 0, b"in memory only").await;
    let empty = worker.create("empty").await;
    let kept = worker.node("before").unwrap();

    let worker = worker.killed().await;
    assert_eq!(worker.node("before"), Some(kept));
    worker.home.heal();
    // A read of what only home can open waits for that.
    let node = worker.node("d/small").unwrap();
    assert!(worker.read(node).await.unwrap() == bytes(1, 20_000));
    for lost in [open.0, both] {
        assert_eq!(worker.read(lost).await, Err(FsError::Lost));
        assert_eq!(worker.results.write(worker.caller(), lost, 0, b"x").await, Err(FsError::Lost));
        assert_eq!(worker.results.fsync(lost).await, Err(FsError::Lost));
    }
    // What was only created was not lost.
    worker.write(empty.0, 0, b"now").await;
    worker.close(empty).await.unwrap();
    until(|| worker.home.bytes("long").is_some() && worker.home.bytes("both").is_some()).await;
    assert!(worker.home.bytes("long").unwrap() == long);
    assert_eq!(worker.home.bytes("both"), Some(b"acknowledged".into()));
    let stated = worker.results.drain(boottime() + Duration::from_secs(60)).await;
    assert_eq!(stated.lost, ["both", "open"]);
    assert_eq!(worker.home.bytes("empty"), Some(b"now".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_lost_may_be_written_anew() {
    let worker = Worker::start(PLAIN).await;
    let open = worker.create("open").await;
    worker.write(open.0, 0, b"in memory only").await;
    let worker = worker.killed().await;
    assert_eq!(worker.results.fsync(open.0).await, Err(FsError::Lost));
    let empty = NewAttributes { size: Some(0), ..NewAttributes::default() };
    worker.results.set_attributes(worker.caller(), open.0, empty).await.unwrap();
    worker.write(open.0, 0, b"again").await;
    worker.close(open).await.unwrap();
    assert_eq!(worker.home.bytes("open"), Some(b"again".into()));
    let worker = worker.killed().await;
    let stated = worker.results.drain(boottime() + Duration::from_secs(60)).await;
    assert_eq!(stated.lost_files, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_that_was_cut_off_is_ended_by_the_successor() {
    let worker = Worker::start(PLAIN).await;
    let go_on = Arc::new(Notify::new());
    worker.home.always("store", Fault::Hold(Arc::clone(&go_on)));
    let file = worker.create("f").await;
    worker.write(file.0, 0, &bytes(1, 100_000)).await;
    let results = Arc::clone(&worker.results);
    let flushing = tokio::spawn(async move { results.fsync(file.0).await });
    until(|| worker.home.asked("store") == 1).await;
    until(|| worker.is_kept(file.0)).await;
    flushing.abort();
    let _aborted = flushing.await;
    worker.home.heal();
    let worker = worker.killed().await;
    // The kernel's request is sent again.
    worker.results.fsync(file.0).await.unwrap();
    assert!(worker.home.bytes("f").unwrap() == bytes(1, 100_000));
}

/// It came home, and nobody heard of it: under a name that is given up it must not stay.
#[tokio::test(flavor = "multi_thread")]
async fn what_set_out_for_home_is_looked_for_there() {
    let mut worker = Worker::start(PLAIN).await;
    for killed in [false, true] {
        for name in ["a", "b"] {
            worker.home.once("store", Fault::Unheard);
            worker.home.once("store", Fault::Refuse(ProblemKind::OverBudget));
            let file = worker.create(name).await;
            worker.write(file.0, 0, b"unheard").await;
            assert!(worker.results.fsync(file.0).await.is_err());
            assert!(worker.home.bytes(name).is_some());
        }
        if killed {
            worker = worker.killed().await;
        }
        worker.rename("a", "c").await.unwrap();
        worker.unlink("b").await.unwrap();
        assert_eq!(worker.home.lock().files.keys().next(), None, "killed: {killed}");
        worker.unlink("c").await.unwrap();
    }
}

/// Home gave a directory its new name, and nobody heard of it: nothing comes home under the old one.
#[tokio::test(flavor = "multi_thread")]
async fn a_rename_that_was_cut_off_is_ended_before_anything_comes_home() {
    let worker = Worker::start(LATER).await;
    worker.make_directory("d").await;
    worker.put("d/home", b"home").await.unwrap();
    until(|| worker.home.bytes("d/home").is_some()).await;
    worker.home.always("store", Fault::Refuse(ProblemKind::NoSpace));
    worker.put("d/waits", b"waits").await.unwrap();
    until(|| worker.home.asked("store") > 1).await;
    worker.home.once("change", Fault::Unheard);
    worker.home.always("change", Fault::Cut);
    let (results, caller) = (Arc::clone(&worker.results), worker.caller());
    let renaming =
        tokio::spawn(async move { results.rename(caller, (1, b"d"), (1, b"e"), false).await });
    until(|| worker.home.bytes("e/home").is_some()).await;
    renaming.abort();
    let _aborted = renaming.await;
    worker.home.heal();
    let worker = worker.killed().await;
    until(|| worker.home.lock().files.len() == 2).await;
    let files: Vec<_> = worker.home.lock().files.keys().cloned().collect();
    assert_eq!(files, ["e/home", "e/waits"]);
    assert_eq!((worker.node("d"), worker.node("e/waits").is_some()), (None, true));
    // The kernel's request is sent again, and asks nothing of home.
    let asked = worker.home.asked("change");
    worker.results.rename(caller, (1, b"d"), (1, b"e"), false).await.unwrap();
    assert_eq!(worker.home.asked("change"), asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resent_request_that_was_done_is_answered_as_done() {
    let worker = Worker::start(PLAIN).await;
    worker.put("a", b"a").await.unwrap();
    let callers: Vec<_> = (0..5).map(|_| worker.caller()).collect();
    let both = async |worker: &Worker| {
        let results = &worker.results;
        results.rename(callers[0], (1, b"a"), (1, b"b"), true).await.unwrap();
        results.make_directory(callers[1], 1, b"d", 0o755).await.unwrap();
        let made = results.create(callers[2], 1, b"new", 0o644, true, false).await.unwrap();
        results.remove_directory(callers[3], 1, b"d").await.err();
        results.unlink(callers[4], 1, b"b").await.unwrap();
        made.0.ino.0
    };
    let made = both(&worker).await;
    worker.put("b", b"another").await.unwrap();
    worker.make_directory("a").await;
    let worker = worker.killed().await;
    let results = &worker.results;
    results.rename(callers[0], (1, b"a"), (1, b"b"), true).await.unwrap();
    let again = results.create(callers[2], 1, b"new", 0o644, true, false).await.unwrap();
    assert_eq!(again.0.ino.0, made);
    results.remove_directory(callers[3], 1, b"d").await.unwrap();
    assert_eq!(worker.home.bytes("b"), Some(b"another".into()));
}

/// Written after a version was taken, and before that was told.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_complete_does_not_hide_what_was_written_since() {
    let worker = Worker::start(LATER).await;
    worker.home.always("store", Fault::Cut);
    let file = worker.create("f").await;
    worker.write(file.0, 0, b"acknowledged").await;
    {
        let core = &worker.results.core;
        let taken = core.file(file.0).unwrap();
        let version = core.take_version(&taken).await.unwrap().unwrap();
        worker.write(file.0, 0, b"IN MEMORY").await;
        core.record_complete(&taken, &version);
    }
    let worker = worker.killed().await;
    worker.home.heal();
    assert_eq!(worker.read(file.0).await, Err(FsError::Lost));
    until(|| worker.home.bytes("f") == Some(b"acknowledged".into())).await;
    // Home it is, and what came after is lost to every later worker too.
    let worker = worker.killed().await;
    assert_eq!(worker.results.write(worker.caller(), file.0, 0, b"x").await, Err(FsError::Lost));
    let stated = worker.results.drain(boottime() + Duration::from_secs(60)).await;
    assert_eq!(stated.lost, ["f"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_cut_is_not_taken_for_what_was_complete_before() {
    let worker = Worker::start(LATER).await;
    worker.home.always("store", Fault::Cut);
    worker.put("f", b"a long text that was there before").await.unwrap();
    let node = worker.node("f").unwrap();
    let empty = NewAttributes { size: Some(0), ..NewAttributes::default() };
    worker.results.set_attributes(worker.caller(), node, empty).await.unwrap();
    let worker = worker.killed().await;
    // Not a short text over the end of the long one.
    assert_eq!(worker.results.write(worker.caller(), node, 0, b"short").await, Err(FsError::Lost));
    worker.results.set_attributes(worker.caller(), node, empty).await.unwrap();
    worker.write(node, 0, b"short").await;
    worker.home.heal();
    worker.results.fsync(node).await.unwrap();
    until(|| worker.home.bytes("f") == Some(b"short".into())).await;
}

/// A version that is told of keeps its places until another is told of.
#[tokio::test(flavor = "multi_thread")]
async fn places_of_an_acknowledged_version_are_nobody_elses() {
    let worker = Worker::start(LATER).await;
    worker.home.always("store", Fault::Cut);
    let first = bytes(1, 3 * MIB);
    worker.put("f", &first).await.unwrap();
    let node = worker.node("f").unwrap();
    worker.write(node, 0, &bytes(2, 3 * MIB)).await;
    {
        let core = &worker.results.core;
        let taken = core.file(node).unwrap();
        core.take_version(&taken).await.unwrap().unwrap();
    }
    for number in 0..3 {
        worker.put(&format!("g{number}"), &bytes(10 + number, MIB)).await.unwrap();
    }
    let worker = worker.killed().await;
    worker.home.heal();
    until(|| worker.home.bytes("f").is_some()).await;
    assert!(worker.home.bytes("f").unwrap() == first);
    for number in 0..3 {
        let name = format!("g{number}");
        until(|| worker.home.bytes(&name).is_some()).await;
        assert!(worker.home.bytes(&name).unwrap() == bytes(10 + number, MIB));
    }
}

/// The disk may have become fuller since.
#[tokio::test(flavor = "multi_thread")]
async fn a_successor_with_a_smaller_spool_finds_all_that_is_in_it() {
    let mut worker = Worker::start(How { spool: Some(100 << 20), ..LATER }).await;
    worker.home.always("store", Fault::Cut);
    let names: Vec<String> = (0..10).map(|number| format!("file {number}")).collect();
    for (number, name) in (0..).zip(&names) {
        worker.put(name, &bytes(number, 5 * MIB)).await.unwrap();
    }
    worker.how.spool = Some(1);
    let worker = worker.killed().await;
    worker.home.heal();
    for (number, name) in (0..).zip(&names) {
        until(|| worker.home.bytes(name).is_some()).await;
        assert!(worker.home.bytes(name).unwrap() == bytes(number, 5 * MIB));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_killed_in_his_wipe_is_followed_by_one_who_states_the_same() {
    let worker = Worker::start(LATER).await;
    worker.put("home", b"home").await.unwrap();
    until(|| worker.home.bytes("home").is_some()).await;
    worker.home.always("store", Fault::Cut);
    worker.put("a", b"a").await.unwrap();
    let stated = worker.results.drain(boottime() + Duration::from_millis(200)).await;
    assert_eq!(worker.results.destroy_keys(), stated);
    let figures = worker.results.wipe().await;
    assert_eq!(figures.failure, None);
    assert!(worker.results.core.spool.take(100).is_none(), "nothing is written any more");
    let worker = worker.killed().await;
    assert_eq!(worker.results.destroy_keys(), stated);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_behind_the_jobs_back_is_heard_once() {
    let worker = Worker::start(LATER).await;
    worker.home.always("store", Fault::Refuse(ProblemKind::OverBudget));
    worker.put("f", b"f").await.unwrap();
    let node = worker.node("f").unwrap();
    let file = worker.results.core.file(node).unwrap();
    until(|| core::lock(&file.refused).is_some()).await;
    assert_eq!(worker.results.fsync(node).await, Err(FsError::OverBudget));
    worker.results.fsync(node).await.unwrap();
    let stated = worker.results.drain(boottime() + Duration::from_secs(60)).await;
    assert_eq!(stated.lost, ["f"]);
}

/// The holder has only the journal when no worker states anything.
#[tokio::test(flavor = "multi_thread")]
async fn the_journal_names_what_is_lost() {
    let worker = Worker::start(LATER).await;
    worker.make_directory("d").await;
    worker.put("d/home", b"home").await.unwrap();
    until(|| worker.home.bytes("d/home").is_some()).await;
    until(|| worker.results.figures().unsent_files == 0).await;
    worker.home.always("store", Fault::Cut);
    worker.put("d/waits", b"waits").await.unwrap();
    let open = worker.create("open").await;
    worker.write(open.0, 0, b"in memory").await;
    worker.create("empty").await;
    assert_eq!(worker.results.figures().unsent_files, 3);
    let left = left_behind(worker.journal.try_clone().unwrap()).unwrap().unwrap();
    assert_eq!((left.stored_files, left.lost_files), (1, 3));
    assert_eq!(left.lost, ["d/waits", "empty", "open"]);
    let never = rustix::fs::memfd_create("journal", MemfdFlags::CLOEXEC).unwrap();
    assert_eq!(left_behind(never).unwrap(), None);
}
