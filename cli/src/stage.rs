//! A mount with a worker behind it, from a join file to a receipt. `run` and `mount` share it.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tempfile::TempDir;
use tidegate_fuse_cache::budget::Budget;
use tidegate_fuse_cache::holder::{Mount, MountOptions};
use tidegate_fuse_cache::supervisor::{
    CacheConfig, Supervisor, SupervisorError, WorkerLaunch, WorkerReport,
};
use tidegate_fuse_cache::{Progress, Ready};
use tidegate_kit::clock::boottime;
use tidegate_kit::telemetry::Format;
use tidegate_ledger::WipeCertificate;
use tidegate_wire::JoinFile;
use tokio::task::JoinSet;

use crate::args::CacheArgs;
use crate::ops::Ops;
use crate::receipt::Receipt;
use crate::{Usage, paths};

/// FUSE threads: more than the cores of a small node gain nothing, fewer starve several readers.
const FUSE_THREADS: usize = 4;
/// Most connections to the gateway; how many are used follows the bandwidth-delay product.
const CONNECTIONS: usize = 16;

/// How a mount is watched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watch {
    pub(crate) format: Format,
    /// Where operators may ask.
    pub(crate) ops: Option<SocketAddr>,
}

#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) supervisor: Supervisor,
    pub(crate) ready: Ready,
    at: PathBuf,
    /// Answers operators for as long as this is kept.
    _ops: Option<JoinSet<()>>,
    /// Where the mount point was made by us; removed with it.
    _made: Option<TempDir>,
}

impl Stage {
    /// Mounts, starts the worker and waits until reads are answered.
    pub(crate) async fn begin(
        join: JoinFile,
        cache: &CacheArgs,
        at: Option<PathBuf>,
        may_cover: Option<&Path>,
        watch: Watch,
    ) -> Result<Self> {
        // Here a lease has just been granted, or its join file read.
        let begun = boottime();
        let ops = match watch.ops {
            Some(address) => Some(Ops::listen(address).await?),
            None => None,
        };
        let dir = paths::cache(cache.cache.clone())?;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .with_context(|| format!("cannot make the cache directory {}", dir.display()))?;
        let (at, made) = match at {
            Some(at) => (std::path::absolute(at)?, None),
            None => {
                let made =
                    TempDir::with_prefix("tidegate-").context("cannot make a mount point")?;
                let at = made.path().join("data");
                fs::create_dir(&at)?;
                (at, Some(made))
            }
        };
        let covers = may_cover.is_some_and(|source| source == at);
        let without = cache.kernel_without.clone();
        let options =
            MountOptions { at: at.clone(), threads: FUSE_THREADS, cover: covers, without };
        let mount = Mount::new(options).map_err(explain)?;
        let launch = WorkerLaunch {
            exe: std::env::current_exe().context("cannot find this program's own file")?,
            args: ["worker", "--log-format", watch.format.word()].map(Into::into).into(),
            join,
            cache: CacheConfig { dir, size: cache.cache_size.map(|size| size.0) },
            memory: cache.memory.map_or_else(Budget::default_bytes, |size| size.0),
            connections: CONNECTIONS,
            begun,
            metered: ops.is_some(),
        };
        let supervisor = Supervisor::start(mount, launch)?;
        let ops = ops.map(|ops| ops.serve(supervisor.watch()));
        let ready = match supervisor.ready().await {
            Ok(ready) => ready,
            Err(error) => {
                supervisor.abort().await;
                return Err(error.into());
            }
        };
        Ok(Self { supervisor, ready, at, _ops: ops, _made: made })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.at
    }

    pub(crate) fn progress(&self) -> Progress {
        *self.supervisor.progress().borrow()
    }

    /// Wipes. Nothing is mounted any more when this returns, however it ends.
    pub(crate) async fn end(self) -> Result<WorkerReport, SupervisorError> {
        self.supervisor.finish().await
    }
}

/// What the user typed is at fault for some mount errors; those are usage errors.
fn explain(error: tidegate_fuse_cache::holder::MountError) -> anyhow::Error {
    use tidegate_fuse_cache::holder::MountError;
    match error {
        MountError::Missing { .. }
        | MountError::NotDirectory { .. }
        | MountError::NotEmpty { .. }
        | MountError::Busy { .. }
        | MountError::Dead { .. } => Usage(error.to_string()).into(),
        other => other.into(),
    }
}

/// The receipt of a worker that wiped.
pub(crate) fn receipt(ready: &Ready, report: &WorkerReport) -> Result<Receipt> {
    let certificate = WipeCertificate::parse(&report.receipt.certificate)
        .context("the gateway's certificate cannot be read")?;
    let counters = certificate.stated.as_ref().map(|stated| stated.counters);
    let progress = report.progress;
    Ok(Receipt {
        lease: certificate.lease,
        source: None,
        selected_files: ready.files,
        selected_bytes: ready.bytes,
        blocks: ready.blocks,
        unshown: Vec::new(),
        left_bytes: certificate.observed.sent_bytes.unwrap_or(progress.bytes_fetched),
        read_bytes: counters.map_or(progress.bytes_read, |c| c.bytes_read),
        read_errors: counters.map_or(progress.read_errors, |c| c.read_errors),
        first_byte_ms: progress.first_byte_ms,
        workers_replaced: report.replaced,
        outcome: certificate.observed.outcome,
        certificate: Some(certificate),
        checkpoint: report.receipt.receipt.checkpoint.clone(),
    })
}
