//! What a successor must know, and how it follows from what was written down. Pure.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use tidegate_plan::ContentId;
use tidegate_wire::{Attributes, Base64, PartReceipt};

/// Requests that a resent one is looked for among.
const UNIQUES: usize = 1024;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::results) enum Record {
    Made {
        node: u64,
        parent: u64,
        name: String,
        directory: bool,
        attributes: Attributes,
    },
    /// `covers`: as of [`Known::covers`], under this name.
    Named {
        node: u64,
        parent: u64,
        name: String,
        covers: bool,
    },
    /// Home is asked to give it that name: it may have done so whether or not anybody lives to hear it.
    Moves {
        node: u64,
        to: Move,
    },
    /// Home did not.
    Stays {
        node: u64,
    },
    Unnamed {
        node: u64,
    },
    Attributes {
        node: u64,
        attributes: Attributes,
    },
    /// Bytes are in a worker's memory only.
    Dirty {
        node: u64,
    },
    /// The length is zero; nothing is lost any more, and nothing waits to be brought home.
    Emptied {
        node: u64,
    },
    /// All of a version is sealed in the spool, or brought home already. `dirty`: bytes that are not in it
    /// are in a worker's memory only, or lost.
    Complete {
        node: u64,
        complete: Box<Complete>,
        dirty: bool,
    },
    Upload {
        node: u64,
        id: String,
        path: String,
    },
    /// A part is in the upload: sealed as that content, or copied from the version at home.
    Part {
        node: u64,
        content: Option<ContentId>,
        receipt: PartReceipt,
    },
    /// What was brought of that part is not the file's any more.
    NoPart {
        node: u64,
        part: u32,
    },
    /// A part of the complete version is in that upload only.
    Brought {
        node: u64,
        content: ContentId,
        upload: String,
        receipt: PartReceipt,
    },
    /// What was complete is not to be brought home: nobody was told that it is safe.
    Withdrawn {
        node: u64,
    },
    /// What was complete sets out for home, where nothing of the file is known to be: nobody may live to
    /// hear that it came.
    SetsOut {
        node: u64,
    },
    /// The upload was given up.
    NoUpload {
        node: u64,
    },
    /// What was complete is at home. `dirty` as of [`Record::Complete`].
    Home {
        node: u64,
        home: HomeRecord,
        dirty: bool,
    },
    /// The version's name at home is another one.
    Version {
        node: u64,
        version: String,
    },
    Done {
        unique: u64,
    },
    /// The next node, and what is added to the boot clock for the numbers of requests.
    Next {
        node: u64,
        seq: u64,
    },
    /// All that there was in the beginning is told.
    Begun,
    /// All that was brought home so far; what was stored again counts again.
    Sums {
        files: u64,
        bytes: u64,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::results) struct HomeRecord {
    pub(in crate::results) version: String,
    pub(in crate::results) len: u64,
    pub(in crate::results) receipts: Vec<PartReceipt>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::results) struct Complete {
    pub(in crate::results) content: ContentId,
    pub(in crate::results) len: u64,
    /// Contents that parts are sealed as, each with its key under HPKE.
    pub(in crate::results) keys: Vec<(ContentId, Base64)>,
    pub(in crate::results) parts: Vec<PartRecord>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::results) enum PartRecord {
    /// As in the version at home.
    Copy(PartReceipt),
    /// In that upload only.
    Brought { upload: String, receipt: PartReceipt },
    /// In the spool: which of the keys, and for each block its first page and sealed length.
    Spooled { key: u32, slots: Vec<(u32, u32)> },
}

/// A name that something is to have, and the request that wants it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::results) struct Move {
    pub(in crate::results) parent: u64,
    pub(in crate::results) name: String,
    pub(in crate::results) unique: u64,
}

/// Parts that are in an upload, and what they were sealed as; of copied ones `None`.
pub(in crate::results) type Brought = BTreeMap<u32, (Option<ContentId>, PartReceipt)>;

/// A node as it is known from the journal.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::results) struct Known {
    pub(in crate::results) parent: u64,
    pub(in crate::results) name: String,
    pub(in crate::results) directory: bool,
    pub(in crate::results) attributes: Attributes,
    pub(in crate::results) home: Option<HomeRecord>,
    pub(in crate::results) complete: Option<Box<Complete>>,
    pub(in crate::results) upload: Option<(String, String, Brought)>,
    /// There were bytes in memory only.
    pub(in crate::results) dirty: bool,
    /// Something may be at home under its name that is not `home`: what another file left there, or
    /// what came from this one and nobody heard of.
    pub(in crate::results) covers: bool,
    /// It may have that name at home by now.
    pub(in crate::results) moves: Option<Move>,
}

/// All that the records say.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::results) struct Model {
    pub(in crate::results) nodes: BTreeMap<u64, Known>,
    pub(in crate::results) done: VecDeque<u64>,
    pub(in crate::results) next: u64,
    pub(in crate::results) seq: u64,
    /// There was a worker that served.
    pub(in crate::results) begun: bool,
    /// Files and bytes that were brought home.
    pub(in crate::results) sums: (u64, u64),
}

