//! What bad input gets: a message that says what to do, the documented code, nothing left behind.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::Result;
use tidegate_tests::dataset;
use tidegate_tests::device::LoopDevice;
use tidegate_tests::part;
use tidegate_tests::scratch::Scratch;
use tidegate_tests::tidegate::{Outcome, Run, tidegate};
use tidegate_tests::versitygw::Versitygw;

fn home() -> Result<Scratch> {
    let home = Scratch::new()?;
    dataset::write(home.path(), "folder/file-of-the-set", &dataset::bytes(1, 100_000))?;
    Ok(home)
}

/// Runs a job that must never start; checks code, message, and that nothing stays.
fn refused(run: Run, code: i32, words: &[&str]) -> Result<Outcome> {
    let mark = run.scratch().join("the-job-ran");
    let outcome = run.job(["touch".as_ref(), mark.as_os_str()]).finish()?;
    outcome.expect_code(code)?;
    outcome.expect_message(words)?;
    assert!(!outcome.scratch.join("the-job-ran").exists(), "the job ran all the same");
    assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
    assert!(!outcome.stderr.contains("file-of-the-set"), "a name leaked:\n{}", outcome.stderr);
    outcome.expect_nothing_left()?;
    Ok(outcome)
}

#[test]
fn no_such_path_no_permission_no_directory() -> Result<()> {
    let home = home()?;
    refused(Run::from_dir(&home.join("nowhere"))?, 125, &["nowhere", "no such"])?;
    let file = home.join("folder/file-of-the-set");
    let run = Run::from_dir(&file)?;
    let outcome = run.job(["true"]).finish()?;
    outcome.expect_code(125)?;
    outcome.expect_message(&["directory"])?;
    Ok(())
}

/// As a user who may not read it. The folder's own name is what he typed; what is in it is not told.
#[test]
fn no_permission() -> Result<()> {
    let home = home()?;
    let closed = home.dir("closed")?;
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700))?;
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755))?;
    let program = home.join("tidegate");
    fs::copy(part::tidegate()?, &program)?;
    let state = home.dir("state")?;
    fs::set_permissions(&state, fs::Permissions::from_mode(0o777))?;
    let [ledger, cache] = ["ledger", "cache"].map(|name| state.join(name).display().to_string());
    let run = ["run", "--ledger", &ledger, "--cache", &cache, "--from"];
    for (words, command) in [(&["plan", "--from"][..], &[][..]), (&run[..], &["--", "true"][..])] {
        let output = std::process::Command::new(part::program("setpriv")?)
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&program)
            .args(words)
            .arg(&closed)
            .args(command)
            .output()?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{words:?}: {stderr}");
        assert!(stderr.to_lowercase().contains("permission"), "{words:?}: {stderr}");
    }
    Ok(())
}

#[test]
fn no_such_bucket_and_wrong_credentials() -> Result<()> {
    let server = Versitygw::start()?;
    let store = server.client()?;
    refused(Run::from_s3(&store, "s3://no-such-bucket")?, 125, &["no-such-bucket"])?;
    store.create_bucket("bucket")?;
    let run = Run::new()?
        .args([
            "--from",
            "s3://bucket",
            "--s3-endpoint",
            store.endpoint(),
            "--s3-region",
            "us-east-1",
        ])
        .env("AWS_ACCESS_KEY_ID", "testkey")
        .env("AWS_SECRET_ACCESS_KEY", "not-the-secret");
    let outcome = refused(run, 125, &["credentials"])?;
    assert!(!outcome.stderr.contains("not-the-secret"), "a secret leaked");
    let nobody = tidegate_tests::port::free()?;
    let run = Run::new()?
        .args(["--from", "s3://bucket", "--s3-region", "us-east-1"])
        .args(["--s3-endpoint", &format!("http://127.0.0.1:{nobody}")])
        .env("AWS_ACCESS_KEY_ID", "testkey")
        .env("AWS_SECRET_ACCESS_KEY", "testsecret");
    refused(run, 125, &["127.0.0.1"])?;
    Ok(())
}

#[test]
fn a_selection_that_matches_nothing_or_is_no_glob() -> Result<()> {
    let home = home()?;
    refused(
        Run::from_dir(home.path())?.args(["--select", "nothing/**"]),
        2,
        &["selection", "empty"],
    )?;
    let plan =
        tidegate(["plan", "--from", &home.path().display().to_string(), "--select", "x/**"])?;
    assert_eq!(plan.status.code(), Some(2), "what `run` says of a selection, `plan` says too");
    refused(Run::from_dir(home.path())?.args(["--select", "a[b"]), 2, &["a[b"])?;
    let list = home.join("list");
    fs::write(&list, "folder/absent\n")?;
    refused(Run::from_dir(home.path())?.arg("--list").arg(&list), 2, &["folder/absent"])?;
    refused(Run::from_dir(home.path())?.args(["--rank", "3/3"]), 2, &["rank"])?;
    Ok(())
}

