//! How results begin: with nothing, with what is at home, or with what a worker before left.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tidegate_plan::{result_blocks, sealed_len};
use tidegate_wire::{Attributes, Found, ListReply, ListRequest, PartReceipt};

use super::block::{BLOCK, Content, Part, Sealed};
use super::content::{AtHome, Block, PART_BLOCKS, State, Upload};
use super::core::{File, time_of};
use super::home::Home;
use super::journal::{Brought, Complete, HomeRecord, Known, Model, PartRecord, Record};
use super::names::{Directory, Kind, Names, ROOT, UNKNOWN};
use super::spool::Spool;
use super::version::Version;
use super::writers::Writers;
use crate::errno::FsError;

type Tree = Names<Arc<File>>;

/// Builds the tree that the journal tells of. Returns it with the files that are complete and not home.
pub(super) fn taken_up(model: &Model, spool: &Arc<Spool>) -> (Tree, Vec<Arc<File>>) {
    let mut names = Names::new(0o755);
    names.used_up_to(model.next);
    let mut unsent = Vec::new();
    let mut rest: Vec<_> = model.nodes.iter().collect();
    // A directory may be younger than what was moved into it.
    loop {
        let before = rest.len();
        rest.retain(|(node, known)| {
            if names.directory(known.parent).is_err() {
                return true;
            }
            let kind = if known.directory {
                Kind::Directory(directory(&known.attributes))
            } else {
                let file = file(**node, known, spool);
                if super::core::lock(&file.pending).is_some() {
                    unsent.push(Arc::clone(&file));
                }
                Kind::File(file)
            };
            if let Err(error) = names.add_as(**node, known.parent, &known.name, kind, UNKNOWN) {
                tracing::error!(%error, "a result's name cannot be taken up again");
            }
            false
        });
        if rest.len() == before {
            return (names, unsent);
        }
    }
}

fn directory(attributes: &Attributes) -> Directory {
    Directory::new(attributes.mode, Some(time_of(attributes)))
}

fn file(node: u64, known: &Known, spool: &Arc<Spool>) -> Arc<File> {
    let mut state = State::new(known.attributes.mode, time_of(&known.attributes));
    state.covers = known.covers;
    state.adopted = true;
    if let Some(home) = &known.home {
        state.dirty = false;
        state.home = Some(Arc::new(at_home(home)));
        (state.len, state.seen, state.low) = (home.len, home.len, home.len);
    }
    if let Some((id, path, brought)) = &known.upload {
        let complete = known.complete.as_deref();
        let receipts = complete.map(|complete| still_so(complete, id, brought));
        let (id, path, receipts) = (id.clone(), path.clone(), receipts.unwrap_or_default());
        state.upload = Some(Upload { id, path, receipts });
    }
    let mut pending = None;
    if let Some(complete) = &known.complete {
        match version(complete, state.upload.as_ref(), spool) {
            Some((version, blocks)) => {
                (state.len, state.low) = (complete.len, complete.len);
                state.seen = state.seen.min(complete.len);
                state.blocks = blocks;
                state.dirty = false;
                state.dirty_since = Some(tidegate_kit::clock::boottime());
                pending = Some(Arc::new(version));
            }
            None => state.lost = true,
        }
    }
    // What set out before the journal was told of it is known to nobody.
    state.unheard = known.dirty || known.complete.is_some();
    state.lost |= known.dirty;
    state.told = known.dirty;
    // What the kernel has kept of it was not counted by us.
    state.cached = state.len;
    let file = File::new(node, state);
    super::core::lock(&file.recorded).clone_from(&pending);
    *super::core::lock(&file.pending) = pending;
    file
}

fn at_home(record: &HomeRecord) -> AtHome {
    AtHome { version: record.version.clone(), len: record.len, receipts: record.receipts.clone() }
}

