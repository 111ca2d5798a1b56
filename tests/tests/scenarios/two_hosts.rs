//! Gateway and worker in two places, with a link of 40 ms round trip between them.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::io::Errno;
use tidegate_tests::dataset::{self, odd_tree};
use tidegate_tests::digest;
use tidegate_tests::process::wait_for;
use tidegate_tests::programs::{GatewayProgram, MountProgram};
use tidegate_tests::scratch::Scratch;
use tidegate_tests::wan::Wan;

const ONE_WAY: Duration = Duration::from_millis(20);
/// Several heartbeats, less than the grace.
const OUTAGE: Duration = Duration::from_secs(4);
const QUICK: &str = "heartbeat_s = 1\ngrace_s = 10";

struct Hosts {
    home: Scratch,
    wan: Wan,
    gateway: GatewayProgram,
    mount: MountProgram,
}

/// What `fill` puts at home, mounted at the other end.
fn hosts(terms: &str, rate: u64, fill: impl FnOnce(&Scratch) -> Result<()>) -> Result<Hosts> {
    let home = Scratch::new()?;
    fill(&home)?;
    let wan = Wan::start(ONE_WAY, rate)?;
    let gateway = GatewayProgram::start_at(wan.home(), &home.path().display().to_string(), terms)?;
    let join = gateway.lease("one.join", ["--from".as_ref(), home.path().as_os_str()])?;
    let mount = MountProgram::start_at(wan.cloud(), &join, &[])?;
    Ok(Hosts { home, wan, gateway, mount })
}

#[test]
fn the_tree_arrives_over_the_link_and_the_lease_closes_as_wiped() -> Result<()> {
    let hosts = hosts(QUICK, 1_000_000_000, |home| odd_tree(home.path()))?;
    digest::assert_same(&digest::tree(hosts.home.path())?, &digest::tree(hosts.mount.data())?);
    let receipt = hosts.mount.finish()?;
    assert_eq!(receipt["outcome"], "wiped", "{receipt:#}");
    Ok(())
}

/// A link that is away for less than the grace only stalls reads.
#[test]
fn a_cut_within_the_grace_is_a_pause() -> Result<()> {
    let want = dataset::bytes(7, 60 << 20);
    let hosts = hosts(QUICK, 100_000_000, |home| dataset::write(home.path(), "large", &want))?;
    let path = hosts.mount.data().join("large");
    hosts.wan.cut();
    let last = std::thread::spawn(move || -> Result<Vec<u8>> {
        let mut tail = vec![0; 1 << 20];
        fs::File::open(path)?.read_exact_at(&mut tail, 59 << 20)?;
        Ok(tail)
    });
    std::thread::sleep(OUTAGE);
    assert!(!last.is_finished(), "the link was not cut");
    hosts.wan.mend();
    let tail = last.join().map_err(|_| anyhow::anyhow!("panicked"))??;
    assert!(tail == want[59 << 20..]);
    assert!(fs::read(hosts.mount.data().join("large"))? == want);
    let receipt = hosts.mount.finish()?;
    assert_eq!(receipt["outcome"], "wiped", "{receipt:#}");
    assert_eq!(receipt["read_errors"], 0, "{receipt:#}");
    drop(hosts.gateway);
    Ok(())
}

/// One that is away for longer: the read waits for the grace and is then `EIO`, and once the link is back all is
/// read, what had come and what had not.
#[test]
fn a_cut_longer_than_the_grace_is_an_error_and_then_over() -> Result<()> {
    let want = dataset::bytes(8, 60 << 20);
    let terms = "heartbeat_s = 1\ngrace_s = 4\nsilence_s = 100";
    let hosts = hosts(terms, 40_000_000, |home| dataset::write(home.path(), "large", &want))?;
    let file = fs::File::open(hosts.mount.data().join("large"))?;
    let (mut head, mut tail) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    file.read_exact_at(&mut head, 0)?;
    hosts.wan.cut();
    let cut = Instant::now();
    file.read_exact_at(&mut head, 0)?;
    assert!(head == want[..1 << 20], "what is here is read");
    let error = file.read_at(&mut tail, 59 << 20).err().context("read what had not come")?;
    assert_eq!(error.raw_os_error(), Some(Errno::IO.raw_os_error()));
    let waited = cut.elapsed();
    assert!((2..60).contains(&waited.as_secs()), "it waited for {waited:?}");
    wait_for("what was here to fail too", || file.read_at(&mut head, 0).err())?;
    wait_for("two graces", || (cut.elapsed().as_secs() >= 9).then_some(()))?;
    hosts.wan.mend();
    wait_for("the tail", || file.read_exact_at(&mut tail, 59 << 20).ok())
        .with_context(|| hosts.mount.log())?;
    assert!(tail == want[59 << 20..]);
    drop(file);
    assert!(fs::read(hosts.mount.data().join("large"))? == want);
    let receipt = hosts.mount.finish()?;
    assert_eq!(receipt["outcome"], "wiped", "{receipt:#}");
    assert_eq!(hosts.gateway.entries("attached")?, 2);
    Ok(())
}
