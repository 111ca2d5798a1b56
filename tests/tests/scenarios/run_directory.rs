//! The main job on a directory: everything arrives as it is at home, and then nothing is left.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use tidegate_tests::dataset::{self, odd_tree};
use tidegate_tests::digest;
use tidegate_tests::held::Held;
use tidegate_tests::process::{command_line, descendants};
use tidegate_tests::reader::python;
use tidegate_tests::scratch::Scratch;
use tidegate_tests::tidegate::{Run, nothing_left};

#[test]
fn an_odd_tree_arrives_as_it_is_and_leaves_nothing() -> Result<()> {
    let home = Scratch::new()?;
    odd_tree(home.path())?;
    let held = Held::start(Run::from_dir(home.path())?)?;
    digest::assert_same(&digest::tree(home.path())?, &digest::tree(held.data())?);

    let mounts = fs::read_to_string(format!("/proc/{}/mounts", held.job()))?;
    let mount =
        mounts.lines().find(|line| line.contains("fuse")).context("no FUSE mount in the job")?;
    for option in ["ro", "nosuid", "nodev"] {
        assert!(mount.split([' ', ',']).any(|word| word == option), "{mount}");
    }
    assert!(held.scratch().mounts()?.is_empty(), "mounted outside the job");
    let family = descendants(held.pid());

    let (scratch, receipt) = held.finish()?;
    assert_eq!(receipt["outcome"], "wiped", "{receipt:#}");
    let stated = &receipt["certificate"]["stated"];
    assert_eq!(stated["unmounted"], true);
    assert_eq!(stated["unlinked"], true);
    assert_eq!(stated["mismatched_bytes"], 0);
    assert!(stated["cache_bytes"].as_u64() > Some(0));
    assert_eq!(stated["overwritten_bytes"], stated["cache_bytes"]);
    assert_eq!(stated["read_back_bytes"], stated["cache_bytes"]);
    let observed = &receipt["certificate"]["observed"];
    assert_eq!(observed["wrapped_key_absent"], true);
    assert!(receipt["selected_bytes"].as_u64() > Some(20 << 20));
    assert!(receipt["left_bytes"].as_u64() >= receipt["selected_bytes"].as_u64());
    assert_eq!(receipt["read_errors"], 0);
    nothing_left(&scratch)?;
    for pid in family {
        let words = command_line(pid);
        assert!(!words.iter().any(|word| word.contains("tidegate")), "{pid} still runs: {words:?}");
    }
    Ok(())
}

#[test]
fn the_readme_s_first_command_counts_the_files() -> Result<()> {
    let home = Path::new("/usr/share/doc");
    let count = "find \"$TIDEGATE_DATA\" -type f | wc -l";
    let outcome = Run::from_dir(home)?.shell(count).succeed()?;
    let want = digest::contents(home)?.len();
    assert_eq!(outcome.stdout.trim(), want.to_string());
    outcome.expect_message(&["lease", "selected", "left", "read", "wiped", "ledger"])?;
    Ok(())
}

#[test]
fn globs_lists_and_ranks_show_their_part_and_no_more() -> Result<()> {
    let home = Scratch::new()?;
    for n in 0..40 {
        let folder = if n % 2 == 0 { "train" } else { "test" };
        let size = usize::try_from(1000 + 997 * n)?;
        dataset::write(home.path(), format!("{folder}/deep/{n:02}.bin"), &dataset::bytes(n, size))?;
    }
    dataset::write(home.path(), "notes.txt", b"notes")?;
    let list = "cd \"$TIDEGATE_DATA\"; find . -type f | sort";

    let train =
        Run::from_dir(home.path())?.args(["--select", "train/**", "--exclude", "**/0*.bin"]);
    let names = train.shell(list).succeed()?.stdout;
    assert_eq!(names.lines().count(), 15, "{names}");
    assert!(names.lines().all(|name| name.starts_with("./train/deep/")), "{names}");

    let scratch = Scratch::new()?;
    let file = scratch.join("list");
    fs::write(&file, "notes.txt\ntest/deep/01.bin\n")?;
    let listed = Run::from_dir(home.path())?.arg("--list").arg(&file).shell(list).succeed()?.stdout;
    assert_eq!(listed, "./notes.txt\n./test/deep/01.bin\n");

    let mut all = Vec::new();
    let mut sizes = Vec::new();
    for rank in 0..4 {
        let run = Run::from_dir(home.path())?.args(["--rank", &format!("{rank}/4")]);
        let outcome = run.shell(list).succeed()?;
        sizes.push(outcome.receipt()?["selected_bytes"].as_u64().context("no bytes")?);
        all.extend(outcome.stdout.lines().map(str::to_owned));
    }
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 41, "the ranks together are the whole, each file once");
    let (least, most) = (sizes.iter().min().context("none")?, sizes.iter().max().context("none")?);
    assert!(most - least < 2 * 40_000, "shares are balanced to a file: {sizes:?}");
    Ok(())
}

