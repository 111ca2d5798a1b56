//! A directory and a bucket of the same files, from the listing to shuffled reads, by the real programs.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tidegate_tests::many::{Many, find};
use tidegate_tests::programs::{GatewayProgram, MountProgram, succeed};
use tidegate_tests::scratch::Scratch;
use tidegate_tests::tidegate::tidegate;
use tidegate_tests::versitygw::Versitygw;

use super::{add, memory};
use crate::report::Report;

const EACH: u64 = 1000;
/// Files opened and read in no order, and the threads that do.
const READS: u64 = 100_000;
const READERS: u64 = 8;

pub(super) fn measure(thousands: u64, report: &mut Report) -> Result<()> {
    let many = Many { dirs: thousands, each: EACH };
    let server = Versitygw::start()?;
    let store = server.client()?;
    store.create_bucket("many")?;
    // The bucket is a folder of files, so it is the directory too.
    let folder = server.bucket("many").join("set");
    eprintln!("  making {} files", many.files());
    many.make_objects(&folder)?;
    let own = Scratch::new()?;
    let credentials = store.credentials_file(&own)?;
    let allowed = store.allowed("s3://many", &credentials);
    let credentials = credentials.display().to_string();
    let folder = folder.display().to_string();
    let directory = vec!["--from", &folder];
    let bucket = vec![
        "--from",
        "s3://many/set",
        "--s3-endpoint",
        store.endpoint(),
        "--s3-region",
        "us-east-1",
        "--s3-credentials",
        &credentials,
    ];
    serve("directory", &many, &folder, &directory, report)?;
    serve("bucket (versitygw)", &many, &allowed, &bucket, report)
}

fn serve(what: &str, many: &Many, allow: &str, from: &[&str], report: &mut Report) -> Result<()> {
    let each = many.files() as f64;
    let millions = each / 1e6;
    let mut figure = |figure: &str, unit, value, bar| {
        add(report, format!("{what}, {millions} M files: {figure}"), unit, value, bar);
    };
    let start = Instant::now();
    let plan = succeed(tidegate([&["--json", "plan"][..], from].concat())?)?;
    figure("`plan`: listed, made a snapshot, cut", "s", start.elapsed().as_secs_f64(), "seconds");
    let plan: Value = serde_json::from_str(&plan)?;
    let manifest = plan["manifest_bytes"].as_f64().context("no manifest")?;
    ensure!(plan["files"].as_u64() == Some(many.files()), "{plan}");

    let mut gateway = GatewayProgram::start(allow, "")?;
    let pid = gateway.process().pid();
    let idle = memory::resident(pid)?;
    let start = Instant::now();
    let join = gateway.lease("one.join", from)?;
    figure("lease granted, snapshot stored", "s", start.elapsed().as_secs_f64(), "–");
    let one = memory::resident(pid)?;
    figure("gateway's RSS, first lease", "B a file", (one - idle) / each, "–");
    gateway.lease("two.join", from)?;
    let two = memory::resident(pid)?;
    figure("gateway's RSS, second lease on the same", "B a file", (two - one) / each, "~ 0");

    let start = Instant::now();
    let mount = MountProgram::start(&join, &[])?;
    figure("attached and mounted", "s", start.elapsed().as_secs_f64(), "≤ 2");
    let (name, content) = (many.name((many.files() / 3) | 1), many.content((many.files() / 3) | 1));
    let start = Instant::now();
    ensure!(std::fs::read(mount.data().join(&name))? == content, "wrong bytes");
    figure("first open and read", "ms", start.elapsed().as_secs_f64() * 1e3, "–");
    let worker = memory::resident(mount.worker()?)?;
    figure("worker's RSS beyond the manifest", "MiB", (worker - manifest) / 1048576.0, "≤ 512");
    figure("the manifest", "B a file", manifest / each, "≤ 64 + names");

    let start = Instant::now();
    let entries = find(mount.data())?;
    ensure!(entries as u64 == many.files() + many.dirs + 1, "{entries} entries");
    let seconds = start.elapsed().as_secs_f64();
    figure("`find`, first time", "entries/s", entries as f64 / seconds, "≥ 100 000");
    let start = Instant::now();
    many.read_shuffled(mount.data(), READS, 7, READERS)?;
    let seconds = start.elapsed().as_secs_f64();
    figure("shuffled opens and reads, 8 threads", "files/s", READS as f64 / seconds, "–");
    let start = Instant::now();
    many.read_shuffled(mount.data(), READS, 7, READERS)?;
    let seconds = start.elapsed().as_secs_f64();
    figure("the same files again", "files/s", READS as f64 / seconds, "–");
    let start = Instant::now();
    mount.finish()?;
    figure("wiped", "s", start.elapsed().as_secs_f64(), "–");
    Ok(())
}
