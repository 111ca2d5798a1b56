//! S15 to S25: opening and reading.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::time::Instant;

use anyhow::{Context as _, Result};
use rustix::fs::{OFlags, SeekFrom as RawSeek, seek};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::pipe::{SpliceFlags, pipe, splice};
use tidegate_tests::dataset;
use tidegate_tests::held::Held;
use tidegate_tests::process::check;
use tidegate_tests::scratch::Scratch;
use tidegate_tests::tidegate::Run;

use super::{LARGE, SMALL, Staged};

fn errno(outcome: std::io::Result<File>) -> Option<i32> {
    outcome.err().and_then(|error| error.raw_os_error())
}

#[test]
fn s15_opening_for_writing_is_erofs() -> Result<()> {
    let staged = Staged::pair()?;
    let small = staged.data("small");
    let rofs = Some(Errno::ROFS.raw_os_error());
    assert_eq!(errno(OpenOptions::new().write(true).open(&small)), rofs);
    assert_eq!(errno(OpenOptions::new().append(true).open(&small)), rofs);
    assert_eq!(errno(OpenOptions::new().write(true).truncate(true).open(&small)), rofs);
    assert_eq!(
        errno(OpenOptions::new().write(true).create_new(true).open(staged.data("new"))),
        rofs
    );
    File::open(&small)?;
    Ok(())
}

#[test]
fn s16_reads_at_every_edge() -> Result<()> {
    let staged = Staged::pair()?;
    for (name, len) in [("large", LARGE), ("small", SMALL)] {
        let (there, home) = (File::open(staged.data(name))?, fs::read(staged.home(name))?);
        let block = 4 << 20;
        for at in [
            0,
            1,
            4095,
            16_383,
            16_384,
            block - 1,
            block,
            2 * block,
            len - 1,
            len,
            len + 1,
            len + block,
        ] {
            for count in [1, 2, 4096, 16_385, block + 1] {
                let mut buffer = vec![0xaa; count];
                let mut got = 0;
                loop {
                    let n = there.read_at(&mut buffer[got..], (at + got) as u64)?;
                    got += n;
                    if n == 0 || got == count {
                        break;
                    }
                    assert!(
                        at + got == len,
                        "a short read at {at} of {name} that is not at the end"
                    );
                }
                let want = home.get(at..(at + count).min(len)).unwrap_or_default();
                assert!(buffer[..got] == *want, "{name} at {at}, {count} bytes");
            }
        }
    }
    Ok(())
}

#[test]
fn s17_an_empty_file() -> Result<()> {
    let staged = Staged::odd()?;
    assert_eq!(fs::read(staged.data("empty-file"))?, b"");
    Ok(())
}

#[test]
fn s18_a_sparse_file_and_its_holes() -> Result<()> {
    let staged = Staged::odd()?;
    assert!(fs::read(staged.data("sparse"))? == fs::read(staged.home("sparse"))?);
    let file = File::open(staged.data("sparse"))?;
    let len = file.metadata()?.len();
    assert_eq!(seek(&file, RawSeek::Data(1 << 20))?, 1 << 20);
    assert_eq!(seek(&file, RawSeek::Hole(0))?, len);
    Ok(())
}

#[allow(unsafe_code, reason = "a mapping is what is tested")]
fn map_and_compare(file: &File, want: &[u8], flags: MapFlags) -> Result<bool> {
    // SAFETY: a fresh read-only mapping of a read-only file, unmapped before it can be seen elsewhere.
    unsafe {
        let start = mmap(std::ptr::null_mut(), want.len(), ProtFlags::READ, flags, file, 0)?;
        let same = std::slice::from_raw_parts(start.cast::<u8>(), want.len()) == want;
        munmap(start, want.len())?;
        Ok(same)
    }
}

#[test]
#[allow(unsafe_code, reason = "a mapping is what is tested")]
fn s19_mappings() -> Result<()> {
    let staged = Staged::pair()?;
    for name in ["large", "small"] {
        let (file, home) = (File::open(staged.data(name))?, fs::read(staged.home(name))?);
        for flags in [MapFlags::PRIVATE, MapFlags::SHARED] {
            assert!(map_and_compare(&file, &home, flags)?, "{name} {flags:?}");
        }
        // SAFETY: refused, so nothing is mapped.
        let writable = unsafe {
            mmap(
                std::ptr::null_mut(),
                4096,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &file,
                0,
            )
        };
        assert_eq!(writable.err(), Some(Errno::ACCESS));
    }
    Ok(())
}

#[test]
fn s20_sendfile_and_splice() -> Result<()> {
    let staged = Staged::pair()?;
    for name in ["large", "small"] {
        let (file, home) = (File::open(staged.data(name))?, fs::read(staged.home(name))?);
        let mut sink = tempfile_in(&staged)?;
        let mut offset = 0;
        while rustix::fs::sendfile(&sink, &file, Some(&mut offset), 1 << 20)? > 0 {}
        sink.seek(SeekFrom::Start(0))?;
        let mut sent = Vec::new();
        sink.read_to_end(&mut sent)?;
        assert!(sent == home, "sendfile of {name}");

        let (reader, writer) = pipe()?;
        let mut spliced = Vec::new();
        let mut at = 0;
        loop {
            let moved = splice(&file, Some(&mut at), &writer, None, 65_536, SpliceFlags::empty())?;
            if moved == 0 {
                break;
            }
            let mut buffer = vec![0; moved];
            File::from(reader.try_clone()?).read_exact(&mut buffer)?;
            spliced.extend(buffer);
        }
        assert!(spliced == home, "splice of {name}");
    }
    Ok(())
}

