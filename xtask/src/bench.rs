//! `cargo xtask bench`: builds the program and the bench, and measures the one with the other.

use std::ffi::OsString;
use std::process::Command;

use anyhow::Result;

use crate::shell;

/// Word for the part of its own.
const MANY_FILES: &str = "many-files";

/// Runs the bench; `args` go to it as they are (`--rounds`, `--large-mib`, `--small-files`, `--scratch`); as root it
/// measures results over a link too.
/// `many-files` as the first word measures very many small files instead (`--thousands`,
/// `--generated-thousands`); it needs root and the parts.
pub(crate) fn run(args: &[OsString]) -> Result<()> {
    shell::run(shell::cargo().args([
        "build",
        "--release",
        "--locked",
        "-p",
        "tidegate",
        "-p",
        "tidegate-bench",
    ]))?;
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| shell::root().join("target"), Into::into)
        .join("release");
    let mut bench = Command::new(target.join("tidegate-bench"));
    if args.first().is_none_or(|word| word != MANY_FILES) {
        bench.args(["all", "--tidegate"]).arg(target.join("tidegate"));
    }
    shell::run(bench.args(args))
}
