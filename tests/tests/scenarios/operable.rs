//! What operators get: metrics that Prometheus takes, health, log lines that name their lease, an
//! orderly end, and answers for machines.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::process::Signal;
use serde_json::Value;
use tidegate_tests::ops::{Ops, promtool};
use tidegate_tests::process::{Process, signal_pid, wait_for};
use tidegate_tests::programs::{GatewayProgram, MountProgram, lease_of};
use tidegate_tests::scratch::Scratch;
use tidegate_tests::{dataset, digest, part, port};

/// Longer than the gateway gives requests under way.
const AT_MOST: Duration = Duration::from_secs(60);

struct Site {
    home: Scratch,
    gateway: GatewayProgram,
    ops: Ops,
}

impl Site {
    fn new(extra: &str) -> Result<Self> {
        let home = Scratch::new()?;
        dataset::flat(home.path(), 6, 3 << 20, 70)?;
        let ops = Ops(port::free()?);
        let extra = format!("{extra}\nops_listen = \"127.0.0.1:{}\"", ops.0);
        let gateway = GatewayProgram::start(&home.path().display().to_string(), &extra)?;
        Ok(Self { home, gateway, ops })
    }

    fn lease(&self) -> Result<PathBuf> {
        self.gateway.lease("one.join", ["--from".as_ref(), self.home.path().as_os_str()])
    }

    /// A mount with a listener for operators.
    fn mount(&self, join: &Path) -> Result<(MountProgram, Ops)> {
        let ops = Ops(port::free()?);
        Ok((MountProgram::start(join, &["--ops", &format!("127.0.0.1:{}", ops.0)])?, ops))
    }
}

#[test]
fn both_daemons_show_metrics_that_prometheus_takes_and_that_name_nobody() -> Result<()> {
    let mut site = Site::new("heartbeat_s = 1\ngrace_s = 30")?;
    assert_eq!(["/livez", "/startupz", "/readyz"].map(|path| site.ops.status(path)), [200; 3]);
    let join = site.lease()?;
    let (mount, worker) = site.mount(&join)?;
    digest::assert_same(&digest::contents(site.home.path())?, &digest::contents(mount.data())?);
    assert_eq!(["/livez", "/startupz", "/readyz"].map(|path| worker.status(path)), [200; 3]);
    assert_eq!(worker.status("/"), 404);

    let size = (6 * (3 << 20)) as f64;
    let home = wait_for("the blocks to be counted", || {
        let metrics = site.ops.metrics().ok()?;
        let sent = metrics.get("tidegate_gateway_sealed_bytes_sent_total")?;
        (*sent >= size).then_some(metrics)
    })?;
    for (name, value) in [
        ("tidegate_gateway_ready", 1.0),
        ("tidegate_gateway_leases{phase=\"active\"}", 1.0),
        ("tidegate_gateway_leases{phase=\"granted\"}", 0.0),
        ("tidegate_gateway_workers", 1.0),
        ("tidegate_gateway_attachments_total", 1.0),
        ("tidegate_gateway_strangers_refused_total", 0.0),
    ] {
        assert_eq!(home.get(name), Some(&value), "{name} in {home:#?}");
    }
    assert!(home["tidegate_ledger_entries"] >= 4.0);
    assert!(home["tidegate_gateway_served_total{what=\"block\"}"] >= 5.0);
    let node = worker.metrics()?;
    assert_eq!(node["tidegate_worker_read_bytes_total"], size);
    assert_eq!(node["tidegate_worker_resident_blocks"], node["tidegate_worker_share_blocks"]);
    assert!(node["tidegate_worker_grace_left_seconds"] > 20.0, "{node:#?}");

    let lease = lease_of(&join)?;
    let known = documented()?;
    for text in [site.ops.text()?, worker.text()?] {
        promtool(&text)?;
        for secret in [lease.as_str(), &site.home.path().display().to_string(), "uid ", ".bin"] {
            assert!(!text.contains(secret), "{secret} in:\n{text}");
        }
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let name = line.split(' ').next().unwrap_or_default();
            assert!(known.iter().any(|known| known == name), "{name} is not in docs/metrics.md");
        }
    }

    // A worker that is killed is replaced, and the sums go on; what it had not told yet is lost.
    signal_pid(mount.worker()?, Signal::KILL)?;
    digest::assert_same(&digest::contents(site.home.path())?, &digest::contents(mount.data())?);
    wait_for("the next worker", || {
        let metrics = worker.metrics().ok()?;
        (metrics.get("tidegate_worker_replaced_total") == Some(&1.0)
            && metrics["tidegate_worker_read_bytes_total"] > 0.0)
            .then_some(())
    })?;
    wait_for("it to be ready", || (worker.status("/readyz") == 200).then_some(()))?;
    mount.finish()?;
    assert_eq!(worker.status("/livez"), 0, "it ends with its program");
    let status = site.gateway.process().stop(Signal::TERM)?;
    assert_eq!(status.code(), Some(0), "{}", site.gateway.log());
    Ok(())
}

