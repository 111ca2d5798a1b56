//! R3 and R10: names.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;

use anyhow::{Context as _, Result};
use rustix::io::Errno;
use tidegate_tests::dataset;

use super::{Shown, errno};

pub(super) fn r03_names(shown: &Shown) -> Result<()> {
    let room = shown.room("r03_names")?;
    let longest = "n".repeat(255);
    let names = [
        "with space",
        "tab\tand\nnewline",
        "größe-日本語-🌊",
        // Composed and decomposed are two names.
        "e\u{301}",
        "\u{e9}",
        "plus+percent%25&amp;",
        "quote\"and'tick",
        "*[glob]?{a,b}",
        "-dash",
        ".hidden",
        "back\\slash",
        longest.as_str(),
    ];
    for (n, name) in (0..).zip(names) {
        let bytes = dataset::bytes(n, 1_000 + usize::try_from(n)?);
        fs::write(room.path(name), &bytes).with_context(|| name.to_owned())?;
        room.holds(name, &bytes).with_context(|| name.to_owned())?;
    }
    let listed: BTreeSet<_> =
        fs::read_dir(&room.at)?.flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(listed, names.iter().map(|name| OsStr::new(*name).to_owned()).collect());
    let deep = ["d".repeat(200), "e".repeat(200), "f".repeat(200), "g".repeat(200)].join("/");
    fs::create_dir_all(room.path(&deep))?;
    fs::write(room.path(&format!("{deep}/file")), b"deep")?;
    room.holds(&format!("{deep}/file"), b"deep")?;
    let long = "n".repeat(256);
    assert_eq!(errno(File::create(room.path(&long))), Some(Errno::NAMETOOLONG));
    assert_eq!(errno(fs::create_dir(room.path(&long))), Some(Errno::NAMETOOLONG));
    let bytes = room.at.join(OsStr::from_bytes(b"not-utf8-\xff"));
    assert_eq!(errno(File::create(&bytes)), Some(Errno::ILSEQ));
    assert_eq!(errno(fs::create_dir(&bytes)), Some(Errno::ILSEQ));
    assert_eq!(errno(fs::rename(room.path(".hidden"), &bytes)), Some(Errno::ILSEQ));
    room.holds(".hidden", &dataset::bytes(9, 1_009))
}

pub(super) fn r10_many_small_files(shown: &Shown) -> Result<()> {
    const FILES: u64 = 150;
    let room = shown.room("r10_many_small_files")?;
    for n in 0..FILES {
        let name = format!("{:02}/{n:04}.json", n % 5);
        fs::create_dir_all(room.path(&format!("{:02}", n % 5)))?;
        fs::write(room.path(&name), dataset::bytes(n, usize::try_from(n * 37)?))?;
    }
    for n in 0..FILES {
        let name = format!("{:02}/{n:04}.json", n % 5);
        room.holds(&name, &dataset::bytes(n, usize::try_from(n * 37)?))?;
    }
    for dir in 0..5 {
        let names: Vec<_> = fs::read_dir(room.path(&format!("{dir:02}")))?
            .map(|entry| Ok(entry?.file_name()))
            .collect::<std::io::Result<_>>()?;
        let once: BTreeSet<_> = names.iter().collect();
        assert_eq!((names.len(), once.len()), (30, 30), "each name once");
    }
    fs::remove_dir_all(room.path("00"))?;
    room.lacks("00/0000.json")?;
    room.holds("01/0001.json", &dataset::bytes(1, 37))
}
