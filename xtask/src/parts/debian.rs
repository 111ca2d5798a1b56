//! Programs that Debian packages: Ceph's object gateway, and what watches our own processes.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::shell::{on_path, run};

/// A program and the package that has it.
const PROGRAMS: [(&str, &str); 15] = [
    ("ceph", "ceph-common"),
    ("ceph-authtool", "ceph-common"),
    ("ceph-mon", "ceph-mon"),
    ("ceph-mgr", "ceph-mgr"),
    ("ceph-osd", "ceph-osd"),
    ("radosgw", "radosgw"),
    ("tcpdump", "tcpdump"),
    ("strace", "strace"),
    ("gcore", "gdb"),
    ("losetup", "mount"),
    ("mkfs.ext4", "e2fsprogs"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("ip", "iproute2"),
    ("promtool", "prometheus"),
];

/// Installs what is missing. True if anything was.
pub(super) fn ensure() -> Result<bool> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(false);
    }
    ensure!(
        on_path("apt-get"),
        "install these by hand, this machine has no apt-get: {}",
        missing.join(" ")
    );
    ensure!(
        rustix::process::geteuid().is_root(),
        "run as root, or first: apt-get install {}",
        missing.join(" ")
    );
    let mut update = Command::new("apt-get");
    run(update.args(["-qq", "update"]))?;
    let mut install = Command::new("apt-get");
    install
        .args(["-qq", "-y", "--no-install-recommends", "install"])
        .args(&missing)
        .env("DEBIAN_FRONTEND", "noninteractive");
    run(&mut install)?;
    let still = self::missing();
    ensure!(still.is_empty(), "apt-get succeeded and yet these are missing: {}", still.join(" "));
    Ok(true)
}

fn missing() -> Vec<&'static str> {
    let mut packages: Vec<_> = PROGRAMS
        .iter()
        .filter(|(program, _)| !on_path(program))
        .map(|(_, package)| *package)
        .collect();
    packages.dedup();
    packages
}
