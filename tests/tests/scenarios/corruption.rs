//! Bits that change on the wire or on the worker's disk: never wrong bytes.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context as _, Result, ensure};
use tidegate_tests::between::{Between, Look};
use tidegate_tests::dataset;
use tidegate_tests::digest;
use tidegate_tests::held::Held;
use tidegate_tests::process::{PATIENCE, wait_for};
use tidegate_tests::programs::{GatewayProgram, MountProgram};
use tidegate_tests::relay::Relay;
use tidegate_tests::scratch::Scratch;
use tidegate_tests::tidegate::Run;

const EIO: i32 = 5;

/// S27: every resident slot gets a flipped bit; reads are right all the same, and the receipt says so.
#[test]
fn s27_a_corrupt_slot_on_disk_is_fetched_once_more() -> Result<()> {
    let home = Scratch::new()?;
    dataset::flat(home.path(), 5, (4 << 20) + 10, 50)?;
    let held = Held::start(Run::from_dir(home.path())?)?;
    let want = digest::tree(home.path())?;
    digest::assert_same(&want, &digest::tree(held.data())?);
    let mut flipped = 0;
    let file = cache_file(&held)?;
    for at in (300 << 10..file.metadata()?.len()).step_by(1 << 20) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at)?;
        file.write_all_at(&[byte[0] ^ 1], at)?;
        flipped += 1;
    }
    assert!(flipped > 10, "the cache holds the blocks");
    digest::assert_same(&want, &digest::tree(held.data())?);
    let log = held.log();
    assert!(log.contains("again") || log.contains("refetch"), "it is logged: {log}");
    let (_, receipt) = held.finish()?;
    assert_eq!(receipt["read_errors"], 0);
    assert!(
        receipt["certificate"]["stated"]["counters"]["refetched"].as_u64() > Some(0),
        "{receipt:#}"
    );
    Ok(())
}

/// S27: a disk that damages whatever is written to it: the read fails, it never lies; once the disk
/// is well, so are reads.
#[test]
fn s27_a_block_that_is_corrupt_twice_is_eio() -> Result<()> {
    let home = Scratch::new()?;
    dataset::flat(home.path(), 3, (4 << 20) + 10, 51)?;
    let want = digest::tree(home.path())?;
    let held = Held::start(Run::from_dir(home.path())?)?;
    digest::assert_same(&want, &digest::tree(held.data())?);
    let cache = cache_file(&held)?;
    let victim = fs::read_dir(held.data())?.next().context("an empty mount")??.path();
    let (stop, started) = (AtomicBool::new(false), std::time::Instant::now());
    let error = std::thread::scope(|scope| {
        scope.spawn(|| damage_until(&cache, &stop));
        let error = loop {
            match fs::read(&victim) {
                Ok(bytes) => {
                    let name = victim.file_name().unwrap_or_default();
                    assert!(
                        fs::read(home.path().join(name)).is_ok_and(|home| home == bytes),
                        "wrong bytes"
                    );
                }
                Err(error) => break Ok(error),
            }
            if started.elapsed() > PATIENCE {
                break Err(anyhow::anyhow!("no read failed: {}", held.log()));
            }
        };
        stop.store(true, Ordering::Relaxed);
        error
    })?;
    assert_eq!(error.raw_os_error(), Some(EIO), "{error}");
    assert!(held.log().contains("fetched again does not open"), "{}", held.log());
    wait_for("the block to be fetched anew", || fs::read(&victim).ok())?;
    digest::assert_same(&want, &digest::tree(held.data())?);
    held.finish()?;
    Ok(())
}

