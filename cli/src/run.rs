//! `tidegate run`: the main job on one machine. Lease, mount, command, wipe, receipt.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::process::Signal;
use tidegate_fuse_cache::supervisor::Supervisor;
use tidegate_gateway::source::SourceSpec;
use tidegate_gateway::{
    Allowed, CutError, Gateway, GatewayConfig, GrantError, GrantRequest, Granted, ResultsRequest,
    SurveyError,
};
use tidegate_kit::telemetry::{self, Format};
use tidegate_wire::{Directive, JoinFile};
use tokio::sync::watch;

use crate::args::{RunArgs, SourceArgs};
use crate::job::{self, Job};
use crate::progress::Bar;
use crate::receipt::{Receipt, ReceiptFile, ReceiptResults};
use crate::signals::{Insisting, Signals, exit_code};
use crate::stage::{self, Places, ResultsPlace, Stage, Watch};
use crate::{Usage, exit, home, memory, namespace, paths, source};

pub(crate) fn main(args: RunArgs, json: bool, format: Format) -> Result<u8> {
    telemetry::init(format, "warn")?;
    // The source is opened by its path below the mounts as they are now, before `--at` may cover it.
    namespace::enter()?;
    job::adopt_orphans()?;
    memory::hide()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(drive(args, json, format))
}

/// Where the lease comes from.
enum Origin {
    /// A gateway in this very process, on loopback.
    Embedded {
        gateway: Box<Gateway>,
        granted: Box<Granted>,
        spec: SourceSpec,
        /// Where results go.
        home: Option<SourceSpec>,
    },
    /// A gateway elsewhere, which granted already.
    Elsewhere(JoinFile),
}

async fn drive(args: RunArgs, json: bool, format: Format) -> Result<u8> {
    // A mistyped command costs nothing: it is looked for before anything leaves.
    if let Err(refused) = job::find(&args.command) {
        eprintln!("tidegate: {}", refused.message);
        return Ok(refused.code);
    }
    let mut signals = Signals::listen()?;
    let file = args.receipt.as_deref().map(ReceiptFile::open).transpose()?;
    let origin = match Origin::open(&args, &mut signals).await? {
        Ok(origin) => origin,
        Err(signal) => return Ok(exit_code(signal)),
    };
    let join = origin.join()?;
    telemetry::of_lease(&join.lease, join.rank);
    let watch = Watch { format, ops: args.ops.ops };
    let covers = match &origin {
        Origin::Embedded { spec: SourceSpec::Directory(path), .. } => Some(path.clone()),
        _ => None,
    };
    // A lease that was granted elsewhere may bring results home or not.
    let wanted = args.results.results.is_some() || args.join.is_some();
    let results = wanted.then(|| ResultsPlace {
        at: args.results_at.clone(),
        spool: &args.spool,
        required: args.join.is_none() || args.results_at.is_some(),
    });
    let places = Places { at: args.at.clone(), may_cover: covers.as_deref(), results };
    let begun = tokio::select! {
        begun = Stage::begin(join, &args.cache, places, watch) => begun.map(Ok),
        signal = signals.next() => Ok(Err(signal)),
    };
    let stage = match begun {
        Ok(Ok(stage)) => stage,
        Ok(Err(signal)) => {
            origin.give_up().await;
            return Ok(exit_code(signal));
        }
        Err(error) => {
            origin.give_up().await;
            return Err(error);
        }
    };
    let ended = work(&args, &stage, &origin, &mut signals, json).await;
    close(stage, origin, file, ended, json).await
}

/// How often the command's orphans are looked after.
const ORPHANS: Duration = Duration::from_secs(1);
/// How long a command that is ended may take before it is killed.
const JOB_GRACE: Duration = Duration::from_secs(10);

/// How the command's part ended: its exit code, or why there is none.
type Ended = Result<u8>;

