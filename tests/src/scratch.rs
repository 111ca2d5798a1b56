//! A temporary folder that is gone afterwards.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

#[derive(Debug)]
pub struct Scratch(TempDir);

impl Scratch {
    pub fn new() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("tidegate-").tempdir();
        dir.map(Self).context("cannot make a scratch folder")
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// A name inside; nothing is made.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// What is mounted inside, as the test sees it.
    pub fn mounts(&self) -> Result<Vec<String>> {
        let all = std::fs::read_to_string("/proc/self/mounts").context("no /proc")?;
        let inside = self.path().display().to_string();
        Ok(all.lines().filter(|line| line.contains(&inside)).map(str::to_owned).collect())
    }

    /// A folder inside, made now.
    pub fn dir(&self, name: &str) -> Result<PathBuf> {
        let path = self.join(name);
        std::fs::create_dir_all(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }
}
