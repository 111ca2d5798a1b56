//! A run whose job does nothing but wait, so that the test itself can use the mount: through
//! `/proc/PID/root`, which is how root looks into the private namespace that only the job sees.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::process::{Process, command_line, descendants};
use crate::scratch::Scratch;
use crate::tidegate::{Run, receipt};

#[derive(Debug)]
pub struct Held {
    process: Process,
    scratch: Scratch,
    data: PathBuf,
    results: PathBuf,
    job: u32,
}

impl Held {
    /// Starts the run and waits until its job stands before the data.
    pub fn start(run: Run) -> Result<Self> {
        let [ready, go] = ["ready", "go"].map(|name| run.scratch().join(name));
        crate::process::check(std::process::Command::new("mkfifo").arg("-m").arg("666").arg(&go))?;
        let script = "printf '%s\\n%s\\n%s' \"$$\" \"$TIDEGATE_DATA\" \
                      \"${TIDEGATE_RESULTS-/}\" > \"$1.part\"; mv \"$1.part\" \"$1\"; read -r _ < \"$2\" || true";
        let words: [&OsStr; 6] = [
            "sh".as_ref(),
            "-euc".as_ref(),
            script.as_ref(),
            "hold".as_ref(),
            ready.as_ref(),
            go.as_ref(),
        ];
        let (mut process, scratch) = run.job(words).start()?;
        process.wait_ready(|_| ready.exists())?;
        let text = fs::read_to_string(&ready)?;
        let mut lines = text.splitn(3, '\n');
        let mut next = || lines.next().context("the job wrote too little");
        let (pid, data, results) = (next()?, next()?, next()?);
        let job: u32 = pid.parse().context("the job has no number")?;
        let reach = |path: &str| -> Result<PathBuf> {
            let inside = Path::new(path).strip_prefix("/").context("the path is not absolute")?;
            Ok(Path::new("/proc").join(pid).join("root").join(inside))
        };
        let (data, results) = (reach(data)?, reach(results)?);
        Ok(Self { process, scratch, data, results, job })
    }

    /// The mount, as the test can reach it.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The writable mount, of a run that brings results home.
    pub fn results(&self) -> &Path {
        &self.results
    }

    pub const fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// Number of `tidegate run` itself.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Number of the job.
    pub const fn job(&self) -> u32 {
        self.job
    }

    /// Number of the worker process.
    pub fn worker(&self) -> Result<u32> {
        descendants(self.pid())
            .into_iter()
            .find(|pid| command_line(*pid).get(1).is_some_and(|word| word == "worker"))
            .context("no worker runs")
    }

    pub fn log(&self) -> String {
        self.process.log()
    }

    pub const fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Lets the job end, and waits for the wipe. The receipt.
    pub fn finish(mut self) -> Result<(Scratch, serde_json::Value)> {
        fs::write(self.scratch.join("go"), "\n").context("the job does not listen")?;
        let status = self.process.wait()?;
        ensure!(status.success(), "the run ended with {status}:\n{}", self.process.log());
        let receipt = receipt(&self.scratch)?;
        Ok((self.scratch, receipt))
    }
}
