//! What the ledger knows of results: every version that was brought home, from which data it was made, and
//! what became of it.

use std::collections::HashMap;

use anyhow::Result;
use serde::Serialize;
use tidegate_ledger::{
    Digest, Event, LeaseId, ListedResult, ResultsAct, ResultsListing, SelectionId, SnapshotId,
};

use crate::stored::{Line, Stored, Told};
use crate::story::when;

/// An entry and its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Place {
    pub(super) ledger: usize,
    pub(super) entry: u64,
    pub(super) time: String,
}

/// A name below the home, and since when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Name {
    pub(super) path: String,
    #[serde(flatten)]
    pub(super) since: Place,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub(super) enum Fate {
    /// Nothing in the ledger took it away.
    AtHome,
    Overwritten(Place),
    Removed(Place),
    /// It was written on the worker and never came home.
    Lost(Place),
}

/// The bytes of one result as they were stored once.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Version {
    pub(super) home: String,
    /// Oldest first; never empty.
    pub(super) names: Vec<Name>,
    pub(super) bytes: u64,
    pub(super) blake3: Option<Digest>,
    pub(super) lease: LeaseId,
    pub(super) rank: u16,
    pub(super) snapshot: SnapshotId,
    pub(super) selection: SelectionId,
    pub(super) image: Option<String>,
    pub(super) fate: Fate,
}

/// All versions, oldest first.
#[derive(Debug, Default)]
pub(super) struct Versions {
    pub(super) all: Vec<Version>,
    /// Listings that cannot be read any more.
    pub(super) unknown: u64,
    /// Which version has a name now, by its whole name.
    named: HashMap<String, usize>,
}

impl Version {
    /// The whole name of a path below its home.
    pub(super) fn address(&self, path: &str) -> String {
        address(&self.home, path)
    }
}

impl Versions {
    pub(super) fn read(stored: &Stored) -> Result<Self> {
        let mut versions = Self::default();
        for Line { ledger, entry, .. } in stored.lines()? {
            let Event::Results { listing, .. } = &entry.event else { continue };
            let listing = match stored.document(listing) {
                Told::Text(text) => ResultsListing::parse(&text),
                Told::Erased | Told::Altered => None,
            };
            let place = Place { ledger, entry: entry.index, time: when(entry.time) };
            match listing {
                Some(listing) => versions.take(&listing, &place),
                None => versions.unknown += 1,
            }
        }
        Ok(versions)
    }

    fn take(&mut self, listing: &ResultsListing, place: &Place) {
        for file in &listing.files {
            let address = address(&listing.home, &file.path);
            match listing.act {
                ResultsAct::Stored => {
                    self.leave(&address, Fate::Overwritten(place.clone()));
                    let at = self.add(listing, file, Fate::AtHome, place);
                    self.named.insert(address, at);
                }
                ResultsAct::Renamed => self.rename(listing, file, place),
                ResultsAct::Removed => self.leave(&address, Fate::Removed(place.clone())),
                ResultsAct::Lost => {
                    self.add(listing, file, Fate::Lost(place.clone()), place);
                }
                _ => {}
            }
        }
    }

    fn add(
        &mut self,
        listing: &ResultsListing,
        file: &ListedResult,
        fate: Fate,
        place: &Place,
    ) -> usize {
        self.all.push(Version {
            home: listing.home.clone(),
            names: vec![Name { path: file.path.clone(), since: place.clone() }],
            bytes: file.bytes,
            blake3: file.blake3,
            lease: listing.lease,
            rank: listing.rank,
            snapshot: listing.snapshot,
            selection: listing.selection,
            image: listing.image.clone(),
            fate,
        });
        self.all.len() - 1
    }

    /// What has the name ends.
    fn leave(&mut self, address: &str, fate: Fate) {
        if let Some(at) = self.named.remove(address) {
            self.all[at].fate = fate;
        }
    }

