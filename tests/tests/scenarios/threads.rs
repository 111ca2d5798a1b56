//! Several FUSE threads: each really serves, and none is kept by a read that waits.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use tidegate_tests::dataset;
use tidegate_tests::process::wait_for;
use tidegate_tests::programs::{GatewayProgram, MountProgram};
use tidegate_tests::scratch::Scratch;

/// More than there are FUSE threads.
const READERS: usize = 16;
const LARGE: usize = 8 << 20;

fn site(extra: &str, cold: usize) -> Result<(Scratch, GatewayProgram, MountProgram)> {
    let home = Scratch::new()?;
    dataset::write(home.path(), "a-here", &dataset::bytes(1, LARGE))?;
    if cold > 0 {
        dataset::write(home.path(), "b-filler", &dataset::bytes(2, cold))?;
        dataset::write(home.path(), "c-away", &dataset::bytes(3, LARGE))?;
    }
    let gateway = GatewayProgram::start(&home.path().display().to_string(), extra)?;
    let join = gateway.lease("one.join", ["--from".as_ref(), home.path().as_os_str()])?;
    let mount = MountProgram::start(&join, &[])?;
    ensure!(fs::read(mount.data().join("a-here"))? == dataset::bytes(1, LARGE), "other bytes");
    Ok((home, gateway, mount))
}

/// CPU time in ticks of the worker's threads that speak with the kernel, by their number.
fn fuse_threads(worker: u32) -> Result<BTreeMap<u32, u64>> {
    let mut threads = BTreeMap::new();
    for task in fs::read_dir(format!("/proc/{worker}/task"))? {
        let task = task?;
        let name = fs::read_to_string(task.path().join("comm"))?;
        if !name.contains("fuse") {
            continue;
        }
        let stat = fs::read_to_string(task.path().join("stat"))?;
        let fields = stat.rsplit(')').next().context("no fields")?;
        let ticks =
            fields.split_whitespace().skip(11).take(2).filter_map(|f| f.parse::<u64>().ok());
        let number = task.file_name().to_string_lossy().parse()?;
        threads.insert(number, ticks.sum());
    }
    Ok(threads)
}

#[test]
fn readers_at_once_are_served_by_several_threads() -> Result<()> {
    let (_home, _gateway, mount) = site("", 0)?;
    let worker = mount.worker()?;
    let before = fuse_threads(worker)?;
    ensure!(before.len() > 1, "the FUSE threads: {before:?}");
    let path = mount.data().join("a-here");
    let enough = AtomicBool::new(false);
    let busy = thread::scope(|scope| {
        for _ in 0..READERS {
            scope.spawn(|| {
                while !enough.load(Ordering::Relaxed) {
                    assert!(fs::read(&path).is_ok_and(|read| read.len() == LARGE));
                }
            });
        }
        let busy = wait_for("a second thread to serve", || {
            let now = fuse_threads(worker).ok()?;
            let worked = |(thread, ticks): &(&u32, &u64)| {
                before.get(*thread).is_some_and(|before| **ticks > before + 5)
            };
            let busy = now.iter().filter(worked).count();
            (busy > 1).then_some(busy)
        });
        enough.store(true, Ordering::Relaxed);
        busy
    })?;
    ensure!(busy > 1, "{busy}");
    mount.finish()?;
    Ok(())
}

/// More reads wait than there are threads, and what is here is read as ever.
#[test]
fn reads_that_wait_keep_no_thread() -> Result<()> {
    let slow = "heartbeat_s = 1\ngrace_s = 60\nrate_limit = 8000000";
    let (_home, mut gateway, mount) = site(slow, 60 << 20)?;
    gateway.process().stop(Signal::KILL)?;
    let away = mount.data().join("c-away");
    let waiting: Vec<_> = (0..READERS)
        .map(|n| {
            let away = away.clone();
            thread::spawn(move || -> Result<Vec<u8>> {
                let mut bytes = vec![0; 4096];
                File::open(away)?.read_exact_at(&mut bytes, (n * (LARGE / READERS)) as u64)?;
                Ok(bytes)
            })
        })
        .collect();
    let here = dataset::bytes(1, LARGE);
    wait_for("the worker to miss its gateway", || {
        mount.log().contains("no gateway answers").then_some(())
    })?;
    for _ in 0..20 {
        ensure!(fs::read(mount.data().join("a-here"))? == here, "other bytes");
    }
    ensure!(waiting.iter().all(|read| !read.is_finished()), "a read of what is not here ended");
    gateway.restart()?;
    let want = dataset::bytes(3, LARGE);
    for (n, read) in waiting.into_iter().enumerate() {
        let read = read.join().map_err(|_| anyhow::anyhow!("a reader panicked"))??;
        ensure!(read == want[n * (LARGE / READERS)..][..4096], "other bytes");
    }
    mount.finish()?;
    Ok(())
}