/// The names in the tables of docs/metrics.md.
fn documented() -> Result<Vec<String>> {
    let text = fs::read_to_string(part::repository().join("docs/metrics.md"))?;
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    Ok(rows.filter_map(|row| Some(row.split_once('`')?.0.to_owned())).collect())
}

#[test]
fn readiness_follows_the_state_and_the_link() -> Result<()> {
    let mut site = Site::new("heartbeat_s = 1\ngrace_s = 5")?;
    let join = site.lease()?;
    let (_mount, worker) = site.mount(&join)?;
    wait_for("the worker to be ready", || (worker.status("/readyz") == 200).then_some(()))?;
    let (state, away) = (site.gateway.state().join("ledger"), site.gateway.state().join("away"));
    fs::rename(&state, &away)?;
    wait_for("the gateway not to be ready", || (site.ops.status("/readyz") == 503).then_some(()))?;
    assert_eq!((site.ops.status("/livez"), site.ops.status("/startupz")), (200, 200));
    assert_eq!(site.ops.metrics()?["tidegate_gateway_ready"], 0.0);
    fs::rename(&away, &state)?;
    wait_for("the gateway to be ready again", || {
        (site.ops.status("/readyz") == 200).then_some(())
    })?;

    site.gateway.process().signal(Signal::STOP)?;
    wait_for("the worker not to be ready", || (worker.status("/readyz") == 503).then_some(()))?;
    assert_eq!(worker.status("/livez"), 200);
    site.gateway.process().signal(Signal::CONT)?;
    Ok(())
}

/// Requests under way are finished, new ones refused, and the end does not wait for ever.
#[test]
fn a_gateway_that_is_ended_finishes_what_is_under_way() -> Result<()> {
    let mut site = Site::new("rate_limit = 2000000")?;
    let join = site.lease()?;
    let (mount, worker) = site.mount(&join)?;
    let path = mount.data().join("00003.bin");
    let want = fs::read(site.home.path().join("00003.bin"))?;
    let reading = std::thread::spawn(move || -> Result<Vec<u8>> {
        let mut bytes = vec![0; 1 << 20];
        fs::File::open(path)?.read_exact_at(&mut bytes, 2 << 20)?;
        Ok(bytes)
    });
    wait_for("a block to be under way", || {
        let metrics = site.ops.metrics().ok()?;
        (metrics["tidegate_gateway_sealed_bytes_sent_total"] > 500_000.0).then_some(())
    })?;
    let began = Instant::now();
    let status = site.gateway.process().stop(Signal::TERM)?;
    assert_eq!(status.code(), Some(0), "{}", site.gateway.log());
    assert!(began.elapsed() < AT_MOST, "{:?}", began.elapsed());
    assert!(!site.gateway.log().contains("cut off"), "{}", site.gateway.log());
    let fetched = worker.metrics()?;
    let whole = fetched["tidegate_worker_fetched_blocks_total"];
    assert!(whole >= 1.0, "what was under way did not come whole: {fetched:#?}");
    // A new process goes on with the lease, and the read gets its bytes.
    site.gateway.restart()?;
    let got = reading.join().map_err(|_| anyhow::anyhow!("panicked"))??;
    assert!(got == want[2 << 20..]);
    mount.finish()?;
    Ok(())
}

#[test]
fn a_worker_that_takes_nothing_does_not_keep_a_gateway_from_its_end() -> Result<()> {
    let mut site = Site::new("heartbeat_s = 10\ngrace_s = 120\nrate_limit = 2000000")?;
    let join = site.lease()?;
    let (mount, _) = site.mount(&join)?;
    wait_for("blocks to be under way", || {
        let metrics = site.ops.metrics().ok()?;
        (metrics["tidegate_gateway_sealed_bytes_sent_total"] > 200_000.0).then_some(())
    })?;
    let worker = mount.worker()?;
    signal_pid(worker, Signal::STOP)?;
    let began = Instant::now();
    let status = site.gateway.process().stop(Signal::TERM)?;
    assert_eq!(status.code(), Some(0), "{}", site.gateway.log());
    assert!(began.elapsed() < AT_MOST, "{:?}", began.elapsed());
    signal_pid(worker, Signal::CONT)?;
    Ok(())
}

/// Lines that are about the process, not about any lease.
const ABOUT_NO_LEASE: [&str; 3] = ["the gateway listens", "handshake", "admin connection"];