/// Runs the command to its end and leaves nothing of it behind.
async fn work(
    args: &RunArgs,
    stage: &Stage,
    origin: &Origin,
    signals: &mut Signals,
    json: bool,
) -> Ended {
    let strip = origin.reaches_a_store();
    let mut job = match Job::start(&args.command, stage.path(), stage.results_path(), strip) {
        Ok(job) => job,
        Err(refused) => {
            eprintln!("tidegate: {}", refused.message);
            return Ok(refused.code);
        }
    };
    let bar = Bar::new(stage.ready.bytes, json);
    let mut progress = stage.supervisor.progress();
    let mut directive = stage.supervisor.directive();
    let mut looks = tokio::time::interval(ORPHANS);
    let mut silent = stage.supervisor.silent();
    let mut insisting = Insisting::default();
    // Why the command is ended, and when it is killed.
    let mut broken: Option<(String, Instant)> = None;
    let status = loop {
        tokio::select! {
            status = job.wait() => break status?,
            _ = looks.tick() => job.reap_orphans(),
            signal = signals.next() => {
                job.pass_on(insisting.heard(signal, Instant::now()));
            }
            Ok(()) = progress.changed() => {
                let now = *progress.borrow();
                bar.set(now.bytes_fetched.min(stage.ready.bytes), now.bytes_read);
            }
            why = lost(&mut directive, &mut silent, &stage.supervisor), if broken.is_none() => {
                broken = Some((why, Instant::now() + JOB_GRACE));
                job.signal(Signal::TERM);
            }
            Some(()) = after(broken.as_ref().map(|(_, kill)| *kill)) => {
                broken = broken.map(|(why, _)| (why, Instant::now() + JOB_GRACE));
                job.signal(Signal::KILL);
            }
        }
    };
    bar.clear();
    if let Some((why, _)) = broken {
        eprintln!("tidegate: the command was ended: {why}");
        return Ok(exit::LEASE_LOST);
    }
    Ok(job::exit_code(status))
}

/// Waits until the data may not be read any more; why.
async fn lost(
    directive: &mut watch::Receiver<Directive>,
    silent: &mut watch::Receiver<bool>,
    supervisor: &Supervisor,
) -> String {
    tokio::select! {
        Ok(_) = directive.wait_for(|directive| *directive == Directive::Die) => {
            "the lease ended".to_owned()
        }
        Ok(_) = silent.wait_for(|silent| *silent) => {
            "no gateway was heard for the grace of the lease".to_owned()
        }
        error = supervisor.failed() => error.to_string(),
    }
}

async fn after(time: Option<Instant>) -> Option<()> {
    tokio::time::sleep_until(time?.into()).await;
    Some(())
}

/// Wipes, closes the lease and says what happened. What fails on the way is said and keeps nothing of the
/// rest from being done: the command has run, and its code and the receipt are what the caller is owed.
async fn close(
    stage: Stage,
    origin: Origin,
    file: Option<ReceiptFile>,
    ended: Ended,
    json: bool,
) -> Result<u8> {
    let mut flaws = Flaws::default();
    match job::end_stragglers().await {
        Ok(0) => {}
        Ok(stragglers) => {
            eprintln!("tidegate: ended {stragglers} processes that outlived the command");
        }
        Err(error) => flaws.note(&error.context("what outlived the command was not ended")),
    }
    let (ready, progress) = (stage.ready, stage.supervisor.progress());
    let ended_stage = stage.end(json).await;
    let last = *progress.borrow();
    let receipt = match ended_stage {
        Ok(report) => stage::receipt(&ready, &report).map(Some),
        Err(error) => {
            eprintln!("tidegate: the wipe is not certified: {error}");
            origin
                .withdrawn(&ready, &last)
                .await
                .context("the lease may stay open until its deadline")
        }
    };
    let receipt = receipt.unwrap_or_else(|error| {
        flaws.note(&error);
        None
    });
    let certified = receipt.as_ref().is_some_and(Receipt::certified);
    let lost = match &receipt {
        Some(receipt) => receipt.lost_results(),
        None => last.results.as_ref().is_some_and(|seen| seen.unsent_bytes > 0),
    };
    if let Some(mut receipt) = receipt {
        origin.annotate(&mut receipt);
        if let Some(Err(error)) = file.map(|file| file.write(&receipt)) {
            flaws.note(&error);
        }
        if let Err(error) = receipt.say(json) {
            flaws.note(&error);
        }
    }
    origin.shutdown().await;
    Ok(match ended? {
        0 if lost => exit::RESULTS_LOST,
        0 if !certified || flaws.any => exit::NOT_CERTIFIED,
        code => code,
    })
}

