//! Gateway and worker as two programs on one host, and what happens when one of them dies.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::process::Signal;
use tidegate_tests::dataset::{self, odd_tree};
use tidegate_tests::device::LoopDevice;
use tidegate_tests::digest;
use tidegate_tests::part;
use tidegate_tests::process::{Process, signal_pid, wait_for};
use tidegate_tests::programs::{GatewayProgram, MountProgram, lease_of, succeed};
use tidegate_tests::scratch::Scratch;
use tidegate_tests::tidegate::{Run, tidegate};

/// Short, so that a vanished worker is noticed within the test.
const QUICK: &str = "heartbeat_s = 1\ngrace_s = 4\nsilence_s = 4";

fn start(home: &Scratch, extra: &str) -> Result<GatewayProgram> {
    GatewayProgram::start(&home.path().display().to_string(), extra)
}

#[test]
fn gateway_and_mount_serve_the_tree_and_close_as_wiped() -> Result<()> {
    let home = Scratch::new()?;
    odd_tree(home.path())?;
    let gateway = start(&home, "")?;
    let from = ["--from".as_ref(), home.path().as_os_str()];
    let join = gateway.lease("one.join", from)?;
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&join)?.permissions());
    assert_eq!(mode & 0o777, 0o600, "the join file is its owner's alone");
    let mut mount = MountProgram::start(&join, &[])?;
    for pid in [gateway.pid(), mount.process().pid(), mount.worker()?] {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
        let core = limits.lines().find(|line| line.starts_with("Max core file size"));
        let words: Vec<_> = core.context("no core limit")?.split_whitespace().collect();
        assert_eq!(words[4..6], ["0", "0"], "neither program leaves core images");
    }
    digest::assert_same(&digest::tree(home.path())?, &digest::tree(mount.data())?);
    let receipt = mount.finish()?;
    assert_eq!(receipt["outcome"], "wiped", "{receipt:#}");
    let shown = gateway.show(&join)?.to_string();
    assert!(shown.contains("wiped"), "{shown}");
    let verify = tidegate([
        "audit".as_ref(),
        "verify".as_ref(),
        "--ledger".as_ref(),
        gateway.state().as_os_str(),
    ])?;
    succeed(verify)?;
    Ok(())
}

/// The namespace of a `run` is a copy of what was mounted then; it lets go of what is unmounted.
#[test]
fn a_run_that_came_later_keeps_no_mount_in_use() -> Result<()> {
    let home = Scratch::new()?;
    odd_tree(home.path())?;
    let gateway = start(&home, "")?;
    let from = ["--from".as_ref(), home.path().as_os_str()];
    let mount = MountProgram::start(&gateway.lease("one.join", from)?, &[])?;
    let run = Run::from_dir(home.path())?;
    let (begun, ended) = (run.scratch().join("begun"), run.scratch().join("ended"));
    let script = format!(
        "touch {}; until test -e {}; do sleep 0.02; done",
        begun.display(),
        ended.display()
    );
    let (mut later, _scratch) = run.shell(&script).start()?;
    later.wait_ready(|_| begun.exists())?;
    let receipt = mount.finish()?;
    assert_eq!(receipt["outcome"], "wiped", "{receipt:#}");
    fs::write(ended, "")?;
    assert!(later.wait()?.success(), "{}", later.log());
    Ok(())
}

/// The same command for a bare GPU machine: `run` with a join file, the gateway elsewhere.
#[test]
fn run_joins_a_lease_of_a_gateway_elsewhere() -> Result<()> {
    let home = Scratch::new()?;
    dataset::flat(home.path(), 3, 700_000, 15)?;
    let gateway = start(&home, "")?;
    let join = gateway.lease("one.join", ["--from".as_ref(), home.path().as_os_str()])?;
    let run = Run::new()?.arg("--join").arg(&join);
    let outcome = run.shell("cat \"$TIDEGATE_DATA\"/*.bin | wc -c").succeed()?;
    assert_eq!(outcome.stdout.trim(), "2100000");
    assert_eq!(outcome.receipt()?["outcome"], "wiped");
    outcome.expect_nothing_left()
}