#[test]
fn every_line_about_a_lease_names_it() -> Result<()> {
    let mut site = Site::new("heartbeat_s = 1\ngrace_s = 30\nlog.format = \"json\"")?;
    let join = site.lease()?;
    let lease = lease_of(&join)?;
    let scratch = Scratch::new()?;
    let (at, cache) = (scratch.dir("data")?, scratch.dir("cache")?);
    let mut command = Command::new(part::tidegate()?);
    command
        .args(["--log-format", "json", "mount", "--join"])
        .arg(&join)
        .arg("--at")
        .arg(&at)
        .arg("--cache")
        .arg(&cache)
        .env("TIDEGATE_LOG", "tidegate=debug,tidegate_fuse_cache=debug,tidegate_kit=debug");
    let mut mount = Process::start("mount", &mut command, scratch.path())?;
    mount.wait_ready(|mount| mount.log().contains(" files, "))?;
    digest::contents(&at)?;
    // Something to say: a file that is not as it was, a worker that dies.
    fs::write(site.home.path().join("00001.bin"), b"changed")?;
    let worker = tidegate_tests::process::descendants(mount.pid()).into_iter().find(|pid| {
        tidegate_tests::process::command_line(*pid).get(1).is_some_and(|word| word == "worker")
    });
    signal_pid(worker.context("no worker runs")?, Signal::KILL)?;
    wait_for("the worker to be missed", || mount.log().contains("the worker died").then_some(()))?;
    digest::contents(&at)?;
    assert!(mount.stop(Signal::TERM)?.success(), "{}", mount.log());
    site.gateway.process().stop(Signal::TERM)?;

    let told = lines(&mount.log())?;
    assert!(told.len() > 1, "{}", mount.log());
    for line in &told {
        // A worker protects its memory before it reads what it is for.
        if line["target"] != "tidegate_fuse_cache::worker::harden" {
            assert_eq!(line["lease"], lease.as_str(), "{line}");
            assert_eq!(line["rank"], 0, "{line}");
        }
    }
    let told = lines(&site.gateway.log())?;
    let named = told.iter().filter(|line| line["lease"] == lease.as_str()).count();
    assert!(named >= 3, "{}", site.gateway.log());
    for line in &told {
        let message = line["message"].as_str().unwrap_or_default();
        let of_none = ABOUT_NO_LEASE.iter().any(|known| message.contains(known));
        assert!(of_none || line["lease"] == lease.as_str(), "{line}");
    }
    Ok(())
}

/// The lines of a log that the program wrote with its logger: each must be an object.
fn lines(log: &str) -> Result<Vec<Value>> {
    let plain = |line: &&str| !line.starts_with("tidegate: ") && line.starts_with('{');
    log.lines()
        .filter(plain)
        .map(|line| serde_json::from_str(line).with_context(|| line.to_owned()))
        .collect()
}

#[test]
fn status_and_leases_are_told_to_people_and_to_machines() -> Result<()> {
    let site = Site::new("heartbeat_s = 1\ngrace_s = 30")?;
    let join = site.lease()?;
    let lease = lease_of(&join)?;
    let (mount, _) = site.mount(&join)?;
    fs::read(mount.data().join("00000.bin"))?;
    let parse = |text: String| -> Result<Value> { Ok(serde_json::from_str(&text)?) };
    let shown = wait_for("a heartbeat with what was read", || {
        let shown = site.gateway.show(&join).ok()?;
        (shown["workers"][0]["counters"]["bytes_read"].as_u64()? > 0).then_some(shown)
    })?;
    for key in [
        "deadline",
        "granted_at",
        "released_bytes",
        "released_blocks",
        "last_release_at",
        "sent_bytes",
    ] {
        assert!(shown[key].as_u64().is_some_and(|value| value > 0), "{key}: {shown:#}");
    }
    assert_eq!((&shown["phase"], &shown["ranks"]), (&"active".into(), &1.into()));
    let worker = &shown["workers"][0];
    let status = parse(site.gateway.ask(&["--json", "status"])?)?;
    assert_eq!(worker["keeper"], status["replica"], "{worker:#}");
    assert!(worker["last_seen"].as_u64() >= worker["attached_at"].as_u64());
    assert_eq!((&status["open_leases"], &status["workers"]), (&1.into(), &1.into()));
    assert!(status["ledger"]["entries"].as_u64() >= Some(4), "{status:#}");
    assert!(status["ledger"]["checkpoint"].as_str().is_some_and(|note| note.contains('\n')));
    let listed = parse(site.gateway.ask(&["--json", "lease", "list"])?)?;
    assert_eq!(listed["lease"], lease.as_str());
    for (words, said) in [
        (vec!["status"], "1 open of at most"),
        (vec!["lease", "list"], "PHASE"),
        (vec!["lease", "list"], &lease[..]),
    ] {
        let text = site.gateway.ask(&words)?;
        assert!(text.contains(said), "{said:?} in {text}");
    }
    mount.finish()?;
    let shown = site.gateway.show(&join)?;
    assert_eq!((&shown["phase"], &shown["ending"]["cause"]), (&"wiped".into(), &"drained".into()));
    assert!(shown["key_destroyed_at"].is_u64(), "{shown:#}");
    Ok(())
}
