//! P11: strangers cannot make the gateway write or grow, nor keep a worker from its data.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tidegate_tests::digest;
use tidegate_tests::ops::Ops;
use tidegate_tests::process::wait_for;
use tidegate_tests::programs::{GatewayProgram, MountProgram};
use tidegate_tests::scratch::Scratch;
use tidegate_tests::stranger::{Stranger, Tls, is_closed, post};
use tidegate_tests::{dataset, port};
use tidegate_wire::{Evidence, NodeFacts};

/// What a gateway may grow by while strangers do their worst: their connections' buffers.
const GROWTH: u64 = 64 << 20;

struct Site {
    home: Scratch,
    gateway: GatewayProgram,
    ops: Ops,
}

impl Site {
    fn new(files: u64) -> Result<Self> {
        let home = Scratch::new()?;
        dataset::flat(home.path(), files, 2 << 20, 60)?;
        let ops = Ops(port::free()?);
        let extra = format!(
            "heartbeat_s = 1\ngrace_s = 30\nlimits.buffers = 33554432\nops_listen = \"127.0.0.1:{}\"",
            ops.0
        );
        let gateway = GatewayProgram::start(&home.path().display().to_string(), &extra)?;
        Ok(Self { home, gateway, ops })
    }

    fn lease(&self, name: &str) -> Result<PathBuf> {
        self.gateway.lease(name, ["--from".as_ref(), self.home.path().as_os_str()])
    }

    fn memory(&mut self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.gateway.process().pid()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.split_whitespace().nth(1).context("no number")?.parse()?;
        Ok(kib << 10)
    }
}

/// Addresses of loopback where no worker is.
fn elsewhere(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 9, n)
}

