//! R2, R8, R9, R16 and R21: what is refused, and what is kept beside the bytes.

use std::ffi::CString;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{
    AtFlags, CWD, FileType, FlockOperation, Mode, XattrFlags, chownat, fcntl_lock, flock, getxattr,
    listxattr, mknodat, setxattr,
};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use super::{Shown, errno};

pub(super) fn r02_exclusive_creation(shown: &Shown) -> Result<()> {
    let room = shown.room("r02_exclusive_creation")?;
    File::create_new(room.path("file"))?;
    room.holds("file", b"")?;
    assert_eq!(errno(File::create_new(room.path("file"))), Some(Errno::EXIST));
    fs::create_dir(room.path("dir"))?;
    assert_eq!(errno(File::create_new(room.path("dir"))), Some(Errno::EXIST));
    assert_eq!(errno(File::open(room.path("nothing"))), Some(Errno::NOENT));
    Ok(())
}

pub(super) fn r08_links_and_special_files(shown: &Shown) -> Result<()> {
    let room = shown.room("r08_links_and_special_files")?;
    fs::write(room.path("file"), b"bytes")?;
    let perm = Some(Errno::PERM);
    assert_eq!(errno(fs::hard_link(room.path("file"), room.path("link"))), perm, "link");
    assert_eq!(errno(symlink("file", room.path("link"))), perm, "symlink");
    for kind in [FileType::Fifo, FileType::Socket, FileType::CharacterDevice] {
        let made = mknodat(CWD, room.path("node"), kind, Mode::RUSR, 0x0103);
        assert_eq!(made.err(), perm, "{kind:?}");
    }
    assert_eq!(fs::read_dir(&room.at)?.count(), 1, "none of them is there");
    // An ordinary file by the road of devices is one.
    mknodat(CWD, room.path("plain"), FileType::RegularFile, Mode::RUSR | Mode::WUSR, 0)?;
    fs::write(room.path("plain"), b"plain")?;
    room.holds("plain", b"plain")
}

pub(super) fn r09_owners_modes_and_times(shown: &Shown) -> Result<()> {
    let room = shown.room("r09_owners_modes_and_times")?;
    fs::write(room.path("file"), b"bytes")?;
    let meta = fs::metadata(room.path("file"))?;
    let chown = |uid: u32, gid: u32| {
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        chownat(CWD, room.path("file"), uid, gid, AtFlags::empty()).err()
    };
    assert_eq!(chown(meta.uid() + 1, meta.gid()), Some(Errno::PERM));
    assert_eq!(chown(meta.uid(), meta.gid()), None, "to who owns it already");
    fs::set_permissions(room.path("file"), Permissions::from_mode(0o640))?;
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_600_000_000, 123_456_789);
    File::options().write(true).open(room.path("file"))?.set_modified(time)?;
    let meta = fs::metadata(room.path("file"))?;
    assert_eq!((meta.mode() & 0o7777, meta.modified()?), (0o640, time));
    assert_eq!(meta.len(), 5);
    if shown.directory() {
        let home = fs::metadata(shown.desk.home.path().join("r09_owners_modes_and_times/file"))?;
        assert_eq!(home.mode() & 0o7777, 0o640, "mode at home");
        assert_eq!(home.modified()?, time, "time at home");
    }
    room.holds("file", b"bytes")?;
    // Writing moves the time on.
    fs::write(room.path("file"), b"more")?;
    ensure!(fs::metadata(room.path("file"))?.modified()? > time, "mtime follows writes");
    Ok(())
}

pub(super) fn r21_too_large(shown: &Shown) -> Result<()> {
    const MOST: u64 = 10_000 * (16 << 20);
    let room = shown.room("r21_too_large")?;
    let file = room.open("file")?;
    file.write_all_at(b"x", 0)?;
    assert_eq!(errno(file.write_all_at(b"x", MOST)), Some(Errno::FBIG), "write");
    assert_eq!(errno(file.set_len(MOST + 1)), Some(Errno::FBIG), "truncate");
    drop(file);
    room.holds("file", b"x")
}

pub(super) fn r16_no_extended_attributes(shown: &Shown) -> Result<()> {
    let room = shown.room("r16_no_extended_attributes")?;
    let file = room.path("file");
    fs::write(&file, b"x")?;
    let name = CString::new("user.x")?;
    let mut buffer = [0_u8; 100];
    let set = setxattr(&file, name.as_c_str(), b"v", XattrFlags::empty());
    assert_eq!(set.err(), Some(Errno::NOTSUP));
    assert_eq!(getxattr(&file, name.as_c_str(), &mut buffer[..]).err(), Some(Errno::NOTSUP));
    let listed = listxattr(&file, &mut buffer[..]);
    ensure!(matches!(listed, Ok(0) | Err(Errno::NOTSUP)), "listxattr: {listed:?}");
    Ok(())
}

pub(super) fn r16_locks(shown: &Shown) -> Result<()> {
    let room = shown.room("r16_locks")?;
    let (one, two) = (room.open("file")?, room.open("file")?);
    flock(&one, FlockOperation::LockExclusive)?;
    let busy = flock(&two, FlockOperation::NonBlockingLockExclusive).err();
    assert_eq!(busy, Some(Errno::WOULDBLOCK));
    flock(&one, FlockOperation::Unlock)?;
    flock(&two, FlockOperation::NonBlockingLockExclusive)?;
    fcntl_lock(&one, FlockOperation::NonBlockingLockExclusive)?;
    Ok(())
}

pub(super) fn no_set_user_ids_and_no_devices(shown: &Shown) -> Result<()> {
    let text = fs::read_to_string("/proc/self/mounts")?;
    let at = shown.root().display().to_string();
    let line = text.lines().find(|line| line.split(' ').nth(1) == Some(&at));
    let options = line.context("it is not mounted")?.split(' ').nth(3).unwrap_or_default();
    for want in ["rw", "nosuid", "nodev"] {
        ensure!(options.split(',').any(|option| option == want), "no {want} in {options}");
    }
    Ok(())
}
