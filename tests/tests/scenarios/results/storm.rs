//! Faults at random points of a writing job. Whatever was acknowledged is at home byte for byte; nobody
//! ever saw anything there that was not whole; nothing of it lies in clear on the worker's disk.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use tidegate_tests::canary::Canary;
use tidegate_tests::dataset::Dice;
use tidegate_tests::device::LoopDevice;
use tidegate_tests::process::{Process, signal_pid, wait_for};
use tidegate_tests::programs::{MountProgram, succeed};
use tidegate_tests::reader::{python, script};
use tidegate_tests::results::{Desk, Home, Log, Watcher};
use tidegate_tests::scratch::Scratch;
use tidegate_tests::tidegate::tidegate;
use tidegate_tests::wan::Wan;

/// The worker lives through every fault below.
pub(super) const PATIENT: &str = "heartbeat_s = 1\ngrace_s = 30\nsilence_s = 100";
const EIO: i64 = 5;
/// Exit code where something did not come home.
const RESULTS_LOST: i32 = 122;
const DEVICE: u64 = 160 << 20;
/// Longer than any job here writes.
const LONG: Duration = Duration::from_secs(3600);

/// Where faults are drawn from: `TIDEGATE_STORM_SEED` draws the same ones again.
pub(super) fn seed() -> Result<u64> {
    let chosen = std::env::var("TIDEGATE_STORM_SEED").ok().and_then(|text| text.parse().ok());
    let seed = match chosen {
        Some(seed) => seed,
        None => u64::from(getrandom::u32()?),
    };
    eprintln!("seed {seed}: TIDEGATE_STORM_SEED={seed} draws the same faults again");
    Ok(seed)
}

/// A job that writes, and what it writes to.
pub(super) struct Storm {
    // In the order in which they may end.
    writer: Process,
    mount: MountProgram,
    pub(super) desk: Desk,
    pub(super) device: LoopDevice,
    watcher: Watcher,
    canary: Canary,
    log: PathBuf,
    /// Uploads that may have been begun and never heard of.
    orphans: usize,
    /// SHA-256 of what others wrote beside it.
    pub(super) ever: BTreeSet<String>,
    _scratch: Scratch,
}

/// What is asked of the job and of the mount.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job<'a> {
    pub(super) seed: u64,
    pub(super) seconds: u64,
    /// Some files are so long and a little more; 0 for none.
    pub(super) large: u64,
    pub(super) device: u64,
    /// For the mount.
    pub(super) args: &'a [&'a str],
}

impl Job<'_> {
    pub(super) const fn of(seed: u64, seconds: u64) -> Self {
        Self { seed, seconds, large: 17 << 20, device: DEVICE, args: &[] }
    }
}

impl Storm {
    pub(super) fn start(desk: Desk, wan: Option<&Wan>, job: Job<'_>) -> Result<Self> {
        let (scratch, canary) = (Scratch::new()?, Canary::new()?);
        let device = LoopDevice::ext4(&scratch, "disk", job.device)?;
        let cache = device.path().display().to_string();
        let args = [&["--cache", &cache, "--cache-size", "8MiB"], job.args].concat();
        let join = desk.lease("one.join", &[])?;
        let mount = match wan {
            Some(wan) => MountProgram::with_results_at(wan.cloud(), &join, &args)?,
            None => MountProgram::with_results(&join, &args)?,
        };
        let watcher = Watcher::start(desk.home.look()?);
        let log = scratch.join("log");
        let mut command = Command::new(python()?);
        command.arg(script("write_results.py")).arg(mount.results()).arg(&log);
        command.args(["--canary", &hex::encode(canary.bytes())]);
        command.args(["--seed", &job.seed.to_string(), "--seconds", &job.seconds.to_string()]);
        command.args(["--large", &job.large.to_string(), "--pause", "0.02"]);
        let writer = Process::start("writer", &mut command, scratch.path())?;
        Ok(Self {
            writer,
            mount,
            desk,
            device,
            watcher,
            canary,
            log,
            orphans: 0,
            ever: BTreeSet::new(),
            _scratch: scratch,
        })
    }

    /// Where it writes.
    pub(super) fn results(&self) -> &Path {
        self.mount.results()
    }

    /// Whether the job still writes.
    pub(super) fn writes(&self) -> bool {
        !self.writer.log().contains("wrote ")
    }

