//! The job's side: reads a tree in passes and prints one JSON line a pass.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::data::Noise;
use crate::relatives::{Relatives, cpu};

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Plan {
    /// Passes, comma-separated: threads of each, e.g. `1,1,4`. A leading `s` shuffles the files.
    #[arg(long)]
    pub(crate) passes: String,
    /// What to read; default `$TIDEGATE_DATA`.
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
}

/// One pass.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Pass {
    pub(crate) files: usize,
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
    /// CPU seconds of the reader, of the worker and of the parent (gateway and holder); of the last two
    /// since the pass before, or since they started.
    pub(crate) reader_cpu: f64,
    pub(crate) worker_cpu: f64,
    pub(crate) parent_cpu: f64,
    /// Peak resident set of the worker in bytes, since it started.
    pub(crate) worker_peak: u64,
}

/// Bytes a read; a training reader's usual request.
const REQUEST: usize = 1 << 20;
const PAGE: usize = 4096;

#[allow(clippy::print_stdout, reason = "the driver reads these lines")]
pub(crate) fn run(plan: &Plan) -> Result<()> {
    let dir = match &plan.dir {
        Some(dir) => dir.clone(),
        None => {
            PathBuf::from(std::env::var_os("TIDEGATE_DATA").context("TIDEGATE_DATA is not set")?)
        }
    };
    let mut files = Vec::new();
    list(&dir, &mut files)?;
    files.sort();
    // What was fetched before the first pass began, and the start itself, is the first pass's.
    let mut before = Relatives::default();
    for pass in plan.passes.split(',') {
        let (shuffled, threads) = match pass.strip_prefix('s') {
            Some(threads) => (true, threads),
            None => (false, pass),
        };
        if shuffled {
            shuffle(&mut files);
        }
        before.own = cpu(std::process::id())?;
        let pass = read_all(&files, threads.parse().context("threads of a pass")?, &before)?;
        println!("{}", serde_json::to_string(&pass)?);
        before = Relatives::look()?;
    }
    Ok(())
}

fn list(dir: &Path, out: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            list(&entry.path(), out)?;
        } else {
            out.push(entry.path());
        }
    }
    Ok(())
}

fn shuffle(files: &mut [PathBuf]) {
    let mut noise = Noise(42);
    for n in (1..files.len()).rev() {
        let other = usize::try_from(noise.next() % (n as u64 + 1)).unwrap_or(0);
        files.swap(n, other);
    }
}

fn read_all(files: &[PathBuf], threads: usize, before: &Relatives) -> Result<Pass> {
    let (next, bytes) = (AtomicUsize::new(0), AtomicU64::new(0));
    let start = Instant::now();
    std::thread::scope(|scope| -> Result<()> {
        let readers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    // Page-aligned, so that the copy out of the kernel does not pay for misalignment.
                    let mut room = vec![0; REQUEST + PAGE];
                    let start = room.as_ptr().align_offset(PAGE);
                    let buffer = &mut room[start..start + REQUEST];
                    while let Some(path) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let file = File::open(path)?;
                        let mut at = 0;
                        loop {
                            let n = file.read_at(buffer, at)?;
                            if n == 0 {
                                break;
                            }
                            at += n as u64;
                        }
                        bytes.fetch_add(at, Ordering::Relaxed);
                    }
                    Ok(())
                })
            })
            .collect();
        readers
            .into_iter()
            .try_for_each(|r| r.join().unwrap_or_else(|e| std::panic::resume_unwind(e)))
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let after = Relatives::look()?;
    Ok(Pass {
        files: files.len(),
        bytes: bytes.into_inner(),
        seconds,
        reader_cpu: after.own - before.own,
        worker_cpu: after.worker - before.worker,
        parent_cpu: after.parent - before.parent,
        worker_peak: after.worker_peak,
    })
}
