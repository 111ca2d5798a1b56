//! Real parts: built or installed once, found again by a stamp over their recipe.
//!
//! A part that cannot be had is an error that names it, never a test that is skipped.

mod debian;
mod deny;
mod go;
mod python;

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::shell;

pub(crate) use deny::program as cargo_deny;

/// Makes a part unless it is there; true if it was made now.
type Ensure = fn() -> Result<bool>;

/// Everything that the everyday tier needs.
pub(crate) fn all() -> Result<()> {
    fs::create_dir_all(shell::parts_dir()).context("cannot create the folder of parts")?;
    make(&[
        ("Debian packages", debian::ensure),
        ("versitygw", go::versitygw),
        ("Python readers and writers", python::ensure),
        ("cargo-deny", deny::ensure),
    ])
}

/// What the full tier needs besides.
pub(crate) fn full() -> Result<()> {
    make(&[("MinIO", go::minio)])
}

fn make(parts: &[(&str, Ensure)]) -> Result<()> {
    for (name, ensure) in parts {
        let started = Instant::now();
        let made = ensure().with_context(|| format!("part `{name}` cannot be had"))?;
        let how = if made { "made" } else { "present" };
        eprintln!("part {name}: {how} ({} s)", started.elapsed().as_secs());
    }
    Ok(())
}

/// Whether `folder` was made from exactly this recipe.
fn is_made_from(folder: &Path, recipe: &str) -> bool {
    fs::read_to_string(folder.join("recipe")).is_ok_and(|kept| kept == recipe)
}

/// Written last, so that a part half made is made again.
fn stamp(folder: &Path, recipe: &str) -> Result<()> {
    fs::write(folder.join("recipe"), recipe)
        .with_context(|| format!("cannot stamp {}", folder.display()))
}