    /// Faults, one after the other, until the job is done, or for so long. After each it gets on before the next.
    pub(super) fn rage(
        &mut self,
        dice: &mut Dice,
        most: Duration,
        mut fault: impl FnMut(&mut Self, &mut Dice) -> Result<()>,
    ) -> Result<()> {
        let began = Instant::now();
        while self.writes() && began.elapsed() < most {
            pause(dice, 900);
            let before = self.done();
            fault(self, dice)?;
            wait_for("the job to get on", || {
                (self.done() > before || !self.writes()).then_some(())
            })
            .with_context(|| self.mount.log())?;
        }
        Ok(())
    }

    /// It may just have begun an upload.
    fn kill_gateway(&mut self) -> Result<()> {
        self.orphans += 1;
        self.desk.gateway.process().signal(Signal::KILL)
    }

    pub(super) fn kill_worker(&self) -> Result<()> {
        let worker = self.mount.worker()?;
        signal_pid(worker, Signal::KILL)?;
        wait_for("another worker", || self.mount.worker().ok().filter(|pid| *pid != worker))
            .with_context(|| self.mount.log())?;
        Ok(())
    }

    /// Worker or gateway killed with -9, or both.
    fn kill(&mut self, dice: &mut Dice) -> Result<()> {
        let both = dice.below(5);
        if both < 2 {
            return self.kill_worker();
        }
        self.kill_gateway()?;
        if both == 4 {
            self.kill_worker()?;
        }
        self.desk.gateway.crash_and_restart()
    }

    /// The worker's whole machine dies while the job writes, and home is judged as it is then: nobody drains.
    fn perish(mut self) -> Result<()> {
        ensure!(self.writes(), "the job ended before its machine did: {}", self.writer.log());
        let worker = self.mount.worker()?;
        self.mount.process().signal(Signal::KILL)?;
        signal_pid(worker, Signal::KILL)?;
        self.writer.stop(Signal::KILL)?;
        let log = Log::read(&self.log)?;
        ensure!(log.done > 2, "only {} steps were acknowledged: {:?}", log.done, log.failed);
        let look = self.desk.home.look()?;
        let story = |path: &str| story(&self.desk, &self.log, path);
        let verdict = log.judge(&look, story).with_context(|| self.mount.log())?;
        self.nothing_in_clear("of the machine that died")?;
        let contents = self.watcher.finish(&log.ever, story).with_context(|| self.mount.log())?;
        eprintln!(
            "{} steps acknowledged; {} files at home; {contents} contents seen",
            log.done, verdict.files
        );
        Ok(())
    }

    /// Whether the mount said so.
    pub(super) fn said(&self, words: &str) -> bool {
        self.mount.log().contains(words)
    }

    /// The steps that were acknowledged so far.
    pub(super) fn done(&self) -> usize {
        Log::read(&self.log).map_or(0, |log| log.done)
    }

    /// Ends it all and judges. `may_fail` says which errors the job may have got.
    pub(super) fn judge(mut self, may_fail: &[i64]) -> Result<Log> {
        let ended = self.writer.wait()?;
        ensure!(ended.success(), "the job failed: {}\n{}", self.writer.log(), self.mount.log());
        let log = Log::read(&self.log)?;
        ensure!(log.done > 2, "only {} steps were acknowledged: {:?}", log.done, log.failed);
        let odd = log.failed.iter().find(|(_, errno)| !may_fail.contains(errno));
        ensure!(odd.is_none(), "{odd:?} of {:?}\n{}", log.failed, self.mount.log());
        self.nothing_in_clear("while it is mounted")?;
        let status = self.mount.process().stop(Signal::TERM)?;
        let receipt = self.mount.receipt().with_context(|| self.mount.log())?;
        let lost: Vec<_> = receipt["results"]["lost"].as_array().cloned().unwrap_or_default();
        // What is lost was told to the job; nothing else is.
        for name in &lost {
            let told = log.failed.iter().any(|(path, _)| Some(path.as_str()) == name.as_str());
            ensure!(told, "{name} is lost, and the job was not told: {:?}", log.failed);
        }
        let code = if lost.is_empty() { 0 } else { RESULTS_LOST };
        ensure!(status.code() == Some(code), "{status}, lost {lost:?}:\n{}", self.mount.log());
        ensure!(receipt["outcome"] == "wiped", "{receipt:#}");
        self.nothing_in_clear("after the wipe")?;
        self.ever.extend(log.ever.iter().cloned());
        let story = |path: &str| story(&self.desk, &self.log, path);
        let contents = self.watcher.finish(&self.ever, story).with_context(|| self.mount.log())?;
        let look = self.desk.home.look()?;
        let verdict = log.judge(&look, story).with_context(|| self.mount.log())?;
        look.wait_until_tidy(self.orphans)?;
        eprintln!(
            "{} steps acknowledged, {} failed; {} files, {} bytes at home; {contents} contents seen",
            log.done,
            log.failed.len(),
            verdict.files,
            verdict.bytes
        );
        Ok(log)
    }

