//! Several gateways over one bucket: any may be killed at any time, and no read fails.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use tidegate_tests::dataset::{self, Dice};
use tidegate_tests::digest;
use tidegate_tests::port;
use tidegate_tests::process::wait_for;
use tidegate_tests::programs::{GatewayProgram, MountProgram, lease_of, succeed};
use tidegate_tests::s3::S3;
use tidegate_tests::scratch::Scratch;
use tidegate_tests::tidegate::tidegate;
use tidegate_tests::versitygw::Versitygw;

const QUICK: &str = "heartbeat_s = 1\ngrace_s = 12\n";

/// A store, a source, and gateways that know of each other.
struct Site {
    store: S3,
    _server: Versitygw,
    home: Scratch,
    /// Keys and credentials that all replicas have.
    _common: Scratch,
    gateways: Vec<GatewayProgram>,
}

impl Site {
    fn new(replicas: usize, more: &str, fill: impl FnOnce(&Scratch) -> Result<()>) -> Result<Self> {
        let server = Versitygw::start()?;
        let store = server.client()?;
        store.create_bucket("state")?;
        let (home, common) = (Scratch::new()?, Scratch::new()?);
        fill(&home)?;
        let credentials = store.credentials_file(&common)?;
        let ports = (0..replicas).map(|_| port::free()).collect::<Result<Vec<_>>>()?;
        let urls: Vec<_> = ports.iter().map(|port| format!("https://127.0.0.1:{port}")).collect();
        let lines = format!(
            "{QUICK}{more}gateways = {urls:?}\nsecrets = \"{}\"\n[state_bucket]\n\
             url = \"s3://state/site\"\nendpoint = \"{}\"\ncredentials_file = \"{}\"\n",
            common.join("secrets").display(),
            store.endpoint(),
            credentials.display()
        );
        let allow = home.path().display().to_string();
        let gateways = ports
            .into_iter()
            .map(|port| GatewayProgram::start_on(port, &allow, &lines))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { store, _server: server, home, _common: common, gateways })
    }

    fn lease(&self, replica: usize, name: &str) -> Result<std::path::PathBuf> {
        self.gateways[replica].lease(name, ["--from".as_ref(), self.home.path().as_os_str()])
    }

    /// The ledger as it is in the bucket, verified; its entries.
    fn ledger(&self) -> Result<Vec<Value>> {
        let copy = Scratch::new()?;
        self.store.download("state", "site/", &copy.join("copy"))?;
        let copy = copy.join("copy");
        let folder = copy.as_os_str();
        succeed(tidegate(["audit".as_ref(), "verify".as_ref(), "--ledger".as_ref(), folder])?)?;
        let words = ["--json".as_ref(), "audit".as_ref(), "list".as_ref(), "--ledger".as_ref()];
        let listed = succeed(tidegate(words.into_iter().chain([folder]))?)?;
        listed.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }
}

/// How many entries are of a kind and a lease.
fn count(entries: &[Value], kind: &str, lease: &str) -> usize {
    let text = |entry: &&Value| {
        let text = entry.to_string();
        text.contains(kind) && text.contains(lease)
    };
    entries.iter().filter(text).count()
}

#[test]
fn a_lease_goes_on_at_another_replica_and_closes_there() -> Result<()> {
    let mut site = Site::new(2, "rate_limit = 20000000\n", |home| {
        dataset::flat(home.path(), 10, (4 << 20) + 77, 600)
    })?;
    let join = site.lease(0, "one.join")?;
    let mount = MountProgram::start(&join, &[])?;
    let want = digest::tree(site.home.path())?;
    site.gateways[0].process().stop(Signal::KILL)?;
    digest::assert_same(&want, &digest::tree(mount.data())?);
    let shown = site.gateways[1].show(&join)?;
    assert_eq!(shown["phase"], "active", "{shown:#}");
    let receipt = mount.finish()?;
    assert_eq!(receipt["outcome"], "wiped", "{receipt:#}");
    assert_eq!(receipt["read_errors"], 0, "{receipt:#}");
    ensure!(receipt["certificate"]["observed"]["sent_bytes"].is_null(), "nobody counted all");
    let lease = lease_of(&join)?;
    let keys = site.store.list("state")?;
    ensure!(!keys.iter().any(|key| key.contains("wrapped/")), "a wrapped key stayed: {keys:?}");
    let entries = site.ledger()?;
    assert_eq!(count(&entries, "keys-released", &lease), 1, "{entries:#?}");
    assert_eq!(count(&entries, "lease-closed", &lease), 1, "{entries:#?}");
    Ok(())
}

