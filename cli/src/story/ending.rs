//! Is it gone? What the gateway saw, what the workers said, and what nobody can confirm.

use std::collections::BTreeMap;

use serde::Serialize;
use tidegate_ledger::{Discarded, Event, Observed, Stated, WipeCertificate};
use tidegate_wire::NodeFacts;

use crate::stored::Told;

use super::homecoming;
use super::words::{blocks, keeps_cores, plural, short, size, swaps, when};

/// What the entries of a lease come to, while they are read.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) key_epoch: Option<u32>,
    /// When the key of that epoch was destroyed.
    pub(super) epoch_destroyed: Option<u64>,
    /// Workers by rank, in order: identity and what their node said.
    pub(super) workers: Vec<(u16, String, Option<NodeFacts>)>,
    /// Ranks that are certified, and with what.
    pub(super) certified: BTreeMap<u16, Result<WipeCertificate, Told>>,
    /// Certificates of workers that had lost their ranks to others, by identity.
    pub(super) fenced: BTreeMap<String, WipeCertificate>,
    pub(super) closed: Option<Event>,
    /// The key was destroyed by a restore that found nothing else of the lease.
    pub(super) voided: Option<u64>,
    pub(super) erased: u32,
}

impl Facts {
    /// Notes a certificate: of the rank's worker, or of an earlier one. Which of the two, in words.
    pub(super) fn certify(
        &mut self,
        rank: u16,
        found: Result<WipeCertificate, Told>,
    ) -> &'static str {
        let newest = self.workers.iter().rfind(|(of, ..)| *of == rank).map(|(_, key, _)| key);
        let identity =
            found.as_ref().ok().and_then(|made| made.identity).map(|key| key.to_string());
        match (found, identity) {
            (Ok(made), Some(key)) if newest.is_some_and(|newest| *newest != key) => {
                self.fenced.insert(key, made);
                "An earlier worker"
            }
            (found, _) => {
                self.certified.insert(rank, found);
                "The worker"
            }
        }
    }
}

/// The three lists are never merged: who vouches for a sentence is part of it.
#[derive(Debug, Default, Serialize)]
pub(super) struct Ending {
    /// The gateway's own facts.
    pub(super) observed: Vec<String>,
    /// The workers' words, signed by them.
    pub(super) stated: Vec<String>,
    pub(super) unconfirmed: Vec<String>,
}

pub(super) fn of(facts: &Facts, released: &BTreeMap<u16, Vec<(u32, u32)>>) -> Ending {
    let mut ending = Ending::default();
    ending.keys(facts);
    for (rank, certificate) in &facts.certified {
        match certificate {
            Ok(certificate) => ending.rank(&rank.to_string(), certificate),
            Err(told) => ending
                .unconfirmed
                .push(format!("The certificate of share {rank} cannot be read: {told}.")),
        }
    }
    ending.workers(facts, released);
    if facts.erased > 0 {
        let (is, what) =
            if facts.erased == 1 { ("was", "One document") } else { ("were", "Some documents") };
        ending.unconfirmed.push(format!(
            "{what} beside the ledger {is} erased; what {} said cannot be known from here.",
            if facts.erased == 1 { "it" } else { "they" }
        ));
    }
    ending
}

impl Ending {
    /// The lease's key, its stored copy, and the key that wrapped it.
    fn keys(&mut self, facts: &Facts) {
        let destroyed = match &facts.closed {
            Some(Event::LeaseClosed { key_destroyed_at, absence_confirmed, .. }) => {
                if *absence_confirmed {
                    self.observed.push(
                        "The stored copy of the lease's key was deleted, looked for and not found."
                            .into(),
                    );
                } else {
                    self.unconfirmed.push(
                        "That the stored copy of the lease's key is gone was not seen.".into(),
                    );
                }
                *key_destroyed_at
            }
            _ => facts.voided,
        };
        match destroyed {
            Some(at) => self
                .observed
                .insert(0, format!("The gateway destroyed the lease's key at {}.", when(at))),
            None if facts.closed.is_some() => {
                self.unconfirmed.push("When the lease's key was destroyed is not known.".into());
            }
            None => {
                self.unconfirmed.push("The lease is still open: nothing is gone yet.".into());
                return;
            }
        }
        match (facts.epoch_destroyed, facts.key_epoch) {
            (Some(at), _) => self.observed.push(format!(
                "The key under which it was stored was destroyed at {}: backups of the gateway open nothing of it.",
                when(at)
            )),
            (None, Some(epoch)) => self.unconfirmed.push(format!(
                "The key under which it was stored (period {epoch}) is not recorded as destroyed yet: until then a \
                 backup of the gateway's keyring that was made while the lease lived could still be used."
            )),
            (None, None) => {}
        }
    }

