//! One worker after the other, until one wipes, one says it cannot go on, or too many die.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::MemfdFlags;
use tidegate_ledger::StatedResults;
use tidegate_wire::Directive;
use tokio::sync::watch;

use crate::control::{Control, Figures, FromWorker, Progress, Start, ToWorker};
use crate::holder::Mount;

use super::link::Link;
use super::results::{HeldResults, ResultsMount};
use super::{Phase, SupervisorError, WorkerLaunch, WorkerReport};

/// Deaths in a row that are put up with: of workers that never got ready, and of workers that got
/// ready but answered no read and brought no result home (a request that kills each worker would come back for ever).
const MAX_UNREADY_DEATHS: u32 = 5;
const MAX_IDLE_DEATHS: u32 = 20;
/// Pause before a worker is replaced, for each death in a row.
const PAUSE: Duration = Duration::from_millis(20);
/// How long a worker that has wiped may take to exit.
const LEAVING: Duration = Duration::from_secs(5);
/// What a worker keeps of the parent's environment.
const ENVIRONMENT: [&str; 3] = ["PATH", "RUST_BACKTRACE", "TIDEGATE_LOG"];

pub(super) struct Watcher {
    mount: Mount,
    results: Option<HeldResults>,
    launch: WorkerLaunch,
    /// The lease's grace, once a worker has told it.
    grace: u32,
    /// Holds the worker's identity key, so that a successor is the same worker to the gateway.
    identity: OwnedFd,
    link: Arc<Link>,
    says: Says,
    /// Inodes of the mount, once a worker said how many.
    inodes: u64,
}

/// What the async side hears.
pub(super) struct Says {
    pub(super) phase: watch::Sender<Phase>,
    pub(super) progress: watch::Sender<Progress>,
    pub(super) directive: watch::Sender<Directive>,
    pub(super) silent: watch::Sender<bool>,
    pub(super) figures: watch::Sender<Figures>,
    pub(super) left: watch::Sender<Option<StatedResults>>,
}

/// How one worker's life ended.
enum End {
    Wiped(Box<WorkerReport>),
    Failed(SupervisorError),
    /// Killed or crashed.
    Died(Reached),
}

/// How far a worker got before it died.
#[derive(Clone, Copy)]
enum Reached {
    Nothing,
    Ready,
    Somewhere,
}

/// Whether a worker was of use: it answered a read, or a result came home.
fn got_somewhere(before: &Progress, now: &Progress) -> bool {
    let files = |progress: &Progress| progress.results.map_or(0, |results| results.home_files);
    now.bytes_read > before.bytes_read || files(now) > files(before)
}

impl Watcher {
    pub(super) fn new(
        mount: Mount,
        results: Option<ResultsMount>,
        launch: WorkerLaunch,
        link: Arc<Link>,
        says: Says,
    ) -> io::Result<Self> {
        let identity = rustix::fs::memfd_create("tidegate-identity", MemfdFlags::CLOEXEC)?;
        let results = results.map(HeldResults::new).transpose()?;
        Ok(Self { mount, results, launch, grace: 0, identity, link, says, inodes: 0 })
    }

    pub(super) fn run(mut self) {
        let outcome = self.supervise();
        self.link.disconnect();
        let phase = match outcome {
            Ok(report) => Phase::Done(report),
            Err(error) => {
                // No worker dropped what the kernel has cached.
                if self.inodes > 0 {
                    self.mount.end_readers(self.inodes);
                }
                if let Some(results) = &mut self.results {
                    results.mount.end_readers(0);
                    self.says.left.send_replace(results.left_behind());
                }
                self.remove_ciphertext();
                Phase::Failed(error)
            }
        };
        let Self { mount, results, says, .. } = self;
        for mount in std::iter::once(mount).chain(results.map(|results| results.mount)) {
            if let Err(error) = mount.close() {
                tracing::error!(%error, "could not unmount");
            }
        }
        says.phase.send_replace(phase);
    }

