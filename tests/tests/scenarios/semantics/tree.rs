//! S1 to S14: names and attributes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use rustix::fs::{RawDir, SeekFrom, seek, statvfs};
use rustix::process::Signal;
use tidegate_tests::dataset;
use tidegate_tests::digest;
use tidegate_tests::part;
use tidegate_tests::process::{signal_pid, wait_for};
use tidegate_tests::programs::{GatewayProgram, MountProgram};
use tidegate_tests::scratch::Scratch;

use super::Staged;

#[test]
fn s1_the_share_and_the_directories_above_it() -> Result<()> {
    let staged = Staged::odd()?;
    assert!(staged.data("empty-dir/inner").is_dir(), "all is selected: empty directories too");
    let home = Scratch::new()?;
    dataset::odd_tree(home.path())?;
    let part = Staged::of(home, &["--select", "small/03/**"])?;
    let names: BTreeSet<_> = fs::read_dir(part.held.data())?
        .map(|entry| Ok(entry?.file_name()))
        .collect::<Result<_>>()?;
    assert_eq!(names, BTreeSet::from(["small".into()]));
    let inside = fs::read_dir(part.data("small"))?.count();
    assert_eq!(inside, 1);
    Ok(())
}

#[test]
fn s2_size_bits_and_time_to_the_nanosecond() -> Result<()> {
    let home = Scratch::new()?;
    dataset::write(home.path(), "old", b"before 1970")?;
    let before = UNIX_EPOCH - Duration::new(86_400, 250_000_001);
    File::options().write(true).open(home.join("old"))?.set_modified(before)?;
    let staged = Staged::of(home, &[])?;
    let meta = fs::metadata(staged.data("old"))?;
    let source = fs::metadata(staged.home("old"))?;
    assert_eq!(meta.modified()?, before);
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (source.mtime(), source.mtime_nsec()));
    assert_eq!((meta.size(), meta.mode()), (source.size(), source.mode()));
    let times = [(meta.atime(), meta.atime_nsec()), (meta.ctime(), meta.ctime_nsec())];
    assert_eq!(times, [(meta.mtime(), meta.mtime_nsec()); 2]);
    Ok(())
}

#[test]
fn s3_owner_is_who_mounted() -> Result<()> {
    let staged = Staged::odd()?;
    for name in ["", "empty-file", "link", "names/-dash"] {
        let meta = fs::symlink_metadata(staged.data(name))?;
        let me = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        assert_eq!((meta.uid(), meta.gid()), me, "{name}");
    }
    Ok(())
}

/// Another user gets what the permission bits leave him.
#[test]
fn s3_permission_bits_are_checked() -> Result<()> {
    let home = Scratch::new()?;
    dataset::write(home.path(), "open", b"for all")?;
    dataset::write(home.path(), "closed", b"for one")?;
    for (name, mode) in [("open", 0o644), ("closed", 0o600)] {
        fs::set_permissions(home.join(name), fs::Permissions::from_mode(mode))?;
    }
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755))?;
    let gateway = GatewayProgram::start(&home.path().display().to_string(), "")?;
    let join = gateway.lease("one.join", ["--from".as_ref(), home.path().as_os_str()])?;
    let mount = MountProgram::start(&join, &[])?;
    let above = mount.data().parent().context("the mount is at the root")?;
    fs::set_permissions(above, fs::Permissions::from_mode(0o755))?;
    let read = |name: &str| {
        Command::new(part::program("setpriv")?)
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "cat"])
            .arg(mount.data().join(name))
            .output()
            .context("cannot start setpriv")
    };
    assert_eq!(read("open")?.stdout, b"for all");
    let refused = read("closed")?;
    assert!(!refused.status.success() && refused.stdout.is_empty());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("Permission denied"), "{said}");
    mount.finish()?;
    Ok(())
}

#[test]
fn s4_links_blocks_and_directory_size() -> Result<()> {
    let staged = Staged::odd()?;
    for name in ["", "names", "sizes/00004097", "empty-file", "link"] {
        let meta = fs::symlink_metadata(staged.data(name))?;
        assert_eq!(meta.nlink(), 1, "{name}");
        if meta.is_dir() {
            assert_eq!(meta.size(), 4096, "{name}");
        } else if meta.is_file() {
            assert_eq!(meta.blocks(), meta.size().div_ceil(512), "{name}");
        }
    }
    Ok(())
}

#[test]
fn s5_block_size_tells_readers_what_pays() -> Result<()> {
    let staged = Staged::pair()?;
    assert_eq!(fs::metadata(staged.data("large"))?.blksize(), 128 << 10);
    assert_eq!(fs::metadata(staged.data("small"))?.blksize(), 4096);
    Ok(())
}

fn inodes(staged: &Staged) -> Result<BTreeMap<String, u64>> {
    let lines = digest::tree(staged.held.data())?;
    let paths =
        lines.iter().filter_map(|line| line.split('\t').next()).filter(|path| !path.contains('\\'));
    paths
        .map(|path| Ok((path.to_owned(), fs::symlink_metadata(staged.data(path))?.ino())))
        .collect()
}

#[test]
fn s6_inode_numbers_are_unique_and_stay() -> Result<()> {
    let staged = Staged::odd()?;
    let first = inodes(&staged)?;
    let unique: BTreeSet<_> = first.values().collect();
    assert_eq!(unique.len(), first.len());
    let worker = staged.held.worker()?;
    signal_pid(worker, Signal::KILL)?;
    wait_for("another worker", || staged.held.worker().ok().filter(|pid| *pid != worker))?;
    assert_eq!(inodes(&staged)?, first);
    Ok(())
}

