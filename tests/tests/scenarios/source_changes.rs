//! P5 and P4 at work: an object that changed at home is ESTALE alone; a slot that rotted on disk is
//! fetched again.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, Result};
use tidegate_tests::dataset;
use tidegate_tests::held::Held;
use tidegate_tests::s3::S3;
use tidegate_tests::scratch::Scratch;
use tidegate_tests::tidegate::Run;
use tidegate_tests::versitygw::Versitygw;

/// So slow, and so much to do first, that the last files are at home still when they change.
const SLOW: [&str; 2] = ["--limit", "100Mbit"];
const FILLER: usize = 64 << 20;

const ESTALE: i32 = rustix::io::Errno::STALE.raw_os_error();

fn is_stale(held: &Held, name: &str) -> bool {
    fs::read(held.data().join(name)).is_err_and(|error| error.raw_os_error() == Some(ESTALE))
}

/// S26: changed, deleted, replaced; large and packed. Neighbours read well.
#[test]
fn s26_what_changed_at_home_is_estale_and_nothing_else() -> Result<()> {
    let home = Scratch::new()?;
    dataset::write(home.path(), "00-filler", &dataset::bytes(0, FILLER))?;
    for (seed, name) in (1..).zip(["changed", "deleted", "good"]) {
        dataset::write(home.path(), format!("z-large/{name}"), &dataset::bytes(seed, 5 << 20))?;
    }
    for (seed, name) in
        (10..).zip(["a-good", "b-changed", "c-good", "d-deleted", "e-replaced", "f-good"])
    {
        dataset::write(home.path(), format!("z-small/{name}"), &dataset::bytes(seed, 30_000))?;
    }
    let held = Held::start(Run::from_dir(home.path())?.args(SLOW))?;
    let in_place = |name: &str| -> Result<()> {
        let file = File::options().write(true).open(home.join(name))?;
        Ok(file.write_all_at(b"other bytes, same length", 1000)?)
    };
    in_place("z-large/changed")?;
    in_place("z-small/b-changed")?;
    fs::remove_file(home.join("z-large/deleted"))?;
    fs::remove_file(home.join("z-small/d-deleted"))?;
    dataset::write(home.path(), "new", &dataset::bytes(14, 30_000))?;
    fs::rename(home.join("new"), home.join("z-small/e-replaced"))?;

    for name in [
        "z-large/changed",
        "z-large/deleted",
        "z-small/b-changed",
        "z-small/d-deleted",
        "z-small/e-replaced",
    ] {
        assert!(
            is_stale(&held, name),
            "{name}: {:?}",
            fs::read(held.data().join(name)).map(|b| b.len())
        );
    }
    for (name, seed, len) in [
        ("z-large/good", 3, 5 << 20),
        ("z-small/a-good", 10, 30_000),
        ("z-small/c-good", 12, 30_000),
        ("z-small/f-good", 15, 30_000),
    ] {
        assert_eq!(fs::read(held.data().join(name))?, dataset::bytes(seed, len), "{name}");
    }
    let log = held.log();
    for name in ["z-large/changed", "z-small/b-changed"] {
        assert!(log.contains(name), "the gateway's log names {name}: {log}");
    }
    let (_, receipt) = held.finish()?;
    assert_eq!(receipt["outcome"], "wiped");
    assert!(receipt["read_errors"].as_u64() > Some(0));
    Ok(())
}

fn objects(store: &S3) -> Result<()> {
    store.create_bucket("bucket")?;
    store.put("bucket", "set/00-filler", &dataset::bytes(0, FILLER))?;
    store.put("bucket", "set/z-large", &dataset::bytes(1, 5 << 20))?;
    for (seed, name) in (10..).zip(["a", "b", "c"]) {
        store.put("bucket", &format!("set/z-small/{name}"), &dataset::bytes(seed, 30_000))?;
    }
    Ok(())
}

#[test]
fn an_object_written_over_or_deleted_is_estale_alone() -> Result<()> {
    let server = Versitygw::start()?;
    let store = server.client()?;
    objects(&store)?;
    let held = Held::start(Run::from_s3(&store, "s3://bucket/set")?.args(SLOW))?;
    store.put("bucket", "set/z-large", &dataset::bytes(2, 5 << 20))?;
    store.put("bucket", "set/z-small/b", &dataset::bytes(3, 30_000))?;
    assert!(is_stale(&held, "z-large"));
    assert!(is_stale(&held, "z-small/b"));
    assert_eq!(fs::read(held.data().join("z-small/a"))?, dataset::bytes(10, 30_000));
    assert_eq!(fs::read(held.data().join("z-small/c"))?, dataset::bytes(12, 30_000));
    held.finish()?;
    Ok(())
}

/// The source goes away altogether: what is here is read, the rest fails and says so.
#[test]
fn a_store_that_died_fails_reads_of_what_is_not_here() -> Result<()> {
    let server = Versitygw::start()?;
    let store = server.client()?;
    objects(&store)?;
    let held = Held::start(Run::from_s3(&store, "s3://bucket/set")?.args(SLOW))?;
    let mut first = vec![0; 100_000];
    File::open(held.data().join("00-filler"))?.read_exact_at(&mut first, 0)?;
    drop(server);
    let error =
        fs::read(held.data().join("z-large")).err().context("read from a store that is gone")?;
    assert_ne!(error.kind(), ErrorKind::NotFound);
    assert!(matches!(error.raw_os_error(), Some(5 | ESTALE)), "{error}");
    let mut again = vec![0; 100_000];
    File::open(held.data().join("00-filler"))?.read_exact_at(&mut again, 0)?;
    assert_eq!(first, again);
    held.finish()?;
    Ok(())
}
