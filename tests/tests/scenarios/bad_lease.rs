//! What bad input gets across the two programs: clocks that are off, places outside what is allowed,
//! state that cannot be written, stores that go away, replicas with other keys.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use tidegate_tests::dataset;
use tidegate_tests::device::LoopDevice;
use tidegate_tests::digest;
use tidegate_tests::process::{check, wait_for};
use tidegate_tests::programs::{GatewayProgram, MountProgram};
use tidegate_tests::s3::S3;
use tidegate_tests::scratch::Scratch;
use tidegate_tests::tidegate::tidegate;
use tidegate_tests::versitygw::Versitygw;

const HOUR: i64 = 3600;
/// A grace that outlasts what is done to the state here.
const QUICK: &str = "heartbeat_s = 1\ngrace_s = 120\n";

fn home() -> Result<Scratch> {
    let home = Scratch::new()?;
    dataset::flat(home.path(), 4, 3 << 20, 50)?;
    Ok(home)
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// What an action says that must fail, and that it says no more than it may.
fn refusal<T>(outcome: Result<T>, secrets: &[&str]) -> Result<String> {
    let Err(error) = outcome else { anyhow::bail!("it succeeded") };
    let said = format!("{error:#}");
    ensure!(!said.contains("panicked"), "{said}");
    for secret in secrets {
        ensure!(!said.contains(secret), "{secret} leaked: {said}");
    }
    Ok(said)
}

/// Each side an hour before and behind the other: attach, keys, bytes and the wipe are the same.
#[test]
fn a_clock_that_is_an_hour_off_on_either_side_changes_nothing() -> Result<()> {
    let home = home()?;
    let want = digest::tree(home.path())?;
    for (gateway_s, worker_s) in [(0, HOUR), (0, -HOUR), (HOUR, 0), (-HOUR, 0)] {
        let gateway = GatewayProgram::start_at_clock(gateway_s, &text(home.path()), "")?;
        let join = gateway.lease("one.join", ["--from".as_ref(), home.path().as_os_str()])?;
        let mount = MountProgram::start_at_clock(worker_s, &join, &[])?;
        digest::assert_same(&want, &digest::tree(mount.data())?);
        let receipt = mount.finish()?;
        assert_eq!(receipt["outcome"], "wiped", "{gateway_s} {worker_s}: {receipt:#}");
        let stated = receipt["certificate"]["stated"]["time"].as_i64().context("no time")?;
        let closed = receipt["certificate"]["observed"]["closed_at"].as_i64().context("no time")?;
        // Each signed what its own clock said; nobody's is taken for the other's.
        let apart = stated - closed - (worker_s - gateway_s);
        ensure!(apart.abs() < 600, "stated {stated}, closed {closed}");
    }
    Ok(())
}

/// A gateway whose clock is set back keeps the time of its ledger; who is attached stays, and new
/// workers come in.
#[test]
fn a_gateway_whose_clock_was_set_back_goes_on() -> Result<()> {
    let home = home()?;
    let from = ["--from".as_ref(), home.path().as_os_str()];
    let mut gateway = GatewayProgram::start_at_clock(HOUR, &text(home.path()), "heartbeat_s = 1")?;
    let join = gateway.lease("one.join", from)?;
    let mount = MountProgram::start(&join, &["--cache-size", "17MiB"])?;
    fs::read(mount.data().join("00000.bin"))?;
    gateway.crash_and_restart_at_clock(0)?;
    digest::assert_same(&digest::contents(home.path())?, &digest::contents(mount.data())?);
    let other = gateway.lease("two.join", from)?;
    MountProgram::start(&other, &[])?.finish()?;
    let receipt = mount.finish()?;
    assert_eq!(receipt["outcome"], "wiped", "{receipt:#}");
    Ok(())
}

#[test]
fn a_lease_longer_than_policy_allows_is_refused_with_the_limit() -> Result<()> {
    let home = home()?;
    let from = text(home.path());
    // The table of limits ends the lines of the top.
    let gateway = GatewayProgram::start(&from, "[limits]\nlease_s = 3600\n")?;
    let said = refusal(gateway.lease("no.join", ["--from", &from, "--for", "2h"]), &[])?;
    ensure!(said.contains("at most 3600 seconds"), "{said}");
    gateway.lease("yes.join", ["--from", &from, "--for", "1h"])?;
    Ok(())
}

/// `..`, a link that leads out, a name that begins alike: none gets out of `sources.allow`, and
/// nothing is told of what lies there.
#[test]
fn no_path_leads_out_of_what_is_allowed() -> Result<()> {
    let place = Scratch::new()?;
    for folder in ["data", "data2", "elsewhere"] {
        dataset::write(&place.dir(folder)?, "inner/name-of-the-set", b"x")?;
    }
    std::os::unix::fs::symlink(place.join("elsewhere"), place.join("data/link"))?;
    let gateway = GatewayProgram::start(&text(&place.join("data")), "")?;
    let data = place.join("data");
    for path in ["../elsewhere", "inner/../../elsewhere", "link", "link/inner", "../data2", ".."] {
        let from = text(&data.join(path));
        let said = refusal(gateway.lease("no.join", ["--from", &from]), &["name-of-the-set"])?;
        ensure!(said.contains("sources.allow"), "{path}: {said}");
    }
    let beside = text(&place.join("data2"));
    let said = refusal(gateway.lease("no.join", ["--from", &beside]), &["name-of-the-set"])?;
    ensure!(said.contains("sources.allow"), "{said}");
    // Inside, `..` is no harm; and the link is data that leads nowhere for the job.
    let join = gateway.lease("yes.join", ["--from", &text(&data.join("inner/.."))])?;
    let mount = MountProgram::start(&join, &[])?;
    assert_eq!(fs::read_link(mount.data().join("link"))?, place.join("elsewhere"));
    assert_eq!(fs::read(mount.data().join("inner/name-of-the-set"))?, b"x");
    mount.finish()?;
    Ok(())
}

#[test]
fn no_bucket_prefix_leads_out_of_what_is_allowed() -> Result<()> {
    let server = Versitygw::start()?;
    let (store, own) = (server.client()?, Scratch::new()?);
    for bucket in ["train", "training"] {
        store.create_bucket(bucket)?;
        store.put(bucket, "cars/name-of-the-set", b"x")?;
        store.put(bucket, "carsick/name-of-the-set", b"x")?;
    }
    let credentials = store.credentials_file(&own)?;
    let gateway = GatewayProgram::start(&store.allowed("s3://train/cars", &credentials), "")?;
    let lease = |name: &str, from: &str| gateway.lease(name, ["--from", from]);
    for from in ["s3://train/carsick", "s3://train", "s3://training/cars", "s3://train/cars/../x"] {
        let said = refusal(lease("no.join", from), &["name-of-the-set", "testsecret"])?;
        ensure!(said.contains("sources.allow") || said.contains(".."), "{from}: {said}");
    }
    lease("yes.join", "s3://train/cars")?;
    Ok(())
}

/// Whoever asks for a lease does not choose the store: neither another's data leaves, nor do the
/// gateway's credentials go anywhere else.
#[test]
fn no_request_names_another_store_or_other_credentials() -> Result<()> {
    let (server, elsewhere) = (Versitygw::start()?, Versitygw::start()?);
    let (store, other, own) = (server.client()?, elsewhere.client()?, Scratch::new()?);
    for store in [&store, &other] {
        store.create_bucket("train")?;
        store.put("train", "cars/one", b"x")?;
    }
    let credentials = store.credentials_file(&own)?;
    let mut gateway = GatewayProgram::start(&store.allowed("s3://train", &credentials), "")?;
    let lease = |gateway: &GatewayProgram, name: &str, more: &[&str]| {
        gateway.lease(name, ["--from", "s3://train/cars"].iter().chain(more))
    };
    let asked = elsewhere.access_log();
    for more in [
        ["--s3-endpoint", other.endpoint()],
        ["--s3-credentials", "/etc/passwd"],
        ["--s3-profile", "root"],
        ["--s3-region", "eu-west-1"],
    ] {
        let said = refusal(lease(&gateway, "no.join", &more), &["testsecret"])?;
        ensure!(said.contains("sources.allow"), "{more:?}: {said}");
    }
    assert_eq!(elsewhere.access_log(), asked, "nothing was sent there");
    // What the configuration says may be repeated, and holds after a restart.
    let join = lease(&gateway, "yes.join", &["--s3-endpoint", store.endpoint()])?;
    gateway.crash_and_restart()?;
    let mount = MountProgram::start(&join, &[])?;
    assert_eq!(fs::read(mount.data().join("one"))?, b"x");
    mount.finish()?;
    Ok(())
}

/// A gateway leases neither its state's bucket nor what holds it.
#[test]
fn the_bucket_of_the_state_cannot_be_leased() -> Result<()> {
    let server = Versitygw::start()?;
    let (store, own) = (server.client()?, Scratch::new()?);
    store.create_bucket("state")?;
    let credentials = store.credentials_file(&own)?;
    let lines = in_bucket(&store, &own, None)?;
    let gateway = GatewayProgram::start(&store.allowed("s3://", &credentials), &lines)?;
    for from in ["s3://state", "s3://state/site", "s3://state/site/ledger"] {
        let said = refusal(gateway.lease("no.join", ["--from", from]), &["testsecret"])?;
        ensure!(said.contains("own state"), "{from}: {said}");
    }
    Ok(())
}

/// At the start: it says which place, and why.
#[test]
fn a_state_directory_that_is_read_only_or_full_is_refused() -> Result<()> {
    let (home, scratch) = (home()?, Scratch::new()?);
    let device = LoopDevice::ext4(&scratch, "state", 16 << 20)?;
    let state = device.path().join("state");
    let start = || GatewayProgram::start_in(&state, &text(home.path()), "");
    let filler = device.fill()?;
    let said = refusal(start(), &[])?;
    ensure!(said.contains("No space left") && said.contains(&text(&state)), "{said}");
    fs::remove_file(filler)?;
    device.remount("ro")?;
    let said = refusal(start(), &[])?;
    ensure!(said.contains("Read-only") && said.contains(&text(&state)), "{said}");
    device.remount("rw")?;
    start()?;
    Ok(())
}

/// Keys are made there when a period begins: a gateway that could not is not to find out then.
#[test]
fn secrets_that_are_mounted_read_only_are_refused() -> Result<()> {
    let server = Versitygw::start()?;
    let (store, own, home) = (server.client()?, Scratch::new()?, home()?);
    store.create_bucket("state")?;
    let device = LoopDevice::ext4(&own, "secrets", 16 << 20)?;
    let secrets = device.path().join("secrets");
    let lines = in_bucket(&store, &own, Some(&secrets))?;
    let from = text(home.path());
    let mut gateway = GatewayProgram::start(&from, &lines)?;
    gateway.lease("one.join", ["--from", &from])?;
    gateway.process().stop(rustix::process::Signal::TERM)?;
    device.remount("ro")?;
    let said = refusal(gateway.restart(), &["testsecret"])?;
    ensure!(said.contains("`secrets`") && said.contains("Read-only"), "{said}");
    let config = gateway.config();
    let words = ["gateway".as_ref(), "--check".as_ref(), "--config".as_ref(), config.as_os_str()];
    let output = tidegate(words)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(2) && said.contains("read-only"), "{said}");
    device.remount("rw")?;
    gateway.restart()
}

