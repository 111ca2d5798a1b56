//! A link that is cut for longer than the grace. The worker has destroyed its keys by then; what it finds
//! when the link is back depends on whether the gateway took it for gone meanwhile.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tidegate_tests::process::wait_for;
use tidegate_tests::programs::GatewayProgram;
use tidegate_tests::wan::Wan;

use super::{LEASE_LOST, Readers, Site, silence_and_return};

/// The grace is over long before the worker is taken for gone.
const PATIENT: &str = "heartbeat_s = 1\ngrace_s = 4\nsilence_s = 100";
/// Of a cut, seconds: two graces and a heartbeat.
const TWO_GRACES: u64 = 9;

fn link() -> Result<Arc<Wan>> {
    Ok(Arc::new(Wan::start(Duration::from_millis(20), 0)?))
}

/// Waits until the link was cut for two graces; the gateway has not given the worker up.
fn two_graces(gateway: &GatewayProgram, join: &Path, cut: Instant, phase: &str) -> Result<()> {
    wait_for("two graces", || (cut.elapsed().as_secs() >= TWO_GRACES).then_some(()))?;
    let shown = gateway.show(join)?;
    ensure!(shown["phase"] == phase, "{shown:#}");
    Ok(())
}

fn keys_are_destroyed(site: &Site) -> Result<()> {
    let said = "no gateway was heard for the grace: the keys are destroyed";
    wait_for("the keys to be destroyed", || site.mount.log().contains(said).then_some(()))
}

/// The lease lives on, so the worker attaches again by itself. What lies sealed on its disk is used again.
#[test]
fn s38_reads_come_back_after_a_cut_longer_than_the_grace() -> Result<()> {
    let wan = link()?;
    let mut site = Site::over(Arc::clone(&wan), PATIENT, &[])?;
    let (join, cut) = (site.join.clone(), Instant::now());
    silence_and_return(
        &mut site,
        |_| {
            wan.cut();
            Ok(())
        },
        |gateway| {
            two_graces(gateway, &join, cut, "active")?;
            wan.mend();
            Ok(())
        },
    )?;
    keys_are_destroyed(&site)?;
    let Site { gateway, mount, .. } = site;
    let receipt = mount.finish()?;
    assert_eq!(receipt["outcome"], "wiped", "{receipt:#}");
    let bytes = |key: &str| receipt[key].as_u64().with_context(|| format!("no {key}"));
    let (left, selected) = (bytes("left_bytes")?, bytes("selected_bytes")?);
    ensure!(left < selected + selected / 2, "{left} sealed bytes left for {selected} selected");
    assert_eq!(gateway.show(&join)?["phase"], "wiped");
    assert_eq!((gateway.entries("wiped")?, gateway.entries("withdrawn")?), (1, 0));
    Ok(())
}

/// The gateway ends a lease whose worker it takes for gone; who comes back later is told so, and wipes.
#[test]
fn a_cut_that_outlasts_the_silence_ends_the_lease_and_the_mount() -> Result<()> {
    let wan = link()?;
    let mut site =
        Site::over(Arc::clone(&wan), "heartbeat_s = 1\ngrace_s = 4\nsilence_s = 15", &[])?;
    let mut readers = Readers::of(site.mount.data())?;
    wan.cut();
    let cut = Instant::now();
    readers.expect_the_end()?;
    keys_are_destroyed(&site)?;
    two_graces(&site.gateway, &site.join, cut, "active")?;
    wait_for("the lease to be withdrawn", || {
        site.phase().filter(|phase| phase == "withdrawn").map(drop)
    })?;
    // A heartbeat may have been under way when the link was cut.
    ensure!(cut.elapsed() > Duration::from_secs(13), "withdrawn after {:?}", cut.elapsed());
    wan.mend();
    drop(readers);
    let status = site.mount.process().wait()?;
    assert_eq!(status.code(), Some(LEASE_LOST), "{}", site.mount.log());
    assert!(fs::read_dir(site.mount.cache())?.next().is_none(), "nothing is left in the cache");
    assert_eq!(site.gateway.entries("attached")?, 1);
    Ok(())
}

/// A lease that is ended meanwhile waits for its worker as long: it comes back to wipe and says so.
#[test]
fn a_lease_that_ends_during_a_cut_waits_for_its_worker_s_word() -> Result<()> {
    for end in [GatewayProgram::revoke, GatewayProgram::drain] {
        let wan = link()?;
        let mut site = Site::over(Arc::clone(&wan), PATIENT, &[])?;
        let mut readers = Readers::of(site.mount.data())?;
        wan.cut();
        let cut = Instant::now();
        end(&site.gateway, &site.join)?;
        readers.expect_the_end()?;
        keys_are_destroyed(&site)?;
        two_graces(&site.gateway, &site.join, cut, "draining")?;
        wan.mend();
        drop(readers);
        let status = site.mount.process().wait()?;
        assert_eq!(status.code(), Some(LEASE_LOST), "{}", site.mount.log());
        assert_eq!(site.phase().as_deref(), Some("wiped"), "{}", site.gateway.log());
        assert_eq!(site.gateway.entries("attached")?, 1, "it was given nothing more");
    }
    Ok(())
}
