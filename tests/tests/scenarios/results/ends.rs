//! The end waits for the results; what could not be brought home is named.

use std::ffi::OsString;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::io::Errno;
use rustix::process::Signal;
use serde_json::{Value, json};
use tidegate_tests::dataset;
use tidegate_tests::process::{Process, command_line, signal_pid, wait_for};
use tidegate_tests::programs::{MountProgram, lease_of, succeed};
use tidegate_tests::results::{Desk, Home};
use tidegate_tests::scratch::Scratch;
use tidegate_tests::tidegate::{receipt, tidegate};
use tidegate_tests::trouble::Trouble;

use super::storm::PATIENT;

const RESULTS_LOST: i32 = 122;
const LEASE_LOST: i32 = 124;

/// A run whose results go to a store that makes trouble, in the middle of its job: `brought` is at home and
/// the store away; two more files are written then.
struct Halfway {
    desk: Desk,
    join: std::path::PathBuf,
    trouble: Trouble,
    run: Process,
    scratch: Scratch,
}

impl Halfway {
    /// `then` is what the job does after it wrote `second` and `dir/third`.
    fn start(terms: &str, then: &str) -> Result<Self> {
        let mut home = Home::versitygw()?;
        let trouble = home.troubled()?;
        let desk = Desk::start(home, terms)?;
        let join = desk.lease("one.join", &[])?;
        let run = desk.run(&join)?.arg("--results-async");
        let made = run.scratch().dir("made")?;
        fs::write(made.join("brought"), "brought\n")?;
        fs::write(made.join("second"), "second\n")?;
        fs::write(made.join("third"), vec![7; 3_000_000])?;
        let [away, written] = ["away", "written"].map(|name| run.scratch().join(name));
        let script = format!(
            "cd \"$TIDEGATE_RESULTS\"; cp '{made}/brought' .; \
             until test -e '{}'; do sleep 0.02; done; \
             cp '{made}/second' .; mkdir dir; cp '{made}/third' dir; touch '{}'; {then}",
            away.display(),
            written.display(),
            made = made.display(),
        );
        let (mut run, scratch) = run.shell(&script).start()?;
        let look = desk.home.look()?;
        run.wait_ready(|_| look.read("brought").is_ok_and(|bytes| bytes.is_some()))?;
        trouble.refuse(100);
        fs::write(away, "")?;
        run.wait_ready(|_| written.exists())?;
        Ok(Self { desk, join, trouble, run, scratch })
    }

    /// Everywhere it should be said, it is said that these two are lost.
    fn names_what_is_lost(&mut self, code: i32) -> Result<()> {
        let status = self.run.wait()?;
        let log = self.run.log();
        assert_eq!(status.code(), Some(code), "{log}");
        for name in ["second", "dir/third"] {
            ensure!(log.contains(name), "{name} is not named:\n{log}");
        }
        ensure!(!log.contains("LOST        brought"), "{log}");
        let receipt = receipt(&self.scratch)?;
        let names = |list: &Value| -> Vec<String> {
            let list = list.as_array().cloned().unwrap_or_default();
            let mut names: Vec<_> =
                list.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect();
            names.sort();
            names
        };
        let want = ["dir/third", "second"];
        assert_eq!(names(&receipt["results"]["lost"]), want, "{receipt:#}");
        let stated = &receipt["certificate"]["stated"]["results"];
        assert_eq!(names(&stated["lost"]), want, "{receipt:#}");
        assert_eq!(stated["lost_files"], 2, "{receipt:#}");
        assert_eq!(receipt["outcome"], "wiped", "the wipe itself is whole: {receipt:#}");
        let entries = self.desk.entries(&self.join)?;
        let lost: Vec<_> = entries.iter().filter(|it| it["event"]["act"] == "lost").collect();
        ensure!(lost.len() == 1 && lost[0]["event"]["files"] == 2, "{entries:#?}");
        let lease = lease_of(&self.join)?;
        let words = ["audit", "show", "--ledger"].map(OsString::from);
        let words = words.into_iter().chain([self.desk.ledger().into(), lease.into()]);
        let shown = succeed(tidegate(words)?)?;
        for name in want {
            ensure!(shown.contains(name), "{name} is not in the story:\n{shown}");
        }
        self.trouble.end();
        let look = self.desk.home.look()?;
        // Of what is named some may have come home without the store's word for it: then it is whole.
        let written = [("second", b"second\n".to_vec()), ("dir/third", vec![7; 3_000_000])];
        for (path, bytes) in written {
            let home = look.read(path)?;
            ensure!(home.is_none_or(|home| home == bytes), "{path} is half at home");
        }
        assert_eq!(look.read("brought")?.as_deref(), Some(&b"brought\n"[..]));
        Ok(())
    }
}

