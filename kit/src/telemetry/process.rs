//! What the kernel says of this process.

use std::fs;

use crate::clock::{boottime, now_unix};

crate::meters! {
    /// Resident memory in bytes.
    gauge MEMORY = "process_resident_memory_bytes";
    /// Open file descriptors.
    gauge DESCRIPTORS = "process_open_fds";
    /// Start of the process in seconds since the Unix epoch.
    gauge STARTED = "process_start_time_seconds";
    /// Always 1; the label says which version runs.
    gauge BUILD = "tidegate_build_info" by ["version"];
}

/// Brings all of them up to date. What the kernel does not tell is left as it was.
pub(super) fn measure() {
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    if let Some(pages) = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()) {
        MEMORY.set(pages * page);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        DESCRIPTORS.set(open.count() as u64);
    }
    if let Some(ticks) = start_ticks() {
        let age =
            boottime().as_secs().saturating_sub(ticks / rustix::param::clock_ticks_per_second());
        STARTED.set(now_unix().saturating_sub(age));
    }
    BUILD.set_for(&[env!("CARGO_PKG_VERSION")], 1);
}

/// Ticks from boot to the start of this process: field 22, counted from behind the name, which may
/// hold anything.
fn start_ticks() -> Option<u64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}
