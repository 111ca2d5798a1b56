//! A virtual environment with the readers, the writers and the second implementation, at pinned versions.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::shell::{on_path, parts_dir, root, run};

pub(super) fn ensure() -> Result<bool> {
    let requirements = root().join("tests/parts/python/requirements.txt");
    let recipe = fs::read_to_string(&requirements).context("no requirements.txt")?;
    let folder = parts_dir().join("python");
    if super::is_made_from(&folder, &recipe) {
        return Ok(false);
    }
    ensure!(on_path("python3"), "Python 3.11 or newer is needed, with its venv module");
    let mut venv = Command::new("python3");
    run(venv.args(["-m", "venv", "--clear"]).arg(&folder))?;
    let mut install = Command::new(folder.join("bin/python3"));
    install
        .args(["-m", "pip", "install", "--quiet", "--only-binary", ":all:", "--requirement"])
        .arg(&requirements);
    run(&mut install)?;
    super::stamp(&folder, &recipe)?;
    Ok(true)
}
