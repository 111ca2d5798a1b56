//! A replica that stands still between a release's entry and its answer: what it recorded before the
//! pause it does not hand over after it.

use std::fs;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::io::Errno;
use rustix::process::Signal;
use serde_json::Value;
use tidegate_tests::between::{Between, Look};
use tidegate_tests::dataset;
use tidegate_tests::http::Message;
use tidegate_tests::process::{freeze, signal_pid, wait_for};
use tidegate_tests::programs::{MountProgram, lease_of};
use tidegate_tests::site::{Site, entries_of};

/// Two blocks a window, each a file.
const CONFIG: &str = "heartbeat_s = 1\ngrace_s = 20\nlimits.window = 8388608\n";
const BLOCK: usize = 4 << 20;
const FILES: u64 = 24;
/// Far from what a cache of five slots has fetched ahead.
const FAR: u64 = 20;
/// Longer than any answer may take.
const PAUSE: Duration = Duration::from_secs(12);
const EIO: i32 = Errno::IO.raw_os_error();

/// What the first replica asked of the store when it was stopped, and since when it stands.
#[derive(Default)]
struct Trap {
    /// The process to stop; 0 while nothing is to happen.
    pid: AtomicU32,
    caught: Mutex<Option<(String, Instant)>>,
}

impl Trap {
    /// Stops the replica after the store has made the object that holds a release's entry, and before
    /// the replica hears of it.
    fn look(self: &Arc<Self>) -> Look {
        let trap = Arc::clone(self);
        Arc::new(move |request: &Message, answer: &mut Message| {
            let records = request.line().starts_with("PUT ")
                && request.line().contains("/ledger")
                && request.body_has("keys-released")
                && answer.status() == 200;
            if !records {
                return;
            }
            let pid = trap.pid.swap(0, Ordering::SeqCst);
            if pid != 0 && freeze(pid).is_ok() {
                let batch = String::from_utf8_lossy(&request.body).into_owned();
                let mut caught = trap.caught.lock().unwrap_or_else(PoisonError::into_inner);
                *caught = Some((batch, Instant::now()));
            }
        })
    }

    /// The blocks whose keys were about to leave, and since when they do not.
    fn wait(&self) -> Result<(Range<u64>, Instant)> {
        let (batch, since) = wait_for("a release to be recorded", || {
            self.caught.lock().unwrap_or_else(PoisonError::into_inner).take()
        })?;
        let batch: Value = serde_json::from_str(&batch)?;
        let entries = batch["entries"].as_array().context("a batch without entries")?;
        let parsed = entries.iter().filter_map(|entry| serde_json::from_str(entry.as_str()?).ok());
        let released = parsed
            .map(|entry: Value| entry["event"].clone())
            .find(|event| event["type"] == "keys-released")
            .context("no release in the batch")?;
        let number = |key: &str| released[key].as_u64().context("no block number");
        Ok((number("first_block")?..number("end_block")?, since))
    }
}

/// An answer of the first replica to a request for keys.
#[derive(Clone)]
struct Answer {
    asked: String,
    status: u16,
    has_keys: bool,
}

/// Two replicas and a worker that speaks to the first through somebody who reads what is said.
struct Scene {
    site: Site,
    join: PathBuf,
    mount: MountProgram,
    trap: Arc<Trap>,
    answers: Arc<Mutex<Vec<Answer>>>,
}

