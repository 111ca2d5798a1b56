//! What this node is, in its own words: what bears on whether plaintext can outlive the worker.
//! Nothing here is verified by anybody; it is copied into the certificate as stated.

use std::os::fd::AsRawFd;
use std::path::Path;

use rustix::process::{DumpableBehavior, Resource};
use tidegate_ledger::StatedFacts;
use tidegate_wire::NodeFacts;

/// Gathers the facts of this process on this node. What a gateway judges by is said to be unknown
/// where it cannot be read; the rest is left empty.
pub fn gather(cache_dir: &Path) -> NodeFacts {
    let uname = rustix::system::uname();
    NodeFacts {
        host: uname.nodename().to_string_lossy().into_owned(),
        kernel: uname.release().to_string_lossy().into_owned(),
        swap: swap(),
        core_pattern: core_pattern(),
        core_dumps_off: core_dumps_off(),
        init_on_free: init_on_free(&read("/proc/cmdline")),
        cache_fs: file_system(cache_dir).unwrap_or_default(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// The part of the facts that the wipe statement repeats.
pub(crate) fn stated(facts: &NodeFacts) -> StatedFacts {
    StatedFacts {
        swap: facts.swap.clone(),
        core_pattern: facts.core_pattern.clone(),
        core_dumps_off: facts.core_dumps_off,
        init_on_free: facts.init_on_free,
        cache_fs: facts.cache_fs.clone(),
    }
}

/// Active swap areas.
pub fn swap() -> Vec<String> {
    swap_areas(&read("/proc/swaps"))
}

/// Where images of crashed processes go.
pub fn core_pattern() -> String {
    effective(&read("/proc/sys/kernel/core_pattern"), &read("/proc/sys/kernel/core_uses_pid"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// `/proc/swaps`: a head line, then one area a line, its name first.
fn swap_areas(swaps: &str) -> Vec<String> {
    if !swaps.starts_with("Filename") {
        return vec![NodeFacts::UNKNOWN.to_owned()];
    }
    swaps
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

/// The kernel ends each of these with a line feed. With an empty pattern it makes no image, unless it is to
/// add the process's number: then that is the name.
fn effective(pattern: &str, uses_pid: &str) -> String {
    match (pattern.strip_suffix('\n').map(str::trim), uses_pid.trim()) {
        (None, _) => NodeFacts::UNKNOWN.to_owned(),
        (Some(""), "0") => String::new(),
        (Some(""), "") => NodeFacts::UNKNOWN.to_owned(),
        (Some(""), _) => ".%p".to_owned(),
        (Some(pattern), _) => pattern.to_owned(),
    }
}

fn core_dumps_off() -> bool {
    let limit = rustix::process::getrlimit(Resource::Core);
    let dumpable = rustix::process::dumpable_behavior();
    limit.current == Some(0) && matches!(dumpable, Ok(DumpableBehavior::NotDumpable))
}

/// Known only where the command line says so; a kernel built with it on by default is not seen.
fn init_on_free(command_line: &str) -> bool {
    command_line.split_whitespace().any(|word| matches!(word, "init_on_free=1" | "init_on_free=on"))
}

/// Type of the file system under a directory, from the mount that it lies on.
fn file_system(directory: &Path) -> Option<String> {
    let file = std::fs::File::open(directory).ok()?;
    let info = read(&format!("/proc/self/fdinfo/{}", file.as_raw_fd()));
    let id: u64 =
        info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse().ok()?;
    mount_type(&read("/proc/self/mountinfo"), id)
}

/// `/proc/self/mountinfo`: the type is the first field behind the lone hyphen.
fn mount_type(mounts: &str, id: u64) -> Option<String> {
    let line = mounts
        .lines()
        .find(|line| line.split(' ').next().and_then(|id| id.parse().ok()) == Some(id))?;
    let (_, behind) = line.split_once(" - ")?;
    behind.split(' ').next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swap_areas_are_named() {
        assert!(swap_areas("Filename\tType\tSize\tUsed\tPriority\n").is_empty());
        let two = "Filename Type Size Used Priority\n/dev/sda2 partition 8 0 -2\n/swap\\040file file 1 0 -3\n";
        assert_eq!(swap_areas(two), ["/dev/sda2", "/swap\\040file"]);
    }

    #[test]
    fn what_cannot_be_seen_is_unknown() {
        assert_eq!(swap_areas(""), [NodeFacts::UNKNOWN]);
        for (pattern, uses_pid, effect) in [
            ("", "0\n", NodeFacts::UNKNOWN),
            ("\n", "", NodeFacts::UNKNOWN),
            ("\n", "0\n", ""),
            ("\n", "1\n", ".%p"),
            ("core\n", "1\n", "core"),
            ("|/bin/false\n", "", "|/bin/false"),
        ] {
            assert_eq!(effective(pattern, uses_pid), effect, "{pattern:?} {uses_pid:?}");
        }
    }

    #[test]
    fn mount_types_are_found_by_id() {
        let mounts = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/root rw\n30 22 0:27 / /a\\040b rw - tmpfs none rw\n";
        assert_eq!(mount_type(mounts, 30).as_deref(), Some("tmpfs"));
        assert_eq!(mount_type(mounts, 22).as_deref(), Some("ext4"));
        assert_eq!(mount_type(mounts, 2), None);
    }

    #[test]
    fn init_on_free_is_a_word_of_its_own() {
        assert!(init_on_free("quiet init_on_free=1 ro"));
        assert!(!init_on_free("quiet xinit_on_free=1 init_on_free=0"));
    }

    #[test]
    fn this_node_can_be_described() {
        let facts = gather(Path::new("/proc"));
        assert_eq!(facts.cache_fs, "proc");
        assert!(!facts.kernel.is_empty() && !facts.host.is_empty());
    }
}