/// Under a lease that lives: nothing new is granted, no read fails, and all of it comes back.
#[test]
fn a_state_directory_that_fills_up_stops_what_is_new() -> Result<()> {
    let (home, scratch) = (home()?, Scratch::new()?);
    let device = LoopDevice::ext4(&scratch, "state", 32 << 20)?;
    let from = text(home.path());
    let gateway = GatewayProgram::start_in(&device.path().join("state"), &from, QUICK)?;
    let join = gateway.lease("one.join", ["--from", &from])?;
    let mount = MountProgram::start(&join, &[])?;
    let filler = device.fill()?;
    let said = refusal(gateway.lease("two.join", ["--from", &from]), &[])?;
    ensure!(said.contains("No space left"), "{said}");
    let read = std::thread::scope(|scope| -> Result<_> {
        let reader = scope.spawn(|| digest::contents(mount.data()));
        fs::remove_file(&filler)?;
        reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))?
    })?;
    digest::assert_same(&digest::contents(home.path())?, &read);
    gateway.lease("three.join", ["--from", &from])?;
    let receipt = mount.finish()?;
    assert_eq!(receipt["outcome"], "wiped", "{receipt:#}");
    Ok(())
}

/// Lines of configuration for state in a bucket.
fn in_bucket(store: &S3, own: &Scratch, secrets: Option<&Path>) -> Result<String> {
    let secrets =
        secrets.map_or_else(String::new, |path| format!("secrets = \"{}\"\n", path.display()));
    Ok(format!(
        "{QUICK}{secrets}[state_bucket]\nurl = \"s3://state/site\"\n\
         endpoint = \"{}\"\ncredentials_file = \"{}\"\n",
        store.endpoint(),
        store.credentials_file(own)?.display()
    ))
}

