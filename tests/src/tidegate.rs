//! The `tidegate` program as a user runs it, with every folder it writes in a scratch of its own.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::part;
use crate::process::Process;
use crate::s3::S3;
use crate::scratch::Scratch;

/// One `tidegate run`: what it is told, and where it keeps cache, ledger and receipt.
#[derive(Debug)]
pub struct Run {
    scratch: Scratch,
    /// Words before `tidegate`, such as a tracer's.
    wrapper: Vec<OsString>,
    /// The last of those words is the program already.
    wrapped_program: bool,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    job: Vec<OsString>,
}

/// How a run ended, and all that it left.
#[derive(Debug)]
pub struct Outcome {
    pub scratch: Scratch,
    pub status: ExitStatus,
    /// What it, and the job, wrote.
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    /// From a directory.
    pub fn from_dir(source: &Path) -> Result<Self> {
        let mut run = Self::new()?;
        run.args.extend([OsString::from("--from"), source.into()]);
        Ok(run)
    }

    /// From a bucket of a store of the harness.
    pub fn from_s3(store: &S3, url: &str) -> Result<Self> {
        let mut run = Self::new()?;
        let credentials = store.credentials_file(&run.scratch)?;
        run.args.extend(["--from", url, "--s3-endpoint", store.endpoint()].map(OsString::from));
        run.args.extend(["--s3-region", "us-east-1", "--s3-credentials"].map(OsString::from));
        run.args.push(credentials.into());
        Ok(run)
    }

    /// Says nothing of a source.
    pub fn new() -> Result<Self> {
        let scratch = Scratch::new()?;
        let mut run = Self {
            scratch,
            wrapper: Vec::new(),
            wrapped_program: false,
            args: Vec::new(),
            env: Vec::new(),
            job: Vec::new(),
        };
        let ledger = run.scratch.dir("ledger")?;
        run.scratch.dir("cache")?;
        let receipt = run.scratch.join("receipt.json");
        run = run.arg("--ledger").arg(ledger).arg("--receipt").arg(receipt);
        // Where the mount point is made when none is named.
        let temporary = run.scratch.dir("tmp")?;
        run.env.push(("TMPDIR".into(), temporary.into()));
        Ok(run)
    }

    #[must_use]
    pub fn arg(mut self, word: impl AsRef<OsStr>) -> Self {
        self.args.push(word.as_ref().to_owned());
        self
    }

    #[must_use]
    pub fn args<T: AsRef<OsStr>>(mut self, words: impl IntoIterator<Item = T>) -> Self {
        self.args.extend(words.into_iter().map(|word| word.as_ref().to_owned()));
        self
    }

    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Of an option given more than once, keeps the last with its value.
    #[must_use]
    pub fn keep_last(mut self, option: &str) -> Self {
        let places: Vec<_> = (0..self.args.len()).filter(|at| self.args[*at] == option).collect();
        for at in places.iter().rev().skip(1) {
            self.args.drain(*at..at + 2);
        }
        self
    }

    /// Puts words before `tidegate`.
    #[must_use]
    pub fn under<T: AsRef<OsStr>>(mut self, words: impl IntoIterator<Item = T>) -> Self {
        self.wrapper.extend(words.into_iter().map(|word| word.as_ref().to_owned()));
        self
    }

    /// The wrapper's last word is the program to run, a copy that lies elsewhere.
    #[must_use]
    pub const fn program_in_wrapper(mut self) -> Self {
        self.wrapped_program = true;
        self
    }

    /// The command to run.
    #[must_use]
    pub fn job<T: AsRef<OsStr>>(mut self, words: impl IntoIterator<Item = T>) -> Self {
        self.job = words.into_iter().map(|word| word.as_ref().to_owned()).collect();
        self
    }

    /// A shell script to run.
    #[must_use]
    pub fn shell(self, script: &str) -> Self {
        self.job(["sh", "-euc", script])
    }

