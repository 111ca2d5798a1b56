//! Leases over a link of 40 ms while replicas are killed and stopped, and the link is cut and slowed,
//! at random. A sample runs every time; `TIDEGATE_SOAK_SECONDS` makes it as long as one likes.

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use tidegate_tests::dataset::{self, Dice};
use tidegate_tests::digest;
use tidegate_tests::process::{descendants, rss};
use tidegate_tests::programs::{MountProgram, lease_of};
use tidegate_tests::site::{Site, entries_of};
use tidegate_tests::wan::Wan;

const LEASES: u64 = 4;
const SAMPLE_S: u64 = 40;
const RATE: u64 = 1_000_000_000;
const SLOW: u64 = 40_000_000;
/// Longer than any fault below, with time to find another gateway.
const TERMS: &str = "heartbeat_s = 2\ngrace_s = 45\n";
/// What a worker may grow by after its first pass: allocator slack, not growth.
const SLACK: u64 = 48 << 20;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Faults, one after the other, until the time is over.
fn disturb(site: &mut Site, wan: &Wan, dice: &mut Dice, until: Instant) -> Result<()> {
    let pause = |dice: &mut Dice, most: u64| {
        std::thread::sleep(Duration::from_millis(500 + dice.below(most)));
    };
    while Instant::now() < until {
        pause(dice, 4_000);
        let victim = usize::try_from(dice.below(2))?;
        match dice.below(8) {
            0 => {
                wan.cut();
                pause(dice, 5_000);
                wan.mend();
            }
            1 => {
                wan.set_rate(SLOW);
                pause(dice, 5_000);
                wan.set_rate(RATE);
            }
            2 => {
                site.gateways[victim].process().signal(Signal::STOP)?;
                pause(dice, 12_000);
                site.gateways[victim].process().signal(Signal::CONT)?;
            }
            3 => {
                // Down for a while, not only for a moment.
                site.gateways[victim].process().stop(Signal::KILL)?;
                pause(dice, 5_000);
                site.gateways[victim].restart()?;
            }
            _ => site.gateways[victim].crash_and_restart()?,
        }
    }
    Ok(())
}

/// Reads everything again and again; what a worker weighs after each pass.
fn read(
    mount: &MountProgram,
    want: &[String],
    stop: &AtomicBool,
    passes: &AtomicU64,
) -> Result<()> {
    let mut first = None;
    while !stop.load(Ordering::Relaxed) {
        let got = digest::tree(mount.data()).context("a read failed")?;
        ensure!(got == want, "other bytes were read");
        passes.fetch_add(1, Ordering::Relaxed);
        let weight = rss(mount.worker()?)?;
        let first = *first.get_or_insert(weight);
        ensure!(weight < first + SLACK, "a worker grew from {first} to {weight} bytes");
    }
    Ok(())
}

fn check(entries: &[Value], join: &Path, receipt: &Value) -> Result<()> {
    let lease = lease_of(join)?;
    assert_eq!(receipt["outcome"], "wiped", "{receipt:#}");
    assert_eq!(receipt["read_errors"], 0, "{receipt:#}");
    let releases = entries_of(entries, "keys-released", &lease);
    let epochs: HashSet<u64> =
        releases.iter().filter_map(|entry| entry["event"]["epoch"].as_u64()).collect();
    ensure!(!epochs.is_empty() && epochs.len() == releases.len(), "{releases:#?}");
    // A replica that died between its revision and its entry released nothing.
    let counted = receipt["certificate"]["observed"]["releases"].as_u64().unwrap_or_default();
    ensure!(epochs.len() as u64 <= counted, "{} entries, {counted} releases", epochs.len());
    // Its worker read every block, so the key of each was released: by an entry, or against P8.
    let range = |entry: &&Value| {
        let bound = |name| entry["event"][name].as_u64().unwrap_or_default();
        bound("first_block")..bound("end_block")
    };
    let recorded: HashSet<u64> = releases.iter().flat_map(range).collect();
    let granted = entries_of(entries, "lease-granted", &lease);
    let blocks = granted[0]["event"]["blocks"].as_u64().unwrap_or_default();
    ensure!(blocks > 0 && (0..blocks).all(|block| recorded.contains(&block)), "{releases:#?}");
    ensure!(!entries_of(entries, "lease-closed", &lease).is_empty(), "{lease} is not closed");
    Ok(())
}

#[test]
fn no_read_fails_while_replicas_die_and_the_link_breaks() -> Result<()> {
    let seed = number("TIDEGATE_SOAK_SEED", u64::from(getrandom::u32()?));
    let length = Duration::from_secs(number("TIDEGATE_SOAK_SECONDS", SAMPLE_S));
    println!("seed {seed}: TIDEGATE_SOAK_SEED={seed} chooses the same faults again");
    let wan = Wan::start(Duration::from_millis(20), RATE)?;
    let mut site = Site::start(Some(wan.home()), 2, TERMS, |home| {
        dataset::flat(home.path(), 12, (4 << 20) + 5, 640)?;
        dataset::flat(&home.dir("small")?, 200, 9_000, 641)
    })?;
    let want = digest::tree(site.home.path())?;
    let joins = (0..LEASES)
        .map(|n| site.lease(usize::try_from(n % 2)?, &format!("{n}.join")))
        .collect::<Result<Vec<_>>>()?;
    let mounts = joins
        .iter()
        .map(|join| MountProgram::start_at(wan.cloud(), join, &["--cache-size", "24MiB"]))
        .collect::<Result<Vec<_>>>()?;
    let (stop, passes) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let readers: Vec<_> =
            mounts.iter().map(|mount| scope.spawn(|| read(mount, &want, &stop, &passes))).collect();
        let disturbed = disturb(&mut site, &wan, &mut Dice::new(seed), Instant::now() + length);
        stop.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.join().map_err(|_| anyhow::anyhow!("a reader panicked"))??;
        }
        disturbed
    })
    .with_context(|| format!("seed {seed}"))?;
    println!("{} passes in {} s", passes.load(Ordering::Relaxed), length.as_secs());
    ensure!(passes.load(Ordering::Relaxed) >= LEASES, "seed {seed}: a mount was never read whole");
    let receipts = mounts.into_iter().map(MountProgram::finish).collect::<Result<Vec<_>>>()?;
    let entries = site.ledger()?;
    for (join, receipt) in joins.iter().zip(&receipts) {
        check(&entries, join, receipt).with_context(|| format!("seed {seed}"))?;
    }
    for gateway in &mut site.gateways {
        let weight = rss(gateway.process().pid())?;
        ensure!(weight < 400 << 20, "a gateway weighs {weight} bytes");
        ensure!(descendants(gateway.process().pid()).is_empty(), "a gateway has children");
    }
    Ok(())
}
