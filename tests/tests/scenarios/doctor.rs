//! `tidegate doctor` says what a machine lacks; a killed run is closed by the next one.

use std::ffi::OsStr;

use anyhow::{Context as _, Result};
use rustix::process::Signal;
use tidegate_tests::dataset;
use tidegate_tests::held::Held;
use tidegate_tests::process::{descendants, signal_pid};
use tidegate_tests::programs::succeed;
use tidegate_tests::scratch::Scratch;
use tidegate_tests::tidegate::{Run, tidegate};

/// Every lack comes with what it costs, and what is there with nothing.
#[test]
fn doctor_says_what_each_lack_costs() -> Result<()> {
    // Under a home that does not exist the cache's disk is one of the findings all the same.
    let said = tidegate(["--json", "doctor", "--cache", "/proc/nowhere"])?.stdout;
    let findings: Vec<serde_json::Value> =
        serde_json::Deserializer::from_slice(&said).into_iter().collect::<Result<_, _>>()?;
    assert!(findings.iter().any(|finding| finding["grade"] != "good"), "{findings:?}");
    for finding in findings {
        let cost = finding["cost"].as_str().unwrap_or_default();
        assert_eq!(cost.is_empty(), finding["grade"] == "good", "{finding}");
    }
    Ok(())
}

#[test]
fn doctor_speaks_of_everything_that_bears_on_a_run() -> Result<()> {
    let output = tidegate(["doctor"])?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).to_lowercase();
    assert!(matches!(output.status.code(), Some(0 | 1)), "{said}");
    for word in ["/dev/fuse", "kernel", "swap", "core", "cache"] {
        assert!(said.contains(word), "nothing about {word}: {said}");
    }
    Ok(())
}

/// Everything is killed with -9. The next run on the same ledger closes the lease as withdrawn, and
/// the ledger verifies.
#[test]
fn the_next_run_closes_the_lease_of_a_killed_one() -> Result<()> {
    let home = Scratch::new()?;
    dataset::flat(home.path(), 3, 500_000, 700)?;
    let mut held = Held::start(Run::from_dir(home.path())?)?;
    std::fs::read(held.data().join("00000.bin"))?;
    let family = descendants(held.pid());
    held.process().stop(Signal::KILL)?;
    for pid in family {
        // It may have ended with its parent.
        let _ = signal_pid(pid, Signal::KILL);
    }
    let state = held.scratch().join("ledger");
    let next = Run::from_dir(home.path())?.arg("--ledger").arg(&state).keep_last("--ledger");
    next.job(["true"]).succeed()?;
    let words = |verb: &'static str| {
        let words =
            [OsStr::new("audit"), OsStr::new(verb), OsStr::new("--ledger"), state.as_os_str()];
        words.map(OsStr::to_owned)
    };
    let list = succeed(tidegate(words("list"))?)?;
    let closed: Vec<_> = list.lines().filter(|line| line.contains("closed as")).collect();
    assert_eq!(closed.len(), 2, "{list}");
    let first = closed.first().context("none")?;
    assert!(first.contains("withdrawn") && first.contains("absence read back"), "{first}");
    assert!(closed[1].contains("wiped"), "{}", closed[1]);
    succeed(tidegate(words("verify"))?)?;
    Ok(())
}
