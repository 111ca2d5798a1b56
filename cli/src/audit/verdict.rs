//! `tidegate audit verify`: every ledger of a copy, oldest first, against its key, its successor
//! and the checkpoints that left the gateway.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tidegate_ledger::{Checkpoint, Predecessor, Report, VerifierKey, verify, verify_followed};

use crate::certified::Certificates;
use crate::exit;
use crate::stored::{Stored, Volume};

/// One ledger and what is known of it.
struct Judged {
    number: usize,
    origin: String,
    known: usize,
    report: Report,
    certificates: Certificates,
    /// The head that was known of it elsewhere when it was restored, and is not reached.
    known_of: Option<Checkpoint>,
}

impl Judged {
    fn holds(&self) -> bool {
        self.report.holds() && self.certificates.faults.is_empty()
    }

    /// Entries that were lost before the restore.
    fn lost(&self) -> u64 {
        self.known_of.as_ref().map_or(0, |head| head.size.saturating_sub(self.report.size))
    }
}

pub(super) fn judge(
    stored: &Stored,
    known: &[PathBuf],
    key: Option<&Path>,
    json: bool,
) -> Result<u8> {
    let mut notes = Vec::new();
    for file in known {
        let text =
            fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        notes.push(note_in(&text));
    }
    // The copy that the gateway keeps apart counts too when it lies where it was put.
    if let Ok(copy) = fs::read_to_string(stored.dir().join("../checkpoint")) {
        notes.push(copy);
    }
    let judged = all(stored, notes, key)?;
    let holds = judged.iter().all(Judged::holds);
    tell(&judged, holds, json);
    Ok(if holds { 0 } else { exit::FAULT_FOUND })
}

/// Newest first inside, since each says what the one before it was; given back oldest first.
fn all(stored: &Stored, mut notes: Vec<String>, key: Option<&Path>) -> Result<Vec<Judged>> {
    let mut judged = Vec::new();
    let mut after: Option<Predecessor> = None;
    for (at, volume) in stored.volumes.iter().enumerate().rev() {
        let key =
            first_key(volume, after.as_ref(), key.filter(|_| at + 1 == stored.volumes.len()))?;
        let Some(key) = key else { continue };
        // Notes of no ledger here are held against the newest, which refuses them.
        let newest = after.is_none();
        let origins = earlier(stored, at);
        let (own, rest): (Vec<_>, Vec<_>) = notes.into_iter().partition(|note| {
            let origin = Checkpoint::unverified(note).map(|says| says.origin);
            match origin {
                Ok(origin) => origin == key.name() || (newest && !origins.contains(&origin)),
                Err(_) => newest,
            }
        });
        notes = rest;
        let report = match &after {
            None => verify(&volume.batches, &key, &own),
            Some(after) => verify_followed(&volume.batches, &key, &own, &after.found),
        };
        let known_of = after.take().and_then(|after| after.known);
        let known_of = known_of.filter(|head| head.origin == key.name());
        after.clone_from(&report.after);
        let origin = key.name().to_owned();
        let certificates = Certificates::read(&stored.certificates(), &volume.batches, report.size);
        judged.push(Judged {
            number: volume.number,
            origin,
            known: own.len(),
            report,
            certificates,
            known_of,
        });
    }
    judged.reverse();
    Ok(judged)
}

/// Names of the ledgers before the one at `at`.
fn earlier(stored: &Stored, at: usize) -> Vec<String> {
    let keys = stored.volumes[..at].iter().filter_map(|volume| volume.key(None).ok());
    keys.map(|key| key.name().to_owned()).collect()
}

/// As given for the newest, as the ledger that follows names it, or as it lies beside the batches. `None` for one
/// of which nothing is left.
fn first_key(
    volume: &Volume,
    after: Option<&Predecessor>,
    given: Option<&Path>,
) -> Result<Option<VerifierKey>> {
    match (given, after) {
        (None, Some(Predecessor { key: Some(key), .. })) => {
            Ok(Some(VerifierKey::parse(key).context("the next ledger names no usable key")?))
        }
        (None, Some(Predecessor { key: None, .. })) if volume.batches.is_empty() => Ok(None),
        _ => volume.key(given).map(Some),
    }
}

#[allow(clippy::print_stdout, reason = "the verdict is this command's output")]
fn tell(judged: &[Judged], holds: bool, as_json: bool) {
    if as_json {
        // The newest, as if it were alone, and all of them.
        let mut verdict = judged.last().map_or_else(|| json!({}), document);
        verdict["holds"] = holds.into();
        let sum = |of: fn(&Certificates) -> u64| -> u64 {
            judged.iter().map(|ledger| of(&ledger.certificates)).sum()
        };
        let (held, erased) = (sum(|found| found.held), sum(|found| found.erased));
        verdict["certificates"] = json!({ "held": held, "erased": erased });
        verdict["ledgers"] = judged.iter().map(document).collect();
        println!("{verdict}");
        return;
    }
    for ledger in judged {
        let Judged { number, origin, known, report, certificates, known_of } = ledger;
        let which = if judged.len() > 1 {
            format!("ledger {number} ({origin})")
        } else {
            "the ledger".to_owned()
        };
        if report.holds() {
            println!(
                "{which} holds: {} entries, head {}, {} of {known} known checkpoints agree",
                report.size, report.root, report.agreed
            );
        }
        for fault in &report.faults {
            println!("{which} does not hold: {fault}");
        }
        println!("certificates: {} hold, {} are erased", certificates.held, certificates.erased);
        for fault in &certificates.faults {
            println!("{which} does not hold: {fault}");
        }
        match (known_of, ledger.lost()) {
            (None, _) => {}
            (Some(head), 0) => println!(
                "{which} had another history of {} entries, as was known at the restore",
                head.size
            ),
            (Some(_), lost) => println!(
                "{which} had {lost} entries more, which were lost before the restore: the next ledger says so"
            ),
        }
        if report.beyond > 0 {
            println!(
                "{which}: {} batches lie behind the head that the restore found; they are no part of it",
                report.beyond
            );
        }
    }
}

fn document(judged: &Judged) -> Value {
    let Judged { number, origin, report, certificates, .. } = judged;
    let faults = report.faults.iter().map(ToString::to_string);
    let faults = faults.chain(certificates.faults.iter().map(ToString::to_string));
    let bad = report.faults.iter().map(|fault| fault.first);
    let bad = bad.chain(certificates.faults.iter().map(|fault| fault.entry));
    json!({
        "ledger": number, "origin": origin, "holds": judged.holds(), "entries": report.size,
        "root": report.root, "agreed": report.agreed, "faults": faults.collect::<Vec<_>>(),
        "first_bad": bad.min(),
        "lost": judged.lost(), "beyond": report.beyond,
    })
}

/// A checkpoint file is a signed note, or a receipt that holds one.
fn note_in(text: &str) -> String {
    serde_json::from_str::<serde_json::Value>(text)
        .ok()
        .and_then(|receipt| receipt.get("checkpoint")?.as_str().map(str::to_owned))
        .unwrap_or_else(|| text.to_owned())
}
