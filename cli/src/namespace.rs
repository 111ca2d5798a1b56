//! A mount namespace of our own, so that nothing stays mounted whatever dies.
//!
//! Entered before any thread exists: `unshare(2)` acts on the calling thread only, and a user
//! namespace refuses a process with several.

use std::fs;

use anyhow::{Context as _, Result, bail};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::UnshareFlags;

/// What was entered; said in the receipt and by `doctor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Namespace {
    /// As root: a private mount namespace.
    Mount,
    /// As an ordinary user: a user namespace that maps the user to itself, and a mount namespace in it.
    User,
}

/// Leaves the caller's mount namespace for a private copy.
pub(crate) fn enter() -> Result<Namespace> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let namespace = if uid.is_root() { Namespace::Mount } else { Namespace::User };
    let flags = match namespace {
        Namespace::Mount => UnshareFlags::NEWNS,
        Namespace::User => UnshareFlags::NEWNS | UnshareFlags::NEWUSER,
    };
    unshare(flags).with_context(|| match namespace {
        Namespace::Mount => {
            "cannot make a private mount namespace: CAP_SYS_ADMIN is missing; run as root on the \
             host, or as an ordinary user where user namespaces are allowed"
        }
        Namespace::User => {
            "cannot make a user namespace; run as root, or allow them \
             (sysctl kernel.unprivileged_userns_clone=1, user.max_user_namespaces>0)"
        }
    })?;
    if namespace == Namespace::User {
        map_ids(uid.as_raw(), gid.as_raw())?;
    }
    // Nothing mounted in here is seen outside. What is unmounted outside goes in here as well: a copy
    // would keep the mount of another lease in use when its worker wipes.
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .context("cannot close the mount namespace")?;
    Ok(namespace)
}

/// Maps the user and the group to themselves: files keep their owners' faces, and the job its own.
fn map_ids(uid: u32, gid: u32) -> Result<()> {
    let write = |file: &str, text: String| {
        fs::write(format!("/proc/self/{file}"), text)
            .with_context(|| format!("cannot write {file}"))
    };
    write("setgroups", "deny".into())?;
    write("uid_map", format!("{uid} {uid} 1"))?;
    write("gid_map", format!("{gid} {gid} 1"))
}

#[allow(unsafe_code, reason = "rustix marks every unshare unsafe because of CLONE_FILES")]
fn unshare(flags: UnshareFlags) -> Result<()> {
    let threads = fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        bail!("{threads} threads run already; a namespace must be entered before the first");
    }
    // SAFETY: the flags never contain CLONE_FILES, so no other thread can lose a descriptor, and
    // there is no other thread.
    unsafe { rustix::thread::unshare_unsafe(flags) }?;
    Ok(())
}
