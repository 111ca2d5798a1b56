//! R14 to R16: other roads to the bytes, and what is not offered.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{FallocateFlags, OFlags, SeekFrom, copy_file_range, fallocate, seek, sendfile};
use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, pipe, splice};
use tidegate_tests::dataset;

use super::{Shown, differ};

const LEN: usize = (1 << 20) + 8192;

pub(super) fn r14_direct_sendfile_splice_and_copy(shown: &Shown) -> Result<()> {
    let room = shown.room("r14_roads")?;
    let want = dataset::bytes(14, LEN);
    fs::write(room.path("file"), &want)?;
    let flags = i32::try_from(OFlags::DIRECT.bits())?;
    let mut direct = File::options();
    direct.read(true).write(true).create(true).truncate(true).custom_flags(flags);
    let file = direct.open(room.path("direct"))?;
    std::io::Write::write_all(&mut &file, &want).context("a direct write")?;
    drop(file);
    room.holds("direct", &want)?;

    let from = File::open(room.path("file"))?;
    let to = File::create(room.path("sent"))?;
    let mut sent = 0;
    while sent < LEN {
        sent += sendfile(&to, &from, None, LEN - sent).context("sendfile")?;
    }
    drop(to);
    room.holds("sent", &want)?;

    let from = File::open(room.path("file"))?;
    let to = File::create(room.path("spliced"))?;
    let (out, into) = pipe()?;
    let mut moved = 0;
    while moved < LEN {
        let some = splice(&from, None, &into, None, 60_000, SpliceFlags::empty())?;
        let mut left = some;
        while left > 0 {
            left -= splice(&out, None, &to, None, left, SpliceFlags::empty()).context("splice")?;
        }
        moved += some;
    }
    drop(to);
    room.holds("spliced", &want)?;

    let from = File::open(room.path("file"))?;
    let to = File::create(room.path("copied"))?;
    let mut copied = 0;
    while copied < LEN {
        copied += copy_file_range(&from, None, &to, None, LEN - copied).context("copy")?;
    }
    drop(to);
    room.holds("copied", &want)?;
    let mut got = Vec::new();
    direct.create(false).truncate(false).open(room.path("file"))?.read_to_end(&mut got)?;
    ensure!(got == want, "direct: {}", differ(&got, &want));
    Ok(())
}

pub(super) fn r15_space_ahead_and_holes(shown: &Shown) -> Result<()> {
    let room = shown.room("r15_space")?;
    fs::write(room.path("file"), b"bytes")?;
    let file = room.open("file")?;
    let ahead = fallocate(&file, FallocateFlags::empty(), 0, 1 << 20);
    assert_eq!(ahead.err(), Some(Errno::OPNOTSUPP));
    assert_eq!(seek(&file, SeekFrom::Data(0))?, 0);
    assert_eq!(seek(&file, SeekFrom::Hole(0))?, 5);
    assert_eq!(seek(&file, SeekFrom::Data(5)).err(), Some(Errno::NXIO));
    Ok(())
}