    fn rank(&mut self, rank: &str, certificate: &WipeCertificate) {
        let seen = &certificate.observed;
        self.observed.push(observed(rank, seen));
        if seen.sent_bytes.is_none() {
            self.unconfirmed.push(format!(
                "How many bytes were sent to share {rank} is not known exactly: no gateway process counted all of \
                 them. The bound above stands."
            ));
        }
        let Some(stated) = &certificate.stated else {
            let end = seen.waited_s.map_or_else(String::new, |waited| {
                format!(
                    ": the gateway waited for {} after the key's destruction, as long as its limit (`wipe_s`) allows",
                    plural(waited, "second")
                )
            });
            self.unconfirmed.push(format!(
                "The worker of share {rank} never stated a wipe{end}. What was released to it ({}) must be taken as \
                 known to whoever had that machine.",
                blocks(&seen.released)
            ));
            self.unconfirmed.extend(seen.results_unsent_bytes.map(|bytes| {
                format!(
                    "Which of its results are missing: when the worker of share {rank} was last heard, {} of its \
                     results were not at home.",
                    size(bytes)
                )
            }));
            return;
        };
        // Reading a certificate has checked the signature.
        self.stated.push(wipe(rank, stated));
        self.stated.extend(stated.results.as_ref().map(|of| homecoming::stated(rank, of)));
        if let Some(shortfall) = stated.shortfall() {
            self.unconfirmed
                .push(format!("The wipe of share {rank} was not complete: {shortfall}."));
        }
        self.doubts(rank, stated);
    }

    /// What a whole wipe leaves open all the same.
    fn doubts(&mut self, rank: &str, stated: &Stated) {
        let mut doubt = |text: String| self.unconfirmed.push(format!("Share {rank}: {text}"));
        if let Some(swaps) = swaps(&stated.facts.swap) {
            doubt(format!(
                "the machine {swaps}: parts of its memory may have been written to a disk."
            ));
        }
        if let Some(keeps) = keeps_cores(&stated.facts.core_pattern) {
            doubt(format!("the machine {keeps}: one of the job would hold data."));
        }
        let freed = stated.page_cache_bytes_freed_without_overwrite;
        if freed > 0 && !stated.facts.init_on_free {
            doubt(format!(
                "at most {} in the kernel's file cache were freed and not overwritten.",
                size(freed)
            ));
        }
        if let Discarded::NotDone(why) = &stated.discarded {
            doubt(format!("the disk was not told to discard the cache's sectors: {why}."));
        }
    }

    /// Workers of whom no certificate speaks: replaced ones, and those of a lease that still lives.
    fn workers(&mut self, facts: &Facts, released: &BTreeMap<u16, Vec<(u32, u32)>>) {
        let mut last: BTreeMap<u16, &str> = BTreeMap::new();
        for (rank, identity, _) in &facts.workers {
            last.insert(*rank, identity);
        }
        let mut told = Vec::new();
        for (rank, identity, _) in &facts.workers {
            if last.get(rank) != Some(&identity.as_str()) && !told.contains(&identity) {
                told.push(identity);
                if let Some(certificate) = facts.fenced.get(identity) {
                    let who = format!("{rank}, earlier worker (key {})", short(identity));
                    self.rank(&who, certificate);
                    continue;
                }
                self.unconfirmed.push(format!(
                    "An earlier worker of share {rank} (key {}) lost its place to another; its end was not seen.",
                    short(identity)
                ));
            }
        }
        for rank in last.keys().filter(|rank| !facts.certified.contains_key(rank)) {
            let ranges = released.get(rank).map_or(&[][..], Vec::as_slice);
            self.unconfirmed.push(format!(
                "There is no certificate of share {rank} yet; {} had been released to it.",
                blocks(ranges)
            ));
        }
        if facts.workers.is_empty() && facts.closed.is_some() {
            self.observed.push("No worker ever joined, so nothing was released.".into());
        }
    }
}

fn observed(rank: &str, seen: &Observed) -> String {
    let mut parts = vec![format!(
        "Share {rank}: {} had been released in {}, at most {}",
        blocks(&seen.released),
        plural(u64::from(seen.releases), "release"),
        size(seen.released_bytes)
    )];
    parts.extend(seen.sent_bytes.map(|sent| format!("{} were sent, sealed", size(sent))));
    let last = seen.last_release_at;
    parts.extend(last.map(|at| format!("nothing was released after {}", when(at))));
    parts.extend(seen.last_seen.map(|at| format!("its worker was last heard at {}", when(at))));
    parts.join("; ") + "."
}

fn wipe(rank: &str, stated: &Stated) -> String {
    let discard = match &stated.discarded {
        Discarded::Done => "discarded",
        Discarded::NotDone(_) => "not discarded",
    };
    let unlinked = if stated.unlinked { "removed" } else { "not removed" };
    let unmounted = if stated.unmounted { "nothing stayed mounted" } else { "the mount stayed" };
    format!(
        "Share {rank} at {} (signed with the worker's key): keys destroyed at {}; {unmounted}; of a cache of {}, {} \
         overwritten and {} read back, {} of them wrong; then {discard} and {unlinked}. Method: {}.",
        when(stated.time),
        when(stated.keys_destroyed_at),
        size(stated.cache_bytes),
        size(stated.overwritten_bytes),
        size(stated.read_back_bytes),
        stated.mismatched_bytes,
        stated.method
    )
}