#[test]
fn r27_what_a_drain_deadline_cuts_off_is_named() -> Result<()> {
    let terms = format!("{PATIENT}\nresults.drain_s = 3");
    Halfway::start(&terms, "exit 0")?.names_what_is_lost(RESULTS_LOST)
}

#[test]
fn r27_thousands_of_lost_files_are_all_named() -> Result<()> {
    const FILES: usize = 3000;
    let mut home = Home::versitygw()?;
    let trouble = home.troubled()?;
    let desk = Desk::start(home, &format!("{PATIENT}\nresults.drain_s = 3"))?;
    let join = desk.lease("one.join", &[])?;
    let mut mount = MountProgram::with_results(&join, &["--results-async"])?;
    trouble.refuse(100);
    // A statement of them is longer than any other request.
    let path = |n: usize| format!("step-{n:0100}");
    for n in 0..FILES {
        fs::write(mount.results().join(path(n)), n.to_string())?;
    }
    let status = mount.process().stop(Signal::TERM)?;
    assert_eq!(status.code(), Some(RESULTS_LOST), "{}", mount.log());
    let receipt = mount.receipt()?;
    let all: Vec<_> = (0..FILES).map(path).collect();
    assert_eq!(receipt["outcome"], "wiped", "the wipe itself is whole");
    let stated = &receipt["certificate"]["stated"]["results"];
    assert_eq!(stated["lost_files"], FILES);
    ensure!(stated["lost"] == json!(all), "the certificate names others");
    ensure!(receipt["results"]["lost"] == json!(all), "the receipt names others");
    let entries = desk.entries(&join)?;
    let lost = entries.iter().filter(|it| it["event"]["act"] == "lost");
    let files: u64 = lost.filter_map(|it| it["event"]["files"].as_u64()).sum();
    assert_eq!(files, FILES as u64, "in the ledger");
    for name in [&all[0], &all[FILES - 1]] {
        let words = ["audit", "show", "--ledger"].map(OsString::from);
        let words = words.into_iter().chain([desk.ledger().into(), name.into()]);
        let shown = succeed(tidegate(words)?)?;
        ensure!(shown.contains("did not come home"), "{shown}");
    }
    Ok(())
}

#[test]
fn r27_the_command_s_own_code_wins_over_what_is_lost() -> Result<()> {
    let terms = format!("{PATIENT}\nresults.drain_s = 1");
    Halfway::start(&terms, "exit 7")?.names_what_is_lost(7)
}

#[test]
fn a_revoked_lease_takes_nothing_more_and_names_what_is_lost() -> Result<()> {
    let mut halfway = Halfway::start(PATIENT, "sleep 100")?;
    halfway.desk.gateway.revoke(&halfway.join)?;
    halfway.names_what_is_lost(LEASE_LOST)
}

/// Nobody speaks for a machine that is gone: the ledger says how much was not at home when it was last heard.
#[test]
fn of_a_machine_that_is_gone_the_ledger_says_how_much_it_had() -> Result<()> {
    let mut home = Home::versitygw()?;
    let trouble = home.troubled()?;
    let desk = Desk::start(home, "heartbeat_s = 1\ngrace_s = 3\nsilence_s = 6")?;
    let join = desk.lease("one.join", &[])?;
    let mut mount = MountProgram::with_results(&join, &["--results-async"])?;
    trouble.refuse(100);
    fs::write(mount.results().join("file"), dataset::bytes(29, 3_000_000))?;
    wait_for("a heartbeat that says so", || {
        let shown = desk.gateway.show(&join).ok()?;
        (shown["workers"][0]["counters"]["results_unsent"] == 3_000_000).then_some(())
    })?;
    let worker = mount.worker()?;
    mount.process().signal(Signal::KILL)?;
    signal_pid(worker, Signal::KILL)?;
    wait_for("the lease to be closed", || {
        let shown = desk.gateway.show(&join).ok()?;
        (shown["phase"] == "withdrawn").then_some(())
    })?;
    let words = ["audit", "show", "--ledger"].map(OsString::from);
    let words = words.into_iter().chain([desk.ledger().into(), lease_of(&join)?.into()]);
    let shown = succeed(tidegate(words)?)?.split_whitespace().collect::<Vec<_>>().join(" ");
    ensure!(shown.contains("(3000000 bytes) of its results were not at home"), "{shown}");
    Ok(())
}

