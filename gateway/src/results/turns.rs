//! The newest request for each path, and one at a time.
//!
//! A worker numbers its requests. One that was long under way may come after a later one for the same
//! path: it changes nothing. Which was the newest is known to this process alone; what a worker sends to
//! another replica it sends once the first has answered or its connection has ended.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{
    Mutex as AsyncMutex, OwnedMutexGuard, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock,
};

/// Paths remembered at once; beyond that, those that nobody asked for lately are forgotten.
const PATHS: usize = 65_536;
/// Moves of directories remembered.
const MOVES: usize = 256;
/// A request is not under way for so long.
const LATELY: Duration = Duration::from_secs(900);

/// A path by its hash: what is kept of each stays small.
pub(super) type Key = [u8; 16];

#[derive(Debug)]
struct Place {
    seq: Arc<AsyncMutex<Newest>>,
    asked: Instant,
}

/// The newest request of each worker identity is all that counts: an older identity is fenced.
#[derive(Debug, Default)]
struct Newest {
    worker: [u8; 32],
    seq: Option<u64>,
}

/// Where a request stands among those for its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Or the newest come again.
    Newest,
    Superseded,
}

/// A directory that took another name: what was asked for before that comes too late, below the old name and
/// below the new one, where nothing was left of what it is about.
#[derive(Debug)]
struct Moved {
    below: [String; 2],
    worker: [u8; 32],
    seq: u64,
}

/// Paths of one lease.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    places: Mutex<HashMap<Key, Place>>,
    moved: Mutex<VecDeque<Moved>>,
    /// Shared by all turns but those that move a whole directory.
    tree: Arc<RwLock<()>>,
}

/// The turn of one request for its path or paths; others wait until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    held: Vec<OwnedMutexGuard<Newest>>,
    _tree: Tree,
    /// The newest move of a directory above one of the paths.
    moved: Option<u64>,
    worker: [u8; 32],
    seq: u64,
}

