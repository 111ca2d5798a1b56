//! The user's command: started with its own limits and terminal, told of our signals, and outlived
//! by nothing.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::fs::{Mode, OFlags};
use rustix::process::{
    Pid, Signal, WaitOptions, getpgrp, kill_process, set_child_subreaper, waitpid,
};
use rustix::termios::tcgetpgrp;
use tidegate_fuse_cache::supervisor::WORKER_WATCHER;
use tokio::process::{Child, Command};

use crate::exit;

/// How the names of all variables begin that the AWS chain reads: keys, profiles, files, web
/// identity, container credentials, and whatever comes next. The job reads a directory and needs none.
const STORE_VARIABLES: &[u8] = b"AWS_";

/// How long what outlived the command may take to end after SIGTERM.
const STRAGGLER_GRACE: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct Job {
    child: Child,
    pid: Pid,
    /// Children that had ended when last looked at.
    ended: HashSet<Pid>,
}

/// The command could not be started; `code` follows the shell's custom.
#[derive(Debug)]
pub(crate) struct NotStarted {
    pub(crate) code: u8,
    pub(crate) message: String,
}

/// Looks for the command as `execvp(3)` will.
pub(crate) fn find(command: &[OsString]) -> Result<(), NotStarted> {
    let name = command.first().map_or_else(|| Path::new(""), Path::new);
    let executable = |path: &Path| {
        path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
    };
    let candidates: Vec<PathBuf> = if name.components().count() > 1 || name.is_absolute() {
        vec![name.to_owned()]
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).map(|dir| dir.join(name)).collect()
    };
    if candidates.iter().any(|path| executable(path)) {
        return Ok(());
    }
    Err(if candidates.iter().any(|path| path.exists()) {
        NotStarted {
            code: exit::COMMAND_NOT_EXECUTABLE,
            message: format!("cannot execute {}: permission denied", name.display()),
        }
    } else {
        NotStarted {
            code: exit::COMMAND_NOT_FOUND,
            message: format!("command not found: {}", name.display()),
        }
    })
}

impl Job {
    /// Starts the command with `TIDEGATE_DATA` and, where there is a place for results, `TIDEGATE_RESULTS`
    /// set. `strip_credentials` keeps the store's credentials
    /// out of its environment.
    pub(crate) fn start(
        command: &[OsString],
        data: &Path,
        results: Option<&Path>,
        strip_credentials: bool,
    ) -> Result<Self, NotStarted> {
        let name = command.first().cloned().unwrap_or_default();
        let mut process = Command::new(&name);
        process.args(command.iter().skip(1)).env("TIDEGATE_DATA", data);
        // Never one that is somebody else's.
        process.env_remove("TIDEGATE_RESULTS");
        process.envs(results.map(|results| ("TIDEGATE_RESULTS", results)));
        if strip_credentials {
            let names = std::env::vars_os().map(|(name, _)| name);
            for name in names.filter(|name| name.as_bytes().starts_with(STORE_VARIABLES)) {
                process.env_remove(name);
            }
        }
        let child = process.spawn().map_err(|error| {
            let name = name.to_string_lossy();
            match error.kind() {
                ErrorKind::NotFound => NotStarted {
                    code: exit::COMMAND_NOT_FOUND,
                    message: format!("command not found: {name}"),
                },
                _ => NotStarted {
                    code: exit::COMMAND_NOT_EXECUTABLE,
                    message: format!("cannot execute {name}: {error}"),
                },
            }
        })?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| NotStarted {
            code: exit::TIDEGATE_FAILED,
            message: "the command ended before it had a process id".into(),
        })?;
        Ok(Self { child, pid, ended: HashSet::new() })
    }

    pub(crate) async fn wait(&mut self) -> Result<ExitStatus> {
        self.child.wait().await.context("cannot wait for the command")
    }

    /// Passes a signal on that came to us. What a terminal sends for a key goes to its whole foreground
    /// group, and the command is in ours: then it has it already.
    pub(crate) fn pass_on(&self, signal: Signal) {
        let of_a_terminal = matches!(signal, Signal::INT | Signal::QUIT | Signal::HUP);
        if !(of_a_terminal && in_foreground()) {
            self.signal(signal);
        }
    }

    /// Takes the exit status of orphans of the command that have ended. To be called now and then: a child
    /// that is seen to have ended twice has nobody else who waits for it.
    pub(crate) fn reap_orphans(&mut self) {
        let strays = strays().unwrap_or_default().into_iter();
        let ended: HashSet<_> = strays.filter(|pid| *pid != self.pid && has_ended(*pid)).collect();
        for pid in ended.intersection(&self.ended) {
            // Somebody waited for it after all.
            let _ = waitpid(Some(*pid), WaitOptions::NOHANG);
        }
        self.ended = ended;
    }

    pub(crate) fn signal(&self, signal: Signal) {
        // A command that has just ended needs no signal.
        let _ = kill_process(self.pid, signal);
    }
}

/// Whether our process group is the one that our terminal sends signals to; `false` without a terminal.
fn in_foreground() -> bool {
    let flags = OFlags::RDONLY | OFlags::NOCTTY | OFlags::CLOEXEC;
    let terminal = rustix::fs::open("/dev/tty", flags, Mode::empty());
    terminal.is_ok_and(|terminal| tcgetpgrp(&terminal).is_ok_and(|group| group == getpgrp()))
}

/// The shell's way to put an exit status into one byte.
pub(crate) fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code & 0xff).unwrap_or(1)
}

/// Makes orphans of the command our children, so that they can be found.
pub(crate) fn adopt_orphans() -> Result<()> {
    set_child_subreaper(Pid::from_raw(1))
        .context("cannot become the reaper of the command's orphans")
}

/// What outlived the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stragglers {
    pub(crate) ended: usize,
    /// Killed, and there still: the kernel ends nobody who waits for the answer of a mount.
    pub(crate) left: usize,
}

/// Ends every child of ours but the workers: TERM first, KILL after [`STRAGGLER_GRACE`]. Waits for them for
/// at most `long`.
pub(crate) async fn end_stragglers(long: Duration) -> Result<Stragglers> {
    let started = Instant::now();
    let mut seen = HashSet::new();
    loop {
        let strays = strays()?;
        let left = strays.len();
        if left == 0 || started.elapsed() >= long {
            return Ok(Stragglers { ended: seen.len().saturating_sub(left), left });
        }
        let signal = if started.elapsed() < STRAGGLER_GRACE { Signal::TERM } else { Signal::KILL };
        for pid in strays {
            let lives = matches!(waitpid(Some(pid), WaitOptions::NOHANG), Ok(None));
            if lives && (seen.insert(pid) || signal == Signal::KILL) {
                // It may have ended this very moment.
                let _ = kill_process(pid, signal);
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Our children but the workers, which are those of the thread that watches over them. Orphans that we
/// adopted are the main thread's.
fn strays() -> Result<Vec<Pid>> {
    let mut found = Vec::new();
    for task in std::fs::read_dir("/proc/self/task").context("cannot read /proc")? {
        let task = task?.path();
        let read = |name| std::fs::read_to_string(task.join(name)).unwrap_or_default();
        if read("comm").trim() == WORKER_WATCHER {
            continue;
        }
        let children = read("children");
        found.extend(
            children.split_whitespace().filter_map(|p| p.parse().ok()).filter_map(Pid::from_raw),
        );
    }
    Ok(found)
}

/// Whether nothing is left of a child but its exit status.
fn has_ended(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    // The state is behind the name, which is in parentheses and may hold any.
    stat.is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z")))
}
