//! What must hold of a run, judged from the bucket's whole history and from what was seen outside.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tidegate_kit::state::StateStore;
use tidegate_lease::{Attachment, Cause, Lease, Phase};
use tidegate_ledger::{
    Batch, Entry, Event, Outcome, VerifierKey, WipeCertificate, verify, verify_receipt,
};
use tidegate_plan::{InstanceId, LeaseId};
use tidegate_wire::Directive;

use super::executor::SECOND_ZERO;
use super::house::SILENCE_S;
use super::notes::Handed;
use super::store::Effect;
use super::world::World;
use crate::book::Document;

/// An answer may leave this long after what it was decided by.
const REPLY: Duration = Duration::from_secs(10);
/// A head may be this old.
const HEAD: Duration = Duration::from_secs(5);

/// A revision, and when it came to be.
type Revised = (Duration, Document);

struct Run<'a> {
    world: &'a World,
    key: &'a VerifierKey,
    /// No clock was ever wrong.
    steady: bool,
    effects: Vec<Effect>,
    /// Entries in order, with the time at which each was durable.
    entries: Vec<(Duration, String, Entry)>,
    wrong: Vec<String>,
}

/// What does not hold; nothing when all does.
pub(super) async fn judge(world: &World, vkey: &str, steady: bool) -> Vec<String> {
    let key = VerifierKey::parse(vkey).unwrap();
    let effects = world.bucket.effects();
    let wrong = world.notes().wrong.clone();
    let mut run = Run { world, key: &key, steady, effects, entries: Vec::new(), wrong };
    run.ledger();
    let histories = run.histories().await;
    for (lease, history) in &histories {
        run.lease(*lease, history);
    }
    run.wrong
}

