use std::os::unix::fs::FileExt as _;
use std::sync::atomic::Ordering;

use tidegate_wire::ProblemKind;

use super::gateway::Fault;
use super::*;

/// Three large files, so whole blocks 0 to 2, and one block of small ones.
async fn gateway() -> Arc<Gateway> {
    Gateway::start(Home::new(&[4 * MIB, 4 * MIB, 4 * MIB, 50_000, 60_000, 70_000])).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bit_changed_on_the_wire_is_fetched_again_once() {
    let gateway = gateway().await;
    gateway.faults.once(1, Fault::Flip(3_000_000));
    let worker = Worker::at(gateway, None, LONG).await;
    worker.check(1, 0, 4 << 20).await;
    assert_eq!(worker.cache.counters().refetched, 1);
    assert_eq!(worker.gateway.faults.asked_for(1), 2);
    worker.check_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bit_changed_twice_is_an_error_of_that_block_only() {
    let gateway = gateway().await;
    gateway.faults.always(1, Fault::Flip(3_000_000));
    let worker = Worker::at(gateway, None, LONG).await;
    worker.check(1, 0, 1 << 20).await;
    let broken = worker.read(1, 2_900_000, 200_000).await;
    assert_eq!(broken, Err(ReadError::Integrity));
    worker.check(0, 0, 4 << 20).await;
    worker.check(2, 0, 4 << 20).await;
    assert_eq!(worker.cache.counters().refetched, 1);
}

/// The other reader takes the suspicion from the block while it is fetched the second time.
#[tokio::test(flavor = "multi_thread")]
async fn a_bit_changed_twice_is_an_error_whoever_reads_beside() {
    let (gateway, go_on) = (gateway().await, Arc::new(tokio::sync::Notify::new()));
    gateway.faults.once(1, Fault::Flip(3_000_000));
    gateway.faults.once(1, Fault::HoldAndFlip(1_000_000, 3_000_000, Arc::clone(&go_on)));
    let worker = Arc::new(Worker::at(gateway, None, LONG).await);
    let reader = {
        let worker = Arc::clone(&worker);
        let piece = worker.manifest.locate(2, 2_900_000).unwrap();
        tokio::spawn(async move { worker.cache.read(&piece, &mut [0; 200_000]).await })
    };
    until(|| worker.gateway.faults.asked_for(1) == 2).await;
    worker.check(1, 0, 1000).await;
    go_on.notify_one();
    assert_eq!(reader.await.unwrap(), Err(ReadError::Integrity));
    worker.check(1, 0, 4 << 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_header_or_swapped_block_never_reaches_a_reader() {
    for fault in [Fault::Flip(3), Fault::Flip(30), Fault::Swap(2), Fault::Garbage] {
        let gateway = gateway().await;
        gateway.faults.once(1, fault.clone());
        gateway.faults.always(0, fault);
        let worker = Worker::at(gateway, None, LONG).await;
        worker.check(1, 0, 4 << 20).await;
        assert_eq!(worker.read(0, 0, 10).await, Err(ReadError::Integrity));
        worker.check(2, 0, 4 << 20).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_length_is_refused_after_one_retry() {
    let gateway = gateway().await;
    gateway.faults.once(1, Fault::Short);
    gateway.faults.always(0, Fault::Short);
    let worker = Worker::at(gateway, None, LONG).await;
    worker.check(1, 0, 4 << 20).await;
    assert_eq!(worker.read(0, 0, 10).await, Err(ReadError::Integrity));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupt_slot_is_fetched_again() {
    let worker = Worker::at(gateway().await, None, LONG).await;
    worker.filled().await;
    let store = &worker.cache.core.store;
    let file = std::fs::OpenOptions::new().write(true).open(store.path()).unwrap();
    let len = store.bytes();
    for at in (0..len - 100_000).step_by(100_000) {
        file.write_all_at(b"not what was there", at + 50_000).unwrap();
    }
    worker.check_all().await;
    assert_eq!(worker.cache.counters().refetched, 4);
    worker.check_all().await;
    assert_eq!(worker.cache.counters().refetched, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_block_starts_again() {
    let gateway = gateway().await;
    for at in [0, 20, 56, 700_000] {
        gateway.faults.once(1, Fault::Tear(at));
    }
    let worker = Worker::at(gateway, None, LONG).await;
    worker.check(1, 0, 4 << 20).await;
    assert_eq!(worker.gateway.faults.asked_for(1), 5);
    assert_eq!(worker.cache.counters().refetched, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_object_is_stale_alone() {
    let mut home = Home::new(&[4 * MIB, 4 * MIB, 4 * MIB, 50_000, 60_000, 70_000]);
    home.stale.insert(4);
    let gateway = Gateway::start(home).await;
    gateway.faults.always(1, Fault::Refuse(ProblemKind::SourceChanged));
    let worker = Worker::at(gateway, None, LONG).await;
    assert_eq!(worker.read(1, 9, 10).await, Err(ReadError::Stale));
    assert_eq!(worker.read(1, MIB, 10).await, Err(ReadError::Stale));
    assert_eq!(worker.gateway.faults.asked_for(1), 1, "what is stale stays stale");
    worker.check(0, 0, 4 << 20).await;
    worker.check(3, 0, 50_000).await;
    assert_eq!(worker.read(4, 0, 10).await, Err(ReadError::Stale));
    worker.check(5, 0, 70_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_end_or_repeat() {
    let gateway = gateway().await;
    gateway.faults.once(0, Fault::Refuse(ProblemKind::Unavailable));
    gateway.faults.once(0, Fault::Refuse(ProblemKind::SourceUnavailable));
    gateway.faults.always(1, Fault::Refuse(ProblemKind::LeaseOver));
    let worker = Worker::at(gateway, None, LONG).await;
    worker.check(0, 0, 4 << 20).await;
    assert_eq!(worker.gateway.faults.asked_for(0), 3);
    assert_eq!(worker.read(1, 0, 10).await, Err(ReadError::LeaseOver));
}

/// Each try takes longer than any pause between tries, so that somebody waits for a fetch all the time
/// and for its beginning hardly ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_fails_slowly_is_given_up_after_the_grace() {
    let gateway = gateway().await;
    let late = Fault::Late(Duration::from_millis(2500), ProblemKind::SourceUnavailable);
    gateway.faults.always(1, late);
    let worker = Worker::at(gateway, None, Duration::from_secs(4)).await;
    let read = tokio::time::timeout(Duration::from_secs(60), worker.read(1, 0, 10)).await;
    assert_eq!(read.expect("the read waits for ever"), Err(ReadError::Unavailable));
    worker.check(0, 0, 4 << 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_link_stalls_and_then_fails() {
    let gateway = gateway().await;
    let worker = Worker::at(gateway, None, Duration::from_millis(400)).await;
    worker.filled().await;
    let held = worker.block_of(2);
    let resident = worker.cache.core.table().get(held).unwrap().unwrap();
    worker.gateway.faults.down.store(true, Ordering::Relaxed);
    worker.cache.core.distrust(&resident).unwrap();
    drop(resident);
    assert_eq!(worker.read(2, 0, 10).await, Err(ReadError::Unavailable));
    worker.check(1, 0, 4 << 20).await; // what is here is read on
    worker.gateway.faults.down.store(false, Ordering::Relaxed);
    until(|| worker.cache.progress().resident_blocks == 4).await;
    worker.check_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_outage_is_not_seen() {
    let gateway = gateway().await;
    let worker = Arc::new(Worker::at(Arc::clone(&gateway), None, LONG).await);
    worker.filled().await;
    let resident = worker.cache.core.table().get(2).unwrap().unwrap();
    gateway.faults.down.store(true, Ordering::Relaxed);
    worker.cache.core.distrust(&resident).unwrap();
    drop(resident);
    let reader = {
        let worker = Arc::clone(&worker);
        tokio::spawn(async move { worker.check(2, 0, 4 << 20).await })
    };
    until(|| worker.cache.core.table().is_pressed()).await;
    assert!(!reader.is_finished());
    gateway.faults.down.store(false, Ordering::Relaxed);
    reader.await.unwrap();
}