impl Scene {
    fn new(seed: u64) -> Result<Self> {
        let trap = Arc::new(Trap::default());
        let site = Site::start_watched(2, CONFIG, trap.look(), |home| {
            dataset::flat(home.path(), FILES, BLOCK, seed)
        })?;
        let join = site.lease(0, "one.join")?;
        let answers = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&answers);
        let look: Look = Arc::new(move |request, answer| {
            if request.line().contains("/keys ") {
                heard.lock().unwrap_or_else(PoisonError::into_inner).push(Answer {
                    asked: String::from_utf8_lossy(&request.body).into_owned(),
                    status: answer.status(),
                    has_keys: answer.body_has("\"sealed\""),
                });
            }
        });
        let between = Between::tls(site.gateways[0].port(), &site.authority(), look)?;
        let mount = MountProgram::start(&between.join(&join)?, &["--cache-size", "22MiB"])?;
        Ok(Self { site, join, mount, trap, answers })
    }

    fn answers(&self) -> Vec<Answer> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn name(file: u64) -> String {
        format!("{file:05}.bin")
    }

    /// Reads a file whose keys are not there yet, and stops the first replica on its way to give some.
    fn stop_within_a_release(&self) -> Result<(Range<u64>, Instant, JoinHandle<Reading>)> {
        fs::read(self.mount.data().join(Self::name(0)))?;
        ensure!(self.answers().iter().any(|answer| answer.has_keys), "keys come this way");
        self.trap.pid.store(self.site.gateways[0].pid(), Ordering::SeqCst);
        let path = self.mount.data().join(Self::name(FAR));
        let reader = thread::spawn(move || fs::read(path));
        let (window, since) = self.trap.wait()?;
        Ok((window, since, reader))
    }

    /// Lets the first replica go on once the pause was long enough: what it then says to the request
    /// that it had recorded.
    fn go_on(&self, window: &Range<u64>, since: Instant, pause: Duration) -> Result<Answer> {
        thread::sleep(pause.saturating_sub(since.elapsed()));
        let known = self.answers().len();
        signal_pid(self.site.gateways[0].pid(), Signal::CONT)?;
        wait_for("the late answer", || {
            let late = self.answers().split_off(known);
            late.into_iter().find(|answer| {
                let asked: Value = serde_json::from_str(&answer.asked).unwrap_or_default();
                asked["first_block"] == window.start && asked["end_block"] == window.end
            })
        })
    }

    /// How often the ledger, which verifies, says that keys of these blocks were released.
    fn times_recorded(&self, window: &Range<u64>) -> Result<usize> {
        let entries = self.site.ledger()?;
        let released = entries_of(&entries, "keys-released", &lease_of(&self.join)?);
        Ok(released
            .iter()
            .map(|entry| &entry["event"])
            .filter(|event| {
                event["first_block"] == window.start && event["end_block"] == window.end
            })
            .count())
    }
}

type Reading = std::io::Result<Vec<u8>>;

fn end_of(reader: JoinHandle<Reading>) -> Result<Reading> {
    reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))
}

/// The lease is revoked at the other replica meanwhile: it stays revoked, and the keys stay at home.
#[test]
fn what_was_recorded_before_a_revocation_is_not_given_after_it() -> Result<()> {
    recorded_and_revoked(PAUSE)
}

pub(crate) fn recorded_and_revoked(pause: Duration) -> Result<()> {
    let mut scene = Scene::new(640)?;
    wait_for("the other to learn of the lease", || scene.site.gateways[1].show(&scene.join).ok())?;
    let (window, since, reader) = scene.stop_within_a_release()?;
    assert_eq!(scene.times_recorded(&window)?, 1, "recorded");
    scene.site.gateways[1].revoke(&scene.join)?;
    let error = end_of(reader)?.err().context("read what nobody gave keys for")?;
    assert_eq!(error.raw_os_error(), Some(EIO), "{error}");
    scene.mount.process().wait()?;
    let closed = |scene: &Scene, replica: usize| {
        let shown = scene.site.gateways[replica].show(&scene.join).ok()?;
        ["wiped", "withdrawn"].iter().any(|end| shown["phase"] == *end).then_some(shown)
    };
    let ended = wait_for("the lease to be closed", || closed(&scene, 1))?;

    let late = scene.go_on(&window, since, pause)?;
    ensure!(late.status == 410 || late.status == 503, "{}", late.status);
    ensure!(!late.has_keys, "keys left after the lease had been revoked");

    let lease = lease_of(&scene.join)?;
    let shown = wait_for("the other to see it closed", || closed(&scene, 0))?;
    assert_eq!(shown["phase"], ended["phase"], "{shown:#}");
    assert_eq!(shown["ending"]["cause"], "revoked", "{shown:#}");
    ensure!(scene.site.holds_no_key_of(&lease), "a key stayed");
    // Recorded, though it was not given.
    assert_eq!(scene.times_recorded(&window)?, 1);
    let entries = scene.site.ledger()?;
    assert_eq!(entries_of(&entries, "lease-closed", &lease).len(), 1, "{entries:#?}");
    Ok(())
}

/// The lease lives on: the answer is too old all the same, and the worker had its keys elsewhere.
#[test]
fn what_is_too_old_is_not_given_though_the_lease_lives() -> Result<()> {
    let scene = Scene::new(650)?;
    let (window, since, reader) = scene.stop_within_a_release()?;
    let read = end_of(reader)??;
    ensure!(read == fs::read(scene.site.home.path().join(Scene::name(FAR)))?, "other bytes");
    let late = scene.go_on(&window, since, PAUSE)?;
    assert_eq!((late.status, late.has_keys), (503, false));
    for file in 0..FILES {
        let read = fs::read(scene.mount.data().join(Scene::name(file)))?;
        ensure!(read == fs::read(scene.site.home.path().join(Scene::name(file)))?, "other bytes");
    }
    ensure!(scene.times_recorded(&window)? >= 2, "the other replica recorded what it gave");
    let Scene { site, mount, .. } = scene;
    let receipt = mount.finish()?;
    assert_eq!((&receipt["outcome"], &receipt["read_errors"]), (&"wiped".into(), &0.into()));
    site.ledger()?;
    Ok(())
}