/// Both hold secrets: no process of the same user looks into their memory.
#[test]
fn the_memory_of_both_is_their_own() -> Result<()> {
    // Root without the right to trace, as an ordinary user is towards their own processes.
    const WITHOUT: [&str; 3] = ["setpriv", "--inh-caps=-all", "--bounding-set=-sys_ptrace"];
    let may_look = |pid: u32| {
        let mut command = Command::new(part::program(WITHOUT[0])?);
        command.args(&WITHOUT[1..]).arg("readlink").arg(format!("/proc/{pid}/exe"));
        anyhow::Ok(command.output()?.status.success())
    };
    let home = Scratch::new()?;
    dataset::flat(home.path(), 1, 100_000, 70)?;
    let mut gateway =
        GatewayProgram::start_behind(&WITHOUT, &home.path().display().to_string(), "")?;
    let join = gateway.lease("one.join", ["--from".as_ref(), home.path().as_os_str()])?;
    let mut mount = MountProgram::start_behind(&WITHOUT, &join, &[])?;
    assert!(!may_look(gateway.process().pid())?, "into the gateway's");
    assert!(!may_look(mount.process().pid())?, "into the mount's");

    let mut sleep = Command::new(part::program(WITHOUT[0])?);
    let other =
        Process::start("sleep", sleep.args(&WITHOUT[1..]).args(["sleep", "600"]), home.path())?;
    wait_for("it to be looked into", || may_look(other.pid()).ok().filter(|may| *may))?;
    mount.finish()?;
    Ok(())
}

/// P8: where the ledger cannot be written, no key is released and nothing is mounted. Its batches
/// alone lie on the full disk, so that nothing else fails before them.
#[test]
fn no_key_leaves_while_the_ledger_cannot_be_written() -> Result<()> {
    let (home, scratch) = (Scratch::new()?, Scratch::new()?);
    dataset::flat(home.path(), 2, 100_000, 16)?;
    let state = scratch.join("state");
    scratch.dir("state/ledger")?;
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700))?;
    let device = LoopDevice::ext4(&scratch, "state/ledger/batches", 16 << 20)?;
    let mut gateway = GatewayProgram::start_in(&state, &home.path().display().to_string(), "")?;
    let join = gateway.lease("one.join", ["--from".as_ref(), home.path().as_os_str()])?;
    let revisions = state.join("leases").join(lease_of(&join)?);
    let revisions = || anyhow::Ok(fs::read_dir(&revisions)?.count());
    let (before, filler) = (revisions()?, device.fill()?);
    let mut mount = MountProgram::launch(&join, &[])?;
    let status = mount.process().wait()?;
    assert_eq!(status.code(), Some(125), "{}", mount.log());
    assert!(fs::read_dir(mount.data())?.next().is_none(), "something is mounted");
    assert!(revisions()? > before, "it failed before it came to the ledger: {}", gateway.log());
    fs::remove_file(filler)?;
    let words = ["--json", "audit", "list", "--ledger"].map(std::ffi::OsString::from);
    let list = succeed(tidegate(words.into_iter().chain([state.into_os_string()]))?)?;
    for kind in ["attached", "keys-released"] {
        assert!(!list.contains(&format!("\"type\":\"{kind}\"")), "{list}");
    }
    gateway.process().stop(Signal::TERM)?;
    Ok(())
}

#[test]
fn two_ranks_mount_side_by_side() -> Result<()> {
    let home = Scratch::new()?;
    dataset::flat(home.path(), 10, 900_000, 10)?;
    let gateway = start(&home, "")?;
    let mut names = Vec::new();
    for rank in ["0/2", "1/2"] {
        let args = ["--from", &home.path().display().to_string(), "--rank", rank];
        let join = gateway.lease(&rank.replace('/', "of"), args)?;
        let mount = MountProgram::start(&join, &[])?;
        names.extend(digest::contents(mount.data())?);
        mount.finish()?;
    }
    names.sort();
    assert_eq!(names, digest::contents(home.path())?);
    Ok(())
}