    fn nothing_in_clear(&self, when: &str) -> Result<()> {
        let found = self.canary.count_in(self.device.raw()?)?;
        ensure!(found == 0, "{found} times in clear on the device {when}");
        Ok(())
    }
}

/// What the job did with a name, what the store served of it, and what the ledger says.
fn story(desk: &Desk, log: &Path, path: &str) -> String {
    let (done, ledger) = (std::fs::read_to_string(log).unwrap_or_default(), desk.ledger());
    let served = desk.home.access_log();
    // The job's log is JSON, the store's has URLs: neither has names as they are.
    let file = path.rsplit('/').next().unwrap_or(path);
    let lines = done.lines().chain(served.lines());
    let told = lines.filter(|line| line.contains(file)).map(str::to_owned);
    let words = ["audit", "show", &desk.home.name(path), "--ledger", &ledger.to_string_lossy()];
    let shown = tidegate(words).and_then(succeed);
    told.chain([format!("{shown:?}")]).collect::<Vec<_>>().join("\n")
}

/// How long a fault lasts, or how long it is until the next: that is what is drawn.
pub(super) fn pause(dice: &mut Dice, most: u64) {
    std::thread::sleep(Duration::from_millis(100 + dice.below(most)));
}

/// Worker and gateway are killed with -9, one or both, again and again.
pub(super) fn killed(home: Home, seconds: u64, args: &[&str]) -> Result<()> {
    let seed = seed()?;
    let desk = Desk::start(home, PATIENT)?;
    let mut storm = Storm::start(desk, None, Job { args, ..Job::of(seed, seconds) })?;
    storm
        .rage(&mut Dice::new(seed), LONG, Storm::kill)
        .and_then(|()| storm.judge(&[EIO]))
        .with_context(|| format!("seed {seed}"))?;
    Ok(())
}

/// The same, and then the worker's machine dies. Home takes less than the job writes: what was acknowledged too
/// early is not there yet.
pub(super) fn everything_dies(home: Home, seconds: u64) -> Result<()> {
    let seed = seed()?;
    let desk = Desk::start(home, &format!("{PATIENT}\nresults.rate = 20000000"))?;
    let mut storm = Storm::start(desk, None, Job::of(seed, LONG.as_secs()))?;
    storm
        .rage(&mut Dice::new(seed), Duration::from_secs(seconds), Storm::kill)
        .and_then(|()| storm.perish())
        .with_context(|| format!("seed {seed}"))
}

/// A store that answers 503 and is slow, and a gateway that dies meanwhile.
pub(super) fn troubled(mut home: Home, seconds: u64) -> Result<()> {
    let seed = seed()?;
    let trouble = home.troubled()?;
    let desk = Desk::start(home, PATIENT)?;
    let mut storm = Storm::start(desk, None, Job::of(seed, seconds))?;
    let mut dice = Dice::new(seed);
    let raged = storm.rage(&mut dice, LONG, |storm, dice| {
        match dice.below(6) {
            0 | 1 => trouble.refuse(30 + dice.below(60)),
            2 => trouble.refuse(100),
            3 | 4 => trouble.slow(Duration::from_millis(50 + dice.below(500))),
            _ => {
                storm.kill_gateway()?;
                storm.desk.gateway.crash_and_restart()?;
            }
        }
        pause(dice, 1_500);
        trouble.end();
        Ok(())
    });
    // None of this is told to the job: it waits.
    storm.orphans += trouble.orphans();
    raged.and_then(|()| storm.judge(&[])).with_context(|| format!("seed {seed}"))?;
    ensure!(trouble.refused() > 0, "the store refused nothing");
    Ok(())
}

#[test]
fn r24_worker_and_gateway_are_killed_while_a_job_writes_to_a_directory() -> Result<()> {
    killed(Home::directory()?, 12, &[])
}

#[test]
fn r24_the_machine_dies_while_a_job_writes_to_a_directory() -> Result<()> {
    everything_dies(Home::directory()?, 8)
}

#[test]
fn r24_the_machine_dies_while_a_job_writes_to_versitygw() -> Result<()> {
    everything_dies(Home::versitygw()?, 8)
}

#[test]
fn worker_and_gateway_are_killed_while_a_job_writes_to_versitygw() -> Result<()> {
    killed(Home::versitygw()?, 12, &["--results-async"])
}

#[test]
fn r22_the_store_answers_503_and_is_slow_while_a_job_writes() -> Result<()> {
    troubled(Home::versitygw()?, 12)
}
