//! This process's memory: who may look into it, and how the C library's allocator keeps it.

use anyhow::{Context as _, Result};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// For programs that hold keys or join secrets: no core image, and no look into the memory for other
/// processes of the same user, the job among them.
pub(crate) fn hide() -> Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("cannot switch core images off")
}

/// Freed memory up to this is kept for the next buffer.
const KEEP: i32 = 8 << 20;
/// Buffers from this size on are mapped one by one, and unmapped when they are freed.
const MAP: i32 = 4 << 20;

/// TLS allocates and frees a buffer for every record, a few hundred KiB at a time; by default each such
/// wave goes back to the kernel and is faulted in again, page by page (measured: a fifth of the
/// gateway's CPU time). Call it first in `main`.
#[cfg(target_env = "gnu")]
pub(crate) fn keep_freed_memory() {
    #[allow(unsafe_code, reason = "no safe crate has a function for it")]
    // SAFETY: both calls set a number in the allocator, and no other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEEP);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAP);
    }
}

/// No core image of this process or of its children, on top of not being dumpable: for the programs that
/// run no command of the user's, who is owed his own limits.
pub(crate) fn no_core_images() -> Result<()> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).context("cannot switch core images off")
}

/// Other C libraries have no such setting.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn keep_freed_memory() {}