/// Every file below a folder with its content.
fn contents(folder: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let (mut found, mut todo) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(next) = todo.pop() {
        for entry in fs::read_dir(&next)? {
            let path = entry?.path();
            if path.is_dir() {
                todo.push(path);
            } else {
                let bytes = fs::read(&path)?;
                found.push((path, bytes));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Requests of each kind that a stranger can think of. What is answered is a refusal.
fn attack(stranger: &Stranger, join: &Path, tally: &mut Tally) -> Result<()> {
    let file: serde_json::Value = serde_json::from_slice(&fs::read(join)?)?;
    let mut line = stranger.connect()?;
    let nonce = stranger.challenge(&mut line)?.nonce;
    let attach = |lease: &serde_json::Value, nonce: &serde_json::Value| {
        json!({
            "lease": lease, "token": file["token"], "nonce": nonce, "instance": "00".repeat(16),
            "identity_key": "A".repeat(43), "hpke_key": "A".repeat(1622),
            "facts": NodeFacts::default().to_text(), "evidence": Evidence::default().to_text(),
            "proof": "A".repeat(43), "signature": "A".repeat(86),
        })
        .to_string()
    };
    let lease = file["lease"].as_str().context("no lease")?;
    let nonce = serde_json::to_value(&nonce)?;
    let bodies = [
        attach(&json!(lease), &nonce),
        attach(&json!(lease), &json!("A".repeat(43))),
        attach(&json!("00".repeat(16)), &nonce),
        "{}".to_owned(),
        "[".repeat(10_000),
        format!("{{\"lease\":\"{}\"}}", "x".repeat(200_000)),
    ];
    for body in bodies {
        tally.refused(post(&mut line, "/v1/attach", body.as_bytes())?.0)?;
    }
    for path in ["keys", "heartbeat", "wipe-certificate"] {
        // Refused before its body is read, so the connection may end with it.
        tally.refused(stranger.post(&format!("/v1/leases/{lease}/{path}"), b"{}")?.0)?;
    }
    // A long body and a long head end the connection, whether it was answered or not.
    tally.refused(
        stranger.post("/v1/attach", &vec![b' '; 1 << 20]).map_or(413, |(status, _)| status),
    )?;
    let long = format!("GET / HTTP/1.1\r\nhost: g\r\nx: {}\r\n\r\n", "x".repeat(20_000));
    let mut line = stranger.connect()?;
    let _ = line.write_all(long.as_bytes());
    let _ = line.flush();
    ensure!(is_closed(&mut line), "a head of 20 kB was taken");
    // More than one connection is good for.
    let mut line = stranger.connect()?;
    let served = (0..100).take_while(|_| stranger.challenge(&mut line).is_ok()).count();
    ensure!((1..100).contains(&served), "{served} challenges on one connection");
    Ok(())
}

#[derive(Default)]
struct Tally {
    refusals: u64,
}

impl Tally {
    fn refused(&mut self, status: u16) -> Result<()> {
        ensure!((400..500).contains(&status), "a stranger was answered {status}");
        self.refusals += 1;
        Ok(())
    }
}

/// Connections that begin something and never go on.
fn slow(stranger: &Stranger) -> Result<Vec<Tls>> {
    let mut head = stranger.connect()?;
    head.write_all(b"POST /v1/att")?;
    head.flush()?;
    let mut body = stranger.connect()?;
    body.write_all(b"POST /v1/attach HTTP/1.1\r\nhost: g\r\ncontent-length: 100000\r\n\r\n{")?;
    body.flush()?;
    Ok(vec![head, body])
}

#[test]
fn strangers_make_the_gateway_neither_write_nor_grow() -> Result<()> {
    let mut site = Site::new(12)?;
    let join = site.lease("one.join")?;
    let mount = MountProgram::start(&join, &["--cache-size", "17MiB"])?;
    let want = digest::contents(site.home.path())?;
    digest::assert_same(&want, &digest::contents(mount.data())?);
    let (before, memory) = (contents(&site.gateway.state())?, site.memory()?);

    let began = Instant::now();
    let mut slow_ones = slow(&Stranger::new(&join, elsewhere(250))?)?;
    let mut tally = Tally::default();
    for n in 0..25 {
        attack(&Stranger::new(&join, elsewhere(1 + n % 5))?, &join, &mut tally)
            .with_context(|| format!("round {n}: {}", site.gateway.log()))?;
    }
    let grown = site.memory()?.saturating_sub(memory);
    assert!(grown < GROWTH, "{} MiB grown", grown >> 20);
    // Byte for byte; the worker's heartbeats wrote nothing either.
    assert!(before == contents(&site.gateway.state())?, "the state has changed");
    let counted = site.ops.metrics()?["tidegate_gateway_strangers_refused_total"];
    assert!(counted >= 25.0, "{counted} of {} refusals were counted", tally.refusals);
    assert!(site.ops.metrics()?["tidegate_gateway_longest_silence_seconds"] < 10.0);
    digest::assert_same(&want, &digest::contents(mount.data())?);

    for line in &mut slow_ones {
        line.sock.set_read_timeout(Some(Duration::from_secs(90)))?;
        assert!(is_closed(line), "a slow connection stays open");
    }
    assert!(began.elapsed() < Duration::from_secs(90));
    assert_eq!(mount.finish()?["read_errors"], 0);
    Ok(())
}

/// Connections of which none says a word: so many, and on until it is done.
fn flood(join: &Path, least: usize, done: &AtomicBool) -> Result<usize> {
    let strangers =
        (1..=40).map(|n| Stranger::new(join, elsewhere(n))).collect::<Result<Vec<_>>>()?;
    let mut open: Vec<TcpStream> = Vec::new();
    let mut knocked = 0;
    while knocked < least || !done.load(Ordering::Relaxed) {
        if let Ok(stream) = strangers[knocked % strangers.len()].knock() {
            open.push(stream);
        }
        // The gateway has dropped nearly all of them, so the older ones are let go.
        if open.len() > 3000 {
            open.drain(..1000);
        }
        knocked += 1;
    }
    Ok(knocked)
}

#[test]
fn ten_thousand_connections_keep_no_worker_from_its_data() -> Result<()> {
    raise_descriptors()?;
    let mut site = Site::new(16)?;
    let (join, second) = (site.lease("one.join")?, site.lease("two.join")?);
    // A cache of four blocks: each look at the whole is fetched anew, over more connections.
    let mount = MountProgram::start(&join, &["--cache-size", "17MiB"])?;
    let want = digest::contents(site.home.path())?;
    let (before, memory) = (contents(&site.gateway.state())?.len(), site.memory()?);
    let done = Arc::new(AtomicBool::new(false));
    let flooding = std::thread::spawn({
        let done = Arc::clone(&done);
        move || flood(&join, 10_000, &done)
    });
    wait_for("the flood to be felt", || {
        let metrics = site.ops.metrics().ok()?;
        let dropped =
            metrics.get("tidegate_gateway_connections_dropped_total{reason=\"flood\"}")?;
        (*dropped > 100.0).then_some(())
    })?;
    digest::assert_same(&want, &digest::contents(mount.data())?);
    // At an address where a worker is, another may attach meanwhile.
    let other = MountProgram::start(&second, &[])?;
    digest::assert_same(&want, &digest::contents(other.data())?);
    done.store(true, Ordering::Relaxed);
    let knocked = flooding.join().map_err(|_| anyhow::anyhow!("panicked"))??;
    assert!(knocked >= 10_000, "{knocked}");
    let grown = site.memory()?.saturating_sub(memory);
    assert!(grown < GROWTH, "{} MiB grown", grown >> 20);
    assert!(contents(&site.gateway.state())?.len() < before + 20, "the flood was written down");
    assert_eq!(mount.finish()?["read_errors"], 0);
    assert_eq!(other.finish()?["read_errors"], 0);
    Ok(())
}

/// This test holds thousands of connections, and so does the gateway that it starts.
fn raise_descriptors() -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    Ok(())
}
