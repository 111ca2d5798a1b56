//! `cargo xtask bench`: what Tidegate costs, each figure beside a reference taken in the same run.
//!
//! Three programs in one binary. The *driver* makes data, measures sealing in process, and runs
//! `tidegate run -- <this binary> read …`. The *reader* is then the job: it reads what it was given
//! and asks the kernel what its relatives (the gateway in the parent, the worker) spent meanwhile. The
//! *writer* does the same with results.

mod crypto;
mod data;
mod many;
mod reader;
mod relatives;
mod report;
mod results;
mod road;
mod spread;
mod writer;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure everything and print the table.
    All {
        /// The `tidegate` binary to measure.
        #[arg(long)]
        tidegate: PathBuf,
        /// Where to put data and cache; needs some 6 GiB, on the disk to be measured.
        #[arg(long)]
        scratch: Option<PathBuf>,
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Bytes of large files, in MiB.
        #[arg(long, default_value_t = 1024)]
        large_mib: u64,
        /// How many small files of 110 KB.
        #[arg(long, default_value_t = 10_000)]
        small_files: usize,
    },
    /// Measure very many small files, with the `tidegate` of the same build; root is needed.
    ManyFiles(many::Plan),
    /// The job's side: read, count, print JSON lines.
    Read(reader::Plan),
    /// The same for a job that writes.
    Write(writer::Plan),
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Read(plan) => reader::run(&plan),
        Command::Write(plan) => writer::run(&plan),
        Command::ManyFiles(plan) => {
            let mut report = report::Report::default();
            let measured = many::measure(&plan, &mut report);
            // What was measured before something failed is worth its minutes.
            report.print();
            measured
        }
        Command::All { tidegate, scratch, rounds, large_mib, small_files } => {
            let scratch = match scratch {
                Some(dir) => tempfile::tempdir_in(dir)?,
                None => tempfile::tempdir()?,
            };
            let mut report = report::Report::default();
            crypto::measure(rounds, &mut report)?;
            let set = data::make(scratch.path(), large_mib, small_files)?;
            road::measure(&tidegate, &set, rounds, &mut report)?;
            let measured = results::measure(&tidegate, &set, large_mib, rounds, &mut report);
            // What was measured before something failed is worth its minutes.
            report.print();
            measured
        }
    }
}
