//! State that was set back to an older copy: nothing starts on it, and `restore` makes a new beginning
//! that says what is missing.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use tidegate_tests::dataset;
use tidegate_tests::digest;
use tidegate_tests::process::check;
use tidegate_tests::programs::{GatewayProgram, MountProgram, lease_of, succeed};
use tidegate_tests::scratch::Scratch;
use tidegate_tests::tidegate::tidegate;
use tidegate_tests::versitygw::Versitygw;

struct Site {
    home: Scratch,
    gateway: GatewayProgram,
}

impl Site {
    fn new(extra: &str) -> Result<Self> {
        let home = Scratch::new()?;
        dataset::flat(home.path(), 3, 400_000, 70)?;
        let gateway = GatewayProgram::start(&home.path().display().to_string(), extra)?;
        Ok(Self { home, gateway })
    }

    fn lease(&self, name: &str) -> Result<PathBuf> {
        self.gateway.lease(name, ["--from".as_ref(), self.home.path().as_os_str()])
    }

    /// A lease that lives and dies.
    fn spend(&self, name: &str) -> Result<()> {
        MountProgram::start(&self.lease(name)?, &[])?.finish()?;
        Ok(())
    }

    /// It must not come up; what it says.
    fn refuses(&mut self) -> Result<String> {
        match self.gateway.restart() {
            Ok(()) => anyhow::bail!("a gateway runs on state that was set back"),
            Err(error) => Ok(format!("{error:#}")),
        }
    }

    fn restore(&self, more: &[&str]) -> Result<std::process::Output> {
        let mut words: Vec<OsString> = ["gateway", "restore", "--config"].map(Into::into).into();
        words.push(self.gateway.config().into());
        words.extend(more.iter().map(Into::into));
        tidegate(words)
    }

    /// What the way out is: a refusal with the reason, a restore, and a gateway as good as new.
    fn comes_back(&mut self, old_join: &Path) -> Result<()> {
        let said = self.refuses()?;
        ensure!(said.contains("tidegate gateway restore"), "it says what to do: {said}");
        let asked = self.restore(&[])?;
        assert_eq!(asked.status.code(), Some(2), "without a terminal nobody can say yes");
        self.refuses()?;
        let done = self.restore(&["--yes"])?;
        let told = String::from_utf8_lossy(&done.stderr).into_owned();
        ensure!(done.status.success(), "{told}");
        ensure!(
            told.contains("are lost") && told.contains("1 leases closed as withdrawn"),
            "{told}"
        );
        self.gateway.restart()?;

        let mut refused = MountProgram::launch(old_join, &[])?;
        assert_eq!(refused.process().wait()?.code(), Some(125), "{}", refused.log());
        let mount = MountProgram::start(&self.lease("after.join")?, &[])?;
        let want = digest::tree(self.home.path())?;
        digest::assert_same(&want, &digest::tree(mount.data())?);
        mount.finish()?;
        let running = self.restore(&["--yes"])?;
        let said = String::from_utf8_lossy(&running.stderr).into_owned();
        ensure!(!running.status.success() && said.contains("another gateway runs"), "{said}");
        Ok(())
    }
}

/// The verdict on a ledger, and the story of the lease that a restore withdrew.
fn told(ledger: &Path, lease: &str) -> Result<(Value, String)> {
    let words = |words: &[&str]| -> Vec<OsString> {
        let words = words.iter().map(OsString::from);
        words.chain(["--ledger".into(), ledger.into()]).collect()
    };
    let verdict = succeed(tidegate(words(&["--json", "audit", "verify"]))?)?;
    let mut show = words(&["audit", "show"]);
    show.push(lease.into());
    let story = succeed(tidegate(show)?)?;
    Ok((serde_json::from_str(&verdict)?, story.split_whitespace().collect::<Vec<_>>().join(" ")))
}

fn assert_told(ledger: &Path, lease: &str) -> Result<()> {
    let (verdict, story) = told(ledger, lease)?;
    let ledgers = verdict["ledgers"].as_array().context("no list of ledgers")?;
    assert_eq!(ledgers.len(), 2, "{verdict:#}");
    ensure!(ledgers.iter().all(|ledger| ledger["holds"] == true), "{verdict:#}");
    ensure!(ledgers[0]["lost"].as_u64() > Some(0), "{verdict:#}");
    for words in
        ["closed, withdrawn", "restored the gateway's state", "entries left", "entries known of"]
    {
        ensure!(story.contains(words), "{words}: {story}");
    }
    Ok(())
}

