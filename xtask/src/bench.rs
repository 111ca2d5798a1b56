//! `cargo xtask bench`: builds the program and the bench, and measures the one with the other.

use std::ffi::OsString;
use std::process::Command;

use anyhow::Result;

use crate::shell;

/// Runs the bench; `args` go to it as they are (`--rounds`, `--large-mib`, `--small-files`, `--scratch`).
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
    shell::run(
        Command::new(target.join("tidegate-bench"))
            .args(["all", "--tidegate"])
            .arg(target.join("tidegate"))
            .args(args),
    )
}
