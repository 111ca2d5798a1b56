//! Real writers from PyPI and Debian: at home lies what they meant, byte for byte as the job read it.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tidegate_tests::process::check;
use tidegate_tests::reader::{python, script};
use tidegate_tests::results::{Desk, Home};
use tidegate_tests::scratch::Scratch;

/// `torch.save`'s calls, safetensors, TensorBoard events, NumPy, SQLite in WAL mode, tar.
pub(crate) fn real_writers(home: Home) -> Result<()> {
    let desk = Desk::start(home, "")?;
    let join = desk.lease("one.join", &[])?;
    let (python, script) = (python()?, script("real_writers.py"));
    let line = format!(
        "mkdir \"$TIDEGATE_RESULTS/job\"; '{}' '{}' write \"$TIDEGATE_RESULTS/job\"",
        python.display(),
        script.display()
    );
    let outcome = desk.run(&join)?.shell(&line).succeed()?;
    let receipt = outcome.receipt()?;
    assert_eq!(receipt["results"]["lost"].as_array().map(Vec::len), Some(0), "{receipt:#}");

    let look = desk.home.look()?;
    let mut files = 0;
    for line in outcome.stdout.lines() {
        let (sha, path) = line.split_once(' ').with_context(|| line.to_owned())?;
        let home = look.sha256(&format!("job/{path}"))?;
        assert_eq!(home.as_deref(), Some(sha), "{path} at home");
        files += 1;
    }
    ensure!(files > 45, "{files} files");
    let there = look.list()?.into_keys().filter(|path| path.starts_with("job/")).count();
    assert_eq!(there, files, "and nothing else");
    let copy = Scratch::new()?;
    look.copy(copy.path())?;
    check(Command::new(python).arg(script).arg("check").arg(copy.join("job")))?;
    look.wait_until_tidy(0)?;
    outcome.expect_nothing_left()
}

#[test]
fn real_writers_to_a_directory() -> Result<()> {
    real_writers(Home::directory()?)
}

#[test]
fn real_writers_to_versitygw() -> Result<()> {
    real_writers(Home::versitygw()?)
}

#[test]
fn real_writers_to_ceph_rgw() -> Result<()> {
    real_writers(Home::ceph()?)
}