fn tempfile_in(staged: &Staged) -> Result<File> {
    let path = staged.held.scratch().join("sink");
    Ok(File::options().read(true).write(true).create(true).truncate(true).open(path)?)
}

#[test]
fn s21_direct_reads_at_any_offset() -> Result<()> {
    let staged = Staged::pair()?;
    for name in ["large", "small"] {
        let flags = i32::try_from(OFlags::DIRECT.bits())?;
        let file = File::options().read(true).custom_flags(flags).open(staged.data(name))?;
        let home = fs::read(staged.home(name))?;
        for (at, len) in [(0, 4096), (1, 100), (511, 4097), (40_000, 12_345), (home.len() - 3, 100)]
        {
            let mut buffer = vec![0; len];
            let got = file.read_at(&mut buffer, at as u64)?;
            let want = &home[at..(at + len).min(home.len())];
            assert_eq!(&buffer[..got], want, "{name} at {at}");
        }
    }
    Ok(())
}

#[test]
fn s22_many_readers_of_one_file() -> Result<()> {
    let staged = Staged::pair()?;
    for name in ["large", "small"] {
        let home = fs::read(staged.home(name))?;
        let path = staged.data(name);
        std::thread::scope(|scope| {
            let readers = [0, 1, 2, 3, 4, 5].map(|n| {
                let (home, path) = (&home, &path);
                scope.spawn(move || -> Result<()> {
                    let file = File::open(path)?;
                    for _ in 0..4 {
                        if n % 2 == 0 {
                            assert!(map_and_compare(&file, home, MapFlags::SHARED)?, "mapped");
                        } else {
                            let mut buffer = vec![0; home.len()];
                            file.read_exact_at(&mut buffer, 0)?;
                            assert!(buffer == *home, "read");
                        }
                    }
                    Ok(())
                })
            });
            for reader in readers {
                reader.join().map_err(|_| anyhow::anyhow!("a reader saw other bytes"))??;
            }
            anyhow::Ok(())
        })?;
        let words = [staged.home(name), path.clone()];
        check(std::process::Command::new("cmp").args(words))?;
    }
    Ok(())
}

/// The link is so slow that a cold file takes seconds; a warm one is read many times meanwhile.
#[test]
fn s23_a_waiting_read_does_not_hold_up_others() -> Result<()> {
    let home = Scratch::new()?;
    dataset::write(home.path(), "a-warm", &dataset::bytes(1, 2 << 20))?;
    dataset::write(home.path(), "b-cold", &dataset::bytes(2, 40 << 20))?;
    let held = Held::start(Run::from_dir(home.path())?.args(["--limit", "60Mbit"]))?;
    let warm = dataset::bytes(1, 2 << 20);
    assert!(fs::read(held.data().join("a-warm"))? == warm);
    let cold = held.data().join("b-cold");
    let waiting = std::thread::spawn(move || -> Result<Instant> {
        let mut last = [0];
        File::open(cold)?.read_exact_at(&mut last, (40 << 20) - 1)?;
        Ok(Instant::now())
    });
    for _ in 0..20 {
        assert!(fs::read(held.data().join("a-warm"))? == warm);
    }
    let hot_done = Instant::now();
    let cold_done = waiting.join().map_err(|_| anyhow::anyhow!("the cold reader panicked"))??;
    assert!(hot_done < cold_done, "twenty warm reads took longer than one cold one");
    held.finish()?;
    Ok(())
}

#[test]
fn s24_an_open_descriptor_stays_readable() -> Result<()> {
    let staged = Staged::odd()?;
    let file = File::open(staged.data("large/two-blocks-and-a-tail"))?;
    let small = File::open(staged.data("small/00/007.bin"))?;
    for line in tidegate_tests::digest::tree(staged.held.data())? {
        assert!(!line.is_empty());
    }
    let home = fs::read(staged.home("large/two-blocks-and-a-tail"))?;
    let mut tail = vec![0; 12_345];
    file.read_exact_at(&mut tail, (home.len() - 12_345) as u64)?;
    assert!(tail == home[home.len() - 12_345..]);
    let mut all = Vec::new();
    (&small).read_to_end(&mut all)?;
    assert_eq!(all, fs::read(staged.home("small/00/007.bin"))?);
    Ok(())
}

/// The worker counts the bytes it answers: a second epoch of small files adds none.
#[test]
fn s25_small_files_are_read_from_the_worker_once() -> Result<()> {
    let home = Scratch::new()?;
    dataset::flat(home.path(), 20, 100_000, 5)?;
    let held = Held::start(Run::from_dir(home.path())?)?;
    for _ in 0..5 {
        for n in 0..20 {
            assert_eq!(fs::read(held.data().join(format!("{n:05}.bin")))?.len(), 100_000);
        }
    }
    let (_, receipt) = held.finish()?;
    let read = receipt["read_bytes"].as_u64().context("no read_bytes")?;
    assert!(read <= 20 * 102_400, "{read} bytes were answered for 2,000,000");
    Ok(())
}