/// The bucket goes away under a lease and comes back within the grace: reads wait, none fails; what
/// is asked for meanwhile is refused with the reason.
#[test]
fn a_bucket_that_goes_away_in_flight_stalls_and_is_said() -> Result<()> {
    let mut server = Versitygw::start()?;
    let (store, own, home) = (server.client()?, Scratch::new()?, home()?);
    store.create_bucket("state")?;
    let from = text(home.path());
    let lines = format!("rate_limit = 3000000\n{}", in_bucket(&store, &own, None)?);
    let gateway = GatewayProgram::start(&from, &lines)?;
    let join = gateway.lease("one.join", ["--from", &from])?;
    let mount = MountProgram::start(&join, &[])?;
    let want = digest::contents(home.path())?;
    server.stop()?;
    let said = refusal(gateway.lease("two.join", ["--from", &from]), &["testsecret"])?;
    ensure!(said.contains("cannot be"), "{said}");
    std::thread::scope(|scope| -> Result<()> {
        let reader = scope.spawn(|| digest::contents(mount.data()));
        // The gateway says 503 for what it cannot check; the worker goes on asking.
        wait_for("the gateway to notice", || gateway.log().contains("cannot be").then_some(()))?;
        server.start_again()?;
        let read = reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
        digest::assert_same(&want, &read);
        Ok(())
    })?;
    ensure!(!gateway.log().contains("testsecret"), "a secret is in the log");
    let receipt = mount.finish()?;
    assert_eq!(receipt["outcome"], "wiped", "{receipt:#}");
    assert_eq!(receipt["read_errors"], 0, "{receipt:#}");
    Ok(())
}

