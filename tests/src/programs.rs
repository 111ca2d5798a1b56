//! `tidegate gateway` and `tidegate mount` as two programs, the way a site runs them.

mod mount;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use serde_json::Value;

use crate::clock;
use crate::part;
use crate::port;
use crate::process::Process;
use crate::scratch::Scratch;
use crate::tidegate::tidegate;
use crate::wan::Namespace;

pub use mount::MountProgram;

/// A gateway with state, admin socket and log in a scratch folder.
#[derive(Debug)]
pub struct GatewayProgram {
    process: Process,
    scratch: Scratch,
    state: PathBuf,
    port: u16,
    place: Place,
}

/// Where a program runs: words before it, and the address it has there.
#[derive(Clone, Debug)]
struct Place {
    words: Vec<String>,
    address: String,
    /// The words make a mount namespace: nobody else's holds a copy of what is mounted there.
    own_mounts: bool,
    _kept: Option<clock::Kept>,
}

impl Place {
    fn loopback() -> Self {
        Self { words: Vec::new(), address: "127.0.0.1".into(), own_mounts: false, _kept: None }
    }

    /// Behind other words on this host.
    fn behind(words: &[&str]) -> Self {
        Self { words: words.iter().map(ToString::to_string).collect(), ..Self::loopback() }
    }

    fn within(namespace: &Namespace) -> Self {
        let address = namespace.address().into();
        Self { words: namespace.words(), address, ..Self::loopback() }
    }

    /// On loopback, with a wall clock that is some seconds off. Other clocks run true.
    fn at_clock(offset_s: i64) -> Result<Self> {
        let (words, kept) = clock::off_by(offset_s)?;
        Ok(Self { words, own_mounts: true, _kept: Some(kept), ..Self::loopback() })
    }

    /// `tidegate` there.
    fn tidegate(&self) -> Result<Command> {
        let program = part::tidegate()?;
        let Some((first, rest)) = self.words.split_first() else {
            return Ok(Command::new(program));
        };
        let mut command = Command::new(part::program(first)?);
        command.args(rest).arg(program);
        Ok(command)
    }
}

impl GatewayProgram {
    /// Allows the one source, or what [`S3::allowed`](crate::s3::S3::allowed) says. `extra` are more lines of
    /// configuration, before the `[sources]` table.
    pub fn start(allow: &str, extra: &str) -> Result<Self> {
        let scratch = Scratch::new()?;
        let state = scratch.join("state");
        Self::with(Place::loopback(), port::free()?, scratch, state, allow, extra)
    }

    /// The same at one end of a link.
    pub fn start_at(namespace: &Namespace, allow: &str, extra: &str) -> Result<Self> {
        Self::start_on(Some(namespace), port::free()?, allow, extra)
    }

    /// The same on loopback or at one end of a link, on a port that was chosen before.
    pub fn start_on(
        namespace: Option<&Namespace>,
        port: u16,
        allow: &str,
        extra: &str,
    ) -> Result<Self> {
        let scratch = Scratch::new()?;
        let state = scratch.join("state");
        let place = namespace.map_or_else(Place::loopback, Place::within);
        Self::with(place, port, scratch, state, allow, extra)
    }

    /// The same behind other words, such as those of `setpriv`.
    pub fn start_behind(words: &[&str], allow: &str, extra: &str) -> Result<Self> {
        let scratch = Scratch::new()?;
        let state = scratch.join("state");
        Self::with(Place::behind(words), port::free()?, scratch, state, allow, extra)
    }

    /// The same with a wall clock that is some seconds off.
    pub fn start_at_clock(offset_s: i64, allow: &str, extra: &str) -> Result<Self> {
        let scratch = Scratch::new()?;
        let state = scratch.join("state");
        Self::with(Place::at_clock(offset_s)?, port::free()?, scratch, state, allow, extra)
    }

    /// The same with its state somewhere else.
    pub fn start_in(state: &Path, allow: &str, extra: &str) -> Result<Self> {
        let state = state.to_owned();
        Self::with(Place::loopback(), port::free()?, Scratch::new()?, state, allow, extra)
    }

    fn with(
        place: Place,
        port: u16,
        scratch: Scratch,
        state: PathBuf,
        allow: &str,
        extra: &str,
    ) -> Result<Self> {
        // Unless a scenario speaks of nodes: this machine may have swap or keep core images.
        let nodes = if extra.contains("nodes.") {
            ""
        } else {
            "[nodes]\nallow_swap = true\nallow_stored_cores = true\n"
        };
        let allow = if allow.starts_with('{') { allow.to_owned() } else { format!("\"{allow}\"") };
        let text = format!(
            "listen = \"{2}:{port}\"\nnames = [\"{2}\"]\nstate = \"{1}\"\n\
             checkpoint_copy = \"{0}/elsewhere\"\nadmin_socket = \"{0}/admin.sock\"\n{extra}\n\
             [sources]\nallow = [{allow}]\n{nodes}",
            scratch.path().display(),
            state.display(),
            place.address
        );
        fs::write(scratch.join("gateway.toml"), text)?;
        let process = Self::launch(&place, &scratch)?;
        Ok(Self { process, scratch, state, port, place })
    }