    fn supervise(&mut self) -> Result<Box<WorkerReport>, SupervisorError> {
        let (mut generation, mut unready, mut idle) = (0, 0, 0);
        loop {
            generation += 1;
            let (mut child, control) = self.spawn()?;
            let end = self.live(&control, generation, child.id());
            self.link.disconnect();
            if matches!(end, End::Wiped(_)) {
                let _leaves_by_itself = control
                    .wait_at_most(LEAVING)
                    .and_then(|()| control.receive::<FromWorker>().map(drop));
            }
            reap(&mut child);
            match end {
                End::Wiped(mut report) => {
                    report.replaced = generation - 1;
                    return Ok(report);
                }
                _ if self.link.aborted() => return Err(SupervisorError::Aborted),
                _ if self.link.overdue() => return Err(SupervisorError::Overdue),
                End::Failed(error) => return Err(error),
                End::Died(reached) => {
                    tracing::warn!(generation, "the worker died");
                    let mounts = std::iter::once(&self.mount)
                        .chain(self.results.as_ref().map(|results| &results.mount));
                    if !mounts.into_iter().all(Mount::can_resend) {
                        return Err(SupervisorError::CannotResend);
                    }
                    (unready, idle) = match reached {
                        Reached::Nothing => (unready + 1, idle),
                        Reached::Ready => (0, idle + 1),
                        Reached::Somewhere => (0, 0),
                    };
                    if unready >= MAX_UNREADY_DEATHS || idle >= MAX_IDLE_DEATHS {
                        return Err(SupervisorError::KeepsDying(unready.max(idle)));
                    }
                    std::thread::sleep(PAUSE * (unready + idle));
                }
            }
        }
    }

