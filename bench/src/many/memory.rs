//! What processes hold.

use std::fs;

use anyhow::{Context as _, Result};

/// Resident bytes of a process now.
pub(super) fn resident(pid: u32) -> Result<f64> {
    status(&format!("/proc/{pid}/status"), "VmRSS:")
}

/// Most resident bytes of this process since [`forget_peak`].
pub(super) fn peak() -> Result<f64> {
    status("/proc/self/status", "VmHWM:")
}

pub(super) fn forget_peak() -> Result<()> {
    fs::write("/proc/self/clear_refs", "5").context("the peak cannot be reset")
}

fn status(path: &str, field: &str) -> Result<f64> {
    let text = fs::read_to_string(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)).context("no such field")?;
    let kib: f64 = line.split_whitespace().next().context("no number")?.parse()?;
    Ok(kib * 1024.0)
}