#[test]
fn a_state_directory_that_was_set_back() -> Result<()> {
    let mut site = Site::new("heartbeat_s = 1\ngrace_s = 60")?;
    site.spend("one.join")?;
    let open = site.lease("open.join")?;
    let mount = MountProgram::start(&open, &[])?;
    fs::read(mount.data().join("00000.bin"))?;
    site.gateway.process().stop(Signal::KILL)?;
    let state = site.gateway.state();
    let backup = state.with_extension("backup");
    check(Command::new("cp").arg("-a").arg(&state).arg(&backup))?;
    site.gateway.restart()?;
    site.spend("two.join")?;
    mount.finish()?;
    site.gateway.process().stop(Signal::TERM)?;

    fs::remove_dir_all(&state)?;
    fs::rename(&backup, &state)?;
    site.comes_back(&open)?;
    assert_told(&state, &lease_of(&open)?)
}

#[test]
fn a_bucket_that_was_set_back() -> Result<()> {
    let server = Versitygw::start()?;
    let (store, own) = (server.client()?, Scratch::new()?);
    store.create_bucket("state")?;
    let mut site = Site::new(&format!(
        "heartbeat_s = 1\ngrace_s = 60\n[state_bucket]\nurl = \"s3://state/site\"\nendpoint = \"{}\"\n\
         credentials_file = \"{}\"\n",
        store.endpoint(),
        store.credentials_file(&own)?.display()
    ))?;
    let open = site.lease("open.join")?;
    let mount = MountProgram::start(&open, &[])?;
    fs::read(mount.data().join("00000.bin"))?;
    site.gateway.process().stop(Signal::KILL)?;
    let backup = own.join("backup");
    check(Command::new("cp").arg("-a").arg(server.bucket("state")).arg(&backup))?;
    let before: BTreeSet<_> = store.list("state")?.into_iter().collect();
    site.gateway.restart()?;
    site.spend("two.join")?;
    mount.finish()?;
    site.gateway.process().stop(Signal::TERM)?;

    let after: BTreeSet<_> = store.list("state")?.into_iter().collect();
    for key in after.difference(&before) {
        store.delete("state", key)?;
    }
    for key in before.difference(&after) {
        store.put("state", key, &fs::read(backup.join(key))?)?;
    }
    site.comes_back(&open)?;
    let copy = own.join("copy");
    check(Command::new("cp").arg("-a").arg(server.bucket("state")).arg(&copy))?;
    assert_told(&copy.join("site"), &lease_of(&open)?)
}

/// A replica that nobody stopped: what it still wrote is named, and it writes no more.
#[test]
fn a_restore_beside_a_replica_that_was_left_running() -> Result<()> {
    let server = Versitygw::start()?;
    let (store, own) = (server.client()?, Scratch::new()?);
    store.create_bucket("state")?;
    let lines = format!(
        "heartbeat_s = 1\ngrace_s = 60\nsecrets = \"{}\"\n[state_bucket]\nurl = \"s3://state/site\"\n\
         endpoint = \"{}\"\ncredentials_file = \"{}\"\n",
        own.join("secrets").display(),
        store.endpoint(),
        store.credentials_file(&own)?.display()
    );
    let (left, mut site) = (Site::new(&lines)?, Site::new(&lines)?);
    site.gateway.process().stop(Signal::KILL)?;
    let open = left.lease("open.join")?;
    // It goes on granting until it is told that another ledger followed.
    let stop = std::sync::atomic::AtomicBool::new(false);
    let (granted, last) = std::thread::scope(|scope| -> Result<_> {
        let granting = scope.spawn(|| {
            let mut granted = 1;
            loop {
                match left.lease(&format!("{granted}.join")) {
                    Ok(_) => granted += 1,
                    Err(error) => return (granted, format!("{error:#}")),
                }
                if stop.load(std::sync::atomic::Ordering::SeqCst) {
                    return (granted, "it was never told".into());
                }
            }
        });
        let done = site.restore(&["--yes"]);
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        let granted = granting.join().map_err(|_| anyhow::anyhow!("it panicked"))?;
        succeed(done?)?;
        Ok(granted)
    })?;
    ensure!(last.contains("another ledger followed"), "{last}");
    let copy = own.join("copy");
    check(Command::new("cp").arg("-a").arg(server.bucket("state")).arg(&copy))?;
    let (verdict, story) = told(&copy.join("site"), &lease_of(&open)?)?;
    let ledgers = verdict["ledgers"].as_array().context("no list of ledgers")?;
    assert_eq!(ledgers.len(), 2, "{verdict:#}");
    ensure!(ledgers.iter().all(|ledger| ledger["holds"] == true), "{verdict:#}");
    assert_eq!(ledgers[0]["beyond"], 0, "the new one names all of it: {verdict:#}");
    ensure!(story.contains("closed, withdrawn"), "{story}");
    let keys = store.list("state")?;
    ensure!(!keys.iter().any(|key| key.contains("wrapped/")), "a key stayed: {keys:?}");
    ensure!(granted > 1, "it was not busy");
    Ok(())
}
