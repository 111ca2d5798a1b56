//! Somebody at home who looks all the time: whatever is visible under a name at any moment must be a
//! content that was once complete.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};

use super::home::Look;

const PAUSE: Duration = Duration::from_millis(20);

/// A thread that lists a home and hashes whatever is new.
#[derive(Debug)]
pub struct Watcher {
    stop: Arc<AtomicBool>,
    looking: JoinHandle<Result<Watched>>,
}

#[derive(Debug, Default)]
struct Watched {
    /// Each content with a name under which it was seen.
    seen: BTreeMap<String, String>,
    looks: usize,
}

impl Watcher {
    pub fn start(look: Look) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let looking = thread::spawn(move || {
            let (mut watched, mut known) = (Watched::default(), BTreeSet::new());
            loop {
                let last = until.load(Ordering::Relaxed);
                watched.looks += 1;
                for (path, seen) in look.list()? {
                    // What was written over meanwhile is looked at the next time.
                    if known.insert((path.clone(), seen.version))
                        && let Some(sha) = look.sha256(&path)?
                    {
                        watched.seen.insert(sha, path);
                    }
                }
                if last {
                    return Ok(watched);
                }
                thread::sleep(PAUSE);
            }
        });
        Self { stop, looking }
    }

    /// Ends it. Fails when anything was seen that is not among the contents that were ever complete; `story`
    /// says more of a name under which that was.
    pub fn finish(self, ever: &BTreeSet<String>, story: impl Fn(&str) -> String) -> Result<usize> {
        self.stop.store(true, Ordering::Relaxed);
        let watched = self.looking.join().map_err(|_| anyhow!("the watcher panicked"))?;
        let watched = watched.context("the watcher could not look")?;
        let torn = watched.seen.iter().filter(|(sha, _)| !ever.contains(*sha));
        let torn: Vec<_> =
            torn.map(|(sha, path)| format!("{path} {sha}\n{}", story(path))).collect();
        ensure!(torn.is_empty(), "seen at home and never complete: {}", torn.join("\n"));
        ensure!(watched.looks > 0, "nobody looked");
        Ok(watched.seen.len())
    }
}
