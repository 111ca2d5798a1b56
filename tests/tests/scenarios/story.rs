//! `audit show LEASE`: who asked for what, what left, how it ended, is it gone. From a copy of the
//! ledger, without a gateway.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use tidegate_tests::dataset;
use tidegate_tests::process::{check, signal_pid, wait_for};
use tidegate_tests::programs::{GatewayProgram, MountProgram, lease_of, succeed};
use tidegate_tests::scratch::Scratch;
use tidegate_tests::tidegate::tidegate;
use tidegate_tests::wan::Wan;

const QUICK: &str = "heartbeat_s = 1\ngrace_s = 4\nsilence_s = 4\n";

struct Site {
    home: Scratch,
    gateway: GatewayProgram,
    wan: Wan,
    copy: Scratch,
}

impl Site {
    fn new(extra: &str) -> Result<Self> {
        let home = Scratch::new()?;
        dataset::flat(home.path(), 3, 3 << 20, 80)?;
        let wan = Wan::start(Duration::from_millis(20), 1_000_000_000)?;
        let gateway =
            GatewayProgram::start_at(wan.home(), &home.path().display().to_string(), extra)?;
        Ok(Self { home, gateway, wan, copy: Scratch::new()? })
    }

    fn lease(&self) -> Result<PathBuf> {
        let from = self.home.path().display().to_string();
        let part = ["--from", &from, "--select", "0000*.bin", "--exclude", "00002.bin"];
        self.gateway.lease("one.join", part)
    }

    /// A copy of the ledger alone, elsewhere.
    fn copied(&self) -> Result<PathBuf> {
        let to = self.copy.join("ledger");
        let _ = fs::remove_dir_all(&to);
        check(Command::new("cp").arg("-a").arg(self.gateway.state().join("ledger")).arg(&to))?;
        Ok(self.copy.path().to_owned())
    }

    fn until(&self, join: &Path, phase: &str) -> Result<()> {
        wait_for(phase, || {
            self.gateway.show(join).ok().filter(|shown| shown["phase"] == phase).map(drop)
        })
        .with_context(|| self.gateway.log())
    }
}

fn show(ledger: &Path, lease: &str, options: &[&str]) -> Result<String> {
    let mut words: Vec<OsString> = options.iter().map(OsString::from).collect();
    words.extend(["audit", "show", "--ledger"].map(OsString::from));
    words.extend([ledger.into(), lease.into()]);
    succeed(tidegate(words)?)
}

/// The story without its line breaks; holds the words in this order.
fn assert_tells(ledger: &Path, lease: &str, words: &[&str]) -> Result<String> {
    let story = show(ledger, lease, &[])?;
    let flat = story.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut rest = flat.as_str();
    for word in words {
        let at =
            rest.find(word).with_context(|| format!("{word:?} is not (there) in:\n{story}"))?;
        rest = &rest[at + word.len()..];
    }
    Ok(story)
}

#[test]
fn of_a_lease_that_was_wiped() -> Result<()> {
    let site = Site::new("key_epoch_s = 3\n")?;
    let join = site.lease()?;
    let lease = lease_of(&join)?;
    let mount = MountProgram::start_at(site.wan.cloud(), &join, &[])?;
    fs::read(mount.data().join("00001.bin"))?;
    let open = site.copied()?;
    assert_tells(&open, &lease, &["(open)", "nothing is gone yet"])?;
    mount.finish()?;
    // The period of the key that wrapped the lease's key is over soon after.
    wait_for("the period's key to be destroyed", || {
        let list = tidegate([
            "audit".as_ref(),
            "list".as_ref(),
            "--ledger".as_ref(),
            site.gateway.state().as_os_str(),
        ]);
        succeed(list.ok()?).ok()?.contains("key-encryption key").then_some(())
    })?;
    let copy = site.copied()?;
    assert_tells(
        &copy,
        &lease,
        &[
            "(closed, wiped)",
            "Asked for by uid 0, admin socket",
            &format!("From {}", site.home.path().display()),
            "Which part what matches 0000*.bin; without 00002.bin",
            "How much 2 files, 6.0 MiB",
            "The lease was granted: 2 files",
            "out of 3 files",
            "A worker for share 0 joined",
            "Its machine, by its own word: host",
            "Release 1: keys of",
            "stated, signed, that it destroyed its keys",
            "closed as WIPED",
            "Keys that open at most",
            "crossed the line, sealed",
            "Seen by the gateway: - The gateway destroyed the lease's key at",
            "looked for and not found",
            "backups of the gateway open nothing of it",
            "Stated by the workers",
            "overwritten",
            "Not confirmed",
        ],
    )?;
    // Before the closing or after it, as the period happened to end.
    let period = ["The key under which this lease's key was stored", "was destroyed", "What left"];
    assert_tells(&copy, &lease, &period)?;
    let document: Value = serde_json::from_str(&show(&copy, &lease, &["--json"])?)?;
    assert_eq!(document["state"], "wiped", "{document:#}");
    assert_eq!(document["certificates"][0]["lease"], lease.as_str());
    ensure!(document["entries"].as_array().map(Vec::len) >= Some(5), "{document:#}");
    // What a data subject had erased is said to be erased, and the ledger still verifies.
    for document in fs::read_dir(copy.join("ledger/documents"))? {
        fs::remove_file(document?.path())?;
    }
    assert_tells(
        &copy,
        &lease,
        &["Asked for by (erased)", "From (erased)", "documents beside the ledger were erased"],
    )?;
    let verify = ["audit".as_ref(), "verify".as_ref(), "--ledger".as_ref(), copy.as_os_str()];
    succeed(tidegate(verify)?)?;
    Ok(())
}

#[test]
fn of_a_lease_whose_worker_vanished() -> Result<()> {
    let site = Site::new(QUICK)?;
    let join = site.lease()?;
    let mut mount = MountProgram::start_at(site.wan.cloud(), &join, &[])?;
    fs::read(mount.data().join("00000.bin"))?;
    let worker = mount.worker()?;
    mount.process().stop(Signal::KILL)?;
    let _ = signal_pid(worker, Signal::KILL);
    site.until(&join, "withdrawn")?;
    let story = assert_tells(
        &site.copied()?,
        &lease_of(&join)?,
        &[
            "(closed, withdrawn)",
            "Release 1: keys of",
            "ended without stating a wipe",
            "closed as WITHDRAWN",
            "Seen by the gateway",
            "looked for and not found",
            "Stated by the workers, not checked by anybody: - nothing",
            "Not confirmed",
            "never stated a wipe",
            "must be taken as known to whoever had that machine",
        ],
    )?;
    ensure!(!story.contains("WIPED"), "{story}");
    Ok(())
}

#[test]
fn of_a_lease_that_was_taken_away() -> Result<()> {
    let site = Site::new(QUICK)?;
    let join = site.lease()?;
    let mut mount = MountProgram::start_at(site.wan.cloud(), &join, &[])?;
    fs::read(mount.data().join("00000.bin"))?;
    site.gateway.revoke(&join)?;
    mount.process().wait()?;
    site.until(&join, "wiped")?;
    assert_tells(
        &site.copied()?,
        &lease_of(&join)?,
        &[
            "(closed, wiped)",
            "Release 1: keys of",
            "uid 0, admin socket took away this lease",
            "stated, signed",
            "closed as WIPED",
        ],
    )?;
    Ok(())
}
