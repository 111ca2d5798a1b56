//! Deterministic data that does not compress: a counter run through AES is not needed, a xorshift is.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Result;

/// Size of a small file in bytes: an ordinary photograph.
pub(crate) const SMALL: usize = 110_000;

#[derive(Debug)]
pub(crate) struct Set {
    pub(crate) large: PathBuf,
    pub(crate) small: PathBuf,
    pub(crate) scratch: PathBuf,
    /// Of the larger of the two.
    bytes: u64,
}

impl Set {
    /// Has the kernel use as much memory as the page cache will need, and gives it back. In a virtual
    /// machine memory that was not used for a while is the host's: its first touch costs 0.7 CPU
    /// seconds a GiB, which would be measured in place of what the bench is about.
    pub(crate) fn touch_memory(&self) -> Result<()> {
        let path = self.scratch.join("touched");
        io::copy(&mut io::repeat(1).take(2 * self.bytes), &mut File::create(&path)?)?;
        fs::remove_file(path)?;
        Ok(())
    }
}

/// Four large files of `large_mib / 4` each, and `small_files` small ones in a hundred directories.
pub(crate) fn make(scratch: &Path, large_mib: u64, small_files: usize) -> Result<Set> {
    let (large, small) = (scratch.join("large"), scratch.join("small"));
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let mut page = vec![0; 1 << 20];
    fs::create_dir_all(&large)?;
    for n in 0..4 {
        let mut file = BufWriter::new(File::create(large.join(format!("shard-{n:05}.bin")))?);
        for _ in 0..large_mib / 4 {
            noise.fill(&mut page);
            file.write_all(&page)?;
        }
        file.flush()?;
    }
    for n in 0..small_files {
        let dir = small.join(format!("{:02}", n % 100));
        fs::create_dir_all(&dir)?;
        noise.fill(&mut page[..SMALL]);
        fs::write(dir.join(format!("{n:06}.jpg")), &page[..SMALL])?;
    }
    let bytes = (large_mib << 20).max((small_files * SMALL) as u64);
    Ok(Set { large, small, scratch: scratch.to_owned(), bytes })
}

/// xorshift64*: fast and incompressible, which is all that is asked of it.
#[derive(Debug)]
pub(crate) struct Noise(pub(crate) u64);

impl Noise {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn fill(&mut self, out: &mut [u8]) {
        for word in out.chunks_mut(8) {
            let bytes = self.next().to_le_bytes();
            word.copy_from_slice(&bytes[..word.len()]);
        }
    }
}
