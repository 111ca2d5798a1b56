//! Until when a worker serves, what ends it, and what brings it back: heartbeats, the dead-man's switch,
//! deadlines, fencing and drain, on real programs that are stopped, cut off and killed.

mod cut;

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::io::Errno;
use rustix::process::Signal;
use tidegate_tests::dataset;
use tidegate_tests::held::Held;
use tidegate_tests::process::{Process, signal_pid, wait_for};
use tidegate_tests::programs::{GatewayProgram, MountProgram};
use tidegate_tests::reader::python;
use tidegate_tests::scratch::Scratch;
use tidegate_tests::tidegate::Run;
use tidegate_tests::wan::Wan;

/// A worker is taken for gone as soon as it has destroyed its keys.
const QUICK: &str = "heartbeat_s = 1\ngrace_s = 4\nsilence_s = 4";
/// What `run` and `mount` end with when the lease was lost under the data's users.
const LEASE_LOST: i32 = 124;

/// A large file is read directly, a small one stays in the kernel's page cache.
const NAMES: [&str; 2] = ["large", "small"];

fn home() -> Result<Scratch> {
    let home = Scratch::new()?;
    dataset::write(home.path(), "large", &dataset::bytes(1, 3 << 20))?;
    dataset::write(home.path(), "small", &dataset::bytes(2, 10_000))?;
    Ok(home)
}

struct Site {
    home: Scratch,
    mount: MountProgram,
    gateway: GatewayProgram,
    wan: Arc<Wan>,
    join: PathBuf,
}

impl Site {
    fn new(config: &str, lease: &[&str]) -> Result<Self> {
        let wan = Wan::start(Duration::from_millis(20), 1_000_000_000)?;
        Self::over(Arc::new(wan), config, lease)
    }

    fn over(wan: Arc<Wan>, config: &str, lease: &[&str]) -> Result<Self> {
        let home = home()?;
        let from = home.path().display().to_string();
        let gateway = GatewayProgram::start_at(wan.home(), &from, config)?;
        let join = gateway
            .lease("one.join", ["--from", &from].into_iter().chain(lease.iter().copied()))?;
        let mount = MountProgram::start_at(wan.cloud(), &join, &[])?;
        Ok(Self { home, mount, gateway, wan, join })
    }

    /// Every byte of the mount is as at home.
    fn check(&self) -> Result<()> {
        for name in NAMES {
            let same = fs::read(self.mount.data().join(name))? == fs::read(self.home.join(name))?;
            ensure!(same, "{name} is not as at home");
        }
        Ok(())
    }

    /// The lease's phase, as the gateway says it.
    fn phase(&self) -> Option<String> {
        Some(self.gateway.show(&self.join).ok()?["phase"].as_str()?.to_owned())
    }
}

/// All the ways to plaintext that was read once: open files, and mappings in other processes.
struct Readers {
    files: Vec<File>,
    mappings: Vec<Process>,
    _logs: Scratch,
}

impl Readers {
    fn of(data: &Path) -> Result<Self> {
        let script = "import mmap, os, sys\n\
                      fd = os.open(sys.argv[1], os.O_RDONLY)\n\
                      view = mmap.mmap(fd, 0, prot=mmap.PROT_READ)\n\
                      first = view[4096]\n\
                      print('mapped', flush=True)\n\
                      while view[4096] == first: pass\n\
                      print('other bytes', flush=True)";
        let (mut files, mut mappings, logs) = (Vec::new(), Vec::new(), Scratch::new()?);
        for name in NAMES {
            let file = File::open(data.join(name))?;
            file.read_exact_at(&mut [0; 100], 4096)?;
            files.push(file);
            let mut command = Command::new(python()?);
            command.args(["-c", script]).arg(data.join(name));
            let mut mapping = Process::start(name, &mut command, logs.path())?;
            mapping.wait_ready(|mapping| mapping.log().contains("mapped"))?;
            mappings.push(mapping);
        }
        Ok(Self { files, mappings, _logs: logs })
    }

    fn read(&self) -> Vec<Result<(), i32>> {
        let read = |file: &File| match file.read_exact_at(&mut [0; 100], 4096) {
            Ok(()) => Ok(()),
            Err(error) => Err(error.raw_os_error().unwrap_or_default()),
        };
        self.files.iter().map(read).collect()
    }