/// What went wrong after the command had run.
#[derive(Debug, Default)]
struct Flaws {
    any: bool,
}

impl Flaws {
    fn note(&mut self, error: &anyhow::Error) {
        eprintln!("tidegate: {error:#}");
        self.any = true;
    }
}

impl Origin {
    /// Opens the gateway and takes a lease; the inner error is a signal that came meanwhile.
    async fn open(args: &RunArgs, signals: &mut Signals) -> Result<Result<Self, Signal>> {
        if let Some(file) = &args.join {
            return Ok(Ok(Self::Elsewhere(read_join(file, args.gateway.as_deref())?)));
        }
        let from = &args.source;
        let beside = args.results_at.is_some()
            || args.spool.results_async
            || args.spool.results_spool.is_some();
        if args.results.results.is_none() && beside {
            let why = "say with --results where results go, or join a lease that knows";
            return Err(Usage(why.into()).into());
        }
        if from.from.is_none() {
            return Err(Usage("name the data with --from, or a lease with --join".into()).into());
        }
        let spec = source::source(from)?;
        let results = home::request(&args.results, &from.s3, &spec)?;
        let home = results.as_ref().map(|results| results.home.clone());
        if let (Some(SourceSpec::Directory(home)), Some(at)) = (&home, &args.results_at) {
            apart(home, at)?;
        }
        let request = request(args, from, &spec, results)?;
        let gateway = start_gateway(args, &spec, home.as_ref()).await?;
        let granted = tokio::select! {
            granted = gateway.grant(request) => granted,
            signal = signals.next() => {
                gateway.shutdown().await;
                return Ok(Err(signal));
            }
        };
        match granted {
            Ok(granted) => Ok(Ok(Self::Embedded {
                gateway: Box::new(gateway),
                granted: Box::new(granted),
                spec,
                home,
            })),
            Err(error) => {
                gateway.shutdown().await;
                // As `plan` says it.
                Err(match error {
                    GrantError::Survey(SurveyError::Cut(CutError::Selection(error))) => {
                        Usage(error.to_string()).into()
                    }
                    error => error.into(),
                })
            }
        }
    }

    fn join(&self) -> Result<JoinFile> {
        match self {
            Self::Embedded { granted, .. } => {
                granted.joins.first().cloned().context("the gateway made no token")
            }
            Self::Elsewhere(join) => Ok(join.clone()),
        }
    }

    /// The gateway of this process has credentials that are none of the command's business.
    fn reaches_a_store(&self) -> bool {
        let is_store = |spec: &SourceSpec| matches!(spec, SourceSpec::S3 { .. });
        match self {
            Self::Embedded { spec, home, .. } => {
                is_store(spec) || home.as_ref().is_some_and(is_store)
            }
            Self::Elsewhere(_) => false,
        }
    }

    /// Nothing was staged: the lease goes at once.
    async fn give_up(self) {
        if let Self::Embedded { gateway, granted, .. } = self {
            if let Err(error) = gateway.close(granted.lease).await {
                eprintln!("tidegate: the lease stays open until its deadline: {error}");
            }
            gateway.shutdown().await;
        }
    }

