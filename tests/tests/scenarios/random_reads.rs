//! Random reads by every road into the kernel, against the source tree.

use std::fs::File;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{MemfdFlags, OFlags, memfd_create, sendfile};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use tidegate_tests::dataset::{self, Dice};
use tidegate_tests::held::Held;
use tidegate_tests::scratch::Scratch;
use tidegate_tests::tidegate::Run;

const ROUNDS: usize = 400;
const DIRECT: u64 = 4096;

/// One file of the selection, at home and through the mount.
struct Pair {
    home: File,
    there: File,
    path: PathBuf,
    len: u64,
}

impl Pair {
    fn all(home: &Path, data: &Path) -> Result<Vec<Self>> {
        let mut pairs = Vec::new();
        for entry in std::fs::read_dir(home)? {
            let path = data.join(entry?.file_name());
            let home = File::open(home.join(path.file_name().context("no name")?))?;
            let len = home.metadata()?.len();
            pairs.push(Self { home, there: File::open(&path)?, path, len });
        }
        pairs.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(pairs)
    }

    /// A range that may reach past the end.
    fn range(&self, dice: &mut Dice) -> (u64, usize) {
        let at = dice.below(self.len + 10);
        let len = [1, 100, 4096, 16_384, 16_385, 131_072, 1_048_576, 5 << 20]
            [usize::try_from(dice.below(8)).unwrap_or(0)];
        (at, len)
    }

    fn want(&self, at: u64, len: usize) -> Result<Vec<u8>> {
        read_at(&self.home, at, len)
    }

    fn compare(&self, how: &str, at: u64, want: &[u8], got: &[u8]) -> Result<()> {
        let differs = want.iter().zip(got).position(|(a, b)| a != b);
        let (name, lens) = (self.path.display(), (want.len(), got.len()));
        ensure!(
            want == got,
            "{how} of {name} at {at}: lengths {lens:?}, first difference {differs:?}"
        );
        Ok(())
    }
}

fn read_at(file: &File, at: u64, len: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let mut done = 0;
    while done < len {
        match file.read_at(&mut bytes[done..], at + done as u64)? {
            0 => break,
            n => done += n,
        }
    }
    bytes.truncate(done);
    Ok(bytes)
}

fn by_pread(pair: &Pair, dice: &mut Dice) -> Result<()> {
    let (at, len) = pair.range(dice);
    pair.compare("pread", at, &pair.want(at, len)?, &read_at(&pair.there, at, len)?)
}

fn by_sendfile(pair: &Pair, dice: &mut Dice) -> Result<()> {
    let (at, len) = pair.range(dice);
    let sink = File::from(memfd_create("sink", MemfdFlags::CLOEXEC)?);
    let mut offset = at;
    while offset < at + len as u64 {
        let left = usize::try_from(at + len as u64 - offset)?;
        if sendfile(&sink, &pair.there, Some(&mut offset), left)? == 0 {
            break;
        }
    }
    let got = read_at(&sink, 0, len)?;
    pair.compare("sendfile", at, &pair.want(at, len)?, &got)
}

fn by_mmap(pair: &Pair, dice: &mut Dice, flags: MapFlags) -> Result<()> {
    let Ok(whole) = usize::try_from(pair.len) else { return Ok(()) };
    if whole == 0 {
        return Ok(());
    }
    let (at, len) = pair.range(dice);
    let start = usize::try_from(at)?.min(whole - 1);
    let end = start.saturating_add(len).min(whole);
    let got = mapped(&pair.there, whole, start..end, flags)?;
    pair.compare("mmap", start as u64, &pair.want(start as u64, end - start)?, &got)
}

#[allow(unsafe_code, reason = "a mapping is what is tested")]
fn mapped(
    file: &File,
    len: usize,
    range: std::ops::Range<usize>,
    flags: MapFlags,
) -> Result<Vec<u8>> {
    // SAFETY: a fresh mapping at an address of the kernel's choice, read inside its length and
    // unmapped before anything else can see it; the file is read-only and keeps its size.
    unsafe {
        let start = mmap(std::ptr::null_mut(), len, ProtFlags::READ, flags, file, 0)?;
        let bytes = std::slice::from_raw_parts(start.cast::<u8>(), len)[range].to_vec();
        munmap(start, len)?;
        Ok(bytes)
    }
}

fn by_direct(pair: &Pair, dice: &mut Dice) -> Result<()> {
    let flags = i32::try_from(OFlags::DIRECT.bits())?;
    let file = File::options().read(true).custom_flags(flags).open(&pair.path)?;
    let at = dice.below(pair.len + 1) / DIRECT * DIRECT;
    let len = usize::try_from((1 + dice.below(64)) * DIRECT)?;
    // An aligned part of a larger buffer.
    let mut buffer = vec![0; len + usize::try_from(DIRECT)?];
    let skip = buffer.as_ptr().align_offset(usize::try_from(DIRECT)?);
    let mut done = 0;
    while done < len {
        match file.read_at(&mut buffer[skip + done..skip + len], at + done as u64)? {
            0 => break,
            n => done += n,
        }
        if !done.is_multiple_of(usize::try_from(DIRECT)?) {
            break;
        }
    }
    pair.compare("O_DIRECT", at, &pair.want(at, len)?, &buffer[skip..skip + done])
}

fn compare(extra: &[&str]) -> Result<()> {
    let home = Scratch::new()?;
    for (seed, len) in (0..).zip([
        0,
        1,
        4095,
        16_384,
        100_000,
        1 << 20,
        (1 << 20) + 1,
        (4 << 20) - 1,
        (9 << 20) + 77,
        17 << 20,
    ]) {
        dataset::write(home.path(), format!("{len:09}"), &dataset::bytes(seed, len))?;
    }
    let held = Held::start(Run::from_dir(home.path())?.args(extra))?;
    let pairs = Pair::all(home.path(), held.data())?;
    let mut outcome = Ok(());
    std::thread::scope(|scope| {
        let reader = |seed: u64| {
            let pairs = &pairs;
            scope.spawn(move || -> Result<()> {
                let mut dice = Dice::new(seed);
                for _ in 0..ROUNDS {
                    let pair = &pairs[usize::try_from(dice.below(pairs.len() as u64))?];
                    match dice.below(5) {
                        0 => by_pread(pair, &mut dice),
                        1 => by_sendfile(pair, &mut dice),
                        2 => by_mmap(pair, &mut dice, MapFlags::PRIVATE),
                        3 => by_mmap(pair, &mut dice, MapFlags::SHARED),
                        _ => by_direct(pair, &mut dice),
                    }?;
                }
                Ok(())
            })
        };
        let readers: Vec<_> = (0..4).map(reader).collect();
        for reader in readers {
            match reader.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => outcome = Err(error),
                Err(_) => outcome = Err(anyhow::anyhow!("a reader panicked")),
            }
        }
    });
    outcome?;
    drop(pairs);
    let (_, receipt) = held.finish()?;
    assert_eq!(receipt["read_errors"], 0);
    Ok(())
}

#[test]
fn every_road_gives_the_source_s_bytes() -> Result<()> {
    compare(&[])
}

#[test]
fn also_from_a_cache_that_must_evict() -> Result<()> {
    compare(&["--cache-size", "20MiB"])
}
