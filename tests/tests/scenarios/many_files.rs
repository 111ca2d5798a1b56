//! Many small files: what is listed is what `find` sees, shuffled reads give the bytes of home, and
//! what the gateway writes for a lease does not grow with the number of files.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use tidegate_tests::many::{Many, find};
use tidegate_tests::programs::{GatewayProgram, MountProgram, lease_of};
use tidegate_tests::scratch::Scratch;
use tidegate_tests::tidegate::Run;
use tidegate_tests::versitygw::Versitygw;

/// Most bytes of a lease's document and of a batch of the ledger, however many files there are.
const SMALL: u64 = 16 << 10;

/// Every object under `folder` is small.
fn all_small(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            all_small(&entry.path())?;
            continue;
        }
        let len = entry.metadata()?.len();
        ensure!(len <= SMALL, "{} has {len} bytes", entry.path().display());
    }
    Ok(())
}

/// Mounts the lease; everything is there, and reads in no order give the bytes of home.
fn read_all(many: &Many, join: &Path, reads: u64) -> Result<()> {
    let mount = MountProgram::start(join, &[])?;
    let last = many.files() - 1;
    assert_eq!(fs::read(mount.data().join(many.name(last)))?, many.content(last));
    let entries = usize::try_from(many.files() + many.dirs)? + 1;
    assert_eq!(find(mount.data())?, entries);
    many.read_shuffled(mount.data(), reads, 42, 8)?;
    assert_eq!(find(mount.data())?, entries, "the same once more, from the kernel's names");
    let receipt = mount.finish()?;
    assert_eq!(receipt["outcome"], "wiped", "{receipt:#}");
    assert_eq!(receipt["read_errors"], 0);
    Ok(())
}

#[test]
fn a_hundred_thousand_files_of_a_directory() -> Result<()> {
    let home = Scratch::new()?;
    let many = Many { dirs: 200, each: 500 };
    many.make(home.path())?;
    let source = home.path().display().to_string();
    let mut gateway = GatewayProgram::start(&source, "")?;
    let join = gateway.lease("one.join", ["--from", &source])?;
    read_all(&many, &join, 20_000)?;

    // A second lease on the same tree, and a gateway that starts anew and finds snapshot and cut.
    let join = gateway.lease("two.join", ["--from", &source])?;
    let snapshots = fs::read_dir(gateway.state().join("snapshots"))?.count();
    assert_eq!(snapshots, 1, "the same listing is stored once");
    gateway.crash_and_restart()?;
    read_all(&many, &join, 5_000)?;
    all_small(&gateway.state().join("leases").join(lease_of(&join)?))?;
    all_small(&gateway.state().join("ledger"))
}

#[test]
fn twenty_thousand_objects_of_a_bucket() -> Result<()> {
    let server = Versitygw::start()?;
    let store = server.client()?;
    store.create_bucket("many")?;
    let many = Many { dirs: 100, each: 200 };
    many.make_objects(&server.bucket("many").join("set"))?;
    let own = Scratch::new()?;
    let credentials = store.credentials_file(&own)?;
    let gateway = GatewayProgram::start(&store.allowed("s3://many", &credentials), "")?;
    let join = gateway.lease("one.join", ["--from", "s3://many/set"])?;
    read_all(&many, &join, 10_000)
}

/// A list of names is as long as it is; the lease's documents are not.
#[test]
fn a_long_list_is_kept_once_beside_the_lease() -> Result<()> {
    let home = Scratch::new()?;
    let many = Many { dirs: 20, each: 1000 };
    many.make(home.path())?;
    let chosen: Vec<String> = (0..many.files()).step_by(2).map(|n| many.name(n + 1)).collect();
    let run = Run::from_dir(home.path())?;
    let list = run.scratch().join("list");
    fs::write(&list, chosen.join("\n"))?;
    let outcome = run
        .args([OsString::from("--list"), list.into()])
        .shell("find \"$TIDEGATE_DATA\" -type f | wc -l")
        .succeed()?;
    assert_eq!(outcome.stdout.trim(), chosen.len().to_string());
    assert_eq!(outcome.receipt()?["selected_files"], chosen.len());
    all_small(&outcome.ledger().join("leases"))?;
    all_small(&outcome.ledger().join("ledger"))
}
