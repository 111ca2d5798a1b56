//! One lease from the ledger: who asked for what, what happened in order, what left, what is gone.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;
use serde_json::Value;
use tidegate_ledger::{Action, Commitment, Event, LeaseId, Outcome, WipeCertificate};
use tidegate_wire::{Evidence, NodeFacts};

use super::ending::{self, Ending, Facts};
use super::homecoming::{Homecoming, Run};
use super::words::{self, act, blocks, plural, reason, short, size, when};
use crate::stored::{Line, Stored, Told};

/// The story of a lease. Sentences are for people; entries and certificates are the record itself.
#[derive(Debug, Serialize)]
pub(super) struct Account {
    pub(super) lease: LeaseId,
    /// `open`, `wiped` or `withdrawn`.
    pub(super) state: &'static str,
    pub(super) asked_by: Option<Told>,
    pub(super) source: Option<Told>,
    pub(super) selected: Option<Told>,
    pub(super) files: u64,
    pub(super) bytes: u64,
    pub(super) blocks: u32,
    pub(super) ranks: u16,
    pub(super) deadline: Option<String>,
    pub(super) steps: Vec<Step>,
    pub(super) left: Left,
    /// What the job wrote.
    pub(super) home: Homecoming,
    pub(super) ending: Ending,
    pub(super) entries: Vec<Value>,
    pub(super) certificates: Vec<WipeCertificate>,
    /// Places of entries with their ledger's number, where there are several ledgers.
    #[serde(skip)]
    pub(super) several: bool,
}

/// One thing that happened.
#[derive(Debug, Serialize)]
pub(super) struct Step {
    pub(super) time: String,
    pub(super) ledger: usize,
    pub(super) entry: u64,
    pub(super) what: String,
    /// Entries about results that this step sums up.
    #[serde(skip)]
    run: Option<Run>,
}

/// What left the house.
#[derive(Debug, Default, Serialize)]
pub(super) struct Left {
    pub(super) releases: u32,
    /// Plaintext bytes that the released keys can open at most, from the closing entry or summed.
    pub(super) at_most_bytes: u64,
    /// Sealed bytes sent; `None` while it is open, or when no gateway counted all.
    pub(super) sent_bytes: Option<u64>,
    /// Blocks whose keys were released, by rank.
    pub(super) released: BTreeMap<u16, Vec<(u32, u32)>>,
    pub(super) last_release: Option<String>,
}

/// `None` when the ledger does not know the lease.
pub(super) fn of(stored: &Stored, lease: LeaseId) -> Result<Option<Account>> {
    let lines = stored.lines()?;
    let mut account = Account {
        lease,
        state: "open",
        asked_by: None,
        source: None,
        selected: None,
        files: 0,
        bytes: 0,
        blocks: 0,
        ranks: 0,
        deadline: None,
        steps: Vec::new(),
        left: Left::default(),
        home: Homecoming::default(),
        ending: Ending::default(),
        entries: Vec::new(),
        certificates: Vec::new(),
        several: stored.volumes.len() > 1,
    };
    let mut facts = Facts::default();
    for (at, line) in lines.iter().enumerate() {
        let listing = || listing_before(&lines[..at]);
        if matches!(&line.entry.event, Event::Results { lease: id, .. } if *id == lease) {
            account.results(stored, line);
            account.entries.push(serde_json::from_str(&line.text)?);
        } else if let Some(what) = account.take(stored, &mut facts, line, listing) {
            account.steps.push(Step {
                time: when(line.entry.time),
                ledger: line.ledger,
                entry: line.entry.index,
                what,
                run: None,
            });
            account.entries.push(serde_json::from_str(&line.text)?);
        }
    }
    if account.steps.is_empty() {
        return Ok(None);
    }
    account.state = match &facts.closed {
        Some(Event::LeaseClosed { outcome: Outcome::Wiped, .. }) => "wiped",
        Some(_) => "withdrawn",
        None if facts.voided.is_some() => "withdrawn",
        None => "open",
    };
    account.certificates =
        facts.certified.values().filter_map(|found| found.as_ref().ok()).cloned().collect();
    account.certificates.extend(facts.fenced.values().cloned());
    account.ending = ending::of(&facts, &account.left.released);
    Ok(Some(account))
}

