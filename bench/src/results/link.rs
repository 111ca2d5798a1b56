//! Results over a shaped link: a gateway at home, a worker 20 ms away, a gigabit between them.

use std::time::Duration;

use anyhow::Result;
use tidegate_tests::programs::MountProgram;
use tidegate_tests::results::{Desk, Home};
use tidegate_tests::wan::Wan;

use super::{GIB, LARGE, SMALL, SMALL_BYTES};
use crate::relatives::cpu;
use crate::report::Report;
use crate::writer::{Plan, write_all};

const ONE_WAY: Duration = Duration::from_millis(10);
/// Bits a second.
const RATE: u64 = 1_000_000_000;

pub(super) fn measure(large_mib: u64, rounds: usize, report: &mut Report) -> Result<()> {
    let large = usize::try_from(large_mib << 20)? / LARGE;
    let large = Plan { files: LARGE, bytes: large, threads: 1, dir: None };
    let small = Plan { files: SMALL, bytes: SMALL_BYTES, threads: 8, dir: None };
    let (mut rates, mut cpus, mut files) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let link = Link::start()?;
        let before = cpu(link.mount.worker()?)?;
        let (seconds, bytes) = link.write("large", &large)?;
        let spent = cpu(link.mount.worker()?)? - before;
        rates.push(bytes as f64 / 1e9 / seconds);
        cpus.push(spent / (bytes as f64 / GIB));
        let (seconds, _) = link.write("small", &small)?;
        files.push(SMALL as f64 / seconds);
        link.end()?;
    }
    let link = vec![RATE as f64 / 8e9; rounds];
    report.add(
        "results: large files over 1 Gbit/s, 20 ms round trip",
        "GB/s",
        rates,
        Some(("the link", link)),
        cpus,
        "≥ 0.8 of the link",
    );
    let what = "results: 5,000 files of 20 KB over it, 8 threads";
    report.add(what, "files/s", files, None, Vec::new(), "–");
    Ok(())
}

struct Link {
    mount: MountProgram,
    desk: Desk,
    _wan: Wan,
}

impl Link {
    fn start() -> Result<Self> {
        let wan = Wan::start(ONE_WAY, RATE)?;
        let desk = Desk::start_in(Some(wan.home()), Home::directory()?, "")?;
        let join = desk.lease("one.join", &[])?;
        let mount = MountProgram::with_results_at(wan.cloud(), &join, &[])?;
        Ok(Self { mount, desk, _wan: wan })
    }

    fn write(&self, name: &str, plan: &Plan) -> Result<(f64, u64)> {
        let dir = self.mount.results().join(name);
        std::fs::create_dir(&dir)?;
        write_all(&dir, plan)
    }

    fn end(self) -> Result<()> {
        self.mount.finish()?;
        drop(self.desk);
        Ok(())
    }
}
