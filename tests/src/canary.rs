//! Bytes that occur nowhere else, to be looked for where plaintext must not be.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::part;
use crate::process::check;
use crate::scratch::Scratch;

const LEN: usize = 32;

/// 32 random bytes. Planted all over a file, so that any piece of it longer than 64 bytes shows one.
#[derive(Clone, Debug)]
pub struct Canary([u8; LEN]);

impl Canary {
    pub fn new() -> Result<Self> {
        let mut bytes = [0; LEN];
        getrandom::fill(&mut bytes).context("no randomness")?;
        Ok(Self(bytes))
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// `len` bytes that are nothing but this canary, over and over.
    pub fn fill(&self, len: usize) -> Vec<u8> {
        self.0.iter().copied().cycle().take(len).collect()
    }

    /// How often it occurs in the file, device or capture at `path`.
    pub fn count_in(&self, path: &Path) -> Result<usize> {
        count(path, &self.0)
    }
}

/// What a debugger with root's rights can write of a process's memory: a file in the scratch.
pub fn core_image(pid: u32, scratch: &Scratch) -> Result<PathBuf> {
    let prefix = scratch.join("core");
    check(Command::new(part::program("gcore")?).arg("-o").arg(&prefix).arg(pid.to_string()))?;
    Ok(scratch.join(&format!("core.{pid}")))
}

/// How often `needle` occurs in what lies at `path`; holes read as zeros.
pub fn count(path: &Path, needle: &[u8]) -> Result<usize> {
    const STEP: usize = 4 << 20;
    let mut file = File::open(path).with_context(|| format!("cannot scan {}", path.display()))?;
    let keep = needle.len() - 1;
    let mut window = Vec::with_capacity(STEP + keep);
    let mut found = 0;
    loop {
        let kept = window.len().min(keep);
        window.drain(..window.len() - kept);
        let read = (&mut file).take(STEP as u64).read_to_end(&mut window)?;
        if read == 0 {
            return Ok(found);
        }
        found += occurrences(&window, needle);
    }
}

fn occurrences(hay: &[u8], needle: &[u8]) -> usize {
    let (Some(first), mut at, mut found) = (needle.first(), 0, 0) else { return 0 };
    while let Some(next) = hay[at..].iter().position(|byte| byte == first) {
        at += next;
        if hay[at..].starts_with(needle) {
            found += 1;
            at += needle.len();
        } else {
            at += 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canary_is_found_where_it_was_planted_and_across_steps() {
        let canary = Canary::new().unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut bytes = vec![7; (4 << 20) - 10];
        bytes.extend_from_slice(canary.bytes());
        bytes.extend_from_slice(&[9; 100]);
        bytes.extend_from_slice(canary.bytes());
        std::fs::write(file.path(), &bytes).unwrap();
        assert_eq!(canary.count_in(file.path()).unwrap(), 2);
        assert_eq!(Canary::new().unwrap().count_in(file.path()).unwrap(), 0);
    }
}
