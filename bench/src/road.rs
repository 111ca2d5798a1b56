//! The whole road, `tidegate run`, against the same files read from the local file system.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::data::Set;
use crate::reader::Pass;
use crate::report::Report;

/// Threads of each pass over the large files.
const LARGE_PASSES: &str = "1,1,4,1";
const GIB: f64 = (1u64 << 30) as f64;

pub(crate) fn measure(
    tidegate: &Path,
    set: &Set,
    rounds: usize,
    report: &mut Report,
) -> Result<()> {
    let (mut ours, mut local) = (Vec::new(), Vec::new());
    // Cold, then resident with one reader, then with four, then once more with one.
    for round in 0..rounds {
        local.push(read_locally(&set.large, LARGE_PASSES)?);
        set.touch_memory()?;
        ours.push(read_through(tidegate, set, &set.large, LARGE_PASSES, round)?);
    }
    let rate = |passes: &[Vec<Pass>], n: usize| -> Vec<f64> {
        passes.iter().map(|p| p[n].bytes as f64 / 1e9 / p[n].seconds).collect()
    };
    // A cold read is the gateway's and the worker's work, a resident one the worker's and the reader's.
    let ends = |p: &Pass| (p.worker_cpu + p.parent_cpu) / (p.bytes as f64 / GIB);
    let near = |p: &Pass| (p.reader_cpu + p.worker_cpu) / (p.bytes as f64 / GIB);
    let column = |n: usize, f: &dyn Fn(&Pass) -> f64| ours.iter().map(|p| f(&p[n])).collect();
    report.add(
        "cold read through the gateway, 1 reader",
        "GB/s",
        rate(&ours, 0),
        Some(("ext4 page cache", rate(&local, 1))),
        column(0, &ends),
        "≤ 2.5 both ends",
    );
    for (n, what, bar) in [
        (1, "resident read, 1 reader", "≤ 0.5"),
        (2, "resident read, 4 readers", "≤ 0.5"),
        (3, "re-read of large files, 1 reader", "–"),
    ] {
        report.add(
            what,
            "GB/s",
            rate(&ours, n),
            Some(("ext4 page cache", rate(&local, n))),
            column(n, &near),
            bar,
        );
    }
    let peaks = ours.iter().map(|p| p[3].worker_peak as f64 / (1 << 20) as f64).collect();
    report.add(
        "worker's peak RSS, large files",
        "MiB",
        peaks,
        None,
        Vec::new(),
        "≤ 512 + manifest",
    );

    let (mut ours, mut local) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        local.push(read_locally(&set.small, "s8,s8")?);
        set.touch_memory()?;
        ours.push(read_through(tidegate, set, &set.small, "s8,s8", round)?);
    }
    let files = |passes: &[Vec<Pass>], n: usize| -> Vec<f64> {
        passes.iter().map(|p| p[n].files as f64 / p[n].seconds).collect()
    };
    for (n, what) in [(0, "110 KB files shuffled, 8 threads, cold"), (1, "the same, second time")] {
        let cpu = ours.iter().map(|p| if n == 0 { ends(&p[n]) } else { near(&p[n]) }).collect();
        let reference = Some(("ext4 page cache", files(&local, 1)));
        report.add(what, "files/s", files(&ours, n), reference, cpu, "–");
    }
    let peaks = ours.iter().map(|p| p[1].worker_peak as f64 / (1 << 20) as f64).collect();
    report.add(
        "worker's peak RSS, small files",
        "MiB",
        peaks,
        None,
        Vec::new(),
        "≤ 512 + manifest",
    );
    Ok(())
}

fn read_locally(dir: &Path, passes: &str) -> Result<Vec<Pass>> {
    let me = std::env::current_exe()?;
    passes_of(Command::new(me).args(["read", "--passes", passes, "--dir"]).arg(dir))
}

fn read_through(
    tidegate: &Path,
    set: &Set,
    dir: &Path,
    passes: &str,
    round: usize,
) -> Result<Vec<Pass>> {
    let me = std::env::current_exe()?;
    let cache = set.scratch.join(format!("cache-{round}"));
    let ledger = set.scratch.join("state");
    let args: [&OsStr; 10] = [
        "run".as_ref(),
        "--from".as_ref(),
        dir.as_os_str(),
        "--cache".as_ref(),
        cache.as_os_str(),
        "--cache-size".as_ref(),
        "4GiB".as_ref(),
        "--ledger".as_ref(),
        ledger.as_os_str(),
        "--".as_ref(),
    ];
    passes_of(Command::new(tidegate).args(args).arg(me).args(["read", "--passes", passes]))
}

fn passes_of(command: &mut Command) -> Result<Vec<Pass>> {
    let output = command.stdin(Stdio::null()).output().context("cannot start the reader")?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    String::from_utf8(output.stdout)?
        .lines()
        .map(|line| serde_json::from_str(line).context("the reader's line"))
        .collect()
}
