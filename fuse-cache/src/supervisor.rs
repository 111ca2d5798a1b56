//! The parent's side: starts the worker, gives it the mount, replaces it when it is killed, and takes
//! everything down at the end.
//!
//! One plain thread owns the mount and the child. A child's parent-death signal follows the *thread*
//! that made it, so this must not be a thread of a pool. The async side talks to it through the
//! control socket and a watch channel.

mod link;
mod results;
mod worker;

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use tidegate_kit::clock::boottime;
use tidegate_ledger::StatedResults;
use tidegate_wire::{Directive, JoinFile, WipeReceipt};
use tokio::sync::watch;

use crate::control::{FailureCode, Figures, Progress, Ready};
use crate::holder::Mount;

use self::link::Link;
use self::worker::{Says, Watcher};

pub use self::results::ResultsMount;

/// Between two looks at whether the worker is overdue.
const LOOK: Duration = Duration::from_millis(500);

/// A worker that takes longer to say how it is does not answer.
const FIGURES_TIME: Duration = Duration::from_secs(2);

/// Name of the thread that starts the workers: they are its children, and nobody else's.
pub const WORKER_WATCHER: &str = "worker-watcher";

/// Where ciphertext lies on this node.
#[derive(Clone, Debug)]
pub struct CacheConfig {
    pub dir: PathBuf,
    /// Most bytes on disk; none: as [`crate::store::StoreConfig`] says.
    pub size: Option<u64>,
}

/// How to start a worker.
#[derive(Clone, Debug)]
pub struct WorkerLaunch {
    /// The program and the arguments that make it call [`crate::worker::main`].
    pub exe: PathBuf,
    pub args: Vec<OsString>,
    pub join: JoinFile,
    pub cache: CacheConfig,
    /// Budget of all buffers in bytes; see [`crate::budget`].
    pub memory: u64,
    /// Most connections for blocks.
    pub connections: usize,
    /// When the lease was granted, or the mount asked for, on the boot clock.
    pub begun: Duration,
    /// Collect figures for [`Supervisor::watch`].
    pub metered: bool,
}

/// Why the mount ended, or never began. Nothing is left mounted.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SupervisorError {
    #[error("the worker {exe} cannot be started: {why}")]
    Spawn { exe: PathBuf, why: String },
    /// The worker said why it cannot go on.
    #[error("{message}")]
    Worker { code: FailureCode, message: String },
    #[error(
        "the worker was killed, and this kernel (older than 6.9) cannot send its open requests again, so the mount was ended"
    )]
    CannotResend,
    #[error("the worker died {0} times in a row without getting anywhere; see its log above")]
    KeepsDying(u32),
    #[error(
        "no gateway was heard for the grace, and the worker did not give up its keys, so it was ended and the mount with it"
    )]
    Overdue,
    #[error("the mount was taken down before the wipe")]
    Aborted,
}

/// The end of a worker that wiped.
#[derive(Clone, Debug)]
pub struct WorkerReport {
    /// The whole certificate, counter-signed by the gateway's ledger.
    pub receipt: WipeReceipt,
    /// The worker's own statement, canonical JSON.
    pub statement: String,
    /// Last progress.
    pub progress: Progress,
    /// Workers that were killed and replaced on the way.
    pub replaced: u32,
}

#[derive(Clone, Debug)]
enum Phase {
    Starting,
    Ready(Ready),
    Done(Box<WorkerReport>),
    Failed(SupervisorError),
}

/// A mount with a worker behind it. Dropping it kills the worker and unmounts.
#[derive(Debug)]
pub struct Supervisor {
    link: Arc<Link>,
    phase: watch::Receiver<Phase>,
    progress: watch::Receiver<Progress>,
    directive: watch::Receiver<Directive>,
    silent: watch::Receiver<bool>,
    figures: watch::Receiver<Figures>,
    left: watch::Receiver<Option<StatedResults>>,
    /// Paths and ids of the mounts.
    mounted: Vec<(PathBuf, Option<u64>)>,
    thread: Option<JoinHandle<()>>,
}

impl Supervisor {
    /// Starts a worker for the mount, and for the one for results if there is one. Returns at once; see
    /// [`Self::ready`].
    pub fn start(
        mount: Mount,
        results: Option<ResultsMount>,
        launch: WorkerLaunch,
    ) -> Result<Self, SupervisorError> {
        let (phase_tx, phase) = watch::channel(Phase::Starting);
        let (progress_tx, progress) = watch::channel(Progress::default());
        let (directive_tx, directive) = watch::channel(Directive::Continue);
        let (silent_tx, silent) = watch::channel(false);
        let (figures_tx, figures) = watch::channel(Figures::default());
        let (left_tx, left) = watch::channel(None);
        let says = Says {
            phase: phase_tx,
            progress: progress_tx,
            directive: directive_tx,
            silent: silent_tx,
            figures: figures_tx,
            left: left_tx,
        };
        let link = Arc::new(Link::default());
        let mut mounted = vec![(mount.at().to_owned(), mount.id())];
        mounted.extend(results.as_ref().map(ResultsMount::place));
        let exe = launch.exe.clone();
        let failed =
            |error: io::Error| SupervisorError::Spawn { exe: exe.clone(), why: error.to_string() };
        let watcher =
            Watcher::new(mount, results, launch, Arc::clone(&link), says).map_err(failed)?;
        let thread = std::thread::Builder::new()
            .name(WORKER_WATCHER.into())
            .spawn(move || watcher.run())
            .map_err(failed)?;
        let supervisor = Self {
            link,
            phase,
            progress,
            directive,
            silent,
            figures,
            left,
            mounted,
            thread: Some(thread),
        };
        let link = Arc::downgrade(&supervisor.link);
        std::thread::Builder::new()
            .name("deadman".into())
            .spawn(move || end_overdue(&link))
            .map_err(failed)?;
        Ok(supervisor)
    }

