//! A worker killed with -9 in the middle of reads is replaced, and no read fails.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use tidegate_tests::dataset;
use tidegate_tests::digest;
use tidegate_tests::held::Held;
use tidegate_tests::process::{signal_pid, wait_for};
use tidegate_tests::scratch::Scratch;
use tidegate_tests::tidegate::Run;

/// Since 6.9 the kernel sends again what the dead one had taken.
fn kernel_resends() -> Result<bool> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split(['.', '-']).map(|word| word.trim().parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    Ok(version >= (6, 9))
}

#[test]
fn killed_three_times_mid_read_without_a_failed_read() -> Result<()> {
    ensure!(
        kernel_resends()?,
        "this scenario needs Linux 6.9; older kernels give a clear end instead"
    );
    let home = Scratch::new()?;
    dataset::flat(home.path(), 16, (4 << 20) + 999, 300)?;
    dataset::write(home.path(), "small/one", &dataset::bytes(1, 60_000))?;
    let want = digest::tree(home.path())?;
    let held = Held::start(Run::from_dir(home.path())?.args(["--cache-size", "40MiB"]))?;
    let (stop, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    let outcome = std::thread::scope(|scope| {
        let read = || -> Result<()> {
            while !stop.load(Ordering::Relaxed) {
                digest::assert_same(&want, &digest::tree(held.data()).context("a read failed")?);
                rounds.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        };
        let readers = [scope.spawn(read), scope.spawn(read)];
        let killing = (|| {
            for _ in 0..3 {
                let (before, worker) = (rounds.load(Ordering::Relaxed), held.worker()?);
                signal_pid(worker, Signal::KILL)?;
                wait_for("another worker", || held.worker().ok().filter(|pid| *pid != worker))?;
                wait_for("reads to go on", || {
                    (rounds.load(Ordering::Relaxed) > before + 1).then_some(())
                })?;
            }
            anyhow::Ok(())
        })();
        stop.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.join().map_err(|_| anyhow::anyhow!("a reader saw other bytes"))??;
        }
        killing
    });
    outcome.with_context(|| held.log())?;
    let (_, receipt) = held.finish()?;
    assert_eq!(receipt["workers_replaced"], 3);
    assert_eq!(receipt["outcome"], "wiped", "{receipt:#}");
    Ok(())
}

/// Blocks on disk are adopted by the next worker: they do not leave home twice.
#[test]
fn the_next_worker_adopts_what_is_on_disk() -> Result<()> {
    let home = Scratch::new()?;
    dataset::flat(home.path(), 8, 4 << 20, 400)?;
    let held = Held::start(Run::from_dir(home.path())?)?;
    let want = digest::tree(home.path())?;
    digest::assert_same(&want, &digest::tree(held.data())?);
    let worker = held.worker()?;
    signal_pid(worker, Signal::KILL)?;
    wait_for("another worker", || held.worker().ok().filter(|pid| *pid != worker))?;
    digest::assert_same(&want, &digest::tree(held.data())?);
    let (_, receipt) = held.finish()?;
    let (left, selected) = (receipt["left_bytes"].as_u64(), receipt["selected_bytes"].as_u64());
    let (left, selected) = (left.context("no left_bytes")?, selected.context("no selected_bytes")?);
    assert!(left < selected + selected / 2, "{left} sealed bytes left for {selected} selected");
    Ok(())
}