/// S27: a gateway that seals wrongly, as the worker sees it: behind TLS, a bit of one block is another
/// twice. That block is fetched once more, then its file is EIO and no other; when it comes as it
/// should, it is read.
#[test]
fn s27_a_block_sealed_wrongly_is_eio_alone() -> Result<()> {
    const BAD: u64 = 1;
    let home = Scratch::new()?;
    // A block each.
    dataset::flat(home.path(), 3, 4 << 20, 53)?;
    let gateway = GatewayProgram::start(&home.path().display().to_string(), "")?;
    let join = gateway.lease("one.join", ["--from".as_ref(), home.path().as_os_str()])?;
    let came = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&came);
    // Had a worker patience for a third, it would read it well.
    let look: Look = Arc::new(move |request, answer| {
        if request.line().contains(&format!("/blocks/{BAD} "))
            && answer.status() == 200
            && counted.fetch_add(1, Ordering::Relaxed) < 2
        {
            answer.body[3_000_000] ^= 0x10;
        }
    });
    let authority = gateway.state().join("ca/authority.pem");
    let between = Between::tls(gateway.port(), &authority, look)?;
    let mount = MountProgram::start(&between.join(&join)?, &[])?;
    let name = |file: u64| format!("{file:05}.bin");
    // One request of the kernel's: a longer read would be short first, and ask again for the rest.
    let bad = File::open(mount.data().join(name(BAD)))?;
    let error = bad.read_at(&mut [0; 200_000], 2_900_000).err();
    let error = error.with_context(|| format!("it was read: {}", mount.log()))?;
    assert_eq!(error.raw_os_error(), Some(EIO), "{error}");
    assert!(came.load(Ordering::Relaxed) >= 2, "it was not fetched once more");
    assert!(mount.log().contains("fetched again does not open"), "{}", mount.log());
    for file in [0, 2] {
        assert!(fs::read(mount.data().join(name(file)))? == fs::read(home.join(&name(file)))?);
    }
    drop(bad);
    digest::assert_same(&digest::tree(home.path())?, &digest::tree(mount.data())?);
    let receipt = mount.finish()?;
    assert_eq!(receipt["outcome"], "wiped", "{receipt:#}");
    assert!(receipt["read_errors"].as_u64() > Some(0), "{receipt:#}");
    let counters = &receipt["certificate"]["stated"]["counters"];
    assert!(counters["refetched"].as_u64() > Some(0), "{receipt:#}");
    Ok(())
}

/// Flips a bit in every 64 KiB of the file, again and again.
fn damage_until(cache: &File, stop: &AtomicBool) -> Result<()> {
    let len = cache.metadata()?.len();
    while !stop.load(Ordering::Relaxed) {
        for at in (8 << 10..len).step_by(64 << 10) {
            let mut byte = [0];
            cache.read_exact_at(&mut byte, at)?;
            cache.write_all_at(&[byte[0] ^ 1], at)?;
        }
    }
    Ok(())
}

/// Bits flipped on the way to the worker end their connections, and the blocks come once more.
#[test]
fn a_bit_flipped_on_the_wire_is_never_seen() -> Result<()> {
    let home = Scratch::new()?;
    dataset::flat(home.path(), 12, (4 << 20) + 10, 52)?;
    let gateway = GatewayProgram::start(&home.path().display().to_string(), "")?;
    let join = gateway.lease("one.join", ["--from".as_ref(), home.path().as_os_str()])?;
    let relay = Relay::start(gateway.port(), 5)?;
    let mount = MountProgram::start(&relay.join(&join)?, &[])?;
    digest::assert_same(&digest::tree(home.path())?, &digest::tree(mount.data())?);
    ensure!(relay.flipped() > 0, "nothing was damaged");
    let receipt = mount.finish()?;
    assert_eq!(receipt["outcome"], "wiped", "{receipt:#}");
    assert_eq!(receipt["read_errors"], 0, "{receipt:#}");
    Ok(())
}

/// The one cache file of a run, to be damaged.
fn cache_file(held: &Held) -> Result<File> {
    let files = fs::read_dir(held.scratch().join("cache"))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<PathBuf>>>()?;
    let [file] = files.as_slice() else { anyhow::bail!("not one cache file: {files:?}") };
    Ok(File::options().read(true).write(true).open(file)?)
}
