//! What is told of results: metrics of both daemons, progress while draining, and what asynchronous means.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tidegate_tests::dataset;
use tidegate_tests::ops::{Ops, promtool};
use tidegate_tests::port;
use tidegate_tests::process::wait_for;
use tidegate_tests::results::{Desk, Home};

use super::storm::PATIENT;

const SLOW: Duration = Duration::from_millis(1_500);

#[test]
fn both_daemons_count_results_and_what_waits() -> Result<()> {
    let mut home = Home::versitygw()?;
    let trouble = home.troubled()?;
    let (gateway, worker) = (Ops(port::free()?), Ops(port::free()?));
    let desk = Desk::start(home, &format!("{PATIENT}\nops_listen = \"127.0.0.1:{}\"", gateway.0))?;
    let ops = format!("127.0.0.1:{}", worker.0);
    let mount = desk.mount("one.join", &[], &["--results-async", "--ops", &ops])?;
    trouble.refuse(100);
    fs::write(mount.results().join("secret-name"), dataset::bytes(1, 3 << 20))?;
    let waiting = wait_for("what waits to be told", || {
        let metrics = worker.metrics().ok()?;
        (*metrics.get("tidegate_results_oldest_unsaved_seconds")? >= 2.0).then_some(metrics)
    })?;
    ensure!(waiting["tidegate_results_unsent_bytes"] >= (3 << 20) as f64, "{waiting:#?}");
    ensure!(waiting["tidegate_results_spool_bytes"] >= (3 << 20) as f64, "{waiting:#?}");
    assert_eq!(waiting["tidegate_results_home_files_total"], 0.0);
    trouble.end();
    let home = wait_for("it to come home", || {
        let metrics = worker.metrics().ok()?;
        (metrics["tidegate_results_home_files_total"] == 1.0
            && metrics["tidegate_results_unsent_bytes"] == 0.0)
            .then_some(metrics)
    })?;
    assert_eq!(home["tidegate_results_home_bytes_total"], (3 << 20) as f64);
    assert_eq!(home["tidegate_results_oldest_unsaved_seconds"], 0.0);
    let at_home = gateway.metrics()?;
    assert_eq!(at_home["tidegate_results_stored_files_total"], 1.0);
    assert_eq!(at_home["tidegate_results_stored_bytes_total"], (3 << 20) as f64);
    let timed = at_home.iter().find(|(name, _)| name.starts_with("tidegate_results_seconds_count"));
    ensure!(timed.is_some(), "{at_home:#?}");
    for text in [gateway.text()?, worker.text()?] {
        promtool(&text)?;
        ensure!(!text.contains("secret-name"), "{text}");
    }
    mount.finish()?;
    Ok(())
}

/// In the ordinary mode `close` waits for the store; in the asynchronous one it does not, the end does.
#[test]
fn asynchronous_means_that_close_does_not_wait_and_the_end_does() -> Result<()> {
    for asynchronous in [false, true] {
        let mut home = Home::versitygw()?;
        let trouble = home.troubled()?;
        let desk = Desk::start(home, PATIENT)?;
        let args: &[&str] = if asynchronous { &["--results-async"] } else { &[] };
        let mount = desk.mount("one.join", &[], args)?;
        trouble.slow(SLOW);
        let began = Instant::now();
        let mut file = fs::File::create(mount.results().join("file"))?;
        std::io::Write::write_all(&mut file, b"bytes")?;
        file.sync_all()?;
        drop(file);
        let took = began.elapsed();
        ensure!((took < SLOW) == asynchronous, "asynchronous {asynchronous}: {took:?}");
        // What is on its way is read as it is.
        assert_eq!(fs::read(mount.results().join("file"))?, b"bytes");
        fs::rename(mount.results().join("file"), mount.results().join("renamed"))?;
        fs::write(mount.results().join("file"), b"another")?;
        mount.finish()?;
        let look = desk.home.look()?;
        assert_eq!(look.read("renamed")?.as_deref(), Some(&b"bytes"[..]));
        assert_eq!(look.read("file")?.as_deref(), Some(&b"another"[..]));
    }
    Ok(())
}

/// While a run drains it says on standard error how much is still to come.
#[test]
fn a_run_that_drains_says_how_far_it_is() -> Result<()> {
    let mut home = Home::versitygw()?;
    let trouble = home.troubled()?;
    let desk = Desk::start(home, PATIENT)?;
    let join = desk.lease("one.join", &[])?;
    let run = desk.run(&join)?.arg("--results-async");
    let [made, written] = ["made", "written"].map(|name| run.scratch().join(name));
    let script = format!(
        "for n in 1 2 3 4; do cp '{}' \"$TIDEGATE_RESULTS/$n\"; done; touch '{}'",
        made.display(),
        written.display()
    );
    fs::write(made, vec![7; 2_000_000])?;
    trouble.refuse(100);
    let (mut run, _scratch) = run.shell(&script).start()?;
    run.wait_ready(|_| written.exists())?;
    run.wait_ready(|run| {
        run.log().lines().any(|line| line.starts_with("tidegate: ") && line.contains("result"))
    })?;
    trouble.end();
    ensure!(run.wait()?.success(), "{}", run.log());
    Ok(())
}
