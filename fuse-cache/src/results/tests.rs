mod faults;
mod home;
mod model;
mod parts;
mod restarts;
mod taken_up;
mod ways;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::MemfdFlags;
use tidegate_kit::clock::boottime;
use tidegate_seal::results_public_key;
use tidegate_wire::{NodeFacts, ResultsTerms};

use super::*;
use crate::blocks::tests::gateway::Gateway;
use crate::blocks::tests::home::Home as Source;
use crate::blocks::tests::{disk, until};
use crate::client::{Attached, Identity, attach};
use home::{Fault, ResultsHome};

const MIB: usize = 1 << 20;
/// Thread of the job: init, which lives in every namespace.
const WRITER: u32 = 1;

/// How a worker of the tests begins.
#[derive(Clone, Copy)]
struct How {
    asynchronous: bool,
    spool: Option<u64>,
    budget: u64,
    files: u64,
    directories: bool,
    resume: bool,
}

const PLAIN: How = How {
    asynchronous: false,
    spool: None,
    budget: 128 << 20,
    files: 1 << 20,
    directories: true,
    resume: false,
};

/// A worker's results without a mount, and a home for them.
struct Worker {
    home: Arc<ResultsHome>,
    gateway: Arc<Gateway>,
    results: Arc<Results>,
    journal: OwnedFd,
    dir: tempfile::TempDir,
    how: How,
    generation: u32,
    unique: std::sync::atomic::AtomicU64,
}

impl Worker {
    async fn start(how: How) -> Self {
        Self::with(how, |_| {}).await
    }

    async fn with(how: How, prepare: impl FnOnce(&ResultsHome)) -> Self {
        let mut source = Source::new(&[50_000]);
        let key = || source.key.results_key();
        source.results = Some(ResultsTerms {
            public_key: results_public_key(&key()).into(),
            resume: how.resume,
            bytes: 1 << 40,
            files: how.files,
            drain_s: 60,
            directories: how.directories,
        });
        let home = ResultsHome::new(source.lease, key());
        prepare(&home);
        let gateway = Gateway::start(source).await;
        let answering = Arc::clone(&home);
        let route: crate::blocks::tests::gateway::ResultsRoute =
            Box::new(move |route, body| Box::pin(Arc::clone(&answering).answer(route, body)));
        assert!(gateway.results.set(route).is_ok());
        let journal = rustix::fs::memfd_create("journal", MemfdFlags::CLOEXEC).unwrap();
        let dir = disk();
        let results = begin(&gateway, &journal, dir.path(), how, 1).await;
        let unique = 0.into();
        Self { home, gateway, results, journal, dir, how, generation: 1, unique }
    }

    /// The worker that comes after this one was killed: all that it had in memory is gone.
    async fn killed(self) -> Self {
        let Self { home, gateway, results, journal, dir, how, generation, unique } = self;
        results.core.home.end_at(Duration::ZERO);
        let spool = Arc::downgrade(&results.core.spool);
        // No key of the old worker's helps the new one.
        drop(results);
        until(|| spool.strong_count() == 0).await;
        let generation = generation + 1;
        let results = begin(&gateway, &journal, dir.path(), how, generation).await;
        Self { home, gateway, results, journal, dir, how, generation, unique }
    }

    fn caller(&self) -> Caller {
        let unique = 1 + self.unique.fetch_add(1, Ordering::SeqCst);
        Caller { unique, thread: WRITER }
    }

    fn file(&self, node: u64) -> Arc<File> {
        self.results.core.names().file(node).unwrap()
    }

    /// What is on its way home lies where a successor finds it.
    fn is_kept(&self, node: u64) -> bool {
        core::lock(&self.file(node).recorded).is_some()
    }

    /// Node and handle of a new file.
    async fn create(&self, path: &str) -> (u64, u64) {
        let (parent, name) = self.place(path);
        let created =
            self.results.create(self.caller(), parent, name.as_bytes(), 0o644, false, true);
        let (attributes, handle) = created.await.unwrap();
        (attributes.ino.0, handle)
    }

    fn place<'a>(&self, path: &'a str) -> (u64, &'a str) {
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        let above = above.split('/').filter(|name| !name.is_empty());
        let parent = above
            .fold(1, |at, name| self.results.lookup(at, name.as_bytes()).unwrap().unwrap().ino.0);
        (parent, name)
    }

    fn node(&self, path: &str) -> Option<u64> {
        let (parent, name) = self.place(path);
        self.results.lookup(parent, name.as_bytes()).unwrap().map(|found| found.ino.0)
    }

    async fn write(&self, node: u64, offset: u64, bytes: &[u8]) {
        for (at, piece) in (offset..).step_by(MIB).zip(bytes.chunks(MIB)) {
            let written = match self.results.try_write(self.caller(), node, at, piece) {
                Some(written) => written,
                None => self.results.write(self.caller(), node, at, piece).await,
            };
            assert_eq!(written, Ok(u32::try_from(piece.len()).unwrap()));
        }
    }

    async fn read(&self, node: u64) -> Result<Vec<u8>, FsError> {
        let mut all = Vec::new();
        loop {
            let some = self.results.read(node, all.len() as u64, 300_000).await?;
            if some.is_empty() {
                return Ok(all);
            }
            all.extend(some.iter());
        }
    }

    async fn close(&self, (node, handle): (u64, u64)) -> Result<(), FsError> {
        let flushed = self.results.flush(self.caller(), node, handle).await;
        self.results.release(node, handle).await;
        flushed
    }

    /// A file as programs make them.
    async fn put(&self, path: &str, bytes: &[u8]) -> Result<(), FsError> {
        let file = self.create(path).await;
        self.write(file.0, 0, bytes).await;
        self.close(file).await
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), FsError> {
        let (from, to) = (self.place(from), self.place(to));
        let (from, to) = ((from.0, from.1.as_bytes()), (to.0, to.1.as_bytes()));
        self.results.rename(self.caller(), from, to, false).await
    }

    async fn unlink(&self, path: &str) -> Result<(), FsError> {
        let (parent, name) = self.place(path);
        self.results.unlink(self.caller(), parent, name.as_bytes()).await
    }

    async fn make_directory(&self, path: &str) {
        let (parent, name) = self.place(path);
        self.results.make_directory(self.caller(), parent, name.as_bytes(), 0o755).await.unwrap();
    }
}

async fn begin(
    gateway: &Gateway,
    journal: &OwnedFd,
    dir: &std::path::Path,
    how: How,
    generation: u32,
) -> Arc<Results> {
    let identity = Identity::from_seed(&[1; 32]);
    let Attached { client, .. } =
        attach(&gateway.join, &identity, NodeFacts::default()).await.unwrap();
    let config = ResultsConfig {
        dir: dir.to_owned(),
        spool_bytes: how.spool,
        asynchronous: how.asynchronous,
        owner: (0, 0),
        journal: journal.try_clone().unwrap(),
        generation,
    };
    let budget = part_of(&Budget::new(how.budget)).await;
    Results::begin(config, client, budget).await.unwrap()
}

/// Bytes that differ from place to place and from file to file.
fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_be_bytes());
    let mut out = vec![0; len];
    hasher.finalize_xof().fill(&mut out);
    out
}