#[test]
fn a_mount_point_that_is_missing_not_empty_or_a_file() -> Result<()> {
    let (home, other) = (home()?, Scratch::new()?);
    fs::write(other.join("occupied"), "x")?;
    let at =
        |path: &std::path::Path| Run::from_dir(home.path()).map(|run| run.arg("--at").arg(path));
    refused(at(other.path())?, 2, &["not empty"])?;
    refused(at(&other.join("occupied"))?, 2, &["not a directory"])?;
    refused(at(&other.join("nowhere"))?, 2, &["nowhere"])?;
    let elsewhere = Scratch::new()?;
    let device = LoopDevice::ext4(&elsewhere, "busy", 8 << 20)?;
    fs::remove_dir(device.path().join("lost+found"))?;
    refused(at(device.path())?, 2, &["already mounted"])?;
    assert_eq!(fs::read(other.join("occupied"))?, b"x");
    Ok(())
}

/// In a namespace where `/dev/fuse` is hidden.
#[test]
fn dev_fuse_is_missing() -> Result<()> {
    let home = home()?;
    let hide = ["unshare", "--mount", "--propagation", "slave", "sh", "-euc"];
    let script = "mkdir \"$0\"; mount --bind /dev \"$0\"; mount -t tmpfs tmpfs /dev; \
                  for n in null zero urandom random; do touch /dev/$n; mount --bind \"$0\"/$n /dev/$n; done; \
                  exec \"$@\"";
    let run = Run::from_dir(home.path())?;
    let aside = run.scratch().join("dev");
    let run = run.under(hide).under([script.as_ref(), aside.as_os_str()]);
    refused(run, 125, &["/dev/fuse"])?;
    Ok(())
}

#[test]
fn a_cache_that_is_read_only_too_small_or_full() -> Result<()> {
    let home = home()?;
    let scratch = Scratch::new()?;
    let device = LoopDevice::ext4(&scratch, "cache", 32 << 20)?;
    let on = |device: &LoopDevice| {
        Run::from_dir(home.path()).map(|run| run.arg("--cache").arg(device.path()))
    };

    refused(on(&device)?.args(["--cache-size", "1KiB"]), 125, &["cache", "small"])?;

    device.remount("ro")?;
    refused(on(&device)?, 125, &["cache", "read-only"])?;
    device.remount("rw")?;

    let filler = device.fill()?;
    // Space is reserved at the start, so a full disk shows there and never in the job.
    refused(on(&device)?, 125, &["cache", "no space"])?;
    fs::remove_file(filler)?;
    Ok(())
}

#[test]
fn wrong_arguments_and_unknown_config_keys() -> Result<()> {
    let scratch = Scratch::new()?;
    let state = scratch.dir("state")?;
    let base = format!(
        "listen = \"127.0.0.1:0\"\nnames = [\"127.0.0.1\"]\nstate = \"{}\"\n",
        state.display()
    );
    let check = |extra: &str| -> Result<(Option<i32>, String)> {
        let config = scratch.join("gateway.toml");
        fs::write(&config, format!("{base}{extra}"))?;
        let words =
            ["gateway".as_ref(), "--check".as_ref(), "--config".as_ref(), config.as_os_str()];
        let output = tidegate(words)?;
        Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
    };
    let (code, message) = check("lissten = 1\n")?;
    assert_eq!(code, Some(2), "{message}");
    assert!(message.contains("lissten"), "{message}");
    let (code, message) = check("[sources]\nallow = [\"/srv\"]\n")?;
    assert_eq!(code, Some(0), "{message}");

    for words in [
        &["run"][..],
        &["run", "--from", "/tmp"],
        &["run", "--rank", "x", "--", "true"],
        &["frobnicate"],
    ] {
        let output = tidegate(words)?;
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("--help"), "{words:?}");
    }
    let neither = tidegate(["run", "--", "true"])?;
    assert_eq!(neither.status.code(), Some(2));
    Ok(())
}

#[test]
fn a_port_that_is_taken() -> Result<()> {
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    let scratch = Scratch::new()?;
    let config = scratch.join("gateway.toml");
    let address = taken.local_addr()?.to_string();
    let state = scratch.dir("state")?;
    let text = format!(
        "listen = \"{address}\"\nnames = [\"127.0.0.1\"]\nstate = \"{}\"\n[sources]\nallow = [\"/srv\"]\n",
        state.display()
    );
    fs::write(&config, text)?;
    let output = tidegate(["gateway".as_ref(), "--config".as_ref(), config.as_os_str()])?;
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{message}");
    assert!(message.contains(&address), "{message}");
    Ok(())
}