#[derive(Debug)]
enum Tree {
    Shared(#[expect(dead_code, reason = "held until dropped")] OwnedRwLockReadGuard<()>),
    Alone(#[expect(dead_code, reason = "held until dropped")] OwnedRwLockWriteGuard<()>),
}

pub(super) fn key(path: &str) -> Key {
    let hash = blake3::hash(path.as_bytes());
    let mut key = Key::default();
    key.copy_from_slice(&hash.as_bytes()[..size_of::<Key>()]);
    key
}

impl Turns {
    fn place(&self, key: Key) -> Arc<AsyncMutex<Newest>> {
        let now = Instant::now();
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if places.len() >= PATHS && !places.contains_key(&key) {
            places.retain(|_, place| {
                Arc::strong_count(&place.seq) > 1 || now.duration_since(place.asked) < LATELY
            });
            if places.len() >= PATHS {
                // More paths in a quarter of an hour than we remember: the oldest half goes.
                let mut asked: Vec<_> = places.values().map(|place| place.asked).collect();
                let (_, middle, _) = asked.select_nth_unstable(PATHS / 2);
                let middle = *middle;
                places.retain(|_, place| Arc::strong_count(&place.seq) > 1 || place.asked > middle);
            }
        }
        let place = places.entry(key).or_insert_with(|| Place { seq: Arc::default(), asked: now });
        place.asked = now;
        Arc::clone(&place.seq)
    }

    /// Waits for the turn of a request for these paths.
    pub(crate) async fn take(&self, paths: &[&str], worker: [u8; 32], seq: u64) -> Turn {
        let tree = Tree::Shared(Arc::clone(&self.tree).read_owned().await);
        self.take_in(tree, paths, worker, seq).await
    }

    /// Waits for the turn of a request that changes all below these paths: it has the whole tree.
    pub(crate) async fn take_tree(&self, paths: &[&str], worker: [u8; 32], seq: u64) -> Turn {
        let tree = Tree::Alone(Arc::clone(&self.tree).write_owned().await);
        self.take_in(tree, paths, worker, seq).await
    }

    async fn take_in(&self, tree: Tree, paths: &[&str], worker: [u8; 32], seq: u64) -> Turn {
        // In one order, so that two who want the same two never wait for each other.
        let mut keys: Vec<_> = paths.iter().map(|path| key(path)).collect();
        keys.sort_unstable();
        keys.dedup();
        let mut held = Vec::with_capacity(keys.len());
        for key in keys {
            held.push(self.place(key).lock_owned().await);
        }
        let moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        let above = moved.iter().filter(|moved| {
            let is_below = |path: &&str| moved.below.iter().any(|below| path.starts_with(below));
            moved.worker == worker && paths.iter().any(is_below)
        });
        let moved = above.map(|moved| moved.seq).max();
        Turn { held, _tree: tree, moved, worker, seq }
    }

    /// A directory has another name now.
    pub(crate) fn moved(&self, names: [&str; 2], worker: [u8; 32], seq: u64) {
        let mut moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        if moved.len() >= MOVES {
            moved.pop_front();
        }
        moved.push_back(Moved { below: names.map(|name| format!("{name}/")), worker, seq });
    }
}

impl Turn {
    /// How this request compares with the newest that was done.
    pub(crate) fn standing(&self) -> Standing {
        let newest = self.held.iter().filter(|held| held.worker == self.worker);
        match newest.filter_map(|held| held.seq).chain(self.moved).max() {
            Some(newest) if newest > self.seq => Standing::Superseded,
            _ => Standing::Newest,
        }
    }

    /// The request was done.
    pub(crate) fn done(mut self) {
        for held in &mut self.held {
            (held.worker, held.seq) = (self.worker, Some(self.seq));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: [u8; 32] = [1; 32];
    const TWO: [u8; 32] = [2; 32];

    #[tokio::test]
    async fn the_newest_request_for_a_path_wins() {
        let turns = Turns::default();
        let standing = async |paths: &[&str], worker, seq| {
            let turn = turns.take(paths, worker, seq).await;
            let standing = turn.standing();
            if standing != Standing::Superseded {
                turn.done();
            }
            standing
        };
        assert_eq!(standing(&["a"], ONE, 5).await, Standing::Newest);
        assert_eq!(standing(&["a"], ONE, 4).await, Standing::Superseded);
        assert_eq!(standing(&["a"], ONE, 5).await, Standing::Newest, "come again");
        assert_eq!(standing(&["b"], ONE, 4).await, Standing::Newest, "each path by itself");
        assert_eq!(standing(&["b", "a"], ONE, 6).await, Standing::Newest);
        assert_eq!(standing(&["b"], ONE, 5).await, Standing::Superseded);
        assert_eq!(standing(&["a"], TWO, 1).await, Standing::Newest, "another worker counts anew");
    }

    #[tokio::test]
    async fn a_request_that_failed_may_be_made_again() {
        let turns = Turns::default();
        drop(turns.take(&["a"], ONE, 5).await);
        assert_eq!(turns.take(&["a"], ONE, 5).await.standing(), Standing::Newest);
    }

    #[tokio::test]
    async fn what_comes_for_a_directory_that_was_moved_comes_too_late() {
        let turns = Turns::default();
        turns.take_tree(&["a", "b"], ONE, 5).await.done();
        turns.moved(["a", "b"], ONE, 5);
        for (path, seq, standing) in [
            ("a/x", 4, Standing::Superseded),
            ("a/x", 6, Standing::Newest),
            ("b/x", 4, Standing::Superseded),
            ("b/x", 6, Standing::Newest),
            ("ab", 4, Standing::Newest),
            ("a", 4, Standing::Superseded),
        ] {
            assert_eq!(turns.take(&[path], ONE, seq).await.standing(), standing, "{path} {seq}");
        }
    }

    #[tokio::test]
    async fn what_is_remembered_is_bounded() {
        let turns = Turns::default();
        let held = turns.take(&["held"], ONE, 1).await;
        for n in 0..PATHS + 10 {
            turns.take(&[&n.to_string()], ONE, 1).await.done();
        }
        assert!(turns.places.lock().unwrap().len() <= PATHS);
        assert!(
            turns.places.lock().unwrap().contains_key(&key("held")),
            "a turn under way is kept"
        );
        drop(held);
    }
}
