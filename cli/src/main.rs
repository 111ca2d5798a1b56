//! `tidegate`: the one program, and the one place that knows gateway and worker together.

mod admin;
mod args;
mod audit;
mod certified;
mod daemon;
mod doctor;
mod exit;
mod home;
mod job;
mod memory;
#[cfg(test)]
mod metrics_doc;
mod mount;
mod namespace;
mod ops;
mod origin;
mod paths;
mod plan;
mod progress;
mod receipt;
mod restore;
mod run;
mod signals;
mod source;
mod stage;
mod stored;
mod story;
#[allow(clippy::print_stdout, reason = "the answer is the command's output")]
mod table;
mod units;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser as _;
use tidegate_kit::telemetry::Format;

use crate::args::{Cli, Command};

fn main() -> ExitCode {
    memory::keep_freed_memory();
    let cli = Cli::parse();
    if matches!(cli.command, Command::Worker) {
        return tidegate_fuse_cache::worker::main(cli.log_format.unwrap_or_default());
    }
    let json = cli.json;
    let result =
        tidegate_kit::tls::install_default().map_err(Into::into).and_then(|()| dispatch(cli));
    tidegate_kit::telemetry::flush();
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let usage = error.downcast_ref::<Usage>().is_some();
            let code = if usage { exit::USAGE } else { exit::TIDEGATE_FAILED };
            if json {
                let error = format!("{error:#}");
                eprintln!("{}", serde_json::json!({ "error": error, "code": code }));
            } else {
                eprintln!("tidegate: {error:#}");
            }
            ExitCode::from(code)
        }
    }
}

/// Marks an error as one of the arguments or the config file (exit code 2).
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

fn dispatch(cli: Cli) -> Result<u8> {
    let json = cli.json;
    let asked = cli.log_format.or_else(|| json.then_some(Format::Json));
    let format = asked.unwrap_or_default();
    match cli.command {
        Command::Run(args) => run::main(*args, json, format),
        Command::Plan(args) => plan::main(args, json),
        Command::Gateway(args) => daemon::main(&args, json, asked),
        Command::Mount(args) => mount::main(args, json, format),
        Command::Lease(command) => admin::lease(command, json),
        Command::Status(args) => admin::status(&args, json),
        Command::Audit(command) => audit::main(command, json),
        Command::Doctor(args) => doctor::main(args, json),
        Command::Worker => Ok(exit::USAGE),
    }
}