#[test]
fn s7_names_are_bytes() -> Result<()> {
    let staged = Staged::odd()?;
    let names = |folder: std::path::PathBuf| -> Result<BTreeSet<Vec<u8>>> {
        fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().as_bytes().to_vec())).collect()
    };
    let there = names(staged.data("names"))?;
    assert_eq!(there, names(staged.home("names"))?);
    assert!(
        there.contains(b"not-utf8-\xff\xfe".as_slice()) && there.contains(b"new\nline".as_slice())
    );
    let raw = std::ffi::OsStr::from_bytes(b"names/not-utf8-\xff\xfe");
    assert_eq!(fs::read(staged.held.data().join(raw))?, b"raw bytes");
    Ok(())
}

#[test]
fn s8_links_are_data() -> Result<()> {
    let staged = Staged::odd()?;
    for name in ["link", "dangling", "absolute", "names/link-to-dir"] {
        assert_eq!(fs::read_link(staged.data(name))?, fs::read_link(staged.home(name))?, "{name}");
    }
    assert_eq!(fs::read(staged.data("link"))?, fs::read(staged.home("link"))?);
    Ok(())
}

#[test]
fn s9_what_is_not_there_is_enoent_twice() -> Result<()> {
    let staged = Staged::pair()?;
    for _ in 0..2 {
        let error = File::open(staged.data("absent")).err().context("opened")?;
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    }
    Ok(())
}

#[test]
fn s10_below_a_file_and_too_long() -> Result<()> {
    let staged = Staged::pair()?;
    let error = |name: &str| fs::metadata(staged.data(name)).err().and_then(|e| e.raw_os_error());
    assert_eq!(error("small/below"), Some(rustix::io::Errno::NOTDIR.raw_os_error()));
    assert_eq!(error(&"n".repeat(256)), Some(rustix::io::Errno::NAMETOOLONG.raw_os_error()));
    Ok(())
}

/// Names and the cookies that follow them, read with a buffer of `size` bytes.
fn listed(dir: &File, size: usize) -> Result<Vec<(Vec<u8>, u64)>> {
    let mut buffer = Vec::with_capacity(size);
    let mut entries = RawDir::new(dir, buffer.spare_capacity_mut());
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        names.push((entry.file_name().to_bytes().to_vec(), entry.next_entry_cookie()));
    }
    Ok(names)
}

#[test]
fn s11_each_name_once_in_byte_order() -> Result<()> {
    let home = Scratch::new()?;
    for n in 0..2000 {
        dataset::write(home.path(), format!("name-{:04}", (n * 7919) % 2000), b"")?;
    }
    let staged = Staged::of(home, &[])?;
    let mut want: Vec<Vec<u8>> = (0..2000).map(|n| format!("name-{n:04}").into_bytes()).collect();
    want.splice(0..0, [b".".to_vec(), b"..".to_vec()]);
    for size in [300, 4096, 1 << 20] {
        let names: Vec<_> = listed(&File::open(staged.held.data())?, size)?
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names, want, "with a buffer of {size}");
    }
    Ok(())
}

#[test]
fn s12_seekdir_continues_where_telldir_was() -> Result<()> {
    let home = Scratch::new()?;
    for n in 0..500 {
        dataset::write(home.path(), format!("{n:03}"), b"")?;
    }
    let staged = Staged::of(home, &[])?;
    let dir = File::open(staged.held.data())?;
    let all = listed(&dir, 2048)?;
    let check = |place: usize| -> Result<()> {
        seek(&dir, SeekFrom::Start(all[place].1))?;
        assert_eq!(listed(&dir, 1024)?[..], all[place + 1..], "after entry {place}");
        Ok(())
    };
    for place in [0, 1, 2, 77, 300, 498] {
        check(place)?;
    }
    let worker = staged.held.worker()?;
    signal_pid(worker, Signal::KILL)?;
    wait_for("another worker", || staged.held.worker().ok().filter(|pid| *pid != worker))?;
    check(123)
}

#[test]
fn s13_a_directory_of_a_million_entries() -> Result<()> {
    const LINKS: usize = 60_000;
    const NAMES: usize = 1_000_000;
    let home = Scratch::new()?;
    let many = home.dir("many")?;
    let mut original = std::path::PathBuf::new();
    for n in 0..NAMES {
        let path = many.join(format!("{n:07}"));
        if n % LINKS == 0 {
            fs::write(&path, b"x")?;
            original = path;
        } else {
            fs::hard_link(&original, &path)?;
        }
    }
    let staged = Staged::of(home, &[])?;
    let names = listed(&File::open(staged.data("many"))?, 1 << 20)?;
    assert_eq!(names.len(), NAMES + 2);
    assert!(names.windows(2).all(|pair| pair[0].0 < pair[1].0), "in order, none twice");
    assert_eq!(fs::read(staged.data("many/0999999"))?, b"x");
    Ok(())
}

#[test]
fn s14_statfs() -> Result<()> {
    let staged = Staged::pair()?;
    let stat = statvfs(staged.held.data())?;
    let bytes = (super::LARGE + super::SMALL) as u64;
    let told = stat.f_blocks * stat.f_frsize;
    assert!(told >= bytes && told < bytes + stat.f_frsize, "{told} for {bytes}");
    assert_eq!((stat.f_bfree, stat.f_bavail, stat.f_namemax), (0, 0, 255));
    assert_eq!(stat.f_files, 3);
    Ok(())
}
