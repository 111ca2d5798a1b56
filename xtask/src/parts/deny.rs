//! cargo-deny, built once at a pinned version.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use crate::shell::{cargo, parts_dir, run};

const VERSION: &str = "0.20.2";

/// The program that [`ensure`] made.
pub(crate) fn program() -> PathBuf {
    parts_dir().join("cargo-deny/bin/cargo-deny")
}

pub(super) fn ensure() -> Result<bool> {
    let folder = parts_dir().join("cargo-deny");
    if super::is_made_from(&folder, VERSION) {
        return Ok(false);
    }
    fs::create_dir_all(&folder)?;
    // A target folder of its own: our profile and lock file are not the tool's.
    let mut install = cargo();
    install
        .args(["install", "--quiet", "--locked", "cargo-deny", "--version", VERSION, "--root"])
        .arg(&folder)
        .env("CARGO_TARGET_DIR", folder.join("target"));
    run(&mut install)?;
    fs::remove_dir_all(folder.join("target"))?;
    super::stamp(&folder, VERSION)?;
    Ok(true)
}
