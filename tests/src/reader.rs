//! Python programs with the pinned packages of `tests/parts/python`.

use std::path::PathBuf;

use anyhow::Result;

use crate::part;

/// The interpreter of the virtual environment.
pub fn python() -> Result<PathBuf> {
    part::built("python/recipe")?;
    part::built("python/bin/python3")
}

/// A script of `tests/python`.
pub fn script(name: &str) -> PathBuf {
    part::repository().join("tests/python").join(name)
}
