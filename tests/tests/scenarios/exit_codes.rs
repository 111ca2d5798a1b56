//! Exit codes as `tidegate --help` documents them.

use anyhow::{Context as _, Result};
use rustix::process::Signal;
use tidegate_tests::dataset;
use tidegate_tests::device::LoopDevice;
use tidegate_tests::held::Held;
use tidegate_tests::process::signal_pid;
use tidegate_tests::scratch::Scratch;
use tidegate_tests::tidegate::{Run, receipt, tidegate};

fn small_home() -> Result<Scratch> {
    let home = Scratch::new()?;
    dataset::write(home.path(), "file", b"content")?;
    Ok(home)
}

#[test]
fn the_command_s_own_code_comes_back_after_the_wipe() -> Result<()> {
    let home = small_home()?;
    for code in [0, 1, 42, 255] {
        let outcome = Run::from_dir(home.path())?.shell(&format!("exit {code}")).finish()?;
        outcome.expect_code(code)?;
        assert_eq!(outcome.receipt()?["outcome"], "wiped");
    }
    Ok(())
}

#[test]
fn a_command_that_is_not_there_or_cannot_run_or_is_killed() -> Result<()> {
    let home = small_home()?;
    let cases: [(&[&str], i32); 4] = [
        (&["no-such-command-anywhere"], 127),
        (&["/etc/hostname"], 126),
        (&["sh", "-c", "kill -9 $$"], 128 + 9),
        (&["sh", "-c", "kill -TERM $$"], 128 + 15),
    ];
    for (words, code) in cases {
        let outcome = Run::from_dir(home.path())?.job(words).finish()?;
        outcome.expect_code(code).with_context(|| format!("{words:?}"))?;
        // Nothing leaves for a command that is not there: then there is no lease and no receipt.
        if code > 128 {
            assert_eq!(outcome.receipt()?["outcome"], "wiped", "{words:?}");
        } else {
            outcome.expect_message(words)?;
        }
        let left = std::fs::read_dir(outcome.cache())?.count();
        assert_eq!(left, 0, "{words:?}");
    }
    Ok(())
}

/// A receipt that cannot be written is refused before anything leaves; one that fails at the end is
/// said, and the command's code stands.
#[test]
fn a_receipt_that_cannot_be_written_costs_neither_code_nor_wipe() -> Result<()> {
    let (home, scratch) = (small_home()?, Scratch::new()?);
    let run = || Run::from_dir(home.path());
    let refused =
        run()?.arg("--receipt").arg(scratch.join("no/such/folder")).keep_last("--receipt");
    let refused = refused.shell("exit 42").finish()?;
    refused.expect_code(2)?;
    refused.expect_message(&["--receipt"])?;
    assert!(std::fs::read_dir(refused.ledger())?.next().is_none(), "a lease was granted");

    let device = LoopDevice::ext4(&scratch, "full", 16 << 20)?;
    device.fill()?;
    let full = run()?.arg("--receipt").arg(device.path().join("receipt")).keep_last("--receipt");
    let full = full.shell("exit 42").finish()?;
    full.expect_code(42)?;
    full.expect_message(&["cannot write the receipt", "wiped"])?;
    full.expect_nothing_left()?;
    assert_eq!(std::fs::read_dir(full.ledger().join("gateways"))?.count(), 0, "no shutdown");

    let early = run()?.args(["--select", "nothing"]).job(["true"]).finish()?;
    assert!(!early.status.success() && !early.scratch.join("receipt.json").exists());
    Ok(())
}

/// What the command leaves running is ended before the wipe, and said.
#[test]
fn what_outlives_the_command_is_ended() -> Result<()> {
    let home = small_home()?;
    let script = "setsid sh -c 'exec 3< \"$TIDEGATE_DATA/file\"; trap \"\" TERM; while :; do sleep 1; done' \
                  > /dev/null 2>&1 & sleep 0.3; exit 7";
    let outcome = Run::from_dir(home.path())?.shell(script).finish()?;
    outcome.expect_code(7)?;
    outcome.expect_message(&["outlived"])?;
    assert_eq!(outcome.receipt()?["outcome"], "wiped");
    Ok(())
}

