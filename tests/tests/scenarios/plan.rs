//! `tidegate plan` says what would leave, and moves nothing.

use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;
use tidegate_tests::dataset;
use tidegate_tests::part;
use tidegate_tests::process::check;
use tidegate_tests::programs::succeed;
use tidegate_tests::scratch::Scratch;
use tidegate_tests::tidegate::{Run, tidegate};

fn plan(home: &Scratch, args: &[&str]) -> Result<Value> {
    let mut words: Vec<std::ffi::OsString> = ["--json", "plan", "--from"].map(Into::into).into();
    words.push(home.path().into());
    words.extend(args.iter().map(Into::into));
    Ok(serde_json::from_str(&succeed(tidegate(words)?)?)?)
}

#[test]
fn plan_and_run_agree() -> Result<()> {
    let home = Scratch::new()?;
    dataset::odd_tree(home.path())?;
    let planned = plan(&home, &["--exclude", "large/**"])?;
    let outcome = Run::from_dir(home.path())?
        .args(["--exclude", "large/**"])
        .shell("find \"$TIDEGATE_DATA\" -type f -exec cat {} + | wc -c")
        .succeed()?;
    let receipt = outcome.receipt()?;
    assert_eq!(planned["files"], receipt["selected_files"]);
    assert_eq!(planned["bytes"], receipt["selected_bytes"]);
    assert_eq!(planned["blocks"], receipt["blocks"]);
    assert_eq!(outcome.stdout.trim(), planned["bytes"].to_string());
    // The blocks and the sealed names, which are a little more than the names.
    let number = |value: &Value| value.as_u64().context("no number");
    let (left, blocks) = (number(&receipt["left_bytes"])?, number(&planned["sealed_bytes"])?);
    let names = number(&planned["manifest_bytes"])?;
    assert!(left >= blocks && left <= blocks + names + 1000, "{left} left, {planned}");
    Ok(())
}

#[test]
fn minutes_follow_the_rate_and_shares_add_up() -> Result<()> {
    let home = Scratch::new()?;
    dataset::flat(home.path(), 20, 1_000_000, 90)?;
    let minutes = |rate: &str| -> Result<f64> {
        plan(&home, &["--rate", rate])?["minutes"].as_f64().context("no minutes")
    };
    let (slow, fast) = (minutes("10Mbit")?, minutes("1Gbit")?);
    assert!((slow / fast - 100.0).abs() < 1.0, "{slow} {fast}");
    assert!((slow - 20.0 * 8.0 / 10.0 / 60.0).abs() < 0.01, "{slow}");
    let mut bytes = 0;
    for rank in 0..3 {
        bytes += plan(&home, &["--rank", &format!("{rank}/3")])?["bytes"]
            .as_u64()
            .context("no bytes")?;
    }
    assert_eq!(bytes, 20_000_000);
    Ok(())
}

/// Not one file of the source is opened, and no file is written.
#[test]
fn nothing_moves() -> Result<()> {
    let home = Scratch::new()?;
    let scratch = Scratch::new()?;
    for n in 0..5 {
        dataset::write(home.path(), format!("folder/content-{n}"), b"content")?;
    }
    let trace = scratch.join("trace");
    check(
        Command::new(part::program("strace")?)
            .args([
                "-f",
                "-qq",
                "-s",
                "300",
                "-e",
                "trace=open,openat,openat2,creat,mkdir,mkdirat",
                "-o",
            ])
            .arg(&trace)
            .arg(part::tidegate()?)
            .args(["plan", "--from"])
            .arg(home.path())
            .env("HOME", scratch.path()),
    )?;
    let trace = std::fs::read_to_string(trace)?;
    assert!(trace.contains("folder"), "the trace sees the walk");
    let opened: Vec<_> = trace.lines().filter(|line| line.contains("content-")).take(3).collect();
    assert!(opened.is_empty(), "{opened:#?}");
    let written: Vec<_> = trace
        .lines()
        .filter(|line| {
            line.contains("O_CREAT") || line.contains("O_WRONLY") || line.contains("mkdir")
        })
        .filter(|line| !line.contains("/dev/"))
        .take(3)
        .collect();
    assert!(written.is_empty(), "{written:#?}");
    Ok(())
}