    /// The receipt of a lease whose worker did not certify its wipe.
    async fn withdrawn(
        &self,
        ready: &tidegate_fuse_cache::Ready,
        last: &tidegate_fuse_cache::Progress,
    ) -> Result<Option<Receipt>> {
        let Self::Embedded { gateway, granted, .. } = self else { return Ok(None) };
        let closed = gateway.close(granted.lease).await?;
        let certificate = closed.certificates.first();
        Ok(Some(Receipt {
            lease: closed.lease,
            source: None,
            selected_files: ready.files,
            selected_bytes: ready.bytes,
            blocks: ready.blocks,
            unshown: Vec::new(),
            left_bytes: closed.sent_bytes.unwrap_or(closed.released_bytes),
            read_bytes: last.bytes_read,
            read_errors: last.read_errors,
            first_byte_ms: last.first_byte_ms,
            results: last.results.as_ref().map(ReceiptResults::last_seen),
            workers_replaced: 0,
            outcome: closed.outcome,
            certificate: certificate
                .map(|text| tidegate_ledger::WipeCertificate::parse(text))
                .transpose()?,
            checkpoint: closed.checkpoint,
        }))
    }

    /// Adds what only the embedded gateway knows.
    fn annotate(&self, receipt: &mut Receipt) {
        if let Self::Embedded { granted, spec, .. } = self {
            receipt.source = Some(spec.to_string());
            receipt.unshown.clone_from(&granted.unshown);
        }
    }

    async fn shutdown(self) {
        if let Self::Embedded { gateway, .. } = self {
            gateway.shutdown().await;
        }
    }
}

async fn start_gateway(
    args: &RunArgs,
    spec: &SourceSpec,
    home: Option<&SourceSpec>,
) -> Result<Gateway> {
    let state = std::path::absolute(paths::state(args.ledger.ledger.clone())?)?;
    // Beside the ledger, not in it: a ledger that was set back alone is noticed at the next start.
    let copy = state.join("checkpoint");
    let mut config = GatewayConfig::embedded(state, allowed(spec)?);
    config.checkpoint_copy = Some(copy);
    if let Some(home) = home {
        config.allow_results(home);
    }
    config.rate_limit = args.limit.map(|rate| rate.0);
    Ok(Gateway::start(config).await?)
}

/// The one source that an embedded gateway may serve: the real path, as the gateway compares it.
fn allowed(spec: &SourceSpec) -> Result<Allowed> {
    match spec {
        SourceSpec::Directory(path) => {
            let real = fs::canonicalize(path).map_err(|error| {
                anyhow::Error::new(error).context(format!("--from: cannot open {}", path.display()))
            })?;
            Ok(SourceSpec::Directory(real).into())
        }
        SourceSpec::S3 { .. } => Ok(spec.clone().into()),
    }
}

/// The gateway writes to the home by its path, which a mount must not hide.
fn apart(home: &Path, at: &Path) -> Result<()> {
    let at = fs::canonicalize(at)
        .map_err(|error| Usage(format!("--results-at {}: {error}", at.display())))?;
    if at.starts_with(home) || home.starts_with(&at) {
        let why = format!("--results-at {}: would hide the results' home", at.display());
        return Err(Usage(why).into());
    }
    Ok(())
}

fn request(
    args: &RunArgs,
    from: &SourceArgs,
    spec: &SourceSpec,
    results: Option<ResultsRequest>,
) -> Result<GrantRequest> {
    let (rank, ranks) = source::rank(from);
    Ok(GrantRequest {
        source: spec.clone(),
        selection: source::selection(from)?,
        ranks,
        only_rank: Some(rank),
        duration: args.duration.0,
        subject: subject(),
        dataset: String::new(),
        results,
    })
}

/// Under whose name data leaves: the user and the host that ask.
fn subject() -> String {
    let user = rustix::process::getuid().as_raw();
    let host = rustix::system::uname();
    format!("uid {user} on {}", host.nodename().to_string_lossy())
}

/// Reads a join file and, when asked, puts another gateway first.
pub(crate) fn read_join(file: &PathBuf, gateway: Option<&str>) -> Result<JoinFile> {
    let bytes =
        fs::read(file).map_err(|error| Usage(format!("--join {}: {error}", file.display())))?;
    let mut join = JoinFile::parse(&bytes)
        .map_err(|error| Usage(format!("--join {}: {error}", file.display())))?;
    if let Some(gateway) = gateway {
        join.gateways.retain(|known| known != gateway);
        join.gateways.insert(0, gateway.to_owned());
    }
    Ok(join)
}
