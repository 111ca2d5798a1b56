//! `tidegate gateway restore`: after a loss of state, a new ledger that says what is missing.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;

use anyhow::{Result, bail};
use serde_json::json;
use tidegate_gateway::{GatewayConfig, Restore};
use tidegate_kit::telemetry::{self, Format};

use crate::Usage;
use crate::args::RestoreArgs;

/// What is to be typed.
const WORD: &str = "restore";

pub(crate) fn main(args: &RestoreArgs, as_json: bool, format: Format) -> Result<u8> {
    telemetry::init(format, "info")?;
    let config = config(args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let restore = Restore::look(config).await?;
        explain(&restore);
        if !args.yes {
            confirm()?;
        }
        let subject = format!("uid {}, command line", rustix::process::getuid().as_raw());
        let restored = restore.carry_out(&subject).await?;
        if as_json {
            let document = json!({
                "withdrawn": restored.withdrawn, "voided": restored.voided,
                "ledger_key": restored.key, "checkpoint": restored.checkpoint,
            });
            eprintln!("{document}");
        } else {
            eprintln!(
                "tidegate: restored: {} leases closed as withdrawn, {} keys destroyed of which nothing else was left",
                restored.withdrawn, restored.voided
            );
            eprintln!("tidegate: the new ledger's key is {}", restored.key);
        }
        Ok(0)
    })
}

fn config(args: &RestoreArgs) -> Result<GatewayConfig> {
    if let Some(file) = &args.config {
        return GatewayConfig::load(file).map_err(|error| Usage(error.to_string()).into());
    }
    // The ledger of `run`: as it is opened there, but for no source and by nobody who lives on.
    let state: PathBuf = std::path::absolute(crate::paths::state(args.ledger.clone())?)?;
    let copy = state.join("checkpoint");
    let mut config = GatewayConfig::embedded(state, "/");
    (config.embedded, config.checkpoint_copy) = (false, Some(copy));
    Ok(config)
}

fn explain(restore: &Restore) {
    let after = restore.after();
    let found = &after.found;
    eprintln!(
        "tidegate: of the ledger {} there are {} entries that hold",
        found.origin, found.size
    );
    match &after.known {
        Some(known) if known.origin == found.origin && known.size > found.size => {
            eprintln!(
                "tidegate: its second place knows of {}: {} are lost",
                known.size,
                known.size - found.size
            );
        }
        Some(known) => eprintln!(
            "tidegate: its second place knows of another history: {} with {} entries",
            known.origin, known.size
        ),
        None => eprintln!("tidegate: nothing is known to be missing"),
    }
    eprintln!(
        "tidegate: a restore destroys the keys of the {} leases that are open, closes them as withdrawn and opens a \
         new ledger; workers lose their data, join files of before are worth nothing",
        restore.open_leases()
    );
}

fn confirm() -> Result<()> {
    if !std::io::stdin().is_terminal() {
        return Err(
            Usage("nothing was changed: say --yes to restore without being asked".into()).into()
        );
    }
    eprint!("Type `{WORD}` to go on: ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if answer.trim() != WORD {
        bail!("nothing was changed");
    }
    Ok(())
}
