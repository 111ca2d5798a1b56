//! The worker process: one attachment to one lease, serving one mount that its holder made.
//!
//! Its standard input is the control socket. It has the keys, so it leaves no core, cannot be traced
//! by its own user, keeps its memory out of swap where it may, and ends when its holder does.

mod blocking;
mod deadman;
mod figures;
mod handed;
mod harden;
mod heartbeat;
mod homeward;
mod identity;
mod live;
mod patience;
mod returning;
mod telling;
mod turn;
mod wipe;

use std::future::Future;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tidegate_kit::telemetry::exposition::Exposition;
use tidegate_kit::telemetry::{Format, chain};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::client::ClientError;
use crate::control::{Control, FailureCode, FromWorker, ToWorker};
use crate::results::ResultsError;
use crate::store::StoreError;
use tidegate_wire::ProblemKind;

use self::live::Live;
use self::telling::Telling;

/// How often progress is reported.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);
/// How long a worker without a holder may take to clean up: a large cache on a slow disk takes minutes.
const LAST_BREATH: Duration = Duration::from_secs(600);

/// Why a worker cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkerError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(
        "this lease brings no results home; ask for one that does (`--results` where it is granted), or leave the \
         path for results out"
    )]
    NoResults,
    #[error(transparent)]
    Results(#[from] ResultsError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the manifest is not one this program reads")]
    Manifest(#[source] tidegate_plan::FormatError),
    #[error("the mount cannot be served")]
    Serve(#[source] io::Error),
    #[error("the statement of the wipe cannot be written")]
    Statement(#[from] tidegate_ledger::CanonicalError),
    #[error("{0}")]
    Internal(String),
}

impl WorkerError {
    fn code(&self) -> FailureCode {
        match self {
            Self::Client(ClientError::Refused(problem)) => match problem.kind {
                ProblemKind::LeaseOver => FailureCode::LeaseOver,
                _ => FailureCode::Refused,
            },
            Self::Client(ClientError::Untrusted(_)) => FailureCode::Untrusted,
            Self::Client(ClientError::Unreachable(_)) => FailureCode::Unreachable,
            Self::Client(ClientError::Nonsense(_)) | Self::Manifest(_) => FailureCode::Nonsense,
            Self::NoResults => FailureCode::NoResults,
            Self::Results(_) | Self::Store(_) => FailureCode::Cache,
            Self::Serve(_) | Self::Statement(_) | Self::Internal(_) => FailureCode::Internal,
        }
    }
}

/// Runs a worker until its holder is done with it; it logs as its holder does. Only a holder starts one.
pub fn main(format: Format) -> ExitCode {
    let _set_up_by_the_caller = tidegate_kit::telemetry::init(format, "warn");
    if let Err(error) = harden::process() {
        tracing::error!(%error, "the worker cannot protect its memory");
        return ExitCode::FAILURE;
    }
    let Ok(control) = control_socket() else {
        tracing::error!(
            "`tidegate worker` is started by `tidegate run` and `tidegate mount`, not by hand"
        );
        return ExitCode::FAILURE;
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "the worker cannot start its threads");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(run(Arc::new(control)));
    // Reads that still wait are answered by nobody any more; do not wait for them.
    runtime.shutdown_background();
    code
}

fn control_socket() -> io::Result<Control> {
    let socket = rustix::io::fcntl_dupfd_cloexec(io::stdin().as_fd(), 3)?;
    rustix::net::sockopt::socket_type(&socket)?;
    Ok(Control::new(UnixStream::from(socket)))
}

async fn run(control: Arc<Control>) -> ExitCode {
    let (sender, mut orders) = mpsc::unbounded_channel();
    let reader = Arc::clone(&control);
    let first = tokio::task::spawn_blocking(move || reader.receive::<ToWorker>()).await;
    let Ok(Ok(Some((ToWorker::Start(start), descriptors)))) = first else {
        tracing::error!("the holder did not say what to do");
        return ExitCode::FAILURE;
    };
    // From here on each line of the log names the lease.
    tidegate_kit::telemetry::of_lease(&start.join.lease, start.join.rank);
    let exposition = start.metered.then(figures::begin).transpose();
    let exposition = exposition.unwrap_or_else(|error| {
        tracing::warn!(%error, "there will be no metrics");
        None
    });
    let reader = Arc::clone(&control);
    let listening = std::thread::Builder::new().name("control".into()).spawn(move || {
        while let Ok(Some((order, _))) = reader.receive::<ToWorker>() {
            if sender.send(order).is_err() {
                break;
            }
        }
    });
    if listening.is_err() {
        return ExitCode::FAILURE;
    }
    let outcome = match Live::begin(*start, descriptors).await {
        Ok(live) => serve(live, &control, &mut orders, exposition.as_ref()).await,
        Err(error) => Err(error),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let message = chain(&error);
            tracing::error!("{message}");
            let _holder_gone =
                control.send(&FromWorker::Failed { code: error.code(), message }, &[]);
            ExitCode::FAILURE
        }
    }
}

/// Serves until told to wipe, or until the holder is gone, which is the same without anybody to ask.
/// Before the wipe results come home.
async fn serve(
    mut live: Live,
    control: &Arc<Control>,
    orders: &mut mpsc::UnboundedReceiver<ToWorker>,
    exposition: Option<&Exposition>,
) -> Result<(), WorkerError> {
    let lost =
        |error: io::Error| WorkerError::Internal(format!("the holder cannot be told: {error}"));
    control.send(&FromWorker::Ready(live.ready()), &[]).map_err(lost)?;
    let holder = rustix::process::getppid();
    let mut terminate = signal(SignalKind::terminate()).map_err(WorkerError::Serve)?;
    let mut ticks = tokio::time::interval(PROGRESS_EVERY);
    let mut telling = Telling::new(control);
    let mut draining: Option<Draining> = None;
    loop {
        let orphaned = tokio::select! {
            order = orders.recv() => match order {
                Some(ToWorker::Wipe) => {
                    if draining.is_none() {
                        draining = live.drain(Duration::MAX).map(|drain| Box::pin(drain) as Draining);
                    }
                    if draining.is_some() {
                        continue;
                    }
                    false
                }
                Some(ToWorker::Measure) => {
                    if let Some(exposition) = exposition {
                        telling.say(&FromWorker::Figures(figures::take(&live, exposition)));
                    }
                    continue;
                }
                Some(ToWorker::Start(_) | ToWorker::Unmounted { .. }) => continue,
                None => true,
            },
            Some(()) = drained(&mut draining) => false,
            // Sent when the holder dies, or by somebody who ends a whole group: then the holder decides.
            _ = terminate.recv() => {
                if rustix::process::getppid() == holder {
                    continue;
                }
                true
            }
            turn = live.turn() => {
                let word = telling::take(&mut live, turn).await?;
                telling.say(&word);
                if draining.is_none() || !live.is_over() {
                    continue;
                }
                false
            }
            _ = ticks.tick() => {
                if let Some(exposition) = exposition {
                    exposition.upkeep();
                }
                telling.tell(&live);
                continue;
            }
        };
        return if orphaned {
            tracing::warn!("the holder is gone: wiping and leaving");
            let files = live.files.clone();
            last_breath(LAST_BREATH, &files, wipe::alone(live)).await
        } else {
            wipe::with_holder(live, control, orders).await
        };
    }
}

/// Results on their way home, once the job is over.
type Draining = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Resolves when they are there, or their time is over; to nothing while there is nothing to wait for.
async fn drained(draining: &mut Option<Draining>) -> Option<()> {
    draining.as_mut()?.await;
    Some(())
}

/// Nobody comes after a worker without a holder: one that cannot wait for the end of its wipe leaves
/// no name behind, and what was not overwritten has no key any more.
async fn last_breath(
    long: Duration,
    files: &[PathBuf],
    wiping: impl Future<Output = Result<(), WorkerError>>,
) -> Result<(), WorkerError> {
    if let Ok(wiped) = tokio::time::timeout(long, wiping).await {
        return wiped;
    }
    let unlinked = files.iter().map(|file| match std::fs::remove_file(file) {
        Ok(()) => format!("{} is unlinked, not overwritten", file.display()),
        Err(error) => format!("{} stays: {error}", file.display()),
    });
    let unlinked = unlinked.collect::<Vec<_>>().join("; ");
    Err(WorkerError::Internal(format!("the wipe took too long; {unlinked}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wipe_given_up_leaves_no_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cache");
        std::fs::write(&file, "sealed").unwrap();
        last_breath(Duration::from_secs(60), std::slice::from_ref(&file), async { Ok(()) })
            .await
            .unwrap();
        assert!(file.exists(), "a wipe in time unlinks by itself");
        let slow = last_breath(
            Duration::from_millis(1),
            std::slice::from_ref(&file),
            std::future::pending(),
        )
        .await;
        assert!(slow.unwrap_err().to_string().contains("unlinked"));
        assert!(!file.exists());
    }
}