    /// A file takes another name, or all below a directory do.
    fn rename(&mut self, listing: &ResultsListing, file: &ListedResult, place: &Place) {
        let Some(from) = &file.from else { return };
        let (source, target) = (address(&listing.home, from), address(&listing.home, &file.path));
        let prefix = format!("{source}/");
        let moved: Vec<(String, String)> = match self.named.get(&source) {
            // Another's file under that name is not what has another name now.
            Some(at) if !is_of(&self.all[*at], file) => Vec::new(),
            Some(_) => vec![(source, target.clone())],
            // What lies below a file's name is another's.
            None if !is_directory(listing, file) => Vec::new(),
            None => self
                .named
                .keys()
                .filter_map(|name| {
                    let rest = name.strip_prefix(&prefix)?;
                    Some((name.clone(), format!("{target}/{rest}")))
                })
                .collect(),
        };
        // What has the target's name now came from elsewhere, unless this was asked for twice.
        if moved.is_empty() && !self.came_from(&target, &listing.home, from, file.bytes) {
            self.leave(&target, Fate::Overwritten(place.clone()));
        }
        for (from, to) in moved {
            let Some(at) = self.named.remove(&from) else { continue };
            self.leave(&to, Fate::Overwritten(place.clone()));
            let version = &mut self.all[at];
            if below(&version.home, &to).is_none() {
                // By a lease whose home lies around that of the version's.
                for name in &mut version.names {
                    let whole = address(&version.home, &name.path);
                    name.path = below(&listing.home, &whole).unwrap_or(whole);
                }
                version.home.clone_from(&listing.home);
            }
            let path = below(&version.home, &to).unwrap_or_else(|| to.clone());
            version.names.push(Name { path, since: place.clone() });
            self.named.insert(to, at);
        }
    }

    /// Whether what has a name had that other one before.
    fn came_from(&self, target: &str, home: &str, from: &str, bytes: u64) -> bool {
        let Some(version) = self.named.get(target).map(|at| &self.all[*at]) else { return false };
        let before = version.names.iter().rev().nth(1);
        let before = before.map(|name| address(&version.home, &name.path));
        version.bytes == bytes && before == Some(address(home, from))
    }
}

/// Whether an entry about a file may be about these bytes.
fn is_of(version: &Version, file: &ListedResult) -> bool {
    version.bytes == file.bytes && file.blake3.is_none_or(|hash| version.blake3 == Some(hash))
}

/// Whether an entry may be about a directory: it says neither hash nor bytes, and a bucket has none.
fn is_directory(listing: &ResultsListing, file: &ListedResult) -> bool {
    !listing.home.starts_with("s3://") && file.blake3.is_none() && file.bytes == 0
}

/// A path below a home by its whole name.
fn below(home: &str, address: &str) -> Option<String> {
    Some(address.strip_prefix(home.trim_end_matches('/'))?.strip_prefix('/')?.to_owned())
}

