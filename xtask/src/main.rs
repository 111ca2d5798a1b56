//! `cargo xtask`: the parts that tests need, the rules of the house, and the one command that CI runs.

mod bench;
mod ci;
mod parts;
mod shell;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Tidegate's own tools")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build or install the real parts that scenarios start, into `.parts` (or $TIDEGATE_PARTS).
    Parts,
    /// Check the rules that no compiler holds: arrows, purity, sizes, markers, module cycles.
    Tidy,
    /// Measure beside references in one run; what follows goes to the bench (`--rounds 3`).
    #[command(trailing_var_arg = true)]
    Bench {
        #[arg(allow_hyphen_values = true)]
        args: Vec<std::ffi::OsString>,
    },
    /// Everything CI runs: gates, unit tests, fuzz smoke, scenarios.
    Ci,
    /// What is too heavy for every run: MinIO, results at full length, a soak of 20 minutes.
    Full,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Parts => parts::all(),
        Command::Tidy => tidy::check(),
        Command::Bench { args } => bench::run(&args),
        Command::Ci => ci::run(),
        Command::Full => ci::full(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
