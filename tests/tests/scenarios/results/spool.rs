//! Disks that fill up: under the spool, and at home.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use rustix::io::Errno;
use tidegate_tests::dataset::{self, Dice};
use tidegate_tests::device::LoopDevice;
use tidegate_tests::process::wait_for;
use tidegate_tests::results::{Desk, Home};
use tidegate_tests::scratch::Scratch;

use super::storm::{Job, PATIENT, Storm, seed};

const ENOSPC: i64 = 28;
/// What the worker says then.
const FULL: &str = "the disk under the results' spool is full";

#[test]
fn r20_the_disk_under_the_spool_fills_up_while_a_job_writes() -> Result<()> {
    the_disk_fills_up(Home::directory()?)
}

/// Somebody else takes every byte of the disk that the spool lies on, for a while, at some step of the job.
/// Writes that cannot be kept say so; what was acknowledged is at home or comes there, and once there is room
/// again all goes on.
pub(super) fn the_disk_fills_up(home: Home) -> Result<()> {
    let seed = seed()?;
    let desk = Desk::start(home, PATIENT)?;
    // Every close goes through the spool.
    let job = Job { device: 72 << 20, args: &["--results-async"], ..Job::of(seed, 10) };
    let storm = Storm::start(desk, None, job)?;
    let step = usize::try_from(3 + Dice::new(seed).below(20))?;
    wait_for("the job to write", || (storm.done() > step).then_some(()))?;
    let filler = storm.device.fill()?;
    wait_for("it to be felt", || storm.said(FULL).then_some(()))?;
    fs::remove_file(filler)?;
    let room = storm.done();
    wait_for("the job to go on", || (storm.done() > room + 3 || !storm.writes()).then_some(()))?;
    ensure!(storm.done() > room, "nothing was acknowledged once there was room again: {room}");
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
