//! The worker process: one attachment to one lease, serving one mount that its holder made.
//!
//! Its standard input is the control socket. It has the keys, so it leaves no core, cannot be traced
//! by its own user, keeps its memory out of swap where it may, and ends when its holder does.

mod deadman;
mod figures;
mod harden;
mod heartbeat;
mod identity;
mod live;
mod patience;
mod returning;
mod turn;
mod wipe;

use std::future::Future;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tidegate_kit::telemetry::exposition::Exposition;
use tidegate_kit::telemetry::{Format, chain};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::client::ClientError;
use crate::control::{Control, FailureCode, FromWorker, ToWorker};
use crate::store::StoreError;
use tidegate_wire::{Directive, ProblemKind};

use crate::life::Past;

use self::live::Live;
use self::turn::Turn;

/// How often progress is reported.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);
/// How long a worker without a holder may take to clean up: a large cache on a slow disk takes minutes.
const LAST_BREATH: Duration = Duration::from_secs(600);

/// Why a worker cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkerError {
    #[error(transparent)]
    Client(#[from] ClientError),
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
            Self::Store(_) => FailureCode::Cache,
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

/// What one turn does, and what the holder is to hear of it.
async fn take(live: &mut Live, turn: Turn) -> Result<FromWorker, WorkerError> {
    let over = match turn {
        Turn::Directed(Directive::Die) => {
            tracing::warn!("the gateway ended the lease: destroying the keys");
            true
        }
        Turn::Directed(directive) => return Ok(FromWorker::Directed(directive)),
        Turn::Past(Past::Deadline) => {
            tracing::warn!("the lease's deadline is over: destroying the keys");
            true
        }
        Turn::Past(Past::Grace) => {
            tracing::warn!("no gateway was heard for the grace: the keys are destroyed");
            false
        }
        Turn::Returned(Ok(back)) => {
            live.resume(back).await.map_err(WorkerError::Serve)?;
            tracing::warn!("a gateway is heard again, and the lease still lives");
            return Ok(FromWorker::Serving { until: live.until() });
        }
        Turn::Returned(Err(error)) => {
            tracing::warn!(%error, "a gateway is heard again, and the lease is over");
            true
        }
    };
    if over {
        live.destroy_keys().await;
        Ok(FromWorker::Directed(Directive::Die))
    } else {
        live.fall_silent().await;
        Ok(FromWorker::Serving { until: None })
    }
}

/// Serves until told to wipe, or until the holder is gone, which is the same without anybody to ask.
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
    let (mut reported, mut told) = (None, None);
    loop {
        let orphaned = tokio::select! {
            order = orders.recv() => match order {
                Some(ToWorker::Wipe) => false,
                Some(ToWorker::Measure) => {
                    if let Some(exposition) = exposition {
                        let figures = FromWorker::Figures(figures::take(&live, exposition));
                        let _sent_or_orphaned = control.send(&figures, &[]);
                    }
                    continue;
                }
                Some(_) => continue,
                None => true,
            },
            // Sent when the holder dies, or by somebody who ends a whole group: then the holder decides.
            _ = terminate.recv() => {
                if rustix::process::getppid() == holder {
                    continue;
                }
                true
            }
            turn = live.turn() => {
                let word = take(&mut live, turn).await?;
                let _sent_or_orphaned = control.send(&word, &[]);
                continue;
            }
            _ = ticks.tick() => {
                let until = live.until();
                if told.replace(until) != Some(until) {
                    let _sent_or_orphaned = control.send(&FromWorker::Serving { until }, &[]);
                }
                if let Some(exposition) = exposition {
                    exposition.upkeep();
                }
                let progress = live.progress();
                if reported.replace(progress) != Some(progress) {
                    let _sent_or_orphaned = control.send(&FromWorker::Progress(progress), &[]);
                }
                continue;
            }
        };
        return if orphaned {
            tracing::warn!("the holder is gone: wiping and leaving");
            let cache_file = live.cache_file.clone();
            last_breath(LAST_BREATH, &cache_file, wipe::alone(live)).await
        } else {
            wipe::with_holder(live, control, orders).await
        };
    }
}

/// Nobody comes after a worker without a holder: one that cannot wait for the end of its wipe leaves
/// no name behind, and what was not overwritten has no key any more.
async fn last_breath(
    long: Duration,
    cache_file: &Path,
    wiping: impl Future<Output = Result<(), WorkerError>>,
) -> Result<(), WorkerError> {
    if let Ok(wiped) = tokio::time::timeout(long, wiping).await {
        return wiped;
    }
    let unlinked = match std::fs::remove_file(cache_file) {
        Ok(()) => "the cache is unlinked, not overwritten".to_owned(),
        Err(error) => format!("{} stays: {error}", cache_file.display()),
    };
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
        last_breath(Duration::from_secs(60), &file, async { Ok(()) }).await.unwrap();
        assert!(file.exists(), "a wipe in time unlinks by itself");
        let slow = last_breath(Duration::from_millis(1), &file, std::future::pending()).await;
        assert!(slow.unwrap_err().to_string().contains("unlinked"));
        assert!(!file.exists());
    }
}
