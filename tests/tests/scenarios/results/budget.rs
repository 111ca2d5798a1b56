//! How much may come home, and to where.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use rustix::fs::statvfs;
use rustix::io::Errno;
use rustix::process::Signal;
use tidegate_tests::dataset;
use tidegate_tests::process::{signal_pid, wait_for};
use tidegate_tests::programs::{GatewayProgram, MountProgram, lease_of};
use tidegate_tests::results::{Desk, Home};
use tidegate_tests::scratch::Scratch;
use tidegate_tests::tidegate::Run;

/// Writes a file; the error of whichever call had one, `close` left out as the library does.
fn write(at: &Path, len: usize) -> Option<Errno> {
    let attempt = || -> std::io::Result<()> {
        let mut file = File::create(at)?;
        file.write_all(&dataset::bytes(len as u64, len))?;
        file.sync_all()
    };
    attempt().err().and_then(|error| Errno::from_io_error(&error))
}

/// Entries of refusals for that reason.
fn refused(desk: &Desk, join: &Path) -> Result<usize> {
    let words = ["--json", "audit", "list", "--ledger"].map(std::ffi::OsString::from);
    let words = words.into_iter().chain([desk.ledger().into_os_string()]);
    let listed = tidegate_tests::programs::succeed(tidegate_tests::tidegate::tidegate(words)?)?;
    let lease = lease_of(join)?;
    let of = |line: &&str| line.contains("\"results-budget\"") && line.contains(&lease);
    Ok(listed.lines().filter(of).count())
}

#[test]
fn r19_more_bytes_than_granted_are_edquot_and_in_the_ledger() -> Result<()> {
    for home in [Home::directory()?, Home::versitygw()?] {
        let desk = Desk::start(home, "")?;
        let join = desk.lease("one.join", &["--results-bytes", "3MiB"])?;
        let mount = MountProgram::with_results(&join, &[])?;
        let at = mount.results();
        assert_eq!(write(&at.join("fits"), 1 << 20), None);
        assert_eq!(write(&at.join("fits too"), 1 << 20), None);
        assert_eq!(write(&at.join("too much"), 2 << 20), Some(Errno::DQUOT));
        // What is stored again counts again, and what was stored stays.
        assert_eq!(write(&at.join("fits"), 1 << 20), None);
        assert_eq!(write(&at.join("more"), 1 << 20), Some(Errno::DQUOT));
        // What cannot come home may be removed.
        fs::remove_file(at.join("too much"))?;
        fs::remove_file(at.join("more"))?;
        let look = desk.home.look()?;
        assert_eq!(look.read("fits too")?.map(|bytes| bytes.len()), Some(1 << 20));
        ensure!(look.read("fits")?.is_some_and(|it| it == dataset::bytes(1 << 20, 1 << 20)));
        assert_eq!((look.read("too much")?, look.read("more")?), (None, None));
        ensure!(refused(&desk, &join)? >= 1, "the ledger does not say so");
        ensure!(look.unfinished()?.is_empty(), "{:?}", look.unfinished()?);
    }
    Ok(())
}

#[test]
fn r19_more_files_than_granted_are_edquot() -> Result<()> {
    let desk = Desk::start(Home::directory()?, "")?;
    let join = desk.lease("one.join", &["--results-files", "3"])?;
    let mount = MountProgram::with_results(&join, &[])?;
    for n in 0..3 {
        assert_eq!(write(&mount.results().join(format!("{n}")), 10), None);
    }
    assert_eq!(write(&mount.results().join("3"), 10), Some(Errno::DQUOT));
    ensure!(refused(&desk, &join)? >= 1, "the ledger does not say so");
    Ok(())
}

/// What is left of the budget is what a file system of that size has free.
#[test]
fn r18_statfs_gives_what_is_left() -> Result<()> {
    let desk = Desk::start(Home::directory()?, "")?;
    let mount =
        desk.mount("one.join", &["--results-bytes", "8MiB", "--results-files", "9"], &[])?;
    let left = || -> Result<(u64, u64)> {
        let stat = statvfs(mount.results())?;
        Ok((stat.f_bavail * stat.f_frsize, stat.f_favail))
    };
    let before = left()?;
    ensure!((7 << 20..=8 << 20).contains(&before.0), "{before:?}");
    assert_eq!(write(&mount.results().join("file"), 3 << 20), None);
    let after = left()?;
    ensure!((4 << 20..=5 << 20).contains(&after.0), "{after:?}");
    ensure!(after.1 < before.1, "{before:?}, {after:?}");
    let worker = mount.worker()?;
    signal_pid(worker, Signal::KILL)?;
    wait_for("another worker", || mount.worker().ok().filter(|pid| *pid != worker))?;
    assert_eq!(left()?, after, "its successor knows the same");
    mount.finish()?;
    Ok(())
}

