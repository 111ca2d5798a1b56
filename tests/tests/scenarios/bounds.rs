//! P11: memory stays within what was said, under load.

use std::fs;

use anyhow::{Context as _, Result};
use tidegate_tests::dataset;
use tidegate_tests::digest;
use tidegate_tests::held::Held;
use tidegate_tests::scratch::Scratch;
use tidegate_tests::tidegate::Run;

/// Bytes for all buffers: the least there is.
const BUDGET: u64 = 16 << 20;
/// Program, stacks, TLS, manifest: what is no buffer.
const BESIDE: u64 = 32 << 20;

/// The worker's peak resident bytes.
fn peak(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).context("no VmHWM")?;
    let kib: u64 = line.split_whitespace().nth(1).context("no number")?.parse()?;
    Ok(kib << 10)
}

#[test]
fn the_worker_stays_within_its_memory_budget() -> Result<()> {
    let home = Scratch::new()?;
    dataset::flat(home.path(), 30, 8 << 20, 500)?;
    let run = Run::from_dir(home.path())?.args(["--memory", "16MiB", "--cache-size", "64MiB"]);
    let held = Held::start(run)?;
    let want = digest::contents(home.path())?;
    std::thread::scope(|scope| {
        let readers: Vec<_> =
            (0..6).map(|_| scope.spawn(|| digest::contents(held.data()))).collect();
        for reader in readers {
            let got = reader.join().map_err(|_| anyhow::anyhow!("a reader panicked"))??;
            digest::assert_same(&want, &got);
        }
        anyhow::Ok(())
    })?;
    let peak = peak(held.worker()?)?;
    assert!(peak < BUDGET + BESIDE, "{} MiB resident at most", peak >> 20);
    held.finish()?;
    Ok(())
}
