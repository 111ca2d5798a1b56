use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_closed_is_at_home() {
    let worker = Worker::start(PLAIN).await;
    worker.make_directory("a").await;
    for (seed, len) in [(1, 0), (2, 1), (3, 20_000), (4, MIB), (5, MIB + 1), (6, 16 * MIB)] {
        let path = format!("a/{len}-ü");
        worker.put(&path, &bytes(seed, len)).await.unwrap();
        assert!(worker.home.bytes(&path) == Some(bytes(seed, len)), "{len}");
        let node = worker.node(&path).unwrap();
        assert!(worker.read(node).await.unwrap() == bytes(seed, len), "{len}");
    }
    assert_eq!(worker.home.asked("store"), 6);
    assert_eq!(worker.home.asked("begin"), 0);
    assert_eq!(worker.results.figures().unsent_bytes, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_file_comes_home_in_parts() {
    let worker = Worker::start(PLAIN).await;
    let written = bytes(1, 75 * MIB + 17);
    worker.put("long", &written).await.unwrap();
    assert!(worker.home.bytes("long").unwrap() == written);
    assert_eq!((worker.home.asked("begin"), worker.home.asked("part")), (1, 5));
    let node = worker.node("long").unwrap();
    assert!(worker.read(node).await.unwrap() == written);
    // What is the same stays there.
    let handle = worker.results.open(node, true).unwrap();
    worker.write(node, 20 * MIB as u64 + 5, b"changed").await;
    worker.close((node, handle)).await.unwrap();
    let mut changed = written;
    changed[20 * MIB + 5..20 * MIB + 12].copy_from_slice(b"changed");
    assert!(worker.home.bytes("long").unwrap() == changed);
    assert_eq!((worker.home.asked("copy"), worker.home.asked("part")), (4, 6));
}
