//! P2 and P6 for what a job writes: no plaintext on the device or on the wire, and after the end no sealed byte
//! and no key either. Shown with canaries, on raw bytes.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use tidegate_tests::canary::{Canary, count};
use tidegate_tests::device::LoopDevice;
use tidegate_tests::process::{signal_pid, wait_for};
use tidegate_tests::results::{Desk, Home};
use tidegate_tests::scratch::Scratch;
use tidegate_tests::wire::Capture;

use super::storm::PATIENT;

const FILE_LEN: usize = (18 << 20) + 1234;

/// Sealed bytes as they lie in the spool: a few of each slot.
fn sealed_samples(folder: &Path) -> Result<Vec<Vec<u8>>> {
    let spool = fs::read_dir(folder)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|end| end == "spool"))
        .context("there is no spool")?;
    let file = File::open(spool)?;
    let len = file.metadata()?.len();
    let mut samples = Vec::new();
    for at in (64 << 10..len).step_by(1 << 20) {
        let mut sample = vec![0; 64];
        let read = file.read_at(&mut sample, at)?;
        if read == 64 && sample.iter().filter(|byte| **byte == 0).count() < 16 {
            samples.push(sample);
        }
    }
    Ok(samples)
}

#[test]
fn what_a_job_writes_is_nowhere_in_clear_and_no_sealed_byte_outlives_the_wipe() -> Result<()> {
    let (scratch, canary) = (Scratch::new()?, Canary::new()?);
    let device = LoopDevice::ext4(&scratch, "disk", 160 << 20)?;
    let desk = Desk::start(Home::directory()?, PATIENT)?;
    let capture = Capture::start(&scratch)?;
    let cache = device.path().display().to_string();
    let args = ["--cache", &cache, "--cache-size", "8MiB", "--results-async"];
    let mount = desk.mount("one.join", &[], &args)?;
    let body = canary.fill(FILE_LEN);
    for n in 0..3 {
        fs::write(mount.results().join(format!("large-{n}")), &body)?;
        fs::write(mount.results().join(format!("small-{n}")), canary.fill(40_000))?;
    }
    // One is open, and some of it was read again.
    let mut open = File::create(mount.results().join("open"))?;
    open.write_all(&body)?;
    ensure!(fs::read(mount.results().join("large-1"))? == body, "other bytes");
    let samples = sealed_samples(device.path())?;
    ensure!(samples.len() >= 3, "only {} samples of sealed blocks", samples.len());
    for sample in &samples {
        ensure!(count(device.raw()?, sample)? > 0, "the scan does not see the sealed blocks");
    }
    // A successor takes the spool up, and wipes it as its own.
    let worker = mount.worker()?;
    signal_pid(worker, Signal::KILL)?;
    wait_for("another worker", || mount.worker().ok().filter(|pid| *pid != worker))?;
    assert_eq!(canary.count_in(device.raw()?)?, 0, "plaintext on the raw device");
    drop(open);
    let receipt = {
        let mut mount = mount;
        mount.process().stop(Signal::TERM)?;
        mount.receipt()?
    };
    assert_eq!(receipt["outcome"], "wiped", "{receipt:#}");
    let wire = capture.stop()?;
    ensure!(fs::metadata(&wire)?.len() > 3 * FILE_LEN as u64, "the capture did not see the files");
    assert_eq!(canary.count_in(&wire)?, 0, "plaintext on the wire");
    let raw = device.raw()?;
    assert_eq!(canary.count_in(raw)?, 0, "plaintext on the raw device after the end");
    for sample in &samples {
        assert_eq!(count(raw, sample)?, 0, "a sealed block survived the wipe");
    }
    let left: Vec<_> = fs::read_dir(device.path())?
        .flatten()
        .map(|entry| entry.file_name())
        .filter(|name| name != "lost+found")
        .collect();
    ensure!(left.is_empty(), "left on the device: {left:?}");
    // The key to which every content's key was sealed came of the lease's, which is gone.
    let keys = fs::read_dir(desk.ledger().join("keyring/leases"))?.count();
    assert_eq!(keys, 0, "the wrapped key of the lease is there");
    Ok(())
}
