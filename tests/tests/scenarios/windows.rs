//! Keys by window: little is handed out ahead, all of it is in the ledger, and reading stays what it
//! was.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use tidegate_tests::dataset::{self, Dice};
use tidegate_tests::digest;
use tidegate_tests::process::{signal_pid, wait_for};
use tidegate_tests::programs::{GatewayProgram, MountProgram, lease_of, succeed};
use tidegate_tests::scratch::Scratch;
use tidegate_tests::tidegate::tidegate;
use tidegate_tests::wan::Wan;

const BLOCK: usize = 4 << 20;
/// Two blocks a window.
const SMALL: &str = "heartbeat_s = 1\ngrace_s = 60\nlimits.window = 8388608\n";
const WINDOW: u64 = 2;
/// Five slots.
const SMALL_CACHE: &[&str] = &["--cache-size", "22MiB"];

/// `files` files of one block each behind a gateway with small windows.
struct Site {
    home: Scratch,
    gateway: GatewayProgram,
    wan: Wan,
    blocks: u64,
}

impl Site {
    fn new(files: u64, seed: u64) -> Result<Self> {
        let home = Scratch::new()?;
        dataset::flat(home.path(), files, BLOCK, seed)?;
        let wan = Wan::start(Duration::from_millis(20), 1_000_000_000)?;
        let gateway =
            GatewayProgram::start_at(wan.home(), &home.path().display().to_string(), SMALL)?;
        Ok(Self { home, gateway, wan, blocks: files })
    }

    fn lease(&self) -> Result<PathBuf> {
        self.gateway.lease("one.join", ["--from".as_ref(), self.home.path().as_os_str()])
    }

    /// (first block, end block) of each release of the lease, in order. The ledger verifies.
    fn released(&self, join: &Path) -> Result<Vec<(u64, u64)>> {
        let state = self.gateway.state();
        let audit = |word: &str| {
            let words = ["--json", "audit", word, "--ledger"].map(std::ffi::OsString::from);
            succeed(tidegate(words.into_iter().chain([state.clone().into_os_string()]))?)
        };
        audit("verify")?;
        let lease = lease_of(join)?;
        let (mut released, mut last) = (Vec::new(), 0);
        for line in audit("list")?.lines() {
            let event = serde_json::from_str::<Value>(line)?["event"].take();
            if event["type"] == "keys-released" && event["lease"] == lease.as_str() {
                let number = |key: &str| event[key].as_u64().context("no block number");
                // A gateway that is killed before the entry leaves a number out.
                let epoch = number("epoch")?;
                ensure!(epoch > last, "releases are numbered: {event}");
                last = epoch;
                released.push((number("first_block")?, number("end_block")?));
            }
        }
        Ok(released)
    }

    fn name(&self, file: u64) -> String {
        format!("{file:05}.bin")
    }

    fn check(&self, mount: &MountProgram, file: u64) -> Result<()> {
        let name = self.name(file);
        let read = fs::read(mount.data().join(&name)).with_context(|| name.clone())?;
        ensure!(read == fs::read(self.home.path().join(&name))?, "{name} has other bytes");
        Ok(())
    }
}

/// Blocks in all ranges.
fn union(ranges: &[(u64, u64)]) -> BTreeSet<u64> {
    ranges.iter().flat_map(|(first, end)| *first..*end).collect()
}

/// The certificate says of the releases what the ledger says.
fn assert_certified(receipt: &Value, released: &[(u64, u64)]) -> Result<()> {
    let observed = &receipt["certificate"]["observed"];
    assert_eq!(observed["releases"], released.len(), "{receipt:#}");
    let ranges: Vec<(u64, u64)> = serde_json::from_value(observed["released"].clone())?;
    assert_eq!(union(&ranges), union(released), "{observed:#}");
    Ok(())
}

#[test]
fn in_order_each_window_is_released_once() -> Result<()> {
    let site = Site::new(24, 700)?;
    let join = site.lease()?;
    let mount = MountProgram::start_at(site.wan.cloud(), &join, SMALL_CACHE)?;
    for file in 0..site.blocks {
        site.check(&mount, file)?;
    }
    let receipt = mount.finish()?;
    assert_eq!((&receipt["outcome"], &receipt["read_errors"]), (&"wiped".into(), &0.into()));
    let released = site.released(&join)?;
    ensure!(released.iter().all(|(first, end)| end - first <= WINDOW), "{released:?}");
    assert_eq!(union(&released).len() as u64, site.blocks);
    assert_eq!(released.len() as u64, site.blocks / WINDOW, "{released:?}");
    assert_certified(&receipt, &released)
}

/// A shuffled epoch after another, of data much larger than the cache.
#[test]
fn shuffled_reading_asks_no_more_than_twice_a_window() -> Result<()> {
    const SEED: u64 = 0x5eed_0701;
    let site = Site::new(24, 710)?;
    let join = site.lease()?;
    let mount = MountProgram::start_at(site.wan.cloud(), &join, SMALL_CACHE)?;
    let mut dice = Dice::new(SEED);
    for _ in 0..3 {
        let mut order: Vec<u64> = (0..site.blocks).collect();
        for at in (1..order.len()).rev() {
            order.swap(at, usize::try_from(dice.below(at as u64 + 1))?);
        }
        for file in order {
            site.check(&mount, file).with_context(|| format!("seed {SEED:#x}"))?;
        }
    }
    let receipt = mount.finish()?;
    assert_eq!((&receipt["outcome"], &receipt["read_errors"]), (&"wiped".into(), &0.into()));
    let released = site.released(&join)?;
    for block in 0..site.blocks {
        let times = released.iter().filter(|(first, end)| (*first..*end).contains(&block)).count();
        ensure!((1..=2).contains(&times), "block {block} was released {times} times: {released:?}");
    }
    assert_certified(&receipt, &released)
}

