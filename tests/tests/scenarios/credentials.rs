//! P3: no live lease, no data. Wrong, reused, foreign, expired and revoked credentials.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tidegate_tests::dataset;
use tidegate_tests::programs::{GatewayProgram, MountProgram};
use tidegate_tests::scratch::Scratch;

struct Site {
    home: Scratch,
    gateway: GatewayProgram,
}

impl Site {
    fn new() -> Result<Self> {
        let home = Scratch::new()?;
        dataset::write(home.path(), "name-of-the-set", &dataset::bytes(1, 100_000))?;
        let gateway = GatewayProgram::start(
            &home.path().display().to_string(),
            "heartbeat_s = 1\ngrace_s = 4",
        )?;
        Ok(Self { home, gateway })
    }

    fn lease(&self, name: &str) -> Result<PathBuf> {
        self.gateway.lease(name, ["--from".as_ref(), self.home.path().as_os_str()])
    }

    /// A copy of the join file with one key changed.
    fn forged(&self, join: &Path, change: impl FnOnce(&mut Value)) -> Result<PathBuf> {
        let mut file: Value = serde_json::from_slice(&fs::read(join)?)?;
        change(&mut file);
        let path = join.with_extension("forged");
        fs::write(&path, serde_json::to_vec(&file)?)?;
        Ok(path)
    }

    /// Must end with an error that holds the words and names nothing of the dataset.
    fn refused(&self, join: &Path, words: &[&str]) -> Result<()> {
        let mut mount = MountProgram::launch(join, &[])?;
        let status = mount.process().wait()?;
        let log = mount.log();
        assert!(matches!(status.code(), Some(2 | 125)), "{status}: {log}");
        let said = log.to_lowercase();
        assert!(words.iter().any(|word| said.contains(word)), "none of {words:?} in: {log}");
        assert!(
            !log.contains("name-of-the-set")
                && !log.contains(&self.home.path().display().to_string()),
            "{log}"
        );
        assert!(!log.contains("panicked"), "{log}");
        assert!(fs::read_dir(mount.data())?.next().is_none(), "something is mounted");
        assert!(fs::read_dir(mount.cache())?.next().is_none(), "something is in the cache");
        Ok(())
    }
}

#[test]
fn a_wrong_secret_another_token_and_another_lease_are_refused() -> Result<()> {
    let site = Site::new()?;
    let (one, two) = (site.lease("one.join")?, site.lease("two.join")?);
    let other: Value = serde_json::from_slice(&fs::read(&two)?)?;
    let refusals = ["not authenticated", "not allowed", "the lease is over"];
    let wrong = site.forged(&one, |file| file["secret"] = json!("A".repeat(43)))?;
    site.refused(&wrong, &refusals)?;
    let foreign = site.forged(&one, |file| file["token"] = other["token"].clone())?;
    site.refused(&foreign, &refusals)?;
    let elsewhere = site.forged(&one, |file| file["lease"] = other["lease"].clone())?;
    site.refused(&elsewhere, &refusals)?;
    let unknown = site.forged(&one, |file| file["token"] = json!("00".repeat(16)))?;
    site.refused(&unknown, &refusals)?;
    // None of that used the real token up.
    let mount = MountProgram::start(&one, &[])?;
    assert_eq!(fs::read(mount.data().join("name-of-the-set"))?, dataset::bytes(1, 100_000));
    mount.finish()?;
    Ok(())
}

#[test]
fn a_token_is_used_once() -> Result<()> {
    let site = Site::new()?;
    let join = site.lease("one.join")?;
    let mount = MountProgram::start(&join, &[])?;
    // Another worker, another identity, the same token: while the first lives…
    site.refused(&join, &["not allowed", "not authenticated", "another worker"])?;
    assert_eq!(fs::read(mount.data().join("name-of-the-set"))?.len(), 100_000);
    mount.finish()?;
    // …and after it has ended.
    site.refused(&join, &["not allowed", "not authenticated", "lease is over"])?;
    let shown = tidegate_tests::tidegate::tidegate([
        "audit".as_ref(),
        "list".as_ref(),
        "--ledger".as_ref(),
        site.gateway.state().as_os_str(),
    ])?;
    let list = tidegate_tests::programs::succeed(shown)?;
    assert!(
        list.contains("refused"),
        "the refusal of an identified caller is in the ledger: {list}"
    );
    Ok(())
}

