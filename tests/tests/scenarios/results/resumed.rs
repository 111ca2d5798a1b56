//! What is at home already does not cross the link again: after a fault, and when few bytes of a file change.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use anyhow::{Result, ensure};
use tidegate_tests::dataset;
use tidegate_tests::process::{signal_pid, wait_for};
use tidegate_tests::results::{Desk, Home};

use super::storm::PATIENT;

const PART: usize = 16 << 20;
const PARTS: usize = 5;

/// Requests of a kind that the store served.
fn served(desk: &Desk, kind: &str) -> usize {
    let log = desk.home.access_log();
    log.lines().filter(|line| line.contains(&format!("s3_{kind} "))).count()
}

/// Gateway and worker die in the middle of an upload; it goes on from where it was.
#[test]
fn an_upload_goes_on_after_gateway_and_worker_were_killed() -> Result<()> {
    let mut home = Home::versitygw()?;
    let trouble = home.troubled()?;
    let mut desk = Desk::start(home, PATIENT)?;
    let mount = desk.mount("one.join", &[], &["--results-async"])?;
    let bytes = dataset::bytes(1, PARTS * PART);
    trouble.slow(Duration::from_millis(700));
    fs::write(mount.results().join("file"), &bytes)?;
    wait_for("a part to be at home", || (served(&desk, "UploadPart") > 0).then_some(()))?;
    desk.gateway.crash_and_restart()?;
    let worker = mount.worker()?;
    signal_pid(worker, rustix::process::Signal::KILL)?;
    wait_for("another worker", || mount.worker().ok().filter(|pid| *pid != worker))?;
    trouble.end();
    let look = desk.home.look()?;
    wait_for("the file to be at home", || look.read("file").ok().flatten().map(drop))?;
    let home = look.read("file")?.unwrap_or_default();
    let same = home.iter().zip(&bytes).take_while(|(home, written)| home == written).count();
    ensure!(home == bytes, "{} bytes at home, the first {same} as written", home.len());
    let (begun, parts) = (served(&desk, "CreateMultipartUpload"), served(&desk, "UploadPart"));
    // Those under way when it happened come twice.
    ensure!(begun == 1 && parts < 2 * PARTS, "{begun} uploads, {parts} parts");
    let receipt = mount.finish()?;
    assert_eq!(receipt["results"]["lost_files"], 0, "{receipt:#}");
    Ok(())
}

/// One byte of a long file changes: one part is sent, the others are copied at home.
#[test]
fn parts_that_did_not_change_are_copied_at_home() -> Result<()> {
    for home in [Home::versitygw()?, Home::directory()?] {
        let desk = Desk::start(home, PATIENT)?;
        let mount = desk.mount("one.join", &[], &[])?;
        let mut bytes = dataset::bytes(1, PARTS * PART);
        fs::write(mount.results().join("file"), &bytes)?;
        let before = served(&desk, "UploadPart");
        let file = fs::File::options().write(true).open(mount.results().join("file"))?;
        file.write_all_at(b"changed", 2 * PART as u64 + 5)?;
        file.sync_all()?;
        drop(file);
        bytes[2 * PART + 5..2 * PART + 12].copy_from_slice(b"changed");
        ensure!(desk.home.look()?.read("file")?.as_deref() == Some(&bytes), "other bytes");
        if !desk.home.is_directory() {
            let (sent, copied) = (served(&desk, "UploadPart"), served(&desk, "UploadPartCopy"));
            assert_eq!(sent - before, 1, "parts sent");
            ensure!((PARTS - 1..=PARTS).contains(&copied), "{copied} parts copied");
        }
        mount.finish()?;
    }
    Ok(())
}
