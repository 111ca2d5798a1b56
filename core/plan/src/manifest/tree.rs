//! The names of one share, walked as a tree.

use crate::layout::Layout;
use crate::selection::Selection;
use crate::snapshot::Snapshot;

/// Walks the share in path order: each entry to show with its position in the selection's files, if it
/// is a file or link, and its depth (1 below the root).
///
/// A share of several ranks shows the directories its own files need and no others; the only share
/// of a lease shows all that the selection shows.
pub(super) fn walk(
    snapshot: &Snapshot,
    selection: &Selection,
    layout: &Layout,
    rank: u16,
    mut visit: impl FnMut(u32, Option<u32>, usize),
) {
    let Some(share) = layout.share(rank) else { return };
    let listed_dirs = if layout.ranks() == 1 { selection.dirs() } else { &[] };
    let mut dirs = listed_dirs.iter().map(|dir| (*dir, None)).peekable();
    let in_share = &selection.files()[share.files.start as usize..share.files.end as usize];
    let files = in_share.iter().zip(share.files.clone()).map(|(at, file)| (*at, Some(file)));
    let mut files = files.peekable();
    // Directories around the current entry that were visited, outermost first.
    let mut open: Vec<u32> = Vec::new();
    loop {
        let next = match (dirs.peek(), files.peek()) {
            (Some((dir, _)), Some((file, _))) if dir < file => dirs.next(),
            (Some(_), None) => dirs.next(),
            _ => files.next(),
        };
        let Some((at, file)) = next else { return };
        enter(snapshot, &mut open, snapshot.parent_of(at), &mut visit);
        visit(at, file, open.len() + 1);
        if file.is_none() {
            open.push(at);
        }
    }
}

/// Makes `open` the directories down to `inside`; visits those that were not.
fn enter(
    snapshot: &Snapshot,
    open: &mut Vec<u32>,
    inside: Option<u32>,
    visit: &mut impl FnMut(u32, Option<u32>, usize),
) {
    let mut missing = Vec::new();
    let mut above = inside;
    loop {
        // Directories come before what they hold, so a later one than `above` is not around it.
        while open.last().is_some_and(|last| above.is_none_or(|dir| *last > dir)) {
            open.pop();
        }
        let Some(dir) = above.filter(|dir| open.last() != Some(dir)) else { break };
        missing.push(dir);
        above = snapshot.parent_of(dir);
    }
    for dir in missing.into_iter().rev() {
        visit(dir, None, open.len() + 1);
        open.push(dir);
    }
}