    /// Waits until none of them gets a byte; mapped pages are gone as well.
    fn expect_the_end(&mut self) -> Result<()> {
        wait_for("open files to fail", || self.read().iter().all(Result::is_err).then_some(()))?;
        for mapping in &mut self.mappings {
            let status = mapping.wait()?;
            let signal = status.signal();
            ensure!(signal == Some(Signal::BUS.as_raw()), "{status}: {}", mapping.log());
        }
        Ok(())
    }
}

/// Past the grace no byte is served, by open file or mapping either; when a gateway is heard again and
/// the lease still lives, reads are answered again under the same mount.
fn silence_and_return(
    site: &mut Site,
    away: impl FnOnce(&mut GatewayProgram) -> Result<()>,
    back: impl FnOnce(&mut GatewayProgram) -> Result<()>,
) -> Result<()> {
    site.check()?;
    let mut readers = Readers::of(site.mount.data())?;
    away(&mut site.gateway)?;
    let gone = Instant::now();
    ensure!(readers.read() == [Ok(()), Ok(())], "within the grace what is here is served");
    readers.expect_the_end()?;
    // A heartbeat a second, and one may have been lost on the way.
    ensure!(gone.elapsed() > Duration::from_secs(1), "it did not wait for the grace");
    ensure!(gone.elapsed() < Duration::from_secs(60), "it took {:?}", gone.elapsed());
    let io = Errno::IO.raw_os_error();
    ensure!(readers.read() == [Err(io), Err(io)], "{:?}", readers.read());
    for name in NAMES {
        let error = File::open(site.mount.data().join(name)).err().context("it opened")?;
        ensure!(error.raw_os_error() == Some(io), "{error}");
    }
    ensure!(fs::read_dir(site.mount.data())?.count() == 2, "names can still be listed");
    wait_for("the mount to say so", || {
        site.mount.log().contains("reads fail until one is").then_some(())
    })?;
    back(&mut site.gateway)?;
    wait_for("reads to be answered again", || (readers.read() == [Ok(()), Ok(())]).then_some(()))
        .with_context(|| site.mount.log())?;
    site.check()?;
    Readers::of(site.mount.data())?;
    ensure!(site.gateway.entries("attached")? == 2, "it attached again, with an entry");
    ensure!(site.gateway.entries("keys-released")? >= 2, "with keys anew, and an entry for them");
    drop(readers);
    Ok(())
}

#[test]
fn s37_past_the_grace_nothing_is_read_until_a_gateway_is_started_again() -> Result<()> {
    let mut site = Site::new(QUICK, &[])?;
    silence_and_return(
        &mut site,
        |gateway| gateway.process().stop(Signal::KILL).map(drop),
        GatewayProgram::restart,
    )?;
    let receipt = site.mount.finish()?;
    assert_eq!(receipt["outcome"], "wiped", "{receipt:#}");
    Ok(())
}

/// A gateway that does not listen for a while cannot say that its workers were silent. What lies sealed
/// on the worker's disk is used again.
#[test]
fn s38_reads_come_back_when_a_gateway_stood_still_past_the_grace() -> Result<()> {
    let mut site = Site::new(QUICK, &[])?;
    let begun = Instant::now();
    silence_and_return(
        &mut site,
        |gateway| gateway.process().signal(Signal::STOP),
        |gateway| {
            // Twice its grace: it finds the worker silent when it goes on.
            wait_for("the grace to pass", || (begun.elapsed().as_secs() >= 9).then_some(()))?;
            gateway.process().signal(Signal::CONT)
        },
    )?;
    let receipt = site.mount.finish()?;
    assert_eq!(receipt["outcome"], "wiped", "{receipt:#}");
    let (left, selected) = (receipt["left_bytes"].as_u64(), receipt["selected_bytes"].as_u64());
    let (left, selected) = (left.context("no left_bytes")?, selected.context("no selected_bytes")?);
    assert!(left < selected + selected / 2, "{left} sealed bytes left for {selected} selected");
    Ok(())
}

