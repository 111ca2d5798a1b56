//! S3 servers, built from the Go modules that `tests/parts` pins.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::shell::{on_path, parts_dir, root, run};

/// The everyday S3 server.
pub(super) fn versitygw() -> Result<bool> {
    built("versitygw", "github.com/versity/versitygw/cmd/versitygw")
}

/// The store that many users run; for the full tier.
pub(super) fn minio() -> Result<bool> {
    built("minio", "github.com/minio/minio")
}

/// Builds a package of the module `tests/parts/<name>` into a folder of that name.
fn built(name: &str, package: &str) -> Result<bool> {
    let recipe_dir = root().join("tests/parts").join(name);
    let mut recipe = String::new();
    for file in ["go.mod", "go.sum"] {
        recipe +=
            &fs::read_to_string(recipe_dir.join(file)).with_context(|| format!("no {file}"))?;
    }
    let folder = parts_dir().join(name);
    if super::is_made_from(&folder, &recipe) {
        return Ok(false);
    }
    ensure!(on_path("go"), "Go 1.25 or newer is needed to build it (https://go.dev/dl)");
    fs::create_dir_all(&folder)?;
    let mut build = Command::new("go");
    build
        .args(["build", "-mod=readonly", "-trimpath", "-ldflags", "-s -w", "-o"])
        .arg(folder.join(name))
        .arg(package)
        .env("CGO_ENABLED", "0")
        .current_dir(recipe_dir);
    run(&mut build)?;
    super::stamp(&folder, &recipe)?;
    Ok(true)
}
