//! Disks that fill up: under the spool, and at home.

use std::fs;

use anyhow::{Context as _, Result, anyhow, ensure};
use rustix::io::Errno;
use rustix::process::Signal;
use sha2::{Digest as _, Sha256};
use tidegate_tests::dataset::{self, Dice};
use tidegate_tests::device::LoopDevice;
use tidegate_tests::process::wait_for;
use tidegate_tests::results::{Desk, Home};
use tidegate_tests::scratch::Scratch;

use super::storm::{Job, PATIENT, Storm, seed};

const ENOSPC: i64 = 28;
/// Files that are more than the spool has reserved, each in one part.
const MANY: usize = 12;
const BESIDE: usize = 12 << 20;
/// What the worker says then.
const FULL: &str = "the disk under the results' spool is full";

#[test]
fn r20_the_disk_under_the_spool_fills_up_while_a_job_writes() -> Result<()> {
    the_disk_fills_up(Home::directory()?)
}

/// Somebody else takes every byte of the disk that the spool lies on, for a while, at some step of the job, while
/// home does not answer: what the spool has reserved is not enough. Writes that cannot be kept
/// say so; what was acknowledged comes home, and once there is room again all goes on.
pub(super) fn the_disk_fills_up(home: Home) -> Result<()> {
    let seed = seed()?;
    let desk = Desk::start(home, PATIENT)?;
    // Every close goes through the spool.
    let args = &["--results-async", "--results-spool", "160MiB"];
    let mut storm = Storm::start(desk, None, Job { device: 260 << 20, args, ..Job::of(seed, 10) })?;
    let step = usize::try_from(3 + Dice::new(seed).below(20))?;
    wait_for("the job to write", || (storm.done() > step).then_some(()))?;
    // In a directory of its own: while a change of names waits for home, the kernel lets nobody else make any there.
    let at = storm.results().join("beside");
    fs::create_dir(&at)?;
    storm.desk.gateway.process().signal(Signal::STOP)?;
    let filler = storm.device.fill()?;
    // Another job on the same mount.
    let bytes = dataset::bytes(seed, BESIDE);
    storm.ever.insert(hex::encode(Sha256::digest(&bytes)));
    let writing = std::thread::spawn(move || -> std::io::Result<()> {
        let names: Vec<_> = (0..MANY).map(|n| at.join(n.to_string())).collect();
        names.iter().try_for_each(|name| fs::write(name, &bytes))?;
        fs::remove_dir_all(at)
    });
    wait_for("it to be felt", || storm.said(FULL).then_some(()))?;
    fs::remove_file(filler)?;
    storm.desk.gateway.process().signal(Signal::CONT)?;
    // There was room in memory, so that it only had to wait.
    writing.join().map_err(|_| anyhow!("the writer panicked"))??;
    let room = storm.done();
    wait_for("the job to go on", || (storm.done() > room + 3 || !storm.writes()).then_some(()))?;
    storm.judge(&[ENOSPC]).with_context(|| format!("seed {seed}"))?;
    Ok(())
}

/// A spool that is smaller than a file, and than what waits for a slow store, only makes writers wait.
#[test]
fn r20_a_small_spool_makes_writers_wait() -> Result<()> {
    let mut home = Home::versitygw()?;
    let trouble = home.troubled()?;
    let desk = Desk::start(home, PATIENT)?;
    let args = ["--results-spool", "40MiB", "--results-async"];
    let mount = desk.mount("one.join", &[], &args)?;
    trouble.slow(std::time::Duration::from_millis(300));
    let bytes = dataset::bytes(1, 100 << 20);
    fs::write(mount.results().join("large"), &bytes)?;
    for n in 0..40 {
        fs::write(mount.results().join(format!("{n}")), &bytes[n << 20..(n + 2) << 20])?;
    }
    trouble.end();
    mount.finish()?;
    let look = desk.home.look()?;
    ensure!(look.read("large")?.as_deref() == Some(&bytes), "large");
    for n in 0..40 {
        let home = look.read(&format!("{n}"))?;
        ensure!(home.as_deref() == Some(&bytes[n << 20..(n + 2) << 20]), "{n}");
    }
    Ok(())
}

/// A home that is full says `ENOSPC`, and takes more once there is room.
#[test]
fn a_full_home_is_enospc() -> Result<()> {
    let scratch = Scratch::new()?;
    let device = LoopDevice::ext4(&scratch, "full", 24 << 20)?;
    let desk = Desk::start(Home::directory_at(&device.path().join("home"))?, PATIENT)?;
    let mount = desk.mount("one.join", &[], &[])?;
    let at = mount.results();
    fs::write(at.join("before"), b"kept")?;
    let filler = device.fill()?;
    let outcome = fs::write(at.join("during"), dataset::bytes(2, 300_000)).err();
    // The last writer learns it from its `close`, which the library does not look at.
    let file = fs::File::create(at.join("synced"))?;
    std::io::Write::write_all(&mut &file, &dataset::bytes(3, 300_000))?;
    let synced = file.sync_all().err().context("a full disk took it")?;
    assert_eq!(Errno::from_io_error(&synced), Some(Errno::NOSPC), "{outcome:?}");
    fs::remove_file(filler)?;
    file.sync_all().context("there is room again")?;
    drop(file);
    let look = desk.home.look()?;
    assert_eq!(look.read("before")?.as_deref(), Some(&b"kept"[..]));
    assert!(look.read("synced")?.as_deref() == Some(&dataset::bytes(3, 300_000)));
    fs::remove_file(at.join("during"))?;
    mount.finish()?;
    Ok(())
}
