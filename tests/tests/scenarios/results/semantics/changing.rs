//! R4 to R7: names that change.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use anyhow::{Result, ensure};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use tidegate_tests::dataset;

use super::{Shown, errno};

pub(super) fn r04_renaming_a_file(shown: &Shown) -> Result<()> {
    let room = shown.room("r04_renaming_a_file")?;
    fs::write(room.path("a"), b"new")?;
    fs::write(room.path("b"), b"old")?;
    fs::rename(room.path("a"), room.path("b"))?;
    room.holds("b", b"new")?;
    room.lacks("a")?;
    // To another directory, and through an open descriptor.
    fs::create_dir(room.path("sub"))?;
    let mut file = room.open("b")?;
    fs::rename(room.path("b"), room.path("sub/c"))?;
    room.holds("sub/c", b"new")?;
    room.lacks("b")?;
    file.write_all(b"er!")?;
    drop(file);
    room.holds("sub/c", b"er!")?;
    room.lacks("b")?;
    // One that never came home before: it does so under its new name.
    let mut file = room.open("never")?;
    file.write_all(b"bytes")?;
    fs::rename(room.path("never"), room.path("later"))?;
    drop(file);
    room.holds("later", b"bytes")?;
    room.lacks("never")?;
    // As checkpoints are saved: again and again over one name.
    for n in 0..5 {
        let bytes = dataset::bytes(n, 300_000);
        let mut file = room.open("next.tmp")?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        drop(file);
        fs::rename(room.path("next.tmp"), room.path("latest"))?;
        room.holds("latest", &bytes)?;
        room.lacks("next.tmp")?;
    }
    // Of several parts.
    let large = dataset::bytes(7, (17 << 20) + 1);
    fs::write(room.path("large.tmp"), &large)?;
    fs::rename(room.path("large.tmp"), room.path("latest"))?;
    room.holds("latest", &large)
}

pub(super) fn r06_unlinking(shown: &Shown) -> Result<()> {
    let room = shown.room("r06_unlinking")?;
    fs::write(room.path("file"), b"bytes")?;
    fs::remove_file(room.path("file"))?;
    room.lacks("file")?;
    assert_eq!(errno(fs::remove_file(room.path("file"))), Some(Errno::NOENT));
    fs::write(room.path("file"), b"again")?;
    room.holds("file", b"again")?;
    // Unlinked and still open: it lives on with what is written from then on, and stays here.
    let file = room.open("file")?;
    fs::remove_file(room.path("file"))?;
    room.lacks("file")?;
    file.set_len(0)?;
    file.write_all_at(b"again and on", 0)?;
    file.sync_all()?;
    let mut got = [0; 12];
    file.read_exact_at(&mut got, 0)?;
    assert_eq!(&got, b"again and on");
    assert_eq!(file.metadata()?.nlink(), 0, "it has no name");
    drop(file);
    room.lacks("file")?;
    // A name that is taken anew meanwhile is another file's.
    let old = room.open("twice")?;
    old.write_all_at(b"old", 0)?;
    fs::remove_file(room.path("twice"))?;
    fs::write(room.path("twice"), b"new")?;
    drop(old);
    room.holds("twice", b"new")
}

pub(super) fn r07_directories(shown: &Shown) -> Result<()> {
    let room = shown.room("r07_directories")?;
    fs::create_dir_all(room.path("a/b/c"))?;
    fs::create_dir_all(room.path("a/b/c"))?;
    fs::write(room.path("a/b/c/file"), b"deep")?;
    room.holds("a/b/c/file", b"deep")?;
    assert_eq!(errno(fs::create_dir(room.path("a"))), Some(Errno::EXIST));
    assert_eq!(errno(fs::create_dir(room.path("x/y"))), Some(Errno::NOENT));
    assert_eq!(errno(fs::create_dir(room.path("a/b/c/file/d"))), Some(Errno::NOTDIR));
    assert_eq!(errno(fs::remove_dir(room.path("a"))), Some(Errno::NOTEMPTY));
    assert_eq!(errno(fs::remove_dir(room.path("a/b/c/file"))), Some(Errno::NOTDIR));
    assert_eq!(errno(fs::remove_file(room.path("a/b"))), Some(Errno::ISDIR));
    assert_eq!(errno(File::options().write(true).open(room.path("a"))), Some(Errno::ISDIR));
    if shown.directory() {
        let there = shown.desk.home.path().join("r07_directories/a/b/c");
        ensure!(there.is_dir(), "a directory at home has directories");
    }
    fs::remove_dir_all(room.path("a"))?;
    room.lacks("a/b/c/file")?;
    assert_eq!(fs::read_dir(&room.at)?.count(), 0);
    if shown.directory() {
        ensure!(!shown.desk.home.path().join("r07_directories/a").exists(), "it is gone at home");
    }
    Ok(())
}

pub(super) fn r05_renaming_a_directory(shown: &Shown) -> Result<()> {
    let room = shown.room("r05_renaming_a_directory")?;
    fs::create_dir_all(room.path("old/sub"))?;
    fs::write(room.path("old/one"), b"one")?;
    fs::write(room.path("old/sub/two"), b"two")?;
    let outcome = fs::rename(room.path("old"), room.path("new"));
    if !shown.directory() {
        assert_eq!(errno(outcome), Some(Errno::XDEV));
        room.holds("old/one", b"one")?;
        // As `mv` does it then.
        fs::create_dir_all(room.path("new/sub"))?;
        fs::copy(room.path("old/one"), room.path("new/one"))?;
        fs::copy(room.path("old/sub/two"), room.path("new/sub/two"))?;
        fs::remove_dir_all(room.path("old"))?;
    } else {
        outcome?;
    }
    room.holds("new/one", b"one")?;
    room.holds("new/sub/two", b"two")?;
    room.lacks("old/one")?;
    room.lacks("old/sub/two")?;
    fs::write(room.path("new/sub/two"), b"three")?;
    room.holds("new/sub/two", b"three")
}

pub(super) fn r04_renames_that_cannot_be(shown: &Shown) -> Result<()> {
    let room = shown.room("r04_renames_that_cannot_be")?;
    for dir in ["dir", "full/sub"] {
        fs::create_dir_all(room.path(dir))?;
    }
    fs::write(room.path("file"), b"file")?;
    fs::write(room.path("other"), b"other")?;
    fs::write(room.path("full/inner"), b"inner")?;
    let rename = |from: &str, to: &str| errno(fs::rename(room.path(from), room.path(to)));
    assert_eq!(rename("file", "dir"), Some(Errno::ISDIR));
    assert_eq!(rename("dir", "file"), Some(Errno::NOTDIR));
    assert_eq!(rename("nothing", "file"), Some(Errno::NOENT));
    assert_eq!(rename("file", "nowhere/file"), Some(Errno::NOENT));
    assert_eq!(rename("full", "full/sub/inside"), Some(Errno::INVAL));
    let full = rename("dir", "full");
    let want =
        if shown.directory() { [Errno::NOTEMPTY; 2] } else { [Errno::NOTEMPTY, Errno::XDEV] };
    ensure!(full.is_some_and(|errno| want.contains(&errno)), "{full:?}");
    let with = |flags| renameat_with(CWD, room.path("file"), CWD, room.path("other"), flags).err();
    assert_eq!(with(RenameFlags::NOREPLACE), Some(Errno::EXIST));
    assert_eq!(with(RenameFlags::EXCHANGE), Some(Errno::INVAL));
    assert_eq!(rename("file", "file"), None, "onto itself changes nothing");
    room.holds("file", b"file")?;
    room.holds("other", b"other")?;
    room.holds("full/inner", b"inner")
}