/// The replica that granted dies for good; the other ends the lease when it is revoked there.
#[test]
fn a_lease_is_revoked_at_a_replica_that_did_not_grant_it() -> Result<()> {
    let mut site = Site::new(2, "", |home| dataset::flat(home.path(), 4, 100_000, 610))?;
    let join = site.lease(0, "one.join")?;
    let mut mount = MountProgram::start(&join, &[])?;
    wait_for("the other to learn of it", || site.gateways[1].show(&join).ok())?;
    site.gateways[1].revoke(&join)?;
    wait_for("reads to fail", || {
        std::fs::read_dir(mount.data())
            .ok()
            .and_then(|mut names| names.next()?.ok())
            .is_none_or(|name| std::fs::read(name.path()).is_err())
            .then_some(())
    })?;
    mount.process().wait()?;
    let shown = wait_for("the first to see it", || {
        site.gateways[0].show(&join).ok().filter(|shown| shown["phase"] != "active")
    })?;
    ensure!(shown["phase"] != "granted", "{shown:#}");
    site.gateways[0].process().stop(Signal::TERM)?;
    Ok(())
}

/// A short soak: replicas killed and started again at random while two mounts read everything.
#[test]
fn replicas_are_killed_at_random_and_no_read_fails() -> Result<()> {
    const SEED: u64 = 0x5eed_0004;
    const KILLS: u32 = 8;
    let mut site = Site::new(2, "", |home| dataset::flat(home.path(), 12, (4 << 20) + 5, 620))?;
    let want = digest::tree(site.home.path())?;
    let joins = [site.lease(0, "one.join")?, site.lease(1, "two.join")?];
    let mounts = joins
        .iter()
        .map(|join| MountProgram::start(join, &["--cache-size", "24MiB"]))
        .collect::<Result<Vec<_>>>()?;
    let (stop, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut dice = Dice::new(SEED);
    let outcome = std::thread::scope(|scope| {
        let readers: Vec<_> = mounts
            .iter()
            .map(|mount| {
                scope.spawn(|| -> Result<()> {
                    while !stop.load(Ordering::Relaxed) {
                        let read = digest::tree(mount.data()).context("a read failed")?;
                        digest::assert_same(&want, &read);
                        rounds.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(())
                })
            })
            .collect();
        let killing = (|| {
            for _ in 0..KILLS {
                let victim = usize::try_from(dice.below(2))?;
                let before = rounds.load(Ordering::Relaxed);
                site.gateways[victim].crash_and_restart()?;
                wait_for("reads to go on", || {
                    (rounds.load(Ordering::Relaxed) > before).then_some(())
                })?;
            }
            anyhow::Ok(())
        })();
        stop.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.join().map_err(|_| anyhow::anyhow!("a reader saw other bytes"))??;
        }
        killing
    });
    outcome.with_context(|| format!("seed {SEED:#x}"))?;
    for (join, mount) in joins.iter().zip(mounts) {
        let receipt = mount.finish()?;
        assert_eq!(receipt["outcome"], "wiped", "{receipt:#}");
        assert_eq!(receipt["read_errors"], 0, "{receipt:#}");
        let entries = site.ledger()?;
        ensure!(count(&entries, "lease-closed", &lease_of(join)?) == 1, "{entries:#?}");
    }
    Ok(())
}
