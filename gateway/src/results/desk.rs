//! What the requests of one lease share while this process lives.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Mutex as AsyncMutex;

use super::clerk::Clerk;
use super::file::{Provenance, Upload};
use super::home::Home;
use super::purse::Purse;
use super::turns::{Key, Turns, key};
use crate::rate::Rate;

/// Versions whose reading is in the ledger, as far as is remembered; one that is forgotten gets another
/// entry.
const READS: usize = 16_384;
/// Uploads of one lease that may be under way at once.
const UPLOADS: usize = 4096;
/// Changes and readings of one lease a second.
const CHANGES: u64 = 500;
/// How often a request that was paid for may come again.
const REPEATS: u8 = 8;

pub(crate) struct Desk {
    pub(crate) home: Home,
    /// What stands in the ledger of the home's place.
    pub(crate) place: String,
    pub(crate) provenance: Provenance,
    pub(crate) purse: Purse,
    pub(crate) turns: Turns,
    pub(crate) clerk: Clerk,
    pub(crate) rate: Option<Rate>,
    /// Changes and readings, one of it each: they cost no budget, and the ledger grows by them.
    pub(crate) changes: Rate,
    /// One listing at a time: the names of whole directories are in memory, for which nobody made room.
    pub(crate) listing: Arc<AsyncMutex<()>>,
    reads: Mutex<HashSet<[u8; 32]>>,
    /// Uploads begun here and not ended, by their ids: what the store calls them.
    uploads: Mutex<HashMap<String, Option<Upload>>>,
    /// What was paid for and came home: its entry may not have been written, or its answer been lost.
    paid: Mutex<HashMap<[u8; 32], Paid>>,
}

/// A request that was paid for.
struct Paid {
    /// The name under which it came home.
    path: Key,
    /// How often it came since.
    again: u8,
    /// What it made, of a file of several parts.
    version: Option<String>,
}

impl Desk {
    pub(crate) fn new(
        home: Home,
        place: String,
        provenance: Provenance,
        rate: Option<u64>,
    ) -> Self {
        Self {
            home,
            place,
            provenance,
            purse: Purse::default(),
            turns: Turns::default(),
            clerk: Clerk::default(),
            rate: rate.map(Rate::new),
            changes: Rate::new(CHANGES),
            listing: Arc::default(),
            reads: Mutex::default(),
            uploads: Mutex::default(),
            paid: Mutex::default(),
        }
    }

    fn read_key(path: &str, version: &str) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(path.len() as u64).to_be_bytes());
        hasher.update(path.as_bytes());
        hasher.update(version.as_bytes());
        *hasher.finalize().as_bytes()
    }

    /// Whether the reading of this version is in the ledger.
    pub(crate) fn was_read(&self, path: &str, version: &str) -> bool {
        let reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        reads.contains(&Self::read_key(path, version))
    }

    pub(crate) fn read(&self, path: &str, version: &str) {
        let mut reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        if reads.len() >= READS {
            reads.clear();
        }
        reads.insert(Self::read_key(path, version));
    }

    /// Keeps a place for one more upload, until it [ended](Self::ended); `false` when too many are under way.
    pub(crate) fn may_begin(&self, id: &str) -> bool {
        let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        let may = uploads.len() < UPLOADS;
        if may {
            uploads.insert(id.to_owned(), None);
        }
        may
    }

    pub(crate) fn began(&self, id: &str, upload: Upload) {
        let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        uploads.insert(id.to_owned(), Some(upload));
    }

    pub(crate) fn ended(&self, id: &str) {
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// Whether a request was paid for when it came before. A few times: not without end.
    pub(crate) fn is_paid(&self, request: &[u8; 32]) -> bool {
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        match paid.get_mut(request) {
            Some(paid) if paid.again < REPEATS => {
                paid.again += 1;
                true
            }
            _ => false,
        }
    }

    /// Whether a request that was paid for is so still: nothing of it has another name.
    pub(crate) fn is_still_paid(&self, request: &[u8; 32]) -> bool {
        self.paid.lock().unwrap_or_else(PoisonError::into_inner).contains_key(request)
    }

    /// What came home under a name, or all of it, has another name now, or none: under its old one it would be
    /// one more.
    pub(crate) fn forget_paid(&self, under: Option<&str>) {
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        let under = under.map(key);
        paid.retain(|_, paid| under.is_some_and(|under| under != paid.path));
    }

    /// Which version a request made, as far as is remembered: its name may have another by now.
    pub(crate) fn version_of(&self, request: &[u8; 32]) -> Option<String> {
        let paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        paid.get(request)?.version.clone()
    }

    pub(crate) fn paid(&self, request: [u8; 32], path: &str, version: Option<&str>) {
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        if paid.len() >= READS {
            paid.clear();
        }
        paid.entry(request).or_insert_with(|| Paid {
            path: key(path),
            again: 0,
            version: version.map(str::to_owned),
        });
    }

    /// Uploads that nobody ended.
    pub(crate) fn left_over(&self) -> Vec<Upload> {
        let uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        uploads.values().flatten().cloned().collect()
    }
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").field("place", &self.place).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;
    use tidegate_plan::{LeaseId, SelectionId, SnapshotId};

    use super::*;
    use crate::source::SourceSpec;

    #[tokio::test]
    async fn which_version_was_made_is_known_while_it_has_its_name() {
        let dir = TempDir::new().unwrap();
        let home = Home::open(&SourceSpec::Directory(dir.path().to_owned())).await.unwrap();
        let provenance = Provenance {
            lease: LeaseId::from_bytes([1; 16]),
            snapshot: SnapshotId::from_bytes([2; 32]),
            selection: SelectionId::from_bytes([3; 32]),
            image: None,
        };
        let desk = Desk::new(home, String::new(), provenance, None);
        desk.paid([1; 32], "a", Some("one"));
        desk.paid([2; 32], "b", None);
        desk.forget_paid(Some("b"));
        assert_eq!(desk.version_of(&[1; 32]).as_deref(), Some("one"));
        assert_eq!(desk.version_of(&[2; 32]), None);
        desk.forget_paid(Some("a"));
        assert_eq!(desk.version_of(&[1; 32]), None);
    }
}
