//! `tidegate mount`: a lease of a gateway elsewhere at a path, until a signal; then the wipe.

use anyhow::Result;
use tidegate_kit::telemetry;

use crate::args::MountArgs;
use crate::receipt::ReceiptFile;
use crate::run::{log_format, read_join};
use crate::signals::Signals;
use crate::stage::{self, Stage};
use crate::{exit, memory};

pub(crate) fn main(args: MountArgs, json: bool) -> Result<u8> {
    telemetry::init(log_format(json), "warn")?;
    memory::hide()?;
    memory::no_core_images()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(drive(args, json))
}

async fn drive(args: MountArgs, json: bool) -> Result<u8> {
    let mut signals = Signals::listen()?;
    let join = read_join(&args.join, None)?;
    let file = args.receipt.as_deref().map(ReceiptFile::open).transpose()?;
    let stage = tokio::select! {
        stage = Stage::begin(join, &args.cache, Some(args.at.clone()), None, json) => stage?,
        signal = signals.next() => return Ok(crate::signals::exit_code(signal)),
    };
    eprintln!(
        "tidegate: {} files, {} at {}",
        stage.ready.files,
        bytesize::ByteSize(stage.ready.bytes),
        stage.path().display()
    );
    let mut directive = stage.supervisor.directive();
    let broken = tokio::select! {
        _ = signals.next() => None,
        Ok(_) = directive.wait_for(|d| *d != tidegate_wire::Directive::Continue) => {
            Some("the gateway ended the lease".to_owned())
        }
        error = stage.supervisor.failed() => Some(error.to_string()),
    };
    if let Some(why) = &broken {
        eprintln!("tidegate: {why}");
    }
    let ready = stage.ready;
    match stage.end().await {
        Ok(report) => {
            let receipt = stage::receipt(&ready, &report)?;
            if let Some(Err(error)) = file.map(|file| file.write(&receipt)) {
                eprintln!("tidegate: {error:#}");
            }
            receipt.say(json)?;
            Ok(match (receipt.certified(), broken) {
                (false, _) => exit::NOT_CERTIFIED,
                (true, Some(_)) => exit::TIDEGATE_FAILED,
                (true, None) => 0,
            })
        }
        Err(error) => {
            eprintln!("tidegate: the wipe is not certified: {error}");
            Ok(exit::NOT_CERTIFIED)
        }
    }
}
