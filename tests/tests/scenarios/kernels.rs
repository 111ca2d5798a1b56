//! Older kernels: each feature that they lack is switched off, and what is promised without it holds.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::process::Signal;
use tidegate_tests::dataset;
use tidegate_tests::digest;
use tidegate_tests::held::Held;
use tidegate_tests::process::signal_pid;
use tidegate_tests::scratch::Scratch;
use tidegate_tests::tidegate::{Run, nothing_left, receipt, tidegate};

/// S31 before Linux 6.9: the mount ends, and the message says why.
#[test]
fn s31_without_resend_a_killed_worker_is_a_clear_end() -> Result<()> {
    let home = Scratch::new()?;
    dataset::flat(home.path(), 4, (4 << 20) + 999, 310)?;
    let want = digest::tree(home.path())?;
    let mut held = Held::start(Run::from_dir(home.path())?.args(["--kernel-without", "resend"]))?;
    digest::assert_same(&want, &digest::tree(held.data())?);
    let open = File::open(fs::read_dir(held.data())?.next().context("an empty mount")??.path())?;
    signal_pid(held.worker()?, Signal::KILL)?;
    let mut byte = [0];
    let error = loop {
        match rustix::io::pread(&open, &mut byte, 0) {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Errno::NOTCONN | Errno::CONNABORTED), "{error}");
    let status = held.process().wait()?;
    assert!(!status.success(), "{}", held.log());
    assert!(held.log().contains("older than 6.9"), "{}", held.log());
    nothing_left(held.scratch())?;
    let receipt = receipt(held.scratch())?;
    assert_eq!(receipt["outcome"], "withdrawn", "{receipt:#}");
    Ok(())
}

/// S19 before Linux 6.6: everything but a shared mapping of a large file works as ever.
#[test]
fn s19_without_direct_mmap_only_shared_mappings_of_large_files_fail() -> Result<()> {
    let home = Scratch::new()?;
    dataset::write(home.path(), "large", &dataset::bytes(1, (3 << 20) + 5))?;
    dataset::write(home.path(), "small", &dataset::bytes(2, 70_000))?;
    let held = Held::start(Run::from_dir(home.path())?.args(["--kernel-without", "direct-mmap"]))?;
    digest::assert_same(&digest::tree(home.path())?, &digest::tree(held.data())?);
    let (large, small) = (held.data().join("large"), held.data().join("small"));
    assert_eq!(mapped(&large, MapFlags::SHARED)?.err(), Some(Errno::NODEV));
    assert_eq!(mapped(&large, MapFlags::PRIVATE)??, dataset::bytes(1, (3 << 20) + 5));
    assert_eq!(mapped(&small, MapFlags::SHARED)??, dataset::bytes(2, 70_000));
    held.finish()?;
    Ok(())
}

#[test]
fn an_unknown_feature_is_refused() -> Result<()> {
    let refused = tidegate(["run", "--from", "/usr", "--kernel-without", "magic", "--", "true"])?;
    assert_eq!(refused.status.code(), Some(2));
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(message.contains("resend") && message.contains("direct-mmap"), "{message}");
    Ok(())
}

/// What a mapping of a whole file shows.
fn mapped(path: &Path, flags: MapFlags) -> Result<rustix::io::Result<Vec<u8>>> {
    let file = File::open(path)?;
    let len = usize::try_from(file.metadata()?.len())?;
    #[allow(unsafe_code, reason = "mmap is what is tested")]
    // SAFETY: a new mapping at a place the kernel chooses, read within its length and unmapped before
    // the slice is gone; nobody writes to the file.
    unsafe {
        match mmap(std::ptr::null_mut(), len, ProtFlags::READ, flags, &file, 0) {
            Ok(start) => {
                let bytes = std::slice::from_raw_parts(start.cast::<u8>(), len).to_vec();
                munmap(start, len)?;
                Ok(Ok(bytes))
            }
            Err(error) => Ok(Err(error)),
        }
    }
}
