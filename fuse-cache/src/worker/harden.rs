//! What keeps the worker's memory to itself.

use std::io;

use rustix::mm::MlockAllFlags;
use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal};
use rustix::thread::CapabilitySet;

/// No core file, no tracing by its own user, a signal when the holder dies, and no swap where locking
/// memory is allowed without a limit.
pub(super) fn process() -> io::Result<()> {
    // Should a core image be made all the same, by a debugger of root's: no mapping goes into it. Before
    // the next line but one, which gives this process's files in /proc to root.
    std::fs::write("/proc/self/coredump_filter", "0")?;
    rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
    if may_lock_all() {
        let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
        if let Err(error) = rustix::mm::mlockall(flags) {
            tracing::warn!(%error, "the worker's memory is not locked and may be swapped");
        }
    } else {
        tracing::debug!(
            "the worker's memory may not be locked; buffers and names are, where the limit allows"
        );
    }
    Ok(())
}

/// Under a finite limit that binds us, allocations would fail once it is reached.
fn may_lock_all() -> bool {
    let unlimited = Rlimit { current: None, maximum: None };
    rustix::process::setrlimit(Resource::Memlock, unlimited).is_ok()
        || (is_initial_user_namespace()
            && rustix::thread::capabilities(None)
                .is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK)))
}

/// Capabilities over memory count only there; its map is the identity over all ids.
fn is_initial_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().eq(["0", "0", "4294967295"])
}
