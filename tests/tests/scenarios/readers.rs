//! Real readers: Python's tarfile over shards and pyarrow over Parquet, same digests as at home.

use std::process::Command;

use anyhow::Result;
use tidegate_tests::process::check;
use tidegate_tests::reader::{python, script};
use tidegate_tests::scratch::Scratch;
use tidegate_tests::tidegate::Run;

fn make(scale: u32) -> Result<Scratch> {
    let home = Scratch::new()?;
    let mut command = Command::new(python()?);
    check(command.arg(script("make_datasets.py")).arg(home.path()).arg(scale.to_string()))?;
    Ok(home)
}

fn read_at_home(home: &Scratch) -> Result<String> {
    check(Command::new(python()?).arg(script("read_datasets.py")).arg(home.path()))
}

fn run(home: &Scratch, epochs: u32) -> Result<Run> {
    let (python, script) = (python()?, script("read_datasets.py"));
    let line = format!("'{}' '{}' \"$TIDEGATE_DATA\" {epochs}", python.display(), script.display());
    Ok(Run::from_dir(home.path())?.shell(&line))
}

#[test]
fn tar_shards_and_parquet_give_the_digests_of_home() -> Result<()> {
    let home = make(1)?;
    let outcome = run(&home, 1)?.succeed()?;
    assert_eq!(outcome.stdout, read_at_home(&home)?);
    assert_eq!(outcome.receipt()?["outcome"], "wiped");
    Ok(())
}

/// Two epochs over some 70 MB with a cache of 20.
#[test]
fn also_with_a_cache_far_smaller_than_the_data() -> Result<()> {
    let home = make(3)?;
    let outcome = run(&home, 2)?.args(["--cache-size", "20MiB"]).succeed()?;
    let want = read_at_home(&home)?;
    assert_eq!(outcome.stdout, format!("{want}{want}"));
    let receipt = outcome.receipt()?;
    assert!(receipt["selected_bytes"].as_u64() > Some(60 << 20), "{receipt:#}");
    assert!(receipt["certificate"]["stated"]["cache_bytes"].as_u64() <= Some(20 << 20));
    assert_eq!(receipt["read_errors"], 0);
    Ok(())
}