impl Run<'_> {
    fn say(&mut self, what: String) {
        self.wrong.push(what);
    }

    /// The ledger verifies, and agrees with every checkpoint that was ever shown.
    fn ledger(&mut self) {
        let batches: Vec<(String, Vec<u8>)> = self
            .effects
            .iter()
            .filter_map(|effect| {
                let name = effect.path.strip_prefix("ledger/batches/")?;
                Some((name.to_owned(), effect.bytes.as_ref()?.to_vec()))
            })
            .collect();
        let mut known = self.world.notes().checkpoints.clone();
        known.sort_unstable();
        known.dedup();
        known.retain(|checkpoint| !checkpoint.is_empty());
        let report = verify(&batches, self.key, &known);
        for fault in &report.faults {
            self.say(format!("the ledger does not verify: {fault}"));
        }
        for effect in &self.effects {
            if let (true, Some(bytes)) =
                (effect.path.starts_with("ledger/batches/"), effect.bytes.as_ref())
            {
                let batch = Batch::parse(bytes).unwrap();
                let texts = batch.entries.into_iter();
                self.entries.extend(texts.map(|text| {
                    let entry = Entry::parse(&text).unwrap();
                    (effect.at, text, entry)
                }));
            }
        }
    }

    /// Each lease's revisions: made one by one, believed by their MAC, never changed or removed.
    async fn histories(&mut self) -> BTreeMap<LeaseId, Vec<Revised>> {
        let raw = Arc::new(self.world.bucket.raw());
        let store = StateStore::in_bucket(raw, "the same".to_owned()).await.unwrap();
        let revisions = self.world.house.revisions(store);
        let mut histories = BTreeMap::<LeaseId, Vec<Revised>>::new();
        for effect in self.effects.clone() {
            let Some(rest) = effect.path.strip_prefix("leases/") else { continue };
            let (lease, number) = rest.split_once('/').unwrap();
            let lease: LeaseId = lease.parse().unwrap();
            let number: u64 = number.parse().unwrap();
            let history = histories.entry(lease).or_default();
            if effect.bytes.is_none() || number != history.len() as u64 + 1 {
                self.say(format!("revision {number} is not the next one, or was removed"));
                continue;
            }
            match revisions.read(&format!("leases/{lease}"), number).await {
                Ok(Some(revision)) => {
                    history.push((effect.at, serde_json::from_slice(&revision.body).unwrap()));
                }
                other => self.say(format!("revision {number} is not believed: {other:?}")),
            }
        }
        histories
    }

    fn lease(&mut self, id: LeaseId, history: &[Revised]) {
        let Some((_, last)) = history.last() else { return };
        self.transitions(history);
        self.releases(id, history);
        self.heartbeats(id, history);
        if !last.lease.is_closed() {
            return;
        }
        self.closing(id, history, last);
        self.certificates(id, last);
        self.fences(id, last);
    }

    fn transitions(&mut self, history: &[Revised]) {
        for (_, document) in history {
            let current = document.lease.attachments.iter().filter(|held| held.is_current());
            let ranks: Vec<u16> = current.map(|held| held.rank).collect();
            if ranks.iter().collect::<BTreeSet<_>>().len() != ranks.len() {
                self.say("a rank has two current attachments".to_owned());
            }
        }
        for pair in history.windows(2) {
            let (before, after) = (&pair[0].1, &pair[1].1);
            if before.lease.is_closed() && before.lease != after.lease {
                self.say("a closed lease changed".to_owned());
            }
            if before.lease.changed_at > after.lease.changed_at {
                self.say("the time of a lease went back".to_owned());
            }
        }
        // Not for silence, if none was silent.
        let is_vanished = |lease: &Lease| lease.ending.is_some_and(|e| e.cause == Cause::Vanished);
        if let Some((at, document)) =
            history.iter().find(|(_, document)| is_vanished(&document.lease))
            && self.steady
        {
            let spare = Duration::from_secs(u64::from(SILENCE_S) - 2);
            let beats = self.world.notes().beats.clone();
            let heard = |instance: InstanceId| {
                beats.iter().any(|b| b.to == instance && b.at <= *at && b.asked + spare > *at)
            };
            let lease = &document.lease;
            let watched: Vec<_> = lease
                .attachments
                .iter()
                .filter(|held| held.is_current() && !document.certificates.contains_key(&held.rank))
                .collect();
            if !watched.is_empty() && watched.iter().all(|held| heard(held.instance)) {
                self.say(
                    "a lease was withdrawn for silence, but its workers were heard".to_owned(),
                );
            }
        }
    }

    /// Every release that left has an entry of its own that was durable before, and none left
    /// after its lease had ended, or its worker had lost the rank, for longer than an answer may take.
    fn releases(&mut self, id: LeaseId, history: &[Revised]) {
        let handed: Vec<Handed> = self.world.notes().handed.clone();
        let mut seen = BTreeSet::new();
        for Handed { at, replica, to, grant } in handed.iter().filter(|h| h.grant.lease == id) {
            let what = format!("release {} by replica {replica} at {at:?}", grant.epoch);
            let says = |event: &Event| {
                matches!(event, Event::KeysReleased { lease, rank, epoch, first_block, end_block, .. }
                    if (*lease, *rank, *epoch) == (id, grant.rank, grant.epoch)
                        && (*first_block, *end_block) == (grant.first_block, grant.end_block))
            };
            let entry = self.entries.iter().position(|(durable, text, entry)| {
                durable <= at && *text == grant.receipt.entry && says(&entry.event)
            });
            match entry {
                None => self.say(format!("{what} had no durable entry")),
                Some(index) if !seen.insert(index) => {
                    self.say(format!("{what} has the entry of another"));
                }
                Some(_) => {}
            }
            let receipt = &grant.receipt;
            let (proof, checkpoint) = (&receipt.proof, &receipt.checkpoint);
            if verify_receipt(self.key, &receipt.entry, receipt.index, proof, checkpoint).is_err() {
                self.say(format!("{what} has no receipt"));
            }
            let Some(made) = history.iter().position(|(_, d)| d.lease.releases() >= grant.epoch)
            else {
                self.say(format!("{what} has no revision"));
                continue;
            };
            let held = history[made].1.lease.attachment(grant.rank);
            if held.is_none_or(|held| held.instance != *to) {
                self.say(format!("{what} went to a worker that did not hold the rank"));
            }
            let over = history[made..].iter().find(|(_, document)| {
                let held = document.lease.attachment(grant.rank);
                is_over(document) || held.is_none_or(|held| held.instance != *to)
            });
            if let Some((ended, _)) = over
                && *at > *ended + REPLY
            {
                self.say(format!("{what} is late: the worker's right had ended at {ended:?}"));
            }
        }
        if seen.len() != handed.iter().filter(|h| h.grant.lease == id).count() {
            return;
        }
        let accepted = self.world.notes().accepted.clone();
        let judged = if self.steady { accepted.as_slice() } else { &[] };
        for taken in judged {
            let decided = Duration::from_secs(taken.time - SECOND_ZERO);
            if taken.at > decided + REPLY + taken.slack + Duration::from_secs(2) {
                self.say(format!("a worker took release {} when it was old", taken.epoch));
            }
        }
    }

    /// Nobody is told to go on for long after the end.
    fn heartbeats(&mut self, id: LeaseId, history: &[Revised]) {
        let Some((over, document)) = history.iter().find(|(_, document)| is_over(document)) else {
            return;
        };
        let ours: Vec<InstanceId> =
            document.lease.attachments.iter().map(|held| held.instance).collect();
        let beats = self.world.notes().beats.clone();
        for beat in beats.iter().filter(|beat| ours.contains(&beat.to)) {
            // The worker's own measure of age is as good as its promptest answer.
            let limit = *over + HEAD + REPLY + beat.slack + Duration::from_secs(4);
            if beat.directive == Directive::Continue && beat.at > limit {
                self.say(format!("a worker of {id} was told to go on at {:?}", beat.at));
            }
        }
    }

    /// Closed once and for all, as what was seen; the key is gone, and nothing was released since.
    fn closing(&mut self, id: LeaseId, history: &[Revised], last: &Document) {
        let lease = &last.lease;
        let wrapped = self.effects.iter().rfind(|e| e.path == format!("wrapped/{id}"));
        if wrapped.is_some_and(|effect| effect.bytes.is_some()) {
            self.say("the wrapped key of a closed lease is there".to_owned());
        }
        let all_said = !lease.attachments.is_empty()
            && lease.attachments.iter().all(|held| {
                let notes = self.world.notes();
                notes.stated.iter().any(|said| said.complete && said.instance == held.instance)
            });
        let outcome = match lease.phase {
            Phase::Closed(tidegate_lease::Outcome::Wiped) => Outcome::Wiped,
            _ => Outcome::Withdrawn,
        };
        if outcome == Outcome::Wiped && !all_said {
            self.say("closed as wiped, but not every worker said so".to_owned());
        }
        if last.last_release_at > last.key_destroyed_at {
            self.say(format!(
                "keys were released at {:?}, after the key's destruction at {:?}",
                last.last_release_at, last.key_destroyed_at
            ));
        }
        let closed = history.iter().find(|(_, d)| d.lease.is_closed());
        let closings: Vec<&Event> = self
            .entries
            .iter()
            .map(|(.., entry)| &entry.event)
            .filter(|event| matches!(event, Event::LeaseClosed { lease, .. } if *lease == id))
            .collect();
        let granted = self.entries.iter().any(
            |(.., entry)| matches!(&entry.event, Event::LeaseGranted { lease, .. } if *lease == id),
        );
        let mut wrong = Vec::new();
        if closings.is_empty() && granted && lease.granted_at > 0 {
            wrong.push("a closed lease has no closing entry".to_owned());
        }
        for event in closings {
            let Event::LeaseClosed {
                outcome: said,
                released_blocks,
                last_release_at,
                key_destroyed_at,
                absence_confirmed,
                ..
            } = event
            else {
                continue;
            };
            if (*said, *released_blocks) != (outcome, lease.released_blocks())
                || (*last_release_at, *key_destroyed_at)
                    != (last.last_release_at, last.key_destroyed_at)
                || !absence_confirmed
            {
                wrong.push(format!("a closing entry says other than its lease: {event:?}"));
            }
        }
        self.wrong.extend(wrong);
        // T: after it, nothing that was not on its way.
        let handed = self.world.notes().handed.clone();
        for handed in handed.iter().filter(|handed| handed.grant.lease == id) {
            if closed.is_some_and(|(at, _)| handed.at > *at + REPLY) {
                self.say(format!("release {} left after the close", handed.grant.epoch));
            }
        }
    }

    /// The ledger says of everybody who was fenced that he was.
    fn fences(&mut self, id: LeaseId, last: &Document) {
        for held in last.lease.attachments.iter().filter(|held| !held.is_current()) {
            let said = self.entries.iter().any(|(.., entry)| {
                matches!(&entry.event, Event::Fenced { lease, rank, instance }
                    if (*lease, *rank, *instance) == (id, held.rank, held.instance))
            });
            if !said {
                self.say(format!("a worker of rank {} was fenced without an entry", held.rank));
            }
        }
    }

    /// Each certificate that the lease names is there, holds, says what was released, and is in the
    /// ledger.
    fn certificates(&mut self, id: LeaseId, last: &Document) {
        let held = |rank| last.lease.attachment(rank).unwrap();
        let current = last.certificates.iter().map(|(rank, made)| (rank, made, held(*rank)));
        let fenced = last.fenced_certificates.iter().map(|made| {
            let is_it = |held: &&Attachment| {
                (held.rank, held.instance) == (made.rank, made.instance) && !held.is_current()
            };
            (&made.rank, &made.certified, last.lease.attachments.iter().find(is_it).unwrap())
        });
        for (rank, certified, held) in current.chain(fenced) {
            let path = format!("ledger/certificates/{}", certified.digest);
            let stored = self.effects.iter().find(|effect| effect.path == path);
            let Some(bytes) = stored.and_then(|effect| effect.bytes.clone()) else {
                self.say(format!("the certificate of rank {rank} is not there"));
                continue;
            };
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            let Ok(certificate) = WipeCertificate::parse(&text) else {
                self.say(format!("the certificate of rank {rank} does not hold"));
                continue;
            };
            if certificate.observed.released != held.released {
                self.say(format!(
                    "the certificate of rank {rank} says {:?} was released, but it was {:?}",
                    certificate.observed.released, held.released
                ));
            }
            let recorded = self.entries.iter().any(|(.., entry)| match &entry.event {
                Event::Wiped { lease, rank: of, certificate }
                | Event::Withdrawn { lease, rank: of, certificate } => {
                    (*lease, *of, *certificate) == (id, *rank, certified.digest)
                }
                _ => false,
            });
            if !recorded {
                self.say(format!("the certificate of rank {rank} is not in the ledger"));
            }
        }
        for held in last.lease.attachments.iter().filter(|held| held.is_current()) {
            if !last.certificates.contains_key(&held.rank) {
                self.say(format!("rank {} has no certificate", held.rank));
            }
        }
    }
}

/// Nothing may be served any more.
fn is_over(document: &Document) -> bool {
    let hard = document.lease.ending.is_some_and(|ending| ending.cause != Cause::Drained);
    document.key_destroyed_at.is_some()
        || hard
        || matches!(document.lease.phase, Phase::Wiping | Phase::Closed(_))
}
