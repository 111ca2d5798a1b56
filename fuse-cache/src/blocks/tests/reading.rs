use super::gateway::Fault;
use super::*;

/// Small, empty, chunk-sized and large files: packed blocks, whole blocks and tails.
fn mixed() -> Home {
    let mut sizes = vec![0, 1, 16_384, 100_000, 3 * MIB, 9 * MIB + 5, 4 * MIB, 8 * MIB];
    sizes.extend((0..60).map(|n| 40_000 + n * 1000));
    Home::new(&sizes)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_byte_is_what_it_is_at_home() {
    let worker = Worker::start(mixed(), None, LONG).await;
    worker.check_all().await;
    worker.filled().await;
    let fetched = worker.cache.counters().blocks_fetched;
    assert_eq!(fetched, u64::from(worker.gateway.home.blocks()));
    worker.check_all().await;
    assert_eq!(worker.cache.counters().blocks_fetched, fetched, "nothing is fetched twice");
    assert_eq!(worker.cache.counters().refetched, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plan_is_filled_without_a_reader() {
    let worker = Worker::start(mixed(), None, LONG).await;
    worker.filled().await;
    let asked = worker.gateway.faults.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), worker.gateway.home.blocks() as usize);
    for (place, block) in asked.iter().enumerate() {
        let overtaken = u32::try_from(place).unwrap().abs_diff(*block);
        assert!(overtaken < 6, "in order, but for connections that overtake: {asked:?}");
    }
    let piece = worker.manifest.locate(1 + 5, 5 * MIB).unwrap();
    let mut out = vec![0; 70_000];
    assert_eq!(worker.cache.try_read(&piece, &mut out), Ok(true));
    assert_eq!(out, worker.gateway.home.bytes(5, 5 * MIB, 70_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_of_four_slots_serves_many_random_readers() {
    let home = Home::new(&[40 * MIB, 13 * MIB + 77, 300_000, 5 * MIB]);
    let worker = Arc::new(Worker::start(home, Some(17 * MIB), LONG).await);
    assert_eq!(worker.cache.core.store.slots(), 4);
    let readers: Vec<_> = (0..24)
        .map(|reader| {
            let worker = Arc::clone(&worker);
            tokio::spawn(async move {
                let mut random = seeded(reader);
                for _ in 0..30 {
                    let file = u32::try_from(random(4)).unwrap();
                    let size = worker.gateway.home.size(file);
                    let offset = random(size);
                    let len = (1 + random(700_000)).min(size - offset);
                    if let Some(piece) = worker.manifest.locate(1 + file, offset) {
                        worker.cache.touch(reader, piece.block);
                    }
                    worker.check(file, offset, usize::try_from(len).unwrap()).await;
                }
                worker.cache.forget(reader);
            })
        })
        .collect();
    for reader in readers {
        reader.await.unwrap();
    }
    assert!(worker.cache.counters().resident <= 4);
    assert_eq!(worker.cache.counters().refetched, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demand_that_found_every_slot_in_use_gets_the_first_that_is_let_go() {
    let worker = Arc::new(Worker::start(Home::new(&[40 * MIB]), Some(17 * MIB), LONG).await);
    let core = &worker.cache.core;
    let mut used = Vec::new();
    for block in 0..4_u64 {
        worker.check(0, block * 4 * MIB, 10).await;
        let resident = core.table().get(u32::try_from(block).unwrap()).unwrap();
        used.extend(resident.map(|resident| core.pin(resident)));
    }
    assert_eq!(used.len(), 4);
    let reader = {
        let worker = Arc::clone(&worker);
        tokio::spawn(async move { worker.check(0, 36 * MIB, 10).await })
    };
    until(|| core.table().is_pressed()).await;
    assert!(!reader.is_finished());
    used.remove(2);
    reader.await.unwrap();
    assert!(core.table().get(2).unwrap().is_none(), "the one that was let go");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sequential_reader_with_four_slots_fetches_each_block_about_once() {
    let home = Home::new(&[60 * MIB]);
    let worker = Worker::start(home, Some(17 * MIB), LONG).await;
    for offset in (0..60 * MIB).step_by(1 << 20) {
        worker.cache.touch(1, u32::try_from(offset / (4 * MIB)).unwrap());
        worker.check(0, offset, 1 << 20).await;
    }
    let fetched = worker.cache.counters().blocks_fetched;
    assert!(fetched <= 18, "{fetched} fetches of 15 blocks");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_bytes_are_read_before_the_last_have_come() {
    let home = Home::new(&[4 * MIB, 4 * MIB]);
    let gateway = Gateway::start(home).await;
    let go_on = Arc::new(tokio::sync::Notify::new());
    gateway.faults.once(0, Fault::Hold(200_000, Arc::clone(&go_on)));
    let worker = Worker::at(gateway, None, LONG).await;
    worker.check(0, 0, 60_000).await;
    let late = worker.manifest.locate(1, 3 * MIB).unwrap();
    let mut out = vec![0; 1000];
    assert_eq!(worker.cache.try_read(&late, &mut out), Ok(false));
    assert!(worker.cache.progress().resident_blocks < 2);
    go_on.notify_one();
    worker.check(0, 0, 4 << 20).await;
    assert!(worker.cache.progress().counters.reads == 0, "only the file system counts reads");
}

#[tokio::test(flavor = "multi_thread")]
async fn demands_overtake_the_plan() {
    let worker = Worker::start(Home::new(&[400 * MIB]), None, LONG).await;
    worker.check(0, 396 * MIB, 1000).await;
    let asked = worker.gateway.faults.asked.lock().unwrap().clone();
    let place = asked.iter().position(|block| *block == 99).unwrap();
    assert!(place < 40, "{place}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_takes_the_cache_up() {
    let worker = Worker::start(mixed(), None, LONG).await;
    worker.filled().await;
    let asked = worker.gateway.faults.asked.lock().unwrap().len();
    let worker = worker.succeeded().await;
    assert_eq!(worker.cache.progress().resident_blocks, worker.gateway.home.blocks());
    worker.check_all().await;
    assert_eq!(worker.gateway.faults.asked.lock().unwrap().len(), asked, "nothing fetched again");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_refuses_readers_and_wipes() {
    let gateway = Gateway::start(Home::new(&[4 * MIB, 4 * MIB, 20 * MIB])).await;
    let never = Arc::new(tokio::sync::Notify::new());
    gateway.faults.always(1, Fault::Hold(100, never));
    let worker = Arc::new(Worker::at(gateway, None, LONG).await);
    worker.check(0, 0, 1000).await;
    let waiting = {
        let worker = Arc::clone(&worker);
        tokio::spawn(async move { worker.read(1, 0, 10).await })
    };
    until(|| worker.gateway.faults.asked_for(1) > 0).await;
    worker.cache.shutdown_keys();
    assert_eq!(waiting.await.unwrap(), Err(ReadError::LeaseOver));
    assert_eq!(worker.read(0, 0, 1000).await, Err(ReadError::LeaseOver));
    let figures = worker.cache.wipe().await;
    assert_eq!((figures.failure, figures.unlinked), (None, Ok(())));
    assert!(figures.cache_bytes > 4 * MIB);
    assert_eq!(figures.overwritten_bytes, figures.cache_bytes);
    assert_eq!((figures.read_back_bytes, figures.mismatched_bytes), (figures.cache_bytes, 0));
    assert_eq!(std::fs::read_dir(worker.dir.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_without_blocks_is_fine() {
    let worker = Worker::start(Home::new(&[0, 0]), None, LONG).await;
    assert_eq!(worker.cache.progress().blocks, 0);
    assert!(worker.manifest.locate(1, 0).is_none());
    assert_eq!(worker.cache.wipe().await.failure, None);
}