/// The worker and its holder vanish: the lease closes as withdrawn, with what had been released.
#[test]
fn a_worker_that_vanished_closes_its_lease_as_withdrawn() -> Result<()> {
    let home = Scratch::new()?;
    dataset::flat(home.path(), 4, 5 << 20, 20)?;
    let gateway = start(&home, QUICK)?;
    let join = gateway.lease("one.join", ["--from".as_ref(), home.path().as_os_str()])?;
    let mut mount = MountProgram::start(&join, &[])?;
    fs::read(mount.data().join("00000.bin"))?;
    let worker = mount.worker()?;
    mount.process().stop(Signal::KILL)?;
    // The worker ends with its holder; if it has not yet, it does now.
    let _ = signal_pid(worker, Signal::KILL);
    wait_for("the lease to be withdrawn", || {
        gateway.show(&join).ok().filter(|shown| shown.to_string().contains("withdrawn"))
    })
    .with_context(|| gateway.log())?;
    let show = ["--json", "audit", "show", "--ledger"].map(std::ffi::OsString::from);
    let words: Vec<_> = show
        .into_iter()
        .chain([gateway.state().into_os_string(), lease_of(&join)?.into()])
        .collect();
    let told = || succeed(tidegate(&words).ok()?).ok();
    let story = wait_for("its entry", || told().filter(|story| story.contains("lease-closed")))?;
    let story: serde_json::Value = serde_json::from_str(&story)?;
    assert_eq!(story["state"], "withdrawn", "{story:#}");
    let certificate = &story["certificates"][0];
    assert!(certificate["stated"].is_null(), "nothing is claimed for the worker: {story:#}");
    let released = &certificate["observed"]["released"];
    assert!(released[0].is_array(), "what had been released is named: {story:#}");
    assert_eq!(certificate["observed"]["wrapped_key_absent"], true, "{story:#}");
    Ok(())
}

/// A gateway that was killed and started again goes on serving the same lease.
#[test]
fn the_gateway_is_killed_and_comes_back() -> Result<()> {
    let home = Scratch::new()?;
    dataset::flat(home.path(), 12, 3 << 20, 30)?;
    let mut gateway = start(&home, "heartbeat_s = 1\ngrace_s = 60\nrate_limit = 8000000")?;
    let join = gateway.lease("one.join", ["--from".as_ref(), home.path().as_os_str()])?;
    let mount = MountProgram::start(&join, &[])?;
    fs::read(mount.data().join("00000.bin"))?;
    gateway.crash_and_restart()?;
    digest::assert_same(&digest::contents(home.path())?, &digest::contents(mount.data())?);
    let receipt = mount.finish()?;
    assert_eq!(receipt["outcome"], "wiped", "{receipt:#}");
    Ok(())
}

#[test]
fn a_revoked_lease_ends_the_mount() -> Result<()> {
    let home = Scratch::new()?;
    dataset::flat(home.path(), 2, 100_000, 40)?;
    let gateway = start(&home, QUICK)?;
    let join = gateway.lease("one.join", ["--from".as_ref(), home.path().as_os_str()])?;
    let mut mount = MountProgram::start(&join, &[])?;
    fs::read(mount.data().join("00000.bin"))?;
    gateway.revoke(&join)?;
    let status = mount.process().wait()?;
    assert!(!status.success(), "a lease taken away is no success:\n{}", mount.log());
    assert!(fs::read_dir(mount.data())?.next().is_none(), "nothing is mounted any more");
    assert!(fs::read_dir(mount.cache())?.next().is_none(), "nothing is left in the cache");
    Ok(())
}