    /// Waits until reads are answered.
    pub async fn ready(&self) -> Result<Ready, SupervisorError> {
        let mut phase = self.phase.clone();
        let settled = phase.wait_for(|phase| !matches!(phase, Phase::Starting)).await;
        match settled.as_deref() {
            Ok(Phase::Ready(ready)) => Ok(*ready),
            Ok(Phase::Failed(error)) => Err(error.clone()),
            Ok(Phase::Done(_) | Phase::Starting) | Err(_) => Err(SupervisorError::Aborted),
        }
    }

    /// Waits for the end of a mount that cannot go on.
    pub async fn failed(&self) -> SupervisorError {
        let mut phase = self.phase.clone();
        let failed =
            phase.wait_for(|phase| matches!(phase, Phase::Failed(_) | Phase::Done(_))).await;
        match failed.as_deref() {
            Ok(Phase::Failed(error)) => error.clone(),
            Ok(_) | Err(_) => SupervisorError::Aborted,
        }
    }

    /// Figures, about twice a second.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// What the gateway last told the worker to do. After `Die` every read already fails.
    pub fn directive(&self) -> watch::Receiver<Directive> {
        self.directive.clone()
    }

    /// Whether no gateway was heard for the grace, so that every read fails until one is.
    pub fn silent(&self) -> watch::Receiver<bool> {
        self.silent.clone()
    }

    /// What was not at home when the mount ended without a statement of its worker; `None` before, and
    /// after an end in good order.
    pub fn left_behind(&self) -> watch::Receiver<Option<StatedResults>> {
        self.left.clone()
    }

    /// Takes the mounts off their paths if nobody uses any of them. `Ok(false)`: somebody does.
    pub fn unmount_if_idle(&self) -> io::Result<bool> {
        for (at, id) in &self.mounted {
            if !crate::holder::is_idle(at, *id)? {
                return Ok(false);
            }
        }
        for (at, id) in &self.mounted {
            if !crate::holder::unmount_if_idle(at, *id)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What operators may ask of the mount.
    pub fn watch(&self) -> Watch {
        let (link, phase) = (Arc::clone(&self.link), self.phase.clone());
        Watch { link, phase, figures: self.figures.clone() }
    }

    /// Process id of the present worker, if there is one.
    pub fn worker_pid(&self) -> Option<u32> {
        self.link.pid()
    }

    /// The end in good order: results home, keys destroyed, unmounted, cache and spool overwritten, read
    /// back, discarded and unlinked, certificate posted and counter-signed.
    pub async fn finish(mut self) -> Result<WorkerReport, SupervisorError> {
        self.link.wipe();
        let end = {
            let ended = self
                .phase
                .wait_for(|phase| matches!(phase, Phase::Done(_) | Phase::Failed(_)))
                .await;
            match ended.as_deref() {
                Ok(Phase::Done(report)) => Ok(report.as_ref().clone()),
                Ok(Phase::Failed(error)) => Err(error.clone()),
                Ok(Phase::Starting | Phase::Ready(_)) | Err(_) => Err(SupervisorError::Aborted),
            }
        };
        self.join().await;
        end
    }

    /// Kills the worker and unmounts; nothing is certified. Its ciphertext is unlinked.
    pub async fn abort(mut self) {
        self.link.abort();
        self.join().await;
    }

    async fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _joined = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

/// The holder's own dead-man's switch, for a worker whose one does not work. By the boot clock, so a
/// machine that wakes late acts within one look.
fn end_overdue(link: &Weak<Link>) {
    while let Some(link) = link.upgrade() {
        link.end_overdue(boottime());
        drop(link);
        std::thread::sleep(LOOK);
    }
}

/// A mount as its operators see it: no keys, no orders.
#[derive(Clone, Debug)]
pub struct Watch {
    link: Arc<Link>,
    phase: watch::Receiver<Phase>,
    figures: watch::Receiver<Figures>,
}

impl Watch {
    /// Whether reads were ever answered.
    pub fn is_started(&self) -> bool {
        !matches!(*self.phase.borrow(), Phase::Starting)
    }

    /// The worker's figures as they are now; `None` when it does not answer.
    pub async fn figures(&self) -> Option<Figures> {
        let mut figures = self.figures.clone();
        figures.mark_unchanged();
        if !matches!(*self.phase.borrow(), Phase::Ready(_)) || !self.link.measure() {
            return None;
        }
        tokio::time::timeout(FIGURES_TIME, figures.changed()).await.ok()?.ok()?;
        Some(figures.borrow_and_update().clone())
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.link.abort();
            let _ended = thread.join();
        }
    }
}
