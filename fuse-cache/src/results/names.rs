//! The names of the results: a tree of directories and files that changes, with numbers that never
//! name anything else. Pure.
//!
//! A node lives while it has a name, or while the kernel may still ask for it by number.

use std::collections::{BTreeMap, HashMap};
use std::time::SystemTime;

use crate::errno::FsError;

/// Number of the root.
pub(super) const ROOT: u64 = 1;
/// Longest name, bytes.
pub(super) const NAME_MAX: usize = 255;
/// Longest path, bytes.
const PATH_MAX: usize = 4095;
/// What the gateway keeps its unfinished files under.
const RESERVED: &str = ".tidegate-";
/// Places of `.` and `..` in a listing. Names come behind, each as many places on as its node's number: a worker
/// after this one goes on with a listing where it was.
const OWN: u64 = 2;
/// References that a worker before this one may have given out.
pub(super) const UNKNOWN: u64 = u64::MAX / 2;

/// What a node is.
pub(super) enum Kind<F> {
    Directory(Directory),
    File(F),
}

/// The names in a directory.
#[derive(Default)]
pub(super) struct Directory {
    children: HashMap<String, u64>,
    /// In the order of a listing.
    names: BTreeMap<u64, String>,
    pub(super) mode: u32,
    pub(super) mtime: Option<SystemTime>,
}

impl Directory {
    pub(super) fn new(mode: u32, mtime: Option<SystemTime>) -> Self {
        Self { mode, mtime, ..Self::default() }
    }
}

pub(super) struct Node<F> {
    /// Directory and name; `None` for the root and for what has no name any more.
    pub(super) within: Option<(u64, String)>,
    references: u64,
    pub(super) kind: Kind<F>,
}

/// One name of a listing.
pub(super) struct Listed {
    pub(super) node: u64,
    pub(super) directory: bool,
    pub(super) name: String,
    pub(super) next: u64,
}

/// The tree; `F` is what a file is.
pub(super) struct Names<F> {
    nodes: HashMap<u64, Node<F>>,
    next: u64,
}

impl<F: Clone> Names<F> {
    pub(super) fn new(mode: u32) -> Self {
        let root = Node {
            within: None,
            references: 1,
            kind: Kind::Directory(Directory { mode, ..Directory::default() }),
        };
        Self { nodes: HashMap::from([(ROOT, root)]), next: ROOT + 1 }
    }

    pub(super) fn node(&self, node: u64) -> Result<&Node<F>, FsError> {
        self.nodes.get(&node).ok_or(FsError::NotFound)
    }

    pub(super) fn file(&self, node: u64) -> Result<F, FsError> {
        match &self.node(node)?.kind {
            Kind::File(file) => Ok(file.clone()),
            Kind::Directory(_) => Err(FsError::NotFile),
        }
    }

    pub(super) fn directory(&self, node: u64) -> Result<&Directory, FsError> {
        match &self.node(node)?.kind {
            Kind::Directory(directory) => Ok(directory),
            Kind::File(_) => Err(FsError::NotDirectory),
        }
    }

    pub(super) fn directory_mut(&mut self, node: u64) -> Result<&mut Directory, FsError> {
        match &mut self.nodes.get_mut(&node).ok_or(FsError::NotFound)?.kind {
            Kind::Directory(directory) => Ok(directory),
            Kind::File(_) => Err(FsError::NotDirectory),
        }
    }

    /// The node of a name, if it is taken.
    pub(super) fn child(&self, parent: u64, name: &str) -> Result<Option<u64>, FsError> {
        Ok(self.directory(parent)?.children.get(name).copied())
    }

    /// Where a node is; `None` when it has no name, or stands below what has none.
    pub(super) fn path(&self, node: u64) -> Option<String> {
        let mut names = Vec::new();
        let mut at = node;
        while at != ROOT {
            let (parent, name) = self.nodes.get(&at)?.within.as_ref()?;
            names.push(name.as_str());
            at = *parent;
        }
        names.reverse();
        Some(names.join("/"))
    }

