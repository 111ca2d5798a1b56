//! What becomes of parts that are home before their file is, when the file goes on to change.

use tidegate_wire::ProblemKind;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::*;
use crate::results::content::Block;

const PART: usize = 16 * MIB;
const LONG: Duration = Duration::from_secs(30);

impl Worker {
    /// A file that is being written, whose first part is in the upload.
    async fn begun(&self, path: &str, bytes: &[u8]) -> (u64, u64) {
        let file = self.create(path).await;
        self.write(file.0, 0, bytes).await;
        let state = self.file(file.0);
        until(|| {
            let state = state.state();
            state.upload.as_ref().is_some_and(|open| open.receipts.contains_key(&0))
        })
        .await;
        file
    }

    async fn resize(&self, node: u64, len: usize) {
        let size = Some(len as u64);
        let new = NewAttributes { size, ..NewAttributes::default() };
        self.results.set_attributes(self.caller(), node, new).await.unwrap();
    }

    /// A close that was cut off when `route` had been asked once more, and a successor was told.
    async fn cut_off(&self, node: u64, route: &str) {
        let (before, results) = (self.home.asked(route), Arc::clone(&self.results));
        let flushing = tokio::spawn(async move { results.fsync(node).await });
        until(|| self.home.asked(route) > before).await;
        until(|| self.is_kept(node)).await;
        flushing.abort();
        let _aborted = flushing.await;
        self.home.heal();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_does_not_take_a_part_for_what_it_was_before() {
    let worker = Worker::start(PLAIN).await;
    let mut long = bytes(1, 40 * MIB);
    let file = worker.begun("f", &long).await;
    worker.write(file.0, 0, b"header").await;
    long[..6].copy_from_slice(b"header");
    worker.home.always("part", Fault::Hold(Arc::default()));
    worker.cut_off(file.0, "part").await;
    let worker = worker.killed().await;
    worker.results.fsync(file.0).await.unwrap();
    assert!(worker.home.bytes("f").unwrap() == long);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_emptied_has_none_of_its_parts_left() {
    let worker = Worker::start(PLAIN).await;
    let file = worker.begun("f", &bytes(1, 20 * MIB)).await;
    worker.resize(file.0, 0).await;
    worker.write(file.0, 20 * MIB as u64, b"end").await;
    worker.close(file).await.unwrap();
    let mut expected = vec![0; 20 * MIB];
    expected.extend(b"end");
    assert!(worker.home.bytes("f").unwrap() == expected);
}

/// What a worker that was killed had in memory is gone, and what was brought of it is of no use.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_lost_and_emptied_has_none_of_its_parts_left() {
    let worker = Worker::start(PLAIN).await;
    let file = worker.begun("f", &bytes(1, 40 * MIB)).await;
    let begun = worker.home.asked("begin");
    let worker = worker.killed().await;
    worker.resize(file.0, 0).await;
    worker.write(file.0, 20 * MIB as u64, b"end").await;
    worker.close(file).await.unwrap();
    // Where a part of before may yet arrive nothing new goes.
    assert_eq!(worker.home.asked("begin"), begun + 1);
    until(|| worker.home.asked("abandon") == 1).await;
    let mut expected = vec![0; 20 * MIB];
    expected.extend(b"end");
    assert!(worker.home.bytes("f").unwrap() == expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_was_sealed_meanwhile_is_not_stretched_to_zeros() {
    let worker = Worker::start(PLAIN).await;
    let file = worker.create("f").await;
    worker.write(file.0, 0, b"bytes").await;
    let (core, state) = (&worker.results.core, worker.file(file.0));
    core.seal_later(&state, 0);
    let sealed = || matches!(state.state().blocks.get(&0), Some(Block::Sealed { .. }));
    until(sealed).await;
    state.state().stretch(0, 100, core.try_room(100));
    assert_eq!(worker.read(file.0).await.unwrap(), b"bytes");
}

/// The journal may name the first place by now.
#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_is_spooled_twice_stays_where_it_was_first() {
    let worker = Worker::start(PLAIN).await;
    let file = worker.create("f").await;
    worker.write(file.0, 0, &bytes(1, MIB)).await;
    let state = worker.file(file.0);
    let sealed = || match state.state().blocks.get(&0) {
        Some(Block::Sealed { sealed, .. }) => Some(Arc::clone(sealed)),
        _ => None,
    };
    until(|| sealed().is_some()).await;
    let (sealed, core) = (sealed().unwrap(), &worker.results.core);
    assert!(core.spool_now(&sealed));
    let (first, spool) = (sealed.spooled(), &core.spool);
    sealed.spool(spool.take(sealed.sealed_len()).unwrap()).unwrap();
    assert_eq!(sealed.spooled(), first);
}

/// Whole pages go to the disk: what was cut off a block and lay behind its end does not go with them.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_cut_off_is_not_in_the_spool() {
    let worker = Worker::start(PLAIN).await;
    let file = worker.create("f").await;
    worker.write(file.0, 0, &[b'P'; 400_000]).await;
    worker.resize(file.0, 399_000).await;
    let (core, state) = (&worker.results.core, worker.file(file.0));
    core.seal_later(&state, 0);
    let sealed = || match state.state().blocks.get(&0) {
        Some(Block::Sealed { sealed, .. }) => Some(Arc::clone(sealed)),
        _ => None,
    };
    until(|| sealed().is_some()).await;
    let sealed = sealed().unwrap();
    let there = sealed.in_ram().unwrap();
    assert_eq!(there.len(), sealed.sealed_len());
    assert!(core.spool_now(&sealed));
    let disk = std::fs::read(core.spool.path()).unwrap();
    let has = |bytes: &[u8]| disk.windows(bytes.len()).any(|part| part == bytes);
    assert!(has(&there[..64]) && has(&there[there.len() - 64..]), "the spool does not hold it");
    assert!(!has(&[b'P'; 16]), "plaintext in the spool");
    assert!(sealed.leave_ram() && sealed.bytes().unwrap() == there);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_leaves_the_worker_whole_or_not_at_all() {
    let worker = Worker::start(PLAIN).await;
    let mut long = bytes(1, 40 * MIB);
    let file = worker.begun("f", &long).await;
    let state = worker.file(file.0);
    worker.results.core.open_block(&state, 3).await.unwrap();
    worker.results.core.let_go();
    worker.write(file.0, 3 * MIB as u64 + 7, b"changed").await;
    worker.results.core.let_go();
    long[3 * MIB + 7..3 * MIB + 14].copy_from_slice(b"changed");
    timeout(LONG, worker.close(file)).await.unwrap().unwrap();
    assert!(worker.home.bytes("f").unwrap() == long);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_upload_only_comes_home_before_a_cut_to_one_part() {
    let worker = Worker::start(PLAIN).await;
    for len in [PART, PART - 5, 2 * PART] {
        let long = bytes(1, 40 * MIB);
        let file = worker.begun("f", &long).await;
        assert!(worker.results.core.let_go() > 0);
        timeout(LONG, worker.resize(file.0, len)).await.unwrap();
        timeout(LONG, worker.close(file)).await.unwrap().unwrap();
        assert!(worker.home.bytes("f").unwrap() == long[..len], "{len}");
        worker.unlink("f").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_in_an_upload_that_is_no_more_is_lost_and_said() {
    let worker = Worker::start(PLAIN).await;
    let file = worker.begun("f", &bytes(1, 40 * MIB)).await;
    assert!(worker.results.core.let_go() > 0);
    worker.home.once("commit", Fault::Refuse(ProblemKind::Absent));
    for _ in 0..2 {
        let flushed = timeout(LONG, worker.results.fsync(file.0)).await.unwrap();
        assert_eq!(flushed, Err(FsError::Lost));
    }
    assert_eq!(worker.read(file.0).await, Err(FsError::Lost));

    // Its name is taken away, or given to another, while it is open.
    for other in [None, Some("other")] {
        let file = worker.begun("g", &bytes(1, 40 * MIB)).await;
        assert!(worker.results.core.let_go() > 0);
        match other {
            None => worker.unlink("g").await.unwrap(),
            Some(other) => {
                worker.put(other, b"other").await.unwrap();
                worker.rename(other, "g").await.unwrap();
            }
        }
        assert!(timeout(LONG, worker.read(file.0)).await.unwrap().is_err());
        let _lost = timeout(LONG, worker.close(file)).await.unwrap();
    }
    assert_eq!(worker.home.bytes("g"), Some(b"other".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_knows_what_left_the_spool_for_the_upload() {
    let worker = Worker::start(How { asynchronous: true, ..PLAIN }).await;
    worker.home.always("commit", Fault::Cut);
    let long = bytes(1, 40 * MIB);
    worker.put("f", &long).await.unwrap();
    until(|| worker.home.asked("commit") > 0).await;
    assert!(worker.results.core.let_go() > 0);
    // Others are given its places.
    worker.home.always("store", Fault::Cut);
    let other = bytes(2, 5 * MIB);
    worker.put("g", &other).await.unwrap();
    let worker = worker.killed().await;
    worker.home.heal();
    let stated = worker.results.drain(boottime() + LONG).await;
    assert_eq!(stated.lost, [""; 0]);
    assert!(worker.home.bytes("f").unwrap() == long);
    assert!(worker.home.bytes("g").unwrap() == other);
}

/// Its last part has as many blocks as a full one and fewer bytes.
#[tokio::test(flavor = "multi_thread")]
async fn what_another_worker_sealed_is_read_from_home_to_the_last_part() {
    let worker = Worker::start(How { asynchronous: true, ..PLAIN }).await;
    worker.home.always("commit", Fault::Cut);
    let long = bytes(1, 2 * PART - 5);
    worker.put("f", &long).await.unwrap();
    until(|| worker.home.asked("commit") > 0).await;
    let worker = worker.killed().await;
    let asked = worker.home.asked("commit");
    until(|| worker.home.asked("commit") > asked).await;
    worker.results.core.let_go();
    worker.home.heal();
    let node = worker.node("f").unwrap();
    assert!(timeout(LONG, worker.read(node)).await.unwrap().unwrap() == long);
}

/// It was acknowledged, lies in the upload only, and the file has been emptied since.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_comes_home_though_its_file_was_emptied() {
    let worker = Worker::start(How { asynchronous: true, ..PLAIN }).await;
    worker.home.always("commit", Fault::Cut);
    let long = bytes(1, 40 * MIB);
    worker.put("f", &long).await.unwrap();
    until(|| worker.home.asked("commit") > 0).await;
    assert!(worker.results.core.let_go() > 0);
    worker.resize(worker.node("f").unwrap(), 0).await;
    let worker = worker.killed().await;
    worker.home.heal();
    let stated = worker.results.drain(boottime() + LONG).await;
    assert!(worker.home.bytes("f").unwrap() == long);
    // That it is empty was acknowledged to nobody.
    assert_eq!(stated.lost, ["f"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn copied_parts_are_not_copied_twice_when_the_answer_was_lost() {
    let worker = Worker::start(PLAIN).await;
    let mut long = bytes(1, 40 * MIB);
    worker.put("f", &long).await.unwrap();
    let node = worker.node("f").unwrap();
    let handle = worker.results.open(node, true).unwrap();
    worker.write(node, long.len() as u64, b"more").await;
    long.extend(b"more");
    worker.home.always("commit", Fault::Unheard);
    worker.cut_off(node, "commit").await;
    let worker = worker.killed().await;
    let copied = worker.home.asked("copy");
    worker.close((node, handle)).await.unwrap();
    assert!(worker.home.bytes("f").unwrap() == long);
    assert_eq!(worker.home.asked("copy"), copied);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_begins_during_a_rename_is_not_left_behind() {
    let worker = Arc::new(Worker::start(PLAIN).await);
    let go_on = Arc::new(Notify::new());
    worker.home.once("begin", Fault::Hold(Arc::clone(&go_on)));
    let file = worker.create("f").await;
    let long = bytes(1, 40 * MIB);
    worker.write(file.0, 0, &long).await;
    until(|| worker.home.asked("begin") == 1).await;
    let renaming = {
        let worker = Arc::clone(&worker);
        tokio::spawn(async move { worker.rename("f", "g").await })
    };
    tokio::task::yield_now().await;
    go_on.notify_one();
    timeout(LONG, renaming).await.unwrap().unwrap().unwrap();
    worker.close(file).await.unwrap();
    assert!(worker.home.bytes("g").unwrap() == long);
    until(|| worker.home.open_uploads() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_room_yet_is_not_seen_as_zeros() {
    let worker = Worker::start(PLAIN).await;
    let old = bytes(1, 2 * MIB);
    let file = worker.create("f").await;
    worker.write(file.0, 0, &old).await;
    worker.results.fsync(file.0).await.unwrap();
    let budget = &worker.results.core.budget;
    let one = budget.try_buffer(content::room_len(MIB)).unwrap();
    let mut rest = Vec::new();
    rest.extend(std::iter::from_fn(|| budget.try_reserve(4096)));
    drop(one);
    // There is room for one of its two blocks.
    assert_eq!(worker.results.try_write(worker.caller(), file.0, 0, &bytes(2, 2 * MIB)), None);
    drop(rest);
    assert!(worker.read(file.0).await.unwrap() == old);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_at_home_during_a_read_is_read_where_it_is_then() {
    let worker = Arc::new(Worker::start(PLAIN).await);
    let mut long = bytes(1, 20 * MIB);
    worker.put("f", &long).await.unwrap();
    let node = worker.node("f").unwrap();
    let handle = worker.results.open(node, true).unwrap();
    worker.write(node, 0, b"new").await;
    long[..3].copy_from_slice(b"new");
    for route in ["commit", "change"] {
        // Nothing of it is in memory.
        worker.results.core.let_go();
        let go_on = Arc::new(Notify::new());
        worker.home.once(route, Fault::Late(Arc::clone(&go_on)));
        let before = worker.home.asked(route);
        let changing = {
            let (worker, route) = (Arc::clone(&worker), route.to_owned());
            tokio::spawn(async move {
                match route.as_str() {
                    "commit" => worker.results.fsync(node).await,
                    _ => worker.rename("f", "g").await,
                }
            })
        };
        until(|| worker.home.asked(route) > before).await;
        let (reads, results) = (worker.home.asked("read"), Arc::clone(&worker.results));
        let at = 18 * MIB as u64;
        let reading = tokio::spawn(async move { results.read(node, at, 1000).await });
        // It has been told that there is no such version any more.
        until(|| worker.home.asked("read") > reads).await;
        go_on.notify_one();
        let read = timeout(LONG, reading).await.unwrap().unwrap();
        assert!(read.unwrap()[..] == long[18 * MIB..18 * MIB + 1000], "{route}");
        changing.await.unwrap().unwrap();
    }
    worker.close((node, handle)).await.unwrap();
}

/// What a worker before sealed is opened nowhere but at home.
#[tokio::test(flavor = "multi_thread")]
async fn an_adopted_version_is_read_and_changed_once_it_is_home() {
    let worker = Worker::start(How { asynchronous: true, ..PLAIN }).await;
    worker.home.always("store", Fault::Cut);
    let mut three = bytes(1, 3 * MIB);
    worker.put("f", &three).await.unwrap();
    worker.put("g", &three).await.unwrap();
    let worker = worker.killed().await;
    let nodes = [worker.node("f").unwrap(), worker.node("g").unwrap()];
    let handles = nodes.map(|node| worker.results.open(node, true).unwrap());
    // One block of the second is overwritten before it is home.
    worker.write(nodes[1], MIB as u64, &bytes(2, MIB)).await;
    worker.home.heal();
    let read = timeout(LONG, worker.read(nodes[0])).await.unwrap();
    assert!(read.unwrap() == three);
    timeout(LONG, worker.close((nodes[1], handles[1]))).await.unwrap().unwrap();
    let _pending = timeout(LONG, worker.results.drain(boottime() + LONG)).await.unwrap();
    three[MIB..2 * MIB].copy_from_slice(&bytes(2, MIB));
    assert!(worker.home.bytes("g").unwrap() == three);
    worker.close((nodes[0], handles[0])).await.unwrap();
}
