//! The everyday S3 server, built from the Go module that `tests/parts/versitygw` pins.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::shell::{on_path, parts_dir, root, run};

const PACKAGE: &str = "github.com/versity/versitygw/cmd/versitygw";

pub(super) fn ensure() -> Result<bool> {
    let recipe_dir = root().join("tests/parts/versitygw");
    let mut recipe = String::new();
    for file in ["go.mod", "go.sum"] {
        recipe +=
            &fs::read_to_string(recipe_dir.join(file)).with_context(|| format!("no {file}"))?;
    }
    let folder = parts_dir().join("versitygw");
    if super::is_made_from(&folder, &recipe) {
        return Ok(false);
    }
    ensure!(on_path("go"), "Go 1.25 or newer is needed to build it (https://go.dev/dl)");
    fs::create_dir_all(&folder)?;
    let mut build = Command::new("go");
    build
        .args(["build", "-mod=readonly", "-trimpath", "-ldflags", "-s -w", "-o"])
        .arg(folder.join("versitygw"))
        .arg(PACKAGE)
        .env("CGO_ENABLED", "0")
        .current_dir(recipe_dir);
    run(&mut build)?;
    super::stamp(&folder, &recipe)?;
    Ok(true)
}
