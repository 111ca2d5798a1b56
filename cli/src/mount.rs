//! `tidegate mount`: a lease of a gateway elsewhere at a path, until a signal; then the wipe.

use std::time::Duration;

use anyhow::Result;
use tidegate_kit::telemetry::{self, Format};
use tidegate_wire::Directive;

use crate::args::MountArgs;
use crate::origin::read_join;
use crate::receipt::{ReceiptFile, ReceiptResults};
use crate::signals::Signals;
use crate::stage::{self, Places, ResultsPlace, Stage, Watch};
use crate::{Usage, exit, memory};

/// How often a mount whose lease is drained is looked at: does anybody use it?
const IDLE_LOOK: Duration = Duration::from_millis(500);

pub(crate) fn main(args: MountArgs, json: bool, format: Format) -> Result<u8> {
    telemetry::init(format, "warn")?;
    memory::hide()?;
    memory::no_core_images()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(drive(args, json, format))
}

async fn drive(args: MountArgs, json: bool, format: Format) -> Result<u8> {
    let mut signals = Signals::listen()?;
    let join = read_join(&args.join, None)?;
    telemetry::of_lease(&join.lease, join.rank);
    let watch = Watch { format, ops: args.ops.ops };
    let file = args.receipt.as_deref().map(ReceiptFile::open).transpose()?;
    if args.results_at.is_none() && (args.spool.results_async || args.spool.results_spool.is_some())
    {
        return Err(Usage("name the place for results with --results-at".into()).into());
    }
    let results = args.results_at.clone().map(|at| ResultsPlace {
        at: Some(at),
        spool: &args.spool,
        required: true,
    });
    let places = Places { at: Some(args.at.clone()), may_cover: None, results };
    let stage = tokio::select! {
        stage = Stage::begin(join, &args.cache, places, watch) => stage?,
        signal = signals.next() => return Ok(crate::signals::exit_code(signal)),
    };
    eprintln!(
        "tidegate: {} files, {} at {}",
        stage.ready.files,
        bytesize::ByteSize(stage.ready.bytes),
        stage.path().display()
    );
    if let Some(path) = stage.results_path() {
        eprintln!("tidegate: results go home from {}", path.display());
    }
    let broken = serve(&stage, &mut signals).await;
    if let Some(why) = &broken {
        eprintln!("tidegate: {why}");
    }
    let (ready, left) = (stage.ready, stage.supervisor.left_behind());
    match stage.end(json).await {
        Ok(report) => {
            let receipt = stage::receipt(&ready, &report)?;
            let written = file.map_or(Ok(()), |file| file.write(&receipt));
            if let Err(error) = &written {
                eprintln!("tidegate: {error:#}");
            }
            receipt.say(json)?;
            Ok(match (receipt.certified() && written.is_ok(), broken) {
                (_, Some(_)) => exit::LEASE_LOST,
                _ if receipt.lost_results() => exit::RESULTS_LOST,
                (false, None) => exit::NOT_CERTIFIED,
                (true, None) => 0,
            })
        }
        Err(error) => {
            eprintln!("tidegate: the wipe is not certified: {error}");
            let left = left.borrow().as_ref().map(ReceiptResults::stated);
            if let Some(left) = &left {
                left.say_lost();
            }
            Ok(match broken {
                Some(_) => exit::LEASE_LOST,
                None if left.is_some_and(|left| !left.complete()) => exit::RESULTS_LOST,
                None => exit::NOT_CERTIFIED,
            })
        }
    }
}

/// Until a signal, or until a lease that is drained is not used any more; else why it cannot go on.
async fn serve(stage: &Stage, signals: &mut Signals) -> Option<String> {
    let supervisor = &stage.supervisor;
    let (mut directive, mut silent) = (supervisor.directive(), supervisor.silent());
    let mut looks = tokio::time::interval(IDLE_LOOK);
    loop {
        tokio::select! {
            _ = signals.next() => return None,
            Ok(()) = directive.changed() => match *directive.borrow_and_update() {
                Directive::Continue => {}
                Directive::Drain => {
                    eprintln!("tidegate: the lease is drained; the mount ends when nobody uses it");
                }
                Directive::Die => return Some("the lease ended".to_owned()),
            },
            Ok(()) = silent.changed() => {
                let said = if *silent.borrow_and_update() {
                    "no gateway was heard for the grace of the lease; reads fail until one is"
                } else {
                    "a gateway is heard again; reads are answered"
                };
                eprintln!("tidegate: {said}");
            }
            _ = looks.tick(), if *directive.borrow() == Directive::Drain => {
                match supervisor.unmount_if_idle() {
                    Ok(true) => return None,
                    Ok(false) => {}
                    Err(error) => tracing::warn!(%error, "the mount cannot be taken away yet"),
                }
            }
            error = supervisor.failed() => return Some(error.to_string()),
        }
    }
}