impl Model {
    pub(super) fn apply(&mut self, record: &Record) {
        match record {
            Record::Made { node, parent, name, directory, attributes } => {
                self.next = self.next.max(node + 1);
                let known = Known {
                    parent: *parent,
                    name: name.clone(),
                    directory: *directory,
                    attributes: *attributes,
                    home: None,
                    complete: None,
                    upload: None,
                    dirty: false,
                    covers: false,
                    moves: None,
                };
                self.nodes.insert(*node, known);
            }
            Record::Unnamed { node } => {
                self.nodes.remove(node);
            }
            Record::Done { unique } => {
                self.done.push_back(*unique);
                if self.done.len() > UNIQUES {
                    self.done.pop_front();
                }
            }
            Record::Next { node, seq } => {
                self.next = self.next.max(*node);
                self.seq = self.seq.max(*seq);
            }
            Record::Begun => self.begun = true,
            Record::Sums { files, bytes } => {
                self.sums = (self.sums.0.max(*files), self.sums.1.max(*bytes));
            }
            Record::Named { node, .. }
            | Record::Moves { node, .. }
            | Record::Stays { node }
            | Record::Attributes { node, .. }
            | Record::Dirty { node }
            | Record::Emptied { node }
            | Record::Complete { node, .. }
            | Record::Upload { node, .. }
            | Record::Part { node, .. }
            | Record::NoPart { node, .. }
            | Record::Brought { node, .. }
            | Record::Withdrawn { node }
            | Record::SetsOut { node }
            | Record::NoUpload { node }
            | Record::Home { node, .. }
            | Record::Version { node, .. } => {
                if let Some(known) = self.nodes.get_mut(node) {
                    known.apply(record);
                }
            }
        }
    }

    pub(in crate::results) fn was_done(&self, unique: u64) -> bool {
        self.done.contains(&unique)
    }

    /// Paths of files that are not at home as they were last written.
    pub(in crate::results) fn unsaved(&self) -> Vec<String> {
        let files = self.nodes.values().filter(|known| !known.directory);
        let unsaved =
            files.filter(|known| known.dirty || known.complete.is_some() || known.home.is_none());
        unsaved.map(|known| self.path(known)).collect()
    }

    fn path(&self, known: &Known) -> String {
        let (mut path, mut parent) = (known.name.clone(), known.parent);
        // No deeper than there are nodes, whatever the journal says.
        for _ in 0..self.nodes.len() {
            let Some(above) = self.nodes.get(&parent) else { break };
            path = format!("{}/{path}", above.name);
            parent = above.parent;
        }
        path
    }

    /// Records that say the same, directories before what is in them.
    pub(super) fn records(&self) -> Vec<Record> {
        let (files, bytes) = self.sums;
        let mut records =
            vec![Record::Next { node: self.next, seq: self.seq }, Record::Sums { files, bytes }];
        records.extend(self.begun.then_some(Record::Begun));
        for (node, known) in &self.nodes {
            known.records(*node, &mut records);
        }
        records.extend(self.done.iter().map(|unique| Record::Done { unique: *unique }));
        records
    }
}

impl Known {
    fn apply(&mut self, record: &Record) {
        match record {
            Record::Named { parent, name, covers, .. } => {
                self.parent = *parent;
                self.covers = *covers;
                self.name.clone_from(name);
                self.moves = None;
            }
            Record::Moves { to, .. } => self.moves = Some(to.clone()),
            Record::Stays { .. } => self.moves = None,
            Record::Attributes { attributes, .. } => self.attributes = *attributes,
            Record::Dirty { .. } => self.dirty = true,
            Record::Emptied { .. } => {
                self.dirty = false;
                self.complete = None;
            }
            Record::Complete { complete, dirty, .. } => {
                self.dirty = *dirty;
                self.complete = Some(complete.clone());
            }
            Record::Upload { id, path, .. } => {
                self.upload = Some((id.clone(), path.clone(), BTreeMap::new()));
            }
            Record::Part { content, receipt, .. } => {
                if let Some((_, _, brought)) = &mut self.upload {
                    brought.insert(receipt.part, (*content, receipt.clone()));
                }
            }
            Record::NoPart { part, .. } => {
                if let Some((_, _, brought)) = &mut self.upload {
                    brought.remove(part);
                }
            }
            Record::Brought { content, upload, receipt, .. } => {
                if let Some(complete) = &mut self.complete
                    && complete.content == *content
                    && let Some(part) = complete.parts.get_mut(receipt.part as usize)
                {
                    let (upload, receipt) = (upload.clone(), receipt.clone());
                    *part = PartRecord::Brought { upload, receipt };
                }
            }
            Record::Withdrawn { .. } => {
                self.complete = None;
                self.dirty = true;
            }
            Record::SetsOut { .. } => self.covers = true,
            Record::NoUpload { .. } => self.upload = None,
            Record::Home { home, dirty, .. } => {
                self.home = Some(home.clone());
                self.upload = None;
                self.covers = false;
                self.complete = None;
                self.dirty = *dirty;
            }
            Record::Version { version, .. } => {
                if let Some(home) = &mut self.home {
                    home.version.clone_from(version);
                }
            }
            Record::Made { .. }
            | Record::Unnamed { .. }
            | Record::Done { .. }
            | Record::Next { .. }
            | Record::Begun
            | Record::Sums { .. } => {}
        }
    }

    fn records(&self, node: u64, records: &mut Vec<Record>) {
        records.push(Record::Made {
            node,
            parent: self.parent,
            name: self.name.clone(),
            directory: self.directory,
            attributes: self.attributes,
        });
        if let Some(home) = &self.home {
            records.push(Record::Home { node, home: home.clone(), dirty: false });
        }
        if let Some(complete) = &self.complete {
            let complete = complete.clone();
            records.push(Record::Complete { node, complete, dirty: false });
        }
        if let Some((id, path, brought)) = &self.upload {
            records.push(Record::Upload { node, id: id.clone(), path: path.clone() });
            let parts = brought.values().cloned();
            records.extend(parts.map(|(content, receipt)| Record::Part { node, content, receipt }));
        }
        if self.covers {
            records.push(Record::SetsOut { node });
        }
        if self.dirty {
            records.push(Record::Dirty { node });
        }
        records.extend(self.moves.clone().map(|to| Record::Moves { node, to }));
    }
}
