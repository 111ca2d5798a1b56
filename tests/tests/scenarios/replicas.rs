//! Several gateways over one bucket, and a worker behind a link of 40 ms: any may die or stand still at any time, and no read fails.

use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use tidegate_tests::dataset;
use tidegate_tests::digest;
use tidegate_tests::process::wait_for;
use tidegate_tests::programs::{MountProgram, lease_of};
use tidegate_tests::site::{Site, entries_of};
use tidegate_tests::wan::Wan;

/// Each way, and what the workers share.
const ONE_WAY: Duration = Duration::from_millis(20);
const RATE: u64 = 1_000_000_000;
const QUICK: &str = "heartbeat_s = 1\ngrace_s = 20\n";

fn receipt_is_clean(receipt: &Value) {
    assert_eq!(receipt["outcome"], "wiped", "{receipt:#}");
    assert_eq!(receipt["read_errors"], 0, "{receipt:#}");
}

/// The one that granted is killed for good: the other serves, closes and records.
#[test]
fn a_lease_goes_on_at_another_replica_and_closes_there() -> Result<()> {
    let wan = Wan::start(ONE_WAY, RATE)?;
    let more = format!("{QUICK}rate_limit = 20000000\n");
    let mut site = Site::start(Some(wan.home()), 2, &more, |home| {
        dataset::flat(home.path(), 10, (4 << 20) + 77, 600)
    })?;
    let join = site.lease(0, "one.join")?;
    let mount = MountProgram::start_at(wan.cloud(), &join, &[])?;
    let want = digest::tree(site.home.path())?;
    site.gateways[0].process().stop(Signal::KILL)?;
    digest::assert_same(&want, &digest::tree(mount.data())?);
    let shown = site.gateways[1].show(&join)?;
    assert_eq!(shown["phase"], "active", "{shown:#}");
    let receipt = mount.finish()?;
    receipt_is_clean(&receipt);
    ensure!(receipt["certificate"]["observed"]["sent_bytes"].is_null(), "nobody counted all");
    let lease = lease_of(&join)?;
    ensure!(site.holds_no_key_of(&lease), "a key stayed");
    let entries = site.ledger()?;
    assert_eq!(entries_of(&entries, "lease-closed", &lease).len(), 1, "{entries:#?}");
    ensure!(!entries_of(&entries, "keys-released", &lease).is_empty(), "{entries:#?}");
    Ok(())
}

/// A replica that stands still with all its connections open costs time, not reads: the worker
/// turns to the other well within the grace.
#[test]
fn a_replica_that_stands_still_is_left() -> Result<()> {
    let wan = Wan::start(ONE_WAY, RATE)?;
    let more = format!("{QUICK}rate_limit = 30000000\n");
    let mut site = Site::start(Some(wan.home()), 2, &more, |home| {
        dataset::flat(home.path(), 12, (4 << 20) + 5, 610)
    })?;
    let join = site.lease(0, "one.join")?;
    let mount = MountProgram::start_at(wan.cloud(), &join, &["--cache-size", "24MiB"])?;
    let want = digest::tree(site.home.path())?;
    site.gateways[0].process().signal(Signal::STOP)?;
    digest::assert_same(&want, &digest::tree(mount.data())?);
    // What it had begun before must not count when it goes on.
    site.gateways[0].process().signal(Signal::CONT)?;
    digest::assert_same(&want, &digest::tree(mount.data())?);
    receipt_is_clean(&mount.finish()?);
    site.ledger()?;
    Ok(())
}

/// A lease is revoked where it was not granted; both replicas and the worker hear of it.
#[test]
fn a_lease_is_revoked_at_a_replica_that_did_not_grant_it() -> Result<()> {
    let wan = Wan::start(ONE_WAY, RATE)?;
    let mut site = Site::start(Some(wan.home()), 2, QUICK, |home| {
        dataset::flat(home.path(), 4, 100_000, 620)
    })?;
    let join = site.lease(0, "one.join")?;
    let mut mount = MountProgram::start_at(wan.cloud(), &join, &[])?;
    site.gateways[1].revoke(&join)?;
    let name = mount.data().join("00000.bin");
    wait_for("reads to fail", || std::fs::read(&name).is_err().then_some(()))?;
    mount.process().wait()?;
    for gateway in &site.gateways {
        wait_for("the lease to be closed", || {
            gateway.show(&join).ok().filter(|shown| shown["phase"] == "wiped")
        })?;
    }
    let entries = site.ledger()?;
    assert_eq!(entries_of(&entries, "lease-closed", &lease_of(&join)?).len(), 1, "{entries:#?}");
    site.gateways[0].process().stop(Signal::TERM)?;
    Ok(())
}

/// Whoever granted is gone before the other is back, which finds the lease in the state.
#[test]
fn a_replica_that_starts_late_takes_up_what_is_open() -> Result<()> {
    let wan = Wan::start(ONE_WAY, RATE)?;
    let mut site = Site::start(Some(wan.home()), 2, QUICK, |home| {
        dataset::flat(home.path(), 4, 100_000, 630)
    })?;
    site.gateways[1].process().stop(Signal::TERM)?;
    let join = site.lease(0, "one.join")?;
    let mount = MountProgram::start_at(wan.cloud(), &join, &[])?;
    site.gateways[0].process().stop(Signal::KILL)?;
    site.gateways[1].restart()?;
    let want = digest::tree(site.home.path())?;
    digest::assert_same(&want, &digest::tree(mount.data())?);
    receipt_is_clean(&mount.finish()?);
    Ok(())
}