/// The whole name of a path below a home: homes may lie in one another.
fn address(home: &str, path: &str) -> String {
    format!("{}/{path}", home.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file by its hash; of none where that is 0, as a directory's.
    fn listing(act: ResultsAct, files: &[(&str, Option<&str>, u8)]) -> ResultsListing {
        ResultsListing {
            v: ResultsListing::VERSION,
            act,
            lease: LeaseId::from_bytes([1; 16]),
            rank: 0,
            snapshot: SnapshotId::from_bytes([2; 32]),
            selection: SelectionId::from_bytes([3; 32]),
            image: None,
            home: "/out".into(),
            files: files
                .iter()
                .map(|(path, from, hash)| ListedResult {
                    path: (*path).into(),
                    from: from.map(Into::into),
                    bytes: u64::from(*hash > 0),
                    blake3: (*hash > 0).then(|| Digest::from_bytes([*hash; 32])),
                })
                .collect(),
        }
    }

    type Act<'a> = (ResultsAct, &'a [(&'a str, Option<&'a str>, u8)]);

    fn told(acts: &[Act<'_>]) -> Versions {
        let mut versions = Versions::default();
        for (entry, (act, files)) in (0..).zip(acts) {
            let place = Place { ledger: 1, entry, time: String::new() };
            versions.take(&listing(*act, files), &place);
        }
        versions
    }

    fn entry(fate: &Fate) -> Option<(&'static str, u64)> {
        match fate {
            Fate::AtHome => None,
            Fate::Overwritten(place) => Some(("overwritten", place.entry)),
            Fate::Removed(place) => Some(("removed", place.entry)),
            Fate::Lost(place) => Some(("lost", place.entry)),
        }
    }

    #[test]
    fn a_checkpoint_that_is_renamed_over_the_last_one_keeps_its_history() {
        use ResultsAct::{Lost, Removed, Renamed, Stored};
        let versions = told(&[
            (Stored, &[("tmp", None, 1)]),
            (Renamed, &[("best.pt", Some("tmp"), 1)]),
            (Stored, &[("tmp", None, 2), ("log", None, 3)]),
            (Renamed, &[("best.pt", Some("tmp"), 2)]),
            (Stored, &[("log", None, 4)]),
            (Removed, &[("best.pt", None, 2)]),
            (Lost, &[("late", None, 0)]),
        ]);
        let fates: Vec<_> = versions.all.iter().map(|version| entry(&version.fate)).collect();
        let want = [
            Some(("overwritten", 3)),
            Some(("removed", 5)),
            Some(("overwritten", 4)),
            None,
            Some(("lost", 6)),
        ];
        assert_eq!(fates, want);
        let names: Vec<_> = versions.all[1].names.iter().map(|name| name.path.as_str()).collect();
        assert_eq!(names, ["tmp", "best.pt"]);
    }

    #[test]
    fn homes_in_one_another_are_one_place() {
        let mut versions = told(&[(ResultsAct::Stored, &[("runs/x", None, 1)])]);
        let place = Place { ledger: 1, entry: 1, time: String::new() };
        let inner = listing(ResultsAct::Stored, &[("x", None, 2)]);
        versions.take(&ResultsListing { home: "/out/runs".into(), ..inner }, &place);
        assert_eq!(entry(&versions.all[0].fate), Some(("overwritten", 1)));
    }

    #[test]
    fn what_came_from_nowhere_takes_a_place_and_a_rename_told_twice_is_one() {
        use ResultsAct::{Renamed, Stored};
        let versions = told(&[
            (Stored, &[("tmp", None, 1), ("old", None, 2)]),
            (Renamed, &[("best", Some("tmp"), 1)]),
            (Renamed, &[("best", Some("tmp"), 1)]),
            (Renamed, &[("old", Some("unknown"), 3)]),
        ]);
        let fates: Vec<_> = versions.all.iter().map(|version| entry(&version.fate)).collect();
        assert_eq!(fates, [None, Some(("overwritten", 3))]);
    }

    /// Said of a name that another's file has: it stays where it is.
    #[test]
    fn a_rename_moves_nothing_but_what_it_is_about() {
        use ResultsAct::{Renamed, Stored};
        let versions = told(&[
            (Stored, &[("victim", None, 1), ("mine", None, 2)]),
            (Renamed, &[("mine", Some("victim"), 2)]),
        ]);
        let names = |at: usize| versions.all[at].names.iter().map(|name| name.path.as_str());
        assert_eq!(names(0).collect::<Vec<_>>(), ["victim"]);
        assert_eq!(entry(&versions.all[0].fate), None);
    }

    #[test]
    fn a_renamed_directory_takes_all_below_it_along() {
        use ResultsAct::{Renamed, Stored};
        let versions = told(&[
            (Stored, &[("a/x", None, 1), ("a/b/y", None, 2), ("ab", None, 3)]),
            (Renamed, &[("c", Some("a"), 0)]),
        ]);
        let last = |at: usize| versions.all[at].names.last().unwrap().path.as_str();
        assert_eq!([last(0), last(1), last(2)], ["c/x", "c/b/y", "ab"]);
    }

    /// Said of a name that nothing has: what lies below it stays where it is.
    #[test]
    fn a_file_that_is_renamed_takes_nothing_along() {
        use ResultsAct::{Renamed, Stored};
        let stays = |versions: &Versions| {
            let names: Vec<_> = versions.all[0].names.iter().map(|name| &*name.path).collect();
            assert_eq!((names, entry(&versions.all[0].fate)), (vec!["victim/x"], None));
        };
        let stored: &[_] = &[("victim/x", None, 1), ("mine", None, 2)];
        stays(&told(&[(Stored, stored), (Renamed, &[("mine", Some("victim"), 2)])]));

        // A bucket has no directories, whatever is said.
        let mut versions = Versions::default();
        let place = Place { ledger: 1, entry: 0, time: String::new() };
        let acts: [Act<'_>; 2] = [(Stored, stored), (Renamed, &[("mine", Some("victim"), 0)])];
        for (act, files) in acts {
            let home = "s3://bucket/out".to_owned();
            versions.take(&ResultsListing { home, ..listing(act, files) }, &place);
        }
        stays(&versions);
    }
}
