//! Any operations on a file, by two writers, with a worker that is killed at any step, against a vector
//! of bytes.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use tokio::time::timeout;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Write {
        at: usize,
        len: usize,
        seed: u64,
    },
    Append {
        len: usize,
        seed: u64,
    },
    Resize(usize),
    Read {
        at: usize,
        len: usize,
    },
    /// A second writer patches what is there while a sync is on its way.
    Patch {
        block: usize,
        seed: u64,
    },
    Sync,
    Rename,
    /// Another file takes the name while this one is open, and gives it back.
    Replace,
    Unlink,
    Reopen,
    /// What is home leaves the worker.
    LetGo,
    /// A sync is cut off after so many requests, the worker is killed, and another goes on.
    Kill(usize),
}

/// A little around the edges of blocks and parts, mostly.
fn offset() -> impl Strategy<Value = usize> {
    prop_oneof![
        2 => 0..40 * MIB,
        2 => (0_usize..40, 0_usize..3).prop_map(|(block, more)| (block * MIB + more).saturating_sub(1)),
        3 => (0_usize..3, 0_usize..3)
            .prop_map(|(part, more)| (part * 16 * MIB + more).saturating_sub(1)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let len = || prop_oneof![1_usize..5000, 1_usize..3 * MIB];
    prop_oneof![
        4 => (offset(), len(), any::<u64>()).prop_map(|(at, len, seed)| Step::Write { at, len, seed }),
        4 => (prop_oneof![1_usize..5000, 1_usize..20 * MIB, 18 * MIB..30 * MIB], any::<u64>())
            .prop_map(|(len, seed)| Step::Append { len, seed }),
        2 => offset().prop_map(Step::Resize),
        2 => (0_usize..4).prop_map(|part| Step::Resize(part * 16 * MIB)),
        2 => (offset(), len()).prop_map(|(at, len)| Step::Read { at, len }),
        2 => (0_usize..60, any::<u64>()).prop_map(|(block, seed)| Step::Patch { block, seed }),
        2 => Just(Step::Sync),
        1 => Just(Step::Rename),
        1 => Just(Step::Replace),
        1 => Just(Step::Unlink),
        1 => Just(Step::Reopen),
        2 => Just(Step::LetGo),
        3 => (0_usize..9).prop_map(Step::Kill),
    ]
}

const LONGEST: usize = 70 * MIB;
const LONG: Duration = Duration::from_secs(60);

struct Run {
    worker: Worker,
    file: (u64, u64),
    name: &'static str,
    model: Vec<u8>,
}

impl Run {
    async fn write(&mut self, at: usize, new: &[u8]) {
        self.worker.write(self.file.0, at as u64, new).await;
        self.model.resize(self.model.len().max(at + new.len()), 0);
        self.model[at..at + new.len()].copy_from_slice(new);
    }

    async fn resize(&mut self, len: usize) {
        let size = Some(len as u64);
        let new = NewAttributes { size, ..NewAttributes::default() };
        let set = self.worker.results.set_attributes(self.worker.caller(), self.file.0, new).await;
        assert_eq!(set.unwrap().size, len as u64);
        self.model.resize(len, 0);
    }

    async fn sync(&self) {
        timeout(LONG, self.worker.results.fsync(self.file.0)).await.unwrap().unwrap();
        if !self.worker.how.asynchronous {
            assert!(self.worker.home.bytes(self.name).unwrap() == self.model);
        }
    }

    /// Patches one place while a sync is under way: the sync takes what is before or behind.
    async fn patch(&mut self, block: usize, seed: u64) {
        let at = (block * MIB).min(self.model.len());
        let (results, node) = (Arc::clone(&self.worker.results), self.file.0);
        let syncing = tokio::spawn(async move { results.fsync(node).await });
        self.write(at, &bytes(seed, 700)).await;
        timeout(LONG, syncing).await.unwrap().unwrap().unwrap();
    }

    async fn replace(&mut self) {
        self.worker.put("other", b"other").await.unwrap();
        self.worker.rename("other", self.name).await.unwrap();
        assert_eq!(self.worker.home.bytes("other"), None);
        self.anew().await;
    }

    /// The open file has no name any more; another is made.
    async fn anew(&mut self) {
        let _nameless = timeout(LONG, self.worker.close(self.file)).await.unwrap();
        self.file = self.worker.create(self.name).await;
        self.model.clear();
    }

    /// Kills the worker in the middle of a sync. What was acknowledged is there, what was not is there
    /// whole, or said to be lost.
    async fn kill(mut self, after: usize) -> Self {
        let (results, node) = (Arc::clone(&self.worker.results), self.file.0);
        self.worker.home.end_after(after);
        let mut syncing = tokio::spawn(async move { results.fsync(node).await });
        let synced = tokio::select! {
            synced = &mut syncing => { synced.unwrap().unwrap(); true }
            () = self.worker.home.has_ended() => false,
        };
        if !synced {
            syncing.abort();
            let _aborted = syncing.await;
        }
        self.worker = self.worker.killed().await;
        self.worker.home.heal();
        assert_eq!(self.worker.node(self.name), Some(self.file.0));
        match timeout(LONG, self.worker.results.fsync(node)).await.unwrap() {
            Ok(()) => {
                let seen = timeout(LONG, self.worker.read(node)).await.unwrap().unwrap();
                assert!(seen == self.model, "after a kill");
            }
            Err(FsError::Lost) => {
                assert!(!synced, "what was acknowledged is lost");
                self.resize(0).await;
            }
            Err(error) => panic!("{error}"),
        }
        self
    }
}

async fn run(how: How, steps: Vec<Step>) {
    let worker = Worker::start(how).await;
    let file = worker.create("f").await;
    let mut run = Run { worker, file, name: "f", model: Vec::new() };
    for (number, step) in steps.into_iter().enumerate() {
        match step {
            Step::Write { at, len, seed } => run.write(at, &bytes(seed, len)).await,
            Step::Append { len, seed } => {
                if run.model.len() + len <= LONGEST {
                    run.write(run.model.len(), &bytes(seed, len)).await;
                }
            }
            Step::Resize(len) => run.resize(len).await,
            Step::Read { at, len } => {
                let len32 = u32::try_from(len).unwrap();
                let read = run.worker.results.read(run.file.0, at as u64, len32);
                let seen = timeout(LONG, read).await.unwrap().unwrap();
                let expected = &run.model[at.min(run.model.len())..(at + len).min(run.model.len())];
                assert!(seen[..] == *expected, "step {number}: read at {at} of {len}");
            }
            Step::Patch { block, seed } => run.patch(block, seed).await,
            Step::Sync => run.sync().await,
            Step::Kill(after) => run = run.kill(after).await,
            Step::LetGo => {
                run.worker.results.core.let_go();
            }
            Step::Replace => run.replace().await,
            Step::Unlink => {
                run.worker.unlink(run.name).await.unwrap();
                run.anew().await;
            }
            Step::Rename => {
                let other = if run.name == "f" { "g" } else { "f" };
                run.worker.rename(run.name, other).await.unwrap();
                run.name = other;
            }
            Step::Reopen => {
                timeout(LONG, run.worker.close(run.file)).await.unwrap().unwrap();
                run.file.1 = run.worker.results.open(run.file.0, true).unwrap();
            }
        }
        let size = run.worker.results.attributes(run.file.0).unwrap().size;
        assert_eq!(size, run.model.len() as u64, "step {number}");
    }
    timeout(LONG, run.worker.close(run.file)).await.unwrap().unwrap();
    let stated = run.worker.results.drain(boottime() + Duration::from_secs(600)).await;
    assert_eq!(stated.lost_files, 0);
    assert!(run.worker.home.bytes(run.name).unwrap() == run.model, "at the end");
    assert_eq!(run.worker.home.lock().files.len(), 1);
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_file_at_home_is_what_was_written(
        steps in prop::collection::vec(step(), 1..25),
        asynchronous in any::<bool>(),
        tight in any::<bool>(),
    ) {
        let how = How {
            asynchronous,
            // A file that is mostly holes needs a place for all of it.
            spool: tight.then_some(80 << 20),
            budget: if tight { 0 } else { 128 << 20 },
            ..PLAIN
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(run(how, steps));
    }
}

/// The same few each time; `TIDEGATE_MODEL_CASES` and `TIDEGATE_MODEL_SEED` draw more, and others;
/// `TIDEGATE_MODEL_SHRINK` bounds how often a failure is made smaller.
fn config() -> ProptestConfig {
    let said = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    ProptestConfig {
        cases: said("TIDEGATE_MODEL_CASES").and_then(|cases| cases.try_into().ok()).unwrap_or(8),
        rng_seed: RngSeed::Fixed(said("TIDEGATE_MODEL_SEED").unwrap_or(7)),
        max_shrink_iters: said("TIDEGATE_MODEL_SHRINK")
            .and_then(|n| n.try_into().ok())
            .unwrap_or(60),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}
