//! The names of one share as a tree in breadth-first order.

use crate::entry::Entry;
use crate::layout::Layout;
use crate::selection::Selection;

/// One record to be written: an entry of the snapshot, placed in the tree.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    /// Index into the snapshot's entries; `None` is the root.
    pub(super) entry: Option<u32>,
    /// Position in the selection's files, for a file or link.
    pub(super) file: Option<u32>,
    /// Record number of the directory that holds it.
    pub(super) parent: u32,
    /// Record number of the first child.
    pub(super) first_child: u32,
    pub(super) children: u32,
}

/// Walks the share in path order: each entry to show with its depth (1 below the root).
///
/// A share of several ranks shows the directories its own files need and no others; the only share
/// of a lease shows all that the selection shows.
pub(super) fn walk(
    entries: &[Entry],
    selection: &Selection,
    layout: &Layout,
    rank: u16,
    mut visit: impl FnMut(u32, Option<u32>, usize),
) {
    let Some(share) = layout.share(rank) else { return };
    let show_all = layout.ranks() == 1;
    let mut dirs = selection.dirs().iter().copied().peekable();
    // Directories around the current path, and whether each was visited.
    let mut open: Vec<(u32, bool)> = Vec::new();
    let enter = |open: &mut Vec<(u32, bool)>, dir: u32, visit: &mut dyn FnMut(u32, usize)| {
        let path = &entries[dir as usize].path;
        while open.last().is_some_and(|(above, _)| !path.is_below(&entries[*above as usize].path)) {
            open.pop();
        }
        open.push((dir, show_all));
        if show_all {
            visit(dir, open.len());
        }
    };
    for file in share.files.clone() {
        let at = selection.files()[file as usize];
        while let Some(dir) = dirs.next_if(|dir| *dir < at) {
            enter(&mut open, dir, &mut |dir, depth| visit(dir, None, depth));
        }
        let path = &entries[at as usize].path;
        while open.last().is_some_and(|(above, _)| !path.is_below(&entries[*above as usize].path)) {
            open.pop();
        }
        for (above, depth) in open.iter_mut().zip(1..) {
            if !above.1 {
                above.1 = true;
                visit(above.0, None, depth);
            }
        }
        visit(at, Some(file), open.len() + 1);
    }
    if show_all {
        for dir in dirs {
            enter(&mut open, dir, &mut |dir, depth| visit(dir, None, depth));
        }
    }
}

/// All records of the share. Within one depth, path order keeps the children of a directory together
/// and sorted, so breadth-first order is a stable sort of path order by depth.
pub(super) fn breadth_first(
    entries: &[Entry],
    selection: &Selection,
    layout: &Layout,
    rank: u16,
) -> Vec<Node> {
    let mut seen: Vec<(u32, Option<u32>, u32)> = Vec::new();
    let mut at_depth: Vec<u32> = vec![1];
    walk(entries, selection, layout, rank, |entry, file, depth| {
        if at_depth.len() <= depth {
            at_depth.resize(depth + 1, 0);
        }
        at_depth[depth] += 1;
        seen.push((entry, file, u32::try_from(depth).unwrap_or(u32::MAX)));
    });
    // Where the next record of each depth goes.
    let mut next: Vec<u32> = Vec::with_capacity(at_depth.len());
    let mut start = 0;
    for count in &at_depth {
        next.push(start);
        start += count;
    }
    let root = Node { entry: None, file: None, parent: 0, first_child: 1, children: 0 };
    let mut nodes = vec![root; seen.len() + 1];
    // The newest record of each depth: the directory around what comes next, one level down.
    let mut newest: Vec<u32> = next.clone();
    for (entry, file, depth) in seen {
        let depth = depth as usize;
        let (record, parent) = (next[depth], newest[depth - 1]);
        next[depth] += 1;
        newest[depth] = record;
        nodes[record as usize] =
            Node { entry: Some(entry), file, parent, first_child: 0, children: 0 };
        nodes[parent as usize].children += 1;
    }
    let mut child = 1;
    for node in &mut nodes {
        node.first_child = child;
        child += node.children;
    }
    nodes
}