/// `run` ends its job, also one that does not listen, with an exit code of its own.
#[test]
fn run_ends_its_job_past_the_grace() -> Result<()> {
    let home = home()?;
    let from = home.path().display().to_string();
    let mut gateway = GatewayProgram::start(&from, QUICK)?;
    let join = gateway.lease("one.join", ["--from", &from])?;
    let run = Run::new()?.arg("--join").arg(&join);
    let script = "trap '' TERM; cat \"$TIDEGATE_DATA\"/* > /dev/null; echo reading; \
                  while :; do sleep 0.1; done";
    let (mut process, scratch) = run.shell(script).start()?;
    process.wait_ready(|process| process.log().contains("reading"))?;
    gateway.process().stop(Signal::KILL)?;
    let status = process.wait()?;
    assert_eq!(status.code(), Some(LEASE_LOST), "{}", process.log());
    assert!(process.log().contains("no gateway was heard"), "{}", process.log());
    tidegate_tests::tidegate::nothing_left(&scratch)
}

/// A worker that does not get on is ended by its holder, with all that the kernel keeps of the mount.
#[test]
fn s41_a_stopped_worker_is_ended_by_its_holder() -> Result<()> {
    let mut site = Site::new(QUICK, &[])?;
    site.check()?;
    let mut readers = Readers::of(site.mount.data())?;
    signal_pid(site.mount.worker()?, Signal::STOP)?;
    readers.expect_the_end()?;
    let status = site.mount.process().wait()?;
    assert_eq!(status.code(), Some(LEASE_LOST), "{}", site.mount.log());
    assert!(fs::read_dir(site.mount.cache())?.next().is_none(), "nothing is left in the cache");
    wait_for("the lease to be withdrawn", || {
        site.phase().filter(|phase| phase == "withdrawn").map(drop)
    })
}

#[test]
fn run_ends_its_job_when_its_worker_is_stopped() -> Result<()> {
    let home = home()?;
    let from = home.path().display().to_string();
    let gateway = GatewayProgram::start(&from, QUICK)?;
    let join = gateway.lease("one.join", ["--from", &from])?;
    let mut held = Held::start(Run::new()?.arg("--join").arg(&join))?;
    fs::read(held.data().join("small"))?;
    signal_pid(held.worker()?, Signal::STOP)?;
    let status = held.process().wait()?;
    assert_eq!(status.code(), Some(LEASE_LOST), "{}", held.log());
    Ok(())
}

/// A killed worker's pages outlive it, and its successor finds no gateway: past the grace they go too.
#[test]
fn s41_pages_of_a_killed_worker_do_not_outlive_the_grace() -> Result<()> {
    let mut site = Site::new(QUICK, &[])?;
    site.check()?;
    let mut readers = Readers::of(site.mount.data())?;
    site.gateway.process().stop(Signal::KILL)?;
    signal_pid(site.mount.worker()?, Signal::KILL)?;
    readers.expect_the_end()?;
    let status = site.mount.process().wait()?;
    assert_eq!(status.code(), Some(LEASE_LOST), "{}", site.mount.log());
    Ok(())
}

/// The lease's own deadline binds the worker without the gateway's word.
#[test]
fn s39_the_deadline_ends_reads_while_the_gateway_stands_still() -> Result<()> {
    let mut site = Site::new("heartbeat_s = 1\ngrace_s = 300", &["--for", "12s"])?;
    site.check()?;
    let mut readers = Readers::of(site.mount.data())?;
    site.gateway.process().signal(Signal::STOP)?;
    let begun = Instant::now();
    readers.expect_the_end()?;
    ensure!(begun.elapsed() < Duration::from_secs(60), "it waited for the grace");
    drop(readers);
    wait_for("the mount to say so", || site.mount.log().contains("lease ended").then_some(()))?;
    site.gateway.process().signal(Signal::CONT)?;
    let status = site.mount.process().wait()?;
    assert_eq!(status.code(), Some(LEASE_LOST), "{}", site.mount.log());
    assert_eq!(site.phase().as_deref(), Some("wiped"), "it could still say that it wiped");
    Ok(())
}

