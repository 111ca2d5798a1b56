//! `tidegate mount`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use super::Place;
use crate::part;
use crate::process::{Process, check, command_line, descendants};
use crate::scratch::Scratch;
use crate::wan::Namespace;

/// What is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    Data,
    Results,
}

/// A mount of a lease, in the test's own mount namespace.
#[derive(Debug)]
pub struct MountProgram {
    process: Process,
    scratch: Scratch,
    at: PathBuf,
    results: PathBuf,
}

impl MountProgram {
    /// Mounts and waits until the data is there.
    pub fn start(join: &Path, args: &[&str]) -> Result<Self> {
        Self::launch(join, args)?.ready()
    }

    /// The same at one end of a link.
    pub fn start_at(namespace: &Namespace, join: &Path, args: &[&str]) -> Result<Self> {
        Self::launch_at(&Place::within(namespace), join, args, Want::Data)?.ready()
    }

    /// The same behind other words, such as those of `setpriv`.
    pub fn start_behind(words: &[&str], join: &Path, args: &[&str]) -> Result<Self> {
        Self::launch_at(&Place::behind(words), join, args, Want::Data)?.ready()
    }

    /// The same with a wall clock that is some seconds off.
    pub fn start_at_clock(offset_s: i64, join: &Path, args: &[&str]) -> Result<Self> {
        Self::launch_at(&Place::at_clock(offset_s)?, join, args, Want::Data)?.ready()
    }

    /// Mounts the data of a lease, and a place for its results beside it.
    pub fn with_results(join: &Path, args: &[&str]) -> Result<Self> {
        Self::launch_at(&Place::loopback(), join, args, Want::Results)?.ready()
    }

    /// The same at one end of a link.
    pub fn with_results_at(namespace: &Namespace, join: &Path, args: &[&str]) -> Result<Self> {
        Self::launch_at(&Place::within(namespace), join, args, Want::Results)?.ready()
    }

    fn ready(self) -> Result<Self> {
        let mut mount = self;
        mount.process.wait_ready(|process| process.log().contains(" files, "))?;
        Ok(mount)
    }

    /// Starts it and does not wait: for those that are refused.
    pub fn launch(join: &Path, args: &[&str]) -> Result<Self> {
        Self::launch_at(&Place::loopback(), join, args, Want::Data)
    }

    /// The same behind other words.
    pub fn launch_behind(words: &[&str], join: &Path, args: &[&str]) -> Result<Self> {
        Self::launch_at(&Place::behind(words), join, args, Want::Data)
    }

    fn launch_at(place: &Place, join: &Path, args: &[&str], want: Want) -> Result<Self> {
        let scratch = Scratch::new()?;
        let [at, cache, results] = ["data", "cache", "results"].map(|name| scratch.dir(name));
        let (at, cache, results) = (at?, cache?, results?);
        let mut place = place.clone();
        if place.address != Place::loopback().address {
            let own = ["unshare", "--mount", "--propagation", "slave", "--"];
            place.words.extend(own.map(str::to_owned));
            place.own_mounts = true;
        }
        let mut command = place.tidegate()?;
        command.args(["mount", "--join"]).arg(join).arg("--at").arg(&at);
        if !args.contains(&"--cache") {
            command.arg("--cache").arg(cache);
        }
        if want == Want::Results {
            command.arg("--results-at").arg(&results);
        }
        command.arg("--receipt").arg(scratch.join("receipt.json")).args(args);
        let process = Process::start("mount", &mut command, scratch.path())?;
        let root = PathBuf::from(format!("/proc/{}/root", process.pid()));
        let (at, results) = if place.own_mounts {
            (root.join(at.strip_prefix("/")?), root.join(results.strip_prefix("/")?))
        } else {
            (at, results)
        };
        Ok(Self { process, scratch, at, results })
    }

    pub fn data(&self) -> &Path {
        &self.at
    }

    /// The writable mount of a lease that brings results home.
    pub fn results(&self) -> &Path {
        &self.results
    }

    /// The receipt, once it has ended.
    pub fn receipt(&self) -> Result<Value> {
        crate::tidegate::receipt(&self.scratch)
    }

    pub fn cache(&self) -> PathBuf {
        self.scratch.join("cache")
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    pub fn log(&self) -> String {
        self.process.log()
    }

    pub fn worker(&self) -> Result<u32> {
        descendants(self.process.pid())
            .into_iter()
            .find(|pid| command_line(*pid).get(1).is_some_and(|word| word == "worker"))
            .context("no worker runs")
    }

    /// Ends it with SIGTERM and waits for the wipe. The receipt.
    pub fn finish(mut self) -> Result<Value> {
        let status = self.process.stop(Signal::TERM)?;
        ensure!(status.success(), "the mount ended with {status}:\n{}", self.log());
        crate::tidegate::receipt(&self.scratch)
    }
}

impl Drop for MountProgram {
    fn drop(&mut self) {
        // Killed where the test failed: then the mount may still stand.
        let _ = self.process.stop(Signal::KILL);
        if let Ok(umount) = part::program("umount") {
            for at in [&self.at, &self.results] {
                let _ = check(Command::new(&umount).arg("-l").arg(at));
            }
        }
    }
}
