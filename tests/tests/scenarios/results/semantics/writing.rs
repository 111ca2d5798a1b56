//! R2, R11 to R13, R29: bytes.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use rustix::fs::OFlags;
use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};
use tidegate_tests::dataset::{self, Dice};
use tidegate_tests::process::check;

use super::{Shown, differ};

const BLOCK: usize = 1 << 20;
const PART: usize = 16 << 20;

pub(super) fn r02_a_file_is_at_home_from_its_first_close(shown: &Shown) -> Result<()> {
    let room = shown.room("r02_a_file_is_at_home_from_its_first_close")?;
    for len in [0, 1, 4095, 4096, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 77] {
        let (name, bytes) = (format!("{len}"), dataset::bytes(len as u64, len));
        fs::write(room.path(&name), &bytes)?;
        room.holds(&name, &bytes)?;
    }
    // Nothing is there before it is whole, and what is open is read as it is.
    let mut file = room.open("open")?;
    file.write_all(b"first")?;
    ensure!(room.home("open")?.is_none(), "at home before it was closed");
    assert_eq!(fs::read(room.path("open"))?, b"first");
    file.write_all(b" second")?;
    drop(file);
    room.holds("open", b"first second")?;
    // By the road around the page cache.
    let flags = i32::try_from(OFlags::DIRECT.bits())?;
    let name = (3 * BLOCK + 77).to_string();
    let file = File::options().read(true).custom_flags(flags).open(room.path(&name))?;
    let mut got = vec![0; 4096];
    file.read_exact_at(&mut got, 8192)?;
    let want = &dataset::bytes((3 * BLOCK + 77) as u64, 3 * BLOCK + 77)[8192..12288];
    ensure!(got == want, "direct: {}", differ(&got, want));
    Ok(())
}

pub(super) fn r02_a_synced_file_is_at_home_as_it_is_then(shown: &Shown) -> Result<()> {
    let room = shown.room("r02_a_synced_file_is_at_home_as_it_is_then")?;
    let mut file = room.open("file")?;
    file.write_all(b"one")?;
    file.sync_all()?;
    room.holds("file", b"one")?;
    file.write_all(b" two")?;
    assert_eq!(room.home("file")?.as_deref(), Some(&b"one"[..]), "not before the next");
    file.sync_data()?;
    room.holds("file", b"one two")?;
    file.set_len(2)?;
    file.sync_all()?;
    room.holds("file", b"on")?;
    drop(file);
    room.holds("file", b"on")
}

/// A child closes what it inherited when it calls another program, and when it ends.
pub(super) fn r29_what_is_half_written_comes_home_by_its_writers_closes_only(
    shown: &Shown,
) -> Result<()> {
    let room = shown.room("r29_what_is_half_written_comes_home_by_its_writers_closes_only")?;
    let mut file = room.open("file")?;
    file.write_all(b"half")?;
    check(&mut Command::new("true"))?;
    // Nor does anybody's who reads it meanwhile.
    assert_eq!(fs::read(room.path("file"))?, b"half");
    ensure!(room.home("file")?.is_none(), "half of it is at home");
    // One that wrote is a writer.
    check(Command::new("sh").args(["-c", "printf ' and half' >>\"$0\""]).arg(room.path("file")))?;
    room.holds("file", b"half and half")?;
    file.write_at(b"H", 0)?;
    drop(file);
    room.holds("file", b"Half and half")
}

pub(super) fn r11_fsync_of_a_directory(shown: &Shown) -> Result<()> {
    let room = shown.room("r11_fsync")?;
    fs::write(room.path("file"), b"bytes")?;
    fs::rename(room.path("file"), room.path("renamed"))?;
    File::open(&room.at)?.sync_all().context("fsync of a directory")?;
    room.holds("renamed", b"bytes")
}

pub(super) fn r12_appending(shown: &Shown) -> Result<()> {
    let room = shown.room("r12_appending")?;
    let mut want = Vec::new();
    for round in 0..4_u64 {
        let mut file = File::options().append(true).create(true).open(room.path("log"))?;
        for line in 0..5 {
            let line = dataset::bytes(round * 10 + line, 70_001);
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&line)?;
            want.extend(line);
        }
        if round % 2 == 0 {
            file.sync_all()?;
            room.holds("log", &want)?;
        }
        drop(file);
        room.holds("log", &want)?;
    }
    // Two who append in turns lose nothing of each other.
    let open = || File::options().append(true).create(true).open(room.path("both"));
    let (mut one, mut two) = (open()?, open()?);
    for _ in 0..50 {
        one.write_all(b"1111")?;
        two.write_all(b"22")?;
    }
    drop((one, two));
    room.holds("both", "111122".repeat(50).as_bytes())
}

