use std::future::{Future as _, poll_fn};
use std::task::Poll;

use tokio::sync::Notify;
use tokio::time::timeout;

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

/// Whoever reads it meanwhile, or was forked meanwhile and closes what he inherited, is not its writer.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_half_written_comes_home_by_its_writers_closes_only() {
    let worker = Worker::start(PLAIN).await;
    let (node, handle) = worker.create("f").await;
    worker.write(node, 0, b"half").await;
    let stranger = Caller { thread: std::process::id(), ..worker.caller() };
    worker.results.flush(stranger, node, handle).await.unwrap();
    let reading = worker.results.open(node, false).unwrap();
    worker.results.flush(worker.caller(), node, reading).await.unwrap();
    assert_eq!(worker.home.bytes("f"), None);
    worker.results.flush(worker.caller(), node, handle).await.unwrap();
    assert_eq!(worker.home.bytes("f"), Some(b"half".into()));
    // Who cuts it changes it, too.
    let empty = NewAttributes { size: Some(1), ..NewAttributes::default() };
    worker.results.set_attributes(stranger, node, empty).await.unwrap();
    worker.results.flush(stranger, node, handle).await.unwrap();
    assert_eq!(worker.home.bytes("f"), Some(b"h".into()));
}

/// Nor are they taken for strangers while a version with what they wrote is on its way.
#[tokio::test(flavor = "multi_thread")]
async fn a_close_waits_for_the_closers_bytes_whoever_brings_them() {
    let worker = Arc::new(Worker::start(PLAIN).await);
    let (node, handle) = worker.create("f").await;
    let go_on = Arc::new(Notify::new());
    worker.home.once("store", Fault::Hold(Arc::clone(&go_on)));
    worker.write(node, 0, b"first").await;
    let syncing = {
        let worker = Arc::clone(&worker);
        tokio::spawn(async move { worker.results.fsync(node).await })
    };
    until(|| worker.home.asked("store") == 1).await;
    let stranger = Caller { thread: std::process::id(), ..worker.caller() };
    worker.results.write(stranger, node, 5, b" second").await.unwrap();
    let mut closing = std::pin::pin!(worker.results.flush(worker.caller(), node, handle));
    let early = timeout(Duration::from_millis(100), &mut closing).await;
    assert!(early.is_err(), "its bytes are on their way");
    go_on.notify_one();
    closing.await.unwrap();
    syncing.await.unwrap().unwrap();
    assert_eq!(worker.home.bytes("f"), Some(b"first second".into()));
}

/// What is made in a directory while that takes another name is where it is then.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_comes_below_a_directory_that_is_being_renamed() {
    let worker = Arc::new(Worker::start(PLAIN).await);
    worker.make_directory("d").await;
    worker.make_directory("d/e").await;
    worker.put("d/old", b"old").await.unwrap();
    worker.put("elsewhere", b"moved").await.unwrap();
    let go_on = Arc::new(Notify::new());
    let asked = worker.home.asked("change");
    worker.home.once("change", Fault::Hold(Arc::clone(&go_on)));
    let doing = |what: usize| {
        let worker = Arc::clone(&worker);
        Box::pin(async move {
            match what {
                0 => worker.rename("d", "g").await,
                1 => worker.put("d/e/new", b"new").await,
                2 => worker.rename("elsewhere", "d/e/moved").await,
                _ => {
                    worker.make_directory("d/e/made").await;
                    Ok(())
                }
            }
        })
    };
    let renaming = tokio::spawn(doing(0));
    until(|| worker.home.asked("change") > asked).await;
    let mut others = [1, 2, 3].map(doing);
    for other in &mut others {
        // Begun by the old name, and held up.
        let begun = poll_fn(|cx| Poll::Ready(other.as_mut().poll(cx))).await;
        assert!(begun.is_pending());
    }
    let others = others.map(tokio::spawn);
    go_on.notify_one();
    renaming.await.unwrap().unwrap();
    for other in others {
        other.await.unwrap().unwrap();
    }
    let home: Vec<_> = worker.home.lock().files.keys().cloned().collect();
    assert_eq!(home, ["g/e/moved", "g/e/new", "g/old"]);
    assert!(worker.home.lock().directories.contains_key("g/e/made"));
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

