//! Which data made this? Said beside each object, and by `tidegate audit show`, also long after.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tidegate_tests::dataset;
use tidegate_tests::process::check;
use tidegate_tests::programs::{lease_of, succeed};
use tidegate_tests::results::{Desk, Home, Look, entries};
use tidegate_tests::scratch::Scratch;
use tidegate_tests::tidegate::{Run, tidegate};

const IMAGE: &str = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

fn show(ledger: &Path, what: &str) -> Result<String> {
    let words = ["audit", "show", "--ledger"].map(OsString::from);
    succeed(tidegate(words.into_iter().chain([ledger.into(), what.into()]))?)
}

/// What lies beside an object names the lease, the data, the image and the bytes.
fn noted(look: &Look, path: &str, lease: &str, bytes: &[u8]) -> Result<BTreeMap<String, String>> {
    let notes = look.notes(path)?;
    let note = |name: &str| {
        notes.get(name).cloned().with_context(|| format!("no {name} beside {path}: {notes:#?}"))
    };
    assert_eq!(note("lease")?, lease, "{path}");
    assert_eq!(note("image")?, IMAGE, "{path}");
    assert_eq!(note("blake3")?, blake3::hash(bytes).to_hex().to_string(), "{path}");
    for name in ["snapshot", "selection", "content"] {
        ensure!(note(name)?.len() >= 32, "{path}: {name} is {:?}", note(name)?);
    }
    Ok(notes)
}

pub(crate) fn every_object_says_which_data_made_it(home: Home) -> Result<()> {
    let desk = Desk::start(home, "")?;
    let join = desk.lease("one.join", &["--image", IMAGE])?;
    let lease = lease_of(&join)?;
    let mount = tidegate_tests::programs::MountProgram::with_results(&join, &[])?;
    let small = dataset::bytes(1, 70_000);
    let large = dataset::bytes(2, (33 << 20) + 5);
    fs::create_dir(mount.results().join("größe"))?;
    fs::write(mount.results().join("größe/small"), &small)?;
    fs::write(mount.results().join("large.tmp"), &large)?;
    fs::rename(mount.results().join("large.tmp"), mount.results().join("large"))?;
    fs::write(mount.results().join("removed"), b"removed")?;
    fs::remove_file(mount.results().join("removed"))?;
    let look = desk.home.look()?;
    let notes = noted(&look, "größe/small", &lease, &small)?;
    noted(&look, "large", &lease, &large)?;

    let asked = |ledger: &Path| -> Result<()> {
        for (path, bytes) in [("größe/small", &small), ("large", &large)] {
            let hash = blake3::hash(bytes).to_hex().to_string();
            for what in [desk.home.name(path), hash.clone()] {
                let said = show(ledger, &what).with_context(|| what.clone())?;
                for want in [&lease, &notes["snapshot"], &notes["selection"], &hash] {
                    ensure!(said.contains(want), "{what}: no {want} in\n{said}");
                }
                ensure!(said.contains(IMAGE) && said.contains(path), "{what}:\n{said}");
            }
        }
        // A name or a hash that nobody stored is said to be none.
        for what in [desk.home.name("nothing"), "f".repeat(64)] {
            ensure!(show(ledger, &what).is_err(), "{what} was found");
        }
        Ok(())
    };
    asked(&desk.ledger()).context("while the lease lives")?;
    let acts: Vec<_> = desk
        .entries(&join)?
        .iter()
        .map(|entry| entry["event"]["act"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(acts, ["stored", "stored", "renamed", "stored", "removed"]);
    mount.finish()?;
    // Offline, on a copy, after the lease closed and its key is gone.
    let copy = Scratch::new()?;
    check(Command::new("cp").arg("-a").arg(desk.ledger()).arg(copy.join("state")))?;
    drop(desk.gateway);
    let (home, data) = (desk.home, desk.data);
    let desk = (home, data);
    let again = |what: &str| show(&copy.join("state"), what);
    let said = again(&desk.0.name("large"))?;
    ensure!(said.contains(&lease) && said.contains(&notes["snapshot"]), "{said}");
    Ok(())
}

#[test]
fn every_object_in_a_directory_says_which_data_made_it() -> Result<()> {
    every_object_says_which_data_made_it(Home::directory()?)
}

#[test]
fn every_object_in_versitygw_says_which_data_made_it() -> Result<()> {
    every_object_says_which_data_made_it(Home::versitygw()?)
}

/// The main job on one machine: the same from `run`'s own ledger, and what was read again is in it too.
fn run_keeps_the_same_books(home: &Home) -> Result<()> {
    let data = Scratch::new()?;
    dataset::flat(data.path(), 2, 20_000, 1)?;
    let run = |script: &str, more: &[&str]| -> Result<_> {
        let run = Run::from_dir(data.path())?.args(["--results", &home.place()]);
        run.args(home.words()).args(more).shell(script).succeed()
    };
    let outcome = run("cp \"$TIDEGATE_DATA\"/00001.bin \"$TIDEGATE_RESULTS/all\"", &[])?;
    assert_eq!(home.look()?.read("all")?.map(|bytes| bytes.len()), Some(20_000));
    let receipt = outcome.receipt()?;
    assert_eq!(
        receipt["results"],
        serde_json::json!({
            "files": 1, "bytes": 20_000, "lost": [], "lost_files": 0
        })
    );
    let said = show(&outcome.ledger(), &home.name("all"))?;
    let lease = receipt["lease"].as_str().context("no lease")?;
    ensure!(said.contains(lease), "{said}");

    let script = "cmp \"$TIDEGATE_RESULTS/all\" /dev/null || wc -c < \"$TIDEGATE_RESULTS/all\"";
    let outcome = run(script, &["--resume"])?;
    assert_eq!(outcome.stdout.lines().last(), Some("20000"));
    let receipt = outcome.receipt()?;
    let lease = receipt["lease"].as_str().context("no lease")?;
    let entries: Vec<Value> = entries(&outcome.ledger(), lease)?;
    ensure!(entries.iter().any(|entry| entry["event"]["act"] == "read"), "{entries:#?}");
    Ok(())
}

#[test]
fn run_keeps_the_same_books_of_a_directory() -> Result<()> {
    run_keeps_the_same_books(&Home::directory()?)
}

#[test]
fn run_keeps_the_same_books_of_a_bucket() -> Result<()> {
    run_keeps_the_same_books(&Home::versitygw()?)
}