/// Receipts of parts that are in the upload as they are in what is complete. Those of other bytes, such as the
/// worker had in memory, are of no use to anybody.
fn still_so(complete: &Complete, id: &str, brought: &Brought) -> BTreeMap<u32, PartReceipt> {
    let is_so = |number: u32, part: &PartRecord| match part {
        PartRecord::Brought { upload, receipt } => (upload == id).then(|| receipt.clone()),
        PartRecord::Copy(receipt) => {
            let (_, copied) = brought.get(&number).filter(|(content, _)| content.is_none())?;
            let is_same = (copied.len, &copied.hash.0) == (receipt.len, &receipt.hash.0);
            is_same.then(|| copied.clone())
        }
        PartRecord::Spooled { key, .. } => {
            let (content, _) = complete.keys.get(*key as usize)?;
            let (of, receipt) = brought.get(&number)?;
            (*of == Some(*content)).then(|| receipt.clone())
        }
    };
    let parts = (0..).zip(&complete.parts);
    parts.filter_map(|(number, part)| Some((number, is_so(number, part)?))).collect()
}

/// What was complete, if the spool and the upload still have all of it.
fn version(
    complete: &Complete,
    open: Option<&Upload>,
    spool: &Arc<Spool>,
) -> Option<(Version, BTreeMap<u64, Block>)> {
    let keys: Vec<_> = complete
        .keys
        .iter()
        .map(|(id, key)| Arc::new(Content::adopted(*id, key.0.clone())))
        .collect();
    let mut blocks = BTreeMap::new();
    let mut parts = Vec::new();
    for (number, part) in (0_u32..).zip(&complete.parts) {
        let first = u64::from(number) * PART_BLOCKS;
        let range = first..(first + PART_BLOCKS).min(result_blocks(complete.len));
        parts.push(match part {
            PartRecord::Copy(receipt) => Part::Copy(receipt.clone()),
            PartRecord::Brought { upload, receipt } => {
                if open.is_none_or(|open| open.id != *upload) {
                    return None;
                }
                blocks.extend(range.map(|block| (block, Block::Uploaded)));
                Part::Brought { upload: upload.clone(), receipt: receipt.clone() }
            }
            PartRecord::Spooled { key, slots } => {
                let content = keys.get(*key as usize)?;
                if slots.len() as u64 != range.end - range.start {
                    return None;
                }
                let mut sealed = Vec::with_capacity(slots.len());
                for (block, (first, len)) in range.zip(slots) {
                    let rest = complete.len.saturating_sub(block * BLOCK as u64);
                    let plain = usize::try_from(rest).map_or(BLOCK, |rest| rest.min(BLOCK));
                    if u64::from(*len) != sealed_len(plain as u64) {
                        return None;
                    }
                    let slot = spool.adopt(*first, *len)?;
                    let content = Arc::clone(content);
                    let block_ = Arc::new(Sealed::adopted(content, block, plain, slot));
                    let kept = Arc::clone(&block_);
                    blocks
                        .insert(block, Block::Sealed { sealed: kept, valid: plain, clean: false });
                    sealed.push(block_);
                }
                Part::Sealed(sealed)
            }
        });
    }
    let content = keys.into_iter().find(|key| key.id == complete.content);
    let content =
        content.unwrap_or_else(|| Arc::new(Content::adopted(complete.content, Vec::new())));
    let (parts, writers) = (Mutex::new(parts), Writers::anybody());
    let version = Version { content, len: complete.len, parts, writers };
    Some((version, blocks))
}

/// Shows what is at home. Returns what a successor must know of it.
pub(super) async fn resumed(home: &Home, names: &mut Tree) -> Result<Vec<Record>, FsError> {
    let mut records = Vec::new();
    let mut after = None;
    loop {
        let asked = home.ask("list", &ListRequest { after }).await;
        let page: ListReply = asked.map_err(super::home::Refusal::errno)?;
        for found in &page.found {
            if let Err(error) = show(names, found, &mut records) {
                tracing::warn!(%error, "something at home cannot be shown among the results");
            }
        }
        after = page.next;
        if after.is_none() {
            return Ok(records);
        }
    }
}

