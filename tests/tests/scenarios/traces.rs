//! Spans at a collector: those of a lease, with nothing that names data; and a collector in trouble is
//! nobody else's.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::io::Errno;
use rustix::process::Signal;
use serde_json::Value;
use tidegate_tests::collector::{Collector, SILENT};
use tidegate_tests::process::wait_for;
use tidegate_tests::programs::{GatewayProgram, MountProgram, lease_of};
use tidegate_tests::scratch::Scratch;
use tidegate_tests::{dataset, digest, port};

/// Longer than an exporter waits for its collector at its end.
const AT_MOST: Duration = Duration::from_secs(30);

fn gateway(home: &Path, collector: &str) -> Result<GatewayProgram> {
    let endpoint = format!("OTEL_EXPORTER_OTLP_ENDPOINT={collector}");
    // What waits is sent five times a second, and nothing is waited for longer than a second.
    let words =
        ["env", &endpoint, "OTEL_BSP_SCHEDULE_DELAY=200", "OTEL_EXPORTER_OTLP_TIMEOUT=1000"];
    GatewayProgram::start_behind(&words, &home.display().to_string(), "heartbeat_s = 1\n")
}

#[test]
fn spans_of_a_lease_arrive_and_name_no_data() -> Result<()> {
    let home = Scratch::new()?;
    dataset::write(home.path(), "name-of-good", &dataset::bytes(1, 5 << 20))?;
    dataset::write(home.path(), "name-of-changed", &dataset::bytes(2, 5 << 20))?;
    let collector = Collector::start(200)?;
    let mut gateway = gateway(home.path(), &collector.url())?;
    let join = gateway.lease("one.join", ["--from".as_ref(), home.path().as_os_str()])?;
    // Something to say that names a file.
    fs::write(home.join("name-of-changed"), b"changed")?;
    let mount = MountProgram::start(&join, &[])?;
    let error = fs::read(mount.data().join("name-of-changed")).err().context("read")?;
    assert_eq!(error.raw_os_error(), Some(Errno::STALE.raw_os_error()), "{error}");
    ensure!(fs::read(mount.data().join("name-of-good"))? == dataset::bytes(1, 5 << 20));
    mount.finish()?;
    let lease = lease_of(&join)?;
    wait_for("spans of the lease", || collector.has(&lease).then_some(()))?;
    // What waited is sent at the end.
    let status = gateway.process().stop(Signal::TERM)?;
    assert_eq!(status.code(), Some(0), "{}", gateway.log());
    for there in [
        "application/x-protobuf",
        "service.name",
        "tidegate-gateway",
        "/v1/attach",
        "/v1/leases/{lease}/keys",
        "/v1/leases/{lease}/blocks/{block}",
        "/v1/leases/{lease}/wipe-certificate",
    ] {
        ensure!(collector.has(there), "no {there} among {} posts", collector.lines().len());
    }
    for line in collector.lines() {
        assert_eq!(line, "POST /v1/traces HTTP/1.1");
    }
    ensure!(gateway.log().contains("name-of-changed"), "the log names it: {}", gateway.log());
    let file: Value = serde_json::from_slice(&fs::read(&join)?)?;
    let secret = file["secret"].as_str().context("no secret in the join file")?;
    let from = home.path().display().to_string();
    for absent in ["name-of", secret, &from, "uid ", ".rs", "/root", "/src"] {
        ensure!(!collector.has(absent), "{absent} was sent");
    }
    Ok(())
}

/// Away, failing, or taking everything and never answering: the job, the lease and the gateway's end
/// are as without a collector.
#[test]
fn a_collector_in_trouble_changes_nothing() -> Result<()> {
    let home = Scratch::new()?;
    dataset::flat(home.path(), 4, 3 << 20, 660)?;
    for trouble in [None, Some(500), Some(SILENT)] {
        let collector = trouble.map(Collector::start).transpose()?;
        let url = match &collector {
            Some(collector) => collector.url(),
            None => format!("http://127.0.0.1:{}", port::free()?),
        };
        let mut gateway = gateway(home.path(), &url)?;
        let join = gateway.lease("one.join", ["--from".as_ref(), home.path().as_os_str()])?;
        let mount = MountProgram::start(&join, &[])?;
        if let Some(collector) = &collector {
            wait_for("something to be sent", || (!collector.lines().is_empty()).then_some(()))?;
        }
        digest::assert_same(&digest::tree(home.path())?, &digest::tree(mount.data())?);
        let receipt = mount.finish()?;
        assert_eq!((&receipt["outcome"], &receipt["read_errors"]), (&"wiped".into(), &0.into()));
        assert_eq!(gateway.show(&join)?["phase"], "wiped");
        let began = Instant::now();
        let status = gateway.process().stop(Signal::TERM)?;
        assert_eq!(status.code(), Some(0), "{trouble:?}: {}", gateway.log());
        ensure!(began.elapsed() < AT_MOST, "{trouble:?}: {:?}", began.elapsed());
        ensure!(!gateway.log().contains("panicked"), "{trouble:?}: {}", gateway.log());
    }
    Ok(())
}