/// The same path as at home: `--at` may be the source itself.
#[test]
fn the_job_finds_the_data_under_the_path_it_knows() -> Result<()> {
    let home = Scratch::new()?;
    dataset::write(home.path(), "a/b", b"content")?;
    dataset::write(home.path(), "left-out", b"secret")?;
    let run = Run::from_dir(home.path())?.args(["--select", "a/**"]).arg("--at").arg(home.path());
    let script =
        format!("test \"$TIDEGATE_DATA\" = '{0}'; cd '{0}'; cat a/b; ls", home.path().display());
    let outcome = run.shell(&script).succeed()?;
    assert_eq!(outcome.stdout, "contenta\n");
    assert!(home.join("left-out").exists(), "the source is untouched");
    Ok(())
}

/// The cache holds less than half of the selection; every byte is still right, in any order.
#[test]
fn a_cache_smaller_than_the_selection_works() -> Result<()> {
    let home = Scratch::new()?;
    dataset::flat(home.path(), 12, (5 << 20) + 321, 70)?;
    let held = Held::start(Run::from_dir(home.path())?.args(["--cache-size", "24MiB"]))?;
    let want = digest::tree(home.path())?;
    for _ in 0..2 {
        digest::assert_same(&want, &digest::tree(held.data())?);
    }
    let on_disk: u64 = fs::read_dir(held.scratch().join("cache"))?
        .map(|entry| Ok(entry?.metadata()?.len()))
        .sum::<Result<u64>>()?;
    assert!(on_disk <= 24 << 20, "{on_disk} bytes of cache");
    let (_, receipt) = held.finish()?;
    assert_eq!(receipt["read_errors"], 0);
    assert_eq!(receipt["outcome"], "wiped");
    Ok(())
}

/// On a terminal a bar shows what is staged, and is gone before the end; elsewhere there is none.
#[test]
fn a_terminal_sees_a_progress_bar_and_a_file_does_not() -> Result<()> {
    // Runs a program on a terminal of its own, and ends with its code.
    const ON_A_TERMINAL: &str = "import os, pty, sys\n\
        sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
    let home = Scratch::new()?;
    dataset::flat(home.path(), 8, 2 << 20, 60)?;
    let slow = ["--limit", "80Mbit"];
    let job = "cat \"$TIDEGATE_DATA\"/* | wc -c";
    let run = || anyhow::Ok(Run::from_dir(home.path())?.args(slow).shell(job));
    let seen =
        run()?.under([python()?.as_os_str(), "-c".as_ref(), ON_A_TERMINAL.as_ref()]).succeed()?;
    assert!(seen.stdout.contains("tidegate: staged"), "no bar: {:?}", seen.stdout);
    assert!(seen.stdout.contains(&(8 << 21).to_string()), "the job's words: {:?}", seen.stdout);
    let after = seen.stdout.rsplit("tidegate: staged").next().unwrap_or_default();
    assert!(after.contains("\u{1b}[2K"), "the bar stays: {:?}", seen.stdout);
    let quiet = run()?.succeed()?;
    assert!(!quiet.stderr.contains("tidegate: staged"), "{}", quiet.stderr);
    Ok(())
}

/// From the grant to the first byte that could be read: not when the job came to read it.
#[test]
fn the_receipt_says_when_the_first_byte_could_be_read() -> Result<()> {
    let home = Scratch::new()?;
    dataset::flat(home.path(), 2, 500_000, 12)?;
    let begun = std::time::Instant::now();
    let outcome = Run::from_dir(home.path())?
        .shell("sleep 4; cat \"$TIDEGATE_DATA\"/*.bin | wc -c")
        .succeed()?;
    let all = u64::try_from(begun.elapsed().as_millis())?;
    let first = outcome.receipt()?["first_byte_ms"].as_u64().context("no first_byte_ms")?;
    assert!(first > 0 && first + 3500 < all, "{first} of {all} ms");
    Ok(())
}
