//! S32 to S36: what would change the tree, and what is not offered.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use anyhow::Result;
use rustix::fs::{
    Access, AtFlags, CWD, FileType, FlockOperation, Mode, Timespec, Timestamps, UTIME_NOW,
    XattrFlags, accessat, chownat, fcntl_lock, flock, getxattr, listxattr, mknodat, removexattr,
    setxattr, utimensat,
};
use rustix::io::Errno;
use rustix::process::{Signal, Uid};
use tidegate_tests::dataset;
use tidegate_tests::programs::{GatewayProgram, MountProgram};
use tidegate_tests::scratch::Scratch;

use super::Staged;

fn os(outcome: std::io::Result<()>) -> Option<Errno> {
    outcome.err().and_then(|error| Errno::from_io_error(&error))
}

#[test]
fn s32_whatever_would_change_the_tree_is_erofs() -> Result<()> {
    let staged = Staged::odd()?;
    let (file, new) = (staged.data("small/00/000.bin"), staged.data("new"));
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let times = Timestamps { last_access: now, last_modification: now };
    let rofs = Some(Errno::ROFS);
    assert_eq!(os(fs::create_dir(&new)), rofs, "mkdir");
    assert_eq!(mknodat(CWD, &new, FileType::Fifo, Mode::RUSR, 0).err(), rofs, "mknod");
    assert_eq!(os(symlink("x", &new)), rofs, "symlink");
    assert_eq!(os(fs::hard_link(&file, &new)), rofs, "link");
    assert_eq!(os(fs::remove_file(&file)), rofs, "unlink");
    assert_eq!(os(fs::remove_dir(staged.data("empty-dir/inner"))), rofs, "rmdir");
    assert_eq!(os(fs::rename(&file, &new)), rofs, "rename");
    assert_eq!(truncate(&file)?, rofs, "truncate");
    assert_eq!(os(fs::set_permissions(&file, fs::Permissions::from_mode(0o777))), rofs, "chmod");
    assert_eq!(
        chownat(CWD, &file, Some(Uid::from_raw(1)), None, AtFlags::empty()).err(),
        rofs,
        "chown"
    );
    assert_eq!(utimensat(CWD, &file, &times, AtFlags::empty()).err(), rofs, "utimensat");
    assert_eq!(accessat(CWD, &file, Access::WRITE_OK, AtFlags::empty()).err(), rofs, "access");
    accessat(CWD, &file, Access::READ_OK, AtFlags::empty())?;
    Ok(())
}

/// By path, which Rust's own library cannot.
fn truncate(file: &Path) -> Result<Option<Errno>> {
    let script =
        "import os, sys\ntry:\n os.truncate(sys.argv[1], 1)\nexcept OSError as e:\n print(e.errno)";
    let python = tidegate_tests::reader::python()?;
    let said = tidegate_tests::process::check(
        std::process::Command::new(python).args(["-c", script]).arg(file),
    )?;
    Ok(said.trim().parse().ok().map(Errno::from_raw_os_error))
}

#[test]
fn s33_no_extended_attributes() -> Result<()> {
    let staged = Staged::pair()?;
    let file = staged.data("small");
    let name = CString::new("user.x")?;
    let mut buffer = [0_u8; 100];
    assert_eq!(getxattr(&file, name.as_c_str(), &mut buffer[..]).err(), Some(Errno::NOTSUP));
    assert!(matches!(listxattr(&file, &mut buffer[..]), Err(Errno::NOTSUP)), "listxattr");
    let set = setxattr(&file, name.as_c_str(), b"v", XattrFlags::empty());
    assert_eq!(set.err(), Some(Errno::ROFS));
    assert_eq!(removexattr(&file, name.as_c_str()).err(), Some(Errno::ROFS));
    Ok(())
}

#[test]
fn s34_sync_locks_and_ioctl() -> Result<()> {
    let staged = Staged::pair()?;
    let (one, two) = (File::open(staged.data("small"))?, File::open(staged.data("small"))?);
    one.sync_all()?;
    one.sync_data()?;
    flock(&one, FlockOperation::LockExclusive)?;
    assert_eq!(
        flock(&two, FlockOperation::NonBlockingLockExclusive).err(),
        Some(Errno::WOULDBLOCK)
    );
    flock(&one, FlockOperation::Unlock)?;
    flock(&two, FlockOperation::NonBlockingLockExclusive)?;
    fcntl_lock(&one, FlockOperation::NonBlockingLockShared)?;
    let error = rustix::termios::tcgetattr(&one).err();
    assert!(matches!(error, Some(Errno::NOTTY | Errno::NOTSUP)), "{error:?}");
    Ok(())
}

#[test]
fn s35_a_set_user_id_bit_has_no_effect() -> Result<()> {
    let home = Scratch::new()?;
    fs::copy("/usr/bin/id", home.join("id"))?;
    fs::set_permissions(home.join("id"), fs::Permissions::from_mode(0o4755))?;
    let staged = Staged::of(home, &[])?;
    assert_eq!(fs::metadata(staged.data("id"))?.mode() & 0o7777, 0o4755, "it is shown");
    // As another user, inside the job's own namespace, where the mount's options count.
    let job = staged.held.job().to_string();
    let inside = staged.held.data().strip_prefix(format!("/proc/{job}/root"))?.to_owned();
    let output = std::process::Command::new("nsenter")
        .args(["--mount", "--target", &job, "--", "setpriv", "--reuid=65534", "--clear-groups"])
        .arg(Path::new("/").join(inside).join("id"))
        .arg("-u")
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(said.trim(), "65534", "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[test]
fn s36_after_the_mount_is_taken_away() -> Result<()> {
    let home = Scratch::new()?;
    dataset::write(home.path(), "large", &dataset::bytes(1, 3 << 20))?;
    let gateway = GatewayProgram::start(&home.path().display().to_string(), "")?;
    let join = gateway.lease("one.join", ["--from".as_ref(), home.path().as_os_str()])?;
    let mut mount = MountProgram::start(&join, &[])?;
    let at = mount.data().to_owned();
    let file = File::open(at.join("large"))?;
    file.read_exact_at(&mut [0; 100], 0)?;
    // A file still open keeps the wipe from being whole, and the certificate from saying so.
    let status = mount.process().stop(Signal::TERM)?;
    assert_eq!(status.code(), Some(123), "{}", mount.log());
    assert!(fs::read_dir(&at)?.next().is_none(), "an empty directory is left");
    assert!(fs::read_dir(mount.cache())?.next().is_none(), "and an empty cache");
    assert!(file.read_at(&mut [0; 100], 0).is_err(), "an open file reads on after the wipe");
    Ok(())
}
