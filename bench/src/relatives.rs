//! What a job's relatives spent: the gateway in its parent, the worker.

use std::fs;

use anyhow::Result;

/// What this process, its parent and its parent's worker have spent so far.
#[derive(Debug, Default)]
pub(crate) struct Relatives {
    pub(crate) own: f64,
    pub(crate) worker: f64,
    pub(crate) parent: f64,
    pub(crate) worker_peak: u64,
}

impl Relatives {
    pub(crate) fn look() -> Result<Self> {
        let own = std::process::id();
        let mut seen = Self { own: cpu(own)?, ..Self::default() };
        let Some(parent) =
            rustix::process::getppid().map(|p| p.as_raw_nonzero().get().unsigned_abs())
        else {
            return Ok(seen);
        };
        if !cmdline(parent).contains("tidegate") {
            return Ok(seen);
        }
        seen.parent = cpu(parent)?;
        for task in fs::read_dir(format!("/proc/{parent}/task"))? {
            let children = fs::read_to_string(task?.path().join("children")).unwrap_or_default();
            for child in children.split_whitespace().filter_map(|c| c.parse::<u32>().ok()) {
                if child != own && cmdline(child).contains("worker") {
                    seen.worker += cpu(child)?;
                    seen.worker_peak = peak(child);
                }
            }
        }
        Ok(seen)
    }
}

fn cmdline(pid: u32) -> String {
    fs::read(format!("/proc/{pid}/cmdline"))
        .map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " "))
        .unwrap_or_default()
}

/// User and system CPU of a process in seconds (fields 14 and 15 of `stat`, in ticks of 10 ms).
pub(crate) fn cpu(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: f64 = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<f64>().ok())
        .sum();
    Ok(ticks / rustix::param::clock_ticks_per_second() as f64)
}

fn peak(pid: u32) -> u64 {
    fs::read_to_string(format!("/proc/{pid}/status"))
        .unwrap_or_default()
        .lines()
        .find_map(|line| {
            line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse::<u64>().ok()
        })
        .map_or(0, |kib| kib * 1024)
}