/// P6: overwriting a large cache takes longer than the grace. The worker says all the while that it
/// lives, so the lease waits for its statement, however it ends: by the worker or by the gateway.
#[test]
fn a_wipe_that_takes_longer_than_the_grace_closes_as_wiped() -> Result<()> {
    for revoked in [false, true] {
        let (home, scratch) = (Scratch::new()?, Scratch::new()?);
        dataset::flat(home.path(), 2, 3 << 20, 41)?;
        let device = LoopDevice::ext4(&scratch, "cache", 64 << 20)?;
        let gateway = start(&home, QUICK)?;
        let join = gateway.lease("one.join", ["--from".as_ref(), home.path().as_os_str()])?;
        let cache = device.path().display().to_string();
        let mut mount = MountProgram::start(&join, &["--cache", &cache])?;
        digest::assert_same(&digest::contents(home.path())?, &digest::contents(mount.data())?);
        let frozen = device.freeze()?;
        if revoked {
            gateway.revoke(&join)?;
        } else {
            mount.process().signal(Signal::TERM)?;
        }
        let begun = Instant::now();
        wait_for("three times the grace", || {
            let shown = gateway.show(&join).map(|shown| shown.to_string()).unwrap_or_default();
            assert!(shown.contains("lease"), "the gateway does not answer");
            assert!(!shown.contains("withdrawn"), "given up after {:?}: {shown}", begun.elapsed());
            (begun.elapsed() >= Duration::from_secs(12)).then_some(())
        })?;
        drop(frozen);
        mount.process().wait()?;
        assert_eq!(mount.receipt()?["outcome"], "wiped", "{}", mount.log());
        assert!(gateway.show(&join)?.to_string().contains("wiped"), "{}", gateway.log());
    }
    Ok(())
}

/// A worker that replaces a killed one, and a wipe that is done, both find a gateway that can write
/// nothing: they wait, and go on when it can.
#[test]
fn a_successor_and_a_wiped_worker_wait_for_a_gateway_in_trouble() -> Result<()> {
    let (home, scratch) = (Scratch::new()?, Scratch::new()?);
    dataset::flat(home.path(), 3, 2 << 20, 42)?;
    let device = LoopDevice::ext4(&scratch, "state", 64 << 20)?;
    let state = device.path().join("state");
    let allow = home.path().display().to_string();
    let gateway = GatewayProgram::start_in(&state, &allow, "heartbeat_s = 1\ngrace_s = 100")?;
    let join = gateway.lease("one.join", ["--from".as_ref(), home.path().as_os_str()])?;
    let mut mount = MountProgram::start(&join, &[])?;
    let want = digest::contents(home.path())?;
    digest::assert_same(&want, &digest::contents(mount.data())?);
    let filler = device.fill()?;
    signal_pid(mount.worker()?, Signal::KILL)?;
    wait_for("the successor to wait", || mount.log().contains("not attached yet").then_some(()))?;
    fs::remove_file(filler)?;
    digest::assert_same(&want, &digest::contents(mount.data())?);
    let filler = device.fill()?;
    mount.process().signal(Signal::TERM)?;
    wait_for("the certificate to wait", || {
        mount.log().contains("its certificate waits").then_some(())
    })?;
    fs::remove_file(filler)?;
    assert!(mount.process().wait()?.success(), "{}", mount.log());
    assert_eq!(mount.receipt()?["outcome"], "wiped");
    Ok(())
}

/// Holder and worker are killed together, so that neither takes the mount away: the next one says how to.
#[test]
fn a_dead_mount_is_named_with_what_to_do() -> Result<()> {
    let home = Scratch::new()?;
    dataset::flat(home.path(), 1, 100_000, 43)?;
    let gateway = start(&home, "")?;
    let from = ["--from".as_ref(), home.path().as_os_str()];
    let (join, next) = (gateway.lease("one.join", from)?, gateway.lease("two.join", from)?);
    let mut mount = MountProgram::start(&join, &[])?;
    mount.process().signal(Signal::STOP)?;
    signal_pid(mount.worker()?, Signal::KILL)?;
    mount.process().stop(Signal::KILL)?;
    wait_for("the connection to end", || fs::read_dir(mount.data()).err())?;
    let cache = home.dir("cache")?;
    let output = tidegate([
        "mount".as_ref(),
        "--join".as_ref(),
        next.as_os_str(),
        "--at".as_ref(),
        mount.data().as_os_str(),
        "--cache".as_ref(),
        cache.as_os_str(),
    ])?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains(&format!("umount -l {}", mount.data().display())), "{said}");
    Ok(())
}
