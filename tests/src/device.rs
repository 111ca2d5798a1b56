//! A file system of its own on a loop device, whose raw bytes can be scanned.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::part;
use crate::process::check;
use crate::scratch::Scratch;

/// ext4 in a file, mounted through a loop device that goes away with the mount.
#[derive(Debug)]
pub struct LoopDevice {
    image: PathBuf,
    mounted: Option<PathBuf>,
}

impl LoopDevice {
    /// A fresh one of `bytes`, mounted at `scratch/name`.
    pub fn ext4(scratch: &Scratch, name: &str, bytes: u64) -> Result<Self> {
        let image = scratch.join(&format!("{name}.img"));
        File::create(&image)?.set_len(bytes).context("cannot make the device's file")?;
        check(Command::new(part::program("mkfs.ext4")?).args(["-q", "-F", "-m", "0"]).arg(&image))?;
        let at = scratch.dir(name)?;
        check(
            Command::new(part::program("mount")?)
                .args(["-o", "loop,nodiscard"])
                .arg(&image)
                .arg(&at),
        )
        .context("cannot mount a loop device (root is needed)")?;
        Ok(Self { image, mounted: Some(at) })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.mounted.as_deref().unwrap_or_else(|| Path::new("/nonexistent"))
    }

    /// Makes the device read-only, or writable again, under whoever uses it.
    pub fn remount(&self, options: &str) -> Result<()> {
        let options = format!("remount,{options}");
        check(Command::new(part::program("mount")?).args(["-o", &options]).arg(self.path()))?;
        Ok(())
    }

    /// Makes every write to it wait, as on a disk that does not answer, until the value is dropped.
    pub fn freeze(&self) -> Result<Frozen> {
        let at = self.path().to_owned();
        check(Command::new(part::program("fsfreeze")?).arg("--freeze").arg(&at))?;
        Ok(Frozen(at))
    }

    /// Takes every free byte; the file that holds them.
    pub fn fill(&self) -> Result<PathBuf> {
        let filler = self.path().join("filler");
        for step in ["bs=64K", "bs=4K", "bs=512"] {
            let mut dd = Command::new("dd");
            dd.args(["if=/dev/zero", step, "status=none", "oflag=append", "conv=notrunc,fsync"]);
            dd.arg(format!("of={}", filler.display()));
            anyhow::ensure!(check(&mut dd).is_err(), "the device did not fill up");
        }
        Ok(filler)
    }

    /// Brings all that was written down to the device and returns the file with its raw bytes.
    pub fn raw(&self) -> Result<&Path> {
        check(Command::new(part::program("sync")?).arg("-f").arg(self.path()))?;
        // The loop driver writes through the page cache of the file: reading the file sees it.
        Ok(&self.image)
    }
}

/// A device whose writers wait.
#[derive(Debug)]
pub struct Frozen(PathBuf);

impl Drop for Frozen {
    fn drop(&mut self) {
        if let Ok(fsfreeze) = part::program("fsfreeze") {
            let _ = check(Command::new(fsfreeze).arg("--unfreeze").arg(&self.0));
        }
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        if let (Some(at), Ok(umount)) = (self.mounted.take(), part::program("umount")) {
            // Lazily, should a process that the test lost still stand in it.
            let _ = check(Command::new(umount).arg("-l").arg(at));
        }
    }
}