pub(super) fn r12_writing_anywhere(shown: &Shown) -> Result<()> {
    let room = shown.room("r12_writing_anywhere")?;
    let mut want = dataset::bytes(5, 5 * BLOCK + 123);
    fs::write(room.path("file"), &want)?;
    let mut dice = Dice::new(5);
    for round in 0..3_u64 {
        let file = room.open("file")?;
        for n in 0..40 {
            let at = usize::try_from(dice.below(want.len() as u64 + 9_000))?;
            let bytes = dataset::bytes(round * 100 + n, usize::try_from(1 + dice.below(60_000))?);
            file.write_all_at(&bytes, at as u64)?;
            want.resize(want.len().max(at + bytes.len()), 0);
            want[at..at + bytes.len()].copy_from_slice(&bytes);
            let from = usize::try_from(dice.below(want.len() as u64))?;
            let mut got = vec![0; 3_000.min(want.len() - from)];
            file.read_exact_at(&mut got, from as u64)?;
            ensure!(got == want[from..from + got.len()], "read back before it was closed");
        }
        drop(file);
        room.holds("file", &want)?;
    }
    // Far behind the end: a hole.
    let file = room.open("sparse")?;
    file.write_all_at(b"head", 0)?;
    file.write_all_at(b"tail", 3 * BLOCK as u64 + 7)?;
    drop(file);
    let mut want = vec![0; 3 * BLOCK + 11];
    want[..4].copy_from_slice(b"head");
    want[3 * BLOCK + 7..].copy_from_slice(b"tail");
    room.holds("sparse", &want)
}

pub(super) fn r12_truncating(shown: &Shown) -> Result<()> {
    let room = shown.room("r12_truncating")?;
    let mut want = dataset::bytes(6, 2 * BLOCK + 500);
    fs::write(room.path("file"), &want)?;
    for len in [2 * BLOCK, BLOCK + 17, 3 * BLOCK + 1, 10, 0, 5_000] {
        let file = File::options().write(true).open(room.path("file"))?;
        file.set_len(len as u64)?;
        want.resize(len, 0);
        drop(file);
        room.holds("file", &want).with_context(|| format!("to {len}"))?;
    }
    fs::write(room.path("file"), b"anew")?;
    room.holds("file", b"anew")?;
    drop(File::create(room.path("file"))?);
    room.holds("file", b"")?;
    // What was cut off does not come back.
    let file = room.open("cut")?;
    file.write_all_at(&[7; 9_000], 0)?;
    file.set_len(100)?;
    file.set_len(9_000)?;
    drop(file);
    let mut want = vec![0; 9_000];
    want[..100].fill(7);
    room.holds("cut", &want)
}

#[allow(unsafe_code, reason = "a mapping is what is tested")]
pub(super) fn r13_a_shared_mapping(shown: &Shown) -> Result<()> {
    let room = shown.room("r13_a_shared_mapping")?;
    let len = 2 * BLOCK + 4096;
    let mut want = dataset::bytes(12, len);
    fs::write(room.path("file"), &want)?;
    let file = room.open("file")?;
    // SAFETY: a fresh mapping at an address of the kernel's choice, used inside its length and unmapped
    // before anything else can see it; the file keeps its size.
    unsafe {
        let flags = ProtFlags::READ | ProtFlags::WRITE;
        let start = mmap(std::ptr::null_mut(), len, flags, MapFlags::SHARED, &file, 0)
            .context("a shared writable mapping")?;
        let bytes = std::slice::from_raw_parts_mut(start.cast::<u8>(), len);
        ensure!(bytes == want, "the mapping shows other bytes");
        for at in [0, 5_000, BLOCK - 3, 2 * BLOCK + 4_000] {
            bytes[at..at + 50].copy_from_slice(&dataset::bytes(at as u64, 50));
            want[at..at + 50].copy_from_slice(&dataset::bytes(at as u64, 50));
        }
        msync(start, len, MsyncFlags::SYNC).context("msync")?;
        room.holds("file", &want).context("after msync")?;
        bytes[77] ^= 0xff;
        want[77] ^= 0xff;
        munmap(start, len)?;
    }
    file.sync_all()?;
    room.holds("file", &want).context("after munmap and fsync")
}

pub(super) fn r12_two_descriptors(shown: &Shown) -> Result<()> {
    let room = shown.room("r12_two_descriptors")?;
    let (mut one, mut two) = (room.open("file")?, room.open("file")?);
    one.write_all(b"of one")?;
    let mut got = String::new();
    two.read_to_string(&mut got)?;
    assert_eq!(got, "of one", "seen by the other at once");
    two.write_all(b", of two")?;
    drop(one);
    room.holds("file", b"of one, of two").context("the first close brings all of it home")?;
    two.write_all(b", more")?;
    drop(two);
    room.holds("file", b"of one, of two, more")
}

pub(super) fn r12_a_file_of_several_parts(shown: &Shown) -> Result<()> {
    let room = shown.room("r12_a_file_of_several_parts")?;
    let mut want = dataset::bytes(22, 2 * PART + 3 * BLOCK + 9);
    fs::write(room.path("file"), &want)?;
    room.holds("file", &want)?;
    // One part changes, the others are what they were.
    let file = room.open("file")?;
    file.write_all_at(b"changed", PART as u64 + 99)?;
    want[PART + 99..PART + 106].copy_from_slice(b"changed");
    drop(file);
    room.holds("file", &want)?;
    let mut file = File::options().append(true).open(room.path("file"))?;
    let more = dataset::bytes(23, PART);
    file.write_all(&more)?;
    want.extend(more);
    file.sync_all()?;
    room.holds("file", &want)?;
    file.set_len(PART as u64)?;
    want.truncate(PART);
    drop(file);
    room.holds("file", &want)
}