/// A grant follows its listing in the same batch.
fn listing_before(lines: &[Line]) -> Option<&Event> {
    lines.last().map(|line| &line.entry.event)
}

impl Account {
    /// Notes what an entry says; the sentence, when it belongs to this story.
    fn take<'a>(
        &mut self,
        stored: &Stored,
        facts: &mut Facts,
        line: &Line,
        listing: impl FnOnce() -> Option<&'a Event>,
    ) -> Option<String> {
        let (lease, time) = (self.lease, line.entry.time);
        let told = |facts: &mut Facts, commitment: &Commitment| {
            let told = stored.document(commitment);
            facts.erased += u32::from(told == Told::Erased);
            told
        };
        let is_open = !self.steps.is_empty() && facts.closed.is_none();
        match &line.entry.event {
            Event::LeaseGranted { lease: id, .. } if *id == lease => {
                Some(self.granted(stored, facts, &line.entry.event, listing()))
            }
            Event::Attached { lease: id, rank, instance, identity, facts: said, .. }
                if *id == lease =>
            {
                let told = told(facts, said);
                let node = match &told {
                    Told::Text(text) => serde_json::from_str::<(NodeFacts, Evidence)>(text).ok(),
                    _ => None,
                };
                let words = match (&told, &node) {
                    (_, Some((node, _))) => words::node(node),
                    (told, None) => told.to_string(),
                };
                let again =
                    facts.workers.iter().any(|(r, i, _)| r == rank && *i == identity.to_string());
                let other = facts.workers.iter().any(|(r, ..)| r == rank) && !again;
                let how = match (again, other) {
                    (true, _) => "came back as a new process",
                    (_, true) => "took the place of the one before",
                    _ => "joined",
                };
                facts.workers.push((*rank, identity.to_string(), node.map(|(node, _)| node)));
                Some(format!(
                    "A worker for share {rank} {how} ({}, key {}). Its machine, by its own word: {words}.",
                    short(instance),
                    short(identity)
                ))
            }
            Event::KeysReleased { lease: id, rank, epoch, first_block, end_block, bytes }
                if *id == lease =>
            {
                self.left.releases += 1;
                self.left.at_most_bytes = self.left.at_most_bytes.saturating_add(*bytes);
                self.left.last_release = Some(when(time));
                insert(self.left.released.entry(*rank).or_default(), (*first_block, *end_block));
                Some(if first_block == end_block {
                    format!("Release {epoch}: the names of share {rank} alone, no block.")
                } else {
                    format!(
                        "Release {epoch}: keys of {} went to share {rank}; they open at most {}.",
                        blocks(&[(*first_block, *end_block)]),
                        size(*bytes)
                    )
                })
            }
            Event::Refused { lease: Some(id), reason: word, count } if *id == lease => {
                Some(format!("Turned away {}: {}.", plural(*count, "time"), reason(word)))
            }
            Event::Admin { action, lease: Some(id), subject } if *id == lease => {
                if *action == Action::Void {
                    facts.voided = Some(time);
                }
                Some(format!("{} {} this lease.", told(facts, subject), act(*action)))
            }
            Event::Admin { action: Action::Restore, lease: None, subject } if is_open => {
                Some(format!("{} restored the gateway's state.", told(facts, subject)))
            }
            Event::LedgerOpened { after: Some(after), .. } if is_open => {
                let known = match &after.known {
                    Some(known) => format!("; entries known of: {}", known.size),
                    None => String::new(),
                };
                Some(format!(
                    "The ledger before this one was lost or damaged (entries left: {}{known}). Every lease ended.",
                    after.found.size
                ))
            }
            Event::TokenMade { lease: id, rank, subject, .. } if *id == lease => {
                Some(format!("{} made another token for share {rank}.", told(facts, subject)))
            }
            Event::Fenced { lease: id, rank, instance } if *id == lease => Some(format!(
                "The worker that held share {rank} ({}) was shut out: another took its place.",
                short(instance)
            )),
            Event::Wiped { lease: id, rank, certificate } if *id == lease => {
                let who = facts.certify(*rank, stored.certificate(certificate));
                Some(format!(
                    "{who} of share {rank} stated, signed, that it destroyed its keys and wiped its cache. Certificate {}.",
                    short(certificate)
                ))
            }
            Event::Withdrawn { lease: id, rank, certificate } if *id == lease => {
                let found = stored.certificate(certificate);
                let said = match found.as_ref().map(|made| made.stated.is_some()) {
                    Ok(true) => "stated a wipe that was not complete",
                    _ => "ended without stating a wipe",
                };
                let who = facts.certify(*rank, found);
                Some(format!("{who} of share {rank} {said}. Certificate {}.", short(certificate)))
            }
            event @ Event::LeaseClosed { lease: id, outcome, cause, .. } if *id == lease => {
                self.closed(event);
                facts.closed = Some(event.clone());
                let why = cause.map_or("", words::because);
                Some(match outcome {
                    Outcome::Wiped => {
                        format!("The lease was closed as WIPED{why}: every worker stated its wipe.")
                    }
                    Outcome::Withdrawn => format!(
                        "The lease was closed as WITHDRAWN{why}: the gateway destroyed its key; destruction on the \
                         workers' machines was not observed."
                    ),
                })
            }
            Event::EpochDestroyed { epoch } if facts.key_epoch == Some(*epoch) => {
                // Entries may come twice.
                facts.epoch_destroyed.get_or_insert(time);
                Some(format!(
                    "The key under which this lease's key was stored (period {epoch}) was destroyed."
                ))
            }
            _ => None,
        }
    }

    /// An entry about results: a step, or more of the one before.
    fn results(&mut self, stored: &Stored, line: &Line) {
        let before = self.steps.last().and_then(|step| step.run.as_ref());
        let Some(run) = self.home.take(stored, &line.entry.event, before) else { return };
        let what = run.sentence(line.entry.time);
        if run.goes_on()
            && let Some(last) = self.steps.last_mut()
        {
            (last.what, last.run) = (what, Some(run));
            return;
        }
        self.steps.push(Step {
            time: when(line.entry.time),
            ledger: line.ledger,
            entry: line.entry.index,
            what,
            run: Some(run),
        });
    }

    fn granted(
        &mut self,
        stored: &Stored,
        facts: &mut Facts,
        event: &Event,
        listing: Option<&Event>,
    ) -> String {
        let Event::LeaseGranted {
            files,
            bytes,
            blocks,
            ranks,
            subject,
            selected,
            deadline,
            key_epoch,
            snapshot,
            results,
            ..
        } = event
        else {
            return String::new();
        };
        (self.files, self.bytes, self.blocks, self.ranks) = (*files, *bytes, *blocks, *ranks);
        self.deadline = Some(when(*deadline));
        self.asked_by = Some(stored.document(subject));
        self.selected = selected.as_ref().map(|selected| stored.document(selected));
        self.home.granted = results.as_ref().map(|results| stored.document(results));
        let mut of = String::new();
        if let Some(Event::SnapshotTaken { snapshot: taken, source, files, bytes, .. }) = listing
            && taken == snapshot
        {
            self.source = Some(stored.document(source));
            of = format!(" out of {} with {}", plural(*files, "file"), size(*bytes));
        }
        facts.key_epoch = *key_epoch;
        let told = [&self.asked_by, &self.source, &self.selected, &self.home.granted];
        let erased = told.iter().filter(|told| ***told == Some(Told::Erased)).count();
        facts.erased += u32::try_from(erased).unwrap_or_default();
        format!(
            "The lease was granted: {} with {}{of}, until {}.",
            plural(*files, "file"),
            size(*bytes),
            when(*deadline)
        )
    }

    fn closed(&mut self, event: &Event) {
        if let Event::LeaseClosed { released_bytes, sent_bytes, last_release_at, .. } = event {
            self.left.at_most_bytes = *released_bytes;
            self.left.sent_bytes = *sent_bytes;
            self.left.last_release =
                last_release_at.map(when).or_else(|| self.left.last_release.take());
        }
    }
}

/// Adds a range to sorted, merged ranges.
fn insert(ranges: &mut Vec<(u32, u32)>, new: (u32, u32)) {
    if new.0 >= new.1 {
        return;
    }
    ranges.push(new);
    ranges.sort_unstable();
    let mut merged: Vec<(u32, u32)> = Vec::new();
    for (first, end) in ranges.drain(..) {
        match merged.last_mut() {
            Some(last) if first <= last.1 => last.1 = last.1.max(end),
            _ => merged.push((first, end)),
        }
    }
    *ranges = merged;
}