    /// The path of a name that need not be taken.
    pub(super) fn path_of(&self, parent: u64, name: &str) -> Result<String, FsError> {
        let above = self.path(parent).ok_or(FsError::NotFound)?;
        let path = if above.is_empty() { name.to_owned() } else { format!("{above}/{name}") };
        if path.len() > PATH_MAX { Err(FsError::NameTooLong) } else { Ok(path) }
    }

    /// Adds a node under a free name.
    pub(super) fn add(
        &mut self,
        parent: u64,
        name: &str,
        make: impl FnOnce(u64) -> Kind<F>,
    ) -> Result<u64, FsError> {
        let node = self.next;
        self.add_as(node, parent, name, make(node), 0)?;
        Ok(node)
    }

    /// As [`Self::add`], with a number that a worker before this one gave.
    pub(super) fn add_as(
        &mut self,
        node: u64,
        parent: u64,
        name: &str,
        kind: Kind<F>,
        references: u64,
    ) -> Result<(), FsError> {
        if self.child(parent, name)?.is_some() || self.nodes.contains_key(&node) {
            return Err(FsError::Exists);
        }
        self.nodes.insert(node, Node { within: None, references, kind });
        self.next = self.next.max(node + 1);
        self.put(node, parent, name)
    }

    /// Numbers that may have been given out.
    pub(super) fn used_up_to(&mut self, next: u64) {
        self.next = self.next.max(next);
    }

