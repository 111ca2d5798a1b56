//! Where `cargo xtask parts` put things, and programs of the system.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

/// `$TIDEGATE_PARTS`, or `.parts` in the repository.
fn folder() -> PathBuf {
    std::env::var_os("TIDEGATE_PARTS").map_or_else(|| repository().join(".parts"), PathBuf::from)
}

/// The repository's root.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or_else(|| Path::new("."))
}

/// A file that `cargo xtask parts` made.
pub fn built(name: &str) -> Result<PathBuf> {
    let path = folder().join(name);
    ensure!(path.is_file(), "part {} is missing: run `cargo xtask parts`", path.display());
    Ok(path)
}

/// A program of the system, by its name.
pub fn program(name: &str) -> Result<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"])
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.is_file())
        .with_context(|| format!("program {name} is missing: run `cargo xtask parts`"))
}

/// The `tidegate` program of the same build as these tests, or `$TIDEGATE_BIN`.
pub fn tidegate() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("TIDEGATE_BIN") {
        return Ok(path.into());
    }
    let own = std::env::current_exe().context("cannot tell where this program lies")?;
    let built = own.ancestors().skip(1).take(2).map(|folder| folder.join("tidegate"));
    let found = built.into_iter().find(|path| path.is_file());
    found.context("no `tidegate` beside the tests: run `cargo build --release`")
}
