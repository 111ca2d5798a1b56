//! Which of a snapshot's files one lease gets.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use serde::{Deserialize, Serialize};

use crate::codec::put_bytes32;
use crate::entry::{Entry, Kind};
use crate::ids::{SelectionId, SnapshotId};
use crate::path::RelPath;
use crate::snapshot::Snapshot;

const CONTEXT: &str = "tidegate/v1 selection";

/// What a caller asks for.
///
/// A file is selected if it is listed or some `include` glob matches it, or if neither was given;
/// and no `exclude` glob matches it. A glob matches the *whole* path from the snapshot's root:
/// `*`, `?` and `[…]` do not cross a `/`, `**` does, `{a,b}` is either. So `*.bin` is the files
/// directly below the root, `**/*.bin` those at any depth, `images/**` all below `images`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SelectionSpec {
    pub include: Vec<String>,
    pub exclude: Vec<String>,
    /// Exact paths of files or links.
    pub list: Option<Vec<String>>,
}

impl SelectionSpec {
    /// Digest of the three sets; neither order nor repetition changes it.
    pub fn id(&self) -> SelectionId {
        let mut bytes = Vec::new();
        let list = self.list.as_deref();
        for set in [Some(&self.include[..]), Some(&self.exclude[..]), list] {
            let mut sorted: Vec<&String> = set.unwrap_or_default().iter().collect();
            sorted.sort_unstable();
            sorted.dedup();
            bytes.push(u8::from(set.is_some()));
            bytes.extend_from_slice(&(sorted.len() as u64).to_le_bytes());
            for text in sorted {
                put_bytes32(&mut bytes, text.as_bytes());
            }
        }
        SelectionId::from_bytes(blake3::derive_key(CONTEXT, &bytes))
    }
}

/// Why a selection cannot be made. Each is the caller's to mend.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SelectionError {
    #[error("`{glob}` is not a glob")]
    BadGlob { glob: String, source: globset::Error },
    #[error("the selection is empty")]
    Empty,
    #[error("`{path}` is listed but is no file of the snapshot")]
    NotListed { path: String },
    #[error("the snapshot has more than 2^32 entries")]
    TooMany,
}

/// The part of one snapshot that a lease covers: indices into [`Snapshot::entries`], ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    id: SelectionId,
    snapshot: SnapshotId,
    files: Vec<u32>,
    dirs: Vec<u32>,
    bytes: u64,
}

impl Selection {
    pub fn resolve(snapshot: &Snapshot, spec: &SelectionSpec) -> Result<Self, SelectionError> {
        let entries = snapshot.entries();
        if u32::try_from(entries.len()).is_err() {
            return Err(SelectionError::TooMany);
        }
        let (include, exclude) = (globs(&spec.include)?, globs(&spec.exclude)?);
        let listed = listed(entries, spec.list.as_deref().unwrap_or_default())?;
        let all = spec.include.is_empty() && spec.list.is_none();

        let mut listed = listed.into_iter().peekable();
        let mut selected = Self {
            id: spec.id(),
            snapshot: snapshot.id(),
            files: Vec::new(),
            dirs: Vec::new(),
            bytes: 0,
        };
        let mut shown = vec![false; entries.len()];
        // The directories around the current entry, outermost first.
        let mut open: Vec<usize> = Vec::new();
        for (at, entry) in (0_u32..).zip(entries) {
            let idx = at as usize;
            while open.last().is_some_and(|dir| !entry.path.is_below(&entries[*dir].path)) {
                open.pop();
            }
            let is_listed = listed.next_if_eq(&at).is_some();
            let path = Path::new(OsStr::from_bytes(entry.path.as_bytes()));
            let wanted = (all || is_listed || (!entry.is_dir() && include.is_match(path)))
                && !exclude.is_match(path);
            if wanted {
                let above = open.iter().rev().copied();
                for dir in above.take_while(|dir| !shown[*dir]).collect::<Vec<_>>() {
                    shown[dir] = true;
                }
            }
            match entry.kind {
                Kind::Dir => {
                    shown[idx] = wanted;
                    open.push(idx);
                }
                Kind::File | Kind::Symlink(_) if wanted => {
                    selected.files.push(at);
                    if entry.is_file() {
                        selected.bytes = selected.bytes.saturating_add(entry.size);
                    }
                }
                Kind::File | Kind::Symlink(_) => {}
            }
        }
        if selected.files.is_empty() {
            return Err(SelectionError::Empty);
        }
        selected.dirs =
            (0_u32..).zip(shown).filter_map(|(at, shown)| shown.then_some(at)).collect();
        Ok(selected)
    }

    /// The digest of the spec this was resolved from.
    pub fn id(&self) -> SelectionId {
        self.id
    }

    /// The snapshot whose entries the indices mean.
    pub fn snapshot(&self) -> SnapshotId {
        self.snapshot
    }

    /// Selected files and links, in path order.
    pub fn files(&self) -> &[u32] {
        &self.files
    }

    /// Directories to show, in path order: those above a selected file, and where nothing was
    /// included by name, every directory that is not excluded, empty ones too.
    pub fn dirs(&self) -> &[u32] {
        &self.dirs
    }

    /// Content of the selected files.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

fn globs(texts: &[String]) -> Result<GlobSet, SelectionError> {
    let bad = |glob: &str, source| SelectionError::BadGlob { glob: glob.to_owned(), source };
    let mut set = GlobSetBuilder::new();
    for text in texts {
        let glob = GlobBuilder::new(text).literal_separator(true).backslash_escape(true).build();
        set.add(glob.map_err(|source| bad(text, source))?);
    }
    set.build().map_err(|source| bad(&texts.join("`, `"), source))
}

/// Indices of the listed paths, ascending, without repetition.
fn listed(entries: &[Entry], list: &[String]) -> Result<Vec<u32>, SelectionError> {
    let mut found = Vec::with_capacity(list.len());
    for text in list {
        let missing = || SelectionError::NotListed { path: text.clone() };
        let path = RelPath::new(text.as_bytes()).map_err(|_| missing())?;
        let at = entries.binary_search_by(|entry| entry.path.cmp(&path)).map_err(|_| missing())?;
        if entries[at].is_dir() {
            return Err(missing());
        }
        found.push(u32::try_from(at).map_err(|_| SelectionError::TooMany)?);
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

#[cfg(test)]
mod tests;