/// The store comes back within the deadline: nothing is lost, and the run has waited.
#[test]
fn r26_an_end_waits_for_a_store_that_is_away() -> Result<()> {
    let mut halfway = Halfway::start(PATIENT, "exit 7")?;
    std::thread::sleep(Duration::from_secs(2));
    ensure!(receipt(&halfway.scratch).is_err(), "it did not wait");
    halfway.trouble.end();
    let status = halfway.run.wait()?;
    assert_eq!(status.code(), Some(7), "{}", halfway.run.log());
    let receipt = receipt(&halfway.scratch)?;
    assert_eq!(receipt["results"]["lost"].as_array().map(Vec::len), Some(0), "{receipt:#}");
    assert_eq!(receipt["results"]["files"], 3, "{receipt:#}");
    let look = halfway.desk.home.look()?;
    assert_eq!(look.read("second")?.as_deref(), Some(&b"second\n"[..]));
    assert_eq!(look.read("dir/third")?.map(|bytes| bytes.len()), Some(3_000_000));
    ensure!(look.unfinished()?.is_empty(), "{:?}", look.unfinished()?);
    Ok(())
}

/// A lease that is drained from home ends once nobody uses the mount, with its results.
#[test]
fn a_drained_lease_brings_its_results_home() -> Result<()> {
    let desk = Desk::start(Home::directory()?, PATIENT)?;
    let join = desk.lease("one.join", &[])?;
    let args = ["--results-async"];
    let mut mount = MountProgram::with_results(&join, &args)?;
    let file = fs::File::create(mount.results().join("file"))?;
    desk.gateway.drain(&join)?;
    wait_for("the lease to drain", || {
        let shown = desk.gateway.show(&join).ok()?;
        (shown["phase"] == "draining").then_some(())
    })?;
    // Writing goes on for whoever has it open.
    std::io::Write::write_all(&mut &file, &[7; 70_000]).context("while it drains")?;
    drop(file);
    let status = mount.process().wait()?;
    ensure!(status.success(), "{status}: {}", mount.log());
    assert_eq!(desk.home.look()?.read("file")?, Some(vec![7; 70_000]));
    assert_eq!(desk.gateway.show(&join)?["phase"], "wiped");
    Ok(())
}

/// What nobody closed comes home as it is when the mount is ended.
#[test]
fn r26_files_that_nobody_closed_come_home() -> Result<()> {
    let desk = Desk::start(Home::directory()?, PATIENT)?;
    let mut mount = desk.mount("one.join", &[], &[])?;
    let mut file = fs::File::create(mount.results().join("open"))?;
    std::io::Write::write_all(&mut file, &dataset::bytes(26, 2_500_000))?;
    let look = desk.home.look()?;
    assert_eq!(look.read("open")?, None);
    let status = mount.process().stop(Signal::TERM)?;
    // A file still open may keep the wipe from being whole.
    ensure!(matches!(status.code(), Some(0 | 123)), "{status}: {}", mount.log());
    ensure!(look.read("open")?.as_deref() == Some(&dataset::bytes(26, 2_500_000)), "not at home");
    drop(file);
    Ok(())
}

#[test]
fn r25_after_the_end_of_the_lease_everything_is_eio() -> Result<()> {
    let desk = Desk::start(Home::directory()?, PATIENT)?;
    let join = desk.lease("one.join", &[])?;
    let mut mount = MountProgram::with_results(&join, &[])?;
    fs::write(mount.results().join("kept"), b"kept")?;
    let mut file = fs::File::create(mount.results().join("open"))?;
    std::io::Write::write_all(&mut file, b"bytes")?;
    desk.gateway.revoke(&join)?;
    let error = wait_for("writes to fail", || {
        std::io::Write::write_all(&mut file, b"more").and_then(|()| file.sync_all()).err()
    })?;
    // Once it is taken away nobody answers at all.
    let errno = Errno::from_io_error(&error);
    ensure!(matches!(errno, Some(Errno::IO | Errno::NOTCONN | Errno::CONNABORTED)), "{error}");
    drop(file);
    mount.process().wait()?;
    let receipt = mount.receipt()?;
    assert_eq!(receipt["results"]["lost"], json!(["open"]), "{receipt:#}");
    assert_eq!(desk.home.look()?.read("kept")?.as_deref(), Some(&b"kept"[..]));
    Ok(())
}

/// The worker of a holder that was killed brings home what it has, for a while.
#[test]
fn r28_a_worker_without_its_holder_brings_results_home() -> Result<()> {
    let mut home = Home::versitygw()?;
    let trouble = home.troubled()?;
    let desk = Desk::start(home, PATIENT)?;
    let mut mount = desk.mount("one.join", &[], &["--results-async"])?;
    trouble.refuse(100);
    fs::write(mount.results().join("file"), dataset::bytes(28, 3_000_000))?;
    let worker = mount.worker()?;
    mount.process().stop(Signal::KILL)?;
    trouble.end();
    let look = desk.home.look()?;
    wait_for("it to come home", || look.read("file").ok().flatten().map(drop))?;
    ensure!(look.read("file")?.as_deref() == Some(&dataset::bytes(28, 3_000_000)), "other bytes");
    wait_for("the worker to end", || command_line(worker).is_empty().then_some(()))?;
    Ok(())
}
