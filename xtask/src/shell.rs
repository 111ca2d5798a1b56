//! Child processes of xtask, and where things lie.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

/// The repository's root: xtask is always built from `xtask/` in it.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or_else(|| Path::new("."))
}

/// Where parts are kept: `$TIDEGATE_PARTS`, or `.parts` in the repository.
pub(crate) fn parts_dir() -> PathBuf {
    std::env::var_os("TIDEGATE_PARTS").map_or_else(|| root().join(".parts"), PathBuf::from)
}

/// Cargo as it called us, in the repository's root. Without what it told us of ourselves: build scripts would run
/// again for that, each time that somebody builds by hand in between.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    let of_us = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(of_us) {
            command.env_remove(name);
        }
    }
    command
}

/// Runs to the end with our own terminal; anything but success is an error that quotes the command.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let words = words(command);
    let status = command.status().with_context(|| format!("cannot start `{words}`"))?;
    ensure!(status.success(), "`{words}` ended with {status}");
    Ok(())
}

/// Runs to the end and returns what it wrote to standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let words = words(command);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start `{words}`"))?;
    ensure!(output.status.success(), "`{words}` ended with {}", output.status);
    String::from_utf8(output.stdout).with_context(|| format!("`{words}` wrote what is not UTF-8"))
}

/// Whether a program of this name stands in `$PATH` or in the system's own folders.
pub(crate) fn on_path(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];
    path.split(':').chain(system).any(|folder| Path::new(folder).join(program).is_file())
}

fn words(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}
