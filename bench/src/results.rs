//! Results on their way home, against the same files written to the local file system and made durable.

mod link;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};

use crate::data::Set;
use crate::report::Report;
use crate::writer::Wrote;

const GIB: f64 = (1u64 << 30) as f64;
/// Checkpoints.
const LARGE: usize = 4;
/// Logs and metrics.
const SMALL: usize = 5000;
const SMALL_BYTES: usize = 20_000;
const PLAIN: &str = "ext4, write + fsync";

pub(crate) fn measure(
    tidegate: &Path,
    set: &Set,
    large_mib: u64,
    rounds: usize,
    report: &mut Report,
) -> Result<()> {
    let bench = Bench { tidegate, scratch: &set.scratch };
    let large = usize::try_from(large_mib << 20)? / LARGE;
    let job = Job { files: LARGE, bytes: large, threads: 1, asynchronous: false };
    let (ours, plain) = bench.rounds(job, rounds, Some(set))?;
    let rate = |all: &[Done]| all.iter().map(|it| it.bytes as f64 / 1e9 / it.seconds).collect();
    let per_gib = |cpu: fn(&Wrote) -> f64| -> Vec<f64> {
        ours.iter().map(|it| cpu(&it.wrote) / (it.bytes as f64 / GIB)).collect()
    };
    report.add(
        "results: large files to a directory at home",
        "GB/s",
        rate(&ours),
        Some((PLAIN, rate(&plain))),
        per_gib(|it| it.worker_cpu),
        "≤ 1.5 at the worker",
    );
    for (what, cpu) in [
        ("results: gateway and holder, large files", per_gib(|it| it.parent_cpu)),
        ("results: the writer itself, large files", per_gib(|it| it.writer_cpu)),
    ] {
        report.add(what, "CPU-s/GiB", cpu, None, Vec::new(), "–");
    }
    let peaks = ours.iter().map(|it| it.wrote.worker_peak as f64 / (1 << 20) as f64).collect();
    report.add("worker's peak RSS, results", "MiB", peaks, None, Vec::new(), "≤ 512 + names");

    let small = Job { files: SMALL, bytes: SMALL_BYTES, threads: 1, asynchronous: false };
    let files = |all: &[Done]| all.iter().map(|it| SMALL as f64 / it.seconds).collect();
    for (what, job) in [
        ("results: 5,000 files of 20 KB, 1 thread", small),
        ("results: the same, 8 threads", Job { threads: 8, ..small }),
        ("results: the same, 1 thread, asynchronous", Job { asynchronous: true, ..small }),
    ] {
        let (ours, plain) = bench.rounds(job, rounds, None)?;
        let cpu = ours.iter().map(|it| it.wrote.worker_cpu / (it.bytes as f64 / GIB)).collect();
        report.add(what, "files/s", files(&ours), Some((PLAIN, files(&plain))), cpu, "–");
        if job.asynchronous {
            let drained = ours.iter().map(|it| SMALL as f64 / it.all).collect();
            let what = "results: the same, mounted, drained and wiped";
            report.add(what, "files/s", drained, None, Vec::new(), "–");
        }
    }
    if rustix::process::geteuid().is_root() {
        link::measure(large_mib, rounds, report)?;
    } else {
        eprintln!("  results over a link were left out: root is needed");
    }
    Ok(())
}

/// What the job writes.
#[derive(Clone, Copy, Debug)]
struct Job {
    files: usize,
    bytes: usize,
    threads: usize,
    asynchronous: bool,
}

/// One run of it.
struct Done {
    wrote: Wrote,
    bytes: u64,
    seconds: f64,
    /// From the start of the program to its end, seconds.
    all: f64,
}

struct Bench<'a> {
    tidegate: &'a Path,
    scratch: &'a Path,
}

impl Bench<'_> {
    /// Ours and the reference in turns.
    fn rounds(
        &self,
        job: Job,
        rounds: usize,
        touch: Option<&Set>,
    ) -> Result<(Vec<Done>, Vec<Done>)> {
        let (mut ours, mut plain) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let dir = self.fresh("plain")?;
            plain.push(job.run(&[], Some(&dir))?);
            fs::remove_dir_all(dir)?;
            if let Some(set) = touch {
                set.touch_memory()?;
            }
            ours.push(self.through(job)?);
        }
        Ok((ours, plain))
    }

    fn fresh(&self, name: &str) -> Result<std::path::PathBuf> {
        let dir = self.scratch.join(name);
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        fs::create_dir_all(&dir)?;
        Ok(dir)
    }

    fn through(&self, job: Job) -> Result<Done> {
        let (home, data) = (self.fresh("home")?, self.fresh("little")?);
        fs::write(data.join("config"), "what the job reads\n")?;
        let mut words: Vec<OsString> = vec![self.tidegate.into(), "run".into(), "--from".into()];
        words.extend([data.into_os_string(), "--results".into(), home.clone().into_os_string()]);
        words.extend(["--cache".into(), self.fresh("cache")?.into_os_string()]);
        words.extend(["--ledger".into(), self.scratch.join("state").into_os_string()]);
        if job.asynchronous {
            words.push("--results-async".into());
        }
        words.push("--".into());
        let done = job.run(&words, None)?;
        ensure!(count(&home)? == job.files, "not all of it is at home");
        fs::remove_dir_all(home)?;
        Ok(done)
    }
}

impl Job {
    /// Runs the writer behind other words.
    fn run(self, before: &[OsString], dir: Option<&Path>) -> Result<Done> {
        let me = std::env::current_exe()?;
        let mut words = before.iter().map(OsString::as_os_str).chain([me.as_os_str()]);
        let mut command = Command::new(words.next().context("no program")?);
        command.args(words).args(["write", "--files", &self.files.to_string()]);
        command.args(["--bytes", &self.bytes.to_string()]);
        command.args(["--threads", &self.threads.to_string()]);
        if let Some(dir) = dir {
            command.args([OsStr::new("--dir"), dir.as_os_str()]);
        }
        let began = Instant::now();
        let output = command.stdin(Stdio::null()).output().context("cannot start the writer")?;
        let all = began.elapsed().as_secs_f64();
        if !output.status.success() {
            bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        let wrote: Wrote = serde_json::from_slice(&output.stdout).context("the writer's line")?;
        Ok(Done { wrote, bytes: wrote.bytes, seconds: wrote.seconds, all })
    }
}

/// Files below a directory.
fn count(dir: &Path) -> Result<usize> {
    let mut files = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        files += if entry.file_type()?.is_dir() { count(&entry.path())? } else { 1 };
    }
    Ok(files)
}