    /// How many nodes there are.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn next_number(&self) -> u64 {
        self.next
    }

    fn put(&mut self, node: u64, parent: u64, name: &str) -> Result<(), FsError> {
        let directory = self.directory_mut(parent)?;
        directory.children.insert(name.to_owned(), node);
        directory.names.insert(node, name.to_owned());
        if let Some(node) = self.nodes.get_mut(&node) {
            node.within = Some((parent, name.to_owned()));
        }
        Ok(())
    }

    fn take(&mut self, parent: u64, name: &str) -> Result<u64, FsError> {
        let directory = self.directory_mut(parent)?;
        let node = directory.children.remove(name).ok_or(FsError::NotFound)?;
        directory.names.remove(&node);
        if let Some(node) = self.nodes.get_mut(&node) {
            node.within = None;
        }
        Ok(node)
    }

    /// Takes a name away. The node goes when the kernel has forgotten it.
    pub(super) fn remove(&mut self, parent: u64, name: &str) -> Result<u64, FsError> {
        let node = self.child(parent, name)?.ok_or(FsError::NotFound)?;
        if let Ok(directory) = self.directory(node)
            && !directory.children.is_empty()
        {
            return Err(FsError::NotEmpty);
        }
        self.take(parent, name)?;
        self.drop_unknown(node);
        Ok(node)
    }

    /// What stands in a rename's way, or would be replaced by it.
    pub(super) fn check_rename(
        &self,
        from: (u64, &str),
        to: (u64, &str),
        no_replace: bool,
    ) -> Result<(u64, Option<u64>), FsError> {
        let node = self.child(from.0, from.1)?.ok_or(FsError::NotFound)?;
        let replaced = self.child(to.0, to.1)?.filter(|replaced| *replaced != node);
        let is_directory = self.directory(node).is_ok();
        let mut above = Some(to.0);
        while let Some(at) = above {
            if at == node {
                return Err(FsError::Invalid);
            }
            above = self.node(at)?.within.as_ref().map(|(parent, _)| *parent);
        }
        if let Some(replaced) = replaced {
            if no_replace {
                return Err(FsError::Exists);
            }
            match (is_directory, self.directory(replaced)) {
                (true, Err(_)) => return Err(FsError::NotDirectory),
                (false, Ok(_)) => return Err(FsError::NotFile),
                (true, Ok(directory)) if !directory.children.is_empty() => {
                    return Err(FsError::NotEmpty);
                }
                _ => {}
            }
        } else if no_replace && self.child(to.0, to.1)?.is_some() {
            return Err(FsError::Exists);
        }
        Ok((node, replaced))
    }

    /// Renames what [`Self::check_rename`] allowed; the replaced node has no name any more.
    pub(super) fn rename(
        &mut self,
        from: (u64, &str),
        to: (u64, &str),
    ) -> Result<Option<u64>, FsError> {
        let (node, replaced) = self.check_rename(from, to, false)?;
        if from == to {
            return Ok(None);
        }
        if let Some(replaced) = replaced {
            self.take(to.0, to.1)?;
            self.drop_unknown(replaced);
        }
        self.take(from.0, from.1)?;
        self.put(node, to.0, to.1)?;
        Ok(replaced)
    }

    /// The kernel was told the number once more.
    pub(super) fn refer(&mut self, node: u64) {
        if let Some(node) = self.nodes.get_mut(&node) {
            node.references = node.references.saturating_add(1);
        }
    }

    pub(super) fn forget(&mut self, node: u64, many: u64) {
        if let Some(known) = self.nodes.get_mut(&node) {
            known.references = known.references.saturating_sub(many);
        }
        self.drop_unknown(node);
    }

    fn drop_unknown(&mut self, node: u64) {
        let gone = |node: &Node<F>| node.within.is_none() && node.references == 0;
        if node != ROOT && self.nodes.get(&node).is_some_and(gone) {
            self.nodes.remove(&node);
        }
    }

    /// Names behind a place, `.` and `..` first.
    pub(super) fn list(&self, node: u64, from: u64, most: usize) -> Result<Vec<Listed>, FsError> {
        let directory = self.directory(node)?;
        let parent = self.node(node)?.within.as_ref().map_or(ROOT, |(parent, _)| *parent);
        let own = [(1, ".", node), (2, "..", parent)].into_iter();
        let own = own.filter(|(next, ..)| *next > from).map(|(next, name, node)| Listed {
            node,
            directory: true,
            name: name.to_owned(),
            next,
        });
        let behind = directory.names.range(from.saturating_add(1).saturating_sub(OWN)..);
        let names = behind.map(|(node, name)| Listed {
            node: *node,
            directory: self.directory(*node).is_ok(),
            name: name.clone(),
            next: node + OWN,
        });
        Ok(own.chain(names).take(most).collect())
    }

    pub(super) fn children(&self, node: u64) -> Vec<(String, u64)> {
        let Ok(directory) = self.directory(node) else { return Vec::new() };
        directory.children.iter().map(|(name, node)| (name.clone(), *node)).collect()
    }

    /// Every file in a directory and below, by number.
    pub(super) fn files_below(&self, node: u64) -> Vec<(u64, F)> {
        let mut found = Vec::new();
        let mut rest = vec![node];
        while let Some(at) = rest.pop() {
            match self.nodes.get(&at).map(|node| &node.kind) {
                Some(Kind::File(file)) => found.push((at, file.clone())),
                Some(Kind::Directory(directory)) => {
                    rest.extend(directory.children.values());
                }
                None => {}
            }
        }
        found.sort_by_key(|(node, _)| *node);
        found
    }

    /// Every file there is, those without a name too.
    pub(super) fn files(&self) -> Vec<(u64, F)> {
        let nodes = self.nodes.iter();
        nodes
            .filter_map(|(number, node)| match &node.kind {
                Kind::File(file) => Some((*number, file.clone())),
                Kind::Directory(_) => None,
            })
            .collect()
    }
}

/// A name that can be brought home.
pub(super) fn checked(name: &[u8]) -> Result<&str, FsError> {
    if name.len() > NAME_MAX {
        return Err(FsError::NameTooLong);
    }
    let name = std::str::from_utf8(name).map_err(|_| FsError::BadName)?;
    if matches!(name, "" | "." | "..") || name.contains(['/', '\0']) {
        return Err(FsError::Invalid);
    }
    if name.starts_with(RESERVED) {
        return Err(FsError::NotPermitted);
    }
    Ok(name)
}