/// The configuration bounds what a lease may ask for, or what it gets.
#[test]
fn the_configuration_bounds_every_lease() -> Result<()> {
    let desk = Desk::start(Home::directory()?, "limits.results_files = 2")?;
    let mount = desk.mount("one.join", &[], &[])?;
    for n in 0..2 {
        assert_eq!(write(&mount.results().join(format!("{n}")), 10), None);
    }
    assert_eq!(write(&mount.results().join("2"), 10), Some(Errno::DQUOT));
    Ok(())
}

/// A rate limits and fails nothing.
#[test]
fn a_rate_slows_results_down() -> Result<()> {
    let desk = Desk::start(Home::directory()?, "results.rate = 4000000")?;
    let mount = desk.mount("one.join", &[], &[])?;
    let began = std::time::Instant::now();
    for n in 0..4 {
        assert_eq!(write(&mount.results().join(format!("{n}")), 4_000_000), None);
    }
    let took = began.elapsed().as_secs_f64();
    ensure!((1.5..30.0).contains(&took), "16 MB at 4 MB/s took {took} s");
    mount.finish()?;
    Ok(())
}

/// What a gateway says to a lease whose results would go to a place.
fn told(gateway: &GatewayProgram, from: &Path, results: &str) -> Result<String> {
    let words = ["--from", &from.display().to_string(), "--results", results].map(str::to_owned);
    let outcome = gateway.lease("refused.join", words);
    let error = outcome.err().with_context(|| format!("results to {results} were granted"))?;
    Ok(format!("{error:#}"))
}

#[test]
fn a_home_that_is_not_allowed_is_refused() -> Result<()> {
    let desk = Desk::start(Home::directory()?, "")?;
    let (gateway, data) = (&desk.gateway, desk.data.path());
    let elsewhere = Scratch::new()?;
    symlink(elsewhere.path(), desk.home.path().join("link"))?;
    let home = desk.home.place();
    for place in [
        elsewhere.path().display().to_string(),
        format!("{home}/../elsewhere"),
        format!("{home}/link"),
        format!("{home}/several/missing"),
        "/".to_owned(),
        "relative".to_owned(),
        "s3://bucket/prefix".to_owned(),
        gateway.state().display().to_string(),
        data.display().to_string(),
    ] {
        let said = told(gateway, data, &place)?;
        ensure!(!said.contains("panicked"), "{place}: {said}");
    }
    ensure!(fs::read_dir(elsewhere.path())?.next().is_none(), "something was written elsewhere");
    ensure!(!desk.home.path().join("several").exists(), "half of a home was made");
    // A lease without results has none, and a folder below the home is as good as the home.
    fs::create_dir(desk.home.path().join("below"))?;
    let below = format!("{home}/below");
    let from = data.display().to_string();
    gateway.lease("below.join", ["--from", &from, "--results", &below])?;
    Ok(())
}

/// Nobody reads what they write, nor writes over what they read.
#[test]
fn a_home_that_overlaps_the_dataset_is_refused() -> Result<()> {
    let data = Scratch::new()?;
    dataset::flat(&data.dir("set/inner")?, 2, 1000, 1)?;
    let root = data.path().display().to_string();
    let gateway = GatewayProgram::start(&root, &format!("results.allow = [\"{root}\"]"))?;
    for place in ["set", "set/inner", ""] {
        let place = data.path().join(place).display().to_string();
        let said = told(&gateway, &data.join("set"), &place)?;
        ensure!(said.contains("where data lies"), "{place}: {said}");
    }
    // The same of `run`, which allows its own home by itself.
    let run = Run::from_dir(&data.join("set"))?.arg("--results").arg(data.join("set/inner"));
    let outcome = run.shell("touch \"$TIDEGATE_RESULTS/file\"").finish()?;
    ensure!(!outcome.status.success(), "{}", outcome.stderr);
    ensure!(!data.join("set/inner/file").exists(), "it was written");
    outcome.expect_nothing_left()
}