    fn launch(place: &Place, scratch: &Scratch) -> Result<Process> {
        let mut command = place.tidegate()?;
        command.args(["gateway", "--config"]).arg(scratch.join("gateway.toml"));
        let mut process = Process::start("gateway", &mut command, scratch.path())?;
        process.wait_ready(|process| process.log().contains("gateway listens on"))?;
        Ok(process)
    }

    /// Starts it again after it ended, on the same state and port.
    pub fn restart(&mut self) -> Result<()> {
        self.process = Self::launch(&self.place, &self.scratch)?;
        Ok(())
    }

    /// Kills it with -9 and starts it again on the same state and port.
    pub fn crash_and_restart(&mut self) -> Result<()> {
        self.process.stop(Signal::KILL)?;
        self.restart()
    }

    /// The same with another wall clock from now on.
    pub fn crash_and_restart_at_clock(&mut self, offset_s: i64) -> Result<()> {
        self.place = Place::at_clock(offset_s)?;
        self.crash_and_restart()
    }

    pub fn config(&self) -> PathBuf {
        self.scratch.join("gateway.toml")
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub const fn port(&self) -> u16 {
        self.port
    }

    pub fn state(&self) -> PathBuf {
        self.state.clone()
    }

    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Asks for a lease; the join file.
    pub fn lease<T: AsRef<OsStr>>(
        &self,
        name: &str,
        args: impl IntoIterator<Item = T>,
    ) -> Result<PathBuf> {
        let join = self.scratch.join(name);
        let mut words = self.words(&["lease", "create"]);
        words.extend(["--join".into(), join.as_os_str().to_owned()]);
        words.extend(args.into_iter().map(|word| word.as_ref().to_owned()));
        succeed(tidegate(words)?)?;
        Ok(join)
    }

    /// What the gateway says about a lease.
    pub fn show(&self, join: &Path) -> Result<Value> {
        let mut words = self.words(&["--json", "lease", "show"]);
        words.push(lease_of(join)?.into());
        Ok(serde_json::from_str(&succeed(tidegate(words)?)?)?)
    }

    /// Runs a command of an administrator; what it prints.
    pub fn ask(&self, words: &[&str]) -> Result<String> {
        succeed(tidegate(self.words(words))?)
    }

    pub fn revoke(&self, join: &Path) -> Result<()> {
        let mut words = self.words(&["lease", "revoke"]);
        words.push(lease_of(join)?.into());
        succeed(tidegate(words)?)?;
        Ok(())
    }

    pub fn drain(&self, join: &Path) -> Result<()> {
        let mut words = self.words(&["lease", "drain"]);
        words.push(lease_of(join)?.into());
        succeed(tidegate(words)?)?;
        Ok(())
    }

    /// A further join file for rank 0 of a lease.
    pub fn token(&self, join: &Path, name: &str) -> Result<PathBuf> {
        let further = self.scratch.join(name);
        let mut words = self.words(&["lease", "token"]);
        words.extend([lease_of(join)?.into(), "--join".into(), further.as_os_str().to_owned()]);
        succeed(tidegate(words)?)?;
        Ok(further)
    }

    /// How many entries of the ledger are of this kind.
    pub fn entries(&self, kind: &str) -> Result<usize> {
        let words = ["--json", "audit", "list", "--ledger"].map(std::ffi::OsString::from);
        let list = succeed(tidegate(words.into_iter().chain([self.state().into_os_string()]))?)?;
        let kind = format!("\"type\":\"{kind}\"");
        Ok(list.lines().filter(|line| line.contains(&kind)).count())
    }

    fn words(&self, words: &[&str]) -> Vec<std::ffi::OsString> {
        let socket = self.scratch.join("admin.sock");
        let mut all: Vec<_> = words.iter().map(Into::into).collect();
        all.extend(["--admin".into(), socket.into_os_string()]);
        all
    }
}

/// The lease that a join file is for.
pub fn lease_of(join: &Path) -> Result<String> {
    let file: Value = serde_json::from_slice(&fs::read(join)?)?;
    Ok(file["lease"].as_str().context("no lease in the join file")?.to_owned())
}

/// Standard output, or an error with all that was said.
pub fn succeed(output: Output) -> Result<String> {
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{}: {stdout}{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(stdout)
}