/// What the worker had no use for yet was not handed out, and after the revocation never is.
#[test]
fn a_revocation_leaves_the_rest_unreleased() -> Result<()> {
    let site = Site::new(24, 720)?;
    let join = site.lease()?;
    let mut mount = MountProgram::start_at(site.wan.cloud(), &join, SMALL_CACHE)?;
    for file in 0..4 {
        site.check(&mount, file)?;
    }
    site.gateway.revoke(&join)?;
    wait_for("reads to fail", || fs::read(mount.data().join(site.name(20))).err())?;
    mount.process().wait()?;
    let shown = wait_for("the lease to close", || {
        let shown = site.gateway.show(&join).ok()?;
        ["wiped", "withdrawn"].iter().any(|end| shown["phase"] == *end).then_some(shown)
    })?;
    let released = site.released(&join)?;
    let blocks = union(&released);
    ensure!((4..=10).contains(&blocks.len()), "{released:?}");
    assert_eq!(shown["releases"], released.len());
    let bytes = shown["released_bytes"].as_u64().context("no bytes")?;
    ensure!(bytes <= (blocks.len() * BLOCK) as u64, "{shown:#}");
    let show = ["audit", "show", "--ledger"].map(std::ffi::OsString::from);
    let state = site.gateway.state().into_os_string();
    let story = succeed(tidegate(show.into_iter().chain([state, lease_of(&join)?.into()]))?)?;
    for (first, end) in &released {
        let told = format!("keys of blocks {first} to {} went to share 0", end - 1);
        ensure!(story.contains(&told), "{told}: {story}");
    }
    Ok(())
}

/// The gateway is away when the next window is needed: the read waits for it.
#[test]
fn a_window_waits_for_a_gateway_that_is_away() -> Result<()> {
    let mut site = Site::new(16, 730)?;
    let join = site.lease()?;
    let mount = MountProgram::start_at(site.wan.cloud(), &join, SMALL_CACHE)?;
    site.check(&mount, 0)?;
    site.gateway.process().stop(Signal::KILL)?;
    let late = std::thread::scope(|scope| -> Result<bool> {
        let path = mount.data().join(site.name(14));
        let reader = scope.spawn(move || fs::read(path));
        wait_for("the worker to notice", || {
            mount.log().contains("no gateway answers").then_some(())
        })?;
        let stalls = !reader.is_finished();
        site.gateway.restart()?;
        let read = reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
        ensure!(read == fs::read(site.home.path().join(site.name(14)))?, "other bytes");
        Ok(stalls)
    })?;
    ensure!(late, "the read did not wait");
    let receipt = mount.finish()?;
    assert_eq!(receipt["read_errors"], 0, "{receipt:#}");
    let released = site.released(&join)?;
    ensure!(union(&released).contains(&14), "{released:?}");
    // A gateway that is killed between a release's revision and its entry has released nothing, and the
    // certificate counts it all the same.
    let observed = &receipt["certificate"]["observed"];
    ensure!(observed["releases"].as_u64() >= Some(released.len() as u64), "{receipt:#}");
    let certified: Vec<(u64, u64)> = serde_json::from_value(observed["released"].clone())?;
    ensure!(union(&certified).is_superset(&union(&released)), "{observed:#} {released:?}");
    Ok(())
}

/// The worker that takes a killed one's place has its cache, not its keys: it asks for those of what
/// is read.
#[test]
fn a_restarted_worker_asks_again_for_what_it_needs() -> Result<()> {
    let site = Site::new(12, 740)?;
    let join = site.lease()?;
    let mount = MountProgram::start_at(site.wan.cloud(), &join, &[])?;
    let want = digest::tree(site.home.path())?;
    digest::assert_same(&want, &digest::tree(mount.data())?);
    let before = site.released(&join)?.len();
    let worker = mount.worker()?;
    signal_pid(worker, Signal::KILL)?;
    wait_for("another worker", || mount.worker().ok().filter(|pid| *pid != worker))?;
    site.check(&mount, 6)?;
    let released = site.released(&join)?;
    assert_eq!(released[before..], [(0, 0), (6, 8)], "names, then the window of what was read");
    digest::assert_same(&want, &digest::tree(mount.data())?);
    let receipt = mount.finish()?;
    assert_eq!(receipt["read_errors"], 0, "{receipt:#}");
    let released = site.released(&join)?;
    assert_eq!(released.len() - before, 1 + 6, "{released:?}");
    assert_certified(&receipt, &released)
}

/// One lease for several workers: each has its own join file, its own share and none of the others'.
#[test]
fn ranks_of_one_lease_see_their_own_shares() -> Result<()> {
    let site = Site::new(12, 750)?;
    let from = site.home.path().display().to_string();
    let join = site.gateway.lease("all.join", ["--from", &from, "--ranks", "3"])?;
    ensure!(!join.exists(), "there is one file a rank");
    let mut names = Vec::new();
    let mut mounts = Vec::new();
    for rank in 0..3 {
        let join = join.with_extension(format!("join.{rank}"));
        let mount = MountProgram::start_at(site.wan.cloud(), &join, &[])?;
        let mine = digest::contents(mount.data())?;
        ensure!(!mine.is_empty() && mine.len() < 12, "{mine:?}");
        names.extend(mine);
        mounts.push((join, mount));
    }
    names.sort();
    assert_eq!(names, digest::contents(site.home.path())?, "no file is in two shares");
    for (join, mount) in mounts {
        let receipt = mount.finish()?;
        assert_eq!(receipt["outcome"], "wiped", "{receipt:#}");
        ensure!(receipt["lease"] == lease_of(&join)?.as_str(), "{receipt:#}");
    }
    Ok(())
}
