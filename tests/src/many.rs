//! Trees of very many small files whose names and contents follow from their number.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{XattrFlags, fsetxattr};

use crate::dataset::Dice;

/// Threads that write; what they wait for is the file system.
const THREADS: u64 = 4;

/// `dirs` directories of `each` files.
#[derive(Clone, Copy, Debug)]
pub struct Many {
    pub dirs: u64,
    pub each: u64,
}

impl Many {
    pub const fn files(&self) -> u64 {
        self.dirs * self.each
    }

    /// Path of file `n`.
    pub fn name(&self, n: u64) -> String {
        let mark = Dice::new(n).roll() & 0xffff_ffff;
        format!("shard-{:05}/sample-{:06}-{mark:08x}.json", n / self.each, n % self.each)
    }

    /// Content of file `n`: every second one is empty, the others have up to 200 bytes.
    pub fn content(&self, n: u64) -> Vec<u8> {
        if n.is_multiple_of(2) {
            return Vec::new();
        }
        let len = 20 + usize::try_from(n % 180).unwrap_or(0);
        format!("{{\"n\":{n:019}}}\n").bytes().cycle().take(len).collect()
    }

    /// Makes the tree.
    pub fn make(&self, root: &Path) -> Result<()> {
        self.make_with(root, |_, _| Ok(()))
    }

    /// Makes the tree as versitygw keeps the objects of a bucket, whose folder `root` is: files with
    /// their ETag in an attribute. Far quicker than to ask the server a million times.
    pub fn make_objects(&self, root: &Path) -> Result<()> {
        self.make_with(root, |file, n| {
            let etag = format!("\"{n:032x}\"");
            fsetxattr(file, "user.etag", etag.as_bytes(), XattrFlags::empty())
                .context("this file system keeps no attributes")
        })
    }

    fn make_with(
        &self,
        root: &Path,
        finish: impl Fn(&File, u64) -> Result<()> + Sync,
    ) -> Result<()> {
        let next = AtomicU64::new(0);
        let work = || -> Result<()> {
            loop {
                let dir = next.fetch_add(1, Ordering::Relaxed);
                if dir >= self.dirs {
                    return Ok(());
                }
                let numbers = dir * self.each..(dir + 1) * self.each;
                fs::create_dir_all(root.join(format!("shard-{dir:05}")))?;
                for n in numbers {
                    let mut file = File::create(root.join(self.name(n)))?;
                    file.write_all(&self.content(n))?;
                    finish(&file, n)?;
                }
            }
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
            threads.into_iter().try_for_each(|thread| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
        })
    }

    /// Opens and reads `count` files chosen by `seed` with several threads, and compares each.
    pub fn read_shuffled(&self, root: &Path, count: u64, seed: u64, threads: u64) -> Result<()> {
        let read = |thread: u64| -> Result<()> {
            let mut dice = Dice::new(seed ^ (thread << 32));
            for _ in 0..count / threads {
                let n = dice.below(self.files());
                let name = self.name(n);
                let bytes = fs::read(root.join(&name)).with_context(|| format!("read {name}"))?;
                ensure!(bytes == self.content(n), "{name} has wrong bytes");
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|n| scope.spawn(move || read(n))).collect();
            threads.into_iter().try_for_each(|thread| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
        })
    }
}

/// Entries that `find` sees below `root`, itself included.
pub fn find(root: &Path) -> Result<usize> {
    let mut command = std::process::Command::new(crate::part::program("find")?);
    Ok(crate::process::check(command.arg(root).args(["-printf", "."]))?.len())
}