#[test]
fn a_wrong_ca_and_a_wrong_ledger_key_are_refused_by_the_worker() -> Result<()> {
    let (site, other) = (Site::new()?, Site::new()?);
    let (join, foreign) = (site.lease("one.join")?, other.lease("one.join")?);
    let foreign: Value = serde_json::from_slice(&fs::read(foreign)?)?;
    let wrong_ca = site.forged(&join, |file| file["ca"] = foreign["ca"].clone())?;
    site.refused(&wrong_ca, &["certificate", "ca"])?;
    let wrong_key =
        site.forged(&join, |file| file["ledger_key"] = foreign["ledger_key"].clone())?;
    site.refused(&wrong_key, &["ledger", "checkpoint", "receipt"])?;
    Ok(())
}

#[test]
fn a_revoked_lease_lets_nobody_in() -> Result<()> {
    let site = Site::new()?;
    let join = site.lease("one.join")?;
    site.gateway.revoke(&join)?;
    site.refused(&join, &["lease is over", "not authenticated", "not allowed"])
}

#[test]
fn a_lease_past_its_deadline_lets_nobody_in() -> Result<()> {
    let site = Site::new()?;
    let from = site.home.path().display().to_string();
    let join = site.gateway.lease("short.join", ["--from", &from, "--for", "1s"])?;
    tidegate_tests::process::wait_for("the lease to end", || {
        let shown = site.gateway.show(&join).ok()?.to_string();
        (shown.contains("closed") || shown.contains("withdrawn")).then_some(())
    })
    .with_context(|| site.gateway.log())?;
    site.refused(&join, &["lease is over", "not authenticated", "not allowed"])
}

/// What is not in `sources.allow` cannot be leased, whatever the caller's rights on the socket.
#[test]
fn a_source_outside_the_allowed_ones_is_refused() -> Result<()> {
    let site = Site::new()?;
    let refused = site.gateway.lease("no.join", ["--from", "/etc"]);
    let message = format!("{:#}", refused.err().context("granted")?);
    assert!(message.contains("allow"), "{message}");
    Ok(())
}

/// P2: a node that keeps core images is refused unless policy allows it.
#[test]
fn a_node_that_stores_core_images_is_refused_unless_allowed() -> Result<()> {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern")?;
    let home = Scratch::new()?;
    dataset::write(home.path(), "name-of-the-set", b"content")?;
    let extra = "nodes.allow_swap = true\nnodes.allow_stored_cores = false";
    let gateway = GatewayProgram::start(&home.path().display().to_string(), extra)?;
    let join = gateway.lease("one.join", ["--from".as_ref(), home.path().as_os_str()])?;
    if matches!(pattern.trim(), "" | "|/bin/false" | "|/bin/true") {
        // This node keeps none: it is let in.
        MountProgram::start(&join, &[])?.finish()?;
        return Ok(());
    }
    let site = Site { home, gateway };
    site.refused(&join, &["core images"])
}

/// P2: what a node cannot see of itself is not taken for the best.
#[test]
fn a_node_that_cannot_see_its_swap_is_refused_unless_allowed() -> Result<()> {
    let home = Scratch::new()?;
    dataset::write(home.path(), "name-of-the-set", b"content")?;
    let script = "mount --bind /dev/null /proc/swaps && exec \"$@\"";
    let blind = ["unshare", "--mount", "--propagation", "slave", "--", "sh", "-c", script, "sh"];
    for allowed in [false, true] {
        let extra = format!("nodes.allow_swap = {allowed}\nnodes.allow_stored_cores = true");
        let gateway = GatewayProgram::start(&home.path().display().to_string(), &extra)?;
        let join = gateway.lease("one.join", ["--from".as_ref(), home.path().as_os_str()])?;
        let mut mount = MountProgram::launch_behind(&blind, &join, &[])?;
        if allowed {
            mount.process().wait_ready(|process| process.log().contains(" files, "))?;
            let receipt = mount.finish()?;
            assert_eq!(receipt["certificate"]["stated"]["facts"]["swap"][0], "unknown");
            continue;
        }
        let status = mount.process().wait()?;
        assert_eq!(status.code(), Some(125), "{}", mount.log());
        assert!(mount.log().contains("cannot see whether"), "{}", mount.log());
    }
    Ok(())
}
