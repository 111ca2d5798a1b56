//! The link is cut while a job writes: for less than the grace, and for longer.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tidegate_tests::process::wait_for;
use tidegate_tests::results::{Desk, Home};
use tidegate_tests::wan::Wan;

use super::storm::{Job, Storm, seed};

const TERMS: &str = "heartbeat_s = 1\ngrace_s = 4\nsilence_s = 300";
/// Bits a second.
const RATE: u64 = 400_000_000;
const DESTROYED: &str = "no gateway was heard for the grace";

/// Cuts the link once for `long`, while a job writes for `seconds`. Nothing fails: it waits.
pub(super) fn a_cut_of(mut home: Home, long: Duration, seconds: u64) -> Result<()> {
    let seed = seed()?;
    let wan = Wan::start(Duration::from_millis(10), RATE)?;
    if !home.is_directory() {
        // It makes none: it stands where the store is reached from.
        home.troubled_in(Some(wan.home()))?;
    }
    let desk = Desk::start_in(Some(wan.home()), home, TERMS)?;
    let job = Job { large: 17 << 20, ..Job::of(seed, seconds) };
    let storm = Storm::start(desk, Some(&wan), job)?;
    wait_for("the job to write", || (storm.done() > 10).then_some(()))?;
    for long in [Duration::from_secs(2), long] {
        wan.cut();
        let cut = Instant::now();
        // One step at most gets on by what was under way.
        let waiting = wait_for("the job to wait", || {
            let done = storm.done();
            (cut.elapsed() >= long / 2).then_some(done)
        })?;
        wait_for("the link to be cut for long", || (cut.elapsed() >= long).then_some(()))?;
        ensure!(storm.done() == waiting, "it does not wait");
        wan.mend();
        wait_for("the job to go on", || (storm.done() > waiting + 5).then_some(()))?;
    }
    ensure!(storm.writes(), "the job ended while the link was away");
    let told = storm.said(DESTROYED);
    storm.judge(&[]).with_context(|| format!("seed {seed}"))?;
    ensure!(told, "the cut was shorter than the grace");
    Ok(())
}

#[test]
fn r23_the_link_is_cut_while_a_job_writes() -> Result<()> {
    a_cut_of(Home::directory()?, Duration::from_secs(7), 25)
}