/// Certificates are renewed for as long as a lease lives, each before it ends.
#[test]
fn certificates_are_renewed_over_a_long_life() -> Result<()> {
    let home = Scratch::new()?;
    let want = dataset::bytes(3, 20 << 20);
    dataset::write(home.path(), "slow", &want)?;
    let from = home.path().display().to_string();
    // Some 17 s of data and three lives of a certificate.
    let config = format!("{QUICK}\ncertificate_s = 5\nrate_limit = 1300000");
    let gateway = GatewayProgram::start(&from, &config)?;
    let join = gateway.lease("one.join", ["--from", &from])?;
    let mount = MountProgram::start(&join, &[])?;
    let begun = Instant::now();
    assert!(fs::read(mount.data().join("slow"))? == want);
    ensure!(begun.elapsed() > Duration::from_secs(10), "it was too quick to show anything");
    let receipt = mount.finish()?;
    assert_eq!(receipt["outcome"], "wiped", "{receipt:#}");
    assert_eq!(receipt["read_errors"], 0, "{receipt:#}");
    Ok(())
}

/// Who joins with a further token takes the rank over; who had it gets nothing more and ends.
#[test]
fn the_newest_worker_of_a_rank_fences_the_older() -> Result<()> {
    let mut site = Site::new(QUICK, &[])?;
    site.check()?;
    let mut readers = Readers::of(site.mount.data())?;
    let further = site.gateway.token(&site.join, "two.join")?;
    ensure!(readers.read() == [Ok(()), Ok(())], "a token alone changes nothing");
    let newer = MountProgram::start_at(site.wan.cloud(), &further, &[])?;
    readers.expect_the_end()?;
    drop(readers);
    let status = site.mount.process().wait()?;
    assert_eq!(status.code(), Some(LEASE_LOST), "{}", site.mount.log());
    assert!(fs::read_dir(site.mount.cache())?.next().is_none(), "nothing is left in the cache");
    for kind in ["token-made", "fenced"] {
        assert_eq!(site.gateway.entries(kind)?, 1, "{kind}");
    }
    // It does not come back, not even with its token.
    let mut again = MountProgram::launch(&site.join, &[])?;
    assert_eq!(again.process().wait()?.code(), Some(125), "{}", again.log());
    for name in NAMES {
        ensure!(fs::read(newer.data().join(name))? == fs::read(site.home.join(name))?, "{name}");
    }
    newer.finish()?;
    // The one that was fenced has said so too.
    assert_eq!(site.gateway.entries("wiped")?, 2);
    assert_eq!(site.phase().as_deref(), Some("wiped"));
    Ok(())
}

/// Waits until the gateway has heard the worker for so many seconds more.
fn hear(gateway: &GatewayProgram, join: &Path, seconds: u64) -> Result<()> {
    let last = || gateway.show(join).ok()?["workers"][0]["last_seen"].as_u64();
    let begun = last().context("no worker was heard")?;
    wait_for("heartbeats", || last().filter(|last| *last >= begun + seconds).map(drop))
}

/// Under a drain reads go on, in new files too; the mount ends by itself when nobody uses it.
#[test]
fn s40_a_drained_mount_ends_when_nobody_uses_it() -> Result<()> {
    let mut site = Site::new(QUICK, &[])?;
    let file = File::open(site.mount.data().join("large"))?;
    site.gateway.drain(&site.join)?;
    wait_for("the mount to hear of it", || {
        site.mount.log().contains("the lease is drained").then_some(())
    })?;
    // Several looks of the mount and heartbeats: nothing may end while the file is open.
    for second in 0..5 {
        hear(&site.gateway, &site.join, 1)?;
        file.read_exact_at(&mut [0; 4096], second * 4096)?;
        site.check()?;
    }
    drop(file);
    let status = site.mount.process().wait()?;
    assert!(status.success(), "{status}: {}", site.mount.log());
    assert_eq!(site.phase().as_deref(), Some("wiped"));
    Ok(())
}

#[test]
fn a_drained_run_lets_its_job_finish() -> Result<()> {
    let home = home()?;
    let from = home.path().display().to_string();
    let gateway = GatewayProgram::start(&from, QUICK)?;
    let join = gateway.lease("one.join", ["--from", &from])?;
    let held = Held::start(Run::new()?.arg("--join").arg(&join))?;
    gateway.drain(&join)?;
    hear(&gateway, &join, 3)?;
    assert!(fs::read(held.data().join("large"))? == fs::read(home.join("large"))?);
    let (_, receipt) = held.finish()?;
    assert_eq!(receipt["outcome"], "wiped", "{receipt:#}");
    Ok(())
}