fn show(names: &mut Tree, found: &Found, records: &mut Vec<Record>) -> Result<(), FsError> {
    let mut above: Vec<&str> = found.path.split('/').collect();
    let name = above.pop().ok_or(FsError::Invalid)?;
    let mut parent = ROOT;
    for name in above {
        parent = show_directory(names, parent, name, 0o755, &found.attributes, records)?;
    }
    if found.directory {
        let mode = found.attributes.mode;
        show_directory(names, parent, name, mode, &found.attributes, records)?;
        return Ok(());
    }
    super::names::checked(name.as_bytes())?;
    let mut state = State::new(found.attributes.mode, time_of(&found.attributes));
    let record =
        HomeRecord { version: found.version.clone(), len: found.len, receipts: Vec::new() };
    state.home = Some(Arc::new(at_home(&record)));
    state.dirty = false;
    (state.len, state.seen, state.low) = (found.len, found.len, found.len);
    let node = names.add(parent, name, |node| Kind::File(File::new(node, state)))?;
    records.push(Record::Made {
        node,
        parent,
        name: name.to_owned(),
        directory: false,
        attributes: found.attributes,
    });
    records.push(Record::Home { node, home: record, dirty: false });
    Ok(())
}

fn show_directory(
    names: &mut Tree,
    parent: u64,
    name: &str,
    mode: u32,
    like: &Attributes,
    records: &mut Vec<Record>,
) -> Result<u64, FsError> {
    super::names::checked(name.as_bytes())?;
    if let Some(known) = names.child(parent, name)? {
        names.directory(known)?;
        return Ok(known);
    }
    let attributes = Attributes { mode, ..*like };
    let node = names.add(parent, name, |_| Kind::Directory(directory(&attributes)))?;
    let name = name.to_owned();
    records.push(Record::Made { node, parent, name, directory: true, attributes });
    Ok(node)
}

#[cfg(test)]
mod tests {
    use tidegate_plan::ContentId;
    use tidegate_wire::Base64;

    use super::*;

    fn receipt(part: u32, hash: u8, proof: u8) -> PartReceipt {
        let (hash, proof): (Base64, Base64) = (vec![hash; 32].into(), vec![proof; 32].into());
        PartReceipt { part, len: 5, hash, tag: String::new(), proof }
    }

    #[test]
    fn receipts_of_other_bytes_are_dropped() {
        let [ours, other] = [1, 2].map(|id| ContentId::from_bytes([id; ContentId::LEN]));
        let spooled = || PartRecord::Spooled { key: 0, slots: Vec::new() };
        let in_upload = |upload: &str, part| PartRecord::Brought {
            upload: upload.into(),
            receipt: receipt(part, 3, 3),
        };
        let complete = Complete {
            content: ours,
            len: 7 * 5,
            keys: vec![(ours, Vec::new().into())],
            parts: vec![
                spooled(),
                spooled(),
                spooled(),
                PartRecord::Copy(receipt(3, 3, 1)),
                PartRecord::Copy(receipt(4, 3, 1)),
                in_upload("one", 5),
                in_upload("before", 6),
            ],
        };
        let brought = [
            (Some(ours), receipt(0, 3, 2)),
            (Some(other), receipt(1, 3, 2)),
            (None, receipt(2, 3, 2)),
            (None, receipt(3, 3, 2)),
            (None, receipt(4, 4, 2)),
            (Some(other), receipt(6, 3, 2)),
        ];
        let brought = brought.map(|(content, receipt)| (receipt.part, (content, receipt)));
        let kept = still_so(&complete, "one", &brought.into());
        let parts: Vec<_> =
            kept.values().map(|receipt| (receipt.part, receipt.proof.0[0])).collect();
        assert_eq!(parts, [(0, 2), (3, 2), (5, 3)]);
    }
}
