//! The job's side of results: writes files, makes each durable, and prints one JSON line.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::data::Noise;
use crate::relatives::{Relatives, cpu};

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Plan {
    #[arg(long)]
    pub(crate) files: usize,
    /// Of each file.
    #[arg(long)]
    pub(crate) bytes: usize,
    #[arg(long, default_value_t = 1)]
    pub(crate) threads: usize,
    /// Where to; default `$TIDEGATE_RESULTS`.
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
}

/// What was written, and what that cost.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Wrote {
    pub(crate) files: usize,
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
    /// CPU seconds of the writer, of the worker, and of the parent (gateway and holder).
    pub(crate) writer_cpu: f64,
    pub(crate) worker_cpu: f64,
    pub(crate) parent_cpu: f64,
    /// Peak resident set of the worker in bytes, since it started.
    pub(crate) worker_peak: u64,
}

/// Bytes a write.
const REQUEST: usize = 1 << 20;
const PAGE: usize = 4096;

#[allow(clippy::print_stdout, reason = "the driver reads this line")]
pub(crate) fn run(plan: &Plan) -> Result<()> {
    let dir = match &plan.dir {
        Some(dir) => dir.clone(),
        None => std::env::var_os("TIDEGATE_RESULTS").context("TIDEGATE_RESULTS is not set")?.into(),
    };
    let before = Relatives::look()?;
    let (seconds, bytes) = write_all(&dir, plan)?;
    let after = Relatives::look()?;
    let wrote = Wrote {
        files: plan.files,
        bytes,
        seconds,
        writer_cpu: cpu(std::process::id())? - before.own,
        worker_cpu: after.worker - before.worker,
        parent_cpu: after.parent - before.parent,
        worker_peak: after.worker_peak,
    };
    println!("{}", serde_json::to_string(&wrote)?);
    Ok(())
}

/// Writes all files, each with an `fsync` before its `close`; seconds and bytes.
pub(crate) fn write_all(dir: &Path, plan: &Plan) -> Result<(f64, u64)> {
    // Page-aligned, so that the copy into the kernel does not pay for misalignment; made before time runs.
    let mut room = vec![0; REQUEST + PAGE];
    let start = room.as_ptr().align_offset(PAGE);
    Noise(0x5851_f42d_4c95_7f2d).fill(&mut room[start..start + REQUEST]);
    let piece = &room[start..start + REQUEST];
    let next = AtomicUsize::new(0);
    let began = Instant::now();
    let work = || -> Result<()> {
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= plan.files {
                return Ok(());
            }
            let folder = dir.join(format!("{:02}", n % 50));
            fs::create_dir_all(&folder)?;
            let mut file = File::create(folder.join(format!("{n:06}.bin")))?;
            let mut left = plan.bytes;
            while left > 0 {
                let len = left.min(REQUEST);
                file.write_all(&piece[..len])?;
                left -= len;
            }
            file.sync_all()?;
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..plan.threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })?;
    Ok((began.elapsed().as_secs_f64(), (plan.files * plan.bytes) as u64))
}