/// An orphan that ends by itself is reaped while the command runs, and is no survivor.
#[test]
fn orphans_that_end_are_reaped_and_are_no_survivors() -> Result<()> {
    let home = small_home()?;
    let run = Run::from_dir(home.path())?;
    // Its parent is gone before it ends, so it becomes tidegate's child; the job waits until it is reaped.
    let script = "(sh -c 'echo $$ > orphan; exec sleep 0.2' &); \
                  until [ -s orphan ]; do sleep 0.05; done; read -r pid < orphan; \
                  until ! [ -e /proc/$pid ]; do sleep 0.05; done; exit 3";
    let outcome = run.shell(script).finish()?;
    outcome.expect_code(3)?;
    assert!(!outcome.stderr.contains("outlived"), "{}", outcome.stderr);
    // One that has just ended when the command does has not outlived it either.
    let script = "(true &); sleep 0.3; exit 4";
    let outcome = Run::from_dir(home.path())?.shell(script).finish()?;
    outcome.expect_code(4)?;
    assert!(!outcome.stderr.contains("outlived"), "{}", outcome.stderr);
    Ok(())
}

/// A worker that replaces a killed one as the command ends is not taken for something the command left.
#[test]
fn a_worker_started_at_the_end_is_no_survivor() -> Result<()> {
    let home = small_home()?;
    let mut held = Held::start(Run::from_dir(home.path())?)?;
    std::fs::read(held.data().join("file"))?;
    signal_pid(held.worker()?, Signal::KILL)?;
    signal_pid(held.job(), Signal::KILL)?;
    assert_eq!(held.process().wait()?.code(), Some(128 + 9), "{}", held.log());
    assert!(!held.log().contains("outlived"), "{}", held.log());
    let receipt = receipt(held.scratch())?;
    assert_eq!((&receipt["outcome"], &receipt["workers_replaced"]), (&"wiped".into(), &1.into()));
    Ok(())
}

/// The command's code and the rest of the end survive what fails at the end.
#[test]
fn a_receipt_that_cannot_be_written_costs_neither_the_code_nor_the_end() -> Result<()> {
    let (home, scratch) = (small_home()?, Scratch::new()?);
    let device = LoopDevice::ext4(&scratch, "full", 8 << 20)?;
    let file = device.path().join("receipt.json");
    for (code, seen) in [(5, 5), (0, 123)] {
        let run = Run::from_dir(home.path())?.arg("--receipt").arg(&file).keep_last("--receipt");
        let fill =
            format!("dd if=/dev/zero of='{}/filler' bs=512 2> /dev/null", device.path().display());
        let outcome = run.shell(&format!("! {fill}; exit {code}")).finish()?;
        outcome.expect_code(seen)?;
        outcome.expect_message(&["no space", "certificate in the ledger"])?;
        outcome.expect_nothing_left()?;
        std::fs::remove_file(device.path().join("filler"))?;
    }
    Ok(())
}

#[test]
fn the_job_has_its_own_limits_and_standard_streams() -> Result<()> {
    let home = small_home()?;
    let limits = "ulimit -n; ulimit -c; ulimit -Hn";
    let plain = std::process::Command::new("sh").args(["-c", limits]).output()?;
    let outcome = Run::from_dir(home.path())?.shell(limits).succeed()?;
    assert_eq!(outcome.stdout, String::from_utf8(plain.stdout)?);
    Ok(())
}

#[test]
fn help_documents_the_codes() -> Result<()> {
    let help = String::from_utf8(tidegate(["--help"])?.stdout)?;
    for code in ["122", "123", "124", "125", "126", "127", "128+N"] {
        assert!(help.contains(code), "{code} is not documented");
    }
    Ok(())
}

/// With `--json` the last error is a document too, and so is what the worker logs.
#[test]
fn errors_and_the_worker_s_log_are_json_when_asked() -> Result<()> {
    let output = tidegate(["--json", "plan", "--from", "/nowhere/at/all"])?;
    let said: serde_json::Value = serde_json::from_slice(&output.stderr)?;
    assert_eq!(said["code"], 125, "{said}");
    assert!(said["error"].as_str().is_some_and(|error| error.contains("/nowhere")), "{said}");

    let home = small_home()?;
    let run = Run::from_dir(home.path())?.arg("--json").env("TIDEGATE_LOG", "debug");
    let outcome = run.job(["true"]).succeed()?;
    for line in outcome.stderr.lines().filter(|line| !line.starts_with("tidegate: ")) {
        serde_json::from_str::<serde_json::Value>(line).with_context(|| line.to_owned())?;
    }
    assert!(outcome.stderr.contains("fuse_cache"), "the worker says something: {}", outcome.stderr);
    Ok(())
}
