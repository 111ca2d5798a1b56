//! `tidegate run`: the main job on one machine. Lease, mount, command, wipe, receipt.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::process::Signal;
use tidegate_fuse_cache::supervisor::Supervisor;
use tidegate_gateway::source::SourceSpec;
use tidegate_kit::telemetry::{self, Format};
use tidegate_wire::Directive;
use tokio::sync::watch;

use crate::args::RunArgs;
use crate::job::{self, Job};
use crate::origin::Origin;
use crate::progress::Bar;
use crate::receipt::{Receipt, ReceiptFile, ReceiptResults};
use crate::signals::{Insisting, Signals, exit_code};
use crate::stage::{self, Places, ResultsPlace, Stage, Watch};
use crate::{exit, memory, namespace};

pub(crate) fn main(args: RunArgs, json: bool, format: Format) -> Result<u8> {
    telemetry::init(format, "warn")?;
    // The source is opened by its path below the mounts as they are now, before `--at` may cover it.
    namespace::enter()?;
    job::adopt_orphans()?;
    memory::hide()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(drive(args, json, format))
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

/// When a command is given up that was killed and does not end: it waits in a write of results, which only
/// the end of the mount ends.
const GIVEN_UP: Duration = Duration::from_secs(10);

/// How long what outlived the command may take to end.
const STRAGGLERS: Duration = Duration::from_secs(10);
/// The exit code of what SIGKILL ended, as shells put it.
const KILLED: u8 = 128 + 9;

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
    let mut killed: Option<Instant> = None;
    let status = loop {
        tokio::select! {
            status = job.wait() => break Some(status?),
            _ = looks.tick() => job.reap_orphans(),
            signal = signals.next() => {
                let signal = insisting.heard(signal, Instant::now());
                if signal == Signal::KILL {
                    killed.get_or_insert_with(Instant::now);
                }
                job.pass_on(signal);
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
                killed.get_or_insert_with(Instant::now);
                job.signal(Signal::KILL);
            }
            Some(()) = after(killed.map(|at| at + GIVEN_UP)) => {
                eprintln!("tidegate: the command was killed and does not end; its results are drained without it");
                break None;
            }
        }
    };
    bar.clear();
    if let Some((why, _)) = broken {
        eprintln!("tidegate: the command was ended: {why}");
        return Ok(exit::LEASE_LOST);
    }
    Ok(status.map_or(KILLED, job::exit_code))
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
    match job::end_stragglers(STRAGGLERS).await {
        Ok(job::Stragglers { ended: 0, left: 0 }) => {}
        Ok(job::Stragglers { ended, left }) => {
            if ended > 0 {
                eprintln!("tidegate: ended {ended} processes that outlived the command");
            }
            if left > 0 {
                eprintln!(
                    "tidegate: {left} processes wait for results; the mount ends without them"
                );
            }
        }
        Err(error) => flaws.note(&error.context("what outlived the command was not ended")),
    }
    let (ready, progress) = (stage.ready, stage.supervisor.progress());
    let left = stage.supervisor.left_behind();
    let ended_stage = stage.end(json).await;
    let last = *progress.borrow();
    let left = left.borrow().as_ref().map(ReceiptResults::stated);
    // Who waited for the mount waits no more.
    match job::end_stragglers(STRAGGLERS).await {
        Ok(job::Stragglers { left: 0, .. }) => {}
        Ok(job::Stragglers { left, .. }) => {
            flaws.note(&anyhow::anyhow!("{left} processes outlive the command"));
        }
        Err(error) => flaws.note(&error.context("what outlived the command was not ended")),
    }
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
    let mut receipt = receipt.unwrap_or_else(|error| {
        flaws.note(&error);
        None
    });
    match (&mut receipt, &left) {
        (Some(receipt), Some(_)) => receipt.results = left.clone(),
        (None, Some(left)) => left.say_lost(),
        (_, None) => {}
    }
    let certified = receipt.as_ref().is_some_and(Receipt::certified);
    let lost = match &receipt {
        Some(receipt) => receipt.lost_results(),
        None => match &left {
            Some(left) => !left.complete(),
            None => last.results.as_ref().is_some_and(|seen| seen.unsent_files > 0),
        },
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
