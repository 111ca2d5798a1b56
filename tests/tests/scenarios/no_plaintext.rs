//! P2 and P6: no plaintext on the device, in a core image or on the wire; after the wipe no sealed
//! byte either. Shown with canaries, on raw bytes.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use tidegate_tests::canary::{Canary, core_image, count};
use tidegate_tests::dataset;
use tidegate_tests::device::LoopDevice;
use tidegate_tests::held::Held;
use tidegate_tests::process::{descendants, signal_pid};
use tidegate_tests::scratch::Scratch;
use tidegate_tests::tidegate::Run;
use tidegate_tests::wire::Capture;

const FILES: usize = 6;
const FILE_LEN: usize = (5 << 20) + 1234;

/// Files that are nothing but the canary, small and large, and one under a telling name.
fn plant() -> Result<(Scratch, Canary)> {
    let (home, canary) = (Scratch::new()?, Canary::new()?);
    for n in 0..FILES {
        dataset::write(home.path(), format!("large-{n}"), &canary.fill(FILE_LEN))?;
        dataset::write(home.path(), format!("small/{n}"), &canary.fill(40_000))?;
    }
    Ok((home, canary))
}

/// Reads through the mount so that plaintext is in every buffer there is.
fn read_some(held: &Held) -> Result<()> {
    for n in 0..FILES {
        let file = File::open(held.data().join(format!("large-{n}")))?;
        let mut bytes = vec![0; 1 << 20];
        file.read_exact_at(&mut bytes, 1 << 20)?;
        file.read_exact_at(&mut bytes[..777], 5)?;
        ensure!(fs::read(held.data().join(format!("small/{n}")))?.len() == 40_000, "a short read");
    }
    Ok(())
}

/// Sealed bytes as they lie in the cache: the first chunks of some slots.
fn sealed_samples(cache: &std::path::Path) -> Result<Vec<Vec<u8>>> {
    let mut samples = Vec::new();
    for entry in fs::read_dir(cache)? {
        let path = entry?.path();
        let Ok(file) = File::open(&path) else { continue };
        let len = file.metadata()?.len();
        let mut at = 64 << 10;
        while at + 64 < len {
            let mut sample = vec![0; 64];
            file.read_exact_at(&mut sample, at)?;
            if sample.iter().filter(|byte| **byte == 0).count() < 16 {
                samples.push(sample);
            }
            at += 1 << 20;
        }
    }
    Ok(samples)
}

#[test]
fn killed_mid_read_leaves_no_plaintext_anywhere() -> Result<()> {
    let (home, canary) = plant()?;
    let scratch = Scratch::new()?;
    let device = LoopDevice::ext4(&scratch, "cache", 96 << 20)?;
    let capture = Capture::start(&scratch)?;
    let mut held = Held::start(Run::from_dir(home.path())?.arg("--cache").arg(device.path()))?;
    read_some(&held)?;
    let worker = held.worker()?;
    let image = core_image(worker, &scratch)?;
    let samples = sealed_samples(device.path())?;
    assert!(!samples.is_empty(), "the cache holds sealed blocks");

    // Everything at once, in the middle of a read: nobody gets to clean up.
    let reading = held.data().join("large-0");
    let reader = std::thread::spawn(move || fs::read(reading).map(|bytes| bytes.len()));
    let family = descendants(held.pid());
    signal_pid(held.pid(), Signal::KILL)?;
    for pid in family {
        // The job and the worker may have ended with their parent.
        let _ = signal_pid(pid, Signal::KILL);
    }
    held.process().wait()?;
    drop(reader.join());

    let raw = device.raw()?;
    assert!(count(raw, &samples[0])? > 0, "the scan sees the sealed blocks");
    assert_eq!(canary.count_in(raw)?, 0, "plaintext on the raw device");
    assert_eq!(canary.count_in(&image)?, 0, "plaintext in the worker's core image");
    let wire = capture.stop()?;
    assert!(fs::metadata(&wire)?.len() > (FILES * FILE_LEN) as u64, "the capture saw the blocks");
    assert_eq!(canary.count_in(&wire)?, 0, "plaintext on the wire");
    for name in ["tidegate.log", "ledger", "tmp"] {
        let path = held.scratch().join(name);
        for file in files_below(&path)? {
            assert_eq!(canary.count_in(&file)?, 0, "plaintext in {}", file.display());
        }
    }
    let mounts = held.scratch().mounts()?;
    assert!(mounts.is_empty(), "still mounted: {mounts:?}");
    Ok(())
}

#[test]
fn after_a_clean_wipe_no_sealed_byte_is_left() -> Result<()> {
    let (home, canary) = plant()?;
    let scratch = Scratch::new()?;
    let device = LoopDevice::ext4(&scratch, "cache", 96 << 20)?;
    let held = Held::start(Run::from_dir(home.path())?.arg("--cache").arg(device.path()))?;
    read_some(&held)?;
    let samples = sealed_samples(device.path())?;
    ensure!(samples.len() >= 3, "only {} samples of sealed blocks", samples.len());
    for sample in &samples {
        assert!(count(device.raw()?, sample)? > 0, "the scan sees the sealed blocks");
    }
    let keys_in = |scratch: &Scratch| files_below(&scratch.join("ledger/keyring/leases"));
    assert_eq!(keys_in(held.scratch())?.len(), 1, "the wrapped key of this lease");
    let (run, receipt) = held.finish()?;
    assert_eq!(receipt["outcome"], "wiped");
    assert_eq!(receipt["certificate"]["stated"]["facts"]["cache_fs"], "ext4");
    let raw = device.raw()?;
    for sample in &samples {
        assert_eq!(count(raw, sample)?, 0, "a sealed block survived the wipe");
    }
    assert_eq!(canary.count_in(raw)?, 0);
    let left: Vec<_> = fs::read_dir(device.path())?
        .flatten()
        .map(|entry| entry.file_name())
        .filter(|name| name != "lost+found")
        .collect();
    assert!(left.is_empty(), "left on the device: {left:?}");
    // The wrapped lease key is gone from the state, and its history holds no key.
    assert_eq!(keys_in(&run)?, Vec::<PathBuf>::new());
    Ok(())
}

/// A worker that crashes leaves no core image even where the limits would allow one.
#[test]
fn a_crashing_worker_writes_no_core() -> Result<()> {
    let (home, _) = plant()?;
    let run =
        Run::from_dir(home.path())?.under(["sh", "-c", "ulimit -c unlimited; exec \"$@\"", "sh"]);
    let held = Held::start(run)?;
    read_some(&held)?;
    let worker = held.worker()?;
    let limits = fs::read_to_string(format!("/proc/{worker}/limits"))?;
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .context("no core limit")?;
    assert!(core.split_whitespace().nth(4) == Some("0"), "{core}");
    signal_pid(worker, Signal::ABORT)?;
    tidegate_tests::process::wait_for("another worker", || {
        held.worker().ok().filter(|pid| *pid != worker)
    })?;
    read_some(&held)?;
    let (scratch, receipt) = held.finish()?;
    assert_eq!(receipt["outcome"], "wiped");
    let cores: Vec<_> = files_below(scratch.path())?
        .into_iter()
        .filter(|file| {
            file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("core"))
        })
        .collect();
    assert!(cores.is_empty(), "{cores:?}");
    Ok(())
}

fn files_below(path: &std::path::Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![path.to_owned()];
    while let Some(path) = open.pop() {
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        if meta.is_dir() {
            for entry in fs::read_dir(&path)? {
                open.push(entry?.path());
            }
        } else if meta.is_file() {
            found.push(path);
        }
    }
    Ok(found)
}
