use std::sync::atomic::Ordering;

use tidegate_wire::ProblemKind;

use super::*;

/// Forty blocks of one large file in windows of three, the last one short.
async fn gateway() -> Arc<Gateway> {
    let mut home = Home::new(&[160 * MIB]);
    home.window_blocks = 3;
    Gateway::start(home).await
}

const WINDOWS: usize = 14;
const FOUR_SLOTS: Option<u64> = Some(17 * MIB);

impl Worker {
    async fn check_block(&self, block: u32) {
        self.check(0, u64::from(block) * 4 * MIB + 1000, 5000).await;
    }

    async fn read_block(&self, block: u32) -> Result<Vec<u8>, ReadError> {
        self.read(0, u64::from(block) * 4 * MIB, 1000).await
    }

    fn releases(&self) -> usize {
        self.gateway.faults.released.lock().unwrap().len()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plan_gets_each_window_once_and_in_order() {
    let worker = Worker::at(gateway().await, None, LONG).await;
    worker.filled().await;
    let released = worker.gateway.faults.released.lock().unwrap().clone();
    let terms = worker.client.terms();
    let all: Vec<_> = (0..40).step_by(3).map(|block| terms.window_of(block)).collect();
    assert_eq!(released, all);
    worker.check_all().await;
    assert_eq!(worker.releases(), WINDOWS, "blocks that are here keep their keys");
    let ring = worker.client.ring();
    assert!(ring.windows().len() <= 5, "windows that were passed are closed: {:?}", ring.windows());
    assert_eq!(ring.held(), 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_is_released_than_the_cache_will_hold() {
    let worker = Worker::at(gateway().await, FOUR_SLOTS, LONG).await;
    until(|| worker.cache.progress().resident_blocks == 4).await;
    worker.check_block(3).await;
    assert_eq!(worker.releases(), 2, "two windows for the first four blocks");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sequential_reader_asks_once_a_window_and_lets_keys_go_with_their_blocks() {
    let worker = Worker::at(gateway().await, FOUR_SLOTS, LONG).await;
    for block in 0..40 {
        worker.cache.touch(1, block);
        worker.check(0, u64::from(block) * 4 * MIB, 4 << 20).await;
    }
    assert_eq!(worker.releases(), WINDOWS);
    let ring = worker.client.ring();
    until(|| ring.held() <= 4).await;
    assert!(ring.windows().len() <= 5, "{:?}", ring.windows());
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_jump_about_ask_at_most_twice_a_window() {
    let worker = Arc::new(Worker::at(gateway().await, FOUR_SLOTS, LONG).await);
    let readers: Vec<_> = (0..8)
        .map(|reader| {
            let worker = Arc::clone(&worker);
            tokio::spawn(async move {
                let mut random = seeded(reader);
                for _ in 0..40 {
                    let block = u32::try_from(random(40)).unwrap();
                    worker.cache.touch(reader, block);
                    worker.check_block(block).await;
                }
            })
        })
        .collect();
    for reader in readers {
        reader.await.unwrap();
    }
    let most = (0..40).map(|block| worker.gateway.faults.released_for(block)).max();
    assert!(most <= Some(2), "{:?}", worker.gateway.faults.released);
    assert!(worker.cache.counters().blocks_fetched > 40, "the cache was too small for all");
    let (ring, core) = (worker.client.ring(), &worker.cache.core);
    until(|| core.table().awaited().next().is_none()).await;
    assert!(ring.held() <= 4, "{} keys are held for four slots", ring.held());
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_of_one_window_wait_for_one_release() {
    let worker = Arc::new(Worker::at(gateway().await, FOUR_SLOTS, LONG).await);
    until(|| worker.cache.progress().resident_blocks == 4).await;
    let gate = worker.gateway.faults.gate.lock().await;
    let readers: Vec<_> = (0..24)
        .map(|reader| {
            let worker = Arc::clone(&worker);
            tokio::spawn(async move { worker.check_block(30 + reader % 3).await })
        })
        .collect();
    until(|| worker.cache.core.table().awaited().count() == 3).await;
    worker.check_block(2).await; // what is here is read on
    drop(gate);
    for reader in readers {
        reader.await.unwrap();
    }
    assert_eq!(worker.gateway.faults.released_for(30), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_asks_for_the_keys_of_what_is_read() {
    let worker = Worker::at(gateway().await, None, LONG).await;
    worker.filled().await;
    let worker = worker.succeeded().await;
    assert_eq!(worker.cache.progress().resident_blocks, 40);
    let before = worker.gateway.faults.released.lock().unwrap().len();
    assert_eq!(before, WINDOWS + 1, "the manifest's key came alone");
    let piece = worker.manifest.locate(1, 70 * MIB).unwrap();
    assert_eq!(worker.cache.try_read(&piece, &mut [0; 100]), Ok(false), "its key is not here");
    worker.check_block(17).await;
    worker.check_block(16).await;
    assert_eq!(worker.releases(), before + 1, "blocks 15 to 17 are one window");
    worker.check_all().await;
    worker.check_all().await;
    assert_eq!(worker.releases(), before + WINDOWS, "once for each window");
    let fetched = worker.gateway.faults.asked.lock().unwrap().len();
    assert_eq!(fetched, 40, "nothing is fetched again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_gives_no_keys_stalls_readers_and_then_fails_them() {
    let gateway = gateway().await;
    let worker = Worker::at(Arc::clone(&gateway), FOUR_SLOTS, Duration::from_millis(400)).await;
    until(|| worker.cache.progress().resident_blocks == 4).await;
    *gateway.faults.no_keys.lock().unwrap() = Some(ProblemKind::Unavailable);
    let begun = std::time::Instant::now();
    assert_eq!(worker.read_block(20).await, Err(ReadError::Unavailable));
    assert!(begun.elapsed() >= Duration::from_millis(400));
    worker.check_block(1).await; // what is here is read on
    *gateway.faults.no_keys.lock().unwrap() = None;
    let begun = tokio::time::Instant::now();
    while worker.read_block(20).await.is_err() {
        assert!(begun.elapsed() < LONG);
    }
    worker.check_block(20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_outage_when_keys_are_needed_is_not_seen() {
    let gateway = gateway().await;
    let worker = Arc::new(Worker::at(Arc::clone(&gateway), FOUR_SLOTS, LONG).await);
    until(|| worker.cache.progress().resident_blocks == 4).await;
    gateway.faults.down.store(true, Ordering::Relaxed);
    let reader = {
        let worker = Arc::clone(&worker);
        tokio::spawn(async move { worker.check_block(20).await })
    };
    until(|| worker.cache.core.table().is_pressed()).await;
    until(|| gateway.faults.unanswered.load(Ordering::Relaxed) >= 2).await;
    assert!(!reader.is_finished());
    gateway.faults.down.store(false, Ordering::Relaxed);
    reader.await.unwrap();
    assert_eq!(gateway.faults.released_for(20), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_turns_readers_away_who_wait_for_keys() {
    let gateway = gateway().await;
    let worker = Worker::at(Arc::clone(&gateway), None, LONG).await;
    worker.filled().await;
    let worker = Arc::new(worker.succeeded().await);
    gateway.faults.down.store(true, Ordering::Relaxed);
    let reader = {
        let worker = Arc::clone(&worker);
        tokio::spawn(async move { worker.read_block(5).await })
    };
    until(|| worker.cache.core.table().is_pressed()).await;
    worker.cache.shutdown_keys();
    assert_eq!(reader.await.unwrap(), Err(ReadError::LeaseOver));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_window_ends_its_readers_and_no_others() {
    let gateway = gateway().await;
    let worker = Worker::at(Arc::clone(&gateway), FOUR_SLOTS, LONG).await;
    until(|| worker.cache.progress().resident_blocks == 4).await;
    *gateway.faults.no_keys.lock().unwrap() = Some(ProblemKind::LeaseOver);
    assert_eq!(worker.read_block(20).await, Err(ReadError::LeaseOver));
    worker.check_block(0).await;
    assert_eq!(gateway.faults.asked_for(20), 0, "no block is asked for without its key");
}