    pub const fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    fn command(&self) -> Result<Command> {
        let program = if self.wrapped_program { None } else { Some(part::tidegate()?.into()) };
        let mut words = self.wrapper.iter().cloned().chain(program);
        let mut command = Command::new(words.next().context("no program")?);
        command.args(words).arg("run").args(&self.args);
        if !self.args.iter().any(|word| word == "--cache") {
            command.arg("--cache").arg(self.scratch.join("cache"));
        }
        command.arg("--").args(&self.job);
        for name in
            ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_ENDPOINT_URL"]
        {
            command.env_remove(name);
        }
        command.envs(self.env.iter().cloned()).current_dir(self.scratch.path());
        Ok(command)
    }

    /// Starts it and returns at once. What it writes goes to `tidegate.log` in its scratch.
    pub fn start(self) -> Result<(Process, Scratch)> {
        let process = Process::start("tidegate", &mut self.command()?, self.scratch.path())?;
        Ok((process, self.scratch))
    }

    /// Runs it to the end.
    pub fn finish(self) -> Result<Outcome> {
        let mut command = self.command()?;
        let files = [self.scratch.join("stdout"), self.scratch.join("stderr")];
        let limit = part::program("timeout")?;
        let mut limited = Command::new(limit);
        limited.args(["--foreground", "--kill-after=10", "240"]);
        limited.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => limited.env(name, value),
                None => limited.env_remove(name),
            };
        }
        command = limited;
        let status = command
            .current_dir(self.scratch.path())
            .stdin(Stdio::null())
            .stdout(fs::File::create(&files[0])?)
            .stderr(fs::File::create(&files[1])?)
            .status()
            .context("cannot start tidegate")?;
        let [stdout, stderr] = files
            .map(|file| String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned());
        Ok(Outcome { scratch: self.scratch, status, stdout, stderr })
    }

    /// Runs it to the end; an error with all it said unless it ends with 0.
    pub fn succeed(self) -> Result<Outcome> {
        let outcome = self.finish()?;
        outcome.expect_code(0)?;
        Ok(outcome)
    }
}

impl Outcome {
    pub fn expect_code(&self, code: i32) -> Result<()> {
        if self.status.code() != Some(code) {
            bail!("ended with {}, not {code}:\n{}\n{}", self.status, self.stdout, self.stderr);
        }
        Ok(())
    }

    pub fn receipt(&self) -> Result<Value> {
        receipt(&self.scratch)
    }

    /// Fails if a mount, a mount point or anything in the cache is left.
    pub fn expect_nothing_left(&self) -> Result<()> {
        nothing_left(&self.scratch)
    }

    pub fn cache(&self) -> PathBuf {
        self.scratch.join("cache")
    }

    pub fn ledger(&self) -> PathBuf {
        self.scratch.join("ledger")
    }

    /// Fails unless the message holds every one of `words` and names no file of the source.
    pub fn expect_message(&self, words: &[&str]) -> Result<()> {
        for word in words {
            if !self.stderr.to_lowercase().contains(&word.to_lowercase()) {
                bail!("the message does not say {word:?}:\n{}", self.stderr);
            }
        }
        Ok(())
    }
}

/// Fails if a run left a mount, a mount point or anything in its cache.
pub fn nothing_left(scratch: &Scratch) -> Result<()> {
    let mut left = scratch.mounts()?;
    for folder in ["cache", "tmp"] {
        for entry in fs::read_dir(scratch.join(folder)).into_iter().flatten().flatten() {
            left.push(entry.path().display().to_string());
        }
    }
    anyhow::ensure!(left.is_empty(), "left behind: {left:?}");
    Ok(())
}

/// The receipt that a run wrote into its scratch.
pub fn receipt(scratch: &Scratch) -> Result<Value> {
    let text = fs::read(scratch.join("receipt.json")).context("no receipt was written")?;
    serde_json::from_slice(&text).context("the receipt is not JSON")
}

/// Any other subcommand, run to its end.
pub fn tidegate<T: AsRef<OsStr>>(
    args: impl IntoIterator<Item = T>,
) -> Result<std::process::Output> {
    let mut command = Command::new(part::tidegate()?);
    command.args(args).stdin(Stdio::null()).output().context("cannot start tidegate")
}