/// A replica that was given other keys, or only some of the same, does not start; the one that
/// serves is not disturbed.
#[test]
fn a_replica_with_other_keys_does_not_start_and_harms_nothing() -> Result<()> {
    let server = Versitygw::start()?;
    let (store, own, home) = (server.client()?, Scratch::new()?, home()?);
    store.create_bucket("state")?;
    let from = text(home.path());
    let ours = own.join("secrets");
    let gateway = GatewayProgram::start(&from, &in_bucket(&store, &own, Some(&ours))?)?;
    let join = gateway.lease("one.join", ["--from", &from])?;
    let mount = MountProgram::start(&join, &[])?;

    let others = own.join("other-secrets");
    let start = || GatewayProgram::start(&from, &in_bucket(&store, &own, Some(&others))?);
    let said = refusal(start(), &["testsecret"])?;
    ensure!(said.contains("same `secrets`"), "{said}");
    ensure!(!said.contains("gateway restore"), "nobody is to be misled into that: {said}");

    // All of them but the key of this epoch.
    fs::remove_dir_all(&others)?;
    check(std::process::Command::new("cp").arg("-a").arg(&ours).arg(&others))?;
    fs::remove_dir_all(others.join("keyring/epochs"))?;
    let said = refusal(start(), &["testsecret"])?;
    ensure!(said.contains("key of epoch") && said.contains("same `secrets`"), "{said}");

    // The same keys, and another length of their periods.
    let lines = format!("key_epoch_s = 86400\n{}", in_bucket(&store, &own, Some(&ours))?);
    let said = refusal(GatewayProgram::start(&from, &lines), &["testsecret"])?;
    ensure!(said.contains("Set it to 604800"), "{said}");

    digest::assert_same(&digest::tree(home.path())?, &digest::tree(mount.data())?);
    let shown = gateway.show(&join)?;
    assert_eq!(shown["phase"], "active", "{shown:#}");
    let receipt = mount.finish()?;
    assert_eq!(receipt["outcome"], "wiped", "{receipt:#}");
    Ok(())
}

/// `--check` reads what the values name, and says which key is wrong.
#[test]
fn a_config_is_checked_value_by_value() -> Result<()> {
    let scratch = Scratch::new()?;
    let config = scratch.join("gateway.toml");
    let check = |top: &str, more: &str| -> Result<(Option<i32>, String)> {
        let text = format!(
            "names = [\"127.0.0.1\"]\nstate = \"{}\"\n{top}[sources]\nallow = [\"/no/such/place\"]\n{more}",
            scratch.join("state").display()
        );
        fs::write(&config, text)?;
        let words = ["gateway".as_ref(), "--check".as_ref(), "--config".as_ref()];
        let output = tidegate(words.into_iter().chain([config.as_os_str()]))?;
        Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
    };
    let listen = "listen = \"127.0.0.1:0\"\n";
    let bucket = "[state_bucket]\nurl = \"s3://state\"\n";
    for (key, top, more) in [
        ("listen", "listen = \"nowhere\"\n".to_owned(), ""),
        ("grace_s", format!("{listen}grace_s = 20\n"), ""),
        ("checkpoint_copy", format!("{listen}checkpoint_copy = \"/no/such/place/copy\"\n"), ""),
        ("state_bucket.endpoint", listen.to_owned(), "endpoint = \"rgw\"\n"),
        ("state_bucket.credentials_file", listen.to_owned(), "credentials_file = \"/nowhere\"\n"),
    ] {
        let more = if more.is_empty() { String::new() } else { format!("{bucket}{more}") };
        let (code, said) = check(&top, &more)?;
        assert_eq!(code, Some(2), "{key}: {said}");
        ensure!(said.contains(key), "{key}: {said}");
    }
    let (code, said) = check(listen, "")?;
    assert_eq!(code, Some(0), "{said}");
    ensure!(said.contains("/no/such/place"), "a directory that is missing is said: {said}");
    ensure!(!scratch.join("state").exists(), "a check makes nothing");
    Ok(())
}
