//! Which of a snapshot's files one lease gets.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use serde::{Deserialize, Serialize};

use crate::codec::put_bytes32;
use crate::ids::{SelectionId, SnapshotId};
use crate::path::{RelPath, compare};
use crate::snapshot::{NodeKind, Snapshot};

const CONTEXT: &str = "tidegate/v1 selection";

/// What a caller asks for.
///
/// A file is selected if it is listed or some `include` glob matches it, or if neither was given;
/// and no `exclude` glob matches it. A glob matches the *whole* path from the snapshot's root:
/// `*`, `?` and `[…]` do not cross a `/`, `**` does, `{a,b}` is either. So `*.bin` is the files
/// directly below the root, `**/*.bin` those at any depth, `images/**` all below `images`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct SelectionSpec {
    pub include: Vec<String>,
    pub exclude: Vec<String>,
    /// Exact paths of files or links.
    pub list: Option<Vec<String>>,
}

impl SelectionSpec {
    /// The three sets in order and without repetition: the same for all that have the same id.
    #[must_use]
    pub fn normal(mut self) -> Self {
        for set in [Some(&mut self.include), Some(&mut self.exclude), self.list.as_mut()] {
            let Some(set) = set else { continue };
            set.sort_unstable();
            set.dedup();
        }
        self
    }

    /// Digest of the three sets; neither order nor repetition changes it.
    pub fn id(&self) -> SelectionId {
        let mut bytes = Vec::new();
        let Self { include, exclude, list } = self.clone().normal();
        for set in [Some(include), Some(exclude), list] {
            bytes.push(u8::from(set.is_some()));
            let set = set.unwrap_or_default();
            bytes.extend_from_slice(&(set.len() as u64).to_le_bytes());
            for text in set {
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
}

/// The part of one snapshot that a lease covers: places in path order, ascending.
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
        let (include, exclude) = (globs(&spec.include)?, globs(&spec.exclude)?);
        let mut listed = listed(spec.list.as_deref().unwrap_or_default())?.into_iter().peekable();
        let all = spec.include.is_empty() && spec.list.is_none();
        let mut selected = Self {
            id: spec.id(),
            snapshot: snapshot.id(),
            files: Vec::new(),
            dirs: Vec::new(),
            bytes: 0,
        };
        let mut missing: Option<RelPath> = None;
        let mut shown = vec![false; snapshot.len() as usize];
        snapshot.walk(|at, node, path| {
            let is_dir = node.kind == NodeKind::Dir;
            // Both ascend, so what is passed by is not there.
            while let Some(path) = listed.next_if(|listed| compare(listed.as_bytes(), path).is_lt())
            {
                missing.get_or_insert(path);
            }
            let is_listed = !is_dir && listed.next_if(|listed| listed.as_bytes() == path).is_some();
            let text = Path::new(OsStr::from_bytes(path));
            let wanted = (all || is_listed || (!is_dir && include.is_match(text)))
                && !exclude.is_match(text);
            if !wanted {
                return;
            }
            let mut above = node.parent;
            while let Some(dir) = above.filter(|dir| !shown[*dir as usize]) {
                shown[dir as usize] = true;
                above = snapshot.parent_of(dir);
            }
            if is_dir {
                shown[at as usize] = true;
                return;
            }
            selected.files.push(at);
            if node.kind == NodeKind::File {
                selected.bytes = selected.bytes.saturating_add(node.size);
            }
        });
        if let Some(path) = missing.or_else(|| listed.next()) {
            return Err(SelectionError::NotListed {
                path: String::from_utf8_lossy(path.as_bytes()).into_owned(),
            });
        }
        if selected.files.is_empty() {
            return Err(SelectionError::Empty);
        }
        let dirs = (0_u32..).zip(shown).filter_map(|(at, shown)| shown.then_some(at));
        selected.dirs = dirs.collect();
        Ok(selected)
    }

    /// The digest of the spec this was resolved from.
    pub fn id(&self) -> SelectionId {
        self.id
    }

    /// The snapshot whose entries are meant.
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

/// The listed paths, ascending, without repetition.
fn listed(list: &[String]) -> Result<Vec<RelPath>, SelectionError> {
    let mut paths = Vec::with_capacity(list.len());
    for text in list {
        let missing = |_| SelectionError::NotListed { path: text.clone() };
        paths.push(RelPath::new(text.as_bytes()).map_err(missing)?);
    }
    paths.sort_unstable();
    paths.dedup();
    Ok(paths)
}

#[cfg(test)]
mod tests;