#[tokio::test(flavor = "multi_thread")]
async fn names_change_at_home_before_the_answer() {
    let worker = Worker::start(PLAIN).await;
    worker.make_directory("d").await;
    worker.make_directory("d/e").await;
    assert!(worker.home.lock().directories.contains_key("d/e"));
    worker.put("d/a", b"first").await.unwrap();
    worker.put("b", b"second").await.unwrap();
    worker.rename("d/a", "b").await.unwrap();
    assert_eq!((worker.home.bytes("b"), worker.home.bytes("d/a")), (Some(b"first".into()), None));
    let node = worker.node("b").unwrap();
    assert_eq!(worker.read(node).await.unwrap(), b"first");
    assert_eq!(worker.node("d/a"), None);
    worker.put("d/e/f", b"below").await.unwrap();
    worker.rename("d", "g").await.unwrap();
    assert_eq!(worker.home.bytes("g/e/f"), Some(b"below".into()));
    let (parent, name) = worker.place("g/e");
    let full = worker.results.remove_directory(worker.caller(), parent, name.as_bytes()).await;
    assert_eq!(full, Err(FsError::NotEmpty));
    worker.unlink("g/e/f").await.unwrap();
    worker.unlink("b").await.unwrap();
    assert!(worker.home.lock().files.is_empty());
    worker.results.remove_directory(worker.caller(), parent, name.as_bytes()).await.unwrap();
    assert!(!worker.home.lock().directories.contains_key("g/e"));
    let names = worker.results.list(1, 0, 100).unwrap();
    let names: Vec<_> = names.iter().map(|entry| entry.name.as_slice()).collect();
    assert_eq!(names, [b".".as_slice(), b"..", b"g"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_file_is_renamed_and_replaced() {
    let worker = Worker::start(PLAIN).await;
    // Dirty, with an older version at home.
    let log = worker.create("log").await;
    worker.write(log.0, 0, b"one").await;
    worker.results.fsync(log.0).await.unwrap();
    worker.write(log.0, 3, b" two").await;
    worker.rename("log", "log.1").await.unwrap();
    assert_eq!(worker.home.bytes("log"), None);
    worker.put("log", b"new").await.unwrap();
    worker.close(log).await.unwrap();
    assert_eq!(worker.home.bytes("log.1"), Some(b"one two".into()));
    assert_eq!(worker.home.bytes("log"), Some(b"new".into()));

    // Never at home, over one that is: that stays until this comes.
    let fresh = worker.create("fresh").await;
    worker.write(fresh.0, 0, b"fresh").await;
    worker.rename("fresh", "log").await.unwrap();
    assert_eq!(worker.home.bytes("log"), Some(b"new".into()));
    worker.close(fresh).await.unwrap();
    assert_eq!(worker.home.bytes("log"), Some(b"fresh".into()));
    assert_eq!(worker.home.bytes("fresh"), None);

    // The same, but it never comes.
    let gone = worker.create("gone").await;
    worker.write(gone.0, 0, b"gone").await;
    worker.rename("gone", "log").await.unwrap();
    worker.rename("gone2", "x").await.unwrap_err();
    worker.unlink("log").await.unwrap();
    assert_eq!(worker.home.bytes("log"), None);
    // What has no name is read on, and goes nowhere.
    assert_eq!(worker.read(gone.0).await.unwrap(), b"gone");
    worker.write(gone.0, 4, b" on").await;
    worker.close(gone).await.unwrap();
    assert_eq!(worker.home.lock().files.keys().collect::<Vec<_>>(), ["log.1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_file_is_renamed_while_it_is_written() {
    let worker = Worker::start(PLAIN).await;
    let written = bytes(3, 50 * MIB);
    let file = worker.create("part.tmp").await;
    worker.write(file.0, 0, &written[..40 * MIB]).await;
    until(|| worker.home.asked("part") >= 2).await;
    worker.rename("part.tmp", "whole").await.unwrap();
    worker.write(file.0, 40 * MIB as u64, &written[40 * MIB..]).await;
    worker.close(file).await.unwrap();
    assert!(worker.home.bytes("whole").unwrap() == written);
    assert_eq!(worker.home.lock().files.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_a_bucket_keeps_its_name() {
    let worker = Worker::start(How { directories: false, ..PLAIN }).await;
    worker.make_directory("d").await;
    worker.put("d/a", b"a").await.unwrap();
    assert_eq!(worker.rename("d", "e").await, Err(FsError::CrossDevice));
    assert_eq!(worker.home.asked("change"), 0);
    worker.rename("d/a", "a").await.unwrap();
    worker.rename("d", "e").await.unwrap();
    assert!(worker.node("e").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_at_home_is_shown_to_who_resumes() {
    let worker = Worker::with(How { resume: true, ..PLAIN }, |home| {
        for (name, len) in [("a/b/long", 40 * MIB), ("a/c", 5), ("d", 0), ("e", 20)] {
            home.put(name, &bytes(len as u64, len));
        }
    })
    .await;
    for (name, len) in [("a/b/long", 40 * MIB), ("a/c", 5), ("d", 0), ("e", 20)] {
        let node = worker.node(name).unwrap();
        assert!(worker.read(node).await.unwrap() == bytes(len as u64, len), "{name}");
    }
    // Appended to: what nobody can prove is sent again.
    let node = worker.node("a/b/long").unwrap();
    let handle = worker.results.open(node, true).unwrap();
    worker.write(node, 40 * MIB as u64, b"more").await;
    worker.close((node, handle)).await.unwrap();
    let expected = [bytes(40 * MIB as u64, 40 * MIB), b"more".to_vec()].concat();
    assert!(worker.home.bytes("a/b/long").unwrap() == expected);
    assert_eq!(worker.results.attributes(worker.node("e").unwrap()).unwrap().perm, 0o640);
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_go_with_the_bytes_or_after_them() {
    let worker = Worker::start(PLAIN).await;
    let file = worker.create("f").await;
    worker.write(file.0, 0, b"f").await;
    let mtime = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 7);
    let set = |new| worker.results.set_attributes(worker.caller(), file.0, new);
    set(NewAttributes { mode: Some(0o600), ..NewAttributes::default() }).await.unwrap();
    assert_eq!(worker.home.asked("change"), 0);
    worker.close(file).await.unwrap();
    assert_eq!(worker.home.lock().files["f"].attributes.mode, 0o600);
    let new = NewAttributes { mode: Some(0o755), mtime: Some(mtime), ..NewAttributes::default() };
    set(new).await.unwrap();
    let attributes = worker.home.lock().files["f"].attributes;
    assert_eq!(
        (attributes.mode, attributes.mtime_s, attributes.mtime_ns),
        (0o755, 1_000_000_000, 7)
    );
    let foreign = NewAttributes { uid: Some(7), ..NewAttributes::default() };
    assert_eq!(set(foreign).await.err(), Some(FsError::NotPermitted));
    assert_eq!(worker.results.attributes(file.0).unwrap().mtime, mtime);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_cannot_come_home_are_refused() {
    let worker = Worker::start(PLAIN).await;
    let create = async |name: &[u8]| {
        worker.results.create(worker.caller(), 1, name, 0o644, true, false).await.map(drop)
    };
    assert_eq!(create(b"\xff").await, Err(FsError::BadName));
    assert_eq!(create(&[b'x'; 256]).await, Err(FsError::NameTooLong));
    assert_eq!(create(b".tidegate-x").await, Err(FsError::NotPermitted));
    assert_eq!(create("größe.äöü".as_bytes()).await, Ok(()));
    assert_eq!(create("größe.äöü".as_bytes()).await, Err(FsError::Exists));
    assert_eq!(worker.results.lookup(1, b"\xff").unwrap(), None);
    let file = worker.node("größe.äöü").unwrap();
    let far = worker.results.try_write(worker.caller(), file, u64::MAX - 2, b"far").unwrap();
    assert_eq!(far, Err(FsError::TooLarge));
    assert_eq!(
        worker.results.create(worker.caller(), file, b"x", 0o644, true, false).await.err(),
        Some(FsError::NotDirectory)
    );
}