    fn spawn(&self) -> Result<(Child, Arc<Control>), SupervisorError> {
        let spawned = (|| {
            let (ours, theirs) = UnixStream::pair()?;
            let mut command = Command::new(&self.launch.exe);
            command.args(&self.launch.args).env_clear();
            command
                .envs(ENVIRONMENT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
            // Not in the terminal's group: an interrupt ends the job first, then the worker wipes.
            command
                .stdin(Stdio::from(OwnedFd::from(theirs)))
                .stdout(Stdio::null())
                .process_group(0);
            Ok::<_, io::Error>((command.spawn()?, Arc::new(Control::new(ours))))
        })();
        spawned.map_err(|error| SupervisorError::Spawn {
            exe: self.launch.exe.clone(),
            why: error.to_string(),
        })
    }

    fn live(&mut self, control: &Arc<Control>, generation: u32, pid: u32) -> End {
        let mut reached = Reached::Nothing;
        let before = *self.says.progress.borrow();
        let mut last = before;
        if self
            .send_start(control, generation)
            .and_then(|()| self.link.connect(control, pid))
            .is_err()
        {
            return End::Died(reached);
        }
        loop {
            match control.receive::<FromWorker>() {
                Ok(Some((FromWorker::Ready(ready), _))) => {
                    reached = Reached::Ready;
                    self.grace = ready.grace;
                    self.inodes = ready.inodes;
                    if ready.results.is_none() {
                        // Dropping it unmounts.
                        self.results = None;
                    }
                    self.says.phase.send_replace(Phase::Ready(ready));
                }
                Ok(Some((FromWorker::Progress(progress), _))) => {
                    if got_somewhere(&before, &progress) {
                        reached = Reached::Somewhere;
                    }
                    last = progress;
                    self.says.progress.send_replace(progress);
                }
                Ok(Some((FromWorker::Figures(figures), _))) => {
                    self.says.figures.send_replace(figures);
                }
                Ok(Some((FromWorker::Directed(directive), _))) => {
                    self.says.directive.send_replace(directive);
                }
                Ok(Some((FromWorker::Serving { until }, _))) => {
                    self.link.serves(until);
                    let silent = until.is_none();
                    let change = |was: &mut bool| std::mem::replace(was, silent) != silent;
                    self.says.silent.send_if_modified(change);
                }
                Ok(Some((FromWorker::KeysDestroyed, _))) => {
                    self.link.serves(None);
                    let clean = self.unmount();
                    if control.send(&ToWorker::Unmounted { clean }, &[]).is_err() {
                        return End::Died(reached);
                    }
                }
                Ok(Some((FromWorker::Wiped { receipt, statement }, _))) => {
                    return End::Wiped(Box::new(WorkerReport {
                        receipt: *receipt,
                        statement,
                        progress: last,
                        replaced: 0,
                    }));
                }
                Ok(Some((FromWorker::Failed { code, message }, _))) => {
                    return End::Failed(SupervisorError::Worker { code, message });
                }
                Ok(None) => return End::Died(reached),
                Err(error) => {
                    tracing::warn!(%error, "the worker's control socket failed");
                    return End::Died(reached);
                }
            }
        }
    }

    /// Each of the mounts, whatever becomes of the other.
    fn unmount(&mut self) -> bool {
        let results = self.results.as_mut().map(|results| &mut results.mount);
        let taken = std::iter::once(&mut self.mount).chain(results).map(|mount| {
            mount.unmount().unwrap_or_else(|error| {
                tracing::error!(%error, "could not unmount");
                false
            })
        });
        !taken.collect::<Vec<_>>().contains(&false)
    }

    fn send_start(&self, control: &Control, generation: u32) -> io::Result<()> {
        let start = Start {
            join: self.launch.join.clone(),
            cache_dir: self.launch.cache.dir.clone(),
            cache_bytes: self.launch.cache.size,
            memory: self.launch.memory,
            connections: self.launch.connections,
            at: self.mount.at().to_owned(),
            mount_id: self.mount.id(),
            init: self.mount.init().into(),
            generation,
            patience: self.grace,
            begun: self.launch.begun,
            before: *self.says.progress.borrow(),
            owner: self.mount.owner(),
            metered: self.launch.metered,
            results: self.results.as_ref().map(HeldResults::start),
        };
        let mut descriptors: Vec<BorrowedFd<'_>> = vec![self.identity.as_fd()];
        descriptors.extend(self.results.as_ref().map(HeldResults::journal));
        descriptors.extend(self.mount.devices());
        descriptors
            .extend(self.results.as_ref().into_iter().flat_map(|results| results.mount.devices()));
        control.send(&ToWorker::Start(Box::new(start)), &descriptors)
    }

    /// Ciphertext of a worker that ended without wiping is of no more use to anybody.
    fn remove_ciphertext(&self) {
        let (dir, join) = (&self.launch.cache.dir, &self.launch.join);
        let cache = crate::store::path_in(dir, join.lease, join.rank);
        let spool = crate::results::spool_in(dir, join.lease, join.rank);
        for path in [cache, spool] {
            match std::fs::remove_file(&path) {
                Ok(()) => tracing::info!(path = %path.display(), "removed the sealed bytes"),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "the sealed bytes stay");
                }
            }
        }
    }
}

/// Ends a worker that has said its last word, or will not.
fn reap(child: &mut Child) {
    let _already_ended = child.kill();
    match child.wait() {
        Ok(status) => tracing::debug!(%status, "worker ended"),
        Err(error) => tracing::warn!(%error, "could not wait for the worker"),
    }
}

#[cfg(test)]
mod tests {
    use crate::control::ResultsProgress;

    use super::*;

    #[test]
    fn a_worker_that_only_brings_results_home_is_of_use() {
        let at_home = |home_files, unsent_bytes| Progress {
            results: Some(ResultsProgress { home_files, unsent_bytes, ..Default::default() }),
            ..Progress::default()
        };
        assert!(got_somewhere(&at_home(3, 0), &at_home(4, 0)));
        assert!(!got_somewhere(&at_home(3, 0), &at_home(3, 9)), "written is not home");
        assert!(got_somewhere(&Progress::default(), &at_home(1, 0)));
        let read = Progress { bytes_read: 1, ..at_home(3, 0) };
        assert!(got_somewhere(&at_home(3, 0), &read));
    }
}
