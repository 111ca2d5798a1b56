//! P1: no byte of an unselected object is read at home. Seen in system calls and in the store's log.

use std::fs;

use anyhow::Result;
use tidegate_tests::dataset;
use tidegate_tests::part;
use tidegate_tests::scratch::Scratch;
use tidegate_tests::tidegate::Run;
use tidegate_tests::versitygw::Versitygw;

#[test]
fn system_calls_open_no_unselected_file() -> Result<()> {
    let home = Scratch::new()?;
    dataset::write(home.path(), "take/selected-one", &dataset::bytes(1, 5 << 20))?;
    dataset::write(home.path(), "take/selected-two", &dataset::bytes(2, 5000))?;
    dataset::write(home.path(), "take/left-out-one", &dataset::bytes(3, 5000))?;
    dataset::write(home.path(), "leave/left-out-two", &dataset::bytes(4, 5 << 20))?;
    let run =
        Run::from_dir(home.path())?.args(["--select", "take/*", "--exclude", "**/left-out-*"]);
    let trace = run.scratch().join("trace");
    let strace = part::program("strace")?;
    let words = [
        "-f",
        "-qq",
        "-s",
        "300",
        "-e",
        "trace=open,openat,openat2,creat,readlink,readlinkat",
        "-o",
    ];
    let run = run.under([strace.as_os_str()]).under(words).under([&trace]);
    let outcome = run.shell("cat \"$TIDEGATE_DATA\"/take/* | wc -c").succeed()?;
    assert_eq!(outcome.stdout.trim(), ((5 << 20) + 5000).to_string());

    let trace = fs::read_to_string(trace)?;
    let opened = |name: &str| trace.lines().filter(|line| line.contains(name)).count();
    assert!(opened("selected-one") > 0, "the trace sees what is opened");
    assert!(opened("selected-two") > 0);
    let touched: Vec<_> = trace.lines().filter(|line| line.contains("left-out-")).take(3).collect();
    assert!(touched.is_empty(), "opened though not selected: {touched:#?}");
    Ok(())
}

#[test]
fn the_store_s_access_log_shows_no_unselected_object() -> Result<()> {
    let server = Versitygw::start()?;
    let store = server.client()?;
    store.create_bucket("bucket")?;
    for name in ["take/one", "take/two", "leave/three", "take/four.skip"] {
        store.put("bucket", &format!("set/{name}"), &dataset::bytes(7, 300_000))?;
    }
    let before = server.access_log().lines().count();
    let run = Run::from_s3(&store, "s3://bucket/set")?.args([
        "--select",
        "take/*",
        "--exclude",
        "**/*.skip",
    ]);
    let outcome = run.shell("cat \"$TIDEGATE_DATA\"/take/* | wc -c").succeed()?;
    assert_eq!(outcome.stdout.trim(), "600000");

    let log = server.access_log();
    let during: Vec<_> = log.lines().skip(before).collect();
    assert!(during.iter().any(|line| line.contains("GetObject set/take/one")), "{during:#?}");
    let touched: Vec<_> = during
        .iter()
        .filter(|line| line.contains("leave/three") || line.contains("four.skip"))
        .collect();
    assert!(touched.is_empty(), "asked for though not selected: {touched:#?}");
    Ok(())
}
