//! A mount with a worker behind it, from a join file to a receipt. `run` and `mount` share it.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tempfile::TempDir;
use tidegate_fuse_cache::Ready;
use tidegate_fuse_cache::budget::Budget;
use tidegate_fuse_cache::holder::{Mount, MountKind, MountOptions};
use tidegate_fuse_cache::supervisor::{
    CacheConfig, ResultsMount, Supervisor, SupervisorError, WorkerLaunch, WorkerReport,
};
use tidegate_kit::clock::boottime;
use tidegate_kit::telemetry::Format;
use tidegate_ledger::WipeCertificate;
use tidegate_wire::JoinFile;
use tokio::task::JoinSet;

use crate::args::{CacheArgs, SpoolArgs};
use crate::ops::Ops;
use crate::progress::HomeBar;
use crate::receipt::{Receipt, ReceiptResults};
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
    results_at: Option<PathBuf>,
    /// Answers operators for as long as this is kept.
    _ops: Option<JoinSet<()>>,
    /// Where mount points were made by us; removed with it.
    _made: Vec<TempDir>,
}

/// What is mounted where.
#[derive(Debug)]
pub(crate) struct Places<'a> {
    /// The data; a new directory when absent.
    pub(crate) at: Option<PathBuf>,
    /// A directory that the data may hide.
    pub(crate) may_cover: Option<&'a Path>,
    pub(crate) results: Option<ResultsPlace<'a>>,
}

/// Where results are written to.
#[derive(Debug)]
pub(crate) struct ResultsPlace<'a> {
    /// A new directory when absent.
    pub(crate) at: Option<PathBuf>,
    pub(crate) spool: &'a SpoolArgs,
    /// A lease that brings nothing home is an error.
    pub(crate) required: bool,
}

impl Stage {
    /// Mounts, starts the worker and waits until reads are answered.
    pub(crate) async fn begin(
        join: JoinFile,
        cache: &CacheArgs,
        places: Places<'_>,
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
        let mut made = Vec::new();
        let at = mount_point(places.at, "data", &mut made)?;
        let covers = places.may_cover.is_some_and(|source| source == at);
        let options = |kind, at: &Path, cover| MountOptions {
            kind,
            at: at.to_owned(),
            threads: FUSE_THREADS,
            cover,
            without: cache.kernel_without.clone(),
        };
        let mount = Mount::new(options(MountKind::Data, &at, covers)).map_err(explain)?;
        let (mut results, mut results_at) = (None, None);
        if let Some(ResultsPlace { at, spool, required }) = places.results {
            let at = mount_point(at, "results", &mut made)?;
            let options = options(MountKind::Results, &at, false);
            results = Some(ResultsMount {
                mount: Mount::new(options).map_err(explain)?,
                spool_bytes: spool.results_spool.map(|size| size.0),
                asynchronous: spool.results_async,
                required,
            });
            results_at = Some(at);
        }
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
        let supervisor = Supervisor::start(mount, results, launch)?;
        let ops = ops.map(|ops| ops.serve(supervisor.watch()));
        let ready = match supervisor.ready().await {
            Ok(ready) => ready,
            Err(error) => {
                supervisor.abort().await;
                return Err(error.into());
            }
        };
        let results_at = results_at.filter(|_| ready.results.is_some());
        Ok(Self { supervisor, ready, at, results_at, _ops: ops, _made: made })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.at
    }

    /// Where results are written to, if the lease brings any home.
    pub(crate) fn results_path(&self) -> Option<&Path> {
        self.results_at.as_deref()
    }

    /// Brings results home and wipes. Nothing is mounted any more when this returns, however it ends.
    pub(crate) async fn end(self, json: bool) -> Result<WorkerReport, SupervisorError> {
        let mut progress = self.supervisor.progress();
        let mut bar = HomeBar::new(json);
        let mut finishing = std::pin::pin!(self.supervisor.finish());
        loop {
            tokio::select! {
                report = &mut finishing => return report,
                Ok(()) = progress.changed() => {
                    if let Some(results) = progress.borrow_and_update().results {
                        bar.set(&results);
                    }
                }
            }
        }
    }
}

/// The directory that was named, or a new one, which is kept in `made`.
fn mount_point(at: Option<PathBuf>, name: &str, made: &mut Vec<TempDir>) -> Result<PathBuf> {
    if let Some(at) = at {
        return Ok(std::path::absolute(at)?);
    }
    let new = TempDir::with_prefix("tidegate-").context("cannot make a mount point")?;
    let at = new.path().join(name);
    fs::create_dir(&at)?;
    made.push(new);
    Ok(at)
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
    let stated = certificate.stated.as_ref();
    let counters = stated.map(|stated| stated.counters);
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
        results: stated.map_or_else(
            || progress.results.as_ref().map(ReceiptResults::last_seen),
            |stated| stated.results.as_ref().map(ReceiptResults::stated),
        ),
        workers_replaced: report.replaced,
        outcome: certificate.observed.outcome,
        certificate: Some(certificate),
        checkpoint: report.receipt.receipt.checkpoint.clone(),
    })
}
